"""`deep`: embeddings of the calendar, a dense trunk, a slowly moving level, and a head for each kind of rider.

Casual riders and members follow other hours, days and weather. Each head answers log(1 + rentals) of one of them, and
their rentals are added.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import layers, ops

from bike_pipeline import features
from bike_pipeline.modeling import objective, preprocessing
from bike_pipeline.modeling.architectures import level
from bike_pipeline.modeling.trend import Trend

# The layer that answers log(1 + rentals) of each auxiliary label, (batch, labels).
HEADS = "heads"
EMBEDDED = ("hour", "weather", "day_type", "hour_workingday", "hour_day_type")
# Of which the rows may hold one kind on one day, or never: its effect begins at the trend's, and stays there where it
# never was.
RARE = "holiday_kind"
# Which labels of the trend the heads answer.
AUXILIARY = slice(1, None)
# What of the level the trunk sees.
LEVEL_WIDTH = 8


@keras.saving.register_keras_serializable(package="bike_pipeline")
class LogOfSum(layers.Layer):
    """log(1 + Σ rentals) of heads that answer log(1 + rentals): (batch, heads) to (batch,)."""

    def __init__(self, largest: float = objective.LARGEST_LOG, **kwargs: object) -> None:
        """Have the largest logarithm of a head."""
        super().__init__(**kwargs)
        self.largest = largest

    def get_config(self) -> dict[str, object]:
        """Return what the layer is made of."""
        return {**super().get_config(), "largest": self.largest}

    def call(self, heads: keras.KerasTensor) -> keras.KerasTensor:
        """Return the logarithm; what a head answers below 0 is no rental, and above the largest it is that."""
        rentals = ops.relu(ops.exp(ops.minimum(heads, self.largest)) - 1.0)
        return ops.log(1.0 + ops.sum(rentals, axis=1))


def build(training: Mapping[str, Any], trend: Trend) -> keras.Model:
    """Return the untrained model; it starts from the trend of the training rows.

    Of the settings' section it reads `hidden_units`, `embedding_dimensions`, the largest width of an embedding, and
    `dropout`, the share of hidden units dropped in training.
    """
    names = (preprocessing.DENSE, *EMBEDDED, RARE, preprocessing.DAYS_BEFORE_END, preprocessing.TIME_OF_YEAR)
    inputs = level.inputs_of(names, trend)
    parts = [inputs[name] for name in (preprocessing.DENSE, preprocessing.TIME_OF_YEAR) if name in inputs]
    for name in EMBEDDED:
        size = preprocessing.CODES[name]
        width = min(training["embedding_dimensions"], size - 1)
        parts.append(layers.Embedding(size, width, name=f"{name}_embedding")(inputs[name]))
    size = preprocessing.CODES[RARE]
    # One less than tells all apart: leave on a weekend is little else than leave.
    rare = layers.Embedding(size, size - 2, embeddings_initializer="zeros", name=f"{RARE}_embedding")
    parts.append(rare(inputs[RARE]))
    moved, knots = level.effect(inputs[preprocessing.DAYS_BEFORE_END], trend, AUXILIARY)
    if knots is not None:
        parts.append(layers.Dense(LEVEL_WIDTH, name="level_of_trunk")(knots))
    hidden = layers.Concatenate()(parts)
    for index, units in enumerate(training["hidden_units"]):
        hidden = layers.Dense(units, activation="silu", name=f"trunk_{index}")(hidden)
        if training["dropout"]:
            hidden = layers.Dropout(training["dropout"])(hidden)
    starts = keras.initializers.Constant(list(trend.starts[AUXILIARY]))
    riders = layers.Dense(len(trend.starts[AUXILIARY]), bias_initializer=starts, name="riders")(hidden)
    # Beside the trunk, where a few rows move it at once.
    effects = keras.initializers.Constant([[effect] * len(trend.starts[AUXILIARY]) for effect in trend.holidays])
    shifted = layers.Embedding(
        size, len(trend.starts[AUXILIARY]), embeddings_initializer=effects, name=f"{RARE}_effect"
    )
    heads = layers.Add(name=HEADS)([riders, moved, shifted(inputs[RARE])])
    return keras.Model(inputs, LogOfSum(trend.largest_log, name=features.LABEL)(heads), name="bike_demand")
