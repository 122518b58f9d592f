"""Faults of the data that are certain: they are counted, and need no test.

Each is a share of a window's rows, with the reason in words. What a value may be stands in `features.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bike_pipeline import features
from bike_pipeline.monitoring.columns import Array, Columns, Window, physical, rows_in, unit_of
from bike_pipeline.monitoring.detectors.outliers import range_reason
from bike_pipeline.monitoring.faults import is_absent, is_out_of_range, unmoved_hours
from bike_pipeline.monitoring.reference import Compared, Reference
from bike_pipeline.monitoring.verdicts import Measurement
from bike_pipeline.settings.monitoring import DetectorSettings

# Fewer requests of an hour do not outvote a faulty one.
FEWEST_REQUESTS = 5
# Beyond the extremes of the reference by half of them: a year is colder and windier than the one before.
RELATION_FACTOR = 1.5
# Felt temperature is so far from the other on any day of wind or damp.
FEWEST_DEGREES = 10.0
# A foggy night is as long.
FEWEST_STUCK_HOURS = 12


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
) -> Iterator[Measurement]:
    """Yield the share of rows of each window that have each kind of fault."""
    longest = {name: int(unmoved_hours(reference.columns, name).max(initial=0)) for name in features.PHYSICAL}
    for window in windows:
        now, compared = rows_in(observed, window), reference.of(window)
        rows = len(now["hour"])
        faults = [
            *out_of_range(now),
            *missing(now, observed, compared),
            *contradicting(now, reference.same_hours(window).columns, settings),
            *unrelated(now, compared),
            *stuck(now, longest),
        ]
        for fault in faults:
            effect = None if fault.faulty is None or not rows else max(float(fault.faulty.mean()) - fault.usual, 0.0)
            yield Measurement(
                fault.detector, "data fault", fault.subject, *window, compared.words, rows, None, effect,
                "share of rows", settings.faulty_share, None, fault.reason, at_once=True,
            )  # fmt: skip


def out_of_range(now: Columns) -> Iterator[Fault]:
    """Yield the rows whose value none may be: beyond its range, a category that there is not, no number."""
    for feature in features.MODEL_INPUTS:
        faulty, reason = is_out_of_range(feature, now[feature.name]), ""
        if faulty.any():
            worst = float(np.asarray(now[feature.name])[faulty][faulty.sum() // 2])
            reason = f"{faulty.mean():.1%} of rows: {range_reason(feature.name, worst)}"
        yield Fault("range", feature.name, faulty, reason)


def _absent(columns: Columns, name: str) -> npt.NDArray[np.bool_]:
    absent = is_absent(np.asarray(columns[name], np.float64))
    # Three calm hours are 0 too; a row with all of them absent has no weather of the past at all.
    calm = np.asarray(columns["hum_mean_3h"]) > 0 if name == "windspeed_mean_3h" else np.zeros(len(absent), bool)
    # Where nobody asked about the hour before, nobody has its weather: the clocks go forward, a sensor was off.
    follows = np.isin(np.asarray(columns["hour"]) - 1, columns["hour"])
    return np.asarray(absent & ~calm & follows)


def missing(now: Columns, observed: Columns, compared: Compared) -> Iterator[Fault]:
    """Yield the rows that come without an optional input which the model was trained with.

    The wind of three calm hours is 0 as none is, so that it is missed only together with the rest.
    """
    for feature in features.OPTIONAL_INPUTS:
        absent, usual = _absent(now, feature.name), 0.0
        if len(compared.columns["hour"]):
            usual = float(_absent(compared.columns, feature.name).mean())
        reason = f"{absent.mean():.0%} of rows come without {feature.meaning}" if absent.any() else ""
        if is_absent(np.asarray(observed[feature.name], np.float64)).all():
            yield Fault("missing", feature.name, None, f"no request sends {feature.meaning}, which the model knows of")
        else:
            yield Fault("missing", feature.name, absent, reason, usual)


def contradicting(now: Columns, spans: Columns, settings: DetectorSettings) -> Iterator[Fault]:
    """Yield the rows whose weather is not that of their hour, by its other requests or by the spans.

    A sensor that is stuck, a unit that is another one and a clock that is off show in rows that each look sound.
    """
    for name in features.PHYSICAL:
        values = physical(name, now[name])
        truth = _truth(now, values, spans, name)
        faulty = np.abs(values - truth) > settings.agreement[name]
        reason = ""
        if faulty.any():
            apart = float(np.median(np.abs(values - truth)[faulty]))
            reason = f"{faulty.mean():.1%} of rows are {apart:.0f} {unit_of(name)} from others of the same hour"
        elif np.isnan(truth).all():
            reason = f"no hour has {FEWEST_REQUESTS} requests or a row in the spans"
        yield Fault("contradiction", name, None if np.isnan(truth).all() else faulty, reason)


def _truth(now: Columns, values: Array, spans: Columns, name: str) -> npt.NDArray[np.float64]:
    """Return the median of each row's hour, else the spans' value, else NaN, (rows,)."""
    hours, place, counts = np.unique(now["hour"], return_inverse=True, return_counts=True)
    order = np.lexsort((values, place))
    medians = values[order][np.cumsum(counts) - counts + (counts - 1) // 2] if len(values) else values
    truth = np.where((counts >= FEWEST_REQUESTS) & (hours >= 0), medians, np.nan)
    known = np.asarray(spans["hour"])
    if len(known):
        at = np.minimum(np.searchsorted(known, hours), len(known) - 1)
        stored = np.where(known[at] == hours, physical(name, np.asarray(spans[name])[at]), np.nan)
        truth = np.where(np.isnan(truth), stored, truth)
    return np.asarray(truth[place])


def unrelated(now: Columns, compared: Compared) -> Iterator[Fault]:
    """Yield the rows whose two temperatures are much further apart than those of the reference ever are."""
    apart = physical("atemp", now["atemp"]) - physical("temp", now["temp"])
    usual = physical("atemp", compared.columns["atemp"]) - physical("temp", compared.columns["temp"])
    if not len(usual):
        yield Fault("relation", "temp", None, "the reference has no rows")
        return
    low, high = (RELATION_FACTOR * float(end) for end in (usual.min(), usual.max()))
    faulty = (apart < min(low, -FEWEST_DEGREES)) | (apart > max(high, FEWEST_DEGREES))
    reason = ""
    if faulty.any():
        reason = f"{faulty.mean():.1%} of rows feel {np.median(apart[faulty]):+.0f} °C warmer than they are"
    yield Fault("relation", "temp", faulty, reason)


def stuck(now: Columns, longest: Mapping[str, int]) -> Iterator[Fault]:
    """Yield the rows of hours in which a sensor says the same for longer than it ever did in the spans."""
    for name, most in longest.items():
        if not most:
            yield Fault("stuck", name, None, "the spans have no rows")
            continue
        hours, reason = unmoved_hours(now, name), ""
        faulty = hours > max(most, FEWEST_STUCK_HOURS)
        if faulty.any():
            value = physical(name, now[name])[hours.argmax()]
            reason = f"{name} says {value:.1f} {unit_of(name)} for {hours.max()} hours; {most} were the most"
        yield Fault("stuck", name, faulty, reason)
