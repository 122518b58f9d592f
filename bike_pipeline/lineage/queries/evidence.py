"""What speaks for a model: its data, code, settings, schema, gates and metrics, gathered from ML Metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ml_metadata.proto import metadata_store_pb2 as pb

from bike_pipeline.lineage.records.run_record import RunSource, source_of_run
from bike_pipeline.lineage.store.metadata_store import Lineage, prop, time_of
from bike_pipeline.stages import (
    DECISIONS_FILE,
    DECISIONS_PROPERTY,
    HYPERPARAMETERS_PROPERTY,
    MANIFESTS_PROPERTY,
    WINDOW_PROPERTY,
)

# What is kept of what an evaluation decided.
GATES = (
    "blessed",
    "baseline",
    "decisions",
    "hourly_mean_mae",
    "naive_maes",
    "naive_errors",
    "target",
    "worst_slice",
    "backtest",
)


def window_of(examples: pb.Artifact | None) -> list[dict[str, Any]]:
    """Return the spans that an Examples artifact holds, oldest first.

    Each has "span", "version", "content_sha256", "manifest_sha256" ("" if it was not recorded) and "rows" by split; the
    last one gave the splits train and eval, the others the history.
    """
    if examples is None:
        return []
    try:
        window = json.loads(prop(examples, WINDOW_PROPERTY) or "[]")
        manifests = json.loads(prop(examples, MANIFESTS_PROPERTY) or "{}")
    except ValueError:
        return []
    return [{"manifest_sha256": str(manifests.get(f"{e['span']}/{e['version']}", "")), **e} for e in window]


def decisions_of(evaluation: pb.Artifact) -> dict[str, Any] | None:
    """Return what an evaluation measured and decided; from its file where an older release did not record it."""
    text = prop(evaluation, DECISIONS_PROPERTY)
    try:
        if text is None:
            text = (Path(evaluation.uri) / DECISIONS_FILE).read_text(encoding="utf-8")
        # None for a metric that is no number.
        report = json.loads(text, parse_constant=lambda _: None)
    except (OSError, ValueError):
        return None
    return report if isinstance(report, dict) else None


def decisions_about(lineage: Lineage, model_id: int, pushed: bool) -> dict[str, Any] | None:
    """Return what a model's newest evaluation decided; for a pushed model, the newest that blessed it."""
    found = lineage.evaluation(model_id, pushed)
    return decisions_of(found[0]) if found else None


def findings_of(outputs: Mapping[str, list[pb.Artifact]]) -> list[dict[str, Any]] | None:
    """Return what the data gate found, from the outputs of a stage; None if it left no report."""
    files = [Path(report.uri) / "report.json" for report in outputs.get("report", [])]
    if not files or not files[0].is_file():
        return None
    return list(json.loads(files[0].read_text(encoding="utf-8"))["findings"])


def baseline_of(lookup: pb.Execution) -> dict[str, Any]:
    """Return which model a lookup found, and how it was pushed; nothing if it found none, or if that is damaged."""
    try:
        return dict(json.loads(prop(lookup, "baseline") or "{}"))
    except ValueError:
        return {}


def source_of_model(lineage: Lineage, model_id: int) -> tuple[RunSource | None, tuple[str, ...]]:
    """Return what the run that trained a model was made of, and what is missing in its record."""
    trained = lineage.producer(model_id)
    run = lineage.run_of(trained.id) if trained else ""
    return source_of_run(lineage.store, run) if run else (None, ("the run that trained the model",))


def hyperparameters_of(lineage: Lineage, model_id: int) -> dict[str, Any]:
    """Return the settings that a search found for a model's training, by name; nothing where there was no search."""
    found = lineage.trained_on(model_id, "hyperparameters")
    return dict(json.loads(prop(found, HYPERPARAMETERS_PROPERTY) or "{}")) if found else {}


def evidence_of(lineage: Lineage, model_id: int, pushed: bool = True) -> dict[str, Any]:
    """Return what speaks for a model, as plain values; what cannot be found stands under "missing", in words.

    It depends on nothing but the model and its evaluation, so that it may be part of a cache key.
    """
    missing: list[str] = []
    model = next(iter(lineage.store.get_artifacts_by_id([model_id])), None)
    trained = lineage.producer(model_id)
    window = window_of(lineage.trained_on(model_id))
    if not window:
        missing.append("the data fingerprint")
    missing += [
        f"the manifest's SHA-256 of span {entry['span']} version {entry['version']}"
        for entry in window
        if not entry["manifest_sha256"]
    ]
    source, lacking = source_of_model(lineage, model_id)
    missing += lacking
    report = decisions_about(lineage, model_id, pushed)
    if report is None:
        missing.append("the gates' decisions and the metrics")
    return {
        "model": {
            "model_id": model_id,
            "trained_at": time_of(model.create_time_since_epoch).isoformat() if model else "",
            "run_id": lineage.run_of(trained.id) if trained else "",
            "runner": source.runner if source else "",
        },
        "data": window,
        "code": {key: value for key, value in asdict(source.code).items() if key != "files"} if source else None,
        "settings": source.settings if source else None,
        "hyperparameters": hyperparameters_of(lineage, model_id),
        "settings_sha256": source.settings_sha256 if source else "",
        "environment": source.environment if source else None,
        "schema_sha256": source.schema_sha256 if source else "",
        "seed": source.seed if source else None,
        "gates": {key: report.get(key) for key in GATES} if report else None,
        "metrics": report["candidate_metrics"] if report else None,
        "missing": missing,
    }
