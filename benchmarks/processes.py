"""Other programs while the benchmarks run: none outlives them, however they end.

Each is known to kit.py from the moment it exists, which ends what is left by its id.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from dataclasses import dataclass
from typing import IO, Any

import kit
from labserver.network import interrupts

END_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Done:
    """How a program ended, and all that it said."""

    returncode: int
    stdout: str
    stderr: str


def start(
    arguments: list[str],
    *,
    stdin: int = subprocess.DEVNULL,
    stdout: int | IO[Any] = subprocess.PIPE,
    stderr: int | IO[Any] = subprocess.PIPE,
) -> subprocess.Popen[str]:
    """A child. Raises `OSError` where there is no such program."""
    # An interrupt while a child is being made would leave a child that nobody knows.
    with interrupts.deferred():
        process = subprocess.Popen(
            arguments,
            cwd=kit.ROOT,
            env=environment(),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            encoding="utf-8",
            errors="replace",
        )
        kit.RUNNING.add(process)
    return process


def environment() -> dict[str, str]:
    """This process's own, without what would change a peer; labserver is the one of this folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LABSERVER_")}
    return kept | {"PYTHONPATH": str(kit.ROOT)}


def run(arguments: list[str]) -> Done:
    """Run a program to its end. Raises `OSError` where there is no such program."""
    process = start(arguments)
    try:
        out, err = process.communicate()
    except BaseException:
        process.kill()
        process.communicate()
        raise
    finally:
        kit.RUNNING.discard(process)
    return Done(process.returncode, out, err)


def end(process: subprocess.Popen[str]) -> None:
    """Ask it to end, and make it end where it doesn't."""
    with contextlib.suppress(OSError):
        if process.stdin is not None:
            process.stdin.close()
        else:
            process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
    kit.RUNNING.discard(process)


def end_all() -> None:
    """End every child that is left."""
    for process in tuple(kit.RUNNING):
        end(process)


def last_line(text: str) -> str:
    """What a program said last, which mostly is why it failed."""
    return (text.strip().splitlines() or ["no reason was given"])[-1]
