"""Kills the server again and again while clients use it, and looks for what it had acknowledged.

    python -m benchmarks.kills --kills 300 --seed 1

Real clients (smtplib, imaplib, poplib) deliver, append, flag, move, expunge and delete; at a random
moment the server is killed (SIGKILL), at times also while it is starting. After each restart on the
same folder all mail is compared with what the clients were told. `run` is what the tests and
`bench.py` call.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import imaplib
import json
import poplib
import random
import re
import smtplib
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PASSWORD = "kill-password"
ANA, BEN, CARA, DAN = ACCOUNTS = [f"{name}@lab.example" for name in ("ana", "ben", "cara", "dan")]
"""Ana and Ben get mail, Cara uses IMAP, Dan POP3."""
SMTP_CLIENTS = 4
START_SECONDS = 30.0

Place = tuple[str, frozenset[str]]
"""A mailbox's name and a message's flags there; `None` stands for a message that isn't there."""
Key = tuple[str, str]
"""An account and a message's id."""


@dataclass
class Outcome:
    """What became of all that was acknowledged."""

    kills: int = 0
    acknowledged: int = 0
    """Messages that got 250, or OK from APPEND."""
    lost: int = 0
    half: int = 0
    """Messages of which not every octet is there, and what was done to some of a group only."""
    duplicated: int = 0
    changes: int = 0
    """Messages flagged, moved, expunged or deleted, as told by OK."""
    undone: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)
    """What was wrong, in words."""

    def __str__(self) -> str:
        return (
            f"{self.kills} kills: {self.acknowledged} messages acknowledged, {self.lost} lost, "
            f"{self.half} half, {self.duplicated} duplicated; {self.changes} changes acknowledged, "
            f"{self.undone} undone ({self.seconds:.0f} s)"
        )


def run(
    kills: int,
    seed: int,
    folder: Path,
    progress: Callable[[Outcome], object] = lambda _: None,
    program: Sequence[str] = ("-m", "labserver"),
) -> Outcome:
    """Kill the server that often. Raises `AssertionError` where it fails without being killed.

    `program` is what Python runs as the server, which takes the arguments of the command line.
    """
    began = time.monotonic()
    chance, ledger, outcome = random.Random(seed), Ledger(), Outcome()
    while True:
        if outcome.kills < kills and chance.random() < 0.1:
            with starting(folder, program) as server:
                time.sleep(chance.uniform(0.0, 0.5))  # the kill comes at any moment of the start
            outcome.kills += 1
        with starting(folder, program) as server:
            lab = told(server)
            everything = outcome.kills >= kills
            compare(ledger, mail_in(lab, ledger, everything=everything), outcome, everything)
            if not everything:
                use_and_kill(server, lab, ledger, chance)
                outcome.kills += 1
        outcome.acknowledged, outcome.changes = ledger.acknowledged, ledger.changes
        outcome.seconds = time.monotonic() - began
        progress(outcome)
        if everything:
            return outcome


# -- the server


@contextlib.contextmanager
def starting(folder: Path, program: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """The command line's server, on any free ports; killed at the end, if not before."""
    accounts = [f"--account={account}:{PASSWORD}" for account in ACCOUNTS]
    server = subprocess.Popen(
        [
            sys.executable,
            *program,
            "serve",
            f"--data={folder}",
            "--ephemeral",
            "--json",
            *accounts,
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    try:
        yield server
    finally:
        server.kill()
        _, errors = server.communicate()
        assert not errors, errors


def told(server: subprocess.Popen[str]) -> dict[str, Any]:
    """The line in which the server says where it listens."""
    assert server.stdout is not None
    watchdog = threading.Timer(START_SECONDS, server.kill)
    watchdog.start()
    line = server.stdout.readline()
    watchdog.cancel()
    assert line, "the server did not start"
    lab: dict[str, Any] = json.loads(line)
    return lab


def use_and_kill(
    server: subprocess.Popen[str], lab: dict[str, Any], ledger: Ledger, chance: random.Random
) -> None:
    """Let all clients work, kill the server in the midst of it, wait until they have noticed."""
    killed, failures = threading.Event(), list[BaseException]()

    def client(work: Callable[..., None], own: random.Random) -> None:
        try:
            while not killed.is_set():
                work(lab, ledger, own)
        except (
            OSError,
            EOFError,
            smtplib.SMTPException,
            imaplib.IMAP4.error,
            poplib.error_proto,
        ) as e:
            if not killed.is_set():
                failures.append(e)
        except BaseException as error:
            failures.append(error)

    works = [*[deliver] * SMTP_CLIENTS, use_imap, use_pop3]
    threads = [
        threading.Thread(target=client, args=(work, random.Random(chance.random())))
        for work in works
    ]
    for thread in threads:
        thread.start()
    time.sleep(chance.uniform(0.02, 0.6))  # and here at any moment of the work
    killed.set()
    server.kill()
    for thread in threads:
        thread.join()
    assert not failures, repr(failures)


# -- what the clients were told


class Ledger:
    """Where each message may be, by what its client was told. Any thread may write in it.

    A message whose change was under way when the server died may be where it was or where it was
    to go; all others have one place.
    """

    def __init__(self) -> None:
        self.places: dict[Key, set[Place | None]] = {}
        self.digests: dict[str, bytes] = {}
        """SHA-256 of each message as it was sent, by its id."""
        self.under_way: list[frozenset[Key]] = []
        """What was done to several messages at once when the server died."""
        self.resting = set[Key]()
        """Messages that were found after a kill and that no client touches any more."""
        self.seen: dict[Key, int] = defaultdict(int)
        """By account and mailbox, the UIDs that need not be looked at again."""
        self.acknowledged = self.changes = self._number = 0
        self._lock = threading.Lock()

    def new(self, chance: random.Random) -> tuple[str, bytes]:
        """A new message with an id of its own; most are small, some are not."""
        with self._lock:
            self._number += 1
            name = f"m{self._number}"
        size = chance.choice([10, 500, 3000, 3000, 10_000, 100_000])
        body = chance.randbytes(size // 2).hex(" ", 30).replace(" ", "\r\n")
        octets = f"X-Id: {name}\r\nSubject: kills\r\n\r\n{body}\r\n.\r\nthe end\r\n".encode()
        self.digests[name] = hashlib.sha256(octets).digest()
        return name, octets

    @contextlib.contextmanager
    def change(
        self, keys: Collection[Key], after: Place | None, *, new: bool = False
    ) -> Iterator[None]:
        """Within this block these messages are on their way; at its end they have arrived."""
        group = frozenset(keys)
        with self._lock:
            for key in keys:
                self.places[key] = self.places.get(key, {None}) | {after}
            self.under_way.append(group)
        yield
        with self._lock:
            for key in keys:
                self.places[key] = {after}
            self.under_way.remove(group)
            self.acknowledged += new
            self.changes += 0 if new else len(keys)

    def where(self, account: str, mailbox: str) -> list[str]:
        """The ids of the messages that are in that mailbox for sure."""
        with self._lock:
            return [
                name
                for (owner, name), places in self.places.items()
                if owner == account and all(place and place[0] == mailbox for place in places)
            ]


NO_FLAGS: frozenset[str] = frozenset()


def deliver(lab: dict[str, Any], ledger: Ledger, chance: random.Random) -> None:
    """Some messages by SMTP, to one or both."""
    with smtplib.SMTP(*lab["smtp"], local_hostname="client.example") as client:
        for _ in range(chance.randint(1, 6)):
            send(client, ledger, chance, chance.choice([[ANA], [BEN], [ANA, BEN]]))


def send(client: smtplib.SMTP, ledger: Ledger, chance: random.Random, to: list[str]) -> None:
    name, octets = ledger.new(chance)
    with ledger.change([(account, name) for account in to], ("INBOX", NO_FLAGS), new=True):
        client.sendmail("eve@far.example", to, octets)


def use_imap(lab: dict[str, Any], ledger: Ledger, chance: random.Random) -> None:
    """Cara appends messages, flags them, moves them, and removes them for good."""
    with logged_in(lab, CARA) as client:
        client.create("Archive")
        here, there = chance.sample(["INBOX", "Archive"], 2)
        ok(client.select(here))
        for _ in range(20):
            if len(ledger.where(CARA, here)) < 10:
                name, octets = ledger.new(chance)
                with ledger.change([(CARA, name)], (here, NO_FLAGS), new=True):
                    ok(client.append(here, "", "", octets))
            name = chance.choice(ledger.where(CARA, here))
            (found,) = ok(client.uid("SEARCH", "HEADER", "X-Id", f'"{name}"'))
            # The header is searched for a part of it.
            uid = next(u for u in found.decode().split() if header(client, u) == name)
            place = next(iter(ledger.places[CARA, name]))
            assert place is not None
            flags = place[1]
            step = chance.choice(["flag", "move", "expunge"])
            if step == "move":
                with ledger.change([(CARA, name)], (there, flags)):
                    ok(client.uid("MOVE", uid, there))
                continue
            flag = "\\Flagged" if step == "flag" else "\\Deleted"
            with ledger.change([(CARA, name)], (here, flags | {flag})):
                ok(client.uid("STORE", uid, "+FLAGS", f"({flag})"))
            if step == "expunge":
                with ledger.change([(CARA, name)], None):
                    ok(client.uid("EXPUNGE", uid))


def use_pop3(lab: dict[str, Any], ledger: Ledger, chance: random.Random) -> None:
    """Dan gets some messages and deletes half of those he has with one QUIT."""
    with smtplib.SMTP(*lab["smtp"], local_hostname="client.example") as sender:
        for _ in range(4):
            send(sender, ledger, chance, [DAN])
    client = poplib.POP3.__new__(poplib.POP3)
    try:
        # Not its class called: where the constructor fails, its socket must be closed, too.
        client.__init__(*lab["pop3"], timeout=30)  # type: ignore[misc]
        client.user(DAN)
        client.pass_(PASSWORD)
        count = client.stat()[0]
        chosen = chance.sample(range(1, count + 1), count // 2)
        names = [id_in(b"\r\n".join(client.top(number, 0)[1])) for number in chosen]
        for number in chosen:
            client.dele(number)
        with ledger.change([(DAN, name) for name in names], None):
            client.quit()
    finally:
        # It has no socket yet where even the greeting didn't come.
        with contextlib.suppress(AttributeError):
            client.close()


@contextlib.contextmanager
def logged_in(lab: dict[str, Any], account: str) -> Iterator[imaplib.IMAP4]:
    client = imaplib.IMAP4(*lab["imap"], timeout=30)
    try:
        client.login(account, PASSWORD)
        yield client
    finally:
        client.shutdown()


def ok(answer: tuple[str, list[Any]]) -> list[Any]:
    assert answer[0] == "OK", answer
    return answer[1]


def header(client: imaplib.IMAP4, uid: str) -> str:
    data = ok(client.uid("FETCH", uid, "(BODY.PEEK[HEADER])"))
    return id_in(data[0][1])


def matched(pattern: bytes, octets: bytes) -> bytes:
    """What the pattern's group is in there; it has to be."""
    found = re.search(pattern, octets)
    assert found is not None, octets
    return found[1]


def id_in(octets: bytes) -> str:
    found = re.search(rb"^X-Id: (\w+)\r?$", octets, re.MULTILINE)
    return found[1].decode() if found else ""


# -- what is there after a restart


Found = dict[Key, list[tuple[Place, bool]]]
"""Where each message was found, and whether it was whole."""


def mail_in(lab: dict[str, Any], ledger: Ledger, *, everything: bool) -> Found:
    """All mail as IMAP tells of it; what only gathers in an inbox is read once, and at the end."""
    found: Found = defaultdict(list)
    for account in ACCOUNTS:
        with logged_in(lab, account) as client:
            client.create("Archive")
            for mailbox in ("INBOX", "Archive"):
                ok(client.select(mailbox, readonly=True))
                gathers = account in (ANA, BEN)
                first = ledger.seen[account, mailbox] + 1 if gathers and not everything else 1
                data = ok(client.uid("FETCH", f"{first}:*", "(UID FLAGS BODY.PEEK[])"))
                for about, octets in (item for item in data if isinstance(item, tuple)):
                    uid = int(matched(rb"UID (\d+)", about))
                    if uid < first:
                        continue  # `n:*` names the last message, too
                    ledger.seen[account, mailbox] = max(uid, ledger.seen[account, mailbox])
                    name = id_in(octets)
                    begin = octets.find(b"X-Id:")
                    digest = hashlib.sha256(octets[begin:]).digest()
                    whole = ledger.digests.get(name) == digest
                    words = matched(rb"FLAGS \(([^)]*)\)", about)
                    flags = frozenset(words.decode().split()) - {"\\Recent"}
                    found[account, name].append(((mailbox, flags), whole))
    return found


def compare(ledger: Ledger, found: Found, outcome: Outcome, everything: bool) -> None:
    """Count what isn't as the clients were told; then take things as they are."""

    def fault(kind: str, key: Key, text: str) -> None:
        setattr(outcome, kind, getattr(outcome, kind) + 1)
        outcome.faults.append(f"kill {outcome.kills}, {key[1]} of {key[0]}: {text}")

    for key, there in found.items():
        if key in ledger.resting and not everything:
            fault("duplicated", key, f"there once more: {there}")
        if not all(whole for _, whole in there) or key not in ledger.places:
            fault("half", key, "not as it was sent")
        if len(there) > 1:
            fault("duplicated", key, f"{len(there)} of it: {there}")
    for group in ledger.under_way:
        if len({key in found for key in group}) > 1:
            fault("half", min(group), f"only some of {sorted(group)} were changed")
    ledger.under_way.clear()
    for key, allowed in tuple(ledger.places.items()):
        if key in ledger.resting and not everything:
            continue
        place = found[key][0][0] if key in found else None
        if place not in allowed:
            fault("undone" if place else "lost", key, f"{place} and not {allowed}")
        if place is None:
            del ledger.places[key]
        else:
            ledger.places[key] = {place}
            if key[0] in (ANA, BEN):
                ledger.resting.add(key)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        last = 0.0

        def progress(outcome: Outcome) -> None:
            nonlocal last
            if time.monotonic() - last > 5:
                last = time.monotonic()
                print(outcome, flush=True)

        outcome = run(options.kills, options.seed, Path(folder), progress)
    print(*outcome.faults, outcome, sep="\n")
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
