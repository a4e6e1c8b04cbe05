"""What is typed reaches the lab as it stands, and what goes wrong is one sentence."""

from __future__ import annotations

import pytest

from labserver import Lab, LabError
from labserver.network import Network
from labserver.notebook.typed import Typed, converse
from labserver.rules import Limits

SOON = 0.3
"""Seconds to wait for a reply that never comes."""

MAIL = """\
EHLO me.example
MAIL FROM:<you@home.example>
RCPT TO:<ben@lab.example>
DATA
Subject: Hello

..dots
.
QUIT
"""


def said(typed: Typed) -> list[bytes]:
    """The client's octets, line by line or body by body, as the server got them."""
    return [line.data for line in typed.session.lines if line.who == "C"]


def text(typed: Typed) -> str:
    return str(typed)


def test_lines_arrive_as_typed(lab: Lab) -> None:
    typed = converse(lab, "smtp", MAIL)
    assert said(typed) == [
        b"EHLO me.example\r\n",
        b"MAIL FROM:<you@home.example>\r\n",
        b"RCPT TO:<ben@lab.example>\r\n",
        b"DATA\r\n",
        b"Subject: Hello\r\n\r\n..dots\r\n",
        b".\r\n",
        b"QUIT\r\n",
    ]
    assert typed.notes == ()
    assert typed.session.closed
    assert typed.session.ending == ""
    assert lab.inbox("ben@lab.example")[0].octets.endswith(b"Subject: Hello\r\n\r\n.dots\r\n")


def test_each_line_waits_for_the_full_reply_to_the_one_before(lab: Lab) -> None:
    typed = converse(lab, "smtp", MAIL)
    assert typed.session.round_trips == 6
    assert [line.who for line in typed.session.lines[:10]] == [*"SCSSSSSSSS"]


def test_pipelined_lines_leave_at_once(lab: Lab) -> None:
    typed = converse(lab, "smtp", MAIL, pipelined=True)
    assert typed.notes == ()
    assert typed.session.round_trips <= 2
    assert [record.octets for record in typed.session.records if record.who == "C"] == [
        len(MAIL.replace("\n", "\r\n"))
    ]
    assert len(lab.inbox("ben@lab.example")) == 1


def test_counted_content_takes_what_it_announces_and_no_more(lab: Lab) -> None:
    cell = "EHLO me.example\nMAIL FROM:<a@b.example>\nRCPT TO:<ben@lab.example>\nBDAT 3\nab\n"
    typed = converse(lab, "smtp", cell, timeout=SOON)
    # "ab" and CR; the LF that is left is sent as it stands, a line of its own.
    assert b"".join(said(typed)).endswith(b"BDAT 3\r\nab\r\n")


def test_the_greeting_alone_is_heard_where_nothing_is_typed(lab: Lab) -> None:
    typed = converse(lab, "smtp", "\n\n")
    assert said(typed) == []
    assert typed.session.lines[0].data.startswith(b"220 ")


@pytest.mark.parametrize(("name", "end"), [("lf", b"\n"), ("cr", b"\r")])
def test_wrong_line_ends_are_sent_and_explained(lab: Lab, name: str, end: bytes) -> None:
    typed = converse(lab, "smtp", MAIL, line_end=name, timeout=SOON)  # type: ignore[arg-type]
    assert said(typed)[0].startswith(b"EHLO me.example" + end)
    assert lab.inbox("ben@lab.example") == ()
    assert typed.notes == (
        "The server said nothing for 0.3 seconds. It still waits for the end: a line ends with "
        f"CR LF, and yours ended with {name.upper()} alone (RFC 5321 §2.3.8).",
    )


def test_a_cell_that_ends_inside_the_message_says_so(lab: Lab) -> None:
    typed = converse(lab, "smtp", MAIL.partition("\n.\n")[0])
    assert typed.notes == (
        "The cell ends here: the server still waits for the line with a single dot, "
        "and has stored nothing.",
    )
    assert lab.inbox("ben@lab.example") == ()


@pytest.mark.parametrize(
    ("listener", "cell", "command"),
    [("smtp", "QUIT", "QUIT"), ("pop3", "QUIT", "QUIT"), ("imap", "a1 LOGOUT", "LOGOUT")],
)
def test_lines_after_the_farewell_are_counted_not_sent(
    lab: Lab, listener: str, cell: str, command: str
) -> None:
    typed = converse(lab, listener, f"{cell}\nNOOP\nNOOP\n")
    assert said(typed) == [cell.encode() + b"\r\n"]
    assert typed.notes == (
        f"{command} ended the session, so what comes after it in the cell wasn't sent: 2 lines.",
    )


def test_a_server_that_hangs_up_is_told(lab: Lab) -> None:
    wrong = "USER ben@lab.example\nPASS wrong\n" * 3
    typed = converse(lab, "pop3s", wrong + "STAT\nQUIT\n")
    assert typed.notes == (
        "The server closed the connection, so the rest of the cell was not obeyed: 2 lines.",
    )
    assert "wrong" not in text(typed).replace("wrong name", "")


@pytest.mark.process
def test_a_server_that_is_full_says_so() -> None:
    with Lab(limits=Limits(connections=1)) as lab:
        held = lab.network.connect(lab.smtp)
        held.recv(100)
        typed = converse(lab, "smtp", "NOOP\nQUIT\n")
        held.close()
    assert "421" in text(typed)
    assert typed.notes == ("The server doesn't want to talk now.",)


def test_tls_typed_by_the_reader_really_starts(lab: Lab) -> None:
    for listener, cell in (
        ("smtp", "EHLO me.example\nSTARTTLS\nEHLO me.example\nQUIT"),
        ("pop3", "STLS\nCAPA\nQUIT"),
        ("imap", "x STARTTLS\nx CAPABILITY\nx LOGOUT"),
    ):
        session = converse(lab, listener, cell).session
        assert session.tls.startswith("TLSv1")
        assert session.lines[-1].tls
        assert not session.lines[0].tls
        assert session.ending == ""


def test_what_is_sent_along_with_starttls_is_thrown_away(lab: Lab) -> None:
    typed = converse(lab, "smtp", "EHLO me.example\nSTARTTLS\nRSET\n", pipelined=True)
    assert typed.notes[0].startswith("What you sent along with this command came before TLS")
    assert not [line for line in typed.session.lines if line.data.startswith(b"250 2.0.0")]


@pytest.mark.parametrize("listener", ["submission", "submissions"])
def test_login_by_smtp(lab: Lab, listener: str) -> None:
    cell = "MAIL FROM:<ana@lab.example>\nRCPT TO:<ben@lab.example>\nQUIT\n"
    typed = converse(lab, listener, cell, login="ana@lab.example")
    assert "235 2.7.0" in text(typed)
    assert "S: 250 2.1.5 OK" in text(typed)


@pytest.mark.parametrize(
    ("listener", "cell"),
    [("pop3", "STAT\nQUIT"), ("pop3s", "STAT\nQUIT"), ("imap", "x NOOP"), ("imaps", "x NOOP")],
)
def test_login_is_under_tls_and_its_password_never_shown(
    lab: Lab, listener: str, cell: str
) -> None:
    typed = converse(lab, listener, cell, login="ana@lab.example")
    secret = next(line for line in typed.session.lines if line.secret)
    assert secret.tls
    assert b"ana-lab-password" in secret.data
    assert "ana-lab-password" not in text(typed) + typed._repr_html_()
    assert typed.notes == ()


@pytest.mark.process
def test_a_password_with_quotes_logs_in_by_imap() -> None:
    with Lab({"ana@lab.example": 'a"b\\c'}) as lab:
        typed = converse(lab, "imap", "x NOOP\nx LOGOUT", login="ana@lab.example")
    assert typed.notes == ()
    assert "OK NOOP" in text(typed)


def test_where_nobody_can_log_in_a_sentence_says_where_one_can(lab: Lab) -> None:
    typed = converse(lab, "smtp", "QUIT", login="ana@lab.example")
    assert typed.notes == (
        "The server didn't let you log in. Logging in is for submission: -l submission.",
    )


def test_tls_alone_can_be_started_first(lab: Lab) -> None:
    typed = converse(lab, "submission", "EHLO me.example\nQUIT", tls=True)
    assert next(line.data for line in typed.session.lines if line.tls) == b"EHLO me.example\r\n"


def test_multi_line_replies_of_pop3_are_heard_to_their_dot(lab: Lab) -> None:
    converse(lab, "smtp", MAIL)
    cell = "CAPA\nLIST\nLIST 1\nUIDL\nTOP 1 0\nRETR 1\nRETR 9\nNOOP\nQUIT\n"
    typed = converse(lab, "pop3", cell, login="ben@lab.example")
    assert typed.notes == ()
    # STLS, USER, PASS before; QUIT's reply ends the session.
    assert typed.session.round_trips == 3 + 9


def test_challenges_are_answered_by_the_next_line(lab: Lab) -> None:
    typed = converse(lab, "pop3s", "AUTH PLAIN\n*\nQUIT\n")
    assert typed.notes == ()
    assert "-ERR Authentication aborted by client." in text(typed)
    typed = converse(lab, "submissions", "EHLO me.example\nAUTH LOGIN\neA==\neA==\nQUIT\n")
    assert typed.notes == ()
    assert "S: 535" in text(typed)
    typed = converse(lab, "submissions", "EHLO me.example\nAUTH LOGIN\n")
    assert typed.notes == (
        "The cell ends here: the server still waits for your answer to its question.",
    )


def test_imap_literals_wait_for_leave_unless_they_need_none(lab: Lab) -> None:
    cell = (
        "x APPEND INBOX {12}\nSubject: a\n\n"
        "y APPEND INBOX {12+}\nSubject: b\n\n"
        "z LOGIN {15}\nana@lab.example {3}\nbad\n"
        "z LOGOUT\n"
    )
    typed = converse(lab, "imap", cell, login="ben@lab.example")
    assert typed.notes == ()
    assert [bytes(one) for one in lab.inbox("ben@lab.example")] == [
        b"Subject: a\r\n",
        b"Subject: b\r\n",
    ]
    assert text(typed).count("S: + ") >= 1


def test_an_imap_literal_that_is_refused_or_too_short_is_told(lab: Lab) -> None:
    typed = converse(lab, "imap", "x APPEND INBOX {99999999}\nhi\n", login="ben@lab.example")
    assert typed.notes == ("The server refused the literal, so it wasn't sent.",)
    typed = converse(lab, "imap", "x APPEND INBOX {100}\nhello\n", login="ben@lab.example")
    assert typed.notes == (
        "100 octets were announced and the cell holds 7 of them, line ends counted: "
        "the server still waits for 93.",
    )
    typed = converse(lab, "imap", "x APPEND INBOX {7}\nhello\n", login="ben@lab.example")
    assert typed.notes == (
        "The cell ends here: the server still waits for the end of the command after the literal.",
    )


def test_imap_lines_may_get_tags(lab: Lab) -> None:
    converse(lab, "smtp", MAIL)
    cell = "SELECT INBOX\nFETCH 1 BODY[]\nIDLE\nDONE\nLOGOUT\n"
    typed = converse(lab, "imap", cell, login="ben@lab.example", tags=True)
    assert typed.notes == ()
    assert said(typed)[2:] == [
        b"a003 SELECT INBOX\r\n",
        b"a004 FETCH 1 BODY[]\r\n",
        b"a005 IDLE\r\n",
        b"DONE\r\n",
        b"a006 LOGOUT\r\n",
    ]


def test_imap_lines_without_a_tag_or_a_command_are_answered_too(lab: Lab) -> None:
    typed = converse(lab, "imap", "NOOP\n\nx IDLE\nx LOGOUT\n")
    assert typed.notes == ()
    assert "S: NOOP BAD" in text(typed)
    assert "S: * BAD" in text(typed)


def test_an_idle_without_done_is_told(lab: Lab) -> None:
    typed = converse(lab, "imap", "x IDLE\n", login="ben@lab.example")
    assert typed.notes == ("The cell ends here: the server still waits for DONE.",)


def test_the_same_cell_gives_the_same_text_on_every_network(lab: Lab) -> None:
    assert text(converse(lab, "pop3", "USER x\nQUIT")) == (
        "POP3 on pop3\n"
        "S: +OK lab.example POP3 server ready\n"
        "C: USER x\n"
        "S: +OK send the password\n"
        "C: QUIT\n"
        "S: +OK lab.example POP3 server signing off"
    )


def test_notes_stand_beside_the_dialogue(lab: Lab) -> None:
    typed = converse(lab, "smtp", "QUIT\nNOOP\n")
    assert text(typed).endswith(
        "\nNote: QUIT ended the session, so what comes after it in the cell wasn't sent: one line."
    )
    page = typed._repr_html_()
    assert page.index("221") < page.index("QUIT ended the session")
    assert repr(typed) == str(typed)


def test_a_lab_without_that_listener_and_a_closed_lab_refuse(lab: Lab) -> None:
    with pytest.raises(LabError):
        converse(lab, "smtps", "QUIT")
    lab.close()
    with pytest.raises(OSError):  # noqa: PT011
        converse(lab, "smtp", "QUIT")


@pytest.mark.parametrize(
    ("listener", "cell"),
    [
        ("smtp", "EHLO me.example\nSTARTTLS\nEHLO me.example\nQUIT\n"),
        ("pop3", "STLS\nQUIT\n"),
        ("imap", "a STARTTLS\nb LOGOUT\n"),
        ("imaps", "a LOGOUT\n"),
    ],
)
def test_tls_is_asked_for_under_the_name_of_the_lab(
    network: Network, listener: str, cell: str
) -> None:
    names: list[str] = []
    with Lab(network=network, hostname="mx.lab.example") as lab:
        lab._certificates().server.sni_callback = lambda sock, name, context: names.append(name)
        assert converse(lab, listener, cell).session.tls
    assert names == ["mx.lab.example"]
