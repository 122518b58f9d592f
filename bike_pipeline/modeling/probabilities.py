"""Metrics of the probability that an hour is busy, all from sums over rows, as `metrics` has them of a count.

With label y, 0 or 1, probability p, decision d = 1 where p ≥ the model's threshold, over n rows:
log loss = Σ−log(1 − |p − y|) / n; Brier score = Σ(p − y)² / n (Brier 1950); calibration = Σp / Σy;
precision = Σdy / Σd; recall = Σdy / Σy; F1 = 2Σdy / (Σd + Σy). AUC, the share of pairs of a busy and another hour in
which the busy one has the higher probability, is that of `BINS` bins of log odds, where hours of one bin count as half
a pair (Hanley and McNeil 1982, doi 10.1148/radiology.143.1.7063747). MAE and RMSE are those of p, which every kind of
answer has.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from bike_pipeline.modeling.metrics import Sums

BINS = 128
# Log odds of the ends; beyond them a probability differs from 0 or 1 by less than 0.0001.
LARGEST_LOG_ODDS = 10.0
# Nearer to 0 and 1 float32 tells nothing, and the logarithm would be infinite; that of Keras's cross-entropy.
NEAREST = 1e-7
# n, Σ|p − y|, Σ(p − y)², Σlog loss, Σy, Σp, Σdy, Σd, busy hours by bin, other hours by bin.
_BINS_AT = 8


def log_loss(label: npt.ArrayLike, probability: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the log loss of each row, (rows,), of labels 0 or 1 and probabilities."""
    p = np.clip(np.asarray(probability, np.float64), NEAREST, 1.0 - NEAREST)
    return -np.log1p(-np.abs(p - np.asarray(label, np.float64)))


def terms_of(label: npt.ArrayLike, probability: npt.ArrayLike, threshold: float) -> npt.NDArray[np.float64]:
    """Return what the sums add up, shape (8 + 2 · `BINS`, rows), of labels 0 or 1 and probabilities, (rows,) each."""
    y, p = np.asarray(label, np.float64).ravel(), np.asarray(probability, np.float64).ravel()
    error, decided = p - y, (p >= threshold).astype(np.float64)
    sure = np.clip(np.nan_to_num(p), NEAREST, 1.0 - NEAREST)
    place = (np.log(sure) - np.log1p(-sure) + LARGEST_LOG_ODDS) * (BINS / (2 * LARGEST_LOG_ODDS))
    in_bin = np.arange(BINS)[:, None] == np.clip(place, 0, BINS - 1).astype(np.int64)
    sums = (np.ones_like(y), np.abs(error), error**2, log_loss(y, p), y, p, decided * y, decided)
    return np.concatenate([np.stack(sums), in_bin * y, in_bin * (1.0 - y)])


def _auc(s: Sums) -> float:
    busy, other = np.split(s[_BINS_AT:], 2)
    below = np.cumsum(other) - other
    # A probability that is not a number is in no bin.
    return float(busy @ (below + other / 2) / (busy.sum() * other.sum())) if math.isfinite(s[1]) else math.nan


FORMULAS: dict[str, Callable[[Sums], float]] = {
    "log_loss": lambda s: s[3] / s[0],
    "brier": lambda s: s[2] / s[0],
    "auc": _auc,
    "precision": lambda s: s[6] / s[7],
    "recall": lambda s: s[6] / s[4],
    "f1": lambda s: 2 * s[6] / (s[7] + s[4]),
    "calibration": lambda s: s[5] / s[4],
    "mae": lambda s: s[1] / s[0],
    "rmse": lambda s: math.sqrt(s[2] / s[0]),
}


def best_threshold(label: npt.NDArray[np.bool_], probability: npt.NDArray[np.floating]) -> float:
    """Return the probability from which on to call an hour busy, so that F1 is largest on these rows, (rows,) each.

    Among equally good ones it is the largest. Without a busy hour F1 says nothing, and it is 0.5, the likelier side.
    """
    if not label.any():
        return 0.5
    order = np.argsort(-probability, kind="stable")
    ranked, hits = probability[order].astype(np.float64), np.cumsum(label[order])
    f1 = 2 * hits / (np.arange(1, len(order) + 1) + hits[-1])
    # All rows of one probability are on the same side of any threshold.
    f1[:-1][ranked[:-1] == ranked[1:]] = 0.0
    best = int(f1.argmax())
    # Halfway to the next lower one, so that rounding in another format moves no row across.
    return float((ranked[best] + ranked[best + 1]) / 2 if best + 1 < len(ranked) else ranked[best] / 2)
