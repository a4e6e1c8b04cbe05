"""On what the server spends its time: a profile of its loop's thread under load."""

from __future__ import annotations

import pstats
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from benchmarks import load, peers
from benchmarks.load import Workload
from benchmarks.peers import Command, Peer

# A built-in function is counted where its name says, or else where its caller belongs.
_BUILT_IN = (
    ("poll' of 'select", "waiting for clients"),
    ("select.", "waiting for clients"),
    ("_socket.socket", "the system's sockets"),
    ("sqlite3", "SQLite's statements"),
    ("select", "waiting for clients"),
)
# The first that is found in a file's path, from above.
_ROOMS = (
    ("labserver/network/recorder", "recording every byte"),
    ("labserver/dialogue", "recording every byte"),
    ("labserver/transcript", "recording every byte"),
    ("labserver/network", "carrying bytes and accepting (labserver/network)"),
    ("labserver/store", "the store's Python"),
    ("labserver/message", "the store's Python"),
    ("labserver/servers/delivery", "the store's Python"),
    ("labserver/", "SMTP in labserver"),
    ("aiosmtpd/", "SMTP in aiosmtpd"),
    ("asyncio/", "asyncio"),
    ("logging/", "logging"),
    ("sqlite3", "SQLite's statements"),
)
WAITING, COMMIT, REST = "waiting for clients", "SQLite's commit, the disk included", "the rest"

Function = tuple[str, int, str]
"""As pstats names it: file, line, name."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Where the time of a run under load went."""

    workload: str
    messages: int
    commits: int
    """How often a transaction was opened."""
    shares: dict[str, float]
    """Of the time in which the server was not waiting; the largest first."""
    waiting: float
    """The share of all the time in which it waited for its clients."""


def measure(folder: Path, workload: Workload, seconds: float) -> Profile:
    """Run the lab under a profiler and that workload. Raises `Missing` or `LoadError`."""
    arguments = [sys.executable, str(peers.SERVERS / "profiled_lab.py"), str(folder)]
    profiled = Peer("profiled lab", "", "", lambda _: Command(arguments, ends_with_input=True))
    with peers.started(profiled, folder) as server:
        messages = load.enough(server.smtp, workload, seconds)
        load.send(server.smtp, workload, messages)
    stats = pstats.Stats(str(folder / "profile"))
    # pstats has it, and its stubs don't.
    functions: dict[Function, Any] = stats.stats  # type: ignore[attr-defined]
    spent = group(functions)
    waiting = spent.pop(WAITING, 0.0)
    busy = sum(spent.values())
    return Profile(
        workload=str(workload),
        messages=_calls(functions, "labserver/store", "_insert"),
        commits=_calls(functions, "labserver/store", "deliver_group"),
        shares={name: part / busy for name, part in Counter(spent).most_common()},
        waiting=waiting / (busy + waiting),
    )


def group(functions: dict[Function, Any]) -> dict[str, float]:
    """Seconds by group, of a profile's functions without what they call."""
    spent: Counter[str] = Counter()
    for function, (_, _, own, _, callers) in functions.items():
        if function[0] != "~":
            spent[_room(function)] += own
        elif not callers:
            spent[_built_in(function) or REST] += own
        else:
            for caller, (_, _, part, _) in callers.items():
                spent[_built_in(function, caller) or _room(caller)] += part
    return dict(spent)


def _built_in(function: Function, caller: Function = ("", 0, "")) -> str:
    name = function[2]
    found = next((room for sign, room in _BUILT_IN if sign in name), "")
    if found == "SQLite's statements" and "transaction" in caller[2]:
        return COMMIT
    return found


def _room(function: Function) -> str:
    path = PurePath(function[0]).as_posix()
    return next((room for sign, room in _ROOMS if sign in path), REST)


def _calls(functions: dict[Function, Any], path: str, name: str) -> int:
    return sum(
        numbers[1]
        for (file, _, called), numbers in functions.items()
        if called == name and path in PurePath(file).as_posix()
    )
