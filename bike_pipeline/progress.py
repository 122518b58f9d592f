"""How far a stage has come: long work reports here, and whoever shows progress listens.

Without a listener a report costs one comparison, so stages report on every runner alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Listener = Callable[[float, str], None]
_listener: Listener | None = None


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send every report made inside the block to `listener(fraction, text)`."""
    global _listener
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before


def report(fraction: float, text: str) -> None:
    """Say that `fraction` (0 to 1) of the work in hand is done, and what is being done."""
    if _listener is not None:
        _listener(min(max(fraction, 0.0), 1.0), text)
