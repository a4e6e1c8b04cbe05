"""One connection between the real transport and a server's protocol.

Two layers, so that no server knows of TLS or of recording:

    real transport <-> Wire <-> (TLS, where it is on) <-> Connection <-> the server's protocol

`Wire` notes the octets below TLS, `Connection` the plaintext above it; both hand them to the
connection's `Recorder`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, Literal, cast

from labserver.network.recorder import Recorder
from labserver.network.service import Service
from labserver.transcript import Host

_HANDSHAKE_SECONDS = 30.0


def _own(data: bytes) -> bytes:
    """A copy: what a socket has read lies in memory made for far more, which it would keep."""
    return bytes(memoryview(data))


def _address(transport: asyncio.BaseTransport, end: str) -> str:
    """The IP address of one end of a connection."""
    return str((transport.get_extra_info(end) or ("",))[0])


class Wires(set["Wire"]):
    """The wires of one listener that are in use."""

    closed = False

    def close(self) -> None:
        """Break off these, and those that are just being made."""
        self.closed = True
        for wire in tuple(self):
            wire.abort()


class Wire(asyncio.Transport, asyncio.Protocol):
    """The lower layer: protocol of the real transport, transport of what lies above.

    `active` is called whenever something happens, so that a network can tell when all is quiet.
    """

    # asyncio asks this of a transport before it lays TLS over it.
    _start_tls_compatible = True

    def __init__(self, service: Service, open_wires: Wires, active: Callable[[], None]) -> None:
        super().__init__()
        self.service, self.recorder = service, cast(Recorder, None)
        self._open, self._active = open_wires, active
        self._raw: asyncio.Transport = cast(asyncio.Transport, None)
        self._above: asyncio.BaseProtocol = asyncio.Protocol()
        self._lost = False

    # -- as the real transport's protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = cast(asyncio.Transport, transport)
        if self._open.closed:
            self._lost = True
            self._raw.abort()
            return
        service = self.service
        self.recorder = service.journal.begin(
            service.listener.protocol, service.name, implicit_tls=service.tls is not None
        )
        self.recorder.client = _address(transport, "peername")
        self.recorder.server = Host(service.hostname, _address(transport, "sockname"))
        full = len(self._open) >= service.most
        self._open.add(self)
        self._active()
        if full:
            if service.busy:
                self.recorder.both("S", service.busy)
                self.send(service.busy)
            self.close()
            return
        connection = Connection(self, service.factory())
        self._above = connection
        if service.tls is None:
            connection.connection_made(self)
        else:
            connection.begin_with_tls(service.tls)

    def data_received(self, data: bytes) -> None:
        self._active()
        above = self._above
        if isinstance(above, Connection):
            above.data_received(data)  # which notes it for both layers
            return
        self.recorder.wire("C", _own(data))
        if isinstance(above, asyncio.BufferedProtocol):
            left = memoryview(data)
            while left:
                buffer = memoryview(above.get_buffer(len(left)))
                taken = min(len(buffer), len(left))
                buffer[:taken] = left[:taken]
                above.buffer_updated(taken)
                left = left[taken:]
        else:
            cast(asyncio.Protocol, above).data_received(data)

    def eof_received(self) -> bool | None:
        self._active()
        self.recorder.gone("C")
        return cast(asyncio.Protocol, self._above).eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._lost:
            return
        self._lost = True
        self._active()
        self._open.discard(self)
        self.recorder.gone("C")
        self.recorder.close()
        self._above.connection_lost(exc)
        # Why a TLS handshake came to nothing is only known after those who waited for it.
        asyncio.get_running_loop().call_soon(self.service.journal.ended, self.recorder)

    def pause_writing(self) -> None:
        self._above.pause_writing()

    def resume_writing(self) -> None:
        self._above.resume_writing()

    # -- as the transport of what lies above

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._above = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._above

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if data and not self._raw.is_closing():
            self.recorder.wire("S", bytes(data))
            self.send(data)

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Write octets that have been noted."""
        self._active()
        self._raw.write(data)

    def close(self) -> None:
        self.recorder.gone("S")
        self._raw.close()

    def abort(self) -> None:
        self.recorder.gone("S")
        self._raw.abort()

    def _force_close(self, exc: BaseException | None) -> None:
        # asyncio's TLS layer calls this after a fatal error.
        self.abort()

    def is_closing(self) -> bool:
        return self._raw.is_closing()

    def pause_reading(self) -> None:
        if not self._raw.is_closing() and self._raw.is_reading():
            self._raw.pause_reading()

    def resume_reading(self) -> None:
        if not self._raw.is_closing() and not self._raw.is_reading():
            self._raw.resume_reading()

    def is_reading(self) -> bool:
        return self._raw.is_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._raw.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._raw.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._raw.set_write_buffer_limits(high, low)

    def can_write_eof(self) -> Literal[False]:
        return False


class Connection(asyncio.Transport, asyncio.Protocol):
    """The upper layer: the transport a server's protocol gets. It carries plaintext.

    `tls` tells whether TLS is on; `start_tls` puts it on.
    """

    def __init__(self, wire: Wire, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._wire = wire
        self._below: asyncio.Transport = wire
        self._protocol = protocol
        self._recorder = wire.recorder
        self._made = False
        self._early: list[bytes] = []
        self._task: asyncio.Task[None] | None = None
        self._octets = 0
        """What the client has said."""
        self.tls = False

    # -- TLS

    def begin_with_tls(self, context: ssl.SSLContext) -> None:
        """TLS from the first octet: the server hears of the connection after the handshake."""
        self._task = asyncio.get_running_loop().create_task(self._implicit(context))

    async def _implicit(self, context: ssl.SSLContext) -> None:
        try:
            await self.start_tls(context)
        except (OSError, ssl.SSLError):
            return  # noted by start_tls; there is no server yet that could want to know
        if not self._wire.is_closing():
            self.connection_made(self._below)

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Take the server's part of a TLS handshake, then go on under TLS.

        Plaintext that the server has read but not yet obeyed is the server's to forget (RFC 3207
        section 4.2). Raises `OSError` or `ssl.SSLError` where the handshake fails; the
        connection is closed then.
        """
        self._recorder.tls_begins()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_HANDSHAKE_SECONDS):
                below = await loop.start_tls(self._wire, self, context, server_side=True)
            if below is None:
                raise ConnectionResetError("The client went away during the TLS handshake.")
        except (OSError, ssl.SSLError) as error:
            self._recorder.tls_failed(error)
            self._wire.abort()
            raise
        self._below = below
        self.tls = True
        self._recorder.tls_is_on(below.get_extra_info("ssl_object").version() or "")

    # -- as the protocol of what lies below

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._made = True
        self._protocol.connection_made(self)
        for data in self._early:
            self.data_received(data)
        self._early.clear()

    def data_received(self, data: bytes) -> None:
        # Right after the handshake data may come before `start_tls` has returned.
        under_tls = self._wire.get_protocol() is not self
        if not self._made:
            # The client's first words may come with the end of its handshake.
            if not under_tls:
                self._recorder.wire("C", _own(data))
            self._early.append(bytes(data))
            return
        if under_tls:
            self._recorder.said("C", _own(data), True)
        else:
            self._recorder.both("C", _own(data))
        self._octets += len(data)
        if self._octets <= self._wire.service.most_octets:
            self._protocol.data_received(data)
        elif not self.is_closing():
            self.write(self._wire.service.too_much)
            self.close()

    def eof_received(self) -> bool | None:
        self._recorder.gone("C")
        stays_open = self._protocol.eof_received() if self._made else False
        # Under TLS there is no half-open connection (RFC 8446 section 6.1 aside, in asyncio).
        return stays_open and self._wire.get_protocol() is self

    def connection_lost(self, exc: Exception | None) -> None:
        if self._made:
            self._made = False
            # To a server all ends are one; of an exception asyncio would say that nobody asked.
            self._protocol.connection_lost(None)

    def pause_writing(self) -> None:
        if self._made:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        if self._made:
            self._protocol.resume_writing()

    # -- as the server's transport

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast(asyncio.Protocol, protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not data or self._below.is_closing():
            return
        if self._below is self._wire:
            self._recorder.both("S", bytes(data))
            self._wire.send(data)
        else:
            self._recorder.said("S", bytes(data), self.tls)
            self._below.write(data)

    def close(self) -> None:
        self._recorder.gone("S")
        self._below.close()

    def abort(self) -> None:
        self._recorder.gone("S")
        self._below.abort()

    def is_closing(self) -> bool:
        return self._below.is_closing()

    def pause_reading(self) -> None:
        self._below.pause_reading()

    def resume_reading(self) -> None:
        self._below.resume_reading()

    def is_reading(self) -> bool:
        return self._below.is_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._below.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        return self._below.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._below.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._below.set_write_buffer_limits(high, low)

    def can_write_eof(self) -> Literal[False]:
        return False
