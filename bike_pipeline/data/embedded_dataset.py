"""The embedded data set and its check; `embedded/ATTRIBUTION.md` says where it comes from."""

from __future__ import annotations

import hashlib
from pathlib import Path

from bike_pipeline.errors import DataError
from bike_pipeline.storage.atomic_files import storage_error

EMBEDDED_FILE = Path(__file__).resolve().parent / "embedded" / "hour.csv"
EMBEDDED_SHA256 = "b03a2d02e8c10f435c43c7f0b358b7e34a003afea53dbc37f0183f2763295133"
EMBEDDED_ROWS = 17_379


def check_content(content: bytes, where: str) -> None:
    """Refuse anything but the published data set.

    Raises:
        DataError: the SHA-256 of `content` is not the published one.
    """
    found = hashlib.sha256(content).hexdigest()
    if found != EMBEDDED_SHA256:
        raise DataError(
            f"this is not the published hourly data set: SHA-256 {found}, expected {EMBEDDED_SHA256}",
            where=where,
            fix="restore the file from the project's repository or run `bike-pipeline data fetch` again",
        )


def embedded_bytes(path: Path = EMBEDDED_FILE) -> bytes:
    """Return the embedded CSV (LF line ends) after checking its SHA-256.

    Raises:
        StorageError: the file cannot be read.
        DataError: the file was changed.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise storage_error(error, "read", path) from error
    check_content(content, str(path))
    return content
