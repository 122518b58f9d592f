"""An interruption ends a run, also where a library has swallowed it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from bike_pipeline.signals import TERMINATING, Terminated

Result = TypeVar("Result")


@contextmanager
def interruptible(launch: Callable[[str], Result]) -> Iterator[Callable[[str], Result]]:
    """Yield `launch` as a function that starts no further stage once the process was interrupted.

    Python drops an interrupt that falls into a destructor, and libraries catch what they should not; the run would go
    on to its end. The signal is still passed on at once to whoever handled it before.
    """
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may set handlers.
        yield launch
        return
    # Who started us may have had some of them ignored.
    found = {number: signal.getsignal(number) for number in (signal.SIGINT, *TERMINATING)}
    before = {number: handler for number, handler in found.items() if callable(handler)}
    heard: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        before[signal.Signals(number)](number, frame)

    def start(name: str) -> Result:
        if heard:
            number = signal.Signals(heard[0])
            raise Terminated(number.name) if number in TERMINATING else KeyboardInterrupt
        return launch(name)

    for number in before:
        signal.signal(number, hear)
    try:
        yield start
    finally:
        for number, handler in before.items():
            # What the handler itself has changed stays: it ignores what comes after the first.
            if signal.getsignal(number) is hear:
                signal.signal(number, handler)
