"""Rows that wait for their run: each upload is copied once and hashed on the way: what is ingested is what was seen."""

from __future__ import annotations

import hashlib
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from bike_pipeline.errors import DataError
from bike_pipeline.retraining.events import Event
from bike_pipeline.storage.atomic_files import one_error, sync_path

_BLOCK = 1 << 20
# What is left of a copy that is older than this, in seconds, nobody makes any more.
_LEFT_SECONDS = 3600.0


class Readable(Protocol):
    """What bytes are read from."""

    def read(self, size: int, /) -> bytes:
        """Return at most so many bytes, and none at the end."""


class Uploads:
    """A folder with one folder for each event that brings rows."""

    def __init__(self, folder: Path) -> None:
        """Use a folder; it is made by the first upload."""
        self._folder = folder

    def store(self, stream: Readable, name: str, most_bytes: int, event: Callable[[str, str], Event]) -> Event:
        """Copy what a stream holds; return the event of it, which `event` makes of its SHA-256 and the local file.

        It knows how many rows it brings, if the file's name says that they can be counted without reading them.

        Raises:
            DataError: there is more of it than allowed; nothing is kept.
            StorageError: it cannot be written.
        """
        digest, size, lines = hashlib.sha256(), 0, 0
        aside = self._folder / f".{secrets.token_hex(8)}"
        with one_error("write", aside):
            self._folder.mkdir(parents=True, exist_ok=True)
            try:
                with aside.open("xb") as file:
                    while block := stream.read(_BLOCK):
                        size += len(block)
                        if size > most_bytes:
                            raise DataError(
                                f"it has more than {most_bytes:,} bytes",
                                where=name,
                                fix="cut it, or raise retraining.storage.most_megabytes",
                            )
                        digest.update(block)
                        lines += block.count(b"\n")
                        file.write(block)
                sync_path(aside)
                # Its place depends on what is in it, which only its end tells.
                identity = event(digest.hexdigest(), "").identity
                place = self._folder / identity / Path(name).name
                place.parent.mkdir(exist_ok=True)
                aside.replace(place)
                sync_path(place.parent)
                sync_path(self._folder)
            finally:
                aside.unlink(missing_ok=True)
        return replace(event(digest.hexdigest(), str(place)), rows=_rows(place, lines))

    def check(self, event: Event) -> Path:
        """Return the file of an event; a DataError if it is gone or not what was seen."""
        path = Path(event.upload)
        try:
            with path.open("rb") as file:
                same = hashlib.file_digest(file, "sha256").hexdigest() == event.digest
        except FileNotFoundError:
            raise DataError("the upload is gone", where=str(path), fix="upload it again") from None
        if not same:
            raise DataError("the upload was changed after it was taken", where=str(path), fix="upload it again")
        return path

    def drop(self, event: Event) -> None:
        """Remove the file of an event; nothing if it has none."""
        if event.upload:
            with one_error("remove", self._folder):
                shutil.rmtree(self._folder / event.identity, ignore_errors=True)

    def clear(self) -> None:
        """Remove what processes that died had begun to copy; another one may be copying now."""
        with one_error("remove", self._folder):
            for path in self._folder.glob(".*"):
                if time.time() - path.stat().st_mtime > _LEFT_SECONDS:
                    path.unlink(missing_ok=True)


def _rows(path: Path, lines: int) -> int:
    """Return the rows of a Parquet file, or of one of CSV with so many line ends; 0 for any other, or a broken one."""
    if path.suffix == ".csv":
        # The first line names the columns.
        return max(lines - 1, 0)
    if path.suffix != ".parquet":
        return 0
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(path).num_rows)
    except pa.ArrowException:
        return 0
