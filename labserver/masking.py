"""Where secrets stand: the passwords of a lab in what is said, and the session without them.

A login's secret is known by its place, which `dialogue.py` finds when it cut the lines. A
password that stands anywhere else is known by its octets: `Passwords`. In the records, which hold
the same octets as they crossed the wire, both are found again.
"""

from __future__ import annotations

import contextlib
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import accumulate
from urllib.parse import quote

from labserver.transcript import VERBS, Line, Session, Side

Span = tuple[int, int]
"""Start and end of octets."""

_SHORTEST = 4
"""Characters of a password that is looked for anywhere: shorter ones are parts of any text."""
_LONG = 8
"""From that many on it may be part of a word; shorter ones are looked for as a whole word."""
_FEW = 64
"""Forms that are looked for one by one."""
_HEAD = 4
"""Octets of a form by which it is found where there are many; none has less."""

_WORDS = {
    *(verb.lower() for verbs in VERBS.values() for verb in verbs),
    *"""append authenticate capability check close copy create delete done enable examine expunge
    fetch idle inbox login logout lsub move namespace rename search select starttls status store
    subscribe unselect unsubscribe""".split(),
    *"body from mime plain size text user".split(),
}
"""Words of the protocols. A password that is one of them can't be masked wherever it stands."""
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


class Passwords:
    """The passwords of a lab's accounts, as they may look in what a client says.

    Each is looked for as it is, with quotes and backslashes escaped, in per cent signs, and in
    base64 wherever in the encoded text it stands. One that has fewer than 4 characters, is a word
    of a protocol or a part of an account's address is looked for only in base64 behind its
    address: masked wherever it stands, it would take ordinary text with it. Where a login says
    it, in its place, every password is masked.
    """

    def __init__(self, accounts: Mapping[str, str] | None = None) -> None:
        self._words: dict[bytes, re.Pattern[bytes] | None] = {}
        """Each form that is looked for as it is; with a pattern where it must be a whole word."""
        self._encoded: set[bytes] = set()
        """Each form in base64."""
        addresses = [address.casefold() for address in accounts or ()]
        for address, password in (accounts or {}).items():
            self._learn(address, str(password), addresses)
        self._forms = (*self._words, *self._encoded)
        self._heads: dict[bytes, list[bytes]] = {}
        for form in self._forms:
            self._heads.setdefault(form[:_HEAD], []).append(form)

    def __repr__(self) -> str:
        return f"<Passwords: {len(self._forms)} forms>"

    def _learn(self, address: str, password: str, addresses: Iterable[str]) -> None:
        folded = password.casefold()
        common = folded in _WORDS or any(folded in one for one in addresses)
        for octets in _written(password):
            if common or len(password) < _SHORTEST:
                self._encoded.update(_in_base64(address.encode() + b"\0" + octets))
                continue
            self._encoded.update(_in_base64(octets))
            escaped = octets.replace(b"\\", rb"\\").replace(b'"', rb"\"")
            xtext = re.sub(rb"[^!-~]|[+=]", lambda one: b"+%02X" % one[0][0], octets)
            # As it is, in a quoted string, in a URL, and in a parameter (RFC 3461 section 4).
            for form in (octets, escaped, quote(octets, safe="").encode(), xtext):
                whole = rb"(?<![A-Za-z0-9])" + re.escape(form) + rb"(?![A-Za-z0-9])"
                self._words[form] = re.compile(whole) if len(form) < _LONG else None

    def found_in(self, data: bytes, *, breaks_off: bool = False) -> list[Span]:
        """Where they stand in these octets; of each form the first and the last place.

        What ends in the beginning of one counts as well if the octets break off there.
        """
        found: list[Span] = []
        for form in self._likely(data):
            if form in data:
                found += self._places(form, data)
        if breaks_off:
            found += self._begun(data)
        return found

    def _likely(self, data: bytes) -> Iterable[bytes]:
        """The forms that may stand there: of many only those whose beginning does."""
        if len(self._forms) <= _FEW:
            return self._forms
        pieces = {data[at : at + _HEAD] for at in range(len(data) - _HEAD + 1)}
        return [form for head in self._heads.keys() & pieces for form in self._heads[head]]

    def _places(self, form: bytes, data: bytes) -> Iterator[Span]:
        pattern = self._words.get(form)
        if pattern is not None:
            spans = [match.span() for match in pattern.finditer(data)]
            yield from (spans[0], spans[-1]) if spans else ()
            return
        for start in (data.find(form), data.rfind(form)):
            end = start + len(form)
            yield _token(data, start, end) if form in self._encoded else (start, end)

    def _begun(self, data: bytes) -> Iterator[Span]:
        for form in self._forms:
            for length in range(min(len(form) - 1, len(data)), _SHORTEST - 1, -1):
                if data.endswith(form[:length]):
                    start = len(data) - length
                    start = _token(data, start, start)[0] if form in self._encoded else start
                    yield start, len(data)
                    break


def _written(password: str) -> Iterator[bytes]:
    """In UTF-8; and in Latin-1, where that can say it, as old programs do."""
    yield password.encode()
    with contextlib.suppress(UnicodeEncodeError):
        yield password.encode("latin-1")


def _in_base64(octets: bytes) -> Iterator[bytes]:
    """The characters that tell of these octets alone, whatever stands before and behind them."""
    for before, mixed in enumerate((0, 2, 3)):
        encoded = b64encode(bytes(before) + octets)
        yield encoded[mixed : (before + len(octets)) * 8 // 6]


def _token(data: bytes, start: int, end: int) -> Span:
    """All of the base64 around; the octets beside a password tell of it, too."""
    before, behind = data[:start], data[end:]
    start -= len(before) - len(before.rstrip(_BASE64))
    end += len(behind) - len(behind.lstrip(_BASE64 + b"="))
    return start, end


def joined(spans: Iterable[Span | None]) -> Span | None:
    """From where the first of them begins to where the last one ends."""
    there = [span for span in spans if span]
    if not there:
        return None
    return min(start for start, _ in there), max(end for _, end in there)


def masked(session: Session) -> Session:
    """The same session with `*` in the place of each octet of a secret, in lines and records.

    All lengths stay what they were. Masking twice changes nothing more.
    """
    lines = tuple(
        replace(line, data=_starred(line.data, [_secret_of(line)])) if line.secret else line
        for line in session.lines
    )
    records = tuple(
        replace(record, data=_starred(record.data, spans)) if spans else record
        for record, spans in zip(session.records, secrets(session), strict=True)
    )
    return replace(session, lines=lines, records=records)


def secrets(session: Session) -> tuple[tuple[Span, ...], ...]:
    """For each record the spans of its data that are secret.

    Of the client's octets what no line speaks of counts as secret as well, for nobody can tell
    what it is: octets beyond a transcript's bound, or plain text on a listener that wanted TLS.
    """
    sides = {who: _Secrets(session, who) for who in ("C", "S")}
    return tuple(
        sides[record.who].of(record.data, record.octets) if record.type == "plain" else ()
        for record in session.records
    )


class _Secrets:
    """Which of one side's plain octets are secret; asked record by record."""

    def __init__(self, session: Session, who: Side) -> None:
        known, self._spans = _in_the_stream(session, who)
        if who == "C":
            self._spans.append((known, sum(record.octets for record in session.records)))
        self._at, self._first = 0, 0

    def of(self, data: bytes, octets: int) -> tuple[Span, ...]:
        """The secret spans of the next record, of which so much was kept."""
        start, self._at = self._at, self._at + octets
        end = start + len(data)
        while self._first < len(self._spans) and self._spans[self._first][1] <= start:
            self._first += 1
        found = []
        for one in range(self._first, len(self._spans)):
            begins, ends = self._spans[one]
            if begins >= end:
                break
            found.append((max(begins, start) - start, min(ends, end) - start))
        return tuple(span for span in found if span[0] < span[1])


def _in_the_stream(session: Session, who: Side) -> tuple[int, list[Span]]:
    """How many of that side's plain octets its lines account for; which of them are secret."""
    stream = _Stream(session, who)
    spans, at = [], 0
    for line in session.lines:
        if line.who != who or line.tls:
            continue
        if not stream.holds(at, line.data):
            break
        if line.secret:
            start, end = _secret_of(line)
            spans.append((at + start, at + end))
        elif line.shortened and line.kind in ("command", "credentials"):
            # What stood in the rest was never looked at.
            spans.append((at + len(line.data), at + line.octets))
        at += line.octets
    return at, spans


def _secret_of(line: Line) -> Span:
    """A secret in a line that was shortened may go on in what wasn't kept."""
    start, end = line.secret or (0, 0)
    return (start, line.octets) if line.shortened else (start, end)


def _starred(data: bytes, spans: list[Span] | tuple[Span, ...]) -> bytes:
    out = bytearray(data)
    for start, end in spans:
        end = min(end, len(out))
        out[start:end] = b"*" * (end - start)
    return bytes(out)


class _Stream:
    """One side's plain octets, as far as the records kept them; read from front to back."""

    def __init__(self, session: Session, who: Side) -> None:
        self._records = [r for r in session.records if r.who == who and r.type == "plain"]
        self._starts = [0, *accumulate(record.octets for record in self._records)]
        self._first = 0

    def holds(self, at: int, data: bytes) -> bool:
        """Whether these octets stand there, as far as they were kept."""
        while self._first < len(self._records) and self._starts[self._first + 1] <= at:
            self._first += 1
        return all(mine == there for mine, there in self._pairs(at, data))

    def _pairs(self, at: int, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        for index in range(self._first, len(self._records)):
            start, kept = self._starts[index], self._records[index].data
            if start >= at + len(data):
                return
            begins, ends = max(at, start), min(at + len(data), start + len(kept))
            if begins < ends:
                yield data[begins - at : ends - at], kept[begins - start : ends - start]
