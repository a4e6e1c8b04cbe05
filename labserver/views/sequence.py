"""A session as a sequence diagram: client left, server right, time downwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

from labserver.catalog import Outcome, path
from labserver.transcript import LineKind, Session, Side, expect_sessions
from labserver.views.view import (
    MARKS,
    ShownLine,
    View,
    bounded,
    count,
    frame,
    replies_together,
    sentence,
    shown_lines,
    tls_facts,
    tls_name,
    wrapped,
)

_MOST_ARROWS = 60
"""Arrows drawn of a long session: about two thirds from its beginning, the rest from its end."""
_LONGEST_PATTERN = 12
"""Arrows that may repeat together, such as all those of one mail."""
_REPEATS = 4
"""A pattern that repeats at least this often is drawn only twice."""
_CELLS = 35
"""Characters in a row of a label, for the narrowest screen."""
_LABEL_ROWS = 3
_LONGEST = 2 * _CELLS
"""Characters of a line that its label shows."""

_CLIENT, _SERVER = 8, 92
"""Positions of client and server in percent of the width: the drawing fits its page unscaled."""
_ROW = 17
_TOP = 44


@dataclass(frozen=True, slots=True)
class _Arrow:
    """What one side sent as one thing: a command, a whole reply, a piece of content."""

    who: Side
    number: str
    """The numbers of its lines, such as `3` or `3–5`; empty if numbers aren't wanted."""
    label: str
    outcome: Outcome
    kind: LineKind
    tls: bool
    alike: str
    """Equal for arrows that say the same kind of thing."""


@dataclass(frozen=True, slots=True)
class _Gap:
    """Arrows that aren't drawn."""

    note: str
    tls: bool


def sequence(session: Session, *, reveal: bool = False, numbers: bool = False) -> View:
    """Who said what to whom, one arrow for each command and each reply; TLS is a tunnel.

    What repeats is drawn once and counted; of a long session the beginning and the end are
    drawn. Passwords are masked unless `reveal` is set; with `numbers` each arrow has the numbers
    of its lines, from 1.
    """
    expect_sessions("sequence()", session)
    every = list(_repeats_together(list(_arrows(session, reveal, numbers))))
    steps = bounded(every, _MOST_ARROWS, lambda n: _Gap(f"{n:,} more aren't drawn", every[-1].tls))
    label = f"{session.protocol} on {session.listener}, in sequence"
    body = frame(
        "sequence",
        label,
        _SequenceDrawing(session, label).svg(steps),
        facts=[*tls_facts(session), count(session.round_trips, "round trip")],
    )
    return View("sequence", body, _text(session, label, steps))


# -- what is drawn


def _arrows(session: Session, reveal: bool, numbers: bool) -> Iterator[_Arrow]:
    asked = {line: step.command for step in path(session) for line in step.lines}
    rows = shown_lines(session, reveal=reveal, longest=_LONGEST)
    for group in replies_together(rows):
        last = group[-1]
        line = last.line
        meaning = last.meaning
        command = asked.get(group[0].number - 1, "")
        alike = " ".join((line.who, line.kind, command, meaning.label, meaning.anchor))
        number = _numbers(group) if numbers else ""
        yield _Arrow(line.who, number, _label(group), meaning.outcome, line.kind, line.tls, alike)


def _numbers(group: Sequence[ShownLine]) -> str:
    first, last = group[0].number, group[-1].number
    return f"{first:,}" if first == last else f"{first:,}–{last:,}"


def _label(group: Sequence[ShownLine]) -> str:
    first = group[0]
    if first.line.kind == "content":
        return f"message content, {first.line.octets:,} octets"
    more = f" (and {count(len(group) - 1, 'line')} more)" if len(group) > 1 else ""
    return (first.shown.replace("\n", " ").strip() or "(empty line)") + more


def _repeats_together(arrows: list[_Arrow]) -> Iterator[_Arrow | _Gap]:
    """The steps with each repeating pattern shortened: its first time, a count, its last time."""
    alike = [(arrow.alike, arrow.tls) for arrow in arrows]
    at = 0
    while at < len(arrows):
        length, times = _pattern(alike, at)
        if not length:
            yield arrows[at]
            at += 1
            continue
        end = at + length * times
        yield from arrows[at : at + length]
        what = "this" if length == 1 else f"these {length}"
        yield _Gap(f"{times - 2:,} times more the like of {what}", arrows[at].tls)
        yield from arrows[end - length : end]
        at = end


def _pattern(alike: Sequence[object], at: int) -> tuple[int, int]:
    """Length of the shortest pattern that begins here and repeats often, and how often."""
    for length in range(1, _LONGEST_PATTERN + 1):
        end = at + length
        while end < len(alike) and alike[end] == alike[end - length]:
            end += 1
        if (times := (end - at) // length) >= _REPEATS:
            return length, times
    return 0, 0


# -- as text


def _text(session: Session, label: str, steps: Sequence[_Arrow | _Gap]) -> str:
    rows = [label, "Client    Server"]
    tls = False
    for step in steps:
        if step.tls and not tls:
            tls = True
            rows.append("== TLS from here on ==")
        if isinstance(step, _Gap):
            rows.append(f"   :  {step.note}")
            continue
        shaft = "==" if step.tls else "--"
        arrow = f"C {shaft}> S" if step.who == "C" else f"C <{shaft} S"
        rows.append(f"{arrow}   {_signed(step)}")
    return "\n".join((*rows, *(f"-- {note} --" for note in session.notes)))


def _signed(arrow: _Arrow) -> str:
    return " ".join(filter(None, (arrow.number, MARKS[arrow.outcome][1], arrow.label)))


# -- as a drawing


class _SequenceDrawing:
    """The SVG. Across, places are percentages; downwards, they are pixels."""

    def __init__(self, session: Session, label: str) -> None:
        self.session, self.label = session, label
        self.y = float(_TOP)
        self.below: list[str] = []
        """The TLS tunnel, drawn below everything else."""
        self.above: list[str] = []

    def svg(self, steps: Sequence[_Arrow | _Gap]) -> str:
        for tls, some in groupby(steps, key=lambda step: step.tls):
            if tls:
                self._tunnel(list(some))
            else:
                for step in some:
                    self._step(step)
        for note in self.session.notes:
            self._note(sentence(note))
        bottom = self.y + 14
        life = "".join(
            f'<line class="life" x1="{x}%" x2="{x}%" y1="30" y2="{bottom - 6:g}"/>{_actor(x, name)}'
            for x, name in ((_CLIENT, "Client"), (_SERVER, "Server"))
        )
        said = f"{len(steps)} steps from top to bottom between the client and the server."
        return (
            f'<svg role="group" width="100%" height="{bottom:g}">'
            f"<title>{escape(self.label)}</title><desc>{said}</desc>{''.join(self.below)}{life}{''.join(self.above)}</svg>"
        )

    def _tunnel(self, steps: list[_Arrow | _Gap]) -> None:
        top = self.y + 4
        self.y = top + 8
        self._words([f"inside {tls_name(self.session)}"], "tunnel")
        self._words(["on the wire only records and their sizes"], "tunnel")
        self.y += 6
        for step in steps:
            self._step(step)
        height = self.y + 6 - top
        self.y += 14
        # A broad line under a narrow one looks like a double line.
        self.below += [
            f'<rect class="{css}" x="2%" width="96%" y="{top:g}" height="{height:g}" rx="12"/>'
            for css in ("wall", "bore")
        ]

    def _step(self, step: _Arrow | _Gap) -> None:
        if isinstance(step, _Gap):
            self._note(f"⋮ {step.note} ⋮")
            return
        first = _CELLS - len(step.number) - 1 if step.number else 0
        rows = wrapped(step.label, _CELLS, first=first, most=_LABEL_ROWS)
        start = step.who == "C"
        x, anchor = (_CLIENT + 2.5, "start") if start else (_SERVER - 2.5, "end")
        css, sign = MARKS[step.outcome]
        spans = []
        for number, row in enumerate(rows):
            self.y += _ROW
            mark = f'<tspan class="number">{step.number}</tspan> ' if step.number else ""
            mark += f'<tspan class="{css}">{sign}</tspan> ' if sign else ""
            mark = "" if number else mark
            spans.append(
                f'<text x="{x}%" y="{self.y:g}" text-anchor="{anchor}">{mark}{escape(row)}</text>'
            )
        self.y += 9
        y, tip = self.y, _SERVER if start else _CLIENT
        thick = " much" if step.kind == "content" else ""
        head = "M-9-4.5L0 0L-9 4.5z" if start else "M9-4.5L0 0L9 4.5z"
        if thick:
            head = head.replace("9-4.5", "12-8").replace("9 4.5", "12 8")
        towards = "client to server" if start else "server to client"
        self.above.append(
            f'<g class="{step.who}{thick}" role="img" '
            f'aria-label="{escape(f"{towards}: {_signed(step)}")}">{"".join(spans)}'
            f'<line x1="{_CLIENT}%" x2="{_SERVER}%" y1="{y:g}" y2="{y:g}"/>'
            f'<svg x="{tip}%" y="{y:g}" overflow="visible"><path d="{head}"/></svg></g>'
        )
        self.y += 8

    def _note(self, note: str) -> None:
        self.y += 4
        self._words(wrapped(note, _CELLS, most=_LABEL_ROWS), "note")
        self.y += 8

    def _words(self, rows: Sequence[str], css: str) -> None:
        for row in rows:
            self.y += _ROW
            self.above.append(
                f'<text class="{css}" x="50%" y="{self.y:g}" text-anchor="middle">'
                f"{escape(row)}</text>"
            )


def _actor(x: int, name: str) -> str:
    side = name[0]
    return (
        f'<svg x="{x}%" overflow="visible" class="{side}" role="img" aria-label="{name}">'
        f'<rect x="-28" y="4" width="56" height="26" rx="6"/>'
        f'<text y="21" text-anchor="middle">{name}</text></svg>'
    )
