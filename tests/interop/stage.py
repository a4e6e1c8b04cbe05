"""What a cell of the table is played on, and what an operation and a client are."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import shutil
import smtplib
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from labserver import Lab, Session
from labserver.catalog import legal
from labserver.network.loopback import LoopbackNetwork
from labserver.rules import Limits
from labserver.transcript import Line
from tests.dialogue import said

ANA, ANAS_PASSWORD = "ana@lab.example", "ana-lab-password"
BEN, BENS_PASSWORD = "ben@lab.example", "ben-lab-password"
KATHE, KATHES_PASSWORD = "käthe@lab.example", "kathe-lab-password"
ACCOUNTS = {ANA: ANAS_PASSWORD, BEN: BENS_PASSWORD, KATHE: KATHES_PASSWORD}
NOBODY = "nobody@lab.example"
WRONG = "not-the-password"

SECONDS = 60
"""How long a client may take for one operation; all are done in less than two."""
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])  # smtp-source is there


class MissingError(Exception):
    """A client is not on this machine."""


@dataclass(frozen=True)
class Told:
    """What a client says of what it did."""

    well: bool
    """It says that all went well."""
    text: str
    """All it said, or the error it raised."""
    adds: bytes = b""
    """What it puts behind each message, unasked."""


@dataclass(frozen=True)
class Stage:
    """A lab, and a folder that is the home of the programs that use it."""

    lab: Lab
    folder: Path
    troubles: list[str]
    """What the lab has logged of errors of its own."""

    def run(self, program: str, *arguments: str, stdin: bytes = b"") -> Told:
        """Run a program to its end, without this machine's settings for it."""
        done = subprocess.run(
            [_found(program), *arguments],
            input=stdin,
            env=self.environment,
            capture_output=True,
            timeout=SECONDS,
        )
        return Told(done.returncode == 0, _text(done.stdout + done.stderr))

    def output(self, program: str, *arguments: str) -> bytes:
        """What a program prints. Raises `AssertionError` where it says that it failed."""
        done = subprocess.run(
            [_found(program), *arguments],
            stdin=subprocess.DEVNULL,
            env=self.environment,
            capture_output=True,
            timeout=SECONDS,
        )
        assert done.returncode == 0, _text(done.stderr)
        return done.stdout

    @contextlib.contextmanager
    def running(self, program: str, *arguments: str) -> Iterator[IO[bytes]]:
        """All that a program says while it runs; it is ended with the block."""
        with subprocess.Popen(
            [_found(program), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self.environment,
        ) as process:
            try:
                assert process.stdout is not None
                yield process.stdout
            finally:
                process.terminate()

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": PATH, "HOME": str(self.folder), "LC_ALL": "C.UTF-8"}

    def port(self, listener: str) -> int:
        return self.lab.address(listener)[1]

    def keep(self, name: str, content: str | bytes) -> Path:
        """A file in the folder, for its owner only, as fetchmail wants its settings."""
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(0o600)
        return path

    def sessions(self, protocol: str) -> list[Session]:
        """All sessions of that protocol."""
        return [session for session in self.lab.sessions if session.protocol == protocol]

    def session(self, protocol: str) -> Session:
        """The only session of that protocol."""
        (session,) = self.sessions(protocol)
        return session

    def deliver(self, *messages: bytes) -> list[bytes]:
        """Have Ana send these to Ben; how the lab has stored them."""
        with smtplib.SMTP(*self.lab.smtp, "client.example") as client:
            for message in messages:
                client.sendmail(ANA, [BEN], message)
        return [message.octets for message in self.lab.inbox(BEN)[-len(messages) :]]

    def judge(self, client: Client) -> None:
        """What holds of every cell: no error in the lab, and each session came to its end, was
        legal, and shows no password."""
        assert not self.troubles, self.troubles
        for session in self.lab.sessions:
            text = session.text()
            assert session.closed, f"still open:\n{text}"
            broken = legal(session)
            if client.pipelines:
                broken = tuple(p for p in broken if not _overtaken(session.lines[p.line :]))
            problems = "; ".join(map(str, broken))
            assert not problems, f"{problems}\n{text}"
            for password in ACCOUNTS.values():
                assert password not in text, f"a password shows:\n{text}"


def _overtaken(lines: Sequence[Line]) -> bool:
    """Whether that may be DATA on its way before all recipients were refused (RFC 2920).

    On a busy machine the lab may have answered RCPT before DATA comes, and then nobody can tell
    that the client didn't wait.
    """
    return len(lines) > 1 and lines[0].data == b"DATA\r\n" and lines[1].data.startswith(b"503 ")


def _found(program: str) -> str:
    path = shutil.which(program, path=PATH)
    if path is None:
        raise MissingError(f"{program} is not installed")
    return path


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "backslashreplace")


@contextlib.contextmanager
def stage(limits: Limits | None = None) -> Iterator[Stage]:
    """A new lab that other programs can reach."""
    troubles = _Troubles(logging.WARNING)
    loggers = [logging.getLogger(name) for name in ("labserver", "asyncio")]
    for logger in loggers:
        logger.addHandler(troubles)
    network = LoopbackNetwork()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="interop-") as folder,
            Lab(ACCOUNTS, network=network, limits=limits) as lab,
        ):
            yield Stage(lab, Path(folder), troubles.told)
    finally:
        network.close()
        for logger in loggers:
            logger.removeHandler(troubles)


class _Troubles(logging.Handler):
    """Keeps what is logged."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(self.format(record))


def spoken(session: Session) -> list[str]:
    """The dialogue by verbs and codes, the last of a reply's lines standing for all of them."""
    rows = said(session).split("\n")
    return [row for row in rows if not (row.startswith("S: ") and row[6:7] == "-")]


def commands(session: Session) -> list[str]:
    """The command lines, as they are shown where texts are compared."""
    lines = zip(session.lines, session.texts("normal"), strict=True)
    return [text for line, text in lines if line.kind == "command"]


@dataclass(frozen=True)
class Operation:
    """A row of the table."""

    protocol: str
    name: str
    title: str
    meaning: str
    play: Callable[[Stage, Any], None]
    """Has a client do it and judges; raises `AssertionError` where it isn't right."""
    limits: Limits | None


@dataclass
class Operations:
    """The operations of one protocol, in the order in which they are written down."""

    protocol: str
    rows: dict[str, Operation] = field(default_factory=dict)

    def __call__(
        self, title: str, meaning: str, limits: Limits | None = None
    ) -> Callable[[Callable[[Stage, Any], None]], Callable[[Stage, Any], None]]:
        """Make a function an operation; it is known by the function's name."""

        def enter(play: Callable[[Stage, Any], None]) -> Callable[[Stage, Any], None]:
            name = play.__name__
            self.rows[name] = Operation(self.protocol, name, title, meaning, play, limits)
            return play

        return enter


@dataclass(frozen=True)
class Client:
    """A column of the table."""

    name: str
    version: Callable[[], str]
    """As found on this machine. Raises `MissingError`."""
    does: Any
    """What the operations of its protocol are played with."""
    cannot: Mapping[str, str]
    """The operations it can't do by its nature, and why: the end of a sentence on it."""
    pipelines: bool = False
    """Whether it writes one command after the other without waiting for the answers."""


def play(operation: Operation, client: Client) -> None:
    """Play one cell. Raises `AssertionError` where it failed, `MissingError` without client, or
    with one that lacks something or doesn't tell which it is."""
    client.version()
    with stage(operation.limits) as made:
        operation.play(made, client.does)
        made.judge(client)


@functools.cache
def swaks_version() -> str:
    """The version of a swaks that speaks TLS; without Perl's Net::SSLeay it does not."""
    version = program("swaks", "--version", pattern=r"\d{8}\.\d+")()
    done = subprocess.run([_found("swaks"), "--support"], capture_output=True, timeout=SECONDS)
    if "TLS not available" in _text(done.stdout + done.stderr):
        raise MissingError("swaks speaks no TLS here (Debian: apt-get install libnet-ssleay-perl)")
    return version


def program(name: str, *arguments: str, pattern: str = r"\d+(?:\.\d+)+") -> Callable[[], str]:
    """How to find a program's version: what matches the pattern first when it is asked."""

    @functools.cache
    def version() -> str:
        done = subprocess.run([_found(name), *arguments], capture_output=True, timeout=SECONDS)
        match = re.search(pattern, _text(done.stdout + done.stderr))
        if match is None:
            raise MissingError(f"{name} doesn't tell its version")
        return match[0]

    return version


def package(name: str) -> Callable[[], str]:
    """How to find the version of a package from PyPI."""

    def version() -> str:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            raise MissingError(f"{name} is not installed") from None

    return version
