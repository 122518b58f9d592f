r"""The files below a folder or an address, as the span store and the model registry need them, and paths as patterns.

TensorFlow matches file names with `[`, `*`, `?` and `\` even where it loads one SavedModel, whose folder must be a
literal path at the same time: whatever a person put into a folder's name, a path here means just itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

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
        from bike_pipeline.storage.local_files import LocalFiles

        return LocalFiles(folder, lock_seconds)
    from bike_pipeline.storage.remote_files import RemoteFiles, open_file_system

    return RemoteFiles(*open_file_system(os.fspath(uri)))


def write_tree(folder: Path, contents: dict[str, bytes]) -> None:
    """Write files by their relative path into a folder, unflushed; ValueError for a name that leads out of it."""
    for name, content in contents.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{name} leads out of its folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


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
