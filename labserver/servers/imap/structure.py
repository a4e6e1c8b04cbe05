"""How FETCH writes a message's ENVELOPE and BODYSTRUCTURE (RFC 3501 section 7.4.2).

Header text is told as it stands in the message, encoded words and all; what is absent is NIL.
Sizes and lines are those of a body as it was sent, before any decoding.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice

from pymap.bytes import WriteStream
from pymap.parsing.primitives import List, LiteralString, Nil, QuotedString, String
from pymap.parsing.response.fetch import BodyStructure, EnvelopeStructure

from labserver.servers.imap.parts import Part, closed, parameters_of, unquoted, without_comments

_NOT_QUOTABLE = re.compile(rb"[\x00\r\n\x80-\xff]")
_LONGEST_QUOTED = 1000
_LONGEST_LIST = 50_000
"""Octets of a list of addresses that are looked at."""
_MOST_ADDRESSES = 1000
"""How many of them are told."""
_ADDRESS_PIECE = re.compile(
    rb"""
      (?P<quoted> "(?:[^"\\]|\\.)*" )
    | (?P<comment> \( (?:[^()\\]|\\.)* \) )
    | (?P<angle> < [^<>]* > )
    | (?P<mark> [,:;] )
    | (?P<space> \s+ )
    | (?P<text> \[[^\[\]]*\] | [^\s",:;<(\[]+ | . )
    """,
    re.VERBOSE | re.DOTALL,
)


def nstring(value: bytes | None) -> Nil | String:
    """A string as IMAP writes it: quoted where that can be, a literal else, NIL for `None`."""
    if value is None:
        return Nil()
    if len(value) > _LONGEST_QUOTED or _NOT_QUOTABLE.search(value):
        # No NUL, in a literal neither (RFC 3501 section 9, CHAR8).
        return LiteralString(value.replace(b"\0", b""))
    return QuotedString(value)


class _Adjacent(List):
    """A list whose items no space parts, as the addresses of an ENVELOPE."""

    def write(self, writer: WriteStream) -> None:
        writer.write(bytes(self))

    def __bytes__(self) -> bytes:
        return b"(%b)" % b"".join(bytes(item) for item in self.items)


# -- envelope


class Envelope(EnvelopeStructure):
    """A message's ENVELOPE."""

    def __init__(self, message: Part) -> None:
        super().__init__(None, None, None, None, None, None, None, None, None, None)
        self._message = message

    @property
    def _value(self) -> List:
        first, addresses = self._message.first, self._found
        sender = addresses(b"from")
        return List(
            [
                nstring(first(b"date")),
                nstring(first(b"subject")),
                _nlist(sender),
                # Where these are absent, or empty, the From field stands for them.
                _nlist(addresses(b"sender") or sender),
                _nlist(addresses(b"reply-to") or sender),
                _nlist(addresses(b"to")),
                _nlist(addresses(b"cc")),
                _nlist(addresses(b"bcc")),
                nstring(first(b"in-reply-to")),
                nstring(first(b"message-id")),
            ]
        )

    def _found(self, name: bytes) -> list[List]:
        found = addresses(b",".join(self._message.all(name))[:_LONGEST_LIST])
        return list(islice(found, _MOST_ADDRESSES))


def _nlist(items: list[List]) -> List | Nil:
    return _Adjacent(items) if items else Nil()


def addresses(value: bytes) -> Iterator[List]:
    """The addresses of a field such as To: name, route, local part, domain.

    A group is told by its name between two markers that have no domain.
    """
    words: list[bytes] = []
    plain: list[bytes] = []
    comment = angle = None
    in_group, ended = False, 0
    for piece in (*_ADDRESS_PIECE.finditer(closed(value)), None):
        kind = piece.lastgroup if piece else "mark"
        text = piece[0] if piece else b","
        if kind == "comment":
            comment = text[1:-1]
        elif kind == "angle":
            angle = text[1:-1].strip()
        elif piece is not None and kind in ("quoted", "text"):
            if words and piece.start() == ended:
                # Nothing stood between: one word, such as a quoted local part and its domain.
                words[-1] += unquoted(text)
                plain[-1] += text
            else:
                words.append(unquoted(text))
                plain.append(text)
        elif kind == "space":
            continue
        elif text == b":" and not in_group and angle is None:
            in_group = True
            yield _address(None, None, b" ".join(words), None)
            words, plain, comment = [], [], None
        else:
            if angle is not None:
                name = b" ".join(words) or None
                yield _mailbox(name, angle)
            elif plain:
                spec = b"".join(plain)
                yield _mailbox(comment, spec if b"@" in spec else b" ".join(words))
            words, plain, comment, angle = [], [], None, None
            if text == b";" and in_group:
                in_group = False
                yield _address(None, None, None, None)
        ended = piece.end() if piece else 0
    if in_group:
        yield _address(None, None, None, None)


def _mailbox(name: bytes | None, spec: bytes) -> List:
    route = None
    if spec.startswith(b"@") and b":" in spec:
        # A source route, long obsolete (RFC 5322 section 4.4).
        route, _, spec = spec.partition(b":")
    local, at, domain = spec.rpartition(b"@")
    if not at:
        local, domain = spec, b""
    # The domain is never NIL here: that would begin or end a group.
    return _address(name, route, unquoted(local.strip()), domain.strip())


def _address(
    name: bytes | None, route: bytes | None, mailbox: bytes | None, domain: bytes | None
) -> List:
    return List([nstring(name), nstring(route), nstring(mailbox), nstring(domain)])


# -- body structure


class Body(BodyStructure):
    """A message's BODY, and with what RFC 3501 calls extension data its BODYSTRUCTURE."""

    def __init__(self, part: Part) -> None:
        super().__init__(part.type.decode("latin-1"), "", None, None, None, None)
        self._part = part

    @property
    def _value(self) -> List:
        return _body(self._part, extended=False)

    @property
    def extended(self) -> List:
        return _body(self._part, extended=True)


def _body(part: Part, *, extended: bool) -> List:
    parameters, disposition = _parameters(part.parameters), _disposition(part)
    more = [disposition, _language(part), nstring(part.first(b"content-location"))]
    if part.is_multipart:
        inside = _Joined(_body(inner, extended=extended) for inner in part.parts)
        extension = [parameters, *more] if extended else []
        return List([inside, _name(part.subtype), *extension])
    kind, subtype = part.type, part.subtype
    if (kind, subtype) == (b"message", b"rfc822") and not part.is_message:
        kind, subtype = b"application", b"octet-stream"  # too deep to be looked into
    elif kind == b"multipart":
        kind, subtype = b"application", b"octet-stream"
    items: list[List | Nil | String | bytes] = [
        _name(kind),
        _name(subtype),
        parameters,
        nstring(part.first(b"content-id")),
        nstring(part.first(b"content-description")),
        _name(part.encoding),
        b"%d" % (part.end - part.body_start),
    ]
    if part.is_message:
        (message,) = part.parts
        items += [bytes(Envelope(message)), _body(message, extended=extended)]
    if part.is_message or kind == b"text":
        items.append(b"%d" % part.body_lines)
    if extended:
        items += [nstring(part.first(b"content-md5")), *more]
    return List(items)


class _Joined(_Adjacent):
    """The parts of a multipart: lists without a space between, and no parentheses around."""

    def __init__(self, items: Iterable[List]) -> None:
        super().__init__(items)

    def __bytes__(self) -> bytes:
        return b"".join(bytes(item) for item in self.items)


def _name(value: bytes) -> Nil | String:
    return nstring(value.upper())


def _parameters(parameters: tuple[tuple[bytes, bytes], ...]) -> List | Nil:
    words = [word for name, value in parameters for word in (name.upper(), value)]
    return List([nstring(word) for word in words]) if words else Nil()


def _disposition(part: Part) -> List | Nil:
    """The disposition's type and parameters (RFC 2183)."""
    value = part.first(b"content-disposition")
    kind = without_comments(value or b"").partition(b";")[0].strip()
    if value is None or not kind:
        return Nil()
    return List([_name(kind), _parameters(parameters_of(value))])


def _language(part: Part) -> List | String | Nil:
    """One language tag, or a list of them (RFC 3282)."""
    value = without_comments(part.first(b"content-language") or b"")
    tags = [nstring(tag.strip()) for tag in value.split(b",") if tag.strip()]
    if not tags:
        return Nil()
    return List(tags) if len(tags) > 1 else tags[0]
