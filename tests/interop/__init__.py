"""Real mail clients against the lab: which of them can do what.

Rows are operations, columns are clients, and a cell is one run of a real client against a lab of
its own, judged at both ends: by what the client says, and by what the lab has stored and recorded.

- `stage.py`: what a cell is played on, and what an operation and a client are.
- `smtp.py`, `pop3.py`, `imap.py`: the operations of each protocol, and how each client does them.
- `table.py`: the cells as `benchmarks/INTEROP.md`, and back.

`tests/test_interop.py` plays all cells and compares them with that file; when they differ for a
good reason, `python -m tests.interop` plays them and writes it anew.
"""
