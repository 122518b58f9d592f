"""Sources of another form, each mapping on a small file of its shape, and what must not slip through."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from bike_pipeline.commands.data import data_command
from bike_pipeline.data.contract import check_rows
from bike_pipeline.data.embedded_dataset import embedded_bytes
from bike_pipeline.data.ingest import ingest
from bike_pipeline.data.mapped_rows import read_mapped
from bike_pipeline.data.mapping import MAPPINGS, load_profile
from bike_pipeline.data.sources.csv_file import read_csv
from bike_pipeline.data.spans import SpanStore
from bike_pipeline.errors import ConfigurationError, DataError
from bike_pipeline.features import COLUMNS
from bike_pipeline.settings import load_settings
from tests.data import mapped
from tests.data.making import make_rows, to_csv

TRIPS = "capital-bikeshare-trips"


@pytest.fixture
def read(tmp_path):
    """Read rows, or bytes, by a mapping; return what passes the contract, its reasons and what is told."""

    def by(name, rows, weather=None, encoding="utf-8"):
        (tmp_path / "source.csv").write_bytes(rows if isinstance(rows, bytes) else mapped.text(rows, encoding))
        beside = None
        if weather is not None:
            beside = tmp_path / "weather.csv"
            beside.write_bytes(mapped.text(weather, before=mapped.OPEN_METEO))
        found, _, notes = read_mapped(name, str(tmp_path / "source.csv"), beside and str(beside))
        return check_rows(found), " | ".join(notes)

    return by


@pytest.fixture
def settings(tmp_path):
    return load_settings(None, (f"workspace={tmp_path / 'workspace'}",))


def reasons(checked):
    table = checked.rejected
    return dict(zip(table["line"].to_pylist(), table["reasons"].to_pylist(), strict=True))


# --- Kaggle


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


# --- Seoul


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


# --- Trips

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


# --- Units


def fahrenheit(celsius):
    return round(float(celsius) * 1.8 + 32, 2)


@pytest.mark.parametrize("month", ["2011-01-01", "2011-07-01"])
def test_fahrenheit_does_not_pass_for_celsius(read, month):
    warm = {"2011-01-01": (3.0, 9.84), "2011-07-01": (28.0, 31.0)}[month]
    rows = [row | {"temp": fahrenheit(warm[1])} for row in mapped.kaggle(month)]
    with pytest.raises(DataError, match="is it in °F"):
        read("kaggle", rows)
    rows = [row | {"Temperature(°C)": fahrenheit(warm[0])} for row in mapped.seoul(month.replace("2011", "2018"))]
    with pytest.raises(DataError, match="is it in °F"):
        read("seoul", rows, encoding="cp1252")


def test_another_unit_of_wind_does_not_pass(read):
    with pytest.raises(DataError, match="is it in m/s"):
        read("kaggle", [row | {"windspeed": 2.5} for row in mapped.kaggle()])
    with pytest.raises(DataError, match="is it in km/h"):
        read("seoul", [row | {"Wind speed (m/s)": 7.9} for row in mapped.seoul()], encoding="cp1252")


@pytest.mark.parametrize(
    ("name", "values"), [("temp", (3.4, 9.8)), ("temp", (30.2, 80.1)), ("windspeed", (0.4, 4.5)), ("hum", (40, 90))]
)
def test_other_units_under_the_contracts_own_names_are_refused_and_the_mapping_is_named(
    settings, tmp_path, name, values
):
    # Degrees of either kind, metres a second, and percent.
    low, high = values
    rows = [row | {name: f"{low + (high - low) * n / 71:.2f}"} for n, row in enumerate(make_rows(days=3))]
    (tmp_path / "upload.csv").write_bytes(to_csv(rows))
    with pytest.raises(DataError, match=r"by kind: range .*data ingest --map NAME"):
        ingest(settings, str(tmp_path / "upload.csv"))


def test_other_names_are_refused_and_the_mapping_is_named(settings, tmp_path):
    (tmp_path / "renamed.csv").write_bytes(to_csv(make_rows()).replace(b"hum", b"humidity", 1))
    (tmp_path / "kaggle.csv").write_bytes(mapped.text(mapped.kaggle()))
    for name in ("renamed", "kaggle"):
        with pytest.raises(DataError, match=r"data ingest --map NAME"):
            ingest(settings, str(tmp_path / f"{name}.csv"))


def test_a_new_column_is_told_or_refused_as_the_settings_say(settings, tmp_path):
    rows = [row | {"rain": "0"} for row in make_rows(days=3)]
    (tmp_path / "upload.csv").write_bytes(to_csv(rows, [*COLUMNS, "rain"]))
    strict = settings.model_copy(update={"data": settings.data.model_copy(update={"extra_columns": "refuse"})})
    with pytest.raises(DataError, match=r"not in the feature contract: rain\. Leave .*data ingest --map NAME"):
        ingest(strict, str(tmp_path / "upload.csv"))
    assert SpanStore(settings.store_uri).spans() == []
    assert "were ignored: rain" in " ".join(ingest(settings, str(tmp_path / "upload.csv")).notes)
    # A mapping says itself what it reads.
    (tmp_path / "train.csv").write_bytes(mapped.text(mapped.kaggle("2011-02-01")))
    assert ingest(strict, str(tmp_path / "train.csv"), mapping="kaggle").created


# --- The way to a version


def test_the_version_records_the_mapping_and_the_setting_names_it(tmp_path):
    (tmp_path / "train.csv").write_bytes(mapped.text(mapped.kaggle()))
    place = ("--set", f"workspace={tmp_path / 'workspace'}")
    given = CliRunner().invoke(
        data_command, ["ingest", str(tmp_path / "train.csv"), "--map", "kaggle", "--json", *place]
    )
    assert given.exception is None
    manifest = json.loads(given.output)["manifest"]
    sha256 = load_profile("kaggle")[1]
    assert manifest["schema_version"] == 3
    assert manifest["source"]["mapping"] == {"name": "kaggle", "sha256": sha256, "weather": []}
    store = SpanStore(str(tmp_path / "workspace" / "spans"))
    assert store.verify(1, 1).manifest.source.mapping.sha256 == sha256
    (tmp_path / "own.yaml").write_bytes((MAPPINGS / "kaggle.yaml").read_bytes() + b"# mine\n")
    rows = [row | {"casual": 4, "count": row["count"] + 1} for row in mapped.kaggle()]
    (tmp_path / "train.csv").write_bytes(mapped.text(rows))
    again = ["ingest", str(tmp_path / "train.csv"), *place, "--set", f"data.mapping={tmp_path / 'own.yaml'}"]
    said = CliRunner().invoke(data_command, again).output
    assert "note: temp and atemp are read as the competition scaled them" in said
    changed = store.verify(1, 2).manifest.source.mapping
    assert changed.name == "own.yaml"
    assert changed.sha256 != sha256


def test_a_version_without_a_mapping_is_written_as_before(settings, tmp_path):
    (tmp_path / "upload.csv").write_bytes(to_csv(make_rows(days=5)))
    manifest = json.loads(Path(ingest(settings, str(tmp_path / "upload.csv")).version.uri, "manifest.json").read_text())
    assert manifest["schema_version"] == 2
    assert "mapping" not in manifest["source"]


def test_too_many_wrong_rows_refuse_the_upload_and_keep_the_reasons(settings, tmp_path):
    rows = mapped.kaggle()
    rows[5]["weather"] = "9"
    (tmp_path / "train.csv").write_bytes(mapped.text(rows))
    with pytest.raises(
        DataError, match=r"1 of 72 rows .*weather: 9 is not one of .*quarantine\.csv; nothing was ingested\.$"
    ):
        ingest(settings, str(tmp_path / "train.csv"), mapping="kaggle")


def test_a_database_and_a_parquet_file_are_not_mapped(settings, tmp_path):
    for query, message in ((None, "query"), ("SELECT 1", "a mapping reads files, not databases")):
        with pytest.raises(DataError, match=message):
            ingest(settings, "sqlite:///rides.db", query=query, mapping="kaggle")
    (tmp_path / "train.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="it is a Parquet file, and a mapping reads CSV"):
        ingest(settings, str(tmp_path / "train.parquet"), mapping="kaggle")


# --- Profiles of one's own


@pytest.fixture
def own(tmp_path):
    """Write the Kaggle profile with changes; return its path."""

    def write(**changes):
        profile = yaml.safe_load((MAPPINGS / "kaggle.yaml").read_text(encoding="utf-8"))
        values = profile["values"] | changes.pop("values", {})
        path = tmp_path / "own.yaml"
        path.write_text(yaml.safe_dump(profile | {"values": values} | changes, allow_unicode=True), encoding="utf-8")
        return str(path)

    return write


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("(SELECT content FROM read_text('/etc/hostname'))", "file system operations are disabled"),
        ("(SELECT count(*) FROM read_csv('https://example.org/x.csv'))", "disabled"),
        ("(SELECT count(*) FROM glob('/*'))", "disabled"),
        ("(SELECT secret FROM hidden)", "hidden does not exist"),
        ("getenv('HOME')", "getenv does not exist"),
        ("1) AS x FROM now; SET enable_external_access = true; SELECT (1", "configuration"),
        ("1) AS x FROM now; COPY now TO '/tmp/mapping-was-here.csv'; SELECT (1", "disabled"),
        ("1) AS x FROM now; ATTACH '/tmp/mapping-was-here.db'; SELECT (1", "disabled"),
        ("1) AS x FROM now; INSTALL httpfs; LOAD httpfs; SELECT (1", "disabled"),
        ("nothing + 1", "nothing"),
        ("1 +", "syntax error"),
    ],
)
def test_an_expression_reaches_nothing_but_the_rows(read, own, expression, message):
    import pyarrow as pa

    hidden = pa.table({"secret": [1]})
    with pytest.raises(ConfigurationError, match=rf"an expression cannot be worked out \(.*{message}"):
        read(own(values={"hum": expression}), mapped.kaggle())
    assert hidden.num_rows == 1
    assert not list(Path("/tmp").glob("mapping-was-here*"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format: Input should be 1"),
        ({"encoding": "rot13"}, "encoding: "),
        ({"colums": {}}, "colums: Extra inputs"),
        ({"columns": {"Bad Name": {"named": ["x"]}}}, "Bad Name"),
        ({"values": {"temperature": "1"}}, "temperature"),
        ({"clip": ["cnt"]}, "clip"),
    ],
)
def test_a_wrong_profile_is_one_clear_error(read, own, changes, message):
    with pytest.raises(ConfigurationError, match=rf"the mapping is wrong \(.*{message}"):
        read(own(**changes), mapped.kaggle())


def test_a_profile_that_lacks_a_value_or_is_not_there_is_one_clear_error(read, tmp_path):
    profile = yaml.safe_load((MAPPINGS / "kaggle.yaml").read_text(encoding="utf-8"))
    del profile["values"]["hum"]
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(profile, allow_unicode=True))
    with pytest.raises(ConfigurationError, match="values lack hum"):
        load_profile(str(tmp_path / "own.yaml"))
    (tmp_path / "own.yaml").write_text("columns: [")
    with pytest.raises(ConfigurationError, match="the mapping is wrong"):
        load_profile(str(tmp_path / "own.yaml"))
    with pytest.raises(ConfigurationError, match=r"no such mapping.*capital-bikeshare-trips, kaggle, seoul"):
        load_profile("kagle")
    for shipped in MAPPINGS.glob("*.yaml"):
        assert load_profile(shipped.stem)[0].about
