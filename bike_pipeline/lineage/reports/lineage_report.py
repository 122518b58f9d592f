"""What is known of one model or one run: the answer of `bike-pipeline lineage`, in whatever form it is shown."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bike_pipeline import features
from bike_pipeline.errors import BikePipelineError, MetadataError
from bike_pipeline.lineage.queries.evidence import decisions_of, evaluation_of, evidence_of, window_of
from bike_pipeline.lineage.queries.graph import Graph, as_json, graph_of
from bike_pipeline.lineage.queries.history import History
from bike_pipeline.lineage.queries.run_changes import SettingChange, setting_changes
from bike_pipeline.lineage.records.run_record import RunSource, source_of_run
from bike_pipeline.lineage.reports.graph_svg import as_svg
from bike_pipeline.lineage.store.entities import RunRecord, utc_text
from bike_pipeline.lineage.store.metadata_store import Lineage, prop
from bike_pipeline.pages import render
from bike_pipeline.stages import Stage

if TYPE_CHECKING:
    from bike_pipeline.lineage.queries.model_lookup import FoundModel

# What stands beside the commit where the code differed from it.
UNCOMMITTED = "with changes that were not committed"


@dataclass(frozen=True)
class SpanFiles:
    """A span that was read.

    Attributes:
        role: "train, eval" or "history".
        manifest_sha256: "" if it was not recorded.
        files: SHA-256 by name, from the span store, as `source`.
        problem: why the files are not known; "" if they are.
    """

    span: int
    version: int
    role: str
    content_sha256: str
    manifest_sha256: str
    files: dict[str, str]
    source: str
    problem: str


@dataclass(frozen=True)
class LineageReport:
    """All that is known of a model or a run.

    Attributes:
        facts: name and value of everything recorded about it, in the order in which it is shown.
        spans: the data it was made of, oldest first.
        gates: the evaluation's decisions; None if it was never evaluated.
        metrics: the candidate's metrics, a dictionary a slice; None if it was never evaluated.
        settings: those that differ from the defaults or, of a run, from the run before.
        missing: what its record lacks, in words.
    """

    title: str
    facts: list[tuple[str, str]]
    spans: list[SpanFiles]
    gates: dict[str, Any] | None
    metrics: list[dict[str, Any]] | None
    settings: list[SettingChange]
    graph: Graph
    missing: list[str]


def report_of_model(lineage: Lineage, history: History, chosen: FoundModel, store_uri: str) -> LineageReport:
    """Return what is known of a model."""
    push = chosen.push
    evidence = evidence_of(lineage, chosen.model_id, pushed=push is not None)
    serving = lineage.serving_model(os.path.dirname(push.destination)) if push else None
    serves = push is not None and serving is not None and serving.model_id == chosen.model_id
    source, _ = source_of_run(lineage.store, evidence["model"]["run_id"])
    facts = [("trained", utc_text(evidence["model"]["trained_at"])), ("run", evidence["model"]["run_id"])]
    if push:
        facts.insert(0, ("pushed", f"{push.pushed_at:%Y-%m-%d %H:%M:%S} UTC to {push.destination}"))
    return LineageReport(
        title=f"model {chosen.model_id}"
        + (f", served as version {push.version}" if push else ", never pushed")
        + (" (serving now)" if serves else ""),
        facts=[*facts, *_source_facts(source)],
        spans=_spans(evidence["data"], store_uri),
        gates=evidence["gates"],
        metrics=evidence["metrics"],
        settings=setting_changes(source, None),
        graph=graph_of(lineage, history, _roots(lineage, history, chosen)),
        missing=evidence["missing"],
    )


def _roots(lineage: Lineage, history: History, chosen: FoundModel) -> list[int]:
    """Return the newest push of a model, else its evaluation, else the model itself."""
    if chosen.push is not None:
        for execution in reversed(history.readers(chosen.model_id, Stage.PUSHER)):
            for _, artifact_id in history.outputs(execution):
                if prop(history.artifacts[artifact_id], "pushed_version") == str(chosen.push.version):
                    return [artifact_id]
    evaluation = evaluation_of(lineage, chosen.model_id, pushed=False)
    return [chosen.model_id, *([evaluation.id] if evaluation else [])]


def report_of_run(
    lineage: Lineage, history: History, run_id: str, store_uri: str, run_before: str = ""
) -> LineageReport:
    """Return what is known of a run, from whatever it came to; `run_before` is what its settings are compared with.

    Raises:
        MetadataError: there is no such run.
    """
    run = next((found for found in lineage.runs() if found.run_id == run_id), None)
    if run is None:
        raise MetadataError(f"there is no run '{run_id}'", fix="`bike-pipeline runs` lists every run")
    source, missing = source_of_run(lineage.store, run_id)
    last = next((stage for stage in reversed(run.stages) if history.outputs(stage.execution_id)), None)
    roots = [i for _, i in history.outputs(last.execution_id)] if last else []
    window: list[dict[str, Any]] = []
    gates, metrics = None, None
    for stage in run.stages:
        outputs = dict(history.outputs(stage.execution_id))
        if "examples" in outputs:
            window = window_of(history.artifacts[outputs["examples"]])
        if "evaluation" in outputs:
            report = decisions_of(history.artifacts[outputs["evaluation"]])
            if report is not None:
                gates, metrics = report, report["candidate_metrics"]
    return LineageReport(
        title=f"run {run_id}: {run.outcome or run.state}",
        facts=[*_run_facts(run), *_source_facts(source)],
        spans=_spans(window, store_uri),
        gates=gates,
        metrics=metrics,
        settings=setting_changes(source, source_of_run(lineage.store, run_before)[0] if run_before else None),
        graph=graph_of(lineage, history, roots),
        missing=list(missing),
    )


def _run_facts(run: RunRecord) -> list[tuple[str, str]]:
    stages = ", ".join(f"{stage.name} {stage.state}" for stage in run.stages)
    return [("started", f"{run.started:%Y-%m-%d %H:%M:%S} UTC"), ("state", run.state), ("stages", stages)]


def _source_facts(source: RunSource | None) -> list[tuple[str, str]]:
    if source is None:
        return []
    code = source.code
    commit = code.commit or "not known"
    unknown = ", whether it was changed is not known" if code.commit else ""
    dirty = {True: f", {UNCOMMITTED}", False: ", unchanged", None: unknown}[code.dirty]
    packages = ", ".join(f"{name} {version}" for name, version in source.environment.items() if version)
    return [
        *([("called by", source.command)] if source.command else []),
        ("runner", source.runner),
        ("code", f"bike_pipeline {code.version}, commit {commit}{dirty}"),
        ("source", f"sha256 {code.source_sha256} ({len(code.files)} files)"),
        ("settings", f"sha256 {source.settings_sha256}"),
        ("schema", f"sha256 {source.schema_sha256}"),
        ("seed", str(source.seed)),
        ("environment", packages),
    ]


def _spans(window: list[dict[str, Any]], store_uri: str) -> list[SpanFiles]:
    found = []
    for number, entry in enumerate(window, 1):
        role = "train, eval" if number == len(window) else "history"
        content, manifest = str(entry["content_sha256"]), str(entry["manifest_sha256"])
        stored = _stored(entry, store_uri)
        found.append(SpanFiles(int(entry["span"]), int(entry["version"]), role, content, manifest, *stored))
    return found


def _stored(entry: dict[str, Any], store_uri: str) -> tuple[dict[str, str], str, str]:
    """Return files and source of a span version from the span store, or why they are not known."""
    from bike_pipeline.data.spans import SpanStore

    try:
        stored = SpanStore(store_uri).get(int(entry["span"]), int(entry["version"]))
    except (BikePipelineError, OSError) as error:
        return {}, "", f"the span store does not tell: {error}"
    expected = entry["manifest_sha256"]
    if expected and stored.manifest_sha256 != expected:
        return {}, "", f"the store at {store_uri} holds another manifest (sha256 {stored.manifest_sha256[:16]}…)"
    if stored.manifest.content_sha256 != entry["content_sha256"]:
        return {}, "", f"the store at {store_uri} holds other rows under this number"
    files = {name: record.sha256 for name, record in stored.manifest.files.items()}
    return files, f"{stored.manifest.source.kind} {stored.manifest.source.location}", ""


def report_as_json(report: LineageReport) -> dict[str, Any]:
    """Return a report as plain values."""
    return {
        **vars(report),
        "spans": [vars(span) for span in report.spans],
        "settings": [vars(setting) for setting in report.settings],
        "graph": as_json(report.graph),
    }


def as_page(report: LineageReport) -> str:
    """Return a report as one HTML page that needs no network."""
    return render("lineage.html", title=f"Lineage of {report.title}", it=report, drawing=as_svg(report.graph))


def as_card(report: LineageReport) -> str:
    """Return a model's card: what it is, its data, how good it is and where, its limits, what it is not for."""
    return render("model_card.html", title=f"Model card: {report.title}", it=report, inputs=features.MODEL_INPUTS)
