"""An interruption ends a run, also where a library has swallowed it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from bike_pipeline.signals import TERMINATING, forget, hear, interruption

Result = TypeVar("Result")


@contextmanager
def heard() -> Iterator[None]:
    """Keep in mind each signal that asks the process to end, for `signals.interruption`, and pass it on at once."""
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may set handlers.
        yield
        return
    # Who started us may have had some of them ignored.
    present = {number: signal.getsignal(number) for number in (signal.SIGINT, *TERMINATING)}
    before = {number: handler for number, handler in present.items() if callable(handler)}

    def pass_on(number: int, frame: FrameType | None) -> None:
        hear(number)
        before[signal.Signals(number)](number, frame)

    forget()
    for number in before:
        signal.signal(number, pass_on)
    try:
        yield
    finally:
        # What comes after, such as the next run in a notebook, was not asked to end.
        forget()
        for number, handler in before.items():
            # What the handler itself has changed stays: it ignores what comes after the first.
            if signal.getsignal(number) is pass_on:
                signal.signal(number, handler)


@contextmanager
def interruptible(launch: Callable[[str], Result]) -> Iterator[Callable[[str], Result]]:
    """Yield `launch` as a function that starts no further stage once the process was interrupted.

    Where a library dropped the interruption, the run would go on to its end.
    """

    def start(name: str) -> Result:
        asked = interruption()
        if asked is not None:
            raise asked
        return launch(name)

    with heard():
        yield start
