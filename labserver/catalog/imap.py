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
)
from labserver.tables import Note, Outcome
from labserver.transcript import Line, ProtocolName
from labserver.turns import is_shapeless, literal_of

_COMMAND = re.compile(r" *(\S+) +(UID +\S+|\S+)(?: +(.*))?", re.I | re.DOTALL)
_TAG = re.compile(r"[^\x00-\x20(){%*\"\\+\x7f-\U0010ffff]+")
_CONDITION = re.compile(
    r"(OK|NO|BAD|PREAUTH|BYE)(?: (?:\[([A-Z0-9-]+)(?: [^\]]*)?\] ?)?.*)?", re.I | re.DOTALL
)
_MARKS_SEEN = re.compile(r"BODY\[|RFC822(?!\.(?:SIZE|HEADER))", re.I)
_DATA = re.compile(r"(?:([0-9]{1,15}) )?([A-Z]+)(?:\b.*)?", re.I | re.DOTALL)


class ImapReading(Reading):
    """RFC 3501, with IDLE (RFC 2177), UIDPLUS (RFC 4315) and response codes (RFC 5530)."""

    protocol: ProtocolName = "IMAP"

    def _asked(self, i: int, line: Line) -> Exchange:
        if line.kind != "command":
            return Exchange("", i, typed=True)
        text = text_of(line).strip()
        match = _COMMAND.fullmatch(text)
        first = match[1] if match else text.partition(" ")[0]
        if match is None and first.upper() == "DONE":
            return Exchange("DONE", i, typed=True, tag=first)
        if match is None:
            return Exchange("", i, typed=True, text=text, tag=first)
        verb, rest = " ".join(match[2].upper().split()), match[3] or ""
        if verb not in self.catalog.commands and verb.startswith("X"):
            verb = "X<atom>"
        if verb in self.catalog.commands:
            return Exchange(verb, i, typed=True, text=rest, tag=first)
        return Exchange("", i, typed=True, text=match[2], tag=first)

    def _trouble_asking(self, e: Exchange) -> str:
        if e.heard.interrupts:
            return "While IDLE goes on, nothing may be said but DONE."
        if e.verb == "DONE":
            return "DONE ends an IDLE, and none is going on."
        if is_shapeless(e.heard) and e.verb:
            return "A tag is made of letters and digits, such as in: a1 NOOP."
        if is_shapeless(e.heard) or not e.tag:
            return "An IMAP command is a tag, a space and the command, such as: a1 NOOP."
        if not e.verb:
            return f"{self.quote(e)} is no IMAP command."
        return super()._trouble_asking(e)

    def _trouble_answering(self, e: Exchange) -> str:
        if not e.verb and not e.typed and text_of(self.lines[e.line]).startswith("* "):
            # A server may tell what changed at any time (RFC 3501 section 7).
            return ""
        return super()._trouble_answering(e)

    # -- the client's lines

    def _announced(self, i: int, e: Exchange) -> int | None:
        sides = (self.lines[j] for j in reversed(self._lines_of(e)) if j < i)
        before = next((line for line in sides if line.who == self.lines[i].who), None)
        literal = literal_of(before.data) if before else None
        return literal.octets if literal else 0

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
        if not e.verb and (not e.tag or is_shapeless(e.heard)):
            alone = e.tag == e.text and _TAG.fullmatch(e.tag)
            given = alone and e.tag.upper() not in self.catalog.commands
            return self.note("no-command" if given else "no-tag")
        if e.verb == "DONE":
            return Note("", self.catalog.commands["DONE"].meaning, ())
        if e.verb in ("LOGIN", "AUTHENTICATE") and line.secret:
            command = self.catalog.commands[e.verb]
            return self.exposed(Note(command.title, command.meaning, ()), line)
        if e.verb == "CAPABILITY" and "STARTTLS" in e.earlier and "CAPABILITY" not in e.earlier:
            return self.note("capability-after-tls")
        return None

    def _additions(self, i: int, e: Exchange) -> Iterator[Note]:
        line = self.lines[i]
        if e.verb in ("FETCH", "UID FETCH") and _MARKS_SEEN.search(e.text):
            yield self.note("fetch-sets-seen")
        if literal_of(line.data):
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
        if self._turn[i].rest:
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

    def _is_plus(self, i: int) -> bool:
        return self.lines[i].data.startswith(b"+")

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
        if e.verb == "IDLE" and status == "BAD" and any(map(self._is_plus, e.replies)):
            note = self.note("idle-broken")
            title, detail, sources = note.title, note.detail, [*note.sources, *sources]
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
