"""Cutting octets into lines: the same lines however the octets arrive, and no secret left open."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from labserver.dialogue import Bounds, Dialogue, dialogue
from labserver.transcript import Line, ProtocolName, Side

Turn = tuple[Side, bytes]
Shape = tuple[str, str, bytes, int, tuple[int, int] | None]
PROTOCOLS: tuple[ProtocolName, ...] = ("SMTP", "POP3", "IMAP")

SMTP: list[Turn] = [
    ("S", b"220 lab.example ready\r\n"),
    ("C", b"EHLO me\r\n"),
    ("S", b"250-lab.example\r\n250-AUTH PLAIN LOGIN\r\n250 CHUNKING\r\n"),
    ("C", b"AUTH LOGIN\r\n"),
    ("S", b"334 VXNlcm5hbWU6\r\n"),
    ("C", b"YW5h\r\n"),
    ("S", b"334 UGFzc3dvcmQ6\r\n"),
    ("C", b"c2VjcmV0\r\n"),
    ("S", b"235 2.7.0 ok\r\n"),
    ("C", b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"),
    ("S", b"250 ok\r\n250 ok\r\n354 go\r\n"),
    ("C", b"Subject: x\r\n\r\n..dot\r\n.\n\r\n.no\r\n\r.\r\n.\r\nNOOP\r\n"),
    ("S", b"250 stored\r\n250 ok\r\n"),
    ("C", b"DATA\r\n"),
    ("S", b"503 no\r\n"),
    ("C", b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 7\r\nNOOP\r\n."),
    ("S", b"250 ok\r\n250 ok\r\n250 ok\r\n"),
    ("C", b"BDAT 0 LAST\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nlast\r\n.\r\nQUIT\r\n"),
    ("S", b"250 stored\r\n250 ok\r\n250 ok\r\n354 go\r\n250 stored\r\n221 bye\r\n"),
]
POP3: list[Turn] = [
    ("S", b"+OK ready <1.2@x>\r\n"),
    ("C", b"CAPA\r\n"),
    ("S", b"+OK\r\nUIDL\r\nSASL PLAIN\r\n.\r\n"),
    ("C", b"AUTH PLAIN\r\n"),
    ("S", b"+ \r\n"),
    ("C", b"AGFuYQBzZWNyZXQ=\r\n"),
    ("S", b"-ERR no\r\n"),
    ("C", b"USER ana\r\nPASS se cret\r\nSTAT\r\nLIST\r\nRETR 1\r\nTOP 1 0\r\n"),
    (
        "S",
        b"+OK\r\n+OK\r\n+OK 1 9\r\n+OK\r\n1 9\r\n.\r\n"
        b"+OK 9 octets\r\n..a\r\n.b\r\n.\r\n+OK\r\n.\r\n",
    ),
    ("C", b"LIST 1\r\nUIDL\r\nQUIT\r\n"),
    ("S", b"+OK 1 9\r\n+OK\r\n1 x\r\n.\r\n+OK bye\r\n"),
]
IMAP: list[Turn] = [
    ("S", b"* OK ready\r\n"),
    ("C", b"a1 AUTHENTICATE PLAIN\r\n"),
    ("S", b"+ \r\n"),
    ("C", b"AGFuYQBzZWNyZXQ=\r\n"),
    ("S", b"a1 NO no\r\n"),
    ("C", b"a2 LOGIN {3}\r\n"),
    ("S", b"+ go\r\n"),
    ("C", b"ana {6}\r\n"),
    ("S", b"+ go\r\n"),
    ("C", b"secret\r\n"),
    ("S", b"a2 OK in\r\n"),
    ("C", b"a3 APPEND x (\\Seen) {14+}\r\na4 LOGOUT\r\n{3}\r\na5 SELECT INBOX\r\n"),
    ("S", b"a3 OK\r\n* 1 EXISTS\r\na5 OK\r\n"),
    ("C", b"a6 FETCH 1 (BODY[] FLAGS)\r\n"),
    ("S", b"* 1 FETCH (BODY[] {7}\r\n)\r\na6 O FLAGS (\\Seen) X {0}\r\n)\r\na6 OK\r\n"),
    ("C", b"a7 IDLE\r\n"),
    ("S", b"+ go\r\n* 2 EXISTS\r\n"),
    ("C", b"DONE\r\na8 LOGOUT\r\n"),
    ("S", b"a7 OK\r\n* BYE\r\na8 OK\r\n"),
]
DIALOGUES: dict[ProtocolName, list[Turn]] = {"SMTP": SMTP, "POP3": POP3, "IMAP": IMAP}


def cut(protocol: ProtocolName, turns: Iterable[Turn], *, bounds: Bounds | None = None) -> Dialogue:
    cutter = dialogue(protocol, bounds)
    for at, (who, data) in enumerate(turns):
        cutter.feed(at, who, data, False)
    return cutter


def shapes(cutter: Dialogue) -> list[Shape]:
    """All of each line but its time."""
    lines = (*cutter.lines, *cutter.rest())
    return [(line.who, line.kind, line.data, line.octets, line.secret) for line in lines]


def kinds(cutter: Dialogue) -> list[tuple[str, str, bytes]]:
    return [(line.who, line.kind, line.data) for line in (*cutter.lines, *cutter.rest())]


def shown(cutter: Dialogue) -> str:
    """What a viewer sees of all lines, secrets masked."""
    return " ".join(map(repr, (*cutter.lines, *cutter.rest())))


# -- the same lines, however the octets arrive


def test_smtp_lines_have_their_kinds() -> None:
    assert kinds(cut("SMTP", SMTP))[5:] == [
        ("C", "command", b"AUTH LOGIN\r\n"),
        ("S", "reply", b"334 VXNlcm5hbWU6\r\n"),
        ("C", "credentials", b"YW5h\r\n"),
        ("S", "reply", b"334 UGFzc3dvcmQ6\r\n"),
        ("C", "credentials", b"c2VjcmV0\r\n"),
        ("S", "reply", b"235 2.7.0 ok\r\n"),
        ("C", "command", b"MAIL FROM:<a@b>\r\n"),
        ("C", "command", b"RCPT TO:<c@d>\r\n"),
        ("C", "command", b"DATA\r\n"),
        ("S", "reply", b"250 ok\r\n"),
        ("S", "reply", b"250 ok\r\n"),
        ("S", "reply", b"354 go\r\n"),
        ("C", "content", b"Subject: x\r\n\r\n..dot\r\n.\n\r\n.no\r\n\r.\r\n"),
        ("C", "end", b".\r\n"),
        ("C", "command", b"NOOP\r\n"),
        ("S", "reply", b"250 stored\r\n"),
        ("S", "reply", b"250 ok\r\n"),
        ("C", "command", b"DATA\r\n"),
        ("S", "reply", b"503 no\r\n"),
        ("C", "command", b"MAIL FROM:<a@b>\r\n"),
        ("C", "command", b"RCPT TO:<c@d>\r\n"),
        ("C", "command", b"BDAT 7\r\n"),
        ("C", "content", b"NOOP\r\n."),
        ("S", "reply", b"250 ok\r\n"),
        ("S", "reply", b"250 ok\r\n"),
        ("S", "reply", b"250 ok\r\n"),
        ("C", "command", b"BDAT 0 LAST\r\n"),
        ("C", "command", b"MAIL FROM:<a@b>\r\n"),
        ("C", "command", b"RCPT TO:<c@d>\r\n"),
        ("C", "command", b"DATA\r\n"),
        ("S", "reply", b"250 stored\r\n"),
        ("S", "reply", b"250 ok\r\n"),
        ("S", "reply", b"250 ok\r\n"),
        ("S", "reply", b"354 go\r\n"),
        ("C", "content", b"last\r\n"),
        ("C", "end", b".\r\n"),
        ("C", "command", b"QUIT\r\n"),
        ("S", "reply", b"250 stored\r\n"),
        ("S", "reply", b"221 bye\r\n"),
    ]


def test_pop3_lines_have_their_kinds() -> None:
    assert kinds(cut("POP3", POP3))[1:] == [
        ("C", "command", b"CAPA\r\n"),
        ("S", "reply", b"+OK\r\n"),
        ("S", "reply", b"UIDL\r\n"),
        ("S", "reply", b"SASL PLAIN\r\n"),
        ("S", "end", b".\r\n"),
        ("C", "command", b"AUTH PLAIN\r\n"),
        ("S", "reply", b"+ \r\n"),
        ("C", "credentials", b"AGFuYQBzZWNyZXQ=\r\n"),
        ("S", "reply", b"-ERR no\r\n"),
        ("C", "command", b"USER ana\r\n"),
        ("C", "command", b"PASS se cret\r\n"),
        ("C", "command", b"STAT\r\n"),
        ("C", "command", b"LIST\r\n"),
        ("C", "command", b"RETR 1\r\n"),
        ("C", "command", b"TOP 1 0\r\n"),
        ("S", "reply", b"+OK\r\n"),
        ("S", "reply", b"+OK\r\n"),
        ("S", "reply", b"+OK 1 9\r\n"),
        ("S", "reply", b"+OK\r\n"),
        ("S", "reply", b"1 9\r\n"),
        ("S", "end", b".\r\n"),
        ("S", "reply", b"+OK 9 octets\r\n"),
        ("S", "content", b"..a\r\n.b\r\n"),
        ("S", "end", b".\r\n"),
        ("S", "reply", b"+OK\r\n"),
        ("S", "end", b".\r\n"),
        ("C", "command", b"LIST 1\r\n"),
        ("C", "command", b"UIDL\r\n"),
        ("C", "command", b"QUIT\r\n"),
        ("S", "reply", b"+OK 1 9\r\n"),
        ("S", "reply", b"+OK\r\n"),
        ("S", "reply", b"1 x\r\n"),
        ("S", "end", b".\r\n"),
        ("S", "reply", b"+OK bye\r\n"),
    ]


def test_imap_lines_have_their_kinds() -> None:
    assert kinds(cut("IMAP", IMAP))[1:] == [
        ("C", "command", b"a1 AUTHENTICATE PLAIN\r\n"),
        ("S", "reply", b"+ \r\n"),
        ("C", "credentials", b"AGFuYQBzZWNyZXQ=\r\n"),
        ("S", "reply", b"a1 NO no\r\n"),
        ("C", "command", b"a2 LOGIN {3}\r\n"),
        ("S", "reply", b"+ go\r\n"),
        ("C", "credentials", b"ana"),
        ("C", "command", b" {6}\r\n"),
        ("S", "reply", b"+ go\r\n"),
        ("C", "credentials", b"secret"),
        ("C", "command", b"\r\n"),
        ("S", "reply", b"a2 OK in\r\n"),
        ("C", "command", b"a3 APPEND x (\\Seen) {14+}\r\n"),
        ("C", "content", b"a4 LOGOUT\r\n{3}"),
        ("C", "command", b"\r\n"),
        ("C", "command", b"a5 SELECT INBOX\r\n"),
        ("S", "reply", b"a3 OK\r\n"),
        ("S", "reply", b"* 1 EXISTS\r\n"),
        ("S", "reply", b"a5 OK\r\n"),
        ("C", "command", b"a6 FETCH 1 (BODY[] FLAGS)\r\n"),
        ("S", "reply", b"* 1 FETCH (BODY[] {7}\r\n"),
        ("S", "content", b")\r\na6 O"),
        ("S", "reply", b" FLAGS (\\Seen) X {0}\r\n"),
        ("S", "reply", b")\r\n"),
        ("S", "reply", b"a6 OK\r\n"),
        ("C", "command", b"a7 IDLE\r\n"),
        ("S", "reply", b"+ go\r\n"),
        ("S", "reply", b"* 2 EXISTS\r\n"),
        ("C", "command", b"DONE\r\n"),
        ("C", "command", b"a8 LOGOUT\r\n"),
        ("S", "reply", b"a7 OK\r\n"),
        ("S", "reply", b"* BYE\r\n"),
        ("S", "reply", b"a8 OK\r\n"),
    ]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_cut_at_any_octet_changes_nothing(protocol: ProtocolName) -> None:
    turns = DIALOGUES[protocol]
    whole = shapes(cut(protocol, turns))
    for n, (who, data) in enumerate(turns):
        for i in range(1, len(data)):
            split: list[Turn] = [*turns[:n], (who, data[:i]), (who, data[i:]), *turns[n + 1 :]]
            assert shapes(cut(protocol, split)) == whole, (data[:i], data[i:])


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("most", [1, 2, 3, 7])
def test_small_pieces_change_nothing(protocol: ProtocolName, most: int) -> None:
    turns = DIALOGUES[protocol]
    source = random.Random(most)
    pieces: list[Turn] = []
    for who, data in turns:
        while data:
            length = source.randint(1, most)
            pieces.append((who, data[:length]))
            data = data[length:]
    assert shapes(cut(protocol, pieces)) == shapes(cut(protocol, turns))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_octet_is_lost(protocol: ProtocolName) -> None:
    """Whatever is said, the lines of each side put together are what it said."""
    for seed in range(300):
        source = random.Random(seed)
        words = [word for _, data in DIALOGUES[protocol] for word in data.split(b" ")]
        turns: list[Turn] = [
            (source.choice(("C", "S")), b" ".join(source.choices(words, k=source.randint(1, 4))))
            for _ in range(30)
        ]
        cutter = cut(protocol, turns)
        lines = (*cutter.lines, *cutter.rest())
        for side in ("C", "S"):
            said = b"".join(data for who, data in turns if who == side)
            assert sorted(b"".join(line.data for line in lines if line.who == side)) == sorted(said)
        assert cutter.dropped == 0


def test_a_line_is_of_the_time_its_first_octet_came() -> None:
    cutter = dialogue("SMTP")
    cutter.feed(1, "S", b"220 hi\r\n", False)
    for at, data in ((2.0, b"DA"), (3.0, b"TA\r\n")):
        cutter.feed(at, "C", data, False)
    cutter.feed(4, "S", b"354 go\r\n", False)
    for at, data in ((5.0, b"x\r\n"), (6.0, b"y\r\n"), (7.0, b".\r\n")):
        cutter.feed(at, "C", data, False)
    assert [(line.at, line.kind) for line in cutter.lines] == [
        (1, "reply"),
        (2, "command"),
        (4, "reply"),
        (5, "content"),
        (7, "end"),
    ]


# -- secrets

LOGINS: list[tuple[ProtocolName, list[Turn]]] = [
    ("SMTP", [("S", b"220\r\n"), ("C", b"AUTH PLAIN AGFuYQBzZWNyZXQ=\r\n"), ("S", b"235\r\n")]),
    ("SMTP", [("S", b"220\r\n"), ("C", b"auth  plain\tAGFuYQBzZWNyZXQ=\r\n"), ("S", b"535\r\n")]),
    ("SMTP", [("S", b"220\r\n"), ("C", b" AUTH PLAIN AGFuYQBzZWNyZXQ=\n"), ("S", b"500\r\n")]),
    (
        "SMTP",
        [
            ("S", b"220\r\n"),
            ("C", b"AUTH PLAIN\r\n"),
            ("S", b"334 \r\n"),
            ("C", b"AGFuYQBzZWNyZXQ=\r\n"),
            ("S", b"235\r\n"),
        ],
    ),
    (
        "SMTP",
        [
            ("S", b"220\r\n"),
            ("C", b"AUTH LOGIN YW5h\r\n"),
            ("S", b"334 UGFzc3dvcmQ6\r\n"),
            ("C", b"c2VjcmV0\r\n"),
            ("S", b"535\r\n"),
        ],
    ),
    (
        "SMTP",
        [
            ("S", b"220\r\n"),
            ("C", b"AUTH LOGIN\r\nYW5h\r\nc2VjcmV0\r\n"),
            ("S", b"334 VXNlcm5hbWU6\r\n"),
            ("S", b"334 UGFzc3dvcmQ6\r\n"),
            ("S", b"235\r\n"),
        ],
    ),
    ("POP3", [("S", b"+OK\r\n"), ("C", b"USER ana\r\nPASS secret\r\n"), ("S", b"+OK\r\n+OK\r\n")]),
    ("POP3", [("S", b"+OK\r\n"), ("C", b"pass  secret phrase \r\n"), ("S", b"-ERR\r\n")]),
    ("POP3", [("S", b"+OK\r\n"), ("C", b"PASS\tsecret\r\n"), ("S", b"-ERR\r\n")]),
    ("POP3", [("S", b"+OK\r\n"), ("C", b"APOP ana c4c9334bac56\r\n"), ("S", b"+OK\r\n")]),
    ("POP3", [("S", b"+OK\r\n"), ("C", b"AUTH PLAIN AGFuYQBzZWNyZXQ=\r\n"), ("S", b"+OK\r\n")]),
    (
        "POP3",
        [
            ("S", b"+OK\r\n"),
            ("C", b"AUTH LOGIN\r\n"),
            ("S", b"+ VXNlcm5hbWU6\r\n"),
            ("C", b"YW5h\r\n"),
            ("S", b"+ UGFzc3dvcmQ6\r\n"),
            ("C", b"c2VjcmV0\r\n"),
            ("S", b"+OK\r\n"),
        ],
    ),
    ("IMAP", [("S", b"* OK\r\n"), ("C", b"a1 LOGIN ana secret\r\n"), ("S", b"a1 OK\r\n")]),
    ("IMAP", [("S", b"* OK\r\n"), ("C", b'a1 login "ana" "se\\"cret"\r\n'), ("S", b"a1 OK\r\n")]),
    ("IMAP", [("S", b"* OK\r\n"), ("C", b'a1 LOGIN "a \\" b" secret\r\n'), ("S", b"a1 NO\r\n")]),
    ("IMAP", [("S", b"* OK\r\n"), ("C", b'a1 LOGIN "ana secret\r\n'), ("S", b"a1 BAD\r\n")]),
    ("IMAP", [("S", b"* OK\r\n"), ("C", b"a1 LOGIN ana {secret\r\n"), ("S", b"a1 BAD\r\n")]),
    ("IMAP", [("S", b"* OK\r\n"), ("C", b"a1\tLOGIN\tana\tsecret\r\n"), ("S", b"a1 BAD\r\n")]),
    (
        "IMAP",
        [
            ("S", b"* OK\r\n"),
            ("C", b"a1 LOGIN ana {6}\r\n"),
            ("S", b"+\r\n"),
            ("C", b"secret\r\n"),
            ("S", b"a1 OK\r\n"),
        ],
    ),
    (
        "IMAP",
        [
            ("S", b"* OK\r\n"),
            ("C", b"a1 LOGIN {3}\r\n"),
            ("S", b"+\r\n"),
            ("C", b'ana "secret"\r\n'),
            ("S", b"a1 OK\r\n"),
        ],
    ),
    ("IMAP", [("S", b"* OK\r\n"), ("C", b"a1 LOGIN {3+}\r\nana {6+}\r\nsecret\r\n")]),
    (
        "IMAP",
        [
            ("S", b"* OK\r\n"),
            ("C", b"a1 AUTHENTICATE PLAIN AGFuYQBzZWNyZXQ=\r\n"),
            ("S", b"a1 OK\r\n"),
        ],
    ),
    (
        "IMAP",
        [
            ("S", b"* OK\r\n"),
            ("C", b"a1 authenticate plain\r\n"),
            ("S", b"+ \r\n"),
            ("C", b"AGFuYQBzZWNyZXQ=\r\n"),
            ("S", b"a1 OK\r\n"),
        ],
    ),
]
SECRETS = ("AGFuYQBzZWNyZXQ", "c2VjcmV0", "secret", "cret", "phrase", "c4c9334bac56")


@pytest.mark.parametrize(("protocol", "turns"), LOGINS)
def test_secrets_are_masked_in_every_form_and_at_every_moment(
    protocol: ProtocolName, turns: list[Turn]
) -> None:
    cutter = dialogue(protocol)
    for who, data in turns:
        for octet in data:
            cutter.feed(0, who, bytes([octet]), False)
            for secret in SECRETS:
                # A secret that has only just begun can be anything.
                assert secret not in shown(cutter)
    assert "•" in shown(cutter)


@pytest.mark.parametrize(
    ("protocol", "before", "sent"),
    [
        ("SMTP", b"220 hi\r\n", b"AUTH LOGIN\r\nYW5h\r\nc2VjcmV0\r\n"),
        ("POP3", b"+OK\r\n", b"AUTH LOGIN\r\nYW5h\r\nc2VjcmV0\r\n"),
        ("IMAP", b"* OK\r\n", b"a1 AUTHENTICATE PLAIN\r\nAGFuYQBzZWNyZXQ=\r\n"),
    ],
)
def test_what_was_sent_on_top_of_a_refused_login_is_masked_too(
    protocol: ProtocolName, before: bytes, sent: bytes
) -> None:
    refusals = {"SMTP": b"504 no\r\n", "POP3": b"-ERR no\r\n", "IMAP": b"a1 NO no\r\n"}
    cutter = cut(protocol, [("S", before), ("C", sent)])
    assert not [secret for secret in SECRETS if secret in shown(cutter)]
    cutter.feed(1, "S", refusals[protocol], False)
    assert not [secret for secret in SECRETS if secret in shown(cutter)]
    cutter.feed(2, "C", b"a2 NOOP\r\nAAAA\r\n", False)
    assert "AAAA" in shown(cutter)


def test_a_verb_after_a_refused_login_is_shown() -> None:
    turns: list[Turn] = [
        ("S", b"220 hi\r\n"),
        ("C", b"AUTH PLAIN eA==\r\n"),
        ("S", b"535 no\r\n"),
        ("C", b"QUIT\r\n"),
    ]
    assert "QUIT" in shown(cut("SMTP", turns))


def test_a_password_pipelined_behind_an_unanswered_command_is_masked() -> None:
    cutter = cut("POP3", [("S", b"+OK\r\n"), ("C", b"STLS\r\nUSER ana\r\nPASS secret\r\nNO")])
    assert "secret" not in shown(cutter)
    assert "USER ana" in shown(cutter)


def test_an_announced_literal_is_no_secret() -> None:
    cutter = cut("IMAP", IMAP)
    announced = [line for line in cutter.lines if line.data.endswith((b"{3}\r\n", b"{6}\r\n"))]
    assert [line.secret for line in announced] == [None, None]


# -- TLS


def test_what_was_slipped_in_before_tls_does_not_shift_the_answers() -> None:
    cutter = dialogue("SMTP")
    for who, data, tls in (
        ("S", b"220 hi\r\n", False),
        ("C", b"EHLO me\r\n", False),
        ("S", b"250 STARTTLS\r\n", False),
        ("C", b"STARTTLS\r\nRSET\r\nAUTH LOGIN\r\nNOO", False),
        ("S", b"220 go\r\n", False),
        ("C", b"EHLO me\r\n", True),
        ("S", b"250 AUTH LOGIN\r\n", True),
        ("C", b"AUTH LOGIN\r\n", True),
        ("S", b"334 VXNlcm5hbWU6\r\n", True),
        ("C", b"YW5h\r\n", True),
        ("S", b"334 UGFzc3dvcmQ6\r\n", True),
        ("C", b"c2VjcmV0\r\n", True),
        ("S", b"235 ok\r\n", True),
        ("C", b"MAIL FROM:<a@b>\r\n", True),
    ):
        cutter.feed(0, "C" if who == "C" else "S", data, tls)
    lines = [(line.kind, line.data, line.tls) for line in (*cutter.lines, *cutter.rest())]
    assert lines[5:9] == [
        ("command", b"RSET\r\n", False),
        ("command", b"AUTH LOGIN\r\n", False),
        ("command", b"NOO", False),
        ("command", b"EHLO me\r\n", True),
    ]
    assert [kind for kind, _, tls in lines if tls] == [
        *("command", "reply", "command", "reply", "credentials", "reply"),
        *("credentials", "reply", "command"),
    ]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tls_from_the_first_octet_starts_nothing_over(protocol: ProtocolName) -> None:
    under, plain = dialogue(protocol), dialogue(protocol)
    for at, (who, data) in enumerate(DIALOGUES[protocol]):
        under.feed(at, who, data, True)
        plain.feed(at, who, data, False)
    assert shapes(under) == shapes(plain)
    assert all(line.tls for line in under.lines)


def test_a_client_that_cannot_wait_for_the_greeting_is_understood() -> None:
    cutter = cut(
        "SMTP",
        [
            ("C", b"EHLO me\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nhello\r\n.\r\nQUIT\r\n"),
            ("S", b"220 hi\r\n250 hi\r\n250 ok\r\n250 ok\r\n354 go\r\n250 stored\r\n221 bye\r\n"),
        ],
    )
    assert ("C", "content", b"hello\r\n") in kinds(cutter)
    assert kinds(cutter)[-1][2] == b"221 bye\r\n"
    assert cutter.rest() == []
    assert cutter.farewell


# -- literals that the server doesn't want


def test_a_refused_literal_is_not_waited_for() -> None:
    cutter = cut(
        "IMAP",
        [
            ("S", b"* OK\r\n"),
            ("C", b"a1 APPEND x {999999}\r\n"),
            ("S", b"a1 NO [TRYCREATE] no\r\n"),
            ("C", b"a2 NOOP\r\n"),
            ("S", b"a2 OK\r\n"),
        ],
    )
    assert [kind for _, kind, _ in kinds(cutter)] == ["reply", "command"] * 2 + ["reply"]


def test_a_refused_literal_that_comes_unasked_is_still_read_over() -> None:
    cutter = cut(
        "IMAP",
        [
            ("S", b"* OK\r\n"),
            ("C", b"a1 APPEND x {4+}\r\n"),
            ("S", b"a1 NO no\r\n"),
            ("C", b"word\r\na2 NOOP\r\n"),
        ],
    )
    assert ("C", "content", b"word") in kinds(cutter)
    assert kinds(cutter)[-1] == ("C", "command", b"a2 NOOP\r\n")


def test_an_authentication_refused_without_a_tag_holds_nothing_up() -> None:
    cutter = cut(
        "IMAP",
        [
            ("S", b"* OK\r\n"),
            ("C", b"a1 AUTHENTICATE\r\n"),
            ("S", b"* BAD what\r\n"),
            ("C", b"a2 NOOP\r\n"),
        ],
    )
    assert kinds(cutter)[-1] == ("C", "command", b"a2 NOOP\r\n")
    assert cutter.rest() == []


def test_a_plus_that_nobody_asked_for_makes_no_credentials() -> None:
    cutter = cut("POP3", [("S", b"+OK\r\n"), ("C", b"NOOP\r\n"), ("S", b"+ odd\r\n")])
    cutter.feed(9, "C", b"STAT\r\n", False)
    assert kinds(cutter)[-1] == ("C", "command", b"STAT\r\n")


# -- bounds


def test_a_long_body_is_shortened_and_every_octet_counted() -> None:
    body = b"x" * 98 + b"\r\n"
    turns: list[Turn] = [("S", b"220\r\n"), ("C", b"DATA\r\n"), ("S", b"354 go\r\n")]
    cutter = cut("SMTP", [*turns, *[("C", body)] * 5000, ("C", b".\r\n"), ("S", b"250 ok\r\n")])
    content = next(line for line in cutter.lines if line.kind == "content")
    assert len(content.data) == 64 * 1024
    assert content.octets == 500_000
    assert content.shortened
    assert [line.kind for line in cutter.lines[-2:]] == ["end", "reply"]
    assert cutter.dropped == 0


@pytest.mark.parametrize("room", range(18, 26))
def test_the_dot_is_found_wherever_the_shortened_part_ends(room: int) -> None:
    turns: list[Turn] = [
        ("S", b"220\r\n"),
        ("C", b"DATA\r\n"),
        ("S", b"354\r\n"),
        *(("C", bytes([octet])) for octet in b"0123456789\r\n.x\r\n.\r\n"),
        ("S", b"250 ok\r\n"),
    ]
    cutter = cut("SMTP", turns, bounds=Bounds(body=room))
    content, end = [line for line in cutter.lines if line.kind in ("content", "end")]
    assert (content.octets, content.data) == (16, b"0123456789\r\n.x\r\n"[:room])
    assert (end.data, end.octets) == (b".\r\n", 3)


def test_a_message_fetched_and_a_literal_are_shortened_too() -> None:
    small = Bounds(body=10)
    fetched = cut(
        "POP3",
        [("S", b"+OK\r\n"), ("C", b"RETR 1\r\n"), ("S", b"+OK\r\n" + b"y" * 50 + b"\r\n.\r\n")],
        bounds=small,
    )
    assert [(line.data, line.octets) for line in fetched.lines[3:]] == [
        (b"y" * 10, 52),
        (b".\r\n", 3),
    ]
    literal = cut("IMAP", [("S", b"* OK\r\n"), ("S", b"* {50}\r\n" + b"z" * 50)], bounds=small)
    assert (literal.lines[-1].data, literal.lines[-1].octets) == (b"z" * 10, 50)


def test_a_literal_announced_beyond_what_is_kept_of_a_line_is_still_found() -> None:
    line = b"* 1 FETCH (ENVELOPE (" + b'"' + b"s" * 70_000 + b'") BODY[] {6}\r\n'
    cutter = cut("IMAP", [("S", b"* OK\r\n"), ("S", line + b"a1 OK\n)\r\n")])
    assert [line.kind for line in cutter.lines] == ["reply", "reply", "content", "reply"]
    assert cutter.lines[1].octets == len(line)
    assert cutter.dropped == len(line) - 64 * 1024


def test_a_session_beyond_its_bound_keeps_its_beginning_and_counts_the_rest() -> None:
    ask, answer = b"NOOP\r\n", b"250 OK\r\n"
    turns: list[Turn] = [("S", b"220\r\n"), *[("C", ask), ("S", answer)] * 100]  # type: ignore[list-item]
    cutter = cut("SMTP", turns, bounds=Bounds(session=100))
    said = [data for _, data in turns]
    assert [line.data for line in cutter.lines] == said[: len(cutter.lines)]
    assert cutter.kept <= 100
    assert cutter.kept + cutter.dropped == sum(map(len, said))


def test_many_empty_lines_are_bounded_by_their_number() -> None:
    cutter = cut("SMTP", [("S", b"220\r\n"), ("C", b"\r\n" * 30_000)])
    assert len(cutter.lines) == Bounds().lines
    assert cutter.dropped == 2 * (30_000 + 1 - Bounds().lines)


def test_a_line_without_end_is_bounded_and_counted() -> None:
    cutter = cut("SMTP", [("S", b"220\r\n"), *[("C", b"x" * 10_000)] * 100])
    (rest,) = cutter.rest()
    assert (len(rest.data), rest.octets, rest.kind) == (64 * 1024, 1_000_000, "command")


def test_octets_held_back_for_an_answer_are_bounded_and_counted() -> None:
    flood = b"y" * 200_000
    cutter = cut("SMTP", [("S", b"220\r\n"), ("C", b"DATA\r\n"), ("C", flood)])
    assert sum(len(line.data) for line in cutter.rest()) == 64 * 1024
    assert sum(line.octets for line in cutter.rest()) == len(flood)


def test_farewell_is_said_by_quit_and_logout_only() -> None:
    for protocol, word in (("SMTP", b"quit"), ("POP3", b"QUIT"), ("IMAP", b"a9 logout")):
        cutter = dialogue(protocol)  # type: ignore[arg-type]
        cutter.feed(0, "C", b"a1 NOOP\r\n", False)
        assert not cutter.farewell
        cutter.feed(1, "C", word + b"\r\n", False)
        assert cutter.farewell


def test_lines_are_plain_data() -> None:
    line = cut("POP3", POP3).lines[0]
    assert isinstance(line, Line)
    with pytest.raises(AttributeError):
        line.data = b""  # type: ignore[misc]


@pytest.mark.parametrize(
    ("asked", "kinds"),
    [
        (b"a1 APPEND x {3}\r\nhi!\r\na2 NOOP\r\n", ["command", "content", "command", "command"]),
        (b"a1 LOGIN {3}\r\nana {3}\r\npw!\r\n", ["command", *["credentials"] * 3]),
    ],
)
def test_a_literal_nobody_has_given_leave_for_is_shown_as_what_it_was_to_be(
    asked: bytes, kinds: list[str]
) -> None:
    cutter = dialogue("IMAP")
    cutter.feed(0, "S", b"* OK hi\r\n", False)
    cutter.feed(1, "C", asked, False)
    told = [*cutter.lines, *cutter.rest()][1:]
    assert [line.kind for line in told] == kinds
    assert b"".join(line.data for line in told) == asked
    cutter.feed(2, "S", b"a1 BAD no\r\n", False)
    assert {line.kind for line in cutter.lines if line.who == "C"} == {"command"}
