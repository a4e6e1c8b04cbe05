"""What is read of hostile content for the page: plain data in, plain data out, in a `Child`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from labserver.export import to_json
from labserver.logs import read_log
from labserver.message import Message
from labserver.store import MessageRow
from labserver.transcript import Session
from labserver.views.show import show
from labserver.web.mail import Head, Letter
from labserver.web.sessions import VIEWS, two

_PASTE_ALL = (
    "Paste all of the log, or the whole returned mail; what Gmail's own window says is explained "
    "on the page SMTP & Google."
)


def message(shown: Message) -> dict[str, Any]:
    """All that the page shows of a message."""
    return Letter(shown).values()


def rendered(shown: Message) -> str:
    """A message's HTML, made harmless."""
    return Letter(shown).rendered()


def part(shown: Message, number: int) -> tuple[str, bytes]:
    """The name of one of its parts, and its octets. Raises `IndexError`."""
    return Letter(shown).file(number)


def head(row: MessageRow, octets: bytes) -> Head:
    """What the list reads of a message whose header is long."""
    return Head.of(row, octets)


def rows(heads: Sequence[Head], text: str, where: str) -> list[dict[str, Any]]:
    """The rows of those messages in which the text stands."""
    return [head.values() for head in heads if not text or head.says(text, where)]


def session(shown: Session, view: str) -> str:
    """A session as one of `VIEWS`."""
    return VIEWS[view](shown).body


def session_file(saved: Session) -> str:
    """A session as JSON, passwords masked."""
    return to_json(saved)


def compared(a: Session, b: Session) -> str:
    """Two sessions beside each other."""
    return "".join(view.body for view in two(a, b))


def log(text: str) -> str:
    """A dialogue from elsewhere, explained. Raises `ValueError` where it holds none."""
    if not text.strip():
        raise ValueError("There is no text yet; paste a log or a returned mail first.")
    try:
        found = read_log(text)
    except ValueError as error:
        raise ValueError(f"{error} {_PASTE_ALL}") from error
    return show(found).body
