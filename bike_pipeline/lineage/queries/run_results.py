"""What came of a run and its stages, in a few words, and the record of another run that repeats it as a whole."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_metadata.proto import metadata_store_pb2 as pb

from bike_pipeline.lineage.records import sealing
from bike_pipeline.lineage.records.run_record import RUN_CONTEXT
from bike_pipeline.lineage.store.metadata_store import CACHED, COMPLETE, LAST_STAGE, RUNNING, Lineage, prop
from bike_pipeline.lineage.store.writing import put_execution
from bike_pipeline.run_events import RunResult, StageResult
from bike_pipeline.stages import Stage

# The custom property of the run's context that holds what its end kept for the next run.
PROPERTY = "unchanged_while"
Outputs = dict[str, list[pb.Artifact]]


def _examples(outputs: Outputs) -> str:
    artifact = outputs["examples"][0]
    rows = json.loads(prop(artifact, "rows_by_split"))
    counts = ", ".join(f"{count:,} {split}" for split, count in rows.items() if count)
    return f"span {prop(artifact, 'span')} version {prop(artifact, 'version')}: {counts} rows"


def _with_warnings(count: int | None) -> str:
    return f" with {count} warning{'s' if count > 1 else ''}" if count else ""


def _validator(outputs: Outputs) -> str:
    blessed = prop(outputs["anomalies"][0], "blessed")
    splits = dict(blessed) if blessed is not None else {}
    anomalous = [split for split, good in splits.items() if not good]
    return f"anomalies in {', '.join(anomalous)}" if anomalous else "no anomalies"


def _evaluation(outputs: Outputs) -> str:
    evaluation, blessing = outputs["evaluation"][0], outputs["blessing"][0]
    verdict = "blessed" if prop(blessing, "blessed") == 1 else "NOT blessed"
    # Of a probability the log loss decides, of a count its error; both have an MAE.
    shown = (("log loss", "log_loss", ".3f"), ("Brier", "brier", ".3f"))
    if prop(evaluation, "metric_log_loss") is None and prop(evaluation, "metric_brier") is None:
        shown = (("MAE", "mae", ".1f"), ("RMSE", "rmse", ".1f"))
    found = ((name, prop(evaluation, f"metric_{metric}"), form) for name, metric, form in shown)
    said = [f"{name} {'not a number' if value is None else f'{value:{form}}'}" for name, value, form in found]
    return f"{', '.join(said)}: {verdict}{_with_warnings(prop(evaluation, 'warnings'))}"


def _push(outputs: Outputs) -> str:
    pushed = outputs["pushed_model"][0]
    if prop(pushed, "pushed") != 1:
        return "nothing pushed"
    notes = [prop(pushed, name) for name in ("signature", "promotion")]
    return ", ".join([f"version {prop(pushed, 'pushed_version')}", *(str(text) for text in notes if text)])


def _model(outputs: Outputs) -> str:
    folder = Path(outputs["model"][0].uri) / "Format-Serving"
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"model of {size / 1024:,.0f} kB"


_SUMMARIES: dict[str, Callable[[Outputs], str]] = {
    Stage.EXAMPLE_GEN: _examples,
    Stage.EXAMPLE_VALIDATOR: _validator,
    Stage.DATA_GATE: lambda outputs: f"passed{_with_warnings(prop(outputs['report'][0], 'warnings'))}",
    Stage.TUNER: lambda outputs: str(prop(outputs["best_hyperparameters"][0], "summary") or ""),
    Stage.HYPERPARAMETERS_LOOKUP: lambda outputs: str(prop(outputs["best_hyperparameters"][0], "summary") or ""),
    Stage.TRAINER: _model,
    Stage.BASELINE_LOOKUP: lambda outputs: str(prop(outputs["baseline_model"][0], "reason")),
    Stage.WARM_START_LOOKUP: lambda outputs: str(prop(outputs["baseline_model"][0], "reason")),
    Stage.EVALUATOR: _evaluation,
    Stage.MODEL_CARD: lambda outputs: str(prop(outputs["model_card"][0], "summary") or ""),
    Stage.EXPORTER: lambda outputs: str(prop(outputs["exports"][0], "formats") or ""),
    Stage.PUSHER: _push,
}


def stage_summary(stage: str, outputs: Outputs) -> str:
    """Return what came out of a stage; "" if there is nothing to say beyond that it is done."""
    return _SUMMARIES[stage](outputs) if stage in _SUMMARIES and outputs else ""


def run_result(
    lineage: Lineage, run_id: str, stages: Sequence[StageResult], path_of: Callable[[str], str] = str
) -> RunResult:
    """Return what a run came to, whose every stage has ended well; `path_of` tells where a URI is seen from here."""
    by_name = {stage.name: stage for stage in stages}
    pushed = lineage.outputs(by_name[LAST_STAGE].execution_id)["pushed_model"][0]
    evaluation = lineage.outputs(by_name[Stage.EVALUATOR].execution_id)["evaluation"][0]
    decisions = json.loads((Path(path_of(evaluation.uri)) / "decisions.json").read_text(encoding="utf-8"))
    was_pushed = prop(pushed, "pushed") == 1
    return RunResult(
        run_id=run_id,
        stages=tuple(stages),
        pushed_version=int(prop(pushed, "pushed_version")) if was_pushed else None,
        newly_pushed=was_pushed and by_name[LAST_STAGE].state == "done",
        decisions=decisions,
        destination=str(prop(pushed, "pushed_destination")) if was_pushed else "",
    )


@dataclass(frozen=True)
class RecordedStage:
    """A stage of an earlier run, with the contexts it belongs to but for the run's own.

    `driven` names the properties that its driver added; an execution that is answered from the cache has none.
    """

    name: str
    execution: pb.Execution
    contexts: list[pb.Context]
    events: list[pb.Event]
    driven: frozenset[str]


def previous_run(lineage: Lineage, own: str) -> tuple[str, str | None]:
    """Return the run with the name `own`, or else the newest one, and the text that its end kept, if it kept any.

    Where there is no run, that is a ValueError, or MLMD's NotFoundError.
    """
    contexts = {context.id: context for context in lineage.store.get_contexts_by_type(RUN_CONTEXT)}
    found = next((context for context in contexts.values() if context.name == own), contexts[max(contexts)])
    return found.name, prop(found, PROPERTY)


def keep_cache_key(lineage: Lineage, run_id: str, text: str) -> None:
    """Keep a text beside a run, for the next one."""
    context = lineage.store.get_context_by_type_and_name(RUN_CONTEXT, run_id)
    context.custom_properties[PROPERTY].string_value = text
    lineage.store.put_contexts([context])


def trained_models(lineage: Lineage, run_id: str) -> list[int]:
    """Return the ids of the models that a run's Trainer made or was answered with."""
    trainers = (e.id for e in lineage.executions_of(run_id) if lineage.stage_of(e) == Stage.TRAINER)
    return [model.id for trainer in trainers for model in lineage.outputs(trainer).get("model", [])]


def driven_properties(
    lineage: Lineage, run_id: str, parameters: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[str]] | None:
    """Return the names of the properties that drivers added in a run that ended well, by stage.

    `parameters` has the MLMD value by name of every parameter that the definition gives each stage. None if a driver
    put a value of its own over one of the definition's, so that a repetition would not know which.
    """
    driven = {}
    for execution in lineage.executions_of(run_id):
        defined, found = parameters[lineage.stage_of(execution)], execution.custom_properties
        if any(found[name] != value for name, value in defined.items() if name in found):
            return None
        driven[lineage.stage_of(execution)] = sorted(set(found) - set(defined))
    return driven


def recorded_stages(lineage: Lineage, run_id: str, driven: Mapping[str, list[str]]) -> list[RecordedStage]:
    """Return the stages of a run, in order; see `driven_properties`."""
    executions = lineage.executions_of(run_id)
    events = lineage.store.get_events_by_execution_ids([execution.id for execution in executions])
    found = []
    for execution in executions:
        contexts = lineage.store.get_contexts_by_execution(execution.id)
        name = next(str(context.name.rpartition(".")[2]) for context in contexts if context.type == "node")
        kept = [context for context in contexts if context.type != RUN_CONTEXT]
        own = [event for event in events if event.execution_id == execution.id]
        found.append(RecordedStage(name, execution, kept, own, frozenset(driven.get(name, ()))))
    return found


def missing_output(lineage: Lineage, stages: list[RecordedStage]) -> str:
    """Return which output is gone or changed, or the name of a stage that did not end well; else ""."""
    if not stages or stages[-1].name != LAST_STAGE:
        return LAST_STAGE
    for stage in stages:
        outputs = _artifacts(lineage, stage, pb.Event.OUTPUT)
        if stage.execution.last_known_state not in (COMPLETE, CACHED) or not outputs:
            return stage.name
        for artifact, _ in outputs:
            if artifact.state != pb.Artifact.LIVE or not Path(artifact.uri).exists():
                return artifact.uri or stage.name
            if found := sealing.difference(artifact.uri, prop(artifact, sealing.SEAL_PROPERTY)):
                return found
    return ""


def _artifacts(lineage: Lineage, stage: RecordedStage, kind: int) -> list[tuple[pb.Artifact, pb.Event]]:
    events = {event.artifact_id: event for event in stage.events if event.type == kind}
    artifacts = lineage.store.get_artifacts_by_id(list(events)) if events else []
    return [(artifact, events[artifact.id]) for artifact in artifacts]


def cached_result(lineage: Lineage, run_id: str, stages: list[RecordedStage]) -> RunResult:
    """Return what an earlier run came to, as a run that is answered from it tells it."""
    results = []
    for stage in stages:
        said = stage_summary(stage.name, lineage.outputs(stage.execution.id))
        results.append(StageResult(stage.name, int(stage.execution.id), "cached", 0.0, said))
    return run_result(lineage, run_id, results)


def record_cached_stage(lineage: Lineage, stage: RecordedStage, run_id: str) -> int:
    """Record a stage as answered from the cache, in the two steps in which TFX does it; return its execution's id."""
    before = stage.execution
    execution = pb.Execution(
        type_id=before.type_id,
        last_known_state=RUNNING,
        name=str(uuid.uuid4()),
        properties=before.properties,
        custom_properties={k: value for k, value in before.custom_properties.items() if k not in stage.driven},
    )
    run = pb.Context(name=run_id, type_id=lineage.store.get_context_type(RUN_CONTEXT).id)
    own = [context for context in stage.contexts if context.type != "execution_cache"]
    inputs, outputs = (_artifacts(lineage, stage, kind) for kind in (pb.Event.INPUT, pb.Event.OUTPUT))
    execution.id = put_execution(lineage, execution, inputs, [*own, run], reuse_contexts=True)
    execution.last_known_state = CACHED
    return put_execution(lineage, execution, outputs, [*stage.contexts, run], reuse_contexts=True)
