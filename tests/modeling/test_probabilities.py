"""Metrics of a probability, against scikit-learn's, and the threshold from which on an hour is called busy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as reference

from bike_pipeline.modeling import probabilities
from bike_pipeline.modeling.targets import Busy

TARGET = Busy(above=100.0, threshold=0.4)


@pytest.fixture
def sample():
    """1,000 hours: rentals, and a probability that tells something of them."""
    random = np.random.default_rng(5)
    rentals = random.integers(0, 300, 1000)
    odds = (rentals - 100) / 40 + random.normal(0, 1.5, 1000)
    return rentals, (1 / (1 + np.exp(-odds))).astype(np.float32)


def measured(rentals, probability):
    return TARGET.metrics_of(TARGET.terms_of(rentals, probability).sum(axis=1))


def test_metrics_are_those_of_scikit_learn(sample):
    rentals, p = sample
    busy, called = rentals > 100, p >= 0.4
    found = measured(rentals, p)
    assert found["log_loss"] == pytest.approx(reference.log_loss(busy, p), rel=1e-6)
    assert found["brier"] == pytest.approx(reference.brier_score_loss(busy, p), rel=1e-6)
    assert found["auc"] == pytest.approx(reference.roc_auc_score(busy, p), abs=5e-4)
    assert found["precision"] == pytest.approx(reference.precision_score(busy, called))
    assert found["recall"] == pytest.approx(reference.recall_score(busy, called))
    assert found["f1"] == pytest.approx(reference.f1_score(busy, called))
    assert found["mae"] == pytest.approx(reference.mean_absolute_error(busy, p), rel=1e-6)
    assert found["rmse"] == pytest.approx(math.sqrt(found["brier"]))
    assert found["calibration"] == pytest.approx(p.astype(float).sum() / busy.sum())


def test_sums_of_parts_add_up(sample):
    rentals, p = sample
    whole = TARGET.terms_of(rentals, p).sum(axis=1)
    parts = TARGET.terms_of(rentals[:300], p[:300]).sum(axis=1) + TARGET.terms_of(rentals[300:], p[300:]).sum(axis=1)
    np.testing.assert_allclose(parts, whole, rtol=1e-12)
    # The first six are those that every target has.
    np.testing.assert_allclose(whole[[0, 4]], [1000, (rentals > 100).sum()])


def test_certainty_that_is_wrong_costs_much_and_stays_finite():
    found = measured([0, 200], [1.0, 0.0])
    assert found["log_loss"] == pytest.approx(-math.log(probabilities.NEAREST), rel=1e-6)
    assert found["auc"] == 0.0


def test_an_answer_that_is_no_number_spoils_every_metric_that_averages():
    found = measured([0, 200, 200], [0.1, 0.9, math.nan])
    assert all(math.isnan(found[name]) for name in ("log_loss", "brier", "auc", "calibration", "mae"))


def test_without_busy_hours_what_is_about_them_is_undefined():
    found = measured([1, 2], [0.1, 0.2])
    assert math.isnan(found["auc"])
    assert math.isnan(found["recall"])
    assert found["log_loss"] > 0


def test_the_threshold_makes_f1_as_large_as_any(sample):
    rentals, p = sample
    busy = rentals > 100
    chosen = probabilities.best_threshold(busy, p)
    best = max(reference.f1_score(busy, p >= other) for other in np.unique(p))
    assert reference.f1_score(busy, p >= chosen) == pytest.approx(best)
    # It lies between two answers, so that rounding moves no row across.
    assert np.abs(p - chosen).min() > 0


@pytest.mark.parametrize(
    ("label", "probability", "wanted"),
    [
        ([True, True], [0.7, 0.7], 0.35),
        ([True, False, True, False], [0.9, 0.5, 0.5, 0.1], 0.3),
        ([False, False], [0.2, 0.9], 0.5),
    ],
)
def test_rows_of_one_probability_stay_together(label, probability, wanted):
    assert probabilities.best_threshold(np.array(label), np.array(probability)) == pytest.approx(wanted)
