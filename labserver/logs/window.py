"""A terminal's window: what was typed and what came back, without a word on who spoke.

telnet shows it so, `openssl s_client` too, which adds what it knows of certificates and TLS. Who
spoke follows from the protocol: a reply code, a status, a tag that the client gave.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from labserver.logs.talk import Aside, Begins, Encrypted, Event, Said, protocol_of
from labserver.transcript import ProtocolName, Side

OPENSSL = re.compile(
    r"CONNECTED\([0-9A-Fa-f]+\)|CONNECTION ESTABLISHED|read R BLOCK|depth=\d|"
    r"Verify return code|verify return:|SSL-Session:"
)
TELNET = re.compile(r"Trying \S+\.\.\.|Connected to |Escape character is ")

_TELNET_SAYS = re.compile(
    r"(?:Trying \S+\.\.\.|Connected to |Escape character is |Connection closed by foreign host|"
    r"Connection to \S+ closed|telnet> |=== |\*\*\* |\$ |# |.{0,60}\$ (?:telnet|openssl|nc|ncat) )"
)
_OPENSSL_SAYS = re.compile(
    r"RENEGOTIATING|KEYUPDATE|DONE$|closed$|read:errno|read R BLOCK|[0-9A-F]{8,}:error:|"
    r"(?:verify|depth)[ =]|CONNECTED\(|---$"
)
_SWAKS_TLS = re.compile(r"=== TLS started with cipher (TLSv1(?:\.\d)?)")
_TLS_BLOCK = re.compile(r"Post-Handshake|SSL-Session:|Certificate chain|Server certificate")
_TLS_VERSION = re.compile(r".{0,30}?(TLSv1(?:\.\d)?)\b")
_REPLY = re.compile(r"[2-5][0-9][0-9](?:[ -]|$)")
_TAGGED = re.compile(r"([A-Za-z0-9.]{1,32}) (?:OK|NO|BAD)\b", re.I)
_LITERAL = re.compile(r"\{(\d{1,12})\+?\}$")
_IMAP_COMMAND = re.compile(r"([A-Za-z0-9.]{1,32}) ([A-Za-z]+)")
_LISTS = ("CAPA", "LIST", "UIDL", "AUTH")


def read(rows: Sequence[str]) -> Iterator[Event]:
    """The events of a window."""
    protocol = _protocol(rows)
    if protocol is None:
        return
    tls = any(map(OPENSSL.match, rows[:200]))
    speakers = _SPEAKERS if _anything_typed(rows, protocol) else _UNHEARD
    who = speakers[protocol]()
    noise, spoken = tls, False
    yield Begins(0)
    if tls:
        version = next(filter(None, map(_TLS_VERSION.match, rows)), None)
        yield Encrypted(0, version[1] if version else "")
    for n, row in enumerate(rows, 1):
        octets = row.encode("utf-8", "backslashreplace")
        by_server = protocol_of("S", octets) == protocol
        certain = by_server or protocol_of("C", octets) == protocol
        if who.in_content:
            pass
        elif tls and (_TLS_BLOCK.match(row) or (noise and not certain)):
            noise = not row.startswith("read R BLOCK")
            yield Aside(n, _TLS_SAYS)
            continue
        elif tls and _OPENSSL_SAYS.match(row):
            noise = noise or row.startswith(("closed", "CONNECTED("))
            yield Aside(n, _TRAPS.get(row, _TLS_SAYS))
            continue
        elif tls and not spoken and row.startswith("250 "):
            yield Aside(n, "the end of the reply to the EHLO that openssl said itself")
            continue
        elif _TELNET_SAYS.match(row):
            if swaks := _SWAKS_TLS.match(row):
                yield Encrypted(n, swaks[1])
            yield Aside(n, "what the terminal says itself")
            continue
        elif not row:
            yield Aside(n, "")
            continue
        noise, spoken = noise and not by_server, True
        yield Said(n, who(row), octets, tls=tls or None)


def begins(rows: Sequence[str]) -> bool:
    """Whether the rows begin as a window does, with its program's words or a greeting."""
    first = next((row for row in rows if row.strip()), "")
    return any(shape.match(first) for shape in (OPENSSL, TELNET, _TELNET_SAYS, _GREETING))


def holds(rows: Sequence[str]) -> bool:
    """Whether a command stands in the rows that nobody writes otherwise."""
    return any(map(_COMMAND.match, rows))


_GREETING = re.compile(r"220[ -]\S|\+OK\b|\* OK\b")
_COMMAND = re.compile(
    r"(?:EHLO|HELO|LHLO) \S|MAIL FROM: ?<|RCPT TO: ?<|USER \S{1,300}$|"
    r"[A-Za-z0-9.]{1,32} LOGIN \S{1,300} \S",
    re.I,
)
_TLS_SAYS = "what openssl says of TLS and certificates"
_TRAPS = {
    "RENEGOTIATING": "openssl took the R at the beginning of the line above for an order of its "
    "own and didn't send it; type rcpt, or start it with -quiet",
    "DONE": "openssl took the Q at the beginning of the line above for an order of its own and "
    "left; type quit, or start it with -quiet",
    "KEYUPDATE": "openssl took the k or K of the line above for an order of its own",
}


def _protocol(rows: Sequence[str]) -> ProtocolName | None:
    """By the first line that gives it away: a server's, else a client's."""
    sides: tuple[Side, ...] = ("S", "C")
    octets = ((who, row.encode("utf-8", "backslashreplace")) for who in sides for row in rows)
    return next(filter(None, (protocol_of(who, row) for who, row in octets)), None)


def _anything_typed(rows: Sequence[str], protocol: ProtocolName) -> bool:
    """Whether the window shows what was typed: a command, and what answers it right below."""
    if protocol == "SMTP":
        return True  # each line of a reply gives itself away
    filled = [row for row in rows if row.strip()]
    answer, command = _ANSWERS[protocol], _TYPED[protocol]
    return any(
        command.match(row) for row, below in pairwise(filled) if answer.match(below)
    ) or not any(answer.match(row) for row in filled)


_ANSWERS = {
    "POP3": re.compile(r"\+OK|-ERR|\+(?: |$)", re.I),
    "IMAP": re.compile(r"\* |\+ |[A-Za-z0-9.]{1,32} (?:OK|NO|BAD)\b", re.I),
}
_TYPED = {
    "POP3": re.compile(
        r"(?:(?:STAT|CAPA|QUIT|NOOP|RSET|STLS|LIST|UIDL|AUTH) *$|"
        r"(?:USER|PASS|APOP|AUTH|LIST|UIDL|RETR|DELE|TOP) +\S)",
        re.I,
    ),
    "IMAP": re.compile(r"(?!\* |\+ )[A-Za-z0-9.]{1,32} (?!(?:OK|NO|BAD)\b)[A-Za-z]{2,20}(?: |$)"),
}


class _Speaker:
    """Tells who said the next line, from what was said before."""

    in_content = False
    """Whether blank lines belong to what is said."""

    def __init__(self) -> None:
        self.verb = ""
        self.words = 0

    def __call__(self, row: str) -> Side:
        raise NotImplementedError

    def typed(self, row: str) -> Side:
        """The client typed a command."""
        words = row.upper().split()
        self.verb, self.words = (words[0] if words else ""), len(words)
        return "C"


class _Smtp(_Speaker):
    def __call__(self, row: str) -> Side:
        if self.in_content:
            self.in_content = row != "."
            return "C"
        if _REPLY.match(row):
            # A window that shows nothing of what was typed shows no content, either.
            self.in_content = self.verb == "DATA" and row.startswith("354")
            return "S"
        return self.typed(row)


class _Pop3(_Speaker):
    def __call__(self, row: str) -> Side:
        if self.in_content:
            self.in_content = row != "."
            return "S"
        if row.startswith(("+OK", "-ERR", "+ ")) or row == "+":
            several = self.verb in ("RETR", "TOP", "CAPA") or (
                self.verb in _LISTS and self.words == 1
            )
            self.in_content = several and row.startswith("+OK")
            return "S"
        return self.typed(row)


class _Imap(_Speaker):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.left = 0
        """Octets of a literal still to come."""
        self.literal: Side = "S"
        self.rest = False
        """The line after a literal goes on with what stood before it."""

    def __call__(self, row: str) -> Side:
        if self.left > 0:
            self.left -= len(row.encode("utf-8", "backslashreplace")) + 2
            self.in_content, self.rest = self.left > 0, self.left == 0
            # Where it ends within a row, the rest stands in that row, and another may follow.
            literal = _LITERAL.search(row) if self.left < 0 else None
            self.left = max(0, self.left)
            who = self.literal
        else:
            who = self._who(row)
            self.rest = False
            literal = _LITERAL.search(row)
        if literal:
            self.left, self.literal = int(literal[1]), who
            self.in_content = who == "S" and self.left > 0
            self.left = self.left if who == "S" or literal[0].endswith("+}") else -self.left
        elif who == "S" and row.startswith("+") and self.left < 0:
            self.left = -self.left
            self.in_content = True
        elif who == "S" and self.left < 0 and not row.startswith("*"):
            self.left = 0  # refused
        return who

    def _who(self, row: str) -> Side:
        if self.rest:
            return self.literal
        if row.startswith(("* ", "+ ")) or row in ("*", "+"):
            return "S"
        tagged = _TAGGED.match(row)
        if tagged and (tagged[1] in self.tags or not self.tags):
            return "S"
        if command := _IMAP_COMMAND.match(row):
            self.tags.add(command[1])
        return "C"


class _UnheardPop3(_Speaker):
    """Nothing that was typed is shown: all is the server's."""

    def __call__(self, row: str) -> Side:
        if self.in_content or not _ANSWERS["POP3"].match(row):
            # What isn't a reply's first line belongs to a reply of several lines.
            self.in_content = row != "."
        return "S"


class _UnheardImap(_Imap):
    """The same for IMAP, where literals say how long they are."""

    def _who(self, row: str) -> Side:
        return "S"


_SPEAKERS: dict[ProtocolName, Callable[[], _Speaker]] = {
    "SMTP": _Smtp,
    "POP3": _Pop3,
    "IMAP": _Imap,
}
_UNHEARD = {**_SPEAKERS, "POP3": _UnheardPop3, "IMAP": _UnheardImap}
