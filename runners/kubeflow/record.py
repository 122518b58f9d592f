"""Writes what a task in a container does into our ML Metadata store, as the local runner would have written it.

The executions, events and contexts are made by TFX's own functions, so `runs`, `models`, `predict` and the lookup of
the next run need not know where a run took place. KFP keeps its own books besides; nothing of ours reads them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tfx import types
from tfx.orchestration import metadata
from tfx.orchestration.portable import execution_publish_utils
from tfx.orchestration.portable.mlmd import context_lib, execution_lib
from tfx.utils import import_utils

from bike_pipeline.lineage.records.run_record import record_run, source_of_this_run
from bike_pipeline.lineage.store.connection import STORE_ERRORS, cannot_open, connection_config
from bike_pipeline.lineage.store.metadata_store import COMPLETE, RUNNING, Context, Lineage
from bike_pipeline.lineage.store.writing import execution_type, record_cached, record_end
from bike_pipeline.runners.located_metadata import LocatedMetadata
from bike_pipeline.settings import Settings

ArtifactMap = dict[str, list[types.Artifact]]


@dataclass(frozen=True)
class Received:
    """An input artifact as KFP hands it over: its URI, and the metadata that KFP kept of it."""

    uri: str
    metadata: Mapping[str, Any]


class Store:
    """The metadata store, opened for one moment at a time."""

    def __init__(self, address: str) -> None:
        self.config = connection_config(address)
        self._file = urlsplit(address).path if address.startswith("sqlite:") else ""
        self._address = address

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other tasks out of a SQLite file, which takes one writer at a time; a server sees to that itself."""
        from filelock import FileLock

        with ExitStack() as stack:
            if self._file:
                Path(self._file).parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(f"{self._file}.lock"))
            yield

    @contextmanager
    def opened(self) -> Iterator[metadata.Metadata]:
        """Yield a connection."""
        with self.alone(), ExitStack() as stack:
            try:
                handle = stack.enter_context(LocatedMetadata(self.config))
            except STORE_ERRORS as error:
                raise cannot_open(self._address, error) from error
            yield handle


class Record:
    """What one task writes down."""

    def __init__(self, store: Store, task: Mapping[str, Any], run_id: str) -> None:
        self.store = store
        self._task = task
        self._run_id = run_id
        self._execution_id = 0

    @property
    def execution_id(self) -> int:
        """MLMD id of the execution; 0 before `begin`."""
        return self._execution_id

    def begin(self, received: Mapping[str, list[Received]], properties: dict[str, Any]) -> ArtifactMap:
        """Write the start of the execution down and return its inputs, as our store knows them.

        An execution of this stage that an earlier attempt left in this run is taken up again.
        """
        with self.store.opened() as handle:
            lineage = Lineage(handle.store)
            contexts = self._contexts(handle, self._task["node"])
            inputs: ArtifactMap = {}
            for key, artifacts in received.items():
                inputs[key] = [self._known(lineage, self._task["inputs"][key], artifact) for artifact in artifacts]
                for artifact in inputs[key]:
                    if artifact.mlmd_artifact.HasField("id"):
                        # A task that KFP answers from its own cache runs no container: only its consumer can tell.
                        record_cached(lineage, self._run_id, artifact.id, lambda node: self._contexts(handle, node))
            kind = execution_type(self._task["type"], self._task["base_type"])
            execution = execution_lib.prepare_execution(
                handle, kind, RUNNING, properties, execution_name=str(uuid.uuid4())
            )
            for earlier in lineage.executions_of(self._run_id):
                if lineage.stage_of(earlier) == self._task["node"] and earlier.last_known_state != COMPLETE:
                    execution.id, execution.name = earlier.id, earlier.name
            written = execution_lib.put_execution(handle, execution, contexts, input_artifacts=inputs)
            self._execution_id = int(written.id)
        return inputs

    def of_the_run(self, made_of: Mapping[str, Any]) -> None:
        """Write down what the whole run is made of: this image's code, and the settings that came with the spec."""
        source = source_of_this_run(Settings.model_validate(made_of["settings"]), self._run_id, made_of["runner"])
        with self.store.opened() as handle:
            record_run(handle.store, source)

    def finish(self, outputs: ArtifactMap, executor_output: Any) -> None:
        """Write the end of the execution and its outputs down."""
        with self.store.opened() as handle:
            execution_publish_utils.publish_succeeded_execution(
                handle, self._execution_id, self._contexts(handle, self._task["node"]), outputs, executor_output
            )

    def fail(self, reason: str, interrupted: bool = False) -> None:
        """Write down that and why the execution failed or was interrupted, if it came to be one."""
        if not self._execution_id:
            return
        with self.store.opened() as handle:
            record_end(Lineage(handle.store), self._execution_id, reason, interrupted)

    def _contexts(self, handle: metadata.Metadata, node: str) -> list[Context]:
        pipeline = context_lib.register_context_if_not_exists(handle, "pipeline", self._task["pipeline"])
        run = context_lib.register_context_if_not_exists(handle, "pipeline_run", self._run_id, [pipeline])
        stage = context_lib.register_context_if_not_exists(handle, "node", f"{self._task['pipeline']}.{node}")
        return [pipeline, run, stage]

    def _known(self, lineage: Lineage, class_path: str, received: Received) -> types.Artifact:
        """Return an input as our store knows it; one that it does not know is imported with what KFP kept of it."""
        artifact = import_utils.import_class_by_path(class_path)()
        found = lineage.artifact_at(received.uri)
        if found is not None:
            artifact.set_mlmd_artifact(found)
            return artifact
        artifact.uri = received.uri
        for key, value in received.metadata.items():
            if key in (artifact.PROPERTIES or {}):
                setattr(artifact, key, int(value) if isinstance(value, float) else value)
            elif isinstance(value, str):
                artifact.set_string_custom_property(key, value)
            elif isinstance(value, int | float):
                number = artifact.set_int_custom_property if value == int(value) else artifact.set_float_custom_property
                number(key, int(value) if value == int(value) else value)
            else:
                artifact.set_json_value_custom_property(key, value)
        artifact.state = types.artifact.ArtifactState.PUBLISHED
        return artifact
