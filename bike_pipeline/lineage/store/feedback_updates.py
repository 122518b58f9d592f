"""A version of a model that later labels made, as ML Metadata has it: all of it follows from its push record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ml_metadata.proto import metadata_store_pb2 as pb

from bike_pipeline.errors import MetadataError
from bike_pipeline.lineage.store.metadata_store import Lineage, prop
from bike_pipeline.lineage.store.writing import event_of, put_after_run
from bike_pipeline.model_registry import ModelRegistry, verification
from bike_pipeline.stages import FEEDBACK_PROPERTY, FEEDBACK_UPDATE

_LABELS = "bike.Labels"


def record_missing(lineage: Lineage, registry: ModelRegistry) -> None:
    """Record every version that labels made and that is not on record: a process may have ended before it was.

    Raises:
        MetadataError: the model that a version comes from is not on record.
    """
    recorded = {push.destination for push in lineage.pushes()}
    for version in registry.versions():
        record = registry.push_record(version) if registry.uri(version) not in recorded else None
        if record is not None and "feedback_of" in record:
            _record(lineage, registry, version, record)


def _record(lineage: Lineage, registry: ModelRegistry, version: int, record: Mapping[str, Any]) -> None:
    """Write the execution with the model, the version before and the labels as inputs, in one transaction."""
    model = next(iter(lineage.store.get_artifacts_by_id([int(record["model_id"])])), None)
    if model is None:
        raise MetadataError(
            f"model {record['model_id']} is not on record",
            where=registry.uri(version),
            fix="restore the metadata store, or run the pipeline: its model takes labels again",
        )
    evidence = dict(verification.evidence_of(registry.folder(version)) or {})
    before = registry.uri(int(record["feedback_of"]))
    pushes = [a for a in lineage.artifacts("PushedModel") if prop(a, "pushed_destination") == before]
    labels = _new(lineage, _LABELS, "", record["feedback"]["upload"])
    pushed = _new(
        lineage,
        "PushedModel",
        registry.uri(version),
        {
            "pushed": 1,
            "pushed_version": str(version),
            "pushed_destination": registry.uri(version),
            "signature": "signed" if evidence.get("key") else "NOT signed, no key is configured",
            "evidence": json.dumps(evidence),
            FEEDBACK_PROPERTY: json.dumps(record["feedback"]),
            **{name: str(record[name]) for name in ("fingerprint", "exports_fingerprint", "metric_set")},
        },
    )
    inputs = {"model": [model], "pushed_model": pushes[-1:], "labels": [labels]}
    linked = [(a, event_of(pb.Event.INPUT, key)) for key, found in inputs.items() for a in found]
    linked.append((pushed, event_of(pb.Event.OUTPUT, "pushed_model")))
    put_after_run(lineage, FEEDBACK_UPDATE, f"of model {model.id} as {version}", linked, {})


def _new(lineage: Lineage, type_name: str, uri: str, values: Mapping[str, Any]) -> pb.Artifact:
    """Return an artifact that is not in the store yet; its type is, without a loss to what others declared of it."""
    type_id = lineage.store.put_artifact_type(
        pb.ArtifactType(name=type_name), can_add_fields=True, can_omit_fields=True
    )
    artifact = pb.Artifact(type_id=type_id, uri=uri, state=pb.Artifact.LIVE)
    for name, value in values.items():
        kind = "int_value" if isinstance(value, int) else "string_value"
        setattr(artifact.custom_properties[name], kind, value)
    return artifact
