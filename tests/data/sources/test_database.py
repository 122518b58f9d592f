"""Rows come from a database, and what it cannot answer is one clear error."""

from __future__ import annotations

import builtins
import sqlite3

import pytest

from bike_pipeline import features
from bike_pipeline.data.contract import check_rows
from bike_pipeline.data.sources.registry import read_source
from bike_pipeline.errors import DataError, MissingExtraError
from tests.data.sources.reading import ACCEPTED, GOOD, ROWS, read


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "rides of the city.db"
    connection = sqlite3.connect(path)
    kinds = {"int": "INTEGER", "float": "REAL", "date": "DATE"}
    columns = ", ".join(f"{feature.name} {kinds[feature.kind]}" for feature in features.FEATURES)
    connection.execute(f"CREATE TABLE rides ({columns}, station TEXT)")
    marks = ", ".join("?" * (len(features.COLUMNS) + 1))
    connection.executemany(f"INSERT INTO rides VALUES ({marks})", [[*row.values(), "x"] for row in ROWS])
    connection.commit()
    connection.close()
    return path


SELECT = "SELECT * FROM rides ORDER BY dteday, hr"


def test_a_query_goes_with_a_database_only(tmp_path):
    (tmp_path / "a.csv").write_bytes(GOOD)
    with pytest.raises(DataError, match="a query goes with a database only"):
        read(tmp_path / "a.csv", query="SELECT 1")


def test_a_sqlite_query_is_read_from_the_address_or_beside_it(database):
    for source, query in (
        (f"sqlite:///{database}", SELECT),
        (f"sqlite:///{database}?query={SELECT.replace(' ', '+')}", None),
    ):
        accepted, description = read(source, query)
        assert accepted.equals(ACCEPTED)
        assert (description.kind, description.query, description.ignored_columns) == ("sql", SELECT, ("station",))
        assert description.location == f"sqlite:///{database}"


def test_a_relative_sqlite_path_is_relative_to_the_folder_of_the_call(database, monkeypatch):
    monkeypatch.chdir(database.parent)
    assert read(f"sqlite:///{database.name}", SELECT)[0].equals(ACCEPTED)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "needs a query"),
        ("SELECT * FROM nowhere", "no such table"),
        ("SELEC 1", "syntax error"),
        ("SELECT hum FROM rides", "columns instant, dteday"),
        (f"{SELECT} LIMIT 0", "the query returns no rows"),
        ("DELETE FROM rides", "readonly|not a SELECT"),
        ("DROP TABLE rides", "readonly|not a SELECT"),
    ],
)
def test_a_query_that_fails_is_one_clear_error_and_changes_nothing(database, query, message):
    before = database.read_bytes()
    with pytest.raises(DataError, match=message) as caught:
        read(f"sqlite:///{database}", query)
    assert "\n" not in str(caught.value)
    assert database.read_bytes() == before


def test_two_queries_are_refused(database):
    with pytest.raises(DataError, match="two queries are given"):
        read(f"sqlite:///{database}?query=SELECT+1", SELECT)


def test_a_file_that_is_no_database_is_one_clear_error(tmp_path):
    (tmp_path / "a.db").write_bytes(GOOD)
    with pytest.raises(DataError, match="file is not a database"):
        read(f"sqlite:///{tmp_path / 'a.db'}", SELECT)


def test_a_column_of_mixed_types_is_checked_value_by_value(database):
    connection = sqlite3.connect(database)
    connection.execute("UPDATE rides SET hum = 'wet' WHERE instant = 3")
    connection.execute("UPDATE rides SET season = NULL WHERE instant = 5")
    connection.commit()
    connection.close()
    rows, _ = read_source(f"sqlite:///{database}", query=SELECT)
    checked = check_rows(rows)
    assert checked.rejected["line"].to_pylist() == [3, 5]
    assert checked.rejected["reasons"].to_pylist() == ["hum: 'wet' is not a number", "season: missing"]


def test_a_missing_database_driver_is_told_without_the_password(monkeypatch):
    real = builtins.__import__

    def without_driver(name, *args, **kwargs):
        if name.partition(".")[0] in ("psycopg", "psycopg2"):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_driver)
    with pytest.raises(MissingExtraError, match="psycopg") as caught:
        read("postgresql+psycopg2://user:secret@host/rides", SELECT)
    assert "secret" not in str(caught.value)
    with pytest.raises(MissingExtraError, match="dialect for nosuch"):
        read("nosuch+driver://user:secret@host/rides", SELECT)
