"""What a mail is that isn't a bounce, by name: reports, receipts, answers of a program.

Each has one sentence, for people take them for bounces.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from labserver.logs.letter import Letter, shown
from labserver.logs.phrases import NOT_DELIVERED, is_daemon

__all__ = ["COMPLAINT", "DELIVERED", "MAIL", "NAMES", "Name", "answer_of", "name_of"]


class Name(NamedTuple):
    """What a mail is."""

    kind: str
    sentence: str


COMPLAINT = Name(
    "a complaint report",
    "a complaint report (RFC 5965): the message was delivered, and its reader or a filter calls "
    "it spam; nothing bounced",
)
READ = Name(
    "a read receipt",
    "a read receipt (RFC 8098): it tells what the recipient's mail program did with the message; "
    "nothing bounced",
)
DELIVERED = Name(
    "a delivery receipt",
    "a delivery receipt (RFC 3464): the message was delivered or handed on; nothing bounced",
)
DMARC = Name(
    "a DMARC report",
    "a DMARC report (RFC 7489): it counts who sent mail in a domain's name; nothing bounced",
)
TLS = Name(
    "a TLS report",
    "a TLS report (RFC 8460): it counts connections with and without TLS; nothing bounced",
)
ANSWER = Name(
    "an automatic answer",
    "an automatic answer (RFC 3834), such as a vacation notice: the message was delivered; "
    "nothing bounced",
)
CHALLENGE = Name(
    "a challenge",
    "a challenge: the message is held back until its sender confirms it; nothing bounced yet",
)
MAIL = Name("an ordinary mail", "an ordinary mail: no server's reply or failed address is in it")

NAMES = (COMPLAINT, READ, DELIVERED, DMARC, TLS, ANSWER, CHALLENGE, MAIL)

_COMPLAINT = re.compile(
    r"complaint about (?:the |a |your )?(?:message|mail)|(?:abuse|spam) (?:report|complaint)|"
    r"feedback (?:loop|report)",
    re.I,
)
_DMARC = re.compile(r"report[ -]?domain:|dmarc (?:aggregate|failure)? ?report", re.I)
_ANSWER = re.compile(
    r"\bauto(?:matic|mated)?[ :_-]{0,3}(?:reply|response|answer|respon)|\bautoreply|"
    r"\bout[ -]of[ -](?:the[ -])?office|\bvacation|\bon leave|\baway (?:from|until)|\booo\b|"
    r"\bi am (?:away|out)|abwesenheit|abwesend|automatische antwort|réponse automatique|"
    r"absence du bureau|respuesta automática|fuera de (?:la )?oficina|risposta automatica|"
    r"fuori sede|resposta automática|automatisch antwoord|afwezig|autosvar|automatiskt svar|"
    r"autoodpowiedź|автоответ|自動応答|自動返信|自动回复",
    re.I,
)
_CHALLENGE = re.compile(
    r"confirm (?:that you|your (?:e-?mail|message|mail|address))|"
    r"verify (?:that you|your (?:e-?mail|message))|challenge|spam ?arrest|boxbe|"
    r"please (?:verify|confirm)|sender verification|"
    r"awaiting (?:your )?(?:confirmation|verification)|click .{0,60} (?:deliver|release)",
    re.I,
)


def name_of(letter: Letter) -> Name | None:
    """What a mail says it is, where that is certainly no bounce; `None` where it says nothing."""
    kinds = {part.kind for part in letter.parts}
    subject = shown(letter.fields.get("subject", ""))
    if letter.report == "feedback-report" or "message/feedback-report" in kinds:
        return COMPLAINT
    if _COMPLAINT.search(subject[:300]):
        return COMPLAINT
    if letter.report == "tlsrpt":
        return TLS
    if letter.report == "disposition-notification" or "message/disposition-notification" in kinds:
        # Some mail stores say in this form that they refused a message.
        refused = is_daemon(letter.fields.get("from", "")) and any(
            NOT_DELIVERED.search(line.text[:400]) for line in letter.words()[:40]
        )
        return None if refused else READ
    if _DMARC.search(subject[:300]):
        return DMARC
    return None


def answer_of(letter: Letter) -> Name:
    """What a mail is in which nothing failed."""
    subject = shown(letter.fields.get("subject", ""))[:300]
    words = " ".join(line.text for line in letter.words()[:40])[:4000]
    automatic = letter.fields.get("auto-submitted", "").lower().startswith("auto-replied")
    if _CHALLENGE.search(subject) or (
        not is_daemon(letter.fields.get("from", "")) and _CHALLENGE.search(words)
    ):
        return CHALLENGE
    if automatic or _ANSWER.search(subject) or letter.fields.keys() & _ANSWERS_FIELDS:
        return ANSWER
    return MAIL


_ANSWERS_FIELDS = frozenset(("x-autoreply", "x-autorespond", "x-autoreply-from", "x-auto-reply"))
