"""One row a trip, counted by the hour and joined with a weather file."""

from __future__ import annotations

import pytest

from bike_pipeline.data.ingest import ingest
from bike_pipeline.errors import ConfigurationError, DataError
from tests.data import mapped
from tests.data.mapping.conftest import TRIPS, reasons

BEGINS = [
    ("2019-03-09 22:00:01", "m"),
    ("2019-03-09 22:59:59", "m"),
    ("2019-03-09 22:30:00", "c"),
    ("2019-03-10 05:10:00", "c"),
]


def trips(kind, begins=BEGINS):
    names = {"old": {"m": "Member", "c": "Casual"}, "new": {"m": "member", "c": "casual"}}[kind]
    make = mapped.old_trips if kind == "old" else mapped.new_trips
    return make([(begin, names[member]) for begin, member in begins])


@pytest.mark.parametrize("kind", ["old", "new"])
def test_trips_are_counted_by_the_hour_they_begin_in_and_joined_with_the_weather(read, kind):
    checked, notes = read(TRIPS, trips(kind), mapped.weather("2019-03-09", 48))
    table = checked.accepted
    hours = [(day.day, hour) for day, hour in zip(table["dteday"].to_pylist(), table["hr"].to_pylist(), strict=True)]
    # At two o'clock of the tenth the clocks went to three.
    assert hours == [(9, 22), (9, 23), (10, 0), (10, 1), (10, 3), (10, 4), (10, 5)]
    assert table["casual"].to_pylist() == [1, 0, 0, 0, 0, 0, 1]
    assert table["registered"].to_pylist() == [2, 0, 0, 0, 0, 0, 0]
    assert table["cnt"].to_pylist() == [3, 0, 0, 0, 0, 0, 1]
    assert table["weathersit"].to_pylist() == [2, 2, 2, 2, 2, 2, 3]
    assert table["temp"].to_pylist() == pytest.approx([(12.5 + 8) / 47] * 7)
    assert table["atemp"].to_pylist() == pytest.approx([(12.5 + 16) / 66] * 7)
    assert "5 hours between the first and the last row have none and count 0" in notes


def test_the_hour_that_the_clock_repeats_is_one(read):
    begins = [("2019-11-03 00:10:00", "m"), ("2019-11-03 01:10:00", "m"), ("2019-11-03 02:10:00", "m")]
    checked, _ = read(TRIPS, trips("old", begins), mapped.weather("2019-11-03", 24))
    assert checked.accepted["hr"].to_pylist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("day", "holiday"),
    [
        ("2011-04-15", 1),  # 16 April is a Saturday: Emancipation Day of Washington
        ("2012-04-16", 1),
        ("2013-04-16", 1),
        ("2017-04-17", 1),  # and a Sunday
        ("2012-04-17", 0),
        ("2012-11-22", 1),
        ("2012-11-23", 0),
        ("2022-06-20", 1),
        ("2020-06-19", 0),  # a holiday since 2021
    ],
)
def test_holidays_of_washington(read, day, holiday):
    checked, _ = read(TRIPS, trips("old", [(f"{day} 08:00:00", "m")]), mapped.weather(day, 24))
    assert checked.accepted["holiday"].to_pylist() == [holiday]


def test_hours_without_weather_are_told_and_break_the_contract(read):
    weather = mapped.weather("2019-03-09", 48)
    del weather[23]
    checked, notes = read(TRIPS, trips("new"), weather)
    assert "1 hours have no weather, the first 2019-03-09 23:00:00" in notes
    assert checked.accepted.num_rows == 6
    assert "weathersit: missing; temp: missing" in reasons(checked)[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [*rows, rows[3]], r"the hour 2019-03-09 03:00:00 stands there twice"),
        (
            lambda rows: [rows[0] | {"weather_code (wmo code)": 42}, *rows[1:]],
            r"line 5: weather_code .*: 42 is not one",
        ),
        (lambda rows: [rows[0] | {"time": "9.3.2019"}, *rows[1:]], r"line 5: time: 9\.3\.2019 is not a time"),
        (lambda rows: [rows[0] | {"time": "2019-03-09T00:30"}, *rows[1:]], r"line 5: .* is not a full hour"),
        (lambda rows: [{**row, "wind_speed_10m (km/h)": 3.0} for row in rows], "too calm for km/h; is it in m/s"),
        (lambda rows: [{**row, "temperature_2m (°C)": 54.0} for row in rows], "too warm for °C; is it in °F"),
    ],
)
def test_wrong_weather_is_refused(read, change, message):
    with pytest.raises(DataError, match=message):
        read(TRIPS, trips("new"), change(mapped.weather("2019-03-09", 48)))


def test_weather_goes_with_the_mapping_that_needs_it(read, settings, tmp_path):
    with pytest.raises(ConfigurationError, match="needs a weather file"):
        read(TRIPS, trips("old"))
    with pytest.raises(ConfigurationError, match="takes no weather file"):
        read("kaggle", mapped.kaggle(), mapped.weather("2011-01-01", 72))
    with pytest.raises(DataError, match="weather goes with a mapping"):
        ingest(settings, str(tmp_path / "source.csv"), weather=str(tmp_path / "weather.csv"))


def test_a_week_without_a_trip_is_a_file_that_is_missing(read):
    begins = [("2019-03-01 08:00:00", "m"), ("2019-03-09 09:00:00", "m")]
    with pytest.raises(DataError, match=r"nothing between 2019-03-01 08:00:00 and 2019-03-09 09:00:00.*wrong date"):
        read(TRIPS, trips("old", begins), mapped.weather("2019-03-01", 300))


def test_a_trip_that_cannot_be_read_is_in_quarantine_and_one_that_runs_backwards_is_left_out(read):
    rows = trips("new")
    rows[0]["member_casual"] = "guest"
    rows[1]["ended_at"] = "2019-03-09 22:00:00"
    checked, notes = read(TRIPS, rows, mapped.weather("2019-03-09", 48))
    assert reasons(checked) == {2: f"Member type: guest is not one of {', '.join(MEMBERS)}"}
    assert "1 rows were left out: trips that end before they begin" in notes
    assert checked.accepted["registered"].to_pylist()[0] == 0


MEMBERS = ("Member", "Registered", "Subscriber", "member", "Casual", "casual")


def test_files_of_a_folder_are_one_source(settings, tmp_path):
    folder = tmp_path / "trips"
    folder.mkdir()
    begins = [(f"2019-03-{day:02d} {hour:02d}:15:00", "m") for day in range(1, 7) for hour in range(24)]
    (folder / "201903-1.csv").write_bytes(mapped.text(trips("old", begins[:70])))
    (folder / "201903-2.csv").write_bytes(mapped.text(trips("new", begins[70:])))
    (tmp_path / "weather.csv").write_bytes(mapped.text(mapped.weather("2019-03-01", 144), before=mapped.OPEN_METEO))
    added = ingest(settings, str(folder), mapping=TRIPS, weather=str(tmp_path / "weather.csv"))
    source = added.version.manifest.source
    assert added.version.manifest.rows.total == 144
    assert [file.name for file in source.files] == ["201903-1.csv", "201903-2.csv"]
    assert [file.name for file in source.mapping.weather] == [str(tmp_path / "weather.csv")]
