"""What was said: a session as plain data, and as text.

A `Session` is a frozen picture of one connection: its `lines` (the dialogue in plaintext) and
its `records` (what really crossed the wire). Nothing here does I/O or knows what a line means:
cutting octets into lines is `dialogue.py`, meaning is `catalog/`, recording is
`network/recorder.py`, and the form in which lessons store their outputs is `normal_form.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Literal

from labserver import normal_form
from labserver.given import expect

Side = Literal["C", "S"]
"""Who spoke: the client (`C`) or the server (`S`)."""

ProtocolName = Literal["SMTP", "POP3", "IMAP"]

Form = Literal["shown", "said", "normal"]
"""`said`: what was said, to the octet. `normal`: without what differs from run to run. `shown`:
what was said, or the normal form where `normal_form.wanted()`."""

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

_LONGEST_NAME = 512
"""Octets of a command in which a client's name is looked for; a longer line is refused."""

ABSENT = "(not in this log)"
"""Stands in a line that was said, as what follows shows, but that a log doesn't hold."""

MASK = "••••••••••••"
"""Stands for a secret, always as long, so that its length tells nothing."""

_LONGEST = 10_000
"""Characters of a line that are printed."""
_MANY_ROWS: Collection[LineKind] = ("content", "credentials")
"""Kinds of lines that may hold line ends."""


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


@dataclass(frozen=True, slots=True)
class Host:
    """One of the two ends of a connection."""

    name: str = ""
    """What it calls itself, harmless to show; empty where it didn't say."""
    address: str = ""
    """Its IP address; empty where that isn't known."""


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
    client: Host = Host()
    """Who connected. Its name is the one in its last EHLO or HELO (RFC 5321 section 4.1.1.1)."""
    server: Host = Host()
    """Who answered."""

    @property
    def round_trips(self) -> int:
        """How often the client spoke and then waited for the server's answer."""
        turns = pairwise(line.who for line in self.lines)
        return sum(turn == ("C", "S") for turn in turns)

    def octets(self, who: Side | None = None) -> int:
        """Octets on the wire, of one side or of both; TLS counted as it travelled."""
        return sum(record.octets for record in self.records if who in (None, record.who))

    def texts(
        self,
        form: Form = "shown",
        *,
        reveal: bool = False,
        body_lines: int | None = None,
        longest: int | None = None,
    ) -> tuple[str, ...]:
        """Each line as text without its line end; secrets masked unless `reveal` is set.

        Line ends other than CRLF, and whatever could disturb a screen, are escaped. Of message
        content at most `body_lines` lines are given, of each line at most `longest` characters;
        a line that is cut says how many octets are left out.
        """
        said = (_said(line, reveal, body_lines, longest) for line in self.lines)
        if form == "said" or (form == "shown" and not normal_form.wanted()):
            return tuple(said)
        verbs = VERBS.get(self.protocol, frozenset())
        lines = zip((line.kind for line in self.lines), said, strict=True)
        return tuple(normal_form.of_lines(self.protocol, verbs, lines))

    def text(
        self,
        *,
        reveal: bool = False,
        exact: bool = False,
        numbers: bool = False,
        body_lines: int = 40,
    ) -> str:
        """The dialogue as text, `C:` and `S:` before each line: what was said, passwords masked.

        `numbers` puts each line's number, from 1, before it; `reveal` shows passwords. Of message
        content at most `body_lines` lines are shown, of a line at most 10,000 characters, and
        what is left out is counted. `exact` shows what was said even where LABSERVER_OUTPUT asks
        for the normal form. Raises `TypeError` where `body_lines` is no whole number.
        """
        expect("text(body_lines=…)", body_lines, int)
        rows = [f"{self.protocol} on {self.listener}"]
        tls = False
        shown = self.texts(
            "said" if exact else "shown", reveal=reveal, body_lines=body_lines, longest=_LONGEST
        )
        label = numbered(len(shown) if numbers else 0)
        for number, (line, text) in enumerate(zip(self.lines, shown, strict=True), 1):
            if line.tls and not tls:
                rows.append("-- TLS from here on --")
                tls = True
            rows += rows_of(line, text, body_lines=body_lines, label=label(number))
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
        return _json()[0](self, reveal=reveal)

    @staticmethod
    def from_json(text: str) -> Session:
        """The session that `to_json` wrote. Raises ValueError, one sentence, for anything else."""
        return _json()[1](text)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<Session {self.number}: {self.protocol} on {self.listener}, {state}>"


def called_itself(protocol: ProtocolName, lines: Sequence[Line]) -> str:
    """The name that a client gave last in EHLO or HELO; empty in POP3 and IMAP."""
    for line in reversed(lines if protocol == "SMTP" else ()):
        if line.who == "C" and line.kind == "command":
            verb, *name = _masked(line)[:_LONGEST_NAME].split(maxsplit=1)[:2] or [b""]
            if verb.upper() in (b"EHLO", b"HELO"):
                return readable(b"".join(name).strip())
    return ""


_JSON: list[tuple[Callable[..., str], Callable[[str], Session]]] = []


def json_by(write: Callable[..., str], read: Callable[[str], Session]) -> None:
    """Have these two do what `Session.to_json` and `Session.from_json` say.

    `export.py` calls this when it is imported: it knows this room, this room doesn't know it.
    """
    _JSON[:] = [(write, read)]


def _json() -> tuple[Callable[..., str], Callable[[str], Session]]:
    if not _JSON:
        raise RuntimeError("Sessions as JSON need labserver.export; import it first.")
    return _JSON[0]


def expect_sessions(function: str, *given: object) -> None:
    """Raise `TypeError`, one sentence, where something given to that function is no session."""
    for one in given:
        expect(function, one, Session, wanted="a session, such as lab.sessions[-1]")


def readable(data: bytes, most: int | None = None) -> str:
    """Octets as text that can't disturb a screen: UTF-8 where it is, escapes for the rest.

    The text has at most `most` characters, if that is set; one that is cut says how many octets
    are left out.
    """
    if most is None:
        return _readable(data)
    if len(data) <= 4 * most and len(whole := _readable(data)) <= most:
        return whole
    room = max(most - len(_more(len(data))), 1)
    end = min(4 * room, len(data) - 1)
    while True:
        for back in range(min(end, 4)):
            if data[end - back] & 0xC0 != 0x80:
                end -= back  # else it would cut through a character
                break
        text = _readable(data[:end])
        if len(text) <= room:
            return f"{text}{_more(len(data) - end)}"
        end = min(end * room // len(text), end - 1)


def numbered(many: int) -> Callable[[int], str]:
    """What stands before a line of that number, as wide as for so many lines; nothing for 0."""
    width = len(str(many))
    return lambda number: f"{number:>{width}} " if many else ""


def rows_of(line: Line, shown: str, *, body_lines: int = 40, label: str = "") -> list[str]:
    """A line as rows of text, `C:` or `S:` before each; only message content has many.

    `label` stands before the first of them.
    """
    rows = shown.split("\n")[:body_lines] if line.kind in _MANY_ROWS else [shown]
    blank = " " * len(label)
    labels = [label, *[blank] * len(rows)]
    out = [
        f"{before}{line.who}: {row}" if row else f"{before}{line.who}:"
        for before, row in zip(labels, rows, strict=False)
    ]
    if line.kind not in _MANY_ROWS:
        return out
    if len(rows) == body_lines < line.text_lines:
        more = line.text_lines - body_lines
        out.append(f"{blank}   [{more:,} more lines of this message not shown]")
    if line.shortened:
        kept = len(line.data)
        out.append(
            f"{blank}   [{line.octets:,} octets in all; the transcript keeps the first {kept:,}]"
        )
    return out


class _Escapes(dict[int, str]):
    """For each character what is shown of it, found when it is first met."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        escaped = character.encode("unicode_escape").decode()
        self[code] = shown = character if character.isprintable() else escaped
        return shown


def _readable(data: bytes) -> str:
    text = data.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return text.translate(_Escapes())


def _more(octets: int) -> str:
    return f" … {octets:,} octet{'' if octets == 1 else 's'} more"


def _masked(line: Line) -> bytes:
    if line.secret is None:
        return line.data
    start, end = line.secret
    return line.data[:start] + MASK.encode() + line.data[end:]


def _said(line: Line, reveal: bool, body_lines: int | None, longest: int | None) -> str:
    """A line as it was said; message content has a row for each of its lines."""
    raw = line.data if reveal else _masked(line)
    if line.kind not in _MANY_ROWS:
        return readable(raw.removesuffix(b"\r\n"), longest)
    if body_lines is not None:
        raw = _first_lines(raw, body_lines)
    rows = raw.removesuffix(b"\r\n").split(b"\r\n")
    return "\n".join(readable(row, longest) for row in rows)


def _first_lines(data: bytes, most: int) -> bytes:
    end = 0
    for _ in range(most):
        end = data.find(b"\r\n", end) + 2
        if end < 2:
            return data
    return data[:end]
