"""The palette: the one place that names a colour."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from labserver.views import palette
from labserver.views.view import KINDS, View

ROOT = Path(__file__).parents[1]
STYLED = sorted(
    path
    for folder in ("labserver", "book")
    for kind in ("css", "py", "js", "html")
    for path in (ROOT / folder).rglob(f"*.{kind}")
    if path.name != "palette.css" and "_views" not in path.parts  # which the build writes
)
COLOUR = re.compile(
    r"#(?:[0-9a-f]{3,4}|[0-9a-f]{6}|[0-9a-f]{8})\b|\b(?:rgba?|hsla?|oklch|lab|light-dark)\(#?\d",
    re.IGNORECASE,
)


def uses(css: str) -> set[str]:
    return set(re.findall(r"var\(--([\w-]+)\)", css))


def sets(css: str) -> set[str]:
    return set(re.findall(r"--([\w-]+):", css))


def test_it_names_each_colour_for_light_and_for_dark() -> None:
    assert len(palette.colours()) == palette.css().count("  --")
    assert {"ink", "paper", "c", "s", "ok", "later", "no"} <= set(palette.colours())
    assert palette.light("ink") != palette.dark("ink")


@pytest.mark.parametrize("path", STYLED, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_other_file_names_a_colour(path: Path) -> None:
    assert not COLOUR.findall(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", KINDS)
def test_a_view_brings_the_colours_that_its_sheet_uses_and_no_others(name: str) -> None:
    html = View(name, "", "").html
    assert html.count("<style>") == html.count("</style>") == 1
    assert not uses(html) - sets(html) - {"n", "d"}  # these two are an element's own
    assert not (sets(html) & set(palette.colours())) - uses(html)


@pytest.mark.parametrize("name", ["web/page.css", "data/jupyterquiz.css"])
def test_every_colour_that_the_page_and_the_quiz_use_is_in_it(name: str) -> None:
    css = (ROOT / "labserver" / name).read_text(encoding="utf-8")
    assert not uses(css) - sets(css) - set(palette.colours())


def test_the_colours_of_a_view_are_for_itself_alone() -> None:
    rule = palette.rule(".Quiz", "a { color: var(--no) } b { color: var(--nowhere) }")
    assert rule == f".Quiz {{ --no: light-dark({palette.light('no')}, {palette.dark('no')}) }}\n"
    assert ":root" not in View("dialogue", "", "").html
