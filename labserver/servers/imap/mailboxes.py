"""An account's mailboxes, as pymap's interfaces want them, kept in the lab's store.

Nothing is remembered here: two clients, or IMAP and POP3, see each other's changes because all
of them ask the same store.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from pymap.backend.mailbox import MailboxDataInterface, MailboxSetInterface
from pymap.backend.session import BaseSession
from pymap.concurrent import Event
from pymap.config import IMAPConfig
from pymap.exceptions import MailboxReadOnly, ResponseError
from pymap.flags import FlagOp
from pymap.interfaces.message import CachedMessage
from pymap.listtree import ListTree
from pymap.mailbox import MailboxSnapshot
from pymap.parsing.message import AppendMessage
from pymap.parsing.response import ResponseCode, ResponseNo
from pymap.parsing.response.code import AppendUid, CopyUid
from pymap.parsing.specials import Flag, ObjectId, SearchKey, SequenceSet
from pymap.parsing.specials.flag import Deleted, Seen
from pymap.selected import SelectedMailbox, SelectedSet

from labserver.network.clock import Clock
from labserver.servers.imap.atoms import MOST_KEYWORDS
from labserver.servers.imap.messages import Message, Remembered, flags_of
from labserver.servers.imap.names import DELIMITER, BadName, Pattern, checked
from labserver.servers.imap.search import Candidate, condition
from labserver.servers.imap.selected import (
    SYSTEM_FLAGS,
    KeptFlags,
    Selected,
    apply,
    permanent_flags,
)
from labserver.store import MailboxExists, MailboxRow, NoSuchMailbox, Store, StoreError

_MOST_SEARCHED = 1000
"""Messages searched before other clients are served."""
_COST_OF_CONTENT = 100
"""One that is looked into counts as so many that aren't."""

_MOST_CHANGED = 500
"""Messages changed before other clients are served."""
_MOST_MAILBOXES = 1000
"""Mailboxes, and subscriptions, that an account may have."""

AnyMessage = Message | Remembered
_PERMITTED = KeptFlags()


class Refusal(ResponseError):
    """A command can't be obeyed, or not all of it: a sentence for people and a response code."""

    def __init__(self, text: bytes, code: bytes) -> None:
        super().__init__(text)
        self._text, self._code = text, code

    def get_response(self, tag: bytes) -> ResponseNo:
        return ResponseNo(tag, self._text, ResponseCode.of(self._code))


class Expunged(Refusal):
    """A command named a message by a number whose message another client has removed."""

    TEXT = b"Some of the requested messages no longer exist."

    def __init__(self) -> None:
        super().__init__(self.TEXT, b"EXPUNGEISSUED")


class Limited(Refusal):
    """There would be more of something than this server keeps."""

    def __init__(self, text: bytes) -> None:
        super().__init__(text, b"LIMIT")


class InPart(Refusal):
    """The store failed after a part of the messages had been changed."""

    def __init__(self) -> None:
        text = b"The mail store failed; only a part of the messages was changed."
        super().__init__(text, b"UNAVAILABLE")


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
            permanent_flags(keywords),
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
        raise NotImplementedError("FETCH is told by `fetch.py`; see `State.do_fetch`.")

    async def update(
        self, uid: int, cached_msg: CachedMessage, flag_set: frozenset[Flag], mode: FlagOp
    ) -> AnyMessage:
        raise NotImplementedError("Flags are changed by `Session.store_flags`.")

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
            names = self._store.subscriptions(self._account)
            if checked(name) not in names and len(names) >= _MOST_MAILBOXES:
                raise Limited(b"An account can have at most %d subscriptions." % _MOST_MAILBOXES)
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
        name = checked(name.removesuffix(DELIMITER))
        with self._store.transaction():
            try:
                row = self._store.create_mailbox(self._account, name)
            except MailboxExists as error:
                raise ValueError(name) from error
            self._ensure_superiors(name)
            self._refuse_too_many()
        return ObjectId(b"F%d" % row.id)

    async def delete_mailbox(self, name: str) -> None:
        # Inferiors stay, and with them the name, without a mailbox (RFC 3501 section 6.3.4).
        row = self._by_name()[name]
        self._store.delete_mailbox(row.id)

    async def rename_mailbox(self, before: str, after: str) -> None:
        mailboxes = self._by_name()
        after = checked(after.removesuffix(DELIMITER))
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
                self._store.rename_mailbox(mailboxes[old].id, checked(new))
            self._ensure_superiors(after)
            self._refuse_too_many(len(mailboxes))

    def _empty_inbox_into(self, name: str) -> None:
        """INBOX can't be renamed: its messages go to the new mailbox (RFC 3501 section 6.3.5)."""
        with self._store.transaction():
            inbox = self._store.ensure_mailbox(self._account, "INBOX")
            target = self._store.create_mailbox(self._account, name)
            for message in self._store.messages(inbox.id):
                self._store.move(inbox.id, message.uid, target.id)
            self._ensure_superiors(name)
            self._refuse_too_many()

    def _by_name(self) -> dict[str, MailboxRow]:
        return {row.name: row for row in self._store.mailboxes(self._account)}

    def _ensure_superiors(self, name: str) -> None:
        levels = name.split(DELIMITER)
        for depth in range(1, len(levels)):
            self._store.ensure_mailbox(self._account, DELIMITER.join(levels[:depth]))

    def _refuse_too_many(self, before: int = 0) -> None:
        """Undo what gives the account too many mailboxes; as many as before are never too many."""
        if len(self._store.mailboxes(self._account)) > max(_MOST_MAILBOXES, before):
            raise Limited(b"An account can have at most %d mailboxes." % _MOST_MAILBOXES)


class _Keywords:
    """The keywords of mailboxes, as far as the commands of one client need to know them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[int, tuple[int, frozenset[bytes]]] = {}
        """By mailbox: up to which moment it is known, and all keywords it has had."""

    def refuse_too_many(
        self, mailbox: int, flags: Iterable[Flag], instead_of: Iterable[int] = ()
    ) -> None:
        """Raise `Limited` where a mailbox can't have these too.

        They replace those of the messages with the UIDs `instead_of`.
        """
        given = _lower(flags)
        if not given:
            return
        moment, known = self._known.get(mailbox, (0, frozenset()))
        changes = self._store.changes(mailbox, moment)
        known |= _lower(*map(flags_of, set(changes.flags.values())))
        if not given <= known and len(given | known) > MOST_KEYWORDS:
            # Some may be used no more.
            replaced = set(instead_of)
            now = self._store.changes(mailbox).flags
            known = _lower(*map(flags_of, set(now.values())))
            left = {names for uid, names in now.items() if uid not in replaced}
            kept = known if not replaced else _lower(*map(flags_of, left))
            if not given <= kept and len(given | kept) > MOST_KEYWORDS:
                raise Limited(b"A mailbox can have at most %d keywords." % MOST_KEYWORDS)
        self._known[mailbox] = changes.modseq, known


def _lower(*flags: Iterable[Flag]) -> frozenset[bytes]:
    """The keywords in these sets of flags; those that differ in case are one."""
    return frozenset(flag.value.lower() for each in flags for flag in each if not flag.is_system)


class Session(BaseSession[AnyMessage]):
    """One client that has logged in to an account.

    pymap changes messages one by one; here what one command does is one change of the store, or,
    with many messages, as few as let other clients be served meanwhile.
    """

    def __init__(self, config: IMAPConfig, store: Store, clock: Clock, account: str) -> None:
        super().__init__(account)
        self._config, self._store, self._clock = config, store, clock
        self._mailboxes = MailboxSet(store, clock, account)
        self._keywords = _Keywords(store)

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
            for name in _subscribed(wanted, Pattern(ref_name + filter_)):
                found.append((name, DELIMITER, _subscribed_attributes(name, wanted, tree)))
        else:
            pattern = Pattern(ref_name + filter_)
            for entry in tree.list():
                if pattern.fits(entry.name):
                    found.append((entry.name, DELIMITER, entry.attributes))
        return found, await self._load_updates(selected, None)

    async def fetch_messages(
        self, selected: SelectedMailbox, sequence_set: SequenceSet, set_seen: bool
    ) -> tuple[Iterable[tuple[int, AnyMessage]], SelectedMailbox]:
        raise NotImplementedError("FETCH is told by `fetch.py`; see `State.do_fetch`.")

    async def append_messages(
        self,
        name: str,
        messages: Sequence[AppendMessage],
        selected: SelectedMailbox | None = None,
    ) -> tuple[AppendUid, SelectedMailbox | None]:
        mailbox = cast(Mailbox, await self._get_mailbox(name, try_create=True))
        for message in messages:
            self._keywords.refuse_too_many(mailbox.row.id, message.flag_set)
        return await super().append_messages(name, messages, selected)

    async def look(self, selected: Selected, read: Sequence[range] = ()) -> None:
        """Learn what happened in the mailbox; messages that are `read` become \\Seen."""
        mailbox = await self._get_selected(selected)
        await mailbox.update_selected(selected)
        unseen = [
            uid for uid in _uids(selected, read) if Seen not in (selected.flags_now(uid) or ())
        ]
        if unseen:
            await self._change(mailbox, selected, unseen, frozenset({Seen}), FlagOp.ADD)

    async def store_flags(
        self,
        selected: Selected,
        runs: Sequence[range],
        flag_set: frozenset[Flag],
        mode: FlagOp,
        *,
        silent: bool,
    ) -> None:
        """Change the flags of these messages, as far as they are still there.

        Raises `Refusal`, `StoreError` where nothing was changed.
        """
        if selected.readonly:
            raise MailboxReadOnly()
        mailbox = await self._get_selected(selected)
        await mailbox.update_selected(selected)
        flags, uids = selected.permanent_flags & flag_set, _uids(selected, runs)
        if mode is not FlagOp.DELETE and not flags <= SYSTEM_FLAGS:
            replaced = uids if mode is FlagOp.REPLACE else ()
            self._keywords.refuse_too_many(mailbox.row.id, flags, replaced)
        expected = await self._change(mailbox, selected, uids, flags, mode)
        if silent:
            selected.expect(expected)

    async def _change(
        self,
        mailbox: Mailbox,
        selected: Selected,
        uids: Sequence[int],
        operand: frozenset[Flag],
        mode: FlagOp,
    ) -> dict[int, frozenset[Flag]]:
        """Change flags, some messages after the other, so that other clients are served.

        Gives what a client that knows only what it was told has to expect them to be now.
        """
        after = _Memo(lambda flags: apply(mode, flags, operand))
        names = _Memo(lambda flags: frozenset(map(str, flags)))
        expected = {}
        for begin in range(0, len(uids), _MOST_CHANGED):
            if begin:
                await asyncio.sleep(0)
                await mailbox.update_selected(selected)
            changed = []
            for uid in uids[begin : begin + _MOST_CHANGED]:
                now = selected.flags_now(uid)
                if now is not None:
                    expected[uid] = after[selected.told_flags(uid)]
                    if after[now] != now:
                        changed.append((uid, names[after[now]]))
            try:
                with self._store.transaction() if changed else contextlib.nullcontext():
                    for uid, flags in changed:
                        self._store.set_flags(mailbox.row.id, uid, flags)
            except StoreError as error:
                if begin:
                    raise InPart from error
                raise
        await mailbox.update_selected(selected)
        return expected

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
        for begin in range(0, len(uids), _MOST_CHANGED):
            if begin:
                await asyncio.sleep(0)
            try:
                await mailbox.delete(uids[begin : begin + _MOST_CHANGED])
            except StoreError as error:
                if begin:
                    raise InPart from error
                raise
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
        view = cast(Selected, await source.update_selected(selected))
        uids = [uid for _, uid in view.messages.get_uids(sequence_set)]
        flags = {view.flags_now(uid) or frozenset() for uid in uids}
        self._keywords.refuse_too_many(target.row.id, frozenset().union(*flags))
        put = source.copy if keep else source.move
        pairs: list[tuple[int, int]] = []
        try:
            for begin in range(0, len(uids), _MOST_CHANGED):
                if begin:
                    await asyncio.sleep(0)
                some: list[tuple[int, int]] = []
                with self._store.transaction():
                    for uid in uids[begin : begin + _MOST_CHANGED]:
                        there = await put(uid, target)
                        if there is not None:
                            some.append((uid, there))
                        elif not sequence_set.uid:
                            raise Expunged
                pairs += some
        except BaseException as error:
            if keep and pairs:
                # All or none (RFC 3501 section 6.4.7).
                self._store.remove(target.row.id, [there for _, there in pairs])
            elif pairs and isinstance(error, StoreError):
                raise InPart from error
            raise
        code = CopyUid(target.uid_validity, pairs) if pairs else None
        return code, await source.update_selected(selected)


class _Memo(dict[frozenset[Flag], Any]):
    """What comes of a set of flags; many messages have the same ones."""

    def __init__(self, make: Callable[[frozenset[Flag]], Any]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, flags: frozenset[Flag]) -> Any:
        self[flags] = self._make(flags)
        return self[flags]


def _uids(selected: Selected, runs: Iterable[range]) -> list[int]:
    """The UIDs of these messages as far as they are still there."""
    return [uid for _, uids in selected.still_there(runs) for uid in uids]


def _subscribed(tree: ListTree, pattern: Pattern) -> list[str]:
    """The names LSUB lists: those subscribed to, and for others a superior that fits."""
    found: dict[str, None] = {}
    for entry in tree.list():
        if entry.exists:
            fitting = [*pattern.levels(entry.name)]
            if not fitting and entry.name.startswith("INBOX" + DELIMITER):
                fitting = [*pattern.levels("INBOX")]
            found |= dict.fromkeys(fitting[-1:])
    return list(found)


def _subscribed_attributes(name: str, subscribed: ListTree, all_names: ListTree) -> list[bytes]:
    """\\Noselect where there is no such mailbox or only an inferior is subscribed to."""
    there, wanted = all_names.get(name), subscribed.get(name)
    if there is not None and there.exists and wanted is not None and wanted.exists:
        return []
    return [b"Noselect"]
