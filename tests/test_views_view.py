"""What all views share: their shape, and that no session is too strange for any."""

from __future__ import annotations

import random
import re
import smtplib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import get_args

import pytest
from dialogue import play
from inert import inert

from labserver import (
    Lab,
    Line,
    Record,
    Session,
    View,
    compare,
    replay,
    sequence,
    show,
    states,
    timeline,
    wire,
)
from labserver.transcript import LineKind, ProtocolName, RecordType
from labserver.views.view import KINDS, bounded, sheet, shortened, styles, wrapped

VIEWS: dict[str, Callable[[Session], View]] = {
    "show": show,
    "show, revealed": lambda session: show(session, reveal=True),
    "replay": replay,
    "sequence": sequence,
    "states": states,
    "wire": wire,
    "wire, revealed": lambda session: wire(session, reveal=True),
    "compare": lambda session: compare(session, session),
    "timeline": timeline,
}
WORDS = (
    *(b"EHLO x\r\n", b"250-a\r\n", b"250 b\r\n", b"DATA\r\n", b"354 go\r\n", b".\r\n"),
    *(b"..x\r\n", b"STARTTLS\r\n", b"AUTH PLAIN AGEAYg==\r\n", b"a LOGIN x {3}\r\n", b"+ \r\n"),
    *(b"* 1 FETCH\r\n", b"PASS x\r\n", b"+OK\r\n", b"-ERR [X]\r\n", b"a OK\r\n", b"\r\n", b"\n"),
    *(b"", b"\xff\x00\x1b", b"\t \r\n", b"250", b"x" * 300, b"<script>&\"'\r\n"),
    "\u202e漢\u2028\r\n".encode(),
)


def strange(seed: int) -> Session:
    """A session that no server would have."""
    source = random.Random(seed)
    lines, records = [], []
    for _ in range(source.randrange(30)):
        data = b"".join(source.choices(WORDS, k=source.choice((1, 1, 1, 3))))
        secret = (0, source.randrange(len(data) + 1)) if source.random() < 0.2 else None
        octets = len(data) + source.choice((0, 0, 0, 1000))
        kind = source.choice(get_args(LineKind))
        tls = source.random() < 0.5
        at = source.choice((0.0, source.random(), 1e9))
        lines.append(Line(at, source.choice("CS"), data, tls, kind, octets, secret))  # type: ignore[arg-type]
    for _ in range(source.randrange(30)):
        kind = source.choice(get_args(RecordType))
        data = source.choice(WORDS) if kind == "plain" else b""
        octets = len(data) + source.choice((0, 5, 10**9))
        records.append(Record(source.random(), source.choice("CS"), kind, octets, data))  # type: ignore[arg-type]
    return Session(
        number=seed,
        protocol=source.choice(get_args(ProtocolName)),
        listener="strange",
        started=datetime(2026, 1, 1, tzinfo=UTC),
        lines=tuple(lines),
        records=tuple(records),
        duration=source.random(),
        closed=source.random() < 0.5,
        tls=source.choice(("", "TLSv1.2", "TLSv1.3")),
        ending=source.choice(("", "the client went away")),
        dropped=source.choice((0, 9)),
    )


@pytest.mark.long
@pytest.mark.parametrize("name", VIEWS)
def test_no_session_is_too_strange(name: str) -> None:
    for seed in range(8 if name == "timeline" else 60):
        inert(VIEWS[name](strange(seed)))


def test_two_strange_sessions_can_be_compared() -> None:
    for seed in range(60):
        inert(compare(strange(seed), strange(seed + 1)))


@pytest.mark.parametrize("name", VIEWS)
def test_a_session_read_from_json_looks_the_same(lab: Lab, name: str) -> None:
    with smtplib.SMTP(*lab.submission) as client:
        client.starttls(context=lab.tls)
        client.login("ana@lab.example", lab.accounts["ana@lab.example"])
    session = lab.sessions[-1]
    read = Session.from_json(session.to_json(reveal=True))
    assert VIEWS[name](read) == VIEWS[name](session)
    if "revealed" not in name:
        assert VIEWS[name](Session.from_json(session.to_json())) == VIEWS[name](session)


def spoken(*lines: tuple[str, bytes, str], protocol: ProtocolName = "SMTP") -> Session:
    made = tuple(Line(0.0, who, data, False, kind, len(data)) for who, data, kind in lines)  # type: ignore[arg-type]
    return Session(1, protocol, "x", datetime(2026, 1, 1, tzinfo=UTC), made, (), 1.0, True)


def secret(n: int) -> Session:
    session = spoken(("C", b"AUTH PLAIN " + b"QUJD" * (n // 4), "command"))
    return replace(session, lines=(replace(session.lines[0], secret=(11, 11 + n // 4 * 4)),))


def unread(n: int) -> Session:
    return replace(spoken(), records=(Record(0, "C", "plain", n, b"x" * n),))


LONG: dict[str, Callable[[int], Session]] = {
    "a command": lambda n: spoken(("C", b"EHLO " + b"x" * n, "command")),
    "octets that are no text": lambda n: spoken(("C", b"\xff\x00" * (n // 2), "command")),
    "words": lambda n: spoken(("C", b"a " * (n // 2), "command")),
    "marks": lambda n: spoken(("S", b"250 " + b"<&" * (n // 2), "reply")),
    "a tag": lambda n: spoken(("C", b"a" * n + b" NOOP", "command"), protocol="IMAP"),
    "one row of content": lambda n: spoken(("C", b"x" * n, "content")),
    "bare line feeds": lambda n: spoken(("C", b"\n" * n, "content")),
    "rows of content": lambda n: spoken(("C", b"x\r\n" * (n // 3), "content")),
    "rows of credentials": lambda n: spoken(("C", b"\r\n" * (n // 2), "credentials")),
    "lines of a reply": lambda n: spoken(*[("S", b"250-a\r\n", "reply")] * (n // 20)),
    "lines without an answer": lambda n: spoken(*[("C", b"NOOP\r\n", "command")] * (n // 20)),
    "a password": secret,
    "octets that are no lines": unread,
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("kind", LONG)
def test_however_much_was_said_a_view_stays_as_large(name: str, kind: str) -> None:
    sizes = []
    for many in (20_000, 40_000, 80_000):
        view = VIEWS[name](LONG[kind](many))
        sizes.append((len(view.html), len(view.text)))
    for html, text in sizes:
        assert html < sizes[0][0] + 1_000
        assert text < sizes[0][1] + 100


@pytest.mark.parametrize("name", ["show", "replay", "sequence", "wire", "compare"])
def test_what_is_cut_from_a_line_is_counted(name: str) -> None:
    view = VIEWS[name](spoken(("C", b"EHLO " + b"x" * 31_000, "command")))
    for shown in (view.html, view.text):
        kept, left = re.findall(r"EHLO (x+) … ([\d,]+) octets more", shown)[0]
        assert len(kept) + int(left.replace(",", "")) == 31_000


def test_a_view_is_its_html_in_a_notebook_and_its_text_elsewhere() -> None:
    view = View("fork compare", "<p>html</p>", "text")
    assert (str(view), repr(view), view._repr_html_()) == ("text", "text", view.html)
    assert view.html == f"{styles('fork compare')}<p>html</p>"


@pytest.mark.parametrize("name", VIEWS)
def test_the_body_of_a_view_holds_no_style_and_its_html_each_sheet_once(
    lab: Lab, name: str
) -> None:
    view = VIEWS[name](play(lab, "smtp", "S: ..."))
    assert "<style" not in view.body
    assert view.html == styles(view.kind) + view.body
    assert view.kind in KINDS
    assert view.html.count("<style>") == 1
    for one in view.kind.split():
        (first, *_) = re.findall(r"\.ml-\w+[^{]*\{", sheet(one))
        assert first.rstrip(" {") in view.html


def test_a_squeezed_style_sheet_says_the_same() -> None:
    for kind in KINDS:
        css = "".join(map(sheet, ("view", *kind.split())))
        brought = styles(kind)
        for sign in "{}":
            assert brought.count(sign) == css.count(sign) + 1  # and the rule of its colours
        words = re.findall(r"[\w.#-]+", css)
        assert re.findall(r"[\w.#-]+", brought)[-len(words) - 1 : -1] == words
        assert brought.count(" - ") == css.count(" - ")


def test_rows_of_text_keep_within_their_cells() -> None:
    for seed in range(300):
        source = random.Random(seed)
        text = "".join(source.choices("ab 漢", k=source.randrange(60)))
        rows = wrapped(text, 9, first=source.randrange(1, 10))
        assert "".join(rows).replace(" ", "") == text.replace(" ", "")
        assert all(len(row) + row.count("漢") <= 9 for row in rows)
        assert len(wrapped(text, 9, most=2)) <= 2
        assert len(shortened(text, 9)) <= 9


def test_what_is_left_out_is_told() -> None:
    assert bounded([*range(9)], 9, lambda n: -n) == [*range(9)]
    assert bounded([*range(30)], 9, lambda n: -n) == [0, 1, 2, 3, 4, 5, -21, 27, 28, 29]
