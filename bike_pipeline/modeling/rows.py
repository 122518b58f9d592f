"""Rows of an Examples artifact as plain arrays: in memory, in Arrow batches, one array a column."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bike_pipeline.errors import DataError

Columns = dict[str, npt.NDArray[Any]]


def to_columns(batches: Iterable[pa.RecordBatch], names: Iterable[str]) -> Columns:
    """Return the named columns of all batches, each of shape (rows,); int64 or float32.

    Args:
        batches: record batches whose columns are lists with one value a row, as TFXIO reads tf.Examples.
        names: the columns to keep.

    Raises:
        DataError: a column is absent or a row lacks its value.
    """
    names = tuple(names)
    parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in names}
    for batch in batches:
        for name in names:
            index = batch.schema.get_field_index(name)
            if index < 0 or not _one_value_a_row(batch.column(index)):
                raise DataError(
                    f"the examples lack values of '{name}'",
                    where="Trainer",
                    fix="the schema must require it in every row, so that the data gate stops such rows",
                )
            parts[name].append(batch.column(index).flatten().to_numpy(zero_copy_only=False))
    if not parts[names[0]]:
        raise DataError("there are no examples to read", where="Trainer", fix="ingest a span with rows in this split")
    return {name: np.concatenate(chunks) for name, chunks in parts.items()}


def _one_value_a_row(column: pa.Array) -> bool:
    # TFXIO reads a column that is empty in every row as one of Arrow's type null. Lengths are compared row by row: two
    # values in one row and none in the next would move every value between them into another row.
    if not pa.types.is_list(column.type) and not pa.types.is_large_list(column.type):
        return False
    lengths = column.value_lengths()
    return not lengths.null_count and bool((lengths.to_numpy() == 1).all()) and not column.flatten().null_count


def count(columns: Mapping[str, npt.NDArray[Any]]) -> int:
    """Return the number of rows."""
    return len(next(iter(columns.values())))


def chunks(columns: Mapping[str, npt.NDArray[Any]], size: int) -> Iterator[Columns]:
    """Yield the rows in order, `size` at a time."""
    for start in range(0, count(columns), size):
        yield {name: values[start : start + size] for name, values in columns.items()}
