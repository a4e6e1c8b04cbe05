"""What one client has been told of the mailbox it has selected, and what is still to be told.

The server may tell of new, flagged and removed messages with any response, but a message's number
must never change while the client may be using it (RFC 3501 section 7.4.1). So what is known
here is what the client knows; changes wait until a command's response carries them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence, Set

from pymap.flags import FlagOp, PermanentFlags, SessionFlags
from pymap.parsing.command import Command
from pymap.parsing.primitives import List, Number
from pymap.parsing.response import ResponseBye, UntaggedResponse
from pymap.parsing.response.code import PermanentFlags as PermanentFlagsCode
from pymap.parsing.response.specials import (
    ExistsResponse,
    ExpungeResponse,
    FetchResponse,
    FlagsResponse,
    RecentResponse,
)
from pymap.parsing.specials import FetchAttribute, FetchValue, Flag, ObjectId, SequenceSet
from pymap.parsing.specials.flag import Recent, Wildcard, get_system_flags
from pymap.parsing.specials.sequenceset import MaxValue
from pymap.selected import SelectedMailbox, SynchronizedMessages

from labserver.servers.imap.atoms import MOST_KEYWORDS
from labserver.servers.imap.messages import Remembered, flags_of
from labserver.store import Changes, MailboxRow

_FLAGS = FetchAttribute(b"FLAGS")
_UID = FetchAttribute(b"UID")
SYSTEM_FLAGS = get_system_flags() - {Recent}
"""The flags of RFC 3501 section 2.3.2 that a client may set."""


class KeptFlags(PermanentFlags):
    """All flags that a client may set: the system's, and any keyword."""

    def __init__(self) -> None:
        super().__init__(SYSTEM_FLAGS | {Wildcard})

    def intersect(self, other: Iterable[Flag]) -> frozenset[Flag]:
        return frozenset(flag for flag in other if flag in SYSTEM_FLAGS or not flag.is_system)


def permanent_flags(keywords: Set[Flag]) -> frozenset[Flag]:
    """What PERMANENTFLAGS lists in a mailbox with these keywords.

    `\\*`, new keywords, only as long as it may have more.
    """
    more = {Wildcard} if len(keywords) < MOST_KEYWORDS else set()
    return SYSTEM_FLAGS | keywords | more


def apply(operation: FlagOp, flags: Set[Flag], operand: Set[Flag]) -> frozenset[Flag]:
    """The flags after STORE. Keywords that differ only in case are one (RFC 3501 section 9)."""
    have = {flag.value.lower(): flag for flag in flags}
    given = {flag.value.lower(): flag for flag in operand}
    if operation is FlagOp.ADD:
        return frozenset((given | have).values())
    if operation is FlagOp.DELETE:
        return frozenset(flag for name, flag in have.items() if name not in given)
    return frozenset(have.get(name, flag) for name, flag in given.items())


def as_runs(numbers: SequenceSet, most: int) -> list[range]:
    """The numbers or UIDs in a set, up to the highest there is: in order, each in one range."""
    found: list[range] = []
    for item in numbers.value:
        ends = item if isinstance(item, tuple) else (item, item)
        low, high = sorted(most if isinstance(end, MaxValue) else end for end in ends)
        run = range(max(low, 1), min(high, most) + 1)
        if run:
            found.append(run)
    merged: list[range] = []
    for run in sorted(found, key=lambda one: one.start):
        if merged and run.start <= merged[-1].stop:
            merged[-1] = range(merged[-1].start, max(merged[-1].stop, run.stop))
        else:
            merged.append(run)
    return merged


def within(number: int, runs: Sequence[range]) -> bool:
    """Whether a number is in one of these ranges, which are in order."""
    place = bisect_right(runs, number, key=lambda run: run.start)
    return place > 0 and number in runs[place - 1]


class Told(SynchronizedMessages):
    """The messages a client knows of, with the flags it was told."""

    def __init__(self, flags: dict[int, frozenset[Flag]]) -> None:
        super().__init__()
        self.uids = list(flags)
        """In order: a message's number is its place here, from 1."""
        self.flags = flags

    @property
    def exists(self) -> int:
        return len(self.uids)

    @property
    def max_uid(self) -> int:
        return self.uids[-1] if self.uids else 0

    def number(self, uid: int) -> int:
        """The message sequence number of a message the client knows of."""
        return bisect_left(self.uids, uid) + 1

    def get(self, uid: int) -> Remembered | None:
        return Remembered(uid, self.flags[uid]) if uid in self.flags else None

    def runs(self, seq_set: SequenceSet) -> list[range]:
        """The numbers of messages in a set, in order, as few ranges of them as can be."""
        most = self.max_uid if seq_set.uid else self.exists
        match seq_set.value:
            case [int(number)] if not seq_set.uid:
                return [range(number, number + 1)] if 0 < number <= most else []
            case [int(uid)]:
                number = self.number(uid)
                return [range(number, number + 1)] if uid in self.flags else []
        if not seq_set.uid:
            return as_runs(seq_set, most)
        found = []
        for run in as_runs(seq_set, most):
            numbers = bisect_left(self.uids, run.start), bisect_left(self.uids, run.stop)
            found.append(range(numbers[0] + 1, numbers[1] + 1))
        return [run for run in found if run]

    def get_uids(self, seq_set: SequenceSet) -> Sequence[tuple[int, int]]:
        return [(n, self.uids[n - 1]) for run in self.runs(seq_set) for n in run]

    def get_all(self, seq_set: SequenceSet) -> Sequence[tuple[int, Remembered]]:
        return [(n, Remembered(uid, self.flags[uid])) for n, uid in self.get_uids(seq_set)]


class Selected(SelectedMailbox):
    """One client's view of the mailbox it has selected."""

    def __init__(self, mailbox: MailboxRow, changes: Changes, *, readonly: bool) -> None:
        super().__init__(ObjectId(b"F%d" % mailbox.id), readonly, KeptFlags(), SessionFlags(()))
        self.mailbox = mailbox
        self.writes = -1
        """The store's `writes` when it was last asked what happened."""
        self.mod_sequence = changes.modseq
        self._told = Told({uid: flags_of(names) for uid, names in changes.flags.items()})
        self._told_recent = len(changes.recent)
        for uid in changes.recent:
            self.session_flags.add_recent(uid)
        self._flags: dict[int, frozenset[Flag]] = {}
        self._removed: set[int] = set()
        self._expected: dict[int, frozenset[Flag]] = {}
        self._keywords = self.keywords
        self._is_gone = False

    @property
    def messages(self) -> Told:
        return self._told

    @property
    def keywords(self) -> frozenset[Flag]:
        """The keywords that messages have, told or not."""
        distinct = set(self._told.flags.values()) | set(self._flags.values())
        return frozenset(flag for flags in distinct for flag in flags if not flag.is_system)

    def learn(self, changes: Changes) -> None:
        """Take in what happened; `fork` tells the client."""
        self.mod_sequence = changes.modseq
        for uid, names in changes.flags.items():
            self._flags[uid] = flags_of(names)
        for uid in changes.recent:
            self.session_flags.add_recent(uid)
        if changes.uids is not None:
            gone = self._told.flags.keys() - set(changes.uids)
            self._removed |= gone
            for uid in self._flags.keys() - set(changes.uids):
                del self._flags[uid]
            self.session_flags.remove(gone)

    def flags_now(self, uid: int) -> frozenset[Flag] | None:
        """The flags of a message the client knows of, told or not; `None` where it is gone."""
        if uid in self._removed:
            return None
        return self._flags[uid] if uid in self._flags else self._told.flags.get(uid)

    def still_there(self, runs: Iterable[range]) -> list[tuple[int, list[int]]]:
        """Those of these messages that weren't removed: the first one's number, UIDs in order."""
        there: list[tuple[int, list[int]]] = []
        for run in () if self._is_gone else runs:
            uids = self._told.uids[run.start - 1 : run.stop - 1]
            if self._removed.isdisjoint(uids):
                there.append((run.start, uids))
            else:
                left = zip(run, uids, strict=True)
                there += [(number, [uid]) for number, uid in left if uid not in self._removed]
        return there

    def tell_all_flags(self, runs: Sequence[range]) -> frozenset[int]:
        """Tell the flags that have changed with these messages; the UIDs of those that have any."""
        changed = frozenset(
            uid
            for uid, flags in self._flags.items()
            if flags != self._told.flags.get(uid, flags) and within(self._told.number(uid), runs)
        )
        self._told.flags |= {uid: self._flags[uid] for uid in changed}
        return changed

    def tell_keywords(self) -> Iterable[UntaggedResponse]:
        """Tell of keywords that are new here, before a FETCH response names one."""
        if self._flags and not self.keywords <= self._keywords:
            self._keywords = self.keywords
            yield FlagsResponse(SYSTEM_FLAGS | self._keywords)
            if not self.readonly and Wildcard not in permanent_flags(self._keywords):
                # It was told before that more keywords can be made.
                code = PermanentFlagsCode(permanent_flags(self._keywords))
                yield UntaggedResponse(b"Flags permitted.", code, condition=b"OK")

    def set_deleted(self) -> None:
        self._is_gone = True

    def told_flags(self, uid: int) -> frozenset[Flag]:
        """The flags that the client was told a message has."""
        return self._told.flags[uid]

    def expect(self, flags: dict[int, frozenset[Flag]]) -> None:
        """The client knows that these come of its own STORE.SILENT, so it isn't told."""
        self._expected = flags

    def fork(self, command: Command) -> tuple[Selected, Iterable[UntaggedResponse]]:
        """What the response to this command also has to tell; from then on the client knows it."""
        if self._is_gone:
            return self, [ResponseBye(b"Selected mailbox was deleted, have to disconnect.")]
        untagged: list[UntaggedResponse] = []
        if not self.hide_expunged:
            untagged += self._tell_removed()
        untagged += self._tell_flags(with_uid=bool(getattr(command, "uid", False)))
        self.hide_expunged = False
        self._expected = {}
        return self, untagged

    def _tell_removed(self) -> Iterable[UntaggedResponse]:
        # From the last to the first, so that each number still means what the client thinks.
        for uid in sorted(self._removed, reverse=True):
            number = self._told.number(uid)
            del self._told.uids[number - 1], self._told.flags[uid]
            yield ExpungeResponse(number)
        self._removed.clear()

    def _tell_flags(self, *, with_uid: bool) -> Iterable[UntaggedResponse]:
        told, new, flagged = self._told, [], []
        for uid, flags in self._flags.items():
            if uid not in told.flags:
                new.append(uid)
            elif flags not in (told.flags[uid], self._expected.get(uid)):
                flagged.append(uid)
        told.flags |= self._flags
        told.uids += sorted(new)
        if new:
            yield ExistsResponse(told.exists)
        if new or self.session_flags.recent != self._told_recent:
            self._told_recent = self.session_flags.recent
            yield RecentResponse(self._told_recent)
        yield from self.tell_keywords()
        self._flags = {}
        for uid in flagged:
            yield self._flags_of(uid, with_uid=with_uid)

    def _flags_of(self, uid: int, *, with_uid: bool) -> FetchResponse:
        flags = self._told.flags[uid] | self.session_flags.get(uid)
        data = [FetchValue.of(_FLAGS, List(flags, sort=True))]
        if with_uid:
            data.append(FetchValue.of(_UID, Number(uid)))
        return FetchResponse(self._told.number(uid), data)
