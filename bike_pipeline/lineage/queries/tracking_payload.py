"""One run as a tracking server gets it: parameters, metrics by slice, tags, decisions, and what was pushed of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ml_metadata.proto import metadata_store_pb2 as pb

from bike_pipeline.errors import MetadataError
from bike_pipeline.lineage.queries.evidence import decisions_of, window_of
from bike_pipeline.lineage.records.run_record import RunSource, flat, source_of_run
from bike_pipeline.lineage.store.entities import PushedModel
from bike_pipeline.lineage.store.metadata_store import Lineage, span_of
from bike_pipeline.stages import Stage

TAG_PREFIX = "bike_pipeline."
# Tells the server's copy of a run from others.
RUN_ID_TAG = f"{TAG_PREFIX}run_id"
_NO_NUMBERS = ("slicing", "slice")


@dataclass(frozen=True)
class TrackingPayload:
    """A run that came to an evaluation: the one that evaluated the model, where later ones only repeated it.

    `parameters` are the settings by dotted name; `decisions` what the Evaluator wrote; times in milliseconds since the
    epoch. `metrics` are the candidate's by name, those of a slice as `slicing/value/metric`, the baseline's below
    `baseline/`: errors in rentals an hour, rmsle in log units, bias and calibration as shares.
    """

    run_id: str
    started_ms: int
    ended_ms: int
    parameters: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]
    decisions: dict[str, Any]
    pushes: tuple[PushedModel, ...]


def tracking_payload(lineage: Lineage, run_id: str | None = None) -> TrackingPayload:
    """Return a run, or the newest that came to an evaluation; a MetadataError if it is not there or came to none."""
    execution, artifact = _evaluation(lineage, run_id)
    report = decisions_of(artifact)
    if report is None:
        raise MetadataError(
            "what was decided is neither on record nor in its file", where=artifact.uri, fix="run the pipeline again"
        )
    origin = lineage.run_of(execution.id)
    source, _ = source_of_run(lineage.store, origin)
    models = lineage.inputs(execution.id).get("model", [])
    model_id = models[0].id if models else 0
    executions = lineage.executions_of(origin)
    examples = [found for execution in executions for found in lineage.outputs(execution.id).get("examples", [])]
    return TrackingPayload(
        run_id=origin,
        started_ms=min(int(e.create_time_since_epoch) for e in executions),
        ended_ms=max(int(e.last_update_time_since_epoch) for e in executions),
        parameters=flat({k: v for k, v in source.settings.items() if k != "tracking"}) if source else {},
        metrics={
            **_metrics(report, "candidate_metrics", ""),
            **_metrics(report, "baseline_metrics", "baseline/"),
            **_changes(report),
        },
        tags=_tags(origin, source, report, model_id, examples[0] if examples else None),
        decisions=report,
        pushes=tuple(push for push in lineage.pushes() if push.model_id == model_id),
    )


def _evaluation(lineage: Lineage, run_id: str | None) -> tuple[pb.Execution, pb.Artifact]:
    if run_id is None:
        found = lineage.artifacts("ModelEvaluation")
        if not found:
            raise MetadataError("no run has come to an evaluation yet", fix="run the pipeline: `bike-pipeline run`")
        artifact = found[-1]
    else:
        executions = lineage.executions_of(run_id)
        if not executions:
            raise MetadataError(f"there is no run '{run_id}'", fix="`bike-pipeline runs` lists every run")
        outputs = (lineage.outputs(e.id) for e in executions if lineage.stage_of(e) == Stage.EVALUATOR)
        of_run = [artifact for found in outputs for artifact in found.get("evaluation", [])]
        if not of_run:
            raise MetadataError(
                f"run '{run_id}' came to no evaluation, so there is nothing to track",
                fix="`bike-pipeline runs` lists how every run ended",
            )
        artifact = of_run[-1]
    execution = lineage.producer(artifact.id)
    if execution is None:
        raise MetadataError("the record of the evaluation is damaged", where=artifact.uri, fix="run the pipeline again")
    return execution, artifact


def _metrics(report: Mapping[str, Any], key: str, prefix: str) -> dict[str, float]:
    found = {}
    for row in report.get(key) or []:
        place = prefix if row["slicing"] == "overall" else f"{prefix}{row['slicing']}/{row['slice']}/"
        for name, value in row.items():
            if name not in _NO_NUMBERS and isinstance(value, int | float) and math.isfinite(value):
                found[f"{place}{name}"] = float(value)
    return found


def _changes(report: Mapping[str, Any]) -> dict[str, float]:
    """Return the overall changes against the baseline and both ends of their intervals, as shares."""
    found = {}
    for decision in report.get("decisions") or []:
        if decision["kind"] == "change" and decision["slicing"] == "overall":
            for end, name in (("value", ""), ("low", "/low"), ("high", "/high")):
                if decision.get(end) is not None:
                    found[f"change/{decision['metric']}{name}"] = float(decision[end])
    return found


def _tags(
    run_id: str, source: RunSource | None, report: Mapping[str, Any], model_id: int, examples: pb.Artifact | None
) -> dict[str, str]:
    baseline = report.get("baseline") or {}
    window, (span, version) = window_of(examples), span_of(examples)
    tags = {
        "run_id": run_id,
        "model_id": model_id,
        "span": span or None,
        "version": version or None,
        "data_sha256": window[-1]["content_sha256"] if window else None,
        "blessed": report.get("blessed"),
        "baseline": baseline.get("reason"),
        "baseline_version": baseline.get("serving_version") or None,
    }
    if source is not None:
        tags |= {
            "runner": source.runner,
            "package_version": source.code.version,
            "git_commit": source.code.commit,
            "git_dirty": source.code.dirty,
            "source_sha256": source.code.source_sha256,
            "settings_sha256": source.settings_sha256,
            "schema_sha256": source.schema_sha256,
            "seed": source.seed,
            **{f"environment.{name}": version for name, version in source.environment.items()},
        }
    named = {f"{TAG_PREFIX}{name}": str(value) for name, value in tags.items() if value not in (None, "")}
    if source is not None and source.code.commit:
        # MLflow's own name: its pages link it.
        named["mlflow.source.git.commit"] = source.code.commit
    return named
