"""What ran, which model is served, and what it was made of, as ML Metadata answers it.

This package is the only code that speaks to ML Metadata (a contract in pyproject.toml sees to it). TFX's launcher and
drivers bring their own connection, whose store is handed to `Lineage`.
MLMD 1.21 answers no filter queries, so everything here walks events: artifact, execution, artifact.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, TypeAlias

from ml_metadata import errors as mlmd_errors
from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as pb

from bike_pipeline.lineage.records.run_record import RUN_CONTEXT, runner_of
from bike_pipeline.lineage.store.entities import ModelRecord, PushedModel, RunRecord, StageRecord
from bike_pipeline.model_registry import ModelRegistry
from bike_pipeline.model_registry.deployment import STABLE
from bike_pipeline.stages import FEEDBACK_PROPERTY, RETRAINING_RUN, Stage

Artifact: TypeAlias = pb.Artifact
Context: TypeAlias = pb.Context

COMPLETE = pb.Execution.COMPLETE
CACHED = pb.Execution.CACHED
FAILED = pb.Execution.FAILED
RUNNING = pb.Execution.RUNNING
CANCELED = pb.Execution.CANCELED
# What MLMD's states are called here, where not by their own names.
_OTHER_WORDS = {"COMPLETE": "done", "CANCELED": "interrupted"}
ERROR_PROPERTY = "error"
LAST_STAGE = Stage.PUSHER
_id = attrgetter("id")
_CLUSTER_RUNNERS = ("kubeflow", "vertex")
# Between two tasks of a cluster: a pod waits for a node, or a failed task for its retry (ten of them take half a day).
LONGEST_PAUSE = timedelta(days=1)


def _goes_on(context: pb.Context, executions: Sequence[pb.Execution]) -> bool:
    """Return whether a run may still have tasks to come: a cluster starts a process for each, and we cannot ask it."""
    if runner_of(context) not in _CLUSTER_RUNNERS or not executions:
        return False
    last = max(execution.last_update_time_since_epoch for execution in executions)
    return datetime.now(UTC) - time_of(last) < LONGEST_PAUSE


def time_of(milliseconds: int) -> datetime:
    """Return MLMD's milliseconds since the epoch as a time in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def prop(artifact: pb.Artifact | pb.Execution, key: str) -> Any:
    """Return a property or custom property of an artifact or execution, or None if it has none."""
    for properties in (artifact.custom_properties, artifact.properties):
        kind = properties[key].WhichOneof("value") if key in properties else None
        if kind:
            return getattr(properties[key], kind)
    return None


def span_of(examples: pb.Artifact | None) -> tuple[int, int]:
    """Return the newest span of some examples and its version; 0 for what is not known."""
    return (int(prop(examples, "span") or 0), int(prop(examples, "version") or 0)) if examples else (0, 0)


def _by_age(ask: Callable[[str], list[Any]], type_name: str) -> list[Any]:
    try:
        return sorted(ask(type_name), key=_id)
    except mlmd_errors.NotFoundError:
        return []


class Lineage:
    """Questions to one metadata store."""

    def __init__(self, store: metadata_store.MetadataStore) -> None:
        """Ask `store`, which somebody else opened."""
        self.store = store
        self._artifacts_by_id: Callable[[list[int]], list[pb.Artifact]] = store.get_artifacts_by_id
        self._executions_by_id: Callable[[list[int]], list[pb.Execution]] = store.get_executions_by_id
        self._events_of: Callable[[int], list[pb.Event]] = lambda i: store.get_events_by_execution_ids([i])
        self._events_at: Callable[[int], list[pb.Event]] = lambda i: store.get_events_by_artifact_ids([i])

    def artifacts(self, type_name: str) -> list[pb.Artifact]:
        """Return all artifacts of a type, oldest first; none if the type was never used."""
        return _by_age(self.store.get_artifacts_by_type, type_name)

    def contexts(self, type_name: str) -> list[pb.Context]:
        """Return all contexts of a type, oldest first; none if the type was never used."""
        return _by_age(self.store.get_contexts_by_type, type_name)

    def producer(self, artifact_id: int) -> pb.Execution | None:
        """Return the execution that made an artifact; a cached execution only refers to it and is passed over."""
        made = (e for e in self._executions_at(artifact_id, pb.Event.OUTPUT) if e.last_known_state != CACHED)
        return next(made, None)

    def consumers(self, artifact_id: int, *stages: str) -> list[pb.Execution]:
        """Return the executions of some stages that read an artifact, oldest first."""
        return [e for e in self._executions_at(artifact_id, pb.Event.INPUT) if self.stage_of(e) in stages]

    def _executions_at(self, artifact_id: int, kind: int) -> list[pb.Execution]:
        ids = {event.execution_id for event in self._events_at(artifact_id) if event.type == kind}
        return sorted(self._executions_by_id(list(ids)), key=_id) if ids else []

    def artifact(self, artifact_id: int) -> pb.Artifact:
        return self.store.get_artifacts_by_id([artifact_id])[0]

    def artifact_at(self, uri: str) -> pb.Artifact | None:
        """Return the newest artifact at an address, or None."""
        return max(self.store.get_artifacts_by_uri(uri), key=_id, default=None)

    def execution(self, execution_id: int) -> pb.Execution:
        return self.store.get_executions_by_id([execution_id])[0]

    def executions_of(self, run_id: str, stages: bool = True) -> list[pb.Execution]:
        """Return the executions of a run in their order, by default of its stages; none if it is not on record."""
        run = self.store.get_context_by_type_and_name(RUN_CONTEXT, run_id) if run_id else None
        return self._executions_in(run, stages) if run else []

    def _executions_in(self, run: pb.Context, stages: bool = True) -> list[pb.Execution]:
        found = sorted(self.store.get_executions_by_context(run.id), key=_id)
        return [e for e in found if not stages or e.type != f"bike.{RETRAINING_RUN}"]

    def inputs(self, execution_id: int) -> dict[str, list[pb.Artifact]]:
        """Return an execution's input artifacts by key."""
        return self._linked(execution_id, pb.Event.INPUT)

    def outputs(self, execution_id: int) -> dict[str, list[pb.Artifact]]:
        """Return an execution's output artifacts by key."""
        return self._linked(execution_id, pb.Event.OUTPUT)

    def trained_on(self, model_id: int, key: str = "examples") -> pb.Artifact | None:
        """Return an input of the training that made a model; None if it is not on record."""
        trainer = self.producer(model_id)
        return next(iter(self.inputs(trainer.id).get(key, [])), None) if trainer else None

    def _linked(self, execution_id: int, kind: int) -> dict[str, list[pb.Artifact]]:
        events = [event for event in self._events_of(execution_id) if event.type == kind]
        pairs = dict.fromkeys((e.path.steps[0].key if e.path.steps else "", e.artifact_id) for e in events)
        found = {a.id: a for a in self._artifacts_by_id(list({i for _, i in pairs}))} if pairs else {}
        linked: dict[str, list[pb.Artifact]] = {}
        for key, artifact_id in pairs:
            if artifact_id in found:
                linked.setdefault(key, []).append(found[artifact_id])
        return linked

    def stage_of(self, execution: pb.Execution) -> str:
        """Return the id of the stage that an execution belongs to."""
        return self._context_of(execution.id, "node").rpartition(".")[2]

    def run_of(self, execution_id: int) -> str:
        """Return the name of the run that an execution belongs to; "" if there is none."""
        return self._context_of(execution_id, RUN_CONTEXT)

    def _context_of(self, execution_id: int, type_name: str) -> str:
        contexts = self.store.get_contexts_by_execution(execution_id)
        return next((str(context.name) for context in contexts if context.type == type_name), "")

    def pushes(self) -> list[PushedModel]:
        """Return every push that took place, oldest first."""
        found = []
        for pushed in self.artifacts("PushedModel"):
            execution = self.producer(pushed.id) if prop(pushed, "pushed") == 1 else None
            models = self.inputs(execution.id).get("model", []) if execution else []
            if not models:
                continue
            found.append(
                PushedModel(
                    model_id=models[0].id,
                    model_uri=models[0].uri,
                    version=int(prop(pushed, "pushed_version") or 0),
                    destination=str(prop(pushed, "pushed_destination") or ""),
                    fingerprint=str(prop(pushed, "fingerprint") or ""),
                    metric_set=str(prop(pushed, "metric_set") or ""),
                    exports_fingerprint=str(prop(pushed, "exports_fingerprint") or ""),
                    pushed_at=time_of(pushed.create_time_since_epoch),
                    feedback=json.loads(prop(pushed, FEEDBACK_PROPERTY) or "{}"),
                )
            )
        return sorted(found, key=lambda push: push.version)

    def serving_model(self, serving_path: str = "") -> PushedModel | None:
        """Return the model that is served now: the promoted one, as far as its push is on record.

        If nobody ever recorded a promotion, that is the last one that was pushed. Workspaces may share one store: only
        pushes to the base path count, or (empty) the last of all.
        """
        pushes = [p for p in self.pushes() if serving_path in ("", os.path.dirname(p.destination))]
        deployment = ModelRegistry(serving_path).deployment() if serving_path else None
        if deployment is not None:
            promoted = deployment.labels.get(STABLE)
            pushes = [push for push in pushes if push.version == promoted]
        return pushes[-1] if pushes else None

    def serving_now(self, serving_path: str) -> PushedModel | None:
        """Return the model that serves: the promoted version, or the newest where nobody ever recorded a promotion.

        A version that ML Metadata does not know (a process was killed between the push and its record) is believed by
        its own push record. A StorageError says that what is promoted cannot be read.
        """
        recorded = self.serving_model(serving_path)
        registry = ModelRegistry(serving_path)
        promoted = registry.serving()
        if promoted is None or (recorded is not None and recorded.version >= promoted):
            return recorded
        record = registry.push_record(promoted)
        if record is None:
            return recorded
        return PushedModel(
            model_id=int(record["model_id"]),
            model_uri=str(record["model_uri"]),
            version=promoted,
            destination=registry.uri(promoted),
            fingerprint=str(record["fingerprint"]),
            metric_set=str(record["metric_set"]),
            pushed_at=time_of(int(record["pushed_at_ms"])),
            exports_fingerprint=str(record.get("exports_fingerprint", "")),
            feedback=record.get("feedback", {}),
        )

    def runs(self) -> list[RunRecord]:
        """Return every run, oldest first."""
        return [self._run(context) for context in self.contexts(RUN_CONTEXT)]

    def _run(self, context: pb.Context) -> RunRecord:
        executions = self._executions_in(context)
        stages = tuple(self.stage_record(execution) for execution in executions)
        examples = (found for e in executions for found in self.outputs(e.id).get("examples", []))
        span, version = span_of(next(examples, None))
        states = [stage.state for stage in stages]
        ended = bool(stages) and stages[-1].name == LAST_STAGE
        between = not ended and set(states) <= {"done", "cached"} and _goes_on(context, executions)
        otherwise = "running" if between else "done" if ended else "interrupted"
        state = next((s for s in ("running", "interrupted", "failed") if s in states), otherwise)
        return RunRecord(
            run_id=context.name,
            started=time_of(context.create_time_since_epoch),
            state=state,
            span=span,
            version=version,
            stages=stages,
            outcome=f"between two tasks, after {stages[-1].name}" if between else self._outcome(executions, stages),
        )

    def stage_record(self, execution: pb.Execution) -> StageRecord:
        """Return what is on record of one stage of a run."""
        length = execution.last_update_time_since_epoch - execution.create_time_since_epoch
        state = pb.Execution.State.Name(execution.last_known_state)
        return StageRecord(
            name=self.stage_of(execution),
            execution_id=execution.id,
            state=_OTHER_WORDS.get(state, state.lower()),
            seconds=length / 1000,
            error=str(prop(execution, ERROR_PROPERTY) or ""),
        )

    def _outcome(self, executions: Iterable[pb.Execution], stages: Sequence[StageRecord]) -> str:
        for stage in stages:
            if stage.state == "failed":
                return f"{stage.name}: {stage.error}" if stage.error else f"{stage.name} failed"
        for execution, stage in zip(executions, stages, strict=True):
            if stage.name != LAST_STAGE:
                continue
            pushed = self.outputs(execution.id).get("pushed_model", [])
            if not pushed or prop(pushed[0], "pushed") != 1:
                return "not blessed"
            said = "nothing new," if execution.last_known_state == CACHED else "pushed as"
            return f"{said} version {prop(pushed[0], 'pushed_version')}"
        return f"stopped at {stages[-1].name}" if stages else ""

    def models(self, serving_path: str = "") -> list[ModelRecord]:
        """Return every trained model, oldest first, and which of them serves at a base path.

        That one's files are held against what was pushed; for any base path (empty) they are not looked at.
        """
        pushed = {push.model_id: push for push in self.pushes()}
        serving = self.serving_model(serving_path)
        wrong = ModelRegistry(serving_path).problem(serving.version) if serving is not None and serving_path else ""
        records = []
        for model in self.artifacts("Model"):
            execution = self.producer(model.id)
            if execution is None or self.stage_of(execution) != Stage.TRAINER:
                continue
            span, version = span_of(next(iter(self.inputs(execution.id).get("examples", [])), None))
            promoted = serving is not None and serving.model_id == model.id
            # Labels may have made several versions of it.
            push = serving if promoted else pushed.get(model.id)
            evaluation, blessed = self.evaluation(model.id, push is not None) or (None, None)
            records.append(
                ModelRecord(
                    model_id=model.id,
                    uri=model.uri,
                    trained=time_of(model.create_time_since_epoch),
                    span=span,
                    version=version,
                    blessed=blessed,
                    served_version=push.version if push else None,
                    serving=promoted and not wrong,
                    metrics={
                        key.removeprefix("metric_"): value.double_value
                        for key, value in (evaluation.custom_properties.items() if evaluation else ())
                        if key.startswith("metric_") and value.WhichOneof("value") == "double_value"
                    },
                    wrong=wrong if promoted else "",
                )
            )
        return records

    def evaluation(self, model_id: int, pushed: bool) -> tuple[pb.Artifact, bool] | None:
        """Return a model's newest evaluation and whether it blessed; for a pushed model the newest that did."""
        found = None
        for execution in self.consumers(model_id, Stage.EVALUATOR):
            outputs = self.outputs(execution.id)
            if "blessing" in outputs and "evaluation" in outputs:
                blessed = prop(outputs["blessing"][0], "blessed") == 1
                found = (outputs["evaluation"][0], blessed) if blessed or not pushed else found
        return found
