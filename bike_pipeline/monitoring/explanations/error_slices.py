"""Where a model errs most: slices that a shallow tree finds on some days and that other days confirm.

A search for the worst among many slices finds one in pure chance, too. So every other day only searches, and the days
between only test: whether errors are larger inside than outside, each day counting once (Welch's t), adjusted for the
number of slices that were found (Benjamini and Hochberg 1995).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from bike_pipeline import features
from bike_pipeline.modeling.feedback import HOURS_A_DAY
from bike_pipeline.monitoring.columns import Array, Columns, answered, by_day, physical, take
from bike_pipeline.monitoring.verdicts import adjusted

# What slices are cut by; hours and codes as they are, weather in the unit of a person.
CUT_BY = ("hr", "workingday", "weathersit", "mnth", "temp", "hum", "windspeed")
_DEPTH, _FEWEST_ROWS, _FEWEST_DAYS = 3, 40, 5
_SEED = 20110101


@dataclass(frozen=True)
class ErrorSlice:
    """Rows that a model errs on more than on others, as the days that did not search tell it.

    Attributes:
        words: which rows.
        rows: how many of them.
        days: on how many days.
        mae: their mean absolute error, in the answer's unit.
        mae_elsewhere: that of all other rows.
        p_value: adjusted for the slices that were looked at.
    """

    words: str
    rows: int
    days: int
    mae: float
    mae_elsewhere: float
    p_value: float


def worst_slices(observed: Columns, false_discovery_rate: float) -> tuple[list[ErrorSlice], str]:
    """Return the slices whose error is larger, the largest first, and how they were looked for, in words.

    Args:
        observed: answered rows; those without a label do not count.
        false_discovery_rate: of the slices that are told, the share that may be accidents.

    Raises:
        MissingExtraError: the extra `monitoring` is not installed.
    """
    from bike_pipeline import extras

    extras.require("monitoring", "looking for slices")
    from sklearn.tree import DecisionTreeRegressor

    known = answered(observed)
    # What is no number is a fault of the data, and no slice.
    sound = np.all([np.isfinite(np.asarray(known[name], np.float64)) for name in CUT_BY], axis=0)
    known = take(known, sound & np.isfinite(known["answer"]))
    errors = np.abs(known["label"] - known["answer"])
    searches = known["hour"] // HOURS_A_DAY % 2 == 0
    if min(searches.sum(), (~searches).sum()) < 2 * _FEWEST_ROWS:
        return [], f"not looked for: {len(errors)} labelled rows, of {4 * _FEWEST_ROWS} that it takes"
    table = np.column_stack([physical(name, known[name]) for name in CUT_BY])
    least = max(_FEWEST_ROWS, int(searches.sum()) // 50)
    tree = DecisionTreeRegressor(max_depth=_DEPTH, min_samples_leaf=least, random_state=_SEED)
    tree.fit(table[searches], errors[searches])
    candidates = []
    for rows, words in _leaves(tree.tree_, table):
        found = _tested(rows & ~searches, ~rows & ~searches, errors, known["hour"])
        if found is not None:
            candidates.append((rows & ~searches, words, found))
    p_values = adjusted([p for _, _, p in candidates])
    told = []
    for (rows, words, _), p_value in zip(candidates, p_values, strict=True):
        inside, outside = (float(errors[chosen].mean()) for chosen in (rows, ~rows & ~searches))
        # A day may weigh more than its rows.
        if p_value <= false_discovery_rate and inside > outside:
            days = len(np.unique(known["hour"][rows] // HOURS_A_DAY))
            told.append(ErrorSlice(words, int(rows.sum()), days, inside, outside, float(p_value)))
    how = (
        f"{len(candidates)} slices found on {searches.sum():,} rows of every other day, tested on "
        f"{(~searches).sum():,} rows of the days between; {len(told)} confirmed"
    )
    return sorted(told, key=lambda one: -one.mae), how


def _tested(inside: Array, outside: Array, errors: Array, hours: Array) -> float | None:
    """Return how likely the errors inside are larger by accident; None if there are too few rows or days."""
    from scipy import stats

    if inside.sum() < _FEWEST_ROWS or outside.sum() < _FEWEST_ROWS:
        return None
    (_, own), (_, others) = (by_day(hours[rows], errors[rows]) for rows in (inside, outside))
    if min(len(own), len(others)) < _FEWEST_DAYS:
        return None
    p_value = float(stats.ttest_ind(own, others, equal_var=False, alternative="greater").pvalue)
    return 1.0 if math.isnan(p_value) else p_value


def _leaves(tree: Any, table: Array) -> Iterator[tuple[Array, str]]:
    """Yield the rows of each leaf of a tree of scikit-learn, (rows,) bool, and which they are in words."""
    pending = [(0, np.ones(len(table), bool), dict.fromkeys(CUT_BY, (-math.inf, math.inf)))]
    while pending:
        node, rows, bounds = pending.pop()
        if tree.children_left[node] < 0:
            yield rows, _words(bounds)
            continue
        column, limit = int(tree.feature[node]), float(tree.threshold[node])
        name = CUT_BY[column]
        low, high = bounds[name]
        is_left = table[:, column].astype(np.float32) <= limit
        pending.append((int(tree.children_left[node]), rows & is_left, {**bounds, name: (low, min(high, limit))}))
        pending.append((int(tree.children_right[node]), rows & ~is_left, {**bounds, name: (max(low, limit), high)}))


def _words(bounds: dict[str, tuple[float, float]]) -> str:
    said = [_said(name, low, high) for name, (low, high) in bounds.items() if math.isfinite(low) or math.isfinite(high)]
    return ", ".join(said) or "all hours"


def _said(name: str, low: float, high: float) -> str:
    if name == "workingday":
        return features.slice_name(name, int(low >= 0))
    if name in features.PHYSICAL:
        unit, what = features.PHYSICAL[name][2], features.BY_NAME[name].meaning
        parts = [f"above {low:.0f} {unit}"] * math.isfinite(low) + [f"up to {high:.0f} {unit}"] * math.isfinite(high)
        return f"{what} {' and '.join(parts)}"
    feature = features.BY_NAME[name]
    first = math.floor(low) + 1 if math.isfinite(low) else int(feature.minimum or 0)
    last = math.floor(high) if math.isfinite(high) else int(feature.maximum or 0)
    if name == "weathersit":
        return " or ".join(features.WEATHER[code] for code in range(first, last + 1) if code in features.WEATHER)
    what = {"hr": "hours", "mnth": "months"}[name]
    return f"{what} {first}-{last}" if first != last else f"{what[:-1]} {first}"
