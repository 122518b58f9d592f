"""Rows that are good, and what reads them from a source."""

from __future__ import annotations

from bike_pipeline.data.contract import check_rows
from bike_pipeline.data.sources.registry import read_source
from tests.data.making import check, make_rows, to_csv

ROWS = make_rows(days=4)
GOOD = to_csv(ROWS)
ACCEPTED = check(ROWS).accepted


def read(source, query=None):
    rows, description = read_source(str(source), query=query)
    checked = check_rows(rows)
    assert checked.rejected.num_rows == 0, checked.rejected["reasons"][0]
    return checked.accepted, description
