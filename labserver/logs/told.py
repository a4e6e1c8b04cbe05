"""A dialogue of which only the last answer is told, as mail servers' logs and bounces do.

What went before it must have been said, in this order: greeting, EHLO, MAIL, RCPT, DATA. So it is
written down too, with `ABSENT` in place of what nobody tells.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from labserver.logs.talk import Begins, Ends, Event, Said
from labserver.transcript import ABSENT
from labserver.turns import GO_ON

STAGES = ("greeting", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "end of DATA")
"""What a reply may have answered, in the order in which it is asked."""

_ADDRESS = re.compile(r"[^\s<>@]@[^\s<>@]")
_OF_RECIPIENT = re.compile(r"mailbox|recipient|user|relay|account|greylist|address", re.I)
_LOGIN_CODES = ("530", "534", "535", "538", "454")


@dataclass(slots=True)
class Told:
    """One attempt to deliver."""

    row: int
    stage: str = "RCPT"
    """What the last reply answered."""
    reply: str = ""
    """The last reply, where it wasn't to RCPT."""
    sender: str | None = None
    hello: str = ""
    recipients: dict[str, tuple[int, str]] = field(default_factory=dict)
    """For each recipient the log's line that names it, and the reply to its RCPT, if told."""
    ending: str = ""
    unanswered: bool = False
    """No reply to what was asked last is told."""
    unasked: bool = False
    """Not even what was asked is told."""
    port: int = 0
    queue_id: str = ""


def reply_lines(reply: str) -> list[str]:
    """A reply that was folded into one line, as its lines (RFC 5321 section 4.2.1)."""
    goes_on = re.fullmatch(r"(\d{3})-.*", reply, re.S)
    return re.split(rf" (?={goes_on[1]}[ -])", reply) if goes_on else [reply]


def likely_stage(reply: str, status: str) -> str:
    """What a reply most likely answered, where nobody says it."""
    own = re.match(r"\d{3}[ -]([245]\.\d{1,3}\.\d{1,3})", reply)
    status = own[1] if own else status
    if reply.startswith("421") and not own:
        return "greeting"
    if reply[:3] in _LOGIN_CODES or status.endswith((".7.8", ".7.9")):
        return "AUTH"
    if re.match(r"[45]\.[12]\.", status):
        return "RCPT"
    if re.match(r"[45]\.(?:6\.|3\.4|7\.2[0-9])", status):
        return "end of DATA"
    return "RCPT" if _ADDRESS.search(reply) or _OF_RECIPIENT.search(reply) else "end of DATA"


def write_out(told: Told, key: str) -> Iterator[Event]:
    """The events of a dialogue that leads to what is told."""
    row = told.row
    at = STAGES.index(told.stage)
    yield Begins(row, told.port, key)
    if told.ending:
        yield Ends(row, told.ending, key)

    if told.unasked:
        return

    def answer(reply: str | None, row: int = row) -> Iterator[Event]:
        for line in reply_lines(reply) if reply is not None else ():
            yield Said(row, "S", line.encode("utf-8", "backslashreplace"), key=key)

    def ask(command: str, row: int = row) -> Event:
        return Said(row, "C", command.encode("utf-8", "backslashreplace"), key=key)

    last = None if told.unanswered else told.reply
    if at == 0:
        yield from answer(last)
        return
    path = ABSENT if told.sender is None else f"<{told.sender}>"
    asked: Mapping[str, str] = {
        told.stage: told.stage,
        "EHLO": f"EHLO {told.hello or ABSENT}",
        "MAIL": f"MAIL FROM:{path}",
    }
    for stage in STAGES[1 : min(at, STAGES.index("MAIL")) + 1]:
        if stage in asked:
            yield ask(asked[stage])
            yield from answer(last if stage == told.stage else f"250 {ABSENT}")
    if at < STAGES.index("RCPT"):
        return
    unnamed = {"": (row, told.reply if told.stage == "RCPT" else "")}
    for recipient, (where, reply) in (told.recipients or unnamed).items():
        yield ask(f"RCPT TO:<{recipient}>" if recipient else f"RCPT TO:{ABSENT}", where)
        if told.stage != "RCPT" or not told.unanswered:
            yield from answer(reply or f"250 {ABSENT}", where)
    if at >= STAGES.index("DATA"):
        yield ask("DATA")
        yield from answer(last if told.stage == "DATA" else f"{GO_ON} {ABSENT}")
    if told.stage == "end of DATA":
        yield ask(".")
        yield from answer(last)
