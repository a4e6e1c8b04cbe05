"""SMTP (RFC 5321): replies in order, DATA and its dot, BDAT (RFC 3030), AUTH (RFC 4954)."""

from __future__ import annotations

import re
from sys import intern

from labserver.transcript import LineKind
from labserver.turns import due
from labserver.turns.turn import Exchange, Turn
from labserver.turns.turns import HEAD, Turns

_REPLY = re.compile(rb"[2-5][0-9][0-9](?=[ \r\n-]|\Z)")
GO_ON, CHALLENGE = "354", "334"
"""The codes behind which a client sends content, and an answer in AUTH."""
_BDAT = re.compile(rb"\s*BDAT[ \t]+(\d{1,20})(?:[ \t]+LAST)?\s*\Z", re.I)
_HOLDS = {"DATA": due.HELD, "AUTH": due.HELD_LOGIN, "STARTTLS": due.HELD}


def goes_on(reply: bytes) -> bool:
    """Whether more lines of this reply follow (RFC 5321 section 4.2.1)."""
    return reply[3:4] == b"-" and bool(_REPLY.match(reply))


class SmtpTurns(Turns, protocol="SMTP"):
    """Every command has one reply, of one line or several."""

    _out_of_turn = ("421",)

    def _is_reply(self, line: bytes) -> bool:
        return bool(_REPLY.match(line))

    def _command(self, line: bytes) -> Turn:
        words = line[:HEAD].split(maxsplit=1)
        verb = intern(words[0].decode("latin-1").upper()) if words else ""
        self.due["C"] = _HOLDS.get(verb, due.COMMAND)
        if verb == "BDAT":
            chunk = _BDAT.match(line)
            if chunk and int(chunk[1]):
                self.due["C"] = due.Due("content", "octets", int(chunk[1]), unasked=True)
            if line.upper().split()[-1] == b"LAST":
                verb = "BDAT LAST"
        e = self._ask(Exchange(verb, True, len(words) < 2))
        return Turn("C", "command", e, self.due["S"])

    def _answer(self, line: bytes, kind: LineKind) -> Turn:
        code = line[:3].decode() if _REPLY.match(line) else ""
        begins, last = not self._half, not goes_on(line)
        self._half = "" if last else code
        if code == GO_ON and any(e.verb == "DATA" for e in self.open):
            while self.open[0].verb != "DATA":  # what else was asked has lost its answer
                del self.open[0]
        e = self.answered = self.open[0] if self.open else Exchange("", typed=False)
        if not self.open:
            self.open.append(e)
        self.tls_due = last and e.verb == "STARTTLS" and code == "220"
        if last and e.verb == "AUTH" and code == CHALLENGE:
            self.due["C"] = due.CREDENTIALS
        elif last:
            del self.open[0]
            self._settle(e, code)
            if e.verb in _HOLDS:
                content = e.verb == "DATA" and code == GO_ON
                self.due["C"] = due.MESSAGE if content else due.COMMAND
        return Turn("S", kind, e, self.due["C"], begins, last, code)
