"""Features whose distribution is another one: population stability, Jensen-Shannon, Wasserstein, Kolmogorov-Smirnov.

All four are of the histograms of days, each day counting once: the hours of a day are not independent, and a thousand
rows of one day are one day. Significance is by permutation of whole days between window and reference (Good 2005), so
that the number of rows buys none. Weather lasts for days, so that even days are not quite independent: a small p-value
alone says little, and the smallest effects that matter are the largest of a week of 2011 against the weeks around it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bike_pipeline.modeling.feedback import HOURS_A_DAY
from bike_pipeline.monitoring.columns import Array, Columns, Window, hours_of, physical, rows_in, unit_of
from bike_pipeline.monitoring.reference import Reference
from bike_pipeline.monitoring.verdicts import Measurement
from bike_pipeline.settings.monitoring import DetectorSettings

WEATHER = ("temp", "atemp", "hum", "windspeed")
CODES = ("weathersit", "hr", "weekday", "workingday", "holiday")
BINS = 48
# Population stability and divergence are those of tenths of the reference.
TENTHS = 10
PERMUTATIONS = 1999
SEED = 20110101
# No share is 0: an empty bin has half a day's worth of one row.
SMALLEST_SHARE = 1e-3

Float = npt.NDArray[np.float64]


class _Days(NamedTuple):
    """Histograms of days, (days, bins), those of the window first."""

    histograms: Float
    window: int
    centres: Float
    rows: int
    reference_rows: int


def measure(
    observed: Columns, reference: Reference, windows: Sequence[Window], settings: DetectorSettings
) -> Iterator[Measurement]:
    """Yield how far each feature of each window is from the reference, by each of the four."""
    for window in windows:
        now, (then, words) = rows_in(observed, window), reference.of(window)
        for name in (*WEATHER, *CODES):
            days = _days(now, then, name)
            for detector, effect, unit, minimum, p_value in _compared(days, name, settings):
                what = "the distance of the mean hour" if detector == "wasserstein" else "the distance"
                reason = f"{name}: {what} from {words} is {effect:.3g} {unit}" if effect is not None else "no rows"
                yield Measurement(
                    detector, "data drift", name, *window, words, days.rows, days.reference_rows, effect, unit,
                    minimum, p_value, reason,
                )  # fmt: skip


def _days(now: Columns, then: Columns, name: str) -> _Days:
    values, days, counts = [], [], []
    for columns in (now, then):
        column = physical(name, columns[name])
        known = np.isfinite(column)
        values.append(column[known])
        days.append(hours_of(columns)[known] // HOURS_A_DAY)
        counts.append(int(known.sum()))
    if not all(counts):
        return _Days(np.zeros((0, 1)), 0, np.zeros(1), *counts)
    edges = _edges(name, *values)
    histograms = np.vstack([_of_days(v, d, edges) for v, d in zip(values, days, strict=True)])
    return _Days(histograms, len(np.unique(days[0])), (edges[1:] + edges[:-1]) / 2, *counts)


def _edges(name: str, now: Float, then: Float) -> Float:
    if name in CODES:
        codes = np.arange(min(now.min(), then.min()), max(now.max(), then.max()) + 2) - 0.5
        # A code like 10 ** 9 is a fault (see `data_faults`), and no reason for as many bins.
        if len(codes) <= 2 * BINS:
            return codes
    low, high = min(now.min(), then.min()), max(now.max(), then.max())
    return np.linspace(low, high if high > low else low + 1.0, BINS + 1)


def _of_days(values: Float, days: Array, edges: Float) -> Float:
    """Return the share of each day's values in each bin, (days, bins)."""
    bins = len(edges) - 1
    place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, bins - 1)
    own, day = np.unique(days, return_inverse=True)
    counts = np.bincount(day * bins + place, minlength=len(own) * bins).reshape(len(own), bins).astype(np.float64)
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def _compared(
    days: _Days, name: str, settings: DetectorSettings
) -> list[tuple[str, float | None, str, float, float | None]]:
    """Return detector, effect, unit, smallest effect and p-value of each distance."""
    minima = {"°C": settings.temperature, "%": settings.humidity, "km/h": settings.wind}
    is_weather = name in WEATHER
    kinds = [
        ("population_stability", "index", settings.index if is_weather else settings.code_index),
        ("jensen_shannon", "bits", settings.divergence if is_weather else settings.code_divergence),
    ]
    if is_weather:
        kinds.append(("wasserstein", unit_of(name), minima[unit_of(name)]))
        kinds.append(("kolmogorov_smirnov", "share", settings.distance))
    total = len(days.histograms)
    if not 0 < days.window < total:
        return [(detector, None, unit, minimum, None) for detector, unit, minimum in kinds]
    chosen = np.zeros((PERMUTATIONS + 1, total))
    rng = np.random.default_rng(SEED)
    chosen[0, : days.window] = 1.0
    drawn = rng.permuted(np.tile(chosen[0], (PERMUTATIONS, 1)), axis=1)
    chosen[1:] = drawn
    p = chosen @ days.histograms / days.window
    q = (1.0 - chosen) @ days.histograms / (total - days.window)
    found: list[tuple[str, float | None, str, float, float | None]] = []
    for detector, unit, minimum in kinds:
        distances = _distances(detector, p, q, days.centres)
        p_value = float((distances >= distances[0] - 1e-12).mean())
        found.append((detector, float(distances[0]), unit, minimum, p_value))
    return found


def _distances(detector: str, p: Float, q: Float, centres: Float) -> Float:
    """Return the distance between distributions over the same bins, (permutations,)."""
    from scipy.special import rel_entr

    if detector in {"population_stability", "jensen_shannon"}:
        # Finer bins would find out how finely a sensor tells what it reads.
        bins = _tenths(q[0])
        p, q = (np.maximum(np.add.reduceat(one, bins, axis=1), SMALLEST_SHARE) for one in (p, q))
        if detector == "population_stability":
            return np.asarray((rel_entr(p, q) + rel_entr(q, p)).sum(axis=1))
        mean = (p + q) / 2
        return np.asarray((rel_entr(p, mean) + rel_entr(q, mean)).sum(axis=1) / (2 * np.log(2)))
    apart = np.abs(np.cumsum(p - q, axis=1))
    if detector == "kolmogorov_smirnov":
        return np.asarray(apart.max(axis=1))
    # Between distributions on a line it is the area between their cumulative ones (Vallender 1974).
    return np.asarray(apart[:, :-1] @ np.diff(centres))


def _tenths(shares: Float) -> npt.NDArray[np.int64]:
    """Return the first of the bins that make a tenth of the reference each."""
    if len(shares) <= TENTHS:
        return np.arange(len(shares))
    tenth = np.minimum((np.cumsum(shares) - shares / 2) * TENTHS, TENTHS - 1).astype(np.int64)
    return np.flatnonzero(np.diff(tenth, prepend=-1))
