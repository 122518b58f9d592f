"""Object storage and everything else that fsspec reads: s3://, gs://, abfs://, hdfs://, memory://, file:// and more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bike_pipeline.data.manifest import SourceRecord
from bike_pipeline.data.sources.content import read_contents, select_files
from bike_pipeline.data.sources.source_rows import SourceRows
from bike_pipeline.errors import DataError
from bike_pipeline.storage.remote_files import open_file_system, without_credentials


def read_object_storage(source: str) -> tuple[SourceRows, SourceRecord]:
    """Return the rows of one file, or of every `*.csv`, `*.csv.gz` and `*.parquet` file of a folder (a prefix)."""
    location = without_credentials(source)
    file_system, path = open_file_system(source)
    try:
        entries = None if file_system.isfile(path) else _entries(file_system, path)
    except Exception as error:  # each storage raises its own kinds
        raise _unreadable(error, location) from error
    if entries is None:
        return read_contents(_contents(file_system, [path], location), "object_storage", location)
    if not entries:
        raise DataError(
            "there is no such file, and no folder with CSV or Parquet files", where=location, fix="check it"
        )
    names = {full.rstrip("/").rpartition("/")[2]: full for full in entries}
    folders = [name for name, full in names.items() if entries[full]]
    files, skipped = select_files(names.keys() - set(folders), folders, location)
    contents = _contents(file_system, [names[name] for name in files], location)
    return read_contents(contents, "object_storage", location, skipped)


def _entries(file_system: Any, path: str) -> dict[str, bool]:
    """Return what a folder holds, by its full name, and whether it is a folder."""
    found = file_system.ls(path, detail=True) if file_system.isdir(path) else []
    # Some storages keep an empty object that stands for the folder itself.
    return {
        str(entry["name"]): entry["type"] == "directory"
        for entry in found
        if str(entry["name"]).rstrip("/") != path.rstrip("/")
    }


def _contents(file_system: Any, paths: list[str], location: str) -> Iterator[tuple[str, bytes]]:
    for path in paths:
        name = path.rpartition("/")[2] if len(paths) > 1 else location
        try:
            content: bytes = file_system.cat_file(path)
        except Exception as error:  # each storage raises its own kinds
            raise _unreadable(error, location) from error
        yield name, content


def _unreadable(error: Exception, location: str) -> DataError:
    reason = str(error) or type(error).__name__
    return DataError(
        f"the storage cannot be read ({reason})",
        where=location,
        fix="check the address, the credentials and the network",
    )
