"""What is known of one model or one run: the answer of `bike-pipeline lineage`, in whatever form it is shown."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

from bike_pipeline.errors import MetadataError
from bike_pipeline.lineage.queries import model_facts
from bike_pipeline.lineage.queries.evidence import decisions_of, evidence_of, window_of
from bike_pipeline.lineage.queries.history import History
from bike_pipeline.lineage.queries.model_facts import SpanFiles, spans_of
from bike_pipeline.lineage.queries.model_lookup import FoundModel
from bike_pipeline.lineage.queries.run_changes import SettingChange, setting_changes
from bike_pipeline.lineage.records.run_record import source_of_run
from bike_pipeline.lineage.reports import model_card
from bike_pipeline.lineage.reports.graph import Graph, as_svg, graph_of
from bike_pipeline.lineage.store.metadata_store import prop
from bike_pipeline.lineage.store.monitor_looks import looks_at
from bike_pipeline.lineage.store.retraining_runs import cause_of
from bike_pipeline.pages import render, utc
from bike_pipeline.stages import FEEDBACK_UPDATE, Stage

# The fact that names the triggers of a run.
ASKED_BY = "asked for by"


@dataclass(frozen=True)
class LineageReport:
    """All that is known of a model or a run: facts in the order in which they are shown, spans oldest first.

    `gates` and `metrics` are None if it was never evaluated; `settings` those that differ from the defaults or, of a
    run, from the run before; `missing` says in words what its record lacks; `measurements` are what the stage
    ModelCard measured of a model (see `model_card.with_measurements`), None if it did not.
    """

    title: str
    facts: list[tuple[str, str]]
    spans: list[SpanFiles]
    gates: dict[str, Any] | None
    metrics: list[dict[str, Any]] | None
    settings: list[SettingChange]
    graph: Graph
    missing: list[str]
    measurements: dict[str, Any] | None = None


def report_of_model(history: History, chosen: FoundModel, store_uri: str) -> LineageReport:
    """Return what is known of a model."""
    push = chosen.push
    evidence = evidence_of(history, chosen.model_id, pushed=push is not None)
    serving = history.serving_model(os.path.dirname(push.destination)) if push else None
    serves = serving is not None and push is not None and serving.version == push.version
    source, _ = source_of_run(history.store, evidence["model"]["run_id"])
    facts = model_facts.training_facts(evidence)
    if cause := cause_of(history, evidence["model"]["run_id"]):
        facts.append((ASKED_BY, cause))
    if push:
        facts.insert(0, ("pushed", f"{utc(push.pushed_at)} to {push.destination}"))
        facts[1:1] = [
            *model_facts.feedback_facts([push]),
            *model_facts.monitor_facts(looks_at(history, push.destination)),
        ]
    return LineageReport(
        title=f"model {chosen.model_id}"
        + (f", served as version {push.version}" if push else ", never pushed")
        + (" (serving now)" if serves else ""),
        facts=[*facts, *model_facts.source_facts(source)],
        spans=spans_of(evidence["data"], store_uri),
        gates=evidence["gates"],
        metrics=evidence["metrics"],
        settings=setting_changes(source, None),
        graph=graph_of(history, _roots(history, chosen)),
        missing=evidence["missing"],
        measurements=model_card.measurements_of(history, chosen.model_id),
    )


def _roots(history: History, chosen: FoundModel) -> list[int]:
    """Return the newest push of a model, else its evaluation, else the model itself."""
    if chosen.push is not None:
        for execution in reversed(history.consumers(chosen.model_id, Stage.PUSHER, FEEDBACK_UPDATE)):
            for pushed in history.outputs(execution.id).get("pushed_model", []):
                if prop(pushed, "pushed_version") == str(chosen.push.version):
                    return [pushed.id]
    evaluation = history.evaluation(chosen.model_id, pushed=False)
    return [chosen.model_id, *([evaluation[0].id] if evaluation else [])]


def report_of_run(history: History, run_id: str, store_uri: str, run_before: str = "") -> LineageReport:
    """Return what is known of a run, from whatever it came to; `run_before` is what its settings are compared with.

    A run that is not there is a MetadataError.
    """
    run = next((found for found in history.runs() if found.run_id == run_id), None)
    if run is None:
        raise MetadataError(f"there is no run '{run_id}'", fix="`bike-pipeline runs` lists every run")
    source, missing = source_of_run(history.store, run_id)
    roots: list[int] = []
    window: list[dict[str, Any]] = []
    gates = None
    models: set[int] = set()
    for stage in run.stages:
        outputs = history.outputs(stage.execution_id)
        roots = [artifact.id for found in outputs.values() for artifact in found] or roots
        for examples in outputs.get("examples", []):
            window = window_of(examples)
        models |= {model.id for model in outputs.get("model", [])}
        for evaluation in outputs.get("evaluation", []):
            gates = decisions_of(evaluation) or gates
    updates = model_facts.feedback_facts(push for push in history.pushes() if push.model_id in models)
    stages = ", ".join(f"{stage.name} {stage.state}" for stage in run.stages)
    cause = cause_of(history, run_id)
    return LineageReport(
        title=f"run {run_id}: {run.outcome or run.state}",
        facts=[
            *([(ASKED_BY, cause)] if cause else []),
            ("started", utc(run.started)),
            ("state", run.state),
            ("stages", stages),
            *updates,
            *model_facts.source_facts(source),
        ],
        spans=spans_of(window, store_uri),
        gates=gates,
        metrics=gates["candidate_metrics"] if gates else None,
        settings=setting_changes(source, source_of_run(history.store, run_before)[0] if run_before else None),
        graph=graph_of(history, roots),
        missing=list(missing),
    )


def report_as_json(report: LineageReport) -> dict[str, Any]:
    """Return a report as plain values."""
    return {
        **asdict(report),
        "graph": {
            "roots": report.graph.roots,
            "nodes": [vars(node) for node in report.graph.nodes.values()],
            "edges": [vars(edge) for edge in report.graph.edges],
        },
    }


def as_page(report: LineageReport) -> str:
    """Return a report as one HTML page that needs no network."""
    return render("lineage.html", title=f"Lineage of {report.title}", it=report, drawing=as_svg(report.graph))


def as_card(report: LineageReport) -> str:
    """Return a model's card as one HTML page; see `model_card`."""
    card = {name: value for name, value in asdict(report).items() if name not in ("graph", "measurements")}
    return model_card.as_html(model_card.with_measurements(model_card.card_of(card), report.measurements))
