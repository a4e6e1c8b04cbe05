"""The loopback network: real TCP on 127.0.0.1, in one thread, and on no other address."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import smtplib
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from labserver import Lab, NetworkError, Session
from labserver.network.connection import Connection
from labserver.network.loopback import LoopbackNetwork

pytestmark = [pytest.mark.protocol, pytest.mark.process]

MAIL = ("ana@lab.example", "ben@lab.example", b"Subject: Hello\r\n\r\nHi Ben\r\n")


@pytest.fixture
def network() -> Iterator[LoopbackNetwork]:
    made = LoopbackNetwork()
    yield made
    made.close()


@pytest.fixture
def lab(network: LoopbackNetwork) -> Iterator[Lab]:
    with Lab(network=network) as made:
        yield made


def send(lab: Lab) -> None:
    with smtplib.SMTP(*lab.smtp) as client:
        client.sendmail(*MAIL)


# -- nothing leaves the machine

WHOLE_ROUND = """
    import imaplib, json, os, poplib, smtplib, socket, sys

    seen = []

    def note(event, args):
        if event in ("socket.bind", "socket.connect", "socket.sendto", "socket.sendmsg"):
            seen.append([event, args[1]])
        elif event.startswith("socket.") and event != "socket.__new__":
            seen.append([event, args])

    sys.addaudithook(note)

    from labserver import Lab

    def listening():
        "Addresses at which this process listens, as /proc/net has them; `None` without /proc."
        if not os.path.exists("/proc/net/tcp"):
            return None
        own = set()
        for number in os.listdir("/proc/self/fd"):
            try:
                own.add(os.readlink(f"/proc/self/fd/{number}"))
            except OSError:
                pass
        found = []
        for table in ("tcp", "tcp6", "udp", "udp6"):
            try:
                rows = open(f"/proc/net/{table}").read().splitlines()[1:]
            except FileNotFoundError:
                continue
            for row in rows:
                words = row.split()
                if f"socket:[{words[9]}]" in own and (words[3] == "0A" or "udp" in table):
                    found.append([table, *words[1].split(":")])
        return found

    lab = Lab()
    found = listening()
    who = ("ana@lab.example", lab.accounts["ana@lab.example"])
    mail = ("ana@lab.example", "ana@lab.example", "Subject: Hello")
    with smtplib.SMTP(*lab.smtp) as client:
        client.sendmail(*mail)
    with smtplib.SMTP(*lab.submission) as client:
        client.starttls(context=lab.tls)
        client.login(*who)
        client.sendmail(*mail)
    with smtplib.SMTP_SSL(*lab.submissions, context=lab.tls) as client:
        client.login(*who)
        client.sendmail(*mail)
        try:
            client.sendmail(who[0], "zoe@else.example", "Subject: Hello")
        except smtplib.SMTPRecipientsRefused:
            pass
    for client in (poplib.POP3(*lab.pop3), poplib.POP3_SSL(*lab.pop3s, context=lab.tls)):
        client.user(who[0])
        client.pass_(who[1])
        assert client.stat()[0] == 3
        client.quit()
    for client in (imaplib.IMAP4(*lab.imap), imaplib.IMAP4_SSL(*lab.imaps, ssl_context=lab.tls)):
        client.login(*who)
        assert client.select()[1] == [b"3"]
        client.logout()
    ports = [address.port for address in lab.listeners.values()]
    assert len(lab.sessions) == 7
    lab.close()
    print(json.dumps({"seen": seen, "listening": found, "ports": ports}))
"""


def test_a_lab_opens_no_socket_but_on_loopback() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WHOLE_ROUND)],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "LABSERVER_NETWORK": "loopback"},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    noted = json.loads(done.stdout)
    binds = [address for event, address in noted["seen"] if event == "socket.bind"]
    connects = [address for event, address in noted["seen"] if event == "socket.connect"]
    assert [address[0] for address in binds].count("127.0.0.1") >= 7
    assert sorted({address[1] for address in connects}) == sorted(noted["ports"])
    assert {address[0] for address in binds + connects} == {"127.0.0.1"}
    # Whatever else is asked of the system tells of this machine only.
    asked = {str(event) for event, _ in noted["seen"]} - {"socket.bind", "socket.connect"}
    own_name = {"socket.gethostname", "socket.gethostbyname", "socket.gethostbyaddr"}
    assert asked <= {"socket.getaddrinfo"} | own_name  # smtplib introduces itself
    names = {args[0] for event, args in noted["seen"] if event == "socket.getaddrinfo"}
    assert names == {"127.0.0.1"}
    if noted["listening"] is not None:
        here = "0100007F" if sys.byteorder == "little" else "7F000001"
        assert sorted((table, host) for table, host, _ in noted["listening"]) == [("tcp", here)] * 7
        assert sorted(int(port, 16) for *_, port in noted["listening"]) == sorted(noted["ports"])


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere 127.0.0.2 is no address")
def test_the_next_address_finds_nobody(lab: Lab) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", lab.smtp.port), timeout=5)


# -- ports


def test_no_reply_waits_for_an_acknowledgement(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    made = Connection.connection_made

    def noted(connection: Connection, transport: asyncio.Transport) -> None:
        sock = transport.get_extra_info("socket")
        told.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        made(connection, transport)

    monkeypatch.setattr(Connection, "connection_made", noted)
    send(lab)
    assert len(told) == 1
    assert told[0]


def test_any_free_port_is_real(lab: Lab) -> None:
    for address in lab.listeners.values():
        with pytest.raises(OSError, match="in use"), socket.socket() as sock:
            sock.bind(address)
        socket.create_connection(address, timeout=5).close()


def test_a_port_in_use_is_refused_in_one_sentence(network: LoopbackNetwork) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(NetworkError, match=rf"\APort {port} \(smtp\) is in use .*\.\Z"):
            Lab(network=network, ports={"smtp": port})
    with Lab(network=network, ports={"smtp": port}) as lab:
        assert lab.smtp == ("127.0.0.1", port)
        send(lab)


def test_one_port_for_two_listeners_is_in_use(network: LoopbackNetwork) -> None:
    with Lab(network=network) as free:
        port = free.smtp.port
    with pytest.raises(NetworkError, match=rf"\APort {port} \(pop3\) is in use .*\.\Z"):
        Lab(network=network, ports={"smtp": port, "pop3": port})
    with Lab(network=network, ports={"smtp": port}) as lab:
        send(lab)


LOW_PORT = """
from labserver import Lab, NetworkError
try:
    Lab(ports={"smtp": 25}).close()
except NetworkError as error:
    print(error)
else:
    print("taken")
"""


def test_a_port_that_only_root_may_take_is_refused_in_one_sentence() -> None:
    first_free = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    # Root gives up just this one right, where the system has a program for that.
    humble = ["setpriv", "--bounding-set", "-net_bind_service"] if shutil.which("setpriv") else []
    done = subprocess.run(
        [*(humble if root else []), sys.executable, "-c", LOW_PORT],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"LABSERVER_NETWORK": "loopback"},
    )
    assert done.stderr == ""
    allowed = not first_free.exists() or int(first_free.read_text("ascii")) <= 25
    if allowed or (root and not humble):
        assert re.fullmatch(r"taken|Port 25 \(smtp\) is in use .*\.", done.stdout.strip())
    else:
        assert re.fullmatch(r"Port 25 \(smtp\) is not allowed .*\.", done.stdout.strip())


# -- threads


def test_many_threads_send_at_once(lab: Lab) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(send, [lab] * 80))
    assert len(lab.inbox("ben@lab.example")) == 80
    sessions = lab.sessions
    assert len(sessions) == 80
    assert all(session.closed and session.ending == "" for session in sessions)


def test_it_runs_in_one_thread_that_ends_with_it() -> None:
    before = set(threading.enumerate())
    network = LoopbackNetwork()
    (thread,) = set(threading.enumerate()) - before
    assert (thread.name, thread.daemon) == ("labserver", True)
    assert network.run(threading.current_thread) is thread
    network.close()
    assert not thread.is_alive()
    network.close()


def test_what_a_function_returns_or_raises_comes_back(network: LoopbackNetwork) -> None:
    def fail(error: BaseException) -> None:
        raise error

    assert network.run(lambda: 5) == 5
    for kind in (LookupError, TimeoutError, NetworkError):
        with pytest.raises(kind, match="mine"):
            network.run(lambda kind=kind: fail(kind("mine")))  # type: ignore[misc]
    assert network.run(lambda: network.run(lambda: 6)) == 6


def test_a_listener_may_ask_for_sessions_and_mail_itself(lab: Lab) -> None:
    seen: list[tuple[Session, int, int]] = []

    def heard(session: Session) -> None:
        seen.append((session, len(lab.sessions), len(lab.inbox("ben@lab.example"))))

    lab.on_session(heard)
    send(lab)
    send(lab)
    assert [one[1:] for one in seen if one[0] in lab.sessions] == [(1, 1), (2, 2)]


def test_a_lab_can_be_closed_from_its_own_thread() -> None:
    network = LoopbackNetwork()
    lab = Lab(network=network)
    network.run(lab.close)
    network.run(network.close)
    network.close()
    assert not network._engine.thread.is_alive()


def test_a_closed_network_says_so() -> None:
    network = LoopbackNetwork()
    network.close()
    with pytest.raises(NetworkError, match="closed; make a new lab"):
        network.run(str)
    with pytest.raises(NetworkError, match="closed; make a new lab"):
        Lab(network=network)


def test_nobody_waits_for_ever_when_another_thread_closes_the_network() -> None:
    network = LoopbackNetwork()
    lab = Lab(network=network)
    asked, raised = threading.Event(), []

    def ask() -> None:
        try:
            while True:
                network.settle()
                asked.set()
        except NetworkError as error:
            raised.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    asked.wait()
    network.close()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert len(raised) == 4
    lab.close()


def test_connections_that_are_just_being_made_end_too(network: LoopbackNetwork) -> None:
    for _ in range(20):
        lab = Lab(network=network)
        socks = [network.connect(address) for address in lab.listeners.values()]
        lab.close()
        for sock in socks:
            # Whatever the server had said already: then comes the end.
            with contextlib.suppress(ConnectionError):
                while sock.recv(4096):
                    pass
            sock.close()
    assert not network._engine.listeners


def test_closing_ends_open_connections(network: LoopbackNetwork) -> None:
    lab = Lab(network=network)
    client = smtplib.SMTP(*lab.smtp)
    lab.close()
    with pytest.raises(smtplib.SMTPServerDisconnected):
        client.noop()
    client.close()
    assert lab.sessions[-1].closed
    assert lab.sessions[-1].ending == "the server closed the connection"


def test_a_class_may_connect_in_the_same_moment(network: LoopbackNetwork, lab: Lab) -> None:
    go_on = threading.Event()
    busy = threading.Thread(target=network.run, args=(go_on.wait,))
    busy.start()
    try:
        with contextlib.ExitStack() as stack:
            # More than the queue that Python gives a socket by itself; nobody accepts meanwhile.
            connected = [
                stack.enter_context(socket.create_connection(lab.smtp, timeout=5))
                for _ in range(300)
            ]
            go_on.set()
            assert all(one.recv(100).startswith(b"220 ") for one in connected)
    finally:
        go_on.set()
        busy.join()
