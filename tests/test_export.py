"""Sessions as JSON: exact when all is told, without secrets unless asked, and safe to read."""

from __future__ import annotations

import json
import poplib
import random
import smtplib
from contextlib import closing
from typing import Any

import pytest
from dialogue import play

from labserver import Lab, Session
from labserver.masking import masked
from labserver.network.inline import InlineNetwork

PASSWORD = "ana-lab-password"


@pytest.fixture(scope="module")
def recorded() -> Session:
    """A session with TLS, a password and a message."""
    with closing(InlineNetwork()) as network, Lab(network=network) as lab:
        with smtplib.SMTP(*lab.submission) as client:
            client.starttls(context=lab.tls)
            client.login("ana@lab.example", PASSWORD)
            body = b"Subject: \xff\xfe\r\n\r\n\x00\x1b.\r\n"
            client.sendmail("ana@lab.example", ["ben@lab.example"], body)
        return lab.sessions[-1]


def values(session: Session) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(session.to_json(reveal=True))
    return loaded


def test_what_is_written_with_everything_is_read_back_equal(recorded: Session, lab: Lab) -> None:
    assert Session.from_json(recorded.to_json(reveal=True)) == recorded
    for listener in ("smtp", "pop3", "imap", "imaps"):
        play(lab, listener, "S: ...\nC! \\xff\\x00 {3}\\n\n-- client closes")
        session = lab.sessions[-1]
        assert Session.from_json(session.to_json(reveal=True)) == session


def test_secrets_are_left_out_unless_asked_for(lab: Lab) -> None:
    client = poplib.POP3(*lab.pop3)
    client.user("ana@lab.example")
    client.pass_(PASSWORD)
    client.quit()
    session = lab.sessions[-1]
    assert PASSWORD not in session.to_json()
    assert PASSWORD in session.to_json(reveal=True)
    read = Session.from_json(session.to_json())
    assert read == masked(session)
    assert str(read) == str(session)
    assert read.octets() == session.octets()


def test_format_and_version_are_named(recorded: Session) -> None:
    told = values(recorded)
    assert (told["format"], told["version"]) == ("labserver session", 1)
    with pytest.raises(ValueError, match="written in version 2"):
        Session.from_json(json.dumps(told | {"version": 2}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("format", "something"),
        ("version", "1"),
        ("version", True),
        ("number", -1),
        ("number", 10**400),
        ("number", 1.0),
        ("protocol", "HTTP"),
        ("protocol", ["SMTP"]),
        ("listener", "<script>"),
        ("listener", "x" * 41),
        ("listener", "\ud800"),
        ("started", "yesterday"),
        ("started", "2026-01-01T00:00:00"),
        ("started", 5),
        ("duration", -0.1),
        ("duration", 1e13),
        ("duration", True),
        ("closed", 1),
        ("tls", "TLSv1.3\n"),
        ("tls", None),
        ("ending", "x" * 201),
        ("ending", "\x1b[31m"),
        ("dropped", None),
        ("lines", {}),
        ("lines", [None]),
        ("lines", [{}] * 50_001),
        ("records", "x"),
        ("records", [[]]),
    ],
)
def test_a_wrong_value_is_one_sentence(recorded: Session, name: str, value: object) -> None:
    refused(json.dumps(values(recorded) | {name: value}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("at", "now"),
        ("who", "X"),
        ("data", "\u0100"),
        ("data", None),
        ("tls", 0),
        ("kind", "poem"),
        ("octets", 1),
        ("octets", 2**60),
        ("secret", [0]),
        ("secret", [-1, 2]),
        ("secret", [0, 10_000]),
        ("secret", [2, 1]),
        ("secret", ["a", "b"]),
        ("secret", {}),
    ],
)
def test_a_wrong_line_is_one_sentence(recorded: Session, name: str, value: object) -> None:
    told = values(recorded)
    told["lines"][0][name] = value
    assert "line 1" in refused(json.dumps(told))
    del told["lines"][0][name]
    assert "line 1" in refused(json.dumps(told))


def test_tls_records_hold_no_octets(recorded: Session) -> None:
    told = values(recorded)
    number = next(i for i, record in enumerate(told["records"]) if record["type"] != "plain")
    told["records"][number]["data"] = "x"
    assert f"record {number + 1}" in refused(json.dumps(told))


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[]", "[" * 100_000, "1" * 5000, "NaN", '{"format": NaN}', '"\\ud800"'],
)
def test_what_is_no_session_is_one_sentence(text: str) -> None:
    refused(text)


def test_a_text_beyond_the_bound_is_not_even_parsed() -> None:
    assert "33,554,433 characters" in refused(" " * (32 * 1024 * 1024 + 1))


def test_what_is_no_text_is_one_sentence() -> None:
    with pytest.raises(ValueError, match="not from bytes"):
        Session.from_json(b"{}")  # type: ignore[arg-type]


def test_no_change_of_a_character_raises_anything_else(recorded: Session) -> None:
    text, sentences = recorded.to_json(), []
    for seed in range(300):
        source = random.Random(seed)
        at = source.randrange(len(text))
        changed = text[:at] + source.choice('"{}[],:0-9e\\u\x00é𝄞') + text[at + 1 :]
        try:
            str(Session.from_json(changed))
        except ValueError as error:
            sentences.append(str(error))
    assert len(sentences) > 50
    assert all(sentence.endswith(".") for sentence in sentences)


def refused(text: str) -> str:
    """The one sentence that refuses the text."""
    with pytest.raises(ValueError, match=r"^[A-Z][^\n]{10,200}\.$") as caught:
        Session.from_json(text)
    return str(caught.value)
