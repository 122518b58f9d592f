"""An interruption ends a run, also where a library has swallowed it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

Result = TypeVar("Result")


@contextmanager
def interruptible(launch: Callable[[str], Result]) -> Iterator[Callable[[str], Result]]:
    """Yield `launch` as a function that starts no further stage once the process was interrupted.

    Python drops an interrupt that falls into a destructor, and libraries catch what they should not; the run would go
    on to its end. The signal is still passed on at once to whoever handled it before.

    Args:
        launch: runs one stage to its end.

    Raises:
        KeyboardInterrupt: (the yielded function) the process was interrupted before the stage.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        # Only the main thread may set handlers, and who started us may have had interrupts ignored.
        yield launch
        return
    heard: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        before(number, frame)

    def start(name: str) -> Result:
        if heard:
            raise KeyboardInterrupt
        return launch(name)

    signal.signal(signal.SIGINT, hear)
    try:
        yield start
    finally:
        signal.signal(signal.SIGINT, before)
