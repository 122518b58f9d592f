"""Files that a manifest names, each with its SHA-256: what is written is hashed, what is read is checked.

The manifest is replaced as a whole, which is when a change counts: whatever that was killed at, the state before is
there.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from bike_pipeline.errors import BusyError, DataError, first_words
from bike_pipeline.model_registry.model_signature import sha256_of
from bike_pipeline.storage.atomic_files import file_lock, one_error, replace_file, sync_path

FORMAT = 1
MANIFEST = "manifest.json"
STAGING = ".staging-"
_LOCK_SECONDS = 600.0
_FIX = "restore it from a backup, or move the folder away and ingest the request log again"


class StoredFiles:
    """The files of a folder; nothing is made before something is changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def placed(self, aside: Path, name: str) -> dict[str, Any]:
        """Move a file to where its content's hash is part of its name; return its record."""
        sha256 = sha256_of(aside)
        target = self.folder / f"{name}-{sha256[:12]}.parquet"
        with one_error("write", target):
            target.parent.mkdir(parents=True, exist_ok=True)
            sync_path(aside)
            aside.replace(target)
            sync_path(target.parent)
        return {"file": str(target.relative_to(self.folder)), "sha256": sha256}

    def checked(self, record: Mapping[str, Any]) -> Path:
        """Return the path of a file whose content is the one that was placed; else a DataError."""
        path = self.folder / str(record["file"])
        try:
            same = sha256_of(path) == record["sha256"]
        except FileNotFoundError:
            raise DataError("the file is gone", where=str(path), fix=_FIX) from None
        if not same:
            raise DataError("the file was changed: its SHA-256 is not the manifest's", where=str(path), fix=_FIX)
        return path

    def manifest(self) -> dict[str, Any]:
        """Return what counts now; a DataError if it cannot be read."""
        path = self.folder / MANIFEST
        try:
            found = json.loads(path.read_bytes())
            if found["format"] == FORMAT and found.keys() >= _nothing().keys():
                return dict(found)
        except FileNotFoundError:
            return _nothing()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"it cannot be read ({first_words(error)})", where=str(path), fix=_FIX) from None
        raise DataError("it is of another release", where=str(path), fix=_FIX)

    @contextlib.contextmanager
    def changing(self) -> Iterator[dict[str, Any]]:
        """Yield the manifest to be changed; it counts when the block ends.

        What it named before stays until the next change: who reads meanwhile finds it.
        """
        busy = BusyError("another process adds to it", where=str(self.folder), fix="let it end, and run it again")
        with one_error("write", self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        with file_lock(self.folder / "lock", busy, seconds=_LOCK_SECONDS):
            manifest = self.manifest()
            named = _named(manifest)
            yield manifest
            content = json.dumps(manifest, indent=1, sort_keys=True).encode()
            replace_file(self.folder / MANIFEST, content)
            self._sweep(named | _named(manifest))

    def _sweep(self, named: Collection[str]) -> None:
        """Remove what nothing names any more, or what a change was killed over."""
        for path in (*(self.folder / "days").glob("*.parquet"), *self.folder.glob("labels-*.parquet")):
            if str(path.relative_to(self.folder)) not in named:
                path.unlink(missing_ok=True)
        for left in self.folder.glob(f"{STAGING}*"):
            shutil.rmtree(left, ignore_errors=True)


def _named(manifest: Mapping[str, Any]) -> set[str]:
    return {str(record["file"]) for record in (*manifest["days"].values(), manifest["labels"]) if record}


def _nothing() -> dict[str, Any]:
    return {"format": FORMAT, "days": {}, "labels": None, "logs": {}, "spans": {}, "ingested_at": None}
