"""What a stage wrote, as the SHA-256 of every file, so that what was changed since is not used.

A stage's outputs are sealed when it ends, as a custom property of each artifact. Whoever reads an artifact later holds
its files against the seal first: the next stage, a run that is answered from an earlier one, `verify`. Names are
relative to the artifact, so a seal holds wherever its files were copied to.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from bike_pipeline.errors import VerificationError

SEAL_PROPERTY = "files_sha256"
# Of a file on object storage, so much is held in memory.
_CHUNK = 8 * 1024 * 1024


def seal_of(uri: str) -> str:
    """Return the seal of an artifact's files as they are now: their SHA-256 by name ("" for a single file), as JSON."""
    return json.dumps(_hashes(uri), sort_keys=True)


def difference(uri: str, seal: str | None) -> str:
    """Return in words how an artifact's files differ from its seal (none is a difference too); "" if they do not."""
    try:
        sealed = json.loads(seal or "")
        if not isinstance(sealed, dict):
            raise ValueError
    except ValueError:
        return f"nothing is on record of the files in {uri}"
    try:
        now = _hashes(uri)
    except OSError as error:
        return f"{error.filename or uri} cannot be read ({error.strerror or error})"
    for name in sorted({*sealed, *now}):
        path = os.path.join(uri, name) if name else uri
        if name not in now:
            return f"{path} is gone"
        if name not in sealed:
            return f"{path} was added"
        if sealed[name] != now[name]:
            return f"{path} was changed: its SHA-256 is not the one on record"
    return ""


def check(uri: str, seal: str | None, reader: str, key: str) -> None:
    """Refuse an artifact whose files are not those that its stage wrote, or that has no seal: a VerificationError.

    `reader` is the stage or command that would use it, and `key` what it is to that.
    """
    found = difference(uri, seal)
    if found:
        raise VerificationError(
            f"its {key.replace('_', ' ')} cannot be trusted: {found}",
            where=reader,
            fix="find out what changed it; `bike-pipeline run --no-cache` makes every output anew",
        )


def _hashes(uri: str) -> dict[str, str]:
    if "://" in uri:
        return dict(_remote(uri))
    root = Path(uri)
    if root.is_file():
        return {"": _sha256(root.open("rb"))}
    files = [path for path in root.rglob("*") if path.is_symlink() or not path.is_dir()]
    return {path.relative_to(root).as_posix(): _sha256(path.open("rb")) for path in files}


def _remote(uri: str) -> Iterator[tuple[str, str]]:
    from tfx.dsl.io import fileio

    if not fileio.isdir(uri):
        yield "", _sha256(fileio.open(uri, "rb"))
        return
    for folder, _, names in fileio.walk(uri):
        for name in names:
            path = os.path.join(folder, name)
            yield os.path.relpath(path, uri), _sha256(fileio.open(path, "rb"))


def _sha256(opened: IO[bytes] | Any) -> str:
    digest = hashlib.sha256()
    with opened as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
