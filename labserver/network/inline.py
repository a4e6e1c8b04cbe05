"""No sockets, no threads: blocking clients and asyncio servers in one thread, in virtual time.

The unmodified `smtplib`, `poplib` and `imaplib` of the standard library get an `InlineSocket`
where they ask for a socket. Whenever such a client sends or waits, the network's event loop is
stepped until nobody has anything left to do; if everybody waits, the clock jumps to the next
timer. So it also works inside another running loop, as in Jupyter and in a browser.

What it touches of the process, while an inline network exists and not longer: the name `socket`
inside those three modules, and `SSLContext.wrap_socket`, which then also takes an
`InlineSocket`, so that a client's own TLS context behaves as it does on loopback.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import heapq
import imaplib
import io
import itertools
import poplib
import smtplib
import socket
import ssl
import sys
import threading
import weakref
from asyncio import events
from asyncio.tasks import _enter_task, _leave_task  # documented in "Extending asyncio"
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

from labserver import tls
from labserver.network import (
    Abilities,
    Address,
    Network,
    NetworkError,
    OpenPort,
    interrupts,
    loopback,
)
from labserver.network.clock import Clock
from labserver.network.connection import Connection, OpenConnections
from labserver.network.service import Service

T = TypeVar("T")

START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
"""When virtual time begins: always the same, so that the same dialogue gives the same octets."""

_NAMES = ("127.0.0.1", "localhost", "")
_CLIENT_NAME = "client.example"
_PIECE = 64 * 1024
_HIGH_WATER = 256 * 1024
_CANCELLED_KEPT = 100
_LONGEST_WAIT = 30 * 24 * 3600.0
"""Seconds of virtual time after which a client that waits without a timeout gives up."""


class _Nothing:
    """Stands where a loop has its selector: there are no sockets to watch."""

    def select(self, timeout: float | None = None) -> list[Any]:
        return []


class InlineLoop(asyncio.BaseEventLoop):
    """An event loop that is stepped from outside and whose time only ever jumps."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = _Nothing()
        self._clock_resolution = 1e-9
        self._seconds = 0.0
        self._ready: deque[asyncio.Handle]
        self._scheduled: list[Any]  # of asyncio.TimerHandle

    def time(self) -> float:
        return self._seconds

    def is_running(self) -> bool:
        return events._get_running_loop() is self

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass  # nobody sleeps in a select that would need waking

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
        """There are no threads: the work is done at once."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # handed to whoever awaits it
            future.set_exception(error)
        return future

    # -- stepping

    def pump(self) -> None:
        """Run until nothing is left to do at this point in time."""
        # An interrupt in the middle of a callback would lose the others.
        with interrupts.deferred(), self._entered():
            self._take_due()
            while self._ready:
                handle = self._ready.popleft()
                if not handle.cancelled():
                    handle._run()
                if not self._ready:
                    self._take_due()

    def pump_until(self, done: Callable[[], bool], timeout: float | None) -> bool:
        """Pump until `done`, letting the clock jump; False when `timeout` seconds have passed
        first, or when nothing is ever going to happen."""
        deadline = self._seconds + (_LONGEST_WAIT if timeout is None else timeout)
        while True:
            self.pump()
            if done():
                return True
            when = self._next_timer()
            if when is None or when > deadline:
                self._seconds = max(self._seconds, deadline if timeout is not None else 0.0)
                return False
            self._seconds = max(self._seconds, when)

    def _next_timer(self) -> float | None:
        self._drop_cancelled()
        return self._scheduled[0].when() if self._scheduled else None

    def _drop_cancelled(self) -> None:
        if self._timer_cancelled_count > max(_CANCELLED_KEPT, len(self._scheduled) // 2):
            # While the clock stands still they pile up behind a timer that is still waited for.
            for handle in self._scheduled:
                handle._scheduled = not handle.cancelled()
            self._scheduled = [handle for handle in self._scheduled if handle._scheduled]
            heapq.heapify(self._scheduled)
            self._timer_cancelled_count = 0
        while self._scheduled and self._scheduled[0].cancelled():
            self._timer_cancelled_count = max(0, self._timer_cancelled_count - 1)
            heapq.heappop(self._scheduled)._scheduled = False

    _timer_cancelled_count = 0

    def _take_due(self) -> None:
        self._drop_cancelled()
        while self._scheduled and self._scheduled[0].when() <= self._seconds:
            handle = heapq.heappop(self._scheduled)
            handle._scheduled = False
            self._ready.append(handle)
            self._drop_cancelled()

    @contextlib.contextmanager
    def _entered(self) -> Iterator[None]:
        """Be the running loop for a while, whichever loop and task were running before."""
        outer = events._get_running_loop()
        task = asyncio.current_task(outer) if outer is not None else None
        if outer is not None and task is not None:
            _leave_task(outer, task)
        events._set_running_loop(self)
        try:
            yield
        finally:
            events._set_running_loop(outer)
            if outer is not None and task is not None:
                _enter_task(outer, task)


class _InlineTransport(asyncio.Transport):
    """The server's end of an inline connection."""

    def __init__(self, loop: InlineLoop, protocol: asyncio.Protocol, client: InlineSocket) -> None:
        super().__init__()
        self._loop, self._protocol = loop, protocol
        self._names = {"sockname": client.peer, "peername": client.name}
        self._closing = self._paused = self._client_is_slow = self._client_gone = False
        self._held: deque[bytes | None] = deque()
        self.unread = bytearray()
        """What the client hasn't read yet."""
        self.ended = False
        """Nothing more will come for the client."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._names.get(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast(asyncio.Protocol, protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return not (self._paused or self._closing)

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        self._loop.call_soon(self._hand_on)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.ended:
            return
        if self._client_gone:
            self.close()  # as TCP resets a connection that nobody reads from any more
            return
        self.unread += data
        if len(self.unread) > _HIGH_WATER and not self._client_is_slow:
            self._client_is_slow = True
            self._protocol.pause_writing()

    def get_write_buffer_size(self) -> int:
        return len(self.unread) if self._client_is_slow else 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass  # one limit for all

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        if not self._closing:
            self._closing = self.ended = True
            self._held.clear()
            self._loop.call_soon(self._over)

    def abort(self) -> None:
        self.close()

    def _over(self) -> None:
        self._protocol.connection_lost(None)

    # -- from the client's side

    def arrive(self, data: bytes | None) -> None:
        """Octets from the client, or `None` for the end of them."""
        self._held.append(data)
        self._loop.call_soon(self._hand_on)

    def _hand_on(self) -> None:
        while self._held and self.is_reading():
            data = self._held.popleft()
            if data is not None:
                self._protocol.data_received(data)
            elif not self._protocol.eof_received():
                self.close()

    def vanish(self) -> None:
        """The client has closed its socket: what it sent is read, then comes the end."""
        self._paused = False
        self._client_gone = True
        self.unread.clear()
        self._resume()
        self.arrive(None)

    def read(self, most: int, *, keep: bool = False) -> bytes:
        """What has come for the client, at most so many octets."""
        data = bytes(self.unread[:most])
        if not keep:
            del self.unread[:most]
            self._resume()
        return data

    def _resume(self) -> None:
        if self._client_is_slow and len(self.unread) <= _HIGH_WATER // 4:
            self._client_is_slow = False
            self._loop.call_soon(self._protocol.resume_writing)


class InlineSocket:
    """The client's end: as much of a connected stream socket as blocking clients use."""

    family, type, proto = socket.AF_INET, socket.SOCK_STREAM, 0

    def __init__(
        self, network: InlineNetwork, factory: Callable[[], asyncio.Protocol], peer: Address
    ) -> None:
        self._network = network
        self._loop = network.loop
        self._timeout: float | None = None
        self._closed = False
        self._handles = 0
        self.peer, self.name = peer, Address(loopback.HOST, next(_client_ports))
        with interrupts.deferred():
            protocol = factory()
            self._end = _InlineTransport(self._loop, protocol, self)
            self._loop.call_soon(protocol.connection_made, self._end)
            self._loop.pump()

    def settimeout(self, value: float | None) -> None:
        self._timeout = value

    def gettimeout(self) -> float | None:
        return self._timeout

    def setblocking(self, flag: bool) -> None:
        self._timeout = None if flag else 0.0

    def setsockopt(self, *_: Any) -> None:
        pass

    def getsockopt(self, level: int, option: int, *_: Any) -> int:
        return int(self.type) if option == socket.SO_TYPE else 0

    def getpeername(self) -> Address:
        return self.peer

    def getsockname(self) -> Address:
        return self.name

    def fileno(self) -> int:
        return -1

    def sendall(self, data: bytes, flags: int = 0) -> None:
        self._network.own_thread()
        if self._closed:
            raise OSError(errno.EBADF, "This socket is closed.")
        if self._end.is_closing():
            raise BrokenPipeError(errno.EPIPE, "The server has closed the connection.")
        view = memoryview(data).cast("B")
        for start in range(0, len(view), _PIECE):
            self._end.arrive(bytes(view[start : start + _PIECE]))
            self._loop.pump()

    def send(self, data: bytes, flags: int = 0) -> int:
        self.sendall(data, flags)
        return len(data)

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        self._network.own_thread()
        if self._closed and not self._handles:
            raise OSError(errno.EBADF, "This socket is closed.")
        end = self._end
        if not end.unread and not end.ended:
            if self._timeout == 0.0:
                self._loop.pump()
                if not end.unread and not end.ended:
                    raise BlockingIOError(errno.EAGAIN, "Nothing has arrived yet.")
            elif not self._loop.pump_until(lambda: bool(end.unread) or end.ended, self._timeout):
                raise TimeoutError("timed out: the server has nothing to say")
        return end.read(bufsize, keep=bool(flags & getattr(socket, "MSG_PEEK", 2)))

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        data = self.recv(nbytes or len(buffer), flags)
        buffer[: len(data)] = data
        return len(data)

    def makefile(self, mode: str = "r", buffering: int = -1, **text: Any) -> Any:
        return _file(self, mode, buffering, text)

    def shutdown(self, how: int) -> None:
        self._network.own_thread()
        if how in (socket.SHUT_WR, socket.SHUT_RDWR) and not self._end.is_closing():
            self._end.arrive(None)
            self._loop.pump()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if not self._handles:
            self._vanish()

    def _vanish(self) -> None:
        if self._loop.is_closed():
            return
        self._end.vanish()
        if self._network.is_own_thread():
            self._loop.pump()

    def _file_closed(self) -> None:
        # As with real sockets: the connection ends when the last of its files is closed.
        self._handles -= 1
        if self._closed and not self._handles:
            self._vanish()

    def _file_opened(self) -> None:
        self._handles += 1

    def __enter__(self) -> InlineSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # A forgotten real socket is closed by the garbage collector; this one must not pump
        # from there, so the server hears of it the next time somebody talks.
        if hasattr(self, "_end") and not self._closed and not self._loop.is_closed():
            self._end.vanish()


class _Raw(io.RawIOBase):
    """The file behind `makefile`."""

    def __init__(self, sock: Any, mode: str) -> None:
        self._sock, self._mode = sock, mode
        sock._file_opened()

    def readable(self) -> bool:
        return "r" in self._mode

    def writable(self) -> bool:
        return "w" in self._mode

    def readinto(self, buffer: Any) -> int:
        return int(self._sock.recv_into(buffer))

    def write(self, data: Any) -> int:
        self._sock.sendall(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._sock._file_closed()


def _file(sock: Any, mode: str, buffering: int, text: dict[str, Any]) -> Any:
    raw = _Raw(sock, mode)
    if buffering == 0:
        return raw
    stream: Any
    if "r" in mode and "w" in mode:
        stream = io.BufferedRWPair(raw, raw)
    else:
        stream = io.BufferedWriter(raw) if "w" in mode else io.BufferedReader(raw)
    return stream if "b" in mode else io.TextIOWrapper(stream, **text)


class InlineTlsSocket:
    """An `InlineSocket` under TLS, by way of memory buffers."""

    def __init__(
        self, sock: InlineSocket, context: ssl.SSLContext, server_hostname: str | None
    ) -> None:
        self._sock = sock
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.context, self.server_hostname = context, server_hostname
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=server_hostname)
        try:
            self._do(self._tls.do_handshake)
        except BaseException:
            sock.close()
            raise

    def _flush(self) -> None:
        data = self._out.read()
        if data:
            self._sock.sendall(data)

    def _do(self, work: Callable[..., T], *args: Any) -> T:
        while True:
            try:
                result = work(*args)
            except ssl.SSLWantReadError:
                self._flush()
                data = self._sock.recv(_PIECE)
                if data:
                    self._in.write(data)
                else:
                    self._in.write_eof()
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    self._flush()  # the alert that tells the server why
                raise
            else:
                self._flush()
                return result

    def sendall(self, data: bytes, flags: int = 0) -> None:
        view = memoryview(data).cast("B")
        for start in range(0, len(view), _PIECE):
            self._do(self._tls.write, view[start : start + _PIECE])

    def send(self, data: bytes, flags: int = 0) -> int:
        self.sendall(data)
        return len(data)

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        try:
            return self._do(self._tls.read, bufsize)
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        data = self.recv(nbytes or len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def makefile(self, mode: str = "r", buffering: int = -1, **text: Any) -> Any:
        return _file(self, mode, buffering, text)

    def version(self) -> str | None:
        return self._tls.version()

    def cipher(self) -> tuple[str, str, int] | None:
        return self._tls.cipher()

    def getpeercert(self, binary_form: bool = False) -> Any:
        return self._tls.getpeercert(binary_form)

    def unwrap(self) -> InlineSocket:
        self._do(self._tls.unwrap)
        return self._sock

    def __getattr__(self, name: str) -> Any:
        # close, shutdown, settimeout, …: those of the socket below
        return getattr(self._sock, name)

    def __enter__(self) -> InlineTlsSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()


class _InlineListener(OpenPort):
    def __init__(self, network: InlineNetwork, service: Service, port: int) -> None:
        self.address = Address(loopback.HOST, port)
        self.service = service
        self._open = OpenConnections()
        self._network = weakref.ref(network)

    def connect(self, timeout: float | None) -> InlineSocket:
        network = self._network()
        if network is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "That network is gone.")
        network.own_thread()
        sock = InlineSocket(
            network, lambda: Connection(self.service, self._open, _no_news), self.address
        )
        sock.settimeout(timeout)
        return sock

    def close(self) -> None:
        # Another lab may have been given this port since.
        if _listeners.get(self.address.port) is self:
            del _listeners[self.address.port]
        network = self._network()
        if network is not None:
            network.forget(self)
        self._open.close()
        if not _listeners and sys.platform != "emscripten":
            # A browser has no real network to go back to: there a closed lab just refuses.
            _leave_modules()


def _no_news() -> None:
    """A loopback network watches for activity; here nothing happens unasked."""


_listeners: dict[int, _InlineListener] = {}
# Below what systems give out by themselves, so that no real listener gets the same number.
_server_ports = itertools.cycle(range(20_000, 30_000))
_client_ports = itertools.cycle(range(49_152, 65_536))


def _taken(port: int) -> bool:
    return port in _listeners or loopback.listens(loopback.HOST, port)


class _SocketModule:
    """What `smtplib`, `poplib` and `imaplib` see as `socket` while an inline network exists."""

    def __getattr__(self, name: str) -> Any:
        return getattr(socket, name)

    @staticmethod
    def create_connection(
        address: tuple[str, int],
        timeout: Any = socket._GLOBAL_DEFAULT_TIMEOUT,  # type: ignore[attr-defined]
        source_address: Any = None,
        *,
        all_errors: bool = False,
    ) -> InlineSocket | socket.socket:
        host, port = address
        listener = _listeners.get(int(port)) if host in _NAMES else None
        if listener is None and loopback.listens(host, int(port)):
            return socket.create_connection(address, timeout, source_address)
        if listener is None:
            raise ConnectionRefusedError(
                errno.ECONNREFUSED,
                f"No lab listens on {host}:{port}, and from here nothing else can be reached.",
            )
        if not isinstance(timeout, (int, float, type(None))):
            timeout = socket.getdefaulttimeout()
        return listener.connect(timeout)

    @staticmethod
    def getfqdn(name: str = "") -> str:
        return _CLIENT_NAME


_CLIENTS: tuple[Any, ...] = (smtplib, poplib, imaplib)
_wrap_socket = ssl.SSLContext.wrap_socket if hasattr(ssl.SSLContext, "wrap_socket") else None


def _wrap_any(self: ssl.SSLContext, sock: Any, *args: Any, **options: Any) -> Any:
    if isinstance(sock, InlineSocket):
        return InlineTlsSocket(sock, self, options.get("server_hostname"))
    assert _wrap_socket is not None
    return _wrap_socket(self, sock, *args, **options)


def _enter_modules() -> None:
    for module in _CLIENTS:
        module.socket = _SocketModule()
    if _wrap_socket is not None:
        ssl.SSLContext.wrap_socket = _wrap_any  # type: ignore[method-assign]


def _leave_modules() -> None:
    for module in _CLIENTS:
        module.socket = socket
    if _wrap_socket is not None:
        ssl.SSLContext.wrap_socket = _wrap_socket  # type: ignore[method-assign]


class InlineNetwork(Network):
    """Carries bytes through memory, in the thread that made it. Time is virtual."""

    def __init__(self) -> None:
        self.loop = InlineLoop()
        self._thread = threading.get_ident()
        self._mine: set[_InlineListener] = set()
        self._stop = weakref.finalize(self, interrupts.in_finalizer(_shut), self.loop, self._mine)
        self.clock = Clock(START, self.loop.time)
        self.can = Abilities(tls=tls.available(), threads=False, sockets=False)

    def is_own_thread(self) -> bool:
        """Whether this is the thread the network was made in."""
        return threading.get_ident() == self._thread

    def own_thread(self) -> None:
        """Raise `NetworkError` in any thread but the one the network was made in."""
        if not self.is_own_thread():
            raise NetworkError(
                "The inline network answers only in the thread that made it; "
                "use Lab(network=LoopbackNetwork()) with threads."
            )

    def listen(self, service: Service, port: int = 0) -> OpenPort:
        self.own_thread()
        if _taken(port):
            raise NetworkError(
                f"Port {port} ({service.name}) is in use by another lab; close that one first."
            )
        if not 0 <= port <= 65535:
            raise NetworkError(f"{port} is not a port; give one from 0 to 65535.")
        with interrupts.deferred():
            port = port or next(free for free in _server_ports if not _taken(free))
            listener = _InlineListener(self, service, port)
            self._mine.add(listener)
            _listeners[port] = listener
            _enter_modules()
        return listener

    def forget(self, listener: _InlineListener) -> None:
        """That listener is closed."""
        self._mine.discard(listener)

    def connect(self, address: tuple[str, int], timeout: float | None = 10.0) -> Any:
        return _SocketModule.create_connection(address, timeout)

    def run(self, function: Callable[[], T]) -> T:
        self.own_thread()
        if self.loop.is_running():
            return function()
        if self.loop.is_closed():
            raise NetworkError("This network is closed; make a new lab.")
        with interrupts.deferred(), self.loop._entered():
            result = function()
        self.loop.pump()
        return result

    def settle(self) -> None:
        self.own_thread()
        if not self.loop.is_running():
            self.loop.pump()

    def wait(self, news: threading.Event, seconds: float) -> bool:
        self.own_thread()
        if self.loop.is_running() or self.loop.is_closed():
            return news.is_set()
        return self.loop.pump_until(news.is_set, max(0.0, seconds))

    def close(self) -> None:
        _shut(self.loop, self._mine)
        self._stop.detach()


def _shut(loop: InlineLoop, listeners: set[_InlineListener]) -> None:
    if loop.is_closed():
        return
    with interrupts.deferred():
        for listener in tuple(listeners):
            listener.close()
        loop.pump()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.pump()
        loop.close()
