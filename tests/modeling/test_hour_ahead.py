"""Factors of answers by the hours before: what they say, how far they go, and what they never look at."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bike_pipeline.modeling import hour_ahead
from bike_pipeline.modeling.feedback import Labels


def labels(hours: list[int], rentals: list[float], expected: list[float]) -> Labels:
    zeros = np.zeros(len(hours), np.int64)
    return Labels(np.array(hours), zeros, np.array(rentals), np.array(expected))


def test_an_hour_that_was_twice_as_busy_moves_the_next_one_most() -> None:
    known = labels([98, 99], [100.0, 210.0], [100.0, 100.0])
    hour, day = math.log(220 / 110), math.log(320 / 210)
    found = hour_ahead.factors(np.array([100, 101, 123, 124]), known)
    assert np.log(found) == pytest.approx([0.5 * hour + 0.2 * day, 0.2 * day, 0.2 * hour, 0.0])


def test_an_hour_is_answered_by_none_of_its_own_or_later_labels() -> None:
    hours = np.arange(100, 160)
    rentals = np.linspace(50.0, 300.0, 60)
    one, other = rentals.copy(), rentals.copy()
    other[30:] = 900.0
    expected = np.full(60, 150.0)
    first, second = (
        hour_ahead.factors(hours, labels(hours.tolist(), r.tolist(), expected.tolist())) for r in (one, other)
    )
    assert np.array_equal(first[:31], second[:31])
    assert (first[31:] < second[31:]).all()


def test_nothing_known_changes_nothing() -> None:
    assert hour_ahead.factors(np.array([5, 500]), Labels()).tolist() == [1.0, 1.0]
    assert hour_ahead.factors(np.array([500]), labels([3], [900.0], [1.0])).tolist() == [1.0]


def test_quantiles_move_with_the_answer_and_stand_closer_to_it() -> None:
    answers, factors = np.array([100.0, 100.0, 10.0, 50.0]), [1.5, 0.5, 2.0, 1.0]
    quantiles = np.array([150.0, 60.0, -30.0, np.nan])
    found = hour_ahead.moved_quantiles(answers, quantiles, factors)
    assert found[:3] == pytest.approx([217.5, 32.0, 0.0])
    assert math.isnan(found[3])
    # The answer itself is moved and nothing else.
    assert hour_ahead.moved_quantiles(answers, answers, factors) == pytest.approx(answers * factors)


def test_whatever_the_labels_say_the_factor_stays_in_its_bounds() -> None:
    wild = labels([9, 10], [1e9, 0.0], [1.0, 1e9])
    found = hour_ahead.factors(np.array([10, 11]), wild)
    assert found == pytest.approx([math.e, 1 / math.e])
