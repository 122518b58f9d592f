"""Where an ML Metadata store is, in one address without a secret, and how to connect to it.

`sqlite:///FILE` or `mysql://HOST:PORT/NAME` (MySQL and MariaDB); `?ca=FILE` names the certificate authority that a
server's certificate must come from.

MLMD 1.21 connects to PostgreSQL too, but makes broken SQL of any text with a backslash and refuses texts of more than
2,704 bytes, which the records of a run hold; so that is not offered.
"""

from __future__ import annotations

import os
import re
import socket
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from ml_metadata import errors as mlmd_errors
from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as pb

from bike_pipeline.errors import MetadataError, first_words, is_of_storage
from bike_pipeline.lineage.store.located_store import LocatedStore, read_only
from bike_pipeline.settings.metadata import METADATA_PASSWORD, METADATA_PASSWORD_FILE, METADATA_USER

# What is raised where the store refuses what it is asked, and where it cannot even be connected to.
StoreError = mlmd_errors.StatusError
STORE_ERRORS = (mlmd_errors.StatusError, RuntimeError)
_DEFAULT_PORT = 3306
# The check reads the whole file, some 300 MB a second; whoever only asks a question waits for no more than this.
_QUICK_BYTES = 64 * 1024 * 1024
# What a server gets to answer, in seconds, before it counts as out of reach.
_PATIENCE = 5.0
# How long the tables of an empty database may take to be made by somebody else, in seconds.
_PATIENCE_FOR_TABLES = 20.0
# What two writers at once may have to repeat, each time after a pause of two seconds on average.
_RETRIES = 10
_MEND_SERVER = "see that it runs and can be reached from here, then run again: finished stages are not repeated"
# How often a store that was found locked is looked at again before it is an error.
_LOOKS = 3
_LOCKED = r"database is locked|SQLITE_BUSY|Concurrent writes aborted|Lock wait timeout|Deadlock found"
# What MLMD and the database libraries say, and what it means: pattern, what is wrong, how to mend it.
_DIAGNOSES = (
    (
        r"version (\d+) is older than library version (\d+)",
        r"it was written by an older release (schema \1, this one needs \2)",
        "back it up, then call `bike-pipeline run --set metadata.upgrade=true` once",
    ),
    (
        r"version (\d+) is greater than library version (\d+)",
        r"it was written by a newer release (schema \1, this one knows \2)",
        "upgrade bike-pipeline",
    ),
    (
        # Before what MLMD concludes from it: a table that it could not look at counts as missing there.
        _LOCKED,
        "another process holds it locked",
        "let the other process end, or use a server for several at once: docs/metadata.md",
    ),
    (
        r"(?s)subset of tables.*(no such table|doesn't exist)|no schema_version can be found",
        "it is half-written: some of its tables are missing",
        "restore it from a backup; or put it aside under another name, for what can be read in it, and run again",
    ),
    (
        r"subset of tables",
        "not all of its tables can be read",
        "see what keeps this user from them (locks, grants), then run again: nothing is known to be missing",
    ),
    (
        r"Unknown database",
        "the server has no such database",
        "the first run makes it: `bike-pipeline run`; or name another one in the settings",
    ),
    (
        r"Access denied",
        "the server refuses this user, or its password",
        f"correct {METADATA_USER} and {METADATA_PASSWORD}, and grant that user the database",
    ),
    (
        r"Lost connection|server has gone away|mysql_real_connect failed|Can't connect",
        "the connection was lost",
        _MEND_SERVER,
    ),
)
_IN_THE_MAKING = re.compile(r"concurrent connection to the empty database|already exists")
_SERVER_ERROR = re.compile(r"mysql_|Failed to establish connection to Metadata storage")


def connection_config(address: str, create: bool = True) -> pb.ConnectionConfig:
    """Return how to connect to a store; `create` makes it. User and password of a server are in the environment.

    That they are not there, or that the address is of another kind, is a MetadataError.
    """
    parts = urlsplit(address)
    config = pb.ConnectionConfig()
    if parts.scheme == "sqlite":
        config.sqlite.filename_uri = unquote(parts.path)
        config.sqlite.connection_mode = (
            pb.SqliteMetadataSourceConfig.READWRITE_OPENCREATE if create else pb.SqliteMetadataSourceConfig.READWRITE
        )
        return config
    if parts.scheme != "mysql" or not parts.hostname:
        raise MetadataError(
            "no address of a metadata store",
            where=address,
            fix="write sqlite:///FILE or mysql://HOST/NAME",
        )
    user, password = account_of(address)
    authority = parse_qs(parts.query).get("ca", [""])[0]
    config.retry_options.max_num_retries = _RETRIES
    mysql = config.mysql
    mysql.host, mysql.port, mysql.database = parts.hostname, parts.port or _DEFAULT_PORT, parts.path[1:]
    mysql.user, mysql.password, mysql.skip_db_creation = user, password, not create
    if authority:
        mysql.ssl_options.ca, mysql.ssl_options.verify_server_cert = authority, True
    return config


def account_of(address: str) -> tuple[str, str]:
    """Return user and password from the environment; a MetadataError if they are not there."""
    user, password = os.environ.get(METADATA_USER), os.environ.get(METADATA_PASSWORD)
    file = os.environ.get(METADATA_PASSWORD_FILE)
    if password is None and file:
        try:
            password = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise MetadataError(
                f"cannot read the password ({reason})", where=file, fix=f"correct {METADATA_PASSWORD_FILE}"
            ) from None
    if not user or password is None:
        raise MetadataError(
            f"{METADATA_USER} and {METADATA_PASSWORD} are not in the environment",
            where=address,
            fix=f"export both (or {METADATA_PASSWORD_FILE}); in a cluster name a secret with them in kubeflow.secrets",
        )
    return user, password


def open_at(address: str, create: bool = False, upgrade: bool = False) -> metadata_store.MetadataStore:
    """Open the store at an address; make it (`create`), bring one of an older release up to this schema (`upgrade`).

    A MetadataError says that there is none, that it cannot be reached, or is damaged, locked or of another release.
    """
    config = connection_config(address, create)
    if config.HasField("sqlite"):
        file = Path(config.sqlite.filename_uri)
        if not create and not (file.is_file() and file.stat().st_size):
            raise MetadataError(
                "the metadata store is empty" if file.is_file() else "there is no metadata store",
                where=config.sqlite.filename_uri,
                fix="run the pipeline first: `bike-pipeline run`",
            )
    else:
        _reach(address)
    patient_until = time.monotonic() + (_PATIENCE_FOR_TABLES if create and not config.HasField("sqlite") else 0.0)
    looks = 0
    while True:
        try:
            opened = LocatedStore(config, enable_upgrade_migration=upgrade)
            break
        except (mlmd_errors.StatusError, RuntimeError) as error:
            # MLMD waits for ten seconds and more; meanwhile the other process may have come to its end.
            if re.search(_LOCKED, str(error)):
                looks += 1
                if looks == _LOOKS or not _is_free(config):
                    raise cannot_open(address, error) from None
                continue
            # Another workspace's first run may be making the tables at this moment.
            if not _IN_THE_MAKING.search(str(error)) or time.monotonic() > patient_until:
                _look_at_the_file(config, whatever_size=True)
                raise cannot_open(address, error) from None
        time.sleep(0.5)
    _look_at_the_file(config, whatever_size=create)
    return opened


def _look_at_the_file(config: pb.ConnectionConfig, *, whatever_size: bool) -> None:
    """Refuse a store whose file is damaged; one that is locked, or large (unless `whatever_size`), is not looked at.

    SQLite keeps no checksums. Its integrity check finds a page that is no page; of a page that only continues a long
    text it says nothing, so every text is looked through for zero bytes, which no record holds.
    """
    file = Path(config.sqlite.filename_uri)
    try:
        if not config.HasField("sqlite") or (file.stat().st_size > _QUICK_BYTES and not whatever_size):
            return
        with closing(read_only(file)) as connection:
            problem = _damage(connection)
    except OSError:
        return
    except sqlite3.DatabaseError as error:
        # Locked, a journal to be rolled back, or no store at all: whoever opens it sees to that, or says it.
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CORRUPT:
            return
        problem = str(error)
    if problem:
        raise MetadataError(
            f"the metadata store is damaged ({problem[:200]})",
            where=str(file),
            fix="restore it from a backup; what it says cannot be relied on",
        )


def _damage(connection: sqlite3.Connection) -> str:
    (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        return str(found).splitlines()[-1]
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for table in tables:
        texts = [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")') if "BLOB" not in row[2].upper()]
        zeros = " OR ".join(f"instr(CAST(\"{name}\" AS BLOB), x'00')" for name in texts)
        if zeros and connection.execute(f'SELECT 1 FROM "{table}" WHERE {zeros} LIMIT 1').fetchone():  # noqa: S608
            return f"a text in its table {table} was overwritten with zeros"
    return ""


def _is_free(config: pb.ConnectionConfig) -> bool:
    """Return whether a store that was locked can be read now; of a server, only another try can tell."""
    if not config.HasField("sqlite"):
        return True
    try:
        with closing(read_only(Path(config.sqlite.filename_uri))) as raw:
            raw.execute("select count(*) from sqlite_master")
    except sqlite3.OperationalError:
        return False
    return True


def _reach(address: str) -> None:
    """Ask for a plain connection: MLMD tells an absent server from a wrong password in no way."""
    parts = urlsplit(address)
    try:
        socket.create_connection((parts.hostname, parts.port or _DEFAULT_PORT), timeout=_PATIENCE).close()
    except OSError as error:
        raise MetadataError(
            f"the metadata server cannot be reached ({error.strerror or error})", where=address, fix=_MEND_SERVER
        ) from None


def _diagnosed(text: str) -> tuple[str, str] | None:
    for pattern, what, fix in _DIAGNOSES:
        found = re.search(pattern, text)
        if found:
            return found.expand(what), fix
    return None


def cannot_open(address: str, error: Exception) -> MetadataError:
    """Return the one line for a store that cannot be opened, from what MLMD said."""
    text = str(error).strip()
    # Somebody answers at the address, so what is wrong is the account or the name; MLMD does not say which.
    if "mysql_real_connect failed" in text:
        text = "Access denied"
    known = _diagnosed(text)
    place = unquote(urlsplit(address).path) if address.startswith("sqlite:") else address
    if known:
        return MetadataError(f"cannot open the metadata store: {known[0]}", where=place, fix=known[1])
    return MetadataError(
        f"cannot open the metadata store ({first_words(error)})",
        where=place,
        fix="it is damaged or of another version: restore it from a backup or choose another one",
    )


def failure_of(error: BaseException) -> MetadataError | None:
    """Return the error for a person if an error in the middle of a run comes from the metadata store; else None."""
    cause: BaseException | None = error
    while cause is not None:
        text = str(cause).strip()
        is_store = isinstance(cause, mlmd_errors.StatusError) or (
            isinstance(cause, RuntimeError) and _SERVER_ERROR.search(text)
        )
        known = _diagnosed(text) if is_store else None
        if known:
            return MetadataError(f"the metadata store: {known[0]}", fix=known[1])
        if isinstance(cause, mlmd_errors.StatusError) and not is_of_storage(cause):
            return MetadataError(
                f"the metadata store refuses what it is asked ({first_words(cause)})",
                fix="see that the store is whole, then run again: finished stages are not repeated; see the log",
            )
        cause = cause.__cause__ or cause.__context__
    return None
