"""The rows that a model is trained on, and what is kept of them beside the model for those who judge it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from bike_pipeline import features
from bike_pipeline.modeling import naive_baseline, rows, saved_model, slices

RAW_NAMES = (*features.INPUT_NAMES, features.LABEL)
# Rows that are read, and that go through the transform graph, at once: bounds memory, costs nothing.
ROWS_AT_ONCE = 65_536


def read(examples: Sequence[str], schema_file: str) -> rows.Columns:
    """Return the raw rows of an Examples artifact, with the label, in the order of its files; see `read_to_train`."""
    return read_to_train(examples, schema_file)[0]


def read_to_train(examples: Sequence[str], schema_file: str) -> tuple[rows.Columns, int]:
    """Return the raw rows of an Examples artifact in its files' order, and how many of them are the last pattern's.

    Args:
        examples: file patterns, `<artifact>/Split-<name>/*` each; the last one is the newest span's train split.
        schema_file: the schema, as text proto; tf.Examples without their rows as Parquet are decoded by it.

    Raises:
        DataError: the examples lack a column or there are none.
    """
    schema = _schema(schema_file)
    counts: list[int] = []

    def batches() -> Iterator[Any]:
        for pattern in examples:
            counts.append(0)
            for path in rows.readable_files(os.path.dirname(pattern)):
                for batch in rows.record_batches(path, ROWS_AT_ONCE, RAW_NAMES, schema):
                    counts[-1] += batch.num_rows
                    yield batch

    return rows.to_columns(batches(), RAW_NAMES), counts[-1]


def _schema(path: str) -> Any:
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    with tf.io.gfile.GFile(path) as file:
        return text_format.Parse(file.read(), schema_pb2.Schema())


def evidence(columns: rows.Columns, newest: int | None = None) -> dict[str, str]:
    """Return what the Evaluator must know of the rows that a model was trained on, as text files by name.

    The last `newest` rows are the newest span's; None for all.
    """
    naive = naive_baseline.NaiveBaseline.fit(columns["hr"], columns["workingday"], columns[features.LABEL], newest)
    return {
        saved_model.NAIVE_BASELINE_FILE: naive.to_json(),
        saved_model.TRAINED_SLICES_FILE: slices.to_json(slices.rows_by_slice(columns)),
    }
