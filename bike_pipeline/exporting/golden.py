"""Golden rows: the same for every model and format, so that a device and a server can be held to the same answers.

They cover every value of every category, the ends of every range, and what no training row ever was: codes and weather
outside their ranges, years to come. The rest are seeded draws from the ranges. No row holds a value that is not a
number: a client never sends one (`serving.records` refuses it).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from bike_pipeline import features
from bike_pipeline.features import Feature
from bike_pipeline.modeling.rows import Columns

SEED = 20110101
# Last of the years that the rows are drawn from, since 2011: two of data and three to come.
LAST_YEAR = 4
# What a category, a range and a year may be wrong by.
_UNSEEN_CODES = (-1, 1_000)
_UNSEEN_NUMBERS = (-0.5, 1.5, 25.0)


def golden_rows(count: int) -> Columns:
    """Return `count` golden rows: one array of shape (count,) for each of the model's inputs; int64 or float32.

    Raises:
        ValueError: `count` is too small to hold every value that must be there.
    """
    generator = np.random.default_rng(SEED)
    columns = {f.name: _drawn(f, count, generator) for f in features.MODEL_INPUTS}
    row = 0
    for feature in features.MODEL_INPUTS:
        for value in _values(feature):
            if row == count:
                raise ValueError(f"{count} golden rows do not hold every value; take more")
            columns[feature.name][row] = value
            row += 1
    return columns


def _top(feature: Feature) -> int:
    return LAST_YEAR if feature.maximum is None else int(feature.maximum)


def _drawn(feature: Feature, count: int, generator: np.random.Generator) -> npt.NDArray[Any]:
    low = int(feature.minimum or 0)
    if feature.kind == "int":
        return generator.integers(low, _top(feature) + 1, count, dtype=np.int64)
    # To the four decimals that the data has: text and binary forms of a row are then the same number.
    return np.round(generator.uniform(low, _top(feature), count), 4).astype(np.float32)


def _values(feature: Feature) -> Iterator[float]:
    """Yield what must be there of a feature: every category or the ends and the middle, and the unseen."""
    low, high = int(feature.minimum or 0), _top(feature)
    if feature.kind == "int":
        yield from range(low, high + 1)
        yield from (low + _UNSEEN_CODES[0], high + 1, _UNSEEN_CODES[1])
    else:
        yield from (low, (low + high) / 2, high)
        yield from _UNSEEN_NUMBERS
