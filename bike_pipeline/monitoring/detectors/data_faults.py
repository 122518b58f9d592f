"""Faults of the data that are certain: they are counted, and need no test.

Each is a share of a window's rows, with the reason in words. What a value may be stands in `features.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bike_pipeline import features
from bike_pipeline.monitoring.columns import Array, Columns, Window, rows_in
from bike_pipeline.monitoring.detectors.outliers import range_reason
from bike_pipeline.monitoring.reference import Compared, Reference
from bike_pipeline.monitoring.verdicts import Measurement
from bike_pipeline.settings.monitoring import DetectorSettings


class Fault(NamedTuple):
    """A kind of fault in a window's rows.

    Attributes:
        detector: its name.
        subject: a feature, or "requests".
        faulty: which rows have it, (rows,); None where it cannot be told.
        reason: what was seen, in words.
        usual: the share of rows that have it without a fault.
    """

    detector: str
    subject: str
    faulty: npt.NDArray[np.bool_] | None
    reason: str
    usual: float = 0.0


def measure(
    observed: Columns, reference: Reference, windows: Sequence[Window], settings: DetectorSettings
) -> list[Measurement]:
    """Return the share of rows of each window that have each kind of fault."""
    found = []
    for window in windows:
        now, compared = rows_in(observed, window), reference.of(window)
        rows = len(now["hour"])
        for fault in (*out_of_range(now), *missing(now, observed, compared)):
            effect = None if fault.faulty is None or not rows else max(float(fault.faulty.mean()) - fault.usual, 0.0)
            found.append(
                Measurement(
                    fault.detector, "data fault", fault.subject, *window, compared.words, rows, None, effect,
                    "share of rows", settings.faulty_share, None, fault.reason, at_once=True,
                )
            )  # fmt: skip
    return found


def out_of_range(now: Columns) -> Iterator[Fault]:
    """Yield the rows whose value none may be: beyond its range, a category that there is not, no number."""
    for feature in features.MODEL_INPUTS:
        values = np.asarray(now[feature.name], np.float64)
        faulty = is_out_of_range(feature, values)
        reason = ""
        if faulty.any():
            worst = values[faulty][len(values[faulty]) // 2]
            reason = f"{faulty.mean():.1%} of rows: {range_reason(feature.name, float(worst))}"
        yield Fault("range", feature.name, faulty, reason)


def is_out_of_range(feature: features.Feature, values: Array) -> npt.NDArray[np.bool_]:
    """Return which values the feature cannot have, (rows,); one that a client need not send may be absent."""
    low = -np.inf if feature.minimum is None else feature.minimum
    high = np.inf if feature.maximum is None else feature.maximum
    fits = (values >= low) & (values <= high)
    if feature.kind == "int":
        fits &= values == np.floor(values)
    if feature.default is not None:
        fits |= is_absent(values)
    return np.asarray(~fits)


def is_absent(values: Array) -> npt.NDArray[np.bool_]:
    """Return which values of an optional input stand for none, (rows,)."""
    return np.asarray(np.isnan(values) | (values <= 0.0))


def missing(now: Columns, observed: Columns, compared: Compared) -> Iterator[Fault]:
    """Yield the rows that come without an optional input which the model was trained with."""
    for feature in features.OPTIONAL_INPUTS:
        absent = is_absent(np.asarray(now[feature.name], np.float64))
        then = np.asarray(compared.columns[feature.name], np.float64)
        usual = float(is_absent(then).mean()) if len(then) else 0.0
        reason = f"{absent.mean():.0%} of rows come without {feature.meaning}" if absent.any() else ""
        if is_absent(np.asarray(observed[feature.name], np.float64)).all():
            yield Fault("missing", feature.name, None, f"no request sends {feature.meaning}, which the model knows of")
        else:
            yield Fault("missing", feature.name, absent, reason, usual)
