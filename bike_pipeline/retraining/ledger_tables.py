"""The ledger's tables and its database: a SQLite file, or one of a server.

Every transaction begins by taking the one row of `ledger_lock`, so that writers come one after another on every server;
SQLite takes its own lock at the beginning, where a later upgrade of a read would fail.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.pool import NullPool, StaticPool

from bike_pipeline.errors import StorageError, first_words

SCHEMA = 1
_BUSY_SECONDS = 30
# MySQL's number for a database that does not exist.
_NO_DATABASE = 1049
metadata = sa.MetaData()

lock = sa.Table("ledger_lock", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("schema", sa.Integer))
events = sa.Table(
    "ledger_events",
    metadata,
    sa.Column("identity", sa.String(64), primary_key=True),
    sa.Column("trigger_name", sa.String(64), nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("upload", sa.Text, nullable=False),
    sa.Column("hops", sa.Integer, nullable=False),
    sa.Column("rows", sa.Integer, nullable=False),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("first_seen", sa.Double, nullable=False),
    sa.Column("last_seen", sa.Double, nullable=False),
    sa.Column("sightings", sa.Integer, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("failed_at", sa.Double),
    sa.Column("run", sa.Integer, index=True),
    sa.Column("alone", sa.Boolean, nullable=False),
    sa.Column("details", sa.JSON, nullable=False),
)
runs = sa.Table(
    "ledger_runs",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("why", sa.Text, nullable=False),
    # Of all its events: more than MySQL's TEXT may hold.
    sa.Column("reason", sa.Text(1 << 20), nullable=False),
    sa.Column("triggers", sa.JSON, nullable=False),
    sa.Column("events", sa.JSON, nullable=False),
    sa.Column("claimed_at", sa.Double, nullable=False),
    sa.Column("ended_at", sa.Double),
    sa.Column("fence", sa.Integer, nullable=False),
    sa.Column("closed", sa.Boolean, nullable=False),
    sa.Column("facts", sa.JSON, nullable=False),
)
# Every change of state of an event ("event IDENTITY") or a run ("run NUMBER"); rows are only ever added.
transitions = sa.Table(
    "ledger_transitions",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("subject", sa.String(80), nullable=False, index=True),
    sa.Column("before", sa.String(16), nullable=False),
    sa.Column("after", sa.String(16), nullable=False),
    sa.Column("why", sa.Text, nullable=False),
)
# A decision that stays the same is one row, with when it was made first and last.
decisions = sa.Table(
    "ledger_decisions",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("identity", sa.String(64), nullable=False, index=True),
    sa.Column("fired", sa.Boolean, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("first_at", sa.Double, nullable=False),
    sa.Column("last_at", sa.Double, nullable=False),
    sa.Column("run", sa.Integer),
    sa.Column("price", sa.JSON),
)
# What each trigger said when it was asked last, by source; with `name`, of one file that makes no event.
checks = sa.Table(
    "ledger_checks",
    metadata,
    sa.Column("trigger_name", sa.String(64), primary_key=True),
    sa.Column("source_digest", sa.String(64), primary_key=True),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("at", sa.Double, nullable=False),
)
# Files that a trigger has taken from a place (a digest), so that a new process reads only what is new.
files = sa.Table(
    "ledger_files",
    metadata,
    sa.Column("place", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("mark", sa.String(64), nullable=False),
)
# `lease` and `pause`, and what other parts of the loop keep; JSON.
control = sa.Table(
    "ledger_control",
    metadata,
    sa.Column("name", sa.String(190), primary_key=True),
    sa.Column("content", sa.JSON, nullable=False),
)


class Database:
    """A database with the ledger's tables, which are made where they are not there."""

    def __init__(self, url: str | sa.URL, where: str = "", options: Mapping[str, Any] | None = None) -> None:
        """Use the database of a SQLAlchemy address; `where` is how errors call it, without credentials.

        `options` are for the driver.
        """
        self.where = where or str(url)
        memory = url == "sqlite://"
        self._file = sa.make_url(url).get_backend_name() == "sqlite"
        arguments: dict[str, Any] = {
            "connect_args": {"check_same_thread": False} if self._file else {**(options or {})}
        }
        if not self._file:
            # What another process has written since is read, as soon as this one has the lock.
            arguments["isolation_level"] = "READ COMMITTED"
        self._engine = sa.create_engine(url, poolclass=StaticPool if memory else NullPool, **arguments)
        if self._file:
            sa.event.listen(self._engine, "connect", _connected)
            sa.event.listen(self._engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        with _one_error(self.where), self._engine.begin() as connection:
            if not self._file:
                # Two processes must not make the tables at once; it goes with the connection.
                connection.execute(sa.select(sa.func.get_lock("bike ledger", _BUSY_SECONDS)))
            metadata.create_all(connection)
            found = connection.execute(sa.select(lock.c.schema)).scalar()
            if found is None:
                connection.execute(lock.insert().values(id=1, schema=SCHEMA))
            elif found != SCHEMA:
                raise StorageError(
                    f"the ledger has schema {found}; this release reads schema {SCHEMA}",
                    where=self.where,
                    fix="use the release that wrote it, or a later one",
                )

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """Have a transaction that no other writer's overlaps; an error in the block takes all of it back."""
        with _one_error(self.where), self._engine.begin() as connection:
            if not self._file:
                connection.execute(sa.select(lock.c.schema).where(lock.c.id == 1).with_for_update())
            yield connection


@contextmanager
def _one_error(where: str) -> Iterator[None]:
    try:
        yield
    except exc.SQLAlchemyError as error:
        reason = first_words(getattr(error, "orig", None) or error)
        fix = "check the file or the server, its rights and the space that is left"
        raise StorageError(f"the ledger cannot be used: {reason}", where=where, fix=fix) from error


def of_file(path: Path) -> Database:
    """Return the database in a SQLite file; it and its folder are made."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        from bike_pipeline.storage.atomic_files import storage_error

        raise storage_error(error, "make", path.parent) from error
    return Database(sa.URL.create("sqlite", database=str(path)).render_as_string(), str(path))


def of_server(
    host: str, port: int, database: str, account: tuple[str, str], authority: str = "", where: str = ""
) -> Database:
    """Return the database in MySQL or MariaDB.

    Args:
        host: of the server.
        port: of the server.
        database: its name; it is made where it is not there.
        account: user and password.
        authority: file with the certificate authority that the server's certificate must come from; "" for none.
        where: how errors call it.
    """
    query = {"charset": "utf8mb4"}
    url = sa.URL.create("mysql+pymysql", *account, host, port, database, query)
    trust = {"ssl_ca": authority, "ssl_verify_cert": True, "ssl_verify_identity": True} if authority else {}
    try:
        return Database(url, where, trust)
    except StorageError as error:
        if getattr(getattr(error.__cause__, "orig", None), "args", ())[:1] != (_NO_DATABASE,):
            raise
    # MLMD makes it too, but only with the first run.
    engine = sa.create_engine(url.set(database=""), poolclass=NullPool, connect_args=trust)
    with _one_error(where), engine.begin() as connection:
        name = engine.dialect.identifier_preparer.quote_identifier(database)
        connection.execute(sa.text(f"CREATE DATABASE IF NOT EXISTS {name}"))
    return Database(url, where, trust)


def _connected(connection: object, _record: object) -> None:
    # The driver's own transactions begin too late; see `begin` above.
    connection.isolation_level = None  # type: ignore[attr-defined]
    cursor = connection.cursor()  # type: ignore[attr-defined]
    for pragma in (f"busy_timeout={_BUSY_SECONDS * 1000}", "journal_mode=WAL", "synchronous=FULL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
