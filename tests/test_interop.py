"""The table of real clients, benchmarks/INTEROP.md: each cell played, and compared with the file.

What an operation asks of a client, and how it is judged, stands in `tests/interop/`. Where the file
is to say something else now, `python -m tests.interop` writes it anew.
"""

from __future__ import annotations

from functools import cache

import pytest

from tests.interop import stage, table
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
