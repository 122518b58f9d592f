from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bike_pipeline import features
from bike_pipeline.modeling import holidays, preprocessing, saved_model
from bike_pipeline.modeling.rows import RAW_NAMES
from tests.conftest import analyzed

OUTPUTS = preprocessing.OUTPUTS


def raw_of(**changed):
    """Return raw columns of a few rows: a clear Wednesday noon in June 2012 and no day, but for what is changed."""
    usual: dict[str, float] = dict.fromkeys([*(f.name for f in features.MODEL_INPUTS), *features.LABELS], 0)
    usual |= {"yr": 1, "mnth": 6, "hr": 12, "weekday": 3, "workingday": 1, "weathersit": 1, "temp": 0.6, "hum": 0.5}
    count = len(next(iter(changed.values())))
    kinds = {"int": np.int64, "float": np.float32}
    return {
        name: tf.constant(np.broadcast_to(np.asarray(changed.get(name, value)), count).astype(kinds[feature.kind]))
        for name, value in usual.items()
        if (feature := features.BY_NAME[name])
    }


def columns_of(**changed):
    """Return the transformed columns of these rows, with moments that leave a value as it is."""
    count = len(preprocessing.MEASURED)
    learnt = preprocessing.Learnt(tf.constant([0.0] * count + [1.0] * count, tf.float64), tf.constant(730.0))
    return {n: t.numpy() for n, t in preprocessing.transformed(raw_of(**changed), learnt).items()}


def day_types(dates, holiday=0, sent=True, name="day_type"):
    days = np.asarray(dates, "datetime64[D]")
    return columns_of(
        yr=days.astype("datetime64[Y]").astype(int) + 1970 - features.FIRST_YEAR,
        mnth=days.astype("datetime64[M]").astype(int) % 12 + 1,
        day=(days - days.astype("datetime64[M]")).astype(int) + 1 if sent else np.zeros(len(days)),
        weekday=(days.astype(int) + 4) % 7,
        holiday=np.broadcast_to(holiday, len(days)),
    )[name].tolist()


def test_a_day_is_of_the_type_of_its_weekday_but_for_holidays():
    usual = np.datetime64("2012-06-04") + np.arange(7)
    assert day_types(usual) == day_types(usual, sent=False) == [0, 0, 0, 0, 1, 2, 3]
    great = ["2013-01-01", "2012-07-04", "2012-12-24", "2012-12-25", "2012-12-26", "2012-12-31", "2011-11-24"]
    assert day_types([*great, "2011-11-25", "2012-11-22", "2012-11-23"]) == [3] * 10
    # Not the fourth Thursday of November, the Friday after it, or the Saturday.
    assert day_types(["2012-11-15", "2012-11-16", "2012-11-24", "2012-11-29", "2012-11-30"]) == [0, 1, 2, 0, 1]
    assert day_types(["2012-12-21", "2012-12-22", "2012-12-23", "2012-12-27", "2012-12-28"]) == [1, 2, 3, 4, 4]
    assert day_types(["2012-01-16", "2012-04-16"], holiday=1) == [4, 4]
    # Without the day only the flag tells.
    assert day_types(["2012-07-04", "2012-12-25", "2012-11-22"], [1, 1, 0], sent=False) == [4, 4, 0]


def test_holidays_of_a_kind_are_told_apart_by_their_dates_and_all_others_by_the_flag():
    def kinds(dates, **options):
        return day_types(dates, name="holiday_kind", **options)

    assert kinds(np.datetime64("2012-06-04") + np.arange(7)) == [0] * 7
    assert kinds(np.datetime64("2012-12-21") + np.arange(12)) == [0, 7, 7, 3, 3, 3, 4, 4, 7, 7, 5, 5]
    assert kinds(["2012-11-22", "2012-11-23", "2012-11-24", "2011-11-24", "2012-07-04"], holiday=1) == [2, 2, 1, 2, 6]
    assert kinds(["2012-12-25", "2012-11-22", "2012-07-04"], holiday=[1, 0, 1], sent=False) == [1, 0, 1]


def test_what_feedback_does_not_learn_from_are_the_holidays_with_a_date():
    days = np.datetime64("2011-01-01") + np.arange(3 * 365 + 1)
    kinds = np.array(day_types(days, name="holiday_kind", holiday=0))
    np.testing.assert_array_equal(holidays.is_dated(days), kinds > holidays.OTHER)


def test_the_sun_is_highest_at_noon_in_june_and_below_the_horizon_at_night():
    month, hour = (grid.ravel() for grid in np.meshgrid(np.arange(1, 13), np.arange(24)))
    sine = columns_of(mnth=month, hr=hour)[preprocessing.DENSE][:, preprocessing.SUN]
    assert month[np.argmax(sine)] == 6
    assert hour[np.argmax(sine)] in {11, 12}
    assert (sine[hour == 0] < 0).all()
    # At the equinoxes the sun stands at 90° less the latitude.
    noon = columns_of(mnth=[3], day=[21], hr=[12])[preprocessing.DENSE][0, preprocessing.SUN]
    assert noon == pytest.approx(np.cos(preprocessing.LATITUDE), abs=0.02)


def test_days_are_counted_over_leap_years_and_months_without_a_day_stand_at_their_middle():
    days = np.datetime64("2011-01-01") + np.arange(3 * 365 + 1)
    parts = {
        "yr": days.astype("datetime64[Y]").astype(int) - 41,
        "mnth": days.astype("datetime64[M]").astype(int) % 12 + 1,
        "day": (days - days.astype("datetime64[M]")).astype(int) + 1,
    }
    before_end = columns_of(**parts)[preprocessing.DAYS_BEFORE_END]
    assert before_end.tolist() == np.maximum(730 - np.arange(len(days)), 0).tolist()
    assert columns_of(yr=[0], mnth=[2])[preprocessing.DAYS_BEFORE_END] == pytest.approx(730 - 31 - 14.5)


def test_the_hours_own_weather_stands_for_means_that_were_not_sent():
    now = {"temp": 0.6, "hum": 0.5, "windspeed": 0.25, "weathersit": 2}
    known = {name: [0.0, now[column] + 0.125] for name, column in preprocessing.PAST.items()}
    dense = columns_of(**{name: [value, value] for name, value in now.items()}, **known)[preprocessing.DENSE]
    past = dense[:, len(preprocessing.WEATHER) : preprocessing.SUN]
    own = np.asarray([now[column] for column in preprocessing.PAST.values()])
    np.testing.assert_allclose(past, [own, own + 0.125], rtol=1e-6)


@pytest.mark.slow
def test_the_numbers_do_not_depend_on_how_the_rows_come_in_batches(few_rows, transform_graph, tmp_path):
    # Beam tunes the size of batches by the time they take: no two runs need see the same.
    graphs = [analyzed(few_rows, tmp_path / str(size), size) for size in (7, 250)]
    raw = {name: tf.constant(few_rows[name]) for name in RAW_NAMES}
    first, *others = (saved_model.Transform(str(graph), raw, OUTPUTS)(raw) for graph in (transform_graph, *graphs))
    for other in others:
        for name in OUTPUTS:
            assert np.array_equal(first[name], other[name]), name
    weather = np.stack([few_rows[name].astype(np.float64) for name in preprocessing.WEATHER], axis=1)
    z_scores = np.clip((weather - weather.mean(0)) / weather.std(0), -preprocessing.Z_LIMIT, preprocessing.Z_LIMIT)
    np.testing.assert_allclose(first[preprocessing.DENSE][:, : len(preprocessing.WEATHER)], z_scores, atol=2e-6)


@pytest.mark.parametrize("constant", [0.0, 0.19403, 0.2239, 0.3, 0.7])
def test_a_constant_column_has_no_unit_however_its_sums_are_rounded(constant):
    count = 3_000
    raw = {name: values.numpy() for name, values in raw_of(windspeed=np.full(count, constant)).items()}
    learnt = preprocessing.LearntSums.of(raw).learnt()
    again = preprocessing.transformed_columns({**raw, "windspeed": raw["windspeed"] + np.float32(0.05)}, learnt)
    np.testing.assert_allclose(again[preprocessing.DENSE][:, preprocessing.WEATHER.index("windspeed")], 0.05, atol=1e-6)
