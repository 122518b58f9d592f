"""Parquet to rows, with the file's own types."""

from __future__ import annotations

from bike_pipeline import features
from bike_pipeline.data.sources.source_rows import SourceRows, check_columns
from bike_pipeline.errors import DataError

MAGIC = b"PAR1"


def read_parquet(content: bytes, name: str) -> SourceRows:
    """Read the columns of the feature contract; a DataError if it is damaged, has no row, or other columns."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Arrow's reading threads can outlive the read and then abort a process that ends at once (arrow#34314).
        file = pq.ParquetFile(pa.BufferReader(content), pre_buffer=False)
        ignored = check_columns(file.schema_arrow.names, name)
        table = file.read(columns=list(features.COLUMNS), use_threads=False).select(list(features.COLUMNS))
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"it is not a whole Parquet file ({error})", where=name, fix="write it again") from error
    for place, column in enumerate(table.columns):
        if pa.types.is_dictionary(column.type):
            table = table.set_column(place, table.column_names[place], column.cast(column.type.value_type))
    if not table.num_rows:
        raise DataError("it has columns and no rows", where=name, fix="check the export that wrote it")
    rows = np.arange(1, table.num_rows + 1, dtype=np.int64)
    return SourceRows(table, rows, np.zeros(len(rows), dtype=np.int64), (name,), (), ignored)
