from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tensorflow_data_validation as tfdv
from tensorflow_data_validation.statistics import stats_impl
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

from bike_pipeline import features
from bike_pipeline.settings import load_settings

SHIFTED = "COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH"
NO_COMPARATOR = {"instant", "dteday", "season", "yr", "mnth", "casual", "registered"}


@pytest.fixture(scope="module")
def schema():
    return tfdv.load_schema_text(str(load_settings().schema_path))


@pytest.fixture(scope="module")
def by_name(schema):
    return {feature.name: feature for feature in schema.feature}


def statistics(rows, schema):
    lists = {
        name: pa.array([[value] for value in values.tolist()], pa.list_(pa.from_numpy_dtype(values.dtype)))
        if values.dtype.kind != "S"
        else pa.array([[value] for value in values.tolist()], pa.list_(pa.binary()))
        for name, values in rows.items()
    }
    return stats_impl.generate_statistics_in_memory(pa.RecordBatch.from_pydict(lists), tfdv.StatsOptions(schema=schema))


def found(anomalies):
    kinds = anomalies_pb2.AnomalyInfo.Type.Name
    return {(name, kinds(reason.type)) for name, info in anomalies.anomaly_info.items() for reason in info.reason}


@pytest.fixture(scope="module")
def years(embedded_rows):
    """2011 and the train split of 2012."""
    first = embedded_rows["yr"] == 0
    second = (embedded_rows["yr"] == 1) & (embedded_rows["dteday"] < b"2012-10-19")
    return tuple({n: v[mask] for n, v in embedded_rows.items()} for mask in (first, second))


@pytest.fixture(scope="module")
def sound(years, schema):
    return statistics(years[0], schema)


def test_the_schema_holds_exactly_the_columns_of_the_contract(schema):
    assert [feature.name for feature in schema.feature] == [*features.COLUMNS, *features.OPTIONAL_NAMES]


@pytest.mark.parametrize("feature", features.BY_NAME.values(), ids=features.BY_NAME)
def test_type_presence_and_domain_are_those_of_the_contract(by_name, feature):
    written = by_name[feature.name]
    types = {"int": schema_pb2.INT, "float": schema_pb2.FLOAT, "date": schema_pb2.BYTES}
    assert written.type == types[feature.kind]
    assert (written.presence.min_fraction, written.presence.min_count) == (1.0, 1)
    # One value a row.
    assert written.HasField("shape")
    assert not written.shape.dim
    domain = {"int": written.int_domain, "float": written.float_domain}.get(feature.kind)
    if domain is None:
        assert written.WhichOneof("domain_info") is None
        return
    assert written.WhichOneof("domain_info") == f"{feature.kind}_domain"
    bounds = [getattr(domain, side) if domain.HasField(side) else None for side in ("min", "max")]
    # A mean of hours that are not there is the default; there is always a day.
    absent = feature.kind == "float" and feature.default is not None
    assert bounds == [feature.default if absent else feature.minimum, feature.maximum]
    if feature.kind == "float":
        assert domain.disallow_nan
        assert domain.disallow_inf


@pytest.mark.parametrize("name", features.COLUMNS)
def test_comparators_measure_what_works_on_numbers(by_name, name):
    written = by_name[name]
    kinds = {"drift_comparator", "skew_comparator"} if name not in NO_COMPARATOR else set()
    if name == features.LABEL:
        # Serving rows have no label.
        kinds = {"drift_comparator"}
    assert {kind for kind in ("drift_comparator", "skew_comparator") if written.HasField(kind)} == kinds
    for kind in kinds:
        comparator = getattr(written, kind)
        assert not comparator.HasField("infinity_norm")
        assert 0 < comparator.jensen_shannon_divergence.threshold < 1


def test_every_column_that_decides_is_watched():
    watched = set(features.COLUMNS) - NO_COMPARATOR
    assert watched == {f.name for f in features.REQUIRED_INPUTS} - {"yr", "mnth"} | {features.LABEL}


def test_the_embedded_data_has_no_anomaly(sound, schema):
    assert found(tfdv.validate_statistics(sound, schema)) == set()


def test_a_year_against_the_year_before_drifts_in_the_label_alone(years, sound, schema):
    now = statistics(years[1], schema)
    assert found(tfdv.validate_statistics(now, schema, previous_statistics=sound)) == {("cnt", SHIFTED)}


def shift(name, values):
    """Rows as a changed sensor, feed or city would send them: still inside their domain."""
    kind = features.BY_NAME[name]
    if name == features.LABEL:
        return values * 4
    if name in ("hr", "weekday"):
        return np.where(np.arange(len(values)) % 2, values, 0)
    if kind.maximum == 1 and kind.kind == "int":
        return 1 - values
    if name == "weathersit":
        return np.where(np.arange(len(values)) % 2, values, 4)
    return np.clip(values * 0.2 + 0.8, 0, 1).astype(np.float32)


@pytest.mark.parametrize("name", [name for name in features.COLUMNS if name not in NO_COMPARATOR])
def test_shifted_values_are_drift(years, sound, schema, name):
    rows = years[0]
    shifted = statistics({**rows, name: shift(name, rows[name])}, schema)
    assert found(tfdv.validate_statistics(shifted, schema, previous_statistics=sound)) == {(name, SHIFTED)}


def test_shifted_values_are_skew_between_training_and_serving(years, sound, schema):
    rows = years[0]
    names = [name for name in features.COLUMNS if name not in NO_COMPARATOR | {features.LABEL}]
    shifted = statistics({**rows, **{name: shift(name, rows[name]) for name in names}}, schema)
    got = found(tfdv.validate_statistics(sound, schema, serving_statistics=shifted))
    assert got == {(name, SHIFTED) for name in names}
    assert found(tfdv.validate_statistics(sound, schema, serving_statistics=sound)) == set()


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("hr", 24, "INT_TYPE_BIG_INT"),
        ("season", 0, "INT_TYPE_SMALL_INT"),
        ("weathersit", 5, "INT_TYPE_BIG_INT"),
        ("temp", 1.5, "FLOAT_TYPE_BIG_FLOAT"),
        ("hum", np.nan, "FLOAT_TYPE_HAS_NAN"),
        ("windspeed", np.inf, "FLOAT_TYPE_HAS_INF"),
        ("cnt", -1, "INT_TYPE_SMALL_INT"),
    ],
)
def test_a_single_value_outside_its_domain_is_an_anomaly(years, schema, name, value, kind):
    values = years[0][name][:500].copy()
    values[7] = value
    rows = {n: v[:500] for n, v in years[0].items()}
    got = found(tfdv.validate_statistics(statistics({**rows, name: values}, schema), schema))
    assert {n for n, _ in got} == {name}
    assert (name, kind) in got


def test_a_column_that_is_absent_or_new_or_of_another_type_is_an_anomaly(years, schema):
    rows = {n: v[:500] for n, v in years[0].items()}
    cases = (
        ({n: v for n, v in rows.items() if n != "temp"}, ("temp", "SCHEMA_MISSING_COLUMN")),
        ({**rows, "rain": rows["temp"]}, ("rain", "SCHEMA_NEW_COLUMN")),
        ({**rows, "hr": rows["hr"].astype(np.float32)}, ("hr", "UNEXPECTED_DATA_TYPE")),
    )
    for changed, wanted in cases:
        assert wanted in found(tfdv.validate_statistics(statistics(changed, schema), schema))


@pytest.mark.parametrize(
    ("absent", "kind"), [(None, "FEATURE_TYPE_LOW_FRACTION_PRESENT"), ([], "INVALID_FEATURE_SHAPE")]
)
def test_a_row_without_a_value_is_an_anomaly(years, schema, absent, kind):
    values = [[value] for value in years[0]["hum"][:500].tolist()]
    values[3] = absent
    rows = {n: pa.array([[v] for v in c[:500].tolist()]) for n, c in years[0].items()}
    batch = pa.RecordBatch.from_pydict({**rows, "hum": pa.array(values, pa.list_(pa.float32()))})
    read = stats_impl.generate_statistics_in_memory(batch, tfdv.StatsOptions(schema=schema))
    assert ("hum", kind) in found(tfdv.validate_statistics(read, schema))


def test_the_file_is_where_the_settings_say():
    assert load_settings().schema_path == Path(__file__).resolve().parents[1] / "configs" / "schema.pbtxt"
