"""What training minimizes, and how large its steps are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from bike_pipeline.modeling.distribution import Loss

WARM_UP_SHARE = 0.08
EMA_MOMENTUM = 0.99
# exp() of a larger logit overflows the loss in the first steps; 9 means 8,102 rentals an hour. Where twenty times the
# mean of the training rows is more than that, it is the bound.
LARGEST_LOG, LARGEST_TO_MEAN = 9.0, 20.0
# Weight of each auxiliary label in the loss.
AUXILIARY_SHARE = 0.25


def loss_of(labels: npt.NDArray[Any], of_answer: Loss | None = None) -> Loss:
    """Return half the squared log error over its variance plus half the Poisson loss over the mean label.

    The first follows RMSLE, the second MAE and RMSE; alone, each loses on the other's metrics. The Poisson term is the
    negative log-likelihood of a count with mean exp(p), up to a constant. Variance and mean are those of `labels`, the
    rentals of the training rows, (rows,). Auxiliary labels behind them, (rows, 1 + labels), add a share of each one's
    squared log error; the loss then takes targets and answers of that width. `of_answer` stands in place of the loss on
    rentals, where the model answers something else of them.
    """
    every = labels.reshape(len(labels), -1)
    return loss(np.log1p(every.astype(np.float64)).var(axis=0).tolist(), float(every[:, 0].mean()), of_answer)


def loss(variances: Sequence[float], mean: float, of_answer: Loss | None = None) -> Loss:
    """Return the loss of `loss_of` for labels whose log(1 + x) has these variances, and the first of them this mean."""
    largest = largest_log(mean)
    # A constant label has no variance; the loss must not divide by it.
    variances, mean = [max(variance, 1e-6) for variance in variances], max(mean, 1e-6)

    def squared_log_error(label: keras.KerasTensor, p: keras.KerasTensor, variance: float) -> keras.KerasTensor:
        return ops.mean(ops.square(ops.log1p(label) - p)) / variance

    def single(label: keras.KerasTensor, p: keras.KerasTensor) -> keras.KerasTensor:
        poisson = ops.mean(ops.exp(ops.minimum(p, largest)) - label * p) / mean
        return 0.5 * squared_log_error(label, p, variances[0]) + 0.5 * poisson

    def with_auxiliary(label: keras.KerasTensor, p: keras.KerasTensor) -> keras.KerasTensor:
        value = main(label[:, 0], p[:, 0])
        for place, variance in enumerate(variances[1:], 1):
            value += AUXILIARY_SHARE * squared_log_error(label[:, place], p[:, place], variance)
        return value

    main = of_answer or single
    return with_auxiliary if len(variances) > 1 else main


def largest_log(mean: float) -> float:
    """Return the largest log(1 + rentals) that is answered, for training rows with such a mean of rentals."""
    # To so few digits that machines which round differently come to the same.
    return max(LARGEST_LOG, round(math.log(LARGEST_TO_MEAN * mean + 1.0), 2))


def schedule(training: Mapping[str, Any], count: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """Return the learning rate by step: a linear warm-up, then half a cosine down to nothing."""
    steps = math.ceil(count / training["batch_size"]) * training["epochs"]
    warm_up = max(1, round(WARM_UP_SHARE * steps))
    return keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - warm_up), warmup_target=training["learning_rate"], warmup_steps=warm_up
    )
