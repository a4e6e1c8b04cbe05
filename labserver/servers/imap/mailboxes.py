"""An account's mailboxes, as pymap's interfaces want them, kept in the lab's store.

Nothing is remembered here: two clients, or IMAP and POP3, see each other's changes because all
of them ask the same store.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from typing import cast

from pymap.backend.mailbox import MailboxDataInterface, MailboxSetInterface
from pymap.backend.session import BaseSession
from pymap.concurrent import Event
from pymap.config import IMAPConfig
from pymap.exceptions import MailboxError, MailboxReadOnly, ResponseError
from pymap.flags import FlagOp
from pymap.interfaces.message import CachedMessage
from pymap.listtree import ListTree
from pymap.mailbox import MailboxSnapshot
from pymap.parsing.message import AppendMessage
from pymap.parsing.response import ResponseCode, ResponseNo
from pymap.parsing.response.code import CopyUid
from pymap.parsing.specials import Flag, ObjectId, SearchKey, SequenceSet
from pymap.parsing.specials.flag import Deleted, Seen
from pymap.selected import SelectedMailbox, SelectedSet

from labserver.network.clock import Clock
from labserver.servers.imap.messages import Message, Remembered
from labserver.servers.imap.search import Candidate, condition
from labserver.servers.imap.selected import SYSTEM_FLAGS, KeptFlags, Selected, apply
from labserver.store import MailboxExists, MailboxRow, NoSuchMailbox, Store, StoreError

DELIMITER = "/"
_LONGEST_NAME = 255
_MOST_SEARCHED = 1000
"""Messages searched before other clients are served."""
_COST_OF_CONTENT = 100
"""One that is looked into counts as so many that aren't."""

AnyMessage = Message | Remembered
_PERMITTED = KeptFlags()


class Expunged(ResponseError):
    """A command named a message by a number whose message another client has removed."""

    def get_response(self, tag: bytes) -> ResponseNo:
        text = b"Some of these messages have been expunged."
        return ResponseNo(tag, text, ResponseCode.of(b"EXPUNGEISSUED"))


class BadName(MailboxError):
    """A mailbox can't have that name."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(name, why.encode(), ResponseCode.of(b"CANNOT"))


class Snapshot(MailboxSnapshot):
    """A mailbox at one moment."""

    def __init__(self, row: MailboxRow, store: Store, keywords: frozenset[Flag]) -> None:
        counts = store.counts(row.id)
        self.size = counts.size
        """Octets of all its messages."""
        self._flags = SYSTEM_FLAGS | keywords
        super().__init__(
            ObjectId(b"F%d" % row.id),
            False,
            row.uidvalidity,
            _PERMITTED.defined | keywords,
            frozenset(),
            counts.messages,
            counts.recent,
            counts.unseen,
            None,
            row.uidnext,
        )

    @property
    def flags(self) -> frozenset[Flag]:
        """What the FLAGS response lists: not \\Recent and not \\* (RFC 3501 section 9)."""
        return self._flags


class Mailbox(MailboxDataInterface[AnyMessage]):
    """One mailbox. `row` is what was known of it when it was looked up."""

    def __init__(self, store: Store, clock: Clock, row: MailboxRow) -> None:
        self._store, self._clock, self.row = store, clock, row

    @property
    def mailbox_id(self) -> ObjectId:
        return ObjectId(b"F%d" % self.row.id)

    @property
    def readonly(self) -> bool:
        return False

    @property
    def uid_validity(self) -> int:
        return self.row.uidvalidity

    @property
    def selected_set(self) -> SelectedSet:
        """Always empty: who has it selected need not be known."""
        return SelectedSet()

    def select(self, *, readonly: bool) -> Selected:
        """The view of a client that selects it now."""
        changes = self._store.changes(self.row.id)
        if changes.recent and not readonly:
            self._store.claim_recent(self.row.id)
        return Selected(self.row, changes, readonly=readonly)

    async def update_selected(
        self, selected: SelectedMailbox, *, wait_on: Event | None = None
    ) -> SelectedMailbox:
        view = cast(Selected, selected)
        if wait_on is not None:
            await self._changed_since(view.mod_sequence, wait_on)
        if view.writes == self._store.writes:
            return view
        try:
            changes = self._store.changes(self.row.id, view.mod_sequence)
        except NoSuchMailbox:
            view.set_deleted()
            return view
        if changes.recent and not view.readonly:
            self._store.claim_recent(self.row.id)
        view.learn(changes)
        view.writes = self._store.writes
        return view

    async def _changed_since(self, moment: int, enough: Event) -> None:
        """Wait until something has changed, or until `enough` is set."""
        awake = enough.or_event()
        stop = self._store.watch(lambda box: awake.set() if box == self.row.id else None)
        try:
            if self._store.changes(self.row.id, moment).modseq == moment:
                await awake.wait()
        except NoSuchMailbox:
            pass  # that is a change, too
        finally:
            stop()

    async def append(self, append_msg: AppendMessage, *, recent: bool = False) -> AnyMessage:
        flags = frozenset(map(str, _PERMITTED & append_msg.flag_set))
        when = append_msg.when or self._clock.now()
        uid = self._store.append(self.row.id, append_msg.literal, when, flags)
        return Remembered(uid, _PERMITTED & append_msg.flag_set)

    async def copy(self, uid: int, destination: Mailbox, *, recent: bool = False) -> int | None:
        return self._store.copy(self.row.id, uid, destination.row.id)

    async def move(self, uid: int, destination: Mailbox, *, recent: bool = False) -> int | None:
        return self._store.move(self.row.id, uid, destination.row.id)

    async def get(self, uid: int, cached_msg: CachedMessage) -> AnyMessage:
        row = self._store.message(self.row.id, uid)
        if row is None:
            return Remembered(uid, cached_msg.permanent_flags, expunged=True)
        return Message(self._store, row)

    async def update(
        self, uid: int, cached_msg: CachedMessage, flag_set: frozenset[Flag], mode: FlagOp
    ) -> AnyMessage:
        message = await self.get(uid, cached_msg)
        flags = apply(mode, message.permanent_flags, flag_set)
        if not message.expunged and flags != message.permanent_flags:
            self._store.set_flags(self.row.id, uid, frozenset(map(str, flags)))
            message.permanent_flags = flags
        return message

    async def delete(self, uids: Iterable[int]) -> None:
        self._store.remove(self.row.id, uids)

    async def claim_recent(self, selected: SelectedMailbox) -> None:
        for uid in self._store.claim_recent(self.row.id):
            selected.session_flags.add_recent(uid)

    async def cleanup(self) -> None:
        pass  # every change is on disk already

    async def snapshot(self) -> Snapshot:
        return Snapshot(self.row, self._store, frozenset())


class MailboxSet(MailboxSetInterface[Mailbox]):
    """The mailboxes of one account. Names are hierarchical, with `/` between the levels."""

    def __init__(self, store: Store, clock: Clock, account: str) -> None:
        self._store, self._clock, self._account = store, clock, account

    @property
    def delimiter(self) -> str:
        return DELIMITER

    async def set_subscribed(self, name: str, subscribed: bool) -> None:
        if subscribed:
            self._store.subscribe(self._account, name)
        else:
            self._store.unsubscribe(self._account, name)

    async def list_subscribed(self) -> ListTree:
        return ListTree(DELIMITER).update(*self._store.subscriptions(self._account))

    async def list_mailboxes(self) -> ListTree:
        return ListTree(DELIMITER).update(*self._by_name())

    async def get_mailbox(self, name: str) -> Mailbox:
        if name == "INBOX":
            row = self._store.ensure_mailbox(self._account, name)
        else:
            try:
                row = self._store.mailbox(self._account, name)
            except NoSuchMailbox as error:
                raise KeyError(name) from error
        return Mailbox(self._store, self._clock, row)

    async def add_mailbox(self, name: str) -> ObjectId:
        name = _checked(name.removesuffix(DELIMITER))
        with self._store.transaction():
            try:
                row = self._store.create_mailbox(self._account, name)
            except MailboxExists as error:
                raise ValueError(name) from error
            self._ensure_superiors(name)
        return ObjectId(b"F%d" % row.id)

    async def delete_mailbox(self, name: str) -> None:
        # Inferiors stay, and with them the name, without a mailbox (RFC 3501 section 6.3.4).
        row = self._by_name()[name]
        self._store.delete_mailbox(row.id)

    async def rename_mailbox(self, before: str, after: str) -> None:
        mailboxes = self._by_name()
        after = _checked(after.removesuffix(DELIMITER))
        tree = ListTree(DELIMITER).update(*mailboxes)
        if tree.get(before) is None:
            raise KeyError(before)
        if tree.get(after) is not None:
            raise ValueError(after)
        if before == "INBOX":
            self._empty_inbox_into(after)
            return
        if after.startswith(before + DELIMITER):
            raise BadName(after, "A mailbox can't become its own inferior.")
        with self._store.transaction():
            for old, new in tree.get_renames(before, after):
                self._store.rename_mailbox(mailboxes[old].id, _checked(new))
            self._ensure_superiors(after)

    def _empty_inbox_into(self, name: str) -> None:
        """INBOX can't be renamed: its messages go to the new mailbox (RFC 3501 section 6.3.5)."""
        with self._store.transaction():
            inbox = self._store.ensure_mailbox(self._account, "INBOX")
            target = self._store.create_mailbox(self._account, name)
            for message in self._store.messages(inbox.id):
                self._store.move(inbox.id, message.uid, target.id)
            self._ensure_superiors(name)

    def _by_name(self) -> dict[str, MailboxRow]:
        return {row.name: row for row in self._store.mailboxes(self._account)}

    def _ensure_superiors(self, name: str) -> None:
        levels = name.split(DELIMITER)
        for depth in range(1, len(levels)):
            self._store.ensure_mailbox(self._account, DELIMITER.join(levels[:depth]))


def _checked(name: str) -> str:
    """A name for a new mailbox. Raises `BadName`."""
    if not all(name.split(DELIMITER)):
        raise BadName(name, "Each level of a mailbox's name needs at least one character.")
    if len(name.encode("utf-8", "replace")) > _LONGEST_NAME:
        raise BadName(name, f"A mailbox's name can have at most {_LONGEST_NAME} octets.")
    if any(not c.isprintable() or c in "*%" for c in name):
        raise BadName(name, "A mailbox's name can't contain *, % or control characters.")
    return name


class Session(BaseSession[AnyMessage]):
    """One client that has logged in to an account.

    pymap changes messages one by one; here what one command does is one change of the store.
    """

    def __init__(self, config: IMAPConfig, store: Store, clock: Clock, account: str) -> None:
        super().__init__(account)
        self._config, self._store, self._clock = config, store, clock
        self._mailboxes = MailboxSet(store, clock, account)

    @property
    def config(self) -> IMAPConfig:
        return self._config

    @property
    def mailbox_set(self) -> MailboxSet:
        return self._mailboxes

    @classmethod
    def _pick_selected(
        cls, selected: SelectedMailbox | None, mbx: MailboxDataInterface[AnyMessage]
    ) -> None:
        """New messages are recent until a client is told of them, whoever that is."""

    async def _get_selected(self, selected: SelectedMailbox) -> Mailbox:
        # Whatever it is called now. Where it has been removed, the next update says so.
        return Mailbox(self._store, self._clock, cast(Selected, selected).mailbox)

    async def check_mailbox(
        self,
        selected: SelectedMailbox,
        *,
        wait_on: Event | None = None,
        housekeeping: bool = False,
    ) -> SelectedMailbox:
        mailbox = await self._get_selected(selected)
        return await mailbox.update_selected(selected, wait_on=wait_on)

    async def select_mailbox(
        self, name: str, readonly: bool = False
    ) -> tuple[Snapshot, SelectedMailbox]:
        mailbox = await self._get_mailbox(name)
        selected = cast(Mailbox, mailbox).select(readonly=readonly)
        return Snapshot(cast(Mailbox, mailbox).row, self._store, selected.keywords), selected

    async def list_mailboxes(
        self,
        ref_name: str,
        filter_: str,
        subscribed: bool = False,
        selected: SelectedMailbox | None = None,
    ) -> tuple[Iterable[tuple[str, str | None, Sequence[bytes]]], SelectedMailbox | None]:
        tree = await self._mailboxes.list_mailboxes()
        found: list[tuple[str, str | None, Sequence[bytes]]] = []
        if not filter_:
            found.append(("", DELIMITER, [b"Noselect"]))
        elif subscribed:
            wanted = await self._mailboxes.list_subscribed()
            for name in _subscribed(wanted, ref_name + filter_):
                found.append((name, DELIMITER, _subscribed_attributes(name, wanted, tree)))
        else:
            for entry in tree.list():
                if _matches(ref_name + filter_, entry.name):
                    found.append((entry.name, DELIMITER, entry.attributes))
        return found, await self._load_updates(selected, None)

    async def fetch_messages(
        self, selected: SelectedMailbox, sequence_set: SequenceSet, set_seen: bool
    ) -> tuple[Iterable[tuple[int, AnyMessage]], SelectedMailbox]:
        raise NotImplementedError("FETCH is told by `fetch.py`; see `State.do_fetch`.")

    async def look(self, selected: Selected, read: Iterable[range] = ()) -> None:
        """Learn what happened in the mailbox; messages that are `read` become \\Seen."""
        mailbox = await self._get_selected(selected)
        await mailbox.update_selected(selected)
        unseen = {
            uid: flags
            for _, uids in selected.still_there(read)
            for uid in uids
            if (flags := selected.flags_now(uid)) is not None and Seen not in flags
        }
        if unseen:
            with self._store.transaction():
                for uid, flags in unseen.items():
                    names = frozenset(map(str, flags | {Seen}))
                    self._store.set_flags(mailbox.row.id, uid, names)
            await mailbox.update_selected(selected)

    async def update_flags(
        self,
        selected: SelectedMailbox,
        sequence_set: SequenceSet,
        flag_set: frozenset[Flag],
        mode: FlagOp = FlagOp.REPLACE,
    ) -> tuple[Iterable[tuple[int, AnyMessage]], SelectedMailbox]:
        if selected.readonly:
            raise MailboxReadOnly()
        flags = selected.permanent_flags & flag_set
        return await self._update_flags(selected, sequence_set, flags, mode)

    async def _update_flags(
        self,
        selected: SelectedMailbox,
        sequence_set: SequenceSet,
        flags: frozenset[Flag],
        mode: FlagOp,
    ) -> tuple[Iterable[tuple[int, AnyMessage]], SelectedMailbox]:
        mailbox = await self._get_selected(selected)
        with self._store.transaction():
            updated = [
                (number, await mailbox.update(known.uid, known, flags, mode))
                for number, known in selected.messages.get_all(sequence_set)
            ]
        return updated, await mailbox.update_selected(selected)

    async def search_mailbox(
        self, selected: SelectedMailbox, keys: frozenset[SearchKey]
    ) -> tuple[Iterable[tuple[int, AnyMessage]], SelectedMailbox]:
        mailbox = await self._get_selected(selected)
        known = cast(Selected, selected).messages
        fits = condition(keys, known.exists, known.max_uid)
        found: list[tuple[int, AnyMessage]] = []
        rows = {row.uid: row for row in self._store.messages(mailbox.row.id)}
        until_others = _MOST_SEARCHED
        for number, uid in enumerate(known.uids, 1):
            if uid not in rows:
                continue
            message = Message(self._store, rows[uid])
            candidate = Candidate(number, message, message.get_flags(selected.session_flags))
            try:
                if fits(candidate):
                    found.append((number, message))
            except StoreError:
                if self._store.message(mailbox.row.id, uid) is not None:
                    raise
                # While others were searched another client removed this one.
            until_others -= _COST_OF_CONTENT if candidate.was_read else 1
            if until_others <= 0:
                until_others = _MOST_SEARCHED
                await asyncio.sleep(0)
        return found, await mailbox.update_selected(selected)

    async def expunge_mailbox(
        self, selected: SelectedMailbox, uid_set: SequenceSet | None = None
    ) -> SelectedMailbox:
        if selected.readonly:
            raise MailboxReadOnly()
        mailbox = await self._get_selected(selected)
        known = [uid for _, uid in selected.messages.get_uids(uid_set or SequenceSet.all())]
        flags = self._store.changes(mailbox.row.id).flags
        deleted = str(Deleted)
        uids = [uid for uid in known if deleted in flags.get(uid, ())]
        if uids:
            await mailbox.delete(uids)
        return await mailbox.update_selected(selected)

    async def copy_messages(
        self, selected: SelectedMailbox, sequence_set: SequenceSet, mailbox: str
    ) -> tuple[CopyUid | None, SelectedMailbox]:
        return await self._transfer(selected, sequence_set, mailbox, keep=True)

    async def move_messages(
        self, selected: SelectedMailbox, sequence_set: SequenceSet, mailbox: str
    ) -> tuple[CopyUid | None, SelectedMailbox]:
        if selected.readonly:
            raise MailboxReadOnly()
        return await self._transfer(selected, sequence_set, mailbox, keep=False)

    async def _transfer(
        self, selected: SelectedMailbox, sequence_set: SequenceSet, name: str, *, keep: bool
    ) -> tuple[CopyUid | None, SelectedMailbox]:
        source = await self._get_selected(selected)
        target = cast(Mailbox, await self._get_mailbox(name, try_create=True))
        put = source.copy if keep else source.move
        pairs: list[tuple[int, int]] = []
        with self._store.transaction():
            for _, uid in selected.messages.get_uids(sequence_set):
                there = await put(uid, target)
                if there is not None:
                    pairs.append((uid, there))
                elif not sequence_set.uid:
                    # All or none (RFC 3501 section 6.4.7).
                    raise Expunged
        code = CopyUid(target.uid_validity, pairs) if pairs else None
        return code, await source.update_selected(selected)


_WILDCARDS = re.compile(r"[*%]{2,}")


def _matches(pattern: str, name: str) -> bool:
    """Whether LIST's pattern fits: `*` is anything, `%` anything within one level.

    Takes time in proportion to both lengths only, whatever the pattern.
    """
    if name == "INBOX":
        pattern = pattern.upper()
    # Of wildcards in a row one does as well, and without it a long row would take for ever.
    pattern = _WILDCARDS.sub(lambda row: "*" if "*" in row[0] else "%", pattern)
    if len(pattern) - pattern.count("*") - pattern.count("%") > len(name):
        return False
    places = _past_wildcards(pattern, {0})
    for character in name:
        after = set()
        for place in places:
            if place < len(pattern):
                expected = pattern[place]
                if expected == "*" or (expected == "%" and character != DELIMITER):
                    after.add(place)
                elif expected == character and expected not in "*%":
                    after.add(place + 1)
        places = _past_wildcards(pattern, after)
    return len(pattern) in places


def _past_wildcards(pattern: str, places: set[int]) -> set[int]:
    """These places in a pattern and those reached from them when wildcards stand for nothing."""
    reached = set(places)
    for place in places:
        while place < len(pattern) and pattern[place] in "*%":
            place += 1
            reached.add(place)
    return reached


def _subscribed(tree: ListTree, pattern: str) -> list[str]:
    """The names LSUB lists: those subscribed to, and for others a superior that fits."""
    found: dict[str, None] = {}
    for entry in tree.list():
        if not entry.exists:
            continue
        if _matches(pattern, entry.name):
            found[entry.name] = None
            continue
        levels = entry.name.split(DELIMITER)
        for depth in range(len(levels) - 1, 0, -1):
            superior = DELIMITER.join(levels[:depth])
            if _matches(pattern, superior):
                found[superior] = None
                break
    return list(found)


def _subscribed_attributes(name: str, subscribed: ListTree, all_names: ListTree) -> list[bytes]:
    """\\Noselect where there is no such mailbox or only an inferior is subscribed to."""
    there, wanted = all_names.get(name), subscribed.get(name)
    if there is not None and there.exists and wanted is not None and wanted.exists:
        return []
    return [b"Noselect"]
