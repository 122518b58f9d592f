"""A run explained as one HTML page that needs no network: why it ran, what each stage did, what was decided and why."""

from __future__ import annotations

import json
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from bike_pipeline import features
from bike_pipeline.errors import MetadataError
from bike_pipeline.lineage.queries import run_changes
from bike_pipeline.lineage.queries.exports import exports_of_run, exports_section
from bike_pipeline.lineage.queries.feature_statistics import FeatureStatistics, read_statistics, shift
from bike_pipeline.lineage.queries.history import History
from bike_pipeline.lineage.reports.charts import paired_bars, two_histograms
from bike_pipeline.lineage.reports.graph_svg import as_svg
from bike_pipeline.lineage.reports.lineage_report import Report, report_of_run
from bike_pipeline.lineage.reports.page import STYLE
from bike_pipeline.lineage.store.entities import RunRecord
from bike_pipeline.lineage.store.metadata_store import Lineage

_STYLE = """
.scroll { overflow-x: auto; } .scroll td:first-child { white-space: normal; max-width: 15rem; }
.scroll th, .scroll td { padding-right: .5rem; } td.number { white-space: nowrap; }
.lead { font-size: 1.05rem; max-width: 60rem; } .verdict { font-weight: 600; }
.bars { max-width: 100%; height: auto; } .bars text.label { text-anchor: end; }
.bars text.value { text-anchor: start; font-size: 11px; font-variant-numeric: tabular-nums; }
svg .candidate { fill: #2f6fbf; stroke: none; } svg .baseline { fill: #b8bec6; stroke: none; }
.before { fill: none; stroke: #c2571a; stroke-width: 1.5; } .key { display: inline-block; width: .8em; height: .8em; }
.columns { display: flex; flex-wrap: wrap; gap: 1rem 3rem; } .columns figure { margin: 0; }
figcaption { font-weight: 600; margin-bottom: .25rem; }
.scroll th:nth-child(n+3) { text-align: right; } .scroll td { white-space: nowrap; } .scroll svg { display: block; }
.note { color: color-mix(in srgb, var(--ink) 65%, transparent); }
"""
_SLICINGS = (("hour_band", "By hour of the day"), ("season", "By season"), ("weathersit", "By weather"))
# From so many standard deviations on, a column's mean is said to have moved.
_MOVED = 0.5


@dataclass(frozen=True)
class Explanation:
    """All that the page tells.

    Attributes:
        run: the run.
        trigger: why it ran.
        stages: every stage's story.
        report: its facts, gates, metrics and lineage.
        findings: what the data gate found, a dictionary each; None where it wrote no report.
        now: statistics of the run's training rows by column.
        before: those of the rows that the baseline was trained on; empty where there was none.
        exports: what came of every format; None where the run did not come to them.
    """

    run: RunRecord
    trigger: str
    stages: list[run_changes.StageStory]
    report: Report
    findings: list[dict[str, Any]] | None
    now: dict[str, FeatureStatistics]
    before: dict[str, FeatureStatistics]
    exports: dict[str, Any] | None


def explain(lineage: Lineage, run_id: str | None, store_uri: str) -> Explanation:
    """Gather what is known of a run.

    Args:
        lineage: the metadata store.
        run_id: the run; None for the newest.
        store_uri: folder or URL of the span store.

    Raises:
        MetadataError: there is no such run.
    """
    runs = lineage.runs()
    run = next((r for r in reversed(runs) if run_id in (None, r.run_id)), None)
    if run is None:
        what = f"there is no run '{run_id}'" if run_id else "there is no run yet"
        raise MetadataError(what, fix="`bike-pipeline runs` lists every run")
    report = report_of_run(lineage, History(lineage), run.run_id, store_uri)
    stories = run_changes.stage_stories(lineage, run, run_changes.run_before(lineage, runs, run))
    facts = dict(report.facts)
    trigger = _trigger(facts.get("called by", ""), facts.get("runner", ""))
    findings, now = None, {}
    for stage in run.stages:
        outputs = lineage.outputs(stage.execution_id)
        if "statistics" in outputs:
            now = read_statistics(outputs["statistics"][0].uri, "train")
        path = Path(outputs["report"][0].uri) / "report.json" if "report" in outputs else None
        if path is not None and path.is_file():
            findings = json.loads(path.read_text(encoding="utf-8"))["findings"]
    examples = run_changes.baseline_examples(lineage, run)
    statistics = run_changes.statistics_of(lineage, examples) if examples is not None else None
    before = read_statistics(statistics.uri, "train") if statistics is not None else {}
    exports = exports_of_run(lineage, [stage.execution_id for stage in run.stages])
    return Explanation(run, trigger, stories, report, findings, now, before, exports)


def _trigger(command: str, runner: str) -> str:
    """Return why a run took place, to follow "because"."""
    on = f" (runner {runner})" if runner else ""
    if not command:
        return f"somebody or something began it, which the records do not name{on}"
    halves = {"--demo first": "the first half of the embedded data, 2011, was brought in",
              "--demo second": "the second half of the embedded data, 2012, arrived"}  # fmt: skip
    why = next((text for option, text in halves.items() if option in command), "somebody asked for a run")
    return f"{why}: “{command}”{on}"


def as_page(told: Explanation) -> str:
    """Return the page."""
    title = f"Run {told.run.run_id}"
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{STYLE}{_STYLE}</style></head><body>",
            f"<h1>{escape(title)}</h1>",
            *_summary(told),
            "<h2>Why each stage ran</h2>",
            _stages(told.stages),
            "<h2>The gates, and their reasons</h2>",
            *_gates(told),
            "<h2>The new model against the one that served</h2>",
            *_comparison(told),
            "<h2>The model in other formats</h2>",
            *exports_section(told.exports),
            "<h2>The data, and how they moved</h2>",
            *_data(told),
            "<h2>What it was made of</h2>",
            _table(("what", "value"), [[_td(name), _td(value)] for name, value in told.report.facts]),
            "<h2>From the rows to the model</h2>",
            "<p>Data flow from top to bottom. Point at a box to read more.</p>",
            f'<div class="wide">{as_svg(told.report.graph)}</div>',
            "</body></html>\n",
        ]
    )


def _td(text: str, kind: str = "") -> str:
    return f'<td class="{kind}">{escape(text)}</td>' if kind else f"<td>{escape(text)}</td>"


def _table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    heads = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"


def _summary(told: Explanation) -> list[str]:
    run = told.run
    data = f"span {run.span} version {run.version} of the data" if run.span else "no data yet"
    ran = sum(stage.state == "done" for stage in run.stages)
    cached = sum(stage.state == "cached" for stage in run.stages)
    good = run.outcome.startswith(("pushed", "nothing new"))
    return [
        (
            '<p class="lead">bike_pipeline learns how many bikes are rented in each hour, checks each new model '
            "against the one that serves, and replaces it only where the new one is good enough. This page tells "
            "what one run did.</p>"
        ),
        f'<p class="verdict {"good" if good else "bad"}">{escape(run.outcome or run.state)}</p>',
        (
            f"<p>It began on {run.started:%Y-%m-%d at %H:%M:%S} UTC because {escape(told.trigger)}, and read {data}. "
            f"{ran} stages ran, {cached} were answered from earlier runs.</p>"
        ),
    ]


def _stages(stories: list[run_changes.StageStory]) -> str:
    kinds = {"done": "good", "failed": "bad", "interrupted": "bad"}
    rows = [
        [
            _td(story.name),
            _td(story.state, kinds.get(story.state, "")),
            _td(f"{story.seconds:.1f}", "number"),
            _td(f"{story.why}. {story.error}" if story.error else story.why),
        ]
        for story in stories
    ]
    return _table(("stage", "state", "seconds", "why"), rows)


def _gates(told: Explanation) -> list[str]:
    parts = ["<p>The data gate looks at the rows before anything is learnt from them.</p>"]
    if told.findings is None:
        parts.append('<p class="missing">It wrote no report: the run did not come to it, or the data were refused.</p>')
    elif told.findings:
        heads = ("severity", "column", "found in", "reason")
        rows = [
            [_td(f["severity"], "bad" if f["severity"] == "error" else ""), _td(f["feature"] or "-"), _td(f["split"]),
             _td(f["reason"])]
            for f in told.findings
        ]  # fmt: skip
        parts.append(_table(heads, rows))
    else:
        parts.append("<p>It found nothing to object to.</p>")
    gates = told.report.gates
    if gates is None:
        return [*parts, '<p class="missing">No model was evaluated in this run.</p>']
    parts.append(
        "<p>The model's gates: errors are in rentals an hour, on days that the model never saw. Every one that binds "
        "must pass.</p>"
    )
    rows = [
        [_td("passed" if d["passed"] else ("failed" if d["binding"] else "reported only"),
             "good" if d["passed"] else ("bad" if d["binding"] else "")), _td(d["reason"])]
        for d in sorted(gates["decisions"], key=lambda d: d["passed"])
    ]  # fmt: skip
    return [*parts, _table(("", "gate and reason"), rows)]


def _comparison(told: Explanation) -> list[str]:
    gates = told.report.gates
    if gates is None:
        return ["<p>There is nothing to compare.</p>"]
    before = {(row["slicing"], row["slice"]): row for row in gates["baseline_metrics"]}
    reason = gates["baseline"]["reason"]
    parts = [
        (
            "<p>Mean absolute error in rentals an hour, on the same rows: shorter is better. "
            f"Baseline: {escape(reason)}.</p>"
        )
    ]
    parts.append(
        '<p><span class="key" style="background:#2f6fbf"></span> new model '
        + ('<span class="key" style="background:#b8bec6"></span> the one that served' if before else "")
        + "</p>"
    )
    figures = []
    for slicing, caption in (("overall", "Overall"), *_SLICINGS):
        chosen = [row for row in gates["candidate_metrics"] if row["slicing"] == slicing]
        chosen.sort(key=lambda row: float(row["slice"] or 0))
        bars = [
            (
                f"{features.slice_name(slicing, row['slice'])} ({int(row['rows'])})",
                row["mae"],
                before[slicing, row["slice"]]["mae"] if (slicing, row["slice"]) in before else None,
            )
            for row in chosen
        ]
        figures.append(
            f"<figure><figcaption>{caption}</figcaption>{paired_bars(bars, f'MAE, {caption.lower()}')}</figure>"
        )
    parts.append(f'<div class="columns">{"".join(figures)}</div>')
    parts.append('<p class="note">In brackets: the number of hours in the slice.</p>')
    return parts


def _shift(now: FeatureStatistics, before: FeatureStatistics | None) -> str:
    if before is None:
        return _td("-", "number")
    if not before.std:
        return _td("0" if now.mean == before.mean else "one value before", "number")
    moved = shift(now, before)
    # Without the addition a tiny negative number would read "-0.00".
    return _td(f"{round(moved, 2) + 0.0:+.2f} sd", "number bad" if abs(moved) >= _MOVED else "number")


def _data(told: Explanation) -> list[str]:
    if not told.now:
        return ['<p class="missing">The statistics of this run are not there.</p>']
    compared = (
        "filled: this run's training rows; line: those that the baseline was trained on"
        if told.before
        else "filled: this run's training rows; there was no baseline to compare with"
    )
    rows = []
    for feature in features.FEATURES:
        now = told.now.get(feature.name)
        if now is None or feature.role == "key":
            continue
        before = told.before.get(feature.name)
        picture = two_histograms(now.buckets, before.buckets if before else (), f"distribution of {feature.name}")
        rows.append(
            [
                (
                    f"<td><strong>{escape(feature.name)}</strong><br>"
                    f'<span class="note">{escape(feature.meaning)}</span></td>'
                ),
                f"<td>{picture}</td>",
                *(_td(f"{value:.4g}", "number") for value in (now.mean, now.std, now.low, now.median, now.high)),
                _td(str(now.missing), "number"),
                _td(f"{before.mean:.4g}" if before else "-", "number"),
                _shift(now, before),
            ]
        )
    heads = ("column", "distribution", "mean", "std", "min", "median", "max", "missing", "mean before", "shift")
    return [
        (
            f"<p>Distributions: {compared}. Shift: how far the mean moved, in standard deviations of before; from "
            f"{_MOVED} on it is marked.</p>"
        ),
        f'<div class="scroll">{_table(heads, rows)}</div>',
    ]
