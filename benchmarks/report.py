"""What was measured as a page: ratios first, then targets, then the rest. Nothing is measured here.

Every number and every "reached" comes from the results that are given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from benchmarks.learners import Learners
from benchmarks.load import MAIN
from benchmarks.machine import Machine
from benchmarks.memory import Memory
from benchmarks.pairs import Comparison
from benchmarks.peers import Peer
from benchmarks.profiling import Profile
from benchmarks.startup import Startup


@dataclass
class Results:
    """All that one run of the benchmarks has found; a part that did not run is empty."""

    quick: bool = False
    machine: Machine | None = None
    servers: list[Peer] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    """What could not be measured, and why."""
    smtp: list[Comparison] = field(default_factory=list)
    retrieval: list[Comparison] = field(default_factory=list)
    profiles: list[Profile] = field(default_factory=list)
    startup: Startup | None = None
    learners: Learners | None = None
    memory: Memory | None = None
    quick_tests: float | None = None
    """Seconds of `kit.py test --quick`."""
    kills: str = ""
    """What came of killing the server under load, in one sentence."""


@dataclass(frozen=True, slots=True)
class Target:
    """Something to reach."""

    wanted: str
    measured: str
    reached: bool


def page(results: Results) -> str:
    """The whole page in Markdown."""
    parts = ["# Measured", *_introduction(results)]
    parts += _section("Ratios", _ratios(results))
    parts += _section("Targets", _targets(results))
    parts += _section("Rates", _rates(results))
    parts += _section("Where the time goes", _profiles(results))
    parts += _section("Starting, learners, memory", _others(results))
    parts += _section("Machine and versions", _machine(results))
    return "\n\n".join(parts) + "\n"


def _section(title: str, content: list[str]) -> list[str]:
    return [f"## {title}", *content] if content else []


def _introduction(results: Results) -> list[str]:
    text = (
        "Written by `python3 kit.py bench`. All servers run on this machine, each as a process of "
        "its own, under one load generator (Debian's `smtp-source`); nothing else should run "
        "meanwhile. This server records every byte and says 250 only when the message is on disk."
    )
    quick = "This was a quick run: fewer pairs, shorter, the main table only."
    return [text, quick] if results.quick else [text]


# --- ratios, targets, rates ---------------------------------------------------------------------


def _ratios(results: Results) -> list[str]:
    out = []
    if results.smtp:
        counts = {len(one.pairs) for one in results.smtp if one.pairs}
        pairs = " or ".join(str(count) for count in sorted(counts)) or "no"
        out += [
            "This server's messages per second divided by the other's, under the same load. Each "
            f"is the median of {pairs} paired runs, with the lowest and the highest in brackets; "
            "above 1 this server is faster.",
            _grid(results.smtp, _ratio),
        ]
    if results.retrieval:
        out += ["Reading 1,000 messages of 2 kB, the same way:", _grid(results.retrieval, _ratio)]
    failures = {one.peer: one.failure for one in results.smtp if one.failure}
    missing = [f"- {name} was not measured: {why}." for name, why in results.missing.items()]
    missing += [f"- {name} failed: {why}." for name, why in failures.items()]
    return out + (["\n".join(missing)] if missing else [])


def _targets(results: Results) -> list[str]:
    rows = [
        [one.wanted, one.measured, "reached" if one.reached else "**not reached**"]
        for one in targets(results)
    ]
    return [table([["to reach", "measured", ""], *rows])] if rows else []


def targets(results: Results) -> list[Target]:
    """The targets about which something was measured."""
    out = []
    for name, least in (("aiosmtpd, Sink handler", 1.0), ("MailDev", 2.0)):
        for one in results.smtp:
            if one.workload == str(MAIN) and one.peer == name and one.pairs:
                wanted = f"{one.workload}: at least {least:.1f} times {name}"
                out.append(Target(wanted, f"{one.ratio:.2f}", one.ratio >= least))
    for one in results.retrieval:
        if one.pairs:
            wanted = f"{one.workload}: at least half of {one.peer}"
            out.append(Target(wanted, f"{one.ratio:.2f}", one.ratio >= 0.5))
    if (startup := results.startup) is not None:
        wanted = "`Lab()` with its new certificates in under 150 ms"
        out.append(Target(wanted, _ms(startup.new), startup.new < 0.150))
    if (learners := results.learners) is not None:
        good, all_of_them = len(learners.seconds), learners.asked
        wanted = f"{all_of_them} simultaneous learners, all served"
        out.append(Target(wanted, f"{good} served", good == all_of_them))
    if (memory := results.memory) is not None:
        if (growth := memory.growth) is not None:
            wanted = f"memory flat (within 10 %) from {_n(memory.marks[0][0])} "
            wanted += f"to {_n(memory.marks[-1][0])} messages"
            out.append(Target(wanted, f"{growth:+.1%}", growth < 0.10))
        restart = memory.restart
        wanted = f"a restart with {_n(restart.messages)} messages in under 2 s"
        out.append(Target(wanted, f"{restart.greeted:.2f} s", restart.greeted < 2.0))
    if (seconds := results.quick_tests) is not None:
        wanted = "`kit.py test --quick` in under a minute"
        out.append(Target(wanted, f"{seconds:.0f} s", seconds < 60))
    return out


def _rates(results: Results) -> list[str]:
    out = []
    if results.smtp:
        out += ["Messages per second, this server / the other (medians):"]
        out += [_grid(results.smtp, _rate)]
    if results.retrieval:
        out += [_grid(results.retrieval, _rate)]
    return out


def _grid(comparisons: Sequence[Comparison], cell: Callable[[Comparison], str]) -> str:
    """One row for each workload, one column for each peer."""
    names = list(dict.fromkeys(one.peer for one in comparisons))
    rows = [["", *names]]
    for workload in dict.fromkeys(one.workload for one in comparisons):
        cells = {one.peer: cell(one) for one in comparisons if one.workload == workload}
        rows.append([workload, *(cells.get(name, "") for name in names)])
    return table(rows)


def _ratio(one: Comparison) -> str:
    if not one.pairs:
        return "failed"
    low, high = one.range
    return f"**{one.ratio:.2f}** ({low:.2f} to {high:.2f})"


def _rate(one: Comparison) -> str:
    if not one.pairs:
        return "failed"
    return f"{_round(one.rates.ours)} / {_round(one.rates.theirs)}"


# --- the rest -----------------------------------------------------------------------------------


def _profiles(results: Results) -> list[str]:
    out = []
    for profile in results.profiles:
        rows = [[name, f"{share:.0%}"] for name, share in profile.shares.items() if share >= 0.005]
        together = profile.messages / profile.commits if profile.commits else 0.0
        out += [
            f"{profile.workload}, of the time in which the server's thread was not waiting for "
            f"clients ({1 - profile.waiting:.0%} of all); {together:.1f} messages a commit:",
            table([["spent on", "share"], *rows]),
        ]
    if out:
        out.append(
            "By Python's own profiler, which makes calls between Python functions look dearer "
            "than they are."
        )
    return out


def _others(results: Results) -> list[str]:
    items = []
    if (startup := results.startup) is not None:
        items.append(
            f"Start: `import labserver` {_ms(startup.imported)}, `Lab()` with new certificates "
            f"{_ms(startup.new)}, with the ones that are there {_ms(startup.again)} "
            f"(medians of {startup.runs} fresh processes each)."
        )
    if (learners := results.learners) is not None:
        failed = "; ".join(f"{why} ({count} x)" for why, count in learners.failures.items())
        items.append(
            f"{learners.asked} learners, {learners.connected} of them connected at once, each "
            f"sending itself a message and reading it by POP3 or IMAP: {len(learners.seconds)} "
            f"whole dialogues succeeded, half of them within {learners.quantile(0.5):.2f} s, 95 % "
            f"within {learners.quantile(0.95):.2f} s. "
            + (f"What failed: {failed}." if failed else "Nothing failed.")
        )
    if (memory := results.memory) is not None:
        items += list(_memory(memory))
    items += [results.kills] if results.kills else []
    return ["\n".join(f"- {item}" for item in items)] if items else []


def _memory(memory: Memory) -> Iterable[str]:
    if memory.marks:
        marks = ", ".join(f"{_mb(octets)} after {_n(sent)}" for sent, octets in memory.marks)
        yield f"Resident memory while messages of 2 kB come in, ten a session: {marks}."
    else:
        yield "Resident memory can't be told on this system (it takes Linux's /proc)."
    if memory.message is not None:
        yield f"Memory for 1,000 more stored messages: {_mb(1000 * memory.message)}."
    if memory.session is not None:
        text = f"Memory for 1,000 kept sessions of one message each: {_mb(1000 * memory.session)}."
        yield text
    restart = memory.restart
    yield (
        f"Restart with {_n(restart.messages)} messages: the servers are named after "
        f"{restart.ready:.2f} s, SMTP greets after {restart.greeted:.2f} s; IMAP SELECT of the "
        f"mailbox that holds them all takes {restart.selected:.2f} s."
    )


def _machine(results: Results) -> list[str]:
    if (machine := results.machine) is None:
        return []
    sync = machine.sync
    rows = [["", ""], *([name, fact] for name, fact in machine.facts.items())]
    rows.append(
        [
            "disk",
            f"{sync.call} after an append of 4 kB, in the folder used: median {_ms(sync.median)}, "
            f"one in twenty above {_ms(sync.slow)}",
        ]
    )
    rows += [[one.name, f"{one.version}; {one.does}"] for one in results.servers]
    return [table(rows)]


# --- how things are written ---------------------------------------------------------------------


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its head."""
    head, *body = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _ms(seconds: float) -> str:
    ms = seconds * 1000
    return f"{ms:.0f} ms" if ms >= 10 else f"{ms:.2f} ms"


def _mb(octets: float) -> str:
    mb = octets / 1e6
    return f"{mb:.0f} MB" if abs(mb) >= 10 else f"{mb:.2f} MB"


def _n(number: int) -> str:
    return f"{number:,}"


def _round(rate: float) -> str:
    """A rate with as many digits as it deserves."""
    if rate <= 0:
        return "0"
    digits = 2 - math.floor(math.log10(rate))
    return f"{round(rate, digits):,.{max(0, digits)}f}"
