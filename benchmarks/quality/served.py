"""The served model, trained on the rows of any split: the project's own transforms, architecture and training."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks.quality.protocols import Array, Rows, Split, Table
from bike_pipeline import features

_KINDS = {"int": np.int64, "float": np.float32}


def raw(table: Table, rows: Rows) -> dict[str, Any]:
    """Return the raw columns of rows as the transforms take them: int64 or float32, (rows,)."""
    wanted = (*features.INPUTS, features.BY_NAME[features.LABEL])
    return {feature.name: table[feature.name][rows].astype(_KINDS[feature.kind]) for feature in wanted}


def answers(table: Table, split: Split, training: dict[str, Any], seed: int) -> tuple[Array, float]:
    """Return the rentals that the served model expects in the test rows, and the seconds of processor of its training.

    `training` is the settings' section of that name; the model is trained on the split's training rows.
    """
    import tensorflow as tf

    from bike_pipeline.modeling import architectures, preprocessing
    from bike_pipeline.modeling import training as trainer
    from bike_pipeline.modeling.trend import Trend

    began = time.process_time()
    rows = {name: tf.constant(values) for name, values in raw(table, split.train).items()}
    numbers, months = preprocessing.to_learn_from(rows)
    learnt = preprocessing.Learnt(tf.reduce_mean(numbers, axis=0), tf.reduce_max(months))
    inputs = {name: tensor.numpy() for name, tensor in preprocessing.transformed(rows, learnt).items()}
    label = inputs.pop(features.LABEL)
    trainer.repeatable(seed)
    model = architectures.build(
        training["hidden_units"], training["embedding_dimensions"], training["dropout"], Trend.fit(inputs, label)
    )
    trainer.fit(model, inputs, label, training, seed, trainer.loss_of(label))
    seconds = time.process_time() - began
    tested = {name: tf.constant(values) for name, values in raw(table, split.test).items()}
    transformed = preprocessing.transformed(tested, learnt)
    logarithm = model({name: transformed[name] for name in inputs}, training=False)
    rentals: Array = np.maximum(np.expm1(np.asarray(logarithm, np.float64)), 0.0)
    return rentals, seconds
