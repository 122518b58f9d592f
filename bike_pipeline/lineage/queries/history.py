"""Everything that ML Metadata holds about artifacts and executions, read once and walked in memory.

MLMD 1.21 answers neither filter queries nor lineage subgraphs; asking it artifact by artifact takes a round trip each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from ml_metadata.proto import metadata_store_pb2 as pb

from bike_pipeline.lineage.queries.evidence import baseline_of
from bike_pipeline.lineage.store.metadata_store import CACHED, Lineage
from bike_pipeline.stages import Stage

# Ids in one query.
_CHUNK = 500
# Stages that look at what others made, by the input that they look at; nothing is made of what they say.
WITNESSES: dict[str, str] = {
    Stage.STATISTICS_GEN: "examples",
    Stage.EXAMPLE_VALIDATOR: "statistics",
    Stage.DATA_GATE: "statistics",
    Stage.EVALUATOR: "model",
    Stage.MODEL_CARD: "model",
    Stage.EXPORTER: "model",
    Stage.PUSHER: "model",
}
_FREED = (pb.Artifact.MARKED_FOR_DELETION, pb.Artifact.DELETED)
# A pending output is none.
_FLOWS = (pb.Event.INPUT, pb.Event.OUTPUT)


class History(Lineage):
    """One metadata store as it was when it was read: all artifacts and executions by id, and what follows from them.

    `last_used` is the time of the last event of each artifact, in milliseconds since the epoch.
    """

    def __init__(self, lineage: Lineage) -> None:
        super().__init__(lineage.store)
        self.all_artifacts: dict[int, pb.Artifact] = {found.id: found for found in self.store.get_artifacts()}
        self.executions: dict[int, pb.Execution] = {found.id: found for found in self.store.get_executions()}
        self.last_used: dict[int, int] = defaultdict(int)
        of_execution: dict[int, list[pb.Event]] = defaultdict(list)
        at_artifact: dict[int, list[pb.Event]] = defaultdict(list)
        self._artifacts_by_id = lambda ids: [self.all_artifacts[i] for i in ids if i in self.all_artifacts]
        self._executions_by_id = lambda ids: [self.executions[i] for i in ids]
        self._events_of, self._events_at = of_execution.__getitem__, at_artifact.__getitem__
        self._stages = {
            execution.id: str(context.name)
            for context in self.contexts("node")
            for execution in self.store.get_executions_by_context(context.id)
        }
        ids = sorted(self.executions)
        for start in range(0, len(ids), _CHUNK):
            for event in self.store.get_events_by_execution_ids(ids[start : start + _CHUNK]):
                used = max(self.last_used[event.artifact_id], int(event.milliseconds_since_epoch))
                self.last_used[event.artifact_id] = used
                of_execution[event.execution_id].append(event)
                at_artifact[event.artifact_id].append(event)

    def artifacts(self, type_name: str) -> list[pb.Artifact]:
        return [artifact for _, artifact in sorted(self.all_artifacts.items()) if artifact.type == type_name]

    def _context_of(self, execution_id: int, type_name: str) -> str:
        if type_name == "node":
            return self._stages.get(execution_id, "")
        return super()._context_of(execution_id, type_name)

    def base_model(self, execution_id: int) -> int | None:
        """Return the id of the model whose weights a training began from, where warm start was on."""
        for base in self.inputs(execution_id).get("base_model", []):
            producer = self.producer(base.id)
            if producer is not None and self.stage_of(producer) == Stage.WARM_START_LOOKUP:
                found = baseline_of(producer)
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
            if artifact_id in artifacts or artifact_id not in self.all_artifacts:
                continue
            artifacts.add(artifact_id)
            producer = self.producer(artifact_id)
            makers = {producer.id} if producer is not None else set()
            for execution_id in (makers | self._witnesses(artifact_id)) - executions:
                executions.add(execution_id)
                left += [event.artifact_id for event in self._events_of(execution_id) if event.type in _FLOWS]
                base = self.base_model(execution_id)
                left += [base] if base is not None else []
        return artifacts, executions

    def _witnesses(self, artifact_id: int) -> set[int]:
        """Return the gates that looked at an artifact itself, and not at something else beside it."""
        return {
            execution.id
            for execution in self.consumers(artifact_id, *WITNESSES)
            if execution.last_known_state != CACHED
            and any(a.id == artifact_id for a in self.inputs(execution.id).get(WITNESSES[self.stage_of(execution)], []))
        }


def payload_state(artifact: pb.Artifact) -> str:
    """Return whether an artifact's files are "there", were "freed", or are "missing" although nobody freed them."""
    if artifact.state in _FREED:
        return "freed"
    if not artifact.uri:
        return ""
    if "://" in artifact.uri and not artifact.uri.startswith("file://"):
        return "remote"
    return "there" if Path(artifact.uri.removeprefix("file://")).exists() else "missing"
