"""`predict` asks before a cell is run; what really happened is then held against the answer.

    guess = predict("What will the server say to RCPT?", "250", "550", about="RCPT", answer="")
    guess.reveal(lab.sessions[-1])              # in a later cell, after the reader's own

    guess = predict("Is the password encrypted?", "yes", "no", answer="")
    guess.reveal("yes", why="STARTTLS came before AUTH.")

    guess = predict("How many messages will Ben have?", answer="")
    guess.reveal(len(lab.inbox("ben@lab.example")))

A reader answers by clicking, where a kernel is live, or by writing between the quotes of `answer`.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from html import escape
from importlib.util import find_spec
from typing import Any

from labserver.catalog import load
from labserver.exercises.happened import Asked, asked
from labserver.exercises.progress import note_try
from labserver.given import expect
from labserver.transcript import Session
from labserver.views.card import card

_WORDS = {"accepted": "done", "yes": "done", "no": "refused"}
"""Words of readers for an outcome."""


class Prediction:
    """A question, and the reader's answer once there is one."""

    def __init__(self, question: str, options: tuple[str, ...], about: str, answer: str) -> None:
        self.question, self.options, self.about = question, options, about
        self.answer = answer.strip()

    def reveal(self, happened: object, why: str = "") -> Revealed:
        """Compare the answer with what happened: a session, what `%%smtp` gave, or a plain value.

        Of a session it takes the reply to the command that the question is about; its meaning is
        the catalog's. `why` explains a plain value. Raises `ValueError` for a session where the
        question says nothing of a command, or the session has no such command.
        """
        fact, also = str(happened).strip(), why
        right = _same(self.answer, fact)
        # What `%%smtp` gives holds its session.
        happened = getattr(happened, "session", happened)
        if isinstance(happened, Session):
            one = _reply(happened, self.about)
            fact = one.code
            right = _fits(self.answer, one)
            also = _meaning(one, self.answer, right)
        if not self.answer:
            return Revealed(self.question, "", "", right=False, why="")
        note_try(self.question, "prediction", right)
        return Revealed(self.question, self.answer, fact, right=right, why=also)

    def __str__(self) -> str:
        rows = [self.question, *(f"  ( ) {option}" for option in self.options)]
        return "\n".join([*rows, self._state()])

    __repr__ = __str__

    def _state(self) -> str:
        if self.answer:
            return f"Your answer: {self.answer}"
        return "Your answer is missing: write it between the quotes of answer, and run the cell."

    def _repr_html_(self) -> str:
        options = "".join(f"<li>{escape(option)}</li>" for option in self.options)
        listed = f'<ul class="options">{options}</ul>' if options else ""
        return self._card(f"{listed}<p>{escape(self._state())}</p>")

    def _card(self, more: str) -> str:
        return card("Before you run it", f'<p class="question">{escape(self.question)}</p>{more}')

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        bundle: dict[str, Any] = {"text/plain": str(self), "text/html": self._repr_html_()}
        if _widgets_work():
            bundle |= self._widget()._repr_mimebundle_() | bundle
        return bundle

    def _widget(self) -> Any:
        """The same question to click on; its fallback is the page above."""
        import ipywidgets

        question = ipywidgets.HTML(self._card(""))
        if self.options:
            chosen = self.answer if self.answer in self.options else None
            field = ipywidgets.RadioButtons(
                options=self.options, value=chosen, description="Your answer"
            )
        else:
            field = ipywidgets.Text(value=self.answer, description="Your answer")

        def answered(change: dict[str, Any]) -> None:
            self.answer = str(change["new"] or "").strip()

        field.observe(answered, names="value")
        return ipywidgets.VBox([question, field])


@dataclass(frozen=True, slots=True, repr=False)
class Revealed:
    """The answer beside what happened."""

    question: str
    answer: str
    """Empty if the reader gave none; then nothing is revealed."""
    happened: str
    right: bool
    why: str

    def __str__(self) -> str:
        if not self.answer:
            return f"{self.question}\nAnswer first, then run this cell again."
        rows = [f"You said {self.answer}; it was {self.happened}: {self._judged()}."]
        return "\n".join([self.question, *rows, *([self.why] if self.why else [])])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        if not self.answer:
            return card(self.question, "<p>Answer first, then run this cell again.</p>")
        css, mark = ("ok", "✓") if self.right else ("no", "✕")
        body = (
            f'<p class="{css}"><span aria-hidden="true">{mark}</span> <b>{self._judged()}</b></p>'
            f"<dl><dt>You said</dt><dd>{escape(self.answer)}</dd>"
            f"<dt>It was</dt><dd>{escape(self.happened)}</dd></dl>"
        )
        why = f"<p>{escape(self.why)}</p>" if self.why else ""
        return card(self.question, body + why)

    def _judged(self) -> str:
        return "right" if self.right else "not so"


def predict(question: str, *options: str, about: str = "", answer: str = "") -> Prediction:
    """Ask what will happen. Without `options` the answer is free text.

    `about` is the command whose reply is asked for, such as `RCPT`; a reply can be given as a
    code, as a family of codes (`5xx`), or as accepted or refused. Raises `TypeError` where the
    question or the command is no text.
    """
    expect("predict()", question, str, wanted="a question first, as a text")
    expect("predict(about=…)", about, str, wanted="a command, such as 'RCPT'")
    return Prediction(question, tuple(map(str, options)), about.upper(), str(answer))


def _same(answer: str, fact: str) -> bool:
    return " ".join(answer.split()).casefold() == " ".join(fact.split()).casefold()


def _fits(answer: str, one: Asked) -> bool:
    """Whether the answer names that reply: its code, its family, or its outcome."""
    word = answer.casefold().rstrip(".")
    if _WORDS.get(word, word) == one.outcome:
        return True
    first = answer.split(maxsplit=1)[0] if answer else ""
    if re.fullmatch(r"[2-5][x0-9y][x0-9z]", first, re.I):
        return re.fullmatch(re.sub("[xyz]", r"\\d", first.casefold()), one.code) is not None
    return bool(first) and first.casefold() == one.code.casefold()


def _reply(session: Session, verb: str) -> Asked:
    """The last answered command of that verb."""
    if not verb:
        raise ValueError('Say which command the question is about: predict("…?", about="RCPT").')
    for one in reversed(asked(session)):
        if one.verb == verb and one.code:
            return one
    raise ValueError(f"In that session {verb} wasn't said, or wasn't answered.")


def _meaning(one: Asked, answer: str, right: bool) -> str:
    """What the reply means, and what the reader's would have meant."""
    known = dict(load(one.protocol).everywhere)
    known |= dict(load(one.protocol).commands[one.verb].replies)
    words = [f"{one.code} means: {known[one.code]}"] if one.code in known else []
    first = answer.split(maxsplit=1)[0] if answer else ""
    if not right and first in known:
        words.append(f"{first} would have meant: {known[first]}")
    return " ".join(words)


def _widgets_work() -> bool:
    """Whether buttons work: a kernel is running and ipywidgets is installed."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None and find_spec("ipywidgets") is not None
