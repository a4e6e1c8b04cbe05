"""An exercise: checked by what happened, helped with hints, kept in the progress."""

from __future__ import annotations

from pathlib import Path

import pytest
from inert import Checker

from labserver import Lab, Refused, Said, Sent, check, hint, progress
from labserver.exercises import checks
from labserver.notebook.typed import converse

MAIL = "EHLO me.example\nMAIL FROM:<you@home.example>\nRCPT TO:<{}>\nDATA\nhi\n.\nQUIT\n"


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LABSERVER_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.setattr(checks, "_last", None)


def test_a_check_says_what_is_there_and_what_is_missing(lab: Lab) -> None:
    converse(lab, "smtp", MAIL.format("ben@lab.example"))
    verdict = check(lab, Sent(), Refused("RCPT"), title="One refused")
    assert not verdict.done
    assert str(verdict) == (
        "One refused: not yet\n"
        "  x A message went to ben@lab.example.\n"
        "  - You said RCPT once, and it was accepted.\n"
        "hint() helps."
    )
    converse(lab, "smtp", MAIL.format("nobody@lab.example"))
    verdict = check(lab, Sent(), Refused("RCPT"), title="One refused")
    assert verdict.done
    assert str(verdict).startswith("One refused: done\n")
    assert "hint" not in str(verdict)


def test_any_program_may_have_done_it(lab: Lab) -> None:
    import smtplib

    with smtplib.SMTP(*lab.smtp) as client:
        client.sendmail("you@home.example", ["ben@lab.example"], "hi")
    assert check(lab, Sent()).done


def test_sessions_from_before_need_not_count(lab: Lab) -> None:
    converse(lab, "smtp", MAIL.format("ben@lab.example"))
    assert not check(lab, Sent(), since=1).done
    converse(lab, "smtp", MAIL.format("ben@lab.example"))
    assert check(lab, Sent(), since=1).done


def test_without_a_title_the_conditions_name_the_exercise(lab: Lab) -> None:
    verdict = check(lab, Sent(recipients=2, refused=1), Said("NOOP"))
    assert verdict.title == "One message sent to two recipients, one refused; NOOP said"


@pytest.mark.parametrize("wanted", [(), (Sent,), ("two recipients",)])
def test_what_is_no_condition_is_refused(lab: Lab, wanted: tuple[object, ...]) -> None:
    with pytest.raises(ValueError, match="Say what is wanted"):
        check(lab, *wanted)  # type: ignore[arg-type]


def test_hints_come_one_by_one_and_no_more_than_three(lab: Lab) -> None:
    check(lab, Sent(recipients=2), title="Two")
    assert [len(hint().shown) for _ in range(4)] == [1, 2, 3, 3]
    told = str(hint())
    assert told.startswith("Hint 1 of 3: Look at SMTP's MAIL. ")
    assert "\nHint 2 of 3: It may come in the state Ready. It is written:\nMAIL FROM:<" in told
    assert "\nHint 3 of 3: These lines do it:\nMAIL FROM:<you@home.example>\nRCPT TO:" in told


def test_the_last_hint_s_lines_do_it(lab: Lab) -> None:
    check(lab, Sent(recipients=2, refused=1), title="Two")
    for _ in range(3):
        shown = hint().shown
    lines = shown[-1].partition("\n")[2]
    converse(lab, "smtp", f"EHLO me.example\n{lines}\nQUIT\n")
    assert check(lab, Sent(recipients=2, refused=1), title="Two").done


def test_a_hint_is_about_the_first_thing_that_is_missing(lab: Lab) -> None:
    check(lab, Sent(), Said("VRFY"), title="Both")
    assert hint().missing == "Nobody has spoken SMTP to the lab yet."
    converse(lab, "smtp", MAIL.format("ben@lab.example"))
    check(lab, Sent(), Said("VRFY"), title="Both")
    shown = hint()
    assert shown.missing == "VRFY wasn't said yet."
    assert len(shown.shown) == 1


def test_hints_already_shown_are_remembered(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    check(lab, Sent(), title="Two")
    hint()
    hint()
    monkeypatch.setattr(checks, "_last", None)  # as in a new kernel
    check(lab, Sent(), title="Two")
    assert len(hint().shown) == 3


def test_an_author_s_own_hints(lab: Lab) -> None:
    check(lab, Sent(), title="Own", hints=["Think of a letter.", "MAIL, RCPT, DATA."])
    assert str(hint()) == "Hint 1 of 2: Think of a letter."
    assert str(hint()).endswith("Hint 2 of 2: MAIL, RCPT, DATA.")


def test_a_hint_before_a_check_and_after_success(lab: Lab) -> None:
    assert str(hint()) == "Run the check first: a hint is about what it finds missing."
    converse(lab, "smtp", "NOOP\nQUIT")
    check(lab, Said("NOOP"))
    assert str(hint()) == "Nothing is missing here: this exercise is done."


def test_progress_knows_of_it(lab: Lab) -> None:
    check(lab, Said("NOOP"), title="No operation")
    hint()
    assert str(progress()) == ("0 of 1 exercise done\n  - No operation: not yet, 1 try, 1 hint")
    converse(lab, "smtp", "NOOP\nQUIT")
    check(lab, Said("NOOP"), title="No operation")
    # What was done once stays done.
    check(lab, Said("VRFY"), title="No operation")
    assert str(progress()) == ("1 of 1 exercise done\n  x No operation: done, 3 tries, 1 hint")


def test_pages_are_well_formed_and_inert(lab: Lab) -> None:
    title = "<script>alert(1)</script>"
    converse(lab, "smtp", MAIL.format("<img src=x>@lab.example"))
    verdict = check(lab, Refused("RCPT"), Said("VRFY"), title=title)
    for page in (verdict._repr_html_(), hint()._repr_html_(), progress()._repr_html_()):
        Checker(page)
        assert "<script" not in page
        assert "<img" not in page
    assert 'aria-label="missing"' in verdict._repr_html_()
