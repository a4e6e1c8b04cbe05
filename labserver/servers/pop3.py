"""The POP3 server: RFC 1939 with CAPA (RFC 2449), STLS (RFC 2595) and AUTH PLAIN (RFC 5034).

A client logs in, gets its maildrop for itself alone, looks at it and takes leave; only then are
the messages it marked removed. The maildrop is the account's INBOX. Here lives the dialogue with
one client; not where mail rests (`store.py`), who may log in (`setup.py`), which maildrops are
locked (`maildrops.py`), or how octets travel (`network/`).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import re
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, cast

from labserver.listeners import Listener
from labserver.servers.door import Door
from labserver.servers.interpreter import Interpreter
from labserver.servers.reader import Reader
from labserver.servers.setup import INTERNAL_ERROR, NO_PLAINTEXT, Client, Setup, log_in
from labserver.store import DamagedMessage, MailboxRow, MessageRow, NoRoom, StoreError

if TYPE_CHECKING:
    from labserver.network.connection import Connection

_log = logging.getLogger("labserver")

_Rest: TypeAlias = Coroutine[Any, Any, None] | None
"""What is left of a command and may have to wait, if anything is."""

_COMMAND_OCTETS = 255
"""A command line with its CRLF (RFC 2449 section 4)."""
_RESPONSE_OCTETS = 1026
"""An answer to AUTH: PLAIN's three names of 255 octets in base64, CRLF (RFC 4616 section 2)."""
_ENDLESS_OCTETS = 16 * 1024
"""A line still without an end after so much never gets one."""
_CONTROLS = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")
"""What can't stand in a command."""
_PIECE_OCTETS = 256 * 1024
"""How much of a message is written before the client has to have read some of it."""


class Pop3Server:
    """Answers the clients of one POP3 listener.

    TLS is offered with STLS, or is on from the first octet where the listener is `implicit`.
    Passwords are taken without TLS too, unless the setup's `plaintext_login` is false.
    """

    def __init__(self, setup: Setup, listener: Listener) -> None:
        self.setup, self.store, self.maildrops = setup, setup.store, setup.maildrops
        self.hostname, self.limits = setup.hostname, setup.limits
        self.stls = None if listener.implicit else setup.tls
        self.plaintext_login = setup.plaintext_login is not False

    def factory(self) -> asyncio.Protocol:
        """The protocol of one new connection; to be called on the loop that will run it."""
        reader = Reader(limit=_ENDLESS_OCTETS)

        async def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await Pop3Connection(self, reader, writer).run()

        return asyncio.StreamReaderProtocol(reader, connected)


@dataclass(frozen=True, slots=True)
class _Message:
    """A message of the maildrop, as it was when the client logged in."""

    row: MessageRow
    octets: int
    """What RETR sends: lines that end in CRLF, added dots not counted (RFC 1939 section 11).

    A client adds up what it reads to know whether all has come, so a stored line end of one
    octet counts as the two that are sent, and an unended last line as ended.
    """


@dataclass(slots=True)
class _Maildrop:
    """An account's INBOX as its owner sees it from login to QUIT."""

    account: str
    mailbox: MailboxRow
    messages: dict[int, _Message]
    """By message-number; those marked as deleted are no longer here."""
    deleted: dict[int, _Message] = field(default_factory=dict)

    @property
    def octets(self) -> int:
        return sum(message.octets for message in self.messages.values())

    def unique_id(self, number: int) -> str:
        """Stays with the message for good and is never given to another (RFC 3501 2.3.1.1)."""
        return f"{self.mailbox.uidvalidity}.{self.messages[number].row.uid}"

    def reset(self) -> None:
        """Unmark all that was marked as deleted."""
        self.messages = dict(sorted((self.messages | self.deleted).items()))
        self.deleted.clear()

    def __str__(self) -> str:
        count = len(self.messages)
        return f"{count} {'message' if count == 1 else 'messages'} ({self.octets} octets)"


class _GoneError(ConnectionError):
    """There is nobody left to talk to: the client has gone, or was silent for too long."""


@dataclass(frozen=True, slots=True)
class _Command:
    """A command as RFC 1939 section 9 writes it, optional parameters in brackets."""

    syntax: str
    obey: Callable[..., _Rest]
    least: int = field(init=False)
    """Parameters it has to have."""
    most: int = field(init=False)
    """Parameters it may have."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "least", len(self.required.split()) - 1)
        object.__setattr__(self, "most", len(self.syntax.split()) - 1)

    @property
    def required(self) -> str:
        """The command without what may be left out."""
        return " ".join(word for word in self.syntax.split() if not word.startswith("["))

    def arguments(self, text: str) -> list[str] | None:
        """The arguments in what follows the keyword, or `None` where they don't fit.

        The last one takes the rest of the line: a password may contain spaces.
        """
        given = text.split(" ", max(0, self.most - 1)) if text else []
        return given if self.least <= len(given) <= self.most else None


def _table(*commands: _Command) -> dict[bytes, _Command]:
    return {command.syntax.split()[0].encode(): command for command in commands}


class Pop3Connection:
    """The dialogue with one client, from the greeting to the end.

    It is in the AUTHORIZATION state until there is a maildrop, then in the TRANSACTION state;
    QUIT passes through the UPDATE state. The tables at the end name the commands of each state.
    """

    def __init__(self, server: Pop3Server, reader: Reader, writer: asyncio.StreamWriter) -> None:
        self.server, self.reader, self.writer = server, reader, writer
        self.connection = cast("Connection", writer.transport)
        self.maildrop: _Maildrop | None = None
        self.written: list[bytes] = []
        """What is to be sent with the next `flush`: a short reply travels in one piece."""
        self.verb = b""
        self.commands = 0
        self.obeyed = False
        """The line that is read next was obeyed already, except for `rest`."""
        self.rest: _Rest = None
        self.name = ""
        """What USER said, if that was the last command."""
        self.door = Door()
        self.leaving = False
        address = self.connection.get_extra_info("peername")[0]
        self.client = Client("POP3", address, self.pause, tls=self.connection.tls)
        self.rules = Interpreter(server.setup.rulebook, self.client, self.last_words)

    async def run(self) -> None:
        """Greet, then obey one command after the other until the client has gone."""
        try:
            if self.rules.has_rules:
                self.leaving = await self.refused_by_rule("greeting")
            if not self.leaving:
                self.ok(f"{self.server.hostname} POP3 server ready")
            while not self.leaving:
                await self.flush()
                line = await self.read_line(_COMMAND_OCTETS, self.obey_at_once)
                if line is not None and not self.obeyed:
                    self.rest = self.obey(line)
                self.obeyed = False
                if self.rest is not None:
                    await self.finish(self.rest)
                    self.rest = None
        except ConnectionError:
            pass
        finally:
            # Whatever the end was: without QUIT nothing is removed (RFC 1939 section 6). The lock
            # goes before the last reply does, so that whoever reads it can come back at once.
            if self.maildrop is not None:
                self.server.maildrops.release(self.maildrop.account)
            if self.rest is not None:
                self.rest.close()
            self.writer.write(b"".join(self.written))
            self.writer.close()

    def obey_at_once(self, data: bytes) -> bool:
        """Obey a command line as it comes; whether that was all, so that it need not be read."""
        if self.maildrop is None or len(data) > _COMMAND_OCTETS or data[:4].upper() == b"QUIT":
            return False
        if self.connection.get_write_buffer_size():
            return False  # it waits until the client has read what it was told before
        self.rest = self.obey(data[:-1].removesuffix(b"\r"))
        self.obeyed = self.leaving or self.rest is not None
        if not self.obeyed:
            self.send()
        return not self.obeyed

    def obey(self, line: bytes) -> _Rest:
        """Obey one command line, or say why not; what is returned has to be awaited."""
        self.commands += 1
        if self.commands > self.server.limits.session_commands:
            self.err("[SYS/TEMP] that is enough for one session, come back later")
            self.leaving = True
            return None
        verb, _, rest = line.partition(b" ")
        self.verb = verb = verb.upper()
        if verb != b"PASS":
            self.name = ""
        if self.rules.has_rules or self.rules.action is not None:
            return self.obey_by_rules(verb, rest)
        return self.carry_out(verb, rest)

    def carry_out(self, verb: bytes, rest: bytes) -> _Rest:
        """Obey a command, or say why not; what is returned has to be awaited."""
        here, elsewhere = self.AUTHORIZATION, self.TRANSACTION
        if self.maildrop is not None:
            here, elsewhere = elsewhere, here
        command = here.get(verb)
        if command is None:
            if verb not in elsewhere:
                self.unknown_command()
            elif self.maildrop is None:
                self.err(f"log in before {verb.decode()}")
            else:
                self.err(f"{verb.decode()} can't be used after logging in")
            return None
        if _CONTROLS.search(rest):
            self.err("there can't be control characters in a command")
            return None
        arguments = command.arguments(rest.decode("utf-8", "surrogateescape"))
        if arguments is None:
            self.err(f"the command is: {command.required}")
            return None
        try:
            return command.obey(self, *arguments)
        except Exception as error:  # our mistake: the client is still owed an answer
            self.failed(error)
        return None

    def unknown_command(self) -> None:
        """Say that it is none; too many before login end the session."""
        self.leaving = self.maildrop is None and self.door.unknown()
        self.err("Too many bad commands." if self.leaving else "Unknown command.")

    async def finish(self, rest: Coroutine[Any, Any, None]) -> None:
        """Do what is left of a command. Raises `ConnectionError` where nobody is left."""
        try:
            await rest
        except ConnectionError:
            raise
        except Exception as error:  # our mistake: the client is still owed an answer
            self.failed(error)

    def failed(self, error: Exception) -> None:
        """Tell the client that its command came to nothing; it may go on."""
        verb = self.verb.decode()
        if isinstance(error, StoreError):
            _log.warning("POP3 %s: %s", verb, error)
            if isinstance(error, DamagedMessage):
                self.err("[SYS/PERM] that message was damaged on the disk, its content is lost")
                return
            why = "the mail store can't do that now"
            if isinstance(error, NoRoom):
                why = "the disk is full"
            self.err(f"[SYS/TEMP] {why}, nothing was changed")
        else:
            _log.error("POP3 %s failed", verb, exc_info=error)
            self.err(f"[SYS/TEMP] {INTERNAL_ERROR}")

    # -- what goes wrong on purpose

    async def obey_by_rules(self, verb: bytes, rest: bytes) -> None:
        """Obey a command as far as the lab's rules let it be."""
        self.rules.forget()
        text = rest.decode("utf-8", "surrogateescape")
        logging_in = self.maildrop is None and (
            bool(verb == b"PASS" and self.name and text)
            or (verb == b"AUTH" and text.split(" ")[0].upper() == "PLAIN")
        )
        # Of a login they are asked when it is known whose it is: see `_log_in`.
        if not logging_in:
            who = text if verb == b"USER" else None
            if await self.refused_by_rule(verb.decode("ascii", "replace"), who):
                return
        left = self.carry_out(verb, rest)
        if left is not None:
            await left
        if self.leaving:
            self.rules.answers()

    async def refused_by_rule(self, command: str, who: str | None = None) -> bool:
        """Wait, hang up or refuse, if that is what the rules want. Raises `ConnectionError`."""
        if who is None:
            who = self.maildrop.account if self.maildrop is not None else self.name
        self.rules.ask(command, who)
        reply = await self.rules.refusal()
        if reply:
            self.written.append(reply.encode() + b"\r\n")
        return bool(reply)

    def last_words(self, octets: bytes) -> None:
        self.written[:] = [octets]

    async def pause(self, seconds: float) -> bool:
        """Let time pass; `False` where the client said its last word before it was over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.reader.ended.wait()
                return False
        return True

    def write_portion(self, octets: bytes) -> None:
        """Send a part of what a rule lets through. Raises `_GoneError`."""
        if self.connection.is_closing():
            raise _GoneError
        self.writer.write(octets)

    # -- speaking and listening

    def ok(self, text: str = "") -> None:
        """Write a positive reply."""
        reply = self.rules.instead_of(f"+OK {text}".rstrip())
        self.written.append(reply.encode("ascii", "replace") + b"\r\n")

    def err(self, text: str) -> None:
        """Write a negative reply; `text` may begin with a response code (RFC 2449, RFC 3206)."""
        self.written.append(f"-ERR {text}".encode("ascii", "replace") + b"\r\n")

    def lines(self, pieces: Iterable[bytes]) -> _Rest:
        """Write the lines of a multi-line reply, dots already stuffed, and the dot at its end.

        Of a long reply only the beginning; what is returned writes the rest.
        """
        rest, octets = iter(pieces), 0
        for piece in rest:
            self.written.append(piece)
            octets += len(piece)
            if octets >= _PIECE_OCTETS:
                return self.more_lines(rest)
        self.written.append(b".\r\n")
        return None

    async def more_lines(self, pieces: Iterator[bytes]) -> None:
        """Write these and the dot at the end, no faster than the client reads."""
        await self.flush()
        octets = 0
        for piece in pieces:
            self.written.append(piece)
            octets += len(piece)
            if octets >= _PIECE_OCTETS:
                await self.flush()
                octets = 0
        self.written.append(b".\r\n")

    def send(self) -> None:
        """Send what was written."""
        self.writer.write(b"".join(self.written))
        self.written.clear()

    async def flush(self) -> None:
        """Send what was written; wait until the client has read most of it.

        Raises `ConnectionError` where nobody is left to read it.
        """
        if self.rules.action is not None:
            octets = b"".join(self.written)
            self.written.clear()
            await self.rules.send(octets, self.write_portion)
        self.send()
        if self.connection.is_closing():
            raise _GoneError
        if not self.connection.get_write_buffer_size():
            return
        try:
            async with asyncio.timeout(self.server.limits.pop3_idle):
                await self.writer.drain()
        except OSError as error:
            # What the client doesn't read would otherwise keep the connection open.
            self.connection.abort()
            raise _GoneError from error

    async def read_line(
        self, most: int, taker: Callable[[bytes], bool] | None = None
    ) -> bytes | None:
        """The next line without its end, or `None` where it had more octets than `most`.

        The client has been told then. `taker` may obey it sooner. Raises `_GoneError`.
        """
        try:
            line = await self.reader.line(self.server.limits.pop3_idle, taker)
        except asyncio.LimitOverrunError as error:
            self.err("Input line too long.")
            raise _GoneError from error
        except (OSError, asyncio.IncompleteReadError) as error:
            # TimeoutError, too, is an OSError: silence gets no reply (RFC 1939 section 3).
            if self.connection.get_write_buffer_size():
                # What the client doesn't read would otherwise keep the connection open.
                self.connection.abort()
            raise _GoneError from error
        if self.maildrop is None and (stranger := self.door.stranger(line)):
            self.err(f"that is {stranger}, and this is a POP3 server; good bye")
            raise _GoneError
        if len(line) > most:
            self.err(f"a line may have {most} octets")
            return None
        return line[:-1].removesuffix(b"\r")

    # -- the AUTHORIZATION state

    def takes_password(self) -> bool:
        """Whether a password may be said now; if not, the client has been told."""
        if self.connection.tls or self.server.plaintext_login:
            return True
        # In violation of policy: RFC 3206 section 4.
        self.err(f"[AUTH] {NO_PLAINTEXT}")
        return False

    def do_user(self, name: str) -> None:
        if not self.takes_password():
            return
        self.name = name
        # Whether there is such an account is nobody's business yet (RFC 1939 section 13).
        self.ok("send the password")

    async def do_pass(self, password: str) -> None:
        name, self.name = self.name, ""
        if not self.takes_password():
            return
        if name:
            await self._log_in(name, password)
        else:
            self.err("No username given.")

    async def do_auth(self, mechanism: str, response: str | None = None) -> None:
        if mechanism.upper() != "PLAIN":
            self.err("Unsupported authentication mechanism.")
            return
        if not self.takes_password():
            return
        if response is None:
            self.written.append(b"+ \r\n")
            await self.flush()
            line = await self.read_line(_RESPONSE_OCTETS)
            if line is None:
                return
            response = line.decode("ascii", "replace")
        if response == "*":
            self.err("Authentication aborted by client.")
            return
        try:
            words = base64.b64decode(response, validate=True).decode()
            identity, name, password = words.split("\0")
        except ValueError:
            self.err("that is not PLAIN: base64 of NUL, name, NUL, password")
            return
        await self._log_in(name, password, identity)

    async def _log_in(self, name: str, password: str, acting_for: str = "") -> None:
        server = self.server
        if self.rules.has_rules and await self.refused_by_rule(self.verb.decode(), name):
            return
        account = await log_in(server.setup, self.client, name, password, acting_for=acting_for)
        if account is None:
            self.leaving = self.client.dismissed
            self.err(f"[AUTH] Authentication failed.{' Good bye.' if self.leaving else ''}")
            return
        if not server.maildrops.lock(account):
            self.err("[IN-USE] Mailbox is locked by another POP3 session.")
            return
        try:
            mailbox = server.store.ensure_mailbox(account, "INBOX")
            sizes = server.store.crlf_sizes(mailbox.id)
            rows = server.store.messages(mailbox.id)
            messages = {n: _Message(row, sizes[row.uid]) for n, row in enumerate(rows, start=1)}
            self.maildrop = _Maildrop(account, mailbox, messages)
        finally:
            if self.maildrop is None:
                server.maildrops.release(account)
        self.client.login = account
        self.ok(f"maildrop has {self.maildrop}")

    async def do_stls(self) -> None:
        if self.connection.tls:
            self.err("TLS is already active.")
            return
        if self.server.stls is None:
            self.err("TLS support isn't enabled.")
            return
        self.ok("Begin TLS negotiation now.")
        await self.flush()
        # Whatever came in plaintext behind STLS must not be obeyed inside TLS (RFC 2595 section 4,
        # CVE-2011-0411). asyncio has no public way to forget it.
        self.reader.forget()
        try:
            await self.connection.start_tls(self.server.stls)
        except OSError as error:
            raise _GoneError from error
        self.client.tls = True

    def do_quit(self) -> None:
        self.leaving = True
        self.ok(f"{self.server.hostname} POP3 server signing off")

    # -- both states

    def do_capa(self) -> _Rest:
        logins = ["USER", "SASL PLAIN"]
        if not (self.connection.tls or self.server.plaintext_login):
            logins = []  # RFC 2595 section 4, RFC 2449 section 6.2
        names = ["TOP", "UIDL", *logins, "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING"]
        if self.maildrop is None and self.server.stls is not None and not self.connection.tls:
            names.append("STLS")
        self.ok("capability list follows")
        return self.lines(f"{name}\r\n".encode() for name in names)

    # -- the TRANSACTION state

    @property
    def _open(self) -> _Maildrop:
        assert self.maildrop is not None, "the tables let no command here without a maildrop"
        return self.maildrop

    def _number(self, text: str) -> int | None:
        """The message-number meant, or `None`; the client has been told then."""
        maildrop = self._open
        number = int(text) if text.isascii() and text.isdigit() else 0
        if number in maildrop.messages:
            return number
        if number in maildrop.deleted:
            self.err(f"message {number} already deleted")
        else:
            only = str(maildrop).partition(" (")[0]
            self.err(f"no such message, only {only} in maildrop")
        return None

    def _content(self, number: int) -> bytes | None:
        """What is stored of a message, or `None`; the client has been told then."""
        maildrop = self._open
        uid = maildrop.messages[number].row.uid
        octets = self.server.store.octets_of(maildrop.mailbox.id, uid)
        if octets is None:
            self.err(f"message {number} has been removed by another mail program")
        return octets

    def do_stat(self) -> None:
        self.ok(f"{len(self._open.messages)} {self._open.octets}")

    def do_list(self, text: str | None = None) -> _Rest:
        return self._listing(text, lambda number: str(self._open.messages[number].octets))

    def do_uidl(self, text: str | None = None) -> _Rest:
        return self._listing(text, self._open.unique_id)

    def _listing(self, text: str | None, told: Callable[[int], str]) -> _Rest:
        if text is None:
            self.ok(str(self._open))
            return self.lines(f"{n} {told(n)}\r\n".encode() for n in tuple(self._open.messages))
        if (number := self._number(text)) is not None:
            self.ok(f"{number} {told(number)}")
        return None

    def do_retr(self, text: str) -> _Rest:
        number = self._number(text)
        if number is not None and (content := self._content(number)) is not None:
            octets = self._open.messages[number].octets
            self.ok(f"{octets} octets")
            return self.lines(_wire_lines(content, whole=octets == len(content)))
        return None

    def do_top(self, text: str, count: str) -> _Rest:
        number = self._number(text)
        if number is None:
            return None
        if not (count.isascii() and count.isdigit()):
            self.err("how many lines is a number from 0 on")
            return None
        if (content := self._content(number)) is not None:
            self.ok("top of message follows")
            return self.lines(_wire_lines(_top_of(content, int(count))))
        return None

    def do_dele(self, text: str) -> None:
        number = self._number(text)
        if number is not None:
            self._open.deleted[number] = self._open.messages.pop(number)
            self.ok(f"message {number} deleted")

    def do_noop(self) -> None:
        self.ok()

    def do_rset(self) -> None:
        self._open.reset()
        self.ok(f"maildrop has {self._open}")

    # -- the UPDATE state

    def do_update(self) -> None:
        """QUIT in the TRANSACTION state: now what was marked as deleted is removed."""
        maildrop = self._open
        self.leaving = True
        if maildrop.deleted:
            uids = [message.row.uid for message in maildrop.deleted.values()]
            self.server.store.remove(maildrop.mailbox.id, uids)
        left = f"{len(maildrop.messages)} left" if maildrop.messages else "maildrop empty"
        self.ok(f"{self.server.hostname} POP3 server signing off ({left})")

    # -- which commands each state has (RFC 1939 section 9)

    AUTHORIZATION: ClassVar[Mapping[bytes, _Command]] = _table(
        _Command("USER name", do_user),
        _Command("PASS string", do_pass),
        _Command("AUTH mechanism [initial-response]", do_auth),
        _Command("STLS", do_stls),
        _Command("CAPA", do_capa),
        _Command("QUIT", do_quit),
    )
    TRANSACTION: ClassVar[Mapping[bytes, _Command]] = _table(
        _Command("STAT", do_stat),
        _Command("LIST [msg]", do_list),
        _Command("RETR msg", do_retr),
        _Command("DELE msg", do_dele),
        _Command("NOOP", do_noop),
        _Command("RSET", do_rset),
        _Command("TOP msg n", do_top),
        _Command("UIDL [msg]", do_uidl),
        _Command("CAPA", do_capa),
        _Command("QUIT", do_update),
    )


_BLANK_LINE = re.compile(rb"^\r?\n", re.MULTILINE)


def _top_of(message: bytes, lines: int) -> bytes:
    """The headers, the blank line and the first `lines` lines of the body (RFC 1939 section 7)."""
    blank = _BLANK_LINE.search(message)
    if blank is None:
        return message
    end = blank.end()
    for _ in range(lines):
        end = message.find(b"\n", end) + 1
        if not end:
            return message
    return message[:end]


def _wire_lines(message: bytes, *, whole: bool = False) -> Iterator[bytes]:
    """A message as lines that end in CRLF, their dots stuffed (RFC 1939 section 3), in pieces.

    `whole` says that all its lines do end in CRLF.
    """
    if whole and b"\n." not in message and not message.startswith(b"."):
        for start in range(0, len(message), _PIECE_OCTETS):
            yield message[start : start + _PIECE_OCTETS]
        return
    start, at_line_start = 0, True
    while start < len(message):
        end = message.rfind(b"\n", start, start + _PIECE_OCTETS) + 1 or start + _PIECE_OCTETS
        while message[end - 1 : end] == b"\r":
            end += 1  # in a very long line: a CRLF stays together
        piece = message[start:end].replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        piece = piece.replace(b"\n.", b"\n..")
        if at_line_start and piece.startswith(b"."):
            piece = b"." + piece
        yield piece
        start, at_line_start = end, piece.endswith(b"\n")
    if not at_line_start:
        yield b"\r\n"
