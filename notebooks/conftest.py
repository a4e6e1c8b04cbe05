"""How the lessons are compared with their stored outputs: `pytest --nbval notebooks`.

A lesson runs in normal form, keeps what a reader reaches in memory, and sees nothing of the user's
own Jupyter; so its outputs are the same on every machine, network and Python.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

import pytest

from tests.kernels import kernel_manager

RULES = Path(__file__).parents[1] / "tests" / "nbval.cfg"


def pytest_configure(config: pytest.Config) -> None:
    if not (config.option.nbval or config.option.nbval_lax):
        return
    import nbval.kernel

    nbval.kernel.KernelManager = kernel_manager
    config.option.nbval_current_env = True
    config.option.nbval_sanitize_with = config.option.nbval_sanitize_with or str(RULES)
    os.environ |= {"LABSERVER_OUTPUT": "normal", "LABSERVER_PROGRESS": "memory"}
    folder = tempfile.TemporaryDirectory()
    config.add_cleanup(folder.cleanup)
    for owner in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
        os.environ[owner] = folder.name


IMAPLIB = re.compile(r"imaplib\.IMAP4\(|\bby_imap\b|\bby_idle\b|\bidling\b")
"""In a cell that shows or counts what imaplib said."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Only run, and don't compare, what differs by Python.

    From 3.14 on, imaplib takes the capabilities from the greeting and doesn't ask for them; the
    stored dialogues are those of an imaplib that asks.
    """
    for item in items:
        cell = getattr(item, "cell", None)
        if cell is not None and sys.version_info >= (3, 14) and IMAPLIB.search(cell.source):
            item.options["check"] = False  # type: ignore[attr-defined]
