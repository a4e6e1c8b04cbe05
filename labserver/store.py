"""Where mail rests: accounts' mailboxes and messages in one SQLite file.

The store knows neither asyncio nor a protocol. Every method does its work before it returns;
what changes mail is on disk by then, so a server may promise it (RFC 5321 section 4.2.5).
Message content is fetched on demand, rows hold only what is asked for often. A store belongs to
one thread at a time.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from labserver.message import Envelope

UTC = timezone.utc

_SCHEMA = """
CREATE TABLE IF NOT EXISTS mailbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    account TEXT NOT NULL,
    name TEXT NOT NULL,
    uidvalidity INTEGER NOT NULL,
    uidnext INTEGER NOT NULL DEFAULT 1,
    subscribed INTEGER NOT NULL DEFAULT 0,
    UNIQUE (account, name)
);
CREATE TABLE IF NOT EXISTS content (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    reverse_path TEXT,
    recipients TEXT NOT NULL,
    crlf_size INTEGER NOT NULL,
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
    PRIMARY KEY (mailbox, uid)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS message_content ON message (content);
"""


class StoreError(Exception):
    """The store can't do what was asked; the text is one sentence for people."""


class NoSuchMailbox(StoreError):
    """There is no mailbox of that name in that account."""


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


@dataclass(frozen=True, slots=True)
class MailboxRow:
    """A mailbox's own data (RFC 3501 section 2.3.1.1)."""

    id: int
    account: str
    name: str
    uidvalidity: int
    uidnext: int
    subscribed: bool


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


Watcher = Callable[[int], None]
"""Is called with a mailbox's id after something in it has changed and is on disk."""


class Store:
    """The mail of all accounts.

    `path` is the SQLite file, made when it is missing; `None` keeps all in memory (for tests).
    Raises `StoreError` where the file can't be opened, isn't a store, or is in use.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._watchers: list[Watcher] = []
        try:
            self._db = sqlite3.connect(
                path or ":memory:", check_same_thread=False, isolation_level=None, timeout=0.5
            )
        except sqlite3.Error as error:
            raise StoreError(f"The mail store {path} can't be opened: {error}.") from error
        try:
            # One process owns the file. It also lets WAL work without shared memory.
            self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
            # Where WAL isn't granted (in the browser) the rollback journal is as safe.
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            # macOS tells the disk to write only when asked this way.
            self._db.execute("PRAGMA fullfsync=ON")
            self._db.execute("PRAGMA foreign_keys=ON")
            self._db.execute("BEGIN EXCLUSIVE")
            for statement in _SCHEMA.split(";"):
                self._db.execute(statement)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._db.close()
            if "locked" in str(error):
                raise StoreError(
                    f"The mail store {path} is in use by another lab; close that one first."
                ) from error
            raise StoreError(f"The mail store {path} can't be used: {error}.") from error

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
                return [self._insert(delivery, changed) for delivery in deliveries]
        except StoreError as error:
            if len(deliveries) == 1:
                return [error]
        return [result for one in deliveries for result in self.deliver_group([one])]

    def _insert(self, delivery: Delivery, changed: set[int]) -> int:
        envelope = delivery.envelope
        content = self._new_content(delivery.octets, envelope)
        for address in dict.fromkeys(map(str.casefold, envelope.recipients)):
            mailbox = self._ensure(address, "INBOX")
            self._new_message(
                mailbox, content, len(delivery.octets), delivery.received, frozenset()
            )
            changed.add(mailbox)
        return content

    # -- mailboxes

    def mailboxes(self, account: str) -> list[MailboxRow]:
        """The account's mailboxes in the order they were made; INBOX always exists."""
        self.ensure_mailbox(account, "INBOX")
        rows = self._db.execute(
            "SELECT id, account, name, uidvalidity, uidnext, subscribed FROM mailbox"
            " WHERE account = ? ORDER BY id",
            (account.casefold(),),
        )
        return [_mailbox(row) for row in rows]

    def mailbox(self, account: str, name: str) -> MailboxRow:
        """One mailbox. Raises `NoSuchMailbox`."""
        row = self._db.execute(
            "SELECT id, account, name, uidvalidity, uidnext, subscribed FROM mailbox"
            " WHERE account = ? AND name = ?",
            (account.casefold(), name),
        ).fetchone()
        if row is None:
            raise NoSuchMailbox(f"{account} has no mailbox named {name}.")
        return _mailbox(row)

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
        """Give a mailbox another name; its UIDs and UIDVALIDITY stay. Raises `MailboxExists`."""
        with self._transaction() as changed:
            try:
                self._db.execute("UPDATE mailbox SET name = ? WHERE id = ?", (name, mailbox))
            except sqlite3.IntegrityError as error:
                raise MailboxExists(f"There is already a mailbox named {name}.") from error
            changed.add(mailbox)

    def subscribe(self, mailbox: int, subscribed: bool) -> None:
        """Set whether the mailbox is listed by LSUB (RFC 3501 section 6.3.6)."""
        with self._transaction():
            self._db.execute(
                "UPDATE mailbox SET subscribed = ? WHERE id = ?", (subscribed, mailbox)
            )

    # -- messages

    def messages(self, mailbox: int, after: int = 0) -> list[MessageRow]:
        """The messages of a mailbox with a UID above `after`, in the order of their UIDs."""
        rows = self._db.execute(
            "SELECT uid, content, size, received, flags, recent FROM message"
            " WHERE mailbox = ? AND uid > ? ORDER BY uid",
            (mailbox, after),
        )
        return [_message(row) for row in rows]

    def message(self, mailbox: int, uid: int) -> MessageRow | None:
        """One message, or `None` where it is gone."""
        row = self._db.execute(
            "SELECT uid, content, size, received, flags, recent FROM message"
            " WHERE mailbox = ? AND uid = ?",
            (mailbox, uid),
        ).fetchone()
        return _message(row) if row else None

    def crlf_sizes(self, mailbox: int) -> dict[int, int]:
        """By UID, each message's size in octets when it is sent as lines that end in CRLF.

        It differs from `MessageRow.size` only where a line ends in a bare LF or in nothing.
        """
        rows = self._db.execute(
            "SELECT uid, crlf_size FROM message JOIN content ON content.id = message.content"
            " WHERE mailbox = ?",
            (mailbox,),
        )
        return dict(rows.fetchall())

    def octets(self, content: int) -> bytes:
        """The content of a message. Raises `StoreError` where it is gone."""
        row = self._db.execute("SELECT octets FROM content WHERE id = ?", (content,)).fetchone()
        if row is None:
            raise StoreError("That message has been removed.")
        return bytes(row[0])

    def envelope(self, content: int) -> Envelope | None:
        """The envelope a message came in; `None` where it didn't come by SMTP."""
        row = self._db.execute(
            "SELECT reverse_path, recipients FROM content WHERE id = ?", (content,)
        ).fetchone()
        if row is None or row[0] is None:
            return None
        return Envelope(row[0], tuple(json.loads(row[1])))

    def append(
        self, mailbox: int, octets: bytes, received: datetime, flags: frozenset[str]
    ) -> int:
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
            return moved

    def set_flags(self, mailbox: int, uid: int, flags: frozenset[str]) -> None:
        """Replace the flags of a message (RFC 3501 section 2.3.2), keywords included."""
        with self._transaction() as changed:
            self._db.execute(
                "UPDATE message SET flags = ? WHERE mailbox = ? AND uid = ?",
                (" ".join(sorted(flags)), mailbox, uid),
            )
            changed.add(mailbox)

    def claim_recent(self, mailbox: int) -> frozenset[int]:
        """The UIDs no client has been told of yet; from now on one has."""
        uids = frozenset(
            row[0]
            for row in self._db.execute(
                "SELECT uid FROM message WHERE mailbox = ? AND recent", (mailbox,)
            )
        )
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
            self._forget(contents)
            changed.add(mailbox)

    # -- inside a transaction

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[set[int]]:
        """All or nothing, on disk when it ends; watchers hear of the mailboxes added to the set."""
        changed: set[int] = set()
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield changed
            self._db.execute("COMMIT")
        except BaseException as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise StoreError(f"The mail store could not be written: {error}.") from error
            raise
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
            return int(cursor.lastrowid or 0)
        return int(row[0])

    def _new_content(self, octets: bytes, envelope: Envelope | None) -> int:
        cursor = self._db.execute(
            "INSERT INTO content (reverse_path, recipients, crlf_size, octets)"
            " VALUES (?, ?, ?, ?)",
            (
                envelope.reverse_path if envelope else None,
                json.dumps(envelope.recipients if envelope else ()),
                _crlf_size(octets),
                octets,
            ),
        )
        return int(cursor.lastrowid or 0)

    def _new_message(
        self, mailbox: int, content: int, size: int, received: datetime, flags: frozenset[str]
    ) -> int:
        row = self._db.execute(
            "UPDATE mailbox SET uidnext = uidnext + 1 WHERE id = ? RETURNING uidnext - 1",
            (mailbox,),
        ).fetchone()
        if row is None:
            raise NoSuchMailbox("That mailbox has been removed.")
        self._db.execute(
            "INSERT INTO message VALUES (?, ?, ?, ?, ?, ?, 1)",
            (mailbox, row[0], content, size, received.timestamp(), " ".join(sorted(flags))),
        )
        return int(row[0])

    def _forget(self, contents: Iterable[int]) -> None:
        """Remove content that no message refers to any more."""
        self._db.executemany(
            "DELETE FROM content WHERE id = ?1"
            " AND NOT EXISTS (SELECT 1 FROM message WHERE content = ?1)",
            [(content,) for content in set(contents)],
        )


def _crlf_size(octets: bytes) -> int:
    """Octets of a message whose every line, the last one too, ends in CRLF."""
    bare = octets.count(b"\n") - octets.count(b"\r\n")
    return len(octets) + bare + (2 if octets and not octets.endswith(b"\n") else 0)


def _mailbox(row: tuple[int, str, str, int, int, int]) -> MailboxRow:
    return MailboxRow(row[0], row[1], row[2], row[3], row[4], bool(row[5]))


def _message(row: tuple[int, int, int, float, str, int]) -> MessageRow:
    uid, content, size, received, flags, recent = row
    when = datetime.fromtimestamp(received, UTC)
    return MessageRow(uid, content, size, when, frozenset(flags.split()), bool(recent))
