"""POP3: the operations, and how each client does them."""

from __future__ import annotations

import platform
import poplib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from tests.interop.smtp import BIG, DOTTED, EIGHT_BIT, SHORT
from tests.interop.stage import (
    BEN,
    BENS_PASSWORD,
    WRONG,
    Client,
    Operations,
    Stage,
    Told,
    commands,
    program,
    spoken,
)


@dataclass(frozen=True)
class Collecting:
    """What a client is to do with the messages in Ben's maildrop."""

    listener: str = "pop3s"
    mechanism: str = ""
    """PLAIN or USER; empty leaves it to the client."""
    password: str = BENS_PASSWORD
    keep: bool = True
    only_new: bool = False
    """Leave out what a run before has collected, which the client has remembered."""


@dataclass(frozen=True)
class Collected(Told):
    """What a client has collected: its messages one after the other."""

    mail: bytes = b""


class Collector(Protocol):
    """A client as the operations use it."""

    def collect(self, stage: Stage, how: Collecting) -> Collected: ...

    def size(self, stage: Stage) -> tuple[int, int]:
        """How many messages there are, and their octets."""

    def top(self, stage: Stage) -> bytes:
        """The header of the first message."""


operation = Operations("POP3")


# -- the operations


def mail(*messages: bytes) -> bytes:
    """The messages as a client on Unix keeps them."""
    return b"".join(messages).replace(b"\r\n", b"\n")


def collects(stage: Stage, client: Collector, how: Collecting, *expected: bytes) -> None:
    """The client collects exactly these messages."""
    collected = client.collect(stage, how)
    assert collected.well, collected.text
    assert collected.mail == mail(*expected), f"{collected.mail[:2000]!r}\n{collected.text[-2000:]}"
    for session in stage.sessions("POP3"):
        assert session.tls.startswith("TLSv1."), "no TLS"
        assert all(line.tls for line in session.lines if line.secret)
        assert spoken(session)[-2:] == ["C: QUIT", "S: +OK"]


@operation(
    "Collect under STLS",
    "As on port 110. Both messages arrive octet for octet, and stay on the server.",
)
def stls(stage: Stage, client: Collector) -> None:
    messages = stage.deliver(SHORT, EIGHT_BIT)
    collects(stage, client, Collecting("pop3"), *messages)
    assert all("STLS" in commands(session) for session in stage.sessions("POP3"))
    assert len(stage.lab.inbox(BEN)) == 2


@operation("Collect under implicit TLS", "The same as on port 995.")
def implicit_tls(stage: Stage, client: Collector) -> None:
    messages = stage.deliver(SHORT, EIGHT_BIT)
    collects(stage, client, Collecting("pop3s"), *messages)
    assert len(stage.lab.inbox(BEN)) == 2


@operation("Log in with USER and PASS", "The client logs in that way, and collects.")
def user_pass(stage: Stage, client: Collector) -> None:
    collects(stage, client, Collecting(mechanism="USER"), *stage.deliver(SHORT))
    assert "C: USER" in spoken(stage.sessions("POP3")[0])


@operation("Log in with AUTH PLAIN", "The client logs in that way, and collects.")
def auth_plain(stage: Stage, client: Collector) -> None:
    collects(stage, client, Collecting(mechanism="PLAIN"), *stage.deliver(SHORT))
    assert "C: AUTH" in spoken(stage.sessions("POP3")[0])


@operation("Wrong password", "The client says that it failed; it is told nothing of the mail.")
def wrong_password(stage: Stage, client: Collector) -> None:
    stage.deliver(SHORT)
    collected = client.collect(stage, Collecting(password=WRONG))
    assert not collected.well
    assert not collected.mail
    assert re.search("auth|login|denied|wrong name", collected.text, re.I), collected.text
    for session in stage.sessions("POP3"):
        rows = spoken(session)
        assert "S: -ERR" in rows
        assert not {"C: STAT", "C: LIST", "C: RETR"} & set(rows)
        assert WRONG not in session.text()


@operation("Count", "The client tells how many messages there are, and their octets.")
def count(stage: Stage, client: Collector) -> None:
    messages = stage.deliver(SHORT, EIGHT_BIT)
    assert client.size(stage) == (2, sum(map(len, messages)))


@operation("Collect and delete", "The messages arrive, and the maildrop is empty.")
def delete(stage: Stage, client: Collector) -> None:
    messages = stage.deliver(SHORT, EIGHT_BIT, DOTTED)
    collects(stage, client, Collecting(keep=False), *messages)
    assert not stage.lab.inbox(BEN)


@operation(
    "Collect only what is new",
    "After two messages a third comes: the second run collects that one alone (UIDL).",
)
def only_new(stage: Stage, client: Collector) -> None:
    how = Collecting(only_new=True)
    collects(stage, client, how, *stage.deliver(SHORT, EIGHT_BIT))
    collects(stage, client, how, *stage.deliver(DOTTED))
    assert any("C: UIDL" in spoken(session) for session in stage.sessions("POP3"))
    assert len(stage.lab.inbox(BEN)) == 3


@operation("Header only", "TOP gives the header of a message without its body.")
def top(stage: Stage, client: Collector) -> None:
    (message,) = stage.deliver(SHORT)
    header, _, _ = message.partition(b"\r\n\r\n")
    assert client.top(stage).rstrip() == header


@operation("Lines that begin with a dot", "One dot more on the wire, none in the client's file.")
def dots(stage: Stage, client: Collector) -> None:
    collects(stage, client, Collecting(), *stage.deliver(DOTTED))


@operation("A message of 2 MB", "Two million octets arrive as they are stored.")
def big(stage: Stage, client: Collector) -> None:
    collects(stage, client, Collecting(), *stage.deliver(BIG))


# -- the clients


class Curl:
    """It does one thing in each run, so that what is to be collected is asked for first."""

    def _arguments(self, stage: Stage, how: Collecting) -> list[str]:
        arguments = ["-q", "--no-progress-meter", "--ssl-reqd", "--cacert", str(stage.lab.ca)]
        if how.mechanism:
            arguments += ["--login-options", f"AUTH={how.mechanism}"]
        return [*arguments, "--user", f"{BEN}:{how.password}"]

    def _url(self, stage: Stage, how: Collecting, path: str = "") -> str:
        return f"{how.listener}://127.0.0.1:{stage.port(how.listener)}/{path}"

    def _rows(self, octets: bytes) -> list[list[str]]:
        return [row.split() for row in octets.decode().splitlines()]

    def collect(self, stage: Stage, how: Collecting) -> Collected:
        curl = ["curl", *self._arguments(stage, how)]
        told = stage.run(*curl, self._url(stage, how), "--request", "UIDL")
        if not told.well:
            return Collected(False, told.text)
        seen = stage.folder / "seen"
        known = seen.read_text().split() if seen.exists() and how.only_new else []
        rows = self._rows(told.text.encode())
        seen.write_text("\n".join(uid for _, uid in rows))
        urls = [self._url(stage, how, number) for number, uid in rows if uid not in known]
        octets = stage.output(*curl, *urls)
        if not how.keep:
            told = stage.run(*curl, *urls, "--request", "DELE", "--head")
        return Collected(told.well, told.text, mail=mail(octets))

    def size(self, stage: Stage) -> tuple[int, int]:
        how = Collecting()
        octets = stage.output("curl", *self._arguments(stage, how), self._url(stage, how))
        sizes = [int(size) for _, size in self._rows(octets)]
        return len(sizes), sum(sizes)

    def top(self, stage: Stage) -> bytes:
        how = Collecting()
        arguments = [*self._arguments(stage, how), "--request", "TOP 1 0"]
        return stage.output("curl", *arguments, self._url(stage, how))


class Fetchmail:
    def _poll(self, stage: Stage, how: Collecting, *arguments: str) -> Collected:
        box = stage.folder / "box"
        box.write_bytes(b"")
        settings = stage.keep(
            "fetchmailrc",
            f"""\
set idfile {stage.folder / "seen"}
set pidfile {stage.folder / "pid"}
set invisible
poll localhost protocol pop3 port {stage.port(how.listener)} {"uidl" if how.only_new else ""}
  user "{BEN}" password "{how.password}" is "ben" here
  {"ssl" if how.listener == "pop3s" else "sslproto 'auto'"} sslcertck sslcertfile {stage.lab.ca}
  {"keep" if how.keep else "nokeep"} {"" if how.only_new else "fetchall"} no rewrite pass8bits
  mda "cat >> {box}"
""",
        )
        told = stage.run("fetchmail", "--fetchmailrc", str(settings), "--verbose", *arguments)
        return Collected(told.well, told.text, mail=box.read_bytes())

    def collect(self, stage: Stage, how: Collecting) -> Collected:
        return self._poll(stage, how)

    def size(self, stage: Stage) -> tuple[int, int]:
        told = self._poll(stage, Collecting(), "--check")
        match = re.search(r"(\d+) messages for \S+ at localhost \((\d+) octets\)", told.text)
        assert match is not None, told.text
        return int(match[1]), int(match[2])


class Mpop:
    def _poll(self, stage: Stage, how: Collecting, *arguments: str) -> Collected:
        box = stage.folder / "box"
        box.write_bytes(b"")
        settings = stage.keep(
            "mpoprc",
            f"""\
account lab
host 127.0.0.1
port {stage.port(how.listener)}
tls on
tls_starttls {"on" if how.listener == "pop3" else "off"}
tls_trust_file {stage.lab.ca}
auth {how.mechanism.lower() or "on"}
user {BEN}
password {how.password}
keep {"on" if how.keep else "off"}
only_new {"on" if how.only_new else "off"}
uidls_file {stage.folder / "seen"}
received_header off
delivery mda cat >> {box}
""",
        )
        told = stage.run("mpop", f"--file={settings}", "--debug", *arguments, "lab")
        return Collected(told.well, told.text, mail=box.read_bytes())

    def collect(self, stage: Stage, how: Collecting) -> Collected:
        return self._poll(stage, how)

    def size(self, stage: Stage) -> tuple[int, int]:
        told = self._poll(stage, Collecting(), "--status-only")
        match = re.search(r"total: (\d+) messages in (\d+) bytes", told.text)
        assert match is not None, told.text
        return int(match[1]), int(match[2])


class Poplib:
    @contextmanager
    def _client(self, stage: Stage, how: Collecting) -> Iterator[poplib.POP3]:
        host, port = stage.lab.address(how.listener)
        client: poplib.POP3
        if how.listener == "pop3s":
            client = poplib.POP3_SSL(host, port, context=stage.lab.tls)
        else:
            client = poplib.POP3(host, port)
        try:
            if how.listener == "pop3":
                client.stls(stage.lab.tls)
            client.user(BEN)
            client.pass_(how.password)
            yield client
        finally:
            client.quit()

    def collect(self, stage: Stage, how: Collecting) -> Collected:
        seen = stage.folder / "seen"
        known = seen.read_bytes().split() if seen.exists() and how.only_new else []
        octets = b""
        try:
            with self._client(stage, how) as client:
                rows = [row.split() for row in client.uidl()[1]]
                for number, uid in rows:
                    if uid not in known:
                        octets += b"".join(line + b"\n" for line in client.retr(int(number))[1])
                    if not how.keep:
                        client.dele(int(number))
                seen.write_bytes(b"\n".join(uid for _, uid in rows))
        except poplib.error_proto as error:
            return Collected(False, repr(error))
        return Collected(True, "", mail=octets)

    def size(self, stage: Stage) -> tuple[int, int]:
        with self._client(stage, Collecting()) as client:
            return client.stat()

    def top(self, stage: Stage) -> bytes:
        with self._client(stage, Collecting()) as client:
            return b"\r\n".join(client.top(1, 0)[1])


_WHOLE = "collects whole messages only"

CLIENTS = [
    Client(
        "curl",
        program("curl", "--version"),
        Curl(),
        {"user_pass": "takes AUTH PLAIN wherever it is offered"},
    ),
    Client(
        "fetchmail",
        program("fetchmail", "--version"),
        Fetchmail(),
        {"auth_plain": "knows no AUTH PLAIN in POP3", "top": _WHOLE},
    ),
    Client("mpop", program("mpop", "--version"), Mpop(), {"top": _WHOLE}),
    Client("poplib", platform.python_version, Poplib(), {"auth_plain": "knows USER and PASS only"}),
]
