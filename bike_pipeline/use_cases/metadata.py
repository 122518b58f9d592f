"""The metadata store of the settings, opened quietly."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bike_pipeline.lineage.store.metadata_store import Lineage
    from bike_pipeline.settings import Settings


def lineage_of(settings: Settings, cluster: bool = False) -> Lineage:
    """Open the metadata store: the workspace's, or that of `kubeflow.metadata`."""
    import logging

    from bike_pipeline.lineage.store.connection import open_at
    from bike_pipeline.lineage.store.lost_store import refuse_a_lost_store
    from bike_pipeline.lineage.store.metadata_store import Lineage

    # MLMD says on every query that it falls back to plain SQL; that is its normal way of working.
    logging.getLogger("absl").setLevel(logging.ERROR)
    if not cluster:
        refuse_a_lost_store(settings)
    with _quiet():
        return Lineage(open_at(settings.kubeflow.metadata.address if cluster else settings.metadata_address))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what C++ code writes to standard error: an error is one line, and that is ours."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
