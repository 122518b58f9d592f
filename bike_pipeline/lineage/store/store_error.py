"""Whether an error comes from the metadata store, without loading its library."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

# What SQLite and the operating system say where the file cannot be written; TensorFlow and ML Metadata pass it on in
# errors of their own kinds.
STORAGE_PHRASES = (
    *(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS)),
    "disk I/O error",
    "database or disk is full",
    "attempt to write a readonly database",
)


# Less than this is no room for anything, in bytes.
_ROOM = 1024 * 1024


def full_place(places: Iterable[str | os.PathLike[str]]) -> str:
    """Return where there is no room, for an error that does not say it: the places that are full, else all of them."""
    local = [os.fspath(place) for place in places if os.fspath(place) and "://" not in os.fspath(place)]
    full = [place for place in local if _free(Path(place)) < _ROOM]
    return " or ".join(dict.fromkeys(full or local))


def _free(place: Path) -> float:
    for folder in (place, *place.parents):
        try:
            return shutil.disk_usage(folder).free
        except OSError:
            continue
    return float("inf")


def is_store_error(error: BaseException) -> bool:
    """Return whether ML Metadata's library raised it."""
    return type(error).__module__ == "ml_metadata.errors"


def is_of_storage(error: BaseException) -> bool:
    """Return whether an error's text says that there was no room or no right to write."""
    return any(phrase in str(error) for phrase in STORAGE_PHRASES)
