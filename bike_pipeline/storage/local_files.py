"""Files below a local folder: written aside, flushed, renamed; one `flock` for all writers."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bike_pipeline.errors import BusyError, StorageError
from bike_pipeline.storage.atomic_files import one_error, sync_folder, sync_tree, write_and_sync
from bike_pipeline.storage.files import LOCK_SECONDS
from bike_pipeline.storage.locks import file_lock

ASIDE = ".writing"
LOCK = ".lock"


class LocalFiles:
    """A local folder; it is made by the first writer. See `files.Files`."""

    at_once = True

    def __init__(self, root: Path, lock_seconds: float = LOCK_SECONDS) -> None:
        self._root = root
        self._lock_seconds = lock_seconds

    def uri(self, path: str = "") -> str:
        return str(self._root / path)

    def folders(self, path: str = "") -> list[str]:
        return [entry.name for entry in self._entries(path) if entry.is_dir()]

    def files(self, path: str = "", *, deep: bool = False) -> list[str]:
        folder = self._root / path
        if deep:
            return [found.relative_to(folder).as_posix() for found in folder.rglob("*") if found.is_file()]
        return [entry.name for entry in self._entries(path) if not entry.is_dir()]

    def _entries(self, path: str) -> list[Path]:
        with one_error("list", self._root / path), suppress(FileNotFoundError):
            return list((self._root / path).iterdir())
        return []

    def read(self, path: str) -> bytes | None:
        with one_error("read", self._root / path), suppress(FileNotFoundError, NotADirectoryError):
            return (self._root / path).read_bytes()
        return None

    def download(self, path: str, target: Path) -> None:
        with one_error("copy", self._root / path):
            if (self._root / path).is_dir():
                shutil.copytree(self._root / path, target, dirs_exist_ok=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        busy = BusyError(
            f"another process has been writing there for {self._lock_seconds:g} seconds",
            where=str(self._root),
            fix="wait for it to end and run this again",
        )
        with file_lock(self._root / LOCK, busy, seconds=self._lock_seconds):
            # Whoever writes holds the lock, so whatever stands here belongs to a writer that died.
            self._clear()
            yield

    def publish(self, folder: str, fill: Callable[[Path], None], commit: str) -> None:  # noqa: ARG002 (appears at once)
        target = self._root / folder
        if target.exists():
            raise StorageError("it is there already", where=str(target), fix="run it again")
        with self._aside(target) as aside:
            aside.mkdir()
            fill(aside)
            sync_tree(aside)
            target.parent.mkdir(parents=True, exist_ok=True)
            aside.rename(target)
            for parent in {target.parent, self._root}:
                sync_folder(parent)

    def replace(self, path: str, content: bytes) -> None:
        with self._aside(self._root / path) as aside:
            write_and_sync(aside, content)
            aside.replace(self._root / path)
            sync_folder((self._root / path).parent)

    def append(self, path: str, content: bytes) -> None:
        with one_error("write", self._root / path):
            write_and_sync(self._root / path, content, append=True)

    def remove(self, path: str) -> None:
        with one_error("remove", self._root / path):
            if (self._root / path).is_dir():
                shutil.rmtree(self._root / path)
            else:
                (self._root / path).unlink(missing_ok=True)

    @contextmanager
    def _aside(self, target: Path) -> Iterator[Path]:
        try:
            with one_error("write", target):
                (self._root / ASIDE).mkdir(exist_ok=True)
                yield self._root / ASIDE / secrets.token_hex(8)
        finally:
            self._clear()

    def _clear(self) -> None:
        """Remove what was written aside; none of it is of use once its writer has ended."""
        with one_error("remove", self._root / ASIDE):
            if (self._root / ASIDE).exists():
                shutil.rmtree(self._root / ASIDE)
