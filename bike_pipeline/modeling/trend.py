"""What of the label is growth: how much its logarithm rises a month, whatever hour, weather and season it is.

The model holds the level of the end of training for all hours after it (see `preprocessing.MONTHS_BEFORE_END`). If it
had to learn the level from a single year by itself, it would take the winter at the year's end for the level of the
year to come: 2011 → 2012 RMSE 131 without this, 84 with it (`make benchmark-quality`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from bike_pipeline.modeling import preprocessing

# Fewer months do not tell growth from season; up to a year only weather and sun do, and half of it is taken: on four
# origins in 2011 the mean RMSE is 57.7 without growth, 52.2 with half and 51.7 with all of it, the worst bias -21 %,
# -17 % and +15 %.
FEWEST_MONTHS, YEAR_MONTHS, SHARE_BELOW_A_YEAR = 6, 12, 0.5
# From here on most months of the year are there twice, so that season and level can be told from growth.
REPEATED_MONTHS = 21
# Twice as many rentals in seven months; a label that moves faster has changed its meaning.
LARGEST_GROWTH = 0.1
RIDGE = 1.0
# Growth is a constant of the graph: workers on machines that round differently must come to the same one.
DECIMALS = 5
# Of Washington, D.C., where the data is from; the declination is that of the solstice.
LATITUDE, OBLIQUITY = np.radians(38.9), np.radians(23.44)
ROWS_AT_ONCE = 65_536


def sun_elevation(month: npt.NDArray[Any], hour: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the sine of the sun's elevation at half past the hour in the middle of the month, (rows,).

    The month counts from 0. sin h = sin φ sin δ + cos φ cos δ cos ω with latitude φ, declination δ (its first harmonic)
    and hour angle ω (Duffie and Beckman, Solar Engineering of Thermal Processes, 1.6).
    """
    day = (np.asarray(month, np.float64) + 0.5) * 365.25 / 12.0
    declination = -OBLIQUITY * np.cos(2.0 * np.pi * (day + 10.0) / 365.25)
    angle = np.radians(15.0) * (np.asarray(hour, np.float64) - 11.5)
    sine: npt.NDArray[np.float64] = np.sin(LATITUDE) * np.sin(declination) + np.cos(LATITUDE) * np.cos(
        declination
    ) * np.cos(angle)
    return sine


@dataclass(frozen=True)
class Trend:
    """The part of log(1 + rentals) that a model does not learn by steps.

    Attributes:
        start: its mean over the training rows, less the growth.
        growth: its rise a month up to the end of training; after it the level stands.
        repeated: whether the rows cover the year nearly twice; else month and level stay as they are, at nothing.
    """

    start: float
    growth: float = 0.0
    repeated: bool = True

    @classmethod
    def fit(cls, inputs: Mapping[str, npt.NDArray[Any]], label: npt.NDArray[Any]) -> Self:
        """Return the trend of transformed rows (see `preprocessing_fn`) and their rentals, each of shape (rows, …).

        Growth is the weight of time in a ridge regression beside hour and working day, weather and its square, the
        sun's elevation, and the month if the months are repeated; half of that weight where a year is not covered.
        """
        months = inputs[preprocessing.MONTHS_BEFORE_END]
        covered = int(months.max()) + 1
        repeated = covered >= REPEATED_MONTHS
        logarithm = np.log1p(label.astype(np.float64))
        growth = 0.0
        if covered >= FEWEST_MONTHS:
            gram, moment = np.zeros(()), np.zeros(())
            for start in range(0, len(label), ROWS_AT_ONCE):
                part = slice(start, start + ROWS_AT_ONCE)
                columns = _design({name: values[part] for name, values in inputs.items()}, repeated)
                gram, moment = gram + columns.T @ columns, moment + columns.T @ (logarithm[part] - logarithm.mean())
            penalty = np.full(len(gram), RIDGE)
            penalty[-1] = 0.0
            share = 1.0 if covered >= YEAR_MONTHS else SHARE_BELOW_A_YEAR
            weight = -share * np.linalg.solve(gram + np.diag(penalty), moment)[-1]
            growth = round(float(np.clip(weight, -LARGEST_GROWTH, LARGEST_GROWTH)), DECIMALS)
        return cls(float(np.mean(logarithm + growth * months)), growth, repeated)


def _design(inputs: Mapping[str, npt.NDArray[Any]], repeated: bool) -> npt.NDArray[np.float64]:
    hour_workingday, month = inputs["hour_workingday"], inputs["month"]
    weather = inputs[preprocessing.DENSE][:, : len(preprocessing.WEATHER)]
    sizes = preprocessing.CODES
    columns = [
        np.eye(sizes["hour_workingday"])[hour_workingday],
        np.eye(sizes["weather"])[inputs["weather"]],
        weather,
        weather**2,
        sun_elevation(month, hour_workingday % preprocessing.HOURS)[:, None],
    ]
    if repeated:
        columns.append(np.eye(sizes["month"])[month])
    return np.hstack([*columns, inputs[preprocessing.MONTHS_BEFORE_END][:, None]])
