"""The feature contract applied to rows: what passes, what goes to quarantine, and every reason why.

`check_rows` is for rows of a source; `serving.records` reads the records of a client by the same functions.

A row passes when each of its columns is there, of its type, finite and in its range (`features.py`); when `yr`, `mnth`
and `weekday` agree with the date, `workingday` with weekday and holiday, and `cnt` is casual + registered; when it
stands in time order; and when no earlier row has the same date and hour.

Two rules need a word. *Order*: of the rows that are sound by themselves, the longest run in time order stays and the
rest is rejected, so one date typed wrongly costs one row and not every row after it. *Duplicates*: the first sound row
of an hour stays, the later ones are rejected; a broken row never displaces a sound one.
"""

from __future__ import annotations

import bisect
import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bike_pipeline import features
from bike_pipeline.data.columns import Problem, parse_column
from bike_pipeline.data.quarantine import quarantine_table
from bike_pipeline.data.sources.source_rows import SourceRows

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    Numbers = npt.NDArray[np.int64]
    Mask = npt.NDArray[np.bool_]

# 1970-01-01 was a Thursday, which is 4 when Sunday is 0.
_WEEKDAY_OF_DAY_0 = 4
_FRIDAY = 5
HOURS_PER_DAY = 24


@dataclass(frozen=True)
class CheckedRows:
    """The outcome of the row checks.

    Attributes:
        accepted: rows that passed, in time order; columns of `features.COLUMNS` as int64, float64 and date32.
        rejected: the quarantine, one row a rejected row in the source's order: file, line, reasons (separated by
            "; "), text (of lines that could not be cut into fields) and the columns as texts, as they stood there.
        reasons: how many rows each kind of reason rejects; a row counts once a kind, so the sum can exceed `rejected`.
        total: rows read.
    """

    accepted: pa.Table
    rejected: pa.Table
    reasons: dict[str, int]
    total: int


def contract_sha256() -> str:
    """Return the SHA-256 of the feature contract: it changes when a column, type, role, range, unit or meaning does."""
    text = json.dumps([asdict(feature) for feature in features.FEATURES], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def check_rows(rows: SourceRows) -> CheckedRows:
    """Check every row of a source against the contract."""
    import numpy as np
    import pyarrow as pa

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
    accepted, late = _order_and_repeats(keys, placed, sound, rows.lines)
    problems += late
    keep = pa.array(accepted)
    columns = {}
    for feature in features.FEATURES:
        array = pa.array(values[feature.name]).filter(keep)
        columns[feature.name] = array.cast(pa.int32()).cast(pa.date32()) if feature.kind == "date" else array
    return CheckedRows(
        accepted=pa.table(columns),
        rejected=quarantine_table(rows, problems, ~accepted),
        reasons=_count(problems, len(rows.broken)),
        total=len(sound) + len(rows.broken),
    )


def calendar_of(days: Numbers) -> dict[str, Numbers]:
    """Return `yr`, `mnth` and `weekday`, each (rows,), of days since 1970-01-01."""
    import numpy as np

    months = days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    return {
        "yr": months // 12 + 1970 - features.FIRST_YEAR,
        "mnth": months % 12 + 1,
        "weekday": (days + _WEEKDAY_OF_DAY_0) % 7,
    }


def is_workingday(weekday: Numbers, holiday: Numbers) -> Numbers:
    """Return `workingday`, (rows,), from weekday (Sunday = 0) and holiday."""
    import numpy as np

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
        mask = known & valid[name] & (values[name] != expected)
        if mask.any():
            found = values[name]
            problems.append(
                Problem("agreement", mask, lambda row: f"{name}: {found[row]} but {reason} {expected[row]}")
            )

    dated = valid[features.DATE]
    for name, expected in calendar_of(values[features.DATE]).items():
        disagree(name, expected, dated, "the date says")
    # A year of the calendar in place of the years since 2011; with a date, the date has said so above.
    years = values["yr"]
    many = ~dated & valid["yr"] & (years > features.MOST_YEARS)
    if many.any():
        problems.append(
            Problem(
                "range",
                many,
                lambda row: f"yr: {years[row]} is above {features.MOST_YEARS} (it counts from {features.FIRST_YEAR})",
            )
        )
    known = valid["weekday"] & valid["holiday"]
    disagree("workingday", is_workingday(values["weekday"], values["holiday"]), known, "weekday and holiday say")
    if features.LABEL in values:
        total = values["casual"] + values["registered"]
        disagree(features.LABEL, total, valid["casual"] & valid["registered"], "casual + registered is")
    return problems


def _order_and_repeats(keys: Numbers, placed: Mask, sound: Mask, lines: Numbers) -> tuple[Mask, list[Problem]]:
    """Return which rows are accepted, and the problems of order and of repeated hours that the others have.

    Args:
        keys: (rows,): hours since 1970-01-01.
        placed: (rows,): which rows have a valid date and hour.
        sound: (rows,): which rows are right by themselves.
        lines: (rows,): line numbers, for the reasons.
    """
    import numpy as np

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
    import numpy as np

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


def _count(problems: list[Problem], broken: int) -> dict[str, int]:
    masks: dict[str, Mask] = {}
    for problem in problems:
        masks[problem.kind] = masks[problem.kind] | problem.mask if problem.kind in masks else problem.mask
    counts = {kind: int(mask.sum()) for kind, mask in masks.items()}
    return dict(sorted((counts | ({"fields": broken} if broken else {})).items()))
