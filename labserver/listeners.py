"""What a lab listens on: each listener's protocol, role and usual port, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labserver.transcript import ProtocolName


@dataclass(frozen=True, slots=True)
class Listener:
    """One way into a mail server."""

    name: str
    """`smtp`, `submission`, …"""
    protocol: ProtocolName
    port: int
    """The usual TCP port, as IANA lists it."""
    implicit: bool = False
    """TLS begins with the first octet (RFC 8314 section 3)."""
    submission: bool = False
    """It takes new mail from users who have logged in (RFC 6409)."""


TABLE: Mapping[str, Listener] = MappingProxyType(
    {
        listener.name: listener
        for listener in (
            Listener("smtp", "SMTP", 25),
            Listener("submission", "SMTP", 587, submission=True),
            Listener("submissions", "SMTP", 465, implicit=True, submission=True),
            Listener("pop3", "POP3", 110),
            Listener("pop3s", "POP3", 995, implicit=True),
            Listener("imap", "IMAP", 143),
            Listener("imaps", "IMAP", 993, implicit=True),
        )
    }
)
"""All listeners by name."""

LISTENERS = tuple(TABLE)
"""Their names."""


def spoken_on(protocol: ProtocolName) -> tuple[str, ...]:
    """The names of the listeners that speak that protocol, the plainest first."""
    return tuple(one.name for one in TABLE.values() if one.protocol == protocol)
