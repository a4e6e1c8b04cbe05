"""How FETCH tells of messages (RFC 3501 section 7.4.2): read and written piece by piece.

pymap writes each value by objects of its own, which takes most of the time where thousands of
messages are told of. What is written here is octet for octet what pymap writes, but for NUL.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from operator import itemgetter
from typing import Any, Protocol

from pymap.bytes import Writeable, WriteStream
from pymap.parsing.primitives import List
from pymap.parsing.response import (
    CommandResponse,
    ResponseCode,
    ResponseNo,
    UntaggedResponse,
)
from pymap.parsing.specials import FetchAttribute, Flag
from pymap.parsing.specials.flag import Recent

from labserver.servers.imap.messages import Content
from labserver.servers.imap.selected import Selected
from labserver.store import Store, StoreError

_log = logging.getLogger("labserver")

_PIECE_OCTETS = 64 * 1024
"""How much is read and written before other clients are served."""
MOST = 1000
"""Messages told of before other clients are served."""
_MOST_PARSED = 10
"""The same, of messages that are looked into."""
_MONTHS = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_UID, _SIZE, _SECONDS, _OCTETS, _FLAGS, _CONTENT = range(6)
"""What is known of one message while it is told of, by its place in a tuple."""
_Get = Callable[[tuple[Any, ...]], Any]
_NUMBER: _Get = itemgetter(6)


class Wire(Protocol):
    """What the writing of a long response needs of its connection."""

    async def written(self) -> None:
        """To be awaited now and then: sends what was written, and serves other clients."""


class Items:
    """The items of one FETCH command, made ready to be told of many messages."""

    def __init__(self, items: Iterable[FetchAttribute]) -> None:
        # What is asked for twice is told once.
        self.items = list({item: item for item in items}.values())
        names = {item.value for item in self.items}
        self.flags = b"FLAGS" in names
        self.rows = bool(names - {b"UID", b"FLAGS"})
        self.octets = bool(names - {b"UID", b"FLAGS", b"INTERNALDATE", b"RFC822.SIZE"})
        self.parsed = not all(map(_needs_no_parsing, self.items))
        self.set_seen = any(item.set_seen for item in self.items)
        self.parts: list[tuple[bytes, list[_Get]]] = []
        """How a message is told of. Between two parts stand all the octets of the message."""
        form, values = b"* %d FETCH (", [_NUMBER]
        for item in self.items:
            item_form, gets = _told(item)
            form, values = form + item_form, [*values, *gets]
            if _is_whole(item):
                self.parts.append((form, values))
                form, values = b"", []
            form += b" "
        self.parts.append((form[:-1] + b")\r\n", values))

    @cached_property
    def with_flags(self) -> Items:
        """The same, and FLAGS."""
        return self if self.flags else Items([*self.items, FetchAttribute(b"FLAGS")])


def _needs_no_parsing(item: FetchAttribute) -> bool:
    if item.section is None:
        return item.value in (b"UID", b"FLAGS", b"INTERNALDATE", b"RFC822.SIZE")
    return _is_whole(item)


def _is_whole(item: FetchAttribute) -> bool:
    """Whether all of a message is asked for, as by BODY[]."""
    section = item.section
    of_all = section is not None and not section.parts and section.specifier is None
    return of_all and item.partial is None


def _told(item: FetchAttribute) -> tuple[bytes, list[_Get]]:
    """How an item is written, and where the values come from."""
    name = item.value
    if name == b"UID":
        return b"UID %d", [itemgetter(_UID)]
    if name == b"FLAGS":
        return b"FLAGS (%b)", [itemgetter(_FLAGS)]
    if name == b"RFC822.SIZE":
        return b"RFC822.SIZE %d", [itemgetter(_SIZE)]
    if name == b"INTERNALDATE":
        return b'INTERNALDATE "%b"', [lambda one: _date(one[_SECONDS])]
    written = item.for_response.raw.replace(b"%", b"%%")
    if _is_whole(item):
        return written + b" {%d}\r\n", [itemgetter(_SIZE)]  # and then the octets
    if item.section is not None:
        return written + b" %b", [_literal(item, item.section)]
    if name == b"ENVELOPE":
        return written + b" %b", [lambda one: bytes(one[_CONTENT].get_envelope_structure())]
    if name == b"BODYSTRUCTURE":
        return written + b" %b", [lambda one: bytes(one[_CONTENT].get_body_structure().extended)]
    return written + b" %b", [lambda one: bytes(one[_CONTENT].get_body_structure())]


def _literal(item: FetchAttribute, section: FetchAttribute.Section) -> _Get:
    """Tells octets of a message, or a part of them."""
    chosen = _chosen(section)
    start, end = 0, None
    if item.partial is not None:
        start = item.partial.start
        end = None if item.partial.length is None else start + item.partial.length

    def get(one: tuple[Any, ...]) -> bytes:
        octets = bytes(chosen(one[_CONTENT]))[start:end]
        return b"{%d}\r\n%b" % (len(octets), octets)

    return get


def _chosen(section: FetchAttribute.Section) -> Callable[[Content], Writeable]:
    parts, names = section.parts, section.headers
    match section.specifier:
        case None:
            return lambda content: content.get_body(parts)
        case b"MIME":
            return lambda content: content.get_headers(parts)
        case b"TEXT":
            return lambda content: content.get_message_text(parts)
        case b"HEADER":
            return lambda content: content.get_message_headers(parts)
        case b"HEADER.FIELDS":
            return lambda content: content.get_message_headers(parts, names)
    return lambda content: content.get_message_headers(parts, names, True)


def _sendable(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same row; in its content 0x80 stands for NUL.

    SMTP lets NUL into a message, a literal may not hold it (RFC 3501 section 9). Another octet in
    its place leaves all sizes and offsets as they are; Dovecot puts the same one.
    """
    octets = row[_OCTETS]
    if octets is None or b"\0" not in octets:
        return row
    return (*row[:_OCTETS], octets.replace(b"\0", b"\x80"), *row[_OCTETS + 1 :])


def _content(row: tuple[Any, ...]) -> Content:
    return Content(row[_SIZE], lambda: row[_OCTETS])


@lru_cache(maxsize=1024)
def _flags_text(flags: frozenset[Flag], recent: bool) -> bytes:
    listed = List(flags | {Recent} if recent else flags, sort=True)
    return bytes(listed)[1:-1]


def _date(seconds: float) -> bytes:
    """A date as RFC 3501 section 9 writes it, in UTC."""
    when = _EPOCH + timedelta(seconds=seconds)
    day, month, time = when.day, _MONTHS[when.month - 1], when.strftime("%H:%M:%S").encode()
    return b"%02d-%b-%04d %b +0000" % (day, month, when.year, time)


class Fetched(UntaggedResponse):
    """What one FETCH tells; it is read from the store while it is written.

    `runs` are the messages: the number of the first one, and the UIDs of those that follow it.
    Where one is gone by then, the command's response says so (RFC 2180 section 4.1).
    """

    def __init__(
        self,
        store: Store,
        selected: Selected,
        runs: Sequence[tuple[int, Sequence[int]]],
        items: Items,
        flagged: frozenset[int],
        response: CommandResponse,
        wire: Wire,
    ) -> None:
        super().__init__()
        self._store, self._mailbox = store, selected.mailbox.id
        self._told_flags = selected.messages.flags
        self._recent = selected.session_flags.recent_uids
        self._runs, self._items, self._response, self._wire = runs, items, response, wire
        self._flagged = flagged
        """Messages whose flags are told though they weren't asked for."""
        self._with_flags = items.with_flags if flagged else items
        self._most = _MOST_PARSED if items.parsed else MOST
        self._count = self._octets = 0
        """What was written since other clients were served."""

    async def async_write(self, writer: WriteStream) -> None:
        for number, uids in self._runs:
            done = 0
            while done < len(uids):
                if self._count >= self._most or self._octets >= _PIECE_OCTETS:
                    self._count = self._octets = 0
                    await self._wire.written()
                try:
                    done = self._write_some(writer, number, uids, done)
                except Exception as error:  # the answer has begun, and has to be ended
                    self._say_no(b"UNAVAILABLE" if isinstance(error, StoreError) else b"SERVERBUG")
                    _log.error("IMAP FETCH: %s", error, exc_info=not isinstance(error, StoreError))
                    return

    def _write_some(self, writer: WriteStream, number: int, uids: Sequence[int], done: int) -> int:
        """Write of some of these messages; how many are done with then."""
        write, line_of, octets, before = writer.write, self._line, self._octets, done
        enough = done + self._most - self._count
        for row in self._rows(uids, done):
            while uids[done] != row[_UID]:
                # While those before it were written another client removed it.
                self._say_no(b"EXPUNGEISSUED")
                done += 1
            try:
                line = line_of(number + done, row) if row[_OCTETS] is not None else ()
            except Exception:  # the other messages are told of all the same
                _log.exception("IMAP FETCH can't tell of a message")
                self._say_no(b"SERVERBUG")
            else:
                if not line:
                    _log.error("IMAP FETCH: message %d was damaged on the disk", row[_UID])
                    self._say_no(b"CORRUPTION")
                for piece in line:
                    write(piece)
                    octets += len(piece)
            done += 1
            if octets >= _PIECE_OCTETS or done >= enough:
                break
        else:
            if done < len(uids):
                self._say_no(b"EXPUNGEISSUED")
            done = len(uids)
        self._octets, self._count = octets, self._count + done - before
        return done

    def _rows(self, uids: Sequence[int], done: int) -> Iterable[tuple[Any, ...]]:
        """What is known of these messages, as far as it is asked for."""
        if self._items.octets:
            return map(_sendable, self._store.contents(self._mailbox, uids[done], uids[-1]))
        if self._items.rows:
            return self._store.sizes(self._mailbox, uids[done], uids[-1], self._most)
        return ((uid, 0, 0.0, b"") for uid in uids[done : done + self._most])

    def _line(self, number: int, row: tuple[Any, ...]) -> Sequence[bytes]:
        """What is told of one message, in pieces."""
        uid = row[_UID]
        items = self._with_flags if uid in self._flagged else self._items
        flags = _flags_text(self._told_flags[uid], uid in self._recent) if items.flags else b""
        content = _content(row) if items.parsed else None
        one = (*row, flags, content, number)
        if len(items.parts) == 1:
            form, gets = items.parts[0]
            return (form % (*[get(one) for get in gets],),)
        line = []
        for form, gets in items.parts:
            line += [form % (*[get(one) for get in gets],), row[_OCTETS]]
        return line[:-1]

    def _say_no(self, code: bytes) -> None:
        self._response.condition = ResponseNo.condition
        self._response.code = ResponseCode.of(code)
