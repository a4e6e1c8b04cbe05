"""What listens on one port: a server's protocols, and what each of its connections may do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labserver.listeners import Listener

if TYPE_CHECKING:
    import ssl  # only its names: Python in a browser has none

    from labserver.network.recorder import Journal


@dataclass(frozen=True, slots=True)
class Service:
    """What a network is given to listen with, for one listener of one lab."""

    listener: Listener
    factory: Callable[[], asyncio.Protocol]
    """Makes the server's protocol of one new connection."""
    journal: Journal
    """Where its sessions are recorded."""
    tls: ssl.SSLContext | None = None
    """Set where TLS begins with the first octet."""
    most: int = 200
    """Connections open at once."""
    busy: bytes = b""
    """What one connection too many is told, line end included; empty where it couldn't read it."""
    most_octets: int = 1024 * 1024 * 1024
    """What one client may send in one session, TLS not counted."""
    too_much: bytes = b""
    """What a client that sends more is told, line end included."""
    hostname: str = ""
    """What the server calls itself."""

    @property
    def name(self) -> str:
        """The listener's."""
        return self.listener.name
