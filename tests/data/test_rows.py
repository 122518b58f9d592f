from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bike_pipeline import features
from bike_pipeline.data import rows as stored
from bike_pipeline.data.rows import (
    content_sha256,
    csv_bytes,
    hours_of,
    merge_rows,
    parquet_bytes,
    rows_from_csv,
    rows_from_parquet,
    split_by_time,
)
from bike_pipeline.errors import DataError
from tests.data.making import check, make_row, make_rows

START = dt.datetime(2011, 1, 1)
HOURS = st.sets(st.integers(0, 24 * 40), min_size=1, max_size=120)


def table_of(hours, seed=0):
    return check([make_row(START + dt.timedelta(hours=h), seed=seed, instant=h + 1) for h in sorted(hours)]).accepted


@settings(max_examples=80, deadline=None)
@given(HOURS, st.floats(0.01, 0.99))
def test_eval_is_whole_days_later_than_every_train_day(hours, fraction):
    table = table_of(hours)
    days = sorted({hour // 24 for hour in hours})
    if len(days) < 2:
        with pytest.raises(DataError, match="at least 2 days"):
            split_by_time(table, fraction, "upload")
        return
    train, evaluation = split_by_time(table, fraction, "upload")
    train_days, eval_days = (set((hours_of(part) // 24).tolist()) for part in (train, evaluation))
    assert train_days
    assert eval_days
    assert max(train_days) < min(eval_days)
    assert len(train_days) + len(eval_days) == len(days)
    assert train.num_rows + evaluation.num_rows == table.num_rows
    assert abs(len(eval_days) - fraction * len(days)) <= 1


@pytest.mark.parametrize(("days", "fraction", "expected"), [(10, 0.2, 2), (2, 0.01, 1), (2, 0.99, 1), (5, 0.5, 3)])
def test_the_share_of_the_days_is_rounded_and_each_side_has_one(days, fraction, expected):
    _, evaluation = split_by_time(check(make_rows(days=days)).accepted, fraction, "upload")
    assert evaluation.num_rows == expected * 24


@settings(max_examples=80, deadline=None)
@given(HOURS, HOURS)
def test_a_correction_wins_its_hours_and_nothing_else_changes(old, new):
    merged, kept = merge_rows(table_of(old, seed=1), table_of(new, seed=2))
    expected = [
        make_row(START + dt.timedelta(hours=h), seed=2 if h in new else 1, instant=h + 1) for h in sorted(old | new)
    ]
    assert csv_bytes(merged) == csv_bytes(check(expected).accepted)
    assert kept == len(old - new)


def test_the_content_address_ignores_the_row_number_and_nothing_else():
    rows = make_rows()
    address = content_sha256(check(rows).accepted)
    assert content_sha256(check([row | {"instant": "7"} for row in rows]).accepted) == address
    changed = {"season": "2", "holiday": None, "weathersit": "2", "temp": "0.111", "hum": "0.111", "casual": None}
    for name, value in changed.items():
        for candidate in (value, "3", "1"):
            other = check([rows[0] | {name: candidate or "x"}, *rows[1:]])
            if not other.rejected.num_rows and candidate != rows[0][name]:
                assert content_sha256(other.accepted) != address
    assert content_sha256(check(rows[:-1]).accepted) != address


@settings(max_examples=30, deadline=None)
@given(HOURS, st.integers(0, 1000))
def test_stored_rows_are_read_back_as_they_were(hours, seed):
    table = table_of(hours, seed)
    assert rows_from_csv(csv_bytes(table), "data.csv").equals(table)
    assert rows_from_parquet(parquet_bytes(table), "data.parquet").equals(table)


def test_csv_keeps_every_float_and_marks_it_as_one():
    import pyarrow as pa

    table = table_of(range(48)).slice(0, 6)
    place = table.schema.get_field_index("temp")
    temperatures = pa.array([0.0, -0.0, 1.0, 0.1 + 0.2, 5e-324, 1e22])
    table = table.set_column(place, "temp", temperatures)
    content = csv_bytes(table)
    texts = [line.split(b",")[place] for line in content.splitlines()[1:]]
    assert texts[:3] == [b"0.0", b"-0.0", b"1.0"]
    assert all(b"." in text or b"e" in text for text in texts)
    read = rows_from_csv(content, "data.csv").column("temp").combine_chunks()
    assert read.buffers()[1].to_pybytes() == temperatures.buffers()[1].to_pybytes()


def test_the_content_address_is_that_of_the_whole_csv(monkeypatch):
    import hashlib

    import pyarrow as pa

    table = table_of(range(60))
    whole = csv_bytes(table.set_column(0, "instant", pa.array([0] * 60, pa.int64())))
    monkeypatch.setattr(stored, "ROWS_PER_FILE", 7)
    assert table.column_names[0] == "instant"
    assert content_sha256(table) == hashlib.sha256(whole).hexdigest()


def test_damaged_parquet_is_one_clear_error():
    import pyarrow as pa

    table = table_of(range(48))
    other = table.set_column(1, "dteday", table.column("dteday").cast(pa.string()))
    for content in (b"", b"PAR1", parquet_bytes(table)[:-9], parquet_bytes(other)):
        with pytest.raises(DataError, match="cannot be read"):
            rows_from_parquet(content, "data.parquet")


@pytest.mark.parametrize(
    "content", [b"", b"a,b\n1,2\n", b"instant\nx\n", (",".join(features.COLUMNS) + "\nx" * 2).encode()]
)
def test_damaged_stored_rows_are_one_clear_error(content):
    with pytest.raises(DataError, match="cannot be read"):
        rows_from_csv(content, "data.csv")
