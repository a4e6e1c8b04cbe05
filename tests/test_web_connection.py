"""How many connections the page takes, for how long, and what isn't HTTP."""

from __future__ import annotations

import contextlib
import gzip
import smtplib
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from test_web import Client, token

from labserver import Lab
from labserver.network.loopback import LoopbackNetwork
from labserver.web import connection, server
from labserver.web.server import Page, serve

pytestmark = pytest.mark.process


@pytest.fixture
def lab() -> Iterator[Lab]:
    with contextlib.closing(LoopbackNetwork()) as network, Lab(network=network) as made:
        yield made


@pytest.fixture
def page(lab: Lab) -> Page:
    return serve(lab)


@pytest.fixture
def place(page: Page) -> tuple[str, int]:
    client = Client(page, admitted=False)
    return client.host, client.port


def everything(sock: socket.socket) -> bytes:
    """All that comes until the other side closes, however it does."""
    said = b""
    with contextlib.suppress(ConnectionError):
        while piece := sock.recv(65536):
            said += piece
    return said


def exchange(place: tuple[str, int], octets: bytes) -> bytes:
    with socket.create_connection(place) as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(octets)
        return everything(sock)


def test_connections_are_bounded_and_the_next_is_told(
    lab: Lab, page: Page, place: tuple[str, int]
) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(connection.MOST):
            sock = stack.enter_context(socket.create_connection(place))
            sock.sendall(b"GET / HTTP/1.1\r\n")
        lab.network.settle()
        said = exchange(place, b"")
        assert said.startswith(b"HTTP/1.1 503 ")
        assert said.endswith(
            b"64 connections to this page are open already; close some of its tabs."
        )
    lab.network.settle()
    assert Client(page).get("/").status == 200


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of open files")
def test_silent_connections_take_nothing_from_mail() -> None:
    """A process with few file descriptors, and more silent connections than it has."""
    code = """
import resource, socket, smtplib
from labserver import Lab
from labserver.network.loopback import LoopbackNetwork
from labserver.web.server import serve
with Lab(network=LoopbackNetwork()) as lab:
    page = serve(lab)
    print(page.url, lab.smtp.port, flush=True)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
    input()
    lab.network.close()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        url, smtp = process.stdout.readline().split()
        port = int(url.split(":")[2].partition("/")[0])
        with contextlib.ExitStack() as stack:
            for _ in range(300):
                stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            with smtplib.SMTP("127.0.0.1", int(smtp)) as client:
                assert client.noop()[0] == 250
        assert process.communicate("\n")[1] == ""


@pytest.mark.parametrize("begun", [b"", b"GET", b"GET / HTTP/1.1\r\nHost: x\r\n"])
def test_a_header_has_a_time_limit(lab: Lab, monkeypatch: pytest.MonkeyPatch, begun: bytes) -> None:
    monkeypatch.setattr(connection, "HEADER_SECONDS", 0.05)
    client = Client(serve(lab), admitted=False)
    with socket.create_connection((client.host, client.port)) as sock:
        sock.sendall(begun)
        assert sock.recv(1) == b""


def test_a_body_has_a_time_limit(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_BODY_SECONDS", 0.05)
    page = serve(lab)
    client = Client(page, admitted=False)
    head = f"POST /api/enter HTTP/1.1\r\nHost: {client.host}:{client.port}\r\n"
    with socket.create_connection((client.host, client.port)) as sock:
        sock.sendall(f"{head}Content-Length: 32\r\n\r\nabc".encode())
        assert everything(sock).startswith(b"HTTP/1.1 408 ")


def test_what_a_stranger_posts_is_not_read(page: Page, place: tuple[str, int]) -> None:
    host = "{}:{}".format(*place)
    head = f"POST /api/log HTTP/1.1\r\nHost: {host}\r\nContent-Length: {10**12}\r\n\r\n"
    with socket.create_connection(place) as sock:
        sock.sendall(head.encode())
        said = everything(sock)  # it ends, though the rest was never sent
    assert said.startswith(b"HTTP/1.1 403 ")


POST = b"POST /api/enter HTTP/1.1\r\nHost: {host}\r\n"
MALFORMED = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "SMTP": b"EHLO there\r\nMAIL FROM:<a@b>\r\n\r\n",
    "a method": b"G\x00T / HTTP/1.1\r\n\r\n",
    "a version": b"GET / HTTP/9.x\r\nHost: x\r\n\r\n",
    "a field": b"GET / HTTP/1.1\r\nHost x\r\n\r\n",
    "a field name": b"GET / HTTP/1.1\r\nHo st: x\r\n\r\n",
    "a folded field": b"GET / HTTP/1.1\r\nHost: x\r\n y\r\n z\r\n\r\n",
    "a long line": b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
    "a long field": b"GET / HTTP/1.1\r\nHost: " + b"x" * 100_000 + b"\r\n\r\n",
    "many fields": b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
    "a length": b"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: -1\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "a length and chunks": (
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "chunks": (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nxx\r\n"),
    "a chunk cut": (POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab\r\n0"),
    "a path": b"GET http://[ HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "a path of octets": b"GET /\xff\xfe%zz%00 HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "an expectation": b"POST /api/enter HTTP/1.1\r\nHost: {host}\r\nExpect: a miracle\r\n\r\n",
    "an upgrade": (
        b"GET /api/lab HTTP/1.1\r\nHost: {host}\r\n"
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + b"\x81\x00" * 99
    ),
    "a bomb": (
        b"POST /api/enter HTTP/1.1\r\nHost: {host}\r\nContent-Encoding: gzip\r\nContent-Length: "
        + str(len(gzip.compress(bytes(10**7)))).encode()
        + b"\r\n\r\n"
        + gzip.compress(bytes(10**7))
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_http_is_refused_without_a_word_on_the_terminal(
    place: tuple[str, int],
    name: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    octets = MALFORMED[name].replace(b"{host}", "{}:{}".format(*place).encode())
    with socket.create_connection(place) as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(octets)
            sock.shutdown(socket.SHUT_WR)
        said = everything(sock)
    assert said == b"" or said.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4"))
    assert b"miracle" not in said
    assert b"Traceback" not in said
    assert b"aiohttp" not in said
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("path", ["/", "/api/lab", "/elsewhere"])
def test_an_expectation_that_cannot_be_met_is_not_quoted(place: tuple[str, int], path: str) -> None:
    head = "GET {} HTTP/1.1\r\nHost: {}:{}\r\nExpect: a miracle\r\nConnection: close\r\n\r\n"
    said = exchange(place, head.format(path, *place).encode())
    assert said.startswith(b"HTTP/1.1 417 ")
    assert said.endswith(b"This is no HTTP request that this page can read.")


def test_a_request_after_a_malformed_one_is_answered(page: Page, place: tuple[str, int]) -> None:
    assert exchange(place, b"\x00\r\n\r\n").startswith(b"HTTP/1.")
    client = Client(page)
    assert client.get("/api/lab", Authorization=f"Bearer {token(page)}").status == 200
