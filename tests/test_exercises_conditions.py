"""Each condition says what it found, or exactly what is missing."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from labserver import Lab
from labserver.catalog import load
from labserver.exercises.conditions import (
    Condition,
    Evidence,
    Finding,
    InMailbox,
    Legal,
    LoggedIn,
    Refused,
    Retrieved,
    Said,
    Sent,
    UnderTls,
)
from labserver.notebook.typed import converse

HELLO = "EHLO me.example\nMAIL FROM:<you@home.example>\n"
BEN, ANA, NOBODY = (f"RCPT TO:<{name}@lab.example>\n" for name in ("ben", "ana", "nobody"))
BODY = "DATA\nSubject: Hello\n\nHello!\n.\n"


def judge(lab: Lab, condition: Condition) -> Finding:
    finding = condition.judge(Evidence(lab.sessions, lab.mailbox))
    protocol, verb = finding.about
    assert verb in load(protocol).commands
    return finding


def says(lab: Lab, condition: Condition) -> str:
    """What is found missing."""
    finding = judge(lab, condition)
    assert not finding.done
    return finding.sentence


def found(lab: Lab, condition: Condition) -> str:
    """What is found to be there."""
    finding = judge(lab, condition)
    assert finding.done, finding.sentence
    return finding.sentence


@pytest.mark.parametrize(
    ("cell", "sentence"),
    [
        ("", "No mail was begun: MAIL FROM is missing, or was refused."),
        (HELLO, "The mail has no recipient: RCPT TO is missing."),
        (HELLO + NOBODY, "The mail has no accepted recipient; refused: nobody@lab.example."),
        (HELLO + BEN, "The mail to ben@lab.example was never handed over: DATA is missing."),
        (
            HELLO + BEN + ANA + "DATA\nhalf",
            "The mail to ben@lab.example and ana@lab.example has no end: "
            "the line with a single dot.",
        ),
        (
            HELLO + BEN + BODY,
            "Two recipients were wanted; you named one: ben@lab.example. "
            "One refused recipient was wanted; there was none.",
        ),
        (
            HELLO + BEN + NOBODY + BODY,
            "Two accepted recipients were wanted; there was one: ben@lab.example.",
        ),
        (
            HELLO + BEN + ANA + "RCPT TO:<b@lab.example>\n" + NOBODY + BODY,
            "One refused recipient was wanted; there were two: b@lab.example and nobody@lab.example"
            ".",
        ),
    ],
)
def test_sent_says_what_is_missing(lab: Lab, cell: str, sentence: str) -> None:
    converse(lab, "smtp", cell)
    assert says(lab, Sent(recipients=2, refused=1)) == sentence


def test_sent_is_there(lab: Lab) -> None:
    assert says(lab, Sent()) == "Nobody has spoken SMTP to the lab yet."
    converse(lab, "smtp", HELLO + BEN + ANA + NOBODY + BODY)
    assert found(lab, Sent(recipients=2, refused=1)) == (
        "A message went to ben@lab.example and ana@lab.example; refused: nobody@lab.example."
    )
    assert found(lab, Sent(to="ANA@lab.example", sender="you@home.example", listener="smtp"))
    assert says(lab, Sent(messages=2)) == "Two messages were wanted; you sent one."
    assert says(lab, Sent(sender="", to="zoe@lab.example", listener="submission")) == (
        "The sender had to be <>; it was <you@home.example>. "
        "zoe@lab.example had to get it; it went to ben@lab.example and ana@lab.example. "
        "It had to go through submission; it went through smtp."
    )


@pytest.mark.process
def test_a_message_that_the_server_did_not_take_was_not_sent() -> None:
    from labserver import Limits

    with Lab(limits=Limits(message=10)) as lab:
        converse(lab, "smtp", HELLO + BEN + BODY)
        assert says(lab, Sent()) == (
            "The server didn't take the mail to ben@lab.example; it answered 552."
        )


def test_sent_gives_lines_that_do_it(lab: Lab) -> None:
    wanted = Sent(recipients=2, refused=2, sender="")
    example = judge(lab, wanted).example
    converse(lab, "smtp", f"EHLO me.example\n{example}\nQUIT")
    assert found(lab, wanted)


def test_said(lab: Lab) -> None:
    assert says(lab, Said("noop")) == "NOOP wasn't said yet."
    converse(lab, "smtp", "NOOP\nRCPT TO:<ben@lab.example>\nQUIT")
    assert found(lab, Said("noop")) == "You said NOOP, and the server did it."
    assert says(lab, Said("RCPT")) == "You said RCPT, and the server answered 503."


def test_refused(lab: Lab) -> None:
    assert says(lab, Refused("RCPT")) == "RCPT wasn't said yet, so it couldn't be refused."
    converse(lab, "smtp", HELLO + BEN + ANA)
    assert says(lab, Refused("RCPT")) == "You said RCPT two times, and it was accepted."
    converse(lab, "smtp", HELLO + NOBODY + "RCPT TO:<>\n")
    assert says(lab, Refused("RCPT", code=554)) == (
        "RCPT was refused with 550 and 553, not with 554."
    )
    assert found(lab, Refused("RCPT", code=550)) == (
        "RCPT TO:<nobody@lab.example> was refused with 550."
    )


def test_a_refused_password_is_not_repeated(lab: Lab) -> None:
    converse(lab, "pop3s", "USER ben@lab.example\nPASS secret\nQUIT")
    sentence = found(lab, Refused("PASS", code="-err"))
    assert sentence.startswith("PASS •")
    assert "secret" not in sentence


def test_under_tls(lab: Lab) -> None:
    assert says(lab, UnderTls(by="POP3")) == "There was no session by POP3 yet."
    converse(lab, "pop3", "QUIT")
    assert says(lab, UnderTls()) == "What you said on pop3 went in the clear."
    converse(lab, "pop3", "STLS\nQUIT")
    assert found(lab, UnderTls(by="POP3")) == "A session on pop3 was under TLS 1.3."


def test_logged_in(lab: Lab) -> None:
    assert says(lab, LoggedIn()) == "Nobody has logged in yet."
    converse(lab, "imap", "x LOGOUT", login="ana@lab.example")
    assert found(lab, LoggedIn(by="IMAP")) == "ana@lab.example was let in by IMAP."
    assert says(lab, LoggedIn(by="POP3")) == "Nobody has logged in by POP3 yet."
    assert says(lab, LoggedIn("ben@lab.example")) == (
        "ben@lab.example had to log in; it was ana@lab.example."
    )


def test_in_mailbox(lab: Lab) -> None:
    wanted = InMailbox("ben@lab.example", subject="Hi")
    assert says(lab, wanted) == (
        "INBOX of ben@lab.example holds no messages with the subject “Hi”."
    )
    converse(lab, "smtp", HELLO + BEN + BODY)
    assert says(lab, wanted) == (
        "INBOX of ben@lab.example holds no messages with the subject “Hi”; there is: Hello."
    )
    assert found(lab, InMailbox("ben@lab.example", subject="Hello"))
    assert says(lab, InMailbox("ben@lab.example", 2)) == (
        "INBOX of ben@lab.example holds one message; two were wanted."
    )
    assert says(lab, InMailbox("ben@lab.example", mailbox="Sent")) == (
        "ben@lab.example has no mailbox named Sent."
    )
    assert "no account zoe@lab.example" in says(lab, InMailbox("zoe@lab.example"))


def test_retrieved(lab: Lab) -> None:
    converse(lab, "smtp", HELLO + BEN + BODY)
    assert says(lab, Retrieved()) == "No message was fetched yet."
    look = "SELECT INBOX\nFETCH 1 (FLAGS RFC822.SIZE BODY[HEADER])\nFETCH 9 BODY[]\nLOGOUT"
    converse(lab, "imap", look, login="ben@lab.example", tags=True)
    converse(lab, "pop3", "TOP 1 0\nRETR 9\nQUIT", login="ben@lab.example")
    assert says(lab, Retrieved(by="POP3")) == "No message was fetched by POP3 yet."
    converse(lab, "pop3", "RETR 1\nQUIT", login="ben@lab.example")
    assert found(lab, Retrieved()) == "A message was fetched on pop3."
    assert says(lab, Retrieved(by="IMAP")) == "No message was fetched by IMAP yet."
    fetch = "SELECT INBOX\nUID FETCH 1 BODY.PEEK[]\nLOGOUT"
    converse(lab, "imap", fetch, login="ben@lab.example", tags=True)
    assert found(lab, Retrieved(by="IMAP")) == "A message was fetched on imap."


def test_legal_judges_the_last_session(lab: Lab) -> None:
    assert says(lab, Legal()) == "There was no session yet."
    converse(lab, "smtp", "EHLO me.example\nDATA\nQUIT")
    finding = judge(lab, Legal())
    assert (finding.done, finding.about) == (False, ("SMTP", "DATA"))
    assert finding.sentence == "DATA isn't allowed in the state Ready, only in: Recipients."
    converse(lab, "smtp", "EHLO me.example\nNOOP\nQUIT")
    assert found(lab, Legal()) == "Every command came where it may come."


def test_a_word_of_somebody_s_is_harmless_and_short(lab: Lab) -> None:
    converse(lab, "smtp", HELLO + f"RCPT TO:<{'x' * 64}\x1b@lab.example>\n")
    sentence = found(lab, Refused("RCPT"))
    assert "\x1b" not in sentence
    assert len(sentence) < 100


def test_a_command_that_is_none_is_refused(lab: Lab) -> None:
    with pytest.raises(ValueError, match="POST is no command of SMTP, POP3 or IMAP"):
        judge(lab, Said("post"))


def test_conditions_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Sent().messages = 2  # type: ignore[misc]
