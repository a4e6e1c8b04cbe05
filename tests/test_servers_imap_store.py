"""What STORE, COPY and their like tell, and how much one command may ask of the IMAP server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
from test_servers_imap import ANA, HELLO, NOON, Imap, ana, connect, keep

from labserver import Lab
from labserver.network import Network
from labserver.network.inline import InlineNetwork
from labserver.servers.imap.names import Pattern
from labserver.store import StoreError

pytestmark = pytest.mark.protocol

SYSTEM = "\\Answered \\Deleted \\Draft \\Flagged \\Seen"
GONE = "NO [EXPUNGEISSUED] Some of the requested messages no longer exist."


@pytest.fixture
def inline() -> Iterator[Lab]:
    """A lab whose servers run in the test's own thread."""
    network = InlineNetwork()
    with Lab(network=network) as lab:
        yield lab
    network.close()


def words(count: int, before: str = "k") -> str:
    """So many different words."""
    return " ".join(f"{before}{number}" for number in range(count))


# -- a keyword is told before it is used


@pytest.mark.parametrize(
    "command", ["STORE 1:2 +FLAGS ($new)", "STORE 1,2 FLAGS $new", "UID STORE 1:* +FLAGS ($new)"]
)
def test_flags_come_before_the_fetch_that_names_a_new_one(lab: Lab, command: str) -> None:
    keep(lab, HELLO, HELLO)
    client, other = ana(lab), ana(lab)
    told = client(command)
    assert told[0] == f"* FLAGS ({SYSTEM} $new)"
    assert [line.split()[2] for line in told[1:3]] == ["FETCH", "FETCH"]
    assert all("$new" in line for line in told[1:3])
    assert len(told) == 4
    assert client(command)[0].startswith("* 1 FETCH ")
    # In another session, whatever asks first.
    assert other("FETCH 1:2 FLAGS")[0] == f"* FLAGS ({SYSTEM} $new)"
    assert "$new" in other("FETCH 1:2 FLAGS")[0]


@pytest.mark.parametrize(
    ("command", "first"),
    [
        ("STORE 1 +FLAGS.SILENT ($new)", []),
        ("UID STORE 1 FLAGS.SILENT ($new)", []),
        ("APPEND INBOX ($new) {3+}\r\nabc", ["* 3 EXISTS", "* 3 RECENT"]),
        ("COPY 1 INBOX", ["* 3 EXISTS", "* 3 RECENT"]),
    ],
)
def test_flags_come_with_whatever_brings_a_new_one(
    lab: Lab, command: str, first: list[str]
) -> None:
    keep(lab, HELLO, HELLO)
    client, other = ana(lab), Imap(lab)
    if command.startswith("COPY"):
        other("SELECT INBOX")
        other("STORE 1 +FLAGS ($new)")
    *told, completed = client(command)
    assert told[: len(first) + 1] == [*first, f"* FLAGS ({SYSTEM} $new)"]
    assert completed.startswith("OK ")
    assert "$new" in client("FETCH 1:* FLAGS")[0 if "STORE" in command or first == [] else -2]


@pytest.mark.parametrize("item", ["BODY[]", "(FLAGS UID)", "RFC822.TEXT"])
def test_a_fetch_that_tells_what_another_stored_tells_the_keyword_first(
    lab: Lab, item: str
) -> None:
    keep(lab, HELLO)
    client, other = ana(lab), ana(lab)
    other("STORE 1 FLAGS ($theirs)")
    first, second = client("FETCH 1", item)[:2]
    assert first == f"* FLAGS ({SYSTEM} $theirs)"
    assert "$theirs" in second


def test_permanent_flags_tell_when_no_more_keywords_can_be_made(lab: Lab) -> None:
    keep(lab, HELLO)
    client = ana(lab)
    told = client(f"STORE 1 FLAGS.SILENT ({words(99)})")
    assert len(told) == 2
    flags, permanent, completed = client("STORE 1 +FLAGS.SILENT (last)")
    assert flags.startswith("* FLAGS (")
    assert permanent.startswith("* OK [PERMANENTFLAGS (")
    assert "last" in permanent
    assert "\\*" not in permanent
    assert completed == "OK STORE completed."
    again = [line for line in ana(lab)("SELECT INBOX") if "PERMANENTFLAGS" in line]
    assert "\\*" not in again[0]
    client("STORE 1 -FLAGS.SILENT (last)")
    again = [line for line in ana(lab)("SELECT INBOX") if "PERMANENTFLAGS" in line]
    assert "\\*" in again[0]
    told = client("EXAMINE INBOX")
    assert "* OK [PERMANENTFLAGS ()] Flags permitted." in told


# -- messages that are gone


def remove(lab: Lab, numbers: str) -> None:
    other = ana(lab)
    other(f"STORE {numbers} +FLAGS.SILENT (\\Deleted)")
    assert other("EXPUNGE")[-1].startswith("OK")


@pytest.mark.parametrize("change", ["+FLAGS", "-FLAGS", "FLAGS"])
@pytest.mark.parametrize(("gone", "numbers"), [("2", "1:4"), ("1,3", "1:3"), ("1:4", "2,4")])
def test_silent_store_passes_over_what_is_gone(
    lab: Lab, change: str, gone: str, numbers: str
) -> None:
    keep(lab, *[HELLO] * 4, flags=frozenset({"\\Flagged", "\\Answered"}))
    client = ana(lab)
    remove(lab, gone)
    told = client(f"STORE {numbers} {change}.SILENT (\\Flagged)")
    assert told[-1] == "OK STORE completed."
    assert all("RECENT" in line for line in told[:-1])
    for message in lab.inbox(ANA):
        if change == "FLAGS":
            assert message.flags in ({"\\Flagged"}, {"\\Flagged", "\\Answered"})
        elif message.uid in range(int(numbers[0]), int(numbers[-1]) + 1):
            assert ("\\Flagged" in message.flags) == (change == "+FLAGS")
    assert any("EXPUNGE" in line for line in client("NOOP"))


@pytest.mark.parametrize(
    "command",
    ["STORE 1:4 +FLAGS (\\Flagged)", "FETCH 1:4 FLAGS", "FETCH 2 BODY[]", "COPY 1:4 INBOX"],
)
def test_a_no_never_says_completed(lab: Lab, command: str) -> None:
    keep(lab, *[HELLO] * 4)
    client = ana(lab)
    remove(lab, "2")
    told = client(command)
    assert told[-1] == GONE
    assert not any("completed" in line for line in told)
    if command.startswith("STORE"):
        assert [line.split()[1] for line in told if "FETCH" in line] == ["1", "3", "4"]
        assert all("\\Flagged" in message.flags for message in lab.inbox(ANA))


def test_by_uid_what_is_gone_is_no_failure(lab: Lab) -> None:
    keep(lab, *[HELLO] * 3)
    client = ana(lab)
    remove(lab, "2")
    told = client("UID STORE 1:3 +FLAGS (\\Flagged)")
    assert told[0] == "* 2 EXPUNGE"
    assert told[-1] == "OK UID STORE completed."
    assert client("UID STORE 2 FLAGS.SILENT (x)") == ["OK UID STORE completed."]


def test_a_silent_store_tells_what_it_did_not_bring(lab: Lab) -> None:
    keep(lab, HELLO, HELLO)
    client, other = ana(lab), ana(lab)
    other("STORE 1 +FLAGS (theirs)")
    told = client("STORE 1:2 +FLAGS.SILENT (ours)")
    assert told[0] == f"* FLAGS ({SYSTEM} ours theirs)"
    assert told[1].startswith("* 1 FETCH (FLAGS (")
    assert told[2:] == ["OK STORE completed."]


# -- limits


@pytest.mark.parametrize(
    "command",
    [
        f"STORE 1 +FLAGS ({words(101)})",
        f"STORE 1:* FLAGS {words(6000)}",
        f"STORE 1 -FLAGS.SILENT ({words(101)})",
        f"UID STORE 1 +FLAGS ({words(3000)})",
        f"APPEND INBOX ({words(101)}) {{3+}}\r\nabc",
        f"APPEND INBOX ({words(101)}) {{3}}",
    ],
)
def test_more_keywords_than_a_message_can_have_are_refused(lab: Lab, command: str) -> None:
    keep(lab, HELLO)
    client = ana(lab)
    assert client(command) == ["NO [LIMIT] A message can have at most 100 keywords."]
    assert client("NOOP") == ["OK NOOP completed."]
    assert [message.flags for message in lab.inbox(ANA)] == [{"\\Seen"}]


@pytest.mark.parametrize("before", ["STORE 1 +FLAGS", "STORE 1 FLAGS.SILENT", "UID STORE 1 -FLAGS"])
def test_a_keyword_has_a_length(lab: Lab, before: str) -> None:
    keep(lab, HELLO)
    client = ana(lab)
    assert client(before, "(" + "x" * 100 + ")")[-1].startswith("OK ")
    refusal = "NO [LIMIT] A keyword can have at most 100 octets."
    assert client(before, "(" + "y" * 101 + ")") == [refusal]


def test_a_mailbox_has_at_most_so_many_keywords(lab: Lab) -> None:
    keep(lab, HELLO, HELLO, HELLO)
    client, other = ana(lab), ana(lab)
    client("CREATE Work")
    limit = "NO [LIMIT] A mailbox can have at most 100 keywords."
    assert client(f"STORE 1 FLAGS.SILENT ({words(60)})")[-1] == "OK STORE completed."
    assert other(f"STORE 2 FLAGS.SILENT ({words(40, 'o')})")[-1] == "OK STORE completed."
    for command in ("STORE 3 +FLAGS (one)", "STORE 3 FLAGS.SILENT (one)", "UID STORE 3 FLAGS one"):
        assert client(command)[-1] == limit
        assert other(command)[-1] == limit
    assert client("APPEND INBOX (one) {3+}\r\nabc")[-1] == limit
    # What is there may go on, in any letter case, and be taken away.
    assert client("STORE 3 +FLAGS.SILENT (K1 o1)")[-1] == "OK STORE completed."
    assert client("APPEND INBOX (k1) {3+}\r\nabc")[-1].startswith("OK ")
    assert client("STORE 2 FLAGS.SILENT (one)")[-1] == "OK STORE completed."
    assert client("STORE 3 -FLAGS.SILENT (k1)")[-1] == "OK STORE completed."
    assert other(f"STORE 3 FLAGS.SILENT ({words(39, 'p')})")[-1] == "OK STORE completed."
    # Copies bring keywords, too.
    client(f"APPEND Work ({words(100, 'w')}) {{3+}}\r\nabc")
    for command in ("COPY 1:3 Work", "MOVE 1 Work", "UID COPY 2 Work", "UID MOVE 3 Work"):
        assert client(command)[-1] == limit
    assert len(lab.mailbox(ANA, "Work")) == 1
    assert len(lab.inbox(ANA)) == 4


def test_an_account_has_at_most_so_many_mailboxes(lab: Lab) -> None:
    client = Imap(lab)

    def fill() -> None:
        with lab._store.transaction():
            for number in range(998):
                lab._store.ensure_mailbox(ANA, f"m{number}")

    lab.network.run(fill)
    refusal = ["NO [LIMIT] An account can have at most 1000 mailboxes."]
    assert client("CREATE a/b") == refusal
    assert client("CREATE last") == ["OK CREATE completed."]
    assert client("CREATE more") == refusal
    assert client("RENAME INBOX more") == refusal
    assert client("RENAME last a/b") == refusal
    assert client("RENAME last final") == ["OK RENAME completed."]
    assert client("DELETE final") == ["OK DELETE completed."]
    assert client("RENAME m1 a/b") == ["OK RENAME completed."]
    assert len(client('LIST "" *')) == 1001


def test_an_account_has_at_most_so_many_subscriptions(lab: Lab) -> None:
    client = Imap(lab)

    def fill() -> None:
        with lab._store.transaction():
            for number in range(999):
                lab._store.subscribe(ANA, f"m{number}")

    lab.network.run(fill)
    refusal = ["NO [LIMIT] An account can have at most 1000 subscriptions."]
    assert client("SUBSCRIBE more") == refusal
    assert client("SUBSCRIBE m1") == ["OK SUBSCRIBE completed."]
    assert client("UNSUBSCRIBE m1") == ["OK UNSUBSCRIBE completed."]
    assert client("SUBSCRIBE more") == ["OK SUBSCRIBE completed."]


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (
            "SEARCH " + " ".join(f"UNKEYWORD k{n}" for n in range(101)),
            "A search can have at most 100 keys.",
        ),
        ("SEARCH " + "OR SEEN " * 100 + "SEEN", "A search can have at most 100 keys."),
        ("UID SEARCH (" + "ALL " * 99 + "(ALL) ALL)", "A search can have at most 100 keys."),
        ("SEARCH " + "SUBJECT {0+}\r\n " * 200 + "ALL", "A search can have at most 100 keys."),
        ("STATUS INBOX (" + "MESSAGES " * 101 + ")", "A list can have at most 100 items here."),
        ("FETCH 1 (" + "FLAGS " * 101 + ")", "A list can have at most 100 items here."),
        (
            f"FETCH 1 BODY[HEADER.FIELDS ({words(1001)})]",
            "A list can have at most 1000 items here.",
        ),
        (
            f"FETCH 1 (BODY[HEADER.FIELDS ({words(600)})] BODY[HEADER.FIELDS.NOT ({words(600)})])",
            "A FETCH can name at most 1000 header fields.",
        ),
    ],
)
def test_a_command_can_ask_for_so_much(lab: Lab, command: str, why: str) -> None:
    keep(lab, HELLO)
    client = ana(lab)
    assert client(command) == [f"NO [LIMIT] {why}"]
    assert client("NOOP") == ["OK NOOP completed."]


@pytest.mark.parametrize(
    "command",
    [
        "SEARCH " + " ".join(f"UNKEYWORD k{n}" for n in range(100)),
        "SEARCH (" + "OR SEEN " * 40 + "SEEN)",
        f"FETCH 1 BODY[HEADER.FIELDS ({words(1000)})]",
        "FETCH 1 (" + " ".join(f"BODY[{n}]" for n in range(1, 101)) + ")",
        "STORE " + ",".join(["1"] * 20_000) + " +FLAGS (x)",
        "UID FETCH " + ",".join(["1:*"] * 10_000) + " FLAGS",
        "SEARCH " + ",".join(["1:*"] * 10_000),
    ],
)
def test_what_is_within_the_limits_is_obeyed(lab: Lab, command: str) -> None:
    keep(lab, HELLO)
    assert ana(lab)(command)[-1].startswith("OK ")


@pytest.mark.parametrize("literal", ["{4096+}", "{0+}"])
def test_only_a_message_is_longer_than_a_line(lab: Lab, literal: str) -> None:
    """Literals in a row don't make a command longer than it may be."""
    client = ana(lab)
    content = "y" * int(literal.strip("{+}"))
    filler = "x" * (0 if content else 60_000)
    piece = f" SUBJECT {filler}{literal}\r\n{content}" if content else f" {filler} {literal}\r\n"
    client.say(("t SEARCH" + piece * 40 + "\r\n").encode())
    assert client.answer()[-1].startswith(("NO [TOOBIG] ", "BAD "))
    assert client("NOOP") == ["OK NOOP completed."]
    assert client("APPEND INBOX {300000+}\r\n" + "x" * 300_000)[-1].startswith("OK ")


# -- others are served meanwhile


def many(lab: Lab, count: int, mailbox: str = "INBOX", flags: frozenset[str] = frozenset()) -> None:
    def append() -> None:
        store = lab._store
        row = store.ensure_mailbox(ANA, mailbox)
        with store.transaction():
            for _ in range(count):
                store.append(row.id, b"x\r\n", NOON, flags)

    lab.network.run(append)


def turns(lab: Lab, does: Callable[[], object]) -> list[str]:
    """What happens in order while that is done: a commit, and what another would do next."""
    events: list[str] = []

    def committed(_: int) -> None:
        events.append("commit")
        asyncio.get_running_loop().call_soon(events.append, "other")

    stop = lab._store.watch(committed)
    does()
    stop()
    return events


@pytest.mark.parametrize(
    ("command", "slices"),
    [
        ("STORE 1:* +FLAGS.SILENT (x)", 3),
        ("STORE 1:* FLAGS (x)", 3),
        ("UID STORE 1:* -FLAGS.SILENT (\\Deleted)", 3),
        ("COPY 1:* Work", 3),
        ("MOVE 1:* Work", 3),
        ("EXPUNGE", 3),
        ("UID EXPUNGE 1:1000", 2),
        ("FETCH 1:* BODY[TEXT]", 3),
        ("STORE 1:400 +FLAGS.SILENT (x)", 1),
        ("STORE 1:* +FLAGS.SILENT (\\Deleted)", 0),
    ],
)
def test_many_messages_are_changed_in_slices(inline: Lab, command: str, slices: int) -> None:
    many(inline, 1500, flags=frozenset({"\\Deleted"}))
    client = ana(inline)
    client("CREATE Work")
    told: list[str] = []
    events = turns(inline, lambda: told.extend(client(command)))
    assert told[-1].startswith("OK ")
    # MOVE changes two mailboxes with each.
    mailboxes = 2 if command.startswith("MOVE") else 1
    assert events == (["commit"] * mailboxes + ["other"] * mailboxes) * slices


def test_a_store_that_others_come_between_sees_what_they_did(inline: Lab) -> None:
    many(inline, 1200)
    client = ana(inline)
    store, came = inline._store, []

    def comes_between(mailbox: int) -> None:
        if not came:
            came.append(mailbox)
            asyncio.get_running_loop().call_soon(between, mailbox)

    def between(mailbox: int) -> None:
        store.remove(mailbox, [1, 1000])
        store.set_flags(mailbox, 1100, frozenset({"theirs"}))

    stop = store.watch(comes_between)
    told = client("STORE 1:* +FLAGS (ours)")
    stop()
    assert told[-1] == GONE
    assert len([line for line in told if "FETCH" in line]) == 1198
    assert "* 1100 FETCH (FLAGS (\\Recent ours theirs))" in told
    inbox = inline.inbox(ANA)
    assert len(inbox) == 1198
    assert all("ours" in message.flags for message in inbox)
    assert [line for line in client("NOOP") if "EXPUNGE" in line] == [
        "* 1000 EXPUNGE",
        "* 1 EXPUNGE",
    ]


@pytest.mark.parametrize("command", ["STORE 1:* FLAGS.SILENT (x)", "MOVE 1:* Work", "EXPUNGE"])
def test_a_store_that_fails_later_says_that_a_part_is_done(
    inline: Lab, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(inline, 700, flags=frozenset({"\\Deleted"}))
    client = ana(inline)
    client("CREATE Work")
    fails_from(inline, monkeypatch, 600 if command != "EXPUNGE" else 2)
    assert client(command)[-1] == (
        "NO [UNAVAILABLE] The mail store failed; only a part of the messages was changed."
    )
    monkeypatch.undo()
    left = sum(message.flags == {"\\Deleted"} for message in inline.inbox(ANA))
    assert left == 200
    told = client("NOOP")
    assert len([line for line in told if "EXPUNGE" in line or "FETCH" in line]) == 500


@pytest.mark.parametrize("numbers", ["1:*", "1:700"])
def test_a_copy_that_fails_later_copies_nothing(
    inline: Lab, numbers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(inline, 700)
    client = ana(inline)
    client("CREATE Work")
    fails_from(inline, monkeypatch, 600)
    assert client(f"COPY {numbers} Work") == [
        "NO [UNAVAILABLE] The mail store can't do that now, nothing was changed."
    ]
    monkeypatch.undo()
    assert inline.mailbox(ANA, "Work") == ()
    assert client(f"COPY {numbers} Work")[-1].startswith("OK [COPYUID ")
    assert len(inline.mailbox(ANA, "Work")) == 700


def test_a_copy_of_what_goes_meanwhile_copies_nothing(inline: Lab) -> None:
    many(inline, 700)
    client = ana(inline)
    client("CREATE Work")
    store = inline._store
    inbox = store.mailbox(ANA, "INBOX").id
    gone: list[int] = []

    def goes(mailbox: int) -> None:
        if mailbox != inbox and not gone:
            gone.append(650)
            asyncio.get_running_loop().call_soon(store.remove, inbox, [650])

    stop = store.watch(goes)
    assert client("COPY 1:* Work") == [GONE]
    stop()
    assert inline.mailbox(ANA, "Work") == ()


def fails_from(lab: Lab, monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """The store's changes fail from that call of each kind on."""

    def failing(function: Callable[..., Any]) -> Callable[..., Any]:
        calls = 0

        def called(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls >= call:
                raise StoreError("The disk is full.")
            return function(*arguments)

        return called

    for name in ("set_flags", "copy", "move"):
        monkeypatch.setattr(lab._store, name, failing(getattr(lab._store, name)))
    if call == 2:
        monkeypatch.setattr(lab._store, "remove", failing(lab._store.remove))


# -- twice as much is twice as much work


def steps(does: Callable[[], object]) -> int:
    """How many functions are called meanwhile, Python's own and built-in ones."""
    count = 0

    def counted(_: FrameType, event: str, __: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(counted)
    try:
        does()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.long
@pytest.mark.parametrize(
    "command",
    [
        lambda n: f"STORE 1:30 FLAGS ({words(n)})",
        lambda n: f"STORE 1:30 FLAGS ({' '.join(['a'] * n)})",
        lambda n: f"STORE {','.join(['1'] * n)} FLAGS.SILENT (x)",
        lambda n: f"UID FETCH {','.join(['1:*'] * n)} UID",
        lambda n: f"FETCH {','.join(str(2 * k + 1) for k in range(n))} (FLAGS)",
        lambda n: f"SEARCH {','.join(['1:*'] * n)}",
        lambda n: f"SEARCH UID {','.join(['1:4294967295'] * n)}",
        lambda n: f"SEARCH {'NOT SEEN ' * (n // 20)}ALL",
        lambda n: f"SEARCH {'TEXT x ' * (n // 20)}ALL",
        lambda n: f"FETCH 1:30 BODY.PEEK[HEADER.FIELDS ({words(n)})]",
        lambda n: f"FETCH 1:30 ({' '.join(['BODY.PEEK[HEADER.FIELDS (x)]'] * n)})",
        lambda n: f"STATUS INBOX ({' '.join(['MESSAGES'] * n)})",
        lambda n: 'LIST "" ' + "%a" * n,
        lambda n: 'LSUB "" ' + "*a" * n,
        lambda n: f"COPY {','.join(['1'] * n)} Work",
        lambda n: f"BOGUS {' '.join(['x'] * n)}",
        lambda n: f"ENABLE {' '.join(['x'] * n)}",
    ],
)
def test_twice_the_length_takes_at_most_twice_the_steps(
    inline: Lab, command: Callable[[int], str]
) -> None:
    many(inline, 4000)
    client = ana(inline)
    client("CREATE Work")
    other = ana(inline)
    other("STORE 1:* +FLAGS.SILENT (\\Flagged)")
    client("FETCH 1 UID")
    counts = [steps(lambda n=n: client(command(n))) for n in (500, 1000, 2000)]  # type: ignore[misc]
    assert counts[1] <= 2 * counts[0] + 1000, counts
    assert counts[2] <= 2 * counts[1] + 1000, counts


@pytest.mark.long
@pytest.mark.parametrize(
    "command",
    [
        "STORE 1:* +FLAGS (x)",
        "STORE 1:* FLAGS.SILENT (x)",
        "COPY 1:* Work",
        "MOVE 1:* Work",
        "EXPUNGE",
        "SEARCH NOT SEEN",
        "FETCH 1:* FLAGS",
        "UID FETCH 1:* BODY[]",
        "SEARCH TEXT y",
        "STATUS INBOX (MESSAGES UNSEEN)",
    ],
)
def test_twice_the_messages_take_at_most_twice_the_steps(inline: Lab, command: str) -> None:
    counts = []
    for count in (400, 800, 1600):
        many(inline, count, flags=frozenset({"\\Deleted"}))
        client = ana(inline)
        client("CREATE Work")
        counts.append(steps(lambda client=client: client(command)))  # type: ignore[misc]
        client("STORE 1:* FLAGS.SILENT (\\Deleted)")
        client("EXPUNGE")
    assert counts[1] <= 2.1 * counts[0] + 1000, counts
    assert counts[2] <= 2.1 * counts[1] + 1000, counts


@pytest.mark.parametrize("piece", ["%a", "*a", "%", "*%", "a", "%a/"])
def test_a_pattern_is_matched_in_a_step_for_each_character(piece: str) -> None:
    name = ("a" * 100 + "/") * 2 + "b"
    few = Pattern(piece * 10)
    much = Pattern(piece * 100)
    few.fits(name)
    much.fits(name)
    assert steps(lambda: much.fits(name)) <= steps(lambda: few.fits(name)) + 10


def test_a_session_full_of_refusals_goes_on(network: Network) -> None:
    with Lab(network=network) as lab:
        keep(lab, HELLO)
        client = ana(lab)
        for _ in range(30):
            assert client(f"STORE 1 FLAGS ({words(101)})")[-1].startswith("NO [LIMIT] ")
        assert connect(lab).line().startswith(b"* OK ")
