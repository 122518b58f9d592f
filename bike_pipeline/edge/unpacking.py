"""From an archive to a checked folder: signature, every byte, golden rows.

Imports nothing of this package but what is shipped with it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bike_pipeline.edge.trust import FORMAT, UpdateError, check_signature

MANIFEST, SIGNATURE = "manifest.json", "manifest.json.sig"
MANIFEST_LIMIT, FILES_LIMIT = 1024 * 1024, 1000
# Of golden.json: rows with a number that is not finite, which are answered with NaN. Older bundles have none.
NOT_FINITE = "not_finite"
_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*")


def read_manifest(content: bytes, signature: bytes, key: Any) -> dict[str, Any]:
    """Return a bundle's manifest, its signature and the names of its files checked."""
    check_signature(key, content, signature, MANIFEST)
    manifest: dict[str, Any] = json.loads(content)
    if manifest.get("format") != FORMAT:
        raise UpdateError(f"{MANIFEST}: it has format {manifest.get('format')}; this program reads format {FORMAT}")
    wrong = [name for name in manifest["files"] if not _FILE_NAME.fullmatch(name) or name in (MANIFEST, SIGNATURE)]
    if wrong or len(manifest["files"]) > FILES_LIMIT:
        raise UpdateError(f"{MANIFEST}: it names files that no bundle has ({', '.join(wrong[:1]) or 'too many'})")
    return manifest


def archive_of(head: Mapping[str, bytes], files: Mapping[str, bytes]) -> bytes:
    """Return the archive of a bundle: the same bytes for the same files, those of `head` first, the others by name."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in (*head.items(), *sorted(files.items())):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            tar.addfile(member, io.BytesIO(content))
    return made.getvalue()


def extract(archive: Path, folder: Path, key: Any) -> None:
    """Unpack a bundle: only plain files that its signed manifest names, with the hashes it promises."""
    try:
        with tarfile.open(archive, "r:") as tar:
            head = {name: _content(tar, tar.next(), name, MANIFEST_LIMIT) for name in (MANIFEST, SIGNATURE)}
            manifest = read_manifest(head[MANIFEST], head[SIGNATURE], key)
            missing = dict(manifest["files"])
            for name, content in head.items():
                write(folder / name, content)
            while member := tar.next():
                promised = missing.pop(member.name, None)
                if promised is None:
                    raise UpdateError(f"the bundle holds {member.name!r}, which its manifest does not name once")
                content = _content(tar, member, member.name, promised["size"])
                if hashlib.sha256(content).hexdigest() != promised["sha256"]:
                    raise UpdateError(f"the bundle's {member.name} is not what its manifest promises")
                write(folder / member.name, content)
    except (tarfile.TarError, EOFError) as error:
        raise UpdateError(f"the bundle is no archive ({error})") from None
    if missing:
        raise UpdateError(f"the bundle lacks {next(iter(missing))}")


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo | None, name: str, limit: int) -> bytes:
    if member is None or member.name != name or member.type != tarfile.REGTYPE or member.size > limit:
        raise UpdateError(f"the bundle's {name} is not the plain file that was promised")
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def write(path: Path, content: bytes) -> None:
    """Write a file that survives a loss of power; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def verify(folder: Path, key: Any) -> dict[str, Any]:
    """Return the manifest of an unpacked bundle whose every byte is as it was signed."""
    try:
        manifest = read_manifest((folder / MANIFEST).read_bytes(), (folder / SIGNATURE).read_bytes(), key)
        for name, promised in manifest["files"].items():
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != promised["sha256"]:
                raise UpdateError(f"{name} was changed")
    except (OSError, ValueError, KeyError) as error:
        raise UpdateError(f"{folder.name[:12]}: it is damaged ({error})") from None
    return manifest


def verify_release(folder: Path, key: Any) -> None:
    """Check an unpacked bundle, whose folder has the SHA-256 of its archive as its name: signed, and that very bundle.

    Every bundle that was ever signed has a good signature, so an older one in the folder of a newer one has it too.
    """
    manifest = verify(folder, key)
    head = {name: (folder / name).read_bytes() for name in (MANIFEST, SIGNATURE)}
    files = {name: (folder / name).read_bytes() for name in manifest["files"]}
    if hashlib.sha256(archive_of(head, files)).hexdigest() != folder.name:
        raise UpdateError(
            f"{folder.name[:12]}: it holds another bundle, version {manifest['model']['version']} of the model"
        )


def golden_columns(golden: Mapping[str, Any]) -> tuple[dict[str, list[Any]], int]:
    """Return the columns of all rows of golden.json, and how many are sound; behind them stand those that are not."""
    broken = golden.get(NOT_FINITE, {"columns": {}})["columns"]
    columns = {name: [*values, *broken.get(name, [])] for name, values in golden["columns"].items()}
    return columns, min(map(len, golden["columns"].values()))


def run_golden_rows(folder: Path) -> float:
    """Ask a bundle's model for its golden rows; return the largest difference, relative to max(rentals, 1)."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    manifest, contract, golden = (
        json.loads((folder / name).read_bytes()) for name in (MANIFEST, "feature_contract.json", "golden.json")
    )
    model = Interpreter(str(folder / manifest["model"]["file"]), num_threads=1)
    run = model.get_signature_runner(contract["signature"])
    columns, rows = golden_columns(golden)
    if len({len(values) for values in columns.values()}) > 1:
        raise UpdateError("golden.json: its columns differ in their number of rows")
    arrays = {entry["name"]: np.asarray(columns[entry["name"]], entry["dtype"]) for entry in contract["inputs"]}
    expected = np.asarray(golden["answers"][manifest["model"]["format"]], np.float64)
    answers = np.asarray(run(**arrays)[contract["output"]["name"]], np.float64)
    answers, broken = answers[:rows], answers[rows:]
    if answers.shape != expected.shape or not len(expected):
        raise UpdateError(f"{answers.shape} answers for {expected.shape} golden rows")
    if not np.isnan(broken).all():
        invented = broken[~np.isnan(broken)][0]
        raise UpdateError(f"the golden rows fail: {invented:.6g} rentals where a value is not finite")
    difference = np.abs(answers - expected) / np.maximum(np.abs(expected), 1.0)
    largest = float(np.where(np.isfinite(difference), difference, np.inf).max())
    if not largest <= manifest["golden"]["max_relative_difference"]:
        raise UpdateError(f"the golden rows fail: the largest relative difference is {largest:.3g}")
    return largest
