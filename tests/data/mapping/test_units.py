"""Values of another unit, under names that are right."""

from __future__ import annotations

import pytest

from bike_pipeline.data.ingest import ingest
from bike_pipeline.data.spans import SpanStore
from bike_pipeline.errors import DataError
from bike_pipeline.features import COLUMNS
from tests.data import mapped
from tests.data.making import make_rows, to_csv


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
