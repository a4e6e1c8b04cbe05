"""The SMTP server: aiosmtpd with the lab's rules on who may send what to whom.

Two roles: the mail exchanger (`smtp`, port 25's part) takes mail for the lab's own accounts from
anybody; submission (`submission`, `submissions`) takes mail from users who have logged in under
TLS, in their own name only. Neither ever passes mail on to another host. A lab with
`plaintext_login` lets users log in without TLS too, in both roles.

What is decided is here; `connection.py` is the dialogue with one client, `parameters.py` what may
stand behind a path.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import ssl
from datetime import datetime
from email.utils import format_datetime

from labserver.network.clock import Clock
from labserver.rules import Limits
from labserver.servers.accounts import Accounts, Guesses
from labserver.servers.delivery import DeliveryQueue
from labserver.servers.rulebook import Rulebook
from labserver.servers.smtp.connection import SmtpConnection, Transaction
from labserver.servers.smtp.parameters import RefusedError
from labserver.store import Delivery, NoRoom, StoreError

log = logging.getLogger("labserver")

_NEVER_RELAYS = "550 5.7.1 This lab never relays: it keeps mail for its own accounts only"


class SmtpServer:
    """Makes the protocol of each connection, and decides what it answers.

    `tls` is offered as STARTTLS, or is already on where `implicit_tls` is set; `submission`
    chooses the role. `plaintext_login` offers AUTH in both roles, without TLS too. Sizes and
    times come from `limits`.
    """

    def __init__(
        self,
        deliveries: DeliveryQueue,
        accounts: Accounts,
        guesses: Guesses,
        *,
        hostname: str,
        clock: Clock,
        limits: Limits,
        rulebook: Rulebook,
        tls: ssl.SSLContext | None = None,
        implicit_tls: bool = False,
        submission: bool = False,
        plaintext_login: bool = False,
    ) -> None:
        self.accounts = accounts
        self.guesses = guesses
        self.hostname = hostname
        self.limits = limits
        self.rulebook = rulebook
        self.tls = tls
        self.implicit_tls = implicit_tls
        self.submission = submission
        self.plaintext_login = plaintext_login
        self.offers_login = submission or plaintext_login
        self._deliveries = deliveries
        self._clock = clock

    def factory(self) -> asyncio.Protocol:
        """The protocol of one new connection."""
        return SmtpConnection(self)

    def sender(self, address: str, transaction: Transaction, login: str) -> str:
        """The reply to MAIL. `login` is the account of who has logged in, or empty.

        The null reverse-path is anybody's: receipts and other notices have it (RFC 5321 section
        4.5.5, RFC 8098 section 3).
        """
        if not address.isascii() and "SMTPUTF8" not in transaction.parameters:
            raise RefusedError("553 5.6.7 That address needs the parameter SMTPUTF8")
        if login and address and self.accounts.spelled(address) != login:
            raise RefusedError(f"553 5.7.1 You are logged in as {login} and send as that only")
        return "250 2.1.0 OK"

    def recipient(self, address: str, transaction: Transaction) -> tuple[str, str]:
        """The account whose mail that is, and the reply to RCPT."""
        if not address:
            raise RefusedError("553 5.1.3 <> is nobody; it stands in MAIL FROM only")
        if not address.isascii() and "SMTPUTF8" not in transaction.parameters:
            raise RefusedError("553 5.6.7 That address needs SMTPUTF8, said with MAIL")
        if len(transaction.recipients) >= self.limits.recipients:
            raise RefusedError("452 4.5.3 Too many recipients; send these now, the others later")
        account = self.accounts.of(address)
        if account is None:
            domain = address.rpartition("@")[2] if "@" in address else ""
            if not domain or self.accounts.is_local(domain):
                raise RefusedError(f"550 5.1.1 No such mailbox here: {address}")
            raise RefusedError(_NEVER_RELAYS)
        return account, "250 2.1.5 OK"

    async def deliver(self, transaction: Transaction, content: bytes, trace: str) -> str:
        """Store the message; the reply to its end. `trace` is what Received says of the client."""
        received = self._clock.now()
        head = (
            f"Return-Path: <{transaction.reverse_path}>\r\n"
            f"Received: from {trace}\r\n"
            f" by {self.hostname} with {transaction.protocol};\r\n"
            f" {_date(received.replace(microsecond=0))}\r\n"
        )
        delivery = Delivery(
            transaction.envelope(),
            head.encode("utf-8", "surrogateescape") + content,
            received,
            tuple(transaction.accounts),
        )
        try:
            number = await self._deliveries.deliver(delivery)
        except NoRoom as error:
            log.error("%s", error)
            return "452 4.3.1 There is no room for it on the disk; nothing of it is kept, try later"
        except StoreError as error:
            log.error("%s", error)
            return "451 4.3.0 The mail could not be stored; nothing of it is kept, try again later"
        return f"250 2.0.0 Stored as message {number}"

    def verify(self, who: str) -> str:
        """The reply to VRFY (RFC 5321 section 3.5): an address, or its part before the `@`."""
        who = self.accounts.spelled(who.strip("<> "))
        account = self.accounts.of(who)
        if account is not None and (account != who or account in self.accounts.passwords):
            return f"250 2.1.5 <{account}>"
        known = [a for a in self.accounts.passwords if who == a.rpartition("@")[0]]
        if len(known) == 1:
            return f"250 2.1.5 <{known[0]}>"
        if known:
            return "553 5.1.4 Several accounts are called that; ask for the whole address"
        if account is not None:
            return f"252 2.5.0 Any address is taken here; whether {who} is somebody isn't known"
        return f"550 5.1.1 No such mailbox here: {who}"


@functools.lru_cache(maxsize=8)
def _date(second: datetime) -> str:
    """As a header field writes it (RFC 5322 section 3.3)."""
    return format_datetime(second)
