"""Quizzes made from the catalog: `quiz("SMTP")`.

Questions and right answers come from the catalog, wrong answers from the misunderstandings in
`labserver/data/quiz.toml`; each wrong answer says which one it comes from. As it stands a quiz is
a page without any script, whose answers unfold; `.show()` makes buttons of them, with jupyterquiz.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib import resources
from importlib.util import find_spec
from itertools import chain, zip_longest
from typing import Any, Literal

from labserver.catalog import PROTOCOLS, Catalog, Outcome, load, source_url
from labserver.given import expect, shown
from labserver.views import palette
from labserver.views.card import card

Topic = Literal["SMTP", "POP3", "IMAP", "replies", ""]

TOPICS: tuple[Topic, ...] = (*PROTOCOLS, "replies")

_LETTERS = "abcd"
_WRONG = 3
"""Wrong answers offered, if the catalog has so many."""
_COLORS = {
    "--jq-multiple-choice-bg": palette.light("c"),
    "--jq-incorrect-color": palette.light("no"),
    "--jq-correct-color": palette.light("ok"),
    "--jq-text-color": palette.light("bright"),
    "--jq-link-color": palette.dark("ink"),
}


@dataclass(frozen=True, slots=True)
class Misunderstanding:
    """Something that people believe and that isn't so."""

    name: str
    belief: str
    text: str
    """What is true instead."""
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """One of the answers to choose from."""

    text: str
    misunderstanding: Misunderstanding | None = None
    """The misunderstanding behind a wrong answer; `None` for the right one."""

    @property
    def right(self) -> bool:
        """Whether this is the right answer."""
        return self.misunderstanding is None


@dataclass(frozen=True, slots=True)
class Question:
    """A question with exactly one right answer."""

    text: str
    answers: tuple[Answer, ...]
    why: str
    """Why the right answer is right."""
    sources: tuple[str, ...]

    def feedback(self, answer: Answer) -> str:
        """The feedback on that answer, without the sources."""
        wrong = answer.misunderstanding
        if wrong is None:
            return f"Right. {self.why}"
        return f"Not so. Behind this answer: “{wrong.belief}” {wrong.text}"

    def sources_for(self, answer: Answer) -> tuple[str, ...]:
        """Where it is documented."""
        wrong = answer.misunderstanding
        return self.sources if wrong is None else wrong.sources


@dataclass(frozen=True, slots=True, repr=False)
class Quiz:
    """Some questions; shown as a page where there are no buttons."""

    title: str
    questions: tuple[Question, ...]

    @property
    def key(self) -> str:
        """The right answers' letters, such as `1b 2a 3d`."""
        letters = (
            next(letter for letter, one in zip(_LETTERS, each.answers, strict=False) if one.right)
            for each in self.questions
        )
        return " ".join(f"{number}{letter}" for number, letter in enumerate(letters, 1))

    def show(self) -> None:
        """Show it with buttons, in a live notebook; as a page where jupyterquiz isn't there."""
        from IPython.display import HTML, display

        if find_spec("jupyterquiz") is None:
            display(self)
            return
        from jupyterquiz import display_quiz

        css = resources.files("labserver").joinpath("data", "jupyterquiz.css").read_text("utf-8")
        display(HTML(f"<style>{palette.rule('.Quiz', css)}{css}</style>"))
        display_quiz(self.for_jupyterquiz(), shuffle_answers=False, max_width=800, colors=_COLORS)

    def for_jupyterquiz(self) -> list[dict[str, Any]]:
        """The questions in the form that jupyterquiz reads, every text as HTML."""
        return [
            {
                "question": escape(each.text),
                "type": "multiple_choice",
                "answers": [
                    {
                        "answer": escape(one.text),
                        "correct": one.right,
                        "feedback": escape(
                            f"{each.feedback(one)} ({', '.join(each.sources_for(one))})"
                        ),
                    }
                    for one in each.answers
                ],
            }
            for each in self.questions
        ]

    def __str__(self) -> str:
        rows = [self.title]
        for number, each in enumerate(self.questions, 1):
            rows.append(f"\n{number}. {each.text}")
            rows += [
                f"   {letter}) {one.text}"
                for letter, one in zip(_LETTERS, each.answers, strict=False)
            ]
        return "\n".join(rows)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        items = "".join(f"<li>{_page(each)}</li>" for each in self.questions)
        return card(self.title, f'<ol class="quiz">{items}</ol>', "unfold your answer")


def quiz(topic: Topic = "", *, questions: int = 5, seed: int = 1) -> Quiz:
    """Questions on SMTP, POP3, IMAP or replies, or on all of these.

    The same seed gives the same quiz. Raises `ValueError` for a topic or a number of questions
    that there isn't, `TypeError` for a wrong argument.
    """
    expect("quiz(questions=…)", questions, int)
    expect("quiz(seed=…)", seed, int)
    if topic not in (*TOPICS, ""):
        raise ValueError(f"There is no quiz on {shown(topic)}; there are {', '.join(TOPICS)}.")
    families = list(_families(topic))
    most = sum(map(len, families))
    if not 1 <= questions <= most:
        raise ValueError(f"This quiz has 1 to {most} questions, not {questions}.")
    chance = random.Random(seed)
    for family in families:
        chance.shuffle(family)
    # Taken from each family in turn, so that the many reply codes don't crowd out the rest.
    turns = [each for each in chain(*zip_longest(*families)) if each is not None]
    about = topic or "mail"
    return Quiz(f"Quiz: {about}", tuple(_shuffled(each, chance) for each in turns[:questions]))


def all_questions() -> tuple[Question, ...]:
    """Every question that there is, the right answer first."""
    return tuple(chain(*_families("")))


@cache
def misunderstandings() -> Mapping[str, Misunderstanding]:
    """All of them by name."""
    return {
        name: Misunderstanding(name, entry["belief"], entry["text"], tuple(entry["sources"]))
        for name, entry in _table()["misunderstandings"].items()
    }


# -- from the catalog to questions


@cache
def _table() -> dict[str, Any]:
    file = resources.files("labserver") / "data" / "quiz.toml"
    return tomllib.loads(file.read_text("utf-8"))


def _families(topic: Topic) -> Iterator[list[Question]]:
    """The questions of each kind; replies belong to SMTP, too."""
    if topic in ("", "SMTP", "replies"):
        yield list(_about_replies(load("SMTP")))
    for protocol in PROTOCOLS:
        if topic in ("", protocol):
            catalog = load(protocol)
            yield [_about_order(entry, catalog) for entry in _entries("order", catalog)]
            yield [_about_meaning(entry, catalog) for entry in _entries("meaning", catalog)]


def _entries(kind: str, catalog: Catalog) -> list[dict[str, Any]]:
    return [entry for entry in _table()[kind] if entry["protocol"] == catalog.protocol]


def _about_replies(catalog: Catalog) -> Iterator[Question]:
    table = _table()["replies"]
    answers, wrong = table["answers"], table["wrong"]
    for verb, codes in table["asked"].items():
        command = catalog.commands[verb]
        said = f"say {verb}" if command.typed else "end the message with its dot"
        for code in codes:
            outcome: Outcome = catalog.replies[code].outcome
            yield Question(
                f"You {said}, and the server answers {code}. What does that ask you to do?",
                (
                    Answer(answers[outcome]),
                    *(
                        Answer(answers[other], misunderstandings()[name])
                        for other, name in wrong[outcome].items()
                    ),
                ),
                dict(command.replies)[code],
                catalog.replies[code].sources,
            )


def _about_order(entry: Mapping[str, Any], catalog: Catalog) -> Question:
    right = catalog.commands[entry["right"]]
    situation = entry.get("situation") or catalog.states[entry["state"]].title
    return Question(
        f"{catalog.protocol}: {situation} Which of these may you say now?",
        (
            Answer(right.verb),
            *(Answer(verb, misunderstandings()[name]) for verb, name in entry["wrong"].items()),
        ),
        f"{right.title} {right.meaning}",
        right.sources,
    )


def _about_meaning(entry: Mapping[str, Any], catalog: Catalog) -> Question:
    right = catalog.commands[entry["command"]]
    return Question(
        f"What do you do with {right.verb} in {catalog.protocol}?",
        (
            Answer(right.title),
            *(
                Answer(catalog.commands[verb].title, misunderstandings()[name])
                for verb, name in entry["wrong"].items()
            ),
        ),
        right.meaning,
        right.sources,
    )


def _shuffled(question: Question, chance: random.Random) -> Question:
    """The question with at most three wrong answers, in random order."""
    right, *wrong = question.answers
    answers = [right, *chance.sample(wrong, min(_WRONG, len(wrong)))]
    chance.shuffle(answers)
    return Question(question.text, tuple(answers), question.why, question.sources)


def _page(question: Question) -> str:
    """A question whose answers unfold to the feedback on them."""
    answers = "".join(
        f"<details><summary>{escape(one.text)}</summary>"
        f'<p class="{"ok" if one.right else "no"}">{escape(question.feedback(one))} '
        f'<span class="sources">{_links(question.sources_for(one))}</span></p></details>'
        for one in question.answers
    )
    return f'<p class="question">{escape(question.text)}</p>{answers}'


def _links(sources: tuple[str, ...]) -> str:
    return ", ".join(f'<a href="{source_url(one)}">{escape(one)}</a>' for one in sources)
