"""The files of the request log: pairs of lines and records, rotated by size, whole at all times but in a crash."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bike_pipeline.storage.atomic_files import lock_open_file

LINES, RECORDS = ".jsonl", ".tfrecord"
_NO_PART_OF_NAMES = re.compile(r"[^A-Za-z0-9]+")


@dataclass(frozen=True)
class Place:
    """Where the files go: a folder, the bytes of lines and records after which the next pair begins, most pairs."""

    folder: str
    most_bytes: int
    files: int


@functools.lru_cache(1)
def files_of(place: Place) -> RequestLogFiles:
    """Return the files of a place, the same ones each time."""
    return RequestLogFiles(place)


class RequestLogFiles:
    """The pair of files that is written now: lines and records. Each is whole at all times but in a crash."""

    def __init__(self, place: Place) -> None:
        self._place, self._folder = place, Path(place.folder)
        self._open: list[int] = []
        self._sizes: list[int] = []
        self._begun = 0

    def add(self, *contents: bytes) -> None:
        """Write to both files, or to none: then an OSError says why."""
        size = sum(self._sizes)
        if self._open and (self._gone() or (size and size + sum(map(len, contents)) > self._place.most_bytes)):
            self._close()
        if not self._open:
            self._begin()
        try:
            for descriptor, content in zip(self._open, contents, strict=True):
                rest = memoryview(content)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
        except OSError:
            # Back to the last whole line; where even that fails, the next batch begins new files.
            try:
                for descriptor, length in zip(self._open, self._sizes, strict=True):
                    os.ftruncate(descriptor, length)
            except OSError:
                self._close()
            raise
        self._sizes = [length + len(content) for length, content in zip(self._sizes, contents, strict=True)]

    def _gone(self) -> bool:
        """Return whether somebody removed a file: what is written to it nobody would find."""
        return any(os.fstat(descriptor).st_nlink == 0 for descriptor in self._open)

    def _close(self) -> None:
        for descriptor in self._open:
            os.close(descriptor)
        self._open, self._sizes = [], []

    def _begin(self) -> None:
        """Open the next pair, whose name no other server takes, and let go of the oldest."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._prune()
        self._begun += 1
        host = _NO_PART_OF_NAMES.sub("-", socket.gethostname()) or "host"
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{host}-{os.getpid()}-{self._begun}"
        try:
            for suffix in (LINES, RECORDS):
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
                self._open.append(os.open(self._folder / f"{name}{suffix}", flags, 0o640))
                self._sizes.append(0)
            # What another server writes now, nobody takes away.
            lock_open_file(self._open[0])
        except OSError:
            self._close()
            raise

    def _prune(self) -> None:
        found = sorted(self._folder.glob(f"*{LINES}"))
        too_many = len(found) + 1 - self._place.files
        for path in found:
            if too_many <= 0:
                return
            with contextlib.suppress(OSError):
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    if lock_open_file(descriptor):
                        path.unlink()
                        path.with_suffix(RECORDS).unlink(missing_ok=True)
                        too_many -= 1
                finally:
                    os.close(descriptor)
