"""What a lab refuses: limits as plain values that are given to a lab."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a lab takes and keeps. Octets and seconds; each has its reply or its sentence."""

    message: int = 32 * 1024 * 1024
    """Octets of one message; beyond it SMTP answers 552 (RFC 1870 section 6)."""
    recipients: int = 100
    """Recipients of one message; beyond it 452 (RFC 5321 section 4.5.3.1.8)."""
    connections: int = 200
    """Connections open at once on one listener; one more is told to come back later."""
    smtp_idle: float = 300.0
    """Seconds an SMTP client may say nothing (RFC 5321 section 4.5.3.2.7)."""
    pop3_idle: float = 600.0
    """Seconds a POP3 client may say nothing (RFC 1939 section 3)."""
    imap_idle: float = 1800.0
    """Seconds an IMAP client may say nothing (RFC 3501 section 5.4)."""
    sessions: int = 1000
    """Sessions kept in `lab.sessions`; the oldest is dropped for one more."""
    transcript_body: int = 64 * 1024
    """Octets of each message body that its transcript keeps."""
    transcript: int = 4 * 1024 * 1024
    """Octets of one session that its transcript keeps."""

    def __post_init__(self) -> None:
        for name, field in self.__dataclass_fields__.items():
            kinds = (int, float) if field.type == "float" else (int,)
            value = getattr(self, name)
            # `not >` refuses nan as well.
            if type(value) not in kinds or not value > 0:
                whole = "a number" if float in kinds else "a whole number"
                raise ValueError(f"The limit {name} must be {whole} above 0, not {value!r}.")
