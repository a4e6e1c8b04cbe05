"""Where mail rests: accounts' mailboxes and messages in one SQLite file.

The store knows neither asyncio nor a protocol. Every method does its work before it returns;
what changes mail is on disk by then, so a server may promise it (RFC 5321 section 4.2.5).
Message content is fetched on demand, rows hold only what is asked for often. A store belongs to
one thread at a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from labserver import folder as files
from labserver.message import Envelope

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_SECOND = datetime(1, 1, 1, tzinfo=UTC).timestamp()
_LAST_SECOND = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()

_REFUSED = (sqlite3.Error, UnicodeEncodeError, OverflowError)
"""What SQLite's module raises where a file, a text or a number is not for it."""

_LOGS = ("-wal", "-journal")
"""How the names of what SQLite keeps beside a file end."""
_JOURNAL = bytes.fromhex("d9d505f920a163d7")
"""How a rollback journal begins; one that ends so too names one more file, which SQLite would
delete (SQLite's file format, section 3)."""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_CHECKED_OCTETS = 256 * 1024 * 1024
"""Files up to this size are checked whole when they are opened, which takes some 0.2 s; of larger
ones all but the content, whose damage is told when somebody asks for it."""

_BEYOND_UIDS = 2**32
"""A UID has 32 bits (RFC 3501 section 2.3.1.1)."""

_VERSION = 3
"""Goes up when files with an older schema can't be used any more. A new file has version 0."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS mailbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    account TEXT NOT NULL,
    name TEXT NOT NULL,
    uidvalidity INTEGER NOT NULL,
    uidnext INTEGER NOT NULL DEFAULT 1,
    modseq INTEGER NOT NULL DEFAULT 0,
    removal INTEGER NOT NULL DEFAULT 0,
    UNIQUE (account, name)
);
CREATE TABLE IF NOT EXISTS subscription (
    account TEXT NOT NULL,
    name TEXT NOT NULL,
    PRIMARY KEY (account, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS content (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    reverse_path TEXT,
    recipients TEXT NOT NULL,
    parameters TEXT,
    crlf_size INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    octets BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS message (
    mailbox INTEGER NOT NULL REFERENCES mailbox (id) ON DELETE CASCADE,
    uid INTEGER NOT NULL,
    content INTEGER NOT NULL REFERENCES content (id),
    size INTEGER NOT NULL,
    received REAL NOT NULL,
    flags TEXT NOT NULL,
    recent INTEGER NOT NULL,
    modseq INTEGER NOT NULL,
    PRIMARY KEY (mailbox, uid)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS message_content ON message (content);
"""
_ROWS = ("mailbox", "subscription", "message")
_TABLES = (*_ROWS, "content")


class StoreError(Exception):
    """The store can't do what was asked; the text is one sentence for people."""


class NoRoom(StoreError):
    """The disk is full; once there is room again, the same can be done."""


class NoSuchMailbox(StoreError):
    """There is no mailbox of that name in that account."""


class NoSuchMessage(StoreError):
    """That message has been removed."""


class DamagedMessage(StoreError):
    """The octets of that message are not those that were stored."""


class MailboxExists(StoreError):
    """There is already a mailbox of that name in that account."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message on its way into the inboxes of its recipients."""

    envelope: Envelope
    octets: bytes
    """Headers and body as they are to be stored, trace headers included."""
    received: datetime
    """When the server took it, with a time zone."""
    accounts: tuple[str, ...] = ()
    """In whose INBOX it is put; empty where the recipients are accounts."""


@dataclass(frozen=True, slots=True)
class MailboxRow:
    """A mailbox's own data (RFC 3501 section 2.3.1.1)."""

    id: int
    account: str
    name: str
    uidvalidity: int
    uidnext: int


@dataclass(frozen=True, slots=True)
class MessageRow:
    """What is known of a stored message without its content."""

    uid: int
    content: int
    """Names the content; copies of a message in other mailboxes share it."""
    size: int
    """Octets."""
    received: datetime
    flags: frozenset[str]
    recent: bool
    """No client has been told of it yet (RFC 3501 section 2.3.2)."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What has happened in a mailbox since a moment."""

    modseq: int
    """Names the moment of asking; each change of the mailbox has a higher one."""
    flags: dict[int, frozenset[str]]
    """The flags of messages that are new or were flagged since, by UID, in order."""
    recent: frozenset[int]
    """Those of them that no client has been told of yet (RFC 3501 section 2.3.2)."""
    uids: tuple[int, ...] | None
    """All UIDs there are now, in order; `None` where nothing was removed since."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What a mailbox holds (RFC 3501 section 6.3.10)."""

    messages: int
    recent: int
    unseen: int
    size: int
    """Octets of all messages together (RFC 8438)."""


_Told = tuple[int, int, float, bytes | None]
"""UID, octets, seconds since 1970 when it was received, content; no content where it's damaged."""

_NewMessage = tuple[int, int, float, str]
"""Of a message to come into a mailbox: content, size, when it was received, flags."""

Watcher = Callable[[int], None]
"""Is called with a mailbox's id after something in it has changed and is on disk."""


class Store:
    """The mail of all accounts.

    `path` is the SQLite file, made when it is missing; `None` keeps all in memory (for tests).
    `uidvalidity` is what the first mailbox gets when the file is made: where a client may remember
    an earlier file, a number that grows with time (RFC 3501 section 2.3.1.1).

    The file is made for its owner alone, and never opened through a link. A damaged file, or what
    is no file, is set aside under another name and an empty one made; `notice` says so.
    Raises `StoreError` where the file can't be opened or written, isn't a store, or is in use.
    """

    def __init__(self, path: Path | None, uidvalidity: int = 1) -> None:
        self.path = path
        self.notice = "" if path is None else _made_ready(path)
        """What became of a file that couldn't be used as it was; empty where there was none."""
        self._watchers: list[Watcher] = []
        self._changing: set[int] | None = None
        """The mailboxes changed by the transaction that is open, if one is."""
        try:
            self._db = sqlite3.connect(
                path or ":memory:", check_same_thread=False, isolation_level=None, timeout=0.5
            )
        except sqlite3.Error as error:
            raise _failure(f"{path} can't be opened", error) from error
        try:
            if path is not None and path.exists() and not os.access(path, os.W_OK):
                raise sqlite3.OperationalError("the file is read-only")
            # One process owns the file. It also lets WAL work without shared memory.
            self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._is_new()  # before the next one writes to what isn't the lab's
            # Where WAL isn't granted (in the browser) the rollback journal is as safe.
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            # macOS tells the disk to write only when asked this way.
            self._db.execute("PRAGMA fullfsync=ON")
            self._db.execute("PRAGMA foreign_keys=ON")
            self._db.execute("BEGIN EXCLUSIVE")
            # A store that is there is opened without a write: a full disk's mail can be read.
            if self._is_new():
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                # A mailbox's id is its UIDVALIDITY, and SQLite goes on from here.
                self._db.execute(
                    "INSERT INTO sqlite_sequence VALUES ('mailbox', ?)", (uidvalidity - 1,)
                )
                self._db.execute(f"PRAGMA user_version = {_VERSION}")
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._db.close()
            if "locked" in str(error):
                raise StoreError(
                    f"The mail store {path} is in use by another lab; close that one first."
                ) from error
            raise _failure(f"{path} can't be used", error) from error
        if path is not None:
            for end in ("", *_LOGS):
                files.hide(_beside(path, end))

    def _is_new(self) -> bool:
        """Whether nothing is in the file yet. Raises `sqlite3.Error` where it is no store."""
        ((version,),) = self._db.execute("PRAGMA user_version")
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master")}
        if not version and not tables:
            return True
        if not version or not tables.issuperset(_TABLES):
            raise sqlite3.DatabaseError("it is another program's database")
        if version != _VERSION:
            raise sqlite3.DatabaseError(
                "it was made by another version of the lab; put it elsewhere"
            )
        return False

    def close(self) -> None:
        """Give the file back. The store can't be used afterwards."""
        self._db.close()

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Have `watcher` called after each commit that changed a mailbox; returns how to stop."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    # -- delivery

    def deliver(self, delivery: Delivery) -> int:
        """Put a message into the INBOX of each recipient: into all or into none.

        Returns the number of the stored content. Raises `StoreError`.
        """
        (result,) = self.deliver_group([delivery])
        if isinstance(result, StoreError):
            raise result
        return result

    def deliver_group(self, deliveries: Sequence[Delivery]) -> list[int | StoreError]:
        """Deliver several messages with one commit.

        Where that fails, each is tried alone, so that one bad message costs no other its place.
        """
        try:
            with self._transaction() as changed:
                return self._insert(deliveries, changed)
        except StoreError as error:
            if len(deliveries) == 1:
                return [error]
        return [result for one in deliveries for result in self.deliver_group([one])]

    def _insert(self, deliveries: Sequence[Delivery], changed: set[int]) -> list[int | StoreError]:
        numbers: list[int | StoreError] = []
        inboxes: dict[str, list[_NewMessage]] = {}
        for delivery in deliveries:
            envelope = delivery.envelope
            content = self._new_content(delivery.octets, envelope)
            numbers.append(content)
            new = (content, len(delivery.octets), _seconds(delivery.received), "")
            accounts = delivery.accounts or envelope.recipients
            for account in dict.fromkeys(map(str.casefold, accounts)):
                inboxes.setdefault(account, []).append(new)
        for account, messages in inboxes.items():
            mailbox = self._ensure(account, "INBOX")
            self._new_messages(mailbox, messages)
            changed.add(mailbox)
        return numbers

    # -- mailboxes

    def accounts(self) -> list[str]:
        """The accounts that have mailboxes, in the order of their names."""
        return [row[0] for row in self._rows("SELECT DISTINCT account FROM mailbox ORDER BY 1")]

    def mailboxes(self, account: str) -> list[MailboxRow]:
        """The account's mailboxes in the order they were made; INBOX always exists."""
        self.ensure_mailbox(account, "INBOX")
        rows = self._rows(
            "SELECT id, account, name, uidvalidity, uidnext FROM mailbox"
            " WHERE account = ? ORDER BY id",
            account.casefold(),
        )
        return [MailboxRow(*row) for row in rows]

    def mailbox(self, account: str, name: str) -> MailboxRow:
        """One mailbox. Raises `NoSuchMailbox`."""
        for row in self._rows(
            "SELECT id, account, name, uidvalidity, uidnext FROM mailbox"
            " WHERE account = ? AND name = ?",
            account.casefold(),
            name,
        ):
            return MailboxRow(*row)
        raise NoSuchMailbox(f"{account} has no mailbox named {name}.")

    def ensure_mailbox(self, account: str, name: str) -> MailboxRow:
        """The mailbox of that name, made if need be."""
        try:
            return self.mailbox(account, name)
        except NoSuchMailbox:
            with self._transaction():
                self._ensure(account, name)
            return self.mailbox(account, name)

    def create_mailbox(self, account: str, name: str) -> MailboxRow:
        """Make a mailbox. Raises `MailboxExists`."""
        with self._transaction():
            try:
                self.mailbox(account, name)
            except NoSuchMailbox:
                self._ensure(account, name)
            else:
                raise MailboxExists(f"{account} already has a mailbox named {name}.")
        return self.mailbox(account, name)

    def delete_mailbox(self, mailbox: int) -> None:
        """Remove a mailbox and the messages in it."""
        with self._transaction() as changed:
            contents = [
                row[0]
                for row in self._db.execute(
                    "SELECT DISTINCT content FROM message WHERE mailbox = ?", (mailbox,)
                )
            ]
            self._db.execute("DELETE FROM mailbox WHERE id = ?", (mailbox,))
            self._forget(contents)
            changed.add(mailbox)

    def rename_mailbox(self, mailbox: int, name: str) -> None:
        """Give a mailbox another name; its UIDs and UIDVALIDITY stay.

        Raises `MailboxExists`, `NoSuchMailbox`.
        """
        with self._transaction() as changed:
            try:
                done = self._db.execute("UPDATE mailbox SET name = ? WHERE id = ?", (name, mailbox))
            except sqlite3.IntegrityError as error:
                raise MailboxExists(f"There is already a mailbox named {name}.") from error
            if not done.rowcount:
                raise NoSuchMailbox("That mailbox has been removed.")
            changed.add(mailbox)

    def counts(self, mailbox: int) -> Counts:
        """How much there is in a mailbox."""
        ((messages, recent, seen, size),) = self._rows(
            "SELECT COUNT(*), TOTAL(recent), TOTAL(instr(' ' || flags || ' ', ' \\Seen ') > 0),"
            " TOTAL(size) FROM message WHERE mailbox = ?",
            mailbox,
        )
        return Counts(messages, int(recent), messages - int(seen), int(size))

    def subscriptions(self, account: str) -> list[str]:
        """The names that LSUB lists, in their order; not all need to be mailboxes' names."""
        self.ensure_mailbox(account, "INBOX")
        rows = self._rows(
            "SELECT name FROM subscription WHERE account = ? ORDER BY name", account.casefold()
        )
        return [row[0] for row in rows]

    def subscribe(self, account: str, name: str) -> None:
        """Have LSUB list that name, whether or not there is a mailbox (RFC 3501 section 6.3.6)."""
        with self._transaction():
            self._subscribe(account, name)

    def unsubscribe(self, account: str, name: str) -> None:
        """Have LSUB list that name no longer."""
        with self._transaction():
            self._db.execute(
                "DELETE FROM subscription WHERE account = ? AND name = ?",
                (account.casefold(), name),
            )

    # -- messages

    def messages(self, mailbox: int, after: int = 0) -> list[MessageRow]:
        """The messages of a mailbox with a UID above `after`, in the order of their UIDs."""
        rows = self._rows(
            "SELECT uid, content, size, received, flags, recent FROM message"
            " WHERE mailbox = ? AND uid > ? ORDER BY uid",
            mailbox,
            after,
        )
        return [_message(row) for row in rows]

    def newest(self, mailbox: int, most: int, below: int | None = None) -> list[MessageRow]:
        """So many messages with the highest UIDs, highest first; those below that, if given."""
        rows = self._rows(
            "SELECT uid, content, size, received, flags, recent FROM message"
            " WHERE mailbox = ? AND uid < ? ORDER BY uid DESC LIMIT ?",
            mailbox,
            _BEYOND_UIDS if below is None else below,
            most,
        )
        return [_message(row) for row in rows]

    def message(self, mailbox: int, uid: int) -> MessageRow | None:
        """One message, or `None` where it is gone."""
        for row in self._rows(
            "SELECT uid, content, size, received, flags, recent FROM message"
            " WHERE mailbox = ? AND uid = ?",
            mailbox,
            uid,
        ):
            return _message(row)
        return None

    @property
    def writes(self) -> int:
        """Goes up whenever anything in the store is changed; costs less than to ask what."""
        return self._db.total_changes

    def changes(self, mailbox: int, since: int = 0) -> Changes:
        """What has happened in a mailbox since the moment that an earlier answer named.

        Without a moment: all there is. Raises `NoSuchMailbox`.
        """
        about = self._rows("SELECT modseq, removal FROM mailbox WHERE id = ?", mailbox)
        if not about:
            raise NoSuchMailbox("That mailbox has been removed.")
        ((modseq, removal),) = about
        rows = []
        if modseq > since:
            rows = self._rows(
                "SELECT uid, flags, recent FROM message WHERE mailbox = ? AND modseq > ?"
                " ORDER BY uid",
                mailbox,
                since,
            )
        # Equal sets of flags are one object: a client's view of a mailbox keeps them.
        flags = {text: frozenset(text.split()) for _, text, _ in rows}
        uids = None
        if removal > since:
            present = self._rows("SELECT uid FROM message WHERE mailbox = ? ORDER BY uid", mailbox)
            uids = tuple(uid for (uid,) in present)
        return Changes(
            modseq,
            {uid: flags[text] for uid, text, _ in rows},
            frozenset(uid for uid, _, recent in rows if recent),
            uids,
        )

    def crlf_sizes(self, mailbox: int) -> dict[int, int]:
        """By UID, each message's size in octets when it is sent as lines that end in CRLF.

        It differs from `MessageRow.size` only where a line ends in a bare LF or in nothing.
        """
        return dict(
            self._rows(
                "SELECT uid, crlf_size FROM message JOIN content ON content.id = message.content"
                " WHERE mailbox = ?",
                mailbox,
            )
        )

    def octets(self, content: int) -> bytes:
        """The content of a message.

        Raises `NoSuchMessage` where it is gone, `DamagedMessage` where it isn't what was stored.
        """
        for octets, checksum in self._rows(
            "SELECT octets, checksum FROM content WHERE id = ?", content
        ):
            return _whole(octets, checksum)
        raise NoSuchMessage("That message has been removed.")

    def beginning(self, content: int, most: int) -> bytes:
        """The first so many octets of a message; the rest isn't read, so nothing tells of damage.

        Raises `NoSuchMessage` where it is gone, `StoreError` where it can't be read.
        """
        try:
            with self._db.blobopen("content", "octets", content, readonly=True) as blob:
                return blob.read(min(most, len(blob)))
        except sqlite3.Error as error:
            if "no such rowid" in str(error):
                raise NoSuchMessage("That message has been removed.") from error
            raise _failure("could not be read", error) from error

    def sizes(self, mailbox: int, first: int, last: int, most: int) -> list[_Told]:
        """Of messages with UIDs from `first` to `last`, in order and at most so many:

        UID, octets, the seconds since 1970 when it was received, no content. Plain tuples, for
        thousands of them are asked for at once.
        """
        return self._rows(
            "SELECT uid, size, received, x'' FROM message"
            " WHERE mailbox = ? AND uid BETWEEN ? AND ? ORDER BY uid LIMIT ?",
            mailbox,
            first,
            last,
            most,
        )

    def contents(self, mailbox: int, first: int, last: int) -> Iterator[_Told]:
        """The same of all of them, with their content; `None` for one that isn't what was stored.

        Each is read when it is asked for. Nothing may be changed before that has come to an end.
        Raises `StoreError`.
        """
        try:
            for uid, size, received, octets, checksum in self._db.execute(
                "SELECT uid, size, received, octets, checksum FROM message"
                " JOIN content ON content.id = message.content"
                " WHERE mailbox = ? AND uid BETWEEN ? AND ? ORDER BY uid",
                (mailbox, first, last),
            ):
                yield uid, size, received, octets if _is_whole(octets, checksum) else None
        except _REFUSED as error:
            raise _failure("could not be read", error) from error

    def octets_of(self, mailbox: int, uid: int) -> bytes | None:
        """The content of one message, or `None` where it is gone.

        Raises `StoreError`, `DamagedMessage` where it isn't what was stored.
        """
        for octets, checksum in self._rows(
            "SELECT octets, checksum FROM message JOIN content ON content.id = message.content"
            " WHERE mailbox = ? AND uid = ?",
            mailbox,
            uid,
        ):
            return _whole(octets, checksum)
        return None

    def envelope(self, content: int) -> Envelope | None:
        """The envelope a message came in; `None` where it didn't come by SMTP."""
        for reverse_path, recipients, parameters in self._rows(
            "SELECT reverse_path, recipients, parameters FROM content WHERE id = ?", content
        ):
            if reverse_path is not None:
                of_mail, of_each = json.loads(parameters) if parameters else ((), ())
                return Envelope(
                    reverse_path,
                    tuple(json.loads(recipients)),
                    tuple(of_mail),
                    tuple(tuple(each) for each in of_each),
                )
        return None

    def append(self, mailbox: int, octets: bytes, received: datetime, flags: frozenset[str]) -> int:
        """Add a message that didn't come by SMTP (RFC 3501 section 6.3.11); returns its UID."""
        with self._transaction() as changed:
            content = self._new_content(octets, None)
            changed.add(mailbox)
            return self._new_message(mailbox, content, len(octets), received, flags)

    def copy(self, mailbox: int, uid: int, target: int) -> int | None:
        """Put a message into another mailbox too; returns its UID there, `None` if it is gone."""
        with self._transaction() as changed:
            row = self.message(mailbox, uid)
            if row is None:
                return None
            changed.add(target)
            return self._new_message(target, row.content, row.size, row.received, row.flags)

    def move(self, mailbox: int, uid: int, target: int) -> int | None:
        """Put a message into another mailbox instead; returns its UID there."""
        with self._transaction() as changed:
            row = self.message(mailbox, uid)
            if row is None:
                return None
            changed.update((mailbox, target))
            moved = self._new_message(target, row.content, row.size, row.received, row.flags)
            self._db.execute("DELETE FROM message WHERE mailbox = ? AND uid = ?", (mailbox, uid))
            self._removed_from(mailbox)
            return moved

    def set_flags(self, mailbox: int, uid: int, flags: frozenset[str]) -> None:
        """Replace the flags of a message (RFC 3501 section 2.3.2), keywords included."""
        with self._transaction() as changed:
            self._db.execute(
                "UPDATE mailbox SET modseq = modseq + 1 WHERE id = ?",
                (mailbox,),
            )
            self._db.execute(
                "UPDATE message SET flags = ?,"
                " modseq = (SELECT modseq FROM mailbox WHERE id = message.mailbox)"
                " WHERE mailbox = ? AND uid = ?",
                (" ".join(sorted(flags)), mailbox, uid),
            )
            changed.add(mailbox)

    def claim_recent(self, mailbox: int) -> frozenset[int]:
        """The UIDs no client has been told of yet; from now on one has."""
        rows = self._rows("SELECT uid FROM message WHERE mailbox = ? AND recent", mailbox)
        uids = frozenset(uid for (uid,) in rows)
        # Where nothing can be written mail can be read; the next client is told the same again.
        with contextlib.suppress(StoreError):
            if uids:
                with self._transaction():
                    self._db.execute(
                        "UPDATE message SET recent = 0 WHERE mailbox = ? AND recent", (mailbox,)
                    )
        return uids

    def remove(self, mailbox: int, uids: Iterable[int]) -> None:
        """Remove messages for good; all of them or, where that fails, none."""
        uids = list(uids)
        with self._transaction() as changed:
            contents = []
            for uid in uids:
                row = self.message(mailbox, uid)
                if row is not None:
                    contents.append(row.content)
            self._db.executemany(
                "DELETE FROM message WHERE mailbox = ? AND uid = ?",
                [(mailbox, uid) for uid in uids],
            )
            self._removed_from(mailbox)
            self._forget(contents)
            changed.add(mailbox)

    # -- reading and writing

    def _rows(self, query: str, *values: object) -> list[Any]:
        """The rows a query finds. Raises `StoreError`."""
        try:
            return self._db.execute(query, values).fetchall()
        except _REFUSED as error:
            raise _failure("could not be read", error) from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """What is done to the store inside is one change: all of it or, where it fails, none.

        Between its beginning and its end nobody else may come to use the store: it must not be
        kept open over an `await` that waits.
        """
        with self._transaction():
            yield

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[set[int]]:
        """All or nothing, on disk when it ends; watchers hear of the mailboxes added to the set.

        Inside another transaction it is a part of that one.
        """
        if self._changing is not None:
            try:
                yield self._changing
            except _REFUSED as error:
                raise _failure("could not be written", error) from error
            return
        changed = self._changing = set()
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield changed
            self._db.execute("COMMIT")
        except BaseException as error:
            with contextlib.suppress(sqlite3.Error):  # what comes first is told
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
            if isinstance(error, _REFUSED):
                raise _failure("could not be written", error) from error
            raise
        finally:
            self._changing = None
        for mailbox in changed:
            for watcher in tuple(self._watchers):
                watcher(mailbox)

    def _ensure(self, account: str, name: str) -> int:
        account = account.casefold()
        row = self._db.execute(
            "SELECT id FROM mailbox WHERE account = ? AND name = ?", (account, name)
        ).fetchone()
        if row is None:
            # Ids are never used again, so a mailbox of an old name gets a new UIDVALIDITY.
            cursor = self._db.execute(
                "INSERT INTO mailbox (account, name, uidvalidity) VALUES (?, ?, 0)",
                (account, name),
            )
            self._db.execute(
                "UPDATE mailbox SET uidvalidity = id WHERE id = ?", (cursor.lastrowid,)
            )
            if name == "INBOX":
                self._subscribe(account, name)
            return int(cursor.lastrowid or 0)
        return int(row[0])

    def _subscribe(self, account: str, name: str) -> None:
        self._db.execute(
            "INSERT OR IGNORE INTO subscription VALUES (?, ?)", (account.casefold(), name)
        )

    def _new_content(self, octets: bytes, envelope: Envelope | None) -> int:
        path, recipients, parameters = None, "[]", None
        if envelope is not None:
            path, recipients = envelope.reverse_path, json.dumps(envelope.recipients)
            if envelope.parameters or envelope.recipient_parameters:
                parameters = json.dumps((envelope.parameters, envelope.recipient_parameters))
        cursor = self._db.execute(
            "INSERT INTO content"
            " (reverse_path, recipients, parameters, crlf_size, checksum, octets)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (path, recipients, parameters, _crlf_size(octets), zlib.crc32(octets), octets),
        )
        return int(cursor.lastrowid or 0)

    def _new_message(
        self, mailbox: int, content: int, size: int, received: datetime, flags: frozenset[str]
    ) -> int:
        new = (content, size, _seconds(received), " ".join(sorted(flags)))
        return self._new_messages(mailbox, [new])

    def _new_messages(self, mailbox: int, messages: Sequence[_NewMessage]) -> int:
        """Put messages into a mailbox; returns the UID of the first, the others follow it."""
        count = len(messages)
        row = self._db.execute(
            "UPDATE mailbox SET uidnext = uidnext + ?, modseq = modseq + ? WHERE id = ?"
            " RETURNING uidnext - ?, modseq - ?",
            (count, count, mailbox, count, count),
        ).fetchone()
        if row is None:
            raise NoSuchMailbox("That mailbox has been removed.")
        uid, modseq = row
        self._db.executemany(
            "INSERT INTO message VALUES (?, ?, ?, ?, ?, ?, 1, ?)",
            [
                (mailbox, uid + place, *message, modseq + place + 1)
                for place, message in enumerate(messages)
            ],
        )
        return int(uid)

    def _removed_from(self, mailbox: int) -> None:
        """Note that messages were removed from a mailbox."""
        self._db.execute(
            "UPDATE mailbox SET modseq = modseq + 1, removal = modseq + 1 WHERE id = ?", (mailbox,)
        )

    def _forget(self, contents: Iterable[int]) -> None:
        """Remove content that no message refers to any more."""
        self._db.executemany(
            "DELETE FROM content WHERE id = ?"
            " AND NOT EXISTS (SELECT 1 FROM message WHERE message.content = content.id)",
            [(content,) for content in set(contents)],
        )


def _failure(what: str, error: Exception) -> StoreError:
    """What SQLite says, as an error of the store."""
    full = _code(error) == sqlite3.SQLITE_FULL
    return (NoRoom if full else StoreError)(f"The mail store {what}: {error}.")


def _code(error: Exception) -> int:
    """What kind of error SQLite tells of; the higher octets are details of it."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _made_ready(path: Path) -> str:
    """Make room for a store's file, and make it where it is missing; returns what is to be told.

    SQLite gives what it keeps beside a file the same mode.
    """
    notices = [_set_aside_if_odd(path), _set_aside_if_damaged(path)]
    try:
        files.make(path)
    except OSError as error:
        raise StoreError(f"The mail store {path} can't be opened: {_why(error)}.") from error
    return " ".join(filter(None, notices))


def _set_aside_if_odd(path: Path) -> str:
    """Rename links, directories and the like that stand where the store's files are to be.

    Returns a sentence about them, or nothing where there were none.
    """
    odd = {}
    for end in ("", *_LOGS, "-shm"):
        one = _beside(path, end)
        if (oddity := files.oddity(one)) or (
            end == "-journal" and (oddity := _odd_journal(one, path))
        ):
            odd[one] = oddity
    if not odd:
        return ""
    which = ", ".join(f"{one.name}: {oddity}" for one, oddity in odd.items())
    try:
        names = " and ".join(files.set_aside(tuple(odd), "aside"))
    except OSError as error:
        raise StoreError(
            f"The mail store {path} can't be used ({which}), nor that be renamed ({_why(error)})."
        ) from error
    return f"The mail store {path} can't be used as it was ({which}); that is kept as {names}."


def _odd_journal(journal: Path, store: Path) -> str:
    """Why SQLite mustn't see that rollback journal, which it would delete; empty where it may."""
    with contextlib.suppress(OSError), journal.open("rb") as file:
        begins = file.read(8)
        file.seek(max(0, _octets(journal) - 8))
        if begins and (begins != _JOURNAL or not _octets(store)):
            return "it is no journal of this store"
        if file.read(8) == _JOURNAL and _octets(journal) > 8:
            return "it names one more file"
    return ""


def _why(error: OSError) -> str:
    return str(error.strerror or error)


def _set_aside_if_damaged(path: Path) -> str:
    """Rename a damaged file, and with it what SQLite keeps beside it.

    Returns a sentence about it, or nothing where there was no damage.
    """
    damage = _damage(path)
    if not damage:
        return ""
    number = 1
    while any(files.exists(_beside(path, f".damaged-{number}{end}")) for end in ("", *_LOGS)):
        number += 1
    try:
        for end in ("", *_LOGS):
            if _octets(_beside(path, end)):
                _beside(path, end).rename(_beside(path, f".damaged-{number}{end}"))
    except OSError as error:
        raise StoreError(
            f"The mail store {path} is damaged ({damage}) and can't be renamed ({_why(error)}); "
            "put it elsewhere."
        ) from error
    return (
        f"The mail store {path} was damaged ({damage}); it is kept as "
        f"{path.name}.damaged-{number}, and a new, empty one takes its place."
    )


def _damage(path: Path) -> str:
    """What is wrong with a store's file; empty where nothing is, or something else than damage.

    It is opened for reading only: else SQLite, closing it, would write what its log holds into a
    file that may be no store at all.
    """
    log, index = _beside(path, "-wal"), _beside(path, "-shm")
    size = _octets(path)
    if not size:
        # SQLite would delete a log without its file.
        return "only its log is left" if _octets(log) else ""
    indexed = index.exists()
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=0.5)
    except sqlite3.Error:
        return ""  # opening it for writing will tell
    try:
        ((version,),) = db.execute("PRAGMA user_version")
        if version not in (0, _VERSION):
            return ""
        ((page,),) = db.execute("PRAGMA page_size")
        if size % page and not _octets(log):  # a full disk may cut off what the log still has
            return "its end is missing"
        parts = [""] if size <= _CHECKED_OCTETS else [f"({name})" for name in _ROWS]
        for part in parts:
            (found,) = db.execute(f"PRAGMA quick_check{part}").fetchone()
            if found != "ok":
                return str(found).splitlines()[-1]
    except sqlite3.Error as error:
        return str(error) if _code(error) in _DAMAGED else ""
    finally:
        db.close()
        if not indexed:
            # It was made for this look; who owns the file alone needs none.
            with contextlib.suppress(OSError):
                index.unlink()
    return ""


def _octets(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _beside(path: Path, end: str) -> Path:
    return path.with_name(path.name + end)


def _is_whole(octets: bytes, checksum: int) -> bool:
    """Whether these octets are those that were stored."""
    return zlib.crc32(octets) == checksum


def _whole(octets: bytes, checksum: int) -> bytes:
    """These octets. Raises `DamagedMessage` where they aren't those that were stored."""
    if not _is_whole(octets, checksum):
        raise DamagedMessage("That message was damaged on the disk; its content is lost.")
    return bytes(octets)


def _crlf_size(octets: bytes) -> int:
    """Octets of a message whose every line, the last one too, ends in CRLF."""
    bare = octets.count(b"\n") - octets.count(b"\r\n")
    return len(octets) + bare + (2 if octets and not octets.endswith(b"\n") else 0)


def _seconds(when: datetime) -> float:
    """Seconds since 1970; of a time whose date would in UTC have no year that Python knows, the
    nearest that has one."""
    return min(max(when.timestamp(), _FIRST_SECOND), _LAST_SECOND)


def _message(row: tuple[int, int, int, float, str, int]) -> MessageRow:
    uid, content, size, received, flags, recent = row
    # Not `fromtimestamp`: on Windows that knows no date before 1970.
    when = _EPOCH + timedelta(seconds=received)
    return MessageRow(uid, content, size, when, frozenset(flags.split()), bool(recent))
