"""What every candidate must clearly beat: means by hour and kind of day of the training rows.

Three of them, and the one that is nearest to the rows in question counts: the mean of all rows, that of the newest
span alone, and that of the last weeks, which is the seasonal naive forecast: the same hour of the same kind of day as
lately. Where the label's level has moved, or the label has become constant, the mean of years gone by is beaten by
anything; in the season after the training rows the last weeks know more than the year.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
# Four weeks of hours: each cell of working days has about twenty rows, of other days eight.
RECENT_ROWS = 4 * 7 * 24
# The names of the tables in the file, and how reports call them.
_TABLE = "mean_rentals_by_workingday_and_hour"
_NAMES = {
    _TABLE: "hourly mean",
    f"{_TABLE}_of_the_newest_span": "hourly mean of the newest span",
    f"{_TABLE}_of_the_last_weeks": "seasonal naive",
}


# From labels and answers, (rows,) each, to the error of each row.
Error = Callable[[npt.NDArray[np.float64], npt.NDArray[np.float64]], npt.NDArray[np.float64]]


def _absolute(label: npt.NDArray[np.float64], answer: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.abs(answer - label)


@dataclass(frozen=True)
class NaiveBaseline:
    """Mean label by (working day, hour of day), tables of shape (2, 24): in rentals, or the share of busy hours.

    Attributes:
        table: of all rows; cells without rows hold the mean of all rows.
        newest: of the newest span's rows alone; None if these are all of them.
        recent: of the last `RECENT_ROWS` rows; None where there are not more.
    """

    table: npt.NDArray[np.float64]
    newest: npt.NDArray[np.float64] | None = None
    recent: npt.NDArray[np.float64] | None = None

    @classmethod
    def fit(cls, hour: Array, workingday: Array, label: Array, newest: int | None = None, prior: float = 0.0) -> Self:
        """Return the means of rows in time order, each argument (rows,); the last `newest` are the newest span's.

        Each cell begins with `prior` rows of the mean of all: of a share, no cell then answers that it never happens.
        """
        if not len(label):
            raise ValueError("no rows to take means of")

        def last(rows: int | None) -> npt.NDArray[np.float64] | None:
            if rows is None or not 0 < rows < len(label):
                return None
            return _means(hour[-rows:], workingday[-rows:], label[-rows:], prior)

        return cls(_means(hour, workingday, label, prior), last(newest), last(RECENT_ROWS))

    @property
    def tables(self) -> dict[str, npt.NDArray[np.float64]]:
        """The tables that there are, by the names that reports call them."""
        found = zip(_NAMES.values(), (self.table, self.newest, self.recent), strict=True)
        return {name: table for name, table in found if table is not None}

    def errors(self, hour: Array, workingday: Array, label: Array, error: Error = _absolute) -> dict[str, float]:
        """Return the sum of the rows' errors, absolute ones in the label's unit by default, of each of `tables`."""
        row, column = np.asarray(workingday, np.int64), np.asarray(hour, np.int64)
        y = np.asarray(label, np.float64)
        return {name: float(error(y, table[row, column]).sum()) for name, table in self.tables.items()}

    def to_json(self) -> str:
        """Return the tables as JSON."""
        tables = self.tables
        return json.dumps({key: tables[name].tolist() for key, name in _NAMES.items() if name in tables})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return what `to_json` wrote, here or in an earlier release; other text is a ValueError."""
        try:
            stored = json.loads(text)
            tables = {key: np.asarray(stored[key], np.float64) for key in _NAMES if key in (_TABLE, *stored)}
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a table of hourly means: {error}") from None
        for table in tables.values():
            if table.shape != (2, 24):
                raise ValueError(f"a table of hourly means has shape (2, 24), not {table.shape}")
        _, newest, recent = _NAMES
        return cls(tables[_TABLE], tables.get(newest), tables.get(recent))


def _means(hour: Array, workingday: Array, label: Array, prior: float) -> npt.NDArray[np.float64]:
    cell = np.asarray(workingday, np.int64) * 24 + np.asarray(hour, np.int64)
    values = np.asarray(label, np.float64)
    count = np.bincount(cell, minlength=48)
    total = np.bincount(cell, weights=values, minlength=48)
    mean = float(values.mean())
    means: npt.NDArray[np.float64] = np.where(count > 0, (total + prior * mean) / np.maximum(count + prior, 1), mean)
    return means.reshape(2, 24)
