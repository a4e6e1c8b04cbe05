"""Every connection becomes a session, complete the moment the client has gone."""

from __future__ import annotations

import contextlib
import gc
import re
import smtplib
import socket
import ssl
import struct
import threading
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import pytest

from labserver import LISTENERS, Host, Lab, Limits, Session
from labserver.dialogue import Bounds
from labserver.network import Network, recorder
from labserver.network.clock import Clock
from labserver.network.inline import InlineNetwork
from labserver.network.loopback import LoopbackNetwork
from labserver.network.recorder import Journal, Recorder
from labserver.transcript import MASK
from tests.dialogue import Client, play

pytestmark = pytest.mark.protocol

PLAIN = ("smtp", "submission", "pop3", "imap")
UNDER_TLS = ("submissions", "pop3s", "imaps")
TLS_TYPES = {20: "change cipher spec", 21: "alert", 22: "handshake", 23: "application data"}
MAIL = (
    b"HELO client.example",
    b"MAIL FROM:<ana@lab.example>",
    b"RCPT TO:<ben@lab.example>",
    b"DATA",
    b"Subject: Hello\r\n\r\nHi Ben\r\n.",
    b"QUIT",
)
WITHOUT_A_WORD = "the client went away without a word"
BROKE_OFF = "the client broke off the TLS handshake"


class TlsClient:
    """A TLS client that keeps every octet it sends and receives below TLS."""

    def __init__(self, sock: Any, context: ssl.SSLContext) -> None:
        self.sock, self.sent, self.received = sock, b"", b""
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname="localhost")
        self._do(self._tls.do_handshake)

    def _flush(self) -> None:
        octets = self._out.read()
        if octets:
            self.sent += octets
            self.sock.sendall(octets)

    def _do(self, work: Callable[..., Any], *arguments: Any) -> Any:
        while True:
            try:
                return work(*arguments)
            except ssl.SSLWantReadError:
                self._flush()
                octets = self.sock.recv(65536)
                self.received += octets
                self._in.write(octets) if octets else self._in.write_eof()
            finally:
                self._flush()

    def send(self, octets: bytes) -> None:
        self._do(self._tls.write, octets)

    def read(self) -> bytes:
        try:
            octets: bytes = self._do(self._tls.read, 65536)
        except ssl.SSLError:
            return b""
        return octets


def tls_records(octets: bytes) -> list[tuple[str, int]]:
    """Type and length of each TLS record in what one side sent (RFC 8446 section 5.1)."""
    records = []
    while octets:
        kind, _, length = struct.unpack(">BHH", octets[:5])
        records.append((TLS_TYPES[kind], 5 + length))
        octets = octets[5 + length :]
    return records


def plain(session: Session, who: str) -> bytes:
    return b"".join(one.data for one in session.records if one.who == who)


# -- what crossed the wire


def test_plain_records_are_what_the_client_sent_and_received(lab: Lab) -> None:
    sock = lab.network.connect(lab.smtp)
    received = sock.recv(4096)
    sent = b""
    for row in MAIL:
        sock.sendall(row + b"\r\n")
        sent += row + b"\r\n"
        received += sock.recv(4096)
    while octets := sock.recv(4096):
        received += octets
    sock.close()
    session = lab.sessions[-1]
    assert (plain(session, "C"), plain(session, "S")) == (sent, received)
    assert (session.octets("C"), session.octets("S")) == (len(sent), len(received))
    assert session.octets() == len(sent) + len(received)
    assert {record.type for record in session.records} == {"plain"}
    # However it was cut into packets: one record a turn.
    assert all(len(list(turn)) == 1 for _, turn in groupby(one.who for one in session.records))
    assert session.round_trips == len(MAIL)


@pytest.mark.parametrize("listener", UNDER_TLS)
def test_tls_records_are_what_crossed_the_wire(lab: Lab, listener: str) -> None:
    client = TlsClient(lab.network.connect(lab.address(listener)), lab.tls)
    assert client.read()
    client.send(b"a1 LOGOUT\r\n" if listener == "imaps" else b"QUIT\r\n")
    while client.read():
        pass
    client.sock.close()
    session = lab.sessions[-1]
    for who, octets in (("C", client.sent), ("S", client.received)):
        noted = [(one.type, one.octets) for one in session.records if one.who == who]
        assert noted == tls_records(octets)
    assert not any(record.data for record in session.records)
    assert session.tls == "TLSv1.3"
    assert session.ending == ""


@pytest.mark.parametrize("listener", ["smtp", "pop3", "imap"])
def test_records_go_from_plain_to_tls_at_starttls(lab: Lab, listener: str) -> None:
    word = {"smtp": b"STARTTLS\r\n", "pop3": b"STLS\r\n", "imap": b"a1 STARTTLS\r\n"}[listener]
    sock = lab.network.connect(lab.address(listener))
    greeting = sock.recv(4096)
    sock.sendall(word)
    ready = sock.recv(4096)
    client = TlsClient(sock, lab.tls)
    client.send(b"a2 LOGOUT\r\n" if listener == "imap" else b"QUIT\r\n")
    while client.read():
        pass
    sock.close()
    session = lab.sessions[-1]
    first = session.records[:3]
    assert [one.type for one in first] == ["plain"] * 3
    assert b"".join(one.data for one in first) == greeting + word + ready
    assert [line.tls for line in session.lines][:3] == [False] * 3
    assert all(line.tls for line in session.lines[3:])
    for who, octets in (("C", client.sent), ("S", client.received)):
        noted = [(one.type, one.octets) for one in session.records[3:] if one.who == who]
        assert noted == tls_records(octets)


class Proxy:
    """A TCP proxy for one connection that counts the octets it carries."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.counted = {"C": 0, "S": 0}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self._target = target
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with self._listener, socket.create_connection(self._target) as server:
            client, _ = self._listener.accept()
            with client:
                back = threading.Thread(target=self._carry, args=("S", server, client))
                back.start()
                self._carry("C", client, server)
                back.join()

    def _carry(self, who: str, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):  # one end has gone
            while octets := source.recv(65536):
                self.counted[who] += len(octets)
                target.sendall(octets)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)  # else the other one waits for it

    def join(self) -> None:
        self._thread.join()


@pytest.mark.process
def test_octets_are_those_a_proxy_on_the_path_counts() -> None:
    network = LoopbackNetwork()
    with Lab(network=network) as lab:
        proxy = Proxy(lab.submissions)
        with smtplib.SMTP_SSL("localhost", proxy.address[1], context=lab.tls) as client:
            client.login("ana@lab.example", lab.accounts["ana@lab.example"])
            body = "Hi Ben\r\n" * 20_000
            client.sendmail("ana@lab.example", "ben@lab.example", f"Subject: Hello\r\n\r\n{body}")
        proxy.join()
        session = lab.sessions[-1]
        assert {who: session.octets(who) for who in ("C", "S")} == proxy.counted
        assert proxy.counted["C"] > len(body)
        assert session.ending == ""
    network.close()


# -- how a session can end


@pytest.mark.parametrize("listener", PLAIN)
@pytest.mark.parametrize("said", [b"", b"NOO", b"\r\n", b"\xff\x00\xff", b"x" * 9_000])
def test_a_client_that_goes_away_without_taking_leave(lab: Lab, listener: str, said: bytes) -> None:
    heard: list[Session] = []
    lab.on_session(heard.append)
    sock = lab.network.connect(lab.address(listener))
    sock.recv(4096)
    if said:
        sock.sendall(said)
    sock.close()
    session = lab.sessions[-1]
    assert session.closed
    if said:
        word = "LOGOUT" if listener == "imap" else "QUIT"
        gone = (f"the client went away without {word}", "the server closed the connection")
        assert session.ending in gone
    else:
        assert session.ending == WITHOUT_A_WORD
    assert plain(session, "C") == said[: len(plain(session, "C"))]
    assert session.octets("C") == len(said)
    assert heard == [session]


@pytest.mark.parametrize("listener", UNDER_TLS)
@pytest.mark.parametrize(
    ("said", "ending"),
    [
        (b"", WITHOUT_A_WORD),
        (b"EHLO client.example\r\n", "the client spoke plain text where TLS was due"),
        (b"Q", "the client spoke plain text where TLS was due"),
        (b"\x16", BROKE_OFF),
        (b"\x16\x03\x01\x00", BROKE_OFF),
        (b"\x16\x03\x01\x02\x00\x01", BROKE_OFF),
        (b"\x16\x03\x01\x00\x05hello", BROKE_OFF),
        (b"\x15\x03\x01\x00\x02\x02\x28", BROKE_OFF),
    ],
)
def test_a_client_that_does_not_get_into_tls(
    lab: Lab, listener: str, said: bytes, ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Session] = []
    lab.on_session(heard.append)
    sock = lab.network.connect(lab.address(listener))
    if said:
        sock.sendall(said)
    sock.close()
    session = lab.sessions[-1]
    assert session.closed
    assert session.ending == ending
    assert session.lines == ()
    assert session.octets("C") == len(said)
    kinds = {one.type for one in session.records if one.who == "C"}
    if said[:1].isalpha():
        assert kinds == {"plain"}
        assert plain(session, "C") == said
    assert str(session) == f"{session.protocol} on {listener}\n-- {ending} --"
    assert heard == [session]
    assert not caplog.records


def test_a_client_that_distrusts_the_lab(lab: Lab) -> None:
    for listener in ("smtp", "submissions"):
        sock = lab.network.connect(lab.address(listener))
        if listener == "smtp":
            sock.recv(4096)
            sock.sendall(b"STARTTLS\r\n")
            sock.recv(4096)
        with pytest.raises(ssl.SSLCertVerificationError):
            TlsClient(sock, ssl.create_default_context())
        sock.close()
        session = lab.sessions[-1]
        assert session.closed
        assert session.ending == "the client doesn't trust the lab's certificate"
        assert [one.type for one in session.records if one.who == "C"][-1] == "alert"


def test_plaintext_where_the_handshake_of_starttls_is_due(lab: Lab) -> None:
    session = play(
        lab,
        "smtp",
        """
        S: 220 ...
        C: STARTTLS
        S: 220 2.0.0 Ready to start TLS
        C: NOOP
        """,
    )
    assert session.closed
    assert session.ending == "the client spoke plain text where TLS was due"
    assert plain(session, "C") == b"STARTTLS\r\nNOOP\r\n"


@pytest.mark.process
@pytest.mark.parametrize("listener", LISTENERS)
def test_a_reset_connection_is_a_session_too(
    listener: str, caplog: pytest.LogCaptureFixture
) -> None:
    network = LoopbackNetwork()
    with Lab(network=network) as lab:
        for said in (b"", b"NOOP\r\n" * 2000):
            for _ in range(5):
                sock = network.connect(lab.address(listener))
                # Closing with nothing to linger for sends RST instead of FIN.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                if listener in PLAIN:
                    sock.recv(4096)
                if said:
                    sock.sendall(said)
                sock.close()
                session = lab.sessions[-1]
                assert session.closed
                assert session.ending
    network.close()
    gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio"]


@pytest.mark.parametrize("listener", ["smtp", "submissions"])
def test_a_session_is_closed_the_moment_its_client_has_gone(lab: Lab, listener: str) -> None:
    for number in range(1, 201):
        sock = lab.network.connect(lab.address(listener))
        if number % 4 == 0:
            sock.sendall(b"NOOP\r\nQUIT\r\n")
        if number % 4 == 1:
            sock.sendall(b"NOOP\r\nNO")
        if number % 4 == 2 and listener == "smtp":
            sock.recv(100)
        sock.close()
        session = lab.sessions[-1]
        assert (session.number, session.closed) == (number, True)


def test_a_session_is_closed_the_moment_smtplib_is_done(lab: Lab) -> None:
    for number in range(1, 51):
        with smtplib.SMTP(*lab.smtp) as client:
            client.sendmail("ana@lab.example", "ben@lab.example", b"Subject: Hello\r\n\r\nHi\r\n")
        session = lab.sessions[-1]
        assert (session.number, session.closed, session.ending) == (number, True, "")
        assert len(lab.inbox("ben@lab.example")) == number


def test_an_open_session_can_be_looked_at(lab: Lab) -> None:
    client = Client(lab, "smtp")
    client.send(b"NOOP\r\nNO")
    session = lab.sessions[-1]
    assert not session.closed
    assert str(session) == (
        "SMTP on smtp\nS: 220 lab.example ESMTP ready\nC: NOOP\nS: 250 OK\nC: NO\n-- still open --"
    )
    client.close()
    assert session.ending == ""
    assert lab.sessions[-1].closed


def test_who_listens_hears_of_a_beginning_of_what_nobody_has_seen_and_of_an_end(lab: Lab) -> None:
    heard: list[tuple[int, bool, bool]] = []
    stop = lab.journal.listen(lambda one: heard.append((one.number, one.closed, one.ended)))
    client = Client(lab, "smtp")
    client.line()
    client.send(b"NOOP\r\n")
    client.line()
    assert heard == [(1, False, False)]
    assert len(lab.sessions[-1].lines) == 3
    client.send(b"NOOP\r\n")
    client.line()
    client.send(b"NOOP\r\n")
    client.line()
    assert heard == [(1, False, False)] * 2
    client.close()
    assert lab.sessions[-1].closed
    assert heard[2:] == [(1, True, True)]
    stop()
    stop()
    Client(lab, "pop3").close()
    assert len(heard) == 3


def test_a_listener_that_fails_is_logged_and_disturbs_nobody(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[int] = []
    lab.journal.listen(lambda recorder: 1 // 0)
    lab.journal.listen(lambda recorder: heard.append(recorder.number))
    with smtplib.SMTP(*lab.smtp) as client:
        client.noop()
    assert lab.sessions[-1].closed
    assert heard == [1, 1]
    assert len(caplog.records) == 2
    assert "Who listens to the lab's sessions failed" in caplog.text


# -- bounds


def a_journal(sessions: int = 10) -> Journal:
    clock = Clock(datetime(2026, 1, 5, tzinfo=UTC), lambda: 0.0)
    return Journal(clock, Bounds(), sessions, 100_000_000)


def ended(journal: Journal, said: bytes) -> Recorder:
    """A session in which the client said that."""
    one = journal.begin("SMTP", "smtp", implicit_tls=False)
    one.both("C", said)
    one.close()
    journal.ended(one)
    return one


def test_a_session_has_a_bound_and_what_is_beyond_it_is_counted(network: Network) -> None:
    limits = Limits(transcript=10_000, transcript_body=1_000)
    with Lab(network=network, limits=limits) as lab:
        sock = lab.network.connect(lab.smtp)
        sent = b"NOOP\r\n" * 5_000
        received = 0
        for start in range(0, len(sent), 3_000):
            sock.sendall(sent[start : start + 3_000])
            received += len(sock.recv(100_000))
        sock.shutdown(socket.SHUT_WR)
        while octets := sock.recv(100_000):
            received += len(octets)
        sock.close()
        session = lab.sessions[-1]
        assert session.closed
        kept = sum(len(line.data) for line in session.lines)
        assert kept <= 10_000
        assert session.dropped == len(sent) + received - kept
        assert (session.octets("C"), session.octets("S")) == (len(sent), received)
        assert sum(len(record.data) for record in session.records) <= 10_000
        assert f"-- {session.dropped:,} octets more, counted but not kept --" in str(session)


def test_message_content_has_a_bound_of_its_own(network: Network) -> None:
    with Lab(network=network, limits=Limits(transcript_body=1_000)) as lab:
        body = b"x" * 70 + b"\r\n"
        with smtplib.SMTP(*lab.smtp) as client:
            for lines in (10, 13, 14, 200):
                client.sendmail("ana@lab.example", "ben@lab.example", body * lines)
        session = lab.sessions[-1]
        contents = [line for line in session.lines if line.kind == "content"]
        assert [line.octets for line in contents] == [72 * lines for lines in (10, 13, 14, 200)]
        assert [len(line.data) for line in contents] == [720, 936, 1000, 1000]
        assert [line.shortened for line in contents] == [False, False, True, True]
        assert "[14,400 octets in all; the transcript keeps the first 1,000]" in str(session)
        stored = [one.octets.count(body) for one in lab.inbox("ben@lab.example")]
        assert stored == [10, 13, 14, 200]
        assert session.dropped == 0


def test_a_session_of_very_many_records_still_counts_every_octet() -> None:
    clock = Clock(datetime.now(UTC), lambda: 0.0)
    recorder = Recorder(1, "SMTP", "smtp", clock, Bounds(), implicit_tls=False)
    for _ in range(15_000):
        recorder.wire("C", b"NOOP\r\n")
        recorder.wire("S", b"250 OK\r\n")
    session = recorder.session()
    assert (session.octets("C"), session.octets("S")) == (15_000 * 6, 15_000 * 8)
    assert len(session.records) == 20_000


def test_the_oldest_session_is_dropped_for_one_more(network: Network) -> None:
    with Lab(network=network, limits=Limits(sessions=3)) as lab:
        open_one = Client(lab, "smtp")
        open_one.line()
        for _ in range(5):
            play(lab, "smtp", "S: 220 ...")
        # One that is still open outlives those that have ended.
        assert [session.number for session in lab.sessions] == [1, 5, 6]
        open_one.close()
        play(lab, "smtp", "S: 220 ...")
        assert [session.number for session in lab.sessions] == [5, 6, 7]


def test_the_oldest_ended_sessions_are_dropped_where_all_take_too_much(network: Network) -> None:
    def send(messages: int) -> None:
        with smtplib.SMTP(*lab.smtp) as client:
            for _ in range(messages):
                client.sendmail("ana@lab.example", "ben@lab.example", "x" * 70 + "\r\n" * 50_000)

    with Lab(network=network, limits=Limits(sessions_octets=300_000)) as lab:
        open_one = Client(lab, "smtp")
        open_one.line()
        for _ in range(4):
            send(1)
        assert [session.number for session in lab.sessions] == [1, 4, 5]
        open_one.close()
        assert [session.number for session in lab.sessions] == [1, 4, 5]
        send(1)
        assert [session.number for session in lab.sessions] == [5, 6]
        send(5)
        assert [session.number for session in lab.sessions] == [7]  # the last is never dropped


def test_what_ended_sessions_take_is_what_they_are_counted_for() -> None:
    journal = a_journal(sessions=100)
    gc.collect()
    tracemalloc.start()
    for _ in range(20):
        ended(journal, bytes(bytearray(b"NOOP\r\n" * 100)))
    uncut = journal._room.octets
    assert 0.5 < uncut / tracemalloc.get_traced_memory()[0] < 2
    journal.sessions()
    assert 0.5 < journal._room.octets / tracemalloc.get_traced_memory()[0] < 2
    tracemalloc.stop()
    assert journal._room.octets > 2 * uncut
    for number in range(1, 21):
        journal._drop(number)
    assert journal._room.octets == 0


# -- text


def conversation(lab: Lab) -> str:
    """One of each kind of session, as text."""
    with smtplib.SMTP(*lab.submission) as client:
        client.starttls(context=lab.tls)
        client.login("ana@lab.example", "ana-lab-password")
        client.sendmail(
            "ana@lab.example", "ben@lab.example", "Subject: Hello\r\n\r\n.dot\r\nHi Ben\r\n"
        )
    play(lab, "pop3", "S: +OK ...\nC: USER ana@lab.example\nS: +OK ...\nC: PASS wrong\nS: -ERR ...")
    play(lab, "smtp", "S: 220 ...\nC: MAIL")
    lab.network.connect(lab.imaps).close()
    sock = lab.network.connect(lab.submissions)
    sock.sendall(b"EHLO client.example\r\n")
    sock.close()
    return "\n\n".join(map(str, lab.sessions))


@pytest.mark.process
def test_text_is_the_same_on_both_networks_and_when_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LABSERVER_OUTPUT", "normal")
    texts = []
    for make in (LoopbackNetwork, InlineNetwork, LoopbackNetwork):
        network = make()
        with Lab(network=network) as lab:
            texts += [conversation(lab)]
            assert "\n\n".join(map(str, lab.sessions)) == texts[-1]
        network.close()
    assert texts[0] == texts[1] == texts[2]
    assert "C: PASS wrong" not in texts[0]
    assert "C: AUTH PLAIN \N{BULLET}" in texts[0]
    assert not re.search(r"127\.0\.0\.1|\d{2}:\d{2}", texts[0])


def test_passwords_are_masked_in_every_form_but_the_revealed(lab: Lab) -> None:
    play(
        lab,
        "pop3",
        """
        S: +OK ...
        C: USER ana@lab.example
        S: +OK ...
        C: PASS ana-lab-password
        S: +OK ...
        C: QUIT
        """,
    )
    session = lab.sessions[-1]
    for shown in (str(session), repr(session), session.text(exact=True), *map(repr, session.lines)):
        assert "ana-lab-password" not in shown
    assert "ana-lab-password" not in "".join(map(repr, session.records))
    assert "C: PASS ana-lab-password" in session.text(reveal=True)


def test_ended_sessions_that_nobody_looks_at_are_cut_when_they_take_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorder, "_UNCUT_OCTETS", 1000)
    journal = a_journal(sessions=3)
    made = [ended(journal, b"x" * 400) for _ in range(5)]
    assert [one.uncut_octets for one in made] == [0, 0, 0, 400, 400]
    assert [session.lines[0].octets for session in journal.sessions()] == [400] * 3


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("EHLO shop.example", "shop.example"),
        ("helo [192.0.2.1]", "[192.0.2.1]"),
        ("EHLO first.example\r\nEHLO second.example", "second.example"),
        ("NOOP\r\n ehlo  shop.example ", "shop.example"),
        ("EHLO b\u00fccher.example", "b\u00fccher.example"),
        ("EHLO ana-lab-password", MASK),
        ("EHLO", ""),
        ("NOOP", ""),
    ],
)
def test_a_session_tells_who_spoke_with_whom(network: Network, said: str, name: str) -> None:
    with Lab(network=network, hostname="mx.lab.example") as lab:
        sock = lab.network.connect(lab.smtp)
        sock.sendall(f"{said}\r\nQUIT\r\n".encode())
        sock.close()
        (session,) = lab.sessions
    assert session.client == Host(name, "127.0.0.1")
    assert session.server == Host("mx.lab.example", "127.0.0.1")


@pytest.mark.parametrize("listener", ["pop3", "imap", "pop3s", "submissions"])
def test_who_gives_no_name_has_an_address(lab: Lab, listener: str) -> None:
    lab.network.connect(lab.address(listener)).close()
    (session,) = lab.sessions
    assert session.client == Host("", "127.0.0.1")
    assert session.server.name == lab.hostname


def test_what_is_too_much_under_tls_is_answered_before_the_end(network: Network) -> None:
    limits = Limits(session_octets=1000)
    with Lab(network=network, limits=limits) as lab:
        sock: Any = network.connect(lab.imaps)
        sock = lab.tls.wrap_socket(sock, server_hostname="localhost")
        with sock, sock.makefile("rb") as file:
            file.readline()
            sock.sendall(b"a NOOP\r\n" * 400)
            lines = list(iter(file.readline, b""))
        assert lines[-1].startswith(b"* BYE lab.example has heard too much")
        assert lab.sessions[-1].lines[-1].data == lines[-1]


def test_a_long_answer_under_tls_comes_whole_to_a_slow_client(network: Network) -> None:
    with Lab(network=network) as lab:
        content = b"Subject: long\r\n\r\n" + b"x" * 76 + b"\r\n" + (b"y" * 76 + b"\r\n") * 40_000
        with smtplib.SMTP(*lab.smtp) as client:
            client.sendmail("a@b.example", ["ana@lab.example"], content)
        sock: Any = network.connect(lab.pop3s)
        sock = lab.tls.wrap_socket(sock, server_hostname="localhost")
        with sock, sock.makefile("rb") as file:
            for line in (b"USER ana@lab.example", b"PASS ana-lab-password", b"RETR 1"):
                sock.sendall(line + b"\r\n")
            sock.sendall(b"QUIT\r\n")
            told = file.read()
        assert told.count(b"y" * 76 + b"\r\n") == 40_000
        assert told.splitlines()[-1].startswith(b"+OK lab.example POP3 server signing off")
