"""A session's way through the states of its protocol, drawn from the catalog's table.

States stand below each other, each with the ways out of it. Every way that leads elsewhere joins
a rail on the left, one for each state that is led to; rails that don't overlap share a track.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import groupby

from labserver.catalog import Catalog, Outcome, Step, Transition, load, path
from labserver.transcript import Session, expect_sessions
from labserver.views.view import View, count, frame, wrapped

_MOST_NUMBERS = 5
"""Step numbers, or ranges of them, written at one way."""
_MOST_STAYS = 4
"""Kinds of steps that change nothing, written at one state."""
_MOST_STEPS = 60
"""Listed: the beginning and, as half as many, the end."""

_TRACK = 12
"""Pixels between two tracks."""
_ROW = 20
_CELLS = 32
"""Characters in a row, for the narrowest screen."""


@dataclass(slots=True)
class _Way:
    """A way out of a state, or back into it, and the steps that took it."""

    label: str
    to: str
    table: tuple[Transition, ...] = ()
    """What the table says of it; nothing where a step changed nothing that it knows."""
    steps: list[int] = field(default_factory=list)
    y: float = 0


@dataclass(slots=True)
class _Place:
    """A state, with its ways out."""

    name: str
    title: str
    ways: list[_Way]
    visited: bool = False
    y: float = 0


def states(session: Session) -> View:
    """The way through the protocol's states, each step with its number.

    All ways of the table are drawn, those that were taken with the numbers of the steps that
    took them. What isn't in the table leaves the state as it is, and is told beside it.
    """
    expect_sessions("states()", session)
    catalog, steps = load(session.protocol), path(session)
    places = _places(catalog, steps)
    reached = sum(place.visited for place in places)
    label = f"{session.protocol} on {session.listener}, through the states"
    facts = [count(len(steps), "step"), f"{reached} of {len(places)} states"]
    told = _steps_taken(steps)
    inside = f'<div class="two">{_StateDrawing(places, steps, label).svg()}{_list(told)}</div>'
    body = frame("states", label, inside, facts=facts)
    return View("states", body, "\n".join([f"{label}: {', '.join(facts)}", *_text(told)]))


# -- what is drawn


def _places(catalog: Catalog, steps: Sequence[Step]) -> list[_Place]:
    places = {
        name: _Place(name, state.title, list(_ways(catalog, name)))
        for name, state in catalog.states.items()
    }
    places[catalog.start].visited = True
    for number, step in enumerate(steps, 1):
        place = places[step.before]
        place.visited = places[step.after].visited = True
        reply = catalog.replies.get(step.reply)
        _taken(place, step, reply.outcome if reply else "").steps.append(number)
    for place in places.values():
        stays = [way for way in place.ways if not way.table]
        for left_out in stays[_MOST_STAYS:]:
            place.ways.remove(left_out)
        if len(stays) > _MOST_STAYS:
            others = sorted(n for way in stays[_MOST_STAYS:] for n in way.steps)
            place.ways.append(_Way("other things", place.name, steps=others))
    return list(places.values())


def _ways(catalog: Catalog, state: str) -> Iterator[_Way]:
    """What the table says of a state: one way for each state it leads to."""
    for to in catalog.states:
        some = [way for way in catalog.transitions if (way.state, way.to) == (state, to)]
        if some:
            yield _Way(", ".join(_named(some)), to, tuple(some))


def _named(ways: Sequence[Transition]) -> Iterator[str]:
    """Each command once, with its outcome where that isn't the usual one."""
    for command in dict.fromkeys(way.command for way in ways):
        outcomes = [way.outcome for way in ways if way.command == command]
        name = "a" if command == "*" else command
        usual = len(outcomes) > 1 or outcomes[0] in ("done", "go on")
        yield name if usual else f"{name} {outcomes[0]}"


def _taken(place: _Place, step: Step, outcome: Outcome) -> _Way:
    """The way that a step took; a new one where it changed nothing that the table knows."""
    for way in place.ways:
        if way.to == step.after and any(_applies(row, step, outcome) for row in way.table):
            return way
    label = " ".join((step.command or "what is no command", step.reply)).strip()
    for way in place.ways:
        if not way.table and way.label == label:
            return way
    place.ways.append(_Way(label, step.after))
    return place.ways[-1]


def _applies(row: Transition, step: Step, outcome: Outcome) -> bool:
    if row.command == "*":
        return row.outcome == step.reply
    return row.command == step.command and row.outcome in (step.reply, outcome)


def _numbers(steps: Iterable[int]) -> str:
    """Step numbers, neighbours as ranges: `4, 7–9`."""
    ranges = []
    for _, some in groupby(enumerate(steps), key=lambda pair: pair[1] - pair[0]):
        run = [number for _, number in some]
        ranges.append(f"{run[0]}–{run[-1]}" if len(run) > 1 else f"{run[0]}")
    if len(ranges) > _MOST_NUMBERS:
        ranges = [*ranges[: _MOST_NUMBERS - 1], "…", ranges[-1]]
    return ", ".join(ranges).replace(", …, ", " … ")


# -- as text, and as a list


def _steps_taken(steps: Sequence[Step]) -> list[tuple[str, str]]:
    """Each step, or several alike, with its numbers."""
    alike = groupby(
        enumerate(steps, 1),
        key=lambda pair: (pair[1].before, pair[1].command, pair[1].reply, pair[1].after),
    )
    rows = []
    for (before, command, reply, after), some in alike:
        numbers = _numbers(number for number, _ in some)
        change = f"{before} → {after}" if before != after else f"stays in {before}"
        said = command or "what is no command"
        rows.append(
            (numbers, f"{said}, answered {reply}: {change}" if reply else f"{said}: {change}")
        )
    if len(rows) > _MOST_STEPS:
        last = _MOST_STEPS // 3
        left_out = f"{len(rows) - 3 * last:,} more in the middle"
        rows = [*rows[: 2 * last], ("…", left_out), *rows[-last:]]
    return rows


def _text(told: Sequence[tuple[str, str]]) -> Iterator[str]:
    width = max((len(numbers) for numbers, _ in told), default=0)
    for numbers, said in told:
        yield f"{numbers:>{width}}  {said}"


def _list(told: Sequence[tuple[str, str]]) -> str:
    rows = "".join(f"<dt>{escape(numbers)}</dt><dd>{escape(said)}</dd>" for numbers, said in told)
    if not rows:
        return '<p class="more">Nothing was said.</p>'
    return f"<dl>{rows}</dl>"


# -- as a drawing


class _StateDrawing:
    """The SVG: rails at the left, at fixed places; text at their right, as wide as it gets."""

    def __init__(self, places: list[_Place], steps: Sequence[Step], label: str) -> None:
        self.places, self.label = places, label
        self.last = steps[-1].after if steps else ""
        self.parts: list[str] = []
        self.y = 10.0
        self.tracks: dict[str, int] = {}

    def svg(self) -> str:
        self._set_heights()
        self._set_tracks()
        self.left = (max(self.tracks.values(), default=0) + 1) * _TRACK + 14
        rails = "".join(self._rails(taken=False)) + "".join(self._rails(taken=True))
        places = "".join(map(self._place, self.places))
        return (
            f'<svg role="group" width="100%" height="{self.y:g}">'
            f"<title>{escape(self.label)}</title>"
            "<desc>Each state with the ways that lead out of it. The way that was taken follows "
            f"as a list.</desc>{rails}{places}</svg>"
        )

    def _set_heights(self) -> None:
        for place in self.places:
            place.y = self.y + 14
            self.y += 36
            for way in place.ways:
                way.y = self.y + 8
                self.y += _ROW * len(_rows(way, place))
            self.y += 14

    def _set_tracks(self) -> None:
        """Short rails next to the states; a rail takes the nearest track that is free."""
        spans = {
            place.name: (min(ys), max(ys))
            for place in self.places
            if (ys := [way.y for way in self._into(place)]) and (ys := [*ys, place.y])
        }
        used: list[list[tuple[float, float]]] = []
        for name, span in sorted(spans.items(), key=lambda item: item[1][1] - item[1][0]):
            free = (
                number
                for number, others in enumerate(used)
                if all(span[1] < top - 6 or span[0] > end + 6 for top, end in others)
            )
            track = next(free, len(used))
            if track == len(used):
                used.append([])
            used[track].append(span)
            self.tracks[name] = track

    def _into(self, place: _Place) -> Iterator[_Way]:
        for other in self.places:
            if other is not place:
                yield from (way for way in other.ways if way.to == place.name)

    def _x(self, name: str) -> float:
        return self.left - 14 - self.tracks[name] * _TRACK

    def _rails(self, *, taken: bool) -> Iterator[str]:
        for place in self.places:
            for way in self._into(place):
                if bool(way.steps) != taken:
                    continue
                x, left = self._x(place.name), self.left
                curve = 5 if place.y > way.y else -5
                yield (
                    f'<path class="{"taken" if taken else "way"}" d="M{left - 2:g} {way.y:g}'
                    f"H{x + 5:g}Q{x:g} {way.y:g} {x:g} {way.y + curve:g}V{place.y - curve:g}"
                    f'Q{x:g} {place.y:g} {x + 5:g} {place.y:g}H{left - 1:g}"/>'
                )
            if any(bool(way.steps) == taken for way in self._into(place)):
                yield (
                    f'<path class="head{" on" if taken else ""}" '
                    f'd="M{left:g} {place.y:g}l-8-4.5v9z"/>'
                )

    def _place(self, place: _Place) -> str:
        width = sum(10.6 if letter.isupper() else 8 for letter in place.name) + 22
        css = "place visited" if place.visited else "place"
        notes = ["the start"] if place is self.places[0] else []
        notes += ["here it ended"] if place.name == self.last else []
        note = (
            f'<text class="note" x="{self.left + width + 10:g}" y="{place.y + 4:g}">'
            f"{', '.join(notes)}</text>"
        )
        return (
            f'<g class="{css}"><title>{escape(place.title)}</title>'
            f'<rect x="{self.left:g}" y="{place.y - 14:g}" width="{width:g}" height="28" rx="8"/>'
            f'<text x="{self.left + width / 2:g}" y="{place.y + 5:g}" text-anchor="middle">'
            f"{escape(place.name)}</text>{note if notes else ''}</g>"
            f"{''.join(self._way(way, place) for way in place.ways)}"
        )

    def _way(self, way: _Way, place: _Place) -> str:
        css = "steps" if way.steps else "idle"
        x = self.left + 4
        badge = ""
        if way.steps:
            numbers = _numbers(way.steps)
            width = 7.4 * len(numbers) + 12
            badge = (
                f'<rect x="{x:g}" y="{way.y - 8:g}" width="{width:g}" height="16" rx="8"/>'
                f'<text class="n" x="{x + width / 2:g}" y="{way.y + 4:g}" text-anchor="middle">'
                f"{numbers}</text>"
            )
        rows = _rows(way, place)
        texts = []
        for number, row in enumerate(rows):
            indent = width + 8 if badge and not number else 0
            texts.append(
                f'<text x="{x + indent:g}" y="{way.y + 4 + number * _ROW:g}">{escape(row)}</text>'
            )
        return f'<g class="{css}">{badge}{"".join(texts)}</g>'


def _rows(way: _Way, place: _Place) -> list[str]:
    ends = "stays here" if way.to == place.name else f"→ {way.to}"
    first = _CELLS - (len(_numbers(way.steps)) + 3 if way.steps else 0)
    return wrapped(f"{way.label} {ends}", _CELLS, first=max(first, 8))
