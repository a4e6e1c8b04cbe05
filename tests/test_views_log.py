"""A log from elsewhere as HTML: complete, well formed, and inert."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from labserver import read_log, show

SAMPLES = Path(__file__).parent / "data" / "logs"
HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>"


class Tags(HTMLParser):
    """Which elements there are; fails where they aren't closed in order."""

    void = ("br", "path", "rect")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        assert not any(name.startswith("on") or name == "src" for name, _ in attrs)
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.void:
            assert self.open.pop() == tag


def test_a_log_is_shown_as_its_sessions_and_the_rest() -> None:
    html = show(read_log((SAMPLES / "swaks-submission.txt").read_text(encoding="utf-8"))).html
    assert {"section", "details", "pre"} <= Tags(html).seen
    assert html.count("<section") == 2
    assert "Read from swaks" in html
    assert "=== Connected to 127.0.0.1." in html
    assert "235 2.7.0" in html
    assert "AGFuYUBsYWIuZXhhbXBsZQBhbmEtbGFiLXBhc3N3b3Jk" not in html


def test_what_stands_in_a_log_is_never_run() -> None:
    html = show(read_log(f"{HOSTILE}\n<-  220 {HOSTILE}\n -> EHLO {HOSTILE}\n")).html
    assert not Tags(html).seen & {"script", "img"}


def test_a_log_of_many_dialogues_shows_its_first() -> None:
    html = show(read_log("S: 220 x\nC: QUIT\nS: 221 x\n" * 30)).html
    assert html.count("<section") == 21
    assert "Only the first 20 dialogues are shown." in html
