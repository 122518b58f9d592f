"""What one model of a week would have cost in every later week: trained once, then shared by all policies."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bike_pipeline.modeling import feedback
from bike_pipeline.modeling.feedback import HOURS_A_DAY, Labels
from bike_pipeline.retraining.simulation.plan import WEEK_DAYS
from bike_pipeline.settings.monitoring import MonitoringSettings
from bike_pipeline.settings.training import FeedbackSettings

WEEK_HOURS = WEEK_DAYS * HOURS_A_DAY


@dataclass(frozen=True)
class World:
    """What is asked, and when its labels are there.

    Attributes:
        columns: raw columns as the transforms take them, with the labels, (rows,) each, in order of time.
        hours: since 1 January of `features.FIRST_YEAR`, (rows,), rising.
        arrived: the week at whose beginning the label of a row is there, (rows,).
    """

    columns: Mapping[str, npt.NDArray[Any]]
    hours: npt.NDArray[np.int64]
    arrived: npt.NDArray[np.int64]

    @property
    def weeks(self) -> npt.NDArray[np.int64]:
        """The week of each row, (rows,)."""
        found: npt.NDArray[np.int64] = self.hours // WEEK_HOURS
        return found


class Scores(NamedTuple):
    """A model that was trained at the beginning of a week, with the level feedback of each later one.

    Attributes:
        absolute: sum of absolute errors in rentals by week, (weeks,); 0 before it was trained.
        squared: sum of squared errors.
        drift: whether the detector of the level says at the beginning of a week that it has changed, (weeks,).
        cpu_seconds: of its training.
    """

    absolute: npt.NDArray[np.float64]
    squared: npt.NDArray[np.float64]
    drift: npt.NDArray[np.bool_]
    cpu_seconds: float


def of_model(world: World, week: int, training: dict[str, Any], monitoring: MonitoringSettings, seed: int) -> Scores:
    """Train on all that is there at the beginning of a week, and ask the model about every hour from then on."""
    began = time.process_time()
    expected = _expected(world, week, training, seed)
    seconds = time.process_time() - began
    settings = FeedbackSettings.model_validate(training["feedback"])
    rows = Labels(
        world.hours,
        feedback.groups_of(*(world.columns[n] for n in feedback.GROUPED_BY)),
        world.columns["cnt"].astype(np.float64),
        expected,
    )
    weeks = world.weeks
    count = int(weeks[-1]) + 1
    absolute, squared, drift = np.zeros(count), np.zeros(count), np.zeros(count, bool)
    answers = expected.copy()
    for now in range(week, count):
        asked = weeks == now
        known = (world.arrived > week) & (world.arrived <= now)
        if known.any():
            levels = feedback.levels_of(rows[known], settings)[rows.groups[asked]]
            weight = feedback.weight_of(rows.hours[asked], int(rows.hours[known][-1]))
            answers[asked] = rows.expected[asked] * np.exp(levels * weight)
        errors = rows.rentals[asked] - answers[asked]
        absolute[now], squared[now] = np.abs(errors).sum(), (errors**2).sum()
        answered = known & (weeks >= week)
        drift[now] = answered.any() and _drifts(rows[answered], answers[answered], monitoring)
    return Scores(absolute, squared, drift, seconds)


def _expected(world: World, week: int, training: dict[str, Any], seed: int) -> npt.NDArray[np.float64]:
    from bike_pipeline.modeling import preprocessing
    from bike_pipeline.modeling import training as trainer

    train = {name: values[world.arrived <= week] for name, values in world.columns.items()}
    learnt = preprocessing.LearntSums.of(train).learnt()
    model, _ = trainer.train_transformed(preprocessing.transformed_columns(train, learnt), training, seed)
    columns = preprocessing.transformed_columns(world.columns, learnt)
    logarithm = model({tensor.name: columns[tensor.name] for tensor in model.inputs}, training=False)
    found: npt.NDArray[np.float64] = np.maximum(np.expm1(np.asarray(logarithm, np.float64)), 0.0)
    return found


def _drifts(rows: Labels, answers: npt.NDArray[np.float64], monitoring: MonitoringSettings) -> bool:
    from datetime import datetime

    from bike_pipeline.modeling.label_update import moment
    from bike_pipeline.monitoring import verdicts
    from bike_pipeline.monitoring.detectors import level
    from bike_pipeline.monitoring.reference import Reference

    observed = {"hour": rows.hours, "label": rows.rentals, "answer": answers}
    first, last = (datetime.fromisoformat(moment(int(rows.hours[place]))) for place in (0, -1))
    # Without a backtest the detector takes the usual scale of days.
    measured = level.measure(observed, Reference({}), [(first, last)], monitoring.detectors)
    return verdicts.decide(measured, monitoring.decision)[0].status == "changed"
