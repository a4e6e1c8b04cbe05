"""A connection that is cut, wherever it is, leaves nothing behind: no half message, no lock, no
task, no thread, no open file.

Each script is played up to each of its rows and cut there; the table below says which scripts
there are. `S+` reads until a line begins with its words, `-- half TLS` sends the beginning of a
handshake, all else is as in `dialogue.py`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import poplib
import socket
import struct
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from dialogue import Client, _step

from labserver import Lab
from labserver.network.loopback import LoopbackNetwork

ANA, BEN, BENS_PASSWORD = "ana@lab.example", "ben@lab.example", "ben-lab-password"
LOGIN = base64.b64encode(b"\0ana@lab.example\0ana-lab-password").decode()
BENS_LOGIN = base64.b64encode(b"\0ben@lab.example\0ben-lab-password").decode()
KEPT = [b"Subject: %d\r\n\r\nkept\r\n" % number for number in range(3)]
LARGE = b"Subject: large\r\n\r\n" + b"a line of a large message\r\n" * 40_000
SENT = b"Subject: sent\r\n\r\nsent\r\n"
HELLO = bytes.fromhex("16030100c8010000c40303")
"""The beginning of a TLS handshake that announces more than there is."""
SETTLE_SECONDS = 10.0

TO_BEN = """
    S: 220 ...
    C: EHLO client.example
    S+ 250
    C: MAIL FROM:<ana@lab.example>
    S: 250 ...
    C: RCPT TO:<ben@lab.example>
    S: 250 ...
"""

SCRIPTS: dict[str, tuple[str, str]] = {
    "SMTP": (
        "smtp",
        TO_BEN
        + r"""
        C: RCPT TO:<ana@lab.example>
        S: 250 ...
        C: DATA
        S: 354 ...
        C! Subject: se
        C! nt\r\n\r
        C! \nsent\r\n
        C! .
        C! \r
        C! \n
        S: 250 2.0.0 Stored ...
        C: RSET
        C: QUIT
        S+ 221
        """,
    ),
    "SMTP, HELO": (
        "smtp",
        r"""
        S: 220 ...
        C! HE
        C! LO client.example\r\n
        S: 250 ...
        C: MAIL FROM:<>
        """,
    ),
    "SMTP, pipelined": (
        "smtp",
        r"""
        S: 220 ...
        C: EHLO client.example
        C! MAIL FROM:<ana@lab.example>\r\nRCPT TO:<ben@lab.example>\r\nDATA\r\n
        C! Subject: sent\r\n\r\nsent\r\n.\r\nMAIL FROM:<ana@lab.example>\r\nRCPT TO:<ben@lab
        C! .example>\r\nDATA\r\nSubject: sent\r\n\r\nsent\r\n.\r\n
        """,
    ),
    "SMTP, BDAT": (
        "smtp",
        TO_BEN
        + r"""
        C: BDAT 15
        C! Subject:
        C!  sent\r\n
        S: 250 ...
        C: BDAT 2
        C! \r\n
        C: BDAT 6 LAST
        C! sent\r
        C! \n
        S+ 250 2.0.0 Stored
        """,
    ),
    "STARTTLS": (
        "submission",
        r"""
        S: 220 ...
        C: EHLO client.example
        S+ 250
        C: STARTTLS
        S: 220 ...
        -- TLS
        C: EHLO client.example
        S+ 250
        C: AUTH PLAIN
        S: 334 ...
        C! AGFuYUBsYWIuZXhhbXBsZ
        C! QBhbmEtbGFiLXBhc3N3b3Jk\r\n
        S: 235 ...
        C: MAIL FROM:<ana@lab.example>
        C: RCPT TO:<ben@lab.example>
        C: DATA
        S+ 354
        C! Subject: sent\r\n\r\n
        C! sent\r\n.\r\n
        S: 250 ...
        """,
    ),
    "STARTTLS, in mid-handshake": (
        "submission",
        r"""
        S: 220 ...
        C: EHLO client.example
        S+ 250
        C: STARTTLS
        -- half TLS
        """,
    ),
    "AUTH LOGIN": (
        "submission",
        r"""
        S: 220 ...
        C: STARTTLS
        S+ 220
        -- TLS
        C: EHLO client.example
        S+ 250
        C: AUTH LOGIN
        S: 334 ...
        C: YW5hQGxhYi5leGFtcGxl
        S: 334 ...
        C: d3Jvbmc=
        """,
    ),
    "SMTP under TLS": (
        "submissions",
        r"""
        -- TLS
        S: 220 ...
        C: EHLO client.example
        S+ 250
        C: AUTH PLAIN """
        + LOGIN
        + r"""
        S: 235 ...
        """,
    ),
    "TLS in mid-handshake": ("submissions", "-- half TLS"),
    "POP3": (
        "pop3",
        r"""
        S: +OK ...
        C: CAPA
        S+ .
        C: USER ben@lab.example
        S: +OK ...
        C! PASS ben-lab-
        C! password\r\n
        S: +OK ...
        C: STAT
        S: +OK 4 ...
        C: LIST
        S+ .
        C: DELE 1
        S: +OK ...
        C: DELE 3
        S: +OK ...
        C: RSET
        S: +OK ...
        C: DELE 2
        S: +OK ...
        C: TOP 1 0
        S+ .
        C: RETR 1
        S: +OK ...
        C! QUI
        C! T\r\n
        S+ +OK
        """,
    ),
    "POP3, reply not read": (
        "pop3",
        r"""
        C: USER ben@lab.example
        C: PASS ben-lab-password
        S+ +OK maildrop
        C: DELE 1
        C: RETR 4
        C! RETR 4\r\nRETR 4\r\nRETR 4\r\nRETR 4\r\nRETR 4\r\nRETR 4\r\nRETR 4\r\nQUIT\r\n
        """,
    ),
    "POP3, AUTH and STLS": (
        "pop3",
        r"""
        S: +OK ...
        C: AUTH PLAIN
        S: + ...
        C: *
        S: -ERR ...
        C: STLS
        S: +OK ...
        -- TLS
        C: AUTH PLAIN """
        + BENS_LOGIN
        + r"""
        S: +OK ...
        C: DELE 1
        S: +OK ...
        """,
    ),
    "POP3, STLS in mid-handshake": (
        "pop3",
        r"""
        S: +OK ...
        C: STLS
        S: +OK ...
        -- half TLS
        """,
    ),
    "POP3, wrong password": (
        "pop3",
        r"""
        C: USER ben@lab.example
        C: PASS wrong
        """,
    ),
    "POP3 under TLS": (
        "pop3s",
        r"""
        -- TLS
        S: +OK ...
        C: USER ben@lab.example
        C: PASS ben-lab-password
        C: DELE 1
        C: QUIT
        S+ +OK lab.example
        """,
    ),
    "POP3, TLS in mid-handshake": ("pop3s", "-- half TLS"),
    "IMAP": (
        "imap",
        r"""
        S: * OK ...
        C: 1 CAPABILITY
        S+ 1 OK
        C: 2 LOGIN {15}
        S: + ...
        C! ben@lab
        C! .example {16}\r\n
        S: + ...
        C! ben-lab-password
        C! \r\n
        S+ 2 OK
        C: 3 LIST "" *
        S+ 3 OK
        C: 4 SELECT INBOX
        S+ 4 OK
        C: 5 STORE 1 +FLAGS (\Deleted)
        S+ 5 OK
        C: 6 COPY 1:2 INBOX
        S+ 6 OK
        C: 7 CREATE Work
        S+ 7 OK
        C: 8 MOVE 2 Work
        S+ 8 OK
        C: 9 EXPUNGE
        S+ 9 OK
        C: 10 SEARCH BODY kept
        S+ 10 OK
        C: 11 CLOSE
        C: 12 LOGOUT
        S+ 12 OK
        """,
    ),
    "IMAP, APPEND": (
        "imap",
        r"""
        C: 1 LOGIN ben@lab.example ben-lab-password
        S+ 1 OK
        C: 2 APPEND INBOX (\Seen) {23}
        S: + ...
        C! Subject: se
        C! nt\r\n\r\nsent\r\n
        C! \r
        C! \n
        S+ 2 OK
        C! 3 APPEND INBOX {23+}\r\nSubject: sent\r\n\r\nsent\r
        C! \n\r\n
        C: 4 APPEND Nowhere {23+}
        C! Subject: sent
        """,
    ),
    "IMAP, reply not read": (
        "imap",
        r"""
        C: 1 LOGIN ben@lab.example ben-lab-password
        S+ 1 OK
        C: 2 SELECT INBOX
        S+ 2 OK
        C: 3 FETCH 4 BODY.PEEK[]
        C! 4 FETCH 4 BODY.PEEK[]\r\n4 FETCH 4 BODY.PEEK[]\r\n4 FETCH 4 BODY.PEEK[]\r\n
        C! 5 FETCH 4 BODY.PEEK[]\r\n5 FETCH 4 BODY.PEEK[]\r\n5 FETCH 4 BODY.PEEK[]\r\n
        C: 6 STORE 4 +FLAGS (\Deleted)
        C: 7 EXPUNGE
        """,
    ),
    "IMAP, IDLE": (
        "imap",
        r"""
        C: 1 LOGIN ben@lab.example ben-lab-password
        S+ 1 OK
        C: 2 SELECT INBOX
        S+ 2 OK
        C: 3 IDLE
        S: + ...
        C! DO
        C! NE\r\n
        S+ 3 OK
        C: 4 IDLE
        S: + ...
        """,
    ),
    "IMAP, STARTTLS and AUTHENTICATE": (
        "imap",
        r"""
        S: * OK ...
        C: 1 AUTHENTICATE PLAIN
        S: + ...
        C: *
        S: 1 BAD ...
        C: 3 STARTTLS
        S: 3 OK ...
        -- TLS
        C: 4 AUTHENTICATE PLAIN
        S: + ...
        C! AGJlbkBsYWIu
        C! ZXhhbXBsZQBiZW4tbGFiLXBhc3N3b3Jk\r\n
        S+ 4 OK
        """,
    ),
    "IMAP, wrong password": ("imap", "C: 1 LOGIN ben@lab.example wrong"),
    "IMAP, STARTTLS in mid-handshake": (
        "imap",
        r"""
        S: * OK ...
        C: 1 STARTTLS
        S: 1 OK ...
        -- half TLS
        """,
    ),
    "IMAP under TLS": (
        "imaps",
        r"""
        -- TLS
        S: * OK ...
        C: 1 LOGIN ben@lab.example ben-lab-password
        S+ 1 OK
        C: 2 SELECT INBOX
        S+ 2 OK
        C: 3 FETCH 4 BODY.PEEK[]
        """,
    ),
    "IMAP, TLS in mid-handshake": ("imaps", "-- half TLS"),
}


class Cuttable(Client):
    """A client whose connection is cut in the one way or the other."""

    def __init__(self, lab: Lab, listener: str) -> None:
        self._lab = lab
        self._sock: Any = lab.network.connect(lab.address(listener), timeout=10)
        self._file = self._sock.makefile("rb")
        # Else the second of two small pieces waits until the first is acknowledged.
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def step(self, row: str) -> None:
        if row == "-- half TLS":
            self.send(HELLO)
        elif row.startswith("S+ "):
            while not (self.line().rstrip() + b" ").startswith(row[3:].encode() + b" "):
                pass
        else:
            _step(self, row)

    def line(self) -> bytes:
        line = super().line()
        assert line, "the server closed the connection"
        return line

    def cut(self, way: str) -> None:
        if way == "reset":
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif is_loopback(self._lab):
            # Closed at once, with a reply unread, it would be a reset.
            self._sock.shutdown(socket.SHUT_WR)
            come_to_rest(self._lab)
        self.close()


State = list[tuple[str, str, list[str], bytes]]


def state(lab: Lab) -> State:
    """All mail: account, mailbox, flags and what was sent, without what the lab put before it."""
    store = lab._store

    def read() -> State:
        return sorted(
            (account, box.name, sorted(row.flags), octets[octets.index(b"Subject:") :])
            for account in lab.accounts
            for box in store.mailboxes(account)
            for row in store.messages(box.id)
            for octets in [store.octets(row.content)]
        )

    return lab.network.run(read)


def restore(lab: Lab) -> None:
    """The mail with which every script begins."""
    store = lab._store

    def write() -> None:
        with store.transaction():
            for account in lab.accounts:
                for box in store.mailboxes(account):
                    store.delete_mailbox(box.id)
            inbox = store.ensure_mailbox(BEN, "INBOX").id
            for octets in (*KEPT, LARGE):
                store.append(inbox, octets, datetime(2026, 1, 5, tzinfo=UTC), frozenset())

    lab.network.run(write)


def left_open(lab: Lab) -> dict[str, int]:
    """How much there is of what a connection could leave behind."""
    loop: Any = lab.network._engine.loop if is_loopback(lab) else lab.network.loop  # type: ignore[attr-defined]

    def count() -> dict[str, int]:
        return {
            "tasks": len(asyncio.all_tasks(loop)),
            "timers": sum(not timer.cancelled() for timer in loop._scheduled),
            "watchers": len(lab._store._watchers),
        }

    return lab.network.run(count) | {"threads": threading.active_count(), "files": open_files()}


def open_files() -> int:
    """Files and sockets of this process, where the system tells; without SQLite's own scratch."""
    count = 0
    for path in Path("/proc/self/fd").glob("*"):
        with contextlib.suppress(OSError):
            count += "etilqs" not in os.readlink(path)
    return count


def is_loopback(lab: Lab) -> bool:
    return isinstance(lab.network, LoopbackNetwork)


def come_to_rest(lab: Lab) -> None:
    """Let the servers do all they can do now."""
    for _ in range(3):
        lab.network.settle()


def eventually(lab: Lab, seen: Callable[[], object], wanted: object) -> None:
    """Let the servers come to rest until what is seen is what is wanted."""
    until = time.monotonic() + SETTLE_SECONDS
    while seen() != wanted and time.monotonic() < until:
        lab.network.settle()
    assert seen() == wanted


def log_in_by_pop3(lab: Lab) -> None:
    """The maildrop isn't locked, and there is an answer."""
    client = poplib.POP3(*lab.pop3)
    client.user(BEN)
    client.pass_(BENS_PASSWORD)
    client.quit()


def open_client(lab: Lab, listener: str, rows: list[str]) -> Cuttable:
    client = Cuttable(lab, listener)
    try:
        for row in rows:
            client.step(row)
    except BaseException:
        client.close()
        raise
    return client


@pytest.mark.long
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_cut_leaves_nothing_behind(lab: Lab, name: str) -> None:
    listener, script = SCRIPTS[name]
    rows = [row for row in map(str.strip, script.splitlines()) if row]
    # What reaches the disk is not what is looked at here.
    lab.network.run(lambda: lab._store._db.execute("PRAGMA synchronous=OFF"))
    restore(lab)
    states = [state(lab)]
    with contextlib.closing(Cuttable(lab, listener)) as client:
        for row in rows:
            client.step(row)
            come_to_rest(lab)
            states.append(state(lab))
    assert all(octets in (*KEPT, LARGE, SENT) for there in states for *_, octets in there)
    log_in_by_pop3(lab)
    eventually(lab, lambda: all(session.closed for session in lab.sessions), True)
    usual = left_open(lab)

    # Without sockets there is one way only.
    for way in ("close", "reset") if is_loopback(lab) else ("close",):
        for number in range(len(rows) + 1):
            if state(lab) != states[0]:
                restore(lab)
            open_client(lab, listener, rows[:number]).cut(way)
            eventually(lab, lambda: lab.sessions[-1].closed, True)
            eventually(lab, lambda: left_open(lab), usual)
            # Of what was under way when a reset came the last may have been read or not.
            possible = states[number:][:1] if way == "close" else states[: number + 1]
            assert state(lab) in possible, f"{way} after {rows[:number][-1:]}"
            log_in_by_pop3(lab)
            eventually(lab, lambda: lab.sessions[-1].closed, True)
