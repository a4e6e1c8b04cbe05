"""The book's sources, and what repairs, generates and checks its pages.

What needs the whole site is checked by ``kit.py book``, which runs ``book/check_site.py`` on it.
"""

from __future__ import annotations

import datetime
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from labserver import catalog
from labserver.transcript import ProtocolName
from labserver.views.view import KINDS, View, sheet

ROOT = Path(__file__).parents[1]
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
WOOXY = yaml.safe_load((ROOT / "book" / "data" / "wooxy.yml").read_text(encoding="utf-8"))
HELP = (ROOT / "book" / "smtp-and-google.md").read_text(encoding="utf-8")

# Written by book/generate.py at each build, therefore not in a clone.
GENERATED = {"book/reference"}


def toc_pages() -> list[str]:
    return [TOC["root"], *(c["file"] for part in TOC["parts"] for c in part["chapters"])]


def source_pages() -> dict[str, Path]:
    files = [ROOT / "index.md", *(ROOT / "book").rglob("*.md"), *ROOT.glob("notebooks/*.ipynb")]
    return {f.relative_to(ROOT).with_suffix("").as_posix(): f for f in files}


# --- table of contents -----------------------------------------------------------------------


def test_toc_lists_every_page() -> None:
    assert source_pages().keys() - set(toc_pages()) == set(), "pages that nobody can find"


def test_toc_lists_no_page_that_is_missing() -> None:
    assert set(toc_pages()) - source_pages().keys() - GENERATED == set()


def test_every_lesson_is_linked_from_the_landing_page() -> None:
    landing = (ROOT / "index.md").read_text(encoding="utf-8")
    for page in toc_pages()[1:]:
        assert f"]({page}." in landing, f"the landing page has no link to {page}"


# --- Wooxy's settings ------------------------------------------------------------------------


def test_settings_have_their_types_and_no_other_keys() -> None:
    today = {
        "checked": datetime.date,
        "source": dict,
        "server": str,
        "port": int,
        "connection": str,
        "connection_elsewhere": str,
        "username": str,
        "password": str,
        "password_confirmed": bool,
        "old": dict,
    }
    old = {"dated": datetime.date, "server": str, "port": int, "connection": str}
    source = {"publisher": str, "title": str, "url": str, "dated": datetime.date}
    for values, types in ((WOOXY, today), (WOOXY["old"], old), (WOOXY["source"], source)):
        assert {key: type(value) for key, value in values.items()} == types
    for server in (WOOXY["server"], WOOXY["old"]["server"]):
        assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", server)
    assert WOOXY["checked"] > WOOXY["source"]["dated"]


@pytest.mark.parametrize("name", sorted(source_pages().keys() - GENERATED))
def test_settings_are_written_by_hand_in_no_page(name: str) -> None:
    text = source_pages()[name].read_text(encoding="utf-8")
    for value in (WOOXY["server"], WOOXY["connection"], WOOXY["old"]["server"]):
        assert value not in text, f"{name} writes {value!r} by hand: take it from wooxy.yml"


def test_old_connection_is_written_by_hand_only_where_a_lesson_quotes_it() -> None:
    assert WOOXY["old"]["connection"] not in HELP


def test_ports_are_written_by_hand_only_where_the_standard_is_told() -> None:
    standard = "### What happens on the connection"  # RFC 6409 and RFC 8314, not Wooxy
    before, told = HELP.split(standard)
    after = told[told.index("\n## ") :]
    for port in (WOOXY["port"], WOOXY["old"]["port"]):
        assert not re.search(rf"\b{port}\b", before + after), f"port {port} stands in the page"


def test_page_uses_every_setting_that_the_reader_enters() -> None:
    for key in ("server", "port", "connection", "username", "password", "checked"):
        assert f"{{{{ wooxy.{key} }}}}" in HELP
    for key in ("server", "port", "connection"):
        assert f"{{{{ wooxy.old.{key} }}}}" in HELP


def test_page_says_that_the_password_line_is_unconfirmed() -> None:
    assert ("The password line is unconfirmed." in HELP) == (not WOOXY["password_confirmed"])


# --- the help-center page --------------------------------------------------------------------


def test_page_is_in_the_readers_order() -> None:
    headings = re.findall(r"^## (.+)$", HELP, re.MULTILINE)
    assert headings == [
        "What to do instead",
        "Before you start",
        "The settings",
        "Step by step",
        "The confirmation",
        "See that it works",
        "Problems",
        "Sending limits",
        "Set up before?",
        "Background",
        "What changed",
        "Sources",
    ]


def test_dated_notice_stands_before_everything_else() -> None:
    notice = HELP[: HELP.index("\n## ")]
    assert "Gmail ends this in January 2027" in notice
    assert re.search(r"Checked on \d{1,2} [A-Z][a-z]+ 20\d\d", notice)


def test_page_has_nine_steps() -> None:
    steps = HELP[HELP.index("## Step by step") : HELP.index("## The confirmation")]
    assert re.findall(r"^(\d)\. ", steps, re.MULTILINE) == list("123456789")


def test_every_source_is_used_and_says_how_it_is_known() -> None:
    sources = dict(re.findall(r"^\[\^(\w+)\]: (.+)$", HELP, re.MULTILINE))
    used = set(re.findall(r"\[\^(\w+)\](?!:)", HELP))
    assert used == sources.keys()
    for name, text in sources.items():
        assert re.search(r"\b(read|quoted|one report|unconfirmed)\b", text.lower()), name


def test_page_promises_nothing_about_delivery() -> None:
    promise = r"guarantee|always (?:arrive|work|deliver)|never fail|100 ?%|risk-free"
    assert not re.search(promise, HELP, re.IGNORECASE)


@pytest.mark.parametrize("name", sorted(source_pages()))
def test_page_names_no_place_on_somebodys_machine(name: str) -> None:
    text = source_pages()[name].read_text(encoding="utf-8")
    assert not re.search(r"(?<![\w.])/(?:root|home|tmp|work|Users)/|[A-Z]:\\\\", text)


# --- the build -------------------------------------------------------------------------------


def test_build_runs_no_lesson_and_follows_the_readers_theme() -> None:
    assert CONFIG["execute"]["execute_notebooks"] == "off"
    assert CONFIG["sphinx"]["config"]["html_context"]["default_mode"] == "auto"


def module(name: str) -> ModuleType:
    """Load a file of the book, such as ``_ext/page_repairs.py``; they form no package."""
    spec = importlib.util.spec_from_file_location(Path(name).stem, ROOT / "book" / name)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_thebe_is_dropped_and_the_rest_kept() -> None:
    from sphinx.builders.html._assets import _CascadingStyleSheet, _JavaScript

    kept: list[Any] = [_JavaScript("doctools.js"), _JavaScript("", body="let x = 1")]
    thebe = [
        _JavaScript("sphinx-thebe.js"),
        _JavaScript("", body='const THEBE_JS_URL = "https://cdn.example/thebe.js"'),
    ]
    sheet, thebe_sheet = _CascadingStyleSheet("book.css"), _CascadingStyleSheet("sphinx-thebe.css")
    context = {"script_files": [*kept, *thebe], "css_files": [sheet, thebe_sheet]}
    module("_ext/page_repairs.py")._drop_thebe(None, "index", "page.html", context, None)
    assert context == {"script_files": kept, "css_files": [sheet]}


def test_views_in_a_page_share_one_style_sheet(tmp_path: Path) -> None:
    class App:
        outdir, added = tmp_path, []

        def add_css_file(self, name: str) -> None:
            self.added.append(name)

    repairs, app = module("_ext/page_repairs.py"), App()
    repairs._write_view_styles(app)
    written = (tmp_path / "_static" / "views.css").read_text(encoding="utf-8")
    views = [View(kind, f"<section>{kind}</section>", "") for kind in KINDS]
    assert all(sheet(one) in written for view in views for one in view.kind.split())
    context = {"body": "<p>before</p>" + "".join(view.html for view in views)}
    repairs._share_view_styles(app, "page", "page.html", context, None)
    assert context["body"] == "<p>before</p>" + "".join(view.body for view in views)
    other = {"body": "<style>p { margin: 0 }</style>"}
    repairs._share_view_styles(app, "other", "page.html", other, None)
    assert other == {"body": "<style>p { margin: 0 }</style>"}
    assert app.added == ["views.css"]


# --- the reference page ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    return module("generate.py")


@pytest.mark.parametrize("protocol", catalog.PROTOCOLS)
def test_reference_has_a_place_for_everything_in_the_catalog(
    generate: ModuleType, protocol: ProtocolName
) -> None:
    page, table = generate.reference(), catalog.load(protocol)
    for command in table.commands.values():
        assert f"\n({command.anchor})=\n#### " in page
    for kind in ("replies", "keywords", "codes", "data", "flags", "digits", "states"):
        for entry in getattr(table, kind).values():
            assert f"]{{#{entry.anchor}}}\n: " in page


def test_reference_has_a_place_for_every_enhanced_status_code(generate: ModuleType) -> None:
    page = generate.reference()
    for status in catalog.enhanced_statuses():
        assert f"[`{status.code}`]{{#{status.anchor}}}\n: " in page


def test_reference_says_of_a_command_all_that_the_catalog_says(generate: ModuleType) -> None:
    page, command = generate.reference(), catalog.load("SMTP").commands["STARTTLS"]
    start = page.index("\n(smtp-starttls)=")
    block = page[start : page.index("\n#### ", page.index("\n#### ", start) + 1)]
    assert f"```text\n{command.syntax}\n```" in block
    assert f"**{command.title}** {command.meaning}" in block
    assert "Allowed in: [Ready](#smtp-state-ready). Once in a session." in block
    for code, meaning in command.replies:
        assert f"[`{code}`](#smtp-{code})\n: {meaning}" in block
    assert f"[{command.sources[0]}](https://www.rfc-editor.org/rfc/rfc3207#section-4)" in block


def test_reference_anchors_are_each_given_once(generate: ModuleType) -> None:
    page = generate.reference()
    given = re.findall(r"^\(([a-z0-9-]+)\)=$|\]\{#([a-z0-9-]+)\}$", page, re.MULTILINE)
    names = [heading or term for heading, term in given]
    assert sorted(names) == sorted(set(names))
    assert set(re.findall(r"\]\(#([a-z0-9-]+)\)", page)) <= set(names)


def test_plain_text_keeps_its_signs_in_markdown(generate: ModuleType) -> None:
    assert generate._text("RCPT TO:<a@b> *[x]* {y}") == r"RCPT TO:\<a@b\> \*\[x\]\* \{y\}"


# --- the page of views ------------------------------------------------------------------------


@pytest.mark.process
def test_views_are_made_by_the_code_on_their_page(generate: ModuleType) -> None:
    page = (ROOT / "book" / "views.md").read_text(encoding="utf-8")
    shown = generate.examples(page)
    assert list(shown) == re.findall(r"^:file: (\S+)$", page, re.MULTILINE)
    kinds = [re.findall(r'<section class="ml-view ml-(\w+)"', html) for html in shown.values()]
    assert [" ".join(kind) for kind in kinds] == [
        *("dialogue", "fork compare", "sequence", "wire", "wire", "states", "timeline"),
        *("compare", "message", "dialogue"),
    ]
    assert not any("lab-password" in html for html in shown.values())


# --- book/check_site.py ----------------------------------------------------------------------

PAGE = '<html lang="en"><body><h1 id="top">A page</h1>{}</body></html>'


def faults(site: Path) -> list[str]:
    found: list[str] = module("check_site.py").check(site)
    return found


def test_sound_site_passes(tmp_path: Path) -> None:
    body = (
        '<a href="sub/b.html#top">b</a> <a href="https://www.rfc-editor.org/rfc/rfc5321">RFC</a>'
        '<img src="a.svg" alt="An envelope"><pre>{{ left.alone }}</pre>'
    )
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.svg").write_text("<svg/>")
    (tmp_path / "index.html").write_text(PAGE.replace("{}", body))
    (tmp_path / "sub" / "b.html").write_text(PAGE.replace("{}", '<a href="#top">up</a>'))
    assert faults(tmp_path) == []


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ('<a href="gone.html">x</a>', "leads to no file"),
        ('<a href="#gone">x</a>', "leads to no such place"),
        ('<a href="../up.html">x</a>', "leaves the site's folder"),
        ('<img src="index.html">', "no text for who cannot see it"),
        ('<img src="index.html" alt="index.html">', "no text for who cannot see it"),
        ("<h1>Another</h1>", "2 headings of the first level"),
        ("<p>{{ wooxy.server }}</p>", "was not filled in"),
        ('<script src="https://cdn.example/x.js"></script>', "from another host"),
        ('<link rel="stylesheet" href="//fonts.example/f.css">', "from another host"),
        ("<style>@import 'https://fonts.example/f.css';</style>", "from another host"),
        ('<p style="background: url(https://img.example/b.png)">x</p>', "from another host"),
    ],
)
def test_fault_in_a_page_is_named(tmp_path: Path, body: str, sentence: str) -> None:
    (tmp_path / "index.html").write_text(PAGE.replace("{}", body))
    (fault,) = faults(tmp_path)
    assert fault.startswith("index.html: ")
    assert sentence in fault


def test_foreign_font_in_a_style_sheet_is_named(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(PAGE)
    (tmp_path / "book.css").write_text("@font-face { src: url('https://fonts.example/f.woff2') }")
    (fault,) = faults(tmp_path)
    assert fault.startswith("book.css: fetches https://fonts.example/f.woff2")


def test_missing_language_is_named(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(PAGE.replace(' lang="en"', ""))
    (fault,) = faults(tmp_path)
    assert "does not say its language" in fault


@pytest.mark.process
def test_missing_site_is_one_sentence_and_a_failure(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, str(ROOT / "book" / "check_site.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stderr) == (1, "")
    assert run.stdout.startswith("There is no index.html")
    assert run.stdout.count("\n") == 1
