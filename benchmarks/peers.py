"""Who is measured: the lab and the servers beside it, how each is had and started.

Each runs as a process of its own on free ports of 127.0.0.1, and is ended by its id.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import json
import os
import shutil
import socket
import string
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import kit
from benchmarks import processes

HERE = Path(__file__).parent
SERVERS = HERE / "servers"
HOST = "127.0.0.1"
START_SECONDS = 60.0
REST_SECONDS = 10.0

READER = "reader@lab.example"
"""Whose mail is read; also the password."""

Place = tuple[str, int]
"""Host and port."""


class Missing(Exception):
    """A server can't be measured here; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Command:
    """How a server is started; without `places` its first line of output is JSON that says them."""

    arguments: list[str]
    places: Mapping[str, Place] = field(default_factory=dict)
    ends_with_input: bool = False
    """Whether it ends by itself, and in its own time, once its standard input is closed."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A server that can be started here."""

    name: str
    does: str
    """What it does with a message."""
    version: str
    command: Callable[[Path], Command]
    """How to start it, given an empty folder for what it keeps."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that has said it is ready."""

    peer: Peer
    process: subprocess.Popen[str]
    places: Mapping[str, Place]
    ready_seconds: float
    """From its start as a process until it said where it listens or took a connection."""

    @property
    def smtp(self) -> Place:
        return self.places["smtp"]


# --- starting and ending ------------------------------------------------------------------------


@contextlib.contextmanager
def started(peer: Peer, folder: Path) -> Iterator[Running]:
    """The peer while it runs, keeping its things in that folder. Raises `Missing`."""
    folder.mkdir(parents=True, exist_ok=True)
    command = peer.command(folder)
    began = time.perf_counter()
    with (folder / "said.txt").open("ab") as said:
        process = processes.start(
            command.arguments,
            stdin=subprocess.PIPE if command.ends_with_input else subprocess.DEVNULL,
            stdout=said if command.places else subprocess.PIPE,
            stderr=said,
        )
    try:
        places = command.places or read_places(process, folder)
        if command.places:
            wait_for(places, process, folder)
        yield Running(peer, process, places, time.perf_counter() - began)
    finally:
        processes.end(process)


def read_places(process: subprocess.Popen[str], folder: Path) -> dict[str, Place]:
    """Where a server says it listens, in one line of JSON. Raises `Missing` where it doesn't."""
    assert process.stdout is not None
    watchdog = threading.Timer(START_SECONDS, process.kill)
    watchdog.start()
    try:
        line = process.stdout.readline()
    finally:
        watchdog.cancel()
    try:
        said = json.loads(line)
    except ValueError:
        raise Missing(f"it doesn't start: {last_words(folder)}") from None
    return {
        name: (place[0], place[1])
        for name, place in said.items()
        if isinstance(place, list) and len(place) == 2
    }


def wait_for(places: Mapping[str, Place], process: subprocess.Popen[str], folder: Path) -> None:
    """Wait until a server greets whoever connects. Raises `Missing` where it doesn't."""
    until = time.monotonic() + START_SECONDS
    silent = list(places.values())
    while silent and time.monotonic() < until and process.poll() is None:
        try:
            greeting(silent[0])
        except OSError:
            time.sleep(0.02)  # a peer's own start tells nobody that it is done
        else:
            silent.pop(0)
    if silent:
        raise Missing(f"it doesn't start: {last_words(folder)}")


def greeting(place: Place) -> bytes:
    """What a server says first. Raises `OSError` where nobody is there."""
    with socket.create_connection(place, 5) as connection:
        connection.settimeout(5)
        said = connection.recv(512)
    if not said:
        raise ConnectionError("it hangs up")
    return said


def last_words(folder: Path) -> str:
    said = (folder / "said.txt").read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(said) if line.strip()), "it says nothing")


def rest(server: Running) -> None:
    """Wait until a server has done what it goes on with after its last 250.

    What it does then would be counted against whoever is measured next.
    """
    until = time.monotonic() + REST_SECONDS
    spent = cpu_seconds(server.process.pid)
    while time.monotonic() < until:
        time.sleep(0.1)  # what it still computes is measured between two looks
        before, spent = spent, cpu_seconds(server.process.pid)
        if before is not None and spent is not None and spent - before <= 0.01:
            return


def cpu_seconds(pid: int) -> float | None:
    """How long a process has computed; `None` where the system doesn't tell as Linux does."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return None


def free_port() -> int:
    with socket.create_server((HOST, 0)) as taken:
        return int(taken.getsockname()[1])


# --- the lab and its peers ----------------------------------------------------------------------


def lab() -> Peer:
    """This server as `python -m labserver serve` runs it."""

    def command(folder: Path) -> Command:
        serve = [sys.executable, "-m", "labserver", "serve", "--data", str(folder / "mail")]
        return Command([*serve, "--ephemeral", "--json", "--catch-all"])

    does = "records every byte, on disk before 250"
    return Peer("this server", does, metadata.version("labserver"), command)


def bare_aiosmtpd(kept: Path) -> Peer:
    arguments = [sys.executable, str(SERVERS / "bare_aiosmtpd.py")]
    return Peer(
        "aiosmtpd, Sink handler",
        "discards",
        metadata.version("aiosmtpd"),
        lambda folder: Command(arguments),
    )


def smtp_sink(kept: Path) -> Peer:
    program = debian_program("smtp-sink", "postfix")
    user = ["-u", "nobody"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []

    def command(folder: Path) -> Command:
        place = (HOST, free_port())
        return Command([program, *user, f"{HOST}:{place[1]}", "1000"], {"smtp": place})

    return Peer("Postfix smtp-sink", "discards", debian_version("postfix"), command)


# Both of Node's are built on smtp-server, which looks for clients that speak too soon.
_PATIENT = "greets 100 ms after the connection"


def smtp_server(kept: Path) -> Peer:
    node, modules = node_modules(kept)
    arguments = [node, str(SERVERS / "smtp_server.mjs"), str(modules.parent)]
    return Peer(
        "smtp-server (Node)",
        f"discards; {_PATIENT}",
        node_version(modules / "smtp-server"),
        lambda folder: Command(arguments),
    )


def maildev(kept: Path) -> Peer:
    return _maildev(kept, "MailDev", "maildev/bin/maildev")


def maildev_3(kept: Path) -> Peer:
    return _maildev(kept, "MailDev 3", "maildev3/dist/bin/maildev.js", "--web-ip", HOST)


def _maildev(kept: Path, name: str, program: str, *options: str) -> Peer:
    node, modules = node_modules(kept)

    def command(folder: Path) -> Command:
        smtp, web = (HOST, free_port()), free_port()
        arguments = [node, str(modules / program), "--silent", *options]
        arguments += ["--ip", HOST, "--smtp", str(smtp[1]), "--web", str(web)]
        return Command([*arguments, "--mail-directory", str(folder / "mail")], {"smtp": smtp})

    version = node_version(modules / program.partition("/")[0])
    return Peer(name, f"a file each, not synchronised; {_PATIENT}", version, command)


def sendria(kept: Path) -> Peer:
    python, version = sendria_python(kept)

    def command(folder: Path) -> Command:
        smtp, web = (HOST, free_port()), free_port()
        arguments = [str(python), str(python.with_name("sendria")), "--foreground", "--db"]
        arguments += [str(folder / "mail.sqlite"), "--smtp-ip", HOST, "--smtp-port", str(smtp[1])]
        return Command([*arguments, "--http-ip", HOST, "--http-port", str(web)], {"smtp": smtp})

    return Peer("sendria", "SQLite, some time after 250", version, command)


PEERS: Mapping[str, Callable[[Path], Peer]] = {
    "aiosmtpd, Sink handler": bare_aiosmtpd,
    "Postfix smtp-sink": smtp_sink,
    "smtp-server (Node)": smtp_server,
    "MailDev": maildev,
    "MailDev 3": maildev_3,
    "sendria": sendria,
}
"""How each is had, given the folder where what is fetched is kept. Each may raise `Missing`."""


def find(kept: Path) -> tuple[list[Peer], dict[str, str]]:
    """The peers that can be measured here, and by name why the others can't."""
    found, missing = [], {}
    for name, have in PEERS.items():
        try:
            found.append(have(kept))
        except Missing as error:
            missing[name] = str(error)
    return found, missing


def dovecot() -> Peer:
    """Debian's Dovecot with a configuration of its own, and one password for everybody.

    As root it reads mail as nobody; that user then has to get into the folder.
    """
    program = debian_program("dovecot", "dovecot-imapd dovecot-pop3d")

    def command(folder: Path) -> Command:
        places = {"imap": (HOST, free_port()), "pop3": (HOST, free_port())}
        people = _dovecot_people()
        mail = folder / "mail"
        mail.mkdir()
        shutil.chown(mail, people["reader"], people["readers"])
        template = (SERVERS / "dovecot.conf").read_text(encoding="utf-8")
        values = {"host": HOST, "folder": str(folder), "password": READER} | people
        values |= {name: str(place[1]) for name, place in places.items()}
        written = folder / "dovecot.conf"
        written.write_text(string.Template(template).substitute(values), encoding="utf-8")
        return Command([program, "-F", "-c", str(written)], places)

    return Peer("Dovecot", "maildir", debian_version("dovecot-core"), command)


def _dovecot_people() -> dict[str, str]:
    """As whom its parts run: as root as Debian has it, else all as whoever runs this."""
    # Imported here: not every system has it, nor Dovecot.
    import grp

    if os.geteuid() == 0:
        people, readers = ("dovecot", "dovenull", "nobody"), ("dovecot", "nogroup")
    else:
        people, readers = (getpass.getuser(),) * 3, (grp.getgrgid(os.getegid()).gr_name,) * 2
    names = ("internal", "login", "reader", "group", "readers")
    return dict(zip(names, people + readers, strict=True))


# --- having what isn't here yet -----------------------------------------------------------------


def debian_program(name: str, package: str) -> str:
    """The path of a program that Debian keeps where only root looks for it."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    program = shutil.which(name, path=path)
    if program is None:
        raise Missing(f"there is no {name}: on Debian or Ubuntu `sudo apt install {package}`")
    return program


def debian_version(package: str) -> str:
    """The version of a Debian package. Raises `Missing`: a number without it says nothing."""
    query = ["dpkg-query", "--show", "--showformat=${Version}", package]
    with contextlib.suppress(OSError):
        if version := processes.run(query).stdout.strip():
            return version
    raise Missing(f"its version can't be read: it isn't from Debian's package {package}")


def node_modules(kept: Path) -> tuple[str, Path]:
    """Node, and a folder with what servers/package-lock.json names, fetched if need be."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise Missing("there is no Node with npm: install Node 20 or newer")
    pins = [SERVERS / "package.json", SERVERS / "package-lock.json"]

    def fetch(new: Path) -> list[str]:
        for pin in pins:
            shutil.copy(pin, new)
        quick = ["--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--ignore-scripts"]
        return [npm, "ci", "--no-audit", "--no-fund", *quick, f"--prefix={new}"]

    return node, fetched("node", kept, pins, fetch) / "node_modules"


def node_version(package: Path) -> str:
    about = json.loads((package / "package.json").read_text(encoding="utf-8"))
    return str(about["version"])


def sendria_python(kept: Path) -> tuple[Path, str]:
    """A Python that has sendria, in a virtual environment of its own, and sendria's version."""
    pins = [SERVERS / "requirements-sendria.txt"]

    def fetch(new: Path) -> list[str]:
        done = processes.run([sys.executable, "-m", "venv", str(new)])
        if done.returncode:
            said = processes.last_line(done.stdout)
            raise Missing(f"no virtual environment can be made: {said}")
        pip = [str(kit.python_in(new)), "-m", "pip", "install", "--no-input", "--quiet"]
        return [*pip, "--disable-pip-version-check", "-r", str(pins[0])]

    folder = fetched("sendria", kept, pins, fetch)
    (pin,) = (line for line in pins[0].read_text("utf-8").split() if line.startswith("sendria=="))
    return kit.python_in(folder), pin.partition("==")[2]


def fetched(name: str, kept: Path, pins: list[Path], fetch: Callable[[Path], list[str]]) -> Path:
    """A folder filled by the command that `fetch` gives, kept as long as the pins are the same.

    Raises `Missing` where the command fails.
    """
    contents = b"".join(pin.read_bytes() for pin in pins) + sys.version.encode()
    folder = kept / f"{name}-{hashlib.sha256(contents).hexdigest()[:12]}"
    if (folder / "complete").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    print(f"Fetching {name} ...", file=sys.stderr, flush=True)
    done = processes.run(fetch(folder))
    if done.returncode:
        said = done.stdout + done.stderr
        reason = kit.remedy(said) or processes.last_line(said)
        raise Missing(f"it can't be installed: {reason}")
    (folder / "complete").touch()
    return folder


@contextlib.contextmanager
def workplace(kept: Path) -> Iterator[Path]:
    """An empty folder on the project's own disk, for what the servers keep during a run."""
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept, prefix="run-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)  # a server that gives up root's rights has to get in
        try:
            yield Path(name)
        finally:
            processes.end_all()  # what an interrupt left must not write here any more


def remove(folder: Path) -> None:
    """Free the disk of what a server kept there."""
    shutil.rmtree(folder, ignore_errors=True)
