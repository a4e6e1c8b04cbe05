"""On what it was measured: the machine, its disk's own time to synchronise, and the versions."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_APPENDS = 200
_OCTETS = b"x" * 4096


@dataclass(frozen=True, slots=True)
class Sync:
    """What it costs to have four kilobytes more of a file on disk, in seconds."""

    call: str
    """The system's call for it."""
    median: float
    slow: float
    """Of twenty, one takes longer than this."""


@dataclass(frozen=True, slots=True)
class Machine:
    """All of it as text, in the order in which it is told."""

    facts: dict[str, str]
    sync: Sync


def look(folder: Path) -> Machine:
    """What this machine is; the disk is the one that holds `folder`."""
    facts = {
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "memory": memory(),
        "system": f"{system()}, kernel {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "SQLite": sqlite3.sqlite_version,
        "measured on": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    }
    return Machine(facts, sync(folder))


def sync(folder: Path, appends: int = _APPENDS) -> Sync:
    """Append to a file there, time and again, and wait for the disk each time."""
    # Elsewhere than on Linux there is only the call that also writes the file's times.
    name = "fdatasync" if hasattr(os, "fdatasync") else "fsync"
    call = getattr(os, name)
    took = []
    with (folder / "sync").open("wb", buffering=0) as file:
        for _ in range(appends):
            file.write(_OCTETS)
            began = time.perf_counter()
            call(file.fileno())
            took.append(time.perf_counter() - began)
    return Sync(name, statistics.median(took), statistics.quantiles(took, n=20)[-1])


def processor() -> str:
    try:
        rows = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    model = (row.partition(":")[2].strip() for row in rows if row.startswith("model name"))
    return next(model, platform.machine())


def memory() -> str:
    try:
        octets = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return "unknown"
    return f"{octets / 2**30:.0f} GiB"


def system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.platform() or sys.platform
