"""Postfix's log: what its daemons note of a delivery, and the dialogue itself where it is noted.

With `debug_peer_list` the log holds each line said; without it only the reply that settled a
delivery, and which command drew it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from labserver.logs.talk import MOST_DIALOGUES, Aside, Begins, Event, Said
from labserver.logs.told import STAGES, Told, write_out
from labserver.transcript import Side

_DAEMON = r"\bpostfix[\w.-]{0,40}(?:/[\w.-]{1,40}){0,3}/"
TELLTALE = re.compile(rf".{{0,80}}?{_DAEMON}[a-z-]{{1,30}}\[\d{{1,10}}\]: ")

_ROW = re.compile(
    r".{0,60}?(?P<clock>\d\d:\d\d:\d\d).{0,80}?"
    rf"{_DAEMON}(?P<daemon>[a-z-]{{1,30}})\[(?P<pid>\d{{1,10}})\]: (?P<rest>.*)"
)
_SPOKE = re.compile(r"(?P<mark>[<>]) [^\s\[\]]+\[[^\]]*\](?::(?P<port>\d{1,5}))?: (?P<text>.*)")
_FROM = re.compile(r"(?P<id>\w+): from=<(?P<sender>[^<>]*)>")
_TO = re.compile(r"(?P<id>\w+): to=<(?P<to>[^<>]*)>")
_RELAY = re.compile(r" relay=([^\s,]{1,300}),")
_BECAME = re.compile(r"(?P<status>[a-z]{1,20}) \((?P<why>.*)\)")
_SUSPENDED = "delivery temporarily suspended: "
_SAID = re.compile(
    r"(?:host \S+ (?P<greeted>said|refused to talk to me): |"
    r"(?P<login>SASL authentication failed); server \S+ said: )?"
    r"(?P<reply>[2-5][0-9][0-9][ -].*)"
)
_IN_REPLY = re.compile(r" \(in reply to (?P<command>[A-Za-z ]{1,30}) command\)$")
_BROKE_OFF = re.compile(
    r"(?:lost connection with|conversation with|timeout with) \S+ (?:timed out )?"
    r"while (?P<at>.{1,80})"
)
_BROKE_OFF_AT = (
    ("receiving the initial", "greeting"),
    ("performing the", "EHLO"),
    ("sending MAIL", "MAIL"),
    ("sending RCPT", "RCPT"),
    ("sending DATA", "DATA"),
    ("sending message body", "end of DATA"),
    ("sending end of data", "end of DATA"),
)
_REJECT = re.compile(
    r"(?:NOQUEUE|\w+): (?:milter-)?reject: (?P<command>[A-Z-]{1,20}) from "
    r"[^\s\[\]]*\[[^\]]*\](?::\d{1,5})?: (?P<reply>.*)"
)
_ASKED = re.compile(r"; (?=(?:from|to|proto|helo|sasl_\w{1,20})=)")
_VALUE = re.compile(r"\b(from|to|helo)=<([^<>]*)>")
_LONGEST = 8000
"""Characters of a row; syslog cuts its own far below."""
_PORT = re.compile(r":(\d{1,5})$")
_STAGES = {
    "MAIL FROM": "MAIL",
    "RCPT TO": "RCPT",
    "END-OF-MESSAGE": "end of DATA",
    "CONNECT": "greeting",
    "HELO": "EHLO",
    **{name: name for name in ("EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "end of DATA")},
}
_NOTES = {
    "sent": "Postfix notes: sent",
    "bounced": "Postfix notes: bounced, so it gives up and tells the sender",
    "deferred": "Postfix notes: deferred, so it tries again later",
    "expired": "Postfix notes: expired, so it gives up after its last try",
}
_POSTSCREEN = {
    "PREGREET ": "postscreen notes: the client spoke before the greeting was complete",
    "DNSBL rank ": "postscreen notes: blocklists name the client, and how many count",
    "HANGUP ": "postscreen notes: the client hung up too early",
    "COMMAND ": "postscreen notes: a limit or rule for commands was broken",
    "BARE NEWLINE ": "postscreen notes: a line ended with LF alone",
    "NON-SMTP ": "postscreen notes: what came was no SMTP",
    "PASS ": "postscreen notes: the client passed, and is handed to smtpd",
}


def read(rows: Sequence[str]) -> Iterator[Event]:
    """The events of a log."""
    senders: dict[str, str] = {}
    deliveries: dict[tuple[str, ...], Told] = {}
    done: list[tuple[str, Told]] = []
    talked: set[str] = set()
    for n, row in enumerate(rows, 1):
        match = _ROW.match(row) if len(row) < _LONGEST else None
        if match is None:
            yield Aside(n, "not of Postfix" if row.strip() else "")
            continue
        pid, rest = match["pid"], match["rest"]
        if spoke := _SPOKE.match(rest):
            # smtpd is the server in its dialogues, smtp the client.
            client = (spoke["mark"] == ">") == (match["daemon"] != "smtpd")
            who: Side = "C" if client else "S"
            if pid not in talked:
                yield Begins(n, int(spoke["port"] or 0), pid)
                talked.add(pid)
            at = _seconds(match["clock"])
            yield Said(n, who, spoke["text"].encode("utf-8", "backslashreplace"), at=at, key=pid)
            continue
        if match["daemon"] == "smtpd" and rest.startswith("connect from ") and pid in talked:
            yield Begins(n, key=pid)
        if (sender := _FROM.match(rest)) and match["daemon"] == "qmgr":
            senders[sender["id"]] = sender["sender"]
        if delivery := _delivery(n, rest):
            if delivery.told:
                _add(pid, delivery, deliveries, done)
            if not delivery.reply:
                yield Aside(n, f"{delivery.status}, but without a reply of a server")
        elif reject := _REJECT.match(rest):
            done.append((pid, _rejected(n, reject)))
        else:
            note = next((_POSTSCREEN[word] for word in _POSTSCREEN if rest.startswith(word)), "")
            yield Aside(n, note or "what Postfix notes besides")
    done += [(key[0], told) for key, told in deliveries.items()]
    for pid, told in sorted(done, key=lambda one: one[1].row)[: MOST_DIALOGUES + 1]:
        # Where the dialogue itself is in the log, nothing is told that isn't there already.
        if pid not in talked:
            told.sender = senders.get(told.queue_id, told.sender)
            yield from write_out(told, f"{pid} {told.row}")


class _Delivery(NamedTuple):
    """What became of one recipient."""

    row: int
    queue_id: str
    to: str
    relay: str
    status: str
    stage: str
    """What was asked last; empty where that isn't told."""
    reply: str
    why: str

    @property
    def told(self) -> bool:
        """Whether anything of a dialogue is told."""
        return bool(self.reply or self.stage)


def _delivery(n: int, rest: str) -> _Delivery | None:
    head, found, tail = rest.partition(", status=")
    to, became = _TO.match(head), _BECAME.fullmatch(tail)
    if not (found and to and became):
        return None
    relay = _RELAY.search(head)
    why = became["why"].removeprefix(_SUSPENDED)
    command = _IN_REPLY.search(why[-80:])
    said = _SAID.fullmatch(why[: len(why) - len(command[0])] if command else why)
    broke_off = None if said else _BROKE_OFF.match(why)
    stage = ""
    if said:
        stage = "greeting" if said["greeted"] == "refused to talk to me" else "end of DATA"
        stage = (
            "AUTH" if said["login"] else _STAGES.get(command["command"] if command else "", stage)
        )
    elif broke_off:
        stage = next((at for words, at in _BROKE_OFF_AT if broke_off["at"].startswith(words)), "")
    return _Delivery(
        n,
        to["id"],
        to["to"],
        relay[1] if relay else "",
        became["status"],
        stage,
        said["reply"] if said else "",
        why,
    )


def _add(
    pid: str,
    delivery: _Delivery,
    deliveries: dict[tuple[str, ...], Told],
    done: list[tuple[str, Told]],
) -> None:
    """Note what became of one recipient; those of one connection stand together."""
    stage, reply = delivery.stage, delivery.reply
    key = (pid, delivery.queue_id, delivery.relay, "" if reply else "broke off")
    told = deliveries.get(key)
    if told is not None and delivery.to in told.recipients:
        # Tried once more: that is another connection.
        done.append((pid, deliveries.pop(key)))
        told = None
    if told is None:
        port = _PORT.search(delivery.relay)
        told = Told(delivery.row, stage="greeting", queue_id=delivery.queue_id)
        deliveries[key] = told
        told.port = int(port[1]) if port else 0
        told.unanswered = not reply
    told.recipients[delivery.to] = (delivery.row, reply if stage == "RCPT" else "")
    if STAGES.index(stage) >= STAGES.index(told.stage):
        told.stage, told.reply = stage, reply
    note = _NOTES.get(delivery.status, f"Postfix notes: {delivery.status}")
    if not reply:
        note += f" ({delivery.why})"
    notes = dict.fromkeys([*filter(None, told.ending.split("; ")), note])
    told.ending = "; ".join(notes)


def _rejected(n: int, reject: re.Match[str]) -> Told:
    """What smtpd, postscreen or a milter refused."""
    reply, values = reject["reply"], ""
    if asked := _ASKED.search(reply):
        # A blocklist's reply has semicolons as well; only before such a name does one end it.
        reply, values = reply[: asked.start()], reply[asked.end() :]
    known = dict(_VALUE.findall(values))
    stage = _STAGES.get(reject["command"], "RCPT")
    to = known.get("to", "")
    has_code = bool(_CODE.match(reply))
    told = Told(n, stage, reply if has_code else "", known.get("from"), known.get("helo", ""))
    if not has_code:
        told.unanswered = True
        told.ending = f"Postfix notes: refused ({reply})"
    if to:
        told.recipients = {to: (n, told.reply if stage == "RCPT" else "")}
    return told


_CODE = re.compile(r"[45][0-9][0-9](?:[ -]|$)")


def _seconds(clock: str) -> float:
    hours, minutes, seconds = map(int, clock.split(":"))
    return float(hours * 3600 + minutes * 60 + seconds)
