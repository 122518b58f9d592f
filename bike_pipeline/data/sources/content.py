"""One stored file to rows: the content says what it is (Parquet, gzip, CSV), so a wrong suffix does no harm."""

from __future__ import annotations

import gzip
import hashlib
import re
import zlib
from collections.abc import Iterable

from bike_pipeline.data.sources.csv_file import read_csv
from bike_pipeline.data.sources.parquet_file import MAGIC, read_parquet
from bike_pipeline.data.sources.source_rows import SourceDescription, SourceFile, SourceRows, join_rows
from bike_pipeline.errors import DataError

SUFFIXES = (".csv", ".csv.gz", ".parquet")


def read_content(content: bytes, name: str) -> SourceRows:
    """Return the rows of one file.

    Args:
        content: the file as it is stored.
        name: its name without credentials, for messages and the quarantine.

    Raises:
        DataError: it is damaged, empty, or does not fit the feature contract.
    """
    if content.startswith(MAGIC):
        return read_parquet(content, name)
    if content.startswith(b"PK\x03\x04"):
        raise DataError("it is a zip archive, not CSV text", where=name, fix="unpack it first")
    if content.startswith(b"\x1f\x8b"):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(
                f"the gzip file is damaged or cut short ({error})", where=name, fix="copy it again"
            ) from error
    elif name.endswith(".gz") and content:
        raise DataError("it is called .gz and is not gzip", where=name, fix="copy it again or rename it")
    return read_csv(content, name)


def by_number(name: str) -> list[tuple[int, int | str]]:
    """Return a sort key that puts part-2 before part-10."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"([0-9]+)", name) if part]


def read_contents(
    contents: Iterable[tuple[str, bytes]], kind: str, location: str
) -> tuple[SourceRows, SourceDescription]:
    """Return the rows of several files in the order given, and the description of the whole.

    Args:
        contents: name (without credentials) and content of each file.
        kind: what `SourceDescription.kind` says.
        location: path or address without credentials.

    Raises:
        DataError: a file is damaged, empty, or does not fit the feature contract.
    """
    parts, files = [], []
    for name, content in contents:
        parts.append(read_content(content, name))
        files.append(SourceFile(name, len(content), hashlib.sha256(content).hexdigest()))
    rows = join_rows(parts, location)
    return rows, SourceDescription(kind, location, files=tuple(files), ignored_columns=rows.ignored)
