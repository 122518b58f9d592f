"""`trees`: two ensembles of boosted trees, one of the mean of the label and one of its logarithm.

They answer for the label at the level of the end of training; growth is taken out of it before, and added after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers, ops

from bike_pipeline.modeling import objective, preprocessing
from bike_pipeline.modeling.architectures import level
from bike_pipeline.modeling.trees import LOG, POISSON, Forest, Trees, boosted
from bike_pipeline.modeling.trend import DAYS_A_MONTH, Trend

SHARES = (0.5, 0.5)


@keras.saving.register_keras_serializable(package="bike_pipeline")
class LogOfMean(layers.Layer):
    """log(1 + rentals) of a weighted mean of rentals: (batch, models) of log(1 + rentals) to (batch,)."""

    def __init__(self, shares: Sequence[float], **kwargs: object) -> None:
        """Have a weight for each model; they add up to 1."""
        super().__init__(**kwargs)
        self.shares = tuple(shares)

    def get_config(self) -> dict[str, object]:
        """Return what the layer is made of."""
        return {**super().get_config(), "shares": self.shares}

    def call(self, logarithms: keras.KerasTensor) -> keras.KerasTensor:
        """Return the logarithm; what a model answers above the largest is that."""
        shares = ops.convert_to_tensor(self.shares, "float32")
        return ops.log(ops.sum(ops.exp(ops.minimum(logarithms, objective.LARGEST_LOG)) * shares, axis=1))


def columns_of(trend: Trend, inputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
    """Return the columns that the trees see of transformed features, (rows, columns)."""
    matrix = inputs[preprocessing.PLAIN]
    # Of rows that cover little more than a year, time tells no more than the season.
    return matrix if trend.knots else matrix[:, :-1]


def growth_of(trend: Trend, inputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
    """Return by what factor rentals grow from each row to the end of training, (rows,)."""
    days = inputs[preprocessing.DAYS_BEFORE_END].astype(np.float64)
    factor: npt.NDArray[np.float64] = np.exp(trend.growths[0] / DAYS_A_MONTH * days)
    return factor


def fit(
    training: Mapping[str, Any],
    trend: Trend,
    inputs: Mapping[str, npt.NDArray[Any]],
    label: npt.NDArray[Any],
    seed: int,
) -> Forest:
    """Return both ensembles, fitted to transformed features and the rentals, (rows, …) and (rows,).

    Of the settings' section it reads `tree_rounds`, `tree_depth` and `tree_learning_rate`.
    """
    matrix, target = columns_of(trend, inputs), (1.0 + label) * growth_of(trend, inputs)
    how = training["tree_rounds"], training["tree_depth"], training["tree_learning_rate"], seed
    return Forest.of([boosted(matrix, target, kind, *how) for kind in (POISSON, LOG)], training["tree_depth"])


def answers(forest: Forest, trend: Trend, inputs: Mapping[str, keras.KerasTensor]) -> keras.KerasTensor:
    """Return log(1 + rentals) of each ensemble, (batch, 2)."""
    summed = Trees.of(forest, name="trees")(inputs[preprocessing.PLAIN])
    grown = layers.Rescaling(-trend.growths[0] / DAYS_A_MONTH, name="growth_of_trees")
    return layers.Add()([summed, grown(layers.Reshape((1,))(inputs[preprocessing.DAYS_BEFORE_END]))])


def build(forest: Forest, trend: Trend) -> keras.Model:
    """Return the model of fitted trees: the mean of both ensembles."""
    inputs = level.inputs_of((preprocessing.PLAIN, preprocessing.DAYS_BEFORE_END), trend)
    answer = LogOfMean(SHARES, name="mean_of_trees")(answers(forest, trend, inputs))
    return keras.Model(inputs, answer, name="bike_demand")
