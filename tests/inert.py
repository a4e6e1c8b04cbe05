"""Judges the HTML of a view: well formed, and with nothing in it that acts or fetches."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser

from labserver import View

HOSTILE = (
    b"From: <img src=x onerror=alert(1)>\r\n"
    b"Subject: </section><script>alert(1)</script>\r\n"
    b"Content-Type: text/html\r\n"
    b"\r\n"
    b"<script>alert(2)</script><img src='http://tracker.example/x.png'>\r\n"
    b"<style>@import url(http://tracker.example/x.css)</style><form action=http://e.example>\r\n"
    b'"><svg onload=alert(3)> &amp; \x00\x1b[31m \xff\xfe\r\n'
)
"""A message that tries all it can."""

VOID = {"br", "input"}
EVER_MADE = {
    *("style", "section", "header", "b", "span", "time", "ol", "li", "code", "br", "p", "label"),
    *("details", "summary", "pre", "mark", "ul", "a", "input", "dl", "dt", "dd"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td", "div", "i", "del", "ins"),
    *("svg", "title", "desc", "g", "path", "rect", "line", "circle", "text", "tspan"),
}
ATTRIBUTES = {
    *("class", "datetime", "role", "aria-label", "aria-hidden", "title", "href", "style"),
    *("tabindex", "type", "scope", "colspan", "open", "value", "start"),
    *("width", "height", "viewbox", "d", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "rx"),
    *("fill", "stroke", "stroke-width", "text-anchor", "dx", "dy", "overflow", "transform"),
}
STANDARDS = (
    "https://www.rfc-editor.org/rfc/",
    "https://www.iana.org/assignments/",
    "https://datatracker.ietf.org/doc/",
)


class Checker(HTMLParser):
    """Notes every element and attribute; fails where tags don't nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.links: set[str] = set()
        self.styles: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # Only within SVG does a slash end an element.
        assert "svg" in self.open, tag
        self._note(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def _note(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"{tag} has an attribute twice"
        self.elements.add(tag)
        self.attributes |= set(names)
        self.links |= {value or "" for name, value in attrs if name in ("href", "src")}
        self.styles += [value or "" for name, value in attrs if name == "style"]


def inert(view: View) -> Checker:
    """The view holds only what views are made of, and links to nothing but standards."""
    checked = Checker(view.html)
    assert checked.elements <= EVER_MADE
    assert checked.attributes <= ATTRIBUTES
    assert all(link.startswith(STANDARDS) for link in checked.links)
    styles = re.findall(r"<style>(.*?)</style>", view.html, re.DOTALL)
    assert len(styles) == 1
    for style in (*styles, *checked.styles):
        assert "url(" not in style
        assert "@import" not in style
    assert all(c.isprintable() or c == "\n" for c in view.html + view.text)
    return checked


def words(view: View) -> str:
    """What a reader sees, without the style sheet."""
    shown = re.sub(r"<style>.*?</style>|<[^>]+>", " ", view.html, flags=re.DOTALL)
    return " ".join(unescape(shown).split())
