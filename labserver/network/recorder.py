"""Records sessions: what crossed the wire, and what was said.

A `Recorder` is told by its connection (`connection.py`); a `Journal` keeps the recorders of a lab.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import labserver.export  # noqa: F401  what is recorded can be written as JSON
from labserver.dialogue import Bounds, dialogue
from labserver.masking import Passwords
from labserver.network.clock import Clock
from labserver.transcript import (
    Host,
    ProtocolName,
    Record,
    RecordType,
    Session,
    Side,
    called_itself,
)

_TLS_RECORDS: dict[int, RecordType] = {
    20: "change cipher spec",
    21: "alert",
    22: "handshake",
    23: "application data",
}
_MOST_RECORDS = 20_000
_DIGEST_OCTETS = 1024 * 1024
"""Octets of an open connection that are kept as they came; more are cut into lines at once."""

_UNCUT_OCTETS = 64 * 1024 * 1024
"""The same of all sessions that have ended. Most are never looked at, so cutting them can wait."""

_SESSION_OCTETS, _LINE_OCTETS = 4096, 128
"""Memory that a session takes, and that each line or record takes besides its octets, about."""

_Layer = Literal["wire", "said", "both"]
"""Where octets were seen: below TLS, above it, or on both where there is none."""

log = logging.getLogger("labserver")


@dataclass(slots=True)
class _WireSide:
    """How one side's octets on the wire are being cut into records."""

    tls: bool = False
    header: bytearray = field(default_factory=bytearray)
    missing: int = 0
    """Octets of the current TLS record that haven't come yet."""
    at: float = 0.0


@dataclass(slots=True)
class _Room:
    """What the transcripts of all ended sessions of a journal take."""

    octets: int = 0


class Recorder:
    """One connection's session while it is being written."""

    def __init__(
        self,
        number: int,
        protocol: ProtocolName,
        listener: str,
        clock: Clock,
        bounds: Bounds,
        *,
        implicit_tls: bool,
        heard: Sequence[Heard] = (),
        passwords: Passwords | None = None,
    ) -> None:
        self.number, self.protocol, self.listener = number, protocol, listener
        self.closed = self.ended = False
        """Its connection is over; so is all that is to be said of it."""
        self.tls = ""
        self.failure = ""
        self.client, self.server = "", Host()
        """The client's address, and who the server is."""
        self._heard = heard
        self._gone_first: Side | None = None
        self._clock = clock
        self._started = clock.now()
        self._zero = clock.seconds()
        self._last = 0.0
        self._dialogue = dialogue(protocol, bounds, passwords)
        self._sides: dict[Side, _WireSide] = {
            "C": _WireSide(implicit_tls),
            "S": _WireSide(implicit_tls),
        }
        self._records: list[Record] = []
        self._record_octets = 0
        self._tls_from = 0
        self._bounds = bounds
        # Only noted when it happens; cut into lines and records when somebody looks.
        self._noted: list[tuple[_Layer, float, Side, bytes, bool]] = []
        self._noted_octets = 0
        self._picture: Session | None = None
        self._room = _Room()
        self._taken = 0

    def end(self, room: _Room) -> None:
        """Nothing more will be said of it; from now on it counts what it takes in `room`."""
        self.ended = True
        self._room = room
        self._count()

    def drop(self) -> None:
        """It isn't kept any more."""
        self._room.octets -= self._taken
        self._taken, self._room = 0, _Room()

    def _count(self) -> None:
        things = len(self._dialogue.lines) + len(self._records) + len(self._noted)
        octets = self._dialogue.kept + self._record_octets + self._noted_octets
        taken = _SESSION_OCTETS + _LINE_OCTETS * things + octets
        self._room.octets += taken - self._taken
        self._taken = taken

    @property
    def uncut_octets(self) -> int:
        """What hasn't been cut into lines and records yet."""
        return self._noted_octets

    def _note(self, layer: _Layer, who: Side, data: bytes, tls: bool) -> None:
        self._last = self._clock.seconds() - self._zero
        self._noted.append((layer, self._last, who, data, tls))
        self._noted_octets += len(data)
        if self._picture is not None:
            self._changed()
        if self._noted_octets > _DIGEST_OCTETS:
            self._digest()

    def _changed(self) -> None:
        """There is more to see than somebody has seen."""
        if self._picture is not None:
            self._picture = None
            self.tell()

    def tell(self) -> None:
        """Tell those who listen that something happened."""
        for heard in tuple(self._heard):
            try:
                heard(self)
            except Exception:  # who looks on must never disturb a mail session
                log.exception("Who listens to the lab's sessions failed")

    def wire(self, who: Side, data: bytes) -> None:
        """Octets as they crossed the wire."""
        self._note("wire", who, data, False)

    def said(self, who: Side, data: bytes, tls: bool) -> None:
        """Octets of the dialogue, without TLS."""
        self._note("said", who, data, tls)

    def both(self, who: Side, data: bytes) -> None:
        """Octets of the dialogue that crossed the wire as they are."""
        self._note("both", who, data, False)

    def tls_begins(self) -> None:
        """From here on TLS records are expected on the wire."""
        self._digest()
        self._tls_from = len(self._records)
        for side in self._sides.values():
            side.tls = True

    def tls_is_on(self, version: str) -> None:
        """The TLS handshake is done."""
        self.tls = version
        self._changed()

    def gone(self, who: Side) -> None:
        """That side closed the connection; only the first to do so counts."""
        if self._gone_first is None:
            self._gone_first = who
            self._changed()

    def close(self) -> None:
        """The connection is over."""
        if not self.closed:
            self.closed = True
            self._last = self._clock.seconds() - self._zero
            self._changed()

    def session(self) -> Session:
        """A picture of the session as it is now."""
        if self._picture is None:
            self._digest()
            self._picture = Session(
                number=self.number,
                protocol=self.protocol,
                listener=self.listener,
                started=self._started,
                lines=(*self._dialogue.lines, *self._dialogue.rest()),
                records=(*self._records, *self._unfinished()),
                duration=self._last,
                closed=self.closed,
                tls=self.tls,
                ending=self._ending(),
                dropped=self._dialogue.dropped,
                client=Host(called_itself(self.protocol, self._dialogue.lines), self.client),
                server=self.server,
            )
        return self._picture

    def _ending(self) -> str:
        if self.failure:
            return self.failure
        if not self.closed or self._dialogue.farewell:
            return ""
        if self._gone_first == "S":
            return "the server closed the connection"
        if not any(record.who == "C" for record in self._records):
            return "the client went away without a word"
        word = "LOGOUT" if self.protocol == "IMAP" else "QUIT"
        return f"the client went away without {word}"

    def tls_failed(self, error: BaseException) -> None:
        """The TLS handshake came to nothing."""
        self._digest()
        since = self._records[self._tls_from :]
        first = next((record for record in since if record.who == "C"), None)
        reason = str(getattr(error, "reason", "") or "")
        if first is not None and first.type == "plain":
            self.failure = "the client spoke plain text where TLS was due"
        elif "UNKNOWN_CA" in reason or "CERTIFICATE" in reason:
            self.failure = "the client doesn't trust the lab's certificate"
        elif isinstance(error, TimeoutError):
            self.failure = "the TLS handshake took too long"
        elif not self._records and not self._sides["C"].header:
            self.failure = "the client went away without a word"
        else:
            self.failure = "the client broke off the TLS handshake"
        self._changed()

    # -- cutting the wire into records

    def _digest(self) -> None:
        noted, self._noted, self._noted_octets = self._noted, [], 0
        for layer, at, who, data, tls in noted:
            if layer != "wire":
                self._dialogue.feed(at, who, data, tls)
            if layer != "said":
                self._cut(at, who, data)
        if self.ended:
            self._count()

    def _cut(self, at: float, who: Side, data: bytes) -> None:
        side = self._sides[who]
        while data:
            if not side.tls:
                self._plain(at, who, data)
                return
            if not side.missing:
                if not side.header:
                    side.at = at
                need = 5 - len(side.header)
                side.header += data[:need]
                data = data[need:]
                if len(side.header) < 5 and side.header[0] in _TLS_RECORDS:
                    return
                if side.header[0] not in _TLS_RECORDS or side.header[1] != 3:
                    # Not TLS: what comes from here on is what it looks like, plain octets.
                    side.tls = False
                    data = bytes(side.header) + data
                    side.header.clear()
                    continue
                side.missing = int.from_bytes(side.header[3:5], "big")
            part = data[: side.missing]
            side.missing -= len(part)
            data = data[len(part) :]
            if not side.missing:
                length = 5 + int.from_bytes(side.header[3:5], "big")
                self._add(Record(side.at, who, _TLS_RECORDS[side.header[0]], length))
                side.header.clear()

    def _plain(self, at: float, who: Side, data: bytes) -> None:
        # One record a turn, however the network cut it into packets.
        last = self._records[-1] if len(self._records) > self._tls_from else None
        octets, kept = 0, b""
        same = last is not None and last.type == "plain" and last.who == who
        if last is not None and same:
            at, octets, kept = last.at, last.octets, last.data
        room = min(self._bounds.body - len(kept), self._bounds.session - self._record_octets)
        more = data[:room] if room > 0 and len(kept) == octets else b""
        self._record_octets += len(more)
        record = Record(at, who, "plain", octets + len(data), kept + more)
        if same:
            self._records[-1] = record
        else:
            self._add(record)

    def _add(self, record: Record) -> None:
        if len(self._records) < _MOST_RECORDS:
            self._records.append(record)
            return
        # Beyond the bound the octets are only counted, in the last record of that side.
        for index in range(len(self._records) - 1, -1, -1):
            last = self._records[index]
            if last.who == record.who:
                octets = last.octets + record.octets
                self._records[index] = Record(last.at, last.who, last.type, octets, last.data)
                return

    def _unfinished(self) -> list[Record]:
        """TLS records of which only the beginning came."""
        out = []
        for who, side in self._sides.items():
            if side.header:
                kind = _TLS_RECORDS[side.header[0]]
                came = len(side.header)
                if came == 5:
                    came += int.from_bytes(side.header[3:5], "big") - side.missing
                out.append(Record(side.at, who, kind, came))
        return out


Heard = Callable[[Recorder], None]
"""Called on the network's loop when a session has begun, when there is more of it than somebody has
seen, and when it has ended. It must not take long: the servers wait for it."""


class Journal:
    """The sessions of a lab, as many of the latest as `most` says and as find room.

    Those that have ended take at most `most_octets` together, but for the last of them. The
    `passwords` are masked wherever a client says them.
    """

    def __init__(
        self,
        clock: Clock,
        bounds: Bounds,
        most: int,
        most_octets: int,
        passwords: Passwords | None = None,
    ) -> None:
        self._clock, self._bounds, self._passwords = clock, bounds, passwords
        self._most, self._most_octets = most, most_octets
        self._room = _Room()
        self._recorders: dict[int, Recorder] = {}
        self._number = 0
        self._uncut: deque[tuple[int, int]] = deque()
        """Ended sessions that nobody has looked at: their numbers, their octets."""
        self._uncut_octets = 0
        self.heard: list[Heard] = []
        """Those who listen."""

    def begin(self, protocol: ProtocolName, listener: str, *, implicit_tls: bool) -> Recorder:
        """Start recording a connection; drops the oldest ended session beyond the bound."""
        self._number += 1
        recorder = Recorder(
            self._number,
            protocol,
            listener,
            self._clock,
            self._bounds,
            implicit_tls=implicit_tls,
            heard=self.heard,
            passwords=self._passwords,
        )
        self._recorders[recorder.number] = recorder
        if len(self._recorders) > self._most:
            ended = (n for n, one in self._recorders.items() if one.closed)
            self._drop(next(ended, next(iter(self._recorders))))
        recorder.tell()
        return recorder

    def listen(self, heard: Heard) -> Callable[[], None]:
        """Have `heard` called when something happens; what is returned ends that.

        Of a session that goes on it hears again only after somebody has looked at it, so that
        nobody is told of each line. Both may be called in any thread.
        """
        self.heard.append(heard)

        def stop() -> None:
            with contextlib.suppress(ValueError):
                self.heard.remove(heard)

        return stop

    def ended(self, recorder: Recorder) -> None:
        """That session is over; drops the oldest that have ended where all take too much room."""
        kept = recorder.number in self._recorders
        recorder.end(self._room if kept else _Room())
        while self._room.octets > self._most_octets:
            others = (n for n, one in self._recorders.items() if one.ended and one is not recorder)
            oldest = next(others, None)
            if oldest is None:
                break
            self._drop(oldest)
        octets = recorder.uncut_octets
        self._uncut.append((recorder.number, octets))
        self._uncut_octets += octets
        while self._uncut_octets > _UNCUT_OCTETS:
            number, octets = self._uncut.popleft()
            self._uncut_octets -= octets
            if number in self._recorders:
                self._recorders[number].session()
        recorder.tell()

    def _drop(self, number: int) -> None:
        self._recorders.pop(number).drop()

    def sessions(self) -> tuple[Session, ...]:
        """All kept sessions, oldest first."""
        return tuple(recorder.session() for recorder in self.recorders)

    def session(self, number: int) -> Session | None:
        """One of them, or `None` where it isn't kept."""
        recorder = self._recorders.get(number)
        return recorder.session() if recorder else None

    def newest(self, above: int = 0, below: int | None = None) -> Iterator[Session]:
        """The kept sessions with numbers above and below those, newest first.

        Nothing may happen on the network before that has come to an end.
        """
        for number, recorder in reversed(self._recorders.items()):
            if number <= above:
                return
            if below is None or number < below:
                yield recorder.session()

    @property
    def recorders(self) -> tuple[Recorder, ...]:
        """Those of all kept sessions, oldest first."""
        return tuple(self._recorders.values())

    @property
    def kept(self) -> int:
        """How many sessions are kept."""
        return len(self._recorders)
