"""Growth told from season and weather, on rows whose growth is known."""

from __future__ import annotations

import typing

import keras
import numpy as np
import pytest

from bike_pipeline import features
from bike_pipeline.modeling import architectures, holidays, preprocessing, training
from bike_pipeline.modeling.trend import (
    CLOSEST_KNOT_DAYS,
    DAYS_A_MONTH,
    FEWEST_MONTHS,
    KNOT_DAYS,
    LARGEST_GROWTH,
    LEVEL_MONTHS,
    NO_PRIORS,
    REPEATED_MONTHS,
    Trend,
    knot_days,
)
from bike_pipeline.settings.training import HolidayName
from tests.conftest import TRAINING


def rows_of(months, growth, seed=3, per_day=13):
    """Return transformed rows of the last `months` months and rentals that grow, with season and hour."""
    generator = np.random.default_rng(seed)
    days = round(months * DAYS_A_MONTH)
    count = days * per_day
    before_end = np.repeat(np.arange(days)[::-1], per_day)
    month = ((11.99 - before_end / DAYS_A_MONTH) % 12).astype(np.int64)
    hour, workingday = np.tile(np.arange(per_day), days), generator.integers(0, 2, count)
    warmth = np.sin((month - 3) * np.pi / 6) + generator.normal(0, 0.4, count)
    dense = np.zeros((count, preprocessing.DENSE_WIDTH), np.float32)
    dense[:, 0] = warmth
    inputs = {name: generator.integers(0, size, count) for name, size in preprocessing.CODES.items()} | {
        "hour": hour,
        "hour_workingday": hour + 24 * workingday,
        "month": month,
        preprocessing.DAYS_BEFORE_END: before_end.astype(np.float32),
        preprocessing.DENSE: dense,
        preprocessing.TIME_OF_YEAR: np.zeros((count, preprocessing.TIME_OF_YEAR_WIDTH), np.float32),
    }
    grown = growth * before_end / DAYS_A_MONTH
    log_label = 5 + 0.4 * warmth + 0.5 * np.sin(hour / 4) + generator.normal(0, 0.2, count) - grown
    return inputs, np.expm1(np.maximum(log_label, 0.0)).astype(np.float32)


@pytest.mark.parametrize("months", [12, 18, 24, 30])
@pytest.mark.parametrize("growth", [-0.03, 0.0, 0.04])
def test_growth_is_told_from_season_and_hour(months, growth):
    inputs, label = rows_of(months, growth)
    trend = Trend.fit(inputs, label)
    assert trend.growths == pytest.approx((growth,), abs=0.006)
    assert trend.repeated == (months >= REPEATED_MONTHS)
    months_before_end = inputs[preprocessing.DAYS_BEFORE_END] / DAYS_A_MONTH
    assert trend.starts == pytest.approx((np.mean(np.log1p(label) + growth * months_before_end),), rel=0.02)


def test_a_few_months_have_no_growth_and_a_wild_one_is_bounded():
    inputs, label = rows_of(FEWEST_MONTHS - 1, 0.3)
    trend = Trend.fit(inputs, label)
    assert (trend.growths, trend.repeated, trend.knots) == ((0.0,), False, 0)
    assert trend.starts == pytest.approx((np.mean(np.log1p(label.astype(float))),))
    assert Trend.fit(*rows_of(8, 0.5)).growths == (LARGEST_GROWTH,)
    assert Trend.fit(*rows_of(8, -0.5)).growths == (-LARGEST_GROWTH,)


def test_growth_is_the_same_however_the_rows_are_cut(monkeypatch):
    inputs, label = rows_of(14, 0.02)
    whole = Trend.fit(inputs, label)
    monkeypatch.setattr("bike_pipeline.modeling.trend.ROWS_AT_ONCE", 777)
    assert Trend.fit(inputs, label) == whole


def test_a_label_that_is_constant_does_not_grow():
    inputs, label = rows_of(12, 0.05)
    assert Trend.fit(inputs, np.full_like(label, 40.0)).growths == pytest.approx((0.0,), abs=1e-4)


def test_every_label_has_its_own_start_and_growth():
    (inputs, label), (_, other) = rows_of(12, 0.03), rows_of(12, 0.01)
    trend = Trend.fit(inputs, np.stack([label, other, label * 0], axis=1))
    alone = [Trend.fit(inputs, values) for values in (label, other, label * 0)]
    assert trend.starts == pytest.approx([one.starts[0] for one in alone])
    assert trend.growths == pytest.approx([one.growths[0] for one in alone])
    assert trend.growths[0] > trend.growths[1] > trend.growths[2] == 0.0


def with_a_holiday(months, effect, count, kind=3):
    """Return rows of which `count` are holidays of a kind that adds so much to log(1 + rentals)."""
    inputs, label = rows_of(months, 0.02)
    holiday = np.zeros(len(label), np.int64)
    holiday[np.random.default_rng(8).choice(len(label), count, replace=False)] = kind
    moved = np.expm1(np.maximum(np.log1p(label) + effect * (holiday == kind), 0.0))
    return inputs | {"holiday_kind": holiday}, moved.astype(np.float32)


def test_a_kind_of_holiday_has_the_effect_that_its_rows_show_and_one_without_rows_has_none():
    trend = Trend.fit(*with_a_holiday(14, -0.8, 240))
    assert trend.holidays == pytest.approx((0, 0, 0, -0.8 * 240 / 264, 0, 0, 0, 0), abs=0.05)
    assert {effect for kind, effect in enumerate(trend.holidays) if kind != 3} == {0.0}
    # Of one day half of what it shows is believed, and rows of a few months tell no holiday from season.
    assert Trend.fit(*with_a_holiday(14, -0.8, 24)).holidays[3] == pytest.approx(-0.4, abs=0.08)
    assert set(Trend.fit(*with_a_holiday(FEWEST_MONTHS - 1, -0.8, 240)).holidays) == {0.0}


def test_what_is_known_of_a_holiday_before_any_row_counts_as_much_as_one_day_of_it():
    priors = (0.0, 0.0, -0.5, -0.4, 0.0, 0.0, 0.0, 0.0)
    few, many = (Trend.fit(*with_a_holiday(14, -0.8, rows), priors).holidays for rows in (24, 240))
    assert few[2] == many[2] == pytest.approx(-0.5)
    assert few[3] == pytest.approx(-0.6, abs=0.08)
    assert many[3] == pytest.approx((-0.8 * 240 - 0.4 * 24) / 264, abs=0.05)
    assert Trend.fit(*with_a_holiday(FEWEST_MONTHS - 1, -0.8, 240), priors).holidays == priors


def test_priors_are_named_as_the_kinds_of_holiday_are():
    assert typing.get_args(HolidayName) == holidays.NAMES
    assert len(holidays.NAMES) == holidays.KINDS - 1
    assert holidays.priors({"holiday_priors": {"christmas": 0.5}}) == (0.0, 0.0, 0.0, np.log(0.5), 0.0, 0.0, 0.0, 0.0)
    assert holidays.priors({"holiday_priors": {}}) == NO_PRIORS


def test_every_network_answers_a_holiday_without_rows_by_its_prior():
    inputs, labels = with_a_holiday(14, 0.0, 24, kind=1)
    trend = Trend.fit(inputs, np.stack([labels] * 3, axis=1), (0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0))
    row = {name: values[:1] for name, values in inputs.items()}
    for architecture in ("linear", "deep"):
        keras.utils.set_random_seed(3)
        model = architectures.build(TRAINING | {"architecture": architecture}, trend)
        asked = {k: {**row, "holiday_kind": np.array([k])} for k in (0, 3)}
        usual, holiday = (float(model({t.name: asked[k][t.name] for t in model.inputs})[0]) for k in (0, 3))
        assert holiday - usual == pytest.approx(-1.0, abs=0.15), architecture


@pytest.mark.parametrize("architecture", ["trees", "blend"])
def test_trees_answer_a_holiday_by_its_effect_on_whatever_day_it_is(architecture):
    inputs, label = with_a_holiday(14, -0.8, 240)
    plain = np.zeros((len(label), preprocessing.PLAIN_WIDTH), np.float32)
    plain[:, -1], plain[:, 0] = inputs[preprocessing.DAYS_BEFORE_END], inputs[preprocessing.DENSE][:, 0]
    inputs[preprocessing.PLAIN] = plain
    labels = np.stack([label, label * 0.2, label * 0.8], axis=1)
    how = {**TRAINING, "architecture": architecture, "tree_rounds": 20, "epochs": 1}
    model, _ = training.train_transformed(inputs | dict(zip(features.LABELS, labels.T, strict=True)), how, 5)
    row = {tensor.name: inputs[tensor.name][-1:] for tensor in model.inputs}
    usual, holiday = (float(model({**row, "holiday_kind": np.array([k])}, training=False)[0]) for k in (0, 3))
    effect = Trend.fit(inputs, labels).holidays[3]
    if architecture == "trees":
        assert holiday - usual == pytest.approx(effect, abs=1e-5)
    else:
        # The network's share has its own answer.
        assert holiday < usual + 0.1 * effect


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        (lambda day, hour: day >= 0, KNOT_DAYS),
        # A day without rows now and then is an outage; a quarter of all hours at random lies between others.
        (lambda day, hour: day % 50 > 0, KNOT_DAYS),
        (lambda day, hour: np.random.default_rng(1).random(len(day)) > 0.25, CLOSEST_KNOT_DAYS),
        (lambda day, hour: day % 30 < 20, 30.0),
        # Half a year is no gap to draw a line over.
        (lambda day, hour: abs(day - 365) > 90, KNOT_DAYS),
    ],
)
def test_knots_stand_as_close_as_the_hours_without_rows_allow(kept, expected):
    day, hour = (grid.ravel() for grid in np.meshgrid(np.arange(730), np.arange(24)))
    chosen = kept(day, hour)
    assert knot_days(day[chosen], hour[chosen]) == expected


def trained(months):
    inputs, label = rows_of(months, 0.04, per_day=4)
    labels = np.stack([label, label * 0.2, label * 0.8], axis=1)
    model, _ = training.train_transformed(
        inputs | dict(zip(features.LABELS, labels.T, strict=True)), {**TRAINING, "dropout": 0.0, "epochs": 2}, 5
    )
    trend = Trend.fit(inputs, labels)
    return model, trend, {tensor.name: inputs[tensor.name][-1:] for tensor in model.inputs}


@pytest.mark.parametrize("months", [12, LEVEL_MONTHS, 24])
def test_the_level_is_learnt_beside_the_growth_where_there_are_rows_enough(months):
    model, _, _ = trained(months)
    layers = {layer.name: layer for layer in model.layers}
    assert ("level" in layers) == (months >= LEVEL_MONTHS)
    assert ("level_of_trunk" in layers) == (preprocessing.TIME_OF_YEAR in layers) == (months >= REPEATED_MONTHS)
    if months >= LEVEL_MONTHS:
        assert np.abs(layers["level"].get_weights()[0]).max() > 0


def test_a_year_alone_grows_by_what_the_ridge_found():
    model, trend, row = trained(12)
    earlier = {**row, preprocessing.DAYS_BEFORE_END: np.array([10 * DAYS_A_MONTH], np.float32)}
    rise = np.diff([float(np.log(np.exp(model(r, training=False)[0]) + 1.0)) for r in (earlier, row)])
    # log(1 + casual) and log(1 + registered) have a 1 more than log(1 + rentals).
    low, high = sorted(10 * growth for growth in trend.growths[1:])
    assert low - 1e-3 < rise < high + 1e-3


def test_the_model_and_its_heads_answer_the_sum_of_both_kinds_of_riders():
    model, _, row = trained(12)
    answer, *heads = architectures.with_heads(model)(row, training=False).numpy()[0]
    assert answer == pytest.approx(float(model(row, training=False)[0]), rel=1e-6)
    assert np.expm1(answer) == pytest.approx(np.maximum(np.expm1(heads), 0.0).sum(), rel=1e-4)
    alone = architectures.build({**TRAINING, "architecture": "linear"}, Trend((4.0, 2.0, 3.0), (0.0,) * 3))
    assert architectures.with_heads(alone) is alone
