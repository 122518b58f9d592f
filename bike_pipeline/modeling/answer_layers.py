"""The last layers of a model: what makes one answer of several, and what makes a classifier of what answers a count.

A network that answers log(1 + rentals) is read as the middle of what may come, spread by a logistic distribution: then
its distance to log(1 + threshold), in units of that spread, is the log odds (McCullagh 1980, "Regression Models for
Ordinal Data", section 1). So growth, level and heads mean what they mean for rentals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
from keras import layers, ops

from bike_pipeline.modeling import objective

# An untrained network is off by a factor of two or so, and must not be sure: log(2.5) · √3 / π, and one over that.
INITIAL_SLOPE = 2.0


class _WeightedMean(layers.Layer):
    """What makes one answer of those of several models: (batch, models) to (batch,)."""

    def __init__(self, shares: Sequence[float], **kwargs: object) -> None:
        """Have a weight for each model; they add up to 1."""
        super().__init__(**kwargs)
        self.shares = tuple(shares)

    def get_config(self) -> dict[str, object]:
        """Return what the layer is made of."""
        return {**super().get_config(), "shares": self.shares}


@keras.saving.register_keras_serializable(package="bike_pipeline")
class LogOfMean(_WeightedMean):
    """log(1 + rentals) of a weighted mean of rentals: (batch, models) of log(1 + rentals) to (batch,)."""

    def __init__(self, shares: Sequence[float], largest: float = objective.LARGEST_LOG, **kwargs: object) -> None:
        """Have a weight for each model, and the largest logarithm of any."""
        super().__init__(shares, **kwargs)
        self.largest = largest

    def get_config(self) -> dict[str, object]:
        """Return what the layer is made of."""
        return {**super().get_config(), "largest": self.largest}

    def call(self, logarithms: keras.KerasTensor) -> keras.KerasTensor:
        """Return the logarithm; what a model answers above the largest is that."""
        shares = ops.convert_to_tensor(self.shares, "float32")
        return ops.log(ops.sum(ops.exp(ops.minimum(logarithms, self.largest)) * shares, axis=1))


@keras.saving.register_keras_serializable(package="bike_pipeline")
class LogOdds(layers.Layer):
    """Log odds that an hour is above a threshold: (batch,) of log(1 + rentals) to (batch,)."""

    def __init__(self, above: float, **kwargs: object) -> None:
        """Have a threshold, in rentals; the spread is learnt."""
        super().__init__(**kwargs)
        self.above = above

    def get_config(self) -> dict[str, object]:
        """Return what the layer is made of."""
        return {**super().get_config(), "above": self.above}

    def build(self, _: object = None) -> None:
        """Make the logarithm of the slope, so that it stays positive."""
        start = keras.initializers.Constant(math.log(INITIAL_SLOPE))
        self.log_slope = self.add_weight((), initializer=start, name="log_slope")
        self.built = True

    def call(self, logarithm: keras.KerasTensor) -> keras.KerasTensor:
        """Return the log odds."""
        return (logarithm - math.log1p(self.above)) * ops.exp(self.log_slope)


@keras.saving.register_keras_serializable(package="bike_pipeline")
class MeanOfLogOdds(_WeightedMean):
    """A weighted mean: (batch, models) of log odds to (batch,)."""

    def call(self, odds: keras.KerasTensor) -> keras.KerasTensor:
        """Return the mean."""
        return ops.sum(odds * ops.convert_to_tensor(self.shares, "float32"), axis=1)
