"""What was said means: the one place that knows the commands and replies of SMTP, POP3 and IMAP.

The knowledge itself stands in the tables `data/smtp.toml`, `data/pop3.toml`, `data/imap.toml` and
`data/enhanced.toml`; `load` and `enhanced` give them as frozen values. Read against them, a
session tells what each line means (`explain`), where it left the rules (`legal`), and which way
it took through the states (`path`). Nothing here does I/O besides reading those tables, and
nothing decides how a meaning is shown.
"""

from __future__ import annotations

import re
import tomllib
from abc import ABC, abstractmethod
from base64 import b64decode
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any, Literal

from labserver.transcript import Line, ProtocolName, Session, readable

Outcome = Literal["done", "go on", "later", "refused", ""]
"""What a reply says: 2yz, 3yz, 4yz, 5yz in SMTP; `+OK` and `-ERR`, `OK`, `NO` and `BAD` likewise."""

PROTOCOLS: tuple[ProtocolName, ...] = ("SMTP", "POP3", "IMAP")


# -- the tables


@dataclass(frozen=True, slots=True)
class Command:
    """What a client can say, or a moment that the server answers without being told to."""

    verb: str
    """As it is typed, `EHLO`, `UID FETCH`; in small letters where nothing is typed: `greeting`."""
    syntax: str
    title: str
    """One short sentence said of such a line."""
    meaning: str
    states: tuple[str, ...]
    """The states it is allowed in."""
    replies: tuple[tuple[str, str], ...]
    """Each reply code it can draw, and what that means here."""
    sources: tuple[str, ...]
    anchor: str
    once: bool = False
    """Whether it may succeed only once in a session."""

    @property
    def typed(self) -> bool:
        """Whether the client types it (the greeting and the end of data just happen)."""
        return self.verb.isupper()


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply code (SMTP), a status (POP3, IMAP), whatever command it answers."""

    code: str
    outcome: Outcome
    word: str
    """Said beside the code: `250 done`, `354 go on`."""
    title: str
    meaning: str
    sources: tuple[str, ...]
    anchor: str


@dataclass(frozen=True, slots=True)
class Term:
    """A named thing with a meaning: a capability, a response code, a flag, a digit, a state."""

    name: str
    title: str
    meaning: str
    sources: tuple[str, ...]
    anchor: str
    outcome: Outcome = ""
    """What a response code makes of the reply it stands in, where it changes it."""


@dataclass(frozen=True, slots=True)
class Transition:
    """In this state, this command with this outcome leads to that state."""

    state: str
    command: str
    """A verb, or `*` for whatever was asked (or nothing)."""
    outcome: str
    """An `Outcome`, or a reply code where only that code leads there: `421`, `PREAUTH`."""
    to: str


@dataclass(frozen=True, slots=True)
class Note:
    """What to say of a line in one special situation; `{…}` stands for a value from the line."""

    title: str
    detail: str
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EnhancedStatus:
    """An enhanced status code such as 5.1.1 (RFC 3463)."""

    code: str
    title: str
    meaning: str
    category: str
    """What its first number says."""
    subject: str
    """What its second number says."""
    sources: tuple[str, ...]
    anchor: str


@dataclass(frozen=True, slots=True)
class Catalog:
    """All that is known of one protocol. Each mapping keeps the order of its table."""

    protocol: ProtocolName
    title: str
    commands: Mapping[str, Command]
    replies: Mapping[str, Reply]
    everywhere: tuple[tuple[str, str], ...]
    """Reply codes that any command can draw, and what each means then."""
    keywords: Mapping[str, Term]
    """Extensions (SMTP) and capabilities (POP3, IMAP) that a server names."""
    codes: Mapping[str, Term]
    """Response codes in square brackets (POP3, IMAP)."""
    data: Mapping[str, Term]
    """What an IMAP server tells in untagged responses."""
    flags: Mapping[str, Term]
    digits: Mapping[str, Term]
    """What the digits of an SMTP reply code say: `2yz` … `5yz`, `x0z` … `x5z`."""
    states: Mapping[str, Term]
    """The first is the one that a connection starts in."""
    transitions: tuple[Transition, ...]
    notes: Mapping[str, Note]

    @property
    def start(self) -> str:
        """The state of a new connection."""
        return next(iter(self.states))

    def after(self, state: str, verb: str, code: str, outcome: str) -> str:
        """The state that a reply leads to; the same state where nothing changes."""
        ways = {(t.state, t.command, t.outcome): t.to for t in self.transitions}
        for way in ((verb, code), (verb, outcome), ("*", code)):
            if (state, *way) in ways:
                return ways[(state, *way)]
        return state


@cache
def load(protocol: ProtocolName) -> Catalog:
    """The catalog of `SMTP`, `POP3` or `IMAP`. Raises ValueError for another name."""
    if protocol not in PROTOCOLS:
        raise ValueError(f"No catalog of {protocol!r}: it holds {', '.join(PROTOCOLS)}.")
    table = _table(protocol.lower())
    prefix = protocol.lower()

    def terms(section: str, kind: str) -> Mapping[str, Term]:
        return MappingProxyType(
            {
                name: Term(
                    name,
                    entry["title"],
                    entry["meaning"],
                    tuple(entry["sources"]),
                    _anchor(prefix, kind, name),
                    entry.get("outcome", ""),
                )
                for name, entry in table.get(section, {}).items()
            }
        )

    commands = {
        verb: Command(
            verb,
            entry.get("syntax", ""),
            entry["title"],
            entry["meaning"],
            tuple(entry["states"]),
            tuple(entry.get("replies", {}).items()),
            tuple(entry["sources"]),
            _anchor(prefix, verb),
            entry.get("once", False),
        )
        for verb, entry in table["commands"].items()
    }
    replies = {
        code: Reply(
            code,
            entry["outcome"],
            entry.get("word", entry["outcome"]),
            entry["title"],
            entry["meaning"],
            tuple(entry["sources"]),
            _anchor(prefix, code),
        )
        for code, entry in table["replies"].items()
    }
    transitions = [
        Transition(state, entry["command"], entry["outcome"], entry["to"])
        for entry in table["transitions"]
        for state in entry["from"]
    ]
    notes = {
        name: Note(entry["title"], entry.get("detail", ""), tuple(entry.get("sources", ())))
        for name, entry in table["notes"].items()
    }
    return Catalog(
        protocol=protocol,
        title=table["title"],
        commands=MappingProxyType(commands),
        replies=MappingProxyType(replies),
        everywhere=tuple(table["everywhere"].items()),
        keywords=terms("keywords", "keyword"),
        codes=terms("codes", "code"),
        data=terms("data", "untagged"),
        flags=terms("flags", "flag"),
        digits=terms("digits", "digit"),
        states=terms("states", "state"),
        transitions=tuple(transitions),
        notes=MappingProxyType(notes),
    )


@cache
def _table(name: str) -> dict[str, Any]:
    file = resources.files("labserver") / "data" / f"{name}.toml"
    return tomllib.loads(file.read_text("utf-8"))


def _anchor(*parts: str) -> str:
    """The place of a thing in the reference page: `smtp-ehlo`, `imap-untagged-list`."""
    if parts[-1] == "+":
        parts = (*parts[:-1], "continuation")
    return re.sub(r"[^a-z0-9]+", "-", " ".join(parts).lower()).strip("-")


_ENHANCED = re.compile(r"([245])\.([0-9]{1,3})\.([0-9]{1,3})", re.ASCII)


def enhanced(code: str) -> EnhancedStatus:
    """What an enhanced status code says, such as `5.1.1`.

    A code that isn't registered still means what its class and its subject mean
    (RFC 3463 section 2). Raises ValueError for what isn't of the form class.subject.detail.
    """
    match = _ENHANCED.fullmatch(code)
    if match is None:
        raise ValueError(f"{code!r} is no enhanced status code; one looks like 5.1.1.")
    table = _table("enhanced")
    category, subject, _ = match.groups()
    about = table["subjects"].get(subject)
    entry = table["details"].get(code[2:])
    if entry is None:
        entry = about or table["unknown"]
    return EnhancedStatus(
        code,
        entry["title"],
        entry["meaning"],
        table["classes"][category]["meaning"],
        (about or table["unknown"])["meaning"],
        tuple(entry["sources"]),
        _anchor("enhanced", code),
    )


def enhanced_statuses() -> tuple[EnhancedStatus, ...]:
    """Every enhanced status code of the table, in each class that it is used in."""
    return tuple(
        enhanced(f"{category}.{detail}")
        for detail, entry in _table("enhanced")["details"].items()
        for category in entry["classes"]
    )


def source_url(source: str) -> str:
    """The address where a source such as `RFC 5321 §4.1.1.2` can be read.

    Raises ValueError for what isn't written like the catalog's sources.
    """
    rfc = re.fullmatch(r"RFC ([0-9]+)(?: §([0-9]+(?:\.[0-9]+)*)| Appendix ([A-Z]))?", source)
    if rfc:
        number, section, appendix = rfc.groups()
        part = f"#section-{section}" if section else f"#appendix-{appendix}" if appendix else ""
        return f"https://www.rfc-editor.org/rfc/rfc{number}{part}"
    if source == "IANA SMTP Enhanced Status Codes":
        return "https://www.iana.org/assignments/smtp-enhanced-status-codes/"
    if re.fullmatch(r"draft-[a-z0-9-]+", source):
        return f"https://datatracker.ietf.org/doc/{source}/"
    raise ValueError(f"{source!r} is no source of the catalog; one looks like RFC 5321 §4.1.")


# -- reading a session against them


@dataclass(frozen=True, slots=True)
class Meaning:
    """What one line of a session means."""

    title: str
    """One short sentence said of this very line; empty where there is nothing to say."""
    detail: str
    """One to three sentences more: what it means and why."""
    outcome: Outcome
    """Of the line that completes a reply; else empty."""
    label: str
    """The chip of such a line: `250 done`, `550 refused`, `+OK`."""
    also: tuple[tuple[str, str], ...]
    """What else the server could have said here: the code, and what it would have meant."""
    sources: tuple[str, ...]
    anchor: str
    """The place in the reference page; empty where it has none."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Where a dialogue leaves the rules."""

    line: int
    sentence: str


@dataclass(frozen=True, slots=True)
class Step:
    """One command, or moment, on the way of a session through the states."""

    line: int
    """Index of the command's line; of the reply's, where nothing was typed."""
    before: str
    command: str
    """Its verb; empty for a line that is no command."""
    reply: str
    """The code that answered it; empty while it is unanswered."""
    after: str


def explain(session: Session) -> tuple[Meaning, ...]:
    """What each line of the session means, in the order of `session.lines`. Never raises."""
    reading = _READINGS[session.protocol](session)
    return tuple(map(reading.meaning, range(len(session.lines))))


def legal(session: Session) -> tuple[Problem, ...]:
    """Where the dialogue leaves the rules; empty when it is legal.

    Each command has to be known and allowed in its state, and each reply has to be one that
    the catalog knows for its command. A dialogue that just stops is legal.
    """
    return _READINGS[session.protocol](session).problems


def path(session: Session) -> tuple[Step, ...]:
    """The session's way through the states, one step for each command and moment."""
    return tuple(
        Step(e.line, e.before, e.verb, e.code, e.after)
        for e in _READINGS[session.protocol](session).exchanges
        if e.code or e.typed
    )


@dataclass(slots=True)
class _Exchange:
    """One command and all that belongs to it, or a moment, or something nobody asked for."""

    verb: str
    """The catalog's name for it; empty where it has none."""
    line: int
    typed: bool
    text: str = ""
    """What the client typed after the verb; of an unknown command, all of it."""
    tag: str = ""
    said: list[int] = field(default_factory=list)
    """The client's further lines: credentials, content, the rest after a literal."""
    replies: list[int] = field(default_factory=list)
    code: str = ""
    """The reply that settled it."""
    settled: int = -1
    """That reply's line."""
    before: str = ""
    after: str = ""
    earlier: frozenset[str] = frozenset()
    """What had succeeded before it."""
    certain: bool = True
    """Whether all before it was answered, so that the state is known."""


_MAX_QUOTE = 24


def _text(line: Line) -> str:
    """A line as harmless text, without its line end."""
    return readable(line.data.rstrip(b"\r\n"))


def _first_sentence(text: str) -> tuple[str, str]:
    """The first sentence of a text, and the rest."""
    first, _, rest = text.partition(". ")
    return (first + ".", rest) if rest else (text, "")


def _joined(*sentences: str) -> str:
    return " ".join(sentence for sentence in sentences if sentence)


def _once(sources: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(sources))


def _octets(number: int) -> str:
    for unit, name in ((1024 * 1024, "MiB"), (1024, "KiB")):
        if number >= unit and number % unit == 0:
            return f"{number // unit:,} {name}"
    return f"{number:,} octet{'' if number == 1 else 's'}"


class _Reading(ABC):
    """A session, its lines put together to exchanges and walked through the states."""

    protocol: ProtocolName

    def __init__(self, session: Session) -> None:
        self.catalog = load(self.protocol)
        self.session = session
        self.lines = session.lines
        self.greeting = _Exchange("greeting", -1, typed=False)
        self.exchanges = self._pair()
        self.owner = {i: e for e in self.exchanges for i in (e.line, *e.said, *e.replies)}
        self._walk()
        self.problems = tuple(sorted(self._find_problems(), key=lambda p: p.line))
        self.trouble = {problem.line: problem.sentence for problem in self.problems}

    # -- what a protocol adds

    @abstractmethod
    def _pair(self) -> list[_Exchange]:
        """Every line put into one exchange."""

    @abstractmethod
    def _reply(self, i: int, e: _Exchange) -> Meaning:
        """What a line of the server's means."""

    def _outcome(self, code: str) -> Outcome:
        reply = self.catalog.replies.get(code)
        return reply.outcome if reply else ""

    def _note_on(self, i: int, e: _Exchange) -> Note | None:
        """What this situation makes of a command, where the command's own text won't do."""
        return None

    def _more(self, i: int, e: _Exchange) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Sentences to add to a command, with their sources."""
        yield from ()

    def _credentials(self, i: int, e: _Exchange) -> Note:
        return self._note("credentials")

    # -- the walk

    def _walk(self) -> None:
        state, earlier, certain = self.catalog.start, frozenset[str](), True
        for e in self.exchanges:
            e.before, e.earlier, e.certain = state, earlier, certain
            outcome = self._outcome(e.code)
            state = e.after = self.catalog.after(state, e.verb, e.code, outcome)
            if outcome == "done":
                # Under fresh TLS everything said before is forgotten.
                started = e.verb in ("STARTTLS", "STLS")
                earlier = frozenset([e.verb]) if started else earlier | {e.verb}
            certain = certain and (bool(e.code) or not e.typed)

    def _find_problems(self) -> Iterator[Problem]:
        for e in self.exchanges:
            if e.typed and (sentence := self._trouble_asking(e)):
                yield Problem(e.line, sentence)
            if e.replies and (sentence := self._trouble_answering(e)):
                yield Problem(e.replies[-1], sentence)

    def _trouble_asking(self, e: _Exchange) -> str:
        command = self.catalog.commands.get(e.verb)
        if command is None:
            return f"{self._quote(e)} is no {self.protocol} command."
        if e.line < self.greeting.line:
            return f"{e.verb} came too early: the client has to wait for the greeting."
        if e.certain and e.before not in command.states:
            states = ", ".join(command.states)
            return f"{e.verb} isn't allowed in the state {e.before}, only in: {states}."
        if command.once and e.verb in e.earlier:
            return f"{e.verb} has already succeeded; it may do so only once."
        if e.verb in ("STARTTLS", "STLS") and self.lines[e.line].tls:
            return f"{e.verb} isn't allowed here: the connection is already under TLS."
        return ""

    def _trouble_answering(self, e: _Exchange) -> str:
        command = self.catalog.commands.get(e.verb)
        known = {code for code, _ in (*(command.replies if command else ()), *self.catalog.everywhere)}
        if not e.verb and not e.typed:
            # Closing down is the server's right at any time.
            return "" if e.code in ("421", "BYE") else "Nothing was asked that this could answer."
        if e.settled >= 0 and e.code not in known:
            what = f"an answer to {e.verb}" if e.verb and e.verb.isupper() else "an answer here"
            return f"{e.code or 'This'} isn't {what} that {self.protocol} knows."
        return ""

    def _quote(self, e: _Exchange) -> str:
        """The beginning of a line that is no command, without anything secret."""
        if self.lines[e.line].secret:
            return "This line"
        word = e.text.split(" ", 1)[0]
        return f"“{word[:_MAX_QUOTE]}”" if word else "An empty line"

    # -- meanings

    def meaning(self, i: int) -> Meaning:
        line, e = self.lines[i], self.owner[i]
        if line.who == "S":
            return self._reply(i, e)
        anchor = self._command_anchor(e)
        if line.kind == "content":
            return self._noted(self._content(i, e), anchor)
        if line.kind == "end":
            return self._noted(self._note("end"), anchor)
        if line.kind == "credentials":
            return self._noted(self._credentials(i, e), anchor)
        return self._command(i, e)

    def _command(self, i: int, e: _Exchange) -> Meaning:
        command = self.catalog.commands.get(e.verb)
        if command is None:
            note = self._note_on(i, e) or self._note("unknown", word=self._quote(e))
            return self._noted(note, "")
        note = self._note_on(i, e) or Note(command.title, command.meaning, ())
        title, detail = note.title, note.detail
        if i in self.trouble:
            title, detail = self.trouble[i], _joined(title, detail)
        more = list(self._more(i, e))
        return Meaning(
            title=title,
            detail=_joined(detail, *(sentence for sentence, _ in more)),
            outcome="",
            label="",
            also=(),
            sources=_once([*note.sources, *command.sources, *(s for _, own in more for s in own)]),
            anchor=command.anchor,
        )

    def _content(self, i: int, e: _Exchange) -> Note:
        line = self.lines[i]
        note = self._note("content", octets=_octets(line.octets))
        detail, sources = note.detail, note.sources
        for name, present in (
            ("content-stuffed", line.data.startswith(b"..") or b"\r\n.." in line.data),
            ("content-shortened", line.shortened),
        ):
            if present and name in self.catalog.notes:
                more = self._note(name, octets=_octets(len(line.data)))
                detail, sources = _joined(detail, more.detail), (*sources, *more.sources)
        return Note(note.title, detail, sources)

    def _note(self, name: str, **values: object) -> Note:
        note = self.catalog.notes[name]
        return Note(note.title.format(**values), note.detail.format(**values), note.sources)

    def _noted(self, note: Note, anchor: str) -> Meaning:
        return Meaning(note.title, note.detail, "", "", (), note.sources, anchor)

    def _command_anchor(self, e: _Exchange) -> str:
        command = self.catalog.commands.get(e.verb)
        return command.anchor if command else ""

    def _place(self, e: _Exchange, code: str) -> str:
        """What a code means as the answer to this command; empty where the catalog is silent."""
        command = self.catalog.commands.get(e.verb)
        own = dict(command.replies) if command else {}
        return own.get(code, dict(self.catalog.everywhere).get(code, ""))

    def _also(self, e: _Exchange, code: str) -> tuple[tuple[str, str], ...]:
        command = self.catalog.commands.get(e.verb)
        own = command.replies if command else ()
        return tuple((other, _first_sentence(text)[0]) for other, text in own if other != code)


class _SmtpReading(_Reading):
    protocol: ProtocolName = "SMTP"

    _REPLY = re.compile(r"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)
    _PARAMETERS = re.compile(r"\b(SIZE|BODY|SMTPUTF8|AUTH|RET|ENVID|NOTIFY|ORCPT)(?:=(\S*))?", re.I)

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.accepted: dict[int, int] = {}
        """For each command's line, how many recipients its transaction had by then."""
        recipients = 0
        for e in self.exchanges:
            if e.verb in ("MAIL", "RSET", "EHLO", "HELO"):
                recipients = 0
            self.accepted[e.line] = recipients
            recipients += e.verb == "RCPT" and self._outcome(e.code) == "done"

    def _pair(self) -> list[_Exchange]:
        exchanges, waiting = [self.greeting], deque([self.greeting])
        for i, line in enumerate(self.lines):
            if line.who == "C" and line.kind in ("content", "credentials"):
                exchanges[-1].said.append(i)
            elif line.who == "C":
                exchanges.append(self._asked(i, line))
                waiting.append(exchanges[-1])
            else:
                if not waiting:
                    exchanges.append(_Exchange("", i, typed=False))
                    waiting.append(exchanges[-1])
                e = waiting[0]
                e.line = e.line if e.line >= 0 else i
                e.replies.append(i)
                code, last, _ = self._parts(i)
                if last and not (e.verb == "AUTH" and code == "334"):
                    e.code, e.settled = code, i
                    waiting.popleft()
        return [e for e in exchanges if e.line >= 0]

    def _asked(self, i: int, line: Line) -> _Exchange:
        if line.kind == "end":
            return _Exchange("end of data", i, typed=True)
        text = _text(line).strip()
        verb, _, rest = text.partition(" ")
        verb = verb.upper()
        if verb == "BDAT" and rest.upper().endswith(" LAST"):
            verb = "BDAT LAST"
        if verb in self.catalog.commands:
            return _Exchange(verb, i, typed=True, text=rest.strip())
        return _Exchange("", i, typed=True, text=text)

    def _parts(self, i: int) -> tuple[str, bool, str]:
        """A reply line's code, whether it is its reply's last line, and its text."""
        match = self._REPLY.fullmatch(_text(self.lines[i]))
        if match is None:
            return "", True, _text(self.lines[i])
        return match[1], match[2] != "-", match[3] or ""

    def _outcome(self, code: str) -> Outcome:
        outcomes: dict[str, Outcome] = {"2": "done", "3": "go on", "4": "later", "5": "refused"}
        return outcomes.get(code[:1], "")

    # -- commands

    def _note_on(self, i: int, e: _Exchange) -> Note | None:
        line = self.lines[i]
        if not e.verb and line.data.startswith(b"\x16\x03"):
            return self._note("tls-hello")
        if e.verb in ("EHLO", "HELO") and "STARTTLS" in e.earlier and "EHLO" not in e.earlier:
            return self._note("ehlo-after-tls")
        if e.verb in ("EHLO", "HELO") and e.earlier & {"EHLO", "HELO"}:
            return self._note("ehlo-again")
        if e.verb == "MAIL" and re.match(r"FROM: ?<>", e.text, re.I):
            return self._note("mail-null")
        if e.verb == "RCPT" and self.accepted[e.line]:
            return self._note("rcpt-next")
        if e.verb == "AUTH":
            mechanism = e.text.split(" ", 1)[0].upper()
            name = f"auth-{mechanism.lower() if mechanism in ('PLAIN', 'LOGIN') else 'other'}"
            note = self._note(name, mechanism=mechanism[:_MAX_QUOTE])
            return self._exposed(note, line) if name != "auth-other" else note
        return None

    def _exposed(self, note: Note, line: Line) -> Note:
        """A note on a password, with what TLS, or its absence, does to it."""
        more = self._note("secret-under-tls" if line.tls else "secret-in-the-clear")
        title = note.title if line.tls else more.title
        return Note(title, _joined(note.detail, more.detail), (*note.sources, *more.sources))

    def _more(self, i: int, e: _Exchange) -> Iterator[tuple[str, tuple[str, ...]]]:
        line = self.lines[i]
        if e.verb in ("MAIL", "RCPT"):
            for match in self._PARAMETERS.finditer(e.text.partition(">")[2]):
                note = self._note(f"parameter-{match[1].lower()}")
                yield note.title, note.sources
        if line.data.endswith(b"\n") and not line.data.endswith(b"\r\n"):
            note = self._note("bare-lf")
            yield note.title, note.sources
        if line.octets > 512 and e.verb != "AUTH":
            note = self._note("long-line", octets=_octets(line.octets))
            yield note.title, note.sources

    def _credentials(self, i: int, e: _Exchange) -> Note:
        line = self.lines[i]
        if line.data.strip() == b"*":
            return self._note("credentials-cancelled")
        mechanism = e.text.split(" ", 1)[0].upper()
        if mechanism == "LOGIN":
            # The name may have come with the command already.
            place = e.said.index(i) + (" " in e.text)
            name = "credentials-user" if place == 0 else "credentials-password"
        else:
            name = "credentials-plain" if mechanism == "PLAIN" else "credentials"
        note = self._note(name)
        return note if name in ("credentials", "credentials-user") else self._exposed(note, line)

    # -- replies

    def _reply(self, i: int, e: _Exchange) -> Meaning:
        code, last, text = self._parts(i)
        if not code:
            return self._noted(self._note("no-reply"), "")
        at = e.replies.index(i)
        first = at == 0 or self._parts(e.replies[at - 1])[1]
        reply = self.catalog.replies.get(code)
        outcome = self._outcome(code)
        label = f"{code} {reply.word if reply else outcome}"
        anchor = reply.anchor if reply else ""
        if not first and e.verb == "EHLO" and code == "250":
            meaning = self._keyword(text)
        elif not first:
            meaning = self._noted(Note("", "", ()), anchor)
        else:
            meaning = self._answer(i, e, code, text)
        return Meaning(
            meaning.title,
            meaning.detail,
            outcome if last else "",
            label if last else "",
            meaning.also,
            meaning.sources,
            meaning.anchor or anchor,
        )

    def _keyword(self, text: str) -> Meaning:
        """An extension named in the answer to EHLO."""
        name, _, value = text.partition(" ")
        term = self.catalog.keywords.get(name.upper())
        if term is None:
            return self._noted(self._note("keyword-unknown", name=name[:_MAX_QUOTE]), "")
        title = term.title
        if term.name == "SIZE" and re.fullmatch(r"[0-9]{1,15}", value) and int(value):
            title = self._note("size", size=_octets(int(value))).title
        if term.name == "AUTH" and value:
            title = self._note("mechanisms", names=", ".join(value.split()[:8])).title
        return Meaning(title, term.meaning, "", "", (), term.sources, term.anchor)

    def _answer(self, i: int, e: _Exchange, code: str, text: str) -> Meaning:
        """The first line of a reply."""
        reply = self.catalog.replies.get(code)
        title, detail = _first_sentence(self._place(e, code))
        sources = list(self._sources(e))
        if e.verb == "AUTH" and code == "334":
            note = self._challenge(text)
            title, detail, sources = note.title, note.detail, [*note.sources, *sources]
        elif e.verb == "EHLO" and code == "250":
            note = self._extensions(i, e)
            title, detail = note.title, _joined(note.detail, detail)
        elif e.verb == "RCPT" and self._outcome(code) in ("later", "refused"):
            if not self.accepted[e.line] and code[1] == "5":
                title = self._note("rcpt-refused-first").title
        if not title and reply:
            title, detail = reply.title, reply.meaning
        digit = self.catalog.digits[f"{code[0]}yz"]
        if not title:
            title = digit.title
        if code[0] in "45" or not reply:
            detail = _joined(detail, f"{digit.name}: {digit.meaning}")
            sources += digit.sources
        status = re.match(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: |$)", text, re.ASCII)
        if status and status[1][0] == code[0]:
            known = enhanced(status[1])
            detail = _joined(detail, f"{known.code}: {known.title}")
            sources += known.sources
        if reply:
            sources += reply.sources
        anchor = reply.anchor if reply else ""
        return Meaning(title, detail, "", "", self._also(e, code), _once(sources), anchor)

    def _sources(self, e: _Exchange) -> tuple[str, ...]:
        command = self.catalog.commands.get(e.verb)
        return command.sources[:1] if command else ()

    def _extensions(self, i: int, e: _Exchange) -> Note:
        """What the whole answer to EHLO says at its first line."""
        names = {self._parts(j)[2].split(" ", 1)[0].upper() for j in e.replies if j > i}
        if not names:
            return self._note("no-extensions")
        if "STARTTLS" in names and "AUTH" not in names:
            return self._note("extensions-before-tls")
        return self._note("extensions")

    def _challenge(self, text: str) -> Note:
        """A 334: base64 of what the mechanism asks, or nothing."""
        if not text.strip():
            return self._note("challenge-empty")
        try:
            asked = b64decode(text.strip(), validate=True).decode("ascii").rstrip(":\0").lower()
        except ValueError:
            return self._note("challenge")
        names = {"username": "challenge-user", "user name": "challenge-user"}
        return self._note({**names, "password": "challenge-password"}.get(asked, "challenge"))


class _Pop3Reading(_Reading):
    protocol: ProtocolName = "POP3"

    _REPLY = re.compile(r"(\+OK|-ERR|\+)(?: (?:\[([^\]]*)\] ?)?(.*))?", re.I | re.DOTALL)

    def _pair(self) -> list[_Exchange]:
        exchanges, waiting = [self.greeting], deque([self.greeting])
        answering = self.greeting
        for i, line in enumerate(self.lines):
            if line.who == "C" and line.kind in ("content", "credentials"):
                exchanges[-1].said.append(i)
            elif line.who == "C":
                exchanges.append(self._asked(i, line))
                waiting.append(exchanges[-1])
            elif line.kind == "reply" and self._status(i) and waiting:
                answering = waiting[0]
                answering.line = answering.line if answering.line >= 0 else i
                answering.replies.append(i)
                status = self._status(i)
                if status != "+":
                    answering.code, answering.settled = status, i
                    waiting.popleft()
            elif answering.code == "+OK" and not self._status(i):
                # A line of a list, message content, or the dot that ends it.
                answering.replies.append(i)
            else:
                exchanges.append(_Exchange("", i, typed=False, replies=[i]))
        return [e for e in exchanges if e.line >= 0]

    def _asked(self, i: int, line: Line) -> _Exchange:
        text = _text(line).strip()
        verb, _, rest = text.partition(" ")
        if verb.upper() in self.catalog.commands:
            return _Exchange(verb.upper(), i, typed=True, text=rest.strip())
        return _Exchange("", i, typed=True, text=text)

    def _status(self, i: int) -> str:
        """The status that a line of the server's starts with; empty where it has none."""
        match = self._REPLY.fullmatch(_text(self.lines[i]))
        return match[1].upper() if match and self.lines[i].kind == "reply" else ""

    def _note_on(self, i: int, e: _Exchange) -> Note | None:
        line = self.lines[i]
        if not e.verb and line.data.startswith(b"\x16\x03"):
            return self._note("tls-hello")
        if e.verb in ("LIST", "UIDL") and e.text:
            return self._note(f"{e.verb.lower()}-one")
        return None
