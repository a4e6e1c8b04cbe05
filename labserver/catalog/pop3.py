"""Reads a POP3 session: status lines, the lists and messages that follow them."""

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
    size,
    text_of,
)
from labserver.tables import Note, Outcome
from labserver.transcript import Line, ProtocolName

_STATUS = re.compile(r"(\+OK|-ERR|\+)(?: (?:\[([A-Z0-9/-]+)[^\]]*\] ?)?(.*))?", re.I | re.DOTALL)
_TWO_NUMBERS = re.compile(r"([0-9]{1,15}) ([0-9]{1,15})(?: .*)?", re.DOTALL)
_NUMBER_AND_ID = re.compile(r"([0-9]{1,15}) ([\x21-\x7e]{1,70})")


class Pop3Reading(Reading):
    """RFC 1939, with CAPA and response codes (RFC 2449), STLS (RFC 2595) and AUTH (RFC 5034)."""

    protocol: ProtocolName = "POP3"

    def _asked(self, i: int, line: Line) -> Exchange:
        if line.kind != "command":
            return Exchange("", i, typed=True)
        # A blank in front is no part of a keyword.
        text = text_of(line).rstrip()
        verb, _, rest = text.partition(" ")
        if verb.upper() in self.catalog.commands:
            return Exchange(verb.upper(), i, typed=True, text=rest.strip())
        return Exchange("", i, typed=True, text=text.strip())

    # -- the client's lines

    def _situation(self, i: int, e: Exchange) -> Note | None:
        line = self.lines[i]
        if not e.verb and line.data.startswith(b"\x16\x03"):
            return self.note("tls-hello")
        if e.verb in ("LIST", "UIDL") and e.text:
            return self.note(f"{e.verb.lower()}-one")
        if e.verb == "QUIT" and e.before.startswith("AUTHORIZATION"):
            return self.note("quit-early")
        if e.verb == "PASS" or (e.verb == "AUTH" and line.secret):
            command = self.catalog.commands[e.verb]
            return self.exposed(Note(command.title, command.meaning, ()), line)
        if e.verb == "AUTH" and not e.text:
            return self.note("auth-list")
        return None

    def _additions(self, i: int, e: Exchange) -> Iterator[Note]:
        if e.verb == "CAPA" and "STLS" in e.earlier and "CAPA" not in e.earlier:
            yield self.note("capa-after-tls")

    def _credentials(self, i: int, e: Exchange) -> Note:
        line = self.lines[i]
        if line.data.strip() == b"*":
            return self.note("credentials-cancelled")
        return self.exposed(self.note("credentials"), line)

    # -- the server's lines

    def _said_by_server(self, i: int, e: Exchange) -> Meaning:
        line = self.lines[i]
        anchor = self.anchor_of(e)
        if line.kind == "content":
            return self.noted(self.content(i, e), anchor)
        if line.kind == "end":
            message = any(self.lines[j].kind == "content" for j in e.replies)
            return self.noted(self.note("end" if message else "end-of-list"), anchor)
        match = _STATUS.fullmatch(text_of(line))
        if match is None:
            return self._item(text_of(line), e)
        return self._answer(e, match[1].upper(), (match[2] or "").upper(), match[3] or "")

    def _is_misplaced(self, e: Exchange) -> bool:
        """Whether a command can't be obeyed, whatever it is about."""
        command = self.catalog.commands.get(e.verb)
        if command is None:
            return False
        needed = [word for word in command.syntax.split()[1:] if not word.startswith("[")]
        given = len(e.text.split())
        least, most = len(needed), len(command.syntax.split()) - 1
        # A password may have blanks in it.
        fits = least <= given and (given <= most or e.verb == "PASS")
        return not fits or (e.certain and e.before not in command.states)

    def _item(self, text: str, e: Exchange) -> Meaning:
        """One line of a list."""
        anchor = self.anchor_of(e)
        if e.verb == "CAPA":
            name = text.split(" ", 1)[0]
            term = self.catalog.keywords.get(name.upper())
            if term is None:
                return self.noted(self.note("capability-unknown", name=cut(name)), anchor)
            return Meaning(term.title, term.meaning, "", "", (), term.sources, term.anchor)
        if e.verb == "LIST" and (match := _TWO_NUMBERS.fullmatch(text)):
            note = self.note("list-item", number=int(match[1]), size=size(int(match[2])))
            return self.noted(note, anchor)
        if e.verb == "UIDL" and (match := _NUMBER_AND_ID.fullmatch(text)):
            return self.noted(self.note("uidl-item", number=int(match[1])), anchor)
        if e.verb == "AUTH":
            return self.noted(self.note("auth-item", name=cut(text)), anchor)
        return self.noted(self.note("no-reply"), "")

    def _answer(self, e: Exchange, status: str, code: str, text: str) -> Meaning:
        """A status line."""
        reply = self.catalog.replies[status]
        outcome: Outcome = reply.outcome
        title, detail = self.here(e, status)
        sources = [*self.sources_of(e), *reply.sources]
        if status == "-ERR" and not code and e.typed and self._is_misplaced(e):
            note = self.note("misplaced")
            title, detail, sources = note.title, note.detail, [*note.sources, *sources]
        if not title:
            title, detail = reply.title, reply.meaning
        counted = _TWO_NUMBERS.fullmatch(text)
        if e.verb == "STAT" and status == "+OK" and counted:
            many, octets = int(counted[1]), size(int(counted[2]))
            title = self.note("stat" if many != 1 else "stat-one", count=many, size=octets).title
        if status == "+OK" and e.verb in ("LIST", "UIDL") and e.text:
            item = self._item(text, e)
            title, detail = item.title, item.detail
        if e.verb == "greeting" and status == "+OK" and re.search(r"<[^<>\s]+>", text):
            note = self.note("greeting-timestamp")
            detail, sources = sentences(detail, note.title), [*sources, *note.sources]
        term = self.catalog.codes.get(code) or self.catalog.codes.get(code.split("/")[0])
        if term:
            # The bracket tells the reason, so the guesses at it are left out.
            detail = sentences(f"[{term.name}]: {term.title}", term.meaning)
            sources = [*term.sources, *sources]
            outcome = term.outcome or outcome
        return Meaning(
            title,
            detail,
            outcome,
            status,
            self.otherwise(e, status),
            each_once(sources),
            reply.anchor,
        )
