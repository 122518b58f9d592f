"""The share of labels inside the interval that they were answered with, against the share that it promises.

Each hour counts once and each day is one observation: a day's hours leave their intervals together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from bike_pipeline.monitoring.columns import Columns, Window, answered, by_day, by_hour, rows_in, take
from bike_pipeline.monitoring.detectors.errors_of_days import p_of_days
from bike_pipeline.monitoring.reference import Reference
from bike_pipeline.monitoring.verdicts import Measurement
from bike_pipeline.settings.monitoring import DetectorSettings

# Of a model that does not say what its interval is to hold.
USUAL_NOMINAL = 0.9


def measure(
    observed: Columns, reference: Reference, windows: Sequence[Window], settings: DetectorSettings
) -> Iterator[Measurement]:
    """Yield how far coverage is from what the interval promises in each window, as a share."""
    nominal = USUAL_NOMINAL
    if reference.feedback is not None:
        levels = list(reference.feedback.settings.quantiles.values())
        nominal = round(levels[-1] - levels[0], 9)
    rows = answered(observed)
    rows = take(rows, np.isfinite(np.asarray(rows["lower"], np.float64)))
    rows["held"] = ((rows["lower"] <= rows["label"]) & (rows["label"] <= rows["upper"])).astype(np.float64)
    for window in windows:
        hours, means = by_hour(rows_in(rows, window), "held")
        _, days = by_day(hours, means["held"])
        p_value = p_of_days(days, nominal)
        effect = None if p_value is None else float(means["held"].mean() - nominal)
        reason = f"{len(days)} days with an interval and a label, too few or all the same"
        if effect is not None:
            reason = f"the interval of {nominal:.0%} holds {means['held'].mean():.0%} of {len(hours):,} labels"
        yield Measurement(
            "coverage", "model", "interval", *window, f"the {nominal:.0%} that it promises", len(hours), None,
            effect, "share", settings.coverage, p_value, reason,
        )  # fmt: skip
