"""The strict build: what makes it fail, and how it serves the site."""

from __future__ import annotations

import threading
import urllib.request
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from book import build
from kit import Problem

pytestmark = pytest.mark.process

CONFIG = "title: Small\nonly_build_toc_files: true\nexecute:\n  execute_notebooks: 'off'\n"
TOC = "format: jb-book\nroot: index\nparts:\n- chapters:\n  - file: book/page.md\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small book in place of this one."""
    for folder in ("book", "notebooks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "_config.yml").write_text(CONFIG, encoding="utf-8")
    (tmp_path / "_toc.yml").write_text(TOC, encoding="utf-8")
    (tmp_path / "index.md").write_text("# Small\n", encoding="utf-8")
    (tmp_path / "book" / "page.md").write_text("# Page\n", encoding="utf-8")
    for module in ("kit", "book.build"):
        monkeypatch.setattr(f"{module}.ROOT", tmp_path)
    monkeypatch.setattr(build, "BUILD", tmp_path / "_build")
    monkeypatch.setattr(build, "SITE", tmp_path / "_build" / "html")
    return tmp_path


def test_page_outside_the_table_of_contents_is_named(project: Path) -> None:
    assert build.pages_outside_toc() == []
    for name in ("book/lost.md", "notebooks/09-lost.ipynb", "lost.md"):
        (project / name).write_text("", encoding="utf-8")
    for name in ("README.md", "book/_part.md", "book/data.yml"):  # no pages
        (project / name).write_text("", encoding="utf-8")
    assert build.pages_outside_toc() == ["book/lost.md", "lost.md", "notebooks/09-lost.ipynb"]


def test_warning_fails_the_build_and_nothing_of_an_older_one_is_left(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "index.md").write_text("# Small\n\n[broken](nowhere.md)\n", encoding="utf-8")
    (project / "_build" / "html").mkdir(parents=True)
    (project / "_build" / "html" / "old.html").write_text("", encoding="utf-8")
    with pytest.raises(Problem, match="faults"):
        build.build_site()
    assert "nowhere.md" in capsys.readouterr().err
    assert (project / "_build" / "html" / "book" / "page.html").is_file()
    assert not (project / "_build" / "html" / "old.html").exists()


@pytest.mark.parametrize(
    ("name", "kind"), [("lab.mjs", "text/javascript"), ("lab.wasm", "application/wasm")]
)
def test_modules_and_wasm_are_served_with_their_types(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(build.Pages, directory=str(tmp_path))
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/{name}") as answer:
            assert answer.headers["Content-Type"] == kind
        server.shutdown()
        thread.join()
