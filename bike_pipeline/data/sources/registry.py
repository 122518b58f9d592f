"""Sources of rows, and which of them reads which address; that of databases is in `sql_query`."""

from __future__ import annotations

import base64
import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from bike_pipeline.data.manifest import SourceRecord
from bike_pipeline.data.sources.content import ReadContent, read_content, read_contents, select_files
from bike_pipeline.data.sources.feast_repository import read_feast
from bike_pipeline.data.sources.source_rows import SourceRows
from bike_pipeline.data.sources.sql_query import read_sql_query
from bike_pipeline.errors import DataError
from bike_pipeline.storage.atomic_files import one_error
from bike_pipeline.storage.remote_files import open_file_system, without_credentials

# SQLAlchemy's own dialects and those that companies keep ride data in; any dialect+driver:// is SQL as well.
_SQL = re.compile(
    r"sqlite|postgresql|mysql|mariadb|mssql|oracle|redshift|snowflake|bigquery|databricks|duckdb|trino|clickhouse"
    r"|.*\+.*"
)
# For each answer of an HTTP server.
_SECONDS = 60.0


def read_source(
    source: str, *, query: str | None = None, read: ReadContent = read_content
) -> tuple[SourceRows, SourceRecord]:
    """Return the rows of a source, unchecked, and where they came from; `read` returns those of a file.

    A source is a local file or folder, an http(s) address, a SQLAlchemy database address with a SQL query, a feature
    view or service of Feast (feast://), or any address that fsspec reads (s3://, gs://, …).
    """
    scheme, separator, _ = source.partition("://")
    scheme = scheme.lower() if separator else ""
    if _SQL.fullmatch(scheme):
        return read_sql_query(source, query)
    location = without_credentials(source) if scheme else source
    if query is not None:
        raise DataError("a query goes with a database only", where=location, fix="leave --query out")
    if not source.strip():
        raise DataError("the source is an empty text", where="SOURCE", fix="name a file, folder or address")
    if scheme == "feast":
        return read_feast(source, read)
    if scheme in ("http", "https"):
        return read_contents([(location, download(source))], "http", location, read=read)
    return _read_object_storage(source, location, read) if scheme else _read_local_path(source, read)


def _read_local_path(source: str, read_one: ReadContent) -> tuple[SourceRows, SourceRecord]:
    """Return the rows of a file, or of every `*.csv`, `*.csv.gz` and `*.parquet` file of a folder."""

    def read(file: Path) -> bytes:
        with one_error("read", file):
            return file.read_bytes()

    path = Path(source).expanduser()
    if not path.is_dir():
        if not path.exists():
            raise DataError("no such file or folder", where=source, fix="check the path")
        return read_contents([(str(path), read(path))], "file", str(path.absolute()), read=read_one)
    with one_error("read", path):
        entries = {entry.name: entry.is_dir() for entry in path.iterdir()}
    names, skipped = select_files(entries, source)
    contents = ((name if len(names) > 1 else str(path / name), read(path / name)) for name in names)
    return read_contents(contents, "folder", str(path.absolute()), skipped, read_one)


def _read_object_storage(source: str, location: str, read_one: ReadContent) -> tuple[SourceRows, SourceRecord]:
    """Return the rows of a file, or of every `*.csv`, `*.csv.gz` and `*.parquet` file of a folder (a prefix).

    It is read through fsspec: s3://, gs://, abfs://, hdfs://, memory://, file:// and more.
    """
    file_system, path = open_file_system(source)

    def read(file: str) -> bytes:
        with _one_error(location):
            content: bytes = file_system.cat_file(file)
            return content

    with _one_error(location):
        entries = None if file_system.isfile(path) else file_system.isdir(path) and file_system.ls(path, detail=True)
    if entries is None:
        return read_contents([(location, read(path))], "object_storage", location, read=read_one)
    # Some storages keep an empty object that stands for the folder itself.
    found = {name: entry for entry in entries or () if (name := str(entry["name"]).rstrip("/")) != path.rstrip("/")}
    if not found:
        raise DataError(
            "there is no such file, and no folder with CSV or Parquet files", where=location, fix="check it"
        )
    paths = {full.rpartition("/")[2]: full for full in found}
    names, skipped = select_files({n: found[full]["type"] == "directory" for n, full in paths.items()}, location)
    contents = ((name if len(names) > 1 else location, read(paths[name])) for name in names)
    return read_contents(contents, "object_storage", location, skipped, read_one)


@contextmanager
def _one_error(location: str) -> Iterator[None]:
    """Raise whatever a storage refuses in the block as a DataError."""
    try:
        yield
    except Exception as error:  # each storage raises its own kinds
        raise DataError(
            f"the storage cannot be read ({str(error) or type(error).__name__})",
            where=location,
            fix="check the address, the credentials and the network",
        ) from error


def download(url: str) -> bytes:
    """Return the whole body behind an http(s) address; user and password in it are sent as basic authentication."""
    where = without_credentials(url)
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise DataError("it is not an http address", where=where, fix="check the address")
        bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
        request = urllib.request.Request(bare, headers={"User-Agent": "bike-pipeline"})  # noqa: S310 - checked above
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            # Not add_header: that one would follow a redirect to another server.
            request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(pair.encode()).decode())
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
            content: bytes = answer.read()
        return content
    except urllib.error.HTTPError as error:
        fix = "check user and password" if error.code in (401, 403) else "check the address"
        if error.code >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
            fix = "run it again later"
        raise DataError(f"the server answers {error.code} {error.reason}", where=where, fix=fix) from None
    except http.client.IncompleteRead as error:
        got = len(error.partial)
        raise DataError(f"the server broke off after {got} bytes", where=where, fix="run it again") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(
            f"the server cannot be reached ({reason})", where=where, fix="check the address and the network connection"
        ) from None
