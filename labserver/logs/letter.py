"""A message as bounces come: its header fields, and its parts as lines of text.

It is read from a log's rows, so that what is found in a part can be named by the row it stands
in. It is lenient: a message may have been pasted without its header, or cut off in the middle.
Nothing else of `logs/` knows MIME.
"""

from __future__ import annotations

import codecs
import re
from base64 import b64decode
from binascii import a2b_qp
from collections.abc import Iterator, Mapping, Sequence
from email import errors
from email.header import decode_header, make_header
from html import unescape
from typing import NamedTuple

__all__ = ["Letter", "Line", "Part", "fields_of", "forwarded", "letter", "shown"]

MOST_PARTS = 200
"""Parts of one message that are told apart; what follows belongs to the last."""
_WIDEST = 4000
"""Characters of a line that are looked at."""
_LONGEST_FIELD = 16_000
_MOST_FIELDS = 500

_FIELD = re.compile(r"([!-9;-~]{1,76})[ \t]{0,8}:(.*)", re.S)
_CONTENT = re.compile(r"Content-[A-Za-z-]{1,40}[ \t]{0,8}:", re.I)
_PARAMETER = re.compile(
    r";\s{0,80}([A-Za-z*0-9-]{1,40})\s?=\s?(?:\"([^\"]{0,300})\"|([^\s;]{1,300}))"
)
_LETTER_FIELDS = frozenset(
    "from to subject date received return-path message-id mime-version content-type "
    "delivered-to x-failed-recipients auto-submitted reply-to cc sent".split()
)
_DOWN = re.compile(
    r"(?:br|/?p|/?div|/?tr|/?li|/?h[1-6]|/?table|/?ul|/?pre|/?blockquote|hr)\b", re.I
)
_UNSEEN = re.compile(r"(style|script|title)\b", re.I)


class Line(NamedTuple):
    """One line of a part, decoded."""

    row: int
    """The log's row that it stands in, from 1."""
    text: str


class Part(NamedTuple):
    """A part that has no parts of its own."""

    kind: str
    """Its media type, in small letters, such as `message/delivery-status`."""
    lines: tuple[Line, ...]
    returned: bool
    """Whether it is the message, or its header, that this one is about, or lies within it."""


class Letter(NamedTuple):
    """A message."""

    fields: Mapping[str, str]
    """Its header: names in small letters, the first field of each name, unfolded. Empty where
    the message was pasted without it."""
    kind: str
    """Its media type."""
    report: str
    """What kind of report it says it is (RFC 6522), such as `delivery-status`."""
    parts: tuple[Part, ...]
    body: int
    """The index of the row behind its header."""

    def inner(self, rows: Sequence[str]) -> Letter | None:
        """The message within it, if there is one."""
        part = next((part for part in self.parts if part.kind in _RETURNED), None)
        return letter(rows, part.lines[0].row - 1) if part and part.lines else None

    def words(self, kind: str = "text/plain") -> tuple[Line, ...]:
        """What is written for people in parts of that type."""
        return tuple(
            line
            for part in self.parts
            if part.kind == kind and not part.returned
            for line in part.lines
        )


def letter(rows: Sequence[str], first: int = 0) -> Letter:
    """The message that rows hold from an index on."""
    begin = next((n for n in range(first, len(rows)) if rows[n].strip()), len(rows))
    if rows[begin : begin + 1] and re.match(r">?From \S+ ", rows[begin]):
        begin += 1
    fields, body = fields_of(rows, begin)
    if len(fields.keys() & _LETTER_FIELDS) < 2:
        fields, body = {}, begin
    kind, parameters = _media_type(fields.get("content-type", ""))
    parts = tuple(_parts(rows, body, fields, kind, parameters))
    return Letter(fields, kind, parameters.get("report-type", "").lower(), parts, body)


def forwarded(rows: Sequence[str], mail: Letter) -> Letter | None:
    """The message that a mail, or a text, repeats below words of its own: quoted, or with some of
    its header."""
    bare: list[str] = list(rows[: mail.body])
    quoted: list[int] = []
    for n in range(mail.body, len(rows)):
        marks = _QUOTED.match(rows[n])
        if marks:
            quoted.append(n)
        bare.append(rows[n][marks.end() :] if marks else rows[n])
    at = mail.body
    while at < min(len(bare), mail.body + _MOST_ABOVE):
        if _FIELD.fullmatch(bare[at][:_WIDEST]):
            fields, end = fields_of(bare, at)
            if len(fields.keys() & _LETTER_FIELDS) >= 3:
                return letter(bare, at)
            at = max(end, at + 1)
        else:
            at += 1
    return letter(bare, quoted[0]) if len(quoted) >= 3 else None


_MOST_ABOVE = 200
"""Rows that somebody may write above what is forwarded."""


def fields_of(rows: Sequence[str], begin: int) -> tuple[dict[str, str], int]:
    """The header that begins at an index of `rows`, and the index behind it."""
    found: dict[str, list[str]] = {}
    current: list[str] | None = None
    room = 0
    at = begin
    while at < len(rows):
        row = rows[at]
        field = None if row[:1] in (" ", "\t") else _FIELD.fullmatch(row[:_LONGEST_FIELD])
        if not row.strip() or (field is None and row[:1] not in (" ", "\t")):
            break
        if field:
            name = field[1].lower()
            current = found.setdefault(name, []) if len(found) < _MOST_FIELDS else []
            # Of several of one name the first counts.
            current = current if not current else []
            current.append(field[2].strip())
            room = _LONGEST_FIELD - len(field[2])
        elif current is not None and room > 0:
            current.append(row.strip()[:room])
            room -= len(row)
        at += 1
    body = at + 1 if at < len(rows) and not rows[at].strip() else at
    return {name: " ".join(parts) for name, parts in found.items()}, body


def shown(field: str) -> str:
    """A header field's text with its encoded words decoded (RFC 2047)."""
    if "=?" not in field:
        return field
    try:
        return str(make_header(decode_header(field[:2000])))
    except (errors.HeaderParseError, LookupError, ValueError):
        return field


def _media_type(field: str) -> tuple[str, dict[str, str]]:
    kind = "".join(re.split(r"[;\s]", field.strip()[:200], maxsplit=1)[:1]).lower()
    parameters = {
        match[1].lower(): match[2] or match[3] or ""
        for match in _PARAMETER.finditer(field[:_LONGEST_FIELD])
    }
    return kind or "text/plain", parameters


def _parts(
    rows: Sequence[str], body: int, fields: Mapping[str, str], kind: str, params: dict[str, str]
) -> Iterator[Part]:
    """The parts, in their order.

    A delimiter is a row that a Content-Type announces, or one that a field `Content-…` follows:
    a message that was pasted in part announces nothing.
    """
    encoding = fields.get("content-transfer-encoding", "").strip().lower()
    charset = params.get("charset", "")
    delimiters = {f"--{params['boundary']}"} if "boundary" in params else set()
    returned_by = ""
    begin, at, many = body, body, 1
    while at < len(rows):
        row = rows[at].rstrip() if rows[at].startswith("--") else ""
        announced = row in delimiters or (row.endswith("--") and row[:-2] in delimiters)
        unannounced = (
            row and at + 1 < len(rows) and _CONTENT.match(rows[at + 1]) and not row.isspace()
        )
        if not row or not (announced or unannounced) or many >= MOST_PARTS:
            at += 1
            continue
        yield _part(rows, begin, at, kind, encoding, charset, bool(returned_by))
        many += 1
        closes = announced and row not in delimiters
        if returned_by and row in (returned_by, f"{returned_by}--"):
            returned_by = ""
        at += 1
        kind, encoding, charset, begin = "text/plain", "", "", at
        if closes:
            continue
        fields, begin = fields_of(rows, at)
        delimiters.add(row)
        kind, params = _media_type(fields.get("content-type", ""))
        encoding = fields.get("content-transfer-encoding", "").strip().lower()
        charset = params.get("charset", "")
        if "boundary" in params:
            delimiters.add(f"--{params['boundary']}")
        if "content-type" not in fields and fields.keys() & {"received", "from", "message-id"}:
            kind, begin = "message/rfc822", at  # said to be nothing, but a message
        if kind in _RETURNED and not returned_by:
            returned_by = row
        at = max(at, begin)
    yield _part(rows, begin, at, kind, encoding, charset, bool(returned_by))


_RETURNED = frozenset(("message/rfc822", "text/rfc822-headers", "message/global", "text/rfc822"))


def _part(
    rows: Sequence[str], begin: int, end: int, kind: str, encoding: str, charset: str, back: bool
) -> Part:
    lines: Iterator[Line]
    if back or not kind.startswith(("text/", "message/")):
        # Whatever else it is, it isn't read; its rows are still counted.
        lines = (Line(n, rows[n - 1][:_WIDEST]) for n in range(begin + 1, end + 1))
        return Part(kind, tuple(lines), back or kind in _RETURNED)
    if encoding == "base64":
        octets = _unbase64("".join(row.strip() for row in rows[begin:end]))
        text = _decoded(octets, charset)
        lines = (Line(begin + 1, row[:_WIDEST]) for row in text.splitlines())
    elif encoding == "quoted-printable":
        lines = _unquoted(rows, begin, end, charset)
    else:
        lines = _unindented(rows, begin, end, charset)
    return Part(kind, tuple(_seen(lines) if kind == "text/html" else lines), back)


def _unbase64(text: str) -> bytes:
    letters = re.sub(r"[^A-Za-z0-9+/]", "", text)
    letters = letters[: len(letters) - (len(letters) % 4 == 1)]
    return b64decode(letters + "=" * (-len(letters) % 4))


def _unquoted(rows: Sequence[str], begin: int, end: int, charset: str) -> Iterator[Line]:
    first, parts, length = begin + 1, [], 0
    for n in range(begin + 1, end + 1):
        row = rows[n - 1].rstrip()
        soft = row.endswith("=") and length < _WIDEST
        parts.append(row[:-1] if soft else row)
        length += len(row)
        if soft and n < end:
            continue
        octets = a2b_qp("".join(parts)[:_WIDEST].encode("utf-8", "surrogateescape"))
        yield Line(first, _decoded(octets, charset).rstrip("\r\n"))
        first, parts, length = n + 1, [], 0


def _unindented(rows: Sequence[str], begin: int, end: int, charset: str) -> Iterator[Line]:
    """Lines as they are; without the marks of a quotation where most are quoted."""
    filled = [row for row in rows[begin:end] if row.strip()]
    quoted = 2 * sum(bool(_QUOTED.match(row)) for row in filled) > len(filled) > 1
    for n in range(begin + 1, end + 1):
        row = rows[n - 1][:_WIDEST]
        if quoted and (marks := _QUOTED.match(row)):
            row = row[marks.end() :]
        yield Line(n, _plain(row, charset))


_QUOTED = re.compile(r"(?!>{3,4} [A-Z])>(?: ?>){0,19}(?: |$)")


def _plain(row: str, charset: str) -> str:
    """A row of seven bits that shifts to other letters, as ISO-2022-JP does."""
    if not row.isascii() or ("\x1b" not in row and "utf-7" not in charset.lower()):
        return row
    return _decoded(row.encode(), charset or "iso-2022-jp")


def _decoded(octets: bytes, charset: str) -> str:
    name = charset.strip().lower().removeprefix("unicode-1-1-") or "utf-8"
    try:
        codecs.lookup(name).incrementaldecoder  # noqa: B018 - LookupError, or no text at all
        return octets.decode(name, "replace")
    except (LookupError, ValueError, TypeError, AttributeError, AssertionError):
        return octets.decode("utf-8", "replace")


def _seen(lines: Iterator[Line]) -> Iterator[Line]:
    """What a reader of HTML sees, block by block."""
    words: list[str] = []
    first, length, inside, unseen = 0, 0, False, ""
    for line in lines:
        for number, piece in enumerate(f"{line.text} ".split("<")):
            text = piece
            if number:
                if words and (_DOWN.match(piece) or length > _WIDEST):
                    yield Line(first, _words(words))
                    words, length = [], 0
                if hidden := _UNSEEN.match(piece):
                    unseen = f"/{hidden[1].lower()}"
                elif unseen and piece[:8].lower().startswith(unseen):
                    unseen = ""
            if number or inside:
                _, closed, text = piece.partition(">")
                inside = not closed
            if not unseen and not inside and (words or text.strip()):
                first = first if words else line.row
                words.append(text)
                length += len(text)
    if words:
        yield Line(first, _words(words))


def _words(pieces: Sequence[str]) -> str:
    return " ".join(unescape("".join(pieces)[:_WIDEST]).split())
