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
import logging

from labserver.listeners import Listener
from labserver.rules import smtp_reply
from labserver.servers.setup import Client, Setup, received_field
from labserver.servers.smtp.connection import SmtpConnection, Transaction
from labserver.servers.smtp.parameters import RefusedError
from labserver.store import Delivery, NoRoom, StoreError

log = logging.getLogger("labserver")

_UNKNOWN_USER = "Recipient address rejected: User unknown in local recipient table"
_UTF8_UNDECLARED = "553 5.6.7 Must declare SMTPUTF8 to send unicode address"


class SmtpServer:
    """Makes the protocol of each connection, and decides what it answers.

    TLS is offered as STARTTLS, or is on from the first octet where the listener is `implicit`; its
    `submission` chooses the role. Where the setup's `plaintext_login` is true, AUTH is offered in
    both roles, without TLS too.
    """

    def __init__(self, setup: Setup, listener: Listener) -> None:
        self.setup, self.listener = setup, listener
        self.plaintext_login = setup.plaintext_login is True
        self.offers_login = listener.submission or self.plaintext_login

    def factory(self) -> asyncio.Protocol:
        """The protocol of one new connection."""
        return SmtpConnection(self)

    async def sender(self, client: Client, address: str, transaction: Transaction) -> str:
        """The reply to MAIL. Raises `RefusedError`.

        The null reverse-path is anybody's: receipts and other notices have it (RFC 5321 section
        4.5.5, RFC 8098 section 3).
        """
        if not address.isascii() and "SMTPUTF8" not in transaction.parameters:
            raise RefusedError(_UTF8_UNDECLARED)
        if reply := _decided(await self.setup.policy.sender(client, address)):
            return reply
        login = client.login
        if login and address and self.setup.accounts.spelled(address) != login:
            why = f"Sender address rejected: not owned by user {login}"
            raise RefusedError(f"553 5.7.1 <{address}>: {why}")
        return "250 2.1.0 OK"

    async def recipient(
        self, client: Client, address: str, transaction: Transaction
    ) -> tuple[str | None, str]:
        """The account whose mail that is, `None` where it is no account's, and the reply to RCPT.

        Raises `RefusedError`.
        """
        if not address:
            raise RefusedError("553 5.1.3 Bad recipient address syntax")
        if not address.isascii() and "SMTPUTF8" not in transaction.parameters:
            raise RefusedError(_UTF8_UNDECLARED)
        if len(transaction.recipients) >= self.setup.limits.recipients:
            raise RefusedError("452 4.5.3 Error: too many recipients")
        accounts = self.setup.accounts
        account = accounts.of(address)
        if reply := _decided(await self.setup.policy.recipient(client, address)):
            return account, reply
        if account is None:
            domain = address.rpartition("@")[2] if "@" in address else ""
            if not domain or accounts.is_local(domain):
                raise RefusedError(f"550 5.1.1 <{address}>: {_UNKNOWN_USER}")
            raise RefusedError(f"550 5.7.1 <{address}>: Relay access denied")
        return account, "250 2.1.5 OK"

    async def deliver(self, client: Client, transaction: Transaction, content: bytes) -> str:
        """Store the message; the reply to its end. Raises `RefusedError`.

        What the policy answers for is not stored here.
        """
        envelope, setup = transaction.envelope(), self.setup
        decided = _decided(await setup.policy.message(client, envelope, content))
        accounts = [
            account or setup.accounts.spelled(address)
            for account, address in zip(transaction.accounts, envelope.recipients, strict=True)
            if account or not decided
        ]
        if not accounts:
            return decided
        received = setup.clock.now()
        head = f"Return-Path: <{transaction.reverse_path}>\r\n"
        head += received_field(client, setup.hostname, received)
        octets = head.encode("utf-8", "surrogateescape") + content
        try:
            number = await setup.deliveries.deliver(
                Delivery(envelope, octets, received, tuple(accounts))
            )
        except NoRoom as error:
            log.error("%s", error)
            return "452 4.3.1 Insufficient system storage"
        except StoreError as error:
            log.error("%s", error)
            return "451 4.3.0 Error: queue file write error"
        return decided or f"250 2.0.0 Stored as message {number}"

    def verify(self, who: str) -> str:
        """The reply to VRFY (RFC 5321 section 3.5): an address, or its part before the `@`."""
        accounts = self.setup.accounts
        who = accounts.spelled(who.strip("<> "))
        account = accounts.of(who)
        if account is not None and (account != who or account in accounts.passwords):
            return f"250 2.1.5 <{account}>"
        known = [a for a in accounts.passwords if who == a.rpartition("@")[0]]
        if len(known) == 1:
            return f"250 2.1.5 <{known[0]}>"
        if known:
            return "553 5.1.4 User ambiguous"
        if account is not None:
            return "252 2.5.0 Cannot VRFY user, but will accept message and attempt delivery"
        return f"550 5.1.1 <{who}>: {_UNKNOWN_USER}"


def _decided(reply: str | None) -> str:
    """The positive reply that a policy gives, empty where it leaves the decision to the server.

    Raises `RefusedError` for a negative one, `ValueError` for what is no reply.
    """
    if reply is None:
        return ""
    legal = smtp_reply(reply)
    if legal[0] in "45":
        raise RefusedError(legal)
    if legal[0] != "2":
        raise ValueError(f"{reply!r} neither accepts nor refuses; '250 2.1.5 Ok' does.")
    return legal
