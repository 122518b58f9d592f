"""Everything that ML Metadata holds about artifacts and executions, read once and walked in memory.

MLMD 1.21 answers neither filter queries nor lineage subgraphs; asking it artifact by artifact takes a round trip each.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ml_metadata.proto import metadata_store_pb2 as pb

from bike_pipeline.lineage.queries.evidence import window_of
from bike_pipeline.lineage.store.metadata_store import CACHED, Lineage, prop
from bike_pipeline.stages import Stage

# Ids in one query.
_CHUNK = 500
# Stages that look at what others made, by the input that they look at; nothing is made of what they say.
WITNESSES: dict[str, str] = {
    Stage.STATISTICS_GEN: "examples",
    Stage.EXAMPLE_VALIDATOR: "statistics",
    Stage.DATA_GATE: "statistics",
    Stage.EVALUATOR: "model",
    Stage.EXPORTER: "model",
    Stage.PUSHER: "model",
}
WARM_START = Stage.WARM_START_LOOKUP
_FREED = (pb.Artifact.MARKED_FOR_DELETION, pb.Artifact.DELETED)


class History:
    """The graph of artifacts and executions, each by id.

    Attributes:
        stage: name of the stage by execution id; "" if none is recorded.
        last_used: time of the last event of each artifact, in milliseconds since the epoch.
    """

    def __init__(self, lineage: Lineage) -> None:
        store = lineage.store
        self.artifacts: dict[int, pb.Artifact] = {artifact.id: artifact for artifact in store.get_artifacts()}
        self.executions: dict[int, pb.Execution] = {execution.id: execution for execution in store.get_executions()}
        self.stage: dict[int, str] = defaultdict(str)
        self.last_used: dict[int, int] = defaultdict(int)
        self._inputs: dict[int, list[tuple[str, int]]] = defaultdict(list)
        self._outputs: dict[int, list[tuple[str, int]]] = defaultdict(list)
        self._made_by: dict[int, list[int]] = defaultdict(list)
        self._read_by: dict[int, list[int]] = defaultdict(list)
        for context in lineage.contexts("node"):
            for execution in store.get_executions_by_context(context.id):
                self.stage[execution.id] = str(context.name.rpartition(".")[2])
        ids = sorted(self.executions)
        for start in range(0, len(ids), _CHUNK):
            for event in store.get_events_by_execution_ids(ids[start : start + _CHUNK]):
                self._note(event)

    def _note(self, event: pb.Event) -> None:
        key = event.path.steps[0].key if event.path.steps else ""
        self.last_used[event.artifact_id] = max(self.last_used[event.artifact_id], int(event.milliseconds_since_epoch))
        if event.type == pb.Event.INPUT:
            self._inputs[event.execution_id].append((key, event.artifact_id))
            self._read_by[event.artifact_id].append(event.execution_id)
        elif event.type == pb.Event.OUTPUT:
            self._outputs[event.execution_id].append((key, event.artifact_id))
            self._made_by[event.artifact_id].append(event.execution_id)

    def inputs(self, execution_id: int) -> list[tuple[str, int]]:
        """Return key and artifact id of each input of an execution, each once."""
        return list(dict.fromkeys(self._inputs[execution_id]))

    def outputs(self, execution_id: int) -> list[tuple[str, int]]:
        """Return key and artifact id of each output of an execution, each once."""
        return list(dict.fromkeys(self._outputs[execution_id]))

    def producer(self, artifact_id: int) -> int | None:
        """Return the execution that made an artifact; a cached one only refers to it and is passed over."""
        made = [e for e in self._made_by[artifact_id] if self.executions[e].last_known_state != CACHED]
        return min(made) if made else None

    def readers(self, artifact_id: int, *stages: str) -> list[int]:
        """Return the executions that read an artifact, oldest first; of the given stages, or of all of them."""
        found = sorted(set(self._read_by[artifact_id]))
        return [e for e in found if self.stage[e] in stages] if stages else found

    def of_type(self, type_name: str) -> list[pb.Artifact]:
        """Return all artifacts of a type, oldest first."""
        return [self.artifacts[i] for i in sorted(self.artifacts) if self.artifacts[i].type == type_name]

    def trained_models(self) -> Iterator[tuple[pb.Artifact, int]]:
        """Yield every trained model with the execution that trained it, oldest first."""
        for model in self.of_type("Model"):
            producer = self.producer(model.id)
            if producer is not None and self.stage[producer] == Stage.TRAINER:
                yield model, producer

    def examples_of(self, execution_id: int) -> pb.Artifact | None:
        """Return the examples that an execution read."""
        return next((self.artifacts[i] for key, i in self.inputs(execution_id) if key == "examples"), None)

    def base_model(self, execution_id: int) -> int | None:
        """Return the id of the model whose weights a training began from, where warm start was on."""
        for key, artifact_id in self.inputs(execution_id):
            producer = self.producer(artifact_id) if key == "base_model" else None
            if producer is not None and self.stage[producer] == WARM_START:
                try:
                    found = json.loads(prop(self.executions[producer], "baseline") or "{}")
                except ValueError:
                    return None
                return int(found["model_id"]) if "model_id" in found else None
        return None

    def lineage_of(self, starts: Iterable[int]) -> tuple[set[int], set[int]]:
        """Return the ids of all artifacts and executions that artifacts come from, and of the gates that read them.

        A model's gates are the evaluations and pushes that read it; those of data are their statistics, the validator
        and the data gate. The model that a warm start began from belongs to it with all of its own lineage.
        """
        artifacts: set[int] = set()
        executions: set[int] = set()
        left = list(starts)
        while left:
            artifact_id = left.pop()
            if artifact_id in artifacts or artifact_id not in self.artifacts:
                continue
            artifacts.add(artifact_id)
            producer = self.producer(artifact_id)
            witnesses = [
                e
                for e in self.readers(artifact_id, *WITNESSES)
                if self.executions[e].last_known_state != CACHED and self._speaks_for(e, artifact_id)
            ]
            for execution in {*([producer] if producer is not None else []), *witnesses} - executions:
                executions.add(execution)
                left += [i for _, i in (*self.inputs(execution), *self.outputs(execution))]
                base = self.base_model(execution)
                left += [base] if base is not None else []
        return artifacts, executions

    def _speaks_for(self, execution_id: int, artifact_id: int) -> bool:
        """Return whether a gate looked at this artifact itself, and not at something else beside it."""
        return (WITNESSES[self.stage[execution_id]], artifact_id) in self.inputs(execution_id)

    def windows(self) -> Iterator[tuple[pb.Artifact, list[dict[str, Any]]]]:
        """Yield every Examples artifact with the spans that it holds, oldest first."""
        for examples in self.of_type("Examples"):
            yield examples, window_of(examples)


def payload_state(artifact: pb.Artifact) -> str:
    """Return whether an artifact's files are "there", were "freed", or are "missing" although nobody freed them."""
    if artifact.state in _FREED:
        return "freed"
    if not artifact.uri:
        return ""
    if "://" in artifact.uri and not artifact.uri.startswith("file://"):
        return "remote"
    return "there" if Path(artifact.uri.removeprefix("file://")).exists() else "missing"
