r"""The files below a folder or an address, as the span store and the model registry need them, and paths as patterns.

TensorFlow matches file names with `[`, `*`, `?` and `\` even where it loads one SavedModel, whose folder must be a
literal path at the same time: whatever a person put into a folder's name, a path here means just itself.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from bike_pipeline.errors import BusyError, StorageError
from bike_pipeline.storage.atomic_files import file_lock, one_error, sync_path, sync_tree, write_and_sync
from bike_pipeline.storage.remote_files import RemoteFiles, open_file_system

LOCK_SECONDS = 60.0
_SPECIAL = re.compile(r"[*?\[\\]")


class Files(Protocol):
    """A folder of files, changed whole or not at all. All paths are relative to it, with forward slashes.

    Every method raises StorageError if the place cannot be read or written; what was there before still is.

    Attributes:
        at_once: whether a folder appears with all of its files; else the file that is written last makes it count.
    """

    at_once: bool

    def uri(self, path: str = "") -> str:
        """Return the absolute path or address of `path`."""

    def folders(self, path: str = "") -> list[str]:
        """Return the names of the folders in `path`; none if it does not exist."""

    def files(self, path: str = "", *, deep: bool = False) -> list[str]:
        """Return the names of the files in `path`, or the paths of all below it; none if it does not exist."""

    def read(self, path: str) -> bytes | None:
        """Return a file's content; None if it does not exist."""

    def download(self, path: str, target: Path) -> None:
        """Copy every file below `path` into the local folder `target`; nothing if it does not exist."""

    def lock(self) -> AbstractContextManager[None]:
        """Keep every other writer out, and clear what dead writers left; BusyError if another one is at work."""

    # Each of the following is called while the caller holds the lock.

    def publish(self, folder: str, fill: Callable[[Path], None], commit: str) -> None:
        """Create `folder` so that readers see all of it or nothing; StorageError if it exists.

        `fill` writes the files into a local folder; `commit`, which makes the folder count, is copied last.
        """

    def replace(self, path: str, content: bytes) -> None:
        """Write a file, whole or not at all."""

    def append(self, path: str, content: bytes) -> None:
        """Add to a file's end; a crash may leave a part of it."""

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with all below it; nothing if it does not exist."""


class LocalFiles:
    """A local folder; it is made by the first writer."""

    at_once = True

    def __init__(self, root: Path, lock_seconds: float = LOCK_SECONDS) -> None:
        """Use the folder `root`; another writer is waited for so many seconds."""
        self._root, self._scratch = root, root / ".writing"
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
        with file_lock(self._root / ".lock", busy, seconds=self._lock_seconds):
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
                sync_path(parent)

    def replace(self, path: str, content: bytes) -> None:
        with self._aside(self._root / path) as aside:
            write_and_sync(aside, content)
            aside.replace(self._root / path)
            sync_path((self._root / path).parent)

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
                self._scratch.mkdir(exist_ok=True)
                yield self._scratch / secrets.token_hex(8)
        finally:
            self._clear()

    def _clear(self) -> None:
        """Remove what was written aside; none of it is of use once its writer has ended."""
        with one_error("remove", self._scratch):
            if self._scratch.exists():
                shutil.rmtree(self._scratch)


def local_path(uri: str | os.PathLike[str]) -> Path | None:
    """Return the local path that a path or address means; None for one of object storage."""
    text = os.fspath(uri)
    if text.startswith(("file://", "local://")):
        return Path(unquote(urlsplit(text).path))
    return None if "://" in text else Path(text).expanduser().absolute()


def open_files(uri: str | os.PathLike[str], lock_seconds: float = LOCK_SECONDS) -> Files:
    """Return the files below a local folder, a file:// address or any address that fsspec writes to.

    Nothing is made until the first write. On a local folder another writer is waited for so many seconds.

    Raises:
        MissingExtraError: the package for this kind of address is not installed.
        DataError: nothing reads this kind of address.
    """
    folder = local_path(uri)
    if folder is not None:
        return LocalFiles(folder, lock_seconds)
    return RemoteFiles(*open_file_system(os.fspath(uri)))


def as_pattern(path: str) -> str:
    """Return the pattern that matches just this path, for TensorFlow's and Beam's readers."""
    return re.sub(r"[*?\[]", r"[\g<0>]", path.replace("\\", "\\\\"))


@contextmanager
def plain_folder(path: str | os.PathLike[str]) -> Iterator[str]:
    """Have another path of a folder, which means the same as a pattern; the folder's own if that is so already.

    It is one of this process only, and ends with the block.
    """
    own = os.fspath(path)
    if "://" in own or not _SPECIAL.search(own):
        yield own
        return
    descriptor = os.open(own, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
