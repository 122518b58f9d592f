"""Where explanations live: a SQLite file beside what the monitor knows of requests, for the command and for auditors.

Three tables, each with `request_id` and `row`: `explanation` (what was answered, by which version, with its model and
fingerprint), `part` (what each group of inputs adds) and `what_if`. What is there is never changed: a request that was
explained once has the same numbers for ever.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from bike_pipeline.errors import BikePipelineError, MonitoringError, StorageError
from bike_pipeline.monitoring.explanations.answer import AnswerParts, Part, WhatIf

FILE = "explanations.sqlite"
FORMAT = 1
_KEY = "request_id TEXT NOT NULL, row INTEGER NOT NULL, requested_at TEXT NOT NULL"
_SCHEMA = f"""
CREATE TABLE explanation ({_KEY}, version INTEGER NOT NULL, model_id INTEGER NOT NULL, fingerprint TEXT NOT NULL,
  moment TEXT NOT NULL, unit TEXT NOT NULL, answer REAL NOT NULL, base REAL NOT NULL,
  PRIMARY KEY (request_id, row, requested_at));
CREATE TABLE part ({_KEY}, place INTEGER NOT NULL, name TEXT NOT NULL, words TEXT NOT NULL, value REAL NOT NULL,
  PRIMARY KEY (request_id, row, requested_at, place));
CREATE TABLE what_if ({_KEY}, place INTEGER NOT NULL, words TEXT NOT NULL, answer REAL NOT NULL, change REAL NOT NULL,
  PRIMARY KEY (request_id, row, requested_at, place));
PRAGMA user_version = {FORMAT};
"""
_FIX = "move the file away: what is asked again is explained again"
_WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class Explained:
    """What is explained.

    Attributes:
        request_id: the request's id.
        row: which of its rows, from 0.
        requested_at: when it came, UTC, ISO 8601.
        version: the version that answered.
        model_id: the model that it is of.
        fingerprint: of the version's files.
        moment: the hour that was asked about, local, ISO 8601; "" if the request named no day.
        unit: of the answer.
    """

    request_id: str
    row: int
    requested_at: str
    version: int
    model_id: int
    fingerprint: str
    moment: str
    unit: str


@dataclass(frozen=True)
class Explanation:
    """An answer and why it was given."""

    of: Explained
    why: AnswerParts


class ExplanationTable:
    """The table in a folder; nothing is made before something is added."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE

    def find(self, request_id: str, row: int, requested_at: str) -> Explanation | None:
        """Return what is there of a row; None if it was not explained.

        Raises:
            MonitoringError: the file is no such table, or damaged.
            StorageError: it cannot be read.
        """
        if not self.path.exists():
            return None
        key = (request_id, row, requested_at)
        with self._opened() as database:
            found = self._rows(database, f"{_ABOUT}, answer, base", "explanation", key)
            if not found:
                return None
            parts = self._rows(database, "name, words, value", "part", key)
            others = self._rows(database, "words, answer, change", "what_if", key)
        *about, answer, base = found[0]
        why = AnswerParts(answer, base, tuple(Part(*one) for one in parts), tuple(WhatIf(*one) for one in others))
        return Explanation(Explained(*about), why)

    def add(self, made: Explanation) -> Explanation:
        """Add an explanation, and return what is there then: that of another process, if it came first."""
        key = (made.of.request_id, made.of.row, made.of.requested_at)
        with self._opened() as database:
            database.execute("BEGIN IMMEDIATE")
            if not self._rows(database, "1", "explanation", key):
                self._insert(database, "explanation", [(*astuple(made.of), made.why.answer, made.why.base)])
                self._insert(database, "part", [(*key, n, *astuple(one)) for n, one in enumerate(made.why.parts)])
                self._insert(database, "what_if", [(*key, n, *astuple(one)) for n, one in enumerate(made.why.what_ifs)])
            database.execute("COMMIT")
        return self.find(*key) or made

    @staticmethod
    def _rows(database: sqlite3.Connection, wanted: str, table: str, key: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        where = "request_id = ? AND row = ? AND requested_at = ? ORDER BY rowid"
        return database.execute(f"SELECT {wanted} FROM {table} WHERE {where}", key).fetchall()  # noqa: S608

    @staticmethod
    def _insert(database: sqlite3.Connection, table: str, rows: list[tuple[Any, ...]]) -> None:
        if rows:
            database.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)  # noqa: S608

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        where = str(self.path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(self.path, timeout=_WAIT_SECONDS, isolation_level=None)
            with contextlib.closing(database):
                self._check(database)
                yield database
        except BikePipelineError:
            raise
        except sqlite3.OperationalError as error:
            raise StorageError(f"the explanations cannot be read or written ({error})", where=where) from None
        except sqlite3.DatabaseError as error:
            raise MonitoringError(f"the explanations are damaged ({error})", where=where, fix=_FIX) from None

    def _check(self, database: sqlite3.Connection) -> None:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version == 0:
            database.execute("BEGIN IMMEDIATE")
            # Another process may have made it meanwhile.
            if database.execute("PRAGMA user_version").fetchone() == (0,):
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    database.execute(statement)
            database.execute("COMMIT")
        elif version != FORMAT:
            raise MonitoringError(
                f"another release wrote the explanations (format {version})", where=str(self.path), fix=_FIX
            )


_ABOUT = ", ".join(one.name for one in fields(Explained))
