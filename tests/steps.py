"""How much work a call does, counted and not timed: the same on a slow machine and on a busy one.

A step is a call of a Python function or of one written in C. What happens within one step isn't
seen, such as a regular expression that backtracks; a test that hangs on one fails by its time-out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType


def steps(call: Callable[[], object]) -> int:
    """How many functions are called until `call` returns, in this thread."""
    count = 0

    def note(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        if event in ("call", "c_call"):
            count += 1

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(before)
    return count


def growth(call: Callable[[int], object], size: int) -> float:
    """What twice the size costs, in times of what `size` costs: about 2 where that is linear.

    The first, uncounted call is there for what is only done once: imports, tables, caches.
    """
    call(size // 8 or 1)
    small, large = steps(lambda: call(size)), steps(lambda: call(2 * size))
    return large / max(small, 1)


LINEAR = 2.3
"""The most that `growth` may be; a product of two sizes would be 4."""
