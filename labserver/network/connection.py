"""One connection between the real transport and a server's protocol.

    real transport <-> Connection, and TLS where it is on <-> the server's protocol

No server knows of TLS records or of recording: a `Connection` is the protocol of the transport
below and the transport of the protocol above, and tells the session's `Recorder` of the octets on
both of its sides.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterator
from typing import Any, Literal, cast

from labserver.network.recorder import Recorder
from labserver.network.service import Service
from labserver.transcript import Host

_HANDSHAKE_SECONDS = 30.0
_GOODBYE_SECONDS = 30.0
"""How long the client's last TLS record is waited for after the server's."""
_READ_OCTETS = 256 * 1024


def _own(data: bytes) -> bytes:
    """A copy: what a socket has read lies in memory made for far more, which it would keep."""
    return bytes(memoryview(data))


def _address(transport: asyncio.BaseTransport, end: str) -> str:
    """The IP address of one end of a connection."""
    return str((transport.get_extra_info(end) or ("",))[0])


class OpenConnections(set["Connection"]):
    """The connections of one listener that are in use."""

    closed = False

    def close(self) -> None:
        """Break off these, and those that are just being made."""
        self.closed = True
        for connection in tuple(self):
            connection.abort()


class _Tls:
    """The server's end of TLS, without a socket: records go in and out as octets."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self._in, self._out, server_side=True)
        self.shaking = True
        """The handshake isn't done."""
        self.ended = False
        """The client will send no more."""

    def take(self, records: bytes) -> None:
        """Take in what the client has sent."""
        self._in.write(records)

    def end(self) -> None:
        """The client has sent all that it will."""
        self.ended = True
        self._in.write_eof()

    def records(self) -> bytes:
        """What is to be sent; then it is no longer to be sent."""
        return self._out.read()

    def shake_hands(self) -> bool:
        """Go on with the handshake; whether it is done. Raises `ssl.SSLError`."""
        try:
            self.object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        self.shaking = False
        return True

    def plaintext(self) -> Iterator[bytes]:
        """What the client has said, in pieces. Raises `ssl.SSLError`."""
        while True:
            try:
                data = self.object.read(_READ_OCTETS)
            except ssl.SSLWantReadError:
                return
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                data = b""
            if not data:
                self.ended = True
                return
            yield data

    def say(self, plaintext: bytes | bytearray | memoryview) -> None:
        """Put that into records."""
        left = memoryview(plaintext)
        while left:
            left = left[self.object.write(left) :]

    def say_goodbye(self) -> bool:
        """End TLS (RFC 8446 section 6.1); whether nothing more of the client's is to come."""
        try:
            self.object.unwrap()
        except ssl.SSLWantReadError:
            return self.ended
        except ssl.SSLError:
            pass  # it has sent something else instead
        return True


class Connection(asyncio.Transport, asyncio.Protocol):
    """Carries octets between the real transport and a server's protocol, and records them.

    `active` is called whenever something happens, so that a network can tell when all is quiet.
    To the server it is a transport that carries plaintext: `tls` tells whether TLS is on,
    `start_tls` puts it on.
    """

    def __init__(
        self, service: Service, open_ones: OpenConnections, active: Callable[[], None]
    ) -> None:
        super().__init__()
        self._service, self._open, self._active = service, open_ones, active
        self._raw = cast(asyncio.Transport, None)
        self._recorder = cast(Recorder, None)
        self._protocol: asyncio.Protocol | None = None
        """The server's; `None` before it hears of the connection and after it heard of the end."""
        self._tls: _Tls | None = None
        self._handshake: asyncio.Future[None] | None = None
        """What `start_tls` waits for."""
        self._timer: asyncio.TimerHandle | None = None
        """The end of the client's time for the handshake, or for its goodbye."""
        self._closing = False
        self._octets = 0
        """What the client has said."""

    # -- as the protocol of the real transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = cast(asyncio.Transport, transport)
        if self._open.closed:
            self._raw.abort()
            return
        service = self._service
        self._recorder = service.journal.begin(
            service.listener.protocol, service.name, implicit_tls=service.tls is not None
        )
        self._recorder.client = _address(transport, "peername")
        self._recorder.server = Host(service.hostname, _address(transport, "sockname"))
        full = len(self._open) >= service.most
        self._open.add(self)
        self._active()
        if full:
            self.write(service.busy)
            self.close()
        elif service.tls is None:
            self._begin()
        else:
            # The server hears of the connection after the handshake.
            self._begin_tls(service.tls)

    def _begin(self) -> None:
        self._protocol = self._service.factory()
        self._protocol.connection_made(self)

    def data_received(self, data: bytes) -> None:
        if self._recorder is None:
            return
        self._active()
        tls = self._tls
        if tls is None:
            self._recorder.both("C", _own(data))
            self._hand_on(data)
            return
        self._recorder.wire("C", _own(data))
        tls.take(data)
        if tls.shaking:
            self._shake_hands(tls)
        if not tls.shaking:
            self._read(tls)

    def _read(self, tls: _Tls) -> None:
        """Decrypt what has come, and go on with what that asks for."""
        if self._closing:
            self._say_goodbye(tls)
            return
        try:
            for data in tls.plaintext():
                self._recorder.said("C", data, True)
                self._hand_on(data)
                if self._closing:
                    return  # the server has said goodbye meanwhile
        except ssl.SSLError:
            self.abort()
            return
        self._send_records(tls)
        if tls.ended:
            self._ended()

    def _hand_on(self, data: bytes) -> None:
        """Let the server hear what the client has said."""
        if self._closing or self._protocol is None:
            return
        self._octets += len(data)
        if self._octets <= self._service.most_octets:
            self._protocol.data_received(data)
        else:
            self.write(self._service.too_much)
            self.close()

    def eof_received(self) -> bool | None:
        if self._recorder is None:
            return False
        self._active()
        tls = self._tls
        if tls is None:
            return self._ended()
        self._recorder.gone("C")
        tls.end()
        if tls.shaking:
            self._shake_hands(tls)
        else:
            self._read(tls)
        return False

    def _ended(self) -> bool | None:
        """The client will say no more; whether the server may still answer."""
        self._recorder.gone("C")
        stays = self._protocol.eof_received() if self._protocol is not None else False
        if self._tls is not None:
            # Under TLS the lab knows no half-open connection (RFC 8446 section 6.1 does).
            self.close()
            return False
        return stays

    def connection_lost(self, exc: Exception | None) -> None:
        if self._recorder is None or self._recorder.closed:
            return
        self._active()
        self._open.discard(self)
        if self._tls is not None and self._tls.shaking:
            self._tls_failed(ConnectionResetError("The client went away during the TLS handshake."))
        self._stop_timer()
        self._closing = True
        self._recorder.gone("C")
        self._recorder.close()
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            # To a server all ends are one; of an exception asyncio would say that nobody asked.
            protocol.connection_lost(None)
        asyncio.get_running_loop().call_soon(self._service.journal.ended, self._recorder)

    def pause_writing(self) -> None:
        if self._protocol is not None:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        if self._protocol is not None:
            self._protocol.resume_writing()

    # -- TLS

    @property
    def tls(self) -> bool:
        """Whether TLS is on."""
        return self._tls is not None and not self._tls.shaking

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Take the server's part of a TLS handshake, then go on under TLS.

        Plaintext that the server has read but not yet obeyed is the server's to forget (RFC 3207
        section 4.2). Raises `OSError`, of which `ssl.SSLError` is one, where the handshake fails;
        the connection is closed then.
        """
        if self._closing:
            raise ConnectionResetError("The client went away before the TLS handshake.")
        self._handshake = asyncio.get_running_loop().create_future()
        self._begin_tls(context)
        await self._handshake

    def _begin_tls(self, context: ssl.SSLContext) -> None:
        self._recorder.tls_begins()
        self._tls = _Tls(context)
        late = TimeoutError("The TLS handshake took too long.")
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_HANDSHAKE_SECONDS, self._tls_failed, late)

    def _shake_hands(self, tls: _Tls) -> None:
        try:
            done = tls.shake_hands()
        except ssl.SSLError as error:
            self._tls_failed(error)
            return
        self._send_records(tls)
        if not done:
            return
        self._stop_timer()
        self._recorder.tls_is_on(tls.object.version() or "")
        if self._protocol is None:
            self._begin()
        elif self._handshake is not None and not self._handshake.done():
            self._handshake.set_result(None)

    def _tls_failed(self, error: OSError) -> None:
        if self._recorder.failure:
            return
        self._stop_timer()
        self._recorder.tls_failed(error)
        if self._handshake is not None and not self._handshake.done():
            self._handshake.set_exception(error)
        self.abort()

    def _send_records(self, tls: _Tls) -> None:
        records = tls.records()
        if records and not self._raw.is_closing():
            self._active()
            self._recorder.wire("S", records)
            self._raw.write(records)

    def _say_goodbye(self, tls: _Tls) -> None:
        over = tls.say_goodbye()
        self._send_records(tls)
        if over:
            self._stop_timer()
            self._raw.close()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_GOODBYE_SECONDS, self._raw.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- as the server's transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not data or self.is_closing():
            return
        if self._tls is None:
            self._active()
            self._recorder.both("S", bytes(data))
            self._raw.write(data)
        elif self.tls:
            self._recorder.said("S", bytes(data), True)
            with contextlib.suppress(ssl.SSLError):  # only where the connection is broken already
                self._tls.say(data)
            self._send_records(self._tls)

    def close(self) -> None:
        self._recorder.gone("S")
        if self._closing:
            return
        self._closing = True
        if self._tls is not None and self.tls and not self._raw.is_closing():
            self.resume_reading()  # the client's goodbye
            self._say_goodbye(self._tls)
        else:
            self._raw.close()

    def abort(self) -> None:
        self._recorder.gone("S")
        self._closing = True
        self._raw.abort()

    def is_closing(self) -> bool:
        return self._closing or self._raw.is_closing()

    def pause_reading(self) -> None:
        if not self._raw.is_closing() and self._raw.is_reading():
            self._raw.pause_reading()

    def resume_reading(self) -> None:
        if not self._raw.is_closing() and not self._raw.is_reading():
            self._raw.resume_reading()

    def is_reading(self) -> bool:
        return self._raw.is_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "ssl_object":
            return self._tls.object if self._tls is not None else default
        return self._raw.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._raw.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._raw.set_write_buffer_limits(high, low)

    def can_write_eof(self) -> Literal[False]:
        return False
