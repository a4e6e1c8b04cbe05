"""Two sessions beside each other, line by line, with what differs marked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from html import escape
from itertools import groupby, zip_longest
from typing import Literal

from labserver.catalog import load, path
from labserver.notebook.view import (
    LOCK,
    Row,
    View,
    bounded,
    count,
    cut,
    frame,
    pieces,
    replies_together,
    rows_of,
    who,
)
from labserver.transcript import Session, Side

_LAST = 100
_MOST_EXCHANGES = 3 * _LAST
"""Compared of each session: its beginning and, as half as many, its end."""
_MOST_ROWS = 200
"""Shown: the beginning and, as half as many, the end."""
_BODY_LINES = 40
_LONGEST = 400
"""Characters of a line that are shown."""

Found = Literal["same", "TLS", "differs", "beside", "A", "B", ""]
"""What the comparison of two lines finds: `TLS` where only that differs, `beside` where they are
of two protocols, `A` and `B` for what only one of them has, nothing of a heading."""

_SIGNS: dict[Found, str] = {
    "same": "=",
    "TLS": "=",
    "differs": "≠",
    "beside": "|",
    "A": "◀",
    "B": "▶",
    "": "",
}
_WORDS: dict[Found, str] = {
    "same": "same",
    "TLS": "same but TLS",
    "differs": "differs",
    "beside": "",
    "A": "only A",
    "B": "only B",
    "": "",
}
_CLASSES: dict[Found, str] = {
    "same": "equal",
    "TLS": "equal but",
    "differs": "unequal",
    "beside": "beside",
    "A": "alone",
    "B": "alone",
    "": "heading",
}


@dataclass(frozen=True, slots=True)
class _Line:
    """A line, a multi-line reply or a piece of content as it is compared."""

    rows: tuple[Row, ...]
    text: str
    """Without what differs from run to run."""

    @property
    def who(self) -> Side:
        return self.rows[0].line.who

    @property
    def tls(self) -> bool:
        return self.rows[0].line.tls


@dataclass(frozen=True, slots=True)
class _Exchange:
    """A command and all that belongs to it; or several for the same purpose."""

    verb: str
    purpose: str
    lines: tuple[_Line, ...]
    exact: str = ""
    """What was asked, word by word."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """A row of the comparison: a line of each session, or of one; or a heading."""

    a: _Line | None
    b: _Line | None
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
        if self.a.text != self.b.text:
            return "differs"
        return "same" if self.a.tls == self.b.tls else "TLS"


def compare(a: Session, b: Session) -> View:
    """Two sessions line by line: what is the same, what differs, what only one of them has.

    Names, tags and dates that clients choose are no difference. Sessions of two protocols are
    put side by side by what their commands are for. Passwords are masked.
    """
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
    rows = "".join(map(_html, pairs))
    inside = f'<div class="names">{names_html}</div><ol>{rows}</ol>'
    html = frame("compare", "Two sessions compared", inside, facts=facts)
    heading = [f"A: {names[0]}", f"B: {names[1]}", ", ".join(facts)]
    return View(html, "\n".join([*heading, *(row for pair in pairs for row in _text(pair))]))


def _facts(pairs: Sequence[_Pair], *, related: bool) -> list[str]:
    if not related:
        return ["two protocols, put side by side by what their commands are for"]
    number = Counter(pair.found for pair in pairs)
    return [
        f"{number['same'] + number['TLS']:,} same",
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
    rows = rows_of(session, body_lines=_BODY_LINES)
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
        lines = tuple(_together([rows[index] for index in indexes]))
        purpose = commands[verb].purpose if verb in commands else ""
        exact = lines[0].text if lines[0].who == "C" else verb
        found.append(_Exchange(verb, purpose, lines, _without_tag(exact, session)))
    return found


def _without_tag(text: str, session: Session) -> str:
    return text.partition(" ")[2] if session.protocol == "IMAP" else text


def _together(rows: Sequence[Row]) -> Iterator[_Line]:
    for group in replies_together(rows):
        text = "\n".join(row.stable for row in group)
        if group[0].line.kind == "content":
            text += f"\n{group[0].line.octets}"
        yield _Line(tuple(group), text)


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
    """Exchanges that belong together by the first key; what is left, by the next."""
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
    """The lines of two exchanges beside each other, each side's with the same side's."""
    nothing: list[_Line] = []
    for left, right in zip_longest(_turns(a), _turns(b), fillvalue=nothing):
        if left and right and left[0].who != right[0].who:
            yield from (_Pair(line, None) for line in left)
            yield from (_Pair(None, line) for line in right)
        else:
            yield from (_Pair(*both) for both in zip_longest(left, right))


def _turns(exchange: _Exchange | None) -> list[list[_Line]]:
    lines = exchange.lines if exchange else ()
    return [list(some) for _, some in groupby(lines, key=lambda line: line.who)]


# -- as text


def _text(pair: _Pair) -> Iterator[str]:
    if pair.heading:
        yield f"-- {pair.heading} --"
        return
    sign = _SIGNS[pair.found]
    if pair.found in ("same", "TLS") and pair.a and pair.b:
        where = {(True, False): " (TLS in A)", (False, True): " (TLS in B)"}
        note = where.get((pair.a.tls, pair.b.tls), "")
        yield from (f"{sign}   {row}{note}" for row in _rows(pair.a))
        return
    for letter, line in (("A", pair.a), ("B", pair.b)):
        if line:
            yield from (f"{sign} {letter} {row}" for row in _rows(line))


def _rows(line: _Line) -> Iterator[str]:
    for row in line.rows:
        if row.line.kind == "content":
            yield f"{row.line.who}: [message content, {row.line.octets:,} octets]"
        else:
            yield f"{row.line.who}: {cut(row.stable, _LONGEST)}".rstrip()


# -- as HTML


def _html(pair: _Pair) -> str:
    if pair.heading:
        return f'<li class="heading">{escape(pair.heading)}</li>'
    found = pair.found
    sign = f'<span aria-hidden="true">{_SIGNS[found]}</span> ' if _WORDS[found] else ""
    tag = f'<span class="tag">{sign}{_WORDS[found]}</span>'
    both = pair.a is not None and pair.b is not None and found == "differs"
    a = _cell("A", pair.a, pair.b if both else None)
    b = _cell("B", pair.b, pair.a if both else None)
    return f'<li class="{_CLASSES[found]}">{tag}{a}{b}</li>'


def _cell(letter: str, line: _Line | None, other: _Line | None) -> str:
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
        f"{who(first.who)}<code>{_code(line, other)}</code>{lock}</div>"
    )


def _code(line: _Line, other: _Line | None) -> str:
    if line.rows[0].line.kind == "content":
        return f"message content, {count(line.rows[0].line.octets, 'octet')}"
    if other is None:
        return "<br>".join(_cut_pieces(row) or "&nbsp;" for row in line.rows)
    if len(line.rows) == len(other.rows) == 1:
        return _marked(line.rows[0].stable, other.rows[0].stable)
    there = {row.stable for row in other.rows}
    return "<br>".join(
        escape(row.stable) if row.stable in there else f"<mark>{escape(row.stable)}</mark>"
        for row in line.rows
    )


def _cut_pieces(row: Row) -> str:
    return pieces(row.pieces) if len(row.stable) <= _LONGEST else escape(cut(row.stable, _LONGEST))


def _marked(text: str, other: str) -> str:
    """The words of a line that the other one doesn't have are marked."""
    mine, its = (re.findall(r"[\w.@-]+|\s+|.", cut(one, _LONGEST)) for one in (text, other))
    matcher = SequenceMatcher(None, mine, its, autojunk=False)
    out = []
    for tag, start, end, _, _ in matcher.get_opcodes():
        words = escape("".join(mine[start:end]))
        if words:
            out.append(words if tag == "equal" else f"<mark>{words}</mark>")
    return "".join(out) or "&nbsp;"
