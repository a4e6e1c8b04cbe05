"""Records every connection: what crossed the wire, and what was said.

Two layers sit between the real transport and a server's protocol, so that no server knows of
recording:

    real transport <-> Wire <-> (TLS, where it is on) <-> Connection <-> the server's protocol

`Wire` notes the octets below TLS, `Connection` the plaintext above it. Both hand them to the
connection's `Recorder`; a `Journal` keeps the recorders of a lab.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

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
_HANDSHAKE_SECONDS = 30.0
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


def _own(data: bytes) -> bytes:
    """A copy: what a socket has read lies in memory made for far more, which it would keep."""
    return bytes(memoryview(data))


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


@dataclass(frozen=True, slots=True)
class Service:
    """What listens on one address: a server's protocols, and how its sessions are noted."""

    name: str
    """The listener's name: `smtp`, `submission`, …"""
    protocol: ProtocolName
    factory: Callable[[], asyncio.Protocol]
    journal: Journal
    tls: ssl.SSLContext | None = None
    """Set where TLS begins with the first octet."""
    most: int = 200
    """Connections open at once."""
    busy: bytes = b""
    """What one connection too many is told, line end included; empty where it couldn't read it."""
    most_octets: int = 1024 * 1024 * 1024
    """What one client may send in one session, TLS not counted."""
    too_much: bytes = b""
    """What a client that sends more is told, line end included."""
    hostname: str = ""
    """What the server calls itself."""


def _address(transport: asyncio.BaseTransport, end: str) -> str:
    """The IP address of one end of a connection."""
    return str((transport.get_extra_info(end) or ("",))[0])


class Wires(set["Wire"]):
    """The wires of one listener that are in use."""

    closed = False

    def close(self) -> None:
        """Break off these, and those that are just being made."""
        self.closed = True
        for wire in tuple(self):
            wire.abort()


class Wire(asyncio.Transport, asyncio.Protocol):
    """The lower layer: protocol of the real transport, transport of what lies above.

    `active` is called whenever something happens, so that a network can tell when all is quiet.
    """

    # asyncio asks this of a transport before it lays TLS over it.
    _start_tls_compatible = True

    def __init__(self, service: Service, open_wires: Wires, active: Callable[[], None]) -> None:
        super().__init__()
        self.service, self.recorder = service, cast(Recorder, None)
        self._open, self._active = open_wires, active
        self._raw: asyncio.Transport = cast(asyncio.Transport, None)
        self._above: asyncio.BaseProtocol = asyncio.Protocol()
        self._lost = False

    # -- as the real transport's protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = cast(asyncio.Transport, transport)
        if self._open.closed:
            self._lost = True
            self._raw.abort()
            return
        service = self.service
        self.recorder = service.journal.begin(
            service.protocol, service.name, implicit_tls=service.tls is not None
        )
        self.recorder.client = _address(transport, "peername")
        self.recorder.server = Host(service.hostname, _address(transport, "sockname"))
        full = len(self._open) >= service.most
        self._open.add(self)
        self._active()
        if full:
            if service.busy:
                self.recorder.both("S", service.busy)
                self.send(service.busy)
            self.close()
            return
        connection = Connection(self, service.factory())
        self._above = connection
        if service.tls is None:
            connection.connection_made(self)
        else:
            connection.begin_with_tls(service.tls)

    def data_received(self, data: bytes) -> None:
        self._active()
        above = self._above
        if isinstance(above, Connection):
            above.data_received(data)  # which notes it for both layers
            return
        self.recorder.wire("C", _own(data))
        if isinstance(above, asyncio.BufferedProtocol):
            left = memoryview(data)
            while left:
                buffer = memoryview(above.get_buffer(len(left)))
                taken = min(len(buffer), len(left))
                buffer[:taken] = left[:taken]
                above.buffer_updated(taken)
                left = left[taken:]
        else:
            cast(asyncio.Protocol, above).data_received(data)

    def eof_received(self) -> bool | None:
        self._active()
        self.recorder.gone("C")
        return cast(asyncio.Protocol, self._above).eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._lost:
            return
        self._lost = True
        self._active()
        self._open.discard(self)
        self.recorder.gone("C")
        self.recorder.close()
        self._above.connection_lost(exc)
        # Why a TLS handshake came to nothing is only known after those who waited for it.
        asyncio.get_running_loop().call_soon(self.service.journal.ended, self.recorder)

    def pause_writing(self) -> None:
        self._above.pause_writing()

    def resume_writing(self) -> None:
        self._above.resume_writing()

    # -- as the transport of what lies above

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._above = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._above

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if data and not self._raw.is_closing():
            self.recorder.wire("S", bytes(data))
            self.send(data)

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Write octets that have been noted."""
        self._active()
        self._raw.write(data)

    def close(self) -> None:
        self.recorder.gone("S")
        self._raw.close()

    def abort(self) -> None:
        self.recorder.gone("S")
        self._raw.abort()

    def _force_close(self, exc: BaseException | None) -> None:
        # asyncio's TLS layer calls this after a fatal error.
        self.abort()

    def is_closing(self) -> bool:
        return self._raw.is_closing()

    def pause_reading(self) -> None:
        if not self._raw.is_closing() and self._raw.is_reading():
            self._raw.pause_reading()

    def resume_reading(self) -> None:
        if not self._raw.is_closing() and not self._raw.is_reading():
            self._raw.resume_reading()

    def is_reading(self) -> bool:
        return self._raw.is_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._raw.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._raw.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._raw.set_write_buffer_limits(high, low)

    def can_write_eof(self) -> Literal[False]:
        return False


class Connection(asyncio.Transport, asyncio.Protocol):
    """The upper layer: the transport a server's protocol gets. It carries plaintext.

    `tls` tells whether TLS is on; `start_tls` puts it on.
    """

    def __init__(self, wire: Wire, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._wire = wire
        self._below: asyncio.Transport = wire
        self._protocol = protocol
        self._recorder = wire.recorder
        self._made = False
        self._early: list[bytes] = []
        self._task: asyncio.Task[None] | None = None
        self._octets = 0
        """What the client has said."""
        self.tls = False

    # -- TLS

    def begin_with_tls(self, context: ssl.SSLContext) -> None:
        """TLS from the first octet: the server hears of the connection after the handshake."""
        self._task = asyncio.get_running_loop().create_task(self._implicit(context))

    async def _implicit(self, context: ssl.SSLContext) -> None:
        try:
            await self.start_tls(context)
        except (OSError, ssl.SSLError):
            return  # noted by start_tls; there is no server yet that could want to know
        if not self._wire.is_closing():
            self.connection_made(self._below)

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Take the server's part of a TLS handshake, then go on under TLS.

        Plaintext that the server has read but not yet obeyed is the server's to forget (RFC 3207
        section 4.2). Raises `OSError` or `ssl.SSLError` where the handshake fails; the
        connection is closed then.
        """
        self._recorder.tls_begins()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_HANDSHAKE_SECONDS):
                below = await loop.start_tls(self._wire, self, context, server_side=True)
            if below is None:
                raise ConnectionResetError("The client went away during the TLS handshake.")
        except (OSError, ssl.SSLError) as error:
            self._recorder.tls_failed(error)
            self._wire.abort()
            raise
        self._below = below
        self.tls = True
        self._recorder.tls_is_on(below.get_extra_info("ssl_object").version() or "")

    # -- as the protocol of what lies below

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._made = True
        self._protocol.connection_made(self)
        for data in self._early:
            self.data_received(data)
        self._early.clear()

    def data_received(self, data: bytes) -> None:
        # Right after the handshake data may come before `start_tls` has returned.
        under_tls = self._wire.get_protocol() is not self
        if not self._made:
            # The client's first words may come with the end of its handshake.
            if not under_tls:
                self._recorder.wire("C", _own(data))
            self._early.append(bytes(data))
            return
        if under_tls:
            self._recorder.said("C", _own(data), True)
        else:
            self._recorder.both("C", _own(data))
        self._octets += len(data)
        if self._octets <= self._wire.service.most_octets:
            self._protocol.data_received(data)
        elif not self.is_closing():
            self.write(self._wire.service.too_much)
            self.close()

    def eof_received(self) -> bool | None:
        self._recorder.gone("C")
        stays_open = self._protocol.eof_received() if self._made else False
        # Under TLS there is no half-open connection (RFC 8446 section 6.1 aside, in asyncio).
        return stays_open and self._wire.get_protocol() is self

    def connection_lost(self, exc: Exception | None) -> None:
        if self._made:
            self._made = False
            # To a server all ends are one; of an exception asyncio would say that nobody asked.
            self._protocol.connection_lost(None)

    def pause_writing(self) -> None:
        if self._made:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        if self._made:
            self._protocol.resume_writing()

    # -- as the server's transport

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast(asyncio.Protocol, protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not data or self._below.is_closing():
            return
        if self._below is self._wire:
            self._recorder.both("S", bytes(data))
            self._wire.send(data)
        else:
            self._recorder.said("S", bytes(data), self.tls)
            self._below.write(data)

    def close(self) -> None:
        self._recorder.gone("S")
        self._below.close()

    def abort(self) -> None:
        self._recorder.gone("S")
        self._below.abort()

    def is_closing(self) -> bool:
        return self._below.is_closing()

    def pause_reading(self) -> None:
        self._below.pause_reading()

    def resume_reading(self) -> None:
        self._below.resume_reading()

    def is_reading(self) -> bool:
        return self._below.is_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._below.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        return self._below.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._below.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._below.set_write_buffer_limits(high, low)

    def can_write_eof(self) -> Literal[False]:
        return False
