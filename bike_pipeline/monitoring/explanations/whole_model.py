"""What moves a model as a whole: how its answers follow the hour on either kind of day, on average and row by row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bike_pipeline import features
from bike_pipeline.modeling.feedback import HOURS_A_DAY
from bike_pipeline.monitoring.columns import Columns
from bike_pipeline.monitoring.explanations.answer import Predict

# Rows whose own curves are shown beside their mean.
ICE_ROWS = 10
# The weekday that stands for a kind of day: a Wednesday, a Sunday.
_DAYS = {True: {"workingday": 1, "weekday": 3, "holiday": 0}, False: {"workingday": 0, "weekday": 0, "holiday": 0}}


@dataclass(frozen=True)
class HourCurves:
    """Answers by the hour, if all else of the rows stays (Friedman 2001, section 8.2; Goldstein et al. 2015).

    Attributes:
        workingday: whether of a working day.
        mean: partial dependence: mean answer of all rows at each hour, 24 numbers in the answer's unit.
        rows: individual conditional expectation: the same of some rows, each 24 numbers.
    """

    workingday: bool
    mean: tuple[float, ...]
    rows: tuple[tuple[float, ...], ...]


def hour_curves(predict: Predict, background: Columns) -> tuple[HourCurves, HourCurves]:
    """Return how the answers to some rows follow the hour, on a working day and on another one."""
    count = len(background["hr"])
    shown = np.unique(np.linspace(0, count - 1, min(count, ICE_ROWS)).round().astype(np.int64))
    found = []
    for workingday, day in _DAYS.items():
        asked = {
            feature.name: np.tile(np.asarray(background[feature.name]), HOURS_A_DAY)
            for feature in features.MODEL_INPUTS
        }
        asked["hr"] = np.repeat(np.arange(HOURS_A_DAY), count)
        asked |= {name: np.full(count * HOURS_A_DAY, value) for name, value in day.items()}
        answers = np.asarray(predict(asked), np.float64).reshape(HOURS_A_DAY, count)
        rows = tuple(tuple(map(float, answers[:, place])) for place in shown)
        found.append(HourCurves(workingday, tuple(map(float, answers.mean(axis=1))), rows))
    return found[0], found[1]
