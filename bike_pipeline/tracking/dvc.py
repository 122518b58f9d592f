"""Span versions for DVC 3: a `.dvc` file for each, and a remote that `dvc pull` fetches it from.

DVC itself is not needed. The remote holds each file under `files/md5/`, by the MD5 of its content (DVC's address, no
protection; the manifest's SHA-256 is checked on the way), and the list of a folder's files under the MD5 of that list.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bike_pipeline.data.manifest import MANIFEST
from bike_pipeline.storage.atomic_files import replace_file, storage_error, sync_path

if TYPE_CHECKING:
    from bike_pipeline.data.manifest import SpanVersion
    from bike_pipeline.data.spans import SpanStore


def write_version(store: SpanStore, span: int, version: int, folder: Path, remote: Path) -> Path:
    """Write a version for DVC and return the `.dvc` file; what is there already is kept, so that it may be done again.

    `.dvc` files stand in `folder` as the versions stand in the store; `remote` is the folder that DVC pulls from.

    Raises:
        DataError: the version does not exist, or a file of it is gone or was changed.
        StorageError: something cannot be written; the `.dvc` file is written last, so it never promises too much.
    """
    import yaml

    found = store.get(span, version)
    place = Path(*Path(found.uri).parts[-2:])
    names = sorted([*found.manifest.files, MANIFEST])
    try:
        remote.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".writing-", dir=remote))
        try:
            store.export(span, version, aside)
            size = sum((aside / place / name).stat().st_size for name in names)
            files = [{"md5": _keep(aside / place / name, remote), "relpath": name} for name in names]
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise storage_error(error, "write", remote) from error
    # Byte for byte as DVC writes it: its MD5 is the folder's address.
    listed = json.dumps(files, sort_keys=True).encode()
    address = f"{hashlib.md5(listed, usedforsecurity=False).hexdigest()}.dir"
    target = _object(remote, address)
    if not target.exists():
        replace_file(target, listed)
    record = {
        "outs": [{"md5": address, "size": size, "nfiles": len(names), "hash": "md5", "path": place.name}],
        "desc": f"span {span} version {version}, {found.manifest.first:%Y-%m-%d} to {found.manifest.last:%Y-%m-%d}",
        "meta": {
            "bike_pipeline": {
                "span": span,
                "version": version,
                "content_sha256": found.manifest.content_sha256,
                "manifest_sha256": found.manifest_sha256,
                "rows": found.manifest.rows.total,
            }
        },
    }
    written = dvc_file(folder, found)
    ignore = written.with_name(".gitignore")
    if not ignore.exists():
        # Pulled rows belong to DVC's cache, never to git.
        replace_file(ignore, b"/version-*/\n")
    content = yaml.safe_dump(record, sort_keys=False, allow_unicode=True).encode()
    if not written.exists() or written.read_bytes() != content:
        replace_file(written, content)
    return written


def dvc_file(folder: Path, version: SpanVersion) -> Path:
    """Return the path of a version's `.dvc` file."""
    place = Path(*Path(version.uri).parts[-2:])
    return folder / place.parent / f"{place.name}.dvc"


def _object(remote: Path, address: str) -> Path:
    return remote / "files" / "md5" / address[:2] / address[2:]


def _keep(file: Path, remote: Path) -> str:
    """Move a file to its address in the remote; return that. An earlier one of the same content stays."""
    with file.open("rb") as opened:
        address = hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    target = _object(remote, address)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        file.replace(target)
        sync_path(target.parent)
    return address


def write_all(store: SpanStore, folder: Path, remote: Path, span: int | None = None) -> list[Path]:
    """Write every version, or every one of a span, for DVC; return the `.dvc` files. Errors as of `write_version`."""
    if span is None:
        store.latest()  # says that there is nothing to write
    spans = store.spans() if span is None else [store.latest(span).span]
    return [write_version(store, s, v, folder, remote) for s in spans for v in store.versions(s)]
