"""Kaggle's competition: the published data in another form."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from bike_pipeline.data.contract import check_rows
from bike_pipeline.data.embedded_dataset import embedded_bytes
from bike_pipeline.data.mapped_rows import read_mapped
from bike_pipeline.data.sources.csv_file import read_csv
from bike_pipeline.errors import DataError
from bike_pipeline.features import COLUMNS
from tests.data import mapped
from tests.data.making import to_csv
from tests.data.mapping.conftest import reasons


def test_the_competition_is_the_published_data_in_another_form(read):
    published = list(csv.DictReader(io.StringIO(embedded_bytes().decode())))
    rows = [row for row in published if int(row["dteday"][-2:]) < 20]
    scaled = [
        {
            "datetime": f"{row['dteday']} {int(row['hr']):02d}:00:00",
            "season": (int(row["mnth"]) + 2) // 3,
            "holiday": row["holiday"],
            "workingday": row["workingday"],
            "weather": row["weathersit"],
            "temp": round(float(row["temp"]) * 41, 4),
            "atemp": round(float(row["atemp"]) * 50, 4),
            "humidity": round(float(row["hum"]) * 100),
            "windspeed": round(float(row["windspeed"]) * 67, 4),
            "casual": row["casual"],
            "registered": row["registered"],
            "count": row["cnt"],
        }
        for row in rows
    ]
    # As the competition's own file begins.
    assert [str(value) for value in scaled[0].values()] == (
        ["2011-01-01 00:00:00", "1", "0", "0", "1", "9.84", "14.395", "81", "0.0", "3", "13", "16"]
    )
    expected = check_rows(read_csv(to_csv(rows), "hour.csv")).accepted
    found, notes = read("kaggle", scaled)
    assert found.accepted.num_rows == expected.num_rows == len(rows)
    assert "41 and 50" in notes
    for name in COLUMNS[1:]:
        one, other = (table.column(name).to_numpy() for table in (found.accepted, expected))
        if one.dtype.kind == "f":
            assert np.abs(one - other).max() < 1e-5, name
        else:
            assert (one == other).all(), name


def test_names_with_units_are_known_and_so_are_texts_with_spaces(read):
    units = {"temp": "temp (°C)", "atemp": "atemp (°C)", "windspeed": "windspeed (km/h)"}
    rows = [{units.get(name, name): f" {value} " for name, value in row.items()} for row in mapped.kaggle()]
    assert read("kaggle", rows)[0].accepted.equals(read("kaggle", mapped.kaggle())[0].accepted)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("datetime", "2011-02-30 05:00:00", "datetime: 2011-02-30 05:00:00 is not a time (%Y-%m-%d"),
        ("datetime", "2011-01-01 05:30:00", "2011-01-01 05:30:00 is not a full hour"),
        ("datetime", "", "it has no time"),
        ("datetime", "2011-01-01 04:00:00", "duplicate: line 6 has the same date and hour"),
        ("weather", "7", "weather: 7 is not one of 1, 2, 3, 4"),
        ("humidity", "much", "humidity: much is not a number"),
        ("humidity", "", "hum: missing"),
        ("humidity", "nan", "hum: 'nan' is not finite"),
        ("humidity", "810", "hum: 8.1 is above 1"),
        ("count", "99", "cnt: 99 but casual + registered is 8"),
        ("casual", "2.5", "casual: '2.5' is not an integer"),
        ("workingday", "1", "workingday: 1 but weekday and holiday say 0"),
    ],
)
def test_a_wrong_row_goes_to_quarantine_with_its_line_and_reason(read, name, value, reason):
    rows = mapped.kaggle()
    rows[5][name] = value
    checked, _ = read("kaggle", rows)
    assert checked.accepted.num_rows == 71
    assert list(reasons(checked)) == [7]
    assert reason in reasons(checked)[7]


def test_several_reasons_of_a_row_stand_beside_each_other(read):
    rows = mapped.kaggle()
    rows[5] |= {"weather": "9", "temp": "warm"}
    checked, _ = read("kaggle", rows)
    assert reasons(checked)[7] == "weather: 9 is not one of 1, 2, 3, 4; temp: warm is not a number"
    assert checked.rejected["text"].to_pylist()[0].startswith("2011-01-01 05:00:00,0,0,9,warm,")


def test_a_column_that_is_missing_or_there_twice_is_refused_and_others_are_told(read, tmp_path):
    rows = [{name: value for name, value in row.items() if name != "humidity"} for row in mapped.kaggle()]
    with pytest.raises(DataError, match=r"it has no columns called humidity.*Choose another mapping"):
        read("kaggle", rows)
    with pytest.raises(DataError, match=r"it has 2 columns called temp or temp \(°C\)"):
        read("kaggle", [row | {"temp (°C)": 1} for row in mapped.kaggle()])
    (tmp_path / "more.csv").write_bytes(mapped.text([row | {"casual_": 1, "hour": 9} for row in mapped.kaggle()]))
    found, origin, _ = read_mapped("kaggle", str(tmp_path / "more.csv"), None)
    assert origin.ignored_columns == found.ignored == ("casual_", "hour", "season")
