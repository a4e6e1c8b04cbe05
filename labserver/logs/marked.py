"""Logs in which each line is marked with who spoke.

A `Mark` is one such kind of log. Most are a table of line shapes; where a kind needs more, it has
a function of its own below.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from labserver.logs.talk import HIDDEN, Aside, Begins, Encrypted, Event, Omitted, Said
from labserver.transcript import Side
from labserver.turns import CHALLENGE


class Mark(NamedTuple):
    """A kind of log."""

    kind: str
    telltale: re.Pattern[str]
    """What a line of its dialogue looks like."""
    read: Callable[[Sequence[str]], Iterable[Event]]


_TLS_VERSION = re.compile(r"TLSv1(?:\.\d)?")


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


# -- swaks

_SWAKS_CLIENT = re.compile(r" ?([-~*]{1,3})>(?: (.*)|$)")
_SWAKS_SERVER = re.compile(r"<([-~*][ *])(?: (.*)|$)")
_SWAKS_TRYING = re.compile(r"=== (?:Trying (?P<host>.*?):(?P<port>\d{1,5})\.\.\.|Connected to )")
_SWAKS_TLS = re.compile(r"=== TLS started with cipher (TLSv1(?:\.\d)?)")
_SWAKS_SAYS = re.compile(r"(?:===|\*\*\*) ")
_SWAKS_DUMP = re.compile(r"(?:<  |  >) \d{4}: [0-9A-F]{2} ")


def _swaks(rows: Sequence[str]) -> Iterator[Event]:
    for n, row in enumerate(rows, 1):
        if client := _SWAKS_CLIENT.match(row):
            yield Said(n, "C", _octets(client[2] or ""), "~" in client[1])
        elif server := _SWAKS_SERVER.match(row):
            yield Said(n, "S", _octets(server[2] or ""), "~" in server[1])
        else:
            if trying := _SWAKS_TRYING.match(row):
                yield Begins(n, int(trying["port"] or 0))
            elif tls := _SWAKS_TLS.match(row):
                yield Encrypted(n, tls[1])
            says = "what swaks says itself" if _SWAKS_SAYS.match(row) else "not of swaks"
            yield Aside(n, "the octets of a line beside it" if _SWAKS_DUMP.match(row) else says)


# -- curl -v

_CURL_ID = r"\[(?:[A-Z]{2,10}-)?(?:\d{1,9}|x)-(?:\d{1,9}|x)\] "
"""Of which transfer and connection a line is (curl 8.2 and later, `--trace-ids`)."""
_CURL_PREFIX = rf"(?:\d\d:\d\d:\d\d\.\d{{6}} )?(?:{_CURL_ID})?"
_CURL_TIME = re.compile(rf"(\d\d:\d\d:\d\d\.\d{{6}} )?(?:{_CURL_ID})?")
_CURL_SAID = re.compile(r"([<>])(?: (.*)|$)")
_CURL_HEARD = re.compile(
    rf"(?:.{{0,200}}?(?:\r|--:--:--)[-: 0-9kMG]{{0,20}})?{_CURL_PREFIX}(?:<(?: |$)|[{{}}] \[)"
)
_CURL_BEGINS = re.compile(
    r"\* +(?:Trying \S+?:(?P<port>\d{1,5})\.\.\.|(?:Connected|Established connection) to )"
)
_CURL_TLS = re.compile(r"\* +SSL connection using (TLSv1(?:\.\d)?)")
_CURL_LITERAL = re.compile(r"\* Found (\d{1,12}) bytes to download")
_CURL_OCTETS = re.compile(r"[{}] \[\d+ bytes data\]")
_CURL_SAYS = re.compile(r"curl: |\r?.{0,90}--:--:--|  % Total  |  {20,}Dload ")


def _curl(rows: Sequence[str]) -> Iterator[Event]:
    if not any(_CURL_HEARD.match(row) for row in rows):
        return  # a quotation
    for n, raw in enumerate(rows, 1):
        # The progress meter stands in the same line.
        row = raw.rpartition("\r")[2] if "\r" in raw else raw
        if "--:--:--" in row:
            row = row[row.rfind("--:--:--") :].lstrip("-: 0123456789kMG")
        clock = _CURL_TIME.match(row)
        row = row[clock.end() :] if clock else row
        time = clock[1] if clock else None
        if said := _CURL_SAID.match(row):
            who: Side = "C" if said[1] == ">" else "S"
            yield Said(n, who, _octets(said[2] or ""), at=_seconds(time))
        elif row.startswith("*"):
            if begins := _CURL_BEGINS.match(row):
                yield Begins(n, int(begins["port"] or 0))
            elif tls := _CURL_TLS.match(row):
                yield Encrypted(n, tls[1])
            elif literal := _CURL_LITERAL.match(row):
                yield Omitted(n, "S", int(literal[1]))
            yield Aside(n, "what curl says itself")
        elif _CURL_OCTETS.match(row):
            yield Aside(n, "")
        elif _CURL_SAYS.match(raw):
            yield Aside(n, "what curl says itself")
        else:
            yield Aside(n, "not of curl's dialogue: what it read and wrote out, most likely")


# -- curl --trace-ascii, curl --trace

_TRACE = re.compile(
    rf"{_CURL_PREFIX}(?:(?P<way><=|=>) (?:Recv|Send) (?P<kind>header|data|SSL data), "
    r"(?P<octets>\d{1,9}) bytes|== Info: (?P<info>.*))"
)
_TRACE_ROW = re.compile(r"(?P<at>[0-9a-f]{4,8}): (?P<text>.*)")
_TRACE_HEX = re.compile(r"((?:[0-9a-f]{2} ){1,16}) *(.{1,16})?")


def _curl_trace(rows: Sequence[str]) -> Iterator[Event]:
    block: _Block | None = None
    begun: dict[Side, list[bytes]] = {"C": [], "S": []}
    for n, row in enumerate((*rows, ""), 1):
        head, part = _TRACE.match(row), _TRACE_ROW.match(row)
        if block and not (part and not head):
            # A block may end in the middle of a line.
            begun[block.who].append(block.data())
            if begun[block.who][-1].endswith(b"\n"):
                yield Said(block.row, block.who, b"".join(begun[block.who]))
                begun[block.who].clear()
            block = None
        if head and head["way"] and head["kind"] != "SSL data":
            block = _Block(n, "S" if head["way"] == "<=" else "C", int(head["octets"]), [])
        elif part and block and not head:
            block.parts.append((int(part["at"], 16), part["text"]))
        elif head or part:
            info = f"* {head['info']}" if head and head["info"] else ""
            if begins := _CURL_BEGINS.match(info):
                yield Begins(n, int(begins["port"] or 0))
            elif tls := _CURL_TLS.match(info):
                yield Encrypted(n, tls[1])
            yield Aside(n, "what curl says of TLS, and itself")
        elif n <= len(rows):
            yield Aside(n, "not of curl's trace" if row else "")


class _Block(NamedTuple):
    """Octets that curl's trace shows together."""

    row: int
    who: Side
    octets: int
    parts: list[tuple[int, str]]
    """Each row's offset, and what it shows."""

    def data(self) -> bytes:
        """The octets: from their numbers, or from their text, which a CRLF isn't in."""
        if self.parts and all(_TRACE_HEX.fullmatch(text) for _, text in self.parts):
            numbers = (_TRACE_HEX.fullmatch(text) for _, text in self.parts)
            return b"".join(bytes.fromhex(each[1]) for each in numbers if each)
        ends = [*(at for at, _ in self.parts[1:]), self.octets]
        data: list[bytes] = []
        for (at, text), end in zip(self.parts, ends, strict=False):
            left = min(max(0, end - at - len(text)), _MOST_BLANKS)
            # A window may have taken blanks off a row's end.
            data.append(_octets(text) + b" " * (left - 2) + (b"\r\n" if left >= 2 else b""))
        return b"".join(data)


_MOST_BLANKS = 64


# -- Python's smtplib, poplib, imaplib

_REPR = r"b?(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")"
_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.S)
_NAMED = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_SMTPLIB = re.compile(
    rf"(?:(?P<time>\d\d:\d\d:\d\d(?:\.\d{{1,6}})?) )?(?P<who>send|reply): (?P<data>{_REPR})\s*$"
)
_SMTPLIB_CONNECT = re.compile(r"(?:[\d:.]+ )?connect: (?:to )?\('.*', (?P<port>\d{1,5})\)")
_SMTPLIB_AGAIN = re.compile(r"(?:[\d:.]+ )?(?:reply: retcode|data: \(|connect: b?['\"])")
_POPLIB = re.compile(rf"\*(?P<what>cmd|put|get)\* (?P<data>{_REPR})\s*$")
_POPLIB_AGAIN = re.compile(r"\*(?:resp|stat|welcome)\* ")
_IMAPLIB = re.compile(
    rf"\s*(?P<min>\d\d):(?P<sec>\d\d\.\d\d) (?P<who>[<>]) (?P<data>{_REPR}(?=\s*$)|[^b'\"].*)"
)
_IMAPLIB_LITERAL = re.compile(
    r"\s*\d\d:\d\d\.\d\d (?P<what>read|write) literal size (?P<octets>\d{1,12})"
)
_IMAPLIB_BEGINS = re.compile(r"\s*\d\d:\d\d\.\d\d new IMAP4 connection")
_IMAPLIB_SAYS = re.compile(r"\s*\d\d:\d\d\.\d\d ")
_IMAPLIB_AGAIN = re.compile(
    r"\s*\d\d:\d\d\.\d\d (?:\s*matched |untagged_responses\[|CAPABILITIES: |BYE response)"
)


def _unrepr(text: str) -> bytes:
    """The octets that Python shows like this; never fails, whatever stands there."""
    body = text.removeprefix("b")
    if body[:1] not in ("'", '"'):
        return _octets(text)

    def plain(match: re.Match[bytes]) -> bytes:
        if match[1]:
            return bytes((int(match[1], 16),))
        if code := match[2] or match[3]:
            number = int(code, 16)
            return _octets(chr(number)) if number < 0x110000 else match[0]
        return _NAMED.get(match[4], match[4])

    return _ESCAPE.sub(plain, _octets(body[1:-1]))


def _seconds(clock: str | None) -> float:
    if not clock:
        return 0.0
    hours, minutes, seconds = clock.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def _smtplib(rows: Sequence[str]) -> Iterator[Event]:
    for n, row in enumerate(rows, 1):
        if said := _SMTPLIB.match(row):
            who: Side = "C" if said["who"] == "send" else "S"
            yield Said(n, who, _unrepr(said["data"]), at=_seconds(said["time"]))
        elif connect := _SMTPLIB_CONNECT.match(row):
            yield Begins(n, int(connect["port"]))
            yield Aside(n, "what smtplib says itself")
        elif _SMTPLIB_AGAIN.match(row):
            yield Aside(n, "")
        else:
            yield Aside(n, "not of smtplib")


def _poplib(rows: Sequence[str]) -> Iterator[Event]:
    # At level 1 only the commands are shown; at level 2 each once more as it was sent.
    sent = any(row.startswith("*put*") for row in rows)
    for n, row in enumerate(rows, 1):
        said = _POPLIB.match(row)
        if said and sent and said["what"] == "cmd":
            yield Aside(n, "")
        elif said:
            yield Said(n, "S" if said["what"] == "get" else "C", _unrepr(said["data"]))
        else:
            yield Aside(n, "" if _POPLIB_AGAIN.match(row) else "not of poplib")


def _imaplib(rows: Sequence[str]) -> Iterator[Event]:
    for n, row in enumerate(rows, 1):
        if said := _IMAPLIB.match(row):
            at = int(said["min"]) * 60 + float(said["sec"])
            data = _unrepr(said["data"].rstrip())
            yield Said(n, "C" if said["who"] == ">" else "S", data, at=at)
        elif literal := _IMAPLIB_LITERAL.match(row):
            side: Side = "S" if literal["what"] == "read" else "C"
            yield Omitted(n, side, int(literal["octets"]))
            if side == "C":
                yield Said(n, "C", b"\r\n")  # sent as well, and not shown, either
            yield Aside(n, "content that imaplib doesn't show")
        else:
            if _IMAPLIB_BEGINS.match(row):
                yield Begins(n)
            says = "" if _IMAPLIB_AGAIN.match(row) else "what imaplib says itself"
            yield Aside(n, says if _IMAPLIB_SAYS.match(row) else "not of imaplib")


# -- Thunderbird, on a computer and on Android

_THUNDERBIRD_IMAP = re.compile(
    r".{0,120}?/IMAP (?P<key>\w{1,32}):.{0,300}?:"
    r"(?P<who>SendData|CreateNewLineFromSocket): ?(?P<text>.*)"
)
_THUNDERBIRD = re.compile(
    r".{0,120}?(?:\bmailnews\.|[A-Z]/)(?P<key>smtp|pop3|imap|SMTP|POP3|IMAP)[^ :]{0,40}:? "
    r"(?:(?P<new>[CS]): ?|SMTP (?P<old>Send|Response): |(?P<pop>SEND|RECV): )(?P<text>.*)"
)
_ANDROID = re.compile(r".{0,120}?\bSMTP (?P<who><<<|>>>) (?P<text>.*)")
_SOURCE_LINE = re.compile(r"\s\w{1,40}\.(?:jsm|sys\.mjs):\d{1,6}(?::\d{1,6})?$")
_MORE_REPLY = re.compile(r"[2-5][0-9][0-9][ -]")
"""A line of a reply whose first line alone is marked."""
_SUPPRESSED = re.compile(r"Logging suppressed")
_THUNDERBIRD_LINE = (
    r".{0,120}?(?:/IMAP \w{1,32}:.{0,300}?:(?:SendData|CreateNewLineFromSocket):|"
    r"\bmailnews\.(?:smtp|pop3|imap)\b.{0,20} [CS]: |"
    r"[A-Z]/(?:SMTP|POP3) (?:[CS]: |SMTP (?:Send|Response): |SEND: |RECV: ))"
)
_CLOCK = re.compile(r".{0,40}?\b(\d\d:\d\d:\d\d(?:\.\d{1,6})?)")
_TAG = re.compile(rb"([A-Za-z0-9.]+) (?:OK|NO|BAD)\b", re.I)


def _thunderbird(rows: Sequence[str]) -> Iterator[Event]:
    hidden: dict[str, int] = {}
    asking: dict[str, bool] = {}
    replying = ""
    for n, row in enumerate(rows, 1):
        said = _THUNDERBIRD_IMAP.match(row) or _THUNDERBIRD.match(row)
        if said is None and replying and _MORE_REPLY.match(row):
            yield Said(n, "S", _octets(_without_source(row)), key=replying)
            continue
        if said is None:
            yield Aside(n, "what Thunderbird says itself")
            continue
        parts = said.groupdict()
        who: Side = "C" if _first(parts, "who", "new", "old", "pop") in _CLIENT_WORDS else "S"
        key, text = parts["key"], _without_source(parts["text"])
        replying = key if who == "S" else ""
        clock = _CLOCK.match(row)
        at = _seconds(clock[1] if clock else None)
        if who == "C" and _SUPPRESSED.match(text):
            yield Aside(n, "hidden by Thunderbird, for a password was in it")
            if asking.get(key) or key.lower() not in ("smtp", "pop3"):
                hidden[key] = n
            else:
                command = "AUTH" if key.lower() == "smtp" else "PASS"
                yield Said(n, "C", command.encode(), at=at, key=key)
            continue
        data = _octets(text)
        if who == "S":
            if key in hidden and (tag := _TAG.match(data)) and not asking.get(key):
                yield Said(hidden[key], "C", tag[1] + b" LOGIN", at=at, key=key)
            elif key in hidden and asking.get(key):
                yield Said(hidden[key], "C", HIDDEN.encode(), at=at, key=key)
            hidden.pop(key, None)
            asking[key] = data.startswith((CHALLENGE.encode(), b"+ ")) or data.strip() == b"+"
        yield Said(n, who, data, at=at, key=key)


def _without_source(text: str) -> str:
    """A line without the place in Thunderbird's own code that wrote it."""
    source = _SOURCE_LINE.search(text.rstrip(), max(0, len(text.rstrip()) - 80))
    return text[: source.start()].rstrip() if source else text


_CLIENT_WORDS = ("SendData", "C", "Send", "SEND")


def _first(parts: dict[str, str | None], *names: str) -> str:
    return next((parts[name] or "" for name in names if parts.get(name)), "")


def _android(rows: Sequence[str]) -> Iterator[Event]:
    for n, row in enumerate(rows, 1):
        if said := _ANDROID.match(row):
            yield Said(n, "C" if said["who"] == ">>>" else "S", _octets(said["text"]))
        else:
            yield Aside(n, "not of the dialogue")


# -- lines marked C: and S:, as in RFCs and as this lab prints its sessions

_SIDED = re.compile(r"\s*(?P<who>[CS]|Client|Server|In|Out): ?(?P<text>.*)")
_SIDED_TLS = "-- TLS from here on --"


def _sided(rows: Sequence[str]) -> Iterator[Event]:
    client = True
    for n, row in enumerate(rows, 1):
        if said := _SIDED.match(row):
            client = said["who"] in ("C", "Client", "In")
            yield Said(n, "C" if client else "S", _octets(said["text"]))
        elif not client and _MORE_REPLY.match(row):
            yield Said(n, "S", _octets(row))
        elif row.strip() == _SIDED_TLS:
            yield Encrypted(n)
        else:
            yield Aside(n, "not marked with who spoke" if row.strip() else "")


MARKS = (
    Mark("swaks", re.compile(r" ?(?:\*\*)?[-~*]> |<[-~*][ *] "), _swaks),
    Mark(
        "curl -v",
        re.compile(rf"{_CURL_PREFIX}(?:[<>] |[{{}}] \[\d+ bytes data\])"),
        _curl,
    ),
    Mark(
        "curl --trace",
        re.compile(rf"{_CURL_PREFIX}(?:<= Recv|=> Send) (?:SSL )?(?:header|data), "),
        _curl_trace,
    ),
    Mark("smtplib", re.compile(r"(?:\d\d:[\d:.]+ )?(?:send|reply): b?['\"]"), _smtplib),
    Mark("poplib", re.compile(r"\*(?:cmd|put|get)\* b?['\"]"), _poplib),
    Mark("imaplib", re.compile(r"\s*\d\d:\d\d\.\d\d [<>] "), _imaplib),
    Mark("Thunderbird", re.compile(_THUNDERBIRD_LINE), _thunderbird),
    Mark("Thunderbird for Android", re.compile(r".{0,120}?\bSMTP (?:<<<|>>>) "), _android),
    Mark("lines marked C: and S:", re.compile(r"\s*(?:[CS]|Client|Server|In|Out): "), _sided),
)
