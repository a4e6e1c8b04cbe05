"""Where the time and the octets of sessions went."""

from __future__ import annotations

import re
import smtplib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from dialogue import play
from inert import HOSTILE, inert, words

from labserver import Lab, Record, Session, timeline
from labserver.network.inline import InlineNetwork
from labserver.network.loopback import LoopbackNetwork
from labserver.views.timeline import _ticks
from tests.steps import LINEAR, growth


def mail(lab: Lab, *, tls: bool = False) -> Session:
    with smtplib.SMTP(*lab.smtp, local_hostname="client.example") as client:
        if tls:
            client.starttls(context=lab.tls)
        client.sendmail("a@b.example", ["ben@lab.example"], HOSTILE)
    return lab.sessions[-1]


@pytest.fixture
def real() -> Iterator[Lab]:
    """A lab in which time passes."""
    network = LoopbackNetwork()
    with Lab(network=network) as lab:
        yield lab
    network.close()


def test_the_text_has_times_but_not_in_normal_form(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABSERVER_OUTPUT", "normal")
    plain, tls = mail(lab), mail(lab, tls=True)
    replies = [sum(line.octets for line in s.lines if line.who == "S") for s in (plain, tls)]
    assert str(timeline(plain, tls)).split("\n") == [
        "Where the time and the octets went",
        "                     A: SMTP on smtp   B: SMTP on smtp",
        "round trips                        6                 8",
        "TLS                             none           TLS 1.3",
        # EHLO 21, MAIL 34, RCPT 27, DATA 6, the dot 3, QUIT 6; with TLS STARTTLS 10, EHLO 21
        "octets of commands                97               128",
        f"octets of replies                {replies[0]}               {replies[1]}",
        f"octets of messages               {len(HOSTILE)}               {len(HOSTILE)}",
    ]
    normal = str(timeline(plain, tls))
    monkeypatch.delenv("LABSERVER_OUTPUT")
    told = timeline(plain, tls)
    cells = [re.split(r" {2,}", row) for row in told.text.split("\n")]
    assert cells[:-4] == [re.split(r" {2,}", row) for row in normal.split("\n")]
    cells = cells[-4:]
    assert [name for name, *_ in cells] == [
        "octets that TLS adds",
        "TLS handshake",
        "waiting for the client",
        "waiting for the server",
    ]
    for _, *numbers in cells:
        for number in numbers:
            assert number in words(told)


@pytest.mark.process
def test_the_numbers_add_up_to_what_crossed_the_wire(real: Lab) -> None:
    session = mail(real, tls=True)
    view = timeline(session)
    inert(view)
    cells = re.findall(r'<th scope="row">octets[^<]*</th><td>([\d,]+)', view.html)
    assert sum(int(cell.replace(",", "")) for cell in cells) == session.octets()
    times = re.findall(r"<td><time [^>]+>([\d,.]+) ms</time>", view.html)
    last = session.records[-1].at * 1000
    assert sum(float(cell.replace(",", "")) for cell in times) == pytest.approx(last, abs=0.2)


@pytest.mark.process
def test_the_handshake_takes_its_own_time(real: Lab) -> None:
    def milliseconds(session: Session) -> float:
        found = re.search(r"TLS handshake</th><td><time [^>]+>([\d.]+) ms", timeline(session).html)
        assert found
        return float(found[1])

    assert milliseconds(mail(real)) == 0
    assert milliseconds(mail(real, tls=True)) > 0


@pytest.mark.process
def test_drawings_are_inert_and_hold_no_more_than_bars_rules_and_text(real: Lab) -> None:
    view = timeline(mail(real), mail(real, tls=True))
    checked = inert(view)
    assert {"svg", "rect", "line", "text", "title", "desc"} <= checked.elements
    assert not checked.elements & {"g", "use", "defs", "path"}
    assert view.html.count("<svg") == 2
    assert view.html.count('class="bar') > 10
    for word in ("commands", "replies", "messages", "client", "server"):
        assert f">{word}</text>" in view.html


def test_every_session_is_named_in_the_drawings(lab: Lab) -> None:
    sessions = [play(lab, name, "S: ...") for name in ("smtp", "pop3s", "imap")]
    view = timeline(*sessions)
    inert(view)
    for name in ("A: SMTP on smtp", "B: POP3 on pop3s", "C: IMAP on imap"):
        assert words(view).count(name) in (2, 3)  # twice where no time passes


def test_where_no_time_passes_it_is_said() -> None:
    with closing(InlineNetwork()) as network, Lab(network=network) as lab:
        view = timeline(play(lab, "smtp", "S: ..."))
    assert "No time passed that could be drawn." in words(view)
    assert view.html.count("<svg") == 1


def test_a_session_without_a_word_is_measured(lab: Lab) -> None:
    inert(timeline(play(lab, "smtp", "-- client closes")))
    session = play(lab, "smtp", "S: ...")
    inert(timeline(replace(session, lines=(), records=())))


def test_none_or_too_many_sessions_are_refused_in_a_sentence(lab: Lab) -> None:
    session = play(lab, "smtp", "S: ...")
    for sessions in ([], [session] * 7):
        with pytest.raises(ValueError, match=r"takes 1 to 6 sessions, not \d; .*\."):
            timeline(*sessions)
    with pytest.raises(TypeError, match=r"takes sessions of a lab"):
        timeline(lab.sessions)  # type: ignore[arg-type]


def test_twenty_thousand_records_are_drawn_soon(lab: Lab) -> None:
    session = play(lab, "smtp", "S: ...")
    records = tuple(Record(n / 100, "CS"[n % 2], "plain", 9, b"x" * 9) for n in range(20_000))  # type: ignore[arg-type]
    view = timeline(replace(session, records=records))

    def draw(count: int) -> None:
        timeline(replace(session, records=records[:count]))

    assert growth(draw, 10_000) < LINEAR
    assert len(view.html) < 60_000


WITHOUT = """
import sys
sys.modules["matplotlib"] = None
from labserver import Lab, timeline
import smtplib
with Lab() as lab:
    with smtplib.SMTP(*lab.smtp) as client:
        client.noop()
    print(timeline(lab.sessions[-1]).html)
"""


@pytest.mark.process
def test_bars_are_drawn_without_matplotlib() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "octets of commands" in done.stdout
    assert done.stdout.count("<svg") == 2
    assert done.stdout.count('<rect class="bar') >= 4


@pytest.mark.parametrize("longest", [0.0123, 1, 3, 3.99, 4, 7, 99.9, 100, 101, 12_345_678])
def test_the_scale_has_round_numbers_as_far_as_the_longest_bar(longest: float) -> None:
    ticks = _ticks(longest)
    assert ticks[0] == 0
    assert 3 <= len(ticks) <= 5
    assert longest / 2 < ticks[-1] <= longest
    assert all(len(f"{tick:e}".partition("e")[0].rstrip("0.")) <= 3 for tick in ticks)
