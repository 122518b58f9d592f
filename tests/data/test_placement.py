from __future__ import annotations

import datetime as dt
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bike_pipeline.data.manifest import TimeRange
from bike_pipeline.data.placement import assign_span
from bike_pipeline.errors import DataError

START = dt.datetime(2011, 1, 1)


def at(hour):
    return START + dt.timedelta(hours=hour)


def hours(first, last):
    return TimeRange(first=at(first), last=at(last))


def existing(*ranges):
    return {span: hours(first, last) for span, first, last in ranges}


TWO = existing((2, 100, 199), (10, 300, 399))


@pytest.mark.parametrize(
    ("first", "last", "span", "expected"),
    [
        (400, 500, None, (11, False)),
        (399, 500, None, (10, True)),
        (300, 300, None, (10, True)),
        (0, 100, None, (2, True)),
        (150, 160, 2, (2, False)),
        (201, 299, 2, (2, False)),
        (200, 299, 5, (5, False)),
        (0, 99, 1, (1, False)),
        (400, 500, 9999, (9999, False)),
    ],
)
def test_where_an_upload_goes(first, last, span, expected):
    assert assign_span(TWO, hours(first, last), span, "upload") == expected


def test_the_first_upload_is_span_1():
    assert assign_span({}, hours(0, 9), None, "upload") == (1, False)
    assert assign_span({}, hours(0, 9), None, "upload", extend_newest=True) == (1, False)


def test_what_goes_on_with_the_newest_span_is_what_is_later_than_everything_alone():
    assert assign_span(TWO, hours(400, 500), None, "upload", extend_newest=True) == (10, True)
    assert assign_span(TWO, hours(150, 160), None, "upload", extend_newest=True) == (2, True)
    assert assign_span(TWO, hours(400, 500), 11, "upload", extend_newest=True) == (11, False)


@pytest.mark.parametrize(
    ("first", "last", "span", "message"),
    [
        (150, 350, None, "overlap the spans 2, 10"),
        (0, 1000, None, "overlap the spans 2, 10"),
        (200, 299, None, "earlier than span 10 and overlap no span"),
        (0, 99, None, "earlier than span 2 and overlap no span"),
        (400, 500, 5, "have to be earlier than span 10"),
        (250, 350, 5, "have to be earlier than span 10"),
        (150, 250, 5, "have to be later than span 2"),
        (0, 99, 11, "have to be later than span"),
        (400, 500, 0, "outside of 1 to 9999"),
        (400, 500, 10000, "outside of 1 to 9999"),
        (400, 500, -1, "outside of 1 to 9999"),
    ],
)
def test_what_breaks_the_order_of_the_spans_is_refused(first, last, span, message):
    with pytest.raises(DataError, match=message):
        assign_span(TWO, hours(first, last), span, "upload")


def test_the_numbers_end_somewhere():
    with pytest.raises(DataError, match="outside of 1 to 9999"):
        assign_span(existing((9999, 0, 9)), hours(10, 20), None, "upload")


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30), st.none() | st.integers(1, 12)), max_size=12))
def test_whatever_is_accepted_the_spans_follow_each_other_in_time(uploads):
    store = {}
    for first, length, span in uploads:
        last = first + length
        taken = {number: hours(a, b) for number, (a, b) in store.items()}
        try:
            number, merges = assign_span(taken, hours(first, last), span, "upload")
        except DataError:
            continue
        a, b = store.get(number, (first, last)) if merges else (first, last)
        store[number] = (min(a, first), max(b, last))
        ranges = [store[number] for number in sorted(store)]
        assert all(before[1] < after[0] for before, after in itertools.pairwise(ranges))
