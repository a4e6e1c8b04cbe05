"""Writes the pages of the book that come from data, before each build.

``book/reference.md`` is written from the lab's catalog, so nothing about the protocols is written
down twice. Its anchors (``smtp-ehlo``, ``smtp-550``) are the catalog's own: a shown session can
link to them. How the page looks is in ``_assets/book.css``.

``book/_views/`` holds what the examples in ``book/views.md`` show when they are run.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from labserver import catalog
from labserver.catalog import Catalog, Command, EnhancedStatus, Reply, Term

BOOK = Path(__file__).parent
REFERENCE = BOOK / "reference.md"
VIEWS = BOOK / "views.md"

Entry = tuple[str, str]
"""A term and what is said of it, in MyST Markdown."""


def reference() -> str:
    """Return the whole reference page in MyST Markdown."""
    blocks = [
        "# Reference",
        "Every command, reply, code and state of SMTP, POP3 and IMAP that the lab explains, each "
        "with the section of the standard that says so. The wording is the lab's own.",
    ]
    for protocol in catalog.PROTOCOLS:
        blocks += _protocol(catalog.load(protocol))
    blocks += _enhanced(catalog.enhanced_statuses())
    return "\n\n".join(blocks) + "\n"


def _protocol(table: Catalog) -> Iterator[str]:
    yield _heading(2, _text(table.title), table.protocol.lower())
    yield _part(table, "States")
    yield "A connection is always in one of these; the first is where it begins."
    yield _entries(_state(state, table) for state in table.states.values())
    yield _part(table, "Commands")
    yield " · ".join(_link(_verb(c), c.anchor) for c in table.commands.values())
    for command in table.commands.values():
        yield from _command(command, table)
    if table.everywhere:
        yield _part(table, "Replies to any command")
        yield _entries(_answers(table.everywhere, table), short=True)
    yield _part(table, "Reply codes" if table.digits else "Replies")
    yield _entries((_reply(reply) for reply in table.replies.values()), short=True)
    for title, terms in (
        ("Digits of a reply code", table.digits),
        ("Extensions" if table.digits else "Capabilities", table.keywords),
        ("Response codes", table.codes),
        ("What the server tells", table.data),
        ("Flags", table.flags),
    ):
        if terms:
            yield _part(table, title)
            yield _entries(map(_term, terms.values()))


def _command(command: Command, table: Catalog) -> Iterator[str]:
    yield _heading(4, _verb(command), command.anchor)
    if command.syntax:
        yield f"```text\n{command.syntax}\n```"
    yield f"**{_text(command.title)}** {_text(command.meaning)}"
    states = ", ".join(_link(_text(state), table.states[state].anchor) for state in command.states)
    yield f"Allowed in: {states}.{' Once in a session.' if command.once else ''}"
    if command.replies:
        yield _entries(_answers(command.replies, table), short=True)
    yield _sources(command.sources)


def _verb(command: Command) -> str:
    return _text(command.verb) if command.typed else f"*{_text(command.verb)}*"


def _answers(replies: Iterable[tuple[str, str]], table: Catalog) -> Iterator[Entry]:
    for code, meaning in replies:
        known = table.replies.get(code)
        yield (_link(f"`{code}`", known.anchor) if known else f"`{code}`"), _text(meaning)


def _state(state: Term, table: Catalog) -> Entry:
    name, said = _term(state)
    ways = [
        f"{', '.join(asked)} → {_link(_text(to), table.states[to].anchor)}"
        for to in table.states
        if (asked := list(_asked(state.name, to, table)))
    ]
    return name, f"{said}\n\n  Leads on: {'; '.join(ways)}" if ways else said


def _asked(state: str, to: str, table: Catalog) -> Iterator[str]:
    """Yield what leads from one state to the other: a command, and its outcome unless just done."""
    ways = [way for way in table.transitions if (way.state, way.to) == (state, to)]
    for verb in dict.fromkeys(way.command for way in ways):
        outcomes = [way.outcome for way in ways if way.command == verb]
        if verb == "*":
            yield f"any {' or '.join(outcomes)}"
            continue
        asked = _link(_verb(table.commands[verb]), table.commands[verb].anchor)
        yield asked if outcomes == ["done"] else f"{asked} ({', '.join(outcomes)})"


def _reply(reply: Reply) -> Entry:
    said = f"**{_text(reply.title)}** {_text(reply.meaning)} {_sources(reply.sources)}"
    return f"[`{reply.code}`]{{#{reply.anchor}}}", said


def _term(term: Term) -> Entry:
    said = f"**{_text(term.title)}** {_text(term.meaning)} {_sources(term.sources)}"
    return f"[{_text(term.name)}]{{#{term.anchor}}}", said


def _enhanced(statuses: Iterable[EnhancedStatus]) -> Iterator[str]:
    yield _heading(2, "Enhanced status codes", "enhanced")
    yield (
        "Three numbers beside an SMTP reply code say more closely what happened: a class, a "
        "subject and a detail. A code that is not listed still means what its class and its "
        "subject mean."
    )
    by_class = sorted(statuses, key=lambda status: tuple(map(int, status.code.split("."))))
    for category, some in groupby(by_class, key=lambda status: status.code[0]):
        listed = list(some)
        yield _heading(3, f"Class {category}", f"enhanced-class-{category}")
        yield _text(listed[0].category)
        yield _entries(map(_status, listed), short=True)


def _status(status: EnhancedStatus) -> Entry:
    said = f"**{_text(status.title)}** {_text(status.meaning)} {_sources(status.sources)}"
    return f"[`{status.code}`]{{#{status.anchor}}}", said


def _part(table: Catalog, title: str) -> str:
    """A heading inside a protocol; its anchor names the protocol, for the titles recur."""
    anchor = f"{table.protocol.lower()}-part-{title.lower().replace(' ', '-')}"
    return _heading(3, f"{table.protocol}: {title[0].lower()}{title[1:]}", anchor)


def _heading(level: int, title: str, anchor: str) -> str:
    return f"({anchor})=\n{'#' * level} {title}"


def _entries(entries: Iterable[Entry], *, short: bool = False) -> str:
    """A definition list; `short` where the terms are codes."""
    lines = "\n\n".join(f"{term}\n: {said}" for term, said in entries)
    return f":::{{div}} book-terms{' book-short' if short else ''}\n{lines}\n:::"


def _sources(sources: Iterable[str]) -> str:
    links = (f"[{_text(source)}]({catalog.source_url(source)})" for source in sources)
    return f"[{', '.join(links)}]{{.book-source}}"


def _link(text: str, anchor: str) -> str:
    return f"[{text}](#{anchor})"


def _text(plain: str) -> str:
    """Return plain text so that MyST shows it as it is."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$&^])", r"\\\1", plain)


def examples(page: str) -> dict[str, str]:
    """Run the Python of a page from top to bottom; the HTML that it shows, by file name.

    What is shown is the last expression before each place that takes in a file.
    """
    parts = re.compile(r"^```python\n(.*?)^```$|^:file: (\S+)$", re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {}
    shown: dict[str, str] = {}
    last = "None"
    for code, file in parts.findall(page):
        if file:
            shown[file] = eval(last, names)._repr_html_()
            continue
        tree = ast.parse(code)
        if isinstance(tree.body[-1], ast.Expr):
            last = ast.unparse(tree.body.pop())
        exec(compile(tree, "an example", "exec"), names)
    return shown


def main() -> None:
    REFERENCE.write_text(reference(), encoding="utf-8", newline="\n")
    for file, html in examples(VIEWS.read_text(encoding="utf-8")).items():
        path = BOOK / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(html, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
