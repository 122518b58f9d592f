"""Accepted rows: as CSV and as Parquet, their content address, the split by time, and how a correction is merged."""

from __future__ import annotations

import hashlib
import io
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from bike_pipeline import features
from bike_pipeline.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

ROW_NUMBER = "instant"
# Rows that are texts in memory at once.
ROWS_AT_ONCE = 250_000
HEADER = (",".join(features.COLUMNS) + "\n").encode()


def csv_bytes(table: pa.Table) -> bytes:
    """Return accepted rows as CSV: header, `features.COLUMNS` in order, LF, no quotes.

    Floats always carry a point or an exponent: CSV readers that guess types (TFX's CsvExampleGen) then see a float
    column even if every value happens to be 0.
    """
    buffer = io.BytesIO()
    buffer.write(HEADER)
    _write_body(table, buffer)
    return buffer.getvalue()


def _write_body(table: pa.Table, buffer: io.BytesIO) -> None:
    import pyarrow as pa
    import pyarrow.csv as pc

    # The row number is the one column whose values never repeat.
    columns = [
        table.column(name) if name == ROW_NUMBER else _texts(table.column(name).combine_chunks())
        for name in features.COLUMNS
    ]
    options = pc.WriteOptions(include_header=False, quoting_style="none")
    pc.write_csv(pa.table(columns, names=list(features.COLUMNS)), buffer, options)


def _texts(values: pa.Array) -> pa.Array:
    """Return a column's values as texts, each distinct value converted once: two fifths of the time of one by one."""
    import pyarrow as pa
    from pyarrow import compute

    encoded = values.dictionary_encode()
    texts = encoded.dictionary.cast(pa.string())
    if pa.types.is_floating(values.type):
        marked = compute.match_substring_regex(texts, "[.e]")
        texts = compute.if_else(marked, texts, compute.binary_join_element_wise(texts, "0", "."))
    return texts.take(encoded.indices)


def parquet_bytes(table: pa.Table) -> bytes:
    """Return accepted rows as Parquet by Zstandard: `features.COLUMNS` in order, as int64, float64 and date32."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table.select(list(features.COLUMNS)), buffer, compression="zstd")
    return buffer.getvalue()


def rows_from_parquet(content: bytes, where: str) -> pa.Table:
    """Return the rows that `parquet_bytes` wrote; a DataError if it is anything else."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Arrow's reading threads can outlive the read and then abort a process that ends at once (arrow#34314).
        table = pq.ParquetFile(pa.BufferReader(content), pre_buffer=False).read(use_threads=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(error, where) from error
    expected = pa.schema([(feature.name, _kinds()[feature.kind]) for feature in features.FEATURES])
    if not table.schema.equals(expected):
        raise _unreadable("other columns or types than the feature contract's", where)
    return table


def _unreadable(reason: object, where: str) -> DataError:
    return DataError(f"the stored rows cannot be read ({reason})", where=where, fix="restore the file from a backup")


def _kinds() -> dict[str, pa.DataType]:
    import pyarrow as pa

    return {"int": pa.int64(), "float": pa.float64(), "date": pa.date32()}


def rows_from_csv(content: bytes, where: str) -> pa.Table:
    """Return the rows that `csv_bytes` wrote; a DataError if it is anything else."""
    import pyarrow as pa
    import pyarrow.csv as pc

    kinds = _kinds()
    try:
        return pc.read_csv(
            pa.py_buffer(content),
            # Arrow's reading threads can outlive the read and then abort a process that ends at once (arrow#34314).
            read_options=pc.ReadOptions(use_threads=False, block_size=max(len(content), 1)),
            convert_options=pc.ConvertOptions(
                column_types={feature.name: kinds[feature.kind] for feature in features.FEATURES},
                include_columns=list(features.COLUMNS),
                null_values=[],
            ),
        )
    except (pa.ArrowInvalid, KeyError) as error:
        raise _unreadable(error, where) from error


def content_sha256(table: pa.Table) -> str:
    """Return the content address of rows in time order: SHA-256 of their CSV form, in whatever format they are kept.

    `instant` is left out: it numbers a row in its source, so the same hours exported again may carry other numbers.
    """
    import numpy as np
    import pyarrow as pa

    zeros = pa.array(np.zeros(table.num_rows, dtype=np.int64))
    unnumbered = table.set_column(table.schema.get_field_index(ROW_NUMBER), ROW_NUMBER, zeros)
    found = hashlib.sha256(HEADER)
    for start in range(0, table.num_rows, ROWS_AT_ONCE):
        buffer = io.BytesIO()
        _write_body(unnumbered.slice(start, ROWS_AT_ONCE), buffer)
        found.update(buffer.getbuffer())
    return found.hexdigest()


def hours_of(table: pa.Table) -> npt.NDArray[np.int64]:
    """Return the time of each row, (rows,), in hours since 1970-01-01 00:00 local time."""
    import numpy as np
    import pyarrow as pa

    days = table.column(features.DATE).cast(pa.int32()).to_numpy().astype(np.int64)
    hours: npt.NDArray[np.int64] = days * 24 + table.column(features.HOUR).to_numpy()
    return hours


def time_range(table: pa.Table) -> tuple[datetime, datetime]:
    """Return the first and the last hour of rows in time order, local time without a zone."""
    hours = hours_of(table)
    epoch = datetime(1970, 1, 1)
    return epoch + timedelta(hours=int(hours[0])), epoch + timedelta(hours=int(hours[-1]))


def split_by_time(table: pa.Table, eval_fraction: float, where: str) -> tuple[pa.Table, pa.Table]:
    """Cut rows in time order into train and eval: the last `eval_fraction` of the days, whole ones, one at least.

    Raises:
        DataError: the rows are of fewer than two days.
    """
    import numpy as np

    days = hours_of(table) // 24
    distinct = np.unique(days)
    count = len(distinct)
    if count < 2:
        raise DataError(
            f"a span needs rows of at least 2 days, one to train and one to evaluate on; found {count}",
            where=where,
            fix="ingest a longer period at once",
        )
    evaluated = max(1, min(count - 1, int(count * eval_fraction + 0.5)))
    first_eval_row = int(np.searchsorted(days, distinct[count - evaluated]))
    return table.slice(0, first_eval_row), table.slice(first_eval_row)


def merge_rows(parent: pa.Table, correction: pa.Table) -> tuple[pa.Table, int]:
    """Return the parent's rows and a correction's as one, in time order, and how many come from the parent.

    A correction's row wins if both have the same hour.
    """
    import numpy as np
    import pyarrow as pa

    kept = parent.filter(pa.array(~np.isin(hours_of(parent), hours_of(correction))))
    merged = pa.concat_tables([kept, correction])
    return merged.take(pa.array(np.argsort(hours_of(merged), kind="stable"))).combine_chunks(), kept.num_rows
