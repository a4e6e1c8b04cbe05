"""Turn-taking: what each line is, what it answers, and what may come next."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from dialogue import Client, play
from test_dialogue import DIALOGUES

from labserver import Lab
from labserver.dialogue import dialogue
from labserver.transcript import LineKind, ProtocolName, Session, Side
from labserver.turns import Due, Expected, Turn, Turns, literal_of

PROTOCOLS: tuple[ProtocolName, ...] = ("SMTP", "POP3", "IMAP")
EPOCH_LINE = tuple[Side, bytes, LineKind, bool]


def walked(protocol: ProtocolName, lines: list[EPOCH_LINE]) -> list[tuple[Expected, Turn]]:
    """Each line as it is heard, with what was expected right before it."""
    turns, heard, tls = Turns(protocol), [], lines[0][3]
    if tls:
        turns.tls = True
    for who, data, kind, under in lines:
        if under and not tls:
            turns.start_tls()
            tls = True
        expected = turns.next()
        turn = turns.hear(who, data)
        assert (turn.who, turn.kind) == (who, kind), (data, turn)
        heard.append((expected, turn))
    return heard


def lines_of(session: Session) -> list[EPOCH_LINE]:
    return [(line.who, line.data, line.kind, line.tls) for line in session.lines]


def unexpected(session: Session) -> list[bytes]:
    """The lines that were not among what was expected before them."""
    lines = lines_of(session)
    heard = walked(session.protocol, lines)
    return [
        data
        for (_, data, _, _), (before, turn) in zip(lines, heard, strict=True)
        if not before.allows(turn)
    ]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_line_of_a_dialogue_is_what_the_recorder_took_it_for(protocol: ProtocolName) -> None:
    cutter = dialogue(protocol)
    for at, (who, data) in enumerate(DIALOGUES[protocol]):
        cutter.feed(at, who, data, False)
    lines: list[EPOCH_LINE] = [(line.who, line.data, line.kind, False) for line in cutter.lines]
    assert len(walked(protocol, lines)) > 20


# -- recorded dialogues: all that was said was expected

SMTP = """
S: 220 ...
C: EHLO client.example
S: 250-...
S: 250-...
S: 250-...
S: 250-...
S: 250-...
S: 250-...
S: 250-...
S: 250-...
S: 250-...
S: 250 HELP
"""
POP3 = """
S: +OK ...
C: USER ana@lab.example
S: +OK ...
C: PASS ana-lab-password
S: +OK ...
"""
IMAP = """
S: * OK ...
C: a1 LOGIN ana@lab.example ana-lab-password
S: a1 OK ...
"""
MAIL = r"MAIL FROM:<eve@far.example>\r\nRCPT TO:<ana@lab.example>\r\n"
RECORDED = [
    (
        "smtp",
        SMTP + f"C! {MAIL}DATA\\r\\n\nS: 250 ...\nS: 250 ...\nS: 354 ...\n"
        r"C! Subject: x\r\n\r\n..\r\n.\r\nNOOP\r\nQUIT\r\n"
        "\nS: 250 ...\nS: 250 ...\nS: 221 ...\n-- server closes",
    ),
    (
        "smtp",
        SMTP + f"C! {MAIL}BDAT 9\\r\\nNOOP\\r\\nTwo\nS: 250 ...\nS: 250 ...\nS: 250 ...\n"
        r"C! BDAT 0 LAST\r\n"
        "\nS: 250 ...\nC: FOO\nS: 500 ...",
    ),
    (
        "submission",
        "S: 220 ...\nC: EHLO x\nS: 250-...\nS: 250-...\nS: 250-...\nS: 250-...\nS: 250-...\n"
        "S: 250-...\nS: 250-...\nS: 250-...\nS: 250-...\nS: 250 ...\n"
        "C: STARTTLS\nS: 220 ...\n-- TLS\nC: EHLO x\n"
        "S: 250-...\nS: 250-...\nS: 250-...\nS: 250-...\nS: 250-...\n"
        "S: 250-...\nS: 250-...\nS: 250-...\nS: 250-...\nS: 250 ...\n"
        "C: AUTH LOGIN\nS: 334 ...\nC: YW5hQGxhYi5leGFtcGxl\nS: 334 ...\nC: *\nS: 501 ...\n"
        "C: AUTH PLAIN\nS: 334 ...\nC: AGFuYUBsYWIuZXhhbXBsZQBhbmEtbGFiLXBhc3N3b3Jk\nS: 235 ...",
    ),
    (
        "pop3",
        "S: +OK ...\nC: STLS\nS: +OK ...\n-- TLS\nC: AUTH PLAIN\nS: +...\n"
        "C: AGFuYUBsYWIuZXhhbXBsZQBhbmEtbGFiLXBhc3N3b3Jk\nS: +OK ...\n"
        r"C! LIST\r\nSTAT\r\nRETR 1\r\nUIDL\r\nQUIT\r\n"
        "\nS: +OK ...\nS: .\nS: +OK ...\nS: -ERR ...\nS: +OK ...\nS: .\nS: +OK ...\n"
        "-- server closes",
    ),
    (
        "imap",
        IMAP + "C: a2 APPEND INBOX {7}\nS: + ...\nC! a: b\\r\\n\\r\\r\\n\nS: a2 OK ...\n"
        "C: a3 SELECT {5}\nS: + ...\nC: INBOX\nS: * ...\nS: * ...\nS: * ...\nS: * ...\nS: * ...\n"
        "S: * ...\nS: * ...\nS: a3 OK ...\nC: a4 APPEND Nowhere {999999999999}\nS: a4 NO ...\n"
        "C! a5 APPEND INBOX {9+}\\r\\na9 NOOP\\r\\n\\r\\na6 FETCH 1 BODY.PEEK[]\\r\\n\n"
        "S: * ...\nS: * ...\nS: a5 OK ...\n",
    ),
    (
        "imap",
        IMAP + "C: a2 IDLE\nS: + ...\nC: DONE\nS: a2 OK ...\nC: a3 UID SEARCH ALL\nS: a3 BAD ...\n"
        "C: a4 LOGOUT\nS: * BYE ...\nS: a4 OK ...\n-- server closes",
    ),
    (
        "imap",
        "S: * OK ...\nC: a1 STARTTLS\nS: a1 OK ...\n-- TLS\nC: a2 AUTHENTICATE PLAIN\nS: + ...\n"
        "C: *\nS: a2 BAD ...\nC: a3 LOGIN {15+}\nC: ana@lab.example {16}\nS: + ...\n"
        "C: ana-lab-password\nS: a3 OK ...",
    ),
]


@pytest.mark.protocol
@pytest.mark.parametrize(("listener", "script"), RECORDED)
def test_all_that_a_real_dialogue_says_was_expected(lab: Lab, listener: str, script: str) -> None:
    session = play(lab, listener, script)
    strange = {b"FOO\r\n", b"a3 UID SEARCH ALL\r\n"}
    assert set(unexpected(session)) <= strange


@pytest.mark.protocol
@pytest.mark.parametrize("listener", ["smtp", "pop3", "imap"])
def test_a_web_page_says_what_nobody_expects_and_is_answered_as_expected(
    lab: Lab, listener: str
) -> None:
    client = Client(lab, listener)
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    while client.line():
        pass
    client.close()
    assert unexpected(lab.sessions[-1])[0] == b"GET / HTTP/1.1\r\n"
    assert not [line for line in unexpected(lab.sessions[-1]) if line.startswith((b"4", b"-ERR"))]


def heard(protocol: ProtocolName, script: str) -> Turns:
    """The turns after a script of `C: …` and `S: …`; `-- TLS` begins TLS."""
    turns = Turns(protocol)
    for row in filter(None, map(str.strip, script.splitlines())):
        if row == "-- TLS":
            turns.start_tls()
        else:
            turns.hear("C" if row[0] == "C" else "S", row[3:].encode() + b"\r\n")
    return turns


def verbs(turns: Turns) -> set[str]:
    return {command.verb for command in turns.next().commands}


def codes(turns: Turns) -> set[str]:
    return {answer.code for answer in turns.next().answers}


HELLO = "S: 220 hi\nC: EHLO x\nS: 250 hi\n"
LOGGED_IN = "S: * OK hi\nC: a LOGIN b c\nS: a OK\n"


def test_the_client_waits_for_the_greeting() -> None:
    for protocol in PROTOCOLS:
        assert Turns(protocol).next().client is None
        assert Turns(protocol).next().answer_due
    assert codes(Turns("SMTP")) >= {"220", "421", "554"}
    assert codes(Turns("IMAP")) >= {"OK", "PREAUTH", "BYE"}


@pytest.mark.parametrize(
    ("protocol", "script", "allowed", "forbidden"),
    [
        ("SMTP", HELLO, {"MAIL", "QUIT"}, {"RCPT", "DATA"}),
        ("SMTP", HELLO + "C: MAIL FROM:<a@b>", {"RCPT", "MAIL"}, {"DATA"}),
        ("SMTP", HELLO + "C: MAIL FROM:<a@b>\nC: RCPT TO:<a@b>", {"DATA", "BDAT"}, set()),
        ("SMTP", HELLO + "C: STARTTLS\nS: 220 go\n-- TLS", {"EHLO"}, {"MAIL", "STARTTLS"}),
        ("SMTP", HELLO + "S: 421 bye", set(), {"MAIL"}),
        ("POP3", "S: +OK\nC: USER a\nS: +OK", {"PASS", "USER"}, {"STAT"}),
        ("POP3", "S: +OK\nC: USER a\nC: PASS b", {"STAT", "LIST"}, {"DONE"}),
        ("POP3", "S: +OK\nC: QUIT now\nS: -ERR", {"USER", "QUIT"}, {"STAT"}),
        ("IMAP", LOGGED_IN, {"SELECT", "IDLE"}, {"FETCH", "LOGIN", "DONE"}),
        ("IMAP", LOGGED_IN + "C: b SELECT x", {"FETCH", "SELECT"}, {"LOGIN"}),
        ("IMAP", LOGGED_IN + "C: b IDLE", set(), {"DONE", "NOOP"}),
        ("IMAP", LOGGED_IN + "C: b IDLE\nS: + go", {"DONE"}, {"NOOP"}),
        ("IMAP", LOGGED_IN + "C: b IDLE\nS: + go\nC: DONE\nS: b OK", {"NOOP"}, {"DONE"}),
        ("IMAP", LOGGED_IN + "S: * BYE", set(), {"NOOP"}),
    ],
)
def test_commands_are_expected_in_their_states(
    protocol: ProtocolName, script: str, allowed: set[str], forbidden: set[str]
) -> None:
    turns = heard(protocol, script)
    assert allowed <= verbs(turns)
    assert not forbidden & verbs(turns)
    assert (turns.next().client is None) == (not allowed)


@pytest.mark.parametrize(
    ("protocol", "script", "allowed", "forbidden"),
    [
        ("SMTP", HELLO, {"421"}, {"250"}),
        ("SMTP", HELLO + "C: MAIL FROM:<a@b>", {"250", "550", "421"}, {"354", "221"}),
        ("SMTP", HELLO + "C: HELP\nS: 214-one", {"214"}, {"211", "421"}),
        ("SMTP", HELLO + "C: AUTH LOGIN", {"334", "235", "535"}, {"250"}),
        ("POP3", "S: +OK\nC: AUTH PLAIN", {"+", "+OK", "-ERR"}, set()),
        ("POP3", "S: +OK\nC: NOOP", {"+OK", "-ERR"}, {"+"}),
        ("IMAP", LOGGED_IN, {"*", "BYE"}, {"OK", "+"}),
        ("IMAP", LOGGED_IN + "C: b APPEND x {3}", {"+", "NO", "BAD"}, {"BYE."}),
        ("IMAP", LOGGED_IN + "C: b APPEND x {3+}", {"NO"}, {"+"}),
        ("IMAP", LOGGED_IN + "C: b IDLE", {"+", "*"}, set()),
    ],
)
def test_replies_are_expected_as_the_catalog_lists_them(
    protocol: ProtocolName, script: str, allowed: set[str], forbidden: set[str]
) -> None:
    turns = heard(protocol, script)
    assert allowed <= codes(turns)
    assert not forbidden & codes(turns)
    assert all(answer.meaning for answer in turns.next().answers)


@pytest.mark.parametrize(
    ("protocol", "script", "client"),
    [
        ("SMTP", HELLO + "C: DATA", None),
        ("SMTP", HELLO + "C: DATA\nS: 354 go", Due("content", "dot")),
        ("SMTP", HELLO + "C: BDAT 5", Due("content", "octets", 5, unasked=True)),
        ("SMTP", HELLO + "C: BDAT 5\nC: abc", None),  # with its line end these are the five
        ("SMTP", HELLO + "C: AUTH LOGIN\nS: 334 x", Due("credentials")),
        ("POP3", "S: +OK\nC: AUTH LOGIN\nS: +", Due("credentials")),
        ("IMAP", "S: * OK\nC: a AUTHENTICATE PLAIN\nS: +", Due("credentials")),
        ("IMAP", LOGGED_IN + "C: b APPEND x {9}", None),
        ("IMAP", LOGGED_IN + "C: b APPEND x {9}\nS: + go", Due("content", "octets", 9)),
        ("IMAP", LOGGED_IN + "C: b APPEND x {9}\nS: + go\nC: abc", Due("content", "octets", 4)),
        ("IMAP", LOGGED_IN + "C: b APPEND x {2+}\nC: ", Due("command", rest=True)),
        ("IMAP", "S: * OK\nC: a LOGIN {3+}", Due("credentials", "octets", 3, unasked=True)),
    ],
)
def test_what_is_due_from_the_client(
    protocol: ProtocolName, script: str, client: Due | None
) -> None:
    due = heard(protocol, script).next().client
    assert (due if due != Due("command") else None) == client


def test_what_is_due_from_the_server() -> None:
    pop3 = "S: +OK\nC: USER a\nS: +OK\nC: PASS b\nS: +OK\n"
    assert heard("POP3", pop3 + "C: LIST\nS: +OK").due["S"] == Due("reply", "rows")
    assert heard("POP3", pop3 + "C: LIST 1\nS: +OK 1 9").due["S"] == Due("reply")
    assert heard("POP3", pop3 + "C: RETR 1\nS: +OK").due["S"] == Due("content", "dot")
    assert heard("POP3", pop3 + "C: RETR 1\nS: +OK\nS: x\nS: .").due["S"] == Due("reply")
    literal = heard("IMAP", LOGGED_IN + "C: b FETCH 1 BODY[]\nS: * 1 FETCH (BODY[] {7}")
    assert literal.due["S"] == Due("content", "octets", 7)
    turn = literal.hear("S", b"b OK ab")
    assert (turn.kind, turn.exchange.settled, turn.exchange.verb) == ("content", False, "FETCH")
    assert literal.hear("S", b")\r\n").rest


def test_a_refused_literal_leaves_the_client_a_new_command() -> None:
    turns = heard("IMAP", LOGGED_IN + "C: b APPEND x {9}\nS: b NO [TOOBIG] no")
    turn = turns.hear("C", b"c NOOP\r\n")
    assert (turn.begins, turn.verb, turn.rest) == (True, "NOOP", False)


@pytest.mark.parametrize(
    ("protocol", "script"),
    [
        ("SMTP", HELLO + "C: STARTTLS\nS: 220 go"),
        ("POP3", "S: +OK\nC: STLS\nS: +OK"),
        ("IMAP", "S: * OK\nC: a STARTTLS\nS: a OK"),
    ],
)
def test_tls_comes_before_anything_else_is_said(protocol: ProtocolName, script: str) -> None:
    turns = heard(protocol, script)
    expected = turns.next()
    assert expected.tls
    assert (expected.client, expected.commands, expected.answers) == (None, (), ())
    turns.hear("C", b"slipped in\r\n")
    turns.start_tls()
    assert not turns.open
    assert turns.next().client is not None


@pytest.mark.parametrize(
    ("protocol", "script"),
    [
        ("SMTP", HELLO + "C: MAIL FROM:<a@b>\nS: 250 ok\nC: QUIT\nS: 221 bye"),
        ("POP3", "S: +OK\nC: USER a\nS: +OK\nC: PASS b\nS: +OK\nC: STAT\nS: +OK 0 0"),
        ("IMAP", LOGGED_IN + "C: b SELECT x\nS: b OK\nC: c FETCH 1 FLAGS\nS: c OK"),
    ],
)
def test_lines_in_a_wrong_order_are_told(protocol: ProtocolName, script: str) -> None:
    rows = [(row[0], row[3:].encode() + b"\r\n") for row in script.splitlines()]

    def right(order: list[tuple[str, bytes]]) -> bool:
        turns = Turns(protocol)
        for who, data in order:
            expected = turns.next()
            if not expected.allows(turns.hear("C" if who == "C" else "S", data)):
                return False
        return not turns.answer_due

    assert right(rows)
    for swapped in range(len(rows) - 1):
        a, b = rows[swapped : swapped + 2]
        if (a[0], b[0]) == ("C", "S") or swapped == 0:
            assert not right([*rows[:swapped], b, a, *rows[swapped + 2 :]]), (a, b)


def test_a_line_is_given_to_the_side_that_can_have_said_it() -> None:
    turns = heard("SMTP", HELLO + "C: DATA\nS: 354 go")
    assert turns.speaker(b"250 pounds\r\n") == "C"
    assert heard("SMTP", HELLO).speaker(b"250 pounds\r\n") == "S"
    assert heard("POP3", "S: +OK\nC: CAPA\nS: +OK").speaker(b"TOP\r\n") == "S"
    assert heard("IMAP", LOGGED_IN + "C: b NOOP").speaker(b"b OK\r\n") == "S"
    assert heard("IMAP", LOGGED_IN + "C: b NOOP").speaker(b"c NOOP\r\n") == "C"


def test_a_bye_before_the_turn_of_logout_comes_out_of_turn() -> None:
    pipelined = LOGGED_IN + "C: b FETCH 1 FLAGS\nC: c LOGOUT\n"
    turn = heard("IMAP", pipelined).hear("S", b"* BYE idle too long\r\n")
    assert (turn.exchange.verb, turn.completes) == ("", True)
    turn = heard("IMAP", pipelined + "S: b OK").hear("S", b"* BYE\r\n")
    assert (turn.exchange.verb, turn.completes) == ("LOGOUT", False)


def test_literals() -> None:
    assert literal_of(b"a APPEND x {12}\r\n") == (12, False)
    assert literal_of(b"a APPEND x {12+}\n") == (12, True)
    assert literal_of(b"* 1 FETCH (BODY[] {0}\r\n") == (0, False)
    for line in (b"a X {}\r\n", b"a X {x}\r\n", b"a X {-1}\r\n", b"a X {1} \r\n", b"a {1}b}\r\n"):
        assert literal_of(line) is None
    endless = literal_of(b"a X {" + b"9" * 5000 + b"}\r\n")
    assert endless is not None
    assert endless.octets >= 10**18


def test_unknown_protocols_are_refused_and_states_can_be_done_without() -> None:
    with pytest.raises(ValueError, match="SMTP, POP3, IMAP"):
        Turns("HTTP")  # type: ignore[arg-type]
    turns = Turns("SMTP", states=False)
    assert turns.hear("S", b"220 hi\r\n").completes
    with pytest.raises(ValueError, match="states"):
        turns.next()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_long_dialogue_takes_no_more_room_than_a_short_one(protocol: ProtocolName) -> None:
    turns = Turns(protocol)
    for _ in range(50):
        for who, data in DIALOGUES[protocol]:
            for line in data.splitlines(keepends=True):
                turns.hear(who, line)
    assert len(turns.open) < 200


# -- and nobody else decides it

PACKAGE = Path(__file__).parents[1] / "labserver"
SAYS_IT = {"servers/smtp/connection.py"}
"""The server that says 334 and 354; what it says, nobody else has to recognise."""
RECOGNISES = {
    "a literal": re.compile(r"\\?\{\(?(?:\?P<\w+>)?(?:\[0-9\]|\\d)[+*{].*\}"),
    "334 or 354": re.compile(r"(?<![0-9])3[35]4(?![0-9])"),
}


def recognised(path: Path) -> set[str]:
    """What of turn-taking a module recognises by itself."""
    found = set()
    tree = ast.parse(path.read_bytes())
    texts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in texts:
            value = node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value
            if isinstance(value, str):
                found |= {what for what, shape in RECOGNISES.items() if shape.search(value)}
        if isinstance(node, ast.Compare) and ast.unparse(node.left).endswith("[3:4]"):
            found.add("a reply of several lines")
    return found


def test_no_other_module_recognises_what_turns_do() -> None:
    modules = {str(path.relative_to(PACKAGE)): path for path in PACKAGE.rglob("*.py")}
    told = {name: recognised(path) for name, path in modules.items()}
    assert set.union(*(what for name, what in told.items() if name.startswith("turns/"))) == {
        *RECOGNISES,
        "a reply of several lines",
    }
    others = {n: w for n, w in told.items() if w and not n.startswith("turns/")}
    assert set(others) <= SAYS_IT, others


@pytest.mark.parametrize(
    ("protocol", "greeting"), [("SMTP", b"220 x\r\n"), ("POP3", b"+OK\r\n"), ("IMAP", b"* OK\r\n")]
)
def test_of_a_command_without_an_answer_little_is_remembered(
    protocol: ProtocolName, greeting: bytes
) -> None:
    turns = Turns(protocol)
    turns.hear("S", greeting)
    for _ in range(10):
        turns.hear("C", b"x" * 60_000 + b" " + b"y" * 60_000 + b"\r\n")
        turns.hear("C", b"a " + b"y" * 60_000 + b"\r\n")
    assert sum(len(e.verb) + len(e.tag) + len(e.line) for e in turns.open) < 20 * 3 * 1024
