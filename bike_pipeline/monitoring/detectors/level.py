"""The level of the label against the answers: a two-sided CUSUM on the daily log ratio (Page 1954).

A day counts once, whatever was asked: its hours err together. It is measured in standard deviations of the days of the
version's backtest, and bounded, so that a storm is one day; the great holidays are left out (`modeling.holidays`). The
sum forgives half of the smallest change that matters each day, so that it climbs only while days agree.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bike_pipeline.modeling import holidays
from bike_pipeline.modeling.feedback import FIRST_DAY, HOURS_A_DAY, PRIOR_RENTALS, WINDOW_DAYS, Array
from bike_pipeline.modeling.label_update import hour_of, moment
from bike_pipeline.monitoring.columns import Columns, Window, answered, by_hour
from bike_pipeline.monitoring.reference import Reference
from bike_pipeline.monitoring.verdicts import Measurement
from bike_pipeline.settings.monitoring import DetectorSettings

# Hours that make a day.
DAY_HOURS = 12
# What one day says at most, in standard deviations.
DAY_LIMIT = 2.0
# The scale of days where a version keeps no backtest: that of 2011, robust.
USUAL_SCALE, FEWEST_DAYS = 0.1, 20
# Of the correction of a sum in discrete steps (Siegmund 1985, section 2.6).
OVERSHOOT = 1.166


class Daily(NamedTuple):
    """Days with labels, rising: since 1 January of `features.FIRST_YEAR`, (days,), and log of labels over answers."""

    days: npt.NDArray[np.int64]
    log_ratio: npt.NDArray[np.float64]


def daily(hours: Array, labels: Array, answers: Array) -> Daily:
    """Return the log ratio of days that are no great holidays, of hours that stand there once each."""
    days, place, counts = np.unique(hours // HOURS_A_DAY, return_inverse=True, return_counts=True)
    said, expected = (np.bincount(place, values, len(days)) + PRIOR_RENTALS for values in (labels, answers))
    kept = (counts >= DAY_HOURS) & ~holidays.is_dated(FIRST_DAY + days)
    return Daily(days[kept], np.log(said / np.maximum(expected, 1e-6))[kept])


def of_observed(observed: Columns) -> Daily:
    """Return the days of requests whose labels are known."""
    hours, means = by_hour(answered(observed), "label", "answer")
    return daily(hours, means["label"], means["answer"])


def scale_of(reference: Reference) -> float:
    """Return the robust standard deviation of daily log ratios of the version's backtest, 1.4826 × median |x|."""
    labels, answers = reference.backtest()
    days = daily(labels.hours, labels.rentals, answers).log_ratio
    if len(days) < FEWEST_DAYS:
        return USUAL_SCALE
    return max(1.4826 * float(np.median(np.abs(days))), USUAL_SCALE / 2)


def alarm_probability(height: float, slack: float, days: int) -> float:
    """Return how likely a two-sided CUSUM of an unchanged level is as high within some days.

    By the mean number of days to it, (exp(2kb) - 2kb - 1) / (2k²) with b = height + 1.166 (Siegmund 1985, 2.54), for
    independent normal days.
    """
    twice = 2.0 * slack * (height + OVERSHOOT)
    one_sided = (math.exp(min(twice, 600.0)) - twice - 1.0) / (2.0 * slack**2)
    return -math.expm1(-2.0 * days / one_sided)


def measure(
    observed: Columns, reference: Reference, windows: Sequence[Window], settings: DetectorSettings
) -> Iterator[Measurement]:
    """Yield at the end of each window by how much the level has changed since the sum began to climb, as a share."""
    days, ratio = of_observed(observed)
    scale = scale_of(reference)
    slack = math.log1p(settings.level) / 2.0 / scale
    heights, changes, since = _followed(np.clip(ratio / scale, -DAY_LIMIT, DAY_LIMIT), ratio, slack)
    words = "the version's backtest" if reference.backtest()[0].hours.size else "answers without a bias"
    labelled = answered(observed)["hour"]
    for window in windows:
        last = hour_of(window[1])
        # However late labels are, the newest of them say what there is to say.
        rows = int(((labelled > last - WINDOW_DAYS * HOURS_A_DAY) & (labelled <= last)).sum())
        at = int(np.searchsorted(days, last // HOURS_A_DAY, side="right")) - 1
        effect, p_value, reason = None, None, "no day has enough labels yet"
        if at >= 0 and rows:
            effect = math.expm1(changes[at])
            p_value = alarm_probability(heights[at], slack, WINDOW_DAYS)
            day = moment(int(days[since[at]]) * HOURS_A_DAY)[:10]
            reason = (
                f"labels are {effect:+.0%} off the answers since {day}" if heights[at] else "labels fit the answers"
            )
        yield Measurement(
            "cusum", "concept drift", "answers", *window, words, rows, None, effect, "share", settings.level,
            p_value, reason, at_once=True,
        )  # fmt: skip


def _followed(z: Array, ratio: Array, slack: float) -> tuple[Array, Array, npt.NDArray[np.int64]]:
    """Return after each day the height of the larger sum, the mean log ratio since it began, and that day's place."""
    up = down = 0.0
    up_since = down_since = 0
    heights, changes, since = np.zeros(len(z)), np.zeros(len(z)), np.zeros(len(z), np.int64)
    for day, value in enumerate(z):
        up_since, down_since = (day if not height else start for height, start in ((up, up_since), (down, down_since)))
        up, down = max(0.0, up + value - slack), max(0.0, down - value - slack)
        heights[day], since[day] = (up, up_since) if up >= down else (down, down_since)
        changes[day] = ratio[since[day] : day + 1].mean() if heights[day] else 0.0
    return heights, changes, since
