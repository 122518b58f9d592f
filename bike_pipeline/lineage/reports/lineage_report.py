"""What is known of one model or one run: `bike-pipeline lineage` in whatever form, and the page that explains a run."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any

from bike_pipeline import features
from bike_pipeline.errors import BikePipelineError, MetadataError
from bike_pipeline.lineage.queries.evidence import decisions_of, evidence_of, findings_of, window_of
from bike_pipeline.lineage.queries.feature_statistics import Bucket, read_statistics, shift, statistics_of
from bike_pipeline.lineage.queries.history import FoundModel, History
from bike_pipeline.lineage.queries.runs import (
    SettingChange,
    baseline_examples,
    explain_stages,
    previous_run,
    setting_changes,
)
from bike_pipeline.lineage.records.run_record import RunSource, source_of_run
from bike_pipeline.lineage.reports.graph import Graph, as_svg, graph_of
from bike_pipeline.lineage.store.metadata_store import Lineage, prop
from bike_pipeline.pages import render, utc
from bike_pipeline.stages import PARITY_PROPERTY, Stage

# What stands beside the commit where the code differed from it.
UNCOMMITTED = "with changes that were not committed"
_SLICINGS = {
    "overall": "Overall",
    "hour_band": "By hour of the day",
    "season": "By season",
    "weathersit": "By weather",
}
_DEMO = {
    "--demo first": "the first half of the embedded data, 2011, was brought in",
    "--demo second": "the second half of the embedded data, 2012, arrived",
}
# Of a histogram, in pixels.
_WIDTH, _HEIGHT = 180, 44
_THINNEST = 4.0


@dataclass(frozen=True)
class SpanFiles:
    """A span that was read, with the SHA-256 of its files by name and their source, both from the span store.

    `role` is "train, eval" or "history"; `manifest_sha256` is "" if it was not recorded; `problem` says why the files
    are not known.
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
    """All that is known of a model or a run: facts in the order in which they are shown, spans oldest first.

    `gates` and `metrics` are None if it was never evaluated; `settings` those that differ from the defaults or, of a
    run, from the run before; `missing` says in words what its record lacks.
    """

    title: str
    facts: list[tuple[str, str]]
    spans: list[SpanFiles]
    gates: dict[str, Any] | None
    metrics: list[dict[str, Any]] | None
    settings: list[SettingChange]
    graph: Graph
    missing: list[str]


def report_of_model(history: History, chosen: FoundModel, store_uri: str) -> LineageReport:
    """Return what is known of a model."""
    push = chosen.push
    evidence = evidence_of(history, chosen.model_id, pushed=push is not None)
    serving = history.serving_model(os.path.dirname(push.destination)) if push else None
    serves = serving is not None and serving.model_id == chosen.model_id
    source, _ = source_of_run(history.store, evidence["model"]["run_id"])
    facts = [("trained", utc(evidence["model"]["trained_at"])), ("run", evidence["model"]["run_id"])]
    if push:
        facts.insert(0, ("pushed", f"{utc(push.pushed_at)} to {push.destination}"))
    return LineageReport(
        title=f"model {chosen.model_id}"
        + (f", served as version {push.version}" if push else ", never pushed")
        + (" (serving now)" if serves else ""),
        facts=[*facts, *_source_facts(source)],
        spans=_spans(evidence["data"], store_uri),
        gates=evidence["gates"],
        metrics=evidence["metrics"],
        settings=setting_changes(source, None),
        graph=graph_of(history, _roots(history, chosen)),
        missing=evidence["missing"],
    )


def _roots(history: History, chosen: FoundModel) -> list[int]:
    """Return the newest push of a model, else its evaluation, else the model itself."""
    if chosen.push is not None:
        for execution in reversed(history.consumers(chosen.model_id, Stage.PUSHER)):
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
    for stage in run.stages:
        outputs = history.outputs(stage.execution_id)
        roots = [artifact.id for found in outputs.values() for artifact in found] or roots
        for examples in outputs.get("examples", []):
            window = window_of(examples)
        for evaluation in outputs.get("evaluation", []):
            gates = decisions_of(evaluation) or gates
    stages = ", ".join(f"{stage.name} {stage.state}" for stage in run.stages)
    return LineageReport(
        title=f"run {run_id}: {run.outcome or run.state}",
        facts=[("started", utc(run.started)), ("state", run.state), ("stages", stages), *_source_facts(source)],
        spans=_spans(window, store_uri),
        gates=gates,
        metrics=gates["candidate_metrics"] if gates else None,
        settings=setting_changes(source, source_of_run(history.store, run_before)[0] if run_before else None),
        graph=graph_of(history, roots),
        missing=list(missing),
    )


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
    """Return a model's card: what it is, its data, how good it is and where, its limits, what it is not for."""
    return render("model_card.html", title=f"Model card: {report.title}", it=report, inputs=features.MODEL_INPUTS)


def explain(lineage: Lineage, run_id: str | None, store_uri: str) -> SimpleNamespace:
    """Return all that the page of a run, or (None) of the newest, holds; a MetadataError where there is none.

    `trigger` says why the run took place; `findings` are the data gate's, None if it wrote no report. `now` are the
    statistics of its training rows by column, `before` those of the baseline's, empty if there was none. `exports` says
    what came of every format; None if the run did not come to them.
    """
    history = History(lineage)
    runs = history.runs()
    run = next((r for r in reversed(runs) if run_id in (None, r.run_id)), None)
    if run is None:
        what = f"there is no run '{run_id}'" if run_id else "there is no run yet"
        raise MetadataError(what, fix="`bike-pipeline runs` lists every run")
    earlier = previous_run(history, runs, run)
    report = report_of_run(history, run.run_id, store_uri, earlier.run_id if earlier else "")
    facts = dict(report.facts)
    findings, now, exports = None, {}, None
    for stage in run.stages:
        outputs = history.outputs(stage.execution_id)
        if "statistics" in outputs:
            now = read_statistics(outputs["statistics"][0].uri, "train")
        found = findings_of(outputs)
        findings = findings if found is None else found
        exports = next((prop(artifact, PARITY_PROPERTY) for artifact in outputs.get("exports", [])), exports)
    return SimpleNamespace(
        run=run,
        trigger=_trigger(facts.get("called by", ""), facts.get("runner", "")),
        stages=explain_stages(history, run, earlier),
        report=report,
        findings=findings,
        now=now,
        before=statistics_of(history, baseline_examples(history, run), "train"),
        exports=json.loads(exports) if exports else None,
    )


def _trigger(command: str, runner: str) -> str:
    """Return why a run took place, to follow "because"."""
    on = f" (runner {runner})" if runner else ""
    if not command:
        return f"somebody or something began it, which the records do not name{on}"
    why = next((text for option, text in _DEMO.items() if option in command), "somebody asked for a run")
    return f"{why}: “{command}”{on}"


def as_run_page(explanation: SimpleNamespace) -> str:
    """Return what `explain` found as one HTML page that needs no network."""
    columns = []
    for feature in features.FEATURES:
        now, before = explanation.now.get(feature.name), explanation.before.get(feature.name)
        if feature.role != "key" and now is not None:
            picture = histograms(now.buckets, before.buckets if before else ())
            shown = {"feature": feature, "now": now, "before": before, "shift": shift(now, before), "picture": picture}
            columns.append(shown)
    return render(
        "run.html",
        title=f"Run {explanation.run.run_id}",
        it=explanation,
        comparison=_comparison(explanation.report.gates),
        columns=columns,
        drawing=as_svg(explanation.report.graph),
    )


def _comparison(gates: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the errors by slice, all on one scale."""
    if gates is None:
        return None
    before = {(row["slicing"], row["slice"]): row["mae"] for row in gates["baseline_metrics"]}
    too_much = {
        (d["slicing"], d["slice"])
        for d in gates["decisions"]
        if d["metric"] == "mae" and d["kind"] == "change" and not d["passed"]
    }
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(gates["candidate_metrics"], key=lambda row: float(row["slice"] or 0)):
        key, error = (row["slicing"], row["slice"]), before.get((row["slicing"], row["slice"]))
        change = (row["mae"] - error) / error if error and row["mae"] is not None else None
        name = f"{features.slice_name(*key)} ({int(row['rows'])})"
        line = {"name": name, "new": row["mae"], "before": error, "change": change, "too_much": key in too_much}
        groups.setdefault(row["slicing"], []).append(line)
    figures = [(title, groups[slicing]) for slicing, title in _SLICINGS.items() if slicing in groups]
    errors = [line[which] or 0.0 for _, lines in figures for line in lines for which in ("new", "before")]
    return {"figures": figures, "largest": max(errors, default=0.0), "baseline": bool(before)}


def histograms(now: Sequence[Bucket], before: Sequence[Bucket]) -> dict[str, Any]:
    """Return two lists of buckets (from, to, rows) as shares of their rows over each other, on one scale, in pixels.

    `filled` has x, y, width and height of the bars of now, `outline` the path of the line of before ("" for none).
    """
    both = [*now, *before]
    low, high = min((b[0] for b in both), default=0.0), max((b[1] for b in both), default=1.0)
    scale = _WIDTH / ((high - low) or 1.0)

    def placed(buckets: Sequence[Bucket]) -> list[Bucket]:
        rows = sum(b[2] for b in buckets) or 1.0
        found = []
        for first, last, count in buckets:
            # A column with one value has a bucket without any width, which is to be seen all the same.
            begin = min((first - low) * scale, _WIDTH - _THINNEST)
            end = max((last - low) * scale, begin + _THINNEST)
            # As density, so that buckets of different widths compare.
            found.append((begin, end, count / rows / (((last - first) * scale) or 1.0)))
        return found

    filled, line = placed(now), placed(before)
    tall = (_HEIGHT - 2) / (max((share for *_, share in (*filled, *line)), default=1.0) or 1.0)
    bars = [
        (f"{x1:.1f}", f"{_HEIGHT - tall * y:.1f}", f"{max(1.0, x2 - x1 - 1):.1f}", f"{tall * y:.1f}")
        for x1, x2, y in filled
    ]
    steps = " ".join(f"L{x1:.1f},{_HEIGHT - tall * y:.1f} L{x2:.1f},{_HEIGHT - tall * y:.1f}" for x1, x2, y in line)
    ends = (f"M{line[0][0]:.1f},{_HEIGHT}", f"L{line[-1][1]:.1f},{_HEIGHT}") if line else ("", "")
    outline = f"{ends[0]} {steps} {ends[1]}".strip()
    return {"filled": bars, "outline": outline, "width": _WIDTH, "height": _HEIGHT}
