"""Reading a log takes steps in proportion to its length, whatever stands in it.

No time is measured. The steps of each pattern are counted by a matcher of our own that tries what
Python's tries, in the same order; the steps between patterns by counting calls.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

import pytest

import labserver.logs
from labserver import read_log
from labserver.logs.marked import MARKS

pytestmark = pytest.mark.long

Next = Callable[[int], bool]
Node = Callable[[str, int, Next], bool]


class Matcher:
    """A pattern that counts how many characters it tries."""

    def __init__(self, pattern: str, flags: int) -> None:
        self.steps = 0
        self.ignore_case = bool(flags & re.I)
        self.begin = self._sequence(list(parser.parse(pattern, flags)))

    def search(self, text: str, anchored: bool) -> int:
        """Look for the pattern; return the steps it took."""
        self.steps = 0
        for at in range(1 if anchored else len(text) + 1):
            if self.begin(text, at, lambda end: True):
                break
        return self.steps

    def _sequence(self, nodes: list[Any]) -> Node:
        made = [self._node(code, argument) for code, argument in nodes]

        def sequence(text: str, at: int, then: Next, n: int = 0) -> bool:
            if n == len(made):
                return then(at)
            return made[n](text, at, lambda end: sequence(text, end, then, n + 1))

        return sequence

    def _node(self, code: Any, argument: Any) -> Node:
        if code in (op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN):
            is_one = self._one(code, argument)

            def one(text: str, at: int, then: Next) -> bool:
                self.steps += 1
                return at < len(text) and is_one(text[at]) and then(at + 1)

            return one
        if code is op.BRANCH:
            choices = [self._sequence(list(each)) for each in argument[1]]
            return lambda text, at, then: any(each(text, at, then) for each in choices)
        if code is op.SUBPATTERN:
            return self._sequence(list(argument[3]))
        if code in (op.MAX_REPEAT, op.MIN_REPEAT):
            least, most, inner = argument
            return self._repeat(least, most, list(inner), greedy=code is op.MAX_REPEAT)
        if code is op.AT:
            return self._place(argument)
        assert code in (op.ASSERT, op.ASSERT_NOT), code
        direction, inner = argument
        looked_for = self._sequence(list(inner))
        width = inner.getwidth()[1]

        def look(text: str, at: int, then: Next) -> bool:
            begin = at if direction > 0 else at - width
            found = begin >= 0 and looked_for(text, begin, lambda end: direction > 0 or end == at)
            return found == (code is op.ASSERT) and then(at)

        return look

    def _one(self, code: Any, argument: Any) -> Callable[[str], bool]:
        if code is op.ANY:
            return lambda letter: letter != "\n"
        items = argument if code is op.IN else [(code, argument)]
        source = {
            op.LITERAL: lambda c: re.escape(chr(c)),
            op.NOT_LITERAL: lambda c: re.escape(chr(c)),
        }
        negated = items[0][0] in (op.NEGATE, op.NOT_LITERAL)
        parts = []
        for kind, value in items:
            if kind is op.RANGE:
                parts.append(f"{re.escape(chr(value[0]))}-{re.escape(chr(value[1]))}")
            elif kind is op.CATEGORY:
                parts.append(_CATEGORIES[value])
            elif kind is not op.NEGATE:
                parts.append(source[kind](value))
        shape = re.compile(f"[{'^' if negated else ''}{''.join(parts)}]", re.I * self.ignore_case)
        known: dict[str, bool] = {}

        def is_one(letter: str) -> bool:
            if letter not in known:
                known[letter] = bool(shape.match(letter))
            return known[letter]

        return is_one

    def _repeat(self, least: int, most: Any, inner: list[Any], greedy: bool) -> Node:
        if len(inner) == 1 and inner[0][0] in (op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN):
            is_one = self._one(*inner[0])

            def run(text: str, at: int, then: Next) -> bool:
                end = at
                limit = len(text) if most is op.MAXREPEAT else min(len(text), at + most)
                if not greedy:
                    while end - at < least:
                        self.steps += 1
                        if end >= limit or not is_one(text[end]):
                            return False
                        end += 1
                    while not then(end):
                        self.steps += 1
                        if end >= limit or not is_one(text[end]):
                            return False
                        end += 1
                    return True
                while end < limit and is_one(text[end]):
                    self.steps += 1
                    end += 1
                while end - at >= least:
                    self.steps += 1
                    if then(end):
                        return True
                    end -= 1
                return False

            return run
        body = self._sequence(inner)

        def again(text: str, at: int, then: Next, done: int = 0) -> bool:
            def more() -> bool:
                enough = most is not op.MAXREPEAT and done >= most
                return not enough and body(
                    text, at, lambda end: end > at and again(text, end, then, done + 1)
                )

            if done < least:
                return body(text, at, lambda end: again(text, end, then, done + 1))
            return (more() or then(at)) if greedy else (then(at) or more())

        return again

    def _place(self, place: Any) -> Node:
        def here(text: str, at: int, then: Next) -> bool:
            if place in (op.AT_BEGINNING, op.AT_BEGINNING_STRING):
                right = at == 0
            elif place is op.AT_END:
                right = at == len(text)
            else:
                sides = [
                    0 <= n < len(text) and bool(re.match(r"\w", text[n])) for n in (at - 1, at)
                ]
                right = (sides[0] != sides[1]) == (place is op.AT_BOUNDARY)
            return right and then(at)

        return here


_CATEGORIES = {
    op.CATEGORY_DIGIT: r"\d",
    op.CATEGORY_NOT_DIGIT: r"\D",
    op.CATEGORY_SPACE: r"\s",
    op.CATEGORY_NOT_SPACE: r"\S",
    op.CATEGORY_WORD: r"\w",
    op.CATEGORY_NOT_WORD: r"\W",
}


def letters(pattern: str, flags: int) -> Iterator[tuple[str, str]]:
    """Texts that keep a pattern busy: what leads to each repetition, and what repeats."""

    def sample(nodes: list[Any]) -> str:
        return "".join(map(one_sample, nodes))

    def one_sample(node: tuple[Any, Any]) -> str:
        code, argument = node
        if code is op.LITERAL:
            return chr(argument)
        if code is op.ANY:
            return "x"
        if code in (op.IN, op.NOT_LITERAL):
            fits = Matcher("x", flags)._one(code, argument)
            return next((letter for letter in "x A1-@<:.= \t" if fits(letter)), "é")
        if code is op.BRANCH:
            return sample(list(argument[1][0]))
        if code is op.SUBPATTERN:
            return sample(list(argument[3]))
        if code in (op.MAX_REPEAT, op.MIN_REPEAT):
            return sample(list(argument[2])) * max(1, argument[0])
        return ""

    def walk(nodes: list[Any], before: str) -> Iterator[tuple[str, str]]:
        for code, argument in nodes:
            if code in (op.MAX_REPEAT, op.MIN_REPEAT):
                _, most, inner = argument
                if most is op.MAXREPEAT or most > 100:
                    yield before, sample(list(inner))
                    yield "", before
                    yield "", f"{before} "
                    for letter in "x A1":
                        if Matcher("x", flags)._sequence(list(inner))(letter, 0, lambda end: True):
                            yield before, letter
                yield from walk(list(inner), before)
            elif code is op.BRANCH:
                for each in argument[1]:
                    yield from walk(list(each), before)
            elif code is op.SUBPATTERN:
                yield from walk(list(argument[3]), before)
            before += one_sample((code, argument))

    tree = list(parser.parse(pattern, flags))
    yield "", sample(tree)
    yield "", f"{sample(tree)} "
    yield from walk(tree, "")


def patterns() -> Iterator[tuple[str, re.Pattern[str], bool]]:
    """Each pattern of the readers of logs, and whether it is only tried at a text's beginning."""
    for found in pkgutil.iter_modules(labserver.logs.__path__):
        module = importlib.import_module(f"labserver.logs.{found.name}")
        source = Path(module.__file__ or "").read_text(encoding="utf-8")
        for name, value in vars(module).items():
            if isinstance(value, re.Pattern) and f"\n{name} = re.compile(" in source:
                anywhere = re.search(rf"\b{name}\.(?:search|sub|findall|finditer|split)\b", source)
                text = (
                    value.pattern
                    if isinstance(value.pattern, str)
                    else value.pattern.decode("latin-1")
                )
                yield f"{found.name}.{name}", re.compile(text, value.flags & re.I), not anywhere


PATTERNS = {name: (pattern, anchored) for name, pattern, anchored in patterns()}
PATTERNS |= {f"{mark.kind}, a telltale": (mark.telltale, True) for mark in MARKS}


def growth(
    pattern: str, flags: int, anchored: bool, most: int = 1600
) -> Iterator[tuple[str, list[int]]]:
    """For each text that keeps a pattern busy its steps at three sizes, each double the last."""
    matcher = Matcher(pattern, flags)
    for before, again in letters(pattern, flags):
        if again:
            steps = [
                matcher.search(f"{before}{(again * size)[:size]}\0", anchored)
                for size in (most // 4, most // 2, most)
            ]
            yield f"{before!r} then {again!r}", steps


def grows_too_much(steps: list[int]) -> bool:
    return steps[2] - steps[1] > 3 * (steps[1] - steps[0]) + 2000


@pytest.fixture(autouse=True)
def deep_enough() -> Iterator[None]:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_a_pattern_takes_steps_in_proportion_to_its_text(name: str) -> None:
    pattern, anchored = PATTERNS[name]
    slow = [
        (text, steps)
        for text, steps in growth(pattern.pattern, pattern.flags & re.I, anchored)
        if grows_too_much(steps)
    ]
    assert slow == []


@pytest.mark.parametrize(
    ("pattern", "anchored"),
    [
        (r"\bAUTH .*[a-z]{8}$", False),
        (r"\s+\w{1,40}$", False),
        (r"< (?:.*?)\s*$", True),
        (r"to=.*? relay=(\S+),.* dsn=", True),
        (r"(?:a|aa)+$", True),
    ],
)
def test_the_count_finds_what_is_out_of_proportion(pattern: str, anchored: bool) -> None:
    sizes = 24 if "aa" in pattern else 1600
    assert any(
        steps[2] > 3 * steps[1] for _, steps in growth(pattern, 0, anchored, sizes) if steps[1] > 50
    )


# -- the steps between patterns


def calls(text: str) -> int:
    """How many functions, Python's own included, are called to read a text."""
    count = 0

    def called(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(called)
    try:
        with contextlib.suppress(ValueError):
            read_log(text)
    finally:
        sys.setprofile(before)
    return count


DSN = "Final-Recipient: rfc822; u{n}@x.example\nAction: failed\nDiagnostic-Code: smtp; 550 no\n\n"
BOUNCE = "From: MAILER-DAEMON@x.example\nSubject: failure notice\n"
LOGIN = "S: 220 x\nC: QUIT\nS: 221 x\n"
MORE_ROWS: dict[str, tuple[str, str]] = {
    "swaks": ("", "<-  220 x\n -> EHLO a\n"),
    "curl": ("", "[0-0] < 220 x\n[0-0] > EHLO a\n* \n"),
    "curl's trace": ("", "<= Recv header, 1 bytes (0x1)\n0000: 2\n"),
    "curl's trace without line ends": (
        "<= Recv header, 9 bytes\n0000: 220 x\n",
        "=> Send data, 1 bytes\n0000: a\n",
    ),
    "smtplib": ("", "reply: b'220 x'\nsend: 'ehlo\\r\\n'\n"),
    "poplib": ("", "*get* b'+OK'\n*cmd* 'STAT'\n*resp* \n"),
    "imaplib": ("", "  00:00.00 < b'* OK'\n  00:00.00 > b'A1 NOOP'\n\n"),
    "Thunderbird": ("", "A/SMTP S: 220 x\nA/SMTP C: Logging suppressed\n"),
    "Android": ("", "SMTP <<< 220 x\nSMTP >>> EHLO a\n"),
    "sided": ("", "S: 220 x\nC: EHLO a\n"),
    "sided, with blank lines": (LOGIN, "\n"),
    "Postfix": (
        "",
        "Jan  1 00:00:00 h postfix/smtp[1]: A: to=<a@b>, relay=x, dsn=5.0.0, status=bounced "
        "(host x said: 550 no (in reply to RCPT TO command))\n",
    ),
    "postscreen": (
        "",
        "Jan  1 00:00:00 h postfix/postscreen[1]: NOQUEUE: reject: RCPT from [192.0.2.1]:1: "
        "550 5.7.1 no; client; from=<a@b>, to=<c@d>, proto=ESMTP, helo=<e>\n",
    ),
    "telnet": ("Trying x...\n220 x\n", "NOOP\n250 x\n"),
    "openssl": ("CONNECTED(00000003)\n+OK\n", "STAT\n+OK 1 2\n\n"),
    "a POP3 window without commands": ("+OK\n", "+OK 3\na\n\n.\n"),
    "an IMAP window": ("* OK\n", "a NOOP\n* 1 FETCH (BODY[] {3}\nx\n)\na OK\n"),
    "broken logins": (LOGIN, "AUTH PLAIN " + "A" * 60 + "\n" + "B" * 60 + "\n"),
    "challenges": (LOGIN, "334 VXNlcm5hbWU6\nYW5hQGxhYi5leGFtcGxl\n"),
    "reports": ("", DSN),
    "folded fields": ("Final-Recipient: rfc822; a@b\nDiagnostic-Code: smtp; 550 x\n", " y\n"),
    "recipients in words": (f"{BOUNCE}\ncould not be delivered\n", "u{n}@x.example\n 550 no\n"),
    "parts": (
        f"{BOUNCE}Content-Type: multipart/mixed; boundary=b\n\n",
        "--b\nContent-Type: text/plain\n\nx\n",
    ),
    "deeper parts": (
        f"{BOUNCE}Content-Type: multipart/mixed; boundary=b\n\n",
        "--b{n}\nContent-Type: multipart/mixed; boundary=c{n}\n\n",
    ),
    "messages in messages": (BOUNCE, "\n--b\nContent-Type: message/rfc822\n\nFrom: a@b\nTo: c@d\n"),
    "soft breaks": (f"{BOUNCE}Content-Transfer-Encoding: quoted-printable\n\n", "x=\n"),
    "base64": (f"{BOUNCE}Content-Transfer-Encoding: base64\n\n", "QUFB\n"),
    "HTML": (f"{BOUNCE}Content-Type: text/html\n\n", "<p>x<b\n"),
    "a transcript": (f"{BOUNCE}\n... while talking to x:\n", ">>> RCPT To:<u{n}@x>\n<<< 550 no\n"),
    "header fields": ("", "X-{n}: y\n"),
    "headers in a text": ("hello\n", "From: a@b\nTo: c@d\n\n"),
    "quotations": ("From: a@b\nSubject: x\n\n", "> From: c@d\n>> x\n"),
}


@pytest.mark.parametrize("name", MORE_ROWS)
def test_twice_the_rows_take_twice_the_calls(name: str) -> None:
    head, row = MORE_ROWS[name]
    one, two, four = (
        calls(head + "".join(row.replace("{n}", str(n)) for n in range(size)))
        for size in (150, 300, 600)
    )
    assert four - two <= 2.4 * max(two - one, 1) + 500, (one, two, four)


LONGER_ROWS: dict[str, str] = {
    "quoted": "{0}\n{0}\n",
    "words for a login": LOGIN + "{1}\n{1}\n",
    "a broken login": LOGIN + "AUTH PLAIN {2}\nYW5h\n",
    "an answer": LOGIN + "334 x\n{3}\n",
    "a challenge": LOGIN + "{4}AUTH PLAIN\nYW5h\n",
    "blanks": "  00:00.00 < b'* OK'\n  00:00.00 > a{4}b\n",
    "Thunderbird": "A/SMTP S: 220 x{4}y\n",
    "Postfix": "Jan  1 00:00:00 h postfix/smtp[1]: A: to=<a>{5}, status=sent (250 x)\n",
    "a report": "Final-Recipient: rfc822; a@b\nDiagnostic-Code: smtp; {6}\n",
    "addresses": "Final-Recipient: rfc822; {7}@b\nDiagnostic-Code: smtp; 550 {7}\n",
}


@pytest.mark.parametrize("name", LONGER_ROWS)
def test_longer_rows_take_no_more_calls(name: str) -> None:
    pieces = (">", "AUTH ", "A", "A+", " ", " relay=x,", "550 x (in reply to ", "a")
    short, long = (
        calls(LONGER_ROWS[name].format(*(piece * size for piece in pieces))) for size in (300, 2400)
    )
    assert long <= short + 200, (short, long)


def test_a_text_that_was_quoted_often_is_read() -> None:
    assert read_log("> " * 20 + "S: 220 x\n" + ">" * 20 + "C: QUIT\n").kind.startswith("lines")


def test_rows_that_stand_together_are_one_run_however_many_are_blank() -> None:
    (run, *_) = read_log(LOGIN + "note\n" + "\n" * 500 + "note\n").unread
    assert run.text.count("\n") == 501
