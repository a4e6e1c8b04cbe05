"""The POP3 server as a client meets it, over both networks: RFC 1939, 2449, 2595, 5034."""

from __future__ import annotations

import base64
import imaplib
import logging
import poplib
import re
import shutil
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from dialogue import Client, play, said

from labserver import Envelope, Lab, Limits
from labserver.network import Network
from labserver.network.inline import InlineNetwork
from labserver.servers.maildrops import Maildrops
from labserver.store import Delivery

pytestmark = pytest.mark.protocol

ANA, PASSWORD = "ana@lab.example", "ana-lab-password"
BEN, BENS_PASSWORD = "ben@lab.example", "ben-lab-password"
LOGIN = f"""
    S: +OK lab.example POP3 server ready
    C: USER {ANA}
    S: +OK ...
    C: PASS {PASSWORD}
    S: +OK maildrop has ...
"""
HELLO = b"Subject: hello\r\n\r\nfirst\r\nsecond\r\nthird\r\n"


def keep(lab: Lab, *messages: bytes, account: str = ANA) -> None:
    """Put messages into an INBOX exactly as they are, without a server's trace headers."""
    envelope, now = Envelope(BEN, (account,)), datetime.now(UTC)
    deliveries = [Delivery(envelope, octets, now) for octets in messages]
    stored = lab.network.run(lambda: lab._store.deliver_group(deliveries))
    assert len(stored) == len(messages)


def kept(lab: Lab, account: str = ANA) -> list[bytes]:
    return [message.octets for message in lab.inbox(account)]


def message_of(octets: int) -> bytes:
    """A message of that size."""
    head = b"Subject: sized\r\n\r\n"
    return head + b"x" * (octets - len(head) - 2) + b"\r\n"


_connected: list[Client] = []


@pytest.fixture(autouse=True)
def hang_up() -> Iterator[None]:
    """No test leaves a connection open, not even a failed one."""
    yield
    while _connected:
        _connected.pop().close()


def connect(lab: Lab, listener: str = "pop3") -> Client:
    """A client that has heard the greeting."""
    client = Client(lab, listener)
    _connected.append(client)
    assert client.line().startswith(b"+OK")
    return client


def ask(client: Client, line: str) -> str:
    """Send a command; the first line of its reply."""
    client.send(line.encode() + b"\r\n")
    return client.line().decode().removesuffix("\r\n")


def rest(client: Client) -> Iterator[bytes]:
    """The lines of a multi-line reply after its first, without the dot at the end."""
    for line in iter(client.line, b".\r\n"):
        assert line, "the connection ended in the middle of a reply"
        yield line


def log_in(lab: Lab, listener: str = "pop3") -> Client:
    """A client in the TRANSACTION state."""
    client = connect(lab, listener)
    assert ask(client, f"USER {ANA}").startswith("+OK")
    assert ask(client, f"PASS {PASSWORD}").startswith("+OK")
    return client


def plain(identity: str, name: str, password: str) -> str:
    """The PLAIN mechanism's answer (RFC 4616)."""
    return base64.b64encode(f"{identity}\0{name}\0{password}".encode()).decode()


@pytest.fixture
def inline() -> Iterator[Network]:
    """Virtual time, for what takes long."""
    network = InlineNetwork()
    yield network
    network.close()


# -- the whole way


def test_example_session_of_rfc_1939_section_10(network: Network) -> None:
    with Lab({"mrose@dewey.example": "tanstaaf"}, network=network) as lab:
        keep(lab, message_of(120), message_of(200), account="mrose@dewey.example")
        session = play(
            lab,
            "pop3",
            """
            S: +OK ... POP3 server ready...
            C: USER mrose@dewey.example
            S: +OK ...
            C: PASS tanstaaf
            S: +OK ...maildrop has 2 messages (320 octets)
            C: STAT
            S: +OK 2 320
            C: LIST
            S: +OK 2 messages (320 octets)
            S: 1 120
            S: 2 200
            S: .
            C: RETR 1
            S: +OK 120 octets
            S: Subject: sized
            S:
            S: xxx...
            S: .
            C: DELE 1
            S: +OK message 1 deleted
            C: RETR 2
            S: +OK 200 octets
            S: Subject: sized
            S:
            S: xxx...
            S: .
            C: DELE 2
            S: +OK message 2 deleted
            C: QUIT
            S: +OK dewey.example POP3 server signing off (maildrop empty)
            -- server closes
            """,
        )
        assert said(session).split("\n") == [
            "S: +OK",
            *("C: USER", "S: +OK", "C: PASS", "S: +OK"),
            *("C: STAT", "S: +OK"),
            *("C: LIST", "S: +OK", "S: 1", "S: 2"),
            *("C: RETR", "S: +OK", "C: DELE", "S: +OK"),
            *("C: RETR", "S: +OK", "C: DELE", "S: +OK"),
            *("C: QUIT", "S: +OK"),
        ]
        assert session.ending == ""
        assert kept(lab, "mrose@dewey.example") == []


@pytest.mark.parametrize("how", ["plain", "STLS", "TLS"])
def test_poplib_fetches_and_deletes(lab: Lab, how: str) -> None:
    second = b"Subject: dots\r\n\r\n.\r\n..\r\n.leading\r\nend.\r\n"
    keep(lab, HELLO, second)
    if how == "TLS":
        client: poplib.POP3 = poplib.POP3_SSL(*lab.pop3s, context=lab.tls)
    else:
        client = poplib.POP3(*lab.pop3)
    if how == "STLS":
        client.stls(lab.tls)
    client.user(ANA)
    client.pass_(PASSWORD)
    assert client.stat() == (2, len(HELLO) + len(second))
    for number, stored in enumerate((HELLO, second), start=1):
        _, lines, octets = client.retr(number)
        assert b"".join(line + b"\r\n" for line in lines) == stored
        assert octets == len(stored)
    client.dele(1)
    client.quit()
    assert kept(lab) == [second]
    session = lab.sessions[-1]
    assert session.listener == ("pop3s" if how == "TLS" else "pop3")
    assert bool(session.tls) == (how != "plain")
    assert session.closed
    assert session.ending == ""


def test_mail_sent_by_smtp_is_in_the_maildrop(lab: Lab) -> None:
    play(
        lab,
        "smtp",
        f"""
        S: 220 ...
        C: HELO client.example
        S: 250 ...
        C: MAIL FROM:<ben@lab.example>
        S: 250 ...
        C: RCPT TO:<{ANA}>
        S: 250 ...
        C: DATA
        S: 354 ...
        C: Subject: pushed
        C:
        C: ..
        C: .
        S: 250 ...
        """,
    )
    (stored,) = kept(lab)
    client = poplib.POP3(*lab.pop3)
    client.user(ANA)
    client.pass_(PASSWORD)
    response, lines, _ = client.retr(1)
    client.quit()
    assert response == f"+OK {len(stored)} octets".encode()
    assert b"".join(line + b"\r\n" for line in lines) == stored
    assert lines[-1] == b"."


def test_commands_are_obeyed_in_any_letter_case(lab: Lab) -> None:
    keep(lab, HELLO)
    play(
        lab,
        "pop3",
        f"""
        S: +OK ...
        C: uSeR ANA@Lab.Example
        S: +OK ...
        C: pass {PASSWORD}
        S: +OK ...
        C: Stat
        S: +OK 1 {len(HELLO)}
        C: quit
        S: +OK ...
        """,
    )


def test_pipelined_commands_are_answered_in_turn(lab: Lab) -> None:
    keep(lab, HELLO, HELLO)
    play(
        lab,
        "pop3",
        rf"""
        C! USER {ANA}\r\nPASS {PASSWORD}\r\nDELE 1\r\nSTAT\r\nBOGUS\r\nUIDL 2\r\nQUIT\r\n
        S: +OK ...ready
        S: +OK send...
        S: +OK maildrop has 2 messages...
        S: +OK message 1 deleted
        S: +OK 1 {len(HELLO)}
        S: -ERR Unknown command.
        S: +OK 2 ...
        S: +OK ...
        -- server closes
        """,
    )
    assert kept(lab) == [HELLO]


# -- AUTHORIZATION


def test_transaction_commands_before_login_are_refused(lab: Lab) -> None:
    keep(lab, HELLO)
    client = connect(lab)
    for command in ("STAT", "LIST", "RETR 1", "DELE 1", "NOOP", "RSET", "TOP 1 0", "UIDL"):
        assert ask(client, command) == f"-ERR log in before {command.split()[0]}"
    assert ask(client, "QUIT").startswith("+OK")
    assert kept(lab) == [HELLO]


def test_authorization_commands_after_login_are_refused(lab: Lab) -> None:
    client = log_in(lab)
    for command in (f"USER {ANA}", f"PASS {PASSWORD}", "AUTH PLAIN", "STLS"):
        assert ask(client, command) == f"-ERR {command.split()[0]} can't be used after logging in"
    assert ask(client, "NOOP") == "+OK"


def test_unknown_commands_are_refused_in_both_states(lab: Lab) -> None:
    for client in (connect(lab), log_in(lab)):
        for command in ("", " ", "APOP mrose c4c9334bac56", "UTF8", "HELO x", "", "QUITTER"):
            assert ask(client, command) == "-ERR Unknown command."
        assert ask(client, "QUIT").startswith("+OK")


def test_wrong_arguments_are_refused_with_the_right_form(lab: Lab) -> None:
    keep(lab, HELLO)
    before = {"USER": "USER name", "AUTH": "AUTH mechanism", "CAPA all": "CAPA", "QUIT 1": "QUIT"}
    after = {
        "STAT 1": "STAT",
        "RETR": "RETR msg",
        "DELE": "DELE msg",
        "NOOP x": "NOOP",
        "RSET 1": "RSET",
        "TOP": "TOP msg n",
        "TOP 1": "TOP msg n",
        "CAPA 1": "CAPA",
        "QUIT now": "QUIT",
    }
    for client, forms in ((connect(lab), before), (log_in(lab), after)):
        for command, form in forms.items():
            assert ask(client, command) == f"-ERR the command is: {form}"
    assert kept(lab) == [HELLO]


def test_password_is_wanted_right_after_the_name(lab: Lab) -> None:
    play(
        lab,
        "pop3",
        f"""
        S: +OK ...
        C: PASS {PASSWORD}
        S: -ERR No username given.
        C: USER {ANA}
        S: +OK ...
        C: CAPA
        S: +OK ...
        S: TOP
        S: UIDL
        S: USER
        S: SASL PLAIN
        S: RESP-CODES
        S: AUTH-RESP-CODE
        S: PIPELINING
        S: STLS
        S: .
        C: PASS {PASSWORD}
        S: -ERR No username given.
        """,
    )


def test_wrong_password_and_unknown_name_get_the_same_answer(lab: Lab) -> None:
    session = play(
        lab,
        "pop3",
        f"""
        S: +OK ...
        C: USER {ANA}
        S: +OK send the password
        C: PASS wrong
        S: -ERR [AUTH] Authentication failed.
        C: USER nobody@lab.example
        S: +OK send the password
        C: PASS wrong
        S: -ERR [AUTH] Authentication failed.
        C: USER {ANA}
        S: +OK send the password
        C: PASS {PASSWORD}
        S: +OK maildrop has 0 messages (0 octets)
        """,
    )
    assert "wrong\r\n" not in session.text()


def test_third_failure_ends_the_connection(lab: Lab) -> None:
    play(
        lab,
        "pop3",
        rf"""
        S: +OK ...
        C: AUTH PLAIN {plain("", ANA, "wrong")}
        S: -ERR [AUTH] Authentication failed.
        C: USER {ANA}
        S: +OK ...
        C: PASS wrong
        S: -ERR [AUTH] Authentication failed.
        C! USER {ANA}\r\nPASS wrong\r\nUSER {ANA}\r\nPASS {PASSWORD}\r\n
        S: +OK ...
        S: -ERR [AUTH] Authentication failed. Good bye.
        -- server closes
        """,
    )


def test_each_failure_takes_twice_as_long_and_the_lab_says_how_many_there_may_be(
    inline: Network,
) -> None:
    with Lab(network=inline, limits=Limits(login_failures=4, login_delay=1.0)) as lab:
        wrong = f"C: AUTH PLAIN {plain('', ANA, 'wrong')}\nS: -ERR [AUTH] Authentication failed."
        session = play(
            lab,
            "pop3",
            "S: +OK ...\n" + f"{wrong}\n" * 3 + f"{wrong} Good bye.\n-- server closes",
        )
    refusals = [line.at for line in session.lines if line.data.startswith(b"-ERR")]
    assert refusals == pytest.approx([1, 3, 7, 15])


def test_a_failure_never_takes_longer_than_a_client_may_be_silent(inline: Network) -> None:
    limits = Limits(login_failures=2000, login_delay=1.0, pop3_idle=4.0)
    with Lab(network=inline, limits=limits) as lab:
        client = connect(lab)
        for _ in range(1999):
            assert ask(client, f"AUTH PLAIN {plain('', ANA, 'wrong')}").startswith("-ERR [AUTH]")
        assert inline.clock.seconds() == pytest.approx(1 + 2 + 4 * 1997)


def test_wrong_password_is_answered_late(inline: Network) -> None:
    with Lab(network=inline) as lab:
        session = play(
            lab,
            "pop3",
            f"""
            S: +OK ...
            C: USER {ANA}
            S: +OK ...
            C: PASS wrong
            S: -ERR [AUTH] ...
            """,
        )
    *_, user, password, refusal = session.lines
    assert password.at == user.at
    assert refusal.at > password.at


def test_client_that_does_not_wait_for_a_refusal_is_done_with_at_once(inline: Network) -> None:
    with Lab(network=inline) as lab:
        client = connect(lab)
        client.send(f"USER {ANA}\r\nPASS wrong\r\n".encode())
        client.close()
        assert lab.sessions[-1].closed


@pytest.mark.parametrize("password", ["two words", " ends in a space ", "pässwörd"])
def test_passwords_may_hold_spaces_and_any_letter(network: Network, password: str) -> None:
    with Lab({ANA: password}, network=network) as lab:
        client = connect(lab)
        assert ask(client, f"USER {ANA}").startswith("+OK")
        assert ask(client, f"PASS {password}") == "+OK maildrop has 0 messages (0 octets)"


def test_quit_before_login(lab: Lab) -> None:
    session = play(
        lab,
        "pop3",
        """
        S: +OK lab.example POP3 server ready
        C: QUIT
        S: +OK lab.example POP3 server signing off
        -- server closes
        """,
    )
    assert session.ending == ""


def test_greeting_offers_no_apop(lab: Lab) -> None:
    play(lab, "pop3", "S: +OK ...")
    (greeting,) = lab.sessions[-1].lines
    assert b"<" not in greeting.data


# -- AUTH (RFC 5034)


@pytest.mark.parametrize("identity", ["", ANA, ANA.upper()])
def test_auth_plain_with_its_answer_at_once(lab: Lab, identity: str) -> None:
    play(
        lab,
        "pop3s",
        f"""
        S: +OK ...
        C: auth plain {plain(identity, ANA, PASSWORD)}
        S: +OK maildrop has 0 messages (0 octets)
        C: STAT
        S: +OK 0 0
        """,
    )


def test_auth_plain_with_its_answer_when_asked(lab: Lab) -> None:
    answer = plain("", ANA, PASSWORD)
    client = connect(lab, "pop3s")
    assert ask(client, "AUTH PLAIN") == "+ "
    assert ask(client, answer).startswith("+OK maildrop")
    client.close()
    assert answer not in lab.sessions[-1].text()


def test_auth_answer_may_be_as_long_as_plain_allows(network: Network) -> None:
    name, password = "a" * 243 + "@lab.example", "p" * 255
    answer = plain(name, name, password)
    assert len(answer) == 1024
    with Lab({name: password}, network=network) as lab:
        client = connect(lab)
        assert ask(client, "AUTH PLAIN") == "+ "
        assert ask(client, answer + "AAAA") == "-ERR a line may have 1026 octets"
        assert ask(client, "AUTH PLAIN") == "+ "
        assert ask(client, answer).startswith("+OK maildrop")


def test_auth_can_be_cancelled(lab: Lab) -> None:
    client = connect(lab)
    assert ask(client, "AUTH PLAIN") == "+ "
    assert ask(client, "*") == "-ERR Authentication aborted by client."
    assert ask(client, "NOOP") == "-ERR log in before NOOP"
    assert ask(client, f"AUTH PLAIN {plain('', ANA, PASSWORD)}").startswith("+OK")


def test_auth_answers_that_are_not_plain_are_refused(lab: Lab) -> None:
    client = connect(lab)
    for answer in ("=", "%%%", "YQ==", "YQBi", "AGEAYgBj", "/wD/AP8=", "é"):
        assert ask(client, f"AUTH PLAIN {answer}").startswith("-ERR that is not PLAIN")
        assert ask(client, "AUTH PLAIN") == "+ "
        assert ask(client, answer).startswith("-ERR that is not PLAIN")


def test_other_mechanisms_are_refused(lab: Lab) -> None:
    client = connect(lab)
    for mechanism in ("LOGIN", "CRAM-MD5", "EXTERNAL", "X"):
        assert ask(client, f"AUTH {mechanism}") == "-ERR Unsupported authentication mechanism."


def test_nobody_acts_for_somebody_else(lab: Lab) -> None:
    play(
        lab,
        "pop3",
        f"""
        S: +OK ...
        C: AUTH PLAIN {plain(BEN, ANA, PASSWORD)}
        S: -ERR [AUTH] ...
        """,
    )


# -- CAPA (RFC 2449) and STLS (RFC 2595)


def capabilities(client: Client) -> list[str]:
    assert ask(client, "CAPA").startswith("+OK")
    return [line.decode().strip() for line in rest(client)]


COMMON = ["TOP", "UIDL", "USER", "SASL PLAIN", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING"]


def test_capabilities_are_the_same_in_both_states_but_for_stls(lab: Lab) -> None:
    client = connect(lab)
    assert capabilities(client) == [*COMMON, "STLS"]
    client.close()
    client = log_in(lab)
    assert capabilities(client) == COMMON
    client.close()
    client = connect(lab, "pop3s")
    assert capabilities(client) == COMMON


def _top(lab: Lab) -> None:
    assert multi_line(lab, "TOP 1 1") == b"Subject: hello\r\n\r\nfirst\r\n"


def _uidl(lab: Lab) -> None:
    assert multi_line(lab, "UIDL") == b"1 1.1\r\n"


def _user(lab: Lab) -> None:
    client = connect(lab)
    assert ask(client, f"USER {ANA}").startswith("+OK")
    assert ask(client, f"PASS {PASSWORD}").startswith("+OK maildrop")


def _sasl_plain(lab: Lab) -> None:
    assert ask(connect(lab), f"AUTH PLAIN {plain('', ANA, PASSWORD)}").startswith("+OK maildrop")


def _resp_codes(lab: Lab) -> None:
    first = log_in(lab)
    answer = ask(connect(lab), f"AUTH PLAIN {plain('', ANA, PASSWORD)}")
    assert answer.startswith("-ERR [IN-USE] ")
    first.close()


def _auth_resp_code(lab: Lab) -> None:
    answer = ask(connect(lab), f"AUTH PLAIN {plain('', ANA, 'wrong')}")
    assert answer.startswith("-ERR [AUTH] ")


def _pipelining(lab: Lab) -> None:
    client = connect(lab)
    client.send(f"USER {ANA}\r\nPASS {PASSWORD}\r\nRETR 1\r\nDELE 1\r\nQUIT\r\n".encode())
    assert sum(line.startswith(b"+OK") for line in iter(client.line, b"")) == 5


def _stls(lab: Lab) -> None:
    client = connect(lab)
    assert ask(client, "STLS").startswith("+OK")
    client.start_tls()
    assert ask(client, f"AUTH PLAIN {plain('', ANA, PASSWORD)}").startswith("+OK maildrop")


OFFERED = {
    "TOP": _top,
    "UIDL": _uidl,
    "USER": _user,
    "SASL PLAIN": _sasl_plain,
    "RESP-CODES": _resp_codes,
    "AUTH-RESP-CODE": _auth_resp_code,
    "PIPELINING": _pipelining,
    "STLS": _stls,
}


def test_every_word_that_capa_lists_has_its_dialogue_here(lab: Lab) -> None:
    listed = {*capabilities(connect(lab)), *capabilities(log_in(lab, "pop3s"))}
    assert listed == set(OFFERED)


@pytest.mark.parametrize("word", OFFERED)
def test_what_capa_lists_is_there(lab: Lab, word: str) -> None:
    keep(lab, HELLO)
    OFFERED[word](lab)


def test_stls_begins_the_dialogue_anew(lab: Lab) -> None:
    session = play(
        lab,
        "pop3",
        f"""
        S: +OK ...
        C: USER {ANA}
        S: +OK ...
        C: STLS
        S: +OK Begin TLS negotiation now.
        -- TLS
        C: PASS {PASSWORD}
        S: -ERR No username given.
        C: STLS
        S: -ERR TLS is already active.
        C: CAPA
        S: +OK ...
        S: TOP
        """,
    )
    assert session.tls.startswith("TLSv1.")


@pytest.mark.parametrize("commands", [1, 200])
def test_plaintext_sent_along_with_stls_is_not_obeyed(lab: Lab, commands: int) -> None:
    client = connect(lab)
    injected = f"AUTH PLAIN {plain('', ANA, PASSWORD)}\r\n"
    client.send(b"STLS\r\n" + injected.encode() * commands)
    assert client.line() == b"+OK Begin TLS negotiation now.\r\n"
    client.start_tls()
    assert ask(client, "STAT") == "-ERR log in before STAT"
    client.close()
    assert "+OK maildrop" not in lab.sessions[-1].text()


def test_failed_handshake_ends_the_connection(lab: Lab) -> None:
    session = play(
        lab,
        "pop3",
        r"""
        S: +OK ...
        C: STLS
        S: +OK Begin TLS negotiation now.
        C! this is no TLS\r\nand never will be, whoever waits for it\r\n
        """,
    )
    assert session.closed
    assert session.ending
    play(lab, "pop3", LOGIN)


def test_stls_is_refused_where_tls_is_on(lab: Lab) -> None:
    play(lab, "pop3s", "S: +OK ...\nC: STLS\nS: -ERR TLS is already active.\nC: QUIT\nS: +OK ...")


def test_end_under_stls_leaves_no_warning(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    play(
        lab,
        "pop3",
        "S: +OK ...\nC: STLS\nS: +OK Begin TLS negotiation now.\n-- TLS\nC: CAPA\nS: +OK ...",
    )
    assert lab.sessions[-1].closed
    assert caplog.record_tuples == []


# -- TRANSACTION


def test_empty_maildrop(lab: Lab) -> None:
    play(
        lab,
        "pop3",
        f"""
        {LOGIN}
        C: STAT
        S: +OK 0 0
        C: LIST
        S: +OK 0 messages (0 octets)
        S: .
        C: UIDL
        S: +OK ...
        S: .
        C: LIST 1
        S: -ERR no such message...
        C: NOOP
        S: +OK
        C: QUIT
        S: +OK ...(maildrop empty)
        """,
    )


@pytest.mark.parametrize("verb", ["LIST", "RETR", "DELE", "UIDL", "TOP"])
def test_what_is_no_message_number_is_refused(lab: Lab, verb: str) -> None:
    keep(lab, HELLO, HELLO)
    client = log_in(lab)
    lines = " 0" if verb == "TOP" else ""
    numbers = ["0", "3", "-1", "+1", "1.0", "x", "²", "01x", "9" * 200, "1 2", "1\0", " 1"]
    for number in numbers:
        assert ask(client, f"{verb} {number}{lines}").startswith("-ERR ")
    assert ask(client, "STAT").startswith("+OK 2 ")


def test_deleted_message_is_gone_from_every_listing_and_its_number_stays(lab: Lab) -> None:
    keep(lab, message_of(100), message_of(200), message_of(300))
    play(
        lab,
        "pop3",
        f"""
        {LOGIN}
        C: DELE 2
        S: +OK message 2 deleted
        C: STAT
        S: +OK 2 400
        C: LIST
        S: +OK 2 messages (400 octets)
        S: 1 100
        S: 3 300
        S: .
        C: UIDL
        S: +OK ...
        S: 1 ...
        S: 3 ...
        S: .
        C: RETR 2
        S: -ERR message 2 already deleted
        C: TOP 2 0
        S: -ERR message 2 already deleted
        C: LIST 2
        S: -ERR message 2 already deleted
        C: UIDL 2
        S: -ERR message 2 already deleted
        C: DELE 2
        S: -ERR message 2 already deleted
        C: LIST 3
        S: +OK 3 300
        C: RSET
        S: +OK maildrop has 3 messages (600 octets)
        C: LIST
        S: +OK 3 messages (600 octets)
        S: 1 100
        S: 2 200
        S: 3 300
        S: .
        C: QUIT
        S: +OK ...(3 left)
        """,
    )
    assert len(kept(lab)) == 3


def test_unique_ids_stay_with_their_messages_for_good(lab: Lab) -> None:
    def unique_ids() -> dict[str, str]:
        client = log_in(lab)
        assert ask(client, "UIDL").startswith("+OK")
        listed = [line.decode().split() for line in rest(client)]
        client.close()
        assert lab.sessions[-1].closed
        return dict(listed)

    keep(lab, HELLO, HELLO, HELLO)
    first = unique_ids()
    assert all(re.fullmatch(r"[\x21-\x7e]{1,70}", one) for one in first.values())
    assert len(set(first.values())) == 3
    assert unique_ids() == first

    play(lab, "pop3", f"{LOGIN}\nC: DELE 3\nS: +OK ...\nC: DELE 1\nS: +OK ...\nC: QUIT\nS: +OK ...")
    keep(lab, HELLO)
    second = unique_ids()
    assert second["1"] == first["2"]
    assert second["2"] not in first.values()


TOPS = [
    (0, b"Subject: hello\r\n\r\n"),
    (1, b"Subject: hello\r\n\r\nfirst\r\n"),
    (3, HELLO),
    (4, HELLO),
    (10**200, HELLO),
]


@pytest.mark.parametrize(("lines", "expected"), TOPS)
def test_top_sends_headers_and_some_lines(lab: Lab, lines: int, expected: bytes) -> None:
    keep(lab, HELLO)
    assert multi_line(lab, f"TOP 1 {lines}") == expected


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (b"Subject: headers only\r\n", b"Subject: headers only\r\n"),
        (b"Subject: no end", b"Subject: no end\r\n"),
        (b"\r\nbody only\r\nmore\r\n", b"\r\nbody only\r\n"),
        (b"Subject: unix\n\n.one\ntwo\n", b"Subject: unix\r\n\r\n.one\r\n"),
        (b"", b""),
    ],
)
def test_top_of_unusual_messages(lab: Lab, stored: bytes, expected: bytes) -> None:
    keep(lab, stored)
    assert multi_line(lab, "TOP 1 1") == expected


def test_top_wants_a_number_of_lines(lab: Lab) -> None:
    keep(lab, HELLO)
    client = log_in(lab)
    for count in ("-1", "x", "²", "1 2"):
        assert ask(client, f"TOP 1 {count}") == "-ERR how many lines is a number from 0 on"


def test_listings_of_many_messages(lab: Lab) -> None:
    keep(lab, *[HELLO] * 2000)
    listed = multi_line(lab, "LIST")
    assert listed == b"".join(b"%d %d\r\n" % (n, len(HELLO)) for n in range(1, 2001))


# -- what travels: CRLF lines, dots stuffed, sizes to match


def multi_line(lab: Lab, command: str) -> bytes:
    """Log in, ask, and undo the stuffing of the answer as RFC 1939 section 3 says."""
    client = log_in(lab)
    assert ask(client, command).startswith("+OK")
    lines = list(rest(client))
    client.close()
    assert all(line.endswith(b"\r\n") for line in lines)
    assert lab.sessions[-1].closed
    return b"".join(line.removeprefix(b".") for line in lines)


PIECE = 64 * 1024
LINES = {
    "CRLF": (b"a\r\n\r\nb\r\n", b"a\r\n\r\nb\r\n"),
    "bare LF": (b"a\n\nb\n.\n..\n", b"a\r\n\r\nb\r\n.\r\n..\r\n"),
    "no last line end": (b"a: b\r\n\r\nlast", b"a: b\r\n\r\nlast\r\n"),
    "last is a dot": (b"a: b\r\n\r\n.", b"a: b\r\n\r\n.\r\n"),
    "dot first": (b".\r\n.\r\n", b".\r\n.\r\n"),
    "bare CR": (b"a\rb\r\r\n\r.\r\n", b"a\rb\r\r\n\r.\r\n"),
    "every octet": (b": \r\n\r\n" + bytes(range(256)) * 2, None),
    "empty": (b"", b""),
    "only LF": (b"\n", b"\r\n"),
    "long lines": (b"x" * 3 * PIECE + b".\r\n." + b"y" * PIECE, None),
    "CRLF at a piece's edge": (b"x" * (PIECE - 1) + b"\r\n.\r\n", None),
    "CRs at a piece's edge": (b"x" * (PIECE - 2) + b"\r" * 5 + b"\n.\n", None),
    "dot at a piece's edge": (b"x" * (PIECE - 1) + b"\n" + b".dot\n" * 20000, None),
    "dot after a piece in a line": (b"x" * PIECE + b".y\r\n", None),
}


@pytest.mark.parametrize("case", LINES)
def test_message_travels_as_lines_and_its_size_is_what_travels(lab: Lab, case: str) -> None:
    stored, expected = LINES[case]
    if expected is None:
        expected = re.sub(rb"(?<!\r)\n", b"\r\n", stored)
        expected += b"" if expected.endswith(b"\n") else b"\r\n"
    keep(lab, stored)
    assert multi_line(lab, "RETR 1") == expected
    client = log_in(lab)
    assert ask(client, "LIST 1") == f"+OK 1 {len(expected)}"
    assert ask(client, "STAT") == f"+OK 1 {len(expected)}"
    assert ask(client, "RETR 1") == f"+OK {len(expected)} octets"
    client.close()
    assert kept(lab) == [stored]


def test_a_short_reply_travels_in_one_tls_record(lab: Lab) -> None:
    keep(lab, HELLO)
    client = log_in(lab, "pop3s")
    before = len(lab.sessions[-1].records)
    client.send(b"RETR 1\r\n")
    list(rest(client))
    sent = [record.who for record in lab.sessions[-1].records[before:]]
    assert sent == ["C", "S"]


def test_slow_reader_makes_the_server_wait(lab: Lab) -> None:
    stored = b"Subject: big\r\n\r\n" + (b"." * 1022 + b"\r\n") * 24 * 1024
    keep(lab, stored)
    client = log_in(lab)
    assert ask(client, "RETR 1") == f"+OK {len(stored)} octets"
    assert lab.sessions[-1].octets("S") < len(stored) // 2
    received = 0
    for line in rest(client):
        received += len(line.removeprefix(b"."))
    assert received == len(stored)
    assert ask(client, "NOOP") == "+OK"


# -- bad input


def test_line_of_255_octets_is_the_longest(lab: Lab) -> None:
    client = connect(lab)
    assert ask(client, "USER " + "n" * 248) == "+OK send the password"
    assert ask(client, "USER " + "n" * 249) == "-ERR a line may have 255 octets"
    assert ask(client, "x" * 10_000) == "-ERR a line may have 255 octets"
    assert ask(client, "QUIT").startswith("+OK")


def test_line_without_end_is_cut_off(lab: Lab) -> None:
    client = log_in(lab)
    client.send(b"x" * 20_000)
    assert client.line() == b"-ERR Input line too long.\r\n"
    assert client.line() == b""
    client.close()
    play(lab, "pop3", LOGIN)


def test_garbage_is_refused_line_by_line(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    garbage = [b"\0", b"\0" * 200, bytes(range(11, 256)), b"\xff\xfe", b"USER", b"PASS", b"STAT\0"]
    garbage += [
        "\u017fTAT".encode(),
        b"RETR \0",
        b"TOP 1 \xff",
        b"LIST \xe2\x82",
        b"\r\r\r",
        b"\x1b[2J",
    ]
    keep(lab, HELLO)
    # Before login there may be only a few of them.
    pieces = [garbage[:4], garbage[4:8], garbage[8:], garbage]
    for piece, client in zip(pieces, (*(connect(lab) for _ in range(3)), log_in(lab)), strict=True):
        for line in piece:
            client.send(line + b"\r\n")
        client.send(b"CAPA\r\n")
        replies = list(rest(client))
        client.close()
        refusals = [reply for reply in replies if reply.startswith(b"-ERR ")]
        assert len(refusals) == len(piece)
    assert caplog.record_tuples == []
    assert kept(lab) == [HELLO]


def test_bare_lf_ends_a_command_too(lab: Lab) -> None:
    play(
        lab,
        "pop3",
        rf"""
        C! USER {ANA}\nPASS {PASSWORD}\nSTAT\n
        S: +OK ...
        S: +OK ...
        S: +OK ...
        S: +OK 0 0
        """,
    )


# -- the lock and the end


def test_second_client_is_told_that_the_maildrop_is_in_use(lab: Lab) -> None:
    keep(lab, HELLO)
    first = log_in(lab, "pop3s")
    play(
        lab,
        "pop3",
        f"""
        S: +OK ...
        C: USER {ANA}
        S: +OK ...
        C: PASS {PASSWORD}
        S: -ERR [IN-USE] ...
        C: AUTH PLAIN {plain("", ANA, PASSWORD)}
        S: -ERR [IN-USE] ...
        C: AUTH PLAIN {plain("", ANA, PASSWORD)}
        S: -ERR [IN-USE] ...
        C: STAT
        S: -ERR log in before STAT
        C: AUTH PLAIN {plain("", BEN, BENS_PASSWORD)}
        S: +OK maildrop has 0 messages (0 octets)
        """,
    )
    assert ask(first, "QUIT").startswith("+OK")
    # The reply is out, so the maildrop is free, whether the connection is closed yet or not.
    log_in(lab).close()
    first.close()


def test_lab_has_one_lock_for_each_account() -> None:
    maildrops = Maildrops()
    assert maildrops.lock("ana@lab.example")
    assert not maildrops.lock("ana@lab.example")
    assert maildrops.lock("ben@lab.example")
    maildrops.release("ana@lab.example")
    assert maildrops.lock("ana@lab.example")
    assert not maildrops.lock("ben@lab.example")


@pytest.mark.parametrize("listener", ["pop3", "pop3s"])
def test_cut_connection_deletes_nothing_and_frees_the_maildrop(lab: Lab, listener: str) -> None:
    keep(lab, HELLO, HELLO)
    client = log_in(lab, listener)
    assert ask(client, "DELE 1") == "+OK message 1 deleted"
    client.send(b"DELE 2\r\nQUI")
    client.close()
    session = lab.sessions[-1]
    assert session.closed
    assert session.ending
    assert kept(lab) == [HELLO, HELLO]
    play(lab, "pop3", LOGIN)


def test_cut_in_the_middle_of_a_message_frees_the_maildrop(lab: Lab) -> None:
    keep(lab, message_of(20_000_000))
    client = log_in(lab)
    assert ask(client, "DELE 1").startswith("+OK")
    assert ask(client, "RSET").startswith("+OK")
    assert ask(client, "RETR 1").startswith("+OK")
    client.close()
    assert lab.sessions[-1].closed
    play(lab, "pop3", f"{LOGIN}\nC: STAT\nS: +OK 1 20000000")


def test_silent_client_is_left_without_a_word_or_an_update(inline: Network) -> None:
    with Lab(network=inline, limits=Limits(pop3_idle=5)) as lab:
        keep(lab, HELLO)
        session = play(lab, "pop3", f"{LOGIN}\nC: DELE 1\nS: +OK ...\n-- server closes")
        assert session.closed
        assert session.duration == pytest.approx(5)
        assert kept(lab) == [HELLO]
        play(lab, "pop3", LOGIN)


@pytest.mark.parametrize("when", ["greeted", "named", "logged in", "authenticating"])
def test_client_may_be_silent_for_ten_minutes(inline: Network, when: str) -> None:
    with Lab(network=inline) as lab:
        client = log_in(lab) if when == "logged in" else connect(lab)
        if when == "named":
            ask(client, f"USER {ANA}")
        elif when == "authenticating":
            ask(client, "AUTH PLAIN")
        client._sock.settimeout(3600)
        before = inline.clock.seconds()
        assert client.line() == b""
        assert inline.clock.seconds() - before == pytest.approx(600)


def test_silence_is_counted_from_the_last_command_of_any_kind(inline: Network) -> None:
    with Lab(network=inline, limits=Limits(pop3_idle=5)) as lab:
        keep(lab, HELLO, message_of(500_000))
        client = log_in(lab)
        client._sock.settimeout(4)
        for command in ("NOOP", "RETR 1", "RETR 2", "CAPA", "BOGUS"):
            ask(client, command)
            if command[:4] in ("RETR", "CAPA"):
                list(rest(client))
            with pytest.raises(TimeoutError):
                client._sock.recv(1)
        assert ask(client, "NOOP") == "+OK"
        before = inline.clock.seconds()
        client._sock.settimeout(10)
        assert client.line() == b""
        assert inline.clock.seconds() - before == pytest.approx(5)


def test_commands_are_answered_in_turn_however_they_are_cut(lab: Lab) -> None:
    keep(lab, message_of(100), message_of(300_000))
    said = b"RETR 2\r\nDELE 1\r\nSTAT\r\nRSET\r\n"
    for cut in (0, 3, 7, 8, 9, 15, 16, 17, len(said) - 1):
        client = log_in(lab)
        client.send(said[:cut])
        client.send(said[cut:])
        assert client.line() == b"+OK 300000 octets\r\n"
        assert sum(map(len, rest(client))) == 300_000
        assert client.line() == b"+OK message 1 deleted\r\n"
        assert client.line() == b"+OK 1 300000\r\n"
        assert client.line().startswith(b"+OK maildrop")
        client.close()
        assert lab.sessions[-1].closed


def test_unique_ids_survive_a_restart_and_not_the_mail(inline: Network, tmp_path: Path) -> None:
    told = []
    for wiped in (False, True, False):
        with Lab(network=inline, data=tmp_path / "mail", limits=Limits(pop3_idle=5)) as lab:
            if not lab.inbox(ANA):
                keep(lab, HELLO)
            told.append(multi_line(lab, "UIDL"))
            assert connect(lab).line() == b""  # time passes
        if wiped:
            shutil.rmtree(tmp_path / "mail")
    assert told[0] == told[1]
    assert told[1] != told[2]


def test_a_big_maildrop_is_read_in_little_memory(inline: Network) -> None:
    with Lab(network=inline) as lab:
        keep(lab, *(message_of(1_000_000) for _ in range(40)))
        client = log_in(lab)
        tracemalloc.start()
        try:
            for number in range(1, 41):
                client.send(b"RETR %d\r\n" % number)
                left = 1_000_000
                while left > 0:
                    left -= len(client._sock.recv(64 * 1024))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 10_000_000


def test_session_has_only_so_many_commands(network: Network) -> None:
    with Lab(network=network, limits=Limits(session_commands=5)) as lab:
        keep(lab, HELLO)
        session = play(
            lab,
            "pop3",
            rf"""
            {LOGIN}
            C: DELE 1
            S: +OK ...
            C: BOGUS
            S: -ERR Unknown command.
            C! NOOP\r\nQUIT\r\nNOOP\r\n
            S: +OK
            S: -ERR [SYS/TEMP] that is enough for one session, come back later
            -- server closes
            """,
        )
        assert session.closed
        assert kept(lab) == [HELLO]
        play(lab, "pop3", LOGIN)


def test_commands_whose_answers_nobody_reads_do_not_pile_up(inline: Network) -> None:
    with Lab(network=inline, limits=Limits(pop3_idle=5)) as lab:
        deaf = log_in(lab)
        for _ in range(200):
            deaf.send(b"STAT 1 2 3\r\n" * 1000)
        # The server has stopped reading, and waits no longer than for a silent client.
        assert len(deaf._sock._end.unread) < 400_000
        other = connect(lab)
        assert ask(other, "CAPA") == "+OK capability list follows"
        assert list(rest(other))
        assert other.line() == b""
        assert lab.sessions[0].closed
        play(lab, "pop3", LOGIN)


def test_silent_client_is_left_on_every_network(network: Network) -> None:
    with Lab(network=network, limits=Limits(pop3_idle=0.05)) as lab:
        play(lab, "pop3", "S: +OK ...\n-- server closes")
        play(lab, "pop3s", "S: +OK ...\n-- server closes")


def test_a_command_sent_octet_by_octet_does_not_hold_the_connection(inline: Network) -> None:
    with Lab(network=inline, limits=Limits(pop3_idle=5)) as lab:
        slow, other = log_in(lab), connect(lab)
        slow.send(b"NO")
        assert other.line() == b""  # virtual time has passed
        assert lab.sessions[0].closed


def test_client_that_never_reads_loses_the_maildrop(network: Network) -> None:
    with Lab(network=network, limits=Limits(pop3_idle=0.5)) as lab:
        keep(lab, message_of(20_000_000))
        deaf = log_in(lab)
        deaf.send(b"RETR 1\r\n")
        assert not lab.sessions[0].closed
        # Another client's time begins later, so when it is over, the first one's is too.
        assert connect(lab).line() == b""
        assert lab.sessions[0].closed
        play(lab, "pop3", LOGIN)


def test_mail_that_arrives_meanwhile_is_seen_at_the_next_login(lab: Lab) -> None:
    keep(lab, message_of(100))
    client = log_in(lab)
    keep(lab, message_of(200))
    assert ask(client, "STAT") == "+OK 1 100"
    assert ask(client, "RETR 2").startswith("-ERR no such message")
    assert ask(client, "DELE 1").startswith("+OK")
    assert ask(client, "QUIT").startswith("+OK")
    client.close()
    assert kept(lab) == [message_of(200)]


def test_message_removed_by_imap_meanwhile_is_refused_and_harms_nothing(lab: Lab) -> None:
    keep(lab, message_of(100), message_of(200))
    client = log_in(lab)
    other = imaplib.IMAP4(*lab.imap)
    other.login(ANA, PASSWORD)
    other.select("INBOX")
    other.create("Archive")
    other.copy("1", "Archive")
    other.store("1", "+FLAGS", r"(\Deleted)")
    other.expunge()
    other.logout()
    assert ask(client, "RETR 1") == "-ERR message 1 has been removed by another mail program"
    assert ask(client, "TOP 1 0") == "-ERR message 1 has been removed by another mail program"
    assert ask(client, "DELE 1") == "+OK message 1 deleted"
    assert ask(client, "RETR 2") == "+OK 200 octets"
    list(rest(client))
    assert ask(client, "QUIT") == "+OK lab.example POP3 server signing off (1 left)"
    client.close()
    assert kept(lab) == [message_of(200)]


def test_lab_closes_under_a_client_that_has_marked_messages(lab: Lab) -> None:
    keep(lab, HELLO)
    client = log_in(lab)
    assert ask(client, "DELE 1").startswith("+OK")
    lab.close()
    client.close()
    assert lab.sessions[-1].closed


# -- when the store fails


def test_store_that_can_not_be_written_fails_quit_and_keeps_the_mail(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    keep(lab, HELLO)
    client = log_in(lab)
    assert ask(client, "DELE 1").startswith("+OK")
    database = lab._store._db
    lab.network.run(lambda: database.execute("PRAGMA query_only=ON"))
    refused = ask(client, "QUIT")
    assert refused == "-ERR [SYS/TEMP] the mail store can't do that now, nothing was changed"
    assert client.line() == b""
    client.close()
    lab.network.run(lambda: database.execute("PRAGMA query_only=OFF"))
    assert kept(lab) == [HELLO]
    assert [(name, level) for name, level, _ in caplog.record_tuples] == [
        ("labserver", logging.WARNING)
    ]
    play(lab, "pop3", LOGIN)


def test_store_that_can_not_be_read_is_answered_logged_and_got_over(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    keep(lab, HELLO)
    database = lab._store._db
    client = log_in(lab)
    lab.network.run(lambda: database.execute("ALTER TABLE content RENAME TO elsewhere"))
    refused = "-ERR [SYS/TEMP] the mail store can't do that now, nothing was changed"
    assert ask(client, "RETR 1") == refused
    other = connect(lab)
    assert ask(other, f"AUTH PLAIN {plain('', BEN, BENS_PASSWORD)}") == refused
    lab.network.run(lambda: database.execute("ALTER TABLE elsewhere RENAME TO content"))
    assert ask(client, "RETR 1") == f"+OK {len(HELLO)} octets"
    # The login that failed has left no lock behind.
    assert ask(other, f"AUTH PLAIN {plain('', BEN, BENS_PASSWORD)}").startswith("+OK")
    assert {name for name, _, _ in caplog.record_tuples} == {"labserver"}


def test_mistake_in_the_server_is_answered_logged_and_got_over(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    keep(lab, HELLO)
    database = lab._store._db
    damage = "UPDATE message SET received = 'some text' WHERE uid = 1"
    lab.network.run(lambda: database.execute(damage))
    client = connect(lab)
    login = f"AUTH PLAIN {plain('', ANA, PASSWORD)}"
    assert ask(client, login).startswith("-ERR [SYS/TEMP] Internal error occurred. ")
    assert ask(client, "NOOP") == "-ERR log in before NOOP"
    lab.network.run(lambda: database.execute("UPDATE message SET received = 0 WHERE uid = 1"))
    assert ask(client, login) == f"+OK maildrop has 1 message ({len(HELLO)} octets)"
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("labserver", logging.ERROR)
    assert record.exc_info is not None
