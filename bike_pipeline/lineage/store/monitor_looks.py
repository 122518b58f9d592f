"""What `monitor run` said of a version, as ML Metadata has it: an execution that read what was pushed."""

from __future__ import annotations

from collections.abc import Mapping

from ml_metadata.proto import metadata_store_pb2 as pb

from bike_pipeline.lineage.store.metadata_store import Lineage, prop
from bike_pipeline.lineage.store.writing import event_of, put_after_run
from bike_pipeline.stages import MONITOR


def record_look(lineage: Lineage, destination: str, found: Mapping[str, str]) -> None:
    """Record what a look found of the version that was pushed to a place; nothing if that push is not on record.

    The looks are told apart by the property "sha256", that of the report.
    """
    for pushed in _pushes_to(lineage, destination)[-1:]:
        put_after_run(lineage, MONITOR, found["sha256"], [(pushed, event_of(pb.Event.INPUT, "pushed_model"))], found)


def looks_at(lineage: Lineage, destination: str) -> list[pb.Execution]:
    """Return the looks at a version, oldest first."""
    return [look for pushed in _pushes_to(lineage, destination) for look in lineage.consumers(pushed.id, MONITOR)]


def _pushes_to(lineage: Lineage, destination: str) -> list[pb.Artifact]:
    return [a for a in lineage.artifacts("PushedModel") if prop(a, "pushed_destination") == destination]
