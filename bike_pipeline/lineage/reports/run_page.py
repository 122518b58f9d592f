"""A run explained as one HTML page that needs no network: why it ran, what each stage did, what was decided and why."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bike_pipeline import features
from bike_pipeline.errors import MetadataError
from bike_pipeline.lineage.queries.evidence import findings_of
from bike_pipeline.lineage.queries.feature_statistics import (
    Bucket,
    FeatureStatistics,
    read_statistics,
    shift,
    statistics_of,
)
from bike_pipeline.lineage.queries.history import History
from bike_pipeline.lineage.queries.run_changes import StageExplanation, baseline_examples, explain_stages, previous_run
from bike_pipeline.lineage.reports import model_card
from bike_pipeline.lineage.reports.graph import as_svg
from bike_pipeline.lineage.reports.lineage_report import ASKED_BY, LineageReport, report_of_run
from bike_pipeline.lineage.store.entities import RunRecord
from bike_pipeline.lineage.store.metadata_store import Lineage, prop
from bike_pipeline.pages import render
from bike_pipeline.stages import PARITY_PROPERTY

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
class RunExplanation:
    """All that the page holds.

    `trigger` says why the run took place; `findings` are the data gate's, None if it wrote no report. `now` are the
    statistics of its training rows by column, `before` those of the baseline's, empty if there was none. `exports` says
    what came of every format, `explanations` how much hangs on each input; None if the run did not come to them.
    """

    run: RunRecord
    trigger: str
    stages: list[StageExplanation]
    report: LineageReport
    findings: list[dict[str, Any]] | None
    now: dict[str, FeatureStatistics]
    before: dict[str, FeatureStatistics]
    exports: dict[str, Any] | None
    explanations: dict[str, Any] | None


def explain(lineage: Lineage, run_id: str | None, store_uri: str) -> RunExplanation:
    """Gather what is known of a run, or (None) of the newest; a MetadataError where there is none."""
    history = History(lineage)
    runs = history.runs()
    run = next((r for r in reversed(runs) if run_id in (None, r.run_id)), None)
    if run is None:
        what = f"there is no run '{run_id}'" if run_id else "there is no run yet"
        raise MetadataError(what, fix="`bike-pipeline runs` lists every run")
    earlier = previous_run(history, runs, run)
    report = report_of_run(history, run.run_id, store_uri, earlier.run_id if earlier else "")
    facts = dict(report.facts)
    findings, now, exports, card = None, {}, None, None
    for stage in run.stages:
        outputs = history.outputs(stage.execution_id)
        if "statistics" in outputs:
            now = read_statistics(outputs["statistics"][0].uri, "train")
        found = findings_of(outputs)
        findings = findings if found is None else found
        exports = next((prop(artifact, PARITY_PROPERTY) for artifact in outputs.get("exports", [])), exports)
        card = next((model_card.read(artifact.uri) for artifact in outputs.get("model_card", [])), card)
    return RunExplanation(
        run=run,
        trigger=facts.get(ASKED_BY) or _trigger(facts.get("called by", ""), facts.get("runner", "")),
        stages=explain_stages(history, run, earlier),
        report=report,
        findings=findings,
        now=now,
        before=statistics_of(history, baseline_examples(history, run), "train"),
        exports=json.loads(exports) if exports else None,
        explanations=card["explanations"] if card else None,
    )


def _trigger(command: str, runner: str) -> str:
    """Return why a run took place, to follow "because"."""
    on = f" (runner {runner})" if runner else ""
    if not command:
        return f"somebody or something began it, which the records do not name{on}"
    why = next((text for option, text in _DEMO.items() if option in command), "somebody asked for a run")
    return f"{why}: “{command}”{on}"


def as_page(explanation: RunExplanation) -> str:
    """Return the page."""
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
    answer = features.answer_measured(gates["candidate_metrics"][0] if gates["candidate_metrics"] else ())
    metric = answer.metrics[0]
    before = {(row["slicing"], row["slice"]): row[metric] for row in gates["baseline_metrics"]}
    too_much = {
        (d["slicing"], d["slice"])
        for d in gates["decisions"]
        if d["metric"] == metric and d["kind"] == "change" and not d["passed"]
    }
    intervals = {
        (d["slicing"], d["slice"]): d
        for d in gates["decisions"]
        if d["metric"] == metric and d["kind"] == "change" and d.get("low") is not None
    }
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(gates["candidate_metrics"], key=lambda row: float(row["slice"] or 0)):
        key, error = (row["slicing"], row["slice"]), before.get((row["slicing"], row["slice"]))
        change = (row[metric] - error) / error if error and row[metric] is not None else None
        name = f"{features.slice_name(*key)} ({int(row['rows'])})"
        line = {"name": name, "new": row[metric], "before": error, "change": change, "too_much": key in too_much}
        line["interval"] = intervals.get(key)
        groups.setdefault(row["slicing"], []).append(line)
    figures = [(title, groups[slicing]) for slicing, title in _SLICINGS.items() if slicing in groups]
    errors = [line[which] or 0.0 for _, lines in figures for line in lines for which in ("new", "before")]
    found = {"figures": figures, "largest": max(errors, default=0.0), "baseline": bool(before)}
    if metric == "mae":
        return {**found, "title": "MAE", "words": f"Mean absolute error in {answer.unit}", "form": ",.1f"}
    words = metric.replace("_", " ")
    return {**found, "title": words, "words": words.capitalize(), "form": ",.3f"}


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
