"""How bytes travel: the interface that every network has, and which network a lab gets.

- `loopback.py`: real TCP on 127.0.0.1, for any mail program on this machine.
- `inline.py`: no sockets and no threads, virtual time; also runs in a browser.
- `service.py`: what listens on one port.
- `connection.py`: one connection, on both; `recorder.py`: records what is said on it.
- `clock.py`: what time it is.
"""

from __future__ import annotations

import os
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from labserver.network.clock import Clock
from labserver.network.service import Service

T = TypeVar("T")


class NetworkError(Exception):
    """A network can't do what was asked; the text is one sentence for people."""


class PortTaken(NetworkError):
    """A port that a listener was to have can't be had."""

    def __init__(self, name: str, port: int, why: str) -> None:
        self.name = name
        """The listener's."""
        self.what = f"Port {port} ({name}) is {why} on this machine"
        super().__init__(f"{self.what}; stop what uses it, or let the lab take any free ports.")


class Address(NamedTuple):
    """Where something listens, as `smtplib.SMTP(*address)` wants it."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Abilities:
    """What differs between networks. `"tls" in lab.can` asks the same as `lab.can.tls`."""

    tls: bool
    """TLS can be had (Python in a browser has none)."""
    threads: bool
    """Several threads may talk to the lab at once."""
    sockets: bool
    """Other programs on this machine can connect."""

    def __contains__(self, name: object) -> bool:
        return name in ("tls", "threads", "sockets") and bool(getattr(self, str(name)))


class OpenPort(ABC):
    """A port that something listens on."""

    address: Address

    @abstractmethod
    def close(self) -> None:
        """Stop listening and break off its connections. To be called on the network's loop."""


class Network(ABC):
    """What carries bytes between clients and the servers of one or more labs."""

    clock: Clock
    can: Abilities

    @abstractmethod
    def listen(self, service: Service, port: int = 0) -> OpenPort:
        """Listen on this machine; `port` 0 means any that is free. Raises `NetworkError`."""

    @abstractmethod
    def connect(self, address: tuple[str, int], timeout: float | None = 10.0) -> Any:
        """A client's blocking socket to one of the listeners. Raises `OSError`."""

    @abstractmethod
    def run(self, function: Callable[[], T]) -> T:
        """Call a function where the servers run, and return what it returns."""

    @abstractmethod
    def settle(self) -> None:
        """Let the servers read and answer all that has already been sent to them."""

    @abstractmethod
    def wait(self, news: threading.Event, seconds: float) -> bool:
        """Let time pass until `news` is set, for at most so many seconds; return whether it is.

        On a virtual clock the time passes in a moment.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop for good: all listeners, all connections. May be called again."""


def choose() -> Network:
    """The network a lab gets when it is given none.

    The environment variable LABSERVER_NETWORK names it (`loopback` or `inline`); without it,
    loopback, or inline where there are no sockets. Raises `NetworkError` for any other name.
    """
    name = os.environ.get("LABSERVER_NETWORK", "").strip().lower()
    if not name:
        name = "inline" if sys.platform == "emscripten" else "loopback"
    if name == "inline":
        from labserver.network.inline import InlineNetwork

        return InlineNetwork()
    if name == "loopback":
        from labserver.network.loopback import LoopbackNetwork

        return LoopbackNetwork()
    raise NetworkError(f"LABSERVER_NETWORK is {name!r}; set it to loopback or inline.")
