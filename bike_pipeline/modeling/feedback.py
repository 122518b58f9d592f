"""What labels that arrive after training tell a model: the level of the label now, and how far answers are off.

A model without it is right for the weeks after its training rows and then drifts with the city. The state of feedback
is a small table, one row a group of hours, that the served graph applies to its own answer (`served_state`). It is a
pure function of the labels of the last weeks, whatever order they arrived in, so that late, repeated and corrected ones
need no rules of their own.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from bike_pipeline import features
from bike_pipeline.modeling import holidays
from bike_pipeline.settings.training import FeedbackSettings

Array = npt.NDArray[Any]
HOURS_A_DAY = 24
FIRST_DAY = np.datetime64(f"{features.FIRST_YEAR}-01-01")
BANDS = len(features.HOUR_BANDS)
GROUPED_BY = ("hr", "workingday", "weathersit")
# Of rain or none, working day or not, and band of the day: rain first.
GROUPS = 2 * 2 * BANDS
RAIN = 3
# A state as of this hour applies to all hours and changes none of them: its levels are 0.
NEVER = -1
# How long labels count, and how long a level holds after the last of them; from there it wanes, and by the end of the
# window it is none. Two weeks late, feedback still takes half of what retraining would from the error of 2012.
WINDOW_DAYS, HOLDS_DAYS = 56, 14
# Bounds of what one day says, in log units, overall and of a group; with the half-lives of the settings a day whose
# labels are ten times too large moves the level by less than a tenth.
DAY_LIMIT, GROUP_LIMIT = 0.3, 0.5
# A level beyond a factor of 2.7 is no level any more, but another label.
LARGEST_LEVEL = 1.0
# Rentals that both sums have at least: an hour of the night says little.
PRIOR_RENTALS = 10.0
# Days after which a group's own level counts half.
GROUP_DAYS = 3.0
# Rows after which a group's own quantiles count half. Rows of a group come in days and err together, so each quantile
# is taken two ranks further out, where one is what rows that are independent ask for (conformal prediction; Lei et al.
# 2018, section 2).
GROUP_ROWS, RANKS = 40.0, 2.0
# The same for rain beside all weather: a tenth of all hours, whose errors are twice those of the others.
RAIN_ROWS = 10.0
# A quantile of fewer rows is not known.
FEWEST_ROWS = 40
# The unit of errors, √(p + (0.15 p)² + 4) rentals around p: Poisson's, the model's own, and that of few rentals.
RELATIVE, FLOOR = 0.15, 4.0


def groups_of(hour: Array, workingday: Array, weathersit: Array) -> npt.NDArray[np.int64]:
    """Return the group of rows, (rows,) from 0 to `GROUPS` - 1."""
    band = np.searchsorted(features.HOUR_BANDS, np.asarray(hour), side="right") - 1
    rain = np.asarray(weathersit) >= RAIN
    return (np.asarray(rain, np.int64) * 2 + (np.asarray(workingday) > 0)) * BANDS + band


def hours_of(columns: Mapping[str, Array]) -> npt.NDArray[np.int64]:
    """Return the hours of raw rows since 1 January of `features.FIRST_YEAR`, (rows,); each row names its day."""
    year, month, day, hour = (np.asarray(columns[name], np.int64) for name in ("yr", "mnth", "day", "hr"))
    months = (year * 12 + month - 1).astype("timedelta64[M]")
    days = (FIRST_DAY.astype("datetime64[M]") + months).astype("datetime64[D]").astype(np.int64) - FIRST_DAY.astype(int)
    found: npt.NDArray[np.int64] = (days + day - 1) * HOURS_A_DAY + hour
    return found


def unit_of(rentals: Array) -> Array:
    """Return the unit that errors around so many rentals are measured in."""
    return np.sqrt(rentals + (RELATIVE * rentals) ** 2 + FLOOR)


def quantiles_around(rentals: Array, columns: Mapping[str, Array], quantiles: Array) -> npt.NDArray[np.float32]:
    """Return the quantiles around answers, (rows, quantiles); NaN where none is known.

    Args:
        rentals: the answers, float32, (rows,).
        columns: raw values of `GROUPED_BY`, (rows,) each, taken into the range of each as the served graph does.
        quantiles: of each group in the unit of errors, as of `FeedbackState.table`, (GROUPS, quantiles).
    """
    codes = (np.clip(columns[n], features.BY_NAME[n].minimum, features.BY_NAME[n].maximum) for n in GROUPED_BY)
    around = rentals[:, None] + quantiles[groups_of(*codes)] * unit_of(rentals)[:, None]
    return np.where(around < 0.0, np.float32(0.0), around).astype(np.float32)


def weight_of(hours: Array, as_of: int) -> npt.NDArray[np.float64]:
    """Return how much of a level counts in hours: none up to `as_of`, all for a while after it, then less and less."""
    age = (np.asarray(hours, np.float64) - as_of) / HOURS_A_DAY
    waning = np.clip((WINDOW_DAYS - age) / (WINDOW_DAYS - HOLDS_DAYS), 0.0, 1.0)
    return np.where(age > 0, waning, 0.0)


@dataclass(frozen=True)
class Labels:
    """Hours whose label is known, rising and each once, and what the model without feedback expected of them.

    Attributes:
        hours: hours since 1 January of `features.FIRST_YEAR`, (rows,).
        groups: `groups_of` them, (rows,).
        rentals: the label, (rows,).
        expected: what the model answered without a state, in rentals, (rows,).
    """

    hours: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    groups: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    rentals: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    expected: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def of(cls, columns: Mapping[str, Array], hours: Array, expected: Array) -> Self:
        """Return rows in any order by raw columns, their hours and expected rentals; of an hour the last row counts."""
        times, last = np.unique(np.asarray(hours, np.int64)[::-1], return_index=True)
        places = len(hours) - 1 - last
        kinds = groups_of(*(np.asarray(columns[name])[places] for name in GROUPED_BY))
        rentals = np.asarray(columns[features.LABEL], np.float64)[places]
        return cls(times, kinds, rentals, np.asarray(expected, np.float64)[places])

    def merged(self, later: Labels) -> Self:
        """Return both; of an hour in both `later` counts."""
        kept = ~np.isin(self.hours, later.hours)
        parts = [(getattr(self, name)[kept], getattr(later, name)) for name in asdict(self)]
        joined = [np.concatenate(part) for part in parts]
        order = np.argsort(joined[0])
        return type(self)(*(values[order] for values in joined))

    def last_weeks(self) -> Self:
        """Return the rows that still count as of the last of them."""
        if not len(self.hours):
            return self
        return self[self.hours > self.hours[-1] - WINDOW_DAYS * HOURS_A_DAY]

    def __getitem__(self, chosen: Any) -> Self:
        return type(self)(*(getattr(self, name)[chosen] for name in ("hours", "groups", "rentals", "expected")))


@functools.lru_cache(maxsize=4096)
def _is_dated(day: int) -> bool:
    return bool(holidays.is_dated(FIRST_DAY + np.array([day]))[0])


class _Levels:
    """The level as it follows one day after the other, in log units: of all hours, and of each group beside it."""

    def __init__(self, settings: FeedbackSettings) -> None:
        self._overall, self._own, self._days = 0.0, np.zeros(GROUPS // 2), np.zeros(GROUPS // 2)
        self._half_life, self._group_half_life = settings.half_life_days, settings.group_half_life_days

    @property
    def table(self) -> npt.NDArray[np.float64]:
        """The level of each group, (GROUPS,); rain has that of the same hours without."""
        own = self._overall + self._own * self._days / (self._days + GROUP_DAYS)
        return np.tile(np.clip(own, -LARGEST_LEVEL, LARGEST_LEVEL), 2)

    def follow(self, day: int, labels: Labels) -> None:
        """Learn the labels of a day or a part of it, the day counted from 1 January of `features.FIRST_YEAR`.

        Great holidays and days of leave teach nothing: the level of the last week of a year is not that of the next.
        """
        if _is_dated(day):
            return
        kinds, rentals, expected = labels.groups % (GROUPS // 2), labels.rentals, labels.expected

        def log_ratio(rows: Array | slice, limit: float) -> float:
            answered = (expected[rows] * np.exp(self.table[kinds[rows]])).sum() + PRIOR_RENTALS
            return float(np.clip(np.log((rentals[rows].sum() + PRIOR_RENTALS) / answered), -limit, limit))

        def share(days: float, half_life: float) -> float:
            return 1.0 - math.pow(2.0, -days / half_life)

        self._overall += share(len(kinds) / HOURS_A_DAY, self._half_life) * log_ratio(slice(None), DAY_LIMIT)
        for kind in np.unique(kinds):
            self._own[kind] += share(1.0, self._group_half_life) * log_ratio(kinds == kind, GROUP_LIMIT)
            self._days[kind] += 1.0


def _days(labels: Labels) -> Iterator[tuple[int, Labels]]:
    """Yield each day that has labels, in order."""
    days = labels.hours // HOURS_A_DAY
    for day in np.unique(days):
        yield int(day), labels[days == day]


def quantiles_of(errors: Array, groups: Array, levels: Array) -> npt.NDArray[np.float64]:
    """Return the quantiles of errors in their unit, (GROUPS, levels); NaN if there are too few rows for any.

    Those of a group are drawn to those of its weather, and these to those of all hours, by how many rows there are.
    """
    if len(errors) < FEWEST_ROWS:
        return np.full((GROUPS, len(levels)), np.nan)

    def of(values: Array) -> Array:
        outer = levels + np.sign(levels - 0.5) * RANKS / (len(values) + 1)
        return np.quantile(values, np.clip(outer, 0.0, 1.0))

    def shrunk(values: Array, wider: Array, rows: float) -> Array:
        count = len(values)
        return (count * of(values) + rows * wider) / (count + rows) if count else wider

    every, half = of(errors), GROUPS // 2
    found = []
    for rain in (False, True):
        of_weather = shrunk(errors[(groups >= half) == rain], every, RAIN_ROWS)
        found += [shrunk(errors[groups == kind + rain * half], of_weather, GROUP_ROWS) for kind in range(half)]
    return np.array(found)


@dataclass(frozen=True)
class FeedbackState:
    """What the served graph applies.

    Attributes:
        as_of: the last hour whose label is known, in hours since 1 January of `features.FIRST_YEAR`. A state says
            nothing of the hours up to it, so that a model is judged on them as if there were none.
        levels: log of the factor of each group, (GROUPS,).
        quantiles: of the errors of each group in their unit (`unit_of`), (GROUPS, quantiles), rising; NaN if unknown.
    """

    as_of: int
    levels: npt.NDArray[np.float64]
    quantiles: npt.NDArray[np.float64]

    @classmethod
    def neutral(cls, settings: FeedbackSettings) -> Self:
        """Return the state that changes nothing and knows no interval."""
        return cls(NEVER, np.zeros(GROUPS), np.full((GROUPS, len(settings.quantiles)), np.nan))

    @classmethod
    def fit(cls, labels: Labels, settings: FeedbackSettings) -> Self:
        """Return the state that labels lead to, whatever order they came in."""
        recent = labels.last_weeks()
        if not len(recent.hours):
            return cls.neutral(settings)
        answers = corrected(recent, settings)
        errors = (recent.rentals - answers) / unit_of(answers)
        outer = np.array(list(settings.quantiles.values()))
        return cls(int(recent.hours[-1]), levels_of(recent, settings), quantiles_of(errors, recent.groups, outer))

    def table(self) -> npt.NDArray[np.float32]:
        """Return level and quantiles as the served graph holds them, (GROUPS, 1 + quantiles)."""
        return np.column_stack([self.levels, self.quantiles]).astype(np.float32)


def levels_of(labels: Labels, settings: FeedbackSettings) -> npt.NDArray[np.float64]:
    """Return the log of the factor of each group that labels of the last weeks lead to, (GROUPS,)."""
    levels = _Levels(settings)
    for day, rows in _days(labels.last_weeks()):
        levels.follow(day, rows)
    return levels.table


def corrected(labels: Labels, settings: FeedbackSettings) -> npt.NDArray[np.float64]:
    """Return what the model with feedback would have answered, each hour by labels that had arrived, (rows,).

    A label arrives `settings.label_delay_days` after its day began.
    """
    levels, answers = _Levels(settings), np.empty(len(labels.hours))
    waiting = list(_days(labels))
    arrived = 0
    for day, rows in waiting:
        while waiting[arrived][0] + settings.label_delay_days <= day:
            levels.follow(*waiting[arrived])
            arrived += 1
        answers[labels.hours // HOURS_A_DAY == day] = rows.expected * np.exp(levels.table[rows.groups])
    return answers


class Replayed(NamedTuple):
    """What would have been answered hour by hour: rentals (rows,), and quantiles (rows, quantiles), NaN if unknown."""

    rentals: npt.NDArray[np.float64]
    quantiles: npt.NDArray[np.float64]


def replay(labels: Labels, settings: FeedbackSettings) -> Replayed:
    """Return answers and quantiles for each labelled hour, made of labels that had arrived before its day alone."""
    answers = corrected(labels, settings)
    unit = unit_of(answers)
    errors, days = (labels.rentals - answers) / unit, labels.hours // HOURS_A_DAY
    levels = np.array(list(settings.quantiles.values()))
    found = np.full((len(answers), len(levels)), np.nan)
    for day in np.unique(days):
        newest = day - settings.label_delay_days
        arrived, now = (days <= newest) & (days > newest - WINDOW_DAYS), days == day
        of_groups = quantiles_of(errors[arrived], labels.groups[arrived], levels)[labels.groups[now]]
        found[now] = np.maximum(answers[now, None] + of_groups * unit[now, None], 0.0)
    return Replayed(answers, found)
