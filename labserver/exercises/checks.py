"""`check` judges an exercise by what happened in the lab, never by the reader's program.

    check(lab, Sent(recipients=2, refused=1), Retrieved(by="POP3"))

What can be wanted stands in `conditions.py`. `hint` helps with what is missing, in three steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from labserver.catalog import load
from labserver.exercises.conditions import Condition, Evidence, Finding
from labserver.exercises.progress import entry, note_hint, note_try
from labserver.given import expect
from labserver.lab import Lab
from labserver.views.card import card


@dataclass(frozen=True, slots=True, repr=False)
class Verdict:
    """The state of an exercise: which conditions hold."""

    title: str
    findings: tuple[Finding, ...]

    @property
    def done(self) -> bool:
        """Whether nothing is missing."""
        return all(finding.done for finding in self.findings)

    def __str__(self) -> str:
        rows = [f"{self.title}: {'done' if self.done else 'not yet'}"]
        rows += [f"  {'x' if one.done else '-'} {one.sentence}" for one in self.findings]
        return "\n".join(rows if self.done else [*rows, "hint() helps."])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        items = "".join(
            f'<li class="{"ok" if one.done else "no"}">'
            f'<span role="img" aria-label="{"done" if one.done else "missing"}">'
            f"{'✓' if one.done else '✕'}</span><span>{escape(one.sentence)}</span></li>"
            for one in self.findings
        )
        more = "" if self.done else '<p class="more"><code>hint()</code> helps.</p>'
        body = f'<ul class="marks">{items}</ul>{more}'
        return card(self.title, body, "done ✓" if self.done else "not yet")


@dataclass(frozen=True, slots=True, repr=False)
class Hints:
    """The hints shown so far on what is missing."""

    missing: str
    shown: tuple[str, ...]
    total: int

    def __str__(self) -> str:
        rows = [f"Hint {i} of {self.total}: {text}" for i, text in enumerate(self.shown, 1)]
        return "\n".join(rows or [self.missing])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        if not self.shown:
            return card("Hint", f"<p>{escape(self.missing)}</p>")
        items = "".join(f"<li>{_lines(text)}</li>" for text in self.shown)
        aside = f"{len(self.shown)} of {self.total}"
        body = f'<p class="more">Missing: {escape(self.missing)}</p><ol class="hints">{items}</ol>'
        return card("Hint", body, aside)


@dataclass(frozen=True, slots=True)
class _Exercise:
    """The exercise that was checked last; hints are about it."""

    verdict: Verdict
    hints: tuple[str, ...]


_last: _Exercise | None = None


def check(
    lab: Lab,
    *wanted: Condition,
    title: str = "",
    since: int = 0,
    hints: Sequence[str] = (),
) -> Verdict:
    """Judge an exercise by the lab's sessions and mailboxes.

    `title` names it, here and in `progress()`; without it its conditions do. Only sessions with a
    number above `since` count. `hints` are an author's own; without them they come from the
    catalog. Raises `ValueError` for what is no condition, `TypeError` for a wrong argument.
    """
    global _last
    expect("check()", lab, Lab, wanted="a lab first")
    expect("check(title=…)", title, str)
    expect("check(since=…)", since, int, wanted="a session's number")
    if isinstance(hints, str) or not all(isinstance(one, str) for one in _listed(hints)):
        raise TypeError("check(hints=…) takes a list of texts.")
    if not wanted or any(isinstance(one, type) or not hasattr(one, "judge") for one in wanted):
        raise ValueError("Say what is wanted, for example check(lab, Sent(recipients=2)).")
    sessions = tuple(session for session in lab.sessions if session.number > since)
    findings = tuple(one.judge(Evidence(sessions, lab.mailbox)) for one in wanted)
    title = title or _sentence("; ".join(finding.wanted for finding in findings))
    verdict = Verdict(title, findings)
    _last = _Exercise(verdict, tuple(hints))
    note_try(title, "exercise", verdict.done)
    return verdict


def _listed(hints: object) -> Sequence[object]:
    return hints if isinstance(hints, (list, tuple)) else (None,)


def hint() -> Hints:
    """One more hint on what the last check found missing; at most three on each thing."""
    if _last is None:
        return Hints("Run the check first: a hint is about what it finds missing.", (), 0)
    verdict = _last.verdict
    missing = next((one for one in verdict.findings if not one.done), None)
    if missing is None:
        return Hints("Nothing is missing here: this exercise is done.", (), 0)
    hints = _last.hints or _hints(missing)
    about = "" if _last.hints else f"{missing.wanted}: {missing.about[1]}"
    known = entry(verdict.title)
    count = min((known.hints.get(about, 0) if known else 0) + 1, len(hints))
    note_hint(verdict.title, about, count)
    return Hints(missing.sentence, hints[:count], len(hints))


def _hints(missing: Finding) -> tuple[str, ...]:
    """Three hints: where to look, how the command is written, lines that do it."""
    protocol, verb = missing.about
    command = load(protocol).commands[verb]
    name = f"{protocol}'s {verb}" if command.typed else f"the end of a message in {protocol}"
    first = f"Look at {name}. {command.title} {command.meaning}"
    states = " or ".join(command.states)
    written = f"It is written:\n{command.syntax}" if command.typed else "It is a dot, alone."
    second = f"It may come in the state {states}. {written}"
    third = missing.example or _EXAMPLES.get((protocol, verb), command.syntax)
    return first, second, f"These lines do it:\n{third}"


_EXAMPLES = {
    ("SMTP", "RCPT"): "MAIL FROM:<you@home.example>\nRCPT TO:<ben@lab.example>",
    ("SMTP", "AUTH"): "%%smtp --login ana@lab.example\nNOOP\nQUIT",
    ("SMTP", "STARTTLS"): "EHLO me.example\nSTARTTLS\nEHLO me.example",
    ("POP3", "STLS"): "STLS\nCAPA\nQUIT",
    ("POP3", "PASS"): "%%pop3 --login ben@lab.example\nSTAT\nQUIT",
    ("POP3", "RETR"): "%%pop3 --login ben@lab.example\nRETR 1\nQUIT",
    ("IMAP", "STARTTLS"): "a1 STARTTLS\na2 CAPABILITY\na3 LOGOUT",
    ("IMAP", "LOGIN"): "%%imap --login ben@lab.example --tags\nNOOP\nLOGOUT",
    (
        "IMAP",
        "FETCH",
    ): "%%imap --login ben@lab.example --tags\nSELECT INBOX\nFETCH 1 BODY[]\nLOGOUT",
}
"""Example lines for each command, used if the condition has none of its own."""


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _lines(text: str) -> str:
    """A hint's first line as text, the others as lines to type."""
    first, _, rest = text.partition("\n")
    return escape(first) + (f"<pre>{escape(rest)}</pre>" if rest else "")
