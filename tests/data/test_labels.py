from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from bike_pipeline.data.labels import read_labels
from bike_pipeline.errors import DataError
from tests.data.making import Row, make_rows, to_csv

NOW = dt.datetime(2013, 1, 1)


def written(folder: Path, **files: list[Row]) -> str:
    folder.mkdir(exist_ok=True)
    for name, rows in files.items():
        (folder / f"{name}.csv").write_bytes(to_csv(rows))
    return str(folder)


def test_rows_come_in_any_order_in_several_files_and_again(tmp_path: Path) -> None:
    rows = make_rows(days=3)
    source = written(tmp_path / "up", a=rows[40:][::-1], b=rows[:45])
    table, origin = read_labels(source, None, NOW)
    assert table.column("instant").to_pylist() == [int(row["instant"]) for row in rows]
    assert table.column("cnt").to_pylist() == [int(row["cnt"]) for row in rows]
    assert origin.location == source


def test_two_labels_of_one_hour_are_refused_with_both(tmp_path: Path) -> None:
    rows = make_rows(days=1)
    other = {**rows[7], "casual": str(int(rows[7]["casual"]) + 1), "cnt": str(int(rows[7]["cnt"]) + 1)}
    with pytest.raises(DataError, match=rf"2011-01-01 07:00 stands there twice, with cnt {rows[7]['cnt']}") as error:
        read_labels(written(tmp_path / "up", a=[*rows, other]), None, NOW)
    assert other["cnt"] in str(error.value)
    colder = {**rows[3], "temp": "0.011"}
    with pytest.raises(DataError, match=r"03:00 stands there twice, with temp"):
        read_labels(written(tmp_path / "up", a=[colder, *rows]), None, NOW)


def test_the_first_row_that_breaks_the_contract_is_named(tmp_path: Path) -> None:
    rows = make_rows(days=2)
    rows[4] = {**rows[4], "cnt": "-3"}
    rows[9] = {**rows[9], "hum": "much"}
    with pytest.raises(DataError, match=r"2 of 48 rows .* line 6 of .*a\.csv: .*cnt.*nothing was changed"):
        read_labels(written(tmp_path / "up", a=rows), None, NOW)


def test_an_hour_that_has_not_been_is_refused(tmp_path: Path) -> None:
    source = written(tmp_path / "up", a=make_rows("2012-12-31", days=2))
    # Another zone may be almost a day ahead.
    assert read_labels(source, None, NOW + dt.timedelta(hours=1))[0].num_rows == 48
    with pytest.raises(DataError, match="2013-01-01 23:00 has not been yet"):
        read_labels(source, None, NOW - dt.timedelta(hours=2))


def test_no_rows_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows"):
        read_labels(written(tmp_path / "up", a=[]), None, NOW)
