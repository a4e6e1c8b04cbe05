"""Sends what a reader types to a lab, as it stands, each line after the full reply to the last.

When a reply is complete and what the server waits for (message content, a literal, an answer to a
challenge, a TLS handshake) is told by `turns/`. What goes wrong on the way is no error but one
sentence beside the dialogue. Nothing here knows IPython.
"""

from __future__ import annotations

import base64
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from labserver.lab import Lab
from labserver.listeners import TABLE, spoken_on
from labserver.tables import PROTOCOLS
from labserver.transcript import LineKind, ProtocolName, Session
from labserver.turns import Due, Turn, Turns
from labserver.views.card import note
from labserver.views.dialogue import dialogue
from labserver.views.view import View

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
_FAREWELLS = ("QUIT", "LOGOUT")
_WHERE_TO_LOG_IN = " Logging in is for submission: -l submission."
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
        view = dialogue(self.session)
        if not self.notes:
            return view.html
        return View("dialogue touch", view.body + "".join(map(note, self.notes)), view.text).html


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
    protocol = next(name for name, listeners in SPOKEN_ON.items() if listener in listeners)
    before = max((session.number for session in lab.sessions), default=0)
    sock = lab.network.connect(address, timeout)
    end = LINE_ENDS[line_end]
    turns = Turns(protocol, states=False)
    conversation = _Conversation(lab, listener, turns, sock, _Text(text, end), timeout, tags=tags)
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


_WELCOME: Mapping[ProtocolName, tuple[str, ...]] = MappingProxyType(
    {"SMTP": ("220",), "POP3": ("+OK",), "IMAP": ("OK", "PREAUTH")}
)
_HELLO = b"EHLO client.example"
_START_TLS: Mapping[ProtocolName, tuple[bytes, ...]] = MappingProxyType(
    {"SMTP": (_HELLO, b"STARTTLS"), "POP3": (b"STLS",), "IMAP": (b"STARTTLS",)}
)


class _Conversation:
    """One connection to the lab, from the greeting to the end."""

    def __init__(
        self,
        lab: Lab,
        listener: str,
        turns: Turns,
        sock: Any,
        text: _Text,
        timeout: float,
        *,
        tags: bool,
    ) -> None:
        self.lab, self.listener, self.turns, self.text = lab, listener, turns, text
        self._number = 0
        """Of the latest tag."""
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
            if self.reply().code not in _WELCOME[self.turns.protocol]:
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

    # -- our own commands, before the reader's lines

    def start_tls(self) -> None:
        """Ask for TLS and start it."""
        for command in _START_TLS[self.turns.protocol]:
            self.ask(command)
        if not self.turns.tls_due:
            raise _Over("The server offers no TLS here.")
        self.handshake()

    def log_in(self, address: str, password: str) -> None:
        """Log in."""
        if self.turns.protocol == "SMTP":
            secret = base64.b64encode(f"\0{address}\0{password}".encode())
            commands, hint = [_HELLO, b"AUTH PLAIN " + secret], _WHERE_TO_LOG_IN
        elif self.turns.protocol == "POP3":
            commands, hint = [b"USER " + address.encode(), b"PASS " + password.encode()], ""
        else:
            quoted = re.sub(r'([\\"])', r"\\\1", password)
            commands, hint = [f'LOGIN "{address}" "{quoted}"'.encode()], ""
        code = [self.ask(command).code for command in commands][-1]
        if code not in ("235", "+OK", "OK"):
            raise _Over(f"The server didn't let you log in.{hint}")

    # -- the reader's lines

    def exchange(self, line: bytes) -> None:
        """Say a line of the text with all that belongs to it, and hear the full reply."""
        self.say(self._tagged(line) if self.tags else line)
        turn: Turn | None = None
        while True:
            due = self.turns.due["C"]
            if due.form == "octets":
                self.say(self.counted(due.octets), due.kind)
            elif due.form == "dot":
                self.say(self.next_line("the line with a single dot, and has stored nothing"))
            elif due.rest:
                self.say(self.next_line("the end of the command after the literal"))
            elif due.kind == "credentials" and due.form == "line":
                self.say(self.next_line("your answer to its question"))
            elif self.turns.idles:
                self.say(self.next_line("DONE"))
                turn = self.reply()
            elif self.turns.answer_due:
                turn = self.reply()
                self._expect_leave(due, turn)
            else:
                break
        if self.turns.tls_due:
            self.handshake()
        if turn and turn.exchange.verb in _FAREWELLS and turn.code in ("221", "+OK", "OK"):
            self._farewell = turn.exchange.verb

    def _expect_leave(self, due: Due, turn: Turn) -> None:
        """Raises `_Over` where the announced octets are refused."""
        announced = due.octets or due.kind == "content"
        if due.form == "wait" and announced and turn.code != "+":
            self.text.octets(due.octets)
            self.text.line()
            raise _Over("The server refused the literal, so it wasn't sent.")

    # -- speaking and listening

    def say(self, octets: bytes, kind: LineKind | None = None) -> None:
        """Send some of the text, unless all of it has left already."""
        if not self._sent_ahead:
            self._send(octets)
        self.turns.hear("C", octets, kind)

    def ask(self, command: bytes) -> Turn:
        """Send a command of our own, and hear the end of the reply."""
        line = (self._tagged(command) if self.turns.protocol == "IMAP" else command) + b"\r\n"
        self._send(line)
        self.turns.hear("C", line)
        return self.reply()

    def _tagged(self, command: bytes) -> bytes:
        self._number += 1
        return b"a%03d %b" % (self._number, command)

    def reply(self) -> Turn:
        """Hear all until a reply is complete; its last line."""
        while True:
            due = self.turns.due["S"]
            if due.form == "octets":
                turn = self.turns.hear("S", self.hear_octets(due.octets))
            else:
                turn = self.turns.hear("S", self.hear())
            # Behind a BYE that greets nobody comes only the end.
            leaves = turn.code == "BYE" and turn.exchange.verb != "greeting"
            if (turn.completes or turn.code == "BAD") and not leaves:
                return turn

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

    def hear_octets(self, count: int) -> bytes:
        """A literal from the server."""
        try:
            got: bytes = self._file.read(count)
        except OSError as error:
            raise _Over(self._silence()) from error
        if len(got) < count:
            raise _Over(self._server_left())
        return got

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
        self.turns.start_tls()

    def _silence(self) -> str:
        seconds = "one second" if self._timeout == 1 else f"{self._timeout:g} seconds"
        sentence = f"The server said nothing for {seconds}."
        if self.text.end == b"\r\n":
            return sentence
        return (
            f"{sentence} It still waits for the end: a line ends with CR LF, and yours ended with "
            f"{_END_NAMES[self.text.end]} ({_LINE_RULE[self.turns.protocol]})."
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


def _lines(count: int) -> str:
    return "one line" if count == 1 else f"{count:,} lines"


def _reason(error: OSError) -> str:
    """Why a handshake failed, in the words of the TLS library."""
    reason = error.reason if isinstance(error, ssl.SSLError) and error.reason else ""
    return reason.replace("_", " ").lower() or str(error) or "the connection ended"
