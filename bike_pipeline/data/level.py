"""The level of the label from week to week: demand grows over months, never from one week to the next.

Weeks are any seven days in a row, so that one is found wherever it begins; each covers every day of the week once.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bike_pipeline.data import calendar_sums
from bike_pipeline.data.calendar_sums import LABEL, ROWS, CalendarSums
from bike_pipeline.settings.data import GateLimits

Array = npt.NDArray[Any]

WEEK = 7
# So many weeks on each side are a level; of the earlier ones one may lack, of the later ones none: the last would be a
# year's lull.
LEVEL_WEEKS, FEWEST_EARLIER = 4, 3
# Weeks on each side of one that may be wrong.
NEIGHBOURS = (-2, -1, 1, 2)
# Labels below count as that: nothing is no level.
LEAST = 1e-3


def jumps(
    span: CalendarSums, history: CalendarSums, limits: GateLimits
) -> Iterator[tuple[Literal["LABEL_WEEK_LEVEL", "LABEL_STEP"], str]]:
    """Yield kind and reason of each jump of the label's level in a span or at its beginning.

    The last weeks of the `history`, the spans before it, are held against the span's first.
    """
    start = int(span.dates[0])
    reach = WEEK * LEVEL_WEEKS
    weeks, first = _weeks(calendar_sums.total([history, span]), start - reach)
    place = first + np.arange(len(weeks))

    neighbours = np.stack([_moved(weeks, n * WEEK) for n in NEIGHBOURS])
    ratio = np.exp(weeks - _median(neighbours, 2))
    after = np.isfinite(neighbours[2:]).any(axis=0)
    # The last weeks have only one side, and a year ends with a lull that no following week puts into proportion.
    lowest = np.where(after, 1 / limits.label_week_down, 1 / limits.label_week_down**2)
    judged = np.isfinite(ratio) & (place > start - WEEK)
    for wrong, name in (
        (judged & (ratio > limits.label_week_up), "label_week_up"),
        (judged & (ratio < lowest), "label_week_down"),
    ):
        if wrong.any():
            began, factor = _worst(place, ratio, wrong)
            told = f"in the week from {began} the label is {factor:.2f} times that of the weeks around it"
            yield "LABEL_WEEK_LEVEL", f"{told}; {_allowed(limits, name)}"

    later = _median(np.stack([_moved(weeks, n * WEEK) for n in range(LEVEL_WEEKS)]), LEVEL_WEEKS)
    earlier = _median(np.stack([_moved(weeks, -n * WEEK) for n in range(1, LEVEL_WEEKS + 1)]), FEWEST_EARLIER)
    step = np.exp(later - earlier)
    judged = np.isfinite(step) & (place >= start)
    for wrong, name in (
        (judged & (step > limits.label_step_up), "label_step_up"),
        (judged & (step < 1 / limits.label_step_down), "label_step_down"),
    ):
        if wrong.any():
            began, factor = _worst(place, step, wrong)
            told = f"from {began} on the label is {factor:.2f} times that of the {LEVEL_WEEKS} weeks before"
            yield "LABEL_STEP", f"{told}; {_allowed(limits, name)}"


def _allowed(limits: GateLimits, name: str) -> str:
    return f"gate.limits.{name} lets a factor of {getattr(limits, name):g} pass"


def _weeks(sums: CalendarSums, first: int) -> tuple[Array, int]:
    """Return log(mean label) of the seven days from each day on, NaN where a day is absent, and the first day."""
    kept = sums.dates >= first
    dates, days = sums.dates[kept], sums.days[kept]
    first = int(dates[0])
    dense = np.full((int(dates[-1]) - first + 1, 2), np.nan)
    dense[dates - first] = days[:, [ROWS, LABEL]]
    if len(dense) < WEEK:
        return np.full(len(dense), np.nan), first
    week = np.lib.stride_tricks.sliding_window_view(dense, WEEK, axis=0).sum(axis=-1)
    return np.log(np.maximum(week[:, 1] / week[:, 0], LEAST)), first


def _moved(values: Array, by: int) -> Array:
    """Return `values[i + by]` at i, NaN where there is none."""
    found = np.full(len(values), np.nan)
    if abs(by) < len(values):
        found[max(0, -by) : len(values) - max(0, by)] = values[max(0, by) : len(values) + min(0, by)]
    return found


def _median(values: Array, fewest: int) -> Array:
    """Return the median of each column over its rows that are there; NaN where these are fewer than `fewest`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found: Array = np.nanmedian(values, axis=0)
    return np.where(np.isfinite(values).sum(axis=0) >= fewest, found, np.nan)


def _worst(place: Array, factors: Array, wrong: Array) -> tuple[str, float]:
    """Return the date and the factor where it is farthest from 1."""
    worst = np.flatnonzero(wrong)[np.abs(np.log(factors[wrong])).argmax()]
    return calendar_sums.iso_date(place[worst]), float(factors[worst])
