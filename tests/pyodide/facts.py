"""What a lab does in a Python without TLS, threads and sockets, as facts that JSON can carry.

`guard.mjs` collects them in Pyodide, `tests/test_pyodide.py` says what they have to be.
"""

from __future__ import annotations

import asyncio
import imaplib
import importlib
import os
import pkgutil
import poplib
import smtplib
import sys
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import labserver
from labserver import Lab, LabError, Session, show
from labserver.notebook.typed import converse

ANA, BEN = "ana@lab.example", "ben@lab.example"
MISSING = "nobody@lab.example"
FOREIGN = "somebody@elsewhere.example"


def normal(sessions: tuple[Session, ...]) -> list[str]:
    """The dialogues in normal form, for one smtplib writes MAIL where another writes mail."""
    os.environ["LABSERVER_OUTPUT"] = "normal"
    try:
        return [str(session) for session in sessions]
    finally:
        del os.environ["LABSERVER_OUTPUT"]


def facts() -> dict[str, Any]:
    """All of them; only in Pyodide is there a running loop and `imaplib.IMAP4.idle`."""
    first = Lab()
    found: dict[str, Any] = {
        "platform": sys.platform,
        "python": sys.version_info[:2],
        "running loop": asyncio._get_running_loop() is not None,
        "network": type(first.network).__name__,
        "can": [name for name in ("tls", "threads", "sockets") if name in first.can],
        "listeners": list(first.listeners),
        "no TLS": {name: refusal(first, name) for name in ("submission", "imaps", "tls", "ca")},
        "there and back": there_and_back(first),
        "sessions": normal(first.sessions),
        "in Jupyter": [show(session).html for session in first.sessions],
        "closed": [session.closed for session in first.sessions],
        "modules": modules(),
    }
    first.close()
    found["closed lab"] = refused_connection(first)

    with Lab() as second:
        found["second lab"] = len(second.inbox(BEN))
        found["refused"] = refused(second)
        found["long message"] = long_message(second)
        found["typed"] = str(converse(second, "pop3", "STAT\nQUIT\nNOOP\n", login=BEN))
        if hasattr(imaplib.IMAP4, "idle"):
            found["idle"] = idle(second)
    return found


def letter(subject: str, text: str) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = ANA, BEN, subject
    message.set_content(text)
    return message


def refusal(lab: Lab, name: str) -> str:
    """Why the lab hasn't got it."""
    try:
        return repr(getattr(lab, name))
    except LabError as error:
        return str(error)


def there_and_back(lab: Lab) -> dict[str, Any]:
    """Send with smtplib, read with poplib and imaplib."""
    password = lab.accounts[BEN]
    with smtplib.SMTP(*lab.smtp) as smtp:
        smtp.send_message(letter("Grüße", "Hello Ben\n.a line with a dot\n"))
    pop3 = poplib.POP3(*lab.pop3)
    pop3.user(BEN)
    pop3.pass_(password)
    retrieved = b"\r\n".join(pop3.retr(1)[1]) + b"\r\n"
    pop3.quit()
    with imaplib.IMAP4(*lab.imap) as imap:
        imap.login(BEN, password)
        imap.select()
        fetched = imap.fetch("1", "(RFC822)")[1][0]
        imap.store("1", "+FLAGS", r"(\Flagged)")
        found = imap.search(None, "FLAGGED", "SUBJECT", "Gr")[1]
    stored = lab.inbox(BEN)[0].octets
    message = message_from_bytes(stored, policy=policy.default)
    return {
        "reverse-path": message["Return-Path"],
        "subject": message["Subject"],
        "text": message.get_content().splitlines(),
        "same by POP3": retrieved == stored,
        "same by IMAP": isinstance(fetched, tuple) and fetched[1] == stored,
        "flagged": found[0].decode(),
    }


def refused_connection(lab: Lab) -> str:
    """What a client hears from a lab that is closed."""
    try:
        smtplib.SMTP(*lab.smtp)
    except OSError as error:
        return type(error).__name__
    return "connected"


def refused(lab: Lab) -> list[Any]:
    """The replies to one good recipient and two others, and how many got the message."""
    with smtplib.SMTP(*lab.smtp) as smtp:
        replies = smtp.send_message(letter("To three", "Hello\n"), to_addrs=[MISSING, BEN, FOREIGN])
    codes = {address: f"{code} {text.decode()}"[:9] for address, (code, text) in replies.items()}
    return [codes, len(lab.inbox(BEN))]


def long_message(lab: Lab) -> dict[str, int]:
    """A message beyond the transcript's 64 KiB: octets sent, counted and kept there."""
    text = "".join(f"{number:06} {'x' * 60}\n" for number in range(3000))
    with smtplib.SMTP(*lab.smtp) as smtp:
        smtp.send_message(letter("Long", text))
    body = max(lab.sessions[-1].lines, key=lambda line: line.octets)
    stored = lab.inbox(BEN)[-1].octets.replace(b"\r\n", b"\n")
    return {
        "sent": len(text),
        "whole": stored.endswith(b"\n\n" + text.encode()),
        "counted": body.octets,
        "kept": len(body.data),
    }


def idle(lab: Lab) -> list[str]:
    """What an idling client is told when mail comes, and then when none does (RFC 2177)."""
    with imaplib.IMAP4(*lab.imap) as imap:
        imap.login(BEN, lab.accounts[BEN])
        imap.select()
        with imap.idle(duration=60) as idler:
            with smtplib.SMTP(*lab.smtp) as smtp:
                smtp.send_message(letter("News", "Hello\n"))
            return [kind for kind, _ in idler]


def modules() -> dict[str, str]:
    """labserver's modules that can't be imported, with the module that each lacks."""
    lacking = {}
    for module in pkgutil.walk_packages(labserver.__path__, "labserver."):
        if module.name.endswith(".__main__"):
            continue
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            lacking[module.name] = error.name or ""
    return lacking
