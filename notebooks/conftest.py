"""How the lessons are compared with their stored outputs: `pytest --nbval notebooks`.

A lesson runs in normal form, keeps what a reader reaches in memory, and sees nothing of the user's
own Jupyter; so its outputs are the same on every machine, network and Python.
"""

from __future__ import annotations

import os
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
