"""What the fuzz tests throw octets at, and what has to be true whatever the octets are.

Each target takes octets and raises `AssertionError` with what is wrong. `test_fuzz.py` feeds them
from a grammar and from the corpus, `benchmarks/fuzz.py` by coverage for as long as one likes.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import socket
import ssl
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pymap.parsing import Params
from pymap.parsing.state import ParsingInterrupt, ParsingState

from labserver import (
    Lab,
    Limits,
    Mailbox,
    Message,
    Session,
    compare,
    read_log,
    replay,
    sequence,
    show,
    states,
    wire,
)
from labserver.catalog import PROTOCOLS, explain, legal, path
from labserver.dialogue import Bounds, dialogue
from labserver.mime import Part
from labserver.network import Network
from labserver.servers.addresses import is_address, read_path
from labserver.servers.imap.commands import all_commands
from labserver.servers.imap.structure import Body, Envelope
from labserver.transcript import ProtocolName, Side
from labserver.web.mail import Letter
from tests.steps import steps

CORPUS = Path(__file__).parent / "corpus"
NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
MAIL = (
    b"From: Ana <ana@lab.example>\r\nSubject: one\r\n\r\nA line.\r\n.\r\n..\r\n",
    b"From: eve@far.example\r\nTo: (a (b) c) x:y,z;\r\n"
    b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\none\r\n--b\r\n"
    b"Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\ntext\r\n--b--\r\n",
)
"""What is in ana's INBOX when a client comes."""


# -- whole servers


class Watched(logging.Handler):
    """Keeps what the servers had to complain of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        # aiosmtpd warns of each odd client; only its errors are ours.
        if record.name != "mail.log" or record.levelno >= logging.ERROR:
            self.heard.append(logging.Formatter().format(record))

    @contextmanager
    def listening(self) -> Iterator[None]:
        loggers = [logging.getLogger(name) for name in ("labserver", "asyncio", "mail.log")]
        for logger in loggers:
            logger.addHandler(self)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeHandler(self)


@contextmanager
def lab_for_fuzzing(network: Network) -> Iterator[Lab]:
    """A lab that `refill` can make as good as new. In memory where that can be had: hundreds of
    labs, or of commits, would wait for the disk."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with (
        tempfile.TemporaryDirectory(dir=memory) as folder,
        Lab(network=network, data=folder, limits=Limits(sessions=2)) as lab,
    ):
        yield lab


def refill(lab: Lab) -> None:
    """Put into ana's INBOX what there is to fetch, and nothing else anywhere."""
    store = lab._store

    def fill() -> None:
        with store.transaction():
            for account in lab.accounts:
                for mailbox in store.mailboxes(account):
                    store.delete_mailbox(mailbox.id)
                for name in store.subscriptions(account):
                    store.unsubscribe(account, name)
            inbox = store.ensure_mailbox("ana@lab.example", "INBOX")
            for octets in MAIL:
                store.append(inbox.id, octets, NOON, frozenset())

    lab.network.run(fill)


def converse(lab: Lab, listener: str, chunks: Iterable[bytes]) -> tuple[bytes, Session]:
    """Send all chunks, then no more; what the server said until it hung up, and the session."""
    sock = lab.network.connect(lab.address(listener), timeout=60)
    if listener in ("submissions", "pop3s", "imaps"):
        sock = lab.tls.wrap_socket(sock, server_hostname="localhost")
    heard = bytearray()
    try:
        for chunk in chunks:
            sock.sendall(chunk)
        # Under real TLS there is no half-closing: it would take the answers with it.
        if not isinstance(sock, ssl.SSLSocket):
            sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # it has hung up already
    try:
        while piece := sock.recv(65536):
            heard += piece
    except TimeoutError:
        raise AssertionError("the server said nothing more and didn't hang up either") from None
    except OSError:
        pass
    sock.close()
    return bytes(heard), lab.sessions[-1]


def play(lab: Lab, listener: str, chunks: Sequence[bytes]) -> None:
    """One client's conversation; afterwards all has to be as it should."""
    refill(lab)
    watched = Watched()
    before = stored(lab)
    with watched.listening():
        heard, session = converse(lab, listener, chunks)
        read_replies(session.protocol, heard)
        look(session)
        keeps_to_the_rules(session)
        still_serves(lab, listener)
    assert not watched.heard, "\n".join(watched.heard)
    assert session.closed
    assert stored(lab) == before + promised(session.protocol, heard), "250 is a promise"


def stored(lab: Lab) -> int:
    """How many messages have been stored since the lab began, whatever became of them."""

    def count() -> int:
        query = "SELECT max(seq) FROM sqlite_sequence WHERE name = 'content'"
        ((number,),) = lab._store._db.execute(query).fetchall()
        return int(number or 0)

    return lab.network.run(count)


_PROMISES = {
    "SMTP": rb"250 \S+ Stored as message",
    "POP3": rb"(?!)",
    "IMAP": rb"\S+ OK \[APPENDUID ",
}


def promised(protocol: ProtocolName, heard: bytes) -> int:
    """How many messages the server said that it has stored."""
    return len(re.findall(rb"(?m)^" + _PROMISES[protocol], heard))


# -- replies


def read_replies(protocol: ProtocolName, heard: bytes) -> None:
    """Every reply is one that a client can read."""
    {"SMTP": _smtp_replies, "POP3": _pop3_replies, "IMAP": _imap_replies}[protocol](heard)


def _lines(heard: bytes) -> list[bytes]:
    assert heard == b"" or heard.endswith(b"\r\n"), f"the last reply has no end: {heard[-80:]!r}"
    rows = heard.split(b"\r\n")[:-1]
    for row in rows:
        assert not re.search(rb"[\r\n\0]", row), f"a bare CR, LF or NUL in {row!r}"
    return rows


_ENHANCED = re.compile(rb"([245])\d\d \1\.\d{1,3}\.\d{1,3} |3|501 Syntax: (?:EHLO|HELO) ")
"""RFC 2034 section 4: not the greeting, not the replies to HELO and EHLO."""


def _smtp_replies(heard: bytes) -> None:
    code, extended = b"", False
    for row in _lines(heard):
        if row == b"250-ENHANCEDSTATUSCODES":
            extended = True
        elif row == b"250 lab.example":
            extended = False  # that was HELO
        elif extended and code != b"250" and not row.startswith(b"250-"):
            assert _ENHANCED.match(row), f"a reply without an enhanced status code: {row!r}"
        assert re.match(rb"[2-5]\d\d([ -]|\Z)", row), f"no reply: {row!r}"
        assert code in (b"", row[:3]), f"a reply with two codes: {row!r}"
        assert len(row) <= 510, f"a reply line has 512 octets at most: {row!r}"
        row.decode()
        code = row[:3] if row[3:4] == b"-" else b""
    assert code == b"", "a reply without its last line"


def _pop3_replies(heard: bytes) -> None:
    for row in _lines(heard):
        assert len(row) <= 998, f"a line too long: {row!r}"


_LITERAL = re.compile(rb"\{(\d+)\}\Z")
_STATUS = re.compile(rb"(\*|[^\s(){%*\"\\+]+) (OK|NO|BAD|BYE|PREAUTH) ?[^\r\n]*\Z")


def _imap_replies(heard: bytes) -> None:
    while heard:
        line, end, heard = heard.partition(b"\r\n")
        assert end, f"a response without an end: {line!r}"
        begin = line
        while announced := _LITERAL.search(line):
            octets = int(announced[1])
            assert len(heard) >= octets, "a literal shorter than announced"
            assert b"\0" not in heard[:octets], "a NUL in a literal"
            line, end, heard = heard[octets:].partition(b"\r\n")
            assert end, f"a response without an end: {line!r}"
            assert not re.search(rb"[\r\n\0]", line), f"a bare CR, LF or NUL in {line!r}"
        assert not re.search(rb"[\r\n\0]", begin), f"a bare CR, LF or NUL in {begin!r}"
        assert begin.startswith((b"* ", b"+ ")) or _STATUS.match(begin), f"no response: {begin!r}"
        assert b"SERVERBUG" not in begin, begin


def look(session: Session) -> None:
    """A session can be read, explained and shown, whatever was said."""
    str(session)
    explain(session)
    path(session)
    for view in (show, sequence, wire, replay, states):
        view(session)
    compare(session, session)


def keeps_to_the_rules(session: Session) -> None:
    """The server says nothing that the catalog doesn't know, as far as that can be told."""
    # What follows on a client's mistake can't always be told, nor what is said behind a literal
    # that nobody waits for; but the first mistake is not the server's.
    said = b"".join(line.data for line in session.lines if line.who == "C")
    if session.protocol == "IMAP" and b"{" in said:
        return
    for problem in legal(session)[:1]:
        line = session.lines[problem.line]
        assert line.who == "C", f"{problem.sentence} {line.data!r}"


def still_serves(lab: Lab, listener: str) -> None:
    """A client that behaves is served as if nothing had happened."""
    ending = {"s": b"QUIT\r\n", "p": b"QUIT\r\n", "i": b"z LOGOUT\r\n"}[listener[0]]
    heard, _ = converse(lab, listener, [ending])
    begin, end = {
        "s": (b"220 ", b"221 "),
        "p": (b"+OK ", b"+OK "),
        "i": (b"* OK ", b"z OK "),
    }[listener[0]]
    rows = heard.splitlines()
    assert rows, "no greeting"
    assert rows[0].startswith(begin), heard
    assert rows[-1].startswith(end), heard


# -- parts that read what strangers wrote


def cuttings(octets: bytes) -> Iterator[list[bytes]]:
    """The octets at once, in lines, and one by one, as a network may bring them."""
    yield [octets]
    yield octets.splitlines(keepends=True)
    if len(octets) <= 2000:
        yield [octets[at : at + 1] for at in range(len(octets))]


def dialogues(octets: bytes) -> None:
    """However a dialogue's octets are cut, the same lines come of it, and none is lost."""
    for protocol in PROTOCOLS:
        _dialogue(protocol, octets)


def _dialogue(protocol: ProtocolName, octets: bytes) -> None:
    # Two zero octets change sides; so one seed holds what both of them said.
    turns: list[tuple[Side, bytes]] = []
    for number, said in enumerate(octets.split(b"\0\0")):
        turns.append(("S" if number % 2 else "C", said))
    pictures = set()
    for size in (1, 7, max(1, len(octets))):
        read = dialogue(protocol, Bounds(body=1000, session=100_000, lines=1000))
        for who, said in turns:
            for start in range(0, len(said), size):
                read.feed(0.0, who, said[start : start + size], False)
        lines = [*read.lines, *read.rest()]
        for who in ("C", "S"):
            sent = sum(len(said) for side, said in turns if side == who)
            kept = sum(line.octets for line in lines if line.who == who)
            assert kept <= sent, f"{protocol}: {who} sent {sent} octets, not {kept}"
        if not read.dropped:
            assert sum(line.octets for line in lines) == len(b"".join(said for _, said in turns))
        for line in lines:
            start, end = line.secret or (0, 0)
            assert 0 <= start <= end <= len(line.data)
        pictures.add(tuple((line.who, line.data, line.kind, line.secret) for line in read.lines))
    assert len(pictures) == 1, f"{protocol}: it depends on how the octets are cut"


def addresses(octets: bytes) -> None:
    """An address is read quickly or not at all, and what is read is safe in a header field."""
    text = octets.decode("utf-8", "surrogateescape")
    path = read_path(text)
    if path is not None:
        assert not re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", path.address)
        again = read_path(f"<{path.address}>")
        assert again is not None
        assert again.address == path.address
    is_address(text)


_COMMANDS = all_commands()


def imap_commands(octets: bytes) -> None:
    """Octets are a command, or what pymap says where they are none."""
    for line in octets.splitlines(keepends=True):
        params = Params(ParsingState(continuations=[]), max_append_len=1000)
        # What the server's own reading expects.
        with contextlib.suppress(ParsingInterrupt, ValueError, RecursionError):
            _COMMANDS.parse(memoryview(line), params)


def mime(octets: bytes) -> None:
    """Any octets are a message with parts, an ENVELOPE and a BODYSTRUCTURE."""
    message = Part(octets)
    for part in message.walk():
        assert message.start <= part.start <= part.body_start <= part.end <= message.end
    for written in (Envelope(message), Body(message)):
        _one_list(bytes(written))
    _one_list(bytes(Body(message).extended))


def _one_list(written: bytes) -> None:
    """Balanced parentheses outside strings, and strings that end."""
    depth = at = 0
    token = re.compile(rb'"(?:[^"\\\r\n]|\\["\\])*"|\{(\d+)\}\r\n|[()]|[^"{()]+')
    while at < len(written):
        found = token.match(written, at)
        assert found is not None, f"no string ends here: {written[at : at + 40]!r}"
        at = found.end() + int(found[1] or 0)
        depth += {b"(": 1, b")": -1}.get(found[0], 0)
        assert depth > 0 or at == len(written), "more than one list"
    assert depth == 0


def messages(octets: bytes) -> None:
    """Any octets are a message that can be shown."""
    message = Message(octets, 1, NOON, frozenset(), None)
    str(message)
    repr(message)
    for field in ("Subject", "From", "To", "Date", "Content-Type", "Message-ID"):
        message[field]
        str(message.email[field])
    assert message.text.encode() is not None
    assert message.html.encode() is not None
    assert all(one.name.encode() is not None for one in message.attachments)
    for part in message.email.walk():
        part.get_content_type(), part.get_filename(), part.is_attachment()
    message.email.as_bytes()
    for view in (show(message), show(Mailbox([message]))):
        assert all(c.isprintable() or c == "\n" for c in view.html + view.text)


def logs(octets: bytes) -> None:
    """Any text is a log that can be read and shown, or one sentence says why not."""
    with contextlib.suppress(ValueError):
        log = read_log(octets.decode("utf-8", "replace"))
        show(log)
        for session in log.sessions:
            look(session)


PARSERS: dict[str, Callable[[bytes], None]] = {
    "dialogues": dialogues,
    "addresses": addresses,
    "imap commands": imap_commands,
    "mime": mime,
    "messages": messages,
    "logs": logs,
}


# -- what each reader's work grows with


def letter(octets: bytes) -> Message:
    return Message(octets, 1, NOON, frozenset(), None)


def fields(octets: bytes) -> None:
    message = letter(octets)
    for field in ("Subject", "From", "To", "Date", "Content-Type", "Message-ID"):
        message[field]


def email(octets: bytes) -> None:
    for part in letter(octets).email.walk():
        with contextlib.suppress(RecursionError):  # so Python's own reading of a field gives up
            part.get_content_type()
            part.get_filename()


def on_the_page(octets: bytes) -> None:
    seen = Letter(letter(octets))
    seen.values()
    seen.rendered()


def log(octets: bytes) -> None:
    with contextlib.suppress(ValueError):
        read_log(octets.decode("utf-8", "replace"))


def json(octets: bytes) -> None:
    with contextlib.suppress(ValueError):
        Session.from_json(octets.decode("utf-8", "replace"))


def one_dialogue(octets: bytes) -> None:
    for protocol in PROTOCOLS:
        read = dialogue(protocol, Bounds(body=65_536, session=4_194_304, lines=100_000))
        read.feed(0.0, "C", octets, False)


def written(octets: bytes) -> None:
    message = Part(octets)
    bytes(Envelope(message))
    bytes(Body(message).extended)


READERS: dict[str, Callable[[bytes], object]] = {
    "addresses": addresses,
    "dialogue": one_dialogue,
    "email": email,
    "fields": fields,
    "imap commands": imap_commands,
    "imap messages": written,
    "json": json,
    "log": log,
    "message": lambda octets: str(letter(octets)),
    "page": on_the_page,
    "show": lambda octets: show(letter(octets)),
}
"""What reads octets that strangers wrote, a name for each."""

_HEADER = b"From: a@b.example\r\n"
_MULTIPART = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
_HTML = b"Content-Type: text/html\r\n\r\n"
_TRIED: Mapping[str, Sequence[tuple[bytes, bytes]]] = {
    # what stands before, and what is repeated
    "addresses": [
        (b"<", b"a."),
        (b"", b"("),
        (b"<", b"@a,"),
        (b'"', b'\\"'),
        (b"", b"<"),
        (b"", b"a:"),
    ],
    "imap commands": [
        *((b"a LOGIN ", b"x"), (b"a SEARCH ", b"NOT "), (b"a SEARCH ", b"("), (b"a FETCH ", b"1,")),
        *((b"a STORE 1 FLAGS (", b"k "), (b"a FETCH 1 (", b"BODY[] "), (b'a LIST "" "', b"*a")),
        *((b'a LOGIN "', b'\\"'), (b"a FETCH 1 BODY[", b"1."), (b"", b"a NOOP\r\n")),
    ],
    "json": [
        *((b'{"version": 1, "lines": [', b"[],"), (b"", b"["), (b'{"a":', b'{"a":'), (b'"', b"x")),
        *((b'{"version": ', b"1"), (b'{"version": 1, "lines": [', b"{},"), (b"", b"\\u0041")),
    ],
    "log": [
        *(
            (b"", unit)
            for unit in (b">", b"> ", b"AUTH ", b"AUTH\n", b"C: AUTH LOGIN\n", b"\n", b" ")
        ),
        *((b"", unit) for unit in (b"-> EHLO x\n<- 250 x\n", b"250-x\n", b"S: 250 x\nC: NOOP\n")),
        *(
            (b"", unit)
            for unit in (b"<a@b> ", b"550 5.1.1 no; ", b"=?utf-8?q?a?= ", b"\x1b[2J", b"a")
        ),
        *((b"AUTH LOGIN\n", unit) for unit in (b"QUFBQUFBQUE=\n", b"QUFB ", b"334 \n")),
        *(
            (b"Final-Recipient: rfc822; a@b\n", unit)
            for unit in (b"Status: 5.1.1\n", b" x\n", b"; ")
        ),
        *(
            (b"Nov 30 12:00:00 h postfix/smtp[1]: A1: ", unit)
            for unit in (b"to=<a@b>, ", b"(", b"x ")
        ),
    ],
}
_MAIL = [
    *((b"", unit) for unit in (b"a", b"\r\n", b"\r", b"\n", b"X: y\r\n", b"X", b" \r\n", b":")),
    *((_HEADER + b"Subject: ", unit) for unit in (b"x ", b"=?utf-8?q?a?= ", b"=?x?", b"\r\n x")),
    *((_HEADER + b"To: ", unit) for unit in (b"a@b, ", b"(", b'"', b"<", b"a:", b"\\", b",\r\n ")),
    *(
        (_HEADER + b"Content-Type: text/plain", unit)
        for unit in (b"; a=b", b"; a*1*=''x", b';"', b"(")
    ),
    *((_HEADER + _MULTIPART, unit) for unit in (b"--b\r\n\r\n", b"--b", b"--b--\r\n", b"--b\r\n")),
    *((b"", unit) for unit in (_MULTIPART + b"--b\r\n", b"Content-Type: message/rfc822\r\n\r\n")),
    *(
        (_HEADER + _HTML, unit)
        for unit in (b"<a ", b"<", b"<p>", b"&", b"<!--", b"<img src=cid:a>", b'="')
    ),
    *((_HEADER + _HTML + b"<a ", unit) for unit in (b"x=y ", b"\n", b"target", b"'")),
]


def tried(reader: str) -> Sequence[tuple[bytes, bytes]]:
    """What is worth repeating to that reader: what stands before it, and the octets repeated."""
    return _TRIED.get(reader, _MAIL)


def grows(read: Callable[[bytes], object], before: bytes, unit: bytes, size: int) -> list[float]:
    """By how much the steps of `read` grow each time that its input doubles, twice.

    Input that is too short to tell is given no growth.
    """
    inputs = [before + unit * (octets // len(unit)) for octets in (size, 2 * size, 4 * size)]
    read(inputs[0][:100])
    counted = [steps(lambda octets=octets: read(octets)) for octets in inputs]  # type: ignore[misc]
    if counted[-1] < 1_000:
        return [1.0, 1.0]
    return [round(more / max(less, 1), 2) for less, more in itertools.pairwise(counted)]
