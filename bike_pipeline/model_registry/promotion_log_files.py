"""The files that a deployment's state is kept in, beside a model's version folders; TF Serving passes them over."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from bike_pipeline.errors import BusyError, StorageError

_LOCK_FILE = ".deployment.lock"
# What is written beside, and left there by a process that dies.
_ASIDE = ".new-"
# Whoever holds the lock writes two small files.
_LOCK_SECONDS = 30


class StateFiles(Protocol):
    """Where the state is kept."""

    def place(self, name: str) -> str:
        """Return where a file is, for people."""

    def read(self, name: str) -> bytes | None:
        """Return a file's content; None where there is none."""

    def replace(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all."""

    def append(self, name: str, content: bytes) -> None:
        """Add to a file's end."""

    def lock(self) -> AbstractContextManager[None]:
        """Keep other writers out while the block runs."""


class LocalStateFiles:
    """A folder of this machine, or a mounted one."""

    def __init__(self, folder: Path) -> None:
        """Use `folder`, a model's base path."""
        self._folder = folder

    def place(self, name: str) -> str:
        """Return the path of a file."""
        return str(self._folder / name)

    def read(self, name: str) -> bytes | None:
        """Return a file's content; None where there is none."""
        try:
            return (self._folder / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StorageError(
                f"cannot read it ({error.strerror or error})", where=self.place(name), fix="grant read permission there"
            ) from None

    def replace(self, name: str, content: bytes) -> None:
        """Write aside, sync, rename, sync the folder."""
        temporary = self._folder / f"{_ASIDE}{name}"
        with self._told(name):
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._folder / name)
            descriptor = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def append(self, name: str, content: bytes) -> None:
        """Add to a file's end and sync it."""
        with self._told(name), (self._folder / name).open("ab") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold a file lock, which the system drops where the process dies."""
        from filelock import FileLock, Timeout

        lock = FileLock(self._folder / _LOCK_FILE, timeout=_LOCK_SECONDS)
        try:
            with self._told(_LOCK_FILE):
                self._folder.mkdir(parents=True, exist_ok=True)
                lock.acquire()
                for left in self._folder.glob(f"{_ASIDE}*"):
                    left.unlink()
        except Timeout:
            raise BusyError(
                "another process is changing what is promoted",
                where=str(self._folder),
                fix="let it end, then try again",
            ) from None
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            # filelock's own, which is an OSError too.
            raise
        except OSError as error:
            raise StorageError(
                f"cannot write it ({error.strerror or error})",
                where=self.place(name),
                fix="grant write permission, free space; what was promoted before still is",
            ) from None
