"""Two sessions beside each other, line by line, with what differs marked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Container, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from html import escape
from itertools import groupby, zip_longest
from typing import Literal

from labserver.catalog import load, path
from labserver.transcript import Line, Session, Side, expect_sessions
from labserver.transcript import numbered as number_labels
from labserver.views.view import (
    LOCK,
    LONGEST,
    ShownLine,
    View,
    bounded,
    count,
    frame,
    label,
    lines_of,
    replies_together,
    shown_lines,
    who,
    with_number,
)

_LAST = 100
_MOST_EXCHANGES = 3 * _LAST
"""Exchanges compared of each session: two thirds from its beginning, the rest from its end."""
_MOST_ROWS = 200
"""Rows shown; of more rows, the beginning and the end."""
_BODY_LINES = 40
_MOST_WORDS = 200
"""Words of a line that are compared, to mark those that differ."""

Found = Literal["same", "TLS", "names", "differs", "beside", "A", "B", ""]
"""What the comparison of two lines finds: `TLS` where only that differs, `names` where only what
clients choose does, `beside` where they are of two protocols, `A` and `B` for what only one of
them has, nothing of a heading."""

_SIGNS: dict[Found, str] = {
    "same": "=",
    "TLS": "=",
    "names": "=",
    "differs": "≠",
    "beside": "|",
    "A": "◀",
    "B": "▶",
    "": "",
}
_WORDS: dict[Found, str] = {
    "same": "same",
    "TLS": "same but TLS",
    "names": "same but names",
    "differs": "differs",
    "beside": "",
    "A": "only A",
    "B": "only B",
    "": "",
}
_CLASSES: dict[Found, str] = {
    "same": "equal",
    "TLS": "equal but",
    "names": "equal but",
    "differs": "unequal",
    "beside": "beside",
    "A": "alone",
    "B": "alone",
    "": "heading",
}


@dataclass(frozen=True, slots=True)
class _Compared:
    """A line, a multi-line reply or a piece of content as it is compared."""

    rows: tuple[ShownLine, ...]
    normal: tuple[tuple[str, bytes], ...]
    """For each row what it is compared by: its normal form, and the octets that are cut off."""

    @property
    def who(self) -> Side:
        return self.rows[0].line.who

    @property
    def tls(self) -> bool:
        return self.rows[0].line.tls

    @property
    def content(self) -> bool:
        return self.rows[0].line.kind == "content"

    @property
    def shown(self) -> tuple[str, ...]:
        """What is shown of it; of content only how long it is."""
        return (_size(self),) if self.content else tuple(row.shown for row in self.rows)


@dataclass(frozen=True, slots=True)
class _Exchange:
    """A command and all that belongs to it; or several for the same purpose."""

    verb: str
    purpose: str
    lines: tuple[_Compared, ...]
    exact: tuple[str, bytes] = ("", b"")
    """What was asked, word by word."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """A row of the comparison: a line of each session, or of one; or a heading."""

    a: _Compared | None
    b: _Compared | None
    heading: str = ""
    related: bool = True
    """Whether they are of one protocol, so that they can be the same."""

    @property
    def found(self) -> Found:
        if self.heading:
            return ""
        if self.a is None or self.b is None:
            return "B" if self.a is None else "A"
        if not self.related:
            return "beside"
        if self.a.normal != self.b.normal:
            return "differs"
        if self.a.tls != self.b.tls:
            return "TLS"
        return "same" if self.a.shown == self.b.shown else "names"


def compare(a: Session, b: Session, *, numbers: bool = False) -> View:
    """Two sessions line by line: what is the same, what differs, what only one of them has.

    Names, tags and dates that clients choose are no difference. Sessions of two protocols are
    put side by side by what their commands are for. Passwords are masked; with `numbers` each
    line has its number in its session, from 1.
    """
    expect_sessions("compare()", a, b)
    one, other = _exchanges(a), _exchanges(b)
    every = list(_pairs(one, other, related=a.protocol == b.protocol))
    pairs = bounded(
        every,
        _MOST_ROWS,
        lambda number: _Pair(None, None, f"{number:,} more rows aren't shown"),
    )
    names = [f"{one.protocol} on {one.listener}" for one in (a, b)]
    facts = _facts(every, related=a.protocol == b.protocol)
    if max(len(one), len(other)) > _MOST_EXCHANGES:
        facts.append(f"compared: the first {2 * _LAST} and the last {_LAST} exchanges")
    names_html = "".join(
        f'<div class="{css}"><b>{letter}</b> {escape(name)}</div>'
        for css, letter, name in zip("ab", "AB", names, strict=True)
    )
    rows = "".join(_html(pair, numbers) for pair in pairs)
    inside = f'<div class="names">{names_html}</div><ol>{rows}</ol>'
    body = frame("compare", "Two sessions compared", inside, facts=facts)
    heading = [f"A: {names[0]}", f"B: {names[1]}", ", ".join(facts)]
    widest = max(len(a.lines), len(b.lines)) if numbers else 0
    rows_of_text = (row for pair in pairs for row in _text(pair, number_labels(widest)))
    return View("compare", body, "\n".join([*heading, *rows_of_text]))


def _facts(pairs: Sequence[_Pair], *, related: bool) -> list[str]:
    if not related:
        return ["two protocols, put side by side by what their commands are for"]
    number = Counter(pair.found for pair in pairs)
    return [
        f"{number['same'] + number['TLS'] + number['names']:,} same",
        f"{number['differs']:,} differ",
        f"{number['A']:,} only in A",
        f"{number['B']:,} only in B",
    ]


# -- what belongs together


def _pairs(
    one: Sequence[_Exchange], other: Sequence[_Exchange], *, related: bool
) -> Iterator[_Pair]:
    one, other = _ends(one), _ends(other)
    if related:
        # First what is asked in the same words; between that, what has the same verb.
        keys: list[Callable[[_Exchange], Hashable]] = [lambda e: e.exact, lambda e: e.verb]
        for left, right in _aligned(one, other, keys):
            yield from _lines(left, right)
        return
    for left, right in _aligned(_by_purpose(one), _by_purpose(other), [lambda e: e.purpose]):
        known = left or right
        yield _Pair(None, None, (known.purpose if known else "") or "something else")
        yield from (replace(pair, related=False) for pair in _lines(left, right))


def _ends(exchanges: Sequence[_Exchange]) -> Sequence[_Exchange]:
    if len(exchanges) <= _MOST_EXCHANGES:
        return exchanges
    return [*exchanges[: 2 * _LAST], *exchanges[-_LAST:]]


def _exchanges(session: Session) -> list[_Exchange]:
    rows = shown_lines(session, body_lines=_BODY_LINES)
    normal = session.texts("normal", body_lines=_BODY_LINES, longest=LONGEST)
    commands = load(session.protocol).commands
    owners = {line: step for step in path(session) for line in step.lines}
    grouped: dict[int, list[int]] = {}
    for index in range(len(rows)):
        step = owners.get(index)
        grouped.setdefault(step.line if step else index, []).append(index)
    found = []
    for first, indexes in grouped.items():
        step = owners.get(first)
        verb = step.command if step else ""
        lines = tuple(_together([rows[index] for index in indexes], normal))
        purpose = commands[verb].purpose if verb in commands else ""
        (text, rest), *_ = lines[0].normal
        exact = (_without_tag(text, session), rest) if lines[0].who == "C" else (verb, b"")
        found.append(_Exchange(verb, purpose, lines, exact))
    return found


def _without_tag(text: str, session: Session) -> str:
    return text.partition(" ")[2] if session.protocol == "IMAP" else text


def _together(rows: Sequence[ShownLine], normal: Sequence[str]) -> Iterator[_Compared]:
    for group in replies_together(rows):
        yield _Compared(
            tuple(group), tuple((normal[row.number - 1], _rest(row.line)) for row in group)
        )


def _rest(line: Line) -> bytes:
    """What distinguishes a line beyond its shown text; nothing of a password."""
    if line.kind == "content":
        return b"%d" % line.octets
    return b"" if line.secret else line.data[LONGEST:]


def _by_purpose(exchanges: Sequence[_Exchange]) -> list[_Exchange]:
    """Neighbours with the same purpose as one: USER and PASS are one login."""
    return [
        _Exchange("", purpose, tuple(line for e in some for line in e.lines))
        for purpose, some in groupby(exchanges, key=lambda e: e.purpose)
    ]


def _aligned(
    a: Sequence[_Exchange],
    b: Sequence[_Exchange],
    keys: Sequence[Callable[[_Exchange], Hashable]],
) -> Iterator[tuple[_Exchange | None, _Exchange | None]]:
    """Pairs of exchanges that share the first key; those left over are paired by the next key."""
    if not keys or not a or not b:
        yield from ((left, None) for left in a)
        yield from ((None, right) for right in b)
        return
    key, *others = keys
    matcher = SequenceMatcher(None, [*map(key, a)], [*map(key, b)], autojunk=False)
    for tag, a1, a2, b1, b2 in matcher.get_opcodes():
        if tag == "equal":
            yield from zip(a[a1:a2], b[b1:b2], strict=True)
        else:
            yield from _aligned(a[a1:a2], b[b1:b2], others)


def _lines(a: _Exchange | None, b: _Exchange | None) -> Iterator[_Pair]:
    """The lines of two exchanges side by side: client with client, server with server."""
    nothing: list[_Compared] = []
    for left, right in zip_longest(_turns(a), _turns(b), fillvalue=nothing):
        if left and right and left[0].who != right[0].who:
            yield from (_Pair(line, None) for line in left)
            yield from (_Pair(None, line) for line in right)
        else:
            yield from (_Pair(*both) for both in zip_longest(left, right))


def _turns(exchange: _Exchange | None) -> list[list[_Compared]]:
    lines = exchange.lines if exchange else ()
    return [list(some) for _, some in groupby(lines, key=lambda line: line.who)]


# -- as text


def _text(pair: _Pair, number: Callable[[int], str]) -> Iterator[str]:
    if pair.heading:
        yield f"-- {pair.heading} --"
        return
    sign = _SIGNS[pair.found]
    a, b = pair.a, pair.b
    if sign == "=" and a and b and a.shown == b.shown and _alike(a, b, number):
        where = {(True, False): " (TLS in A)", (False, True): " (TLS in B)"}
        note = where.get((a.tls, b.tls), "")
        yield from (f"{sign}   {row}{note}" for row in _rows(a, number))
        return
    for letter, line in (("A", a), ("B", b)):
        if line:
            note = " (TLS)" if sign == "=" and line.tls and pair.found == "TLS" else ""
            yield from (f"{sign} {letter} {row}{note}" for row in _rows(line, number))


def _rows(line: _Compared, number: Callable[[int], str]) -> Iterator[str]:
    for row in lines_of(line.rows):
        if isinstance(row, str):
            yield f"   {row}"
            continue
        text = f"[{_size(line)}]" if line.content else row.shown
        yield f"{number(row.number)}{row.line.who}: {text}".rstrip()


def _alike(a: _Compared, b: _Compared, number: Callable[[int], str]) -> bool:
    """Whether the two lines would be the same row, numbers included."""
    return number(a.rows[0].number) == number(b.rows[0].number)


def _size(line: _Compared) -> str:
    return f"message content, {count(line.rows[0].line.octets, 'octet')}"


# -- as HTML


def _html(pair: _Pair, numbers: bool) -> str:
    if pair.heading:
        return f'<li class="heading">{escape(pair.heading)}</li>'
    found = pair.found
    sign = f'<span aria-hidden="true">{_SIGNS[found]}</span> ' if _WORDS[found] else ""
    tag = f'<span class="tag">{sign}{_WORDS[found]}</span>'
    both = pair.a is not None and pair.b is not None and found == "differs"
    a = _cell("A", pair.a, pair.b if both else None, numbers)
    b = _cell("B", pair.b, pair.a if both else None, numbers)
    return f'<li class="{_CLASSES[found]}">{tag}{a}{b}</li>'


def _cell(letter: str, line: _Compared | None, other: _Compared | None, numbers: bool) -> str:
    css = letter.lower()
    if line is None:
        return f'<div class="{css} none"></div>'
    first = line.rows[0].line
    lock = (
        f'<span class="lock" role="img" aria-label="inside TLS">{LOCK}</span>' if line.tls else ""
    )
    tls = " tls" if line.tls else ""
    return (
        f'<div class="{css} {first.who}{tls}"><b class="side">{letter}</b>'
        f"{who(first.who)}<code>{_code(line, other, numbers)}</code>{lock}</div>"
    )


def _code(line: _Compared, other: _Compared | None, numbers: bool) -> str:
    first = line.rows[0]
    if line.content:
        return f"{label(first.number, numbers)}{_size(line)}"
    if other is not None and len(line.rows) == len(other.rows) == 1:
        return label(first.number, numbers) + _marked(first.shown, other.rows[0].shown)
    there = set(line.normal if other is None else other.normal)
    same = {row.number for row, text in zip(line.rows, line.normal, strict=True) if text in there}
    return "<br>".join(_row(row, same, numbers) for row in lines_of(line.rows))


def _row(row: ShownLine | str, same: Container[int], numbers: bool) -> str:
    """A row of a reply, marked if the other session has no such row."""
    if isinstance(row, str) or row.number in same:
        return row if isinstance(row, str) else with_number(row, numbers)
    return f"{label(row.number, numbers)}<mark>{escape(row.shown)}</mark>"


def _marked(text: str, other: str) -> str:
    """A line with the words marked that the other line lacks."""
    mine, its = (re.findall(r"[\w.@-]+|\s+|.", one) for one in (text, other))
    rest = "".join(mine[_MOST_WORDS:])
    mine, its = mine[:_MOST_WORDS], its[:_MOST_WORDS]
    matcher = SequenceMatcher(None, mine, its, autojunk=False)
    out = []
    for tag, start, end, _, _ in matcher.get_opcodes():
        words = escape("".join(mine[start:end]))
        if words:
            out.append(words if tag == "equal" else f"<mark>{words}</mark>")
    return f"{''.join(out)}{escape(rest)}" or "&nbsp;"
