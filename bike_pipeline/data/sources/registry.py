"""Which source reads which address."""

from __future__ import annotations

import re

from bike_pipeline.data.manifest import SourceRecord
from bike_pipeline.data.sources.http_url import read_http_url
from bike_pipeline.data.sources.local_path import read_local_path
from bike_pipeline.data.sources.object_storage import read_object_storage
from bike_pipeline.data.sources.source_rows import SourceRows
from bike_pipeline.data.sources.sql_query import read_sql_query
from bike_pipeline.errors import DataError
from bike_pipeline.storage.remote_files import without_credentials

# SQLAlchemy's own dialects and those that companies keep ride data in; any dialect+driver:// is SQL as well.
_SQL = re.compile(
    r"sqlite|postgresql|mysql|mariadb|mssql|oracle|redshift|snowflake|bigquery|databricks|duckdb|trino|clickhouse"
    r"|.*\+.*"
)
READERS = {"http": read_http_url, "https": read_http_url}


def read_source(source: str, *, query: str | None = None) -> tuple[SourceRows, SourceRecord]:
    """Return the rows of a source, unchecked, and where they came from.

    A source is a local file or folder, an http(s) address, a SQLAlchemy database address with a SQL query, or any
    address that fsspec reads (s3://, gs://, …).
    """
    scheme, separator, _ = source.partition("://")
    scheme = scheme.lower() if separator else ""
    if _SQL.fullmatch(scheme):
        return read_sql_query(source, query)
    if query is not None:
        raise DataError("a query goes with a database only", where=without_credentials(source), fix="leave --query out")
    if not scheme:
        if not source.strip():
            raise DataError("the source is an empty text", where="SOURCE", fix="name a file, folder or address")
        return read_local_path(source)
    return READERS.get(scheme, read_object_storage)(source)
