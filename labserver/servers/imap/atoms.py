"""The tokens that IMAP commands are made of, as RFC 3501 section 9 defines them.

pymap's own classes refuse `}`, which the grammar allows in atoms, tags and keywords.
"""

from __future__ import annotations

import re
from typing import Protocol, TypeVar

from pymap.parsing import EndLine, Params, primitives, specials
from pymap.parsing.exceptions import NotParseable
from pymap.parsing.primitives import String
from pymap.parsing.specials import Flag

Buffer = memoryview
T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")

MOST_KEYWORDS = 100
"""Keywords that a mailbox, and so a message or a command, may have."""
LONGEST_KEYWORD = 100
"""Octets."""

_ATOM_CHARS = rb"!#$&'+-\[^-z|-~"
_FLAG = re.compile(rb"\\?[" + _ATOM_CHARS + rb"]+")


class Refused(NotParseable):
    """What can be read but isn't taken: `sentence` says why, for people.

    With a response code it is answered by NO, without one by BAD.
    """

    def __init__(self, buf: Buffer, sentence: bytes, code: bytes | None = None) -> None:
        super().__init__(buf[:0], code)
        self.sentence = sentence


class Atom(primitives.Atom):
    """An atom."""

    _atom_pattern = re.compile(rb"[" + _ATOM_CHARS + rb"]+")


class Tag(specials.Tag):
    """A command's tag: what an astring may be without quotes, but for `+`."""

    _pattern = re.compile(rb"[!#$&',-\[\]^-z|-~]+")


HALF_A_TAG = re.compile(rb" *[!#$&',-\[\]^-z|-~]+[^!#$&',-\[\]^-z|-~ \r\n]")
"""What begins like a tag and isn't one; an answer can't name it."""
LIST_PATTERN = re.compile(rb"[!#-'*-\[\]^-z|-~]+")
"""A pattern of mailbox names without quotes (list-mailbox)."""


class AString(specials.AString):
    """An atom, which may have `]` in it, or a string."""

    _pattern = re.compile(rb"[\]" + _ATOM_CHARS + rb"]+")

    @classmethod
    def parse(cls, buf: Buffer, params: Params) -> tuple[AString, Buffer]:
        start = cls._whitespace_length(buf)
        bare = cls._pattern.match(buf, start)
        if bare:
            return cls(bare[0], bare[0]), buf[bare.end() :]
        octets, buf = string(buf, params)
        return cls(octets), buf


def string(buf: Buffer, params: Params) -> tuple[bytes, Buffer]:
    """The octets of a quoted string or of a literal. Raises `NotParseable`."""
    said, buf = String.parse(buf, params)
    return without_nul(said.value, buf), buf


def without_nul(octets: bytes, buf: Buffer) -> bytes:
    """The same octets. Raises `Refused` where NUL is among them: no string may hold it."""
    if b"\0" in octets:
        raise Refused(buf, b"A string can't contain the octet NUL (RFC 3501 section 9).")
    return octets


class _Kind(Protocol[T_co]):
    """What one item of a list is."""

    def parse(self, buf: Buffer, params: Params) -> tuple[T_co, Buffer]: ...


def items(kind: _Kind[T], buf: Buffer, params: Params, most: int) -> tuple[list[T], Buffer]:
    """A list in parentheses of at most so many items. Raises `NotParseable`."""
    if bytes(buf[:1]) != b"(":
        raise NotParseable(buf)
    found: list[T] = []
    buf = buf[1:]
    while True:
        spaces = re.match(rb" *", buf)
        assert spaces is not None
        rest = buf[spaces.end() :]
        if bytes(rest[:1]) == b")":
            return found, rest[1:]
        if found and not spaces[0]:
            raise NotParseable(buf)
        if len(found) == most:
            raise Refused(buf, b"A list can have at most %d items here." % most, b"LIMIT")
        item, buf = kind.parse(rest, params)
        found.append(item)


def flags(buf: Buffer) -> tuple[frozenset[Flag], Buffer]:
    """A list of flags in parentheses. Raises `NotParseable`."""
    octets = bytes(buf)
    end = octets.find(b")")
    if octets[:1] != b"(" or end < 0:
        raise NotParseable(buf)
    return _flags(octets[1:end], buf), buf[end + 1 :]


def flags_to_the_end(buf: Buffer, params: Params) -> tuple[frozenset[Flag], Buffer]:
    """The same, where the command ends with it and STORE allows it without parentheses."""
    if bytes(buf[:1]) == b"(":
        found, buf = flags(buf)
    else:
        said = bytes(buf).rstrip(b"\r\n")
        if not said.strip(b" "):
            raise NotParseable(buf)
        found, buf = _flags(said, buf), buf[len(said) :]
    _, buf = EndLine.parse(buf, params)
    return found, buf


def _flags(octets: bytes, buf: Buffer) -> frozenset[Flag]:
    # Thousands of them come only from who means harm; so what is said twice is looked at once.
    names = dict.fromkeys(octets.split(b" "))
    names.pop(b"", None)
    if not all(map(_FLAG.fullmatch, names)):
        raise NotParseable(buf)
    keywords = {name.lower() for name in names if not name.startswith(b"\\")}
    if len(keywords) > MOST_KEYWORDS:
        text = b"A message can have at most %d keywords." % MOST_KEYWORDS
        raise Refused(buf, text, b"LIMIT")
    if any(len(name) > LONGEST_KEYWORD for name in names):
        text = b"A keyword can have at most %d octets." % LONGEST_KEYWORD
        raise Refused(buf, text, b"LIMIT")
    return frozenset(map(Flag, names))
