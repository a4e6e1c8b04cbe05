"""How FETCH writes a message's ENVELOPE and BODYSTRUCTURE (RFC 3501 section 7.4.2).

Header text is told as it stands in the message, encoded words and all; what is absent is NIL.
Sizes and lines are those of a body as it was sent, before any decoding.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from itertools import chain

from pymap.bytes import WriteStream
from pymap.parsing.primitives import List, LiteralString, Nil, QuotedString, String
from pymap.parsing.response.fetch import BodyStructure, EnvelopeStructure

from labserver.charsets import decoded, unstructured
from labserver.fields import QUOTED, marked, without_comments
from labserver.mime import Part

_NOT_QUOTABLE = re.compile(rb"[\x00\r\n\x80-\xff]")
_LONGEST_QUOTED = 1000
_LONGEST_LIST = 50_000
"""Octets of a list of addresses that are looked at."""
_MOST_ADDRESSES = 1000
"""How many of them are told."""
# Each also goes over what is escaped, or none would know where a quotation mark is one.
_QUOTED_STRING = re.compile(rb"\\.|" + QUOTED, re.DOTALL)
_BLANKS_AROUND = re.compile(rb"\\.|" + QUOTED + rb"|(?<!\s)\s*+(?P<mark>[@.,:])\s*+", re.DOTALL)
_ADDRESS_PIECE = re.compile(
    rb"(?P<quoted>" + QUOTED + rb")"
    rb"|(?P<angle><(?:" + QUOTED + rb'|[^<>"])*+>)'
    rb"|(?P<mark>[,:;])"
    rb"|(?P<space>\s+)"
    rb"|(?P<text>=\?[^?\s]{1,75}\?[bqBQ]\?[^?\s]*+\?=|\[[^\[\]]*\]"
    rb'|(?:\\.|[^\s",:;<\[\\])+|.)',
    re.DOTALL,
)
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)


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
        return [List(map(nstring, one)) for one in addresses(_list(self._message, name))]


def _nlist(items: list[List]) -> List | Nil:
    return _Adjacent(items) if items else Nil()


def _list(message: Part, name: bytes) -> bytes:
    return b",".join(message.all(name))


def address_texts(message: Part, name: bytes) -> Iterator[str]:
    """The same addresses as SEARCH looks into them, names decoded (RFC 3501 section 6.4.4)."""
    value = _list(message, name)
    for named, _, mailbox, domain in addresses(value):
        at = "" if domain is None else f"@{decoded(domain)}"
        before = f"{unstructured(named)} " if named else ""
        yield f"{before}<{decoded(mailbox or b'')}{at}>"
    if len(value) > _LONGEST_LIST or value.count(b",") >= _MOST_ADDRESSES:
        yield unstructured(value)


_Address = tuple[bytes | None, bytes | None, bytes | None, bytes | None]
"""Name, route, local part and domain."""
_GROUP_ENDS: _Address = None, None, None, None


def addresses(value: bytes) -> Iterator[_Address]:
    """The addresses of a field such as To (RFC 5322 sections 3.4 and 4.4), comments taken out.

    A group is told by its name between two markers that have no domain. Of a list that is too
    long a last group's name says how much is left out.
    """
    looked_at = value[:_LONGEST_LIST]
    found = _addresses(looked_at)
    for number, (address, end) in enumerate(found, 1):
        yield address
        if number == _MOST_ADDRESSES and next(found, None) is not None:
            looked_at = value[:end]
            break
    if len(looked_at) < len(value):
        more = f"{len(value) - len(looked_at):,} more octets of addresses"
        yield from ((None, None, more.encode(), None), _GROUP_ENDS)


def _addresses(value: bytes) -> Iterator[tuple[_Address, int]]:
    """Each address, and where about it ends."""
    words: list[bytes] = []
    plain: list[bytes] = []
    angle = None
    in_group, first, ended = False, 0, 0
    value, comments = _comments_taken_out(value)
    for piece in chain(_ADDRESS_PIECE.finditer(value), (None,)):
        kind = piece.lastgroup if piece else "mark"
        text = piece[0] if piece else b","
        if piece is None or kind == "mark":
            own: list[tuple[int, bytes]] = []
            while comments and (piece is None or comments[0][0] < piece.start()):
                own.append(comments.popleft())
            if text == b":" and not in_group and angle is None:
                in_group = True
                yield (None, None, b" ".join(words), None), ended
            elif angle is not None:
                yield _mailbox(b" ".join(words) or None, angle), ended
            elif plain:
                spec = b"".join(plain)
                around = [said for at, said in own if at < first or at >= ended]
                name = around[-1] if around else None
                yield _mailbox(name, spec if b"@" in spec else b" ".join(words)), ended
            words, plain, angle = [], [], None
            if text == b";" and in_group:
                in_group = False
                yield _GROUP_ENDS, ended
        elif kind == "space":
            continue
        elif kind == "angle":
            angle = text[1:-1]
        elif text != b'"':
            if words and piece.start() == ended:
                # Nothing stood between: one word, such as a quoted local part and its domain.
                words[-1] += _unquoted(text)
                plain[-1] += text
            else:
                first = first if words else piece.start()
                words.append(_unquoted(text))
                plain.append(text)
        ended = piece.end() if piece else 0
    if in_group:
        yield _GROUP_ENDS, len(value)


def _comments_taken_out(value: bytes) -> tuple[bytes, deque[tuple[int, bytes]]]:
    """The value with a blank for each comment, and the comments with their places in it."""
    kept, comments, at = [], deque[tuple[int, bytes]](), 0
    if b"(" not in value:
        return value, comments
    for is_comment, start, end in marked(value):
        if is_comment:
            comments.append((at, _ESCAPE.sub(rb"\1", value[start + 1 : end - 1])))
        kept.append(b" " if is_comment else value[start:end])
        at += len(kept[-1])
    return b"".join(kept), comments


def _mailbox(name: bytes | None, spec: bytes) -> _Address:
    spec = _BLANKS_AROUND.sub(lambda one: one["mark"] or one[0], spec.strip())
    route = None
    if spec.startswith(b"@") and b":" in spec:
        # A source route, long obsolete (RFC 5322 section 4.4).
        route, _, spec = spec.partition(b":")
    local, at, domain = spec.rpartition(b"@")
    if not at:
        local, domain = spec, b""
    # The domain is never NIL here: that would begin or end a group.
    return name, route, _unquoted(local), domain


def _unquoted(value: bytes) -> bytes:
    """The value with each quoted-string's content in its place."""

    def content(one: re.Match[bytes]) -> bytes:
        return _ESCAPE.sub(rb"\1", one[0][1:-1]) if one[0].startswith(b'"') else one[0]

    return _QUOTED_STRING.sub(content, value)


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
        # A multipart has at least one part (RFC 2046 section 5.1); one that hasn't gets one.
        inner_parts = part.parts or (Part(b""),)
        # Written at once: objects within objects would take all of Python's stack.
        inside = b"".join([bytes(_body(inner, extended=extended)) for inner in inner_parts])
        extension = [parameters, *more] if extended else []
        return List([inside, _name(part.subtype), *extension])
    kind, subtype = part.type, part.subtype
    # Of messages RFC 3501 knows this one only; RFC 6532 has another that is told as a file is.
    message = part.parts[0] if subtype == b"rfc822" and part.is_message and part.parts else None
    if (kind, subtype) == (b"message", b"rfc822") and message is None:
        kind, subtype = b"application", b"octet-stream"  # too deep to be looked into, or encoded
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
    if message is not None:
        items += [bytes(Envelope(message)), bytes(_body(message, extended=extended))]
    if message is not None or kind == b"text":
        items.append(b"%d" % part.body_lines)
    if extended:
        items += [nstring(part.first(b"content-md5")), *more]
    return List(items)


def _name(value: bytes) -> Nil | String:
    return nstring(value.upper())


def _parameters(parameters: tuple[tuple[bytes, bytes], ...]) -> List | Nil:
    words = [word for name, value in parameters for word in (name.upper(), value)]
    return List([nstring(word) for word in words]) if words else Nil()


def _disposition(part: Part) -> List | Nil:
    """The disposition's type and parameters (RFC 2183)."""
    if not part.disposition:
        return Nil()
    return List(
        [_name(part.disposition.encode("latin-1")), _parameters(part.disposition_parameters)]
    )


def _language(part: Part) -> List | String | Nil:
    """One language tag, or a list of them (RFC 3282)."""
    value = without_comments(part.first(b"content-language") or b"")
    tags = [nstring(tag.strip()) for tag in value.split(b",") if tag.strip()]
    if not tags:
        return Nil()
    return List(tags) if len(tags) > 1 else tags[0]
