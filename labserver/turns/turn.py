"""The values of turn-taking: what was heard, and what may be said next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from labserver.tables import Command
from labserver.transcript import LineKind, Side
from labserver.turns.due import Due


class Exchange:
    """One command and what has become of it; or a moment; or what nobody asked for."""

    code = ""
    """The reply code or status that settled it."""
    settled = False
    void = False
    """TLS began before it was answered, so that it never will be."""
    continued = False
    """A `+` told the client to go on with it."""
    ended = False
    """DONE has been said to this IDLE."""
    interrupts = False
    """It was said where only DONE may be."""

    def __init__(
        self,
        verb: str,
        typed: bool = True,
        alone: bool = False,
        tag: bytes = b"",
        line: bytes = b"",
    ) -> None:
        """The verb is in capitals and whole (`UID FETCH`, `BDAT LAST`), in small letters for a
        moment (`greeting`, `end of data`), empty for what nobody asked for; it is `alone` where
        nothing was said after it.
        """
        self.verb, self.typed, self.alone, self.tag, self.line = verb, typed, alone, tag, line


class Turn(NamedTuple):
    """What a line, or a piece of content, is in the dialogue."""

    who: Side
    kind: LineKind
    exchange: Exchange
    """What it belongs to, or answers."""
    then: Due
    """What the other side's next octets are, now that this was said."""
    begins: bool = True
    """Whether it is the first line of its command, or of a reply."""
    completes: bool = False
    """Whether it is the last line of a reply."""
    code: str = ""
    """Of a reply: its code or status, `+`, or `*` for what is untagged."""
    rest: bool = False
    """Whether it goes on with the line before announced octets."""

    @property
    def verb(self) -> str:
        """Of a command: what is said."""
        return self.exchange.verb if self.begins else "DONE"


class Answer(NamedTuple):
    """A reply that may be said now."""

    code: str
    meaning: str
    """In the words of the catalog."""
    to: Exchange | None
    """What it would answer; `None` for what a server may say out of turn."""


@dataclass(frozen=True, slots=True)
class Expected:
    """Who may speak now, and what."""

    client: Due | None
    """`None` where the client has to wait, or can say no more."""
    server: Due
    answer_due: bool
    """Whether the server owes an answer."""
    tls: bool
    """Whether the client starts TLS now, before either says more."""
    commands: tuple[Command, ...]
    """What the client may say, if that is a command."""
    answers: tuple[Answer, ...]
    """What the server may say, if that is a reply."""

    def allows(self, turn: Turn) -> bool:
        """Whether a line that was heard right after this was among what was expected."""
        due = self.client if turn.who == "C" else self.server
        if due is None or turn.rest != due.rest:
            return False
        if due.form != "line" or due.rest or due.kind == "credentials":
            return turn.kind == due.kind or (turn.kind == "end" and due.form in ("dot", "rows"))
        if turn.who == "C":
            return any(command.verb == turn.verb for command in self.commands)
        return any(
            (turn.code, one.to) in ((one.code, None), (one.code, turn.exchange))
            for one in self.answers
        )
