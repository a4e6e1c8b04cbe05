"""Sessions as annotated dialogues: complete, well formed, inert, and soon there."""

from __future__ import annotations

import re
import smtplib
from datetime import UTC, datetime

import pytest
from dialogue import play
from inert import HOSTILE, inert, words

from labserver import Lab, Line, Session, replay, show
from tests.steps import LINEAR, steps


def test_hostile_mail_is_inert(lab: Lab) -> None:
    with smtplib.SMTP(*lab.smtp, local_hostname="<b>client</b>") as client:
        client.sendmail("eve@evil.example", ["ben@lab.example"], HOSTILE)
    for view in (show(lab.sessions[-1]), replay(lab.sessions[-1])):
        inert(view)
        assert "\x1b" not in view.html


def test_a_hostile_client_is_inert(lab: Lab) -> None:
    session = play(
        lab,
        "smtp",
        """
        S: 220 ...
        C: EHLO <script>alert(1)</script>
        S: 250-...
        -- client closes
        """,
    )
    inert(show(session))


QUITS = """
    S: 220 ...
    C: NOOP
    S: 250 ...
    C: QUIT
    S: 221 ...
    -- server closes
    """


def test_each_line_shows_who_spoke_what_and_its_meaning(lab: Lab) -> None:
    view = show(play(lab, "smtp", QUITS))
    checked = inert(view)
    assert view.html.count('aria-label="client"') == 2
    assert view.html.count('aria-label="server"') == 3
    assert view.html.count("<time datetime=") == 6
    assert checked.links
    for said in ("NOOP", "221 Bye", "250 done"):
        assert said in words(view)


def test_the_text_has_the_meaning_under_each_line(lab: Lab) -> None:
    rows = str(show(play(lab, "smtp", QUITS))).split("\n")
    assert rows[0] == "SMTP on smtp: 2 round trips"
    assert rows[1:3] == [
        "S: 220 lab.example ESMTP ready",
        "      220 ready: The server speaks first.",
    ]
    assert rows[3] == "C: NOOP"


def test_a_refusal_is_counted_and_what_else_could_have_come_is_told(lab: Lab) -> None:
    view = show(play(lab, "smtp", "S: 220 ...\nC: DATA\nS: 503 ...\n-- client closes"))
    assert "1 refused" in words(view)
    assert "It could also have said:" in words(view)
    assert "354" in words(view)


@pytest.mark.parametrize("listener", ["submissions", "pop3s", "imaps"])
def test_what_was_under_tls_is_marked(lab: Lab, listener: str) -> None:
    view = show(play(lab, listener, "S: ... ready"))
    assert "inside TLS 1.3" in view.html
    assert "TLS 1.3 from the start" in view.html
    assert 'class="S tls"' in view.html


def test_where_tls_begins_is_told(lab: Lab) -> None:
    with smtplib.SMTP(*lab.smtp) as client:
        client.starttls(context=lab.tls)
    view = show(lab.sessions[-1])
    plain = sum(not line.tls for line in lab.sessions[-1].lines)
    assert f"TLS 1.3 from line {plain + 1}" in view.html
    assert "-- TLS from here on --" in str(view)


def test_passwords_are_masked_unless_asked_for(lab: Lab) -> None:
    session = play(
        lab,
        "pop3",
        """
        S: +OK ...
        C: USER ana@lab.example
        S: +OK ...
        C: PASS ana-lab-password
        S: +OK ...
        C: QUIT
        S: +OK ...
        """,
    )
    for view in (show(session), replay(session)):
        assert "ana-lab-password" not in view.html + view.text
        assert "••••" in view.html
        assert "••••" in view.text
    assert "ana-lab-password" in show(session, reveal=True).html


def test_how_a_session_ended_is_said(lab: Lab) -> None:
    view = show(play(lab, "smtp", "-- client closes"))
    assert "The client went away without a word." in view.html
    assert "-- the client went away without a word --" in view.text


def test_what_differs_between_machines_is_shown_but_not_in_the_normal_form(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = []
    for name in ("one.example", "two.example"):
        with smtplib.SMTP(*lab.smtp, local_hostname=name) as client:
            client.noop()
            client.ehlo()
        view = show(lab.sessions[-1])
        assert f"ehlo {name}" in view.html
        assert f"C: ehlo {name}" in view.text
        assert re.search(r'<time datetime="PT\d+\.\d{3}S">\d+ ms</time>', view.html)
        with monkeypatch.context() as stored:
            stored.setenv("LABSERVER_OUTPUT", "normal")
            views.append(show(lab.sessions[-1]))
    assert views[0] == views[1]
    assert "EHLO client.example" in views[0].html
    assert "<time" not in views[0].html


def test_each_line_has_its_number_where_that_is_wanted(lab: Lab) -> None:
    with smtplib.SMTP(*lab.smtp, local_hostname="x") as client:
        client.sendmail("a@b.example", ["ben@lab.example"], b"Subject: x\r\n\r\ny\r\n")
    session = lab.sessions[-1]
    for view in (show(session, numbers=True), replay(session, numbers=True)):
        inert(view)
        rows = [row for row in view.text.split("\n") if re.match(r" *\d+ [CS]:", row)]
        numbers = [int(row.split()[0]) for row in rows]
        assert numbers == [*range(1, len(session.lines) + 1)]
        shown = [int(n) for n in re.findall(r'<span class="number">(\d+)</span>', view.html)]
        assert shown == numbers
        for row, line in zip(rows, session.lines, strict=True):
            assert row.split(maxsplit=1)[1].startswith(
                f"{line.who}: {line.data.decode()[:9].strip()}"
            )
    assert "number" not in show(session).html.split("</style>")[1]


def test_doubled_dots_are_marked(lab: Lab) -> None:
    with smtplib.SMTP(*lab.smtp) as client:
        client.sendmail("a@b.example", ["ben@lab.example"], b"Subject: x\r\n\r\n.dot\r\n")
    assert "<mark>.</mark>.dot" in show(lab.sessions[-1]).html


def test_a_long_message_is_shown_in_part_and_says_so(lab: Lab) -> None:
    content = b"Subject: long\r\n\r\n" + b"word\r\n" * 100_000
    with smtplib.SMTP(*lab.smtp) as client:
        client.sendmail("a@b.example", ["ben@lab.example"], content)
    view = show(lab.sessions[-1])
    assert "more lines not shown" in view.html
    assert "600,017 octets" in view.html
    assert "The transcript keeps the first 65,536 octets." in view.html
    assert len(view.html) < 60_000


def test_a_replay_is_whole_without_anything_that_moves(lab: Lab) -> None:
    session = play(lab, "smtp", QUITS)
    view = replay(session)
    assert view.text == show(session).text
    assert words(view).replace("Play it line by line", "").split() == words(show(session)).split()
    assert inert(view).styles == [f"--n:{number}" for number in range(5)]


def long_session(lines: tuple[Line, ...]) -> Session:
    started = datetime(2026, 1, 1, tzinfo=UTC)
    return Session(1, "SMTP", "smtp", started, lines, (), 1.0, True)


@pytest.mark.long
def test_a_dialogue_of_ten_thousand_lines_is_shown_in_part_and_soon() -> None:
    command = Line(0, "C", b"NOOP\r\n", False, "command", 6)
    reply = Line(0, "S", b"250 2.0.0 OK\r\n", False, "reply", 14)
    session = long_session((reply, *(command, reply) * 10_000))
    view = show(session)
    half = long_session(session.lines[:10_001])
    assert steps(lambda: show(session)) < LINEAR * steps(lambda: show(half))
    assert "19,701 commands and replies in the middle aren't shown" in words(view)
    assert "19,701 commands and replies in the middle aren't shown" in view.text
    assert len(view.html) < 400_000


def test_a_transcript_of_four_megabytes_costs_no_more_than_its_lines() -> None:
    content = Line(0, "C", (b"x" * 78 + b"\r\n") * 819, False, "content", 65_520)
    reply = Line(0, "S", b"354 go on\r\n", False, "reply", 11)
    command = Line(0, "C", b"DATA\r\n", False, "command", 6)
    session = long_session((command, reply, content) * 64)
    assert sum(len(line.data) for line in session.lines) > 4_000_000
    show(session)
    half = long_session(session.lines[: len(session.lines) // 2])
    assert steps(lambda: show(session)) < LINEAR * steps(lambda: show(half))
