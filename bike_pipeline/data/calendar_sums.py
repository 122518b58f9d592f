"""What a split holds day by day and hour by hour: the sums that the data gate's checks against the calendar need.

StatisticsGen takes them in the pass that it makes anyway, a file at a time, on any engine. They add up: the sums of two
files are those of all their rows.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bike_pipeline import features
from bike_pipeline.errors import DataError
from bike_pipeline.stages import Stage

if TYPE_CHECKING:
    import pyarrow as pa

Array = npt.NDArray[Any]

WEATHER = ("temp", "atemp", "hum", "windspeed")
# Columns of `CalendarSums.days`.
ROWS, LABEL, LABEL_SQUARED, TEMP_BY_ATEMP = range(4)
FIRST_WEATHER = 4
DAY_COLUMNS = FIRST_WEATHER + 2 * len(WEATHER)
# What a row is recognized by under another date; a row has its own date and hour, and so they are no part of it.
CONTENT = (*WEATHER, "casual", "registered", features.LABEL)
COLUMNS = (features.DATE, features.HOUR, *CONTENT)
# So many rows are remembered by their content: all of a split up to that, above it those with the smallest hashes,
# which are the same rows wherever they stand again.
MOST_HASHES = 16_384
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def iso_date(number: int) -> str:
    """Return a number of days since 1970-01-01 as an ISO date."""
    return str(np.datetime64(int(number), "D"))


def calendar_of(days: Array) -> dict[str, Array]:
    """Return `yr`, `mnth`, `day` (of the month) and `weekday` (Sunday = 0), each (rows,), of days since 1970-01-01."""
    dates = days.astype("datetime64[D]")
    first = dates.astype("datetime64[M]")
    months, day = first.astype(np.int64), (dates - first).astype(np.int64) + 1
    # The first of January 1970 was a Thursday.
    weekday = (days + 4) % 7
    return {"yr": months // 12 + 1970 - features.FIRST_YEAR, "mnth": months % 12 + 1, "day": day, "weekday": weekday}


def weather_column(name: str) -> tuple[int, int]:
    """Return the columns of `CalendarSums.days` with the sums of a weather column and of its squares."""
    place = FIRST_WEATHER + 2 * WEATHER.index(name)
    return place, place + 1


@dataclass(frozen=True)
class CalendarSums:
    """Sums over the rows of a split.

    Attributes:
        dates: days since 1970-01-01 that have rows, rising; int64 of shape (days,).
        days: for each of them rows, Σ label, Σ label², Σ temp × atemp, and for each of `WEATHER` Σ and Σ of squares;
            float64 of shape (days, DAY_COLUMNS), in the units of the columns.
        hours: for each hour of the day rows and Σ label; float64 of shape (24, 2).
        hashes: of the rows' content, the smallest ones, rising and distinct; uint64 of shape (hashes,).
        counts: rows with each of them; int64 of shape (hashes,).
    """

    dates: Array
    days: Array
    hours: Array
    hashes: Array
    counts: Array

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.days[:, ROWS].sum())

    @property
    def complete(self) -> bool:
        """Whether every row's content hash is kept."""
        return len(self.hashes) < MOST_HASHES

    def rows_by(self, column: str) -> dict[int, int]:
        """Return the number of rows by "hr", "weekday" (Sunday = 0) or "mnth"."""
        if column == features.HOUR:
            return {hour: int(rows) for hour, rows in enumerate(self.hours[:, 0])}
        values = calendar_of(self.dates)[column]
        return {int(value): int(self.days[values == value, ROWS].sum()) for value in np.unique(values)}

    def to_bytes(self) -> bytes:
        """Return the sums as a NumPy archive."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer, dates=self.dates, days=self.days, hours=self.hours, hashes=self.hashes, counts=self.counts
        )
        return buffer.getvalue()


def file_of(statistics_uri: str, split: str) -> str:
    """Return where the sums of a split lie beside its statistics."""
    return os.path.join(statistics_uri, "calendar", f"{split}.npz")


def from_bytes(content: bytes, where: str) -> CalendarSums:
    """Return what `to_bytes` wrote; a DataError if it is no such archive."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            found = CalendarSums(**stored)
        if found.days.shape != (len(found.dates), DAY_COLUMNS) or found.hours.shape != (24, 2):
            raise ValueError("it has another shape")
    except Exception as error:
        raise DataError(
            f"the sums by day cannot be read ({error})", where=where, fix="run again with --no-cache"
        ) from error
    return found


def of_batch(batch: pa.RecordBatch) -> CalendarSums:
    """Return the sums of a record batch: every column a list with one value a row, dates as ISO text."""
    import pyarrow as pa

    columns = {}
    for name in COLUMNS:
        index = batch.schema.get_field_index(name)
        values = batch.column(index).flatten() if index >= 0 else None
        if values is None or len(values) != batch.num_rows or values.null_count:
            raise DataError(
                f"the examples lack values of '{name}'",
                where=Stage.STATISTICS_GEN,
                fix="every row of a span has all columns of the contract: run again with --no-cache",
            )
        if name == features.DATE:
            values = values.cast(pa.string()).cast(pa.date32()).cast(pa.int32())
        columns[name] = values.to_numpy(zero_copy_only=False)
    return of_rows(columns)


def of_rows(columns: Mapping[str, Array]) -> CalendarSums:
    """Return the sums of `COLUMNS`, each of shape (rows,), at least one row; dates as days since 1970-01-01."""
    dates = np.asarray(columns[features.DATE], np.int64)
    if (dates[1:] < dates[:-1]).any():
        order = np.argsort(dates, kind="stable")
        columns, dates = {name: np.asarray(values)[order] for name, values in columns.items()}, dates[order]
    starts = np.flatnonzero(np.diff(dates, prepend=dates[:1] - 1))
    label = np.asarray(columns[features.LABEL], np.float64)
    weather = [np.asarray(columns[name], np.float64) for name in WEATHER]
    terms = [np.ones_like(label), label, label**2, weather[0] * weather[1]]
    for values in weather:
        terms += [values, values**2]
    days = np.stack([np.add.reduceat(term, starts) for term in terms], axis=1)
    hour = np.asarray(columns[features.HOUR], np.int64)
    hours = np.stack([np.bincount(hour, minlength=24)[:24], np.bincount(hour, label, 24)[:24]], axis=1)
    hashes, counts = np.unique(_hashes(columns), return_counts=True)
    return CalendarSums(dates[starts], days, hours.astype(np.float64), *_smallest(hashes, counts))


def total(parts: Sequence[CalendarSums]) -> CalendarSums:
    """Return the sums of all parts, added up in their order; those of no rows if there are no parts."""
    if not parts:
        none = np.zeros(0, np.int64)
        return CalendarSums(none, np.zeros((0, DAY_COLUMNS)), np.zeros((24, 2)), none.astype(np.uint64), none)
    dates, place = np.unique(np.concatenate([part.dates for part in parts]), return_inverse=True)
    days = np.zeros((len(dates), DAY_COLUMNS))
    np.add.at(days, place, np.concatenate([part.days for part in parts]))
    hashes, place = np.unique(np.concatenate([part.hashes for part in parts]), return_inverse=True)
    counts = np.zeros(len(hashes), np.int64)
    np.add.at(counts, place, np.concatenate([part.counts for part in parts]))
    # Above the smallest part's largest hash that part remembers nothing.
    known = min((int(part.hashes[-1]) for part in parts if not part.complete), default=None)
    if known is not None:
        kept = hashes <= np.uint64(known)
        hashes, counts = hashes[kept], counts[kept]
    return CalendarSums(dates, days, np.sum([part.hours for part in parts], axis=0), *_smallest(hashes, counts))


def _smallest(hashes: Array, counts: Array) -> tuple[Array, Array]:
    return hashes[:MOST_HASHES], counts[:MOST_HASHES].astype(np.int64)


def _hashes(columns: Mapping[str, Array]) -> Array:
    """Return a hash of each row's content, uint64 of shape (rows,)."""
    found = np.zeros(len(columns[features.LABEL]), np.uint64)
    for name in CONTENT:
        values = np.asarray(columns[name])
        bits = values.astype(np.float32).view(np.uint32) if values.dtype.kind == "f" else values.astype(np.int64)
        found ^= bits.astype(np.uint64) + _GOLDEN + (found << np.uint64(6)) + (found >> np.uint64(2))
        # The finalizer of SplitMix64 (Steele, Lea and Flood 2014): every bit of the input changes every bit.
        found = (found ^ (found >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        found = (found ^ (found >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        found ^= found >> np.uint64(31)
    return found
