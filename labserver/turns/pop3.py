"""POP3 (RFC 1939): one status for each command, then perhaps a list or a message up to a dot."""

from __future__ import annotations

import re
from sys import intern

from labserver.tables import Catalog
from labserver.transcript import LineKind
from labserver.turns import due
from labserver.turns.turn import Exchange, Turn
from labserver.turns.turns import HEAD, Turns

_STATUS = re.compile(rb"(\+OK|-ERR|\+)(?=\s|\Z)", re.I)
_HOLDS = {"AUTH": due.HELD_LOGIN, "STLS": due.HELD}
_LISTS = ("LIST", "UIDL", "AUTH")
"""Followed by a list where they are said without an argument."""


class Pop3Turns(Turns, protocol="POP3"):
    """Every command has one status, in their order; AUTH (RFC 5034) asks back with `+`."""

    def _is_reply(self, line: bytes) -> bool:
        return bool(_STATUS.match(line))

    def _command(self, line: bytes) -> Turn:
        words = line[:HEAD].split(maxsplit=1)
        verb = intern(words[0].decode("latin-1").upper()) if words else ""
        self.due["C"] = _HOLDS.get(verb, due.COMMAND)
        e = self._ask(Exchange(verb, True, len(words) < 2))
        return Turn("C", "command", e, self.due["S"])

    def _answer(self, line: bytes, kind: LineKind) -> Turn:
        row = kind != "reply" or self.due["S"] is due.LIST
        status = None if row else _STATUS.match(line)
        code = status[1].decode().upper() if status else ""
        self.tls_due = False
        if kind == "end":
            self.due["S"] = due.REPLY
        if not code or not self.open:
            # A line without a status belongs to the last answer, if to any.
            if code or self.answered.code != "+OK":
                self.answered = Exchange("", typed=False)
            return Turn(
                "S", kind, self.answered, self.due["C"], False, kind == "end" or not row, code
            )
        e = self.answered = self.open[0]
        if code != "+":
            del self.open[0]
            self._settle(e, code)
            self.tls_due = e.verb == "STLS" and code == "+OK"
            self.due["S"] = self._follows(e)
        if e.verb in _HOLDS:
            self.due["C"] = due.COMMAND if e.settled else due.CREDENTIALS
        return Turn("S", kind, e, self.due["C"], True, self.due["S"] is due.REPLY, code)

    def _follows(self, e: Exchange) -> due.Due:
        """What comes after the status that it was answered with."""
        if e.code == "+OK" and e.verb in ("RETR", "TOP"):
            return due.MESSAGE
        lists = e.verb == "CAPA" or (e.alone and e.verb in _LISTS)
        return due.LIST if e.code == "+OK" and lists else due.REPLY

    def _may_go_on(self, e: Exchange) -> bool:
        return e.verb == "AUTH"

    def after(self, catalog: Catalog, state: str, e: Exchange, code: str) -> str:
        """A QUIT that isn't understood ends nothing."""
        ends_nothing = e.verb == "QUIT" and not e.alone and code == "-ERR"
        return state if ends_nothing else super().after(catalog, state, e, code)
