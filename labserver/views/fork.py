"""A fork: where it parts, and both sessions beside each other."""

from __future__ import annotations

from html import escape

from labserver.forking import Fork
from labserver.views.compare import compare
from labserver.views.view import View, frame


def fork(shown: Fork, *, numbers: bool = False) -> View:
    """The session as it was (A), and as it would have been (B)."""
    if shown.parted_at is None:
        where = "Said again with that line, and nothing differs."
    else:
        where = f"Line {shown.parted_at:,} is the first that differs."
    if not shown.said:
        where += " The changed line could not be said there."
    head = frame("fork", "Said again with one line changed", f'<p class="more">{escape(where)}</p>')
    return View(
        "fork compare",
        head + compare(shown.original, shown.changed, numbers=numbers).body,
        shown.text(numbers=numbers),
    )
