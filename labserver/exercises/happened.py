"""What happened in a lab's sessions, in the terms of an exercise: mail, refusals, logins.

Built on the catalog's reading of a session, so nothing here knows a protocol's rules; it only
takes addresses out of what was said.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass

from labserver.catalog import Outcome, Step, load, path
from labserver.transcript import ProtocolName, Session


@dataclass(frozen=True, slots=True)
class Asked:
    """A command and how it was answered."""

    protocol: ProtocolName
    verb: str
    said: str
    """The line as it was typed; empty for a moment such as the end of data."""
    code: str
    """The reply code or status; empty while it is unanswered."""
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail that was begun with MAIL FROM (RFC 5321 section 3.3)."""

    listener: str
    sender: str
    """The reverse-path; empty for the null one."""
    accepted: tuple[str, ...]
    refused: tuple[str, ...]
    sent: bool
    """Whether the server took the message."""
    code: str
    """The last reply to the message; empty if there was none."""

    @property
    def named(self) -> tuple[str, ...]:
        """Every recipient that was named."""
        return self.accepted + self.refused


_LOGINS = ("AUTH", "PASS", "APOP", "LOGIN", "AUTHENTICATE")
_HANDING_OVER = ("DATA", "end of data", "BDAT", "BDAT LAST")
_PATH = re.compile(r"<([^<>]*)>")
_IMAP_LOGIN = re.compile(r'\S+ LOGIN (?:"((?:[^"\\]|\\.)*)"|([^\s"{]+))', re.I)


def asked(session: Session) -> tuple[Asked, ...]:
    """Every command of the session, and every moment such as the end of data."""
    shown = session.texts("said", body_lines=1)
    return tuple(_asked(session, step, shown[step.line]) for step in path(session) if step.command)


def mails(session: Session) -> tuple[Mail, ...]:
    """The mails of an SMTP session, whole or broken off, in their order."""
    return tuple(_mails(session)) if session.protocol == "SMTP" else ()


def logins(session: Session) -> tuple[str, ...]:
    """The addresses that logged in; an empty text for one that can't be read."""
    found, user = [], ""
    for step in path(session):
        user = _text(session, step.line).partition(" ")[2] if step.command == "USER" else user
        if load(session.protocol).outcome(step.reply) == "done" and step.command in _LOGINS:
            found.append(user if step.command == "PASS" else _who(session, step))
    return tuple(found)


def _asked(session: Session, step: Step, shown: str) -> Asked:
    typed = session.lines[step.line].who == "C"
    said = shown if typed else ""
    outcome = load(session.protocol).outcome(step.reply)
    return Asked(session.protocol, step.command, said, step.reply, outcome)


def _mails(session: Session) -> Iterator[Mail]:
    begun: str | None = None
    accepted: list[str] = []
    refused: list[str] = []
    code = ""

    def mail(*, sent: bool) -> Mail:
        return Mail(
            session.listener, begun or "", tuple(accepted), tuple(refused), sent=sent, code=code
        )

    for one in asked(session):
        if one.verb in ("MAIL", "RSET", "EHLO", "HELO") and one.outcome == "done":
            if begun is not None:
                yield mail(sent=False)
            begun = _address(one.said) if one.verb == "MAIL" else None
            accepted, refused, code = [], [], ""
        elif one.verb == "RCPT" and begun is not None and one.code:
            (accepted if one.outcome == "done" else refused).append(_address(one.said))
        elif one.verb in _HANDING_OVER and begun is not None:
            code = one.code
            if one.verb in ("end of data", "BDAT LAST") and one.code:
                yield mail(sent=one.outcome == "done")
                begun = None
    if begun is not None:
        yield mail(sent=False)


def _address(said: str) -> str:
    found = _PATH.search(said)
    return found[1] if found else said.partition(":")[2].strip().split(" ")[0]


def _who(session: Session, step: Step) -> str:
    """The name in a login, as far as it can be read; the password is not looked at."""
    said = _text(session, step.line)
    if step.command == "APOP":
        return said.split()[1]
    if step.command == "LOGIN":
        found = _IMAP_LOGIN.match(said)
        return re.sub(r"\\(.)", r"\1", found[1] or found[2]) if found else ""
    # AUTH mechanism [initial-response]; in IMAP a tag stands before it.
    words = said.split()
    words = words[1:] if session.protocol == "IMAP" else words
    mechanism, answers = words[1].upper(), words[2:]
    for i in range(step.line + 1, len(session.lines)):
        if session.lines[i].who == "C" and session.lines[i].kind != "credentials":
            break
        answers += [_text(session, i)] if session.lines[i].who == "C" else []
    try:
        first = b64decode(answers[0]).decode()
    except (IndexError, ValueError):
        return ""
    return first.split("\0")[1] if mechanism == "PLAIN" else first


def _text(session: Session, i: int) -> str:
    return session.lines[i].data.rstrip(b"\r\n").decode("utf-8", "replace")
