"""The feature contract applied to rows: what passes, what goes to quarantine, and every reason why.

`check_rows` is for rows of a source; `serving.records` reads the records of a client by the same functions.

A row passes when each of its columns is there, of its type, finite and in its range (`features.py`); when `yr`, `mnth`
and `weekday` agree with the date, `workingday` with weekday and holiday, and `cnt` is casual + registered; when it
stands in time order; and when no earlier row has the same date and hour.

Two rules need a word. *Order*: of the rows that are sound by themselves, the longest run in time order stays and the
rest is rejected, so one date typed wrongly costs one row and not every row after it. *Duplicates*: the first sound row
of an hour stays, the later ones are rejected; a broken row never displaces a sound one.

The quarantine keeps every rejected row as it stood in its source, with its place there and all its reasons. It is
itself a valid source: once its values are corrected it can be ingested, since the columns that say what was wrong are
not part of the feature contract.
"""

from __future__ import annotations

import bisect
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pc

from bike_pipeline import features
from bike_pipeline.data.calendar_sums import calendar_of
from bike_pipeline.data.columns import Mask, Problem, parse_column
from bike_pipeline.data.sources.source_rows import SourceRows
from bike_pipeline.errors import DataError

Numbers = npt.NDArray[np.int64]

_FRIDAY = 5
HOURS_PER_DAY = 24


@dataclass(frozen=True)
class CheckedRows:
    """The outcome of the row checks.

    Attributes:
        accepted: rows that passed, in time order unless that was not asked for; columns of
            `features.COLUMNS` as int64, float64 and date32.
        rejected: the quarantine, one row a rejected row in the source's order: file, line, reasons (separated by
            "; "), text (of lines that could not be cut into fields) and the columns as texts, as they stood there.
        reasons: how many rows each kind of reason rejects; a row counts once a kind, so the sum can exceed `rejected`.
        total: rows read.
    """

    accepted: pa.Table
    rejected: pa.Table
    reasons: dict[str, int]
    total: int

    def require_all(self, where: str, fix: str) -> pa.Table:
        """Return the accepted rows if these are all; a DataError names the first of the others."""
        if self.rejected.num_rows:
            (first,) = self.rejected.slice(0, 1).to_pylist()
            raise DataError(
                f"{self.rejected.num_rows:,} of {self.total:,} rows break the feature contract; the first, line "
                f"{first['line']} of {first['file']}: {first['reasons']}",
                where=where,
                fix=fix,
            )
        return self.accepted


def contract_sha256() -> str:
    """Return the SHA-256 of the feature contract: it changes when a column, type, role, range, unit or meaning does."""
    text = json.dumps([features.as_record(feature) for feature in features.FEATURES], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def check_rows(rows: SourceRows, *, in_order: bool = True) -> CheckedRows:
    """Check every row of a source against the contract; without `in_order` but for the order and repeated hours."""
    values: dict[str, Any] = {}
    valid: dict[str, Mask] = {}
    problems: list[Problem] = []
    where = ", ".join(rows.names[:3])
    for feature in features.FEATURES:
        values[feature.name], valid[feature.name], found = parse_column(feature, rows.table.column(feature.name), where)
        problems += found
    problems += agreement(values, valid)
    sound = np.ones(rows.table.num_rows, dtype=bool)
    for problem in problems:
        sound &= ~problem.mask
    hours = values[features.HOUR]
    placed = valid[features.DATE] & valid[features.HOUR] & (hours >= 0) & (hours < HOURS_PER_DAY)
    keys = np.where(placed, values[features.DATE] * HOURS_PER_DAY + np.where(placed, hours, 0), 0)
    accepted, late = _order_and_repeats(keys, placed, sound, rows.lines) if in_order else (sound, [])
    problems += late
    reasons = {"fields": len(rows.broken)} if rows.broken else {}
    for kind in {problem.kind for problem in problems}:
        reasons[kind] = int(np.any([problem.mask for problem in problems if problem.kind == kind], axis=0).sum())
    keep = pa.array(accepted)
    columns = {}
    for feature in features.FEATURES:
        array = pa.array(values[feature.name]).filter(keep)
        columns[feature.name] = array.cast(pa.int32()).cast(pa.date32()) if feature.kind == "date" else array
    return CheckedRows(
        accepted=pa.table(columns),
        rejected=_quarantine(rows, problems, ~accepted),
        reasons=dict(sorted(reasons.items())),
        total=len(sound) + len(rows.broken),
    )


def is_workingday(weekday: Numbers, holiday: Numbers) -> Numbers:
    """Return `workingday`, (rows,), from weekday (Sunday = 0) and holiday."""
    found: Numbers = ((weekday >= 1) & (weekday <= _FRIDAY) & (holiday == 0)).astype(np.int64)
    return found


def agreement(values: dict[str, Any], valid: dict[str, Mask]) -> list[Problem]:
    """Return the problems between columns of one row.

    Args:
        values: (rows,) by column: dates as days since 1970-01-01. An absent column agrees with everything.
        valid: which rows have a value, (rows,) by column.
    """
    problems = []

    def disagree(name: str, expected: Any, known: Mask, reason: str) -> None:
        mask, found = known & valid[name] & (values[name] != expected), values[name]
        problems.append(Problem("agreement", mask, lambda row: f"{name}: {found[row]} but {reason} {expected[row]}"))

    dated = valid[features.DATE]
    for name, expected in calendar_of(values[features.DATE]).items():
        if name in values:
            disagree(name, expected, dated, "the date says")
    # A year of the calendar in place of the years since 2011; with a date, the date has said so above.
    years, beyond = values["yr"], f"is above {features.MOST_YEARS} (it counts from {features.FIRST_YEAR})"
    many = ~dated & valid["yr"] & (years > features.MOST_YEARS)
    problems.append(Problem("range", many, lambda row: f"yr: {years[row]} {beyond}"))
    known = valid["weekday"] & valid["holiday"]
    disagree("workingday", is_workingday(values["weekday"], values["holiday"]), known, "weekday and holiday say")
    if features.LABEL in values:
        total = values["casual"] + values["registered"]
        disagree(features.LABEL, total, valid["casual"] & valid["registered"], "casual + registered is")
    return [problem for problem in problems if problem.mask.any()]


def _order_and_repeats(keys: Numbers, placed: Mask, sound: Mask, lines: Numbers) -> tuple[Mask, list[Problem]]:
    """Return which rows are accepted, and the problems of order and of repeated hours that the others have.

    Args:
        keys: (rows,): hours since 1970-01-01.
        placed: (rows,): which rows have a valid date and hour.
        sound: (rows,): which rows are right by themselves.
        lines: (rows,): line numbers, for the reasons.
    """
    index = np.flatnonzero(sound)
    kept = index[_longest_run(keys[index])]
    accepted = np.zeros(len(keys), dtype=bool)
    accepted[kept] = True
    if not len(kept) or accepted.all():
        return accepted, []
    kept_keys = keys[kept]
    rows = np.arange(len(keys))
    after = np.searchsorted(kept, rows)  # position of the first kept row at or after each row
    before = np.maximum(after - 1, 0)
    following = np.minimum(after, len(kept) - 1)
    left = placed & ~accepted
    back = left & (after > 0) & (keys < kept_keys[before])
    ahead = left & (after < len(kept)) & (keys > kept_keys[following])
    same = np.minimum(np.searchsorted(kept_keys, keys), len(kept) - 1)
    repeats = left & (kept_keys[same] == keys) & (kept[same] < rows)
    problems = [
        Problem("order", back, lambda row: f"order: line {lines[kept[before[row]]]} before it is later"),
        Problem("order", ahead, lambda row: f"order: line {lines[kept[following[row]]]} after it is earlier"),
        Problem(
            "duplicate", repeats, lambda row: f"duplicate: line {lines[kept[same[row]]]} has the same date and hour"
        ),
    ]
    return accepted, [problem for problem in problems if problem.mask.any()]


def _longest_run(keys: Numbers) -> Numbers:
    """Return the positions of a longest strictly increasing subsequence, the first of equal neighbours.

    Patience sorting, O(n log n).
    """
    steps = np.diff(keys)
    if bool((steps >= 0).all()):
        return np.flatnonzero(np.concatenate([[True], steps > 0])[: len(keys)])
    tails: list[int] = []
    ends: list[int] = []
    previous: list[int] = []
    for position, key in enumerate(keys.tolist()):
        place = bisect.bisect_left(tails, key)
        previous.append(ends[place - 1] if place else -1)
        if place == len(tails):
            tails.append(key)
            ends.append(position)
        elif key < tails[place]:
            tails[place], ends[place] = key, position
    chain = []
    position = ends[-1]
    while position >= 0:
        chain.append(position)
        position = previous[position]
    return np.array(chain[::-1], dtype=np.int64)


def _quarantine(rows: SourceRows, problems: Sequence[Problem], rejected: Mask) -> pa.Table:
    """Return the quarantine of the rows that do not pass, in the source's order, broken lines among them."""
    index = np.flatnonzero(rejected)
    reasons: dict[int, list[str]] = {int(row): [] for row in index}
    for problem in problems:
        for row in np.flatnonzero(problem.mask):
            reasons[int(row)].append(problem.describe(int(row)))
    where = np.concatenate([rows.files[index], np.array([line.file for line in rows.broken], dtype=np.int64)])
    lines = np.concatenate([rows.lines[index], np.array([line.line for line in rows.broken], dtype=np.int64)])
    columns = {
        "file": pa.array([rows.names[file] for file in where], type=pa.string()),
        "line": pa.array(lines),
        "reasons": pa.array(
            [*("; ".join(found) for found in reasons.values()), *(line.reason for line in rows.broken)], pa.string()
        ),
        "text": pa.array([*([None] * len(index)), *(line.text for line in rows.broken)], type=pa.string()),
    }
    gap = pa.nulls(len(rows.broken), type=pa.string())
    taken = rows.table.take(pa.array(index))
    for name in features.COLUMNS:
        texts = taken.column(name).cast(pa.string()).chunks
        columns[name] = pa.chunked_array([*texts, gap], type=pa.string())
    return pa.table(columns).take(pa.array(np.lexsort((lines, where))))


def quarantine_csv(table: pa.Table) -> bytes:
    """Return a quarantine as CSV (UTF-8, LF line ends, quoted where needed)."""
    buffer = io.BytesIO()
    pc.write_csv(table, buffer, pc.WriteOptions(include_header=False))
    return (",".join(table.column_names) + "\n").encode() + buffer.getvalue()
