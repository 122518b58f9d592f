"""The model base path as TF Serving watches it: numeric version folders, complete or absent, never half-written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bike_pipeline.errors import StorageError

# Lies in each version folder; a version without it was not pushed by this product.
PUSH_FILE = "push.json"
# The signed manifest and its signature; see `model_manifest`.
MANIFEST_FILE = "model_manifest.json"
SIGNATURE_FILE = "model_manifest.json.sig"
# Written by the push itself, so no part of the model's identity.
_OWN = (PUSH_FILE, MANIFEST_FILE, SIGNATURE_FILE)
_INCOMING = ".incoming-"


def fingerprint(folder: str | Path) -> str:
    """Return the SHA-256 over names and contents of all files below `folder`, but for what a push wrote beside them."""
    root = Path(folder)
    digest = hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.is_file() and p.name not in _OWN):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def is_intact(folder: str | Path, expected: str) -> bool:
    """Return whether a model's folder is there and holds the very bytes that `expected` is the fingerprint of."""
    return Path(folder).is_dir() and fingerprint(folder) == expected


def versions(base_path: str | Path) -> list[int]:
    """Return the version numbers under a model's base path, ascending."""
    root = Path(base_path)
    return sorted(int(p.name) for p in root.iterdir() if p.name.isdigit() and p.is_dir()) if root.is_dir() else []


def push_record(base_path: str | Path, version: int) -> dict[str, Any] | None:
    """Return what was written down at the push of a version; None where there is no such record."""
    path = Path(base_path) / str(version) / PUSH_FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise StorageError(f"cannot read the push record ({error})", where=str(path), fix="push again") from None
    return record if isinstance(record, dict) else None


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def add_version(
    base_path: str | Path,
    model: str | Path,
    version: int,
    record: Mapping[str, Any],
    complete: Callable[[Path], None] | None = None,
) -> Path:
    """Copy a SavedModel to `base_path/version` so that a watching server sees all of it or nothing.

    The files are written aside, synced to disk, and the folder is renamed; what a killed process left aside is removed.

    Args:
        base_path: the model's base path.
        model: folder of the SavedModel.
        version: the new version number.
        record: what to write down beside it.
        complete: writes what must appear together with the rest, such as the signed manifest, into the folder that is
            still aside.

    Returns:
        The version's folder.

    Raises:
        StorageError: the folder cannot be written (permission, space) or the version exists.
    """
    root = Path(base_path)
    target = root / str(version)
    incoming = root / f"{_INCOMING}{version}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        for left in root.glob(f"{_INCOMING}*"):
            shutil.rmtree(left)
        if target.exists():
            raise StorageError("this version is there already", where=str(target), fix="push under a higher version")
        shutil.copytree(model, incoming)
        (incoming / PUSH_FILE).write_text(json.dumps(record, indent=2, sort_keys=True), encoding="utf-8")
        if complete:
            complete(incoming)
        for path in (*incoming.rglob("*"), incoming):
            _fsync(path)
        incoming.rename(target)
        _fsync(root)
    except OSError as error:
        shutil.rmtree(incoming, ignore_errors=True)
        # shutil gathers what failed as (source, destination, reason).
        reason = error.args[0][0][2] if isinstance(error, shutil.Error) else error.strerror
        raise StorageError(
            f"cannot write the model ({reason or error})",
            where=str(root),
            fix="free space or grant write permission there, then run again; the versions before are untouched",
        ) from None
    return target
