"""The metadata store of the settings, opened quietly."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bike_pipeline.lineage.store import Lineage
    from bike_pipeline.settings import Settings


def lineage_of(settings: Settings) -> Lineage:
    """Open the metadata store.

    Raises:
        MetadataError: there is none, or it cannot be opened.
    """
    import logging

    from bike_pipeline.lineage.store import Lineage, open_store

    # MLMD says on every query that it falls back to plain SQL; that is its normal way of working.
    logging.getLogger("absl").setLevel(logging.ERROR)
    return Lineage(open_store(settings.metadata_file))
