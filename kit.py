"""The one command of the Mail Lab: it makes `.venv`, installs what is needed there, and runs.

    python3 kit.py              opens JupyterLab on the first lesson
    python3 kit.py test         runs every check that this machine can run (tests/checks.py)
    python3 kit.py book         builds the book to _build/html (book/build.py)
    python3 kit.py notebooks    runs the lessons anew and stores their outputs
    python3 kit.py bench        runs the benchmarks (benchmarks/bench.py)
    python3 kit.py setup        only prepares .venv

Standard library only, and nothing that one operating system alone has. Even Python 2.7 can parse
this file, to say plainly that it is too old: hence no f-strings, annotations or `raise from`.
"""

from __future__ import print_function

import sys

OLDEST, NEWEST = (3, 11), (3, 14)  # the Pythons that the lab is tested with

if sys.version_info < OLDEST:
    sentence = (
        "kit.py: the Mail Lab needs Python {}.{} or newer and this is Python {}.{}; install a new "
        "one from https://www.python.org/downloads/ and run kit.py with that one."
    )
    sys.exit(sentence.format(*(OLDEST + tuple(sys.version_info[:2]))))

import argparse
import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time
import tomllib
import webbrowser

ROOT = pathlib.Path(__file__).resolve().parent
VENV = ROOT / ".venv"
LESSONS = ROOT / "notebooks"
WINDOWS = os.name == "nt"
THIS_PYTHON = "{}.{}".format(*sys.version_info[:2])

# The requirement files, each with those that it brings along.
READER, TESTS, DEVELOPER = "requirements.txt", "requirements-test.txt", "requirements-dev.txt"
BRINGS = {READER: [READER], TESTS: [TESTS], DEVELOPER: [DEVELOPER, READER, TESTS]}

# Settings of the user's own that would change what runs inside `.venv`.
FOREIGN = ("PYTHON", "IPYTHON", "JUPYTER", "PYTEST", "MPL", "MYPY", "RUFF", "VIRTUAL_ENV")
FOREIGN += ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_NO_DEPS", "PIP_DRY_RUN")
FOREIGN += ("__PYVENV_LAUNCHER__",)

# Signs in the output of venv and pip, and what to do about each; the first that fits is taken.
REMEDIES = (
    (
        "No space left|Errno 28|not enough space",
        "the disk is full: free two gigabytes and try again",
    ),
    (
        "Permission denied|Errno 13|Access is denied|Read-only file system",
        "this folder cannot be written to: copy the project to one of your own and try again",
    ),
    (
        "CERTIFICATE_VERIFY_FAILED|SSLCertVerificationError",
        "the package index's certificate is not trusted here: behind an organisation's proxy, set "
        "PIP_CERT to that organisation's certificate file and try again",
    ),
    (
        "(?:401|403|407) Client Error|40[137] (?:Forbidden|Unauthorized)|HTTP error 40[137]"
        "|Proxy Authentication Required",
        "the package index refuses this machine: check the index, the name and the password that "
        "PIP_INDEX_URL or pip's configuration gives, and try again",
    ),
    (
        "5[0-9][0-9] Server Error|HTTP error 5[0-9][0-9]|too many 5[0-9][0-9] error responses",
        "the package index has a fault of its own: try again later, or set PIP_INDEX_URL to "
        "another index",
    ),
    (
        "IncompleteRead|Connection broken|ConnectionResetError|RemoteDisconnected"
        "|Connection aborted|incomplete-download|DO NOT MATCH THE HASHES|BadZipFile"
        "|Wheel .* is invalid|has an invalid wheel",
        "what the package index sent was cut short: try again",
    ),
    (
        "NewConnectionError|ConnectTimeoutError|NameResolutionError|ReadTimeoutError|ProxyError"
        "|Temporary failure in name resolution|Network is unreachable|Connection refused"
        "|getaddrinfo failed",
        "the package index cannot be reached: connect this machine to the Internet, or set "
        "PIP_INDEX_URL to an index that it reaches, and try again",
    ),
    (
        "No matching distribution found|ResolutionImpossible",
        "no package index that pip asked has what is needed, or a constraint forbids it: where a "
        "login page answers instead, log in with a browser; else set PIP_INDEX_URL to a full "
        "index or look at PIP_CONSTRAINT; and try again",
    ),
)


class Problem(Exception):
    """What went wrong and what to do about it, in one sentence; `code` is the exit code."""

    def __init__(self, sentence, code=1):
        Exception.__init__(self, sentence)
        self.code = code


def remedy(output):
    """What to do about the failure that `output` tells of, or None when it is not a known one."""
    return next((advice for signs, advice in REMEDIES if re.search(signs, output)), None)


# --- running other programs ---------------------------------------------------------------------

RUNNING = set()  # the children that must not outlive this process


def say(text):
    print(text, flush=True)


def python_in(folder):
    return folder / ("Scripts/python.exe" if WINDOWS else "bin/python")


def environment(folder, **changes):
    """The user's environment without what would disturb `folder`'s Python, and with `changes`.

    What Jupyter, IPython and matplotlib keep goes into `folder`, not into the user's home: no
    kernel, start-up file or style of the user's changes a lesson, and no lesson changes theirs.
    A change to None removes the variable.
    """
    kept = {k: v for k, v in os.environ.items() if not k.upper().startswith(FOREIGN)}
    path = str(python_in(folder).parent) + os.pathsep + os.environ.get("PATH", os.defpath)
    kept.update(VIRTUAL_ENV=str(folder), PATH=path, PYTHONUTF8="1", PIP_USER="0")
    state = state_in(folder)
    for owner in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "MPLCONFIGDIR"):
        kept[owner] = str(state / owner.lower())
    kept.update(changes)
    return {k: v for k, v in kept.items() if v is not None}


def state_in(folder):
    """Where programs of `folder` keep their state: in it, or, where it cannot be written to (a
    checkout that is shared or read-only), in a folder of this user's own."""
    state = folder / "state"
    return state if not folder.exists() or can_write(state) else own_folder(folder)


@functools.lru_cache(maxsize=None)
def own_folder(folder):
    """A folder of this user's own for what `folder` cannot keep; without a home, a new one."""
    name = "mail-lab-" + hashlib.sha256(str(folder).encode("utf-8", "replace")).hexdigest()[:16]
    home = os.environ.get("LOCALAPPDATA" if WINDOWS else "XDG_CACHE_HOME")
    with contextlib.suppress(RuntimeError):  # a user without a home
        cache = pathlib.Path(home or pathlib.Path.home() / ".cache") / name
        if can_write(cache):
            return cache
    return pathlib.Path(tempfile.mkdtemp(prefix="mail-lab-"))


@functools.lru_cache(maxsize=None)
def can_write(folder):
    """Whether files can be made in `folder`, which is made if it is not there; by trying."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=str(folder)):
            return True
    except OSError:
        return False


def start(command, env, **streams):
    process = subprocess.Popen([str(c) for c in command], cwd=str(ROOT), env=env, **streams)
    RUNNING.add(process)
    return process


def run(command, env):
    """Run a program in the foreground, with this terminal as its own; return its exit code."""
    process = start(command, env)
    code = process.wait()
    RUNNING.discard(process)
    return code


def watch(label, command, env):
    """Run a quiet program while showing for how long; return its exit code and its output."""
    on_terminal = sys.stdout.isatty()
    started = time.monotonic()
    print(label + " ...", end="" if on_terminal else "\n", flush=True)
    with tempfile.TemporaryFile() as output:
        process = start(command, env, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        while process.poll() is None:
            try:
                process.wait(timeout=1 if on_terminal else 20)
            except subprocess.TimeoutExpired:
                line = "\r{} ... {:.0f} s" if on_terminal else "  ... {1:.0f} s\n"
                print(line.format(label, time.monotonic() - started), end="", flush=True)
        RUNNING.discard(process)
        print("\n" if on_terminal else "", end="", flush=True)
        output.seek(0)
        return process.returncode, output.read().decode("utf-8", "replace")


def end_children():
    """End what still runs. First it may end by itself: a terminal sends Ctrl-C to it as well.

    The second patience leaves a child the time to end children of its own in the same way.
    """
    for ask, patience in (("poll", 2), ("terminate", 20), ("kill", 5)):
        children = [child for child in list(RUNNING) if child.poll() is None]
        for child in children:
            getattr(child, ask)()
        until = time.monotonic() + patience
        while time.monotonic() < until and any(child.poll() is None for child in children):
            time.sleep(0.05)


# --- the virtual environments -------------------------------------------------------------------


def prepare(requirements, folder=VENV, interpreter=None, version=THIS_PYTHON):
    """Make `folder` a virtual environment in which `requirements` are installed and import.

    It touches nothing, and needs no network, when that is so already. What is there stays until
    something better stands: pip installs into an environment that works; one that does not, or is
    for another Python or another place, is put aside until the new one is ready.
    """
    put_back(folder)
    stamp = read_stamp(folder)
    if works(folder, version) and stamp.get("folder", str(folder)) == str(folder):
        fault = lacks(folder, imports("each start")) if stamp else None
        if not fault and stamp.get(requirements) == fingerprint(requirements):
            return
        fault = fault or fill(requirements, folder)
        if not fault:
            return
        say("The {} that is here is incomplete: {}.".format(folder.name, fault))
    elif os.path.lexists(str(folder)):
        say("The {} that is here is broken, or of another Python or place.".format(folder.name))
    with put_aside(folder):
        make_venv(folder, interpreter, version)
        fault = fill(requirements, folder)
        if fault:
            advice = "pip is done with {}, but {}: see whether `pip config list` says no-deps."
            raise Problem(advice.format(requirements, fault))


def fill(requirements, folder):
    """Install `requirements` and stamp `folder`; return what is missing all the same, or None."""
    code, output = install(requirements, folder)
    if code:
        log = folder / "pip.log"
        log.write_text(output, encoding="utf-8")
        reason = remedy(output) or "pip could not install {}".format(requirements)
        log = log.relative_to(ROOT).as_posix()
        raise Problem("{} ({}; all that pip said: {}).".format(reason, last_error(output), log))
    settle(folder)
    names = [name for brought in BRINGS[requirements] for name in imports(brought)]
    fault = lacks(folder, imports("each start") + names)
    if not fault:
        stamp = {name: fingerprint(name) for name in BRINGS[requirements]}
        stamp["folder"] = str(folder)
        unfinished = folder / "kit-stamp.new"
        unfinished.write_text(json.dumps(stamp, indent=1), encoding="utf-8")
        os.replace(str(unfinished), str(folder / "kit-stamp.json"))
    return fault


def last_error(output):
    """pip's own words for what went wrong, on one line and without a password for an index."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    signs = ("ERROR: ", "error: ")
    errors = [x for x in lines if x.startswith(signs) and "ResolutionImpossible" not in x] or lines
    said = re.sub("://[^/@ ]+@", "://", errors[-1] if errors else "no reason was given")
    return "pip: " + said.replace("ERROR: ", "", 1)[:300].rstrip(".")


@contextlib.contextmanager
def put_aside(folder):
    """Rename `folder` while a new one is made in its place, and put it back if that fails."""
    old = aside(folder)
    if os.path.lexists(str(folder)):
        os.rename(str(folder), str(old))
    try:
        yield
    except BaseException:
        end_children()  # none may go on to write where the old one will be
        if os.path.lexists(str(old)):
            if old.is_dir() and (folder / "pip.log").exists():
                shutil.copy(str(folder / "pip.log"), str(old))
            remove(folder)
            os.rename(str(old), str(folder))
        raise
    remove(old)


def put_back(folder):
    """End what a killed run began: keep the new environment if it is ready, else the old one."""
    old = aside(folder)
    if not os.path.lexists(str(old)):
        return
    if read_stamp(folder).get("folder") == str(folder):
        shutil.rmtree(str(old), ignore_errors=True)
    else:
        say("The last run was ended while it made {}; the old one is back.".format(folder.name))
        remove(folder)
        os.rename(str(old), str(folder))


def aside(folder):
    return folder.with_name(folder.name + "-put-aside")


def remove(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(str(path))
    elif os.path.lexists(str(path)):
        path.unlink()


def read_stamp(folder):
    """The place that `folder` was made for, and a fingerprint of what was installed in it."""
    try:
        stamp = json.loads((folder / "kit-stamp.json").read_text(encoding="utf-8"))
        return stamp if isinstance(stamp, dict) else {}
    except (OSError, ValueError):
        return {}


def fingerprint(requirements):
    """A hash of all that decides what `requirements` installs."""
    project = read_project()
    parts = [project["build-system"], project["project"], project["tool"]["setuptools"]]
    for name in BRINGS[requirements] + ["constraints.txt"]:
        parts.append((ROOT / name).read_text(encoding="utf-8"))
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def imports(occasion):
    """The modules that pyproject.toml wants imported on an occasion before all is called ready."""
    return read_project()["tool"].get("kit", {}).get("imports", {}).get(occasion, [])


def read_project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def works(folder, version):
    """Whether `folder` is a virtual environment of that Python, and Python and pip run in it."""
    tell = "import pip, sys; print(sys.prefix != sys.base_prefix, '%d.%d' % sys.version_info[:2])"
    done = ask(folder, tell)
    return done is not None and done.stdout.split() == ["True", version]


# Run by the environment's own Python: names what was installed but is not there, or else fails.
LOOK = """
import importlib, os, site, sys
for packages in site.getsitepackages():
    for name in os.listdir(packages):
        record = os.path.join(packages, name, "RECORD")
        if name.endswith(".dist-info") and name[0] != "~" and os.path.exists(record):
            for row in open(record, encoding="utf-8"):
                path = row.rsplit(",", 2)[0].strip('"')
                if not path.endswith(".pyc") and not os.path.lexists(os.path.join(packages, path)):
                    sys.exit("%s is missing" % path)
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except BaseException as error:
        said = " ".join(str(error).split()) or type(error).__name__
        sys.exit("`import %s` fails: %s" % (name, said[:200]))
"""


def lacks(folder, modules):
    """What is missing from what was installed in `folder`, or which module fails; else None."""
    done = ask(folder, LOOK, *modules)
    if done is None or done.returncode:
        said = done.stderr.strip().splitlines() if done else []
        return said[-1] if said else "its Python does not run"
    return None


def ask(folder, program, *arguments):
    """Run a short program in `folder`'s Python, apart from this folder; None if it cannot run."""
    command = [str(python_in(folder)), "-I", "-X", "utf8", "-c", program]
    streams = {"stdin": subprocess.DEVNULL, "capture_output": True, "encoding": "utf-8"}
    try:
        return subprocess.run(command + list(arguments), env=environment(folder), **streams)
    except OSError:
        return None


def make_venv(folder, interpreter, version):
    if interpreter is None:  # this Python, or, when it is inside a virtual environment, its origin
        interpreter = getattr(sys, "_base_executable", None) or sys.executable
        if importlib.util.find_spec("ensurepip") is None:
            raise Problem(
                "this Python cannot make virtual environments: on Debian or Ubuntu run "
                "`sudo apt install python3-venv`, then try again."
            )
    make = [interpreter, "-m", "venv", "--without-pip", folder]
    add_pip = [python_in(folder), "-Im", "ensurepip", "--upgrade", "--default-pip"]
    making = "Making {} with Python {}".format(folder.name, version)
    # two steps, because `venv` hides why it could not bring pip along
    for label, command in ((making, make), ("Adding pip to it", add_pip)):
        code, output = watch(label, command, environment(folder))
        if code:
            last = output.strip().splitlines()[-1:] or ["no reason was given"]
            reason = remedy(output) or "the virtual environment could not be made: " + last[0]
            raise Problem("{}.".format(reason.rstrip(".")))


def install(requirements, folder):
    """Let pip install `requirements` in `folder`; return its exit code and all that it said."""
    pip = [python_in(folder), "-m", "pip", "--no-input", "--disable-pip-version-check"]
    command = pip + ["install", "--progress-bar=off", "--no-warn-script-location"]
    label = "Installing {} into {} (some minutes the first time)"
    label = label.format(requirements, folder.name)
    code, output = watch(label, command + ["-r", requirements], environment(folder))
    missing = re.findall("(?:No matching distribution found for|Cannot install) ([^ \n,]+)", output)
    if (
        code and missing
    ):  # why an index gave nothing is only told where pip is asked to be talkative
        with tempfile.TemporaryDirectory() as nowhere:
            command = pip + ["download", "-vv", "--no-deps", "--dest", nowhere, missing[-1]]
            talk = watch("Asking the package index why", command, environment(folder))[1]
        told = [line for line in talk.splitlines() if "Could not fetch URL" in line]
        output = "\n".join(told + [output])
    return code, output


def settle(folder):
    """Let JupyterLab ask no website for news, and the first plot not wait for a list of fonts."""
    settings = folder / "share" / "jupyter" / "lab" / "settings"
    settings.mkdir(parents=True, exist_ok=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    overrides = json.dumps({"@jupyterlab/apputils-extension:notification": quiet})
    (settings / "overrides.json").write_text(overrides, encoding="utf-8")
    fonts = [python_in(folder), "-c", "import matplotlib.font_manager"]
    watch("Preparing the plots", fonts, environment(folder))


# --- the commands -------------------------------------------------------------------------------


def lab(options):
    """Open JupyterLab on the first lesson."""
    prepare(READER)
    command = [python_in(VENV), "-m", "jupyterlab", "--ServerApp.root_dir={}".format(ROOT)]
    command += ["--LabApp.default_url=/lab/tree/notebooks/00-start-here.ipynb"]
    command += ["--LabApp.extension_manager=readonly", "--ServerApp.answer_yes=True"]
    command += ["--MappingKernelManager.transport_encryption=auto"]  # else each kernel warns
    command += ["--ServerApp.allow_root=True", "--ServerApp.log_level=WARN"]
    if options.no_browser or not has_browser():
        command += ["--no-browser"]
        say("Starting JupyterLab; open the address below in a browser. Ctrl-C here ends it.")
    else:
        say("Opening JupyterLab on the first lesson. Ctrl-C in this window ends it.")
    return run(command, environment(VENV))


def has_browser():
    try:
        return bool(webbrowser.get())
    except webbrowser.Error:
        return False


def test(options):
    """Run every check that this machine can run."""
    prepare(DEVELOPER)
    flags = [flag for flag in ("--quick", "--all") if getattr(options, flag[2:])]
    return run([python_in(VENV), "-m", "tests.checks"] + flags, environment(VENV))


def book(options):
    """Build the whole site to _build/html."""
    prepare(DEVELOPER)
    flags = ["--serve"] if options.serve else []
    return run([python_in(VENV), "-m", "book.build"] + flags, environment(VENV))


def notebooks(options):
    """Run the lessons anew and store their outputs in normal form."""
    prepare(DEVELOPER)
    for name in options.lesson or sorted(path.stem for path in LESSONS.glob("*.ipynb")):
        store_lesson(LESSONS / (name + ".ipynb"))
    return 0


def store_lesson(lesson):
    if not lesson.exists():
        raise Problem("there is no lesson notebooks/{}.".format(lesson.name), code=2)
    execute = [python_in(VENV), "-m", "nbconvert", "--to=notebook", "--execute", lesson]
    execute += ["--ExecutePreprocessor.kernel_name=python3", "--ExecutePreprocessor.timeout=120"]
    told = {"LABSERVER_OUTPUT": "normal", "LABSERVER_PROGRESS": "memory"}
    env = environment(VENV, LABSERVER_NETWORK=None, **told)
    with tempfile.TemporaryDirectory() as folder:
        label = "Running notebooks/" + lesson.name
        code, output = watch(label, execute + ["--output-dir=" + folder], env)
        if code:
            print(output[output.find("An error occurred") :], file=sys.stderr)
            raise Problem("{} fails as shown above; nothing was stored.".format(lesson.name))
        ran = os.path.join(folder, lesson.name)
        run([python_in(VENV), "-m", "tests.normal_form", ran, lesson], env)


def bench(options):
    """Measure this server beside others and write benchmarks/RESULTS.md."""
    script = ROOT / "benchmarks" / "bench.py"
    if not script.exists():
        raise Problem("there is no benchmarks/bench.py here, so there is nothing to measure.")
    prepare(DEVELOPER)
    flags = ["--quick"] if options.quick else []
    flags += ["--only"] + options.only if options.only else []
    return run([python_in(VENV), "-m", "benchmarks.bench"] + flags, environment(VENV))


def setup(options):
    """Only prepare .venv."""
    prepare(READER)
    say("Ready: `python3 kit.py` opens the first lesson.")
    return 0


COMMANDS = {c.__name__: c for c in (lab, test, book, notebooks, bench, setup)}


class Arguments(argparse.ArgumentParser):
    def error(self, message):
        raise Problem("{}; see `python3 kit.py --help`.".format(message), code=2)


def read_arguments(arguments):
    whole = {"allow_abbrev": False}  # an option is meant only where it is written out
    about = "Without a command it does what lab does."
    parser = Arguments(prog="kit.py", description=about, **whole)
    parsers = parser.add_subparsers(dest="command", metavar="command")
    added = {
        name: parsers.add_parser(name, help=c.__doc__, **whole) for name, c in COMMANDS.items()
    }
    added["lab"].add_argument("--no-browser", action="store_true", help="only print the address")
    which = added["test"].add_mutually_exclusive_group()
    which.add_argument("--quick", action="store_true", help="lint, and tests without processes")
    which.add_argument("--all", action="store_true", help="a left-out check is a failure")
    added["book"].add_argument("--serve", action="store_true", help="show it in the browser")
    added["bench"].add_argument("--quick", action="store_true", help="the main table in a minute")
    added["bench"].add_argument("--only", nargs="+", metavar="PART", help="only these parts")
    added["notebooks"].add_argument("lesson", nargs="*", help="only these, e.g. 00-start-here")
    if not arguments or arguments[0] == "--no-browser":
        arguments = ["lab"] + arguments
    return parser.parse_args(arguments)


def guard(action, child=False):
    """Do `action` and return its exit code; say in one sentence on stderr why it failed.

    Ctrl-C reaches kit.py and its children: a `child` leaves it to kit.py to tell of it.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a terminal may lack a letter that a test prints
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        try:
            return action()
        finally:
            end_children()
    except Problem as problem:
        print("kit.py: {}".format(problem), file=sys.stderr)
        return problem.code
    except OSError as error:
        print("kit.py: {}.".format(remedy(str(error)) or error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("" if child else "kit.py: stopped.\n", end="", file=sys.stderr)
        return 130


def main():
    if sys.version_info[:2] > NEWEST:
        notice = "kit.py: Python {} is newer than the {}.{} that the lab is tested with."
        say(notice.format(THIS_PYTHON, *NEWEST))
    options = read_arguments(sys.argv[1:])
    return COMMANDS[options.command](options)


if __name__ == "__main__":
    sys.exit(guard(main))
