"""A session said again with one line changed: the same where nothing is, the server's own answer
where something is, and the same each time."""

from __future__ import annotations

import contextlib
import imaplib
import poplib
import smtplib
import tempfile
import threading
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from dialogue import Client, play, said

from labserver import (
    Disconnect,
    Fork,
    Greylist,
    Lab,
    Limits,
    Reply,
    Session,
    fork,
    forking,
    read_log,
)
from labserver.catalog import explain
from labserver.network.inline import InlineNetwork

ANA, BEN = "ana@lab.example", "ben@lab.example"


def letter() -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = ANA, BEN, "a dot"
    message.set_content(".a dot\nGrüße\n")
    return message


def number(session: Session, begins: str) -> int:
    """Number of the line in which the client says that."""
    data = begins.encode().upper()
    return next(
        i
        for i, line in enumerate(session.lines, 1)
        if line.who == "C" and line.data.upper().startswith(data)
    )


def codes(session: Session) -> str:
    rows = said(session).split("\n")
    return " ".join(row[3:] for row in rows if not (row.startswith("S: ") and row[6:7] == "-"))


def unchanged(session: Session, line: int) -> str:
    return session.lines[line - 1].data.decode().removesuffix("\r\n")


def submitted(lab: Lab) -> Session:
    with smtplib.SMTP("localhost", lab.submission.port) as client:
        client.starttls(context=lab.tls)
        client.login(ANA, lab.accounts[ANA])
        client.send_message(letter(), to_addrs=[BEN, "x@elsewhere.example"])
    return lab.sessions[-1]


def logged_in_on_submissions(lab: Lab) -> Session:
    with smtplib.SMTP_SSL("localhost", lab.submissions.port, context=lab.tls) as client:
        with contextlib.suppress(smtplib.SMTPAuthenticationError):
            client.login(ANA, "wrong")
        client.login(ANA, lab.accounts[ANA])
    return lab.sessions[-1]


def pipelined(lab: Lab) -> Session:
    return play(
        lab,
        "smtp",
        r"""
        S: 220 ...
        C! EHLO x\r\nMAIL FROM:<ana@lab.example>\r\nRCPT TO:<ben@lab.example>\r\nDATA\r\n
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
        S: 250 ...
        S: 250 ...
        S: 354 ...
        C! Subject: x\r\n\r\n.\r\nNOOP\r\nQUIT\r\n
        S: 250 ...
        S: 250 ...
        S: 221 ...
        """,
    )


def left_early(lab: Lab) -> Session:
    return play(lab, "smtp", "S: 220 ...\n C: HELO x\n S: 250 ...\n -- client closes")


def fetched_by_pop3(lab: Lab) -> Session:
    client = poplib.POP3(*lab.pop3)
    client.stls(lab.tls)
    client.user(BEN)
    client.pass_(lab.accounts[BEN])
    client.list()
    client.retr(1)
    client.uidl()
    client.dele(1)
    client.quit()
    return lab.sessions[-1]


def fetched_by_pop3s(lab: Lab) -> Session:
    client = poplib.POP3_SSL("localhost", lab.pop3s.port, context=lab.tls)
    client.user(BEN)
    with contextlib.suppress(poplib.error_proto):
        client.pass_("wrong")
    client.quit()
    return lab.sessions[-1]


def worked_by_imap(lab: Lab) -> Session:
    with imaplib.IMAP4(*lab.imap) as client:
        client.starttls(lab.tls)
        client.login(BEN, lab.accounts[BEN])
        client.append("INBOX", "", "", b"Subject: y\r\n\r\nappended\r\n")
        client.select()
        client.fetch("1", "(FLAGS BODY[])")
        client.store("1", "+FLAGS", "\\Deleted")
        client.expunge()
    return lab.sessions[-1]


def idled_by_imap(lab: Lab) -> Session:
    return play(
        lab,
        "imaps",
        r"""
        S: * OK ...
        C: x1 AUTHENTICATE PLAIN
        S: + ...
        C: AGJlbkBsYWIuZXhhbXBsZQBiZW4tbGFiLXBhc3N3b3Jk
        S: x1 OK ...
        C: x2 CREATE {3}
        S: + ...
        C! box\r\n
        S: x2 OK ...
        C! x3 APPEND box {5+}\r\nhello\r\n
        S: x3 OK ...
        C: x4 APPEND nowhere {5}
        S: + ...
        C! hello\r\n
        S: x4 NO ...
        C: x5 SELECT box
        S: * FLAGS ...
        S: * OK ...
        S: * 1 EXISTS
        S: * 1 RECENT
        S: * OK ...
        S: * OK ...
        S: * OK ...
        S: x5 OK ...
        C: x6 IDLE
        S: + ...
        C: DONE
        S: x6 OK ...
        C: x7 LOGOUT
        S: * BYE ...
        S: x7 OK ...
        """,
    )


CONVERSATIONS = [
    submitted,
    logged_in_on_submissions,
    pipelined,
    left_early,
    fetched_by_pop3,
    fetched_by_pop3s,
    worked_by_imap,
    idled_by_imap,
]


# -- nothing changed


@pytest.mark.long
@pytest.mark.parametrize("converse", CONVERSATIONS, ids=lambda one: one.__name__)
def test_a_session_said_again_as_it_was_is_the_same(lab: Lab, converse: object) -> None:
    with smtplib.SMTP(*lab.smtp) as client:
        client.send_message(letter())
    session: Session = converse(lab)  # type: ignore[operator]
    tried = 0
    for line, one in enumerate(session.lines, 1):
        if one.who == "C":
            again = fork(session, line, unchanged(session, line), lab=lab)
            assert again.said
            assert again.changed.texts("normal") == session.texts("normal"), again
            assert again.parted_at is None
            assert again.changed.round_trips == session.round_trips
            tried += 1
    assert tried >= 1


def test_two_forks_are_the_same() -> None:
    network = InlineNetwork()
    with Lab(network=network) as lab:
        session = submitted(lab)
    network.close()
    one, other = (fork(session, number(session, "RCPT"), "RCPT TO:<x@y.example>") for _ in range(2))
    assert str(one) == str(other)
    assert one.changed.lines == other.changed.lines
    assert one.changed.started == other.changed.started


# -- something changed


def test_a_refused_recipient_leaves_no_message_to_send(lab: Lab) -> None:
    session = submitted(lab)
    line = number(session, "RCPT")
    other = fork(session, line, "RCPT TO:<nobody@lab.example>", lab=lab)
    assert other.parted_at == line
    assert codes(other.changed).endswith("RCPT 550 RCPT 550 DATA 503 QUIT 221")
    assert not any(one.kind in ("content", "end") for one in other.changed.lines)
    assert other.changed.listener == "submission"
    assert all(one.tls for one in other.changed.lines[line - 1 :])


def test_without_starttls_the_server_takes_no_login(lab: Lab) -> None:
    session = submitted(lab)
    other = fork(session, number(session, "STARTTLS"), "NOOP", lab=lab)
    assert codes(other.changed).startswith("220 EHLO 250 NOOP 250 EHLO 250 AUTH 530")
    assert not any(one.tls for one in other.changed.lines)


def test_a_line_can_be_put_before_another(lab: Lab) -> None:
    session = left_early(lab)
    other = fork(session, 2, "MAIL FROM:<ana@lab.example>", insert=True)
    assert codes(other.changed) == "220 MAIL 503 HELO 250"
    at_the_end = fork(session, len(session.lines) + 1, "QUIT", insert=True)
    assert codes(at_the_end.changed) == "220 HELO 250 QUIT 221"


def test_starttls_put_before_a_command_brings_tls(lab: Lab) -> None:
    session = left_early(lab)
    other = fork(session, 2, "STARTTLS", insert=True)
    assert [one.tls for one in other.changed.lines] == [False, False, False, True, True], other
    assert other.changed.tls.startswith("TLSv1.")


def test_a_refused_login_brings_no_password(lab: Lab) -> None:
    session = play(
        lab,
        "submissions",
        """
        S: 220 ...
        C: EHLO x
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
        C: AUTH LOGIN
        S: 334 ...
        C: YW5hQGxhYi5leGFtcGxl
        S: 334 ...
        C: YW5hLWxhYi1wYXNzd29yZA==
        S: 235 ...
        C: QUIT
        S: 221 ...
        """,
    )
    other = fork(session, number(session, "AUTH"), "AUTH CRAM-MD5")
    assert codes(other.changed) == "220 EHLO 250 AUTH 504 QUIT 221"
    wrong = fork(session, number(session, "YW5hLW"), "d3Jvbmc=")
    assert codes(wrong.changed) == "220 EHLO 250 AUTH 334 334 535 QUIT 221"


def test_another_message_can_be_sent(lab: Lab) -> None:
    session = submitted(lab)
    content = number(session, "FROM:")
    other = fork(session, content, "Subject: other\n\n..stuffed", lab=lab)
    (sent,) = [one for one in other.changed.lines if one.kind == "content"]
    assert sent.data == b"Subject: other\r\n\r\n..stuffed\r\n"
    assert other.parted_at == content
    endless = fork(session, content + 1, "..", lab=lab)
    assert endless.changed.ending == "the client went away without QUIT"


def test_a_declared_size_beyond_the_limit_is_refused(lab: Lab) -> None:
    session = submitted(lab)
    other = fork(session, number(session, "MAIL"), f"MAIL FROM:<{ANA}> SIZE=99999999", lab=lab)
    assert "MAIL 552" in codes(other.changed)


def test_bdat_is_said_with_its_octets(lab: Lab) -> None:
    session = play(
        lab,
        "smtp",
        r"""
        S: 220 ...
        C: HELO x
        S: 250 ...
        C! BDAT 5 LAST\r\n
        S: 50...
        C: QUIT
        S: 221 ...
        """.replace("C! BDAT 5 LAST\\r\\n", "C: BDAT 0 LAST"),
    )
    assert fork(session, 2, "HELO y").parted_at is None


def test_pop3_mail_of_earlier_sessions_is_there(lab: Lab) -> None:
    with smtplib.SMTP(*lab.smtp) as client:
        client.send_message(letter())
    session = fetched_by_pop3(lab)
    other = fork(session, number(session, "RETR"), "RETR 2", lab=lab)
    retr = [one for one in other.changed.lines if one.data.startswith(b"-ERR")]
    assert len(retr) == 1
    without = fork(session, number(session, "RETR"), "RETR 1")
    assert b"-ERR" in without.changed.lines[number(without.changed, "RETR")].data


def test_imap_goes_on_with_the_literals_the_server_takes(lab: Lab) -> None:
    session = idled_by_imap(lab)
    gone = fork(session, number(session, "x2 CREATE"), "x2 NOOP", lab=lab)
    assert b"box" not in [one.data for one in gone.changed.lines]
    assert "S: x3 NO" in gone.changed.text(exact=True)
    no_idle = fork(session, number(session, "x6 IDLE"), "x6 CHECK", lab=lab)
    assert b"DONE\r\n" not in [one.data for one in no_idle.changed.lines]
    assert no_idle.changed.lines[-1].data.startswith(b"x7 OK")


def test_the_accounts_and_limits_of_the_lab_are_kept() -> None:
    network = InlineNetwork()
    with Lab({"zoe@z.example": "zz"}, network=network, limits=Limits(recipients=1)) as lab:
        session = play(
            lab,
            "smtp",
            """
            S: 220 z.example ...
            C: HELO x
            S: 250 ...
            C: MAIL FROM:<>
            S: 250 ...
            C: RCPT TO:<zoe@z.example>
            S: 250 ...
            """,
        )
        other = fork(session, 8, "RCPT TO:<zoe@z.example>", insert=True, lab=lab)
        assert codes(other.changed).endswith("RCPT 250 RCPT 452")
    network.close()


def test_a_session_that_is_still_open_stays_so(lab: Lab) -> None:
    client = Client(lab, "smtp")
    client.line()
    client.send(b"NOOP\r\n")
    client.line()
    other = fork(lab.sessions[-1], 2, "HELO x")
    client.close()
    assert codes(other.changed) == "220 HELO 250"
    assert not other.changed.closed


def test_a_server_that_had_lost_its_patience_loses_it_again() -> None:
    network = InlineNetwork()
    with Lab(network=network) as lab:
        sock = network.connect(lab.smtp, timeout=None)
        while sock.recv(1000):
            pass
        sock.close()
        (session,) = lab.sessions
    network.close()
    assert codes(session) == "220 421"
    other = fork(session, len(session.lines) + 1, "NOOP", insert=True)
    assert codes(other.changed) == "220 NOOP 250 421"


def test_an_imported_session_can_be_forked() -> None:
    log = read_log(
        "220 mx.example ESMTP\nEHLO x\n250 mx.example\nMAIL FROM:<ana@lab.example>\n250 OK\n"
        "RCPT TO:<ben@lab.example>\n451 4.7.1 Greylisted\nQUIT\n221 bye\n"
    )
    (session,) = log.sessions
    other = fork(session, number(session, "RCPT"), "RCPT TO:<nobody@lab.example>")
    assert codes(other.changed).endswith("RCPT 550 QUIT 221")
    assert other.changed.listener == "smtp"


@pytest.mark.parametrize("converse", [pipelined, fetched_by_pop3s, idled_by_imap])
def test_every_line_can_be_another(
    converse: Callable[[Lab], Session], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = InlineNetwork()
    with Lab(network=network) as lab:
        session = converse(lab)
    network.close()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spoken = [i for i, line in enumerate(session.lines, 1) if line.who == "C"]
    changes = ("DATA", "zz APPEND INBOX {5}", "*", "\0é{9+}")
    for n, line in enumerate(spoken):
        for text in (changes[n % 4], changes[(n + 1) % 4]):
            other = fork(session, line, text, insert=text == "*")
            assert str(other).startswith(f"{session.protocol} on {session.listener}")
            assert all(row.isprintable() for row in str(other).split("\n"))
            for secret in ("lab-password", "AGJlb", "LXBhc3N3b3Jk"):
                assert secret not in str(other)
            client = b"".join(one.data for one in other.changed.lines if one.who == "C")
            assert text.encode() in client or not other.said
            assert len(explain(other.changed)) == len(other.changed.lines)
    assert not any(tmp_path.iterdir())


def test_a_password_is_said_nowhere_but_where_it_is_masked(lab: Lab) -> None:
    session = play(
        lab,
        "imaps",
        r"""
        S: * OK ...
        C: a1 LOGIN {15}
        S: + ...
        C! ana@lab.example {16}\r\n
        S: + ...
        C: ana-lab-password
        S: a1 OK ...
        """,
    )
    for text in ("a1 RENAME {15}", "a1 LOGIN {3}", "a1 AUTHENTICATE PLAIN"):
        assert "ana-lab" not in str(fork(session, 2, text))


def test_a_line_of_any_length_is_shown_in_part(lab: Lab) -> None:
    other = fork(left_early(lab), 2, "x" * 3000)
    assert max(map(len, str(other).split("\n"))) < 110
    assert len(str(other)) < 2000


# -- how it is shown


def test_both_are_shown_beside_each_other_where_they_part(lab: Lab) -> None:
    session = submitted(lab)
    line = number(session, "RCPT")
    other = fork(session, line, "RCPT TO:<nobody@lab.example>", lab=lab)
    rows = str(other).split("\n")
    assert rows[0] == f"SMTP on submission, parted at line {line}"
    assert (
        "C: rcpt TO:<ben@lab.example>                   | C: RCPT TO:<nobody@lab.example>" in rows
    )
    assert all(row.isprintable() for row in rows)
    assert repr(other) == f"<Fork of {session!r}: parted at line {line}>"


def test_no_password_is_shown(lab: Lab) -> None:
    session = submitted(lab)
    other = fork(session, number(session, "EHLO"), "EHLO y", lab=lab)
    changed = fork(session, number(session, "EHLO"), "HELO y", lab=lab)
    for one in (other, changed):
        for shown in (str(one), repr(one)):
            assert "AGFuYUBsYWIuZXhhbXBsZQ" not in shown


def test_a_long_fork_is_shown_in_part() -> None:
    (session,) = read_log("S: 220 x\n" + "C: NOOP\nS: 250 OK\n" * 300 + "C: QUIT\n").sessions
    rows = str(fork(session, 2, "HELO x")).split("\n")
    assert rows[-1] == "[403 more lines not shown]"  # of 603: the server says 221
    assert len(rows) < 220


def test_what_could_not_be_said_is_told(lab: Lab) -> None:
    session = submitted(lab)
    other = fork(session, len(session.lines) + 1, "NOOP", insert=True, lab=lab)
    assert (other.said, other.parted_at) == (False, None)
    assert str(other).endswith("; the changed line could not be said there")


# -- what can't be done


def refused(session: object, line: object, text: object, **options: object) -> str:
    with pytest.raises(ValueError, match=r"^[^\n]+\.$") as caught:
        fork(session, line, text, **options)  # type: ignore[arg-type]
    return str(caught.value)


def test_each_mistake_gets_a_sentence(lab: Lab) -> None:
    session = left_early(lab)
    assert refused(session, 10, "x") == "This session has no line 10; its lines are 1 to 3."
    assert refused(session, 0, "x").startswith("This session has no line 0")
    assert refused(session, -1, "x").startswith("This session has no line -1")
    assert refused(session, True, "x").startswith("This session has no line True")
    assert refused(session, 4, "x").startswith("This session has no line 4")
    assert refused(session, 3, "x") == (
        "Line 3 is the server's; change one of the client's, such as line 2."
    )
    assert refused(session, 2, "a\nb").startswith("Give one line")
    assert refused(session, 2, b"x").startswith("Give the line as text")
    assert refused(None, 2, "x").startswith("Give a session")


def test_a_message_that_was_not_kept_whole_can_not_be_said_again() -> None:
    network = InlineNetwork()
    with Lab(network=network, limits=Limits(transcript_body=100)) as lab:
        with smtplib.SMTP(*lab.smtp) as client:
            client.send_message(letter())
        (session,) = lab.sessions
        assert "Limits(transcript_body=…)" in refused(session, 2, "HELO x")
        with smtplib.SMTP(*lab.smtp) as client:
            client.noop()
        later = lab.sessions[-1]
        assert refused(later, 2, "HELO x", lab=lab).startswith("Session 1, before this one")
        assert codes(fork(later, 2, "HELO x").changed) == "220 HELO 250 QUIT 221"
    network.close()


def test_mail_of_sessions_that_are_no_longer_kept_can_not_be_had_again() -> None:
    network = InlineNetwork()
    with Lab(network=network, limits=Limits(sessions=2)) as lab:
        for _ in range(3):
            left_early(lab)
        session = lab.sessions[-1]
        assert refused(session, 2, "HELO y", lab=lab).startswith("This lab keeps only its latest")
        assert fork(session, 2, "HELO y").parted_at is None
    network.close()


def test_a_session_of_another_lab_takes_no_mail_of_this_one(lab: Lab) -> None:
    with smtplib.SMTP(*lab.smtp) as client:
        client.send_message(letter())
    (session,) = read_log("+OK hi\nUSER ben@lab.example\n+OK\nPASS ben-lab-password\n").sessions
    other = fork(session, len(session.lines) + 1, "STAT", insert=True, lab=lab)
    assert other.changed.lines[-1].data == b"+OK 0 0\r\n"


def test_a_masked_password_can_not_be_said_again(lab: Lab) -> None:
    session = submitted(lab)
    (pasted,) = read_log(session.text(exact=True)).sessions
    assert "is masked, so it can't be said again" in refused(pasted, 2, "EHLO y")


def test_what_a_log_does_not_hold_can_not_be_said_again() -> None:
    (session,) = read_log("Diagnostic-Code: smtp; 550 5.1.1 No such user a@b.example").sessions
    assert refused(session, 4, "MAIL FROM:<>") == (
        "Line 2 isn't in the log, so it can't be said again."
    )
    (imap,) = read_log(
        "00:00.00 < b'* OK hi'\n00:00.00 > b'a APPEND x {5}'\n00:00.00 < b'+ go'\n"
        "00:00.00 write literal size 5\n00:00.00 < b'a OK'\n"
    ).sessions
    assert refused(imap, 2, "a NOOP").startswith("Line 4 isn't in the log")


def test_the_line_that_a_log_does_not_hold_can_be_given() -> None:
    (session,) = read_log("S: 220 x\nC: HELO (not in this log)\nS: 250 x\n").sessions
    assert codes(fork(session, 2, "HELO x").changed) == "220 HELO 250"


def test_the_session_is_left_as_it_was(lab: Lab) -> None:
    session = left_early(lab)
    before = session.text(exact=True)
    assert isinstance(fork(session, 2, "NOOP"), Fork)
    assert session.text(exact=True) == before
    assert len(lab.sessions) == 1


def attempt(lab: Lab) -> Session:
    """A mail to Ben, whether or not the lab takes it."""
    with smtplib.SMTP(*lab.smtp) as client, contextlib.suppress(smtplib.SMTPException):
        client.sendmail("a@b.example", BEN, "hi")
    return lab.sessions[-1]


@pytest.mark.parametrize(("catch_all", "code"), [(True, "RCPT 250"), (False, "RCPT 550")])
def test_the_fresh_lab_takes_mail_to_anybody_where_this_one_does(
    catch_all: bool, code: str
) -> None:
    network = InlineNetwork()
    with contextlib.closing(network), Lab(network=network, catch_all=catch_all) as lab:
        session = attempt(lab)
        nobody = "RCPT TO:<nobody@lab.example>"
        assert code in codes(fork(session, number(session, "RCPT"), nobody, lab=lab).changed)


@pytest.mark.parametrize("allowed", [True, False, None])
def test_the_fresh_lab_takes_passwords_without_tls_where_this_one_does(
    allowed: bool | None,
) -> None:
    network = InlineNetwork()
    with contextlib.closing(network), Lab(network=network, plaintext_login=allowed) as lab:
        client = poplib.POP3(*lab.pop3)
        with contextlib.suppress(poplib.error_proto):
            client.user(ANA)
            client.pass_(lab.accounts[ANA])
        client.close()
        session = lab.sessions[-1]
        again = fork(session, len(session.lines) + 1, "NOOP", insert=True, lab=lab)
        refused = b"-ERR" in b"".join(line.data for line in again.changed.lines[:3])
        assert refused == (allowed is False)


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        (Reply("RCPT", "451 4.7.1 Not now"), "RCPT 451"),
        (Reply("end of data", "552 5.3.4 Too big"), "DATA 354 552"),
        (Reply("RCPT", "450 4.2.1 Sometimes", chance=0.5), ""),
        (Disconnect("MAIL"), "MAIL"),
    ],
)
def test_the_fresh_lab_keeps_the_rules_and_their_seed(rule: Any, code: str) -> None:
    network = InlineNetwork()
    with contextlib.closing(network), Lab(network=network, rules=[rule], seed=7) as lab:
        for _ in range(4):
            session = attempt(lab)
        again = fork(session, number(session, "ehlo"), "EHLO client.example", lab=lab)
        assert again.parted_at is None
        assert code in codes(again.changed)


@pytest.mark.parametrize(("later", "code"), [(290, "RCPT 451"), (310, "RCPT 250")])
def test_as_much_time_passes_as_did(later: float, code: str) -> None:
    network = InlineNetwork()
    with contextlib.closing(network), Lab(network=network, rules=[Greylist(300)]) as lab:
        assert "RCPT 451" in codes(attempt(lab))
        network.wait(threading.Event(), later)
        session = attempt(lab)
        assert code in codes(session)
        again = fork(session, number(session, "ehlo"), "EHLO another.example", lab=lab)
        assert code in codes(again.changed)


def test_tls_is_asked_for_under_the_name_of_the_lab(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []

    def fresh(*given: Any) -> Lab:
        made = real(*given)
        made._certificates().server.sni_callback = lambda sock, name, context: names.append(name)
        return made

    real = forking._fresh_lab
    monkeypatch.setattr(forking, "_fresh_lab", fresh)
    network = InlineNetwork()
    with contextlib.closing(network), Lab(network=network, hostname="mx.lab.example") as lab:
        for session in (submitted(lab), logged_in_on_submissions(lab)):
            fork(session, len(session.lines) + 1, "NOOP", insert=True, lab=lab)
    assert set(names) == {"mx.lab.example"}
