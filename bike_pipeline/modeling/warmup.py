"""Warm-up requests: what TF Serving replays when it has loaded a version, before it lets a client in.

A SavedModel does part of its work at the first call: functions are instantiated, memory is taken. The file holds golden
rows for both signatures, singly and in batches, and is the same to the last byte for every model. TF Serving reads it
from `assets.extra` and takes up to 1,000 records.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from bike_pipeline.modeling.golden import golden_rows
from bike_pipeline.modeling.rows import Columns

WARMUP_FILE = "tf_serving_warmup_requests"
# TF Serving refuses to load a version with more.
MOST_RECORDS = 1_000
SIGNATURES = ("serving_default", "serving_examples")
# Rows in each request: most are single ones; the batches are what its batching makes of many.
_SIZES = (*[1] * 16, 8, 32, 128)


def requests() -> Iterator[Any]:
    """Yield the requests as PredictionLogs, first the small ones; they name no model, which TF Serving ignores."""
    columns = golden_rows(sum(_SIZES))
    for signature in SIGNATURES:
        start = 0
        for size in _SIZES:
            part = {name: values[start : start + size] for name, values in columns.items()}
            start += size
            yield _logged(signature, part)


def _logged(signature: str, rows: Columns) -> Any:
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    request.model_spec.signature_name = signature
    if signature == "serving_examples":
        request.inputs["examples"].CopyFrom(tf.make_tensor_proto(_examples(rows), dtype=tf.string))
    else:
        for name, values in rows.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
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


def write(extra_folder: str) -> str:
    """Write the file into a model's `assets.extra`; return its path."""
    import tensorflow as tf

    path = os.path.join(extra_folder, WARMUP_FILE)
    with tf.io.TFRecordWriter(path) as writer:
        for request in requests():
            # Maps have no order of their own in protobuf's bytes.
            writer.write(request.SerializeToString(deterministic=True))
    return path
