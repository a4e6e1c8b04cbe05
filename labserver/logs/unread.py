"""What of a log is no part of a dialogue, by name, and without the passwords in it."""

from __future__ import annotations

import re
import string
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from labserver.logs.rows import login_broken
from labserver.logs.talk import Aside
from labserver.transcript import MASK, Session
from labserver.turns import CHALLENGE

__all__ = ["Unread", "unread"]

_PASSWORDS = re.compile(
    # on a command line, in a URL, in a file of settings
    r"((?:^|\s)(?:--auth-password|--password|--user|-ap|-u|-w)[= ]+)\S+|"
    r"(://[^\s/:@]{1,200}:)[^\s/@]{1,200}(?=@)|"
    r"(\b[Pp][Aa][Ss][Ss][Ww](?:[Oo][Rr])?[Dd][\"']?\s*[=:]\s*)\S+|"
    # in a dialogue of another kind than the one that is read
    r"(\b(?:AUTH|AUTHENTICATE) +[A-Z0-9-]{1,40} +)\S.*|(\b(?:PASS|APOP +\S+|LOGIN +\S+) +)\S.*|"
    r"(^\W{0,20}(?:pass|\w{1,32} login +\S+) +)\S.*"
)
_NEAR = 260
_CHALLENGE = re.compile(rf".{{0,200}}?\b{CHALLENGE}[ )]")
_ASKS = re.compile(r"\+ {0,20}(?:\\r\\n)?['\"]?$|\bAUTH(?:ENTICATE)? {1,20}[A-Z0-9-]{1,40} {0,20}$")
"""Behind a challenge, or behind a line that asks for one, comes what is secret."""
_DUMPED = re.compile(r"([ <>]{0,4}[0-9A-Fa-f]{4,8}: ).+")
_TOKEN = re.compile(r"[A-Za-z0-9+/]{12,}={0,2}")
_BROKEN_TOKEN = re.compile(r"(\W{0,8})[A-Za-z0-9+/]{4,}={0,2}")
_WIDE = 60
"""A line at least as long may have been broken by a mail program."""
_LONG = 2000
_ENDING = re.compile(r"={0,2}(?:\\r\\n)?['\"]?$")
_BASE64_DIGITS = string.ascii_letters + string.digits + "+/"
_FEW = 50
_BASE64 = re.compile(rb"[A-Za-z0-9+/]+={0,2}")
_WORD = re.compile(r"[^\s'\"]+")


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


def unread(
    rows: Sequence[str], asides: Iterable[Aside], sessions: Sequence[Session]
) -> tuple[Unread, ...]:
    """Lines that stand together and are the same thing, as one."""
    hide = _hider(sessions)
    runs: list[tuple[str, list[int]]] = []
    silent: list[int] = []
    """Lines that belong to the run they stand in, but are none of their own."""
    last = 0
    for row, why in sorted({(aside.row, aside.why) for aside in asides if aside.row}):
        goes_on = runs and row == last + 1 and why in (runs[-1][0], "")
        if why and goes_on:
            runs[-1][1].extend((*silent, row))
        elif why:
            runs.append((why, [row]))
        elif goes_on:
            silent.append(row)
        if why:
            silent.clear()
        if why or goes_on:
            last = row
    return tuple(
        Unread(numbers[0], "\n".join(hide(_answer_hidden(rows, n)) for n in numbers), why)
        for why, numbers in runs
        if any(rows[number - 1].strip() for number in numbers)
    )


def _answer_hidden(rows: Sequence[str], number: int) -> str:
    """A line; without the credentials in it, if a server's challenge stands before it."""
    row = rows[number - 1]
    before = rows[number - 2] if number > 1 else ""
    if _CHALLENGE.match(before[:_NEAR]) or _ASKS.search(before[-_NEAR:]):
        row = _without_last_word(row)
    broken = _TOKEN.search(before[-_WIDE:]) if len(before) >= _WIDE else None
    login = broken and broken.end() == _WIDE and _is_login(broken[0])
    if login or (len(before) >= _WIDE and login_broken(before)):
        row = _BROKEN_TOKEN.sub(rf"\1{MASK}", row, count=1)
    if _DUMPED.match(before) and " " not in row.strip():
        return MASK
    return _DUMPED.sub(rf"\1{MASK}", row)


def _without_last_word(row: str) -> str:
    """A line whose last word is base64, with that word masked; whole where it is very long."""
    if len(row) >= _LONG:
        return MASK
    end = _ENDING.search(row, max(0, len(row) - 10))
    word_ends = end.start() if end else len(row)
    head = row[:word_ends].rstrip(_BASE64_DIGITS)
    if word_ends - len(head) < 4:
        return row
    return head + MASK + row[word_ends:].lstrip("=")


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
