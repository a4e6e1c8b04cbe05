"""A process of its own for what reads hostile content: `Child().ask(function, *arguments)`.

A thread that holds the interpreter holds up the mail servers, and can't be ended; a process can.
The child has neither the lab nor its store: it gets plain data and gives plain data back, as
pickles with their length before them. It has limits of processor time and memory where the system
knows them, of time everywhere; beyond one it is ended, and the next question starts another.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

T = TypeVar("T")

PROCESSOR_SECONDS = 5
"""For one answer."""
SECONDS = 30.0
"""For one answer, the start of the child included; a busy machine needs more than its work does."""
MEMORY_OCTETS = 1024**3
_MOST_ANSWER_OCTETS = 64 * 1024**2
"""Beyond the octets that were asked about."""

_LENGTH_OCTETS = 8
_START = (
    # Ctrl-C ends the lab, and the lab its child.
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); import json, sys; "
    "sys.path[:] = json.loads(sys.argv[1]); from labserver.web.child import live; "
    "live(sys.argv[2:])"
)
_RAISED = {"IndexError": IndexError, "ValueError": ValueError}
"""What a question may raise; anything else is a fault of ours."""


class Unread(Exception):
    """The child gave no answer; the text says why, to go on after `This message`."""


class Child:
    """A process that answers one question at a time. Threads may share it."""

    def __init__(self, *preloaded: str) -> None:
        """`preloaded` names modules to be imported before the first question."""
        self._preloaded = preloaded
        self._gate = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def ask(self, function: Callable[..., T], *arguments: Any) -> T:
        """What the function returns there: plain data.

        It and its arguments are pickled. Raises `Unread`, and `ValueError` or `IndexError` where
        the function does.
        """
        question = pickle.dumps((function, arguments, PROCESSOR_SECONDS), pickle.HIGHEST_PROTOCOL)
        with self._gate:
            kind, *said = self._exchange(question)
            if kind == "unread":
                self._end()  # it may hold on to what was too much
        if kind == "answer":
            return said[0]  # type: ignore[no-any-return]
        if kind == "unread":
            raise Unread(said[0])
        name, text, trace = said
        raise _RAISED[name](text) if name in _RAISED else RuntimeError(trace)

    def close(self) -> None:
        """End it, whatever it does. May be called from any thread, and again; never waits for an
        answer."""
        self._closed = True
        process = self._process
        if process is not None:
            process.kill()
        # Else whoever waits for its answer gets none, and takes it away.
        if self._gate.acquire(blocking=False):
            try:
                self._end()
            finally:
                self._gate.release()

    def _exchange(self, question: bytes) -> tuple[Any, ...]:
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        limit = _Limit(process)
        try:
            _send(process.stdin, question)
            answer = _received(process.stdout, len(question) + _MOST_ANSWER_OCTETS)
            if limit.lift():
                return _Plain(io.BytesIO(answer)).load()  # type: ignore[no-any-return]
        except (EOFError, OSError):
            limit.lift()
        except BaseException:
            limit.lift()
            self._end()
            raise
        status = self._end()
        if self._closed:
            return "unread", "can't be read any more, because the page is closed"
        if limit.reached or status == -getattr(signal, "SIGXCPU", 0):
            return "unread", "takes too long to read"
        return "unread", "takes too much memory to read"

    def _running(self) -> subprocess.Popen[bytes]:
        process = self._process
        if process is not None and process.poll() is not None:
            self._end()
            process = None
        if process is None and not self._closed:
            process = self._process = _started(self._preloaded)
        if process is None or self._closed:  # or closed meanwhile, by another thread
            self._end()
            raise Unread("can't be read any more, because the page is closed")
        return process

    def _end(self) -> int | None:
        """Take the process away; how it ended."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        return process.wait()


class _Limit:
    """Ends a process that takes too long."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.reached = False
        self._lifted = False
        self._process = process
        self._lock = threading.Lock()
        self._timer = threading.Timer(SECONDS, self._reach)
        self._timer.daemon = True
        self._timer.start()

    def lift(self) -> bool:
        """There is an answer; whether it came in time."""
        self._timer.cancel()
        with self._lock:
            self._lifted = True
            return not self.reached

    def _reach(self) -> None:
        with self._lock:
            if not self._lifted:
                self.reached = True
                self._process.kill()


class _Plain(pickle.Unpickler):
    """Reads plain data alone: what hostile content made of the child must not come back."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is no plain data")


def _started(preloaded: tuple[str, ...]) -> subprocess.Popen[bytes]:
    # What the lab imports, the child has to find, but nothing that happens to lie in the folder
    # where the lab was started.
    here = str(Path(__file__).parents[2])
    paths = json.dumps([*filter(None, sys.path), here])
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-c", _START, paths, *preloaded],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Threads of a numerical library would take the memory of many.
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
    except OSError as error:
        raise Unread(
            f"can't be read, because no process can be started for it ({error})"
        ) from error


def _send(pipe: IO[bytes], octets: bytes) -> None:
    for piece in (len(octets).to_bytes(_LENGTH_OCTETS, "big"), octets):
        left = memoryview(piece)
        while left:
            left = left[pipe.write(left) :]


def _received(pipe: IO[bytes], most: int) -> bytearray:
    """Raises `EOFError` where nothing comes any more, or more than that."""
    length = int.from_bytes(_exactly(pipe, _LENGTH_OCTETS), "big")
    if length > most:
        raise EOFError
    return _exactly(pipe, length)


def _exactly(pipe: IO[bytes], number: int) -> bytearray:
    octets = bytearray(number)
    left = memoryview(octets)
    while left:
        read = pipe.readinto(left)  # type: ignore[attr-defined]
        if not read:
            raise EOFError
        left = left[read:]
    return octets


# -- in the child


def live(preloaded: Sequence[str]) -> None:
    """Answer questions until no more can come."""
    questions, answers = os.fdopen(os.dup(0), "rb", 0), os.fdopen(os.dup(1), "wb", 0)
    os.dup2(2, 1)  # what anything prints goes nowhere, and not between the answers
    _limit_memory()
    for name in preloaded:
        with contextlib.suppress(Exception):  # the question tells what is wrong
            importlib.import_module(name)
    with contextlib.suppress(EOFError, OSError):  # the lab is gone
        while True:
            _send(answers, _answered(_received(questions, sys.maxsize)))


def _answered(question: bytearray) -> bytes:
    try:
        function, arguments, seconds = pickle.loads(question)
        _limit_time(seconds)
        return pickle.dumps(("answer", function(*arguments)), pickle.HIGHEST_PROTOCOL)
    except MemoryError:
        said: tuple[str, ...] = ("unread", "takes too much memory to read")
    except RecursionError:
        said = ("unread", "is nested too deeply to be read")
    except Exception as error:
        said = ("raised", type(error).__name__, str(error), traceback.format_exc())
    return pickle.dumps(said)


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:
        return
    for what, octets in ((resource.RLIMIT_AS, MEMORY_OCTETS), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):  # a stricter one is in force, or none known
            resource.setrlimit(what, (octets, octets))


def _limit_time(seconds: int) -> None:
    """From now on; it holds where nobody is left to end the process, too."""
    try:
        import resource
    except ImportError:
        return
    hardest = resource.getrlimit(resource.RLIMIT_CPU)[1]
    until = math.ceil(time.process_time()) + seconds
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (until, hardest))
