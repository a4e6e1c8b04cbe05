"""The magics in a real IPython: what a reader types in a cell, and what comes of it."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

from labserver import Lab
from labserver.exercises.predict import Revealed
from labserver.lab import latest
from labserver.notebook.magics import LabMagics
from labserver.notebook.typed import Typed
from labserver.views.state import State


class Notebook:
    """Runs cells, as a notebook does."""

    def __init__(self, shell: InteractiveShell) -> None:
        self.names = shell.user_ns
        self._shell = shell

    def run(self, cell: str) -> object:
        """What the cell gives; or what it says on standard error, where it fails."""
        with capture_output() as said:
            done = self._shell.run_cell(cell)
        if done.success:
            return done.result
        return said.stderr.strip() or said.stdout


@pytest.fixture(scope="module")
def shell() -> InteractiveShell:
    made = InteractiveShell(config=Config(HistoryManager={"enabled": False}))
    made.register_magics(LabMagics)
    return made


@pytest.fixture
def notebook(shell: InteractiveShell, lab: Lab) -> Iterator[Notebook]:
    """A notebook with the lab in its variable `lab`."""
    shell.user_ns["lab"] = lab
    yield Notebook(shell)
    shell.user_ns.clear()
    shell.init_user_ns()  # what `reset` does, but for its slow collecting of garbage


def text(given: object) -> str:
    assert isinstance(given, Typed), given
    return str(given)


def test_a_cell_talks_to_the_lab(notebook: Notebook, lab: Lab) -> None:
    cell = (
        "%%smtp\nEHLO me.example\nMAIL FROM:<you@home.example>\nRCPT TO:<ben@lab.example>\n"
        "RCPT TO:<nobody@lab.example>\nDATA\nSubject: $HOME {lab}\n\nHello!\n.\nQUIT\n"
    )
    typed = notebook.run(cell)
    assert isinstance(typed, Typed)
    assert typed.session == lab.sessions[-1]
    assert "S: 550 5.1.1 <nobody@lab.example>: Recipient address rejected: " in text(typed)
    # Neither variables nor braces are filled in.
    assert lab.inbox("ben@lab.example")[0]["Subject"] == "$HOME {lab}"


@pytest.mark.parametrize(
    ("cell", "wanted"),
    [
        ("%%pop3 --login ben@lab.example\nSTAT\nQUIT", "S: +OK 0 0"),
        ("%%pop3 -l pop3s\nQUIT", "POP3 on pop3s\n-- TLS from here on --"),
        ("%%imap --login BEN@lab.example --tags\nSELECT INBOX\nLOGOUT", "S: * 0 EXISTS"),
        ("%%imap --tls\nx CAPABILITY\nx LOGOUT", "-- TLS from here on --"),
        ("%%smtp -l submission --login ana@lab.example\nQUIT", "S: 235 2.7.0"),
        ("%%smtp --login ana@lab.example\nQUIT", "SMTP on submission"),
        ("%%smtp --line-ends lf\nNOOP\nQUIT", "C: NOOP\\n"),
        ("%%smtp --line-ends cr --timeout 0.3\nNOOP", "yours ended with CR alone"),
        ("%%smtp --pipelined\nNOOP\nNOOP\nQUIT", "C: NOOP\nC: NOOP\nC: QUIT\nS: 250"),
    ],
)
def test_options(notebook: Notebook, cell: str, wanted: str) -> None:
    assert wanted in text(notebook.run(cell))


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("-l imap", "SMTP is spoken on smtp, submission, submissions, not on imap."),
        ("--login zoe@lab.example", "This lab has no account zoe@lab.example; it has ana@lab.exam"),
        ("--line-ends crcr", "Lines can end in crlf, lf, cr, not in crcr."),
        ("--timeout soon", "--timeout takes seconds, above 0 and up to 3600, not soon."),
        ("--timeout nan", "--timeout takes seconds, above 0 and up to 3600, not nan."),
        ("--lab mine", "mine is no lab; make one with mine = Lab()."),
        ("--tags", "unrecognized arguments: --tags"),
        ("--login", "argument --login: expected one argument"),
    ],
)
def test_a_mistake_in_the_options_is_one_sentence(
    notebook: Notebook, line: str, sentence: str, lab: Lab
) -> None:
    told = notebook.run(f"%%smtp {line}\nQUIT")
    assert str(told).startswith(f"UsageError: {sentence}")
    assert len(str(told).splitlines()) == 1
    assert lab.sessions == ()


@pytest.mark.process
def test_another_lab_can_be_named(notebook: Notebook) -> None:
    with Lab({"zoe@other.example": "secret"}) as other:
        notebook.names["other"] = other
        assert "S: 221" in text(notebook.run("%%smtp --lab other\nQUIT"))
        assert len(other.sessions) == 1


def test_without_the_variable_it_is_the_lab_made_last(notebook: Notebook, lab: Lab) -> None:
    del notebook.names["lab"]
    assert latest() is lab
    assert "S: 221" in text(notebook.run("%%smtp\nQUIT"))
    assert len(lab.sessions) == 1


def test_without_a_lab_or_with_a_closed_one_a_sentence_says_what_to_do(
    notebook: Notebook, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.close()
    closed = "UsageError: This lab is closed; make a new one with lab = Lab()."
    assert notebook.run("%%imap\nx LOGOUT") == closed
    assert notebook.run("%lab") == closed
    del notebook.names["lab"]
    monkeypatch.setattr("labserver.lab._latest", None)
    none = "UsageError: There is no lab yet; make one with lab = Lab()."
    assert notebook.run("%%imap\nx LOGOUT") == none
    assert notebook.run("%lab") == none


def test_lab_shows_the_lab(notebook: Notebook, lab: Lab) -> None:
    shown = notebook.run("%lab")
    assert isinstance(shown, State)
    assert "Sessions: none so far" in str(shown)
    assert str(lab.smtp.port) not in str(shown)
    assert str(lab.smtp.port) in str(notebook.run("%lab --ports"))
    assert "ben-lab-password" in str(notebook.run("%lab --passwords"))


PROGRAM = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell("from labserver import Lab")
shell.run_cell("lab = Lab()")
shell.run_cell("%%smtp\\nNOOP\\nQUIT")
typed = shell.user_ns["_"]
print(sorted(shell.display_formatter.format(typed)[0]))
shell.run_cell("lab.close()")
"""


@pytest.mark.process
def test_importing_labserver_in_ipython_brings_the_magics() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "C: NOOP\nS: 250 OK\nC: QUIT\n" in done.stdout
    assert done.stdout.splitlines()[-1] == "['text/html', 'text/plain']"


@pytest.mark.process
def test_the_cells_of_their_page_run(
    notebook: Notebook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LABSERVER_PROGRESS", str(tmp_path / "progress.json"))
    page = (Path(__file__).parents[1] / "book" / "in-a-notebook.md").read_text(encoding="utf-8")
    cells = re.findall(r"^( *)```(?:python|text)\n(.*?)^\1```$", page, re.M | re.S)
    assert len(cells) == 15
    given = [notebook.run(textwrap.dedent(cell)) for _, cell in cells]
    assert not [one for one in given if isinstance(one, str)], given
    typed = [one for one in given if isinstance(one, Typed)]
    assert [one.notes for one in typed] == [(), ()]
    revealed = [one for one in given if isinstance(one, Revealed)]
    assert [one.right for one in revealed] == [True, True, True]
    notebook.run("lab.close()")
