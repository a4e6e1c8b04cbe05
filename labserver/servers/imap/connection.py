"""The dialogue with one IMAP client: reading commands within limits, writing what they answer.

What a command means is not known here (`state.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeVar, cast

from proxyprotocol.sock import SocketInfoLocal
from pymap.concurrent import Subsystem
from pymap.config import IMAPConfig
from pymap.context import current_command
from pymap.exceptions import ResponseError
from pymap.imap import IMAPConnection
from pymap.imap.state import ConnectionState
from pymap.parsing.command import Command
from pymap.parsing.command.nonauth import AuthenticateCommand, StartTLSCommand
from pymap.parsing.commands import Commands
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
from pymap.parsing.specials import Tag
from pymap.parsing.state import ParsingInterrupt, ParsingState
from pysasl.exception import AuthenticationError

from labserver.rules import Limits
from labserver.servers.imap.commands import IdleCommand, UnreadableCommand
from labserver.servers.imap.state import State
from labserver.store import StoreError

if TYPE_CHECKING:
    from labserver.network.recorder import Connection as Transport

_log = logging.getLogger("labserver")
T = TypeVar("T")

LINE_OCTETS = 64 * 1024
"""The longest line; RFC 2683 section 3.2.1.5 asks for 8,000."""
_LITERAL_OCTETS = 4096
"""The longest literal that isn't a message."""
_PIECE_OCTETS = 64 * 1024
"""How much is written before the client has to have read some of it."""
_BAD_COMMANDS = 20
"""Commands in a row that weren't commands."""
_NON_SYNC = re.compile(rb"\{([0-9]{1,18})\+\}\r?\n\Z")


class Reader(asyncio.StreamReader):
    """A stream reader that can forget what nobody has asked for yet, and tells of the end."""

    def __init__(self) -> None:
        super().__init__(limit=LINE_OCTETS)
        self.ended = asyncio.Event()
        """The client will say nothing more."""

    def feed_eof(self) -> None:
        super().feed_eof()
        self.ended.set()

    def set_exception(self, exc: Exception) -> None:
        super().set_exception(exc)
        self.ended.set()

    def forget(self) -> None:
        # asyncio has no public way to do this.
        self._buffer.clear()  # type: ignore[attr-defined]
        self._maybe_resume_transport()  # type: ignore[attr-defined]


class _Output:
    """What is to be sent, in pieces that are neither tiny nor huge."""

    def __init__(self) -> None:
        self.octets = bytearray()

    def write(self, data: bytes) -> None:
        self.octets += data


class _FarewellError(Exception):
    """The server ends the connection; `args` are the text and the code of its BYE."""


class Connection(IMAPConnection):
    """One client's connection."""

    def __init__(
        self,
        commands: Commands,
        config: IMAPConfig,
        limits: Limits,
        reader: Reader,
        writer: asyncio.StreamWriter,
    ) -> None:
        super().__init__(commands, config, reader, writer, SocketInfoLocal(writer))
        self._limits = limits
        self._incoming = reader
        self._output = _Output()
        self._most_octets = _LITERAL_OCTETS
        """How long a literal of the command being read may be."""
        self._bad_commands = 0

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

    async def readline(self) -> memoryview:
        """A line, and with it the literals whose octets the client sends unasked (RFC 7888)."""
        line = bytearray()
        too_big = False
        while True:
            piece = await self._read_to_line_end()
            if not too_big:
                line += piece
            literal = _NON_SYNC.search(piece, max(0, len(piece) - 40))
            if literal is None:
                break
            octets = int(literal[1])
            if too_big or len(line) + octets > self._most_octets + LINE_OCTETS:
                # It comes anyway; it is read, but not kept.
                too_big = True
                await self._skip(octets)
            else:
                line += await self._within(self.reader.readexactly(octets))
        if too_big:
            raise _TooBigError(bytes(line))
        return memoryview(bytes(line))

    async def _read_to_line_end(self) -> bytes:
        try:
            return await self._within(self.reader.readuntil(b"\n"))
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
        literal = await self._within(self.reader.readexactly(literal_length))
        return memoryview(literal + await self.readline())

    async def read_command(self, state: ConnectionState) -> Command:
        """The next command; one that can't be read is an `InvalidCommand`."""
        logged_in = cast(State, state).logged_in
        most = self._most_octets = self._limits.message if logged_in else _LITERAL_OCTETS
        line = memoryview(b"")
        literals: list[memoryview] = []
        try:
            line = await self.readline()
            while True:
                params = self.params.copy(ParsingState(continuations=literals), max_append_len=most)
                try:
                    command, _ = self.commands.parse(line, params)
                    return command
                except ParsingInterrupt as interrupt:
                    await self._interrupt(state, interrupt, literals)
                if sum(map(len, literals)) > most + LINE_OCTETS:
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
            params = params.copy(tag=tag.value)
        return UnreadableCommand(params, code)

    # -- writing

    async def write_response(self, resp: Response) -> None:
        await resp.async_write(self._output)
        await self.flush()

    async def flush(self) -> None:
        """Send what was written; wait until the client has read most of it."""
        octets = bytes(self._output.octets)
        self._output.octets.clear()
        self.writer.write(octets)
        try:
            await self._within(self.writer.drain())
        except TimeoutError:
            # What the client doesn't read would otherwise keep the connection open.
            self.transport.abort()
            raise ConnectionError("The client doesn't read.") from None

    async def written(self) -> None:
        if len(self._output.octets) >= _PIECE_OCTETS:
            await self.flush()

    async def pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._incoming.ended.wait()

    def _bye(self, text: bytes, code: bytes | None = None) -> None:
        """Say that the connection ends, without waiting for the client to hear it."""
        bye = ResponseBye(text, ResponseCode.of(code))
        self.writer.write(bytes(self._output.octets) + bytes(bye))
        self._output.octets.clear()

    # -- the dialogue

    async def run(self, state: ConnectionState) -> None:
        """Greet, then obey one command after the other until one side ends the connection."""
        try:
            await self.write_response(await state.do_greeting())
            while await self._obey_one(cast(State, state)):
                pass
        except _FarewellError as error:
            self._bye(*error.args)
        except (ConnectionError, EOFError):
            pass  # the client has gone
        except TimeoutError:
            self._bye(b"You were silent for too long.")
        except asyncio.CancelledError:
            # Not raised again: nothing comes after, and Python 3.11's streams would complain.
            self._bye(b"The server is closing.", b"UNAVAILABLE")
        except Exception:
            _log.exception("IMAP connection failed")
            self._bye(b"The server made a mistake.", b"SERVERBUG")

    async def _obey_one(self, state: State) -> bool:
        """Obey one command; whether there may be another one."""
        command = await self.read_command(state)
        token = current_command.set(command)
        try:
            response = await self._answer(state, command)
        finally:
            current_command.reset(token)
        await self.write_response(response)
        if response.is_terminal:
            return False
        self._bad_commands = self._bad_commands + 1 if response.is_bad else 0
        if self._bad_commands == _BAD_COMMANDS:
            raise _FarewellError(b"That is no IMAP.", b"CLIENTBUG")
        if isinstance(command, StartTLSCommand) and isinstance(response, ResponseOk):
            return await self._begin_tls()
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
            text = b"The mail store can't do that now, nothing was changed."
            return ResponseNo(command.tag, text, ResponseCode.of(b"UNAVAILABLE"))
        except (OSError, EOFError, _FarewellError):
            raise  # these are the connection's: see `run`
        except Exception:
            _log.exception("IMAP %s failed", command.command.decode())
            text = b"The server made a mistake."
            return ResponseNo(command.tag, text, ResponseCode.of(b"SERVERBUG"))

    async def _authenticate(self, state: State, command: AuthenticateCommand) -> CommandResponse:
        if state.logged_in:
            return await state.do_command(command)
        try:
            credentials = await self.authenticate(state, command.mech_name)
        except UnicodeDecodeError:
            return ResponseBad(command.tag, b"Name and password have to be UTF-8.")
        except (AuthenticationError, _TooBigError) as error:
            text = str(error) or "That isn't base64."
            return ResponseBad(command.tag, text.encode("ascii", "replace"))
        return await state.do_authenticate(command, credentials)

    async def _begin_tls(self) -> bool:
        context = self.config.ssl_context
        # Whatever came in plaintext behind STARTTLS must not be obeyed inside TLS (RFC 3501
        # section 6.2.1, CVE-2011-0411).
        self._incoming.forget()
        try:
            await self.transport.start_tls(context)
        except OSError:
            return False
        return True

    # -- IDLE

    async def _idle(self, state: State, command: IdleCommand) -> Response:
        """Tell what happens as it happens, until the client says DONE (RFC 2177)."""
        response = await state.do_command(command)
        if not isinstance(response, ResponseOk):
            return response
        await self.write_response(ResponseContinuation(b"Idling."))
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


class _TooBigError(Exception):
    """A literal was longer than what is taken; `line` is the command without it."""

    def __init__(self, line: bytes) -> None:
        super().__init__()
        self.line = line
