"""Sends a message as a mail program does, and tells what came of it."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import format_datetime, getaddresses
from typing import Literal

from labserver.lab import Lab, LabError
from labserver.network import NetworkError
from labserver.transcript import Session, readable

Via = Literal["submission", "smtp"]

SECONDS = 30.0
"""How long a reply is waited for: longer than a fault that only delays."""

_CLIENT = "client.example"
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Done:
    """What came of something: one sentence, and the session that it caused."""

    sentence: str
    well: bool
    session: Session | None = None
    """None where no connection came about."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What is to be sent."""

    sender: str
    to: str
    """One address, or more with commas between them."""
    subject: str = ""
    body: str = ""

    @property
    def recipients(self) -> list[str]:
        """The addresses of `to`, without names beside them."""
        return [address for _, address in getaddresses([self.to]) if address]

    def message(self, lab: Lab, number: int) -> EmailMessage:
        """The message with that number, dated by the lab's clock.

        Raises ValueError for what no header can hold.
        """
        message = EmailMessage()
        message["From"] = self.sender
        message["To"] = self.to
        message["Subject"] = self.subject
        message["Date"] = format_datetime(lab.network.clock.now())
        message["Message-ID"] = f"<{number}@{_CLIENT}>"
        message.set_content(self.body or "\n")
        return message


def send(lab: Lab, draft: Draft, via: Via = "submission") -> Done:
    """Send it: to the submission server with STARTTLS and AUTH (RFC 6409), or as another mail
    server would to the mail exchanger, which asks nobody who he is.

    Raises nothing that a wrong address, a refusal or a broken connection causes.
    """
    if not draft.recipients:
        return Done("To has no address in it; write one, such as ben@lab.example.", False)
    if via == "submission" and draft.sender not in lab.accounts:
        known = ", ".join(lab.accounts)
        which = f"From is one of {known}" if known else "this lab has none"
        return Done(f"Only the lab's accounts may submit mail; {which}.", False)
    before = last_number(lab)
    try:
        message = draft.message(lab, before + 1)
        with smtplib.SMTP(*lab.address(via), local_hostname=_CLIENT, timeout=SECONDS) as client:
            client.ehlo()
            if via == "submission":
                client.starttls(context=lab.tls)
                client.login(draft.sender, lab.accounts[draft.sender])
            refused = client.send_message(message, draft.sender, draft.recipients)
    except (smtplib.SMTPException, OSError, ValueError, LabError, NetworkError) as error:
        return Done(_why(error), False, caused(lab, via, before))
    session = caused(lab, via, before)
    if refused:
        return Done(f"Sent, but not to all: {_refusals(refused)}.", False, session)
    return Done(f"Sent: the server has taken it for {', '.join(draft.recipients)}.", True, session)


def last_number(lab: Lab) -> int:
    """The number of the latest session; 0 where there was none."""
    sessions = lab.sessions
    return sessions[-1].number if sessions else 0


def caused(lab: Lab, listener: str, before: int) -> Session | None:
    """The first session on that listener after number `before`."""
    mine = (one for one in lab.sessions if one.number > before and one.listener == listener)
    return next(mine, None)


def connection_lost(error: BaseException) -> str:
    """Why a connection ended, in a sentence."""
    if isinstance(error, TimeoutError):
        return f"The server said nothing for {SECONDS:g} seconds, so the client gave up."
    if isinstance(error, ConnectionRefusedError):
        return "Nobody listens there; is the lab still open?"
    if isinstance(error, ssl.SSLError):
        return f"TLS could not be started: {(error.reason or 'it broke off').lower()}."
    return "The connection broke off before the server had answered."


def reply(code: int, text: bytes | str) -> str:
    """A reply as it is quoted in a sentence."""
    octets = text if isinstance(text, bytes) else text.encode("utf-8", "backslashreplace")
    said = readable(b" ".join(octets.split()))
    said = said if len(said) <= _SHOWN else f"{said[: _SHOWN - 1]}…"
    return f"{code} {said}".rstrip(". ")


def _refusals(refused: dict[str, tuple[int, bytes]]) -> str:
    return "; ".join(f"{address} got {reply(*answer)}" for address, answer in refused.items())


def _why(error: Exception) -> str:
    match error:
        case smtplib.SMTPRecipientsRefused():
            return f"Not sent: {_refusals(error.recipients)}."
        case smtplib.SMTPSenderRefused():
            answer = reply(error.smtp_code, error.smtp_error)
            return f"Not sent: the sender {error.sender} got {answer}."
        case smtplib.SMTPAuthenticationError():
            return f"Not sent: the login got {reply(error.smtp_code, error.smtp_error)}."
        case smtplib.SMTPResponseException():
            return f"Not sent: the server said {reply(error.smtp_code, error.smtp_error)}."
        case smtplib.SMTPNotSupportedError():
            return "Not sent: the server doesn't offer what this message or its login needs."
        case smtplib.SMTPServerDisconnected():
            lost = error.__context__
            return f"Not sent. {connection_lost(lost or error)}"
        case LabError() | NetworkError():
            return f"Not sent. {error}"
        case OSError():
            return f"Not sent. {connection_lost(error)}"
    return "Not sent: an address or the subject has something in it that no header can hold."


def listeners(lab: Lab) -> Sequence[Via]:
    """Where this lab takes mail; without TLS there is no submission."""
    return ("submission", "smtp") if "submission" in lab.listeners else ("smtp",)
