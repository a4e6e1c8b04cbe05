"""Reads a mail dialogue that was recorded elsewhere: swaks, curl, Postfix, a bounce, a terminal.

`read_log` takes the text and gives a `Log`: sessions that are shown and explained like the lab's
own, and all that is no part of one, by name. It reads the text it is given and nothing else: no
file, no network; so nothing of it leaves this machine.

- `marked.py`: logs that mark each line with who spoke (swaks, curl, smtplib, Thunderbird, …).
- `window.py`: a terminal's window (telnet, openssl s_client), where that has to be inferred.
- `postfix.py`, `bounce.py`: logs and letters that tell of a dialogue's last answer; `told.py`
  supplies what must have led to it.
- `talk.py`: writes down what these find.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from labserver.logs import bounce, marked, postfix, window
from labserver.logs.talk import ABSENT, HIDDEN, LOG_ENDS, Aside, Event, write
from labserver.transcript import MASK, Session, readable

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

_SHOWN_ROWS = 3
_SHOWN_WIDTH = 160
_SHOWN_RUNS = 40


class Unread(NamedTuple):
    """Lines that stand together and are no part of a dialogue."""

    line: int
    """The first of them, counted from 1."""
    text: str
    """All of them; passwords masked."""
    why: str
    """What they are, as far as it is known."""

    def __repr__(self) -> str:
        return f"<line {self.line}: {self.why}>"


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
                shown = readable(row.encode("utf-8", "backslashreplace"))
                yield f"   {shown if len(shown) <= _SHOWN_WIDTH else shown[:_SHOWN_WIDTH] + '…'}"
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
_QUOTED = re.compile(r"[>|] ?")
_NUMBERED = re.compile(r"\s{0,8}(\d{1,6})(?:[:.)|\t]|(?= )|\s*$)")
_BEGINS = re.compile(
    r"\s{0,4}(?:[A-Z][a-z]{2} +\d{1,2} \d\d:|(?:\d{4}-)?\d\d-\d\d[ T]\d\d:|"
    r"\d\d:\d\d[:.]\d\d|[CS]: )|"
    r" ?(?:\*\*)?[-~*]> |<[-~*][ *] |(?:===|\*\*\*) |(?:send|reply|connect): |\*(?:cmd|put|get)\* "
)
"""How each line of a log begins that marks all its lines."""
_LOGIN_BROKEN = re.compile(r"\bAUTH(?:ENTICATE)? .*[A-Za-z0-9+/]{8}$", re.I)
_SPOKEN = re.compile(r"[2-5][0-9][0-9][ -]|[*+] |\+OK|-ERR")
_BROKEN_AT, _BROKEN_FROM = 80, 70
"""Characters of a line at which mail programs break it, at most and at least."""
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_PASSWORDS = re.compile(
    # on a command line, in a URL, in a file of settings
    r"((?:^|\s)(?:--auth-password|--password|--user|-ap|-u|-w)[= ]+)\S+|"
    r"(://[^\s/:@]{1,200}:)[^\s/@]{1,200}(?=@)|"
    r"(\b[Pp][Aa][Ss][Ss][Ww](?:[Oo][Rr])?[Dd][\"']?\s*[=:]\s*)\S+|"
    # in a dialogue of another kind than the one that is read
    r"(\b(?:AUTH|AUTHENTICATE) +[A-Z0-9-]{1,40} +)\S.*|(\b(?:PASS|APOP +\S+|LOGIN +\S+) +)\S.*|"
    r"(^\W{0,20}(?:pass|\w{1,32} login +\S+) +)\S.*"
)
_CHALLENGE = re.compile(
    r".{0,200}?(?:\b334[ )]|\+ *(?:\\r\\n)?['\"]?$|\bAUTH(?:ENTICATE)? +[A-Z0-9-]{1,40} *$)"
)
"""Behind it, or behind a line that breaks off there, comes what is secret."""
_DUMPED = re.compile(r"([ <>]{0,4}[0-9A-Fa-f]{4,8}: ).+")
_TOKEN = re.compile(r"[A-Za-z0-9+/]{12,}={0,2}")
_BROKEN_TOKEN = re.compile(r"(\W{0,8})[A-Za-z0-9+/]{4,}={0,2}")
_WIDE = 60
"""A line at least as long may have been broken by a mail program."""
_LONG = 2000
_ANSWER = re.compile(r"(.{0,200}?)\b[A-Za-z0-9+/]{4,}={0,2}((?:\\r\\n)?['\"]?)$")
_FEW = 50
_BASE64 = re.compile(rb"[A-Za-z0-9+/]+={0,2}")
_WORD = re.compile(r"[^\s'\"]+")


def read_log(text: str) -> Log:
    """Read a mail dialogue that was recorded elsewhere.

    It knows swaks, `curl -v` and `curl --trace`, the debug output of smtplib, poplib and imaplib,
    `openssl s_client`, a telnet window, Postfix's log, Thunderbird's, a bounce (RFC 3464, or
    Gmail's words), and lines marked `C:` and `S:`. It may have been quoted by a letter, numbered,
    or broken into short lines. What it recognises becomes sessions, which print and explain
    themselves like the lab's own; all else stands in `unread`. A line that must have been said but
    that the log doesn't hold says so of itself. Passwords are masked wherever they are recognised.

    Nothing is read but `text`, nothing is uploaded: there is no I/O here at all.

    Raises `ValueError` where nothing in the text is a mail dialogue, or where it is longer
    than `MOST_CHARACTERS` or `MOST_ROWS`.
    """
    if not isinstance(text, str):
        raise ValueError("Give the log as text, such as read_log(open('log.txt').read()).")
    if len(text) > MOST_CHARACTERS or text.count("\n") > MOST_ROWS:
        raise ValueError(
            f"A log of more than {MOST_CHARACTERS:,} characters or {MOST_ROWS:,} lines isn't read; "
            "cut out the dialogue you mean."
        )
    rows = _rows(text)
    mail = bounce.read(rows)
    if mail and mail.certain:
        found = write(mail.events)
        return Log(mail.kind, found.sessions, _unread(rows, found.asides, found.sessions))
    for form in _likely(rows):
        if form.kind == "a terminal's window" and mail:
            continue
        found = write(form.read(rows))
        if found.sessions:
            return Log(form.kind, found.sessions, _unread(rows, found.asides, found.sessions))
    if mail:
        found = write(mail.events)
        return Log(mail.kind, found.sessions, _unread(rows, found.asides, found.sessions))
    raise ValueError("Nothing in this text is an SMTP, POP3 or IMAP dialogue.")


def _rows(text: str) -> list[str]:
    """The text's lines without what a terminal or a quotation added to all of them."""
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    rows = text.removeprefix("\ufeff").split("\n")
    if rows and not rows[-1]:
        rows.pop()
    rows = _unmarked(rows)
    margin = min((len(row) - len(row.lstrip(" ")) for row in rows if row.strip()), default=0)
    return _unbroken([row[margin:].rstrip("\r") for row in rows])


def _unmarked(rows: list[str]) -> list[str]:
    """Without what a letter's quotation or an editor put before every line."""
    while any(row.strip() for row in rows) and all(_QUOTED.match(row) for row in rows):
        rows = [_QUOTED.sub("", row, count=1) for row in rows]
    numbers = [_NUMBERED.match(row) for row in rows]
    told = [int(number[1]) for number in numbers if number]
    if 1 < len(told) == len(rows) and told == list(range(told[0], told[0] + len(told))):
        return [_NUMBERED.sub("", row, count=1) for row in rows]
    return rows


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
        within_word = not blank or _LOGIN_BROKEN.search(rows[n - 1])
        whole[first].append(rows[n] if within_word else f" {rows[n].lstrip(' ')}")
        whole[n] = []
    return ["".join(parts) for parts in whole]


def _may_go_on(before: str, row: str) -> bool:
    """Whether a line may have been broken because its next word didn't fit."""
    word = row.split(maxsplit=1)[:1]
    fits = not word or len(before) + 1 + len(word[0]) <= _BROKEN_FROM
    return not fits and bool(before) and not _SPOKEN.match(row)


def _likely(rows: Sequence[str]) -> list[_Form]:
    """The kinds of log it may be, the likeliest first."""
    counts = [0] * len(_FORMS)
    telltale = _TELLTALES.match
    for row in rows:
        if (match := telltale(row)) and match.lastgroup:
            counts[int(match.lastgroup[1:])] += 1
    order = sorted(range(len(_FORMS)), key=lambda n: -counts[n] * _FORMS[n].weight)
    likely = [_FORMS[n] for n in order if counts[n]]
    return [*likely, _Form("a terminal's window", window.TELNET, 1, window.read)]


# -- what is no part of a dialogue


def _unread(
    rows: Sequence[str], asides: Iterable[Aside], sessions: Sequence[Session]
) -> tuple[Unread, ...]:
    """Lines that stand together and are the same thing, as one."""
    hide = _hider(sessions)
    runs: list[tuple[str, list[int]]] = []
    silent: list[int] = []
    """Lines that belong to the run they stand in, but are none of their own."""
    for row, why in sorted({(aside.row, aside.why) for aside in asides if aside.row}):
        if runs and row == max(runs[-1][1][-1], *silent, 0) + 1 and why in (runs[-1][0], ""):
            if why:
                runs[-1][1].extend((*silent, row))
                silent.clear()
            else:
                silent.append(row)
        elif why:
            runs.append((why, [row]))
            silent.clear()
    return tuple(
        Unread(numbers[0], "\n".join(hide(_answer_hidden(rows, n)) for n in numbers), why)
        for why, numbers in runs
        if any(rows[number - 1].strip() for number in numbers)
    )


def _answer_hidden(rows: Sequence[str], number: int) -> str:
    """A line; without the credentials in it, if a server's challenge stands before it."""
    row = rows[number - 1]
    before = rows[number - 2] if number > 1 else ""
    if _CHALLENGE.match(before):
        row = _ANSWER.sub(rf"\1{MASK}\2", row) if len(row) < _LONG else MASK
    broken = _TOKEN.search(before[-_WIDE:]) if len(before) >= _WIDE else None
    login = broken and broken.end() == _WIDE and _is_login(broken[0])
    if login or (len(before) >= _WIDE and _LOGIN_BROKEN.search(before)):
        row = _BROKEN_TOKEN.sub(rf"\1{MASK}", row, count=1)
    if _DUMPED.match(before) and " " not in row.strip():
        return MASK
    return _DUMPED.sub(rf"\1{MASK}", row)


def _is_login(token: str) -> bool:
    """Whether it is base64 of a name and a password as PLAIN has them, or begins so."""
    word = token.rstrip("=")[:_LONG]
    octets = b64decode(word[: len(word) // 4 * 4] + "==")
    return octets.count(b"\0") >= 2 or (octets.startswith(b"\0") and octets[1:].isascii())


def _hider(sessions: Sequence[Session]) -> Callable[[str], str]:
    """Masks in any line what the sessions know to be secret, and what looks like a password."""
    secrets = {word for session in sessions for word in _secrets(session)}
    few = sorted(secrets, key=len, reverse=True) if len(secrets) <= _FEW else []

    def hide(row: str) -> str:
        row = _PASSWORDS.sub(lambda match: "".join(filter(None, match.groups())) + MASK, row)
        row = _TOKEN.sub(lambda token: MASK if _is_login(token[0]) else token[0], row)
        for secret in few:
            row = row.replace(secret, MASK)
        if few or not secrets:
            return row
        return _WORD.sub(lambda word: MASK if word[0] in secrets else word[0], row)

    return hide


def _secrets(session: Session) -> Iterator[str]:
    for line in session.lines:
        if line.secret is None:
            continue
        secret = line.data[slice(*line.secret)].strip(b" \r\n\"'")
        yield from _shown_as(secret)
        if _BASE64.fullmatch(secret) and len(secret) % 4 == 0:
            yield from _shown_as(b64decode(secret).rpartition(b"\0")[2])


def _shown_as(secret: bytes) -> Iterator[str]:
    # A shorter word would be masked all over the log.
    if len(secret) >= 4:
        yield secret.decode("utf-8", "backslashreplace")
