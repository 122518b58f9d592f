"""How far a stage has come: long work reports here, and whoever shows progress listens.

Without a listener a report costs nothing, so stages report on every runner alike. Stages may run beside each other,
each in a thread of its own: a listener hears the reports of its own thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[float, str], None]
_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("listeners", default=())


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send every report made inside the block, in this thread, to `listener(fraction, text)`."""
    token = _listeners.set((*_listeners.get(), listener))
    try:
        yield
    finally:
        _listeners.reset(token)


def report(fraction: float, text: str) -> None:
    """Say that `fraction` (0 to 1) of the work in hand is done, and what is being done."""
    for listener in _listeners.get():
        listener(min(max(fraction, 0.0), 1.0), text)
