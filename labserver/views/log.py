"""A log from elsewhere: its sessions like the lab's own, and what stood around them."""

from __future__ import annotations

from html import escape

from labserver.logs import Log, Unread
from labserver.transcript import readable
from labserver.views.dialogue import dialogue
from labserver.views.view import View, bounded, count, frame

_SESSIONS = 20
_ROWS = 20
_RUNS = 200
_WIDTH = 2000
"""Characters of a row that are shown."""


def log(shown: Log, *, numbers: bool = False) -> View:
    """What `read_log` found: the rest named and folded away, then each dialogue explained."""
    many = len(shown.sessions)
    inside = _unread(shown.unread)
    if many > _SESSIONS:
        inside += f'<p class="more">Only the first {_SESSIONS} dialogues are shown.</p>'
    head = frame("log", f"Read from {shown.kind}", inside, facts=[count(many, "dialogue")])
    sessions = (dialogue(session, numbers=numbers).body for session in shown.sessions[:_SESSIONS])
    return View("log dialogue", head + "".join(sessions), str(shown))


def _unread(runs: tuple[Unread, ...]) -> str:
    if not runs:
        return '<p class="more">All of it is dialogue.</p>'
    items = [_item(run) for run in runs]
    shown = bounded(items, _RUNS, lambda left: f"<li>{left:,} more such places not shown</li>")
    places = count(len(runs), "place")
    return (
        f'<details class="more"><summary>Not part of a dialogue: {places} in the log</summary>'
        f"<ul>{''.join(shown)}</ul></details>"
    )


def _item(run: Unread) -> str:
    rows = run.text.split("\n")
    shown = [escape(_bounded(row)) for row in rows[:_ROWS]]
    if len(rows) > _ROWS:
        shown.append(f"… {len(rows) - _ROWS:,} more lines")
    return f"<li>line {run.line:,}: {escape(run.why)}<pre>{chr(10).join(shown)}</pre></li>"


def _bounded(row: str) -> str:
    shown = readable(row[:_WIDTH].encode("utf-8", "backslashreplace"))
    left_out = len(row) - _WIDTH
    return f"{shown}… {left_out:,} more characters" if left_out > 0 else shown
