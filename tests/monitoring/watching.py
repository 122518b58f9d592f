"""Requests about the hours of 2012 as they were, with errors of a known size, and what they are held against."""

from datetime import datetime, timedelta

import numpy as np

from bike_pipeline import features
from bike_pipeline.data import past_weather
from bike_pipeline.data.embedded_dataset import embedded_bytes
from bike_pipeline.modeling.feedback import FIRST_DAY, HOURS_A_DAY, Labels
from bike_pipeline.modeling.feedback_record import Feedback
from bike_pipeline.monitoring.reference import Reference
from bike_pipeline.settings import load_settings

SHIPPED = load_settings()
SETTINGS, DECISION = SHIPPED.monitoring.detectors, SHIPPED.monitoring.decision
SECOND_YEAR = 365 * HOURS_A_DAY
DAY_ERROR, HOUR_ERROR = 0.1, 0.2


def _table():
    header, *lines = embedded_bytes().decode().splitlines()
    cells = np.array([line.split(",") for line in lines]).T
    table = dict(zip(header.split(","), cells, strict=True))
    days = table.pop("dteday").astype("datetime64[D]")
    table = {name: values.astype(float) for name, values in table.items()}
    hours = (days - FIRST_DAY).astype(np.int64) * HOURS_A_DAY + table["hr"].astype(np.int64)
    table |= past_weather.optional_inputs(hours + FIRST_DAY.astype("datetime64[h]").astype(np.int64), table)
    names = ("season", *(feature.name for feature in features.MODEL_INPUTS))
    return {**{name: table[name] for name in names}, "hour": hours, "label": table["cnt"]}


ROWS = _table()


def answers(rows, seed=7):
    """What a model without a bias answers: a day errs as a whole, and each hour besides."""
    rng = np.random.default_rng(seed)
    days = rows["hour"] // HOURS_A_DAY
    of_day = rng.normal(0.0, DAY_ERROR, days.max() + 1)[days]
    return rows["label"] * np.exp(of_day + rng.normal(0.0, HOUR_ERROR, len(days)))


def requests(first="2012-01-01", last="2012-12-31", a_hour=1, seed=7):
    """Requests about every hour from the first day to the last, each by `a_hour` clients at that hour."""
    hours = [(np.datetime64(day) - FIRST_DAY).astype(int) * HOURS_A_DAY for day in (first, last)]
    chosen = np.flatnonzero((ROWS["hour"] >= hours[0]) & (ROWS["hour"] < hours[1] + HOURS_A_DAY))
    rows = {name: np.repeat(values[chosen], a_hour) for name, values in ROWS.items()}
    answer = np.repeat(answers({name: values[chosen] for name, values in ROWS.items()}, seed), a_hour)
    count = len(answer)
    minute = np.tile(np.arange(a_hour), len(chosen)).astype("timedelta64[m]")
    asked = FIRST_DAY.astype("datetime64[ms]") + rows["hour"].astype("timedelta64[h]") + minute
    spread = 1.645 * 0.22 * answer
    return rows | {
        "request_id": np.array([f"r{place}" for place in range(count)]),
        "row": np.zeros(count, np.int64),
        # Washington is five hours behind UTC.
        "requested_at": asked + np.timedelta64(5, "h"),
        "version": np.full(count, 3),
        "latency_us": np.full(count, 900.0),
        "answer": answer.astype(np.float32),
        "lower": answer - spread,
        "upper": answer + spread,
        "corrected": np.zeros(count, bool),
    }


def reference(predict=None):
    """The first year, of whose last fifth a model keeps the labels."""
    rows = {name: values[ROWS["hour"] < SECOND_YEAR] for name, values in ROWS.items()}
    held = {name: values[-1740:] for name, values in rows.items()}
    expected = answers(held, seed=11)
    labels = Labels.of({**held, "cnt": held["label"]}, held["hour"], expected)
    kept = Feedback.of_backtest(labels, SHIPPED.training.feedback)
    return Reference(rows, int(held["hour"][0]), kept, version=3, predict=predict)


def windows(first, count, days=7):
    """As many windows after one another, of so many days."""
    begin = datetime.fromisoformat(first)
    spans = [begin + timedelta(days=days * place) for place in range(count)]
    return [(start, start + timedelta(days=days, hours=-1)) for start in spans]
