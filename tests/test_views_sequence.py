"""Sessions as sequence diagrams."""

from __future__ import annotations

import imaplib
import re
import smtplib
from datetime import UTC, datetime

import pytest
from dialogue import play
from inert import HOSTILE, inert, words

from labserver import Lab, Line, Session, sequence
from tests.steps import LINEAR, growth


def test_each_command_and_each_reply_is_an_arrow(lab: Lab) -> None:
    session = play(
        lab,
        "smtp",
        """
        S: 220 ...
        C: HELO client.example
        S: 250 ...
        C: RCPT TO:<ana@lab.example>
        S: 503 ...
        C: QUIT
        S: 221 ...
        -- server closes
        """,
    )
    view = sequence(session)
    assert str(view).split("\n")[2:] == [
        "C <-- S   ✓ 220 lab.example ESMTP ready",
        "C --> S   HELO client.example",
        "C <-- S   ✓ 250 lab.example",
        "C --> S   RCPT TO:<ana@lab.example>",
        "C <-- S   ✕ 503 Error: need MAIL command",
        "C --> S   QUIT",
        "C <-- S   ✓ 221 Bye",
    ]
    inert(view)
    assert view.html.count("client to server: ") == 3
    assert view.html.count("server to client: ") == 4
    assert "<title>SMTP on smtp, in sequence</title><desc>" in view.html


def test_tls_is_a_tunnel_and_a_multi_line_reply_one_arrow(lab: Lab) -> None:
    with smtplib.SMTP(*lab.submission) as client:
        client.starttls(context=lab.tls)
        client.login("ana@lab.example", lab.accounts["ana@lab.example"])
    view = sequence(lab.sessions[-1])
    inert(view)
    assert "inside TLS 1.3" in words(view)
    assert 'class="wall"' in view.html
    assert re.search(r"C <== S   ✓ 250-lab.example \(and \d lines more\)", str(view))
    assert "C ==> S   AUTH PLAIN ••••••••••••" in str(view)


def test_passwords_are_masked_unless_asked_for(lab: Lab) -> None:
    session = play(lab, "imap", "S: ...\nC: a LOGIN ana@lab.example ana-lab-password\nS: a OK ...")
    assert "ana-lab-password" not in sequence(session).html + str(sequence(session))
    assert "ana-lab-password" in sequence(session, reveal=True).html


def test_a_hostile_session_is_inert(lab: Lab) -> None:
    with smtplib.SMTP(*lab.smtp, local_hostname="</text><script>alert(1)</script>") as client:
        client.sendmail("eve@evil.example", ["ben@lab.example"], HOSTILE)
        client.send(f"<svg onload=alert(1)>&\u202e{'漢' * 100}\r\n".encode())
        client.getreply()
    inert(sequence(lab.sessions[-1]))


def test_labels_have_at_most_three_rows(lab: Lab) -> None:
    session = play(lab, "smtp", f"S: ...\nC: {'W' * 200}\nS: ...\nC: {'漢' * 99}\nS: ...")
    for arrow in re.findall(r"<g .*?</g>", sequence(session).html):
        assert 1 <= arrow.count("<text") <= 3
    assert re.search(r"W … 1\d\d octets more", sequence(session).text)


def test_literals_are_content_and_the_way_it_was_cut_is_told(lab: Lab) -> None:
    client = imaplib.IMAP4(*lab.imap)
    client.login("ana@lab.example", lab.accounts["ana@lab.example"])
    client.append("INBOX", None, None, b"Subject: x\r\n\r\nx\r\n")
    client.shutdown()
    view = sequence(lab.sessions[-1])
    assert "C --> S   message content, 17 octets" in str(view)
    assert 'class="C much"' in view.html
    assert str(view).endswith("-- the client went away without LOGOUT --")
    assert "The client went away without LOGOUT." in words(view)


def test_what_repeats_is_drawn_twice_and_counted(lab: Lab) -> None:
    with smtplib.SMTP(*lab.smtp) as client:
        for number in range(30):
            client.sendmail("a@b.example", ["ben@lab.example"], f"Subject: {number}\r\n\r\n")
    view = sequence(lab.sessions[-1])
    assert "   :  28 times more the like of these 9" in str(view).split("\n")
    assert "28 times more the like of these 9" in words(view)
    assert str(view).count("C --> S   data") == 2


def test_it_shows_what_was_said(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    with smtplib.SMTP(*lab.smtp, local_hostname="my.real.host") as client:
        client.sendmail("a@b.example", ["ben@lab.example"], b"x")
    session = lab.sessions[-1]
    for text in (words(sequence(session)), sequence(session).text):
        assert "ehlo my.real.host" in text
        assert "mail FROM:<a@b.example> size=" in text
    monkeypatch.setenv("LABSERVER_OUTPUT", "normal")
    for text in (words(sequence(session)), sequence(session).text):
        assert "EHLO client.example" in text
        assert "MAIL FROM:<a@b.example> SIZE=" in text


def test_each_arrow_has_the_numbers_of_its_lines(lab: Lab) -> None:
    with smtplib.SMTP(*lab.smtp, local_hostname="x") as client:
        client.noop()
        client.ehlo()
    view = sequence(lab.sessions[-1], numbers=True)
    inert(view)
    rows = view.text.split("\n")[2:]
    many = len(lab.sessions[-1].lines)
    assert rows[0] == "C <-- S   1 ✓ 220 lab.example ESMTP ready"
    assert rows[1:3] == ["C --> S   2 noop", "C <-- S   3 ✓ 250 OK"]
    assert rows[3] == "C --> S   4 ehlo x"
    assert re.match(r"C <-- S   5–\d\d ✓ 250-lab.example \(and \d+ lines more\)", rows[4])
    assert rows[-1].startswith(f"C <-- S   {many} ✓ 221 ")
    assert '<tspan class="number">2</tspan>' in view.html


def long_session(lines: tuple[Line, ...]) -> Session:
    return Session(1, "SMTP", "smtp", datetime(2026, 1, 1, tzinfo=UTC), lines, (), 1.0, True)


def test_ten_thousand_different_lines_are_drawn_in_part_and_soon() -> None:
    lines = tuple(
        Line(0, "C", b"X%d\r\n" % n, False, "command", 6)
        if n % (2 + n % 7)
        else Line(0, "S", b"%d x\r\n" % (n % 600), False, "reply", 6)
        for n in range(10_000)
    )
    view = sequence(long_session(lines))
    assert growth(lambda count: sequence(long_session(lines[:count])), 5_000) < LINEAR
    assert "more aren't drawn" in words(view)
    assert len(view.html) < 60_000
