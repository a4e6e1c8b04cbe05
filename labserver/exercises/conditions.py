"""Conditions on what happened in a lab, from which exercises are made.

Each is a frozen value with one method, `judge`, that says in a sentence what it found or what
exactly is missing, and which command a hint would be about.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Protocol

from labserver.catalog import PROTOCOLS, legal, load, path
from labserver.exercises.happened import Asked, Mail, asked, logins, mails
from labserver.given import expect_fields
from labserver.lab import LabError
from labserver.message import Mailbox
from labserver.store import StoreError
from labserver.transcript import ProtocolName, Session, readable

_NUMBERS = "no one two three four five six seven eight nine ten".split()
_LONGEST_WORD = 60
_COUNTED = ("messages", "recipients", "refused")
_MOST = 1000
"""The largest number of messages or recipients that a condition can ask for."""
_CONTENT = re.compile(r"\bBODY(?:\.PEEK)?\[(?!HEADER)|\bRFC822(?!\.SIZE|\.HEADER)", re.I)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is judged: sessions, and the messages now in mailboxes."""

    sessions: tuple[Session, ...]
    mailbox: Callable[[str, str], Mailbox]
    """Returns an address's mailbox by name. Raises `LabError` or `StoreError`."""

    @property
    def asked(self) -> tuple[Asked, ...]:
        """Every command of every session."""
        return tuple(one for session in self.sessions for one in asked(session))


@dataclass(frozen=True, slots=True)
class Finding:
    """What a condition found."""

    done: bool
    wanted: str
    """What was wanted, in a few words."""
    sentence: str
    about: tuple[ProtocolName, str]
    """The command that hints are about."""
    example: str = ""
    """Lines that would do it."""


class Condition(Protocol):
    """One thing that an exercise asks for."""

    def judge(self, seen: Evidence) -> Finding:
        """Whether it happened, and if not, what exactly is missing."""


class _Wanted:
    """The base of all conditions: refuses a field that makes no sense, in one sentence."""

    __slots__ = ()

    def __post_init__(self) -> None:
        expect_fields(self)
        for field in fields(self):  # type: ignore[arg-type]  # each of them is a dataclass
            value, least = getattr(self, field.name), int(field.name == "messages")
            if field.name in _COUNTED and value is not None and not least <= value <= _MOST:
                where = f"{type(self).__name__}({field.name}=…)"
                raise ValueError(f"{where} takes a number from {least} to {_MOST:,}.")


@dataclass(frozen=True, slots=True)
class Sent(_Wanted):
    """Mail was sent by SMTP: so many messages, each of them as described."""

    messages: int = 1
    recipients: int | None = None
    """How many recipients were accepted."""
    refused: int | None = None
    """How many recipients were refused."""
    sender: str | None = None
    """The reverse-path; empty for the null one."""
    to: str = ""
    """An address among the accepted recipients."""
    listener: str = ""
    """Where it was handed over: `smtp`, `submission`, …"""

    def judge(self, seen: Evidence) -> Finding:
        begun = [mail for session in seen.sessions for mail in mails(session)]
        sent = [mail for mail in begun if mail.sent]
        fitting = [mail for mail in sent if not self._lacks(mail)]
        finding = partial(
            Finding, wanted=self._wanted(), about=self._about(begun), example=self._example()
        )
        if len(fitting) >= self.messages:
            mail = fitting[-1]
            refused = f"; refused: {_list(mail.refused)}" if mail.refused else ""
            return finding(True, sentence=f"A message went to {_list(mail.accepted)}{refused}.")
        if fitting:
            return finding(
                False,
                sentence=f"{_wanted(self.messages, 'message')}; you sent {_number(len(fitting))}.",
            )
        if sent:
            return finding(False, sentence=" ".join(self._lacks(sent[-1])))
        return finding(False, sentence=_why_not_sent(begun, seen))

    def _lacks(self, mail: Mail) -> list[str]:
        """One sentence for each thing that differs from what was asked for."""
        lacks = []
        if self.recipients not in (None, len(mail.accepted)):
            if len(mail.named) < (self.recipients or 0):
                wanted = _wanted(self.recipients or 0, "recipient")
                lacks.append(f"{wanted}; you named {_counted(mail.named)}.")
            else:
                wanted = _wanted(self.recipients or 0, "accepted recipient")
                lacks.append(f"{wanted}; there {_counted(mail.accepted, verb=True)}.")
        if self.refused not in (None, len(mail.refused)):
            wanted = _wanted(self.refused or 0, "refused recipient")
            lacks.append(f"{wanted}; there {_counted(mail.refused, verb=True)}.")
        if self.sender not in (None, mail.sender):
            lacks.append(f"The sender had to be <{self.sender}>; it was <{_short(mail.sender)}>.")
        if self.to and self.to.casefold() not in map(str.casefold, mail.accepted):
            lacks.append(f"{self.to} had to get it; it went to {_list(mail.accepted)}.")
        if self.listener not in ("", mail.listener):
            lacks.append(f"It had to go through {self.listener}; it went through {mail.listener}.")
        return lacks

    def _wanted(self) -> str:
        words = [_count(self.messages, "message") + " sent"]
        if self.sender is not None:
            words.append(f"from <{self.sender}>")
        words += [f"to {self.to}"] if self.to else []
        if self.recipients is not None:
            words.append(f"to {_count(self.recipients, 'recipient')}")
        words += [f"through {self.listener}"] if self.listener else []
        refused = f", {_number(self.refused)} refused" if self.refused is not None else ""
        return " ".join(words) + refused

    def _about(self, begun: list[Mail]) -> tuple[ProtocolName, str]:
        if not begun or self.sender not in (None, begun[-1].sender):
            return "SMTP", "MAIL"
        if not begun[-1].accepted or any(mail.sent for mail in begun):
            return "SMTP", "RCPT"
        return "SMTP", "end of data" if begun[-1].code.startswith("3") else "DATA"

    def _example(self) -> str:
        known = [self.to or "ben@lab.example", "ana@lab.example"]
        accepted = known[: max(1, self.recipients or 1)]
        missing = [f"nobody{i or ''}@lab.example" for i in range(self.refused or 0)]
        sender = "you@home.example" if self.sender is None else self.sender
        rows = [f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{one}>" for one in accepted + missing)]
        return "\n".join([*rows, "DATA", "Subject: Hello", "", "Hello!", "."])


@dataclass(frozen=True, slots=True)
class Said(_Wanted):
    """A command was given and accepted: `Said("VRFY")`, `Said("DELE")`."""

    command: str

    def judge(self, seen: Evidence) -> Finding:
        verb = self.command.upper()
        mine = [one for one in seen.asked if one.verb == verb]
        finding = partial(Finding, wanted=f"{verb} said", about=_about(verb, seen))
        if any(one.outcome in ("done", "go on") for one in mine):
            return finding(True, sentence=f"You said {verb}, and the server did it.")
        if mine:
            answer = f"the server answered {mine[-1].code}" if mine[-1].code else "had no answer"
            return finding(False, sentence=f"You said {verb}, and {answer}.")
        return finding(False, sentence=f"{verb} wasn't said yet.")


@dataclass(frozen=True, slots=True)
class Refused(_Wanted):
    """A command was refused: `Refused("RCPT", code=550)`, `Refused("PASS")`."""

    command: str
    code: int | str = ""

    def judge(self, seen: Evidence) -> Finding:
        verb, code = self.command.upper(), str(self.code).upper()
        mine = [one for one in seen.asked if one.verb == verb and one.code]
        refused = [one for one in mine if one.outcome in ("later", "refused")]
        with_code = f" with {code}" if code else ""
        about = _about(verb, seen)
        finding = partial(Finding, wanted=f"{verb} refused{with_code}", about=about)
        for one in reversed(refused):
            if code in ("", one.code):
                return finding(True, sentence=f"{_short(one.said)} was refused with {one.code}.")
        if refused:
            codes = _list(dict.fromkeys(one.code for one in refused))
            return finding(False, sentence=f"{verb} was refused with {codes}, not{with_code}.")
        if mine:
            times = "once" if len(mine) == 1 else f"{_number(len(mine))} times"
            return finding(False, sentence=f"You said {verb} {times}, and it was accepted.")
        return finding(False, sentence=f"{verb} wasn't said yet, so it couldn't be refused.")


@dataclass(frozen=True, slots=True)
class UnderTls(_Wanted):
    """A session was under TLS."""

    by: ProtocolName | None = None

    def judge(self, seen: Evidence) -> Finding:
        mine = [one for one in seen.sessions if self.by in (None, one.protocol)]
        protocol = self.by or (mine[-1].protocol if mine else "SMTP")
        verb = "STLS" if protocol == "POP3" else "STARTTLS"
        of = f" by {self.by}" if self.by else ""
        finding = partial(Finding, wanted=f"a session{of} under TLS", about=(protocol, verb))
        under = [session for session in mine if session.tls]
        if under:
            how = under[-1].tls.replace("TLSv", "TLS ")
            return finding(True, sentence=f"A session on {under[-1].listener} was under {how}.")
        if mine:
            listeners = _list(dict.fromkeys(session.listener for session in mine))
            return finding(False, sentence=f"What you said on {listeners} went in the clear.")
        return finding(False, sentence=f"There was no session{of} yet.")


@dataclass(frozen=True, slots=True)
class LoggedIn(_Wanted):
    """Somebody logged in."""

    address: str = ""
    by: ProtocolName | None = None

    def judge(self, seen: Evidence) -> Finding:
        who, of = self.address or "somebody", f" by {self.by}" if self.by else ""
        mine = [one for one in seen.sessions if self.by in (None, one.protocol)]
        protocol = self.by or (mine[-1].protocol if mine else "SMTP")
        verb = {"SMTP": "AUTH", "POP3": "PASS", "IMAP": "LOGIN"}[protocol]
        finding = partial(Finding, wanted=f"{who} logged in{of}", about=(protocol, verb))
        let_in = [name for session in mine for name in logins(session)]
        for name in let_in:
            if self.address.casefold() in ("", name.casefold()):
                return finding(True, sentence=f"{_short(name) or 'Somebody'} was let in{of}.")
        if let_in:
            names = _list(dict.fromkeys(let_in))
            return finding(False, sentence=f"{self.address} had to log in; it was {names}.")
        return finding(False, sentence=f"Nobody has logged in{of} yet.")


@dataclass(frozen=True, slots=True)
class InMailbox(_Wanted):
    """A mailbox now holds at least so many messages, with that subject if one is given."""

    address: str
    messages: int = 1
    mailbox: str = "INBOX"
    subject: str = ""

    def judge(self, seen: Evidence) -> Finding:
        about: tuple[ProtocolName, str] = ("IMAP", "APPEND")
        if self.mailbox == "INBOX":
            about = ("SMTP", "RCPT")
        named = f" with the subject “{self.subject}”" if self.subject else ""
        wanted = f"{_count(self.messages, 'message')}{named} in {self.mailbox} of {self.address}"
        finding = partial(Finding, wanted=wanted, about=about)
        try:
            inside = seen.mailbox(self.address, self.mailbox)
        except (LabError, StoreError) as error:
            return finding(False, sentence=str(error))
        fitting = [one for one in inside if self.subject in ("", one["Subject"])]
        where = f"{self.mailbox} of {self.address}"
        if len(fitting) >= self.messages:
            return finding(
                True, sentence=f"{where} holds {_count(len(fitting), 'message')}{named}."
            )
        sentence = f"{where} holds {_count(len(fitting), 'message')}{named}"
        if self.messages > 1:
            sentence += f"; {_number(self.messages)} were wanted"
        if self.subject and inside and not fitting:
            subjects = _list(dict.fromkeys(one["Subject"] or "(none)" for one in inside))
            sentence += f"; there is: {subjects}"
        return finding(False, sentence=f"{sentence}.")


@dataclass(frozen=True, slots=True)
class Retrieved(_Wanted):
    """A message was fetched: by POP3 with RETR, by IMAP with FETCH."""

    by: ProtocolName | None = None

    def judge(self, seen: Evidence) -> Finding:
        of = f" by {self.by}" if self.by else ""
        about: tuple[ProtocolName, str] = ("POP3", "RETR")
        if self.by == "IMAP":
            about = ("IMAP", "FETCH")
        finding = partial(Finding, wanted=f"a message fetched{of}", about=about)
        for session in seen.sessions:
            if self.by in (None, session.protocol) and _fetched(session):
                return finding(True, sentence=f"A message was fetched on {session.listener}.")
        return finding(False, sentence=f"No message was fetched{of} yet.")


@dataclass(frozen=True, slots=True)
class Legal(_Wanted):
    """In the last session every command was allowed in the state in which it was given."""

    def judge(self, seen: Evidence) -> Finding:
        finding = partial(Finding, wanted="no rule broken", about=("SMTP", "EHLO"))
        if not seen.sessions:
            return finding(False, sentence="There was no session yet.")
        last = seen.sessions[-1]
        for problem in legal(last):
            verbs = [one.command for one in path(last) if one.line <= problem.line and one.command]
            return finding(False, sentence=problem.sentence, about=(last.protocol, verbs[-1]))
        return finding(True, sentence="Every command came where it may come.")


# -- words


def _about(verb: str, seen: Evidence) -> tuple[ProtocolName, str]:
    """The protocol that the command belongs to; if several, the one used last."""
    having = [name for name in PROTOCOLS if verb in load(name).commands]
    if not having:
        raise ValueError(f"{verb} is no command of SMTP, POP3 or IMAP.")
    spoken = [one.protocol for one in reversed(seen.sessions) if one.protocol in having]
    return (spoken or having)[0], verb


def _fetched(session: Session) -> bool:
    """Whether a message, or a part of one, came."""
    for one in asked(session):
        if one.verb == "RETR" and one.outcome == "done":
            return True
        if "FETCH" in one.verb and one.outcome == "done" and _CONTENT.search(one.said):
            # The server also says OK where there was no such message.
            return any(line.who == "S" and line.kind == "content" for line in session.lines)
    return False


def _why_not_sent(begun: list[Mail], seen: Evidence) -> str:
    if not any(session.protocol == "SMTP" for session in seen.sessions):
        return "Nobody has spoken SMTP to the lab yet."
    if not begun:
        return "No mail was begun: MAIL FROM is missing, or was refused."
    mail = begun[-1]
    if not mail.named:
        return "The mail has no recipient: RCPT TO is missing."
    if not mail.accepted:
        return f"The mail has no accepted recipient; refused: {_list(mail.refused)}."
    if not mail.code:
        return f"The mail to {_list(mail.accepted)} was never handed over: DATA is missing."
    if mail.code.startswith("3"):
        return f"The mail to {_list(mail.accepted)} has no end: the line with a single dot."
    return f"The server didn't take the mail to {_list(mail.accepted)}; it answered {mail.code}."


def _number(count: int | None) -> str:
    return _NUMBERS[count] if count is not None and count < len(_NUMBERS) else f"{count:,}"


def _count(count: int, thing: str) -> str:
    return f"{_number(count)} {thing}{'' if count == 1 else 's'}"


def _wanted(count: int, thing: str) -> str:
    """`Two recipients were wanted`."""
    return f"{_count(count, thing)} {'was' if count == 1 else 'were'} wanted".capitalize()


def _counted(addresses: Sequence[str], *, verb: bool = False) -> str:
    """`one: ben@lab.example`, or `none`; with `verb`, `was` or `were` before it."""
    were = ("was " if len(addresses) < 2 else "were ") if verb else ""
    return were + (f"{_number(len(addresses))}: {_list(addresses)}" if addresses else "none")


def _list(words: Iterable[str]) -> str:
    *most, last = map(_short, words) if words else ("nobody",)
    return f"{', '.join(most)} and {last}" if most else last


def _short(word: str) -> str:
    """A given word, made safe to show and cut to a fair length."""
    text = readable(word.encode("utf-8", "surrogateescape"))
    return text if len(text) <= _LONGEST_WORD else f"{text[: _LONGEST_WORD - 1]}…"
