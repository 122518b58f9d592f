"""Whether the file of a metadata store is whole: what SQLite itself does not notice while it reads.

SQLite keeps no checksums. Its integrity check finds a page that is no page; of a page that only continues a long text
it says nothing, so every text is looked through for zero bytes, which no record holds.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from bike_pipeline.errors import MetadataError

# The check reads the whole file, some 300 MB a second; whoever only asks a question does not wait for more than this.
QUICK_BYTES = 64 * 1024 * 1024
_RESTORE = "restore it from a backup; what it says cannot be relied on"


def check(file: Path, *, whatever_size: bool = False) -> None:
    """Refuse a store whose file is damaged.

    A file that somebody else holds locked is not looked at; nor is a large one, unless `whatever_size`.

    Raises:
        MetadataError: it is damaged.
    """
    try:
        if not whatever_size and file.stat().st_size > QUICK_BYTES:
            return
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=1.0)) as connection:
            problem = _problem(connection)
    except OSError:
        return
    except sqlite3.DatabaseError as error:
        # Locked, a journal to be rolled back, or no store at all: whoever opens it sees to that, or says it.
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CORRUPT:
            return
        problem = str(error)
    if problem:
        raise _damaged(file, problem)


def _problem(connection: sqlite3.Connection) -> str:
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


def _damaged(file: Path, problem: str) -> MetadataError:
    return MetadataError(f"the metadata store is damaged ({problem[:200]})", where=str(file), fix=_RESTORE)
