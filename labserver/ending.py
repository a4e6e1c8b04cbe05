"""What Ctrl-C and a polite request to end (SIGTERM) do to the command line.

There is nothing to clean up until a lab is being made, and nothing once it is closed: then they
end the process at once, and without a traceback in the middle of an import. In between they
raise KeyboardInterrupt, so that the lab is closed; a second one doesn't wait for that.

This module is loaded before all others and needs little.
"""

from __future__ import annotations

import os
import signal


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
            os._exit(self.status)
        self.unwinds = False
        raise KeyboardInterrupt

    def __enter__(self) -> None:
        self.unwinds = True

    def __exit__(self, *_: object) -> None:
        self.unwinds = False


_ending = _Ending()


def install() -> None:
    """Have both signals end this process in good order from now on. May be called again.

    A shell that starts something in the background has it ignore Ctrl-C; not so this.
    """
    signal.signal(signal.SIGTERM, _ending)
    signal.signal(signal.SIGINT, _ending)


def unwinding() -> _Ending:
    """A context within which the first of them raises KeyboardInterrupt."""
    return _ending


def over(status: int) -> int:
    """Nothing is left to be done but to end with this status, which is returned."""
    _ending.status = status
    return status
