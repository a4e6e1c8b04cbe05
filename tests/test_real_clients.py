"""Real mail programs against the lab: curl and swaks send, curl reads back.

Each test asks both ends: what the program says it got, and what the lab recorded. The programs
check the lab's certificate against its own authority, as a user would make them.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from dialogue import said

from labserver import Lab, Session
from labserver.network.loopback import LoopbackNetwork
from tests.interop.stage import MissingError, swaks_version

pytestmark = pytest.mark.realclient

ANA, PASSWORD = "ana@lab.example", "ana-lab-password"
BEN, BENS_PASSWORD = "ben@lab.example", "ben-lab-password"
FOREIGN = "somebody@elsewhere.example"
MESSAGE = (
    b"From: Ana <ana@lab.example>\r\n"
    b"To: Ben <ben@lab.example>\r\n"
    b"Subject: from a real program\r\n"
    b"\r\n"
    b".a dot, then a line with nothing else:\r\n"
    b".\r\n"
    b"the end"
)
SUBMISSIONS = ["submission", "submissions"]


@dataclass(frozen=True)
class Outcome:
    """How a program ended."""

    status: int
    output: bytes
    told: str
    """All it had to say, its output included."""


Run = Callable[..., Outcome]


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A lab that other programs can reach."""
    network = LoopbackNetwork()
    with Lab(network=network) as made:
        yield made
    network.close()


@pytest.fixture
def letter(tmp_path: Path) -> Path:
    """The message as a file."""
    path = tmp_path / "letter.eml"
    path.write_bytes(MESSAGE)
    return path


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a program without this machine's settings for it."""

    def call(program: str, *arguments: str) -> Outcome:
        path = shutil.which(program)
        if path is None:
            pytest.skip(f"{program} is not installed (Debian: apt-get install {program})")
        if program == "swaks":
            try:
                swaks_version()
            except MissingError as missing:
                pytest.skip(str(missing))
        done = subprocess.run(
            [path, *arguments],
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"},
            capture_output=True,
            timeout=60,
        )
        told = (done.stdout + done.stderr).decode("utf-8", "backslashreplace")
        return Outcome(done.returncode, done.stdout, told)

    return call


def curl(lab: Lab, listener: str, path: str = "") -> list[str]:
    """Arguments for curl: verify, want TLS, be talkative; the path is the URL's."""
    scheme = {"submission": "smtp", "submissions": "smtps"}.get(listener, listener)
    host, port = lab.address(listener)
    trust = ["--ssl-reqd", "--cacert", str(lab.ca)]
    return ["-q", "--verbose", "--no-progress-meter", *trust, f"{scheme}://{host}:{port}/{path}"]


def curl_sends(
    lab: Lab, listener: str, letter: Path, *, password: str = PASSWORD, to: str = BEN
) -> list[str]:
    envelope = ["--mail-from", ANA, "--mail-rcpt", to, "--upload-file", str(letter)]
    return [*curl(lab, listener, "client.example"), "--user", f"{ANA}:{password}", *envelope]


def swaks_sends(
    lab: Lab, listener: str, letter: Path, *, password: str = PASSWORD, to: str = BEN
) -> list[str]:
    host, port = lab.address(listener)
    return [
        *("--server", host, "--port", str(port), "--helo", "client.example"),
        "--tls-on-connect" if listener == "submissions" else "--tls",
        *("--tls-verify", "--tls-ca-path", str(lab.ca)),
        *("--auth", "PLAIN", "--auth-user", ANA, "--auth-password", password),
        *("--from", ANA, "--to", to, "--data", f"@{letter}"),
    ]


SENDERS = {"curl": curl_sends, "swaks": swaks_sends}


def only_session(lab: Lab) -> Session:
    (session,) = lab.sessions
    assert session.closed
    return session


def spoken(session: Session) -> list[str]:
    """The dialogue by verbs and codes, the last of a reply's lines standing for all of them."""
    rows = said(session).split("\n")
    return [row for row in rows if not (row.startswith("S: ") and row[6:7] == "-")]


# -- sending


@pytest.mark.parametrize("listener", SUBMISSIONS)
@pytest.mark.parametrize("program", SENDERS)
def test_program_submits_a_message(
    lab: Lab, run: Run, letter: Path, program: str, listener: str
) -> None:
    result = run(program, *SENDERS[program](lab, listener, letter))

    assert result.status == 0, result.told
    assert "235 2.7.0" in result.told
    assert "250 2.0.0 Stored as message 1" in result.told

    (message,) = lab.inbox(BEN)
    assert message.octets.endswith(b"\r\n" + MESSAGE + b"\r\n")
    assert message["Return-Path"] == f"<{ANA}>"
    assert "from client.example" in (message["Received"] or "")
    assert "with ESMTPSA" in (message["Received"] or "")
    assert len(lab.inbox(ANA)) == 0

    session = only_session(lab)
    assert session.listener == listener
    assert session.tls.startswith("TLSv1.")
    assert session.ending == ""
    rows = spoken(session)
    assert ("C: STARTTLS" in rows) == (listener == "submission")
    assert rows[rows.index("S: 235") :] == [
        "S: 235",
        *("C: MAIL", "S: 250"),
        *("C: RCPT", "S: 250"),
        *("C: DATA", "S: 354", "S: 250"),
        *("C: QUIT", "S: 221"),
    ]
    under_tls = [line.tls for line in session.lines]
    greeted = 0 if listener == "submissions" else under_tls.index(True)
    assert all(under_tls[greeted:])
    assert not any(b"AUTH" in line.data for line in session.lines[:greeted])
    secret = base64.b64encode(f"\0{ANA}\0{PASSWORD}".encode()).decode()
    assert secret not in session.text()
    assert secret in session.text(reveal=True)


@pytest.mark.parametrize("listener", SUBMISSIONS)
@pytest.mark.parametrize(("program", "status"), [("curl", 67), ("swaks", 28)])
def test_wrong_password_is_refused(
    lab: Lab, run: Run, letter: Path, program: str, status: int, listener: str
) -> None:
    result = run(program, *SENDERS[program](lab, listener, letter, password="wrong"))

    assert result.status == status
    assert "535 5.7.8" in result.told
    rows = spoken(only_session(lab))
    assert "S: 535" in rows
    assert "C: MAIL" not in rows
    assert len(lab.inbox(BEN)) == 0


@pytest.mark.parametrize("listener", SUBMISSIONS)
@pytest.mark.parametrize(("program", "status"), [("curl", 55), ("swaks", 24)])
def test_foreign_recipient_is_refused(
    lab: Lab, run: Run, letter: Path, program: str, status: int, listener: str
) -> None:
    result = run(program, *SENDERS[program](lab, listener, letter, to=FOREIGN))

    assert result.status == status
    assert "Relay access denied" in result.told
    rows = spoken(only_session(lab))
    assert rows[rows.index("C: RCPT") + 1] == "S: 550"
    assert "C: DATA" not in rows
    assert len(lab.inbox(ANA)) == len(lab.inbox(BEN)) == 0


# -- reading back

READERS = ["pop3", "pop3s", "imap", "imaps"]


def first_message(listener: str) -> str:
    """The path of a URL for the first message of the INBOX (RFC 2384, RFC 5092)."""
    return "1" if listener.startswith("pop3") else "INBOX;MAILINDEX=1"


def deliver(lab: Lab, run: Run, letter: Path) -> None:
    """A message from Ana in Ben's INBOX, sent by curl."""
    assert run("curl", *curl_sends(lab, "submissions", letter)).status == 0


@pytest.mark.parametrize("listener", READERS)
def test_curl_reads_a_message_back(lab: Lab, run: Run, letter: Path, listener: str) -> None:
    deliver(lab, run, letter)
    login = ["--user", f"{BEN}:{BENS_PASSWORD}"]
    result = run("curl", *curl(lab, listener, first_message(listener)), *login)

    assert result.status == 0, result.told
    (message,) = lab.inbox(BEN)
    assert result.output == message.octets

    session = lab.sessions[-1]
    assert session.closed
    assert session.listener == listener
    assert session.tls.startswith("TLSv1.")
    assert session.ending == ""
    assert BENS_PASSWORD not in session.text()
    (content,) = [line for line in session.lines if line.kind == "content"]
    assert content.tls
    stuffed = content.data.replace(b"\r\n..", b"\r\n.") if "pop3" in listener else content.data
    assert stuffed == message.octets


@pytest.mark.parametrize("listener", READERS)
def test_curl_is_refused_with_a_wrong_password(lab: Lab, run: Run, listener: str) -> None:
    login = ["--user", f"{BEN}:wrong"]
    result = run("curl", *curl(lab, listener, first_message(listener)), *login)

    assert result.status == 67
    assert result.output == b""
    session = only_session(lab)
    assert session.tls.startswith("TLSv1.")
    assert not any(line.kind == "content" for line in session.lines)


@pytest.mark.parametrize("listener", ["pop3", "pop3s"])
def test_curl_lists_and_deletes_by_pop3(lab: Lab, run: Run, letter: Path, listener: str) -> None:
    deliver(lab, run, letter)
    deliver(lab, run, letter)
    first, second = (message.octets for message in lab.inbox(BEN))
    login = ["--user", f"{BEN}:{BENS_PASSWORD}"]

    listed = run("curl", *curl(lab, listener), *login)
    assert listed.output == b"1 %d\r\n2 %d\r\n" % (len(first), len(second))

    deleted = run("curl", *curl(lab, listener, "1"), *login, "--request", "DELE", "--head")
    assert deleted.status == 0, deleted.told
    assert "+OK message 1 deleted" in deleted.told
    assert [message.octets for message in lab.inbox(BEN)] == [second]
    assert spoken(lab.sessions[-1])[-4:] == ["C: DELE", "S: +OK", "C: QUIT", "S: +OK"]


# -- trust


@pytest.mark.parametrize("listener", [*SUBMISSIONS, *READERS])
def test_curl_that_does_not_know_the_labs_authority_goes_away(
    lab: Lab, run: Run, listener: str
) -> None:
    arguments = curl(lab, listener)
    at = arguments.index("--cacert")
    result = run("curl", *arguments[:at], *arguments[at + 2 :], "--user", f"{ANA}:{PASSWORD}")

    assert result.status == 60
    session = only_session(lab)
    assert "trust" in session.ending
    assert not any(line.tls for line in session.lines)
    assert not any(b"AUTH" in line.data for line in session.lines if line.who == "C")


@pytest.mark.parametrize("listener", SUBMISSIONS)
def test_swaks_that_does_not_know_the_labs_authority_goes_away(
    lab: Lab, run: Run, letter: Path, listener: str
) -> None:
    arguments = swaks_sends(lab, listener, letter)
    at = arguments.index("--tls-ca-path")
    result = run("swaks", *arguments[:at], *arguments[at + 2 :])

    assert result.status == 29
    assert "trust" in only_session(lab).ending
    assert len(lab.inbox(BEN)) == 0
