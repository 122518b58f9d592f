"""Run the pipeline, from the newest span to a blessed, pushed model; or make a model again from what is on record."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from bike_pipeline import features
from bike_pipeline.errors import ConfigurationError, VerificationError, and_more
from bike_pipeline.run_events import RunObserver, RunResult
from bike_pipeline.use_cases.lineage import lineage_of

if TYPE_CHECKING:
    from bike_pipeline.lineage.queries.model_lookup import FoundModel
    from bike_pipeline.lineage.queries.reproducibility import Match, Origin
    from bike_pipeline.lineage.store.metadata_store import Lineage
    from bike_pipeline.settings import Settings

# Third parties add runners as entry points of this group.
RUNNERS_GROUP = "bike_pipeline.runners"
_OWN_RUNNERS = {
    "local": "bike_pipeline.runners.local_runner:LocalRunner",
    "beam": "bike_pipeline.runners.beam_runner:BeamRunner",
    "kubeflow": "bike_pipeline.runners.kubeflow_runner:KubeflowRunner",
}

# Of a metric's value: TFMA may add the same numbers up in another order.
ROUNDING = 1e-9


class Runner(Protocol):
    """Where a run takes place; the package's own are in `bike_pipeline.runners`."""

    def __init__(self, settings: Settings, observer: RunObserver, wait: bool = False, **options: bool) -> None:
        """Prepare a run; `wait` for another one in the workspace instead of refusing; options are the runner's own."""

    def run(self, enable_cache: bool = True, accept_baseline_reset: bool = False) -> RunResult:
        """Run the pipeline to its end."""


@dataclass(frozen=True)
class CompletedRun(RunResult):
    """What a run came to, the version that serves after it, and what came of sending it to MLflow, in one line."""

    promoted_version: int | None
    tracking: str


def run(
    settings: Settings,
    *,
    runner: str = "local",
    observer: RunObserver | None = None,
    cache: bool = True,
    accept_baseline_reset: bool = False,
    wait: bool = False,
    local: bool = False,
) -> CompletedRun:
    """Run the pipeline on the newest span, by the runner "local", "beam", "kubeflow" or one of a third party.

    A candidate that is not blessed is a result, not an error: its `pushed_version` is None. With `cache`, stages are
    answered from earlier runs if nothing changed. `accept_baseline_reset` lets a changed signature or metric set go
    uncompared, or a lost metadata store be begun anew, once. Another run in this workspace is a BusyError, or
    waited for with `wait`. `local` runs the compiled spec of "kubeflow" on this machine. `observer` learns how it goes.

    Raises:
        DataGateError: the data gate refused the span.
        BikePipelineError: a stage failed, or the workspace is busy or cannot be written.
    """
    from bike_pipeline.model_registry import ModelRegistry
    from bike_pipeline.tracking.hooks import after_run

    if local and runner != "kubeflow":
        raise ConfigurationError("--local belongs to --runner kubeflow", where="--local", fix="leave one of them out")
    made = runner_class(runner)(settings, observer or RunObserver(), wait, **({"local": True} if local else {}))
    result = made.run(cache, accept_baseline_reset)
    # The records of other runners are not in the workspace's own store.
    tracking = after_run(settings, result.run_id) if runner in ("local", "beam") else ""
    return CompletedRun(
        **vars(result), promoted_version=ModelRegistry(settings.serving_path).serving(), tracking=tracking
    )


def runner_class(name: str) -> type[Runner]:
    """Return the runner of a name: one of ours, or an entry point of `RUNNERS_GROUP`."""
    from importlib.metadata import EntryPoint, entry_points

    installed = {point.name: point for point in entry_points(group=RUNNERS_GROUP)}
    runners = installed | {own: EntryPoint(own, place, RUNNERS_GROUP) for own, place in _OWN_RUNNERS.items()}
    if name not in runners:
        fix = f"choose one of: {', '.join(sorted(runners))}"
        raise ConfigurationError(f"there is no runner '{name}'", where="--runner", fix=fix)
    found: type[Runner] = runners[name].load()
    return found


@dataclass(frozen=True)
class IngestedHalf:
    """A half of the embedded data (1 is 2011, 2 is 2012) in the span store, and what was written for DVC, in a line."""

    number: int
    span: int
    version: int
    rows: int
    created: bool
    tracking: str


def ingest_demo(settings: Settings, half: Literal["first", "second"]) -> list[IngestedHalf]:
    """Ingest the first half of the embedded data, or both in their order; one that is there already is kept."""
    from bike_pipeline.data.embedded_dataset import split_demo
    from bike_pipeline.data.ingest import ingest
    from bike_pipeline.data.spans import SpanStore
    from bike_pipeline.tracking.hooks import after_ingest

    ingested = []
    halves = split_demo(settings.workspace_path / "uploads")
    for number, source in enumerate(halves[: 1 if half == "first" else 2], 1):
        result = ingest(settings, str(source), mapping="")
        span, version = result.version.span, result.version.version
        note = after_ingest(settings, SpanStore(settings.store_uri), span, version)
        ingested.append(IngestedHalf(number, span, version, result.version.manifest.rows.total, result.created, note))
    return ingested


@dataclass(frozen=True)
class Reproducibility:
    """What made a model against what is here, part by part; `commit` is "" if it is not known."""

    model_id: int
    at_hand: bool
    matches: list[Match]
    commit: str
    dirty: bool

    def require(self) -> None:
        """Raise VerificationError if something is not at hand."""
        if self.at_hand:
            return
        wrong = [match for match in self.matches if match.needed and not match.same]
        fix = f"check out commit {self.commit[:12]}" if self.commit else "bring back what the model was made of"
        if self.dirty:
            fix += " (its tree had changes that were not committed)"
        raise VerificationError(
            f"not everything that made model {self.model_id} is at hand: {wrong[0].part}: {wrong[0].name}: "
            f"{wrong[0].detail.rstrip('.')}{and_more(wrong)}",
            fix=f"{fix}, or run all the same with --anyway",
        )


@dataclass(frozen=True)
class Agreement:
    """How far two models are apart.

    Attributes:
        rows: rows that both models predicted; 0 if the files of one are gone.
        different_rows: rows whose predictions differ in any bit.
        largest_difference: of the predictions, in rentals an hour; None without predictions.
        metrics: the largest difference of each metric over all slices; empty if one was never evaluated.
        same_slices: whether both were measured on the same slices with the same rows.
        identical: whether all predictions are there and the same bit for bit, and all metrics but for rounding.
    """

    rows: int
    different_rows: int
    largest_difference: float | None
    metrics: dict[str, float]
    same_slices: bool
    identical: bool


@dataclass(frozen=True)
class Reproduction:
    """A model that was made again, held against the first one."""

    model_id: int
    agreement: Agreement

    def require(self, tolerance: float = 0.0) -> None:
        """Raise VerificationError if predictions are further apart than the tolerance, in rentals an hour."""
        largest = self.agreement.largest_difference
        if self.agreement.identical or (tolerance > 0.0 and largest is not None and largest <= tolerance):
            return
        worst = max(self.agreement.metrics.items(), key=lambda entry: entry[1], default=None)
        metric = f"{worst[0]} by up to {worst[1]:.3g}" if worst else "there are no metrics to compare"
        raise VerificationError(
            f"model {self.model_id} did not come out the same: {predictions_in_words(self.agreement)}; {metric}",
            fix="another machine or other package versions round otherwise; --tolerance says what may be apart",
        )


def predictions_in_words(agreement: Agreement) -> str:
    """Return how far the predictions of two models are apart."""
    if not agreement.rows:
        return "the model's files are gone, so only metrics can be compared"
    if not agreement.different_rows:
        return f"the same on all {agreement.rows:,} rows, bit for bit"
    return (
        f"{agreement.different_rows:,} of {agreement.rows:,} rows differ, by up to "
        f"{agreement.largest_difference:.3g} rentals an hour"
    )


def reproducibility(settings: Settings, model: str | None = None) -> Reproducibility:
    """Compare what made a model with what is here; nothing is run."""
    from bike_pipeline.lineage.queries.reproducibility import matches

    _, _, origin = _origin(settings, model)
    found = matches(origin, settings.store_uri)
    code = origin.source.code if origin.source else None
    at_hand = all(match.same for match in found if match.needed)
    return Reproducibility(origin.model_id, at_hand, found, code.commit if code else "", bool(code and code.dirty))


def _origin(settings: Settings, model: str | None) -> tuple[Lineage, FoundModel, Origin]:
    from bike_pipeline.lineage.queries.history import History
    from bike_pipeline.lineage.queries.model_lookup import find_model
    from bike_pipeline.lineage.queries.reproducibility import origin_of

    history = History(lineage_of(settings))
    chosen = find_model(history, settings.serving_path, model)
    return history, chosen, origin_of(history, chosen.model_id)


def reproduce(
    settings: Settings,
    model: str | None = None,
    *,
    anyway: bool = False,
    scratch: Path | None = None,
    observer: RunObserver | None = None,
) -> Reproduction:
    """Make a model again in a scratch folder, and compare predictions and metrics.

    The folder is empty, and kept; if none is named, it is removed at the end. With `anyway`, code, settings, schema and
    data may differ.

    Raises:
        VerificationError: something that made the model is not at hand.
        BikePipelineError: as `use_cases.run.run`.
    """
    if scratch is not None and scratch.exists() and any(scratch.iterdir()):
        raise ConfigurationError("the folder is not empty", where=f"--scratch {scratch}", fix="name an empty one")
    if not anyway:
        reproducibility(settings, model).require()
    folder = scratch.absolute() if scratch else Path(tempfile.mkdtemp(prefix="bike-reproduce-"))
    try:
        return _run_and_compare(settings, model, folder, observer)
    finally:
        if scratch is None:
            shutil.rmtree(folder, ignore_errors=True)


def _run_and_compare(settings: Settings, model: str | None, folder: Path, observer: RunObserver | None) -> Reproduction:
    from bike_pipeline.lineage.queries.evidence import evidence_of
    from bike_pipeline.lineage.queries.model_lookup import as_trained
    from bike_pipeline.lineage.queries.reproducibility import scratch_settings
    from bike_pipeline.use_cases.export import SAVED_MODEL_FOLDER, payload_of

    lineage, chosen, origin = _origin(settings, model)
    own = scratch_settings(origin, settings.store_uri, folder)
    runner_class("local")(own, observer or RunObserver()).run(enable_cache=False)
    scratch_lineage = lineage_of(own)
    again = scratch_lineage.models()[-1]
    agreement = agreement_of(
        payload_of(lineage, as_trained(lineage, chosen.model_id)),
        Path(again.uri) / SAVED_MODEL_FOLDER,
        _rows(own),
        evidence_of(lineage, chosen.model_id, pushed=chosen.push is not None)["metrics"],
        evidence_of(scratch_lineage, again.model_id, pushed=False)["metrics"],
    )
    return Reproduction(chosen.model_id, agreement)


def _rows(settings: Settings) -> dict[str, Any]:
    """Return every row of the scratch store, by column."""
    import pyarrow as pa

    from bike_pipeline import features
    from bike_pipeline.data.past_weather import with_optional_inputs
    from bike_pipeline.data.spans import SpanStore

    store = SpanStore(settings.store_uri)
    table = with_optional_inputs(
        pa.concat_tables(store.read(found.span, found.version) for found in store.all_versions())
    )
    return {feature.name: table.column(feature.name).to_numpy() for feature in features.MODEL_INPUTS}


def agreement_of(
    first: Path | None,
    second: Path | None,
    columns: Mapping[str, Sequence[Any]],
    first_metrics: Sequence[Mapping[str, Any]] | None,
    second_metrics: Sequence[Mapping[str, Any]] | None,
) -> Agreement:
    """Compare the SavedModels in two folders, None if one is gone, by their predictions on rows and by their metrics.

    The rows are one sequence a column; metrics are a mapping a slice, None of a model that was never evaluated.
    """
    import numpy as np

    from bike_pipeline.modeling.loaded_model import LoadedModel

    rows, different, largest = 0, 0, None
    if first is not None and second is not None:
        one, two = (LoadedModel(folder).predict(columns) for folder in (first, second))
        rows = len(one)
        # Bits, not values: a prediction that is not a number must count as the difference that it is.
        different = int(np.count_nonzero(one.view(np.uint32) != two.view(np.uint32)))
        largest = float(np.abs(one.astype(np.float64) - two.astype(np.float64)).max()) if rows else None
    by_slice = [
        {(row["slicing"], row["slice"]): row for row in found or ()} for found in (first_metrics, second_metrics)
    ]
    counts = [{key: row["rows"] for key, row in measured.items()} for measured in by_slice]
    same_slices = bool(counts[0]) and counts[0] == counts[1]
    metrics: dict[str, float] = {}
    close = same_slices
    for key in by_slice[0].keys() & by_slice[1].keys():
        for name in features.answer_measured(by_slice[0][key]).metrics:
            before, now = by_slice[0][key].get(name), by_slice[1][key].get(name)
            if before is None or now is None:
                close = close and before is now
                continue
            metrics[name] = max(metrics.get(name, 0.0), abs(before - now))
            close = close and abs(before - now) <= ROUNDING * max(abs(before), abs(now))
    identical = rows > 0 and different == 0 and close
    return Agreement(rows, different, largest, metrics, same_slices, identical)
