"""What a pushed version's folder holds: the names of the files beside the model, and the fingerprints of both."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from bike_pipeline.errors import StorageError
from bike_pipeline.storage.files import Files

# TF Serving takes a folder with this file for a version.
MODEL_FILE = "saved_model.pb"
# Lies in each version folder; a version without it was not pushed by this product.
PUSH_FILE = "push.json"
# What speaks for the model with its version number, and the signature over all files; see `model_signature`.
EVIDENCE_FILE = "evidence.json"
SIGNATURE_FILE = "model.sig"
# What earlier releases wrote instead; see `model_signature`.
OLD_MANIFEST_FILE = "model_manifest.json"
OLD_SIGNATURE_FILE = "model_manifest.json.sig"
SIGNED_FILES = (EVIDENCE_FILE, SIGNATURE_FILE, OLD_MANIFEST_FILE, OLD_SIGNATURE_FILE)
# Written by the push itself, so no part of the model's identity.
_OWN = (PUSH_FILE, *SIGNED_FILES)
# TensorFlow Serving leaves it alone.
EXTRA_FOLDER = PurePosixPath("assets.extra")
# The model in other formats, with what was measured of them in `parity.json`; TensorFlow Serving looks at neither.
EXPORTS_FOLDER = EXTRA_FOLDER / "exports"
PARITY_FILE = "parity.json"
# The model's card, for people.
CARD_FOLDER = EXTRA_FOLDER / "model_card"
# What two measurements of the same file never agree on.
MEASURED = ("cold_start_ms", "latency_us", "rows_per_second")


def fingerprint(folder: str | Path) -> str:
    """Return the SHA-256 over names and contents of a model's files, but for what a push wrote beside them.

    The model's exports and its card are no part of it: it is the same model with and without them.
    """
    root = Path(folder)
    beside = {root / EXPORTS_FOLDER, root / CARD_FOLDER}
    return _digest(
        root, (p for p in root.rglob("*") if p.is_file() and p.name not in _OWN and beside.isdisjoint(p.parents))
    )


def copy_model(folder: Path, target: Path) -> None:
    """Copy a version's model to a new folder, without what a push wrote beside it: it has the same fingerprint."""
    own = {folder / name for name in (*_OWN, EXPORTS_FOLDER, CARD_FOLDER)}
    shutil.copytree(folder, target, ignore=lambda place, names: [n for n in names if Path(place, n) in own])


def exports_fingerprint(folder: str | Path) -> str:
    """Return the SHA-256 over a model's exports in `folder`; "" if there are none.

    How fast they were is left out: the same files measured again are the same exports.
    """
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


def push_record(files: Files, folder: str = "") -> dict[str, Any] | None:
    """Return what was written down at the push of the version in `folder`; None if there is no such record."""
    path = f"{folder}/{PUSH_FILE}".lstrip("/")
    content = files.read(path)
    if content is None:
        return None
    try:
        record = json.loads(content)
    except ValueError as error:
        raise StorageError(f"cannot read the push record ({error})", where=files.uri(path), fix="push again") from None
    return record if isinstance(record, dict) else None
