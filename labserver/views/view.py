"""What a view is, and the parts that the views are made of.

A view is self-contained HTML: no script, nothing fetched; readable without colour and by a screen
reader; light and dark follow the page it stands in. All that came over the wire is escaped. A view
shows what was said, as HTML and as text; where outputs are stored, both are in normal form
(`normal_form.py`). Each line is shown up to `LONGEST` characters, and says what is left out.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from typing import TypeVar

from labserver import normal_form
from labserver.catalog import Meaning, Outcome, explain
from labserver.transcript import Line, Session, Side
from labserver.turns import goes_on
from labserver.views import palette

T = TypeVar("T")
U = TypeVar("U")

KINDS = (
    *("dialogue", "sequence", "states", "timeline", "wire", "compare", "message", "mailbox"),
    *("dialogue replay", "log dialogue", "fork compare", "touch", "dialogue touch", "live"),
)
"""All kinds of views."""
SHEETS = tuple(dict.fromkeys(("view", *" ".join(KINDS).split())))
"""The style sheets of all kinds, in `data/`; the first is common to all of them."""
LONGEST = 1000
"""Characters of a line that a view shows, a longest line of text (RFC 5321 section 4.5.3.1.6)."""
MOST_REPLY_LINES = 60
"""Lines of one reply that a view shows."""


@dataclass(frozen=True, slots=True, repr=False)
class View:
    """Something to look at: a notebook shows its HTML, `print` its text."""

    kind: str
    """The names of its style sheets, with spaces between them: `dialogue`, `fork compare`."""
    body: str
    """HTML for a page that has these style sheets."""
    text: str

    @property
    def html(self) -> str:
        """Stands alone in any page: the body after its style sheets."""
        return styles(self.kind) + self.body

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return self.html


@dataclass(frozen=True, slots=True)
class ShownLine:
    """A line of a session with all that is shown of it."""

    number: int
    """Counts the session's lines, from 1; each line of a multi-line reply has its own."""
    line: Line
    shown: str
    """What was said, or its normal form where outputs are stored."""
    meaning: Meaning


SIDES: dict[Side, str] = {"C": "client", "S": "server"}
MARKS: dict[Outcome, tuple[str, str]] = {
    "done": ("ok", "✓"),
    "go on": ("go", "→"),
    "later": ("later", "↻"),
    "refused": ("no", "✕"),
    "": ("", ""),
}
"""For each outcome its class and its sign."""

LOCK = (
    '<svg class="lock" width="11" height="13" viewBox="0 0 11 13" aria-hidden="true">'
    '<path d="M2.5 6V4a3 3 0 0 1 6 0v2" fill="none" stroke="currentColor" stroke-width="1.6"/>'
    '<rect x="1" y="6" width="9" height="6.2" rx="1.2" fill="currentColor"/></svg>'
)


def shown_lines(
    session: Session, *, reveal: bool = False, body_lines: int = 1, longest: int = LONGEST
) -> list[ShownLine]:
    """Each line of the session with what is shown of it and its meaning.

    Of message content only so many lines are shown, of each line only so many characters.
    """
    shown = session.texts(reveal=reveal, body_lines=body_lines, longest=longest)
    lines = enumerate(zip(session.lines, shown, explain(session), strict=True), 1)
    return [ShownLine(number, *parts) for number, parts in lines]


def replies_together(rows: Iterable[ShownLine]) -> Iterator[list[ShownLine]]:
    """A multi-line reply (RFC 5321 section 4.2.1) is one item."""
    group: list[ShownLine] = []
    for row in rows:
        group.append(row)
        line = row.line
        if line.kind == "reply" and goes_on(line.data):
            continue
        yield group
        group = []
    if group:
        yield group


def lines_of(group: Iterable[ShownLine]) -> list[ShownLine | str]:
    """The lines of a reply; of a very long one the beginning, what is left out, and the end."""
    return bounded(
        [*group], MOST_REPLY_LINES, lambda n: f"[{n:,} more lines of this reply not shown]"
    )


def tls_facts(session: Session) -> list[str]:
    """Where TLS begins, as one fact; none without TLS."""
    first = next((i for i, line in enumerate(session.lines, 1) if line.tls), 0)
    if not first:
        return []
    return [f"{tls_name(session)} from {'the start' if first == 1 else f'line {first:,}'}"]


def tls_name(session: Session) -> str:
    """`TLS 1.3`; just `TLS` where the version isn't known."""
    return session.tls.replace("TLSv", "TLS ") or "TLS"


# -- parts


def frame(
    kind: str,
    label: str,
    inside: str,
    *,
    facts: Iterable[str] = (),
    seconds: float | None = None,
) -> str:
    """The body of a view: its heading with facts beside it, and what is inside.

    Facts are text; inside is HTML; `seconds` is how long it took.
    """
    spans = "".join(f"<span>{escape(fact)}</span>" for fact in facts)
    took = "" if seconds is None else clock(seconds)
    return (
        f'<section class="ml-view ml-{kind}" role="group" aria-label="{escape(label)}">'
        f"<header><b>{escape(label)}</b>{spans}{took}</header>{inside}</section>"
    )


@cache
def styles(kind: str) -> str:
    """The style sheets of a kind of view, after the colours that they use, as an element."""
    css = "".join(map(sheet, ("view", *kind.split())))
    return f"<style>{_squeezed(palette.rule('.ml-view', css) + css)}</style>"


@cache
def sheet(name: str) -> str:
    """One style sheet."""
    return files("labserver").joinpath("data", f"{name}.css").read_text(encoding="utf-8").strip()


def _squeezed(css: str) -> str:
    """The same style sheet in fewer characters, for it is stored with every output.

    Spaces stay where they may mean something: within selectors, and around a minus.
    """
    return re.sub(r"\s*([{};])\s*|([:,])\s+", r"\1\2", re.sub(r"\s+", " ", css)).replace(";}", "}")


def varying(text: str) -> str:
    """Text that may hold dates and the like, as HTML."""
    return escape(normal_form.shown(text))


def clock(seconds: float, text: str = "") -> str:
    """A time in seconds, shown as `text` if given; nothing where outputs are stored."""
    if normal_form.wanted():
        return ""
    return f'<time datetime="PT{seconds:.3f}S">{escape(text or milliseconds(seconds))}</time>'


def with_number(row: ShownLine, numbers: bool) -> str:
    """The shown text of a line as HTML, with its number before it if `numbers` is set."""
    return f"{label(row.number, numbers)}{escape(row.shown) or '&nbsp;'}"


def label(number: int, numbers: bool) -> str:
    """A line's number as HTML; empty unless `numbers` is set."""
    return f'<span class="number">{number:,}</span> ' if numbers else ""


def who(side: Side) -> str:
    """`C` or `S` as HTML; a screen reader says `client` or `server`."""
    name = SIDES[side]
    return f'<span class="who" role="img" aria-label="{name}" title="{name}">{side}</span>'


def chip(outcome: Outcome, label: str) -> str:
    """The outcome of a reply: a sign and a word, also in colour."""
    if not label:
        return ""
    css, sign = MARKS[outcome]
    mark = f'<span aria-hidden="true">{sign}</span> ' if sign else ""
    return f'<span class="chip {css}">{mark}{escape(label)}</span>'


def count(number: int, thing: str) -> str:
    """`1 line`, `2,000 lines`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def sentence(note: str) -> str:
    """A note as a sentence, with a capital and a full stop."""
    return f"{note[:1].upper()}{note[1:]}."


def milliseconds(seconds: float) -> str:
    """A time in the unit that reads best."""
    return f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds * 1000:,.0f} ms"


def cut(text: str, most: int = LONGEST) -> str:
    """Text of at most so many characters; a cut text says how many are left out."""
    left = len(text) - most
    return text if left <= 0 else f"{text[:most]} … {count(left, 'character')} more"


def bounded(items: Sequence[T], most: int, gap: Callable[[int], U]) -> list[T | U]:
    """At most so many items: the beginning, a note of how many are left out, the end."""
    left_out = len(items) - most
    if left_out <= 0:
        return [*items]
    last = most // 3
    return [*items[: most - last], gap(left_out), *items[-last:]]


# -- text in a drawing, which doesn't wrap by itself


def wrapped(text: str, cells: int, *, first: int = 0, most: int = 0) -> list[str]:
    """Text in rows of at most so many cells, broken at spaces where that is possible.

    The first row may have fewer (`first`); there are at most so many rows (`most`), if that is
    set.
    """
    rows = [""]
    for word in text.split(" "):
        room = first if first and len(rows) == 1 else cells
        while _cells_of(f"{rows[-1]} {word}".strip()) > room:
            if not rows[-1] and _cells_of(word) > cells:
                rows[-1] = _first_cells(word, room)
                word = word[len(rows[-1]) :]
            elif not rows[-1] and len(rows) > 1:
                break
            rows.append("")
            room = cells
        rows[-1] = f"{rows[-1]} {word}".strip()
    rows = [row for number, row in enumerate(rows) if row or not number]
    if most and len(rows) > most:
        rows = [*rows[: most - 1], shortened(" ".join(rows[most - 1 :]), cells)]
    return rows


def shortened(text: str, cells: int) -> str:
    """Text of at most so many cells."""
    return text if _cells_of(text) <= cells else f"{_first_cells(text, cells - 1)}…"


def _cells_of(text: str) -> int:
    """Cells of a fixed-width font: two for a wide character."""
    return sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def _first_cells(text: str, most: int) -> str:
    used = 0
    for end, character in enumerate(text):
        used += _cells_of(character)
        if used > most:
            return text[: max(end, 1)]
    return text
