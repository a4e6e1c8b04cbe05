"""The catalog: the one place that knows what SMTP, POP3 and IMAP mean by what they say.

`labserver/tables.py` gives the knowledge (`labserver/data/*.toml`) as frozen values: commands,
reply codes, enhanced status codes, states and transitions, each with its source; which line answers
which is told by `labserver/turns/`. `reading.py` reads a session
against them, with what differs in `smtp.py`, `pop3.py` and `imap.py`: what each line means
(`explain`), where the dialogue leaves the rules (`legal`), which way it took through the states
(`path`). How a meaning is shown, and what a server answers, is decided elsewhere.
"""

from labserver.catalog.imap import ImapReading
from labserver.catalog.pop3 import Pop3Reading
from labserver.catalog.reading import Meaning, Problem, Reading, Step
from labserver.catalog.smtp import SmtpReading
from labserver.tables import (
    PROTOCOLS,
    Catalog,
    Command,
    EnhancedStatus,
    Note,
    Outcome,
    Reply,
    Term,
    Transition,
    enhanced,
    enhanced_statuses,
    load,
    source_url,
)
from labserver.transcript import ProtocolName, Session

__all__ = [
    "PROTOCOLS",
    "Catalog",
    "Command",
    "EnhancedStatus",
    "Meaning",
    "Note",
    "Outcome",
    "Problem",
    "Reply",
    "Step",
    "Term",
    "Transition",
    "enhanced",
    "enhanced_statuses",
    "explain",
    "legal",
    "load",
    "outcomes",
    "path",
    "source_url",
]

_READINGS: dict[ProtocolName, type[Reading]] = {
    "SMTP": SmtpReading,
    "POP3": Pop3Reading,
    "IMAP": ImapReading,
}


def explain(session: Session) -> tuple[Meaning, ...]:
    """What each line of the session means, in the order of `session.lines`. Never raises."""
    return _READINGS[session.protocol](session).meanings()


def legal(session: Session) -> tuple[Problem, ...]:
    """Where the dialogue leaves the rules; empty when it is legal.

    Each command has to be known and allowed in its state, and each reply has to be one that
    the catalog knows for its command. A dialogue that just stops is legal.
    """
    return _READINGS[session.protocol](session).problems


def outcomes(session: Session) -> tuple[Outcome, ...]:
    """What the server's answer to each step of `path(session)` came to."""
    reading = _READINGS[session.protocol](session)
    return tuple(reading.outcome(step.reply) for step in reading.steps())


def path(session: Session) -> tuple[Step, ...]:
    """The session's way through the states, one step for each command and moment."""
    return _READINGS[session.protocol](session).steps()
