"""What a lab refuses and what goes wrong in it, as plain values that are given to a lab.

`Limits` always hold. The rules script what goes wrong on purpose: each is a frozen value with one
method, `act`, which says what it does on an `Occasion`, given what it remembers (`Memory`). What
one lab's rules say together is in `servers/rulebook.py`; the servers only do it.
"""

from __future__ import annotations

import difflib
import math
import re
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import KW_ONLY, MISSING, dataclass, field, fields
from fnmatch import fnmatchcase
from random import Random
from typing import ClassVar, Literal, NamedTuple

from labserver.tables import PROTOCOLS, Command, load
from labserver.transcript import ProtocolName


def most_connections() -> int | None:
    """How many connections one listener can hold; `None` where the system sets no such bound.

    Windows' `select` takes 512 sockets, and the lab's loop needs some of them itself.
    """
    return 500 if sys.platform == "win32" else None


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a lab takes and keeps. Octets and seconds; each has its reply or its sentence."""

    message: int = 32 * 1024 * 1024
    """Octets of one message; beyond it SMTP answers 552 (RFC 1870 section 6)."""
    recipients: int = 100
    """Recipients of one message; beyond it 452 (RFC 5321 section 4.5.3.1.8)."""
    connections: int = field(default_factory=lambda: most_connections() or 1000)
    """Connections open at once on one listener; one more is told to come back later. 500 by
    default and at most on Windows, whose `select` takes no more than 512 sockets."""
    smtp_idle: float = 300.0
    """Seconds an SMTP client may say nothing (RFC 5321 section 4.5.3.2.7)."""
    pop3_idle: float = 600.0
    """Seconds a POP3 client may say nothing (RFC 1939 section 3)."""
    imap_idle: float = 1800.0
    """Seconds an IMAP client may say nothing (RFC 3501 section 5.4)."""
    session_commands: int = 100_000
    """Commands of one session; beyond it the server says goodbye."""
    session_octets: int = 1024 * 1024 * 1024
    """Octets that a client may send in one session; beyond it the server says goodbye."""
    login_failures: int = 3
    """Wrong passwords on one connection; with the last of them the server says goodbye. After as
    many for one name, wherever they come from, each login under that name waits."""
    login_delay: float = 0.1
    """Seconds before the first wrong password is answered; each further one waits twice as long."""
    sessions: int = 1000
    """Sessions kept in `lab.sessions`; the oldest that has ended is dropped for one more."""
    sessions_octets: int = 256 * 1024 * 1024
    """Octets of memory, about, for the transcripts of all ended sessions; beyond it the oldest of
    them are dropped, but never the last."""
    transcript_body: int = 64 * 1024
    """Octets of each message body that its transcript keeps."""
    transcript: int = 4 * 1024 * 1024
    """Octets of one session that its transcript keeps."""

    def idle(self, protocol: ProtocolName) -> float:
        """Seconds a client of that protocol may say nothing."""
        return {"SMTP": self.smtp_idle, "POP3": self.pop3_idle, "IMAP": self.imap_idle}[protocol]

    def __post_init__(self) -> None:
        for name, about in self.__dataclass_fields__.items():
            kinds = (int, float) if about.type == "float" else (int,)
            value = getattr(self, name)
            # `not >` refuses nan as well.
            if type(value) not in kinds or not value > 0:
                whole = "a number" if float in kinds else "a whole number"
                raise ValueError(f"The limit {name} must be {whole} above 0, not {value!r}.")
        if (most := most_connections()) is not None and self.connections > most:
            raise ValueError(
                f"The limit connections can be at most {most} on Windows, not {self.connections}: "
                "its select() takes 512 sockets."
            )


# -- an occasion, and what rules say to it


@dataclass(frozen=True, slots=True)
class Occasion:
    """One command of one client, before the server looks at it."""

    protocol: ProtocolName
    command: str
    """Its name in the catalog: `RCPT`, `end of data`, `UID FETCH`, `greeting`, …"""
    address: str = ""
    """Whom it is about: the path of MAIL or RCPT, else who has logged in or tries to, else the
    reverse-path of the mail under way."""
    client: str = ""
    """The client's network address."""
    logged_in: bool = False
    reverse_path: str | None = None
    """`None` where no mail is under way."""
    recipients: int = 0
    """How many the mail under way has."""
    text: str = ""
    """In SMTP what stands behind the command, but for AUTH; at the end of data how the message
    begins."""


class Sent(NamedTuple):
    """A message that counts against a quota."""

    at: float
    address: str
    recipients: int


@dataclass(frozen=True, slots=True)
class Action:
    """What one rule does, or all rules together, on one occasion."""

    reply: str = ""
    """What is said, without the last CRLF (and in IMAP without the tag)."""
    delay: float = 0.0
    """Seconds before the command is obeyed."""
    stall: float = 0.0
    """Seconds before its content is read."""
    pace: float = 0.0
    """Octets of content in a second; 0 for no throttle."""
    disconnect: Literal["", "before", "inside", "after"] = ""
    octets: int = 0
    """How many of the content pass before the connection ends inside it."""
    sent: Sent | None = None
    """What counts against a quota if the message is taken."""
    counting: tuple[tuple[Memory, Sent], ...] = ()
    """What has been counted, so that no other message can slip through meanwhile."""

    @property
    def refuses(self) -> bool:
        """Whether the reply is given instead of obeying the command."""
        return bool(self.reply) and not self.disconnect and self.reply[0] not in "23+O"

    @property
    def takes_nothing(self) -> bool:
        """Whether the command comes to nothing."""
        return self.refuses or self.disconnect in ("before", "inside")

    def portions(self, octets: bytes, passed: int = 0) -> Iterator[tuple[bytes, float]]:
        """Content in the pieces that pass, each with the seconds to wait after it.

        `passed` octets have passed before. Where the connection ends inside, the rest is left out.
        """
        if self.disconnect == "inside":
            octets = octets[: max(0, self.octets - passed)]
        size = max(1, int(self.pace)) if self.pace else len(octets) or 1
        for start in range(0, len(octets), size):
            piece = octets[start : start + size]
            yield piece, len(piece) / self.pace if self.pace else 0.0

    def not_taken(self) -> None:
        """The message was refused by somebody else: nothing is to count."""
        for memory, sent in self.counting:
            memory.take_back(sent)

    def instead_of(self, reply: str) -> str:
        """A reply of the server's, or the scripted one where that says the same: yes.

        `reply` begins with its code or status.
        """
        same = bool(self.reply) and not self.disconnect and self.reply[0] == reply[0]
        return self.reply if same else reply


class Memory:
    """What one rule remembers: bounded, whatever clients do."""

    MOST: ClassVar[int] = 100_000
    """First tries (`Greylist`) and messages (`Quota`); beyond it the oldest is forgotten."""

    def __init__(self, seed: str) -> None:
        self.met = 0
        """Occasions that the rule was about."""
        self.applied = 0
        self.random = Random(seed)
        self.tries: dict[tuple[str, str, str], float] = {}
        """When a client first tried, by its address, reverse-path and recipient."""
        self._sent: deque[Sent] = deque()
        self._totals: dict[str, tuple[int, int]] = {}

    def first_try(self, who: tuple[str, str, str], now: float) -> float:
        """When that was tried first: now, if it wasn't before."""
        first = self.tries.setdefault(who, now)
        if len(self.tries) > self.MOST:
            del self.tries[next(iter(self.tries))]
        return first

    def sent_since(self, then: float, address: str) -> tuple[int, int]:
        """Messages and recipients of that address since then; what is older is forgotten."""
        while self._sent and self._sent[0].at <= then:
            self._add(self._sent.popleft(), -1)
        return self._totals.get(address, (0, 0))

    def note(self, sent: Sent) -> None:
        """A message counts."""
        self._sent.append(sent)
        self._add(sent, 1)
        if len(self._sent) > self.MOST:
            self._add(self._sent.popleft(), -1)

    def take_back(self, sent: Sent) -> None:
        """It doesn't count after all."""
        if sent in self._sent:
            self._sent.remove(sent)
            self._add(sent, -1)

    def _add(self, sent: Sent, sign: int) -> None:
        messages, recipients = self._totals.get(sent.address, (0, 0))
        total = (messages + sign, recipients + sign * sent.recipients)
        if total[0]:
            self._totals[sent.address] = total
        else:
            del self._totals[sent.address]


# -- the rules

_CONTENT = ("DATA", "BDAT", "BDAT LAST", "RETR", "TOP", "LIST", "UIDL", "APPEND", "FETCH")
_CONTENT_COMMANDS = (*_CONTENT, "UID FETCH")
"""Commands with content that can be slow, or broken off in the middle."""
_READ_COMMANDS = ("DATA", "BDAT", "BDAT LAST", "APPEND")
"""Of them those whose content the client sends."""
_NEVER_ASKED = ("DONE", "X<atom>")
"""Of the catalog's commands: the end of IDLE, and what stands for names that nobody knows."""
_REPLY_OCTETS = 510
"""A line of a reply without its CRLF (RFC 5321 section 4.5.3.1.5; RFC 2449 section 4)."""
_SMTP_REPLY = re.compile(
    # A refusal's second digit may be one that RFC 5321 section 4.2.1 doesn't have.
    r"(?P<code>[23][0-5][0-9]|[45][0-9][0-9])(?P<more> (?P<class>\d)\.\d{1,3}\.\d{1,3})?(?: .*)?"
)
_POP3_REPLY = re.compile(r"(?:\+OK|-ERR)(?: .*)?")
_IMAP_REPLY = re.compile(r"(?:OK|NO|BAD|(?:\* )?BYE) .+")


@dataclass(frozen=True, slots=True, repr=False)
class Rule:
    """What all rules are."""

    decides: ClassVar[bool] = True
    """Whether it answers or hangs up, so that the first such rule is the only one."""

    def act(self, occasion: Occasion, memory: Memory, now: float) -> Action | None:
        """What it does on this occasion, or `None`. `now` is in seconds of the network's clock."""
        raise NotImplementedError

    def __repr__(self) -> str:
        """As it can be typed; what is as usual is left out."""
        given = [(field, getattr(self, field.name)) for field in fields(self)]
        told = [repr(value) for field, value in given if field.default is MISSING]
        told += [f"{f.name}={value!r}" for f, value in given if value != f.default is not MISSING]
        return f"{type(self).__name__}({', '.join(told)})"


@dataclass(frozen=True, slots=True, repr=False)
class _AtCommand(Rule):
    """A rule for some occasions of one command.

    `at` is a command by its name in the catalog (`RCPT`, `end of data`, `UID FETCH`), `greeting`
    for the moment a client connects, or `*` for any. `only` is a pattern as file names have it
    (`*@shop.example`) for the address it is about, whatever its letter case: at MAIL the
    reverse-path, at RCPT the recipient, elsewhere the account that has logged in or tries to, else
    the reverse-path of the mail under way; an empty one is for nobody, the null reverse-path.
    `after` so many occasions it begins to hold, with `chance` (0 to 1) each time, until it has
    applied `times` times (`None`: for good). `protocol` is `SMTP`, `POP3` or `IMAP` where more
    than one has that command. `saying` is a pattern like `only`, in SMTP, for what stands behind
    the command, and at `end of data` for the message's first 64 KiB. Raises `ValueError`.
    """

    _: KW_ONLY
    only: str = "*"
    times: int | None = None
    after: int = 0
    chance: float = 1.0
    protocol: ProtocolName | None = None
    saying: str = "*"

    def _check(self, at: object) -> str:
        """The catalog's name for `at`. Raises `ValueError` for what makes no sense."""
        _expect_text("only", self.only)
        if self.times is not None:
            _expect_whole("times", self.times, least=1)
        _expect_whole("after", self.after)
        _expect_number("chance", self.chance, most=1.0)
        if self.protocol not in (None, *PROTOCOLS):
            raise ValueError(f"{self.protocol!r} is no protocol; {', '.join(PROTOCOLS)} are.")
        if not isinstance(self.saying, str):
            raise ValueError(
                f"A rule's saying is a pattern such as '*hello*', not {self.saying!r}."
            )
        if self.saying != "*":
            if self.protocol not in (None, "SMTP") or at == "AUTH":
                raise ValueError("What is said can be looked at in SMTP only, and not at AUTH.")
            object.__setattr__(self, "protocol", "SMTP")
        return _command_name(at, self.protocol)

    def _holds(self, at: str, occasion: Occasion, memory: Memory) -> bool:
        """Whether it applies on this occasion; each one it is about is counted."""
        if at not in ("*", occasion.command):
            return False
        if self.protocol not in (None, occasion.protocol):
            return False
        if not _is_about(self.only, occasion.address) or not _is_about(self.saying, occasion.text):
            return False
        memory.met += 1
        if memory.met <= self.after or memory.applied == self.times:
            return False
        if self.chance < 1.0 and memory.random.random() >= self.chance:
            return False
        memory.applied += 1
        return True


@dataclass(frozen=True, slots=True, repr=False)
class Reply(_AtCommand):
    """Answers the command `at` with `text`: `Reply("RCPT", "451 4.7.1 Not now", times=2)`.

    The text says of itself whether it is for SMTP (`550 5.7.1 No`), POP3 (`-ERR [SYS/TEMP] No`) or
    IMAP (`NO [UNAVAILABLE] No`; the tag is added). A refusal is given instead of obeying the
    command; 421 and `* BYE` end the session as well. Any other text doesn't make up a success: the
    command is obeyed, and the text is what the client hears if it succeeds. In SMTP the text may
    have several lines; the code is added to the further ones.

    A greeting that refuses has its usual consequence: after 4yz and 5yz all that is left to say is
    QUIT (RFC 5321 section 3.1), after `-ERR` and `BYE` the connection ends.
    """

    at: str
    text: str

    def __post_init__(self) -> None:
        protocol = _protocol_of(self.text)
        if self.protocol not in (None, protocol):
            raise ValueError(f"{self.text!r} is a reply of {protocol}, not of {self.protocol}.")
        object.__setattr__(self, "protocol", protocol)
        object.__setattr__(self, "at", self._check(self.at))
        _legal_reply(self.text)
        if self.at != "*":
            _expect_possible(self.text, load(protocol).commands[self.at])

    def act(self, occasion: Occasion, memory: Memory, now: float) -> Action | None:
        return (
            Action(reply=_legal_reply(self.text))
            if self._holds(self.at, occasion, memory)
            else None
        )


@dataclass(frozen=True, slots=True, repr=False)
class Delay(_AtCommand):
    """Waits before the command `at` is obeyed or refused: `Delay("RCPT", 5)`.

    `seconds` is how long; with `most` a random time between both. After it there is each time the
    chance `again` that it waits as long once more. `when` is "before" the command is obeyed, or
    "inside": after the client has been told to go on, but before its content is read (at DATA,
    BDAT, BDAT LAST and APPEND). Several delays add up.
    """

    decides: ClassVar[bool] = False

    at: str
    seconds: float
    most: float | None = None
    _: KW_ONLY
    again: float = 0.0
    when: Literal["before", "inside"] = "before"

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", self._check(self.at))
        if self.when not in ("before", "inside"):
            raise ValueError(f"A server waits before or inside, not {self.when!r}.")
        if self.when == "inside" and self.at not in ("*", *_READ_COMMANDS):
            raise ValueError(f"{self.at} brings no content; {', '.join(_READ_COMMANDS)} do.")
        _expect_number("again", self.again, most=0.99)
        _expect_number("seconds", self.seconds)
        if self.most is not None:
            _expect_number("most", self.most, least=self.seconds)

    def act(self, occasion: Occasion, memory: Memory, now: float) -> Action | None:
        if self.when == "inside" and occasion.command not in _READ_COMMANDS:
            return None
        if not self._holds(self.at, occasion, memory):
            return None
        seconds = self._draw(memory.random)
        while self.again and memory.random.random() < self.again:
            seconds += self._draw(memory.random)
        return Action(stall=seconds) if self.when == "inside" else Action(delay=seconds)

    def _draw(self, random: Random) -> float:
        return self.seconds if self.most is None else random.uniform(self.seconds, self.most)


@dataclass(frozen=True, slots=True, repr=False)
class Throttle(_AtCommand):
    """Lets content through slowly: `Throttle(1000)` is a thousand octets in a second.

    That is what the server reads at DATA, BDAT and APPEND, and what it sends at RETR, TOP, LIST,
    UIDL, FETCH and UID FETCH; `at` may name one of them. Of several the slowest counts.
    """

    decides: ClassVar[bool] = False

    octets_per_second: float
    at: str = "*"

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", self._check(self.at))
        _expect_number("octets_per_second", self.octets_per_second, least=1)
        _expect_content(self.at)

    def act(self, occasion: Occasion, memory: Memory, now: float) -> Action | None:
        if occasion.command in _CONTENT_COMMANDS and self._holds(self.at, occasion, memory):
            return Action(pace=self.octets_per_second)
        return None


@dataclass(frozen=True, slots=True, repr=False)
class Disconnect(_AtCommand):
    """Ends the connection at the command `at`: `Disconnect("end of data", "after")`.

    `when` says at which moment: "before" it is obeyed, so that nothing has happened; "inside" its
    content, when `octets` of it have passed (what comes in at DATA, BDAT, BDAT LAST and APPEND,
    what goes out at RETR, TOP, LIST, UIDL, FETCH and UID FETCH; less content passes as ever); or
    "after" it has been obeyed, but before the client is told: the message is stored, and the
    client, which can't know, sends it once more. `text` are the server's last words, if any.
    """

    at: str
    when: Literal["before", "inside", "after"] = "before"
    octets: int = 0
    text: str = ""

    def __post_init__(self) -> None:
        if self.text != "":
            protocol = _protocol_of(self.text)
            if self.protocol not in (None, protocol):
                raise ValueError(f"{self.text!r} is a reply of {protocol}, not of {self.protocol}.")
            object.__setattr__(self, "protocol", protocol)
            _legal_reply(self.text)
            if protocol == "IMAP" and not self.text.startswith(("BYE", "* BYE")):
                raise ValueError(f"An IMAP server's last word is BYE, not {self.text!r}.")
        object.__setattr__(self, "at", self._check(self.at))
        if self.when not in ("before", "inside", "after"):
            raise ValueError(f"A connection ends before, inside or after, not {self.when!r}.")
        _expect_whole("octets", self.octets)
        if self.when == "inside":
            _expect_content(self.at)
        elif self.octets:
            raise ValueError(f"Octets are counted only inside content, not {self.when} a command.")

    def act(self, occasion: Occasion, memory: Memory, now: float) -> Action | None:
        if self.when == "inside" and occasion.command not in _CONTENT_COMMANDS:
            return None
        if not self._holds(self.at, occasion, memory):
            return None
        return Action(reply=_legal_reply(self.text), disconnect=self.when, octets=self.octets)


@dataclass(frozen=True, slots=True, repr=False)
class Quota(Rule):
    """How much an account may send by SMTP in `seconds`, by default a day: `Quota(500)`.

    `messages` and `recipients` are counted for the account that has logged in, without login for
    the reverse-path, over the last `seconds` of the network's clock. Only what was accepted counts.
    One message too many is refused with `text` when it is complete. The wording is Google's.
    `only` is a pattern for the accounts it is about. Raises `ValueError`.
    """

    messages: int
    _: KW_ONLY
    recipients: int | None = None
    seconds: float = 86400.0
    text: str = "550 5.4.5 Daily user sending limit exceeded."
    only: str = "*"

    def __post_init__(self) -> None:
        _expect_whole("messages", self.messages, most=Memory.MOST)
        if self.recipients is not None:
            _expect_whole("recipients", self.recipients)
        _expect_number("seconds", self.seconds)
        _expect_smtp_refusal(self.text)
        _expect_text("only", self.only)

    def act(self, occasion: Occasion, memory: Memory, now: float) -> Action | None:
        if occasion.command not in ("end of data", "BDAT LAST") or not occasion.recipients:
            return None
        if not _is_about(self.only, occasion.address):
            return None
        address = occasion.address.casefold()
        messages, recipients = memory.sent_since(now - self.seconds, address)
        most = math.inf if self.recipients is None else self.recipients
        if messages >= self.messages or recipients + occasion.recipients > most:
            return Action(reply=_legal_reply(self.text))
        return Action(sent=Sent(now, address, occasion.recipients))


@dataclass(frozen=True, slots=True, repr=False)
class Greylist(Rule):
    """Puts strangers off for `seconds` after their first try (RFC 6647): `Greylist(300)`.

    A stranger is a client's address together with a reverse-path and a recipient; whoever has
    logged in is none. `only` is a pattern for the recipients it is about. Like every rule it is
    asked before the server looks at the recipient, so an unknown one is put off first, too. Raises
    `ValueError`.
    """

    seconds: float = 300.0
    text: str = "451 4.7.1 Greylisted, please try again later"
    _: KW_ONLY
    only: str = "*"

    def __post_init__(self) -> None:
        _expect_number("seconds", self.seconds)
        _expect_smtp_refusal(self.text)
        _expect_text("only", self.only)

    def act(self, occasion: Occasion, memory: Memory, now: float) -> Action | None:
        if occasion.command != "RCPT" or occasion.reverse_path is None or occasion.logged_in:
            return None
        if not _is_about(self.only, occasion.address):
            return None
        who = (occasion.client, occasion.reverse_path.casefold(), occasion.address.casefold())
        waited = now - memory.first_try(who, now)
        return Action(reply=_legal_reply(self.text)) if waited < self.seconds else None


# -- what may be said in them


def _is_about(only: str, address: str) -> bool:
    return only == "*" or fnmatchcase(address.casefold(), only.casefold())


def _command_name(at: object, protocol: ProtocolName | None) -> str:
    """The catalog's name for a command, whatever its letter case. Raises `ValueError`."""
    known = {
        verb.casefold(): verb
        for each in ((protocol,) if protocol else PROTOCOLS)
        for verb in load(each).commands
        if verb not in _NEVER_ASKED
    }
    if not isinstance(at, str):
        raise ValueError(f"A rule is at a command, such as 'RCPT', or at '*', not at {at!r}.")
    if at == "*":
        return at
    if at.casefold() not in known:
        near = [known[name] for name in difflib.get_close_matches(at.casefold(), known)]
        there_are = f"is {near[0]} meant?" if near else f"{', '.join(known.values())} are."
        raise ValueError(f"{at!r} is no command{f' of {protocol}' * bool(protocol)}; {there_are}")
    return known[at.casefold()]


def _protocol_of(text: object) -> ProtocolName:
    """Whose reply that is. Raises `ValueError` where it is nobody's, or no legal line."""
    if isinstance(text, str):
        first, *others = text.split("\n")
        if all(line.isascii() and (line.isprintable()) for line in (first, *others)):
            if _SMTP_REPLY.fullmatch(first):
                return "SMTP"
            if not others and _POP3_REPLY.fullmatch(first):
                return "POP3"
            if not others and _IMAP_REPLY.fullmatch(first):
                return "IMAP"
    raise ValueError(
        f"{text!r} is no reply; '550 5.7.1 No' (SMTP), '-ERR No' (POP3), 'NO No' and 'BYE No' "
        "(IMAP) are, in printable US-ASCII, and only SMTP's may have several lines."
    )


def _legal_reply(text: str) -> str:
    """The reply as it is sent, without the last CRLF. Raises `ValueError`."""
    first, *others = text.split("\n")
    lines = [f"* {first}" if first.startswith("BYE ") else first]
    if form := _SMTP_REPLY.fullmatch(first):
        code, more = form["code"], form["more"] or ""
        if more and form["class"] != code[0]:
            raise ValueError(f"After {code} an enhanced status code begins with {code[0]}.")
        lines += [f"{code}{more} {line}" for line in others]
        lines = [f"{line[:3]}-{line[4:]}" for line in lines[:-1]] + lines[-1:]
    for line in lines:
        if len(line) > _REPLY_OCTETS:
            raise ValueError(
                f"A line of a reply may have {_REPLY_OCTETS} octets; {line[:9]!r}… has {len(line)}."
            )
    return "\r\n".join(lines)


def smtp_reply(text: str) -> str:
    """An SMTP reply as it is sent, without the last CRLF. Raises `ValueError` for any other."""
    if _protocol_of(text) != "SMTP":
        raise ValueError(f"{text!r} is no reply of SMTP; '550 5.7.1 No' is.")
    return _legal_reply(text)


def _expect_possible(text: str, command: Command) -> None:
    """Raise `ValueError` for a success that this command never has, so it would never be said."""
    if text[0] in "23" and not any(code[0] == text[0] for code, _ in command.replies):
        codes = ", ".join(code for code, _ in command.replies)
        raise ValueError(f"A {text[:3]} never answers {command.verb}; {codes} do.")
    if command.verb == "greeting" and text.startswith(("NO", "BAD")):
        raise ValueError(f"IMAP greets with OK or BYE, not with {text.split()[0]}.")


def _expect_smtp_refusal(text: str) -> None:
    if _protocol_of(text) != "SMTP" or _legal_reply(text)[0] not in "45":
        raise ValueError(f"{text!r} doesn't refuse; a reply such as '451 4.7.1 Not now' does.")


def _expect_content(at: str) -> None:
    if at != "*" and at not in _CONTENT_COMMANDS:
        raise ValueError(f"{at} has no content; {', '.join(_CONTENT_COMMANDS)} have.")


def _expect_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise ValueError(f"A rule's {name} is a pattern such as '*@shop.example', not {value!r}.")


def _expect_whole(name: str, value: object, least: int = 0, most: float = math.inf) -> None:
    if type(value) is not int or not least <= value <= most:
        to = "" if most == math.inf else f" to {most}"
        raise ValueError(f"A rule's {name} is a whole number from {least}{to}, not {value!r}.")


def _expect_number(name: str, value: object, least: float = 0, most: float = 1e9) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"A rule's {name} is a number from {least:g} to {most:g}, not {value!r}.")
