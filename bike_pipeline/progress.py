"""How far a stage has come: long work reports here, and whoever shows progress listens.

Without a listener a report costs nothing, so stages report on every runner alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Listener = Callable[[float, str], None]
_listeners: list[Listener] = []


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send every report made inside the block to `listener(fraction, text)`."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def report(fraction: float, text: str) -> None:
    """Say that `fraction` (0 to 1) of the work in hand is done, and what is being done."""
    for listener in _listeners:
        listener(min(max(fraction, 0.0), 1.0), text)
