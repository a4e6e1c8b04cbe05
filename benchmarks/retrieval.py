"""Reading mail by POP3 and IMAP: this server beside Dovecot, one lean blocking client for both."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks import peers
from benchmarks.pairs import Comparison, run_pair
from benchmarks.peers import READER, Missing, Place, Running

MESSAGES = 1000
OCTETS = 2000

_BODY = b"All work and no play makes a dull line of text, and so on for a while..\r\n"


class Client:
    """Takes what comes and looks at nothing but the end of an answer."""

    def __init__(self, place: Place) -> None:
        self._socket = socket.create_connection(place, 60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.line()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *why: object) -> None:
        self._socket.close()

    def say(self, octets: bytes) -> None:
        self._socket.sendall(octets)

    def line(self) -> bytes:
        """An answer of one line."""
        return self._until(lambda tail: tail.endswith(b"\r\n"))

    def dotted(self) -> bytes:
        """An answer that ends with a dot."""
        return self._until(lambda tail: tail.endswith(b"\r\n.\r\n"))

    def tagged(self, tag: bytes) -> bytes:
        """All up to the line that begins with this tag. Raises `Missing` unless it says OK."""
        answer = self._until(
            lambda tail: tail.endswith(b"\r\n") and _last_line(tail).startswith(tag + b" ")
        )
        if not _last_line(answer[-1024:]).startswith(tag + b" OK"):
            raise Missing(f"it answers {_last_line(answer[-1024:])!r}")
        return answer

    def _until(self, ended: Callable[[bytes], bool]) -> bytes:
        pieces, tail = [], b""
        while True:
            piece = self._socket.recv(256 * 1024)
            if not piece:
                raise Missing(f"it hangs up after {tail[-80:]!r}")
            pieces.append(piece)
            tail = piece if len(piece) >= 512 else (tail + piece)[-1024:]
            if ended(tail):
                return b"".join(pieces)


def _last_line(octets: bytes) -> bytes:
    return octets[octets.rfind(b"\r\n", 0, -2) + 2 :] if b"\r\n" in octets[:-2] else octets


def imap(place: Place) -> Client:
    """A client that has logged in."""
    client = Client(place)
    client.say(f"a LOGIN {READER} {READER}\r\n".encode())
    client.tagged(b"a")
    return client


def pop3(place: Place) -> Client:
    """A client that has logged in."""
    client = Client(place)
    for command in (f"USER {READER}\r\n", f"PASS {READER}\r\n"):
        client.say(command.encode())
        if not (answer := client.line()).startswith(b"+OK"):
            raise Missing(f"it answers {answer!r}")
    return client


def fill(place: Place, messages: int) -> None:
    """Put messages into the reader's INBOX."""
    with imap(place) as client:
        for number in range(messages):
            octets = message(number)
            client.say(b"f APPEND INBOX {%d+}\r\n" % len(octets) + octets + b"\r\n")
            client.tagged(b"f")


def message(number: int) -> bytes:
    """A message of `OCTETS` octets."""
    head = (
        f"From: Eve <eve@far.example>\r\nTo: <{READER}>\r\nSubject: number {number}\r\n"
        f"Message-ID: <{number}@far.example>\r\nDate: Mon, 05 Jan 2026 12:00:00 +0000\r\n\r\n"
    ).encode()
    return head + (_BODY * (OCTETS // len(_BODY) + 1))[: OCTETS - len(head) - 2] + b"\r\n"


# --- ways of reading, each in messages per second, the login not counted ------------------------


def by_pop3(server: Running) -> float:
    with pop3(server.places["pop3"]) as client:
        client.say(b"STAT\r\n")
        count = int(client.line().split()[1])
        began = time.perf_counter()
        for number in range(1, count + 1):
            client.say(b"RETR %d\r\n" % number)
            client.dotted()
        took = time.perf_counter() - began
        client.say(b"QUIT\r\n")
        client.line()
    return count / took


def by_imap(server: Running, *, at_once: bool) -> float:
    with imap(server.places["imap"]) as client:
        client.say(b"b SELECT INBOX\r\n")
        count = exists(client.tagged(b"b"))
        began = time.perf_counter()
        if at_once:
            client.say(b"c FETCH 1:* (BODY.PEEK[])\r\n")
            told = client.tagged(b"c").count(b" FETCH (")
            if told != count:
                raise Missing(f"it hands out {told} of {count} messages")
        else:
            for number in range(1, count + 1):
                client.say(b"c FETCH %d (BODY.PEEK[])\r\n" % number)
                client.tagged(b"c")
        return count / (time.perf_counter() - began)


def exists(answer: bytes) -> int:
    """How many messages SELECT says there are."""
    lines = answer.split(b"\r\n")
    return next(int(line.split()[1]) for line in lines if line.endswith(b" EXISTS"))


WAYS: dict[str, Callable[[Running], float]] = {
    "POP3 RETR, one by one": by_pop3,
    "IMAP FETCH, one by one": partial(by_imap, at_once=False),
    "IMAP FETCH, all in one command": partial(by_imap, at_once=True),
}


def compare(
    folder: Path, *, pairs: int, progress: Callable[[str], None], messages: int = MESSAGES
) -> list[Comparison]:
    """Read the same messages from the lab and from Dovecot, in pairs of runs. Raises `Missing`."""
    found = []
    with ExitStack() as stack:
        theirs = stack.enter_context(peers.started(peers.dovecot(), folder / "dovecot"))
        ours = stack.enter_context(peers.started(peers.lab(), folder / "lab"))
        for server in (ours, theirs):
            progress(f"filling {server.peer.name}")
            fill(server.places["imap"], messages)
        for way, rate in WAYS.items():
            measured = []
            for turn in range(-1, pairs):  # the first pair only warms up
                progress(f"{way}: pair {turn + 1} of {pairs}")
                pair = run_pair(turn, partial(rate, ours), partial(rate, theirs))
                measured += [pair] if turn >= 0 else []
            found.append(Comparison(way, theirs.peer.name, tuple(measured)))
    return found
