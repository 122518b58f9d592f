from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bike_pipeline.modeling import feedback
from bike_pipeline.modeling.feedback import FeedbackState, Labels
from bike_pipeline.modeling.feedback_record import Backtest, Feedback
from bike_pipeline.settings import load_settings

DAY = feedback.HOURS_A_DAY
SETTINGS = load_settings().training.feedback


def made(days: int, factor: float = 1.0, first: int = 500, noise: float = 0.25, seed: int = 3) -> Labels:
    """Labels of whole days: the model's own answers times a factor, and noise."""
    hours = np.arange(first * DAY, (first + days) * DAY)
    rng = np.random.default_rng(seed)
    hour, day = hours % DAY, hours // DAY
    expected = 150.0 + 100.0 * np.sin((hour - 6) * np.pi / 12)
    groups = feedback.groups_of(hour, day % 7 < 5, np.where(day % 11 == 0, 3, 1))
    rentals = np.round(expected * factor * rng.normal(1.0, noise, len(hours)).clip(0.0))
    return Labels(hours, groups, rentals, expected)


def changed(labels: Labels, chosen: Any, rentals: Any) -> Labels:
    values = labels.rentals.copy()
    values[chosen] = rentals
    return Labels(labels.hours, labels.groups, values, labels.expected)


def factors(state: FeedbackState) -> Any:
    return np.exp(state.levels)


def test_a_moved_level_is_found() -> None:
    assert FeedbackState.fit(made(56), SETTINGS).levels == pytest.approx(0.0, abs=0.12)
    np.testing.assert_allclose(factors(FeedbackState.fit(made(56, 1.5), SETTINGS)), 1.5, rtol=0.12)
    np.testing.assert_allclose(factors(FeedbackState.fit(made(56, 0.7), SETTINGS)), 0.7, rtol=0.12)


def test_the_state_depends_on_the_labels_and_not_on_their_order() -> None:
    labels = made(30, 1.3)
    whole = Feedback(SETTINGS).updated(labels)
    rng = np.random.default_rng(1)
    parts = Feedback(SETTINGS)
    for places in np.array_split(rng.permutation(len(labels.hours)), 7):
        parts = parts.updated(labels[np.sort(places)])
    # Some come twice, and some were wrong at first.
    wrong = changed(labels, slice(100, 140), 0.0)
    parts = parts.updated(wrong[90:150]).updated(labels[90:150]).updated(labels[:24])
    np.testing.assert_array_equal(parts.state.table(), whole.state.table())
    assert parts.state.as_of == whole.state.as_of == labels.hours[-1]


@pytest.mark.parametrize("wrong", [10.0, 0.0])
@pytest.mark.parametrize("place", [0, 200, 54])
def test_a_poisoned_day_moves_no_level_by_a_tenth(wrong: float, place: int) -> None:
    labels = made(56, 1.2)
    day = labels.hours // DAY == (labels.hours[-1] // DAY - place % 56)
    poisoned = FeedbackState.fit(changed(labels, day, labels.rentals[day] * wrong), SETTINGS)
    moved = np.abs(factors(poisoned) / factors(FeedbackState.fit(labels, SETTINGS)) - 1.0)
    assert moved.max() < 0.1


def test_the_last_week_of_a_year_says_nothing_of_the_next() -> None:
    # The model's own answers until 21 December 2012, and half of them after it.
    last = (np.datetime64("2012-12-31") - np.datetime64("2011-01-01")).astype(int)
    labels = made(56, first=last - 55)
    late = labels.hours // DAY > last - 10
    quiet = FeedbackState.fit(changed(labels, late, labels.rentals[late] * 0.5), SETTINGS)
    np.testing.assert_array_equal(quiet.levels, FeedbackState.fit(labels, SETTINGS).levels)
    assert (quiet.quantiles < FeedbackState.fit(labels, SETTINGS).quantiles).any()


def test_labels_that_are_wrong_for_good_move_the_level_to_its_bound_and_no_further() -> None:
    state = FeedbackState.fit(made(56, 1_000.0), SETTINGS)
    assert state.levels == pytest.approx(feedback.LARGEST_LEVEL)


def test_without_a_shift_feedback_costs_less_than_a_hundredth() -> None:
    backtest = Backtest.of(made(400), SETTINGS)
    assert backtest.mae_with_feedback <= 1.01 * backtest.mae
    assert backtest.mae_with_feedback != backtest.mae


def test_after_a_shift_feedback_takes_most_of_its_error() -> None:
    shifted = Backtest.of(made(120, 1.6), SETTINGS)
    assert shifted.mae_with_feedback < 0.6 * shifted.mae


def test_each_answer_is_made_of_labels_that_had_arrived() -> None:
    for late in (1, 7):
        settings = SETTINGS.model_copy(update={"label_delay_days": late})
        labels = made(80, 1.3)
        found = feedback.replay(labels, settings)
        # What comes from this day on is not known on any day before the labels of this day arrive.
        day = 60
        future = changed(labels, slice(day * DAY, None), 0.0)
        other = feedback.replay(future, settings)
        known = (day + late) * DAY
        np.testing.assert_array_equal(found.rentals[:known], other.rentals[:known])
        np.testing.assert_array_equal(found.quantiles[:known], other.quantiles[:known])
        assert (found.rentals[known : known + DAY] != other.rentals[known : known + DAY]).all()


def test_intervals_hold_what_they_name() -> None:
    labels = made(300)
    found = feedback.replay(labels, SETTINGS)
    known = np.isfinite(found.quantiles).all(axis=1)
    assert known[3 * DAY :].all()
    assert not known[:DAY].any()
    for place, level in enumerate(SETTINGS.quantiles.values()):
        below = (labels.rentals <= found.quantiles[:, place])[known].mean()
        assert below == pytest.approx(level, abs=0.03)
    assert (np.diff(found.quantiles[known], axis=1) >= 0).all()
    backtest = Backtest.of(labels, SETTINGS)
    assert backtest.nominal == 0.9
    assert backtest.coverage == pytest.approx(0.9, abs=0.02)
    assert backtest.interval_score > backtest.width > 0


def test_a_state_says_nothing_of_the_hours_up_to_it_and_wanes_after_its_last_label() -> None:
    as_of = 10_000
    ages = np.array([-1, 0, 1, 14 * DAY, 35 * DAY, 56 * DAY, 10_000 * DAY])
    np.testing.assert_allclose(feedback.weight_of(as_of + ages, as_of), [0, 0, 1, 1, 0.5, 0, 0])


def test_without_labels_there_is_no_level_and_no_interval() -> None:
    state = Feedback(SETTINGS).state
    assert (state.levels == 0).all()
    assert np.isnan(state.quantiles).all()
    assert state.as_of == feedback.NEVER
    few = FeedbackState.fit(made(1), SETTINGS)
    assert np.isnan(few.quantiles).all()
    assert np.isnan(Backtest.of(made(1), SETTINGS).coverage)


def test_what_is_kept_is_read_as_it_was() -> None:
    for kept in (
        Feedback.of_backtest(made(40, 1.4), SETTINGS),
        Feedback(SETTINGS),
        Feedback.of_backtest(made(1), SETTINGS),
    ):
        again = Feedback.from_json(kept.to_json())
        assert again.to_json() == kept.to_json()
        np.testing.assert_array_equal(again.state.table(), kept.state.table())


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 2}', '{"format": 1, "settings": {}}'])
def test_other_text_is_no_state(text: str) -> None:
    with pytest.raises(ValueError, match=r"state of feedback|Expecting|validation error"):
        Feedback.from_json(text)


def test_hours_of_raw_rows_are_those_of_the_calendar() -> None:
    columns = {
        name: np.array(values)
        for name, values in {
            "yr": [0, 1, 1, 2],
            "mnth": [1, 2, 12, 3],
            "day": [1, 29, 31, 1],
            "hr": [0, 5, 23, 1],
        }.items()
    }
    days = np.array(["2011-01-01", "2012-02-29", "2012-12-31", "2013-03-01"], "datetime64[D]")
    expected = (days - np.datetime64("2011-01-01")).astype(int) * DAY + columns["hr"]
    np.testing.assert_array_equal(feedback.hours_of(columns), expected)
