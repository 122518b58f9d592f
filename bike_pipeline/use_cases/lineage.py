"""What ran, what was trained, where a model came from, which models saw some rows, what changed between two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from bike_pipeline.lineage.queries.comparison import Comparison
    from bike_pipeline.lineage.queries.impact import Impact
    from bike_pipeline.lineage.reports.lineage_report import LineageReport
    from bike_pipeline.lineage.store.entities import ModelRecord, RunRecord
    from bike_pipeline.settings import Settings

Form = Literal["json", "dot", "html", "card"]


def runs(settings: Settings, *, cluster: bool = False) -> list[RunRecord]:
    """Return every run, oldest first."""
    from bike_pipeline.use_cases.metadata import lineage_of

    return lineage_of(settings, cluster).runs()


def models(settings: Settings, *, cluster: bool = False) -> list[ModelRecord]:
    """Return every trained model, oldest first: its span, its metrics, whether it is blessed, what it serves as."""
    from bike_pipeline.model_registry import signing
    from bike_pipeline.use_cases.metadata import lineage_of

    signing.use(settings)
    return lineage_of(settings, cluster).models("" if cluster else settings.serving_path)


def lineage_report(
    settings: Settings, model: str | None = None, *, run_id: str | None = None, cluster: bool = False
) -> LineageReport:
    """Return the way from a model, or instead from a run, back to the rows and the code, with gates and metrics."""
    from bike_pipeline.lineage.queries.history import History
    from bike_pipeline.lineage.queries.model_lookup import find_model
    from bike_pipeline.lineage.reports.lineage_report import report_of_model, report_of_run
    from bike_pipeline.use_cases.metadata import lineage_of

    lineage = lineage_of(settings, cluster)
    if run_id is not None:
        return report_of_run(lineage, History(lineage), run_id, settings.store_uri)
    chosen = find_model(lineage, "" if cluster else settings.serving_path, model)
    return report_of_model(lineage, History(lineage), chosen, settings.store_uri)


def rendered(report: LineageReport, form: Form) -> str:
    """Return a report as a document: JSON, a graph for Graphviz, or one page (the lineage, or a model's card)."""
    match form:
        case "json":
            from bike_pipeline.lineage.reports.lineage_report import report_as_json

            return json.dumps(report_as_json(report), indent=2)
        case "dot":
            from bike_pipeline.lineage.queries.graph import as_dot

            return as_dot(report.graph, report.title).rstrip("\n")
        case "html":
            from bike_pipeline.lineage.reports.lineage_report import as_page

            return as_page(report).rstrip("\n")
        case "card":
            from bike_pipeline.lineage.reports.lineage_report import as_card

            return as_card(report).rstrip("\n")


def impact(settings: Settings, span: str, *, cluster: bool = False) -> Impact:
    """Return every model that saw the rows of "SPAN" or "SPAN/VERSION", as history too."""
    from bike_pipeline.lineage.queries.history import History
    from bike_pipeline.lineage.queries.impact import impact_of, parse_span
    from bike_pipeline.use_cases.metadata import lineage_of

    numbers = parse_span(span)
    lineage = lineage_of(settings, cluster)
    return impact_of(lineage, History(lineage), *numbers, settings.store_uri, "" if cluster else settings.serving_path)


def compare(settings: Settings, first: str, second: str) -> Comparison:
    """Return what changed from one model to another: data, schema, features, code, settings, metrics."""
    from bike_pipeline.lineage.queries import comparison
    from bike_pipeline.lineage.queries.history import History
    from bike_pipeline.lineage.queries.model_lookup import find_model
    from bike_pipeline.use_cases.metadata import lineage_of

    lineage = lineage_of(settings)
    before, after = (find_model(lineage, settings.serving_path, name).model_id for name in (first, second))
    return comparison.compare(lineage, History(lineage), before, after)


def explain_run(settings: Settings, run_id: str | None = None, output: Path | None = None) -> Path:
    """Write one HTML page that tells what a run did, and why; return the file.

    By default that is the newest run, and a file in <workspace>/reports.
    """
    from bike_pipeline.lineage.reports.run_page import as_page, explain
    from bike_pipeline.storage.atomic_files import replace_file
    from bike_pipeline.use_cases.metadata import lineage_of

    explanation = explain(lineage_of(settings), run_id, settings.store_uri)
    target = output or settings.workspace_path / "reports" / f"run-{explanation.run.run_id}.html"
    replace_file(target, as_page(explanation).encode())
    return target
