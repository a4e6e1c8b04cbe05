"""Whatever shows a session or a message shows what was said; the normal form is for storing."""

from __future__ import annotations

import contextlib
import imaplib
import io
import poplib
import re
import smtplib
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest
from dialogue import play
from inert import words

from labserver import (
    Lab,
    Session,
    View,
    compare,
    fork,
    read_log,
    replay,
    sequence,
    show,
    wire,
)
from labserver.transcript import MASK
from labserver.web.sessions import VIEWS as ON_THE_PAGE

README = Path(__file__).parents[1] / "README.md"
ANA, BEN = "ana@lab.example", "ben@lab.example"

VIEWS: dict[str, Callable[[Session], View]] = {
    "show": show,
    "replay": replay,
    "wire": wire,
    "compare": lambda session: compare(session, session),
    "compare, with numbers": lambda session: compare(session, session, numbers=True),
    "sequence": sequence,
    "sequence on the page": ON_THE_PAGE["sequence"],
    "dialogue on the page": ON_THE_PAGE["dialogue"],
    "wire on the page": ON_THE_PAGE["wire"],
}
LETTER = (
    b"Received: from my.own.host by relay.example; Tue, 3 Nov 2026 01:02:03 +0100\r\n"
    b"Date: Mon, 02 Nov 2026 10:11:12 +0000\r\n"
    b"Message-ID: <my-own@id.example>\r\n"
    b"From: ana@lab.example\r\n"
    b'Content-Type: text/plain; charset=utf-8; boundary="===============123=="\r\n'
    b"Content-Transfer-Encoding: 8bit\r\n"
    b"\r\n"
    b"Gr\xc3\xbc\xc3\x9fe \xff\r\n"
)


def by_smtplib(lab: Lab) -> Session:
    """Small letters, a name of its own, its own Date and Message-ID, eight bits."""
    with smtplib.SMTP(*lab.smtp, local_hostname="my.real.host") as client:
        client.sendmail("me@shop.example", [BEN], LETTER, mail_options=["body=8bitmime"])
    return lab.sessions[-1]


def by_hand(lab: Lab) -> Session:
    return play(
        lab,
        "smtp",
        """
        S: 220 ...
        C: helo  [IPv6:2001:db8::1]
        S: 250 ...
        C: mAIL from:<me@shop.example> siZe=10
        S: 501 ...
        C: noOp Received: from elsewhere Message-ID: <x@y>
        S: 250 ...
        C: vrfy 3 Nov 2026 01:02:03 GMT
        S: 550 ...
        C: quit
        S: 221 ...
        """,
    )


def by_poplib(lab: Lab) -> Session:
    by_smtplib(lab)
    client = poplib.POP3(*lab.pop3)
    client._shortcmd("user ben@lab.example")  # type: ignore[attr-defined]
    client.pass_(lab.accounts[BEN])
    client._longcmd("retr 1")  # type: ignore[attr-defined]
    client._shortcmd("qUIT")  # type: ignore[attr-defined]
    client.close()
    return lab.sessions[-1]


def by_imaplib(lab: Lab) -> Session:
    by_smtplib(lab)
    with imaplib.IMAP4(*lab.imap) as client:
        client.login(BEN, lab.accounts[BEN])
        client.append("INBOX", "", '" 3-Nov-2026 01:02:03 +0100"', LETTER)
        client.select("inbox")
        client.fetch("1", "(internaldate BODY[])")
        client.uid("fetch", "1", "flags")
    return lab.sessions[-1]


def by_hand_in_imap(lab: Lab) -> Session:
    return play(
        lab,
        "imap",
        """
        S: * OK ...
        C: Zz.9 capability
        S: * CAPABILITY ...
        S: Zz.9 OK ...
        C: tag Uid nooP
        S: tag BAD ...
        C: bye Logout
        S: * BYE ...
        S: bye OK ...
        """,
    )


TALKS = [by_smtplib, by_hand, by_poplib, by_imaplib, by_hand_in_imap]


def said(session: Session, *, longest: int = 10**6) -> list[str]:
    """Each row of what was said, taken from its octets; a password masked."""
    rows = []
    for line in session.lines:
        start, end = line.secret or (0, 0)
        data = line.data[:start] + MASK.encode() * bool(line.secret) + line.data[end:]
        for row in data.removesuffix(b"\r\n").split(b"\r\n"):
            text = row.decode("utf-8", "backslashreplace").replace("\t", "\\t")
            rows += [text] if len(text) <= longest else []
    return rows


@pytest.mark.parametrize("talk", TALKS, ids=lambda one: one.__name__)
def test_a_printed_session_is_what_was_said(lab: Lab, talk: Callable[[Lab], Session]) -> None:
    session = talk(lab)
    heading, *rows = str(session).split("\n")
    assert heading == f"{session.protocol} on {session.listener}"
    assert [row[2:].removeprefix(" ") for row in rows if not row.startswith("-- ")] == said(session)
    assert session.text() == session.text(exact=True)


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("talk", TALKS, ids=lambda one: one.__name__)
def test_every_view_shows_what_was_said(
    lab: Lab, talk: Callable[[Lab], Session], name: str
) -> None:
    session = talk(lab)
    view = VIEWS[name](session)
    drawn = "sequence" in name
    folded = drawn or "compare" in name
    lines = [line for line in session.lines if not (folded and line.kind == "content")]
    if drawn:  # of a long reply it draws the first line
        lines = [
            line
            for before, line in zip([None, *lines], lines, strict=False)
            if not (before and line.kind == "reply" and before.data[3:4] == b"-")
        ]
    spoken = Session(**{f: getattr(session, f) for f in FIELDS} | {"lines": tuple(lines)})
    page = "".join(words(view).split())
    for row in said(spoken, longest=60 if drawn else 900):
        assert not row or row.strip() in view.text
        assert "".join(row.split()) in page
    for made_up in ("client.example", "(date)", "(message id)", "(boundary)"):
        assert made_up not in view.text
        assert made_up not in page


FIELDS = (
    *("number", "protocol", "listener", "started", "lines", "records", "duration", "closed"),
    *("tls", "ending", "dropped"),
)


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("talk", TALKS, ids=lambda one: one.__name__)
def test_in_normal_form_two_runs_are_the_same(
    lab: Lab, talk: Callable[[Lab], Session], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = talk(lab)
    monkeypatch.setenv("LABSERVER_OUTPUT", "normal")
    with Lab(network=lab.network) as other:
        again = talk(other)
    assert VIEWS[name](session).text == VIEWS[name](again).text
    if "wire" not in name:
        assert VIEWS[name](session).html == VIEWS[name](again).html
    shown = VIEWS[name](session).text + words(VIEWS[name](session)) + str(session)
    for differing in ("my.real.host", "my.own.host", "my-own@id", "2001:db8", "Zz.9", "noOp"):
        assert differing not in shown


def test_a_printed_message_is_what_arrived(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    by_smtplib(lab)
    (message,) = lab.inbox(BEN)
    text = message.octets.decode("utf-8", "backslashreplace").replace("\t", "\\t")
    assert str(message) == text.removesuffix("\r\n").replace("\r\n", "\n")
    view = show(message)
    for shown in (view.text, words(view)):
        for part in ("from my.real.host", "from my.own.host", "<my-own@id.example>", "10:11:12"):
            assert part in shown
    assert "client.example" not in view.text + view.html
    monkeypatch.setenv("LABSERVER_OUTPUT", "normal")
    normal = str(message) + show(message).text + words(show(message))
    assert "Received: from client.example" in normal
    assert "Date: (date)" in normal
    for part in ("my.real.host", "my.own.host", "my-own@id.example", "10:11:12"):
        assert part not in normal


def test_a_fork_shows_what_each_side_said(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    session = by_smtplib(lab)
    number = next(n for n, line in enumerate(session.lines, 1) if b"rcpt" in line.data)
    other = fork(session, number, "RcPt to:<nobody@lab.example>", lab=lab)
    for shown in (str(other), show(other).text):
        assert "mail FROM:<me@shop.example> size=" in re.sub(r"\s+", " ", shown)
        assert "RcPt to:<nobody@lab.example>" in shown
    page = re.sub(r"</?mark>", "", show(other).html)
    assert "RcPt to:&lt;nobody@lab.example&gt;" in page
    assert "ehlo my.real.host" in page
    monkeypatch.setenv("LABSERVER_OUTPUT", "normal")
    assert "RCPT TO:<nobody@lab.example>" in str(other)
    assert "EHLO client.example" in words(show(other))


def test_a_log_that_was_read_shows_what_it_said() -> None:
    log = read_log("S: 220 x\nC: ehlo my.real.host\nS: 250 x\nC: mail FROM:<> size=1\nS: 250 ok\n")
    for shown in (str(log), show(log).text, words(show(log)), show(log, numbers=True).html):
        assert "ehlo my.real.host" in shown
        assert "mail FROM:<> size=1" in unescape(shown)


@pytest.mark.process
def test_the_five_lines_of_the_readme_are_true(lab: Lab) -> None:
    (program,) = re.findall(
        r"## Five lines\n\n```python\n(.*?)```", README.read_text("utf-8"), re.S
    )
    printed = io.StringIO()
    names: dict[str, Lab] = {}
    with contextlib.redirect_stdout(printed):
        exec(program, names)
    with names["lab"] as its:
        (session,), (message,) = its.sessions, its.inbox(ANA)
        assert printed.getvalue() == f"{session}\n{message}\n"
        rows = [row[2:].removeprefix(" ") for row in str(session).split("\n")[1:]]
        assert rows == said(session)
        assert str(message).encode().replace(b"\n", b"\r\n") == message.octets.removesuffix(b"\r\n")
