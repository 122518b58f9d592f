"""What is on record: runs, models, where a model came from, what changed; and what of it is sent on or freed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from bike_pipeline.lineage.queries.audit import Comparison, Impact
    from bike_pipeline.lineage.queries.garbage_collection import Payload
    from bike_pipeline.lineage.reports.lineage_report import LineageReport
    from bike_pipeline.lineage.store.entities import ModelRecord, RunRecord
    from bike_pipeline.lineage.store.metadata_store import Lineage
    from bike_pipeline.settings import Settings
    from bike_pipeline.tracking.mlflow_sender import Sent

Form = Literal["json", "dot", "html", "card"]


@dataclass(frozen=True)
class GarbageCollection:
    """What was freed, or with `dry_run` would be: every artifact with files, and why they are kept."""

    dry_run: bool
    freed_bytes: int
    artifacts: list[Payload]


@dataclass(frozen=True)
class Tracked:
    """A run that MLflow has, and what came of sending it."""

    run_id: str
    sent: Sent


def lineage_of(settings: Settings, cluster: bool = False) -> Lineage:
    """Open the metadata store: the workspace's, or that of `kubeflow.metadata`."""
    import logging

    from bike_pipeline.lineage.records.last_run import refuse_a_lost_store
    from bike_pipeline.lineage.store.connection import open_at
    from bike_pipeline.lineage.store.metadata_store import Lineage

    # MLMD says on every query that it falls back to plain SQL; that is its normal way of working.
    logging.getLogger("absl").setLevel(logging.ERROR)
    if not cluster:
        refuse_a_lost_store(settings)
    with _quiet():
        return Lineage(open_at(settings.kubeflow.metadata.address if cluster else settings.metadata_address))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what C++ code writes to standard error: an error is one line, and that is ours."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def runs(settings: Settings, *, cluster: bool = False) -> list[RunRecord]:
    """Return every run, oldest first."""
    return lineage_of(settings, cluster).runs()


def models(settings: Settings, *, cluster: bool = False) -> list[ModelRecord]:
    """Return every trained model, oldest first: its span, its metrics, whether it is blessed, what it serves as."""
    from bike_pipeline.model_registry import signing

    signing.use(settings)
    return lineage_of(settings, cluster).models("" if cluster else settings.serving_path)


def lineage_report(
    settings: Settings, model: str | None = None, *, run_id: str | None = None, cluster: bool = False
) -> LineageReport:
    """Return the way from a model, or instead from a run, back to the rows and the code, with gates and metrics."""
    from bike_pipeline.lineage.queries.history import History, find_model
    from bike_pipeline.lineage.reports.lineage_report import report_of_model, report_of_run

    history = History(lineage_of(settings, cluster))
    if run_id is not None:
        return report_of_run(history, run_id, settings.store_uri)
    chosen = find_model(history, "" if cluster else settings.serving_path, model)
    return report_of_model(history, chosen, settings.store_uri)


def rendered(report: LineageReport, form: Form) -> str:
    """Return a report as a document: JSON, a graph for Graphviz, or one page (the lineage, or a model's card)."""
    from bike_pipeline.lineage.reports.graph import as_dot
    from bike_pipeline.lineage.reports.lineage_report import as_card, as_page, report_as_json

    match form:
        case "json":
            return json.dumps(report_as_json(report), indent=2)
        case "dot":
            return as_dot(report.graph, report.title).rstrip("\n")
        case "html":
            return as_page(report).rstrip("\n")
        case "card":
            return as_card(report).rstrip("\n")


def impact(settings: Settings, span: str, *, cluster: bool = False) -> Impact:
    """Return every model that saw the rows of "SPAN" or "SPAN/VERSION", as history too."""
    from bike_pipeline.lineage.queries.audit import impact_of, parse_span
    from bike_pipeline.lineage.queries.history import History

    numbers = parse_span(span)
    history = History(lineage_of(settings, cluster))
    return impact_of(history, *numbers, settings.store_uri, "" if cluster else settings.serving_path)


def compare(settings: Settings, first: str, second: str) -> Comparison:
    """Return what changed from one model to another: data, schema, features, code, settings, metrics."""
    from bike_pipeline.lineage.queries import audit
    from bike_pipeline.lineage.queries.history import History, find_model

    history = History(lineage_of(settings))
    before, after = (find_model(history, settings.serving_path, name).model_id for name in (first, second))
    return audit.compare(history, before, after)


def explain_run(settings: Settings, run_id: str | None = None, output: Path | None = None) -> Path:
    """Write one HTML page that tells what a run did, and why; return the file.

    By default that is the newest run, and a file in <workspace>/reports.
    """
    from bike_pipeline.lineage.reports.run_page import as_page, explain
    from bike_pipeline.storage.atomic_files import replace_file

    explanation = explain(lineage_of(settings), run_id, settings.store_uri)
    target = output or settings.workspace_path / "reports" / f"run-{explanation.run.run_id}.html"
    replace_file(target, as_page(explanation).encode())
    return target


def track(settings: Settings, run_id: str | None = None) -> Tracked:
    """Send a run to MLflow; None is the newest that came to an evaluation. Errors as of `send_to_mlflow`."""
    from bike_pipeline.lineage.queries.tracking_payload import tracking_payload
    from bike_pipeline.tracking.hooks import send_to_mlflow

    found = tracking_payload(lineage_of(settings), run_id)
    return Tracked(found.run_id, send_to_mlflow(settings, found))


def collect_garbage(
    settings: Settings, *, keep_blessed: int = 3, keep_days: float = 30, dry_run: bool = False, wait: bool = False
) -> GarbageCollection:
    """Free the files of old artifacts; their records stay. Interrupted, the next call goes on.

    Args:
        settings: where artifacts, records and served models are.
        keep_blessed: keep the lineage of so many of the newest blessed models.
        keep_days: keep what was made, or read from the cache, in so many days.
        dry_run: free nothing.
        wait: wait for a run in this workspace instead of raising BusyError.
    """
    from bike_pipeline.lineage.queries import garbage_collection
    from bike_pipeline.lineage.queries.history import History
    from bike_pipeline.lineage.records.last_run import last_run
    from bike_pipeline.lineage.store.writing import close_interrupted
    from bike_pipeline.storage.locks import workspace_lock

    # A store that is not there must not make a workspace.
    lineage_of(settings)
    with workspace_lock(settings.workspace_path, wait):
        lineage = lineage_of(settings)
        if not dry_run:
            # The lock is ours: what a killed run left as running does not run any more.
            close_interrupted(lineage, last_run(settings.workspace_path))
        history = History(lineage)
        place, serving_path = settings.pipeline_root, settings.serving_path
        payloads = garbage_collection.plan(history, place, serving_path, keep_blessed, keep_days)
        if not dry_run:
            garbage_collection.collect(history, payloads)
    return GarbageCollection(dry_run, sum(payload.size for payload in payloads if payload.free), payloads)
