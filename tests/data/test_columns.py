"""Values of every type that a source may hand over."""

from __future__ import annotations

import datetime as dt
import decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bike_pipeline import features
from bike_pipeline.data.columns import parse_column
from bike_pipeline.data.contract import check_rows, quarantine_csv
from bike_pipeline.data.sources.content import read_content
from bike_pipeline.errors import DataError
from tests.data.making import check, make_rows

DAY = dt.date(2012, 6, 1)
SECONDS = int(dt.datetime(2012, 6, 1, tzinfo=dt.UTC).timestamp())
DAYS = SECONDS // 86_400


def read(name, array):
    values, valid, problems = parse_column(features.BY_NAME[name], array, "upload")
    reasons = [[problem.describe(row) for problem in problems if problem.mask[row]] for row in range(len(array))]
    return values.tolist(), valid.tolist(), reasons


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC"])
def test_a_date_is_read_in_every_unit_of_time(unit, zone):
    step = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    array = pa.array([SECONDS * step, None, SECONDS * step + 1], pa.timestamp(unit, zone))
    values, valid, reasons = read("dteday", array)
    assert values[0] == DAYS
    assert valid == [True, False, False]
    assert reasons[:2] == [[], ["dteday: missing"]]
    assert reasons[2][0].startswith("dteday: '2012-06-01 00:00:0")
    assert reasons[2][0].endswith("is not a date (YYYY-MM-DD)")


@pytest.mark.parametrize(
    "array", [pa.array([DAY], pa.date32()), pa.array([DAY], pa.date64())], ids=["date32", "date64"]
)
def test_a_date_without_a_time_is_read(array):
    assert read("dteday", array) == ([DAYS], [True], [[]])


@pytest.mark.parametrize(
    "array",
    [pa.array([2**30], pa.date32()), pa.array([2**50], pa.timestamp("s")), pa.array([-(2**60)], pa.timestamp("us"))],
    ids=["date32", "seconds", "microseconds"],
)
def test_a_date_beyond_the_calendar_is_none(array):
    _, valid, ((reason,),) = read("dteday", array)
    assert valid == [False]
    assert "is not a date" in reason


def test_an_unsigned_integer_is_never_below_0():
    array = pa.array([23, 24, 2**63, 2**64 - 1, None], pa.uint64())
    assert read("hr", array)[2] == [
        [],
        ["hr: 24 is above 23"],
        ["hr: 9223372036854775808 is too large for an integer"],
        ["hr: 18446744073709551615 is too large for an integer"],
        ["hr: missing"],
    ]
    assert read("cnt", array)[1] == [True, True, False, False, False]
    assert read("temp", array)[2][2:4] == [
        ["temp: 9223372036854775808 is above 1"],
        ["temp: 18446744073709551615 is above 1"],
    ]


@pytest.mark.parametrize("text", ["9223372036854775808", "9" * 5000, "-" + "9" * 30, "9" * 20 + ".0"])
def test_an_integer_of_many_digits_is_one_reason(text):
    _, valid, ((reason,),) = read("cnt", pa.array([text]))
    assert valid == [False]
    assert "is too large for an integer" in reason
    assert len(reason) < 100


def test_letters_that_only_look_like_infinity_are_no_number():
    assert read("temp", pa.array(["\u0131nf", "\u0130nfinity", "inf"]))[2] == [
        ["temp: '\u0131nf' is not a number"],
        ["temp: '\u0130nfinity' is not a number"],
        ["temp: 'inf' is not finite"],
    ]


def test_other_types_of_numbers_and_texts_are_read_by_their_value():
    assert read("temp", pa.array(np.array([0.5, np.nan], np.float16)))[2] == [[], ["temp: 'nan' is not finite"]]
    amounts = pa.array([decimal.Decimal(3), decimal.Decimal("3.5")], pa.decimal128(30, 2))
    assert read("hr", amounts)[2] == [[], ["hr: '3.50' is not an integer"]]
    assert read("hr", pa.array(["3", "x"], pa.string_view()))[2] == [[], ["hr: 'x' is not an integer"]]


@pytest.mark.parametrize(
    "kind",
    [pa.time64("ns"), pa.duration("ns"), pa.list_(pa.int64()), pa.binary(), pa.struct([("a", pa.int8())])],
    ids=str,
)
def test_a_type_that_holds_no_such_values_is_one_clear_error(kind):
    with pytest.raises(DataError, match=r"column hr has the type .*, which cannot hold an integer"):
        read("hr", pa.array([None], kind))


def test_a_parquet_file_of_pandas_goes_through_to_the_quarantine(tmp_path):
    table = check(make_rows(days=2)).accepted
    stamps = np.repeat(np.array([0, 1], dtype=np.int64), 24)
    days = table["dteday"].cast(pa.timestamp("ns")).cast(pa.int64()).to_numpy() + stamps
    table = table.set_column(1, "dteday", pa.array(days).cast(pa.timestamp("ns")))
    counts = table["casual"].to_numpy().astype(np.uint64)
    counts[3] = 2**64 - 1
    table = table.set_column(table.schema.get_field_index("casual"), "casual", pa.array(counts))
    pq.write_table(table, tmp_path / "a.parquet")
    checked = check_rows(read_content((tmp_path / "a.parquet").read_bytes(), "a.parquet"))
    assert (checked.accepted.num_rows, checked.rejected.num_rows) == (23, 25)
    text = quarantine_csv(checked.rejected).decode()
    assert "casual: 18446744073709551615 is too large for an integer" in text
    assert "dteday: '2011-01-02 00:00:00.000000001' is not a date" in text
