"""How much memory a lab takes for messages and sessions, and how soon a full one is back."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import peers, retrieval
from benchmarks.load import Workload, send

MARKS = (10_000, 50_000, 100_000)
"""After how many messages memory is looked at; at the first, sessions have reached their bound."""

_MESSAGES_A_ROUND = 200
_ROUND = Workload(20, True, 2000)
SESSIONS = 800


@dataclass(frozen=True, slots=True)
class Restart:
    """Seconds from the start of the process."""

    messages: int
    ready: float
    """Until it says where it listens."""
    greeted: float
    """Until SMTP has greeted a client."""
    selected: float
    """How long IMAP's SELECT of the mailbox that holds all the messages takes."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory in octets; empty where the system doesn't tell."""

    marks: tuple[tuple[int, int], ...]
    """Messages taken, and the memory then."""
    session: float | None
    """For each kept session of one message."""
    restart: Restart

    @property
    def message(self) -> float | None:
        """For each stored message, between the first mark and the last."""
        if len(self.marks) < 2:
            return None
        (few, before), (many, after) = self.marks[0], self.marks[-1]
        return (after - before) / (many - few)

    @property
    def growth(self) -> float | None:
        """From the first mark to the last, as a share of the first."""
        if len(self.marks) < 2:
            return None
        before, after = self.marks[0][1], self.marks[-1][1]
        return (after - before) / before


def resident(pid: int) -> int | None:
    """A process's memory in octets; `None` where the system doesn't tell as Linux does."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
    except OSError:
        return None
    return pages * int(os.sysconf("SC_PAGE_SIZE"))


def measure(
    folder: Path,
    *,
    progress: Callable[[str], None],
    marks: tuple[int, ...] = MARKS,
    sessions: int = SESSIONS,
) -> Memory:
    """Send messages until the last mark, ten a session, then start the lab anew with them."""
    noted = []
    with peers.started(peers.lab(), folder / "full") as server:
        sent = 0
        for mark in marks:
            while sent < mark:
                progress(f"{sent} of {marks[-1]} messages sent")
                count = min(_MESSAGES_A_ROUND, mark - sent)
                send(server.smtp, _ROUND, count)
                sent += count
            octets = resident(server.process.pid)
            noted += [] if octets is None else [(mark, octets)]
    progress("restarting")
    again = restart(folder / "full")
    return Memory(tuple(noted), of_a_session(folder / "sessions", sessions), again)


def of_a_session(folder: Path, sessions: int) -> float | None:
    """Octets for each session that carried one message."""
    with peers.started(peers.lab(), folder) as server:
        send(server.smtp, _ROUND, 2 * sessions)  # what is only needed once is there then
        few = Workload(20, False, 2000)
        send(server.smtp, few, sessions // 8)
        before = resident(server.process.pid)
        send(server.smtp, few, sessions)
        after = resident(server.process.pid)
    return None if before is None or after is None else (after - before) / sessions


def restart(folder: Path) -> Restart:
    """Start a lab with the mail that is there."""
    began = time.perf_counter()
    with peers.started(peers.lab(), folder) as server:
        peers.greeting(server.smtp)
        greeted = time.perf_counter() - began
        with retrieval.imap(server.places["imap"]) as client:
            began = time.perf_counter()
            client.say(b"b SELECT INBOX\r\n")
            count = retrieval.exists(client.tagged(b"b"))
            selected = time.perf_counter() - began
    return Restart(count, server.ready_seconds, greeted, selected)
