"""Rows of the monitor as columns: which of them fall into a window, in which unit a person reads them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from bike_pipeline import features
from bike_pipeline.modeling.feedback import HOURS_A_DAY
from bike_pipeline.modeling.label_update import hour_of

Array = npt.NDArray[Any]
# Values by column, (rows,) each.
Columns = Mapping[str, Array]
# First and last moment, local.
Window = tuple[datetime, datetime]

_FIRST_HOUR = np.datetime64(f"{features.FIRST_YEAR}-01-01", "h")


def request_hours(columns: Columns) -> npt.NDArray[np.int64]:
    """Return when rows were asked, (rows,), in hours since 1 January of `features.FIRST_YEAR`, UTC."""
    return (np.asarray(columns["requested_at"]).astype("datetime64[h]") - _FIRST_HOUR).astype(np.int64)


def hours_of(columns: Columns) -> npt.NDArray[np.int64]:
    """Return the hours that rows ask about, (rows,), since 1 January of `features.FIRST_YEAR`, local.

    Where a request named no day it is the hour of the request, whose zone is another one.
    """
    hours = np.asarray(columns["hour"], np.int64)
    if "requested_at" not in columns or (hours >= 0).all():
        return hours
    return np.where(hours >= 0, hours, request_hours(columns))


def requests_of(columns: Columns) -> npt.NDArray[np.float64]:
    """Return how many requests rows stand for, (rows,): where a share of them is logged, each for more than itself."""
    rates = columns.get("sampling_rate")
    return np.ones(len(columns["hour"])) if rates is None else 1.0 / np.asarray(rates, np.float64)


def take(columns: Columns, chosen: Array | slice) -> dict[str, Array]:
    """Return some of the rows."""
    return {name: np.asarray(values)[chosen] for name, values in columns.items()}


def rows_in(columns: Columns, window: Window) -> dict[str, Array]:
    """Return the rows that ask about the hours of a window, both ends included."""
    hours = hours_of(columns)
    return take(columns, (hours >= hour_of(window[0])) & (hours <= hour_of(window[1])))


def physical(name: str, values: Array) -> npt.NDArray[np.float64]:
    """Return values of a column in the unit of `unit_of`, (rows,)."""
    scale, offset, _ = features.PHYSICAL.get(name, (1.0, 0.0, ""))
    return np.asarray(values, np.float64) * scale + offset


def unit_of(name: str) -> str:
    """Return the unit that a person reads a column in."""
    return features.PHYSICAL[name][2] if name in features.PHYSICAL else features.BY_NAME[name].unit


def by_hour(columns: Columns, *names: str) -> tuple[npt.NDArray[np.int64], dict[str, npt.NDArray[np.float64]]]:
    """Return the hours that rows ask about, rising and each once, and the mean of columns in each.

    However often an hour was asked, it counts once: requests of the same hour tell nothing new of the model.
    """
    hours, place, counts = np.unique(columns["hour"], return_inverse=True, return_counts=True)
    return hours, {name: np.bincount(place, columns[name], len(hours)) / counts for name in names}


def by_day(hours: Array, values: Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return days, rising, counted as hours are, and the mean of values in each."""
    days, place = np.unique(np.asarray(hours) // HOURS_A_DAY, return_inverse=True)
    return days, np.bincount(place, values, len(days)) / np.maximum(np.bincount(place, minlength=len(days)), 1)


def answered(columns: Columns) -> dict[str, Array]:
    """Return the rows whose hour is known, with a label."""
    return take(columns, (np.asarray(columns["hour"]) >= 0) & np.isfinite(np.asarray(columns["label"], np.float64)))
