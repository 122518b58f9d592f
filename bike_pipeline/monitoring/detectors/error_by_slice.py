"""The error of answers, of all hours and of each slice, against the version's backtest.

Errors are shares of a day's rentals, so that a summer is no larger error than a winter; what they come to is told in
rentals an hour. Significance is Welch's t-test over days, since the hours of one err together; errors that become
smaller are no change.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from bike_pipeline.modeling.label_update import hour_of
from bike_pipeline.monitoring.columns import Columns, Window
from bike_pipeline.monitoring.detectors.errors_of_days import (
    backtest_hours,
    observed_hours,
    p_of_days,
    relative,
    slices,
)
from bike_pipeline.monitoring.reference import Reference
from bike_pipeline.monitoring.verdicts import Measurement
from bike_pipeline.settings.monitoring import DetectorSettings


def measure(
    observed: Columns, reference: Reference, windows: Sequence[Window], settings: DetectorSettings
) -> Iterator[Measurement]:
    """Yield how much larger the mean error of each slice is in each window, in rentals an hour."""
    every, then = observed_hours(observed), backtest_hours(reference)
    for window in windows:
        now = every.chosen((every.hours >= hour_of(window[0])) & (every.hours <= hour_of(window[1])))
        of_now = {"answers": np.ones(len(now.hours), bool)} | slices(now.groups)
        of_then = {"answers": np.ones(len(then.hours), bool)} | slices(then.groups)
        for name, chosen in of_now.items():
            ours, theirs = now.chosen(chosen), then.chosen(of_then[name])
            (_, days), (_, before) = relative(ours), relative(theirs)
            p_value = p_of_days(days, before, "greater")
            effect, reason = None, f"{len(days)} days with labels, and {len(before)} of the backtest, are too few"
            if p_value is not None:
                effect = float((days.mean() - before.mean()) * ours.labels.mean())
                reason = f"{name}: errors are {days.mean():.0%} of the rentals, {before.mean():.0%} in the backtest"
            yield Measurement(
                "error_by_slice", "model", name, *window, "the version's backtest", len(ours.hours),
                len(theirs.hours), effect, "rentals an hour", settings.error, p_value, reason,
            )  # fmt: skip
