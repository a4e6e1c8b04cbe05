"""Whatever a public function is given, it answers with a result or with one sentence."""

from __future__ import annotations

import contextlib
import inspect
import smtplib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import labserver
from labserver import Lab, LabError, Message, NetworkError, Sent, Session, StoreError, View
from labserver.given import expect, shown
from labserver.network.inline import InlineNetwork

SENTENCES = (ValueError, TypeError, LookupError, LabError, NetworkError, StoreError, OSError)
VIEWS = "sequence states wire timeline replay show".split()
CONDITIONS = "InMailbox LoggedIn Refused Retrieved Said Sent UnderTls".split()
RULES = "Delay Disconnect Greylist Limits Quota Reply Throttle".split()
MUST = {"command": "RCPT", "at": "RCPT", "address": "ana@lab.example", "reply": "451 4.7.1 Later"}
"""What a field without a default is given where another one is tried."""


@pytest.fixture(scope="module")
def there() -> Iterator[tuple[Lab, Session, Message]]:
    with contextlib.closing(InlineNetwork()) as network, Lab(network=network) as lab:
        with smtplib.SMTP(*lab.smtp) as client:
            client.sendmail("a@b.example", ["ana@lab.example"], "hi")
        yield lab, lab.sessions[-1], lab.inbox("ana@lab.example")[0]


def junk(lab: Lab, session: Session, message: Message) -> list[Any]:
    plain = [None, "", "x", "\0", b"x", 7, -1, 10**30, 3.5, float("nan"), True]
    return [*plain, [], ["x"], {}, {1: 2}, (None,), object(), Session, lab, session, message, print]


def sentence(function: Callable[..., Any], *given: Any, **named: Any) -> str:
    """What it raises, as text; empty where it returns something."""
    try:
        made = function(*given, **named)
    except SENTENCES as error:
        return str(error.args[0] if isinstance(error, LookupError) else error)
    if isinstance(made, Lab):
        made.close()
    return ""


def answers(function: Callable[..., Any], *given: Any, **named: Any) -> None:
    """It returns something, or raises one sentence of its own: Python's end without a full stop."""
    text = sentence(function, *given, **named)
    assert text == "" or text.endswith("."), text
    assert "\n" not in text
    assert len(text) <= 600


@pytest.mark.parametrize("name", [*VIEWS, "read_log", "compose", "mailbox_reader", "monitor"])
def test_functions_of_one_thing(name: str, there: tuple[Lab, Session, Message]) -> None:
    for one in junk(*there):
        answers(getattr(labserver, name), one)


@pytest.mark.parametrize("name", ["faults", "quiz", "predict", "check"])
def test_functions_of_an_exercise(name: str, there: tuple[Lab, Session, Message]) -> None:
    for one in junk(*there):
        answers(getattr(labserver, name), one)


def test_functions_of_two_things(there: tuple[Lab, Session, Message]) -> None:
    lab, session, _ = there
    for one in junk(*there):
        for function in (labserver.compare, labserver.timeline):
            answers(function, session, one)
            answers(function, one, session)
        answers(labserver.fork, one, 2, "NOOP")
        answers(labserver.fork, session, one, "NOOP")
        answers(labserver.fork, session, 2, one)
        answers(labserver.fork, session, 2, "NOOP", lab=one)
        answers(labserver.mailbox_reader, lab, one)
        answers(labserver.mailbox_reader, lab, by=one)
        for field in ("sender", "to", "subject", "body", "via"):
            answers(labserver.compose, lab, **{field: one})


def test_what_an_exercise_is_told(there: tuple[Lab, Session, Message]) -> None:
    lab = there[0]
    for one in junk(*there):
        answers(labserver.check, lab, one)
        for name in ("title", "since", "hints"):
            answers(labserver.check, lab, Sent(), **{name: one})
        answers(labserver.predict, "?", one)
        for name in ("about", "answer"):
            answers(labserver.predict, "?", "250", **{name: one})
        answers(labserver.predict("?", about="MAIL", answer="250").reveal, one)
        answers(labserver.predict("?", about="MAIL", answer="250").reveal, "250", one)
        answers(labserver.quiz, "SMTP", questions=one)
        answers(labserver.quiz, "SMTP", seed=one)


@pytest.mark.parametrize("name", inspect.signature(Lab).parameters)
def test_what_a_lab_is_made_with(name: str, there: tuple[Lab, Session, Message]) -> None:
    for one in junk(*there):
        if name == "data" and one == "x":
            continue  # a folder's name
        with contextlib.closing(InlineNetwork()) as network:
            answers(Lab, **{"network": network, name: one})


def test_what_a_lab_is_asked(there: tuple[Lab, Session, Message]) -> None:
    lab = there[0]
    for one in junk(*there):
        for function in (lab.inbox, lab.mailboxes, lab.wait_for, lab.address, lab.on_session):
            answers(function, one)
        answers(lab.mailbox, "ana@lab.example", one)
        answers(lab.wait_for, "ana@lab.example", one, timeout=0.01)
        answers(lab.wait_for, "ana@lab.example", 5, timeout=one)
        answers(lambda rules: setattr(lab, "rules", rules), one)
        lab.rules = ()


def test_what_a_session_and_a_message_are_asked(there: tuple[Lab, Session, Message]) -> None:
    _, session, message = there
    for one in junk(*there):
        answers(Session.from_json, one)
        answers(session.octets, one)
        answers(lambda many: session.text(body_lines=many), one)
        answers(lambda name: message[name], one)


@pytest.mark.parametrize("name", [*CONDITIONS, *RULES])
def test_the_fields_of_values(name: str, there: tuple[Lab, Session, Message]) -> None:
    kind = getattr(labserver, name)
    parameters = inspect.signature(kind).parameters.values()
    must = {one.name: MUST.get(one.name, 3) for one in parameters if one.default is one.empty}
    for field in inspect.signature(kind).parameters:
        for one in junk(*there):
            named = {**must, field: one}
            if name in CONDITIONS:
                answers(lambda named=named: labserver.check(there[0], kind(**named)))
            else:
                answers(kind, **named)


def test_the_sentence_names_what_is_taken_and_what_was_given() -> None:
    with pytest.raises(TypeError, match=r"^f\(\) takes a whole number or None, not 'x'\.$"):
        expect("f()", "x", int, type(None))
    with pytest.raises(TypeError, match=r"^f\(\) takes a session, not a value of type View\.$"):
        expect("f()", View("dialogue", "", ""), Session, wanted="a session")
    with pytest.raises(TypeError, match=r"not True\.$"):
        expect("f()", True, int)
    assert shown("x" * 100) == "a value of type str"
    assert shown(Session) == "a class"
