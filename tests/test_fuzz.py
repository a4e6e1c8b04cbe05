"""Chance against the servers: a grammar of commands, mutated; and all that ever found a mistake.

The same octets on every run and on every machine. `benchmarks/fuzz.py` looks further, by chance or
by coverage, for as long as it is let.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from labserver import Lab
from labserver.network.inline import InlineNetwork
from tests.fuzz_targets import (
    CORPUS,
    PARSERS,
    READERS,
    cuttings,
    grows,
    lab_for_fuzzing,
    play,
    tried,
)
from tests.steps import LINEAR

pytestmark = pytest.mark.long

LISTENERS = {"smtp": "smtp", "submissions": "smtp", "pop3": "pop3", "imap": "imap"}
"""Who is talked to, and the folder of its seeds."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    network = InlineNetwork()
    with lab_for_fuzzing(network) as made:
        yield made
    network.close()


# -- what was found before


@pytest.mark.parametrize(
    ("seed", "listener"),
    [
        pytest.param(seed, listener, id=f"{listener}-{seed.name}")
        for listener, folder in LISTENERS.items()
        for seed in sorted((CORPUS / folder).iterdir())
    ],
)
def test_a_seed_finds_nothing(lab: Lab, seed: Path, listener: str) -> None:
    for chunks in cuttings(seed.read_bytes()):
        play(lab, listener, chunks)


@pytest.mark.parametrize("name", PARSERS)
def test_no_seed_upsets_a_parser(name: str) -> None:
    seeds = [seed for seed in sorted(CORPUS.rglob("*")) if seed.is_file()]
    assert len(seeds) > 20
    for seed in seeds:
        PARSERS[name](seed.read_bytes())


# -- what costs more than its length


@pytest.mark.parametrize("name", READERS)
def test_no_reader_costs_more_than_the_length_of_what_it_reads(name: str) -> None:
    found = {
        (before[-20:], unit): growth
        for before, unit in tried(name)
        if min(growth := grows(READERS[name], before, unit, 1_000)) > LINEAR
    }
    assert not found


def test_what_costs_too_much_is_found() -> None:
    def pairs(octets: bytes) -> int:
        return sum(octets.startswith(b"x", at) for _ in octets for at in range(len(octets)))

    assert min(grows(pairs, b"", b"x", 100)) > 3
    assert max(grows(lambda octets: [chr(one) for one in octets], b"", b"x", 1_000)) < LINEAR


# -- what a grammar comes upon

ODD = st.sampled_from(
    [
        *(
            b"\0",
            b"\r",
            b"\n",
            b"\r\r\n",
            b"\t",
            b" ",
            b"  ",
            b"\x7f",
            b"\x1b[2J",
            b"\xff",
            b"\xc3",
        ),
        *(b"\xc2\xb2", "１".encode(), "\u2028".encode(), "\U0001f600".encode(), b"\xed\xa0\x80"),
        *(b"0", b"-1", b"1", b"2", b"4294967296", b"9" * 30, b"9" * 300, b"00000001", b"1e3"),
        *(b'"', b"\\", b'"\\"', b"(", b")", b"((", b"<", b">", b"<>", b"{", b"}", b"%", b"*"),
        *(
            b"{0}",
            b"{3}",
            b"{3+}",
            b"{4096}",
            b"{99999999999}",
            b"{99999999999+}",
            b"{-1}",
            b"~{3}",
        ),
        *(b"x" * 64, b"x" * 256, b"x" * 600, b"x" * 5000, b"NIL", b"INBOX", b"=", b"AAAA", b"*"),
        *(b".", b"..", b"\r\n", b"\r\n.\r\n", b"\n.\n", b":", b";", b",", b"@", b"&-", b"&AAA-"),
    ]
)
WORDS = {
    "smtp": (
        b"EHLO HELO MAIL FROM:<ana@lab.example> RCPT TO:<ben@lab.example> TO:<ana> DATA BDAT LAST"
        b" RSET NOOP QUIT VRFY EXPN HELP STARTTLS AUTH PLAIN LOGIN SIZE=100 BODY=8BITMIME SMTPUTF8"
        b" NOTIFY=NEVER ORCPT=rfc822;a@b RET=HDRS ENVID=x FROM:<> client.example [127.0.0.1] ana"
        b" AGFuYUBsYWIuZXhhbXBsZQBhbmEtbGFiLXBhc3N3b3Jk YW5hQGxhYi5leGFtcGxl Subject:"
    ).split(b" "),
    "pop3": (
        b"USER PASS APOP AUTH PLAIN CAPA STLS STAT LIST RETR DELE TOP UIDL NOOP RSET QUIT"
        b" ana@lab.example ana-lab-password 1 2 3 0 AGFuYUBsYWIuZXhhbXBsZQBhbmEtbGFiLXBhc3N3b3Jk"
    ).split(b" "),
    "imap": (
        b"a b * + UID NOOP CAPABILITY LOGOUT STARTTLS LOGIN AUTHENTICATE PLAIN SELECT EXAMINE"
        b" CREATE DELETE RENAME SUBSCRIBE UNSUBSCRIBE LIST LSUB STATUS APPEND CHECK CLOSE"
        b" EXPUNGE SEARCH FETCH STORE COPY MOVE IDLE DONE ENABLE NAMESPACE UNSELECT INBOX Work"
        b" a/b 1:* 1,2 2:1"
        b" *:* FLAGS +FLAGS.SILENT (\\Seen) (\\Deleted $k) ALL OR NOT TEXT SUBJECT HEADER SINCE"
        b" 1-Jan-2026 CHARSET UTF-8 BODY[] BODY.PEEK[1] BODY[HEADER.FIELDS (a)] ENVELOPE"
        b' BODYSTRUCTURE RFC822.SIZE INTERNALDATE <0.5> (MESSAGES UIDNEXT) "" % ana@lab.example'
        b" ana-lab-password AGFuYUBsYWIuZXhhbXBsZQBhbmEtbGFiLXBhc3N3b3Jk {3+} xyz"
    ).split(b" "),
}
COMMANDS = {
    "smtp": [
        *(
            b"EHLO client.example",
            b"HELO x",
            b"MAIL FROM:<ana@lab.example>",
            b"MAIL FROM:<> SIZE=9",
        ),
        *(b"RCPT TO:<ben@lab.example>", b"RCPT TO:<nobody@far.example>", b"DATA", b".", b"RSET"),
        *(
            b"MAIL FROM:<> SIZE=9",
            b"NOOP",
            b"QUIT",
            b"VRFY ana",
            b"HELP MAIL",
            b"STARTTLS",
            b"BDAT 5",
            b"BDAT 3 LAST",
        ),
        *(
            b"AUTH PLAIN",
            b"AUTH LOGIN",
            b"AGFuYUBsYWIuZXhhbXBsZQBhbmEtbGFiLXBhc3N3b3Jk",
            b"Subject: x",
        ),
        *(b"", b"..", b"Subject: x", b"AUTH PLAIN AGFuYUBsYWIuZXhhbXBsZQBhbmEtbGFiLXBhc3N3b3Jk"),
    ],
    "pop3": [
        *(b"USER ana@lab.example", b"PASS ana-lab-password", b"CAPA", b"STLS", b"STAT", b"LIST"),
        *(b"LIST 1", b"RETR 1", b"RETR 2", b"TOP 2 1", b"DELE 1", b"UIDL", b"UIDL 2", b"NOOP"),
        *(b"RSET", b"QUIT", b"AUTH", b"AUTH PLAIN", b"PASS wrong", b"*"),
        b"AUTH PLAIN AGFuYUBsYWIuZXhhbXBsZQBhbmEtbGFiLXBhc3N3b3Jk",
    ],
    "imap": [
        *(b"a LOGIN ana@lab.example ana-lab-password", b"b SELECT INBOX", b"c EXAMINE INBOX"),
        *(b'd LIST "" *', b'e LSUB "" %', b"f CREATE Work/a", b"g DELETE Work", b"h NOOP"),
        *(b"i RENAME INBOX Old", b"j STATUS INBOX (MESSAGES UIDNEXT UNSEEN)", b"k CLOSE"),
        *(
            b"l APPEND INBOX {3+}\r\nx:y",
            b'm APPEND Work (\\Seen) "1-Jan-2026 00:00:00 +0000" {2}',
        ),
        *(b"n FETCH 1:* (FLAGS ENVELOPE BODYSTRUCTURE)", b"o UID FETCH * BODY.PEEK[]<1.9>"),
        *(b"p FETCH 2 BODY[2.1.MIME]", b"q STORE 1 +FLAGS (\\Deleted $k)", b"r EXPUNGE", b"DONE"),
        *(b"s SEARCH OR SEEN NOT (SUBJECT {3+}\r\none)", b"t UID SEARCH CHARSET UTF-8 TEXT x"),
        *(
            b"u COPY 1:2 INBOX",
            b"v UID MOVE 1:* Work",
            b"w IDLE",
            b"x LOGOUT",
            b"y AUTHENTICATE PLAIN",
        ),
        *(b"AGFuYUBsYWIuZXhhbXBsZQBhbmEtbGFiLXBhc3N3b3Jk", b"z ENABLE CONDSTORE", b"a1 NAMESPACE"),
        b"y AUTHENTICATE PLAIN",
    ],
}
HEADERS = [
    *(b"From: ", b"To: ", b"Subject: ", b"Content-Type: ", b"text/plain", b"message/rfc822"),
    *(b"multipart/mixed; boundary=b", b"; charset=", b'"b"', b"\r\n", b"\r\n\r\n", b"--b\r\n"),
    *(b"--b--\r\n", b"ana@lab.example", b"<ana@lab.example>", b"Ana", b", ", b"a: b;", b"(x)"),
    *(
        b"=?utf-8?q?=41?=",
        b"=?utf-8?b?QQ==?=",
        b"=?x?q?",
        b"?=",
        b"Content-Disposition: ",
        b"\r\n ",
    ),
]
PROLOGUES = {
    "smtp": [
        b"",
        b"EHLO x\r\n",
        b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<ben@lab.example>\r\n",
        b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<ben@lab.example>\r\nDATA\r\n",
    ],
    "pop3": [b"", b"USER ana@lab.example\r\nPASS ana-lab-password\r\n"],
    "imap": [
        b"",
        b"l LOGIN ana@lab.example ana-lab-password\r\n",
        b"l LOGIN ana@lab.example ana-lab-password\r\ns SELECT INBOX\r\n",
    ],
}


@st.composite
def commands(draw: st.DrawFn, protocol: str) -> bytes:
    """A command as it should be, or bent in some way."""
    kind = draw(st.integers(0, 5))
    if kind == 0:
        return b" ".join(draw(st.lists(st.sampled_from(WORDS[protocol]) | ODD, max_size=6)))
    if kind == 1:
        return draw(st.binary(max_size=40))
    command = draw(st.sampled_from(COMMANDS[protocol]))
    if kind == 2:
        at = draw(st.integers(0, len(command)))
        return command[:at] + draw(ODD) + command[at + draw(st.integers(0, 3)) :]
    if kind == 3:
        words = command.split(b" ")
        words[draw(st.integers(0, len(words) - 1))] = draw(
            ODD | st.sampled_from(WORDS[protocol]) | st.binary(max_size=8)
        )
        return draw(st.sampled_from([b" ", b"  ", b"\t"])).join(words)
    if kind == 4:
        return command.swapcase()
    return command


@st.composite
def conversations(draw: st.DrawFn, protocol: str) -> list[bytes]:
    """What a client sends, cut into chunks anywhere."""
    ends = st.sampled_from([b"\r\n"] * 8 + [b"\n", b"\r", b"", b"\r\n\r\n"])
    said = draw(st.sampled_from(PROLOGUES[protocol])) + b"".join(
        command + draw(ends) for command in draw(st.lists(commands(protocol), max_size=12))
    )
    if not draw(st.booleans()):
        return [said]
    cuts = sorted(draw(st.sets(st.integers(0, len(said)), max_size=6)))
    return [said[a:b] for a, b in zip([0, *cuts], [*cuts, len(said)], strict=True) if a < b]


OCTETS = (
    st.binary(max_size=200)
    | st.lists(ODD, max_size=20).map(b"".join)
    | st.sampled_from(WORDS["smtp"] + WORDS["imap"])
    | st.lists(st.sampled_from(HEADERS) | ODD, max_size=12).map(b"".join)
)
"""For what isn't a server: addresses, messages, commands."""

BOUNDED = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=200,
    # No second run under a tracer to explain a failure.
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)


@BOUNDED
@given(chunks=conversations("smtp"))
def test_smtp_survives_any_client(lab: Lab, chunks: list[bytes]) -> None:
    play(lab, "smtp", chunks)


@settings(BOUNDED, max_examples=80)
@given(chunks=conversations("smtp"))
def test_submission_survives_any_client(lab: Lab, chunks: list[bytes]) -> None:
    play(lab, "submissions", chunks)


@BOUNDED
@given(chunks=conversations("pop3"))
def test_pop3_survives_any_client(lab: Lab, chunks: list[bytes]) -> None:
    play(lab, "pop3", chunks)


@BOUNDED
@given(chunks=conversations("imap"))
def test_imap_survives_any_client(lab: Lab, chunks: list[bytes]) -> None:
    play(lab, "imap", chunks)


@settings(BOUNDED, max_examples=400)
@given(octets=OCTETS)
def test_parsers_survive_any_octets(octets: bytes) -> None:
    for target in PARSERS.values():
        target(octets)
