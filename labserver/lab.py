"""One lab: the servers, the store and a network put together."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import ssl
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType, NoneType

from labserver.dialogue import Bounds
from labserver.folder import prepare, unusable
from labserver.given import expect, shown
from labserver.listeners import LISTENERS, TABLE, Listener
from labserver.masking import Passwords
from labserver.message import Mailbox, Message
from labserver.network import (
    Abilities,
    Address,
    Network,
    NetworkError,
    OpenPort,
    choose,
    interrupts,
)
from labserver.network.recorder import Journal, Recorder
from labserver.network.service import Service
from labserver.rules import Limits, Rule
from labserver.servers.accounts import Accounts, Guesses, Password
from labserver.servers.addresses import ascii_domain
from labserver.servers.imap import ImapServer
from labserver.servers.pop3 import Pop3Server
from labserver.servers.rulebook import Rulebook
from labserver.servers.setup import Policy, Setup
from labserver.servers.smtp import SmtpServer
from labserver.store import DamagedMessage, MessageRow, Store
from labserver.tls import Tls, certificates
from labserver.transcript import ProtocolName, Session

_log = logging.getLogger("labserver")

ACCOUNTS: Mapping[str, str] = MappingProxyType(
    {"ana@lab.example": "ana-lab-password", "ben@lab.example": "ben-lab-password"}
)
"""The accounts of a lab that is given none."""

_HOSTNAME = "lab.example"
"""Of a lab without accounts that is given no name."""

_BUSY: Mapping[ProtocolName, str] = {
    "SMTP": "421 4.3.2 All server ports are busy\r\n",
    "POP3": "-ERR [SYS/TEMP] {} has too many connections, come back later\r\n",
    "IMAP": "* BYE {} has too many connections, come back later\r\n",
}
"""What one connection too many is told."""

_TOO_MUCH: Mapping[ProtocolName, str] = {
    "SMTP": "421 4.3.2 {} has heard too much in one session, come back later\r\n",
    "POP3": "-ERR [SYS/TEMP] {} has heard too much in one session, come back later\r\n",
    "IMAP": "* BYE {} has heard too much in one session, come back later\r\n",
}
"""What a client is told that sends more than a session may have."""

_SERVERS: Mapping[ProtocolName, type[SmtpServer | Pop3Server | ImapServer]] = {
    "SMTP": SmtpServer,
    "POP3": Pop3Server,
    "IMAP": ImapServer,
}

_STORE_FILE = "mail.sqlite"
_LISTENERS_TEXT = ", ".join(LISTENERS)
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")


class LabError(Exception):
    """A lab can't do what was asked; the text is one sentence for people."""


def latest() -> Lab | None:
    """The lab made last in this process, if it is still there: what a magic means by "the lab"."""
    return _latest() if _latest is not None else None


class Lab:
    """SMTP, POP3 and IMAP servers on this machine, ready when the constructor returns.

    `accounts` maps addresses to passwords; a lab without any can only relay (`policy`). `network`
    carries the bytes; without it the environment variable LABSERVER_NETWORK chooses. `data` is a
    folder that keeps the mail, made if need be; without it the mail goes when the lab is closed.
    What in it is damaged, or isn't the lab's, is set aside; `notice` then says so. With `catch_all`
    mail to any address is taken and kept. `ports` fixes the port of listeners by name. `hostname`
    is the servers' name, by default the first account's domain, without accounts lab.example.
    `rules` script what goes wrong on purpose (`rules.py`), `seed` is what their chances are drawn
    from. `policy` decides about senders, recipients and messages otherwise than the servers do
    (`servers/setup.py`).

    `plaintext_login` says where a password is taken without TLS. By default (`None`) POP3 and IMAP
    take it, for nothing leaves this machine, and SMTP doesn't. `False`: nobody takes it; IMAP says
    LOGINDISABLED (RFC 3501 section 6.2.3), POP3 offers neither USER nor SASL (RFC 2595 section 4).
    `True`: SMTP takes it too, on `submission` and on `smtp`, which offers no login otherwise.

    Raises `ValueError` for accounts, ports, rules or a hostname that make no sense, `TypeError`
    for an argument of another type, `NetworkError` where a port can't be had, `StoreError` or
    `FolderError`, an `OSError`, where the folder can't be used; the text of each is one sentence.
    """

    def __init__(
        self,
        accounts: Mapping[str, str] = ACCOUNTS,
        *,
        network: Network | None = None,
        data: str | Path | None = None,
        catch_all: bool = False,
        hostname: str = "",
        limits: Limits | None = None,
        ports: Mapping[str, int] | None = None,
        rules: Iterable[Rule] = (),
        seed: int = 0,
        plaintext_login: bool | None = None,
        policy: Policy | None = None,
    ) -> None:
        if not isinstance(accounts, Mapping):
            raise ValueError("Accounts map addresses to passwords: {'ana@lab.example': 'secret'}.")
        known = "a network, such as labserver.network.inline.InlineNetwork(), or None"
        expect("Lab(network=…)", network, Network, NoneType, wanted=known)
        expect("Lab(catch_all=…)", catch_all, bool)
        expect("Lab(hostname=…)", hostname, str)
        expect("Lab(limits=…)", limits, Limits, NoneType, wanted="Limits(…) or None")
        expect("Lab(ports=…)", ports, Mapping, NoneType, wanted="ports by listener: {'smtp': 2525}")
        known = "True, False or None"
        expect("Lab(plaintext_login=…)", plaintext_login, bool, NoneType, wanted=known)
        expect("Lab(policy=…)", policy, Policy, NoneType, wanted="a Policy or None")
        self._accounts = Accounts(dict(accounts), catch_all)
        self.accounts: Mapping[str, str] = MappingProxyType(
            {address: Password(password) for address, password in accounts.items()}
        )
        """The addresses and their passwords, which a representation of it masks."""
        first = next(iter(accounts), f"@{_HOSTNAME}")
        self.hostname = ascii_domain(str(hostname or first.rpartition("@")[2]))
        if not _HOST_NAME.fullmatch(self.hostname):
            raise ValueError(f"{self.hostname!r} is not a host's name; lab.example is one.")
        for name, port in dict(ports or {}).items():
            if name not in LISTENERS:
                raise ValueError(f"There is no listener {name!r}; there are {_LISTENERS_TEXT}.")
            if type(port) is not int or not 0 <= port <= 65535:
                raise ValueError(f"{port!r} is not a port for {name}; 0 (any free) to 65535 are.")
        if data == "":
            raise ValueError("The folder for the mail has an empty name; give another or none.")
        if not isinstance(data, str | os.PathLike | None):
            raise ValueError(f"The folder for the mail is a path, not {data!r}.")
        if type(seed) is not int:
            raise ValueError(f"A seed is a whole number, not {seed!r}.")
        self.catch_all = bool(catch_all)
        self.seed = seed
        self.plaintext_login = plaintext_login
        self.policy = policy or Policy()
        self._rulebook = Rulebook(seed)
        self.rules = rules
        self.limits = limits or Limits()

        # What has to be given back stands on one stack, known to the finalizer from the start,
        # so that an interrupt at any moment leaves nothing behind.
        self._things = things = contextlib.ExitStack()
        self._finalizer = weakref.finalize(self, interrupts.in_finalizer(things.close))
        try:
            with interrupts.deferred():
                self._start(things, network, data, ports or {})
        except BaseException:
            self.close()
            raise
        global _latest
        _latest = weakref.ref(self)

    def _start(
        self,
        things: contextlib.ExitStack,
        network: Network | None,
        data: str | Path | None,
        ports: Mapping[str, int],
    ) -> None:
        if network is None:
            network = choose()
            things.callback(network.close)
        self._network = network
        if data is None:
            kept = tempfile.TemporaryDirectory(prefix="lab-", ignore_cleanup_errors=True)
            things.callback(kept.cleanup)
            folder = Path(kept.name)
        else:
            folder = prepare(data)
        try:
            self._tls = certificates(folder, self.hostname) if network.can.tls else None
        except OSError as error:
            raise unusable(folder, error) from error
        # Mail programs know a folder of mail by UIDVALIDITY: one that was emptied gets another.
        uidvalidity = 1 if data is None else int(network.clock.now().timestamp())
        self._store = store = network.run(lambda: Store(folder / _STORE_FILE, uidvalidity))
        things.callback(_where_servers_run(network, store.close))
        notices = (self._tls.notice if self._tls else "", store.notice)
        self.notice = " ".join(filter(None, notices))
        """Sentences on what in the folder was set aside; empty where nothing was."""
        if self.notice:
            _log.warning("%s", self.notice)
        limits = self.limits
        self._journal = Journal(
            network.clock,
            Bounds(limits.transcript_body, limits.transcript),
            limits.sessions,
            limits.sessions_octets,
            Passwords(self.accounts),
        )
        setup = Setup(
            self.hostname,
            self._accounts,
            store,
            limits,
            network.clock,
            self._rulebook,
            Guesses(limits),
            self._tls.server if self._tls else None,
            self.policy,
            self.plaintext_login,
        )
        self._open: dict[str, OpenPort] = {}
        for listener in TABLE.values():
            # Without TLS there is nothing that needs it.
            if setup.tls is None and (listener.implicit or listener.submission):
                continue
            port = network.listen(self._service(setup, listener), ports.get(listener.name, 0))
            self._open[listener.name] = port
            things.callback(_where_servers_run(network, port.close))

    def _service(self, setup: Setup, listener: Listener) -> Service:
        """What listens there."""
        server = _SERVERS[listener.protocol](setup, listener)
        busy = _BUSY[listener.protocol].format(setup.hostname).encode()
        too_much = _TOO_MUCH[listener.protocol].format(setup.hostname).encode()
        return Service(
            listener,
            server.factory,
            self._journal,
            setup.tls if listener.implicit else None,
            setup.limits.connections,
            # Under TLS from the first octet nobody could read it.
            b"" if listener.implicit else busy,
            setup.limits.session_octets,
            too_much,
            setup.hostname,
        )

    # -- where it listens

    def address(self, name: str) -> Address:
        """Where a listener can be reached. Raises `LabError` where this lab hasn't got it."""
        expect("address()", name, str, wanted="a listener's name, such as 'smtp'")
        port = self._open.get(name)
        if port is None:
            why = "it needs TLS, which this Python can't do" if name in LISTENERS else "no such"
            raise LabError(f"This lab has no listener {name}: {why}.")
        return port.address

    @property
    def listeners(self) -> Mapping[str, Address]:
        """All listeners by name."""
        return {name: self.address(name) for name in self._open}

    @property
    def smtp(self) -> Address:
        """Takes mail for the lab's accounts, as a mail exchanger does on port 25."""
        return self.address("smtp")

    @property
    def submission(self) -> Address:
        """Takes mail from the accounts' owners: STARTTLS, then AUTH, as on port 587."""
        return self.address("submission")

    @property
    def submissions(self) -> Address:
        """The same with TLS from the first octet, as on port 465."""
        return self.address("submissions")

    @property
    def pop3(self) -> Address:
        """POP3 with STLS, as on port 110."""
        return self.address("pop3")

    @property
    def pop3s(self) -> Address:
        """POP3 with TLS from the first octet, as on port 995."""
        return self.address("pop3s")

    @property
    def imap(self) -> Address:
        """IMAP with STARTTLS, as on port 143."""
        return self.address("imap")

    @property
    def imaps(self) -> Address:
        """IMAP with TLS from the first octet, as on port 993."""
        return self.address("imaps")

    @property
    def can(self) -> Abilities:
        """What this lab's network can do: `tls`, `threads`, `sockets`."""
        return self._network.can

    @property
    def network(self) -> Network:
        """What carries this lab's bytes."""
        return self._network

    @property
    def store(self) -> Store:
        """Where this lab's mail rests; to be used where the servers run: `network.run`."""
        return self._store

    @property
    def journal(self) -> Journal:
        """The sessions as they are recorded; to be used where the servers run."""
        return self._journal

    @property
    def tls(self) -> ssl.SSLContext:
        """A client's TLS context that trusts this lab's own authority."""
        return self._certificates().client

    @property
    def ca(self) -> Path:
        """The PEM file of this lab's own certificate authority."""
        return self._certificates().ca

    def _certificates(self) -> Tls:
        if self._tls is None:
            raise LabError("This lab has no TLS: this Python can't do it.")
        return self._tls

    # -- what goes wrong on purpose

    @property
    def rules(self) -> tuple[Rule, ...]:
        """What goes wrong on purpose; may be set at any time, from any thread.

        From then on each command follows the new rules. Values equal to old ones go on with what
        they remember (how often they applied, who tried when); all others begin anew. Raises
        `ValueError` for what is no rule.
        """
        return self._rulebook.rules

    @rules.setter
    def rules(self, rules: Iterable[Rule]) -> None:
        self._rulebook.rules = rules

    # -- what happened

    @property
    def sessions(self) -> tuple[Session, ...]:
        """The connections so far, oldest first, after the servers have read what has arrived.

        Of very many only the latest are kept: `limits.sessions`, `limits.sessions_octets`.
        """
        if self.closed:
            return self._journal.sessions()
        self._network.settle()
        return self._network.run(self._journal.sessions)

    def on_session(self, heard: Callable[[Session], None]) -> Callable[[], None]:
        """Have `heard` called with each session when it has ended, on the network's loop.

        What is returned ends that when it is called, once or more often.
        """

        def ended(recorder: Recorder) -> None:
            if recorder.ended:
                heard(recorder.session())

        if not callable(heard):
            raise TypeError(f"on_session() takes a function, not {shown(heard)}.")
        return self._journal.listen(ended)

    def mailboxes(self, address: str) -> dict[str, int]:
        """That address's mailboxes, and how many messages each holds; INBOX comes first.

        Raises `LabError` where this lab keeps no mail for it, or is closed.
        """
        account, store = self._account(address), self._store

        def read() -> dict[str, int]:
            rows = store.mailboxes(account)
            return {"INBOX": 0} | {row.name: store.counts(row.id).messages for row in rows}

        return self._network.run(read)

    def inbox(self, address: str) -> Mailbox:
        """The messages in the INBOX of that address.

        Raises `LabError` where this lab keeps no mail for it, or is closed.
        """
        return self.mailbox(address, "INBOX")

    def wait_for(self, address: str, messages: int = 1, timeout: float = 5.0) -> Mailbox:
        """The INBOX of that address as soon as it holds so many messages.

        For mail that another thread or program is sending, or that a rule holds up. Raises
        `LabError` where `timeout` seconds pass first; on an inline network they are seconds of
        virtual time, which pass in a moment.
        """
        expect("wait_for(messages=…)", messages, int)
        expect("wait_for(timeout=…)", timeout, int, float, wanted="seconds")
        self._account(address)
        clock, news = self._network.clock, threading.Event()
        deadline = clock.seconds() + timeout
        stop = self._network.run(lambda: self._store.watch(lambda _: news.set()))
        try:
            while len(inbox := self.inbox(address)) < messages:
                if not self._network.wait(news, max(0.0, deadline - clock.seconds())):
                    came = f"{len(inbox)} {'message' if len(inbox) == 1 else 'messages'}"
                    raise LabError(
                        f"{address} has {came} after {timeout:g} seconds; {messages} wanted."
                    )
                news.clear()
        finally:
            with contextlib.suppress(NetworkError):  # the lab was closed meanwhile
                self._network.run(stop)
        return inbox

    def mailbox(self, address: str, name: str) -> Mailbox:
        """The messages in one of that address's mailboxes. Raises `LabError`, `NoSuchMailbox`."""
        expect("mailbox()", name, str, wanted="a mailbox's name, such as 'INBOX'")
        account, store = self._account(address), self._store

        def read() -> Mailbox:
            if name == "INBOX":
                row = store.ensure_mailbox(account, name)
            else:
                row = store.mailbox(account, name)
            return Mailbox(_message(store, one) for one in store.messages(row.id))

        return self._network.run(read)

    def _account(self, address: str) -> str:
        """The account as it is spelled here, once what has arrived is read.

        Raises `LabError` unless its mail can be read.
        """
        expect("The lab", address, str, wanted="an address, such as 'ana@lab.example'")
        if self.closed:
            raise LabError("This lab is closed; make a new one with Lab().")
        self._network.settle()
        account = self._accounts.spelled(address)
        # A policy may have had mail kept for others.
        if not self._accounts.has(address) and account not in self._network.run(
            self._store.accounts
        ):
            raise LabError(self.no_account(address))
        return account

    def no_account(self, address: str) -> str:
        """The sentence for an address that is no account of this lab's."""
        if not self.accounts:
            return "This lab has no accounts, so it keeps no mail for anybody."
        return f"This lab has no account {address}; it has {', '.join(self.accounts)}."

    # -- the end

    @property
    def closed(self) -> bool:
        """Whether it has given back its ports; its sessions can still be read."""
        return not self._finalizer.alive

    def close(self) -> None:
        """Free ports, thread and files. May be called again."""
        with interrupts.deferred():
            self._finalizer()

    def closes_with(self, function: Callable[[], object]) -> None:
        """Have `function` called first of all when the lab is closed; it mustn't hold the lab.

        Raises `LabError` where that has happened already.
        """
        if not callable(function):
            raise TypeError(f"closes_with() takes a function, not {shown(function)}.")
        if self.closed:
            raise LabError("This lab is closed; make a new one with Lab().")
        self._things.callback(function)

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if self.closed:
            return f"<Lab {self.hostname}, closed>"
        return f"<Lab {self.hostname}: {', '.join(self.listeners)}>"


def _message(store: Store, row: MessageRow) -> Message:
    octets, damage = b"", ""
    try:
        octets = store.octets(row.content)
    except DamagedMessage as error:
        damage = str(error)
    envelope = store.envelope(row.content)
    return Message(octets, row.uid, row.received, row.flags, envelope, damage)


_latest: weakref.ref[Lab] | None = None


def _where_servers_run(network: Network, function: Callable[[], None]) -> Callable[[], None]:
    """Called there; or here, where the network is closed already or can't be asked by the thread
    that collects garbage."""

    def call() -> None:
        try:
            network.run(function)
        except NetworkError:
            function()

    return call
