"""A session, a message, a mailbox as self-contained HTML.

No script, nothing fetched; readable without colour and by a screen reader; light and dark follow
the page it stands in. All that came over the wire is escaped. What differs from run to run stands
in `<time>` elements and in `<var data-stable="…">`, so that stored outputs can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files

from labserver.catalog import Meaning, explain, source_url
from labserver.message import Mailbox, Message
from labserver.transcript import Line, Piece, Session, machine_made, readable

_BODY_LINES = 200
_MARKS = {
    "done": ("ok", "✓"),
    "go on": ("go", "→"),
    "later": ("later", "↻"),
    "refused": ("no", "✕"),
}
_SIDES = {"C": "client", "S": "server"}
_LOCK = (
    '<svg width="11" height="13" viewBox="0 0 11 13" aria-hidden="true">'
    '<path d="M2.5 6V4a3 3 0 0 1 6 0v2" fill="none" stroke="currentColor" stroke-width="1.6"/>'
    '<rect x="1" y="6" width="9" height="6.2" rx="1.2" fill="currentColor"/></svg>'
)

_Row = tuple[Line, tuple[Piece, ...], Meaning]


def session(shown: Session) -> str:
    """The dialogue with the meaning of each line; passwords masked."""
    rows = list(zip(shown.lines, shown.pieces(), explain(shown), strict=True))
    items, tls = [], False
    for group in _replies_together(rows):
        if group[0][0].tls and not tls:
            tls = True
            version = escape(shown.tls.replace("TLSv", "TLS "))
            items.append(
                f'<li class="tls mark">{_LOCK} from here on inside {version or "TLS"}: '
                "on the wire only records and their sizes</li>"
            )
        items.append(_item(group))
    if not rows:
        items.append('<li class="mark">Nothing was said.</li>')
    notes = [f"{shown.dropped:,} octets more were counted, but not kept."] if shown.dropped else []
    if shown.ending:
        notes.append(f"{shown.ending[:1].upper()}{shown.ending[1:]}.")
    elif not shown.closed:
        notes.append("The connection is still open.")
    items += [f'<li class="mark end">{escape(note)}</li>' for note in notes]
    title = f"{shown.protocol} session on {shown.listener}"
    return (
        f'{_style()}<section class="ml-view" aria-label="{escape(title)}">'
        f"<header><b>{escape(shown.protocol)} · {escape(shown.listener)}</b>"
        f"<span>{_count(shown.round_trips, 'round trip')}</span>"
        f"<time>{_milliseconds(shown.duration)}</time></header>"
        f"<ol>{''.join(items)}</ol></section>"
    )


def message(shown: Message) -> str:
    """Envelope, header fields and body, all as text: nothing in it is ever run or fetched."""
    rows = ""
    if shown.envelope is not None:
        path = shown.envelope.reverse_path or "(nobody: the null reverse-path)"
        rows = _field("Envelope from", path)
        rows += _field("Envelope to", ", ".join(shown.envelope.recipients))
    head, _, body = shown.octets.partition(b"\r\n\r\n")
    fields = "\n".join(readable(row) for row in head.split(b"\r\n"))
    lines = body.removesuffix(b"\r\n").split(b"\r\n")
    text = "\n".join(readable(row) for row in lines[:_BODY_LINES])
    more = len(lines) - _BODY_LINES
    rest = f'<p class="more">{more:,} more lines not shown</p>' if more > 0 else ""
    return (
        f'{_style()}<section class="ml-view" aria-label="Message">'
        f"<header><b>{escape(shown['Subject'] or '(no subject)')}</b>"
        f"<span>{len(shown.octets):,} octets</span></header>"
        f"<dl>{rows}</dl><pre>{_varying(fields)}</pre><pre>{_varying(text)}</pre>{rest}</section>"
    )


def mailbox(shown: Mailbox) -> str:
    """One row for each message."""
    if not shown:
        return f'{_style()}<section class="ml-view"><p class="more">No message here.</p></section>'
    rows = "".join(
        f"<tr><td>{number}</td><td>{_short(one['From'])}</td><td>{_short(one['Subject'])}</td></tr>"
        for number, one in enumerate(shown, 1)
    )
    return (
        f'{_style()}<section class="ml-view" aria-label="Mailbox"><table><thead><tr>'
        '<th scope="col">No.</th><th scope="col">From</th><th scope="col">Subject</th>'
        f"</tr></thead><tbody>{rows}</tbody></table></section>"
    )


# -- parts


def _style() -> str:
    """The style sheet, within each view: an output has to stand alone."""
    css = files("labserver").joinpath("data", "views.css").read_text(encoding="utf-8")
    return f"<style>{css}</style>"


def _replies_together(rows: Sequence[_Row]) -> Iterator[list[_Row]]:
    """A multi-line reply (RFC 5321 section 4.2.1) is one item."""
    group: list[_Row] = []
    for row in rows:
        group.append(row)
        line = row[0]
        if line.kind == "reply" and line.data[3:4] == b"-" and line.data[:3].isdigit():
            continue
        yield group
        group = []
    if group:
        yield group


def _item(group: list[_Row]) -> str:
    line, pieces, meaning = group[-1]
    first = group[0][0]
    side = _SIDES[line.who]
    css = line.who + (" tls" if line.tls else "")
    head = (
        f'<li class="{css}"><time>{_milliseconds(first.at)}</time>'
        f'<abbr class="who" title="{side}">{line.who}</abbr>'
    )
    if line.kind == "content":
        return f"{head}{_content(line, pieces, meaning)}</li>"
    code = "<br>".join(_pieces(one) or "&nbsp;" for _, one, _ in group)
    if line.shortened:
        code += f" … ({line.octets:,} octets)"
    return f"{head}<code>{code}</code>{_chip(meaning)}{_explained(group)}</li>"


def _chip(meaning: Meaning) -> str:
    if not meaning.label:
        return ""
    css, mark = _MARKS.get(meaning.outcome, ("", ""))
    icon = f'<span aria-hidden="true">{mark}</span>'
    return f'<span class="chip {css}">{icon} {escape(meaning.label)}</span>'


def _explained(group: list[_Row]) -> str:
    """The title, which unfolds to all that is known of the line."""
    meaning = group[-1][2]
    title = next((one.title for _, _, one in group if one.title), "")
    if not title:
        return ""
    inside = ""
    if len(group) > 1:
        inside += "".join(
            f"<p><code>{_pieces(pieces)}</code> {escape(one.title)}</p>"
            for _, pieces, one in group
            if one.title and one.title != title
        )
    if meaning.detail:
        inside += f"<p>{escape(meaning.detail)}</p>"
    if meaning.also:
        also = "".join(
            f"<li><code>{escape(code)}</code> {escape(said)}</li>" for code, said in meaning.also
        )
        inside += f'<p>It could also have said:</p><ul class="also">{also}</ul>'
    if meaning.sources:
        inside += f'<p class="sources">{", ".join(map(_source, meaning.sources))}</p>'
    if not inside:
        return f'<p class="title">{escape(title)}</p>'
    return f"<details><summary>{escape(title)}</summary>{inside}</details>"


def _content(line: Line, pieces: tuple[Piece, ...], meaning: Meaning) -> str:
    """A message's octets, folded away; the dots that SMTP and POP3 double are marked."""
    rows = _pieces(pieces).split("\n")
    shown = [
        f"<mark>.</mark>{row[1:]}" if row.startswith("..") else row for row in rows[:_BODY_LINES]
    ]
    notes = []
    if len(rows) > _BODY_LINES:
        notes.append(f"{len(rows) - _BODY_LINES:,} more lines not shown.")
    if line.shortened:
        notes.append(f"The transcript keeps the first {len(line.data):,} octets.")
    more = "".join(f'<p class="more">{note}</p>' for note in notes)
    title = f'<p class="title">{escape(meaning.title)}</p>' if meaning.title else ""
    return (
        f'<details class="body"><summary>message content, {line.octets:,} octets</summary>'
        f"<pre>{chr(10).join(shown)}</pre>{more}{title}</details>"
    )


def _pieces(pieces: Sequence[Piece]) -> str:
    return "".join(
        escape(piece.exact)
        if piece.exact == piece.stable
        else f'<var data-stable="{escape(piece.stable)}">{escape(piece.exact)}</var>'
        for piece in pieces
    )


def _varying(text: str) -> str:
    return _pieces(machine_made(text))


def _source(source: str) -> str:
    return f'<a href="{escape(source_url(source))}">{escape(source)}</a>'


def _field(name: str, value: str) -> str:
    return f"<dt>{escape(name)}</dt><dd>{escape(readable(value.encode()))}</dd>"


def _short(value: str | None) -> str:
    text = readable((value or "(none)").encode("utf-8", "backslashreplace"))
    return escape(text if len(text) <= 120 else f"{text[:119]}…")


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _milliseconds(seconds: float) -> str:
    if seconds >= 10:
        return f"{seconds:,.0f} s"
    return f"{seconds * 1000:,.0f} ms"
