"""IMAP (RFC 3501): tags, literals both ways (RFC 7888), AUTHENTICATE, IDLE (RFC 2177)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from sys import intern
from typing import NamedTuple

from labserver.tables import Catalog, Command
from labserver.transcript import LineKind
from labserver.turns import due
from labserver.turns.due import Due
from labserver.turns.turn import Exchange, Turn
from labserver.turns.turns import HEAD, Turns

_LITERAL = re.compile(rb"\{([0-9]+)(\+?)\}[\r\n]*\Z")
_SHAPE = re.compile(rb" *[^\x00-\x20(){%*\"\\+\x7f-\xff]+ +[^ \r\n]")
_CONDITION = re.compile(rb"(OK|NO|BAD|PREAUTH|BYE)(?=[ \r\n]|\Z)", re.I)
_HOLDS = {"AUTHENTICATE": due.HELD_LOGIN, "STARTTLS": due.HELD}


class Literal(NamedTuple):
    """Octets announced at the end of a line."""

    octets: int
    unasked: bool
    """They come without leave (RFC 7888)."""


def literal_of(line: bytes) -> Literal | None:
    """The literal that a line announces at its end; one of 19 digits or more is as endless as
    `octets` can say.
    """
    if b"}" not in line[-3:]:
        return None
    match = _LITERAL.match(line, max(0, line.rfind(b"{")))
    if match is None:
        return None
    return Literal(int(match[1]) if len(match[1]) < 19 else 10**18, bool(match[2]))


def is_shapeless(e: Exchange) -> bool:
    """Whether a command has no tag in front, or nothing but a tag."""
    return bool(e.line) and not _SHAPE.match(e.line)


class ImapTurns(Turns, protocol="IMAP"):
    """Commands are answered by their tags, in any order, with untagged responses between."""

    _out_of_turn = ("*", "BYE")
    _literal: Literal | None = None
    """What the client's latest line announced."""

    def _is_reply(self, line: bytes) -> bool:
        first, _, told = line.rstrip(b"\r\n").partition(b" ")
        tags = [e.tag for e in self.open if e.tag]
        ours = bool(_CONDITION.match(told)) and (first in tags or not tags)
        return ours or first in (b"*", b"+")

    @property
    def _idling(self) -> list[Exchange]:
        """Each IDLE that isn't answered yet and that DONE hasn't ended."""
        return [e for e in self.open if e.verb == "IDLE" and not e.ended]

    # -- the client

    def _command(self, line: bytes) -> Turn:
        rest = self.due["C"].rest or (self._literal == (0, False) and not self.asking.settled)
        e, begins, idling = self.asking, not rest, self.open and self._idling
        if idling and begins and line.strip().upper() == b"DONE":
            e, begins = idling[0], False
            e.ended = True
        elif begins:
            e = self._ask(self._asked(line[:HEAD]))
            if idling:
                e.interrupts = any(one.continued for one in idling)
        self.due["C"] = _HOLDS.get(e.verb, due.COMMAND) if begins else due.COMMAND
        literal = self._literal = literal_of(line)
        if literal:
            kind: LineKind = "credentials" if e.verb == "LOGIN" else "content"
            comes = Due(kind, "octets" if literal.unasked else "wait", *literal)
            self.due["C"] = due.REST_OF_COMMAND if literal == (0, True) else comes
        return Turn("C", "command", e, self.due["S"], begins, False, "", rest)

    def _asked(self, line: bytes) -> Exchange:
        words = line.split(None, 3)
        tag, word = words[0] if words else b"", words[1] if len(words) > 1 else b""
        if not word and tag.upper() == b"DONE":
            word = tag
        elif len(words) > 2 and word.upper() == b"UID":
            word += b" " + words[2]
        verb = intern(word.decode("latin-1").upper())
        return Exchange(verb, True, len(words) < 3, tag, line)

    def _add(self, kind: LineKind) -> Turn:
        turn = super()._add(kind)
        if self._literal and kind != "end":
            self.due["C"] = due.REST_OF_COMMAND
        return turn

    # -- the server

    def _answer(self, line: bytes, kind: LineKind) -> Turn:
        # A response goes on after a literal, whatever the line looks like.
        rest, e, code = self.due["S"].rest, self.answered, ""
        begins = kind == "reply" and not rest
        if begins:
            e, code = self._belonging(line)
            self.answered = e
        self.due["S"] = due.REPLY if kind == "reply" else due.REST_OF_REPLY
        if kind == "reply" and (literal := literal_of(line)):
            content = Due("content", "octets", literal.octets)
            self.due["S"] = content if literal.octets else due.REST_OF_REPLY
        completes = code == "+" or (code not in ("", "*") and e.settled)
        return Turn("S", kind, e, self.due["C"], begins, completes, code, rest and kind == "reply")

    def _belonging(self, line: bytes) -> tuple[Exchange, str]:
        """What a response belongs to, and its code."""
        first, _, told = line.partition(b" ")
        condition = _CONDITION.match(told)
        status = condition[1].decode().upper() if condition else ""
        self.tls_due = False
        if not self._greeted:
            greeting = self.open.pop(0)
            self._settle(greeting, status if first == b"*" else "")
            return greeting, greeting.code
        if first == b"*" and status == "BYE":
            return self._leaves(), "BYE"
        if first == b"*":
            # A server mostly works in order, so this comes from the oldest command; but what it
            # can't make out at all is a line that has no shape.
            e = self.open[0] if self.open else Exchange("", typed=False)
            if status != "BAD":
                return e, "*"
            shapeless = [e for e in self.open if is_shapeless(e)]
            if shapeless:
                self._close(shapeless[0], status)
            else:
                self._release()
            return (shapeless or [e])[0], "BAD"
        for e in self.open if status else ():
            if e.tag == first:
                self._close(e, status)
                return e, status
        if first.rstrip() == b"+" and (self.asking in self.open or self._idling):
            return self._goes_on(), "+"
        return Exchange("", typed=False), status

    def _close(self, e: Exchange, status: str) -> None:
        """This is answered."""
        self.open.remove(e)
        self._settle(e, status)
        self.tls_due = e.verb == "STARTTLS" and status == "OK"
        if e.verb == "IDLE" and status == "BAD":
            # What interrupted it was taken for its end, and isn't answered.
            self.open = [one for one in self.open if not one.interrupts]
        if e is self.asking:
            self._release()

    def _release(self) -> None:
        """The client's latest command is answered: a literal that needs leave doesn't come."""
        if not self.due["C"].unasked:
            self.due["C"], self._literal = due.COMMAND, None

    def _leaves(self) -> Exchange:
        """BYE belongs to a LOGOUT whose turn it is, or comes out of turn and ends all."""
        self._release()
        if self.open and self.open[0].verb == "LOGOUT":
            return self.open[0]
        e = Exchange("", typed=False)
        self._settle(e, "BYE")
        return e

    def _goes_on(self) -> Exchange:
        """What a `+` tells the client to go on with."""
        now, login = self.due["C"], self.asking.verb == "AUTHENTICATE"
        if now.form == "wait" and self._literal:
            self.due["C"] = now._replace(form="octets") if now.octets else due.REST_OF_COMMAND
        elif login:
            self.due["C"] = due.CREDENTIALS
        waits = (login or self._literal) and self.asking in self.open
        idling = [] if waits else self._idling
        e = (idling or [self.asking])[0]
        e.continued = True
        for later in self.open[self.open.index(e) + 1 :][:1] if idling else ():
            later.interrupts = True  # said without waiting for this, it was said into the IDLE
        return e

    # -- what comes next

    @property
    def idles(self) -> bool:
        return any(e.continued for e in self._idling)

    @property
    def answer_due(self) -> bool:
        """Whether the server owes an answer: not to an IDLE that goes on."""
        going = [e for e in self._idling if e.continued]
        return super().answer_due and (
            self.due["S"] is not due.REPLY or len(self.open) > len(going)
        )

    def _answerable(self) -> list[Exchange]:
        return self.open

    def _may_go_on(self, e: Exchange) -> bool:
        asked = e is self.asking and self.due["C"].form == "wait" and e.verb != "STARTTLS"
        return asked or (e.verb == "IDLE" and not e.continued)

    def _commands(self, catalog: Catalog) -> Iterator[Command]:
        for command in super()._commands(catalog):
            goes_on = all(e.continued for e in self._idling)
            if goes_on and (command.verb == "DONE") == bool(self._idling):
                yield command
