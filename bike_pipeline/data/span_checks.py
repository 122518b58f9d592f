"""What a version's manifest says of its rows, held against the rows themselves."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

from bike_pipeline.data.manifest import Manifest, Split
from bike_pipeline.data.payload import MANIFEST
from bike_pipeline.data.rows import content_sha256, time_range
from bike_pipeline.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa


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


def missing_manifest(span: int, version: int, where: str, *, at_once: bool) -> DataError:
    """Return the error for a version that has no manifest.

    `at_once` says whether versions appear with all of their files there (see `storage.files.Files`).
    """
    why = "it was taken away" if at_once else "it was taken away, or an ingest did not come to its end"
    return DataError(
        f"version {version} of span {span} has no {MANIFEST}: {why}",
        where=where,
        fix="restore it from a backup, or move the folder away",
    )
