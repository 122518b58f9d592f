from __future__ import annotations

import functools
import math

import keras
import numpy as np
import pytest
import tensorflow_model_analysis as tfma
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_model_analysis.metrics import metric_specs, metric_types
from tensorflow_model_analysis.utils import config_util

from bike_pipeline.modeling import evaluation, metrics
from bike_pipeline.settings import load_settings

ROWS = st.lists(st.tuples(st.integers(0, 2000), st.floats(0, 2000, width=32)), min_size=1, max_size=60)


def expected(label, prediction):
    y, p = np.asarray(label, np.float64), np.asarray(prediction, np.float64)
    return {
        "mae": np.mean(np.abs(p - y)),
        "rmse": np.sqrt(np.mean((p - y) ** 2)),
        "rmsle": np.sqrt(np.mean((np.log(1 + p) - np.log(1 + y)) ** 2)),
        "bias": (p.sum() - y.sum()) / y.sum() if y.sum() else math.nan,
        "calibration": p.sum() / y.sum() if y.sum() else math.nan,
    }


@settings(max_examples=150, deadline=None)
@given(ROWS)
def test_every_metric_is_its_formula(rows):
    label, prediction = zip(*rows, strict=True)
    got = metrics.metrics_of(metrics.sums_of(label, prediction))
    wanted = expected(label, prediction)
    assert set(got) == set(wanted) == set(metrics.METRICS)
    for name, value in wanted.items():
        if name in ("bias", "calibration") and not sum(label):
            assert not math.isfinite(got[name])
        else:
            assert got[name] == pytest.approx(value, rel=1e-6, abs=1e-9)


@settings(max_examples=80, deadline=None)
@given(ROWS, st.integers(1, 7))
def test_sums_of_parts_add_up_to_the_sums_of_the_whole(rows, size):
    def sums(part):
        return metrics.sums_of(*zip(*part, strict=True))

    parts = [rows[i : i + size] for i in range(0, len(rows), size)]
    np.testing.assert_allclose(functools.reduce(np.add, map(sums, parts)), sums(rows), rtol=1e-9, atol=1e-9)


def test_a_metric_of_no_rows_is_not_a_number():
    assert all(math.isnan(value) for value in metrics.metrics_of(metrics.sums_of([], [])).values())


def test_without_rentals_the_shares_are_no_finite_number_and_the_errors_are():
    got = metrics.metrics_of(metrics.sums_of([0, 0], [1, 3]))
    assert not math.isfinite(got["bias"])
    assert not math.isfinite(got["calibration"])
    assert math.isnan(metrics.metrics_of(metrics.sums_of([0], [0]))["bias"])
    assert got["mae"] == 2


def test_a_prediction_that_is_not_a_number_shows_in_every_metric():
    got = metrics.metrics_of(metrics.sums_of([1, 2], [1, math.nan]))
    assert all(math.isnan(value) for value in got.values())


def test_tfma_finds_no_metric_of_its_own_under_our_names():
    known = set(metric_types.registered_metrics()) | set(dir(tfma.metrics)) | set(dir(keras.metrics))
    assert "ExampleCount" in known
    assert "MeanAbsoluteError" in known
    assert not known & {metric.__name__ for metric in metrics.METRICS.values()}


def test_tfma_computes_our_formulas_from_the_configuration():
    config = evaluation.eval_config(load_settings().evaluation)
    config = config_util.update_eval_config_with_defaults(config, has_baseline=True)
    computations = metric_specs.to_computations(config.metrics_specs, eval_config=config)
    derived = [c for c in computations if isinstance(c, metric_types.DerivedMetricComputation)]
    keys = {(key.name, key.model_name) for c in derived for key in c.keys}
    assert {(m, name) for m in metrics.METRICS for name in ("candidate", "baseline")} <= keys
    sums = metrics.sums_of([10, 20], [13, 16])
    wanted = metrics.metrics_of(sums)
    for computation in derived:
        (key,) = computation.keys
        if key.name in metrics.METRICS and not key.is_diff:
            sums_key = metric_types.MetricKey(name="_count_prediction_sums", model_name=key.model_name)
            assert computation.result({sums_key: sums}) == {key: wanted[key.name]}
