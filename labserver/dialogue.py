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
        self.literal = 0
        """Octets of counted content still to come (BDAT, an IMAP literal)."""
        self.unasked = False
        """The counted content comes without waiting for the server's leave."""
        self.counted = False
        """In counted content, which ends when `literal` reaches 0."""
        self.dotted = False
        """In content that a line with a single dot ends."""
        self.tail = b""
        """The last octets of dotted content, to find its end across pieces."""
        self.line_kind: LineKind | None = None
        """What the next line is, where it isn't a command or a reply."""
        self.content_kind: LineKind = "content"
        self.arguments = False
        """The counted content isn't a message but part of a command, where a password may stand."""
        self.held = b""
        """The command that must be answered before it is known how to read what comes next."""

    @property
    def is_between_lines(self) -> bool:
        """Whether the next octet begins a line."""
        return not (self.waiting or self.held or self.partial_octets or self.counted or self.dotted)


class Dialogue(ABC):
    """The lines said so far; feed it what each side sent, in the order it was recorded."""

    def __init__(self, bounds: Bounds | None = None, passwords: Passwords | None = None) -> None:
        self.bounds = bounds or Bounds()
        self._passwords = passwords or Passwords()
        self._misplaced: deque[bytes] = deque(maxlen=_MOST_MISPLACED)
        """Secrets that stood where no login is; a server may repeat them in its answer."""
        self.lines: list[Line] = []
        self.kept = 0
        self.dropped = 0
        self.farewell = False
        """The client has said QUIT or LOGOUT."""
        self._full = False
        self._tls: bool | None = None
        self._login_refused = False
        self._sides: dict[Side, _Stream] = {"C": _Stream("C"), "S": _Stream("S")}

    def feed(self, at: float, who: Side, data: bytes, tls: bool) -> None:
        """Take octets that `who` sent `at` seconds after the connection was made."""
        if tls and self._tls is False:
            self._start_over()
        self._tls = tls
        side = self._sides[who]
        if side.is_between_lines and data.find(b"\n") + 1 == len(data) <= self.bounds.body:
            # What comes mostly is one whole line.
            side.partial_end = data[-_END:]
            kind, secret = self._understood(data, side)
            side.partial_end = b""
            self._add(_line(at, who, data, tls, kind, len(data), secret))
            if who == "S":
                self._cut(self._sides["C"])
            return
        side.waiting.append(_Piece(at, data, tls))
        while side.waiting and not side.held:
            self._step(side)
            if who == "S":
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
        rows = [kept[: side.literal]] if side.literal else []
        rows += kept[side.literal :].splitlines(keepends=True)[: self.bounds.lines]
        hides = b"AUTH" in side.held or side.content_kind == "credentials"
        lines = []
        for number, row in enumerate(rows):
            kind: LineKind = "credentials" if hides else "command"
            if side.literal and not number:
                kind = side.content_kind
            secret: Span | None = (0, len(row))
            last = number == len(rows) - 1
            if kind != "credentials":
                known = self._passwords.found_in(row, breaks_off=last)
                secret = joined((self._secret_in(row), *known))
            octets = len(row) + (beyond if last else 0)
            lines.append(Line(first.at, side.who, row, first.tls, kind, octets, secret))
        return lines

    # -- secrets

    def _understood(self, line: bytes, side: _Stream) -> tuple[LineKind, Span | None]:
        """What `_said` makes of a line, and the known passwords in it."""
        kind, secret = self._said(line, side)
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
        return kind, joined((secret, *known))

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
            return joined((self._secret_in(data), *self._known(data, breaks_off=True)))
        if kind == "content" and side.arguments:
            return joined(self._known(data, breaks_off=True))
        return None

    # -- what a protocol adds

    @abstractmethod
    def _said(self, line: bytes, side: _Stream) -> tuple[LineKind, Span | None]:
        """Learn from a whole line how to read on; its kind, and where a secret stands in it."""

    @abstractmethod
    def _placed(self, line: bytes) -> Span | None:
        """Where a secret stands in a login, even in one that breaks off; learns nothing."""

    @abstractmethod
    def _secret_in(self, line: bytes) -> Span | None:
        """The same in any command, also in one that only looks like a login."""

    def _start_over(self) -> None:
        """TLS begins: what was sent before it and isn't answered never will be."""
        for side in self._sides.values():
            side.held, side.line_kind = b"", None
            while side.waiting:
                self._cut(side)
                side.held, side.line_kind = b"", None
            if side.partial_octets:
                kind = self._kind(side)
                self._emit(side, kind, self._begun(side, kind))
            side.counted = side.dotted = False
            side.literal, side.content_kind, side.arguments = 0, "content", False

    def _content_over(self, side: _Stream) -> None:
        """Counted content has ended (IMAP goes on with the same line)."""
        side.content_kind, side.arguments = "content", False

    # -- cutting

    def _kind(self, side: _Stream) -> LineKind:
        if side.counted or side.dotted:
            return side.content_kind
        return side.line_kind or ("command" if side.who == "C" else "reply")

    def _cut(self, side: _Stream) -> None:
        while side.waiting and not side.held:
            self._step(side)

    def _step(self, side: _Stream) -> None:
        """Cut at most one line off what is waiting."""
        piece = side.waiting[0]
        if not side.partial_octets:
            side.partial_at, side.partial_tls = piece.at, piece.tls
        side.now, side.now_tls = piece.at, piece.tls
        if side.counted:
            piece.start = self._counted(side, piece.data, piece.start)
        elif side.dotted:
            piece.start = self._dotted(side, piece.data, piece.start)
        else:
            piece.start = self._plain(side, piece.data, piece.start)
        if piece.start == len(piece.data):
            side.waiting.popleft()

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
        part = data[start : start + side.literal]
        side.literal -= len(part)
        self._keep(side, part, self.bounds.body)
        if side.literal == 0:
            side.counted = False
            kind = side.content_kind
            if kind == "credentials":
                secret: Span | None = (0, len(side.partial))
            else:
                shortened = side.partial_octets > len(side.partial)
                data = bytes(side.partial) if side.arguments else b""
                secret = joined(self._known(data, breaks_off=shortened))
            self._emit(side, kind, secret)
            self._content_over(side)
        return start + len(part)

    def _dotted(self, side: _Stream, data: bytes, start: int) -> int:
        # `tail` starts as CRLF, so that a dot right after the command counts as well.
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
        side.dotted = False
        if side.partial_octets:
            self._emit(side, "content", None)
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
        self._full = (
            self._full
            or self.kept + len(line.data) > self.bounds.session
            or len(self.lines) >= self.bounds.lines
        )
        if self._full:
            self.dropped += line.octets
        else:
            self.kept += len(line.data)
            self.lines.append(line)
            self.dropped += line.octets - len(line.data) if line.kind != "content" else 0

    def _stray_secret(self, line: bytes) -> Span | None:
        """What a client sent on top of a login that the server refused: most likely base64."""
        text = line.rstrip(b"\r\n")
        self._login_refused = (
            self._login_refused and bool(_BASE64.fullmatch(text)) and text.upper() not in _VERBS
        )
        if not self._login_refused:
            return None
        return 0, len(text)


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
_LEAVE = b"leave"
"""In `held`: an IMAP client has announced a literal, and the server hasn't said yet to send it."""
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
    """RFC 5321: DATA and its dot, AUTH and its challenges (RFC 4954), BDAT (RFC 3030)."""

    _AUTH = re.compile(rb"\s*AUTH[ \t]+\S+[ \t]+(?P<secret>\S)", re.I)
    _PARAMETERS = re.compile(rb"\s*(?:MAIL|RCPT)\b", re.I)
    _BDAT = re.compile(rb"\s*BDAT[ \t]+(\d{1,20})(?:[ \t]+LAST)?\s*\Z", re.I)

    def __init__(self, bounds: Bounds | None = None, passwords: Passwords | None = None) -> None:
        super().__init__(bounds, passwords)
        # The server's first reply is its greeting, whatever the client has said by then.
        self._unanswered: deque[bytes] = deque([b""])

    def _start_over(self) -> None:
        super()._start_over()
        self._unanswered.clear()

    def _placed(self, line: bytes) -> Span | None:
        return _secret(self._AUTH.match(line))

    def _secret_in(self, line: bytes) -> Span | None:
        parameters = bool(self._PARAMETERS.match(line))
        return self._placed(line) or _anywhere(line, parameters=parameters)

    def _said(self, line: bytes, side: _Stream) -> tuple[LineKind, Span | None]:
        return self._reply(line) if side.who == "S" else self._command(line, side)

    def _command(self, line: bytes, client: _Stream) -> tuple[LineKind, Span | None]:
        if client.line_kind == "credentials":
            client.line_kind, client.held = None, b"AUTH"
            return "credentials", None
        verb = line.split(maxsplit=1)[0].upper() if line.strip() else b""
        self._unanswered.append(verb)
        self.farewell = verb == b"QUIT"
        bdat = self._BDAT.match(line)
        if bdat and int(bdat[1]):
            client.counted, client.literal = True, int(bdat[1])
        client.held = verb if verb in (b"DATA", b"AUTH", b"STARTTLS") else b""
        return "command", self._secret_in(line) or self._stray_secret(line)

    def _reply(self, line: bytes) -> tuple[LineKind, Span | None]:
        if line[3:4] == b"-" or not self._unanswered:
            return "reply", None
        verb, client = self._unanswered[0], self._sides["C"]
        if verb == b"AUTH" and line.startswith(b"334"):
            client.line_kind, client.held = "credentials", b""
            return "reply", None
        self._unanswered.popleft()
        if verb == b"DATA" and line.startswith(b"354"):
            client.dotted, client.tail = True, b"\r\n"
            # The reply after the dot answers the content.
            self._unanswered.appendleft(b"")
        if verb in (b"DATA", b"AUTH", b"STARTTLS"):
            client.held, client.line_kind = b"", None
        if verb == b"AUTH":
            self._login_refused = line[:1] != b"2"
        return "reply", None


class Pop3Dialogue(Dialogue):
    """RFC 1939: multi-line responses; PASS, APOP and AUTH (RFC 5034) carry secrets."""

    _SECRET = re.compile(
        rb"\s*(?:PASS[ \t]|APOP[ \t]+\S+[ \t]+|AUTH[ \t]+\S+[ \t]+)(?P<secret>[^\r\n])", re.I
    )

    def __init__(self, bounds: Bounds | None = None, passwords: Passwords | None = None) -> None:
        super().__init__(bounds, passwords)
        # The server's first reply is its greeting, whatever the client has said by then.
        self._unanswered: deque[list[bytes]] = deque([[]])
        self._listing = False

    def _start_over(self) -> None:
        super()._start_over()
        self._unanswered.clear()
        self._listing = False

    def _placed(self, line: bytes) -> Span | None:
        return _secret(self._SECRET.match(line))

    def _secret_in(self, line: bytes) -> Span | None:
        return self._placed(line) or _anywhere(line)

    def _said(self, line: bytes, side: _Stream) -> tuple[LineKind, Span | None]:
        return self._reply(line, side) if side.who == "S" else self._command(line, side)

    def _command(self, line: bytes, client: _Stream) -> tuple[LineKind, Span | None]:
        if client.line_kind == "credentials":
            client.line_kind, client.held = None, b"AUTH"
            return "credentials", None
        words = line.upper().split()
        self._unanswered.append(words)
        self.farewell = words[:1] == [b"QUIT"]
        client.held = words[0] if words[:1] in ([b"AUTH"], [b"STLS"]) else b""
        return "command", self._secret_in(line) or self._stray_secret(line)

    def _reply(self, line: bytes, server: _Stream) -> tuple[LineKind, Span | None]:
        client = self._sides["C"]
        if self._listing:
            self._listing = line.rstrip(b"\r\n") != b"."
            return ("reply" if self._listing else "end"), None
        if not self._unanswered:
            return "reply", None
        words = self._unanswered[0]
        verb = words[0] if words else b""
        if verb == b"AUTH" and (line.startswith(b"+ ") or line.rstrip() == b"+"):
            client.line_kind, client.held = "credentials", b""
            return "reply", None
        self._unanswered.popleft()
        if verb in (b"AUTH", b"STLS"):
            client.held, client.line_kind = b"", None
        if verb == b"AUTH":
            self._login_refused = line[:1] != b"+"
        if line[:3].upper() == b"+OK":
            if verb in (b"RETR", b"TOP"):
                server.dotted, server.tail = True, b"\r\n"
            listing = (b"CAPA", b"LIST", b"UIDL", b"AUTH")
            self._listing = verb == b"CAPA" or (verb in listing and len(words) == 1)
        return "reply", None


class ImapDialogue(Dialogue):
    """RFC 3501: literals both ways; LOGIN and AUTHENTICATE carry secrets."""

    _LITERAL = re.compile(rb"\{(\d{1,18})(\+?)\}\r?\n$")
    _ANNOUNCED = re.compile(rb"\s*(?:\{\d{1,18}\+?\})?")
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

    def __init__(self, bounds: Bounds | None = None, passwords: Passwords | None = None) -> None:
        super().__init__(bounds, passwords)
        self._tag = b""
        self._verb = b""
        self._continued = False
        self._logs_in = False
        """The literals of this command are a name and a password."""

    def _said(self, line: bytes, side: _Stream) -> tuple[LineKind, Span | None]:
        return self._reply(line, side) if side.who == "S" else self._command(line, side)

    def _command(self, line: bytes, client: _Stream) -> tuple[LineKind, Span | None]:
        if client.line_kind == "credentials":
            client.line_kind, client.held = None, b"AUTH"
            return "credentials", None
        secret = self._secret_in(line)
        if self._continued:
            self._continued = False
        else:
            words = line.split(maxsplit=2)
            self._tag = words[0] if words else b""
            self._verb = words[1].upper() if len(words) > 1 else b""
            self.farewell = self._verb == b"LOGOUT"
            self._logs_in = self._verb == b"LOGIN" or (
                not self._OTHER.match(line) and bool(self._LOGIN_ANYWHERE.search(line))
            )
            client.held = self._verb if self._verb in (b"AUTHENTICATE", b"STARTTLS") else b""
            secret = secret or self._stray_secret(line)
        literal = self._LITERAL.search(client.partial_end)
        if literal:
            client.literal, client.unasked = int(literal[1]), bool(literal[2])
            # The name in LOGIN is no secret, but it isn't told apart here from the password.
            client.content_kind = "credentials" if self._logs_in else "content"
            client.arguments = self._verb != b"APPEND"
            if client.unasked:
                self._literal_comes(client)
            else:
                client.held = _LEAVE
        return "command", secret

    def _literal_comes(self, client: _Stream) -> None:
        """Its octets are next, and then the rest of the command."""
        self._continued = True
        client.counted, client.held = client.literal > 0, b""
        if not client.literal:
            self._content_over(client)

    def _placed(self, line: bytes) -> Span | None:
        if self._continued:
            return (0, len(line.rstrip(b"\r\n"))) if self._logs_in else None
        return _secret(self._LOGIN.match(line)) or _secret(self._AUTH.match(line))

    def _secret_in(self, line: bytes) -> Span | None:
        secret = self._placed(line)
        if secret is None and not (self._continued or self._OTHER.match(line)):
            secret = _anywhere(line)
        # The announcement of a literal is no secret.
        told = secret and self._ANNOUNCED.fullmatch(line[secret[0] :].rstrip(b"\r\n"))
        return None if told else secret

    def _start_over(self) -> None:
        super()._start_over()
        self._continued = False

    def _reply(self, line: bytes, server: _Stream) -> tuple[LineKind, Span | None]:
        client = self._sides["C"]
        tagged = bool(self._tag) and line.split(b" ", 1)[0] == self._tag
        if client.held == _LEAVE and line.startswith(b"+"):
            self._literal_comes(client)
        elif self._verb == b"AUTHENTICATE" and line.startswith(b"+"):
            client.line_kind, client.held = "credentials", b""
        elif tagged or line[:5].upper() in (b"* BAD", b"* BYE"):
            if self._verb == b"AUTHENTICATE":
                self._login_refused = b" OK" not in line[: len(self._tag) + 3].upper()
            awaited = client.counted and not client.partial_octets and not client.unasked
            if client.held == _LEAVE or awaited:
                # The server doesn't want the literal: what the client says next is a command.
                client.counted, client.literal, self._continued = False, 0, False
                self._content_over(client)
            client.held, client.line_kind = b"", None
        literal = self._LITERAL.search(server.partial_end)
        if literal and int(literal[1]):
            server.counted, server.literal = True, int(literal[1])
        return "reply", None


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
