"""Everything that one version holds, as bytes: the splits, the quarantine and the manifest."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from bike_pipeline.data.contract import CheckedRows, contract_sha256
from bike_pipeline.data.manifest import (
    SCHEMA_VERSION,
    DataFormat,
    FileRecord,
    Manifest,
    RowCounts,
    SourceRecord,
    Split,
    TimeRange,
    VersionNumber,
    render_manifest,
)
from bike_pipeline.data.quarantine import quarantine_csv
from bike_pipeline.data.rows import content_sha256, csv_bytes, parquet_bytes, split_by_time, time_range

if TYPE_CHECKING:
    import pyarrow as pa

MANIFEST = "manifest.json"
QUARANTINE = "quarantine.csv"
# Rows of one file at most: what a reader of a split holds in memory, and what one worker of an engine reads at a time.
ROWS_PER_FILE = 250_000


def build_payload(
    number: VersionNumber,
    rows: pa.Table,
    address: str,
    checked: CheckedRows,
    source: SourceRecord,
    *,
    eval_fraction: float,
    data_format: DataFormat,
    parent: VersionNumber | None,
    from_parent: int,
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
        schema_version=SCHEMA_VERSION,
        format=data_format,
        span=number.span,
        version=number.version,
        created_at=datetime.now(UTC),
        source=source,
        feature_contract_sha256=contract_sha256(),
        content_sha256=address,
        parent=parent,
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
        time_range={"train": _range(train), "eval": _range(evaluation)},
        files={
            name: FileRecord(size=len(content), sha256=hashlib.sha256(content).hexdigest())
            for name, content in sorted(payload.items())
        },
    )
    return {**payload, MANIFEST: render_manifest(manifest)}


def manifest_mismatch(manifest: Manifest, rows: Mapping[Split, pa.Table], quarantine: bytes | None) -> str:
    """Return what a manifest says that the rows of each split and the quarantine do not, in words; "" if they agree."""
    import pyarrow as pa

    counts = manifest.rows
    for split, table in rows.items():
        promised = counts.train if split == "train" else counts.eval
        if table.num_rows != promised:
            return f"{promised:,} rows in the split {split}, which holds {table.num_rows:,}"
        if time_range(table) != (manifest.time_range[split].first, manifest.time_range[split].last):
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


def _range(rows: pa.Table) -> TimeRange:
    first, last = time_range(rows)
    return TimeRange(first=first, last=last)
