"""The faults that a switch can turn on: rules with a name, and what to watch for."""

from __future__ import annotations

from dataclasses import dataclass

from labserver.lab import Lab
from labserver.rules import Delay, Disconnect, Quota, Reply, Rule


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong on purpose."""

    name: str
    rule: Rule
    meaning: str
    """What the client makes of it."""


FAULTS = (
    Fault(
        "Refuse RCPT with 451 twice",
        Reply("RCPT", "451 4.7.1 Please try again later", times=2),
        "A refusal for now: the third try gets through.",
    ),
    Fault(
        "Drop the line in DATA",
        Disconnect("DATA", "inside", octets=100),
        "The connection ends inside the message, so the client has to send all of it again.",
    ),
    Fault(
        "Wait 10 s",
        Delay("MAIL", 10),
        "The server answers MAIL late, but well; a patient client gets its mail through.",
    ),
    Fault(
        "Quota reached",
        Quota(0),
        "Whoever sends has sent enough for today: each message is refused when it is complete.",
    ),
)


def is_on(lab: Lab, fault: Fault) -> bool:
    """Whether the lab follows its rule."""
    return fault.rule in lab.rules


def switch(lab: Lab, fault: Fault, on: bool) -> None:
    """Add its rule to those of the lab, or take it away. Turned on, it begins anew."""
    lab.rules = others = tuple(rule for rule in lab.rules if rule != fault.rule)
    if on:
        lab.rules = (*others, fault.rule)
