from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bike_pipeline.modeling.naive_baseline import NaiveBaseline


def mean_absolute_error(model, hour, workingday, label):
    return min(model.errors(hour, workingday, label).values()) / len(label)


ROWS = st.lists(st.tuples(st.integers(0, 23), st.integers(0, 1), st.integers(0, 1000)), min_size=1, max_size=80)


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_each_cell_is_its_mean_and_a_cell_without_rows_is_the_mean_of_all(rows):
    hour, workingday, label = map(np.array, zip(*rows, strict=True))
    table = NaiveBaseline.fit(hour, workingday, label).table
    for day in (0, 1):
        for h in range(24):
            cell = label[(hour == h) & (workingday == day)]
            assert table[day, h] == pytest.approx(cell.mean() if len(cell) else label.mean())


def test_it_predicts_and_measures_its_own_error():
    model = NaiveBaseline.fit(np.array([8, 8, 9]), np.array([1, 1, 0]), np.array([10, 30, 5]))
    assert model.table[[1, 0, 0], [8, 9, 0]].tolist() == [20, 5, 15]
    assert mean_absolute_error(model, np.array([8, 9]), np.array([1, 0]), np.array([26, 5])) == 3


def test_it_is_read_back_as_it_was_written():
    model = NaiveBaseline.fit(np.arange(24), np.tile([0, 1], 12), np.arange(24) / 7)
    assert np.array_equal(NaiveBaseline.from_json(model.to_json()).table, model.table)


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", json.dumps({"mean_rentals_by_workingday_and_hour": [[1, 2]]}),
     json.dumps({"mean_rentals_by_workingday_and_hour": "no"})],
)  # fmt: skip
def test_a_text_that_is_no_table_is_refused(text):
    with pytest.raises(ValueError, match=r"table|Expecting|could not convert"):
        NaiveBaseline.from_json(text)


def test_no_rows_have_no_mean():
    with pytest.raises(ValueError, match="no rows"):
        NaiveBaseline.fit(np.array([]), np.array([]), np.array([]))


def test_the_newest_rows_alone_are_a_reference_too_where_the_level_has_moved() -> None:
    """A label that became constant: the mean of all years misses it by far, and anything beats that."""
    hour, workingday = np.tile(np.arange(24), 20), np.repeat([0, 1], 240)
    label = np.concatenate([np.tile(np.arange(24) * 20, 10), np.full(240, 150)])
    model = NaiveBaseline.fit(hour, np.zeros_like(workingday), label, newest=240)
    later = np.arange(24), np.zeros(24, int), np.full(24, 150)
    assert mean_absolute_error(NaiveBaseline(model.table), *later) > 50
    assert mean_absolute_error(model, *later) == 0
    again = NaiveBaseline.from_json(model.to_json())
    assert again.newest is not None
    assert np.array_equal(again.newest, np.full((2, 24), 150))
    # Where the older rows are nearer, they stay what is to be beaten.
    earlier = np.arange(24), np.zeros(24, int), np.arange(24) * 10 + 75
    assert mean_absolute_error(model, *earlier) == pytest.approx(
        mean_absolute_error(NaiveBaseline(model.table), *earlier)
    )
    assert NaiveBaseline.fit(hour, workingday, label, newest=len(label)).newest is None


def test_the_last_weeks_are_a_reference_of_their_own() -> None:
    """Demand doubles in the last five weeks: the same hour of the same kind of day as lately knows it."""
    hour = np.tile(np.arange(24), 70)
    workingday = np.repeat(np.tile([1, 1, 1, 1, 1, 0, 0], 10), 24)
    label = (hour + 100 * workingday + 10) * np.where(np.arange(len(hour)) >= 35 * 24, 2, 1)
    model = NaiveBaseline.fit(hour, workingday, label)
    rows = np.arange(24), np.ones(24, int), 2 * (np.arange(24) + 110)
    assert model.errors(*rows)["seasonal naive"] == 0
    assert model.errors(*rows)["hourly mean"] > 1000
    again = NaiveBaseline.from_json(model.to_json())
    assert again.tables.keys() == {"hourly mean", "seasonal naive"}
    assert again.errors(*rows) == model.errors(*rows)
    # Four weeks of rows or fewer are all of them.
    assert NaiveBaseline.fit(hour[:672], workingday[:672], label[:672]).recent is None
