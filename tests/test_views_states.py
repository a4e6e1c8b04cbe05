"""A session's way through the states."""

from __future__ import annotations

import imaplib
import re
import smtplib
from dataclasses import replace

import pytest
from dialogue import play
from inert import HOSTILE, inert, words

from labserver import Lab, states
from labserver.catalog import PROTOCOLS, load, path
from labserver.transcript import ProtocolName
from tests.steps import LINEAR, growth

REFUSED = """
    S: 220 ...
    C: HELO client.example
    S: 250 ...
    C: NOOP
    S: 250 ...
    C: MAIL FROM:<a@b.example>
    S: 250 ...
    C: RCPT TO:<nobody@lab.example>
    S: 550 ...
    C: RCPT TO:<ana@lab.example>
    S: 250 ...
    C: QUIT
    S: 221 ...
    """


def test_each_step_has_its_number_and_what_it_led_to(lab: Lab) -> None:
    view = states(play(lab, "smtp", REFUSED))
    inert(view)
    assert str(view).split("\n") == [
        "SMTP on smtp, through the states: 7 steps, 6 of 9 states",
        "1  greeting, answered 220: Connected → Greeted",
        "2  HELO, answered 250: Greeted → Ready",
        "3  NOOP, answered 250: stays in Ready",
        "4  MAIL, answered 250: Ready → Mail",
        "5  RCPT, answered 550: stays in Mail",
        "6  RCPT, answered 250: Mail → Recipients",
        "7  QUIT, answered 221: Recipients → Closed",
    ]
    assert "RCPT 550 stays here" in words(view)
    assert "here it ended" in words(view)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_state_and_every_way_of_the_table_is_drawn(lab: Lab, protocol: ProtocolName) -> None:
    session = play(lab, protocol.lower(), "-- client closes")
    view = states(session)
    inert(view)
    catalog = load(protocol)
    boxes = re.findall(
        r'<g class="place[^"]*"><title>[^<]*</title><rect[^>]*/><text[^>]*>([^<]*)', view.html
    )
    assert boxes == list(catalog.states)
    leading_on = {(t.state, t.to) for t in catalog.transitions if t.state != t.to}
    assert len(re.findall(r'<path class="(?:way|taken)"', view.html)) == len(leading_on)
    for transition in catalog.transitions:
        if transition.command != "*":
            assert transition.command in words(view)


def test_the_numbers_drawn_are_those_of_all_steps(lab: Lab) -> None:
    client = imaplib.IMAP4(*lab.imap)
    client.login("ana@lab.example", lab.accounts["ana@lab.example"])
    client.select()
    client.noop()
    client.close()
    client.logout()
    session = lab.sessions[-1]
    drawn = re.findall(r'<text class="n"[^>]*>([^<]*)', states(session).html)
    assert sorted(map(int, drawn)) == list(range(1, len(path(session)) + 1))


def test_what_is_taken_often_is_written_as_ranges(lab: Lab) -> None:
    with smtplib.SMTP(*lab.smtp) as client:
        for number in range(9):
            client.sendmail("a@b.example", ["ben@lab.example"], f"Subject: {number}\r\n\r\n")
        for _ in range(5):
            client.noop()
    view = states(lab.sessions[-1])
    assert "39–43  NOOP, answered 250: stays in Ready" in str(view)
    assert "3, 7, 11, 15 … 35" in words(view)


def test_a_hostile_session_is_inert_and_told(lab: Lab) -> None:
    with smtplib.SMTP(*lab.smtp, local_hostname="<script>") as client:
        client.docmd("<svg onload=alert(1)>")
        client.sendmail("eve@evil.example", ["ben@lab.example"], HOSTILE)
    view = states(lab.sessions[-1])
    inert(view)
    assert "what is no command, answered 500" in str(view)


def test_rails_that_share_a_track_do_not_overlap(lab: Lab) -> None:
    for protocol in PROTOCOLS:
        view = states(play(lab, protocol.lower(), "-- client closes"))
        spans: dict[tuple[str, str], list[float]] = {}
        for start, track, end in re.findall(
            r'd="M[\d.]+ ([\d.]+)H[\d.]+Q([\d.]+) [^"]*?([\d.]+)H[\d.]+"', view.html
        ):
            spans.setdefault((track, end), []).extend((float(start), float(end)))
        assert spans
        for (track, one), some in spans.items():
            for (other_track, other), more in spans.items():
                if track == other_track and one != other:
                    assert max(some) < min(more) or max(more) < min(some)


def test_a_long_session_is_told_in_part_and_soon(lab: Lab) -> None:
    session = play(lab, "smtp", "S: ...\nC: NOOP\nS: ...\nC: XXXX\nS: ...")
    long = replace(session, lines=(session.lines[0], *session.lines[1:] * 2_500))
    view = states(long)
    assert growth(lambda count: states(replace(long, lines=long.lines[:count])), 5_000) < LINEAR
    assert "more in the middle" in view.text
    assert len(view.html) < 60_000
