"""What of the label is growth, and how closely its level can be followed through the training rows.

The model holds the level of the end of training for all hours after it (see `preprocessing.DAYS_BEFORE_END`). If it had
to learn the level from a single year by itself, it would take the winter at the year's end for the level of the year to
come.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from bike_pipeline.modeling import objective, preprocessing
from bike_pipeline.modeling.holidays import KINDS

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
# Rows of a kind of holiday after which they count as much as its prior: those of one day, which all err together.
HOLIDAY_RIDGE = 24.0
HOLIDAY_COLUMNS = KINDS - 1
NO_PRIORS = (0.0,) * KINDS
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


class TrendSums(NamedTuple):
    """Of rows, what `Trend` is made of; sums of parts add up to those of the whole, in whoever's hands the parts are.

    Attributes:
        rows: how many rows they are the sums of.
        days: the sum of the days before the end of training.
        logarithms: of log(1 + x) of each label, (labels,). Casual riders and members do not grow alike.
        columns: of each column of the ridge regression, (columns,).
        gram: of the products of two columns, (columns, columns).
        moment: of the products of a column and a logarithm, (columns, labels).
    """

    rows: int
    days: float
    logarithms: npt.NDArray[np.float64]
    columns: npt.NDArray[np.float64]
    gram: npt.NDArray[np.float64]
    moment: npt.NDArray[np.float64]

    @classmethod
    def of(cls, inputs: Mapping[str, npt.NDArray[Any]], labels: npt.NDArray[Any], longest: float) -> Self:
        """Return the sums of transformed rows and their labels, (rows, …) each.

        `longest` are the days from the first of all rows, whoever has it, to the end of training.
        """
        logarithms = np.log1p(labels.astype(np.float64).reshape(len(labels), -1))
        totals: list[npt.NDArray[np.float64]] = [np.zeros(()), np.zeros(()), np.zeros(())]
        for start in range(0, len(labels), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            columns = _design({n: values[part] for n, values in inputs.items()}, _months(longest) >= REPEATED_MONTHS)
            own = columns.sum(axis=0), columns.T @ columns, columns.T @ logarithms[part]
            totals = [total + more for total, more in zip(totals, own, strict=True)]
        days = inputs[preprocessing.DAYS_BEFORE_END].astype(np.float64)
        return cls(len(labels), float(days.sum()), logarithms.sum(axis=0), *totals)

    def plus(self, other: TrendSums) -> TrendSums:
        """Return the sums of these rows and others."""
        return TrendSums(
            self.rows + other.rows,
            self.days + other.days,
            self.logarithms + other.logarithms,
            self.columns + other.columns,
            self.gram + other.gram,
            self.moment + other.moment,
        )


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
        holidays: what each kind of holiday adds to log(1 + rentals), (kinds,); its prior of a kind without rows.
        largest_log: the largest log(1 + rentals) that is answered (see `objective.largest_log`).
    """

    starts: tuple[float, ...]
    growths: tuple[float, ...]
    repeated: bool = True
    knot_days: float = KNOT_DAYS
    knots: int = 0
    holidays: tuple[float, ...] = NO_PRIORS
    largest_log: float = objective.LARGEST_LOG

    @classmethod
    def fit(
        cls, inputs: Mapping[str, npt.NDArray[Any]], labels: npt.NDArray[Any], priors: Sequence[float] = NO_PRIORS
    ) -> Self:
        """Return the trend of transformed rows (see `preprocessing_fn`) and their labels, (rows, …) each.

        Growth is the weight of time in a ridge regression beside hour and day type, weather and its square, the
        sun's elevation, the kind of holiday, and the month if the months are repeated. What a kind of holiday adds is
        its weight there: trees do not tell it by a few days a year from all else that is known of them. The weight is
        drawn to the prior of its kind.

        Args:
            inputs: transformed features.
            labels: (rows,) or (rows, labels): rentals, then auxiliary labels.
            priors: see `holidays.priors`.
        """
        days = inputs[preprocessing.DAYS_BEFORE_END]
        sums = TrendSums.of(inputs, labels, float(days.max()))
        found = cls.of(sums, float(days.max()), knot_days(days, inputs["hour"]), priors)
        rentals = labels.reshape(len(labels), -1)[:, 0]
        return replace(found, largest_log=objective.largest_log(float(rentals.mean(dtype=np.float64))))

    @classmethod
    def of(
        cls, sums: TrendSums, longest: float, spacing: float = KNOT_DAYS, priors: Sequence[float] = NO_PRIORS
    ) -> Self:
        """Return the trend of rows by their sums.

        Args:
            sums: those of all rows.
            longest: days from the first row to the end of training.
            spacing: days between two knots.
            priors: see `holidays.priors`.
        """
        covered = _months(longest)
        means = sums.logarithms / sums.rows
        growths, holidays = np.zeros(len(means)), np.array(priors)
        if covered >= FEWEST_MONTHS:
            penalty = np.full(len(sums.gram), RIDGE)
            penalty[:HOLIDAY_COLUMNS] = HOLIDAY_RIDGE
            penalty[-1] = 0.0
            moment = sums.moment - np.outer(sums.columns, means)
            moment[:HOLIDAY_COLUMNS] += HOLIDAY_RIDGE * holidays[1:, None]
            weights = np.linalg.solve(sums.gram + np.diag(penalty), moment)
            growths = np.clip(-weights[-1], -LARGEST_GROWTH, LARGEST_GROWTH).round(DECIMALS)
            holidays[1:] = weights[:HOLIDAY_COLUMNS, 0].round(DECIMALS)
        starts = means + growths * sums.days / sums.rows / DAYS_A_MONTH
        knots = math.ceil(longest / spacing) + 1 if covered >= LEVEL_MONTHS else 0
        repeated = covered >= REPEATED_MONTHS
        return cls(tuple(starts.tolist()), tuple(growths.tolist()), repeated, spacing, knots, tuple(holidays.tolist()))


def _months(longest: float) -> int:
    # Of whole months, the last and the first are not there to the day.
    return math.floor(longest / DAYS_A_MONTH + 0.5)


def _design(inputs: Mapping[str, npt.NDArray[Any]], repeated: bool) -> npt.NDArray[np.float64]:
    # With the weather of past hours: a warm day in a cold month tells season from growth.
    weather = inputs[preprocessing.DENSE][:, : preprocessing.SUN]
    sizes = preprocessing.CODES
    columns = [
        np.eye(sizes["holiday_kind"])[inputs["holiday_kind"]][:, 1:],
        np.eye(sizes["hour_day_type"])[inputs["hour_day_type"]],
        np.eye(sizes["weather"])[inputs["weather"]],
        weather,
        weather**2,
        inputs[preprocessing.DENSE][:, preprocessing.SUN, None],
    ]
    if repeated:
        columns.append(np.eye(sizes["month"])[inputs["month"]])
    return np.hstack([*columns, inputs[preprocessing.DAYS_BEFORE_END][:, None] / DAYS_A_MONTH])
