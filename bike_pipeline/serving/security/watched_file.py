"""Something made of files that may be renewed while it is in use: read again when they change, kept when that fails."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from bike_pipeline.errors import BikePipelineError, ConfigurationError

Content = TypeVar("Content")
_log = logging.getLogger(__name__)
# Seconds between two looks at the files: a renewed one is in force that soon, and a look costs some microseconds.
LOOK_EVERY = 1.0


class WatchedFiles(Generic[Content]):
    """What files say, as of their last state that was sound.

    A file that became wrong, or went away, changes nothing but the log: half-finished renewals must neither let
    anybody in nor lock everybody out.
    """

    def __init__(
        self, paths: Sequence[Path], read: Callable[[], Content], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Read the files that decide for the first time, or raise what is wrong with them; later reads only log it.

        What reads all of them raises a `BikePipelineError` for what is wrong.
        """
        self._paths = tuple(paths)
        self._read = read
        self._clock = clock
        self._lock = threading.Lock()
        self._state = self._look()
        self._next_look = clock() + LOOK_EVERY
        self._content = read()

    def get(self) -> Content:
        """Return the content, read again first if a file changed since the last look."""
        # Whoever finds another thread reading takes what is there.
        if self._clock() >= self._next_look and self._lock.acquire(blocking=False):
            try:
                self._refresh()
            finally:
                self._lock.release()
        return self._content

    def _refresh(self) -> None:
        self._next_look = self._clock() + LOOK_EVERY
        state = self._look()
        if state == self._state:
            return
        # Kept before the read: an unsound file is told once, not every second.
        self._state = state
        try:
            self._content = self._read()
        except (BikePipelineError, OSError) as error:
            _log.error("%s. The last good state stays in force.", str(error).removesuffix("."))
            return
        _log.warning("read again: %s", ", ".join(str(path) for path in self._paths))

    def _look(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_look_at(path) for path in self._paths)


def _look_at(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def content_of(path: str, setting: str) -> bytes:
    """Return what a file holds, or say that it cannot be read and which setting names it."""
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        reason = f"cannot read it ({error.strerror or error})"
        raise ConfigurationError(reason, where=path, fix=f"correct {setting}") from None
