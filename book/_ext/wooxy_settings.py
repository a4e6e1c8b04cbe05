"""Gives every page Wooxy's settings as MyST substitutions, e.g. ``{{ wooxy.server }}``.

The values stand once, in ``book/data/wooxy.yml``. Nothing about how a page looks lives here.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from babel.dates import format_date

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.config import Config

SETTINGS = Path(__file__).parents[1] / "data" / "wooxy.yml"

# MyST substitutes nothing inside backticks, so the backticks come with the value.
TYPED = ("server", "port")


def substitutions(path: Path = SETTINGS) -> dict[str, Any]:
    """Return what the pages may substitute, as Markdown: ``{"wooxy": the settings}``.

    Dates become words, and what the reader types letter by letter becomes code.
    """
    return {"wooxy": _as_markdown("wooxy", yaml.safe_load(path.read_text(encoding="utf-8")))}


def _as_markdown(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {inner: _as_markdown(inner, value[inner]) for inner in value}
    if isinstance(value, datetime.date):
        return format_date(value, "d MMMM yyyy", locale="en")
    return f"`{value}`" if key in TYPED else value


def _give_to_myst(app: Sphinx, config: Config) -> None:
    config.myst_substitutions = {**config.myst_substitutions, **substitutions()}


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", _give_to_myst)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
