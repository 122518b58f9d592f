"""Errors of answers by day, now and in the version's backtest, and tests in which a day counts once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bike_pipeline import features
from bike_pipeline.modeling import feedback, holidays
from bike_pipeline.modeling.feedback import BANDS, FIRST_DAY, GROUPS, HOURS_A_DAY, PRIOR_RENTALS, Array
from bike_pipeline.monitoring.columns import Columns, answered, by_hour
from bike_pipeline.monitoring.reference import Reference

# Fewer days than this say nothing of other days.
FEWEST_DAYS = 2


class Hours(NamedTuple):
    """Labelled hours, rising and each once: hour, group (`feedback.groups_of`), label and answer, in rentals."""

    hours: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]
    labels: npt.NDArray[np.float64]
    answers: npt.NDArray[np.float64]

    def chosen(self, rows: Array) -> Hours:
        """Return some of the hours."""
        return Hours(self.hours[rows], self.groups[rows], self.labels[rows], self.answers[rows])


def observed_hours(observed: Columns) -> Hours:
    """Return the labelled hours of requests."""
    hours, means = by_hour(answered(observed), "label", "answer", *feedback.GROUPED_BY)
    # Where requests of an hour contradict each other, the nearest code stands for them.
    groups = feedback.groups_of(*(np.rint(means[name]) for name in feedback.GROUPED_BY))
    return Hours(hours, groups, means["label"], means["answer"])


def backtest_hours(reference: Reference) -> Hours:
    """Return those of the version's backtest."""
    labels, answers = reference.backtest()
    return Hours(labels.hours, labels.groups, labels.rentals, answers)


def relative(hours: Hours) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return days, rising, and each one's absolute error as a share of its rentals, (days,).

    Great holidays are left out: a backtest that ends with a year would let any error pass.
    """
    days, place = np.unique(hours.hours // HOURS_A_DAY, return_inverse=True)
    errors, rentals = (
        np.bincount(place, values, len(days)) for values in (np.abs(hours.labels - hours.answers), hours.labels)
    )
    kept = ~holidays.is_dated(FIRST_DAY + days)
    return days[kept], (errors / (rentals + PRIOR_RENTALS))[kept]


def p_of_days(days: Array, others: Array | float, alternative: str = "two-sided") -> float | None:
    """Return how likely days differ so much from others, or from a number, by accident (Welch's t-test over days).

    `alternative` is "two-sided", or "greater" or "less" if only days that are so count; fewer than `FEWEST_DAYS` give
    None. Days that are all the same have no spread for a t-test: below a number they get a sign test, else None.
    """
    from scipy import stats

    if len(days) < FEWEST_DAYS or (isinstance(others, np.ndarray) and len(others) < FEWEST_DAYS):
        return None
    if np.ptp(days) < 1e-9:
        # Intervals hold all of a few labels a day by accident; that they hold none on any day is the worst there is.
        if isinstance(others, np.ndarray) or days[0] >= others:
            return None
        return float(stats.binomtest(0, len(days), alternative=alternative).pvalue)
    if isinstance(others, np.ndarray):
        found = stats.ttest_ind(days, others, equal_var=False, alternative=alternative).pvalue
    else:
        found = stats.ttest_1samp(days, others, alternative=alternative).pvalue
    return float(found)


def slices(groups: Array) -> dict[str, npt.NDArray[np.bool_]]:
    """Return which hours are of each slice that a backtest tells apart, (rows,) by its name."""
    band, is_working = groups % BANDS, groups // BANDS % 2
    found = {features.slice_name("hour_band", start): band == place for place, start in enumerate(features.HOUR_BANDS)}
    found |= {features.slice_name("workingday", kind): is_working == kind for kind in (0, 1)}
    found["rain or snow"] = groups >= GROUPS // 2
    return found
