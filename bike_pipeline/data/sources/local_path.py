"""A local file, or a local folder of files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bike_pipeline.data.manifest import SourceRecord
from bike_pipeline.data.sources.content import read_contents, select_files
from bike_pipeline.data.sources.source_rows import SourceRows
from bike_pipeline.errors import DataError
from bike_pipeline.storage.atomic_files import storage_error


def read_local_path(source: str) -> tuple[SourceRows, SourceRecord]:
    """Return the rows of a file, or of every `*.csv`, `*.csv.gz` and `*.parquet` file of a folder."""
    path = Path(source).expanduser()
    if path.is_dir():
        try:
            entries = [(entry.name, entry.is_dir()) for entry in path.iterdir()]
        except OSError as error:
            raise storage_error(error, "read", path) from error
        names, skipped = select_files(
            [name for name, down in entries if not down], [name for name, down in entries if down], source
        )
        paths = [path / name for name in names]
        return read_contents(_contents(paths), "folder", str(path.absolute()), skipped)
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
