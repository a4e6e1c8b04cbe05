"""The help-center page against the guide that it grew from: every sentence carried or corrected.

The page is built by Sphinx as in the book, so the words are looked for as the reader sees them.
Which sentence stands where is written down in ``tests/data/seed.yml``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from bs4 import BeautifulSoup, Tag

ROOT = Path(__file__).parents[1]
DATA = Path(__file__).parent / "data"
SEED = (DATA / "seed-smtp-and-google.txt").read_text(encoding="utf-8")
WOOXY: dict[str, Any] = yaml.safe_load(
    (ROOT / "book" / "data" / "wooxy.yml").read_text(encoding="utf-8")
)
SENTENCES: list[dict[str, Any]] = yaml.safe_load((DATA / "seed.yml").read_text(encoding="utf-8"))

STRAIGHT = {0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"'}  # the quotes of print


@pytest.fixture(scope="module")
def sections(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Heading of the built page -> the text below it, up to the next heading."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    page = ROOT / "book" / "smtp-and-google.md"
    (source / "index.md").write_text(page.read_text(encoding="utf-8"), encoding="utf-8")
    settings = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    (source / "conf.py").write_text(
        f"""extensions = ["myst_parser", "sphinx_design", "wooxy_settings"]
myst_enable_extensions = {settings["parse"]["myst_enable_extensions"]}
""",
        encoding="utf-8",
    )
    subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", str(source), str(built)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "book" / "_ext")},
        stderr=subprocess.DEVNULL,  # links to pages that are not part of this small build
        check=True,
        timeout=120,
    )
    soup = BeautifulSoup((built / "index.html").read_text(encoding="utf-8"), "html.parser")
    return dict(_section(section) for section in soup.find_all("section"))


def _section(section: Tag) -> tuple[str, str]:
    """Return a section's heading and its own text, without its subsections and source numbers."""
    own = BeautifulSoup(str(section), "html.parser").section
    assert own is not None
    for foreign in own.select("section, a.footnote-reference, a.headerlink"):
        foreign.decompose()
    heading = own.find(re.compile("^h[1-6]$"))
    assert heading is not None
    return _plain(heading.get_text()), _plain(own.get_text())


def _plain(text: str) -> str:
    """Return `text` with straight quotes and single spaces."""
    return " ".join(text.translate(STRAIGHT).split())


def _letters(text: str) -> str:
    return "".join(text.split())


def test_the_list_is_the_whole_seed() -> None:
    assert "".join(_letters(entry["says"]) for entry in SENTENCES) == _letters(SEED)


@pytest.mark.process
@pytest.mark.parametrize("entry", SENTENCES, ids=[entry["says"][:40] for entry in SENTENCES])
def test_sentence_is_carried_or_corrected(entry: dict[str, Any], sections: dict[str, str]) -> None:
    assert entry["verdict"] in ("carried", "corrected")
    assert ("because" in entry) == (entry["verdict"] == "corrected"), "a correction has a source"
    assert entry["found"], "no place is named"
    for place in entry["found"]:
        assert place["under"] in sections, f"the page has no heading {place['under']!r}"
        assert _plain(place["words"].format(**WOOXY)) in sections[place["under"]]


@pytest.mark.process
def test_no_substitution_is_left_open(sections: dict[str, str]) -> None:
    assert not [heading for heading, text in sections.items() if "{{" in text]


@pytest.mark.process
def test_old_settings_stand_apart(sections: dict[str, str]) -> None:
    old = (WOOXY["old"]["server"], WOOXY["old"]["connection"])
    having = [heading for heading, text in sections.items() if any(value in text for value in old)]
    assert having == ["Set up before?"]
