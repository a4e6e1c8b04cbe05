"""What `kit.py test` counts and says at its end."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import kit
from tests import checks
from tests.checks import Check, Outcome, Plan

pytestmark = pytest.mark.process

SUITE = """import pytest
def test_good(): pass
def test_bad(): assert False
@pytest.fixture
def broken(): raise ValueError
def test_error(broken): pass
@pytest.mark.skip(reason="swaks is not installed")
def test_left_out(): pass
@pytest.mark.xfail
def test_known(): assert False
"""


NOTHING = Plan([], [], [])


def outcome(name: str, passed: int, failed: int = 0, skipped: tuple[str, ...] = ()) -> Outcome:
    return Outcome(name, passed, failed, list(skipped), 1.0)


def test_pytest_run_is_counted_by_its_tests(tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    check = checks.pytest("suite", Path(sys.prefix), str(tmp_path), f"-c{tmp_path / 'pytest.ini'}")
    result = checks.run(check, tmp_path / "report.xml", None)
    assert (result.passed, result.failed, result.skipped) == (2, 2, ["swaks is not installed"])


def test_run_without_any_test_fails(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    check = checks.pytest("none", Path(sys.prefix), str(tmp_path), f"-c{tmp_path / 'pytest.ini'}")
    assert checks.run(check, tmp_path / "report.xml", None).failed == 1


@pytest.mark.parametrize(("code", "counted"), [(0, (1, 0)), (3, (0, 1))])
def test_other_check_counts_as_one(tmp_path: Path, code: int, counted: tuple[int, int]) -> None:
    check = Check("types", [sys.executable, "-c", f"raise SystemExit({code})"])
    result = checks.run(check, tmp_path / "report.xml", None)
    assert (result.passed, result.failed) == counted


def test_failed_check_shows_what_it_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for code in (0, 1):
        check = Check("lint", [sys.executable, "-c", f"print('said {code}'); exit({code})"])
        checks.run(check, tmp_path / "report.xml", None)
    shown = capsys.readouterr().out
    assert "said 1" in shown
    assert "said 0" not in shown


def test_check_knows_its_network_and_none_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABSERVER_NETWORK", "the user's own")
    ask = "import os, sys; sys.exit(os.environ.get('LABSERVER_NETWORK') != {!r})"
    for network in (None, "inline"):
        command = [sys.executable, "-c", ask.format(network)]
        assert checks.run(Check("ask", command, network=network), tmp_path / "r", None).passed == 1


def test_outputs_are_in_normal_form_only_where_they_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABSERVER_OUTPUT", "the user's own")
    ask = "import os, sys; sys.exit(os.environ.get('LABSERVER_OUTPUT') != {!r})"
    for network, form in ((None, None), ("inline", "normal"), ("loopback", "normal")):
        command = [sys.executable, "-c", ask.format(form)]
        assert checks.run(Check("ask", command, network=network), tmp_path / "r", None).passed == 1
    assert all(check.network for check in checks.lesson_checks(kit.VENV, kit.THIS_PYTHON))


def test_summary_names_what_was_left_out_and_ends_with_the_totals() -> None:
    skipped = ("curl is not installed", "curl is not installed")
    results = [outcome("tests", 5, skipped=skipped), outcome("book", 1)]
    text, code = checks.summary(results, Plan([], [("Python 3.12", "not here")], []), False, 61.2)
    assert "tests: curl is not installed (2 x)" in text
    assert "Python 3.12: not here (1 x)" in text
    assert text.splitlines()[-1] == "6 passed, 0 failed, 3 skipped"
    assert code == 0


def test_left_out_check_fails_under_all() -> None:
    text, code = checks.summary([outcome("tests", 5, skipped=("no curl",))], NOTHING, True, 1.0)
    assert text.splitlines()[-1] == "5 passed, 1 failed, 0 skipped"
    assert code == 1
    assert checks.summary([outcome("tests", 5)], NOTHING, True, 1.0)[1] == 0


def test_failed_check_fails_the_whole() -> None:
    text, code = checks.summary([outcome("tests", 5, failed=1)], NOTHING, False, 1.0)
    assert text.splitlines()[-1] == "5 passed, 1 failed, 0 skipped"
    assert code == 1


def test_every_supported_python_is_looked_for() -> None:
    assert checks.PYTHONS == ["3.11", "3.12", "3.13", "3.14"]
    assert checks.find_python("3.99") is None
    assert Path(checks.find_python(kit.THIS_PYTHON) or "").exists()


def test_a_python_that_few_systems_bring_is_a_remark_and_no_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    missing = "3.14" if kit.THIS_PYTHON != "3.14" else "3.13"
    monkeypatch.setattr(checks, "PYTHONS", [missing])
    monkeypatch.setattr(checks, "WELCOME", [missing])
    monkeypatch.setattr(checks, "find_python", lambda version: None)
    plan = checks.all_checks()
    assert plan.left_out == []
    text, code = checks.summary([outcome("tests", 5)], plan, True, 1.0)
    assert f"Python {missing} is supported but not on this machine." in text
    assert text.splitlines()[-1] == "5 passed, 0 failed, 0 skipped"
    assert code == 0
    monkeypatch.setattr(checks, "WELCOME", [])
    assert checks.all_checks().left_out[0][0] == f"Python {missing}"


QUICK = """import socket, subprocess, sys
import pytest
def test_in_this_process(): pass
def test_that_starts_a_program():
    subprocess.run([sys.executable, "-c", ""])
def test_that_opens_a_port():
    socket.create_server(("127.0.0.1", 0))
@pytest.mark.process
def test_that_says_so(): subprocess.run([sys.executable, "-c", ""], check=True)
@pytest.fixture(params=["loopback", "inline"])
def network(request): return request.param
def test_over_both(network): assert network == "inline"
"""


def test_a_quick_test_can_start_no_process(tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(QUICK, encoding="utf-8")
    settings = f"[pytest]\npythonpath = {kit.ROOT}\nmarkers = process: starts something\n"
    (tmp_path / "pytest.ini").write_text(settings, encoding="utf-8")
    arguments = [str(tmp_path), f"-c{tmp_path / 'pytest.ini'}", "-ptests.conftest", "--quick"]
    arguments += ["-pno:timeout", "-pno:xdist", "-rf"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    run = subprocess.run(command, cwd=kit.ROOT, capture_output=True, encoding="utf-8", check=False)
    assert "2 failed, 2 passed, 2 deselected" in run.stdout, run.stdout
    assert run.stdout.count("mark the test `process`") >= 2


# Waiting for something until a deadline isn't judging how long it took.
CLOCK = re.compile(r"(process_time|perf_counter|monotonic|time\.time)(_ns)?\(\)")
JUDGED = re.compile(rf"assert\b[^\n]*({CLOCK.pattern}[^\n]*[-<>]|[-<>][^\n]*{CLOCK.pattern})")
UNTIL = re.compile(r"assert time\.monotonic\(\) < (deadline|until)")


def judged(source: str) -> list[str]:
    """Lines that compare how long something took, directly or by a name for it."""
    names = set(re.findall(rf"(?m)^\s*(\w+) = [^\n]*{CLOCK.pattern} - ", source))
    names = {name[0] if isinstance(name, tuple) else name for name in names}
    found = []
    for line in source.splitlines():
        by_name = any(
            re.search(rf"assert\b.*\b{name}\b.*[<>]|assert.*[<>].*\b{name}\b", line)
            for name in names
        )
        if (JUDGED.search(line) and not UNTIL.search(line)) or by_name:
            found.append(line.strip())
    return found


FILES = [f for f in sorted(Path(__file__).parent.rglob("*.py")) if f != Path(__file__)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_test_judges_a_time(file: Path) -> None:
    assert judged(file.read_text(encoding="utf-8")) == []


def test_a_judged_time_is_found() -> None:
    assert judged("    assert time.process_time() - began < 2")
    assert judged("    assert 3 > time.monotonic() - began")
    assert judged("took = time.perf_counter() - began\nassert took < 1, 'slow'")
    assert not judged("while time.monotonic() < until:")
    assert not judged("    assert time.monotonic() < deadline")
