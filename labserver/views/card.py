"""The frame that everything a reader touches stands in: state, questions, checks, progress.

It is that of the views; what theirs lacks is in `touch.css`. All text that isn't markup of our own
is escaped by whoever hands it over as a body.
"""

from __future__ import annotations

from html import escape

from labserver.views.view import frame, styles


def card(title: str, body: str, aside: str = "") -> str:
    """A titled frame around HTML; `title` and `aside` are plain text."""
    return styles("touch") + frame("touch", title, body, facts=[aside] if aside else [])


def note(sentence: str) -> str:
    """One plain sentence in a frame of its own, without its style sheet `touch`."""
    return (
        f'<section class="ml-view ml-touch ml-note" role="group" '
        f'aria-label="Note"><p>{escape(sentence)}</p></section>'
    )
