"""The slices that a model is judged by, and the rows of each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from bike_pipeline import features

OVERALL, HOUR_BAND = "overall", "hour_band"
# From a slicing to the column whose values are its slices.
SLICING_COLUMNS = {HOUR_BAND: features.HOUR, "workingday": "workingday", "season": "season", "weathersit": "weathersit"}
SLICINGS = tuple(SLICING_COLUMNS)
# Slices are counted in an array up to so many values between the smallest and the largest, and sorted out beyond.
WIDEST_RANGE = 65_536

Array = npt.NDArray[Any]
# Rows by slicing and slice.
RowsBySlice = dict[str, dict[str, int]]


def values_of(columns: Mapping[str, Array], slicing: str) -> npt.NDArray[np.int64]:
    """Return the slice of each row, shape (rows,), for one of `SLICINGS`."""
    values = np.asarray(columns[SLICING_COLUMNS[slicing]], np.int64)
    if slicing == HOUR_BAND:
        starts = np.asarray(features.HOUR_BANDS)
        values = starts[np.searchsorted(starts, values, side="right") - 1]
    return values


def distinct(values: npt.NDArray[np.int64]) -> tuple[Array, Array]:
    """Return the values that occur, rising, and for each row the place of its value among them."""
    low, high = int(values.min()), int(values.max())
    if high - low >= WIDEST_RANGE:
        found, place = np.unique(values, return_inverse=True)
        return found, place
    shifted = values - low
    occurs = np.bincount(shifted, minlength=high - low + 1) > 0
    return np.flatnonzero(occurs) + low, (np.cumsum(occurs) - 1)[shifted]


def rows_by_slice(columns: Mapping[str, Array]) -> RowsBySlice:
    """Return how many of the rows, at least one, each slice holds."""
    found: RowsBySlice = {}
    for slicing in SLICINGS:
        present, place = distinct(values_of(columns, slicing))
        counts = np.bincount(place, minlength=len(present))
        found[slicing] = {str(value): int(count) for value, count in zip(present, counts, strict=True)}
    return found


def to_json(rows: RowsBySlice) -> str:
    """Return the rows by slice as JSON."""
    return json.dumps({"rows_by_slice": rows})


def from_json(text: str) -> RowsBySlice:
    """Return what `to_json` wrote; text that lacks a slicing is a ValueError."""
    try:
        rows = json.loads(text)["rows_by_slice"]
        return {slicing: {str(value): int(count) for value, count in rows[slicing].items()} for slicing in SLICINGS}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not rows by slice: {error}") from None
