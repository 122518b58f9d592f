"""Faults of how rows come, which no row shows: a clock that is off by an hour, rows that come twice.

What is usual is the least that any window shows, since a share of clients may ask ahead, or ask the same, without a
fault; what is above it by more than three standard errors counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from bike_pipeline import features
from bike_pipeline.monitoring.columns import Columns, Window, request_hours, rows_in
from bike_pipeline.monitoring.reference import Reference
from bike_pipeline.monitoring.verdicts import Measurement
from bike_pipeline.settings.monitoring import DetectorSettings

# A request that is this far from the hour it asks about is a replay, which tells nothing of clocks.
REPLAY_HOURS = 24 * 14
# Of the rows that must ask equally far ahead for a clock to be told.
AGREEING_SHARE = 0.5
STANDARD_ERRORS = 3.0


def measure(
    observed: Columns, reference: Reference, windows: Sequence[Window], settings: DetectorSettings
) -> Iterator[Measurement]:
    """Yield the share of rows of each window, above what is usual, by clocks that are off and by repetition."""
    del reference
    looks = {
        "clock": (_off_by_an_hour, "clients do not ask equally far ahead, or it is a replay", "an hour off the others"),
        "duplicate": (_repeated, "no rows", "the same as another row"),
    }
    parts = [rows_in(observed, window) for window in windows]
    for detector, (look, unknown, words) in looks.items():
        shares = [look(now) for now in parts]
        told = [share for share in shares if share is not None]
        for window, now, share in zip(windows, parts, shares, strict=True):
            rows, effect, reason = len(now["hour"]), None, unknown
            if share is not None and len(told) > 1:
                usual = min(told)
                error = math.sqrt(max(usual * (1.0 - usual), 1.0 / rows) / rows)
                effect = max(share - usual - STANDARD_ERRORS * error, 0.0)
                reason = f"{share:.1%} of rows are {words}, where {usual:.1%} are usual"
            elif share is not None:
                reason = "no other window tells what is usual"
            yield Measurement(
                detector, "data fault", "requests", *window, "the other windows", rows, None, effect,
                "share of rows", settings.faulty_share, None, reason, at_once=True,
            )  # fmt: skip


def _off_by_an_hour(now: Columns) -> float | None:
    """Return the share of rows that ask one hour beside how far ahead the others of their day ask."""
    known = np.asarray(now["hour"]) >= 0
    asked = request_hours(now)[known]
    ahead = np.asarray(now["hour"])[known] - asked
    known_days, off, agreeing = asked // 24, 0, 0
    if not len(ahead) or np.abs(np.median(ahead)) > REPLAY_HOURS:
        return None
    # The zone's own clock moves twice a year.
    for day in np.unique(known_days):
        values, counts = np.unique(ahead[known_days == day], return_counts=True)
        usual = values[counts.argmax()]
        off += int(counts[np.abs(values - usual) == 1].sum())
        agreeing += int(counts.max())
    return off / len(ahead) if agreeing >= AGREEING_SHARE * len(ahead) else None


def _repeated(now: Columns) -> float | None:
    """Return the share of rows that say in every input what another row of the same hour says."""
    import pandas as pd

    if not len(now["hour"]):
        return None
    names = ("hour", *(feature.name for feature in features.MODEL_INPUTS))
    return float(pd.DataFrame({name: now[name] for name in names}).duplicated().mean())
