"""TFMA metrics of a count prediction: MAE, RMSE, RMSLE, relative bias and calibration, all from one pass.

With label y and prediction p, both in rentals, over n rows:
MAE = Σ|p − y| / n; RMSE = √(Σ(p − y)² / n); RMSLE = √(Σ(log(1 + p) − log(1 + y))² / n);
bias = Σ(p − y) / Σy; calibration = Σp / Σy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
from tensorflow_model_analysis.metrics import metric_types, metric_util

_SUMS = "_count_prediction_sums"
# n, Σ|p − y|, Σ(p − y)², Σ(log(1 + p) − log(1 + y))², Σy, Σp
Sums = npt.NDArray[np.float64]
FORMULAS: dict[str, Callable[[Sums], float]] = {
    "mae": lambda s: s[1] / s[0],
    "rmse": lambda s: math.sqrt(s[2] / s[0]),
    "rmsle": lambda s: math.sqrt(s[3] / s[0]),
    "bias": lambda s: (s[5] - s[4]) / s[4],
    "calibration": lambda s: s[5] / s[4],
}


def terms_of(label: npt.ArrayLike, prediction: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return what the six sums (see `FORMULAS`) add up, shape (6, rows), of rentals, each of shape (rows,)."""
    y, p = np.asarray(label, np.float64).ravel(), np.asarray(prediction, np.float64).ravel()
    error = p - y
    log_error = np.log1p(p) - np.log1p(y)
    return np.stack([np.ones_like(y), np.abs(error), error**2, log_error**2, y, p])


def sums_of(label: npt.ArrayLike, prediction: npt.ArrayLike) -> Sums:
    """Return the six sums of rows with the given labels and predictions, in rentals."""
    sums: Sums = terms_of(label, prediction).sum(axis=1)
    return sums


def metrics_of(sums: Sums, formulas: Mapping[str, Callable[[Sums], float]] = FORMULAS) -> dict[str, float]:
    """Return every metric; NaN if it is not defined (no rows, or no rentals for bias and calibration)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return {name: float(formula(sums)) if sums[0] else math.nan for name, formula in formulas.items()}


class _SumsCombiner(beam.CombineFn):
    def __init__(self, key: Any, eval_config: Any) -> None:
        self._key = key
        self._eval_config = eval_config

    def create_accumulator(self) -> Sums:
        return np.zeros(6)

    def add_input(self, accumulator: Sums, element: Any) -> Sums:
        pairs = metric_util.to_label_prediction_example_weight(
            element,
            eval_config=self._eval_config,
            model_name=self._key.model_name,
            output_name=self._key.output_name,
            flatten=False,
        )
        for label, prediction, _ in pairs:
            accumulator = accumulator + sums_of(label, prediction)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[Sums]) -> Sums:
        merged: Sums = np.sum(list(accumulators), axis=0)
        return merged

    def extract_output(self, accumulator: Sums) -> dict[Any, Sums]:
        return {self._key: accumulator}


METRICS: dict[str, type[_CountMetric]] = {}


class _CountMetric(metric_types.Metric):
    """One of `FORMULAS`. TFMA looks class names up among its own metrics first: none of ours may share a name there."""

    metric = ""

    def __init_subclass__(cls, metric: str) -> None:
        super().__init_subclass__()
        cls.metric = metric
        METRICS[metric] = cls

    def __init__(self, name: str = "") -> None:
        super().__init__(metric_util.merge_per_key_computations(self._computations), name=name or self.metric)

    @classmethod
    def _computations(
        cls, name: str = "", eval_config: Any = None, model_name: str = "", output_name: str = "", **_: Any
    ) -> list[Any]:
        key = metric_types.MetricKey(name=name, model_name=model_name, output_name=output_name)
        sums_key = metric_types.MetricKey(name=_SUMS, model_name=model_name, output_name=output_name)

        def result(found: dict[Any, Sums]) -> dict[Any, float]:
            return {key: metrics_of(found[sums_key])[cls.metric]}

        # TFMA merges equal computations, so the sums are taken once for all five metrics.
        sums = _SumsCombiner(sums_key, eval_config)
        return [
            metric_types.MetricComputation(keys=[sums_key], preprocessors=None, combiner=sums),
            metric_types.DerivedMetricComputation(keys=[key], result=result),
        ]


class CountMeanAbsoluteError(_CountMetric, metric="mae"):
    """MAE, in rentals."""


class CountRootMeanSquaredError(_CountMetric, metric="rmse"):
    """RMSE, in rentals."""


class CountRootMeanSquaredLogError(_CountMetric, metric="rmsle"):
    """RMSLE, in log units."""


class CountRelativeBias(_CountMetric, metric="bias"):
    """Share by which all predictions together exceed all labels together."""


class CountCalibration(_CountMetric, metric="calibration"):
    """All predictions together over all labels together."""
