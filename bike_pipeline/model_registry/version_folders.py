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
from bike_pipeline.model_registry import layout
from bike_pipeline.model_registry.layout import MANIFEST_FILE, PUSH_FILE, SIGNATURE_FILE

_INCOMING = ".incoming-"


def fingerprint(folder: str | Path) -> str:
    """Return the fingerprint of a version's folder or address."""
    if is_remote(folder):
        from bike_pipeline.model_registry import remote_models

        with remote_models.fetched(str(folder)) as local:
            return layout.fingerprint(local)
    return layout.fingerprint(folder)


def is_intact(folder: str | Path, expected: str, exports: str | None = None) -> bool:
    """Return whether a model's folder is there and holds the very bytes that `expected` is the fingerprint of.

    Args:
        folder: the folder.
        expected: fingerprint of the model.
        exports: fingerprint of its exports, "" where there must be none; None where they do not matter.
    """
    if is_remote(folder):
        from bike_pipeline.model_registry import remote_models

        with remote_models.fetched(str(folder)) as local:
            return layout.is_intact(local, expected, exports)
    return layout.is_intact(folder, expected, exports)


def versions(base_path: str | Path) -> list[int]:
    """Return the version numbers under a model's base path, ascending."""
    if is_remote(base_path):
        from bike_pipeline.model_registry.remote_models import RemoteModels

        return RemoteModels(str(base_path)).versions()
    root = Path(base_path)
    return sorted(int(p.name) for p in root.iterdir() if p.name.isdigit() and p.is_dir()) if root.is_dir() else []


def push_record(base_path: str | Path, version: int) -> dict[str, Any] | None:
    """Return what was written down at the push of a version; None where there is no such record.

    Raises:
        StorageError: it cannot be read.
    """
    if not is_remote(base_path):
        return layout.record_in(Path(at(base_path, version)))
    from bike_pipeline.model_registry.remote_models import RemoteModels

    content = RemoteModels(str(base_path)).read(f"{version}/{PUSH_FILE}")
    return None if content is None else layout.parsed_record(content, f"{at(base_path, version)}/{PUSH_FILE}")


def signed_as(base_path: str | Path, version: int) -> str:
    """Return the SHA-256 over a version's manifest and its signature, as they are now; what is absent is empty."""
    digest = hashlib.sha256()
    for name in (MANIFEST_FILE, SIGNATURE_FILE):
        if is_remote(base_path):
            from bike_pipeline.model_registry.remote_models import RemoteModels

            content = RemoteModels(str(base_path)).read(f"{version}/{name}")
        else:
            path = Path(at(base_path, version)) / name
            content = path.read_bytes() if path.is_file() else None
        digest.update(hashlib.sha256(content or b"").digest())
    return digest.hexdigest()


def local_folder(base_path: str | Path, version: int, fresh: bool = False) -> Path:
    """Return a local folder with the files of a version: its own, or a copy where the base path is an address.

    Args:
        base_path: the model's base path.
        version: the version.
        fresh: whether a copy must be what is there now, byte for byte; without it, the model's fingerprint is enough.

    Raises:
        StorageError: an address cannot be read, or holds no such version.
    """
    if not is_remote(base_path):
        return Path(base_path) / str(version)
    from bike_pipeline.model_registry import remote_models

    return remote_models.local_copy(at(base_path, version), fresh)


def local_copy(folder: str | Path) -> Path:
    """Return a local folder with the files of a pushed version's folder or address.

    Raises:
        StorageError: an address cannot be read, or holds no such version.
    """
    if not is_remote(folder):
        return Path(folder)
    from bike_pipeline.model_registry import remote_models

    return local_folder(*remote_models.split(str(folder)))


def is_remote(path: str | Path) -> bool:
    """Return whether a path is an address on object storage."""
    return "://" in str(path)


def at(base_path: str | Path, version: int) -> str:
    """Return the folder or the address of a version."""
    return f"{str(base_path).rstrip('/')}/{version}"


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
) -> Path | str:
    """Copy a SavedModel to `base_path/version` so that a watching server sees all of it or nothing.

    The files are written aside, synced to disk, and the folder is renamed; what a killed process left aside is removed.
    On object storage, `remote_models` says how.

    Args:
        base_path: the model's base path.
        model: folder of the SavedModel.
        version: the new version number.
        record: what to write down beside it.
        complete: writes what must appear together with the rest, such as the signed manifest, into the folder that is
            still aside.

    Returns:
        The version's folder or address.

    Raises:
        StorageError: the folder cannot be written (permission, space) or the version exists.
        BusyError: on object storage, another process is pushing.
    """

    def fill(folder: Path) -> None:
        (folder / PUSH_FILE).write_text(json.dumps(record, indent=2, sort_keys=True), encoding="utf-8")
        if complete:
            complete(folder)

    if is_remote(base_path):
        from bike_pipeline.model_registry import remote_models

        return remote_models.upload(str(base_path), version, Path(model), fill)
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
        fill(incoming)
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
