"""The floor's model: the product's architecture, loss, optimizer and schedule, on arrays, through Keras's own `fit`.

Written again here, because the product's own modules import TensorFlow Transform, which a floor has no use for. A test
holds both architectures against each other.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers, ops

CODES = {"hour_workingday": 48, "hour_weekday": 168, "weather": 4, "month": 12}
DENSE_WIDTH = 13
LEVEL_KNOT_MONTHS, LEVEL_KNOTS, LEVEL_L2 = 2.0, 13, 3e-3
WARM_UP_SHARE, EMA_MOMENTUM, LARGEST_LOG = 0.08, 0.98, 9.0


class LevelKnots(layers.Layer):
    """Hat functions of the months before the end of training, one every two months."""

    def call(self, months: Any) -> Any:
        """Return their values, (batch, LEVEL_KNOTS)."""
        place = ops.minimum(ops.cast(months, "float32") / LEVEL_KNOT_MONTHS, float(LEVEL_KNOTS - 1))
        return ops.maximum(1.0 - ops.abs(ops.expand_dims(place, 1) - ops.arange(LEVEL_KNOTS, dtype="float32")), 0.0)


def build(training: dict[str, Any], mean_log_label: float) -> keras.Model:
    """Return the untrained model: transformed columns to log(1 + rentals)."""
    inputs = {"dense": keras.Input((DENSE_WIDTH,), name="dense")}
    parts = [inputs["dense"]]
    for name, size in CODES.items():
        inputs[name] = keras.Input((), name=name, dtype="int64")
        if name != "month":
            width = min(training["embedding_dimensions"], size - 1)
            parts.append(layers.Embedding(size, width, name=f"{name}_embedding")(inputs[name]))
    inputs["months_before_end"] = keras.Input((), name="months_before_end")
    hidden = layers.Concatenate()(parts)
    for index, units in enumerate(training["hidden_units"]):
        hidden = layers.Dense(units, activation="silu", name=f"trunk_{index}")(hidden)
        if training["dropout"]:
            hidden = layers.Dropout(training["dropout"])(hidden)
    start = keras.initializers.Constant(mean_log_label)
    output = layers.Dense(1, bias_initializer=start, name="rentals")(hidden)
    shrink = keras.regularizers.L2(LEVEL_L2)
    month = layers.Embedding(12, 1, embeddings_initializer="zeros", embeddings_regularizer=shrink, name="month_effect")
    level = layers.Dense(1, use_bias=False, kernel_initializer="zeros", kernel_regularizer=shrink, name="level")
    months = LevelKnots()(inputs["months_before_end"])
    # The product's growth of a year's rows, which a floor leaves out, costs the graph a multiplication.
    grown = layers.Rescaling(0.0, name="growth")(layers.Reshape((1,))(inputs["months_before_end"]))
    output = layers.Add()([output, month(inputs["month"]), level(months), grown])
    return keras.Model(inputs, layers.Reshape(())(output))


def train(
    columns: dict[str, npt.NDArray[Any]], label: npt.NDArray[Any], training: dict[str, Any], seed: int
) -> keras.Model:
    """Return the trained model.

    Args:
        columns: the transformed columns, each (rows, …).
        label: rentals, (rows,).
        training: the `training` section of the product's settings.
        seed: seeds every generator.
    """
    keras.utils.set_random_seed(seed)
    log_label = np.log1p(label)
    variance, mean = float(log_label.var()), float(label.mean())

    def loss(truth: Any, output: Any) -> Any:
        squared = ops.square(ops.log1p(truth) - output) / variance
        return 0.5 * squared + 0.5 * (ops.exp(ops.minimum(output, LARGEST_LOG)) - truth * output) / mean

    model = build(training, float(log_label.mean()))
    steps = math.ceil(len(label) / training["batch_size"]) * training["epochs"]
    warm_up = max(1, round(WARM_UP_SHARE * steps))
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, steps - warm_up, warmup_target=training["learning_rate"], warmup_steps=warm_up
    )
    optimizer = keras.optimizers.AdamW(
        schedule, weight_decay=training["weight_decay"], use_ema=True, ema_momentum=EMA_MOMENTUM
    )
    model.compile(optimizer=optimizer, loss=loss)
    model.fit(columns, label, batch_size=training["batch_size"], epochs=training["epochs"], verbose=2)
    return model
