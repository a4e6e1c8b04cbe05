"""Hears of a lab's sessions as they happen, and keeps the latest of them.

`Feed` is what was heard so far; `Beat` lets somebody look at it now and then, not at each line.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from labserver.catalog import explain
from labserver.network.recorder import Journal, Recorder
from labserver.transcript import Session

MOST = 100
"""Sessions that are listed: of those that have ended, and of those that are open."""
SECONDS = 0.25
"""Between two looks at what was heard, at least."""
_REST = 4
"""So many times as long as a look took, nobody looks again."""
_MOST_LINES = 2_000
"""Lines of a session that are read for its row in the list."""


class Feed:
    """The latest sessions, and how many there were in all.

    `hear` and `look` are to be called where the servers run, the others by any thread.
    """

    def __init__(self, most: int = MOST) -> None:
        self._lock = threading.Lock()
        self._most = most
        self._open: dict[int, Recorder] = {}
        self._seen: dict[int, Session] = {}
        """The latest of those that are open, as they were at the last look."""
        self._ended: deque[Session] = deque(maxlen=most)
        self._counts: Counter[str] = Counter()

    def hear(self, recorder: Recorder) -> None:
        """Something has happened in that session."""
        number = recorder.number
        with self._lock:
            if number not in self._open:
                self._counts[recorder.protocol] += 1
            if recorder.ended:
                self._open.pop(number, None)
                self._seen.pop(number, None)
                self._ended.append(recorder.session())
            else:
                self._open[number] = recorder

    def look(self, journal: Journal) -> None:
        """See how far the open sessions have come, and forget those that the lab has dropped."""
        kept = {recorder.number for recorder in journal.recorders}
        with self._lock:
            latest = sorted(self._open)[-self._most :]
            self._seen = {number: self._open[number].session() for number in latest}
            self._ended = deque((one for one in self._ended if one.number in kept), self._most)

    def clear(self) -> None:
        """Forget the sessions that have ended."""
        with self._lock:
            self._ended.clear()
            self._counts = Counter(recorder.protocol for recorder in self._open.values())

    @property
    def latest(self) -> tuple[Session, ...]:
        """The latest sessions, the last one first; the open ones as of the last look."""
        with self._lock:
            listed = [*self._ended, *self._seen.values()]
        return tuple(sorted(listed, key=lambda session: session.number, reverse=True))

    def told(self) -> str:
        """How many of each protocol there were, in a sentence."""
        with self._lock:
            counts, still_open, listed = self._counts.copy(), len(self._open), len(self._ended)
        if not counts:
            return "No session yet."
        said = ", ".join(f"{number:,} {kind}" for kind, number in sorted(counts.items()))
        if listed < counts.total() - still_open:
            latest = f"the latest {listed:,} {'is' if listed == 1 else 'are'} listed"
            said += f"; {latest if listed else 'none that has ended is kept'}"
        if still_open:
            said += f"; {still_open:,} {'is' if still_open == 1 else 'are'} open"
        return f"{said}."


@dataclass(frozen=True, slots=True)
class Row:
    """A session as the list shows it."""

    number: int
    what: str
    """Which protocol, on which listener."""
    sign: str
    """What the facts come to, for who runs over the list."""
    facts: str

    @property
    def text(self) -> str:
        """In one line, what matters first."""
        return f"{self.sign} {self.number}. {self.what}: {self.facts}"


def row(session: Session) -> Row:
    """What the list shows of a session."""
    beginning = replace(session, lines=session.lines[:_MOST_LINES])
    refused = sum(meaning.outcome in ("refused", "later") for meaning in explain(beginning))
    of = f" in its first {_MOST_LINES:,} lines" if len(session.lines) > _MOST_LINES else ""
    trips = session.round_trips
    facts = ["open"] * (not session.closed)
    facts += [f"{refused:,} refused{of}"] * bool(refused or of)
    facts += [session.ending] * bool(session.ending)
    facts += [f"{trips:,} round trip{'' if trips == 1 else 's'}"]
    facts += [session.tls.replace("TLSv", "TLS ")] * bool(session.tls)
    what = f"{session.protocol} on {session.listener}"
    return Row(session.number, what, _sign(session, refused), ", ".join(facts))


def _sign(session: Session, refused: int) -> str:
    if not session.closed:
        return "●"
    return "✕" if refused else "!" if session.ending else "✓"


class Beat:
    """Has something done soon after it is due, and at most every quarter of a second.

    What takes long is done less often. With threads a timer does it, so that it is done while a
    cell runs, too. Without, the loop that runs the notebook does, or `due` itself where a cell
    keeps that loop from running.
    """

    def __init__(self, work: Callable[[], None], *, threads: bool) -> None:
        self._work, self._threads = work, threads
        self._lock = threading.Lock()
        self._waiting: threading.Timer | asyncio.TimerHandle | None = None
        self._pause = SECONDS
        self._last = -SECONDS
        self._at_work = self._again = self._stopped = False
        try:
            self._loop = None if threads else asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None

    def due(self) -> None:
        """There is something to be done; says so from any thread, and returns at once."""
        with self._lock:
            if self._stopped:
                return
            if self._at_work:
                self._again = True
                return
            now = not self._threads and time.monotonic() - self._last >= self._pause
            if not now and self._waiting is None:
                if self._threads:
                    self._waiting = timer = threading.Timer(self._pause, self._now)
                    timer.daemon = True
                    with contextlib.suppress(RuntimeError):  # the interpreter is ending: so be it
                        timer.start()
                elif self._loop is not None:
                    self._waiting = self._loop.call_later(self._pause, self._now)
        if now:
            self._now()

    def _now(self) -> None:
        with self._lock:
            self._forget_timer()
            if self._stopped or self._at_work:
                return
            self._at_work = True
        began = time.monotonic()
        try:
            self._work()
        finally:
            with self._lock:
                self._last = time.monotonic()
                self._pause = max(SECONDS, _REST * (self._last - began))
                self._at_work, again, self._again = False, self._again, False
        if again:
            self.due()

    def stop(self) -> None:
        """Nothing is done any more."""
        with self._lock:
            self._stopped = True
            self._forget_timer()

    def _forget_timer(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
