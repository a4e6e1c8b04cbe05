"""Repairs to what Jupyter Book 1 and its theme put into a page. Each says what it mends."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from labserver.views.view import KINDS, SHEETS, sheet, styles

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def _drop_thebe(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Jupyter Book adds thebe's scripts, twice, and its style sheet even when thebe is off."""
    for kind in ("script_files", "css_files"):
        context[kind] = [asset for asset in context.get(kind, []) if not _is_thebe(asset)]


def _is_thebe(asset: Any) -> bool:
    name = str(getattr(asset, "filename", asset) or "")
    body = str(getattr(asset, "attributes", {}).get("body", "") or "")
    return "thebe" in name or "THEBE_JS_URL" in body


def _write_view_styles(app: Sphinx) -> None:
    static = Path(app.outdir) / "_static"
    static.mkdir(parents=True, exist_ok=True)
    (static / "views.css").write_text("\n".join(map(sheet, SHEETS)), encoding="utf-8")


def _share_view_styles(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Each view brings its style sheets, and HTML allows none within a page's body; here all views
    share one file."""
    body = whole = context.get("body") or ""
    for style in map(styles, KINDS):
        body = body.replace(style, "")
    if body != whole:
        context["body"] = body
        app.add_css_file("views.css")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", _write_view_styles)
    app.connect("html-page-context", _share_view_styles)
    app.connect("html-page-context", _drop_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
