"""The dialogue with one IMAP client: reading commands within limits, writing what they answer.

What a command means is not known here (`state.py`).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from proxyprotocol.sock import SocketInfoLocal
from pymap.concurrent import Subsystem
from pymap.config import IMAPConfig
from pymap.exceptions import ResponseError
from pymap.imap import IMAPConnection
from pymap.imap.state import ConnectionState
from pymap.parsing.command import Command
from pymap.parsing.command.nonauth import LoginCommand, StartTLSCommand
from pymap.parsing.commands import Commands, InvalidCommand
from pymap.parsing.exceptions import NotParseable
from pymap.parsing.response import (
    CommandResponse,
    Response,
    ResponseBad,
    ResponseBye,
    ResponseCode,
    ResponseContinuation,
    ResponseNo,
    ResponseOk,
    UntaggedResponse,
)
from pymap.parsing.state import ParsingInterrupt, ParsingState
from pysasl.creds.server import ServerCredentials
from pysasl.exception import AuthenticationError
from pysasl.mechanism import ChallengeResponse, ServerChallenge

from labserver.servers.door import Door
from labserver.servers.imap.atoms import HALF_A_TAG, Tag
from labserver.servers.imap.commands import (
    AuthenticateCommand,
    IdleCommand,
    UnreadableCommand,
    fetch_command,
)
from labserver.servers.imap.state import State
from labserver.servers.interpreter import Interpreter
from labserver.servers.reader import Reader
from labserver.servers.setup import INTERNAL_ERROR, Client, Setup
from labserver.store import DamagedMessage, NoRoom, StoreError
from labserver.turns import literal_of

if TYPE_CHECKING:
    from labserver.network.connection import Connection as Transport

_log = logging.getLogger("labserver")
T = TypeVar("T")

LINE_OCTETS = 64 * 1024
"""The longest line; RFC 2683 section 3.2.1.5 asks for 8,000."""
_LITERAL_OCTETS = 4096
"""The longest literal that isn't a message."""
_PIECE_OCTETS = 64 * 1024
"""How much is written before the client has to have read some of it."""
_BIG_OCTETS = 64 * 1024
"""What is longer is sent by itself."""
_BAD_COMMANDS = 20
"""Commands in a row that weren't commands."""
_APPEND = re.compile(rb" *[^ ]+ +APPEND ", re.IGNORECASE)


class _Output:
    """What is to be sent, in pieces that are neither tiny nor huge."""

    def __init__(self) -> None:
        self.octets = 0
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        self._pieces.append(data)
        self.octets += len(data)

    def take(self) -> list[bytes]:
        """All of it in order, what is small put together; then it is no longer to be sent."""
        pieces, self._pieces, self.octets = self._pieces, [], 0
        taken: list[bytes] = []
        small: list[bytes] = []
        for piece in pieces:
            if len(piece) < _BIG_OCTETS:
                small.append(piece)
                continue
            taken += [b"".join(small), piece]  # to copy it would cost more than to send it alone
            small.clear()
        taken.append(b"".join(small))
        return taken


class _FarewellError(Exception):
    """The server ends the connection; `args` are the text and the code of its BYE."""


class Connection(IMAPConnection):
    """One client's connection."""

    def __init__(
        self,
        commands: Commands,
        config: IMAPConfig,
        setup: Setup,
        reader: Reader,
        writer: asyncio.StreamWriter,
    ) -> None:
        super().__init__(commands, config, reader, writer, SocketInfoLocal(writer))
        address = self.transport.get_extra_info("peername")[0]
        self.client = Client("IMAP", address, self.pause, tls=self.transport.tls)
        self._rules = Interpreter(setup.rulebook, self.client, self._last_words)
        self._appending = False
        """The rules have been asked about an APPEND that is still being read."""
        self._limits = setup.limits
        self._incoming = reader
        self._output = _Output()
        self._most_appended = _LITERAL_OCTETS
        """How long a literal of APPEND may be."""
        self._commands = 0
        self._door = Door()
        self._bad_commands = 0
        self._may_wait = True
        """Whether what is being written may wait for others."""
        self._answered: Response | None = None
        """The answer to the line that is read next, which was obeyed already."""

    @property
    def transport(self) -> Transport:
        return cast("Transport", self.writer.transport)

    @classmethod
    def _print(cls, log_format: str, output: str | bytes) -> None:
        """Nothing: the lab records every connection itself."""

    # -- reading

    async def _within(self, waiting: Awaitable[T]) -> T:
        """Wait as long as a client may be silent."""
        async with asyncio.timeout(self._limits.imap_idle):
            return await waiting

    async def readline(self, taker: Callable[[bytes], bool] | None = None) -> memoryview:
        """A line, and with it the literals whose octets the client sends unasked (RFC 7888).

        One that announces none may be taken away by the `taker` instead.
        """
        line = bytearray()
        too_big = False
        while True:
            piece = await self._read_to_line_end(None if line else taker)
            if not too_big:
                line += piece
            literal = literal_of(piece)
            if literal is None or not literal.unasked:
                break
            octets = literal.octets
            if octets > self._limits.session_octets:
                raise _FarewellError(b"That is longer than a session may be.", b"TOOBIG")
            if too_big or len(line) + octets > self._most_octets_of(line) + LINE_OCTETS:
                # It comes anyway; it is read, but not kept.
                too_big = True
                await self._skip(octets)
            else:
                self._announce(bytes(line))
                line += await self._literal(octets)
        if too_big:
            raise _TooBigError(bytes(line))
        return memoryview(bytes(line))

    def _most_octets_of(self, line: bytes | bytearray | memoryview) -> int:
        """How long all literals of a command that begins like that may be together."""
        return self._most_appended if _APPEND.match(line) else _LITERAL_OCTETS

    async def _read_to_line_end(self, taker: Callable[[bytes], bool] | None = None) -> bytes:
        try:
            return await self._incoming.line(self._limits.imap_idle, taker)
        except asyncio.LimitOverrunError as error:
            text = b"A line can have at most %d octets." % LINE_OCTETS
            raise _FarewellError(text, b"CLIENTBUG") from error

    async def _skip(self, octets: int) -> None:
        while octets:
            piece = await self._within(self.reader.read(min(octets, _PIECE_OCTETS)))
            if not piece:
                raise EOFError
            octets -= len(piece)

    async def read_continuation(self, literal_length: int) -> memoryview:
        literal = await self._literal(literal_length)
        return memoryview(literal + await self.readline())

    async def read_command(self, state: ConnectionState) -> Command:
        """The next command; one that can't be read is an `InvalidCommand`."""
        logged_in = cast(State, state).logged_in
        most = self._most_appended = self._limits.message if logged_in else _LITERAL_OCTETS
        line = memoryview(b"")
        literals: list[memoryview] = []
        try:
            line = await self.readline(partial(self._fetch_at_once, cast(State, state)))
            if not logged_in and (stranger := self._door.stranger(bytes(line))):
                text = f"That is {stranger}, and this is an IMAP server."
                raise _FarewellError(text.encode(), b"CLIENTBUG")
            fetch = fetch_command(line)
            if fetch is not None:
                return fetch
            while True:
                params = self.params.copy(ParsingState(continuations=literals), max_append_len=most)
                try:
                    command, _ = self.commands.parse(line, params)
                    half = isinstance(command, InvalidCommand) and HALF_A_TAG.match(line)
                    return self._unreadable(line) if half else command
                except ParsingInterrupt as interrupt:
                    self._announce(bytes(line))
                    await self._interrupt(state, interrupt, literals)
                if sum(map(len, literals)) > self._most_octets_of(line) + LINE_OCTETS:
                    raise _FarewellError(b"That command is too long.", b"CLIENTBUG")
        except _TooBigError as error:
            return self._unreadable(line or memoryview(error.line), b"TOOBIG")
        except (ValueError, RecursionError):
            # What pymap's parsers raise for octets that are no text, or lists without end.
            return self._unreadable(line)

    def _unreadable(self, line: memoryview, code: bytes | None = None) -> UnreadableCommand:
        params = self.params
        with contextlib.suppress(NotParseable):
            tag, _ = Tag.parse(line, params)
            if not HALF_A_TAG.match(line):
                params = params.copy(tag=tag.value)
        return UnreadableCommand(params, code)

    # -- writing

    async def write_response(self, resp: Response) -> None:
        await self._write(resp)
        await self.flush()

    async def _write(self, resp: Response) -> None:
        await resp.async_write(self._output)
        if self._rules_hold and isinstance(resp, ResponseOk):
            octets = b"".join(self._output.take())
            before, end, last = octets[:-2].rpartition(b"\r\n")
            tag, _, said = last.partition(b" ")
            reply = self._rules.instead_of(said.decode("utf-8", "replace"))
            self._output.write(before + end + tag + b" " + reply.encode() + b"\r\n")

    def send(self) -> None:
        """Send what was written."""
        for piece in self._output.take():
            self.writer.write(piece)

    async def flush(self) -> None:
        """Send what was written; wait until the client has read most of it."""
        if self._rules_hold:
            await self._rules.send(b"".join(self._output.take()), self._write_portion)
        self.send()
        if not self.transport.get_write_buffer_size() and not self.transport.is_closing():
            return
        try:
            await self._within(self.writer.drain())
        except TimeoutError:
            # What the client doesn't read would otherwise keep the connection open.
            self.transport.abort()
            raise ConnectionError("The client doesn't read.") from None

    async def written(self) -> None:
        if not self._may_wait:
            return
        if self._output.octets >= _PIECE_OCTETS:
            await self.flush()
        await asyncio.sleep(0)

    async def pause(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._incoming.ended.wait()
                return False
        return True

    def _bye(self, text: bytes, code: bytes | None = None) -> None:
        """Say that the connection ends, without waiting for the client to hear it."""
        bye = ResponseBye(text, ResponseCode.of(code))
        self._output.write(bytes(bye))
        self.send()

    # -- the dialogue

    async def run(self, state: ConnectionState) -> None:
        """Greet, then obey one command after the other until one side ends the connection."""
        try:
            if self._rules.has_rules:
                self._ask("greeting")
                await self._carry_out(b"*")
            await self.write_response(await state.do_greeting())
            while await self._obey_one(cast(State, state)):
                pass
        except _FarewellError as error:
            self._bye(*error.args)
        except (ConnectionError, EOFError):
            pass  # the client has gone
        except TimeoutError:
            if self.transport.get_write_buffer_size():
                # What the client doesn't read would otherwise keep the connection open.
                self.transport.abort()
            self._bye(b"Disconnected for inactivity.")
        except asyncio.CancelledError:
            # Not raised again: nothing comes after, and Python 3.11's streams would complain.
            self._bye(b"Server shutting down.", b"UNAVAILABLE")
        except Exception:  # our mistake: the client is still owed an answer
            _log.exception("IMAP connection failed")
            self._bye(INTERNAL_ERROR.encode(), b"SERVERBUG")

    async def _obey_one(self, state: State) -> bool:
        """Obey one command; whether there may be another one."""
        self._rules.forget()
        self._appending = False
        command = await self.read_command(state)
        response = self._answered
        if response is None:
            self._commands += 1
            if self._commands > self._limits.session_commands:
                raise _FarewellError(b"That is enough for one session, come back later.", b"LIMIT")
            unknown = isinstance(command, InvalidCommand) and command.command_type is None
            if unknown and not state.logged_in and self._door.unknown():
                raise _FarewellError(b"Too many invalid IMAP commands.", b"CLIENTBUG")
            refusal = await self._refused_by_rule(state, command)
            response = refusal or await self._answer(state, command)
            await self._write(response)
        self._answered = None
        await self.flush()
        if response.is_terminal:
            return False
        self._bad_commands = self._bad_commands + 1 if response.is_bad else 0
        if self._bad_commands == _BAD_COMMANDS:
            raise _FarewellError(b"Too many invalid IMAP commands.", b"CLIENTBUG")
        if self.client.dismissed:
            raise _FarewellError(b"That was the last wrong password here.")
        if isinstance(command, StartTLSCommand) and isinstance(response, ResponseOk):
            return await self._begin_tls()
        return True

    def _fetch_at_once(self, state: State, line: bytes) -> bool:
        """Obey a quick FETCH as it comes; whether that was all, so that it need not be read."""
        if self._commands >= self._limits.session_commands:
            return False
        if self._rules.has_rules or self.transport.get_write_buffer_size():
            return False  # it waits for the rules, or for what the client hasn't read yet
        command = fetch_command(memoryview(line))
        if command is None or not state.is_quick(command):
            return False
        self._commands += 1
        self._may_wait = False
        response = _at_once(self._answer(state, command))
        _at_once(response.async_write(self._output))
        self._may_wait = True
        if response.is_terminal or response.is_bad:
            self._answered = response
            return False
        self._bad_commands = 0
        self.send()
        return True

    async def _answer(self, state: State, command: Command) -> Response:
        try:
            for untagged in await state.news(command):
                if untagged.is_terminal:
                    return untagged
                untagged.write(self._output)
            if isinstance(command, AuthenticateCommand):
                return await self._authenticate(state, command)
            if isinstance(command, IdleCommand):
                return await self._idle(state, command)
            return await state.do_command(command)
        except ResponseError as error:
            return error.get_response(command.tag)
        except StoreError as error:
            _log.warning("IMAP %s: %s", command.command.decode(), error)
            if isinstance(error, DamagedMessage):
                text = b"A message in this mailbox was damaged on the disk."
                return ResponseNo(command.tag, text, ResponseCode.of(b"CORRUPTION"))
            # Not OVERQUOTA: what is full is the disk, no quota of this user's (RFC 5530 section 3).
            why = b"The mail store can't do that now"
            if isinstance(error, NoRoom):
                why = b"The disk is full"
            text = why + b", nothing was changed."
            return ResponseNo(command.tag, text, ResponseCode.of(b"UNAVAILABLE"))
        except (OSError, EOFError, _FarewellError):
            raise  # these are the connection's: see `run`
        except Exception:  # our mistake: the client is still owed an answer
            _log.exception("IMAP %s failed", command.command.decode())
            text = INTERNAL_ERROR.encode()
            return ResponseNo(command.tag, text, ResponseCode.of(b"SERVERBUG"))

    async def _authenticate(self, state: State, command: AuthenticateCommand) -> CommandResponse:
        if state.logged_in:
            return await state.do_command(command)
        if refusal := state.refused_without_tls(command):
            return refusal
        try:
            credentials = await self._credentials(state, command)
        except UnicodeDecodeError:
            return ResponseBad(command.tag, b"Name and password have to be UTF-8.")
        except binascii.Error:
            return ResponseBad(command.tag, b"Invalid base64 data in AUTHENTICATE response.")
        except (AuthenticationError, _TooBigError) as error:
            text = str(error) or "That is too long."
            return ResponseBad(command.tag, text.encode("ascii", "replace"))
        if self._rules.has_rules:
            self._ask("AUTHENTICATE", credentials.authcid if credentials else "")
            if refusal := await self._carry_out(command.tag):
                return refusal
        return await state.do_authenticate(command, credentials)

    async def _credentials(
        self, state: State, command: AuthenticateCommand
    ) -> ServerCredentials | None:
        """What the client claims by that mechanism; `None` where it isn't offered."""
        mechanism = state.auth.get_server(command.mech_name)
        if mechanism is None:
            return None
        given = command.initial
        answers: list[ChallengeResponse] = []
        while True:
            try:
                credentials, _ = mechanism.server_attempt(answers)
                return credentials
            except ServerChallenge as challenge:
                if given is None:
                    question = base64.b64encode(challenge.data)
                    await self.write_response(ResponseContinuation(question))
                    given = bytes(await self.readline()).rstrip(b"\r\n")
                    if given == b"*":
                        raise AuthenticationError("Authentication aborted by client.") from None
                octets = base64.b64decode(given, validate=True)
                answers.append(ChallengeResponse(challenge.data, octets))
                given = None

    # -- what goes wrong on purpose

    @property
    def _rules_hold(self) -> bool:
        """Whether rules want something of what is written now."""
        return self._rules.action is not None and not self._appending

    def _ask(self, command: str, who: str | None = None) -> None:
        """Ask what the rules want at this command, about that account or who has logged in."""
        self._rules.ask(command, self.client.login if who is None else who)

    async def _refused_by_rule(self, state: State, command: Command) -> CommandResponse | None:
        """The reply that a rule gives instead of having the command obeyed, if one does."""
        name, who = command.command, None
        if isinstance(command, InvalidCommand):
            name = (command.command_name or b"").upper()
        if self._appending:
            self._appending = False
            self._rules.content_has_come()
        elif not self._rules.has_rules:
            return None
        elif isinstance(command, AuthenticateCommand) and not state.logged_in:
            return None  # asked when it is known whose login it is
        else:
            if isinstance(command, LoginCommand):
                who = command.userid.decode("utf-8", "replace")
            self._ask(name.decode("ascii", "replace"), who)
        return await self._carry_out(command.tag)

    async def _carry_out(self, tag: bytes) -> CommandResponse | None:
        """Wait, hang up or refuse, if that is what the rules want."""
        reply = await self._rules.refusal()
        if not reply:
            return None
        word, _, text = reply.removeprefix("* ").partition(" ")
        if word == "BYE":
            raise _FarewellError(text.encode())
        return (ResponseNo if word == "NO" else ResponseBad)(tag, text.encode())

    def _last_words(self, octets: bytes) -> None:
        self._output.take()
        self.writer.write(octets)

    def _write_portion(self, octets: bytes) -> None:
        """Send a part of what a rule lets through. Raises `ConnectionError`."""
        if self.transport.is_closing():
            raise ConnectionAbortedError("The client has gone.")
        self.writer.write(octets)

    def _announce(self, line: bytes) -> None:
        """A literal follows; where it is a message, the rules are asked now."""
        if self._rules.has_rules and not self._appending and _APPEND.match(line):
            self._appending = True
            self._ask("APPEND")

    async def _literal(self, octets: int) -> bytes:
        """The octets of a literal, as far and as fast as the rules let them."""
        if not self._appending:
            return await self._within(self.reader.readexactly(octets))
        await self._rules.begin_content()
        literal = bytearray()
        while len(literal) < octets:
            size = self._rules.portion(octets - len(literal))
            literal += await self._within(self.reader.readexactly(size))
            await self._rules.passed(size)
        return bytes(literal)

    async def _begin_tls(self) -> bool:
        context = self.config.ssl_context
        # Whatever came in plaintext behind STARTTLS must not be obeyed inside TLS (RFC 3501
        # section 6.2.1, CVE-2011-0411).
        self._incoming.forget()
        try:
            await self.transport.start_tls(context)
        except OSError:
            return False
        self.client.tls = True
        return True

    # -- IDLE

    async def _idle(self, state: State, command: IdleCommand) -> Response:
        """Tell what happens as it happens, until the client says DONE (RFC 2177)."""
        response = await state.do_command(command)
        if not isinstance(response, ResponseOk):
            return response
        await self.write_response(ResponseContinuation(b"idling"))
        reading = asyncio.create_task(self._read_to_line_end())
        telling = asyncio.create_task(self._tell(state, command))
        try:
            await asyncio.wait((reading, telling), return_when=asyncio.FIRST_COMPLETED)
            if telling.done():
                return telling.result()
            if reading.result().strip().upper() != b"DONE":
                return ResponseBad(command.tag, b'Expected "DONE".')
            return response
        finally:
            reading.cancel()
            telling.cancel()
            await asyncio.gather(reading, telling, return_exceptions=True)

    async def _tell(self, state: State, command: IdleCommand) -> UntaggedResponse:
        """Write what changes in the mailbox; ends with the BYE that ends all."""
        never = Subsystem.for_asyncio().new_event()
        while True:
            # Between what `receive_updates` takes to be told and its being written nothing may
            # wait: this task can be cancelled wherever it waits.
            for untagged in await state.receive_updates(command, never):
                if untagged.is_terminal:
                    return untagged
                untagged.write(self._output)
            await self.flush()


def _at_once(working: Coroutine[Any, Any, T]) -> T:
    """The result of what never has to wait, though it could."""
    try:
        working.send(None)
    except StopIteration as done:
        return cast(T, done.value)
    working.close()
    raise RuntimeError("That had to wait.")


class _TooBigError(Exception):
    """A literal was longer than what is taken; `line` is the command without it."""

    def __init__(self, line: bytes) -> None:
        super().__init__()
        self.line = line
