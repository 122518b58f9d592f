"""What clients and server tell each other: sums of rows, then one task for all. No row leaves its client.

The transforms' moments, the trend and the loss's constants are made of sums, and so the same as if all rows lay in one
place. Only the level's knots, which follow gaps between rows, keep their usual distance.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from bike_pipeline import features
from bike_pipeline.modeling import architectures, holidays, objective, preprocessing, training
from bike_pipeline.modeling.preprocessing import LearntSums
from bike_pipeline.modeling.rows import Columns
from bike_pipeline.modeling.trend import Trend, TrendSums

if TYPE_CHECKING:
    import keras

    from bike_pipeline.modeling.distribution import Loss


class LabelSums(NamedTuple):
    """Of rows whose transforms are known, what trend and loss are made of.

    Attributes:
        trend: see `TrendSums`.
        squares: the sum of the squared log(1 + x) of each label, (labels,).
        rentals: the sum of the rentals.
    """

    trend: TrendSums
    squares: npt.NDArray[np.float64]
    rentals: float

    @classmethod
    def of(cls, columns: Mapping[str, npt.NDArray[Any]], learnt: LearntSums) -> Self:
        """Return the sums of raw columns; `learnt` are the sums of everybody's rows."""
        inputs, labels = training.split_labels(preprocessing.transformed_columns(columns, learnt.learnt()))
        trend = TrendSums.of(inputs, labels, learnt.last_day - learnt.first_day)
        squares = (np.log1p(labels.astype(np.float64)) ** 2).sum(axis=0)
        return cls(trend, squares, float(labels[:, 0].astype(np.float64).sum()))

    def plus(self, other: LabelSums) -> LabelSums:
        """Return the sums of these rows and others."""
        return LabelSums(self.trend.plus(other.trend), self.squares + other.squares, self.rentals + other.rentals)


@dataclass(frozen=True)
class Task:
    """What all clients train alike.

    Attributes:
        learnt: the sums that the transforms are made of.
        trend: that of everybody's rows.
        variances: of log(1 + x) of each label.
        mean: of the rentals.
        settings: the settings' section `training`; its epochs are those of a round.
        seed: of the first weights and of the order of rows.
    """

    learnt: LearntSums
    trend: Trend
    variances: tuple[float, ...]
    mean: float
    settings: dict[str, Any]
    seed: int

    @classmethod
    def of(cls, learnt: LearntSums, labels: LabelSums, settings: dict[str, Any], seed: int) -> Self:
        """Return the task of rows with such sums."""
        rows = labels.trend.rows
        variances = labels.squares / rows - (labels.trend.logarithms / rows) ** 2
        trend = Trend.of(labels.trend, learnt.last_day - learnt.first_day, priors=holidays.priors(settings))
        mean = labels.rentals / rows
        trend = replace(trend, largest_log=objective.largest_log(mean))
        return cls(learnt, trend, tuple(variances.tolist()), mean, settings, seed)

    def model(self) -> keras.Model:
        """Return the untrained network, the same for everybody."""
        training.repeatable(self.seed)
        return architectures.build(self.settings, self.trend)

    def loss(self) -> Loss:
        """Return what every client minimizes."""
        return objective.loss(self.variances, self.mean)

    def rows(self, columns: Mapping[str, npt.NDArray[Any]]) -> tuple[Columns, npt.NDArray[np.float32]]:
        """Return transformed features and labels of raw columns."""
        return training.split_labels(preprocessing.transformed_columns(columns, self.learnt.learnt()))

    def answers(self, model: keras.Model, columns: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
        """Return the rentals an hour that a trained network expects for raw columns with the labels, (rows,)."""
        inputs, _ = self.rows(columns)
        logarithm = model({tensor.name: inputs[tensor.name] for tensor in model.inputs}, training=False)
        rentals: npt.NDArray[np.float64] = np.maximum(np.expm1(np.asarray(logarithm, np.float64)), 0.0)
        return rentals

    def text(self) -> str:
        """Return it as JSON, in which every number is the same."""
        return json.dumps({**asdict(self), "learnt": text_of(self.learnt)})

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return what `text` was made of."""
        told = json.loads(text)
        trend: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in told["trend"].items()
        }
        settings, variances = told["settings"], tuple(told["variances"])
        return cls(learnt_of(told["learnt"]), Trend(**trend), variances, told["mean"], settings, told["seed"])


def text_of(sums: LearntSums | LabelSums) -> str:
    """Return sums as JSON, in which every number is the same."""
    plain = {**sums._asdict(), **({"trend": sums.trend._asdict()} if isinstance(sums, LabelSums) else {})}
    return json.dumps(plain, default=lambda array: array.tolist())


def learnt_of(text: str) -> LearntSums:
    """Return the sums for the transforms that `text_of` wrote."""
    told = json.loads(text)
    return LearntSums(**{**told, "numbers": np.array(told["numbers"])})


def labels_of(text: str) -> LabelSums:
    """Return the sums for trend and loss that `text_of` wrote."""
    told = json.loads(text)
    trend: dict[str, Any] = {
        name: np.array(value) if isinstance(value, list) else value for name, value in told["trend"].items()
    }
    return LabelSums(TrendSums(**trend), np.array(told["squares"]), told["rentals"])


def columns_of(source: str) -> Columns:
    """Return the raw columns of a source of rows with labels (see `data.ingest`).

    Raises:
        DataError: it cannot be read, or a row of it breaks the contract.
    """
    from bike_pipeline.data import past_weather
    from bike_pipeline.data.contract import check_rows
    from bike_pipeline.data.sources.registry import read_source
    from bike_pipeline.modeling import rows

    found, origin = read_source(source)
    accepted = check_rows(found).require_all(origin.location, "correct them, or leave them out")
    return rows.of_table(
        past_weather.with_optional_inputs(accepted),
        (*features.INPUT_NAMES, *features.OPTIONAL_NAMES, *features.LABELS),
    )
