"""The model that every candidate must clearly beat: the mean by hour and working day of the training rows.

Of all of them, or of the newest span's alone, whichever is nearer to the rows in question: where the label's level has
moved, or the label has become constant, the mean of years gone by is beaten by anything.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
_TABLE = "mean_rentals_by_workingday_and_hour"
_NEWEST = f"{_TABLE}_of_the_newest_span"


@dataclass(frozen=True)
class NaiveBaseline:
    """Mean rentals by (working day, hour of day), tables of shape (2, 24) in rentals.

    Attributes:
        table: of all rows; cells without rows hold the mean of all rows.
        newest: of the newest span's rows alone; None if these are all of them.
    """

    table: npt.NDArray[np.float64]
    newest: npt.NDArray[np.float64] | None = None

    @classmethod
    def fit(cls, hour: Array, workingday: Array, label: Array, newest: int | None = None) -> Self:
        """Return the means of rows, each argument of shape (rows,); the last `newest` rows are the newest span's."""
        if newest is not None and 0 < newest < len(label):
            last = cls.fit(hour[-newest:], workingday[-newest:], label[-newest:])
            return cls(cls.fit(hour, workingday, label).table, last.table)
        if not len(label):
            raise ValueError("no rows to take means of")
        cell = np.asarray(workingday, np.int64) * 24 + np.asarray(hour, np.int64)
        values = np.asarray(label, np.float64)
        count = np.bincount(cell, minlength=48)
        total = np.bincount(cell, weights=values, minlength=48)
        means = np.where(count > 0, total / np.maximum(count, 1), values.mean())
        return cls(means.reshape(2, 24))

    def errors(self, hour: Array, workingday: Array, label: Array) -> npt.NDArray[np.float64]:
        """Return Σ|error| on the given rows, in rentals, of `table` and `newest`; shape (2,)."""
        row, column = np.asarray(workingday, np.int64), np.asarray(hour, np.int64)
        tables = (self.table, self.table if self.newest is None else self.newest)
        return np.array([np.abs(table[row, column] - np.asarray(label, np.float64)).sum() for table in tables])

    def to_json(self) -> str:
        """Return the tables as JSON."""
        return json.dumps(
            {_TABLE: self.table.tolist()} | ({} if self.newest is None else {_NEWEST: self.newest.tolist()})
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return what `to_json` wrote; other text is a ValueError."""
        try:
            stored = json.loads(text)
            tables = [np.asarray(stored[name], np.float64) for name in (_TABLE, _NEWEST) if name in (_TABLE, *stored)]
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a table of hourly means: {error}") from None
        for table in tables:
            if table.shape != (2, 24):
                raise ValueError(f"a table of hourly means has shape (2, 24), not {table.shape}")
        return cls(*tables)
