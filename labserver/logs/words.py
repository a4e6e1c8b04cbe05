"""The part of a bounce that people read: who wasn't reached, and what a server replied.

Each kind of mail server words it in its own way; most put the address first and what is wrong
with it behind. So an address that begins a line, or stands in a sentence of failure, begins what
is told of that recipient, up to the next such address.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import accumulate
from typing import NamedTuple

from labserver.logs.letter import Line
from labserver.logs.phrases import (
    ADDRESS,
    NOT_DELIVERED,
    addresses_in,
    hello_in,
    reply_in,
    returned_begins,
    sender_in,
    stage_in,
    status_in,
)
from labserver.logs.report import Failure
from labserver.turns import goes_on

__all__ = ["exchange_of", "exchanges", "failures", "told", "written"]

_MOST_LINES = 2000
_MOST_CHARACTERS = 60_000
"""Lines, and characters, of a bounce's words that are looked at."""
_MOST_RECIPIENTS = 200
_LONGEST_REPLY = 4000
_FEW_WORDS = 20
"""Characters that tell no reason."""
_MOST_FOLDED = 20
"""Lines that a reply may go on for."""

_BEGINS = re.compile(r"[\s>*•·|<\"'(\[-]{0,40}(?:(?:mailto|smtp|rfc822|imceaex?)[:;] ?)?")
_LABEL = re.compile(
    r"[\s>*•·|-]{0,40}(?:failed |original |final |intended |rcpt |e-?mail |your |the |"
    r"destination )?(?:recipients?|rcpt|to|user|address|addressee|mailbox|account|for|error-for|"
    r"message to|delivered to|could not be delivered to|undeliverable to|unable to deliver to|"
    r"адрес|получатель|宛先)"
    r"(?: address(?:es)?| to| name| user)?\s{0,8}[:=;]?\s{0,8}[<\"'(\[]{0,2}(?:SMTP:)?",
    re.I,
)
_SENDMAIL = re.compile(r"\s{0,8}[45]\d\d (?:[45]\.\d{1,3}\.\d{1,3} )?<?(?=[^<>\s]{1,300}>?\.\.\.)")
_ON = re.compile(r"\s+on\s+(?:\w{3},? )?[\d\w]")
_HEADERS = re.compile(
    r"\s{0,8}(?:from|sent|subject|date|sender|cc|reply-to|message-id)\s{0,4}:", re.I
)


def written(lines: Sequence[Line]) -> tuple[Line, ...]:
    """The server's own words: without the message that came back below them."""
    end = next((n for n, line in enumerate(lines) if n and returned_begins(line.text)), len(lines))
    if not any(line.text.strip() for line in lines[:end]):
        end = len(lines)
    lines = lines[: min(end, _MOST_LINES)]
    lengths = accumulate(len(line.text) for line in lines)
    return tuple(
        line for line, length in zip(lines, lengths, strict=True) if length <= _MOST_CHARACTERS
    )


def failures(
    lines: Sequence[Line], named: Collection[str], others: Collection[str], *, anywhere: bool
) -> list[Failure]:
    """What the words tell.

    `named` are the recipients that are known to have failed, in small letters. Without any, they
    are looked for: at the beginnings of lines, else in sentences of failure, else
    `anywhere`.
    `others` are addresses that didn't fail: the sender's, the mail server's own.
    """
    begins: dict[int, str] = {}
    # Who wrote to oneself is the sender and the recipient.
    passes = ((3, others), (3, ()), (2, others), (1, others), (0, others))
    for strictness, but in passes if anywhere else passes[:3]:
        seen: set[str] = set()
        for at, line in enumerate(lines):
            address = (
                "" if _repeats_header(lines, at) else _begun(line.text, strictness, named, but)
            )
            if address and address.lower() not in seen and len(begins) < _MOST_RECIPIENTS:
                seen.add(address.lower())
                begins[at] = address
        if begins:
            break
    found = []
    starts = [*begins, len(lines)]
    for (at, address), end in zip(begins.items(), starts[1:], strict=True):
        found.append(told(lines[at:end], address))
    if len(found) == 1 and not found[0].reply:
        # The only one: what stands before it is said of it as well.
        whole = told(lines, found[0].recipient)
        if whole.reply or not found[0].status or len(found[0].words) < _FEW_WORDS:
            found[0] = whole
    elif found and not any(failure.reply for failure in found):
        # Several addresses in a row, and one reason below or above them all.
        whole = told(lines, "")
        for failure in found:
            failure.reply, failure.stage = whole.reply, whole.stage
            failure.status = failure.status or whole.status
    elif found:
        _shared(found)
    return found


def _repeats_header(lines: Sequence[Line], at: int) -> bool:
    """Whether a line is the To or Cc of a header that the words repeat."""
    beside = (*lines[max(0, at - 1) : at], *lines[at + 1 : at + 2])
    return bool(_TO.match(lines[at].text)) and any(_HEADERS.match(line.text) for line in beside)


_TO = re.compile(r"\s{0,8}(?:to|cc)\s{0,4}:", re.I)


def _shared(found: Sequence[Failure]) -> None:
    """Where addresses stand right below one another, the reply below the last is all theirs."""
    for failure, after in zip(reversed(found[:-1]), reversed(found[1:]), strict=True):
        if not failure.reply and not failure.words and after.row - failure.row == 1:
            failure.reply, failure.stage = after.reply, after.stage
            failure.status = failure.status or after.status


def _begun(text: str, strictness: int, named: Collection[str], others: Collection[str]) -> str:
    """The recipient that a line begins to tell of, or empty."""
    text = text[:1000]
    found = addresses_in(text)
    if not found or _HEADERS.match(text):
        return ""
    if named:
        return next((one for one in found if one.lower() in named), "")
    found = [
        one for one in found if one.lower() not in others and not one.lower().startswith(_SERVERS)
    ]
    if not found:
        return ""
    if strictness < 3:
        says_so = (
            bool(NOT_DELIVERED.search(text))
            or (strictness < 2 and bool(reply_in(text)))
            or (strictness < 1 and not _ADVICE.search(text))
        )
        return next((one for one in found if says_so and not _from(text, one)), "")
    for shape in (_BEGINS, _SENDMAIL, _LABEL):
        if (begin := shape.match(text)) and (address := ADDRESS.match(text, begin.end())):
            rest = text[address.end() :].lstrip(">\"')] \t")
            alone = not rest or rest[0] in ":;,.-(<[" or _ON.match(text, address.end())
            if alone or reply_in(rest) or NOT_DELIVERED.search(rest):
                return addresses_in(address[0])[0] if addresses_in(address[0]) else ""
    return ""


_SERVERS = ("postmaster@", "mailer-daemon@", "abuse@")
_ADVICE = re.compile(
    r"\b(?:try|contact|help|questions?|visit|support|instead|emailing|reply to|write to|"
    r"postmaster@|abuse@|unsubscribe)\b",
    re.I,
)


def _from(text: str, address: str) -> bool:
    """Whether an address stands in a line as the one a message came from."""
    return bool(
        re.search(
            r"(?<!generated )(?<!expanded )\b(?:from|by|sender)\W{1,4}$",
            text.partition(address)[0][-24:],
            re.I,
        )
    )


def told(lines: Sequence[Line], recipient: str) -> Failure:
    """What some lines tell of one recipient: the first reply in them, or else what they say."""
    failure = Failure(lines[0].row if lines else 0, recipient)
    sent = ""
    words: list[str] = []
    room = _LONGEST_REPLY
    for at, line in enumerate(lines):
        text = line.text.strip()
        if text.startswith(">>>"):
            sent = stage_in(text)
        failure.stage = failure.stage or (stage_in(text) if not text.startswith(">>>") else "")
        failure.status = failure.status or status_in(text)
        failure.sender = failure.sender or sender_in(text)
        failure.hello = failure.hello or hello_in(text)
        if recipient and at == 0:
            text = _behind(text, recipient)
        reply = reply_in(text)
        if reply and not failure.reply:
            failure.row = line.row
            failure.reply = _whole(reply, lines[at + 1 : at + 1 + _MOST_FOLDED], text)
            failure.stage = failure.stage or sent or stage_in(_near(lines, at))
        elif text and room > 0:
            words.append(text)
            room -= len(text) + 1
    failure.status = status_in(failure.reply) or failure.status
    failure.words = "" if failure.reply else " ".join(words)[:_LONGEST_REPLY]
    return failure


class Exchange(NamedTuple):
    """A command and its reply, as sendmail and Courier repeat them."""

    stage: str
    recipient: str
    reply: str
    sender: str = ""
    """The reverse-path in the last MAIL before it."""
    hello: str = ""
    """The name in the last EHLO or HELO before it."""


def exchanges(lines: Sequence[Line]) -> list[Exchange]:
    """What was said to a server, `>>>` and `<<<` before each line."""
    found: list[Exchange] = []
    stage, recipient, sender, hello = "", "", "", ""
    for at, line in enumerate(lines):
        text = line.text.strip()
        if _TALKING.match(text):
            stage, recipient, sender, hello = "greeting", "", "", ""
        elif text.startswith(">>>"):
            stage = stage_in(text)
            sender, hello = sender_in(text) or sender, hello_in(text) or hello
            recipient = next(iter(addresses_in(text)), "") if stage == "RCPT" else ""
        elif text.startswith("<<<") and stage and (reply := reply_in(text[3:])):
            whole = _whole(reply, lines[at + 1 : at + 1 + _MOST_FOLDED], text)
            found.append(Exchange(stage, recipient, whole, sender, hello))
    return found


_TALKING = re.compile(r"(?:\.\.\. )?while talking to ", re.I)


def exchange_of(reply: str, recipient: str, said: Sequence[Exchange]) -> Exchange | None:
    """The exchange in which a reply was given, by those that a bounce repeats."""
    for one in said:
        if one.reply[:40] == reply[:40] and one.recipient in ("", recipient):
            return one
    alike = [one for one in said if one.reply[:3] == reply[:3]]
    return alike[0] if len({one.stage for one in alike}) == 1 else None


def _behind(text: str, recipient: str) -> str:
    before, found, rest = text.partition(recipient)
    if not found:
        return text
    rest = rest.lstrip(">\"')]")
    return rest if reply_in(rest) or not before.strip("<>\"'([ \t") else text


def _near(lines: Sequence[Line], at: int) -> str:
    """A line and those beside it, as one: a mail server breaks its sentences where it likes."""
    return " ".join(line.text.strip() for line in lines[max(0, at - 2) : at + _MOST_FOLDED])


_REPLY = re.compile(r"[2-5]\d\d[ -]")
_STOPS = re.compile(r"--|>>>|==|giving up on |i'm not going to try|this message has been in", re.I)


def _whole(reply: str, below: Sequence[Line], text: str) -> str:
    """A reply with the lines that it goes on for."""
    marked = text.startswith("<<<")
    parts = [reply]
    for line in below:
        more = line.text.strip()
        if marked != more.startswith("<<<"):
            break
        more = more.removeprefix("<<<").strip()
        if not more or _STOPS.match(more) or returned_begins(line.text):
            break
        if _REPLY.match(more) and not goes_on(reply.encode("utf-8", "replace")):
            break
        if ADDRESS.match(more.lstrip("<")) and more.rstrip().endswith((":", ">")):
            break
        parts.append(more)
    whole = " ".join(parts)[:_LONGEST_REPLY]
    return reply_in(whole) or reply
