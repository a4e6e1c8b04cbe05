"""Fuzz the servers and the parsers for as long as one likes.

    python -m benchmarks.fuzz                    by chance, a minute for each target
    python -m benchmarks.fuzz imap --minutes 30  one target only
    python -m benchmarks.fuzz mime --coverage    guided by coverage, with atheris

What upsets a target is written to `tests/corpus/found/`; move it from there to the folder of its
protocol, with a name that says what it is, and `tests/test_fuzz.py` plays it for ever.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
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


def main() -> int:
    description, _, examples = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fuzz",
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", nargs="?", help="a listener or a parser; without it, all of them")
    parser.add_argument("--minutes", type=float, default=1.0, help="for each target")
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
    names = [*tests.LISTENERS, *tests.PARSERS]
    if options.target not in (None, *names):
        parser.error(f"there is no target {options.target}; there are {', '.join(names)}.")
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


if __name__ == "__main__":
    sys.exit(main())
