"""The metadata store of the settings, opened quietly."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bike_pipeline.lineage.store import Lineage
    from bike_pipeline.settings import Settings


def lineage_of(settings: Settings, cluster: bool = False) -> Lineage:
    """Open the metadata store: the workspace's, or that of `kubeflow.metadata`.

    Raises:
        MetadataError: there is none, or it cannot be opened.
    """
    import logging

    from bike_pipeline.lineage.store import Lineage

    # MLMD says on every query that it falls back to plain SQL; that is its normal way of working.
    logging.getLogger("absl").setLevel(logging.ERROR)
    if cluster:
        from bike_pipeline.lineage.connection import open_at

        return Lineage(open_at(settings.kubeflow.metadata.address))
    from bike_pipeline.lineage.store import open_store

    return Lineage(open_store(settings.metadata_file))
