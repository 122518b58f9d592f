"""Folders that are watched for files of rows, here or in object storage: what is in them, and how a file is read.

Nothing is opened that could block or be without an end: links, pipes and devices are told and left alone, and a file
that is changed while it is read is not taken.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bike_pipeline.data.sources.content import SUFFIXES
from bike_pipeline.errors import DataError, StorageError, first_words
from bike_pipeline.retraining.events import digest_of
from bike_pipeline.retraining.uploads import Readable
from bike_pipeline.storage.atomic_files import one_error
from bike_pipeline.storage.remote_files import open_file_system, without_credentials

# How browsers and copying programs call what is not finished.
_UNFINISHED = (".part", ".tmp", ".crdownload", ".filepart")
# What is fetched from object storage at once, in bytes.
_BLOCK = 4 << 20
# Of a file's name more than this is not kept, in bytes: file systems allow 255, and a name is told in tables.
_LONGEST = 120


@dataclass(frozen=True)
class Entry:
    """A file, or what else has a name in a folder.

    Attributes:
        name: its name.
        mark: another one if its content may have changed.
        size: in bytes.
        at: when it was changed last, as its storage tells it; of one storage, these are in order.
        why_not: why it is not taken as it is; "" if it can be.
    """

    name: str
    mark: str
    size: int
    at: str
    why_not: str = ""

    @property
    def key(self) -> str:
        """SHA-256 of its name, whatever bytes that is made of."""
        return digest_of(os.fsencode(self.name).hex())

    @property
    def shown(self) -> str:
        """Its name, printable, in UTF-8 and not too long."""
        text = os.fsencode(self.name).decode("utf-8", "backslashreplace")
        text = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
        if len(text.encode()) <= _LONGEST:
            return text
        suffix = next((one for one in SUFFIXES if self.name.lower().endswith(one)), "")
        return f"{text.encode()[: _LONGEST - 30].decode('utf-8', 'ignore')}…{digest_of(text)[:8]}{suffix}"


class WatchedFolder(Protocol):
    """A place with files.

    Attributes:
        source: its address without credentials.
        every_seconds: the shortest pause between two lists of it.
    """

    source: str
    every_seconds: float

    def entries(self) -> Iterator[Entry]:
        """Yield what is directly in it.

        Raises:
            StorageError: it cannot be listed.
        """

    def reading(self, entry: Entry) -> AbstractContextManager[Readable]:
        """Return a context with its content as a `Readable`, which raises a DataError where it is not as listed."""


def why_not(name: str, size: int, most_bytes: int) -> str:
    """Return why no file of that name and size is taken, anywhere; "" if it may be."""
    lower = name.lower()
    if name.startswith("."):
        return "its name begins with a dot"
    if lower.endswith(_UNFINISHED):
        return "its name says that it is not finished"
    if not lower.endswith(SUFFIXES):
        return f"it is called neither {', '.join(SUFFIXES[:-1])} nor {SUFFIXES[-1]}"
    if size > most_bytes:
        return f"it has {size:,} bytes, and retraining.storage.most_megabytes allows {most_bytes:,}"
    return "it is empty" if not size else ""


class _Checked:
    """What a file holds; at its end it must have the mark that it was listed with."""

    def __init__(self, file: Readable, listed: str, mark: Callable[[], str]) -> None:
        self._file, self._listed, self._mark = file, listed, mark

    def read(self, size: int, /) -> bytes:
        try:
            block = self._file.read(size)
            changed = not block and self._mark() != self._listed
        except Exception as error:  # each storage raises its own kinds
            raise DataError(f"it cannot be read: {first_words(error)}") from error
        if changed:
            raise DataError("it was changed while it was read; the next look takes it")
        return block


class LocalFolder:
    """A folder of this machine, or one that is mounted."""

    every_seconds = 0.0

    def __init__(self, path: Path, settle_seconds: float, most_bytes: int) -> None:
        """Watch a folder; a file is not finished before it stayed as it is for `settle_seconds`."""
        self.source = str(path)
        self._path, self._settle, self._most = path, settle_seconds, most_bytes
        # Since when files that are new have their mark, by this process's own clock.
        self._since: dict[str, tuple[str, float]] = {}

    def entries(self) -> Iterator[Entry]:
        found, since = [], self._since
        with one_error("read", self._path), os.scandir(self._path) as listed:
            for one in listed:
                try:
                    found.append((one.name, one.stat(follow_symlinks=False)))
                except FileNotFoundError:
                    # It was renamed or removed since.
                    continue
        self._since = {}
        for name, info in found:
            mark = _mark(info)
            began = since.get(name, ("", 0.0))
            self._since[name] = began if began[0] == mark else (mark, time.monotonic())
            reason = _no_file(info.st_mode) or why_not(name, info.st_size, self._most) or self._unsettled(name, info)
            yield Entry(name, mark, info.st_size, f"{info.st_mtime_ns:020}", reason)

    def _unsettled(self, name: str, info: os.stat_result) -> str:
        # Nobody can set the time of the last change; where clocks differ, what this process saw itself counts.
        by_clock = time.time() - info.st_ctime
        if max(by_clock, time.monotonic() - self._since[name][1]) >= self._settle:
            return ""
        return f"it was changed within the last {self._settle:g} seconds, so it may not be finished"

    @contextmanager
    def reading(self, entry: Entry) -> Iterator[Readable]:
        try:
            # A pipe that took the file's place would wait for a writer.
            descriptor = os.open(self._path / entry.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise DataError(f"it cannot be read: {(error.strerror or str(error)).lower()}") from error
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            if _mark(os.fstat(descriptor)) != entry.mark:
                raise DataError("another file took its place; the next look takes that")
            yield _Checked(file, entry.mark, lambda: _mark(os.fstat(descriptor)))


def _mark(info: os.stat_result) -> str:
    return digest_of(str(info.st_mtime_ns), str(info.st_size), str(info.st_ino), str(stat.S_IFMT(info.st_mode)))


def _no_file(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "it is a symbolic link, which is not followed"
    if stat.S_ISDIR(mode):
        return "it is a folder; only what is directly here is taken"
    return "" if stat.S_ISREG(mode) else "it is a pipe, a socket or a device, which is never opened"


class RemoteFolder:
    """A folder (prefix) of object storage, where a file is there as a whole or not at all."""

    def __init__(self, url: str, every_seconds: float, most_bytes: int) -> None:
        """Watch an address; its storage is opened at the first look."""
        self.source = without_credentials(url).rstrip("/")
        self.every_seconds, self._url, self._most = every_seconds, url, most_bytes

    def entries(self) -> Iterator[Entry]:
        file_system, root = open_file_system(self._url)
        try:
            # Listings are cached by fsspec.
            file_system.invalidate_cache()
            listed = file_system.ls(root, detail=True)
        except FileNotFoundError:
            raise StorageError("there is no such folder, or nothing in it yet", where=self.source) from None
        except Exception as error:  # each storage raises its own kinds
            fix = "check the address, the credentials and the network"
            raise StorageError(f"cannot list it: {first_words(error)}", where=self.source, fix=fix) from error
        for one in listed:
            name, size = str(one["name"]).rstrip("/").rpartition("/")[2], int(one.get("size") or 0)
            # Some storages keep an empty object that stands for the folder itself.
            if str(one["name"]).rstrip("/") == root.rstrip("/"):
                continue
            folder = "it is a folder; only what is directly here is taken" if one["type"] == "directory" else ""
            yield Entry(name, _remote_mark(one), size, _changed_at(one), folder or why_not(name, size, self._most))

    @contextmanager
    def reading(self, entry: Entry) -> Iterator[Readable]:
        file_system, root = open_file_system(self._url)
        path = f"{root.rstrip('/')}/{entry.name}"

        def mark() -> str:
            file_system.invalidate_cache()
            return _remote_mark(file_system.info(path))

        try:
            file = file_system.open(path, "rb", block_size=_BLOCK)
        except Exception as error:  # each storage raises its own kinds
            raise DataError(f"it cannot be read: {first_words(error)}") from error
        with file:
            yield _Checked(file, entry.mark, mark)


def _remote_mark(info: dict[str, Any]) -> str:
    named = next((str(info[key]) for key in ("generation", "ETag", "etag") if info.get(key)), "")
    return digest_of(named or f"{info.get('size')} {_changed_at(info)}")


def _changed_at(info: dict[str, Any]) -> str:
    keys = ("LastModified", "mtime", "updated", "last_modified", "created")
    return next((str(info[key]) for key in keys if info.get(key)), "")


def watched_folder(address: str, settle_seconds: float, remote_seconds: float, most_bytes: int) -> WatchedFolder:
    """Return what watches a folder, or an address such as s3://bucket/rows or gs://bucket/rows."""
    if "://" in address:
        return RemoteFolder(address, remote_seconds, most_bytes)
    return LocalFolder(Path(address).expanduser().absolute(), settle_seconds, most_bytes)
