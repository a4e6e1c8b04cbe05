"""Measures this server beside others, and writes RESULTS.md: `python3 kit.py bench`.

The order of things and the command line stand here; who is measured in peers.py, what is sent in
load.py, the page in report.py, and each other measurement in a module of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import kit
from benchmarks import (
    kills,
    learners,
    load,
    machine,
    memory,
    peers,
    processes,
    profiling,
    retrieval,
    startup,
)
from benchmarks.load import LoadError, Workload
from benchmarks.peers import Missing, Peer
from benchmarks.report import Results, page

KEPT = kit.ROOT / "_build" / "bench"
RESULTS = kit.ROOT / "benchmarks" / "RESULTS.md"
PARTS = ("smtp", "retrieval", "profile", "startup", "learners", "memory", "kills", "tests")
KILLS = 200
"""Among everything else, and when nothing else is asked for."""


@dataclass(frozen=True, slots=True)
class Size:
    """How thoroughly to measure."""

    workloads: tuple[Workload, ...]
    pairs: int
    main_seconds: float
    """How long a run of the main workload should take."""
    seconds: float
    """How long any other run should take."""


FULL = Size(load.WORKLOADS, pairs=5, main_seconds=1.5, seconds=0.5)
QUICK = Size(load.WORKLOADS[:2], pairs=3, main_seconds=0.7, seconds=0.7)


class Progress:
    """Tells on standard error what runs now, k of n, and about how long the rest will take."""

    def __init__(self) -> None:
        self._steps: list[tuple[str, float]] = []
        self._began = time.monotonic()

    def plan(self, steps: list[tuple[str, float]]) -> None:
        """What will be done, each with the seconds it should take."""
        self._steps, self._done = steps, 0

    def step(self) -> None:
        """The next step begins."""
        name, _ = self._steps[self._done]
        left = sum(seconds for _, seconds in self._steps[self._done :])
        self._done += 1
        about = f"about {left / 60:.0f} min left" if left >= 90 else f"about {left:.0f} s left"
        self._line(f"[{self._done}/{len(self._steps)}] {name} ({about})", "\n")

    def __call__(self, detail: str) -> None:
        """What is done within the step; only shown on a terminal, for a moment."""
        if sys.stderr.isatty():
            self._line(f"  {detail}", "\r")

    def _line(self, text: str, end: str) -> None:
        clear = "\x1b[K" if sys.stderr.isatty() else ""
        print(f"{clear}{self._time()} {text}", end=end, file=sys.stderr, flush=True)

    def _time(self) -> str:
        minutes, seconds = divmod(round(time.monotonic() - self._began), 60)
        return f"{minutes:2}:{seconds:02}"


def main() -> int:
    options = read_arguments(sys.argv[1:])
    # A polite request to end is taken like Ctrl-C.
    signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    size = QUICK if options.quick else FULL
    parts = options.only or (["smtp"] if options.quick else list(PARTS))
    results = measure(parts, size, Progress())
    results.quick = options.quick
    text = page(results)
    kit.say(text)
    if set(parts) == set(PARTS) and not options.quick:
        RESULTS.write_text(text, encoding="utf-8")
        kit.say("This is benchmarks/RESULTS.md now.")
    return 0


def measure(parts: list[str], size: Size, progress: Progress) -> Results:
    """Run those parts, one after the other."""
    results = Results()
    others: list[Peer] = []
    if "smtp" in parts:
        others, results.missing = peers.find(KEPT)
    steps = list(plan(parts, size, others, results))
    progress.plan([(step.name, step.seconds) for step in steps])
    with peers.workplace(KEPT) as folder:
        results.machine = machine.look(folder)
        results.servers = [peers.lab(), *others]
        with contextlib.suppress(Missing):
            results.servers += [peers.dovecot()] if "retrieval" in parts else []
        for number, step in enumerate(steps):
            progress.step()
            place = folder / str(number)
            place.mkdir()
            try:
                step.run(place, progress)
            except (Missing, LoadError, OSError) as error:
                results.missing[step.name] = str(error)
            peers.remove(place)
    return results


# --- the steps, in their order ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to measure; it puts what it finds into the results."""

    name: str
    seconds: float
    """How long it should take."""
    run: Callable[[Path, Callable[[str], None]], None]


def plan(parts: list[str], size: Size, others: list[Peer], results: Results) -> Iterator[Step]:
    def smtp(workload: Workload, seconds: float, folder: Path, tell: Callable[[str], None]) -> None:
        results.smtp += load.compare(
            workload, others, folder, pairs=size.pairs, seconds=seconds, progress=tell
        )

    def reading(folder: Path, tell: Callable[[str], None]) -> None:
        results.retrieval = retrieval.compare(folder, pairs=size.pairs, progress=tell)

    def profile(workload: Workload, folder: Path, tell: Callable[[str], None]) -> None:
        results.profiles.append(profiling.measure(folder, workload, 2.0))

    def starting(folder: Path, tell: Callable[[str], None]) -> None:
        results.startup = startup.measure(folder, progress=tell)

    def learning(folder: Path, tell: Callable[[str], None]) -> None:
        results.learners = learners.measure(folder)

    def remembering(folder: Path, tell: Callable[[str], None]) -> None:
        results.memory = memory.measure(folder, progress=tell)

    def killing(folder: Path, tell: Callable[[str], None]) -> None:
        results.kills = str(kills.run(KILLS, 1, folder, progress=lambda sofar: tell(str(sofar))))

    def testing(folder: Path, tell: Callable[[str], None]) -> None:
        results.quick_tests = quick_tests()

    if "smtp" in parts:
        for workload in size.workloads:
            seconds = size.main_seconds if workload == load.MAIN else size.seconds
            each = seconds + 0.3 if workload.octets < 1_000_000 else 1.5
            expected = 2 * len(others) * size.pairs * each + 2 * len(others)
            yield Step(f"SMTP, {workload}", expected, partial(smtp, workload, seconds))
    if "retrieval" in parts:
        yield Step("retrieval beside Dovecot", 40, reading)
    if "profile" in parts:
        for workload in load.WORKLOADS[:2]:
            yield Step(f"profile, {workload}", 6, partial(profile, workload))
    if "startup" in parts:
        yield Step("start of a lab", 12, starting)
    if "learners" in parts:
        yield Step(f"{learners.LEARNERS} learners", 10, learning)
    if "memory" in parts:
        yield Step(f"memory over {memory.MARKS[-1]:,} messages", 100, remembering)
    if "kills" in parts:
        yield Step(f"{KILLS} kills under load", 1.2 * KILLS, killing)
    if "tests" in parts:
        yield Step("kit.py test --quick", 60, testing)


def quick_tests() -> float:
    """The seconds that `kit.py test --quick` takes. Raises `Missing` where a check fails."""
    began = time.perf_counter()
    done = processes.run([sys.executable, "-m", "tests.checks", "--quick"])
    seconds = time.perf_counter() - began
    if done.returncode:
        raise Missing(f"the quick tests fail: {processes.last_line(done.stdout)}")
    return seconds


def read_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="kit.py bench", description="Writes RESULTS.md.")
    parser.add_argument("--quick", action="store_true", help="the main table alone, in a minute")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="only these parts, not written")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(kit.guard(main, child=True))
