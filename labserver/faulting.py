"""The faults that a switch can turn on: in a notebook's form, and on the page of `serve --ui`."""

from __future__ import annotations

from dataclasses import dataclass

from labserver.lab import Lab
from labserver.rules import Delay, Disconnect, Greylist, Quota, Reply, Rule, Throttle


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
    Fault(
        "Know no recipient",
        Reply(
            "RCPT", "550 5.1.1 Recipient address rejected: User unknown in local recipient table"
        ),
        "A refusal for good: trying again won't help.",
    ),
    Fault(
        "Greylist strangers for 30 seconds",
        Greylist(30),
        "Who sends for the first time is put off; who comes back after that gets through.",
    ),
    Fault(
        "Refuse every message when it is complete",
        Reply("end of data", "554 5.7.1 This looks like spam"),
        "All of the message is sent, and then it isn't taken.",
    ),
    Fault(
        "Store the message, then drop the line",
        Disconnect("end of data", "after"),
        "The client never hears 250, sends again, and the message is there twice.",
    ),
    Fault(
        "Wait 10 s before every command",
        Delay("*", 10),
        "All is slow, in SMTP, POP3 and IMAP; an impatient client gives up.",
    ),
    Fault(
        "Pass content at 1,000 octets a second",
        Throttle(1000),
        "Messages creep through the line, in both directions.",
    ),
    Fault(
        "Refuse every SMTP login",
        Reply("AUTH", "535 5.7.8 Authentication credentials invalid"),
        "The right password is refused like a wrong one.",
    ),
    Fault(
        "Turn SMTP clients away at the door",
        Reply("greeting", "421 4.3.2 Closed for repairs, come back later"),
        "The server greets with a refusal and hangs up.",
    ),
)


def is_on(lab: Lab, fault: Fault) -> bool:
    """Whether the lab follows its rule."""
    return fault.rule in lab.rules


def switch(lab: Lab, fault: Fault, on: bool) -> None:
    """Add its rule to those of the lab, or take it away. Turned on, it begins anew."""
    # Taken away first, for a rule that stays keeps what it remembers.
    lab.rules = others = tuple(rule for rule in lab.rules if rule != fault.rule)
    if on:
        # The first rule that answers wins, so what was just turned on stands first.
        lab.rules = (fault.rule, *others)
