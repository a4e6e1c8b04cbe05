"""Mail servers' logs and other programs' output: the forms that the samples don't hold."""

from __future__ import annotations

import pytest

from labserver import Log, Session, read_log
from labserver.logs import ABSENT


def only(log: Log) -> Session:
    (session,) = log.sessions
    return session


def spoken(session: Session) -> list[tuple[str, str]]:
    return [(line.who, line.data.decode().rstrip()) for line in session.lines]


def why(log: Log) -> list[str]:
    return [run.why for run in log.unread]


# -- Postfix

SMTPD = "Nov 30 10:00:00 mail postfix/smtpd[9]: NOQUEUE: "
SCREEN = "Nov 30 10:00:00 mail postfix/postscreen[9]: NOQUEUE: "
ASKED = "from=<a@x.example> to=<bob@customer.example> proto=ESMTP helo=<x.example>"


@pytest.mark.parametrize(
    ("row", "reply", "last"),
    [
        (
            f"{SMTPD}reject: RCPT from unknown[192.0.2.9]: 554 5.7.1 Service unavailable; Client "
            f"host [192.0.2.9] blocked using bl.example; listed; see a.example; {ASKED}",
            "554 5.7.1 Service unavailable; Client host [192.0.2.9] blocked using bl.example; "
            "listed; see a.example",
            "RCPT TO:<bob@customer.example>",
        ),
        (
            f"{SCREEN}reject: RCPT from [192.0.2.9]:5123: 550 5.7.1 Service unavailable; client "
            f"[192.0.2.9] blocked using bl.example; {ASKED.replace(' ', ', ')}",
            "550 5.7.1 Service unavailable; client [192.0.2.9] blocked using bl.example",
            "RCPT TO:<bob@customer.example>",
        ),
        (
            f"{SMTPD}milter-reject: MAIL from x.example[192.0.2.9]: 451 4.7.1 Try again later; "
            "from=<a@x.example> proto=ESMTP helo=<x.example>",
            "451 4.7.1 Try again later",
            "MAIL FROM:<a@x.example>",
        ),
        (
            f"{SMTPD}reject: EHLO from x.example[192.0.2.9]: 504 5.5.2 <x>: need a full name; "
            "proto=ESMTP helo=<x>",
            "504 5.5.2 <x>: need a full name",
            "EHLO x",
        ),
        (
            f"{SMTPD}milter-reject: CONNECT from x.example[192.0.2.9]: 554 5.7.1 no; proto=SMTP",
            "554 5.7.1 no",
            "",
        ),
    ],
)
def test_what_postfix_refused_is_told_whole(row: str, reply: str, last: str) -> None:
    lines = spoken(only(read_log(f"{row}\n")))
    assert lines[-1] == ("S", reply)
    assert next((text for who, text in reversed(lines) if who == "C"), "") == last


def test_a_milters_refusal_without_a_reply_code_is_none() -> None:
    row = (
        "Nov 30 10:00:00 mail postfix/cleanup[9]: 4F8F: milter-reject: END-OF-MESSAGE from "
        f"x.example[192.0.2.9]: 5.7.1 Command rejected; {ASKED}\n"
    )
    session = only(read_log(row))
    assert spoken(session)[-1] == ("C", ".")
    assert session.ending == "Postfix notes: refused (5.7.1 Command rejected)"


TO = (
    "Nov 30 10:00:00 mail postfix/{daemon}[9]: ABC1: to=<bob@customer.example>, "
    "relay={relay}, delay=9, delays=9/0/0/0, dsn=4.4.2, status=deferred ({why})\n"
)


@pytest.mark.parametrize(
    ("told", "reply", "last"),
    [
        (
            "host mx.customer.example[192.0.2.7] refused to talk to me: 421 4.7.0 busy",
            "421 4.7.0 busy",
            "",
        ),
        (
            "host mx.customer.example[192.0.2.7] said: 450 4.2.0 greylisted; wait "
            "(in reply to RCPT TO command)",
            "450 4.2.0 greylisted; wait",
            "RCPT TO:<bob@customer.example>",
        ),
        (
            "host mx.customer.example[192.0.2.7] said: 452 4.3.1 full (in reply to end of DATA "
            "command)",
            "452 4.3.1 full",
            ".",
        ),
    ],
)
@pytest.mark.parametrize("before", ["", "delivery temporarily suspended: "])
def test_a_suspended_delivery_tells_the_reply(
    before: str, told: str, reply: str, last: str
) -> None:
    lines = spoken(only(read_log(TO.format(daemon="error", relay="none", why=before + told))))
    assert lines[-1] == ("S", reply)
    assert next((text for who, text in reversed(lines) if who == "C"), "") == last


@pytest.mark.parametrize(
    ("told", "last"),
    [
        ("lost connection with mx[192.0.2.7] while receiving the initial server greeting", None),
        ("lost connection with mx[192.0.2.7] while performing the EHLO handshake", "EHLO"),
        ("conversation with mx[192.0.2.7] timed out while sending MAIL FROM", "MAIL FROM:"),
        ("lost connection with mx[192.0.2.7] while sending RCPT TO", "RCPT TO:"),
        ("conversation with mx[192.0.2.7] timed out while sending end of data -- message", "."),
    ],
)
def test_a_connection_that_broke_off_ends_at_its_last_command(told: str, last: str | None) -> None:
    log = read_log(TO.format(daemon="smtp", relay="mx[192.0.2.7]:25", why=told))
    session = only(log)
    lines = spoken(session)
    if last is None:
        assert lines == []
    else:
        assert lines[-1][0] == "C"
        assert lines[-1][1].startswith(last)
    assert session.ending == f"Postfix notes: deferred, so it tries again later ({told})"
    assert "deferred, but without a reply of a server" in why(log)


def test_what_postscreen_notes_is_explained() -> None:
    begin = "Nov 30 10:00:00 mail postfix/postscreen[9]: "
    notes = [
        "CONNECT from [192.0.2.9]:5123 to [192.0.2.1]:25",
        "PREGREET 14 after 0.04 from [192.0.2.9]:5123: EHLO x.example\\r\\n",
        "DNSBL rank 3 for [192.0.2.9]:5123",
        "NOQUEUE: reject: RCPT from [192.0.2.9]:5123: 550 5.5.1 Protocol error; "
        f"{ASKED.replace(' ', ', ')}",
        "HANGUP after 0.9 from [192.0.2.9]:5123 in tests after SMTP handshake",
    ]
    log = read_log("".join(f"{begin}{note}\n" for note in notes))
    assert spoken(only(log))[-1] == ("S", "550 5.5.1 Protocol error")
    assert why(log) == [
        "what Postfix notes besides",
        "postscreen notes: the client spoke before the greeting was complete",
        "postscreen notes: blocklists name the client, and how many count",
        "postscreen notes: the client hung up too early",
    ]


# -- curl 8.2 and later

CURL = [
    "*   Trying 127.0.0.1:2525...",
    "* Connected to 127.0.0.1 (127.0.0.1) port 2525",
    "< 220 mx ESMTP",
    "> EHLO me",
    "< 250 mx",
    "> QUIT",
    "< 221 bye",
]


@pytest.mark.parametrize(
    "before", ["[0-0] ", "[0-x] ", "[CONN-0-0] ", "10:00:00.123456 [0-0] ", "10:00:00.123456 "]
)
def test_curls_ids_are_no_part_of_a_line(before: str) -> None:
    log = read_log("".join(f"{before}{row}\n" for row in CURL))
    assert log.kind == "curl -v"
    assert [text for _, text in spoken(only(log))] == [row[2:] for row in CURL[2:]]
    assert only(log).listener == "smtp"


@pytest.mark.parametrize("before", ["[0-0] ", "10:00:00.123456 [0-0] ", ""])
def test_curls_ids_are_no_part_of_a_trace(before: str) -> None:
    rows = [
        "== Info: Connected to 127.0.0.1 (127.0.0.1) port 2525",
        "<= Recv header, 8 bytes (0x8)",
        "0000: 220 mx",
        "=> Send header, 6 bytes (0x6)",
        "0000: QUIT",
    ]
    text = "".join(f"{'' if row.startswith('0000') else before}{row}\n" for row in rows)
    log = read_log(text)
    assert log.kind == "curl --trace"
    assert spoken(only(log)) == [("S", "220 mx"), ("C", "QUIT")]


# -- windows that show nothing of what was typed


def test_a_pop3_window_without_commands_is_all_the_servers() -> None:
    rows = "+OK ready|+OK|TOP|UIDL|USER|.|+OK who|+OK in|+OK 12|Subject: a||Hello|.|-ERR no|+OK bye"
    session = only(read_log("CONNECTED(00000003)\n---\n" + rows.replace("|", "\n") + "\nclosed\n"))
    assert session.protocol == "POP3"
    assert spoken(session) == [("S", row) for row in rows.split("|")]


def test_an_imap_window_without_commands_is_all_the_servers() -> None:
    rows = (
        "* OK ready|* CAPABILITY IMAP4rev1|a1 OK done|a2 OK in|* 1 FETCH (BODY[] {21}|Subject: a||"
        "Hello b|)|a3 OK done|* BYE|a4 OK bye"
    )
    session = only(read_log(rows.replace("|", "\n") + "\n"))
    assert session.protocol == "IMAP"
    assert all(who == "S" for who, _ in spoken(session))


def test_a_pop3_window_with_one_command_shown_is_the_clients_too() -> None:
    session = only(read_log("+OK ready\nSTAT\n+OK 1 2\nRETR 1\n+OK 3\nUSER\n.\nQUIT\n+OK bye\n"))
    assert [text for who, text in spoken(session) if who == "C"] == ["STAT", "RETR 1", "QUIT"]


def test_what_a_log_tells_is_never_said_to_be_absent() -> None:
    row = f"{SMTPD}reject: RCPT from unknown[192.0.2.9]: 554 5.7.1 no; {ASKED}\n"
    absent = [text for _, text in spoken(only(read_log(row))) if ABSENT in text]
    assert absent == [f"220 {ABSENT}", f"250 {ABSENT}", f"250 {ABSENT}"]


WINDOW = "220 mx ESMTP\nEHLO me\n250 mx\nQUIT\n221 bye\n"


@pytest.mark.parametrize(
    "before",
    [
        "Hello team, see this:\n\n",
        "From: ana@shop.example\nSubject: look\n\nHere it is.\n$ telnet mx 25\n",
        "What I typed yesterday\nand what came back:\n",
    ],
)
def test_what_stands_before_a_window_was_said_by_nobody(before: str) -> None:
    log = read_log(before + WINDOW)
    assert spoken(only(log))[:2] == [("S", "220 mx ESMTP"), ("C", "EHLO me")]


@pytest.mark.parametrize(
    "text",
    [
        "The mail server responded:\n5.7.1 <b@c.example>: Relay access denied.\n"
        "Please check the message recipient and try again.",
        "Please check your account.\nThen fetch your mail.",
        "You can copy this and move on.",
    ],
)
def test_sentences_are_no_window(text: str) -> None:
    with pytest.raises(ValueError, match="Nothing in this text"):
        read_log(text)
