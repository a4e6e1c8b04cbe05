"""What Ctrl-C and a polite request to end (SIGTERM) do to the command line.

There is nothing to clean up until a lab is being made, and nothing once it is closed: then they
end the process at once, and without a traceback in the middle of an import. In between they
raise KeyboardInterrupt, so that the lab is closed; a second one doesn't wait for that.

This module is loaded before all others and needs little.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import NoReturn


class _Ending:
    """The handler of both signals."""

    def __init__(self) -> None:
        self.unwinds = False
        self.status = 0
        """The exit status of a process that ends at once."""

    def __call__(self, number: int, frame: object) -> None:
        if number != signal.SIGINT:
            # As Ctrl-C it also waits where something must not be torn apart.
            signal.raise_signal(signal.SIGINT)
            return
        if not self.unwinds:
            self._at_once()
        self.unwinds = False
        raise KeyboardInterrupt

    def _at_once(self) -> NoReturn:
        os._exit(self.status)


_ending = _Ending()


def install() -> None:
    """Have both signals end this process in good order from now on. May be called again.

    A shell that starts something in the background has it ignore Ctrl-C; not so this.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _ending)
        signal.signal(signal.SIGINT, _ending)


@contextlib.contextmanager
def unwinding() -> Iterator[None]:
    """Within this block the first of them raises KeyboardInterrupt."""
    _ending.unwinds = True
    try:
        yield
    finally:
        _ending.unwinds = False


def over(status: int) -> int:
    """Nothing is left to be done but to end with this status, which is returned."""
    _ending.status = status
    return status
