"""Progress is kept on this machine, and survives whatever becomes of its file."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

import pytest
from inert import Checker

from labserver.exercises.progress import entry, note_hint, note_try, progress

module = import_module("labserver.exercises.progress")
"""The package gives out a function of the same name."""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "kept" / "progress.json"
    monkeypatch.setenv("LABSERVER_PROGRESS", str(file))
    monkeypatch.setattr(module, "_memory", {})
    return file


def test_nothing_is_kept_before_something_is_done(place: Path) -> None:
    assert str(progress()) == "nothing done yet"
    assert not place.exists()


def test_it_is_kept_in_one_file_that_holds_titles_only(place: Path) -> None:
    note_try("Two recipients", "exercise", False)
    note_hint("Two recipients", "a recipient", 2)
    note_try("Two recipients", "exercise", True)
    note_try("What comes?", "prediction", False)
    note_try("What comes?", "prediction", True)
    assert json.loads(place.read_text(encoding="utf-8")) == {
        "version": 1,
        "entries": {
            "Two recipients": {
                "kind": "exercise",
                "done": True,
                "tries": 2,
                "hints": {"a recipient": 2},
            },
            "What comes?": {"kind": "prediction", "done": False, "tries": 2, "hints": {}},
        },
    }
    assert str(progress()) == (
        "1 of 1 exercise done, 0 of 1 prediction right\n"
        "  x Two recipients: done, 2 tries, 2 hints\n"
        "  - What comes?: wrong at first"
    )
    assert [file.name for file in place.parent.iterdir()] == ["progress.json"]


def test_it_can_be_reset(place: Path) -> None:
    note_try("One", "exercise", True)
    assert progress(reset=True).entries == {}
    assert progress().entries == {}
    assert entry("One") is None


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"version": 2, "entries": {}}',
        b'{"version": 1, "entries": []}',
        b'{"version": 1, "entries": {"x": 1}}',
        b'{"version": 1, "entries": {"x": {"kind": "?", "done": 1, "tries": 1, "hints": {}}}}',
        b'{"version": 1, "entries": {"x": {"kind": "exercise", "tries": "?", "hints": {}}}}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_file_is_set_aside_with_a_sentence(place: Path, damaged: bytes) -> None:
    place.parent.mkdir()
    place.write_bytes(damaged)
    told = progress()
    assert told.entries == {}
    assert told.note == (
        "progress.json was damaged and is now called progress.damaged.json; progress begins anew."
    )
    assert (place.parent / "progress.damaged.json").read_bytes() == damaged
    assert progress().note == ""
    note_try("One", "exercise", True)
    assert entry("One") is not None


def test_where_it_can_not_be_written_it_lasts_as_long_as_the_kernel(place: Path) -> None:
    place.parent.write_text("a file where a folder has to be", encoding="utf-8")
    note_try("One", "exercise", True)
    note_try("Two", "exercise", True)
    told = progress()
    assert list(told.entries) == ["One", "Two"]
    assert told.note == "progress.json can't be written; it is kept until this kernel ends."
    place.parent.unlink()
    note_try("Three", "exercise", True)
    assert list(progress().entries) == ["One", "Two", "Three"]
    assert progress().note == ""


def test_in_a_browser_and_on_request_it_is_kept_in_memory(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABSERVER_PROGRESS", "memory")
    note_try("One", "exercise", True)
    monkeypatch.delenv("LABSERVER_PROGRESS")
    monkeypatch.setattr(sys, "platform", "emscripten")
    assert list(progress().entries) == ["One"]
    assert progress().note == "It is kept until this kernel ends."
    assert not place.parent.exists()


def test_without_any_wish_it_is_in_the_user_s_data_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("LABSERVER_PROGRESS")
    monkeypatch.setattr("platformdirs.user_data_path", lambda *_, **__: tmp_path / "data")
    note_try("One", "exercise", True)
    assert (tmp_path / "data" / "progress.json").is_file()


def test_any_title_can_be_kept(place: Path) -> None:
    for title in ("Grüße ✓", "\udcff", "<b>", "x" * 10_000, ""):
        note_try(title, "exercise", True)
        assert entry(title) is not None
    Checker(progress()._repr_html_())


def test_the_oldest_entries_go_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 3)
    for number in range(5):
        note_try(str(number), "exercise", True)
    assert list(progress().entries) == ["2", "3", "4"]
