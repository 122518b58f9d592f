"""The files below a folder or an address: what the span store and the model registry need from where they stand."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

LOCK_SECONDS = 60.0


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

        Args:
            folder: the folder to create.
            fill: writes the files into a local folder.
            commit: the file that makes the folder count, written last.
        """

    def replace(self, path: str, content: bytes) -> None:
        """Write a file, whole or not at all."""

    def append(self, path: str, content: bytes) -> None:
        """Add to a file's end; a crash may leave a part of it."""

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with all below it; nothing if it does not exist."""


def local_path(uri: str | os.PathLike[str]) -> Path | None:
    """Return the local path that a path or address means; None for one of object storage."""
    text = os.fspath(uri)
    if text.startswith(("file://", "local://")):
        return Path(unquote(urlsplit(text).path))
    return None if "://" in text else Path(text).expanduser().absolute()


def open_files(uri: str | os.PathLike[str], lock_seconds: float = LOCK_SECONDS) -> Files:
    """Return the files below a local folder, a file:// address or any address that fsspec writes to.

    Args:
        uri: folder or address; nothing is made until the first write.
        lock_seconds: how long to wait for another writer, on a local folder.

    Raises:
        MissingExtraError: the package for this kind of address is not installed.
        DataError: nothing reads this kind of address.
    """
    folder = local_path(uri)
    if folder is not None:
        from bike_pipeline.storage.local_files import LocalFiles

        return LocalFiles(folder, lock_seconds)
    from bike_pipeline.storage.file_systems import open_file_system
    from bike_pipeline.storage.remote_files import RemoteFiles

    return RemoteFiles(*open_file_system(os.fspath(uri)))


def write_tree(folder: Path, contents: dict[str, bytes]) -> None:
    """Write files by their relative path into a folder; they are not flushed.

    Raises:
        OSError: one cannot be written.
        ValueError: a name leads out of the folder.
    """
    for name, content in contents.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{name} leads out of its folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
