"""Ctrl-C that waits until something is done that must not be torn apart."""

from __future__ import annotations

import _thread
import contextlib
import functools
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec

P = ParamSpec("P")

_SOON_SECONDS = 0.01


class _Noted:
    """The handler within a block: it only notes what comes."""

    def __init__(self) -> None:
        self.came: list[tuple[int, Any]] = []

    def __call__(self, number: int, frame: Any) -> None:
        self.came.append((number, frame))


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Within this block an interrupt waits; it comes when the block is over.

    Interrupts only ever reach the main thread, so in any other there is nothing to do.
    """
    with _noting(_deliver):
        yield


def in_finalizer(function: Callable[P, object]) -> Callable[P, None]:
    """The function, to be called by the garbage collector, not torn apart by an interrupt.

    What is raised there Python prints and forgets; an interrupt therefore comes shortly after.
    """

    @functools.wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> None:
        with _noting(_deliver_soon):
            function(*args, **options)

    return call


@contextlib.contextmanager
def _noting(deliver: Callable[[Any, tuple[int, Any]], None]) -> Iterator[None]:
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield
        return
    noted = _Noted()
    signal.signal(signal.SIGINT, noted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if noted.came:
            deliver(previous, noted.came[0])


def _deliver(handler: Any, interrupt: tuple[int, Any]) -> None:
    handler(*interrupt)


def _deliver_soon(handler: Any, interrupt: tuple[int, Any]) -> None:
    if isinstance(handler, _Noted):
        handler(*interrupt)  # an outer block is waiting for it
        return
    reminder = threading.Timer(_SOON_SECONDS, _interrupt_main)
    reminder.daemon = True
    # One that comes meanwhile comes shortly after, too: a thread half started is never rid of.
    with _noting(_deliver_soon), contextlib.suppress(RuntimeError):  # the interpreter is ending
        reminder.start()


def _interrupt_main() -> None:
    main = threading.main_thread().ident
    if main is not None and hasattr(signal, "pthread_kill"):
        signal.pthread_kill(main, signal.SIGINT)  # also wakes it where it waits
    else:
        _thread.interrupt_main()
