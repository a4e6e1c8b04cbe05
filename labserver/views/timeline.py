"""Where the time and the octets of sessions went, side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from labserver import normal_form
from labserver.transcript import Session
from labserver.views.view import View, clock, frame, tls_name

_MOST_SESSIONS = 6
_WIDE, _LEFT, _BARS_WIDE = 360, 88, 204
"""Pixels: a drawing, what is left of its bars, the bars; their numbers are at their right."""
_LANE, _HEAD, _FOOT = 22, 26, 26
"""Pixels: the height of a bar's lane, of a heading, of the scale."""


@dataclass(frozen=True, slots=True)
class _Measured:
    """What a session took."""

    name: str
    tls: str
    round_trips: int
    spans: Mapping[str, tuple[tuple[float, float], ...]]
    """For `handshake`, `client` and `server` when it was waited for: start and length."""
    octets: Mapping[str, int]
    """For `commands`, `replies`, `messages` and `TLS`, how many."""

    def seconds(self, part: str) -> float:
        return sum(length for _, length in self.spans[part])


def timeline(*sessions: Session) -> View:
    """Where the time and the octets of up to 6 sessions went, beside each other.

    Time is put down to whoever was waited for: the TLS handshake, the client, the server. Octets
    are those on the wire: commands, replies, messages, and what TLS adds to them. Raises
    ValueError, one sentence, for no session or too many, and TypeError for what is no session.
    """
    if not all(isinstance(session, Session) for session in sessions):
        raise TypeError("timeline() takes sessions of a lab, one after the other.")
    if not 1 <= len(sessions) <= _MOST_SESSIONS:
        raise ValueError(
            f"timeline() takes 1 to {_MOST_SESSIONS} sessions, not {len(sessions)}; "
            "pick those that you want to see beside each other."
        )
    measured = [_measured(session, i, len(sessions)) for i, session in enumerate(sessions)]
    label = "Where the time and the octets went"
    table = _table(measured)
    body = frame("timeline", label, _drawings(measured) + table)
    return View("timeline", body, _text(label, measured))


# -- measuring


def _measured(session: Session, index: int, of: int) -> _Measured:
    letter = f"{'ABCDEF'[index]}: " if of > 1 else ""
    said = {"commands": 0, "replies": 0, "messages": 0}
    for line in session.lines:
        speaker = "commands" if line.who == "C" else "replies"
        said["messages" if line.kind == "content" else speaker] += line.octets
    extra = session.octets() - sum(said.values())
    under_tls = any(record.type != "plain" for record in session.records)
    return _Measured(
        name=f"{letter}{session.protocol} on {session.listener}",
        tls=tls_name(session) if under_tls else "none",
        round_trips=session.round_trips,
        spans=_spans(session),
        octets={**said, "TLS": max(0, extra) if under_tls else 0},
    )


def _spans(session: Session) -> dict[str, tuple[tuple[float, float], ...]]:
    """When who was waited for: the time before a record is its sender's."""
    found: dict[str, list[tuple[float, float]]] = {"handshake": [], "client": [], "server": []}
    begins, ends = _handshake(session)
    times = [(0.0, ""), *((record.at, record.who) for record in session.records)]
    for index, ((start, _), (end, who)) in enumerate(pairwise(times)):
        part = "client" if who == "C" else "server"
        if begins <= index < ends:
            part = "handshake"
        if end > start:
            found[part].append((start, end - start))
    return {part: tuple(spans) for part, spans in found.items()}


def _handshake(session: Session) -> tuple[int, int]:
    """First and last record (exclusive) of the TLS handshake."""
    kinds = [record.type for record in session.records]
    begins = next((i for i, kind in enumerate(kinds) if kind != "plain"), len(kinds))
    first_line = next((line.at for line in session.lines if line.tls), None)
    ends = begins
    while ends < len(kinds) and (first_line is None or session.records[ends].at < first_line):
        ends += 1
    return begins, ends


# -- as text, and as a table

_WAITED = {
    "handshake": "TLS handshake",
    "client": "waiting for the client",
    "server": "waiting for the server",
}
"""For each part of the time its name."""


def _text(label: str, measured: Sequence[_Measured]) -> str:
    rows = [
        ("", [one.name for one in measured]),
        ("round trips", [f"{one.round_trips:,}" for one in measured]),
        ("TLS", [one.tls for one in measured]),
    ]
    for part in ("commands", "replies", "messages"):
        rows.append((f"octets of {part}", [f"{one.octets[part]:,}" for one in measured]))
    if not normal_form.wanted():
        rows.append(("octets that TLS adds", [f"{one.octets['TLS']:,}" for one in measured]))
        for part, name in _WAITED.items():
            rows.append((name, [_ms(one.seconds(part)) for one in measured]))
    first = max(len(name) for name, _ in rows)
    widths = [max(len(cells[i]) for _, cells in rows) for i in range(len(measured))]
    lines = []
    for name, cells in rows:
        parts = [f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)]
        lines.append("   ".join([f"{name:<{first}}", *parts]))
    return "\n".join((label, *lines))


def _table(measured: Sequence[_Measured]) -> str:
    def row(name: str, cells: Iterator[str]) -> str:
        return (
            f'<tr><th scope="row">{name}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        )

    rows = [row("round trips", (f"{one.round_trips:,}" for one in measured))]
    for part, name in _WAITED.items():
        waited = [one.seconds(part) for one in measured]
        rows.append(row(name, (clock(seconds, _ms(seconds)) for seconds in waited)))
    for part in ("commands", "replies", "messages"):
        rows.append(row(f"octets of {part}", (f"{one.octets[part]:,}" for one in measured)))
    # A certificate's and a ticket's length differ from run to run.
    tls = (normal_form.shown(f"{one.octets['TLS']:,}", "…") for one in measured)
    rows.append(row("octets that TLS adds", tls))
    names = "".join(f'<th scope="col">{escape(one.name)}</th>' for one in measured)
    return (
        '<div class="wide" tabindex="0" role="group" aria-label="All numbers"><table><thead><tr>'
        f"<td></td>{names}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.1f} ms"


# -- as drawings


def _drawings(measured: Sequence[_Measured]) -> str:
    times = [
        (one.name, [(part, one.spans[part], _ms(one.seconds(part))) for part in one.spans])
        for one in measured
    ]
    octets = [
        (
            one.name,
            [(part, ((0.0, number),), f"{number:,}") for part, number in one.octets.items()],
        )
        for one in measured
    ]
    drawn = '<p class="more">No time passed that could be drawn.</p>'
    if any(spans for one in measured for spans in one.spans.values()):
        drawn = _drawn("Time, in milliseconds: who was waited for", times, 1000)
    drawn += _drawn("Octets on the wire", octets, 1)
    return f'<div class="drawings">{drawn}</div>'


_Spans = Sequence[tuple[float, float]]
_Group = tuple[str, Sequence[tuple[str, _Spans, str]]]
"""A session's name, and for each bar its name, its pieces and what is written beside it."""

_BARS = {
    "handshake": "edge",
    "client": "c",
    "server": "s",
    "commands": "c",
    "replies": "s",
    "messages": "soft",
    "TLS": "edge",
}
"""For each bar its colour, a name of the palette."""


def _drawn(title: str, groups: Sequence[_Group], scale: float) -> str:
    """One drawing: for each session its bars, each in a lane of its own with its number."""
    ends = [start + length for _, bars in groups for _, spans, _ in bars for start, length in spans]
    longest = max(ends, default=0) or 1
    pixels = _BARS_WIDE / longest
    bottom = _HEAD + sum(_HEAD + _LANE * len(bars) for _, bars in groups)
    parts = [_written(6, 16, title, "soft")]
    for tick in _ticks(longest * scale):
        x = _LEFT + tick / scale * pixels
        parts.append(f'<line class="rule" x1="{x:.1f}" x2="{x:.1f}" y1="{_HEAD}" y2="{bottom}"/>')
        parts.append(_written(x, bottom + 15, f"{tick:,.4g}", "soft", "middle"))
    y = _HEAD
    for name, bars in groups:
        parts.append(_written(6, y + 19, name))
        y += _HEAD
        for part, spans, said in bars:
            parts.append(_written(_LEFT - 8, y + 15, part, "soft", "end"))
            parts.append(_written(_WIDE - 4, y + 15, said, "ink", "end"))
            parts += [
                f'<rect class="bar {_BARS[part]}" x="{_LEFT + start * pixels:.1f}" y="{y + 5}" '
                f'width="{length * pixels:.1f}" height="12"/>'
                for start, length in _merged(spans, longest)
            ]
            y += _LANE
    return (
        f'<svg role="group" viewBox="0 0 {_WIDE} {bottom + _FOOT}"><title>{escape(title)}</title>'
        f"<desc>The numbers stand in the table below.</desc>{''.join(parts)}</svg>"
    )


def _merged(spans: _Spans, longest: float) -> list[tuple[float, float]]:
    """Spans as they can be seen: none too short for it, and those together that nearly touch."""
    least = longest / _BARS_WIDE
    out: list[tuple[float, float]] = []
    for start, length in spans:
        if not length:
            continue
        if out and start - sum(out[-1]) < least:
            out[-1] = (out[-1][0], max(start + length - out[-1][0], out[-1][1]))
        else:
            out.append((start, max(length, least)))
    return out


def _ticks(longest: float) -> list[float]:
    """Round numbers from 0 on, at most five, none beyond the longest bar."""
    power: float = 10 ** math.floor(math.log10(longest / 4))
    step = next(power * some for some in (1, 2, 2.5, 5, 10) if power * some * 4 >= longest)
    return [step * number for number in range(int(longest / step) + 1)]


def _written(x: float, y: float, text: str, css: str = "ink", anchor: str = "start") -> str:
    return f'<text class="{css}" x="{x:.1f}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
