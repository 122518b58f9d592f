"""Single rows that are unlike those of training, with a reason in words: ranges and units, then an isolation forest.

One row takes a few milliseconds, so that whoever stands beside a server can ask of each request.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from bike_pipeline import features
from bike_pipeline.monitoring.columns import Array, Columns, Window, by_day, hours_of, physical, rows_in, take, unit_of
from bike_pipeline.monitoring.faults import is_out_of_range
from bike_pipeline.monitoring.reference import Reference
from bike_pipeline.monitoring.verdicts import Measurement
from bike_pipeline.settings.monitoring import DetectorSettings

# What air is between, by unit: colder, wetter or windier is no reading.
SENSIBLE = {"°C": (-25.0, 45.0), "%": (0.0, 100.0), "km/h": (0.0, 100.0)}
COLUMNS = ("mnth", "hr", "weathersit", *features.PHYSICAL)
TREES, SEED = 50, 20110101
# Rows that a forest is fitted to, and of a window that are asked.
MOST_ROWS = 5000
# Of the rows of training, the share that is beyond the limit.
UNUSUAL_SHARE = 0.005


def range_reason(name: str, value: float) -> str:
    """Return why a value cannot be one of a feature, in words, with the unit that it seems to be in."""
    feature = features.BY_NAME[name]
    if math.isnan(value):
        return f"{name} is no number"
    if name == "weathersit":
        return f"weathersit {value:g} is no weather that there is ({', '.join(map(str, features.WEATHER))})"
    allowed = f"{name} {value:g} is not from {feature.minimum:g}"
    allowed += f" to {feature.maximum:g}" if feature.maximum is not None else ""
    if name not in features.PHYSICAL:
        return allowed
    seems = looks_like(name, value)
    return f"{allowed}; {seems}" if seems else allowed


def looks_like(name: str, value: float) -> str:
    """Return what a stored value seems to be instead, such as "1.6 would be 67 °C; looks like Fahrenheit"."""
    scale, offset, unit = features.PHYSICAL[name]
    read = value * scale + offset
    low, high = SENSIBLE[unit]
    if low <= read <= high:
        return ""
    if unit == "°C" and low <= (read - 32.0) / 1.8 <= high:
        return f"{value:g} would be {read:.0f} °C; looks like Fahrenheit"
    if low <= value <= high:
        return f"{value:g} would be {read:.0f} {unit}; looks like {unit} that nobody scaled"
    return f"it would be {read:.0f} {unit}"


class OutlierDetector:
    """Tells whether a row is unlike those that it was fitted to."""

    def __init__(self, rows: Columns) -> None:
        """Fit the forest to rows, some thousand at most, drawn by a seed.

        Raises:
            MissingExtraError: the extra `monitoring` is not installed.
        """
        from bike_pipeline import extras

        extras.require("monitoring", "looking for outliers")
        from sklearn.ensemble import IsolationForest

        chosen = np.random.default_rng(SEED).permutation(len(rows["hr"]))[:MOST_ROWS]
        self._columns = self._matrix(take(rows, chosen))
        forest = IsolationForest(n_estimators=TREES, contamination=UNUSUAL_SHARE, random_state=SEED)
        self._forest = forest.fit(self._columns)

    @staticmethod
    def _matrix(rows: Columns) -> npt.NDArray[np.float64]:
        """Return what the forest sees: hour and month as points of a circle, the weather, how warm it feels."""
        angles = [(rows["hr"], 24.0), (np.asarray(rows["mnth"]) - 1.0, 12.0)]
        circle = [f(2.0 * np.pi * np.asarray(v, np.float64) / whole) for v, whole in angles for f in (np.sin, np.cos)]
        weather = [physical(name, rows[name]) for name in features.PHYSICAL]
        table = np.column_stack([*circle, *weather, weather[1] - weather[0], rows["weathersit"]])
        return np.asarray(np.nan_to_num(table), np.float64)

    def are_outliers(self, rows: Columns) -> npt.NDArray[np.bool_]:
        """Return which rows the forest takes for outliers, (rows,)."""
        return np.asarray(self._forest.predict(self._matrix(rows)) < 0)

    def outlier_of(self, row: Mapping[str, Any]) -> str:
        """Return why a row, with every required input by its name, is an outlier, in words; "" if it is none."""
        for feature in features.REQUIRED_INPUTS:
            value = float(row[feature.name])
            if is_out_of_range(feature, np.array([value])).any():
                return range_reason(feature.name, value)
        columns = {name: np.asarray([row[name]], np.float64) for name in COLUMNS}
        if not self.are_outliers(columns)[0]:
            return ""
        # What is furthest from what the month has.
        return self._furthest({name: float(physical(name, columns[name])[0]) for name in features.PHYSICAL})

    @cached_property
    def _usual(self) -> dict[str, tuple[float, float]]:
        weather = self._columns[:, 4:8]
        return {n: (float(v.mean()), float(v.std()) or 1.0) for n, v in zip(features.PHYSICAL, weather.T, strict=True)}

    def _furthest(self, read: Mapping[str, float]) -> str:
        apart = {name: (value - self._usual[name][0]) / self._usual[name][1] for name, value in read.items()}
        name = max(apart, key=lambda one: abs(apart[one]))
        told = ", ".join(f"{one} {value:.0f} {unit_of(one)}" for one, value in read.items())
        return f"no hour of training is like it: {told}; {name} stands out"


def measure(
    observed: Columns, reference: Reference, windows: Sequence[Window], settings: DetectorSettings
) -> Iterator[Measurement]:
    """Yield the share of rows that are outliers in each window, above that of the reference's rows.

    Significance is Mann and Whitney's test over the shares of days.
    """
    from scipy import stats

    training = _training(reference)
    detector = OutlierDetector(training) if len(training["hour"]) else None
    for window in windows:
        now, compared = rows_in(observed, window), reference.of(window)
        effect, p_value, reason = None, None, "no rows, or none to compare them with"
        rows, then = (take(one, _some(len(one["hour"]))) for one in (now, compared.columns))
        if detector is not None and len(rows["hour"]) and len(then["hour"]):
            shares = [by_day(hours_of(one), detector.are_outliers(one))[1] for one in (rows, then)]
            means = [float(share.mean()) for share in shares]
            effect = means[0] - means[1]
            p_value = float(stats.mannwhitneyu(*shares, alternative="greater").pvalue)
            reason = f"{means[0]:.1%} of rows are unlike all of training, {means[1]:.1%} of {compared.words}"
        yield Measurement(
            "outliers", "data drift", "rows", *window, compared.words, len(now["hour"]), len(then["hour"]), effect,
            "share of rows", settings.outlier_share, p_value, reason,
        )  # fmt: skip


def _some(count: int) -> npt.NDArray[np.int64]:
    return np.sort(np.random.default_rng(SEED).permutation(count)[:MOST_ROWS])


def _training(reference: Reference) -> dict[str, Array]:
    hours = np.asarray(reference.columns["hour"])
    return take(reference.columns, hours < (reference.first_untrained or np.inf))
