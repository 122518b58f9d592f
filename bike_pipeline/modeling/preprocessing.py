"""`preprocessing_fn`: from the raw columns of one hour to the numbers the model reads.

The same graph trains and serves. It takes numbers only and uses TensorFlow's plain arithmetic, so that it converts to
every export format. What is learnt from the training rows comes from TFT's analyzers on Beam, or as numbers from
whoever has the rows at hand (see `components.transform`). Codes outside their range are clipped into it: an edge device
must not fail if a server answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import tensorflow as tf
import tensorflow_transform as tft

from bike_pipeline import features

HOURS = 24
HARMONICS = (1, 2, 3)
WEATHER = ("temp", "atemp", "hum", "windspeed")
# A z-score beyond 4 is a sensor fault or weather never seen; the model must not extrapolate along it.
Z_LIMIT = 4.0
YEARS_LIMIT = 4.0
# Names of the transformed features.
DENSE = "dense"
DENSE_WIDTH = len(WEATHER) + 1 + 2 + 2 * len(HARMONICS)
CODES = {"hour_workingday": 2 * HOURS, "hour_weekday": 7 * HOURS, "weather": 4, "month": 12}
MONTHS_BEFORE_END = "months_before_end"


def _code(tensor: tf.Tensor, name: str) -> tf.Tensor:
    feature = features.BY_NAME[name]
    assert feature.minimum is not None
    assert feature.maximum is not None
    low = int(feature.minimum)
    # Clipped as float32, which holds every code exactly: TFLite's converter makes a RELU6 of whole numbers clipped
    # to [0, 6], and has none for them.
    return tf.cast(tf.clip_by_value(tf.cast(tensor, tf.float32), feature.minimum, feature.maximum), tf.int64) - low


class Learnt(NamedTuple):
    """What the transforms learn from the training rows.

    Attributes:
        moments: (2 · number of `WEATHER`,) float64: the mean of each weather column, then the mean of its square.
        last_month: () float32: the last month of the rows, counted from January of the first year.
    """

    moments: tf.Tensor
    last_month: tf.Tensor


def to_learn_from(inputs: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """Return of each row what `Learnt` is made of: the mean of the first over all rows, the maximum of the second.

    Weather and its squares, (batch, 2 · number of `WEATHER`) float64, and the month, (batch,) float32. Beam cuts
    batches by its own clock, and sums in a column's own type, float32, differed with every run. Sums in float64 differ
    far below what float32 can tell, so a run can be repeated.
    """
    weather = tf.cast(_weather(inputs), tf.float64)
    return tf.concat([weather, weather * weather], axis=1), _months(inputs)


def _weather(inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
    return tf.stack([tf.cast(inputs[name], tf.float32) for name in WEATHER], axis=1)


def _months(inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
    year, month = tf.cast(inputs["yr"], tf.float32), tf.cast(_code(inputs["mnth"], "mnth"), tf.float32)
    return year * 12.0 + month


def _z_scores(columns: tf.Tensor, moments: tf.Tensor) -> tf.Tensor:
    """Return (x − mean) / √variance of each column; of a constant column x − mean.

    The variance, E[x²] − E[x]², loses nothing that matters in float64, since the weather lies between 0 and 1. What
    touches rows stays float32; the rest are constants of the graph.
    """
    mean, mean_of_squares = tf.split(moments, 2)
    variance = tf.cast(tf.maximum(mean_of_squares - mean * mean, 0.0), tf.float32)
    return (columns - tf.cast(mean, tf.float32)) / tf.where(variance > 0.0, tf.sqrt(variance), 1.0)


def transformed(inputs: Mapping[str, tf.Tensor], learnt: Learnt) -> dict[str, tf.Tensor]:
    """Return the transformed features and the label of raw columns, as `preprocessing_fn` describes them."""
    hour = _code(inputs["hr"], "hr")
    outputs: dict[str, tf.Tensor] = {
        "hour_workingday": hour + HOURS * _code(inputs["workingday"], "workingday"),
        "hour_weekday": hour + HOURS * _code(inputs["weekday"], "weekday"),
        "weather": _code(inputs["weathersit"], "weathersit"),
        "month": _code(inputs["mnth"], "mnth"),
    }
    z_scores = tf.clip_by_value(_z_scores(_weather(inputs), learnt.moments), -Z_LIMIT, Z_LIMIT)
    columns = tf.unstack(z_scores, num=len(WEATHER), axis=1)
    columns += [tf.cast(_code(inputs[name], name), tf.float32) for name in ("holiday", "workingday")]
    angle = tf.cast(hour, tf.float32) * (2.0 * math.pi / HOURS)
    for k in HARMONICS:
        columns += [tf.sin(k * angle), tf.cos(k * angle)]
    outputs[MONTHS_BEFORE_END] = tf.maximum(learnt.last_month - _months(inputs), 0.0)
    years = tf.floor(learnt.last_month / 12.0) - tf.cast(inputs["yr"], tf.float32)
    columns.append(tf.clip_by_value(years, 0.0, YEARS_LIMIT))
    outputs[DENSE] = tf.stack(columns, axis=1)
    outputs[features.LABEL] = tf.cast(inputs[features.LABEL], tf.float32)
    return outputs


def preprocessing_fn(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Return the transformed features and the label of raw columns, each of shape (batch,), int64 or float32.

    Returns:
        `dense` (batch, 13) float32: z-scores of the weather clipped at ±4, two flags, sine and cosine of the hour,
        whole years before the year in which the training rows end, at most 4;
        one int64 code of shape (batch,) for each name in `CODES`, from 0;
        `months_before_end` (batch,) float32: whole months from the row to the end of the training rows, never negative,
        so that hours after the training period stand at its end and no trend is extrapolated;
        the label `cnt` (batch,) float32, in rentals.
    """
    # Two analyzers in all: each costs a Beam stage of its own.
    numbers, months = to_learn_from(inputs)
    moments = tft.mean(numbers, reduce_instance_dims=False, name="weather")
    return transformed(inputs, Learnt(moments, tft.max(months, name="last_month")))
