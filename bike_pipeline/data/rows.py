"""What a version of a span holds, as bytes: its splits as CSV or Parquet, its quarantine and its manifest.

With it the content address of rows, the split by time, and how a correction is merged.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
from pyarrow import compute

from bike_pipeline import features
from bike_pipeline.data.contract import CheckedRows, contract_sha256, quarantine_csv
from bike_pipeline.data.manifest import (
    MANIFEST,
    QUARANTINE,
    SCHEMA_VERSION,
    DataFormat,
    FileRecord,
    Manifest,
    RowCounts,
    SourceRecord,
    SpanVersion,
    Split,
    TimeRange,
    VersionNumber,
    render_manifest,
)
from bike_pipeline.errors import DataError

ROW_NUMBER = "instant"
# Rows of one file at most: what a reader of a split holds in memory, what one worker of an engine reads at a time, and
# what is text in memory at once.
ROWS_PER_FILE = 250_000
_KINDS = {"int": pa.int64(), "float": pa.float64(), "date": pa.date32()}
HEADER = (",".join(features.COLUMNS) + "\n").encode()


def csv_bytes(table: pa.Table) -> bytes:
    """Return accepted rows as CSV: header, `features.COLUMNS` in order, LF, no quotes.

    Floats always carry a point or an exponent: CSV readers that guess types (TFX's CsvExampleGen) then see a float
    column even if every value happens to be 0.
    """
    return HEADER + _body(table)


def _body(table: pa.Table) -> bytes:
    # The row number is the one column whose values never repeat.
    columns = [
        table.column(name) if name == ROW_NUMBER else _texts(table.column(name).combine_chunks())
        for name in features.COLUMNS
    ]
    buffer = io.BytesIO()
    options = pc.WriteOptions(include_header=False, quoting_style="none")
    pc.write_csv(pa.table(columns, names=list(features.COLUMNS)), buffer, options)
    return buffer.getvalue()


def _texts(values: pa.Array) -> pa.Array:
    """Return a column's values as texts, each distinct value converted once: two fifths of the time of one by one."""
    encoded = values.dictionary_encode()
    texts = encoded.dictionary.cast(pa.string())
    if pa.types.is_floating(values.type):
        marked = compute.match_substring_regex(texts, "[.e]")
        texts = compute.if_else(marked, texts, compute.binary_join_element_wise(texts, "0", "."))
    return texts.take(encoded.indices)


def parquet_bytes(table: pa.Table) -> bytes:
    """Return accepted rows as Parquet by Zstandard: `features.COLUMNS` in order, as int64, float64 and date32."""
    buffer = io.BytesIO()
    pq.write_table(table.select(list(features.COLUMNS)), buffer, compression="zstd")
    return buffer.getvalue()


def rows_from_parquet(content: bytes, where: str) -> pa.Table:
    """Return the rows that `parquet_bytes` wrote; a DataError if it is anything else."""
    try:
        # Arrow's reading threads can outlive the read and then abort a process that ends at once (arrow#34314).
        table = pq.ParquetFile(pa.BufferReader(content), pre_buffer=False).read(use_threads=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(error, where) from error
    expected = pa.schema([(feature.name, _KINDS[feature.kind]) for feature in features.FEATURES])
    if not table.schema.equals(expected):
        raise _unreadable("other columns or types than the feature contract's", where)
    return table


def _unreadable(reason: object, where: str) -> DataError:
    return DataError(f"the stored rows cannot be read ({reason})", where=where, fix="restore the file from a backup")


def rows_from_csv(content: bytes, where: str) -> pa.Table:
    """Return the rows that `csv_bytes` wrote; a DataError if it is anything else."""
    try:
        return pc.read_csv(
            pa.py_buffer(content),
            # Arrow's reading threads can outlive the read and then abort a process that ends at once (arrow#34314).
            read_options=pc.ReadOptions(use_threads=False, block_size=max(len(content), 1)),
            convert_options=pc.ConvertOptions(
                column_types={feature.name: _KINDS[feature.kind] for feature in features.FEATURES},
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
    zeros = pa.array(np.zeros(table.num_rows, dtype=np.int64))
    unnumbered = table.set_column(table.schema.get_field_index(ROW_NUMBER), ROW_NUMBER, zeros)
    found = hashlib.sha256(HEADER)
    for start in range(0, table.num_rows, ROWS_PER_FILE):
        found.update(_body(unnumbered.slice(start, ROWS_PER_FILE)))
    return found.hexdigest()


def hours_of(table: pa.Table) -> npt.NDArray[np.int64]:
    """Return the time of each row, (rows,), in hours since 1970-01-01 00:00 local time."""
    days = table.column(features.DATE).cast(pa.int32()).to_numpy().astype(np.int64)
    hours: npt.NDArray[np.int64] = days * 24 + table.column(features.HOUR).to_numpy()
    return hours


def time_range(table: pa.Table) -> TimeRange:
    """Return the first and the last hour of rows in time order."""
    hours = hours_of(table)
    epoch = datetime(1970, 1, 1)
    return TimeRange(first=epoch + timedelta(hours=int(hours[0])), last=epoch + timedelta(hours=int(hours[-1])))


def split_by_time(table: pa.Table, eval_fraction: float, where: str) -> tuple[pa.Table, pa.Table]:
    """Cut rows in time order into train and eval: the last `eval_fraction` of the days, whole ones, one at least.

    Raises:
        DataError: the rows are of fewer than two days.
    """
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
    kept = parent.filter(pa.array(~np.isin(hours_of(parent), hours_of(correction))))
    merged = pa.concat_tables([kept, correction])
    return merged.take(pa.array(np.argsort(hours_of(merged), kind="stable"))).combine_chunks(), kept.num_rows


def build_payload(
    span: int,
    version: int,
    parent: SpanVersion | None,
    rows: pa.Table,
    address: str,
    from_parent: int,
    checked: CheckedRows,
    source: SourceRecord,
    *,
    eval_fraction: float,
    data_format: DataFormat,
) -> dict[str, bytes]:
    """Return the content of every file of a version by its path in it; a DataError for fewer than two days.

    `rows` are in time order, `address` is their content address, `from_parent` says how many come from the `parent`,
    the version that this one corrects; `checked` and `source` are the upload's.
    """
    train, evaluation = split_by_time(rows, eval_fraction, source.location)
    payload = {**_files("train", train, data_format), **_files("eval", evaluation, data_format)}
    if checked.rejected.num_rows:
        payload[QUARANTINE] = quarantine_csv(checked.rejected)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION if source.mapping else 2,
        format=data_format,
        span=span,
        version=version,
        created_at=datetime.now(UTC),
        source=source,
        feature_contract_sha256=contract_sha256(),
        content_sha256=address,
        parent=None if parent is None else VersionNumber(span=parent.span, version=parent.version),
        eval_fraction=eval_fraction,
        rows=RowCounts(
            total=rows.num_rows,
            train=train.num_rows,
            eval=evaluation.num_rows,
            read=checked.total,
            rejected=checked.rejected.num_rows,
            from_parent=from_parent,
        ),
        rejected_by_reason=checked.reasons,
        time_range={"train": time_range(train), "eval": time_range(evaluation)},
        files={
            name: FileRecord(size=len(content), sha256=hashlib.sha256(content).hexdigest())
            for name, content in sorted(payload.items())
        },
    )
    return {**payload, MANIFEST: render_manifest(manifest)}


def manifest_mismatch(manifest: Manifest, rows: Mapping[Split, pa.Table], quarantine: bytes | None) -> str:
    """Return what a manifest says that the rows of each split and the quarantine do not, in words; "" if they agree."""
    counts = manifest.rows
    for split, table in rows.items():
        promised = counts.train if split == "train" else counts.eval
        if table.num_rows != promised:
            return f"{promised:,} rows in the split {split}, which holds {table.num_rows:,}"
        if time_range(table) != manifest.time_range[split]:
            return f"other first and last hours of the split {split}"
    rejected = sum(1 for _ in csv.DictReader(io.StringIO((quarantine or b"").decode(), newline="")))
    if rejected != counts.rejected:
        return f"{counts.rejected:,} rejected rows, while {rejected:,} are in quarantine"
    if content_sha256(pa.concat_tables(rows.values())) != manifest.content_sha256:
        return "another content address"
    return ""


def _files(split: Split, rows: pa.Table, data_format: DataFormat) -> dict[str, bytes]:
    count = -(-rows.num_rows // ROWS_PER_FILE)
    stems = ["data"] if count == 1 else [f"data-{index:05d}-of-{count:05d}" for index in range(count)]
    render = parquet_bytes if data_format == "parquet" else csv_bytes
    return {
        f"{split}/{stem}.{data_format}": render(rows.slice(index * ROWS_PER_FILE, ROWS_PER_FILE))
        for index, stem in enumerate(stems)
    }
