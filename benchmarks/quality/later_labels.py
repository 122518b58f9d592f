"""What labels that come late, and the errors of earlier answers, make of the served model's answers.

Each hour is answered by labels that had arrived before its day alone; the model is not trained again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.quality.protocols import Array, Rows, Split, Table
from bike_pipeline import features
from bike_pipeline.modeling import feedback
from bike_pipeline.modeling.feedback import Labels
from bike_pipeline.settings.training import FeedbackSettings

# RMSE by protocol and days that labels are late: what must be reached, and the goal.
LIMITS = {("P1", 1): (49.0, 47.0), ("P1", 7): (52.0, 50.0), ("P1", 14): (57.0, 55.0), ("P5", 1): (46.0, 44.0)}
# Largest interval score of 90 % (Winkler 1972), and how far coverage may be from 90 %, overall and on a slice.
INTERVAL_SCORES = {"P1": 210.0, "P4": 142.0}
COVERAGE_ERROR, SLICE_COVERAGE_ERROR = 0.02, 0.03
# A slice of fewer hours tells no coverage to 0.03.
SLICE_ROWS = 200


def labels_of(table: Table, rows: Rows, answers: Sequence[float]) -> Labels:
    """Return the labels of rows of the table, and what a model answered to them."""
    columns = {name: table[name][rows] for name in (*feedback.GROUPED_BY, features.LABEL)}
    hours = (table["dteday"][rows] * feedback.HOURS_A_DAY + table["hr"][rows]).astype(np.int64)
    return Labels.of(columns, hours, np.asarray(answers))


def fed_back(
    table: Table, parts: Sequence[Split], answers: Sequence[Sequence[float]], settings: FeedbackSettings, late: int
) -> list[list[float]]:
    """Return the answers to the test rows of each split with labels that come `late` days after; each begins anew."""
    delayed = settings.model_copy(update={"label_delay_days": late})
    return [
        feedback.corrected(labels_of(table, split.test, found), delayed).tolist()
        for split, found in zip(parts, answers, strict=True)
    ]


@dataclass(frozen=True)
class Intervals:
    """How intervals of 90 % did.

    Attributes:
        coverage: share of labels inside them.
        width: mean width in rentals.
        score: mean width, and 20 for each rental beyond them.
        slices: coverage by the name of each slice of the gate that has rows enough.
    """

    coverage: float
    width: float
    score: float
    slices: dict[str, float]

    @property
    def worst(self) -> tuple[str, float]:
        """The slice whose coverage is furthest from 90 %."""
        return max(self.slices.items(), key=lambda item: abs(item[1] - 0.9))


def intervals(table: Table, rows: Rows, low: Array, high: Array) -> Intervals:
    """Return how intervals of rows did; those that are not known are left out."""
    known = np.isfinite(low)
    label, low, high = table[features.LABEL][rows][known], low[known], high[known]
    held = (low <= label) & (label <= high)
    beyond = np.maximum(low - label, 0.0) + np.maximum(label - high, 0.0)
    hour = table["hr"][rows][known]
    slicings = {name: table[name][rows][known] for name in ("workingday", "season", "weathersit")}
    slicings["hour_band"] = np.array(features.HOUR_BANDS)[np.searchsorted(features.HOUR_BANDS, hour, side="right") - 1]
    slices = {
        features.slice_name(slicing, int(value)): float(held[values == value].mean())
        for slicing, values in slicings.items()
        for value in np.unique(values)
        if (values == value).sum() >= SLICE_ROWS
    }
    return Intervals(float(held.mean()), float((high - low).mean()), float((high - low + 20.0 * beyond).mean()), slices)


def of_replay(table: Table, rows: Rows, answers: Sequence[float], settings: FeedbackSettings) -> Intervals:
    """Return the intervals of rows in the order of time, each day's of earlier ones."""
    found = feedback.replay(labels_of(table, rows, answers), settings)
    return intervals(table, rows, found.quantiles[:, 0], found.quantiles[:, -1])


def of_held_out(
    table: Table, test: Rows, answers: Array, held_out: Rows, held_out_answers: Array, settings: FeedbackSettings
) -> Intervals:
    """Return the intervals of rows in no order of time, from errors of a model that never saw the held out rows."""

    def parts(rows: Rows, found: Array) -> tuple[Any, Array]:
        return feedback.groups_of(*(table[name][rows] for name in feedback.GROUPED_BY)), feedback.unit_of(found)

    levels = np.array(list(settings.quantiles.values()))
    groups, unit = parts(held_out, held_out_answers)
    quantiles = feedback.quantiles_of((table[features.LABEL][held_out] - held_out_answers) / unit, groups, levels)
    groups, unit = parts(test, answers)
    around = np.maximum(answers[:, None] + quantiles[groups] * unit[:, None], 0.0)
    return intervals(table, test, around[:, 0], around[:, -1])
