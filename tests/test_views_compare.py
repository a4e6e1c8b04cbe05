"""Two sessions beside each other."""

from __future__ import annotations

import imaplib
import poplib
import random
import re
import smtplib
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from dialogue import play
from inert import HOSTILE, inert, words

from labserver import Lab, Line, Session, compare
from labserver.transcript import Side
from tests.steps import LINEAR, growth

PASSWORD = "ana-lab-password"


def mail(lab: Lab, recipient: str, *, tls: bool = False, name: str = "client.example") -> Session:
    with smtplib.SMTP(*lab.smtp, local_hostname=name) as client:
        if tls:
            client.starttls(context=lab.tls)
        with suppress(smtplib.SMTPRecipientsRefused):
            client.sendmail("a@b.example", [recipient], b"Subject: x\r\n\r\nx\r\n")
    return lab.sessions[-1]


def test_the_same_dialogue_is_all_the_same(lab: Lab) -> None:
    one = mail(lab, "nobody@lab.example", name="one.example")
    two = mail(lab, "nobody@lab.example", name="two.example")
    view = compare(one, two)
    inert(view)
    rows = str(view).split("\n")
    assert rows[:3] == [
        "A: SMTP on smtp",
        "B: SMTP on smtp",
        "11 same, 0 differ, 0 only in A, 0 only in B",
    ]
    assert all(row.startswith("=") for row in rows[3:])
    # What was said is shown, though it makes no difference.
    assert [row for row in rows[3:] if not row.startswith("=   ")] == [
        "= A C: ehlo one.example",
        "= B C: ehlo two.example",
    ]
    assert "same but names" in words(view)
    assert "one.example" in words(view)
    assert "two.example" in words(view)


def test_accepted_and_refused_differ_where_they_do(lab: Lab) -> None:
    view = compare(mail(lab, "ben@lab.example"), mail(lab, "nobody@lab.example"))
    inert(view)
    rows = str(view).split("\n")
    assert "≠ A C: rcpt TO:<ben@lab.example>" in rows
    assert "≠ B C: rcpt TO:<nobody@lab.example>" in rows
    unknown = "Recipient address rejected: User unknown in local recipient table"
    assert f"≠ B S: 550 5.1.1 <nobody@lab.example>: {unknown}" in rows
    assert "◀ A C: [message content, 17 octets]" in rows
    assert "▶ B C: rset" in rows
    assert "=   C: QUIT" in rows
    assert "<mark>ben@lab.example</mark>" in view.html


def test_what_only_tls_changes_is_the_same_in_words(lab: Lab) -> None:
    one, two = mail(lab, "ben@lab.example"), mail(lab, "ben@lab.example", tls=True)
    view = compare(one, two)
    inert(view)
    assert "=   C: data (TLS in B)" in str(view)
    assert "=   C: data (TLS in A)" in str(compare(two, one))
    assert "▶ B C: STARTTLS" in str(view)
    assert "same but TLS" in words(view)
    assert 'aria-label="inside TLS"' in view.html


def test_two_protocols_stand_side_by_side_by_purpose(lab: Lab) -> None:
    pop3 = poplib.POP3(*lab.pop3)
    pop3.user("ana@lab.example")
    pop3.pass_(PASSWORD)
    pop3.stat()
    pop3.quit()
    one = lab.sessions[-1]
    imap = imaplib.IMAP4(*lab.imap)
    imap.login("ana@lab.example", PASSWORD)
    imap.select()
    imap.logout()
    view = compare(one, lab.sessions[-1])
    inert(view)
    assert PASSWORD not in view.html + view.text
    rows = str(view).split("\n")
    headings = [row for row in rows if row.startswith("-- ")]
    assert headings == [
        "-- greet --",
        "-- ask what the server can do --",
        "-- log in --",
        "-- see what is there --",
        "-- leave --",
    ]
    login = rows[rows.index("-- log in --") : rows.index("-- see what is there --")]
    assert "| A C: USER ana@lab.example" in login
    assert any(
        re.fullmatch(r"\| B C: \w+ LOGIN ana@lab.example ••••••••••••", row) for row in login
    )
    assert "◀ A C: PASS ••••••••••••" in login


def test_every_line_of_both_is_shown_once(lab: Lab) -> None:
    one, two = mail(lab, "ben@lab.example"), mail(lab, "nobody@lab.example", tls=True)
    rows = str(compare(one, two)).split("\n")[3:]
    for session, letter in ((one, "A"), (two, "B")):
        mine = [row for row in rows if row[2] in (letter, " ")]
        lines = [line for line in session.lines if line.kind != "content"]
        assert len([row for row in mine if "[message content" not in row]) == len(lines)


def test_hostile_sessions_are_inert(lab: Lab) -> None:
    with smtplib.SMTP(*lab.smtp, local_hostname="<script>") as client:
        client.sendmail("eve@evil.example", ["ben@lab.example"], HOSTILE)
    one = lab.sessions[-1]
    two = play(lab, "smtp", "S: ...\nC: EHLO </code><script>alert(1)</script>\nS: 250-...")
    three = play(lab, "imap", "S: ...\nC! \\xff\\x00<b>\\r\n\n-- client closes")
    for a, b in ((one, two), (two, one), (one, three), (three, three)):
        inert(compare(a, b))


def test_a_session_without_a_word_can_be_compared(lab: Lab) -> None:
    silent = Session(1, "SMTP", "smtp", datetime(2026, 1, 1, tzinfo=UTC), (), (), 0, True)
    view = compare(silent, mail(lab, "ben@lab.example"))
    inert(view)
    assert "0 same, 0 differ, 0 only in A" in str(view)


def test_what_differs_between_machines_is_not_in_the_normal_form(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = mail(lab, "nobody@lab.example")
    one, two = (
        mail(lab, "nobody@lab.example", name=name) for name in ("one.example", "[IPv6:::1]")
    )
    assert compare(one, other) != compare(two, other)
    monkeypatch.setenv("LABSERVER_OUTPUT", "normal")
    assert compare(one, other) == compare(two, other)


def test_each_line_has_its_number_in_its_own_session(lab: Lab) -> None:
    one, two = mail(lab, "ben@lab.example"), mail(lab, "ben@lab.example", tls=True)
    view = compare(one, two, numbers=True)
    inert(view)
    rows = str(view).split("\n")
    assert "=    1 S: 220 lab.example ESMTP ready" in rows
    for letter, session in (("A", one), ("B", two)):
        number = next(n for n, line in enumerate(session.lines, 1) if b"FROM:<" in line.data)
        assert any(row.startswith(f"= {letter} {number:2} C: mail FROM:<") for row in rows)
        assert f'<span class="number">{number}</span> mail FROM' in view.html


def random_session(seed: int, lines: int) -> Session:
    source = random.Random(seed)
    verbs = (b"NOOP\r\n", b"RSET\r\n", b"VRFY x\r\n", b"250 x\r\n", b"550-y\r\n")
    said = []
    for _ in range(lines):
        data = source.choice(verbs)
        side: Side = "S" if data[:1].isdigit() else "C"
        said.append(Line(0, side, data, False, "reply" if side == "S" else "command", len(data)))
    return Session(1, "SMTP", "s", datetime(2026, 1, 1, tzinfo=UTC), tuple(said), (), 1, True)


def test_long_sessions_are_compared_in_part_and_soon() -> None:
    one, two = random_session(1, 10_000), random_session(2, 10_000)
    view = compare(one, two)
    assert growth(lambda lines: compare(one, random_session(3, lines)), 1_000) < LINEAR
    inert(view)
    assert "compared: the first 200 and the last 100 exchanges" in words(view)
    assert "more rows aren't shown" in words(view)
    assert len(view.html) < 300_000
