from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from bike_pipeline.errors import DataError
from bike_pipeline.modeling import rows


def batch(**columns):
    kinds = {"hr": pa.int64(), "temp": pa.float32()}
    arrays = {name: pa.array(values, pa.list_(kinds[name])) for name, values in columns.items()}
    return pa.RecordBatch.from_pydict(arrays)


def test_batches_become_one_array_a_column_in_their_order():
    first, second = batch(hr=[[1], [2]], temp=[[0.5], [0.25]]), batch(temp=[[0.75]], hr=[[3]])
    columns = rows.to_columns([first, second], ["hr", "temp"])
    assert columns["hr"].tolist() == [1, 2, 3]
    assert columns["temp"].tolist() == [0.5, 0.25, 0.75]
    assert (columns["hr"].dtype, columns["temp"].dtype) == (np.int64, np.float32)
    assert rows.count(columns) == 3


def test_columns_that_were_not_asked_for_are_left_out():
    assert set(rows.to_columns([batch(hr=[[1]], temp=[[0.5]])], ["hr"])) == {"hr"}


@pytest.mark.parametrize(
    "values",
    [
        [[1], []],
        [[1], None],
        [[1], [None]],
        [[1], [2, 3]],
        # As many values as rows, but not one a row.
        [[1, 2], []],
    ],
)
def test_a_row_without_exactly_one_value_is_refused(values):
    with pytest.raises(DataError, match="'hr'"):
        rows.to_columns([batch(hr=[[5]]), batch(hr=values)], ["hr"])


def test_a_column_that_is_absent_is_refused():
    with pytest.raises(DataError, match="'temp'"):
        rows.to_columns([batch(hr=[[5]])], ["hr", "temp"])


def test_a_column_that_is_empty_everywhere_is_refused():
    nothing = pa.RecordBatch.from_pydict({"hr": pa.nulls(3)})
    with pytest.raises(DataError, match="'hr'"):
        rows.to_columns([nothing], ["hr"])


def test_no_rows_are_refused():
    with pytest.raises(DataError, match="no examples"):
        rows.to_columns([], ["hr"])


def test_chunks_hold_every_row_once_in_order():
    columns = {"hr": np.arange(10), "cnt": np.arange(10) * 2}
    parts = list(rows.chunks(columns, 4))
    assert [rows.count(part) for part in parts] == [4, 4, 2]
    for name, values in columns.items():
        assert np.concatenate([part[name] for part in parts]).tolist() == values.tolist()
