"""Rows whose label came after training, read from a source in any order: all of them sound, each hour once."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from bike_pipeline import features
from bike_pipeline.data.contract import check_rows
from bike_pipeline.data.sources.registry import read_source
from bike_pipeline.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

    from bike_pipeline.data.manifest import SourceRecord

_EPOCH = datetime(1970, 1, 1)
# The label first: it is what an hour that stands there twice is most often wrong in. The row number is none of its own.
_COMPARED = tuple(dict.fromkeys((features.LABEL, *features.COLUMNS[1:])))


def read_labels(source: str, query: str | None, now: datetime) -> tuple[pa.Table, SourceRecord]:
    """Return the rows of a source (see `use_cases.data.ingest`) in time order, and where they came from.

    The same hour may stand there several times, if all of it is the same.

    Args:
        source: as of `use_cases.data.ingest`.
        query: as of `use_cases.data.ingest`.
        now: the time in UTC, without a zone; the rows are in the local time of somewhere.

    Raises:
        DataError: the source cannot be read or is empty, or it holds a row that breaks the feature contract, two
            different ones of an hour, or one of the future.
    """
    from bike_pipeline.data.rows import hours_of

    rows, origin = read_source(source, query=query)
    unchanged = "nothing was changed"
    checked = check_rows(rows, in_order=False)
    accepted = checked.require_all(origin.location, f"correct or leave out these rows; {unchanged}")
    table = accepted.take(np.argsort(hours_of(accepted), kind="stable")).combine_chunks()
    hours = hours_of(table)
    again = np.flatnonzero(hours[1:] == hours[:-1])
    for name in _COMPARED:
        values = table.column(name).to_numpy()
        wrong = again[values[again] != values[again + 1]]
        if len(wrong):
            place = int(wrong[0])
            when = _EPOCH + timedelta(hours=int(hours[place]))
            raise DataError(
                f"the hour {when:%Y-%m-%d %H:00} stands there twice, with {name} {values[place]} and "
                f"{values[place + 1]}",
                where=origin.location,
                fix=f"keep the row that is right; {unchanged}",
            )
    last = _EPOCH + timedelta(hours=int(hours[-1]))
    if last > now + timedelta(days=1):
        raise DataError(
            f"the hour {last:%Y-%m-%d %H:00} has not been yet",
            where=origin.location,
            fix=f"correct the date of that row, or the clock; {unchanged}",
        )
    return table.filter(np.concatenate([[True], hours[1:] != hours[:-1]])), origin
