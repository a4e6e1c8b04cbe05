"""Cuts the octets of a connection into the lines of a dialogue.

A `Dialogue` follows one connection of one protocol just closely enough to tell commands from
message content and from passwords. It judges nothing (that is `catalog.py`) and does no I/O.
It works piece by piece, so that a message of any size needs only a bounded amount of memory.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass

from labserver.masking import Passwords, Span, joined
from labserver.transcript import VERBS, Line, LineKind, ProtocolName, Side
from labserver.turns import CHALLENGE, Due, Exchange, Turn, Turns, literal_of


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of a session its transcript keeps, in octets. What is beyond is still counted."""

    body: int = 64 * 1024
    """Of each message body."""
    session: int = 4 * 1024 * 1024
    """Of all lines together."""
    lines: int = 20_000
    """Not octets: how many lines, since even an empty one takes room."""


@dataclass(slots=True)
class _Piece:
    """Octets that arrived together and haven't been cut into lines yet."""

    at: float
    data: bytes
    tls: bool
    start: int = 0
    """How much of it is cut already."""


class _Stream:
    """One side's octets: what is not yet cut, and how the next of them are to be read."""

    def __init__(self, who: Side) -> None:
        self.who = who
        self.waiting: deque[_Piece] = deque()
        self.partial = bytearray()
        self.partial_end = b""
        """The last octets of the partial line, however much of it was kept."""
        self.partial_octets = 0
        self.partial_at = 0.0
        self.partial_tls = False
        self.now = 0.0
        self.now_tls = False
        self.content: Due | None = None
        """The content that has begun, until it ends."""
        self.left = 0
        """Octets of counted content still to come."""
        self.tail = b""
        """The last octets of dotted content, to find its end across pieces."""


class Dialogue(ABC):
    """The lines said so far; feed it what each side sent, in the order it was recorded."""

    protocol: ProtocolName

    def __init__(self, bounds: Bounds | None = None, passwords: Passwords | None = None) -> None:
        self.turns = Turns(self.protocol, states=False)
        """Who may say what now."""
        self.bounds = bounds or Bounds()
        self._passwords = passwords or Passwords()
        self._misplaced: deque[bytes] = deque(maxlen=_MOST_MISPLACED)
        """Secrets that stood where no login is; a server may repeat them in its answer."""
        self.lines: list[Line] = []
        self.kept = 0
        self.dropped = 0
        self._full = False
        self._tls: bool | None = None
        self._login_refused = False
        self._sides: dict[Side, _Stream] = {"C": _Stream("C"), "S": _Stream("S")}

    @property
    def farewell(self) -> bool:
        """Whether the client has said QUIT or LOGOUT."""
        return self.turns.asking.verb in ("QUIT", "LOGOUT")

    def feed(self, at: float, who: Side, data: bytes, tls: bool) -> None:
        """Take octets that `who` sent `at` seconds after the connection was made."""
        if tls and self._tls is False:
            self._start_over()
        self._tls = tls
        side = self._sides[who]
        if (
            data.find(b"\n") + 1 == len(data) <= self.bounds.body
            and self.turns.due[who].form in _LINES
            and not (side.waiting or side.partial_octets or side.content)
        ):
            # What comes mostly is one whole line.
            kind, secret = self._understood(data, side)
            self._add(Line(at, who, data, tls, kind, len(data), secret))
            if who == "S" and self._sides["C"].waiting:
                self._cut(self._sides["C"])
            return
        side.waiting.append(_Piece(at, data, tls))
        while side.waiting and not self._is_held(side):
            self._step(side)
            if who == "S" and self._sides["C"].waiting:
                # The reply may have settled how to read what the client had already sent.
                self._cut(self._sides["C"])

    def rest(self) -> list[Line]:
        """What is still without an end: a line that was cut off, content that goes on."""
        lines = []
        for side in self._sides.values():
            if side.partial_octets:
                kind = self._kind(side)
                lines.append(self._line(side, kind, self._begun(side, kind)))
            lines += self._unread(side)
        return sorted(lines, key=lambda line: line.at)

    def _unread(self, side: _Stream) -> list[Line]:
        """What a client sent without waiting for an answer that never came."""
        if not side.waiting:
            return []
        first = side.waiting[0]
        data = b"".join(piece.data[piece.start :] for piece in side.waiting)
        beyond = max(0, len(data) - self.bounds.body)
        kept = data[: self.bounds.body]
        # Of a literal that waits for leave its octets stand together, whatever they are.
        due = self._due(side)
        rows = [kept[: due.octets]] if due.octets else []
        rows += kept[due.octets :].splitlines(keepends=True)[: self.bounds.lines]
        lines = []
        for number, row in enumerate(rows):
            kind: LineKind = "credentials" if due.kind == "credentials" else "command"
            if due.octets and not number:
                kind = due.kind
            secret: Span | None = (0, len(row))
            last = number == len(rows) - 1
            if kind != "credentials":
                known = self._passwords.found_in(row, breaks_off=last)
                secret = joined((self._secret_in(row, rest=False), *known))
            octets = len(row) + (beyond if last else 0)
            lines.append(Line(first.at, side.who, row, first.tls, kind, octets, secret))
        return lines

    # -- secrets

    def _understood(self, line: bytes, side: _Stream) -> tuple[LineKind, Span | None]:
        """What kind a whole line is, and where secrets stand in it."""
        shortened = side.partial_octets > len(side.partial)
        turn = self.turns.hear(side.who, line + side.partial_end if shortened else line)
        kind, secret = turn.kind, None
        if kind == "command":
            if turn.rest or self._login_refused or _LOGIN_WORD.search(line):
                secret = self._said(line, turn)
        elif kind == "credentials":
            secret = (0, len(line.rstrip(b"\r\n")))
        elif self.turns.asking.verb in _LOGINS:
            self._learn(turn)
        if self._full or kind not in ("command", "reply"):
            return kind, secret
        if side.who == "S":
            return kind, self._repeated(line) if self._misplaced else None
        known = self._known(line, breaks_off=side.partial_octets > len(side.partial))
        if secret or known:
            start, end = self._placed(line) or (0, 0)
            for span in (*known, *([secret] if secret else [])):
                if span[1] - span[0] >= _SHORTEST_REPEATED and not start <= span[0] < end:
                    self._misplaced.append(line[slice(*span)].lower())
        return kind, joined((secret, *known)) if known else secret

    def _said(self, line: bytes, turn: Turn) -> Span | None:
        """Where the secret stands in a command."""
        secret = self._secret_in(line, rest=turn.rest)
        if self._login_refused and not (secret or turn.rest):
            secret = self._stray_secret(line)
        return secret

    def _learn(self, turn: Turn) -> None:
        """Whether a login was refused: more of it may follow all the same."""
        ends = turn.exchange is self.turns.asking or turn.code in ("BAD", "BYE")
        if ends and turn.code not in ("", "+", CHALLENGE, "*"):
            self._login_refused = turn.code not in ("235", "+OK", "OK")

    def _known(self, data: bytes, *, breaks_off: bool = False) -> list[Span]:
        return self._passwords.found_in(data, breaks_off=breaks_off)

    def _repeated(self, reply: bytes) -> Span | None:
        """Where a reply says again what the client said in the wrong place."""
        said = reply.lower()
        places = [(said.find(one), said.rfind(one) + len(one)) for one in self._misplaced]
        return joined(place for place in places if place[0] >= 0)

    def _begun(self, side: _Stream, kind: LineKind) -> Span | None:
        """Where a secret stands in what has no end yet."""
        data = bytes(side.partial)
        if kind == "command":
            secret = self._secret_in(data, rest=self.turns.due["C"].rest)
            return joined((secret, *self._known(data, breaks_off=True)))
        if kind == "content" and self._is_argument(side):
            return joined(self._known(data, breaks_off=True))
        return None

    # -- what a protocol adds

    @abstractmethod
    def _placed(self, line: bytes) -> Span | None:
        """Where a secret stands in a login, even in one that breaks off."""

    @abstractmethod
    def _secret_in(self, line: bytes, *, rest: bool) -> Span | None:
        """The same in any command, also in one that only looks like a login."""

    def _is_argument(self, side: _Stream) -> bool:
        """Whether counted content isn't a message but part of a command, where a password may
        stand.
        """
        return False

    def _due(self, side: _Stream) -> Due:
        """What that side's next octets are."""
        return self.turns.due[side.who]

    def _start_over(self) -> None:
        """TLS begins: what was sent before it and isn't answered never will be."""
        self.turns.start_tls()
        for side in self._sides.values():
            while side.waiting:
                self.turns.forget()
                self._step(side)
            if side.partial_octets:
                kind = self._kind(side)
                self._emit(side, kind, self._begun(side, kind))
            side.content = None
        self.turns.start_tls()

    # -- cutting

    def _kind(self, side: _Stream) -> LineKind:
        due = side.content or self.turns.due[side.who]
        return "command" if due.form == "wait" else due.kind

    def _is_held(self, side: _Stream) -> bool:
        return self.turns.due[side.who].form == "wait" and side.content is None

    def _cut(self, side: _Stream) -> None:
        while side.waiting and not self._is_held(side):
            self._step(side)

    def _step(self, side: _Stream) -> None:
        """Cut at most one line off what is waiting."""
        piece = side.waiting[0]
        if not side.partial_octets:
            side.partial_at, side.partial_tls = piece.at, piece.tls
        side.now, side.now_tls = piece.at, piece.tls
        if side.content is None and self.turns.due[side.who].form not in _LINES:
            self._begin(side)
        if side.content is None:
            piece.start = self._plain(side, piece.data, piece.start)
        elif side.content.form == "dot":
            piece.start = self._dotted(side, piece.data, piece.start)
        else:
            piece.start = self._counted(side, piece.data, piece.start)
        if piece.start == len(piece.data):
            side.waiting.popleft()

    def _begin(self, side: _Stream) -> None:
        """Content begins, if it is due."""
        due = self._due(side)
        if due.form in ("dot", "octets"):
            # Where it begins, a dot right after the command's line end counts as well.
            side.content, side.left, side.tail = due, due.octets, b"\r\n"

    # Each of these three takes octets from `start` on and returns where it stopped.

    def _plain(self, side: _Stream, data: bytes, start: int) -> int:
        end = data.find(b"\n", start) + 1
        if not end:
            self._keep(side, data[start:], self.bounds.body)
            return len(data)
        self._keep(side, data[start:end], self.bounds.body)
        kind, secret = self._understood(bytes(side.partial), side)
        self._emit(side, kind, secret)
        return end

    def _counted(self, side: _Stream, data: bytes, start: int) -> int:
        part = data[start : start + side.left]
        side.left -= len(part)
        self._keep(side, part, self.bounds.body)
        if side.left == 0:
            kind = self._kind(side)
            if kind == "credentials":
                secret: Span | None = (0, len(side.partial))
            else:
                shortened = side.partial_octets > len(side.partial)
                data = bytes(side.partial) if self._is_argument(side) else b""
                secret = joined(self._known(data, breaks_off=shortened))
            side.content = None
            self.turns.hear(side.who, b"", kind)
            self._emit(side, kind, secret)
        return start + len(part)

    def _dotted(self, side: _Stream, data: bytes, start: int) -> int:
        joined = side.tail + data[start:]
        end = joined.find(b"\r\n.\r\n")
        if end < 0:
            self._keep(side, data[start:], self.bounds.body)
            side.tail = joined[-4:]
            return len(data)
        body = end + 2 - len(side.tail)
        if body >= 0:
            self._keep(side, data[start : start + body], self.bounds.body)
        else:
            # The dot (and more) came with an earlier piece: it isn't content.
            self._take_back(side, -body)
        side.content = None
        if side.partial_octets:
            self._emit(side, "content", None)
        self.turns.hear(side.who, b".\r\n", "end")
        side.partial_at, side.partial_tls = side.now, side.now_tls
        self._keep(side, b".\r\n", self.bounds.body)
        self._emit(side, "end", None)
        return start + body + 3

    def _keep(self, side: _Stream, data: bytes, most: int) -> None:
        room = max(0, most - len(side.partial))
        side.partial += data[:room]
        side.partial_octets += len(data)
        side.partial_end = (side.partial_end + data[-_END:])[-_END:]

    def _take_back(self, side: _Stream, octets: int) -> None:
        beyond = side.partial_octets - len(side.partial)
        side.partial_octets -= octets
        if octets > beyond:
            del side.partial[len(side.partial) - (octets - beyond) :]

    def _line(self, side: _Stream, kind: LineKind, secret: Span | None = None) -> Line:
        data, octets = bytes(side.partial), side.partial_octets
        return _line(side.partial_at, side.who, data, side.partial_tls, kind, octets, secret)

    def _emit(self, side: _Stream, kind: LineKind, secret: Span | None) -> None:
        line = self._line(side, kind, secret)
        side.partial, side.partial_end = bytearray(), b""
        side.partial_octets = 0
        self._add(line)

    def _add(self, line: Line) -> None:
        # From the first line that finds no room none is kept, so that no gap hides in the middle.
        size = len(line.data)
        if self.kept + size > self.bounds.session or len(self.lines) >= self.bounds.lines:
            self._full = True
        if self._full:
            self.dropped += line.octets
            return
        self.kept += size
        self.lines.append(line)
        if line.octets > size and line.kind != "content":
            self.dropped += line.octets - size

    def _stray_secret(self, line: bytes) -> Span | None:
        """What a client sent on top of a login that the server refused: most likely base64."""
        text = line.rstrip(b"\r\n")
        self._login_refused = bool(_BASE64.fullmatch(text)) and text.upper() not in _VERBS
        return (0, len(text)) if self._login_refused else None


def _line(
    at: float,
    who: Side,
    data: bytes,
    tls: bool,
    kind: LineKind,
    octets: int,
    secret: Span | None,
) -> Line:
    if kind == "credentials" and secret is None:
        secret = (0, len(data.rstrip(b"\r\n")))
    return Line(at, who, data, tls, kind, octets, secret)


_END = 64
_LINES = ("line", "rows")
_LOGINS = ("AUTH", "AUTHENTICATE")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{4,}={0,2}|\*")
_VERBS = {verb.encode() for verbs in VERBS.values() for verb in verbs} | {b"DONE"}


_MOST_MISPLACED, _SHORTEST_REPEATED = 8, 4
_LOGIN_WORD = re.compile(
    rb"(?<![\w@.+-])(?:(?P<named>LOGIN|APOP)|(?P<auth>AUTH(?:ENTICATE)?)|PASS(?:W(?:OR)?D)?)"
    rb"(?=[\s=:])",
    re.I,
)
_NAME_AND_SECRET = re.compile(rb"[\s=:]+(?:\"(?:[^\"\\]|\\.)*\"|[^\s{]\S*)\s+(?P<secret>\S)")
_MECHANISM = re.compile(rb"[\s=:]+(?P<name>[^\s=:]+)(?:[\s=:]+(?P<secret>\S))?")
_MECHANISM_NAME = re.compile(rb"[A-Z0-9_-]{1,20}|[a-z0-9_-]{1,20}|[A-Z][a-z]{1,8}")
"""RFC 4422 section 3.1; base64 mixes its letters."""
_ANY_SECRET = re.compile(rb"[\s=:]+(?P<secret>\S)")


def _secret(match: re.Match[bytes] | None) -> Span | None:
    """From where the secret begins to the end of its line."""
    if match is None or match["secret"] is None:
        return None
    return match.start("secret"), max(match.end("secret"), len(match.string.rstrip(b"\r\n")))


def _anywhere(line: bytes, *, parameters: bool = False) -> Span | None:
    """What follows LOGIN, AUTH or PASS, wherever in a line they stand but within quotes.

    A line with `parameters` may say `AUTH=` of something that is no secret (RFC 4954 section 5).
    """
    at = quotes = 0
    for word in _LOGIN_WORD.finditer(line):
        quotes += line.count(b'"', at, word.start())
        at = word.start()
        if quotes % 2 or (parameters and line[word.end() : word.end() + 1] == b"="):
            continue
        if word["named"]:
            secret = _secret(_NAME_AND_SECRET.match(line, word.end()))
        elif word["auth"]:
            secret = _behind_auth(_MECHANISM.match(line, word.end()))
        else:
            secret = _secret(_ANY_SECRET.match(line, word.end()))
        if secret:
            return secret
    return None


def _behind_auth(match: re.Match[bytes] | None) -> Span | None:
    if match is None or _MECHANISM_NAME.fullmatch(match["name"]):
        return _secret(match)
    return match.start("name"), len(match.string.rstrip(b"\r\n"))  # the secret alone


class SmtpDialogue(Dialogue):
    """AUTH carries secrets (RFC 4954)."""

    protocol: ProtocolName = "SMTP"
    _AUTH = re.compile(rb"\s*AUTH[ \t]+\S+[ \t]+(?P<secret>\S)", re.I)
    _PARAMETERS = re.compile(rb"\s*(?:MAIL|RCPT)\b", re.I)

    def _placed(self, line: bytes) -> Span | None:
        return _secret(self._AUTH.match(line))

    def _secret_in(self, line: bytes, *, rest: bool) -> Span | None:
        parameters = b"=" in line and bool(self._PARAMETERS.match(line))
        return self._placed(line) or _anywhere(line, parameters=parameters)


class Pop3Dialogue(Dialogue):
    """PASS, APOP (RFC 1939) and AUTH (RFC 5034) carry secrets."""

    protocol: ProtocolName = "POP3"
    _SECRET = re.compile(
        rb"\s*(?:PASS[ \t]|APOP[ \t]+\S+[ \t]+|AUTH[ \t]+\S+[ \t]+)(?P<secret>[^\r\n])", re.I
    )

    def _placed(self, line: bytes) -> Span | None:
        return _secret(self._SECRET.match(line))

    def _secret_in(self, line: bytes, *, rest: bool) -> Span | None:
        return self._placed(line) or _anywhere(line)


class ImapDialogue(Dialogue):
    """LOGIN and AUTHENTICATE carry secrets, also in literals (RFC 3501)."""

    protocol: ProtocolName = "IMAP"
    _LOGIN = re.compile(
        rb"\s*\S+\s+LOGIN\s+(?:\"(?:[^\"\\]|\\.)*\"|[^\s{]\S*)\s+(?P<secret>[^\r\n])", re.I
    )
    _AUTH = re.compile(rb"\s*\S+\s+AUTHENTICATE\s+\S+\s+(?P<secret>[^\r\n])", re.I)
    _LOGIN_ANYWHERE = re.compile(rb"(?<!\S)LOGIN\s", re.I)
    _OTHER = re.compile(
        rb"\s*\S+\s+(?:UID\s+)?(?:APPEND|COPY|CREATE|DELETE|EXAMINE|FETCH|ID|LIST|LSUB|MOVE|"
        rb"RENAME|SEARCH|SELECT|STATUS|STORE|SUBSCRIBE|UNSUBSCRIBE)\b",
        re.I,
    )
    """Commands whose arguments may be any words."""
    _login: Exchange | None = None
    """The latest command whose literals are a name and a password."""

    @property
    def _logs_in(self) -> bool:
        return self._login is self.turns.asking

    def _said(self, line: bytes, turn: Turn) -> Span | None:
        if turn.begins and not self._OTHER.match(line) and self._LOGIN_ANYWHERE.search(line):
            self._login = self.turns.asking
        return super()._said(line, turn)

    def _due(self, side: _Stream) -> Due:
        # The name in LOGIN is no secret, but it isn't told apart here from the password.
        due = self.turns.due[side.who]
        logs_in = due.octets and side.who == "C" and self._logs_in
        return due._replace(kind="credentials") if logs_in else due

    def _is_argument(self, side: _Stream) -> bool:
        return side.who == "C" and self.turns.asking.verb != "APPEND"

    def _placed(self, line: bytes) -> Span | None:
        return _secret(self._LOGIN.match(line)) or _secret(self._AUTH.match(line))

    def _secret_in(self, line: bytes, *, rest: bool) -> Span | None:
        if rest:
            secret = (0, len(line.rstrip(b"\r\n"))) if self._logs_in else None
        else:
            secret = self._placed(line)
            if secret is None and not self._OTHER.match(line):
                secret = _anywhere(line)
        # The announcement of a literal is no secret.
        told = secret and literal_of(line) and not line[secret[0] : line.rindex(b"{")].strip()
        return None if told else secret


_DIALOGUES: dict[ProtocolName, type[Dialogue]] = {
    "SMTP": SmtpDialogue,
    "POP3": Pop3Dialogue,
    "IMAP": ImapDialogue,
}


def dialogue(
    protocol: ProtocolName, bounds: Bounds | None = None, passwords: Passwords | None = None
) -> Dialogue:
    """An empty dialogue of that protocol; `passwords` are masked wherever a client says them."""
    return _DIALOGUES[protocol](bounds, passwords)
