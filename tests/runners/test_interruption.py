"""An interruption that a library swallowed."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

import pytest

from bike_pipeline.runners.interruption import interruptible
from bike_pipeline.signals import TERMINATING, Terminated, raise_on_termination


@pytest.fixture(autouse=True)
def _interrupts_are_heard() -> Iterator[None]:
    """Who runs the tests in the background has interrupts ignored, and processes inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_no_further_stage_starts_after_an_interrupt_that_a_stage_swallowed() -> None:
    started = []

    def launch(name: str) -> str:
        started.append(name)
        if name == "Transform":
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
                signal.sigtimedwait([], 1)
        return name

    before = signal.getsignal(signal.SIGINT)
    with interruptible(launch) as start:
        assert start("DataGate") == "DataGate"
        assert start("Transform") == "Transform"
        with pytest.raises(KeyboardInterrupt):
            start("Trainer")
    assert started == ["DataGate", "Transform"]
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_still_reaches_the_stage_at_once() -> None:
    def launch(name: str) -> str:
        signal.raise_signal(signal.SIGINT)
        signal.sigtimedwait([], 1)
        return name

    with interruptible(launch) as start, pytest.raises(KeyboardInterrupt):
        start("Trainer")


def test_another_thread_than_the_main_one_is_left_alone() -> None:
    found = []

    def work() -> None:
        with interruptible(str.lower) as start:
            found.append(start("Trainer"))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == ["trainer"]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_the_end_of_a_process_ends_the_run_in_words(name: str) -> None:
    number = signal.Signals[name]
    before = {found: signal.signal(found, signal.SIG_DFL) for found in TERMINATING}
    try:
        raise_on_termination()

        def launch(stage: str) -> str:
            # A library that swallows it.
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(number)
                signal.sigtimedwait([], 1)
            return stage

        with interruptible(launch) as start:
            assert start("Transform") == "Transform"
            with pytest.raises(Terminated, match=name):
                start("Trainer")
        # What a closing terminal sends besides does not break off the clean-up.
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        for found, handler in before.items():
            signal.signal(found, handler)


def test_a_process_that_was_told_to_ignore_hang_ups_goes_on_doing_so() -> None:
    before = {found: signal.signal(found, signal.SIG_IGN) for found in TERMINATING}
    try:
        raise_on_termination()
        assert all(signal.getsignal(found) is signal.SIG_IGN for found in TERMINATING)
    finally:
        for found, handler in before.items():
            signal.signal(found, handler)
