"""A bounce: the letter that says that a letter couldn't be delivered.

Its machine-readable part (RFC 3464) names the reply of the server that refused; Gmail and others
repeat it in words, sometimes only there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from labserver.logs.talk import MOST_DIALOGUES, Aside, Event
from labserver.logs.told import STAGES, Told, likely_stage, write_out

TELLTALE = re.compile(
    r"(?:Diagnostic-Code|Final-Recipient|Action|Reporting-MTA): |"
    r".{0,80}?\bresponse(?: from the remote server)? was:"
)

_FIELD = re.compile(r"([A-Za-z][A-Za-z0-9-]{1,60}):[ \t]*(.*)")
_KNOWN = {
    "final-recipient",
    "original-recipient",
    "action",
    "status",
    "remote-mta",
    "diagnostic-code",
    "reporting-mta",
    "arrival-date",
    "last-attempt-date",
    "will-retry-until",
    "received-from-mta",
}
_WORDS = re.compile(r".{0,80}?\bresponse(?: from the remote server)? was:\s*(.*)")
_REPLY = re.compile(r"[2-5][0-9][0-9][ -].*")
_IN_REPLY = re.compile(r"<([^<>\s]+)>: .{0,800}?\(in reply to ([A-Za-z ]+?) command\)")
_RETURNED = re.compile(r"Content-Type: (?:message/rfc822|text/rfc822-headers)", re.I)
_STAGES = {"MAIL FROM": "MAIL", "RCPT TO": "RCPT"}
_ACTIONS = ("failed", "delayed", "delivered", "relayed", "expanded")


def read(rows: Sequence[str]) -> Iterator[Event]:
    """The events of a bounce."""
    groups = list(_groups(rows))[: MOST_DIALOGUES + 1]
    asked = _asked(rows)
    sender = next(filter(None, (_sender(fields) for fields in groups)), None)
    used: set[int] = set()
    replies: set[str] = set()
    for number, fields in enumerate(groups):
        if "final-recipient" not in fields and "diagnostic-code" not in fields:
            continue
        row, diagnostic = fields.get("diagnostic-code") or fields["final-recipient"]
        used |= {where for where, _ in fields.values()}
        told = _told(row, diagnostic.partition(";")[2].strip(), fields, asked, sender)
        if told is None:
            yield Aside(row, "the report names no reply of a server")
            continue
        replies.add(told.reply[:3])
        if _recipient(fields) not in asked:
            yield Aside(row, "which command this answered isn't said; the likeliest is shown")
        yield from write_out(told, f"report {number}")
    returned, looked = False, 0
    for n, text in enumerate(rows, 1):
        returned = returned or bool(_RETURNED.match(text))
        words = None if returned or looked >= _MOST_WORDS else _WORDS.match(text)
        looked += words is not None
        if words and (told := _in_words(rows, n, words[1])) and told.reply[:3] not in replies:
            replies.add(told.reply[:3])
            yield Aside(n, "which command this answered isn't said; the likeliest is shown")
            yield from write_out(told, f"words {n}")
        elif n not in used:
            yield Aside(n, "the letter that came back" if returned else "the bounce's own words")


def _groups(rows: Sequence[str]) -> Iterator[dict[str, tuple[int, str]]]:
    """The report's groups of fields, each field with its line and its text unfolded."""
    fields: dict[str, tuple[int, str]] = {}
    name = ""
    for n, row in enumerate(rows, 1):
        if row[:1] in (" ", "\t") and row.strip() and name:
            where, text = fields[name]
            if len(text) < _LONGEST:
                fields[name] = where, f"{text} {row.strip()}"
            continue
        match = _FIELD.match(row)
        name = match[1].lower() if match else ""
        if not row.strip() or row.startswith("--"):
            if fields.keys() & _KNOWN:
                yield fields
            fields = {}
        elif match and (name in _KNOWN or name.startswith("x-")):
            fields[name] = n, match[2].strip()
        else:
            name = ""
    if fields.keys() & _KNOWN:
        yield fields


_LONGEST = 16_000
_LONGEST_REPLY = 4000
_LOOKED_THROUGH = 60_000
_MOST_WORDS = 50


def _told(
    row: int,
    reply: str,
    fields: dict[str, tuple[int, str]],
    asked: dict[str, str],
    sender: str | None,
) -> Told | None:
    reply = reply[:_LONGEST_REPLY]
    if not _REPLY.fullmatch(reply):
        return None
    recipient = _recipient(fields)
    status = fields.get("status", (0, ""))[1].split(" ")[0]
    action = fields.get("action", (0, ""))[1].lower()
    stage = asked.get(recipient) or likely_stage(reply, status)
    what = action if action in _ACTIONS else "not delivered"
    ending = ", ".join(filter(None, [f"the bounce says: {what}", status, recipient]))
    told = Told(row, stage, reply, sender, ending=ending)
    told.recipients = {recipient: (row, reply if stage == "RCPT" else "")}
    return told


def _in_words(rows: Sequence[str], n: int, rest: str) -> Told | None:
    """The reply that stands after "the response was"."""
    words = [rest] if rest else []
    for row in rows[n : n + 20]:
        if not row.strip() or row.startswith("--"):
            if words:
                break
            continue
        words.append(row.strip())
    reply = " ".join(words)[:_LONGEST_REPLY]
    if not _REPLY.fullmatch(reply):
        return None
    return Told(n, likely_stage(reply, ""), reply, ending="the bounce says: not delivered")


def _recipient(fields: dict[str, tuple[int, str]]) -> str:
    text = fields.get("final-recipient", fields.get("original-recipient", (0, "")))[1]
    return text.rpartition(";")[2].strip().strip("<>")


def _sender(fields: dict[str, tuple[int, str]]) -> str | None:
    text = fields.get("x-postfix-sender", (0, ""))[1]
    return text.rpartition(";")[2].strip().strip("<>") or None


def _asked(rows: Sequence[str]) -> dict[str, str]:
    """For each recipient what the refusing reply answered, where Postfix says it."""
    text = " ".join(row.strip() for row in rows[:2000])[:_LOOKED_THROUGH]
    return {
        recipient: stage
        for recipient, command in _IN_REPLY.findall(text)
        if (stage := _STAGES.get(command, command)) in STAGES
    }
