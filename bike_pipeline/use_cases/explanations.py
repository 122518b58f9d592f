"""Why the model answered a request as it did, and what moves the model that serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline import features, progress
from bike_pipeline.errors import ModelError, MonitoringError
from bike_pipeline.use_cases.lineage import lineage_of

if TYPE_CHECKING:
    from bike_pipeline.model_registry import ModelRegistry
    from bike_pipeline.monitoring.columns import Array, Columns
    from bike_pipeline.monitoring.explanations.error_slices import ErrorSlice
    from bike_pipeline.monitoring.explanations.table import Explanation, ExplanationTable
    from bike_pipeline.monitoring.explanations.whole_model import HourCurves
    from bike_pipeline.serving.predictor import Predictor
    from bike_pipeline.settings import Settings

# Training rows whose curves by the hour are averaged.
_CURVE_ROWS = 512


@dataclass(frozen=True)
class ExplainedRequest:
    """An explanation and where it is kept.

    Attributes:
        explanation: why the row was answered as it was.
        rows: how many rows the request had.
        is_new: whether it was explained for the first time.
        table: the file that holds it.
        page: the page that was written; None if none was asked for.
    """

    explanation: Explanation
    rows: int
    is_new: bool
    table: Path
    page: Path | None


@dataclass(frozen=True)
class ExplainedModel:
    """What moves the model that serves, and where it errs most.

    Attributes:
        version: the version that serves.
        model_id: the model that it is of.
        fingerprint: of its files.
        unit: of its answers.
        curves: answers by the hour, of a working day and of another one.
        importance: permutation importance, from its model card; None if the card has none.
        slices: where it errs most, by the labels of what it was asked.
        searched: how these were looked for, in words.
        page: the page that was written; None if none was asked for.
    """

    version: int
    model_id: int
    fingerprint: str
    unit: str
    curves: Sequence[HourCurves]
    importance: Mapping[str, Any] | None
    slices: Sequence[ErrorSlice]
    searched: str
    page: Path | None


def explanations(settings: Settings) -> ExplanationTable:
    """Return what was explained so far."""
    from bike_pipeline.monitoring.explanations.table import ExplanationTable

    return ExplanationTable(settings.monitoring_path / "explanations")


def explain(settings: Settings, request_id: str, *, row: int = 0, page: Path | None = None) -> ExplainedRequest:
    """Return why a row of a request was answered as it was, and keep it beside the request's id.

    The version that answered is asked, not the one that serves now. What was explained before is read and not made
    again. Of requests with the same id the newest counts.

    Args:
        settings: the settings.
        request_id: the request, as the client named it or the server in its answer.
        row: which of its rows, from 0.
        page: where to write it as a page.

    Raises:
        MonitoringError: the request is not known, it has no such row, or the explanations are damaged.
        ModelError: the version that answered is not there any more, or answers something else.
        MissingExtraError: the extra `monitoring` is not installed.
    """
    from bike_pipeline.monitoring.explanations import page as pages
    from bike_pipeline.use_cases.monitoring import observation_store

    found = observation_store(settings).request(request_id)
    asked = found["requested_at"]
    if not len(asked):
        raise MonitoringError(
            f"no answered request has the id {request_id}",
            where=str(settings.monitoring_path),
            fix="call `bike-pipeline monitor ingest`, which takes the request log in; only sampled requests are in it",
        )
    newest = asked == asked.max()
    rows = {name: values[newest] for name, values in found.items()}
    places = (rows["row"] == row).nonzero()[0]
    if not len(places):
        kept = ", ".join(map(str, sorted(rows["row"])[:10]))
        raise MonitoringError(f"request {request_id} has no row {row} on record", fix=f"there are {kept}")
    table, requested_at = explanations(settings), str(asked.max())
    known = table.find(request_id, row, requested_at)
    made = known or table.add(_made(settings, request_id, {n: v[places[0]] for n, v in rows.items()}, requested_at))
    if page is not None:
        _write(page, pages.answer_page(made))
    return ExplainedRequest(made, len(rows["row"]), known is None, table.path, page)


def _made(settings: Settings, request_id: str, row: Mapping[str, Any], requested_at: str) -> Explanation:
    import math

    from bike_pipeline.modeling.label_update import moment
    from bike_pipeline.monitoring.explanations.answer import background_of, parts_of
    from bike_pipeline.monitoring.explanations.table import Explained, Explanation

    version = int(row["version"])
    progress.report(0.1, f"loading version {version}")
    predictor, record = _version(settings, version)
    training = _training_rows(settings, int(record["model_id"]))
    inputs = {f.name: float(row[f.name]) for f in features.MODEL_INPUTS}
    # What was not sent may stand there as no number.
    inputs |= {f.name: f.default or 0.0 for f in features.OPTIONAL_INPUTS if math.isnan(inputs[f.name])}
    progress.report(0.5, "asking for all coalitions of the inputs")
    why = parts_of(predictor.predict, inputs, background_of(training), float(row["answer"]))
    hour, place = int(row["hour"]), int(row["row"])
    about = Explained(
        request_id, place, requested_at, version, int(record["model_id"]), str(record["fingerprint"]),
        moment(hour) if hour >= 0 else "", _unit(predictor),
    )  # fmt: skip
    return Explanation(about, why)


def explain_model(settings: Settings, *, page: Path | None = None) -> ExplainedModel:
    """Return what moves the model that serves, and where it errs most by the labels of what it was asked.

    Args:
        settings: the settings.
        page: where to write it as a page.

    Raises:
        ModelError: nothing serves, or its training rows are not there any more.
        MissingExtraError: the extra `monitoring` is not installed.
    """
    import json

    from bike_pipeline.lineage.reports.model_card import JSON_FILE
    from bike_pipeline.model_registry import ModelRegistry, layout
    from bike_pipeline.monitoring.explanations import page as pages
    from bike_pipeline.monitoring.explanations.answer import background_of
    from bike_pipeline.monitoring.explanations.error_slices import worst_slices
    from bike_pipeline.monitoring.explanations.whole_model import hour_curves
    from bike_pipeline.use_cases.monitoring import observation_store

    version = ModelRegistry(settings.serving_path).serving()
    if version is None:
        raise ModelError("no model is served", where=settings.serving_path, fix="run the pipeline: `bike-pipeline run`")
    progress.report(0.0, "looking for slices")
    observed = observation_store(settings).columns()
    own = {name: values[observed["version"] == version] for name, values in observed.items()}
    slices, searched = worst_slices(own, settings.monitoring.decision.false_discovery_rate)
    progress.report(0.3, f"loading version {version}")
    predictor, record = _version(settings, version)
    training = _training_rows(settings, int(record["model_id"]))
    some = background_of(training, _CURVE_ROWS)
    curves = hour_curves(predictor.predict, some)
    card = ModelRegistry(settings.serving_path).folder(version) / layout.CARD_FOLDER / JSON_FILE
    importance = json.loads(card.read_text(encoding="utf-8")).get("explanations") if card.is_file() else None
    made = ExplainedModel(
        version, int(record["model_id"]), str(record["fingerprint"]), _unit(predictor), curves, importance, slices,
        searched, page,
    )  # fmt: skip
    if page is not None:
        _write(page, pages.model_page(**vars(made), title="What moves the model", rows=len(some["hr"])))
    return made


def _unit(predictor: Predictor) -> str:
    return next(answer.unit for answer in features.ANSWERS.values() if answer.output == predictor.answer)


def _version(settings: Settings, version: int) -> tuple[Predictor, Mapping[str, Any]]:
    """Return a version, loaded, and its push record."""
    from bike_pipeline.lean_imports import lean_imports
    from bike_pipeline.model_registry import ModelRegistry, signing

    signing.use(settings)
    registry: ModelRegistry = ModelRegistry(settings.serving_path)
    if version not in registry.versions():
        raise ModelError(
            f"version {version}, which answered, is not there any more",
            where=settings.serving_path,
            fix="what it answered can be explained while it is: keep versions for as long as somebody may ask",
        )
    with lean_imports(google_cloud=True):
        from bike_pipeline.serving.predictor import Predictor

        return Predictor(settings.serving_path, version, settings.training.target), registry.push_record(version) or {}


def _training_rows(settings: Settings, model_id: int) -> Columns:
    """Return the rows of the spans that a model was made of, by input, in the order of time."""
    import pyarrow as pa

    from bike_pipeline.data.past_weather import with_optional_inputs
    from bike_pipeline.data.spans import SpanStore
    from bike_pipeline.data.window import rows_of
    from bike_pipeline.lineage.queries.evidence import window_of

    window = window_of(lineage_of(settings).trained_on(model_id))
    if not window:
        raise ModelError(
            f"there is no record of the data of model {model_id}", fix="train again: `bike-pipeline run --no-cache`"
        )
    store = SpanStore(settings.store_uri)
    table = with_optional_inputs(pa.concat_tables(rows_of(store, entry) for entry in window))
    columns: dict[str, Array] = {f.name: table.column(f.name).to_numpy() for f in features.MODEL_INPUTS}
    return columns


def _write(page: Path, text: str) -> None:
    from bike_pipeline.storage.atomic_files import replace_file

    page.parent.mkdir(parents=True, exist_ok=True)
    replace_file(page, text.encode())
