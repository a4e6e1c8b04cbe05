"""Switches for what goes wrong on purpose: each puts one rule into the lab's rules."""

from __future__ import annotations

from typing import Any

from labserver.lab import Lab
from labserver.rules import Delay, Disconnect, Greylist, Quota, Reply, Rule, Throttle

SWITCHES: dict[str, tuple[str, Rule]] = {
    "later": (
        "Refuse the next two recipients for now",
        Reply("RCPT", "451 4.7.1 Not now, please try again later", times=2),
    ),
    "unknown": ("Know no recipient", Reply("RCPT", "550 5.1.1 No such mailbox here")),
    "greylist": ("Greylist strangers for 30 seconds", Greylist(30)),
    "content": (
        "Refuse every message when it is complete",
        Reply("end of data", "554 5.7.1 This looks like spam"),
    ),
    "quota": ("Let the daily quota be reached", Quota(0)),
    "inside": ("Drop the line inside DATA", Disconnect("DATA", "inside")),
    "twice": (
        "Store the message, then drop the line before saying so",
        Disconnect("end of data", "after"),
    ),
    "wait": ("Wait 10 seconds before every command", Delay("*", 10)),
    "slow": ("Pass content at 1,000 octets a second", Throttle(1000)),
    "login": ("Refuse every SMTP login", Reply("AUTH", "535 5.7.8 Wrong name or password")),
    "greeting": (
        "Turn SMTP clients away at the door",
        Reply("greeting", "421 4.3.2 Closed for repairs, come back later"),
    ),
}
"""By name: what is on the switch, and its rule."""


def state(lab: Lab) -> dict[str, Any]:
    """Which switches are on, and all rules in force, for JSON."""
    in_force = lab.rules
    return {
        "switches": [
            {"name": name, "title": title, "rule": repr(rule), "on": rule in in_force}
            for name, (title, rule) in SWITCHES.items()
        ],
        "rules": [repr(rule) for rule in in_force],
    }


def switch(lab: Lab, name: str, on: bool) -> None:
    """Turn one on or off; other rules stay as they are. Raises `KeyError`."""
    _, rule = SWITCHES[name]
    others = [one for one in lab.rules if one != rule]
    # The first that answers wins, so what was just switched on stands first.
    lab.rules = [rule, *others] if on else others
