"""A session as JSON, and back.

What is read may have been written by anybody: each value is checked, and each size has its bound.
A session is read line by line, so what is refused has cost no more memory than the lines before
it. Octets stand as text of the same length, one character (U+0000 to U+00FF) for each.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, TypeVar, get_args

from labserver.masking import masked
from labserver.transcript import (
    Host,
    Line,
    LineKind,
    ProtocolName,
    Record,
    RecordType,
    Session,
    Side,
    json_by,
)

FORMAT = "labserver session"
VERSION = 2
"""Version 1 didn't tell of client and server; it is still read."""

MOST_CHARACTERS = 32 * 1024 * 1024
"""Of the text that is read."""
MOST_LINES = 50_000
"""And as many records."""
MOST_OCTETS = 2**53
"""That a line, a record or a session may say it had."""

_T = TypeVar("_T")
_LISTENER = re.compile(r"[A-Za-z0-9_-]{1,40}")
_TLS = re.compile(r"(?:TLSv1(?:\.[0-3])?)?")
_LONGEST_ENDING = 200
_LONGEST_NAME = 5_000
"""Characters: an octet of a client's name is shown by up to ten of them."""
_ADDRESS = re.compile(r"[0-9A-Fa-f:.%]{0,64}")

_GAP = r"[ \t\n\r]*+"
_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_WORD = r"[-+.0-9A-Za-z]{1,400}+"
_PLAIN = rf"{_GAP}(?:{_STRING}|{_WORD}){_GAP}"
_SMALL = rf"{_GAP}(?:\[(?:{_PLAIN}(?:,{_PLAIN}){{0,7}}+)?+\]|\{{\}}){_GAP}"
_FIELD = rf"{_GAP}{_STRING}{_GAP}:(?:{_PLAIN}|{_SMALL})"
_OBJECT = rf"\{{{_FIELD}(?:,{_FIELD}){{0,15}}+\}}"
_LIST = rf"\[{_GAP}(?:{_OBJECT}{_GAP}(?:,{_GAP}{_OBJECT}{_GAP})*+)?+\]"
_MEMBER = re.compile(
    rf"{_GAP}(?P<name>{_STRING}){_GAP}:{_GAP}"
    rf"(?P<value>{_STRING}|{_WORD}|{_OBJECT}|(?P<list>{_LIST})|{_SMALL}){_GAP}(?P<then>[,}}])",
    re.DOTALL,
)
_EACH = re.compile(_OBJECT, re.DOTALL)
_MOST_MEMBERS = 32
"""Of a session."""


def to_json(session: Session, *, reveal: bool = False) -> str:
    """The session as JSON; secrets become `*` in lines and records unless `reveal` is set."""
    shown = session if reveal else masked(session)
    values = {
        "format": FORMAT,
        "version": VERSION,
        "number": shown.number,
        "protocol": shown.protocol,
        "listener": shown.listener,
        "started": shown.started.isoformat(),
        "duration": shown.duration,
        "closed": shown.closed,
        "tls": shown.tls,
        "ending": shown.ending,
        "dropped": shown.dropped,
        "client": {"name": shown.client.name, "address": shown.client.address},
        "server": {"name": shown.server.name, "address": shown.server.address},
        "lines": [
            {
                "at": line.at,
                "who": line.who,
                "kind": line.kind,
                "tls": line.tls,
                "octets": line.octets,
                "secret": line.secret,
                "data": line.data.decode("latin-1"),
            }
            for line in shown.lines
        ],
        "records": [
            {
                "at": record.at,
                "who": record.who,
                "type": record.type,
                "octets": record.octets,
                "data": record.data.decode("latin-1"),
            }
            for record in shown.records
        ],
    }
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))


def from_json(text: str) -> Session:
    """The session that `to_json` wrote. Raises ValueError, one sentence, for anything else."""
    if not isinstance(text, str):
        raise ValueError(f"A session is read from a str of JSON, not from {type(text).__name__}.")
    if len(text) > MOST_CHARACTERS:
        raise ValueError(
            f"This JSON has {len(text):,} characters; a session has at most {MOST_CHARACTERS:,}."
        )
    fields = _Fields(_members(text), "the session")
    if fields.take("format", str) != FORMAT:
        raise ValueError("This JSON holds no session; give what session.to_json() wrote.")
    version = fields.take("version", int)
    if not 1 <= version <= VERSION:
        told = f"version {version}" if 0 < version < 1000 else "a version that there is not"
        raise ValueError(
            f"This session is written in {told}, and only 1 to {VERSION} can be read; "
            "write it anew with the labserver that is used here."
        )
    lines = tuple(_each("line", fields.objects("lines"), _line))
    records = tuple(_each("record", fields.objects("records"), _record))
    return Session(
        number=fields.number("number"),
        protocol=fields.one_of("protocol", get_args(ProtocolName)),
        listener=fields.matching("listener", _LISTENER),
        started=_time(fields),
        lines=lines,
        records=records,
        duration=fields.seconds("duration"),
        closed=fields.take("closed", bool),
        tls=fields.matching("tls", _TLS),
        ending=_ending(fields),
        dropped=fields.number("dropped"),
        client=_host(fields, "client") if version > 1 else Host(),
        server=_host(fields, "server") if version > 1 else Host(),
    )


class _Objects:
    """A list of objects that is not read yet."""

    def __init__(self, text: str, start: int, end: int) -> None:
        self._text, self._span = text, (start, end)

    def __iter__(self) -> Iterator[object]:
        return (_value(match[0]) for match in _EACH.finditer(self._text, *self._span))


def _members(text: str) -> dict[str, object]:
    """The members of the one object that the text is; lists are looked over, and not read yet.

    Raises ValueError for what has another shape than a session, before it makes anything of it.
    """
    found: dict[str, object] = {}
    at = re.match(rf"{_GAP}\{{", text)
    for _ in range(_MOST_MEMBERS):
        member = _MEMBER.match(text, at.end()) if at else None
        if member is None:
            break
        start, end = member.span("list")
        value = _value(member["value"]) if start < 0 else _Objects(text, start, end)
        found[str(_value(member["name"]))] = value
        if member["then"] == "}" and not text[member.end() :].strip(" \t\n\r"):
            return found
        at = member if member["then"] == "," else None
    raise ValueError("This is no session in JSON; give what session.to_json() wrote.")


def _value(text: str) -> object:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except ValueError:
        raise ValueError("This is no JSON; give what session.to_json() wrote.") from None


class _Fields:
    """One object of the JSON; each of its values is checked when it is taken."""

    def __init__(self, values: object, where: str) -> None:
        if not isinstance(values, dict):
            raise ValueError(f"In this JSON {where} is no object; give what to_json() wrote.")
        self._values: Mapping[str, Any] = values
        self._where = where

    def wrong(self, name: str, wanted: str) -> ValueError:
        return ValueError(f"In this JSON {name} of {self._where} must be {wanted}.")

    def take(self, name: str, kind: type[_T]) -> _T:
        value = self.any(name)
        if type(value) is not kind:
            raise self.wrong(name, _KINDS[kind])
        return value

    def any(self, name: str) -> Any:
        if name not in self._values:
            raise self.wrong(name, "there")
        return self._values[name]

    def objects(self, name: str) -> _Objects:
        value = self.any(name)
        if not isinstance(value, _Objects):
            raise self.wrong(name, "a list of objects")
        return value

    def number(self, name: str) -> int:
        value = self.take(name, int)
        if not 0 <= value <= MOST_OCTETS:
            raise self.wrong(name, f"from 0 to {MOST_OCTETS:,}")
        return value

    def seconds(self, name: str) -> float:
        value = self.any(name)
        number = value if type(value) in (int, float) else math.nan
        if not 0 <= number < 1e12:
            raise self.wrong(name, "a number of seconds, 0 or more")
        return float(number)

    def one_of(self, name: str, known: tuple[_T, ...]) -> _T:
        value = self.any(name)
        for one in known:
            if one == value:
                return one
        raise self.wrong(name, f"one of {', '.join(map(str, known))}")

    def matching(self, name: str, pattern: re.Pattern[str]) -> str:
        value = self.take(name, str)
        if not pattern.fullmatch(value):
            raise self.wrong(name, "a plain name")
        return value

    def octets(self, name: str) -> bytes:
        try:
            return self.take(name, str).encode("latin-1")
        except UnicodeEncodeError:
            raise self.wrong(name, "text of the characters U+0000 to U+00FF") from None


_KINDS: Mapping[type, str] = {
    str: "text",
    int: "a whole number",
    bool: "true or false",
}


def _no_constant(name: str) -> object:
    raise ValueError(name)


def _each(what: str, objects: _Objects, read: Callable[[_Fields], _T]) -> Iterator[_T]:
    for number, value in enumerate(objects, 1):
        if number > MOST_LINES:
            raise ValueError(f"This JSON has more than {MOST_LINES:,} {what}s.")
        yield read(_Fields(value, f"{what} {number}"))


def _line(fields: _Fields) -> Line:
    data = fields.octets("data")
    return Line(
        at=fields.seconds("at"),
        who=fields.one_of("who", get_args(Side)),
        data=data,
        tls=fields.take("tls", bool),
        kind=fields.one_of("kind", get_args(LineKind)),
        octets=_length(fields, data),
        secret=_secret(fields, data),
    )


def _record(fields: _Fields) -> Record:
    data = fields.octets("data")
    kind = fields.one_of("type", get_args(RecordType))
    if data and kind != "plain":
        raise fields.wrong("data", "empty, for it travelled under TLS")
    return Record(
        fields.seconds("at"),
        fields.one_of("who", get_args(Side)),
        kind,
        _length(fields, data),
        data,
    )


def _host(fields: _Fields, name: str) -> Host:
    host = _Fields(fields.any(name), f"the {name}")
    called = host.take("name", str)
    if len(called) > _LONGEST_NAME or not called.isprintable():
        raise host.wrong("name", f"a name of at most {_LONGEST_NAME:,} characters")
    return Host(called, host.matching("address", _ADDRESS))


def _length(fields: _Fields, data: bytes) -> int:
    octets = fields.number("octets")
    if octets < len(data):
        raise fields.wrong("octets", "at least the length of its data")
    return octets


def _secret(fields: _Fields, data: bytes) -> tuple[int, int] | None:
    span = fields.any("secret")
    if span is None:
        return None
    match span:
        case [start, end] if type(start) is type(end) is int and 0 <= start <= end <= len(data):
            return start, end
    raise fields.wrong("secret", "null, or the start and the end of a part of its data")


def _time(fields: _Fields) -> datetime:
    try:
        time = datetime.fromisoformat(fields.take("started", str))
    except ValueError:
        raise fields.wrong("started", "a date with its time and zone") from None
    if time.tzinfo is None:
        raise fields.wrong("started", "a date with its time and zone")
    return time


def _ending(fields: _Fields) -> str:
    ending = fields.take("ending", str)
    if len(ending) > _LONGEST_ENDING or not ending.isprintable():
        raise fields.wrong("ending", f"one sentence of at most {_LONGEST_ENDING} characters")
    return ending


json_by(to_json, from_json)
