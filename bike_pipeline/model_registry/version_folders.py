"""The model base path as TF Serving watches it: numeric version folders, complete or absent, never half-written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from bike_pipeline.errors import StorageError

# Lies in each version folder; a version without it was not pushed by this product.
PUSH_FILE = "push.json"
# The signed manifest and its signature; see `model_manifest`.
MANIFEST_FILE = "model_manifest.json"
SIGNATURE_FILE = "model_manifest.json.sig"
# Written by the push itself, so no part of the model's identity.
_OWN = (PUSH_FILE, MANIFEST_FILE, SIGNATURE_FILE)
# The model in other formats, with what was measured of them in `parity.json`; TensorFlow Serving looks at neither.
EXPORTS_FOLDER = PurePosixPath("assets.extra/exports")
PARITY_FILE = "parity.json"
# What two measurements of the same file never agree on.
MEASURED = ("cold_start_ms", "latency_us", "rows_per_second")
_INCOMING = ".incoming-"


def fingerprint(folder: str | Path) -> str:
    """Return the SHA-256 over names and contents of a model's files, but for what a push wrote beside them.

    The model's exports are no part of it: it is the same model with and without them.
    """
    if is_remote(folder):
        from bike_pipeline.model_registry import remote_models

        with remote_models.fetched(str(folder)) as local:
            return fingerprint(local)
    root = Path(folder)
    exports = root / EXPORTS_FOLDER
    return _digest(
        root, (p for p in root.rglob("*") if p.is_file() and p.name not in _OWN and exports not in p.parents)
    )


def exports_fingerprint(folder: str | Path) -> str:
    """Return the SHA-256 over a model's exports in `folder`; "" where there are none.

    How fast they were is left out: the same files measured again are the same exports.
    """
    if is_remote(folder):
        from bike_pipeline.model_registry import remote_models

        with remote_models.fetched(str(folder)) as local:
            return exports_fingerprint(local)
    exports = Path(folder) / EXPORTS_FOLDER
    files = [p for p in exports.rglob("*") if p.is_file()]
    return _digest(exports, files) if files else ""


def _digest(root: Path, files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
        content = _without_measurements(path.read_bytes()) if path.name == PARITY_FILE else path.read_bytes()
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def _without_measurements(parity: bytes) -> bytes:
    try:
        report = json.loads(parity)
        for entry in report["formats"].values():
            for name in MEASURED:
                entry.pop(name, None)
    except (ValueError, KeyError, TypeError, AttributeError):
        return parity
    return json.dumps(report, sort_keys=True).encode()


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
            return is_intact(local, expected, exports)
    return (
        Path(folder).is_dir()
        and fingerprint(folder) == expected
        and (exports is None or exports_fingerprint(folder) == exports)
    )


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
        return record_in(Path(at(base_path, version)))
    from bike_pipeline.model_registry.remote_models import RemoteModels

    content = RemoteModels(str(base_path)).read(f"{version}/{PUSH_FILE}")
    return None if content is None else _record(content, f"{at(base_path, version)}/{PUSH_FILE}")


def record_in(folder: Path) -> dict[str, Any] | None:
    """Return what was written down at the push of the version in a local folder; None where there is no such record.

    Raises:
        StorageError: it cannot be read.
    """
    path = folder / PUSH_FILE
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unreadable(error, str(path)) from None
    return _record(content, str(path))


def _record(content: bytes, where: str) -> dict[str, Any] | None:
    try:
        record = json.loads(content)
    except ValueError as error:
        raise _unreadable(error, where) from None
    return record if isinstance(record, dict) else None


def _unreadable(error: Exception, where: str) -> StorageError:
    return StorageError(f"cannot read the push record ({error})", where=where, fix="push again")


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
