"""Requests and a source of labels, and nothing else: no run, no span, no model that serves."""

from __future__ import annotations

import csv
import datetime as dt
import io
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from bike_pipeline.data.embedded_dataset import embedded_bytes
from bike_pipeline.errors import ExitCode
from bike_pipeline.monitoring.observations import ObservationStore
from tests.end_to_end.conftest import Product
from tests.monitoring.logged import HOUR, ROW, entry, write

pytestmark = pytest.mark.slow
# Three hours of 1 April 2012 were asked about, and all of that day has labels.
ASKED = (8, 9, 10)
QUERY = "SELECT * FROM hourly WHERE dteday = '2012-04-01' ORDER BY hr DESC"


def rows_of_the_day(ninth: str = "") -> list[dict[str, str]]:
    rows = [r for r in csv.DictReader(io.StringIO(embedded_bytes().decode())) if r["dteday"] == "2012-04-01"]
    if ninth:
        rows[9] |= {"cnt": ninth, "casual": "0", "registered": ninth}
    return rows


def as_csv(folder: Path, rows: list[dict[str, str]]) -> tuple[str, ...]:
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return (str(folder / "labels.csv"),)


def as_sql(folder: Path, rows: list[dict[str, str]]) -> tuple[str, ...]:
    numbers = [name for name in rows[0] if name != "dteday"]
    columns = ", ".join(f"{name} {'NUMERIC' if name in numbers else 'TEXT'}" for name in rows[0])
    with closing(sqlite3.connect(folder / "labels.db")) as database, database:
        database.execute("DROP TABLE IF EXISTS hourly")
        database.execute(f"CREATE TABLE hourly ({columns})")
        places = ", ".join("?" * len(rows[0]))
        database.executemany(f"INSERT INTO hourly VALUES ({places})", [tuple(row.values()) for row in rows])
    return f"sqlite:///{folder}/labels.db", "--query", QUERY


@pytest.mark.parametrize("source", [as_csv, as_sql])
def test_labels_of_a_source_alone_are_joined_to_what_was_asked(source, tmp_path: Path) -> None:
    product = Product(tmp_path / "workspace")
    at = dt.datetime(2012, 4, 1, 12, tzinfo=dt.UTC)
    asked = [entry(f"r{hour}", {**ROW, "hr": hour}, at=at) for hour in ASKED]
    write(product.workspace / "monitoring" / "requests", *asked)
    rows = rows_of_the_day()
    assert len(rows) == 24

    first = product.call("monitor", "ingest", *source(tmp_path, rows), "--json")
    assert first.code == 0, first.err
    assert first.result["labels"] == {"new": 24, "corrected": 0, "known": 0}
    assert first.result["hours"]["known"] == len(ASKED)
    observed = ObservationStore(product.workspace / "monitoring" / "observations").columns()
    labels = {int(hour): float(label) for hour, label in zip(observed["hour"], observed["label"], strict=True)}
    assert labels == {HOUR - 8 + hour: float(rows[hour]["cnt"]) for hour in ASKED}

    again = product.call("monitor", "ingest", *source(tmp_path, rows), "--json")
    assert again.result["labels"] == {"new": 0, "corrected": 0, "known": 24}
    later = product.call("monitor", "ingest", *source(tmp_path, rows_of_the_day("123")), "--json")
    assert later.result["labels"] == {"new": 0, "corrected": 1, "known": 23}
    assert later.result["hours"]["corrected"] == 1

    broken = [{**row, "hr": "24"} for row in rows]
    refused = product.call("monitor", "ingest", *source(tmp_path, broken))
    assert refused.code == ExitCode.DATA
    assert "24" in refused.err
    observed = ObservationStore(product.workspace / "monitoring" / "observations").columns()
    assert 123.0 in np.asarray(observed["label"])
