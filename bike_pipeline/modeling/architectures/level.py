"""How the level moves over the training rows: growth, and beside it, where there are rows enough, straight lines."""

from __future__ import annotations

from collections.abc import Iterable

import keras
from keras import layers, ops

from bike_pipeline.modeling import preprocessing
from bike_pipeline.modeling.trend import DAYS_A_MONTH, Trend

# On origins in time 0.03 does best; this is the strongest that is within 5 %, which nobody can tell apart there.
LEVEL_L2 = 0.3


@keras.saving.register_keras_serializable(package="bike_pipeline")
class LevelKnots(layers.Layer):
    """Weights of the level's knots: piecewise linear in the days before the end of training.

    Input: (batch,) days, not negative. Output: (batch, knots), each row adding up to 1.
    """

    def __init__(self, days: float, knots: int, **kwargs: object) -> None:
        """Have so many knots, `days` from one to the next, the first at the end of training."""
        super().__init__(**kwargs)
        self.days, self.knots = days, knots

    def get_config(self) -> dict[str, object]:
        """Return what the layer is made of."""
        return {**super().get_config(), "days": self.days, "knots": self.knots}

    def call(self, days: keras.KerasTensor) -> keras.KerasTensor:
        """Return the hat functions' values."""
        place = ops.minimum(ops.cast(days, "float32") / self.days, float(self.knots - 1))
        return ops.maximum(1.0 - ops.abs(ops.expand_dims(place, 1) - ops.arange(self.knots, dtype="float32")), 0.0)


def inputs_of(names: Iterable[str], trend: Trend) -> dict[str, keras.KerasTensor]:
    """Return the model's inputs among transformed features; the time of the year only where months are repeated."""
    widths = {
        preprocessing.DENSE: (preprocessing.DENSE_WIDTH,),
        preprocessing.TIME_OF_YEAR: (preprocessing.TIME_OF_YEAR_WIDTH,),
        preprocessing.PLAIN: (preprocessing.PLAIN_WIDTH,),
    }
    return {
        name: keras.Input(widths.get(name, ()), name=name, dtype="int64" if name in preprocessing.CODES else "float32")
        for name in names
        if trend.repeated or name != preprocessing.TIME_OF_YEAR
    }


def effect(days: keras.KerasTensor, trend: Trend, labels: slice) -> tuple[keras.KerasTensor, keras.KerasTensor | None]:
    """Return what the level adds to log(1 + rentals), (batch, labels), and what of it a trunk may see, (batch, knots).

    A trunk that sees the knots learns the season by them where no month is repeated: then there is nothing to see.

    Args:
        days: days before the end of training, (batch,).
        trend: growth and knots.
        labels: which labels of the trend are answered. They grow each by itself and leave that line together.
    """
    growths = [-growth / DAYS_A_MONTH for growth in trend.growths[labels]]
    grown = layers.Rescaling(growths, name="growth")(layers.Reshape((1,))(days))
    if not trend.knots:
        return grown, None
    knots = LevelKnots(trend.knot_days, trend.knots, name="level_knots")(days)
    # It begins at zero and is held there by L2: a period without rows adds nothing.
    shrink = keras.regularizers.L2(LEVEL_L2)
    level = layers.Dense(1, use_bias=False, kernel_initializer="zeros", kernel_regularizer=shrink, name="level")
    return layers.Add()([grown, level(knots)]), knots if trend.repeated else None
