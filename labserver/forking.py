"""What would the server have said to something else? A session said again with one line changed.

`fork` plays the client of a recorded session: it says every line again, up to one that is another
now, to the real server of a fresh lab in virtual time; and from there on what the server still
takes. What differs is the server's own answer.
"""

from __future__ import annotations

import contextlib
import textwrap
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import SequenceMatcher
from itertools import zip_longest
from types import NoneType
from typing import Any, NamedTuple

from labserver.dialogue import dialogue
from labserver.given import expect
from labserver.lab import ACCOUNTS, Lab, LabError
from labserver.listeners import TABLE
from labserver.logs import ABSENT, HIDDEN
from labserver.network import Network
from labserver.transcript import MASK, Line, ProtocolName, Session, numbered
from labserver.turns import Turns

_PATIENCE = 120.0
"""Seconds of virtual time that a client waits for an answer."""
_LONGER_THAN_ANY_IDLE_TIME = 7200.0
_PIECE = 64 * 1024
_WIDTH = 46
_SHARED = 3
"""Lines before the parting that are shown."""
_BODY_LINES = 6
_LONGEST = 400
"""Characters of a line that are shown."""
_MOST_ROWS = 200


@dataclass(frozen=True, slots=True, repr=False)
class Fork:
    """A session, and what it would have been with one line changed."""

    original: Session
    changed: Session
    parted_at: int | None
    """Number of the first line that differs, in both, from 1; `None` where nothing does. Names,
    tags and dates that the client chooses are no difference."""
    said: bool
    """Whether the server took the changed line: not where it has closed the connection, or waits
    for something else."""

    def __str__(self) -> str:
        return self.text()

    def text(self, *, numbers: bool = False) -> str:
        """Both beside each other from where they part, passwords masked.

        With `numbers` each line has its number, from 1.
        """
        heading = f"{self.original.protocol} on {self.original.listener}"
        unsaid = "" if self.said else "; the changed line could not be said there"
        if self.parted_at is None:
            return f"{heading}: said again, and nothing differs{unsaid}"
        left, right = _rows(self.original, numbers), _rows(self.changed, numbers)
        rows = [f"{heading}, parted at line {self.parted_at:,}{unsaid}", ""]
        rows += _columns(["as it was"], ["with the changed line"])
        shared = max(0, self.parted_at - 1 - _SHARED)
        if shared:
            rows.append(f"[{shared:,} {'line is' if shared == 1 else 'lines are'} the same]")
        end = shared + _MOST_ROWS
        rows += _beside(left[shared:end], right[shared:end])
        more = max(len(left), len(right)) - end
        if more > 0:
            rows.append(f"[{more:,} more lines not shown]")
        endings = [_ending(self.original), _ending(self.changed)]
        if any(endings):
            rows += _columns([endings[0]], [endings[1]])
        return "\n".join(rows)

    def __repr__(self) -> str:
        where = "nothing differs" if self.parted_at is None else f"parted at line {self.parted_at}"
        return f"<Fork of {self.original!r}: {where}>"


def fork(
    session: Session, line: int, text: str, *, insert: bool = False, lab: Lab | None = None
) -> Fork:
    """Say a session again with one of the client's lines changed, and hear the server's answers.

    `line` is the number of a line, from 1, as `show(session, numbers=True)` shows it: each line of
    a multi-line reply counts. That line is replaced by `text` (without its line end), or with
    `insert` has it put before itself; `insert` one behind the last line puts it at the end. What
    comes before is said as it was recorded, what comes after as far as the server
    takes it: no content where DATA is refused, no password where AUTH is, TLS where the server is
    ready for it.

    The server is a fresh lab's on an inline network, so its clock begins anew and two runs are
    the same. It has the accounts, name, limits, rules and options of `lab`, and what the
    sessions before this one left there: they are said again first, and between and within them as
    much time passes as did then, for rules count it. Without `lab` it has the default accounts, no
    rules and no mail. What other sessions did at the same time isn't done again.

    Raises `ValueError`, one sentence, where there is no such line of the client's, or where the
    session doesn't hold all that would have to be said again.
    """
    # Brings three client modules along, for whoever forks.
    from labserver.network.inline import InlineNetwork

    if not isinstance(session, Session):
        raise ValueError("Give a session, such as lab.sessions[-1].")
    expect("fork(lab=…)", lab, Lab, NoneType, wanted="a lab or None")
    _check_line(session, line, insert)
    at = line - 1
    sayings = _sayings(session, changed=None if insert else at)
    waits = sayings[at].waits if at < len(sayings) else True
    rest = not insert and sayings[at].rest
    sayings[at : at + (not insert)] = [_Saying(_changed(session, at, text, insert), waits, rest)]
    earlier = _earlier(session, lab) if lab is not None else []
    began = [*earlier, session][0].started if lab is not None else None
    network = InlineNetwork()
    try:
        with _fresh_lab(network, lab) as fresh:
            for one in earlier:
                _play_earlier(fresh, one, began)
            changed, unsaid = _play(fresh, session, sayings, began)
    finally:
        network.close()
    return Fork(session, changed, _parting(session, changed), at not in unsaid)


# -- what is to be said


def _check_line(session: Session, line: int, insert: bool) -> None:
    many = len(session.lines)
    if type(line) is not int or not 1 <= line <= many + insert:
        last = f"its lines are 1 to {many:,}" if many else "it has none"
        raise ValueError(f"This session has no line {line!r:.40}; {last}.")
    if line <= many and session.lines[line - 1].who == "S":
        clients = [i for i, one in enumerate(session.lines, 1) if one.who == "C"]
        nearest = min(clients, key=lambda i: abs(i - line), default=None)
        hint = "" if nearest is None else f", such as line {nearest}"
        raise ValueError(f"Line {line} is the server's; change one of the client's{hint}.")


def _changed(session: Session, at: int, text: str, insert: bool) -> Line:
    """The line as it is to be said."""
    if not isinstance(text, str):
        raise ValueError("Give the line as text, such as 'RCPT TO:<nobody@lab.example>'.")
    old = session.lines[at] if at < len(session.lines) else None
    content = old is not None and old.kind == "content" and not insert
    rows = (text if content else text.removesuffix("\n")).split("\n")
    if len(rows) > 1 and not content:
        raise ValueError("Give one line; only message content may have several.")
    data = b"\r\n".join(row.rstrip("\r").encode("utf-8", "surrogatepass") for row in rows)
    if not content or (old is not None and old.data.endswith(b"\n")):
        data += b"\r\n"
    kind = old.kind if old is not None else "command"
    if kind == "end" and (insert or data != b".\r\n"):
        kind = "content"  # without its dot the message goes on
    return Line(0.0, "C", data, False, kind, len(data))


class _Saying(NamedTuple):
    """A line as it is to be said."""

    line: Line
    waits: bool
    """Who says it has waited for the answer to what was said before."""
    rest: bool = False
    """It ends a command that goes on after a literal."""


def _sayings(session: Session, *, changed: int | None = None) -> list[_Saying]:
    """All lines of a session, if the client's are there as they were said but for a changed one."""
    if session.dropped:
        raise ValueError(
            "This session's transcript isn't complete, so it can't be said again; a lab keeps "
            "more of the next one with Limits(transcript=…)."
        )
    for number, line in enumerate(session.lines, 1):
        if line.who == "S" or number - 1 == changed:
            continue
        absent = ABSENT.encode() in line.data or line.data == f"{HIDDEN}\r\n".encode()
        if absent or (line.shortened and not line.data):
            raise ValueError(f"Line {number} isn't in the log, so it can't be said again.")
        if line.shortened:
            raise ValueError(
                f"Of line {number} only the beginning was kept, so it can't be said again; a lab "
                "keeps more of the next session with Limits(transcript_body=…)."
            )
        if MASK.encode() in line.data:
            raise ValueError(
                f"The password in line {number} is masked, so it can't be said again; take the "
                "session from a lab, or a log that still holds it."
            )
    heard = Turns(session.protocol, states=False)
    sayings: list[_Saying] = []
    last: Line | None = None
    for line in session.lines:
        changes = last is not None and last.tls != line.tls
        if changes:
            heard.start_tls()
        turn = heard.hear(line.who, line.data, line.kind)
        sayings.append(_Saying(line, last is None or last.who == "S" or changes, turn.rest))
        last = line
    return sayings


def _fresh_lab(network: Network, like: Lab | None) -> Lab:
    if like is None:
        return Lab(ACCOUNTS, network=network)
    return Lab(
        like.accounts,
        network=network,
        hostname=like.hostname,
        limits=like.limits,
        catch_all=like.catch_all,
        plaintext_login=like.plaintext_login,
        rules=like.rules,
        seed=like.seed,
    )


def _earlier(session: Session, lab: Lab) -> list[Session]:
    """The lab's sessions before this one; none where it is another lab's, or of a log."""
    sessions = lab.sessions
    own = (session.number, session.started, session.listener)
    if own not in [(one.number, one.started, one.listener) for one in sessions]:
        return []
    if sessions[0].number > 1:
        raise ValueError(
            "This lab keeps only its latest sessions, so the mail of the others would be missing; "
            "leave out lab= to do without."
        )
    return [one for one in sessions if one.number < session.number]


# -- saying it


def _play_earlier(lab: Lab, session: Session, began: datetime | None) -> None:
    try:
        _play(lab, session, _sayings(session), began)
    except ValueError as error:
        raise ValueError(
            f"Session {session.number}, before this one, can't be said again, so its mail would "
            "be missing; leave out lab= to do without."
        ) from error


def _play(
    lab: Lab, session: Session, sayings: Sequence[_Saying], began: datetime | None
) -> tuple[Session, set[int]]:
    """Say all the client's lines that the server takes, each when it was said after `began`.

    Without `began` no time passes but what the server takes. Returns the session as the lab saw
    it, and which lines it didn't take.
    """
    name = session.listener
    if name not in TABLE or TABLE[name].protocol != session.protocol:
        name = session.protocol.lower()
    before = 0.0 if began is None else (session.started - began).total_seconds()
    if began is not None:
        _wait_until(lab, before)
    try:
        client = _Client(lab, name, session.protocol)
    except LabError as error:
        raise ValueError(f"This session can't be said again here: {error}") from error
    unsaid: set[int] = set()
    with contextlib.closing(client):
        for number, (line, waits, rest) in enumerate(sayings):
            if line.who == "C":
                if waits:
                    client.listen(_PATIENCE)
                    if began is not None:
                        _wait_until(lab, before + line.at)
                if not client.say(line, rest=rest):
                    unsaid.add(number)
        client.listen(_PATIENCE)
        if session.ending == "the server closed the connection":
            client.listen(_LONGER_THAN_ANY_IDLE_TIME, until_the_end=True)
        if not session.closed:
            return lab.sessions[-1], unsaid  # before hanging up, as the recorded client hasn't
    return lab.sessions[-1], unsaid


def _wait_until(lab: Lab, seconds: float) -> None:
    """Let the lab's virtual time pass until it has run for so many seconds."""
    lab.network.wait(threading.Event(), seconds - lab.network.clock.seconds())


class _Client:
    """Speaks for the recorded client, and listens as far as it must to know how to go on."""

    def __init__(self, lab: Lab, listener: str, protocol: ProtocolName) -> None:
        self._lab = lab
        self._dialogue = dialogue(protocol)
        self._turns = self._dialogue.turns
        self._unsent = bytearray()
        """Said without waiting, so that it has to go together."""
        self._gone = False
        self._tls = TABLE[listener].implicit
        self._sock: Any = lab.network.connect(lab.address(listener), timeout=_PATIENCE)
        if self._tls:
            self._start_tls()

    def _start_tls(self) -> None:
        self._tls = True
        self._sock = self._lab.tls.wrap_socket(self._sock, server_hostname=self._lab.hostname)

    def say(self, line: Line, *, rest: bool) -> bool:
        """Say a line, if the server takes it now; `rest` where it ends a command that goes on
        after a literal.
        """
        if self._gone or not self._takes(line, rest):
            return False
        if self._turns.tls_due and not self._tls:
            self._start_tls()
        self._unsent += line.data
        self._dialogue.feed(0.0, "C", line.data, self._tls)
        return True

    def _takes(self, line: Line, rest: bool) -> bool:
        """Whether that is what the server waits for."""
        due = self._turns.due["C"]
        if line.kind != "command":
            # A name or a password goes nowhere but into a login, where it is masked.
            fits = line.kind == due.kind or (line.kind == "content" and due.form == "octets")
            return due.form != "wait" and (fits or (line.kind == "end" and due.form == "dot"))
        if line.data.strip().upper() == b"DONE" and self._turns.protocol == "IMAP":
            return self._turns.idles
        if rest and not due.rest:
            return False
        return due.kind == "command" or (due.form == "wait" and not due.octets)

    def listen(self, seconds: float, *, until_the_end: bool = False) -> None:
        """Hear what is due, for at most so many seconds of virtual time."""
        try:
            self._sock.sendall(bytes(self._unsent))
        except ConnectionError:
            self._gone = True
        self._unsent.clear()
        while not self._gone:
            waits = until_the_end or self._turns.answer_due
            self._sock.settimeout(seconds if waits else 0.0)
            try:
                data = self._sock.recv(_PIECE)
            except (BlockingIOError, TimeoutError):
                return
            except ConnectionError:
                data = b""
            self._gone = not data
            self._dialogue.feed(0.0, "S", data, self._tls)

    def close(self) -> None:
        self._sock.close()


# -- the two beside each other


class _Row(NamedTuple):
    """A line as it is compared, and as it is shown."""

    normal: str
    shown: str


def _rows(session: Session, numbers: bool = False) -> list[_Row]:
    label = numbered(len(session.lines) if numbers else 0)
    shown = session.texts(longest=_LONGEST)
    return [
        _Row(f"{line.tls} {line.who}: {normal}", f"{label(number)}{line.who}: {text}")
        for number, (line, normal, text) in enumerate(
            zip(session.lines, session.texts("normal"), shown, strict=True), 1
        )
    ]


def _short(row: str) -> str:
    """A message as its first lines."""
    rows = row.split("\n")
    more = [f"[{len(rows) - _BODY_LINES:,} more lines]"] if len(rows) > _BODY_LINES else []
    return "\n   ".join([*rows[:_BODY_LINES], *more])


def _parting(one: Session, other: Session) -> int | None:
    left, right = _rows(one), _rows(other)
    for number, (a, b) in enumerate(zip_longest(left, right), 1):
        if a is None or b is None or a.normal != b.normal:
            return number
    return None if one.ending == other.ending else len(left) + 1


def _beside(left: Sequence[_Row], right: Sequence[_Row]) -> Iterator[str]:
    """What is the same on one row; what differs, each on its side."""
    keys = [[row.normal for row in rows] for rows in (left, right)]
    for _, a, b, c, d in SequenceMatcher(None, keys[0], keys[1], autojunk=False).get_opcodes():
        for one, other in zip_longest(left[a:b], right[c:d]):
            yield from _columns([one.shown if one else ""], [other.shown if other else ""])


def _columns(left: Sequence[str], right: Sequence[str]) -> list[str]:
    wrapped = [
        [part for row in rows for line in _short(row).split("\n") for part in _wrapped(line)]
        for rows in (left, right)
    ]
    pairs = zip_longest(*wrapped, fillvalue="")
    return [f"{one:<{_WIDTH}} | {other}".rstrip() for one, other in pairs]


def _wrapped(row: str) -> list[str]:
    indent = row[: len(row) - len(row.lstrip(" "))] or "   "
    return textwrap.wrap(row, _WIDTH, subsequent_indent=indent, break_on_hyphens=False) or [""]


def _ending(session: Session) -> str:
    if session.ending:
        return f"-- {session.ending} --"
    return "" if session.closed else "-- still open --"
