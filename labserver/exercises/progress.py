"""What a reader has done so far, kept on this machine only.

One small JSON file in the user's data folder; in a browser, and where LABSERVER_PROGRESS is
`memory`, it lasts as long as the kernel. LABSERVER_PROGRESS may also name another file. Nothing
that a reader typed is kept but the titles of exercises and questions.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any, Literal, get_args

from labserver.views.card import card

Kind = Literal["exercise", "prediction"]

_MEMORY = "memory"
_VERSION = 1
_MOST = 2000
"""Entries kept; a further one replaces the oldest."""
_DONE = {"exercise": "done", "prediction": "right"}
_OPEN = {"exercise": "not yet", "prediction": "wrong at first"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One exercise or prediction."""

    kind: Kind
    done: bool = False
    """An exercise was done once; a prediction was right the first time."""
    tries: int = 0
    hints: Mapping[str, int] = field(default_factory=dict)
    """For each thing that was missing, how many hints on it were shown."""


@dataclass(frozen=True, slots=True, repr=False)
class Progress:
    """All entries by title, in the order they were begun."""

    entries: Mapping[str, Entry]
    note: str = ""
    """A sentence if there is something to know about how progress is kept."""

    def __str__(self) -> str:
        rows = [self._summary()]
        for title, entry in self.entries.items():
            rows.append(f"  {'x' if entry.done else '-'} {title}: {_standing(entry)}")
        return "\n".join([*rows, *([f"Note: {self.note}"] if self.note else [])])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        items = "".join(
            f'<li class="{"ok" if entry.done else "no"}"><span aria-hidden="true">'
            f"{'✓' if entry.done else '○'}</span><span>{escape(title)}</span>"
            f"<span>{escape(_standing(entry))}</span></li>"
            for title, entry in self.entries.items()
        )
        note = f'<p class="more">{escape(self.note)}</p>' if self.note else ""
        return card("Progress", f'<ul class="marks">{items}</ul>{note}', self._summary())

    def _summary(self) -> str:
        counts = []
        for kind, word in _DONE.items():
            mine = [entry for entry in self.entries.values() if entry.kind == kind]
            if mine:
                done = sum(entry.done for entry in mine)
                things = f"{kind}{'' if len(mine) == 1 else 's'}"
                counts.append(f"{done} of {len(mine)} {things} {word}")
        return ", ".join(counts) or "nothing done yet"


def progress(*, reset: bool = False) -> Progress:
    """What was done so far on this machine. With `reset` it is forgotten first."""
    if reset:
        _write({})
    entries, note = _read()
    return Progress(entries, note)


def entry(title: str) -> Entry | None:
    """What is kept of an exercise or a prediction."""
    return _read()[0].get(title)


def note_try(title: str, kind: Kind, done: bool) -> None:
    """Note that it was tried, and whether it is done."""
    known = entry(title) or Entry(kind)
    # A prediction counts as it was made; an exercise once done stays done.
    done = known.done if kind == "prediction" and known.tries else known.done or done
    _note(title, replace(known, tries=known.tries + 1, done=done))


def note_hint(title: str, missing: str, count: int) -> None:
    """Note that so many hints on what is missing were shown."""
    known = entry(title) or Entry("exercise")
    _note(title, replace(known, hints={**known.hints, missing: count}))


def _standing(one: Entry) -> str:
    words = [_DONE[one.kind] if one.done else _OPEN[one.kind]]
    if one.kind == "exercise":
        hints = sum(one.hints.values())
        words += [f"{one.tries} {'try' if one.tries == 1 else 'tries'}"]
        words += [f"{hints} hint{'' if hints == 1 else 's'}"] if hints else []
    return ", ".join(words)


# -- the keeping


_memory: dict[str, Entry] = {}
"""The entries if no file can be written; otherwise empty."""


def _note(title: str, known: Entry) -> None:
    entries = _read()[0]
    entries[title] = known
    while len(entries) > _MOST:
        del entries[next(iter(entries))]
    _write(entries)


def _place() -> Path | None:
    """The file; `None` if nothing is kept beyond this kernel."""
    wanted = os.environ.get("LABSERVER_PROGRESS", "")
    if wanted:
        return None if wanted == _MEMORY else Path(wanted)
    if sys.platform == "emscripten":
        return None
    try:
        from platformdirs import user_data_path
    except ImportError:
        return None
    return user_data_path("mail-lab", appauthor=False) / "progress.json"


def _read() -> tuple[dict[str, Entry], str]:
    """The entries, and a sentence if there is something to know about them."""
    place = _place()
    if place is None:
        return dict(_memory), "It is kept until this kernel ends."
    if _memory:
        return dict(_memory), f"{place.name} can't be written; it is kept until this kernel ends."
    try:
        return _entries(json.loads(place.read_text(encoding="utf-8"))), ""
    except FileNotFoundError:
        return {}, ""
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}, _set_aside(place)


def _entries(data: Any) -> dict[str, Entry]:
    """The entries in a file's JSON. Raises one of several errors where it isn't ours."""
    if data["version"] != _VERSION:
        raise ValueError(f"it is of version {data['version']}")
    found = {}
    for title, one in data["entries"].items():
        hints = {str(missing): int(count) for missing, count in one["hints"].items()}
        if one["kind"] not in get_args(Kind):
            raise ValueError(f"there is no kind {one['kind']}")
        found[str(title)] = Entry(one["kind"], bool(one["done"]), int(one["tries"]), hints)
    return found


def _set_aside(place: Path) -> str:
    aside = place.with_suffix(".damaged.json")
    try:
        place.replace(aside)
    except OSError:
        return f"{place.name} can't be read, and can't be set aside."
    return f"{place.name} was damaged and is now called {aside.name}; progress begins anew."


def _write(entries: Mapping[str, Entry]) -> None:
    _memory.clear()
    place = _place()
    data = {
        "version": _VERSION,
        "entries": {
            title: {
                "kind": one.kind,
                "done": one.done,
                "tries": one.tries,
                "hints": dict(one.hints),
            }
            for title, one in entries.items()
        },
    }
    if place is not None:
        new = place.with_suffix(".new")
        with contextlib.suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(json.dumps(data, indent=1), encoding="utf-8")
            new.replace(place)
            return
    _memory.update(entries)
