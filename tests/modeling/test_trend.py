"""Growth told from season and weather, on rows whose growth is known."""

from __future__ import annotations

import numpy as np
import pytest

from bike_pipeline.modeling import preprocessing, training
from bike_pipeline.modeling.trend import FEWEST_MONTHS, LARGEST_GROWTH, REPEATED_MONTHS, Trend, sun_elevation
from tests.conftest import TRAINING


def rows_of(months, growth, seed=3, per_month=400):
    """Return transformed rows of the last `months` months and rentals that grow, with season and hour."""
    generator = np.random.default_rng(seed)
    count = months * per_month
    before_end = np.repeat(np.arange(months)[::-1], per_month)
    month = (11 - before_end) % 12
    hour, workingday = generator.integers(0, 24, count), generator.integers(0, 2, count)
    warmth = np.sin((month - 3) * np.pi / 6) + generator.normal(0, 0.4, count)
    dense = np.zeros((count, preprocessing.DENSE_WIDTH), np.float32)
    dense[:, 0] = warmth
    inputs = {
        "hour_workingday": hour + 24 * workingday,
        "hour_weekday": hour,
        "weather": generator.integers(0, 4, count),
        "month": month,
        preprocessing.MONTHS_BEFORE_END: before_end.astype(np.float32),
        preprocessing.DENSE: dense,
    }
    log_label = 5 + 0.4 * warmth + 0.5 * np.sin(hour / 4) + generator.normal(0, 0.2, count) - growth * before_end
    return inputs, np.expm1(np.maximum(log_label, 0.0)).astype(np.float32)


@pytest.mark.parametrize("months", [12, 18, 24, 30])
@pytest.mark.parametrize("growth", [-0.03, 0.0, 0.04])
def test_growth_is_told_from_season_and_hour(months, growth):
    inputs, label = rows_of(months, growth)
    trend = Trend.fit(inputs, label)
    assert trend.growth == pytest.approx(growth, abs=0.006)
    assert trend.repeated == (months >= REPEATED_MONTHS)
    before_end = inputs[preprocessing.MONTHS_BEFORE_END]
    assert trend.start == pytest.approx(np.mean(np.log1p(label) + trend.growth * before_end), rel=1e-6)


def test_a_few_months_have_no_growth_and_a_wild_one_is_bounded():
    inputs, label = rows_of(FEWEST_MONTHS - 1, 0.3)
    assert Trend.fit(inputs, label) == Trend(float(np.mean(np.log1p(label.astype(float)))), 0.0, False)
    assert Trend.fit(*rows_of(8, 0.5)).growth == LARGEST_GROWTH
    assert Trend.fit(*rows_of(8, -0.5)).growth == -LARGEST_GROWTH


def test_growth_is_the_same_however_the_rows_are_cut(monkeypatch):
    inputs, label = rows_of(14, 0.02)
    whole = Trend.fit(inputs, label)
    monkeypatch.setattr("bike_pipeline.modeling.trend.ROWS_AT_ONCE", 777)
    assert Trend.fit(inputs, label) == whole


def test_a_label_that_is_constant_does_not_grow():
    inputs, label = rows_of(12, 0.05)
    assert Trend.fit(inputs, np.full_like(label, 40.0)).growth == pytest.approx(0.0, abs=1e-4)


def test_the_sun_is_highest_at_noon_in_june_and_below_the_horizon_at_night():
    month, hour = (grid.ravel() for grid in np.meshgrid(np.arange(12), np.arange(24)))
    sine = sun_elevation(month, hour)
    assert month[np.argmax(sine)] == 5
    assert hour[np.argmax(sine)] in {11, 12}
    assert (sine[hour == 0] < 0).all()
    # At the equinoxes the sun stands at 90° less the latitude.
    assert sun_elevation(np.array([2]), np.array([11]))[0] == pytest.approx(np.cos(np.radians(38.9)), abs=0.05)


@pytest.mark.parametrize("months", [12, 24])
def test_month_and_level_are_learnt_from_two_years_and_growth_from_one(months):
    from bike_pipeline.modeling import architectures

    inputs, label = rows_of(months, 0.04, per_month=60)
    training.repeatable(5)
    trend = Trend.fit(inputs, label)
    model = architectures.build((8,), 2, 0.0, trend)
    training.fit(model, inputs, label, {**TRAINING, "epochs": 2}, 5, training.loss_of(label))
    learnt = {name: np.abs(model.get_layer(name).get_weights()[0]).max() > 0 for name in ("month_effect", "level")}
    assert learnt == dict.fromkeys(learnt, months == 24)
    # What lies after the training rows stands at their end, whatever the growth.
    row = {name: values[-1:] for name, values in inputs.items()}
    earlier = {**row, preprocessing.MONTHS_BEFORE_END: np.array([10.0], np.float32)}
    if months == 12:
        rise = float(model(row, training=False)[0] - model(earlier, training=False)[0])
        assert rise == pytest.approx(10 * trend.growth, rel=1e-4)
