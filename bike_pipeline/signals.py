"""SIGTERM and SIGHUP end a command as Ctrl-C does: with its clean-up and in words."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

TERMINATING = (signal.SIGTERM, signal.SIGHUP)
_heard: list[signal.Signals] = []


class Terminated(KeyboardInterrupt):
    """The process was asked to end; its text is the name of the signal."""


def hear(number: int) -> None:
    """Keep in mind that a signal asked the process to end."""
    _heard.append(signal.Signals(number))


def forget() -> None:
    """Begin anew, as a process that nobody has asked to end."""
    _heard.clear()


def interruption() -> KeyboardInterrupt | None:
    """Return what the process was asked to end by, whatever libraries made of it; None if nobody asked.

    An exception of a signal handler comes up in the middle of a library, which may drop it (a destructor does) or raise
    one of its own in its place (a C++ extension does).
    """
    if not _heard:
        return None
    return Terminated(_heard[0].name) if _heard[0] in TERMINATING else KeyboardInterrupt()


def raise_on_termination() -> None:
    """Let SIGTERM and SIGHUP raise `Terminated` in the main thread, where nobody handles or ignores them already."""
    if threading.current_thread() is not threading.main_thread():
        return
    own = os.getpid()
    forget()

    def end(number: int, _: FrameType | None) -> None:
        # A second one, as a closing terminal sends, must not break off the clean-up.
        for further in TERMINATING:
            signal.signal(further, signal.SIG_IGN)
        if os.getpid() != own:
            # A forked worker ends at once, as it would have without this.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        hear(number)
        raise Terminated(signal.Signals(number).name)

    for number in TERMINATING:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, end)
