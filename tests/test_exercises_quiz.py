"""Quizzes: made from the catalog, the same for the same seed, and every wrong answer explained."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from inert import Checker
from IPython.utils.capture import capture_output

from labserver import quiz
from labserver.catalog import PROTOCOLS, load, source_url
from labserver.exercises.quiz import TOPICS, Quiz, all_questions, misunderstandings

module = import_module("labserver.exercises.quiz")
"""The package gives out a function of the same name."""


def test_every_question_has_one_right_answer_and_different_wrong_ones() -> None:
    questions = all_questions()
    assert len(questions) >= 40
    assert len({question.text for question in questions}) == len(questions)
    for question in questions:
        texts = [answer.text for answer in question.answers]
        assert sum(answer.right for answer in question.answers) == 1, question.text
        assert len(set(texts)) == len(texts) >= 3, question.text
        assert question.why
        assert question.sources


def test_every_wrong_answer_says_its_misunderstanding() -> None:
    used = set()
    for question in all_questions():
        for answer in question.answers:
            told = question.feedback(answer)
            if answer.misunderstanding is None:
                assert told == f"Right. {question.why}"
            else:
                used.add(answer.misunderstanding.name)
                assert answer.misunderstanding.belief in told
                assert answer.misunderstanding.text in told
    assert used == set(misunderstandings())


def test_misunderstandings_are_stated_once_and_have_sources() -> None:
    beliefs = [one.belief for one in misunderstandings().values()]
    assert len(set(beliefs)) == len(beliefs)
    for one in misunderstandings().values():
        assert one.sources
        assert all(source_url(source) for source in one.sources)
        assert one.belief.endswith(".")
        assert one.text.endswith(".")


def test_only_the_right_answer_is_allowed_where_a_command_is_asked_for() -> None:
    entries = module._table()["order"]
    assert {entry["protocol"] for entry in entries} == set(PROTOCOLS)
    for entry in entries:
        commands = load(entry["protocol"]).commands
        assert entry["state"] in commands[entry["right"]].states
        for verb in entry["wrong"]:
            assert entry["state"] not in commands[verb].states, (entry["state"], verb)


def test_replies_are_judged_as_the_catalog_does() -> None:
    table, smtp = module._table()["replies"], load("SMTP")
    outcomes = {reply.outcome for reply in smtp.replies.values()}
    assert set(table["answers"]) == set(table["wrong"]) == outcomes
    for outcome, wrong in table["wrong"].items():
        assert set(wrong) == outcomes - {outcome}
    for verb, codes in table["asked"].items():
        assert set(codes) <= set(dict(smtp.commands[verb].replies))


def test_the_same_seed_gives_the_same_quiz() -> None:
    assert quiz("SMTP", seed=7) == quiz("SMTP", seed=7)
    assert quiz("SMTP", seed=7) != quiz("SMTP", seed=8)
    # On every Python: a stored output has to stay true.
    assert quiz("POP3", questions=7, seed=1).key == "1c 2b 3b 4c 5b 6b 7b"


@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic_asks_only_of_its_own(topic: str) -> None:
    made = quiz(topic, questions=5)  # type: ignore[arg-type]
    assert len({question.text for question in made.questions}) == 5
    for question in made.questions:
        other = [protocol for protocol in PROTOCOLS if protocol != topic]
        assert topic == "replies" or not re.search(rf"\b({'|'.join(other)})\b", question.text)
        assert 3 <= len(question.answers) <= 4


def test_all_kinds_of_questions_come_in_turn() -> None:
    texts = [question.text for question in quiz("SMTP", questions=3).questions]
    assert [text.split()[0] for text in texts] == ["You", "SMTP:", "What"]


@pytest.mark.parametrize(
    ("topic", "number", "sentence"),
    [
        ("HTTP", 5, "There is no quiz on 'HTTP'; there are SMTP, POP3, IMAP, replies."),
        ("POP3", 100, "This quiz has 1 to 7 questions, not 100."),
        ("POP3", 0, "This quiz has 1 to 7 questions, not 0."),
    ],
)
def test_what_there_is_not_is_told(topic: str, number: int, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        quiz(topic, questions=number)  # type: ignore[arg-type]


@pytest.fixture
def shown() -> Quiz:
    return quiz("SMTP", questions=3)


def test_as_text_it_asks_without_giving_answers_away(shown: Quiz) -> None:
    told = str(shown)
    assert told.startswith("Quiz: SMTP\n\n1. ")
    assert told.count("\n   a) ") == 3
    assert "Right" not in told
    assert re.fullmatch("1[abcd] 2[abcd] 3[abcd]", shown.key)


def test_as_a_page_its_answers_unfold_without_any_script(shown: Quiz) -> None:
    page = shown._repr_html_()
    checked = Checker(page)
    assert "script" not in checked.elements
    assert all(link.startswith("https://www.rfc-editor.org/rfc/") for link in checked.links)
    answers = sum(len(question.answers) for question in shown.questions)
    assert page.count("<details>") == answers
    assert page.count("Right. ") == 3
    assert page.count("Not so. ") == answers - 3


def test_where_jupyterquiz_is_missing_the_page_is_shown(
    shown: Quiz, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with capture_output() as said:
        shown.show()
    assert "Quiz: SMTP" in said.stdout + "".join(str(one) for one in said.outputs)


@pytest.mark.browser
def test_its_buttons_answer_in_a_browser_and_fetch_nothing(
    shown: Quiz, browser: Any, tmp_path: Path
) -> None:
    page_file = tmp_path / "quiz.html"
    page_file.write_text(with_buttons(), encoding="utf-8")
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(page_file.as_uri())
    asked = page.locator(".Quiz")
    assert asked.count() == 3
    for number, question in enumerate(shown.questions):
        for place, answer in enumerate(question.answers):
            asked.nth(number).locator(".MCButton").nth(place).click()
            told = asked.nth(number).locator(".Feedback").inner_text()
            assert question.feedback(answer) in told
    assert requests == [page_file.as_uri()]
    page.close()


PROGRAM = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from labserver import quiz

InteractiveShell.instance()
with capture_output() as said:
    quiz("SMTP", questions=3).show()
style, html, script = (one.data for one in said.outputs)
page = style["text/html"] + html["text/html"]
print(json.dumps([page, script["application/javascript"]]))
"""


def with_buttons() -> str:
    """A page of what `.show()` displays in IPython."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    body, code = json.loads(done.stdout)
    head = '<!doctype html><meta charset="utf-8"><title>Quiz</title>'
    return f"{head}{body}</div><script>{code}</script>"
