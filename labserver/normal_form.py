"""The normal form: what was said, without what differs between two runs, machines or networks.

Everything the lab shows is what was said. Only where outputs are stored and compared, as those of
the lessons are, the environment variable `LABSERVER_OUTPUT` is `normal`, and this form stands in
its place. What it replaces is said here and nowhere else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labserver.transcript import LineKind, ProtocolName

VARIABLE = "LABSERVER_OUTPUT"

_DATE = (
    r"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), )?\d{1,2} "
    r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4} \d\d:\d\d(?::\d\d)? "
    r"(?:[+-]\d{4}|GMT)"
)
_IMAP_DATE = r"[ \d]\d-[A-Z][a-z]{2}-\d{4} \d\d:\d\d:\d\d [+-]\d{4}"
_MACHINE_MADE = re.compile(
    rf"(?P<date>{_DATE}|{_IMAP_DATE})"
    r"|(?P<boundary>={15}\d+==)"
    r"|(?<=Message-ID: )(?P<msgid><[^>\s]+>)"
    r"|(?<=Received: from )(?P<name>\S+)",
    re.IGNORECASE,
)
_CLIENT = "client.example"
_STABLE = {
    "date": "(date)",
    "boundary": "(boundary)",
    "msgid": "<(message id)>",
    "name": _CLIENT,
}
_COMMAND: dict[ProtocolName, re.Pattern[str]] = {
    # verb, what follows it as far as its case is the client's own choice, the rest
    "SMTP": re.compile(r"(?P<verb>(?:MAIL|RCPT) +(?:FROM|TO):|[A-Z]+)(?P<rest>.*)", re.I | re.S),
    "POP3": re.compile(r"(?P<verb>[A-Z]+)(?P<rest>.*)", re.I | re.S),
    "IMAP": re.compile(
        r"(?P<tag>[^\s()*+{%\"\\]+) (?P<verb>(?:UID )?[A-Z]+)(?P<rest>.*)", re.I | re.S
    ),
}
_PARAMETER = re.compile(r"\b[A-Za-z0-9]+(?==)")


def wanted() -> bool:
    """Whether outputs are stored and compared here.

    Raises ValueError, one sentence, where `LABSERVER_OUTPUT` is neither empty nor `normal`.
    """
    value = os.environ.get(VARIABLE, "")
    if value not in ("", "normal"):
        raise ValueError(
            f"{VARIABLE} is {value[:40]!r}; unset it to see what was said, or set it to normal "
            "where outputs are stored and compared."
        )
    return bool(value)


def shown(text: str, normal: str | None = None) -> str:
    """The text, or its normal form where that is wanted."""
    if not wanted():
        return text
    return of_text(text) if normal is None else normal


def of_text(text: str) -> str:
    """Dates, random boundaries, message ids and the names of clients, replaced."""
    return _MACHINE_MADE.sub(lambda match: _STABLE[match.lastgroup or ""], text)


def of_lines(
    protocol: ProtocolName, verbs: Collection[str], lines: Iterable[tuple[LineKind, str]]
) -> list[str]:
    """The lines of a session, all of them, for IMAP's tags are numbered in their order.

    `verbs` are the protocol's, to tell a command from a stray line.
    """
    tags: dict[str, str] = {}
    return [_of_line(protocol, verbs, kind, text, tags) for kind, text in lines]


def _of_line(
    protocol: ProtocolName,
    verbs: Collection[str],
    kind: LineKind,
    text: str,
    tags: dict[str, str],
) -> str:
    if kind == "command":
        return _of_command(protocol, verbs, text, tags)
    if kind == "reply" and protocol == "IMAP":
        first, gap, rest = text.partition(" ")
        return f"{tags.get(first, first)}{gap}{of_text(rest)}"
    return of_text(text)


def _of_command(
    protocol: ProtocolName, verbs: Collection[str], text: str, tags: dict[str, str]
) -> str:
    """Verbs and the names of parameters in capitals, the client's own name and tags replaced."""
    match = _COMMAND[protocol].fullmatch(text)
    if match is None:
        return text
    verb, rest = match["verb"].upper(), match["rest"]
    if protocol == "IMAP":
        return f"{tags.setdefault(match['tag'], f'a{len(tags) + 1}')} {verb}{rest}"
    if verb.split()[0] not in verbs:
        return text
    if verb in ("EHLO", "HELO") and rest.strip():
        return f"{verb} {_CLIENT}"
    if verb.startswith(("MAIL", "RCPT")):
        path, gap, parameters = rest.partition("> ")
        return f"{verb}{path}{gap}{_PARAMETER.sub(lambda name: name[0].upper(), parameters)}"
    return f"{verb}{rest}"
