"""What the decisions of the ledger were worth, by the labels that have come since."""

from __future__ import annotations

import functools
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bike_pipeline.errors import BikePipelineError, ModelError, StageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bike_pipeline.retraining.events import Run
    from bike_pipeline.retraining.ledger import Ledger
    from bike_pipeline.retraining.prices import Promotion
    from bike_pipeline.settings import Settings

_DAY = 86_400.0
_PRICES = "prices"


@dataclass(frozen=True)
class Pricing:
    """What came of pricing.

    Attributes:
        priced: decisions that have a price now.
        waiting: decisions without one: no labels have come, or no other version serves since.
        problems: why a promotion cannot tell any price.
    """

    priced: int
    waiting: int
    problems: tuple[str, ...]


def price(settings: Settings) -> Pricing:
    """Give each decision of the ledger its price, by all labels that are known now: see `retraining.prices`.

    Raises:
        DataError: there is no ledger, or the spans or what the monitor keeps are damaged.
        StorageError: the ledger cannot be used.
    """
    import numpy as np

    from bike_pipeline.lean_imports import lean_imports
    from bike_pipeline.monitoring.columns import take
    from bike_pipeline.retraining import ledger_tables as tables
    from bike_pipeline.retraining.prices import price_of
    from bike_pipeline.serving.predictor import Predictor
    from bike_pipeline.use_cases.retraining import existing_ledger

    ledger, problems = existing_ledger(settings), list[str]()
    runs = ledger.runs()
    promotions = _promotions(settings, runs, problems)
    known = _known(settings) if promotions else {"hour": np.zeros(0, np.int64)}

    @functools.lru_cache(maxsize=4)
    def model(version: int) -> Predictor:
        with lean_imports(google_cloud=True):
            return Predictor(settings.serving_path, version)

    def errors(version: int, chosen: Any) -> Any:
        asked = take(known, chosen)
        return np.abs(model(version).predict(asked) - asked["label"])

    # A cluster does not tell what a run spent there.
    spent = {run.number: run.facts.get("cpu_seconds", 0.0) for run in runs}
    decisions, count = ledger.rows(tables.decisions), 0
    for row in decisions:
        found = price_of(row, promotions, spent[row["run"]] if row["fired"] else 0.0, known["hour"], errors)
        if found is not None:
            ledger.set_price(row["id"], found.plain())
            count += 1
    return Pricing(count, len(decisions) - count, tuple(problems))


def _promotions(settings: Settings, runs: Sequence[Run], problems: list[str]) -> list[Promotion]:
    """Return what runs brought to serve in place of another version; a version that cannot be asked is a problem."""
    from bike_pipeline.model_registry import ModelRegistry, layout, signing
    from bike_pipeline.model_registry.deployment import STABLE
    from bike_pipeline.modeling.feedback_record import FEEDBACK_FILE, Feedback
    from bike_pipeline.retraining.events import State
    from bike_pipeline.retraining.prices import Promotion

    signing.use(settings)
    registry = ModelRegistry(settings.serving_path)

    @functools.cache
    def knows(version: int) -> int:
        registry.require_sound(version)
        path = registry.folder(version) / layout.EXTRA_FOLDER / FEEDBACK_FILE
        try:
            labels = Feedback.from_json(path.read_text(encoding="utf-8")).labels
        except (OSError, ValueError) as error:
            fix = "an earlier release made it, or for another target: it has no price"
            raise ModelError(f"what version {version} knows is not on record ({error})", fix=fix) from error
        return int(labels.hours.max(initial=-1))

    before: dict[int | None, int] = {}
    for change in registry.history():
        if change.action == "promote" and change.label == STABLE and change.from_version is not None:
            before.setdefault(change.to_version, change.from_version)
    found = []
    for run in runs:
        version = run.facts.get("pushed_version")
        if run.state is not State.PROMOTED or version is None or version not in before:
            continue
        old = before[version]
        try:
            found.append(Promotion(run.number, run.claimed_at, old, version, knows(old), knows(version)))
        except BikePipelineError as error:
            problems.append(f"run {run.number}: {error}")
    return found


def _known(settings: Settings) -> Mapping[str, Any]:
    """Return the hours whose label is known, each once: rows of the spans, then those that were asked about."""
    import numpy as np

    from bike_pipeline import features
    from bike_pipeline.data.spans import SpanStore
    from bike_pipeline.monitoring.columns import answered, take
    from bike_pipeline.monitoring.reference import Reference
    from bike_pipeline.use_cases.monitoring import observation_store

    names = [feature.name for feature in features.MODEL_INPUTS]
    spans = Reference.of_spans(SpanStore(settings.store_uri)).columns
    parts = [{name: spans[name] for name in (*names, "hour", "label")}]
    if (settings.monitoring_path / "observations").exists():
        observed = answered(observation_store(settings).columns(names=("hour", *names)))
        hours, places = np.unique(observed["hour"], return_index=True)
        parts.append(take(observed, places[~np.isin(hours, spans["hour"])]))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def price_daily(settings: Settings, ledger: Ledger) -> None:
    """Price in a process of its own, which gives its memory back, if the last time is a day ago.

    What came of it, an error too, stands among what triggers say (`triggers list`).
    """
    from bike_pipeline.retraining.events import State
    from bike_pipeline.retraining.policy import elapsed
    from bike_pipeline.retraining.triggers import Note

    now = time.time()
    last = ledger.control(_PRICES)
    if (last and elapsed(last["at"], now) < _DAY) or not ledger.runs(State.PROMOTED):
        return
    ledger.set_control(_PRICES, {"at": now})
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            found = pool.submit(price, settings).result()
        note = "; ".join(
            [f"{found.priced} decisions have a price, {found.waiting} wait for labels or a model", *found.problems]
        )
    except BrokenProcessPool:
        note = str(StageError("the process that prices ended", fix="`bike-pipeline triggers price` says why"))
    except BikePipelineError as error:
        note = str(error)
    ledger.record_notes(_PRICES, [Note("the ledger's decisions", note)])
