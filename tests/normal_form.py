"""The form in which a lesson is stored: without what differs between two runs or two machines.

`kit.py notebooks` runs `python normal_form.py RAN STORED`. What its outputs may not contain stands
in nbval.cfg, the file by which nbval compares them. Running a lesson is not done here.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

RULES = Path(__file__).with_name("nbval.cfg")
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "pygments_lexer": "ipython3",
}


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def write(path: Path, notebook: dict[str, Any]) -> None:
    """Store a notebook as Jupyter itself writes it."""
    text = json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")


def normal_form(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook in its stored form; bringing it there twice changes nothing more."""
    metadata = {key: value for key, value in notebook["metadata"].items() if key != "widgets"}
    metadata |= {"kernelspec": KERNEL, "language_info": LANGUAGE}
    cells = [normal_cell(cell) for cell in notebook["cells"]]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    for count, cell in enumerate(code, start=1):
        cell["execution_count"] = count
        for output in cell["outputs"]:
            if "execution_count" in output:
                output["execution_count"] = count
    return notebook | {"metadata": metadata, "cells": cells}


def normal_cell(cell: dict[str, Any]) -> dict[str, Any]:
    metadata = {key: value for key, value in cell["metadata"].items() if key != "execution"}
    cell = cell | {"metadata": metadata}
    if cell["cell_type"] == "code":
        cell["outputs"] = [normal_output(output) for output in joined(cell["outputs"])]
    return cell


def joined(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The outputs, neighbouring pieces of a stream as one: only time decides where it is cut."""
    whole: list[dict[str, Any]] = []
    for output in outputs:
        if whole and "name" in output and output["name"] == whole[-1].get("name"):
            text = "".join(whole[-1]["text"]) + "".join(output["text"])
            whole[-1] = output | {"text": text.splitlines(keepends=True)}
        else:
            whole.append(output)
    return whole


def normal_output(output: dict[str, Any]) -> dict[str, Any]:
    output = dict(output)
    if "text" in output:
        output["text"] = sanitised(output["text"])
    if "traceback" in output:  # it names files of the machine
        output["traceback"] = [f"{output['ename']}: {output['evalue']}"]
    if "data" in output:  # a widget's model id is random; its plain form stays
        kept = {kind: d for kind, d in output["data"].items() if "widget-view+json" not in kind}
        output["data"] = {
            kind: sanitised(data) if kind.startswith("text/") or kind == "image/svg+xml" else data
            for kind, data in kept.items()
        }
    return output


def sanitised(text: str | list[str]) -> str | list[str]:
    """Text, stored whole or as a list of lines, after the replacements that nbval makes."""
    whole = "".join(text)
    rules = RULES.read_text(encoding="utf-8")
    # nbval reads its file by this expression, not as a settings file
    for regex, replacement in re.findall("^regex: (.*)$\n^replace: (.*)$", rules, re.MULTILINE):
        whole = re.sub(regex, replacement, whole)
    return whole.splitlines(keepends=True) if isinstance(text, list) else whole


if __name__ == "__main__":
    ran, stored = map(Path, sys.argv[1:])
    write(stored, normal_form(read(ran)))
