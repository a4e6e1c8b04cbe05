"""SMTP: the operations, and how each client does them."""

from __future__ import annotations

import asyncio
import platform
import re
import smtplib
from collections.abc import Callable
from dataclasses import dataclass, replace

import aiosmtplib

from labserver.message import Message
from labserver.rules import Limits
from tests.interop.stage import (
    ANA,
    ANAS_PASSWORD,
    BEN,
    KATHE,
    NOBODY,
    WRONG,
    Client,
    Operations,
    Stage,
    Told,
    commands,
    package,
    program,
    spoken,
    swaks_version,
)

HELO = "client.example"
HEADER = (
    b"From: Ana <ana@lab.example>\r\n"
    b"To: Ben <ben@lab.example>\r\n"
    b"Subject: from a real client\r\n"
    b"Date: Tue, 03 Nov 2026 09:00:00 +0000\r\n"
    b"Message-ID: <1@lab.example>\r\n"
)
SHORT = HEADER + b"\r\nHello Ben.\r\n"
EIGHT_BIT = (
    HEADER
    + b"MIME-Version: 1.0\r\n"
    + b"Content-Type: text/plain; charset=utf-8\r\n"
    + b"Content-Transfer-Encoding: 8bit\r\n\r\n"
    + "Grüße aus Köln, привет, 你好\r\n".encode()
)
DOTTED = HEADER + b"\r\n.one dot\r\n..two\r\n.\r\n\r\n.\r\nthe end\r\n"
BIG = HEADER + b"\r\n" + b"All work and no play makes a long message longer.\r\n" * 41_000


@dataclass(frozen=True)
class Mailing:
    """What a client is to send, and how."""

    message: bytes = SHORT
    listener: str = "smtp"
    recipients: tuple[str, ...] = (BEN,)
    mechanism: str = ""
    """PLAIN or LOGIN, as Ana; empty for no login."""
    password: str = ANAS_PASSWORD
    copies: int = 1
    """How many messages, all over one connection."""
    pipelining: bool = False
    chunking: bool = False
    """Send the message with BDAT, in two chunks."""
    notify: str = ""
    """When the recipients' server is to notify (NOTIFY), such as SUCCESS; RET=HDRS goes along."""


Send = Callable[[Stage, Mailing], Told]

operation = Operations("SMTP")
SUBMISSION = Mailing(listener="submission", mechanism="PLAIN")


# -- the operations


def arrived(stage: Stage, told: Told, mailing: Mailing, *recipients: str) -> list[Message]:
    """The messages that have arrived: for each recipient all copies, each octet as it was sent."""
    sent = mailing.message + told.adds
    for recipient in recipients:
        messages = stage.lab.inbox(recipient)
        assert len(messages) == mailing.copies, f"{recipient} has {len(messages)} messages"
        for message in messages:
            trace = message.octets.removesuffix(sent)
            assert trace != message.octets, f"not what was sent: {message.octets[:1000]!r}"
            fields = [row for row in trace.decode().splitlines() if row[0] not in " \t"]
            assert [row.partition(":")[0] for row in fields] == ["Return-Path", "Received"], fields
            assert message.envelope is not None
            assert message.envelope.reverse_path == ANA
            assert message.envelope.recipients == recipients
    return list(stage.lab.inbox(recipients[0]))


def nothing_arrived(stage: Stage) -> None:
    for account in stage.lab.accounts:
        assert not stage.lab.inbox(account), f"{account} has mail"


def submits(stage: Stage, send: Send, mailing: Mailing) -> None:
    """Ana's client logs in and sends; she shows her password under TLS only."""
    told = send(stage, mailing)
    assert told.well, told.text
    (message,) = arrived(stage, told, mailing, BEN)
    assert "with ESMTPSA;" in (message["Received"] or "")
    session = stage.session("SMTP")
    assert (session.listener, session.ending) == (mailing.listener, "")
    assert session.tls.startswith("TLSv1."), "no TLS"
    assert ("STARTTLS" in commands(session)) == (mailing.listener == "submission")
    logins = [line for line in session.lines if line.secret]
    assert logins, "nobody logged in"
    assert all(line.tls for line in logins)
    assert any(row.startswith(f"AUTH {mailing.mechanism}") for row in commands(session))


@operation(
    "Send to the mail exchanger, in plain",
    "A message to one of the lab's accounts, without TLS and login, arrives octet for octet.",
)
def exchanger(stage: Stage, send: Send) -> None:
    told = send(stage, Mailing())
    assert told.well, told.text
    (message,) = arrived(stage, told, Mailing(), BEN)
    assert "SMTP;" in (message["Received"] or "")
    assert stage.session("SMTP").tls == ""
    assert spoken(stage.session("SMTP"))[-2:] == ["C: QUIT", "S: 221"]


@operation(
    "Submit with STARTTLS and AUTH PLAIN",
    "As on port 587; the password travels under TLS only.",
)
def starttls_plain(stage: Stage, send: Send) -> None:
    submits(stage, send, SUBMISSION)


@operation("Submit with STARTTLS and AUTH LOGIN", "The same with the older mechanism.")
def starttls_login(stage: Stage, send: Send) -> None:
    submits(stage, send, replace(SUBMISSION, mechanism="LOGIN"))


@operation("Submit with implicit TLS", "As on port 465, with AUTH PLAIN.")
def implicit_tls(stage: Stage, send: Send) -> None:
    submits(stage, send, replace(SUBMISSION, listener="submissions"))


@operation("Wrong password", "The client reports 535 and sends nothing.")
def wrong_password(stage: Stage, send: Send) -> None:
    told = send(stage, replace(SUBMISSION, password=WRONG))
    assert not told.well
    assert "535" in told.text, told.text
    nothing_arrived(stage)
    rows = spoken(stage.session("SMTP"))
    assert "S: 535" in rows
    assert "C: MAIL" not in rows
    assert WRONG not in stage.session("SMTP").text()


@operation("Unknown recipient", "The client reports 550 and sends nothing.")
def unknown_recipient(stage: Stage, send: Send) -> None:
    told = send(stage, Mailing(recipients=(NOBODY,)))
    assert not told.well
    assert "550" in told.text, told.text
    nothing_arrived(stage)
    rows = spoken(stage.session("SMTP"))
    assert rows.count("S: 550") == 1
    assert "S: 354" not in rows


@operation(
    "Several recipients, one of them unknown",
    "The client reports which one was refused; the others get the message.",
)
def one_refused(stage: Stage, send: Send) -> None:
    mailing = Mailing(recipients=(ANA, NOBODY, BEN))
    told = send(stage, mailing)
    assert NOBODY in told.text, told.text
    assert "550" in told.text, told.text
    arrived(stage, told, mailing, ANA, BEN)
    rows = spoken(stage.session("SMTP"))
    assert rows.count("C: RCPT") == 3
    assert rows.count("S: 550") == 1


@operation("Text of 8 bits", "UTF-8 in the body arrives octet for octet (8BITMIME).")
def eight_bit(stage: Stage, send: Send) -> None:
    mailing = Mailing(EIGHT_BIT)
    told = send(stage, mailing)
    assert told.well, told.text
    arrived(stage, told, mailing, BEN)


@operation("Address in UTF-8", "MAIL says SMTPUTF8, and `käthe@lab.example` gets the message.")
def utf8_address(stage: Stage, send: Send) -> None:
    mailing = Mailing(EIGHT_BIT, recipients=(KATHE,))
    told = send(stage, mailing)
    assert told.well, told.text
    arrived(stage, told, mailing, KATHE)
    (mail,) = [row for row in commands(stage.session("SMTP")) if row.startswith("MAIL FROM:")]
    assert "SMTPUTF8" in mail.split()


@operation("Lines that begin with a dot", "One dot more on the wire, none in the mailbox.")
def dots(stage: Stage, send: Send) -> None:
    mailing = Mailing(DOTTED)
    told = send(stage, mailing)
    assert told.well, told.text
    arrived(stage, told, mailing, BEN)
    (content,) = [line for line in stage.session("SMTP").lines if line.kind == "content"]
    assert content.data == DOTTED.replace(b"\r\n.", b"\r\n..") + told.adds


@operation("PIPELINING", "Both RCPT and DATA leave together, before any of them is answered.")
def pipelining(stage: Stage, send: Send) -> None:
    mailing = Mailing(recipients=(ANA, BEN), pipelining=True)
    told = send(stage, mailing)
    assert told.well, told.text
    arrived(stage, told, mailing, ANA, BEN)
    # The lab may have answered the first before the second has arrived: the client has to tell.
    assert re.search(r"> RCPT TO:.*\n.*> RCPT TO:.*\n.*> DATA", told.text), told.text
    rows = spoken(stage.session("SMTP"))
    assert [row for row in rows if row in ("C: RCPT", "C: DATA")] == ["C: RCPT"] * 2 + ["C: DATA"]


@operation(
    "CHUNKING",
    "BDAT carries the message in two chunks, no dot doubled. smtplib has no call of its own for "
    "it: the test gives it the command to send, and reads the reply.",
)
def chunking(stage: Stage, send: Send) -> None:
    mailing = Mailing(DOTTED, chunking=True)
    told = send(stage, mailing)
    assert told.well, told.text
    arrived(stage, told, mailing, BEN)
    session = stage.session("SMTP")
    rows = spoken(session)
    assert (rows.count("C: BDAT"), rows.count("C: DATA")) == (2, 0)
    assert b"".join(line.data for line in session.lines if line.kind == "content") == DOTTED


@operation("DSN", "RET travels with MAIL and NOTIFY with RCPT; both are kept with the message.")
def dsn(stage: Stage, send: Send) -> None:
    mailing = Mailing(notify="SUCCESS,FAILURE")
    told = send(stage, mailing)
    assert told.well, told.text
    (message,) = arrived(stage, told, mailing, BEN)
    assert message.envelope is not None
    assert "RET=HDRS" in message.envelope.parameters
    ((asked,),) = message.envelope.recipient_parameters
    assert set(asked.removeprefix("NOTIFY=").split(",")) == {"SUCCESS", "FAILURE"}


@operation("A message of 2 MB", "Two million octets arrive as they were sent.")
def big(stage: Stage, send: Send) -> None:
    mailing = Mailing(BIG)
    told = send(stage, mailing)
    assert told.well, told.text
    arrived(stage, told, mailing, BEN)


@operation(
    "A message beyond SIZE",
    "The client reports that it is too big; nothing arrives.",
    Limits(message=100_000),
)
def too_big(stage: Stage, send: Send) -> None:
    told = send(stage, Mailing(BIG))
    assert not told.well
    assert "552" in told.text or "size" in told.text.casefold(), told.text
    nothing_arrived(stage)
    session = stage.session("SMTP")
    assert "S: 552" in spoken(session) or "C: MAIL" not in spoken(session), session.text()


@operation("Many messages over one connection", "Twenty arrive; there was one session.")
def many(stage: Stage, send: Send) -> None:
    mailing = Mailing(copies=20)
    told = send(stage, mailing)
    assert told.well, told.text
    arrived(stage, told, mailing, BEN)
    rows = spoken(stage.session("SMTP"))
    assert (rows.count("C: DATA"), rows.count("S: 354")) == (20, 20)


# -- the clients


def curl(stage: Stage, mailing: Mailing) -> Told:
    letter = stage.keep("letter.eml", mailing.message)
    scheme = "smtps" if mailing.listener == "submissions" else "smtp"
    url = f"{scheme}://127.0.0.1:{stage.port(mailing.listener)}/{HELO}"
    arguments = ["-q", "--verbose", "--no-progress-meter", "--cacert", str(stage.lab.ca)]
    if mailing.mechanism:
        arguments += ["--ssl-reqd", "--user", f"{ANA}:{mailing.password}"]
        arguments += ["--login-options", f"AUTH={mailing.mechanism}"]
    arguments += ["--mail-from", ANA]
    for recipient in mailing.recipients:
        arguments += ["--mail-rcpt", recipient]
    if len(mailing.recipients) > 1:
        arguments += ["--mail-rcpt-allowfails"]
    return stage.run("curl", *arguments, *["--upload-file", str(letter), url] * mailing.copies)


def swaks(stage: Stage, mailing: Mailing) -> Told:
    # It ends the last line itself.
    letter = stage.keep("letter.eml", mailing.message.removesuffix(b"\r\n"))
    arguments = ["--server", "127.0.0.1", "--port", str(stage.port(mailing.listener))]
    arguments += ["--helo", HELO, "--from", ANA, "--to", ",".join(mailing.recipients)]
    arguments += ["--data", f"@{letter}", "--suppress-data"]
    if mailing.listener != "smtp":
        arguments += ["--tls-on-connect" if mailing.listener == "submissions" else "--tls"]
        arguments += ["--tls-verify", "--tls-ca-path", str(stage.lab.ca)]
    if mailing.mechanism:
        arguments += ["--auth", mailing.mechanism]
        arguments += ["--auth-user", ANA, "--auth-password", mailing.password]
    if mailing.pipelining:
        arguments += ["--pipeline"]
    return stage.run("swaks", *arguments)


def msmtp(stage: Stage, mailing: Mailing) -> Told:
    settings = f"""\
account lab
host 127.0.0.1
port {stage.port(mailing.listener)}
domain {HELO}
from {ANA}
set_from_header off
set_date_header off
set_msgid_header off
undisclosed_recipients off
"""
    if mailing.listener != "smtp":
        settings += f"tls on\ntls_trust_file {stage.lab.ca}\n"
        settings += f"tls_starttls {'off' if mailing.listener == 'submissions' else 'on'}\n"
    if mailing.mechanism:
        settings += f"auth {mailing.mechanism.lower()}\nuser {ANA}\npassword {mailing.password}\n"
    if mailing.notify:
        settings += f"dsn_return headers\ndsn_notify {mailing.notify.lower()}\n"
    rc = stage.keep("msmtprc", settings)
    # It is given mail as Unix programs have it, with LF at the ends of lines.
    letter = mailing.message.replace(b"\r\n", b"\n")
    arguments = ["--debug", f"--file={rc}", "--account=lab", "--", *mailing.recipients]
    return stage.run("msmtp", *arguments, stdin=letter)


def smtp_source(stage: Stage, mailing: Mailing) -> Told:
    (recipient,) = mailing.recipients
    letter = stage.keep("letter.eml", mailing.message.replace(b"\r\n", b"\n"))
    arguments = ["-v", "-M", HELO, "-f", ANA, "-t", recipient]
    arguments += ["-F", str(letter), "-m", str(mailing.copies)]
    if mailing.copies > 1:
        arguments += ["-d"]  # one connection for all
    told = stage.run("smtp-source", *arguments, f"inet:127.0.0.1:{stage.port('smtp')}")
    return replace(told, adds=b"\r\n")


def _parameters(mailing: Mailing) -> tuple[list[str], list[str]]:
    """What a caller of Python's clients has to give for MAIL and for RCPT."""
    options = ["SMTPUTF8", "BODY=8BITMIME"] if KATHE in mailing.recipients else []
    if mailing.notify:
        return [*options, "RET=HDRS"], [f"NOTIFY={mailing.notify}"]
    return options, []


def _in_chunks(client: smtplib.SMTP, mailing: Mailing) -> Told:
    client.ehlo()
    assert client.has_extn("CHUNKING")
    replies = [client.mail(ANA), *map(client.rcpt, mailing.recipients)]
    half = len(mailing.message) // 2
    for chunk, last in ((mailing.message[:half], b""), (mailing.message[half:], b" LAST")):
        client.send(b"BDAT %d%s\r\n" % (len(chunk), last) + chunk)
        replies.append(client.getreply())
    return Told(all(code == 250 for code, _ in replies), repr(replies))


def with_smtplib(stage: Stage, mailing: Mailing) -> Told:
    host, port = stage.lab.address(mailing.listener)
    tls = stage.lab.tls
    refused: dict[str, tuple[int, bytes]] = {}
    options, wishes = _parameters(mailing)
    client: smtplib.SMTP
    if mailing.listener == "submissions":
        client = smtplib.SMTP_SSL(host, port, HELO, context=tls)
    else:
        client = smtplib.SMTP(host, port, HELO)
    try:
        with client:
            if mailing.listener == "submission":
                client.starttls(context=tls)
            if mailing.mechanism:
                client.ehlo()
                client.user, client.password = ANA, mailing.password
                challenge = {"PLAIN": client.auth_plain, "LOGIN": client.auth_login}
                client.auth(mailing.mechanism, challenge[mailing.mechanism])
            if mailing.chunking:
                return _in_chunks(client, mailing)
            for _ in range(mailing.copies):
                refused |= client.sendmail(
                    ANA, mailing.recipients, mailing.message, options, wishes
                )
    except smtplib.SMTPException as error:
        return Told(False, repr(error))
    return Told(not refused, repr(refused))


def with_aiosmtplib(stage: Stage, mailing: Mailing) -> Told:
    host, port = stage.lab.address(mailing.listener)

    async def send() -> Told:
        client = aiosmtplib.SMTP(
            hostname=host,
            port=port,
            local_hostname=HELO,
            use_tls=mailing.listener == "submissions",
            start_tls=mailing.listener == "submission",
            tls_context=stage.lab.tls,
        )
        refused: dict[str, aiosmtplib.SMTPResponse] = {}
        options, wishes = _parameters(mailing)
        connection = None
        try:
            async with client:
                connection = client.protocol
                await client.ehlo()
                if mailing.mechanism == "PLAIN":
                    await client.auth_plain(ANA, mailing.password)
                elif mailing.mechanism:
                    await client.auth_login(ANA, mailing.password)
                for _ in range(mailing.copies):
                    to = list(mailing.recipients)
                    sent = await client.sendmail(
                        ANA, to, mailing.message, mail_options=options, rcpt_options=wishes
                    )
                    refused |= sent[0]
        except aiosmtplib.SMTPException as error:
            return Told(False, repr(error))
        finally:
            # It doesn't wait for the end of TLS, and the loop would be closed too early.
            while connection and connection.transport:
                await asyncio.sleep(0)
        return Told(not refused, repr(refused))

    return asyncio.run(send())


_NO_CHUNKING = "sends messages with DATA only"
_NO_DSN = "can't ask for delivery status notifications"
_NO_PIPELINING = "waits for each reply before it speaks again"
_NO_TLS = "knows neither TLS nor AUTH"
_NO_UTF8 = "never says SMTPUTF8"
_GIVES_UP = "gives up the whole message when one recipient is refused"
_ONE_MESSAGE = "sends one message in each run"

CLIENTS = [
    Client(
        "curl",
        program("curl", "--version"),
        curl,
        {"pipelining": _NO_PIPELINING, "chunking": _NO_CHUNKING, "dsn": _NO_DSN},
    ),
    Client(
        "swaks",
        swaks_version,
        swaks,
        {
            "utf8_address": _NO_UTF8,
            "chunking": _NO_CHUNKING,
            "dsn": _NO_DSN,
            "many": _ONE_MESSAGE,
        },
    ),
    Client(
        "msmtp",
        program("msmtp", "--version"),
        msmtp,
        {
            "one_refused": _GIVES_UP,
            "utf8_address": _NO_UTF8,
            "chunking": _NO_CHUNKING,
            "many": _ONE_MESSAGE,
        },
        pipelines=True,
    ),
    Client(
        "smtp-source",
        program("postconf", "-d", "mail_version"),
        smtp_source,
        {
            "starttls_plain": _NO_TLS,
            "starttls_login": _NO_TLS,
            "implicit_tls": _NO_TLS,
            "wrong_password": _NO_TLS,
            "one_refused": _GIVES_UP,
            "utf8_address": _NO_UTF8,
            "pipelining": _NO_PIPELINING,
            "chunking": _NO_CHUNKING,
            "dsn": _NO_DSN,
        },
    ),
    Client(
        "aiosmtplib",
        package("aiosmtplib"),
        with_aiosmtplib,
        {"pipelining": _NO_PIPELINING, "chunking": _NO_CHUNKING},
    ),
    Client("smtplib", platform.python_version, with_smtplib, {"pipelining": _NO_PIPELINING}),
]
