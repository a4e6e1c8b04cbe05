"""A session as an annotated dialogue, at once or line by line."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from labserver.catalog import Meaning, source_url
from labserver.transcript import Session, expect_sessions
from labserver.transcript import numbered as number_labels
from labserver.transcript import rows_of as text_rows
from labserver.views.view import (
    LOCK,
    ShownLine,
    View,
    bounded,
    chip,
    clock,
    count,
    frame,
    label,
    lines_of,
    replies_together,
    sentence,
    shown_lines,
    tls_facts,
    tls_name,
    who,
    with_number,
)

_MOST_ITEMS = 300
"""Items shown of a long dialogue: about two thirds from its beginning, the rest from its end."""
_BODY_LINES = 200
_TEXT_BODY_LINES = 40


def dialogue(session: Session, *, reveal: bool = False, numbers: bool = False) -> View:
    """The dialogue with the meaning of each line.

    Each line unfolds to what it means, where the standard says so, and what else the server could
    have said. Passwords are masked unless `reveal` is set; with `numbers` each line has its
    number, from 1.
    """
    items = _Items(session, reveal, numbers)
    body = frame(
        "dialogue",
        f"{session.protocol} on {session.listener}",
        f"<ol>{items.html()}</ol>",
        facts=items.facts(),
        seconds=session.duration,
    )
    return View("dialogue", body, items.text())


def replay(session: Session, *, numbers: bool = False) -> View:
    """The annotated dialogue, to be played line by line, for pages without a server.

    With `numbers` each line has its number, from 1.

    All of it is there from the start: for print, for a screen reader, and for whoever wants
    nothing to move. A switch (no script) lets the lines appear one after the other.
    """
    expect_sessions("replay()", session)
    items = _Items(session, reveal=False, numbers=numbers)
    body = frame(
        "dialogue",
        f"{session.protocol} on {session.listener}",
        '<label class="play"><input type="checkbox"> Play it line by line</label>'
        f"<ol>{items.html(delays=True)}</ol>",
        facts=items.facts(),
        seconds=session.duration,
    )
    return View("dialogue replay", body, items.text())


class _Items:
    """The dialogue's items: a command, a whole reply, a piece of content."""

    def __init__(self, session: Session, reveal: bool, numbers: bool) -> None:
        self.session, self.numbers = session, numbers
        self.rows = shown_lines(session, reveal=reveal, body_lines=_BODY_LINES)
        self.groups = bounded(
            list(replies_together(self.rows)),
            _MOST_ITEMS,
            lambda n: f"{n:,} commands and replies in the middle aren't shown",
        )

    def facts(self) -> list[str]:
        """The facts beside the heading."""
        facts = [*tls_facts(self.session), count(self.session.round_trips, "round trip")]
        refused = sum(row.meaning.outcome in ("refused", "later") for row in self.rows)
        return [*facts, f"{refused:,} refused"] if refused else facts

    def html(self, *, delays: bool = False) -> str:
        """The list's items."""
        items: list[str] = []
        tls = False
        for group in self.groups:
            if isinstance(group, str):
                items.append(f'<li class="aside">{escape(group)}</li>')
                continue
            if group[0].line.tls and not tls:
                tls = True
                items.append(
                    f'<li class="tls aside">{LOCK} from here on inside {tls_name(self.session)}: '
                    "on the wire only records and their sizes</li>"
                )
            items.append(_item(group, self.numbers))
        if not self.rows:
            items.append('<li class="aside">Nothing was said.</li>')
        items += [f'<li class="aside">{escape(sentence(n))}</li>' for n in self.session.notes]
        if delays:
            items = [
                item.replace("<li", f'<li style="--n:{number}"', 1)
                for number, item in enumerate(items)
            ]
        return "".join(items)

    def text(self) -> str:
        """The same as text."""
        rows = [f"{self.session.protocol} on {self.session.listener}: {', '.join(self.facts())}"]
        tls = False
        for group in self.groups:
            if isinstance(group, str):
                rows.append(f"-- {group} --")
                continue
            if group[0].line.tls and not tls:
                tls = True
                rows.append("-- TLS from here on --")
            for row in lines_of(group):
                rows += [f"   {row}"] if isinstance(row, str) else self._text_rows(row)
            rows += _meaning_rows(group)
        return "\n".join((*rows, *(f"-- {note} --" for note in self.session.notes)))

    def _text_rows(self, row: ShownLine) -> list[str]:
        label = number_labels(len(self.rows) if self.numbers else 0)(row.number)
        return text_rows(row.line, row.shown, body_lines=_TEXT_BODY_LINES, label=label)


def _title(group: Sequence[ShownLine]) -> str:
    return next((row.meaning.title for row in group if row.meaning.title), "")


def _meaning_rows(group: Sequence[ShownLine]) -> list[str]:
    """The meaning of an item as text, indented below it."""
    label, title = group[-1].meaning.label, _title(group)
    said = ": ".join(filter(None, (label, title)))
    return [f"      {said}"] if said else []


def _item(group: list[ShownLine], numbers: bool) -> str:
    row = group[-1]
    line = row.line
    css = line.who + (" tls" if line.tls else "")
    head = f'<li class="{css}">{clock(group[0].line.at)}{who(line.who)}'
    if line.kind == "content":
        return f"{head}{_content(row, numbers)}</li>"
    code = "<br>".join(
        one if isinstance(one, str) else with_number(one, numbers) for one in lines_of(group)
    )
    if line.shortened:
        code += f" … ({line.octets:,} octets)"
    mark = chip(row.meaning.outcome, row.meaning.label)
    return f"{head}<code>{code}</code>{mark}{_explained(group)}</li>"


def _explained(group: list[ShownLine]) -> str:
    """The title, which unfolds to everything known about the line."""
    meaning, title = group[-1].meaning, _title(group)
    if not title:
        return ""
    inside = ""
    if len(group) > 1:
        told = [row for row in group if row.meaning.title and row.meaning.title != title]
        parts = (
            f"<dt>{row}</dt><dd></dd>"
            if isinstance(row, str)
            else f"<dt><code>{escape(row.shown)}</code></dt><dd>{escape(row.meaning.title)}</dd>"
            for row in lines_of(told)
        )
        inside += f"<dl>{''.join(parts)}</dl>" if told else ""
    inside += _details(meaning)
    if not inside:
        return f'<p class="title">{escape(title)}</p>'
    return f"<details><summary>{escape(title)}</summary>{inside}</details>"


def _details(meaning: Meaning) -> str:
    """Detail, alternatives and sources."""
    inside = f"<p>{escape(meaning.detail)}</p>" if meaning.detail else ""
    if meaning.also:
        also = "".join(
            f"<dt><code>{escape(code)}</code></dt><dd>{escape(said)}</dd>"
            for code, said in meaning.also
        )
        inside += f"<p>It could also have said:</p><dl>{also}</dl>"
    if meaning.sources:
        links = (
            f'<a href="{escape(source_url(source))}">{escape(source)}</a>'
            for source in meaning.sources
        )
        inside += f'<p class="sources">{", ".join(links)}</p>'
    return inside


def _content(row: ShownLine, numbers: bool) -> str:
    """A message's octets, folded away; the dots that SMTP and POP3 double are marked."""
    line, meaning = row.line, row.meaning
    lines = escape(row.shown).split("\n")
    shown = [
        f"<mark>.</mark>{text[1:]}" if text.startswith("..") else text
        for text in lines[:_BODY_LINES]
    ]
    notes = []
    if line.text_lines > _BODY_LINES:
        notes.append(f"{line.text_lines - _BODY_LINES:,} more lines not shown.")
    if line.shortened:
        notes.append(f"The transcript keeps the first {len(line.data):,} octets.")
    more = "".join(f'<p class="more">{note}</p>' for note in notes)
    title = f'<p class="title">{escape(meaning.title)}</p>' if meaning.title else ""
    return (
        f'<details class="body"><summary>{label(row.number, numbers)}message content, '
        f"{line.octets:,} octets</summary>"
        f"<pre>{chr(10).join(shown)}</pre>{more}{title}</details>"
    )
