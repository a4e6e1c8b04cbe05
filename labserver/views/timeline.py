"""Where the time and the octets of sessions went, side by side.

matplotlib draws the bars; only what stands here of its SVG gets into the view: paths and text,
with the colours of the page around them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Literal
from xml.etree import ElementTree

from labserver import normal_form
from labserver.transcript import Session
from labserver.views.view import View, clock, frame, tls_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_SESSIONS = 6
_WIDE, _LEFT, _BARS_WIDE = 360, 88, 204
"""Pixels: a drawing, what is left of its bars, the bars; their numbers are at their right."""
_LANE, _HEAD, _FOOT = 22, 26, 26
"""Pixels: the height of a bar's lane, of a heading, of the scale."""

_COLOURS = {
    "#000001": "ink",
    "#000002": "soft",
    "#000003": "line",
    "#000004": "edge",
    "#000005": "c",
    "#000006": "s",
}
"""Stand-ins that are drawn with, and the classes that the page colours."""
_INK, _SOFT, _LINE, _TLS, _CLIENT, _SERVER = _COLOURS


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
    html = frame("timeline", label, _drawings(measured) + table)
    return View(html, _text(label, measured))


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
        rows.append(row(name, (clock(_ms(one.seconds(part))) for one in measured)))
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
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return '<p class="more">The bars need matplotlib, which isn\'t installed here.</p>'
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


Align = Literal["left", "right"]
_Spans = Sequence[tuple[float, float]]
_Group = tuple[str, Sequence[tuple[str, _Spans, str]]]
"""A session's name, and for each bar its name, its pieces and what is written beside it."""

_BARS = {
    "handshake": _TLS,
    "client": _CLIENT,
    "server": _SERVER,
    "commands": _CLIENT,
    "replies": _SERVER,
    "messages": _SOFT,
    "TLS": _TLS,
}


def _drawn(title: str, groups: Sequence[_Group], scale: float) -> str:
    """One drawing: for each session its bars, each in a lane of its own with its number."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    height = _HEAD + sum(_HEAD + _LANE * len(bars) for _, bars in groups) + _FOOT
    ends = [start + length for _, bars in groups for _, spans, _ in bars for start, length in spans]
    longest = (max(ends, default=0) * scale) or 1
    # One point of the figure is one pixel of the drawing.
    figure = Figure(figsize=(_WIDE / 72, height / 72), dpi=72)
    place = (_LEFT / _WIDE, _FOOT / height, _BARS_WIDE / _WIDE, 1 - (_FOOT + _HEAD) / height)
    axes = figure.add_axes(place)
    axes.set_xlim(0, longest)
    axes.set_ylim(height - _FOOT - _HEAD, 0)
    y = 0
    for name, bars in groups:
        _write(axes, 6 - _LEFT, y + _HEAD / 2 + 2, name, _INK)
        y += _HEAD
        for part, spans, said in bars:
            middle = y + _LANE / 2
            _write(axes, -8, middle, part, _SOFT, "right")
            _write(axes, _WIDE - _LEFT - 4, middle, said, _INK, "right")
            for start, length in _merged(spans, longest / scale):
                size = (length * scale, 12)
                axes.add_patch(Rectangle((start * scale, middle - 6), *size, color=_BARS[part]))
            y += _LANE
    _ticks(axes)
    figure.text(6 / _WIDE, 1 - 16 / height, title, color=_SOFT)
    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "lab", "font.size": 12}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return _cleaned(out.getvalue(), title, height)


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


def _write(axes: Axes, x: float, y: float, text: str, colour: str, align: Align = "left") -> None:
    axes.text(
        x / _BARS_WIDE, y, text, color=colour, ha=align, va="center",
        transform=axes.get_yaxis_transform(),
    )  # fmt: skip


def _ticks(axes: Axes) -> None:
    axes.set_frame_on(False)
    axes.set_yticks([])
    axes.locator_params(axis="x", nbins=4)
    axes.tick_params(axis="x", length=0, colors=_SOFT, labelsize=11)
    axes.grid(axis="x", color=_LINE, clip_on=False)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.4g}")
    axes.set_axisbelow(True)


def _cleaned(svg: str, title: str, height: int) -> str:
    """Only the paths and the text of matplotlib's SVG, with the page's own colours."""
    parts = []
    for element in ElementTree.fromstring(svg).iter():
        tag = element.tag.rpartition("}")[2]
        style = dict(re.findall(r"([a-z-]+): ([^;]+)", element.get("style", "")))
        if tag == "path" and element.get("d"):
            fill, stroke = style.get("fill", "none"), style.get("stroke", "none")
            css = _COLOURS.get(fill if fill in _COLOURS else stroke)
            if css:
                kind = "bar" if fill in _COLOURS else "rule"
                path = re.sub(r"\s+", " ", element.get("d", "")).strip()
                parts.append(f'<path class="{kind} {css}" d="{escape(path)}"/>')
        elif tag == "text":
            css = _COLOURS.get(style.get("fill", ""), "ink")
            x, y = element.get("x", "0"), element.get("y", "0")
            anchor = style.get("text-anchor", "start")
            parts.append(
                f'<text class="{css}" x="{x}" y="{y}" text-anchor="{anchor}">'
                f"{escape(element.text or '')}</text>"
            )
    return (
        f'<svg role="group" viewBox="0 0 {_WIDE} {height}"><title>{escape(title)}</title>'
        f"<desc>The numbers stand in the table below.</desc>{''.join(parts)}</svg>"
    )
