"""Sends what a reader types to a lab, as it stands, each line after the full reply to the last.

It knows just enough of each protocol to tell when a reply is complete and what the server waits
for: message content, a literal, an answer to a challenge, a TLS handshake. What goes wrong on the
way is no error but one sentence beside the dialogue. Nothing here knows IPython.
"""

from __future__ import annotations

import base64
import re
import ssl
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from labserver.catalog.tables import PROTOCOLS
from labserver.lab import Lab
from labserver.listeners import TABLE, spoken_on
from labserver.notebook.card import note
from labserver.notebook.dialogue import dialogue
from labserver.transcript import ProtocolName, Session

LineEnd = Literal["crlf", "lf", "cr"]

LINE_ENDS: Mapping[LineEnd, bytes] = MappingProxyType({"crlf": b"\r\n", "lf": b"\n", "cr": b"\r"})

SPOKEN_ON: Mapping[ProtocolName, tuple[str, ...]] = MappingProxyType(
    {protocol: spoken_on(protocol) for protocol in PROTOCOLS}
)
"""Where each protocol can be spoken; the first is what a reader gets who names none."""

SECONDS = 5.0
"""How long a reply is waited for, where nothing else is said."""

_LINE_RULE: Mapping[ProtocolName, str] = MappingProxyType(
    {"SMTP": "RFC 5321 §2.3.8", "POP3": "RFC 1939 §3", "IMAP": "RFC 3501 §2.2"}
)
_END_NAMES = {b"\n": "LF alone", b"\r": "CR alone"}


@dataclass(frozen=True, slots=True, repr=False)
class Typed:
    """What came of a cell: the dialogue as the lab recorded it, and what to know about it."""

    session: Session
    notes: tuple[str, ...]
    """A sentence for each thing that went otherwise than typed."""

    def __str__(self) -> str:
        return "\n".join((str(self.session), *(f"Note: {sentence}" for sentence in self.notes)))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return dialogue(self.session).html + "".join(map(note, self.notes))


def converse(
    lab: Lab,
    listener: str,
    text: str,
    *,
    login: str = "",
    tls: bool = False,
    line_end: LineEnd = "crlf",
    tags: bool = False,
    pipelined: bool = False,
    timeout: float = SECONDS,
) -> Typed:
    """Connect, send the text's lines, hang up, and give what was said.

    `login` is one of the lab's accounts, logged in (under TLS where the lab has it) before the
    first line; `tls` only starts TLS. `tags` puts a001, a002, … before IMAP commands. With
    `pipelined` all leaves at once, right after the greeting. `timeout` is in seconds.

    Raises `LabError` where the lab has no such listener, `OSError` where nobody answers there.
    """
    address = lab.address(listener)
    speak = next(kind for kind in (_Smtp, _Pop3, _Imap) if listener in SPOKEN_ON[kind.protocol])
    before = max((session.number for session in lab.sessions), default=0)
    sock = lab.network.connect(address, timeout)
    end = LINE_ENDS[line_end]
    conversation = speak(lab, listener, sock, _Text(text, end), timeout, tags=tags)
    try:
        conversation.run(login, tls, pipelined)
    finally:
        conversation.close()
    mine = (one for one in lab.sessions if one.number > before and one.listener == listener)
    return Typed(next(mine, lab.sessions[-1]), tuple(conversation.notes))


class _Over(Exception):
    """The conversation can't go on; the text is the sentence that says why, or empty."""


class _Text:
    """What is typed and not yet said."""

    def __init__(self, text: str, end: bytes) -> None:
        # Blank lines at the end of a cell are the editor's, not the reader's.
        rows = text.rstrip("\r\n").encode("utf-8", "surrogateescape").splitlines()
        self.rest = b"".join(row + end for row in rows)
        self.end = end

    def line(self) -> bytes | None:
        """The next line with its end; `None` where there is none."""
        if not self.rest:
            return None
        line, end, self.rest = self.rest.partition(self.end)
        return line + end

    def octets(self, count: int) -> bytes:
        """The next octets, fewer where there aren't so many."""
        some, self.rest = self.rest[:count], self.rest[count:]
        return some

    @property
    def lines_left(self) -> int:
        """Lines, the one included that lacks a part of its end."""
        broken = bool(self.rest) and not self.rest.endswith(self.end)
        return self.rest.count(self.end) + broken


class _Conversation(ABC):
    """One connection to the lab, from the greeting to the end."""

    protocol: ProtocolName

    def __init__(
        self, lab: Lab, listener: str, sock: Any, text: _Text, timeout: float, *, tags: bool
    ) -> None:
        self.lab, self.listener, self.text = lab, listener, text
        self.notes: list[str] = []
        self.tags = tags
        self._sock, self._file = sock, sock.makefile("rb")
        self._timeout = timeout
        self._tls = False
        self._sent_ahead = False
        """All of the text has left already."""
        self._unanswered = text.lines_left
        """How many lines of the text have had no full reply."""
        self._farewell = ""
        """The command that ended the session, once it is answered."""

    # -- the course of it

    def run(self, login: str, tls: bool, pipelined: bool) -> None:
        """Everything from the greeting to the last line."""
        try:
            if TABLE[self.listener].implicit:
                self.handshake()
            if not self.welcome():
                raise _Over("The server doesn't want to talk now.")
            if (tls or login) and not self._tls and self.lab.can.tls:
                self.start_tls()
            if login:
                self.log_in(login, self.lab.accounts[login])
            if pipelined:
                self._sent_ahead = True
                self._send(self.text.rest)
            while not self._farewell and (unsaid := self.text.lines_left):
                self._unanswered = unsaid
                self.exchange(self.text.line() or b"")
            if self._farewell:
                self._await_the_end()
        except _Over as over:
            if str(over):
                self.notes.append(str(over))

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._sock.close()

    def _await_the_end(self) -> None:
        lines = self.text.lines_left
        if lines:
            what = "wasn't sent" if not self._sent_ahead else "wasn't read"
            self.notes.append(
                f"{self._farewell} ended the session, so what comes after it in the cell {what}: "
                f"{_lines(lines)}."
            )
        try:
            while self._file.readline():
                pass
        except OSError:
            pass

    # -- what a protocol adds

    @abstractmethod
    def welcome(self) -> bool:
        """Hear the greeting; whether the server is willing."""

    @abstractmethod
    def start_tls(self) -> None:
        """Ask for TLS and start it, before the reader's lines."""

    @abstractmethod
    def log_in(self, address: str, password: str) -> None:
        """Log in, before the reader's lines."""

    @abstractmethod
    def exchange(self, line: bytes) -> None:
        """Say a line of the text with all that belongs to it, and hear the full reply."""

    # -- speaking and listening

    def say(self, octets: bytes) -> None:
        """Send some of the text, unless all of it has left already."""
        if not self._sent_ahead:
            self._send(octets)

    def ask(self, line: bytes) -> None:
        """Send a line of our own."""
        self._send(line + b"\r\n")

    def _send(self, octets: bytes) -> None:
        try:
            self._sock.sendall(octets)
        except TimeoutError as error:
            raise _Over("The server doesn't read what is sent to it.") from error
        except OSError as error:
            raise _Over(self._server_left()) from error

    def hear(self) -> bytes:
        """The server's next line. Raises `_Over` where none comes."""
        try:
            line: bytes = self._file.readline()
        except TimeoutError as error:
            raise _Over(self._silence()) from error
        except (OSError, ValueError):
            line = b""
        if not line:
            raise _Over(self._server_left())
        return line

    def hear_octets(self, count: int) -> None:
        """A literal from the server."""
        try:
            got = self._file.read(count)
        except OSError as error:
            raise _Over(self._silence()) from error
        if len(got) < count:
            raise _Over(self._server_left())

    def handshake(self) -> None:
        """Start TLS on this connection."""
        if self._sent_ahead and self.text.rest:
            raise _Over(
                "What you sent along with this command came before TLS, in the clear; "
                "the server threw it away. Wait for the reply before you go on."
            )
        try:
            self._sock = self.lab.tls.wrap_socket(self._sock, server_hostname=self.lab.hostname)
        except OSError as error:
            raise _Over(f"TLS could not be started: {_reason(error)}.") from error
        self._file = self._sock.makefile("rb")
        self._tls = True

    def _silence(self) -> str:
        seconds = "one second" if self._timeout == 1 else f"{self._timeout:g} seconds"
        sentence = f"The server said nothing for {seconds}."
        if self.text.end == b"\r\n":
            return sentence
        return (
            f"{sentence} It still waits for the end: a line ends with CR LF, and yours ended with "
            f"{_END_NAMES[self.text.end]} ({_LINE_RULE[self.protocol]})."
        )

    def _server_left(self) -> str:
        return (
            "The server closed the connection, so the rest of the cell was not obeyed: "
            f"{_lines(self._unanswered)}."
        )

    def next_line(self, wanted: str) -> bytes:
        """The next line of the text, which the server waits for. Raises `_Over` without one."""
        line = self.text.line()
        if line is None:
            raise _Over(f"The cell ends here: the server still waits for {wanted}.")
        return line

    def counted(self, count: int) -> bytes:
        """As many octets of the text as were announced. Raises `_Over` where there are fewer."""
        octets = self.text.octets(count)
        if len(octets) < count:
            self.say(octets)
            raise _Over(
                f"{count:,} octets were announced and the cell holds {len(octets):,} of them, "
                f"line ends counted: the server still waits for {count - len(octets):,}."
            )
        return octets


class _Smtp(_Conversation):
    """RFC 5321."""

    protocol: ProtocolName = "SMTP"
    _NAME = b"client.example"
    _BDAT = re.compile(rb"BDAT[ \t]+(\d{1,9})\b", re.I)

    def welcome(self) -> bool:
        return self._reply() == b"220"

    def start_tls(self) -> None:
        self._introduce()
        self.ask(b"STARTTLS")
        if self._reply() != b"220":
            raise _Over("The server offers no TLS here.")
        self.handshake()

    def log_in(self, address: str, password: str) -> None:
        self._introduce()
        secret = base64.b64encode(f"\0{address}\0{password}".encode())
        self.ask(b"AUTH PLAIN " + secret)
        if self._reply() != b"235":
            raise _Over(
                "The server didn't let you log in. Logging in is for submission: -l submission."
            )

    def _introduce(self) -> None:
        self.ask(b"EHLO " + self._NAME)
        self._reply()

    def exchange(self, line: bytes) -> None:
        verb = line.split(maxsplit=1)[0].upper() if line.strip() else b""
        self.say(line)
        if chunk := self._BDAT.match(line):
            self.say(self.counted(int(chunk[1])))
        code = self._reply()
        while code == b"334":
            self.say(self.next_line("your answer to its question"))
            code = self._reply()
        if verb == b"DATA" and code == b"354":
            self._content()
            code = self._reply()
        if verb == b"STARTTLS" and code == b"220":
            self.handshake()
        if code == b"221":
            self._farewell = "QUIT"

    def _content(self) -> None:
        """Everything up to the line with a single dot."""
        while True:
            line = self.next_line("the line with a single dot, and has stored nothing")
            self.say(line)
            if line == b"." + self.text.end:
                return

    def _reply(self) -> bytes:
        """The code of the next complete reply (RFC 5321 section 4.2.1)."""
        while True:
            line = self.hear()
            if line[3:4] != b"-":
                return line[:3]


class _Pop3(_Conversation):
    """RFC 1939, with CAPA (RFC 2449) and AUTH (RFC 5034)."""

    protocol: ProtocolName = "POP3"

    def welcome(self) -> bool:
        return self._ok()

    def start_tls(self) -> None:
        self.ask(b"STLS")
        if not self._ok():
            raise _Over("The server offers no TLS here.")
        self.handshake()

    def log_in(self, address: str, password: str) -> None:
        self.ask(b"USER " + address.encode())
        self._ok()
        self.ask(b"PASS " + password.encode())
        if not self._ok():
            raise _Over("The server didn't let you log in.")

    def _ok(self) -> bool:
        return self.hear().startswith(b"+OK")

    def exchange(self, line: bytes) -> None:
        words = line.upper().split()
        self.say(line)
        reply = self.hear()
        while reply.startswith(b"+ "):
            self.say(self.next_line("your answer to its question"))
            reply = self.hear()
        if not reply.startswith(b"+OK"):
            return
        verb = words[0] if words else b""
        alone = verb in (b"LIST", b"UIDL", b"AUTH") and len(words) == 1
        if alone or verb in (b"CAPA", b"RETR", b"TOP"):
            while self.hear().rstrip(b"\r\n") != b".":
                pass
        elif verb == b"STLS":
            self.handshake()
        elif verb == b"QUIT":
            self._farewell = "QUIT"


class _Imap(_Conversation):
    """RFC 3501, with literals both ways and IDLE (RFC 2177)."""

    protocol: ProtocolName = "IMAP"
    _LITERAL = re.compile(rb"\{(\d{1,9})(\+?)\}\r?\n?$")
    _number = 0

    def welcome(self) -> bool:
        greeting = self.hear()
        return not greeting.upper().startswith(b"* BYE")

    def start_tls(self) -> None:
        if self._own(b"STARTTLS") != b"OK":
            raise _Over("The server offers no TLS here.")
        self.handshake()

    def log_in(self, address: str, password: str) -> None:
        quoted = re.sub(r'([\\"])', r"\\\1", password)
        if self._own(f'LOGIN "{address}" "{quoted}"'.encode()) != b"OK":
            raise _Over("The server didn't let you log in.")

    def _own(self, command: bytes) -> bytes:
        """Say a command of our own; how it was answered."""
        tag = self._tag()
        self.ask(tag + b" " + command)
        return self._reply(tag)

    def _tag(self) -> bytes:
        self._number += 1
        return f"a{self._number:03}".encode()

    def exchange(self, line: bytes) -> None:
        if self.tags:
            line = self._tag() + b" " + line
        tag, _, command = line.rstrip(b"\r\n").partition(b" ")
        verb = command.split(maxsplit=1)[0].upper() if command.strip() else b""
        self.say(line)
        while literal := self._LITERAL.search(line):
            count, unasked = int(literal[1]), bool(literal[2])
            if not unasked and self._reply(tag) != b"+":
                self.text.octets(count)
                self.text.line()
                raise _Over("The server refused the literal, so it wasn't sent.")
            self.say(self.counted(count))
            line = self.next_line("the end of the command after the literal")
            self.say(line)
        wanted = "DONE" if verb == b"IDLE" else "your answer to its question"
        while (status := self._reply(tag)) == b"+":
            self.say(self.next_line(wanted))
        if status == b"OK" and verb == b"STARTTLS":
            self.handshake()
        if status == b"OK" and verb == b"LOGOUT":
            self._farewell = "LOGOUT"

    def _reply(self, tag: bytes) -> bytes:
        """`OK`, `NO` or `BAD` of the tagged line, or `+`, with all that comes before it."""
        while True:
            line = self.hear()
            whole = line
            while literal := self._LITERAL.search(line):
                self.hear_octets(int(literal[1]))
                line = self.hear()
            first, _, rest = whole.partition(b" ")
            if first.strip() == b"+":
                return b"+"
            # A line without a tag is answered without one.
            if first == tag or whole[:5].upper() == b"* BAD":
                return rest.split(maxsplit=1)[0].upper()


def _lines(count: int) -> str:
    return "one line" if count == 1 else f"{count:,} lines"


def _reason(error: OSError) -> str:
    """Why a handshake failed, in the words of the TLS library."""
    reason = error.reason if isinstance(error, ssl.SSLError) and error.reason else ""
    return reason.replace("_", " ").lower() or str(error) or "the connection ended"
