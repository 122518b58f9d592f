"""Which rows a window holds: of the newest spans, of the last days, and never fewer than the eval split."""

from __future__ import annotations

import pytest

from bike_pipeline.data.rows import hours_of
from bike_pipeline.data.window import choose, entries, rows_of
from bike_pipeline.errors import DataError
from bike_pipeline.run_cache.rerun import inputs_of
from bike_pipeline.settings import load_settings
from tests.data.making import add


@pytest.fixture
def three(store):
    for month in ("2011-01-01", "2011-02-01", "2011-03-01"):
        add(store, month, 10)
    return store


@pytest.mark.parametrize(("spans", "expected"), [(None, [1, 2, 3]), (1, [3]), (2, [2, 3]), (7, [1, 2, 3])])
def test_spans_are_counted_from_the_newest(three, spans, expected):
    chosen, begin = choose(three, spans, None)
    assert ([found.span for found in chosen], begin) == (expected, None)
    assert entries(three, chosen, begin) == [three.latest(span).identity for span in expected]


# The last day is 10 March; its eval split are the 9th and the 10th.
@pytest.mark.parametrize(
    ("days", "expected", "first", "rows"),
    [
        (3, [3], "2011-03-08T00:00:00", {"train": 24, "eval": 48}),
        (10, [3], None, {"train": 192, "eval": 48}),
        (28, [3], None, {"train": 192, "eval": 48}),
        (29, [2, 3], "2011-02-10T00:00:00", {"train": 0, "eval": 24}),
        (31, [2, 3], "2011-02-08T00:00:00", {"train": 24, "eval": 48}),
        (38, [2, 3], None, {"train": 192, "eval": 48}),
        (60, [1, 2, 3], "2011-01-10T00:00:00", {"train": 0, "eval": 24}),
        (36_500, [1, 2, 3], None, {"train": 192, "eval": 48}),
    ],
)
def test_days_end_with_the_last_one_and_go_over_several_spans(three, days, expected, first, rows):
    found = entries(three, *choose(three, None, days))
    assert [entry["span"] for entry in found] == expected
    assert [entry.get("from") for entry in found] == [first, *[None] * (len(expected) - 1)]
    assert found[0]["rows"] == rows
    read = rows_of(three, found[0])
    assert read.num_rows == sum(rows.values())
    whole = three.read(found[0]["span"], 1)
    assert read.equals(whole.slice(whole.num_rows - read.num_rows))
    assert all(rows_of(three, entry).equals(three.read(entry["span"], 1)) for entry in found[1:])
    assert hours_of(rows_of(three, found[-1]))[-1] == hours_of(three.read(3, 1))[-1]


def test_spans_and_days_both_bound_it(three):
    assert [entry["span"] for entry in entries(three, *choose(three, 1, 31))] == [3]
    assert "from" not in entries(three, *choose(three, 1, 31))[0]


@pytest.mark.parametrize("days", [1, 2])
def test_the_eval_split_is_never_cut(three, days):
    with pytest.raises(DataError, match=r"holds nothing to train on: the last 2 days of span 3 .*to more than 2"):
        choose(three, None, days)


def test_an_empty_store_has_no_window(store):
    with pytest.raises(DataError, match="store is empty"):
        choose(store, 2, 9)


def test_a_rerun_sees_another_window_and_another_version_of_a_cut_span(three, tmp_path):
    def of(*values):
        return inputs_of(load_settings(None, (f"workspace={tmp_path}", "data.window.spans=null", *values)))

    both = [of(), of("data.window.days=31"), of("data.window.days=30")]
    assert len({str(found) for found in both}) == 3
    assert [found["window"] == both[1]["window"] for found in both] == [False, True, True]
    add(three, "2011-02-01", 1, seed=4)
    assert of("data.window.days=31")["window"] != both[1]["window"]
    # Too short for any run: the ordinary way says so.
    assert of("data.window.days=1") is None
