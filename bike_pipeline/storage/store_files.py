"""The files below a span store on a local folder: lists, reads, the lock, and creation of a whole folder at once."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from bike_pipeline.errors import BusyError, StorageError
from bike_pipeline.storage.atomic_files import storage_error, sync_folder, write_and_sync

ASIDE = ".writing"
LOCK = ".lock"


class StoreFiles(Protocol):
    """What a span store needs from the place it stands in. All paths are relative, with forward slashes.

    Attributes:
        at_once: whether a folder appears with all of its files, so that one without its manifest lost it.
    """

    at_once: bool

    def uri(self, path: str) -> str:
        """Return the absolute path or address of `path`."""

    def folders(self, path: str) -> list[str]:
        """Return the names of the folders in `path`; none where it does not exist.

        Raises:
            StorageError: it cannot be listed.
        """

    def files(self, path: str) -> list[str]:
        """Return the names of the files in `path`; none where it does not exist.

        Raises:
            StorageError: it cannot be listed.
        """

    def read(self, path: str) -> bytes | None:
        """Return a file's content, or None where it does not exist.

        Raises:
            StorageError: it cannot be read.
        """

    def lock(self) -> AbstractContextManager[None]:
        """Keep every other writer out, and clear what dead writers left.

        Raises:
            BusyError: another writer is at work.
            StorageError: the lock cannot be taken.
        """

    def publish(self, folder: str, files: Mapping[str, bytes], commit: str) -> None:
        """Create `folder` with `files` so that readers see all of it or nothing; the lock is held.

        Args:
            folder: the folder to create; it does not exist.
            files: content by path in the folder.
            commit: the file that makes the folder count, written last.

        Raises:
            StorageError: it cannot be written; readers see nothing of it.
        """


class LocalFiles:
    """A local folder: written aside, flushed, renamed; one `flock` for all writers."""

    at_once = True

    def __init__(self, root: Path, lock_timeout: float) -> None:
        """Use the folder `root`; it is made by the first writer.

        Args:
            root: folder of the store.
            lock_timeout: seconds to wait for another writer.
        """
        self._root = root
        self._lock_timeout = lock_timeout

    def uri(self, path: str) -> str:
        """Return the absolute path."""
        return str(self._root / path)

    def folders(self, path: str) -> list[str]:
        """Return the names of the folders in `path`."""
        return self._names(path, folders=True)

    def files(self, path: str) -> list[str]:
        """Return the names of the files in `path`."""
        return self._names(path, folders=False)

    def _names(self, path: str, *, folders: bool) -> list[str]:
        try:
            with os.scandir(self._root / path) as entries:
                return [entry.name for entry in entries if entry.is_dir() == folders]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise storage_error(error, "list", self._root / path) from error

    def read(self, path: str) -> bytes | None:
        """Return a file's content."""
        try:
            return (self._root / path).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error(error, "read", self._root / path) from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock file; the operating system frees it when the process dies."""
        import filelock

        lock = filelock.FileLock(self._root / LOCK, timeout=self._lock_timeout)
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except filelock.Timeout:
            raise BusyError(
                f"another process has been writing to the store for {self._lock_timeout:g} seconds",
                where=str(self._root),
                fix="wait for it to end and run this again",
            ) from None
        except OSError as error:
            raise storage_error(error, "lock", self._root) from error
        try:
            # Whoever writes holds the lock, so whatever stands here belongs to a writer that died.
            if (self._root / ASIDE).exists():
                self._remove(self._root / ASIDE)
            yield
        finally:
            lock.release()

    def publish(self, folder: str, files: Mapping[str, bytes], commit: str) -> None:
        """Write the files aside, flush them and their folders, and rename the whole."""
        target = self._root / folder
        aside = self._root / ASIDE / secrets.token_hex(8)
        try:
            aside.mkdir(parents=True)
            for name in sorted(files, key=lambda name: name == commit):
                path = aside / name
                path.parent.mkdir(parents=True, exist_ok=True)
                write_and_sync(path, files[name])
            for made in {(aside / name).parent for name in files} | {aside}:
                sync_folder(made)
            target.parent.mkdir(parents=True, exist_ok=True)
            aside.rename(target)
            sync_folder(target.parent)
            sync_folder(self._root)
        except OSError as error:
            failure = storage_error(error, "write", target)
            if aside.exists():
                self._remove(aside)
            raise failure from error

    def _remove(self, folder: Path) -> None:
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise StorageError(
                f"what a stopped writer left cannot be removed ({error.strerror})",
                where=str(folder),
                fix="remove the folder by hand",
            ) from error
