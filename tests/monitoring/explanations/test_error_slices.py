"""Where a model errs most: what was put in is found, and chance is not told as a finding."""

from __future__ import annotations

import numpy as np
import pytest

from bike_pipeline.monitoring.explanations.error_slices import worst_slices
from bike_pipeline.monitoring.explanations.whole_model import hour_curves
from tests.monitoring.watched import Watched

RATE = 0.05


@pytest.fixture(scope="module")
def watched(embedded_rows):
    return Watched(embedded_rows)


def noisy(watched, seed, spread=0.2):
    """Rows of half a year whose errors are the same everywhere, days alike."""
    rows = watched.weeks(*range(10, 36))
    rng = np.random.default_rng(seed)
    rows["label"] = rows["answer"] + rng.normal(0, 30, len(rows["answer"]))
    return rows


def test_a_slice_that_errs_more_is_found_in_words(watched):
    rows = noisy(watched, 1)
    bad = (rows["hr"] >= 16) & (rows["hr"] <= 19) & (rows["workingday"] == 1)
    rows["label"] = np.where(bad, rows["answer"] + 3 * (rows["label"] - rows["answer"]), rows["label"])
    (first, *others), how = worst_slices(rows, RATE)
    assert first.words == "hours 16-19, working day"
    assert first.mae == pytest.approx(3 * first.mae_elsewhere, rel=0.1)
    assert first.p_value < 1e-6
    assert first.days > 50
    assert others == []
    assert "of every other day" in how


def test_chance_is_not_told_as_a_slice(watched):
    told = sum(bool(worst_slices(noisy(watched, seed), RATE)[0]) for seed in range(60))
    # One in twenty is what the rate allows; a search that tests on its own rows tells one each time.
    assert told <= 8


def test_rows_without_labels_do_not_count_and_too_few_are_told(watched):
    rows = noisy(watched, 1)
    rows["label"][150:] = np.nan
    found, how = worst_slices(rows, RATE)
    assert found == []
    assert how == "not looked for: 150 labelled rows, of 160 that it takes"


def test_one_day_alone_is_no_slice(watched):
    rows = noisy(watched, 2)
    day = rows["hour"] // 24 == rows["hour"][2000] // 24
    rows["label"] = np.where(day, rows["answer"] + 900, rows["label"])
    assert worst_slices(rows, RATE)[0] == []


def test_answers_by_the_hour_are_those_of_the_model(watched):
    rows = watched.weeks(20)
    working, other = hour_curves(watched.predict, rows)
    assert (working.workingday, other.workingday) == (True, False)
    assert (len(working.rows), len(working.mean), len(working.rows[0])) == (10, 24, 24)
    expected = watched.predict(
        {**rows, "hr": np.full(len(rows["hr"]), 17), "workingday": np.ones(len(rows["hr"]), int)}
    )
    assert working.mean[17] == pytest.approx(expected.mean())
    assert working.rows[0][17] == pytest.approx(expected[0])
