"""Whether an error comes from the metadata store, told without loading its library."""

from __future__ import annotations


def is_store_error(error: BaseException) -> bool:
    """Return whether ML Metadata's library raised it."""
    return type(error).__module__ == "ml_metadata.errors"
