"""How FETCH is written: octet for octet as pymap would, in turns, in little memory."""

from __future__ import annotations

import asyncio
import random
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from dialogue import Client
from pymap.fetch import MessageAttributes
from pymap.parsing.response import ResponseOk
from pymap.parsing.response.specials import FetchResponse
from test_servers_imap import (  # noqa: F401 (one is a fixture of all tests)
    FETCHED,
    HELLO,
    MIXED,
    NOON,
    SEEN,
    Imap,
    _no_client_stays_open,
    ana,
    keep,
)

from labserver import Lab
from labserver.network import Network
from labserver.network.clock import Clock
from labserver.network.connection import Connection
from labserver.network.inline import InlineNetwork
from labserver.servers.imap import fetch
from labserver.servers.imap.commands import FetchCommand, fetch_command
from labserver.servers.imap.fetch import Fetched
from labserver.servers.imap.mailboxes import Mailbox
from labserver.servers.imap.messages import Message
from labserver.servers.imap.selected import Selected
from labserver.store import Store

pytestmark = pytest.mark.protocol


@pytest.fixture
def inline() -> Iterator[Network]:
    network = InlineNetwork()
    yield network
    network.close()


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store(None)
    yield made
    made.close()


# -- as pymap writes it

MESSAGES = (
    MIXED,
    HELLO,
    b"",
    b"\r\n",
    b"a: 100%\n\nbare\nline ends",
    "Subject: Gr\u00fc\u00dfe\r\nTo: <a@b.example>\r\n\r\n\u00e9\r\n".encode(),
    b"no header at all",
    b"Subject: 0\r\n\r\n\0\xff\r\n",
    b"Content-Type: message/rfc822\r\n\r\n" + MIXED,
)
FLAGS = (SEEN, frozenset(), frozenset({"\\Flagged", "$Work"}), frozenset({"zz", "\\Seen", "Aa"}))
ITEMS = (
    *(item for item, _ in FETCHED if not item.startswith(("(", "F"))),
    *("BODY[]", "BODY.PEEK[]", "RFC822", "RFC822.HEADER", "RFC822.TEXT", "FLAGS"),
    *("BODY[]<0.5>", "BODY.PEEK[]<3.100000>", "BODY.PEEK[]<999.1>", "BODY[HEADER]<2.7>"),
    *("BODY[HEADER]", "BODY.PEEK[TEXT]", "BODY.PEEK[TEXT]<1.3>", "BODY[2.MIME]", "BODY[1.1.1]"),
    *("BODY.PEEK[HEADER.FIELDS (To)]", "BODY.PEEK[HEADER.FIELDS (to Subject)]"),
    *('BODY[HEADER.FIELDS.NOT ("x%sy")]', 'BODY.PEEK[HEADER.FIELDS ("a b" "%d")]<0.9>'),
)


class Told:
    """Takes what is written; a connection that is never slow."""

    def __init__(self) -> None:
        self.octets = b""
        self.turns = 0

    def write(self, data: bytes) -> None:
        self.octets += data

    async def written(self) -> None:
        self.turns += 1


def filled(store: Store, messages: int = len(MESSAGES)) -> Selected:
    """A mailbox of all kinds of messages, selected."""
    row = store.ensure_mailbox("ana@lab.example", "INBOX")
    for n in range(messages):
        octets, flags = MESSAGES[n % len(MESSAGES)], FLAGS[n % len(FLAGS)]
        when = datetime(1999, 12, 31, 23, 59, 59, tzinfo=UTC) + timedelta(hours=1234.5 * n)
        store.append(row.id, octets, when, flags)
        if n % 3 == 0:
            store.claim_recent(row.id)
    return Mailbox(store, Clock(NOON, lambda: 0.0), row).select(readonly=False)


def command(items: str, numbers: str = "1:*") -> FetchCommand:
    read = fetch_command(memoryview(f"t FETCH {numbers} {items}\r\n".encode()))
    assert read is not None, items
    return read


def ours(store: Store, selected: Selected, read: FetchCommand) -> Told:
    told = Told()
    there = selected.still_there(selected.messages.runs(read.sequence_set))
    response = ResponseOk(b"t", b"")
    fetched = Fetched(store, selected, there, read.items, frozenset(), response, told)
    asyncio.run(fetched.async_write(told))
    return told


def pymaps(store: Store, selected: Selected, read: FetchCommand) -> bytes:
    async def write() -> bytes:
        octets = b""
        for number, row in enumerate(store.messages(selected.mailbox.id), 1):
            attributes = MessageAttributes(Message(store, row), selected, read.attributes)
            async with attributes.load_hook():
                octets += FetchResponse(number, attributes).tobytes()
        return octets.replace(b"\0", b"\x80")  # pymap sends NUL, which no literal may hold

    return asyncio.run(write())


@pytest.mark.parametrize("item", ITEMS)
def test_an_item_is_written_as_pymap_writes_it(store: Store, item: str) -> None:
    selected, read = filled(store), command(item)
    assert ours(store, selected, read).octets == pymaps(store, selected, read)


@pytest.mark.long
def test_any_items_together_are_written_as_pymap_writes_them(store: Store) -> None:
    selected, chance = filled(store), random.Random(1)
    for _ in range(300):
        items = chance.choices(ITEMS, k=chance.randint(2, 6))
        read = command(f"({' '.join(items)})")
        assert ours(store, selected, read).octets == pymaps(store, selected, read), items


def test_the_short_way_reads_what_the_long_way_reads(inline: Network) -> None:
    lines = [
        *(f"t FETCH {numbers} FLAGS" for numbers in ("1", "*", "1:2", "1:*", "2,1,*:1", "3", "0")),
        *(f"T.1 uid fetch {numbers} (flags)" for numbers in ("1", "*", "9:*", "0", "1,", "01")),
        *(
            f"t FETCH 1 {items}"
            for items in ("FAST", "fast ", "(FAST)", "BODY[0]", "()", "", "(UID")
        ),
        "t FETCH 1  FLAGS",
        "t FETCH  1 FLAGS",
        "t FETCH 4294967296 FLAGS",
        "t FETCH 99999999999 FLAGS",
        "t FETCH 1 BODY.PEEK[HEADER.FIELDS (b A)]",
        "t FETCH 1 BODY.PEEK[HEADER.FIELDS (A b)]",
    ]
    with Lab(network=inline) as lab:
        keep(lab, HELLO, HELLO)
        Imap(lab)("SELECT INBOX")
        client = ana(lab)
        for line in lines:
            client.say(line.encode() + b"\r\n")
            short = client.answer(line.split()[0] + " ")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("labserver.servers.imap.connection.fetch_command", lambda _: None)
                client.say(line.encode() + b"\r\n")
                assert client.answer(line.split()[0] + " ") == short, line


# -- in turns


def order_of_answers(lab: Lab, slow: bytes, quick: str) -> list[bytes]:
    """What is said last to two clients whose commands came together, the slow one's first."""
    first, second = ana(lab), ana(lab)
    ends: list[bytes] = []
    write = Connection.write

    def noted(connection: Connection, data: Any) -> None:
        ends.append(bytes(data).splitlines()[-1])
        write(connection, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Connection, "write", noted)
        # It has arrived, but nothing is done before the other client speaks as well.
        first.client._sock._end.arrive(slow)
        assert second(quick)[-1].startswith("OK ")
        first.answer()
    return ends


@pytest.mark.long
@pytest.mark.parametrize(
    "slow",
    [
        b"t FETCH 1:* (UID FLAGS)\r\n",
        b"t FETCH 1:* RFC822.SIZE\r\n",
        b"t FETCH 1:* ENVELOPE\r\n",
        b"t FETCH 1:* BODY.PEEK[HEADER.FIELDS (Subject)]\r\n",
        b"t FETCH 1:100 BODY.PEEK[]\r\n",
        b"t SEARCH TEXT nothing\r\n",
        b"t SEARCH UNSEEN\r\n",
    ],
)
def test_a_long_answer_lets_other_clients_have_theirs(inline: Network, slow: bytes) -> None:
    with Lab(network=inline) as lab:
        keep(lab, *(b"Subject: %d\r\n\r\n%b\r\n" % (n, b"x" * 2000) for n in range(3000)))
        ana(lab)("LOGOUT")
        answers = order_of_answers(lab, slow, "NOOP")
        assert answers[-1].startswith((b"t OK FETCH", b"t OK SEARCH"))
        assert answers.index(b"t OK NOOP completed.") < len(answers) - 1


def test_a_search_leaves_out_what_goes_meanwhile(inline: Network) -> None:
    with Lab(network=inline) as lab:
        keep(lab, *(b"Subject: %d\r\n\r\nneedle\r\n" % n for n in range(100)))
        searching, other = ana(lab), ana(lab)
        other("STORE 50:100 +FLAGS.SILENT (\\Deleted)")
        searching.client._sock._end.arrive(b"t SEARCH TEXT needle\r\n")
        assert other("EXPUNGE")[-1] == "OK EXPUNGE completed."
        found, *_, end = searching.answer()
        assert found == "* SEARCH " + " ".join(map(str, range(1, 50)))
        assert end == "OK SEARCH completed."


# -- in little memory


def peak_while(lab: Lab, client: Client, said: bytes, octets: int) -> int:
    """The most memory in use while a client reads so many octets and forgets them."""
    client.send(said)
    tracemalloc.start()
    try:
        left = octets
        while left > 0:
            left -= len(client._sock.recv(64 * 1024))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_big_mailbox_is_read_in_little_memory(inline: Network) -> None:
    with Lab(network=inline) as lab:
        keep(lab, *(b"%d\r\n" % n + b"x" * 998_000 + b"\r\n" for n in range(60)))
        client = ana(lab)
        peak = peak_while(lab, client.client, b"t FETCH 1:* BODY.PEEK[]\r\n", 59_000_000)
        assert peak < 10_000_000


def test_many_small_messages_are_read_in_little_memory(inline: Network) -> None:
    with Lab(network=inline) as lab:
        keep(lab, *(b"%d\r\n" % n + b"x" * 9_990 + b"\r\n" for n in range(3000)))
        client = ana(lab)
        peak = peak_while(lab, client.client, b"t FETCH 1:* BODY.PEEK[]\r\n", 29_000_000)
        assert peak < 10_000_000


def test_pieces_are_bounded(store: Store) -> None:
    selected = filled(store, 2500)
    assert ours(store, selected, command("(UID FLAGS)")).turns == 2
    assert ours(store, selected, command("ENVELOPE")).turns == 2500 // fetch._MOST_PARSED - 1
    assert ours(store, selected, command("UID", "1")).turns == 0
    octets = ours(store, selected, command("BODY.PEEK[]")).octets
    assert ours(store, selected, command("BODY.PEEK[]")).turns >= len(octets) // (2 * 64 * 1024)
