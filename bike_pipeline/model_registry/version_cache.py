"""Local copies of versions on object storage, kept by what they hold, so that one is downloaded once."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from bike_pipeline.errors import StorageError
from bike_pipeline.model_registry import layout
from bike_pipeline.storage.files import Files

CACHE_VARIABLE = "BIKE_PIPELINE_CACHE"


def cache_folder() -> Path:
    """Return where copies are kept: $BIKE_PIPELINE_CACHE, or the user's cache folder."""
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named)
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "bike-pipeline" / "models"


def cached(files: Files, version: int, *, fresh: bool) -> Path:
    """Return a local folder, named as the version, with its files.

    Args:
        files: the model's base path.
        version: the version.
        fresh: compare the copy with what is there now, byte for byte; else its own fingerprint is enough.
    """
    uri = files.uri(str(version))
    content = files.read(f"{version}/{layout.PUSH_FILE}")
    if content is None:
        raise StorageError("this version is not there", where=uri, fix="`bike-pipeline models` lists what is pushed")
    try:
        record = layout.push_record(files, str(version)) or {}
    except StorageError:
        record = {}
    expected, exports = str(record.get("fingerprint", "")), record.get("exports_fingerprint")
    key = hashlib.sha256(f"{files.uri()}\0{expected}\0".encode() + content).hexdigest()[:32]
    target = cache_folder() / key / str(version)
    # The exports are files that answer, too.
    if not fresh and layout.is_intact(target, expected, exports):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".incoming-", dir=target.parent) as incoming:
            new = Path(incoming) / "new"
            new.mkdir()
            files.download(str(version), new)
            if _contents(new) == _contents(target):
                return target
            if target.exists():
                # A folder cannot replace one that is not empty in one step.
                target.rename(Path(incoming) / "old")
            try:
                new.rename(target)
            except OSError:
                # Another process has put the same version there meanwhile.
                if not target.exists():
                    raise
    except OSError as error:
        raise StorageError(
            f"cannot keep a local copy of the model ({error.strerror or error})",
            where=str(target.parent),
            fix=f"free space, or name another folder in {CACHE_VARIABLE}",
        ) from None
    return target


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
