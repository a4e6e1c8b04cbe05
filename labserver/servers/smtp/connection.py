"""The dialogue with one SMTP client: reading commands and content within limits, replying.

What is decided about a sender, a recipient or a message is not known here (`SmtpServer`).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import re
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, NoReturn

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword, syntax
from aiosmtpd.smtp import Envelope as AiosmtpdEnvelope
from aiosmtpd.smtp import Session as SmtpSession

from labserver.message import Envelope
from labserver.servers.addresses import Path, read_path, too_long
from labserver.servers.door import Door
from labserver.servers.interpreter import Interpreter
from labserver.servers.setup import Client, log_in
from labserver.servers.smtp.parameters import RefusedError, mail_parameters, rcpt_parameters
from labserver.transcript import readable

if TYPE_CHECKING:
    from labserver.servers.smtp import SmtpServer

log = logging.getLogger("labserver")
# aiosmtpd tells of each odd client; in a notebook that would be printed under the reader's cell.
logging.getLogger("mail.log").addHandler(logging.NullHandler())

# Octets with CRLF (RFC 5321 section 4.5.3.1.4), and what extensions add to it: SIZE (RFC 1870
# section 5), SMTPUTF8 (RFC 6531 section 3.4), AUTH (RFC 4954 sections 3 and 4), DSN (RFC 3461).
_COMMAND_OCTETS = 512
_LONGER_COMMANDS = {"MAIL": 512 + 26 + 10 + 500 + 128, "RCPT": 512 + 10 + 640, "AUTH": 12_288}
_CREDENTIAL_OCTETS = 12_288
_REPLY_OCTETS = 510
"""A reply line without its CRLF (RFC 5321 section 4.5.3.1.5)."""
_TEXT_LINE_OCTETS = 998
"""Of a line of content without its CRLF (RFC 5321 section 4.5.3.1.6)."""
_READ_OCTETS = 64 * 1024
"""How much is read ahead, and how much of a message is taken at a time."""
_TOLD_OCTETS = 64 * 1024
"""Of a message that the rules look at."""
_EXTENSIONS = ("PIPELINING", "ENHANCEDSTATUSCODES", "DSN", "CHUNKING")
"""Those that aiosmtpd doesn't offer."""
_BEFORE_TLS = ("EHLO", "NOOP", "QUIT", "STARTTLS")
_TLS_FIRST = "530 5.7.0 Must issue a STARTTLS command first"
_CONTROLS = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")
"""What can't stand in a command; TAB counts as a blank."""
_SMTPUTF8_PARAMETER = re.compile(r" +SMTPUTF8\Z", re.IGNORECASE)
_BDAT = re.compile(r"([0-9]{1,20})(?: +(LAST))?", re.IGNORECASE)

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
_WRONG_ADDRESS = {"MAIL": "5.1.7", "RCPT": "5.1.3"}
"""The sender's address, or the recipient's (RFC 3463 section 3.2)."""
_OWN_CODE = re.compile(r"\d{3}[ -]\d\.\d{1,3}\.\d{1,3} ")


class Transaction(AiosmtpdEnvelope):
    """One mail under way, from MAIL to the end of its content (RFC 5321 section 3.3)."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = False
        self.reverse_path = ""
        self.parameters: tuple[str, ...] = ()
        self.recipients: list[str] = []
        self.recipient_parameters: list[tuple[str, ...]] = []
        self.accounts: list[str | None] = []
        """Whose mail it is, for each recipient."""
        # aiosmtpd's envelope holds octets here; a lab's holds them with what is known of them.
        self.content: _Content | None = None  # type: ignore[assignment]
        """What BDAT has brought so far."""
        self.failed = False
        """A BDAT was refused: only RSET helps (RFC 3030 section 2)."""

    def envelope(self) -> Envelope:
        """The envelope as it is kept with the message."""
        of_each = tuple(self.recipient_parameters) if any(self.recipient_parameters) else ()
        return Envelope(self.reverse_path, tuple(self.recipients), self.parameters, of_each)


class _Content:
    """A message's octets while they come in: kept as long as there are not too many."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._pieces: list[bytes] = []
        self.octets = 0

    @property
    def too_much(self) -> bool:
        return self.octets > self._most

    def add(self, piece: bytes) -> None:
        self.octets += len(piece)
        if self.too_much:
            self._pieces.clear()
        else:
            self._pieces.append(piece)

    def joined(self) -> bytes:
        return b"".join(self._pieces)


class _GoodbyeError(Exception):
    """The server ends the session; `args` is its last reply."""


class _AnsweredError(Exception):
    """An exchange came to nothing, and the client has been told."""


class SmtpConnection(SMTP):
    """One connection: aiosmtpd's, corrected where it differs from the RFCs."""

    envelope: Transaction

    # aiosmtpd's reader lets a line of content have no more than this. Here content isn't read
    # line by line, and commands have a limit of their own.
    line_length_limit = _READ_OCTETS

    # What AUTH LOGIN asks is in no RFC; these are the words that clients know.
    AuthLoginUsernameChallenge = "Username:"
    AuthLoginPasswordChallenge = "Password:"

    def __init__(self, server: SmtpServer) -> None:
        self._server = server
        self._list: list[str] | None = None
        """The lines of the reply to EHLO so far; they leave together."""
        self._heard = 0.0
        self._commands = 0
        self._door = Door()
        self._setup = setup = server.setup
        self._client = Client("SMTP", "", self._pause)
        self._rules = Interpreter(setup.rulebook, self._client, self._last_words)
        self._claim: tuple[str, str, str] | None = None
        """Name and password just given, and for whom the client wants to act."""
        self._acting_for = ""
        self._nameless = ""
        """The mechanism of a login that hasn't said yet whose it is."""
        super().__init__(
            None,
            hostname=setup.hostname,
            data_size_limit=setup.limits.message,
            enable_SMTPUTF8=True,
            tls_context=setup.tls,
            require_starttls=server.listener.submission and not server.plaintext_login,
            auth_required=server.listener.submission,
            authenticator=self._note_claim,
            timeout=setup.limits.smtp_idle,
            loop=asyncio.get_running_loop(),
        )
        # aiosmtpd warns of this where it is asked for; in a lab it is meant.
        self._auth_require_tls = not server.plaintext_login

    def __dir__(self) -> list[str]:
        # aiosmtpd looks for its methods among all names, for each connection anew.
        return _METHODS

    # -- the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer: Any = self._now.peer
        self._client.address = peer[0]
        if self._server.listener.implicit:
            self._under_tls()

    def _under_tls(self) -> None:
        """Tell aiosmtpd that TLS is on: it then offers AUTH, and STARTTLS no more."""
        assert self.transport is not None
        tls: Any = self.transport.get_extra_info("ssl_object")
        self._tls_protocol = tls
        self._client.tls = True
        self._now.ssl = {"ssl_object": tls}

    @property
    def _now(self) -> SmtpSession:
        assert self.session is not None, "aiosmtpd makes it with the connection"
        return self.session

    def data_received(self, data: bytes) -> None:
        self._heard = self.loop.time()
        super().data_received(data)

    def eof_received(self) -> bool:
        # aiosmtpd would forget the commands before the end that it hasn't obeyed yet.
        return bool(asyncio.StreamReaderProtocol.eof_received(self))

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
        farewell = f"421 4.4.2 {self.hostname} Error: timeout exceeded\r\n"
        self._writer.write(farewell.encode())
        self._writer.close()
        if self._writer.transport.get_write_buffer_size():
            # Nor does the client listen, so it would never be rid of.
            self._writer.transport.abort()

    # -- speaking and listening

    async def push(self, status: Any) -> None:
        """Send a reply line, with an enhanced status code where RFC 2034 wants one."""
        if self._list is not None:
            self._list.append(status)
            return
        if isinstance(status, bytes):
            await self._send(status[:_REPLY_OCTETS])
        else:
            await self._send("\r\n".join(map(self._reply_line, status.split("\r\n"))))

    def _reply_line(self, line: str) -> str:
        enhanced = _ENHANCED.get(line[:3])
        if enhanced and self._now.extended_smtp and not _OWN_CODE.match(line):
            line = f"{line[:4]}{enhanced} {line[4:]}"
        if not (line.isascii() and line.isprintable()):
            # What a client said is told back as something that can't disturb another.
            line = readable(line.encode("utf-8", "surrogateescape"))
        return line[:_REPLY_OCTETS]

    async def _send(self, reply: str | bytes) -> None:
        """Send a reply as it is (those to HELO and EHLO have no code: RFC 2034 section 4)."""
        if isinstance(reply, str):
            reply = reply.encode("ascii", "backslashreplace")
        if self._rules.action is not None:
            self._rules.answers()
            reply = self._rules.instead_of(reply.decode()).encode()
        self._writer.write(reply + b"\r\n")
        await self._writer.drain()

    async def _line(self, most: int) -> bytes | None:
        """The next line without its end; `None` where it has more octets than `most`.

        LF alone ends it too, as with Postfix and Exim; it never ends a message's content.
        """
        try:
            line = await self._reader.readuntil(b"\n")
        except asyncio.LimitOverrunError as error:
            consumed = error.consumed
            while True:
                await self._reader.readexactly(consumed)
                try:
                    await self._reader.readuntil(b"\n")
                    return None
                except asyncio.LimitOverrunError as more:
                    consumed = more.consumed
        return line[:-1].removesuffix(b"\r") if len(line) <= most else None

    async def _handle_client(self) -> None:
        """Greet, then obey one command after the other until one side ends the session."""
        try:
            if self._rules.has_rules:
                await self._greet_by_rules()
            await self.push(f"220 {self.hostname} ESMTP ready")
            while True:
                try:
                    await self._obey_one()
                except RefusedError as refused:
                    if refused.reply.startswith("421"):
                        raise _GoodbyeError(refused.reply) from None
                    await self.push(refused.reply)
                except _AnsweredError:
                    pass
                except (_GoodbyeError, OSError, asyncio.IncompleteReadError):
                    raise
                except Exception as error:  # our mistake: the client is still owed an answer
                    log.error("SMTP server", exc_info=error)
                    await self.push("451 4.3.0 Requested action aborted: local error in processing")
        except _GoodbyeError as goodbye:
            await self.push(*goodbye.args)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has said its last word and has had its answer
        finally:
            self._writer.close()

    async def _obey_one(self) -> None:
        line = await self._line(_CREDENTIAL_OCTETS)
        self._commands += 1
        if self._commands > self._setup.limits.session_commands:
            raise _GoodbyeError("421 4.7.0 Too many commands in one session, goodbye")
        if line is None:
            raise RefusedError("500 5.5.2 Command line too long")
        if stranger := self._door.stranger(line):
            # Before a server hangs up it says 421 (RFC 5321 section 3.8).
            text = f"That is {stranger}, and this is an SMTP server; goodbye"
            raise _GoodbyeError(f"421 4.7.0 {text}")
        if _CONTROLS.search(line):
            raise RefusedError("501 5.5.2 There can't be control characters in a command")
        verb_octets, _, argument = line.replace(b"\t", b" ").partition(b" ")
        verb = verb_octets.upper().decode("ascii", "replace")
        if not verb or "\ufffd" in verb:
            raise RefusedError("500 5.5.2 Error: bad syntax")
        if self._rules.has_rules or self._rules.action is not None:
            await self._meet_rules(verb, argument.decode("utf-8", "surrogateescape"))
        longest = _LONGER_COMMANDS.get(verb) if self._now.extended_smtp else None
        if len(line) + 2 > (longest or _COMMAND_OCTETS):
            raise RefusedError("500 5.5.2 Command line too long")
        if self._needs_tls and verb not in (*_BEFORE_TLS, "BDAT"):
            raise RefusedError(_TLS_FIRST)
        method = self._smtp_methods.get(verb)
        if method is None:
            if self._door.unknown():
                raise _GoodbyeError(self._too_many_errors)
            raise RefusedError("500 5.5.2 Error: command not recognized")
        self._reset_timeout()
        await method(argument.strip().decode("utf-8", "surrogateescape") or None)

    @property
    def _too_many_errors(self) -> str:
        return f"421 4.7.0 {self.hostname} Error: too many errors"

    @property
    def _needs_tls(self) -> bool:
        return bool(self.require_starttls) and not self._tls_protocol

    # -- what goes wrong on purpose

    async def _greet_by_rules(self) -> None:
        self._ask("greeting")
        try:
            await self._carry_out()
        except _AnsweredError:
            self._rules.forget()
            await self._turned_away()

    async def _turned_away(self) -> NoReturn:
        """All that is left to say is QUIT (RFC 5321 section 3.1)."""
        for _ in range(self._setup.limits.session_commands):
            line = await self._line(_CREDENTIAL_OCTETS)
            if line is not None and line.strip().upper() == b"QUIT":
                raise _GoodbyeError("221 Bye")
            await self.push("503 You were turned away; say QUIT")
        raise _GoodbyeError("421 4.7.0 Too many commands in one session, goodbye")

    async def _meet_rules(self, verb: str, argument: str) -> None:
        """Let the rules have their way before a command is looked at."""
        self._rules.forget()
        self._nameless = ""
        address = None
        if verb == "BDAT":
            return  # its octets come whatever is said
        if verb in ("MAIL", "RCPT"):
            path = read_path(argument.partition(":")[2])
            address = path.address if path is not None else ""
        elif verb == "AUTH":
            mechanism, _, initial = argument.strip().partition(" ")
            known = self._server.offers_login and mechanism.upper() in ("PLAIN", "LOGIN")
            if known and not initial:
                self._nameless = mechanism.upper()
                return  # whose login it is will be told
            address = _who(mechanism.upper(), initial.encode("utf-8", "surrogateescape"))
        self._ask(verb, address, text="" if verb == "AUTH" else argument.strip())
        await self._carry_out()

    def _ask(
        self,
        command: str,
        address: str | None = None,
        mail: Transaction | None = None,
        text: str = "",
    ) -> None:
        """Ask what the rules want at this command, about that address or whoever sends."""
        mail = mail or self.envelope
        self._rules.ask(
            command,
            self._client.login or mail.reverse_path if address is None else address,
            reverse_path=mail.reverse_path if mail.begun else None,
            recipients=len(mail.recipients),
            text=text,
        )

    async def _carry_out(self) -> None:
        """Wait, hang up or refuse, if that is what the rules want."""
        reply = await self._rules.refusal()
        if reply:
            self._last_words(reply.encode() + b"\r\n")
            if reply.startswith("421"):
                raise ConnectionAbortedError("A rule ended the session.")
            await self._writer.drain()
            raise _AnsweredError

    def _last_words(self, octets: bytes) -> None:
        self._writer.write(octets)

    async def _pause(self, seconds: float) -> bool:
        """Let time pass; it isn't the client who is silent meanwhile.

        Whoever goes ends all of this, so that the client always still listens afterwards.
        """
        assert self._timeout_handle is not None
        self._timeout_handle.cancel()
        await asyncio.sleep(seconds)
        self._timeout_handle = None
        self._reset_timeout()
        return True

    # -- who is there

    @syntax("HELO hostname")
    async def smtp_HELO(self, hostname: str) -> None:
        await self._send("\r\n".join(await self._introduction(super().smtp_HELO(hostname))))

    @syntax("EHLO hostname")
    async def smtp_EHLO(self, hostname: str) -> None:
        """What aiosmtpd has to say, and the extensions it doesn't know."""
        lines = await self._introduction(super().smtp_EHLO(hostname))
        if lines[-1].startswith("250"):
            if not self._server.offers_login:
                lines = [line for line in lines if not line.startswith("250-AUTH")]
            lines[-1:-1] = [f"250-{name}" for name in _EXTENSIONS]
        await self._send("\r\n".join(lines))

    async def _introduction(self, answering: Awaitable[None]) -> list[str]:
        """The lines of the reply to HELO or EHLO."""
        self._list = []
        try:
            await answering
        finally:
            lines, self._list = self._list, None
            self._client.name = self._now.host_name or ""
        return lines

    @syntax("QUIT")
    async def smtp_QUIT(self, arg: str | None) -> None:
        if arg:
            raise RefusedError("501 5.5.4 Syntax: QUIT")
        raise _GoodbyeError("221 Bye")

    @syntax("STARTTLS", when="tls_context")
    async def smtp_STARTTLS(self, arg: str) -> None:
        """RFC 3207. The transport does the handshake; all said before it is forgotten."""
        if arg:
            raise RefusedError("501 5.5.4 Syntax: STARTTLS")
        if self.tls_context is None:
            raise RefusedError("502 5.5.1 Error: command not implemented")
        if self._tls_protocol is not None:
            raise RefusedError("503 5.5.1 Error: TLS already active")
        await self.push("220 2.0.0 Ready to start TLS")
        # Commands sent along with STARTTLS came in plaintext and must not be obeyed later.
        self._reader._buffer.clear()  # type: ignore[attr-defined]
        self._reader._maybe_resume_transport()  # type: ignore[attr-defined]
        transport: Any = self.transport
        # The handshake has a time limit of its own; 421 must not get into it.
        assert self._timeout_handle is not None
        self._timeout_handle.cancel()
        # Where the handshake fails, the transport is closed and has noted why.
        await transport.start_tls(self.tls_context)
        self._timeout_handle = None
        self._reset_timeout()
        self._set_rset_state()  # type: ignore[no-untyped-call]
        peer = self._now.peer
        self.session = self._create_session()
        self.session.peer = peer
        # Nothing that was said before counts any more.
        self._client.name = self._client.login = ""
        self._under_tls()

    # -- AUTH (RFC 4954)

    @syntax("AUTH <mechanism>")
    async def smtp_AUTH(self, arg: str | None) -> None:
        if not self._server.offers_login:
            raise RefusedError("502 5.5.1 Error: authentication not enabled")
        # RFC 4422 section 3.1: mechanism names in any letter case.
        mechanism, gap, rest = (arg or "").partition(" ")
        self._claim, self._acting_for = None, ""
        await super().smtp_AUTH(mechanism.upper() + gap + rest)
        if self._claim is None:
            return  # nothing came of it, and the client has been told
        name, password, identity = self._claim
        account = await log_in(self._setup, self._client, name, password, acting_for=identity)
        if account is None:
            if self._client.dismissed:
                raise _GoodbyeError(self._too_many_errors)
            raise RefusedError("535 5.7.8 Authentication credentials invalid")
        self._now.authenticated, self._client.login = True, account
        await self.push("235 2.7.0 Authentication successful")

    async def auth_PLAIN(self, _: SMTP, args: list[str]) -> AuthResult:
        """RFC 4616: for whom one acts (oneself, where it is empty), who one is, the password."""
        octets = _decoded(args[1]) if len(args) > 1 else await self.challenge_auth("")
        try:
            identity, name, password = octets.split(b"\0")
        except ValueError:
            raise RefusedError("501 5.5.2 Can't split auth value") from None
        self._acting_for = identity.decode("utf-8", "surrogateescape")
        return self._authenticate("PLAIN", LoginPassword(name, password))

    async def challenge_auth(self, challenge: str | bytes, *_: Any, **__: Any) -> Any:
        """Ask the client for its answer, and decode it."""
        octets = challenge.encode() if isinstance(challenge, str) else challenge
        await self.push(b"334 " + base64.b64encode(octets))
        answer = await self._line(_CREDENTIAL_OCTETS)
        if answer is None:
            raise RefusedError("500 5.5.6 That answer is too long")
        if answer.strip() == b"*":
            raise RefusedError("501 5.7.0 Authentication aborted")
        octets = _decoded(answer.strip())
        if self._nameless:
            self._ask("AUTH", _who(self._nameless, answer))
            self._nameless = ""
            await self._carry_out()
        return octets

    def _note_claim(
        self, _: SMTP, __: SmtpSession, ___: Any, mechanism: str, data: LoginPassword
    ) -> AuthResult:
        name, password = (part.decode("utf-8", "surrogateescape") for part in data)
        self._claim = name, password, self._acting_for
        # `smtp_AUTH` looks at them and answers; it may have to wait first.
        return AuthResult(success=False, handled=True)

    # -- the envelope

    def _create_envelope(self) -> Transaction:
        return Transaction()

    async def _may_send(self, verb: str) -> None:
        if await self.check_helo_needed() or await self.check_auth_needed(verb):
            raise _AnsweredError

    def _path(self, arg: str | None, keyword: str, verb: str) -> Path:
        """The path in MAIL or RCPT. Raises `RefusedError`."""
        given = arg or ""
        rest = given[len(keyword) :].strip()
        extended = self._now.extended_smtp
        more = " [SP <mail-parameters>]" if extended else ""
        if given[: len(keyword)].upper() != keyword or not rest:
            raise RefusedError(f"501 Syntax: {verb} {keyword} <address>{more}")
        path = read_path(rest)
        if path is None:
            whose = "sender" if verb == "MAIL" else "recipient"
            raise RefusedError(f"553 {_WRONG_ADDRESS[verb]} Bad {whose} address syntax")
        if path.parameters and not extended:
            raise RefusedError(f"501 Syntax: {verb} {keyword} <address>")
        why = too_long(path.address)
        if why:
            raise RefusedError(f"501 {_WRONG_ADDRESS[verb]} {why}")
        return path

    @syntax("MAIL FROM: <address>", extended=" [SP <mail-parameters>]")
    async def smtp_MAIL(self, arg: str | None) -> None:
        await self._may_send("MAIL")
        path = self._path(arg, "FROM:", "MAIL")
        if self.envelope.begun:
            raise RefusedError("503 Error: nested MAIL command")
        server, session = self._server, self._now
        begun = Transaction()
        begun.parameters = mail_parameters(
            path.parameters, most=self._setup.limits.message, submission=server.listener.submission
        )
        reply = await server.sender(self._client, path.address, begun)
        begun.begun, begun.reverse_path = True, path.address
        self._client.transmission = "SMTP"
        if session.extended_smtp:
            self._client.transmission = (
                f"{'UTF8SMTP' if 'SMTPUTF8' in begun.parameters else 'ESMTP'}"
                f"{'S' if self._client.tls else ''}{'A' if self._client.login else ''}"
            )
        self.envelope = begun
        await self.push(reply)

    @syntax("RCPT TO: <address>", extended=" [SP <mail-parameters>]")
    async def smtp_RCPT(self, arg: str | None) -> None:
        await self._may_send("RCPT")
        transaction = self.envelope
        if not transaction.begun:
            raise RefusedError("503 Error: need MAIL command")
        if transaction.content is not None or transaction.failed:
            raise RefusedError("503 Error: RCPT after BDAT")
        path = self._path(arg, "TO:", "RCPT")
        parameters = rcpt_parameters(path.parameters)
        account, reply = await self._server.recipient(self._client, path.address, transaction)
        transaction.recipients.append(path.address)
        transaction.recipient_parameters.append(parameters)
        transaction.accounts.append(account)
        await self.push(reply)

    # -- the content

    @syntax("DATA")
    async def smtp_DATA(self, arg: str | None) -> None:
        await self._may_send("DATA")
        if self.envelope.content is not None or self.envelope.failed:
            raise RefusedError("503 Error: DATA after BDAT")
        if not self.envelope.recipients:
            raise RefusedError("503 Error: need RCPT command")
        if arg:
            raise RefusedError("501 Syntax: DATA")
        await self.push("354 End data with <CR><LF>.<CR><LF>")
        content = await self._dotted_content()
        transaction, self.envelope = self.envelope, Transaction()
        if self._rules.has_rules or self._rules.action is not None:
            begins = (content or b"")[:_TOLD_OCTETS].decode("utf-8", "replace")
            self._ask("end of data", mail=transaction, text=begins)
            await self._carry_out()
        await self.push(await self._taken(transaction, content))

    async def _dotted_content(self) -> bytes | None:
        """What comes until a line with nothing but a dot; `None` where it was too much.

        Only CRLF ends a line (RFC 5321 section 4.1.1.4). Each piece that is read ends in a dot
        and CRLF, which is the end if a line began with that dot. Rules want it line by line.
        """
        most = self._setup.limits.message
        # Dots added for transparency don't count; no message gets longer by them than by a third.
        content = _Content(most + most // 3 + 3)
        tail = b"\r\n"
        until = b".\r\n" if self._rules.action is None else b"\n"
        await self._rules.begin_content()
        while True:
            try:
                piece = await self._reader.readuntil(until)
            except asyncio.LimitOverrunError as error:
                piece = await self._reader.readexactly(error.consumed)
            content.add(piece)
            tail = (tail + piece[-5:])[-5:]
            if tail == b"\r\n.\r\n":
                break
            await self._rules.passed(len(piece))
        octets = content.joined()[:-3]
        if octets.startswith(b"."):
            octets = octets[1:]
        octets = octets.replace(b"\r\n.", b"\r\n")
        return None if content.too_much or len(octets) > most else octets

    @syntax("BDAT size [LAST]")
    async def smtp_BDAT(self, arg: str | None) -> None:
        """RFC 3030 section 2: the octets come whatever the reply is going to be."""
        given = _BDAT.fullmatch(arg or "")
        if given is None:
            raise RefusedError("501 Syntax: BDAT size [LAST]")
        transaction, octets, last = self.envelope, int(given[1]), bool(given[2])
        if self._rules.has_rules:
            self._ask("BDAT LAST" if last else "BDAT")
        refusal = self._refusal_of_chunk()
        content = transaction.content
        if content is None:
            content = _Content(0 if refusal else self._setup.limits.message)
        try:
            await self._read_chunk(content, octets)
            await self._carry_out()
            if refusal:
                raise RefusedError(refusal)
            if content.too_much:
                transaction.failed = True
                raise RefusedError("552 Chunk exceeds message size limit")
        except _AnsweredError:
            transaction.failed = True
            raise
        except BaseException:
            self._rules.not_taken()
            raise
        transaction.content = content
        if not last:
            await self.push(f"250 {octets} octets received")
            return
        self.envelope = Transaction()
        await self.push(await self._taken(transaction, content.joined()))

    async def _read_chunk(self, content: _Content, octets: int) -> None:
        left = octets
        await self._rules.begin_content()
        while left:
            piece = await self._reader.read(self._rules.portion(min(left, _READ_OCTETS)))
            if not piece:
                raise asyncio.IncompleteReadError(b"", left)
            content.add(piece)
            left -= len(piece)
            await self._rules.passed(len(piece))

    def _refusal_of_chunk(self) -> str:
        """Why BDAT can't be obeyed now; empty where it can."""
        if self._needs_tls:
            return _TLS_FIRST
        if not self._now.host_name:
            return "503 Error: send HELO first"
        if self._auth_required and not self._now.authenticated:
            return "530 5.7.0 Authentication required"
        if self.envelope.failed:
            return "503 A part was refused; say RSET to begin anew"
        return "" if self.envelope.recipients else "503 Error: need RCPT command"

    async def _taken(self, transaction: Transaction, content: bytes | None) -> str:
        """The reply to a whole message. Raises `RefusedError`."""
        if content is None:
            reply = "552 Error: message file too big"
        elif max(map(len, content.split(b"\r\n"))) > _TEXT_LINE_OCTETS:
            reply = "500 Line too long (see RFC5321 4.5.3.1.6)"
        else:
            try:
                reply = await self._server.deliver(self._client, transaction, content)
            except BaseException:
                self._rules.not_taken()
                raise
        if not reply.startswith("2"):
            self._rules.not_taken()
        return reply

    # -- what else there is

    @syntax("HELP [command]")
    async def smtp_HELP(self, arg: str | None) -> None:
        if await self.check_auth_needed("HELP"):
            return
        known = {
            name: method
            for name, method in sorted(self._smtp_methods.items())
            if self._syntax_available(method) and (name != "AUTH" or self._server.offers_login)
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
    async def smtp_VRFY(self, arg: str | None) -> None:
        if await self.check_auth_needed("VRFY"):
            return
        if not arg:
            raise RefusedError("501 5.5.4 Syntax: VRFY address")
        # The parameter allows a reply in UTF-8 (RFC 6531 section 3.7.4.2); ASCII will do.
        await self.push(self._server.verify(_SMTPUTF8_PARAMETER.sub("", arg)))


def _decoded(answer: str | bytes) -> bytes:
    """What an answer in base64 says. Raises `RefusedError`."""
    try:
        return base64.b64decode(answer, validate=True)
    except ValueError:
        raise RefusedError("501 5.5.2 Can't decode base64") from None


def _who(mechanism: str, answer: bytes) -> str:
    """Whose login it is, by the first answer in base64; empty where that can't be read."""
    try:
        octets = base64.b64decode(answer.strip(), validate=True)
        name = octets.split(b"\0")[1] if mechanism == "PLAIN" else octets
    except (binascii.Error, IndexError):
        return ""
    return name.decode("utf-8", "replace")


_METHODS = [name for name in dir(SmtpConnection) if name.startswith(("smtp_", "auth_"))]
