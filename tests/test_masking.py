"""The secrets of a session: found again on the wire, and taken out."""

from __future__ import annotations

import base64
import imaplib
import poplib
import random
import smtplib
from contextlib import closing
from dataclasses import replace

import pytest
from dialogue import play

from labserver import Lab, Limits, Record, Session
from labserver.masking import masked, secrets
from labserver.network.inline import InlineNetwork

PASSWORD = "ana-lab-password"
PLAIN = base64.b64encode(f"\0ana@lab.example\0{PASSWORD}".encode()).decode()


def octets(session: Session) -> bytes:
    """All that a session holds, lines and records."""
    return b"".join([line.data for line in session.lines] + [r.data for r in session.records])


def told(session: Session) -> list[bytes]:
    """What is secret in the records."""
    return [
        record.data[start:end]
        for record, spans in zip(session.records, secrets(session), strict=True)
        for start, end in spans
    ]


def test_a_password_in_the_clear_is_found_on_the_wire(lab: Lab) -> None:
    client = poplib.POP3(*lab.pop3)
    client.user("ana@lab.example")
    client.pass_(PASSWORD)
    client.quit()
    session = lab.sessions[-1]
    assert told(session) == [PASSWORD.encode()]
    assert PASSWORD.encode() in octets(session)
    assert PASSWORD.encode() not in octets(masked(session))


@pytest.mark.parametrize(
    ("listener", "script"),
    [
        ("smtp", f"S: 220 ...\nC: AUTH PLAIN {PLAIN}\n-- client closes"),
        ("pop3", f"S: +OK ...\nC: AUTH PLAIN\nS: + ...\nC: {PLAIN}\nS: +OK ..."),
        ("pop3", f"S: +OK ...\nC! AUTH PLAIN\\r\\n{PLAIN}\\r\\n\nS: + ...\nS: +OK ..."),
        ("imap", f"S: * OK ...\nC: a1 AUTHENTICATE PLAIN\nS: + ...\nC: {PLAIN}\nS: a1 OK ..."),
    ],
)
def test_base64_of_a_password_is_found_however_it_is_sent(
    lab: Lab, listener: str, script: str
) -> None:
    session = play(lab, listener, script)
    assert told(session) == [PLAIN.encode()]
    assert PLAIN.encode() not in octets(masked(session))


def test_a_password_in_a_literal_is_found(lab: Lab) -> None:
    client = imaplib.IMAP4(*lab.imap)
    # imaplib sends what it can't quote as a literal.
    client.literal = PASSWORD.encode()  # type: ignore[attr-defined]
    client._simple_command("LOGIN", "ana@lab.example")  # type: ignore[attr-defined]
    client.logout()
    session = lab.sessions[-1]
    assert PASSWORD.encode() in told(session)
    assert PASSWORD.encode() not in octets(masked(session))


def test_lengths_stay_and_masking_twice_changes_nothing_more(lab: Lab) -> None:
    with smtplib.SMTP(*lab.submission) as client:
        client.starttls(context=lab.tls)
        client.login("ana@lab.example", PASSWORD)
    session = lab.sessions[-1]
    once = masked(session)
    assert once != session
    assert masked(once) == once
    for before, after in zip(session.lines, once.lines, strict=True):
        assert (before.octets, len(before.data)) == (after.octets, len(after.data))
    assert once.octets() == session.octets()
    assert str(once) == str(session)


def test_what_no_line_accounts_for_is_masked() -> None:
    limits = Limits(transcript=2000)
    with closing(InlineNetwork()) as network, Lab(network=network, limits=limits) as lab:
        client = poplib.POP3(*lab.pop3)
        for _ in range(60):
            client._shortcmd("USER ana@lab.example")  # type: ignore[attr-defined]
        client.pass_(PASSWORD)
        client.quit()
        session = lab.sessions[-1]
    assert session.dropped
    # A record that keeps everything stands for a bound that falls elsewhere.
    records = (*session.records, Record(1, "C", "plain", 6, b"PASS x"))
    assert PASSWORD.encode() not in octets(masked(session))
    assert masked(replace(session, records=records)).records[-1].data == b"******"


def test_plain_text_where_tls_was_due_is_masked(lab: Lab) -> None:
    connection = lab.network.connect(lab.address("pop3s"), timeout=10)
    connection.sendall(f"USER ana@lab.example\r\nPASS {PASSWORD}\r\n".encode())
    connection.makefile("rb").read()
    connection.close()
    session = lab.sessions[-1]
    assert PASSWORD.encode() in octets(session)
    assert PASSWORD.encode() not in octets(masked(session))


def test_records_that_contradict_the_lines_are_masked(lab: Lab) -> None:
    session = play(lab, "pop3", f"S: +OK ...\nC: USER ana\nS: +OK ...\nC: PASS {PASSWORD}\nS: ...")
    shifted = (Record(0, "C", "plain", 3, b"xyz"), *session.records)
    assert PASSWORD.encode() not in octets(masked(replace(session, records=shifted)))


def test_no_cut_of_the_stream_into_records_lets_a_secret_through(lab: Lab) -> None:
    script = f"S: +OK ...\nC: USER ana\nS: +OK ...\nC: PASS {PASSWORD}\nS: ...\nC: NOOP\nS: ..."
    session = play(lab, "pop3", script)
    stream = b"".join(record.data for record in session.records if record.who == "C")
    for seed in range(100):
        source = random.Random(seed)
        cuts = sorted(source.sample(range(1, len(stream)), source.randrange(6)))
        parts = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        records = tuple(Record(0, "C", "plain", len(part), part) for part in parts)
        hidden = masked(replace(session, records=records))
        shown = b"".join(record.data for record in hidden.records)
        assert shown == stream.replace(PASSWORD.encode(), b"*" * len(PASSWORD))
