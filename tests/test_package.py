"""What `labserver` itself gives out."""

from __future__ import annotations

import ast
import importlib
import shutil
import subprocess
import sys
import tarfile
import tomllib
from email import message_from_bytes
from email.message import Message
from fnmatch import fnmatchcase
from pathlib import Path
from zipfile import ZipFile

import pytest

import labserver
from labserver import exercises

ROOT = Path(__file__).parents[1]


def declared() -> dict[str, str]:
    """For each public name the module that it is declared to come from."""
    tree = ast.parse(Path(labserver.__file__).read_text(encoding="utf-8"))
    return {
        name.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("labserver.")
        for name in node.names
        if node.module != "labserver.notebook"
    }


def test_every_public_name_is_the_one_that_is_declared() -> None:
    homes = declared()
    assert {*homes, "__version__"} == set(labserver.__all__)
    for name, home in homes.items():
        assert getattr(labserver, name) is getattr(importlib.import_module(home), name)
    assert set(labserver.__all__) <= set(dir(labserver))


def test_conditions_and_exercises_are_also_had_from_their_own_room() -> None:
    for name in exercises.__all__:
        if name != "Condition":
            assert getattr(exercises, name) is getattr(labserver, name)
    assert {"check", "hint", "predict", "progress", "quiz", "Said"} <= set(exercises.__all__)


def test_its_version_is_the_project_s() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert labserver.__version__ == project["version"]


def test_there_is_no_other_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Postman'"):
        labserver.Postman  # noqa: B018


@pytest.mark.process
def test_nothing_is_loaded_before_it_is_asked_for() -> None:
    code = "import labserver, sys; print(*[name for name in sys.modules if 'labserver.' in name])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "\n"


# --- what is given out ---------------------------------------------------------------------------


def run(*command: str | Path, folder: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


BUILD = "from setuptools.build_meta import build_sdist as build; build({!r})"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source archive, built in a copy of all that a fresh clone holds, without network."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, source)
        elif path.name in ("benchmarks", "book", "labserver", "notebooks", "tests"):
            leave = shutil.ignore_patterns("__pycache__", "node_modules")
            shutil.copytree(path, source / path.name, ignore=leave)
    run(sys.executable, "-c", BUILD.format(str(built)), folder=source)
    (made,) = built.glob("*.tar.gz")
    return made


@pytest.mark.process
def test_the_source_archive_holds_the_package_and_no_tests(archive: Path) -> None:
    with tarfile.open(archive) as packed:
        names = {Path(*Path(name).parts[1:]).as_posix() for name in packed.getnames()}
    folders = {name.split("/")[0] for name in names if "/" in name}
    assert folders == {"labserver", "labserver.egg-info"}
    assert {"LICENSE", "LICENSES.txt", "README.md", "pyproject.toml"} <= names
    ours = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "labserver").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert ours <= names


@pytest.mark.process
def test_what_is_installed_from_the_source_archive_works(archive: Path, tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    pip += ["--no-index", "--disable-pip-version-check", f"--target={tmp_path / 'installed'}"]
    run(*pip, archive, folder=tmp_path)
    try_it = (
        "import smtplib, sys; sys.path.insert(0, sys.argv[1]); import labserver as l; "
        "assert l.__file__.startswith(sys.argv[1]); lab = l.Lab(); "
        "client = smtplib.SMTP(*lab.smtp); client.noop(); client.quit(); print(lab.sessions[-1])"
    )
    said = run(sys.executable, "-c", try_it, tmp_path / "installed", folder=tmp_path)
    assert "C: NOOP" in said or "C: noop" in said


@pytest.fixture(scope="module")
def metadata(archive: Path) -> Message:
    with tarfile.open(archive) as packed:
        (name,) = (
            name for name in packed.getnames() if name.count("/") == 1 and "PKG-INFO" in name
        )
        held = packed.extractfile(name)
        assert held is not None
        return message_from_bytes(held.read())


@pytest.mark.process
def test_it_can_live_beside_other_projects(metadata: Message) -> None:
    needs = metadata.get_all("Requires-Dist", [])
    assert len(needs) >= 8
    for need in needs:
        assert "==" not in need.partition(";")[0]
        assert ">=" in need
        assert "<" in need, f"{need} takes versions that nobody knows"
    classifiers = metadata.get_all("Classifier", [])
    assert "Framework :: Pytest" in classifiers
    assert "Programming Language :: Python :: 3.14" in classifiers
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "# Mail Lab" in metadata.get_payload()


def test_what_is_needed_is_pinned_for_the_project_itself() -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0] for line in pins if "==" in line}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needs = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        needs += extra
    assert {need.partition(">=")[0] for need in needs} <= pinned


# --- whose work it is ----------------------------------------------------------------------------


def stanzas() -> list[tuple[list[str], str]]:
    """From LICENSES.txt: the patterns of files, and the licences they are under."""
    found = []
    for text in (ROOT / "LICENSES.txt").read_text(encoding="utf-8").split("\n\n"):
        fields = message_from_bytes(text.encode())
        if fields["Files"]:
            found.append((fields["Files"].split(), fields["License"]))
    return found


def test_every_licence_that_is_named_is_there() -> None:
    text = (ROOT / "LICENSES.txt").read_text(encoding="utf-8")
    assert len(stanzas()) > 10
    for _, named in stanzas():
        for licence in named.split(" and "):
            assert f"\nLicense: {licence.split(' ')[0]}\n " in text


def test_every_file_of_the_site_has_a_licence() -> None:
    site = ROOT / "_build" / "html"
    if not (site / "index.html").exists():
        pytest.skip("there is no site (kit.py book builds it)")
    patterns = [pattern for files, _ in stanzas()[1:] for pattern in files]
    assets = {path.name for path in (ROOT / "book" / "_assets").iterdir()}
    assets |= {"palette.css", "views.css"}  # from labserver/data
    for path in filter(Path.is_file, site.rglob("*")):
        name = path.relative_to(site).as_posix()
        made = path.suffix == ".html" or name.startswith(("_sources/", "_images/"))
        if not made and path.name not in assets:
            assert any(fnmatchcase(name, pattern) for pattern in patterns), f"whose is {name}?"


@pytest.mark.process
def test_the_wheel_holds_only_what_is_ours(archive: Path, tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    run(*pip, "--no-index", "--wheel-dir", tmp_path, archive, folder=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    names = ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"labserver", f"{wheel.name[:15]}.dist-info"}
    assert any(name.endswith("licenses/LICENSES.txt") for name in names)
    # a library of somebody else would come as one of these
    assert not [name for name in names if name.endswith((".min.js", ".woff2", ".ttf", ".so"))]
