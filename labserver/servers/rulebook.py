"""What the rules of one lab say together; all its servers ask it, once for each command.

It decides and remembers; it does nothing itself. Without rules nobody asks.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from labserver.rules import Action, Memory, Occasion, Rule, Sent


class Rulebook:
    """The rules of a lab, and what each of them remembers.

    Dice are thrown from `seed`, for each rule by itself: another rule changes nothing for it.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self.written: tuple[tuple[Rule, Memory], ...] = ()
        """The rules with their memories; servers ask only while there are any."""

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules, in their order."""
        return tuple(rule for rule, _ in self.written)

    @rules.setter
    def rules(self, rules: Iterable[Rule]) -> None:
        # One assignment at the end, so that another thread sees the old rules or the new ones.
        try:
            new = tuple(rules)
        except TypeError:
            new = (None,)  # type: ignore[assignment]
        for rule in new:
            if not isinstance(rule, Rule) or type(rule) is Rule:
                given = rules if rule is None else rule
                raise ValueError(
                    "Rules are a list of Reply, Delay, Throttle, Disconnect, Quota and Greylist "
                    f"values, not {given!r}."
                )
        # Equal values that stay keep what they remember; of several equal ones each has its own.
        old = self.written
        memories = (memory for _, memory in old)
        before = dict(zip(_numbered(rule for rule, _ in old), memories, strict=True))
        self.written = tuple(
            (one[0], before.get(one) or Memory(f"{self._seed} {one[1]} {one[0]!r}"))
            for one in _numbered(new)
        )

    def ask(self, occasion: Occasion) -> Action | None:
        """What is to be done on this occasion, or `None` if nothing is.

        Of the rules that answer or hang up the first that applies wins, and later ones aren't
        asked. Delays add up, wherever they stand; of throttles the slowest counts.
        """
        now = asyncio.get_running_loop().time()
        decided, delay, stall, pace = Action(), 0.0, 0.0, 0.0
        counting: list[tuple[Memory, Sent]] = []
        for rule, memory in self.written:
            if rule.decides and (decided.reply or decided.disconnect):
                continue
            action = rule.act(occasion, memory, now)
            if action is None:
                continue
            delay += action.delay
            stall += action.stall
            pace = min(pace or action.pace, action.pace or pace)
            if action.sent is not None:
                counting.append((memory, action.sent))
            if action.reply or action.disconnect:
                decided = action
        if decided.takes_nothing:
            counting.clear()
        for memory, sent in counting:
            memory.note(sent)
        whole = replace(decided, delay=delay, stall=stall, pace=pace, counting=tuple(counting))
        return whole if whole != Action() else None


def _numbered(rules: Iterable[Rule]) -> list[tuple[Rule, int]]:
    """Each rule with how many equal ones stand before it."""
    seen: Counter[Rule] = Counter()
    out = []
    for rule in rules:
        out.append((rule, seen[rule]))
        seen[rule] += 1
    return out
