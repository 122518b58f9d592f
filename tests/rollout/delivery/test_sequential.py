"""Tests that are looked at after every observation: how often they err, and how soon they find, by simulation.

Seeds are fixed, so that a number is the same each time; limits have room for the simulation's own error (three standard
errors of a share from as many runs).
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special

from bike_pipeline.rollout.delivery.sequential import log_evidence_of_mean, log_evidence_of_share

RUNS = 2000


def most(alpha, runs=RUNS):
    return alpha + 3 * math.sqrt(alpha * (1 - alpha) / runs)


def share_evidence(bad, rows, allowed):
    """The same formula over arrays; the first test holds it against the product's."""
    mixture = special.betaln(bad + 1, rows - bad + 1) + np.log(special.betaincc(bad + 1, rows - bad + 1, allowed))
    return mixture - np.log1p(-allowed) - bad * math.log(allowed) - (rows - bad) * math.log1p(-allowed)


def mean_evidence(values):
    """The same formula after each value of each row, over arrays."""
    counts = np.arange(1, values.shape[1] + 1)
    means = np.cumsum(values, axis=1) / counts
    squares = np.maximum(np.cumsum(values**2, axis=1) - counts * means**2, 1e-12)
    ratio, growth = counts * means**2 / squares, 1 + counts * 0.1
    found = counts / 2 * (np.log1p(ratio) - np.log1p(ratio / growth)) - np.log(growth) / 2
    # One value tells nothing of the spread.
    found[:, 0] = 0.0
    return found


def test_the_simulations_are_of_the_products_formulas():
    random = np.random.default_rng(1)
    values = random.normal(0.2, 1, (1, 30))
    ours = [log_evidence_of_mean(values[0, :count].tolist()) for count in range(1, 31)]
    assert mean_evidence(values)[0] == pytest.approx(ours, rel=1e-6, abs=1e-9)
    for bad, rows, allowed in ((0, 10, 0.01), (3, 40, 0.01), (30, 60, 0.5), (7, 7, 0.1)):
        assert share_evidence(bad, rows, allowed) == pytest.approx(log_evidence_of_share(bad, rows, allowed))


def share_of_runs(evidence, alpha):
    """Return how many runs exceed the limit at any of their looks."""
    return float((evidence.max(axis=1) >= -math.log(alpha)).mean())


@pytest.mark.parametrize("alpha", [0.05, 0.01])
@pytest.mark.parametrize("allowed", [0.01, 0.1, 0.5])
def test_a_share_at_its_limit_is_rarely_found_bad_though_each_row_is_looked_at(alpha, allowed):
    random = np.random.default_rng(2011)
    bad = np.cumsum(random.random((RUNS, 1000)) < allowed, axis=1)
    assert share_of_runs(share_evidence(bad, np.arange(1, 1001), allowed), alpha) <= most(alpha)


def test_a_share_below_its_limit_is_found_bad_more_rarely_still():
    random = np.random.default_rng(2012)
    bad = np.cumsum(random.random((RUNS, 1000)) < 0.005, axis=1)
    assert share_of_runs(share_evidence(bad, np.arange(1, 1001), 0.01), 0.05) <= 0.02


@pytest.mark.parametrize(("share", "rows"), [(1.0, 3), (0.5, 30), (0.1, 200)])
def test_a_bad_share_is_found_soon(share, rows):
    random = np.random.default_rng(3)
    bad = np.cumsum(random.random((RUNS, rows)) < share, axis=1)
    assert share_of_runs(share_evidence(bad, np.arange(1, rows + 1), 0.01), 0.001) >= 0.95


def heavy(random, shape):
    return random.standard_t(4, shape)


def skewed(random, shape):
    # A difference of absolute errors, of two models with the same.
    return np.abs(random.normal(0, 40, shape)) - np.abs(random.normal(0, 40, shape))


def normal(random, shape):
    return random.normal(0, 25, shape)


def rare(random, shape):
    # A difference of shares of errors: nearly always nothing.
    return random.binomial(20, 0.01, shape) / 20 - random.binomial(20, 0.01, shape) / 20


@pytest.mark.parametrize("alpha", [0.05, 0.01])
@pytest.mark.parametrize("drawn", [normal, heavy, skewed, rare])
def test_models_without_a_difference_are_rarely_told_apart_though_each_pair_is_looked_at(alpha, drawn):
    random = np.random.default_rng(2013)
    # The first look of an A/B test is at `test_pairs`, so that few pairs cannot decide.
    evidence = mean_evidence(drawn(random, (RUNS, 1000)))[:, 47:]
    assert share_of_runs(evidence, alpha) <= most(alpha)


def test_a_plain_t_test_that_is_looked_at_after_each_pair_errs_far_more_often():
    random = np.random.default_rng(2013)
    values = normal(random, (RUNS, 1000))
    counts = np.arange(1, 1001)
    means = np.cumsum(values, axis=1) / counts
    spread = np.sqrt(np.maximum(np.cumsum(values**2, axis=1) / counts - means**2, 1e-12) / counts)
    assert float((np.abs(means / spread)[:, 47:] > 1.96).any(axis=1).mean()) > 0.3


@pytest.mark.parametrize(("effect", "pairs", "power"), [(0.5, 100, 0.95), (0.25, 400, 0.95), (0.15, 1000, 0.9)])
def test_a_difference_is_found(effect, pairs, power):
    random = np.random.default_rng(4)
    evidence = mean_evidence(random.normal(effect, 1, (RUNS, pairs)))
    assert share_of_runs(evidence[:, 47:], 0.05) >= power


def test_what_tells_nothing_is_no_evidence():
    assert log_evidence_of_mean([]) == 0.0
    assert log_evidence_of_mean([5.0]) == 0.0
    assert log_evidence_of_mean([0.0] * 100) == 0.0
    assert log_evidence_of_mean([1e308, -1e308, 1e308]) == 0.0
    assert log_evidence_of_share(0, 0, 0.01) == 0.0
    assert log_evidence_of_share(0, 100_000, 0.5) == -math.inf
