"""`linear`: log(1 + rentals) as a sum of what each column adds by itself; small, and each weight tells its meaning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import layers

from bike_pipeline import features
from bike_pipeline.modeling import preprocessing
from bike_pipeline.modeling.architectures import level
from bike_pipeline.modeling.trend import Trend

SUMMED = ("hour_day_type", "hour_workingday", "holiday_kind", "weather")


def build(_: Mapping[str, Any], trend: Trend) -> keras.Model:
    """Return the untrained model; it starts from the trend of the training rows and reads none of the settings."""
    names = (preprocessing.DENSE, *SUMMED, preprocessing.DAYS_BEFORE_END, preprocessing.TIME_OF_YEAR)
    inputs = level.inputs_of(names, trend)
    start = keras.initializers.Constant(trend.starts[0])
    parts = [layers.Dense(1, bias_initializer=start, name="weights")(inputs[preprocessing.DENSE])]
    holidays = keras.initializers.Constant([[effect] for effect in trend.holidays])
    for name in SUMMED:
        begins = holidays if name == "holiday_kind" else "zeros"
        effect = layers.Embedding(preprocessing.CODES[name], 1, embeddings_initializer=begins, name=f"{name}_effect")
        parts.append(effect(inputs[name]))
    if trend.repeated:
        season = layers.Dense(1, use_bias=False, name="time_of_year_weights")
        parts.append(season(inputs[preprocessing.TIME_OF_YEAR]))
    parts.append(level.effect(inputs[preprocessing.DAYS_BEFORE_END], trend, slice(1))[0])
    answer = layers.Reshape((), name=features.LABEL)(layers.Add()(parts))
    return keras.Model(inputs, answer, name="bike_demand")
