"""The mail store: what it keeps, what it promises, and what it says when it can't."""

from __future__ import annotations

import random
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from labserver.message import Envelope
from labserver.store import (
    Changes,
    DamagedMessage,
    Delivery,
    MailboxExists,
    NoRoom,
    NoSuchMailbox,
    NoSuchMessage,
    Store,
    StoreError,
)

ANA, BEN = "ana@lab.example", "ben@lab.example"
NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
HELLO = b"Subject: hello\r\n\r\nhello\r\n"
NONE: frozenset[str] = frozenset()
SEEN = frozenset({"\\Seen"})


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store(None)
    yield made
    made.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mail.sqlite"


def delivery(*recipients: str, octets: bytes = HELLO, sender: str = "eve@far.example") -> Delivery:
    return Delivery(Envelope(sender, recipients), octets, NOON)


def inbox(store: Store, account: str = ANA) -> int:
    return store.ensure_mailbox(account, "INBOX").id


def kept(store: Store, account: str = ANA, name: str = "INBOX") -> list[bytes]:
    box = store.mailbox(account, name)
    return [store.octets(row.content) for row in store.messages(box.id)]


def contents(store: Store) -> int:
    """How many contents there are in the file, whether or not a message refers to them."""
    return int(store._db.execute("SELECT COUNT(*) FROM content").fetchone()[0])


def fill_disk(store: Store) -> None:
    """No room for one more page, as on a full disk."""
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")


# -- delivery


def test_a_delivery_reaches_the_inbox_of_each_recipient_once(store: Store) -> None:
    store.deliver(delivery(ANA, BEN, "Ana@LAB.example"))
    assert kept(store, ANA) == kept(store, BEN) == [HELLO]
    assert contents(store) == 1


def test_a_delivered_message_keeps_its_envelope_size_date_and_order(store: Store) -> None:
    number = store.deliver(delivery(ANA, BEN))
    store.deliver(delivery(ANA, octets=b"second\n"))
    first, second = store.messages(inbox(store))
    assert store.envelope(number) == Envelope("eve@far.example", (ANA, BEN))
    assert (first.uid, first.content, first.size) == (1, number, len(HELLO))
    assert (first.received, first.flags, first.recent) == (NOON, NONE, True)
    assert second.uid == 2


def test_a_message_that_did_not_come_by_smtp_has_no_envelope(store: Store) -> None:
    box = inbox(store)
    uid = store.append(box, HELLO, NOON, SEEN)
    row = store.message(box, uid)
    assert row is not None
    assert row.flags == SEEN
    assert store.envelope(row.content) is None


def test_the_null_reverse_path_is_an_envelope_too(store: Store) -> None:
    number = store.deliver(delivery(ANA, sender=""))
    assert store.envelope(number) == Envelope("", (ANA,))


def test_a_delivery_is_all_or_none(file: Path) -> None:
    store = Store(file)
    inbox(store, ANA)
    fill_disk(store)
    with pytest.raises(NoRoom, match="full"):
        store.deliver(delivery(ANA, BEN, octets=b"x" * 100_000))
    assert kept(store) == []
    assert [row.name for row in store.mailboxes(ANA)] == ["INBOX"]
    store.close()


def test_a_bad_member_of_a_group_costs_no_other_its_place(store: Store) -> None:
    bad = delivery(ANA, sender="\udcff@far.example")  # SQLite keeps no half of a character
    results = store.deliver_group([delivery(ANA), bad, delivery(BEN)])
    assert [type(result) for result in results] == [int, StoreError, int]
    assert kept(store, ANA) == kept(store, BEN) == [HELLO]
    assert contents(store) == 2


def test_a_group_is_one_commit(store: Store) -> None:
    heard: list[int] = []
    store.watch(heard.append)
    store.deliver_group([delivery(ANA), delivery(ANA), delivery(ANA, BEN)])
    assert sorted(heard) == sorted([inbox(store, ANA), inbox(store, BEN)])


@pytest.mark.process
def test_a_delivered_message_survives_the_death_of_the_process(file: Path) -> None:
    program = f"""
import os
from datetime import UTC, datetime
from pathlib import Path
from labserver.message import Envelope
from labserver.store import Delivery, Store
store = Store(Path({str(file)!r}))
for number in range(20):
    octets = b"%d" % number
    store.deliver(Delivery(Envelope("", ({ANA!r},)), octets, datetime.now(UTC)))
    print(number, flush=True)
store._db.execute("BEGIN")
store._new_content(b"never committed", None)
os._exit(1)
"""
    root = str(Path(__file__).parent.parent)
    told = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=60
    )
    assert told.stdout.split() == [str(number) for number in range(20)], told.stderr
    store = Store(file)
    assert kept(store) == [b"%d" % number for number in range(20)]
    assert contents(store) == 20
    store.close()


def test_commits_reach_the_disk_before_they_are_told(file: Path) -> None:
    store = Store(file)
    pragma = {
        name: store._db.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "fullfsync", "locking_mode", "foreign_keys")
    }
    assert pragma == {
        "journal_mode": "wal",
        "synchronous": 2,
        "fullfsync": 1,
        "locking_mode": "exclusive",
        "foreign_keys": 1,
    }
    store.close()


# -- the file


def test_everything_is_there_after_a_restart(file: Path) -> None:
    store = Store(file)
    store.deliver(delivery(ANA))
    box = store.create_mailbox(ANA, "Work")
    uid = store.copy(inbox(store), 1, box.id)
    store.set_flags(inbox(store), 1, SEEN | {"$Forwarded"})
    store.claim_recent(inbox(store))
    store.subscribe(ANA, "Work")
    before = (store.mailboxes(ANA), store.messages(inbox(store)), store.changes(inbox(store)))
    store.close()
    again = Store(file)
    assert uid == 1
    assert (again.mailboxes(ANA), again.messages(1), again.changes(1)) == before
    assert again.subscriptions(ANA) == ["INBOX", "Work"]
    again.close()


def test_one_file_belongs_to_one_store(file: Path) -> None:
    store = Store(file)
    with pytest.raises(StoreError, match="in use by another lab; close that one first"):
        Store(file)
    store.close()
    Store(file).close()


@pytest.mark.parametrize("version", [1, 2, 99])
def test_a_file_of_another_version_is_left_alone(file: Path, version: int) -> None:
    Store(file).close()
    database = sqlite3.connect(file)
    database.execute(f"PRAGMA user_version = {version}")
    database.close()
    before = file.read_bytes()
    with pytest.raises(
        StoreError, match=r"\AThe mail store .* another version of the lab; put it elsewhere\.\Z"
    ):
        Store(file)
    assert file.read_bytes() == before
    assert names(file) == ["mail.sqlite"]


@pytest.mark.parametrize("version", [0, 1, 3])
def test_another_programs_database_is_left_alone(file: Path, version: int) -> None:
    database = sqlite3.connect(file)
    database.execute("CREATE TABLE message (text)")
    database.execute(f"PRAGMA user_version = {version}")
    database.close()
    before = file.read_bytes(), file.stat().st_mode
    with pytest.raises(StoreError, match=r"mail\.sqlite can't be used: it is another program's"):
        Store(file)
    assert (file.read_bytes(), file.stat().st_mode) == before
    assert names(file) == ["mail.sqlite"]


def test_an_empty_file_becomes_a_store(file: Path) -> None:
    file.write_bytes(b"")
    store = Store(file)
    assert store.notice == ""
    store.deliver(delivery(ANA))
    store.close()


def test_a_folder_that_is_missing_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"nowhere/mail\.sqlite can't be opened"):
        Store(tmp_path / "nowhere" / "mail.sqlite")


def test_a_closed_store_says_so_in_a_store_error(store: Store) -> None:
    box = inbox(store)
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.messages(box)
    with pytest.raises(StoreError, match="closed"):
        store.append(box, HELLO, NOON, NONE)


# -- damage


def names(file: Path) -> list[str]:
    return sorted(path.name for path in file.parent.iterdir())


def filled(file: Path, *, killed: bool = False) -> None:
    """A store with 200 messages; one that was killed has its last ones in SQLite's log only."""
    store = Store(file)
    for group in range(4):
        rows = [b"Subject: %d.%d\r\n\r\n" % (group, n) + b"body\r\n" * 5000 for n in range(50)]
        store.deliver_group([delivery(ANA, octets=octets) for octets in rows])
    copies = [path.read_bytes() for path in (file, log_of(file))]
    store.close()
    assert names(file) == [file.name]
    if killed:
        for path, octets in zip((file, log_of(file)), copies, strict=True):
            path.write_bytes(octets)


def log_of(file: Path) -> Path:
    return file.with_name(file.name + "-wal")


def overwrite(file: Path, start: int, octets: bytes) -> None:
    with file.open("r+b") as opened:
        opened.seek(start)
        opened.write(octets)


def truncate(file: Path, size: int) -> None:
    with file.open("r+b") as opened:
        opened.truncate(size)


NOISE = random.Random(3).randbytes(200_000)

DAMAGES = {
    "no SQLite": lambda file: file.write_bytes(b"This is a letter to a friend." * 100),
    "a short text": lambda file: file.write_bytes(b"Hi!"),
    "its header gone": lambda file: overwrite(file, 0, NOISE[:100]),
    "its first page gone": lambda file: overwrite(file, 100, NOISE[:3996]),
    "only zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "cut within its header": lambda file: truncate(file, 60),
    "cut after its first page": lambda file: truncate(file, 4096),
    "cut in half": lambda file: truncate(file, file.stat().st_size // 2),
    "its end cut off": lambda file: truncate(file, file.stat().st_size - 100),
    "noise in the middle": lambda file: overwrite(file, file.stat().st_size // 2, NOISE),
    "noise at the end": lambda file: overwrite(file, file.stat().st_size - 9999, NOISE[:9999]),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_set_aside_as_it_is(file: Path, damage: Callable[[Path], object]) -> None:
    filled(file)
    damage(file)
    before = file.read_bytes()
    store = Store(file)
    aside = file.with_name("mail.sqlite.damaged-1")
    assert re.fullmatch(
        r"The mail store .*mail\.sqlite was damaged \(.+\); it is kept as mail\.sqlite\.damaged-1, "
        r"and a new, empty one takes its place\.",
        store.notice,
    )
    assert aside.read_bytes() == before
    assert store.messages(inbox(store)) == []
    store.deliver(delivery(ANA))
    store.close()
    assert names(file) == ["mail.sqlite", "mail.sqlite.damaged-1"]
    again = Store(file)
    assert (again.notice, kept(again)) == ("", [HELLO])
    again.close()


def test_what_is_set_aside_never_replaces_what_was_set_aside_before(file: Path) -> None:
    for number in range(3):
        file.write_bytes(b"This is letter %d to a friend." % number)
        Store(file).close()
    assert [
        file.with_name(f"mail.sqlite.damaged-{number + 1}").read_bytes() for number in range(3)
    ] == [b"This is letter %d to a friend." % number for number in range(3)]


def test_the_log_of_a_damaged_file_is_set_aside_with_it(file: Path) -> None:
    filled(file, killed=True)
    overwrite(file, 4096 * 20, NOISE)
    before = file.read_bytes(), log_of(file).read_bytes()
    store = Store(file)
    aside = file.with_name("mail.sqlite.damaged-1")
    assert (aside.read_bytes(), log_of(aside).read_bytes()) == before
    assert "damaged-1" in store.notice
    store.close()


@pytest.mark.parametrize("empty", [True, False])
def test_a_log_without_its_file_is_set_aside(file: Path, empty: bool) -> None:
    filled(file, killed=True)
    before = log_of(file).read_bytes()
    if empty:
        file.write_bytes(b"")
    else:
        file.unlink()
    store = Store(file)
    assert log_of(file.with_name("mail.sqlite.damaged-1")).read_bytes() == before
    assert "only its log is left" in store.notice
    store.close()


def test_a_killed_store_is_not_damaged(file: Path) -> None:
    filled(file, killed=True)
    store = Store(file)
    assert store.notice == ""
    assert len(store.messages(inbox(store))) == 200
    store.close()
    assert names(file) == ["mail.sqlite"]


def test_octets_that_have_changed_on_the_disk_are_not_given(file: Path) -> None:
    store = Store(file)
    store.deliver_group([delivery(ANA, octets=HELLO + text) for text in (b"one", b"two", b"three")])
    store.close()
    overwrite(file, file.read_bytes().index(b"two"), b"tw0")
    store = Store(file)
    assert store.notice == ""
    for read in (
        lambda: store.octets(2),
        lambda: store.octets_of(inbox(store), 2),
    ):
        with pytest.raises(DamagedMessage, match="damaged on the disk"):
            read()
    told = [(uid, octets) for uid, _, _, octets in store.contents(inbox(store), 1, 3)]
    assert told == [(1, HELLO + b"one"), (2, None), (3, HELLO + b"three")]
    store.close()


def test_damaged_content_of_a_large_store_is_told_when_it_is_asked_for(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labserver.store._CHECKED_OCTETS", 100_000)
    filled(file)
    overwrite(file, file.stat().st_size // 2, NOISE)
    store = Store(file)
    assert store.notice == ""
    refused = []
    for row in store.messages(inbox(store)):
        try:
            store.octets(row.content)
        except StoreError as error:
            refused.append(str(error))
    assert 0 < len(refused) < 200
    assert all("malformed" in text for text in refused)
    store.deliver(delivery(ANA))
    store.close()


def test_a_file_that_can_not_be_set_aside_is_refused_with_a_sentence(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_bytes(b"This is a letter to a friend.")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(
        StoreError, match=r"is damaged \(.*\) and can't be renamed \(Permission den"
    ):
        Store(file)
    assert file.read_bytes() == b"This is a letter to a friend."


# -- mailboxes


def test_every_account_has_an_inbox_and_is_subscribed_to_it(store: Store) -> None:
    assert [row.name for row in store.mailboxes(ANA)] == ["INBOX"]
    assert store.subscriptions(BEN) == ["INBOX"]


def test_accounts_differ_but_not_by_case(store: Store) -> None:
    store.deliver(delivery("ANA@Lab.Example"))
    assert kept(store, "ana@LAB.EXAMPLE") == [HELLO]
    assert inbox(store, ANA) != inbox(store, BEN)


def test_a_mailbox_name_is_there_only_once(store: Store) -> None:
    work = store.create_mailbox(ANA, "Work")
    other = store.create_mailbox(ANA, "Other")
    store.create_mailbox(BEN, "Work")
    with pytest.raises(MailboxExists):
        store.create_mailbox(ANA, "Work")
    with pytest.raises(MailboxExists):
        store.rename_mailbox(other.id, "Work")
    assert store.ensure_mailbox(ANA, "Work") == work


def test_a_mailbox_made_anew_gets_a_higher_uidvalidity(store: Store) -> None:
    first = store.create_mailbox(ANA, "Work")
    store.delete_mailbox(first.id)
    second = store.create_mailbox(ANA, "Work")
    assert second.uidvalidity > first.uidvalidity
    assert second.uidnext == 1


def test_a_renamed_mailbox_keeps_its_uids_and_uidvalidity(store: Store) -> None:
    old = store.create_mailbox(ANA, "Old")
    store.append(old.id, HELLO, NOON, NONE)
    store.rename_mailbox(old.id, "New")
    new = store.mailbox(ANA, "New")
    assert (new.id, new.uidvalidity, new.uidnext) == (old.id, old.uidvalidity, 2)
    assert kept(store, name="New") == [HELLO]
    with pytest.raises(NoSuchMailbox):
        store.mailbox(ANA, "Old")


def test_a_deleted_mailbox_takes_its_messages_along_but_no_shared_content(store: Store) -> None:
    store.deliver(delivery(ANA))
    work = store.create_mailbox(ANA, "Work")
    store.copy(inbox(store), 1, work.id)
    store.append(work.id, b"only here", NOON, NONE)
    store.delete_mailbox(work.id)
    assert kept(store) == [HELLO]
    assert contents(store) == 1


def test_what_is_done_to_a_deleted_mailbox_fails(store: Store) -> None:
    work = store.create_mailbox(ANA, "Work").id
    store.deliver(delivery(ANA))
    store.delete_mailbox(work)
    with pytest.raises(NoSuchMailbox):
        store.append(work, HELLO, NOON, NONE)
    with pytest.raises(NoSuchMailbox):
        store.copy(inbox(store), 1, work)
    with pytest.raises(NoSuchMailbox):
        store.rename_mailbox(work, "Play")
    with pytest.raises(NoSuchMailbox):
        store.changes(work)
    assert contents(store) == 1


def test_a_subscription_outlives_its_mailbox(store: Store) -> None:
    work = store.create_mailbox(ANA, "Work")
    store.subscribe(ANA, "Work")
    store.subscribe(ANA, "Work")
    store.delete_mailbox(work.id)
    assert store.subscriptions(ANA) == ["INBOX", "Work"]
    store.unsubscribe(ANA, "Work")
    store.unsubscribe(ANA, "Work")
    assert store.subscriptions(ANA) == ["INBOX"]


def test_counts(store: Store) -> None:
    box = inbox(store)
    empty = store.counts(box)
    assert (empty.messages, empty.recent, empty.unseen, empty.size) == (0, 0, 0, 0)
    store.append(box, b"12345", NOON, SEEN)
    store.append(box, b"123", NOON, frozenset({"\\Flagged", "\\SeenIt", "x\\Seen"}))
    store.claim_recent(box)
    store.append(box, b"1", NOON, SEEN | {"\\Flagged"})
    counts = store.counts(box)
    assert (counts.messages, counts.recent, counts.unseen, counts.size) == (3, 1, 1, 9)


# -- messages


def test_a_uid_is_never_given_twice(store: Store) -> None:
    box = inbox(store)
    uids = [store.append(box, HELLO, NOON, NONE) for _ in range(3)]
    store.remove(box, uids)
    assert store.append(box, HELLO, NOON, NONE) == 4
    assert store.mailbox(ANA, "INBOX").uidnext == 5


def test_messages_above_a_uid(store: Store) -> None:
    box = inbox(store)
    for _ in range(3):
        store.append(box, HELLO, NOON, NONE)
    assert [row.uid for row in store.messages(box, after=1)] == [2, 3]
    assert store.message(box, 4) is None


@pytest.mark.parametrize(
    "when",
    [
        datetime(1969, 7, 20, 20, 17, 40, tzinfo=UTC),
        datetime(9999, 12, 31, tzinfo=timezone(timedelta(hours=-1))) - timedelta(days=1),
        datetime(2026, 1, 5, 13, 0, tzinfo=timezone(timedelta(hours=1))),
    ],
)
def test_any_date_comes_back_as_the_same_moment(store: Store, when: datetime) -> None:
    box = inbox(store)
    store.append(box, HELLO, when, NONE)
    assert store.messages(box)[0].received == when


def test_a_copy_keeps_flags_and_date_and_is_recent(store: Store) -> None:
    box, work = inbox(store), store.create_mailbox(ANA, "Work").id
    store.append(box, HELLO, NOON, SEEN)
    store.claim_recent(box)
    assert store.copy(box, 1, work) == 1
    assert store.copy(box, 99, work) is None
    (row,) = store.messages(work)
    assert (row.received, row.flags, row.recent) == (NOON, SEEN, True)
    assert contents(store) == 1


def test_a_moved_message_is_in_one_place_only(store: Store) -> None:
    box, work = inbox(store), store.create_mailbox(ANA, "Work").id
    store.append(box, HELLO, NOON, SEEN)
    assert store.move(box, 1, work) == 1
    assert store.move(box, 1, work) is None
    assert kept(store) == []
    assert kept(store, name="Work") == [HELLO]
    assert store.move(work, 1, work) == 2  # within one mailbox, too


def test_removed_content_is_gone_when_the_last_message_is(store: Store) -> None:
    number = store.deliver(delivery(ANA, BEN))
    store.remove(inbox(store, ANA), [1, 77])
    assert store.octets(number) == HELLO
    store.remove(inbox(store, BEN), [1])
    with pytest.raises(NoSuchMessage, match="That message has been removed"):
        store.octets(number)
    assert store.envelope(number) is None
    assert contents(store) == 0


def test_recent_is_claimed_once(store: Store) -> None:
    store.deliver_group([delivery(ANA), delivery(ANA)])
    assert store.claim_recent(inbox(store)) == {1, 2}
    assert store.claim_recent(inbox(store)) == frozenset()
    assert not any(row.recent for row in store.messages(inbox(store)))


def test_crlf_sizes_count_every_line_end_as_two_octets(store: Store) -> None:
    box = inbox(store)
    for octets in (b"a\r\nb\r\n", b"a\nb\n", b"a\r\nb", b""):
        store.append(box, octets, NOON, NONE)
    assert store.crlf_sizes(box) == {1: 6, 2: 6, 3: 6, 4: 0}


# -- changes


def test_changes_without_a_moment_are_all_there_is(store: Store) -> None:
    box = inbox(store)
    assert store.changes(box) == Changes(0, {}, frozenset(), None)
    store.append(box, HELLO, NOON, SEEN)
    store.append(box, HELLO, NOON, NONE)
    store.claim_recent(box)
    store.append(box, HELLO, NOON, NONE)
    changes = store.changes(box)
    assert changes.flags == {1: SEEN, 2: NONE, 3: NONE}
    assert changes.recent == {3}


def test_changes_since_a_moment_are_those_after_it(store: Store) -> None:
    box = inbox(store)
    for _ in range(4):
        store.append(box, HELLO, NOON, NONE)
    moment = store.changes(box).modseq
    assert store.changes(box, moment) == Changes(moment, {}, frozenset(), None)
    store.set_flags(box, 2, SEEN)
    store.remove(box, [1])
    store.append(box, HELLO, NOON, NONE)
    changes = store.changes(box, moment)
    assert changes.flags == {2: SEEN, 5: NONE}
    assert changes.uids == (2, 3, 4, 5)
    assert store.changes(box, changes.modseq).uids is None


def test_a_reader_of_changes_ends_up_with_what_is_there(store: Store) -> None:
    chance = random.Random(7)
    box, work = inbox(store), store.create_mailbox(ANA, "Work").id
    known: dict[int, frozenset[str]] = {}
    moment = 0
    for _ in range(400):
        there = [row.uid for row in store.messages(box)] or [0]
        match chance.randrange(6):
            case 0 | 1:
                store.append(box, HELLO, NOON, NONE)
            case 2:
                store.set_flags(box, chance.choice(there), frozenset({f"k{chance.random()}"}))
            case 3:
                store.remove(box, chance.sample(there, min(2, len(there))))
            case 4:
                store.move(box, chance.choice(there), chance.choice([box, work]))
            case 5:
                changes = store.changes(box, moment)
                moment = changes.modseq
                known |= changes.flags
                if changes.uids is not None:
                    known = {uid: known[uid] for uid in changes.uids}
                assert known == {row.uid: row.flags for row in store.messages(box)}


def test_recent_mail_can_be_looked_at_on_a_full_disk(file: Path) -> None:
    store = Store(file)
    box = inbox(store)
    for _ in range(9):
        store.append(box, HELLO, NOON, NONE)

    store._db.execute(
        "CREATE TEMP TRIGGER full BEFORE UPDATE OF recent ON main.message"
        " BEGIN INSERT INTO room VALUES (randomblob(100000)); END"
    )
    store._db.execute("CREATE TEMP TABLE room (octets)")
    store._db.execute("PRAGMA temp.max_page_count = 3")
    assert store.claim_recent(box) == frozenset(range(1, 10))
    assert store.claim_recent(box) == frozenset(range(1, 10))
    store.close()


# -- transactions and watchers


def test_what_happens_in_a_transaction_is_all_or_none(store: Store) -> None:
    box, work = inbox(store), store.create_mailbox(ANA, "Work").id
    store.append(box, HELLO, NOON, NONE)
    before = store.messages(box), store.mailboxes(ANA)
    heard: list[int] = []
    store.watch(heard.append)

    def fail() -> None:
        with store.transaction():
            store.set_flags(box, 1, SEEN)
            store.copy(box, 1, work)
            store.create_mailbox(ANA, "New")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (store.messages(box), store.mailboxes(ANA)) == before
    assert store.messages(work) == []
    assert heard == []
    store.append(box, HELLO, NOON, NONE)
    assert heard == [box]


def test_a_transaction_is_one_commit(store: Store) -> None:
    box, work = inbox(store), store.create_mailbox(ANA, "Work").id
    heard: list[int] = []
    store.watch(heard.append)
    with store.transaction():
        for _ in range(3):
            store.append(box, HELLO, NOON, NONE)
        store.move(box, 1, work)
        assert heard == []
    assert sorted(heard) == sorted([box, work])


def test_a_watcher_hears_of_each_commit_until_it_stops(store: Store) -> None:
    box = inbox(store)
    heard: list[tuple[int, int]] = []
    stop = store.watch(lambda mailbox: heard.append((mailbox, len(store.messages(box)))))
    store.append(box, HELLO, NOON, NONE)
    store.set_flags(box, 1, SEEN)
    store.remove(box, [1])
    stop()
    store.append(box, HELLO, NOON, NONE)
    assert heard == [(box, 1), (box, 1), (box, 0)]


def test_a_watcher_hears_that_its_mailbox_is_deleted(store: Store) -> None:
    work = store.create_mailbox(ANA, "Work").id
    heard: list[int] = []
    store.watch(heard.append)
    store.delete_mailbox(work)
    assert heard == [work]


def test_a_failed_commit_leaves_the_store_usable(file: Path) -> None:
    store = Store(file)
    box = inbox(store)
    fill_disk(store)
    with pytest.raises(NoRoom, match=r"could not be written: .*full"):
        store.append(box, b"x" * 100_000, NOON, NONE)
    store._db.execute("PRAGMA max_page_count = 1000000")
    assert store.append(box, HELLO, NOON, NONE) == 1
    assert kept(store) == [HELLO]
    store.close()


def test_a_broken_file_is_told_in_a_store_error(file: Path) -> None:
    store = Store(file)
    box = inbox(store)
    store._db.execute("DROP TABLE message")
    with pytest.raises(StoreError, match="could not be read: no such table"):
        store.messages(box)
    with pytest.raises(StoreError, match="could not be written: no such table"):
        store.append(box, HELLO, NOON, NONE)
    store.close()
