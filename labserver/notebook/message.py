"""A message and a mailbox to look at: as text, for nothing in them is ever run or fetched.

A message may be large and hostile, so all work on it is bounded: what is parsed, how deep, and
how much of it is shown.
"""

from __future__ import annotations

import binascii
import email.header
import email.message
import quopri
import re
from base64 import b64decode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from labserver.message import Mailbox, Message
from labserver.notebook.view import View, count, cut, frame, pieces, varying
from labserver.transcript import Piece, readable, stable

_HEAD_OCTETS = 64 * 1024
_BODY_OCTETS = 64 * 1024
_DSN = ("RET", "ENVID", "NOTIFY", "ORCPT")
_MOST_FIELDS = 60
_MOST_PARTS = 40
_DEEPEST = 8
_MOST_CANDIDATES = 2_000
"""Lines that begin like a boundary."""
_MOST_HOPS = 30
_BODY_LINES = 60
_RAW_LINES = 120
_TEXT_RAW_LINES = 40
_LONGEST = 500
"""Characters of a line that are shown."""
_MOST_MESSAGES = 500
"""Rows of a mailbox."""


@dataclass(frozen=True, slots=True)
class Field:
    """A header field, unfolded."""

    name: str
    value: str

    @property
    def decoded(self) -> str:
        """The value with its encoded words read (RFC 2047), where it has any."""
        if "=?" not in self.value:
            return ""
        try:
            read = str(email.header.make_header(email.header.decode_header(self.value)))
        except (ValueError, LookupError):
            return ""
        shown = readable(read.encode("utf-8", "backslashreplace"))
        return shown if shown != self.value else ""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the MIME tree (RFC 2045)."""

    depth: int
    kind: str
    name: str
    """The file's name, where it has one."""
    encoding: str
    charset: str
    start: int
    """Where its content begins, in the message."""
    end: int

    @property
    def said(self) -> str:
        file = f" “{self.name}”" if self.name else ""
        encoding = f", {self.encoding}" if self.encoding else ""
        return f"{self.kind}{file}, {count(self.end - self.start, 'octet')}{encoding}"


def message(shown: Message) -> View:
    """Envelope, header and body beside each other; the way it came; its parts; its octets."""
    seen = Seen(shown.octets)
    subject = next((f.decoded or f.value for f in seen.fields if f.name.lower() == "subject"), "")
    facts = [count(len(shown.octets), "octet"), *sorted(map(_plain, shown.flags))]
    envelope = _envelope(shown)
    label = cut(shown.damage or subject or "(no subject)", 120)
    html = frame("message", label, _html(seen, envelope), facts=facts)
    return View(html, "\n".join(_text(seen, envelope, label, facts)))


def mailbox(shown: Mailbox) -> View:
    """One row for each message."""
    if not shown:
        return View(frame("mailbox", "Mailbox", '<p class="more">No message here.</p>'), str(shown))
    rows = []
    for number, one in enumerate(shown[:_MOST_MESSAGES], 1):
        fields = {field.name.lower(): field for field in reversed(Seen(one.octets).fields)}
        told = (fields.get(name) for name in ("from", "subject"))
        cells = "".join(
            f"<td>{escape(cut((f.decoded or f.value) if f else '(none)', 120))}</td>" for f in told
        )
        if one.damage:
            cells = f'<td colspan="2">{escape(one.damage)}</td>'
        rows.append(f"<tr><td>{number}</td>{cells}</tr>")
    more = len(shown) - _MOST_MESSAGES
    rest = f'<p class="more">{more:,} more messages not shown</p>' if more > 0 else ""
    html = frame(
        "mailbox",
        "Mailbox",
        '<table><thead><tr><th scope="col">No.</th><th scope="col">From</th>'
        f'<th scope="col">Subject</th></tr></thead><tbody>{"".join(rows)}</tbody></table>{rest}',
        facts=[count(len(shown), "message")],
    )
    return View(html, str(shown))


# -- reading a message, no more of it than is shown


class Seen:
    """What is read of a message: its header, its parts, its way here."""

    def __init__(self, octets: bytes) -> None:
        self.octets = octets
        self.fields = _fields(octets, 0, len(octets))

    def parts(self) -> list[Part]:
        """The MIME tree, each part before those within it."""
        return list(_parts(self.octets, 0, len(self.octets), 0, [_MOST_PARTS]))

    def hops(self) -> list[tuple[str, str, str]]:
        """From whom, by whom, and when and how, of each Received field; the first hop first."""
        found = [field.value for field in self.fields if field.name.lower() == "received"]
        return [_hop(value) for value in reversed(found[:_MOST_HOPS])]

    def body(self, parts: Sequence[Part]) -> tuple[str, list[str], bool]:
        """What kind of text the body is, its first lines, and whether there are more."""
        texts = [part for part in parts if part.kind.startswith("text/") and not part.name]
        part = next((part for part in texts if part.kind == "text/plain"), None)
        part = part or next(iter(texts), None)
        if part is None:
            return "", [], False
        data = self.octets[part.start : min(part.end, part.start + _BODY_OCTETS)]
        rows = text_of(data, part).splitlines()
        shown = [cut(_plain(row), _LONGEST) for row in rows[:_BODY_LINES]]
        more = len(rows) > _BODY_LINES or part.end - part.start > _BODY_OCTETS
        return part.kind, shown, more

    def raw(self, most: int) -> tuple[list[tuple[bool, str, str]], bool]:
        """Its first lines as SMTP carries them, and whether there are more.

        Of each line whether a dot is put before it (RFC 5321 section 4.5.2), its text and its
        line end.
        """
        start = 0
        rows: list[tuple[bool, str, str]] = []
        while start < len(self.octets) and len(rows) < most:
            end = self.octets.find(b"\n", start) + 1 or len(self.octets)
            line = self.octets[start : min(end, start + _LONGEST)]
            ending = ""
            if end - start > _LONGEST:
                ending = f" … {end - start:,} octets"
            elif line.endswith(b"\n"):
                line = line[:-1]
                ending = "\\n"
                if line.endswith(b"\r"):
                    line, ending = line[:-1], "\\r\\n"
            text = _plain_octets(line)
            rows.append((line.startswith(b"."), text, ending))
            start = end
        return rows, start < len(self.octets)


def _fields(octets: bytes, start: int, end: int) -> list[Field]:
    head = octets[start : min(_head_end(octets, start, end), start + _HEAD_OCTETS)]
    unfolded = re.sub(rb"\r?\n[ \t]+", b" ", head)
    fields = []
    for row in unfolded.split(b"\n")[:_MOST_FIELDS]:
        name, colon, value = row.rstrip(b"\r").partition(b":")
        if colon and re.fullmatch(rb"[!-9;-~]+", name):
            text = cut(_plain_octets(value.strip()), 4 * _LONGEST)
            fields.append(Field(_plain_octets(name), text))
    return fields


def _head_end(octets: bytes, start: int, end: int) -> int:
    if octets.startswith((b"\r\n", b"\n"), start):
        return start
    found = octets.find(b"\r\n\r\n", start, end)
    return end if found < 0 else found


def _parts(octets: bytes, start: int, end: int, depth: int, left: list[int]) -> Iterator[Part]:
    """The part that stands there, and those within it, as long as some are `left` to give."""
    if not left[0] or depth > _DEEPEST:
        return
    left[0] -= 1
    head_end = _head_end(octets, start, end)
    told = email.message.Message()
    for field in _fields(octets, start, end):
        if field.name.lower() in ("content-type", "content-disposition"):
            told[field.name] = field.value
    encodings = (f.value for f in _fields(octets, start, end) if _is_encoding(f))
    encoding = cut(next(encodings, "").strip().lower(), 40)
    body = min(head_end + (2 if head_end == start else 4), end)
    kind = told.get_content_type()
    charset = _parameter(told, "charset")
    yield Part(depth, cut(kind, 80), cut(_name(told), 80), encoding, charset, body, end)
    if told.get_content_maintype() == "multipart" and (boundary := _parameter(told, "boundary")):
        for inner_start, inner_end in _between(octets, body, end, boundary):
            yield from _parts(octets, inner_start, inner_end, depth + 1, left)
    elif kind == "message/rfc822":
        yield from _parts(octets, body, end, depth + 1, left)


def _is_encoding(field: Field) -> bool:
    return field.name.lower() == "content-transfer-encoding"


def _parameter(told: email.message.Message, name: str) -> str:
    try:
        value = told.get_param(name, "")
    except (ValueError, LookupError):
        return ""
    return value if isinstance(value, str) else ""


def _name(told: email.message.Message) -> str:
    try:
        return _plain(told.get_filename() or "")
    except (ValueError, LookupError):
        return "(a name that can't be read)"


def _between(octets: bytes, start: int, end: int, boundary: str) -> Iterator[tuple[int, int]]:
    """Start and end of what stands between the lines of a boundary (RFC 2046 section 5.1.1)."""
    line = b"--" + boundary.encode("utf-8", "replace")
    begins = -1
    at = (
        start if octets.startswith(line, start) else _after(octets.find(b"\r\n" + line, start, end))
    )
    for _ in range(_MOST_CANDIDATES):
        if at < 0:
            break
        ends = octets.find(b"\r\n", at + len(line), end)
        ends = end if ends < 0 else ends
        rest = octets[at + len(line) : min(ends, at + len(line) + _LONGEST)].rstrip(b" \t")
        if rest in (b"", b"--"):
            if begins >= 0:
                yield begins, max(begins, at - 2)
            if rest:
                return
            begins = min(ends + 2, end)
        # The line end may belong to the next boundary as well.
        at = _after(octets.find(b"\r\n" + line, at + len(line), end))
    if begins >= 0:
        yield begins, end


def _after(line_end: int) -> int:
    return line_end + 2 if line_end >= 0 else -1


def octets_of(data: bytes, part: Part) -> bytes:
    """A part's octets out of their transfer encoding (RFC 2045 section 6), as far as it is kept."""
    try:
        if part.encoding == "base64":
            kept = re.sub(rb"[^A-Za-z0-9+/]", b"", data)
            kept = kept[:-1] if len(kept) % 4 == 1 else kept
            return b64decode(kept + b"=" * (-len(kept) % 4))
        if part.encoding == "quoted-printable":
            return quopri.decodestring(data)
    except (binascii.Error, ValueError):
        pass
    return data


def text_of(data: bytes, part: Part) -> str:
    """A part's text out of its encoding and its charset, as far as both can be read."""
    data = octets_of(data, part)
    try:
        return data.decode(part.charset or "utf-8", "backslashreplace")
    except (ValueError, LookupError):
        return data.decode("utf-8", "backslashreplace")


_HOP = re.compile(r"(?:from (\S+).*?)?\bby (\S+)(.*)", re.IGNORECASE)


def _hop(value: str) -> tuple[str, str, str]:
    match = _HOP.match(value)
    if match is None:
        return "", "", value
    how = re.sub(r"\s+", " ", match[3]).strip(" ;")
    return match[1] or "", match[2].rstrip(";"), how


def _envelope(shown: Message) -> list[tuple[str, str]]:
    if shown.envelope is None:
        return []
    envelope = shown.envelope
    rows = [("MAIL FROM", _path(envelope.reverse_path, envelope.parameters))]
    recipients = envelope.recipients
    asked = envelope.recipient_parameters or ((),) * len(recipients)
    rows += [
        ("RCPT TO", _path(*one)) for one in zip(recipients[:_MOST_FIELDS], asked, strict=False)
    ]
    if len(recipients) > _MOST_FIELDS:
        rows.append(("RCPT TO", f"{len(recipients) - _MOST_FIELDS:,} more"))
    return rows


def _path(address: str, parameters: Sequence[str]) -> str:
    """An address, and what the sender wants to hear of its mail (RFC 3461 section 4)."""
    asked = [one for one in parameters if one.partition("=")[0] in _DSN]
    return _plain(" ".join((f"<{address}>", *asked)))


def _plain(text: str) -> str:
    return readable(text.encode("utf-8", "backslashreplace"))


def _plain_octets(octets: bytes) -> str:
    return readable(octets)


# -- as HTML


def _html(seen: Seen, envelope: Sequence[tuple[str, str]]) -> str:
    parts = seen.parts()
    return (
        f'<div class="beside">{_envelope_html(envelope)}{_fields_html(seen)}'
        f"{_body_html(seen, parts)}</div>{_hops_html(seen)}{_tree_html(parts)}{_raw_html(seen)}"
    )


def _section(title: str, note: str, inside: str, css: str = "") -> str:
    name = f"block {css}".strip()
    return f'<div class="{name}"><p class="name">{title} <span>{note}</span></p>{inside}</div>'


def _envelope_html(envelope: Sequence[tuple[str, str]]) -> str:
    rows = "".join(
        f"<dt>{name}</dt><dd><code>{escape(value)}</code></dd>" for name, value in envelope
    )
    inside = f"<dl>{rows}</dl>" if rows else '<p class="more">It didn\'t come by SMTP.</p>'
    return _section("Envelope", "where it goes", inside, "envelope")


def _fields_html(seen: Seen) -> str:
    rows = []
    for field in seen.fields:
        whole = varying(f"{field.name}: {cut(field.value, _LONGEST)}")
        also = f'<span class="read">{escape(field.decoded)}</span>' if field.decoded else ""
        rows.append(f"<li>{whole}{also}</li>")
    inside = f'<ul class="fields">{"".join(rows)}</ul>' if rows else '<p class="more">None.</p>'
    return _section("Header", "what the reader sees of it", inside)


def _body_html(seen: Seen, parts: Sequence[Part]) -> str:
    kind, rows, more = seen.body(parts)
    if not kind:
        return _section("Body", "", '<p class="more">No text.</p>')
    text = "\n".join(map(varying, rows))
    rest = '<p class="more">It goes on.</p>' if more else ""
    note = "text" if kind == "text/plain" else f"{escape(kind)}, as its source"
    return _section("Body", note, f"<pre>{text}</pre>{rest}")


def _hops_html(seen: Seen) -> str:
    hops = seen.hops()
    if not hops:
        return ""
    items = []
    for source, by, how in hops:
        way = pieces((Piece(source or "(itself)", "client.example"),)) if by else ""
        arrow = f'{way} <span aria-hidden="true">→</span> <b>{escape(by)}</b> ' if by else ""
        items.append(f"<li>{arrow}<span>{varying(cut(how, 200))}</span></li>")
    return _section("Its way", "each server adds a Received field", f"<ol>{''.join(items)}</ol>")


def _tree_html(parts: Sequence[Part]) -> str:
    items = []
    for part in parts:
        items.append(f'<li style="--d:{part.depth}">{escape(part.said)}</li>')
    more = '<p class="more">More parts aren\'t shown.</p>' if len(parts) == _MOST_PARTS else ""
    return _section("Parts", "the MIME tree", f'<ul class="tree">{"".join(items)}</ul>{more}')


def _raw_html(seen: Seen) -> str:
    rows, more = seen.raw(_RAW_LINES)
    lines = []
    for dot, text, ending in rows:
        mark = "<mark>.</mark>" if dot else ""
        lines.append(f'{mark}{varying(text)}<i class="end">{escape(ending)}</i>')
    lines.append("…" if more else '<mark>.</mark><i class="end">\\r\\n</i>')
    return (
        '<details class="block"><summary>Its octets as SMTP carries them: line ends shown, the '
        f"dots that are added marked</summary><pre>{chr(10).join(lines)}</pre></details>"
    )


# -- as text


def _text(
    seen: Seen, envelope: Sequence[tuple[str, str]], label: str, facts: Sequence[str]
) -> Iterator[str]:
    parts = seen.parts()
    yield f"{stable(label)}: {', '.join(facts)}"
    yield "Envelope"
    yield from (f"  {name}: {value}" for name, value in envelope or [("none", "not by SMTP")])
    yield "Header"
    for field in seen.fields:
        yield "  " + stable(f"{field.name}: {cut(field.value, _LONGEST)}")
    kind, rows, more = seen.body(parts)
    yield f"Body ({kind or 'no text'})"
    yield from (f"  {stable(row)}".rstrip() for row in rows)
    if more:
        yield "  …"
    if hops := seen.hops():
        yield "Its way"
        for number, (_, by, how) in enumerate(hops, 1):
            way = f"client.example -> {by} " if by else ""
            yield f"  {number}. {way}{stable(cut(how, 200))}".rstrip()
    yield "Parts"
    yield from (f"  {'  ' * part.depth}{part.said}" for part in parts)
    yield "Octets as SMTP carries them"
    raw, more = seen.raw(_TEXT_RAW_LINES)
    yield from (f"  {'.' if dot else ''}{stable(text)}{ending}" for dot, text, ending in raw)
    yield "  …" if more else "  .\\r\\n"
