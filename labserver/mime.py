"""The one reader of messages: header fields and parts, for views, `Message` and IMAP alike.

RFC 5322, 2045, 2046, 2183 and 2231, read so that no message is refused, however broken, and as
mail programs really write it. It works on octets and offsets: nothing is copied or decoded before
it is asked for, and the time is linear in the size of what is read. `Part.left_out` says what
isn't taken apart. The values of fields are read by `fields.py`, text by `charsets.py`; how IMAP
writes what is found here is in `servers/imap/structure.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import islice
from typing import TypeVar
from urllib.parse import unquote

from labserver.charsets import IDENTITY, decoded, unencoded, unstructured
from labserver.fields import (
    parameter,
    parameter_octets,
    parameters_of,
    unfolded,
    without_comments,
)

T = TypeVar("T")

DEEPEST = 100
"""Parts within parts that are taken apart."""
MOST_PARTS = 1000
"""Parts of one message that are told apart; a hostile one has millions."""
_MOST_DELIMITERS = 100_000
"""Lines that begin like a boundary, in one message."""
_INDEXED = 1000
"""Header fields that are found by a look into an index; those after them by searching."""
_LONGEST_STRUCTURED = 64 * 1024
"""Octets of a value that are looked at for its type and parameters."""

_BLANK_LINE = re.compile(rb"\n\r?\n")
_FIRST_FIELD = re.compile(rb"[!-9;-~]++[ \t]*+:|>?From |[ \t]")
_NO_FIELD = re.compile(rb"^(?![!-9;-~]++[ \t]*+:|[ \t])", re.MULTILINE)
_REST = rb"[ \t]*+:[^\n]*+(?:\n[ \t][^\n]*+)*+\n?"
_FIELD = re.compile(rb"^([!-9;-~]+)" + _REST, re.MULTILINE)
_DELIMITER = re.compile(rb"(--)?[ \t]*+\r?(?:\n|\Z)")
_TYPE = re.compile(rb'[\s;"]*([^\s;/()<>@,:\\"\[\]?=]+)\s*/\s*([^\s;/()<>@,:\\"\[\]?=]+)')
_TOKEN = re.compile(rb'[\s;"]*([^\s;="]+)(?!\s*=|[^\s;"])')


class Part:
    """A message, or a part of one.

    Its octets are `octets[start:end]`: a header with the blank line that ends it, then a body.
    """

    def __init__(self, octets: bytes) -> None:
        self.octets, self.start, self.end = octets, 0, len(octets)
        self.depth = 0
        self.parent: Part | None = None
        self.left_out = ""
        """What of it isn't taken apart; known when `parts` have been asked for."""
        self.is_closed = False
        """Whether it has parts that aren't taken apart."""
        self.stands_for = 1
        """How many parts it is; the last one may be all further ones."""
        self.is_in_digest = False
        """Whether it is a message where its header doesn't say (RFC 2046 section 5.1.5)."""
        self._is_rest = False
        self._parts: tuple[Part, ...] | None = None
        self._left = [MOST_PARTS, _MOST_DELIMITERS]

    def _inside(self, start: int, end: int) -> Part:
        part = Part.__new__(Part)
        part.octets, part.start, part.end, part.depth = self.octets, start, end, self.depth + 1
        part.parent, part._left, part.left_out, part.stands_for = self, self._left, "", 1
        part.is_in_digest = self.kind == "multipart/digest"
        part.is_closed, part._is_rest, part._parts = False, False, None
        return part

    # -- header

    @cached_property
    def body_start(self) -> int:
        """Where the body begins.

        A header ends at a blank line. Where none comes it ends with its last field, and where the
        first line is none there is no header.
        """
        octets, start, end = self.octets, self.start, self.end
        for blank in (b"\r\n", b"\n"):
            if octets.startswith(blank, start, end):
                return start + len(blank)
        if not _FIRST_FIELD.match(octets, start, end):
            return start
        if found := _BLANK_LINE.search(octets, start, end):
            return found.end()
        after = _NO_FIELD.search(octets, octets.find(b"\n", start, end) + 1 or end, end)
        return after.start() if after else end

    @property
    def header(self) -> bytes:
        """The header, blank line included."""
        return self.octets[self.start : self.body_start]

    @property
    def body(self) -> bytes:
        """What follows the header, as it came."""
        return self.octets[self.body_start : self.end]

    @property
    def body_lines(self) -> int:
        """How many line ends the body has."""
        return self.octets.count(b"\n", self.body_start, self.end)

    def sources(self) -> Iterator[tuple[bytes, bytes]]:
        """Name and value of the header's fields in order, as they came."""
        for one in self._whole(_FIELD):
            yield one[1], one[0].partition(b":")[2]

    @property
    def number_of_fields(self) -> int:
        """How many fields the header has."""
        return _FIELD.subn(b"", self.header)[1]

    @cached_property
    def _index(self) -> tuple[dict[bytes, list[tuple[int, int]]], int]:
        """Where the first fields stand by their names, and where the search for others begins."""
        found: dict[bytes, list[tuple[int, int]]] = {}
        fields = _FIELD.finditer(self.octets, self.start, self.body_start)
        for field in islice(fields, _INDEXED):
            found.setdefault(field[1].lower(), []).append(field.span())
        rest = next(fields, None)
        return found, self.body_start if rest is None else rest.start()

    def number_of(self, name: bytes) -> int:
        """How many fields of that name (in lower case) the header has."""
        found, at = self._index
        rest = self.octets[at : self.body_start]
        return len(found.get(name, ())) + _named((name,)).subn(b"", rest)[1]

    def raw(self, name: bytes) -> Iterator[bytes]:
        """All fields of that name (in lower case), whole and as they came."""
        found, at = self._index
        for start, end in found.get(name, ()):
            yield self.octets[start:end]
        if at < self.body_start:
            for field in _named((name,)).finditer(self.octets, at, self.body_start):
                yield field[0]

    def all(self, name: bytes) -> list[bytes]:
        """The values of all fields of that name (in lower case), unfolded and else as they came."""
        return [unfolded(raw.partition(b":")[2]) for raw in self.raw(name)]

    def first(self, name: bytes) -> bytes | None:
        """The value of the first field of that name (in lower case)."""
        raw = next(self.raw(name), None)
        return None if raw is None else unfolded(raw.partition(b":")[2])

    def chosen(self, names: Sequence[bytes], *, inverse: bool = False) -> bytes:
        """The fields of these names, or all others, whole and in order."""
        if not names:
            return b"" if not inverse else b"".join(one[0] for one in self._whole(_FIELD))
        return b"".join(one[0] for one in self._whole(_named(tuple(names), inverse)))

    def _whole(self, pattern: re.Pattern[bytes]) -> Iterator[re.Match[bytes]]:
        return pattern.finditer(self.octets, self.start, self.body_start)

    def _structured(self, name: bytes) -> bytes:
        """A structured value without its comments, as far as it is looked at."""
        value = self.first(name) or b""
        self._leave_out(name, len(value) - _LONGEST_STRUCTURED)
        return without_comments(value[:_LONGEST_STRUCTURED])

    def _parameters(self, name: bytes, value: bytes) -> tuple[tuple[bytes, bytes], ...]:
        parameters, unread = parameters_of(value)
        self._leave_out(name, unread)
        return parameters

    def _leave_out(self, name: bytes, octets: int) -> None:
        if octets > 0 and not self.left_out:
            self.left_out = f"{octets:,} octets of {name.decode()} not read"

    # -- type

    @cached_property
    def _content_type(self) -> tuple[bytes, bytes, tuple[tuple[bytes, bytes], ...]]:
        if self._is_rest:
            return b"text", b"plain", ()
        value = self._structured(b"content-type")
        found = _TYPE.match(value)
        if found:
            parameters = self._parameters(b"content-type", value[found.end() :])
            return found[1].lower(), found[2].lower(), parameters
        if self.is_in_digest and self.first(b"content-type") is None:
            return b"message", b"rfc822", ()
        return b"text", b"plain", ((b"charset", b"us-ascii"),)

    @property
    def type(self) -> bytes:
        """The media type in lower case; `text` where the header doesn't say (RFC 2045 5.2)."""
        return self._content_type[0]

    @property
    def subtype(self) -> bytes:
        """The subtype in lower case."""
        return self._content_type[1]

    @property
    def kind(self) -> str:
        """Type and subtype, such as `text/plain`."""
        return f"{self.type.decode('latin-1')}/{self.subtype.decode('latin-1')}"

    @property
    def parameters(self) -> tuple[tuple[bytes, bytes], ...]:
        """The type's parameters in order; those in pieces are joined (RFC 2231 section 6)."""
        return self._content_type[2]

    @cached_property
    def _content_disposition(self) -> tuple[bytes, tuple[tuple[bytes, bytes], ...]]:
        value = self._structured(b"content-disposition")
        found = _TOKEN.match(value)
        kind, at = (found[1].lower(), found.end()) if found else (b"", 0)
        return kind, self._parameters(b"content-disposition", value[at:])

    @property
    def disposition(self) -> str:
        """`inline`, `attachment`, … in lower case; empty where the header doesn't say."""
        return self._content_disposition[0].decode("latin-1")

    @property
    def disposition_parameters(self) -> tuple[tuple[bytes, bytes], ...]:
        """The disposition's parameters in order (RFC 2183)."""
        return self._content_disposition[1]

    @property
    def name(self) -> str:
        """The file's name, decoded; empty where it has none."""
        said = parameter(self.disposition_parameters, b"filename")
        return said or parameter(self.parameters, b"name")

    @property
    def charset(self) -> str:
        """The label of the text's charset, as it came; empty where the header doesn't say."""
        return parameter(self.parameters, b"charset")

    @property
    def content_id(self) -> str:
        """What a `cid:` URL calls it (RFC 2392); empty where it can't be referred to."""
        return bare_id(unstructured(self._structured(b"content-id")))

    @property
    def encoding(self) -> bytes:
        """The content transfer encoding in lower case (RFC 2045 section 6)."""
        found = _TOKEN.match(self._structured(b"content-transfer-encoding"))
        return found[1].lower().rstrip(b",:.") if found else b"7bit"

    # -- parts

    @property
    def is_multipart(self) -> bool:
        """Whether the body consists of parts."""
        return self.type == b"multipart" and self.depth < DEEPEST

    @property
    def is_message(self) -> bool:
        """Whether the body is another message, as it came."""
        inner = self.type == b"message" and self.subtype in (b"rfc822", b"global", b"news")
        return inner and self.depth < DEEPEST and self.encoding in IDENTITY

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of a multipart, or the one message that a message/rfc822 holds."""
        if self._parts is None:
            self._parts = tuple(self._take_apart())
            # At once, so that it doesn't depend on who asks first where a bound ends it.
            for part in self._parts:
                _ = part.parts
        return self._parts

    def _take_apart(self) -> Iterator[Part]:
        if self.is_message and self._left[0] > 0:
            self._left[0] -= 1
            yield self._inside(self.body_start, self.end)
        elif self.is_multipart:
            yield from self._delimited()
        elif self.depth >= DEEPEST and (self.type == b"multipart" or self.subtype == b"rfc822"):
            self.is_closed = True
            self.left_out = f"what lies in {DEEPEST} others isn't taken apart"
        elif self.is_message:
            self.is_closed = True
            self.left_out = f"not taken apart, for the message has {MOST_PARTS:,} other parts"

    @cached_property
    def boundary(self) -> bytes:
        """The line that parts a multipart, without its hyphens (RFC 2046 section 5.1.1)."""
        return parameter_octets(self.parameters, b"boundary")[0].rstrip()

    def _delimited(self) -> Iterator[Part]:
        if not self.boundary:
            return
        line, octets, end = b"--" + self.boundary, self.octets, self.end
        start = -1
        at = self.body_start
        if not octets.startswith(line, at, end):
            at = octets.find(b"\n" + line, at, end) + 1 or -1
        while at >= 0 and self._left[1] > 0:
            self._left[1] -= 1
            delimiter = _DELIMITER.match(octets, at + len(line), end)
            if delimiter:
                if start >= 0:
                    yield self._inside(start, self._before(start, at))
                start = -1 if delimiter[1] else delimiter.end()
                if delimiter[1]:
                    break
                if self._left[0] <= 0:
                    yield self._rest(start, line)
                    return
                self._left[0] -= 1
            at = octets.find(b"\n" + line, at + len(line), end) + 1 or -1
        if start >= 0:
            # Without its last boundary, or with too many lines that look like one.
            yield self._inside(start, end) if at < 0 else self._rest(start, line)

    def _before(self, start: int, at: int) -> int:
        """Where a part ends: the line end before a delimiter belongs to the delimiter."""
        ending = 2 if self.octets[at - 2 : at] == b"\r\n" else 1
        return max(start, at - ending)

    def _rest(self, start: int, line: bytes) -> Part:
        """All further parts as one, which isn't taken apart."""
        last = self.octets.rfind(b"\n" + line + b"--", start, self.end)
        end = self.end if last < 0 else self._before(start, last + 1)
        part = self._inside(start, end)
        part.is_closed, part._is_rest, part._parts = True, True, ()
        part.stands_for = more = self.octets.count(b"\n" + line, start, end) + 1
        part.left_out = f"{more:,} more part{'' if more == 1 else 's'} not taken apart"
        return part

    @property
    def surroundings(self) -> tuple[bytes | None, bytes | None]:
        """What stands before the first boundary of a multipart, and what after the last one."""
        octets, line = self.octets, b"\n--" + self.boundary + b"--"
        first = octets.rfind(b"\n", self.body_start, self.parts[0].start - 1) + 1 or self.body_start
        before = octets[self.body_start : first] if first > self.body_start else None
        if before is not None:
            before = before.removesuffix(b"\n").removesuffix(b"\r")
        last = octets.find(line, self.parts[-1].end, self.end)
        end = _DELIMITER.match(octets, last + len(line), self.end) if last >= 0 else None
        return before, octets[end.end() : self.end] or None if end else None

    def at(self, section: Sequence[int]) -> Part | None:
        """The part that numbers such as [2, 1] name (RFC 3501 section 6.4.5); none: the whole."""
        inside: Part | None = self
        part = self
        for number in section:
            if inside is None:
                return None
            choices = inside.parts if inside.is_multipart else (inside,)
            if number > len(choices):
                return None
            part = choices[number - 1]
            inside = part.parts[0] if part.is_message and part.parts else None
            inside = part if part.is_multipart else inside
        return part

    def walk(self) -> list[Part]:
        """This part and all parts in it, each before those within it."""
        return [self, *(inner for part in self.parts for inner in part.walk())]

    # -- content

    @property
    def is_leaf(self) -> bool:
        """Whether it has content of its own: it is no multipart whose parts are known."""
        return self.type != b"multipart" or not self.parts

    @property
    def is_file(self) -> bool:
        """Whether it is meant to be saved and not to be read (RFC 2183 section 2.8)."""
        return self.disposition not in ("", "inline")

    def content(self, most: int | None = None) -> bytes:
        """The body out of its transfer encoding, or of its first octets only."""
        end = self.end if most is None else min(self.end, self.body_start + most)
        data = self.octets[self.body_start : end]
        return data if self._is_rest else unencoded(data, self.encoding)

    def text(self, most: int | None = None) -> str:
        """The body out of its transfer encoding and its charset, or of its first octets only."""
        whole = most is None or self.end - self.body_start <= most
        return decoded(self.content(most), self.charset, whole=whole)

    def body_part(self, *subtypes: bytes) -> Part | None:
        """The part that a mail program shows as the body, in one of these forms of text.

        The first text that isn't an attachment decides; in a multipart/alternative (RFC 2046
        section 5.1.4) its siblings are the same in other forms.
        """
        texts = [part for part in self.walk() if part._is_text and not part.is_file]
        texts.sort(key=lambda part: len(part.messages_around(self)))
        first = next(iter(texts), None)
        if first is None:
            return None
        fits = [part for part in texts if not subtypes or part.subtype in subtypes]
        if (choice := first._alternative(self)) is not None:
            same = [part for part in fits if part._alternative(self) is choice]
        else:
            same = [part for part in fits if part is first]
        around = first.messages_around(self)
        others = [part for part in fits if not part.name and part.messages_around(self) == around]
        return next(iter((*same, *others)), None)

    @property
    def _is_text(self) -> bool:
        return self.type == b"text" or (self.type == b"multipart" and self.is_leaf)

    def above(self, root: Part) -> list[Part]:
        """The parts it lies in, the nearest first, up to and with `root`."""
        found: list[Part] = []
        part: Part | None = self
        while part is not None and part is not root:
            part = part.parent
            found += [part] if part is not None else []
        return found

    def messages_around(self, root: Part) -> list[int]:
        """Where the messages begin that it lies in, and that lie in `root`."""
        return [part.start for part in self.above(root) if part.is_message]

    def _alternative(self, root: Part) -> Part | None:
        kinds = (part for part in self.above(root) if part.kind == "multipart/alternative")
        return next(kinds, None)


@lru_cache(256)
def _named(names: tuple[bytes, ...], inverse: bool = False) -> re.Pattern[bytes]:
    one_of = b"(?:" + b"|".join(map(re.escape, names)) + b")"
    start = rb"(?!" + one_of + rb"[ \t]*+:)[!-9;-~]++" if inverse else one_of
    return re.compile(b"^" + start + _REST, re.MULTILINE | re.IGNORECASE)


def bare_id(text: str) -> str:
    """What a Content-ID says, without angle brackets and blanks."""
    return text.strip().removeprefix("<").removesuffix(">").strip()


def referred(reference: str, by_id: Mapping[str, T]) -> T | None:
    """What a reference such as `cid:logo%40shop` means, of things known by their Content-ID."""
    scheme, _, rest = reference.strip().partition(":")
    if scheme.strip().lower() == "cid":
        for spelling in (rest, unquote(rest)):
            if (found := by_id.get(bare_id(spelling))) is not None:
                return found
    return None
