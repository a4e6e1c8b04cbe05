"""What `labserver` itself gives out."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import labserver

ROOT = Path(__file__).parents[1]


def declared() -> dict[str, str]:
    """For each public name the module that it is declared to come from."""
    tree = ast.parse(Path(labserver.__file__).read_text(encoding="utf-8"))
    return {
        name.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("labserver.")
        for name in node.names
        if node.module != "labserver.notebook"
    }


def test_every_public_name_is_the_one_that_is_declared() -> None:
    homes = declared()
    assert {*homes, "__version__"} == set(labserver.__all__)
    for name, home in homes.items():
        assert getattr(labserver, name) is getattr(importlib.import_module(home), name)
    assert set(labserver.__all__) <= set(dir(labserver))


def test_its_version_is_the_project_s() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert labserver.__version__ == project["version"]


def test_there_is_no_other_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Postman'"):
        labserver.Postman  # noqa: B018


def test_nothing_is_loaded_before_it_is_asked_for() -> None:
    code = "import labserver, sys; print(*[name for name in sys.modules if 'labserver.' in name])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "\n"
