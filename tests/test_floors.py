"""The floors of the house hold: a module imports only from its own floor or from below."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "labserver"

FLOORS = {
    **dict.fromkeys(
        (
            "transcript",
            "dialogue",
            "given",
            "masking",
            "export",
            "message",
            "catalog",
            "logs",
            "tables",
            "turns",
        ),
        0,
    ),
    **dict.fromkeys(("mime", "fields", "charsets", "normal_form", "listeners"), 0),
    **dict.fromkeys(("servers", "store", "rules", "network", "folder", "tls"), 1),
    **dict.fromkeys(("lab", "forking", "faulting"), 2),
    **dict.fromkeys(("internet",), 3),
    **dict.fromkeys(("views", "exercises"), 4),
    **dict.fromkeys(
        ("notebook", "web", "doctor", "pytest_plugin", "cli", "serving", "ending", "__main__"), 5
    ),
}
"""The rooms in `labserver/`; `labserver/__init__.py` gives out the public names of all."""

NOT_IN_PLAIN_DATA = {"asyncio", "socket", "ssl", "sqlite3", "threading", "IPython", "ipywidgets"}

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def for_types_alone(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def nodes(tree: ast.AST, types: bool) -> Iterator[ast.AST]:
    """All of a program's nodes, without those that only a type checker reads unless `types`."""
    for node in ast.iter_child_nodes(tree):
        if types or not for_types_alone(node):
            yield node
            yield from nodes(node, types)


def imported(path: Path, *, types: bool = True) -> Iterator[tuple[int, str]]:
    """Line and full name of each module that a file imports, wherever in it."""
    here = ("labserver", *path.relative_to(PACKAGE).parts[:-1])
    for node in nodes(ast.parse(path.read_bytes()), types):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom):
            start = here[: len(here) - node.level + 1] if node.level else ()
            base = ".".join((*start, *filter(None, [node.module])))
            # `from labserver import store` imports a room, too.
            for name in node.names:
                yield node.lineno, f"{base}.{name.name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_its_own_floor_or_below(path: Path) -> None:
    assert room(path) in FLOORS, f"say in FLOORS on which floor {room(path)} is"
    floor = FLOORS[room(path)]
    for line, name in imported(path):
        package, _, rest = name.partition(".")
        if package == "labserver":
            other = rest.partition(".")[0]
            assert other in FLOORS, f"line {line}: import {name} from the module it lives in"
            assert FLOORS[other] <= floor, f"line {line}: {name} is on a higher floor"
        if floor == 0:
            assert package not in NOT_IN_PLAIN_DATA, f"line {line}: {name} is not for plain data"


def rooms() -> dict[str, set[str]]:
    """For each room the others that it imports from, for more than types, wherever in a file."""
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        names = (name.split(".") for _, name in imported(path, types=False))
        found = {name[1] for name in names if name[0] == "labserver"}
        graph.setdefault(room(path), set()).update(found - {room(path)})
    return graph


def test_the_rooms_make_no_circle() -> None:
    graph = rooms()
    assert graph["export"] >= {"transcript", "masking"}
    while free := {one for one, others in graph.items() if not others & graph.keys()}:
        graph = {one: others for one, others in graph.items() if one not in free}
    assert not graph, "these rooms import each other in a circle, or from one that does"


def test_each_floor_has_rooms() -> None:
    built = {FLOORS[room(path)] for path in MODULES}
    assert {0, 1, 2, 4, 5} <= built


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if FLOORS[room(path)] == 5 and room(path) != "notebook"],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_what_needs_no_jupyter_imports_nothing_of_the_notebook(path: Path) -> None:
    for line, name in imported(path):
        assert not f"{name}.".startswith("labserver.notebook."), f"line {line}: {name}"


@pytest.mark.process
@pytest.mark.parametrize("module", ["labserver", "labserver.cli"])
def test_nothing_of_jupyter_is_imported_outside_ipython(module: str) -> None:
    code = f"import {module}, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "labserver" in loaded
    assert not loaded & {"IPython", "ipykernel", "ipywidgets", "jupyter_client", "matplotlib"}
