"""Requests about the hours of 2012, as they were or with a fault, and the served model of 2011 that answers them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.quality import later_labels, served
from benchmarks.quality.protocols import Split, Table
from bike_pipeline import features
from bike_pipeline.modeling import feedback
from bike_pipeline.modeling.feedback import FIRST_DAY, HOURS_A_DAY, FeedbackState
from bike_pipeline.modeling.feedback_record import Feedback
from bike_pipeline.monitoring.reference import Reference

Columns = dict[str, npt.NDArray[Any]]
NAMES = tuple(feature.name for feature in features.MODEL_INPUTS)
SECOND_YEAR = 365 * HOURS_A_DAY
EVAL_SHARE = 0.2
CLIENTS = 8
# Standard deviations between stations: 0.5 °C, 0.7 °C, 3 % and 2 km/h.
STATIONS = {"temp": 0.5 / 47, "atemp": 0.7 / 66, "hum": 0.03, "windspeed": 2.0 / 67}


class Ground(NamedTuple):
    """A year that is known: the second, answered by the model of the first.

    Attributes:
        reference: the first year, and what the version keeps of its eval split.
        rows: the hours of the second year, with label.
        stale: answer, lower, upper as the version gives them that was pushed at the end of the first year.
        fed: the same with each day's labels fed back a day later.
    """

    reference: Reference
    rows: Columns
    stale: Columns
    fed: Columns


def ground(table: Table, training: dict[str, Any], settings: Any, seed: int) -> Ground:
    """Train as `make run` does, on the first four fifths of the first year's days, and answer the second."""
    every, day = np.arange(len(table["cnt"])), table["dteday"]
    days = np.unique(day[table["yr"] == 0])
    cut = days[round(len(days) * (1.0 - EVAL_SHARE))]
    split = Split(every[day < cut], every[day >= cut])
    answers = served.answers(table, split, training, seed).rentals
    labels = later_labels.labels_of(table, split.test, answers.tolist())
    is_eval = labels.hours < SECOND_YEAR
    kept = Feedback.of_backtest(labels[is_eval], settings)
    raw = served.raw(table)
    hours = (table["dteday"] * HOURS_A_DAY + table["hr"]).astype(np.int64)
    everything = {**{name: raw[name] for name in NAMES}, "season": raw["season"], "hour": hours, "label": table["cnt"]}
    first = hours < SECOND_YEAR
    reference = Reference(
        {name: values[first] for name, values in everything.items()}, int(labels.hours[0]), kept, version=1
    )
    later, replayed = labels[~is_eval], feedback.replay(labels, settings)
    fed = {
        "answer": replayed.rentals[~is_eval],
        "lower": replayed.quantiles[~is_eval, 0],
        "upper": replayed.quantiles[~is_eval, -1],
    }
    state: FeedbackState = kept.state
    level = np.exp(state.levels[later.groups] * feedback.weight_of(later.hours, state.as_of))
    stale = {"answer": later.expected * level}
    unit = feedback.unit_of(stale["answer"])
    for name, place in (("lower", 0), ("upper", -1)):
        stale[name] = np.maximum(stale["answer"] + state.quantiles[later.groups, place] * unit, 0.0)
    return Ground(reference, {name: values[~first] for name, values in everything.items()}, stale, fed)


def requests(rows: Columns, answers: Columns, seed: int) -> Columns:
    """Return the requests of `CLIENTS` clients an hour, each with the weather of a station of its own."""
    rng = np.random.default_rng(seed)
    found = {name: np.repeat(values, CLIENTS) for name, values in {**rows, **answers}.items()}
    count = len(found["hour"])
    for name, spread in STATIONS.items():
        # A hundredth is what a sensor tells.
        noisy = np.round(found[name] + rng.normal(0.0, spread, count), 4)
        found[name] = np.clip(noisy, 0.0, 1.0).astype(np.float32)
    asked = FIRST_DAY.astype("datetime64[ms]") + found["hour"].astype("timedelta64[h]")
    found |= {
        "request_id": np.array([f"r{place}" for place in range(count)]),
        "row": np.zeros(count, np.int64),
        "requested_at": asked + rng.integers(0, 3600, count).astype("timedelta64[s]"),
        "version": np.ones(count, np.int64),
        "latency_us": np.full(count, 900.0),
        "corrected": np.zeros(count, bool),
    }
    return found


def _set(name: str, of: Callable[[npt.NDArray[Any]], Any]) -> Callable[[Columns, npt.NDArray[np.bool_]], Columns]:
    def inject(rows: Columns, faulty: npt.NDArray[np.bool_]) -> Columns:
        return {**rows, name: np.where(faulty, of(rows[name]), rows[name])}

    return inject


def _stuck(rows: Columns, faulty: npt.NDArray[np.bool_]) -> Columns:
    first = int(np.argmax(faulty))
    return {**rows, "temp": np.where(faulty, rows["temp"][first], rows["temp"])}


def _clock(rows: Columns, faulty: npt.NDArray[np.bool_]) -> Columns:
    later = rows["hour"] + faulty
    return {**rows, "hour": later, "hr": (rows["hr"] + faulty) % HOURS_A_DAY}


def _twice(rows: Columns, faulty: npt.NDArray[np.bool_]) -> Columns:
    again = np.sort(np.concatenate([np.arange(len(faulty)), np.flatnonzero(faulty)]))
    return {name: values[again] for name, values in rows.items()}


# From what is broken to rows that are broken where a mask says so.
FAULTS: dict[str, Callable[[Columns, npt.NDArray[np.bool_]], Columns]] = {
    "°F for °C": _set("temp", lambda v: ((v * 47.0 - 8.0) * 1.8 + 32.0 + 8.0) / 47.0),
    "sensor stuck": _stuck,
    "new category": _set("weathersit", lambda _: 5),
    "missing column": _set("temp_mean_24h", lambda _: 0.0),
    "percent for share": _set("hum", lambda v: v * 100.0),
    "m/s for km/h": _set("windspeed", lambda v: v / 3.6),
    "clock an hour off": _clock,
    "feed sent twice": _twice,
}


class Episode(NamedTuple):
    """Requests of some days, a share of which is faulty from `start` on, in hours of the data set's own count."""

    fault: str
    share: float
    start: int
    rows: Columns


def episode(clean: Columns, fault: str, share: float, start: int, before: int, after: int, seed: int) -> Episode:
    """Return the requests from `before` hours before a fault begins to `after` hours after."""
    chosen = (clean["hour"] >= start - before) & (clean["hour"] < start + after)
    rows = {name: values[chosen] for name, values in clean.items()}
    drawn = np.random.default_rng(seed).random(len(rows["hour"])) < share
    return Episode(fault, share, start, FAULTS[fault](rows, drawn & (rows["hour"] >= start)))
