"""Wrong values are found, named and repaired; weather that is only unusual is left alone."""

from __future__ import annotations

import numpy as np
import pytest

from bike_pipeline.monitoring.faults import faults_of
from tests.monitoring.watched import Watched

WEATHER = ("temp", "atemp", "hum", "windspeed", "weathersit")


@pytest.fixture(scope="module")
def watched(embedded_rows):
    return Watched(embedded_rows)


@pytest.fixture(scope="module")
def reference(watched):
    return watched.weeks(*range(52))


def still(rows):
    return {"hum": np.where(np.arange(len(rows["hum"])) >= 100, rows["hum"][100], rows["hum"])}


def late(rows):
    return {name: np.roll(rows[name], 5) for name in WEATHER}


CASES = {
    "hum and windspeed swapped": lambda rows: {"hum": rows["windspeed"], "windspeed": rows["hum"]},
    "temp out of its range": lambda rows: {"temp": np.where(rows["hr"] == 8, np.nan, rows["temp"])},
    "weathersit out of its range": lambda rows: {"weathersit": np.where(rows["hr"] == 8, 7, rows["weathersit"])},
    "weekday not that of the date": lambda rows: {"weekday": (rows["weekday"] + 1) % 7},
    "workingday against weekday and holiday": lambda rows: {"workingday": np.ones_like(rows["workingday"])},
    "hum does not move": still,
    "weather 5 hours too late": late,
    "labels 1 hours too early": lambda rows: {"label": np.roll(rows["label"], -1)},
}


@pytest.mark.parametrize("what", CASES)
def test_a_fault_is_named_with_its_rows_and_its_values_come_back(watched, reference, what):
    rows = watched.weeks(20, 21, 22, 23)
    changed = CASES[what](rows)
    broken = {**rows, **changed}
    found = faults_of(broken, reference)
    assert what in found.counts, found.reason
    repaired = found.repaired(broken, reference)
    for name in changed:
        wrong = broken[name] != rows[name]
        off = np.abs(repaired[name].astype(float) - rows[name])[wrong]
        # What is only as in rows like it is near; a mistake that is known is taken back whole.
        usual = np.abs(np.nan_to_num(broken[name].astype(float)) - rows[name])[wrong]
        assert np.nanmean(off) < 0.6 * usual.mean(), (name, np.nanmean(off), usual.mean())


@pytest.mark.parametrize("weeks", [(0, 1), (5, 6), (20, 21), (30, 31), (45, 46)])
def test_real_weeks_have_hardly_a_fault(watched, reference, weeks):
    others = watched.weeks(*(set(range(52)) - set(weeks)))
    assert faults_of(watched.weeks(*weeks), others).rows.mean() < 0.1


def test_a_hot_week_is_no_fault(watched, reference):
    rows = watched.weeks(20, 21)
    rows["temp"], rows["atemp"] = rows["temp"] + 7 / 47, rows["atemp"] + 7 / 66
    assert faults_of(rows, reference).rows.mean() < 0.1


def test_a_row_keeps_its_first_fault_of_a_column_and_the_reason_counts_each_once(watched, reference):
    rows = watched.weeks(20, 21)
    rows["weekday"] = np.full_like(rows["weekday"], 9)
    found = faults_of(rows, reference)
    assert found.counts["weekday out of its range"] == len(rows["weekday"])
    assert "weekday not that of the date" not in found.counts
