"""The IMAP server: RFC 3501 and some extensions, by pymap over the lab's store.

- `connection.py`: the dialogue with one client, its limits, STARTTLS and IDLE.
- `atoms.py`: the tokens that commands are made of; `commands.py`: how commands are read;
  `state.py`: what they do.
- `names.py`: mailbox names, and patterns of them.
- `mailboxes.py`: an account's mailboxes over the store; `selected.py`: what one client has been
  told of the mailbox it has selected.
- `messages.py`, `parts.py`, `structure.py`: a message's content, its parts, and how ENVELOPE and
  BODYSTRUCTURE tell of them; `search.py`: which messages SEARCH finds.

pymap is subclassed, never changed. Nothing is shared between labs, and between connections of
one lab nothing but the store.
"""

from __future__ import annotations

import asyncio
from argparse import Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from pymap.concurrent import Subsystem
from pymap.config import BackendCapability, IMAPConfig
from pymap.parsing.commands import Commands
from pysasl import SASLAuth
from pysasl.hashing import Cleartext
from pysasl.mechanism.plain import PlainMechanism

from labserver.listeners import Listener
from labserver.rules import Limits
from labserver.servers.imap.commands import all_commands
from labserver.servers.imap.connection import LINE_OCTETS, Connection
from labserver.servers.imap.state import State
from labserver.servers.reader import Reader
from labserver.servers.setup import Setup

if TYPE_CHECKING:
    import ssl  # only its names: Python in a browser has none


class _Config(IMAPConfig):
    """pymap's settings."""

    def __init__(self, hostname: str, limits: Limits, tls: ssl.SSLContext | None) -> None:
        # Neither threads nor hashes: `Accounts` compares passwords.
        super().__init__(
            Namespace(passlib_cfg=None, proxy_protocol=None),
            host=None,
            port=0,
            ssl_context=tls,
            subsystem=Subsystem.for_asyncio(),
            cpu_subsystem=Subsystem.for_asyncio(),
            hash_context=Cleartext(),
            max_append_len=limits.message,
        )
        self._hostname = hostname

    @classmethod
    def _load_certs(cls, extra: Mapping[str, Any]) -> ssl.SSLContext:
        return cast("ssl.SSLContext", None)  # without TLS there is no context

    @property
    def backend_capability(self) -> BackendCapability:
        """Nothing: `State` says what there is."""
        return BackendCapability(idle=False, object_id=False, multi_append=False)

    @property
    def commands(self) -> Commands:
        return all_commands()

    @property
    def initial_auth(self) -> SASLAuth:
        return SASLAuth([PlainMechanism()])

    @property
    def greeting(self) -> bytes:
        return f"{self._hostname} IMAP server ready".encode()


class ImapServer:
    """Answers the clients of one IMAP listener.

    TLS is offered with STARTTLS, or is on from the first octet where the listener is `implicit`.
    Passwords are taken without TLS too, unless the setup's `plaintext_login` is false.
    """

    def __init__(self, setup: Setup, listener: Listener) -> None:
        self._setup, self._listener = setup, listener
        self._config = _Config(setup.hostname, setup.limits, setup.tls)
        self._commands = self._config.commands

    def factory(self) -> asyncio.Protocol:
        """The protocol of one new connection; to be called on the loop that will run it."""
        return asyncio.StreamReaderProtocol(Reader(LINE_OCTETS), self._connected)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(
            self._commands,
            self._config,
            self._setup,
            cast(Reader, reader),
            writer,
        )
        state = State(self._config, self._setup, self._listener, connection.client, wire=connection)
        try:
            await connection.run(state)
        finally:
            writer.close()
