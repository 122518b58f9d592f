"""`preprocessing_fn`: from the raw columns of one hour to the numbers the model reads.

The same graph trains and serves. It takes numbers only and uses TensorFlow's plain arithmetic, so that it converts to
every export format. What is learnt from the training rows comes from TFT's analyzers on Beam, or as numbers from
whoever has the rows at hand (see `components.transform`). Codes outside their range are clipped into it: an edge device
must not fail if a server answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from bike_pipeline import features
from bike_pipeline.modeling.holidays import DATES, GREAT, KINDS, LEAVE, LEAVE_WEEKEND, NOVEMBER, OTHER, THANKSGIVING

HOURS = 24
HARMONICS, YEAR_HARMONICS = (1, 2, 3), (1, 2)
WEATHER = ("temp", "atemp", "hum", "windspeed")
# Columns whose mean and variance are learnt; the means over past hours are measured against those of their column.
MEASURED = (*WEATHER, "weathersit")
PAST = {f.name: f.name.partition("_mean_")[0] for f in features.OPTIONAL_INPUTS if f.kind == "float"}
# A z-score beyond 4 is a sensor fault or weather never seen; the model must not extrapolate along it.
Z_LIMIT = 4.0
# Of the mean square; a column with less variance is constant, and what differs from 0 is rounding of the sums.
LEAST_VARIANCE = 1e-10
# What the time of a row is made of.
DATE = ("yr", "mnth", "day")
# Names of the transformed features.
DENSE = "dense"
SUN = len(WEATHER) + len(PAST)
DENSE_WIDTH = SUN + 1 + 2 * len(HARMONICS)
TIME_OF_YEAR = "time_of_year"
TIME_OF_YEAR_WIDTH = 2 * len(YEAR_HARMONICS)
DAY_TYPES = 5
CODES = {
    "hour": HOURS,
    "hour_workingday": 2 * HOURS,
    "hour_day_type": DAY_TYPES * HOURS,
    "day_type": DAY_TYPES,
    "holiday_kind": KINDS,
    "weather": 4,
    "month": 12,
}
DAYS_BEFORE_END = "days_before_end"
PLAIN = "plain"
PLAIN_CODES = ("hour", "hour_workingday", "hour_day_type", "day_type", "holiday_kind", "weather")
PLAIN_WIDTH = len(WEATHER) + len(PAST) + 1 + len(PLAIN_CODES) + 1
OUTPUTS = (DENSE, TIME_OF_YEAR, *CODES, DAYS_BEFORE_END, PLAIN)
# Day types: Monday to Thursday, Friday, Saturday, Sunday with the great holidays, minor holidays.
_OF_WEEKDAY = (3, 0, 0, 0, 0, 1, 2)
_SUNDAY, _MINOR = 3, 4
# Days of a common year before each month, and the day that stands for a month where none is sent.
_DAYS_BEFORE_MONTH = (0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334)
_MIDDLE_OF_MONTH = 15.5
_LONGEST_MONTH = 31
# Of Washington, D.C., where the data is from; the declination is that of the solstice.
LATITUDE, OBLIQUITY = math.radians(38.9), math.radians(23.44)


def code(tensor: tf.Tensor, name: str) -> tf.Tensor:
    """Return the codes of a column, clipped into its range and counted from 0, (batch,) int64."""
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
        moments: (2 · number of `MEASURED`,) float64: the mean of each of these columns, then the mean of its square.
        last_day: () float32: the last day of the rows, counted from 1 January of the first year.
    """

    moments: tf.Tensor
    last_day: tf.Tensor


class LearntSums(NamedTuple):
    """Of rows, what `Learnt` is made of; sums of parts add up to those of the whole, in whoever's hands the parts are.

    Attributes:
        numbers: (2 · number of `MEASURED`,) float64: the sum of each of these columns, then of its square.
        rows: how many rows they are the sums of.
        first_day: the first day of the rows, counted from 1 January of the first year.
        last_day: their last day.
    """

    numbers: npt.NDArray[np.float64] = np.zeros(2 * len(MEASURED))
    rows: int = 0
    first_day: float = math.inf
    last_day: float = -math.inf

    @classmethod
    def of(cls, columns: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Return the sums of raw columns, (rows,) each."""
        numbers, days = to_learn_from({name: tf.constant(values) for name, values in columns.items()})
        latest = days.numpy()
        return cls(
            numbers.numpy().sum(axis=0),
            len(latest),
            float(latest.min(initial=math.inf)),
            float(latest.max(initial=-math.inf)),
        )

    def plus(self, other: LearntSums) -> LearntSums:
        """Return the sums of these rows and others."""
        first, last = min(self.first_day, other.first_day), max(self.last_day, other.last_day)
        return LearntSums(self.numbers + other.numbers, self.rows + other.rows, first, last)

    def learnt(self) -> Learnt:
        """Return what the transforms learn; there must be rows."""
        return Learnt(tf.constant(self.numbers / self.rows, tf.float64), tf.constant(self.last_day, tf.float32))


def to_learn_from(inputs: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """Return of each row what `Learnt` is made of: the mean of the first over all rows, the maximum of the second.

    The `MEASURED` columns and their squares, (batch, 2 · number of them) float64, and the day, (batch,) float32. Beam
    cuts batches by its own clock, and sums in a column's own type, float32, differed with every run. Sums in float64
    differ far below what float32 can tell, so a run can be repeated.
    """
    measured = tf.cast(tf.stack(list(_measured(inputs).values()), axis=1), tf.float64)
    return tf.concat([measured, measured * measured], axis=1), _time(inputs)


def _measured(inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    weather = {name: tf.cast(inputs[name], tf.float32) for name in WEATHER}
    return weather | {"weathersit": tf.cast(code(inputs["weathersit"], "weathersit") + 1, tf.float32)}


def _day(inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Return the day of the month, (batch,) int64; 0 where none was sent."""
    return tf.cast(tf.clip_by_value(tf.cast(inputs["day"], tf.float32), 0.0, float(_LONGEST_MONTH)), tf.int64)


def _day_of_year(inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Return the day of the year from 0, (batch,) float32, 29 February being the same as 1 March."""
    sent = _day(inputs)
    day = tf.where(sent > 0, tf.cast(sent, tf.float32), _MIDDLE_OF_MONTH)
    return tf.gather(tf.constant(_DAYS_BEFORE_MONTH, tf.float32), code(inputs["mnth"], "mnth")) + day - 1.0


def _time(inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Return the days since 1 January of the first year, (batch,) float32; right until February 2100."""
    year = tf.cast(inputs["yr"], tf.float32)
    # 2012, the second year, has the first leap day, which counts from March on.
    is_late = tf.cast(code(inputs["mnth"], "mnth") > 1, tf.float32)
    return year * 365.0 + tf.floor((year + 2.0 + is_late) / 4.0) + _day_of_year(inputs)


def hours(inputs: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the hours of rows since 1 January of the first year, and the latest that they may be, (batch,) int32 each.

    They differ where no day of the month was sent.
    """
    days = tf.floor(_time(inputs))
    latest = tf.where(_day(inputs) > 0, days, days + math.ceil(_LONGEST_MONTH - _MIDDLE_OF_MONTH))
    hour = tf.cast(code(inputs["hr"], "hr"), tf.float32)
    return tuple(tf.cast(day * float(HOURS) + hour, tf.int32) for day in (days, latest))


def _holiday(inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Return the kind of holiday, (batch,) int64; without the day of the month there is one of `OTHER` or none."""
    month, day, of_week = code(inputs["mnth"], "mnth"), _day(inputs), code(inputs["weekday"], "weekday")
    row = _LONGEST_MONTH + 1
    table = [0] * (12 * row)
    for kind, of_month, dates in DATES:
        for date in dates:
            table[(of_month - 1) * row + date] = kind
    dated, weekday = tf.gather(tf.constant(table, tf.float32), month * row + day), tf.cast(of_week, tf.float32)
    # The fourth Thursday of November is from the 22nd to the 28th; the Friday, one day later.
    is_week = tf.logical_and(tf.abs(tf.cast(day, tf.float32) - weekday - 21.0) < 3.5, tf.equal(month, NOVEMBER - 1))
    is_thanksgiving = tf.logical_and(is_week, tf.abs(weekday - 4.5) < 1.0)
    found = tf.where(is_thanksgiving, float(THANKSGIVING), dated)
    is_leave = tf.abs(found - float(LEAVE)) < 0.5
    found = tf.where(tf.logical_and(is_leave, tf.abs(weekday - 3.0) > 2.5), float(LEAVE_WEEKEND), found)
    is_other = tf.logical_and(code(inputs["holiday"], "holiday") > 0, found < float(OTHER))
    return tf.cast(tf.where(is_other, float(OTHER), found), tf.int64)


def _day_type(inputs: Mapping[str, tf.Tensor], holiday: tf.Tensor) -> tf.Tensor:
    """Return the day type, (batch,) int64, of rows of such kinds of holiday."""
    of_week = code(inputs["weekday"], "weekday")
    is_great = tf.gather(tf.constant([float(kind in GREAT) for kind in range(CODES["holiday_kind"])]), holiday) > 0.0
    # A Saturday or Sunday is free whatever else it is.
    is_from_monday_to_friday = tf.abs(tf.cast(of_week, tf.float32) - 3.0) < 2.5
    usual = tf.gather(tf.constant(_OF_WEEKDAY, tf.float32), of_week)
    usual = tf.where(tf.logical_and(holiday > 0, is_from_monday_to_friday), float(_MINOR), usual)
    return tf.cast(tf.where(is_great, float(_SUNDAY), usual), tf.int64)


def sun_elevation(day_of_year: tf.Tensor, hour: tf.Tensor) -> tf.Tensor:
    """Return the sine of the sun's elevation at half past the hour, (batch,) float32; the day counts from 0.

    sin h = sin φ sin δ + cos φ cos δ cos ω with latitude φ, declination δ (its first harmonic) and hour angle ω
    (Duffie and Beckman, Solar Engineering of Thermal Processes, 1.6).
    """
    declination = -OBLIQUITY * tf.cos((day_of_year + 11.0) * (2.0 * math.pi / 365.25))
    angle = (tf.cast(hour, tf.float32) - 11.5) * math.radians(15.0)
    level, swing = math.sin(LATITUDE) * tf.sin(declination), math.cos(LATITUDE) * tf.cos(declination)
    return level + swing * tf.cos(angle)


def _z_scores(columns: Mapping[str, tf.Tensor], of: Mapping[str, str], moments: tf.Tensor) -> tf.Tensor:
    """Return (x − mean) / √variance of each column by the moments of another; of a constant column x − mean.

    The variance, E[x²] − E[x]², loses nothing that matters in float64, since the weather lies between 0 and 4. What
    touches rows stays float32; the rest are constants of the graph.
    """
    places = [MEASURED.index(of[name]) for name in columns]
    mean, mean_of_squares = (tf.gather(part, places) for part in tf.split(moments, 2))
    variance = mean_of_squares - mean * mean
    known = variance > LEAST_VARIANCE * mean_of_squares
    scale = tf.sqrt(tf.cast(tf.where(known, variance, 1.0), tf.float32))
    return (tf.stack(list(columns.values()), axis=1) - tf.cast(mean, tf.float32)) / scale


def transformed(inputs: Mapping[str, tf.Tensor], learnt: Learnt) -> dict[str, tf.Tensor]:
    """Return the transformed features and the labels of raw columns, as `preprocessing_fn` describes them."""
    hour, day_of_year, holiday = code(inputs["hr"], "hr"), _day_of_year(inputs), _holiday(inputs)
    day_type = _day_type(inputs, holiday)
    outputs: dict[str, tf.Tensor] = {
        "hour": hour,
        "hour_workingday": hour + HOURS * code(inputs["workingday"], "workingday"),
        "hour_day_type": hour + HOURS * day_type,
        "day_type": day_type,
        "holiday_kind": holiday,
        "weather": code(inputs["weathersit"], "weathersit"),
        "month": code(inputs["mnth"], "mnth"),
    }
    now = _measured(inputs)
    columns = {name: now[name] for name in WEATHER}
    for name, column in PAST.items():
        mean = tf.cast(inputs[name], tf.float32)
        columns[name] = tf.where(mean <= 0.0, now[column], mean)
    z_scores = tf.clip_by_value(
        _z_scores(columns, {name: PAST.get(name, name) for name in columns}, learnt.moments), -Z_LIMIT, Z_LIMIT
    )
    parts = [*tf.unstack(z_scores, num=len(columns), axis=1), sun_elevation(day_of_year, hour)]
    angle = tf.cast(hour, tf.float32) * (2.0 * math.pi / HOURS)
    for k in HARMONICS:
        parts += [tf.sin(k * angle), tf.cos(k * angle)]
    outputs[DENSE] = tf.stack(parts, axis=1)
    angle = day_of_year * (2.0 * math.pi / 365.25)
    outputs[TIME_OF_YEAR] = tf.stack([wave(k * angle) for k in YEAR_HARMONICS for wave in (tf.sin, tf.cos)], axis=1)
    outputs[DAYS_BEFORE_END] = tf.maximum(learnt.last_day - _time(inputs), 0.0)
    codes = [tf.cast(outputs[name], tf.float32) for name in PLAIN_CODES]
    outputs[PLAIN] = tf.stack([*columns.values(), day_of_year, *codes, outputs[DAYS_BEFORE_END]], axis=1)
    for name in features.LABELS:
        outputs[name] = tf.cast(inputs[name], tf.float32)
    return outputs


def transformed_columns(columns: Mapping[str, npt.NDArray[Any]], learnt: Learnt) -> dict[str, npt.NDArray[Any]]:
    """Return what `transformed` does of rows in memory, without a graph."""
    tensors = transformed({name: tf.constant(values) for name, values in columns.items()}, learnt)
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def preprocessing_fn(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Return the transformed features and the labels of raw columns, each of shape (batch,), int64 or float32.

    Returns:
        `dense` (batch, 17) float32: z-scores, clipped at ±4, of the weather and of its means over past hours, or of the
        hour's own weather where those were not sent; the sine of the sun's elevation; sine and cosine of the hour;
        `time_of_year` (batch, 4) float32: sine and cosine of the day of the year;
        one int64 code of shape (batch,) for each name in `CODES`, from 0;
        `days_before_end` (batch,) float32: days from the row to the end of the training rows, never negative, so that
        hours after the training period stand at its end and no trend is extrapolated;
        `plain` (batch, 18) float32, for trees: weather and its means as they come, the day of the year, codes, and the
        days before the end. No arithmetic rounds them, so that every runtime finds the same number above a threshold;
        the labels `cnt`, `casual` and `registered`, which are never features, (batch,) float32, in rentals.
    """
    # Imported here, since it takes longer than all that the columns need.
    import tensorflow_transform as tft

    # Two analyzers in all: each costs a Beam stage of its own.
    numbers, days = to_learn_from(inputs)
    moments = tft.mean(numbers, reduce_instance_dims=False, name="measured")
    return transformed(inputs, Learnt(moments, tft.max(days, name="last_day")))
