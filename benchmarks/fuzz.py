"""Fuzz the servers and the parsers for as long as one likes.

    python -m benchmarks.fuzz                    by chance, a minute for each target
    python -m benchmarks.fuzz imap --minutes 30  one target only
    python -m benchmarks.fuzz mime --coverage    guided by coverage, with atheris
    python -m benchmarks.fuzz linear --minutes 5 looks for input that costs more than its length

What upsets a target is written to `tests/corpus/found/`; move it from there to the folder of its
protocol, with a name that says what it is, and `tests/test_fuzz.py` plays it for ever.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import multiprocessing
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

Target = Callable[[bytes], None]

CORPUS = Path(__file__).parent.parent / "tests" / "corpus"
FOUND = CORPUS / "found"

_LONGEST = 10_000
"""Octets of one try."""
_SLOWEST = 20
"""Seconds of one try; one that takes longer has found something."""
_SIZE = 1_000
"""Octets of the shortest input whose cost is compared with that of twice and four times as many."""
_LARGE = 250_000
"""Octets of one more try: what happens within one step isn't counted, but it is ended."""
_PROCESSOR = 5
"""Seconds of processor time that any one try may take before its process is ended."""


def main() -> int:
    description, _, examples = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fuzz",
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", nargs="?", help="a listener, a parser or linear; else all")
    parser.add_argument("--minutes", type=float, default=1.0, help="for each target")
    parser.add_argument("--seed", type=int, default=None, help="of linear's chances")
    parser.add_argument("--coverage", action="store_true", help="guided by coverage, one target")
    options = parser.parse_args()
    atheris: Any = None
    if options.coverage:
        try:
            atheris = importlib.import_module("atheris")
        except ImportError:
            parser.error(
                "coverage needs atheris: `pip install atheris`, with a Python it has a wheel for."
            )
        # What is imported within is compiled so that it tells which lines were reached.
        importing = atheris.instrument_imports(include=["labserver", "pymap", "aiosmtpd"])
    else:
        importing = contextlib.nullcontext()
    with importing:
        tests = importlib.import_module("tests.test_fuzz")
    if options.target == "linear":
        return linear(options.minutes, options.seed)
    names = [*tests.LISTENERS, *tests.PARSERS]
    if options.target not in (None, *names):
        known = ", ".join([*names, "linear"])
        parser.error(f"there is no target {options.target}; there are {known}.")
    if atheris is not None:
        if options.target is None:
            parser.error("coverage takes one target at a time; name it.")
        return by_coverage(atheris, tests, options.target, options.minutes)
    chosen = [options.target] if options.target else names
    return max(by_chance(tests, name, options.minutes) for name in chosen)


def target_of(tests: Any, name: str, things: ExitStack) -> Target:
    """What takes the octets: a server, a whole conversation at a time, or a parser."""
    if name in tests.PARSERS:
        parser: Target = tests.PARSERS[name]
        return parser
    network = tests.InlineNetwork()
    things.callback(network.close)
    lab = things.enter_context(tests.lab_for_fuzzing(network))

    def converse(octets: bytes) -> None:
        tests.play(lab, name, [octets])
        tests.play(lab, name, octets.splitlines(keepends=True))

    return converse


def keep(name: str, octets: bytes) -> None:
    """Write down octets that upset that target."""
    FOUND.mkdir(exist_ok=True)
    file = FOUND / f"{name.replace(' ', '-')}-{hashlib.sha256(octets).hexdigest()[:12]}"
    file.write_bytes(octets)
    print(f"{name} was upset by {file.relative_to(CORPUS.parent.parent)}.")


def by_chance(tests: Any, name: str, minutes: float) -> int:
    """Try what the tests' grammar comes upon, another way each time."""
    end = time.monotonic() + 60 * minutes
    tries, tried = 0, b""
    protocol = tests.LISTENERS.get(name)
    strategy = tests.conversations(protocol) if protocol else tests.OCTETS
    with ExitStack() as things:
        target = target_of(tests, name, things)

        @tests.settings(max_examples=200, deadline=None, database=None)
        @tests.given(strategy)
        def some(said: bytes | list[bytes]) -> None:
            nonlocal tries, tried
            tries, tried = tries + 1, said if isinstance(said, bytes) else b"".join(said)
            target(tried)

        while time.monotonic() < end:
            try:
                some()
            except Exception:  # whatever it is, it is what was looked for
                traceback.print_exc()
                keep(name, tried)
                return 1
    print(f"{name}: {tries:,} tries, none upset it.")
    return 0


def by_coverage(atheris: Any, tests: Any, name: str, minutes: float) -> int:
    """Let atheris look for octets that reach lines of the code not reached yet."""
    with ExitStack() as things:
        target = target_of(tests, name, things)

        def one_try(octets: bytes) -> None:
            try:
                target(octets)
            except BaseException:
                keep(name, octets)
                raise

        protocol = tests.LISTENERS.get(name)
        seeds = [CORPUS / protocol] if protocol else list(CORPUS.iterdir())
        # The first folder takes what reaches new lines; nobody needs that afterwards.
        new = things.enter_context(tempfile.TemporaryDirectory())
        options = [f"-max_total_time={round(60 * minutes)}", f"-max_len={_LONGEST}"]
        options += [f"-timeout={_SLOWEST}", f"-artifact_prefix={new}/", new, *map(str, seeds)]
        atheris.Setup([sys.argv[0], *options], one_try)
        atheris.Fuzz()  # ends the process
    return 0


# --- what costs more than its length ------------------------------------------------------------


def linear(minutes: float, seed: int | None = None) -> int:
    """Look for input that costs a reader more than its length, for that long in all.

    Steps are counted and no time is judged. What happens within one step, such as a regular
    expression that backtracks, is bounded from outside: each try's process has a limit of
    processor time, and one that is ended by it has found something.
    """
    seed = random.randrange(2**32) if seed is None else seed
    print(f"Chances of seed {seed}.")
    end = time.monotonic() + 60 * minutes
    skip, found = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        trying = Path(folder, "trying")
        while time.monotonic() < end:
            arguments = (seed, skip, end, trying)
            child = multiprocessing.get_context("spawn").Process(target=search, args=arguments)
            child.start()
            child.join()
            skip, name, why, octets = read_try(trying)
            if child.exitcode == 0 and not why:
                break
            took = f"{len(octets):,} octets took more than {_PROCESSOR} s of processor time"
            why = why or took
            found += 1
            keep(name, octets)
            print(f"  {why}.")
    print(f"{skip:,} tries, {found} of them cost more than their length.")
    return int(found > 0)


def search(seed: int, skip: int, end: float, trying: Path) -> None:
    """Try one input after the other, but for the first ones, until one has found something."""
    targets = importlib.import_module("tests.fuzz_targets")
    most = importlib.import_module("tests.steps").LINEAR
    for number, (name, before, unit) in enumerate(guesses(targets, seed), 1):
        if number <= skip:
            continue
        if time.monotonic() > end:
            break
        read, large = targets.READERS[name], before + unit * (_LARGE // len(unit))
        write_try(trying, number, name, "", large)
        limit_processor_time()
        try:
            growth = targets.grows(read, before, unit, _SIZE)
            read(large)
        except Exception as error:  # whatever it is, it is what was looked for
            traceback.print_exc()
            why = f"it fails: {type(error).__name__}"
        else:
            slow = min(growth) > most
            why = f"twice the length costs {growth} times as much" if slow else ""
        write_try(trying, number, name, why, large)
        if why:
            break


def guesses(targets: Any, seed: int) -> Iterator[tuple[str, bytes, bytes]]:
    """Readers with what to read: first what is known to be worth it, then by chance."""
    names = list(targets.READERS)
    known = [(name, *pair) for name in names for pair in targets.tried(name)]
    yield from known
    chance = random.Random(seed)
    seeds = [file.read_bytes() for file in sorted(CORPUS.rglob("*")) if file.is_file()]
    while True:
        name, (_, before, unit) = chance.choice(names), chance.choice(known)
        if chance.random() < 0.5:
            text = chance.choice(seeds)
            start = chance.randrange(len(text) + 1)
            unit = text[start : start + chance.randint(1, 40)] or unit
        if chance.random() < 0.5:
            text = chance.choice(seeds)
            before = text[: chance.randrange(len(text) + 1)]
        if chance.random() < 0.3:
            unit += chance.choice(known)[2]
        yield name, before, unit


def limit_processor_time() -> None:
    """End this process if it computes on for too long from here, where the system can do that."""
    with contextlib.suppress(ImportError):
        resource = importlib.import_module("resource")
        used = resource.getrusage(resource.RUSAGE_SELF)
        soft = int(used.ru_utime + used.ru_stime) + _PROCESSOR
        resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def write_try(place: Path, number: int, name: str, why: str, octets: bytes) -> None:
    place.write_bytes("\n".join([str(number), name, why, ""]).encode() + octets)


def read_try(place: Path) -> tuple[int, str, str, bytes]:
    number, name, why, octets = place.read_bytes().split(b"\n", 3)
    return int(number), name.decode(), why.decode(), octets


if __name__ == "__main__":
    sys.exit(main())
