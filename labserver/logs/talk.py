"""Writes down what a log tells, line by line, as sessions like the lab's own.

A reader of one kind of log gives `Event`s; `sessions` puts them together. The octets go through
`dialogue.py`, so content, credentials and secrets are told apart by the same code as live ones.
What a log leaves out but must have been said is supplied, and says so of itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import NamedTuple

import labserver.export  # noqa: F401  what is read can be written as JSON
from labserver.dialogue import dialogue
from labserver.listeners import TABLE
from labserver.transcript import (
    ABSENT,
    VERBS,
    Host,
    Line,
    ProtocolName,
    Session,
    Side,
    called_itself,
    readable,
)
from labserver.turns import GO_ON

HIDDEN = "(hidden)"
"""Stands for credentials that the program which wrote the log left out."""
LOG_ENDS = "the log ends here"
NO_DATE = datetime.min.replace(tzinfo=UTC)
"""When a session began of which the log doesn't say it."""


class Said(NamedTuple):
    """One side spoke."""

    row: int
    """The log's line, from 1."""
    who: Side
    data: bytes
    """Without the line end, unless there are several lines in it."""
    tls: bool | None = None
    """Whether under TLS, where the log shows it."""
    at: float = 0.0
    """Seconds, by a clock that starts anywhere."""
    key: str = ""
    """Which of several connections that the log tells of at once."""


class Begins(NamedTuple):
    """A new connection."""

    row: int
    port: int = 0
    """0 where the log doesn't say it."""
    key: str = ""


class Encrypted(NamedTuple):
    """From here on all is under TLS."""

    row: int
    version: str = ""
    key: str = ""


class Omitted(NamedTuple):
    """Octets that were sent here but aren't in the log."""

    row: int
    who: Side
    octets: int
    key: str = ""


class Ends(NamedTuple):
    """How a connection ended, as a sentence without a full stop."""

    row: int
    sentence: str
    key: str = ""


class Aside(NamedTuple):
    """A line that is no part of a dialogue."""

    row: int
    why: str
    """What it is; empty for what only repeats a line beside it."""


Event = Said | Begins | Encrypted | Omitted | Ends | Aside

_MOST_FILLED = 128 * 1024 * 1024
"""Octets that one log may say were sent but not shown; they have to be counted through."""
_PIECE = 64 * 1024
MOST_DIALOGUES = 3000
"""Dialogues of one log that are written down."""
_TOO_MANY = f"begins what isn't written down: a log's first {MOST_DIALOGUES:,} dialogues are"
_GREETINGS: dict[ProtocolName, re.Pattern[bytes]] = {
    "SMTP": re.compile(rb"220|421|521|554"),
    "POP3": re.compile(rb"\+OK|-ERR"),
    "IMAP": re.compile(rb"\* (?:OK|PREAUTH|BYE)\b", re.I),
}
_SUPPLIED_CODES = {"DATA": GO_ON, "AUTH": "235", "STARTTLS": "220", "QUIT": "221"}
_SUPPLIED: dict[ProtocolName, str] = {"SMTP": "220", "POP3": "+OK", "IMAP": "* OK"}
_IMAP_VERBS = (
    "APPEND|AUTHENTICATE|CAPABILITY|CHECK|CLOSE|COPY|CREATE|DELETE|ENABLE|EXAMINE|EXPUNGE|FETCH|ID|"
    "IDLE|LIST|LOGIN|LOGOUT|LSUB|MOVE|NAMESPACE|NOOP|RENAME|SEARCH|SELECT|STARTTLS|STATUS|STORE|"
    "SUBSCRIBE|UID|UNSELECT|UNSUBSCRIBE"
)
_IMAP_COMMAND = re.compile(rf"[A-Za-z0-9.]{{1,32}} (?:{_IMAP_VERBS})\b".encode(), re.I)
_SERVER_OF: tuple[tuple[ProtocolName, re.Pattern[bytes]], ...] = (
    ("SMTP", re.compile(rb"[2-5][0-9][0-9](?:[ -]|\r?$)")),
    ("POP3", re.compile(rb"(?:\+OK|-ERR)\b", re.I)),
    (
        "IMAP",
        re.compile(rb"\* (?:OK|NO|BAD|PREAUTH|BYE|CAPABILITY|FLAGS|LIST|SEARCH|\d+ \w)", re.I),
    ),
)
_ONLY_SMTP = VERBS["SMTP"] - VERBS["POP3"]
_ONLY_POP3 = VERBS["POP3"] - VERBS["SMTP"]

PORTS = {listener.port: listener.name for listener in TABLE.values()}
"""Ports that tell the listener. Those of `python -m labserver serve` are 2000 above them."""


def protocol_of(who: Side, data: bytes) -> ProtocolName | None:
    """The protocol that a line alone gives away; `None` where it could be of several, or none."""
    if who == "S":
        return next((name for name, shape in _SERVER_OF if shape.match(data)), None)
    word = b"".join(data[:16].split(maxsplit=1)[:1]).decode("latin-1").upper()
    if word in _ONLY_SMTP:
        return "SMTP"
    if word in _ONLY_POP3:
        return "POP3"
    return "IMAP" if _IMAP_COMMAND.match(data) else None


class Talk:
    """One connection while it is being written down."""

    def __init__(self, protocol: ProtocolName, port: int, filled: list[int]) -> None:
        self.protocol = protocol
        self.port = port
        self.row = 0
        """The log's last line that was added."""
        self.tls = False
        self.version = ""
        self.ending = ""
        self.supplied: list[tuple[int, str]] = []
        """Rows after which something had to be filled in that can't say so itself."""
        self._cutter = dialogue(protocol)
        self._turns = self._cutter.turns
        self._read = 0
        self._times: list[float] = []
        self._omitted: set[int] = set()
        self._filled = filled
        """How many octets were omitted in the whole log, in its only element."""
        self._greeted = False
        self._silent = protocol == "SMTP"
        """The log holds nothing of the server's so far."""
        self._unanswered: list[str] = []
        """What was asked in it."""
        self._implicit = False
        self._answered = False

    @property
    def _open(self) -> Side | None:
        """Whose message content goes on."""
        sides = (side for side, due in self._turns.due.items() if due.form == "dot")
        return next(sides, None)

    @property
    def over(self) -> bool:
        """Both sides have said goodbye, so the next greeting is another connection's."""
        return self._cutter.farewell and self._answered

    def greets(self, said: Said) -> bool:
        """Whether this line greets, so that what was before it was another connection."""
        if said.who == "C" or not self._greeted:
            return False
        if self.protocol == "SMTP" and said.data.startswith(b"220") and self._open != "C":
            return self._turns.asking.verb != "STARTTLS"
        return self.over and bool(_GREETINGS[self.protocol].match(said.data))

    def say(self, said: Said) -> None:
        """Add what one side said, and before it what must have been said but isn't there."""
        self.row = said.row
        tls = self.tls if said.tls is None else said.tls
        if not self._greeted:
            self._greeted, self._implicit = True, tls
            if said.who == "C" or not _GREETINGS[self.protocol].match(said.data):
                greeting = f"{_SUPPLIED[self.protocol]} {ABSENT}\r\n"
                self._feed("S", greeting.encode(), said.at, tls)
        if self._open not in (None, said.who):
            self.supplied.append((said.row, "the message isn't all in this log; its end is set"))
            self._feed(self._open or "C", b".\r\n", said.at, tls)
        if said.who == "C" and self._silent and self._turns.asking.verb == "DATA":
            # A log of one side alone: the message can't have come without leave.
            for verb in self._unanswered:
                code = _SUPPLIED_CODES.get(verb, "250")
                self._feed("S", f"{code} {ABSENT}\r\n".encode(), said.at, tls)
            self._unanswered.clear()
        self._silent = self._silent and said.who == "C"
        due = self._turns.due["C"]
        if said.who == "S" and self.protocol == "SMTP" and due.form == "octets":
            self.omit("C", due.octets, said.at)
        data = said.data if said.data.endswith(b"\n") else said.data + b"\r\n"
        self._feed(said.who, data, said.at, tls)

    def omit(self, who: Side, octets: int, at: float = 0.0) -> None:
        """Octets that were sent but aren't in the log."""
        left = min(octets, _MOST_FILLED - self._filled[0])
        self._filled[0] += max(0, left)
        while left > 0:
            self._omitted.add(len(self._times))
            self._feed(who, bytes(min(left, _PIECE)), at or self._now(), self.tls)
            left -= _PIECE

    def _now(self) -> float:
        return self._times[-1] if self._times else 0.0

    def _feed(self, who: Side, data: bytes, at: float, tls: bool) -> None:
        # The turn's number stands for its time, so that each line can be found again.
        turn = len(self._times)
        self._times.append(at)
        self._cutter.feed(float(turn), who, data, tls)
        lines = self._cutter.lines
        for line in lines[self._read :]:
            self._learn(line)
        self._read = len(lines)

    def _learn(self, line: Line) -> None:
        """What a line means for what must come next."""
        if line.kind == "command":
            self._answered = False
            if self._silent:
                self._unanswered.append(self._turns.asking.verb)
        elif line.who == "S" and line.kind == "reply":
            self._answered = True
            self.tls = self.tls or self._turns.tls_due

    def session(self, number: int) -> Session:
        """What was written down."""
        zero = self._times[0] if self._times else 0.0
        lines = []
        for line in (*self._cutter.lines, *self._cutter.rest()):
            turn = int(line.at)
            data = b"" if turn in self._omitted and line.kind == "content" else line.data
            at = max(0.0, self._times[turn] - zero)
            lines.append(replace(line, at=at, data=data))
        return Session(
            number=number,
            protocol=self.protocol,
            listener=self._listener(lines),
            started=NO_DATE,
            lines=tuple(lines),
            records=(),
            duration=max((line.at for line in lines), default=0.0),
            closed=True,
            tls=self.version or ("TLS" if any(line.tls for line in lines) else ""),
            ending=self.ending or ("" if self._cutter.farewell else LOG_ENDS),
            dropped=self._cutter.dropped,
            client=Host(called_itself(self.protocol, lines)),
        )

    def _listener(self, lines: list[Line]) -> str:
        """The lab's listener that has this server's part."""
        known = PORTS.get(self.port - 2000 if 2000 < self.port < 3000 else self.port, "")
        name = self.protocol.lower()
        if known.startswith(name) or (name == "smtp" and known.startswith("submission")):
            return known
        if name == "smtp" and any(_LOGIN.match(line.data) for line in lines):
            name = "submission"
        return f"{name}s" if self._implicit and name != "smtp" else name


_LOGIN = re.compile(rb"(?:250[ -])?AUTH\b", re.I)


@dataclass(slots=True)
class _Connection:
    """The events of one connection, until its protocol is known."""

    port: int = 0
    events: list[Event] = field(default_factory=list)


class Written(NamedTuple):
    """What came of a log's events."""

    sessions: tuple[Session, ...]
    asides: tuple[Aside, ...]


def write(events: Iterable[Event]) -> Written:
    """The sessions that a log's events make, and the rest."""
    connections: list[_Connection] = []
    current: dict[str, _Connection] = {}
    asides: list[Aside] = []
    for event in events:
        if isinstance(event, Aside):
            asides.append(event)
            continue
        connection = current.get(event.key)
        begins = isinstance(event, Begins)
        if connection is None or (begins and _anything_said(connection)):
            connection = current[event.key] = _Connection()
            connections.append(connection)
        if isinstance(event, Begins):
            connection.port = event.port or connection.port
        else:
            connection.events.append(event)
    sessions: list[Session] = []
    filled = [0]
    for connection in connections:
        if len(sessions) >= MOST_DIALOGUES:
            asides += [Aside(event.row, _TOO_MANY) for event in connection.events[:1]]
            continue
        for talk in _talks(connection, filled, asides):
            if len(sessions) >= MOST_DIALOGUES:
                asides.append(Aside(talk.row, _TOO_MANY))
                break
            sessions.append(talk.session(len(sessions) + 1))
            asides += [Aside(row, why) for row, why in talk.supplied]
    return Written(tuple(sessions), tuple(asides))


def _anything_said(connection: _Connection) -> bool:
    return any(isinstance(event, Said) for event in connection.events)


def _talks(connection: _Connection, filled: list[int], asides: list[Aside]) -> Iterator[Talk]:
    protocol: ProtocolName | None = None
    for event in connection.events:
        if isinstance(event, Said):
            protocol = protocol or protocol_of(event.who, event.data)
    if protocol is None and any(isinstance(event, Ends) for event in connection.events):
        # Nothing that was said is told, only how it ended; mail servers tell that of SMTP alone.
        protocol = "SMTP"
    if protocol is None:
        for event in connection.events:
            asides.append(Aside(event.row, "no line of SMTP, POP3 or IMAP"))
        return
    talk = Talk(protocol, connection.port, filled)
    for event in connection.events:
        if isinstance(event, Said):
            if talk.greets(event):
                yield talk
                talk = Talk(protocol, connection.port, filled)
            talk.say(event)
        elif isinstance(event, Encrypted):
            talk.tls, talk.version = True, event.version or talk.version
        elif isinstance(event, Omitted):
            talk.omit(event.who, event.octets)
        elif isinstance(event, Ends):
            talk.ending = readable(event.sentence.encode("utf-8", "backslashreplace"))
    yield talk
