"""The process that reads hostile content for the page."""

from __future__ import annotations

import contextlib
import os
import re
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from labserver.web import child as child_module
from labserver.web.child import Child, Unread

pytestmark = pytest.mark.process

FOREVER = (re.fullmatch, "(a+)+b", "a" * 99)
"""Holds the interpreter, so that nothing within the process can end it."""


@pytest.fixture
def child() -> Iterator[Child]:
    with contextlib.closing(Child()) as made:
        yield made


def number(child: Child) -> int:
    """The process that answers."""
    return child.ask(os.getpid)


def gone(process: int) -> bool:
    """Whether no such process is left, not even as a zombie."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


def test_one_process_answers_all_questions(child: Child) -> None:
    assert child.ask(divmod, 7, 2) == (3, 1)
    assert child.ask(bytes, 1000) == bytes(1000)
    assert number(child) == number(child) != os.getpid()


def test_what_a_question_may_raise_is_raised_here(child: Child) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        child.ask(int, "x")
    with pytest.raises(IndexError):
        child.ask([].pop)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        child.ask(divmod, 1, 0)
    assert child.ask(abs, -1) == 1


def test_only_plain_data_comes_back(child: Child) -> None:
    for function, argument in ((re.compile, "x"), (Path, "x"), (__import__, "os")):
        with pytest.raises(Exception, match=r"plain data|can't|cannot"):
            child.ask(function, argument)
    assert child.ask(abs, -1) == 1


@pytest.mark.skipif(os.name != "posix", reason="Windows knows no limit of processor time")
def test_what_takes_too_much_processor_time_is_ended(
    child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_module, "SECONDS", 1000)
    monkeypatch.setattr(child_module, "PROCESSOR_SECONDS", 1)
    first = number(child)
    with pytest.raises(Unread, match="takes too long to read"):
        child.ask(*FOREVER)
    assert gone(first)
    assert child.ask(abs, -1) == 1


def test_what_takes_too_long_is_ended(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    first = number(child)
    monkeypatch.setattr(child_module, "SECONDS", 0.2)
    with pytest.raises(Unread, match="takes too long to read"):
        child.ask(*FOREVER)
    monkeypatch.undo()
    assert gone(first)
    assert child.ask(abs, -1) == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux keeps the limit")
@pytest.mark.parametrize("octets", [2 * 1024**3, 2**40])
def test_what_takes_too_much_memory_is_ended(child: Child, octets: int) -> None:
    with pytest.raises(Unread, match="takes too much memory to read"):
        child.ask(bytes, octets)
    assert child.ask(abs, -1) == 1


def test_an_answer_has_a_bound(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "_MOST_ANSWER_OCTETS", 10_000)
    assert len(child.ask(bytes, 9_000)) == 9_000
    with pytest.raises(Unread, match="takes too much memory to read"):
        child.ask(bytes, 100_000)
    assert len(child.ask(bytes, 9_000)) == 9_000


def test_one_that_has_died_is_replaced(child: Child) -> None:
    first = number(child)
    with pytest.raises(Unread):
        child.ask(os._exit, 3)
    assert gone(first)
    assert number(child) != first


def test_closing_ends_it_whatever_it_does(child: Child) -> None:
    process = number(child)
    raised: list[BaseException] = []

    def ask() -> None:
        try:
            child.ask(*FOREVER)
        except Unread as error:
            raised.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    child.close()
    asking.join()
    child.close()
    assert gone(process)
    assert "the page is closed" in str(raised[0])
    with pytest.raises(Unread, match="the page is closed"):
        child.ask(abs, -1)


def test_one_that_was_never_asked_is_closed_as_well() -> None:
    Child().close()


def test_it_does_without_the_folder_where_the_lab_was_started(tmp_path: Path) -> None:
    for name in ("email", "json", "pickle", "labserver"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(9)", encoding="utf-8")
    code = f"import sys; sys.path[:] = {[p for p in sys.path if p]!r}\n"
    code += "from labserver.web.child import Child\nc = Child('labserver.web.reading')\n"
    code += "sys.path.insert(0, '')\nprint(c.ask(abs, -5))\nc.close()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("5\n", "")


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for a process as Linux does")
def test_a_script_needs_no_guard_and_leaves_nothing_even_if_it_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, re\nfrom labserver.web.child import Child\nprint('once', flush=True)\n"
        "child = Child()\nprint(child.ask(os.getpid), flush=True)\nos.kill(os.getpid(), 9)",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    once, process = done.stdout.split()
    assert (once, done.stderr) == ("once", "")
    with contextlib.suppress(ProcessLookupError):
        ended = os.pidfd_open(int(process))
        assert select.select([ended], [], [], 60)[0]
        os.close(ended)
