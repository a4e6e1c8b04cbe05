"""The table of all cells, as Markdown in `benchmarks/INTEROP.md` and back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.interop import imap, pop3, smtp
from tests.interop.stage import Client, Operation, Operations

FILE = Path(__file__).parents[2] / "benchmarks" / "INTEROP.md"
TABLES: list[tuple[Operations, list[Client]]] = [
    (smtp.operation, smtp.CLIENTS),
    (pop3.operation, pop3.CLIENTS),
    (imap.operation, imap.CLIENTS),
]
YES, NO, NOT_ITS = "yes", "no", "—"

Judge = Callable[[Operation, Client], str]
"""What a cell says, which the client can do by its nature: `YES` or `NO`."""

_INTRODUCTION = """\
# Real clients against the lab

Each cell is one run of a real client against a lab of its own, judged at both ends: the client
has to say that it went as the row says, and the lab has to hold the right mail and to have recorded
a dialogue that is legal, that came to its end, and in which no password shows. Wherever TLS
is used the client trusts the lab's own authority and nobody else.

- **yes**: both ends agree.
- **no**: it failed.
- **—**: the client doesn't do that by its nature; the note says why.

The versions are those of the machine on which the table was last written. The tests play every
cell anew (`python3 kit.py test`), and fail when a result is not the one that stands here.
`python -m tests.interop` plays them and writes this file.
"""


def cells() -> Iterator[tuple[Operation, Client]]:
    """Those that are to be played."""
    for operations, clients in TABLES:
        for client in clients:
            for operation in operations.rows.values():
                if operation.name not in client.cannot:
                    yield operation, client


def write(judge: Judge, versions: bool) -> str:
    """The whole file. Raises `MissingError` where a version is wanted of a client not here."""
    parts = [_INTRODUCTION.rstrip()]
    notes: dict[str, int] = {}
    for operations, clients in TABLES:
        heads = [f"{one.name}<br>{one.version()}" if versions else one.name for one in clients]
        parts += [f"\n## {operations.protocol}\n", _row(["", *heads])]
        parts += [_row([":--", *[":-:"] * len(clients)])]
        for operation in operations.rows.values():
            results = []
            for client in clients:
                why = client.cannot.get(operation.name)
                if why is None:
                    results.append(judge(operation, client))
                else:
                    note = notes.setdefault(f"It {why}.", len(notes) + 1)
                    results.append(f"{NOT_ITS}[^{note}]")
            parts.append(_row([operation.title, *results]))
        parts.append("")
        parts += [f"- **{one.title}.** {one.meaning}" for one in operations.rows.values()]
    parts.append("")
    parts += [f"[^{number}]: {note}" for note, number in notes.items()]
    return "\n".join(parts) + "\n"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def without_versions(text: str) -> str:
    return re.sub(r"<br>[^|]* \|", " |", text)


def read(text: str) -> dict[tuple[str, str, str], str]:
    """The cells of a written table by protocol, operation's title and client's name."""
    found: dict[tuple[str, str, str], str] = {}
    protocol, heads = "", []
    for row in without_versions(text).splitlines():
        if row.startswith("## "):
            protocol, heads = row[3:], []
        elif row.startswith("| "):
            first, *rest = (cell.strip() for cell in row.strip("|").split("|"))
            if not heads:
                heads = rest
            elif not first.startswith(":"):
                found |= {
                    (protocol, first, head): result.partition("[")[0]
                    for head, result in zip(heads, rest, strict=True)
                }
    return found
