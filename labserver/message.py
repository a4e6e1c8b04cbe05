"""A delivered message as plain data, and its stable text."""

from __future__ import annotations

import email
import email.policy
import re
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.parser import BytesHeaderParser
from typing import Any

from labserver.transcript import readable, stable

_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_LONGEST_DECODED = 4000
"""Characters of a field; to decode more takes Python's parser long, and memory without bound."""
_DEEPEST = 100
"""Parts within parts; deeper ones than any real mail has would take all of Python's stack."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """Whom a message came from and for, as SMTP said it (RFC 5321 section 2.3.1)."""

    reverse_path: str
    """The address in MAIL FROM; empty for the null reverse-path."""
    recipients: tuple[str, ...]
    """The accepted addresses of RCPT TO."""
    parameters: tuple[str, ...] = ()
    """What MAIL FROM said besides, such as `RET=HDRS` and `ENVID=…` (RFC 3461 section 4)."""
    recipient_parameters: tuple[tuple[str, ...], ...] = ()
    """The same of each RCPT TO, such as `NOTIFY=NEVER`; empty where none said anything."""


class _Part(EmailMessage):
    """A message or a part of one that knows how deep it lies."""

    _depth = 0

    def attach(self, payload: Any) -> None:
        super().attach(payload)
        payload._depth = self._depth + 1

    def get_content_type(self) -> str:
        """What Python's parser goes by, and goes into parts by."""
        kind = super().get_content_type()
        nests = kind.startswith(("multipart/", "message/"))
        return "text/plain" if nests and self._depth >= _DEEPEST else kind


_POLICY = email.policy.default.clone(message_factory=_Part)


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
    damage: str = ""
    """One sentence where its octets were damaged on the disk; it then has none."""

    @property
    def email(self) -> EmailMessage:
        """The message as the standard library's `EmailMessage`.

        What nests more than 100 deep isn't taken apart there: it is text.
        """
        return email.message_from_bytes(self.octets, policy=_POLICY)

    def __getitem__(self, field: str) -> str | None:
        """The first field of that name, decoded; as it came where it is malformed or very long."""
        # Python's parser would go into all parts, and has no more stack where they nest deeply.
        header = _BLANK_LINE.split(self.octets, maxsplit=1)[0]
        raw = BytesHeaderParser().parsebytes(header)[field]
        if raw is None or len(str(raw)) > _LONGEST_DECODED:
            return None if raw is None else str(raw)
        try:
            return str(BytesHeaderParser(policy=email.policy.default).parsebytes(header)[field])
        except Exception:
            # It trips over some malformed fields, too.
            return str(raw)

    def __bytes__(self) -> bytes:
        return self.octets

    def __str__(self) -> str:
        if self.damage:
            return self.damage
        rows = self.octets.removesuffix(b"\r\n").split(b"\r\n")
        return "\n".join(stable(readable(row)) for row in rows)

    def __repr__(self) -> str:
        return f"<Message {self.uid}: {self.damage or _shown(self['Subject'])}>"


class Mailbox(tuple[Message, ...]):
    """The messages of a mailbox, oldest first."""

    __slots__ = ()

    def __str__(self) -> str:
        if not self:
            return "The mailbox is empty."
        return "\n".join(
            f"{number}. "
            + (message.damage or f"from {_shown(message['From'])}: {_shown(message['Subject'])}")
            for number, message in enumerate(self, 1)
        )

    __repr__ = __str__


def _shown(field: str | None) -> str:
    return readable((field or "(none)").encode("utf-8", "backslashreplace"))
