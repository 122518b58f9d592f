"""Errors as they come in, day after day: ADWIN (Bifet and Gavaldà 2007) and Page and Hinkley's test, of river.

Both are fed one number a day, its absolute error as a share of its rentals, first those of the version's backtest: by
hours they would take each bad day for a change. A day counts up to two standard deviations above the backtest's days,
and great holidays not at all. ADWIN's δ bounds the probability of an accident at each step; that of Page and Hinkley's
test is a CUSUM's (`level.alarm_probability`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from bike_pipeline.modeling.feedback import HOURS_A_DAY, WINDOW_DAYS
from bike_pipeline.modeling.label_update import hour_of, moment
from bike_pipeline.monitoring.columns import Columns, Window
from bike_pipeline.monitoring.detectors.errors_of_days import Hours, backtest_hours, observed_hours, relative
from bike_pipeline.monitoring.detectors.level import DAY_LIMIT, FEWEST_DAYS, alarm_probability
from bike_pipeline.monitoring.reference import Reference
from bike_pipeline.monitoring.verdicts import Measurement
from bike_pipeline.settings.monitoring import DetectorSettings

# Of ADWIN: how likely a change by accident is at each step.
DELTA = 0.002
# Of Page and Hinkley's test, in standard deviations of days.
SLACK, HEIGHT = 0.5, 8.0


def measure(
    observed: Columns, reference: Reference, windows: Sequence[Window], settings: DetectorSettings
) -> Iterator[Measurement]:
    """Yield by how much the error is larger since either test last saw a change, in rentals an hour."""
    from river.drift import ADWIN, PageHinkley

    hours, before = observed_hours(observed), relative(backtest_hours(reference))[1]
    enough = len(before) >= FEWEST_DAYS
    days, errors = relative(hours)
    mean, scale = (float(before.mean()), float(before.std())) if enough else (0.0, 1.0)
    bounded = np.clip((np.concatenate([before, errors]) - mean) / max(scale, 1e-9), -DAY_LIMIT, DAY_LIMIT)
    tests = {
        "adwin": (ADWIN(delta=DELTA, clock=1), DELTA),
        "page_hinkley": (
            PageHinkley(min_instances=FEWEST_DAYS, delta=SLACK, threshold=HEIGHT, alpha=1.0, mode="up"),
            alarm_probability(HEIGHT, SLACK, WINDOW_DAYS),
        ),
    }
    for name, (test, probability) in tests.items():
        changes = []
        for place, value in enumerate(bounded):
            test.update(float(value))
            if test.drift_detected and place >= len(before):
                changes.append(place - len(before))
        for window in windows:
            last = hour_of(window[1])
            rows = int(((hours.hours > last - WINDOW_DAYS * HOURS_A_DAY) & (hours.hours <= last)).sum())
            seen = [place for place in changes if days[place] * HOURS_A_DAY <= last]
            until = int(np.searchsorted(days, last // HOURS_A_DAY, side="right"))
            effect, p_value, reason = None, None, "the version keeps no backtest, or no label has come"
            if enough and until:
                effect, p_value, reason = 0.0, 1.0, "no change of the error"
                if seen:
                    since = min(seen[-1], until - 1)
                    rise = float(errors[since:until].mean()) - mean
                    day = moment(int(days[since]) * HOURS_A_DAY)[:10]
                    effect, p_value = rise * _rentals(hours, int(days[since]), last), probability
                    reason = f"the error changed by {day}: {mean + rise:.0%} of the rentals, {mean:.0%} in the backtest"
            yield Measurement(
                name, "concept drift", "answers", *window, "the version's backtest", rows, None, effect,
                "rentals an hour", settings.error, p_value, reason, at_once=True,
            )  # fmt: skip


def _rentals(hours: Hours, first_day: int, last: int) -> float:
    rows = (hours.hours >= first_day * HOURS_A_DAY) & (hours.hours <= last)
    return float(hours.labels[rows].mean())
