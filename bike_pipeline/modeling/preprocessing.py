"""`preprocessing_fn`: from the raw columns of one hour to the numbers the model reads.

The same graph trains and serves. It takes numbers only and uses TensorFlow's plain arithmetic, so that it converts to
every export format. Codes outside their range are clipped into it: an edge device must not fail where a server answers.
"""

from __future__ import annotations

import math

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


def _z_scores(columns: tf.Tensor) -> tf.Tensor:
    """Return (x − mean) / √variance of each column; of a constant column x − mean.

    Beam cuts batches by its own clock, and TFT's scale_to_z_score sums each batch in the column's own type: in float32
    every run got another mean. Sums in float64 differ far below what float32 can tell, so a run can be repeated. The
    variance, E[x²] − E[x]², loses nothing that matters there, since the weather lies between 0 and 1. What touches rows
    stays float32; the rest are constants of the graph.
    """
    precise = tf.cast(columns, tf.float64)
    moments = tft.mean(tf.concat([precise, precise * precise], axis=1), reduce_instance_dims=False, name="weather")
    mean, mean_of_squares = tf.split(moments, 2)
    variance = tf.cast(tf.maximum(mean_of_squares - mean * mean, 0.0), tf.float32)
    return (columns - tf.cast(mean, tf.float32)) / tf.where(variance > 0.0, tf.sqrt(variance), 1.0)


def preprocessing_fn(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Return the transformed features and the label.

    Args:
        inputs: raw columns by name, each of shape (batch,); int64 or float32.

    Returns:
        `dense` (batch, 13) float32: z-scores of the weather clipped at ±4, two flags, sine and cosine of the hour,
        whole years before the year in which the training rows end, at most 4;
        one int64 code of shape (batch,) for each name in `CODES`, from 0;
        `months_before_end` (batch,) float32: whole months from the row to the end of the training rows, never negative,
        so that hours after the training period stand at its end and no trend is extrapolated;
        the label `cnt` (batch,) float32, in rentals.
    """
    hour = _code(inputs["hr"], "hr")
    outputs: dict[str, tf.Tensor] = {
        "hour_workingday": hour + HOURS * _code(inputs["workingday"], "workingday"),
        "hour_weekday": hour + HOURS * _code(inputs["weekday"], "weekday"),
        "weather": _code(inputs["weathersit"], "weathersit"),
        "month": _code(inputs["mnth"], "mnth"),
    }
    # Two analyzers in all: each costs a Beam stage of its own.
    weather = tf.stack([tf.cast(inputs[name], tf.float32) for name in WEATHER], axis=1)
    columns = tf.unstack(tf.clip_by_value(_z_scores(weather), -Z_LIMIT, Z_LIMIT), num=len(WEATHER), axis=1)
    columns += [tf.cast(_code(inputs[name], name), tf.float32) for name in ("holiday", "workingday")]
    angle = tf.cast(hour, tf.float32) * (2.0 * math.pi / HOURS)
    for k in HARMONICS:
        columns += [tf.sin(k * angle), tf.cos(k * angle)]
    year = tf.cast(inputs["yr"], tf.float32)
    months = year * 12.0 + tf.cast(outputs["month"], tf.float32)
    last_month = tft.max(months, name="last_month")
    outputs[MONTHS_BEFORE_END] = tf.maximum(last_month - months, 0.0)
    columns.append(tf.clip_by_value(tf.floor(last_month / 12.0) - year, 0.0, YEARS_LIMIT))
    outputs[DENSE] = tf.stack(columns, axis=1)
    outputs[features.LABEL] = tf.cast(inputs[features.LABEL], tf.float32)
    return outputs
