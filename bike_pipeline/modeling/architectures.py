"""The model families. One so far: embeddings of the calendar, a dense trunk, and a slowly moving level.

The output is log(1 + rentals); the exported signatures turn it into rentals.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers, ops

from bike_pipeline.modeling import preprocessing
from bike_pipeline.modeling.trend import Trend

# One knot of the level every two months, for the two years before the end of training.
LEVEL_KNOT_MONTHS = 2.0
LEVEL_KNOTS = 13
# Chosen on the last fifth of 2011 and of 2012, each trained on what came before (1e-3 and 1e-2 do equally well).
LEVEL_L2 = 3e-3


@keras.saving.register_keras_serializable(package="bike_pipeline")
class LevelKnots(layers.Layer):
    """Weights of the level's knots: piecewise linear in the months before the end of training.

    Input: (batch,) months, not negative. Output: (batch, LEVEL_KNOTS), each row adding up to 1.
    """

    def call(self, months: keras.KerasTensor) -> keras.KerasTensor:
        """Return the hat functions' values."""
        place = ops.minimum(ops.cast(months, "float32") / LEVEL_KNOT_MONTHS, float(LEVEL_KNOTS - 1))
        knots = ops.arange(LEVEL_KNOTS, dtype="float32")
        return ops.maximum(1.0 - ops.abs(ops.expand_dims(place, 1) - knots), 0.0)


def build(hidden_units: Sequence[int], embedding_dimensions: int, dropout: float, trend: Trend) -> keras.Model:
    """Return the untrained model, from the transformed features (see `preprocessing_fn`) to log(1 + rentals), (batch,).

    The output starts from the trend of the training rows; `embedding_dimensions` is the largest width of an embedding,
    `dropout` the share of hidden units dropped in training.
    """
    inputs = {preprocessing.DENSE: keras.Input((preprocessing.DENSE_WIDTH,), name=preprocessing.DENSE)}
    parts = [inputs[preprocessing.DENSE]]
    for name, size in preprocessing.CODES.items():
        inputs[name] = keras.Input((), name=name, dtype="int64")
        if name != "month":
            parts.append(
                layers.Embedding(size, min(embedding_dimensions, size - 1), name=f"{name}_embedding")(inputs[name])
            )
    months = keras.Input((), name=preprocessing.MONTHS_BEFORE_END)
    inputs[preprocessing.MONTHS_BEFORE_END] = months
    hidden = layers.Concatenate()(parts)
    for index, units in enumerate(hidden_units):
        hidden = layers.Dense(units, activation="silu", name=f"trunk_{index}")(hidden)
        if dropout:
            hidden = layers.Dropout(dropout)(hidden)
    start = keras.initializers.Constant(trend.start)
    output = layers.Dense(1, bias_initializer=start, name="rentals")(hidden)
    # Month and level begin at zero and are held there by L2: a month or a period without rows adds nothing.
    shrink = keras.regularizers.L2(LEVEL_L2)
    month = layers.Embedding(12, 1, embeddings_initializer="zeros", embeddings_regularizer=shrink, name="month_effect")
    level = layers.Dense(1, use_bias=False, kernel_initializer="zeros", kernel_regularizer=shrink, name="level")
    # Of a single year they would learn its season, and hold its last month's level for all that follows.
    month.trainable = level.trainable = trend.repeated
    grown = layers.Rescaling(-trend.growth, name="growth")(layers.Reshape((1,))(months))
    output = layers.Add()([output, month(inputs["month"]), level(LevelKnots(name="level_knots")(months)), grown])
    return keras.Model(inputs, layers.Reshape(())(output), name="bike_demand")
