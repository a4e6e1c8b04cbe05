"""Nobody gets in: known attacks on mail servers, each with where it is described.

What a grammar and chance find stands in `test_fuzz.py`; mail that attacks its reader in
`test_hostile_mail.py`.
"""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from labserver import Lab, Limits
from labserver.network import Network
from labserver.network.inline import InlineNetwork
from labserver.network.loopback import LoopbackNetwork
from tests.dialogue import Client, play
from tests.fuzz_targets import converse, read_replies, still_serves
from tests.steps import LINEAR, growth, steps

pytestmark = pytest.mark.long

ANA, PASSWORD = "ana@lab.example", "ana-lab-password"
LISTENERS = ("smtp", "pop3", "imap")
ALL_LISTENERS = ("smtp", "submissions", "pop3", "pop3s", "imap", "imaps")
HELLO = b"EHLO client.example\r\n"
TO_BEN = b"MAIL FROM:<eve@far.example>\r\nRCPT TO:<ben@lab.example>\r\nDATA\r\n"
POP3_LOGIN = b"USER ana@lab.example\r\nPASS ana-lab-password\r\n"
IMAP_LOGIN = b"l LOGIN ana@lab.example ana-lab-password\r\n"
LOGIN = {"pop3": POP3_LOGIN, "imap": IMAP_LOGIN}


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def codes(heard: bytes) -> str:
    """The codes of the replies, one for each."""
    rows = heard.decode("utf-8", "surrogateescape").splitlines()
    return " ".join(row[:3] for row in rows if row[3:4] != "-")


@pytest.fixture
def inline() -> Iterator[Network]:
    """Where time is virtual, and so exact."""
    made = InlineNetwork()
    yield made
    made.close()


@pytest.fixture
def nothing_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The lab has nothing to complain of: no attack is the server's mistake."""
    yield
    ours = [record for record in caplog.records if record.name in ("labserver", "asyncio")]
    assert [record.getMessage() for record in ours] == []


@contextmanager
def at_most(octets: int) -> Iterator[None]:
    """All that happens meanwhile holds no more memory than that at any moment."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert peak <= octets


# -- a second message hidden in the first

SMUGGLERS = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r\n.\r",
    b"\n.\r",
    b"\r.\r\n",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\r\0\n.\r\n",
    b"\r\n.\r\0\n",
    b"\r\0\n.\r\0\n",
    b"\r\r\n.\r\r\n",
    b"\n\n.\n\n",
    b"\r\n .\r\n",
    b"\r\n.\t\r\n",
    b"\r\n\xc2\x85.\r\n",
    b"\xe2\x80\xa8.\xe2\x80\xa8",
]


@pytest.mark.usefixtures("nothing_logged")
@pytest.mark.parametrize("end", SMUGGLERS, ids=repr)
@pytest.mark.parametrize("pieces", ["whole", "octets"])
def test_a_smuggled_message_stays_content(lab: Lab, end: bytes, pieces: str) -> None:
    """SMTP smuggling, CVE-2023-51764, -51765, -51766; RFC 5321 section 4.1.1.4."""
    hidden = b"MAIL FROM:<boss@lab.example>\r\nRCPT TO:<ana@lab.example>\r\nDATA\r\nSubject: 2\r\n"
    content = b"Subject: 1\r\n\r\nbefore" + end + hidden
    said = HELLO + TO_BEN + content + b"\r\n.\r\nQUIT\r\n"
    chunks = [said] if pieces == "whole" else [said[i : i + 1] for i in range(len(said))]
    heard, session = converse(lab, "smtp", chunks)
    assert codes(heard) == "220 250 250 250 354 250 221"
    (message,) = lab.inbox("ben@lab.example")
    unstuffed = content.replace(b"\r\n.", b"\r\n")
    assert message.octets.endswith(b"\r\n" + unstuffed + b"\r\n")
    assert not lab.inbox(ANA)
    # Nor does the transcript, which has its own reading of where content ends, tell otherwise.
    assert sum(line.kind == "end" for line in session.lines) == 1
    assert [line.data[:4] for line in session.lines if line.kind == "command"] == [
        *(b"EHLO", b"MAIL", b"RCPT", b"DATA", b"QUIT")
    ]


@pytest.mark.parametrize("end", SMUGGLERS, ids=repr)
def test_what_looks_like_an_end_is_handed_on_stuffed(lab: Lab, end: bytes) -> None:
    """RFC 1939 section 3: what POP3 sends of such a message has one end, too."""
    said = HELLO + TO_BEN + b"Subject: 1\r\n\r\na" + end + b"+OK injected\r\n.\r\nQUIT\r\n"
    converse(lab, "smtp", [said])
    heard, _ = converse(
        lab, "pop3", [b"USER ben@lab.example\r\nPASS ben-lab-password\r\nRETR 1\r\nQUIT\r\n"]
    )
    before, _, after = heard.partition(b"\r\n.\r\n")
    assert before.count(b"+OK") == 5
    assert after.startswith(b"+OK ")
    assert after.count(b"\r\n") == 1


@pytest.mark.usefixtures("nothing_logged")
@pytest.mark.parametrize("refused", [False, True])
@pytest.mark.parametrize("end", [b"\r\n.\r\n", b"\r\nRSET\r\n", b"\r\nBDAT 0 LAST\r\n"], ids=repr)
def test_commands_in_a_chunk_stay_content(lab: Lab, end: bytes, refused: bool) -> None:
    """RFC 3030 section 2: the octets of BDAT come, whatever they are and whatever the reply is."""
    hidden = b"MAIL FROM:<boss@lab.example>\r\nRCPT TO:<ana@lab.example>\r\nDATA\r\nx: y\r\n.\r\n"
    content = b"Subject: 1\r\n\r\nbefore" + end + hidden
    recipient = b"RCPT TO:<nobody@lab.example>\r\n" if refused else b"RCPT TO:<ben@lab.example>\r\n"
    begin = HELLO + b"MAIL FROM:<eve@far.example>\r\n" + recipient
    chunk = b"BDAT %d LAST\r\n%b" % (len(content), content)
    heard, _ = converse(lab, "smtp", [begin + chunk + b"QUIT\r\n"])
    answers = "550 503" if refused else "250 250"
    assert codes(heard) == f"220 250 250 {answers} 221"
    kept = [message.octets for message in lab.inbox("ben@lab.example")]
    assert [octets.endswith(content) for octets in kept] == [True] * (not refused)
    assert not lab.inbox(ANA)


@pytest.mark.usefixtures("nothing_logged")
@pytest.mark.parametrize(
    "parameters",
    [
        *(
            b"ENVID=a+0D+0ARCPT",
            b"ENVID=a\rb",
            b"RET=FULL\rNOOP",
            b"AUTH=<>\r\nQUIT",
            b"BODY=8BITMIME;x",
        ),
        *(b"SIZE=-1", b"SIZE=1e9", b"SIZE=99999999999999999999", b"SIZE=1 SIZE=2", b"=", b"X=\0"),
    ],
    ids=repr,
)
def test_no_parameter_injects_a_command_or_a_field(lab: Lab, parameters: bytes) -> None:
    """CWE-93; RFC 5321 section 4.1.2 (esmtp-value), RFC 3461 section 4 (xtext)."""
    mail = b"MAIL FROM:<eve@far.example> " + parameters + b"\r\n"
    rest = b"RCPT TO:<ben@lab.example> ORCPT=rfc822;x+0D+0Ay\r\nDATA\r\nSubject: 1\r\n.\r\nQUIT\r\n"
    heard, _ = converse(lab, "smtp", [HELLO + mail + rest])
    read_replies("SMTP", heard)
    for message in lab.inbox("ben@lab.example"):
        fields = [row.partition(b":")[0] for row in message.octets.splitlines() if row[:1] != b" "]
        assert fields == [b"Return-Path", b"Received", b"Subject"]


# -- plaintext that would be obeyed under TLS

INJECTED = {
    "smtp": (
        HELLO + b"STARTTLS\r\n",
        [
            b"RSET\r\nNOOP\r\n",
            b"EHLO evil.example\r\n" + TO_BEN,
            b"QUIT\r\n",
            b"NOO",
            b"\r\n",
            b"\0",
        ],
        HELLO,
    ),
    "submission": (
        HELLO + b"STARTTLS\r\n",
        [HELLO + b"AUTH PLAIN " + b64(f"\0{ANA}\0{PASSWORD}").encode() + b"\r\n", b"AUTH PLAIN"],
        HELLO,
    ),
    "pop3": (
        b"STLS\r\n",
        [POP3_LOGIN, b"QUIT\r\n", b"USER ana@lab.example\r\n", b"CAP", b"\r\n", b"\0"],
        b"CAPA\r\n",
    ),
    "imap": (
        b"a STARTTLS\r\n",
        [
            IMAP_LOGIN,
            b"b LOGOUT\r\n",
            b"b LOGIN {5}\r\n",
            b"b LOGIN {5+}\r\n",
            b"b ",
            b"\r\n",
            b"\0",
        ],
        b"c CAPABILITY\r\n",
    ),
}


@pytest.mark.usefixtures("nothing_logged")
@pytest.mark.parametrize(
    ("listener", "injected"),
    [(listener, octets) for listener, row in INJECTED.items() for octets in row[1]],
    ids=repr,
)
def test_plaintext_behind_starttls_is_not_obeyed_under_tls(
    lab: Lab, listener: str, injected: bytes
) -> None:
    """CVE-2011-0411, CVE-2021-33515; RFC 3207 section 4.2, RFC 2595 section 4, RFC 9051 11.1."""
    begin, _, first = INJECTED[listener]
    clean, _ = _under_tls(lab, listener, begin, first)
    attacked, rest = _under_tls(lab, listener, begin + injected, first)
    assert attacked == clean
    assert rest == b""
    still_serves(lab, listener)


def _under_tls(lab: Lab, listener: str, plain: bytes, first: bytes) -> tuple[list[bytes], bytes]:
    """The answer to the first command under TLS, and what the server says beyond it."""
    client = Client(lab, listener)
    client.send(plain)
    while not client.line().startswith((b"220 2.0.0", b"+OK Begin", b"a OK")):
        pass
    client.start_tls()
    client.send(first)
    answer = [client.line()]
    while not answer[-1].startswith((b"250 ", b".\r\n", b"c OK")):
        answer.append(client.line())
    client._sock.settimeout(0.05)
    rest = b""
    with contextlib.suppress(TimeoutError):
        rest = client._sock.recv(1000)
    client.close()
    return answer, rest


def test_what_was_known_before_tls_is_forgotten(lab: Lab) -> None:
    """RFC 3207 section 4.2, RFC 2595 section 4: a man in the middle may have said it."""
    play(
        lab,
        "smtp",
        """
        S: 220 ...
        C! HELO evil.example\\r\\nMAIL FROM:<>\\r\\nRCPT TO:<ben@lab.example>\\r\\nSTARTTLS\\r\\n
        S: 250 ...
        S: 250 ...
        S: 250 ...
        S: 220 ...
        -- TLS
        C: DATA
        S: 503 ...
        """,
    )
    play(
        lab,
        "pop3",
        f"""
        S: +OK ...
        C! USER {ANA}\\r\\nSTLS\\r\\n
        S: +OK ...
        S: +OK ...
        -- TLS
        C: PASS {PASSWORD}
        S: -ERR No username given.
        """,
    )


@pytest.mark.parametrize(
    ("listener", "ask"), [("smtp", "STARTTLS"), ("pop3", "STLS"), ("imap", "a STARTTLS")]
)
@pytest.mark.parametrize(
    "instead",
    [b"NOOP\r\n", b"\0" * 600, b"\x16\x03\x01\xff\xff" + b"x" * 70000, b"\x80.\x01\x03\x01"],
    ids=lambda octets: repr(octets[:8]),
)
def test_no_handshake_no_service(lab: Lab, listener: str, ask: str, instead: bytes) -> None:
    """RFC 3207 section 4.1: after 220 there is TLS or nothing; plaintext gets no plain answer."""
    client = Client(lab, listener)
    client.line()
    client.send(ask.encode() + b"\r\n")
    client.line()
    with contextlib.suppress(OSError):
        client.send(instead)
        client._sock.shutdown(socket.SHUT_WR)
    rest = b""
    with contextlib.suppress(OSError):
        while piece := client._sock.recv(4096):
            rest += piece
    # At most a TLS alert.
    assert rest == b"" or rest[0] == 0x15
    client.close()
    assert lab.sessions[-1].closed
    still_serves(lab, listener)


# -- too long

OVERSIZE = {
    "smtp command": ("smtp", HELLO + b"NOOP "),
    "smtp verb": ("smtp", b""),
    "smtp content line": ("smtp", HELLO + TO_BEN),
    "smtp header line": ("smtp", HELLO + TO_BEN + b"Subject: "),
    "smtp login": ("submissions", HELLO + b"AUTH PLAIN\r\n"),
    "pop3 command": ("pop3", b"USER "),
    "pop3 login": ("pop3", b"AUTH PLAIN\r\n"),
    "imap command": ("imap", b"a NOOP "),
    "imap tag": ("imap", b""),
    "imap literal": ("imap", b"a LOGIN {99999999999+}\r\n"),
    "imap message": ("imap", IMAP_LOGIN + b"a APPEND INBOX {99999999999+}\r\n"),
}


@pytest.mark.parametrize("case", OVERSIZE)
@pytest.mark.usefixtures("nothing_logged")
def test_what_has_no_end_is_not_kept(inline: Network, case: str) -> None:
    """CWE-400, CWE-770; RFC 5321 section 4.5.3.1, RFC 2449 section 4, RFC 7888 section 4."""
    listener, begin = OVERSIZE[case]
    with Lab(network=inline, limits=Limits(message=100_000, transcript=100_000)) as lab:
        sock = lab.network.connect(lab.address(listener), timeout=60)
        if listener == "submissions":
            sock = lab.tls.wrap_socket(sock, server_hostname="localhost")
        piece = b"x" * 65536
        with at_most(3_000_000), contextlib.suppress(OSError):
            sock.sendall(begin)
            for _ in range(320):  # 20 MB
                sock.sendall(piece)
        sock.close()
        assert lab.sessions[-1].closed
        still_serves(lab, listener)


@pytest.mark.parametrize(
    "announced",
    [
        *("{4294967296}", "{18446744073709551616}", "{" + "9" * 17 + "}", "{" + "9" * 5000 + "}"),
        *("{-1}", "{1e9}", "{0x10}", "{+}", "{}", "{1", "{１}", "{5-}", "{ 5}"),
    ],
    ids=lambda text: text[:24],
)
@pytest.mark.usefixtures("nothing_logged")
def test_a_literal_of_an_odd_size_is_refused_at_once(lab: Lab, announced: str) -> None:
    """RFC 3501 section 4.3: a number of octets; CVE-2005-3189 and many before it."""
    said = IMAP_LOGIN + f"a APPEND INBOX {announced}\r\nb NOOP\r\n".encode()
    heard, _ = converse(lab, "imap", [said])
    read_replies("IMAP", heard)
    assert b"\r\n+ " not in heard
    assert b"\r\na NO [TOOBIG] " in heard or b"\r\na BAD " in heard
    assert b"\r\nb OK " in heard
    assert not lab.inbox(ANA)


@pytest.mark.usefixtures("nothing_logged")
def test_commands_inside_a_refused_literal_are_not_obeyed(lab: Lab) -> None:
    """RFC 7888 section 4: the octets of a LITERAL+ come, whether the server wants them or not."""
    evil = b"x CREATE Evil\r\n" * 200
    too_long = b"a LOGIN {%d+}\r\n%b ana-lab-password\r\n" % (400_000, evil.ljust(400_000, b" "))
    foreign = b"b APPEND Nowhere {%d+}\r\n%b\r\n" % (len(evil), evil)
    heard, _ = converse(lab, "imap", [too_long + IMAP_LOGIN + foreign + b'c LIST "" *\r\n'])
    assert b"\r\na NO [TOOBIG] " in heard
    assert b"\r\nb NO [TRYCREATE] " in heard
    assert heard.count(b"* LIST ") == 1
    assert b"Evil" not in heard


# -- never listening

DEAF = {
    "smtp": (b"", HELLO),
    "pop3": (POP3_LOGIN, b"RETR 1\r\n"),
    "imap": (IMAP_LOGIN + b"s SELECT INBOX\r\n", b"a FETCH 1 BODY.PEEK[]\r\n"),
}


@pytest.mark.process
@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.usefixtures("nothing_logged")
def test_who_never_reads_the_replies_is_not_read_from(listener: str) -> None:
    """CWE-770, as in CVE-2019-9517 for HTTP/2: endless commands, replies never read."""
    network = LoopbackNetwork()
    idle = Limits(smtp_idle=1, pop3_idle=1, imap_idle=1)
    with Lab(network=network, limits=idle) as lab:
        large = b"Subject: large\r\n" + b"x" * 50 + b"\r\n" * 50_000
        converse(lab, "smtp", [HELLO + TO_BEN.replace(b"ben", b"ana") + large + b".\r\nQUIT\r\n"])
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.settimeout(0.5)
        deaf.connect(lab.address(listener))
        begin, command = DEAF[listener]
        sent = deaf.send(begin)
        piece = command * 1000
        # On a busy machine the server may have cut it off before it has noticed anything.
        with contextlib.suppress(TimeoutError, ConnectionError):
            while sent < 100_000_000:
                sent += deaf.send(piece)
        # What the kernel holds on its way, a few megabytes, and no more.
        assert sent < 30_000_000
        still_serves(lab, listener)
        # Another client's time begins later, so when it is over, the first one's is too.
        assert converse_silently(lab, listener)
        assert lab.sessions[1].closed
        deaf.close()
    network.close()


def converse_silently(lab: Lab, listener: str) -> bytes:
    """What a client hears that never says anything, until the server hangs up."""
    sock = lab.network.connect(lab.address(listener), timeout=60)
    heard = b""
    while piece := sock.recv(4096):
        heard += piece
    sock.close()
    return heard


# -- too many

BUSY = {"smtp": b"421 4.3.2 ", "pop3": b"-ERR [SYS/TEMP] ", "imap": b"* BYE "}
GREETING = {"smtp": b"220 ", "pop3": b"+OK ", "imap": b"* OK "}


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.usefixtures("nothing_logged")
def test_idle_connections_beyond_the_limit_are_told_so_until_some_go(
    network: Network, listener: str
) -> None:
    """Slow and idle clients, CWE-770; RFC 5321 section 3.8 on 421."""
    with Lab(network=network, limits=Limits(connections=100)) as lab:
        with at_most(300 * 50_000):
            clients = [Client(lab, listener) for _ in range(300)]
            greetings = [client.line() for client in clients]
        assert all(row.startswith(GREETING[listener]) for row in greetings[:100])
        assert all(row.startswith(BUSY[listener]) for row in greetings[100:])
        assert all(client.line() == b"" for client in clients[100:])
        # Another listener has its own places.
        still_serves(lab, "pop3" if listener != "pop3" else "smtp")
        for client in clients:
            client.close()
        assert all(session.closed for session in lab.sessions)
        still_serves(lab, listener)


@pytest.mark.process
@pytest.mark.usefixtures("nothing_logged")
def test_two_thousand_idle_connections() -> None:
    """The same where it would hurt: many thousand sockets, little memory, and all given back."""
    resource: Any = pytest.importorskip("resource", reason="open files are limited otherwise here")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 5000
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"this machine lets a process open {hard} files only")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    network = LoopbackNetwork()
    try:
        with Lab(network=network, limits=Limits(connections=2000, sessions=3000)) as lab:
            clients = [network.connect(lab.smtp) for _ in range(2000)]
            assert all(one.recv(100).startswith(b"220 ") for one in clients)
            one_more = network.connect(lab.smtp)
            assert one_more.recv(100).startswith(b"421 4.3.2 ")
            one_more.close()
            still_serves(lab, "imap")
            for one in clients:
                one.close()
            assert all(session.closed for session in lab.sessions)
            still_serves(lab, "smtp")
    finally:
        network.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# -- too much in one session

NOOP = {"smtp": b"NOOP\r\n", "pop3": b"CAPA\r\n", "imap": b"a NOOP\r\n"}
END = {"smtp": b"421 4.", "pop3": b"-ERR [SYS/TEMP] ", "imap": b"* BYE "}


def no_secure(listener: str) -> str:
    """The protocol's plain listener."""
    return {"submissions": "smtp"}.get(listener, listener.removesuffix("s"))


@pytest.mark.usefixtures("nothing_logged")
@pytest.mark.parametrize("listener", ["smtp", "pop3", "pop3s", "imap", "imaps"])
@pytest.mark.parametrize("pieces", ["whole", "commands"])
def test_a_session_has_so_many_commands(network: Network, listener: str, pieces: str) -> None:
    """CWE-770; RFC 5321 section 3.8: a server may close a session, and says so."""
    command, end = NOOP[no_secure(listener)], END[no_secure(listener)]
    with Lab(network=network, limits=Limits(session_commands=20)) as lab:
        # Not more than one too many: what nobody reads would take the goodbye with it on loopback.
        chunks = [command * 21] if pieces == "whole" else [command] * 21
        heard, session = converse(lab, listener, chunks)
        read_replies(session.protocol, heard)
        rows = heard.splitlines(keepends=True)
        assert rows[-1].startswith(end)
        done = [row for row in rows if row.startswith((b"250 ", b"+OK ", b"a OK"))]
        assert len(done) == 20 + (session.protocol == "POP3")  # its greeting
        assert session.ending == "the server closed the connection"
        still_serves(lab, listener)


@pytest.mark.usefixtures("nothing_logged")
@pytest.mark.parametrize(
    ("listener", "begin"),
    [
        ("smtp", b""),
        ("smtp", HELLO + TO_BEN),
        ("smtp", HELLO + TO_BEN.replace(b"DATA", b"BDAT 1000000")),
        ("submissions", HELLO + b"AUTH PLAIN\r\n"),
        ("pop3", b""),
        ("pop3s", b"USER "),
        ("imap", b""),
        ("imaps", b"a LOGIN {1000000+}\r\n"),
        ("imap", IMAP_LOGIN + b"a APPEND INBOX {1000000+}\r\n"),
    ],
)
def test_a_session_has_so_many_octets(network: Network, listener: str, begin: bytes) -> None:
    """CWE-770: whatever state the dialogue is in, and whether the octets are kept or not."""
    with Lab(network=network, limits=Limits(session_octets=50_000)) as lab:
        heard, session = converse(lab, listener, [begin, *[b"NOOP xxxxxxx\r\n" * 5000] * 100])
        # On loopback a connection that is broken off takes with it what it hasn't delivered.
        if network.can.sockets is False:
            rows = heard.splitlines(keepends=True)
            assert rows[-1].startswith(END[no_secure(listener)])
        assert session.closed
        assert session.ending == "the server closed the connection"
        assert session.octets("C") < 2_000_000
        assert not lab.inbox("ben@lab.example")
        assert not lab.inbox(ANA)
        still_serves(lab, listener)


# -- guessing passwords

GUESS = {
    "submissions": "AUTH PLAIN {plain}",
    "pop3": "AUTH PLAIN {plain}",
    "pop3s": "USER {name}\r\nPASS {password}",
    "imap": "a LOGIN {name} {password}",
    "imaps": "a AUTHENTICATE PLAIN {plain}",
}
REFUSED = (b"535 5.7.8 ", b"-ERR [AUTH] ", b"a NO ")


def guess(lab: Lab, listener: str, name: str, guesses: int) -> tuple[list[bytes], list[float]]:
    """Guess so often; what the server said, and how many seconds each answer took."""
    client = Client(lab, listener)
    client._sock.settimeout(100)
    client.send({"s": HELLO, "p": b"CAPA\r\n", "i": b"b CAPABILITY\r\n"}[listener[0]])
    while not client.line().startswith((b"250 ", b".\r\n", b"b OK")):
        pass
    rows, took = [], []
    for number in range(guesses):
        password = f"guess-{number}"
        plain = b64(f"\0{name}\0{password}")
        said = GUESS[listener].format(name=name, password=password, plain=plain)
        before = lab.network.clock.seconds()
        client.send(said.encode() + b"\r\n")
        while not (row := client.line()).startswith((*REFUSED, b"421 ")):
            assert row, rows
        rows.append(row)
        took.append(round(lab.network.clock.seconds() - before, 6))
    while row := client.line():
        rows.append(row)
    client.close()
    return rows, took


@pytest.mark.usefixtures("nothing_logged")
@pytest.mark.parametrize("listener", GUESS)
def test_each_wrong_password_takes_longer_and_the_last_ends_the_session(
    inline: Network, listener: str
) -> None:
    """CWE-307; RFC 4954 section 4, RFC 3206 section 4, RFC 3501 section 11.2."""
    limits = Limits(login_failures=5, login_delay=0.5)
    with Lab(network=inline, limits=limits) as lab:
        rows, took = guess(lab, listener, ANA, 5)
        assert took == [0.5, 1, 2, 4, 8]
        assert all(row.startswith(REFUSED) for row in rows[:4])
        assert lab.sessions[-1].closed
        assert lab.sessions[-1].ending == "the server closed the connection"
        assert "guess" not in str(lab.sessions[-1])
        # The right one is right as ever, from another connection.
        heard, _ = converse(lab, "pop3", [POP3_LOGIN + b"QUIT\r\n"])
        assert b"-ERR" not in heard


@pytest.mark.usefixtures("nothing_logged")
@pytest.mark.parametrize("listener", GUESS)
@pytest.mark.parametrize(
    "name", ["nobody@lab.example", "ana@far.example", "ana", "x" * 100, "ana@lab.example "]
)
def test_who_guesses_does_not_learn_which_names_exist(
    inline: Network, listener: str, name: str
) -> None:
    """CWE-204, CWE-208; RFC 4954 section 6 on 535: the same words after the same time."""
    if GUESS[listener].startswith(("a LOGIN", "USER")) and " " in name:
        name = "nobody"
    with Lab(network=inline, limits=Limits(login_failures=3)) as lab:
        assert guess(lab, listener, name, 3) == guess(lab, listener, ANA, 3)


@pytest.mark.usefixtures("nothing_logged")
@pytest.mark.parametrize("listener", GUESS)
def test_many_connections_guess_no_faster_than_one(inline: Network, listener: str) -> None:
    """CWE-307: after the first ones each login waits, wherever it comes from, the right one too."""
    limits = Limits(login_failures=3, login_delay=0.05)
    with Lab(network=inline, limits=limits) as lab:
        assert guess(lab, "imap", ANA, 3)[1] == [0.05, 0.1, 0.2]
        assert guess(lab, listener, ANA, 3)[1] == [0.45, 0.9, 1.8]
        assert guess(lab, listener, "ben@lab.example", 3)[1] == [0.05, 0.1, 0.2]
        clients = [Client(lab, "pop3") for _ in range(5)]
        before = lab.network.clock.seconds()
        for client in clients:
            client.send(POP3_LOGIN)
        heard = [[client.line() for _ in range(3)][-1] for client in clients]
        assert round(lab.network.clock.seconds() - before, 6) == 3.2
        assert sorted(row[:4] for row in heard) == [b"+OK ", *4 * [b"-ERR"]]  # one has the lock
        for client in clients:
            client.close()
        assert guess(lab, listener, ANA, 3)[1] == [0.05, 0.1, 0.2]


@pytest.mark.usefixtures("nothing_logged")
@pytest.mark.parametrize("listener", GUESS)
def test_the_servers_own_wait_is_no_silence_of_the_clients(inline: Network, listener: str) -> None:
    """However many wrong passwords a lab allows, none waits longer than mail programs do."""
    limits = Limits(login_failures=50)
    with Lab(network=inline, limits=limits) as lab:
        rows, took = guess(lab, listener, ANA, 50)
        assert took == [*(round(0.1 * 2**n, 6) for n in range(9)), *[30.0] * 41]
        assert all(row.startswith(REFUSED) for row in rows[:49])
        assert lab.sessions[-1].closed


@pytest.mark.usefixtures("nothing_logged")
@pytest.mark.parametrize("listener", GUESS)
def test_a_client_that_may_be_silent_for_a_moment_only_hears_the_answer(
    inline: Network, listener: str
) -> None:
    """Not even where the wait for the name and the wait for the answer add up to more."""
    short = dict.fromkeys(("smtp_idle", "pop3_idle", "imap_idle"), 2.0)
    limits = Limits(login_failures=20, login_delay=1.5, **short)  # type: ignore[arg-type]
    with Lab(network=inline, limits=limits) as lab:
        guess(lab, "imap", ANA, 20)
        rows, took = guess(lab, listener, ANA, 3)
        assert took == [31.5, 32.0, 32.0]
        assert all(row.startswith(REFUSED) for row in rows[:3])


@pytest.mark.parametrize("listener", ["pop3", "imap"])
def test_who_does_not_wait_is_not_told(inline: Network, listener: str) -> None:
    """Nothing is looked at for a client that has said its last word and wants an answer at once."""
    with Lab(network=inline) as lab:
        guess(lab, "imap", ANA, 3)
        sock = lab.network.connect(lab.address(listener), timeout=60)
        login = {"pop3": b"USER %b\r\nPASS %b\r\n", "imap": b"a LOGIN %b %b\r\n"}[listener]
        sock.sendall(login % (ANA.encode(), b"ana-lab-password"))
        sock.shutdown(socket.SHUT_WR)
        heard = b"".join(iter(lambda: sock.recv(4096), b""))
        sock.close()
        assert b"maildrop" not in heard
        assert b"a OK" not in heard


def test_pop3_and_imap_do_not_tell_a_name_before_the_password(lab: Lab) -> None:
    """RFC 1939 section 13: USER is answered alike for all."""
    heard, _ = converse(lab, "pop3", [b"USER ana@lab.example\r\nUSER nobody@x.example\r\n"])
    _, *answers = heard.splitlines()
    assert len(answers) == 2
    assert len(set(answers)) == 1


# -- addresses

ADDRESSES = {
    # RFC 5321 sections 4.1.2, 4.5.3.1, appendix C; RFC 5322 section 3.4.1
    "<ben@lab.example>": "250",
    "<BEN@LAB.EXAMPLE>": "250",
    '<"ben"@lab.example>': "250",
    r'<"b\en"@lab.example>': "250",
    "<@a.example,@b.example:ben@lab.example>": "250",
    "<@a.example:@b.example:ben@lab.example>": "553",
    "<@lab.example:eve@far.example>": "550",
    "<@a.example:>": "553",
    "<eve%far.example@lab.example>": "550",
    "<far.example!eve@lab.example>": "550",
    '<"eve@far.example"@lab.example>': "550",
    r'<"eve\@far.example"@lab.example>': "550",
    "<ben@lab.example@far.example>": "553",
    "<eve@far.example@lab.example>": "553",
    "<ben@lab.example,eve@far.example>": "553",
    "<ben@lab.example> <eve@far.example>": "501",
    "<ben@lab.example><eve@far.example>": "553",
    "<<ben@lab.example>>": "553",
    "<ben@lab.example": "553",
    "ben@lab.example>": "553",
    "<>": "553",
    "<@>": "553",
    "<ben@>": "553",
    "<@lab.example>": "553",
    '<""@lab.example>': "550",
    "<.ben@lab.example>": "553",
    "<ben.@lab.example>": "553",
    "<b..en@lab.example>": "553",
    "<ben@lab..example>": "553",
    "<ben@.lab.example>": "553",
    "<ben@[127.0.0.1]>": "550",
    "<ben@[IPv6:::1]>": "550",
    "<ben@[x y]>": "553",
    "<ben@127.0.0.1>": "550",
    "<ben@localhost>": "550",
    "<|/bin/sh@lab.example>": "550",
    "</etc/passwd@lab.example>": "550",
    "<../ana@lab.example>": "553",
    "<ben\t@lab.example>": "553",
    "<ben @lab.example>": "553",
    "<b(x)en@lab.example>": "553",
    "<ben\\@lab.example>": "553",
    "<ben\0@lab.example>": "501",
    "<ben\r@lab.example>": "501",
    '<"ben\r"@lab.example>': "501",
    "<ben\x7f@lab.example>": "501",
    "<ben@lab\u3002example>": "553",
    "<be\u200bn@lab.example>": "553",
    "<\u212aen@lab.example>": "553",
    "<ben\udcff@lab.example>": "553",
    f"<{'x' * 64}@lab.example>": "550",
    f"<{'x' * 65}@lab.example>": "501",
    f"<x@{'y' * 63}.example>": "550",
    f"<x@{'y' * 64}.example>": "550",
    f"<x@{'.'.join(['y' * 49] * 5)}>": "550",
    f"<x@{'.'.join(['y' * 49] * 6)}>": "501",
    f"<{'@a.example,' * 40}@b.example:ben@lab.example>": "250",
}


@pytest.mark.usefixtures("nothing_logged")
@pytest.mark.parametrize("address", ADDRESSES, ids=lambda text: ascii(text)[:60])
def test_no_trick_with_an_address_relays_or_finds_another_mailbox(lab: Lab, address: str) -> None:
    """RFC 5321 sections 3.6 and 7.8: open relays by source route, percent hack and quoting."""
    said = f"RCPT TO:{address}\r\n".encode("utf-8", "surrogateescape")
    heard, _ = converse(
        lab, "smtp", [HELLO + b"MAIL FROM:<>\r\n" + said + b"DATA\r\n.\r\nQUIT\r\n"]
    )
    read_replies("SMTP", heard)
    replies = codes(heard).split()
    assert replies[3] == ADDRESSES[address]
    assert len(lab.inbox("ben@lab.example")) == (replies[3] == "250")
    assert not lab.inbox(ANA)


@pytest.mark.parametrize(
    "hello",
    [
        b"EHLO x\rSubject: y",
        b"EHLO x\0y",
        b"HELO [x",
        b"HELO " + b"x" * 300,
        b"EHLO \xff\xfe",
        b"HELO \xe2\x80\xae",
        b"HELO <b>&",
    ],
)
@pytest.mark.usefixtures("nothing_logged")
def test_no_name_of_a_client_gets_into_the_header(lab: Lab, hello: bytes) -> None:
    """CWE-93: what a client calls itself stands in the Received field (RFC 5321 section 4.4)."""
    heard, _ = converse(lab, "smtp", [hello + b"\r\n" + TO_BEN + b"Subject: x\r\n.\r\nQUIT\r\n"])
    read_replies("SMTP", heard)
    for message in lab.inbox("ben@lab.example"):
        trace = rb"Return-Path: .*\r\nReceived: from [\w.:\[\]-]+ \(\[127.0.0.1\]\)\r\n by "
        assert re.match(trace, message.octets)
        assert message.octets.count(b"Subject:") == 1


# -- names of mailboxes


@pytest.mark.parametrize(
    "name",
    [
        *(b"../../../etc/passwd", b"/etc/passwd", b"..", b"a/../../b", b"INBOX/../../x", b"~root"),
        *(b"a\r\nz OK injected", b"a\nb", b"a\rb", b"a\0b", b"a\x1b[2Jb", b'a"b', b"a\\b", b"%*"),
        *(b"x" * 4000, b"a/" * 500, b"CON", b"C:\\x", b"'; DROP TABLE message; --", b"\xff\xfe"),
    ],
    ids=lambda name: ascii(name)[:30],
)
@pytest.mark.usefixtures("nothing_logged")
def test_no_name_of_a_mailbox_leaves_its_place(lab: Lab, name: bytes) -> None:
    """CWE-22, CWE-89, CWE-93; RFC 3501 section 5.1: a name is told as a string, or refused."""
    literal = b"{%d+}\r\n%b" % (len(name), name)
    said = b"a CREATE %b\r\nb LIST %b\r\nc STATUS %b (MESSAGES)\r\nd DELETE %b\r\n" % (
        literal,
        b'"" *',
        literal,
        literal,
    )
    heard, _ = converse(lab, "imap", [IMAP_LOGIN + said])
    read_replies("IMAP", heard)
    assert b"\r\nz OK injected\r\n" not in heard.replace(b"\r\n" + name, b"")
    tags = [row[:4] for row in heard.splitlines() if row[:2] in (b"a ", b"b ", b"c ", b"d ")]
    assert len(tags) >= 4
    assert lab.inbox(ANA) == ()


COSTLY = {
    # what stands before, what is repeated (numbered where # stands), how often, what stands behind
    "stars": ('LIST "" "', "*", 10_000, 'x"'),
    "stars and percents": ('LIST "" "', "%*", 10_000, 'x"'),
    "stars and letters": ('LIST "" "', "*a", 10_000, '"'),
    "NOT": ("SEARCH ", "NOT ", 12_000, "ALL"),
    "parentheses": ("SEARCH ", "(", 20_000, "ALL"),
    "OR": ("SEARCH ", "OR ALL ", 5_000, "ALL"),
    "TEXT": ("SEARCH ", "TEXT a ", 5_000, "ALL"),
    "ranges": ("UID FETCH ", "1:4294967295,", 4_000, "1 FLAGS"),
    "digits": ("FETCH ", "9", 5_000, " FLAGS"),
    "section": ("FETCH 1 BODY[", "1.", 20_000, "1]"),
    "items": ("FETCH 1 (", "BODY.PEEK[] ", 1_000, "FLAGS)"),
    "fields": ("FETCH 1 BODY.PEEK[HEADER.FIELDS (", "a ", 20_000, "b)]"),
    "flags": ("STORE 1 FLAGS (", "k# ", 8_000, ")"),
}
HUGE = ("FETCH 1:4294967295 FLAGS", "FETCH 1 BODY[]<99999999999999999999.99999999999999999999>")


def command_of(kind: str, times: int | None = None) -> str:
    before, unit, most, after = COSTLY[kind]
    return before + "".join(unit.replace("#", str(n)) for n in range(times or most)) + after


def ask(lab: Lab, command: str) -> bytes:
    heard, _ = converse(
        lab, "imap", [IMAP_LOGIN + b"s SELECT INBOX\r\nt " + command.encode() + b"\r\n"]
    )
    return heard


MAIL_TO_ANA = HELLO + TO_BEN.replace(b"ben", b"ana") + b"Subject: x\r\n.\r\nQUIT\r\n"


@pytest.mark.parametrize("command", [*map(command_of, COSTLY), *HUGE], ids=[*COSTLY, *HUGE])
@pytest.mark.usefixtures("nothing_logged")
def test_every_costly_command_is_answered(lab: Lab, command: str) -> None:
    """CWE-407, CWE-674, CWE-1333: one line that takes a server long is an attack on all others."""
    converse(lab, "smtp", [MAIL_TO_ANA])
    heard = ask(lab, command)
    read_replies("IMAP", heard)
    assert len(heard) < 10_000_000
    assert b"\r\nt " in heard or b"\r\n* BYE" in heard


@pytest.mark.parametrize("kind", COSTLY)
def test_no_command_costs_more_than_its_length(inline: Network, kind: str) -> None:
    with Lab(network=inline) as lab:
        converse(lab, "smtp", [MAIL_TO_ANA])
        times = min(COSTLY[kind][2] // 2, 500)
        assert growth(lambda times: ask(lab, command_of(kind, times)), times) < LINEAR


@pytest.mark.parametrize("command", HUGE)
def test_a_huge_number_costs_no_more_than_a_small_one(inline: Network, command: str) -> None:
    with Lab(network=inline) as lab:
        converse(lab, "smtp", [MAIL_TO_ANA])
        small = steps(lambda: ask(lab, re.sub("[0-9]{5,}", "2", command)))
        assert steps(lambda: ask(lab, command)) < LINEAR * small


# -- mail that costs its reader much


HOSTILE_MAIL = {
    # CWE-407, CWE-674, CWE-1333; RFC 5322 section 2.1.1 on long lines
    "a header line of 8 MB": b"Subject: " + b"x" * 8_000_000 + b"\r\n\r\n",
    "a header folded 100,000 times": b"To: "
    + b"a@b.example,\r\n " * 100_000
    + b"c@d.example\r\n\r\n",
    "100,000 header fields": b"X: y\r\n" * 100_000 + b"\r\n",
    "a thousand recipients' quotes": b"To: " + b'"\\"' * 300_000 + b"\r\n\r\n",
    "comments in comments": b"From: " + b"(" * 300_000 + b")" * 300_000 + b" a@b\r\n\r\n",
    "angles": b"To: " + b"<" * 500_000 + b"\r\n\r\n",
    "group in group": b"To: " + b"a:" * 300_000 + b";\r\n\r\n",
    "many parameters": b"Content-Type: text/plain" + b"; a=b" * 100_000 + b"\r\n\r\n",
    "open parameters": b"Content-Type: text/plain; a=" + b'"\\' * 200_000 + b"\r\n\r\n",
    "no end to the header": b"Subject: x\r\n" * 100_000,
    "10,000 levels": b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n)
        for n in range(10_000)
    ),
    "10,000 messages in messages": b"Content-Type: message/rfc822\r\n\r\n" * 10_000,
    "100,000 parts": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    + b"--b\r\n\r\n\r\n" * 100_000,
    "the same boundary in each": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
    * 10_000,
    "an encoded word of 1 MB": b"Subject: =?utf-8?q?" + b"=41" * 350_000 + b"?=\r\n\r\n",
    "100,000 encoded words": b"Subject: " + b"=?utf-8?b?QQ==?= " * 100_000 + b"\r\n\r\n",
    "references": b"References: " + b"<a@b> " * 300_000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("kind", HOSTILE_MAIL)
@pytest.mark.usefixtures("nothing_logged")
def test_no_message_costs_its_reader_much(inline: Network, kind: str) -> None:
    """By APPEND, since SMTP takes no line over 998 octets (RFC 5321 section 4.5.3.1.6)."""
    octets = HOSTILE_MAIL[kind]
    most = 2_000_000 + len(octets)  # steps: what the bounds on parts allow, and one for each octet
    with Lab(network=inline) as lab:
        append = b"a APPEND INBOX {%d+}\r\n%b\r\n" % (len(octets), octets)
        converse(lab, "imap", [IMAP_LOGIN + append])
        fetch = b"b FETCH 1 (ENVELOPE BODYSTRUCTURE BODY.PEEK[1.1.1.1] BODY.PEEK[HEADER])\r\n"
        search = b"c SEARCH HEADER Subject nowhere TEXT nowhere FROM nowhere\r\n"
        for listener, says, answers in (
            ("imap", IMAP_LOGIN + b"s SELECT INBOX\r\n" + fetch + search, (b"b OK ", b"c OK ")),
            ("pop3", POP3_LOGIN + b"LIST\r\nTOP 1 1\r\nQUIT\r\n", (b"+OK",) * 6),
        ):
            heard: list[bytes] = []
            spent = steps(lambda: heard.append(converse(lab, listener, [says])[0]))  # noqa: B023
            assert spent < most
            rows = [row for row in heard[0].split(b"\r\n") if row.startswith(answers)]
            assert len(rows) == len(answers)


@pytest.mark.parametrize(
    "date",
    [
        *("31-Dec-9999 23:59:59 -2359", "01-Jan-0001 00:00:00 +2359", "01-Jan-0001 00:00:00 +0000"),
        *("31-Dec-9999 23:59:59 +0000", "31-Feb-2026 00:00:00 +0000", "01-Jan-2026 25:61:61 +9999"),
    ],
)
@pytest.mark.usefixtures("nothing_logged")
def test_no_date_makes_a_mailbox_unreadable(lab: Lab, date: str) -> None:
    """RFC 3501 section 6.3.11: the date of APPEND is the client's choice."""
    heard, _ = converse(
        lab,
        "imap",
        [
            IMAP_LOGIN
            + f'a APPEND INBOX "{date}" {{1+}}\r\nx\r\n'.encode()
            + b"b SELECT INBOX\r\nc FETCH 1:* INTERNALDATE\r\nd SEARCH SINCE 1-Jan-2026\r\n"
        ],
    )
    assert b"\r\nd OK " in heard
    assert all(message.received.year for message in lab.inbox(ANA))
    heard, _ = converse(lab, "pop3", [POP3_LOGIN + b"STAT\r\nQUIT\r\n"])
    assert b"-ERR" not in heard


# -- octets that are no text, in every command

GARBAGE = [
    *(
        b"\0",
        b"\xff\xfe",
        b"\xc3",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\r",
        b"\r\r",
        b"\x1b[2J",
    ),
    *(bytes(range(1, 10)), bytes(range(128, 256)), b"\x85\xa0", "\u2028\ufeff\u202e".encode()),
    *(b"%s%n%x", b"${jndi:ldap://x.example}", b"$(id)`id`;id|id", b"'\"\\", b"\t\v\f"),
]
COMMANDS = {
    "smtp": (
        b"%b|%b x|HELO %b|EHLO %b|MAIL FROM:<%b>|MAIL FROM:<a@b.example> %b|"
        b"MAIL FROM:<> SIZE=%b|MAIL FROM:<> BODY=%b|RCPT TO:<%b@lab.example>|RCPT TO:<ben@%b>|"
        b"RCPT TO:<ben@lab.example> %b|DATA %b|RSET %b|NOOP %b|VRFY %b|HELP %b|EXPN %b|"
        b"STARTTLS %b|AUTH %b|AUTH PLAIN %b|BDAT %b|BDAT 5 %b|QUIT %b"
    ).split(b"|"),
    "pop3": (
        b"%b|%b x|USER %b|PASS %b|APOP %b|AUTH %b|AUTH PLAIN %b|AUTH PLAIN\r\n%b|CAPA %b|STLS %b|"
        b"STAT %b|LIST %b|RETR %b|DELE %b|TOP %b|TOP 1 %b|UIDL %b|NOOP %b|RSET %b|QUIT %b"
    ).split(b"|"),
    "imap": (
        b"%b|%b NOOP|a %b|a LOGIN %b %b|a LOGIN x %b|a AUTHENTICATE %b|a AUTHENTICATE PLAIN\r\n%b|"
        b'a SELECT %b|a CREATE %b|a DELETE %b|a RENAME %b x|a RENAME x %b|a LIST %b *|a LSUB "" %b|'
        b"a STATUS INBOX %b|a APPEND INBOX %b|a APPEND %b {1+}\r\nx|a APPEND INBOX (%b) {1+}\r\nx|"
        b"a FETCH %b FLAGS|a FETCH 1 %b|a FETCH 1 BODY[%b]|a FETCH 1 BODY[HEADER.FIELDS (%b)]|"
        b"a STORE 1 %b|a STORE 1 FLAGS (%b)|a SEARCH %b|a SEARCH SUBJECT %b|a SEARCH CHARSET %b x|"
        b"a COPY 1 %b|a MOVE 1 %b|a UID %b|a ENABLE %b|a IDLE\r\n%b|a SUBSCRIBE %b|a CLOSE %b"
    ).split(b"|"),
}


@pytest.mark.usefixtures("nothing_logged")
@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda octets: ascii(octets)[:30])
@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("logged_in", [False, True])
def test_garbage_in_any_command_gets_a_readable_answer(
    inline: Network, listener: str, garbage: bytes, logged_in: bool
) -> None:
    """CWE-20, CWE-117, CWE-176; RFC 5321 section 2.4, RFC 2449 section 4, RFC 3501 section 9."""
    login = {"smtp": HELLO + b"MAIL FROM:<>\r\n", "pop3": POP3_LOGIN}.get(listener)
    login = login or IMAP_LOGIN + b"s SELECT INBOX\r\n"
    with Lab(network=inline) as lab:
        for command in COMMANDS[listener]:
            said = command.replace(b"%b", garbage) + b"\r\n"
            heard, session = converse(lab, listener, [login + said if logged_in else said])
            read_replies(session.protocol, heard)
            assert b"SERVERBUG" not in heard
            assert b"server failed" not in heard
            assert b"server made a mistake" not in heard
            assert b"\x1b" not in heard
        still_serves(lab, listener)
