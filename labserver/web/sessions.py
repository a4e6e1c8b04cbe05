"""A session as a row of the list, and which rows a filter lets through."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from labserver.catalog import outcomes
from labserver.transcript import Line, Session, readable
from labserver.views.compare import compare
from labserver.views.sequence import sequence
from labserver.views.show import show
from labserver.views.states import states
from labserver.views.timeline import timeline
from labserver.views.view import View, cut
from labserver.views.wire import wire

VIEWS: dict[str, Callable[[Session], View]] = {
    "dialogue": show,
    "sequence": sequence,
    "states": states,
    "wire": wire,
    "times": timeline,
}
OUTCOMES = ("done", "later", "refused", "broken off", "open")
"""What a session came to: the worst of its answers, or how it ended."""

_LONGEST = 120
_SEARCHED_OCTETS = 4096
"""Of each line, when a text is looked for."""
_LINES_READ = 200
"""Where it is looked up who wrote to whom."""
_PATH = re.compile(rb"(MAIL FROM|RCPT TO): *<([^>\r\n]*)>", re.IGNORECASE)
_NAME = re.compile(rb"(?:USER|\S+ LOGIN) \"?([^\s\"]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Row:
    """What the list tells of a session."""

    number: int
    protocol: str
    listener: str
    started: str
    """ISO 8601."""
    duration: float
    """Seconds."""
    tls: bool
    outcome: str
    about: str
    """Who wrote to whom, or who read mail; or how it ended."""
    octets: int
    lines: int

    def values(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which sessions are wanted; empty lets all through."""

    protocol: str = ""
    outcome: str = ""
    text: str = ""
    """In what was said; passwords are never looked at."""

    def takes(self, session: Session, known: Callable[[Session], Row]) -> bool:
        """Whether it is wanted; its row is only made where it takes that to know."""
        if self.protocol and session.protocol != self.protocol:
            return False
        if self.text and not _says(session, self.text):
            return False
        return not self.outcome or known(session).outcome == self.outcome


def row(session: Session) -> Row:
    """The row of a session."""
    return Row(
        number=session.number,
        protocol=session.protocol,
        listener=session.listener,
        started=session.started.isoformat(timespec="milliseconds"),
        duration=round(session.duration, 3),
        tls=any(record.type != "plain" for record in session.records),
        outcome=_outcome(session),
        about=cut(_about(session), _LONGEST),
        octets=session.octets(),
        lines=len(session.lines),
    )


def two(a: Session, b: Session) -> tuple[View, View]:
    """Two sessions compared: what was said, and where the time went."""
    return compare(a, b), timeline(a, b)


def _outcome(session: Session) -> str:
    if not session.closed:
        return "open"
    all_of_them = outcomes(session)
    for worst in ("refused", "later"):
        if worst in all_of_them:
            return worst
    return "broken off" if session.ending else "done"


def _about(session: Session) -> str:
    lines = [one for one in session.lines[:_LINES_READ] if one.kind == "command" and not one.secret]
    if session.protocol == "SMTP":
        paths = [match for one in lines if (match := _PATH.match(one.data))]
        senders = [readable(p[2]) or "<>" for p in paths if p[1][:1] in b"Mm"]
        receivers = [readable(p[2]) for p in paths if p[1][:1] in b"Rr"]
        if senders:
            return f"{senders[0]} → {_some(receivers) or '(no recipient)'}"
    else:
        # In IMAP the password follows in the same line.
        for one in session.lines[:_LINES_READ]:
            if one.who == "C" and (match := _NAME.match(one.data[: (one.secret or (None,))[0]])):
                return readable(match[1])
    return session.ending or ("nobody named" if session.closed else "nobody named yet")


def _some(names: list[str]) -> str:
    more = len(names) - 1
    return f"{names[0] if names else ''}{f' and {more} more' if more > 0 else ''}"


def _says(session: Session, text: str) -> bool:
    if text.casefold() in f"#{session.number} {session.listener} {session.ending}":
        return True
    # Octets are quicker to search; case folds as far as ASCII goes.
    said = b"\n".join(map(_open_part, session.lines)).lower()
    return text.encode("utf-8", "replace").lower() in said


def _open_part(line: Line) -> bytes:
    """The octets of a line without its secret."""
    if line.secret is None:
        return line.data[:_SEARCHED_OCTETS]
    start, end = line.secret
    end = len(line.data) if line.shortened else end
    return (line.data[:start] + b"\x00" + line.data[end:])[:_SEARCHED_OCTETS]
