"""Errors, intervals and their estimates: by day, against the backtest, and what cannot be seen is said."""

import dataclasses

import numpy as np
import pytest

from bike_pipeline.modeling.feedback import FIRST_DAY, HOURS_A_DAY
from bike_pipeline.modeling.holidays import is_dated
from bike_pipeline.monitoring.detectors import coverage, error_by_slice, error_stream, estimated_error
from bike_pipeline.monitoring.reference import Reference
from bike_pipeline.monitoring.verdicts import decide
from tests.monitoring.watching import DECISION, SETTINGS, reference, requests, windows

FIRST, LAST = "2012-05-07", "2012-07-29"


def statuses(detector, observed, then=None, first="2012-07-09", count=3):
    found = decide(detector.measure(observed, then or reference(), windows(first, count), SETTINGS), DECISION)
    return {(one.meta["detector"], one.meta["subject"]): one for one in found}


@pytest.fixture(scope="module")
def sound():
    return requests(FIRST, LAST)


@pytest.fixture(scope="module")
def shifted(sound):
    """Demand that is half as large again from the fifth week on."""
    moved = sound["hour"] >= sound["hour"][0] + 28 * 24
    return sound | {"label": np.where(moved, sound["label"] * 1.5, sound["label"])}


@pytest.mark.parametrize("detector", [coverage, error_by_slice, error_stream])
def test_a_level_that_moved_shows_in_errors_and_intervals(detector, sound, shifted):
    assert "changed" not in {one.status for one in statuses(detector, sound).values()}
    assert "changed" in {one.status for one in statuses(detector, shifted).values()}


def test_an_error_in_the_evening_is_told_of_the_evening(sound):
    evening = sound["hr"] >= 20
    observed = sound | {"label": np.where(evening, sound["label"] * 1.6, sound["label"])}
    found = statuses(error_by_slice, observed)
    told = [subject for (_, subject), one in found.items() if one.status == "changed"]
    assert "hours 20-23" in told
    assert "hours 6-9" not in told
    assert found["error_by_slice", "hours 20-23"].data["unit"] == "rentals an hour"


def test_errors_that_become_smaller_are_fine(sound):
    observed = sound | {"answer": (2 * sound["label"] + sound["answer"]) / 3}
    found = statuses(error_by_slice, observed)
    assert "changed" not in {one.status for one in found.values()}
    assert found["error_by_slice", "answers"].status == "fine"


def test_the_estimate_without_labels_says_how_wrong_it_was(shifted):
    (verdict,) = statuses(estimated_error, shifted).values()
    assert verdict.status == "fine"
    assert "cannot see that demand itself has changed" in verdict.data["reason"]
    assert "labels that are there say" in verdict.data["reason"]


def test_the_estimate_sees_inputs_that_the_model_finds_hard(sound):
    wide = {"lower": sound["answer"] - 300.0, "upper": sound["answer"] + 300.0 + sound["hour"] % 5}
    observed = sound | wide | {"label": np.full(len(sound["hour"]), np.nan)}
    (verdict,) = statuses(estimated_error, observed).values()
    assert verdict.status == "changed"


def test_without_a_backtest_or_intervals_nothing_is_judged(sound):
    bare = Reference(reference().columns)
    observed = sound | {name: np.full(len(sound["hour"]), np.nan) for name in ("lower", "upper")}
    for detector in (coverage, error_by_slice, error_stream, estimated_error):
        assert {one.status for one in statuses(detector, observed, bare).values()} == {"not judged"}, detector


def test_an_interval_that_holds_no_label_on_any_day_has_changed(sound):
    observed = sound | {"lower": sound["label"] + 1.0, "upper": sound["label"] + 2.0}
    (verdict,) = statuses(coverage, observed).values()
    assert verdict.status == "changed"
    assert verdict.data["effect"] == pytest.approx(-0.9)


def test_an_interval_that_holds_every_label_is_not_told_from_one_of_few_labels(sound):
    observed = sound | {"lower": sound["label"] - 1.0, "upper": sound["label"] + 2.0}
    (verdict,) = statuses(coverage, observed).values()
    assert verdict.status == "not judged"


def test_the_great_holidays_of_a_backtest_hide_no_larger_error(shifted):
    then = reference()
    labels = then.feedback.labels
    holidays_too = labels.rentals.copy()
    days = labels.hours // HOURS_A_DAY
    dated = np.isin(days, np.unique(days)[is_dated(FIRST_DAY + np.unique(days))])
    assert dated.sum() >= 72
    holidays_too[dated] /= 8.0
    feedback = dataclasses.replace(then.feedback, labels=dataclasses.replace(labels, rentals=holidays_too))
    found = statuses(error_by_slice, shifted, dataclasses.replace(then, feedback=feedback))
    assert found["error_by_slice", "answers"].status == "changed"
