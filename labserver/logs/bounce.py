"""A bounce: the letter that says that a letter couldn't be delivered.

Its machine-readable part (`report.py`, RFC 3464) names the recipients and often the reply of the
server that refused; its words (`words.py`) may name the command that drew the reply, and are all
there is where an old or a proud mail server writes no report. A mail that is no bounce is named
(`named.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from labserver.logs import named, report, words
from labserver.logs.letter import Letter, Line, Part, fields_of, forwarded, letter, shown
from labserver.logs.notice import notice
from labserver.logs.phrases import NOT_DELIVERED, addresses_in, is_daemon, returned_begins
from labserver.logs.report import Failure
from labserver.logs.talk import MOST_DIALOGUES, Aside, Event
from labserver.logs.told import Told, likely_stage, write_out

__all__ = ["BOUNCE", "DELAY", "KINDS", "Reading", "read"]

BOUNCE = "a bounce"
DELAY = "a bounce: delayed, not yet failed"

KINDS = frozenset((BOUNCE, DELAY, *(name.kind for name in named.NAMES)))
"""What a mail may be; such a one is told of even where no dialogue is in it."""

_ROW_WEIGHT = 3
_ARRIVED = ("delivered", "relayed", "expanded")
_ACTIONS = ("failed", "delayed", *_ARRIVED)
_DELAYED = re.compile(
    r"delivery (?:is |has been |was )?delayed|\bdelay(?:ed)?\b.{0,40}(?:delivery|mail|message)|"
    r"(?:mail|message|delivery|verz).{0,40}\bdelay(?:ed)?\b|"
    r"^warning[: -]{1,3}(?:could|message|mail|e-?mail|delivery|not)|attempts? will continue|"
    r"this is (?:only )?a warning|(?:has|have) not yet been delivered|"
    r"not been delivered (?:yet|within)|still (?:being )?(?:tr(?:y|ied)|queue)|"
    r"will (?:be retried|continue to try|keep trying|retry)|"
    r"could not be sent for|verzögert|retard(?:é|ado)",
    re.I | re.M,
)
_GUESSED = "which command this answered isn't said; the likeliest is shown"
_NO_REPLY = "the report names no reply of a server"
_OWN_WORDS = "the bounce's own words"
_CAME_BACK = "the letter that came back"
_SHOWN_WORDS = 300


class Reading(NamedTuple):
    """What a mail is."""

    kind: str
    events: tuple[Event, ...]
    certain: bool
    """Whether it is that, whatever dialogue stands in it; else a dialogue counts for more."""
    body: int
    """The index of the row behind its header."""
    weight: int
    """How much speaks for it, counted as a log's rows are."""
    says_why: bool
    """Whether it tells of a server's reply, or of a status."""


def read(rows: Sequence[str]) -> Reading | None:
    """What a mail is, and what it tells of; `None` where the rows are no mail and no bounce."""
    mail = letter(rows)
    found = _read(rows, mail)
    if found and mail.fields and (found.says_why or found.kind not in _MAY_FORWARD):
        return found
    for inner in (mail.inner(rows), forwarded(rows, mail)):
        within = _read(rows, inner) if inner else None
        if within and within.kind in _TELLS:
            with_header = bool(inner and inner.fields)
            if found is None or found.kind not in _TELLS or (with_header and within.says_why):
                return within._replace(certain=bool(mail.fields), body=mail.body)
    return found


_TELLS = (BOUNCE, DELAY)
_MAY_FORWARD = (*_TELLS, named.MAIL.kind, named.ANSWER.kind, named.CHALLENGE.kind)


def _read(rows: Sequence[str], mail: Letter) -> Reading | None:
    event = notice(mail)
    name = named.name_of(mail)
    if event and event.kind != "bounce":
        name = {"complaint": named.COMPLAINT, "delivery": named.DELIVERED}.get(event.kind)
        name = name or named.MAIL
    if name is not None:
        return _no_bounce(rows, mail, name, certain=True)
    reported = list(event.failures) if event else _reported(mail)
    failed = [one for one in reported if one.action != "delayed" and not _arrived(one)]
    delayed = [one for one in reported if one.action == "delayed"]
    if reported and not failed and not delayed:
        return _no_bounce(rows, mail, named.DELIVERED, certain=True)
    own = _own_words(mail)
    told = _told_in_words(mail, own, failed or delayed)
    if not reported and not _is_bounce(mail, own, told):
        name = named.answer_of(mail)
        return _no_bounce(rows, mail, name, certain=False) if mail.fields else None
    if reported:
        _complete([*failed, *delayed], told)
    elif _DELAYED.search(_beginning(mail, own)):
        delayed = told
        for failure in delayed:
            failure.action = "delayed"
    else:
        failed = told
    said = words.exchanges(own)
    for failure in (*failed, *delayed):
        if one := words.exchange_of(failure.reply, failure.recipient, said):
            failure.stage = one.stage
            failure.sender = failure.sender or one.sender
            failure.hello = failure.hello or one.hello
            if one.reply.startswith(failure.reply):
                failure.reply = one.reply
    return Reading(
        BOUNCE if failed or not delayed else DELAY,
        tuple(_events(rows, failed, delayed, _returned(mail, own), mail)),
        certain=bool(mail.fields),
        body=mail.body,
        weight=_ROW_WEIGHT * sum(1 + len(one.rows) for one in (*failed, *delayed)),
        says_why=any(one.reply or one.status for one in (*failed, *delayed)),
    )


def _no_bounce(rows: Sequence[str], mail: Letter, name: named.Name, certain: bool) -> Reading:
    asides = (Aside(n, name.sentence) for n in range(1, len(rows) + 1))
    return Reading(name.kind, tuple(asides), certain, mail.body, weight=0, says_why=False)


def _arrived(failure: Failure) -> bool:
    return failure.action in _ARRIVED or (not failure.action and failure.status.startswith("2."))


def _reported(mail: Letter) -> list[Failure]:
    """What the report says of each recipient."""
    marked = [part for part in mail.parts if part.kind in _REPORTS and not part.returned]
    lines: list[Line] = [line for part in marked for line in part.lines]
    if not marked:
        # Some send it as text, and who pastes it takes only that.
        lines = [line for part in mail.parts if not part.returned for line in part.lines]
    return list(islice(report.failures(lines), MOST_DIALOGUES + 1))


_REPORTS = ("message/delivery-status", "message/global-delivery-status")


def _own_words(mail: Letter) -> tuple[Line, ...]:
    plain = words.written(mail.words())
    if any("@" in line.text for line in plain):
        return plain
    html = words.written(mail.words("text/html"))
    return html if any("@" in line.text for line in html) else plain or html


def _told_in_words(mail: Letter, own: Sequence[Line], reported: Sequence[Failure]) -> list[Failure]:
    known = {one.lower() for failure in reported for one in (failure.recipient, failure.original)}
    known |= {one.lower() for one in _named_in_header(mail)}
    known.discard("")
    others = {
        one.lower()
        for name in ("to", "from", "reply-to", "delivered-to", "cc", "return-path")
        for one in addresses_in(mail.fields.get(name, ""))
    }
    found = words.failures(own, known, others, anywhere=bool(mail.fields))
    if found or (reported and len(known) > 1):
        return found
    # Words without an address: the header may have it.
    whole = words.told(own, "")
    named_there = _named_in_header(mail) or addresses_in(_field_of_returned(mail, "to"))[:1]
    if reported or not named_there:
        return [whole] if whole.reply or whole.stage else []
    return [replace(whole, recipient=one) for one in dict.fromkeys(named_there)]


def _named_in_header(mail: Letter) -> list[str]:
    return addresses_in(mail.fields.get("x-failed-recipients", ""))


def _field_of_returned(mail: Letter, name: str) -> str:
    for part in mail.parts:
        rows = [line.text for line in part.lines[:200]]
        begin = 0
        if not part.returned:
            begin = next((n for n, row in enumerate(rows) if returned_begins(row)), len(rows))
            while begin < len(rows) and ":" not in rows[begin]:
                begin += 1
        while begin < len(rows) and not rows[begin].strip():
            begin += 1
        fields, _ = fields_of(rows, begin)
        if name in fields:
            return fields[name]
    return ""


def _is_bounce(mail: Letter, own: Sequence[Line], told: Sequence[Failure]) -> bool:
    """Whether a mail without a report says that something wasn't delivered."""
    subject = shown(mail.fields.get("subject", ""))
    if not mail.fields:
        # Who pastes a text without header must paste the sentence and the address near it.
        shape = NOT_DELIVERED if told and told[0].recipient else _QUOTES_REPLY
        return bool(told) and any(
            shape.search(line.text[:400])
            for line in own
            if -_NEAR <= line.row - told[0].row <= _NEAR
        )
    said = any(NOT_DELIVERED.search(line.text[:400]) for line in own[:60])
    if mail.report == "delivery-status" or "x-failed-recipients" in mail.fields:
        return True
    sent_by_daemon = is_daemon(mail.fields.get("from", "")) or (
        mail.fields.get("return-path", "").replace(" ", "") == "<>"
    )
    in_subject = bool(NOT_DELIVERED.search(subject[:300]))
    if sent_by_daemon:
        return (
            bool(_DAEMON.search(mail.fields.get("from", "")[:300]) and told)
            or in_subject
            or said
            or any(failure.reply for failure in told)
        )
    return in_subject and bool(told) and (said or any(failure.reply for failure in told))


_NEAR = 15
_QUOTES_REPLY = re.compile(
    r"\bresponse(?: from the remote server)? was:|\bserver returned(?: was)?:|"
    r"\bremote (?:host|server) (?:said|returned)\b|\breason:",
    re.I,
)
_DAEMON = re.compile(r"mailer[-_ ]?daemon", re.I)


def _beginning(mail: Letter, own: Sequence[Line]) -> str:
    first = " ".join(line.text.strip() for line in own[:30])[:2000]
    return f"{shown(mail.fields.get('subject', ''))[:300]}\n{first}"


def _complete(reported: Sequence[Failure], told: Sequence[Failure]) -> None:
    """Add to the report what only the words say."""
    by_address = {failure.recipient.lower(): failure for failure in reversed(told)}
    for failure in reported:
        other = by_address.get(failure.recipient.lower()) or by_address.get(
            failure.original.lower()
        )
        if other is None and len(reported) == len(told) == 1:
            other = told[0]
        if other is None:
            continue
        failure.recipient = failure.recipient or other.recipient
        failure.stage = failure.stage or other.stage
        if not failure.reply and other.reply:
            failure.reply, failure.row = other.reply, other.row
        failure.words = failure.words or other.words
        failure.status = failure.status or other.status


def _returned(mail: Letter, own: Sequence[Line]) -> set[int]:
    """The rows of the message that came back."""
    rows = {line.row for part in mail.parts if part.returned for line in part.lines}
    last = own[-1].row if own else 0
    for part in mail.parts:
        if part.kind.startswith("text/") and not part.returned and _holds(part, last):
            rows |= {line.row for line in part.lines if line.row > last}
    return rows


def _holds(part: Part, row: int) -> bool:
    return bool(part.lines) and part.lines[0].row <= row <= part.lines[-1].row


def _events(
    rows: Sequence[str],
    failed: Sequence[Failure],
    delayed: Sequence[Failure],
    returned: set[int],
    mail: Letter,
) -> Iterator[Event]:
    sender = next(iter(addresses_in(_field_of_returned(mail, "return-path"))), None)
    used: set[int] = set()
    for number, failure in enumerate([*failed, *delayed]):
        used |= failure.rows
        if not failure.reply:
            yield Aside(failure.row, _NO_REPLY)
            if failed and failure.action == "delayed":
                continue
        elif not failure.stage:
            yield Aside(failure.row, _GUESSED)
        yield from write_out(_as_told(failure, sender), f"report {number}")
    if not failed and not delayed:
        yield Aside(1, "the bounce names no recipient and no reply of a server")
    for n in range(1, len(rows) + 1):
        if n not in used:
            yield Aside(n, _CAME_BACK if n in returned else _OWN_WORDS)


def _as_told(failure: Failure, sender: str | None) -> Told:
    action = failure.action if failure.action in _ACTIONS else "not delivered"
    what = ", ".join(filter(None, [action, failure.status, failure.recipient]))
    if failure.original and failure.original.lower() != failure.recipient.lower():
        what += f" (sent to {failure.original})"
    ending = f"the bounce says: {what}"
    if not failure.reply and failure.words:
        said = " ".join(failure.words.split())
        said = said if len(said) <= _SHOWN_WORDS else f"{said[:_SHOWN_WORDS]}…"
        ending += f": {said}"
    stage = failure.stage or likely_stage(failure.reply, failure.status)
    told = Told(failure.row, stage, failure.reply, failure.sender or sender, ending=ending)
    told.hello = failure.hello
    told.unanswered = not failure.reply
    told.unasked = told.unanswered and not failure.stage
    told.recipients = {failure.recipient: (failure.row, failure.reply if stage == "RCPT" else "")}
    return told
