"""The floor's training: the product's columns, architecture, loss and schedule, through Keras's own `fit`."""

from __future__ import annotations

from typing import Any

import keras
import numpy.typing as npt

from bike_pipeline.modeling import architectures, objective
from bike_pipeline.modeling.trend import Trend


def train(
    columns: dict[str, npt.NDArray[Any]], labels: npt.NDArray[Any], training: dict[str, Any], seed: int
) -> keras.Model:
    """Return the trained model.

    Args:
        columns: the transformed columns, each (rows, …).
        labels: rentals, then the auxiliary labels, (rows, labels).
        training: the `training` section of the product's settings.
        seed: seeds every generator.
    """
    keras.utils.set_random_seed(seed)
    trend = Trend.fit(columns, labels)
    model = architectures.build(training, trend)
    to_train = architectures.with_heads(model)
    schedule = objective.schedule(training, len(labels))
    optimizer = keras.optimizers.AdamW(
        schedule, weight_decay=training["weight_decay"], use_ema=True, ema_momentum=objective.EMA_MOMENTUM
    )
    to_train.compile(optimizer=optimizer, loss=objective.loss_of(labels))
    inputs = {tensor.name: columns[tensor.name] for tensor in model.inputs}
    to_train.fit(inputs, labels, batch_size=training["batch_size"], epochs=training["epochs"], verbose=2)
    return architectures.with_trees(model, training, trend, columns, labels[:, 0], seed)
