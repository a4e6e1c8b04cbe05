"""What the servers of one lab are told, and who decides about mail and passwords.

`Setup` is what all servers of a lab share. A `Policy` decides about senders, recipients and
messages where a server is to decide otherwise than by itself; `log_in` decides about passwords,
in all three protocols.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING

from labserver.message import Envelope
from labserver.network.clock import Clock
from labserver.rules import Limits
from labserver.servers.accounts import LONGEST_WAIT, Accounts, Guesses
from labserver.servers.delivery import DeliveryQueue
from labserver.servers.maildrops import Maildrops
from labserver.servers.rulebook import Rulebook
from labserver.store import Store
from labserver.transcript import ProtocolName

if TYPE_CHECKING:
    import ssl  # only its names: Python in a browser has none

_HEADER_NAME = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}")
"""A client's name that may stand in a header field."""


NO_PLAINTEXT = "Plaintext authentication disallowed on non-secure (SSL/TLS) connections."
INTERNAL_ERROR = "Internal error occurred. Refer to server log for more information."
"""What POP3 and IMAP clients are told, in Dovecot's words."""


@dataclass(eq=False, slots=True)
class Client:
    """The other end of one connection, as far as its server knows it by now.

    It goes on changing: a `Policy` that remembers something takes it out.
    """

    protocol: ProtocolName
    address: str
    """Its network address."""
    pause: Callable[[float], Awaitable[bool]] = field(repr=False)
    """Lets so many seconds pass, which don't count as the client's silence; returns whether it
    still listens."""
    name: str = ""
    """What it called itself with HELO or EHLO, which anybody may."""
    tls: bool = False
    """Whether TLS is on."""
    login: str = ""
    """The account that has logged in."""
    transmission: str = "SMTP"
    """How the mail under way comes: `ESMTPSA`, … (RFC 3848, RFC 6531 section 4.3)."""
    failures: int = 0
    """Wrong passwords so far."""
    dismissed: bool = False
    """The last wrong password that is allowed has been said: the server says goodbye."""


class Policy:
    """Decides about mail where a server is to decide otherwise than by itself.

    Each method gives a reply, `"550 5.7.1 Members only"` or `"250 2.1.5 Ok"`, or `None`, which
    leaves the decision to the server. 421 also ends the session. A method may wait, and is never
    asked about what is no legal command. One that fails, or gives what is no such reply, is an
    error in the log, and the client is told to try again later.
    """

    async def sender(self, client: Client, path: str) -> str | None:
        """The reply to MAIL with that reverse-path, which is empty for the null reverse-path."""
        return None

    async def recipient(self, client: Client, path: str) -> str | None:
        """The reply to RCPT with that forward-path.

        A recipient that is accepted need not be one of the lab's accounts; see `message`.
        """
        return None

    async def message(self, client: Client, envelope: Envelope, content: bytes) -> str | None:
        """The reply to a whole message, asked before anything of it is stored.

        `content` is what the client sent, without this server's own fields (`received_field`). With
        a positive reply the policy answers for the recipients that are none of the lab's accounts:
        it relays the message, or distributes it. With `None` the message is kept for these as well,
        in a mailbox of their own.
        """
        return None


@dataclass(frozen=True, slots=True)
class Setup:
    """What all servers of one lab are told."""

    hostname: str
    """The servers' name, in ASCII."""
    accounts: Accounts
    store: Store
    limits: Limits
    clock: Clock
    rulebook: Rulebook
    guesses: Guesses
    tls: ssl.SSLContext | None = None
    """The servers' side of TLS; `None` where this Python has none."""
    policy: Policy = field(default_factory=Policy)
    plaintext_login: bool | None = None
    """Where passwords are taken without TLS: `True` everywhere, `False` nowhere, `None` in POP3 and
    IMAP."""
    deliveries: DeliveryQueue = field(init=False, repr=False)
    maildrops: Maildrops = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "deliveries", DeliveryQueue(self.store))
        object.__setattr__(self, "maildrops", Maildrops())


async def log_in(
    setup: Setup, client: Client, name: str, password: str, *, acting_for: str = ""
) -> str | None:
    """The account that a name and a password open, or `None`; returns after the wait that is due.

    Each wrong password on one connection is answered after twice the time of the one before, and
    never later than the client may be silent; the last that is allowed sets `client.dismissed`. To
    act for somebody else is a right that no account here has (RFC 4616 section 2). Raises
    `ConnectionAbortedError` where the client didn't wait for its password to be looked at.
    """
    limits = setup.limits
    wait = setup.guesses.wait(name)
    if wait and not await client.pause(wait):
        raise ConnectionAbortedError("The client didn't wait.")
    account = setup.accounts.log_in(name, password)
    if acting_for and setup.accounts.spelled(acting_for) != setup.accounts.spelled(name):
        account = None
    setup.guesses.checked(name, right=account is not None)
    if account is None:
        longest = min(limits.idle(client.protocol), LONGEST_WAIT)
        # The exponent is bounded: a lab may allow any number of failures.
        await client.pause(min(limits.login_delay * 2.0 ** min(client.failures, 99), longest))
        client.failures += 1
        client.dismissed = client.failures >= limits.login_failures
    return account


def received_field(client: Client, hostname: str, when: datetime) -> str:
    """The Received field that a server puts on top of a message (RFC 5321 section 4.4).

    `hostname` is the server's. Ends in CRLF.
    """
    name = client.name if _HEADER_NAME.fullmatch(client.name) else "unknown"
    return (
        f"Received: from {name} ([{client.address}])\r\n"
        f" by {hostname} with {client.transmission};\r\n"
        f" {_date(when.replace(microsecond=0))}\r\n"
    )


@functools.lru_cache(maxsize=8)
def _date(second: datetime) -> str:
    """As a header field writes it (RFC 5322 section 3.3)."""
    return format_datetime(second)
