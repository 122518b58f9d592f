"""The task of P6: the hour to come, by whoever knows the labels of the 24 hours before it; rentals and quantiles.

The served model is asked with the labels of the days before, as feedback knows them, and moved by the last day's as
`bike-pipeline predict --last-day` does. Nothing of it is trained for the task.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.quality import later_labels
from benchmarks.quality.later_labels import Intervals
from benchmarks.quality.protocols import QUANTILES, Array, Rows, Table
from bike_pipeline import features
from bike_pipeline.modeling import feedback, hour_ahead
from bike_pipeline.settings.training import FeedbackSettings


class Answers(NamedTuple):
    """What is answered to test rows: rentals (rows,), and `QUANTILES`, (rows, quantiles), NaN where unknown."""

    rentals: Array
    quantiles: Array


class QuantileScores(NamedTuple):
    """How quantiles of a contestant did.

    Attributes:
        pinball: mean over rows and levels q of max(q (y - p), (q - 1) (y - p)), in rentals (Koenker and Bassett 1978).
        intervals: of 90 %, from the first quantile to the last.
    """

    pinball: float
    intervals: Intervals


def answers(table: Table, rows: Rows, expected: Sequence[float], settings: FeedbackSettings) -> tuple[Answers, Answers]:
    """Return what feedback of the days before makes of a model's answers, and what the last 24 hours make of that.

    Args:
        table: the data set.
        rows: places of the test rows in it, in the order of time.
        expected: what the model answers to them without feedback.
        settings: of the feedback; a day's labels count from the next day on.
    """
    asked = settings.model_copy(
        update={"label_delay_days": 1, "quantiles": {f"p{round(100 * level):02d}": level for level in QUANTILES}}
    )
    labels = later_labels.labels_of(table, rows, expected)
    by_days = feedback.replay(labels, asked)
    known = feedback.Labels(labels.hours, labels.groups, labels.rentals, by_days.rentals)
    factors = hour_ahead.factors(labels.hours, known)
    columns = [hour_ahead.moved_quantiles(by_days.rentals, values, factors) for values in by_days.quantiles.T]
    return Answers(*by_days), Answers(by_days.rentals * factors, np.column_stack(columns))


def quantile_scores(table: Table, rows: Rows, quantiles: Array, known: Array) -> QuantileScores:
    """Return how quantiles, (rows, quantiles), did on the rows that are `known`, (rows,) of bool."""
    error = table[features.LABEL][rows][known][:, None] - quantiles[known]
    levels = np.array(QUANTILES)
    pinball = float(np.mean(np.maximum(levels * error, (levels - 1.0) * error)))
    return QuantileScores(
        pinball, later_labels.intervals(table, rows[known], quantiles[known, 0], quantiles[known, -1])
    )
