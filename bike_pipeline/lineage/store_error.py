"""Whether an error comes from the metadata store, told without loading its library."""

from __future__ import annotations

import errno
import os

# What SQLite and the operating system say where the file cannot be written; TensorFlow and ML Metadata pass it on in
# errors of their own kinds.
STORAGE_PHRASES = (
    *(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS)),
    "disk I/O error",
    "database or disk is full",
    "attempt to write a readonly database",
)


def is_store_error(error: BaseException) -> bool:
    """Return whether ML Metadata's library raised it."""
    return type(error).__module__ == "ml_metadata.errors"


def is_of_storage(error: BaseException) -> bool:
    """Return whether an error's text says that there was no room or no right to write."""
    return any(phrase in str(error) for phrase in STORAGE_PHRASES)
