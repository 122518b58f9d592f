"""The model that every candidate must clearly beat: the mean by hour and working day of the training rows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class HourlyMean:
    """Mean rentals by (working day, hour of day).

    Attributes:
        table: (2, 24) float64, rentals; cells without rows hold the mean of all rows.
    """

    table: npt.NDArray[np.float64]

    @classmethod
    def fit(cls, hour: Array, workingday: Array, label: Array) -> Self:
        """Return the means of the given rows, each argument of shape (rows,).

        Raises:
            ValueError: there are no rows.
        """
        if not len(label):
            raise ValueError("no rows to take means of")
        cell = np.asarray(workingday, np.int64) * 24 + np.asarray(hour, np.int64)
        values = np.asarray(label, np.float64)
        count = np.bincount(cell, minlength=48)
        total = np.bincount(cell, weights=values, minlength=48)
        means = np.where(count > 0, total / np.maximum(count, 1), values.mean())
        return cls(means.reshape(2, 24))

    def predict(self, hour: Array, workingday: Array) -> npt.NDArray[np.float64]:
        """Return the mean for each row, shape (rows,), in rentals."""
        return self.table[np.asarray(workingday, np.int64), np.asarray(hour, np.int64)]

    def mean_absolute_error(self, hour: Array, workingday: Array, label: Array) -> float:
        """Return the mean absolute error on the given rows, in rentals."""
        return float(np.abs(self.predict(hour, workingday) - np.asarray(label, np.float64)).mean())

    def to_json(self) -> str:
        """Return the table as JSON."""
        return json.dumps({"mean_rentals_by_workingday_and_hour": self.table.tolist()})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return what `to_json` wrote.

        Raises:
            ValueError: the text is not such a table.
        """
        try:
            table = np.asarray(json.loads(text)["mean_rentals_by_workingday_and_hour"], np.float64)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a table of hourly means: {error}") from None
        if table.shape != (2, 24):
            raise ValueError(f"a table of hourly means has shape (2, 24), not {table.shape}")
        return cls(table)
