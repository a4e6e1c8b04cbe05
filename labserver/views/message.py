"""A message and a mailbox to look at: as text, for nothing in them is ever run or fetched.

A message may be large and hostile, so it is shown in part, and each part says what is left out.
How it is read is in `labserver/mime.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import islice

from labserver import normal_form
from labserver.charsets import is_guessed, unstructured
from labserver.message import Mailbox, Message
from labserver.mime import Part
from labserver.transcript import readable
from labserver.views.view import View, count, cut, frame, varying

_BODY_OCTETS = 64 * 1024
"""Octets of the body that are read."""
_FOLD = re.compile(rb"\r?\n[ \t]+")
_DSN = ("RET", "ENVID", "NOTIFY", "ORCPT")
_MOST_FIELDS = 60
_MOST_PARTS = 40
_MOST_HOPS = 30
_BODY_LINES = 60
_RAW_LINES = 120
_TEXT_RAW_LINES = 40
_LONGEST_FIELD = 1_000
"""Octets of a field that are shown."""
_LONGEST = 500
"""Characters of a line that are shown."""
_MOST_MESSAGES = 500
"""Rows of a mailbox."""


@dataclass(frozen=True, slots=True)
class Field:
    """A header field, unfolded."""

    name: str
    octets: bytes
    """The beginning of the value."""
    more: int = 0
    """How many octets follow."""

    @property
    def value(self) -> str:
        """The value as it came; of a long one the beginning, and how much is left out."""
        return bounded_text(readable(self.octets), self.more)

    @property
    def decoded(self) -> str:
        """The value with its encoded words read (RFC 2047), where that makes a difference."""
        read = _plain(unstructured(self.octets))
        if read == readable(self.octets):
            return ""
        guess = " (not UTF-8: read as windows-1252)" if is_guessed(self.octets) else ""
        return bounded_text(read, self.more) + guess


def bounded_text(text: str, more: int, thing: str = "octet") -> str:
    """The text, and how much of it is left out."""
    return f"{text}… ({count(more, f'more {thing}')})" if more else text


def said(part: Part) -> str:
    """A part's kind, name, size and encoding in one line."""
    file = f" “{cut(_plain(part.name), 80)}”" if part.name else ""
    encoded = part.first(b"content-transfer-encoding") is not None
    encoding = f", {cut(readable(part.encoding), 40)}" if encoded else ""
    rest = f" ({part.left_out})" if part.left_out else ""
    size = count(part.end - part.body_start, "octet")
    return f"{cut(_plain(part.kind), 80)}{file}, {size}{encoding}{rest}"


def message(shown: Message) -> View:
    """Envelope, header and body beside each other; the way it came; its parts; its octets."""
    seen = ShownMessage(shown.octets)
    subject = seen.said("subject")
    facts = [count(len(shown.octets), "octet"), *sorted(map(_plain, shown.flags))]
    envelope = _envelope(shown)
    label = cut(shown.damage or subject or "(no subject)", 120)
    body = frame("message", label, _html(seen, envelope), facts=facts)
    return View("message", body, "\n".join(_text(seen, envelope, label, facts)))


def mailbox(shown: Mailbox) -> View:
    """One row for each message."""
    if not shown:
        empty = frame("mailbox", "Mailbox", '<p class="more">No message here.</p>')
        return View("mailbox", empty, str(shown))
    rows = []
    for number, one in enumerate(shown[:_MOST_MESSAGES], 1):
        seen = ShownMessage(one.octets)
        told = (seen.said(name) or "(none)" for name in ("from", "subject"))
        cells = "".join(f"<td>{escape(cut(text, 120))}</td>" for text in told)
        if one.damage:
            cells = f'<td colspan="2">{escape(one.damage)}</td>'
        rows.append(f"<tr><td>{number}</td>{cells}</tr>")
    more = len(shown) - _MOST_MESSAGES
    rest = f'<p class="more">{more:,} more messages not shown</p>' if more > 0 else ""
    body = frame(
        "mailbox",
        "Mailbox",
        '<table><thead><tr><th scope="col">No.</th><th scope="col">From</th>'
        f'<th scope="col">Subject</th></tr></thead><tbody>{"".join(rows)}</tbody></table>{rest}',
        facts=[count(len(shown), "message")],
    )
    return View("mailbox", body, str(shown))


# -- reading a message, no more of it than is shown


class ShownMessage:
    """What is shown of a message: its header, its parts, its way here."""

    def __init__(self, octets: bytes) -> None:
        self.octets = octets
        self.whole = Part(octets)
        found = islice(self.whole.sources(), _MOST_FIELDS)
        self.fields = [Field(readable(name), *_beginning(value)) for name, value in found]

    @property
    def more_fields(self) -> int:
        """Number of fields that are left out of `fields`."""
        return self.whole.number_of_fields - len(self.fields)

    def said(self, name: str) -> str:
        """The decoded value of the first field with that name, wherever it stands in the header."""
        raw = next(self.whole.raw(name.encode()), b":")
        return _plain(unstructured(_beginning(raw.partition(b":")[2])[0]))

    def parts(self) -> tuple[list[Part], int]:
        """The MIME tree, each part before those within it, and how many are left out."""
        found = self.whole.walk()
        return found[:_MOST_PARTS], sum(part.stands_for for part in found[_MOST_PARTS:])

    def hops(self) -> tuple[list[tuple[str, str, str]], int]:
        """For each Received field: from whom, by whom, when and how; the first hop first.

        And how many hops before them are left out.
        """
        found = list(islice(self.whole.raw(b"received"), _MOST_HOPS))
        values = (_beginning(raw.partition(b":")[2])[0] for raw in reversed(found))
        hops = [_hop(readable(value)) for value in values]
        return hops, self.whole.number_of(b"received") - len(found)

    def body(self) -> tuple[str, list[str], str]:
        """What kind of text the body is, its first lines, and what is left out."""
        part = self.whole.body_part(b"plain") or self.whole.body_part()
        if part is None:
            return "", [], ""
        rows = part.text(_BODY_OCTETS).splitlines()
        shown = [
            bounded_text(_plain(row[:_LONGEST]), max(0, len(row) - _LONGEST), "character")
            for row in rows[:_BODY_LINES]
        ]
        lines, octets = len(rows) - _BODY_LINES, part.end - part.body_start - _BODY_OCTETS
        more = [count(lines, "more line")] if lines > 0 else []
        more += [count(octets, "more octet")] if octets > 0 else []
        return _plain(part.kind), shown, " and ".join(more)

    def raw(self, most: int) -> tuple[list[tuple[bool, str, str]], int]:
        """The first lines as SMTP carries them, and how many more there are.

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
            rows.append((line.startswith(b"."), readable(line), ending))
            start = end
        more = self.octets.count(b"\n", start) + (not self.octets.endswith(b"\n"))
        return rows, more if start < len(self.octets) else 0


def _beginning(value: bytes) -> tuple[bytes, int]:
    """What is shown of a field's value, each fold as one blank, and how many octets follow."""
    value = value.strip()
    shown = _FOLD.sub(b" ", value[:_LONGEST_FIELD])
    return shown, max(0, len(value) - _LONGEST_FIELD)


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


# -- as HTML


def _html(seen: ShownMessage, envelope: Sequence[tuple[str, str]]) -> str:
    return (
        f'<div class="beside">{_envelope_html(envelope)}{_fields_html(seen)}'
        f"{_body_html(seen)}</div>{_hops_html(seen)}{_tree_html(seen)}{_raw_html(seen)}"
    )


def _not_shown(more: int, thing: str) -> str:
    return f'<p class="more">{count(more, thing)} not shown</p>' if more else ""


def _section(title: str, note: str, inside: str, css: str = "") -> str:
    name = f"block {css}".strip()
    return f'<div class="{name}"><p class="name">{title} <span>{note}</span></p>{inside}</div>'


def _envelope_html(envelope: Sequence[tuple[str, str]]) -> str:
    rows = "".join(
        f"<dt>{name}</dt><dd><code>{escape(value)}</code></dd>" for name, value in envelope
    )
    inside = f"<dl>{rows}</dl>" if rows else '<p class="more">It didn\'t come by SMTP.</p>'
    return _section("Envelope", "where it goes", inside, "envelope")


def _fields_html(seen: ShownMessage) -> str:
    rows = []
    for field in seen.fields:
        whole = varying(f"{cut(field.name, 80)}: {field.value}")
        also = f'<span class="read">{escape(field.decoded)}</span>' if field.decoded else ""
        rows.append(f"<li>{whole}{also}</li>")
    inside = f'<ul class="fields">{"".join(rows)}</ul>' if rows else '<p class="more">None.</p>'
    inside += _not_shown(seen.more_fields, "more field")
    return _section("Header", "what the reader sees of it", inside)


def _body_html(seen: ShownMessage) -> str:
    kind, rows, more = seen.body()
    if not kind:
        return _section("Body", "", '<p class="more">No text.</p>')
    text = "\n".join(map(varying, rows))
    rest = f'<p class="more">{more} not shown</p>' if more else ""
    note = "text" if kind == "text/plain" else f"{escape(kind)}, as its source"
    return _section("Body", note, f"<pre>{text}</pre>{rest}")


def _hops_html(seen: ShownMessage) -> str:
    hops, more = seen.hops()
    if not hops:
        return ""
    items = []
    for source, by, how in hops:
        way = escape(normal_form.shown(source or "(itself)", "client.example"))
        arrow = f'{way} <span aria-hidden="true">→</span> <b>{escape(by)}</b> ' if by else ""
        items.append(f"<li>{arrow}<span>{varying(cut(how, 200))}</span></li>")
    inside = f"{_not_shown(more, 'earlier hop')}<ol>{''.join(items)}</ol>"
    return _section("Its way", "each server adds a Received field", inside)


def _tree_html(seen: ShownMessage) -> str:
    parts, more = seen.parts()
    items = (f'<li style="--d:{part.depth}">{escape(said(part))}</li>' for part in parts)
    inside = f'<ul class="tree">{"".join(items)}</ul>{_not_shown(more, "more part")}'
    return _section("Parts", "the MIME tree", inside)


def _raw_html(seen: ShownMessage) -> str:
    rows, more = seen.raw(_RAW_LINES)
    lines = []
    for dot, text, ending in rows:
        mark = "<mark>.</mark>" if dot else ""
        lines.append(f'{mark}{varying(text)}<i class="end">{escape(ending)}</i>')
    end = '<mark>.</mark><i class="end">\\r\\n</i>'
    lines.append(f"({count(more, 'more line')} not shown)" if more else end)
    return (
        '<details class="block"><summary>Its octets as SMTP carries them: line ends shown, the '
        f"dots that are added marked</summary><pre>{chr(10).join(lines)}</pre></details>"
    )


# -- as text


def _text(
    seen: ShownMessage, envelope: Sequence[tuple[str, str]], label: str, facts: Sequence[str]
) -> Iterator[str]:
    yield f"{normal_form.shown(label)}: {', '.join(facts)}"
    yield "Envelope"
    yield from (f"  {name}: {value}" for name, value in envelope or [("none", "not by SMTP")])
    yield "Header"
    for field in seen.fields:
        yield "  " + normal_form.shown(f"{cut(field.name, 80)}: {field.value}")
    yield from _left_out(seen.more_fields, "more field")
    kind, rows, rest = seen.body()
    yield f"Body ({kind or 'no text'})"
    yield from (f"  {normal_form.shown(row)}".rstrip() for row in rows)
    if rest:
        yield f"  ({rest} not shown)"
    hops, more = seen.hops()
    if hops:
        yield "Its way"
        yield from _left_out(more, "earlier hop")
        for number, (source, by, how) in enumerate(hops, more + 1):
            source = normal_form.shown(source or "(itself)", "client.example")
            way = f"{source} -> {by} " if by else ""
            yield f"  {number}. {way}{normal_form.shown(cut(how, 200))}".rstrip()
    yield "Parts"
    parts, more = seen.parts()
    yield from (f"  {'  ' * part.depth}{said(part)}" for part in parts)
    yield from _left_out(more, "more part")
    yield "Octets as SMTP carries them"
    raw, more = seen.raw(_TEXT_RAW_LINES)
    yield from (
        f"  {'.' if dot else ''}{normal_form.shown(text)}{ending}" for dot, text, ending in raw
    )
    if more:
        yield from _left_out(more, "more line")
    else:
        yield "  .\\r\\n"


def _left_out(more: int, thing: str) -> Iterator[str]:
    if more:
        yield f"  ({count(more, thing)} not shown)"
