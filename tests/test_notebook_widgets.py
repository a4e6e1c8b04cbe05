"""The widgets without a browser: what their buttons do, on both networks, and what is stored."""

from __future__ import annotations

import gc
import json
import smtplib
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import ipywidgets
import pytest
from inert import HOSTILE, inert

from labserver import (
    Disconnect,
    Lab,
    LabError,
    Limits,
    Reply,
    compose,
    faults,
    mailbox_reader,
    monitor,
)
from labserver.faulting import FAULTS, switch
from labserver.network import Network
from labserver.network.inline import InlineNetwork
from labserver.network.loopback import LoopbackNetwork
from labserver.notebook.widgets import live, watching
from labserver.notebook.widgets.live import Live, steps
from labserver.notebook.widgets.reading import MOST, By, delete, look, mark, read
from labserver.notebook.widgets.sending import Done, Draft, send
from labserver.notebook.widgets.watching import Beat, Feed
from tests.normal_form import normal_output

ANA, BEN = "ana@lab.example", "ben@lab.example"
DRAFT = Draft(ANA, BEN, "Lunch", "At noon?")
BOTH = pytest.mark.parametrize("by", ["IMAP", "POP3"])


@pytest.fixture(autouse=True)
def _no_forms_left() -> Iterator[None]:
    """Each test closes what it opened."""
    yield
    while live._open:
        live._open[0].close()


def put(lab: Lab, message: bytes) -> None:
    with smtplib.SMTP(*lab.smtp, timeout=10) as client:
        client.sendmail("x@home.example", [BEN], message)


def said(form: Any) -> str:
    """The sentence that a form shows when it is done."""
    form.wait()
    return str(form._said.value)


def dialogue(form: Any) -> str:
    form.wait()
    return str(form._dialogue.value)


# -- sending


def test_a_message_goes_through_submission(lab: Lab) -> None:
    done = send(lab, DRAFT)
    assert done.well
    assert done.sentence == "Sent: the server has taken it for ben@lab.example."
    assert done.session is not None
    assert (done.session.listener, done.session.closed) == ("submission", True)
    assert done.session.tls
    (message,) = lab.inbox(BEN)
    assert message["Subject"] == "Lunch"
    assert message.email.get_content().strip() == "At noon?"
    assert message["Date"]


def test_a_stranger_hands_a_message_to_the_mail_exchanger(lab: Lab) -> None:
    done = send(lab, Draft("you@home.example", BEN, "Grüße"), "smtp")
    assert done.well
    assert done.session is not None
    assert done.session.listener == "smtp"
    assert lab.inbox(BEN)[0]["Subject"] == "Grüße"


@pytest.mark.process
def test_the_same_message_causes_the_same_dialogue_on_both_networks() -> None:
    told = set()
    for network in (LoopbackNetwork(), InlineNetwork()):
        with Lab(network=network) as lab:
            told.add(send(lab, DRAFT).session.texts("normal"))
        network.close()
    assert len(told) == 1


@pytest.mark.parametrize(
    ("draft", "via", "sentence"),
    [
        (Draft(ANA, " "), "smtp", "To has no address in it; write one, such as"),
        (Draft("x@y.example", BEN), "submission", "Only the lab's accounts may submit mail;"),
        (Draft(ANA, BEN, "a\r\nBcc: x@y.example"), "smtp", "Not sent: an address or the subject"),
    ],
)
def test_what_makes_no_sense_is_told_before_anything_is_said(
    lab: Lab, draft: Draft, via: Any, sentence: str
) -> None:
    done = send(lab, draft, via)
    assert done.sentence.startswith(sentence)
    assert not done.well
    assert done.session is None
    assert lab.sessions == ()


def test_a_refusal_is_one_sentence_and_its_dialogue(lab: Lab) -> None:
    done = send(lab, Draft(ANA, "z@elsewhere.example"), "smtp")
    assert done.sentence.startswith(
        "Not sent: z@elsewhere.example got 550 5.7.1 <z@elsewhere.example>: Relay"
    )
    assert done.session is not None
    assert "550 5.7.1" in str(done.session)


def test_who_was_refused_is_named_when_the_others_were_not(lab: Lab) -> None:
    done = send(lab, Draft(ANA, f"Ben <{BEN}>, z@elsewhere.example"))
    assert done.sentence.startswith("Sent, but not to all: z@elsewhere.example got 550 5.7.1")
    assert len(lab.inbox(BEN)) == 1


def test_a_wrong_password_is_told(lab: Lab) -> None:
    lab.accounts = lab.accounts | {ANA: "another one"}  # what the form believes
    done = send(lab, DRAFT)
    assert done.sentence.startswith("Not sent: the login got 535 5.7.8")


def test_a_closed_lab_is_told(lab: Lab) -> None:
    lab.close()
    assert send(lab, DRAFT).sentence.startswith("Not sent. ")
    assert not look(lab, BEN, "IMAP").done.well


# -- reading


@BOTH
def test_an_inbox_is_listed_and_read(lab: Lab, by: By) -> None:
    assert look(lab, BEN, by).done.sentence == "The inbox is empty."
    send(lab, Draft(ANA, BEN, "Grüße", "Hallo"))
    put(lab, b"Subject: two\r\n\r\n.\r\n..\r\n")
    listing = look(lab, BEN, by)
    assert listing.done.sentence == "2 messages."
    assert [(one.number, one.sender, one.subject) for one in listing.entries] == [
        (1, ANA, "Grüße"),
        (2, "(none)", "two"),
    ]
    sizes = [len(message.octets) for message in lab.inbox(BEN)]
    assert [one.octets for one in listing.entries] == sizes
    done, message = read(lab, BEN, by, listing.entries[1].key)
    assert done.well
    assert message == lab.inbox(BEN)[1]
    assert done.session is not None
    assert done.session.protocol == by
    assert "went away" not in str(done.session)


@BOTH
def test_only_the_latest_messages_are_listed(by: By) -> None:
    network = InlineNetwork()
    with Lab(network=network) as lab:
        for number in range(MOST + 3):
            put(lab, b"Subject: %d\r\n\r\n" % number)
        listing = look(lab, BEN, by)
    network.close()
    assert listing.done.sentence == f"{MOST + 3} messages, the latest {MOST} listed."
    assert [one.subject for one in listing.entries] == [str(n) for n in range(3, MOST + 3)]


def test_flags_are_set_and_taken_off(lab: Lab) -> None:
    put(lab, b"Subject: one\r\n\r\n")
    (entry,) = look(lab, BEN, "IMAP").entries
    assert mark(lab, BEN, entry.key, "\\Flagged", True).sentence == "\\Flagged is set."
    assert "\\Flagged" in look(lab, BEN, "IMAP").entries[0].flags
    assert "\\Flagged" in lab.inbox(BEN)[0].flags
    assert mark(lab, BEN, entry.key, "\\Flagged", False).well
    assert "\\Flagged" not in lab.inbox(BEN)[0].flags


@BOTH
def test_a_message_is_deleted_and_the_others_stay(lab: Lab, by: By) -> None:
    for subject in (b"one", b"two", b"three"):
        put(lab, b"Subject: %s\r\n\r\n" % subject)
    listing = look(lab, BEN, by)
    assert delete(lab, BEN, by, listing.entries[1].key).well
    assert [message["Subject"] for message in lab.inbox(BEN)] == ["one", "three"]
    # What a form then shows is what the server would say.
    without = listing.without(listing.entries[1].key)
    left = look(lab, BEN, by)
    assert [(one.number, one.subject) for one in without.entries] == [(1, "one"), (2, "three")]
    assert (without.total, [one.key for one in without.entries]) == (
        left.total,
        [one.key for one in left.entries],
    )
    gone = listing.entries[1].key
    for done in (delete(lab, BEN, by, gone), read(lab, BEN, by, gone)[0]):
        if not (done.well and by == "IMAP"):  # STORE of a UID that isn't there is no error
            assert done.sentence == "That message is gone; list the inbox again."


@BOTH
def test_an_account_that_is_not_there_is_told(lab: Lab, by: By) -> None:
    done = look(lab, "eve@lab.example", by).done
    assert done.sentence.startswith("This lab has no account eve@lab.example; it has ana@")


@BOTH
def test_a_refused_login_is_one_sentence(lab: Lab, by: By) -> None:
    lab.accounts = lab.accounts | {BEN: "another one"}
    listing = look(lab, BEN, by)
    assert listing.done.sentence.startswith("The server refused: ")
    assert listing.done.session is not None
    assert listing.entries == ()


@pytest.mark.parametrize(("by", "at"), [("IMAP", "FETCH"), ("POP3", "LIST")])
def test_a_line_that_drops_is_one_sentence(lab: Lab, by: By, at: str) -> None:
    put(lab, b"Subject: one\r\n\r\n")
    lab.rules = (Disconnect(at, protocol=by),)
    done = look(lab, BEN, by).done
    assert done.sentence == "The connection broke off before the server had answered."
    assert done.session is not None
    assert done.session.ending == "the server closed the connection"


# -- faults


def test_a_refusal_that_lasts_twice_lets_the_third_try_through(lab: Lab) -> None:
    switch(lab, FAULTS[0], True)
    sentences = [send(lab, DRAFT).sentence for _ in range(3)]
    assert all("got 451 4.7.1" in sentence for sentence in sentences[:2])
    assert sentences[2].startswith("Sent")
    switch(lab, FAULTS[0], True)
    assert "got 451 4.7.1" in send(lab, DRAFT).sentence


def test_the_line_drops_inside_the_message(lab: Lab) -> None:
    switch(lab, FAULTS[1], True)
    done = send(lab, DRAFT)
    assert done.sentence == "Not sent. The connection broke off before the server had answered."
    assert len(lab.inbox(BEN)) == 0
    switch(lab, FAULTS[1], False)
    assert send(lab, DRAFT).well


def test_a_server_that_waits_takes_the_mail_late() -> None:
    network = InlineNetwork()
    with Lab(network=network) as lab:
        switch(lab, FAULTS[2], True)
        done = send(lab, DRAFT)
    network.close()
    assert done.well
    assert done.session is not None
    assert 10 <= done.session.duration < 11


def test_a_reached_quota_refuses_each_message(lab: Lab) -> None:
    switch(lab, FAULTS[3], True)
    sentence = "Not sent: the server said 550 5.4.5 Daily user sending limit exceeded."
    assert [send(lab, DRAFT).sentence for _ in range(2)] == [sentence] * 2


def test_the_lab_keeps_its_other_rules(lab: Lab) -> None:
    lab.rules = own = (Reply("VRFY", "550 5.7.1 No"),)
    for fault in FAULTS:
        switch(lab, fault, True)
    assert lab.rules == tuple(fault.rule for fault in reversed(FAULTS)) + own
    for fault in FAULTS:
        switch(lab, fault, False)
    assert lab.rules == own


# -- watching


def watch(lab: Lab, feed: Feed) -> None:
    """Have it hear of all that happens in that lab."""
    lab.network.run(lambda: lab.journal.listen(feed.hear))


def see(lab: Lab, feed: Feed) -> None:
    lab.network.settle()
    lab.network.run(lambda: feed.look(lab.journal))


def test_a_feed_keeps_the_latest_and_counts_all(lab: Lab) -> None:
    feed = Feed(most=3)
    assert feed.told() == "No session yet."
    watch(lab, feed)
    for place in (lab.smtp, lab.smtp, lab.imap, lab.pop3):
        lab.network.connect(place).close()
    see(lab, feed)
    assert [session.number for session in feed.latest] == [4, 3, 2]
    assert feed.told() == "1 IMAP, 1 POP3, 2 SMTP; the latest 3 are listed."
    feed.clear()
    assert feed.latest == ()


def test_a_feed_keeps_what_is_open_however_much_ends_meanwhile(lab: Lab) -> None:
    feed = Feed(most=2)
    watch(lab, feed)
    talker = smtplib.SMTP(*lab.smtp)
    for _ in range(3):
        lab.network.connect(lab.pop3).close()
    see(lab, feed)
    assert [(one.number, one.closed) for one in feed.latest] == [(4, True), (3, True), (1, False)]
    assert feed.told() == "3 POP3, 1 SMTP; the latest 2 are listed; 1 is open."
    feed.clear()
    assert [session.number for session in feed.latest] == [1]
    assert feed.told() == "1 SMTP; 1 is open."
    talker.quit()
    see(lab, feed)
    assert [session.closed for session in feed.latest] == [True]
    assert feed.told() == "1 SMTP."


def test_a_feed_lists_nothing_that_the_lab_has_dropped(network: Network) -> None:
    with Lab(network=network, limits=Limits(sessions=1)) as lab:
        feed = Feed()
        watch(lab, feed)
        for _ in range(2):
            lab.network.connect(lab.smtp).close()
        see(lab, feed)
        assert [session.number for session in feed.latest] == [2]
        assert feed.told() == "2 SMTP; the latest 1 is listed."
        with smtplib.SMTP(*lab.smtp):
            see(lab, feed)
            assert feed.told() == "3 SMTP; none that has ended is kept; 1 is open."


def test_a_feed_is_not_told_of_each_line_but_of_the_first_that_nobody_has_seen(lab: Lab) -> None:
    feed, told = Feed(), []
    watch(lab, feed)
    lab.journal.listen(lambda recorder: told.append(recorder.ended))
    with smtplib.SMTP(*lab.smtp) as talker:
        for _ in range(3):
            talker.noop()
        lab.network.settle()
        assert told == [False]
        see(lab, feed)
        assert len(feed.latest[0].lines) == 7
        for _ in range(3):
            talker.noop()
        lab.network.settle()
        assert told == [False] * 2
    see(lab, feed)
    assert told == [False, False, True]


def test_a_row_says_how_far_a_long_session_was_read(lab: Lab) -> None:
    sock = lab.network.connect(lab.smtp)
    for said in (b"RCPT\r\n", b"NOOP\r\n" * 1_500, b"RCPT\r\nQUIT\r\n"):
        sock.sendall(said)
        lab.network.settle()
    while sock.recv(65536):
        pass
    sock.close()
    shown = watching.row(lab.sessions[-1])
    assert shown.text.startswith("✕ 1. SMTP on smtp: 1 refused in its first 2,000 lines, ")


def test_a_beat_does_it_once_for_many_times_that_it_is_due() -> None:
    done = threading.Semaphore(0)
    beat = Beat(done.release, threads=True)
    for _ in range(1000):
        beat.due()
    assert done.acquire(timeout=10)
    assert not done.acquire(blocking=False)
    assert beat._waiting is None  # nothing wakes up when nothing happens
    beat.due()
    assert done.acquire(timeout=10)
    beat.stop()
    beat.due()
    assert beat._waiting is None


def test_what_takes_long_is_done_less_often_and_once_more_for_what_came_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, done = 0.0, []

    def work() -> None:
        nonlocal now
        done.append(now)
        now += 1.0
        beat.due()

    monkeypatch.setattr(watching, "time", SimpleNamespace(monotonic=lambda: now))
    beat = Beat(work, threads=False)
    for moment in (0.0, 2.0, 4.9, 5.0):
        now = moment
        beat.due()
    assert done == [0.0, 5.0]


def test_without_threads_a_beat_is_due_at_once_and_then_when_the_loop_comes_to_it() -> None:
    import asyncio

    done: list[float] = []

    async def cell() -> None:
        loop = asyncio.get_running_loop()
        over = asyncio.Event()

        def work() -> None:
            done.append(loop.time())
            if len(done) == 2:
                over.set()

        beat = Beat(work, threads=False)
        for _ in range(1000):
            beat.due()
        assert len(done) == 1
        await asyncio.wait_for(over.wait(), 10)
        beat.stop()

    asyncio.run(cell())
    assert done[1] - done[0] >= 0.2


# -- the forms


def test_compose_sends_and_shows_the_dialogue(lab: Lab) -> None:
    form = compose(lab, subject="Lunch", body="At noon?")
    assert (form.sender.value, form.to.value) == (ANA, BEN)
    form.button.click()
    assert "Sent: the server has taken it for ben@lab.example." in said(form)
    assert "mail FROM:" in dialogue(form)
    form.to.value = '"<script>"@elsewhere.example'
    form.button.click()
    assert "Not sent" in said(form)
    assert "<script>" not in said(form) + dialogue(form)
    assert "&lt;script&gt;" in dialogue(form)
    assert len(lab.inbox(BEN)) == 1


@BOTH
def test_the_reader_reads_and_deletes(lab: Lab, by: By) -> None:
    put(lab, HOSTILE)
    form = mailbox_reader(lab, by=by)
    assert len(form.list.options) == 1
    sessions = len(lab.sessions)
    form.button["Read"].click()
    assert "Fetched:" in said(form)
    assert "tracker.example" in form._message.value
    assert "<script>alert(1)" not in form._message.value + dialogue(form)
    assert len(lab.sessions) == sessions + 1
    form.button["Delete"].click()
    assert "Deleted" in said(form)
    assert form.list.options == ()
    assert len(lab.inbox(BEN)) == 0
    form.button["Delete"].click()
    assert "Choose a message of the list first." in said(form)


def test_the_reader_marks_over_imap_only(lab: Lab) -> None:
    put(lab, b"Subject: one\r\n\r\n")
    form = mailbox_reader(lab)
    form.button["Flag"].click()
    assert "\\Flagged is set." in said(form)
    assert form.list.options[0][0] == "1. one, from (none) (flagged)"
    form.button["Flag"].click()
    assert "\\Flagged is taken off." in said(form)
    form.pop3.value = True
    assert "1 message." in said(form)
    assert form.button["Flag"].disabled
    form.pop3.value = False
    form.wait()
    assert not form.button["Flag"].disabled


def test_the_monitor_shows_what_happens(lab: Lab) -> None:
    form = monitor(lab)
    put(lab, b"Subject: one\r\n\r\n")
    refreshed = form.refresh
    assert len(lab.sessions) == 1
    refreshed()
    assert form.list.options == (("✓ 1. SMTP on smtp: 6 round trips", 1),)
    form.list.value = 1
    assert "mail FROM:" in form._dialogue.value
    form.hold.value = True
    put(lab, b"Subject: two\r\n\r\n")
    assert len(lab.sessions) == 2
    refreshed()
    assert len(form.list.options) == 1
    form.hold.value = False
    assert [number for _, number in form.list.options] == [2, 1]
    assert form.list.value == 1
    form.clear()
    assert form.list.options == ()


def test_an_open_session_is_listed_and_grows_until_it_ends(lab: Lab) -> None:
    form = monitor(lab)
    assert "No session yet." in form.count.value
    talker = smtplib.SMTP(*lab.smtp)
    form.refresh()
    assert form.list.options == (("● 1. SMTP on smtp: open, 0 round trips", 1),)
    assert "1 SMTP; 1 is open." in form.count.value
    form.list.value = 1
    assert "Still open." in form._dialogue.value
    talker.noop()
    form.refresh()
    assert form.list.options[0][0] == "● 1. SMTP on smtp: open, 1 round trip"
    assert "noop" in form._dialogue.value
    form.hold.value = True
    talker.rcpt("x")
    form.refresh()
    assert "RCPT" not in form._dialogue.value
    form.hold.value = False
    assert form.list.options[0][0] == "● 1. SMTP on smtp: open, 1 refused, 2 round trips"
    assert "RCPT" in form._dialogue.value
    assert form.list.value == 1
    assert "1. SMTP on smtp: open, 1 refused, 2 round trips" in str(form)
    form.clear()
    assert len(form.list.options) == 1
    assert "RCPT" in form._dialogue.value
    talker.quit()
    lab.network.settle()
    form.refresh()
    assert form.list.options[0][0] == "✕ 1. SMTP on smtp: 1 refused, 3 round trips"
    assert "Still open." not in form._dialogue.value
    assert form.list.value == 1


def test_nothing_is_drawn_when_nothing_has_happened(lab: Lab) -> None:
    form = monitor(lab)
    with smtplib.SMTP(*lab.smtp) as talker:
        form.refresh()
        form.list.value = 1
        changes: list[Any] = []
        for part in (form.list, form.count, form._dialogue):
            part.observe(changes.append)
        form.refresh()
        assert changes == []
        talker.noop()
        form.refresh()
        assert {change["owner"] for change in changes} == {form.list, form._dialogue}


def test_a_session_that_was_open_when_the_lab_was_closed_has_ended(network: Network) -> None:
    with Lab(network=network) as lab:
        form = monitor(lab)
        talker = smtplib.SMTP(*lab.smtp)
        form.refresh()
        assert "open" in form.list.options[0][0]
    form.refresh()
    ended = "! 1. SMTP on smtp: the server closed the connection, 0 round trips"
    assert form.list.options == ((ended, 1),)
    assert "The lab is closed." in form.count.value
    talker.close()


def test_a_monitor_knows_what_was_there_before_it(lab: Lab) -> None:
    put(lab, b"Subject: one\r\n\r\n")
    with smtplib.SMTP(*lab.smtp):
        form = monitor(lab)
        assert [text[0] for text, _ in form.list.options] == ["●", "✓"]
        assert "2 SMTP; 1 is open." in form.count.value
    assert "2 SMTP." in str(form)


def test_a_list_is_gone_through_by_buttons(lab: Lab) -> None:
    choices = ipywidgets.Select(options=["a", "b", "c"], index=None)
    up, down = steps(choices, "Up", "Down")
    for button, value in ((down, "a"), (down, "b"), (up, "a"), (up, "a"), (down, "b")):
        button.click()
        assert choices.value == value
    choices.options = []
    down.click()
    assert choices.index is None
    for part in (choices, up, down):
        part.close()


def test_an_account_that_is_typed_wrong_is_told(lab: Lab) -> None:
    form = mailbox_reader(lab)
    form.address.value = "eve@lab.example"
    assert "This lab has no account eve@lab.example; it has" in said(form)
    form.address.value = ANA
    assert "The inbox is empty." in said(form)


@pytest.mark.process
def test_the_monitor_hears_without_being_asked() -> None:
    network = LoopbackNetwork()
    with Lab(network=network) as lab:
        form, seen = monitor(lab), SimpleQueue[Any]()
        form.list.observe(lambda change: seen.put(change["new"][0][0]), "options")
        with smtplib.SMTP(*lab.smtp):
            assert seen.get(timeout=10).startswith("● 1. SMTP on smtp: open, ")
        while seen.get(timeout=10) != "✓ 1. SMTP on smtp: 1 round trip":
            pass
    network.close()


@pytest.mark.long
def test_ten_thousand_sessions_leave_the_monitor_small() -> None:
    network = InlineNetwork()
    with Lab(network=network) as lab:
        form = monitor(lab)
        for _ in range(10_000):
            lab.network.connect(lab.smtp).close()
        form.refresh()
        assert "10,000 SMTP; the latest 100 are listed." in form.count.value
        assert len(form.list.options) == len(form._rows) == 100
        assert form.list.options[0][1] == 10_000
        assert len(json.dumps(form.list.get_state())) < 20_000
    network.close()


def test_a_closed_monitor_hears_no_more(lab: Lab) -> None:
    form = monitor(lab)
    form.close()
    put(lab, b"Subject: one\r\n\r\n")
    assert form.feed.latest == ()
    assert lab._journal.heard == []


def test_switches_turn_rules_on_and_off(lab: Lab) -> None:
    form = faults(lab)
    for fault in FAULTS:
        form.switches[fault.name].value = True
        assert f"{fault.name}: on." in said(form)
    assert lab.rules == tuple(fault.rule for fault in reversed(FAULTS))
    assert "Quota reached (on)" in str(form)
    assert all(box.value for box in faults(lab).switches.values())
    form.off_button.click()
    assert lab.rules == ()


FORMS = (compose, mailbox_reader, monitor, faults)
EACH = pytest.mark.parametrize("make", FORMS, ids=lambda make: make.__name__)


@EACH
def test_what_is_stored_needs_no_kernel(lab: Lab, make: Any) -> None:
    put(lab, HOSTILE)
    form = make(lab)
    shown = form._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in shown
    stored = normal_output({"data": shown})["data"]
    assert set(stored) == {"text/plain", "text/html"}
    page = inert(form.view())
    assert not page.links
    assert form.view().html == stored["text/html"]
    assert form.title in stored["text/html"]
    assert str(form) == stored["text/plain"]
    assert "<script>" not in stored["text/html"]


@EACH
def test_without_ipywidgets_the_plain_form_is_there(
    lab: Lab, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    form = make(lab)
    assert set(form._repr_mimebundle_()) == {"text/plain", "text/html"}


@EACH
def test_closing_a_form_forgets_all_its_parts(lab: Lab, make: Any) -> None:
    before = set(ipywidgets.widgets.widget._instances)
    form = make(lab)
    assert set(ipywidgets.widgets.widget._instances) > before
    form.close()
    form.close()
    assert set(ipywidgets.widgets.widget._instances) == before
    assert set(form._repr_mimebundle_()) == {"text/plain", "text/html"}


@pytest.mark.process
@EACH
def test_a_form_does_not_keep_its_lab(make: Any) -> None:
    lab = Lab()
    form = make(lab)
    gone = weakref.ref(lab)
    del lab
    gc.collect()
    assert gone() is None
    assert form.lab is None
    assert form.view().text


@pytest.mark.process
@pytest.mark.parametrize(
    ("make", "click"),
    [
        (compose, lambda form: form.send()),
        (mailbox_reader, lambda form: form.look()),
        (faults, lambda form: form.switch(FAULTS[0], True)),
    ],
)
def test_a_click_on_a_form_whose_lab_is_closed_is_told(make: Any, click: Any) -> None:
    with Lab() as lab:
        form = make(lab)
    click(form)
    assert "This lab is closed; make a new one with Lab(), then run this cell again." in said(form)


@EACH
def test_a_cell_that_is_run_again_closes_what_it_made_before(
    lab: Lab, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ("cell 1", "run 1")
    monkeypatch.setattr(live, "_where", lambda: where)
    first, second = make(lab), make(lab)
    where = ("cell 2", "run 2")
    elsewhere = make(lab)
    assert [form.closed for form in (first, second)] == [False, False]
    where = ("cell 1", "run 3")
    again = make(lab)
    assert first.closed
    assert second.closed
    assert [form.closed for form in (elsewhere, again)] == [False, False]


def test_where_no_cell_is_known_the_oldest_form_makes_room(lab: Lab) -> None:
    forms: list[Live] = [faults(lab) for _ in range(live._MOST + 2)]
    assert [form.closed for form in forms] == [True] * 2 + [False] * live._MOST


@pytest.mark.process
def test_a_second_click_waits_for_the_first() -> None:
    network = LoopbackNetwork()
    with Lab(network=network) as lab:
        form, go = compose(lab), threading.Event()

        def work(_: Lab) -> Done:
            go.wait(10)
            return Done("First.", True)

        form.act(work)
        form.button.click()
        assert "done yet; wait for the server" in form._said.value
        go.set()
        assert "First." in said(form)
        assert lab.sessions == ()
    network.close()


def test_no_password_is_kept_in_any_part(lab: Lab) -> None:
    forms = [make(lab) for make in FORMS]
    forms[0].send()
    forms[0].wait()
    forms[1].look()
    forms[1].wait()
    forms[2].refresh()
    forms[2].list.index = 0
    parts = ipywidgets.widgets.widget._instances.values()
    kept = repr([part.get_state() for part in parts])
    kept += repr([form._repr_mimebundle_() for form in forms])
    assert "lab-password" not in kept
    assert "AGFuYUBsYWIuZXhhbXBsZQ" not in kept  # what AUTH PLAIN makes of it
    assert "•••" in kept


def test_what_a_form_cannot_be_is_told_in_a_sentence(lab: Lab) -> None:
    with pytest.raises(ValueError, match="through submission or smtp, not through imap"):
        compose(lab, via="imap")  # type: ignore[arg-type]
    with pytest.raises(LabError, match=r"no account eve@lab\.example; it has"):
        mailbox_reader(lab, "eve@lab.example")
    with pytest.raises(ValueError, match="over IMAP or POP3, not over SMTP"):
        mailbox_reader(lab, by="SMTP")  # type: ignore[arg-type]


@pytest.mark.process
def test_ipywidgets_is_imported_only_when_a_form_is_made() -> None:
    code = (
        "import sys, labserver; labserver.compose, labserver.monitor, labserver.faults\n"
        "labserver.mailbox_reader\n"
        "assert not {'ipywidgets', 'IPython', 'traitlets'} & set(sys.modules)"
    )
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)


def test_a_lab_without_tls_takes_mail_as_an_exchanger(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    network.can = replace(network.can, tls=False)
    with Lab(network=network) as lab:
        form = compose(lab)
        assert (form.login.value, form.login.disabled) == (False, True)
        form.send()
        assert "Sent" in said(form)
        for by in ("IMAP", "POP3"):
            assert look(lab, BEN, by).done.sentence == "1 message."
