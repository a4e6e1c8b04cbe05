"""Sessions, messages and mailboxes as HTML: complete, well formed, and inert."""

from __future__ import annotations

import re
import smtplib
from html.parser import HTMLParser

import pytest
from dialogue import play

from labserver import Lab
from labserver.notebook import html

HOSTILE = (
    b"From: <img src=x onerror=alert(1)>\r\n"
    b"Subject: </section><script>alert(1)</script>\r\n"
    b"Content-Type: text/html\r\n"
    b"\r\n"
    b"<script>alert(2)</script><img src='http://tracker.example/x.png'>\r\n"
    b"<style>@import url(http://tracker.example/x.css)</style><form action=http://e.example>\r\n"
    b'"><svg onload=alert(3)> &amp; \x00\x1b[31m \xff\xfe\r\n'
)
VOID = {"br", "img", "path", "rect"}
EVER_MADE = {
    *("style", "section", "header", "b", "span", "time", "ol", "li", "abbr", "code", "br", "p"),
    *("details", "summary", "pre", "mark", "ul", "a", "var", "svg", "path", "rect"),
    *("dl", "dt", "dd", "table", "thead", "tbody", "tr", "th", "td"),
}


class Checker(HTMLParser):
    """Notes every element and attribute; fails where tags don't nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.links: set[str] = set()
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links |= {value or "" for name, value in attrs if name in ("href", "src")}
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def inert(page: str) -> Checker:
    """The page holds only what the views make, and links to nothing but RFCs."""
    checked = Checker(page)
    assert checked.elements <= EVER_MADE
    assert not {name for name in checked.attributes if name.startswith("on")}
    assert all(link.startswith("https://www.rfc-editor.org/rfc/") for link in checked.links)
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style is not None
    assert "url(" not in style[1]
    return checked


def words(page: str) -> str:
    """What a reader sees, without the style sheet."""
    return re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL)


def test_hostile_mail_is_inert_in_every_view(lab: Lab) -> None:
    with smtplib.SMTP(*lab.smtp, local_hostname="<b>client</b>") as client:
        client.sendmail("eve@evil.example", ["ben@lab.example"], HOSTILE)
    (message,) = inbox = lab.inbox("ben@lab.example")
    for page in (html.session(lab.sessions[-1]), html.message(message), html.mailbox(inbox)):
        inert(page)
        assert "\x1b" not in page
        assert "\x00" not in page


def test_a_hostile_client_is_inert(lab: Lab) -> None:
    session = play(
        lab,
        "smtp",
        """
        S: 220 ...
        C: EHLO <script>alert(1)</script>
        S: 250-...
        -- client closes
        """,
    )
    inert(html.session(session))


def test_each_line_shows_who_spoke_what_and_its_meaning(lab: Lab) -> None:
    session = play(
        lab,
        "smtp",
        """
        S: 220 ...
        C: NOOP
        S: 250 ...
        C: QUIT
        S: 221 ...
        -- server closes
        """,
    )
    page = html.session(session)
    checked = inert(page)
    assert page.count('title="client"') == 2
    assert page.count('title="server"') == 3
    assert page.count("<time>") == 6
    assert checked.links
    for said in ("NOOP", "221 Bye", "250 done"):
        assert said in words(page)


@pytest.mark.parametrize("listener", ["submissions", "pop3s", "imaps"])
def test_what_was_under_tls_is_marked(lab: Lab, listener: str) -> None:
    play(lab, listener, "S: ... ready")
    page = html.session(lab.sessions[-1])
    assert "inside TLS 1.3" in page
    assert 'class="S tls"' in page


def test_passwords_are_masked(lab: Lab) -> None:
    session = play(
        lab,
        "pop3",
        """
        S: +OK ...
        C: USER ana@lab.example
        S: +OK ...
        C: PASS ana-lab-password
        S: +OK ...
        C: QUIT
        S: +OK ...
        """,
    )
    page = html.session(session)
    assert "ana-lab-password" not in page
    assert "••••" in page


def test_how_a_session_ended_is_said(lab: Lab) -> None:
    session = play(lab, "smtp", "-- client closes")
    assert "The client went away without a word." in html.session(session)


def test_what_differs_between_machines_is_marked_for_comparison(lab: Lab) -> None:
    pages = []
    for name in ("one.example", "two.example"):
        with smtplib.SMTP(*lab.smtp, local_hostname=name) as client:
            client.noop()
            client.ehlo()
        page = html.session(lab.sessions[-1])
        assert name in page
        page = re.sub(r"(<time[^>]*>)[^<]*(</time>)", r"\1\2", page)
        page = re.sub(r'(<var data-stable="([^"]*)">)[^<]*(</var>)', r"\1\2\3", page)
        pages.append(page)
    assert pages[0] == pages[1]


def test_doubled_dots_are_marked(lab: Lab) -> None:
    with smtplib.SMTP(*lab.smtp) as client:
        client.sendmail("a@b.example", ["ben@lab.example"], b"Subject: x\r\n\r\n.dot\r\n")
    assert "<mark>.</mark>.dot" in html.session(lab.sessions[-1])


def test_a_long_message_is_shown_in_part_and_says_so(lab: Lab) -> None:
    content = b"Subject: long\r\n\r\n" + b"word\r\n" * 100_000
    with smtplib.SMTP(*lab.smtp) as client:
        client.sendmail("a@b.example", ["ben@lab.example"], content)
    session, (message,) = lab.sessions[-1], lab.inbox("ben@lab.example")
    assert "more lines not shown" in html.session(session)
    assert "600,017 octets" in html.session(session)
    assert "The transcript keeps the first 65,536 octets." in html.session(session)
    assert "more lines not shown" in html.message(message)
    assert len(html.session(session)) < 60_000


def test_an_empty_mailbox_says_so(lab: Lab) -> None:
    page = html.mailbox(lab.inbox("ana@lab.example"))
    inert(page)
    assert "No message here." in page
