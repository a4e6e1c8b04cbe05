"""One lab: ready when it is made, clean when it is gone, whatever came between."""

from __future__ import annotations

import contextlib
import copy
import gc
import imaplib
import json
import os
import pickle
import poplib
import pprint
import random
import signal
import smtplib
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from labserver import (
    ACCOUNTS,
    LISTENERS,
    Delay,
    Lab,
    LabError,
    Limits,
    NetworkError,
    Session,
    StoreError,
)
from labserver.lab import latest
from labserver.network import Network
from labserver.network.inline import InlineNetwork
from labserver.network.loopback import LoopbackNetwork

pytestmark = pytest.mark.protocol

MAIL = ("ana@lab.example", "ben@lab.example", b"Subject: Hello\r\n\r\nHi Ben\r\n")
DESCRIPTORS = Path("/proc/self/fd")


def send(lab: Lab) -> None:
    with smtplib.SMTP(*lab.smtp) as client:
        client.sendmail(*MAIL)


def works(lab: Lab) -> bool:
    """Whether one more delivery arrives and is to be seen."""
    before = len(lab.inbox("ben@lab.example"))
    send(lab)
    session = lab.sessions[-1]
    return session.closed and len(lab.inbox("ben@lab.example")) == before + 1


def resources() -> dict[str, object]:
    """What a lab could leave behind."""
    from labserver.network import inline, loopback

    gc.collect()
    temporary = Path(os.environ.get("TMPDIR", "/tmp"))
    return {
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "descriptors": len(list(DESCRIPTORS.iterdir())) if DESCRIPTORS.exists() else 0,
        "inline listeners": len(inline._listeners),
        "loopback listeners": len(loopback._ports),
        "smtplib.socket": vars(smtplib)["socket"] is socket,
        "SIGINT": signal.getsignal(signal.SIGINT),
        "folders": len(list(temporary.glob("lab-*"))) if "TMPDIR" in os.environ else 0,
    }


@pytest.fixture(params=["loopback", "inline"])
def choice(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The network of labs that are given none."""
    monkeypatch.setenv("LABSERVER_NETWORK", request.param)
    return str(request.param)


@pytest.fixture
def nothing_left(choice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Checks that a test leaves nothing behind."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    Lab().close()  # what Python itself loads and keeps is there from now on
    before = resources()
    yield
    assert resources() == before


# -- its life


@pytest.mark.process
@pytest.mark.usefixtures("nothing_left")
def test_it_is_ready_when_it_is_made() -> None:
    with Lab() as lab:
        assert set(lab.listeners) == set(LISTENERS)
        assert works(lab)
        for address in lab.listeners.values():
            lab.network.connect(address).close()
        assert len(lab.sessions) == 1 + len(LISTENERS)
        assert all(session.closed for session in lab.sessions)


@pytest.mark.process
@pytest.mark.usefixtures("nothing_left")
def test_close_frees_ports_threads_and_files() -> None:
    lab = Lab()
    folder, addresses = lab.ca.parent, list(lab.listeners.values())
    assert (folder / "ca.pem").exists()
    send(lab)
    idle = smtplib.SMTP(*lab.smtp)
    lab.close()
    assert not folder.exists()
    for address in addresses:
        with pytest.raises(ConnectionRefusedError):
            smtplib.SMTP(*address)
        with socket.create_server(address):
            pass
    idle.close()


@pytest.mark.process
@pytest.mark.usefixtures("nothing_left")
def test_close_may_be_called_again() -> None:
    lab = Lab()
    lab.close()
    lab.close()
    with Lab() as lab:
        lab.close()
        assert repr(lab) == "<Lab lab.example, closed>"


@pytest.mark.process
@pytest.mark.usefixtures("nothing_left")
def test_a_failing_block_closes_it_too() -> None:
    with pytest.raises(LookupError), Lab() as lab:
        raise LookupError
    assert repr(lab) == "<Lab lab.example, closed>"


@pytest.mark.process
@pytest.mark.usefixtures("nothing_left")
def test_twenty_labs_in_a_row() -> None:
    for _ in range(20):
        with Lab() as lab:
            assert works(lab)


@pytest.mark.process
@pytest.mark.usefixtures("nothing_left")
def test_lab_made_again_and_again_without_close() -> None:
    clients = []
    for _ in range(10):
        lab = Lab()
        clients.append(smtplib.SMTP(*lab.smtp))  # a connection left open each time
        assert works(lab)
        assert len(lab.sessions) == 2
        assert [one.name for one in threading.enumerate()].count("labserver") <= 1
    for client in clients:
        client.close()
    del lab


@pytest.mark.process
@pytest.mark.usefixtures("nothing_left")
def test_a_lab_in_a_cycle_is_collected_from_any_thread() -> None:
    class Page:
        def __init__(self) -> None:
            self.myself, self.lab = self, Lab()

    for collect in (gc.collect, in_a_thread):
        page = Page()
        send(page.lab)
        del page
        collect()


def in_a_thread() -> None:
    thread = threading.Thread(target=gc.collect)
    thread.start()
    thread.join()


@pytest.mark.process
@pytest.mark.usefixtures("nothing_left")
def test_two_labs_at_once() -> None:
    with Lab() as one, Lab() as two:
        assert not set(one.listeners.values()) & set(two.listeners.values())
        for lab in (one, two, one):
            assert works(lab)
        assert [len(lab.sessions) for lab in (one, two)] == [2, 1]
        assert [len(lab.inbox("ben@lab.example")) for lab in (one, two)] == [2, 1]


@pytest.mark.process
@pytest.mark.usefixtures("nothing_left")
def test_two_labs_on_different_networks() -> None:
    with (
        contextlib.closing(InlineNetwork()) as inline,
        contextlib.closing(LoopbackNetwork()) as loopback,
        Lab(network=inline) as one,
        Lab(network=loopback) as two,
    ):
        for lab in (one, two, one):
            assert works(lab)
        assert (one.can.threads, one.can.sockets, one.can.tls) == (False, False, True)
        assert all(name in two.can for name in ("threads", "sockets", "tls"))
        assert "wings" not in two.can


@pytest.mark.usefixtures("choice")
def test_two_labs_share_a_network(network: Network) -> None:
    one = Lab(network=network)
    two = Lab(network=network, accounts={"ben@lab.example": "other"})
    assert works(one)
    assert works(two)
    one.close()
    assert works(two)
    assert len(one.sessions) == 1
    three = Lab(network=network)
    assert works(three)
    network.close()
    # The network has gone first: still nothing to be said, and their files go.
    two.close()
    three.close()
    assert not (three._store.path or Path()).exists()


def test_a_lab_leaves_a_network_that_it_was_given(network: Network) -> None:
    Lab(network=network).close()
    with Lab(network=network) as lab:
        assert works(lab)


@pytest.mark.process
@pytest.mark.usefixtures("choice")
def test_a_program_that_forgets_to_close_ends_cleanly(tmp_path: Path) -> None:
    script = """if True:
        import smtplib
        from labserver import Lab
        labs = [Lab(), Lab()]
        forgotten = [smtplib.SMTP(*lab.smtp) for lab in labs for _ in range(2)]
        forgotten[0].sendmail("ana@lab.example", "ben@lab.example", "Subject: Hello")
        print(len(labs[0].sessions))
    """
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")
    assert not list(tmp_path.iterdir())


# -- what it is asked


def test_what_a_closed_lab_still_tells(network: Network) -> None:
    lab = Lab(network=network)
    send(lab)
    lab.close()
    assert lab.sessions[-1].closed
    assert len(lab.sessions) == 1
    with pytest.raises(LabError, match=r"\AThis lab is closed; make a new one with Lab\(\)\.\Z"):
        lab.inbox("ben@lab.example")


def test_the_inbox_of_nobody_is_an_error_and_not_empty(lab: Lab) -> None:
    assert lab.inbox("Ana@Lab.Example") == ()
    with pytest.raises(LabError, match=r"has no account anna@lab.example; it has ana@lab.example,"):
        lab.inbox("anna@lab.example")


def test_an_unknown_listener_is_an_error_in_one_sentence(lab: Lab) -> None:
    with pytest.raises(LabError, match=r"\AThis lab has no listener lmtp: no such\.\Z"):
        lab.address("lmtp")


def test_default_accounts(lab: Lab) -> None:
    assert dict(lab.accounts) == dict(ACCOUNTS)
    assert list(lab.accounts) == ["ana@lab.example", "ben@lab.example"]
    assert lab.hostname == "lab.example"
    with pytest.raises(TypeError):
        lab.accounts["zoe@lab.example"] = "x"  # type: ignore[index]


def test_accounts_and_hostname_can_be_given(network: Network) -> None:
    accounts = {"Zoe@School.example": "secret"}
    with Lab(accounts, network=network, hostname="mail.school.example") as lab:
        assert dict(lab.accounts) == accounts
        with smtplib.SMTP(*lab.smtp) as client:
            assert client.ehlo()[1].startswith(b"mail.school.example\n")
            client.starttls(context=lab.tls)
            client.sendmail("ana@lab.example", "zoe@school.example", b"Subject: Hello")
        client = poplib.POP3(*lab.pop3)
        client.user("zoe@school.example")
        client.pass_("secret")
        assert client.stat()[0] == 1
        client.quit()


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        pprint.pformat,
        "{!r}".format,
        lambda accounts: repr(dict(accounts)),
        lambda accounts: repr(list(accounts.items())),
        lambda accounts: repr(accounts.values()),
        lambda accounts: pprint.pformat(dict(accounts), width=20),
        lambda accounts: "%r" % [*accounts.values()],
        lambda accounts: repr(accounts["Zoe@School.example"]),
        lambda accounts: repr(copy.deepcopy(dict(accounts))),
        lambda accounts: repr(pickle.loads(pickle.dumps(dict(accounts)))),
    ],
)
def test_no_representation_of_accounts_tells_a_password(
    network: Network, show: Callable[[Any], str]
) -> None:
    with Lab({"Zoe@School.example": "S3cretPassw0rd"}, network=network) as lab:
        shown = show(lab.accounts)
    assert "S3cret" not in shown
    assert "•••" in shown


def test_a_password_of_the_accounts_is_a_text_like_any_other(lab: Lab) -> None:
    password = lab.accounts["ana@lab.example"]
    assert password == "ana-lab-password"
    assert {password: 1} == {"ana-lab-password": 1}
    assert f"{password} {password!s}" == "ana-lab-password ana-lab-password"
    assert str(password) == "".join(password) == password + "" == "ana-lab-password"
    assert json.loads(json.dumps(dict(lab.accounts))) == dict(ACCOUNTS)
    with smtplib.SMTP(*lab.submission) as smtp:
        smtp.starttls(context=lab.tls)
        smtp.login("ana@lab.example", password)
    pop3 = poplib.POP3(*lab.pop3)
    pop3.user("ana@lab.example")
    pop3.pass_(password)
    pop3.quit()
    imap = imaplib.IMAP4(*lab.imap)
    imap.login("ana@lab.example", password)
    imap.logout()
    with Lab(lab.accounts, network=lab.network) as other:
        assert other.accounts == lab.accounts


def test_on_session_hears_of_each_session_when_it_has_ended(lab: Lab) -> None:
    heard: list[Session] = []
    stop = lab.on_session(heard.append)
    for _ in range(3):
        send(lab)
    assert tuple(lab.sessions) == tuple(heard)
    assert all(session.closed for session in heard)
    stop()
    stop()
    send(lab)
    assert len(lab.sessions) == len(heard) + 1


def test_a_large_mailbox_can_be_looked_at(lab: Lab) -> None:
    with smtplib.SMTP(*lab.smtp) as client:
        for number in range(100):
            client.sendmail(*MAIL[:2], f"Subject: number {number}\r\n\r\n")
    inbox = lab.inbox("ben@lab.example")
    assert [message["Subject"] for message in inbox] == [f"number {n}" for n in range(100)]
    assert [message.uid for message in inbox] == list(range(1, 101))


# -- the folder


def test_a_folder_keeps_mail_and_certificates(network: Network, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "mail"
    with Lab(network=network, data=folder) as lab:
        send(lab)
        authority = lab.ca.read_bytes()
    with Lab(network=network, data=str(folder)) as lab:
        assert len(lab.inbox("ben@lab.example")) == 1
        assert lab.ca.read_bytes() == authority
        assert works(lab)


def test_a_folder_in_use_is_refused_in_one_sentence(network: Network, tmp_path: Path) -> None:
    with Lab(network=network, data=tmp_path) as lab:
        with pytest.raises(
            StoreError, match=r"\AThe mail store .* is in use by another lab; .*\.\Z"
        ):
            Lab(network=network, data=tmp_path)
        assert works(lab)


def test_a_folder_that_is_a_file_is_an_os_error(network: Network, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for data in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(OSError, match="file"):
            Lab(network=network, data=data)


# -- what makes no sense


@pytest.mark.parametrize(
    "wrong",
    [
        {"accounts": {"ana": "secret"}},
        {"accounts": {"ana@lab.example": ""}},
        {"accounts": {"ana@lab.example": "x", "ANA@lab.example": "y"}},
        {"accounts": ["ana@lab.example"]},
        {"accounts": "ana@lab.example"},
        {"accounts": {"ana@[127.0.0.1]": "secret"}},
        {"hostname": "a b"},
        {"hostname": "a..b"},
        {"hostname": "-"},
        {"hostname": "lab.example."},
        {"hostname": "x" * 64},
        {"hostname": ".".join(["x" * 60] * 5)},
        {"hostname": "lab\r\n250 evil"},
        {"ports": {"lmtp": 24}},
        {"ports": {"smtp": -1}},
        {"ports": {"smtp": 65536}},
        {"ports": {"smtp": "2525"}},
        {"ports": {"smtp": None}},
        {"ports": {"smtp": True}},
        {"data": ""},
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"\A[A-Z'\-0265NT][^\n]*\.\Z"):
        Lab(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", list(Limits.__dataclass_fields__))
@pytest.mark.parametrize("value", [0, -1, float("nan"), "10", None, True])
def test_limits_that_make_no_sense_are_refused_in_one_sentence(name: str, value: object) -> None:
    sentence = rf"\AThe limit {name} must be a (whole )?number above 0, not .*\.\Z"
    with pytest.raises(ValueError, match=sentence):
        Limits(**{name: value})  # type: ignore[arg-type]


@pytest.mark.process
@pytest.mark.usefixtures("nothing_left")
def test_a_wrong_network_in_the_environment_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LABSERVER_NETWORK", "internet")
    sentence = r"\ALABSERVER_NETWORK is 'internet'; set it to loopback or inline\.\Z"
    with pytest.raises(NetworkError, match=sentence):
        Lab()


@pytest.mark.process
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("inline", InlineNetwork),
        (" Inline ", InlineNetwork),
        ("LOOPBACK", LoopbackNetwork),
        ("", LoopbackNetwork),
    ],
)
def test_the_environment_chooses_the_network(
    monkeypatch: pytest.MonkeyPatch, name: str, kind: type[Network]
) -> None:
    monkeypatch.setenv("LABSERVER_NETWORK", name)
    with Lab() as lab:
        assert type(lab.network) is kind


@pytest.mark.process
@pytest.mark.usefixtures("nothing_left")
def test_a_lab_that_fails_half_way_leaves_nothing_behind() -> None:
    with Lab(ports={"imaps": 23993}) as lab:
        for _ in range(3):
            with pytest.raises(NetworkError, match=r"\APort 23993 \(imaps\) is in use .*\.\Z"):
                Lab(ports={"imaps": 23993})
        assert works(lab)


def test_mailboxes_are_named_with_their_counts(lab: Lab) -> None:
    assert lab.mailboxes("ben@lab.example") == {"INBOX": 0}
    with imaplib.IMAP4(*lab.imap, timeout=10) as client:
        client.starttls(lab.tls)
        client.login("ben@lab.example", lab.accounts["ben@lab.example"])
        client.create("Sent")
        client.append("Sent", "", "", b"Subject: hi\r\n\r\nhi\r\n")
    assert lab.mailboxes("ben@lab.example") == {"INBOX": 0, "Sent": 1}
    with pytest.raises(LabError, match="no account zoe"):
        lab.mailboxes("zoe@lab.example")


def test_mail_that_somebody_else_sends_can_be_waited_for(lab: Lab) -> None:
    def send() -> None:
        with smtplib.SMTP(*lab.smtp) as client:
            client.sendmail(*MAIL)

    send()
    assert len(lab.wait_for("ben@lab.example")) == 1
    with pytest.raises(LabError, match="has 1 message after"):
        lab.wait_for("ben@lab.example", 2, timeout=0.1)
    if lab.can.threads:
        sending = threading.Thread(target=send)
        sending.start()
        assert len(lab.wait_for("ben@lab.example", 2, timeout=30)) == 2
        sending.join()
    with pytest.raises(LabError, match="no account zoe"):
        lab.wait_for("zoe@lab.example")


@pytest.mark.process
def test_waiting_ends_when_the_lab_is_closed() -> None:
    with Lab(network=LoopbackNetwork()) as lab:
        closing = threading.Timer(0.05, lab.close)
        closing.start()
        with pytest.raises(LabError):
            lab.wait_for("ben@lab.example", timeout=0.2)
        closing.join()


def test_a_lab_knows_that_it_is_closed(lab: Lab) -> None:
    assert not lab.closed
    lab.close()
    assert lab.closed
    with pytest.raises(LabError, match="closed"):
        lab.mailboxes("ben@lab.example")


@pytest.mark.process
def test_the_lab_made_last_is_known_as_long_as_it_is_there() -> None:
    first = Lab()
    with Lab() as second:
        assert latest() is second
    first.close()
    del second
    gc.collect()
    assert latest() is None


# -- interrupts


@pytest.mark.process
@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signal to a thread here")
@pytest.mark.parametrize("kind", ["loopback", "inline", "shared loopback", "shared inline"])
def test_interrupts_at_random_moments_leave_nothing_behind(kind: str) -> None:
    # In memory where that can be had: hundreds of labs would wait for the disk.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        done = subprocess.run(
            [sys.executable, "-m", "tests.test_lab", kind],
            cwd=Path(__file__).parents[1],
            env={**os.environ, "LABSERVER_NETWORK": kind.split()[-1], "TMPDIR": folder},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["interrupts"] == 150
    assert result["left"] == result["before"]
    # One that came in the middle of garbage collection is lost, as Python then says.
    # Of one at the very beginning of a function it shows an empty line.
    said = {line for line in done.stderr.splitlines() if line and not line.startswith(" ")}
    said = {line for line in said if not line.startswith("Exception ignored in: ")}
    assert said <= {"Traceback (most recent call last):", "KeyboardInterrupt: "}


def interrupted(kind: str) -> dict[str, object]:
    """Make labs, send, read and close while interrupts come at random moments."""
    chance = random.Random(kind)
    main, over = threading.main_thread().ident, threading.Event()
    assert main is not None
    armed, interrupts = False, 0
    network: Network | None = None

    def interrupt(number: int, frame: object) -> None:
        nonlocal armed, interrupts
        if armed:
            armed, interrupts = False, interrupts + 1
            raise KeyboardInterrupt

    def disturb() -> None:
        while not over.wait(chance.uniform(0.0002, 0.006)):
            signal.pthread_kill(main, signal.SIGINT)

    signal.signal(signal.SIGINT, interrupt)
    with Lab() as lab:
        assert works(lab)
    if kind.startswith("shared"):
        network = LoopbackNetwork() if kind.endswith("loopback") else InlineNetwork()
        Lab(network=network).close()
    before = {key: str(value) for key, value in resources().items()}
    disturber = threading.Thread(target=disturb, daemon=True)
    disturber.start()
    lab = None
    # Each block is disarmed before it ends: `suppress` lets through what comes while it is left.
    while interrupts < 150:
        with contextlib.suppress(KeyboardInterrupt):
            armed = True
            lab = Lab(network=network)
            for _ in range(chance.randrange(3)):
                # Not in a `with`: interrupted within DATA, smtplib would wait for QUIT's reply.
                with contextlib.closing(smtplib.SMTP(*lab.smtp)) as client:
                    client.sendmail(*MAIL)
                assert lab.sessions[-1].number
            assert isinstance(lab.inbox("ben@lab.example"), tuple)
            armed = False
        with contextlib.suppress(KeyboardInterrupt):
            armed = interrupts < 150
            if lab is not None and chance.random() < 0.7:
                lab.close()  # otherwise the next one takes its place
            armed = False
    over.set()
    disturber.join()
    if lab is not None:
        lab.close()
    del lab
    gc.collect()
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join()  # it brings an interrupt that had to wait, and ends by itself
    left = {key: str(value) for key, value in resources().items()}
    with Lab(network=network) as lab:
        assert works(lab)
    if network is not None:
        network.close()
    return {"interrupts": interrupts, "before": before, "left": left}


if __name__ == "__main__":
    print(json.dumps(interrupted(sys.argv[1])))


@pytest.mark.parametrize(
    "rule", [Delay("RCPT", 2), Delay("BDAT LAST", 3), Delay("BDAT LAST", 4, when="inside")]
)
def test_mail_that_a_rule_holds_up_is_waited_for_in_virtual_time(rule: Delay) -> None:
    network = InlineNetwork()
    with contextlib.closing(network), Lab(network=network, rules=[rule]) as lab:
        with contextlib.closing(network.connect(lab.smtp)) as client:
            client.sendall(
                b"EHLO a.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<ben@lab.example>\r\n"
                b"BDAT 21 LAST\r\nSubject: late\r\n\r\nhi\r\n"
            )
            assert len(lab.inbox("ben@lab.example")) == 0
            (message,) = lab.wait_for("ben@lab.example")
        assert message["Subject"] == "late"
        assert network.clock.seconds() == rule.seconds
        with pytest.raises(LabError, match="has 1 message after 5 seconds; 2 wanted"):
            lab.wait_for("ben@lab.example", 2)
        assert network.clock.seconds() == rule.seconds + 5
