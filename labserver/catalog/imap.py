"""Reads an IMAP session: tags, literals, untagged responses, IDLE."""

from __future__ import annotations

import re
from collections.abc import Iterator

from labserver.catalog.reading import (
    Exchange,
    Meaning,
    Reading,
    cut,
    each_once,
    sentences,
    text_of,
    void,
)
from labserver.catalog.tables import Note, Outcome
from labserver.transcript import Line, ProtocolName, Session

_COMMAND = re.compile(r"(\S+) +(UID +\S+|\S+)(?: +(.*))?", re.I | re.DOTALL)
_LITERAL = re.compile(r"\{[0-9]{1,18}\+?\}")
_LITERAL_AT_END = re.compile(_LITERAL.pattern + r"$")
_CONDITION = re.compile(
    r"(OK|NO|BAD|PREAUTH|BYE)(?: (?:\[([A-Z0-9-]+)(?: [^\]]*)?\] ?)?.*)?", re.I | re.DOTALL
)
_MARKS_SEEN = re.compile(r"BODY\[|RFC822(?!\.(?:SIZE|HEADER))", re.I)
_DATA = re.compile(r"(?:([0-9]{1,15}) )?([A-Z]+)(?:\b.*)?", re.I | re.DOTALL)


class ImapReading(Reading):
    """RFC 3501, with IDLE (RFC 2177), UIDPLUS (RFC 4315) and response codes (RFC 5530)."""

    protocol: ProtocolName = "IMAP"

    def __init__(self, session: Session) -> None:
        self._open: list[Exchange] = []
        """Commands that aren't settled yet, the oldest first."""
        self._rests: set[int] = set()
        """Lines that go on with a response after a literal."""
        self._interrupting: set[int] = set()
        """Commands said where only DONE may be said."""
        super().__init__(session)

    def _exchanges(self) -> list[Exchange]:
        exchanges = [self.greeting]
        asking = speaking = self.greeting
        literal = idle = split = False
        for i, line in enumerate(self.lines):
            if self.begins_tls(i):
                void(self._open)
                self._open.clear()
            if line.who == "C" and line.kind in ("content", "credentials") and asking.typed:
                asking.said.append(i)
            elif line.who == "C":
                done = idle and text_of(line).strip().upper() == "DONE"
                if done or (literal and not asking.settled):
                    asking.said.append(i)
                else:
                    if idle and not asking.settled:
                        self._interrupting.add(i)
                    asking = self._asked(i, line)
                    exchanges.append(asking)
                    self._open.append(asking)
                literal, idle = self._ends_in_literal(line), False
            elif split or (line.kind == "content" and speaking.replies):
                # A response goes on after a literal, whatever the line looks like.
                if line.kind != "content":
                    self._rests.add(i)
                speaking.replies.append(i)
                split = line.kind == "content" or self._ends_in_literal(line)
            else:
                speaking = self._answered(i, asking)
                if not speaking.verb and not speaking.typed:
                    exchanges.append(speaking)
                idle = idle or (speaking.verb == "IDLE" and line.data.startswith(b"+"))
                split = self._ends_in_literal(line)
        return exchanges

    def _ends_in_literal(self, line: Line) -> bool:
        return bool(_LITERAL_AT_END.search(text_of(line)))

    def _asked(self, i: int, line: Line) -> Exchange:
        if line.kind != "command":
            return Exchange("", i, typed=True)
        text = text_of(line)
        match = _COMMAND.fullmatch(text.rstrip())
        if match is None:
            return Exchange("", i, typed=True, text=text.strip())
        tag, verb, rest = match[1], " ".join(match[2].upper().split()), match[3] or ""
        if verb not in self.catalog.commands and verb.startswith("X"):
            verb = "X<atom>"
        if verb in self.catalog.commands:
            return Exchange(verb, i, typed=True, text=rest, tag=tag)
        return Exchange("", i, typed=True, text=match[2], tag=tag)

    def _answered(self, i: int, asking: Exchange) -> Exchange:
        """Put a response where it belongs, and tell where that is."""
        first, _, rest = text_of(self.lines[i]).partition(" ")
        condition = _CONDITION.fullmatch(rest)
        status = condition[1].upper() if condition else ""
        settles = False
        if not self.greeting.settled:
            e, settles = self.greeting, True
            e.line, status = i, status if first == "*" else ""
        elif first == "+" and asking in self._open:
            e = asking
        elif first == "*" and status == "BYE":
            leaving = [e for e in self._open if e.verb == "LOGOUT"]
            e, settles = (leaving or [Exchange("", i, typed=False)])[0], not leaving
        elif first == "*" and self._open:
            # A server mostly works in order, so this comes from the oldest command.
            e = self._open[0]
            settles = status == "BAD" and not e.tag
        else:
            named = [e for e in self._open if status and e.tag == first]
            e, settles = (named or [Exchange("", i, typed=False)])[0], bool(named)
        e.replies.append(i)
        if settles:
            e.settle(status)
        if settles and e in self._open:
            self._open.remove(e)
        return e

    def _trouble_asking(self, e: Exchange) -> str:
        if e.line in self._interrupting:
            return "While IDLE goes on, nothing may be said but DONE."
        if not e.verb and e.tag:
            return f"{self.quote(e)} is no IMAP command."
        if not e.verb:
            return "An IMAP command is a tag, a space and the command, such as: a1 NOOP."
        return super()._trouble_asking(e)

    def _trouble_answering(self, e: Exchange) -> str:
        if not e.verb and not e.typed and text_of(self.lines[e.line]).startswith("* "):
            # A server may tell what changed at any time (RFC 3501 section 7).
            return ""
        return super()._trouble_answering(e)

    # -- the client's lines

    def _said_by_client(self, i: int, e: Exchange) -> Meaning:
        if i in e.said and e.verb == "IDLE":
            done = self.catalog.commands["DONE"]
            return self.noted(Note(done.title, done.meaning, done.sources), done.anchor)
        if i in e.said:
            return self.noted(self.note("after-literal"), self.anchor_of(e))
        return super()._said_by_client(i, e)

    def _situation(self, i: int, e: Exchange) -> Note | None:
        line = self.lines[i]
        if not e.verb and line.data.startswith(b"\x16\x03"):
            return self.note("tls-hello")
        if not e.verb and not e.tag:
            return self.note("no-tag")
        if e.verb == "LOGIN" or (e.verb == "AUTHENTICATE" and line.secret):
            command = self.catalog.commands[e.verb]
            return self.exposed(Note(command.title, command.meaning, ()), line)
        if e.verb == "CAPABILITY" and "STARTTLS" in e.earlier and "CAPABILITY" not in e.earlier:
            return self.note("capability-after-tls")
        return None

    def _additions(self, i: int, e: Exchange) -> Iterator[Note]:
        if e.verb in ("FETCH", "UID FETCH") and _MARKS_SEEN.search(e.text):
            yield self.note("fetch-sets-seen")
        if _LITERAL.search(e.text):
            yield self.note("literal")

    def _credentials(self, i: int, e: Exchange) -> Note:
        line = self.lines[i]
        if line.data.strip() == b"*":
            return self.note("credentials-cancelled")
        if e.verb == "LOGIN":
            return self.exposed(self.note("credentials-literal"), line)
        return self.exposed(self.note("credentials"), line)

    # -- the server's lines

    def _said_by_server(self, i: int, e: Exchange) -> Meaning:
        line = self.lines[i]
        if line.kind == "content":
            return self.noted(self.content(i, e), self.catalog.data["FETCH"].anchor)
        if i in self._rests:
            return self.noted(Note("", "", ()))
        first, _, rest = text_of(line).partition(" ")
        condition = _CONDITION.fullmatch(rest)
        if first == "+":
            return self._continuation(e)
        if condition and (first == "*" or first == e.tag):
            status, code = condition[1].upper(), (condition[2] or "").upper()
            return self._status(i, e, status, code, tagged=first != "*")
        if first == "*" and (data := _DATA.fullmatch(rest)):
            return self._told(data[1], data[2].upper())
        return self.noted(self.note("no-reply"))

    def _continuation(self, e: Exchange) -> Meaning:
        reply = self.catalog.replies["+"]
        names = {"IDLE": "continue-idle", "AUTHENTICATE": "continue-authenticate"}
        note = self.note(names.get(e.verb, "continue-literal"))
        sources = each_once((*note.sources, *reply.sources))
        return Meaning(note.title, note.detail, reply.outcome, "+", (), sources, reply.anchor)

    def _status(self, i: int, e: Exchange, status: str, code: str, *, tagged: bool) -> Meaning:
        """OK, NO, BAD, PREAUTH or BYE."""
        reply = self.catalog.replies[status]
        term = self.catalog.codes.get(code)
        outcome: Outcome = reply.outcome
        also: tuple[tuple[str, str], ...] = ()
        sources = [*reply.sources]
        title = detail = ""
        settles = tagged or e is self.greeting
        if settles:
            title, detail = self.here(e, status)
            also = self.otherwise(e, status)
            sources = [*self.sources_of(e), *sources]
        if not settles and status != "BYE":
            note = self.note(f"untagged-{status.lower()}")
            title, detail, outcome = note.title, note.detail, ""
        if not title:
            title, detail = reply.title, reply.meaning
        if term:
            if settles:
                detail = sentences(f"[{term.name}]: {term.title}", term.meaning)
            else:
                title, detail = term.title, term.meaning
            sources = [*term.sources, *sources]
            outcome = (term.outcome or outcome) if settles else outcome
        if tagged and e.verb:
            detail = sentences(self.note("answers", verb=e.verb).title, detail)
        label = status if settles or status == "BYE" else ""
        anchor = reply.anchor if settles or not term else term.anchor
        return Meaning(title, detail, outcome, label, also, each_once(sources), anchor)

    def _told(self, number: str | None, name: str) -> Meaning:
        """Untagged data."""
        term = self.catalog.data.get(name)
        if term is None:
            return self.noted(self.note("data-unknown", name=cut(name)))
        title = term.title
        if number:
            kind = f"data-{name.lower()}"
            many = int(number)
            if many == 1 and f"{kind}-one" in self.catalog.notes:
                kind += "-one"
            if kind in self.catalog.notes:
                title = self.note(kind, number=many).title
        return Meaning(title, term.meaning, "", "", (), term.sources, term.anchor)
