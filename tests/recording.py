"""Writes runs into a metadata store by hand, as TFX would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as pb

STATES = pb.Execution


class Recorder:
    """One SQLite store and the few things that tests record in it."""

    def __init__(self, path: Path) -> None:
        """Make the store at `path`."""
        self.path = path
        config = pb.ConnectionConfig()
        config.sqlite.filename_uri = str(path)
        config.sqlite.connection_mode = pb.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
        self.store = metadata_store.MetadataStore(config)

    def artifact(self, kind: str, uri: str = "", **properties: Any) -> pb.Artifact:
        """Record an artifact with custom properties."""
        type_id = self.store.put_artifact_type(pb.ArtifactType(name=kind))
        artifact = pb.Artifact(type_id=type_id, uri=uri, state=pb.Artifact.LIVE)
        _fill(artifact.custom_properties, properties)
        (artifact.id,) = self.store.put_artifacts([artifact])
        return artifact

    def execution(
        self,
        stage: str,
        run: str,
        inputs: dict[str, pb.Artifact] | None = None,
        outputs: dict[str, pb.Artifact] | None = None,
        state: Any = STATES.COMPLETE,
        **properties: Any,
    ) -> int:
        """Record an execution of a stage in a run, with its events and contexts; return its id."""
        type_id = self.store.put_execution_type(pb.ExecutionType(name=stage))
        execution = pb.Execution(type_id=type_id, last_known_state=state)
        _fill(execution.custom_properties, properties)
        (execution_id,) = self.store.put_executions([execution])
        events = []
        for kind, artifacts in ((pb.Event.INPUT, inputs), (pb.Event.OUTPUT, outputs)):
            for key, artifact in (artifacts or {}).items():
                event = pb.Event(artifact_id=artifact.id, execution_id=execution_id, type=kind)
                event.path.steps.add().key = key
                event.path.steps.add().index = 0
                events.append(event)
        self.store.put_events(events)
        associations = [
            pb.Association(execution_id=execution_id, context_id=self._context(kind, name))
            for kind, name in (("node", f"bike-demand.{stage}"), ("pipeline_run", run))
        ]
        self.store.put_attributions_and_associations([], associations)
        return int(execution_id)

    def _context(self, kind: str, name: str) -> int:
        found = self.store.get_context_by_type_and_name(kind, name)
        if found:
            return int(found.id)
        type_id = self.store.put_context_type(pb.ContextType(name=kind))
        (context_id,) = self.store.put_contexts([pb.Context(type_id=type_id, name=name)])
        return int(context_id)

    def model(self, run: str, uri: str = "", span: int = 1) -> pb.Artifact:
        """Record a trained model."""
        examples = self.artifact("Examples", span=span, version=1)
        model = self.artifact("Model", uri)
        self.execution("Trainer", run, {"examples": examples}, {"model": model})
        return model

    def push(self, run: str, model: pb.Artifact, version: int, destination: str = "", **properties: Any) -> None:
        """Record that a model was pushed."""
        pushed = self.artifact(
            "PushedModel", pushed=1, pushed_version=str(version), pushed_destination=destination, **properties
        )
        self.execution("Pusher", run, {"model": model}, {"pushed_model": pushed})


def _fill(properties: Any, values: dict[str, Any]) -> None:
    for key, value in values.items():
        kind = "int_value" if isinstance(value, int) else "double_value" if isinstance(value, float) else "string_value"
        setattr(properties[key], kind, value)
