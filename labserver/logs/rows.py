"""A log's text as rows, without what a terminal, an editor or a letter's quotation added to all.

Each step looks at a row once, and only at as much of it as it needs.
"""

from __future__ import annotations

import re

__all__ = ["login_broken", "rows_of"]

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
MOST_QUOTED = 20
"""How often a text may have been quoted."""
_QUOTED = re.compile(rf"(?:[>|] ?){{0,{MOST_QUOTED}}}")
_MARK = re.compile(r"[>|] ?")
_NUMBERED = re.compile(r"\s{0,8}(\d{1,6})(?:[:.)|\t]|(?= )|\s*$)")
_BEGINS = re.compile(
    r"\s{0,4}(?:[A-Z][a-z]{2} +\d{1,2} \d\d:|(?:\d{4}-)?\d\d-\d\d[ T]\d\d:|"
    r"\d\d:\d\d[:.]\d\d|[CS]: )|"
    r" ?(?:\*\*)?[-~*]> |<[-~*][ *] |(?:===|\*\*\*) |(?:send|reply|connect): |\*(?:cmd|put|get)\* "
)
"""How each line of a log begins that marks all its lines."""
_LOGIN = re.compile(r"\bAUTH(?:ENTICATE)? ", re.I)
_TOKEN_ENDS = re.compile(r"[A-Za-z0-9+/]{8}")
_SPOKEN = re.compile(r"[2-5][0-9][0-9][ -]|[*+] |\+OK|-ERR")
_BROKEN_AT, _BROKEN_FROM = 80, 70
"""Characters of a line at which mail programs break it, at most and at least."""


def rows_of(text: str) -> list[str]:
    """The rows of a log's text."""
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    rows = text.removeprefix("\ufeff").split("\n")
    if rows and not rows[-1]:
        rows.pop()
    rows = _unmarked(rows)
    margin = min((len(row) - len(row.lstrip(" ")) for row in rows if row.strip()), default=0)
    return _unbroken([row[margin:].rstrip("\r") for row in rows])


def login_broken(row: str) -> bool:
    """Whether a row breaks off within what a client says to log in."""
    return bool(_TOKEN_ENDS.fullmatch(row[-8:])) and bool(_LOGIN.search(row, 0, len(row) - 8))


def _unmarked(rows: list[str]) -> list[str]:
    """Without what a letter's quotation or an editor put before every line."""
    depth = min((_depth(row) for row in rows if row.strip()), default=0)
    if depth:
        marks = re.compile(rf"(?:[>|] ?){{{depth}}}")
        rows = [marks.sub("", row, count=1) if marks.match(row) else row for row in rows]
    numbers = [_NUMBERED.match(row) for row in rows]
    told = [int(number[1]) for number in numbers if number]
    if 1 < len(told) == len(rows) and told == list(range(told[0], told[0] + len(told))):
        return [_NUMBERED.sub("", row, count=1) for row in rows]
    return rows


def _depth(row: str) -> int:
    marks = _QUOTED.match(row)
    return len(_MARK.findall(marks[0])) if marks else 0


def _unbroken(rows: list[str]) -> list[str]:
    """With lines that a mail program has broken whole again; where their rest stood is nothing."""
    if any(len(row) > _BROKEN_AT and " " in row.strip() for row in rows):
        return rows
    begins = [bool(_BEGINS.match(row)) for row in rows]
    if sum(begins) < max(2, len(rows) / 3):
        return rows
    goes_on = [
        n for n, row in enumerate(rows) if n and not begins[n] and _may_go_on(rows[n - 1], row)
    ]
    widths = {len(rows[n - 1]) for n in goes_on}
    # Broken anywhere, or at a blank, which is gone.
    blank = len(widths) > 1 or len(goes_on) == 1 or max(map(len, rows)) not in widths
    whole: list[list[str]] = [[row] for row in rows]
    first, last = 0, -1
    for n in goes_on:
        first, last = first if n == last + 1 else n - 1, n
        within_word = not blank or login_broken(rows[n - 1])
        whole[first].append(rows[n] if within_word else f" {rows[n].lstrip(' ')}")
        whole[n] = []
    return ["".join(parts) for parts in whole]


def _may_go_on(before: str, row: str) -> bool:
    """Whether a line may have been broken because its next word didn't fit."""
    word = row.split(maxsplit=1)[:1]
    fits = not word or len(before) + 1 + len(word[0]) <= _BROKEN_FROM
    return not fits and bool(before) and not _SPOKEN.match(row)
