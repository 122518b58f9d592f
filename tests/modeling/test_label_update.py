from __future__ import annotations

import datetime as dt

import numpy as np
import pytest

from bike_pipeline.modeling import feedback, label_update
from bike_pipeline.modeling.feedback import Labels
from bike_pipeline.modeling.feedback_record import Feedback
from bike_pipeline.settings.training import FeedbackSettings
from tests.conftest import TRAINING

SETTINGS = FeedbackSettings.model_validate(TRAINING["feedback"])
# 2012-01-01 00:00.
START = 365 * 24


def labels(first: int, count: int, rentals: float = 100.0) -> Labels:
    hours = START + np.arange(first, first + count)
    return Labels(hours, (hours % 24) % 10, np.full(count, rentals), np.full(count, 100.0))


def test_hours_and_moments_are_the_same_thing() -> None:
    assert label_update.moment(START + 5) == "2012-01-01T05:00"
    assert label_update.hour_of(dt.datetime(2012, 1, 1, 5, 30)) == START + 5


def test_each_hour_of_an_upload_does_one_thing() -> None:
    known = labels(0, 48)
    upload = labels(-24, 120)
    upload.rentals[30] = 7.0
    new, counts = label_update.changes(known, upload, first=START)
    assert counts == label_update.LabelCounts(new=48, corrected=1, known=47, trained=24, too_old=0)
    np.testing.assert_array_equal(new.hours, [START + 6, *range(START + 48, START + 96)])
    merged = known.merged(new)
    assert (len(merged.hours), merged.rentals[6]) == (96, 7.0)
    again, counts = label_update.changes(merged, upload, first=START)
    assert len(again.hours) == 0
    assert (counts.new, counts.corrected, counts.known) == (0, 0, 96)


def test_what_is_much_older_than_the_newest_label_is_too_old() -> None:
    weeks = feedback.WINDOW_DAYS * 24
    late, counts = label_update.changes(labels(weeks, 24), labels(0, 48), first=START)
    assert (counts.new, counts.too_old) == (24, 24)
    np.testing.assert_array_equal(late.hours, START + np.arange(24, 48))
    # As the state itself sees it.
    assert len(labels(weeks, 24).merged(labels(0, 48)).last_weeks().hours) == 48


def test_a_model_without_labels_takes_them() -> None:
    new, counts = label_update.changes(Labels(), labels(0, 24), first=START)
    assert (len(new.hours), counts.new) == (24, 24)


@pytest.mark.parametrize(
    ("rentals", "far"), [(100.0, []), (120.0, []), (1000.0, ["2012-01-02"]), (1.0, ["2012-01-02"])]
)
def test_a_day_out_of_bounds_is_named_with_both_sums(rentals: float, far: list[str]) -> None:
    after = Feedback(SETTINGS).updated(labels(0, 24).merged(labels(24, 24, rentals)))
    found = label_update.outlier_days(after, after.labels.hours)
    assert [day.day for day in found] == far
    for day in found:
        assert (day.hours, day.rentals) == (24, 24 * rentals)
        assert day.expected == pytest.approx(2400, rel=0.01)
    assert label_update.outlier_days(after, labels(0, 24).hours) == []


def test_levels_at_their_bound_are_counted() -> None:
    assert label_update.bounded_groups(Feedback(SETTINGS).updated(labels(0, 24))) == 0
    assert label_update.bounded_groups(Feedback(SETTINGS).updated(labels(0, 24 * 40, 2000.0))) == feedback.GROUPS
