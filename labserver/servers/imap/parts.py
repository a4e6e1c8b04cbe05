"""Where in a message's octets its header, its body and its parts begin and end.

RFC 2045 section 5 and RFC 2046 section 5, read so that no message, however broken, is refused.
Nothing is decoded and nothing is copied before it is asked for. How IMAP writes what is found
here is in `structure.py`.
"""

from __future__ import annotations

import re
from functools import cached_property
from itertools import islice

_BLANK_LINE = re.compile(rb"\n\r?\n")
_FIELD = re.compile(rb"^([!-9;-~]+)[ \t]*:[^\n]*(?:\n[ \t][^\n]*)*\n?", re.MULTILINE)
_FOLD = re.compile(rb"\r?\n(?=[ \t])")
_COMMENT = re.compile(rb'("(?:[^"\\]|\\.)*")|\((?:[^()\\]|\\.)*\)', re.DOTALL)
_MAYBE_QUOTED = re.compile(rb'"(?:[^"\\]|\\(?:.|\Z))*("|\Z)', re.DOTALL)
_TYPE = re.compile(rb"\s*([^\s;/()<>@,:\\\"\[\]?=]+)\s*/\s*([^\s;/()<>@,:\\\"\[\]?=]+)")
_PARAMETER = re.compile(rb';\s*([^\s=;"]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s;]*)', re.DOTALL)
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)

_DEEPEST = 50
"""Parts within parts that are looked into."""
_MOST = 1000
"""Parts of one message that are told apart; a hostile one has millions."""
_MOST_FIELDS = 10_000
"""Header fields that are looked at."""
_MOST_PARAMETERS = 100
"""Parameters of one field that are looked at."""
_LONGEST_FIELD = 100_000
"""Octets of a field's value that are looked at."""


class Part:
    """A message, or a part of one.

    Its octets are `octets[start:end]`: a header with the blank line that ends it, then a body.
    """

    def __init__(self, octets: bytes) -> None:
        self.octets, self.start, self.end = octets, 0, len(octets)
        self._depth = 0
        self._default: tuple[bytes, bytes] = (b"text", b"plain")
        self._left = [_MOST]

    def _inside(self, start: int, end: int, default: tuple[bytes, bytes]) -> Part:
        part = Part.__new__(Part)
        part.octets, part.start, part.end = self.octets, start, end
        part._depth, part._default, part._left = self._depth + 1, default, self._left
        return part

    # -- header

    @cached_property
    def body_start(self) -> int:
        """Where the body begins; the part's end where no blank line ends its header."""
        for blank in (b"\r\n", b"\n"):
            if self.octets.startswith(blank, self.start, self.end):
                return self.start + len(blank)
        found = _BLANK_LINE.search(self.octets, self.start, self.end)
        return found.end() if found else self.end

    @property
    def header(self) -> bytes:
        """The header, blank line included."""
        return self.octets[self.start : self.body_start]

    @property
    def body(self) -> bytes:
        """What follows the header."""
        return self.octets[self.body_start : self.end]

    @property
    def body_lines(self) -> int:
        """How many line ends the body has."""
        return self.octets.count(b"\n", self.body_start, self.end)

    @cached_property
    def fields(self) -> list[tuple[bytes, bytes]]:
        """The header's fields in order: the name in lower case, and the whole field as it is."""
        found = islice(_FIELD.finditer(self.header), _MOST_FIELDS)
        return [(field[1].lower(), field[0]) for field in found]

    def all(self, name: bytes) -> list[bytes]:
        """The values of all fields of that name (in lower case), unfolded and else unchanged."""
        found = (raw for known, raw in self.fields if known == name)
        return [unfolded(raw[:_LONGEST_FIELD].partition(b":")[2]) for raw in found]

    def first(self, name: bytes) -> bytes | None:
        """The value of the first field of that name."""
        return next(iter(self.all(name)), None)

    # -- type

    @cached_property
    def _content_type(self) -> tuple[bytes, bytes, tuple[tuple[bytes, bytes], ...]]:
        value = self.first(b"content-type")
        found = _TYPE.match(without_comments(value)) if value else None
        if value is None or found is None:
            parameters = ((b"charset", b"us-ascii"),) if self._default[0] == b"text" else ()
            return (*self._default, parameters)
        return found[1].lower(), found[2].lower(), parameters_of(value)

    @property
    def type(self) -> bytes:
        """The media type in lower case; `text` where the header doesn't say."""
        return self._content_type[0]

    @property
    def subtype(self) -> bytes:
        """The subtype in lower case."""
        return self._content_type[1]

    @property
    def parameters(self) -> tuple[tuple[bytes, bytes], ...]:
        """The type's parameters, such as charset and boundary, in order."""
        return self._content_type[2]

    @property
    def is_multipart(self) -> bool:
        """Whether the body consists of parts."""
        return self.type == b"multipart" and self._depth < _DEEPEST

    @property
    def is_message(self) -> bool:
        """Whether the body is another message."""
        whole = (self.type, self.subtype) == (b"message", b"rfc822")
        return whole and self._depth < _DEEPEST

    @property
    def encoding(self) -> bytes:
        """The content transfer encoding in lower case."""
        value = without_comments(self.first(b"content-transfer-encoding") or b"")
        return value.strip().lower() or b"7bit"

    # -- parts

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The parts of a multipart, or the one message that a message/rfc822 holds."""
        if self.is_message:
            return (self._inside(self.body_start, self.end, (b"text", b"plain")),)
        if not self.is_multipart:
            return ()
        default = (b"message", b"rfc822") if self.subtype == b"digest" else (b"text", b"plain")
        found = [self._inside(start, end, default) for start, end in self._delimited()]
        # A multipart has at least one part (RFC 2046 section 5.1); one that hasn't gets one.
        return tuple(found) or (self._inside(self.end, self.end, default),)

    def _delimited(self) -> list[tuple[int, int]]:
        boundary = dict(self.parameters).get(b"boundary", b"").rstrip()
        if not boundary:
            return []
        octets, found, start = self.octets, [], -1
        line = re.compile(rb"^--" + re.escape(boundary) + rb"(--)?[ \t]*\r?$", re.MULTILINE)
        for delimiter in line.finditer(octets, self.body_start, self.end):
            if start >= 0:
                # The line end before a delimiter belongs to it (RFC 2046 section 5.1.1).
                end = delimiter.start() - 1
                if octets[end - 1 : end] == b"\r":
                    end -= 1
                found.append((start, max(start, end)))
                start = -1
            if delimiter[1]:
                break
            self._left[0] -= 1
            if self._left[0] < 0:
                break
            start = min(delimiter.end() + 1, self.end)
        if start >= 0:
            found.append((start, self.end))
        return found

    def at(self, section: list[int]) -> Part | None:
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
            inside = part.parts[0] if part.is_message else part if part.is_multipart else None
        return part

    def walk(self) -> list[Part]:
        """This part and all parts in it, in order."""
        return [self, *(inner for part in self.parts for inner in part.walk())]


def unfolded(value: bytes) -> bytes:
    """A field's value as one line (RFC 5322 section 2.2.3)."""
    return _FOLD.sub(b"", value).strip()


def closed(value: bytes) -> bytes:
    """A structured value, without a last quotation mark that nothing closes.

    So that no expression looks for its end again and again.
    """
    for quoted in _MAYBE_QUOTED.finditer(value):
        if not quoted[1]:
            start = quoted.start()
            return value[:start] + value[start:].replace(b'"', b"")
    return value


def without_comments(value: bytes) -> bytes:
    """A structured value without its comments in parentheses (RFC 5322 section 3.2.2)."""
    return _COMMENT.sub(lambda found: found[1] or b" ", closed(value))


def parameters_of(value: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """The parameters of a value such as `text/plain; charset=utf-8`, in order."""
    found = islice(_PARAMETER.finditer(without_comments(value)), _MOST_PARAMETERS)
    return tuple((one[1].lower(), unquoted(one[2])) for one in found)


def unquoted(value: bytes) -> bytes:
    """A quoted-string's content; anything else as it is."""
    if len(value) > 1 and value.startswith(b'"') and value.endswith(b'"'):
        return _ESCAPE.sub(rb"\1", value[1:-1])
    return value
