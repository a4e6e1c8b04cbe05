"""The catalog: complete, sourced, closed, and right about whole dialogues."""

from __future__ import annotations

import cProfile
import imaplib
import poplib
import pstats
import random
import re
import smtplib
import tomllib
from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import UTC, datetime
from itertools import chain, pairwise
from pathlib import Path

import pytest
from dialogue import Client, play

from labserver import Disconnect, Lab, Limits, rules
from labserver.catalog import (
    PROTOCOLS,
    Catalog,
    Command,
    EnhancedStatus,
    Meaning,
    Reply,
    Term,
    enhanced,
    enhanced_statuses,
    explain,
    legal,
    load,
    path,
    source_url,
)
from labserver.dialogue import dialogue
from labserver.network import Network
from labserver.transcript import Line, ProtocolName, Session

TABLES = Path(__file__).parents[1] / "labserver" / "data"
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def session(protocol: ProtocolName, lines: tuple[Line, ...]) -> Session:
    return Session(1, protocol, "test", EPOCH, lines, (), 1.0, True)


def said(protocol: ProtocolName, script: str) -> Session:
    """A session from a script of `C: …` and `S: …`; after `-- TLS` it is under TLS."""
    cutter, tls = dialogue(protocol), False
    for at, row in enumerate(filter(None, map(str.strip, script.splitlines()))):
        if row == "-- TLS":
            tls = True
            continue
        who, _, text = row.partition(":")
        assert who in ("C", "S"), row
        cutter.feed(at, "C" if who == "C" else "S", text[1:].encode() + b"\r\n", tls)
    return session(protocol, (*cutter.lines, *cutter.rest()))


def with_meanings(session: Session) -> list[tuple[Line, Meaning]]:
    """Each line with its meaning."""
    return list(zip(session.lines, explain(session), strict=True))


def meaning(protocol: ProtocolName, script: str) -> Meaning:
    """What the script's last line means."""
    return explain(said(protocol, script))[-1]


def terms(catalog: Catalog) -> Iterator[Term]:
    for section in ("keywords", "codes", "data", "flags", "digits", "states"):
        yield from getattr(catalog, section).values()


def entries(catalog: Catalog) -> Iterator[Command | Reply | Term]:
    yield from catalog.commands.values()
    yield from catalog.replies.values()
    yield from terms(catalog)


# -- complete: the lists are taken by hand from the RFCs

SMTP_COMMANDS = "EHLO HELO MAIL RCPT DATA RSET VRFY EXPN HELP NOOP QUIT STARTTLS AUTH BDAT"
SMTP_CODES = (
    "211 214 220 221 250 251 252 354 421 450 451 452 455 500 501 502 503 504"
    " 550 551 552 553 554 555 235 334 432 454 530 534 535 538 521 556"
)
SMTP_KEYWORDS = (
    "SIZE 8BITMIME PIPELINING DSN ENHANCEDSTATUSCODES CHUNKING BINARYMIME SMTPUTF8 AUTH STARTTLS"
    " HELP VRFY EXPN"
)
POP3_COMMANDS = "USER PASS APOP QUIT STAT LIST RETR DELE NOOP RSET TOP UIDL CAPA STLS AUTH"
POP3_CODES = "LOGIN-DELAY IN-USE SYS/TEMP SYS/PERM AUTH"
POP3_CAPABILITIES = (
    "TOP USER SASL RESP-CODES LOGIN-DELAY PIPELINING EXPIRE UIDL IMPLEMENTATION STLS AUTH-RESP-CODE"
)
IMAP_COMMANDS = (
    "CAPABILITY NOOP LOGOUT STARTTLS AUTHENTICATE LOGIN SELECT EXAMINE CREATE DELETE RENAME"
    " SUBSCRIBE UNSUBSCRIBE LIST LSUB STATUS APPEND CHECK CLOSE EXPUNGE SEARCH FETCH STORE COPY"
    " X<atom> IDLE DONE NAMESPACE UNSELECT ENABLE MOVE ID"
)
IMAP_UID_COMMANDS = "FETCH STORE COPY SEARCH EXPUNGE MOVE"
IMAP_DATA = "CAPABILITY LIST LSUB STATUS SEARCH FLAGS EXISTS RECENT EXPUNGE FETCH ENABLED NAMESPACE"
IMAP_CODES = (
    "ALERT BADCHARSET CAPABILITY PARSE PERMANENTFLAGS READ-ONLY READ-WRITE TRYCREATE UIDNEXT"
    " UIDVALIDITY UNSEEN APPENDUID COPYUID UIDNOTSTICKY UNAVAILABLE AUTHENTICATIONFAILED"
    " AUTHORIZATIONFAILED EXPIRED PRIVACYREQUIRED CONTACTADMIN NOPERM INUSE EXPUNGEISSUED"
    " CORRUPTION SERVERBUG CLIENTBUG CANNOT LIMIT TOOBIG OVERQUOTA ALREADYEXISTS NONEXISTENT"
)
IMAP_FLAGS = r"\Seen \Answered \Flagged \Deleted \Draft \Recent"
RFC_3463 = {0: 0, 1: 8, 2: 4, 3: 5, 4: 7, 5: 5, 6: 5, 7: 7}
"""The subjects of RFC 3463, and the highest detail of each."""


def test_smtp_is_complete() -> None:
    smtp = load("SMTP")
    typed = {verb for verb, command in smtp.commands.items() if command.typed}
    assert typed == {*SMTP_COMMANDS.split(), "BDAT LAST"}
    assert set(smtp.commands) - typed == {"greeting", "end of data"}
    assert set(smtp.replies) == set(SMTP_CODES.split())
    assert set(SMTP_KEYWORDS.split()) <= set(smtp.keywords)
    assert set(smtp.digits) == {f"{n}yz" for n in range(2, 6)} | {f"x{n}z" for n in range(6)}


def test_pop3_is_complete() -> None:
    pop3 = load("POP3")
    assert set(pop3.commands) == {*POP3_COMMANDS.split(), "greeting"}
    assert set(pop3.replies) == {"+OK", "-ERR", "+"}
    assert set(pop3.codes) == set(POP3_CODES.split())
    assert set(POP3_CAPABILITIES.split()) <= set(pop3.keywords)


def test_imap_is_complete() -> None:
    imap = load("IMAP")
    uid = {f"UID {verb}" for verb in IMAP_UID_COMMANDS.split()}
    assert set(imap.commands) == {*IMAP_COMMANDS.split(), *uid, "greeting"}
    assert set(imap.replies) == {"OK", "NO", "BAD", "PREAUTH", "BYE", "+"}
    assert set(imap.codes) == set(IMAP_CODES.split())
    assert set(imap.data) == {*IMAP_DATA.split(), "ID"}
    assert set(imap.flags) == set(IMAP_FLAGS.split())


@pytest.mark.parametrize(
    ("verb", "codes"),
    [
        ("greeting", "220 554"),
        ("EHLO", "250 502 504 550"),
        ("MAIL", "250 451 452 455 503 550 552 553 555"),
        ("RCPT", "250 251 450 451 452 455 503 550 551 552 553 555"),
        ("DATA", "354 450 503 550 554"),
        ("end of data", "250 450 451 452 550 552 554"),
        ("RSET", "250"),
        ("VRFY", "250 251 252 502 504 550 551 553"),
        ("EXPN", "250 252 500 502 504 550"),
        ("HELP", "211 214 502 504"),
        ("NOOP", "250"),
        ("QUIT", "221"),
        ("STARTTLS", "220 454 501"),
        ("AUTH", "235 334 432 454 500 501 503 504 534 535 538"),
    ],
)
def test_smtp_commands_know_the_replies_that_the_rfcs_list(verb: str, codes: str) -> None:
    """RFC 5321 section 4.3.2, RFC 3207 section 4, RFC 4954 sections 4 and 6."""
    assert set(codes.split()) <= {code for code, _ in load("SMTP").commands[verb].replies}


def test_every_code_of_rfc_3463_is_known_in_some_class() -> None:
    known = {status.code[2:] for status in enhanced_statuses()}
    wanted = {f"{subject}.{n}" for subject, most in RFC_3463.items() for n in range(most + 1)}
    later = {"1.10", "5.6", "6.7", *(f"7.{n}" for n in range(8, 31))}
    assert wanted | later <= known


def test_an_unregistered_enhanced_code_still_tells_its_class_and_subject() -> None:
    status = enhanced("5.1.99")
    assert status.subject == enhanced("5.1.1").subject
    assert status.category == enhanced("5.7.1").category
    assert enhanced("4.999.999").title


def test_enhanced_codes_tell_success_from_trouble() -> None:
    assert enhanced("2.7.0").title == "Your login is good."
    assert enhanced("5.7.0").title != enhanced("2.7.0").title


@pytest.mark.parametrize("code", ["", "5.1", "3.1.1", "5.1.1.1", "5.1.1000", "5,1,1", "٥.1.1", "x"])
def test_what_is_no_enhanced_code_is_refused_in_a_sentence(code: str) -> None:
    with pytest.raises(ValueError, match=r"one looks like 5\.1\.1"):
        enhanced(code)


def test_an_unknown_protocol_is_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="SMTP, POP3, IMAP"):
        load("HTTP")  # type: ignore[arg-type]


# -- sourced, anchored, written well


def everything() -> list[tuple[str, Command | Reply | Term | EnhancedStatus]]:
    known: list[tuple[str, Command | Reply | Term | EnhancedStatus]] = [
        (name, entry) for name in PROTOCOLS for entry in entries(load(name))
    ]
    return known + [("enhanced", status) for status in enhanced_statuses()]


def test_every_entry_has_a_source_that_can_be_read() -> None:
    for _, entry in everything():
        assert entry.sources, entry
        assert all(source_url(source).startswith("https://") for source in entry.sources)
    for name in PROTOCOLS:
        for note in load(name).notes.values():
            assert all(map(source_url, note.sources))


def test_sources_become_addresses() -> None:
    rfc = "https://www.rfc-editor.org/rfc/rfc"
    assert source_url("RFC 5321 §4.1.1.2") == f"{rfc}5321#section-4.1.1.2"
    assert source_url("RFC 5321 Appendix D") == f"{rfc}5321#appendix-D"
    assert source_url("RFC 3030") == f"{rfc}3030"
    assert source_url("IANA SMTP Enhanced Status Codes").startswith("https://www.iana.org/")
    assert source_url("draft-murchison-sasl-login").startswith("https://datatracker.ietf.org/")


@pytest.mark.parametrize("source", ["", "RFC", "RFC 5321 4.1", "RFC 5321 §", "javascript:x", "§1"])
def test_what_is_no_source_is_refused_in_a_sentence(source: str) -> None:
    with pytest.raises(ValueError, match="no source of the catalog"):
        source_url(source)


def test_anchors_are_unique_and_fit_into_an_address() -> None:
    anchors = [entry.anchor for _, entry in everything()]
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", anchor) for anchor in anchors)
    assert len(anchors) == len(set(anchors))
    wanted = {
        *("smtp-ehlo", "smtp-550", "smtp-end-of-data", "smtp-keyword-size", "smtp-state-ready"),
        *("pop3-retr", "pop3-ok", "pop3-err", "pop3-code-in-use", "pop3-continuation"),
        *("imap-fetch", "imap-uid-fetch", "imap-untagged-fetch", "imap-code-trycreate"),
        *("imap-flag-seen", "imap-continuation", "enhanced-5-1-1"),
    }
    assert wanted <= set(anchors)


def test_texts_are_short_sentences() -> None:
    for where, entry in everything():
        assert re.fullmatch(r"[^\n]{2,110}[.?]", entry.title), (where, entry.title)
        assert not entry.meaning or re.fullmatch(r"[^\n]+[.?]", entry.meaning), entry.meaning
    for name in PROTOCOLS:
        catalog = load(name)
        places = chain(catalog.everywhere, *(c.replies for c in catalog.commands.values()))
        for _, text in places:
            first = text.partition(". ")[0]
            assert 3 < len(first) < 110, text
            assert re.fullmatch(r"[^\n]+[.]", text), text


def test_tables_cannot_be_changed() -> None:
    smtp = load("SMTP")
    assert smtp is load("SMTP")
    with pytest.raises(TypeError):
        smtp.commands["XYZZY"] = smtp.commands["EHLO"]  # type: ignore[index]


# -- the states


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_state_machine_is_closed(name: ProtocolName) -> None:
    catalog = load(name)
    for transition in catalog.transitions:
        assert {transition.state, transition.to} <= set(catalog.states)
        assert transition.command == "*" or transition.command in catalog.commands
        if transition.command != "*":
            assert transition.state in catalog.commands[transition.command].states
        outcomes = {"done", "go on", "later", "refused", *catalog.replies}
        assert transition.outcome in outcomes
    for command in catalog.commands.values():
        assert set(command.states) <= set(catalog.states), command.verb
        assert {code for code, _ in command.replies} <= set(catalog.replies), command.verb
    ways = [(t.state, t.command, t.outcome) for t in catalog.transitions]
    assert len(ways) == len(set(ways))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_state_can_be_reached(name: ProtocolName) -> None:
    catalog = load(name)
    reached, fresh = set[str](), {catalog.start}
    while fresh:
        reached |= fresh
        fresh = {t.to for t in catalog.transitions if t.state in reached} - reached
    assert reached == set(catalog.states)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_state_can_be_left_but_the_last(name: ProtocolName) -> None:
    catalog = load(name)
    last = set(catalog.states) - {t.state for t in catalog.transitions}
    assert last == {"SMTP": {"Closed"}, "POP3": {"UPDATE", "Closed"}, "IMAP": {"Logout"}}[name]


# -- the RFCs' own examples, as short transcripts of commands and codes

D_1 = """
S: 220 foo.example ready
C: EHLO bar.example
S: 250-foo.example greets bar.example
S: 250-8BITMIME
S: 250-SIZE
S: 250-DSN
S: 250 HELP
C: MAIL FROM:<smith@bar.example>
S: 250 OK
C: RCPT TO:<jones@foo.example>
S: 250 OK
C: RCPT TO:<green@foo.example>
S: 550 none here
C: RCPT TO:<brown@foo.example>
S: 250 OK
C: DATA
S: 354 go on
C: Subject: x
C:
C: words
C: .
S: 250 OK
C: QUIT
S: 221 bye
"""
D_2 = """
S: 220 foo.example ready
C: EHLO bar.example
S: 250-foo.example greets bar.example
S: 250 HELP
C: MAIL FROM:<smith@bar.example>
S: 250 OK
C: RCPT TO:<jones@foo.example>
S: 250 OK
C: RCPT TO:<green@foo.example>
S: 550 none here
C: RSET
S: 250 OK
C: QUIT
S: 221 bye
"""
D_4 = """
S: 220 foo.example ready
C: EHLO bar.example
S: 250-foo.example greets bar.example
S: 250-DSN
S: 250-VRFY
S: 250 HELP
C: VRFY crispin
S: 250 Mark <admin@foo.example>
C: MAIL FROM:<eak@bar.example>
S: 250 OK
C: RCPT TO:<admin@foo.example>
S: 250 OK
C: DATA
S: 354 go on
C: words
C: .
S: 250 OK
C: QUIT
S: 221 bye
"""
RFC_1939_10 = """
S: +OK ready <1896.69@dbc.example>
C: APOP mrose c4c9334bac560ecc979e58001b3e22fb
S: +OK 2 messages
C: STAT
S: +OK 2 320
C: LIST
S: +OK 2 messages
S: 1 120
S: 2 200
S: .
C: RETR 1
S: +OK 120 octets
S: words
S: .
C: DELE 1
S: +OK marked
C: RETR 2
S: +OK 200 octets
S: words
S: .
C: DELE 2
S: +OK marked
C: QUIT
S: +OK empty
"""
WITH_PASS = RFC_1939_10.replace(
    "C: APOP mrose c4c9334bac560ecc979e58001b3e22fb", "C: USER mrose\nS: +OK\nC: PASS secret"
)
RFC_3501_8 = """
S: * OK ready
C: a1 login mrc secret
S: a1 OK
C: a2 select inbox
S: * 18 EXISTS
S: * FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)
S: * 2 RECENT
S: * OK [UNSEEN 17] first
S: * OK [UIDVALIDITY 3857529045] valid
S: a2 OK [READ-WRITE] done
C: a3 fetch 12 full
S: * 12 FETCH (FLAGS (\\Seen))
S: a3 OK
C: a4 fetch 12 body[header]
S: * 12 FETCH (BODY[HEADER] {12}
S: Subject: x
S: )
S: a4 OK
C: a5 store 12 +flags \\deleted
S: * 12 FETCH (FLAGS (\\Seen \\Deleted))
S: a5 OK
C: a6 logout
S: * BYE bye
S: a6 OK
"""


@pytest.mark.parametrize(
    ("protocol", "script"),
    [
        *(("SMTP", script) for script in (D_1, D_2, D_4)),
        *(("POP3", script) for script in (RFC_1939_10, WITH_PASS)),
        ("IMAP", RFC_3501_8),
    ],
)
def test_the_examples_of_the_rfcs_are_legal(protocol: ProtocolName, script: str) -> None:
    assert legal(said(protocol, script)) == ()
    for line, meaning in with_meanings(said(protocol, script)):
        assert meaning.title or line.data == b")\r\n", line


GREETED: dict[ProtocolName, str] = {
    "SMTP": "S: 220 hi\nC: EHLO me\nS: 250 hi\n",
    "POP3": "S: +OK hi\n",
    "IMAP": "S: * OK hi\n",
}
LOGGED_IN = GREETED["POP3"] + "C: USER a\nS: +OK\nC: PASS b\nS: +OK\n"
SELECTED = GREETED["IMAP"] + "C: a1 LOGIN a b\nS: a1 OK\nC: a2 SELECT INBOX\nS: a2 OK\n"


@pytest.mark.parametrize(
    ("protocol", "script", "sentence"),
    [
        ("SMTP", GREETED["SMTP"] + "C: RCPT TO:<a@b>\nS: 503 no", "RCPT isn't allowed in the st"),
        ("SMTP", GREETED["SMTP"] + "C: DATA\nS: 503 no", "DATA isn't allowed in the state Ready"),
        ("SMTP", "S: 220 hi\nC: MAIL FROM:<a@b>\nS: 503 no", "MAIL isn't allowed in the state Gr"),
        ("SMTP", GREETED["SMTP"] + "C: XYZZY\nS: 500 what", "“XYZZY” is no SMTP command"),
        ("SMTP", GREETED["SMTP"] + "C: NOOP\nS: 354 go on", "354 isn't an answer to NOOP"),
        ("SMTP", GREETED["SMTP"] + "C: NOOP\nS: hello", "This isn't an answer to NOOP"),
        ("SMTP", "S: 250 hi\n", "250 isn't an answer here"),
        ("SMTP", "C: EHLO me\nS: 220 hi\nS: 250 hi", "EHLO comes too early"),
        ("SMTP", "S: 554 no\nC: EHLO me\nS: 503 no", "EHLO isn't allowed in the state Turned"),
        ("SMTP", GREETED["SMTP"] + "C: QUIT\nS: 221 bye\nC: NOOP\nS: 250 x", "the state Closed"),
        ("SMTP", GREETED["SMTP"] + "S: 250 again", "Nothing was asked"),
        (
            "SMTP",
            GREETED["SMTP"] + "C: AUTH PLAIN eA==\nS: 235 ok\nC: AUTH PLAIN eA==\nS: 503 no",
            "AUTH has already succeeded",
        ),
        (
            "SMTP",
            GREETED["SMTP"] + "-- TLS\nC: EHLO me\nS: 250 x\nC: STARTTLS\nS: 503 no",
            "already under TLS",
        ),
        ("POP3", GREETED["POP3"] + "C: RETR 1\nS: -ERR", "RETR isn't allowed in the state AUTH"),
        ("POP3", GREETED["POP3"] + "C: PASS x\nS: -ERR", "PASS isn't allowed in the state AUTH"),
        ("POP3", LOGGED_IN + "C: USER a\nS: -ERR", "USER isn't allowed in the state TRANSACTION"),
        ("POP3", LOGGED_IN + "C: STLS\nS: -ERR", "STLS isn't allowed in the state TRANSACTION"),
        ("POP3", LOGGED_IN + "C: TURN\nS: -ERR", "“TURN” is no POP3 command"),
        ("IMAP", GREETED["IMAP"] + "C: a1 FETCH 1 ALL\nS: a1 BAD", "FETCH isn't allowed in the s"),
        ("IMAP", GREETED["IMAP"] + "C: a1 SELECT x\nS: a1 BAD", "SELECT isn't allowed in the st"),
        ("IMAP", SELECTED + "C: a3 CLOSE\nS: a3 OK\nC: a4 FETCH 1 ALL\nS: a4 BAD", "FETCH isn't"),
        ("IMAP", SELECTED + "C: a3 SELECT x\nS: a3 NO\nC: a4 EXPUNGE\nS: a4 BAD", "EXPUNGE isn't"),
        ("IMAP", SELECTED + "C: a3 LOGIN a b\nS: a3 BAD", "LOGIN isn't allowed in the state Sel"),
        ("IMAP", SELECTED + "C: a3 IDLE\nS: + go\nC: a4 NOOP\nS: a3 BAD", "nothing may be said bu"),
        ("IMAP", SELECTED + "C: a3 FROB\nS: a3 BAD", "“FROB” is no IMAP command"),
        ("IMAP", SELECTED + "C: NOOP\nS: * BAD", "An IMAP command is a tag"),
        ("IMAP", SELECTED + "S: zz OK", "Nothing was asked"),
    ],
)
def test_what_leaves_the_rules_is_named(protocol: ProtocolName, script: str, sentence: str) -> None:
    problems = legal(said(protocol, script))
    assert [problem for problem in problems if sentence in problem.sentence], problems
    assert all(0 <= problem.line < len(said(protocol, script).lines) for problem in problems)


@pytest.mark.parametrize(
    ("protocol", "script"),
    [
        ("SMTP", GREETED["SMTP"] + "C: MAIL FROM:<a@b>"),
        ("SMTP", GREETED["SMTP"] + "C: NOOP\nS: 421 closing"),
        ("SMTP", GREETED["SMTP"] + "S: 421 idle for too long"),
        ("SMTP", "S: 421 busy"),
        ("SMTP", "S: 554 no\nC: QUIT\nS: 221 bye"),
        ("SMTP", ""),
        ("POP3", GREETED["POP3"] + "C: QUIT\nS: +OK bye"),
        ("POP3", GREETED["POP3"] + "C: USER a\nS: -ERR\nC: USER b\nS: +OK\nC: PASS c\nS: -ERR"),
        ("IMAP", "S: * BYE busy"),
        ("IMAP", "S: * PREAUTH hi\nC: a1 SELECT x\nS: a1 OK"),
        ("IMAP", SELECTED + "S: * 4 EXISTS\nS: * BYE shutting down"),
        ("IMAP", SELECTED + "C: a3 IDLE\nS: + go\nS: * 4 EXISTS\nC: DONE\nC: a4 NOOP\nS: a3 OK"),
        ("IMAP", SELECTED + "C: a3 IDLE\nS: * 4 EXISTS\nS: + go\nC: DONE\nS: a3 OK"),
    ],
)
def test_what_keeps_to_the_rules_is_legal(protocol: ProtocolName, script: str) -> None:
    assert legal(said(protocol, script)) == ()


# -- what lines mean in their place


def test_the_same_250_means_something_else_each_time() -> None:
    lines = said("SMTP", D_1)
    titles = [m.title for line, m in with_meanings(lines) if line.data == b"250 OK\r\n"]
    assert titles == [
        "The sender is accepted.",
        "This recipient is accepted.",
        "This recipient is accepted.",
        "From here on the server answers for this mail.",
    ]


def test_220_greets_and_starts_tls() -> None:
    greeting = meaning("SMTP", "S: 220 hi")
    assert (greeting.title, greeting.label) == ("The server speaks first.", "220 ready")
    assert greeting.sources[0] == "RFC 5321 §3.1"
    assert dict(greeting.also).keys() == {"421", "521", "554"}
    start = meaning("SMTP", GREETED["SMTP"] + "C: STARTTLS\nS: 220 go")
    assert "handshake" in start.title
    assert "RFC 3207 §4" in start.sources


def test_a_refused_recipient_leaves_the_others_and_is_the_senders_alone() -> None:
    before = GREETED["SMTP"] + "C: MAIL FROM:<a@b>\nS: 250 ok\n"
    one = "C: RCPT TO:<b@b>\nS: 250 2.1.5 ok\n"
    refused = "C: RCPT TO:<c@b>\nS: 550 5.1.1 who"
    second = meaning("SMTP", before + one + refused)
    assert second.title == "This recipient only; the others stay."
    assert (second.label, second.outcome) == ("550 refused", "refused")
    assert "5.1.1: There is no such mailbox." in second.detail
    assert {"RFC 5321 §4.2.1", "RFC 3463 §3.2"} <= set(second.sources)
    assert second.anchor == "smtp-550"
    alone = meaning("SMTP", before + refused)
    assert alone.title == "This recipient isn't accepted; another one still can be."
    sender = meaning("SMTP", GREETED["SMTP"] + "C: MAIL FROM:<a@b>\nS: 550 no")
    assert sender.title == "The server doesn't take mail from this sender."


def test_recipients_are_counted_anew_for_each_mail() -> None:
    one = "C: MAIL FROM:<a@b>\nS: 250 ok\nC: RCPT TO:<b@b>\nS: 250 ok\n"
    sent = one + "C: DATA\nS: 354 go\nC: words\nC: .\nS: 250 ok\n"
    dropped = one + "C: RSET\nS: 250 ok\n"
    for before in (sent, dropped):
        script = GREETED["SMTP"] + before + "C: MAIL FROM:<a@b>\nS: 250 ok\nC: RCPT TO:<x@b>"
        assert meaning("SMTP", script).title.startswith("One recipient")
    assert meaning("SMTP", GREETED["SMTP"] + one + "C: RCPT TO:<x@b>").title.startswith("One more")


def test_extensions_are_told_line_by_line() -> None:
    script = """
    S: 220 hi
    C: EHLO me
    S: 250-lab.example
    S: 250-SIZE 33554432
    S: 250-SIZE
    S: 250-size 1000
    S: 250-XFROB 1
    S: 250 STARTTLS
    """
    *_, first, big, none, small, strange, last = explain(said("SMTP", script))
    # Nothing shows that one can log in here at all, as on port 25.
    assert first.title == "What this server can do."
    assert first.label == ""
    assert big.title == "Takes messages up to 32 MiB."
    assert none.title == load("SMTP").keywords["SIZE"].title
    assert small.title == "Takes messages up to 1,000 octets."
    assert "XFROB" in strange.title
    assert (last.label, last.outcome, last.anchor) == (
        "250 done",
        "done",
        "smtp-keyword-starttls",
    )
    assert "no extensions" in meaning("SMTP", GREETED["SMTP"]).title
    after = meaning(
        "SMTP", GREETED["SMTP"] + "-- TLS\nC: EHLO me\nS: 250-x\nS: 250 AUTH PLAIN LOGIN"
    )
    assert after.title == "Lets you log in by: PLAIN, LOGIN."


def test_a_login_that_comes_only_under_tls_is_announced() -> None:
    before = "S: 220 hi\nC: EHLO me\nS: 250-lab.example\nS: 250 STARTTLS\n"
    title = "What this server can do. Without TLS it offers no login."
    after = "C: STARTTLS\nS: 220 go\n-- TLS\nC: EHLO me\nS: 250-lab.example\nS: 250 AUTH PLAIN"
    assert explain(said("SMTP", before + after))[2].title == title
    submission = replace(said("SMTP", before), listener="submission")
    assert explain(submission)[2].title == title


def test_ehlo_after_tls_says_that_all_is_forgotten() -> None:
    script = GREETED["SMTP"] + "C: STARTTLS\nS: 220 go\n-- TLS\nC: EHLO me\n"
    assert meaning("SMTP", script).title == "Again: all that was said before TLS is forgotten."
    again = script + "S: 250 hi\nC: EHLO me"
    assert meaning("SMTP", again).title == "Once more: a mail that was under way is dropped."
    assert meaning("SMTP", "S: 220 hi\nC: EHLO me").title.startswith("You introduce yourself")


@pytest.mark.parametrize(
    ("protocol", "line"),
    [
        ("SMTP", "C: AUTH PLAIN AGFuYQBzZWNyZXQ="),
        ("POP3", "C: AUTH PLAIN AGFuYQBzZWNyZXQ="),
        ("IMAP", "C: a1 AUTHENTICATE PLAIN AGFuYQBzZWNyZXQ="),
        ("IMAP", "C: a1 LOGIN ana secret"),
        ("POP3", "C: USER ana\nS: +OK\nC: PASS secret"),
        ("SMTP", "C: AUTH PLAIN\nS: 334 \nC: AGFuYQBzZWNyZXQ="),
        ("SMTP", "C: AUTH LOGIN YW5h\nS: 334 UGFzc3dvcmQ6\nC: c2VjcmV0"),
        ("POP3", "C: AUTH PLAIN\nS: + \nC: AGFuYQBzZWNyZXQ="),
        ("IMAP", "C: a1 AUTHENTICATE PLAIN\nS: +\nC: AGFuYQBzZWNyZXQ="),
    ],
)
def test_a_password_without_tls_is_warned_of(protocol: ProtocolName, line: str) -> None:
    clear = meaning(protocol, GREETED[protocol] + line)
    assert "anyone on the way can read it" in clear.title
    again = GREETED["SMTP"].partition("\n")[2] if protocol == "SMTP" else ""
    under = meaning(protocol, GREETED[protocol] + "-- TLS\n" + again + line)
    assert "anyone" not in under.title
    assert "under TLS nobody can" in under.detail
    assert "c2VjcmV0" not in clear.title + clear.detail + under.title + under.detail


def test_a_login_in_steps_is_told_step_by_step() -> None:
    script = GREETED["SMTP"] + (
        "C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: YW5h\nS: 334 UGFzc3dvcmQ6\nC: c2VjcmV0\nS: 235 ok"
    )
    told = explain(said("SMTP", script))[3:]
    assert [m.title for m in told[1:3]] == [
        "The server asks for your user name.",
        "Your user name, in base64.",
    ]
    assert told[3].title == "The server asks for your password."
    assert [m.label for m in told] == ["", "334 go on", "", "334 go on", "", "235 logged in"]
    assert legal(said("SMTP", script)) == ()
    gives_up = GREETED["SMTP"] + "C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: *"
    assert meaning("SMTP", gives_up).title == "You give up logging in."
    odd = GREETED["SMTP"] + "C: AUTH CRAM-MD5\nS: 334 !!!"
    assert meaning("SMTP", odd).title == "The server asks a question in base64."


def test_pipelined_commands_are_matched_in_order() -> None:
    script = (
        GREETED["SMTP"]
        + """
        C: MAIL FROM:<a@b>
        C: RCPT TO:<b@b>
        C: RCPT TO:<c@b>
        C: DATA
        S: 250 2.1.0 ok
        S: 250 2.1.5 ok
        S: 452 4.5.3 enough
        S: 354 go
        """
    )
    told = explain(said("SMTP", script))[-4:]
    assert [m.title for m in told] == [
        "The sender is accepted.",
        "This recipient is accepted.",
        "No more recipients in this mail, or no room.",
        "Go on: send the message.",
    ]
    assert legal(said("SMTP", script)) == ()


def test_who_pipelines_may_be_refused_without_breaking_a_rule() -> None:
    """RFC 2920: DATA is on its way before RCPT is refused."""
    script = GREETED["SMTP"] + (
        "C: MAIL FROM:<a@b>\nC: RCPT TO:<c@b>\nC: DATA\nS: 250 ok\nS: 550 no\nS: 554 nobody"
    )
    assert legal(said("SMTP", script)) == ()
    waited = GREETED["SMTP"] + (
        "C: MAIL FROM:<a@b>\nS: 250 ok\nC: RCPT TO:<c@b>\nS: 550 no\nC: DATA\nS: 554 nobody"
    )
    assert legal(said("SMTP", waited))


def test_commands_slipped_in_before_tls_are_named_and_change_nothing() -> None:
    script = GREETED["SMTP"] + (
        "C: STARTTLS\nC: MAIL FROM:<a@b>\nS: 220 go\n-- TLS\nC: EHLO me\nS: 250 x\n"
        "C: NOOP\nS: 250 still here"
    )
    told = said("SMTP", script)
    assert [p.sentence for p in legal(told)] == [
        "MAIL was sent before TLS began, so the server throws it away."
    ]
    assert explain(told)[-1].title == "The server is still there."
    assert path(told)[-1].before == "Ready"


def test_content_is_described_and_dot_stuffing_pointed_out() -> None:
    before = GREETED["SMTP"] + (
        "C: MAIL FROM:<>\nS: 250 ok\nC: RCPT TO:<b@b>\nS: 250 ok\nC: DATA\nS: 354 go\n"
    )
    lines = explain(said("SMTP", before + "C: ..hidden\nC: .\n"))
    assert "10 octets" in lines[-2].title
    assert "one dot more" in lines[-2].detail
    assert lines[-1].title == "A dot alone: the message is complete."
    assert "one dot more" not in explain(said("SMTP", before + "C: a..b\nC: .\n"))[-2].detail
    assert "nobody is to get this mail back" in explain(said("SMTP", before))[3].title


def test_a_shortened_message_says_how_much_is_shown() -> None:
    line = Line(0, "C", b"x" * 1024, False, "content", 5000)
    told = explain(session("SMTP", (line,)))[0]
    assert "5,000 octets" in told.title
    assert "first 1 KiB" in told.detail


def test_parameters_are_told_once_each() -> None:
    told = meaning(
        "SMTP",
        GREETED["SMTP"]
        + "C: MAIL FROM:<a@b> SIZE=12 BODY=8BITMIME smtputf8 RET=HDRS ENVID=x AUTH=<>",
    )
    for word in (
        "SIZE tells",
        "BODY tells",
        "SMTPUTF8 tells",
        "RET tells",
        "ENVID is",
        "AUTH tells",
    ):
        assert told.detail.count(word) == 1
    assert "RFC 1870 §6" in told.sources


def test_bdat_is_complete_only_with_its_last_part() -> None:
    cutter = dialogue("SMTP")
    for who, data in [
        ("S", b"220 hi\r\n"),
        ("C", b"EHLO me\r\n"),
        ("S", b"250 CHUNKING\r\n"),
        ("C", b"MAIL FROM:<a@b>\r\nRCPT TO:<b@b>\r\n"),
        ("S", b"250 ok\r\n250 ok\r\n"),
        ("C", b"BDAT 5\r\nhello"),
        ("S", b"250 ok\r\n"),
        ("C", b"BDAT 2 LAST\r\n\r\n"),
        ("S", b"250 ok\r\n"),
    ]:
        cutter.feed(0, "C" if who == "C" else "S", data, False)
    told = session("SMTP", tuple(cutter.lines))
    assert legal(told) == ()
    titles = [m.title for m in explain(told)]
    assert titles[-1] == "From here on the server answers for this mail."
    assert titles[-4] == "This part has arrived."
    assert [step.after for step in path(told)[-2:]] == ["Chunks", "Ready"]


@pytest.mark.parametrize(
    ("code", "title", "outcome"),
    [
        ("599", "No.", "refused"),
        ("499", "Not now.", "later"),
        ("299", "Done.", "done"),
        ("399", "Go on.", "go on"),
    ],
)
def test_an_unknown_code_means_what_its_first_digit_means(
    code: str, title: str, outcome: str
) -> None:
    told = meaning("SMTP", GREETED["SMTP"] + f"C: NOOP\nS: {code} x")
    assert (told.title, told.outcome, told.anchor) == (title, outcome, "")
    assert told.label == f"{code} {outcome}"


def test_an_enhanced_code_of_another_class_is_not_believed() -> None:
    assert "2.1.5" not in meaning("SMTP", GREETED["SMTP"] + "C: NOOP\nS: 550 2.1.5 x").detail


def test_multi_line_refusals_are_told_at_their_first_line() -> None:
    script = GREETED["SMTP"] + "C: MAIL FROM:<a@b>\nS: 550-5.7.26 no\nS: 550 5.7.26 see here"
    *_, first, last = explain(said("SMTP", script))
    assert "5.7.26" in first.detail
    assert (first.label, last.label, last.title) == ("", "550 refused", "")


def test_pop3_says_what_ok_means_each_time() -> None:
    lines = said("POP3", WITH_PASS)
    by_line = {line.data: m for line, m in with_meanings(lines)}
    assert "timestamp for APOP" in by_line[b"+OK ready <1896.69@dbc.example>\r\n"].detail
    assert by_line[b"+OK 2 messages\r\n"].title == "The sizes follow."
    assert by_line[b"1 120\r\n"].title == "Message 1: 120 octets."
    assert by_line[b"+OK 2 320\r\n"].title == "2 messages, 320 octets in all."
    assert by_line[b"+OK 120 octets\r\n"].title == "The message follows."
    assert by_line[b"+OK marked\r\n"].title == "The message is marked."
    assert by_line[b"+OK empty\r\n"].label == "+OK"
    assert by_line[b"QUIT\r\n"].title == "You say goodbye; what is marked is deleted now."
    ends = [m.title for line, m in with_meanings(lines) if line.kind == "end"]
    complete = "A dot alone: the {} is complete."
    assert ends == [complete.format(what) for what in ("list", "message", "message")]


def test_pop3_lists_and_capabilities_are_told_line_by_line() -> None:
    script = (
        LOGGED_IN
        + """
    C: CAPA
    S: +OK
    S: UIDL
    S: SASL PLAIN
    S: XFROB
    S: .
    C: UIDL
    S: +OK
    S: 1 whqtswO00WBw418f9t5JxYwZ
    S: .
    C: LIST 1
    S: +OK 1 120
    """
    )
    titles = {line.data: m.title for line, m in with_meanings(said("POP3", script))}
    assert titles[b"SASL PLAIN\r\n"] == load("POP3").keywords["SASL"].title
    assert "XFROB" in titles[b"XFROB\r\n"]
    assert titles[b"1 whqtswO00WBw418f9t5JxYwZ\r\n"] == "The lasting name of message 1."
    assert titles[b"LIST 1\r\n"] == "You ask for the size of one message."
    assert titles[b"+OK 1 120\r\n"] == "Message 1: 120 octets."


def test_pop3_brackets_tell_a_busy_maildrop_from_a_wrong_password() -> None:
    login = GREETED["POP3"] + "C: USER a\nS: +OK\nC: PASS b\n"
    busy = meaning("POP3", login + "S: -ERR [IN-USE] busy")
    assert (busy.outcome, busy.label) == ("later", "-ERR")
    assert "[IN-USE]: Somebody else has the maildrop open." in busy.detail
    assert "wrong" not in busy.detail
    wrong = meaning("POP3", login + "S: -ERR [AUTH] no")
    assert wrong.outcome == "refused"
    assert meaning("POP3", login + "S: -ERR [SYS/TEMP/DISK] no").outcome == "refused"


def test_quit_deletes_only_after_a_login() -> None:
    early = said("POP3", GREETED["POP3"] + "C: QUIT\nS: +OK")
    assert path(early)[-1].after == "Closed"
    assert "without having logged in" in explain(early)[1].title
    assert path(said("POP3", LOGGED_IN + "C: QUIT\nS: +OK"))[-1].after == "UPDATE"


def test_imap_tells_tagged_from_untagged() -> None:
    script = (
        SELECTED + "C: x7 FETCH 1 (FLAGS)\nC: x8 NOOP\nS: * 1 FETCH (FLAGS ())\nS: x7 OK\nS: x8 NO"
    )
    data, fetch, noop = explain(said("IMAP", script))[-3:]
    assert (data.title, data.label, data.outcome) == ("Data of message 1.", "", "")
    assert fetch.detail.startswith("This answers your FETCH.")
    assert (fetch.label, fetch.outcome) == ("OK", "done")
    assert noop.detail.startswith("This answers your NOOP.")
    assert (noop.label, noop.outcome) == ("NO", "refused")


@pytest.mark.parametrize(
    ("line", "title", "anchor"),
    [
        ("* 1 EXISTS", "One message in the open mailbox.", "imap-untagged-exists"),
        ("* 3 EXISTS", "3 messages in the open mailbox.", "imap-untagged-exists"),
        ("* 2 EXPUNGE", "Message 2 is gone.", "imap-untagged-expunge"),
        ("* SEARCH", "What the search found.", "imap-untagged-search"),
        ("* SEARCH 1 2", "What the search found.", "imap-untagged-search"),
        (r'* LIST (\Noselect) "/" x', "One mailbox.", "imap-untagged-list"),
        (
            "* OK [UIDVALIDITY 7] x",
            load("IMAP").codes["UIDVALIDITY"].title,
            "imap-code-uidvalidity",
        ),
        ("* NO disk nearly full", "A warning.", "imap-no"),
        ("* OK hello", "A piece of news.", "imap-ok"),
        ("* FROB 1", "Something that isn't in this catalog: FROB.", ""),
        ("* BYE", "The server says goodbye and closes the connection.", "imap-bye"),
        ("what?", "This is no IMAP response.", ""),
    ],
)
def test_imap_responses_are_told(line: str, title: str, anchor: str) -> None:
    told = meaning("IMAP", SELECTED + "S: " + line)
    assert (told.title, told.anchor) == (title, anchor)


def test_imap_response_codes_give_the_reason() -> None:
    told = meaning("IMAP", SELECTED + "C: a3 COPY 1 x\nS: a3 NO [TRYCREATE] no")
    assert "[TRYCREATE]: There is no such mailbox, but you may make it." in told.detail
    assert "RFC 3501 §7.1" in told.sources
    down = meaning("IMAP", GREETED["IMAP"] + "C: a1 LOGIN a b\nS: a1 NO [UNAVAILABLE] x")
    assert down.outcome == "later"


def test_imap_literals_belong_to_their_command() -> None:
    cutter = dialogue("IMAP")
    for who, data in [
        ("S", b"* OK hi\r\n"),
        ("C", b"a1 LOGIN {3}\r\n"),
        ("S", b"+ go\r\n"),
        ("C", b"ana {6}\r\n"),
        ("S", b"+ go\r\n"),
        ("C", b"secret\r\n"),
        ("S", b"a1 OK [CAPABILITY IMAP4rev1] in\r\n"),
        ("C", b"a2 APPEND x {4+}\r\nword\r\n"),
        ("S", b"a2 OK\r\n"),
    ]:
        cutter.feed(0, "C" if who == "C" else "S", data, False)
    told = session("IMAP", tuple(cutter.lines))
    assert legal(told) == ()
    assert [step.command for step in path(told)] == ["greeting", "LOGIN", "APPEND"]
    titles = [m.title for m in explain(told)]
    assert titles.count("Go on: the server waits for the octets that you announced.") == 2
    assert titles.count("The command goes on after the literal.") == 3


def test_idle_is_pushed_and_ended_by_done() -> None:
    script = SELECTED + "C: a3 IDLE\nS: + go\nS: * 4 EXISTS\nC: DONE\nS: a3 OK"
    idle, go, news, done, over = explain(said("IMAP", script))[-5:]
    assert idle.anchor == "imap-idle"
    assert go.label == "+"
    assert news.title == "4 messages in the open mailbox."
    assert (done.title, done.anchor) == ("You end the waiting.", "imap-done")
    assert over.title == "You no longer wait for news."


def test_fetching_a_body_warns_of_seen_and_peek_does_not() -> None:
    for items, marks in [("BODY[]", True), ("BODY.PEEK[]", False), ("RFC822.SIZE", False)]:
        told = meaning("IMAP", SELECTED + f"C: a3 FETCH 1 ({items})")
        assert ("as seen" in told.detail) == marks, items


@pytest.mark.parametrize("name", PROTOCOLS)
def test_each_purpose_is_of_commands_that_exist_and_is_known_elsewhere(name: ProtocolName) -> None:
    table = tomllib.loads(TABLES.joinpath(f"{name.lower()}.toml").read_text("utf-8"))
    for purpose, verbs in table["purposes"].items():
        assert all(load(name).commands[verb].purpose == purpose for verb in verbs)
    named = [verb for verbs in table["purposes"].values() for verb in verbs]
    assert len(named) == len(set(named))
    others = [load(other) for other in PROTOCOLS if other != name]
    elsewhere = {c.purpose for other in others for c in other.commands.values()}
    assert set(table["purposes"]) - elsewhere <= {"name sender and recipients"}


def test_the_way_through_the_states() -> None:
    assert [(s.command, s.reply, s.after) for s in path(said("SMTP", D_2))] == [
        ("greeting", "220", "Greeted"),
        ("EHLO", "250", "Ready"),
        ("MAIL", "250", "Mail"),
        ("RCPT", "250", "Recipients"),
        ("RCPT", "550", "Recipients"),
        ("RSET", "250", "Ready"),
        ("QUIT", "221", "Closed"),
    ]
    assert [s.after for s in path(said("IMAP", RFC_3501_8))] == [
        "Not authenticated",
        "Authenticated",
        *["Selected"] * 4,
        "Logout",
    ]
    for protocol, script in (("SMTP", D_1), ("POP3", RFC_1939_10), ("IMAP", RFC_3501_8)):
        session = said(protocol, script)  # type: ignore[arg-type]
        steps = path(session)
        assert all(a.after == b.before for a, b in pairwise(steps))
        assert sorted(i for s in steps for i in s.lines) == list(range(len(session.lines)))
        assert all(s.line in s.lines for s in steps)


def test_tls_starts_afresh() -> None:
    script = GREETED["SMTP"] + "C: STARTTLS\nS: 220 go\n-- TLS\nC: EHLO me\nS: 250 x"
    assert [s.after for s in path(said("SMTP", script))] == ["Greeted", "Ready"] * 2


# -- lines that are no protocol


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_tls_handshake_in_plain_text_is_recognised(protocol: ProtocolName) -> None:
    line = Line(0, "C", b"\x16\x03\x01\x02\x00\x01\x00\n", False, "command", 8)
    told = explain(session(protocol, (line,)))[0]
    assert "starts TLS" in told.title
    assert "465" in told.detail or "99" in told.detail


def test_a_strange_word_is_shown_short_and_harmless() -> None:
    word = "<script>" + "x" * 500 + "\x1b[31m"
    told = meaning("SMTP", GREETED["SMTP"] + f"C: {word}")
    assert len(told.title) < 120
    assert "\x1b" not in told.title


def test_a_secret_never_gets_into_a_meaning() -> None:
    line = Line(0, "C", b"hunter2hunter2\r\n", False, "command", 16, (0, 14))
    for protocol in PROTOCOLS:
        told = session(protocol, (line,))
        assert "hunter2" not in repr(explain(told)) + repr(legal(told)) + repr(path(told))


WORDS = (
    *SMTP_COMMANDS.split(),
    *POP3_COMMANDS.split(),
    *IMAP_COMMANDS.split(),
    *("a1", "*", "+", "+OK", "-ERR", "OK", "NO", "BAD", "BYE", "UID", "250", "250-", "334", "354"),
    *("535 5.7.8", "220", "550", "[UNSEEN 1]", "[]", "{5}", "{5+}", "{99999999999999999}", "."),
    *(
        "..",
        "FROM:<>",
        "TO:<a@b>",
        "SIZE=",
        "{word}",
        "{}",
        "%s",
        "1",
        "2 3",
        "٣",
        "999999999999999",
    ),
    *("=", "LAST", "PLAIN", "LOGIN", "VXNlcm5hbWU6", "\x00", "\x16\x03\x01", "é", "\ud7ff", ""),
)
ENDS = (b"\r\n", b"\r\n", b"\r\n", b"\n", b"", b"\r", b"\x00")


def hostile(source: random.Random) -> bytes:
    if source.random() < 0.2:
        return source.randbytes(source.randrange(40)) + source.choice(ENDS)
    words = " ".join(source.choices(WORDS, k=source.randrange(6)))
    return words.encode() + source.choice(ENDS)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_said_can_make_it_fail(protocol: ProtocolName) -> None:
    """Dialogues of random words and octets, cut by the dialogue as they come."""
    for seed in range(200):
        source = random.Random(seed)
        cutter, tls = dialogue(protocol), False
        for at in range(30):
            tls = tls or source.random() < 0.03
            cutter.feed(at, source.choice("CS"), hostile(source), tls)  # type: ignore[arg-type]
        check(session(protocol, (*cutter.lines, *cutter.rest())))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_session_can_make_it_fail(protocol: ProtocolName) -> None:
    """Lines of any side, kind and octets, such as no dialogue would ever cut."""
    kinds = ("command", "reply", "credentials", "content", "end")
    for seed in range(200):
        source = random.Random(seed)
        lines = []
        for at in range(source.randrange(30)):
            data = hostile(source)
            secret = (0, len(data)) if source.random() < 0.1 else None
            lines.append(
                Line(
                    at,
                    source.choice("CS"),  # type: ignore[arg-type]
                    data,
                    source.random() < 0.3,
                    source.choice(kinds),  # type: ignore[arg-type]
                    len(data) + source.randrange(2),
                    secret,
                )
            )
        check(session(protocol, tuple(lines)))


def check(told: Session) -> None:
    meanings = explain(told)
    assert len(meanings) == len(told.lines)
    catalog = load(told.protocol)
    anchors = {entry.anchor for entry in entries(catalog)}
    for each in meanings:
        assert each.anchor in anchors | {""}
        assert all(map(source_url, each.sources))
        assert all(isinstance(getattr(each, f.name), (str, tuple)) for f in fields(each))
        assert "\n" not in each.title + each.detail
        assert "{" not in each.title or "{" in "".join(map(str, told.lines))
    assert all(0 <= problem.line < len(told.lines) for problem in legal(told))
    assert all(0 <= step.line < len(told.lines) for step in path(told))
    for step in path(told):
        assert {step.before, step.after} <= set(catalog.states)


def test_a_long_session_is_read_in_reasonable_time() -> None:
    """Every line is looked at a bounded number of times: ten times the lines, ten times the work.

    Counted in calls, not in seconds.
    """
    counts = []
    for size in (200, 2000):
        lines = [Line(0, "S", b"* OK hi\r\n", False, "reply", 9)]
        for n in range(size):
            ask, answer = f"a{n} NOOP\r\n".encode(), f"a{n} OK\r\n".encode()
            lines.append(Line(0, "C", ask, False, "command", len(ask)))
            lines.append(Line(0, "S", b"* 1 EXISTS\r\n", False, "reply", 12))
            lines.append(Line(0, "S", answer, False, "reply", len(answer)))
        counts.append(calls(session("IMAP", tuple(lines))))
    assert counts[1] < 12 * counts[0]


def calls(told: Session) -> int:
    load(told.protocol)
    profile = cProfile.Profile()
    profile.runcall(explain, told)
    return int(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]


# -- the lab's own servers, spoken to by the standard library


def test_the_labs_own_dialogues_are_legal_and_explained_to_the_last_line(lab: Lab) -> None:
    address, password = next(iter(lab.accounts.items()))
    with smtplib.SMTP(*lab.smtp) as client:
        client.sendmail("ben@lab.example", [address], "Subject: x\n\n.dot\n")
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            client.sendmail("ben@lab.example", ["nobody@lab.example"], "x")
    pop = poplib.POP3(*lab.pop3)
    pop.capa()
    pop.user(address)
    pop.pass_(password)
    for ask in (pop.stat, pop.list, pop.uidl, pop.noop, pop.rset):
        ask()
    pop.top(1, 0)
    pop.retr(1)
    with pytest.raises(poplib.error_proto):
        pop.retr(9)
    pop.quit()
    imap = imaplib.IMAP4(*lab.imap)
    imap.login(address, password)
    imap.list()
    imap.select()
    imap.fetch("1", "(FLAGS BODY[])")
    imap.append("INBOX", "", "", b"Subject: y\r\n\r\ny\r\n")
    imap.copy("1", "Nowhere")
    imap.uid("FETCH", "1:*", "(FLAGS)")
    imap.close()
    imap.logout()
    assert [each.protocol for each in lab.sessions] == ["SMTP", "POP3", "IMAP"]
    for each in lab.sessions:
        assert legal(each) == ()
        assert path(each)[-1].after in ("Closed", "UPDATE", "Logout")
        silent = [line.data for line, m in with_meanings(each) if not m.title]
        assert set(silent) <= {b")\r\n"}


IMAP_LOGIN = """
S: * OK ...
C: a1 LOGIN ana@lab.example ana-lab-password
S: a1 OK ...
"""
POP3_LOGIN = """
S: +OK ...
C: USER ana@lab.example
S: +OK ...
C: PASS ana-lab-password
S: +OK ...
"""
EHLO = """
S: 220 ...
C: EHLO x
S: 250-...
S: 250-...
S: 250-...
S: 250-...
S: 250-...
S: 250-...
S: 250-...
S: 250-DSN
S: 250-CHUNKING
S: 250 HELP
"""
LONE = "An IMAP command is a tag, a space and the command, such as: a1 NOOP."
IDLING = "While IDLE goes on, nothing may be said but DONE."
NOT_IDLING = "DONE ends an IDLE, and none is going on."


@pytest.mark.protocol
@pytest.mark.parametrize(
    ("script", "steps", "problems"),
    [
        (
            "C: a2\nS: a2 BAD ...\nC:  a3 NOOP\nS: a3 OK ...\nC: NOOP\nS: NOOP BAD ...",
            " BAD,NOOP OK, BAD",
            [LONE, LONE],
        ),
        (
            "C! \\r\\n\nS: * BAD ...\nC! \\xe91 NOOP\\r\\n\nS: * BAD ...\nC: a2 NOOP\nS: a2 OK ...",
            " BAD,NOOP BAD,NOOP OK",
            [LONE, "A tag is made of letters and digits, such as in: a1 NOOP."],
        ),
        # A literal that is refused isn't sent.
        (
            "C: a2 APPEND INBOX {99999999999}\nS: a2 NO [TOOBIG] ...\nC: a3 NOOP\nS: a3 OK ...",
            "APPEND NO,NOOP OK",
            [],
        ),
        (
            "C: a2 FROB {0}\nS: a2 BAD ...\nC: a3 NOOP\nS: a3 OK ...",
            " BAD,NOOP OK",
            ["“FROB” is no IMAP command."],
        ),
        # Nor is it where the client doesn't wait to be told so.
        (
            r"C! a2 FROB {9}\r\na3 NOOP\r\na4 APPEND INBOX {2}\r\nhi\r\na5 NOOP\r\n"
            "\nS: a2 BAD ...\nS: a3 OK ...\nS: + ...\nS: a4 OK ...\nS: a5 OK ...",
            " BAD,NOOP OK,APPEND OK,NOOP OK",
            ["“FROB” is no IMAP command."],
        ),
        # One that needs no leave comes all the same, and with it the rest of its command.
        (
            r"C! a2 APPEND no {5+}\r\na9 NO\r\na3 SELECT {0+}\r\n\r\na4 FROB {2+}\r\nhi\r\n"
            "\nS: a2 NO ...\nS: a3 NO ...\nS: a4 BAD ...\nC: a5 NOOP\nS: a5 OK ...",
            "APPEND NO,SELECT NO, BAD,NOOP OK",
            ["“FROB” is no IMAP command."],
        ),
        (
            r"C! a2 IDLE\r\nDONE\r\na3 NOOP\r\n"
            "\nS: + ...\nS: a2 OK ...\nS: a3 OK ...",
            "IDLE OK,NOOP OK",
            [],
        ),
        (
            r"C! a2 IDLE\r\na3 NOOP\r\n"
            "\nS: + ...\nS: a2 BAD ...\nC: DONE\nS: DONE BAD ...\nC: a4 NOOP\nS: a4 OK ...",
            "IDLE BAD,NOOP ,DONE BAD,NOOP OK",
            [IDLING, NOT_IDLING],
        ),
        (
            "C: a2 IDLE\nS: + ...\nC: a3 NOOP\nS: a2 BAD ...\nC: a4 NOOP\nS: a4 OK ...",
            "IDLE BAD,NOOP ,NOOP OK",
            [IDLING],
        ),
    ],
)
def test_who_said_what_in_an_imap_dialogue_that_goes_wrong(
    lab: Lab, script: str, steps: str, problems: list[str]
) -> None:
    leaves = "\nC: z LOGOUT\nS: * BYE ...\nS: z OK ..."
    told = play(lab, "imaps", IMAP_LOGIN + script + leaves)
    assert [problem.sentence for problem in legal(told)] == problems
    ways = [f"{step.command} {step.reply}" for step in path(told)]
    assert ",".join(ways) == f"greeting OK,LOGIN OK,{steps},LOGOUT OK"
    # Each line is of one step, and its own.
    assert sorted(i for step in path(told) for i in step.lines) == list(range(len(told.lines)))
    assert all(meaning.title for meaning in explain(told))


@pytest.mark.protocol
def test_a_password_after_a_refused_literal_stays_masked(lab: Lab) -> None:
    told = play(
        lab,
        "imaps",
        "S: * OK ...\nC: a1 FROB {0}\nS: a1 BAD ...\n"
        "C: a2 LOGIN ana@lab.example hunter2\nS: a2 NO ...",
    )
    assert "hunter2" not in told.text()
    pipelined = play(
        lab,
        "imaps",
        r"C! a1 FROB {4}\r\na2 LOGIN ana@lab.example hunter2\r\n"
        "\nS: * OK ...\nS: a1 BAD ...\nS: a2 NO ...",
    )
    assert "hunter2" not in pipelined.text()
    assert [step.command for step in path(pipelined)][1:] == ["", "LOGIN"]


@pytest.mark.protocol
def test_idle_that_is_broken_and_a_tag_alone_are_explained(lab: Lab) -> None:
    script = "C: a2 IDLE\nS: + ...\nC: a3 NOOP\nS: a2 BAD ...\nC: a4\nS: a4 BAD ..."
    *_, broken, tag, bad = explain(play(lab, "imaps", IMAP_LOGIN + script))
    assert broken.title == "Something else than DONE was said, so the waiting is over."
    assert tag.detail.startswith("Behind the tag come a space and the command")
    assert (bad.label, bad.outcome) == ("BAD", "refused")


@pytest.mark.protocol
@pytest.mark.parametrize(
    ("listener", "script"),
    [
        (
            "submissions",
            EHLO + "C: AUTH LOGIN\nS: 334 ...\nC: YW5h\nS: 334 ...\nC: *\nS: 501 ...",
        ),
        ("pop3s", "S: +OK ...\nC: AUTH PLAIN\nS: +...\nC: *\nS: -ERR ..."),
        ("imaps", "S: * OK ...\nC: a1 AUTHENTICATE PLAIN\nS: +...\nC: *\nS: a1 BAD ..."),
    ],
)
def test_a_login_that_is_given_up(lab: Lab, listener: str, script: str) -> None:
    told = play(lab, listener, script)
    *_, star, answer = explain(told)
    assert star.title == "You give up logging in."
    assert "you gave up" in answer.title + answer.detail
    assert path(told)[-1].after == path(told)[-1].before
    assert legal(told) == ()


@pytest.mark.protocol
def test_data_refused_while_the_message_is_on_its_way(lab: Lab) -> None:
    """The message's lines are commands then, whatever the client meant."""
    script = (
        r"C! MAIL FROM:<>\r\nRCPT TO:<no@lab.example>\r\nDATA\r\nSubject: x\r\n.\r\nQUIT\r\n"
        "\nS: 250 ...\nS: 550 ...\nS: 503 ...\nS: 500 ...\nS: 500 ...\nS: 221 ..."
    )
    told = play(lab, "smtp", EHLO + script)
    ways = [(step.command, step.reply) for step in path(told)][3:]
    assert ways == [("RCPT", "550"), ("DATA", "503"), ("", "500"), ("", "500"), ("QUIT", "221")]
    assert [p.sentence for p in legal(told)] == [
        "“Subject:” is no SMTP command.",
        "“.” is no SMTP command.",
    ]


@pytest.mark.protocol
def test_a_part_of_a_message_refused_in_the_middle(network: Network) -> None:
    script = (
        r"C! MAIL FROM:<>\r\nRCPT TO:<ana@lab.example>\r\nBDAT 3\r\nabcBDAT 9\r\nQUIT\r\nabc"
        r"BDAT 1 LAST\r\nxRSET\r\n"
        "\nS: 250 ...\nS: 250 ...\nS: 250 ...\nS: 552 ...\nS: 503 ...\nS: 250 ..."
    )
    with Lab(network=network, limits=Limits(message=10)) as lab:
        told = play(lab, "smtp", EHLO + script)
    assert legal(told) == ()
    by_line = {line.data: m for line, m in with_meanings(told)}
    assert by_line[b"QUIT\r\nabc"].title == "A part of the message, 9 octets."
    (missing,) = [m for data, m in by_line.items() if data.startswith(b"503")]
    assert "a part before this one" in missing.title
    assert [step.reply for step in path(told)][-4:] == ["250", "552", "503", "250"]


@pytest.mark.protocol
@pytest.mark.parametrize(
    ("listener", "rule", "script", "sentence"),
    [
        (
            "smtp",
            rules.Reply("RCPT", "421 4.3.2 Closing"),
            EHLO
            + r"C! MAIL FROM:<>\r\nRCPT TO:<ana@lab.example>\r\nDATA\r\nRCPT TO:<b@c>\r\nNOOP\r\n"
            "\nS: 250 ...\nS: 421 ...\n-- server closes",
            "",
        ),
        (
            "submission",
            rules.Reply("STARTTLS", "454 4.7.0 Not now"),
            EHLO + r"C! STARTTLS\r\nMAIL FROM:<>\r\nRCPT TO:<ana@lab.example>\r\n"
            "\nS: 454 ...\nS: 530 ...\nS: 530 ...",
            "Log in first, or start TLS first.",
        ),
        (
            "pop3",
            rules.Reply("STLS", "-ERR not now"),
            "S: +OK ...\nC! STLS\\r\\nSTAT\\r\\n\nS: -ERR ...\nS: -ERR ...",
            "The server doesn't take the command like this.",
        ),
        (
            "imap",
            rules.Reply("STARTTLS", "NO not now"),
            "S: * OK ...\nC! a STARTTLS\\r\\nb NOOP\\r\\n\nS: a NO ...\nS: b OK ...",
            "Done; what is new was told before this line.",
        ),
    ],
)
def test_what_was_sent_behind_a_command_that_is_refused(
    network: Network, listener: str, rule: rules.Rule, script: str, sentence: str
) -> None:
    with Lab(network=network, rules=[rule]) as lab:
        told = play(lab, listener, script)
    allowed = {"STAT isn't allowed in the state AUTHORIZATION, only in: TRANSACTION."}
    assert {problem.sentence for problem in legal(told)} <= allowed
    assert sentence in ("", explain(told)[-1].title)


@pytest.mark.protocol
@pytest.mark.parametrize(
    ("listener", "rule", "script", "title"),
    [
        (
            "pop3",
            Disconnect("RETR", "inside", octets=30),
            POP3_LOGIN + "C: RETR 1\nS: +OK ...",
            "The message breaks off after 14 octets: the connection ended.",
        ),
        (
            "smtp",
            None,
            EHLO + r"C! MAIL FROM:<>\r\nRCPT TO:<ana@lab.example>\r\nDATA\r\n"
            "\nS: 250 ...\nS: 250 ...\nS: 354 ...\nC: Subject: x\n-- client closes",
            "The message breaks off after 12 octets: the connection ended.",
        ),
        (
            "smtp",
            None,
            EHLO + r"C! MAIL FROM:<>\r\nRCPT TO:<ana@lab.example>\r\nBDAT 99\r\nhello"
            "\nS: 250 ...\nS: 250 ...\n-- client closes",
            "The message breaks off after 5 octets: the connection ended.",
        ),
        (
            "imaps",
            None,
            IMAP_LOGIN + "C: a2 APPEND INBOX {99}\nS: + ...\nC! hello\n-- client closes",
            "A counted literal that breaks off after 5 octets: the connection ended.",
        ),
    ],
)
def test_a_message_that_breaks_off_with_the_connection(
    network: Network, listener: str, rule: rules.Rule | None, script: str, title: str
) -> None:
    with Lab(network=network) as lab:
        with smtplib.SMTP(*lab.smtp) as client:
            client.sendmail("ben@lab.example", ["ana@lab.example"], "Subject: x\n\n.dot\n")
        lab.rules = [rule] if rule else []
        told = play(lab, listener, script)
        told = lab.sessions[-1]
    assert [m.title for line, m in with_meanings(told) if line.kind == "content"] == [title]
    assert legal(told) == ()


@pytest.mark.protocol
def test_pop3_answers_that_come_together_are_told_apart(lab: Lab) -> None:
    with smtplib.SMTP(*lab.smtp) as client:
        client.sendmail("ben@lab.example", ["ana@lab.example"], "Subject: x\n\n.\n.dot\n")
    script = r"C! TOP 1 9\r\nLIST\r\nRETR\r\nDELE 1\r\nLIST\r\nQUIT now\r\n RSET\r\nQUIT\r\n"
    client = Client(lab, "pop3")
    for row in [row for row in POP3_LOGIN.split("\n") if row]:
        if row.startswith("C: "):
            client.send(row[3:].encode() + b"\r\n")
        else:
            client.line()
    client.send(script[3:].encode().decode("unicode_escape").encode())
    while client.line():
        pass
    client.close()
    told = lab.sessions[-1]
    titles = [m.title for line, m in with_meanings(told) if line.data.startswith((b"+OK", b"-ERR"))]
    misplaced = "The server doesn't take the command like this."
    assert titles[3:] == [
        "The beginning of the message follows.",
        "The sizes follow.",
        misplaced,
        "The message is marked.",
        "The sizes follow.",
        misplaced,
        "The server won't do it.",
        "The server says goodbye and closes the connection.",
    ]
    assert [p.sentence for p in legal(told)] == ["“RSET” is no POP3 command."]
    (body,) = [m for line, m in with_meanings(told) if line.kind == "content"]
    assert "got one dot more" in body.detail


@pytest.mark.protocol
@pytest.mark.parametrize(
    ("listener", "script", "titles"),
    [
        (
            "smtp",
            EHLO + "C! N\\0OP\\r\\n\nS: 501 ...\nC! MAIL FROM:<a\\0@b>\\r\\n\nS: 501 5.5.2 ...\n"
            "C: MAIL FROM:<é@lab.example> SMTPUTF8\nS: 250 ...",
            ["“N\\x00OP” is no SMTP command.", "The command isn't written as it has to be."],
        ),
        (
            "pop3",
            "S: +OK ...\nC! U\\0\\xffR\\r\\n\nS: -ERR ...",
            ["“U\\x00\\xffR” is no POP3 command."],
        ),
        (
            "imap",
            "S: * OK ...\nC! a1 N\\0\\r\\n\nS: a1 BAD ...\nC: a2 NOÉP\nS: a2 BAD ...",
            ["“N\\x00” is no IMAP command.", "“NOÉP” is no IMAP command."],
        ),
    ],
)
def test_commands_of_strange_octets(
    lab: Lab, listener: str, script: str, titles: list[str]
) -> None:
    told = play(lab, listener, script)
    assert set(titles) <= {meaning.title for meaning in explain(told)}
    assert all(problem.sentence in titles for problem in legal(told))
