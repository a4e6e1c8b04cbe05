"""A session as somebody on the path sees it: plain text, then only records and their sizes."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from typing import NamedTuple

from labserver import normal_form
from labserver.transcript import (
    MASK,
    Line,
    Record,
    Session,
    expect_sessions,
    numbered,
    readable,
    rows_of,
)
from labserver.views.view import (
    LOCK,
    LONGEST,
    View,
    bounded,
    clock,
    count,
    frame,
    label,
    tls_name,
    who,
)

_MOST_ROWS = 200
"""Plain lines shown, and as many TLS records."""
_BODY_LINES = 20
_OVERHEAD = 22
"""Octets that TLS 1.3 adds to a piece of plain text: header, content type and tag (RFC 8446
section 5.2)."""
_SCALE = 8
"""Octets in one pixel of a record's bar."""


class _Plain(NamedTuple):
    """A line that could be read."""

    number: int
    line: Line
    shown: str


def wire(session: Session, *, reveal: bool = False, numbers: bool = False) -> View:
    """What somebody on the path between client and server sees.

    Without TLS everything: each command, the password (plain, or in base64, which hides nothing),
    the message. Under TLS only how many octets went which way. Passwords are masked unless
    `reveal` is set, and it is said that they are; with `numbers` each line has its number, from 1.
    """
    expect_sessions("wire()", session)
    seen = _OnPath(session, reveal, numbers)
    title = f"{session.protocol} on {session.listener}, on the wire"
    body = frame("wire", title, f"<ol>{''.join(seen.html())}</ol>", facts=seen.facts())
    text = "\n".join((f"{title}: {', '.join(seen.facts())}", *seen.text()))
    return View("wire", body, text)


class _OnPath:
    """What somebody on the path sees, in order."""

    def __init__(self, session: Session, reveal: bool, numbers: bool) -> None:
        self.session, self.reveal, self.numbers = session, reveal, numbers
        shown = session.texts(reveal=reveal, body_lines=_BODY_LINES, longest=LONGEST)
        both = enumerate(zip(session.lines, shown, strict=True), 1)
        self.plain = [_Plain(n, line, text) for n, (line, text) in both if not line.tls]
        records = session.records
        self.unread: list[Record] = []
        """Plain octets that belong to no line: beyond the bound, or sent where TLS was expected."""
        if not self.plain:
            self.unread = [record for record in records if record.type == "plain"]
        self.tls = [record for record in records if record.type != "plain"]
        begins = _first_of_dialogue(session, self.tls)
        self.handshake, self.tunnel = self.tls[:begins], self.tls[begins:]
        self.exposed = any(one.line.secret for one in self.plain)

    def facts(self) -> list[str]:
        """What could be read, as facts for the heading."""
        if not self.plain and not self.unread:
            return ["nothing could be read" if self.tls else "nothing was sent"]
        facts = ["the password could be read"] if self.exposed else []
        if any(one.line.kind == "content" for one in self.plain):
            facts.append("the message could be read")
        if not facts:
            facts.append("only the beginning could be read" if self.tls else "all could be read")
        return facts

    # -- as HTML

    def html(self) -> Iterator[str]:
        """The list's items."""
        turns = [self._turn(rows) for rows in _turns(self.plain)]
        yield from bounded(turns, _MOST_ROWS, _html_gap)
        yield from bounded([self._unread(one) for one in self.unread], _MOST_ROWS, _html_gap)
        if self.exposed and not self.reveal:
            yield (
                f'<li class="aside"><b class="masked">{MASK}</b> hides a password here. '
                "On the path it could be read.</li>"
            )
        if self.handshake:
            octets = sum(record.octets for record in self.handshake)
            inside = "".join(
                bounded(
                    [
                        f"<li>{who(one.who)} {escape(one.type)}, {_varying(one.octets)} octets</li>"
                        for one in self.handshake
                    ],
                    _MOST_ROWS,
                    _html_gap,
                )
            )
            yield (
                f'<li class="tls aside">{LOCK}<details><summary>{tls_name(self.session)} '
                f"handshake: {_varying(len(self.handshake))} records, {_varying(octets)} octets"
                f"</summary><ul>{inside}</ul></details></li>"
            )
        yield from bounded([_record(one) for one in self.tunnel], _MOST_ROWS, _html_gap)
        if not (self.plain or self.unread or self.tls):
            yield '<li class="aside">Nothing crossed the wire.</li>'

    def _turn(self, rows: list[_Plain]) -> str:
        """What one side said before the other spoke, or a piece of content."""
        number, line, shown = rows[0]
        if line.kind == "content":
            more = line.text_lines - _BODY_LINES
            rest = f'<p class="more">{more:,} more lines</p>' if more > 0 else ""
            said = (
                f"<details><summary>{label(number, self.numbers)}message content, "
                f"{line.octets:,} octets</summary><pre>{escape(shown)}</pre>{rest}</details>"
            )
        else:
            lines = bounded(
                [*map(self._code, rows)], _MOST_ROWS, lambda n: f"[{n:,} more lines not shown]"
            )
            said = f"<code>{'<br>'.join(lines)}</code>"
        for one in rows[:_MOST_ROWS]:
            if decoded := self._decoded(one.line):
                said += f'<p class="more">base64 of <code>{escape(decoded)}</code></p>'
        return _item(line.who, line.at, said)

    def _code(self, one: _Plain) -> str:
        shown = escape(one.shown) or "&nbsp;"
        if one.line.secret is not None and not self.reveal:
            shown = shown.replace(MASK, f'<b class="masked">{MASK}</b>')
        return f"{label(one.number, self.numbers)}{shown}"

    def _decoded(self, line: Line) -> str:
        """The decoded text of a revealed secret that is base64."""
        if not self.reveal or line.secret is None:
            return ""
        start, end = line.secret
        try:
            said = b64decode(line.data[start:end], validate=True).decode("utf-8")
        except ValueError:
            return ""
        return readable(said.encode(), LONGEST)

    def _unread(self, record: Record) -> str:
        said = readable(record.data, LONGEST) if self.reveal or record.who == "S" else MASK
        code = f"<code>{escape(said)}</code>"
        return _item(
            record.who, record.at, f'{code}<p class="more">{self._unread_note(record)}</p>'
        )

    def _unread_note(self, record: Record) -> str:
        return f"{count(record.octets, 'octet')} in plain text that no server took as lines"

    # -- as text

    def text(self) -> Iterator[str]:
        """The same as text."""
        label = numbered(len(self.session.lines) if self.numbers else 0)
        lines = [
            rows_of(line, shown, body_lines=_BODY_LINES, label=label(number))
            for number, line, shown in self.plain
        ]
        yield from (
            row for rows in bounded(lines, _MOST_ROWS, lambda n: [_text_gap(n)]) for row in rows
        )
        unread = [f"{record.who}: [{self._unread_note(record)}]" for record in self.unread]
        yield from bounded(unread, _MOST_ROWS, _text_gap)
        if self.exposed and not self.reveal:
            yield f"-- {MASK} hides a password here; on the path it could be read --"
        if self.handshake:
            octets = sum(record.octets for record in self.handshake)
            told = f": {len(self.handshake):,} records, {octets:,} octets"
            yield f"-- TLS handshake{normal_form.shown(told, '')} --"
        tunnel = [f"{one.who}: [{one.type}, {one.octets:,} octets]" for one in self.tunnel]
        yield from bounded(tunnel, _MOST_ROWS, _text_gap)


def _turns(rows: Sequence[_Plain]) -> Iterator[list[_Plain]]:
    for _, turn in groupby(rows, key=lambda row: (row.line.who, row.line.kind == "content")):
        some = list(turn)
        if some[0].line.kind == "content":
            yield from ([one] for one in some)
        else:
            yield some


def _first_of_dialogue(session: Session, records: Sequence[Record]) -> int:
    """The first TLS record that carries the dialogue; all before it are the handshake.

    TLS 1.3 shows the encrypted part of its handshake as application data (RFC 8446 section 5),
    so it takes the dialogue's first line to tell where that ends.
    """
    said = next((line for line in session.lines if line.tls), None)
    data = [i for i, record in enumerate(records) if record.type == "application data"]
    if said is None or not data:
        return len(records)
    if session.tls != "TLSv1.3":
        return data[0]
    finished = next((i for i in data if records[i].who == "C"), len(records))
    later = [i for i in data if i > finished and records[i].who == said.who]
    if said.who == "S":
        # Between handshake and greeting the server may hand out session tickets.
        fitting = [i for i in later if records[i].octets == said.octets + _OVERHEAD]
        later = fitting or later
    return later[0] if later else len(records)


def _record(record: Record) -> str:
    kind = "" if record.type == "application data" else f"{record.type}, "
    bar = f'<i class="bar" style="width: {max(2, record.octets // _SCALE)}px"></i>'
    said = f"<span>{kind}{count(record.octets, 'octet')}</span>{bar}"
    return _item(record.who, record.at, said, "tls")


def _item(side: str, at: float, inside: str, css: str = "") -> str:
    name = f"{side} {css}".strip()
    speaker = who("C" if side == "C" else "S")
    return f'<li class="{name}">{clock(at)}{speaker}<div>{inside}</div></li>'


def _varying(number: int) -> str:
    """A number of octets that certificates and tickets make differ from run to run."""
    return normal_form.shown(f"{number:,}", "…")


def _html_gap(number: int) -> str:
    return f'<li class="aside">{number:,} more in the middle</li>'


def _text_gap(number: int) -> str:
    return f"-- {number:,} more in the middle --"
