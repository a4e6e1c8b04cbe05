"""What happened in a session, in the terms of an exercise."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from labserver import Lab, Legal, Line, Mailbox, Retrieved, Said, Sent, Session, predict
from labserver.exercises.conditions import Evidence
from labserver.exercises.happened import Mail, asked, logins, mails
from labserver.network.inline import InlineNetwork
from labserver.notebook.typed import converse

BEGIN = "EHLO me.example\nMAIL FROM:<a@b.example> SIZE=9\nRCPT TO:<ben@lab.example>\n"


def test_a_mail_with_its_recipients(lab: Lab) -> None:
    cell = BEGIN + "RCPT TO:<no@lab.example>\nDATA\nSubject: x\n\nhi\n.\nQUIT\n"
    assert mails(converse(lab, "smtp", cell).session) == (
        Mail(
            "smtp",
            "a@b.example",
            ("ben@lab.example",),
            ("no@lab.example",),
            sent=True,
            code="250",
        ),
    )


def test_mails_that_were_broken_off(lab: Lab) -> None:
    cell = (
        BEGIN
        + "RSET\nMAIL FROM:<>\nRCPT TO:<no@lab.example>\nEHLO me.example\n"
        + "MAIL FROM:<c@d.example>\nRCPT TO:<ana@lab.example>\nDATA\nhalf\n"
    )
    found = mails(converse(lab, "smtp", cell).session)
    assert [(one.sender, one.named, one.sent, one.code) for one in found] == [
        ("a@b.example", ("ben@lab.example",), False, ""),
        ("", ("no@lab.example",), False, ""),
        ("c@d.example", ("ana@lab.example",), False, "354"),
    ]


def test_two_mails_in_one_session_and_none_in_another_protocol(lab: Lab) -> None:
    mail = "MAIL FROM:<a@b.example>\nRCPT TO:<ben@lab.example>\nDATA\nhi\n.\n"
    found = mails(converse(lab, "smtp", f"EHLO me.example\n{mail}{mail}QUIT\n").session)
    assert [one.sent for one in found] == [True, True]
    assert mails(converse(lab, "pop3", "QUIT").session) == ()


def test_commands_with_their_answers(lab: Lab) -> None:
    found = asked(converse(lab, "pop3", "USER ben@lab.example\nPASS wrong\nSTAT\nQUIT").session)
    assert [(one.verb, one.code, one.outcome) for one in found] == [
        ("greeting", "+OK", "done"),
        ("USER", "+OK", "done"),
        ("PASS", "-ERR", "refused"),
        ("STAT", "-ERR", "refused"),
        ("QUIT", "+OK", "done"),
    ]
    assert "wrong" not in found[2].said


LITERAL = 'x LOGIN {15}\nben@lab.example "ben-lab-password"\nx LOGOUT\n'
PLAIN = "AGFuYUBsYWIuZXhhbXBsZQBhbmEtbGFiLXBhc3N3b3Jk"
NAME, PASSWORD = "YW5hQGxhYi5leGFtcGxl", "YW5hLWxhYi1wYXNzd29yZA=="


@pytest.mark.parametrize(
    ("listener", "cell", "who"),
    [
        ("submissions", f"EHLO me.example\nAUTH PLAIN {PLAIN}\nQUIT", "ana@lab.example"),
        ("submissions", f"EHLO me.example\nAUTH PLAIN\n{PLAIN}\nQUIT", "ana@lab.example"),
        ("submissions", f"EHLO me.example\nAUTH LOGIN\n{NAME}\n{PASSWORD}\n", "ana@lab.example"),
        ("pop3s", "USER ben@lab.example\nPASS ben-lab-password\nQUIT", "ben@lab.example"),
        ("pop3s", f"AUTH PLAIN {PLAIN}\nQUIT", "ana@lab.example"),
        ("imaps", "x LOGIN ben@lab.example ben-lab-password\nx LOGOUT", "ben@lab.example"),
        ("imaps", 'x LOGIN "ben@lab.example" "ben-lab-password"\n', "ben@lab.example"),
        ("imaps", f"x AUTHENTICATE PLAIN\n{PLAIN}\nx LOGOUT", "ana@lab.example"),
        ("imaps", LITERAL, ""),
    ],
)
def test_who_logged_in(lab: Lab, listener: str, cell: str, who: str) -> None:
    assert logins(converse(lab, listener, cell).session) == (who,)


@pytest.mark.parametrize(
    ("listener", "cell"),
    [
        ("pop3s", "USER ben@lab.example\nPASS wrong\nQUIT"),
        ("imaps", "x LOGIN ben@lab.example wrong\nx LOGOUT"),
        ("submissions", "EHLO me.example\nAUTH PLAIN ==\nAUTH PLAIN eA==\nQUIT"),
    ],
)
def test_who_was_not_let_in_did_not_log_in(lab: Lab, listener: str, cell: str) -> None:
    assert logins(converse(lab, listener, cell).session) == ()


class Counted(tuple[Line, ...]):
    """The lines of a session, counting how often one of them is read."""

    __slots__ = ()
    read = 0

    def __getitem__(self, index: Any) -> Any:
        Counted.read += 1
        return super().__getitem__(index)

    def __iter__(self) -> Iterator[Line]:
        for line in super().__iter__():
            Counted.read += 1
            yield line


COMMANDS: dict[str, Callable[[int], str]] = {
    "smtp": lambda many: "EHLO me.example\n" + "MAIL FROM:<a@b.example>\nRSET\n" * many,
    "pop3": lambda many: "USER ben@lab.example\nPASS ben-lab-password\n" + "STAT\nNOOP\n" * many,
    "imap": lambda many: (
        "a LOGIN ben@lab.example ben-lab-password\n" + "b NOOP\nc CAPABILITY\n" * many
    ),
}
JUDGES: dict[str, Callable[[Session], object]] = {
    "asked": asked,
    "mails": mails,
    "logins": logins,
    "said": lambda session: Said("NOOP").judge(Evidence((session,), never)),
    "sent": lambda session: Sent().judge(Evidence((session,), never)),
    "legal": lambda session: Legal().judge(Evidence((session,), never)),
    "retrieved": lambda session: Retrieved().judge(Evidence((session,), never)),
    "predicted": lambda session: predict("?", about="NOOP", answer="x").reveal(session),
}


def never(address: str, name: str) -> Mailbox:
    raise AssertionError("Only the dialogue is judged.")


@pytest.mark.parametrize("listener", COMMANDS)
@pytest.mark.parametrize("judge", JUDGES)
def test_judging_reads_each_line_a_bounded_number_of_times(listener: str, judge: str) -> None:
    reads = []
    with contextlib.closing(InlineNetwork()) as network, Lab(network=network) as lab:
        for many in (20, 40, 80):
            session = converse(lab, listener, COMMANDS[listener](many)).session
            Counted.read = 0
            with contextlib.suppress(ValueError):  # where NOOP was never said
                JUDGES[judge](replace(session, lines=Counted(session.lines)))
            reads.append(Counted.read)
    assert reads[2] - reads[1] <= 2.1 * (reads[1] - reads[0])
    assert reads[2] <= 20 * len(session.lines)
