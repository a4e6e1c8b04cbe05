"""The IMAP server as a client meets it, over both networks: RFC 3501 and what it advertises."""

from __future__ import annotations

import asyncio
import base64
import gc
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
from dialogue import Client, play

from labserver import Lab, Limits
from labserver.message import Envelope
from labserver.mime import Part
from labserver.network import Network
from labserver.network.inline import InlineNetwork
from labserver.network.loopback import LoopbackNetwork
from labserver.servers.imap.structure import Body
from labserver.servers.imap.structure import Envelope as EnvelopeStructure
from labserver.store import Delivery, StoreError

pytestmark = pytest.mark.protocol

ANA, PASSWORD = "ana@lab.example", "ana-lab-password"
BEN, BEN_PASSWORD = "ben@lab.example", "ben-lab-password"
NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
HELLO = b"Subject: hello\r\nFrom: eve@far.example\r\n\r\nfirst\r\nsecond\r\n"
LOGIN = f"""
    S: * OK [CAPABILITY IMAP4rev1 ...] lab.example IMAP server ready
    C: a LOGIN {ANA} {PASSWORD}
    S: a OK [CAPABILITY IMAP4rev1 ...] Authentication successful.
"""
ENTER = (
    LOGIN
    + """
    C: b SELECT INBOX
    S: * FLAGS ...
    S: * OK [PERMANENTFLAGS ...
    S: * ... EXISTS
    S: * ... RECENT
    S: * OK [UIDVALIDITY 1] UIDs valid.
    S: * OK [UIDNEXT ...
    S: b OK [READ-WRITE] SELECT completed.
"""
)
"""SELECT where there is nothing unseen."""
SEEN = frozenset({"\\Seen"})


def keep(lab: Lab, *messages: bytes, account: str = ANA, flags: frozenset[str] = SEEN) -> None:
    """Put messages into an INBOX exactly as they are, without a server's trace headers."""
    store = lab._store

    def append() -> None:
        inbox = store.ensure_mailbox(account, "INBOX")
        with store.transaction():
            for octets in messages:
                store.append(inbox.id, octets, NOON, flags)

    lab.network.run(append)


def deliver(lab: Lab, octets: bytes = HELLO) -> None:
    """What the SMTP server does with a message."""
    delivery = Delivery(Envelope("eve@far.example", (ANA,)), octets, NOON)
    lab.network.run(lambda: lab._store.deliver(delivery))


_open: list[Client] = []


@pytest.fixture(autouse=True)
def _no_client_stays_open() -> Iterator[None]:
    yield
    while _open:
        _open.pop().close()


def connect(lab: Lab, listener: str = "imap") -> Client:
    """A client that is closed when its test ends."""
    _open.append(Client(lab, listener))
    return _open[-1]


class Imap:
    """A client that says a command and gives back all that is answered, the tag left out."""

    def __init__(self, lab: Lab, listener: str = "imap", *, account: str = ANA) -> None:
        self.client = connect(lab, listener)
        self.client.line()
        assert self("LOGIN", account, dict(lab.accounts)[account])[-1].startswith("OK")

    def __call__(self, *words: str) -> list[str]:
        self.client.send(" ".join(("t", *words)).encode() + b"\r\n")
        return self.answer()

    def answer(self, tag: str = "t ") -> list[str]:
        """All lines up to the tagged one; literals stand in them as they are."""
        lines = []
        while True:
            line = self.line()
            lines.append(line.removeprefix(tag))
            if line.startswith(tag):
                return lines

    def line(self) -> str:
        octets = self.client.line()
        assert octets, "the connection ended"
        while literal := re.search(rb"\{(\d+)\}\r\n\Z", octets):
            end = len(octets) + int(literal[1])
            while len(octets) <= end:  # the literal and the rest of the line
                octets += self.client.line()
        return octets.decode("utf-8", "backslashreplace").removesuffix("\r\n")

    def say(self, octets: bytes) -> None:
        self.client.send(octets)


@pytest.fixture
def inline() -> Iterator[Network]:
    """Virtual time, for what takes long."""
    network = InlineNetwork()
    yield network
    network.close()


def ana(lab: Lab) -> Imap:
    """A client with INBOX selected."""
    client = Imap(lab)
    assert client("SELECT INBOX")[-1].startswith("OK [READ-WRITE]")
    return client


def uidvalidity(client: Imap, mailbox: str = "INBOX") -> int:
    """What STATUS tells."""
    told = re.search(r"UIDVALIDITY (\d+)", client(f"STATUS {mailbox} (UIDVALIDITY)")[0])
    assert told
    return int(told[1])


def at_work(lab: Lab) -> tuple[int, int]:
    """How many tasks and watchers there are where the servers run."""

    def count() -> tuple[int, int]:
        return len(asyncio.all_tasks()), len(lab._store._watchers)

    lab.network.settle()
    return lab.network.run(count)


# -- greeting, login


def test_a_session_from_greeting_to_logout(lab: Lab) -> None:
    session = play(
        lab,
        "imap",
        f"""
        S: * OK [CAPABILITY IMAP4rev1 ... STARTTLS AUTH=PLAIN] lab.example IMAP server ready
        C: a1 LOGIN {ANA} {PASSWORD}
        S: a1 OK [CAPABILITY IMAP4rev1 ... APPENDLIMIT=33554432] Authentication successful.
        C: a2 SELECT inbox
        S: * FLAGS (\\Answered \\Deleted \\Draft \\Flagged \\Seen)
        S: * OK [PERMANENTFLAGS (\\* \\Answered \\Deleted \\Draft \\Flagged \\Seen)] ...
        S: * 0 EXISTS
        S: * 0 RECENT
        S: * OK [UIDVALIDITY 1] UIDs valid.
        S: * OK [UIDNEXT 1] Predicted next UID.
        S: a2 OK [READ-WRITE] SELECT completed.
        C: a3 LOGOUT
        S: * BYE Logging out.
        S: a3 OK Logout successful.
        -- server closes
        """,
    )
    assert session.closed
    assert session.ending == ""


def test_capability_names_what_there_is_and_no_version(lab: Lab) -> None:
    client = connect(lab)
    greeting = client.line().decode()
    assert not re.search(r"pymap|\d+\.\d+", greeting)
    client.send(b"a CAPABILITY\r\n")
    assert (
        client.line().decode().split()[2:]
        == (
            "IMAP4rev1 LITERAL+ SASL-IR ENABLE IDLE NAMESPACE UIDPLUS MOVE UNSELECT CHILDREN"
            " STATUS=SIZE APPENDLIMIT=33554432 STARTTLS AUTH=PLAIN"
        ).split()
    )


WRONG_LOGINS = [
    f"{ANA} wrong",
    f"nobody@lab.example {PASSWORD}",
    f"{BEN} {PASSWORD}",
    f'{ANA} ""',
    '"" ""',
    '"\\"" "\\\\"',
]


def test_a_wrong_name_or_password_is_refused_and_can_be_tried_again(lab: Lab) -> None:
    for words in WRONG_LOGINS:
        play(
            lab,
            "imap",
            f"""
            S: * OK ...
            C: a LOGIN {words}
            S: a NO [AUTHENTICATIONFAILED] Authentication failed.
            C: b SELECT INBOX
            S: b BAD SELECT: Must authenticate first.
            C: c LOGIN "{ANA.upper()}" "{PASSWORD}"
            S: c OK ...
            C: d LOGIN {ANA} {PASSWORD}
            S: d BAD LOGIN: Already authenticated.
            C: e AUTHENTICATE PLAIN
            S: e BAD AUTHENTICATE: Already authenticated.
            """,
        )


def wrong_password(lab: Lab) -> None:
    client = connect(lab)
    client.line()
    client.send(f"a LOGIN {ANA} wrong\r\n".encode())
    client.line()
    client.close()


def test_a_wrong_password_takes_a_moment(inline: Network) -> None:
    with Lab(network=inline) as lab:
        before = inline.clock.seconds()
        wrong_password(lab)
        assert inline.clock.seconds() - before == pytest.approx(0.1)


def test_each_wrong_password_takes_twice_as_long_and_the_last_one_ends_it(inline: Network) -> None:
    limits = Limits(login_failures=4, login_delay=1.0)
    with Lab(network=inline, limits=limits) as lab:
        session = play(
            lab,
            "imap",
            f"""
            S: * OK ...
            C: a LOGIN {ANA} wrong
            S: a NO [AUTHENTICATIONFAILED] Authentication failed.
            C: b AUTHENTICATE PLAIN {plain("", ANA, "wrong")}
            S: b NO [AUTHENTICATIONFAILED] Authentication failed.
            C: c LOGIN nobody wrong
            S: c NO [AUTHENTICATIONFAILED] Authentication failed.
            C! d LOGIN {ANA} x\\r\\ne LOGIN {ANA} {PASSWORD}\\r\\n
            S: d NO [AUTHENTICATIONFAILED] Authentication failed.
            S: * BYE That was the last wrong password here.
            -- server closes
            """,
        )
    assert session.closed
    refusals = [line.at for line in session.lines if b" NO [AUTH" in line.data]
    assert refusals == pytest.approx([1, 3, 7, 15])


def test_a_delay_never_takes_longer_than_a_client_may_be_silent(inline: Network) -> None:
    limits = Limits(login_failures=2000, login_delay=1.0, imap_idle=4.0)
    with Lab(network=inline, limits=limits) as lab:
        client = connect(lab)
        client.line()
        for n in range(1999):
            client.send(f"{n} LOGIN {ANA} wrong\r\n".encode())
            assert client.line().startswith(b"%d NO " % n)
        assert inline.clock.seconds() == pytest.approx(1 + 2 + 4 * 1997)


def plain(identity: str, name: str, password: str) -> str:
    """The PLAIN mechanism's answer (RFC 4616)."""
    return base64.b64encode(f"{identity}\0{name}\0{password}".encode()).decode()


PLAIN_ANSWERS = [
    (plain("", ANA, PASSWORD), "OK [CAPABILITY ...] Authentication successful."),
    (plain(ANA.upper(), ANA, PASSWORD), "OK ..."),
    (plain(BEN, ANA, PASSWORD), "NO [AUTHENTICATIONFAILED] ..."),
    (plain("", ANA, "wrong"), "NO [AUTHENTICATIONFAILED] ..."),
    ("*", "BAD Authentication aborted by client."),
    ("!", "BAD ..."),
    ("YQ==", "BAD ..."),
    (base64.b64encode(b"\0\xff\0\xff").decode(), "BAD Name and password have to be UTF-8."),
]


def test_authenticate_plain(lab: Lab) -> None:
    for response, answer in PLAIN_ANSWERS:
        play(
            lab,
            "imap",
            f"""
            S: * OK ...
            C: a authenticate plain
            S: +...
            C: {response}
            S: a {answer}
            C: b NOOP
            S: b OK NOOP completed.
            """,
        )


def test_authenticate_with_the_answer_at_once(lab: Lab) -> None:
    for response, answer in PLAIN_ANSWERS:
        if response in ("*", "!"):
            answer = "BAD AUTHENTICATE: Invalid arguments."
        play(
            lab,
            "imap",
            f"""
            S: * OK [... SASL-IR ...
            C: a authenticate plain {response}
            S: a {answer}
            C: b NOOP
            S: b OK NOOP completed.
            """,
        )
    # `=` is an answer, an empty one (RFC 4959 section 3); nothing more is asked for then.
    play(lab, "imap", "S: * OK ...\nC: a AUTHENTICATE PLAIN =\nS: a BAD ...")
    play(lab, "imap", "S: * OK ...\nC: a AUTHENTICATE X YQ==\nS: a NO Invalid authentication...")


def test_an_answer_at_once_is_as_secret_as_any(lab: Lab) -> None:
    session = play(
        lab,
        "imap",
        f"""
        S: * OK ...
        C: a AUTHENTICATE PLAIN {plain("", ANA, PASSWORD)}
        S: a OK ...
        """,
    )
    assert plain("", ANA, PASSWORD) not in session.text()


def test_an_unknown_mechanism_is_refused(lab: Lab) -> None:
    play(
        lab,
        "imap",
        """
        S: * OK ...
        C: a AUTHENTICATE CRAM-MD5
        S: a NO Invalid authentication mechanism.
        """,
    )


# -- TLS


def test_starttls(lab: Lab) -> None:
    session = play(
        lab,
        "imap",
        f"""
        S: * OK [... STARTTLS AUTH=PLAIN] ...
        C: a STARTTLS
        S: a OK Begin TLS negotiation now.
        -- TLS
        C: b CAPABILITY
        S: * CAPABILITY IMAP4rev1 ... APPENDLIMIT=33554432 AUTH=PLAIN
        S: b OK ...
        C: c STARTTLS
        S: c BAD TLS is already active.
        C: d LOGIN {ANA} {PASSWORD}
        S: d OK ...
        C: e STARTTLS
        S: e BAD STARTTLS: Already authenticated.
        """,
    )
    assert session.tls


def test_what_was_said_behind_starttls_is_not_obeyed_under_tls(lab: Lab) -> None:
    play(
        lab,
        "imap",
        f"""
        S: * OK ...
        C! a STARTTLS\\r\\nb LOGIN {ANA} {PASSWORD}\\r\\nc CREATE Injected\\r\\n
        S: a OK Begin TLS negotiation now.
        -- TLS
        C: d LIST "" *
        S: d BAD LIST: Must authenticate first.
        """,
    )


def test_with_tls_from_the_first_octet_starttls_is_not_offered(lab: Lab) -> None:
    session = play(
        lab,
        "imaps",
        """
        S: * OK [... APPENDLIMIT=33554432 AUTH=PLAIN] ...
        C: a STARTTLS
        S: a BAD TLS is already active.
        """,
    )
    assert all(line.tls for line in session.lines)


def test_a_broken_handshake_ends_one_connection_only(lab: Lab) -> None:
    before = at_work(lab)
    session = play(
        lab,
        "imap",
        """
        S: * OK ...
        C: a STARTTLS
        S: a OK Begin TLS negotiation now.
        C: b this is no TLS
        """,
    )
    assert session.ending == "the client spoke plain text where TLS was due"
    assert at_work(lab) == before
    ana(lab)


# -- mailboxes


def test_mailboxes_are_made_listed_and_removed(lab: Lab) -> None:
    play(
        lab,
        "imap",
        LOGIN
        + """
        C: c CREATE Work/2026/
        S: c OK CREATE completed.
        C: d CREATE work
        S: d OK CREATE completed.
        C: e CREATE Work
        S: e NO [ALREADYEXISTS] Mailbox already exists.
        C: f CREATE inbox
        S: f NO [ALREADYEXISTS] Mailbox already exists.
        C: g CREATE inbox/Old
        S: g OK CREATE completed.
        C: ga STATUS iNbOx/Old (MESSAGES)
        S: * STATUS INBOX/Old (MESSAGES 0)
        S: ga OK STATUS completed.
        C: gb LIST "" inbox/%
        S: * LIST (\\HasNoChildren) "/" INBOX/Old
        S: gb OK LIST completed.
        C: gc LIST inbox/ Old
        S: * LIST (\\HasNoChildren) "/" INBOX/Old
        S: gc OK LIST completed.
        C: h LIST "" *
        S: * LIST (\\HasChildren) "/" INBOX
        S: * LIST (\\HasNoChildren) "/" INBOX/Old
        S: * LIST (\\HasChildren) "/" Work
        S: * LIST (\\HasNoChildren) "/" Work/2026
        S: * LIST (\\HasNoChildren) "/" work
        S: h OK LIST completed.
        C: i LIST "" %
        S: * LIST (\\HasChildren) "/" INBOX
        S: * LIST (\\HasChildren) "/" Work
        S: * LIST (\\HasNoChildren) "/" work
        S: i OK LIST completed.
        C: j LIST Work/ %
        S: * LIST (\\HasNoChildren) "/" Work/2026
        S: j OK LIST completed.
        C: k LIST "" iNb*
        S: * LIST (\\HasChildren) "/" INBOX
        S: k OK LIST completed.
        C: l LIST "" ""
        S: * LIST (\\Noselect) "/" ""
        S: l OK LIST completed.
        C: m DELETE Work
        S: m OK DELETE completed.
        C: n LIST "" W%
        S: * LIST (\\Noselect \\HasChildren) "/" Work
        S: n OK LIST completed.
        C: o SELECT Work
        S: o NO [NONEXISTENT] Mailbox does not exist.
        C: p DELETE Work
        S: p NO [NONEXISTENT] Mailbox does not exist.
        C: q DELETE inbox
        S: q NO [CANNOT] INBOX can't be deleted.
        C: r LIST "" % RETURN (CHILDREN)
        S: r BAD LIST: Invalid arguments.
        C: s NAMESPACE
        S: * NAMESPACE (("" "/")) NIL NIL
        S: s OK NAMESPACE completed.
        """,
    )


def test_a_name_that_makes_no_sense_is_refused(lab: Lab) -> None:
    client = Imap(lab)
    client("CREATE x")
    for name in ('""', "/x", "a//b", '"a*"', '"a%"', "x" * 256, '"a\tb"', "&AAo-"):
        assert client("CREATE", name)[-1].startswith("NO [CANNOT] "), name
        assert client("RENAME x", name)[-1].startswith("NO [CANNOT] "), name


def test_a_name_that_is_no_modified_utf7_is_bad_wherever_it_stands(lab: Lab) -> None:
    client = ana(lab)
    for name in ("&", "&abc", '"&abc"', "&2AA-", "&A-", "Gr\u00fc\u00dfe", "a&b"):
        for command in (
            "CREATE",
            "DELETE",
            "SELECT",
            "EXAMINE",
            "SUBSCRIBE",
            "UNSUBSCRIBE",
            "RENAME INBOX",
            'LIST ""',
            'LSUB ""',
            "COPY 1",
            "MOVE 1",
            "UID COPY 1",
            "UID MOVE 1",
        ):
            assert client(command, name)[-1].startswith("BAD "), (command, name)
        assert client("RENAME", name, "x")[-1].startswith("BAD ")
        assert client("STATUS", name, "(MESSAGES)")[-1].startswith("BAD ")
        assert client("APPEND", name, "{1+}\r\nx")[-1].startswith("BAD ")
        assert client("NOOP") == ["OK NOOP completed."]


def test_names_beyond_ascii_travel_in_modified_utf7(lab: Lab) -> None:
    client = Imap(lab)
    assert client("CREATE &AOk-t&AOk-") == ["OK CREATE completed."]
    assert client("CREATE R&-D") == ["OK CREATE completed."]
    assert client('LIST "" *')[1:3] == [
        '* LIST (\\HasNoChildren) "/" &AOk-t&AOk-',
        '* LIST (\\HasNoChildren) "/" R&-D',
    ]
    assert lab.mailbox(ANA, "\u00e9t\u00e9") == lab.mailbox(ANA, "R&D") == ()


def test_a_pattern_full_of_wildcards_takes_no_time(lab: Lab) -> None:
    client = Imap(lab)
    client("CREATE", "a" * 200)
    assert client('LIST ""', "*a" * 100 + "b") == ["OK LIST completed."]
    assert client('LIST ""', "*a%" * 60)[0] == f'* LIST (\\HasNoChildren) "/" {"a" * 200}'


def test_rename_takes_inferiors_along(lab: Lab) -> None:
    client = Imap(lab)
    for name in ("a", "a/b", "a/b/c", "ab"):
        client("CREATE", name)
    client("APPEND a/b {3+}\r\nx\r\n")
    assert client("RENAME a x/y") == ["OK RENAME completed."]
    assert [line.split()[-1] for line in client('LIST "" *')[:-1]] == [
        "INBOX",
        "x",
        "x/y",
        "x/y/b",
        "x/y/b/c",
        "ab",
    ]
    assert client("STATUS x/y/b (MESSAGES UIDVALIDITY)")[0] == (
        "* STATUS x/y/b (MESSAGES 1 UIDVALIDITY 3)"
    )
    assert client("RENAME x x/z")[-1] == "NO [CANNOT] A mailbox can't become its own inferior."
    assert client("RENAME x ab")[-1] == "NO [ALREADYEXISTS] Mailbox already exists."
    assert client("RENAME nowhere z")[-1] == "NO [NONEXISTENT] Mailbox does not exist."
    assert client("RENAME ab INBOX")[-1].startswith("NO ")


def test_renaming_inbox_moves_its_messages_and_leaves_it_empty(network: Network) -> None:
    with Lab(network=network) as lab:
        keep(lab, b"1\r\n", b"2\r\n")
        client, other = ana(lab), ana(lab)
        client("CREATE INBOX/sub")
        assert client("RENAME INBOX old/mail") == [
            "* 2 EXPUNGE",
            "* 1 EXPUNGE",
            "* 0 RECENT",
            "OK RENAME completed.",
        ]
        assert other("NOOP")[:2] == ["* 2 EXPUNGE", "* 1 EXPUNGE"]
        assert [line.split()[-1] for line in client('LIST "" *')[:-1]] == [
            "INBOX",
            "INBOX/sub",
            "old",
            "old/mail",
        ]
        keep(lab, b"3\r\n")
        assert client("NOOP")[0] == "* 1 EXISTS"
        assert client("FETCH 1 UID")[0] == "* 1 FETCH (UID 3)"
        assert len(lab.mailbox(ANA, "old/mail")) == 2


def test_a_renamed_inbox_stays_renamed_after_a_restart(network: Network, tmp_path: Path) -> None:
    with Lab(network=network, data=tmp_path) as lab:
        keep(lab, b"1\r\n", b"2\r\n")
        client = Imap(lab)
        assert client("RENAME INBOX old") == ["OK RENAME completed."]
        keep(lab, b"3\r\n")
        before = [uidvalidity(client, name) for name in ("INBOX", "old")]
    with Lab(network=network, data=tmp_path) as lab:
        client = Imap(lab)
        assert [line.split()[-1] for line in client('LIST "" *')[:-1]] == ["INBOX", "old"]
        assert [uidvalidity(client, name) for name in ("INBOX", "old")] == before
        assert [message.uid for message in lab.mailbox(ANA, "old")] == [1, 2]
        assert [message.uid for message in lab.inbox(ANA)] == [3]


def test_mail_kept_in_an_emptied_folder_gets_another_uidvalidity(
    inline: Network, tmp_path: Path
) -> None:
    told = []
    for _ in range(3):
        with Lab(network=inline, data=tmp_path / "mail", limits=Limits(imap_idle=5)) as lab:
            client = Imap(lab)
            client("CREATE Work")
            told.append((uidvalidity(client), uidvalidity(client, "Work")))
            assert client.line() == "* BYE Disconnected for inactivity."  # time passes
        shutil.rmtree(tmp_path / "mail")
    with Lab(network=inline) as lab:
        # Without a folder there is nothing to remember, and a lesson looks the same every time.
        assert uidvalidity(Imap(lab)) == 1
    assert len({one for pair in told for one in pair}) == 6
    assert told == sorted(told)
    assert all(0 < one < 2**32 for pair in told for one in pair)


def test_subscriptions(lab: Lab) -> None:
    play(
        lab,
        "imap",
        LOGIN
        + """
        C: c CREATE a/b
        S: c OK ...
        C: d SUBSCRIBE a/b
        S: d OK SUBSCRIBE completed.
        C: e LSUB "" *
        S: * LSUB () "/" INBOX
        S: * LSUB () "/" a/b
        S: e OK LSUB completed.
        C: f LSUB "" %
        S: * LSUB () "/" INBOX
        S: * LSUB (\\Noselect) "/" a
        S: f OK LSUB completed.
        C: g DELETE a/b
        S: g OK ...
        C: h LSUB a/ *
        S: * LSUB (\\Noselect) "/" a/b
        S: h OK LSUB completed.
        C: i UNSUBSCRIBE a/b
        S: i OK UNSUBSCRIBE completed.
        C: j LSUB "" a*
        S: j OK LSUB completed.
        """,
    )


def test_status_counts_without_selecting(lab: Lab) -> None:
    keep(lab, b"12345\r\n", b"1\r\n")
    keep(lab, b"\r\n", flags=frozenset({"\\Flagged"}))
    client = Imap(lab)
    items = "MESSAGES RECENT UNSEEN UIDNEXT UIDVALIDITY SIZE APPENDLIMIT"
    assert client(f"STATUS INBOX ({items})")[0] == (
        "* STATUS INBOX (MESSAGES 3 RECENT 3 UNSEEN 1 UIDNEXT 4 UIDVALIDITY 1 SIZE 12"
        " APPENDLIMIT 33554432)"
    )
    assert client("STATUS nowhere (SIZE)")[0] == "NO [NONEXISTENT] Mailbox does not exist."
    for wrong in ("()", "(MAILBOXID)", "(HIGHESTMODSEQ)", "SIZE"):
        assert client("STATUS INBOX", wrong)[0] == "BAD STATUS: Invalid arguments."
    client("SELECT INBOX")
    assert client("STATUS INBOX (RECENT)")[0] == "* STATUS INBOX (RECENT 3)"
    assert Imap(lab)("STATUS INBOX (RECENT)")[0] == "* STATUS INBOX (RECENT 0)"


def test_accounts_do_not_see_each_other(lab: Lab) -> None:
    keep(lab, HELLO)
    Imap(lab)("CREATE Work")
    ben = Imap(lab, account=BEN)
    assert ben('LIST "" *') == ['* LIST (\\HasNoChildren) "/" INBOX', "OK LIST completed."]
    assert ben("SELECT Work")[0] == "NO [NONEXISTENT] Mailbox does not exist."
    assert "* 0 EXISTS" in ben("SELECT INBOX")


# -- selecting


def test_select_tells_of_unseen_messages_and_keywords(lab: Lab) -> None:
    keep(lab, HELLO)
    keep(lab, HELLO, flags=frozenset({"$Forwarded", "\\Flagged"}))
    assert Imap(lab)("SELECT INBOX") == [
        "* FLAGS (\\Answered \\Deleted \\Draft \\Flagged \\Seen $Forwarded)",
        "* OK [PERMANENTFLAGS (\\* \\Answered \\Deleted \\Draft \\Flagged \\Seen $Forwarded)]"
        " Flags permitted.",
        "* 2 EXISTS",
        "* 2 RECENT",
        "* OK [UNSEEN 2] First unseen.",
        "* OK [UIDVALIDITY 1] UIDs valid.",
        "* OK [UIDNEXT 3] Predicted next UID.",
        "OK [READ-WRITE] SELECT completed.",
    ]


def test_examine_changes_nothing(lab: Lab) -> None:
    keep(lab, HELLO, flags=frozenset({"\\Deleted"}))
    client = Imap(lab)
    told = client("EXAMINE INBOX")
    assert told[-1] == "OK [READ-ONLY] EXAMINE completed."
    assert "* OK [PERMANENTFLAGS ()] Flags permitted." in told
    assert "* 1 RECENT" in told
    assert client("FETCH 1 (BODY[TEXT] FLAGS)")[0].endswith(" FLAGS (\\Deleted \\Recent))")
    for command in ("STORE 1 FLAGS (x)", "EXPUNGE", "UID EXPUNGE 1", "MOVE 1 INBOX"):
        assert client(command) == ["NO [READ-ONLY] Mailbox is read-only."]
    assert client("CLOSE") == ["OK CLOSE completed."]
    assert client("FETCH 1 FLAGS") == ["BAD FETCH: Must select a mailbox first."]
    assert "* 1 RECENT" in client("SELECT INBOX")
    assert [message.flags for message in lab.inbox(ANA)] == [{"\\Deleted"}]


def test_a_failed_select_leaves_nothing_selected(lab: Lab) -> None:
    client = ana(lab)
    assert client("SELECT nowhere")[0] == "NO [NONEXISTENT] Mailbox does not exist."
    assert client("CHECK") == ["BAD CHECK: Must select a mailbox first."]


def test_only_the_first_client_sees_a_message_as_recent(lab: Lab) -> None:
    keep(lab, HELLO)
    first, second = ana(lab), ana(lab)
    assert first("FETCH 1 FLAGS")[0] == "* 1 FETCH (FLAGS (\\Recent \\Seen))"
    assert second("FETCH 1 FLAGS")[0] == "* 1 FETCH (FLAGS (\\Seen))"
    deliver(lab)
    assert second("NOOP") == ["* 2 EXISTS", "* 1 RECENT", "OK NOOP completed."]
    assert first("NOOP") == ["* 2 EXISTS", "* 1 RECENT", "OK NOOP completed."]
    assert second("SEARCH RECENT")[0] == "* SEARCH 2"
    assert first("SEARCH RECENT")[0] == "* SEARCH 1"
    assert first("SEARCH NEW")[0] == "* SEARCH"
    assert second("SEARCH NEW")[0] == "* SEARCH 2"


def test_close_removes_silently_and_unselect_removes_nothing(lab: Lab) -> None:
    keep(lab, HELLO, HELLO)
    client = ana(lab)
    client("STORE 1 +FLAGS.SILENT (\\Deleted)")
    assert client("UNSELECT") == ["OK UNSELECT completed."]
    assert len(lab.inbox(ANA)) == 2
    client("SELECT INBOX")
    assert client("CLOSE") == ["OK CLOSE completed."]
    assert [message.uid for message in lab.inbox(ANA)] == [2]
    assert client("UNSELECT") == ["BAD UNSELECT: Must select a mailbox first."]


def test_uids_and_uidvalidity_survive_a_restart(network: Network, tmp_path: Path) -> None:
    with Lab(network=network, data=tmp_path) as lab:
        keep(lab, b"1\r\n", b"2\r\n", b"3\r\n")
        client = ana(lab)
        client("STORE 2 +FLAGS.SILENT (\\Deleted $kept)")
        client("UID EXPUNGE 2")
        client("STORE 2 FLAGS.SILENT ($kept)")
        client("CREATE Work")
        client("SUBSCRIBE Work")
        before = uidvalidity(client)
    with Lab(network=network, data=tmp_path) as lab:
        told = Imap(lab)
        assert uidvalidity(told) == before
        selected = told("SELECT INBOX")
        assert "* OK [UIDNEXT 4] Predicted next UID." in selected
        assert "* 0 RECENT" in selected
        assert told("FETCH 1:* (UID FLAGS)")[:2] == [
            "* 1 FETCH (UID 1 FLAGS (\\Seen))",
            "* 2 FETCH (UID 3 FLAGS ($kept))",
        ]
        assert told('LSUB "" W*')[0] == '* LSUB () "/" Work'


# -- FETCH


MIXED = b"""\
From: =?utf-8?q?J=C3=B6?= <jo@far.example>\r
Subject: a
 folded =?utf-8?b?w6k=?=\r
Content-Type: multipart/mixed; boundary="b 1"\r
\r
preamble\r
--b 1\r
\r
one\r
two\r
\r
--b 1\r
Content-Type: image/png; name="x.png"\r
Content-Disposition: attachment; filename="x \\"y\\".png"\r
Content-Transfer-Encoding: base64\r
Content-ID: <1@far.example>\r
Content-Language: en, de\r
\r
aGVsbG8=\r
--b 1 \r
Content-Type: message/rfc822\r
\r
Subject: inner\r
Content-Type: multipart/alternative; boundary=i\r
\r
--i\r
Content-Type: text/html\r
\r
<p>\r
--i--\r
\r
--b 1--\r
epilogue\r
"""


FETCHED = [
    ("FLAGS", "FLAGS (\\Seen)"),
    ("UID", "UID 1"),
    ("INTERNALDATE", 'INTERNALDATE "05-Jan-2026 12:00:00 +0000"'),
    ("RFC822.SIZE", f"RFC822.SIZE {len(MIXED)}"),
    ("(UID UID)", "UID 1"),
    ("FAST", 'FLAGS (\\Seen) INTERNALDATE "05-Jan-2026 12:00:00 +0000" RFC822.SIZE 538'),
    ("BODY.PEEK[1]", "BODY[1] {10}\r\none\r\ntwo\r\n"),
    ("BODY.PEEK[1]<2.5>", "BODY[1]<2> {5}\r\ne\r\ntw"),
    ("BODY.PEEK[1]<99.5>", "BODY[1]<99> {0}\r\n"),
    ("BODY.PEEK[1.MIME]", "BODY[1.MIME] {2}\r\n\r\n"),
    ("BODY.PEEK[2]", "BODY[2] {8}\r\naGVsbG8="),
    ("BODY.PEEK[3]", "BODY[3] {111}\r\nSubject: inner\r\n..."),
    ("BODY.PEEK[3.HEADER]", "BODY[3.HEADER] {67}\r\nSubject: inner\r\n...=i\r\n\r\n"),
    ("BODY.PEEK[3.TEXT]", "BODY[3.TEXT] {44}\r\n--i\r\n...--i--\r\n"),
    ("BODY.PEEK[3.1]", "BODY[3.1] {3}\r\n<p>"),
    ("BODY.PEEK[3.1.MIME]", "BODY[3.1.MIME] {27}\r\nContent-Type: text/html\r\n\r\n"),
    ("BODY.PEEK[4]", "BODY[4] {0}\r\n"),
    ("BODY.PEEK[1.2]", "BODY[1.2] {0}\r\n"),
    ("BODY.PEEK[1.HEADER]", "BODY[1.HEADER] {0}\r\n"),
    (
        'BODY.PEEK[HEADER.FIELDS (x-none Subject "from")]',
        "BODY[HEADER.FIELDS (x-none Subject from)] {83}\r\n"
        "From: =?utf-8?q?J=C3=B6?= <jo@far.example>\r\n"
        "Subject: a\n folded =?utf-8?b?w6k=?=\r\n\r\n",
    ),
    (
        "BODY.PEEK[HEADER.FIELDS.NOT (Subject From)]",
        "BODY[HEADER.FIELDS.NOT (Subject From)] {49}\r\n"
        'Content-Type: multipart/mixed; boundary="b 1"\r\n\r\n',
    ),
    ("BODY.PEEK[3.HEADER.FIELDS (subject)]", "...] {18}\r\nSubject: inner\r\n\r\n"),
    ("RFC822.HEADER", "RFC822.HEADER {130}\r\nFrom: ...\r\n\r\n"),
    (
        "ENVELOPE",
        'ENVELOPE (NIL "a folded =?utf-8?b?w6k=?="'
        + ' (("=?utf-8?q?J=C3=B6?=" NIL "jo" "far.example"))' * 3
        + " NIL NIL NIL NIL NIL)",
    ),
    (
        "BODY",
        'BODY (("TEXT" "PLAIN" ("CHARSET" "us-ascii") NIL NIL "7BIT" 10 2)'
        '("IMAGE" "PNG" ("NAME" "x.png") "<1@far.example>" NIL "BASE64" 8)'
        '("MESSAGE" "RFC822" NIL NIL NIL "7BIT" 111'
        ' (NIL "inner" NIL NIL NIL NIL NIL NIL NIL NIL)'
        ' (("TEXT" "HTML" NIL NIL NIL "7BIT" 3 0) "ALTERNATIVE") 8) "MIXED")',
    ),
    (
        "BODYSTRUCTURE",
        'BODYSTRUCTURE (("TEXT" "PLAIN" ("CHARSET" "us-ascii") NIL NIL "7BIT" 10 2'
        " NIL NIL NIL NIL)"
        '("IMAGE" "PNG" ("NAME" "x.png") "<1@far.example>" NIL "BASE64" 8'
        ' NIL ("ATTACHMENT" ("FILENAME" "x \\"y\\".png")) ("en" "de") NIL)'
        '("MESSAGE" "RFC822" NIL NIL NIL "7BIT" 111'
        ' (NIL "inner" NIL NIL NIL NIL NIL NIL NIL NIL)'
        ' (("TEXT" "HTML" NIL NIL NIL "7BIT" 3 0 NIL NIL NIL NIL) "ALTERNATIVE"'
        ' ("BOUNDARY" "i") NIL NIL NIL) 8 NIL NIL NIL NIL)'
        ' "MIXED" ("BOUNDARY" "b 1") NIL NIL NIL)',
    ),
]


def test_fetch(lab: Lab) -> None:
    keep(lab, MIXED)
    Imap(lab)("SELECT INBOX")
    client = ana(lab)
    for item, told in FETCHED:
        answer = client("FETCH 1", item)
        pattern = ".*".join(map(re.escape, f"* 1 FETCH ({told})".split("...")))
        assert re.fullmatch(pattern, answer[0], re.DOTALL), answer[0]
        assert answer[1:] == ["OK FETCH completed."]
    assert [message.flags for message in lab.inbox(ANA)] == [SEEN]


UNKNOWN_ITEMS = [
    "()",
    "FOO",
    "FAST FLAGS",
    "BODY[0]",
    "BODY[FOO]",
    "BODY[1.FOO]",
    "BODY[MIME]",
    "BODY[]<0.0>",
    "BODY[HEADER.FIELDS ()]",
    "BINARY[1]",
    "BINARY.PEEK[1]",
    "BINARY.SIZE[1]",
    "EMAILID",
    "THREADID",
    "FLAGS (CHANGEDSINCE 1)",
    "(FLAGS",
    "",
]


def test_what_fetch_does_not_know_is_bad(lab: Lab) -> None:
    keep(lab, HELLO)
    client = ana(lab)
    for item in UNKNOWN_ITEMS:
        assert client("FETCH 1", item) == ["BAD FETCH: Invalid arguments."], item
        assert client("UID FETCH 1", item) == ["BAD UID FETCH: Invalid arguments."], item
        assert client("NOOP") == ["OK NOOP completed."]


def test_reading_a_body_sets_seen_once(lab: Lab) -> None:
    keep(lab, HELLO, flags=frozenset())
    client = ana(lab)
    assert client("FETCH 1 BODY[TEXT]")[0] == (
        "* 1 FETCH (BODY[TEXT] {15}\r\nfirst\r\nsecond\r\n FLAGS (\\Recent \\Seen))"
    )
    assert client("FETCH 1 BODY[TEXT]")[0] == "* 1 FETCH (BODY[TEXT] {15}\r\nfirst\r\nsecond\r\n)"
    assert client("NOOP") == ["OK NOOP completed."]
    assert [message.flags for message in lab.inbox(ANA)] == [SEEN]


def test_uid_fetch_always_tells_the_uid(lab: Lab) -> None:
    keep(lab, HELLO, HELLO)
    client = ana(lab)
    client("STORE 1 +FLAGS.SILENT (\\Deleted)")
    client("EXPUNGE")
    assert client("UID FETCH 1:* RFC822.SIZE")[0] == "* 1 FETCH (RFC822.SIZE 56 UID 2)"
    assert client("UID FETCH 99:* (UID FLAGS)")[0] == "* 1 FETCH (UID 2 FLAGS (\\Recent \\Seen))"
    assert client("UID FETCH 77 FLAGS") == ["OK UID FETCH completed."]


def test_numbers_without_a_message_are_bad(lab: Lab) -> None:
    keep(lab, HELLO)
    client = ana(lab)
    for numbers in ("2", "1:2", "0", "1,", "a", "1:2:3", "", "9" * 5000):
        for command in ("FETCH {} FLAGS", "STORE {} FLAGS (x)", "COPY {} INBOX", "MOVE {} INBOX"):
            assert client(command.format(numbers))[0].startswith("BAD "), (command, numbers)
        assert client("NOOP") == ["OK NOOP completed."]


def test_in_an_empty_mailbox_even_a_star_is_bad(lab: Lab) -> None:
    client = ana(lab)
    assert client("FETCH 1:* FLAGS") == ["BAD FETCH: Invalid messageset."]
    assert client("UID FETCH 1:* FLAGS") == ["OK UID FETCH completed."]
    assert client("SEARCH 1:*") == ["* SEARCH", "OK SEARCH completed."]


def test_flags_sizes_and_dates_are_told_without_reading_content(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(lab, HELLO, HELLO)

    def octets(content: int) -> bytes:
        raise AssertionError("content was read")

    monkeypatch.setattr(lab._store, "octets", octets)
    monkeypatch.setattr(lab._store, "contents", octets)
    client = ana(lab)
    assert client("FETCH 1:* (FLAGS UID RFC822.SIZE INTERNALDATE)")[-1].startswith("OK")
    assert client("SEARCH LARGER 10 SEEN SINCE 1-Jan-2026 UID 1:* NOT KEYWORD x")[0] == (
        "* SEARCH 1 2"
    )
    # Nor for messages that other keys rule out.
    assert client("SEARCH TEXT first UNSEEN")[0] == "* SEARCH"
    assert client("COPY 1:* INBOX")[-1].startswith("OK")


def test_a_long_mailbox_is_fetched_whole(lab: Lab) -> None:
    keep(lab, *(b"Subject: %d\r\n\r\n%b" % (n, b"x" * 5000) for n in range(300)))
    answer = ana(lab)("FETCH 1:* (UID BODY.PEEK[HEADER.FIELDS (Subject)])")
    assert answer[-1] == "OK FETCH completed."
    assert [re.findall(r"\d+", line)[-1] for line in answer[:-1]] == [str(n) for n in range(300)]


def test_two_big_bodies_reach_a_client_that_reads_late(lab: Lab) -> None:
    big = b"Subject: big\r\n\r\n" + (b"x" * 998 + b"\r\n") * 1000
    keep(lab, big, big)
    client = ana(lab)
    client.say(b"t FETCH 1:2 BODY.PEEK[]\r\n")
    assert [len(line) for line in client.answer()[:2]] == [len(big) + 30] * 2


@pytest.mark.parametrize(
    ("message", "structure"),
    [
        (b"", '("TEXT" "PLAIN" ("CHARSET" "us-ascii") NIL NIL "7BIT" 0 0)'),
        (b"a: b\n\nx\ny", '("TEXT" "PLAIN" ("CHARSET" "us-ascii") NIL NIL "7BIT" 3 1)'),
        (
            b'Content-Type: text/PLAIN (c) ; Charset="utf-8" (d)\n'
            b"Content-Transfer-Encoding: 8Bit\n\n",
            '("TEXT" "PLAIN" ("CHARSET" "utf-8") NIL NIL "8BIT" 0 0)',
        ),
        (
            b"Content-Type: nonsense\nContent-Description: =?x\n\nx",
            '("TEXT" "PLAIN" ("CHARSET" "us-ascii") NIL "=?x" "7BIT" 1 0)',
        ),
        # No boundary, or a boundary that never comes: one empty part.
        (
            b"Content-Type: multipart/mixed\n\nx",
            '(("TEXT" "PLAIN" ("CHARSET" "us-ascii") NIL NIL "7BIT" 0 0) "MIXED")',
        ),
        (
            b"Content-Type: multipart/mixed; boundary=b\n\nx",
            '(("TEXT" "PLAIN" ("CHARSET" "us-ascii") NIL NIL "7BIT" 0 0) "MIXED")',
        ),
        # A part that isn't ended, and a boundary that begins like another.
        (
            b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\nx\n--bc\ny\n",
            '(("TEXT" "PLAIN" ("CHARSET" "us-ascii") NIL NIL "7BIT" 9 3) "MIXED")',
        ),
        (
            b"Content-Type: multipart/digest; boundary=b\n\n--b\n\nSubject: s\n\nx\n--b--",
            '(("MESSAGE" "RFC822" NIL NIL NIL "7BIT" 13'
            ' (NIL "s" NIL NIL NIL NIL NIL NIL NIL NIL)'
            ' ("TEXT" "PLAIN" ("CHARSET" "us-ascii") NIL NIL "7BIT" 1 0) 2) "DIGEST")',
        ),
        # Pieces are joined, their charset stays (RFC 2231 section 6).
        (
            b"Content-Type: a/b; n*1=c; n*0=b; m*0*=utf-8''%20; m*1=d\n\n",
            '("A" "B" ("N" "bc" "M*" "utf-8\'\'%20d") NIL NIL "7BIT" 0)',
        ),
        # RFC 3501 has no structure for these.
        (
            b"Content-Type: message/global\n\na: b\n\nx",
            '("MESSAGE" "GLOBAL" NIL NIL NIL "7BIT" 7)',
        ),
        (
            b"Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nYTpi",
            '("APPLICATION" "OCTET-STREAM" NIL NIL NIL "BASE64" 4)',
        ),
        (
            b'Content-Type: text/x; a="\xc3\xa9"; b=c\0d\n\n',
            '("TEXT" "X" ("A" {2}\r\n\u00e9 "B" {2}\r\ncd) NIL NIL "7BIT" 0 0)',
        ),
    ],
)
def test_body_structure(message: bytes, structure: str) -> None:
    assert bytes(Body(Part(message))).decode() == structure


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("", "NIL"),
        ("a@b.example", '((NIL NIL "a" "b.example"))'),
        ("Ana B. C <a@b.example>", '(("Ana B. C" NIL "a" "b.example"))'),
        ('"Doe, \\"J\\"" <a@b.example>,', '(("Doe, \\"J\\"" NIL "a" "b.example"))'),
        ("a@b.example (Ana)", '(("Ana" NIL "a" "b.example"))'),
        ('"a b"@c.example', '((NIL NIL "a b" "c.example"))'),
        ("a@[IPv6:2001:db8::1]", '((NIL NIL "a" "[IPv6:2001:db8::1]"))'),
        ("<@x,@y:a@b.example>", '((NIL "@x,@y" "a" "b.example"))'),
        ("nobody:;", '((NIL NIL "nobody" NIL)(NIL NIL NIL NIL))'),
        (
            "All: a@b.example, C <c@d.example>;, e@f.example",
            '((NIL NIL "All" NIL)(NIL NIL "a" "b.example")("C" NIL "c" "d.example")'
            '(NIL NIL NIL NIL)(NIL NIL "e" "f.example"))',
        ),
        ("John Smith", '((NIL NIL "John Smith" ""))'),
        (
            'A <a@b.example>, "unclosed <c@d.example>',
            '(("A" NIL "a" "b.example")("unclosed" NIL "c" "d.example"))',
        ),
        ("(((((, <<<, ;;; :::", None),
        # Comments are no part of an address (RFC 5322 sections 3.2.2 and 3.4).
        ("user (c)@ (d) b.example", '((NIL NIL "user" "b.example"))'),
        ("<user (c)@ (d) b.example>", '((NIL NIL "user" "b.example"))'),
        ("A (note) B <a(n)@b.example>", '(("A B" NIL "a" "b.example"))'),
        ("(a (nested \\) one)) <a@b.example>", '((NIL NIL "a" "b.example"))'),
        ("a@b.example (Ana (B))", '(("Ana (B)" NIL "a" "b.example"))'),
        ('"a(b)c"@d.example', '((NIL NIL "a(b)c" "d.example"))'),
        ('<"a>b@c"@d.example>', '((NIL NIL "a>b@c" "d.example"))'),
        ('"a"."b c"@d.example', '((NIL NIL "a.b c" "d.example"))'),
        ("a . b @ c . example", '((NIL NIL "a.b" "c.example"))'),
        ("=?utf-8?Q?Doe,_(J)?= <j@b.example>", '(("=?utf-8?Q?Doe,_(J)?=" NIL "j" "b.example"))'),
        (
            "G (c): a@b (x), <c@d>;",
            '((NIL NIL "G" NIL)("x" NIL "a" "b")(NIL NIL "c" "d")(NIL NIL NIL NIL))',
        ),
    ],
)
def test_addresses_in_an_envelope(value: str, told: str | None) -> None:
    envelope = bytes(EnvelopeStructure(Part(f"To: {value}\r\n\r\n".encode()))).decode()
    if told is not None:
        assert envelope == f"(NIL NIL NIL NIL NIL {told} NIL NIL NIL NIL)"


def test_addresses_are_looked_for_as_the_envelope_tells_them(lab: Lab) -> None:
    """RFC 3501 section 6.4.4"""
    keep(
        lab,
        b"From: <user-from (c)@ (d) domain.example>\r\n\r\n",
        b"From: A (note) B <a(n)@b.example>\r\n\r\n",
        b"From: =?utf-8?q?J=C3=BCrgen?= <j@b.example>\r\nTo: Team: x@y.example;\r\n\r\n",
        b"To: " + b"a@b.example, " * 5_000 + b"last@c.example\r\n\r\n",
    )
    client = ana(lab)
    for text, found in {
        'FROM "user-from@domain.example"': "1",
        'FROM "A B"': "2",
        'FROM "a@b.example"': "2",
        'FROM "A B <a@"': "2",
        "FROM note": "",
        "FROM b.example": "2 3",
        "TO Team": "3",
        "TO x@y": "3",
        "TO last@c.example": "4",
    }.items():
        assert client("SEARCH " + text)[0] == f"* SEARCH {found}".rstrip(), text
    client.say("t SEARCH CHARSET UTF-8 FROM {7+}\r\nJürgen\r\n".encode())
    assert client.answer()[0] == "* SEARCH 3"


def test_fields_are_told_wherever_they_stand_in_a_header(lab: Lab) -> None:
    keep(lab, b"X-Own: x\r\n" * 20_000 + b"Subject : behind\r\n\r\n")
    client = ana(lab)
    assert '"behind"' in client("FETCH 1 ENVELOPE")[0]
    assert "Subject : behind" in client("FETCH 1 BODY.PEEK[HEADER.FIELDS (SUBJECT)]")[0]
    assert client("SEARCH SUBJECT behind")[0] == "* SEARCH 1"


def test_sender_and_reply_to_are_from_where_they_are_absent_or_empty() -> None:
    told = bytes(EnvelopeStructure(Part(b"From: a@b.example\r\nSender:\r\n\r\n"))).decode()
    assert told.count('((NIL NIL "a" "b.example"))') == 3


HOSTILE = (
    b'"\\' * 300_000,
    b"(" * 500_000,
    b"[" * 500_000,
    b"=?a?q?" * 100_000,
    b";x=" * 200_000,
    b"<" * 500_000,
    b",\r\n " * 200_000,
)


@pytest.mark.long
@pytest.mark.timeout(20)  # instead of hours
@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_header_takes_no_time(inline: Network, value: bytes) -> None:
    fields = (
        b"To: ",
        b"Subject: ",
        b"Date: ",
        b"Content-Type: text/plain; ",
        b"Content-Language: ",
    )
    with Lab(network=inline) as lab:
        keep(lab, b"".join(field + value + b"\r\n" for field in fields), b"a:\r\n" * 500_000)
        client = ana(lab)
        assert client("FETCH 1:2 (ENVELOPE BODYSTRUCTURE)")[-1] == "OK FETCH completed."
        assert client("SEARCH TEXT nothing SENTON 1-Jan-2026")[-1] == "OK SEARCH completed."


def test_parts_without_end_are_not_followed_without_end(lab: Lab) -> None:
    nested = b"".join(
        b"Content-Type: multipart/mixed; boundary=%d\n\n--%d\n" % (n, n) for n in range(3000)
    )
    keep(
        lab,
        b"Content-Type: message/rfc822\n\n" * 3000,
        nested,
        b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n" * 100_000,
    )
    client = ana(lab)
    for number in "123":
        told = client("FETCH", number, "(BODYSTRUCTURE BODY.PEEK[1.1.1.1])")
        assert told[-1] == "OK FETCH completed."
    assert client("SEARCH TEXT nothing") == ["* SEARCH", "OK SEARCH completed."]


# -- STORE


def test_store_in_all_its_forms(lab: Lab) -> None:
    keep(lab, HELLO, HELLO)
    Imap(lab)("SELECT INBOX")
    client = ana(lab)
    assert client("STORE 1:2 +FLAGS (\\flagged $Work)") == [
        "* FLAGS (\\Answered \\Deleted \\Draft \\Flagged \\Seen $Work)",
        "* 1 FETCH (FLAGS (\\Flagged \\Seen $Work))",
        "* 2 FETCH (FLAGS (\\Flagged \\Seen $Work))",
        "OK STORE completed.",
    ]
    assert client("STORE 1 -FLAGS \\Seen")[0] == "* 1 FETCH (FLAGS (\\Flagged $Work))"
    assert client("STORE 1 FLAGS (\\Draft)")[0] == "* 1 FETCH (FLAGS (\\Draft))"
    assert client("STORE 1 FLAGS ()")[0] == "* 1 FETCH (FLAGS ())"
    assert client("UID STORE 2 +FLAGS (\\Answered)")[0] == (
        "* 2 FETCH (FLAGS (\\Answered \\Flagged \\Seen $Work) UID 2)"
    )
    assert client("STORE 1:2 FLAGS.SILENT ($a $b)") == [
        "* FLAGS (\\Answered \\Deleted \\Draft \\Flagged \\Seen $a $b)",
        "OK STORE completed.",
    ]
    assert client("NOOP") == ["OK NOOP completed."]
    assert [message.flags for message in lab.inbox(ANA)] == [{"$a", "$b"}] * 2


def test_keywords_that_differ_in_case_are_one(lab: Lab) -> None:
    keep(lab, HELLO, flags=frozenset({"$Work"}))
    client = ana(lab)
    assert client("STORE 1 +FLAGS ($WORK x X)")[1] in (
        "* 1 FETCH (FLAGS (\\Recent $Work x))",
        "* 1 FETCH (FLAGS (\\Recent $Work X))",
    )
    assert client("SEARCH KEYWORD $wOrK")[0] == "* SEARCH 1"
    assert client("STORE 1 -FLAGS ($work x)")[0] == "* 1 FETCH (FLAGS (\\Recent))"


def test_recent_and_unknown_system_flags_can_not_be_set(lab: Lab) -> None:
    keep(lab, HELLO)
    Imap(lab)("SELECT INBOX")
    client = ana(lab)
    assert client("STORE 1 +FLAGS (\\Recent \\Bogus)")[0] == "* 1 FETCH (FLAGS (\\Seen))"
    client("APPEND INBOX (\\Recent \\Bogus \\Draft) {1+}\r\nx")
    assert [message.flags for message in lab.inbox(ANA)] == [SEEN, {"\\Draft"}]


# -- SEARCH


SEARCHED = (
    b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nFrom: Ana <ana@far.example>\r\n"
    b"To: ben@lab.example\r\nDate: Mon, 7 Feb 1994 21:52:25 -0800 (PST)\r\n\r\nplain body\r\n",
    b"Subject: Gr\xc3\xbc\xc3\x9fe\r\nCc: team@far.example\r\nX-Empty:\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    + base64.b64encode("K\u00e4se, needle".encode())
    + b"\r\n",
    b"Subject: three\r\nBcc: secret@far.example\r\nContent-Type: text/plain; charset=iso-8859-1\r\n"
    b"Content-Transfer-Encoding: quoted-printable\r\n\r\nK=E4se and hay=\r\nstack\r\n",
    b"Subject: four\r\nDate: nonsense\r\nContent-Type: image/png\r\n\r\nneedle\r\n",
    b"Subject: five\r\nContent-Type: message/rfc822\r\n\r\nSubject: nested\r\n\r\ndeep needle\r\n",
)


FOUND = [
    ("ALL", "1 2 3 4 5"),
    ("2:3", "2 3"),
    ("UID 5", "4"),
    ("*", "5"),
    ("5:*", "5"),
    ("9", ""),
    ("NOT 2:3", "1 4 5"),
    ("OR 1 OR 2 UID 6", "1 2 5"),
    ("(1:3 (2:4))", "2 3"),
    ("NOT (1:3 2:4)", "1 4 5"),
    ("not NOT 2:3", "2 3"),
    ("OR NOT NOT 1 (NOT NOT NOT 1:3)", "1 4 5"),
    ("SUBJECT THREE", "3"),
    ('SUBJECT ""', "1 2 3 4 5"),
    ("SUBJECT nested", ""),
    ('CHARSET UTF-8 SUBJECT "GR\u00dcSSE"', "1 2"),
    ("CHARSET utf-8 SUBJECT {7+}\r\ngr\u00fc\u00dfe", "1 2"),
    ("FROM ANA@far", "1"),
    ("TO lab.example", "1"),
    ("CC team", "2"),
    ("BCC secret", "3"),
    ("HEADER content-TYPE image", "4"),
    ('HEADER X-Empty ""', "2"),
    ('HEADER X-None ""', ""),
    ("BODY needle", "2 5"),
    ("BODY haystack", "3"),
    ("BODY subject", "5"),
    ("BODY nested", "5"),
    ("TEXT subject", "1 2 3 4 5"),
    ("TEXT four", "4"),
    ("TEXT image/png", "4"),
    ('CHARSET UTF-8 BODY "k\u00c4se"', "2 3"),
    ("SENTON 7-Feb-1994", "1"),
    ("SENTBEFORE 8-Feb-1994", "1"),
    ("SENTSINCE 7-Feb-1994", "1"),
    ("ON 5-Jan-2026", "1 2 3 4 5"),
    ("BEFORE 5-Jan-2026", ""),
    ('SINCE "06-Jan-2026"', ""),
    ("SMALLER 78", "4"),
    ("LARGER 140", "1 2 3"),
    ("SEEN", "1 2 3 4 5"),
    ("UNSEEN", ""),
    ("FLAGGED", "1"),
    ("UNFLAGGED", "2 3 4 5"),
    ("KEYWORD $Work", "2"),
    ("UNKEYWORD $work", "1 3 4 5"),
    ("OLD", "1 2 3 4 5"),
    ("NEW", ""),
    ("UNDRAFT UNDELETED UNANSWERED 1:2", "1 2"),
]


def test_search(lab: Lab) -> None:
    keep(lab, b"gone", *SEARCHED)
    client = ana(lab)
    client("STORE 1 +FLAGS.SILENT (\\Deleted)")
    client("EXPUNGE")
    client("STORE 1 +FLAGS.SILENT (\\Flagged)")
    client("STORE 2 +FLAGS.SILENT ($Work)")
    client = ana(lab)
    for keys, found in FOUND:
        answer = client("SEARCH", keys)
        assert answer == [f"* SEARCH {found}".rstrip(), "OK SEARCH completed."], keys
        uids = " ".join(str(int(number) + 1) for number in found.split())
        assert client("UID SEARCH", keys)[0] == f"* SEARCH {uids}".rstrip(), keys


SENSELESS_KEYS = [
    "",
    "FOO",
    "SUBJECT",
    "OR SEEN",
    'SUBJECT "\u00e9"',
    "KEYWORD \\Seen",
    "ON yesterday",
    "LARGER x",
    "EMAILID M1",
    "NOT (EMAILID M1)",
    "(SEEN",
    "SEEN)",
    "NOT",
    "NOT NOT",
    "()",
    "OR () 1",
    "UID",
    "(" * 5000,
    "NOT " * 5000,
]


def test_search_keys_that_make_no_sense_are_bad(lab: Lab) -> None:
    client = ana(lab)
    for keys in SENSELESS_KEYS:
        assert client("SEARCH", keys)[0].startswith("BAD "), keys


def test_an_unknown_charset_is_refused_with_those_that_are_known(lab: Lab) -> None:
    assert ana(lab)("SEARCH CHARSET KLINGON ALL") == [
        "NO [BADCHARSET (US-ASCII UTF-8)] Unknown charset."
    ]


# -- APPEND, COPY, MOVE, EXPUNGE


def test_append_with_a_literal_that_waits(lab: Lab) -> None:
    session = play(
        lab,
        "imap",
        ENTER
        + """
        C: c APPEND INBOX (\\Flagged $Work) " 1-Feb-2024 10:00:00 +0200" {24}
        S: + Literal string
        C! Subject: kept\\r\\n\\r\\nbody\\r\\n
        S: * 1 EXISTS
        S: * 1 RECENT
        S: * FLAGS (\\Answered \\Deleted \\Draft \\Flagged \\Seen $Work)
        S: c OK [APPENDUID 1 1] APPEND completed.
        C: d FETCH 1 (FLAGS INTERNALDATE)
        S: * 1 FETCH (FLAGS (\\Flagged \\Recent $Work) INTERNALDATE "01-Feb-2024 08:00:00 +0000")
        S: d OK FETCH completed.
        """.replace("body\\r\\n", "body\\r\\n\\r\\n"),
    )
    assert session.lines
    (message,) = lab.inbox(ANA)
    assert message.octets == b"Subject: kept\r\n\r\nbody\r\n\r\n"[:24]


NOT_KEPT = [
    ("nowhere {1+}\r\nx", "NO [TRYCREATE] Mailbox does not exist."),
    ("INBOX {0+}\r\n", "NO APPEND cancelled."),
    ("INBOX ~{1+}\r\nx", "BAD APPEND: Invalid arguments."),
    ("INBOX {1+}\r\nx {1+}\r\ny", "BAD APPEND: Invalid arguments."),
    ('INBOX "yesterday" {1+}\r\nx', "BAD APPEND: Invalid arguments."),
    ("INBOX x", "BAD APPEND: Invalid arguments."),
    ('INBOX "x"', "BAD APPEND: Invalid arguments."),
    ("INBOX", "BAD APPEND: Invalid arguments."),
]


def test_append_of_what_can_not_be_kept(lab: Lab) -> None:
    client = Imap(lab)
    for arguments, answer in NOT_KEPT:
        assert client("APPEND", arguments) == [answer], arguments
    assert client("NOOP") == ["OK NOOP completed."]
    assert lab.inbox(ANA) == ()


def test_append_up_to_the_limit_and_not_beyond(network: Network) -> None:
    with Lab(network=network, limits=Limits(message=100_000)) as lab:
        client = Imap(lab)
        most = "x" * 100_000
        assert "APPENDLIMIT=100000" in client("CAPABILITY")[0].split()
        assert client("APPEND INBOX {100000+}\r\n" + most)[-1].startswith("OK [APPENDUID 1 1]")
        refusal = ["NO [TOOBIG] That is longer than this server takes."]
        assert client("APPEND INBOX {100001}") == refusal
        assert client("APPEND INBOX {100001+}\r\nx" + most) == refusal
        assert client("APPEND INBOX {300000+}\r\n" + most * 3) == refusal
        assert client("NOOP") == ["OK NOOP completed."]
        assert [len(message.octets) for message in lab.inbox(ANA)] == [100_000]


def test_before_login_no_long_literal_is_taken(lab: Lab) -> None:
    play(
        lab,
        "imap",
        f"""
        S: * OK ...
        C: a APPEND INBOX {{5000}}
        S: a NO [TOOBIG] ...
        C: b LOGIN {{5000}}
        S: b NO [TOOBIG] ...
        C: c LOGIN {{{len(ANA)}}}
        S: + Literal string
        C: {ANA} {{{len(PASSWORD)}+}}
        C: {PASSWORD}
        S: c OK ...
        """,
    )


def test_copy_tells_the_new_uids_and_keeps_flags_and_date(lab: Lab) -> None:
    keep(lab, b"1\r\n", b"2\r\n", b"3\r\n")
    client = ana(lab)
    assert client("COPY 1 Work") == ["NO [TRYCREATE] Mailbox does not exist."]
    client("CREATE Work")
    assert client("COPY 2:3 Work") == ["OK [COPYUID 2 2:3 1:2] COPY completed."]
    assert client("UID COPY 1,3,9 Work") == ["OK [COPYUID 2 1,3 3:4] UID COPY completed."]
    assert client("UID COPY 9 Work") == ["OK UID COPY completed."]
    assert client("COPY 1 INBOX") == [
        "* 4 EXISTS",
        "* 4 RECENT",
        "OK [COPYUID 1 1 4] COPY completed.",
    ]
    assert [m.octets for m in lab.mailbox(ANA, "Work")] == [b"2\r\n", b"3\r\n", b"1\r\n", b"3\r\n"]
    assert {(m.flags, m.received) for m in lab.mailbox(ANA, "Work")} == {(SEEN, NOON)}


def test_move_is_copy_and_expunge_in_one(lab: Lab) -> None:
    keep(lab, b"1\r\n", b"2\r\n", b"3\r\n")
    client, other = ana(lab), ana(lab)
    assert client("MOVE 1 Work") == ["NO [TRYCREATE] Mailbox does not exist."]
    client("CREATE Work")
    assert client("MOVE 1:2 Work") == [
        "* OK [COPYUID 2 1:2 1:2] Moved.",
        "* 2 EXPUNGE",
        "* 1 EXPUNGE",
        "* 1 RECENT",
        "OK MOVE completed.",
    ]
    assert client("UID MOVE 1 Work") == ["OK UID MOVE completed."]
    assert client("UID MOVE 3 Work")[:2] == ["* OK [COPYUID 2 3 3] Moved.", "* 1 EXPUNGE"]
    assert other("NOOP")[:3] == ["* 3 EXPUNGE", "* 2 EXPUNGE", "* 1 EXPUNGE"]
    assert lab.inbox(ANA) == ()
    assert [m.uid for m in lab.mailbox(ANA, "Work")] == [1, 2, 3]


def test_a_copy_that_fails_halfway_copies_nothing(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(lab, b"1\r\n", b"2\r\n", b"3\r\n")
    client = ana(lab)
    client("CREATE Work")
    copy, move, calls = lab._store.copy, lab._store.move, []

    def fails_at_third(function: object) -> object:
        def call(mailbox: int, uid: int, target: int) -> int | None:
            calls.append(uid)
            if len(calls) % 3 == 0:
                raise StoreError("The disk is full.")
            return function(mailbox, uid, target)  # type: ignore[operator]

        return call

    monkeypatch.setattr(lab._store, "copy", fails_at_third(copy))
    monkeypatch.setattr(lab._store, "move", fails_at_third(move))
    refusal = ["NO [UNAVAILABLE] The mail store can't do that now, nothing was changed."]
    assert client("COPY 1:* Work") == refusal
    assert client("MOVE 1:* Work") == refusal
    assert lab.mailbox(ANA, "Work") == ()
    assert client("NOOP") == ["OK NOOP completed."]
    assert len(lab.inbox(ANA)) == 3


def test_expunge_removes_what_is_deleted_and_uid_expunge_only_what_is_named(lab: Lab) -> None:
    keep(lab, *(b"%d\r\n" % n for n in range(1, 6)))
    client = ana(lab)
    client("STORE 1,3,4 +FLAGS.SILENT (\\Deleted)")
    assert client("UID EXPUNGE 4:5") == ["* 4 EXPUNGE", "* 4 RECENT", "OK UID EXPUNGE completed."]
    assert client("EXPUNGE") == [
        "* 3 EXPUNGE",
        "* 1 EXPUNGE",
        "* 2 RECENT",
        "OK EXPUNGE completed.",
    ]
    assert client("EXPUNGE") == ["OK EXPUNGE completed."]
    assert [message.uid for message in lab.inbox(ANA)] == [2, 5]


# -- several clients


def test_one_client_sees_what_another_does(lab: Lab) -> None:
    keep(lab, b"1\r\n", b"2\r\n")
    first, second = ana(lab), ana(lab)
    first("STORE 1 +FLAGS (\\Flagged $new)")
    assert second("NOOP") == [
        "* FLAGS (\\Answered \\Deleted \\Draft \\Flagged \\Seen $new)",
        "* 1 FETCH (FLAGS (\\Flagged \\Seen $new))",
        "OK NOOP completed.",
    ]
    first("APPEND INBOX {3+}\r\n3\r\n")
    assert second("CHECK") == ["* 3 EXISTS", "* 0 RECENT", "OK CHECK completed."]
    second("STORE 2 FLAGS.SILENT (\\Deleted)")
    second("EXPUNGE")
    assert first("NOOP") == ["* 2 EXPUNGE", "* 2 RECENT", "OK NOOP completed."]
    assert first("FETCH 2 UID")[0] == "* 2 FETCH (UID 3)"


def test_the_two_listeners_share_one_store(lab: Lab) -> None:
    plain_text, secure = ana(lab), Imap(lab, "imaps")
    secure("SELECT INBOX")
    deliver(lab)
    assert plain_text("NOOP")[0] == secure("NOOP")[0] == "* 1 EXISTS"
    secure("STORE 1 +FLAGS.SILENT (\\Answered)")
    assert plain_text("NOOP")[0] == "* 1 FETCH (FLAGS (\\Answered \\Recent))"


def test_pop3_takes_messages_away_under_an_imap_client(lab: Lab) -> None:
    keep(lab, b"1\r\n", b"2\r\n")
    client = ana(lab)
    pop = poplib.POP3(*lab.pop3)
    pop.user(ANA)
    pop.pass_(PASSWORD)
    pop.dele(1)
    pop.quit()
    assert client("NOOP") == ["* 1 EXPUNGE", "* 1 RECENT", "OK NOOP completed."]


def test_numbers_do_not_change_while_they_may_be_used(lab: Lab) -> None:
    keep(lab, b"1\r\n", b"2\r\n", b"3\r\n")
    client, other = ana(lab), ana(lab)
    other("STORE 1 +FLAGS.SILENT (\\Deleted)")
    other("EXPUNGE")
    # FETCH, STORE and SEARCH by number may not tell of it (RFC 3501 section 7.4.1).
    assert client("FETCH 2 (UID BODY.PEEK[])") == [
        "* 2 FETCH (UID 2 BODY[] {3}\r\n2\r\n)",
        "* 2 RECENT",
        "OK FETCH completed.",
    ]
    assert client("STORE 3 +FLAGS (x)")[1] == "* 3 FETCH (FLAGS (\\Recent \\Seen x))"
    assert client("SEARCH ALL")[0] == "* SEARCH 2 3"
    # A message that is gone can't be told of.
    assert client("FETCH 1:2 UID") == [
        "* 2 FETCH (UID 2)",
        "NO [EXPUNGEISSUED] Some of the requested messages no longer exist.",
    ]
    refusal = "NO [EXPUNGEISSUED] Some of the requested messages no longer exist."
    assert client("STORE 1 +FLAGS (y)") == [refusal]
    client("UNSELECT")


def test_a_copy_by_numbers_of_which_one_is_gone_copies_nothing(lab: Lab) -> None:
    keep(lab, b"1\r\n", b"2\r\n")
    client, other = ana(lab), ana(lab)
    client("CREATE Work")
    other("STORE 2 +FLAGS.SILENT (\\Deleted)")
    other("EXPUNGE")
    refusal = ["NO [EXPUNGEISSUED] Some of the requested messages no longer exist."]
    assert client("COPY 1:2 Work") == refusal
    assert client("MOVE 1:2 Work") == refusal
    assert lab.mailbox(ANA, "Work") == ()
    assert client("NOOP")[0] == "* 2 EXPUNGE"
    assert client("COPY 1:* Work") == ["OK [COPYUID 2 1 1] COPY completed."]


def test_a_uid_command_first_tells_what_is_gone(lab: Lab) -> None:
    keep(lab, b"1\r\n", b"2\r\n", b"3\r\n", flags=frozenset())
    client, other = ana(lab), ana(lab)
    other("STORE 1 +FLAGS.SILENT (\\Deleted)")
    other("EXPUNGE")
    assert client("UID FETCH 1:3 BODY[]") == [
        "* 1 EXPUNGE",
        "* 2 RECENT",
        "* 1 FETCH (BODY[] {3}\r\n2\r\n UID 2 FLAGS (\\Recent \\Seen))",
        "* 2 FETCH (BODY[] {3}\r\n3\r\n UID 3 FLAGS (\\Recent \\Seen))",
        "OK UID FETCH completed.",
    ]
    other("STORE 1 +FLAGS.SILENT (\\Deleted)")
    other("EXPUNGE")
    assert client("UID SEARCH ALL")[:3] == ["* 1 EXPUNGE", "* 1 RECENT", "* SEARCH 3"]


@pytest.mark.parametrize("gone", ["17,19", "18:20"])
def test_messages_that_go_while_they_are_being_fetched_are_left_out(lab: Lab, gone: str) -> None:
    keep(lab, *(b"%d\r\n" % n + b"x" * 1_000_000 for n in range(1, 21)))
    client, other = ana(lab), ana(lab)
    # More than fits into the network: the server waits for the client to read on.
    client.say(b"t FETCH 1:20 (UID BODY.PEEK[]<0.4>)\r\nt FETCH 1:20 (BODY.PEEK[] UID)\r\n")
    assert client.line() == "* 1 FETCH (UID 1 BODY[]<0> {4}\r\n1\r\nx)"
    assert len(client.answer()) == 20
    other(f"STORE {gone} +FLAGS.SILENT (\\Deleted)")
    assert other("EXPUNGE")[-1].startswith("OK")
    first, *told, last = client.answer()
    assert last == "NO [EXPUNGEISSUED] Some of the requested messages no longer exist."
    left = [int(line.removesuffix(")").split()[-1]) for line in (first, *told)]
    assert left == [message.uid for message in lab.inbox(ANA)]


def test_reading_by_ranges_and_by_one_tells_the_same(lab: Lab) -> None:
    keep(lab, *(b"%d\r\n" % n for n in range(1, 11)))
    client = ana(lab)
    client("STORE 2,5:6,9 +FLAGS.SILENT (\\Deleted)")
    client("EXPUNGE")
    for items in ("UID", "(UID FLAGS)", "(UID RFC822.SIZE)", "(UID BODY.PEEK[])", "(UID ENVELOPE)"):
        singly = [client(f"FETCH {n} {items}")[0] for n in range(1, 7)]
        assert [line.split()[1] for line in singly] == list("123456")
        for numbers in ("1:*", "*:1", "1:3,2:5,6", "6,5,4,3,2,1", "1:2,3:4,5:6", "1,1,1:6,*"):
            assert client(f"FETCH {numbers} {items}")[:-1] == singly
        for uids in ("1:*", "1:10", "10,8,7,1:4", "1:99", "*,1:9", "2:9,10,1"):
            told = client(f"UID FETCH {uids} {items}")[:-1]
            assert told == [client(f"UID FETCH {u} {items}")[0] for u in (1, 3, 4, 7, 8, 10)]
        for uids in ("2", "5:6", "2,9", "11:12"):
            assert client(f"UID FETCH {uids} {items}") == ["OK UID FETCH completed."]


def test_a_renamed_mailbox_stays_selected(lab: Lab) -> None:
    client, other = Imap(lab), Imap(lab)
    client("CREATE Work")
    client("APPEND Work {3+}\r\nx\r\n")
    client("SELECT Work")
    other("RENAME Work Play")
    other("CREATE Work")
    assert client("FETCH 1 UID") == ["* 1 FETCH (UID 1)", "OK FETCH completed."]
    other("APPEND Play {3+}\r\ny\r\n")
    assert client("NOOP")[0] == "* 2 EXISTS"


@pytest.mark.parametrize(
    "command", ["NOOP", "FETCH 1 UID", "UID FETCH 1 FLAGS", "CREATE x", "IDLE"]
)
def test_a_mailbox_deleted_by_another_client_ends_the_connection(lab: Lab, command: str) -> None:
    client, other = Imap(lab), Imap(lab)
    client("CREATE Work")
    client("APPEND Work {3+}\r\nx\r\n")
    client("SELECT Work")
    if command == "IDLE":
        client.say(b"t IDLE\r\n")
        assert client.line() == "+ idling"
    assert other("DELETE Work") == ["OK DELETE completed."]
    if command != "IDLE":
        client.say(f"t {command}\r\n".encode())
    heard = client.line()
    if heard.startswith("t NO [NONEXISTENT]"):
        client.say(b"t NOOP\r\n")
        heard = client.line()
    assert heard == "* BYE Selected mailbox was deleted, have to disconnect."
    while line := client.client.line():
        assert line.startswith(b"t ")
    assert at_work(lab)[1] == 0


def test_a_client_may_delete_the_mailbox_it_has_selected(lab: Lab) -> None:
    client = Imap(lab)
    client("CREATE Work")
    client("SELECT Work")
    assert client("DELETE Work") == ["OK DELETE completed."]
    assert client("CHECK") == ["BAD CHECK: Must select a mailbox first."]


def test_pop3_and_imap_clients_see_what_the_other_did(lab: Lab) -> None:
    keep(lab, b"1\r\n", b"2\r\n", b"3\r\n")
    waiting, client = ana(lab), ana(lab)
    waiting.say(b"t IDLE\r\n")
    assert waiting.line() == "+ idling"
    pop = poplib.POP3(*lab.pop3)
    pop.user(ANA)
    pop.pass_(PASSWORD)
    pop.dele(2)
    pop.quit()
    # One waits, the other asks.
    assert waiting.line() == "* 2 EXPUNGE"
    assert client("NOOP")[0] == "* 2 EXPUNGE"
    client("APPEND INBOX {3+}\r\n4\r\n")
    client("STORE 1 +FLAGS.SILENT (\\Deleted)")
    client("EXPUNGE")
    pop = poplib.POP3(*lab.pop3)
    pop.user(ANA)
    pop.pass_(PASSWORD)
    assert pop.uidl()[1] == [b"1 1.3", b"2 1.4"]
    assert pop.retr(2)[1] == [b"4"]
    pop.quit()


# -- IDLE


def test_an_idle_client_is_told_at_once(lab: Lab) -> None:
    keep(lab, b"1\r\n")
    client, other = ana(lab), ana(lab)
    client.say(b"t IDLE\r\n")
    assert client.line() == "+ idling"
    deliver(lab)
    assert [client.line(), client.line()] == ["* 2 EXISTS", "* 2 RECENT"]
    other("STORE 1 +FLAGS (\\Flagged)")
    assert client.line() == "* 1 FETCH (FLAGS (\\Flagged \\Recent \\Seen))"
    other("STORE 1 +FLAGS (\\Deleted)")
    assert client.line() == "* 1 FETCH (FLAGS (\\Deleted \\Flagged \\Recent \\Seen))"
    other("EXPUNGE")
    assert client.line() == "* 1 EXPUNGE"
    assert client.line() == "* 1 RECENT"
    client.say(b"done\r\n")
    assert client.answer() == ["OK IDLE completed."]
    assert at_work(lab)[1] == 0


def test_what_happened_before_idle_is_told_too(lab: Lab) -> None:
    client = ana(lab)
    client.say(b"t IDLE\r\n")
    assert client.line() == "+ idling"
    deliver(lab)
    deliver(lab)
    lines = [client.line() for _ in range(2)]
    client.say(b"DONE\r\n")
    rest = client.answer()
    assert "* 2 EXISTS" in lines + rest
    assert rest[-1] == "OK IDLE completed."


def test_idle_needs_no_mailbox(lab: Lab) -> None:
    play(
        lab,
        "imap",
        LOGIN
        + """
        C: c IDLE
        S: + idling
        C: DONE
        S: c OK IDLE completed.
        C! d IDLE\\r\\nDONE\\r\\ne NOOP\\r\\n
        S: + idling
        S: d OK IDLE completed.
        S: e OK NOOP completed.
        C: f IDLE
        S: + idling
        C: g NOOP
        S: f BAD Expected "DONE".
        C: h NOOP
        S: h OK NOOP completed.
        """,
    )


def test_before_login_there_is_no_idle(lab: Lab) -> None:
    play(
        lab,
        "imap",
        """
        S: * OK ...
        C: a IDLE
        S: a BAD IDLE: Must authenticate first.
        """,
    )


# -- extensions


def test_enable_names_what_was_enabled_which_is_nothing(lab: Lab) -> None:
    client = Imap(lab)
    # What is advertised but needs no enabling isn't named either (RFC 5161 section 3.2).
    assert client("ENABLE CONDSTORE IDLE X-GOOD") == ["* ENABLED", "OK ENABLE completed."]
    assert client("ENABLE") == ["BAD ENABLE: Invalid arguments."]


def test_enable_has_its_place_between_login_and_select(lab: Lab) -> None:
    play(
        lab,
        "imap",
        """
        S: * OK ...
        C: a ENABLE CONDSTORE
        S: a BAD ENABLE: Must authenticate first.
        """,
    )
    client = ana(lab)
    assert client("ENABLE CONDSTORE") == ["BAD ENABLE: Only before a mailbox is selected."]
    client("UNSELECT")
    assert client("ENABLE CONDSTORE") == ["* ENABLED", "OK ENABLE completed."]


# -- what CAPABILITY advertises: each word has its dialogue here


def _imap4rev1(lab: Lab) -> None:
    keep(lab, HELLO)
    client = ana(lab)
    assert client("FETCH 1 BODY.PEEK[HEADER.FIELDS (Subject)]")[0].endswith("hello\r\n\r\n)")
    assert client("SEARCH SUBJECT hello")[0] == "* SEARCH 1"


def _literal_plus(lab: Lab) -> None:
    client = connect(lab)
    client.line()
    # No `+` comes in between; a command that is wrong costs no more than itself.
    client.send(b"a FOO {5+}\r\nhello\r\n")
    assert client.line() == b"a BAD FOO: Unknown command.\r\n"
    client.send(f"b LOGIN {{{len(ANA)}+}}\r\n{ANA} {{{len(PASSWORD)}+}}\r\n{PASSWORD}\r\n".encode())
    assert client.line().startswith(b"b OK ")


def _sasl_ir(lab: Lab) -> None:
    client = connect(lab)
    client.line()
    client.send(f"a AUTHENTICATE PLAIN {plain('', ANA, PASSWORD)}\r\n".encode())
    assert client.line().startswith(b"a OK ")


def _auth_plain(lab: Lab) -> None:
    answer = f"\0{ANA}\0{PASSWORD}".encode()
    with imaplib.IMAP4(*lab.imap) as imap:
        assert imap.authenticate("PLAIN", lambda challenge: answer)[0] == "OK"


def _enable(lab: Lab) -> None:
    assert Imap(lab)("ENABLE X-GOOD") == ["* ENABLED", "OK ENABLE completed."]


def _idle(lab: Lab) -> None:
    client = ana(lab)
    client.say(b"t IDLE\r\n")
    assert client.line() == "+ idling"
    deliver(lab)
    assert client.line() == "* 1 EXISTS"


def _namespace(lab: Lab) -> None:
    client = Imap(lab)
    assert client("NAMESPACE")[0] == '* NAMESPACE (("" "/")) NIL NIL'
    assert client("CREATE a/b")[-1].startswith("OK")
    assert client('LIST "" %')[1] == '* LIST (\\HasChildren) "/" a'


def _uidplus(lab: Lab) -> None:
    client = ana(lab)
    assert client("APPEND INBOX {1+}\r\nx")[-1] == "OK [APPENDUID 1 1] APPEND completed."
    client("CREATE Work")
    assert client("COPY 1 Work") == ["OK [COPYUID 2 1 1] COPY completed."]
    client("APPEND INBOX (\\Deleted) {1+}\r\ny")
    client("STORE 1 FLAGS.SILENT (\\Deleted)")
    assert client("UID EXPUNGE 1")[0] == "* 1 EXPUNGE"
    assert [message.uid for message in lab.inbox(ANA)] == [2]


def _move(lab: Lab) -> None:
    keep(lab, b"1\r\n", b"2\r\n")
    client = ana(lab)
    client("CREATE Work")
    assert client("MOVE 1 Work")[:2] == ["* OK [COPYUID 2 1 1] Moved.", "* 1 EXPUNGE"]
    assert client("UID MOVE 2 Work")[:2] == ["* OK [COPYUID 2 2 2] Moved.", "* 1 EXPUNGE"]
    assert len(lab.mailbox(ANA, "Work")) == 2


def _unselect(lab: Lab) -> None:
    keep(lab, HELLO, flags=frozenset({"\\Deleted"}))
    client = ana(lab)
    assert client("UNSELECT") == ["OK UNSELECT completed."]
    assert len(lab.inbox(ANA)) == 1


def _children(lab: Lab) -> None:
    client = Imap(lab)
    client("CREATE a/b")
    assert [line.split('"')[0] for line in client('LIST "" *')[:-1]] == [
        "* LIST (\\HasNoChildren) ",
        "* LIST (\\HasChildren) ",
        "* LIST (\\HasNoChildren) ",
    ]


def _status_size(lab: Lab) -> None:
    keep(lab, b"12345", b"\r\n")
    client = Imap(lab)
    assert client("STATUS INBOX (SIZE)")[0] == "* STATUS INBOX (SIZE 7)"
    # It is the sum of what FETCH tells (RFC 8438 section 2).
    client("SELECT INBOX")
    told = client("FETCH 1:* RFC822.SIZE")[:-1]
    assert sum(int(re.findall(r"\d+", line)[-1]) for line in told) == 7


def _appendlimit(lab: Lab) -> None:
    client = Imap(lab)
    limit = lab.limits.message
    assert client("STATUS INBOX (APPENDLIMIT)")[0] == f"* STATUS INBOX (APPENDLIMIT {limit})"
    assert client(f"APPEND INBOX {{{limit + 1}}}")[0].startswith("NO [TOOBIG] ")
    client.say(b"t APPEND INBOX {%d}\r\n" % limit)
    assert client.line() == "+ Literal string"


def _starttls(lab: Lab) -> None:
    client = connect(lab)
    client.line()
    client.send(b"a STARTTLS\r\n")
    assert client.line().startswith(b"a OK ")
    client.start_tls()
    client.send(b"b NOOP\r\n")
    assert client.line() == b"b OK NOOP completed.\r\n"


ADVERTISED = {
    "IMAP4rev1": _imap4rev1,
    "LITERAL+": _literal_plus,
    "SASL-IR": _sasl_ir,
    "ENABLE": _enable,
    "IDLE": _idle,
    "NAMESPACE": _namespace,
    "UIDPLUS": _uidplus,
    "MOVE": _move,
    "UNSELECT": _unselect,
    "CHILDREN": _children,
    "STATUS=SIZE": _status_size,
    "APPENDLIMIT": _appendlimit,
    "STARTTLS": _starttls,
    "AUTH=PLAIN": _auth_plain,
}


def test_every_word_that_is_advertised_has_its_dialogue_here(lab: Lab) -> None:
    words: set[str] = set()
    for listener in ("imap", "imaps"):
        client = connect(lab, listener)
        words.update(client.line().decode().partition("[CAPABILITY ")[2].partition("]")[0].split())
        words.update(Imap(lab, listener)("CAPABILITY")[0].split()[2:])
    limit = f"APPENDLIMIT={lab.limits.message}"
    assert {"APPENDLIMIT" if word == limit else word for word in words} == set(ADVERTISED)


@pytest.mark.parametrize("word", ADVERTISED)
def test_what_is_advertised_is_there(lab: Lab, word: str) -> None:
    ADVERTISED[word](lab)


NOT_ADVERTISED = [
    "ID NIL",
    "SORT (DATE) UTF-8 ALL",
    "THREAD REFERENCES UTF-8 ALL",
    "GETQUOTA x",
    "UID FOO 1",
    "SELECT INBOX (CONDSTORE)",
    "STORE 1 (UNCHANGEDSINCE 1) FLAGS (x)",
    "SEARCH RETURN (MIN) ALL",
    "EXPUNGE 1",
    "NOOP x",
    "CREATE x (USE (\\Sent))",
    "FETCH 1 FLAGS (CHANGEDSINCE 1)",
    "FETCH 1 BINARY.PEEK[1]",
    "APPEND INBOX ~{1+}\r\nx",
    'LIST (SUBSCRIBED) "" *',
    'LIST "" (a b)',
    'LIST "" * RETURN (STATUS (MESSAGES))',
    "STATUS INBOX (HIGHESTMODSEQ)",
    "APPEND INBOX {1+}\r\nx {1+}\r\ny",
]


def test_what_is_not_advertised_is_bad(lab: Lab) -> None:
    keep(lab, HELLO)
    client = ana(lab)
    for command in NOT_ADVERTISED:
        assert client(command)[0].startswith("BAD "), command
    assert client("NOOP") == ["OK NOOP completed."]


def test_imaplib_from_end_to_end(lab: Lab) -> None:
    with imaplib.IMAP4(*lab.imap) as client:
        client.starttls(lab.tls)
        client.login(ANA, PASSWORD)
        assert client.append("INBOX", "\\Flagged", imaplib.Time2Internaldate(0), HELLO)[0] == "OK"
        assert client.select() == ("OK", [b"1"])
        assert client.search(None, "SUBJECT", "hello") == ("OK", [b"1"])
        status, data = client.fetch("1", "(UID BODY[])")
        assert status == "OK"
        assert data[0] == (b"1 (UID 1 BODY[] {56}", HELLO)
        assert client.create("Work")[0] == client.copy("1", "Work")[0] == "OK"
        assert client.store("1", "+FLAGS", "\\Deleted")[0] == "OK"
        assert client.expunge() == ("OK", [b"1"])
        assert client.namespace() == ("OK", [b'(("" "/")) NIL NIL'])
        assert client.unselect()[0] == client.enable("X-GOOD")[0] == "OK"
        assert client.status("Work", "(MESSAGES)") == ("OK", [b"Work (MESSAGES 1)"])


# -- limits and failures


def test_a_silent_client_is_told_goodbye(inline: Network) -> None:
    with Lab(network=inline, limits=Limits(imap_idle=5)) as lab:
        for command in (None, b"t NOOP\r\n", b"t IDLE\r\n", b"t APPEND INBOX {5}\r\n"):
            client = ana(lab)
            if command:
                client.say(command)
                client.line()
            before = inline.clock.seconds()
            assert client.line() == "* BYE Disconnected for inactivity."
            assert client.client.line() == b""
            assert inline.clock.seconds() - before == pytest.approx(5)
        assert at_work(lab)[1] == 0


@pytest.mark.parametrize("command", [None, b"t NOOP\r\n", b"t IDLE\r\n"])
def test_a_client_may_be_silent_for_half_an_hour(inline: Network, command: bytes | None) -> None:
    with Lab(network=inline) as lab:
        client = ana(lab)
        client.client._sock.settimeout(3600)
        if command:
            client.say(command)
            client.line()
        before = inline.clock.seconds()
        assert client.line() == "* BYE Disconnected for inactivity."
        assert inline.clock.seconds() - before == pytest.approx(1800)


def test_an_idle_client_that_says_so_every_29_minutes_stays(inline: Network) -> None:
    with Lab(network=inline) as lab:
        client = ana(lab)
        for _ in range(3):
            client.say(b"t IDLE\r\n")
            assert client.line() == "+ idling"
            client.client._sock.settimeout(29 * 60)
            with pytest.raises(TimeoutError):
                client.client._sock.recv(1)
            client.say(b"DONE\r\n")
            assert client.line() == "t OK IDLE completed."


def test_silence_is_counted_from_the_last_command_of_any_kind(inline: Network) -> None:
    with Lab(network=inline, limits=Limits(imap_idle=5)) as lab:
        keep(lab, HELLO)
        client = ana(lab)
        client.client._sock.settimeout(4)
        for command in ("NOOP", "FETCH 1 UID", "FETCH 1 FLAGS", "FETCH 1:1 UID", "UID FETCH 1 UID"):
            assert client(command)[-1].startswith("OK ")
            with pytest.raises(TimeoutError):
                client.client._sock.recv(1)
        client("FETCH 1 UID")
        before = inline.clock.seconds()
        client.client._sock.settimeout(10)
        assert client.line() == "* BYE Disconnected for inactivity."
        assert inline.clock.seconds() - before == pytest.approx(5)


def test_fetching_one_message_counts_as_a_command(network: Network) -> None:
    with Lab(network=network, limits=Limits(session_commands=5)) as lab:
        keep(lab, HELLO)
        client = ana(lab)
        for command in ("FETCH 1 UID", "UID FETCH 1 FLAGS", "FETCH * UID"):
            assert client(command)[-1].startswith("OK ")
        client.say(b"t FETCH 1 UID\r\n")
        assert client.line() == "* BYE [LIMIT] That is enough for one session, come back later."


def test_commands_are_answered_in_turn_however_they_are_cut(lab: Lab) -> None:
    keep(lab, b"1\r\n", b"2\r\n", b"3\r\n")
    expected = [f"* {n} FETCH (UID {n})" for n in (1, 2, 3)]
    for pieces in (
        [b"t FETCH 1 UID\r\nt FETCH 2 UID\r\nt FETCH 3 UID\r\n"],
        [b"t FETCH 1 UID\r\n", b"t FETCH 2 UID\r\nt FETCH", b" 3 UID\r\n"],
        [b"t FETCH 1 UID\r\n", b"t FETCH 2", b" UID\r\n", b"t FETCH 3 UID\r\n"],
        [b"t FETCH 1 UID\r", b"\nt FETCH 2 UID\r\n", b"t FETCH 3 UID\r\n"],
        [bytes([octet]) for octet in b"t FETCH 1 UID\r\nt FETCH 2 UID\r\nt FETCH 3 UID\r\n"],
    ):
        client = ana(lab)
        for piece in pieces:
            client.say(piece)
        assert [client.answer()[0] for _ in range(3)] == expected
        client("LOGOUT")


def test_a_session_has_only_so_many_commands(network: Network) -> None:
    with Lab(network=network, limits=Limits(session_commands=4)) as lab:
        session = play(
            lab,
            "imap",
            LOGIN
            + """
            C: b FOO
            S: b BAD ...
            C: c IDLE
            S: + idling
            C: DONE
            S: c OK IDLE completed.
            C! d NOOP\\r\\ne NOOP\\r\\nf NOOP\\r\\n
            S: d OK NOOP completed.
            S: * BYE [LIMIT] That is enough for one session, come back later.
            -- server closes
            """,
        )
        assert session.closed


def test_commands_whose_answers_nobody_reads_do_not_pile_up(inline: Network) -> None:
    with Lab(network=inline, limits=Limits(imap_idle=5)) as lab:
        before = at_work(lab)
        client = Imap(lab)
        deaf = client.client._sock
        for _ in range(100):
            client.say(b"t NOOP\r\n" * 1000)
        # The server has stopped reading, and waits no longer than for a silent client.
        assert len(deaf._end.unread) < 400_000
        assert ana(lab)("NOOP") == ["OK NOOP completed."]
        waiting = connect(lab)
        waiting.line()
        assert waiting.line() == b"* BYE Disconnected for inactivity.\r\n"
        assert lab.sessions[0].closed
        assert at_work(lab) == before


def test_a_client_that_does_not_read_is_cut_off(inline: Network) -> None:
    with Lab(network=inline, limits=Limits(imap_idle=5)) as lab:
        keep(lab, b"x" * 3_000_000)
        before = at_work(lab)
        client = ana(lab)
        client.say(b"t FETCH 1 BODY.PEEK[]\r\n")
        waiting = connect(lab)
        waiting.line()
        assert waiting.line() == b"* BYE Disconnected for inactivity.\r\n"
        assert lab.sessions[0].closed
        assert at_work(lab) == before


def test_a_client_that_never_reads_is_cut_off_on_every_network(network: Network) -> None:
    with Lab(network=network, limits=Limits(imap_idle=0.5)) as lab:
        keep(lab, b"x" * 20_000_000)
        deaf = ana(lab)
        deaf.say(b"t FETCH 1 BODY.PEEK[]\r\n")
        assert not lab.sessions[0].closed
        # Another client's time begins later, so when it is over, the first one's is too.
        waiting = connect(lab)
        waiting.line()
        assert waiting.line() == b"* BYE Disconnected for inactivity.\r\n"
        assert lab.sessions[0].closed


def test_a_line_without_end_is_not_awaited(lab: Lab) -> None:
    play(
        lab,
        "imap",
        LOGIN
        + f"""
        C: b NOOP {"x" * 70_000}
        S: * BYE [CLIENTBUG] A line can have at most 65536 octets.
        -- server closes
        """,
    )


@pytest.mark.parametrize("count", [b"99999999999", b"9" * 30, b"9" * 5000])
@pytest.mark.parametrize("logged_in", [False, True])
def test_a_literal_longer_than_any_session_is_not_awaited(
    lab: Lab, count: bytes, logged_in: bool
) -> None:
    client = Imap(lab).client if logged_in else connect(lab)
    if not logged_in:
        client.line()
    # One that waits for leave gets none, and nothing is lost.
    client.send(b"a APPEND INBOX {" + count + b"}\r\nb NOOP\r\n")
    assert client.line().startswith((b"a NO [TOOBIG] ", b"a BAD "))
    assert client.line() == b"b OK NOOP completed.\r\n"
    # After one that doesn't, nobody knows where the next command would begin.
    client.send(b"c APPEND INBOX {" + count + b"+}\r\n" + b"x" * 10_000 + b"\r\nd NOOP\r\n")
    assert client.line() == b"* BYE [TOOBIG] That is longer than a session may be.\r\n"
    assert client.line() == b""


def test_before_login_a_long_literal_that_comes_unasked_is_thrown_away(lab: Lab) -> None:
    play(
        lab,
        "imap",
        f"""
        S: * OK ...
        C: a LOGIN {{100000+}}
        C: {"x" * 100_000} {{50000+}}
        C: {"y" * 50_000}
        S: a NO [TOOBIG] ...
        C: b APPEND INBOX {{100000+}}
        C: {"x" * 100_000}
        S: b NO [TOOBIG] ...
        C: c NOOP
        S: c OK NOOP completed.
        """,
    )


GARBAGE = [
    b"\0",
    b"\0" * 500,
    bytes(range(32)).replace(b"\n", b""),
    bytes(range(128, 256)),
    b"t \0",
    b"t NOOP\0",
    b"t NOOP\rt NOOP",
    b"\rt NOOP",
    b"t\rNOOP",
    b"\xff NOOP",
    b"t \xc5\xbfELECT INBOX",
    b"t LOGIN \xff \xfe\0",
    b"t SELECT \xe2\x82",
    b't SELECT "IN\rBOX"',
    b't SELECT "IN\0BOX"',
    b"t FETCH 1 \0",
    b"t FETCH 1 BODY[HEADER.FIELDS (\xff)",
    b"t STORE 1 FLAGS (\xff)",
    b't SEARCH SUBJECT "\xe2\x82"',
    b't SEARCH CHARSET UTF-8 SUBJECT "\xe2\x82"',
    b"t SEARCH SUBJECT {1+}\r\n\xff",
    b't APPEND INBOX "\0" {1+}\r\nx',
    b"t RENAME {2+}\r\n\0\0 x",
    b"+ OK",
    b"* BYE",
    b"t OK",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"\x1b[2J",
]


@pytest.mark.parametrize("logged_in", [False, True])
def test_garbage_is_refused_line_by_line(
    lab: Lab, logged_in: bool, caplog: pytest.LogCaptureFixture
) -> None:
    keep(lab, HELLO)
    client = ana(lab).client if logged_in else connect(lab)
    if not logged_in:
        client.line()
    for number, octets in enumerate(GARBAGE, start=1):
        if not logged_in and number % 4 == 0:
            # Before login there may be only a few of them.
            client.close()
            client = connect(lab)
            client.line()
            client.send(b"n NOOP\r\n")
            client.line()
        client.send(octets + b"\r\n")
        told = client.line()
        assert re.match(rb"\S+ (BAD|NO) ", told), (octets, told)
        client.send(b"ok NOOP\r\n")
        assert client.line() == b"ok OK NOOP completed.\r\n"
    assert caplog.record_tuples == []


def test_a_bare_lf_ends_a_command_too(lab: Lab) -> None:
    play(
        lab,
        "imap",
        rf"""
        S: * OK ...
        C! a NOOP\nb LOGIN {{{len(ANA)}+}}\n{ANA} {PASSWORD}\nc NOOP\r\n
        S: a OK ...
        S: b OK ...
        S: c OK ...
        """,
    )


def test_literals_without_end_are_not_kept(network: Network) -> None:
    with Lab(network=network, limits=Limits(message=1_000_000)) as lab:
        client = Imap(lab)
        for piece in ("x {4096+}\r\n" + "y" * 4096,) * 1_000:
            client.say(piece.encode())
        client.say(b"\r\n")
        assert client.line().startswith("x NO [TOOBIG] ")


def test_what_is_no_imap_is_told_so_and_then_cut_off(lab: Lab) -> None:
    play(
        lab,
        "imap",
        LOGIN
        + """
        C: GET / HTTP/1.1
        S: GET BAD /: Unknown command.
        C:
        S: * BAD Command not given.
        C! \\xff\\xfe\\x00\\r\\n
        S: * BAD Command not given.
        C: a
        S: a BAD Command not given.
        """
        * 5
        + """
        S: * BYE [CLIENTBUG] Too many invalid IMAP commands.
        -- server closes
        """,
    )


def test_what_only_begins_like_a_tag_is_not_told_back_as_one(lab: Lab) -> None:
    play(
        lab,
        "imap",
        """
        S: * OK ...
        C! a\\x00 NOOP\\r\\n
        S: * BAD That can't be read as a command.
        C: a+ NOOP
        S: * BAD That can't be read as a command.
        C: ]^.a NOOP
        S: ]^.a OK NOOP completed.
        """,
    )


def test_now_and_then_a_bad_command_does_not_matter(lab: Lab) -> None:
    client = Imap(lab)
    for _ in range(40):
        assert client("FOO") == ["BAD FOO: Unknown command."]
        assert client("NOOP") == ["OK NOOP completed."]


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"t",
        b"t LOGIN {5}\r\n",
        b"t LOGIN ana",
        b"t AUTHENTICATE PLAIN\r\n",
        b"t STARTTLS\r\n",
        b"t LOGIN ana@lab.example wrong\r\n",
        b"l LOGIN ana@lab.example ana-lab-password\r\nt SELECT INBOX\r\n",
        b"l LOGIN ana@lab.example ana-lab-password\r\nt IDLE\r\n",
        b"l LOGIN ana@lab.example ana-lab-password\r\ns SELECT INBOX\r\nt IDLE\r\n",
        b"l LOGIN ana@lab.example ana-lab-password\r\nt APPEND INBOX {10}\r\n",
        b"l LOGIN ana@lab.example ana-lab-password\r\nt APPEND INBOX {9999999+}\r\nxx",
        b"l LOGIN ana@lab.example ana-lab-password\r\ns SELECT INBOX\r\nt FETCH 1:* BODY[]\r\n",
    ],
)
def test_a_client_may_vanish_at_any_moment(
    lab: Lab, said: bytes, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    keep(lab, b"x" * 500_000, b"y" * 500_000)
    before = at_work(lab)
    client = connect(lab)
    client.line()
    client.send(said)
    if b"\r\n" in said and b"wrong" not in said:
        client.line()
    client.close()
    assert at_work(lab) == before
    assert lab.sessions[0].closed
    assert caplog.records == []
    assert capfd.readouterr().err == ""
    assert ana(lab)("NOOP") == ["OK NOOP completed."]


def test_a_store_that_fails_costs_one_command(
    lab: Lab, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    keep(lab, HELLO)
    client = ana(lab)
    database = lab._store._db
    lab.network.run(lambda: database.execute("PRAGMA query_only = ON"))
    refusal = ["NO [UNAVAILABLE] The mail store can't do that now, nothing was changed."]
    for command in ("STORE 1 FLAGS (x)", "CREATE Work", "APPEND INBOX {1+}\r\nx", "COPY 1 INBOX"):
        assert client(command) == refusal
    assert client("FETCH 1 FLAGS")[0] == "* 1 FETCH (FLAGS (\\Recent \\Seen))"
    lab.network.run(lambda: database.execute("PRAGMA query_only = OFF"))
    assert client("STORE 1 FLAGS (x)")[1] == "* 1 FETCH (FLAGS (\\Recent x))"
    assert {record.name for record in caplog.records} == {"labserver"}
    assert all(record.levelno == logging.WARNING for record in caplog.records)
    assert "Traceback" not in capfd.readouterr().err


def test_a_mistake_of_the_server_costs_one_command(
    lab: Lab, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(lab, HELLO)
    client = ana(lab)

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    for method in ("counts", "octets", "contents"):
        monkeypatch.setattr(lab._store, method, broken)
    refusal = "NO [SERVERBUG] Internal error occurred. Refer to server log for more information."
    assert client("STATUS INBOX (MESSAGES)") == [refusal]
    assert client("FETCH 1 (BODY.PEEK[])") == [refusal]
    assert client("SEARCH TEXT x") == [refusal]
    assert client("NOOP") == ["OK NOOP completed."]
    logged = [record.exc_info for record in caplog.records]
    assert [info and info[0] for info in logged] == [ZeroDivisionError] * 3


@pytest.mark.process
def test_labs_in_one_process_do_not_disturb_each_other(inline: Network) -> None:
    loopback = LoopbackNetwork()
    with (
        Lab(network=inline) as one,
        Lab(network=inline) as two,
        Lab(network=loopback) as three,
    ):
        clients = [ana(lab) for lab in (one, two, three)]
        deliver(two)
        assert [client("NOOP")[0] for client in clients] == [
            "OK NOOP completed.",
            "* 1 EXISTS",
            "OK NOOP completed.",
        ]
        clients[0].say(b"t IDLE\r\n")
        assert clients[0].line() == "+ idling"
        deliver(three)
        deliver(one)
        assert clients[0].line() == "* 1 EXISTS"
    loopback.close()


def test_a_selected_message_costs_little_memory(inline: Network) -> None:
    with Lab(network=inline) as lab:
        ana(lab)("LOGOUT")
        keep(lab, *(b"Subject: %d\r\n\r\n%b" % (n, b"x" * 2000) for n in range(1000)))
        tracemalloc.start()
        try:
            client = Imap(lab)
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            assert "* 1000 EXISTS" in client("SELECT INBOX")
            gc.collect()  # what is only waiting to be collected isn't kept
            used = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert used < 300_000


# -- what hostile clients and mail must not cost


def test_a_pattern_of_many_wildcards_takes_no_time(lab: Lab) -> None:
    client = ana(lab)
    stars = "*" * 60_000
    assert client(f'LIST "" "{stars}z"') == ["OK LIST completed."]
    assert client(f'LIST "" "{stars}"')[0] == '* LIST (\\HasNoChildren) "/" INBOX'
    assert client('LIST "" "%%*%z"') == ["OK LIST completed."]
    assert client('LIST "" "I%%N*%X"')[0].endswith("INBOX")
    assert client(f'LIST "" "{"a*" * 30_000}"') == ["OK LIST completed."]


@pytest.mark.parametrize(
    ("date", "told"),
    [
        ("31-Dec-9999 23:59:59 -2359", "31-Dec-9999 23:59:59 +0000"),
        ("01-Jan-0001 00:00:00 +2359", "01-Jan-0001 00:00:00 +0000"),
    ],
)
def test_a_date_without_a_year_in_utc_is_the_nearest(lab: Lab, date: str, told: str) -> None:
    client = ana(lab)
    client.say(f't APPEND INBOX "{date}" {{1+}}\r\nx\r\n'.encode())
    assert client.answer()[-1].startswith("OK")
    assert client("SELECT INBOX")[-1].startswith("OK")
    assert client("FETCH 1 INTERNALDATE")[0] == f'* 1 FETCH (INTERNALDATE "{told}")'
    assert client("SEARCH SINCE 1-Jan-2000")[-1].startswith("OK")
    assert len(lab.inbox(ANA)) == 1


def test_an_envelope_tells_so_many_addresses(lab: Lab) -> None:
    keep(lab, b"To: " + b"a:," * 25_000 + b"\r\n\r\n")
    told = ana(lab)("FETCH 1 ENVELOPE")[0]
    assert 100 < told.count('"a"') <= 1000
    # A group without members says how many are left out.
    assert '(NIL NIL "' in told
    assert ' more octets of addresses" NIL)(NIL NIL NIL NIL))' in told
