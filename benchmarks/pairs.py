"""Two servers beside each other: runs in pairs, and what they come to."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pair:
    """Two runs one after the other, in messages per second."""

    ours: float
    theirs: float

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs


@dataclass(frozen=True, slots=True)
class Comparison:
    """This server beside one peer under one workload."""

    workload: str
    peer: str
    pairs: tuple[Pair, ...] = ()
    failure: str = ""
    """Why there are no pairs."""

    @property
    def ratio(self) -> float:
        """The median of the pairs' ratios."""
        return statistics.median(pair.ratio for pair in self.pairs)

    @property
    def range(self) -> tuple[float, float]:
        """The lowest and the highest of the pairs' ratios."""
        ratios = [pair.ratio for pair in self.pairs]
        return min(ratios), max(ratios)

    @property
    def rates(self) -> Pair:
        """The median rates of both."""
        ours = statistics.median(pair.ours for pair in self.pairs)
        return Pair(ours, statistics.median(pair.theirs for pair in self.pairs))


def run_pair(turn: int, ours: Callable[[], float], theirs: Callable[[], float]) -> Pair:
    """Run both; each gives its rate. Who is first changes from turn to turn."""
    if turn % 2 == 0:
        first = ours()
        return Pair(first, theirs())
    first = theirs()
    return Pair(ours(), first)
