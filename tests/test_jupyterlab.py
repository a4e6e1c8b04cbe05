"""What a reader does first: `kit.py lab`, the first lesson in a real browser, run all cells."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.browser

IDLE = '.jp-Notebook-ExecutionIndicator[data-status="idle"]'


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The address, with its token, of a JupyterLab that `kit.py lab` has started."""
    lab = subprocess.Popen(
        [sys.executable, str(ROOT / "kit.py"), "lab", "--no-browser"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert lab.stdout is not None
    reader: threading.Thread | None = None
    try:
        for row in lab.stdout:
            if found := re.search(r"http://127\.0\.0\.1:\d+/\S*token=\S+", row):
                # Read on: a full pipe would stop the server.
                reader = threading.Thread(target=lab.stdout.read)
                reader.start()
                yield found[0]
                break
        else:
            pytest.fail("JupyterLab ended without telling its address")
    finally:
        lab.send_signal(signal.SIGINT)
        lab.wait(timeout=30)
        if reader is not None:
            reader.join(timeout=30)
        lab.stdout.close()


@pytest.mark.timeout(180)
def test_the_first_lesson_opens_and_runs(browser: Browser, address: str) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(address)
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
    page.wait_for_selector("h1:has-text('Start here: send a mail')", timeout=60_000)
    # Cells that are run before the kernel has answered would be forgotten.
    page.wait_for_selector(IDLE, timeout=60_000)
    # Empty outputs first, so that what appears was made by this kernel.
    page.get_by_role("menuitem", name="Edit").click()
    page.get_by_text("Clear Outputs of All Cells").click()
    page.wait_for_selector(".ml-view", state="detached")
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    page.wait_for_selector(".ml-view", timeout=60_000)
    assert page.locator(".jp-OutputArea-output[data-mime-type*=error]").count() == 0
    assert page.locator(".ml-view .chip").count() > 0
    page.close()
