"""Real TCP on 127.0.0.1: one event loop in one background thread."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from datetime import UTC, datetime
from typing import Any, TypeVar

from labserver import tls
from labserver.network import (
    Abilities,
    Address,
    Network,
    NetworkError,
    OpenPort,
    PortTaken,
    interrupts,
)
from labserver.network.clock import Clock
from labserver.network.connection import Connection, OpenConnections
from labserver.network.service import Service

T = TypeVar("T")
HOST = "127.0.0.1"

_CALM_TURNS = 8
_MOST_TURNS = 5000
_BACKLOG = 100
_GRACE_SECONDS = 0.001
_CLOSE_SECONDS = 10.0
_ACCEPT_AGAIN_SECONDS = 1.0

log = logging.getLogger("labserver")

_ports: set[int] = set()


def listens(host: str, port: int) -> bool:
    """Whether a lab of this process listens there, on loopback."""
    return host in (HOST, "localhost") and port in _ports


class _Engine:
    """The loop, its thread and what listens there; apart from the network, whose finalizer
    needs it when the network itself is gone."""

    def __init__(self) -> None:
        # On Windows, too: only this kind tells when a socket has something to accept.
        self.loop = asyncio.SelectorEventLoop()
        self.thread = threading.Thread(target=self._serve, name="labserver", daemon=True)
        self.listeners: set[_TcpListener] = set()
        self._over = asyncio.Event()
        self._gate = threading.RLock()
        self._closed = False
        self.events = 0
        """Counts everything that happens on a connection."""

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_until_complete(self._live())
        finally:
            asyncio.set_event_loop(None)
            self.loop.close()

    async def _live(self) -> None:
        await self._over.wait()
        for listener in tuple(self.listeners):
            listener.close()
        await _some_turns()
        with self._gate:
            self._closed = True
        await asyncio.sleep(0)  # so that what other threads asked for until now has its task
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await _some_turns()

    def happened(self) -> None:
        self.events += 1

    def wait_for(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do that in the loop's thread, for another thread. Raises `NetworkError` at the end."""
        with interrupts.deferred(), self._gate:
            if self._closed:
                raise NetworkError("This network is closed; make a new lab.")
            future = asyncio.run_coroutine_threadsafe(work(), self.loop)
        try:
            return future.result()
        except CancelledError as error:
            raise NetworkError("This network was closed meanwhile; make a new lab.") from error

    def stop(self) -> None:
        """End the thread, from any thread; wait for it unless it is this one. May be repeated."""
        if self.thread.ident is None:
            self.loop.close()  # it never started
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            self.loop.call_soon_threadsafe(self._over.set)
        if self.thread is not threading.current_thread():
            self.thread.join(_CLOSE_SECONDS)


class _TcpListener(OpenPort):
    """Accepts connections, on the engine's loop, and gives each a protocol.

    It does so itself: `asyncio.Server`, closed right after it has accepted a connection, forgets
    that connection's socket (in Python 3.11).
    """

    def __init__(
        self, engine: _Engine, protocol: Callable[[], asyncio.BaseProtocol], port: int, most: int
    ) -> None:
        self._engine, self._protocol = engine, protocol
        self._closed = False
        self._being_made: set[asyncio.Task[Any]] = set()
        # Where fewer may wait, a class that connects at the same moment waits for seconds.
        self._socket = socket.create_server((HOST, port), backlog=most)
        self._socket.setblocking(False)
        self.address = Address(HOST, self._socket.getsockname()[1])
        engine.listeners.add(self)
        self._listen()

    @property
    def in_use(self) -> bool:
        """Whether mail travels on any of its connections."""
        return False

    def _listen(self) -> None:
        if not self._closed:
            self._engine.loop.add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        loop = self._engine.loop
        try:
            sock, _ = self._socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionError):
            return  # who wanted to connect has changed his mind
        except OSError as error:
            log.error("No more connections can be accepted for a second: %s", error)
            loop.remove_reader(self._socket)
            loop.call_later(_ACCEPT_AGAIN_SECONDS, self._listen)
            return
        sock.setblocking(False)
        # Else the end of a long reply waits 40 ms until the client has acknowledged the beginning;
        # asyncio sees to that only for sockets that name their protocol.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._accepted()
        task = loop.create_task(loop.connect_accepted_socket(self._protocol, sock))
        self._being_made.add(task)
        task.add_done_callback(self._being_made.discard)

    def _accepted(self) -> None:
        """A connection has come."""

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._engine.loop.remove_reader(self._socket)
        self._socket.close()
        self._engine.listeners.discard(self)


class _MailListener(_TcpListener):
    """Records what is said on its connections."""

    def __init__(self, engine: _Engine, service: Service, port: int) -> None:
        self._service = service
        self._open = OpenConnections()
        super().__init__(engine, self._connection, port, service.most)
        _ports.add(self.address.port)

    @property
    def in_use(self) -> bool:
        return bool(self._open)

    def _accepted(self) -> None:
        self._engine.happened()

    def _connection(self) -> Connection:
        return Connection(self._service, self._open, self._engine.happened)

    def close(self) -> None:
        super().close()
        _ports.discard(self.address.port)
        self._open.close()


class LoopbackNetwork(Network):
    """Listens on 127.0.0.1 and nowhere else. Time is real."""

    def __init__(self) -> None:
        with interrupts.deferred():
            self._engine = engine = _Engine()
            self._stop = weakref.finalize(self, interrupts.in_finalizer(engine.stop))
            engine.thread.start()
        loop_time = engine.loop.time
        zero = loop_time()
        self.clock = Clock(datetime.now(UTC), lambda: loop_time() - zero)
        self.can = Abilities(tls=tls.available(), threads=True, sockets=True)

    def listen(self, service: Service, port: int = 0) -> OpenPort:
        return self._listening(
            service.name, port, lambda: _MailListener(self._engine, service, port)
        )

    def serve(
        self, name: str, protocol: Callable[[], asyncio.BaseProtocol], port: int = 0
    ) -> OpenPort:
        """Listen for something that is no mail server, and isn't recorded.

        Closing it ends no connection: they are the protocol's. Raises `NetworkError`.
        """
        return self._listening(
            name, port, lambda: _TcpListener(self._engine, protocol, port, _BACKLOG)
        )

    def _listening(self, name: str, port: int, make: Callable[[], OpenPort]) -> OpenPort:
        try:
            return self.run(make)
        except OverflowError as error:
            raise NetworkError(f"{port} is not a port; give one from 0 to 65535.") from error
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                why = "in use" if error.errno == errno.EADDRINUSE else "not allowed"
                raise PortTaken(name, port, why) from error
            raise NetworkError(f"The lab can't listen on port {port}: {error}.") from error

    def connect(self, address: tuple[str, int], timeout: float | None = 10.0) -> Any:
        return socket.create_connection(address, timeout)

    def run(self, function: Callable[[], T]) -> T:
        if threading.current_thread() is self._engine.thread:
            return function()
        return self._engine.wait_for(lambda: _call(function))

    def complete(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Have a coroutine done where the servers run, for another thread; returns its result."""
        return self._engine.wait_for(work)

    def settle(self) -> None:
        if threading.current_thread() is not self._engine.thread:
            self._engine.wait_for(lambda: self._quiet(self._engine))

    @staticmethod
    async def _quiet(engine: _Engine) -> None:
        """Each turn of the loop reads what has arrived; wait for some turns without news."""
        calm = turns = 0
        while calm < _CALM_TURNS and turns < _MOST_TURNS:
            before = engine.events
            # The last turns wait a moment: the kernel hands on a packet when it gets to it.
            busy = calm >= _CALM_TURNS - 2 and any(item.in_use for item in engine.listeners)
            await asyncio.sleep(_GRACE_SECONDS if busy else 0)
            calm = calm + 1 if engine.events == before else 0
            turns += 1

    def wait(self, news: threading.Event, seconds: float) -> bool:
        return news.wait(max(0.0, seconds))

    def close(self) -> None:
        with interrupts.deferred():
            self._engine.stop()
        self._stop.detach()


async def _some_turns() -> None:
    """Sockets close in the loop's next turns, and servers end when they hear of it."""
    for _ in range(_CALM_TURNS):
        await asyncio.sleep(0)


async def _call(function: Callable[[], T]) -> T:
    return function()
