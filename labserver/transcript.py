"""What was said: a session as plain data, and its stable text.

A `Session` is a frozen picture of one connection: its `lines` (the dialogue in plaintext) and
its `records` (what really crossed the wire). Nothing here does I/O or knows what a line means:
cutting octets into lines is `dialogue.py`, meaning is `catalog.py`, recording is
`network/recorder.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Literal, NamedTuple

Side = Literal["C", "S"]
"""Who spoke: the client (`C`) or the server (`S`)."""

ProtocolName = Literal["SMTP", "POP3", "IMAP"]

LineKind = Literal["command", "reply", "credentials", "content", "end"]
"""What a line is in the dialogue.

`command`: a client's command line. `reply`: one line from the server. `credentials`: a client's
answer to an authentication challenge. `content`: message content, however many text lines it
has (DATA, BDAT, an IMAP literal, a POP3 RETR). `end`: the dot that ends such content.
"""

RecordType = Literal["plain", "change cipher spec", "alert", "handshake", "application data"]
"""`plain` octets, or the content type of a TLS record (RFC 8446 section 5.1)."""

VERBS: Mapping[ProtocolName, frozenset[str]] = {
    "SMTP": frozenset(
        "AUTH BDAT DATA EHLO EXPN HELO HELP MAIL NOOP QUIT RCPT RSET STARTTLS VRFY".split()
    ),
    "POP3": frozenset(
        "APOP AUTH CAPA DELE LIST NOOP PASS QUIT RETR RSET STAT STLS TOP UIDL USER".split()
    ),
}
"""What a command line begins with, to tell one from a stray line. What each means, and that none
is missing here, is the catalog's to say."""

MASK = "••••••••••••"
"""Stands for a secret, always as long, so that its length tells nothing."""


@dataclass(frozen=True, slots=True, repr=False)
class Line:
    """One line of the dialogue, as the two ends understood it (after TLS was taken off)."""

    at: float
    """Seconds since the connection was made."""
    who: Side
    data: bytes
    """The exact octets, line end included; fewer than `octets` where content was shortened."""
    tls: bool
    """Whether it travelled under TLS."""
    kind: LineKind
    octets: int
    """How many octets it really had."""
    secret: tuple[int, int] | None = None
    """Start and end, within `data`, of a password or of something it can be read from."""

    @property
    def shortened(self) -> bool:
        """Whether `data` holds only the beginning of what was sent."""
        return self.octets > len(self.data)

    @property
    def text_lines(self) -> int:
        """How many lines of text `data` has: one, but for message content."""
        return self.data.removesuffix(b"\r\n").count(b"\r\n") + 1

    def __repr__(self) -> str:
        return f"<{self.who}: {readable(_masked(self))}>"


@dataclass(frozen=True, slots=True, repr=False)
class Record:
    """One piece of what somebody on the path sees: plain octets, or a TLS record's outside."""

    at: float
    """Seconds since the connection was made."""
    who: Side
    type: RecordType
    octets: int
    """Length on the wire, a TLS record's five header octets included."""
    data: bytes = b""
    """The octets themselves where they were plain (as many as were kept); never for TLS."""

    def __repr__(self) -> str:
        return f"<{self.who}: {self.type}, {self.octets} octets>"


class Piece(NamedTuple):
    """A part of a shown line: as it was, and as it is shown where texts are compared."""

    exact: str
    stable: str


@dataclass(frozen=True, slots=True, repr=False)
class Session:
    """One connection from its first octet to its last (or to now, while it is open)."""

    number: int
    """Counts the lab's connections, from 1."""
    protocol: ProtocolName
    listener: str
    """Which of the lab's listeners answered: `smtp`, `submission`, `pop3s`, …"""
    started: datetime
    lines: tuple[Line, ...]
    records: tuple[Record, ...]
    duration: float
    """Seconds from the connection's start to its end, or to the last thing that happened."""
    closed: bool
    tls: str = ""
    """The TLS version in force at the end, such as `TLSv1.3`; empty without TLS."""
    ending: str = ""
    """A sentence on how it ended, where it didn't end as the protocol wants."""
    dropped: int = 0
    """Octets that were counted but not kept, because the session passed its bound."""

    @property
    def round_trips(self) -> int:
        """How often the client spoke and then waited for the server's answer."""
        turns = pairwise(line.who for line in self.lines)
        return sum(turn == ("C", "S") for turn in turns)

    def octets(self, who: Side | None = None) -> int:
        """Octets on the wire, of one side or of both; TLS counted as it travelled."""
        return sum(record.octets for record in self.records if who in (None, record.who))

    def pieces(
        self, *, reveal: bool = False, body_lines: int | None = None
    ) -> tuple[tuple[Piece, ...], ...]:
        """For each line its shown parts, secrets masked unless `reveal` is set.

        Of message content at most `body_lines` lines are given, if that is set.

        What differs from run to run (a client's name and tags, the case of verbs, dates) has a
        stable form beside the exact one. Line ends other than CRLF are made visible.
        """
        tags: dict[str, str] = {}
        return tuple(_pieces(self, line, tags, reveal, body_lines) for line in self.lines)

    def text(self, *, reveal: bool = False, exact: bool = False, body_lines: int = 40) -> str:
        """The dialogue as text, `C:` and `S:` before each line.

        Stable by default: the same dialogue gives the same text on any machine. `exact` shows
        client-chosen names, tags and dates as they were; `reveal` shows passwords; of message
        content at most `body_lines` lines are shown.
        """
        rows = [f"{self.protocol} on {self.listener}"]
        tls = False
        for line, pieces in zip(
            self.lines, self.pieces(reveal=reveal, body_lines=body_lines), strict=True
        ):
            if line.tls and not tls:
                rows.append("-- TLS from here on --")
                tls = True
            rows += rows_of(line, pieces, exact=exact, body_lines=body_lines)
        rows += [f"-- {note} --" for note in self.notes]
        return "\n".join(rows)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said of it behind its last line."""
        notes = [f"{self.dropped:,} octets more, counted but not kept"] if self.dropped else []
        if self.ending:
            notes.append(self.ending)
        elif not self.closed:
            notes.append("still open")
        return tuple(notes)

    def to_json(self, *, reveal: bool = False) -> str:
        """The session as JSON, for `from_json`. Each octet of a secret becomes `*`, in lines and
        records, unless `reveal` is set; all lengths stay what they were.
        """
        from labserver.export import to_json  # it knows this module

        return to_json(self, reveal=reveal)

    @staticmethod
    def from_json(text: str) -> Session:
        """The session that `to_json` wrote. Raises ValueError, one sentence, for anything else."""
        from labserver.export import from_json

        return from_json(text)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<Session {self.number}: {self.protocol} on {self.listener}, {state}>"


def readable(data: bytes) -> str:
    """Octets as text that can't disturb a screen: UTF-8 where it is, escapes for the rest."""
    text = data.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def stable(text: str) -> str:
    """The text with dates, random boundaries and the like replaced by what never changes."""
    return "".join(piece.stable for piece in machine_made(text))


def rows_of(
    line: Line, pieces: tuple[Piece, ...], *, exact: bool = False, body_lines: int = 40
) -> list[str]:
    """A line as rows of text, `C:` or `S:` before each; only message content has many."""
    shown = "".join(piece.exact if exact else piece.stable for piece in pieces)
    if line.kind == "content" or "\n" in shown:
        return _body(line, shown, body_lines)
    return [f"{line.who}: {shown}".rstrip()]


def _masked(line: Line) -> bytes:
    if line.secret is None:
        return line.data
    start, end = line.secret
    return line.data[:start] + MASK.encode() + line.data[end:]


def _body(line: Line, shown: str, body_lines: int) -> list[str]:
    """Message content as rows, shortened where it is long."""
    rows = shown.split("\n")
    out = [f"{line.who}: {row}".rstrip() for row in rows[:body_lines]]
    if line.text_lines > body_lines:
        out.append(f"   [{line.text_lines - body_lines} more lines of this message not shown]")
    if line.shortened:
        kept = len(line.data)
        out.append(f"   [{line.octets:,} octets in all; the transcript keeps the first {kept:,}]")
    return out


_DATE = (
    r"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), )?\d{1,2} "
    r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4} \d\d:\d\d(?::\d\d)? "
    r"(?:[+-]\d{4}|GMT)"
)
_IMAP_DATE = r"[ \d]\d-[A-Z][a-z]{2}-\d{4} \d\d:\d\d:\d\d [+-]\d{4}"
_MACHINE = re.compile(
    rf"(?P<date>{_DATE}|{_IMAP_DATE})"
    r"|(?P<boundary>={15}\d+==)"
    r"|(?<=Message-ID: )(?P<msgid><[^>\s]+>)"
    r"|(?<=Received: from )(?P<name>\S+)",
    re.IGNORECASE,
)
_STABLE = {
    "date": "(date)",
    "boundary": "(boundary)",
    "msgid": "<(message id)>",
    "name": "client.example",
}
_COMMAND = {
    # verb, what follows it as far as its case is the client's own choice, the rest
    "SMTP": re.compile(r"(?P<verb>(?:MAIL|RCPT) +(?:FROM|TO):|[A-Z]+)(?P<rest>.*)", re.I | re.S),
    "POP3": re.compile(r"(?P<verb>[A-Z]+)(?P<rest>.*)", re.I | re.S),
    "IMAP": re.compile(
        r"(?P<tag>[^\s()*+{%\"\\]+) (?P<verb>(?:UID )?[A-Z]+)(?P<rest>.*)", re.I | re.S
    ),
}


def _pieces(
    session: Session, line: Line, tags: dict[str, str], reveal: bool, body_lines: int | None
) -> tuple[Piece, ...]:
    raw = line.data if reveal else _masked(line)
    if line.kind == "content" and body_lines is not None:
        raw = _first_lines(raw, body_lines)
    if line.kind in ("content", "credentials") and b"\r\n" in raw:
        *rows, last = raw.split(b"\r\n")
        text = "\n".join(map(readable, rows if not last else [*rows, last]))
    elif raw.endswith(b"\r\n"):
        text = readable(raw[:-2])
    else:
        text = readable(raw)
    if line.kind == "command":
        return _command(session.protocol, text, tags)
    if line.kind == "reply":
        return _reply(session.protocol, text, tags)
    return machine_made(text)


def _first_lines(data: bytes, most: int) -> bytes:
    end = 0
    for _ in range(most):
        end = data.find(b"\r\n", end) + 2
        if end < 2:
            return data
    return data[:end]


def _command(protocol: ProtocolName, text: str, tags: dict[str, str]) -> tuple[Piece, ...]:
    match = _COMMAND[protocol].fullmatch(text)
    if match is None:
        return (Piece(text, text),)
    verb, rest = match["verb"], match["rest"]
    if protocol != "IMAP" and verb.upper().split()[0] not in VERBS[protocol]:
        return (Piece(text, text),)
    pieces = [Piece(verb, verb.upper())]
    if protocol == "IMAP":
        tag = match["tag"]
        pieces = [Piece(tag, tags.setdefault(tag, f"a{len(tags) + 1}")), Piece(" ", " "), *pieces]
    if protocol == "SMTP":
        if verb.upper() in ("EHLO", "HELO") and rest.strip():
            return (*pieces, Piece(" ", " "), Piece(rest.strip(), "client.example"))
        if verb.upper().startswith(("MAIL", "RCPT")):
            path, gap, parameters = rest.partition("> ")
            stable = re.sub(r"\b[A-Za-z0-9]+(?==)", lambda m: m[0].upper(), parameters)
            return (*pieces, Piece(path + gap, path + gap), Piece(parameters, stable))
    return (*pieces, Piece(rest, rest))


def _reply(protocol: ProtocolName, text: str, tags: dict[str, str]) -> tuple[Piece, ...]:
    first, gap, rest = text.partition(" ")
    if protocol == "IMAP" and first in tags:
        return (Piece(first, tags[first]), Piece(gap, gap), *machine_made(rest))
    return machine_made(text)


def machine_made(text: str) -> tuple[Piece, ...]:
    """Cut out dates, random boundaries and the like, each with a form that stays the same."""
    pieces, end = [], 0
    for match in _MACHINE.finditer(text):
        before = text[end : match.start()]
        pieces += [Piece(before, before), Piece(match[0], _STABLE[match.lastgroup or ""])]
        end = match.end()
    return (*pieces, Piece(text[end:], text[end:]))
