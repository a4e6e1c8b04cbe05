"""Kernels that no other check can disturb; notebooks/conftest.py has nbval start such ones too.

A kernel is told its TCP ports before it binds them. Where other tests open sockets by the thousand
beside it, one of those ports is now and then taken by then, and the kernel dies.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from jupyter_client.manager import KernelManager

_folder = tempfile.TemporaryDirectory(prefix="k")  # short: a socket's path holds 100 characters


def kernel_manager(**options: Any) -> KernelManager:
    """A manager whose kernel listens at files of its own, or at ports where there is no such."""
    if os.name == "nt":
        return KernelManager(**options)
    place = tempfile.mkdtemp(prefix="", dir=_folder.name)
    return KernelManager(transport="ipc", ip=str(Path(place, "k")), **options)
