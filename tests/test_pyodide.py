"""The lab in Pyodide, the Python for browsers, here under Node: no TLS, threads or sockets.

What is fetched for it (npm's pyodide, wheels) stays in `_build/pyodide`.
"""

from __future__ import annotations

import hashlib
import json
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import pytest

from labserver import tls

# The first of them waits for what is fetched.
pytestmark = [pytest.mark.pyodide, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[1]
HERE = ROOT / "tests" / "pyodide"
# How npm and pip say that they can't reach a registry.
UNREACHABLE = re.compile(
    "ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ERR_SOCKET_TIMEOUT"
    "|NewConnectionError|ConnectTimeoutError|NameResolutionError|ReadTimeoutError|ProxyError"
)
ELSEWHERE = {"IPython", "aiohttp", "ipywidgets", "matplotlib", "nh3", "pytest"}
"""What labserver is used with, but isn't there in a bare Pyodide."""


def run(*command: str | Path, folder: Path = ROOT) -> str:
    """Run a program; its standard output."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode != 0:
        raise AssertionError(done.stdout + done.stderr)
    return done.stdout


def fetch(name: str, *command: str | Path, folder: Path = ROOT) -> None:
    """Run npm or pip, or skip if its registry can't be reached."""
    try:
        run(*command, folder=folder)
    except AssertionError as error:
        if UNREACHABLE.search(str(error)):
            pytest.skip(f"{name} can't reach its registry: connect this machine to the Internet")
        raise


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"there is no {name}: install Node")
    return found


@pytest.fixture(scope="module")
def node() -> str:
    return program("node")


@pytest.fixture(scope="module")
def fetched(node: str) -> Path:
    """A folder with npm's pyodide in `node_modules` and what labserver depends on in `wheels`."""
    npm = program("npm")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    dependencies = project["dependencies"]
    pins = [HERE / "package-lock.json", ROOT / "constraints.txt"]
    contents = [pin.read_bytes() for pin in pins] + [name.encode() for name in dependencies]
    kept = ROOT / "_build" / "pyodide" / hashlib.sha256(b"\n".join(contents)).hexdigest()[:16]
    if kept.exists():
        return kept

    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as unfinished:
        new = Path(unfinished, "fetched")
        fetch_into(new, npm, dependencies)
        new.rename(kept)
    return kept


def fetch_into(new: Path, npm: str, dependencies: list[str]) -> None:
    new.mkdir()
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, new)
    quick = ["--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--ignore-scripts"]
    fetch("npm", npm, "ci", "--no-audit", "--no-fund", *quick, folder=new)

    download = [sys.executable, "-m", "pip", "download", f"--dest={new / 'wheels'}"]
    download += ["--quiet", "--retries=1", "--timeout=20", "--constraint=constraints.txt"]
    download += ["--only-binary=:all:", "--python-version=3.14", "--platform=any", "--abi=none"]
    # cryptography, below trustme, is no pure Python; without it the lab does without TLS.
    fetch("pip", *download, *(name for name in dependencies if not name.startswith("trustme")))
    fetch("pip", *download, "--no-deps", *dependencies)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """labserver's wheel, built in a copy, for setuptools would leave things in the project."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for file in filter(Path.is_file, ROOT.iterdir()):
        shutil.copy(file, source)
    shutil.copytree(ROOT / "labserver", source / "labserver")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    run(*pip, "--wheel-dir", built, source)
    (made,) = built.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def pyodide(node: str, fetched: Path, wheel: Path) -> dict[str, Any]:
    """What happened in Pyodide: `tests/pyodide/facts.py`."""
    wheels = [*sorted((fetched / "wheels").glob("*.whl")), wheel]
    said = run(node, HERE / "guard.mjs", fetched / "node_modules", *wheels)
    facts: dict[str, Any] = json.loads(said)
    return facts


def test_it_is_the_python_of_the_browser(pyodide: dict[str, Any]) -> None:
    assert (pyodide["platform"], pyodide["python"]) == ("emscripten", [3, 14])
    assert pyodide["running loop"], "a cell runs inside a loop, and the lab has to as well"


def test_lab_chooses_the_inline_network_and_does_without_tls(pyodide: dict[str, Any]) -> None:
    assert pyodide["network"] == "InlineNetwork"
    assert pyodide["can"] == []
    assert pyodide["listeners"] == ["smtp", "pop3", "imap"]


def test_what_needs_tls_says_so_in_a_sentence(pyodide: dict[str, Any]) -> None:
    no_listener = "This lab has no listener {}: it needs TLS, which this Python can't do."
    no_tls = "This lab has no TLS: this Python can't do it."
    assert pyodide["no TLS"] == {
        "submission": no_listener.format("submission"),
        "imaps": no_listener.format("imaps"),
        "tls": no_tls,
        "ca": no_tls,
    }


def test_mail_sent_with_smtplib_is_read_with_poplib_and_imaplib(pyodide: dict[str, Any]) -> None:
    assert pyodide["there and back"] == {
        "reverse-path": "<ana@lab.example>",
        "subject": "Grüße",
        "text": ["Hello Ben", ".a line with a dot"],
        "same by POP3": True,
        "same by IMAP": True,
        "flagged": "1",
    }


def test_each_connection_is_a_session_complete_when_the_client_has_gone(
    pyodide: dict[str, Any],
) -> None:
    firsts = [text.splitlines()[0] for text in pyodide["sessions"]]
    assert firsts == ["SMTP on smtp", "POP3 on pop3", "IMAP on imap"]
    assert pyodide["closed"] == [True, True, True]
    assert not any("ana-lab-password" in text for text in pyodide["sessions"])


def test_sessions_print_as_they_do_in_this_python(
    pyodide: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABSERVER_NETWORK", "inline")
    monkeypatch.setattr(tls, "available", lambda: False)
    here = runpy.run_path(str(HERE / "facts.py"))["facts"]()
    assert pyodide["sessions"] == here["sessions"]


def test_sessions_show_in_jupyter_with_style_and_meaning(pyodide: dict[str, Any]) -> None:
    for page in pyodide["in Jupyter"]:
        assert "<style>" in page
        assert "RFC " in page


def test_a_closed_lab_refuses_and_the_next_one_starts_empty(pyodide: dict[str, Any]) -> None:
    assert pyodide["closed lab"] == "ConnectionRefusedError"
    assert pyodide["second lab"] == 0


def test_refused_recipients_leave_the_other_one(pyodide: dict[str, Any]) -> None:
    codes, delivered = pyodide["refused"]
    assert codes == {"nobody@lab.example": "550 5.1.1", "somebody@elsewhere.example": "550 5.7.1"}
    assert delivered == 1


def test_long_message_is_stored_whole_and_shortened_in_the_transcript(
    pyodide: dict[str, Any],
) -> None:
    message = pyodide["long message"]
    assert message["whole"]
    assert message["counted"] > message["sent"] > message["kept"] == 64 * 1024


def test_lines_can_be_typed_and_a_login_does_without_tls(pyodide: dict[str, Any]) -> None:
    assert pyodide["typed"].splitlines()[:5] == [
        "POP3 on pop3",
        "S: +OK lab.example POP3 server ready",
        "C: USER ben@lab.example",
        "S: +OK send the password",
        "C: PASS ••••••••••••",
    ]
    assert pyodide["typed"].splitlines()[-1].startswith("Note: QUIT ended the session")


def test_idle_client_hears_of_mail_and_its_patience_takes_no_time(pyodide: dict[str, Any]) -> None:
    assert pyodide["idle"] == ["EXISTS", "RECENT"]


def test_every_module_imports_but_for_jupyter_and_pytest(pyodide: dict[str, Any]) -> None:
    assert {name: why for name, why in pyodide["modules"].items() if why not in ELSEWHERE} == {}


def test_nothing_warns_and_nothing_fails_unheard(pyodide: dict[str, Any]) -> None:
    assert pyodide["complaints"] == []
