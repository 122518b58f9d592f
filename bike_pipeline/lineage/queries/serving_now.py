"""Which model serves now: the promoted version, as ML Metadata recorded its push or its own push record tells it."""

from __future__ import annotations

from bike_pipeline.lineage.store.entities import ServedModel
from bike_pipeline.lineage.store.metadata_store import Lineage, time_of
from bike_pipeline.model_registry import ModelRegistry


def serving_now(lineage: Lineage, serving_path: str) -> ServedModel | None:
    """Return the model that serves: the promoted version, or the newest where nobody ever recorded a promotion.

    A version that ML Metadata does not know (a process was killed between the push and its record) is believed by its
    own push record.

    Raises:
        StorageError: what is promoted cannot be read.
    """
    recorded = lineage.serving_model(serving_path)
    registry = ModelRegistry(serving_path)
    promoted = registry.serving()
    if promoted is None or (recorded is not None and recorded.version >= promoted):
        return recorded
    record = registry.push_record(promoted)
    if record is None:
        return recorded
    return ServedModel(
        model_id=int(record["model_id"]),
        model_uri=str(record["model_uri"]),
        version=promoted,
        destination=registry.uri(promoted),
        fingerprint=str(record["fingerprint"]),
        metric_set=str(record["metric_set"]),
        pushed_at=time_of(int(record["pushed_at_ms"])),
        exports_fingerprint=str(record.get("exports_fingerprint", "")),
    )
