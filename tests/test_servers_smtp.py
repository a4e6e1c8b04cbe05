"""What the SMTP server says, as dialogues on both networks."""

from __future__ import annotations

import base64
import re
import smtplib
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from email.utils import parsedate_to_datetime

import pytest

from labserver import Lab, Limits, Message, Session
from labserver.catalog import explain, legal
from labserver.network import Network
from labserver.network.inline import InlineNetwork
from tests.dialogue import Client, play
from tests.fuzz_targets import converse

pytestmark = pytest.mark.protocol

GREETING = """
    S: 220 lab.example ESMTP ready
"""
HELLO = """
    C: EHLO client.example
    S: 250-lab.example
    S: 250-SIZE 33554432
    S: 250-8BITMIME
    S: 250-SMTPUTF8
    S: 250-STARTTLS
    S: 250-PIPELINING
    S: 250-ENHANCEDSTATUSCODES
    S: 250-DSN
    S: 250-CHUNKING
    S: 250 HELP
"""
HELLO_AGAIN = HELLO.replace("STARTTLS", "AUTH LOGIN PLAIN")
MX = GREETING + HELLO
SUBMISSION = (
    MX
    + """
    C: STARTTLS
    S: 220 2.0.0 Ready to start TLS
    -- TLS
"""
    + HELLO_AGAIN
)
QUIT = """
    C: QUIT
    S: 221 2.0.0 Bye
    -- server closes
"""


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


ANA = b64("\0ana@lab.example\0ana-lab-password")
LOGGED_IN = f"""
    {SUBMISSION}
    C: AUTH PLAIN {ANA}
    S: 235 2.7.0 ...
"""
TO_BEN = """
    C: MAIL FROM:<ana@lab.example>
    S: 250 2.1.0 OK
    C: RCPT TO:<ben@lab.example>
    S: 250 2.1.5 OK
    C: DATA
    S: 354 ...
"""


def newest(lab: Lab, address: str = "ben@lab.example") -> Message:
    return lab.inbox(address)[-1]


def received(message: Message) -> str:
    """The Received field as one line, without its date."""
    field = message["Received"]
    assert field is not None
    return re.sub(r"\s+", " ", field).partition(";")[0]


def exchange(session: Session) -> str:
    """The commands by their verbs and the replies by their codes, one word each."""
    words = []
    for line in session.lines:
        text = line.data.decode().strip()
        if line.kind == "command":
            words.append(text.split()[0])
        elif line.kind == "reply" and text[3:4] != "-":
            words.append(text[:3])
    return " ".join(words)


# -- the scenarios of RFC 5321 Appendix D


@pytest.fixture
def foo(network: Network) -> Iterator[Lab]:
    """The host foo.com of RFC 5321 Appendix D."""
    people = ("Jones@foo.com", "Brown@foo.com", "Admin.MRC@foo.com")
    with Lab(dict.fromkeys(people, "password"), network=network) as made:
        yield made


FOO = HELLO.replace("client.example", "bar.com").replace("lab.example", "foo.com")


def test_rfc_5321_d_1_a_typical_transaction(foo: Lab) -> None:
    session = play(
        foo,
        "smtp",
        f"""
        S: 220 foo.com ...
        {FOO}
        C: MAIL FROM:<Smith@bar.com>
        S: 250 ...
        C: RCPT TO:<Jones@foo.com>
        S: 250 ...
        C: RCPT TO:<Green@foo.com>
        S: 550 ...
        C: RCPT TO:<Brown@foo.com>
        S: 250 ...
        C: DATA
        S: 354 ...
        C: Blah blah blah...
        C: ...etc. etc. etc.
        C: .
        S: 250 ...
        C: QUIT
        S: 221 ...
        -- server closes
        """,
    )
    assert exchange(session) == (
        "220 EHLO 250 MAIL 250 RCPT 250 RCPT 550 RCPT 250 DATA 354 250 QUIT 221"
    )
    for name in ("jones@foo.com", "Brown@FOO.com"):
        (message,) = foo.inbox(name)
        assert message.envelope is not None
        assert message.envelope.recipients == ("Jones@foo.com", "Brown@foo.com")
        # The RFC's example doesn't stuff the second line's dot, so the server takes it away.
        assert message.octets.endswith(b"\r\nBlah blah blah...\r\n..etc. etc. etc.\r\n")
    assert not foo.inbox("Admin.MRC@foo.com")


def test_rfc_5321_d_2_an_aborted_transaction(foo: Lab) -> None:
    session = play(
        foo,
        "smtp",
        f"""
        S: 220 foo.com ...
        {FOO}
        C: MAIL FROM:<Smith@bar.com>
        S: 250 ...
        C: RCPT TO:<Jones@foo.com>
        S: 250 ...
        C: RCPT TO:<Green@foo.com>
        S: 550 ...
        C: RSET
        S: 250 ...
        C: QUIT
        S: 221 ...
        -- server closes
        """,
    )
    assert exchange(session) == "220 EHLO 250 MAIL 250 RCPT 250 RCPT 550 RSET 250 QUIT 221"
    assert not foo.inbox("Jones@foo.com")


def test_rfc_5321_d_4_verifying_and_sending(foo: Lab) -> None:
    session = play(
        foo,
        "smtp",
        f"""
        S: 220 foo.com ...
        {FOO}
        C: VRFY Admin.MRC
        S: 250 ...<admin.mrc@foo.com>
        C: MAIL FROM:<EAK@bar.com>
        S: 250 ...
        C: RCPT TO:<Admin.MRC@foo.com>
        S: 250 ...
        C: DATA
        S: 354 ...
        C: Blah blah blah...
        C: ...etc. etc. etc.
        C: .
        S: 250 ...
        C: QUIT
        S: 221 ...
        -- server closes
        """,
    )
    assert exchange(session) == "220 EHLO 250 VRFY 250 MAIL 250 RCPT 250 DATA 354 250 QUIT 221"
    assert len(foo.inbox("Admin.MRC@foo.com")) == 1


# -- who may submit


def test_submission_wants_starttls_before_anything_else(lab: Lab) -> None:
    play(
        lab,
        "submission",
        f"""
        {MX}
        C: MAIL FROM:<ana@lab.example>
        S: 530 5.7.0 Must issue a STARTTLS command first
        C: AUTH PLAIN {ANA}
        S: 530 5.7.0 Must issue a STARTTLS command first
        C: NOOP
        S: 250 2.0.0 OK
        {QUIT}
        """,
    )


def test_submission_wants_auth_after_starttls(lab: Lab) -> None:
    play(
        lab,
        "submission",
        f"""
        {SUBMISSION}
        C: MAIL FROM:<ana@lab.example>
        S: 530 5.7.0 Authentication required
        C: RCPT TO:<ben@lab.example>
        S: 530 5.7.0 Authentication required
        C: DATA
        S: 530 5.7.0 Authentication required
        C: VRFY ben
        S: 530 5.7.0 Authentication required
        C: HELP
        S: 530 5.7.0 Authentication required
        {QUIT}
        """,
    )


def test_ehlo_is_needed_anew_after_starttls(lab: Lab) -> None:
    play(
        lab,
        "submission",
        f"""
        {MX}
        C: STARTTLS
        S: 220 2.0.0 Ready to start TLS
        -- TLS
        C: AUTH PLAIN {ANA}
        S: 503 Error: send EHLO first
        C: STARTTLS
        S: 503 5.5.1 Error: TLS already active
        {HELLO_AGAIN}
        {QUIT}
        """,
    )


@pytest.mark.parametrize("mechanism", ["PLAIN", "plain", "Plain"])
def test_auth_plain_with_an_initial_response(lab: Lab, mechanism: str) -> None:
    session = play(
        lab,
        "submission",
        f"""
        {SUBMISSION}
        C: AUTH {mechanism} {ANA}
        S: 235 2.7.0 Authentication successful
        {TO_BEN}
        C: Subject: Hello
        C: .
        S: 250 2.0.0 Stored as message 1
        {QUIT}
        """,
    )
    assert session.tls.startswith("TLSv1.")
    assert ANA not in session.text(exact=True)
    assert ANA in session.text(exact=True, reveal=True)
    assert newest(lab)["Subject"] == "Hello"


def test_auth_plain_in_answer_to_the_challenge(lab: Lab) -> None:
    session = play(
        lab,
        "submission",
        f"""
        {SUBMISSION}
        C: auth pLAIN
        S: 334 ...
        C: {ANA}
        S: 235 2.7.0 Authentication successful
        {QUIT}
        """,
    )
    assert ANA not in session.text(exact=True)
    assert ANA not in "".join(map(repr, session.lines))
    assert ANA in session.text(exact=True, reveal=True)


@pytest.mark.parametrize("mechanism", ["LOGIN", "login", "LogIn"])
@pytest.mark.parametrize("initial", [True, False])
def test_auth_login(lab: Lab, mechanism: str, initial: bool) -> None:
    name, password = b64("Ana@lab.example"), b64("ana-lab-password")
    ask = f"C: AUTH {mechanism}\nS: 334 {b64('Username:')}\nC: {name}"
    session = play(
        lab,
        "submission",
        f"""
        {SUBMISSION}
        {f"C: AUTH {mechanism} {name}" if initial else ask}
        S: 334 {b64("Password:")}
        C: {password}
        S: 235 2.7.0 Authentication successful
        {TO_BEN}
        C: .
        S: 250 2.0.0 ...
        {QUIT}
        """,
    )
    assert password not in session.text(exact=True)
    assert password in session.text(exact=True, reveal=True)


def test_passwords_stay_masked_after_injected_plaintext(lab: Lab) -> None:
    password = b64("ana-lab-password")
    session = play(
        lab,
        "submission",
        f"""
        {MX}
        C! STARTTLS\\r\\nNOOP\\r\\nRSET\\r\\n
        S: 220 2.0.0 Ready to start TLS
        -- TLS
        {HELLO_AGAIN}
        C: AUTH LOGIN
        S: 334 ...
        C: {b64("ana@lab.example")}
        S: 334 ...
        C: {password}
        S: 235 2.7.0 ...
        {QUIT}
        """,
    )
    assert password not in session.text(exact=True)


def test_nobody_acts_for_somebody_else(lab: Lab) -> None:
    play(
        lab,
        "submission",
        f"""
        {SUBMISSION}
        C: AUTH PLAIN {b64(chr(0).join(("ben@lab.example", "ana@lab.example", "ana-lab-password")))}
        S: 535 5.7.8 ...
        C: AUTH PLAIN {b64(chr(0).join(("Ana@lab.example", "ana@lab.example", "ana-lab-password")))}
        S: 235 2.7.0 ...
        {QUIT}
        """,
    )


def test_auth_can_be_cancelled(lab: Lab) -> None:
    play(
        lab,
        "submission",
        f"""
        {SUBMISSION}
        C: AUTH PLAIN
        S: 334 ...
        C: *
        S: 501 5.7.0 Authentication aborted
        C: AUTH LOGIN
        S: 334 ...
        C: {b64("ana@lab.example")}
        S: 334 ...
        C: *
        S: 501 5.7.0 Authentication aborted
        C: MAIL FROM:<ana@lab.example>
        S: 530 5.7.0 ...
        C: AUTH PLAIN {ANA}
        S: 235 2.7.0 ...
        C: AUTH PLAIN {ANA}
        S: 503 5.5.1 Already authenticated
        {QUIT}
        """,
    )


def test_auth_that_makes_no_sense(lab: Lab) -> None:
    play(
        lab,
        "submission",
        f"""
        {SUBMISSION}
        C: AUTH
        S: 501 5.5.4 ...
        C: AUTH CRAM-MD5
        S: 504 5.5.4 ...
        C: AUTH PLAIN not/base64!
        S: 501 5.5.2 Can't decode base64
        C: AUTH PLAIN {b64("only one part")}
        S: 501 5.5.2 Can't split auth value
        C: AUTH LOGIN
        S: 334 ...
        C: !
        S: 501 5.5.2 Can't decode base64
        C: AUTH PLAIN {ANA} more
        S: 501 5.5.4 Too many values
        C: AUTH PLAIN
        S: 334 ...
        C:
        S: 501 5.5.2 Can't split auth value
        C: NOOP
        S: 250 2.0.0 OK
        {QUIT}
        """,
    )


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("ana@lab.example", "wrong"),
        ("ana@lab.example", ""),
        ("ana@lab.example", "ANA-LAB-PASSWORD"),
        ("ana@lab.example", "ben-lab-password"),
        ("ana", "ana-lab-password"),
        ("nobody@lab.example", "nobody@lab.example"),
        ("ana@lab.example", "pässword"),
    ],
)
def test_wrong_password_is_535(lab: Lab, name: str, password: str) -> None:
    play(
        lab,
        "submission",
        f"""
        {SUBMISSION}
        C: AUTH PLAIN {b64(f"{chr(0)}{name}{chr(0)}{password}")}
        S: 535 5.7.8 Authentication credentials invalid
        C: MAIL FROM:<ana@lab.example>
        S: 530 5.7.0 ...
        {QUIT}
        """,
    )


def test_the_sender_must_be_the_accounts_own_address(lab: Lab) -> None:
    play(
        lab,
        "submission",
        f"""
        {LOGGED_IN}
        C: MAIL FROM:<ben@lab.example>
        S: 553 5.7.1 <...>: Sender address rejected: not owned by user ana@lab.example
        C: MAIL FROM:<boss@else.example>
        S: 553 5.7.1 ...
        C: RCPT TO:<ben@lab.example>
        S: 503 5.5.1 Error: need MAIL command
        C: MAIL FROM:<Ana@LAB.Example> AUTH=<>
        S: 250 2.1.0 OK
        C: RCPT TO:<BEN@lab.example>
        S: 250 2.1.5 OK
        C: DATA
        S: 354 ...
        C: .
        S: 250 2.0.0 ...
        {QUIT}
        """,
    )
    assert newest(lab)["Return-Path"] == "<Ana@LAB.Example>"


def test_auth_is_not_offered_on_smtp(lab: Lab) -> None:
    play(
        lab,
        "smtp",
        f"""
        {MX}
        C: AUTH PLAIN {ANA}
        S: 502 5.5.1 Error: authentication not enabled
        C: STARTTLS
        S: 220 2.0.0 Ready to start TLS
        -- TLS
        {HELLO_AGAIN.replace("S: 250-AUTH LOGIN PLAIN", "")}
        C: AUTH LOGIN
        S: 502 5.5.1 Error: authentication not enabled
        C: MAIL FROM:<ana@lab.example> AUTH=<>
        S: 555 5.5.4 ...
        {QUIT}
        """,
    )


# -- for whom mail is taken


RECIPIENTS = """
    C: RCPT TO:<zoe@else.example>
    S: 550 5.7.1 <...>: Relay access denied
    C: RCPT TO:<zoe@lab.example>
    S: 550 5.1.1 <zoe@lab.example>: Recipient address rejected: User unknown in ...
    C: RCPT TO:<ben@sub.lab.example>
    S: 550 5.7.1 <...>: Relay access denied
    C: RCPT TO:<>
    S: 553 5.1.3 ...
    C: DATA
    S: 503 5.5.1 Error: need RCPT command
    C: RCPT TO:<Ben@Lab.Example>
    S: 250 2.1.5 OK
    C: DATA
    S: 354 ...
    C: .
    S: 250 2.0.0 ...
"""


def test_smtp_takes_mail_for_its_own_accounts_only(lab: Lab) -> None:
    play(lab, "smtp", f"{MX}C: MAIL FROM:<zoe@else.example>\nS: 250 2.1.0 OK{RECIPIENTS}{QUIT}")
    message = newest(lab)
    assert message.envelope is not None
    assert message.envelope.recipients == ("Ben@Lab.Example",)


def test_submission_never_relays_either(lab: Lab) -> None:
    play(
        lab,
        "submission",
        f"{LOGGED_IN}C: MAIL FROM:<ana@lab.example>\nS: 250 2.1.0 OK{RECIPIENTS}{QUIT}",
    )
    assert len(lab.inbox("ben@lab.example")) == 1


def test_catch_all_takes_and_keeps_mail_for_anybody(network: Network) -> None:
    with Lab(network=network, catch_all=True) as lab:
        play(
            lab,
            "smtp",
            f"""
            {MX}
            C: MAIL FROM:<ana@lab.example>
            S: 250 2.1.0 OK
            C: RCPT TO:<Zoe@Else.Example>
            S: 250 2.1.5 OK
            C: RCPT TO:<ben@lab.example>
            S: 250 2.1.5 OK
            C: RCPT TO:<>
            S: 553 5.1.3 ...
            C: DATA
            S: 354 ...
            C: .
            S: 250 2.0.0 ...
            {QUIT}
            """,
        )
        for address in ("zoe@else.example", "ben@lab.example"):
            assert len(lab.inbox(address)) == 1


def test_too_many_recipients_are_452_and_the_others_get_the_mail(network: Network) -> None:
    with Lab(network=network, catch_all=True, limits=Limits(recipients=2)) as lab:
        play(
            lab,
            "smtp",
            f"""
            {MX}
            C: MAIL FROM:<ana@lab.example>
            S: 250 2.1.0 OK
            C: RCPT TO:<a@else.example>
            S: 250 2.1.5 OK
            C: RCPT TO:<b@else.example>
            S: 250 2.1.5 OK
            C: RCPT TO:<c@else.example>
            S: 452 4.5.3 Error: too many recipients
            C: DATA
            S: 354 ...
            C: .
            S: 250 2.0.0 ...
            {TO_BEN}
            C: .
            S: 250 2.0.0 ...
            {QUIT}
            """,
        )
        assert [len(lab.inbox(f"{name}@else.example")) for name in "abc"] == [1, 1, 0]


# -- the trace


def test_trace_after_ehlo_is_esmtp(lab: Lab) -> None:
    play(lab, "smtp", f"{MX}{TO_BEN}C: Subject: Hello\nC: .\nS: 250 2.0.0 ...{QUIT}")
    message = newest(lab)
    assert message.octets.startswith(b"Return-Path: <ana@lab.example>\r\nReceived: from ")
    assert received(message) == "from client.example ([127.0.0.1]) by lab.example with ESMTP"
    assert parsedate_to_datetime((message["Received"] or "").rpartition(";")[2]) == (
        message.received.replace(microsecond=0)
    )


def test_trace_after_helo_is_smtp(lab: Lab) -> None:
    play(
        lab,
        "smtp",
        f"""
        {GREETING}
        C: HELO client.example
        S: 250 lab.example
        {TO_BEN}
        C: .
        S: 250 2.0.0 ...
        -- client closes
        """,
    )
    assert received(newest(lab)).endswith(" with SMTP")


def test_trace_after_starttls_is_esmtps(lab: Lab) -> None:
    play(
        lab,
        "smtp",
        f"""
        {MX}
        C: STARTTLS
        S: 220 2.0.0 Ready to start TLS
        -- TLS
        {HELLO_AGAIN.replace("S: 250-AUTH LOGIN PLAIN", "")}
        {TO_BEN}
        C: .
        S: 250 2.0.0 ...
        {QUIT}
        """,
    )
    assert received(newest(lab)).endswith(" with ESMTPS")


def test_trace_after_a_login_is_esmtpsa(lab: Lab) -> None:
    # ESMTPA, a login without TLS, can't occur: AUTH is taken under TLS only.
    play(lab, "submission", f"{LOGGED_IN}{TO_BEN}C: .\nS: 250 2.0.0 ...{QUIT}")
    assert received(newest(lab)).endswith(" with ESMTPSA")


def test_implicit_tls_offers_auth_and_no_starttls(lab: Lab) -> None:
    session = play(
        lab,
        "submissions",
        f"""
        {GREETING}
        {HELLO_AGAIN}
        C: STARTTLS
        S: 503 5.5.1 Error: TLS already active
        C: MAIL FROM:<ana@lab.example>
        S: 530 5.7.0 Authentication required
        C: AUTH PLAIN {ANA}
        S: 235 2.7.0 ...
        {TO_BEN}
        C: .
        S: 250 2.0.0 ...
        {QUIT}
        """,
    )
    assert received(newest(lab)).endswith(" with ESMTPSA")
    assert all(line.tls for line in session.lines)


def test_null_reverse_path(lab: Lab) -> None:
    play(lab, "smtp", MX + TO_BEN.replace("ana@lab.example", "") + f"C: .\nS: 250 2.0.0 ...{QUIT}")
    message = newest(lab)
    assert message.octets.startswith(b"Return-Path: <>\r\n")
    assert message.envelope is not None
    assert message.envelope.reverse_path == ""


def test_a_hostile_client_name_stays_out_of_the_trace(lab: Lab) -> None:
    play(
        lab,
        "smtp",
        f"""
        {GREETING}
        C: EHLO <b>x</b>) by bank.example; (
        {HELLO.partition("client.example")[2]}
        {TO_BEN}
        C: .
        S: 250 2.0.0 ...
        {QUIT}
        """,
    )
    assert received(newest(lab)) == "from unknown ([127.0.0.1]) by lab.example with ESMTP"


def test_guessing_a_password_takes_longer_each_time_and_ends(network: Network) -> None:
    limits = Limits(login_delay=0.05)
    wrong = f"C: AUTH PLAIN {b64(chr(0) + 'ana@lab.example' + chr(0) + 'wrong')}"
    nobody = f"C: AUTH PLAIN {b64(chr(0) + 'nobody@lab.example' + chr(0) + 'wrong')}"
    with Lab(network=network, limits=limits) as lab:
        session = play(
            lab,
            "submission",
            f"""
            {SUBMISSION}
            {wrong}
            S: 535 5.7.8 Authentication credentials invalid
            {nobody}
            S: 535 5.7.8 Authentication credentials invalid
            {wrong}
            S: 421 4.7.0 lab.example Error: too many errors
            -- server closes
            """,
        )
    tried = [line.at for line in session.lines if b"AUTH PLAIN" in line.data and line.who == "C"]
    told = [line.at for line in session.lines if line.data[:3] in (b"535", b"421")]
    waited = [after - before for before, after in zip(tried, told, strict=True)]
    assert all(
        round(seconds / 0.05) >= least for seconds, least in zip(waited, (1, 2, 4), strict=True)
    )


def test_an_abandoned_login_is_no_wrong_password(network: Network) -> None:
    with Lab(network=network, limits=Limits(login_failures=1)) as lab:
        play(
            lab,
            "submission",
            f"""
            {SUBMISSION}
            C: auth plain
            S: 334 ...
            C: *
            S: 501 5.7.0 Authentication aborted
            C: AUTH login
            S: 334 VXNlcm5hbWU6
            C: {"x" * 13_000}
            S: 500 5.5.6 That answer is too long
            C: aUtH pLaIn {ANA}
            S: 235 2.7.0 ...
            {QUIT}
            """,
        )


# -- STARTTLS


def test_commands_sent_along_with_starttls_are_dropped(lab: Lab) -> None:
    session = play(
        lab,
        "smtp",
        f"""
        {MX}
        C! STARTTLS\\r\\nMAIL FROM:<mallory@else.example>\\r\\nRCPT TO:<ben@lab.example>\\r\\n
        S: 220 2.0.0 Ready to start TLS
        -- TLS
        C: NOOP
        S: 250 OK
        {HELLO_AGAIN.replace("S: 250-AUTH LOGIN PLAIN", "")}
        C: RCPT TO:<ben@lab.example>
        S: 503 5.5.1 Error: need MAIL command
        {QUIT}
        """,
    )
    injected = [line for line in session.lines if b"mallory" in line.data]
    assert [line.tls for line in injected] == [False]


def test_a_transaction_begun_before_starttls_is_forgotten(lab: Lab) -> None:
    play(
        lab,
        "smtp",
        f"""
        {MX}
        C: MAIL FROM:<ana@lab.example>
        S: 250 2.1.0 OK
        C: STARTTLS now
        S: 501 5.5.4 Syntax: STARTTLS
        C: STARTTLS
        S: 220 2.0.0 Ready to start TLS
        -- TLS
        {HELLO_AGAIN.replace("S: 250-AUTH LOGIN PLAIN", "")}
        C: RCPT TO:<ben@lab.example>
        S: 503 5.5.1 Error: need MAIL command
        {QUIT}
        """,
    )


# -- commands and their limits


def test_commands_that_make_no_sense(lab: Lab) -> None:
    play(
        lab,
        "smtp",
        f"""
        {GREETING}
        C: MAIL FROM:<ana@lab.example>
        S: 503 Error: send HELO first
        C: EHLO
        S: 501 Syntax: EHLO hostname
        {HELLO}
        C: MAIL
        S: 501 5.5.4 Syntax: MAIL FROM: <address> ...
        C: MAIL TO:<ana@lab.example>
        S: 501 5.5.4 Syntax: MAIL FROM: <address> ...
        C: MAIL FROM:
        S: 501 5.5.4 Syntax: MAIL FROM: <address> ...
        C: MAIL FROM:<ana@lab.example> COLOUR=red
        S: 555 5.5.4 ...
        C: MAIL FROM:<ana@lab.example> BODY=BINARYMIME
        S: 501 5.5.4 ...
        C: MAIL FROM:<ana@lab.example> SIZE=many
        S: 501 5.5.4 ...
        C: DATA
        S: 503 5.5.1 ...
        C: MAIL FROM:<ana@lab.example>
        S: 250 2.1.0 OK
        C: MAIL FROM:<ana@lab.example>
        S: 503 5.5.1 ...
        C: RCPT FROM:<ana@lab.example>
        S: 501 5.5.4 ...
        C: RCPT TO:<ana@lab.example> COLOUR=red
        S: 555 5.5.4 ...
        C: RSET please
        S: 501 5.5.4 ...
        C: EXPN staff
        S: 502 5.5.1 ...
        C: QUIT now
        S: 501 5.5.4 ...
        {QUIT}
        """,
    )


@pytest.mark.parametrize(
    "path",
    [
        "<",
        "<@",
        "<ana",
        "<ana@lab.example",
        "ana@lab.example>",
        "<ana@>",
        "<@lab.example>",
        "<ana@lab.example>SIZE=1",
        "<ana@lab.example><ben@lab.example>",
        "<a b@lab.example>",
        "<ana..b@lab.example>",
        '<"ana@lab.example>',
        "<a\\xff@lab.example>",
        "<ana@lab.ex\\xe4mple>",
        "<ana@lab.example,ben@lab.example>",
        "<@a.example:>",
    ],
)
def test_malformed_addresses_are_553(lab: Lab, path: str, caplog: pytest.LogCaptureFixture) -> None:
    play(
        lab,
        "smtp",
        f"""
        {MX}
        C! MAIL FROM:{path}\\r\\n
        S: 553 5.1.7 Bad sender address syntax
        C: MAIL FROM:<>
        S: 250 2.1.0 OK
        C! RCPT TO:{path}\\r\\n
        S: 553 5.1.3 Bad recipient address syntax
        {QUIT}
        """,
    )
    assert not [record for record in caplog.records if record.name in ("labserver", "asyncio")]


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("ben@lab.example", "ben@lab.example"),
        (" <ben@lab.example>", "ben@lab.example"),
        ("<@a.example,@b.example:ben@lab.example>", "ben@lab.example"),
        ('<"ben"@lab.example>', "ben@lab.example"),
        ('<"b\\\\en"@lab.example>', "ben@lab.example"),
        ('<"o b"@lab.example>', '"o b"@lab.example'),
        ("<o'b+tag=1/2@[192.0.2.1]>", "o'b+tag=1/2@[192.0.2.1]"),
        ("<o@[IPv6:2001:db8::1]>", "o@[IPv6:2001:db8::1]"),
    ],
)
def test_well_formed_addresses_are_understood(network: Network, path: str, address: str) -> None:
    with Lab(network=network, catch_all=True) as lab:
        play(
            lab,
            "smtp",
            f"""
            {MX}
            C! MAIL FROM:{path}\\r\\n
            S: 250 2.1.0 OK
            C! RCPT TO:{path}\\r\\n
            S: 250 2.1.5 OK
            C: DATA
            S: 354 ...
            C: .
            S: 250 2.0.0 ...
            {QUIT}
            """,
        )
        envelope = newest(lab, address).envelope
        assert envelope is not None
        assert (envelope.reverse_path, envelope.recipients) == (address, (address,))


def test_unknown_commands_are_500_and_too_many_end_the_connection(lab: Lab) -> None:
    play(
        lab,
        "smtp",
        f"""
        {MX}
        C: HALLO
        S: 500 5.5.2 Error: command not recognized
        C:
        S: 500 5.5.2 Error: bad syntax
        C! \\xff\\xfe\\r\\n
        S: 500 5.5.2 Error: bad syntax
        C: NOOP
        S: 250 2.0.0 OK
        C: GET / HTTP/1.1
        S: 500 5.5.2 Error: command not recognized
        C: 3
        S: 500 ...
        C: 4
        S: 500 ...
        C: 5
        S: 421 4.7.0 lab.example Error: too many errors
        -- server closes
        """,
    )
    assert lab.sessions[-1].ending == "the server closed the connection"


OF_ALL_KINDS = f"""
NOOP|RSET|RSET x|HELP|HELP MAIL|HELP me|VRFY ana|VRFY zoe|VRFY|EXPN all|AUTH PLAIN|STARTTLS now
MAIL|MAIL FROM:<|MAIL FROM:<a@b> SIZE=x|MAIL FROM:<a@b> SIZE=99999999999|MAIL FROM:<a@b> TO=1
MAIL FROM:<josé@b>|MAIL FROM:<{"x" * 65}@b>|RCPT TO:<ana@lab.example>|DATA|BDAT|BDAT 0|QUIT now
MAIL FROM:<a@b>|MAIL FROM:<a@b>|DATA|RCPT|RCPT TO:<zoe@lab.example>|RCPT TO:<a@b>|RCPT TO:<>
RCPT TO:<ana@lab.example> NOTIFY=x|RCPT TO:<ana@lab.example> X=1|RCPT TO:<ana@lab.example>|DATA x
DATA|{"x" * 999}|.|MAIL FROM:<a@b>|RCPT TO:<ana@lab.example>|BDAT 0|DATA|RCPT TO:<ana@lab.example>
BDAT 0 LAST|MAIL FROM:<a@b>|RCPT TO:<ana@lab.example>|DATA|.|{"x" * 600}|ÿ|W|X|Y|Z
""".replace("\n", "|").strip("|")


def test_every_reply_after_ehlo_has_an_enhanced_status_code(lab: Lab) -> None:
    said = OF_ALL_KINDS.replace("|", "\r\n").encode("utf-8") + b"\r\nQ\r\n"
    heard, session = converse(lab, "smtp", [b"EHLO client.example\r\n", said])
    rows = heard.decode().partition("250 HELP\r\n")[2].splitlines()
    assert {row[:3] for row in rows} == set(
        "214 250 354 421 500 501 502 503 504 550 552 553 555".split()
    )
    for row in rows:
        assert row.startswith("354 ") or re.match(r"([245])\d\d \1\.\d{1,3}\.\d{1,3} ", row), row
    assert rows[-1].startswith("421 4.7.0 lab.example Error: too many errors")
    assert session.closed


def test_lines_too_long_are_500(lab: Lab) -> None:
    long = "x" * 600
    endless = "x" * 200_000
    play(
        lab,
        "smtp",
        f"""
        {MX}
        C: NOOP {long}
        S: 500 5.5.2 Command line too long
        C: NOOP {endless}
        S: 500 5.5.2 Command line too long
        C: MAIL FROM:<ana@lab.example> ENVID={"e" * 500}
        S: 501 5.5.4 Bad ENVID parameter syntax
        C: MAIL FROM:<ana@lab.example> SIZE={"0" * 19}1
        S: 250 2.1.0 OK
        C: RCPT TO:<ben@lab.example>
        S: 250 2.1.5 OK
        C: DATA
        S: 354 ...
        C: {"x" * 998}
        C: .
        S: 250 2.0.0 ...
        {TO_BEN}
        C: {"x" * 1100}
        C: still content, not a command
        C: .
        S: 500 5.5.2 Line too long ...
        C: NOOP
        S: 250 2.0.0 OK
        {QUIT}
        """,
    )
    (message,) = lab.inbox("ben@lab.example")
    assert message.octets.endswith(b"\r\n" + b"x" * 998 + b"\r\n")


def test_one_connections_command_limits_are_not_anothers(lab: Lab) -> None:
    # Each EHLO lets MAIL be longer; so does another connection's, in aiosmtpd.
    first = Client(lab, "smtp")
    greet = GREETING + HELLO * 20
    play(lab, "smtp", greet + QUIT)
    first.send(b"EHLO client.example\r\nMAIL FROM:<ana@lab.example> ENVID=" + b"0" * 2000 + b"\r\n")
    replies = [first.line() for _ in range(12)]
    assert replies[0].startswith(b"220 ")
    assert replies[-1] == b"500 5.5.2 Command line too long\r\n"
    first.close()


def test_vrfy(lab: Lab) -> None:
    play(
        lab,
        "smtp",
        f"""
        {MX}
        C: VRFY ana
        S: 250 2.1.5 <ana@lab.example>
        C: VRFY <Ben@Lab.Example>
        S: 250 2.1.5 <ben@lab.example>
        C: VRFY ana SMTPUTF8
        S: 250 2.1.5 <ana@lab.example>
        C: VRFY zoe
        S: 550 5.1.1 <zoe>: Recipient address rejected: User unknown in local recipient table
        C: VRFY
        S: 501 5.5.4 ...
        {QUIT}
        """,
    )


def test_vrfy_of_a_name_that_several_have(network: Network) -> None:
    accounts = {"ana@lab.example": "secret", "ana@other.example": "secret"}
    with Lab(accounts, network=network) as lab:
        play(
            lab,
            "smtp",
            f"""
            {MX}
            C: VRFY ana
            S: 553 5.1.4 ...
            C: VRFY ana@other.example
            S: 250 2.1.5 <ana@other.example>
            {QUIT}
            """,
        )


def test_help(lab: Lab) -> None:
    play(
        lab,
        "smtp",
        f"""
        {GREETING}
        C: HELP
        S: 214 Commands: BDAT DATA EHLO HELO HELP MAIL NOOP QUIT RCPT RSET STARTTLS VRFY
        {HELLO}
        C: HELP
        S: 214 2.0.0 Commands: ...
        C: help mail
        S: 214 2.0.0 MAIL FROM: <address> [SP <mail-parameters>]
        C: HELP AUTH
        S: 504 5.5.4 ...
        C: HELP ME
        S: 504 5.5.4 No help on that; ...
        {QUIT}
        """,
    )
    play(lab, "submission", f"{LOGGED_IN}C: HELP AUTH\nS: 214 2.0.0 AUTH <mechanism>{QUIT}")


def test_letter_case_of_commands_does_not_matter(lab: Lab) -> None:
    session = play(
        lab,
        "smtp",
        f"""
        {GREETING}
        C: eHlO client.example
        {HELLO.partition("client.example")[2]}
        C: mail from:<ana@lab.example> size=10 body=8bitmime
        S: 250 2.1.0 OK
        C: Rcpt To:<ben@lab.example>
        S: 250 2.1.5 OK
        C: data
        S: 354 ...
        C: .
        S: 250 2.0.0 ...
        C: quit
        S: 221 2.0.0 Bye
        """,
    )
    assert "C: mail from:<ana@lab.example> size=10 body=8bitmime" in session.text()
    assert session.ending == ""


# -- postmaster, paths and parameters


@pytest.mark.parametrize("path", ["<postmaster>", "<Postmaster@Lab.Example>"])
def test_postmaster_is_the_first_account(lab: Lab, path: str) -> None:
    play(
        lab,
        "smtp",
        f"""
        {MX}
        C: VRFY {path}
        S: 250 2.1.5 <ana@lab.example>
        C: MAIL FROM:<>
        S: 250 2.1.0 OK
        C: RCPT TO:<postmaster@else.example>
        S: 550 5.7.1 ...
        C: RCPT TO:{path}
        S: 250 2.1.5 OK
        C: DATA
        S: 354 ...
        C: .
        S: 250 2.0.0 ...
        {QUIT}
        """,
    )
    envelope = newest(lab, "ana@lab.example").envelope
    assert envelope is not None
    assert envelope.recipients == (path.strip("<>"),)


def test_a_postmaster_with_an_account_gets_the_mail(network: Network) -> None:
    accounts = {"ana@lab.example": "secret", "postmaster@lab.example": "secret"}
    with Lab(accounts, network=network) as lab:
        with smtplib.SMTP(*lab.smtp) as client:
            client.sendmail("", ["postmaster@lab.example"], b"Subject: x\r\n\r\n")
        assert len(lab.inbox("postmaster@lab.example")) == 1
        assert len(lab.inbox("ana@lab.example")) == 0


@pytest.mark.parametrize(
    ("address", "why"),
    [
        (f"{'l' * 65}@lab.example", "A local part may have 64 octets"),
        (f"{'l' * 33}{'ä' * 16}@lab.example", "A local part may have 64 octets"),
        (f"x@{'d' * 252}.com", "A domain may have 255 octets"),
        (f"{'l' * 64}@{'d' * 190}", "A path may have 256 octets"),
    ],
)
def test_addresses_that_are_too_long_are_501(network: Network, address: str, why: str) -> None:
    with Lab(network=network, catch_all=True) as lab:
        play(
            lab,
            "smtp",
            f"""
            {MX}
            C: MAIL FROM:<{address}> SMTPUTF8
            S: 501 5.1.7 {why}
            C: MAIL FROM:<{"l" * 64}@{"d" * 189}>
            S: 250 2.1.0 OK
            C: RCPT TO:<{address}>
            S: 501 5.1.3 {why}
            C: RCPT TO:<{"l" * 64}@{"d" * 189}>
            S: 250 2.1.5 OK
            {QUIT}
            """,
        )


def test_what_dsn_asks_for_is_kept_with_the_message(lab: Lab) -> None:
    play(
        lab,
        "smtp",
        f"""
        {MX}
        C: MAIL FROM:<zoe@else.example> RET=HDRS envid=QQ314159+3D SIZE=10
        S: 250 2.1.0 OK
        C: RCPT TO:<ana@lab.example>
        S: 250 2.1.5 OK
        C: RCPT TO:<ben@lab.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Ben+2B1@else.example
        S: 250 2.1.5 OK
        C: DATA
        S: 354 ...
        C: .
        S: 250 2.0.0 ...
        {QUIT}
        """,
    )
    envelope = newest(lab).envelope
    assert envelope is not None
    assert envelope.parameters == ("RET=HDRS", "ENVID=QQ314159+3D", "SIZE=10")
    assert envelope.recipient_parameters == (
        (),
        ("NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;Ben+2B1@else.example"),
    )


@pytest.mark.parametrize(
    "parameters",
    [
        "RET=ALL",
        "RET",
        "RET=FULL RET=FULL",
        f"ENVID={'e' * 101}",
        "ENVID=a+b",
        "SIZE=",
        "SIZE=-1",
        f"SIZE={'1' * 21}",
        "BODY=BINARYMIME",
        "SMTPUTF8=yes",
        "=",
        "RET=FULL \\xff",
    ],
)
def test_parameters_of_mail_that_make_no_sense_are_501(lab: Lab, parameters: str) -> None:
    play(
        lab,
        "smtp",
        f"""
        {MX}
        C! MAIL FROM:<ana@lab.example> {parameters}\\r\\n
        S: 501 5.5.4 ...
        C: RCPT TO:<ben@lab.example>
        S: 503 5.5.1 ...
        {QUIT}
        """,
    )


@pytest.mark.parametrize(
    "parameters",
    [
        "NOTIFY=NEVER,SUCCESS",
        "NOTIFY=SUCCESS,SUCCESS",
        "NOTIFY=",
        "NOTIFY=ALWAYS",
        "ORCPT=ben@lab.example",
        f"ORCPT=rfc822;{'o' * 500}",
        "ORCPT=rfc822;a=b",
    ],
)
def test_parameters_of_rcpt_that_make_no_sense_are_501(lab: Lab, parameters: str) -> None:
    play(
        lab,
        "smtp",
        f"""
        {MX}
        C: MAIL FROM:<ana@lab.example>
        S: 250 2.1.0 OK
        C: RCPT TO:<ben@lab.example> {parameters}
        S: 501 5.5.4 ...
        C: DATA
        S: 503 5.5.1 ...
        {QUIT}
        """,
    )


def test_after_helo_there_are_no_parameters(lab: Lab) -> None:
    play(
        lab,
        "smtp",
        f"""
        {GREETING}
        C: HELO client.example
        S: 250 lab.example
        C: MAIL FROM:<ana@lab.example> SIZE=10
        S: 501 Syntax: MAIL FROM: <address>
        C: MAIL FROM:<ana@lab.example>
        S: 250 2.1.0 OK
        C: RCPT TO:<ben@lab.example> NOTIFY=NEVER
        S: 501 Syntax: RCPT TO: <address>
        C: QUIT
        S: 221 Bye
        """,
    )


def test_a_non_ascii_address_needs_smtputf8(network: Network) -> None:
    with Lab({"josé@lab.example": "secret"}, network=network) as lab:
        play(
            lab,
            "smtp",
            f"""
            {MX}
            C: MAIL FROM:<josé@lab.example>
            S: 553 5.6.7 Must declare SMTPUTF8 to send unicode address
            C: MAIL FROM:<ana@else.example>
            S: 250 2.1.0 OK
            C: RCPT TO:<josé@lab.example>
            S: 553 5.6.7 Must declare SMTPUTF8 to send unicode address
            C: RSET
            S: 250 2.0.0 OK
            C: MAIL FROM:<josé@else.example> smtputf8
            S: 250 2.1.0 OK
            C: RCPT TO:<josé@lab.example>
            S: 250 2.1.5 OK
            {QUIT}
            """,
        )


def test_what_a_client_said_is_told_back_harmless_and_short(lab: Lab) -> None:
    play(
        lab,
        "smtp",
        f"""
        {MX}
        C! A\\xc2\\x85C x\\r\\n
        S: 500 5.5.2 Error: bad syntax
        C! VRFY \\xff\\xfe\\xc2\\x9bx\\r\\n
        S: 550 5.1.1 <\\xff\\xfe\\x9bx>: Recipient address rejected: User unknown in ...
        C: MAIL FROM:<> SMTPUTF8
        S: 250 2.1.0 OK
        C: VRFY {"x" * 500}
        S: 550 5.1.1 <{"x" * 300}...
        {QUIT}
        """,
    )
    longest = max(len(line.data) for line in lab.sessions[-1].lines if line.who == "S")
    assert longest <= 512


# -- BDAT


def test_bdat_takes_a_message_in_counted_parts(lab: Lab) -> None:
    session = play(
        lab,
        "smtp",
        f"""
        {MX}
        {TO_BEN.partition("C: DATA")[0]}
        C! BDAT 14\\r\\nSubject: dots\\n
        S: 250 2.0.0 14 octets received
        C! bdat 10\\r\\n\\r\\n\\r\\n.\\r\\n..a
        S: 250 2.0.0 10 octets received
        C: RCPT TO:<ana@lab.example>
        S: 503 5.5.1 ...
        C: DATA
        S: 503 5.5.1 ...
        C: MAIL FROM:<ana@lab.example>
        S: 503 5.5.1 ...
        C! BDAT 2 LAST\\r\\n\\r\\n
        S: 250 2.0.0 Stored as message 1
        {QUIT}
        """,
    )
    assert newest(lab).octets.endswith(b"Subject: dots\n\r\n\r\n.\r\n..a\r\n")
    assert b"BDAT" not in newest(lab).octets
    assert [line.kind for line in session.lines if line.who == "C"].count("content") == 3


def test_an_empty_last_part_ends_the_message(lab: Lab) -> None:
    play(
        lab,
        "smtp",
        f"""
        {MX}
        {TO_BEN.partition("C: DATA")[0]}
        C! BDAT 16\\r\\nSubject: x\\r\\n\\r\\ny\\n
        S: 250 2.0.0 16 octets received
        C: BDAT 0 LAST
        S: 250 2.0.0 Stored as message 1
        C: BDAT 0 LAST
        S: 503 5.5.1 ...
        {QUIT}
        """,
    )
    assert newest(lab).octets.endswith(b"Subject: x\r\n\r\ny\n")


def test_the_octets_of_a_refused_part_are_no_commands(lab: Lab) -> None:
    play(
        lab,
        "smtp",
        f"""
        {MX}
        C! BDAT 6 LAST\\r\\nRSET\\r\\n
        S: 503 5.5.1 Error: need RCPT command
        C: BDAT six
        S: 501 5.5.4 Syntax: BDAT size [LAST]
        C: BDAT
        S: 501 5.5.4 Syntax: BDAT size [LAST]
        C: NOOP
        S: 250 2.0.0 OK
        {QUIT}
        """,
    )


def test_before_tls_and_login_the_octets_of_a_part_are_no_commands_either(lab: Lab) -> None:
    play(
        lab,
        "submission",
        f"""
        {MX}
        C! BDAT 6 LAST\\r\\nQUIT\\r\\n
        S: 530 5.7.0 Must issue a STARTTLS command first
        C: STARTTLS
        S: 220 2.0.0 Ready to start TLS
        -- TLS
        {HELLO_AGAIN}
        C! BDAT 6 LAST\\r\\nQUIT\\r\\n
        S: 530 5.7.0 Authentication required
        {QUIT}
        """,
    )


def test_after_a_part_that_was_too_much_only_rset_helps(network: Network) -> None:
    with Lab(network=network, limits=Limits(message=1000)) as lab:
        play(
            lab,
            "smtp",
            f"""
            {MX.replace("33554432", "1000")}
            {TO_BEN.partition("C: DATA")[0]}
            C! BDAT 600\\r\\n{"x" * 600}
            S: 250 2.0.0 ...
            C! BDAT 600 LAST\\r\\n{"x" * 600}
            S: 552 5.3.4 Chunk exceeds message size limit
            C! BDAT 2 LAST\\r\\n\\r\\n
            S: 503 5.5.1 A part was refused; say RSET to begin anew
            C: DATA
            S: 503 5.5.1 ...
            C: RSET
            S: 250 2.0.0 OK
            {TO_BEN.partition("C: DATA")[0]}
            C! BDAT 2 LAST\\r\\n\\r\\n
            S: 250 2.0.0 Stored as message 1
            {QUIT}
            """,
        )


def test_lines_of_a_part_have_the_same_limit(lab: Lab) -> None:
    play(
        lab,
        "smtp",
        f"""
        {MX}
        {TO_BEN.partition("C: DATA")[0]}
        C! BDAT 1100 LAST\\r\\n{"x" * 1100}
        S: 500 5.5.2 Line too long ...
        {QUIT}
        """,
    )
    assert len(lab.inbox("ben@lab.example")) == 0


# -- content


def test_dots_for_transparency_do_not_count(network: Network) -> None:
    line = "." + "x" * 7
    with Lab(network=network, limits=Limits(message=1000)) as lab:
        play(
            lab,
            "smtp",
            f"""
            {MX.replace("33554432", "1000")}
            {TO_BEN}
            {(f"C: .{line}" + chr(10)) * 100}
            C: .
            S: 250 2.0.0 Stored as message 1
            {QUIT}
            """,
        )
        assert newest(lab).octets.endswith(f"{line}\r\n".encode() * 100)


@pytest.mark.parametrize("cut", range(1, 12))
def test_content_is_whole_however_it_is_cut(network: Network, cut: int) -> None:
    lines = [b".", b"..", b"ends in a dot.", b".", b"", b".\n.", b"\r.", b"x.", b"."]
    stuffed = [b"." + line if line.startswith(b".") else line for line in lines]
    sent = b"DATA\r\n" + b"\r\n".join([*stuffed, b".", b"QUIT", b""])
    with Lab(network=network) as lab:
        client = Client(lab, "smtp")
        client.send(b"HELO client.example\r\nMAIL FROM:<>\r\nRCPT TO:<ben@lab.example>\r\n")
        for start in range(0, len(sent), cut):
            client.send(sent[start : start + cut])
        replies = [client.line()[:3] for _ in range(7)]
        assert replies == [b"220", b"250", b"250", b"250", b"354", b"250", b"221"]
        client.close()
        assert newest(lab).octets.endswith(b"+0000\r\n" + b"\r\n".join([*lines, b""]))


def test_too_large_a_message_is_552_at_once_by_size(network: Network) -> None:
    with Lab(network=network, limits=Limits(message=1000)) as lab:
        play(
            lab,
            "smtp",
            f"""
            {MX.replace("33554432", "1000")}
            C: MAIL FROM:<ana@lab.example> SIZE=1001
            S: 552 5.3.4 ...
            C: MAIL FROM:<ana@lab.example> SIZE=1000
            S: 250 2.1.0 OK
            {QUIT}
            """,
        )


def test_too_large_a_message_is_552_after_its_end(network: Network) -> None:
    line = "x" * 98
    with Lab(network=network, limits=Limits(message=1000)) as lab:
        play(
            lab,
            "smtp",
            f"""
            {MX.replace("33554432", "1000")}
            {TO_BEN}
            {f"C: {line}" + chr(10)}
            {(f"C: {line}" + chr(10)) * 10}
            C: .
            S: 552 5.3.4 Error: message file too big
            {TO_BEN}
            {(f"C: {line}" + chr(10)) * 10}
            C: .
            S: 250 2.0.0 Stored as message 1
            {QUIT}
            """,
        )
        assert len(lab.inbox("ben@lab.example")) == 1


def test_stuffed_dots_stay_in_the_transcript_and_not_in_the_mail(lab: Lab) -> None:
    session = play(
        lab,
        "smtp",
        f"""
        {MX}
        {TO_BEN}
        C: Subject: dots
        C:
        C: ..
        C: ..two
        C: a.
        C: ...
        C: .
        S: 250 2.0.0 ...
        {QUIT}
        """,
    )
    (content,) = (line.data for line in session.lines if line.kind == "content")
    assert content == b"Subject: dots\r\n\r\n..\r\n..two\r\na.\r\n...\r\n"
    assert newest(lab).octets.endswith(b"\r\n\r\n.\r\n.two\r\na.\r\n..\r\n")


@pytest.mark.parametrize(
    "smuggled", ["\\n.\\n", "\\r.\\r", "\\n.\\r\\n", "\\r\\n.\\n", "\\r.\\r\\n"]
)
def test_only_crlf_dot_crlf_ends_the_content(lab: Lab, smuggled: str) -> None:
    session = play(
        lab,
        "smtp",
        f"""
        {MX}
        {TO_BEN}
        C! Subject: one{smuggled}MAIL FROM:<mallory@else.example>\\r\\n.\\r\\n
        S: 250 2.0.0 Stored as message 1
        {QUIT}
        """,
    )
    assert exchange(session).endswith("DATA 354 250 QUIT 221")
    assert b"mallory" in newest(lab).octets


def test_eight_bit_content_is_kept_octet_for_octet(lab: Lab) -> None:
    octets = bytes(range(256)).replace(b"\r", b"").replace(b"\n", b"")
    client = Client(lab, "smtp")
    client.send(
        b"EHLO client.example\r\nMAIL FROM:<ana@lab.example> BODY=8BITMIME\r\n"
        b"RCPT TO:<ben@lab.example>\r\nDATA\r\n\r\n" + octets + b"\r\n.\r\n"
    )
    replies = [client.line()[:3] for _ in range(15)]
    assert replies[-4:] == [b"250", b"250", b"354", b"250"]
    client.close()
    assert newest(lab).octets.endswith(b"\r\n\r\n" + octets + b"\r\n")


def test_smtputf8_addresses(network: Network) -> None:
    accounts = {"josé@lab.example": "secret", "ben@lab.example": "secret"}
    login = ("JOSÉ@lab.example", "secret")
    message = EmailMessage()
    message["From"], message["To"] = "josé@lab.example", "ben@lab.example"
    message["Subject"] = "¡Olé!"
    with Lab(accounts, network=network) as lab:
        with smtplib.SMTP(*lab.submission) as client:
            client.starttls(context=lab.tls)
            client.ehlo()
            # smtplib's own login() takes ASCII names only.
            code, _ = client.docmd("AUTH", f"PLAIN {b64(chr(0).join(('', *login)))}")
            assert code == 235
            client.send_message(message)
        assert "¡Olé!" in bytes(newest(lab)).decode()
        assert bytes(newest(lab)).startswith("Return-Path: <josé@lab.example>\r\n".encode())
        assert received(newest(lab)).endswith(" with UTF8SMTPSA")
        assert "SMTPUTF8" in lab.sessions[-1].text()
        assert newest(lab)["Subject"] == "¡Olé!"


# -- pipelining and the end of a connection


def test_pipelined_commands_are_answered_in_order(lab: Lab) -> None:
    session = play(
        lab,
        "smtp",
        f"""
        {MX}
        C! MAIL FROM:<>\\r\\nRCPT TO:<zoe@lab.example>\\r\\nRCPT TO:<ben>\\r\\nDATA\\r\\n
        S: 250 2.1.0 OK
        S: 550 5.1.1 ...
        S: 550 5.1.1 ...
        S: 503 5.5.1 ...
        C! RCPT TO:<ben@lab.example>\\r\\nDATA\\r\\n
        S: 250 2.1.5 OK
        S: 354 ...
        C! Subject: pipelined\\r\\n.\\r\\nQUIT\\r\\n
        S: 250 2.0.0 ...
        S: 221 2.0.0 Bye
        -- server closes
        """,
    )
    assert (
        exchange(session)
        == "220 EHLO 250 MAIL RCPT RCPT DATA 250 550 550 503 RCPT DATA 250 354 QUIT 250 221"
    )
    assert newest(lab)["Subject"] == "pipelined"


def test_all_that_came_before_the_end_of_the_connection_is_obeyed(lab: Lab) -> None:
    sock = lab.network.connect(lab.smtp)
    sock.sendall(
        b"EHLO client.example\r\nMAIL FROM:<ana@lab.example>\r\nRCPT TO:<ben@lab.example>\r\n"
        b"DATA\r\nSubject: blind\r\n.\r\nNOOP\r\nNO end"
    )
    sock.shutdown(socket.SHUT_WR)
    heard = b""
    while piece := sock.recv(4096):
        heard += piece
    sock.close()
    assert [line[:3] for line in heard.splitlines()][-4:] == [b"250", b"354", b"250", b"250"]
    assert newest(lab)["Subject"] == "blind"
    session = lab.sessions[-1]
    assert session.closed
    assert [line.data for line in session.lines[-2:]] == [b"250 2.0.0 OK\r\n", b"NO end"]


def test_mail_cut_off_before_its_end_is_not_delivered(lab: Lab) -> None:
    session = play(lab, "smtp", f"{MX}{TO_BEN}C: Subject: half\n-- client closes")
    assert session.closed
    assert session.ending == "the client went away without QUIT"
    assert not lab.inbox("ben@lab.example")


@pytest.mark.parametrize("listener", ["smtp", "submissions"])
def test_a_silent_client_is_told_421(network: Network, listener: str) -> None:
    with Lab(network=network, limits=Limits(smtp_idle=0.05)) as lab:
        session = play(
            lab,
            listener,
            f"""
            {GREETING}
            S: 421 4.4.2 lab.example Error: timeout exceeded
            -- server closes
            """,
        )
        assert session.ending == "the server closed the connection"


def test_idle_time_counts_from_the_last_octet() -> None:
    network = InlineNetwork()
    with Lab(network=network, limits=Limits(smtp_idle=300)) as lab:
        client = Client(lab, "smtp")
        client.send(b"HELO client.example\r\nMAIL FROM:<>\r\nRCPT TO:<ben@lab.example>\r\nDATA\r\n")
        assert [client.line()[:3] for _ in range(5)][-1] == b"354"
        other = network.connect(lab.smtp, timeout=200)
        other.recv(1000)
        for row in (b"Subject: slow", b"", b"and", b"slow", b"."):
            other.sendall(b"NOOP\r\n")
            assert other.recv(1000) == b"250 OK\r\n"
            with pytest.raises(TimeoutError):
                other.recv(1000)  # nothing comes within its 200 virtual seconds
            client.send(row + b"\r\n")
        assert client.line().startswith(b"250 ")
        client.close()
        other.close()
        assert [session.duration for session in lab.sessions] == [1000, 1000]
    network.close()


def test_a_client_that_never_reads_is_cut_off() -> None:
    network = InlineNetwork()
    with Lab(network=network, limits=Limits(smtp_idle=300)) as lab:
        deaf = network.connect(lab.smtp)
        deaf.sendall(b"NOOP\r\n" * 100_000)
        other = network.connect(lab.smtp, timeout=1000)
        other.recv(1000)
        assert b"421" in other.recv(1000)
        assert lab.sessions[0].closed
        other.close()
        deaf.close()
    network.close()


def test_a_handshake_that_never_ends_is_no_place_for_421() -> None:
    network = InlineNetwork()
    with Lab(network=network, limits=Limits(smtp_idle=5)) as lab:
        sock = network.connect(lab.smtp, timeout=100)
        sock.recv(1000)
        sock.sendall(b"STARTTLS\r\n")
        assert sock.recv(1000).startswith(b"220")
        assert sock.recv(1000) == b""
        session = lab.sessions[-1]
        assert session.ending == "the TLS handshake took too long"
        assert session.duration == 30
        sock.close()
    network.close()


def test_one_connection_too_many_is_told_421(network: Network) -> None:
    with Lab(network=network, limits=Limits(connections=1)) as lab:
        first = Client(lab, "smtp")
        assert first.line().startswith(b"220")
        session = play(
            lab,
            "smtp",
            """
            S: 421 4.3.2 All server ports are busy
            -- server closes
            """,
        )
        assert session.ending == "the server closed the connection"
        first.close()
        assert lab.sessions[0].closed
        play(lab, "smtp", GREETING + "-- client closes")


def test_too_many_commands_end_the_session(network: Network) -> None:
    with Lab(network=network, limits=Limits(session_commands=3)) as lab:
        session = play(
            lab,
            "smtp",
            f"""
            {MX}
            C: NOOP
            S: 250 2.0.0 OK
            C: NONSENSE
            S: 500 5.5.2 ...
            C: NOOP
            S: 421 4.7.0 Too many commands in one session, goodbye
            -- server closes
            """,
        )
        assert session.ending == "the server closed the connection"


@pytest.mark.parametrize(
    ("listener", "farewell"),
    [
        ("smtp", "421 4.3.2 lab.example has heard too much in one session, come back later"),
        ("submissions", "421 4.3.2 lab.example has heard too much in one session, ..."),
        ("pop3", "-ERR [SYS/TEMP] lab.example has heard too much in one session, ..."),
        ("pop3s", "-ERR [SYS/TEMP] lab.example has heard too much in one session, ..."),
        ("imap", "* BYE lab.example has heard too much in one session, come back later"),
        ("imaps", "* BYE lab.example has heard too much in one session, come back later"),
    ],
)
def test_too_many_octets_end_the_session(network: Network, listener: str, farewell: str) -> None:
    with Lab(network=network, limits=Limits(session_octets=1000)) as lab:
        script = f"""
            S: ... ready
            C: {"x" * 1500}
            S: {farewell}
            -- server closes
        """
        session = play(lab, listener, script)
        assert session.ending == "the server closed the connection"
        play(lab, listener, "S: ... ready")


def test_a_message_beyond_the_sessions_octets_is_not_stored(network: Network) -> None:
    with Lab(network=network, limits=Limits(session_octets=1000)) as lab:
        play(
            lab,
            "smtp",
            f"""
            {MX}
            {TO_BEN}
            C! {"x" * 1100}
            S: 421 4.3.2 ...
            -- server closes
            """,
        )
        assert len(lab.inbox("ben@lab.example")) == 0


# -- when the store fails


@contextmanager
def read_only(lab: Lab) -> Iterator[None]:
    """SQLite itself refuses to write for a while."""

    def set_to(state: str) -> None:
        database: sqlite3.Connection = lab._store._db
        database.execute(f"PRAGMA query_only={state}")

    lab.network.run(lambda: set_to("ON"))
    yield
    lab.network.run(lambda: set_to("OFF"))


def test_a_store_that_cannot_write_is_451_and_the_server_lives_on(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client(lab, "smtp")

    def deliver(begin: bytes) -> bytes:
        client.send(
            begin + b"MAIL FROM:<>\r\nRCPT TO:<ben@lab.example>\r\nDATA\r\nSubject: x\r\n.\r\n"
        )
        while not (line := client.line()).startswith(b"354"):
            assert line[:3] in (b"220", b"250")
        return client.line()

    with read_only(lab):
        reply = deliver(b"EHLO client.example\r\n")
    assert reply.startswith(b"451 4.3.0 ")
    assert "could not be written" in caplog.text
    assert not lab.inbox("ben@lab.example")
    assert deliver(b"").startswith(b"250 2.0.0 Stored as message ")
    client.close()
    assert len(lab.inbox("ben@lab.example")) == 1


def test_a_mistake_in_the_store_is_451_too(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    def drop() -> None:
        lab._store._db.execute("DROP TABLE message")

    lab.network.run(drop)
    play(lab, "smtp", f"{MX}{TO_BEN}C: .\nS: 451 4.3.0 ...\nC: NOOP\nS: 250 2.0.0 OK{QUIT}")
    assert "no such table" in caplog.text


# -- much


def test_a_large_message_is_stored_whole(lab: Lab) -> None:
    octets = 10 * 1024 * 1024
    line = b"x" * 76 + b"\r\n"
    body = line * (octets // len(line) + 1)
    with smtplib.SMTP(*lab.smtp) as client:
        client.sendmail("ana@lab.example", "ben@lab.example", b"Subject: big\r\n\r\n" + body)
    assert newest(lab).octets.endswith(b"Subject: big\r\n\r\n" + body)
    session = lab.sessions[-1]
    (content,) = (one for one in session.lines if one.kind == "content")
    assert content.octets == len(b"Subject: big\r\n\r\n" + body)
    assert len(content.data) == 64 * 1024
    assert content.shortened
    assert f"[{content.octets:,} octets in all; the transcript keeps the first 65,536]" in str(
        session
    )
    assert session.octets("C") > octets
    assert sum(len(record.data) for record in session.records) < 128 * 1024
    assert session.dropped == 0


# -- the null reverse-path, after login


@pytest.mark.parametrize("listener", ["submission", "submissions"])
@pytest.mark.parametrize("path", ["<>", " <>", "<> SIZE=100", "<> BODY=8BITMIME RET=HDRS"])
def test_who_has_logged_in_may_send_notices_from_nobody(lab: Lab, listener: str, path: str) -> None:
    """RFC 8098 section 3, RFC 5321 section 4.5.5: receipts have the null reverse-path."""
    hello = SUBMISSION if listener == "submission" else GREETING + HELLO_AGAIN
    play(
        lab,
        listener,
        f"""
        {hello}
        C: AUTH PLAIN {ANA}
        S: 235 2.7.0 ...
        C: MAIL FROM:{path}
        S: 250 2.1.0 OK
        C: RCPT TO:<ben@lab.example>
        S: 250 2.1.5 OK
        C: DATA
        S: 354 ...
        C: Content-Type: multipart/report; report-type=disposition-notification; boundary=b
        C:
        C: .
        S: 250 2.0.0 ...
        {QUIT}
        """,
    )
    assert newest(lab)["Return-Path"] == "<>"


def test_nobody_sends_notices_without_login(lab: Lab) -> None:
    play(
        lab,
        "submission",
        f"""
        {SUBMISSION}
        C: MAIL FROM:<>
        S: 530 5.7.0 Authentication required
        {QUIT}
        """,
    )


# -- domains in Unicode and in ASCII

BOOKS = {"ana@bücher.example": "pw-12345", "jürgen@lab.example": "pw-12345"}
BOTH_FORMS = ("ana@bücher.example", "ana@xn--bcher-kva.example")


@pytest.fixture
def books(network: Network) -> Iterator[Lab]:
    with Lab(BOOKS, network=network, hostname="lab.example") as made:
        yield made


def test_a_recipient_in_all_spellings_gets_one_copy(books: Lab) -> None:
    spellings = [*BOTH_FORMS, "Ana@XN--BCHER-KVA.example", "ana@bu\u0308cher.example"]
    play(
        books,
        "smtp",
        f"{MX}\nC: MAIL FROM:<eve@far.example> SMTPUTF8\nS: 250 ...\n"
        + "\n".join(f"C: RCPT TO:<{path}>\nS: 250 2.1.5 OK" for path in spellings)
        + f"\nC: DATA\nS: 354 ...\nC: .\nS: 250 2.0.0 ...\n{QUIT}",
    )
    for address in BOTH_FORMS:
        (message,) = books.inbox(address)
        assert message.envelope is not None
        assert message.envelope.recipients == tuple(spellings)  # as they were said


def test_the_ascii_form_needs_no_smtputf8(books: Lab) -> None:
    play(
        books,
        "smtp",
        f"""
        {MX}
        C: MAIL FROM:<ana@xn--bcher-kva.example>
        S: 250 2.1.0 OK
        C: RCPT TO:<ana@xn--bcher-kva.example>
        S: 250 2.1.5 OK
        C: RCPT TO:<ana@xn--bcher-kvb.example>
        S: 550 5.7.1 ...
        C: RCPT TO:<zoe@xn--bcher-kva.example>
        S: 550 5.1.1 ...
        C: RCPT TO:<ana@xn--.example>
        S: 550 5.7.1 ...
        C: RCPT TO:<ana@xn--99999999999999.example>
        S: 550 5.7.1 ...
        C: VRFY ana@xn--bcher-kva.example
        S: 250 2.1.5 <ana@b...cher.example>
        {QUIT}
        """,
    )


@pytest.mark.parametrize("name", BOTH_FORMS)
@pytest.mark.parametrize("sender", BOTH_FORMS)
def test_who_logs_in_by_one_form_sends_by_either(books: Lab, name: str, sender: str) -> None:
    play(
        books,
        "submission",
        f"""
        {SUBMISSION}
        C: AUTH PLAIN {b64(f"{name}{chr(0)}{name}{chr(0)}pw-12345")}
        S: 235 2.7.0 ...
        C: MAIL FROM:<{sender}> SMTPUTF8
        S: 250 2.1.0 OK
        C: RSET
        S: 250 ...
        C: MAIL FROM:<jürgen@lab.example> SMTPUTF8
        S: 553 5.7.1 <...>: Sender address rejected: not owned by user ana@b...cher.example
        {QUIT}
        """,
    )


@pytest.mark.parametrize("name", [*BOTH_FORMS, "ANA@XN--BCHER-KVA.EXAMPLE"])
def test_pop3_and_imap_know_the_account_by_either_form(books: Lab, name: str) -> None:
    plain = b64(f"{BOTH_FORMS[0]}{chr(0)}{name}{chr(0)}pw-12345")
    play(books, "pop3", f"S: +OK ...\nC: USER {name}\nS: +OK ...\nC: PASS pw-12345\nS: +OK ...")
    play(books, "pop3", f"S: +OK ...\nC: AUTH PLAIN {plain}\nS: +OK ...")
    play(books, "imap", f"S: * OK ...\nC: a AUTHENTICATE PLAIN {plain}\nS: a OK ...")
    assert books.mailboxes(BOTH_FORMS[1]) == {"INBOX": 0}


# -- octets that can't stand in a command

CONTROLS = [*range(9), *range(0x0B, 0x20), 0x7F]


@pytest.mark.parametrize(
    "command",
    [
        *("NO%bOP", "NOOP%b", "%bNOOP", "NOOP x%by", "EHLO cli%bent", "HELO %b", "RSET%b"),
        *("MAIL FROM:<a%b@b.example>", "MAIL FROM:<a@b.example>%b", "MAIL%bFROM:<a@b.example>"),
        *("VRFY a%b", "HELP %b", "QUIT%b", "QUIT %b", "STARTTLS%b", "EXPN %b", "AUTH %b", "A%b"),
    ],
)
def test_a_control_character_in_a_command_is_501(lab: Lab, command: str) -> None:
    before, after = command.encode().split(b"%b")
    client = Client(lab, "smtp")
    client.line()
    for octet in CONTROLS:
        client.send(before + bytes([octet]) + after + b"\r\n")
        assert client.line().startswith(b"501 "), octet
    client.send(b"RCPT TO:<a\0@b.example>\r\nBDAT 3\x0b\r\nDATA\x00\r\nNOOP\r\r\nNOOP\r\n")
    assert [client.line()[:3] for _ in range(5)] == [b"501"] * 4 + [b"250"]
    client.close()


def test_a_tab_counts_as_a_blank(lab: Lab) -> None:
    session = play(
        lab,
        "smtp",
        r"""
        S: 220 ...
        C! EHLO\tclient.example\r\n
        S: 250-lab.example
        S: 250-SIZE ...
        S: 250-8BITMIME
        S: 250-SMTPUTF8
        S: 250-STARTTLS
        S: 250-PIPELINING
        S: 250-ENHANCEDSTATUSCODES
        S: 250-DSN
        S: 250-CHUNKING
        S: 250 HELP
        C! MAIL\tFROM:<a@b.example>\tSIZE=10\t\tBODY=7BIT\r\n
        S: 250 2.1.0 OK
        C! RCPT \tTO:<ben@lab.example>\t\r\n
        S: 250 2.1.5 OK
        C! BDAT\t5\tLAST\r\nx\t\0\r\n
        S: 250 2.0.0 ...
        C! QUIT\t\r\n
        S: 221 ...
        """,
    )
    assert newest(lab).octets.endswith(b"x\t\0\r\n")
    assert legal(session) == ()


# -- line ends


@pytest.mark.parametrize("end", ["\\n", "\\r\\n"])
def test_a_command_may_end_in_lf_alone_and_the_transcript_says_so(lab: Lab, end: str) -> None:
    session = play(
        lab,
        "smtp",
        f"S: 220 ...\nC! HELO client.example{end}\nS: 250 ...\nC! NOOP{end}\nS: 250 ...",
    )
    said = [meaning.detail for meaning in explain(session)]
    assert sum("LF alone" in detail for detail in said) == (2 if end == "\\n" else 0)
    assert all("Postfix, Exim" in detail for detail in said if "LF alone" in detail)


FALSE_ENDS = [
    *(b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r"),
    *(b"\r\n.\r", b"\n.\r", b"\r.\r\n", b"\r\r\n.\r\r\n"),
]


@pytest.mark.parametrize("false", FALSE_ENDS, ids=repr)
def test_a_false_end_of_data_is_content_and_the_transcript_says_so(lab: Lab, false: bytes) -> None:
    content = b"Subject: 1\r\n\r\nbefore" + false + b"MAIL FROM:<eve@far.example>"
    said = b"HELO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<ben@lab.example>\r\nDATA\r\n"
    _, session = converse(lab, "smtp", [said + content + b"\r\n.\r\nQUIT\r\n"])
    (message,) = lab.inbox("ben@lab.example")
    assert b"MAIL FROM:<eve" in message.octets
    told = dict(zip(session.lines, explain(session), strict=True))
    (body,) = [line for line in session.lines if line.kind == "content"]
    assert "it doesn't end the message" in told[body].detail


@pytest.mark.parametrize("content", [b"a\r\n..\r\nb", b"a.\r\n.b", b"a\n\n.b\n", b"..\r\n..x"])
def test_a_dot_in_its_place_is_no_false_end(lab: Lab, content: bytes) -> None:
    said = b"HELO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<ben@lab.example>\r\nDATA\r\n"
    _, session = converse(lab, "smtp", [said + content + b"\r\n.\r\nQUIT\r\n"])
    assert not any("doesn't end the message" in meaning.detail for meaning in explain(session))
