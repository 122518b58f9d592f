"""A local file, or a local folder of files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bike_pipeline.data.local_files import storage_error
from bike_pipeline.data.sources.content import SUFFIXES, by_number, read_contents
from bike_pipeline.data.sources.source_rows import SourceDescription, SourceRows
from bike_pipeline.errors import DataError


def read_local_path(source: str) -> tuple[SourceRows, SourceDescription]:
    """Return the rows of a file, or of every `*.csv`, `*.csv.gz` and `*.parquet` file of a folder.

    A folder's files are read in the order of their names with numbers compared as numbers; folders in it and hidden
    files are left alone.

    Raises:
        DataError: there is no such file, the folder holds none, or one does not fit the feature contract.
        StorageError: a file cannot be read.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        found = [p for p in path.iterdir() if p.is_file() and p.name.endswith(SUFFIXES) and not p.name.startswith(".")]
        if not found:
            raise DataError(f"the folder holds no {', '.join(SUFFIXES)} file", where=source, fix="check the path")
        found.sort(key=lambda p: by_number(p.name))
        return read_contents(_contents(found), "folder", str(path.absolute()))
    if not path.exists():
        raise DataError("no such file or folder", where=source, fix="check the path")
    return read_contents(_contents([path]), "file", str(path.absolute()))


def _contents(paths: list[Path]) -> Iterator[tuple[str, bytes]]:
    for path in paths:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise storage_error(error, "read", path) from error
        yield path.name if len(paths) > 1 else str(path), content
