"""What of the label is growth, and how closely its level can be followed through the training rows.

The model holds the level of the end of training for all hours after it (see `preprocessing.DAYS_BEFORE_END`). If it had
to learn the level from a single year by itself, it would take the winter at the year's end for the level of the year to
come.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from bike_pipeline.modeling import preprocessing

DAYS_A_MONTH = 365.25 / 12.0
# Fewer months do not tell growth from season; up to a year only weather and sun do. On five origins in 2011 the mean
# RMSE is 50.7 with half of what they say and 42.9 with all of it, the bias -15 % and -8 %.
FEWEST_MONTHS = 6
# From here on most months of the year are there twice, so that season and level can be told from growth.
REPEATED_MONTHS = 21
# From here on the level may leave the straight line of growth.
LEVEL_MONTHS = 15
# Twice as many rentals in seven months; a label that moves faster has changed its meaning.
LARGEST_GROWTH = 0.1
RIDGE = 1.0
# Growth is a constant of the graph: workers on machines that round differently must come to the same one.
DECIMALS = 5
ROWS_AT_ONCE = 65_536
# Days between two knots of the level, and the share of hours without rows from which on they stand closer.
KNOT_DAYS, CLOSEST_KNOT_DAYS = 60.0, 1.0
GAPS_A_KNOT, SHARE_WITHOUT_ROWS = 3.0, 0.05


def knot_days(days: npt.NDArray[Any], hour: npt.NDArray[Any]) -> float:
    """Return the days between two knots of the level, for rows of such days before the end and hours, (rows,) each.

    Rows that run through are there to forecast what comes after them, and the level at their end must not follow their
    last days. Where hours within them have none, what is asked for may lie between rows, whose level then says most:
    the knots stand as close as those gaps allow.
    """
    times = np.unique(np.asarray(days, np.int64) * -preprocessing.HOURS + hour)
    gaps = np.diff(times) - 1
    absent = int(gaps.sum())
    if absent <= SHARE_WITHOUT_ROWS * (times[-1] - times[0] + 1):
        return KNOT_DAYS
    # The gap in which an hour without a row stands, in the mean.
    gap_days = float((gaps**2).sum()) / absent / preprocessing.HOURS
    return min(max(float(round(GAPS_A_KNOT * gap_days)), CLOSEST_KNOT_DAYS), KNOT_DAYS)


@dataclass(frozen=True)
class Trend:
    """The part of log(1 + rentals) that a model does not learn by steps.

    Attributes:
        starts: the mean over the training rows, less the growth, of log(1 + rentals), then of log(1 + x) of each
            auxiliary label.
        growths: their rises a month up to the end of training; after it the level stands.
        repeated: whether the rows cover the year nearly twice; else the time of the year is no input.
        knot_days: days between two knots of the level.
        knots: number of knots; 0 where the level follows the growth alone.
    """

    starts: tuple[float, ...]
    growths: tuple[float, ...]
    repeated: bool = True
    knot_days: float = KNOT_DAYS
    knots: int = 0

    @classmethod
    def fit(cls, inputs: Mapping[str, npt.NDArray[Any]], labels: npt.NDArray[Any]) -> Self:
        """Return the trend of transformed rows (see `preprocessing_fn`) and their labels, (rows, …) each.

        Growth is the weight of time in a ridge regression beside hour and day type, weather and its square, the
        sun's elevation, and the month if the months are repeated.

        Args:
            inputs: transformed features.
            labels: (rows,) or (rows, labels): rentals, then auxiliary labels.
        """
        days = inputs[preprocessing.DAYS_BEFORE_END].astype(np.float64)
        # Of whole months, the last and the first are not there to the day.
        covered = math.floor(float(days.max()) / DAYS_A_MONTH + 0.5)
        repeated = covered >= REPEATED_MONTHS
        # Casual riders and members do not grow alike.
        logarithms = np.log1p(labels.astype(np.float64).reshape(len(labels), -1))
        growths = np.zeros(logarithms.shape[1])
        means = logarithms.mean(axis=0)
        if covered >= FEWEST_MONTHS:
            gram, moment = np.zeros(()), np.zeros(())
            for start in range(0, len(labels), ROWS_AT_ONCE):
                part = slice(start, start + ROWS_AT_ONCE)
                columns = _design({name: values[part] for name, values in inputs.items()}, repeated)
                gram, moment = gram + columns.T @ columns, moment + columns.T @ (logarithms[part] - means)
            penalty = np.full(len(gram), RIDGE)
            penalty[-1] = 0.0
            weights = -np.linalg.solve(gram + np.diag(penalty), moment)[-1]
            growths = np.clip(weights, -LARGEST_GROWTH, LARGEST_GROWTH).round(DECIMALS)
        starts = means + growths * days.mean() / DAYS_A_MONTH
        spacing = knot_days(days, inputs["hour"])
        knots = math.ceil(float(days.max()) / spacing) + 1 if covered >= LEVEL_MONTHS else 0
        return cls(tuple(starts.tolist()), tuple(growths.tolist()), repeated, spacing, knots)


def _design(inputs: Mapping[str, npt.NDArray[Any]], repeated: bool) -> npt.NDArray[np.float64]:
    # With the weather of past hours: a warm day in a cold month tells season from growth.
    weather = inputs[preprocessing.DENSE][:, : preprocessing.SUN]
    sizes = preprocessing.CODES
    columns = [
        np.eye(sizes["hour_day_type"])[inputs["hour_day_type"]],
        np.eye(sizes["weather"])[inputs["weather"]],
        weather,
        weather**2,
        inputs[preprocessing.DENSE][:, preprocessing.SUN, None],
    ]
    if repeated:
        columns.append(np.eye(sizes["month"])[inputs["month"]])
    return np.hstack([*columns, inputs[preprocessing.DAYS_BEFORE_END][:, None] / DAYS_A_MONTH])
