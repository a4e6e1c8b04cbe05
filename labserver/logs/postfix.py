"""Postfix's log: what its daemons note of a delivery, and the dialogue itself where it is noted.

With `debug_peer_list` the log holds each line said; without it only the reply that settled a
delivery, and which command drew it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from labserver.logs.talk import MOST_DIALOGUES, Aside, Begins, Event, Said
from labserver.logs.told import STAGES, Told, write_out
from labserver.transcript import Side

TELLTALE = re.compile(r".{0,80}?\bpostfix[\w./-]*/[a-z-]+\[\d+\]: ")

_ROW = re.compile(
    r".{0,60}?(?P<clock>\d\d:\d\d:\d\d).{0,80}?"
    r"\bpostfix[\w./-]*/(?P<daemon>[a-z-]+)\[(?P<pid>\d+)\]: (?P<rest>.*)"
)
_SPOKE = re.compile(r"(?P<mark>[<>]) [^\s\[\]]+\[[^\]]*\](?::(?P<port>\d{1,5}))?: (?P<text>.*)")
_FROM = re.compile(r"(?P<id>\w+): from=<(?P<sender>[^<>]*)>")
_STATUS = re.compile(
    r"(?P<id>\w+): to=<(?P<to>[^<>]*)>.*? relay=(?P<relay>[^\s,]+),.* dsn=(?P<dsn>[\d.]+), "
    r"status=(?P<status>[a-z]+) \((?P<why>.*)\)"
)
_SAID = re.compile(
    r"(?:host \S+ (?P<greeted>said|refused to talk to me): |"
    r"(?P<login>SASL authentication failed); server \S+ said: )?"
    r"(?P<reply>[2-5][0-9][0-9][ -].*?)(?: \(in reply to (?P<command>[A-Za-z ]+?) command\))?"
)
_REJECT = re.compile(
    r"(?:NOQUEUE|\w+): (?:milter-)?reject: (?P<command>[A-Z-]+) from [^\s\[\]]*\[[^\]]*\]: "
    r"(?P<reply>[45][0-9][0-9][ -].*?); (?:from=<(?P<sender>[^<>]*)>)?(?: to=<(?P<to>[^<>]*)>)?"
    r"(?: proto=\w+)?(?: helo=<(?P<helo>[^<>]*)>)?"
)
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
        status = _STATUS.match(rest)
        said = _SAID.fullmatch(status["why"]) if status else None
        if status and said:
            _delivery(n, pid, status, said, deliveries, done)
        elif status:
            yield Aside(n, f"{status['status']}, but without a reply of a server")
        elif reject := _REJECT.match(rest):
            done.append((pid, _rejected(n, reject)))
        else:
            yield Aside(n, "what Postfix notes besides")
    done += [(key[0], told) for key, told in deliveries.items()]
    for pid, told in sorted(done, key=lambda one: one[1].row)[: MOST_DIALOGUES + 1]:
        # Where the dialogue itself is in the log, nothing is told that isn't there already.
        if pid not in talked:
            told.sender = senders.get(told.queue_id, told.sender)
            yield from write_out(told, f"{pid} {told.row}")


def _delivery(
    n: int,
    pid: str,
    status: re.Match[str],
    said: re.Match[str],
    deliveries: dict[tuple[str, ...], Told],
    done: list[tuple[str, Told]],
) -> None:
    """Note what became of one recipient; those of one connection stand together."""
    key = (pid, status["id"], status["relay"])
    told = deliveries.get(key)
    if told is not None and status["to"] in told.recipients:
        # Tried once more: that is another connection.
        done.append((pid, deliveries.pop(key)))
        told = None
    if told is None:
        port = _PORT.search(status["relay"])
        told = deliveries[key] = Told(n, stage="greeting", queue_id=status["id"])
        told.port = int(port[1]) if port else 0
    stage = "greeting" if said["greeted"] == "refused to talk to me" else "end of DATA"
    stage = "AUTH" if said["login"] else _STAGES.get(said["command"] or "", stage)
    told.recipients[status["to"]] = (n, said["reply"] if stage == "RCPT" else "")
    if STAGES.index(stage) >= STAGES.index(told.stage):
        told.stage = stage
        told.reply = said["reply"]
    note = _NOTES.get(status["status"], f"Postfix notes: {status['status']}")
    notes = dict.fromkeys([*filter(None, told.ending.split("; ")), note])
    told.ending = "; ".join(notes)


def _rejected(n: int, reject: re.Match[str]) -> Told:
    """What smtpd refused."""
    stage = _STAGES.get(reject["command"], "RCPT")
    reply, to = reject["reply"], reject["to"] or ""
    recipients = {to: (n, reply if stage == "RCPT" else "")} if to else {}
    return Told(n, stage, reply, reject["sender"], reject["helo"] or "", recipients)


def _seconds(clock: str) -> float:
    hours, minutes, seconds = map(int, clock.split(":"))
    return float(hours * 3600 + minutes * 60 + seconds)
