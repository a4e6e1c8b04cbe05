"""Carries out, in all three servers, what a lab's rules want.

What they want, `rulebook.py` says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import NoReturn

from labserver.rules import Action, Occasion
from labserver.servers.rulebook import Rulebook
from labserver.servers.setup import Client


class Interpreter:
    """What the rules want at one command after another of one connection, and its doing.

    `last_words` is called with octets (none, or a reply with its CRLF) when a rule ends the
    connection: it is to send these instead of all that hasn't been sent yet. What ends it then is
    a `ConnectionAbortedError`.
    """

    def __init__(
        self, rulebook: Rulebook, client: Client, last_words: Callable[[bytes], None]
    ) -> None:
        self._rulebook, self._client, self._last_words = rulebook, client, last_words
        self._passed = 0
        """Octets of the command's content that have passed, in or out."""
        self.action: Action | None = None
        """What the rules want at the command being obeyed; `None` where they want nothing."""

    @property
    def has_rules(self) -> bool:
        """Whether there are any, so that they have to be asked."""
        return bool(self._rulebook.written)

    def ask(
        self,
        command: str,
        address: str,
        *,
        reverse_path: str | None = None,
        recipients: int = 0,
        text: str = "",
    ) -> None:
        """Ask what they want at this command, about that address; see `Occasion`."""
        client = self._client
        self._passed = 0
        self.action = self._rulebook.ask(
            Occasion(
                client.protocol,
                command,
                address,
                client.address,
                logged_in=bool(client.login),
                reverse_path=reverse_path,
                recipients=recipients,
                text=text,
            )
        )

    def forget(self) -> None:
        """The next command begins; nothing is wanted yet."""
        self.action, self._passed = None, 0

    def not_taken(self) -> None:
        """The message under way came to nothing: it doesn't count against a quota."""
        if self.action is not None:
            self.action.not_taken()

    async def refusal(self) -> str:
        """Wait or hang up before a command is obeyed, if that is wanted.

        Returns the reply that is to be given instead of obeying it; empty where there is none.
        """
        action = self.action
        if action is None:
            return ""
        if action.delay:
            try:
                await self._client.pause(action.delay)
            except asyncio.CancelledError:
                action.not_taken()
                raise
        if action.disconnect == "before":
            self.hang_up()
        return action.reply if action.refuses else ""

    def instead_of(self, reply: str) -> str:
        """A reply that the server is about to give, or the one that a rule has for it."""
        return reply if self.action is None else self.action.instead_of(reply)

    def answers(self) -> None:
        """Hang up if a rule wants the client not to hear of what has been done."""
        if self.action is not None and self.action.disconnect == "after":
            self.hang_up()

    def hang_up(self) -> NoReturn:
        """End the connection with the rule's last words. Raises `ConnectionAbortedError`."""
        words = self.action.reply if self.action is not None else ""
        self._last_words(words.encode() + b"\r\n" if words else b"")
        raise ConnectionAbortedError("A rule ended the connection.")

    # -- content that the client sends

    async def begin_content(self) -> None:
        """The client has been told to go on; its content is to be read now."""
        if self.action is not None:
            if self.action.stall and not self._passed:
                await self._client.pause(self.action.stall)
            await self.passed(0)

    def portion(self, most: int) -> int:
        """How many octets of content may be read at once, of at most so many."""
        action = self.action
        if action is None:
            return most
        if action.pace:
            most = min(most, max(1, int(action.pace)))
        if action.disconnect == "inside":
            most = min(most, action.octets - self._passed)
        return most

    async def passed(self, octets: int) -> None:
        """So many octets more have been read; wait or hang up, if that is wanted."""
        action = self.action
        if action is None:
            return
        self._passed += octets
        if action.pace and octets:
            await self._client.pause(octets / action.pace)
        if action.disconnect == "inside" and self._passed >= action.octets:
            self.hang_up()

    def content_has_come(self) -> None:
        """All of it was read: from here on nothing is to happen inside it."""
        if self.action is not None:
            inside = self.action.disconnect == "inside"
            when = "" if inside else self.action.disconnect
            self.action = replace(self.action, pace=0.0, disconnect=when)

    # -- content that the server sends

    async def send(self, octets: bytes, write: Callable[[bytes], None]) -> None:
        """Write an answer as far and as fast as the rules let it.

        `write` raises `ConnectionError` where nobody is left to read it.
        """
        action = self.action
        if action is None:
            write(octets)
            return
        if octets:
            self.answers()
        for piece, seconds in action.portions(octets, self._passed):
            write(piece)
            self._passed += len(piece)
            await asyncio.sleep(seconds)
        if action.disconnect == "inside" and self._passed >= action.octets:
            self.hang_up()
