"""Bounces of many mail servers: who wasn't reached, what was replied, and to which command.

The samples are written here, around the phrases that each kind of server always uses.
"""

from __future__ import annotations

import base64
import quopri
import textwrap

import pytest

from labserver import Log, read_log, show
from labserver.logs.bounce import DELAY

DAEMON = "Mail Delivery System <MAILER-DAEMON@mx.lab.example>"
BOB = "bob@customer.example"
RETURNED = """
Return-Path: <ana@shop.example>
Received: from ana-pc (localhost [127.0.0.1]) by mx.lab.example; Mon, 5 Jan 2026 10:00:00 +0000
From: Ana <ana@shop.example>
To: bob@customer.example
Subject: order 17
Message-ID: <17@shop.example>

Hello Bob
"""


def mail(
    body: str,
    sender: str = DAEMON,
    subject: str = "Undelivered Mail Returned to Sender",
    header: str = "",
) -> str:
    """A message around a text."""
    return (
        f"Return-Path: <>\nFrom: {sender}\nTo: ana@shop.example\nSubject: {subject}\n"
        f"Date: Mon, 5 Jan 2026 10:00:01 +0000\n{textwrap.dedent(header).strip()}".rstrip("\n")
        + f"\n\n{textwrap.dedent(body).strip()}\n"
    )


def report(fields: str, words: str = "It could not be delivered.", kind: str = "") -> str:
    """A delivery status notification (RFC 3464)."""
    kind = kind or "message/delivery-status"
    return mail(
        f"--b1\nContent-Type: text/plain\n\n{textwrap.dedent(words).strip()}\n\n"
        f"--b1\nContent-Type: {kind}\n\n{textwrap.dedent(fields).strip()}\n\n"
        f"--b1\nContent-Type: message/rfc822\n{RETURNED}\n--b1--",
        header="MIME-Version: 1.0\n"
        "Content-Type: multipart/report; report-type=delivery-status; boundary=b1",
    )


def told(log: Log) -> list[tuple[str, str, str]]:
    """For each session the recipient, the last reply's beginning, and what it answered."""
    found = []
    for session in log.sessions:
        lines = [line.data.decode().strip() for line in session.lines]
        asked = [line for line in lines if line.startswith("RCPT TO:")]
        recipient = asked[-1][9:-1] if asked else session.ending
        spoken = [(line.who, line.data.decode().strip()) for line in session.lines]
        last = next((text for who, text in reversed(spoken) if who == "C"), "greeting")
        reply = spoken[-1][1] if spoken and spoken[-1][0] == "S" else ""
        found.append((recipient, reply, last.split(":")[0].split(" ")[0]))
    return found


def one(text: str) -> tuple[str, str, str]:
    log = read_log(text)
    assert log.kind == "a bounce"
    (only,) = told(log)
    return only


# -- words alone, by kind of server

WORDS = {
    "Exim, after RCPT": (
        """
        This message was created automatically by mail delivery software.

        A message that you sent could not be delivered to one or more of its
        recipients. This is a permanent error. The following address(es) failed:

          bob@customer.example
            host mx.customer.example [192.0.2.7]
            SMTP error from remote mail server after RCPT TO:<bob@customer.example>:
            550 5.1.1 no mailbox by that name

        ------ This is a copy of the message, including all the headers. ------
        """,
        (BOB, "550 5.1.1 no mailbox by that name", "RCPT"),
    ),
    "Exim, at the end of the data": (
        """
        A message that you sent could not be delivered to one or more of its
        recipients. This is a permanent error. The following address(es) failed:

          bob@customer.example
            host mx.customer.example [192.0.2.7]
            SMTP error from remote mail server after end of data:
            554 looks like spam
        """,
        (BOB, "554 looks like spam", "."),
    ),
    "Exim, pipelined MAIL": (
        """
        A message that you sent could not be delivered to one or more of its
        recipients. The following address(es) failed:

          bob@customer.example
            host mx.customer.example [192.0.2.7]
            SMTP error from remote mail server after pipelined MAIL FROM:<ana@shop.example>:
            553 5.1.8 sender's domain unknown
        """,
        (f"not delivered, 5.1.8, {BOB}", "553 5.1.8 sender's domain unknown", "MAIL"),
    ),
    "Exim, at the beginning": (
        """
        A message that you sent could not be delivered to one or more of its
        recipients. The following address(es) failed:

          bob@customer.example
            host mx.customer.example [192.0.2.7]
            SMTP error from remote mail server after initial connection:
            554 5.7.1 no service for you
        """,
        (f"not delivered, 5.7.1, {BOB}", "554 5.7.1 no service for you", "greeting"),
    ),
    "qmail": (
        """
        Hi. This is the qmail-send program at mx.lab.example.
        I'm afraid I wasn't able to deliver your message to the following addresses.
        This is a permanent error; I've given up. Sorry it didn't work out.

        <bob@customer.example>:
        192.0.2.7 does not like recipient.
        Remote host said: 550 no such user
        Giving up on 192.0.2.7.

        --- Below this line is a copy of the message.
        """,
        (BOB, "550 no such user", "RCPT"),
    ),
    "qmail, after the message": (
        """
        Hi. This is the qmail-send program at mx.lab.example.
        I'm afraid I wasn't able to deliver your message to the following addresses.

        <bob@customer.example>:
        192.0.2.7 failed after I sent the message.
        Remote host said: 552 too big

        --- Below this line is a copy of the message.
        """,
        (BOB, "552 too big", "."),
    ),
    "Postfix": (
        """
        This is the mail system at host mx.lab.example.

        I'm sorry to have to inform you that your message could not
        be delivered to one or more recipients. It's attached below.

        <bob@customer.example>: host mx.customer.example[192.0.2.7] said: 552 5.2.2
            mailbox full (in reply to end of DATA command)
        """,
        (BOB, "552 5.2.2 mailbox full", "."),
    ),
    "Postfix, refused at once": (
        """
        This is the mail system at host mx.lab.example.

        <bob@customer.example>: host mx.customer.example[192.0.2.7] refused to
            talk to me: 554 5.7.1 your address is blocked
        """,
        (f"not delivered, 5.7.1, {BOB}", "554 5.7.1 your address is blocked", "greeting"),
    ),
    "sendmail, which sent DATA before it heard": (
        """
        The original message was received at Mon, 5 Jan 2026 10:00:00 GMT
        from localhost [127.0.0.1]

           ----- The following addresses had permanent fatal errors -----
        <bob@customer.example>
            (reason: 550 5.1.1 <bob@customer.example>... User unknown)

           ----- Transcript of session follows -----
        ... while talking to mx.customer.example.:
        >>> DATA
        <<< 550 5.1.1 <bob@customer.example>... User unknown
        550 5.1.1 <bob@customer.example>... User unknown
        <<< 503 5.0.0 Need RCPT (recipient)
        """,
        (BOB, "550 5.1.1 <bob@customer.example>... User unknown", "DATA"),
    ),
    "sendmail, greeted with a refusal": (
        """
           ----- The following addresses had permanent fatal errors -----
        <bob@customer.example>
            (reason: 554 mx.customer.example accepts nothing)

           ----- Transcript of session follows -----
        ... while talking to mx.customer.example.:
        <<< 554 mx.customer.example accepts nothing
        """,
        (f"not delivered, {BOB}", "554 mx.customer.example accepts nothing", "greeting"),
    ),
    "Courier": (
        """
        This is a delivery status notification from mx.lab.example,
        running the Courier mail server, version 1.3.

        Your message to the following recipients cannot be delivered:

        <bob@customer.example>:
            mx.customer.example [192.0.2.7]:
        >>> RCPT TO:<bob@customer.example>
        <<< 550 Unknown user
        """,
        (BOB, "550 Unknown user", "RCPT"),
    ),
    "Exchange": (
        """
        Delivery has failed to these recipients or groups:

        Bob (bob@customer.example)
        The e-mail address you entered couldn't be found.

        Diagnostic information for administrators:

        Generating server: mail.customer.example

        bob@customer.example
        Remote Server returned '550 5.1.10 RESOLVER.ADR.RecipientNotFound; not found'

        Original message headers:

        Received: from mail.shop.example
        """,
        (BOB, "550 5.1.10 RESOLVER.ADR.RecipientNotFound; not found", "RCPT"),
    ),
    "Yahoo": (
        """
        Sorry, we were unable to deliver your message to the following address.

        <bob@customer.example>:
        Remote host said: 554 delivery error: dd This user doesn't have an account [RCPT_TO]

        --- Below this line is a copy of the message.
        """,
        (BOB, "554 delivery error: dd This user doesn't have an account [RCPT_TO]", "RCPT"),
    ),
    "Zoho": (
        """
        This message was created automatically by mail delivery software.
        A message that you sent could not be delivered to one or more of its recipients.

        bob@customer.example Invalid Address, ERROR_CODE :550, ERROR_CODE :No such user
        """,
        (BOB, "550 ERROR_CODE :No such user", "RCPT"),
    ),
    "GMX": (
        """
        A message that you sent could not be delivered to one or more of
        its recipients. The following address failed:

        bob@customer.example:
        SMTP error from remote server for RCPT TO command, host: mx.example reason: 550 unknown
        """,
        (BOB, "550 unknown", "RCPT"),
    ),
    "DragonFly": (
        """
        This is the DragonFly Mail Agent v0.13 at mx.lab.example.

        There was an error delivering your mail to <bob@customer.example>.

        mx.customer.example [192.0.2.7] did not like our MAIL FROM:
        553 sender refused

        Message headers follow.
        """,
        (f"not delivered, {BOB}", "553 sender refused", "MAIL"),
    ),
    "IMail": (
        """
        undeliverable to bob@customer.example
        Body of message generated response:
        550 no such user here

        Original message follows.
        """,
        (BOB, "550 no such user here", "RCPT"),
    ),
}


@pytest.mark.parametrize("kind", WORDS)
def test_words_name_the_recipient_the_reply_and_the_command(kind: str) -> None:
    body, (recipient, reply, command) = WORDS[kind]
    found = one(mail(body) + RETURNED)
    assert found[0].endswith(recipient)
    assert found[1:] == (reply, command)


# -- the report for programs (RFC 3464)

FIELDS = """
Reporting-MTA: dns; mx.lab.example

Final-Recipient: rfc822; bob@customer.example
Action: failed
Status: 5.1.1
Remote-MTA: dns; mx.customer.example
Diagnostic-Code: smtp; 550 5.1.1 no such user
"""
UNKNOWN = (BOB, "550 5.1.1 no such user", "RCPT")


@pytest.mark.parametrize(
    "fields",
    [
        FIELDS,
        FIELDS.lower(),
        FIELDS.upper().replace("BOB@CUSTOMER.EXAMPLE", BOB).replace("NO SUCH USER", "no such user"),
        FIELDS.replace(": ", ":").replace("; ", ";"),
        FIELDS.replace(":", " :")
        .replace("rfc822; bob", "RFC822;<bob")
        .replace("example\nAc", "example>\nAc"),
        FIELDS.replace("Diagnostic-Code: smtp; 550", "Diagnostic-Code: smtp;\n 550"),
        FIELDS.replace("Code: smtp; 550", "Code: 550"),
        FIELDS.replace("Code: smtp;", "Code: X-Postfix; host mx.customer.example said:"),
        FIELDS.replace("Code: smtp;", "Code: LMTP;"),
        FIELDS.replace("Code: smtp;", "Code: X-Unix; procmail said"),
        FIELDS.replace("Final-Rec", "Original-Rec"),
        FIELDS.replace("Status: 5.1.1", "Status: 5.1.1 (bad destination mailbox address)"),
        FIELDS.replace("Status: 5.1.1", "Final-Log-ID: 4F8F2\nX-Display-Name: Bob\nStatus: 5.1.1"),
        "\n".join(sorted(FIELDS.strip().split("\n"))),
        FIELDS.replace("\n", "\r\n"),
    ],
)
def test_fields_are_read_in_any_form(fields: str) -> None:
    assert one(report(fields)) == UNKNOWN


@pytest.mark.parametrize(
    "kind", ["text/plain", "message/global-delivery-status", "MESSAGE/Delivery-Status"]
)
def test_a_report_is_found_under_any_type(kind: str) -> None:
    assert one(report(FIELDS, kind=kind)) == UNKNOWN


def test_a_report_is_found_without_multipart_and_encoded() -> None:
    assert one(mail(FIELDS)) == UNKNOWN
    encoded = base64.encodebytes(FIELDS.encode()).decode()
    kind = "message/delivery-status\nContent-Transfer-Encoding: base64"
    assert one(report(encoded, kind=kind)) == UNKNOWN
    quoted = quopri.encodestring(FIELDS.replace("5.1.1", "5=1").encode()).decode()
    kind = "message/delivery-status\nContent-Transfer-Encoding: quoted-printable"
    assert "5=1" in one(report(quoted, kind=kind))[1]


def test_an_address_in_utf_8_is_a_recipient() -> None:
    fields = FIELDS.replace("rfc822; bob@", "utf-8; jürgen@").replace("rfc822", "utf-8")
    assert one(report(fields))[0] == "jürgen@customer.example"


def test_each_recipient_has_its_own_session() -> None:
    more = """
        Final-Recipient: rfc822; cy@customer.example
        Action: failed
        Status: 5.7.1
        Diagnostic-Code: smtp; 554 5.7.1 refused (in reply to MAIL FROM command)

        Final-Recipient: rfc822; dora@customer.example
        Action: failed
        Status: 5.4.4
        Diagnostic-Code: X-Postfix; Host not found
    """
    log = read_log(report(f"{FIELDS}\n{textwrap.dedent(more)}"))
    *_, dora = log.sessions
    assert told(log)[0] == UNKNOWN
    assert told(log)[1][1:] == ("554 5.7.1 refused", "MAIL")
    # No server was asked, so nothing is shown as said.
    assert dora.lines == ()
    assert dora.ending == ("the bounce says: failed, 5.4.4, dora@customer.example: Host not found")
    assert "the report names no reply of a server" in [run.why for run in log.unread]
    assert "Host not found" in show(log).html


def test_a_command_that_the_words_tell_is_not_guessed() -> None:
    words = """
        The following address(es) failed:

          bob@customer.example
            host mx.customer.example [192.0.2.7]
            SMTP error from remote mail server after end of data:
            550 5.1.1 no such user
    """
    log = read_log(report(FIELDS, words))
    assert told(log) == [(BOB, "550 5.1.1 no such user", ".")]
    assert not any("likeliest" in run.why for run in log.unread)
    assert any("likeliest" in run.why for run in read_log(report(FIELDS)).unread)


def test_the_sender_is_taken_from_the_returned_message() -> None:
    assert "MAIL FROM:<ana@shop.example>" in str(read_log(report(FIELDS)))


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("5.2.2", "Mailbox full"),
        ("5.4.1", "No answer from host"),
        ("4.4.7", "Message expired after 5 days"),
    ],
)
def test_what_is_said_instead_of_a_reply_is_shown(status: str, words: str) -> None:
    fields = FIELDS.replace("5.1.1", status).replace(
        f"smtp; 550 {status} no such user", f"x; {words}"
    )
    (session,) = read_log(report(fields)).sessions
    assert session.lines == ()
    assert session.ending == f"the bounce says: failed, {status}, {BOB}: {words}"


def test_the_address_that_was_written_stands_beside_the_one_that_was_tried() -> None:
    fields = FIELDS.replace("Action:", "Original-Recipient: rfc822; info@shop.example\nAction:")
    (session,) = read_log(report(fields)).sessions
    assert session.ending == f"the bounce says: failed, 5.1.1, {BOB} (sent to info@shop.example)"


# -- other forms

HTML = """
<html><head><style>p { color: red }</style><title>x@y.example</title></head><body>
<p>Delivery has failed to these recipients or groups:</p><p><b>Bob</b> (bob@customer.example)</p>
<div>Remote Server returned &#39;550 5.1.1 no such
user&#39;</div></body></html>
"""


@pytest.mark.parametrize("encoding", ["7bit", "quoted-printable", "base64"])
def test_html_alone_is_read(encoding: str) -> None:
    body = {
        "7bit": HTML,
        "quoted-printable": quopri.encodestring(HTML.encode()).decode(),
        "base64": base64.encodebytes(HTML.encode()).decode(),
    }[encoding]
    header = f"Content-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: {encoding}"
    assert one(mail("@@", header=header).replace("@@", body.strip())) == UNKNOWN


def test_a_charset_of_seven_bits_is_decoded() -> None:
    words = "次のあて先へ届きませんでした。\n\n<bob@customer.example>:\n550 5.1.1 no such user\n"
    body = words.encode("iso-2022-jp").decode("ascii")
    text = mail(body, header="Content-Type: text/plain; charset=iso-2022-jp")
    assert one(text) == UNKNOWN


SES = (
    '{"notificationType":"%s","bounce":{"bounceType":"Permanent","bouncedRecipients":[{"emailAddress":'
    '"bob@customer.example","action":"failed","status":"5.1.1","diagnosticCode":'
    '"smtp; 550 5.1.1 no such user"}]}}'
)


def test_amazons_notices_are_read() -> None:
    assert one(mail(SES % "Bounce", "SES <no-reply@sns.amazonaws.com>", "Notification")) == UNKNOWN
    assert one(SES % "Bounce") == UNKNOWN
    assert read_log(mail(SES % "Complaint")).kind == "a complaint report"
    assert read_log(mail(SES % "Delivery")).kind == "a delivery receipt"


def quoted(text: str) -> str:
    return "\n".join(f"> {row}" for row in text.split("\n"))


@pytest.mark.parametrize("text", [report(FIELDS), mail(WORDS["Exim, after RCPT"][0]) + RETURNED])
@pytest.mark.parametrize(
    "way",
    [
        quoted,
        lambda text: quoted(quoted(text)),
        lambda text: text.partition("\n\n")[2],
        lambda text: quoted(text.partition("\n\n")[2]),
        lambda text: (
            f"From: Ana <ana@shop.example>\nSubject: help\nDate: today\n\nI got:\n\n{quoted(text)}"
        ),
        lambda text: f"My customer got this:\n\n{text}",
        lambda text: (
            "From: Ana <ana@shop.example>\nSubject: Fwd\nMIME-Version: 1.0\n"
            "Content-Type: multipart/mixed; boundary=zz\n\n--zz\n\nsee below\n--zz\n"
            f"Content-Type: message/rfc822\n\n{text}\n--zz--\n"
        ),
        lambda text: text.replace("\n", "\r\n"),
    ],
)
def test_a_bounce_that_was_pasted_or_forwarded_is_read(way: object, text: str) -> None:
    assert callable(way)
    recipient, reply, command = one(way(text))
    assert (recipient, reply[:9], command) == (BOB, "550 5.1.1", "RCPT")


def test_a_refused_login_told_by_a_mail_program_is_no_recipients_fault() -> None:
    text = "The response from the remote server was:\n\n535 5.7.8 wrong password\n"
    (session,) = read_log(text).sessions
    assert [line.data.split()[0] for line in session.lines if line.who == "C"] == [b"EHLO", b"AUTH"]


# -- delays, and what isn't a bounce


@pytest.mark.parametrize(
    "text",
    [
        report(
            FIELDS.replace("failed", "delayed")
            .replace("550 5.1.1", "451 4.7.1")
            .replace("5.1.1", "4.7.1")
        ),
        mail(
            """
            THIS IS A WARNING MESSAGE ONLY. YOU DO NOT NEED TO RESEND YOUR MESSAGE.

            Delivery to the following recipient has been delayed:

                bob@customer.example

            451 4.7.1 no such user yet
            """,
            subject="Delivery Status Notification (Delay)",
        ),
        mail(
            """
            Message 1abc-2 has not yet been delivered to all of its recipients after 24 hours.

              bob@customer.example
                host mx.customer.example: SMTP error after RCPT TO:<bob@customer.example>:
                451 4.7.1 greylisted
            """,
            subject="Warning: message 1abc-2 delayed 24 hours",
        ),
    ],
)
def test_a_delay_is_not_a_failure(text: str) -> None:
    log = read_log(text)
    assert log.kind == DELAY == "a bounce: delayed, not yet failed"
    (found,) = told(log)
    assert (found[0], found[1][:9]) == (BOB, "451 4.7.1")
    assert log.sessions[0].ending == f"the bounce says: delayed, 4.7.1, {BOB}"


def typed(report_type: str, part: str, fields: str) -> str:
    return mail(
        f"--b\nContent-Type: text/plain\n\nSee below.\n--b\nContent-Type: {part}\n\n"
        f"{fields}\n--b--",
        header=f"Content-Type: multipart/report; report-type={report_type}; boundary=b",
    )


@pytest.mark.parametrize(
    ("text", "kind", "sentence"),
    [
        (
            typed("feedback-report", "message/feedback-report", "Feedback-Type: abuse\nVersion: 1"),
            "a complaint report",
            "RFC 5965",
        ),
        (
            mail("Hi", "staff@hotmail.example", "complaint about message from 192.0.2.1"),
            "a complaint report",
            "RFC 5965",
        ),
        (
            typed(
                "disposition-notification",
                "message/disposition-notification",
                "Final-Recipient: rfc822; bob@customer.example\n"
                "Disposition: manual-action/MDN-sent-manually; displayed",
            ).replace(DAEMON, "Bob <bob@customer.example>"),
            "a read receipt",
            "RFC 8098",
        ),
        (report(FIELDS.replace("failed", "delivered")), "a delivery receipt", "nothing bounced"),
        (report(FIELDS.replace("failed", "relayed")), "a delivery receipt", "nothing bounced"),
        (report(FIELDS.replace("failed", "expanded")), "a delivery receipt", "nothing bounced"),
        (
            mail(
                "a file", "dmarc@big.example", "Report Domain: shop.example Submitter: big.example"
            ),
            "a DMARC report",
            "RFC 7489",
        ),
        (typed("tlsrpt", "application/tlsrpt+gzip", "x"), "a TLS report", "RFC 8460"),
        (
            mail(
                "I am back on Monday.",
                "Bob <bob@customer.example>",
                "Re: order",
                "Auto-Submitted: auto-replied",
            ),
            "an automatic answer",
            "RFC 3834",
        ),
        (
            mail("Bis Montag.", "Bob <bob@customer.example>", "Abwesenheitsnotiz: order"),
            "an automatic answer",
            "RFC 3834",
        ),
        (
            mail("Until Monday.", "Bob <bob@customer.example>", "Automatic reply: order"),
            "an automatic answer",
            "RFC 3834",
        ),
        (
            mail(
                "Please confirm that you sent this by a click.",
                "Bob <bob@customer.example>",
                "order",
            ),
            "a challenge",
            "held back",
        ),
        (
            "From: Bob <bob@customer.example>\nTo: ana@shop.example\nSubject: order\n\n"
            "We are at\n250 Main Street, the door is 550.\n",
            "an ordinary mail",
            "no server's reply",
        ),
        (
            "From: Bob <bob@customer.example>\nTo: ana@shop.example\nSubject: order\n\n"
            "354 pieces, please.\n\n* 12 in red\n* OK with blue\n",
            "an ordinary mail",
            "no server's reply",
        ),
    ],
)
def test_what_is_no_bounce_is_named(text: str, kind: str, sentence: str) -> None:
    log = read_log(text)
    assert (log.kind, log.sessions) == (kind, ())
    assert [sentence in run.why for run in log.unread] == [True]
    assert kind in show(log).html


def test_a_dialogue_in_an_ordinary_mail_is_read() -> None:
    header = "From: Ana <ana@shop.example>\nTo: help@lab.example\nSubject: what is this?\n\n"
    window = (
        "220 mx.lab.example ESMTP\nEHLO pc\n250 mx.lab.example\n"
        "MAIL FROM:<ana@shop.example>\n530 no\n"
    )
    log = read_log(header + window)
    assert log.kind == "a terminal's window"
    assert "C: MAIL FROM:<ana@shop.example>" in str(log)
    assert "Subject" not in log.sessions[0].text()
    marked = "".join(
        f"{'S' if row[0] in '25' else 'C'}: {row}\n" for row in window.split("\n") if row
    )
    assert read_log(header + marked).kind == "lines marked C: and S:"


def test_a_mailbox_that_holds_bounces_is_a_window() -> None:
    window = f"+OK ready\nRETR 1\n+OK 500 octets\n{report(FIELDS)}.\nQUIT\n+OK bye\n"
    log = read_log(window)
    assert log.kind == "a terminal's window"
    assert log.sessions[0].protocol == "POP3"


def test_bounds_of_what_is_looked_at_hold() -> None:
    """A bounce of thousands of recipients, and one of words without end, are read in part."""
    many = "\n".join(
        f"Final-Recipient: rfc822; u{n}@x.example\nAction: failed\nStatus: 5.1.1\n"
        for n in range(4000)
    )
    log = read_log(report(many))
    assert len(log.sessions) == 3000
    assert any("first 3,000 dialogues" in run.why for run in log.unread)
    assert one(mail(WORDS["qmail"][0]) + "word " * 100_000)[0] == BOB


@pytest.mark.parametrize(
    "stranger", ["To: carl@shop.example\nSubject: order", "postmaster@mx.example:"]
)
def test_another_address_in_the_words_is_no_recipient(stranger: str) -> None:
    body = (
        f"Your message\n\n{stranger}\n\ndid not reach the following recipient(s):\n\n"
        "bob@customer.example on Mon, 5 Jan 2026 10:00:00 +0000\n    550 5.1.1 no such user\n"
    )
    assert one(mail(body)) == UNKNOWN


def test_a_reply_of_several_lines_is_taken_whole_from_the_transcript() -> None:
    words = """
           ----- Transcript of session follows -----
        ... while talking to mx.customer.example.:
        >>> DATA
        <<< 550-5.1.1 no such user
        <<< 550 5.1.1 at all
        554 5.0.0 Service unavailable
    """
    fields = FIELDS.replace("550 5.1.1", "550-5.1.1")
    (session,) = read_log(report(fields, words)).sessions
    assert [line.data for line in session.lines[-3:]] == [
        b"DATA\r\n",
        b"550-5.1.1 no such user\r\n",
        b"550 5.1.1 at all\r\n",
    ]


def test_quoting_programs_marks_are_no_part_of_a_reply() -> None:
    for before, after in (("(", ")"), ("[", "]"), ("'", "'"), ('"', '"')):
        fields = FIELDS.replace(
            "smtp; 550 5.1.1 no such user", f"x; {before}550 5.1.1 no such user{after}"
        )
        assert one(report(fields)) == UNKNOWN


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("after MAIL FROM:<ana@shop.example> SIZE=3000", "MAIL FROM:<ana@shop.example>"),
        ("after pipelined MAIL FROM:<ana@shop.example>", "MAIL FROM:<ana@shop.example>"),
        ("after EHLO mx.lab.example", "EHLO mx.lab.example"),
        ("after HELO [192.0.2.1]", "EHLO [192.0.2.1]"),
    ],
)
def test_the_argument_that_a_bounce_repeats_is_shown(words: str, asked: str) -> None:
    text = f"""
    This message was created automatically by mail delivery software.

      {BOB}
        SMTP error from remote mail server {words}:
        host mx.customer.example [192.0.2.9]: 550 5.7.1 refused
    """
    (session,) = read_log(mail(textwrap.dedent(text))).sessions
    assert f"C: {asked}\nS: 550 5.7.1 refused" in session.text()


def test_the_argument_in_a_transcript_is_shown() -> None:
    text = f"""
       ----- The following addresses had permanent fatal errors -----
    <{BOB}>
        (reason: 553 5.1.8 Domain of sender address does not exist)

       ----- Transcript of session follows -----
    ... while talking to mx.customer.example.:
    >>> EHLO mx.lab.example
    <<< 250 hello
    >>> MAIL From:<ana@shop.example> SIZE=100
    <<< 553 5.1.8 Domain of sender address does not exist
    """
    (session,) = read_log(mail(textwrap.dedent(text))).sessions
    assert "C: MAIL FROM:<ana@shop.example>\nS: 553 5.1.8" in session.text()
    assert "C: EHLO mx.lab.example" in session.text()
