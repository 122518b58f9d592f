"""What happens in the simulated weeks: late uploads, outages, poisoned uploads and drift, drawn from a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

WEEK_DAYS = 7
# The first model knows so many weeks.
FIRST_WEEKS = 8
# How often an upload is late, by one week or two; how often nothing arrives in a week, and how often it is poisoned.
LATE, OUTAGE, POISONED = 0.15, 0.05, 0.1
# A level that stays, a habit that stays, and a sensor that is off for some weeks.
LEVEL, COMMUTERS, HUMIDITY, SENSOR_WEEKS = 1.25, 0.75, 0.15, 6


@dataclass(frozen=True)
class Plan:
    """What happens when; weeks count from the first day of the data.

    Attributes:
        arrivals: when the sound upload of each week is there: at the beginning of that week, (weeks,), rising.
        poisoned: by week, how its first upload is wrong; it comes when it is due, the sound one a week later.
        drifts: the first week of each change, by its name of `DRIFTS`.
    """

    arrivals: npt.NDArray[np.int64]
    poisoned: dict[int, str] = field(default_factory=dict)
    drifts: dict[str, int] = field(default_factory=dict)

    @classmethod
    def punctual(cls, weeks: int) -> Plan:
        """Return a plan in which each week's upload is there when the week is over, and nothing else happens."""
        return cls(np.arange(1, weeks + 1))

    @classmethod
    def drawn(cls, weeks: int, seed: int) -> Plan:
        """Return a plan of a seed. The weeks of the first model are sound, and uploads keep their order."""
        draw = np.random.default_rng(seed)
        late = np.where(draw.random(weeks) < LATE, draw.integers(1, 3, weeks), 0)
        silent = draw.random(weeks + 1) < OUTAGE
        kinds = [*POISONS] * (weeks // len(POISONS) + 1)
        wrong = [week for week in range(FIRST_WEEKS, weeks) if draw.random() < POISONED]
        poisoned = {week: kinds[place] for place, week in enumerate(wrong)}
        arrivals, last = np.zeros(weeks, np.int64), 0
        for week in range(weeks):
            sound = week < FIRST_WEEKS
            due = week + 1 + (0 if sound else int(late[week]) + (week in poisoned))
            while not sound and due <= weeks and silent[due]:
                due += 1
            arrivals[week] = last = max(due, last)
        # Each begins in another part of the time that is left.
        part = (weeks - 3 * FIRST_WEEKS) // len(DRIFTS)
        begins = [2 * FIRST_WEEKS + place * part + int(draw.integers(part)) for place in range(len(DRIFTS))]
        return cls(arrivals, poisoned, dict(zip(DRIFTS, begins, strict=True)))


def _level(rows: pd.DataFrame) -> None:
    _scale_labels(rows, LEVEL)


def _commuters(rows: pd.DataFrame) -> None:
    rush = (rows["workingday"] == 1) & rows["hr"].isin((7, 8, 9, 16, 17, 18))
    _scale_labels(rows, np.where(rush, COMMUTERS, 1.0))


def _humidity(rows: pd.DataFrame) -> None:
    first = int(rows["week"].min())
    rows.loc[rows["week"] < first + SENSOR_WEEKS, "hum"] = (rows["hum"] + HUMIDITY).clip(upper=1.0)


# What becomes of the world from a week on; each changes the rows that it gets.
DRIFTS: dict[str, Callable[[pd.DataFrame], None]] = {
    "fewer commuters": _commuters,
    "humidity sensor off": _humidity,
    "level up": _level,
}


def _scale_labels(rows: pd.DataFrame, factor: float | npt.NDArray[np.float64]) -> None:
    for name in ("casual", "registered"):
        rows[name] = np.rint(rows[name] * factor).astype(np.int64)
    rows["cnt"] = rows["casual"] + rows["registered"]


def _other_unit(rows: pd.DataFrame, _: pd.DataFrame) -> pd.DataFrame:
    _scale_labels(rows, 3.0)
    return rows


def _celsius(rows: pd.DataFrame, _: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(temp=rows["temp"] * 41.0)


def _stuck(rows: pd.DataFrame, _: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(casual=17, registered=100, cnt=117)


def _half_the_hours(rows: pd.DataFrame, _: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["hr"] % 2 == 0]


def _again(rows: pd.DataFrame, earlier: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of an earlier week under the dates of this one."""
    time = ["instant", "dteday", "season", "yr", "mnth", "hr", "holiday", "weekday", "workingday", "week"]
    count = min(len(rows), len(earlier))
    kept = earlier[[name for name in rows if name not in time]][:count].reset_index(drop=True)
    return rows[time][:count].reset_index(drop=True).join(kept)[list(rows)]


def _not_summed(rows: pd.DataFrame, _: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(cnt=rows["cnt"] * 10)


# How an upload is wrong; each makes it of the week's rows and of those of an earlier week.
POISONS: dict[str, Callable[[pd.DataFrame, pd.DataFrame], pd.DataFrame]] = {
    "three times the rentals": _other_unit,
    "degrees in place of a share": _celsius,
    "stuck counter": _stuck,
    "every other hour missing": _half_the_hours,
    "an earlier week again": _again,
    "total is not the sum": _not_summed,
}
