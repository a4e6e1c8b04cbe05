"""Nothing is lost: the server is killed, its system calls are watched, its disk is full or broken.

The servers here are real processes, started as the command line starts them.
"""

from __future__ import annotations

import imaplib
import json
import os
import poplib
import re
import shutil
import signal
import smtplib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

if sys.platform != "win32":
    import resource

from benchmarks import kills
from labserver import Lab
from labserver.network import Network
from labserver.views.show import show

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[1]
CARELESS = "tests/careless_server.py"
ANA = "ana@lab.example"
BEN, BENS_PASSWORD = "ben@lab.example", "ben-lab-password"
SMALL = b"Subject: small\r\n\r\nsmall\r\n"
LARGE = b"Subject: large\r\n\r\n" + b"a long line of a large message\r\n" * 9000
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="another system limits disks otherwise")


@contextmanager
def serving(command: Sequence[str], folder: Path) -> Iterator[tuple[Any, subprocess.Popen[str]]]:
    """A server process of that command; ended politely."""
    process = subprocess.Popen(
        [*command, "serve", "--ephemeral", "--json", f"--data={folder}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=os.environ | {"PYTHONIOENCODING": "utf-8", "PYTHONPATH": str(ROOT)},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            pytest.fail(f"no server: {process.communicate()[1]}")
        yield json.loads(line), process
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    finally:
        process.kill()
        process.communicate()


# -- kills


@pytest.mark.timeout(300)
def test_what_was_acknowledged_survives_kills(tmp_path: Path) -> None:
    outcome = kills.run(10, seed=1, folder=tmp_path)
    assert outcome.faults == []
    assert (outcome.lost, outcome.half, outcome.duplicated, outcome.undone) == (0, 0, 0, 0)
    assert outcome.kills == 10
    assert outcome.acknowledged > 50
    assert outcome.changes > 5


@pytest.mark.timeout(300)
def test_a_server_that_says_250_too_early_loses_mail(tmp_path: Path) -> None:
    outcome = kills.run(2, seed=1, folder=tmp_path, program=[CARELESS, "early"])
    assert outcome.lost > 0


def test_what_is_not_as_it_was_told_is_counted() -> None:
    ledger, outcome = kills.Ledger(), kills.Outcome()
    inbox: kills.Place = ("INBOX", frozenset())
    ana, ben = [(account, "m1") for account in (ANA, BEN)]
    with ledger.change([ana, ben, (ANA, "m2"), (ANA, "m3")], inbox, new=True):
        pass
    with ledger.change([(ANA, "m3")], None):
        pass
    with suppress(ConnectionError), ledger.change([(ANA, "m4"), (BEN, "m4")], inbox, new=True):
        raise ConnectionError
    found: kills.Found = {
        ana: [(inbox, True), (inbox, True)],
        ben: [(inbox, False)],
        (ANA, "m3"): [(inbox, True)],
        (BEN, "m4"): [(inbox, True)],
    }
    kills.compare(ledger, found, outcome, True)
    counted = (outcome.lost, outcome.half, outcome.duplicated, outcome.undone)
    assert counted == (1, 2, 1, 1), outcome.faults


# -- system calls


@dataclass(frozen=True)
class Call:
    """A system call in strace's words; `begun` and `ended` are lines of its output."""

    begun: int
    ended: int
    text: str


def calls_in(trace: str) -> list[Call]:
    """The calls of all threads, those that strace tells of in two pieces put together."""
    calls, unfinished = [], dict[str, tuple[int, str]]()
    for number, line in enumerate(trace.splitlines()):
        thread, _, text = line.partition(" ")
        text = text.strip()
        if text.endswith("<unfinished ...>"):
            unfinished[thread] = (number, text.removesuffix("<unfinished ...>"))
        elif resumed := re.match(r"<\.\.\. \w+ resumed>(.*)", text):
            begun, first = unfinished.pop(thread)
            calls.append(Call(begun, number, first + resumed[1]))
        else:
            calls.append(Call(number, number, text))
    return calls


_WRITE = re.compile(r"p?writev?2?(?:64)?\(\d+<[^>]*/mail\.sqlite[^>]*>")
_SYNC = re.compile(r"f(?:data)?sync\(\d+<[^>]*/(mail\.sqlite[^>]*)>\)\s*= 0$")
_STORED = re.compile(
    r'(?:write|sendto|sendmsg)\(.*?"(?:[^"]*\\r\\n)?250 2\.0\.0 Stored as message (\d+)'
)
_TOKEN = re.compile(r"token-\w+-(?:begin|end)")


def violations(calls: list[Call], tokens: dict[int, str]) -> list[str]:
    """Where `250 Stored` left before what it promises was written and synced.

    `tokens` are words at the beginning and the end of each message, by the message's number.
    """
    found = []
    told = set()
    for reply in calls:
        stored = _STORED.match(reply.text)
        if stored is None:
            continue
        number = int(stored[1])
        told.add(number)
        before = [call for call in calls if call.ended < reply.begun]
        writes = [call for call in before if _WRITE.match(call.text)]
        syncs = [call for call in before if _SYNC.match(call.text)]
        for end in ("begin", "end"):
            token = f"token-{tokens[number]}-{end}"
            written = [call.ended for call in writes if token in call.text]
            if not written:
                found.append(f"250 for {token} before it was written")
            elif not any(sync.begun > written[0] for sync in syncs):
                found.append(f"250 for {token} before any sync")
        if not syncs or writes[-1].ended > syncs[-1].begun:
            found.append(f"250 for message {number} while writes were not synced")
    assert told == set(tokens), "some replies were not seen"
    return found


def send_in_parallel(address: tuple[str, int], clients: int, each: int) -> dict[int, str]:
    """Send messages over some connections at once; their tokens by the number that 250 tells."""
    tokens = dict[int, str]()

    def send(name: int) -> None:
        with smtplib.SMTP(*address) as client:
            client.ehlo()
            for n in range(each):
                token = f"{name}x{n}"
                filling = b"filling\r\n" * 300 * n
                words = [f"token-{token}-{end}\r\n".encode() for end in ("begin", "end")]
                client.mail(ANA)
                client.rcpt(BEN)
                code, text = client.data(filling.join([b"Subject: x\r\n\r\n" + words[0], words[1]]))
                assert code == 250
                tokens[int(text.split()[-1])] = token

    threads = [threading.Thread(target=send, args=(name,)) for name in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tokens) == clients * each
    return tokens


def observed(folder: Path, program: Sequence[str]) -> tuple[list[Call], dict[int, str]]:
    """What a server's system calls were while it took mail."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed (Debian: apt-get install strace)")
    trace = folder / "trace"
    # -D: the server is the child, and strace its grandchild.
    watch = [strace, "-D", "-f", "-y", "-qq", "-s", "100000", "-o", str(trace)]
    watch.append("--trace=fsync,fdatasync,write,pwrite64,writev,pwritev,sendto,sendmsg")
    probe = subprocess.run([*watch, "true"], capture_output=True, text=True, encoding="utf-8")
    if probe.returncode:
        pytest.skip(f"strace may not watch processes here: {probe.stderr.strip()}")
    done = watch[:]
    done[done.index(str(trace))] = str(folder / "server-trace")
    with serving([*done, sys.executable, *program], folder / "mail") as (lab, _):
        tokens = send_in_parallel(tuple(lab["smtp"]), clients=4, each=5)
    return calls_in((folder / "server-trace").read_text("utf-8", "replace")), tokens


def test_the_disk_has_a_message_before_250_leaves(tmp_path: Path) -> None:
    calls, tokens = observed(tmp_path, ["-m", "labserver"])
    assert violations(calls, tokens) == []


def test_a_store_that_does_not_sync_is_found_out(tmp_path: Path) -> None:
    calls, tokens = observed(tmp_path, [CARELESS, "no-sync"])
    found = violations(calls, tokens)
    assert len([text for text in found if "before any sync" in text]) == 2 * len(tokens)
    assert len([text for text in found if "while writes were not synced" in text]) == len(tokens)


# -- disks


@dataclass
class Clients:
    """One client of each protocol, all of them Ben's."""

    smtp: smtplib.SMTP
    imap: imaplib.IMAP4
    pop3: poplib.POP3

    def submit(self, octets: bytes) -> bytes:
        """The reply to a message."""
        self.smtp.ehlo_or_helo_if_needed()
        self.smtp.mail(ANA)
        self.smtp.rcpt(BEN)
        code, text = self.smtp.data(octets)
        return b"%d %s" % (code, text)

    def told(self, *command: str) -> str:
        """The tagged response to an IMAP command, without its tag."""
        self.imap.untagged_responses.clear()
        kind, data = self.imap.xatom(*command)
        if command[0] == "SELECT" and kind == "OK":
            self.imap.state = "SELECTED"
        return f"{kind} {data[-1].decode()}"

    def append(self, octets: bytes) -> str:
        kind, data = self.imap.append("INBOX", "", "", octets)
        return f"{kind} {data[-1].decode()}"

    def flags(self) -> list[str]:
        """What IMAP tells of all messages, one row for each."""
        self.imap.untagged_responses.clear()
        kind, data = self.imap.fetch("1:*", "(FLAGS)")
        assert kind == "OK"
        return [row.decode() for row in data if row]


@contextmanager
def clients_of(smtp: Any, imap: Any, pop3: Any) -> Iterator[Clients]:
    with smtplib.SMTP(*smtp) as sender, imaplib.IMAP4(*imap) as reader:
        reader.login(BEN, BENS_PASSWORD)
        collector = poplib.POP3(*pop3)
        try:
            yield Clients(sender, reader, collector)
        finally:
            with suppress(OSError, poplib.error_proto):
                collector.close()


def collect(client: poplib.POP3, *numbers: int) -> str:
    """What POP3 says to QUIT after Ben has marked these messages as deleted."""
    client.user(BEN)
    client.pass_(BENS_PASSWORD)
    for number in numbers:
        client.retr(number)
        client.dele(number)
    try:
        return client.quit().decode()
    except poplib.error_proto as error:
        return str(error.args[0].decode())


def refused_and_lives_on(clients: Clients, pop3: tuple[str, int], code: bytes, why: str) -> None:
    """Nothing can be written: each protocol says so, nothing is changed, mail can be read."""
    for octets in (SMALL, LARGE, SMALL):
        assert clients.submit(octets).startswith(code)
    refusal = f"NO [UNAVAILABLE] {why}, nothing was changed."
    assert clients.told("SELECT", "INBOX").startswith("OK")
    before = clients.flags()
    assert len(before) == 3
    assert clients.append(SMALL) == refusal
    assert clients.append(LARGE) == refusal
    assert clients.told("STORE", "1:2", "+FLAGS", "(\\Flagged)") == refusal
    assert clients.told("COPY", "1:2", "INBOX") == refusal
    assert clients.told("MOVE", "1:2", "Work") == refusal
    assert clients.told("CREATE", "Play") == refusal
    assert clients.told("FETCH", "1:3", "(BODY.PEEK[])").startswith("OK")
    refusal = f"-ERR [SYS/TEMP] {why[:1].lower()}{why[1:]}, nothing was changed"
    assert collect(clients.pop3, 1, 3) == refusal
    assert clients.flags() == before
    assert collect(poplib.POP3(*pop3)).startswith("+OK")


def works_again(clients: Clients, pop3: tuple[str, int]) -> None:
    """All that was refused is done now; three messages were there."""
    assert clients.submit(LARGE).startswith(b"250 2.0.0 Stored")
    assert clients.append(SMALL).startswith("OK")
    assert clients.told("STORE", "1:2", "+FLAGS", "(\\Flagged)").startswith("OK")
    assert clients.told("MOVE", "1:2", "Work").startswith("OK")
    assert collect(poplib.POP3(*pop3), 1).startswith("+OK")
    clients.told("NOOP")
    assert len(clients.flags()) == 2
    assert clients.told("STATUS", "Work", "(MESSAGES)").startswith("OK")
    assert clients.imap.response("STATUS")[1] == [b"Work (MESSAGES 2)"]


@dataclass(frozen=True)
class Disk:
    """Where a server keeps its mail, and how that is filled up and emptied again."""

    fill: Callable[[], None]
    free: Callable[[], None]
    code: bytes
    why: str


@contextmanager
def small_disk(folder: Path) -> Iterator[tuple[Any, Disk]]:
    """A server whose mail is on a disk of two megabytes, in a mount namespace of its own.

    Where this machine lets nobody mount anything, the server's files may not grow instead
    (RLIMIT_FSIZE): that is an error of the disk, but not the one of a full disk.
    """
    program = [sys.executable, "-m", "labserver"]
    mounting = mounts("size=2m", folder)
    with serving([*mounting, *program], folder) as (lab, process):
        inside = Path("/proc", str(process.pid), "root", folder.relative_to("/"), "filling")

        def fill() -> None:
            with inside.open("wb", buffering=0) as file, suppress(OSError):
                while file.write(bytes(4096)):
                    pass

        def limit(octets: int) -> None:
            _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (octets, hard))

        if mounting:
            yield lab, Disk(fill, inside.unlink, b"452 4.3.1 ", "The disk is full")
        else:
            most = resource.RLIM_INFINITY
            why = "The mail store can't do that now"
            yield lab, Disk(lambda: limit(0), lambda: limit(most), b"451 4.3.0 ", why)


def mounts(options: str, folder: Path, then: str = "true") -> list[str]:
    """The beginning of a command that sees a small disk there; empty where none can be had."""
    folder.mkdir(exist_ok=True)
    script = f'mount -t tmpfs -o {options} lab "$0" && {then} && exec "$@"'
    for who in (["--map-root-user"], []):
        command = ["unshare", *who, "--mount", "sh", "-c", script, str(folder)]
        with suppress(OSError):
            if not subprocess.run([*command, "true"], capture_output=True).returncode:
                return command
    return []


@LINUX
def test_a_full_disk_is_told_and_outlived(tmp_path: Path) -> None:
    """On a disk that is really full, or see `small_disk`."""
    with (
        small_disk(tmp_path / "mail") as (lab, disk),
        clients_of(lab["smtp"], lab["imap"], lab["pop3"]) as clients,
    ):
        assert clients.told("CREATE", "Work").startswith("OK")
        for _ in range(3):
            assert clients.submit(SMALL).startswith(b"250")
        disk.fill()
        refused_and_lives_on(clients, lab["pop3"], disk.code, disk.why)
        disk.free()
        works_again(clients, lab["pop3"])


def test_a_store_without_room_is_told_and_outlived(lab: Lab) -> None:
    """SQLite's own limit of its file stands for the disk: this one runs over both networks."""
    db = lab._store._db

    def pages(most: int) -> None:
        lab.network.run(lambda: db.execute(f"PRAGMA max_page_count = {most}"))

    with clients_of(lab.smtp, lab.imap, lab.pop3) as clients:
        for _ in range(3):
            assert clients.submit(SMALL).startswith(b"250")
        pages(1)  # it becomes as many as there are
        assert clients.submit(LARGE).startswith(b"452 4.3.1 ")
        assert clients.append(LARGE) == "NO [UNAVAILABLE] The disk is full, nothing was changed."
        pages(1_000_000)
        assert clients.submit(LARGE).startswith(b"250")
        assert clients.append(LARGE).startswith("OK")
        assert len(lab.inbox(BEN)) == 5
        assert collect(poplib.POP3(*lab.pop3), 1).startswith("+OK")


def test_a_store_that_becomes_read_only_is_told_and_outlived(lab: Lab) -> None:
    """SQLite says what it says of a file that it may not write to (SQLITE_READONLY)."""
    db = lab._store._db

    def may_write(yes: bool) -> None:
        lab.network.run(lambda: db.execute(f"PRAGMA query_only = {int(not yes)}"))

    with clients_of(lab.smtp, lab.imap, lab.pop3) as clients:
        assert clients.told("CREATE", "Work").startswith("OK")
        for _ in range(3):
            assert clients.submit(SMALL).startswith(b"250")
        may_write(False)
        why = "The mail store can't do that now"
        refused_and_lives_on(clients, lab.pop3, b"451 4.3.0 ", why)
        may_write(True)
        works_again(clients, lab.pop3)


@LINUX
def test_a_disk_that_fails_is_told_and_outlived(tmp_path: Path) -> None:
    """Each write to a file fails, by RLIMIT_FSIZE."""
    program = [sys.executable, "-m", "labserver"]
    with serving(program, tmp_path) as (lab, process):
        hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)[1]
        with clients_of(lab["smtp"], lab["imap"], lab["pop3"]) as clients:
            assert clients.told("CREATE", "Work").startswith("OK")
            for _ in range(3):
                assert clients.submit(SMALL).startswith(b"250")
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, hard))
            why = "The mail store can't do that now"
            refused_and_lives_on(clients, lab["pop3"], b"451 4.3.0 ", why)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard, hard))
            works_again(clients, lab["pop3"])


@LINUX
def test_a_read_only_store_is_refused_with_a_sentence(tmp_path: Path) -> None:
    """Read-only by its mount; else by `chattr +i`, or by its permissions where one isn't root."""
    kept, folder = tmp_path / "kept", tmp_path / "mail"
    with Lab(data=kept):
        pass
    shutil.copytree(kept, folder)
    store = folder / "mail.sqlite"
    copy = f'cp {kept}/* "$0" && mount -o remount,ro "$0"'
    mounting = mounts("size=8m", folder, copy)
    immutable = False
    if not mounting and os.geteuid():
        store.chmod(0o444)
    elif not mounting:
        immutable = not subprocess.run(["chattr", "+i", store], capture_output=True).returncode
        if not immutable:
            pytest.skip("root can write to all files here, and can neither mount nor chattr +i")
    try:
        program = [sys.executable, "-m", "labserver", "serve", "--ephemeral", f"--data={folder}"]
        done = subprocess.run(
            [*mounting, *program], cwd=ROOT, capture_output=True, encoding="utf-8", timeout=30
        )
    finally:
        if immutable:
            subprocess.run(["chattr", "-i", store], check=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"The mail store {store} can't be used: the file is read-only.\n"


# -- damage


def damage(lab: Lab, place: float, pages: int) -> None:
    """Overwrite pages of the running lab's store, from that part of the file on."""

    def write() -> None:
        store = lab._store
        store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        store._db.execute("PRAGMA shrink_memory")  # nothing comes from memory any more
        assert store.path is not None
        with store.path.open("r+b") as file:
            file.seek(4096 + int(place * store.path.stat().st_size) // 4096 * 4096)
            file.write(b"\xff" * 4096 * pages)

    lab.network.run(write)


def test_damaged_content_is_told_and_all_else_goes_on(lab: Lab) -> None:
    with clients_of(lab.smtp, lab.imap, lab.pop3) as clients:
        for _ in range(3):
            assert clients.submit(LARGE).startswith(b"250")
        damage(lab, 0.5, pages=2)
        clients.pop3.user(BEN)
        clients.pop3.pass_(BENS_PASSWORD)
        for number in (1, 3):
            assert clients.pop3.retr(number)[1][-1] == LARGE.splitlines()[-1]
        with pytest.raises(poplib.error_proto, match="SYS/TEMP"):
            clients.pop3.retr(2)
        clients.told("SELECT", "INBOX")
        refusal = "NO [UNAVAILABLE] The mail store can't be read now."
        assert clients.told("FETCH", "1:3", "(BODY.PEEK[])") == refusal
        assert clients.submit(SMALL).startswith(b"250")


def test_one_octet_that_has_changed_is_told_and_never_given(lab: Lab) -> None:
    def change() -> None:
        store = lab._store
        store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        store._db.execute("PRAGMA shrink_memory")
        assert store.path is not None
        octets = store.path.read_bytes()
        with store.path.open("r+b") as file:
            file.seek(octets.index(b"body 2"))
            file.write(b"bodY")

    with clients_of(lab.smtp, lab.imap, lab.pop3) as clients:
        for number in (1, 2, 3):
            assert clients.submit(b"Subject: %d\r\n\r\nbody %d\r\n" % (number, number))
        lab.network.run(change)
        clients.pop3.user(BEN)
        clients.pop3.pass_(BENS_PASSWORD)
        with pytest.raises(poplib.error_proto, match="SYS/PERM"):
            clients.pop3.retr(2)
        assert clients.pop3.retr(3)[1][-1] == b"body 3"
        clients.told("SELECT", "INBOX")
        refusal = "NO [CORRUPTION] A message in this mailbox was damaged on the disk."
        assert clients.told("FETCH", "1:3", "(BODY.PEEK[])") == refusal
        assert len(clients.imap.untagged_responses.pop("FETCH")) == 4
        assert clients.told("FETCH", "1:3", "(FLAGS)") == "OK FETCH completed."
        assert clients.told("SEARCH", "BODY", "body").startswith("NO [CORRUPTION] ")
    one, two, three = lab.inbox(BEN)
    assert (one.damage, two.octets, three.damage) == ("", b"", "")
    assert str(two) == two.damage == "That message was damaged on the disk; its content is lost."
    assert f"2. {two.damage}\n" in str(lab.inbox(BEN))
    assert two.damage in show(two).html
    assert two.damage in show(lab.inbox(BEN)).html


def test_damage_found_while_running_is_told_and_outlived(network: Network, tmp_path: Path) -> None:
    with (
        Lab(network=network, data=tmp_path) as lab,
        clients_of(lab.smtp, lab.imap, lab.pop3) as clients,
    ):
        for _ in range(3):
            assert clients.submit(LARGE).startswith(b"250")
        assert clients.told("SELECT", "INBOX").startswith("OK")
        damage(lab, 0, pages=1000)
        assert clients.submit(SMALL).startswith(b"451 4.3.0 ")
        refusal = "NO [UNAVAILABLE] The mail store can't do that now, nothing was changed."
        assert clients.append(SMALL) == refusal
        assert clients.told("FETCH", "1", "(BODY.PEEK[])") == refusal
        clients.pop3.user(BEN)
        with pytest.raises(poplib.error_proto, match="SYS/TEMP"):
            clients.pop3.pass_(BENS_PASSWORD)
        assert clients.submit(SMALL).startswith(b"451 4.3.0 ")

    with Lab(network=network, data=tmp_path) as lab:
        assert "was damaged" in lab.notice
        with smtplib.SMTP(*lab.smtp) as client:
            client.sendmail(ANA, [BEN], SMALL)
        assert len(lab.inbox(BEN)) == 1


def test_a_damaged_store_is_logged_and_told(
    network: Network, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "mail.sqlite").write_bytes(b"This is a letter to a friend.")
    with Lab(network=network, data=tmp_path) as lab:
        assert lab.notice.endswith(
            "mail.sqlite was damaged (file is not a database); it is kept as "
            "mail.sqlite.damaged-1, and a new, empty one takes its place."
        )
        assert [record.getMessage() for record in caplog.records] == [lab.notice]
        assert lab.inbox(BEN) == ()
    caplog.clear()
    with Lab(network=network, data=tmp_path) as lab:
        assert (lab.notice, caplog.records) == ("", [])


def test_the_command_line_tells_of_a_damaged_store(tmp_path: Path) -> None:
    (tmp_path / "mail.sqlite").write_bytes(b"This is a letter to a friend.")
    with serving([sys.executable, "-m", "labserver"], tmp_path) as (lab, process):
        with smtplib.SMTP(*lab["smtp"]) as client:
            client.sendmail(ANA, [BEN], SMALL)
        assert process.stderr is not None
        told = process.stderr.readline()
    assert told.startswith(f"The mail store {tmp_path}/mail.sqlite was damaged (")
