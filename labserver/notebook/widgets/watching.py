"""Hears of a lab's sessions as they end, and keeps the latest of them.

`Feed` is what was heard so far; `Beat` lets somebody look at it now and then, not at each session.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from labserver.catalog import explain
from labserver.transcript import Session

MOST = 100
"""Sessions that are listed."""
SECONDS = 0.25
"""Between two looks at what was heard."""
_MOST_LINES = 2_000
"""Lines of a session that are read for its row in the list."""


class Feed:
    """The latest sessions, and how many there were in all. Any thread may add and look."""

    def __init__(self, most: int = MOST) -> None:
        self._lock = threading.Lock()
        self._latest: deque[Session] = deque(maxlen=most)
        self._counts: Counter[str] = Counter()
        self._before = 0

    def add(self, session: Session) -> None:
        """It has ended."""
        with self._lock:
            if session.number > self._before:
                self._latest.append(session)
                self._counts[session.protocol] += 1

    def begin_with(self, sessions: tuple[Session, ...]) -> None:
        """What had ended before anything was heard; to be called once."""
        with self._lock:
            heard = {session.number for session in self._latest}
            earlier = [one for one in sessions if one.closed and one.number not in heard]
            latest = [*earlier, *self._latest]
            self._latest.clear()
            self._latest.extend(latest)
            self._counts.update(session.protocol for session in earlier)

    def clear(self) -> None:
        """Forget all that was heard."""
        with self._lock:
            self._latest.clear()
            self._counts.clear()

    @property
    def latest(self) -> tuple[Session, ...]:
        """The latest sessions, the last one first."""
        with self._lock:
            return tuple(reversed(self._latest))

    def told(self) -> str:
        """How many of each protocol there were, in a sentence."""
        with self._lock:
            total, listed = self._counts.total(), len(self._latest)
            kinds = ", ".join(f"{number:,} {kind}" for kind, number in sorted(self._counts.items()))
        if not total:
            return "No session has ended yet."
        return f"{kinds}{f'; the latest {listed:,} are listed' if listed < total else ''}."


@dataclass(frozen=True, slots=True)
class Row:
    """A session as the list shows it."""

    number: int
    what: str
    """Which protocol, on which listener."""
    refused: int
    """Replies that refuse, for now or for good."""
    facts: str

    @property
    def text(self) -> str:
        """In one line, what matters first."""
        return f"{'✕' if self.refused else '✓'} {self.number}. {self.what}: {self.facts}"


def row(session: Session) -> Row:
    """What the list shows of a session."""
    many = len(session.lines) > _MOST_LINES
    meanings = () if many else explain(session)
    refused = sum(meaning.outcome in ("refused", "later") for meaning in meanings)
    trips = session.round_trips
    facts = [f"{refused:,} refused"] * bool(refused)
    facts += [session.ending] * bool(session.ending)
    facts += [f"{trips:,} round trip{'' if trips == 1 else 's'}"]
    facts += [session.tls.replace("TLSv", "TLS ")] * bool(session.tls)
    what = f"{session.protocol} on {session.listener}"
    return Row(session.number, what, refused, ", ".join(facts))


class Beat:
    """Has something done soon after it is due, and at most every quarter of a second.

    With threads a timer does it, so that it is done while a cell runs, too. Without, the loop that
    runs the notebook does, or `due` itself where a cell keeps that loop from running.
    """

    def __init__(self, work: Callable[[], None], *, threads: bool) -> None:
        self._work, self._threads = work, threads
        self._lock = threading.Lock()
        self._waiting: threading.Timer | asyncio.TimerHandle | None = None
        self._last = -SECONDS
        self._stopped = False
        try:
            self._loop = None if threads else asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None

    def due(self) -> None:
        """There is something to be done; says so from any thread, and returns at once."""
        if not self._threads and time.monotonic() - self._last >= SECONDS:
            self._now()
            return
        with self._lock:
            if self._waiting is not None or self._stopped:
                return
            if self._threads:
                self._waiting = timer = threading.Timer(SECONDS, self._now)
                timer.daemon = True
                timer.start()
            elif self._loop is not None:
                self._waiting = self._loop.call_later(SECONDS, self._now)

    def _now(self) -> None:
        with self._lock:
            if self._waiting is not None:
                self._waiting.cancel()
            self._waiting = None
            self._last = time.monotonic()
            if self._stopped:
                return
        self._work()

    def stop(self) -> None:
        """Nothing is done any more."""
        with self._lock:
            self._stopped = True
            if self._waiting is not None:
                self._waiting.cancel()
                self._waiting = None
