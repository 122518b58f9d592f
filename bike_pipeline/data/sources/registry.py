"""Which source reads which address."""

from __future__ import annotations

from bike_pipeline.data.manifest import SourceRecord
from bike_pipeline.data.sources.http_url import read_http_url
from bike_pipeline.data.sources.local_path import read_local_path
from bike_pipeline.data.sources.object_storage import read_object_storage
from bike_pipeline.data.sources.source_rows import SourceRows
from bike_pipeline.data.sources.sql_query import read_sql_query
from bike_pipeline.errors import DataError
from bike_pipeline.storage.file_systems import without_credentials

# SQLAlchemy's own dialects and those that companies keep ride data in; any dialect+driver:// is SQL as well.
SQL_DIALECTS = frozenset(
    (
        "sqlite",
        "postgresql",
        "mysql",
        "mariadb",
        "mssql",
        "oracle",
        "redshift",
        "snowflake",
        "bigquery",
        "databricks",
        "duckdb",
        "trino",
        "clickhouse",
    )
)
READERS = {"http": read_http_url, "https": read_http_url}


def read_source(source: str, *, query: str | None = None) -> tuple[SourceRows, SourceRecord]:
    """Return the rows of a source, unchecked, and where they came from.

    Args:
        source: a local file or folder, an http(s) address, a SQLAlchemy database address, or any address that fsspec
            reads (s3://, gs://, …).
        query: the SQL text, for databases.

    Raises:
        DataError: it cannot be read, is empty, or its columns do not fit the feature contract.
        MissingExtraError: what reads this kind of address is not installed.
    """
    scheme, separator, _ = source.partition("://")
    scheme = scheme.lower() if separator else ""
    if scheme.partition("+")[0] in SQL_DIALECTS or "+" in scheme:
        return read_sql_query(source, query)
    if query is not None:
        raise DataError("a query goes with a database only", where=without_credentials(source), fix="leave --query out")
    if not scheme:
        if not source.strip():
            raise DataError("the source is an empty text", where="SOURCE", fix="name a file, folder or address")
        return read_local_path(source)
    return READERS.get(scheme, read_object_storage)(source)
