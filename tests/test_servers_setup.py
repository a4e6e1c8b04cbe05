"""A policy decides otherwise than a server does by itself, and a lab needs no accounts."""

from __future__ import annotations

import asyncio
import logging
import smtplib
from collections import Counter
from dataclasses import FrozenInstanceError, dataclass, field
from datetime import UTC, datetime

import pytest
from dialogue import play

from labserver import Lab, LabError, Reply, compose, mailbox_reader
from labserver.message import Envelope
from labserver.network import Network
from labserver.network.inline import InlineNetwork
from labserver.notebook.widgets.reading import look
from labserver.notebook.widgets.sending import Draft, send
from labserver.rules import Limits
from labserver.servers.accounts import Accounts, Guesses
from labserver.servers.rulebook import Rulebook
from labserver.servers.setup import Client, Policy, Setup, log_in, received_field
from labserver.views.state import state

ANA = {"ana@lab.example": "s3cret"}


@dataclass
class Relay(Policy):
    """Takes mail for anybody from clients under TLS, and passes it on."""

    passed_on: list[tuple[Client, Envelope, bytes]] = field(default_factory=list)

    async def recipient(self, client: Client, path: str) -> str | None:
        return "250 2.1.5 Ok" if client.tls else None

    async def message(self, client: Client, envelope: Envelope, content: bytes) -> str | None:
        self.passed_on.append((client, envelope, content))
        return f"250 2.0.0 Ok: queued as {len(self.passed_on)}"


@dataclass
class Daily(Policy):
    """A provider's limit: so many recipients a day for each account."""

    most: int
    counted: Counter[str] = field(default_factory=Counter)

    async def recipient(self, client: Client, path: str) -> str | None:
        self.counted[client.login] += 1
        if self.counted[client.login] > self.most:
            return "550 5.4.5 Daily user sending limit exceeded."
        return None


@dataclass
class List(Policy):
    """A mailing list that only its members may write to."""

    members: tuple[str, ...]
    sent: list[tuple[str, ...]] = field(default_factory=list)

    async def recipient(self, client: Client, path: str) -> str | None:
        return "250 2.1.5 Ok" if path == "list@lists.example" else None

    async def message(self, client: Client, envelope: Envelope, content: bytes) -> str | None:
        await asyncio.sleep(0)  # it may wait
        if envelope.reverse_path not in self.members:
            return "550 5.7.1 Only members may write to this list"
        self.sent.append(self.members)
        return "250 2.0.0 Ok: sent to 2 members"


def test_a_relay_takes_any_recipient_from_a_client_under_tls(network: Network) -> None:
    relay = Relay()
    with Lab({}, network=network, hostname="relay.example", policy=relay) as lab:
        with smtplib.SMTP(*lab.smtp, local_hostname="client.example") as client:
            client.ehlo()
            client.mail("a@b.example")
            assert client.rcpt("c@far.example")[0] == 550
            client.starttls(context=lab.tls)
            assert client.sendmail("a@b.example", ["c@far.example", "d@away.example"], "hi") == {}
        assert "queued as 1" in str(lab.sessions[-1])
        ((client_seen, envelope, content),) = relay.passed_on
        assert envelope.reverse_path == "a@b.example"
        assert envelope.recipients == ("c@far.example", "d@away.example")
        assert content == b"hi\r\n"
        assert (client_seen.name, client_seen.address) == ("client.example", "127.0.0.1")
        assert client_seen.transmission == "ESMTPS"
        assert network.run(lab.store.accounts) == []


def test_what_a_policy_answers_for_is_not_kept_but_the_accounts_mail_is(network: Network) -> None:
    relay = Relay()
    with Lab(ANA, network=network, policy=relay) as lab:
        with smtplib.SMTP(*lab.smtp) as client:
            client.starttls(context=lab.tls)
            client.sendmail("a@b.example", ["ana@lab.example", "c@far.example"], "hi")
        assert len(lab.inbox("ana@lab.example")) == 1
        assert network.run(lab.store.accounts) == ["ana@lab.example"]
        assert len(relay.passed_on) == 1
        with pytest.raises(LabError, match="no account c@far"):
            lab.inbox("c@far.example")


def test_what_a_policy_lets_in_and_nobody_answers_for_is_kept(network: Network) -> None:
    class Anybody(Policy):
        async def recipient(self, client: Client, path: str) -> str | None:
            return "250 2.1.5 Ok"

    with Lab({}, network=network, policy=Anybody()) as lab:
        with smtplib.SMTP(*lab.smtp) as client:
            client.sendmail("a@b.example", ["C@far.example"], "hi")
        (message,) = lab.inbox("c@far.example")
        assert message.envelope.recipients == ("C@far.example",)


def test_a_provider_limits_what_an_account_sends(network: Network) -> None:
    lab = Lab(ANA, network=network, policy=Daily(2))
    with lab, smtplib.SMTP(*lab.submission) as client:
        client.starttls(context=lab.tls)
        client.login("ana@lab.example", "s3cret")
        for code in (250, 250, 550):
            client.mail("ana@lab.example")
            assert client.rcpt("ana@lab.example")[0] == code
            client.rset()


def test_a_list_turns_away_who_is_no_member(network: Network) -> None:
    policy = List(("ana@lab.example", "ben@far.example"))
    with Lab({}, network=network, hostname="lists.example", policy=policy) as lab:
        with smtplib.SMTP(*lab.smtp) as client:
            client.sendmail("ana@lab.example", ["list@lists.example"], "hi")
            with pytest.raises(smtplib.SMTPDataError) as refused:
                client.sendmail("spam@bad.example", ["list@lists.example"], "buy")
            assert refused.value.smtp_code == 550
            # It says no to the message; the session goes on.
            client.sendmail("ben@far.example", ["list@lists.example"], "hi")
        assert len(policy.sent) == 2
        assert network.run(lab.store.accounts) == []


@pytest.mark.parametrize("bdat", [False, True])
def test_a_refused_message_is_not_stored(network: Network, bdat: bool) -> None:
    class Full(Policy):
        async def message(self, client: Client, envelope: Envelope, content: bytes) -> str | None:
            return "452 4.2.2 Mailbox full"

    with Lab(ANA, network=network, policy=Full()) as lab:
        with smtplib.SMTP(*lab.smtp) as client:
            client.ehlo()
            client.mail("a@b.example")
            client.rcpt("ana@lab.example")
            if bdat:
                client.send(b"BDAT 4 LAST\r\nhi\r\n")
                assert client.getreply() == (452, b"4.2.2 Mailbox full")
            else:
                assert client.data("hi") == (452, b"4.2.2 Mailbox full")
        assert len(lab.inbox("ana@lab.example")) == 0


def test_a_policy_is_told_who_the_client_is(network: Network) -> None:
    seen: list[tuple[str, str, bool, str, str]] = []

    class Looks(Policy):
        async def sender(self, client: Client, path: str) -> str | None:
            seen.append((client.name, client.address, client.tls, client.login, path))
            return None

    with Lab(ANA, network=network, policy=Looks()) as lab:
        with smtplib.SMTP(*lab.submission, local_hostname="me.example") as client:
            client.starttls(context=lab.tls)
            client.login("ana@lab.example", "s3cret")
            client.mail("ana@lab.example")
        with smtplib.SMTP(*lab.smtp) as client:
            client.helo("other.example")
            client.mail("")
    assert seen == [
        ("me.example", "127.0.0.1", True, "ana@lab.example", "ana@lab.example"),
        ("other.example", "127.0.0.1", False, "", ""),
    ]


def test_a_policy_may_let_an_account_send_as_somebody_else(network: Network) -> None:
    class Shared(Policy):
        async def sender(self, client: Client, path: str) -> str | None:
            return "250 2.1.0 Ok" if client.login and path == "office@lab.example" else None

    lab = Lab(ANA, network=network, policy=Shared())
    with lab, smtplib.SMTP(*lab.submission) as client:
        client.starttls(context=lab.tls)
        client.login("ana@lab.example", "s3cret")
        assert client.mail("office@lab.example")[0] == 250
        client.rset()
        assert client.mail("boss@lab.example")[0] == 553


@pytest.mark.parametrize(
    ("given", "heard"),
    [
        ("550 5.7.1 No", "550 5.7.1 No"),
        ("550 No", "550 5.1.1 No"),
        ("451 4.7.1 One\nTwo", "451-4.7.1 One|451 4.7.1 Two"),
        ("no", "451 4.3.0 ..."),
        ("354 Go on", "451 4.3.0 ..."),
        ("550 caf\xe9", "451 4.3.0 ..."),
        ("550 a\r\n250 b", "451 4.3.0 ..."),
        ("-ERR no", "451 4.3.0 ..."),
        (7, "451 4.3.0 ..."),
    ],
)
def test_a_policy_gives_legal_replies_or_the_client_is_told_to_come_again(
    network: Network, given: str, heard: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Says(Policy):
        async def recipient(self, client: Client, path: str) -> str | None:
            return given

    caplog.set_level(logging.CRITICAL)
    replies = "\n".join(f"S: {line}" for line in heard.split("|"))
    with Lab(ANA, network=network, policy=Says()) as lab:
        with smtplib.SMTP(*lab.smtp) as client:
            count = len(client.ehlo()[1].splitlines())
        hello = "\n".join([*["S: 250-..."] * (count - 1), "S: 250 ..."])
        play(
            lab,
            "smtp",
            f"""
            S: 220 ...
            C: EHLO client.example
            {hello}
            C: MAIL FROM:<a@b.example>
            S: 250 2.1.0 ...
            C: RCPT TO:<ana@lab.example>
            {replies}
            C: NOOP
            S: 250 2.0.0 ...
            """,
        )


def test_a_policys_421_ends_the_session(network: Network) -> None:
    class Busy(Policy):
        async def sender(self, client: Client, path: str) -> str | None:
            return "421 4.7.0 Try again later, closing connection."

    with Lab(ANA, network=network, policy=Busy()) as lab:
        play(
            lab,
            "smtp",
            """
            S: 220 ...
            C: HELO client.example
            S: 250 ...
            C: MAIL FROM:<a@b.example>
            S: 421 4.7.0 Try again later, closing connection.
            -- server closes
            """,
        )


def test_a_policy_that_fails_costs_no_mail_and_no_session(
    network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Policy):
        async def message(self, client: Client, envelope: Envelope, content: bytes) -> str | None:
            raise OverflowError("this policy is broken")

    with Lab(ANA, network=network, policy=Broken()) as lab:
        with smtplib.SMTP(*lab.smtp) as client:
            with pytest.raises(smtplib.SMTPDataError) as refused:
                client.sendmail("a@b.example", ["ana@lab.example"], "hi")
            assert refused.value.smtp_code == 451
            assert client.noop()[0] == 250
        assert len(lab.inbox("ana@lab.example")) == 0
    assert "this policy is broken" in caplog.text


@pytest.mark.parametrize("policy", ["relay", 7, Policy, object()])
def test_what_is_no_policy_is_refused_in_a_sentence(policy: object) -> None:
    with pytest.raises(TypeError, match=r"\ALab\(policy=…\).*Policy.*\.\Z"):
        Lab(policy=policy)  # type: ignore[arg-type]


# -- a lab without accounts


def test_a_lab_without_accounts_has_a_name_and_answers(network: Network) -> None:
    with Lab(accounts={}, network=network) as lab:
        assert lab.hostname == "lab.example"
        with smtplib.SMTP(*lab.smtp) as client:
            client.ehlo()
            client.mail("a@b.example")
            assert client.rcpt("ana@lab.example")[0] == 550
            assert client.rcpt("postmaster")[0] == 550
            assert client.verify("ana")[0] == 550
        with smtplib.SMTP(*lab.submission) as client:
            client.starttls(context=lab.tls)
            with pytest.raises(smtplib.SMTPAuthenticationError):
                client.login("ana@lab.example", "x")
        for listener, wrong, answer in (
            ("pop3", "USER ana\r\nPASS x\r\n", "-ERR [AUTH]"),
            ("imap", "a LOGIN ana x\r\n", "a NO"),
        ):
            sock = network.connect(lab.address(listener))
            with sock, sock.makefile("rwb") as file:
                file.write(wrong.encode())
                file.flush()
                while not file.readline().startswith(answer.encode()):
                    pass


def test_with_catch_all_a_lab_needs_no_accounts(network: Network) -> None:
    with Lab(accounts={}, catch_all=True, hostname="any.example", network=network) as lab:
        with smtplib.SMTP(*lab.smtp) as client:
            client.sendmail("a@b.example", ["x@y.example"], "hi")
        assert len(lab.inbox("x@y.example")) == 1


def test_what_lists_accounts_says_a_sentence_where_there_are_none(network: Network) -> None:
    with Lab(accounts={}, network=network) as lab:
        none = "This lab has no accounts, so it keeps no mail for anybody."
        for asking in (lab.inbox, lab.mailboxes):
            with pytest.raises(LabError, match=none):
                asking("ana@lab.example")
        with pytest.raises(LabError, match=none):
            mailbox_reader(lab)
        assert look(lab, "ana@lab.example", "IMAP").done.sentence == none
        draft = Draft("", "x@y.example", "", "hi")
        assert "this lab has none." in send(lab, draft).sentence
        assert compose(lab) is not None
        assert "Accounts: none" in str(state(lab))
        assert "Accounts: none" in state(lab)._repr_html_()


# -- what servers are told


def made(lab: Lab, **more: object) -> Setup:
    accounts = Accounts({"ana@lab.example": "s3cret"})
    limits = Limits(login_failures=3, login_delay=1.0)
    clock, guesses = lab.network.clock, Guesses(limits)
    return Setup("lab.example", accounts, lab.store, limits, clock, Rulebook(), guesses, **more)  # type: ignore[arg-type]


def test_a_setup_is_frozen(network: Network) -> None:
    with Lab(network=network) as lab:
        setup = made(lab)
        with pytest.raises(FrozenInstanceError):
            setup.hostname = "other.example"  # type: ignore[misc]


@pytest.mark.parametrize("protocol", ["SMTP", "POP3", "IMAP"])
def test_one_login_makes_wait_counts_and_dismisses(protocol: str) -> None:
    waited: list[float] = []

    async def pause(seconds: float) -> bool:
        waited.append(seconds)
        return True

    async def guess(setup: Setup) -> list[str | None]:
        client = Client(protocol, "127.0.0.1", pause)  # type: ignore[arg-type]
        told = [await log_in(setup, client, "ana@lab.example", "wrong") for _ in range(3)]
        assert client.dismissed
        assert client.failures == 3
        other = Client(protocol, "127.0.0.1", pause)  # type: ignore[arg-type]
        return [*told, await log_in(setup, other, "ANA@lab.example", "s3cret")]

    network = InlineNetwork()
    with Lab(network=network) as lab:
        results = asyncio.run(guess(made(lab)))
    network.close()
    assert results == [None, None, None, "ana@lab.example"]
    # Twice as long each time, and the name waits on the next connection as well.
    assert waited == [1.0, 2.0, 4.0, 8.0]


def test_who_does_not_wait_for_a_password_gets_none_looked_at() -> None:
    async def pause(_: float) -> bool:
        return False

    async def guess(setup: Setup) -> None:
        client = Client("POP3", "127.0.0.1", pause)
        for _ in range(3):
            setup.guesses.checked("ana@lab.example", right=False)
        with pytest.raises(ConnectionAbortedError):
            await log_in(setup, client, "ana@lab.example", "s3cret")

    network = InlineNetwork()
    with Lab(network=network) as lab:
        asyncio.run(guess(made(lab)))
    network.close()


def test_the_received_field_names_client_server_and_way() -> None:
    async def pause(_: float) -> bool:
        return True

    client = Client("SMTP", "192.0.2.1", pause, name="mail.example", transmission="ESMTPSA")
    when = datetime(2026, 3, 1, 12, 0, 5, 123, tzinfo=UTC)
    field_text = received_field(client, "mx.example", when)
    assert field_text == (
        "Received: from mail.example ([192.0.2.1])\r\n"
        " by mx.example with ESMTPSA;\r\n"
        " Sun, 01 Mar 2026 12:00:05 +0000\r\n"
    )
    client.name = "evil\r\nX: y"
    assert received_field(client, "mx.example", when).startswith("Received: from unknown (")


def test_a_rule_comes_before_a_policy(network: Network) -> None:
    rules = [Reply("RCPT", "450 4.2.0 Later")]
    lab = Lab({}, network=network, policy=Relay(), rules=rules)
    with lab, smtplib.SMTP(*lab.smtp) as client:
        client.starttls(context=lab.tls)
        client.ehlo()
        client.mail("a@b.example")
        assert client.rcpt("c@far.example")[0] == 450
