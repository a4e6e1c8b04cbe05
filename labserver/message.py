"""A delivered message as plain data, and its stable text."""

from __future__ import annotations

import email
import email.policy
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage

from labserver.transcript import readable, stable


@dataclass(frozen=True, slots=True)
class Envelope:
    """Whom a message came from and for, as SMTP said it (RFC 5321 section 2.3.1)."""

    reverse_path: str
    """The address in MAIL FROM; empty for the null reverse-path."""
    recipients: tuple[str, ...]
    """The accepted addresses of RCPT TO."""


@dataclass(frozen=True, slots=True, repr=False)
class Message:
    """A message as it lies in a mailbox.

    `message["Subject"]` gives a header field, `bytes(message)` every octet, `print(message)`
    readable text.
    """

    octets: bytes
    uid: int
    received: datetime
    flags: frozenset[str]
    envelope: Envelope | None
    """`None` where it didn't come by SMTP."""

    @property
    def email(self) -> EmailMessage:
        """The message as the standard library's `EmailMessage`."""
        return email.message_from_bytes(self.octets, policy=email.policy.default)

    def __getitem__(self, field: str) -> str | None:
        try:
            value = self.email[field]
        except Exception:
            # Python's parser trips over some malformed fields; they are given as they came.
            value = email.message_from_bytes(self.octets)[field]
        return None if value is None else str(value)

    def __bytes__(self) -> bytes:
        return self.octets

    def __str__(self) -> str:
        rows = self.octets.removesuffix(b"\r\n").split(b"\r\n")
        return "\n".join(stable(readable(row)) for row in rows)

    def __repr__(self) -> str:
        return f"<Message {self.uid}: {_shown(self['Subject'])}>"


class Mailbox(tuple[Message, ...]):
    """The messages of a mailbox, oldest first."""

    __slots__ = ()

    def __str__(self) -> str:
        if not self:
            return "The mailbox is empty."
        return "\n".join(
            f"{number}. from {_shown(message['From'])}: {_shown(message['Subject'])}"
            for number, message in enumerate(self, 1)
        )

    __repr__ = __str__


def _shown(field: str | None) -> str:
    return readable((field or "(none)").encode("utf-8", "backslashreplace"))
