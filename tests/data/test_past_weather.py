from __future__ import annotations

import numpy as np
import pyarrow as pa

from bike_pipeline import features
from bike_pipeline.data import past_weather

RANDOM = np.random.default_rng(3)
# 2012-02-28 00:00 in hours since 1970-01-01.
START = int((np.datetime64("2012-02-28") - np.datetime64("1970-01-01")).astype(int)) * 24


def weather(rows):
    return {name: RANDOM.uniform(0.1, 1.0, rows) for name in past_weather.COLUMNS}


def test_there_is_one_mean_for_each_optional_input_beside_the_day():
    assert ["day", *past_weather.MEANS] == list(features.OPTIONAL_NAMES)
    for name, (column, hours) in past_weather.MEANS.items():
        assert name == f"{column}_mean_{hours}h"
        assert features.BY_NAME[name].unit == features.BY_NAME[column].unit


def test_the_day_is_that_of_the_month_in_a_leap_year_too():
    hours = START + np.arange(72)
    day = past_weather.optional_inputs(hours, weather(72))["day"]
    assert day.tolist() == [28] * 24 + [29] * 24 + [1] * 24
    assert day.dtype == np.int64


def test_a_mean_is_that_of_the_hours_before_and_of_none_after():
    hours, columns = START + np.arange(60), weather(60)
    found = past_weather.optional_inputs(hours, columns)
    for name, (column, longest) in past_weather.MEANS.items():
        expected = [columns[column][max(i - longest, 0) : i].mean() for i in range(1, 60)]
        np.testing.assert_allclose(found[name][1:], expected, rtol=1e-6)
        assert found[name].dtype == np.float32


def test_hours_that_are_not_there_are_left_out_and_none_at_all_is_the_default():
    hours, columns = START + np.array([0, 1, 3, 40]), weather(4)
    found = past_weather.optional_inputs(hours, columns)
    temp = columns["temp"]
    np.testing.assert_allclose(found["temp_mean_3h"], [0, temp[0], temp[:2].mean(), 0], rtol=1e-6)
    assert found["weathersit_mean_1h"].tolist()[2:] == [0, 0]
    assert all(found[name][0] == features.BY_NAME[name].default for name in past_weather.MEANS)


def test_other_rows_change_no_bit():
    hours, columns = START + np.arange(200), weather(200)
    whole = past_weather.optional_inputs(hours, columns)
    part = past_weather.optional_inputs(hours[100:], {name: values[100:] for name, values in columns.items()})
    for name, values in whole.items():
        assert (
            values[100 + past_weather.LONGEST_HOURS :].tobytes() == part[name][past_weather.LONGEST_HOURS :].tobytes()
        )


def table(hours, columns):
    days = pa.array((hours // 24).astype(np.int32), pa.int32()).cast(pa.date32())
    return pa.table({"dteday": days, "hr": pa.array(hours % 24), **{name: pa.array(v) for name, v in columns.items()}})


def test_rows_are_completed_in_any_order_from_themselves_first_and_then_from_earlier_tables():
    hours, columns = START + np.arange(72), weather(72)
    whole = past_weather.optional_inputs(hours, columns)
    stored = table(hours, columns)
    later = stored.slice(48).take(pa.array(np.arange(24)[::-1]))
    other = table(hours, weather(72))
    found = past_weather.with_optional_inputs(later, stored.slice(0, 48), other)
    assert found.schema.names == [*stored.schema.names, *features.OPTIONAL_NAMES]
    for name, values in whole.items():
        assert found.column(name).to_numpy().tolist() == values[48:][::-1].tolist()
    # Without the earlier ones the first hour knows of none.
    assert past_weather.with_optional_inputs(stored.slice(48)).column("temp_mean_24h")[0].as_py() == 0
