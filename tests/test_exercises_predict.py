"""A prediction: asked before, held against what happened after."""

from __future__ import annotations

from pathlib import Path

import pytest
from inert import Checker

from labserver import Lab, predict, progress
from labserver.exercises.predict import Prediction
from labserver.notebook.typed import Typed, converse

QUESTION = "What will the server say to RCPT?"
NOBODY = "EHLO me.example\nMAIL FROM:<you@home.example>\nRCPT TO:<nobody@lab.example>\nQUIT\n"


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LABSERVER_PROGRESS", str(tmp_path / "progress.json"))


@pytest.fixture
def refused(lab: Lab) -> Typed:
    return converse(lab, "smtp", NOBODY)


def about_rcpt(answer: str) -> Prediction:
    return predict(QUESTION, "250", "550", "354", about="rcpt", answer=answer)


def test_a_question_shows_its_options_and_how_to_answer() -> None:
    assert str(about_rcpt("")) == (
        f"{QUESTION}\n  ( ) 250\n  ( ) 550\n  ( ) 354\n"
        "Your answer is missing: write it between the quotes of answer, and run the cell."
    )
    assert str(about_rcpt("550")).endswith("Your answer: 550")
    assert str(predict("How many?")).startswith("How many?\nYour answer is missing")


def test_a_right_answer_is_explained(refused: Typed) -> None:
    revealed = about_rcpt("550").reveal(refused)
    assert revealed.right
    assert str(revealed) == (
        f"{QUESTION}\nYou said 550; it was 550: right.\n"
        "550 means: This recipient only; the others stay. The mailbox isn't there, "
        "or you aren't allowed to send to it."
    )


def test_a_wrong_answer_is_told_what_it_would_have_meant(refused: Typed) -> None:
    revealed = about_rcpt("250").reveal(refused.session)
    assert not revealed.right
    assert "You said 250; it was 550: not so." in str(revealed)
    assert str(revealed).endswith("250 would have meant: This recipient is accepted.")


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("550", True),
        ("550 5.1.1 No such mailbox", True),
        ("5xx", True),
        ("5yz", True),
        ("4xx", False),
        ("refused", True),
        ("Refused.", True),
        ("no", True),
        ("accepted", False),
        ("done", False),
        ("551", False),
        ("55", False),
        ("5", False),
        ("x", False),
    ],
)
def test_a_reply_may_be_given_by_code_family_or_outcome(
    refused: Typed, answer: str, right: bool
) -> None:
    assert about_rcpt(answer).reveal(refused).right is right


@pytest.mark.parametrize(
    ("answer", "right"), [("-ERR", True), ("-err no", True), ("+OK", False), ("refused", True)]
)
def test_a_reply_of_pop3(lab: Lab, answer: str, right: bool) -> None:
    session = converse(lab, "pop3", "STAT\nQUIT").session
    assert predict("What?", about="STAT", answer=answer).reveal(session).right is right


def test_the_last_such_command_counts(lab: Lab) -> None:
    session = converse(lab, "smtp", NOBODY.replace("QUIT", "RCPT TO:<ben@lab.example>")).session
    assert about_rcpt("250").reveal(session).right


def test_any_plain_value_can_be_asked_for() -> None:
    guess = predict("How many messages?", answer=" 2 ")
    assert guess.reveal(2).right
    assert not guess.reveal(3).right
    assert predict("Who?", answer="Ana  and ben").reveal("ana and Ben").right
    told = str(guess.reveal(3, why="Three were sent."))
    assert told == "How many messages?\nYou said 2; it was 3: not so.\nThree were sent."


def test_nothing_is_revealed_before_it_is_answered(refused: Typed) -> None:
    revealed = about_rcpt("").reveal(refused)
    assert str(revealed) == f"{QUESTION}\nAnswer first, then run this cell again."
    assert "550" not in str(revealed) + revealed._repr_html_().partition("</style>")[2]
    assert progress().entries == {}


def test_the_first_answer_is_the_one_that_counts(refused: Typed) -> None:
    about_rcpt("250").reveal(refused)
    about_rcpt("550").reveal(refused)
    assert str(progress()).endswith(f"- {QUESTION}: wrong at first")


def test_a_session_that_can_not_answer_is_told(refused: Typed) -> None:
    with pytest.raises(ValueError, match="Say which command the question is about"):
        predict("What?", answer="550").reveal(refused)
    with pytest.raises(ValueError, match="In that session VRFY wasn't said, or wasn't answered"):
        predict("What?", about="vrfy", answer="550").reveal(refused)


def test_pages_are_well_formed_and_inert(refused: Typed) -> None:
    hostile = "<script>alert(1)</script>"
    guess = predict(hostile, hostile, about="RCPT", answer=hostile)
    for page in (guess._repr_html_(), guess.reveal(refused)._repr_html_()):
        Checker(page)
        assert "<script" not in page


def test_without_a_kernel_there_is_no_widget() -> None:
    assert sorted(about_rcpt("")._repr_mimebundle_()) == ["text/html", "text/plain"]


def test_a_click_is_an_answer() -> None:
    guess = about_rcpt("")
    _, buttons = guess._widget().children
    assert (buttons.options, buttons.value) == (("250", "550", "354"), None)
    buttons.value = "550"
    assert guess.answer == "550"
    _, text = predict("How many?", answer="1")._widget().children
    assert text.value == "1"
