"""What the model that serves knows of labels that arrived after its training, and the way back from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline import features
from bike_pipeline.errors import ModelError

if TYPE_CHECKING:
    from bike_pipeline.lineage.store.metadata_store import Lineage
    from bike_pipeline.model_registry import ModelRegistry
    from bike_pipeline.model_registry.deployment import Change
    from bike_pipeline.modeling.feedback import FeedbackState
    from bike_pipeline.modeling.feedback_record import Backtest, Feedback
    from bike_pipeline.settings import Settings

# Around so many rentals intervals are shown.
SHOWN_RENTALS = 100


@dataclass(frozen=True)
class HourGroup:
    """What a model holds of a group of hours.

    Attributes:
        day: "working day" or "no working day".
        hours: such as "hours 6-9".
        rain: whether it is raining; the level is the same, the interval its own.
        factor: what answers are multiplied with while the level counts whole.
        interval: the outer quantiles around `SHOWN_RENTALS`, in rentals; None if they are not known.
    """

    day: str
    hours: str
    rain: bool
    factor: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class FeedbackStatus:
    """What the model that serves knows of labels; times are local, ISO 8601.

    Attributes:
        version: the version that serves.
        model_id: the trained model that it is.
        updates: how often labels came after training.
        labels: how many hours count.
        first: the first of them; "" for none.
        as_of: the last of them; the level counts for the hours after it.
        at: the moment that is asked about.
        days: how long after `as_of` that is.
        weight: how much the level counts then, from 0 to 1.
        groups: every group of hours.
        nominal: the share of labels that an interval is to hold.
        backtest: on the eval split that the model was trained beside; None without one.
    """

    version: int
    model_id: int
    updates: int
    labels: int
    first: str
    as_of: str
    at: str
    days: float
    weight: float
    groups: tuple[HourGroup, ...]
    nominal: float
    backtest: Backtest | None


@dataclass(frozen=True)
class ServedFeedback:
    """The version that serves, in a local folder, with its push record and what it knows of labels."""

    registry: ModelRegistry
    version: int
    folder: Path
    record: Mapping[str, Any]
    feedback: Feedback


def served(settings: Settings) -> ServedFeedback:
    """Return the version that serves.

    Raises:
        ModelError: nothing serves, its files are not those that were pushed, or the release that trained it gave it no
            state of feedback.
    """
    from bike_pipeline.model_registry import ModelRegistry, layout, signing
    from bike_pipeline.modeling.feedback_record import FEEDBACK_FILE, Feedback

    signing.use(settings)
    registry = ModelRegistry(settings.serving_path)
    version = registry.serving()
    if version is None:
        raise ModelError("no model is served", where=settings.serving_path, fix="run the pipeline: `bike-pipeline run`")
    registry.require_sound(version)
    folder, record = registry.folder(version), registry.push_record(version)
    try:
        kept = Feedback.from_json((folder / layout.EXTRA_FOLDER / FEEDBACK_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        problem = "it takes no labels: an earlier release trained it, or for another target than rentals"
    except ValueError as error:
        problem = f"its state of feedback cannot be read ({error})"
    else:
        return ServedFeedback(registry, version, folder, record or {}, kept)
    fix = "train again: `bike-pipeline run --no-cache`"
    raise ModelError(f"version {version} cannot follow: {problem}", where=registry.uri(version), fix=fix)


def first_untrained_hour(settings: Settings, lineage: Lineage, model_id: int) -> int:
    """Return the first hour that a model did not learn from, that of its eval split (see `modeling.feedback.hours_of`).

    Raises:
        ModelError: there is no record of its data.
        DataError: the span is not in the store any more.
    """
    from bike_pipeline.data.spans import SpanStore
    from bike_pipeline.lineage.queries.evidence import window_of
    from bike_pipeline.modeling.label_update import hour_of

    window = window_of(lineage.trained_on(model_id))
    if not window:
        raise ModelError(f"there is no record of the data of model {model_id}", fix="train again: `bike-pipeline run`")
    stored = SpanStore(settings.store_uri).get(int(window[-1]["span"]), int(window[-1]["version"]))
    return hour_of(stored.manifest.time_range["eval"].first)


def show(settings: Settings, at: datetime | None = None) -> FeedbackStatus:
    """Return what the model that serves knows of labels, and how much that counts at a local time, now by default."""
    import numpy as np

    from bike_pipeline.modeling import feedback, label_update

    serving = served(settings)
    kept, asked = serving.feedback, at or datetime.now(UTC).astimezone().replace(tzinfo=None)
    state, shares = kept.state, list(kept.settings.quantiles.values())
    hours, hour = kept.labels.hours, label_update.hour_of(asked)
    return FeedbackStatus(
        version=serving.version,
        model_id=int(serving.record["model_id"]),
        updates=kept.updates,
        labels=len(hours),
        first=label_update.moment(hours[0]) if len(hours) else "",
        as_of=label_update.moment(state.as_of) if len(hours) else "",
        at=asked.isoformat(timespec="minutes"),
        days=(hour - state.as_of) / feedback.HOURS_A_DAY,
        weight=float(feedback.weight_of(np.array([hour]), state.as_of)[0]) if len(hours) else 0.0,
        groups=tuple(_group(state, number) for number in range(feedback.GROUPS)),
        nominal=round(shares[-1] - shares[0], 9),
        backtest=kept.backtest,
    )


def _group(state: FeedbackState, number: int) -> HourGroup:
    import numpy as np

    from bike_pipeline.modeling import feedback

    kind, band = divmod(number, feedback.BANDS)
    rain, workingday = divmod(kind, 2)
    outer = SHOWN_RENTALS + state.quantiles[number, [0, -1]] * feedback.unit_of(np.array([SHOWN_RENTALS]))
    low, high = (float(value) for value in np.maximum(outer, 0.0))
    return HourGroup(
        features.slice_name("workingday", workingday),
        features.slice_name("hour_band", features.HOUR_BANDS[band]),
        bool(rain),
        float(np.exp(state.levels[number])),
        (low, high) if np.isfinite(outer).all() else None,
    )


def rollback(settings: Settings, reason: str = "") -> Change:
    """Let the version of the same model serve that served before, without the newest labels.

    Raises:
        ModelError: no version served before, or that was another model, or it may not serve.
        ServerError: a server does not follow.
    """
    from bike_pipeline.model_registry import ModelRegistry
    from bike_pipeline.model_registry.deployment import STABLE
    from bike_pipeline.use_cases import serving

    registry = ModelRegistry(settings.serving_path)
    state, present = registry.deployment(), set(registry.versions())
    now = state.labels.get(STABLE) if state else None
    earlier = [v for v in (state.previous.get(STABLE, ()) if state else ()) if v in present and v != now]
    models = [(registry.push_record(version) or {}).get("model_id") for version in (now, *earlier[-1:]) if version]
    if len(models) < 2 or models[0] != models[1]:
        what = f", version {earlier[-1]}, is another model" if earlier else " is nothing"
        raise ModelError(
            f"what served before{what}: there are no labels to go back from",
            where=settings.serving_path,
            fix="`bike-pipeline rollback` goes back to another model",
        )
    return serving.rollback(settings, earlier[-1], reason=reason)
