"""Rows for the scale benchmark: as many hours as asked for, each day copied from a real one.

Hours are unique in the row contract, so a million rows are 114 years of them. Each day takes hours, weather and rentals
from the real day nearest to the same day of the year and of the same day of the week; the rentals of 2011 are raised to
the level of 2012, so that the two years alternate without a step, and each hour's are varied by up to a tenth.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from bike_pipeline import features
from bike_pipeline.data.embedded_dataset import embedded_bytes

SEED = 20110101
VARIATION = 0.1
# The last year whose date has four digits, as ISO texts need.
LAST_YEAR = 9999


def make_rows(count: int) -> pa.Table:
    """Return `count` rows that pass the row contract, in time order: the same for the same count.

    Raises:
        ValueError: so many hours go beyond the year 9999.
    """
    real = pc.read_csv(io.BytesIO(embedded_bytes()), read_options=pc.ReadOptions(use_threads=False))
    columns = {name: real.column(name).to_numpy() for name in features.COLUMNS}
    days = columns[features.DATE].astype("datetime64[D]")
    first = days[0]
    starts = np.searchsorted(days, np.arange(first, days[-1] + 1))
    lengths = np.diff(np.append(starts, len(days)))
    total = int(count / lengths.mean() * 1.02) + 30
    calendar = first + np.arange(total)
    if calendar[-1].astype("datetime64[Y]").astype(int) + 1970 > LAST_YEAR:
        raise ValueError(f"{count:,} hours go beyond the year {LAST_YEAR}")
    source = _source_day(calendar, first, len(lengths))
    hours = lengths[source]
    row = np.repeat(starts[source] - np.cumsum(hours) + hours, hours) + np.arange(hours.sum())
    row = row[:count]
    day = np.repeat(calendar, hours)[:count]
    return pa.table(_columns(columns, row, day))


def _source_day(calendar: npt.NDArray[np.datetime64], first: np.datetime64, real_days: int) -> npt.NDArray[np.int64]:
    """Return for each day the number of the real day it copies."""
    years = calendar.astype("datetime64[Y]").astype(int) + 1970
    day_of_year = (calendar - calendar.astype("datetime64[Y]")).astype(int)
    base = np.where(years % 2 == 0, 365, 0) + day_of_year
    # Both calendars count from the same day, so equal remainders are equal days of the week.
    shift = ((calendar - first).astype(int) - base) % 7
    source = base + np.where(shift > 3, shift - 7, shift)
    source = np.where(source < 0, source + 7, source)
    copied: npt.NDArray[np.int64] = np.where(source >= real_days, source - 7, source)
    return copied


def _columns(
    real: dict[str, npt.NDArray[np.generic]], row: npt.NDArray[np.int64], day: npt.NDArray[np.datetime64]
) -> dict[str, pa.Array]:
    months = day.astype("datetime64[M]").astype(int)
    weekday = (day.astype(int) + 4) % 7  # 1970-01-01 was a Thursday, which is 4
    holiday = real["holiday"][row]
    level = real[features.LABEL][real["yr"] == 1].mean() / real[features.LABEL][real["yr"] == 0].mean()
    raised = np.where(real["yr"] == 0, level, 1.0)
    generator = np.random.default_rng(SEED)
    varied = generator.uniform(1 - VARIATION, 1 + VARIATION, len(row)) * raised[row]
    casual, registered = (np.rint(real[name][row] * varied).astype(np.int64) for name in ("casual", "registered"))
    computed = {
        "instant": np.arange(1, len(row) + 1),
        features.DATE: day,
        "yr": months // 12 + 1970 - features.FIRST_YEAR,
        "mnth": months % 12 + 1,
        "weekday": weekday,
        "workingday": ((weekday >= 1) & (weekday <= 5) & (holiday == 0)).astype(np.int64),
        "casual": casual,
        "registered": registered,
        features.LABEL: casual + registered,
    }
    return {name: pa.array(computed[name] if name in computed else real[name][row]) for name in real}


def write_upload(count: int, path: Path) -> None:
    """Write `count` rows as CSV or Parquet, by the path's ending."""
    table = make_rows(count)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        pc.write_csv(table, path, pc.WriteOptions(quoting_style="none"))
