from __future__ import annotations

import datetime as dt
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bike_pipeline.data.placement import Placement, SpanRange, assign_span
from bike_pipeline.errors import DataError

START = dt.datetime(2011, 1, 1)


def at(hour):
    return START + dt.timedelta(hours=hour)


def existing(*ranges):
    return [SpanRange(span, at(first), at(last)) for span, first, last in ranges]


TWO = existing((2, 100, 199), (10, 300, 399))


@pytest.mark.parametrize(
    ("first", "last", "span", "expected"),
    [
        (400, 500, None, Placement(11, merges=False)),
        (399, 500, None, Placement(10, merges=True)),
        (300, 300, None, Placement(10, merges=True)),
        (0, 100, None, Placement(2, merges=True)),
        (150, 160, 2, Placement(2, merges=False)),
        (201, 299, 2, Placement(2, merges=False)),
        (200, 299, 5, Placement(5, merges=False)),
        (0, 99, 1, Placement(1, merges=False)),
        (400, 500, 9999, Placement(9999, merges=False)),
    ],
)
def test_where_an_upload_goes(first, last, span, expected):
    assert assign_span(TWO, at(first), at(last), span, "upload") == expected


def test_the_first_upload_is_span_1():
    assert assign_span([], at(0), at(9), None, "upload") == Placement(1, merges=False)


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
        assign_span(TWO, at(first), at(last), span, "upload")


def test_the_numbers_end_somewhere():
    with pytest.raises(DataError, match="outside of 1 to 9999"):
        assign_span(existing((9999, 0, 9)), at(10), at(20), None, "upload")


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30), st.none() | st.integers(1, 12)), max_size=12))
def test_whatever_is_accepted_the_spans_follow_each_other_in_time(uploads):
    store = {}
    for first, length, span in uploads:
        last = first + length
        taken = [SpanRange(number, at(a), at(b)) for number, (a, b) in store.items()]
        try:
            found = assign_span(taken, at(first), at(last), span, "upload")
        except DataError:
            continue
        a, b = store.get(found.span, (first, last)) if found.merges else (first, last)
        store[found.span] = (min(a, first), max(b, last))
        ranges = [store[number] for number in sorted(store)]
        assert all(before[1] < after[0] for before, after in itertools.pairwise(ranges))
