"""kit.py, run as a reader runs it: what it makes, what it mends, and what it says when it can't.

Most runs are of a copy of kit.py in a small project that needs no package, so nothing is fetched.
"""

from __future__ import annotations

import errno
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import kit

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[1]
PYPROJECT = """[build-system]
requires = []
[project]
name = "tiny"
[tool.setuptools]
"""
ONE_SENTENCE = re.compile(r"kit\.py: [^\n]+\.\n")


@pytest.fixture(scope="module")
def first_clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project, without spaces or plain letters in its path, on which kit.py has run."""
    clone = tmp_path_factory.mktemp("Übung 1") / "clone"
    clone.mkdir()
    shutil.copy(ROOT / "kit.py", clone)
    (clone / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    for name in (kit.READER, kit.TESTS, kit.DEVELOPER, "constraints.txt"):
        (clone / name).write_text("# nothing\n", encoding="utf-8")
    run = kit_py(clone, "setup")
    assert run.returncode == 0, run.stderr
    return clone


@pytest.fixture
def clone(first_clone: Path) -> Iterator[Path]:
    """The small project, prepared, put back afterwards as it was."""
    kept = first_clone.with_name("kept")
    shutil.copytree(first_clone, kept, symlinks=True)
    yield first_clone
    shutil.rmtree(first_clone)
    kept.rename(first_clone)


@pytest.fixture
def no_index() -> Iterator[dict[str, str]]:
    """Settings for pip under which it reaches no package index, and finds that out at once."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, but nobody listens
        yield only_index(f"http://127.0.0.1:{closed.getsockname()[1]}/simple")


def only_index(url: str) -> dict[str, str]:
    nothing_else = dict.fromkeys(("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"), "")
    pip = {"PIP_INDEX_URL": url, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1"}
    return nothing_else | pip | {"PIP_RETRIES": "1", "PIP_DEFAULT_TIMEOUT": "60"}


PACKAGE = "tiny_post"


def wheel(folder: Path, version: str = "1.0", needs: str = "") -> bytes:
    """A wheel with one module, as an index would send it."""
    about = f"{PACKAGE}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: tiny-post\nVersion: {version}\n"
    files = {
        f"{PACKAGE}/__init__.py": f"import {needs}\n" if needs else "",
        f"{PACKAGE}/letter.py": "",
        f"{about}/METADATA": metadata + (f"Requires-Dist: {needs}\n" if needs else ""),
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{about}/RECORD"])
    path = folder / f"{PACKAGE}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {**files, f"{about}/RECORD": record}.items():
            archive.writestr(name, text)
    return path.read_bytes()


class Index(http.server.BaseHTTPRequestHandler):
    """A package index on this machine; `answer` is how it behaves."""

    answer = "well"
    wheels: dict[str, bytes]

    def do_GET(self) -> None:
        name = self.path.rsplit("/", 1)[-1]
        if self.answer in ("403", "500"):
            self.send_error(int(self.answer))
        elif self.answer == "login page":
            self.reply(b"<html><body><form>Please log in to this network</form></body></html>")
        elif self.answer == "cut page":
            self.reply(self.page(), promised=100_000)
        elif name in self.wheels:
            cut = self.answer == "cut wheel"
            whole = self.wheels[name]
            self.reply(whole[: len(whole) // 2] if cut else whole, promised=len(whole))
        elif self.path == "/simple/tiny-post/":
            self.reply(self.page())
        else:
            self.send_error(404)

    def page(self) -> bytes:
        links = "".join(f'<a href="/files/{name}">{name}</a>' for name in self.wheels)
        return f"<!DOCTYPE html><html><body>{links}</body></html>".encode()

    def reply(self, body: bytes, promised: int | None = None) -> None:
        self.send_response(200)
        kind = "application/octet-stream" if body[:2] == b"PK" else "text/html"
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(promised or len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def index(folder: Path, answer: str = "well", *versions: str, needs: str = "") -> Iterator[str]:
    """The address of a package index that behaves like `answer`."""
    wheels = {
        f"{PACKAGE}-{version}-py3-none-any.whl": wheel(folder, version, needs)
        for version in versions or ("1.0",)
    }
    handler = type("Handler", (Index,), {"answer": answer, "wheels": wheels})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/simple"
        finally:
            server.shutdown()


def kit_py(clone: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return run_python(sys.executable, str(clone / "kit.py"), *arguments, **settings)


def run_python(python: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | settings
    command = [python, *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, encoding="utf-8")


def as_if(change: str, clone: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run kit.py on a Python that was changed first."""
    start = "import runpy, sys; {}; sys.argv = {!r}; runpy.run_path(sys.argv[0], None, '__main__')"
    return run_python(
        sys.executable, "-c", start.format(change, [str(clone / "kit.py"), *arguments])
    )


def without_ensurepip(clone: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run kit.py on a Python as Debian has it without python3-venv."""
    return as_if("sys.modules['ensurepip'] = None", clone, *arguments)


def old_pythons() -> list[str]:
    """The Pythons on this machine that are too old for the lab."""
    names = [f"python{v}" for v in ("2.7", "3.6", "3.7", "3.8", "3.9", "3.10")]
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = [shutil.which(name) for name in names]
    found += [str(p) for name in names for p in pyenv.glob(f"versions/*/bin/{name}")]
    return [p for p in found if p and not run_python(p, "-c", "").returncode]


# --- what the reader gave it --------------------------------------------------------------------


def test_old_python_is_told_what_to_install() -> None:
    runs = [run_python(python, str(ROOT / "kit.py")) for python in old_pythons()]
    runs.append(as_if("sys.version_info = (3, 10, 13)", ROOT))  # there may be no old Python here
    for run in runs:
        assert run.returncode == 1
        assert ONE_SENTENCE.fullmatch(run.stderr)
        assert "Python 3.11 or newer" in run.stderr
        assert "https://www.python.org/downloads/" in run.stderr


def test_newer_python_is_a_notice_and_no_obstacle() -> None:
    run = as_if("sys.version_info = (3, 99, 0)", ROOT, "--help")
    assert run.returncode == 0
    assert "3.99 is newer than the 3.14" in run.stdout


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["tset"], "tset"),
        (["test", "--fast"], "--fast"),
        (["test", "--quick", "--all"], "--quick"),
        (["lab", "01"], "01"),
        (["--serve"], "--serve"),
        (["book", "--serv"], "--serv"),
        (["test", "--q"], "--q"),
        (["lab", "--no-b"], "--no-b"),
    ],
)
def test_wrong_use_is_named_and_help_offered(arguments: list[str], named: str) -> None:
    run = run_python(sys.executable, str(ROOT / "kit.py"), *arguments)
    assert run.returncode == 2
    assert ONE_SENTENCE.fullmatch(run.stderr)
    assert named in run.stderr
    assert "--help" in run.stderr


def test_unknown_lesson_and_missing_benchmarks_are_named(clone: Path) -> None:
    lesson = kit_py(clone, "notebooks", "99-nothing")
    assert (lesson.returncode, lesson.stderr) == (
        2,
        "kit.py: there is no lesson notebooks/99-nothing.ipynb.\n",
    )
    bench = kit_py(clone, "bench")
    assert bench.returncode == 1
    assert ONE_SENTENCE.fullmatch(bench.stderr)


def test_benchmarks_are_told_what_to_measure(clone: Path) -> None:
    (clone / "benchmarks").mkdir()
    script = "import sys; print(sys.argv[1:])"
    (clone / "benchmarks" / "bench.py").write_text(script, encoding="utf-8")
    told = kit_py(clone, "bench", "--quick", "--only", "smtp", "memory").stdout.splitlines()
    assert told[-1] == "['--quick', '--only', 'smtp', 'memory']"
    assert kit_py(clone, "bench").stdout.splitlines()[-1] == "[]"


# --- the virtual environment --------------------------------------------------------------------


def test_prepared_clone_is_left_alone_without_network(
    clone: Path, no_index: dict[str, str]
) -> None:
    stamp = (clone / ".venv" / "kit-stamp.json").stat()
    run = kit_py(clone, "setup", **no_index)
    assert (run.returncode, run.stderr) == (0, "")
    assert "Installing" not in run.stdout
    assert (clone / ".venv" / "kit-stamp.json").stat() == stamp


def test_changed_requirements_are_installed_and_other_settings_are_not(clone: Path) -> None:
    pyproject = clone / "pyproject.toml"
    pyproject.write_text(PYPROJECT + "[tool.ruff]\nline-length = 90\n", encoding="utf-8")
    assert "Installing" not in kit_py(clone, "setup").stdout
    (clone / "requirements.txt").write_text("# still nothing\n", encoding="utf-8")
    again = kit_py(clone, "setup")
    assert again.returncode == 0
    assert "Installing requirements.txt" in again.stdout
    assert "Making" not in again.stdout


def test_users_python_settings_disturb_nothing(clone: Path, tmp_path: Path) -> None:
    (tmp_path / "pip.py").write_text("raise SystemExit('not this one')", encoding="utf-8")
    run = kit_py(clone, "setup", PYTHONPATH=str(tmp_path), VIRTUAL_ENV=str(tmp_path), PIP_USER="1")
    assert (run.returncode, run.stderr) == (0, "")
    assert "Making" not in run.stdout


def test_broken_venv_is_made_anew(clone: Path) -> None:
    kit.python_in(clone / ".venv").unlink()
    run = kit_py(clone, "setup")
    assert (run.returncode, run.stderr) == (0, "")
    assert "Making .venv" in run.stdout
    assert kit.works(clone / ".venv", kit.THIS_PYTHON)


def test_venv_of_a_moved_project_is_not_used(clone: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(clone, moved, symlinks=True)
    assert kit.works(moved / ".venv", kit.THIS_PYTHON), "it runs, but its paths lead elsewhere"
    run = without_ensurepip(moved, "setup")  # so that it can only try to make a new one
    assert "cannot make virtual environments" in run.stderr
    assert without_ensurepip(clone, "setup").returncode == 0


def test_half_made_or_foreign_venvs_are_not_taken_for_working_ones(clone: Path) -> None:
    venv = clone / ".venv"
    assert kit.works(venv, kit.THIS_PYTHON)
    assert not kit.works(venv, "3.99"), "made by another Python"
    shutil.rmtree(next(venv.rglob("site-packages")) / "pip")
    assert not kit.works(venv, kit.THIS_PYTHON), "without pip"
    (venv / "pyvenv.cfg").unlink()
    assert not kit.works(venv, kit.THIS_PYTHON), "without its settings"
    shutil.rmtree(venv)
    assert not kit.works(venv, kit.THIS_PYTHON), "not there"
    venv.write_text("", encoding="utf-8")
    assert not kit.works(venv, kit.THIS_PYTHON), "a file"


def test_missing_ensurepip_names_the_debian_package(clone: Path) -> None:
    shutil.rmtree(clone / ".venv")
    run = without_ensurepip(clone, "setup")
    assert run.returncode == 1
    assert ONE_SENTENCE.fullmatch(run.stderr)
    assert "`sudo apt install python3-venv`" in run.stderr


def test_unreachable_index_is_one_sentence(clone: Path, no_index: dict[str, str]) -> None:
    (clone / "requirements.txt").write_text("trustme==1.2.1\n", encoding="utf-8")
    run = kit_py(clone, "setup", **no_index)
    assert run.returncode == 1
    assert ONE_SENTENCE.fullmatch(run.stderr)
    assert "package index cannot be reached" in run.stderr
    assert "ERROR" in (clone / ".venv" / "pip.log").read_text(encoding="utf-8")


# --- an environment that works is never lost ----------------------------------------------------


def site_packages(clone: Path) -> Path:
    return next((clone / ".venv").rglob("site-packages"))


def imports(clone: Path, module: str) -> bool:
    return not run_python(str(kit.python_in(clone / ".venv")), "-c", f"import {module}").returncode


def need(clone: Path, requirement: str, *modules: str) -> None:
    """Have the small project require something, and its modules before it is ready."""
    (clone / "requirements.txt").write_text(requirement + "\n", encoding="utf-8")
    table = f'[tool.kit.imports]\n"each start" = {json.dumps(modules)}\n'
    (clone / "pyproject.toml").write_text(PYPROJECT + table, encoding="utf-8")


@pytest.fixture
def lesson_kit(clone: Path, tmp_path: Path) -> Path:
    """The small project with a package installed that its lessons import."""
    need(clone, "tiny-post==1.0", PACKAGE)
    with index(tmp_path) as url:
        run = kit_py(clone, "setup", **only_index(url))
    assert (run.returncode, run.stderr) == (0, "")
    assert "Ready" in run.stdout
    return clone


FAILURES = {
    "403": "refuses this machine",
    "500": "fault of its own",
    "login page": "login page",
    "cut page": "cut short",
    "cut wheel": "cut short",
}


@pytest.mark.parametrize("answer", FAILURES)
def test_what_an_index_answers_destroys_nothing(
    lesson_kit: Path, tmp_path: Path, answer: str
) -> None:
    stamp = (lesson_kit / ".venv" / "kit-stamp.json").stat()
    (tmp_path / "more.txt").write_text("tiny-post>=2\n", encoding="utf-8")
    need(lesson_kit, "tiny-post==2.0", PACKAGE)
    with index(tmp_path, answer, "2.0") as url, index(tmp_path, "well", "1.0", "1.1") as other:
        settings = only_index(url) | {"PIP_RETRIES": "0"}
        constraint = {"PIP_CONSTRAINT": str(tmp_path / "more.txt")}
        for beside in ({}, {"PIP_EXTRA_INDEX_URL": other}, constraint):
            run = kit_py(lesson_kit, "setup", **(settings | beside))
            assert run.returncode == 1
            assert ONE_SENTENCE.fullmatch(run.stderr)
            assert FAILURES[answer] in run.stderr
            assert "pip: " in run.stderr
            assert "Making" not in run.stdout
            said = (lesson_kit / ".venv" / "pip.log").read_text(encoding="utf-8")
            assert "ERROR" in said or "error: " in said
            assert imports(lesson_kit, PACKAGE)
        after = (lesson_kit / ".venv" / "kit-stamp.json").stat()
        assert (after.st_ino, after.st_mtime_ns) == (stamp.st_ino, stamp.st_mtime_ns)
        need(lesson_kit, "tiny-post==1.0", PACKAGE)
        assert "Ready" in kit_py(lesson_kit, "setup", **settings).stdout


def test_an_incomplete_environment_stays_until_the_new_one_stands(
    lesson_kit: Path, tmp_path: Path
) -> None:
    venv = lesson_kit / ".venv"
    (site_packages(lesson_kit) / PACKAGE / "letter.py").unlink()
    (venv / "mine").touch()
    for answer in ("403", "cut wheel"):
        with index(tmp_path, answer) as url:
            run = kit_py(lesson_kit, "setup", **only_index(url) | {"PIP_RETRIES": "0"})
        assert run.returncode == 1
        assert ONE_SENTENCE.fullmatch(run.stderr)
        assert "tiny_post/letter.py is missing" in run.stdout
        assert "Ready" not in run.stdout
        assert (venv / "mine").exists()
        assert imports(lesson_kit, PACKAGE)
        assert "ERROR" in (venv / "pip.log").read_text(encoding="utf-8")
    with index(tmp_path) as url:
        run = kit_py(lesson_kit, "setup", **only_index(url))
    assert "Ready" in run.stdout
    assert imports(lesson_kit, PACKAGE + ".letter")
    assert not (venv / "mine").exists()
    assert [path.name for path in lesson_kit.glob(".venv*")] == [".venv"]


def test_an_environment_of_another_python_stays_until_the_new_one_stands(
    lesson_kit: Path, no_index: dict[str, str]
) -> None:
    stamp = lesson_kit / ".venv" / "kit-stamp.json"
    moved = json.loads(stamp.read_text(encoding="utf-8")) | {"folder": "elsewhere"}
    stamp.write_text(json.dumps(moved), encoding="utf-8")
    before = stamp.stat().st_ino
    run = kit_py(lesson_kit, "setup", **no_index)
    assert run.returncode == 1
    assert "of another Python or place" in run.stdout
    assert stamp.stat().st_ino == before
    assert imports(lesson_kit, PACKAGE)


@pytest.mark.skipif(os.name == "nt", reason="a whole group of processes is killed as on Linux")
def test_a_killed_run_is_made_good_by_the_next(lesson_kit: Path) -> None:
    (site_packages(lesson_kit) / PACKAGE / "letter.py").unlink()
    (lesson_kit / ".venv" / "mine").touch()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = only_index(f"http://127.0.0.1:{silent.getsockname()[1]}/simple")
        process = subprocess.Popen(
            [sys.executable, lesson_kit / "kit.py", "setup"],
            env=os.environ | settings,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        silent.accept()[0].close()
        silent.accept()[0].close()  # pip tries again: by now a new environment stands there
        assert not (lesson_kit / ".venv" / "mine").exists()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    run = kit_py(lesson_kit, "setup", **settings | {"PIP_RETRIES": "0"})
    assert "the old one is back" in run.stdout
    assert (lesson_kit / ".venv" / "mine").exists()
    assert imports(lesson_kit, PACKAGE)
    assert [path.name for path in lesson_kit.glob(".venv*")] == [".venv"]


# --- ready is said where it is true -------------------------------------------------------------


def test_ready_is_not_said_where_pip_left_out_what_is_needed(clone: Path, tmp_path: Path) -> None:
    need(clone, "tiny-post==1.0", PACKAGE)
    (tmp_path / "pip.conf").write_text("[install]\nno-deps = true\n", encoding="utf-8")
    with index(tmp_path, needs="not_here") as url:
        settings = only_index(url) | {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf")}
        run = kit_py(clone, "setup", **settings)
    assert run.returncode == 1
    assert ONE_SENTENCE.fullmatch(run.stderr)
    assert "`import tiny_post` fails: No module named 'not_here'" in run.stderr
    assert "no-deps" in run.stderr
    assert "Ready" not in run.stdout


def test_a_users_no_deps_leaves_nothing_out(clone: Path, tmp_path: Path) -> None:
    need(clone, "tiny-post==1.0", PACKAGE)
    with index(tmp_path, needs="json-not-here") as url:
        run = kit_py(clone, "setup", **only_index(url), PIP_NO_DEPS="1")
    assert run.returncode == 1
    assert "json-not-here" in run.stderr, "pip looked for what the package depends on"


@pytest.mark.parametrize("harm", ["a deleted package", "a deleted module", "a broken module"])
def test_ready_is_not_said_where_the_lesson_kit_is_harmed(
    lesson_kit: Path, no_index: dict[str, str], harm: str
) -> None:
    package = site_packages(lesson_kit) / PACKAGE
    if harm == "a deleted package":
        shutil.rmtree(package)
    elif harm == "a deleted module":
        (package / "letter.py").unlink()
    else:
        (package / "__init__.py").write_text("raise OSError('half a file')", encoding="utf-8")
    run = kit_py(lesson_kit, "setup", **no_index)
    assert run.returncode == 1
    assert "is incomplete" in run.stdout
    assert "Ready" not in run.stdout


# --- a checkout that cannot be written to -------------------------------------------------------


def test_state_goes_to_the_user_where_the_checkout_has_no_place(
    lesson_kit: Path, tmp_path: Path
) -> None:
    state = lesson_kit / ".venv" / "state"
    shutil.rmtree(state, ignore_errors=True)
    state.touch()  # no folder can be made there
    run = kit_py(lesson_kit, "setup", HOME=str(tmp_path), XDG_CACHE_HOME="")
    assert (run.returncode, run.stderr) == (0, "")
    assert "Ready" in run.stdout
    assert [path.name[:9] for path in (tmp_path / ".cache").iterdir()] == ["mail-lab-"]
    home = tmp_path / "a file"
    home.touch()
    run = kit_py(lesson_kit, "setup", HOME=str(home), XDG_CACHE_HOME="", TMPDIR=str(tmp_path))
    assert (run.returncode, run.stderr) == (0, "")


def read_only(clone: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run kit.py where its project cannot be written to, not even by root."""
    command = [sys.executable, str(clone / "kit.py"), *arguments]
    if os.geteuid():
        subprocess.run(["chmod", "-R", "a-w", clone], check=True)
    else:
        mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", mount, str(clone), *command]
    try:
        return subprocess.run(
            command, env=os.environ | settings, capture_output=True, encoding="utf-8"
        )
    finally:
        if os.geteuid():
            subprocess.run(["chmod", "-R", "u+w", clone], check=True)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux makes it read-only so")
def test_a_read_only_checkout_that_is_ready_runs(lesson_kit: Path, tmp_path: Path) -> None:
    (lesson_kit / "tests").mkdir()
    (lesson_kit / "tests" / "checks.py").write_text("print('checked')\n", encoding="utf-8")
    run = kit_py(lesson_kit, "setup")  # by now all three requirement files are installed
    (lesson_kit / "requirements-dev.txt").write_text("-r requirements.txt\n", encoding="utf-8")
    with index(tmp_path) as url:
        assert kit_py(lesson_kit, "test", **only_index(url)).returncode == 0
    shutil.rmtree(lesson_kit / ".venv" / "state", ignore_errors=True)
    for command, says in {"setup": "Ready", "test": "checked"}.items():
        run = read_only(lesson_kit, command, HOME=str(tmp_path), XDG_CACHE_HOME="")
        assert (run.returncode, run.stderr) == (0, "")
        assert says in run.stdout
    need(lesson_kit, "tiny-post==2.0", PACKAGE)
    run = read_only(lesson_kit, "setup", HOME=str(tmp_path), XDG_CACHE_HOME="")
    assert run.returncode == 1
    assert ONE_SENTENCE.fullmatch(run.stderr)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is full")
def test_full_disk_is_one_sentence(clone: Path) -> None:
    (clone / "requirements.txt").write_text("# another nothing\n", encoding="utf-8")
    settings = next(clone.rglob("overrides.json"))
    settings.unlink()
    settings.symlink_to("/dev/full")
    run = kit_py(clone, "setup")
    assert run.returncode == 1
    assert ONE_SENTENCE.fullmatch(run.stderr)
    assert "the disk is full" in run.stderr


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        (
            str(PermissionError(errno.EACCES, os.strerror(errno.EACCES), ".venv")),
            "cannot be written",
        ),
        (str(OSError(errno.EROFS, os.strerror(errno.EROFS), ".venv")), "cannot be written"),
        ("ERROR: [Errno 28] No space left on device", "disk is full"),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]", "PIP_CERT"),
        ("socket.gaierror: [Errno 11001] getaddrinfo failed", "cannot be reached"),
        ("ERROR: HTTP error 403 while getting https://index.example/x.whl", "refuses"),
        ("requests.exceptions.HTTPError: 401 Client Error: Unauthorized for url", "refuses"),
        ("ERROR: HTTP error 503 while getting https://index.example/x.whl", "fault of its own"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM", "cut short"),
        ("IncompleteRead(10 bytes read, 90 more expected)", "cut short"),
        ("ERROR: Failed building wheel for cffi", None),
    ],
)
def test_known_failures_have_a_remedy(said: str, advice: str | None) -> None:
    remedy = kit.remedy(said)
    assert remedy is None if advice is None else advice in (remedy or "")


def test_pips_last_words_are_short_and_hold_no_password() -> None:
    said = "Looking\nERROR: HTTP error 403 while getting https://me:secret@index.example/x\nbye\n"
    assert kit.last_error(said) == "pip: HTTP error 403 while getting https://index.example/x"
    assert kit.last_error("") == "pip: no reason was given"
    assert len(kit.last_error("ERROR: " + "x" * 5_000)) < 400


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is sent as a terminal of Linux or macOS does")
@pytest.mark.parametrize(
    "stop",
    [
        pytest.param(lambda kit_py: os.killpg(kit_py.pid, signal.SIGINT), id="Ctrl-C"),
        pytest.param(lambda kit_py: kit_py.terminate(), id="SIGTERM to kit.py alone"),
    ],
)
def test_a_stopped_kit_ends_what_it_started(
    clone: Path, stop: Callable[[subprocess.Popen[str]], None]
) -> None:
    (clone / "requirements.txt").write_text("trustme==1.2.1\n", encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        env = os.environ | only_index(f"http://127.0.0.1:{silent.getsockname()[1]}/simple")
        process = subprocess.Popen(
            [sys.executable, clone / "kit.py", "setup"],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,
        )
        pip = silent.accept()[0]  # pip waits for an answer that does not come
        stop(process)
        _, said = process.communicate(timeout=30)
        assert (process.returncode, said) == (130, "kit.py: stopped.\n")
        pip.settimeout(30)
        while pip.recv(4096):
            pass  # it ends when pip has ended
        pip.close()


# --- the lab ------------------------------------------------------------------------------------


def first_answer(address: str) -> bytes:
    """Ask until there is an answer: JupyterLab names its address just before it listens."""
    while True:
        try:
            with urllib.request.urlopen(address) as page:
                return page.read()
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionRefusedError):
                raise


@pytest.mark.skipif(
    kit.read_stamp(kit.VENV).get(kit.READER) != kit.fingerprint(kit.READER) or os.name == "nt",
    reason="needs a prepared .venv (kit.py setup) on Linux or macOS",
)
def test_lab_opens_the_first_lesson_with_its_own_kernel(tmp_path: Path) -> None:
    kernel = tmp_path / ".local" / "share" / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(
        json.dumps({"argv": ["false"], "display_name": "another", "language": "python"}),
        encoding="utf-8",
    )
    before = sorted(tmp_path.rglob("*"))
    process = subprocess.Popen(
        [sys.executable, ROOT / "kit.py", "lab", "--no-browser"],
        env=os.environ | {"HOME": str(tmp_path), "JUPYTER_PATH": str(kernel.parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        said = iter(process.stdout.readline, "")
        address = next(
            found[0] for line in said if (found := re.search(r"http://127\.0\.0\.1:\S+", line))
        )
        host, token = re.fullmatch(
            r"(http://[^/]+)/lab/tree/notebooks/00-start-here\.ipynb\?token=(\w+)", address
        ).groups()
        assert b"JupyterLab" in first_answer(address)
        with urllib.request.urlopen(f"{host}/api/kernelspecs?token={token}") as answer:
            spec = json.load(answer)["kernelspecs"]["python3"]["spec"]
        assert spec["argv"][1:3] == ["-m", "ipykernel_launcher"]
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 130
    assert [
        p for p in sorted(tmp_path.rglob("*")) if not {".npm", ".rustup"} & {*p.parts}
    ] == before
