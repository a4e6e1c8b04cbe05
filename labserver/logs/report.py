"""The part of a bounce that programs read: groups of fields for each recipient (RFC 3464)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from labserver.logs.letter import Line
from labserver.logs.phrases import addresses_in, reply_in, stage_in, status_in

__all__ = ["FIELDS", "Failure", "failures"]

FIELDS = frozenset(
    "final-recipient original-recipient action status remote-mta diagnostic-code reporting-mta "
    "arrival-date last-attempt-date will-retry-until received-from-mta final-log-id dsn-gateway "
    "original-envelope-id".split()
)
"""The fields of RFC 3464 section 2."""

_FIELD = re.compile(r"([A-Za-z][A-Za-z0-9-]{1,60})[ \t]{0,8}:[ \t]*(.*)")
_TYPE = re.compile(r"([A-Za-z][A-Za-z0-9.-]{0,40}) ?; ?")
_LONGEST = 16_000
_LONGEST_REPLY = 4000

Fields = dict[str, tuple[int, str]]
"""A group: for each field its row, and its text unfolded."""


@dataclass(slots=True)
class Failure:
    """What a bounce tells of one recipient."""

    row: int
    """The log's row that tells it."""
    recipient: str = ""
    original: str = ""
    """The address the sender wrote, where another was tried for it."""
    action: str = ""
    status: str = ""
    """The enhanced status code."""
    reply: str = ""
    """A server's reply, from its code on; empty where none is told."""
    words: str = ""
    """What is said instead of a reply."""
    stage: str = ""
    """What the reply answered, where it is said."""
    sender: str = ""
    """The reverse-path in the MAIL command that is told."""
    hello: str = ""
    """The client's name in the EHLO or HELO command that is told."""
    rows: set[int] = field(default_factory=set)
    """The rows that were read for it."""


def failures(lines: Iterable[Line]) -> Iterator[Failure]:
    """What the groups of fields tell, one recipient each."""
    sender = ""
    for fields in _groups(lines):
        sender = _address(fields.get("x-postfix-sender", (0, ""))[1]) or sender
        names = fields.keys() & {"final-recipient", "original-recipient", "diagnostic-code"}
        if not names and not {"action", "status"} <= fields.keys():
            continue
        yield _failure(fields, sender)


def _groups(lines: Iterable[Line]) -> Iterator[Fields]:
    fields: dict[str, _Field] = {}
    current: _Field | None = None
    for row, text in lines:
        if text[:1] in (" ", "\t") and text.strip() and current:
            current.add(text)
            continue
        match = _FIELD.match(text)
        name = match[1].lower() if match else ""
        if not text.strip() or text.startswith("--"):
            if fields.keys() & FIELDS:
                yield _unfolded(fields)
            fields, current = {}, None
        elif match and (name in FIELDS or name.startswith("x-")):
            if name == "final-recipient" and name in fields:
                # Some leave out the blank line between two recipients.
                yield _unfolded(fields)
                fields = {}
            current = fields.setdefault(name, _Field(row, name))
            if current.row == row:
                current.add(match[2])
        elif current and current.name == "diagnostic-code" and match is None:
            # A mail program broke the line and lost the blank that folds it.
            current.add(text)
        else:
            current = None
    if fields.keys() & FIELDS:
        yield _unfolded(fields)


class _Field:
    """A field while its lines are put together."""

    def __init__(self, row: int, name: str) -> None:
        self.row, self.name = row, name
        self.parts: list[str] = []
        self._room = _LONGEST

    def add(self, text: str) -> None:
        """Add a line, as long as there is room."""
        if self._room > 0:
            self.parts.append(text.strip())
            self._room -= len(text) + 1


def _unfolded(fields: dict[str, _Field]) -> Fields:
    return {name: (field.row, " ".join(field.parts)) for name, field in fields.items()}


def _failure(fields: Fields, sender: str) -> Failure:
    row, diagnostic = fields.get("diagnostic-code", (next(iter(fields.values()))[0], ""))
    kind = _TYPE.match(diagnostic)
    text = (diagnostic[kind.end() :] if kind else diagnostic).strip()[:_LONGEST_REPLY]
    final = _address(fields.get("final-recipient", (0, ""))[1])
    original = _address(fields.get("original-recipient", (0, ""))[1])
    actual = _address(fields.get("x-actual-recipient", (0, ""))[1])
    reply = reply_in(text)
    return Failure(
        row,
        recipient=final or original or actual,
        original=original,
        action=fields.get("action", (0, ""))[1].lower().split(" ")[0].strip("();,"),
        status=status_in(fields.get("status", (0, ""))[1]) or status_in(text),
        reply=reply,
        words="" if reply else text,
        stage=stage_in(text),
        sender=sender,
        rows={where for where, _ in fields.values()},
    )


def _address(text: str) -> str:
    text = text.partition(";")[2] or text
    found = addresses_in(text)
    return found[0] if found else text.strip().strip("<>\"' ").removeprefix("SMTP:")
