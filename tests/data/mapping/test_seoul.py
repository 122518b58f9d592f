"""Seoul's file: another encoding, days off, cold beyond the contract."""

from __future__ import annotations

import pytest

from bike_pipeline.errors import DataError
from tests.data import mapped
from tests.data.mapping.conftest import reasons


def test_seoul_is_read_in_its_encoding_and_days_off_are_left_out_and_told(read):
    rows = mapped.seoul()
    for row in rows[24:48]:
        row |= {"Functioning Day": "No", "Rented Bike Count": 0}
    checked, notes = read("seoul", rows, encoding="cp1252")
    assert checked.total == checked.accepted.num_rows == 48
    assert "24 rows were left out: the system did not work" in notes
    assert "all rentals count as registered" in notes
    first = checked.accepted.slice(5, 1).to_pylist()[0]
    assert (first["holiday"], first["yr"], first["season"], first["weathersit"]) == (1, 7, 1, 1)
    assert (first["casual"], first["registered"], first["cnt"]) == (0, 105, 105)
    assert first["temp"] == pytest.approx((-5.2 + 8) / 47)
    assert first["windspeed"] == pytest.approx(2.2 * 3.6 / 67)
    # Wind chill of -5.2 °C at 7.92 km/h.
    assert first["atemp"] * 66 - 16 == pytest.approx(-8.816, abs=0.001)


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({}, 1),
        ({"Visibility (10m)": 499}, 2),
        ({"Rainfall(mm)": 0.1, "Visibility (10m)": 100}, 3),
        ({"Snowfall (cm)": 1}, 3),
        ({"Rainfall(mm)": 7.6}, 4),
    ],
)
def test_the_weather_of_seoul_follows_rain_snow_and_sight(read, values, code):
    rows = mapped.seoul()
    rows[5] |= values
    assert read("seoul", rows, encoding="cp1252")[0].accepted.column("weathersit")[5].as_py() == code


def test_cold_below_the_contract_counts_as_its_bound_and_is_told(read):
    rows = mapped.seoul()
    rows[5]["Temperature(°C)"] = -17.8
    checked, notes = read("seoul", rows, encoding="cp1252")
    assert checked.accepted.num_rows == 72
    assert checked.accepted.column("temp")[5].as_py() == 0
    assert "1 values of temp are beyond the contract's range" in notes
    rows[5]["Temperature(°C)"] = ""
    assert "temp: missing" in reasons(read("seoul", rows, encoding="cp1252")[0])[7]
    rows[5]["Temperature(°C)"] = -999
    with pytest.raises(DataError, match="colder than Seoul has ever been"):
        read("seoul", rows, encoding="cp1252")


def test_another_encoding_is_refused(read):
    with pytest.raises(DataError, match=r"no columns called Temperature\(°C\).*its encoding"):
        read("seoul", mapped.text(mapped.seoul(), "utf-8"))
    with pytest.raises(DataError, match=r"it is not utf-8, as the mapping says \(byte"):
        read("kaggle", mapped.text([row | {"temp (°C)": 1} for row in mapped.kaggle()], "cp1252"))
    with pytest.raises(DataError, match="is not cp1252"):
        read("seoul", mapped.text(mapped.seoul(), "cp1252").replace(b"Winter", b"\x81", 1))


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("Date", "01/13/2018", "Date: 01/13/2018 is not a time (%d/%m/%Y)"),
        ("Holiday", "Half", "Holiday: Half is not one of No Holiday, Holiday"),
        ("Hour", "x", "Hour: x is not a number"),
        ("Hour", "4", "duplicate"),
    ],
)
def test_a_wrong_row_of_seoul_goes_to_quarantine(read, name, value, reason):
    rows = mapped.seoul()
    rows[5][name] = value
    checked, _ = read("seoul", rows, encoding="cp1252")
    assert reason in reasons(checked)[7]
