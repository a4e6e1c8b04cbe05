"""Every check of the project and their summary, run by `kit.py test`.

What is checked stands in the tests, in the lessons and in pyproject.toml; what runs where, what had
to be left out and why, is said here.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import kit

PYTHONS = [f"3.{minor}" for minor in range(kit.OLDEST[1], kit.NEWEST[1] + 1)]
# Looked for, but no fault where it is missing: few systems bring it yet.
WELCOME = ["3.14"]
NETWORKS = ["loopback", "inline"]


@dataclass(frozen=True)
class Check:
    """A program that ends with 0 if all is well.

    With `pytest` it is counted by its tests, else as one. It starts once the check named in
    `after` is done.
    """

    name: str
    command: list[str]
    folder: Path = kit.VENV
    network: str | None = None
    pytest: bool = False
    after: str | None = None


@dataclass(frozen=True)
class Outcome:
    name: str
    passed: int
    failed: int
    skipped: list[str]  # the reason of each skipped test
    seconds: float

    def __str__(self) -> str:
        state = "FAILED" if self.failed else "ok"
        counts = f"{self.passed} passed, {self.failed} failed, {len(self.skipped)} skipped"
        return f"  {state:7} {self.name:32} {counts:36} {self.seconds:4.0f} s"


# --- what is checked ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What will run here, what can't and why, and what is only worth a remark."""

    checks: list[Check]
    left_out: list[tuple[str, str]]
    remarks: list[str]


def quick_checks() -> Plan:
    """Lint, and the tests over the inline network that start no process (tests/conftest.py)."""
    tests = pytest("quick tests", kit.VENV, "-n2", "--dist=loadfile", "--quick")
    slow = "tests that start processes, open ports or need programs; lessons; book; other Pythons"
    return Plan([tests, *lint_checks()], [(slow, "--quick")], [])


def all_checks() -> Plan:
    """What can run here, the longest first, and what can't."""
    plan = Plan([], [], [])
    if kit.can_write(kit.ROOT / "_build"):
        plan.checks.append(Check("book", [sys.executable, "-m", "book.build"]))
    else:
        plan.left_out.append(("book", "this folder can't be written to"))
    # after the book, because a test may look at the built site
    tests = pytest("tests", kit.VENV, "-n2", "--dist=loadfile", after="book")
    plan.checks.extend([*lint_checks(), tests, *lesson_checks(kit.VENV, kit.THIS_PYTHON)])
    for version in PYTHONS:
        if version == kit.THIS_PYTHON:
            continue
        try:
            plan.checks.extend(other_python_checks(version))
        except kit.Problem as problem:
            if version in WELCOME and find_python(version) is None:
                plan.remarks.append(f"Python {version} is supported but not on this machine.")
            else:
                plan.left_out.append((f"Python {version}", str(problem)))
    return plan


def lint_checks() -> list[Check]:
    return [
        Check("types (mypy)", [sys.executable, "-m", "mypy"]),
        Check("lint (ruff)", [sys.executable, "-m", "ruff", "check"]),
        Check("format (ruff)", [sys.executable, "-m", "ruff", "format", "--check"]),
    ]


def pytest(
    name: str, folder: Path, *arguments: str, network: str | None = None, after: str | None = None
) -> Check:
    command = [str(kit.python_in(folder)), "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return Check(name, command, folder, network, pytest=True, after=after)


def lesson_checks(folder: Path, version: str) -> list[Check]:
    """The lessons' stored outputs against new ones, over each network."""
    nbval = ["--nbval", "--nbval-cell-timeout=60", "notebooks"]
    return [
        pytest(f"lessons ({network}), Python {version}", folder, *nbval, network=network)
        for network in NETWORKS
    ]


def other_python_checks(version: str) -> list[Check]:
    """The protocol tests and the lessons; raises kit.Problem if that Python can't be had."""
    interpreter = find_python(version)
    if interpreter is None:
        raise kit.Problem(f"there is no working python{version} on the PATH or in pyenv")
    folder = kit.ROOT / f".venv-{version}"
    kit.prepare(kit.TESTS, folder, interpreter, version)
    protocol = pytest(f"protocol tests, Python {version}", folder, "-m=protocol")
    return [protocol, *lesson_checks(folder, version)]


def find_python(version: str) -> str | None:
    """Return a Python of this version that runs and can make virtual environments."""
    name = f"python{version}"
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    places = [shutil.which(name), *map(str, pyenv.glob(f"versions/{version}.*/bin/{name}"))]
    for place in filter(None, places):
        # a name on the PATH may be pyenv's, for a version that is not there
        command = [place, "-c", "import ensurepip, sys, venv; print(sys.executable)"]
        probe = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
        if probe.returncode == 0:
            return probe.stdout.strip()
    return None


# --- running them -------------------------------------------------------------------------------


def run_all(checks: list[Check]) -> list[Outcome]:
    """Run the checks two at a time, and show how each ends."""
    kit.say(f"Running {len(checks)} checks, two at a time.")
    futures: dict[str | None, Future[Outcome]] = {}
    with tempfile.TemporaryDirectory() as reports:
        pool = ThreadPoolExecutor(max_workers=2)
        try:
            for check in checks:
                report = Path(reports, f"{len(futures)}.xml")
                futures[check.name] = pool.submit(run, check, report, futures.get(check.after))
            return [future.result() for future in futures.values()]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def run(check: Check, report: Path, before: Future[Outcome] | None) -> Outcome:
    if before is not None:
        before.result()
    kit.say(f"  ...     {check.name}")
    started = time.monotonic()
    command = [*check.command, f"--junitxml={report}"] if check.pytest else check.command
    # No check may touch what a reader has reached in the lessons. Outputs are in normal form where
    # they are compared with stored ones, which is where a network is named.
    env = kit.environment(
        check.folder,
        LABSERVER_NETWORK=check.network,
        LABSERVER_OUTPUT="normal" if check.network else None,
        LABSERVER_PROGRESS="memory",
    )
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = kit.start(command, env, **streams)
    output = process.communicate()[0].decode("utf-8", "replace")
    kit.RUNNING.discard(process)
    if report.exists():
        passed, failed, skipped = read_report(report)
        failed = failed or int(process.returncode != 0)
    else:
        failed = int(check.pytest or process.returncode != 0)
        passed, skipped = 1 - failed, []
    outcome = Outcome(check.name, passed, failed, skipped, time.monotonic() - started)
    kit.say(f"{output}\n{outcome}" if failed else str(outcome))
    return outcome


def read_report(report: Path) -> tuple[int, int, list[str]]:
    """Count a JUnit report: passed, failed, and the reason of each skipped test."""
    passed, failed, skipped = 0, 0, []
    for case in ElementTree.parse(report).iter("testcase"):
        skip = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
        elif skip is not None and skip.get("type") == "pytest.skip":
            skipped.append(skip.get("message") or "no reason given")
        else:
            passed += 1
    return passed, failed, skipped


def summary(
    outcomes: Iterable[Outcome], plan: Plan, strict: bool, seconds: float
) -> tuple[str, int]:
    """Return what ran, what was left out and why, and the totals; and the exit code."""
    outcomes = list(outcomes)
    lines = [f"\nWhat ran, in {seconds:.0f} s:", *map(str, outcomes)]
    reasons = Counter((o.name, reason) for o in outcomes for reason in o.skipped)
    reasons.update(plan.left_out)
    if reasons:
        lines.append("What was left out" + (", a failure with --all:" if strict else ":"))
    lines += [f"  {name}: {reason} ({count} x)" for (name, reason), count in reasons.items()]
    lines += plan.remarks
    passed, failed = sum(o.passed for o in outcomes), sum(o.failed for o in outcomes)
    skipped = reasons.total()
    if strict:
        failed, skipped = failed + skipped, 0
    lines.append(f"\n{passed} passed, {failed} failed, {skipped} skipped")
    return "\n".join(lines), int(failed > 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--all", action="store_true")
    options = parser.parse_args()
    started = time.monotonic()
    plan = quick_checks() if options.quick else all_checks()
    outcomes = run_all(plan.checks)
    text, code = summary(outcomes, plan, options.all, time.monotonic() - started)
    kit.say(text)
    return code


if __name__ == "__main__":
    sys.exit(kit.guard(main, child=True))
