"""The SMTP server: aiosmtpd with the lab's rules on who may send what to whom.

Two roles: the mail exchanger (`smtp`, port 25's part) takes mail for the lab's own accounts from
anybody; submission (`submission`, `submissions`) takes mail from users who have logged in under
TLS, in their own name only. Neither ever passes mail on to another host.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import re
import ssl
from collections.abc import Awaitable, Sequence
from email.utils import format_datetime
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword, syntax
from aiosmtpd.smtp import Envelope as SmtpEnvelope
from aiosmtpd.smtp import Session as SmtpSession

from labserver.message import Envelope
from labserver.network.clock import Clock
from labserver.rules import Limits
from labserver.servers.accounts import Accounts
from labserver.servers.addresses import read_path
from labserver.servers.delivery import DeliveryQueue
from labserver.store import Delivery, StoreError

log = logging.getLogger("labserver")
# aiosmtpd tells of each odd client; in a notebook that would be printed under the reader's cell.
logging.getLogger("mail.log").addHandler(logging.NullHandler())

_NULL_PATH = "<>"
_NEVER_RELAYS = "550 5.7.1 This lab never relays: it keeps mail for its own accounts only"
_HOST_NAME = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}")

# RFC 2034: what a reply without an enhanced status code of its own gets (codes: RFC 3463).
_ENHANCED = {
    "211": "2.0.0",
    "214": "2.0.0",
    "221": "2.0.0",
    "250": "2.0.0",
    "252": "2.5.0",
    "421": "4.3.0",
    "450": "4.2.0",
    "451": "4.3.0",
    "452": "4.3.1",
    "454": "4.7.0",
    "500": "5.5.2",
    "501": "5.5.4",
    "502": "5.5.1",
    "503": "5.5.1",
    "504": "5.5.4",
    "530": "5.7.0",
    "550": "5.1.1",
    "552": "5.3.4",
    "553": "5.1.3",
    "554": "5.0.0",
    "555": "5.5.4",
}
_OWN_CODE = re.compile(r"\d{3}[ -]\d\.\d{1,3}\.\d{1,3} ")


class SmtpServer:
    """Makes the protocol of each connection.

    `tls` is offered as STARTTLS, or is already on where `implicit_tls` is set; `submission`
    chooses the role. Sizes and times come from `limits`.
    """

    def __init__(
        self,
        deliveries: DeliveryQueue,
        accounts: Accounts,
        *,
        hostname: str,
        clock: Clock,
        limits: Limits,
        tls: ssl.SSLContext | None = None,
        implicit_tls: bool = False,
        submission: bool = False,
    ) -> None:
        self.accounts = accounts
        self.hostname = hostname
        self.limits = limits
        self.tls = tls
        self.implicit_tls = implicit_tls
        self.submission = submission
        self._deliveries = deliveries
        self._clock = clock

    def factory(self) -> asyncio.Protocol:
        """The protocol of one new connection."""
        return _SmtpConnection(self)

    # -- aiosmtpd's hooks: what is decided at each command

    async def handle_EHLO(
        self,
        server: SMTP,
        session: SmtpSession,
        envelope: SmtpEnvelope,
        hostname: str,
        lines: list[str],
    ) -> list[str]:
        session.host_name = hostname
        if not self.submission:
            lines = [line for line in lines if not line.startswith("250-AUTH")]
        return [*lines[:-1], "250-PIPELINING", "250-ENHANCEDSTATUSCODES", lines[-1]]

    async def handle_MAIL(
        self,
        server: SMTP,
        session: SmtpSession,
        envelope: SmtpEnvelope,
        address: str,
        options: list[str],
    ) -> str:
        if self.submission and address.casefold() != session.auth_data:
            return f"553 5.7.1 You are logged in as {session.auth_data} and send as that only"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 OK"

    async def handle_RCPT(
        self,
        server: SMTP,
        session: SmtpSession,
        envelope: SmtpEnvelope,
        address: str,
        options: list[str],
    ) -> str:
        if address == _NULL_PATH:
            return "553 5.1.3 <> is nobody; it stands in MAIL FROM only"
        if len(envelope.rcpt_tos) >= self.limits.recipients:
            return "452 4.5.3 Too many recipients; send these now, the others after them"
        if not self.accounts.has(address):
            domain = address.rpartition("@")[2] if "@" in address else ""
            local = not domain or self.accounts.is_local(domain)
            return f"550 5.1.1 No such mailbox here: {address}" if local else _NEVER_RELAYS
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, session: SmtpSession, envelope: SmtpEnvelope) -> str:
        reverse_path = envelope.mail_from or ""
        if reverse_path == _NULL_PATH:
            reverse_path = ""
        content = envelope.original_content
        assert content is not None
        received = self._clock.now()
        peer: Any = session.peer
        trace = (
            f"Return-Path: <{reverse_path}>\r\n"
            f"Received: from {_host_name(session)} ([{peer[0]}])\r\n"
            f" by {self.hostname} with {_with(session)};\r\n"
            f" {format_datetime(received)}\r\n"
        )
        delivery = Delivery(
            Envelope(reverse_path, tuple(envelope.rcpt_tos)),
            trace.encode("utf-8", "surrogateescape") + content,
            received,
        )
        try:
            number = await self._deliveries.deliver(delivery)
        except StoreError as error:
            log.error("%s", error)
            return "451 4.3.0 The mail could not be stored; nothing of it is kept, try again later"
        return f"250 2.0.0 Stored as message {number}"

    async def handle_exception(self, error: Exception) -> str:
        log.error("SMTP server", exc_info=error)
        return "451 4.3.0 The server failed at this command; try again later"

    # -- who is who

    def authenticate(
        self,
        server: SMTP,
        session: SmtpSession,
        envelope: SmtpEnvelope,
        mechanism: str,
        data: LoginPassword,
    ) -> AuthResult:
        name = data.login.decode("utf-8", "surrogateescape")
        address = self.accounts.log_in(name, data.password.decode("utf-8", "surrogateescape"))
        return AuthResult(success=address is not None, handled=False, auth_data=address)

    def verify(self, who: str) -> str:
        """The reply to VRFY (RFC 5321 section 3.5): an address, or its part before the `@`."""
        who = who.strip("<> ").casefold()
        known = [a for a in self.accounts.passwords if who in (a, a.rpartition("@")[0])]
        if len(known) == 1:
            return f"250 2.1.5 <{known[0]}>"
        if known:
            return "553 5.1.4 Several accounts are called that; ask for the whole address"
        return f"550 5.1.1 No such mailbox here: {who}"


def _host_name(session: SmtpSession) -> str:
    """The name the client gave, where it may stand in a header field."""
    name = session.host_name or ""
    return name if _HOST_NAME.fullmatch(name) else "unknown"


def _with(session: SmtpSession) -> str:
    """The protocol in a Received field (RFC 3848)."""
    if not session.extended_smtp:
        return "SMTP"
    return "ESMTP" + ("S" if session.ssl else "") + ("A" if session.authenticated else "")


class _SmtpConnection(SMTP):
    """One connection: aiosmtpd's, corrected where it differs from the RFCs."""

    def __init__(self, server: SmtpServer) -> None:
        # aiosmtpd keeps these for the whole class, so that connections change each other's.
        self.command_size_limits = collections.defaultdict(lambda: self.command_size_limit)
        self._server = server
        self._list: list[str] | None = None
        """The lines of the reply to EHLO so far; they leave together."""
        self._heard = 0.0
        super().__init__(
            server,
            hostname=server.hostname,
            ident="ESMTP ready",
            data_size_limit=server.limits.message,
            enable_SMTPUTF8=True,
            tls_context=server.tls,
            require_starttls=server.submission,
            auth_required=server.submission,
            authenticator=server.authenticate,
            timeout=server.limits.smtp_idle,
            loop=asyncio.get_running_loop(),
        )

    # What AUTH LOGIN asks is in no RFC; these are the words that clients know.
    AuthLoginUsernameChallenge = "Username:"
    AuthLoginPasswordChallenge = "Password:"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._server.implicit_tls:
            self._under_tls()

    def _under_tls(self) -> None:
        """Tell aiosmtpd that TLS is on: it then offers AUTH, and STARTTLS no more."""
        assert self.transport is not None
        assert self.session is not None
        tls: Any = self.transport.get_extra_info("ssl_object")
        self._tls_protocol = tls
        self.session.ssl = {"ssl_object": tls}

    def data_received(self, data: bytes) -> None:
        self._heard = self.loop.time()
        super().data_received(data)

    def eof_received(self) -> bool:
        # aiosmtpd would forget the commands before the end that it hasn't obeyed yet.
        return bool(asyncio.StreamReaderProtocol.eof_received(self))

    async def handle_exception(self, error: Exception) -> str:
        if not isinstance(error, asyncio.IncompleteReadError):
            return await super().handle_exception(error)
        # The client has said its last word and has had its answer.
        self._writer.close()
        self.transport = None  # ends aiosmtpd's loop
        return ""

    def _reset_timeout(self, duration: float | None = None) -> None:
        """Start to wait for the client. One timer does: when it is due it looks again."""
        self._heard = self.loop.time()
        if self._timeout_handle is None:
            self._timeout_handle = self.loop.call_later(self._timeout_duration, self._timeout_cb)

    def _timeout_cb(self) -> None:
        left = self._heard + self._timeout_duration - self.loop.time()
        if left > 0:
            self._timeout_handle = self.loop.call_later(left, self._timeout_cb)
            return
        self._writer.write(b"421 4.4.2 You have been silent for too long, goodbye\r\n")
        self._writer.close()
        if self._writer.transport.get_write_buffer_size():
            # Nor does the client listen, so it would never be rid of.
            self._writer.transport.abort()

    async def push(self, status: Any) -> None:
        """Send a reply line, with an enhanced status code where RFC 2034 wants one."""
        if self._list is not None:
            self._list.append(status)
            return
        if isinstance(status, str) and not _OWN_CODE.match(status):
            assert self.session is not None
            enhanced = _ENHANCED.get(status[:3])
            if enhanced and self.session.extended_smtp:
                status = f"{status[:4]}{enhanced} {status[4:]}"
        await super().push(status)

    @syntax("HELO hostname")
    async def smtp_HELO(self, hostname: str) -> None:
        await self._introduce(super().smtp_HELO(hostname))

    @syntax("EHLO hostname")
    async def smtp_EHLO(self, hostname: str) -> None:
        await self._introduce(super().smtp_EHLO(hostname))

    async def _introduce(self, answering: Awaitable[None]) -> None:
        """Replies to HELO and EHLO have no enhanced status code (RFC 2034 section 4)."""
        self._list = []
        try:
            await answering
        finally:
            lines, self._list = self._list, None
        await super().push("\r\n".join(lines))

    @syntax("STARTTLS", when="tls_context")
    async def smtp_STARTTLS(self, arg: str) -> None:
        """RFC 3207. The transport does the handshake; all said before it is forgotten."""
        if arg:
            await self.push("501 5.5.4 STARTTLS takes no argument")
        elif self.tls_context is None:
            await self.push("502 5.5.1 There is no TLS here")
        elif self._tls_protocol is not None:
            await self.push("503 5.5.1 TLS is already on")
        else:
            await self.push("220 2.0.0 Ready to start TLS")
            # Commands sent along with STARTTLS came in plaintext and must not be obeyed later.
            self._reader._buffer.clear()  # type: ignore[attr-defined]
            transport: Any = self.transport
            # The handshake has a time limit of its own; 421 must not get into it.
            assert self._timeout_handle is not None
            self._timeout_handle.cancel()
            try:
                await transport.start_tls(self.tls_context)
            except (OSError, ssl.SSLError):
                return  # the transport is closed and has noted why
            self._timeout_handle = None
            self._reset_timeout()
            self._set_rset_state()  # type: ignore[no-untyped-call]
            peer = self.session.peer if self.session else None
            self.session = self._create_session()
            self.session.peer = peer
            self._under_tls()

    @syntax("AUTH <mechanism>")
    async def smtp_AUTH(self, arg: str) -> None:
        if not self._server.submission:
            await self.push("502 5.5.1 There is no login here; that is for submission")
            return
        # RFC 4422 section 3.1: mechanism names in any letter case.
        mechanism, gap, rest = (arg or "").partition(" ")
        await super().smtp_AUTH(mechanism.upper() + gap + rest)

    def _getaddr(self, arg: str) -> tuple[str | None, str | None]:
        """The address in a path, and the parameters behind it; `None` where it isn't a path."""
        path = read_path(arg)
        if path is None:
            return (None, None) if arg else ("", "")
        return path.address or _NULL_PATH, path.parameters

    def _getparams(self, params: Sequence[str]) -> dict[str, str | bool] | None:
        known = super()._getparams(params)
        if known is not None and self._server.submission:
            # Whom the client vouches for is noted by nobody here (RFC 4954 section 5).
            known.pop("AUTH", None)
        return known

    @syntax("HELP [command]")
    async def smtp_HELP(self, arg: str) -> None:
        if await self.check_auth_needed("HELP"):
            return
        known = {
            name: method
            for name, method in sorted(self._smtp_methods.items())
            if self._syntax_available(method) and (name != "AUTH" or self._server.submission)
        }
        if not arg:
            await self.push(f"214 Commands: {' '.join(known)}")
        elif arg.upper() in known:
            method = known[arg.upper()]
            more = method.__smtp_syntax_extended__ or ""
            await self.push(f"214 {method.__smtp_syntax__}{more}")
        else:
            await self.push(f"504 No help on that; there is help on {' '.join(known)}")

    @syntax("VRFY <address>")
    async def smtp_VRFY(self, arg: str) -> None:
        if await self.check_auth_needed("VRFY"):
            return
        if arg:
            await self.push(self._server.verify(arg))
        else:
            await self.push("501 5.5.4 Say whom: VRFY ana@lab.example")
