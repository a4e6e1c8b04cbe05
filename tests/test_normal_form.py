"""The form in which lessons are stored. That they are stored so is test_notebooks.py's to say."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.normal_form import normal_form, read, write


def code_cell(*outputs: dict[str, Any], **more: Any) -> dict[str, Any]:
    cell = {"cell_type": "code", "id": "a1", "metadata": {}, "source": "x", "execution_count": 7}
    return cell | {"outputs": list(outputs)} | more


def notebook(*cells: dict[str, Any]) -> dict[str, Any]:
    metadata = {
        "language_info": {"name": "python", "version": "3.11.7"},
        "widgets": {"state": {}},
        "title": "Kept",
    }
    return {"cells": list(cells), "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def stored_output(output: dict[str, Any]) -> dict[str, Any]:
    return normal_form(notebook(code_cell(output)))["cells"][0]["outputs"][0]


def test_nothing_of_the_run_or_its_python_is_kept() -> None:
    cell = code_cell(metadata={"execution": {"iopub.status.busy": "2026"}, "tags": ["kept"]})
    result = normal_form(notebook(cell))
    assert result["cells"][0]["metadata"] == {"tags": ["kept"]}
    assert result["metadata"]["title"] == "Kept"
    assert "widgets" not in result["metadata"]
    assert "version" not in result["metadata"]["language_info"]
    assert result["metadata"]["kernelspec"]["name"] == "python3"


def test_code_cells_are_counted_from_one() -> None:
    value = {"output_type": "execute_result", "execution_count": 7, "data": {}, "metadata": {}}
    text = {"cell_type": "markdown", "id": "b1", "metadata": {}, "source": "# A"}
    cells = normal_form(notebook(code_cell(), text, code_cell(value)))["cells"]
    assert [cell.get("execution_count") for cell in cells] == [1, None, 2]
    assert cells[2]["outputs"][0]["execution_count"] == 2
    assert [cell["id"] for cell in cells] == ["a1", "b1", "a1"]


@pytest.mark.parametrize(
    ("printed", "stored"),
    [
        ("220 at 127.0.0.1:40123\n", "220 at 127.0.0.1:PORT\n"),
        ("('127.0.0.1', 40123)", "('127.0.0.1', PORT)"),
        ("<Lab at 0x7f0012345678>", "<Lab at ADDR>"),
        ("250 2.0.0 OK", "250 2.0.0 OK"),
    ],
)
def test_printed_text_follows_the_rules_of_nbval(printed: str, stored: str) -> None:
    assert (
        stored_output({"output_type": "stream", "name": "stdout", "text": printed})["text"]
        == stored
    )
    lines = printed.splitlines(keepends=True)
    as_lines = stored_output({"output_type": "stream", "name": "stdout", "text": lines})
    assert as_lines["text"] == stored.splitlines(keepends=True)


def test_html_follows_the_same_rules() -> None:
    html = "<td><time></time></td><td>220 at 127.0.0.1:40123</td>"
    data = stored_output({"output_type": "display_data", "data": {"text/html": html}})["data"]
    assert data["text/html"] == "<td><time></time></td><td>220 at 127.0.0.1:PORT</td>"


def test_error_names_no_file_of_this_machine() -> None:
    error = {"output_type": "error", "ename": "SMTPException", "evalue": "no"}
    stored = stored_output(error | {"traceback": ["File somebody/smtplib.py", "SMTPException: no"]})
    assert stored["traceback"] == ["SMTPException: no"]


def test_widget_keeps_only_its_plain_form() -> None:
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "1f"}}
    plain = {"text/plain": "IntSlider(value=0)", "image/png": "aGk="}
    output = {"output_type": "display_data", "data": view | plain, "metadata": {}}
    assert stored_output(output)["data"] == plain


def test_normal_form_changes_nothing_twice_and_not_its_argument() -> None:
    original = notebook(code_cell({"output_type": "stream", "text": "at 127.0.0.1:40123"}))
    kept = copy.deepcopy(original)
    once = normal_form(original)
    assert normal_form(once) == once
    assert original == kept


def test_notebook_is_written_as_jupyter_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "lesson.ipynb"
    write(path, notebook(code_cell(source=["print('é')"])))
    stored = path.read_bytes()
    assert stored == nbformat.writes(nbformat.read(path, 4)).encode() + b"\n"
    assert "é".encode() in stored
    assert read(path) == notebook(code_cell(source=["print('é')"]))
