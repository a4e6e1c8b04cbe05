"""How soon `Lab()` is ready, each time in a process of its own."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import processes
from benchmarks.peers import Missing

RUNS = 10

# Without an argument a lab of its own folder, which needs new certificates.
_PROGRAM = """
import json, sys, time
began = time.perf_counter()
from labserver import Lab
imported = time.perf_counter()
lab = Lab(data=sys.argv[1] if sys.argv[1:] else None)
ready = time.perf_counter()
lab.close()
print(json.dumps([imported - began, ready - imported]))
"""


@dataclass(frozen=True, slots=True)
class Startup:
    """Seconds, each the median of some runs."""

    runs: int
    imported: float
    """`import labserver`."""
    new: float
    """`Lab()`, which makes its certificates."""
    again: float
    """`Lab(data=FOLDER)` with the certificates that are there."""


def measure(folder: Path, *, progress: Callable[[str], None], runs: int = RUNS) -> Startup:
    """Start that many labs of either kind."""
    run(_PROGRAM, str(folder))  # it compiles, and makes the certificates
    new, again = [], []
    for number in range(runs):
        progress(f"start {number + 1} of {runs}")
        new.append(run(_PROGRAM))
        again.append(run(_PROGRAM, str(folder)))
    return Startup(
        runs,
        statistics.median(imported for imported, _ in new + again),
        statistics.median(ready for _, ready in new),
        statistics.median(ready for _, ready in again),
    )


def run(program: str, *arguments: str) -> tuple[float, float]:
    """Seconds for the import and for the lab. Raises `Missing` where that fails."""
    done = processes.run([sys.executable, "-c", program, *arguments])
    if done.returncode:
        raise Missing(processes.last_line(done.stderr))
    imported, ready = json.loads(done.stdout)
    return imported, ready
