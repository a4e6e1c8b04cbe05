"""The tables of the catalog as frozen values: what is known of SMTP, POP3 and IMAP.

The knowledge itself stands in `labserver/data/*.toml`; reading those files is all the I/O here.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any, Literal

from labserver.transcript import ProtocolName

Outcome = Literal["done", "go on", "later", "refused", ""]
"""What a reply says: 2yz, 3yz, 4yz, 5yz in SMTP, and likewise `+OK`, `-ERR`, `OK`, `NO`, `BAD`."""

PROTOCOLS: tuple[ProtocolName, ...] = ("SMTP", "POP3", "IMAP")


@dataclass(frozen=True, slots=True)
class Command:
    """What a client can say, or a moment that the server answers without being told to."""

    verb: str
    """As it is typed, `EHLO`, `UID FETCH`; in small letters where nothing is typed: `greeting`."""
    syntax: str
    title: str
    """One short sentence said of such a line."""
    meaning: str
    states: tuple[str, ...]
    """The states it is allowed in."""
    replies: tuple[tuple[str, str], ...]
    """Each reply code it can draw, and what that means here."""
    sources: tuple[str, ...]
    anchor: str
    once: bool = False
    """Whether it may succeed only once in a session."""
    purpose: str = ""
    """What it is for, where other protocols have something for the same: `log in`."""

    @property
    def typed(self) -> bool:
        """Whether the client types it (the greeting and the end of data just happen)."""
        return bool(self.syntax)


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply code (SMTP), a status (POP3, IMAP), whatever command it answers."""

    code: str
    outcome: Outcome
    word: str
    """Said beside the code: `250 done`, `354 go on`."""
    title: str
    meaning: str
    sources: tuple[str, ...]
    anchor: str


@dataclass(frozen=True, slots=True)
class Term:
    """A named thing with a meaning: a capability, a response code, a flag, a digit, a state."""

    name: str
    title: str
    meaning: str
    sources: tuple[str, ...]
    anchor: str
    outcome: Outcome = ""
    """What a response code makes of the reply it stands in, where it changes it."""


@dataclass(frozen=True, slots=True)
class Transition:
    """In this state, this command with this outcome leads to that state."""

    state: str
    command: str
    """A verb, or `*` for whatever was asked (or nothing)."""
    outcome: str
    """An `Outcome`, or a reply code where only that code leads there: `421`, `PREAUTH`."""
    to: str


@dataclass(frozen=True, slots=True)
class Note:
    """What to say of a line in one special situation; `{…}` stands for a value from the line."""

    title: str
    detail: str
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EnhancedStatus:
    """An enhanced status code such as 5.1.1 (RFC 3463)."""

    code: str
    title: str
    meaning: str
    category: str
    """What its first number says."""
    subject: str
    """What its second number says."""
    sources: tuple[str, ...]
    anchor: str


@dataclass(frozen=True, slots=True)
class Catalog:
    """All that is known of one protocol. Each mapping keeps the order of its table."""

    protocol: ProtocolName
    title: str
    commands: Mapping[str, Command]
    replies: Mapping[str, Reply]
    everywhere: tuple[tuple[str, str], ...]
    """Reply codes that any command can draw, and what each means then."""
    keywords: Mapping[str, Term]
    """Extensions (SMTP) and capabilities (POP3, IMAP) that a server names."""
    codes: Mapping[str, Term]
    """Response codes in square brackets (POP3, IMAP)."""
    data: Mapping[str, Term]
    """What an IMAP server tells in untagged responses."""
    flags: Mapping[str, Term]
    digits: Mapping[str, Term]
    """What the digits of an SMTP reply code say: `2yz` … `5yz`, `x0z` … `x5z`."""
    states: Mapping[str, Term]
    """The first is the one that a connection starts in."""
    transitions: tuple[Transition, ...]
    ways: Mapping[tuple[str, str, str], str]
    """The transitions, found by state, command and outcome."""
    notes: Mapping[str, Note]

    @property
    def start(self) -> str:
        """The state of a new connection."""
        return next(iter(self.states))

    def outcome(self, code: str) -> Outcome:
        """What a reply code says; an unknown one of SMTP says it by its first digit
        (RFC 5321 section 4.2.1).
        """
        reply = self.replies.get(code)
        if reply is None and self.protocol == "SMTP":
            return _BY_DIGIT.get(code[:1], "")
        return reply.outcome if reply else ""

    def after(self, state: str, verb: str, code: str) -> str:
        """The state that a reply leads to; the same state where nothing changes."""
        ways = self.ways
        for way in ((verb, code), (verb, self.outcome(code)), ("*", code)):
            if (state, *way) in ways:
                return ways[(state, *way)]
        return state


_BY_DIGIT: Mapping[str, Outcome] = {"2": "done", "3": "go on", "4": "later", "5": "refused"}


@cache
def load(protocol: ProtocolName) -> Catalog:
    """The catalog of `SMTP`, `POP3` or `IMAP`. Raises ValueError for another name."""
    if protocol not in PROTOCOLS:
        raise ValueError(f"No catalog of {protocol!r}: it holds {', '.join(PROTOCOLS)}.")
    table = _table(protocol.lower())
    prefix = protocol.lower()

    def terms(section: str, kind: str) -> Mapping[str, Term]:
        return MappingProxyType(
            {
                name: Term(
                    name,
                    entry["title"],
                    entry["meaning"],
                    tuple(entry["sources"]),
                    _anchor(prefix, kind, name),
                    entry.get("outcome", ""),
                )
                for name, entry in table.get(section, {}).items()
            }
        )

    purposes = {verb: purpose for purpose, verbs in table["purposes"].items() for verb in verbs}
    commands = {
        verb: Command(
            verb,
            entry.get("syntax", ""),
            entry["title"],
            entry["meaning"],
            tuple(entry["states"]),
            tuple(entry.get("replies", {}).items()),
            tuple(entry["sources"]),
            _anchor(prefix, verb),
            entry.get("once", False),
            purposes.get(verb, ""),
        )
        for verb, entry in table["commands"].items()
    }
    replies = {
        code: Reply(
            code,
            entry["outcome"],
            entry.get("word", entry["outcome"]),
            entry["title"],
            entry["meaning"],
            tuple(entry["sources"]),
            _anchor(prefix, code),
        )
        for code, entry in table["replies"].items()
    }
    transitions = [
        Transition(state, entry["command"], entry["outcome"], entry["to"])
        for entry in table["transitions"]
        for state in entry["from"]
    ]
    notes = {
        name: Note(entry["title"], entry.get("detail", ""), tuple(entry.get("sources", ())))
        for name, entry in table["notes"].items()
    }
    return Catalog(
        protocol=protocol,
        title=table["title"],
        commands=MappingProxyType(commands),
        replies=MappingProxyType(replies),
        everywhere=tuple(table["everywhere"].items()),
        keywords=terms("keywords", "keyword"),
        codes=terms("codes", "code"),
        data=terms("data", "untagged"),
        flags=terms("flags", "flag"),
        digits=terms("digits", "digit"),
        states=terms("states", "state"),
        transitions=tuple(transitions),
        ways=MappingProxyType({(t.state, t.command, t.outcome): t.to for t in transitions}),
        notes=MappingProxyType(notes),
    )


@cache
def _table(name: str) -> dict[str, Any]:
    file = resources.files("labserver") / "data" / f"{name}.toml"
    return tomllib.loads(file.read_text("utf-8"))


def _anchor(*parts: str) -> str:
    """The place of a thing in the reference page: `smtp-ehlo`, `imap-untagged-list`."""
    if parts[-1] == "+":
        parts = (*parts[:-1], "continuation")
    return re.sub(r"[^a-z0-9]+", "-", " ".join(parts).lower()).strip("-")


_ENHANCED = re.compile(r"([245])\.([0-9]{1,3})\.([0-9]{1,3})", re.ASCII)


def enhanced(code: str) -> EnhancedStatus:
    """What an enhanced status code says, such as `5.1.1`.

    A code that isn't registered still means what its class and its subject mean
    (RFC 3463 section 2). Raises ValueError for what isn't of the form class.subject.detail.
    """
    match = _ENHANCED.fullmatch(code)
    if match is None:
        raise ValueError(f"{code!r} is no enhanced status code; one looks like 5.1.1.")
    table = _table("enhanced")
    category, subject, _ = match.groups()
    about = table["subjects"].get(subject)
    entry = table["details"].get(code[2:])
    if entry is None:
        entry = about or table["unknown"]
    fine = category == "2" and "well" in entry
    return EnhancedStatus(
        code,
        entry["well"] if fine else entry["title"],
        "" if fine else entry["meaning"],
        table["classes"][category]["meaning"],
        (about or table["unknown"])["meaning"],
        tuple(entry["sources"]),
        _anchor("enhanced", code),
    )


def enhanced_statuses() -> tuple[EnhancedStatus, ...]:
    """Every enhanced status code of the table, in each class that it is used in."""
    return tuple(
        enhanced(f"{category}.{detail}")
        for detail, entry in _table("enhanced")["details"].items()
        for category in entry["classes"]
    )


def source_url(source: str) -> str:
    """The address where a source such as `RFC 5321 §4.1.1.2` can be read.

    Raises ValueError for what isn't written like the catalog's sources.
    """
    rfc = re.fullmatch(r"RFC ([0-9]+)(?: §([0-9]+(?:\.[0-9]+)*)| Appendix ([A-Z]))?", source)
    if rfc:
        number, section, appendix = rfc.groups()
        part = f"#section-{section}" if section else f"#appendix-{appendix}" if appendix else ""
        return f"https://www.rfc-editor.org/rfc/rfc{number}{part}"
    if source == "IANA SMTP Enhanced Status Codes":
        return "https://www.iana.org/assignments/smtp-enhanced-status-codes/"
    if re.fullmatch(r"draft-[a-z0-9-]+", source):
        return f"https://datatracker.ietf.org/doc/{source}/"
    raise ValueError(f"{source!r} is no source of the catalog; one looks like RFC 5321 §4.1.")
