"""Reads a session: puts its lines together to exchanges and walks them through the states.

What differs from protocol to protocol (which line answers which, and what only that protocol
says) is in `smtp.py`, `pop3.py` and `imap.py`; every sentence comes from the tables.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from labserver.catalog.strangers import spoken_instead
from labserver.tables import Note, Outcome, load
from labserver.transcript import Line, ProtocolName, Session, readable
from labserver.turns import Exchange as Heard
from labserver.turns import Turn, Turns


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
    """Index into `session.lines`."""
    sentence: str


@dataclass(frozen=True, slots=True)
class Step:
    """One command, or moment, on the way of a session through the states."""

    line: int
    """Index of the command's line; of the reply's, where nothing was typed."""
    before: str
    command: str
    """Its verb in the catalog; empty for a line that is no command."""
    reply: str
    """The code that answered it; empty while it is unanswered."""
    after: str
    lines: tuple[int, ...]
    """Index of each line that belongs to it: what was asked, added and answered."""


@dataclass(slots=True)
class Exchange:
    """One command and all that belongs to it, or a moment, or something nobody asked for."""

    verb: str
    """The catalog's name for it; empty where it has none."""
    line: int
    """Index of its first line; -1 for a moment that hasn't come."""
    typed: bool
    text: str = ""
    """What the client typed after the verb; of an unknown command, all of it."""
    tag: str = ""
    said: list[int] = field(default_factory=list)
    """The client's further lines: credentials, content, the rest after a literal."""
    replies: list[int] = field(default_factory=list)
    code: str = ""
    """The reply that settled it."""
    settled: bool = False
    before: str = ""
    after: str = ""
    earlier: frozenset[str] = frozenset()
    """What had succeeded before it."""
    certain: bool = True
    """Whether all before it was answered, so that the state is known."""
    blind: bool = False
    """Whether it was said before all earlier answers were there (pipelining)."""
    heard: Heard = field(default_factory=lambda: Heard("", typed=False))
    """The same as the turns have it."""
    void: bool = False
    """Whether TLS began before it was answered, so that it never will be."""


_BARE_LF = re.compile(rb"(?<!\r)\n\Z")
# Only CR LF, a dot, CR LF ends a message; the last CR LF may be that of the true end.
_FALSE_END = re.compile(rb"(?:\n|\r)\.(?:\r\n|\n|\r)")
_QUOTED = 24
"""Characters of a strange word that a sentence repeats."""


def _is_said(line: Line) -> bool:
    return line.who == "C" and bool(line.data.strip())


def text_of(line: Line) -> str:
    """A line as harmless text, without its line end."""
    return readable(line.data.rstrip(b"\r\n"))


def sentences(*parts: str) -> str:
    """Sentences as one text, empty ones left out."""
    return " ".join(part for part in parts if part)


def first_sentence(text: str) -> tuple[str, str]:
    """The first sentence of a text, and the rest."""
    first, _, rest = text.partition(". ")
    return (first + ".", rest) if rest else (text, "")


def each_once(sources: Iterable[str]) -> tuple[str, ...]:
    """Sources in their order, without repetitions."""
    return tuple(dict.fromkeys(sources))


def size(octets: int) -> str:
    """A number of octets as it is read best."""
    for unit, name in ((1024 * 1024, "MiB"), (1024, "KiB")):
        if octets >= unit and octets % unit == 0:
            return f"{octets // unit:,} {name}"
    return f"{octets:,} octet{'' if octets == 1 else 's'}"


def cut(word: str) -> str:
    """A word that somebody else chose, short enough for a sentence."""
    return word if len(word) <= _QUOTED else word[:_QUOTED] + "…"


class Reading(ABC):
    """A session read against the catalog of its protocol."""

    protocol: ProtocolName

    def __init__(self, session: Session) -> None:
        self.catalog = load(self.protocol)
        self.lines = session.lines
        self._last = {line.who: i for i, line in enumerate(session.lines)} if session.closed else {}
        """Where each side spoke last, if it can say no more."""
        self._first = next((i for i, line in enumerate(self.lines) if _is_said(line)), -1)
        """The client's first line that isn't empty."""
        begins = self.lines[self._first].data if self._first >= 0 else b""
        self._stranger = spoken_instead(begins)
        """The protocol that the client begins with instead of mail, if it does."""
        self._turns = Turns(self.protocol, states=False)
        self._turn: list[Turn] = []
        """What each line is in the dialogue."""
        self.greeting = Exchange("greeting", -1, typed=False)
        self.exchanges = [e for e in self._exchanges() if e.line >= 0]
        self._unheard = frozenset(e.line for e in self.exchanges if self._is_unheard(e))
        """Lines of a stranger's that the server doesn't answer: it has hung up."""
        self._first_unheard = min(self._unheard, default=-1)
        self._owner = {i: e for e in self.exchanges for i in (e.line, *e.said, *e.replies)}
        self._walk()
        self.problems = tuple(sorted(self._find_problems(), key=lambda p: p.line))
        self._trouble = {problem.line: problem.sentence for problem in self.problems}

    def steps(self) -> tuple[Step, ...]:
        """One step for each command and moment, in their order."""
        return tuple(
            Step(
                e.line,
                e.before,
                e.verb,
                e.code,
                e.after,
                tuple(sorted({e.line, *e.said, *e.replies})),
            )
            for e in self.exchanges
            if e.typed or e.code
        )

    def meanings(self) -> tuple[Meaning, ...]:
        """What each line means."""
        return tuple(self._meaning(i, self._owner[i]) for i in range(len(self.lines)))

    def _exchanges(self) -> list[Exchange]:
        """Every line put into exactly one exchange, in the order they begin."""
        turns = self._turns
        known = {turns.asking: self.greeting}
        for i, line in enumerate(self.lines):
            if self.begins_tls(i):
                turns.start_tls()
            turn = turns.hear(line.who, line.data, line.kind)
            e = known.get(turn.exchange)
            if e is None:
                typed = turn.exchange.typed
                e = self._asked(i, line) if typed else Exchange("", i, typed=False)
                known[turn.exchange] = e
            if line.who == "S":
                e.line = i if e.line < 0 else e.line
                e.replies.append(i)
            elif i != e.line:
                e.said.append(i)
            self._turn.append(turn)
        for heard, e in known.items():
            e.heard, e.code, e.settled, e.void = heard, heard.code, heard.settled, heard.void
        return list(known.values())

    def _lines_of(self, e: Exchange) -> tuple[int, ...]:
        return tuple(sorted({e.line, *e.said, *e.replies}))

    # -- what a protocol adds

    @abstractmethod
    def _asked(self, i: int, line: Line) -> Exchange:
        """What a line of the client's that begins an exchange asks."""

    @abstractmethod
    def _said_by_server(self, i: int, e: Exchange) -> Meaning:
        """What a line of the server's means."""

    def begins_tls(self, i: int) -> bool:
        """Whether this is the first line under TLS after others without."""
        return i > 0 and self.lines[i].tls and not self.lines[i - 1].tls

    def outcome(self, code: str) -> Outcome:
        """What a reply code says."""
        return self.catalog.outcome(code)

    def _situation(self, i: int, e: Exchange) -> Note | None:
        """What this situation makes of a command, where the command's own text won't do."""
        return None

    def _additions(self, i: int, e: Exchange) -> Iterator[Note]:
        """What to add to a command: each note's title is the sentence."""
        yield from ()

    def _credentials(self, i: int, e: Exchange) -> Note:
        """What an answer to an authentication challenge means."""
        return self.note("credentials")

    # -- the walk, and the rules

    def _walk(self) -> None:
        state, earlier, certain, heard = self.catalog.start, frozenset[str](), True, -1
        for e in self.exchanges:
            e.before, e.earlier, e.certain, e.blind = state, earlier, certain, e.line < heard
            heard = max(heard, *e.replies, -1)
            outcome = self.outcome(e.code)
            state = e.after = self._turns.after(self.catalog, state, e.heard, e.code)
            if outcome == "done":
                # Under fresh TLS everything said before is forgotten.
                forgets = e.verb in ("STARTTLS", "STLS")
                earlier = frozenset({e.verb}) if forgets else earlier | {e.verb}
            certain = certain and (e.settled or e.void or not e.typed)

    def _find_problems(self) -> Iterator[Problem]:
        for e in self.exchanges:
            if self._stranger and e.line == self._first:
                yield Problem(e.line, f"That is {self._stranger}, not {self.protocol}.")
            elif e.line not in self._unheard and e.typed and (sentence := self._trouble_asking(e)):
                yield Problem(e.line, sentence)
            if e.replies and (sentence := self._trouble_answering(e)):
                yield Problem(e.replies[-1], sentence)

    def _is_unheard(self, e: Exchange) -> bool:
        return bool(self._stranger) and e.typed and e.line > self._first and not e.replies

    def _trouble_asking(self, e: Exchange) -> str:
        """The rule that a command breaks, as a sentence; empty where it breaks none."""
        command = self.catalog.commands.get(e.verb)
        if command is None:
            return f"{self.quote(e)} is no {self.protocol} command."
        if e.void:
            return f"{e.verb} was sent before TLS began, so the server throws it away."
        if e.line < self.greeting.line:
            return f"{e.verb} comes too early: the client has to wait for the greeting."
        # Who pipelines can't know yet that the command before is refused (RFC 2920).
        excused = e.blind and (not e.settled or self.outcome(e.code) in ("later", "refused"))
        if e.certain and e.before not in command.states and not excused:
            allowed = ", ".join(command.states)
            return f"{e.verb} isn't allowed in the state {e.before}, only in: {allowed}."
        if command.once and e.verb in e.earlier:
            return f"{e.verb} has already succeeded; it may do so only once."
        if e.verb in ("STARTTLS", "STLS") and self.lines[e.line].tls:
            return f"{e.verb} isn't allowed here: the connection is already under TLS."
        return ""

    def _trouble_answering(self, e: Exchange) -> str:
        """The rule that a reply breaks, as a sentence; empty where it breaks none."""
        if not e.verb and not e.typed:
            # Closing down is the server's right at any time.
            return "" if e.code in ("421", "BYE") else "Nothing was asked that this could answer."
        command = self.catalog.commands.get(e.verb)
        own = command.replies if command else ()
        if e.settled and e.code not in dict((*own, *self.catalog.everywhere)):
            what = f"an answer to {e.verb}" if command and command.typed else "an answer here"
            return f"{e.code or 'This'} isn't {what} that {self.protocol} knows."
        return ""

    # -- meanings

    def _meaning(self, i: int, e: Exchange) -> Meaning:
        line = self.lines[i]
        if line.who == "S":
            return self._said_by_server(i, e)
        if self._stranger == "HTTP" and i == self._first:
            return self.noted(self.note("http"))
        if e.line in self._unheard:
            # To say it once is enough.
            first = i == self._first_unheard
            return self.noted(self.note("unheard") if first else Note("", "", ()))
        anchor = self.anchor_of(e)
        if line.kind == "content":
            return self.noted(self.content(i, e), anchor)
        if line.kind == "end":
            return self.noted(self.note("end"), anchor)
        if line.kind == "credentials":
            return self.noted(self._credentials(i, e), anchor)
        return self._said_by_client(i, e)

    def _said_by_client(self, i: int, e: Exchange) -> Meaning:
        command = self.catalog.commands.get(e.verb)
        if command is None:
            return self.noted(self._situation(i, e) or self.note("unknown", word=self.quote(e)))
        note = self._situation(i, e) or Note(command.title, command.meaning, ())
        title, detail = note.title, note.detail
        if i in self._trouble:
            title, detail = self._trouble[i], sentences(title, detail)
        added = list(self._additions(i, e))
        if _BARE_LF.search(self.lines[i].data):
            added.append(self.note("bare-lf"))
        sources = [*note.sources, *command.sources, *(s for more in added for s in more.sources)]
        return Meaning(
            title=title,
            detail=sentences(
                detail, *(part for more in added for part in (more.title, more.detail))
            ),
            outcome="",
            label="",
            also=(),
            sources=each_once(sources),
            anchor=command.anchor,
        )

    def content(self, i: int, e: Exchange) -> Note:
        """What a piece of message content means."""
        line = self.lines[i]
        kind = "content-cut" if self._breaks_off(i, e) else "content"
        if kind == "content" and e.verb in ("BDAT", "BDAT LAST"):
            kind = "content-part"
        note = self.note(kind, size=size(line.octets))
        notes = [note]
        # Only content that a dot ends is stuffed; counted content is not.
        dotted = e.verb in ("DATA", "RETR", "TOP")
        if e.verb == "DATA" and _FALSE_END.search(line.data):
            notes.append(self.note("content-false-end"))
        if dotted and (line.data.startswith(b"..") or b"\r\n.." in line.data):
            notes.append(self.note("content-stuffed"))
        if line.shortened:
            notes.append(self.note("content-shortened", size=size(len(line.data))))
        return Note(
            note.title,
            sentences(*(each.detail for each in notes)),
            each_once(source for each in notes for source in each.sources),
        )

    def _breaks_off(self, i: int, e: Exchange) -> bool:
        """Whether the connection ended before all of this content had come."""
        if self._last.get(self.lines[i].who) != i:
            return False
        announced = self._announced(i, e)
        return announced is None or self.lines[i].octets < announced

    def _announced(self, i: int, e: Exchange) -> int | None:
        """How many octets this content was to have; `None` where a dot ends it."""
        return None

    def exposed(self, note: Note, line: Line) -> Note:
        """A note on a password, with what TLS, or its absence, means for it."""
        more = self.note("secret-under-tls" if line.tls else "secret-in-the-clear")
        title = note.title if line.tls else more.title
        return Note(title, sentences(note.detail, more.detail), (*note.sources, *more.sources))

    def note(self, name: str, /, **values: object) -> Note:
        """A note of the table, its gaps filled."""
        note = self.catalog.notes[name]
        return Note(note.title.format(**values), note.detail.format(**values), note.sources)

    def noted(self, note: Note, anchor: str = "") -> Meaning:
        """A line that only a note speaks of."""
        return Meaning(note.title, note.detail, "", "", (), note.sources, anchor)

    def quote(self, e: Exchange) -> str:
        """The beginning of a line that is no command, without anything secret."""
        line = self.lines[e.line]
        if line.secret or line.kind != "command":
            return "This line"
        word = e.text.split(" ", 1)[0]
        return f"“{cut(word)}”" if word else "An empty line"

    def here(self, e: Exchange, code: str) -> tuple[str, str]:
        """What a code means as the answer to this command: first sentence, rest; or nothing."""
        command = self.catalog.commands.get(e.verb)
        known = {**dict(self.catalog.everywhere), **dict(command.replies if command else ())}
        return first_sentence(known.get(code, ""))

    def otherwise(self, e: Exchange, code: str) -> tuple[tuple[str, str], ...]:
        """What else this command could have drawn."""
        command = self.catalog.commands.get(e.verb)
        own = command.replies if command else ()
        return tuple((other, first_sentence(text)[0]) for other, text in own if other != code)

    def sources_of(self, e: Exchange) -> tuple[str, ...]:
        """Where the command that is answered stands."""
        command = self.catalog.commands.get(e.verb)
        return command.sources[:1] if command else ()

    def anchor_of(self, e: Exchange) -> str:
        """The place of the command in the reference page."""
        command = self.catalog.commands.get(e.verb)
        return command.anchor if command else ""
