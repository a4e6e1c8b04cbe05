"""A static look for what only Linux and macOS have, because the tests themselves run on Linux.

It reads labserver, kit.py and what kit.py starts. A use is allowed under a guard: an `if` that asks
for the system or with hasattr, or a `try` that expects the name to be missing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [
    ROOT / "kit.py",
    ROOT / "tests" / "checks.py",
    ROOT / "tests" / "normal_form.py",
    *sorted((ROOT / "book").rglob("*.py")),
    *sorted((ROOT / "labserver").rglob("*.py")),
]

# Absent from Windows, or there only in name.
MODULES = set("crypt curses fcntl grp posix pty pwd readline resource syslog termios tty".split())
NAMES = {
    "os": """chown chroot fchmod fchown fork forkpty getegid geteuid getgid getgroups getpgid getuid
        kill killpg lchown link mkfifo mknod nice openpty posix_spawn pread pwrite
        sched_getaffinity setgid setsid setuid statvfs symlink sync sysconf uname wait""",
    "signal": """SIGALRM SIGCHLD SIGHUP SIGKILL SIGPIPE SIGQUIT SIGUSR1 SIGUSR2 alarm pause
        pthread_kill pthread_sigmask setitimer sigwait""",
    "socket": "AF_UNIX MSG_DONTWAIT SO_REUSEPORT recv_fds send_fds",
    "asyncio": "open_unix_connection start_unix_server",
    "time": "clock_gettime tzset",
}
ATTRIBUTES = {f"{module}.{name}" for module, names in NAMES.items() for name in names.split()}
# Methods that loops or paths of Windows refuse or only pretend to have. (add_reader isn't one of
# them where the loop is made as a SelectorEventLoop, as the loopback network's is.)
METHODS = set(
    """add_signal_handler chmod create_unix_connection create_unix_server
    hardlink_to lchmod symlink_to""".split()
)
KEYWORDS = {"pass_fds", "preexec_fn", "shell", "start_new_session"}
TEXTS = re.compile(r"(^|[\s'\"])/(tmp|dev|etc|proc|var)(/|$)|bin/python|%-[dHIjmMSU]")
GUARDS = re.compile(r"platform|os\.name|WINDOWS|hasattr|getattr")
EXPECTED = re.compile(r"ImportError|ModuleNotFoundError|AttributeError|NotImplementedError")

TEXT_READERS = {"read_text", "write_text", "TextIOWrapper", "fdopen"}
NOT_FILES = {"webbrowser", "os", "zipfile", "tarfile"}  # whose open() opens no text file


def faults(tree: ast.AST) -> list[str]:
    """Return what in a module would not work, or not alike, on every system."""
    return [f"line {getattr(node, 'lineno', 0)}: {fault}" for node, fault in _walk(tree)]


def _walk(node: ast.AST, guarded: bool = False) -> Iterator[tuple[ast.AST, str]]:
    if not guarded:
        yield from ((node, fault) for fault in _posix(node))
    yield from ((node, fault) for fault in _encoding(node))
    guarded = guarded or _is_guard(node)
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, guarded)


def _is_guard(node: ast.AST) -> bool:
    if isinstance(node, ast.If | ast.IfExp):
        return bool(GUARDS.search(ast.unparse(node.test)))
    if isinstance(node, ast.Try):
        return any(h.type and EXPECTED.search(ast.unparse(h.type)) for h in node.handlers)
    return False


def _posix(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (f"module {n.name}" for n in names if n.name.split(".")[0] in MODULES)
        case ast.ImportFrom(module=str(module), names=names):
            if module.split(".")[0] in MODULES:
                yield f"module {module}"
            yield from (n for name in names if (n := f"{module}.{name.name}") in ATTRIBUTES)
        case ast.Attribute(value=ast.Name(id=owner), attr=name) if f"{owner}.{name}" in ATTRIBUTES:
            yield f"{owner}.{name}"
        case ast.Call(func=ast.Attribute(attr=name)) if name in METHODS:
            yield f"{name}()"
        case ast.keyword(arg=str(name)) if name in KEYWORDS:
            yield f"{name}="
        case ast.Constant(value=str(text)) if "\n" not in text and TEXTS.search(text):
            yield repr(text)


def _encoding(node: ast.AST) -> Iterator[str]:
    if not isinstance(node, ast.Call):
        return
    keywords = {keyword.arg for keyword in node.keywords}
    arguments = [ast.unparse(argument) for argument in [*node.args, *node.keywords]]
    binary = any(re.fullmatch(r"(mode=)?'[rwax+]*b[rwax+]*'", a) for a in arguments)
    match node.func:
        case ast.Name(id="open") | ast.Attribute(attr="open"):
            owner = getattr(getattr(node.func, "value", None), "id", None)
            reads_text = owner not in NOT_FILES and not binary
        case ast.Attribute(attr=name) | ast.Name(id=name):
            # read_text and write_text may name it by position
            named = len(node.args) > {"read_text": 0, "write_text": 1}.get(name, 99)
            by_name = name in TEXT_READERS and not (binary or named)
            reads_text = by_name or "text=True" in arguments
        case _:
            reads_text = False
    if reads_text and not keywords & {"encoding", None}:  # None stands for **keywords
        yield f"no encoding in {ast.unparse(node)[:60]}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_source_works_on_every_system(path: Path) -> None:
    assert faults(ast.parse(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import fcntl",
        "from os import fork",
        "os.getuid()",
        "process.send(signal.SIGKILL)",
        "loop.add_signal_handler(2, stop)",
        "folder.chmod(0o700)",
        "subprocess.run(command, start_new_session=True)",
        "place = '/tmp/lab'",
        "python = venv / 'bin/python'",
        "now.strftime('%-d May')",
        "open(path)",
        "path.open('w')",
        "path.read_text()",
        "subprocess.run(command, text=True)",
        "if ready:\n    os.fork()",
        "if sys.platform != 'win32':\n    path.read_text()",
    ],
)
def test_a_fault_is_found(source: str) -> None:
    assert len(faults(ast.parse(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "if hasattr(os, 'fork'):\n    os.fork()",
        "python = 'Scripts/python.exe' if os.name == 'nt' else 'bin/python'",
        "try:\n    import resource\nexcept ImportError:\n    resource = None",
        "open(path, 'rb')",
        "path.open(mode='wb')",
        "path.write_text(text, encoding='ascii')",
        "path.read_text('utf-8')",
        "webbrowser.open(address)",
        "signal.signal(signal.SIGINT, stop)",
    ],
)
def test_what_works_everywhere_is_let_pass(source: str) -> None:
    assert faults(ast.parse(source)) == []
