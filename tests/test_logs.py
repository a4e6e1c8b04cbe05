"""Dialogues recorded elsewhere: recognised, told apart, masked, and never a cause of a crash.

`tests/data/logs/` holds two kinds of samples. Recorded from the real program, in dialogue with a
lab (Debian 12: swaks 20201014, curl 7.88, OpenSSL 3.0, inetutils telnet 2.4, Postfix 3.7; Python
3.11 and 3.13): all but those named in `WRITTEN`, with ports and a folder's name replaced. Written
after documentation: `WRITTEN`; Thunderbird's lines after its source and its bug reports, Gmail's
bounces after RFC 3464 and the words that Gmail's users quote. What can run here is also run live.
"""

from __future__ import annotations

import contextlib
import imaplib
import io
import os
import poplib
import random
import shutil
import smtplib
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest
from dialogue import play, said

from labserver import Lab, Log, Session, read_log
from labserver.catalog import explain, legal
from labserver.logs import ABSENT, MOST_CHARACTERS, MOST_ROWS
from labserver.network.loopback import LoopbackNetwork
from labserver.transcript import MASK

SAMPLES = Path(__file__).parent / "data" / "logs"
WRITTEN = {
    "gmail-bounce.eml",
    "gmail-send-as.txt",
    "thunderbird-android.txt",
    "thunderbird-imap.txt",
    "thunderbird-pop3.txt",
    "thunderbird-smtp.txt",
}
SECRETS = (
    "ana-lab-password",
    "ben-lab-password",
    "AGFuYUBsYWIuZXhhbXBsZQBhbmEtbGFiLXBhc3N3b3Jk",
    "AGJlbkBsYWIuZXhhbXBsZQBiZW4tbGFiLXBhc3N3b3Jk",
    "YW5hQGxhYi5leGFtcGxl",
    "d3Jvbmc=",
)
ANA, BEN = "ana@lab.example", "ben@lab.example"


def sample(name: str) -> str:
    # Line ends as they are; one file holds an octet that is no UTF-8, as logs do.
    return (SAMPLES / name).read_bytes().decode("utf-8", "surrogateescape")


def only(log: Log) -> Session:
    (session,) = log.sessions
    return session


def why(log: Log) -> list[str]:
    return [run.why for run in log.unread]


def codes(session: Session) -> str:
    """The dialogue in one line; of a reply with several lines the last stands for all."""
    rows = said(session).split("\n")
    return " ".join(row[3:] for row in rows if not (row.startswith("S: ") and row[6:7] == "-"))


SUBMITTED = (
    "220 EHLO 250 STARTTLS 220 EHLO 250 {auth} 235 MAIL 250 RCPT 250 {more}DATA 354 250 QUIT 221"
)
SMTPLIB = SUBMITTED.format(auth="AUTH", more="RCPT 550 ")


@pytest.mark.parametrize(
    ("name", "kind", "listener", "dialogue"),
    [
        (
            "swaks-submission.txt",
            "swaks",
            "submission",
            SUBMITTED.format(auth="AUTH", more=""),
        ),
        (
            "swaks-login-refused.txt",
            "swaks",
            "submissions",
            "220 EHLO 250 AUTH 334 334 535 QUIT 221",
        ),
        (
            "swaks-pipelined.txt",
            "swaks",
            "smtp",
            "220 EHLO 250 MAIL RCPT DATA 250 250 354 250 QUIT 221",
        ),
        (
            "curl-submission.txt",
            "curl -v",
            "submission",
            SUBMITTED.format(auth="AUTH 334", more="").removesuffix(" QUIT 221"),
        ),
        (
            "curl-recipient-refused.txt",
            "curl -v",
            "submissions",
            "220 EHLO 250 AUTH 334 235 MAIL 250 RCPT 550 QUIT 221",
        ),
        ("smtplib-3.11.txt", "smtplib", "submission", SMTPLIB),
        ("smtplib-3.13.txt", "smtplib", "submission", SMTPLIB),
        ("smtplib-with-times.txt", "smtplib", "submission", SMTPLIB),
        (
            "openssl-submissions.txt",
            "openssl s_client",
            "submissions",
            "220 EHLO 250 AUTH 235 MAIL 250 RCPT 250 DATA 354 250 QUIT 221",
        ),
        (
            "openssl-starttls.txt",
            "openssl s_client",
            "submissions",
            "220 EHLO 250 AUTH 334 334 535 MAIL 530 QUIT 221",
        ),
        (
            "openssl-renegotiating.txt",
            "openssl s_client",
            "submissions",
            "220 EHLO 250 AUTH 235 MAIL 250 RCPT",
        ),
        (
            "openssl-not-echoed.txt",
            "openssl s_client",
            "submissions",
            "220 250 235 250 250 354 250 221",
        ),
        (
            "telnet-smtp.txt",
            "telnet",
            "smtp",
            "220 HELO 250 MAIL 250 RCPT 550 RCPT 250 DATA 354 250 HELLO 500 QUIT 221",
        ),
        (
            "thunderbird-smtp.txt",
            "Thunderbird",
            "submission",
            "220 EHLO 250 AUTH 535 AUTH 334 334 535",
        ),
        (
            "thunderbird-android.txt",
            "Thunderbird for Android",
            "submission",
            "220 EHLO 250 STARTTLS 220 EHLO 250 AUTH 235",
        ),
        ("thunderbird-pop3.txt", "Thunderbird", "pop3", "+OK USER +OK PASS -ERR QUIT +OK"),
        (
            "telnet-pop3.txt",
            "telnet",
            "pop3",
            "+OK CAPA +OK TOP UIDL USER SASL RESP-CODES AUTH-RESP-CODE PIPELINING STLS "
            "USER +OK PASS +OK QUIT +OK",
        ),
        (
            "openssl-quiet-pop3s.txt",
            "openssl s_client",
            "pop3s",
            "+OK USER +OK PASS +OK LIST +OK 1 2 3 4 5 6 7 8 9 RETR +OK QUIT +OK",
        ),
        (
            "curl-pop3.txt",
            "curl -v",
            "pop3",
            "+OK CAPA +OK TOP UIDL USER SASL RESP-CODES AUTH-RESP-CODE PIPELINING STLS "
            "STLS +OK CAPA +OK TOP UIDL USER SASL RESP-CODES AUTH-RESP-CODE PIPELINING "
            "AUTH + +OK RETR +OK",
        ),
        ("gmail-send-as.txt", "a bounce", "submission", "220 EHLO 250 AUTH 535"),
        (
            "gmail-bounce.eml",
            "a bounce",
            "smtp",
            "220 EHLO 250 MAIL 250 RCPT 250 DATA 354 550",
        ),
        ("postfix-bounce.eml", "a bounce", "smtp", "220 EHLO 250 MAIL 250 RCPT 550"),
    ],
)
def test_a_log_becomes_the_dialogue_it_tells_of(
    name: str, kind: str, listener: str, dialogue: str
) -> None:
    log = read_log(sample(name))
    assert log.kind == kind
    session = only(log)
    assert (session.listener, codes(session)) == (listener, dialogue)
    assert all(
        meaning.title
        for meaning, line in zip(explain(session), session.lines, strict=True)
        if line.kind == "command"
    )


@pytest.mark.parametrize(
    ("name", "commands"),
    [
        (
            "imaplib.txt",
            "CAPABILITY STARTTLS CAPABILITY LOGIN SELECT FETCH APPEND CLOSE LOGOUT",
        ),
        ("imaplib-level-5.txt", "CAPABILITY STARTTLS CAPABILITY LOGIN LOGOUT"),
        ("curl-imap.txt", "CAPABILITY STARTTLS CAPABILITY AUTHENTICATE SELECT FETCH"),
        ("openssl-imaps.txt", "LOGIN SELECT FETCH LOGOUT"),
        ("telnet-imap.txt", "CAPABILITY LOGIN LOGOUT"),
        ("thunderbird-imap.txt", "AUTHENTICATE LOGIN SELECT IDLE DONE"),
    ],
)
def test_an_imap_log_becomes_the_dialogue_it_tells_of(name: str, commands: str) -> None:
    session = only(read_log(sample(name)))
    typed = [line for line in session.lines if line.kind == "command" and line.data.strip()]
    verbs = [line.data.decode().split()[-1 if line.data == b"DONE\r\n" else 1] for line in typed]
    assert " ".join(verbs).upper() == commands
    assert legal(session) == ()


def test_all_samples_are_read_and_lawful() -> None:
    """What was recorded of well-behaved programs must not look like a breach of the rules."""
    unlawful = {
        "openssl-not-echoed.txt": "nothing of what was asked is in it",
        "telnet-smtp.txt": "HELLO was typed",
        "poplib.txt": "STLS was said after USER",
    }
    for path in SAMPLES.iterdir():
        log = read_log(sample(path.name))
        assert log.sessions, path.name
        problems = [problem for session in log.sessions for problem in legal(session)]
        assert bool(problems) == (path.name in unlawful), (path.name, problems)


def test_what_a_server_offers_is_explained_like_any_other() -> None:
    session = only(read_log(sample("swaks-login-refused.txt")))
    meanings = dict(zip((line.data for line in session.lines), explain(session), strict=True))
    refused = meanings[b"535 5.7.8 Authentication credentials invalid\r\n"]
    assert refused.outcome == "refused"
    assert "5.7.8" in refused.detail


def test_tls_is_seen_where_it_begins() -> None:
    for name in ("swaks-submission.txt", "curl-submission.txt", "smtplib-3.11.txt"):
        session = only(read_log(sample(name)))
        under_tls = [line.tls for line in session.lines]
        begins = under_tls.index(True)
        assert session.lines[begins - 1].data == b"220 2.0.0 Ready to start TLS\r\n"
        assert all(under_tls[begins:])
    assert only(read_log(sample("curl-submission.txt"))).tls == "TLSv1.3"
    assert all(line.tls for line in only(read_log(sample("openssl-imaps.txt"))).lines)


def test_times_are_kept_where_the_log_has_them() -> None:
    session = only(read_log(sample("smtplib-with-times.txt")))
    assert session.lines[0].at == 0
    assert [line.at for line in session.lines] == sorted(line.at for line in session.lines)
    assert 0 < session.duration < 1
    assert only(read_log(sample("thunderbird-imap.txt"))).duration == pytest.approx(60.12)


# -- what isn't in the log


def test_what_must_have_been_said_is_supplied_and_says_so() -> None:
    greeting = only(read_log(sample("smtplib-3.11.txt"))).lines[0]
    assert greeting.data == f"220 {ABSENT}\r\n".encode()
    assert ABSENT not in str(read_log(sample("swaks-submission.txt")))


def test_a_message_that_a_program_hides_is_named() -> None:
    log = read_log(sample("curl-submission.txt"))
    (place,) = [run for run in log.unread if "the message isn't all in this log" in run.why]
    assert place.text == "< 250 2.0.0 Stored as message 3"
    assert [line.kind for line in only(log).lines if line.who == "C"][-1] == "end"


def test_a_literal_that_a_program_hides_still_counts() -> None:
    fetched, appended = (
        line for line in only(read_log(sample("imaplib.txt"))).lines if line.kind == "content"
    )
    assert (fetched.who, fetched.octets, fetched.data) == ("S", 216, b"")
    assert (appended.who, appended.octets, appended.data) == ("C", 181, b"")


def test_a_log_of_only_one_side_is_read() -> None:
    commands = only(read_log(sample("poplib-commands.txt")))
    assert [line.who for line in commands.lines] == ["S"] + ["C"] * 9
    replies = only(read_log(sample("openssl-not-echoed.txt")))
    assert {line.who for line in replies.lines} == {"S"}


def test_a_reply_alone_is_explained() -> None:
    log = read_log("550 5.7.26 This email has been blocked because the sender is unauthenticated.")
    meaning = explain(only(log))[-1]
    assert meaning.outcome == "refused"
    assert "5.7.26" in meaning.detail


# -- what is no part of a dialogue


def test_all_else_is_shown_and_named() -> None:
    log = read_log("$ swaks --to x\n" + sample("swaks-login-refused.txt") + "and then?\n")
    assert why(log) == [
        "not of swaks",
        "what swaks says itself",
        "what swaks says itself",
        "what swaks says itself",
        "not of swaks",
    ]
    assert log.unread[0] == (1, "$ swaks --to x", "not of swaks")
    assert "line 1: not of swaks\n   $ swaks --to x\n" in str(log)


def test_the_traps_of_openssl_are_explained() -> None:
    (trap,) = [w for w in why(read_log(sample("openssl-renegotiating.txt"))) if "took the R" in w]
    assert "type rcpt" in trap


def test_lines_typed_into_the_middle_of_openssls_own_are_found() -> None:
    rows = sample("openssl-starttls.txt").split("\n")
    rows.remove("EHLO client.example")
    rows.insert(rows.index("    TLS session ticket:") + 3, "EHLO client.example")
    assert codes(only(read_log("\n".join(rows)))).startswith("220 EHLO 250 AUTH")


def test_a_log_that_is_indented_or_coloured_is_read() -> None:
    plain = read_log(sample("telnet-smtp.txt"))
    rows = sample("telnet-smtp.txt").split("\n")
    assert read_log("\n".join(f"    {row}" for row in rows)).sessions == plain.sessions
    coloured = [f"\x1b[32m{row}\x1b[0m" for row in rows]
    assert read_log("\n".join(coloured)).sessions == plain.sessions


def test_a_log_of_several_connections_gives_several_sessions() -> None:
    for name in ("swaks-submission.txt", "telnet-pop3.txt", "openssl-imaps.txt", "imaplib.txt"):
        once, twice = read_log(sample(name)), read_log(sample(name) * 2)
        assert [codes(s) for s in twice.sessions] == [codes(only(once))] * 2
        assert [session.number for session in twice.sessions] == [1, 2]


# -- pasted through something that changed it

CHANGED: dict[str, Callable[[list[str]], list[str]]] = {
    "Windows line ends": lambda rows: [row.rstrip("\r") + "\r" for row in rows],
    "a quotation": lambda rows: [f"> {row}" for row in rows],
    "a quotation of a quotation": lambda rows: [f">> {row}" for row in rows],
    "line numbers": lambda rows: [f"{n:5}  {row}" for n, row in enumerate(rows, 1)],
    "grep -n": lambda rows: [f"{n}:{row}" for n, row in enumerate(rows, 7)],
    "lines broken at a blank": lambda rows: [
        part for row in rows for part in textwrap.wrap(row, 76, break_long_words=False) or [""]
    ],
    "lines broken anywhere": lambda rows: [
        row[at : at + 76] for row in rows for at in range(0, max(1, len(row)), 76)
    ],
}


@pytest.mark.long
@pytest.mark.parametrize("change", CHANGED)
def test_a_log_that_went_through_a_letter_or_an_editor_is_read(change: str) -> None:
    windows = ("openssl", "telnet", "gmail", "postfix-dialogue.log")  # where nothing marks a line
    for path in sorted(SAMPLES.iterdir()):
        rows = sample(path.name).removesuffix("\n").split("\n")
        log, plain = read_log("\n".join(CHANGED[change](rows))), read_log(sample(path.name))
        shown = str(log) + "".join(run.text for run in log.unread)
        for secret in SECRETS:
            assert secret not in shown, (path.name, secret)
        if "broken" not in change or not path.name.startswith(windows):
            assert log.kind == plain.kind
            assert list(map(codes, log.sessions)) == list(map(codes, plain.sessions)), path.name


def test_a_password_that_a_mail_program_has_broken_stays_hidden() -> None:
    """Where too little is known of the lines around it to make them whole again."""
    text = "S: 220 x\nC: QUIT\nS: 221 x\n" + "filler\n" * 9 + "{}\n" + "filler\n" * 9
    for broken in (
        "it said AUTH PLAIN\nAGFuYUBsYWIuZXhhbXBsZQBhbmEtbGFiLXBhc3N3b3Jk",
        f"{'.' * 50} AUTH PLAIN AGFuYUBsYWIuZ\nXhhbXBsZQBhbmEtbGFiLXBhc3N3b3Jk",
        f"{'.' * 50} AGFuYUBsYWIuZXhhbXBsZQBhbmEt\nbGFiLXBhc3N3b3Jk and more",
        "it was AGFuYUBsYWIuZXhhbXBsZQBhbmEtbGFiLXBhc3N3b3Jk, I think",
        "<   0000: 41 55 54 48  20 50    AUTH.PLAIN.AGFuYUBsYWIuZ\nAGFuYUBsYWIuZXhhbXBsZ",
        "reply: retcode (334); Msg: b'UGFzc3dvcmQ6'\nsend: 'YW5hLWxhYi1wYXNzd29yZA==\\r\\n'",
    ):
        shown = "".join(run.text for run in read_log(text.format(broken)).unread)
        assert "filler" in shown
        for secret in (*SECRETS, "bGFiLXBh", "AGFuYUBs", "ZXhhbXBsZQB", "XBhc3N3b3Jk", "YW5hLWxh"):
            assert secret not in shown, broken


# -- windows and logs of their own kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("curl-trace-ascii.txt", "curl --trace"),
        ("curl-trace.txt", "curl --trace"),
        ("curl-trace-time.txt", "curl -v"),
    ],
)
def test_curls_traces_are_the_session_too(name: str, kind: str) -> None:
    log = read_log(sample(name))
    assert (log.kind, only(log).listener) == (kind, "submissions")
    sent = "220 EHLO 250 AUTH 334 235 MAIL 250 RCPT 250 DATA 354 250"
    assert codes(only(log)) == sent
    content = [line for line in only(log).lines if line.kind == "content"]
    if kind == "curl --trace":
        assert [line.data for line in content] == [b"Subject: hi\r\n\r\n..dot\r\nhello\r\n"]
    assert all(line.tls for line in only(log).lines)


def test_swaks_without_hints_is_a_window_and_its_own_words_are_no_commands() -> None:
    log = read_log(
        "=== Trying mx.example:25...\n=== Connected to mx.example.\n220 mx.example\nEHLO x\n"
        "250 STARTTLS\nSTARTTLS\n220 go\n=== TLS started with cipher TLSv1.3:X:256\nEHLO x\n"
        "250 mx.example\n*** Remote host closed connection unexpectedly.\n"
    )
    assert codes(only(log)) == "220 EHLO 250 STARTTLS 220 EHLO 250"
    assert [line.tls for line in only(log).lines][-2:] == [True, True]
    assert legal(only(log)) == ()


def test_swaks_raw_octets_are_named_and_hidden() -> None:
    log = read_log(
        "<-  220 mx.example\n -> AUTH LOGIN\n  > 0000: 41 55 54 48 20 4C 4F   AUTH LO\n"
        "<-  334 UGFzc3dvcmQ6\n -> YW5hLWxhYi1wYXNzd29yZA==\n"
        "  > 0000: 59 57 35 68  4C 57 78 68    YW5hLWxh\n<-  235 in\n"
    )
    assert codes(only(log)) == "220 AUTH 334 235"
    assert set(why(log)) == {"the octets of a line beside it"}
    assert "YW5hLWxh" not in str(log)
    assert "59 57" not in str(log)


def test_a_log_of_the_client_alone_holds_the_message_as_one() -> None:
    log = read_log(" -> EHLO x\n -> MAIL FROM:<>\n -> RCPT TO:<a@b>\n -> DATA\n -> Hi: x\n -> .\n")
    assert codes(only(log)) == "220 EHLO MAIL RCPT DATA 250 250 250 354"
    assert legal(only(log)) == ()


def test_literals_typed_into_a_window_are_told_from_the_answers() -> None:
    session = only(
        read_log(
            "* OK hi\na1 LOGIN {15}\n+ go\nana@lab.example {16}\n+ go\nana-lab-password\na1 OK in\n"
            "a2 APPEND x {5}\na2 NO no\na3 APPEND INBOX {5+}\nhello\na3 OK done\na4 IDLE\n+ go\n"
            "DONE\na4 OK done\n"
        )
    )
    assert [line.who for line in session.lines if line.data != b"\r\n"] == list("SCSCCSCSCSCCSCSCS")
    assert legal(session) == ()
    assert "ana-lab" not in str(session)


# -- Postfix


def test_postfix_tells_of_each_delivery() -> None:
    log = read_log(sample("postfix.log"))
    assert [(codes(session), session.ending) for session in log.sessions] == [
        ("220 EHLO 250 MAIL 250 RCPT 250 DATA 354 250", "Postfix notes: sent"),
        (
            "220 EHLO 250 MAIL 250 RCPT 550 RCPT 250 DATA 354 250",
            "Postfix notes: bounced, so it gives up and tells the sender; Postfix notes: sent",
        ),
        ("220 EHLO 250 MAIL 250 RCPT 250 DATA 354 250", "Postfix notes: sent"),
        (
            "220 EHLO 250 MAIL 250 RCPT 451",
            "Postfix notes: deferred, so it tries again later",
        ),
        ("220 EHLO 250 AUTH 535", "Postfix notes: deferred, so it tries again later"),
        ("220 EHLO 250 MAIL 250 RCPT 554", "the log ends here"),
    ]
    greylisted = log.sessions[3].lines[-2:]
    assert [line.data for line in greylisted] == [
        b"RCPT TO:<carl@grey.example>\r\n",
        b"451 4.7.1 Greylisted, please try again in 300 seconds\r\n",
    ]
    assert "MAIL FROM:<>" in str(log.sessions[2])
    assert "deferred, but without a reply of a server" in why(log)


def test_postfixs_own_dialogue_is_taken_where_it_is_logged() -> None:
    log = read_log(sample("postfix-dialogue.log"))
    received, refused, bounce = log.sessions
    assert received.lines[0].data == b"220 mail.client.example ESMTP Postfix\r\n"
    assert "MAIL RCPT DATA 250 550 503 RSET QUIT 250" in codes(refused)
    assert codes(bounce).endswith("MAIL RCPT DATA 250 250 354 QUIT 250")
    assert ABSENT not in str(log)


def test_postfix_says_which_command_was_refused() -> None:
    row = (
        "2026-01-05T09:00:00.123456+01:00 mx postfix/smtp[9]: 4F8F2210656: to=<a@b.example>, "
        "relay=mx.b.example[192.0.2.1]:25, delay=1, delays=0/0/0/1, dsn={dsn}, status={status} "
        "(host mx.b.example[192.0.2.1] {what})"
    )
    for what, dialogue in (
        ("refused to talk to me: 554 5.7.1 Go away", "554"),
        ("said: 530 5.7.0 TLS first (in reply to MAIL FROM command)", "220 EHLO 250 MAIL 530"),
        (
            "said: 550-5.7.26 Not authenticated. 550 5.7.26 See there (in reply to end of DATA "
            "command)",
            "220 EHLO 250 MAIL 250 RCPT 250 DATA 354 550",
        ),
    ):
        log = read_log(row.format(dsn="5.7.1", status="bounced", what=what))
        assert codes(only(log)) == dialogue


# -- bounces


def test_a_bounce_says_what_became_of_whom() -> None:
    session = only(read_log(sample("postfix-bounce.eml")))
    assert session.ending == "the bounce says: failed, 5.1.1, nobody@lab.example"
    assert [line.data for line in session.lines[-2:]] == [
        b"RCPT TO:<nobody@lab.example>\r\n",
        b"550 5.1.1 No such mailbox here: nobody@lab.example\r\n",
    ]


def test_a_bounce_that_does_not_say_what_was_refused_is_marked_as_a_guess() -> None:
    guess = "which command this answered isn't said; the likeliest is shown"
    assert guess not in why(read_log(sample("postfix-bounce.eml")))
    log = read_log(sample("gmail-bounce.eml"))
    assert guess in why(log)
    assert "the report names no reply of a server" in why(log)
    assert "the letter that came back" in why(log)


def test_gmails_own_words_are_enough() -> None:
    text = sample("gmail-send-as.txt").replace("535 Authentication credentials invalid", "{}")
    content = only(read_log(text.format("550 Missing subject field.")))
    assert codes(content) == "220 EHLO 250 MAIL 250 RCPT 250 DATA 354 550"
    address = only(read_log(text.format("550 5.1.1 The email account does not exist.")))
    assert codes(address) == "220 EHLO 250 MAIL 250 RCPT 550"
    with pytest.raises(ValueError, match="Nothing in this text"):
        read_log(text.format("Unspecified Error (SENT_SECOND_EHLO): no AUTH"))


# -- secrets


@pytest.mark.parametrize("name", sorted(path.name for path in SAMPLES.iterdir()))
def test_no_password_is_shown(name: str) -> None:
    log = read_log(sample(name))
    shown = "\n".join(
        [str(log), repr(log), repr(log.unread), *(run.text for run in log.unread)]
        + [session.text(exact=True) + repr(session.lines) for session in log.sessions]
    )
    for secret in SECRETS:
        assert secret not in shown, secret


def test_passwords_beside_the_dialogue_are_masked_as_well() -> None:
    log = read_log(
        "$ swaks --auth-user ana --auth-password s3cret-word\n"
        "$ curl -u ana:s3cret-word --user=ben:other-word smtp://zoe:fourth-word@x\n"
        'password: "third-word"\n'
        + sample("swaks-submission.txt")
        + "it is ana-lab-password, or AGFuYUBsYWIuZXhhbXBsZQBhbmEtbGFiLXBhc3N3b3Jk\n"
    )
    shown = str(log) + repr(log.unread) + "".join(run.text for run in log.unread)
    for secret in ("s3cret-word", "other-word", "third-word", "fourth-word", *SECRETS[:4]):
        assert secret not in shown
    assert f"it is {MASK}, or {MASK}" in shown


@pytest.mark.parametrize(
    "other",
    ["curl-submission.txt", "curl-imap.txt", "smtplib-3.11.txt", "imaplib.txt", "poplib.txt"],
)
def test_passwords_of_a_dialogue_that_is_not_read_are_masked_as_well(other: str) -> None:
    main = sample("swaks-submission.txt").replace("ana-lab", "xyz") * 5
    foreign = "\n".join(row for row in sample(other).split("\n") if "bytes data]" not in row)
    log = read_log(main.replace("AGFuYUBsYWIuZXhhbXBsZQBhbmEtbGFiLXBhc3N3b3Jk", "AAAA") + foreign)
    assert log.kind == "swaks"
    shown = "".join(run.text for run in log.unread)
    assert "SELECT" in shown or "EHLO" in shown or "ehlo" in shown or "CAPA" in shown
    for secret in SECRETS:
        assert secret not in shown


# -- live


def lines_of(session: Session) -> list[tuple[str, str, bytes, bool]]:
    return [(line.who, line.kind, line.data, line.tls) for line in session.lines]


def letter() -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = ANA, BEN, "a dot"
    message.set_content(".a dot\nGrüße\n")
    return message


def test_smtplibs_debug_output_is_the_session_the_lab_saw(lab: Lab) -> None:
    said_aside = io.StringIO()
    with contextlib.redirect_stderr(said_aside), smtplib.SMTP() as client:
        client.set_debuglevel(1)
        client._host = "localhost"  # type: ignore[attr-defined]  # what starttls checks
        client.connect(*lab.submission)
        client.starttls(context=lab.tls)
        client.login(ANA, lab.accounts[ANA])
        client.send_message(letter())
    (seen,) = lab.sessions
    assert lines_of(only(read_log(said_aside.getvalue()))) == lines_of(seen)


def test_poplibs_debug_output_is_the_session_the_lab_saw(lab: Lab) -> None:
    with smtplib.SMTP(*lab.smtp) as sender:
        sender.send_message(letter())
    said_aside = io.StringIO()
    with contextlib.redirect_stdout(said_aside):
        client = poplib.POP3(*lab.pop3)
        client.set_debuglevel(2)
        client.stls(lab.tls)
        client.user(BEN)
        client.pass_(lab.accounts[BEN])
        client.retr(1)
        client.uidl()
        client.quit()
    read = lines_of(only(read_log(said_aside.getvalue())))
    assert read[1:] == lines_of(lab.sessions[-1])[1:]
    assert read[0][2] == f"+OK {ABSENT}\r\n".encode()


def test_imaplibs_debug_output_is_the_session_the_lab_saw(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imaplib, "Debug", 4)
    said_aside = io.StringIO()
    with contextlib.redirect_stderr(said_aside), imaplib.IMAP4(*lab.imap) as client:
        client.starttls(lab.tls)
        client.login(ANA, lab.accounts[ANA])
        client.append("INBOX", "", "", b"Subject: x\r\n\r\nhello\r\n")
        client.select("INBOX")
        client.fetch("1", "(FLAGS BODY.PEEK[])")
    # imaplib shows no literal, and not the last reply.
    seen = [
        (who, kind, b"" if kind == "content" else data, tls)
        for who, kind, data, tls in lines_of(lab.sessions[-1])
    ]
    read = [
        (who, kind, data, tls)
        for who, kind, data, tls in lines_of(only(read_log(said_aside.getvalue())))
    ]
    assert read == seen[: len(seen) - 1]


def test_a_session_that_was_printed_can_be_read_again(lab: Lab) -> None:
    seen = play(
        lab,
        "smtp",
        """
        S: 220 ...
        C: EHLO client.example
        S: 250-...
        S: 250-...
        S: 250-...
        S: 250-...
        S: 250-...
        S: 250-...
        S: 250-...
        S: 250-DSN
        S: 250-CHUNKING
        S: 250 HELP
        C: MAIL FROM:<ana@lab.example>
        S: 250 ...
        C: RCPT TO:<ben@lab.example>
        S: 250 ...
        C: DATA
        S: 354 ...
        C: Subject: x
        C:
        C: ..y
        C: .
        S: 250 ...
        C: QUIT
        S: 221 ...
        """.replace("C:\n", "C: \n"),
    )
    log = read_log(seen.text(exact=True))
    assert lines_of(only(log)) == lines_of(seen)
    assert only(log).text() == seen.text()


@pytest.fixture
def reachable() -> Iterator[Lab]:
    """A lab that other programs can reach."""
    network = LoopbackNetwork()
    with Lab(network=network) as made:
        yield made
    network.close()


def run(home: Path, program: str, *arguments: str) -> str:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed (Debian: apt-get install {program})")
    done = subprocess.run(
        [path, *arguments],
        env={"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
    )
    return done.stdout.decode("utf-8", "surrogateescape")


@pytest.mark.realclient
@pytest.mark.parametrize("listener", ["submission", "submissions"])
@pytest.mark.parametrize("password", ["ana-lab-password", "wrong"])
def test_swaks_output_is_the_session_the_lab_saw(
    reachable: Lab, tmp_path: Path, listener: str, password: str
) -> None:
    host, port = reachable.address(listener)
    output = run(
        tmp_path,
        "swaks",
        *("--server", host, "--port", str(port), "--helo", "client.example"),
        "--tls-on-connect" if listener == "submissions" else "--tls",
        *("--tls-verify", "--tls-ca-path", str(reachable.ca)),
        *("--auth", "LOGIN", "--auth-user", ANA, "--auth-password", password),
        *("--from", ANA, "--to", BEN),
    )
    (seen,) = reachable.sessions
    read = only(read_log(output))
    assert lines_of(read) == lines_of(seen)
    assert read.tls == seen.tls


@pytest.mark.realclient
@pytest.mark.parametrize("listener", ["submissions", "imaps", "pop3"])
def test_curls_output_is_the_session_the_lab_saw(
    reachable: Lab, tmp_path: Path, listener: str
) -> None:
    host, port = reachable.address(listener)
    scheme = {"submissions": "smtps"}.get(listener, listener)
    output = run(
        tmp_path,
        "curl",
        *("-q", "--verbose", "--ssl-reqd", "--cacert", str(reachable.ca)),
        *("--user", f"{ANA}:{reachable.accounts[ANA]}"),
        *(("--mail-from", ANA, "--mail-rcpt", "nobody@lab.example") if scheme == "smtps" else ()),
        *(("--upload-file", os.devnull) if scheme == "smtps" else ()),
        f"{scheme}://{host}:{port}/",
    )
    (seen,) = reachable.sessions
    read = lines_of(only(read_log(output)))
    # What curl says after its last answer it doesn't show.
    assert read == lines_of(seen)[: len(read)]
    assert len(read) > 8


# -- hostile


@pytest.mark.parametrize(
    "text", ["", "\n\n", "hello", "> GET / HTTP/1.1\n< HTTP/1.1 200 OK\n", "\0"]
)
def test_what_is_no_dialogue_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"^Nothing in this text is an SMTP, POP3 or IMAP dialogue\.$"
    ):
        read_log(text)


def test_what_is_no_text_is_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="Give the log as text"):
        read_log(b"220 hi")  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["x" * (MOST_CHARACTERS + 1), "220 x\n" * (MOST_ROWS + 1)])
def test_a_log_that_is_too_long_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"isn't read; cut out the dialogue you mean\.$"):
        read_log(text)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(5))
def test_no_log_however_broken_raises_anything_else(seed: int) -> None:
    source = random.Random(seed)
    texts = [sample(path.name) for path in sorted(SAMPLES.iterdir())]
    rows = [row for text in texts for row in text.split("\n")]
    parts = [
        "",
        "\0",
        "\r",
        "\ud800",
        "'",
        "{9999999999}",
        "{5}",
        "<",
        "::",
        "\\x",
        "\x1b[",
        " " * 50,
    ]
    for _ in range(60):
        broken = list(source.choice(texts))
        for _ in range(20):
            at = source.randrange(len(broken))
            broken[at : at + source.randrange(4)] = source.choice(parts)
        for text in ("".join(broken), "\n".join(source.choices(rows, k=80))):
            found: Log | str
            try:
                found = read_log(text)
            except ValueError as error:
                found = str(error)
            if isinstance(found, str):
                assert found.startswith("Nothing in this text")
                continue
            assert all(row.isprintable() for row in str(found).split("\n"))
            for session in found.sessions:
                assert len(explain(session)) == len(session.lines)


HOSTILE = {
    "greetings": "<-  220 x\n" * MOST_ROWS,
    "Postfix": "Jan  1 00:00:00 h postfix/smtp[1]: A: to=<a>" + " relay=x," * 200_000 + "\n220 x",
    "a bounce": "Diagnostic-Code: smtp; 550 x\n" + "<a>: " * 300_000,
    "reports": "Final-Recipient: x; a@b\nDiagnostic-Code: smtp; 550 x\n\n" * (MOST_ROWS // 3),
    "a reply": "Diagnostic-Code: smtp; " + "550 x " * 300_000,
    "escapes": "reply: b'220 x'\nsend: '" + "\\x41" * 300_000 + "'\n",
    "Thunderbird": "A/SMTP" * 300_000 + "\n220 x\n",
    "literals": "  00:00.00 < b'* OK'\n  00:00.00 read literal size 999999999999\n" * 24_000,
    "answers": "S: 220 x\nC: QUIT\nS: 221 x\n334 \n" + "AB CD" * 300_000 + "-",
    "words": "S: 220 x\nC: QUIT\nS: 221 x\n" + "password" * 200_000 + " -u" * 50_000,
    "chunks": "S: 220 x\n" + "C: BDAT 999999999999\nS: 250 x\n" * 20_000,
}


@pytest.mark.long
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_log_is_read(name: str) -> None:
    """What it costs is counted in `test_logs_linear.py`; what is quadratic would time out here."""
    assert read_log(HOSTILE[name]).sessions
