"""Plays all cells and writes the table: `python -m tests.interop`."""

from __future__ import annotations

import sys

from tests.interop import stage, table


def judge(operation: stage.Operation, client: stage.Client) -> str:
    try:
        stage.play(operation, client)
    except stage.MissingError:
        raise
    except Exception as failure:  # a client's own errors are of many kinds
        print(f"{client.name}: {operation.title}: {failure!r}", file=sys.stderr)
        return table.NO
    return table.YES


if __name__ == "__main__":
    try:
        text = table.write(judge, versions=True)
    except stage.MissingError as missing:
        sys.exit(f"The table wasn't written: {missing}; .ci/run installs what it needs.")
    table.FILE.parent.mkdir(exist_ok=True)
    table.FILE.write_text(text, encoding="utf-8")
