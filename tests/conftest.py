"""What tests share: a lab on each of the two networks, and a browser."""

from __future__ import annotations

import gc
import hashlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labserver import Lab
from labserver.network import Network
from labserver.network.inline import InlineNetwork
from labserver.network.loopback import LoopbackNetwork

ROOT = Path(__file__).parents[1]
AXE = ROOT / "tests" / "axe"


SLOW = {"browser", "long", "process", "pyodide", "realclient"}
"""Marks of what `--quick` leaves out."""
STARTS = {"os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "socket.bind", "subprocess.Popen"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick", action="store_true", help="only what starts no process and opens no port"
    )


def pytest_configure(config: pytest.Config) -> None:
    hands_out = config.getoption("numprocesses", None) and not hasattr(config, "workerinput")
    if config.getoption("quick") and not hands_out:  # xdist starts workers, they run the tests
        sys.addaudithook(start_nothing)


def start_nothing(event: str, arguments: tuple[object, ...]) -> None:
    """Holds `--quick` to its word, whatever code a test runs."""
    if event in STARTS:
        raise PermissionError(
            f"{event} in a quick test: mark the test `process`, for it starts something."
        )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("quick"):
        return
    quick = [item for item in items if is_quick(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in {*quick}])
    items[:] = quick


def is_quick(item: pytest.Item) -> bool:
    """Whether a test keeps to the inline network and to this process."""
    network = getattr(item, "callspec", None) and item.callspec.params.get("network")
    return network != "loopback" and SLOW.isdisjoint(mark.name for mark in item.iter_markers())


def pytest_collection_finish() -> None:
    """Let each of the many collections in tests look at what came since, not at every module."""
    gc.collect()
    gc.freeze()


@pytest.fixture(params=["loopback", "inline"])
def network(request: pytest.FixtureRequest) -> Iterator[Network]:
    """Each of the two networks in turn."""
    made = LoopbackNetwork() if request.param == "loopback" else InlineNetwork()
    yield made
    made.close()


@pytest.fixture
def lab(network: Network) -> Iterator[Lab]:
    """A lab with its default accounts, on each of the two networks in turn."""
    with Lab(network=network) as made:
        yield made


@pytest.fixture(scope="module")
def axe() -> str:
    """The source of axe-core, which npm brings; it stays in `_build/axe`."""
    from test_pyodide import fetch, program

    npm = program("npm")
    pin = hashlib.sha256((AXE / "package-lock.json").read_bytes()).hexdigest()[:16]
    kept = ROOT / "_build" / "axe" / pin
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as unfinished:
            new = Path(unfinished, "fetched")
            new.mkdir()
            for name in ("package.json", "package-lock.json"):
                shutil.copy(AXE / name, new)
            quick = ["--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--ignore-scripts"]
            fetch("npm", npm, "ci", "--no-audit", "--no-fund", *quick, folder=new)
            try:
                new.rename(kept)
            except OSError:
                if not kept.exists():  # else another process was quicker
                    raise
    return (kept / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The system's Chromium, which speaks to nobody of its own accord."""
    from playwright.sync_api import sync_playwright

    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("Chromium is not installed")
    quiet = "background-networking component-update sync quic extensions default-apps".split()
    arguments = ["--no-sandbox", "--no-first-run", *(f"--disable-{what}" for what in quiet)]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=arguments)
        yield chromium
        chromium.close()
