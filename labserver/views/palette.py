"""The palette: `data/palette.css` names every colour that the lab's views and pages use.

The page of `serve --ui` and the book have the file itself. What stands in somebody else's page, a
view or a quiz, brings only the colours that it uses, and for itself alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType

_COLOUR = re.compile(r"--(?P<name>[a-z]+): light-dark\((?P<light>#\w+), (?P<dark>#\w+)\);")


def css() -> str:
    """The file, which gives the colours to a whole page."""
    return files("labserver").joinpath("data", "palette.css").read_text(encoding="utf-8")


@cache
def colours() -> Mapping[str, tuple[str, str]]:
    """For each name its light and its dark colour."""
    found = _COLOUR.finditer(css())
    return MappingProxyType({one["name"]: (one["light"], one["dark"]) for one in found})


def rule(selector: str, sheet: str) -> str:
    """A CSS rule that gives the selected elements the colours that the style sheet uses."""
    used = set(re.findall(r"var\(--([a-z]+)\)", sheet))
    values = (
        f"--{name}: light-dark({light}, {dark})"
        for name, (light, dark) in colours().items()
        if name in used
    )
    return f"{selector} {{ {'; '.join(values)} }}\n"


def light(name: str) -> str:
    """The light colour of that name."""
    return colours()[name][0]


def dark(name: str) -> str:
    """The dark colour of that name."""
    return colours()[name][1]
