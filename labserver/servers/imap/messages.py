"""A stored message as pymap's FETCH wants it: its row at once, its content when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime
from functools import cached_property, lru_cache

from pymap.bytes import Writeable
from pymap.interfaces.message import LoadedMessageInterface
from pymap.message import BaseMessage
from pymap.parsing.specials import FetchRequirement, Flag

from labserver.charsets import unstructured
from labserver.fields import unfolded
from labserver.mime import Part
from labserver.servers.imap.structure import Body, Envelope, address_texts
from labserver.store import MessageRow, Store

_UNKNOWN = datetime(1970, 1, 1, tzinfo=UTC)


@lru_cache(maxsize=1024)
def flags_of(names: frozenset[str]) -> frozenset[Flag]:
    """Stored flags as pymap's; equal sets are mostly one object."""
    return frozenset(Flag(name) for name in names)


class Message(BaseMessage):
    """What is known of a message without its content."""

    __slots__ = ("_row", "_store")

    def __init__(self, store: Store, row: MessageRow) -> None:
        super().__init__(row.uid, row.received, flags_of(row.flags))
        self._store, self._row = store, row

    @property
    def size(self) -> int:
        """Octets."""
        return self._row.size

    @property
    def content(self) -> Content:
        """Its content, which is read when the first of its octets is needed."""
        store, content = self._store, self._row.content
        return Content(self._row.size, lambda: store.octets(content))

    async def load_content(self, requirement: FetchRequirement) -> Content:
        return self.content


class Remembered(BaseMessage):
    """What a client has been told of a message, whether or not it is still there."""

    __slots__ = ()

    def __init__(self, uid: int, flags: frozenset[Flag], *, expunged: bool = False) -> None:
        super().__init__(uid, _UNKNOWN, flags, expunged=expunged)

    async def load_content(self, requirement: FetchRequirement) -> Content:
        raise LookupError("A message that is only remembered has no content.")


class Content(LoadedMessageInterface):
    """A message's content, so many octets that are read when the first of them is needed.

    It lives as long as one response is being written. Where the message has been removed in the
    meantime, reading it may raise `StoreError`.
    """

    def __init__(self, size: int, read: Callable[[], bytes]) -> None:
        self._size, self._read = size, read

    @cached_property
    def octets(self) -> bytes:
        """Header and body as they are stored."""
        return self._read()

    @cached_property
    def message(self) -> Part:
        """The same, with its parts."""
        return Part(self.octets)

    # -- what FETCH asks for

    @property
    def requirement(self) -> FetchRequirement:
        return FetchRequirement.CONTENT

    def __bytes__(self) -> bytes:
        return self.octets

    def get_size(self, section: Sequence[int] | None = None) -> int:
        if not section:
            return self._size
        part = self.message.at(list(section))
        return 0 if part is None else len(part.body)

    def get_headers(self, section: Sequence[int]) -> Writeable:
        """BODY[1.MIME]"""
        part = self.message.at(list(section))
        return Writeable.wrap(b"" if part is None else part.header)

    def get_body(self, section: Sequence[int] | None = None, binary: bool = False) -> Writeable:
        """BODY[] and BODY[1]"""
        if not section:
            return Writeable.wrap(self.octets)
        part = self.message.at(list(section))
        return Writeable.wrap(b"" if part is None else part.body)

    def get_message_headers(
        self,
        section: Sequence[int] | None = None,
        subset: Collection[bytes] | None = None,
        inverse: bool = False,
    ) -> Writeable:
        """BODY[HEADER], BODY[HEADER.FIELDS (DATE)], BODY[1.HEADER.FIELDS.NOT (DATE)]"""
        message = self._message_at(section)
        if message is None:
            return Writeable.empty()
        if subset is None:
            return Writeable.wrap(message.header)
        # The blank line comes even where the header itself has none (RFC 3501 section 6.4.5).
        return Writeable.wrap(message.chosen(sorted(subset), inverse=inverse) + b"\r\n")

    def get_message_text(self, section: Sequence[int] | None = None) -> Writeable:
        """BODY[TEXT] and BODY[1.TEXT]"""
        message = self._message_at(section)
        return Writeable.wrap(b"" if message is None else message.body)

    def _message_at(self, section: Sequence[int] | None) -> Part | None:
        """The whole message, or the one that the part of that number holds."""
        part = self.message.at(list(section or ()))
        if section and part is not None:
            return part.parts[0] if part.is_message and part.parts else None
        return part

    def get_envelope_structure(self) -> Envelope:
        return Envelope(self.message)

    def get_body_structure(self) -> Body:
        return Body(self.message)

    # -- what SEARCH asks for

    def get_header(self, name: bytes) -> Sequence[str]:
        return [unstructured(value) for value in self.message.all(name.lower())]

    def get_addresses(self, name: bytes) -> Sequence[str]:
        """What ENVELOPE tells of an address field: names decoded, each before its address."""
        return list(address_texts(self.message, name.lower()))

    def contains(self, value: bytes) -> bool:
        """Whether that UTF-8 text is in a header or in a text, decoded; case doesn't matter."""
        wanted = value.decode("utf-8", "replace").casefold()
        return any(wanted in text.casefold() for text in self.texts(header=True))

    def texts(self, *, header: bool) -> Iterable[str]:
        """The message's text parts and the headers of messages within it, decoded.

        With `header` also its own header, and those of its parts.
        """
        for part in self.message.walk():
            if header:
                yield _header_text(part)
            elif part.is_message and part.parts:
                yield _header_text(part.parts[0])
            if part.type == b"text":
                yield part.text()


def _header_text(message: Part) -> str:
    header = unfolded(message.header)
    if header.isascii():
        return unstructured(header)
    # Each field says for itself how octets beyond ASCII are to be read.
    return "\n".join(map(unstructured, header.split(b"\n")))
