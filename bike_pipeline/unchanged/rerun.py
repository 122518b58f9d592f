"""Answers a run from the one before where nothing has changed, and keeps what the next one needs to know that."""

from __future__ import annotations

import json
import pathlib
import sys
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bike_pipeline.errors import BikePipelineError
from bike_pipeline.lineage.last_run import last_run, note_run
from bike_pipeline.run_events import RunObserver, RunResult, StageResult
from bike_pipeline.settings import Settings
from bike_pipeline.unchanged import fingerprint

if TYPE_CHECKING:
    from ml_metadata.proto import metadata_store_pb2 as pb

    from bike_pipeline.lineage.store import Lineage

# The custom property of the run's context that holds, as JSON, `_PARTS` and `_DRIVEN`.
PROPERTY = "unchanged_while"
_PARTS, _DRIVEN = "parts", "driver_properties"


def new_run_id() -> str:
    """Return a name for a run: the time to the second, and a few random digits."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"


@dataclass(frozen=True)
class _Recorded:
    """A stage of an earlier run.

    Attributes:
        name: id of the stage.
        execution: its execution.
        contexts: the contexts it belongs to, without the run's own.
        events: its events.
        driven: names of the properties that its driver added; an execution that is answered from the cache has none.
    """

    name: str
    execution: pb.Execution
    contexts: list[pb.Context]
    events: list[pb.Event]
    driven: frozenset[str]


class Rerun:
    """One run, from the point of view of whether it has anything to do. The workspace's lock is held all the while."""

    def __init__(
        self, settings: Settings, enable_cache: bool, accept_baseline_reset: bool, runner: str = "local"
    ) -> None:
        """Take down what the run depends on, before it begins.

        Args:
            settings: the settings of the run.
            enable_cache: whether stages may be answered from earlier runs.
            accept_baseline_reset: whether a reset of the baseline is accepted.
            runner: name of the runner, for the run's record.
        """
        self._runner = runner
        self._settings = settings
        # A warm start depends on what serves, so it trains again each time; the two options are for one run only.
        ordinary = enable_cache and not accept_baseline_reset and not settings.training.warm_start
        self._inputs = fingerprint.inputs_of(settings) if ordinary else None

    def answer(self, observer: RunObserver) -> RunResult | None:
        """Record this run as a repetition of the one before, and return its result; None where it must really run.

        Raises:
            MetadataError: the metadata store cannot be opened.
        """
        if self._inputs is None:
            return None
        if self._settings.metadata.mysql is None and not self._settings.metadata_file.is_file():
            return None
        import logging

        # MLMD says on every query that it falls back to plain SQL; that is its normal way of working.
        logging.getLogger("absl").setLevel(logging.ERROR)
        from ml_metadata import errors as mlmd_errors

        from bike_pipeline.lineage.connection import open_at
        from bike_pipeline.lineage.store import Lineage

        address = self._settings.metadata_address
        lineage = Lineage(open_at(address, create=self._settings.metadata.mysql is not None))
        try:
            return self._answer(lineage, observer)
        except (mlmd_errors.StatusError, BikePipelineError, OSError, ValueError, LookupError, TypeError) as error:
            # Whatever is odd about the records is for the ordinary way to meet.
            _say(f"not answered from the run before: {type(error).__name__}: {error}")
            return None

    def _answer(self, lineage: Lineage, observer: RunObserver) -> RunResult | None:
        contexts = {context.id: context for context in lineage.store.get_contexts_by_type("pipeline_run")}
        # Other workspaces may write to the same store.
        own = last_run(self._settings.workspace_path)
        before = next((context for context in contexts.values() if context.name == own), contexts[max(contexts)])
        if PROPERTY not in before.custom_properties:
            _say(f"run {before.name} left no record to compare with")
            return None
        kept = json.loads(before.custom_properties[PROPERTY].string_value)
        now = {**(self._inputs or {}), "serving": self._serving(lineage, before)}
        changed = [part for part in sorted({*now, *kept[_PARTS]}) if now.get(part) != kept[_PARTS].get(part)]
        if changed:
            _say(f"changed since run {before.name}: {', '.join(changed)}")
            return None
        stages = _stages(lineage, before, kept[_DRIVEN])
        if missing := _missing(lineage, stages):
            _say(f"an output of run {before.name} is gone: {missing}")
            return None
        from bike_pipeline.lineage.run_record import record_run, source_of_this_run

        # All that can be odd about the earlier run shows before anything is recorded.
        repeated = _repeated(lineage, before.name, stages)
        run_id = new_run_id()
        record_run(lineage.store, source_of_this_run(self._settings, run_id, self._runner))
        note_run(self._settings.workspace_path, run_id)
        observer.planned([stage.name for stage in stages])
        results = []
        for stage, said in zip(stages, repeated.stages, strict=True):
            began = time.monotonic()
            observer.started(stage.name)
            execution_id = _repeat(lineage, stage, run_id)
            results.append(replace(said, execution_id=execution_id, seconds=time.monotonic() - began))
            observer.finished(results[-1])
        result = replace(repeated, run_id=run_id, stages=tuple(results))
        self._keep(lineage, run_id, {})
        _say(f"nothing has changed since run {before.name}; recorded as run {run_id}")
        return result

    def keep(self, lineage: Lineage, run_id: str, parameters: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep what this run depended on, at its end, where all of it ended well and the next one could repeat it.

        Args:
            lineage: the store that holds the run.
            run_id: its name.
            parameters: MLMD value by name of every parameter that the definition gives each stage; what an
                execution holds beyond that comes from its driver.
        """
        if self._inputs is None:
            return
        if fingerprint.inputs_of(self._settings) != self._inputs:
            _say("the run's inputs were changed while it ran; the next one looks at every stage")
            return
        from ml_metadata import errors as mlmd_errors

        try:
            context = lineage.store.get_context_by_type_and_name("pipeline_run", run_id)
            driven = {}
            for execution in lineage.store.get_executions_by_context(context.id):
                defined, found = parameters[lineage.stage_of(execution)], execution.custom_properties
                if any(found[name] != value for name, value in defined.items() if name in found):
                    # A driver put a value of its own over one of the definition's: a repetition would not know which.
                    return
                driven[lineage.stage_of(execution)] = sorted(set(found) - set(defined))
            self._keep(lineage, run_id, driven)
        except (mlmd_errors.StatusError, BikePipelineError, OSError, LookupError) as error:
            # The run itself has ended well; without the record the next one only takes longer.
            _say(f"nothing kept for the next run: {type(error).__name__}: {error}")

    def _keep(self, lineage: Lineage, run_id: str, driven: Mapping[str, list[str]]) -> None:
        context = lineage.store.get_context_by_type_and_name("pipeline_run", run_id)
        serving = self._serving(lineage, context)
        if not serving:
            return
        record = {_PARTS: {**(self._inputs or {}), "serving": serving}, _DRIVEN: driven}
        context.custom_properties[PROPERTY].string_value = json.dumps(record, sort_keys=True)
        lineage.store.put_contexts([context])

    def _serving(self, lineage: Lineage, run: pb.Context) -> str:
        """Return in words what serves and what became of its pushes; "" where that is not the model of this run."""
        from bike_pipeline.lineage.serving_now import serving_now
        from bike_pipeline.serving import model_folder

        path = self._settings.serving_path
        serving = serving_now(lineage, path)
        if serving is None or not model_folder.is_intact(serving.destination, serving.fingerprint):
            return ""
        trained = [
            artifact.id
            for execution in lineage.store.get_executions_by_context(run.id)
            if lineage.stage_of(execution) == "Trainer"
            for artifact in lineage.outputs(execution.id).get("model", [])
        ]
        if trained != [serving.model_id]:
            return ""
        pushes = [
            (push.version, push.destination, model_folder.is_intact(push.destination, push.fingerprint))
            for push in lineage.pushes()
            if push.model_id == serving.model_id
        ]
        record = model_folder.push_record(path, serving.version)
        return json.dumps([model_folder.versions(path), serving.version, record, pushes], sort_keys=True)


def _say(text: str) -> None:
    # Standard error is the run's log file.
    sys.stderr.write(f"re-run: {text}\n")


def _stages(lineage: Lineage, run: pb.Context, driven: Mapping[str, list[str]]) -> list[_Recorded]:
    executions = sorted(lineage.store.get_executions_by_context(run.id), key=lambda execution: execution.id)
    events = lineage.store.get_events_by_execution_ids([execution.id for execution in executions])
    found = []
    for execution in executions:
        contexts = lineage.store.get_contexts_by_execution(execution.id)
        name = next(str(context.name.rpartition(".")[2]) for context in contexts if context.type == "node")
        found.append(
            _Recorded(
                name=name,
                execution=execution,
                contexts=[context for context in contexts if context.id != run.id],
                events=[event for event in events if event.execution_id == execution.id],
                driven=frozenset(driven.get(name, ())),
            )
        )
    return found


def _missing(lineage: Lineage, stages: list[_Recorded]) -> str:
    """Return the address of an output that is gone, or the name of a stage that did not end well; else ""."""
    from ml_metadata.proto import metadata_store_pb2 as pb

    from bike_pipeline.lineage.store import CACHED, COMPLETE, LAST_STAGE

    if not stages or stages[-1].name != LAST_STAGE:
        return LAST_STAGE
    for stage in stages:
        outputs = _artifacts(lineage, stage, pb.Event.OUTPUT)
        if stage.execution.last_known_state not in (COMPLETE, CACHED) or not outputs:
            return stage.name
        for artifact, _ in outputs:
            if artifact.state != pb.Artifact.LIVE or not pathlib.Path(artifact.uri).exists():
                return artifact.uri or stage.name
    return ""


def _artifacts(lineage: Lineage, stage: _Recorded, kind: int) -> list[tuple[pb.Artifact, pb.Event]]:
    events = {event.artifact_id: event for event in stage.events if event.type == kind}
    artifacts = lineage.store.get_artifacts_by_id(list(events)) if events else []
    return [(artifact, events[artifact.id]) for artifact in artifacts]


def _repeated(lineage: Lineage, run_id: str, stages: list[_Recorded]) -> RunResult:
    """Return what an earlier run came to, as a run that is answered from it tells it."""
    from ml_metadata.proto import metadata_store_pb2 as pb

    from bike_pipeline.lineage.outcomes import outcome, run_result

    results = []
    for stage in stages:
        outputs: dict[str, list[pb.Artifact]] = {}
        for artifact, event in _artifacts(lineage, stage, pb.Event.OUTPUT):
            outputs.setdefault(event.path.steps[0].key, []).append(artifact)
        results.append(StageResult(stage.name, int(stage.execution.id), "cached", 0.0, outcome(stage.name, outputs)))
    return run_result(lineage, run_id, results)


def _repeat(lineage: Lineage, stage: _Recorded, run_id: str) -> int:
    """Record a stage as answered from the cache, in the two steps in which TFX does it; return its execution's id."""
    from ml_metadata.proto import metadata_store_pb2 as pb

    from bike_pipeline.lineage.store import CACHED

    execution = pb.Execution(type_id=stage.execution.type_id, last_known_state=pb.Execution.RUNNING)
    execution.name = str(uuid.uuid4())
    for name, value in stage.execution.properties.items():
        execution.properties[name].CopyFrom(value)
    for name, value in stage.execution.custom_properties.items():
        if name not in stage.driven:
            execution.custom_properties[name].CopyFrom(value)
    run = pb.Context(name=run_id, type_id=lineage.store.get_context_type("pipeline_run").id)
    own = [context for context in stage.contexts if context.type != "execution_cache"]
    execution.id = _put(lineage, execution, _artifacts(lineage, stage, pb.Event.INPUT), [*own, run])
    execution.last_known_state = CACHED
    return _put(lineage, execution, _artifacts(lineage, stage, pb.Event.OUTPUT), [*stage.contexts, run])


def _put(
    lineage: Lineage,
    execution: pb.Execution,
    linked: Iterable[tuple[pb.Artifact, pb.Event]],
    contexts: list[pb.Context],
) -> int:
    from ml_metadata.proto import metadata_store_pb2 as pb

    pairs = [(artifact, pb.Event(type=event.type, path=event.path)) for artifact, event in linked]
    execution_id, _, _ = lineage.store.put_execution(
        execution, pairs, contexts, reuse_context_if_already_exist=True, force_reuse_context=True
    )
    return int(execution_id)
