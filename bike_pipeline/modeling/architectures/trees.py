"""`trees`: ensembles of boosted trees; of rentals two, one of the mean of the label and one of its logarithm.

They answer for the label at the level of the end of training on a day that is no holiday; growth and holidays are taken
out of it before, and added after.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

from bike_pipeline.modeling import preprocessing
from bike_pipeline.modeling.architectures import level
from bike_pipeline.modeling.targets import Target
from bike_pipeline.modeling.trees import Forest, Trees, boosted
from bike_pipeline.modeling.trend import DAYS_A_MONTH, Trend

HOLIDAY = "holiday_kind"
INPUTS = (preprocessing.PLAIN, preprocessing.DAYS_BEFORE_END, HOLIDAY)


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


def holidays_of(trend: Trend, inputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
    """Return by what factor a holiday moves the rentals of each row, (rows,)."""
    factor: npt.NDArray[np.float64] = np.exp(np.array(trend.holidays)[inputs[HOLIDAY]])
    return factor


def fit(
    training: Mapping[str, Any],
    trend: Trend,
    inputs: Mapping[str, npt.NDArray[Any]],
    label: npt.NDArray[Any],
    seed: int,
    target: Target,
) -> Forest:
    """Return the target's ensembles, fitted to transformed features and the rentals, (rows, …) and (rows,).

    Of the settings' section it reads `tree_rounds`, `tree_depth` and `tree_learning_rate`.
    """
    matrix = columns_of(trend, inputs)
    levelled = (1.0 + label) * growth_of(trend, inputs)
    if target.levelled:
        levelled /= holidays_of(trend, inputs)
    how = training["tree_rounds"], training["tree_depth"], training["tree_learning_rate"], seed
    wanted = target.tree_label(levelled)
    return Forest.of([boosted(matrix, wanted, kind, *how) for kind in target.boosted], training["tree_depth"])


def answers(forest: Forest, trend: Trend, inputs: Mapping[str, keras.KerasTensor], target: Target) -> keras.KerasTensor:
    """Return what each ensemble answers, (batch, ensembles): log(1 + rentals), or log odds at the level of the end."""
    summed = Trees.of(forest, name="trees")(inputs[preprocessing.PLAIN])
    if not target.levelled:
        return summed
    grown = layers.Rescaling(-trend.growths[0] / DAYS_A_MONTH, name="growth_of_trees")
    days = layers.Reshape((1,))(inputs[preprocessing.DAYS_BEFORE_END])
    effects = keras.initializers.Constant([[effect] for effect in trend.holidays])
    shifted = layers.Embedding(len(trend.holidays), 1, embeddings_initializer=effects, name="holidays_of_trees")
    return layers.Add()([summed, grown(days), shifted(inputs[HOLIDAY])])


def build(forest: Forest, trend: Trend, target: Target) -> keras.Model:
    """Return the model of fitted trees: the mean of all ensembles."""
    inputs = level.inputs_of(INPUTS, trend)
    shares = (1.0 / len(target.boosted),) * len(target.boosted)
    answer = target.mixed(shares, trend.largest_log, "mean_of_trees")(answers(forest, trend, inputs, target))
    return keras.Model(inputs, answer, name="bike_demand")
