"""What is on record: runs, models and where they came from; what of it is sent on or freed; the model that serves."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bike_pipeline import features
from bike_pipeline.errors import MetadataError
from bike_pipeline.log_capture import diverted

if TYPE_CHECKING:
    import pandas as pd

    from bike_pipeline.data.spans import SpanStore
    from bike_pipeline.lineage.queries.audit import Comparison, Impact
    from bike_pipeline.lineage.queries.garbage_collection import Payload
    from bike_pipeline.lineage.queries.history import History
    from bike_pipeline.lineage.queries.model_lookup import FoundModel
    from bike_pipeline.lineage.reports.lineage_report import LineageReport
    from bike_pipeline.lineage.store.entities import ModelRecord, PushedModel, RunRecord
    from bike_pipeline.lineage.store.metadata_store import Lineage
    from bike_pipeline.serving.predictor import Predictor
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
    # Nor what its C++ code writes to standard error: an error is one line, and that is ours.
    with open(os.devnull, "wb") as nowhere, diverted(nowhere.fileno(), 2):
        return Lineage(open_at(settings.kubeflow.metadata.address if cluster else settings.metadata_address))


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
    from bike_pipeline.lineage.queries.history import History
    from bike_pipeline.lineage.queries.model_lookup import find_model
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

    if form == "json":
        return json.dumps(report_as_json(report), indent=2)
    if form == "dot":
        return as_dot(report.graph, report.title).rstrip("\n")
    return (as_page(report) if form == "html" else as_card(report)).rstrip("\n")


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
    from bike_pipeline.lineage.queries.history import History
    from bike_pipeline.lineage.queries.model_lookup import find_model

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

    Kept are the lineage of the newest `keep_blessed` blessed models, and what was made, or read from the cache, in
    `keep_days` days. With `dry_run`, nothing is freed. A run here is a BusyError, or with `wait` waited for.
    """
    from bike_pipeline.lineage.queries import garbage_collection
    from bike_pipeline.lineage.queries.history import History
    from bike_pipeline.lineage.records.last_run import last_run
    from bike_pipeline.lineage.store.writing import close_interrupted
    from bike_pipeline.storage.atomic_files import workspace_lock

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


class Champion:
    """The model that serves now, and all of the workspace beside it; each part is read when it is first asked for.

    Attributes:
        settings: where everything is.
        lineage: all of the metadata store, read once.
        model_id: MLMD id of the model.
        push: how it was pushed: its version, its destination and the moment.
    """

    def __init__(self, settings: Settings) -> None:
        """Look up the model that serves.

        Raises:
            MetadataError: there is no run in the workspace yet, or the metadata store cannot be opened.
            ModelError: there are runs, but no model was pushed yet.
        """
        from bike_pipeline.lineage.queries.history import History
        from bike_pipeline.lineage.queries.model_lookup import find_model
        from bike_pipeline.lineage.records.last_run import refuse_a_lost_store

        refuse_a_lost_store(settings)
        if not settings.metadata.server_address and not settings.metadata_file.is_file():
            raise MetadataError(
                "there is no run in this workspace yet",
                where=str(settings.workspace_path),
                fix="run `make run` first, or name another workspace",
            )
        self.settings = settings
        self.lineage: History = History(lineage_of(settings))
        chosen = find_model(self.lineage, settings.serving_path, None)
        assert chosen.push is not None
        self.chosen: FoundModel = chosen
        self.model_id: int = chosen.model_id
        self.push: PushedModel = chosen.push

    @cached_property
    def store(self) -> SpanStore:
        """The span store."""
        from bike_pipeline.use_cases.data import span_store

        return span_store(self.settings)

    @cached_property
    def evidence(self) -> dict[str, Any]:
        """What speaks for the model (`lineage.queries.evidence.evidence_of`)."""
        from bike_pipeline.lineage.queries.evidence import evidence_of

        return evidence_of(self.lineage, self.model_id)

    @cached_property
    def models(self) -> list[ModelRecord]:
        """Every trained model, oldest first."""
        return self.lineage.models(self.settings.serving_path)

    @cached_property
    def runs(self) -> list[RunRecord]:
        """Every run, oldest first."""
        return self.lineage.runs()

    @cached_property
    def rows(self) -> pd.DataFrame:
        """The rows that the model was made of, in time order; a DataError if the span store has them no more.

        Beside the columns of the contract and the optional inputs: `span`, `part` ("history", "train" or "eval") and
        `time`, the hour, local, without a zone.
        """
        import pandas as pd
        import pyarrow as pa

        from bike_pipeline.data.past_weather import with_optional_inputs

        window = self.evidence["data"]
        parts: list[pa.Table] = []
        for entry in window:
            for split in ("train", "eval"):
                rows = self.store.read(entry["span"], entry["version"], (split,))
                part = split if entry is window[-1] else "history"
                rows = rows.append_column("span", pa.array([entry["span"]] * rows.num_rows))
                parts.append(rows.append_column("part", pa.array([part] * rows.num_rows)))
        found = with_optional_inputs(pa.concat_tables(parts)).to_pandas()
        time = pd.to_datetime(found[features.DATE]) + pd.to_timedelta(found[features.HOUR], unit="h")
        ordered: pd.DataFrame = found.assign(time=time).sort_values("time", ignore_index=True)
        return ordered

    @property
    def learnt(self) -> pd.DataFrame:
        """Those of the rows that the model was trained on."""
        return self.rows[self.rows["part"] != "eval"]

    @cached_property
    def evaluated(self) -> pd.DataFrame:
        """Those of the rows that the model was judged on, with the column `predicted`, in rentals an hour."""
        rows = self.rows[self.rows["part"] == "eval"].reset_index(drop=True)
        return rows.assign(predicted=self.predict(rows).astype("float64"))

    @cached_property
    def predictor(self) -> Predictor:
        """The model, loaded from the folder that serves (this loads TensorFlow), if its files are those pushed."""
        from bike_pipeline.log_capture import captured

        # What TensorFlow writes while it is loaded belongs to the log, not between words and pictures.
        with captured(self.settings.logs_path / "notebooks.log"):
            from bike_pipeline.model_registry import signing
            from bike_pipeline.serving.predictor import Predictor

            signing.use(self.settings)
            return Predictor(self.settings.serving_path, self.push.version)

    def predict(self, rows: pd.DataFrame) -> Any:
        """Return the model's answers in rentals an hour, shape (rows,)."""
        return self.predictor.predict({feature.name: rows[feature.name].tolist() for feature in features.MODEL_INPUTS})
