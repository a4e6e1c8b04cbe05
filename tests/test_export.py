"""Sessions as JSON: exact when all is told, without secrets unless asked, and safe to read."""

from __future__ import annotations

import json
import poplib
import random
import smtplib
import tracemalloc
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from dialogue import play

from labserver import Host, Lab, Session
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
    assert (told["format"], told["version"]) == ("labserver session", 2)
    with pytest.raises(ValueError, match="written in version 3, and only 1 to 2 can be read"):
        Session.from_json(json.dumps(told | {"version": 3}))


def test_both_ends_are_told(recorded: Session) -> None:
    told = values(recorded)
    assert told["client"] == {"name": recorded.client.name, "address": "127.0.0.1"}
    assert told["server"] == {"name": "lab.example", "address": "127.0.0.1"}
    assert recorded.client.name
    shown = Session.from_json(recorded.to_json())
    assert (shown.client, shown.server) == (recorded.client, recorded.server)


@pytest.mark.parametrize("also", [{}, {"client": 7, "server": {"name": "x"}}])
def test_what_version_1_wrote_is_read(recorded: Session, also: dict[str, Any]) -> None:
    told = {k: v for k, v in values(recorded).items() if k not in ("client", "server")}
    read = Session.from_json(json.dumps(told | {"version": 1} | also))
    assert read == replace(recorded, client=Host(), server=Host())


@pytest.mark.parametrize("end", ["client", "server"])
@pytest.mark.parametrize(
    "host",
    [
        None,
        "client.example",
        ["client.example", "127.0.0.1"],
        {},
        {"name": "x"},
        {"address": "127.0.0.1"},
        {"name": 7, "address": ""},
        {"name": "\x1b[2J", "address": ""},
        {"name": "x" * 5001, "address": ""},
        {"name": "x", "address": "127.0.0.1:25 "},
        {"name": "x", "address": "evil.example"},
        {"name": "x", "address": None},
    ],
)
def test_an_end_that_is_none_is_refused(recorded: Session, end: str, host: object) -> None:
    with pytest.raises(ValueError, match=r"^In this JSON .*\.$"):
        Session.from_json(json.dumps(values(recorded) | {end: host}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("format", "something"),
        ("version", "1"),
        ("version", True),
        ("version", 10**400),
        ("version", int("9" * 4300)),
        ("version", -1),
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
        ("secret", [False, True]),
        ("secret", [0, 1.0]),
        ("secret", [0, 1, 2]),
        ("secret", [[]] * 9),
        ("secret", ["a", "b"]),
        ("secret", {}),
    ],
)
def test_a_wrong_line_is_one_sentence(recorded: Session, name: str, value: object) -> None:
    told = values(recorded)
    told["lines"][0][name] = value
    sentence = refused(json.dumps(told))
    assert "line 1" in sentence or value == [[]] * 9
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


HOSTILE = {
    "nested lists": lambda n: "[" + "[]," * n + "[]]",
    "deep lists": lambda n: "[" * n,
    "lists as lines": lambda n: SESSION.replace('"lines":[', '"lines":[' + "[]," * n),
    "objects without members as lines": lambda n: SESSION.replace(
        '"lines":[', '"lines":[' + "{}," * n
    ),
    "numbers as lines": lambda n: SESSION.replace('"lines":[', '"lines":[' + "1," * n),
    "objects as lines": lambda n: SESSION.replace('"lines":[', '"lines":[' + '{"a":1},' * n),
    "lists in a line": lambda n: SESSION.replace("null", "[" + "[]," * n + "0]"),
    "members of a line": lambda n: SESSION.replace('"at":', '"x":0,' * n + '"at":', 1),
    "an unknown list": lambda n: SESSION.replace('"lines":', '"x":[' + "[]," * n + '0],"lines":'),
    "members": lambda n: "{" + "".join(f'"{i}":{i},' for i in range(n)) + '"a":1}',
    "a number": lambda n: SESSION.replace('"version":1', '"version":' + "9" * n),
    "a name": lambda n: SESSION.replace('"ending":""', '"ending":"' + "x" * n + '"'),
    "escapes": lambda n: SESSION.replace('"ending":""', '"ending":"' + "\\n" * n + '"'),
    "a string without an end": lambda n: SESSION.replace('"ending":""', '"ending":"' + "x" * n),
}
"""What an attacker would send, n times as much as little."""
LINE = (
    '{"at":0,"who":"C","kind":"command","tls":false,"octets":6,"secret":null,"data":"NOOP\\r\\n"},'
)
SESSION = (
    '{"format":"labserver session","version":1,"number":1,"protocol":"SMTP","listener":"smtp",'
    '"started":"2026-01-01T00:00:00+00:00","duration":1,"closed":true,"tls":"","ending":"",'
    f'"dropped":0,"lines":[{LINE[:-1]}],"records":[]}}'
)


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_refused_costs_little_before_it_is(kind: str) -> None:
    assert Session.from_json(SESSION).lines[0].data == b"NOOP\r\n"
    for many in (100_000, 200_000, 400_000):
        text = HOSTILE[kind](many)
        tracemalloc.start()
        try:
            refused(text)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 3 * len(text) + 1_500_000, (kind, many)


def test_too_many_lines_are_refused_and_counted() -> None:
    text = SESSION.replace('"lines":[', '"lines":[' + LINE * 50_000)
    assert "more than 50,000 lines" in refused(text)


def test_a_long_session_takes_little_more_than_its_lines() -> None:
    peaks = []
    for many in (2_000, 4_000, 8_000):
        text = SESSION.replace('"lines":[', '"lines":[' + LINE * many)
        tracemalloc.start()
        assert len(Session.from_json(text).lines) == many + 1
        peaks.append(tracemalloc.get_traced_memory()[1] / len(text))
        tracemalloc.stop()
    assert max(peaks) < 5


def test_json_may_be_written_in_any_way(recorded: Session) -> None:
    told = values(recorded)
    for options in ({"indent": 2}, {"sort_keys": True}, {"ensure_ascii": True}, {"indent": "\t"}):
        text = json.dumps(told, **options)  # type: ignore[arg-type]
        assert Session.from_json(f" \r\n{text}\n") == recorded
    more = told | {"path": {"name": "x", "address": "y"}, "tags": ["a", 1, None], "none": {}}
    assert Session.from_json(json.dumps(more)) == recorded


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
