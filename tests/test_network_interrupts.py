"""Ctrl-C that waits until something is done that must not be torn apart."""

from __future__ import annotations

import signal
import threading
import weakref

import pytest

from labserver.network import interrupts

pytestmark = pytest.mark.process


def test_an_interrupt_waits_for_the_end_of_the_block() -> None:
    done = []
    before = signal.getsignal(signal.SIGINT)

    @interrupts.deferred()
    def work() -> None:
        signal.raise_signal(signal.SIGINT)
        done.append("all")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["all"]
    assert signal.getsignal(signal.SIGINT) is before


def test_several_interrupts_are_one() -> None:
    calls: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: calls.append(number))
    try:
        with interrupts.deferred():
            for _ in range(3):
                signal.raise_signal(signal.SIGINT)
            assert calls == []
        assert calls == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_outermost_of_several_blocks_counts() -> None:
    done = []

    @interrupts.deferred()
    def work() -> None:
        with interrupts.deferred():
            signal.raise_signal(signal.SIGINT)
            done.append("inner")
        done.append("outer")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["inner", "outer"]


def test_what_the_block_raises_is_not_lost() -> None:
    @interrupts.deferred()
    def work() -> None:
        signal.raise_signal(signal.SIGINT)
        raise LookupError("mine")

    with pytest.raises(KeyboardInterrupt) as caught:
        work()
    assert isinstance(caught.value.__context__, LookupError)


def test_without_an_interrupt_nothing_happens() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(LookupError), interrupts.deferred():
        raise LookupError
    assert signal.getsignal(signal.SIGINT) is before


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts.deferred():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_has_nothing_to_defer() -> None:
    seen: list[object] = []

    def work() -> None:
        with interrupts.deferred():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]


def test_an_interrupt_in_a_finalizer_comes_after_it() -> None:
    class Thing:
        pass

    def finish() -> None:
        signal.raise_signal(signal.SIGINT)
        done.append("all")

    done: list[str] = []
    thing = Thing()
    weakref.finalize(thing, interrupts.in_finalizer(finish))
    waiting = threading.Event()
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - it comes when it comes
        del thing
        assert done == ["all"]
        waiting.wait(30)


def test_an_interrupt_in_a_finalizer_within_a_block_waits_for_the_block() -> None:
    done = []

    @interrupts.deferred()
    def work() -> None:
        interrupts.in_finalizer(signal.raise_signal)(signal.SIGINT)
        done.append("all")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["all"]


def test_an_interrupt_does_not_tear_apart_what_brings_another_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, begun = threading.Timer.start, []

    def interrupted(reminder: threading.Timer) -> None:
        if not begun:
            signal.raise_signal(signal.SIGINT)
        begun.append(reminder)
        start(reminder)

    monkeypatch.setattr(threading.Timer, "start", interrupted)
    came = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: came.set())
    try:
        interrupts.in_finalizer(signal.raise_signal)(signal.SIGINT)
        assert not came.is_set()
        assert len(begun) == 2
        for reminder in begun:
            reminder.join()
        assert came.wait(30)
    finally:
        signal.signal(signal.SIGINT, before)
