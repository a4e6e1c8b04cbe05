"""A terminal's window: what was typed and what came back, without a word on who spoke.

telnet shows it so, `openssl s_client` too, which adds what it knows of certificates and TLS. Who
spoke follows from the protocol: a reply code, a status, a tag that the client gave.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from labserver.logs.talk import Aside, Begins, Encrypted, Event, Said, protocol_of
from labserver.transcript import ProtocolName, Side
from labserver.turns import Due, Turns

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


def read(rows: Sequence[str]) -> Iterator[Event]:
    """The events of a window."""
    protocol = _protocol(rows)
    if protocol is None:
        return
    tls = any(map(OPENSSL.match, rows[:200]))
    who: _Speaker | _UnheardPop3 = _Speaker(protocol)
    if not _anything_typed(rows, protocol):
        who = _UnheardPop3() if protocol == "POP3" else _UnheardImap(protocol)
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
        elif not (spoken or certain):
            yield Aside(n, "stands before the dialogue")
            continue
        noise, spoken = noise and not by_server, True
        yield Said(n, who(octets), octets, tls=tls or None)


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
    """By the first line that gives it away: a server's, else a client's of SMTP or POP3.

    What looks like an IMAP command may be a sentence: "Please check …".
    """
    sides: tuple[Side, ...] = ("S", "C")
    octets = ((who, row.encode("utf-8", "backslashreplace")) for who in sides for row in rows)
    told = ((who, protocol_of(who, row)) for who, row in octets)
    return next((name for who, name in told if name and (who, name) != ("C", "IMAP")), None)


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

    def __init__(self, protocol: ProtocolName) -> None:
        self._turns = Turns(protocol, states=False)
        self._last: Side = "C"

    @property
    def in_content(self) -> bool:
        """Whether blank lines belong to what is said."""
        client, server = self._turns.due["C"].form, self._turns.due["S"].form
        return server != "line" or client in ("dot", "octets")

    def __call__(self, row: bytes) -> Side:
        who = self._turns.speaker(row)
        asks = who == "C" and self._turns.due["C"] == Due("command") and not self._turns.idles
        if asks and self._last == "S":
            # Who types waits for the answer; one that doesn't show is lost.
            self._turns.forget()
        self._last = who
        self._turns.hear(who, row + b"\r\n")
        return who


class _UnheardPop3:
    """Nothing that was typed is shown: all is the server's."""

    in_content = False

    def __call__(self, row: bytes) -> Side:
        if self.in_content or not _ANSWERS["POP3"].match(row.decode("latin-1")):
            # What isn't a reply's first line belongs to a reply of several lines.
            self.in_content = row != b"."
        return "S"


class _UnheardImap(_Speaker):
    """The same for IMAP, where literals say how long they are."""

    def __call__(self, row: bytes) -> Side:
        self._turns.hear("S", row + b"\r\n")
        return "S"
