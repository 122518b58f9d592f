"""The level of the label from week to week: demand grows over months, never from one week to the next.

Weeks are any seven days in a row, so that one is found wherever it begins; each covers every day of the week once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import pandas as pd

from bike_pipeline.data import calendar_sums
from bike_pipeline.data.calendar_sums import LABEL, ROWS, CalendarSums
from bike_pipeline.settings.data import GateLimits

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
    weeks = _weeks(calendar_sums.total([history, span]), start - WEEK * LEVEL_WEEKS)

    around = _shifted(weeks, NEIGHBOURS)
    ratio = (weeks - _median(around, 2)).apply(np.exp)
    # The last weeks have only one side, and a year ends with a lull that no following week puts into proportion.
    followed = around[[1, 2]].notna().any(axis=1)
    lowest = 1 / limits.label_week_down ** np.where(followed, 1, 2)
    judged = weeks.index > start - WEEK
    for name, wrong in (("label_week_up", ratio > limits.label_week_up), ("label_week_down", ratio < lowest)):
        if (wrong & judged).any():
            began, factor = _farthest(ratio[wrong & judged])
            reason = f"in the week from {began} the label is {factor:.2f} times that of the weeks around it"
            yield "LABEL_WEEK_LEVEL", f"{reason}; {_allowed(limits, name)}"

    later = _median(_shifted(weeks, range(LEVEL_WEEKS)), LEVEL_WEEKS)
    earlier = _median(_shifted(weeks, range(-LEVEL_WEEKS, 0)), FEWEST_EARLIER)
    step = (later - earlier).apply(np.exp)
    judged = weeks.index >= start
    for name, wrong in (
        ("label_step_up", step > limits.label_step_up),
        ("label_step_down", step < 1 / limits.label_step_down),
    ):
        if (wrong & judged).any():
            began, factor = _farthest(step[wrong & judged])
            reason = f"from {began} on the label is {factor:.2f} times that of the {LEVEL_WEEKS} weeks before"
            yield "LABEL_STEP", f"{reason}; {_allowed(limits, name)}"


def _allowed(limits: GateLimits, name: str) -> str:
    return f"gate.limits.{name} lets a factor of {getattr(limits, name):g} pass"


def _weeks(sums: CalendarSums, first: int) -> pd.Series[float]:
    """Return log(mean label) of the seven days from each day on, by day since 1970-01-01; NaN if one of them lacks."""
    kept = sums.dates >= first
    days = pd.DataFrame(sums.days[kept][:, [ROWS, LABEL]], index=sums.dates[kept], columns=["rows", "label"])
    days = days.reindex(range(days.index[0], days.index[-1] + 1))
    week = days.rolling(WEEK).sum().shift(1 - WEEK)
    return (week["label"] / week["rows"]).clip(lower=LEAST).apply(np.log)


def _shifted(weeks: pd.Series[float], by: range | tuple[int, ...]) -> pd.DataFrame:
    """Return, for each day, the weeks that begin so many weeks later."""
    return pd.DataFrame({n: weeks.shift(-n * WEEK) for n in by})


def _median(weeks: pd.DataFrame, fewest: int) -> pd.Series[float]:
    """Return the median of those weeks that are there; NaN if these are fewer than `fewest`."""
    return weeks.median(axis=1).where(weeks.count(axis=1) >= fewest)


def _farthest(factors: pd.Series[float]) -> tuple[str, float]:
    """Return the date and the factor that is farthest from 1."""
    day = factors.apply(np.log).abs().idxmax()
    return calendar_sums.iso_date(int(day)), float(factors[day])
