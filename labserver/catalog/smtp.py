"""Reads an SMTP session: multi-line replies, pipelining, AUTH and its challenges."""

from __future__ import annotations

import re
from base64 import b64decode
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
from labserver.tables import Note, enhanced
from labserver.transcript import ABSENT, Line, ProtocolName, Session, readable

_STATUS = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: |$)")
_PARAMETER = re.compile(r" (SIZE|BODY|SMTPUTF8|AUTH|RET|ENVID|NOTIFY|ORCPT)(?=[= ]|$)", re.I)
_CHUNK = re.compile(r"[0-9]{1,18}", re.ASCII)
_OFFERS_LOGIN = re.compile(rb"250[- ]AUTH\b", re.I)
_CHALLENGES = {
    "username": "challenge-user",
    "user name": "challenge-user",
    "password": "challenge-password",
}


class SmtpReading(Reading):
    """RFC 5321, with AUTH (RFC 4954), STARTTLS (RFC 3207) and BDAT (RFC 3030)."""

    protocol: ProtocolName = "SMTP"

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._offers_login = session.listener.startswith("submission") or any(
            _OFFERS_LOGIN.match(line.data) for line in self.lines if line.who == "S"
        )
        """Whether this is a server to log in to, be it only under TLS."""
        self._accepted: dict[int, int] = {}
        """For each command's line, how many recipients its transaction had by then."""
        recipients = 0
        for e in self.exchanges:
            if e.before not in ("Recipients", "Chunks"):
                recipients = 0
            self._accepted[e.line] = recipients
            recipients += e.verb == "RCPT" and self.outcome(e.code) == "done"

    def _asked(self, i: int, line: Line) -> Exchange:
        if line.kind == "end":
            return Exchange("end of data", i, typed=True)
        if line.kind != "command":
            return Exchange("", i, typed=True)
        # A TAB counts as a blank.
        text = readable(line.data.rstrip(b"\r\n").replace(b"\t", b" ")).strip()
        verb, _, rest = text.partition(" ")
        verb = verb.upper()
        if verb == "BDAT" and rest.upper().endswith(" LAST"):
            verb = "BDAT LAST"
        if verb in self.catalog.commands:
            return Exchange(verb, i, typed=True, text=rest.strip())
        return Exchange("", i, typed=True, text=text)

    def _parts(self, i: int) -> tuple[str, bool, str]:
        """A reply line's code, whether it is its reply's last line, and its text."""
        turn, text = self._turn[i], text_of(self.lines[i])
        return turn.code, turn.completes, text[4:] if turn.code else text

    def _trouble_asking(self, e: Exchange) -> str:
        # Who has heard 421 may still say QUIT.
        polite = e.verb == "QUIT" and "QUIT" not in e.earlier and e.line > self.greeting.line
        return "" if polite and e.before == "Closed" else super()._trouble_asking(e)

    # -- the client's lines

    def _situation(self, i: int, e: Exchange) -> Note | None:
        line = self.lines[i]
        hello = e.verb in ("EHLO", "HELO")
        if not e.verb and line.data.startswith(b"\x16\x03"):
            return self.note("tls-hello")
        if hello and e.earlier & {"EHLO", "HELO"}:
            return self.note("ehlo-again")
        if hello and "STARTTLS" in e.earlier:
            return self.note("ehlo-after-tls")
        if e.verb == "MAIL" and re.match(r"FROM: ?<>", e.text, re.I):
            return self.note("mail-null")
        if e.verb == "RCPT" and self._accepted[e.line]:
            return self.note("rcpt-next")
        if e.verb == "AUTH":
            mechanism = self._mechanism(e)
            if mechanism in ("PLAIN", "LOGIN"):
                note = self.note(f"auth-{mechanism.lower()}")
                return self.exposed(note, line) if line.secret else note
            return self.note("auth-other", mechanism=cut(mechanism)) if mechanism else None
        return None

    def _mechanism(self, e: Exchange) -> str:
        return e.text.split(" ", 1)[0].upper()

    def _additions(self, i: int, e: Exchange) -> Iterator[Note]:
        line = self.lines[i]
        if e.verb in ("MAIL", "RCPT"):
            names = dict.fromkeys(name.lower() for name in _PARAMETER.findall(e.text))
            yield from (self.note(f"parameter-{name}") for name in names)
        if line.octets > 512 and e.verb != "AUTH":
            yield self.note("long-line", size=size(line.octets))

    def _credentials(self, i: int, e: Exchange) -> Note:
        line = self.lines[i]
        if line.data.strip() == b"*":
            return self.note("credentials-cancelled")
        mechanism = self._mechanism(e)
        if mechanism == "PLAIN":
            return self.exposed(self.note("credentials-plain"), line)
        if mechanism == "LOGIN":
            # The name may already have come with the command.
            if e.said.index(i) + (" " in e.text) == 0:
                return self.note("credentials-user")
            return self.exposed(self.note("credentials-password"), line)
        return self.note("credentials")

    def _announced(self, i: int, e: Exchange) -> int | None:
        octets = _CHUNK.match(e.text)
        return int(octets[0]) if octets and e.verb in ("BDAT", "BDAT LAST") else None

    # -- the server's lines

    def _said_by_server(self, i: int, e: Exchange) -> Meaning:
        code, last, text = self._parts(i)
        if not code:
            return self.noted(self.note("no-reply"))
        reply = self.catalog.replies.get(code)
        anchor = reply.anchor if reply else ""
        if text == ABSENT:
            meaning = self.noted(self.note("absent"), anchor)
        elif self._turn[i].begins:
            meaning = self._answer(i, e)
        elif e.verb == "EHLO" and code == "250":
            meaning = self._extension(text, tls=self.lines[i].tls)
        else:
            meaning = self.noted(Note("", "", ()), anchor)
        return Meaning(
            meaning.title,
            meaning.detail,
            self.outcome(code) if last else "",
            f"{code} {reply.word if reply else self.outcome(code)}" if last else "",
            meaning.also,
            meaning.sources,
            meaning.anchor or anchor,
        )

    def _extension(self, text: str, *, tls: bool) -> Meaning:
        """An extension named in the answer to EHLO."""
        name, _, value = text.partition(" ")
        term = self.catalog.keywords.get(name.upper())
        if term is None:
            return self.noted(self.note("extension-unknown", name=cut(name)))
        title, detail, sources = term.title, term.meaning, term.sources
        if term.name == "SIZE" and re.fullmatch(r"[0-9]{1,15}", value) and int(value):
            title = self.note("extension-size", size=size(int(value))).title
        if term.name == "AUTH" and value:
            title = self.note("extension-auth", names=", ".join(map(cut, value.split()[:8]))).title
        if term.name == "AUTH" and not tls:
            note = self.note("extension-auth-in-the-clear")
            detail, sources = sentences(detail, note.title), each_once((*sources, *note.sources))
        return Meaning(title, detail, "", "", (), sources, term.anchor)

    def _answer(self, i: int, e: Exchange) -> Meaning:
        """What a reply means, said at its first line."""
        code, _, text = self._parts(i)
        reply = self.catalog.replies.get(code)
        digit = self.catalog.digits[f"{code[0]}yz"]
        title, detail = self.here(e, code)
        sources = self.sources_of(e)
        if e.verb == "AUTH" and self.outcome(code) == "go on":
            note = self._challenge(text)
            title, detail, sources = note.title, note.detail, (*note.sources, *sources)
        elif e.verb == "EHLO" and code == "250":
            note = self._extensions(i, e)
            title, detail = note.title, note.detail
        elif e.verb == "RCPT" and self._is_refused_alone(e, code) and title:
            title = self.note("rcpt-refused-first").title
        if not title:
            title, detail = (reply.title, reply.meaning) if reply else (digit.title, "")
        if code[0] in "45" or not reply:
            detail = sentences(detail, f"{digit.name}: {digit.meaning}")
            sources += digit.sources
        status = _STATUS.match(text)
        if status and status[1][0] == code[0]:
            known = enhanced(status[1])
            detail = sentences(detail, f"{known.code}: {known.title}")
            sources += known.sources
        anchor = reply.anchor if reply else ""
        sources = each_once((*sources, *(reply.sources[:1] if reply else ())))
        return Meaning(title, detail, "", "", self.otherwise(e, code), sources, anchor)

    def _is_refused_alone(self, e: Exchange, code: str) -> bool:
        """Whether a recipient is refused while there is no other, rather than the command."""
        about_it = code[0] in "45" and code not in ("421", "503", "530")
        return about_it and e.before in ("Mail", "Recipients") and not self._accepted[e.line]

    def _extensions(self, i: int, e: Exchange) -> Note:
        """What the whole answer to EHLO says, said at its first line."""
        names = {self._parts(j)[2].split(" ", 1)[0].upper() for j in e.replies if j > i}
        if not names:
            return self.note("extensions-none")
        if "STARTTLS" in names and "AUTH" not in names and self._offers_login:
            return self.note("extensions-before-tls")
        return self.note("extensions")

    def _challenge(self, text: str) -> Note:
        """A 334: what the mechanism asks in base64, or nothing."""
        if not text.strip():
            return self.note("challenge-empty")
        try:
            asked = b64decode(text.strip(), validate=True).decode("ascii")
        except ValueError:
            return self.note("challenge")
        return self.note(_CHALLENGES.get(asked.strip(":\0 ").lower(), "challenge"))
