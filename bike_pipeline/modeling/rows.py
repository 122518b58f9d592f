"""Rows of an Examples artifact as plain arrays: in memory, in Arrow batches, one array a column.

Beside its tf.Examples an Examples artifact of ours keeps the same rows as Parquet, since decoding a million tf.Examples
costs 5 seconds and reading them as Parquet a tenth of one. Readers of TFX do not see these files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bike_pipeline import features
from bike_pipeline.errors import DataError, StageError, first_words
from bike_pipeline.stages import Stage

COLUMNS_FOLDER = "columns"
RAW_NAMES = (*features.INPUT_NAMES, *features.OPTIONAL_NAMES, *features.LABELS)
# Rows that are read, and that go through the transform graph, at once: bounds memory, costs nothing.
ROWS_AT_ONCE = 65_536

Columns = dict[str, npt.NDArray[Any]]


def to_columns(batches: Iterable[pa.RecordBatch], names: Iterable[str], where: str = Stage.TRAINER) -> Columns:
    """Return the named columns of all batches, each of shape (rows,), int64 or float32, for the stage `where`.

    A column of a batch is a list with one value a row, as TFXIO reads tf.Examples. A column that is absent, or a row
    without its value, is a DataError.
    """
    names = tuple(names)
    parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in names}
    for batch in batches:
        for name in names:
            index = batch.schema.get_field_index(name)
            if index < 0 or not _one_value_a_row(batch.column(index)):
                raise DataError(
                    f"the examples lack values of '{name}'",
                    where=where,
                    fix="the schema must require it in every row, so that the data gate stops such rows",
                )
            parts[name].append(batch.column(index).flatten().to_numpy(zero_copy_only=False))
    if not parts[names[0]]:
        raise _no_rows(where)
    return {name: np.concatenate(chunks) for name, chunks in parts.items()}


def _no_rows(where: str) -> DataError:
    return DataError("there are no examples to read", where=where, fix="ingest a span with rows in this split")


def _one_value_a_row(column: pa.Array) -> bool:
    # TFXIO reads a column that is empty in every row as one of Arrow's type null. Lengths are compared row by row: two
    # values in one row and none in the next would move every value between them into another row.
    if not pa.types.is_list(column.type) and not pa.types.is_large_list(column.type):
        return False
    lengths = column.value_lengths()
    return not lengths.null_count and bool((lengths.to_numpy() == 1).all()) and not column.flatten().null_count


def of_table(table: pa.Table, names: Iterable[str] = RAW_NAMES) -> Columns:
    """Return named raw columns of rows in memory, each of shape (rows,), int64 or float32."""
    kinds = {"int": np.int64, "float": np.float32}
    return {name: table.column(name).to_numpy().astype(kinds[features.BY_NAME[name].kind]) for name in names}


def count(columns: Mapping[str, npt.NDArray[Any]]) -> int:
    """Return the number of rows."""
    return len(next(iter(columns.values())))


def chunks(columns: Mapping[str, npt.NDArray[Any]], size: int) -> Iterator[Columns]:
    """Yield the rows in order, `size` at a time."""
    for start in range(0, count(columns), size):
        yield {name: values[start : start + size] for name, values in columns.items()}


def columns_file(shard: str) -> str:
    """Return where the rows of a shard of tf.Examples (`<artifact>/Split-<name>/data_tfrecord-….gz`) are Parquet."""
    folder, name = os.path.split(shard)
    artifact, split = os.path.split(folder)
    return os.path.join(artifact, COLUMNS_FOLDER, split, name.replace(".gz", ".parquet"))


def shards(split_folder: str) -> list[str]:
    """Return the files of tf.Examples in `<artifact>/Split-<name>`, in their order."""
    import tensorflow as tf

    # Listed and not globbed: the path may hold what a pattern gives another meaning.
    return sorted(os.path.join(split_folder, name) for name in tf.io.gfile.listdir(split_folder))


def readable_files(split_folder: str) -> list[str]:
    """Return the files to read a split's rows from, in their order: the Parquet files, else the tf.Examples."""
    import tensorflow as tf

    examples = shards(split_folder)
    columns = [columns_file(shard) for shard in examples]
    return columns if all(tf.io.gfile.exists(path) for path in columns) else examples


def check_count(stage: str, split: str, read: int, written: int) -> None:
    """Raise a StageError if a stage read another number of rows than ExampleGen wrote."""
    if read != written:
        raise StageError(
            f"it read {read:,} rows of split '{split}' where ExampleGen wrote {written:,}",
            where=stage,
            fix="this is an error of the pipeline and not of the source: run again with --no-cache, and report it "
            "with the log if it stays",
        )


def record_batches(
    path: str, size: int, names: Iterable[str] | None = None, schema: Any = None
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of one of `readable_files` in order, as TFXIO would: every column is a list with one value a row.

    A batch has `size` rows at most and the named columns, else all; tf.Examples are decoded by the schema, else by
    their own types. A file that is damaged is a DataError.
    """
    import tensorflow as tf

    read = _columns(path, size, names) if path.endswith(".parquet") else _decoded(path, size, schema)
    try:
        yield from read
    except (pa.ArrowException, OSError, tf.errors.DataLossError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise damaged(path, error) from error


def read_split(folder: str, names: Sequence[str], schema: Any, where: str, every: int = 1) -> Columns:
    """Return named columns of a split's folder, each of shape (rows,), for the stage `where`: all rows, or each nth.

    The schema decodes tf.Examples. A column that is absent, and a split without rows, are DataErrors.
    """
    parts: list[Columns] = []
    seen = 0
    for path in readable_files(folder):
        for batch in record_batches(path, ROWS_AT_ONCE, names, schema):
            columns = to_columns([batch], names, where=where)
            parts.append({name: values[-seen % every :: every] for name, values in columns.items()})
            seen += batch.num_rows
    if not parts:
        raise _no_rows(where)
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def read(examples: Sequence[str], schema_file: str) -> Columns:
    """Return the raw rows of an Examples artifact, with the labels; see `read_to_train`."""
    return read_to_train(examples, schema_file)[0]


def read_to_train(examples: Sequence[str], schema_file: str) -> tuple[Columns, int]:
    """Return the raw rows of an Examples artifact in its files' order, and how many of them are the last pattern's.

    Each pattern is `<artifact>/Split-<name>/*`; the last one is the newest span's train split. tf.Examples without
    their rows as Parquet are decoded by the schema, a text proto. Examples that lack a column are a DataError.
    """
    import tensorflow as tf
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    with tf.io.gfile.GFile(schema_file) as file:
        schema = text_format.Parse(file.read(), schema_pb2.Schema())
    counts: list[int] = []

    def batches() -> Iterator[Any]:
        for pattern in examples:
            counts.append(0)
            for path in readable_files(os.path.dirname(pattern)):
                for batch in record_batches(path, ROWS_AT_ONCE, RAW_NAMES, schema):
                    counts[-1] += batch.num_rows
                    yield batch

    return to_columns(batches(), RAW_NAMES), counts[-1]


def damaged(path: str, error: Exception) -> DataError:
    """Return the error for a file of examples that does not hold what was written into it."""
    return DataError(
        f"the file is damaged since it was written ({first_words(error, 200)})",
        where=path,
        fix="find out what changed it, then run again with --no-cache, so that it is written anew",
    )


def _columns(path: str, size: int, names: Iterable[str] | None) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq
    import tensorflow as tf

    with tf.io.gfile.GFile(path, "rb") as file:
        content = pa.BufferReader(file.read())
    # Arrow's reading threads can outlive the read and then abort a process that ends at once (arrow#34314).
    source = pq.ParquetFile(content, pre_buffer=False, page_checksum_verification=True)
    for batch in source.iter_batches(size, columns=None if names is None else list(names), use_threads=False):
        offsets = pa.array(np.arange(batch.num_rows + 1, dtype=np.int64))
        columns = [pa.LargeListArray.from_arrays(offsets, column) for column in batch.columns]
        yield pa.RecordBatch.from_arrays(columns, batch.schema.names)


def _decoded(path: str, size: int, schema: Any) -> Iterator[pa.RecordBatch]:
    import tensorflow as tf
    from tfx_bsl.coders import example_coder

    decoder = example_coder.ExamplesToRecordBatchDecoder(None if schema is None else schema.SerializeToString())
    for records in tf.data.TFRecordDataset(path, "GZIP").batch(size).as_numpy_iterator():
        yield decoder.DecodeBatch(records.tolist())
