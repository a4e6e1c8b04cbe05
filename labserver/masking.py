"""Where the secrets of a session stand on the wire, and the session without them.

Where they stand in its lines, `dialogue.py` has found out when it cut them. Here they are found
again in the records, which hold the same octets as they crossed the wire.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate

from labserver.transcript import Line, Session

Span = tuple[int, int]
"""Start and end of octets."""


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

    What no line of the client's speaks of counts as secret as well, for nobody can tell what it
    is: octets beyond a transcript's bound, or plain text on a listener that wanted TLS.
    """
    known, absolute = _in_the_stream(session)
    found: list[tuple[Span, ...]] = []
    start, first = 0, 0
    for record in session.records:
        if record.who != "C" or record.type != "plain":
            found.append(())
            continue
        end = start + len(record.data)
        while first < len(absolute) and absolute[first][1] <= start:
            first += 1
        spans: list[Span] = []
        for one in range(first, len(absolute)):
            begins, ends = absolute[one]
            if begins >= end:
                break
            spans.append((max(begins, start) - start, min(ends, end) - start))
        if end > known:
            spans.append((max(known, start) - start, end - start))
        found.append(tuple(span for span in spans if span[0] < span[1]))
        start += record.octets
    return tuple(found)


def _in_the_stream(session: Session) -> tuple[int, list[Span]]:
    """How many of the client's plain octets its lines account for; which of them are secret."""
    stream = _Stream(session)
    spans, at = [], 0
    for line in session.lines:
        if line.who != "C" or line.tls:
            continue
        if not stream.holds(at, line.data):
            break
        if line.secret:
            start, end = _secret_of(line)
            spans.append((at + start, at + end))
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
    """The client's plain octets, as far as the records kept them; read from front to back."""

    def __init__(self, session: Session) -> None:
        self._records = [r for r in session.records if r.who == "C" and r.type == "plain"]
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
