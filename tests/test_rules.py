"""What goes wrong on purpose: each rule, in dialogues on both networks.

What three well-known servers can be told to do stands in book/rules.md, beside the rules that do
the same here; `THEIRS` plays each line of those tables.
"""

from __future__ import annotations

import base64
import imaplib
import poplib
import re
import smtplib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from labserver import (
    Delay,
    Disconnect,
    Greylist,
    Lab,
    Limits,
    Message,
    Quota,
    Reply,
    Throttle,
)
from labserver.catalog import legal
from labserver.network import Network
from labserver.network.inline import InlineNetwork
from labserver.rules import Memory, Occasion, Rule, Sent
from tests.dialogue import Client, play

pytestmark = pytest.mark.protocol

BOOK = Path(__file__).parents[1] / "book" / "rules.md"

HELLO = """
    S: 220 ...
    C: HELO client.example
    S: 250 ...
"""
MAIL = """
    C: MAIL FROM:<shop@shop.example>
    S: 250 ...
"""
RCPT = """
    C: RCPT TO:<ben@lab.example>
    S: 250 ...
"""
TO_BEN = MAIL + RCPT
MESSAGE = """
    C: DATA
    S: 354 ...
    C: Subject: Hello
    C:
    C: Hello, Ben!
    C: .
"""
QUIT = """
    C: QUIT
    S: 221 ...
    -- server closes
"""
CONTENT_OCTETS = len("Subject: Hello\r\n\r\nHello, Ben!\r\n")
POP3_LOGIN = """
    S: +OK ...
    C: USER ben@lab.example
    S: +OK ...
    C: PASS ben-lab-password
    S: +OK ...
"""
IMAP_LOGIN = """
    S: * OK ...
    C: a LOGIN ben@lab.example ben-lab-password
    S: a OK ...
"""
IMAP_INBOX = (
    IMAP_LOGIN
    + """
    C: b SELECT INBOX
    S: * FLAGS ...
    S: * OK ...
    S: * 1 EXISTS
    S: * ...
    S: * OK ...
    S: * OK ...
    S: * OK ...
    S: b OK ...
"""
)


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


ANA = b64("\0ana@lab.example\0ana-lab-password")
SUBMISSION = """
    S: 220 ...
    C: STARTTLS
    S: 220 ...
    -- TLS
    C: EHLO client.example
    S: 250-lab.example
    S: 250-SIZE ...
    S: 250-8BITMIME
    S: 250-SMTPUTF8
    S: 250-AUTH ...
    S: 250-PIPELINING
    S: 250-ENHANCEDSTATUSCODES
    S: 250-DSN
    S: 250-CHUNKING
    S: 250 HELP
"""


@pytest.fixture
def virtual() -> Iterator[Lab]:
    """A lab under virtual time."""
    network = InlineNetwork()
    with Lab(network=network) as made:
        yield made
    network.close()


def bens(lab: Lab) -> list[Message]:
    return list(lab.inbox("ben@lab.example"))


def deliver(
    lab: Lab, sender: str = "shop@shop.example", text: str = "Subject: Hi\r\n\r\nHi\r\n"
) -> None:
    """A message for Ben by a real client, which the lab has to take."""
    with smtplib.SMTP(*lab.smtp, local_hostname="client.example") as client:
        client.sendmail(sender, ["ben@lab.example"], text)


def pass_time(lab: Lab, seconds: float) -> None:
    """Let so much virtual time pass: a client waits that long for an answer."""
    rules = lab.rules
    lab.rules = [*rules, Delay("VRFY", seconds)]
    with smtplib.SMTP(*lab.smtp, timeout=seconds + 1) as client:
        client.vrfy("ben")
    lab.rules = rules


# -- Reply


BEFORE = {
    "EHLO": "S: 220 ...",
    "HELO": "S: 220 ...",
    "MAIL": HELLO,
    "RCPT": HELLO + MAIL,
    "DATA": HELLO + TO_BEN,
    "end of data": HELLO + TO_BEN + MESSAGE.rpartition("\n    C: .")[0],
    "BDAT": HELLO + TO_BEN,
    "BDAT LAST": HELLO + TO_BEN,
    "RSET": HELLO,
    "NOOP": HELLO,
    "VRFY": HELLO,
    "EXPN": HELLO,
    "HELP": HELLO,
    "QUIT": HELLO,
    "STARTTLS": HELLO,
    "AUTH": HELLO,
}
TYPED = {
    "EHLO": "C: EHLO client.example",
    "HELO": "C: HELO client.example",
    "MAIL": "C: MAIL FROM:<shop@shop.example>",
    "RCPT": "C: RCPT TO:<ben@lab.example>",
    "end of data": "C: .",
    "BDAT": "C! BDAT 4\\r\\nHi\\r\\n",
    "BDAT LAST": "C! BDAT 4 LAST\\r\\nHi\\r\\n",
    "VRFY": "C: VRFY ben",
    "EXPN": "C: EXPN ben",
    "AUTH": "C: AUTH PLAIN",
}


@pytest.mark.parametrize("text", ["450 4.3.0 Error: command failed", "500 5.3.0 No"])
@pytest.mark.parametrize("command", BEFORE)
def test_any_smtp_command_can_be_refused(lab: Lab, command: str, text: str) -> None:
    lab.rules = [Reply(command, text, times=1)]
    play(
        lab,
        "smtp",
        f"""
        {BEFORE[command]}
        {TYPED.get(command, f"C: {command}")}
        S: {text}
        {QUIT}
        """,
    )
    assert bens(lab) == []


@pytest.mark.parametrize(
    ("command", "before", "typed"),
    [
        ("CAPA", "S: +OK ...", "CAPA"),
        ("STLS", "S: +OK ...", "STLS"),
        ("USER", "S: +OK ...", "USER ben@lab.example"),
        ("PASS", POP3_LOGIN.rpartition("C: PASS")[0], "PASS ben-lab-password"),
        ("AUTH", "S: +OK ...", f"AUTH PLAIN {ANA}"),
        ("APOP", "S: +OK ...", "APOP ben@lab.example 0123"),
        *(
            (verb, POP3_LOGIN, typed)
            for verb, typed in {
                "STAT": "STAT", "LIST": "LIST", "RETR": "RETR 1", "DELE": "DELE 1",
                "NOOP": "NOOP", "RSET": "RSET", "TOP": "TOP 1 0", "UIDL": "UIDL",
            }.items()
        ),
    ],
)  # fmt: skip
def test_any_pop3_command_can_be_refused(lab: Lab, command: str, before: str, typed: str) -> None:
    deliver(lab)
    lab.rules = [Reply(command, "-ERR [SYS/TEMP] not now", times=1)]
    play(
        lab,
        "pop3",
        f"""
        {before}
        C: {typed}
        S: -ERR [SYS/TEMP] not now
        C: QUIT
        S: +OK ...
        -- server closes
        """,
    )
    assert len(bens(lab)) == 1


@pytest.mark.parametrize(
    ("command", "before", "typed"),
    [
        ("CAPABILITY", "S: * OK ...", "CAPABILITY"),
        ("STARTTLS", "S: * OK ...", "STARTTLS"),
        ("LOGIN", "S: * OK ...", "LOGIN ben@lab.example ben-lab-password"),
        ("AUTHENTICATE", "S: * OK ...", f"AUTHENTICATE PLAIN {ANA}"),
        ("ID", "S: * OK ...", "ID NIL"),
        *(
            (typed.rpartition(" ")[0] if "UID" in typed else typed.partition(" ")[0], before, typed)
            for before, lines in {
                IMAP_LOGIN: ("SELECT INBOX", "EXAMINE INBOX", "CREATE x", "DELETE x", "IDLE"),
                IMAP_INBOX: ("FETCH 1", "STORE 1", "COPY 1", "UID SEARCH ALL", "EXPUNGE", "CLOSE"),
            }.items()
            for typed in lines
        ),
    ],
)
def test_any_imap_command_can_be_refused(lab: Lab, command: str, before: str, typed: str) -> None:
    deliver(lab)
    lab.rules = [Reply(command, "NO [UNAVAILABLE] not now", times=1)]
    play(
        lab,
        "imap",
        f"""
        {before}
        C: x {typed}
        S: x NO [UNAVAILABLE] not now
        C: y LOGOUT
        S: * BYE ...
        S: y OK ...
        -- server closes
        """,
    )
    assert len(bens(lab)) == 1


def test_a_refused_append_has_been_read(lab: Lab) -> None:
    lab.rules = [Reply("APPEND", "NO [OVERQUOTA] full", times=1)]
    play(
        lab,
        "imap",
        f"""
        {IMAP_LOGIN}
        C: b APPEND INBOX {{4}}
        S: + ...
        C: Hi!!
        S: b NO [OVERQUOTA] full
        C: c APPEND INBOX {{4+}}
        C: Hi!!
        S: c OK ...
        """,
    )
    assert len(bens(lab)) == 1


def test_a_refused_last_chunk_stores_nothing_until_rset(lab: Lab) -> None:
    lab.rules = [Reply("BDAT LAST", "554 5.7.1 No", times=1)]
    play(
        lab,
        "smtp",
        f"""
        {HELLO}
        {TO_BEN}
        C! BDAT 4 LAST\\r\\nHi\\r\\n
        S: 554 5.7.1 No
        C! BDAT 4 LAST\\r\\nHi\\r\\n
        S: 503 ...
        C: RSET
        S: 250 ...
        {TO_BEN}
        C! BDAT 4 LAST\\r\\nHi\\r\\n
        S: 250 ...
        """,
    )
    assert len(bens(lab)) == 1


def test_a_star_is_any_command(lab: Lab) -> None:
    lab.rules = [Reply("*", "450 4.3.2 Tired", after=1, times=3)]
    play(
        lab,
        "smtp",
        """
        S: 220 ...
        C: EHLO client.example
        S: 450 4.3.2 Tired
        C: NONSENSE
        S: 450 4.3.2 Tired
        C: MAIL FROM:<>
        S: 450 4.3.2 Tired
        C: NOOP
        S: 250 OK
        """,
    )


@pytest.mark.parametrize("command", [name for name in BEFORE if name != "AUTH"])
def test_421_ends_the_session(lab: Lab, command: str) -> None:
    lab.rules = [Reply(command, "421 4.3.2 Closing down", times=1)]
    session = play(
        lab,
        "smtp",
        f"""
        {BEFORE[command]}
        {TYPED.get(command, f"C: {command}")}
        S: 421 4.3.2 Closing down
        -- server closes
        """,
    )
    assert session.closed
    assert bens(lab) == []


@pytest.mark.parametrize("text", ["BYE overloaded", "* BYE overloaded"])
def test_bye_ends_the_session(lab: Lab, text: str) -> None:
    lab.rules = [Reply("SELECT", text)]
    play(
        lab,
        "imap",
        f"""
        {IMAP_LOGIN}
        C: b SELECT INBOX
        S: * BYE overloaded
        -- server closes
        """,
    )


@pytest.mark.parametrize("listener", ["smtp", "submissions"])
@pytest.mark.parametrize("text", ["554 5.3.2 No mail here", "450 4.3.2 Not now"])
def test_a_client_can_be_turned_away(lab: Lab, listener: str, text: str) -> None:
    lab.rules = [Reply("greeting", text)]
    play(
        lab,
        listener,
        f"""
        S: {text}
        C: HELO client.example
        S: 503 ...
        {QUIT}
        """,
    )


def test_a_greeting_with_421_is_the_end(lab: Lab) -> None:
    lab.rules = [Reply("greeting", "421 4.3.2 Busy")]
    play(lab, "smtp", "S: 421 4.3.2 Busy\n-- server closes")


@pytest.mark.parametrize(
    ("listener", "text", "said"),
    [
        ("pop3", "-ERR [SYS/TEMP] busy", "-ERR [SYS/TEMP] busy"),
        ("pop3s", "-ERR [SYS/TEMP] busy", "-ERR [SYS/TEMP] busy"),
        ("imap", "BYE busy", "* BYE busy"),
        ("imaps", "BYE busy", "* BYE busy"),
    ],
)
def test_pop3_and_imap_can_turn_a_client_away(
    lab: Lab, listener: str, text: str, said: str
) -> None:
    lab.rules = [Reply("greeting", text)]
    play(lab, listener, f"S: {said}\n-- server closes")


def test_a_positive_text_is_said_of_what_has_succeeded(lab: Lab) -> None:
    lab.rules = [
        Reply("greeting", "220 mx.shop.example ready"),
        Reply("RCPT", "251 2.1.5 It moves on"),
        Reply("DATA", "354 Go on"),
        Reply("end of data", "250 2.6.0 Queued as 42"),
        Reply("QUIT", "221 2.0.0 So long"),
    ]
    play(
        lab,
        "smtp",
        """
        S: 220 mx.shop.example ready
        C: HELO client.example
        S: 250 ...
        C: MAIL FROM:<shop@shop.example>
        S: 250 ...
        C: RCPT TO:<nobody@lab.example>
        S: 550 ...
        C: RCPT TO:<ben@lab.example>
        S: 251 2.1.5 It moves on
        C: DATA
        S: 354 Go on
        C: Hi
        C: .
        S: 250 2.6.0 Queued as 42
        C: QUIT
        S: 221 2.0.0 So long
        -- server closes
        """,
    )
    assert len(bens(lab)) == 1


def test_a_positive_text_in_pop3_and_imap(lab: Lab) -> None:
    deliver(lab)
    lab.rules = [
        Reply("greeting", "+OK hello"),
        Reply("greeting", "OK hello"),
        Reply("LIST", "+OK here", protocol="POP3"),
        Reply("FETCH", "OK there", protocol="IMAP"),
    ]
    play(
        lab,
        "pop3",
        f"""
        {POP3_LOGIN.replace("S: +OK ...", "S: +OK hello", 1)}
        C: LIST
        S: +OK here
        S: 1 ...
        S: .
        """,
    )
    play(
        lab,
        "imap",
        f"""
        {IMAP_INBOX.replace("S: * OK ...", "S: * OK hello", 1)}
        C: c FETCH 1 UID
        S: * 1 FETCH (UID 1)
        S: c OK there
        C: d FETCH 9 UID
        S: d BAD ...
        """,
    )


def test_a_reply_may_have_several_lines(lab: Lab) -> None:
    lab.rules = [Reply("MAIL", "550 5.7.1 Not from you\nAsk your postmaster")]
    play(
        lab,
        "smtp",
        f"""
        {HELLO}
        C: MAIL FROM:<shop@shop.example>
        S: 550-5.7.1 Not from you
        S: 550 5.7.1 Ask your postmaster
        """,
    )


def test_a_server_without_ehlo(lab: Lab) -> None:
    lab.rules = [Reply("EHLO", "502 5.5.1 What is that?")]
    deliver(lab)
    assert "S: 502 5.5.1 What is that?" in str(lab.sessions[-1])
    assert len(bens(lab)) == 1


def test_extensions_can_be_kept_back(lab: Lab) -> None:
    lab.rules = [Reply("EHLO", "250 lab.example\nSIZE 1000")]
    with smtplib.SMTP(*lab.smtp) as client:
        client.ehlo()
        assert client.esmtp_features == {"size": "1000"}


@pytest.mark.parametrize("initial", [True, False])
@pytest.mark.parametrize("who", ["ana@lab.example", "ANA@*"])
def test_a_login_can_be_refused(lab: Lab, who: str, initial: bool) -> None:
    lab.rules = [Reply("AUTH", "535 5.7.8 Locked", only=who, times=1)]
    plain = f"C: AUTH PLAIN {ANA}" if initial else f"C: AUTH PLAIN\nS: 334 ...\nC: {ANA}"
    login = f"C: AUTH LOGIN {b64('ana@lab.example')}"
    if not initial:
        login = f"C: AUTH LOGIN\nS: 334 ...\nC: {b64('ana@lab.example')}"
    for way in (plain, login):
        lab.rules = []
        lab.rules = [Reply("AUTH", "535 5.7.8 Locked", only=who, times=1)]
        play(
            lab,
            "submission",
            f"""
            {SUBMISSION}
            C: AUTH PLAIN {b64(chr(0) + "ben@lab.example" + chr(0) + "wrong")}
            S: 535 5.7.8 Authentication credentials invalid
            {way}
            S: 535 5.7.8 Locked
            C: AUTH PLAIN {ANA}
            S: 235 ...
            """,
        )


def test_a_login_can_be_refused_in_pop3_and_imap(lab: Lab) -> None:
    lab.rules = [
        Reply("PASS", "-ERR [SYS/TEMP] later", only="ben@*"),
        Reply("AUTH", "-ERR [SYS/TEMP] later", only="ben@*"),
        Reply("LOGIN", "NO [UNAVAILABLE] later", only="ben@*"),
        Reply("AUTHENTICATE", "NO [UNAVAILABLE] later", only="ben@*"),
    ]
    pop3 = poplib.POP3(*lab.pop3)
    pop3.user("ben@lab.example")
    with pytest.raises(poplib.error_proto, match=r"\[SYS/TEMP\] later"):
        pop3.pass_("ben-lab-password")
    pop3.user("ana@lab.example")
    pop3.pass_("ana-lab-password")
    pop3.quit()
    ben = b64("\0ben@lab.example\0ben-lab-password")
    play(lab, "pop3", f"S: +OK ...\nC: AUTH PLAIN\nS: +...\nC: {ben}\nS: -ERR [SYS/TEMP] later")
    imap = imaplib.IMAP4(*lab.imap)
    with pytest.raises(imaplib.IMAP4.error, match=r"\[UNAVAILABLE\] later"):
        imap.login("ben@lab.example", "ben-lab-password")
    with pytest.raises(imaplib.IMAP4.error, match=r"\[UNAVAILABLE\] later"):
        imap.authenticate("PLAIN", lambda _: b"\0ben@lab.example\0ben-lab-password")
    imap.authenticate("PLAIN", lambda _: b"\0ana@lab.example\0ana-lab-password")
    imap.logout()


def test_tls_can_be_refused_and_had_later(lab: Lab) -> None:
    lab.rules = [
        Reply("STARTTLS", "454 4.7.0 TLS not available", times=1),
        Reply("STLS", "-ERR no TLS now", times=1),
        Reply("STARTTLS", "NO [UNAVAILABLE] no TLS now", times=1),
    ]
    with smtplib.SMTP(*lab.submission) as client:
        with pytest.raises(smtplib.SMTPResponseException, match="454"):
            client.starttls(context=lab.tls)
        client.starttls(context=lab.tls)
        client.login("ana@lab.example", "ana-lab-password")
    pop3 = poplib.POP3("localhost", lab.pop3.port)
    with pytest.raises(poplib.error_proto, match="no TLS now"):
        pop3.stls(lab.tls)
    pop3.stls(lab.tls)
    pop3.quit()
    imap = imaplib.IMAP4("localhost", lab.imap.port)
    with pytest.raises(imaplib.IMAP4.error):
        imap.starttls(lab.tls)
    imap.starttls(lab.tls)
    imap.logout()


def test_tls_and_login_are_had_in_other_words(lab: Lab) -> None:
    lab.rules = [
        Reply("STARTTLS", "220 2.0.0 Go"),
        Reply("AUTH", "235 2.7.0 Welcome"),
        Reply("STLS", "+OK go"),
        Reply("STARTTLS", "OK go"),
    ]
    with smtplib.SMTP(*lab.submission) as client:
        assert client.starttls(context=lab.tls) == (220, b"2.0.0 Go")
        assert client.login("ana@lab.example", "ana-lab-password") == (235, b"2.7.0 Welcome")
    pop3 = poplib.POP3("localhost", lab.pop3.port)
    assert pop3.stls(lab.tls) == b"+OK go"
    pop3.quit()
    imap = imaplib.IMAP4("localhost", lab.imap.port)
    assert imap.starttls(lab.tls)[0] == "OK"
    imap.logout()
    assert " OK go\n" in str(lab.sessions[-1])


def test_a_rule_holds_under_tls(lab: Lab) -> None:
    deliver(lab)
    lab.rules = [Reply("RETR", "-ERR [SYS/TEMP] not now", times=1)]
    session = play(
        lab, "pop3s", f"{POP3_LOGIN}\nC: RETR 1\nS: -ERR [SYS/TEMP] not now\nC: NOOP\nS: +OK"
    )
    assert session.lines[-1].tls


def test_a_scripted_refusal_is_a_legal_line_of_the_session(lab: Lab) -> None:
    lab.rules = [Reply("RCPT", "451 4.7.1 Greylisted, try again later", times=1)]
    session = play(
        lab,
        "smtp",
        f"{HELLO}{MAIL}\nC: RCPT TO:<ben@lab.example>\nS: 451 ...\n{RCPT}{MESSAGE}\nS: 250 ..."
        + QUIT,
    )
    assert legal(session) == ()
    assert "S: 451 4.7.1 Greylisted, try again later" in str(session)


# -- whom it is about, how often, in which order


def test_only_is_about_the_path(lab: Lab) -> None:
    lab.rules = [
        Reply("MAIL", "550 5.7.1 No shops", only="*@SHOP.example"),
        Reply("MAIL", "550 5.7.1 No bounces", only=""),
        Reply("RCPT", "450 4.2.1 Ben is busy", only="ben@*"),
        Reply("DATA", "451 4.3.0 Not you", only="zoe@zoo.example"),
    ]
    play(
        lab,
        "smtp",
        f"""
        {HELLO}
        C: MAIL FROM:<x@shop.EXAMPLE>
        S: 550 5.7.1 No shops
        C: MAIL FROM:<>
        S: 550 5.7.1 No bounces
        C: MAIL FROM:<zoe@zoo.example>
        S: 250 ...
        C: RCPT TO:<Ben@lab.example>
        S: 450 4.2.1 Ben is busy
        C: RCPT TO:<ana@lab.example>
        S: 250 ...
        C: DATA
        S: 451 4.3.0 Not you
        """,
    )


def test_only_is_about_who_has_logged_in(lab: Lab) -> None:
    lab.rules = [
        Reply("NOOP", "-ERR not for you", only="ben@lab.example"),
        Reply("NOOP", "NO not for you", only="ben@lab.example"),
        Reply("NOOP", "450 4.7.1 not for you", only="ana@lab.example"),
    ]
    play(lab, "pop3", f"{POP3_LOGIN}\nC: NOOP\nS: -ERR not for you")
    play(lab, "imap", f"{IMAP_LOGIN}\nC: b NOOP\nS: b NO not for you")
    noop = "C: NOOP\nS: 250 ..."
    play(
        lab,
        "submission",
        f"{SUBMISSION}\n{noop}\nC: AUTH PLAIN {ANA}\nS: 235 ...\nC: NOOP\nS: 450 4.7.1 not for you",
    )


def test_after_and_times_count_occasions(lab: Lab) -> None:
    lab.rules = [Reply("NOOP", "450 4.3.2 No", after=1, times=2)]
    said = "\n".join(f"C: NOOP\nS: {code} ..." for code in (250, 450, 450, 250, 250))
    play(lab, "smtp", f"{HELLO}\n{said}")


def test_the_first_reply_that_applies_wins_and_later_ones_are_not_counted(lab: Lab) -> None:
    lab.rules = [
        Reply("NOOP", "450 4.3.2 One", times=1),
        Reply("NOOP", "450 4.3.2 Two", times=1),
        Disconnect("NOOP", times=1),
        Reply("NOOP", "450 4.3.2 Never"),
    ]
    play(
        lab,
        "smtp",
        f"{HELLO}\nC: NOOP\nS: 450 4.3.2 One\nC: NOOP\nS: 450 4.3.2 Two\nC: NOOP\n-- server closes",
    )


def test_equal_rules_count_each_for_itself(lab: Lab) -> None:
    lab.rules = [Reply("NOOP", "450 4.3.2 No", times=1)] * 2
    play(lab, "smtp", HELLO + "\n".join(f"C: NOOP\nS: {code} ..." for code in (450, 450, 250)))


def test_a_rule_may_be_for_one_protocol_only(lab: Lab) -> None:
    lab.rules = [Disconnect("NOOP", protocol="POP3")]
    play(lab, "smtp", f"{HELLO}\nC: NOOP\nS: 250 ...")
    play(lab, "imap", "S: * OK ...\nC: a NOOP\nS: a OK ...")
    play(lab, "pop3", f"{POP3_LOGIN}\nC: NOOP\n-- server closes")


def chances(network: Network, seed: int, *more: Rule) -> str:
    with Lab(network=network, seed=seed, rules=[*more, Reply("NOOP", "450 No", chance=0.5)]) as lab:
        client = Client(lab, "smtp")
        client.line()
        out = ""
        for _ in range(64):
            client.send(b"NOOP\r\n")
            out += client.line()[:1].decode()
        client.close()
    return out


def test_chance_is_drawn_from_the_seed(network: Network) -> None:
    drawn = chances(network, 1)
    assert 16 < drawn.count("4") < 48
    assert drawn == chances(network, 1), "the same seed, the same luck"
    assert drawn != chances(network, 2)
    assert drawn == chances(network, 1, Delay("NOOP", 0, chance=0.5)), "another rule's dice"


def test_never_and_always(lab: Lab) -> None:
    lab.rules = [Reply("NOOP", "450 4.3.2 Never", chance=0), Reply("NOOP", "450 4.3.2 Always")]
    play(lab, "smtp", f"{HELLO}\nC: NOOP\nS: 450 4.3.2 Always")


# -- changing them


def test_rules_change_while_a_session_is_open(lab: Lab) -> None:
    client = Client(lab, "smtp")

    def noop() -> bytes:
        client.send(b"NOOP\r\n")
        return client.line()[:3]

    client.line()
    assert noop() == b"250"
    no, never = Reply("NOOP", "450 4.3.2 No", times=2), Reply("RSET", "450 4.3.2 No")
    lab.rules = [no]
    assert lab.rules == (no,)
    assert noop() == b"450"
    lab.rules = [never, no]  # an equal value that stays goes on counting
    assert [noop(), noop()] == [b"450", b"250"]
    lab.rules = []
    assert noop() == b"250"
    lab.rules = [no]  # it was away, so it begins anew
    assert [noop(), noop(), noop()] == [b"450", b"450", b"250"]
    lab.rules = ()
    assert lab.rules == ()
    assert noop() == b"250"
    client.close()


def test_rules_that_go_during_a_message_leave_it_whole(lab: Lab) -> None:
    lab.rules = [Disconnect("DATA", "inside", 5000), Reply("end of data", "451 4.3.0 No")]
    client = Client(lab, "smtp")
    client.send(b"HELO x\r\nMAIL FROM:<x@y.example>\r\nRCPT TO:<ben@lab.example>\r\nDATA\r\n")
    assert [client.line()[:3] for _ in range(5)][-1] == b"354"
    lab.rules = []
    client.send(b"Hi\r\n..dot\r\n.\r\nNOOP\r\n")
    assert [client.line()[:3] for _ in range(2)] == [b"250", b"250"]
    client.close()
    assert bens(lab)[0].octets.endswith(b"\r\nHi\r\n.dot\r\n")


def test_a_lab_closes_while_a_client_is_kept_waiting(lab: Lab) -> None:
    lab.rules = [Delay("NOOP", 10_000)]
    for listener, command in (("smtp", b"NOOP\r\n"), ("imap", b"a NOOP\r\n")):
        client = Client(lab, listener)
        client.line()
        client.send(command)
        client.close()
    lab.close()
    assert all(session.closed for session in lab.sessions)


def test_rules_can_be_set_by_another_thread(lab: Lab) -> None:
    def change() -> None:
        lab.rules = [Reply("NOOP", "450 4.3.2 No")]

    thread = threading.Thread(target=change)
    thread.start()
    thread.join()
    play(lab, "smtp", f"{HELLO}\nC: NOOP\nS: 450 4.3.2 No")


def test_what_is_no_rule_is_refused_and_the_old_rules_stay(virtual: Lab) -> None:
    virtual.rules = old = (Reply("NOOP", "450 4.3.2 No"),)
    for bad in ("RCPT", [Reply("NOOP", "450 No"), "x"], Reply("NOOP", "450 No"), None, [Limits()]):
        with pytest.raises(ValueError, match=r"\ARules are a list of Reply, .* values, not "):
            virtual.rules = bad  # type: ignore[assignment]
    assert virtual.rules == old
    with pytest.raises(ValueError, match="Rules are a list"):
        Lab(rules=[3])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="A seed is a whole number, not 'x'"):
        Lab(seed="x")  # type: ignore[arg-type]


# -- Delay and Throttle


def test_delays_add_up(virtual: Lab) -> None:
    virtual.rules = [
        Delay("RCPT", 5),
        Reply("RCPT", "451 4.7.1 Later", times=1),
        Delay("RCPT", 2.5, only="ben@*"),
    ]
    session = play(
        virtual, "smtp", f"{HELLO}{MAIL}\nC: RCPT TO:<ben@lab.example>\nS: 451 ...\n{RCPT}"
    )
    assert session.duration == 15


def test_a_long_delay_is_not_the_clients_silence(virtual: Lab) -> None:
    virtual.rules = [Delay("NOOP", 1000)]
    assert virtual.limits.smtp_idle < 1000
    with smtplib.SMTP(*virtual.smtp, timeout=2000) as client:
        assert client.noop()[0] == 250
        assert client.docmd("RSET")[0] == 250
    assert virtual.sessions[-1].duration == 1000


@pytest.mark.parametrize(
    ("listener", "script"),
    [
        ("pop3", POP3_LOGIN + "\nC: NOOP\nS: +OK"),
        ("imap", IMAP_LOGIN + "\nC: b NOOP\nS: b OK ..."),
        ("smtp", HELLO + "\nC: NOOP\nS: 250 ..."),
    ],
)
def test_a_delay_in_each_protocol(virtual: Lab, listener: str, script: str) -> None:
    virtual.rules = [Delay("NOOP", 7), Delay("greeting", 9)]
    assert play(virtual, listener, script).duration == 16


def test_real_time_passes_on_a_real_network(lab: Lab) -> None:
    lab.rules = [Delay("NOOP", 0.05)]
    assert play(lab, "smtp", f"{HELLO}\nC: NOOP\nS: 250 ...").duration >= 0.049


def test_a_delay_can_be_random(virtual: Lab) -> None:
    virtual.rules = [Delay("NOOP", 2, 4)]
    took = {play(virtual, "smtp", f"{HELLO}\nC: NOOP\nS: 250 ...").duration for _ in range(20)}
    assert len(took) == 20
    assert all(2 <= seconds <= 4 for seconds in took)


def test_a_delay_can_be_as_long_again(virtual: Lab) -> None:
    """How many times is decided by dice: each number of times is as often as chance has it."""
    virtual.rules = [Delay("NOOP", 1, chance=0.5, again=0.5)]
    with smtplib.SMTP(*virtual.smtp, timeout=100) as client:
        took = []
        for _ in range(400):
            before = virtual.network.clock.seconds()
            client.noop()
            took.append(round(virtual.network.clock.seconds() - before))
    for times in range(4):
        assert sum(t >= times for t in took) / 400 == pytest.approx(0.5**times, abs=0.05)


@pytest.mark.parametrize(
    ("listener", "script"),
    [
        ("smtp", f"{HELLO}{TO_BEN}\nC: DATA\nS: 354 ...\nC: .\nS: 250 ..."),
        ("smtp", f"{HELLO}{TO_BEN}\nC! BDAT 2 LAST\\r\\nHi\nS: 250 ..."),
        ("imap", f"{IMAP_LOGIN}\nC: b APPEND INBOX {{2}}\nS: + ...\nC: Hi\nS: b OK ..."),
    ],
)
def test_content_can_be_left_unread_for_a_while(virtual: Lab, listener: str, script: str) -> None:
    virtual.rules = [Delay("*", 8, when="inside")]
    told = play(virtual, listener, script)
    assert told.duration == 8
    go_on = [line.at for line in told.lines if line.data[:3] in (b"354", b"+ L")]
    assert go_on in ([0.0], [])


def test_content_comes_in_slowly(virtual: Lab) -> None:
    virtual.rules = [Throttle(10)]
    session = play(virtual, "smtp", f"{HELLO}{TO_BEN}{MESSAGE}\nS: 250 ...")
    assert session.duration == pytest.approx(CONTENT_OCTETS / 10)
    virtual.rules = [Throttle(2, "BDAT LAST"), Throttle(1)]
    session = play(virtual, "smtp", f"{HELLO}{TO_BEN}\nC! BDAT 4 LAST\\r\\nHi\\r\\n\nS: 250 ...")
    assert session.duration == pytest.approx(4)
    virtual.rules = [Throttle(1)]
    session = play(virtual, "imap", f"{IMAP_LOGIN}\nC: b APPEND INBOX {{4+}}\nC: Hi!!\nS: b OK ...")
    assert session.duration == pytest.approx(4)
    assert [len(one.octets) for one in bens(virtual)][-1] == 4


def test_content_goes_out_slowly(virtual: Lab) -> None:
    deliver(virtual)
    virtual.rules = [Throttle(10)]
    pop3 = poplib.POP3(*virtual.pop3)
    pop3.user("ben@lab.example")
    pop3.pass_("ben-lab-password")
    before = virtual.network.clock.seconds()
    first, lines, octets = pop3.retr(1)
    told = len(first) + 2 + octets + 3
    assert virtual.network.clock.seconds() - before == pytest.approx(told / 10, abs=1)
    pop3.quit()
    imap = imaplib.IMAP4(*virtual.imap)
    imap.login("ben@lab.example", "ben-lab-password")
    imap.select()
    before = virtual.network.clock.seconds()
    _, fetched = imap.fetch("1", "BODY[]")
    assert isinstance(fetched[0], tuple)
    assert fetched[0][1] == bens(virtual)[0].octets
    assert virtual.network.clock.seconds() - before > len(fetched[0][1]) / 10
    imap.logout()
    assert lines


# -- Disconnect


@pytest.mark.parametrize("command", [*(name for name in BEFORE if name != "AUTH"), "greeting"])
def test_a_connection_can_end_before_any_smtp_command(lab: Lab, command: str) -> None:
    lab.rules = [Disconnect(command)]
    typed = "" if command == "greeting" else TYPED.get(command, f"C: {command}")
    session = play(lab, "smtp", f"{BEFORE.get(command, '')}\n{typed}\n-- server closes")
    assert session.ending == ("" if command == "QUIT" else "the server closed the connection")
    assert bens(lab) == []


def test_a_message_is_stored_and_the_client_does_not_know(lab: Lab) -> None:
    lab.rules = [Disconnect("end of data", "after", times=1)]
    play(lab, "smtp", f"{HELLO}{TO_BEN}{MESSAGE}\n-- server closes")
    play(lab, "smtp", f"{HELLO}{TO_BEN}{MESSAGE}\nS: 250 ...")
    first, second = bens(lab)
    assert first["Subject"] == second["Subject"] == "Hello", "that is how duplicates come about"
    lab.rules = [Disconnect("BDAT LAST", "after")]
    play(lab, "smtp", f"{HELLO}{TO_BEN}\nC! BDAT 4 LAST\\r\\nHi\\r\\n\n-- server closes")
    assert len(bens(lab)) == 3


def test_after_a_command_that_fails_too(lab: Lab) -> None:
    lab.rules = [Disconnect("RCPT", "after")]
    play(lab, "smtp", f"{HELLO}{MAIL}\nC: RCPT TO:<nobody@lab.example>\n-- server closes")


@pytest.mark.parametrize("octets", [0, 1, 10, CONTENT_OCTETS])
def test_a_connection_can_end_inside_a_message(lab: Lab, octets: int) -> None:
    lab.rules = [Disconnect("DATA", "inside", octets)]
    with smtplib.SMTP(*lab.smtp) as client:
        with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionError)):
            client.sendmail("x@y.example", ["ben@lab.example"], "x" * CONTENT_OCTETS)
        client.close()
    assert bens(lab) == []
    lab.rules = [Disconnect("BDAT", "inside", octets)]
    play(
        lab,
        "smtp",
        f"{HELLO}{TO_BEN}\nC! BDAT 999\\r\\n{'x' * octets}\n-- server closes",
    )


def test_less_content_passes(lab: Lab) -> None:
    lab.rules = [
        Disconnect("DATA", "inside", CONTENT_OCTETS + 1),
        Disconnect("BDAT LAST", "inside", 5),
        Disconnect("APPEND", "inside", 5),
        Disconnect("RETR", "inside", 10_000),
    ]
    play(lab, "smtp", f"{HELLO}{TO_BEN}{MESSAGE}\nS: 250 ...")
    play(lab, "smtp", f"{HELLO}{TO_BEN}\nC! BDAT 4 LAST\\r\\nHi\\r\\n\nS: 250 ...")
    play(lab, "imap", f"{IMAP_LOGIN}\nC: b APPEND INBOX {{4}}\nS: + ...\nC: Hi!!\nS: b OK ...")
    assert len(bens(lab)) == 3
    play(lab, "pop3", f"{POP3_LOGIN}\nC: RETR 3\nS: +OK ...\nS: Hi!!\nS: .\nC: NOOP\nS: +OK")


@pytest.mark.parametrize("literal", ["{100}\nS: + ...", "{100+}"])
def test_a_connection_can_end_inside_an_append(lab: Lab, literal: str) -> None:
    lab.rules = [Disconnect("APPEND", "inside", 3)]
    play(lab, "imap", f"{IMAP_LOGIN}\nC: b APPEND INBOX {literal}\nC! Hi!\n-- server closes")
    assert bens(lab) == []


def test_a_connection_can_end_inside_what_is_sent(lab: Lab) -> None:
    deliver(lab, text="Subject: Long\r\n\r\n" + "x" * 70 + "\r\n")
    lab.rules = [Disconnect("RETR", "inside", 100), Disconnect("FETCH", "inside", 100)]
    client = Client(lab, "pop3")
    for line in ("", "USER ben@lab.example", "PASS ben-lab-password", "RETR 1"):
        if line:
            client.send(line.encode() + b"\r\n")
        heard = client.line()
    while line_heard := client.line():
        heard += line_heard
    client.close()
    assert len(heard) == 100
    imap = imaplib.IMAP4(*lab.imap)
    imap.login("ben@lab.example", "ben-lab-password")
    imap.select()
    with pytest.raises((imaplib.IMAP4.abort, ConnectionError)):
        imap.fetch("1", "BODY[]")
    imap.shutdown()
    assert len(bens(lab)) == 1


def test_after_in_pop3_and_imap_the_command_has_been_obeyed(lab: Lab) -> None:
    deliver(lab)
    lab.rules = [Disconnect("CREATE", "after"), Disconnect("QUIT", "after", protocol="POP3")]
    play(lab, "imap", f"{IMAP_LOGIN}\nC: b CREATE Kept\n-- server closes")
    assert "Kept" in lab.mailboxes("ben@lab.example")
    play(lab, "pop3", f"{POP3_LOGIN}\nC: DELE 1\nS: +OK ...\nC: QUIT\n-- server closes")
    assert bens(lab) == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_pop3_and_imap_hang_up(lab: Lab, when: str) -> None:
    lab.rules = [Disconnect("NOOP", when), Disconnect("PASS", when, only="ana@*")]  # type: ignore[arg-type]
    play(lab, "pop3", f"{POP3_LOGIN}\nC: NOOP\n-- server closes")
    play(lab, "imap", "S: * OK ...\nC: a NOOP\n-- server closes")
    play(lab, "imaps", "S: * OK ...\nC: a NOOP\n-- server closes")
    play(
        lab,
        "pop3",
        """
        S: +OK ...
        C: USER ana@lab.example
        S: +OK ...
        C: PASS ana-lab-password
        -- server closes
        """,
    )


def test_last_words_inside_the_content(lab: Lab) -> None:
    lab.rules = [Disconnect("DATA", "inside", text="550 5.3.0 Error: command failed")]
    play(
        lab,
        "smtp",
        f"{HELLO}{TO_BEN}\nC: DATA\nS: 354 ...\nS: 550 5.3.0 Error: ...\n-- server closes",
    )
    lab.rules = [Disconnect("NOOP", text="BYE for now"), Disconnect("NOOP", text="-ERR bye")]
    play(
        lab,
        "imap",
        "S: * OK ...\nC: a NOOP\nS: * BYE for now\n-- server closes",
    )
    play(lab, "pop3", f"{POP3_LOGIN}\nC: NOOP\nS: -ERR bye\n-- server closes")


# -- Quota


def test_a_quota_counts_accepted_messages_in_a_rolling_window(virtual: Lab) -> None:
    virtual.rules = [Quota(2)]

    def at(hours: float, codes: str) -> None:
        pass_time(virtual, hours * 3600.0 - virtual.network.clock.seconds())
        play(virtual, "smtp", f"{HELLO}{TO_BEN}{MESSAGE}\nS: {codes}")

    too_much = "550 5.4.5 Daily user sending limit exceeded."
    at(1, "250 ...")
    at(2, "250 ...")
    at(24, too_much)
    at(25, "250 ...")  # what was sent at 1 o'clock is a day old
    at(25.5, too_much)
    at(26, "250 ...")
    assert len(bens(virtual)) == 4


def test_a_quota_is_for_each_sender(lab: Lab) -> None:
    lab.rules = [Quota(1, only="*@shop.example"), Quota(0, only="spam@*")]
    deliver(lab)
    with pytest.raises(smtplib.SMTPDataError, match=r"5\.4\.5 Daily user sending limit exceeded"):
        deliver(lab, "SHOP@shop.example")
    deliver(lab, "other@shop.example")
    deliver(lab, "x@y.example")
    deliver(lab, "x@y.example")
    with pytest.raises(smtplib.SMTPDataError):
        deliver(lab, "spam@y.example")
    assert len(bens(lab)) == 4


def test_a_quota_is_the_accounts_where_somebody_has_logged_in(lab: Lab) -> None:
    lab.rules = [Quota(1, only="ana@lab.example")]
    with smtplib.SMTP_SSL("localhost", lab.submissions.port, context=lab.tls) as client:
        client.login("ana@lab.example", "ana-lab-password")
        client.sendmail("ana@lab.example", ["ben@lab.example"], "Hi")
        with pytest.raises(smtplib.SMTPDataError):
            client.sendmail("ana@lab.example", ["ben@lab.example"], "Hi")


def test_a_quota_can_count_recipients(lab: Lab) -> None:
    lab.rules = [Quota(9, recipients=3)]
    both = ["ana@lab.example", "ben@lab.example"]
    with smtplib.SMTP(*lab.smtp) as client:
        client.sendmail("x@y.example", both, "Hi")
        with pytest.raises(smtplib.SMTPDataError):
            client.sendmail("x@y.example", both, "Hi")
        client.sendmail("x@y.example", both[:1], "Hi")


def test_what_is_refused_does_not_count(lab: Lab) -> None:
    lab.rules = [Quota(1), Reply("end of data", "451 4.3.0 Not now", times=1)]
    play(
        lab,
        "smtp",
        f"""
        {HELLO}
        {TO_BEN}
        {MESSAGE}
        S: 451 4.3.0 Not now
        {TO_BEN}
        C: DATA
        S: 354 ...
        C: {"x" * 999}
        C: .
        S: 500 ...
        {TO_BEN}
        {MESSAGE}
        S: 250 ...
        {TO_BEN}
        C! BDAT 4 LAST\\r\\nHi\\r\\n
        S: 550 5.4.5 ...
        """,
    )


def test_a_client_that_leaves_during_a_delay_has_sent_nothing(virtual: Lab) -> None:
    virtual.rules = [Quota(1), Delay("BDAT LAST", 5, times=1)]
    play(virtual, "smtp", f"{HELLO}{TO_BEN}\nC! BDAT 9 LAST\\r\\nHi\\r\\n\n-- client closes")
    play(virtual, "smtp", f"{HELLO}{TO_BEN}{MESSAGE}\nS: 250 ...")


def test_many_at_once_do_not_slip_past_a_quota(lab: Lab) -> None:
    lab.rules = [Quota(3)]
    clients = [Client(lab, "smtp") for _ in range(8)]
    for client in clients:
        client.send(
            b"HELO x\r\nMAIL FROM:<x@y.example>\r\nRCPT TO:<ben@lab.example>\r\nDATA\r\nHi\r\n.\r\n"
        )
    codes = [[client.line()[:3] for _ in range(6)][-1] for client in clients]
    for client in clients:
        client.close()
    assert sorted(codes) == [b"250"] * 3 + [b"550"] * 5
    assert len(bens(lab)) == 3


# -- Greylist


def test_strangers_are_put_off(virtual: Lab) -> None:
    virtual.rules = [Greylist(300)]
    put_off = "C: RCPT TO:<ben@lab.example>\nS: 451 4.7.1 Greylisted, please try again later"
    to_ana = "C: RCPT TO:<ana@lab.example>\nS: 451 ..."
    early = "C: RCPT TO:<ben@lab.example>\nS: 503 ..."
    play(virtual, "smtp", f"{HELLO}{early}{MAIL}\n{put_off}\n{to_ana}")
    pass_time(virtual, 299.5)
    play(virtual, "smtp", f"{HELLO}{MAIL}\n{put_off}")
    pass_time(virtual, 0.5)
    play(virtual, "smtp", f"{HELLO}{TO_BEN}{MESSAGE}\nS: 250 ...")
    other = "C: MAIL FROM:<other@shop.example>\nS: 250 ..."
    play(virtual, "smtp", f"{HELLO}\n{other}\n{put_off}")


def test_who_has_logged_in_is_no_stranger(lab: Lab) -> None:
    lab.rules = [Greylist()]
    with smtplib.SMTP_SSL("localhost", lab.submissions.port, context=lab.tls) as client:
        client.login("ana@lab.example", "ana-lab-password")
        client.sendmail("ana@lab.example", ["ben@lab.example"], "Hi")


def test_a_greylist_may_be_for_some_recipients(lab: Lab) -> None:
    lab.rules = [Greylist(only="ana@*")]
    play(lab, "smtp", f"{HELLO}{TO_BEN}\nC: RCPT TO:<ana@lab.example>\nS: 451 ...")


# -- what is remembered is bounded


def test_the_oldest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Memory, "MOST", 3)
    memory = Memory("seed")
    rule = Greylist(10)
    for number in range(5):
        occasion = Occasion("SMTP", "RCPT", f"{number}@x.example", "192.0.2.1", reverse_path="")
        assert rule.act(occasion, memory, number) is not None
    assert [who[2][0] for who in memory.tries] == ["2", "3", "4"]
    for number in range(5):
        memory.note(Sent(number, "a", 2))
    assert memory.sent_since(-1, "a") == (3, 6)
    assert memory.sent_since(3, "a") == (1, 2)
    assert memory.sent_since(9, "a") == (0, 0)


# -- values


def test_a_rule_prints_as_it_is_typed() -> None:
    for text in (
        "Reply('RCPT', '451 4.7.1 No', times=2, protocol='SMTP')",
        "Delay('UID FETCH', 1, most=3)",
        "Throttle(100)",
        "Disconnect('DATA', when='inside', octets=5)",
        "Quota(500, recipients=10)",
        "Greylist()",
    ):
        assert repr(eval(text)) == text


def test_commands_are_named_as_in_the_catalog_whatever_their_case() -> None:
    assert Reply("uid fetch", "NO x") == Reply("UID FETCH", "NO x")
    assert Delay("END OF DATA", 1).at == "end of data"


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("Reply('RCTP', '451 x')", "'RCTP' is no command of SMTP; is RCPT meant\\?"),
        ("Delay('zzzzzz', 1)", "'zzzzzz' is no command; greeting, .* are."),
        ("Delay('DONE', 1)", "'DONE' is no command; .*"),
        ("Delay(7, 1)", "A rule is at a command, such as 'RCPT', or at '\\*', not at 7."),
        ("Reply('RCPT', '-ERR x')", "'RCPT' is no command of POP3; .*"),
        ("Reply('RCPT', '451 a\\r\\nb')", ".* is no reply; '550 5.7.1 No' .*"),
        ("Reply('RCPT', '451 a\\0')", ".* is no reply; .*"),
        ("Reply('RCPT', '451 é')", ".* is no reply; .*"),
        ("Reply('RCPT', '651 a')", ".* is no reply; .*"),
        ("Reply('RCPT', '')", "'' is no reply; .*"),
        ("Reply('RETR', '-ERR a\\nb')", ".* is no reply; .*"),
        ("Reply('RCPT', b'451 x')", "b'451 x' is no reply; .*"),
        ("Reply('RCPT', '451 5.7.1 x')", "After 451 an enhanced status code begins with 4."),
        ("Reply('RCPT', '354 x')", "A 354 never answers RCPT; .* do."),
        ("Reply('RCPT', '451 ' + 'x' * 507)", "A line of a reply may have 510 octets; .* has 511."),
        ("Reply('greeting', 'NO x')", "IMAP greets with OK or BYE, not with NO."),
        ("Reply('NOOP', '451 x', protocol='IMAP')", "'451 x' is a reply of SMTP, not of IMAP."),
        ("Delay('NOOP', 1, protocol='LMTP')", "'LMTP' is no protocol; SMTP, POP3, IMAP are."),
        ("Delay('NOOP', -1)", "A rule's seconds is a number from 0 to 1e\\+09, not -1."),
        ("Delay('NOOP', float('nan'))", "A rule's seconds is a number .*, not nan."),
        ("Delay('NOOP', True)", "A rule's seconds is a number .*, not True."),
        ("Delay('NOOP', 2, again=1)", "A rule's again is a number from 0 to 0.99, not 1."),
        ("Delay('NOOP', 2, when='inside')", "NOOP brings no content; DATA, .* do."),
        ("Delay('NOOP', 2, when='after')", "A server waits before or inside, not 'after'."),
        ("Reply('RETR', '-ERR x', saying='1')", "What is said can be looked at in SMTP only, .*"),
        ("Reply('AUTH', '535 x', saying='1')", "What is said can be looked at in SMTP only, .*"),
        ("Reply('NOOP', '450 x', saying=1)", "A rule's saying is a pattern such as .*, not 1."),
        ("Delay('NOOP', 2, 1)", "A rule's most is a number from 2 to .*, not 1."),
        ("Reply('NOOP', '450 x', times=0)", "A rule's times is a whole number from 1, not 0."),
        ("Reply('NOOP', '450 x', after=-1)", "A rule's after is a whole number from 0, not -1."),
        ("Reply('NOOP', '450 x', chance=1.1)", "A rule's chance is a number from 0 to 1, not 1.1."),
        ("Reply('NOOP', '450 x', only=None)", "A rule's only is a pattern such as .*, not None."),
        ("Throttle(0)", "A rule's octets_per_second is a number from 1 .*, not 0."),
        ("Throttle(9, 'RCPT')", "RCPT has no content; DATA, .* have."),
        ("Disconnect('RCPT', 'inside')", "RCPT has no content; DATA, .* have."),
        (
            "Disconnect('RCPT', 'midway')",
            "A connection ends before, inside or after, not 'midway'.",
        ),
        ("Disconnect('DATA', octets=5)", "Octets are counted only inside content, not before .*"),
        ("Disconnect('NOOP', text='NO x')", "An IMAP server's last word is BYE, not 'NO x'."),
        ("Quota(-1)", "A rule's messages is a whole number from 0 to 100000, not -1."),
        ("Quota(1.5)", "A rule's messages is a whole number .*, not 1.5."),
        ("Quota(1, recipients='x')", "A rule's recipients is a whole number .*"),
        ("Quota(1, text='250 fine')", "'250 fine' doesn't refuse; .*"),
        ("Greylist('x')", "A rule's seconds is a number .*"),
        ("Greylist(text='-ERR x')", "'-ERR x' doesn't refuse; .*"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(typed: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=rf"\A{sentence}\Z"):
        eval(typed)


# -- the page of the book


def test_the_pages_examples_run(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABSERVER_NETWORK", type(network).__name__.removesuffix("Network").lower())
    names: dict[str, object] = {}
    page = BOOK.read_text(encoding="utf-8")
    examples = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(examples) >= 4
    for example in examples:
        exec(compile(example, str(BOOK), "exec"), names)
    rules = re.findall(
        r"^\| `\w+` \| .* \| `((?:Reply|Delay|Throttle|Disconnect|Quota|Greylist)\(.*\))` \|$",
        page,
        re.M,
    )
    assert len(rules) == 6
    for rule in rules:
        assert isinstance(eval(rule), Rule)


NO_ANSWER = "-- server closes"
OPEN = HELLO + MAIL
INSIDE = f"{HELLO}{TO_BEN}\nC: DATA\nS: 354 ..."
NOT_ESMTP = "\nC: EHLO x\nS: 500 5.5.1 Error: unknown command\nC: HELO x\nS: 250 ..."


def login(reply: str, who: str = "ana") -> str:
    secret = b64(f"\0{who}@lab.example\0{who}-lab-password")
    return f"{SUBMISSION}\nC: AUTH PLAIN {secret}\nS: {reply}"


def rcpt(reply: str, who: str = "ben") -> str:
    return f"{OPEN}\nC: RCPT TO:<{who}@lab.example>\nS: {reply}"


THEIRS: dict[str, tuple[str, float | tuple[float, float] | str]] = {
    "`-f RCPT`": (rcpt("500 5.3.0 Error: command failed"), 0),
    '`-f .` with `-B "554 5.7.1 No"`': (f"{HELLO}{TO_BEN}{MESSAGE}\nS: 554 5.7.1 No", 0),
    "`-f CONNECT`": ("S: 500 5.3.0 Error: command failed", 0),
    "`-r MAIL`": (
        f"{HELLO}\nC: MAIL FROM:<>\nS: 450 4.3.0 Error: command failed\n{QUIT}",
        0,
    ),
    "`-q DATA`": (f"{HELLO}{TO_BEN}\nC: DATA\n{NO_ANSWER}", 0),
    "`-q CONNECT`": (NO_ANSWER, 0),
    "`-Q MAIL`": (f"{HELLO}\nC: MAIL FROM:<>\nS: 421 4.0.0 Server ...\n{NO_ANSWER}", 0),
    "`-w 5`": (INSIDE, 5),
    "`-W RCPT:5`": (OPEN + RCPT + RCPT, 10),
    "`-W RCPT:5:30`": (OPEN + RCPT * 20, (15, 80)),
    "`-H 8`": (f"{INSIDE}\nC: .\nS: 250 ...", 8),
    "`-A 0`": (f"{INSIDE}\nS: 550 5.3.0 Aborted\n{NO_ANSWER}", 0),
    "`-A 8`": (f"{INSIDE}\nC: Subject: x\nS: 550 5.3.0 Aborted\n{NO_ANSWER}", 8),
    "`-e`": (f"S: 220 lab.example{NOT_ESMTP}", 0),
    "`-P`": (f"S: 220 ********{NOT_ESMTP}", 0),
    "`-8`, `-a`, `-E`, `-N`, `-p`": (
        "S: 220 ...\nC: EHLO x\nS: 250-lab.example\nS: 250-SIZE 33554432\nS: 250 HELP",
        0,
    ),
    "`Sender`, `ErrorCode` 451, `Probability` 5": (
        HELLO + ("C: MAIL FROM:<>\nS: ...\nC: RSET\nS: 250 ...\n" * 60),
        "S: 451 Chaos sender error\nC: RSET\nS: 250 OK\nC: MAIL FROM:<>\nS: 250",
    ),
    "`Recipient`, `ErrorCode` 599, `Probability` 100": (rcpt("599 Chaos recipient error"), 0),
    "`Authentication`, `ErrorCode` 535, `Probability` 100": (
        login("535 Chaos authentication error"),
        0,
    ),
    'recipients: `recipient == "x@lab.example" ? error(550, "No") : true`': (
        f"{rcpt('550 No', 'x')}{RCPT}",
        0,
    ),
    'credentials: `credentials.username == "ana@lab.example"`': (
        f"{login('535 5.7.8 No', 'ben')}\nC: AUTH PLAIN {ANA}\nS: 235 2.7.0 Welcome",
        0,
    ),
    'messages: `message.subject.includes("19") ? 541 : null`': (
        f"{HELLO}{TO_BEN}{MESSAGE}\nS: 250 ...\n"
        f"{TO_BEN}{MESSAGE.replace('Hello', 'Now 19!', 1)}\nS: 541 Rejected",
        0,
    ),
    'commands: `command.verb == "HELO" && command.argumentsText == "rob" ? "No" : null`': (
        "S: 220 ...\nC: HELO rob\nS: 554 No\nC: HELO bob\nS: 250 ...",
        0,
    ),
    "`delay(5)`": (OPEN + RCPT, 5),
    "`delay(random(1, 9))`": (OPEN + RCPT, (1, 9)),
    '`random(0, 100) < 10 ? error(451, "Chaos") : true`': (
        OPEN + "C: RCPT TO:<ben@lab.example>\nS: ...\n" * 60,
        "S: 451 Chaos\nC: RCPT TO:<ben@lab.example>\nS: 250",
    ),
    "`throttle(80)`, in bits": (f"{HELLO}{TO_BEN}{MESSAGE}\nS: 250 ...", CONTENT_OCTETS / 10),
    "`disconnect()`": (f"{OPEN}\nC: RCPT TO:<ben@lab.example>\n{NO_ANSWER}", 0),
}
"""For each line of the page's tables a dialogue under its rules, and what is true of it: how many
seconds it takes, exactly or at least and at most, or what it holds, where dice are thrown."""


def rows_of_theirs() -> list[tuple[str, str]]:
    page = BOOK.read_text(encoding="utf-8").partition("## What you know from other servers")[2]
    rows = re.findall(r"^\| (.*) \| `([\[RDT].*)` \|$", page, re.MULTILINE)
    assert len(rows) == len(re.findall(r"^\| .*`", page, re.MULTILINE))
    return rows


@pytest.mark.parametrize(("theirs", "ours"), rows_of_theirs())
def test_what_other_servers_do_on_purpose_a_rule_does(virtual: Lab, theirs: str, ours: str) -> None:
    rules = eval(ours)
    virtual.rules = rules if isinstance(rules, list) else [rules]
    assert eval(repr(virtual.rules)) == virtual.rules
    script, expected = THEIRS[theirs]
    told = play(virtual, "submission" if "AUTH PLAIN" in script else "smtp", script)
    if isinstance(expected, str):
        assert expected in told.text()
    elif isinstance(expected, tuple):
        assert expected[0] <= told.duration <= expected[1]
    else:
        assert told.duration == pytest.approx(expected)


def test_every_line_of_theirs_is_on_the_page() -> None:
    assert {theirs for theirs, _ in rows_of_theirs()} == set(THEIRS)


def test_windows_holds_500_connections_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Limits().connections == 1000
    assert Limits(connections=2000).connections == 2000
    monkeypatch.setattr("sys.platform", "win32")
    assert Limits().connections == Limits(connections=500).connections == 500
    for more in (501, 1000, 10**6):
        with pytest.raises(ValueError, match=r"at most 500 on Windows, .* 512 sockets\."):
            Limits(connections=more)
