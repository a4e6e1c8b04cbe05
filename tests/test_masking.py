"""The secrets of a session: found again on the wire, and taken out."""

from __future__ import annotations

import base64
import imaplib
import poplib
import random
import smtplib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from urllib.parse import quote

import pytest
from dialogue import play

from labserver import (
    Lab,
    Limits,
    Record,
    Session,
    compare,
    replay,
    sequence,
    show,
    states,
    timeline,
    wire,
)
from labserver.dialogue import Bounds, dialogue
from labserver.masking import Passwords, masked, secrets
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


# -- known passwords, wherever a client says them


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def texts(session: Session) -> Iterator[str]:
    """All that is written of a session, but for views."""
    yield from (str(session), repr(session), session.text(exact=True), session.to_json())
    yield from map(repr, session.lines)
    yield from map(repr, session.records)
    yield octets(masked(session)).decode("latin-1")


def views(session: Session) -> Iterator[str]:
    """All views of a session."""
    for view in (show, wire, sequence, states, timeline, replay):
        yield from (view(session).html, str(view(session)))
    yield from (compare(session, session).html, str(compare(session, session)))


def tells(text: str, password: str = PASSWORD, address: str = "ana@lab.example") -> bool:
    """Whether the password can be read from it: as it is, in any case, or in base64."""
    if password.lower() in text.lower() or quote(password).lower() in text.lower():
        return True
    for before in (0, 1, 2):
        inside = base64.b64encode(bytes(before) + password.encode()).decode()
        if inside[before + 1 : -4] in text:
            return True
    return encoded(f"\0{address}\0{password}").rstrip("=") in text


USER = encoded("ana@lab.example")
WORD = encoded(PASSWORD)
XOAUTH = encoded(f"user=ana@lab.example\1auth=Bearer {PASSWORD}\1\1")
SAID = {
    "smtp": [
        f"AUTH PLAIN={PLAIN}",
        f"AUTH=PLAIN={PLAIN}",
        f"AUTH:PLAIN:{PLAIN}",
        f"AUTH {PLAIN}",
        f"AUHT PLAIN {PLAIN}",
        f"auth login {USER} {WORD}",
        f"AUTH XOAUTH2 {XOAUTH}",
        f"AUTHENTICATE PLAIN {PLAIN}",
        f"LOGIN ana@lab.example {PASSWORD}",
        f"PASS {PASSWORD}",
        f"pass={PASSWORD}",
        PASSWORD,
        WORD,
        PLAIN,
        f"VRFY {PASSWORD}",
        f"EHLO {PASSWORD}",
        f"NOOP {PASSWORD} {PASSWORD}",
        f"HELP AUTH PLAIN {PLAIN}",
        f"MAIL FROM:<ana@lab.example> {PASSWORD}={PASSWORD}",
        f"MAIL FROM:<{PASSWORD}@lab.example>",
        f"QUIT{PASSWORD}",
    ],
    "pop3": [
        f"PASS {PASSWORD}",
        f"PASS PASS {PASSWORD}",
        f"pass  {PASSWORD} {PASSWORD}",
        f"PASSS {PASSWORD}",
        f"PAS {PASSWORD}",
        f"PASS:{PASSWORD}",
        f"USER {PASSWORD}",
        f"USER ana@lab.example PASS {PASSWORD}",
        f"APOP ana@lab.example {PASSWORD}",
        f"apop {PASSWORD}",
        f"LOGIN ana@lab.example {PASSWORD}",
        f"AUTH {PLAIN}",
        f"AUTH PLAIN={PLAIN}",
        f"LIST {PASSWORD}",
        f"TOP {WORD} {PASSWORD}",
        PASSWORD,
        PLAIN,
    ],
    "imap": [
        f"LOGIN ana@lab.example {PASSWORD}",
        f"login ana@lab.example {PASSWORD}",
        f'LOGIN "ana@lab.example" "{PASSWORD}"',
        f"a UID LOGIN ana@lab.example {PASSWORD}",
        f"a LOGN ana@lab.example {PASSWORD}",
        f'a LOGN "ana@lab.example" "{PASSWORD}"',
        f"a b c LOGIN ana@lab.example {PASSWORD}",
        f"a LOGIN ana@lab.example:{PASSWORD}",
        f"a LOGIN {PASSWORD}",
        f"a AUTHENTICATE PLAIN={PLAIN}",
        f"AUTHENTICATE PLAIN {PLAIN}",
        f"a AUTENTICATE PLAIN {PLAIN}",
        f"a AUTH PLAIN {PLAIN}",
        f"a PASS {PASSWORD}",
        f"a SELECT {PASSWORD}",
        f"a LOGIN a b {PASSWORD}",
        f"{PASSWORD} NOOP",
        f"a {PASSWORD}",
        PASSWORD,
        f"{PLAIN} {WORD}",
        f"a LOGIN ana%40lab.example:{quote(PASSWORD)}",
    ],
}


@pytest.mark.parametrize(
    ("listener", "line"), [(listener, line) for listener in SAID for line in SAID[listener]]
)
def test_a_known_password_is_masked_wherever_a_client_says_it(
    lab: Lab, listener: str, line: str
) -> None:
    session = play(lab, listener, f"S: ...\nC: {line}\nS: ...\n-- client closes")
    assert [said.data for said in session.lines if said.who == "C"] == [line.encode() + b"\r\n"]
    assert [text for text in texts(session) if tells(text)] == []


@pytest.mark.long
@pytest.mark.parametrize("listener", list(SAID))
def test_no_view_tells_a_password_that_a_client_said_anywhere(listener: str) -> None:
    with closing(InlineNetwork()) as network, Lab(network=network) as lab:
        for line in SAID[listener]:
            session = play(lab, listener, f"S: ...\nC: {line}\nS: ...\n-- client closes")
            assert [text for text in views(session) if tells(text)] == []


@pytest.mark.parametrize(
    "rows",
    [
        ["a AUTHENTICATE LOGIN", USER, WORD],
        ["a AUTHENTICATE CRAM-MD5", PLAIN],
        ["a AUTHENTICATE FOO", WORD, "a NOOP", PLAIN],
    ],
)
def test_answers_to_a_refused_login_are_masked_and_the_replies_that_repeat_them(
    lab: Lab, rows: list[str]
) -> None:
    steps = "\n".join(f"C: {row}\nS: ..." for row in rows)
    session = play(lab, "imap", f"S: ...\n{steps}\n-- client closes")
    assert [text for text in texts(session) if tells(text)] == []
    # What isn't one of the lab's passwords the reply doesn't repeat either.
    wrong = encoded("some other word")
    session = play(lab, "imap", f"S: ...\nC: a AUTHENTICATE FOO\nS: ...\nC: {wrong}\nS: ...")
    assert [text for text in texts(session) if wrong in text] == []


@pytest.mark.parametrize("command", ["a LOGN", "LOGIN", "a UID LOGIN", "a SELECT", "a SEARCH TEXT"])
@pytest.mark.parametrize("ending", ["", "+"])
def test_a_known_password_is_masked_in_a_literal(lab: Lab, command: str, ending: str) -> None:
    said = f"{command} {{{len(PASSWORD)}{ending}}}\r\n{PASSWORD} {PASSWORD}\r\n"
    client = lab.network.connect(lab.imap, timeout=10)
    client.sendall(said.encode())
    lab.network.settle()
    client.close()
    lab.network.settle()
    assert [text for text in texts(lab.sessions[-1]) if tells(text)] == []


@pytest.mark.parametrize("line", [f"a LOGN ana {PASSWORD}", f"AUHT {PLAIN}", f"AUTH PLAIN={PLAIN}"])
@pytest.mark.parametrize("protocol", ["SMTP", "POP3", "IMAP"])
def test_no_piece_of_a_line_shows_more_than_the_first_letters(line: str, protocol: str) -> None:
    cutter = dialogue(protocol, passwords=Passwords({"ana@lab.example": PASSWORD}))  # type: ignore[arg-type]
    cutter.feed(0, "S", b"* OK\r\n", False)
    beginning = PASSWORD if PASSWORD in line else PLAIN[len(PLAIN) // 2 :]
    for octet in f"{line}\r\n".encode():
        cutter.feed(0, "C", bytes([octet]), False)
        shown = "".join(map(repr, (*cutter.lines, *cutter.rest())))
        assert beginning[: len(beginning) // 2] not in shown


@pytest.mark.parametrize(
    ("password", "said"),
    [
        ('pa"ss\\word', 'a LOGN ana "pa\\"ss\\\\word"'),
        ("grün-drüber", "a LOGN ana grün-drüber"),
        ("a b & c d", "x=a%20b%20%26%20c%20d"),
        ("Sup3r/geheim+pass", "MAIL FROM:<a@b.example> AUTH=Sup3r/geheim+2Bpass"),
        ("geheim=wort", "RCPT TO:<b@c.example> ORCPT=rfc822;geheim+3Dwort"),
        ("secret", 'NOOP "secret"'),
        ("x-y-", "NOOP (x-y-)"),
        ("pässword", "NOOP " + base64.b64encode("pässword".encode("latin-1")).decode()),
    ],
)
def test_a_password_is_found_in_the_forms_that_protocols_give_it(password: str, said: str) -> None:
    known = Passwords({"ana@lab.example": password})
    for charset in ("utf-8", "latin-1"):
        data = said.encode(charset)
        ((start, end), *_) = known.found_in(data)
        assert len(data[start:end]) >= len(password)
        before = data[:start] + data[end:]
        assert b"y-" not in before
        assert password.encode(charset) not in before


@pytest.mark.parametrize("password", ["mail", "MAIL", "a", "lab", "example", "ana@lab.example"])
def test_ordinary_text_does_not_vanish_with_an_ordinary_password(password: str) -> None:
    accounts = {"ana@lab.example": password, "zoe@lab.example": "letter"}
    with closing(InlineNetwork()) as network, Lab(accounts, network=network) as lab:
        with smtplib.SMTP(*lab.smtp, local_hostname="mail.lab.example") as client:
            client.sendmail("ana@lab.example", ["ana@lab.example"], b"Subject: letters\r\n\r\n")
        session = lab.sessions[-1]
        assert not [line for line in session.lines if line.secret]
        # In its place, and beside its address in base64, it is masked all the same.
        plain = encoded(f"\0ana@lab.example\0{password}")
        session = play(lab, "pop3", f"S: ...\nC: PASS {password}\nS: ...\nC: XAUTH {plain}\nS: ...")
        assert told(session) == [password.encode(), plain.encode()]


def test_a_short_password_is_masked_as_a_word_only() -> None:
    known = Passwords({"ana@lab.example": "note"})
    assert known.found_in(b"NOOP note") == [(5, 9), (5, 9)]
    assert known.found_in(b"NOOP notes, footnote, note7") == []


def test_a_password_in_a_message_is_text(lab: Lab) -> None:
    text = f"Subject: my password\r\n\r\nIt is {PASSWORD}.\r\n".encode()
    with smtplib.SMTP(*lab.smtp) as client:
        client.sendmail("x@y.example", ["ana@lab.example"], text)
    session = lab.sessions[-1]
    assert PASSWORD in str(session)
    assert not [line for line in session.lines if line.secret]


@pytest.mark.parametrize(
    ("listener", "line"),
    [
        ("smtp", "MAIL FROM:<ana@lab.example> AUTH=<> SIZE=10"),
        ("smtp", "MAIL FROM:<ana@lab.example> SIZE=10 AUTH=ana@lab.example BODY=8BITMIME"),
        ("smtp", "HELP AUTH"),
        ("smtp", "EHLO login.example"),
        ("imap", 'a SEARCH SUBJECT "how to LOGIN here now"'),
        ("imap", "a SELECT login attempts here"),
        ("imap", "a UID SEARCH TEXT pass SINCE 1-Jan-2026"),
        ("imap", "a LOGIN ana@lab.example"),
        ("imap", "a AUTHENTICATE PLAIN"),
    ],
)
def test_the_words_of_a_login_elsewhere_hide_nothing(lab: Lab, listener: str, line: str) -> None:
    session = play(lab, listener, f"S: ...\nC: {line}\n-- client closes")
    assert not [said for said in session.lines if said.secret]


@pytest.mark.parametrize("many", [1, 1000])
def test_as_many_accounts_as_there_are_each_password_is_found(many: int) -> None:
    accounts = {f"user{n}@lab.example": f"word-of-{n:04}-here" for n in range(many)}
    known = Passwords(accounts)
    for password in list(accounts.values())[:: max(1, many // 20)]:
        line = f"a LOGN x {password} y".encode()
        assert {line[slice(*span)] for span in known.found_in(line)} == {password.encode()}
        line = f"AUHT {encoded('x' + password)} y".encode()
        assert known.found_in(line)
    assert known.found_in(b"a LOGN x word-of-somebody-else y") == []


def test_the_passwords_are_not_in_a_representation() -> None:
    assert PASSWORD not in repr(Passwords({"ana@lab.example": PASSWORD}))


# -- secrets that a bound cuts


FILLING = "".join(f"{number:03}/" for number in range(100))


@pytest.mark.parametrize(
    "said",
    [
        f"AUTH PLAIN {FILLING[:60]}{PASSWORD}",
        f"NOOP {FILLING[:55]} {PASSWORD}",
        f"NOOP {FILLING[:45]} {PASSWORD}{PASSWORD}",
        f"NOOP {FILLING}{PASSWORD}",
    ],
)
def test_a_secret_that_goes_on_beyond_its_line_is_masked_in_the_records(said: str) -> None:
    """The server answers in between, so a record begins within the line and keeps more of it."""
    first, rest = said[:20], said[20:]
    limits = Limits(transcript_body=64)
    with closing(InlineNetwork()) as network, Lab(network=network, limits=limits) as lab:
        client = network.connect(lab.submission, timeout=10)
        client.sendall(b"NOOP\r\n" + first.encode())
        network.settle()
        client.recv(1000)
        client.sendall(rest.encode() + b"\r\n")
        network.settle()
        client.close()
        network.settle()
        session = lab.sessions[-1]
    (line,) = [line for line in session.lines if line.data.startswith(first.encode())]
    assert line.shortened
    shown = b"".join(record.data for record in masked(session).records)
    # Nothing of the line is shown beyond what its line shows.
    kept = masked(session).lines[session.lines.index(line)].data
    assert rest.encode()[len(kept) - len(first) :][:8] not in shown
    assert PASSWORD.encode()[:6] not in shown


def test_a_password_that_a_bound_cuts_is_masked_as_far_as_it_was_kept() -> None:
    known = Passwords({"ana@lab.example": PASSWORD})
    cutter = dialogue("SMTP", Bounds(body=20), known)
    cutter.feed(0, "S", b"220\r\n", False)
    cutter.feed(0, "C", f"NOOP 12345 {PASSWORD}\r\n".encode(), False)
    (line,) = [line for line in cutter.lines if line.who == "C"]
    assert line.shortened
    assert line.secret == (11, 20)


# -- the cost


class Counted(bytes):
    """Octets that count how often they are searched."""

    searches = 0

    def __contains__(self, part: object) -> bool:
        Counted.searches += 1
        return super().__contains__(part)  # type: ignore[operator]


def test_a_line_is_looked_through_once_for_each_form() -> None:
    known = Passwords({"ana@lab.example": PASSWORD})
    for length in (10, 1000, 100_000):
        Counted.searches = 0
        assert known.found_in(Counted(b"x" * length)) == []
        assert Counted.searches == 4  # as it is, and base64 in its three places


@pytest.mark.parametrize(
    "line",
    [
        lambda n: b"LOGIN {" * n,
        lambda n: b'LOGIN "' * n,
        lambda n: b"AUTH= " * n,
        lambda n: b"PASS" * n,
        lambda n: b'" LOGIN x ' * n,
        lambda n: b" " * n + b"LOGIN",
        lambda n: b"MAIL FROM:<x> " + b"AUTH= " * n,
    ],
)
def test_hostile_lines_are_read_to_their_end(line: Callable[[int], bytes]) -> None:
    for protocol in ("SMTP", "POP3", "IMAP"):
        cutter = dialogue(protocol)  # type: ignore[arg-type]
        cutter.feed(0, "S", b"* OK\r\n", False)
        cutter.feed(0, "C", line(9000) + b"\r\n", False)
        assert len(cutter.lines) == 2
