"""One stored file to rows: the content says what it is (Parquet, gzip, CSV), so a wrong suffix does no harm."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bike_pipeline import features
from bike_pipeline.data.manifest import SourceFileRecord, SourceRecord
from bike_pipeline.data.sources.csv_file import check_text, read_csv
from bike_pipeline.data.sources.source_rows import SourceRows, check_columns, join_rows, numbered
from bike_pipeline.errors import DataError

PARQUET = b"PAR1"
# From a file's content and its name, without credentials, to its rows.
ReadContent = Callable[[bytes, str], SourceRows]
SUFFIXES = (".csv", ".csv.gz", ".parquet")
_MOST_NAMED = 3
# The rows of the data set unpack to 4.5 times their size.
_MOST_TIMES = 200
_BLOCK = 1 << 20


def read_content(content: bytes, name: str) -> SourceRows:
    """Return the rows of one stored file; a DataError if it is damaged, empty, or does not fit the feature contract.

    `name` is without credentials; messages and the quarantine carry it.
    """
    if content.startswith(PARQUET):
        return read_parquet(content, name)
    return read_csv(decompressed(content, name), name)


def read_parquet(content: bytes, name: str) -> SourceRows:
    """Read the columns of the feature contract; a DataError if it is damaged, has no row, or other columns."""
    try:
        # Arrow's reading threads can outlive the read and then abort a process that ends at once (arrow#34314).
        file = pq.ParquetFile(pa.BufferReader(content), pre_buffer=False)
        ignored = check_columns(file.schema_arrow.names, name)
        table = file.read(columns=list(features.COLUMNS), use_threads=False).select(list(features.COLUMNS))
    except (pa.ArrowInvalid, OSError) as error:
        raise _not_whole(error, name) from error
    for place, column in enumerate(table.columns):
        if pa.types.is_dictionary(column.type):
            table = table.set_column(place, table.column_names[place], column.cast(column.type.value_type))
    if not table.num_rows:
        raise _without_rows(name)
    return numbered(table, name, ignored)


def records_from_parquet(content: bytes, name: str) -> list[dict[str, Any]]:
    """Return the rows of a Parquet file, whatever its columns; a DataError if it is damaged or has no row."""
    try:
        # Arrow's reading threads can outlive the read and then abort a process that ends at once (arrow#34314).
        found = pq.ParquetFile(pa.BufferReader(content), pre_buffer=False).read(use_threads=False).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise _not_whole(error, name) from error
    if not found:
        raise _without_rows(name)
    return list(found)


def _not_whole(error: Exception, name: str) -> DataError:
    return DataError(f"it is not a whole Parquet file ({error})", where=name, fix="write it again")


def _without_rows(name: str) -> DataError:
    return DataError("it has columns and no rows", where=name, fix="check the export that wrote it")


def decompressed(content: bytes, name: str) -> bytes:
    """Return a text file's content, decompressed if it is gzip; a DataError if it is damaged or a zip archive."""
    if content.startswith(b"PK\x03\x04"):
        raise DataError("it is a zip archive, not CSV text", where=name, fix="unpack it first")
    if content.startswith(b"\x1f\x8b"):
        try:
            content = _unpacked(content, name)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(
                f"the gzip file is damaged or cut short ({error})", where=name, fix="copy it again"
            ) from error
    elif name.lower().endswith(".gz") and content:
        raise DataError("it is called .gz and is not gzip", where=name, fix="copy it again or rename it")
    return content


def _unpacked(content: bytes, name: str) -> bytes:
    """Return what a gzip file holds, which is never held where it is much larger than rows of text come to."""
    packed, parts, size = io.BytesIO(content), [], 0
    with gzip.GzipFile(fileobj=packed) as file:
        while block := file.read(_BLOCK):
            size += len(block)
            if size > _MOST_TIMES * packed.tell() + _BLOCK:
                raise DataError(
                    f"it unpacks to more than {_MOST_TIMES} times its size, as no rows do",
                    where=name,
                    fix="send it unpacked",
                )
            parts.append(block)
    return b"".join(parts)


def text_of(content: bytes, name: str) -> str:
    """Return the text of a file of records: UTF-8 with or without a byte order mark, plain or gzip."""
    if content.startswith(PARQUET):
        raise DataError("it is a Parquet file, not JSON or CSV", where=name, fix="export it as CSV")
    text = decompressed(content, name)
    check_text(text, name)
    return text.decode("utf-8-sig")


def select_files(entries: Mapping[str, bool], where: str) -> tuple[list[str], tuple[str, ...]]:
    """Return the CSV and Parquet files of a folder in the order in which they are read, and what else is in it.

    `entries` are the names in it, and which of them are folders. The case of a suffix does not matter, and numbers in
    names count as numbers. Hidden names and the marks that engines leave (`_SUCCESS`) are not among the rest.

    Raises:
        DataError: there is nothing to read, or columns are laid out as folders.
    """
    files = sorted(name for name, is_folder in entries.items() if not is_folder)
    folders = sorted(entries.keys() - set(files))
    if laid_out := [name for name in folders if "=" in name]:
        more = ", …" if len(laid_out) > _MOST_NAMED else ""
        raise DataError(
            f"its columns are laid out as folders ({', '.join(laid_out[:_MOST_NAMED])}{more}), which are not read",
            where=where,
            fix="write one file, or one folder of files, with every column in each",
        )
    chosen = [name for name in files if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
    others = [name for name in (*files, *(f"{name}/" for name in folders)) if name not in chosen]
    left = tuple(name for name in others if not name.startswith((".", "_")))
    if not chosen:
        more = ", …" if len(left) > _MOST_NAMED else ""
        holds = f"; it holds {', '.join(left[:_MOST_NAMED])}{more}" if left else ""
        raise DataError(f"the folder holds no {', '.join(SUFFIXES)} file{holds}", where=where, fix="check the address")
    return sorted(chosen, key=_by_number), left


def _by_number(name: str) -> list[tuple[int, int | str]]:
    """Return a sort key that puts part-2 before part-10."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"([0-9]+)", name) if part]


def read_contents(
    contents: Iterable[tuple[str, bytes]],
    kind: str,
    location: str,
    skipped: tuple[str, ...] = (),
    read: ReadContent = read_content,
) -> tuple[SourceRows, SourceRecord]:
    """Return the rows of several files in the order given, each a name (without credentials) and its content.

    `kind` and `location` are `SourceRecord`'s, `skipped` is what else there is and is not read, `read` reads one.
    """
    parts, files = [], []
    for name, content in contents:
        parts.append(read(content, name))
        files.append(SourceFileRecord(name=name, size=len(content), sha256=hashlib.sha256(content).hexdigest()))
    rows = join_rows(parts, location)
    source = SourceRecord(kind=kind, location=location, files=tuple(files), ignored_columns=rows.ignored)
    return replace(rows, skipped=skipped), source
