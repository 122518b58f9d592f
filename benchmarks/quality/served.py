"""The served model, trained on the rows of any split: the project's own transforms, architecture and training."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np

from benchmarks import model_columns
from benchmarks.quality.protocols import Array, Split, Table
from bike_pipeline import features

_FIRST_DAY = int(np.datetime64(f"{features.FIRST_YEAR}-01-01").astype(np.int64))


def raw(table: Table) -> dict[str, Any]:
    """Return the raw columns of all rows as the transforms take them: int64 or float32, (rows,).

    The weather of past hours is there in training and test alike, as whoever asks a model has it.
    """
    return model_columns.raw(table, ((_FIRST_DAY + table["dteday"]) * 24 + table["hr"]).astype(np.int64))


class Answers(NamedTuple):
    """What one trained model expects in the test rows of a split.

    Attributes:
        rentals: asked with all inputs, (rows,), in rentals an hour.
        without_optional: asked without the optional inputs, which the model was trained on, (rows,).
        seconds: of processor, for its training.
    """

    rentals: Array
    without_optional: Array
    seconds: float


def answers(table: Table, split: Split, training: dict[str, Any], seed: int) -> Answers:
    """Return what the served model answers: one training, asked with the optional inputs and without them.

    Args:
        table: the data set.
        split: the model is trained on the training rows of it.
        training: the settings' section of that name.
        seed: seeds the training.
    """
    from bike_pipeline.modeling import preprocessing
    from bike_pipeline.modeling import training as trainer

    began = time.process_time()
    rows = raw(table)
    train = {name: values[split.train] for name, values in rows.items()}
    learnt = preprocessing.LearntSums.of(train).learnt()
    model, _ = trainer.train_transformed(preprocessing.transformed_columns(train, learnt), training, seed)
    seconds = time.process_time() - began

    def ask(asked: dict[str, Any]) -> Array:
        columns = preprocessing.transformed_columns(asked, learnt)
        logarithm = model({tensor.name: columns[tensor.name] for tensor in model.inputs}, training=False)
        rentals: Array = np.maximum(np.expm1(np.asarray(logarithm, np.float64)), 0.0)
        return rentals

    test = {name: values[split.test] for name, values in rows.items()}
    defaults = {f.name: np.full_like(test[f.name], f.default) for f in features.OPTIONAL_INPUTS}
    return Answers(ask(test), ask(test | defaults), seconds)
