"""The benchmarks' own logic, on small real runs: no time that is measured here is judged."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import kit
from benchmarks import bench, learners, load, machine, memory, peers, profiling, retrieval, startup
from benchmarks.learners import Learners
from benchmarks.load import Workload
from benchmarks.machine import Machine, Sync
from benchmarks.memory import Memory, Restart
from benchmarks.pairs import Comparison, Pair, run_pair
from benchmarks.peers import Command, Missing, Peer
from benchmarks.profiling import Profile
from benchmarks.report import Results, page, table, targets
from benchmarks.startup import Startup

pytestmark = pytest.mark.process

# The first to need it waits for what is fetched.
real = [pytest.mark.realclient, pytest.mark.timeout(300)]

FEW = Workload(connections=2, kept=True, octets=2000)
BROKEN = Peer(
    "broken", "nothing", "0", lambda folder: Command([sys.executable, "-c", "exit('no')"])
)


def quiet(what: str) -> None:
    """Progress that nobody looks at."""


def had(have: Callable[[], Peer]) -> Peer:
    """The peer, or skip where this machine hasn't got it."""
    try:
        load.smtp_source()
        return have()
    except Missing as error:
        pytest.skip(str(error))


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path is short enough for Dovecot's sockets."""
    with peers.workplace(bench.KEPT) as folder:
        yield folder


# --- real runs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["this server", *peers.PEERS])
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "new"])
class TestEachServer:
    pytestmark = real

    def test_takes_messages_and_is_ended(self, name: str, kept: bool, tmp_path: Path) -> None:
        have = peers.PEERS.get(name, lambda _: peers.lab())
        peer = had(lambda: have(bench.KEPT))
        with peers.started(peer, tmp_path) as server:
            assert peer.name == name
            assert re.match(r"\d", peer.version)
            assert peers.greeting(server.smtp).startswith(b"220")
            assert load.send(server.smtp, replace(FEW, kept=kept), 10) > 0
            assert server.process.poll() is None
        assert server.process.poll() is not None
        assert server.process not in kit.RUNNING
        with pytest.raises(OSError, match="refused"):
            peers.greeting(server.smtp)


@pytest.mark.realclient
@pytest.mark.timeout(300)
def test_runs_are_compared_in_pairs_and_a_broken_peer_is_named(tmp_path: Path) -> None:
    other = had(lambda: peers.bare_aiosmtpd(bench.KEPT))
    good, bad = load.compare(FEW, [other, BROKEN], tmp_path, pairs=2, seconds=0.05, progress=quiet)
    assert (good.workload, good.peer, good.failure) == (str(FEW), other.name, "")
    assert len(good.pairs) == 2
    assert all(pair.ours > 0 and pair.theirs > 0 for pair in good.pairs)
    assert (bad.peer, bad.pairs, bad.failure) == ("broken", (), "it doesn't start: no")
    assert not kit.RUNNING


@pytest.mark.realclient
def test_a_message_that_is_refused_is_no_result(tmp_path: Path) -> None:
    had(peers.lab)
    with peers.started(peers.lab(), tmp_path) as server:
        too_large = Workload(1, True, 40 * 1024 * 1024)
        with pytest.raises(load.LoadError, match="552"):
            load.send(server.smtp, too_large, 1)


@pytest.mark.realclient
def test_reading_is_compared_with_dovecot(short_path: Path) -> None:
    had(peers.dovecot)
    found = retrieval.compare(short_path, pairs=1, progress=quiet, messages=5)
    assert [one.workload for one in found] == list(retrieval.WAYS)
    assert all(one.pairs[0].ours > 0 and one.pairs[0].theirs > 0 for one in found)
    assert not kit.RUNNING


def test_messages_to_read_have_the_same_size() -> None:
    assert {len(retrieval.message(number)) for number in (0, 9, 999)} == {retrieval.OCTETS}


def test_learners_all_read_what_they_sent(tmp_path: Path) -> None:
    result = learners.measure(tmp_path, 20)
    assert (result.connected, len(result.seconds), result.failures) == (20, 20, {})
    assert 0 < result.quantile(0.5) <= result.quantile(0.95) <= max(result.seconds)


@pytest.mark.realclient
def test_memory_is_looked_at_and_the_mail_is_there_after_a_restart(tmp_path: Path) -> None:
    had(peers.lab)
    result = memory.measure(tmp_path, progress=quiet, marks=(20, 60), sessions=80)
    assert result.restart.messages == 60
    assert 0 < result.restart.ready < result.restart.greeted
    if sys.platform == "linux":
        assert [sent for sent, _ in result.marks] == [20, 60]
        assert all(octets > 10_000_000 for _, octets in result.marks)
        assert result.session is not None


@pytest.mark.realclient
@pytest.mark.parametrize("workload", [FEW, replace(FEW, kept=False)], ids=str)
def test_a_profile_tells_where_the_time_goes(workload: Workload, tmp_path: Path) -> None:
    had(peers.lab)
    profile = profiling.measure(tmp_path, workload, 0.1)
    assert sum(profile.shares.values()) == pytest.approx(1)
    assert 0 < profile.commits <= profile.messages
    assert {profiling.COMMIT, "recording every byte", "asyncio"} <= profile.shares.keys()
    assert 0 <= profile.waiting < 1


def test_starts_are_timed_in_processes_of_their_own(tmp_path: Path) -> None:
    result = startup.measure(tmp_path, progress=quiet, runs=1)
    assert min(result.imported, result.new, result.again) > 0


def test_the_machine_and_its_disk_are_named(tmp_path: Path) -> None:
    found = machine.look(tmp_path)
    assert {"processor", "memory", "system", "Python"} <= found.facts.keys()
    assert 0 < found.sync.median <= found.sync.slow


# --- nothing is left ----------------------------------------------------------------------------


def test_a_server_is_ended_when_its_user_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), peers.started(peers.lab(), tmp_path) as server:
        raise KeyboardInterrupt
    assert server.process.returncode is not None
    assert not kit.RUNNING


def test_a_server_that_does_not_start_is_ended_and_quoted(tmp_path: Path) -> None:
    with pytest.raises(Missing, match="it doesn't start: no"), peers.started(BROKEN, tmp_path):
        pass
    assert not kit.RUNNING


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to catch")
def test_an_interrupted_run_leaves_no_process_and_no_folder() -> None:
    before = set(bench.KEPT.glob("run-*"))
    run = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.bench", "--only", "startup"],
        cwd=kit.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    assert run.stderr is not None
    assert "start of a lab" in run.stderr.readline()
    run.send_signal(signal.SIGTERM)
    out, _ = run.communicate(timeout=60)
    assert (run.returncode, out) == (130, "")
    assert set(bench.KEPT.glob("run-*")) == before


def test_what_is_fetched_is_pinned_and_names_no_host() -> None:
    lock = (peers.SERVERS / "package-lock.json").read_text(encoding="utf-8")
    assert '"resolved"' not in lock
    assert "://" not in lock
    wanted = (peers.SERVERS / "requirements-sendria.txt").read_text(encoding="utf-8")
    rows = [row for row in wanted.splitlines() if not row.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", row) for row in rows)


# --- what is missing is named -------------------------------------------------------------------


def test_a_missing_program_is_named_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for have in (peers.smtp_server, peers.maildev):
        with pytest.raises(Missing, match="no Node with npm: install"):
            have(tmp_path)
    with pytest.raises(Missing, match="sudo apt install some-package"):
        peers.debian_program("no-such-program", "some-package")


def test_a_failing_fetch_is_told_and_tried_again(tmp_path: Path) -> None:
    def fetch(code: int) -> Callable[[Path], list[str]]:
        program = f"import sys; print('pip says no', file=sys.stderr); sys.exit({code})"
        return lambda folder: [sys.executable, "-c", program]

    with pytest.raises(Missing, match="it can't be installed: pip says no"):
        peers.fetched("thing", tmp_path, [], fetch(1))
    folder = peers.fetched("thing", tmp_path, [], fetch(0))
    assert peers.fetched("thing", tmp_path, [], fetch(1)) == folder


def test_missing_peers_are_on_the_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def nowhere(kept: Path) -> Peer:
        raise Missing("there is no such thing")

    monkeypatch.setattr(peers, "PEERS", {"aiosmtpd": peers.bare_aiosmtpd, "Elsewhere": nowhere})
    found, missing = peers.find(tmp_path)
    assert [peer.name for peer in found] == ["aiosmtpd, Sink handler"]
    assert "Elsewhere was not measured: there is no such thing." in page(Results(missing=missing))


# --- the page -----------------------------------------------------------------------------------

MAIN = str(load.MAIN)


def compared(peer: str, *ratios: float, workload: str = MAIN) -> Comparison:
    return Comparison(workload, peer, tuple(Pair(1000 * ratio, 1000) for ratio in ratios))


def full(**changes: Any) -> Results:
    """Results in which everything is reached."""
    results = Results(
        machine=Machine({"processor": "Z80"}, Sync("fdatasync", 0.0006, 0.004)),
        servers=[Peer("aiosmtpd", "discards", "1.4.6", lambda folder: Command([]))],
        smtp=[compared("aiosmtpd, Sink handler", 0.9, 1.02, 1.3), compared("MailDev", 2.5)],
        retrieval=[compared("Dovecot", 0.5, workload="POP3")],
        profiles=[Profile(MAIN, 100, 20, {"asyncio": 0.75, "logging": 0.25}, 0.1)],
        startup=Startup(10, 0.1, 0.149, 0.01),
        learners=Learners(2, 2, (0.25, 0.75), {}),
        memory=Memory(((10, 1_000_000), (20, 1_090_000)), 30_000.0, Restart(20, 0.5, 1.9, 0.01)),
        quick_tests=59.0,
    )
    return replace(results, **changes)


def test_the_page_tells_everything_ratios_first() -> None:
    text = page(full())
    titles = re.findall(r"^## (.*)", text, re.MULTILINE)
    assert titles == [
        "Ratios",
        "Targets",
        "Rates",
        "Where the time goes",
        "Starting, learners, memory",
        "Machine and versions",
    ]
    assert f"| {MAIN} | **1.02** (0.90 to 1.30) | **2.50** (2.50 to 2.50) |" in text
    assert f"| {MAIN} | 1,020 / 1,000 | 2,500 / 1,000 |" in text
    assert "5.0 messages a commit" in text
    assert "| asyncio | 75% |" in text
    assert "95 % within 0.72 s. Nothing failed." in text
    assert "Memory for 1,000 more stored messages: 9.00 MB." in text
    assert "median 0.60 ms, one in twenty above 4.00 ms" in text
    assert "| aiosmtpd | 1.4.6; discards |" in text


def test_targets_are_judged_by_what_was_measured() -> None:
    assert [one.reached for one in targets(full())] == [True] * 8
    slow = full(
        smtp=[compared("aiosmtpd, Sink handler", 0.99), compared("MailDev", 1.9)],
        retrieval=[compared("Dovecot", 0.49)],
        startup=Startup(10, 0.1, 0.151, 0.01),
        learners=Learners(2, 2, (0.25,), {"ValueError: 421 busy": 1}),
        memory=Memory(((10, 1_000_000), (20, 1_200_000)), None, Restart(20, 0.5, 2.1, 0.01)),
        quick_tests=61.0,
    )
    assert [one.reached for one in targets(slow)] == [False] * 8
    assert page(slow).count("**not reached**") == 8
    assert "What failed: ValueError: 421 busy (1 x)." in page(slow)


def test_what_was_not_measured_is_not_judged() -> None:
    assert targets(Results()) == []
    assert targets(full(smtp=[Comparison(MAIN, "MailDev", failure="it hangs up")]))[0].wanted != ""
    text = page(Results(smtp=[Comparison(MAIN, "MailDev", failure="it hangs up")]))
    assert f"| {MAIN} | failed |" in text
    assert "MailDev failed: it hangs up." in text
    nothing_told = full(memory=Memory((), None, Restart(20, 0.5, 1.9, 0.01)))
    assert "can't be told on this system" in page(nothing_told)


def test_a_table_keeps_what_would_break_it() -> None:
    assert table([["a", "b"], ["1 | 2", "3"]]) == "| a | b |\n| --- | --- |\n| 1 \\| 2 | 3 |"


def test_who_is_first_changes_from_pair_to_pair() -> None:
    order: list[str] = []

    def one(name: str, rate: float) -> Callable[[], float]:
        return lambda: order.append(name) or rate  # type: ignore[func-returns-value]

    pairs = [run_pair(turn, one("ours", 3.0), one("theirs", 2.0)) for turn in range(2)]
    assert pairs == [Pair(3.0, 2.0)] * 2
    assert order == ["ours", "theirs", "theirs", "ours"]
    assert pairs[0].ratio == 1.5


def test_a_profile_counts_a_built_in_where_its_caller_belongs() -> None:
    commit = ("/x/labserver/store.py", 1, "_transaction")
    insert = ("/x/labserver/store.py", 2, "_insert")
    parser = ("/x/aiosmtpd/smtp.py", 3, "smtp_MAIL")
    functions: dict[profiling.Function, object] = {
        commit: (1, 1, 0.5, 9.0, {}),
        parser: (1, 1, 0.25, 9.0, {}),
        ("~", 0, "<method 'execute' of 'sqlite3.Connection' objects>"): (
            *(2, 2, 5.0, 5.0),
            {commit: (1, 1, 4.0, 4.0), insert: (1, 1, 1.0, 1.0)},
        ),
        ("~", 0, "<built-in method builtins.len>"): (1, 1, 2.0, 2.0, {insert: (1, 1, 2.0, 2.0)}),
        ("~", 0, "<method 'poll' of 'select.epoll' objects>"): (1, 1, 7.0, 7.0, {}),
    }
    assert profiling.group(functions) == {
        profiling.COMMIT: 4.0,
        "SQLite's statements": 1.0,
        "the store's Python": 2.5,
        "SMTP in aiosmtpd": 0.25,
        profiling.WAITING: 7.0,
    }
