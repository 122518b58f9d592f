"""Golden rows: the same for every model and format, so that a device and a server can be held to the same answers.

They cover every value of every category, the ends of every range, and what no training row ever was: codes and weather
outside their ranges, years to come. The rest are seeded draws from the ranges. Beside them stand rows as a broken
sensor sends them, with a number that is not finite, which every format must answer with NaN, among sound rows too.

TF Serving replays golden rows when it has loaded a version, before it lets a client in: a SavedModel does part of its
work at the first call, where functions are instantiated and memory is taken. These warm-up requests, in `assets.extra`,
are the same to the last byte for every model.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bike_pipeline import features
from bike_pipeline.features import Feature

if TYPE_CHECKING:
    # Its module reads Parquet, for which a server has no use and no memory.
    from bike_pipeline.modeling.rows import Columns

SEED = 20110101
# Last of the years that the rows are drawn from, since 2011: two of data and three to come.
LAST_YEAR = 4
# What a category, a range and a year may be wrong by.
_UNSEEN_CODES = (-1, 1_000)
_UNSEEN_NUMBERS = (-0.5, 1.5, 25.0)
_NOT_FINITE = (math.nan, math.inf, -math.inf)
# Of golden.json: where these rows stand.
NOT_FINITE_KEY = "not_finite"
WARMUP_FILE = "tf_serving_warmup_requests"
# TF Serving refuses to load a version with more records.
MOST_WARMUP_RECORDS = 1_000
WARMUP_SIGNATURES = (features.SERVING_DEFAULT, features.SERVING_ALL_INPUTS, features.SERVING_EXAMPLES)
# Rows in each warm-up request: most are single ones; the batches are what TF Serving's batching makes of many.
_WARMUP_SIZES = (*[1] * 16, 8, 32, 128)


def golden_rows(count: int) -> Columns:
    """Return `count` golden rows: one array of shape (count,) for each of the model's inputs; int64 or float32.

    A `count` that is too small to hold every value that must be there is a ValueError.
    """
    columns = _drawn(count)
    wanted = [(f.name, value) for f in features.MODEL_INPUTS for value in _values(f)]
    if len(wanted) > count:
        raise ValueError(f"{count} golden rows do not hold every value; take more")
    for row, (name, value) in enumerate(wanted):
        columns[name][row] = value
    return columns


def broken_rows() -> Columns:
    """Return rows with one number each that is not finite: every such feature with NaN, infinity and -infinity."""
    broken = [(f.name, value) for f in features.MODEL_INPUTS if f.kind == "float" for value in _NOT_FINITE]
    columns = _drawn(len(broken))
    for row, (name, value) in enumerate(broken):
        columns[name][row] = value
    return columns


def with_broken_rows(rows: Mapping[str, npt.NDArray[Any]]) -> Columns:
    """Return the rows, of which there is at least one, with the broken ones spread among them; the first stays."""
    broken = broken_rows()
    count, more = (len(next(iter(columns.values()))) for columns in (rows, broken))
    places = np.linspace(1, count, more).astype(np.int64)
    return {name: np.insert(values, places, broken[name]) for name, values in rows.items()}


def are_sound(rows: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.bool_]:
    """Return of each row whether all its numbers are finite, shape (rows,)."""
    sound: npt.NDArray[np.bool_] = np.all([np.isfinite(values) for values in rows.values()], axis=0)
    return sound


def read_golden(path: Path) -> tuple[dict[str, list[float]], list[float]]:
    """Return the rows of a pushed version's `golden.json` by column, and the model's answers.

    Rows with a number that is not finite stand last, with NaN for their answer; older versions have none. An OSError,
    ValueError, KeyError or TypeError says that the file is not of this form.
    """
    golden = json.loads(path.read_text(encoding="utf-8"))
    answers = [float(value) for value in golden[features.answer_among(golden)]]
    if not all(map(math.isfinite, answers)):
        raise ValueError("an answer to a sound row is not a number")
    broken = golden[NOT_FINITE_KEY]["columns"] if NOT_FINITE_KEY in golden else {}
    columns = {
        name: [*values, *(float(value) if isinstance(value, str) else value for value in broken.get(name, ()))]
        for name, values in golden["columns"].items()
    }
    rows = max(map(len, broken.values()), default=0)
    return columns, [*answers, *[math.nan] * rows]


def _top(feature: Feature) -> int:
    return LAST_YEAR if feature.maximum is None else int(feature.maximum)


def _drawn(count: int) -> Columns:
    generator = np.random.default_rng(SEED)
    columns: Columns = {}
    for feature in features.MODEL_INPUTS:
        low, high = int(feature.minimum or 0), _top(feature)
        if feature.kind == "int":
            columns[feature.name] = generator.integers(low, high + 1, count, dtype=np.int64)
        else:
            # To the four decimals that the data has: text and binary forms of a row are then the same number.
            columns[feature.name] = np.round(generator.uniform(low, high, count), 4).astype(np.float32)
    return columns


def _values(feature: Feature) -> Iterator[float]:
    """Yield what must be there of a feature: every category or the ends and the middle, and the unseen."""
    low, high = int(feature.minimum or 0), _top(feature)
    if feature.kind == "int":
        yield from range(low, high + 1)
        yield from (low + _UNSEEN_CODES[0], high + 1, _UNSEEN_CODES[1])
    else:
        yield from (low, (low + high) / 2, high)
        yield from _UNSEEN_NUMBERS


def _logged(signature: str, rows: Columns) -> Any:
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    # No model is named, which TF Serving ignores.
    request.model_spec.signature_name = signature
    if signature == features.SERVING_EXAMPLES:
        request.inputs["examples"].CopyFrom(tf.make_tensor_proto(_examples(rows), dtype=tf.string))
    else:
        inputs = features.REQUIRED_INPUTS if signature == features.SERVING_DEFAULT else features.MODEL_INPUTS
        for feature in inputs:
            request.inputs[feature.name].CopyFrom(tf.make_tensor_proto(rows[feature.name]))
    return log


def _examples(rows: Columns) -> list[bytes]:
    import tensorflow as tf

    def feature(value: Any) -> tf.train.Feature:
        if value.dtype.kind == "i":
            return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))

    return [
        tf.train.Example(
            features=tf.train.Features(feature={name: feature(rows[name][i]) for name in rows})
        ).SerializeToString(deterministic=True)
        for i in range(len(next(iter(rows.values()))))
    ]


def write_warmup(extra_folder: str) -> str:
    """Write the warm-up requests into a model's `assets.extra`, first the small ones; return the file's path."""
    import tensorflow as tf

    path = os.path.join(extra_folder, WARMUP_FILE)
    columns, ends = golden_rows(sum(_WARMUP_SIZES)), np.cumsum(_WARMUP_SIZES)
    with tf.io.TFRecordWriter(path) as writer:
        for signature in WARMUP_SIGNATURES:
            for end, size in zip(ends, _WARMUP_SIZES, strict=True):
                rows = {name: values[end - size : end] for name, values in columns.items()}
                # Maps have no order of their own in protobuf's bytes.
                writer.write(_logged(signature, rows).SerializeToString(deterministic=True))
    return path
