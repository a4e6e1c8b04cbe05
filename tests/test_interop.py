"""The table of real clients, benchmarks/INTEROP.md: each cell played, and compared with the file.

What an operation asks of a client, and how it is judged, stands in `tests/interop/`. Where the file
is to say something else now, `python -m tests.interop` writes it anew.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from tests.interop import smtp, stage, table
from tests.interop.stage import Client, Operation

CELLS = [
    pytest.param(operation, client, id=f"{operation.protocol}-{client.name}-{operation.name}")
    for operation, client in table.cells()
]


@cache
def stored() -> str:
    return table.FILE.read_text(encoding="utf-8")


@pytest.mark.realclient
@pytest.mark.parametrize(("operation", "client"), CELLS)
def test_the_client_does_it_and_the_table_says_so(operation: Operation, client: Client) -> None:
    try:
        stage.play(operation, client)
    except stage.MissingError as missing:
        pytest.skip(str(missing))
    said = table.read(stored()).get((operation.protocol, operation.title, client.name))
    assert said == table.YES, "it did it; python -m tests.interop writes the table anew"


def test_the_table_has_each_operation_and_client_and_nothing_else() -> None:
    said = table.read(stored())

    def judge(operation: Operation, client: Client) -> str:
        return said.get((operation.protocol, operation.title, client.name), "a cell that is new")

    assert table.without_versions(stored()) == table.write(judge, versions=False)


def test_reasons_are_for_operations_that_exist() -> None:
    for operations, clients in table.TABLES:
        for client in clients:
            assert set(client.cannot) <= set(operations.rows)


def program_in(folder: Path, name: str, said: str) -> None:
    """Put a program there that only says something."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\necho '{said}'\n", encoding="utf-8")
    (folder / name).chmod(0o755)


@pytest.mark.process
@pytest.mark.parametrize(
    ("name", "said", "version", "why"),
    [
        ("swaks", "20240103.0 *** TLS not available: requires Net::SSLeay", "swaks", "no TLS"),
        ("curl", "a wrapper", "curl", "curl doesn't tell its version"),
        ("postconf", "a wrapper", "smtp-source", "postconf doesn't tell its version"),
    ],
)
def test_a_client_that_lacks_something_is_left_out(
    name: str, said: str, version: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program_in(tmp_path / "bin", name, said)
    monkeypatch.setattr(stage, "PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    (client,) = (one for one in smtp.CLIENTS if one.name == version)
    find = getattr(client.version, "__wrapped__")  # noqa: B009
    with pytest.raises(stage.MissingError, match=why):
        find()
