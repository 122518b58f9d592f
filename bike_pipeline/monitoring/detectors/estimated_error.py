"""What the error would be by the model's own intervals, before any label is there; and how wrong that is.

A normal error whose central interval of share c is w wide has a mean |error| of w √(2/π) / (2 z), z the normal quantile
of (1 + c) / 2. It sees inputs that the model finds harder, and cannot see that demand itself is another: the intervals
do not know. Where labels are there, the reason says how far the estimate was from the truth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from bike_pipeline.modeling.feedback import PRIOR_RENTALS
from bike_pipeline.monitoring.columns import Columns, Window, answered, by_day, by_hour, rows_in, take
from bike_pipeline.monitoring.detectors.coverage import USUAL_NOMINAL
from bike_pipeline.monitoring.detectors.errors_of_days import backtest_hours, p_of_days, relative
from bike_pipeline.monitoring.reference import Reference
from bike_pipeline.monitoring.verdicts import Measurement
from bike_pipeline.settings.monitoring import DetectorSettings


def measure(
    observed: Columns, reference: Reference, windows: Sequence[Window], settings: DetectorSettings
) -> Iterator[Measurement]:
    """Yield by how much the error that the intervals expect is above that of the backtest, in rentals an hour."""
    from scipy.stats import norm

    backtest = None if reference.feedback is None else reference.feedback.backtest
    nominal = USUAL_NOMINAL if backtest is None or math.isnan(backtest.nominal) else backtest.nominal
    factor = math.sqrt(2.0 / math.pi) / (2.0 * float(norm.ppf((1.0 + nominal) / 2.0)))
    known = take(observed, (np.asarray(observed["hour"]) >= 0) & np.isfinite(np.asarray(observed["lower"], np.float64)))
    # A backtest's days count as shares of their rentals too, so that a summer is no change.
    _, before = relative(backtest_hours(reference))
    known["width"] = np.asarray(known["upper"], np.float64) - known["lower"]
    for window in windows:
        rows = rows_in(known, window)
        hours, means = by_hour(rows, "width", "answer")
        expected = factor * means["width"]
        (_, errors), (_, rentals) = by_day(hours, expected), by_day(hours, means["answer"])
        days = errors / (rentals + PRIOR_RENTALS)
        effect, p_value, reason = None, None, "no answer carries an interval, or the version keeps no backtest"
        if len(hours) and len(before):
            p_value = p_of_days(days, before, "greater")
            effect = None if p_value is None else float((days.mean() - before.mean()) * means["answer"].mean())
            reason = f"{len(days)} days with intervals are too few"
        if effect is not None:
            reason = f"the intervals expect an MAE of {expected.mean():.0f}{_truth(rows)}; they cannot see that demand "
            reason += "itself has changed"
        yield Measurement(
            "estimated_error", "model", "answers", *window, "the version's backtest", len(hours), None, effect,
            "rentals an hour", settings.error, p_value, reason,
        )  # fmt: skip


def _truth(rows: Columns) -> str:
    hours, means = by_hour(answered(rows), "label", "answer")
    if not len(hours):
        return ""
    return f" where the {len(hours):,} labels that are there say {np.abs(means['label'] - means['answer']).mean():.0f}"
