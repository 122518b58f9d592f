"""A SQL query, through SQLAlchemy; SQLite files are opened read-only."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

import pyarrow as pa

from bike_pipeline import features
from bike_pipeline.data.manifest import SourceRecord
from bike_pipeline.data.sources.source_rows import SourceRows, check_columns, numbered
from bike_pipeline.errors import DataError, MissingExtraError
from bike_pipeline.storage.remote_files import without_credentials

_CHUNK_ROWS = 100_000
# Where the package is not called like its module.
_PACKAGES = {
    "psycopg": "psycopg[binary]",
    "psycopg2": "psycopg2-binary",
    "MySQLdb": "mysqlclient",
    "cx_Oracle": "oracledb",
}


def split_query(source: str, query: str | None) -> tuple[str, str]:
    """Return a database address without its `query=` parameter, and the one SQL text, from there or given apart."""
    parts = urlsplit(source)
    parameters = parse_qs(parts.query, keep_blank_values=True)
    inside = parameters.pop("query", [])
    # Not urlunsplit: it drops the empty host of sqlite:///file.db.
    bare = source.partition("?")[0] + (f"?{urlencode(parameters, doseq=True)}" if parameters else "")
    given = [text for text in (*inside, query) if text]
    if len(given) != 1:
        what = "two queries are given" if given else "a database needs a query"
        raise DataError(what, where=_location(bare), fix="give one: --query 'SELECT … ORDER BY dteday, hr'")
    return bare, given[0]


def read_sql_query(source: str, query: str | None) -> tuple[SourceRows, SourceRecord]:
    """Return the rows of a query. Rows must come in time order, so the query should end in ORDER BY dteday, hr.

    Nothing is written: SQLite files are opened read-only, and no transaction is committed.
    """
    import sqlalchemy
    from sqlalchemy import exc

    bare, text = split_query(source, query)
    location = _location(bare)
    engine = None
    try:
        engine = _engine(bare, location)
        with engine.connect() as connection:
            result = connection.execution_options(stream_results=True).execute(sqlalchemy.text(text))
            if not result.returns_rows:
                raise DataError(
                    "the query returns no rows: it is not a SELECT", where=location, fix="correct the query"
                )
            names = list(result.keys())
            ignored = check_columns(names, f"{location} (query)")
            table = _fetch(result, names, location)
    except (exc.NoSuchModuleError, ModuleNotFoundError) as error:
        dialect = bare.partition(":")[0].partition("+")[0]
        module = error.name if isinstance(error, ModuleNotFoundError) and error.name else ""
        package = _PACKAGES.get(module, module) or f"a SQLAlchemy dialect for {dialect}"
        raise MissingExtraError(
            f"the driver of this database is not installed ({error})",
            where=location,
            fix=f"install {package} in the project's environment",
        ) from error
    except exc.ArgumentError:
        # The message of SQLAlchemy repeats the address with its password.
        raise DataError(
            "it is not a database address", where=location, fix="write dialect://user@host/database"
        ) from None
    except exc.SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise DataError(
            f"the query failed ({reason})", where=location, fix="check the query and the address"
        ) from error
    finally:
        if engine is not None:
            engine.dispose()
    description = SourceRecord(kind="sql", location=location, query=text, ignored_columns=ignored)
    return numbered(table, location, ignored), description


def _location(url: str) -> str:
    # SQLite's address has no host and no user; its path is all there is.
    return url.partition("?")[0] if url.startswith("sqlite") else without_credentials(url)


def _engine(url: str, location: str) -> Any:
    import sqlalchemy
    from sqlalchemy.pool import NullPool

    if not url.startswith("sqlite"):
        return sqlalchemy.create_engine(url, poolclass=NullPool)
    path = Path(unquote(url.partition("?")[0].partition("://")[2].removeprefix("/"))).expanduser()
    if not path.is_file():
        # SQLite would make an empty database here.
        raise DataError(
            "no such database file", where=location, fix="check the path: sqlite:///relative or sqlite:////absolute"
        )

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)

    return sqlalchemy.create_engine("sqlite://", creator=connect, poolclass=NullPool)


def _fetch(result: Any, names: list[str], location: str) -> pa.Table:
    places = [names.index(name) for name in features.COLUMNS]
    chunks: list[list[Any]] = [[] for _ in places]
    for part in result.partitions(_CHUNK_ROWS):
        for chunk, place in zip(chunks, places, strict=True):
            chunk.append(_array([row[place] for row in part]))
    if not chunks[0]:
        raise DataError("the query returns no rows", where=location, fix="check the query")
    columns = {}
    for name, chunk in zip(features.COLUMNS, chunks, strict=True):
        kinds = {array.type for array in chunk if not pa.types.is_null(array.type)}
        # SQLite allows another type in each row: such a column is read as text, and the contract checks each value.
        target = kinds.pop() if len(kinds) == 1 else pa.string()
        columns[name] = pa.chunked_array([array.cast(target) for array in chunk], type=target)
    return pa.table(columns)


def _array(values: list[Any]) -> Any:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([None if value is None else str(value) for value in values], type=pa.string())
