"""The lessons as they are stored. That their outputs are true is nbval's to say."""

from __future__ import annotations

import ast
import base64
import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from labserver import ACCOUNTS
from tests.normal_form import normal_form, read

ROOT = Path(__file__).parents[1]
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SEED = (ROOT / "tests" / "data" / "seed-smtp-and-google.txt").read_text(encoding="utf-8")

MOST_LINES, MOST_COLUMNS = 30, 100
NEEDS = {  # what a lab can't do everywhere, and how a cell gives away that it wants it
    "tls": r"lab\.(tls|ca|submissions?|pop3s|imaps)\b|starttls|stls|_SSL\b",
    "threads": r"\bthreading\b|\bconcurrent\b",
    "sockets": r"\bsubprocess\b|\bsocket\.",
}

Notebook = dict[str, Any]


@pytest.fixture(params=LESSONS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    lesson: Path = request.param
    return lesson


@pytest.fixture
def lesson(path: Path) -> Notebook:
    return read(path)


def cells(lesson: Notebook, kind: str) -> list[dict[str, Any]]:
    return [cell for cell in lesson["cells"] if cell["cell_type"] == kind]


def sources(lesson: Notebook, kind: str) -> list[str]:
    return ["".join(cell["source"]) for cell in cells(lesson, kind)]


def outputs(lesson: Notebook) -> list[dict[str, Any]]:
    return [output for cell in cells(lesson, "code") for output in cell["outputs"]]


def shown(output: dict[str, Any]) -> str:
    """All text of an output, whatever its form."""
    forms = {kind: text for kind, text in output.get("data", {}).items() if kind != "image/png"}
    return "".join(itertools.chain(output.get("text", []), *forms.values()))


def solutions(markdown: str) -> list[str]:
    """The programs in the folded parts of a markdown cell."""
    folded = re.findall(r"<details>.*?</details>", markdown, re.DOTALL)
    return [code for part in folded for code in re.findall(r"```python\n(.*?)```", part, re.DOTALL)]


def test_the_book_has_every_lesson_in_order() -> None:
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    files = [chapter["file"] for part in contents["parts"] for chapter in part["chapters"]]
    assert LESSONS
    assert [file for file in files if file.startswith("notebooks/")] == [
        f"notebooks/{path.stem}" for path in LESSONS
    ]


def test_opens_with_what_one_will_be_able_to_do_and_how_long_it_takes(lesson: Notebook) -> None:
    front = sources(lesson, "markdown")[0]
    assert lesson["cells"][0]["cell_type"] == "markdown"
    assert re.match(r"# \S", front)
    goals = re.search(r"^## What you will be able to do\n\n(?P<list>.*?)\n\n", front, re.M | re.S)
    assert goals
    assert 3 <= len(re.findall(r"^- \S", goals["list"], re.MULTILINE)) <= 4
    assert re.search(r"^\*\*Takes about \d+ minutes\.\*\* For ", front, re.MULTILINE)
    assert "**Nothing leaves this machine.**" in front


def test_ends_with_key_points_and_where_to_go_next(lesson: Notebook) -> None:
    end = sources(lesson, "markdown")[-1]
    assert re.search(r"^## Key points\n\n(- .*\n(  .*\n)*){3,5}\n## Where to go next\n", end)
    assert "(../book/smtp-and-google.md)" in end


def test_the_lab_is_closed_at_the_end(lesson: Notebook) -> None:
    assert sources(lesson, "code")[-1] == "lab.close()"


def test_is_stored_in_normal_form(lesson: Notebook) -> None:
    assert normal_form(lesson) == lesson


def test_what_a_cell_printed_or_ended_in_is_stored(lesson: Notebook) -> None:
    for cell in cells(lesson, "code"):
        body = ast.parse("".join(cell["source"])).body
        done = [row for row in body if not isinstance(row, ast.FunctionDef | ast.ClassDef)]
        called = [
            ast.unparse(node.func)
            for node in itertools.chain.from_iterable(map(ast.walk, done))
            if isinstance(node, ast.Call)
        ]
        last = done[-1] if done else None
        value = isinstance(last, ast.Expr) and not isinstance(last.value, ast.Call)
        assert cell["outputs"] or not (value or "print" in called), cell["id"]


def test_no_output_is_an_error(lesson: Notebook) -> None:
    assert "error" not in {output["output_type"] for output in outputs(lesson)}


def test_outputs_hold_nothing_of_a_widget(lesson: Notebook) -> None:
    assert "widgets" not in lesson["metadata"]
    kinds = {kind for output in outputs(lesson) for kind in output.get("data", {})}
    assert not [kind for kind in kinds if "widget" in kind]


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        ("port", r"127\.0\.0\.1\W{1,4}\d{2,5}|localhost:\d"),
        ("time", r"\b\d{1,2}:\d\d:\d\d\b|\b20\d\d-\d\d-\d\d|<time[^>]*>[^<]"),
        ("path", r"(?<![\w<.:/])/(home|root|tmp|usr|var|Users|work)\b|[A-Z]:\\|site-packages"),
        ("address of an object", r"\b0x[0-9a-f]{6,}"),
    ],
)
def test_outputs_hold_nothing_of_one_machine_or_moment(
    lesson: Notebook, what: str, pattern: str
) -> None:
    for output in outputs(lesson):
        assert not re.search(pattern, shown(output)), what


def test_outputs_hold_no_password(lesson: Notebook) -> None:
    secrets = list(ACCOUNTS.values())
    for address, password in ACCOUNTS.items():
        for plain in (f"\0{address}\0{password}", password):  # AUTH PLAIN, AUTH LOGIN
            secrets.append(base64.b64encode(plain.encode()).decode())
    for output in outputs(lesson):
        assert not [secret for secret in secrets if secret in shown(output)]


def test_code_cells_are_small(lesson: Notebook) -> None:
    for source in sources(lesson, "code"):
        lines = source.splitlines()
        assert len(lines) <= MOST_LINES, source
        assert max(map(len, lines)) <= MOST_COLUMNS, source


@pytest.mark.parametrize("ability", NEEDS)
def test_a_cell_that_not_every_lab_can_run_asks_first(lesson: Notebook, ability: str) -> None:
    for source in sources(lesson, "code"):
        assert not re.search(NEEDS[ability], source) or f"lab.can.{ability}" in source, source


def test_a_citation_leads_to_the_section_it_names(lesson: Notebook) -> None:
    for source in sources(lesson, "markdown"):
        for rfc, section, address in re.findall(
            r"\[RFC (\d+)(?: §([\d.]+))?[^\]]*\]\(([^)]*)\)", source
        ):
            anchor = f"#section-{section}" if section else ""
            assert address == f"https://www.rfc-editor.org/rfc/rfc{rfc}{anchor}"


def test_the_older_help_page_is_quoted_as_it_was(lesson: Notebook) -> None:
    page = straight(SEED)
    for source in sources(lesson, "markdown"):
        for block in re.findall(
            r"^> \*\*The older help page says:\*\*(.*(?:\n> .*)*)", source, re.M
        ):
            quotes = re.findall('"([^"]+)"', straight(block.replace("\n> ", " ")))
            assert quotes
            assert [quote for quote in quotes if quote not in page] == []


def straight(text: str) -> str:
    """With one kind of quotation mark within, and single spaces."""
    return " ".join(
        re.sub("[\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}]", "'", text).split()
    )


def test_pictures_are_there_and_described(path: Path, lesson: Notebook) -> None:
    for source in sources(lesson, "markdown"):
        for words, picture in re.findall(r"!\[([^\]]*)\]\(([^)]*)\)", source):
            assert (path.parent / picture).is_file()
            assert len(words.split()) >= 5
    for cell in cells(lesson, "code"):
        drawn = any("image/png" in output.get("data", {}) for output in cell["outputs"])
        words = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
        assert not drawn or len(words.split()) >= 5


def test_the_solutions_work(lesson: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABSERVER_NETWORK", "inline")
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict[str, Any] = {"__name__": "lesson"}
    solved = 0
    for cell in lesson["cells"]:
        source = "".join(cell["source"])
        programs = [source] if cell["cell_type"] == "code" else solutions(source)
        for program in programs:
            exec(compile(program, cell["id"], "exec"), names)
        solved += len(programs) if cell["cell_type"] == "markdown" else 0
    assert solved
