"""Reads a mail dialogue that was recorded elsewhere: swaks, curl, Postfix, a bounce, a terminal.

`read_log` takes the text and gives a `Log`: sessions that are shown and explained like the lab's
own, and all that is no part of one, by name. It reads the text it is given and nothing else: no
file, no network; so nothing of it leaves this machine.

- `marked.py`: logs that mark each line with who spoke (swaks, curl, smtplib, Thunderbird, …).
- `window.py`: a terminal's window (telnet, openssl s_client), where that has to be inferred.
- `postfix.py`: a log that tells of a dialogue's last answer; `told.py` supplies what led to it.
- `bounce.py`: letters that tell of it. `letter.py` takes them apart; `report.py`, `words.py` and
  `notice.py` find in a part who wasn't reached and what a server replied, by the tables of
  `phrases.py`; `named.py` says what a mail is that is no bounce.
- `talk.py`: writes down what these find.
- `rows.py`, `unread.py`: the text as rows before it is read, and what is no dialogue after it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from labserver.logs import bounce, marked, postfix, window
from labserver.logs.rows import rows_of
from labserver.logs.talk import HIDDEN, LOG_ENDS, Event, write
from labserver.logs.unread import Unread, unread
from labserver.transcript import ABSENT, Session, readable

__all__ = [
    "ABSENT",
    "HIDDEN",
    "LOG_ENDS",
    "MOST_CHARACTERS",
    "MOST_ROWS",
    "Log",
    "Unread",
    "read_log",
]

MOST_CHARACTERS = 2_000_000
"""Characters of a log that is read; more is refused."""
MOST_ROWS = 50_000
"""Lines of a log that is read; more is refused."""

_FIRST_ROWS = 5
_SHOWN_ROWS = 3
_SHOWN_WIDTH = 160
_SHOWN_RUNS = 40


@dataclass(frozen=True, slots=True, repr=False)
class Log:
    """What a log held."""

    kind: str
    """What wrote it: `swaks`, `curl -v`, `Postfix`, …"""
    sessions: tuple[Session, ...]
    unread: tuple[Unread, ...]
    """What is no part of a dialogue, in the log's order."""

    def __str__(self) -> str:
        """The sessions, then what stands around them. Stable: the same log gives the same text."""
        many = len(self.sessions)
        parts = [f"{self.kind}: {many} {'dialogue' if many == 1 else 'dialogues'}"]
        parts += map(str, self.sessions)
        if self.unread:
            parts.append("\n".join(["Not part of a dialogue:", *self._unread_rows()]))
        return "\n\n".join(parts)

    def _unread_rows(self) -> Iterator[str]:
        for run in self.unread[:_SHOWN_RUNS]:
            rows = run.text.split("\n") if run.text else []
            last = run.line + len(rows) - 1
            where = f"line {run.line}" if last <= run.line else f"lines {run.line} to {last}"
            yield f"{where}: {run.why}"
            for row in rows[:_SHOWN_ROWS]:
                shown = readable(row[:_SHOWN_WIDTH].encode("utf-8", "backslashreplace"))
                left_out = len(row) - _SHOWN_WIDTH
                yield f"   {shown}… [{left_out} more]" if left_out > 0 else f"   {shown}"
            if len(rows) > _SHOWN_ROWS:
                yield f"   [{len(rows) - _SHOWN_ROWS} more]"
        if len(self.unread) > _SHOWN_RUNS:
            yield f"[{len(self.unread) - _SHOWN_RUNS} more such places]"

    def __repr__(self) -> str:
        return f"<Log of {self.kind}: {len(self.sessions)} sessions>"


class _Form(NamedTuple):
    """A kind of log."""

    kind: str
    telltale: re.Pattern[str]
    """What a line of it looks like."""
    weight: int
    """How much more than a line of any other kind such a line says."""
    read: Callable[[Sequence[str]], Iterable[Event]]


_FORMS = (
    *(_Form(mark.kind, mark.telltale, 1, mark.read) for mark in marked.MARKS),
    _Form("Postfix", postfix.TELLTALE, 1, postfix.read),
    _Form("openssl s_client", window.OPENSSL, 20, window.read),
    _Form("telnet", window.TELNET, 20, window.read),
)
_TELLTALES = re.compile(
    "|".join(f"(?P<f{number}>{form.telltale.pattern})" for number, form in enumerate(_FORMS))
)


def read_log(text: str) -> Log:
    """Read a mail dialogue that was recorded elsewhere.

    It knows swaks, `curl -v` and `curl --trace`, the debug output of smtplib, poplib and imaplib,
    `openssl s_client`, a telnet window, Postfix's log, Thunderbird's, a bounce (RFC 3464, or told
    in words alone), and lines marked `C:` and `S:`. It may have been quoted by a letter, numbered,
    or broken into short lines. What it recognises becomes sessions, which print and explain
    themselves like the lab's own; all else stands in `unread`. A line that must have been said but
    that the log doesn't hold says so of itself. Passwords are masked wherever they are recognised.

    A bounce gives a session for each recipient it tells of; where it names no reply of a server,
    the session has no such line, and its `ending` holds what the bounce says instead. A mail that
    is no bounce gives no session: `kind` says what it is, `unread` why nothing bounced.

    Nothing is read but `text`, nothing is uploaded: there is no I/O here at all.

    Raises `ValueError` where nothing in the text is a mail dialogue or a mail, or where it is
    longer than `MOST_CHARACTERS` or `MOST_ROWS`.
    """
    if not isinstance(text, str):
        raise ValueError("Give the log as text, such as read_log(open('log.txt').read()).")
    if len(text) > MOST_CHARACTERS or text.count("\n") > MOST_ROWS:
        raise ValueError(
            f"A log of more than {MOST_CHARACTERS:,} characters or {MOST_ROWS:,} lines isn't read; "
            "cut out the dialogue you mean."
        )
    rows = rows_of(text)
    for kind, events in _readings(rows):
        found = write(events)
        if found.sessions or kind in bounce.KINDS:
            return Log(kind, found.sessions, unread(rows, found.asides, found.sessions))
    raise ValueError("Nothing in this text is an SMTP, POP3 or IMAP dialogue.")


def _readings(rows: Sequence[str]) -> Iterator[tuple[str, Iterable[Event]]]:
    """What the text may be, the likeliest first."""
    mail = bounce.read(rows)
    if mail and mail.certain:
        yield mail.kind, mail.events
        return
    forms = _likely(rows)
    header = mail.body if mail else 0
    typed = window.begins(rows[header:]) or window.holds(rows[header:])
    weight = mail.weight if mail and not typed and not _begins_marked(rows[header:]) else 0
    for form, counted in forms:
        if counted > weight:
            yield form.kind, form.read(rows)
    if mail and weight:
        yield mail.kind, mail.events
    if mail is None or typed:
        yield "a terminal's window", window.read([*[""] * header, *rows[header:]])
    if mail:
        yield mail.kind, mail.events


def _begins_marked(rows: Sequence[str]) -> bool:
    """Whether the rows begin as a log does that marks its lines; a quotation's mark is none."""
    first = islice((row for row in rows if row.strip()), _FIRST_ROWS)
    return any(_TELLTALES.match(row) and not row.startswith(">") for row in first)


def _likely(rows: Sequence[str]) -> list[tuple[_Form, int]]:
    """The kinds of log it may be, and how much speaks for each, the likeliest first."""
    counts = [0] * len(_FORMS)
    telltale = _TELLTALES.match
    for row in rows:
        if (match := telltale(row)) and match.lastgroup:
            counts[int(match.lastgroup[1:])] += 1
    weights = [count * form.weight for form, count in zip(_FORMS, counts, strict=True)]
    order = sorted(range(len(_FORMS)), key=lambda n: -weights[n])
    return [(_FORMS[n], weights[n]) for n in order if counts[n]]
