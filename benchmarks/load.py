"""The load: Debian's smtp-source sends messages, alike to every server, in pairs of runs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import peers, processes
from benchmarks.pairs import Comparison, Pair, run_pair
from benchmarks.peers import Missing, Peer, Place, Running

SENDER = "writer@lab.example"


class LoadError(Exception):
    """The load could not be sent; the text says why."""


@dataclass(frozen=True, slots=True)
class Workload:
    """How messages are sent."""

    connections: int
    kept: bool
    """Whether a connection carries many messages; else each has its own."""
    octets: int
    """Octets of each message's body."""

    def __str__(self) -> str:
        mega, kilo = self.octets // 1_000_000, self.octets // 1000
        plural = "s" if self.connections > 1 else ""
        how = f"{self.connections} {'kept' if self.kept else 'new'} connection{plural}"
        return f"{how}, {f'{mega} MB' if mega else f'{kilo} kB'}"


MAIN = Workload(20, True, 2000)
WORKLOADS = tuple(
    Workload(connections, kept, octets)
    for octets in (2000, 2_000_000)
    for connections in (20, 1)
    for kept in (True, False)
)
"""The first is the main one."""


def smtp_source() -> str:
    """The load generator. Raises `Missing`."""
    return peers.debian_program("smtp-source", "postfix")


def send(place: Place, workload: Workload, messages: int) -> float:
    """Send that many messages; the seconds it took.

    Raises `LoadError` unless all were taken, `Missing` where there is no load generator.
    """
    shape = f"-s {workload.connections} -m {messages} -l {workload.octets}"
    shape += " -d" if workload.kept else ""
    who = f"-f {SENDER} -t {peers.READER} -M client.example"
    arguments = [smtp_source(), *shape.split(), *who.split(), f"{place[0]}:{place[1]}"]
    began = time.perf_counter()
    done = processes.run(arguments)
    seconds = time.perf_counter() - began
    if done.returncode or done.stderr:
        raise LoadError(processes.last_line(done.stderr))
    return seconds


def enough(place: Place, workload: Workload, seconds: float) -> int:
    """How many messages take about that many seconds. Finding out also warms the server up."""
    messages = workload.connections
    while True:
        took = send(place, workload, messages)
        if took >= seconds / 4:
            return max(workload.connections, round(messages * seconds / took))
        messages = round(messages * min(8.0, max(1.5, 0.4 * seconds / took)))


def compare(
    workload: Workload,
    others: Sequence[Peer],
    folder: Path,
    *,
    pairs: int,
    seconds: float,
    progress: Callable[[str], None],
) -> list[Comparison]:
    """Run pairs of the lab and each other server, about `seconds` each run.

    All servers of a workload are there at once; only one at a time has anything to do. The rounds
    go over all peers, so that a slow minute of the machine falls on all alike.
    """
    failures: dict[str, str] = {}
    measured: dict[str, list[Pair]] = {peer.name: [] for peer in others}
    with contextlib.ExitStack() as stack:
        counts: dict[str, int] = {}

        def warmed_up(peer: Peer) -> Running:
            progress(f"warming up {peer.name}")
            server = stack.enter_context(peers.started(peer, folder / str(len(counts))))
            counts[peer.name] = enough(server.smtp, workload, seconds)
            peers.rest(server)
            return server

        def rate(server: Running) -> float:
            count = counts[server.peer.name]
            took = send(server.smtp, workload, count)
            peers.rest(server)
            return count / took

        ours, running = warmed_up(peers.lab()), []
        for peer in others:
            try:
                running.append(warmed_up(peer))
            except (Missing, LoadError) as error:
                failures[peer.name] = str(error)
        for turn in range(pairs):
            for other in running:
                name = other.peer.name
                if name in failures:
                    continue
                progress(f"pair {turn + 1} of {pairs} with {name}")
                try:
                    pair = run_pair(turn, partial(rate, ours), partial(rate, other))
                except LoadError as error:
                    failures[name] = str(error)
                else:
                    measured[name].append(pair)
    return [
        Comparison(
            str(workload), name, () if name in failures else tuple(found), failures.get(name, "")
        )
        for name, found in measured.items()
    ]
