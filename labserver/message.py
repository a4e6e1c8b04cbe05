"""A delivered message as plain data, and its text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.policy import EmailPolicy, Policy
from typing import Any

from labserver import normal_form
from labserver.charsets import IDENTITY, decoded, unstructured
from labserver.fields import texts_of, unfolded
from labserver.given import expect
from labserver.mime import Part
from labserver.transcript import readable

_LONGEST_DECODED = 64 * 1024
"""Octets of a field that is decoded; a longer one is given as it came."""
_LONGEST_PARSED = 4_000
"""Characters of a field that Python's header classes read; they take much longer than linear."""
_MOST_BLOCKS = 1_000
_MOST_LINES = 1_000
_LONGEST_LINE = 1_000
"""Octets of a line that are shown; RFC 5322 section 2.1.1 allows 998."""
_BLANK_LINES = re.compile(rb"\n\r?\n[\r\n]*+")
_FIELD_NAME = re.compile(r"[!-9;-~]+")


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


@dataclass(frozen=True, slots=True, repr=False)
class Attachment:
    """A part of a message that is neither its text nor its HTML."""

    name: str
    """The file's name as the sender gave it, decoded; empty where it gave none."""
    type: str
    """The media type in lower case, such as `application/pdf` (RFC 2046)."""
    octets: bytes
    """Its content out of its transfer encoding; a message within the message as it came."""

    def __repr__(self) -> str:
        return f"<Attachment {self.name!r}: {self.type}, {len(self.octets):,} octets>"


@dataclass(frozen=True, slots=True, repr=False)
class Message:
    """A message as it lies in a mailbox.

    `message["Subject"]` gives a header field, `message.text` and `message.html` its body,
    `message.attachments` the rest; `bytes(message)` every octet, `print(message)` readable text.
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
    def text(self) -> str:
        """The body as plain text, decoded, with `\\n` as line end; empty where it has none."""
        part = _text_part(Part(self.octets))
        return _lines(part.text()) if part else ""

    @property
    def html(self) -> str:
        """The body as HTML, decoded, with `\\n` as line end; empty where it has none.

        It is what the sender wrote and may do harm in a browser.
        """
        part = Part(self.octets).body_part(b"html")
        return _lines(part.text()) if part else ""

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """What is neither its text nor its HTML, in order; a message within it is one of them.

        Of a message with more than 1,000 parts the last one holds all further ones as they came.
        """
        whole = Part(self.octets)
        body = _text_part(whole), whole.body_part(b"html")
        return tuple(
            Attachment(part.name, part.kind, part.content())
            for part in whole.walk()
            if part.is_leaf and part not in body and not part.messages_around(whole)
        )

    @property
    def email(self) -> EmailMessage:
        """The message as the standard library's `EmailMessage`.

        Its `as_bytes` gives what came, with LF as line end, and without lines in the header that
        are no field. What isn't taken apart is text there: what nests more than
        100 deep, and all parts after the first 1,000 as one; and a header field of more than 4,000
        characters, or one that Python can't read.
        """
        return _as_email(Part(self.octets))

    def __getitem__(self, field: str) -> str | None:
        """The first field of that name, its encoded words read (RFC 2047), else as it came.

        One of more than 64 kB is given as it came; `None` where there is no such field. Raises
        `TypeError` for what is no text.
        """
        expect("message[…]", field, str, wanted="a field's name, such as 'Subject'")
        name = field.encode("utf-8", "replace").lower()
        value = Part(self.octets).first(name) if _FIELD_NAME.fullmatch(field) else None
        if value is None:
            return None
        return _as_text(value)

    def __bytes__(self) -> bytes:
        return self.octets

    def __str__(self) -> str:
        """At most 1,000 lines of 1,000 octets each; what is left out is said."""
        if self.damage:
            return self.damage
        rows: list[str] = []
        start, end = 0, len(self.octets.removesuffix(b"\n"))
        while start <= end and len(rows) < _MOST_LINES:
            line_end = self.octets.find(b"\n", start, end)
            line_end = end if line_end < 0 else line_end
            row = self.octets[start : min(line_end, start + _LONGEST_LINE)]
            more = line_end - start - len(row)
            text = readable(row if more else row.removesuffix(b"\r"))
            rows.append(normal_form.shown(text) + (f"… ({more:,} more octets)" if more else ""))
            start = line_end + 1
        if start <= end:
            more = self.octets.count(b"\n", start, end) + 1
            rows.append(f"({more:,} more {'lines' if more > 1 else 'line'} not shown)")
        return "\n".join(rows)

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
    text = "(none)" if field is None else field
    more = len(text) - _LONGEST_LINE
    shown = readable(text[:_LONGEST_LINE].encode("utf-8", "backslashreplace"))
    return f"{shown}… ({more:,} more characters)" if more > 0 else shown


def _as_text(value: bytes) -> str:
    if len(value) > _LONGEST_DECODED:
        return decoded(value)
    return unstructured(value)


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n")


def _text_part(whole: Part) -> Part | None:
    part = whole.body_part(b"plain") or whole.body_part()
    return None if part is None or part.subtype == b"html" else part


# -- as the standard library's message


class _ContentField(str):
    """A Content-… field as it came, with what Python's header classes tell of one."""

    name: str
    octets: bytes
    content_type: str
    maintype: str
    subtype: str
    content_disposition: str
    cte: str
    params: dict[str, str]
    defects: tuple[Exception, ...] = ()

    @classmethod
    def read(cls, name: str, octets: bytes) -> _ContentField:
        part = Part(name.encode("ascii", "surrogateescape") + b":" + octets + b"\n\n")
        made = cls(decoded(octets))
        made.name, made.octets, made.cte = name, octets, part.encoding.decode("latin-1")
        made.content_type, made.content_disposition = part.kind, part.disposition
        made.maintype, _, made.subtype = part.kind.partition("/")
        made.params = texts_of(part.disposition_parameters or part.parameters)
        return made


_CONTENT_FIELDS = ("content-type", "content-disposition", "content-transfer-encoding")


class _Policy(EmailPolicy):
    """Gives a field as it came where Python's header classes fail, lose some of it or take long."""

    def header_fetch_parse(self, name: str, value: Any) -> Any:
        if hasattr(value, "name"):
            return value
        octets = unfolded(value.encode("utf-8", "surrogateescape"))
        if name.lower() in _CONTENT_FIELDS:
            return _ContentField.read(name, octets)
        if len(value) <= _LONGEST_PARSED:
            try:
                found = super().header_fetch_parse(name, decoded(octets))
                if name.lower() != "message-id" or str(found).encode() == octets:
                    return found
            except Exception:
                pass  # it trips over some malformed fields
        return _as_text(octets)


_POLICY = _Policy(refold_source="none")


class _Email(EmailMessage):
    """A message or a part of one, read by `mime`."""

    kept_kind = ""
    """What it is taken for where it isn't taken apart."""

    def get_content_type(self) -> str:
        said = getattr(self.get("content-type"), "content_type", "")
        return self.kept_kind or said or self.get_default_type()

    def _get_params_preserve(self, failobj: Any, header: str) -> Any:
        field = self.get(header)
        if field is None:
            return failobj
        params = dict(getattr(field, "params", {}))
        return [(str(field).partition(";")[0].strip(), ""), *map(_quoted, params.items())]

    def as_bytes(self, unixfrom: bool = False, policy: Policy | None = None) -> bytes:
        if isinstance(policy, EmailPolicy):
            policy = policy.clone(refold_source="none")
        return super().as_bytes(unixfrom, policy)


def _quoted(parameter: tuple[str, str]) -> tuple[str, str]:
    name, value = parameter
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return name, f'"{escaped}"'


def _as_email(part: Part) -> _Email:
    made = _header_of(part)
    if part.type == b"message" and part.subtype == b"delivery-status":
        made.set_payload([_block(one) for one in _blocks(part)])
    elif part.parts:
        made.set_payload([_as_email(inner) for inner in part.parts])
        if part.is_multipart:
            _add_surroundings(made, part)
    else:
        made.set_payload(_source(part.body))
        if part.is_closed or part.type == b"message":
            made.kept_kind = (
                "text/plain" if part.encoding in IDENTITY else "application/octet-stream"
            )
    return made


def _header_of(part: Part) -> _Email:
    made = _Email(policy=_POLICY)
    if part.is_in_digest:
        made.set_default_type("message/rfc822")
    for name, value in part.sources():
        made.set_raw(_source(name), _source(value.lstrip(b" \t").rstrip(b"\r\n")))
    return made


def _add_surroundings(made: _Email, part: Part) -> None:
    """What stands before the first boundary and after the last one."""
    preamble, epilogue = part.surroundings
    made.preamble = None if preamble is None else _source(preamble)
    made.epilogue = None if epilogue is None else _source(epilogue)


def _blocks(part: Part) -> list[bytes]:
    """The groups of fields in a delivery status (RFC 3464 section 2.1)."""
    blocks = _BLANK_LINES.split(part.body.strip(b"\r\n"), _MOST_BLOCKS)
    return [block + b"\n\n" for block in blocks]


def _block(octets: bytes) -> _Email:
    part = Part(octets)
    made = _header_of(part)
    made.set_payload(_source(part.body.strip(b"\r\n")))
    return made


def _source(octets: bytes) -> str:
    return octets.decode("ascii", "surrogateescape")
