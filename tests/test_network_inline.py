"""The inline network: no sockets, no threads, virtual time; and the process left as it was."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import http.server
import imaplib
import poplib
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request
from asyncio import events
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from labserver import Lab, NetworkError
from labserver.dialogue import Bounds
from labserver.listeners import Listener
from labserver.network import Address
from labserver.network.inline import START, InlineNetwork
from labserver.network.loopback import LoopbackNetwork
from labserver.network.recorder import Journal
from labserver.network.service import Service

pytestmark = pytest.mark.protocol

MAIL = ("ana@lab.example", "ben@lab.example", b"Subject: Hello\r\n\r\nHi Ben\r\n")


@pytest.fixture
def network() -> Iterator[InlineNetwork]:
    made = InlineNetwork()
    yield made
    made.close()


@pytest.fixture
def lab(network: InlineNetwork) -> Iterator[Lab]:
    with Lab(network=network) as made:
        yield made


def send(lab: Lab) -> None:
    with smtplib.SMTP(*lab.smtp) as client:
        client.sendmail(*MAIL)


def works(lab: Lab) -> bool:
    """Whether one more delivery arrives."""
    before = len(lab.inbox("ben@lab.example"))
    send(lab)
    return len(lab.inbox("ben@lab.example")) == before + 1


def serve(network: InlineNetwork, obey: Callable[[asyncio.Transport, bytes], None]) -> Address:
    """A server that calls `obey` for what it receives."""

    class Server(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            self.transport = transport
            transport.write(b"220 ready\r\n")

        def data_received(self, data: bytes) -> None:
            obey(self.transport, data)

    journal = Journal(network.clock, Bounds(), 10, 1_000_000)
    return network.listen(Service(Listener("own", "SMTP", 25), Server, journal)).address


# -- what is touched of the process


def touched() -> dict[str, object]:
    """Whatever of the process a network could change for others."""
    state: dict[str, object] = {
        "threads": threading.active_count(),
        "SIGINT": signal.getsignal(signal.SIGINT),
        "loop": events._get_running_loop(),
        "wrap_socket": ssl.SSLContext.wrap_socket,
    }
    for module in (socket, ssl, time, asyncio, asyncio.events, threading, smtplib, poplib, imaplib):
        state |= {f"{module.__name__}.{name}": value for name, value in vars(module).items()}
    return state


def test_nothing_is_touched_but_four_names_and_only_while_it_exists() -> None:
    before = touched()
    network = InlineNetwork()
    with Lab(network=network) as lab:
        send(lab)
        during = touched()
        changed = {name for name in before if during[name] is not before[name]} - {"threads"}
        assert changed == {"smtplib.socket", "poplib.socket", "imaplib.socket", "wrap_socket"}
        assert during["threads"] == before["threads"]
    network.close()
    after = touched()
    assert {name for name in before if after[name] != before[name]} == set()


def test_names_come_back_with_the_last_of_several_labs() -> None:
    one, two = InlineNetwork(), InlineNetwork()
    first, second, third = Lab(network=one), Lab(network=one), Lab(network=two)
    for lab in (second, first):
        lab.close()
        assert smtplib.socket is not socket  # type: ignore[attr-defined]
        assert works(third)
    third.close()
    assert smtplib.socket is socket  # type: ignore[attr-defined]
    one.close()
    two.close()


@pytest.mark.process
def test_other_modules_keep_the_real_network(lab: Lab) -> None:
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"a real page")

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        send(lab)
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/") as page:
            assert page.read() == b"a real page"
        send(lab)
        server.shutdown()
        thread.join()


@pytest.mark.process
def test_a_loopback_lab_stays_reachable(lab: Lab) -> None:
    network = LoopbackNetwork()
    with Lab(network=network) as other:
        for one in (lab, other, lab, other):
            assert works(one)
        with smtplib.SMTP_SSL(*other.submissions, context=other.tls) as client:
            assert isinstance(client.sock, ssl.SSLSocket)
            client.noop()
        with smtplib.SMTP("localhost", other.smtp.port) as client:
            client.noop()
        with smtplib.SMTP("localhost", lab.smtp.port) as client:
            client.noop()
        assert len(lab.sessions) == 3
    network.close()


@pytest.mark.process
def test_an_unknown_address_is_refused_and_never_tried() -> None:
    script = """
        import smtplib, poplib, imaplib, socket, sys
        from labserver import Lab
        from labserver.network.inline import InlineNetwork

        listener = socket.create_server(("127.0.0.1", 0))
        tried = []
        sys.addaudithook(lambda event, args: event.startswith("socket.") and tried.append(event))
        network = InlineNetwork()
        with Lab(network=network) as lab:
            for address in (
                ("smtp.example.com", 25), ("192.0.2.1", 25), ("127.0.0.1", 9),
                ("mail.example", lab.smtp.port), ("::1", lab.smtp.port),
                listener.getsockname(),
            ):
                for client in (smtplib.SMTP, poplib.POP3, imaplib.IMAP4):
                    try:
                        client(*address)
                    except ConnectionRefusedError as error:
                        assert "No lab listens on" in str(error), error
                    else:
                        raise AssertionError(address)
            with smtplib.SMTP(*lab.smtp) as client:
                client.sendmail("ana@lab.example", "ben@lab.example", "Subject: Hello")
            assert len(lab.inbox("ben@lab.example")) == 1
        network.close()
        print(tried)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert (done.stderr, done.stdout) == ("", "[]\n")


# -- threads


def in_a_thread(function: Callable[[], object]) -> BaseException | None:
    """What the function raises when another thread calls it."""
    raised: list[BaseException] = []

    def call() -> None:
        try:
            function()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    return raised[0] if raised else None


def test_another_thread_gets_a_clear_error(lab: Lab) -> None:
    sock = lab.network.connect(lab.smtp)
    for function in (
        lambda: smtplib.SMTP(*lab.smtp),
        lambda: lab.network.connect(lab.smtp),
        lambda: lab.sessions,
        lambda: lab.inbox("ben@lab.example"),
        lambda: Lab(network=lab.network),
        lambda: sock.recv(1),
        lambda: sock.sendall(b"NOOP\r\n"),
    ):
        error = in_a_thread(function)
        assert isinstance(error, NetworkError)
        assert "only in the thread that made it; use Lab(network=LoopbackNetwork())" in str(error)
    sock.close()
    assert works(lab)


def test_a_lab_can_live_in_a_thread_of_its_own() -> None:
    def whole_life() -> None:
        network = InlineNetwork()
        with Lab(network=network) as lab:
            assert works(lab)
            assert lab.sessions[-1].closed
        network.close()

    assert in_a_thread(whole_life) is None


# -- time


def test_waiting_takes_virtual_time_only(lab: Lab) -> None:
    clock = lab.network.clock
    sock = lab.network.connect(lab.pop3, timeout=500)
    sock.recv(1000)
    began = clock.seconds()
    with pytest.raises(TimeoutError):
        sock.recv(1000)
    assert clock.seconds() == began + 500
    sock.settimeout(1000)
    assert sock.recv(1000) == b""  # POP3's idle time of 600 seconds is over first
    assert clock.seconds() == began + 600
    sock.close()


def test_a_client_without_a_timeout_does_not_wait_for_ever(network: InlineNetwork) -> None:
    address = serve(network, lambda transport, data: None)
    sock = network.connect(address, timeout=None)
    assert sock.recv(100) == b"220 ready\r\n"
    with pytest.raises(TimeoutError):
        sock.recv(100)
    sock.close()


def test_a_timer_without_end_does_not_spin_for_ever(network: InlineNetwork) -> None:
    ticks: list[float] = []

    def tick() -> None:
        ticks.append(network.loop.time())
        network.loop.call_later(3600, tick)

    address = serve(network, lambda transport, data: None)
    network.run(tick)
    sock = network.connect(address, timeout=None)
    sock.recv(100)
    with pytest.raises(TimeoutError):
        sock.recv(100)
    assert len(ticks) == 30 * 24 + 1
    sock.close()


def test_time_stands_still_unless_somebody_waits(lab: Lab) -> None:
    for _ in range(3):
        send(lab)
    assert lab.network.clock.now() == START
    assert {session.duration for session in lab.sessions} == {0.0}


def test_cancelled_timers_do_not_pile_up(network: InlineNetwork) -> None:
    def call() -> None:
        network.loop.call_later(1, str)  # behind this one they would stay
        for _ in range(10_000):
            network.loop.call_later(300, str).cancel()
            network.loop._take_due()

    network.run(call)
    assert len(network.loop._scheduled) < 500


# -- blocking clients


def test_a_socket_behaves_like_a_socket(network: InlineNetwork) -> None:
    def obey(transport: asyncio.Transport, data: bytes) -> None:
        if b"QUIT" in data:
            transport.write(b"bye")
            transport.close()

    address = serve(network, obey)
    with network.connect(address) as sock:
        assert sock.getpeername() == address
        assert sock.getsockname()[0] == "127.0.0.1"
        assert sock.gettimeout() == 10
        assert sock.recv(4, socket.MSG_PEEK) == b"220 "
        assert sock.recv(4) == b"220 "
        buffer = bytearray(5)
        assert sock.recv_into(buffer) == 5
        assert bytes(buffer) == b"ready"
        assert sock.recv(100) == b"\r\n"
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(1)
        sock.settimeout(5)
        assert sock.send(b"QUIT") == 4
        with pytest.raises(BrokenPipeError):
            sock.sendall(b"more")
        assert sock.recv(100) == b"bye"
        assert sock.recv(100) == b""
    with pytest.raises(OSError, match="closed"):
        sock.sendall(b"x")
    with pytest.raises(OSError, match="closed"):
        sock.recv(1)
    sock.close()


def test_a_file_keeps_the_connection_open_until_it_is_closed_too(lab: Lab) -> None:
    sock = lab.network.connect(lab.smtp)
    file = sock.makefile("rb")
    sock.close()
    assert file.readline() == b"220 lab.example ESMTP ready\r\n"
    assert not lab.sessions[-1].closed
    file.close()
    assert lab.sessions[-1].closed


def test_a_forgotten_socket_is_closed(lab: Lab) -> None:
    client = smtplib.SMTP(*lab.smtp)
    assert not lab.sessions[-1].closed
    del client
    gc.collect()
    assert lab.sessions[-1].closed


def test_starttls_without_a_context_of_ones_own(lab: Lab) -> None:
    with smtplib.SMTP(*lab.smtp) as client:
        client.starttls()
        client.sendmail(*MAIL)
        assert client.sock is not None
        assert client.sock.version() == "TLSv1.3"
    assert lab.sessions[-1].tls == "TLSv1.3"


def test_several_clients_at_once(lab: Lab) -> None:
    clients = [smtplib.SMTP(*lab.smtp) for _ in range(20)]
    for client in clients:
        client.ehlo()
    for client in reversed(clients):
        client.sendmail(*MAIL)
    for client in clients:
        client.quit()
    assert len(lab.inbox("ben@lab.example")) == 20
    assert all(session.closed for session in lab.sessions)


def test_closing_the_network_ends_open_connections(network: InlineNetwork) -> None:
    lab = Lab(network=network)
    client = smtplib.SMTP(*lab.smtp)
    lab.close()
    assert lab.sessions[-1].closed
    with pytest.raises(smtplib.SMTPServerDisconnected):
        client.noop()
    client.close()


# -- other loops


def test_inside_a_running_loop_and_task() -> None:
    async def main() -> list[str]:
        me, order = asyncio.current_task(), []

        async def other() -> None:
            for step in "abc":
                order.append(step)
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        network = InlineNetwork()
        with Lab(network=network) as lab:
            async with asyncio.timeout(3600):
                for _ in range(3):
                    send(lab)
                    assert asyncio.current_task() is me
                    assert asyncio.get_running_loop() is outer
                    order.append("sent")
                    await asyncio.sleep(0)
            assert len(lab.inbox("ben@lab.example")) == 3
        network.close()
        await task
        return order

    loops: list[asyncio.AbstractEventLoop] = []
    with asyncio.Runner() as runner:
        outer = runner.get_loop()
        loops.append(outer)
        assert runner.run(main()) == ["sent", "a", "sent", "b", "sent", "c"]


def test_several_tasks_may_use_it() -> None:
    async def main() -> int:
        network = InlineNetwork()
        with Lab(network=network) as lab:

            async def one() -> None:
                with smtplib.SMTP(*lab.smtp) as client:
                    await asyncio.sleep(0)
                    client.sendmail(*MAIL)
                    await asyncio.sleep(0)

            async with asyncio.TaskGroup() as group:
                for _ in range(10):
                    group.create_task(one())
            stored = len(lab.inbox("ben@lab.example"))
        network.close()
        return stored

    assert asyncio.run(main()) == 10


@pytest.mark.parametrize("same", [True, False])
def test_a_server_may_itself_be_a_client(network: InlineNetwork, same: bool) -> None:
    inner = network if same else InlineNetwork()
    tasks: list[asyncio.Task[None]] = []
    with Lab(network=inner) as lab:

        async def pass_on(transport: asyncio.Transport) -> None:
            me = asyncio.current_task()
            send(lab)
            assert asyncio.current_task() is me
            await asyncio.sleep(60)
            send(lab)
            transport.write(b"250 passed on\r\n")

        def obey(transport: asyncio.Transport, data: bytes) -> None:
            tasks.append(network.loop.create_task(pass_on(transport)))

        sock = network.connect(serve(network, obey), timeout=100)
        assert sock.recv(100) == b"220 ready\r\n"
        sock.sendall(b"go\r\n")
        assert len(lab.inbox("ben@lab.example")) == 1
        assert sock.recv(100) == b"250 passed on\r\n"
        assert len(lab.inbox("ben@lab.example")) == 2
        assert [task.exception() for task in tasks] == [None]
        sock.close()
    inner.close()


# -- interrupts


def test_an_interrupt_waits_for_the_end_of_the_pump(network: InlineNetwork) -> None:
    done: list[str] = []

    def obey(transport: asyncio.Transport, data: bytes) -> None:
        network.loop.call_soon(done.append, "after")
        signal.raise_signal(signal.SIGINT)
        done.append("during")
        transport.write(b"250 OK\r\n")

    before = signal.getsignal(signal.SIGINT)
    sock = network.connect(serve(network, obey))
    assert sock.recv(100) == b"220 ready\r\n"
    with pytest.raises(KeyboardInterrupt):
        sock.sendall(b"NOOP\r\n")
    assert done == ["during", "after"]
    assert sock.recv(100) == b"250 OK\r\n"
    assert signal.getsignal(signal.SIGINT) is before
    assert events._get_running_loop() is None
    sock.close()


def test_an_interrupt_handler_of_ones_own_is_called_once_and_kept(network: InlineNetwork) -> None:
    calls: list[int] = []

    def own(number: int, frame: object) -> None:
        calls.append(number)

    def obey(transport: asyncio.Transport, data: bytes) -> None:
        signal.raise_signal(signal.SIGINT)
        assert not calls
        transport.write(b"250 OK\r\n")

    before = signal.signal(signal.SIGINT, own)
    try:
        sock = network.connect(serve(network, obey))
        sock.recv(100)
        sock.sendall(b"NOOP\r\n")
        assert calls == [signal.SIGINT]
        assert sock.recv(100) == b"250 OK\r\n"
        assert signal.getsignal(signal.SIGINT) is own
        sock.close()
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_mistake_in_a_server_leaves_the_network_standing(
    network: InlineNetwork, caplog: pytest.LogCaptureFixture
) -> None:
    def obey(transport: asyncio.Transport, data: bytes) -> None:
        raise LookupError("a mistake")

    sock = network.connect(serve(network, obey))
    sock.recv(100)
    sock.sendall(b"NOOP\r\n")
    assert "a mistake" in caplog.text
    with Lab(network=network) as lab:
        assert works(lab)
    sock.close()


# -- ports


def test_a_fixed_port_is_free_again_after_close(network: InlineNetwork) -> None:
    for _ in range(3):
        with Lab(network=network, ports={"smtp": 2525}) as lab:
            assert lab.smtp == ("127.0.0.1", 2525)
            assert works(lab)
        with pytest.raises(ConnectionRefusedError):
            network.connect(("127.0.0.1", 2525))


def test_a_port_in_use_is_refused_in_one_sentence(network: InlineNetwork) -> None:
    with Lab(network=network, ports={"smtp": 2525}) as lab:
        with pytest.raises(NetworkError, match=r"\APort 2525 \(pop3\) is in use .*\.\Z"):
            Lab(network=network, ports={"pop3": 2525})
        assert works(lab)
    assert smtplib.socket is socket  # type: ignore[attr-defined]


@pytest.mark.process
def test_a_port_of_a_loopback_lab_is_in_use(network: InlineNetwork) -> None:
    real = LoopbackNetwork()
    with Lab(network=real) as other:
        with pytest.raises(NetworkError, match="is in use by another lab"):
            Lab(network=network, ports={"smtp": other.smtp.port})
        assert works(other)
    real.close()


def test_any_free_port_is_never_one_that_is_in_use(network: InlineNetwork) -> None:
    with Lab(network=network) as first:
        taken = {address.port for address in first.listeners.values()}
        following = [port for port in range(min(taken), max(taken) + 20) if port not in taken]
        with (
            Lab(network=network, ports={"smtp": following[0], "imap": following[5]}) as second,
            Lab(network=network) as third,
        ):
            ports = [a.port for lab in (first, second, third) for a in lab.listeners.values()]
            assert len(set(ports)) == len(ports) == 21
            assert works(second)


def test_closing_an_old_network_again_frees_nobody_elses_port(network: InlineNetwork) -> None:
    old = InlineNetwork()
    Lab(network=old, ports={"smtp": 2525}).close()
    with Lab(network=network, ports={"smtp": 2525}) as lab:
        old.close()
        assert works(lab)


def test_a_network_keeps_nothing_of_labs_that_are_gone(network: InlineNetwork) -> None:
    for _ in range(5):
        Lab(network=network).close()
    assert not network._mine


def test_a_closed_network_says_so(network: InlineNetwork) -> None:
    network.close()
    network.close()
    with pytest.raises(NetworkError, match="closed; make a new lab"):
        Lab(network=network)
    with contextlib.closing(InlineNetwork()) as fresh, Lab(network=fresh) as lab:
        assert works(lab)


def test_time_passes_until_there_is_news_or_for_as_long_as_is_said(network: InlineNetwork) -> None:
    news = threading.Event()
    network.loop.call_later(3600, news.set)
    assert not network.wait(news, 60)
    assert network.clock.seconds() == 60
    assert network.wait(news, 7200)
    assert network.clock.seconds() == 3600
    assert not network.wait(threading.Event(), -1)
    assert network.clock.seconds() == 3600
