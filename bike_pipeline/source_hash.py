"""One hash for the source that a stage runs.

TFX's cache knows a stage by its inputs, its parameters and its executor's name. Code that is named by import path is
none of these, so a changed feature would be answered from the cache. Every stage that runs code of this package
therefore carries the hash of that code as one of its parameters.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from bike_pipeline.errors import ConfigurationError

PACKAGE_ROOT = Path(__file__).resolve().parent


@functools.cache
def source_hash(*rooms: str, root: Path = PACKAGE_ROOT) -> str:
    """Return the SHA-256 over the Python files of the given modules and folders, as they were when it was first asked.

    Args:
        rooms: paths inside the package: "features.py", "modeling".
        root: the package's folder.

    Raises:
        ConfigurationError: a room does not exist; a hash of nothing would make every change invisible.
    """
    return source_hash_now(*rooms, root=root)


def source_hash_now(*rooms: str, root: Path) -> str:
    """Return the same hash of the files as they are at this moment; "." is all of them."""
    digest = hashlib.sha256()
    for room in sorted(rooms):
        path = root / room
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        if not files or not all(file.is_file() for file in files):
            raise ConfigurationError(
                "a stage names source that is not there", where=str(path), fix="reinstall the package"
            )
        for file in files:
            digest.update(f"{file.relative_to(root).as_posix()}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
