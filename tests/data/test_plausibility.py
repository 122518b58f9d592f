"""What a span may not look like beside its calendar and the spans before it, shown on the embedded two years."""

from __future__ import annotations

import csv
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bike_pipeline.data import calendar_sums, plausibility
from bike_pipeline.data.calendar_sums import CalendarSums
from bike_pipeline.data.embedded_dataset import embedded_bytes
from bike_pipeline.errors import DataError
from bike_pipeline.settings import load_settings

Columns = dict[str, npt.NDArray[Any]]
FIRST, SECOND, END = "2011-01-01", "2012-01-01", "2013-01-01"


def number(date: str) -> int:
    """Return a date as days since 1970-01-01."""
    return int(np.datetime64(date, "D").astype(np.int64))


@pytest.fixture(scope="module")
def columns() -> Columns:
    """The embedded rows."""
    rows = list(csv.DictReader(embedded_bytes().decode().splitlines()))
    found: Columns = {
        name: np.array([row[name] for row in rows]).astype(np.float32 if name in calendar_sums.WEATHER else np.int64)
        for name in calendar_sums.COLUMNS
        if name != "dteday"
    }
    found["dteday"] = np.array([row["dteday"] for row in rows]).astype("datetime64[D]").astype(np.int64)
    return found


def between(columns: Columns, first: int, end: int) -> CalendarSums:
    """Return the sums of the rows from one day to the one before another."""
    kept = (columns["dteday"] >= first) & (columns["dteday"] < end)
    return calendar_sums.of_rows({name: values[kept] for name, values in columns.items()})


def anomalies(
    columns: Columns, first: str = SECOND, end: str = END, history: str = FIRST
) -> list[plausibility.Anomaly]:
    """Return what is found about the span from `first` to the day before `end`, cut as an ingest cuts it."""
    start, last = number(first), number(end)
    cut = last - round((last - start) * 0.2)
    before = between(columns, number(history), start) if history < first else calendar_sums.total([])
    limits = load_settings().gate.limits
    return list(plausibility.anomalies(between(columns, start, cut), between(columns, cut, last), before, limits))


def labels(columns: Columns, count: npt.NDArray[Any]) -> Columns:
    """Return the rows with other rentals; a quarter of them casual."""
    return {**columns, "cnt": count, "casual": count // 4, "registered": count - count // 4}


def since(columns: Columns, first: str, end: str = END) -> npt.NDArray[np.bool_]:
    """Return which rows lie from one day to the one before another."""
    found: npt.NDArray[np.bool_] = (columns["dteday"] >= number(first)) & (columns["dteday"] < number(end))
    return found


def without(columns: Columns, dropped: npt.NDArray[np.bool_]) -> Columns:
    """Return the other rows."""
    return {name: values[~dropped] for name, values in columns.items()}


def constant_label(columns: Columns) -> Columns:
    """Every label of 2012 is 150."""
    return labels(columns, np.where(since(columns, SECOND), 150, columns["cnt"]))


def nearly_constant_label(columns: Columns) -> Columns:
    """Every label of 2012 lies between 140 and 160."""
    return labels(columns, np.where(since(columns, SECOND), 140 + columns["cnt"] % 21, columns["cnt"]))


def label_stuck_for_a_month(columns: Columns) -> Columns:
    """The last month says 150."""
    return labels(columns, np.where(since(columns, "2012-12-01"), 150, columns["cnt"]))


def no_rentals_on_eval_days(columns: Columns) -> Columns:
    """The eval days say 0."""
    return labels(columns, np.where(since(columns, "2012-10-20"), 0, columns["cnt"]))


def by_fifty(columns: Columns, *names: str) -> Columns:
    """Return the temperatures of 2012 as °C / 50 and not as the contract has them."""
    scales = {"temp": (47, 8), "atemp": (66, 16)}
    changed = {}
    for name in names:
        factor, offset = scales[name]
        celsius = np.clip((columns[name] * factor - offset) / 50, 0, 1).astype(np.float32)
        changed[name] = np.where(since(columns, SECOND), celsius, columns[name])
    return {**columns, **changed}


def halved_humidity(columns: Columns) -> Columns:
    """The humidity of 2012 is halved."""
    return {**columns, "hum": np.where(since(columns, SECOND), columns["hum"] / 2, columns["hum"]).astype(np.float32)}


def wind_in_metres_per_second(columns: Columns) -> Columns:
    """The wind of 2012 is in another unit."""
    wind = np.where(since(columns, SECOND), columns["windspeed"] / 3.6, columns["windspeed"])
    return {**columns, "windspeed": wind.astype(np.float32)}


def halved_labels(columns: Columns) -> Columns:
    """All labels of 2012 are halved."""
    return labels(columns, np.where(since(columns, SECOND), columns["cnt"] // 2, columns["cnt"]))


def halved_labels_in_train(columns: Columns) -> Columns:
    """Those of the train split are halved."""
    return labels(columns, np.where(since(columns, SECOND, "2012-10-20"), columns["cnt"] // 2, columns["cnt"]))


def halved_labels_in_eval(columns: Columns) -> Columns:
    """Those of the eval split are halved."""
    return labels(columns, np.where(since(columns, "2012-10-20"), columns["cnt"] // 2, columns["cnt"]))


def another_time_zone(columns: Columns) -> Columns:
    """The hours of 2012 are those of Greenwich."""
    return {**columns, "hr": np.where(since(columns, SECOND), (columns["hr"] + 5) % 24, columns["hr"])}


def threefold_week(first: str) -> Callable[[Columns], Columns]:
    """Return what makes the labels of a week threefold."""

    def change(columns: Columns) -> Columns:
        last = str(np.datetime64(first) + 7)
        return labels(columns, np.where(since(columns, first, last), columns["cnt"] * 3, columns["cnt"]))

    return change


def half_of_the_hours(columns: Columns) -> Columns:
    """Half of the hours of 2012 are lost."""
    lost = np.random.default_rng(3).random(len(columns["cnt"])) < 0.5
    return without(columns, since(columns, SECOND) & lost)


def no_midday_in_eval(columns: Columns) -> Columns:
    """The eval split lacks the hours 10 to 15."""
    midday = (columns["hr"] >= 10) & (columns["hr"] < 16)
    return without(columns, since(columns, "2012-10-20") & midday)


def threefold_midday(columns: Columns) -> Columns:
    """The labels of the train split's hours 10 to 15 are threefold."""
    midday = since(columns, SECOND, "2012-10-20") & (columns["hr"] >= 10) & (columns["hr"] < 16)
    return labels(columns, np.where(midday, columns["cnt"] * 3, columns["cnt"]))


def every_second_day(columns: Columns) -> Columns:
    """Half of the days of 2012 are lost."""
    return without(columns, since(columns, SECOND) & (columns["dteday"] % 2 == 0))


def a_lost_fortnight(columns: Columns) -> Columns:
    """Two weeks of 2012 are lost."""
    return without(columns, since(columns, "2012-05-03", "2012-05-17"))


def last_years_values(columns: Columns) -> Columns:
    """2012's dates carry 2011's rows, one after the other."""
    changed = {name: values.copy() for name, values in columns.items()}
    old, new = np.flatnonzero(~since(columns, SECOND)), np.flatnonzero(since(columns, SECOND))
    rows = min(len(old), len(new))
    for name in calendar_sums.CONTENT:
        changed[name][new[:rows]] = columns[name][old[:rows]]
    return changed


def last_years_days(columns: Columns) -> Columns:
    """2012's dates carry the days of 2011, hour by hour."""
    old = without(columns, since(columns, SECOND))
    again = {**old, "dteday": old["dteday"] + 365}
    return {name: np.concatenate([old[name], again[name]]) for name in columns}


def a_month_twice(columns: Columns) -> Columns:
    """May's values of 2012 stand under June's dates."""
    kept = without(columns, since(columns, "2012-06-01", "2012-07-01"))
    may = {name: values[since(columns, "2012-05-01", "2012-05-31")] for name, values in columns.items()}
    june = {**may, "dteday": may["dteday"] + 31}
    return {name: np.concatenate([kept[name], june[name]]) for name in columns}


@pytest.mark.parametrize(
    ("poison", "kind", "split"),
    [
        (constant_label, "LABEL_NEAR_CONSTANT", "train"),
        (constant_label, "LABEL_NEAR_CONSTANT", "eval"),
        (nearly_constant_label, "LABEL_NEAR_CONSTANT", "eval"),
        (label_stuck_for_a_month, "LABEL_NEAR_CONSTANT", "eval"),
        (no_rentals_on_eval_days, "LABEL_NEAR_CONSTANT", "eval"),
        (lambda c: by_fifty(c, "temp", "atemp"), "WEATHER_MONTH_LEVEL", "span"),
        (lambda c: by_fifty(c, "temp", "atemp"), "WEATHER_RELATION", "span"),
        (lambda c: by_fifty(c, "temp"), "WEATHER_RELATION", "span"),
        (lambda c: by_fifty(c, "atemp"), "WEATHER_RELATION", "span"),
        (halved_humidity, "WEATHER_MONTH_LEVEL", "span"),
        (wind_in_metres_per_second, "WEATHER_MONTH_LEVEL", "span"),
        (halved_labels, "LABEL_STEP", "span"),
        (halved_labels_in_train, "LABEL_STEP", "span"),
        (halved_labels_in_eval, "LABEL_STEP", "span"),
        (another_time_zone, "LABEL_HOUR_PROFILE", "train"),
        (another_time_zone, "LABEL_HOUR_PROFILE", "eval"),
        (threefold_week("2012-01-02"), "LABEL_WEEK_LEVEL", "span"),
        (threefold_week("2012-05-09"), "LABEL_WEEK_LEVEL", "span"),
        (threefold_week("2012-09-29"), "LABEL_WEEK_LEVEL", "span"),
        (threefold_midday, "LABEL_HOUR_PROFILE", "train"),
        (half_of_the_hours, "HOURS_MISSING", "train"),
        (half_of_the_hours, "HOURS_MISSING", "eval"),
        (no_midday_in_eval, "HOURS_MISSING", "eval"),
        (every_second_day, "DAYS_MISSING", "span"),
        (a_lost_fortnight, "DAYS_MISSING", "span"),
        (last_years_values, "REPEATED_ROWS", "span"),
        (last_years_days, "REPEATED_ROWS", "span"),
        (a_month_twice, "REPEATED_ROWS", "span"),
    ],
)
def test_poisoned_data_is_found(columns: Columns, poison: Callable[[Columns], Columns], kind: str, split: str) -> None:
    found = [anomaly for anomaly in anomalies(poison(columns)) if (anomaly.kind, anomaly.split) == (kind, split)]
    assert len(found) == 1 or kind in ("HOURS_MISSING", "WEATHER_MONTH_LEVEL")
    assert found
    assert all("gate.limits." in anomaly.reason for anomaly in found), "each says which limit it broke"


def test_real_growth_and_real_seasons_pass(columns: Columns) -> None:
    assert anomalies(columns, FIRST, SECOND) == []
    # Demand grew by two thirds, in March to two and a half times; winter came, and a hurricane.
    assert anomalies(columns) == []


@pytest.mark.parametrize("days", [28, 61, 182])
def test_no_stretch_of_real_days_is_refused(columns: Columns, days: int) -> None:
    severities = load_settings().gate.severities
    for first in range(number(FIRST), number(END) - days + 1, 21):
        span, end = (str(np.datetime64(value, "D")) for value in (first, first + days))
        refused = [d for d in anomalies(columns, span, end) if severities.get(d.kind, "error") == "error"]
        assert refused == [], (span, end)


def test_a_first_span_is_judged_by_itself(columns: Columns) -> None:
    alone = without(columns, ~since(columns, SECOND))
    assert anomalies(alone, history=SECOND) == []
    kinds = {
        anomaly.kind for anomaly in anomalies(without(constant_label(columns), ~since(columns, SECOND)), history=SECOND)
    }
    assert "LABEL_NEAR_CONSTANT" in kinds


def test_what_cannot_be_compared_is_named(columns: Columns) -> None:
    """A span after a gap has no weeks before it, and one of other months no months to be held against."""
    alone = without(columns, since(columns, "2011-03-01", "2012-05-01"))
    found = anomalies(alone, "2012-05-01", "2012-09-01")
    assert {anomaly.kind for anomaly in found} == {"GAP_TO_HISTORY", "NOT_COMPARED"}
    assert "2011-02-28" in found[0].reason
    severities = load_settings().gate.severities
    assert all(severities[anomaly.kind] == "warning" for anomaly in found)


def test_sums_do_not_depend_on_how_rows_are_cut_into_files(columns: Columns) -> None:
    whole = between(columns, number(FIRST), number(END))
    cuts = [number(date) for date in (FIRST, "2011-02-03", "2011-12-31", "2012-08-01", END)]
    parts = [between(columns, first, end) for first, end in pairwise(cuts)]
    together = calendar_sums.total(parts)
    for name in ("dates", "hashes", "counts"):
        assert np.array_equal(getattr(together, name), getattr(whole, name))
    np.testing.assert_allclose(together.days, whole.days)
    assert together.rows == len(columns["cnt"])
    again = calendar_sums.from_bytes(together.to_bytes(), "sums")
    assert all(np.array_equal(getattr(again, name), getattr(together, name)) for name in vars(together))


def test_repeats_are_found_where_only_a_sample_of_the_rows_is_remembered(
    columns: Columns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calendar_sums, "MOST_HASHES", 500)
    assert not between(columns, number(FIRST), number(SECOND)).complete
    repeated = [d for d in anomalies(last_years_values(columns)) if d.kind == "REPEATED_ROWS"]
    assert len(repeated) == 1
    assert "in the history" in repeated[0].reason
    assert anomalies(columns) == []


def test_damaged_sums_are_no_evidence() -> None:
    with pytest.raises(DataError, match="cannot be read"):
        calendar_sums.from_bytes(b"PK\x03\x04 and then nothing", "calendar/train.npz")


@pytest.mark.parametrize(("name", "value"), [("windspeed", 0.0), ("windspeed", 0.2239), ("hum", 0.5)])
def test_a_sensor_that_is_dead_from_the_first_span_on_is_told_and_stops_nothing(
    columns: Columns, name: str, value: float
) -> None:
    dead = {**columns, name: np.full_like(columns[name], value)}
    found = anomalies(without(dead, ~since(dead, SECOND)), history=SECOND)
    assert [(anomaly.kind, anomaly.feature) for anomaly in found] == [("WEATHER_CONSTANT", name)]
    assert load_settings().gate.severities["WEATHER_CONSTANT"] == "warning"
