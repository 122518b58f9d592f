"""The inputs of a batch: which files they are, and their rows, a block of columns at a time."""

from __future__ import annotations

import csv
import gzip
import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bike_pipeline import features
from bike_pipeline.data.sources.content import PARQUET, SUFFIXES, select_files
from bike_pipeline.data.sources.csv_file import read_csv
from bike_pipeline.errors import BikePipelineError, DataError
from bike_pipeline.serving.records import FROM_DATE
from bike_pipeline.storage.remote_files import open_file_system, without_credentials

# Rows, and bytes of text, that are worked on at once: they bound memory.
_ROWS, _TEXT = 65_536, 8 << 20


class Block(NamedTuple):
    """Rows in columns, (rows,) each, their line (CSV) or row number (Parquet), and broken lines with their reason."""

    columns: dict[str, Any]
    lines: npt.NDArray[np.int64]
    broken: Sequence[tuple[int, str]] = ()


@contextmanager
def _one_error(source: str) -> Iterator[None]:
    try:
        yield
    except BikePipelineError:
        raise
    except Exception as error:  # noqa: BLE001 - each storage raises its own kinds
        where, fix = without_credentials(source), "check the address, the credentials and the network"
        raise DataError(f"it cannot be read ({error})", where=where, fix=fix) from None


def input_files(source: str) -> list[str]:
    """Return the addresses of a file, of a folder's CSV and Parquet files, or of what a pattern matches, in order.

    `source` is a local path or any address that fsspec reads (s3://, gs://, …). A DataError if there is nothing.
    """
    with _one_error(source):
        remote = "://" in source
        files, path = open_file_system(source if remote else str(Path(source).expanduser().absolute()))
        if files.isdir(path):
            kinds = {str(e["name"]).rstrip("/").rpartition("/")[2]: e["type"] for e in files.ls(path, detail=True)}
            names, _ = select_files({name: kind == "directory" for name, kind in kinds.items()}, source)
            found = [f"{path.rstrip('/')}/{name}" for name in names]
        elif files.isfile(path):
            found = [path]
        else:
            found = sorted(str(name) for name in files.glob(path) if str(name).lower().endswith(SUFFIXES))
        if not found:
            raise DataError(f"there is no {', '.join(SUFFIXES)} file", where=source, fix="check the path or pattern")
        return [str(files.unstrip_protocol(name)) if remote else name for name in found]


@contextmanager
def local_input(address: str) -> Iterator[tuple[Path, str]]:
    """Have an input as a local file, and its SHA-256; one of object storage is copied for the block."""
    with tempfile.TemporaryDirectory(prefix="bike-batch-") as folder:
        path = Path(folder, "input") if "://" in address else Path(address)
        with _one_error(address):
            if "://" in address:
                files, remote = open_file_system(address)
                files.get_file(remote, str(path))
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        yield path, sha256


def blocks(path: Path, name: str) -> Iterator[Block]:
    """Yield the rows of a Parquet or CSV file (plain or gzip); a DataError if it is none, or lacks a column."""
    with path.open("rb") as file:
        start = file.read(4)
    try:
        yield from _parquet(path, name) if start == PARQUET else _csv(path, name, packed=start[:2] == b"\x1f\x8b")
    except (pa.ArrowInvalid, OSError, EOFError) as error:
        raise DataError(f"it is damaged or cut short ({error})", where=name, fix="write it again") from None


def _parquet(path: Path, name: str) -> Iterator[Block]:
    with pq.ParquetFile(path, pre_buffer=False) as file:
        row = 1
        for batch in file.iter_batches(_ROWS, columns=_wanted(file.schema_arrow.names, name), use_threads=False):
            lines = np.arange(row, row + len(batch), dtype=np.int64)
            yield Block(dict(zip(batch.schema.names, map(_plain, batch.columns), strict=True)), lines)
            row += len(batch)


def _plain(column: Any) -> Any:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _csv(path: Path, name: str, *, packed: bool) -> Iterator[Block]:
    """Yield blocks of whole lines, each cut into fields by the reader of sources, under the file's own header."""
    with gzip.open(path, "rb") if packed else path.open("rb") as file:
        header = file.readline().removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n") + b"\n"
        names = [cell.strip() for cell in next(csv.reader([header.decode("utf-8", "replace")]), [])]
        named = {column: (column,) for column in _wanted(names, name)}
        before = 0
        while text := file.read(_TEXT) + file.readline():
            if text.strip():
                rows = read_csv(header + text, name, named)
                broken = [(line.line + before, line.reason) for line in rows.broken]
                yield Block({column: rows.table[column] for column in named}, rows.lines + before, broken)
            before += text.count(b"\n")


def _wanted(names: Sequence[str], where: str) -> list[str]:
    """Return which columns of a file are read; a DataError if one that every row needs is not there."""
    stood_for = FROM_DATE if features.DATE in names else ()
    missing = [f.name for f in features.REQUIRED_INPUTS if f.name not in (*names, *stood_for)]
    if missing:
        fix = f"a row needs what the model reads; {features.DATE} stands for {', '.join(FROM_DATE)}"
        raise DataError(f"it has no column {', '.join(missing)}", where=where, fix=fix)
    return [name for name in (features.DATE, *(f.name for f in features.MODEL_INPUTS)) if name in names]
