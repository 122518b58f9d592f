"""What a change costs: how many rentals a day answers are further off than the reference's errors let expect.

An hour's excess is its absolute error less the mean error of the reference at such inputs. Errors of a day go together,
so days are the observations, weeks where there are enough of them, with Student's t around their mean, which is what a
block bootstrap comes to for a mean; days that follow each other resemble each other and count for fewer.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bike_pipeline.modeling import feedback, holidays
from bike_pipeline.modeling.label_update import moment
from bike_pipeline.monitoring import columns
from bike_pipeline.monitoring.attribution import HOURS_A_DAY, INPUTS, Attribution
from bike_pipeline.monitoring.columns import Columns, by_hour
from bike_pipeline.monitoring.verdicts import Verdict
from bike_pipeline.settings.monitoring import HarmSettings

Array = npt.NDArray[Any]

# Both ends of an interval leave out this share.
_TAIL = 0.05
_DAYS_A_WEEK, _FEWEST_WEEKS, _FEWEST_DAYS = 7, 5, 3
_LARGEST_CORRELATION = 0.6
# A day is a bad one if it lies so many robust deviations above the middle one; the robust one is 1.48 times the median.
_OUTLYING, _ROBUST = 4.0, 1.4826
# Rain in so many hours is a storm's day, or a mean wind of so much.
_STORM_HOURS, _STORM_WIND = 6, 0.45
# Of a normal distribution: the mean absolute deviation by the width of the middle 90 %.
_ERROR_OF_WIDTH = math.sqrt(2 / math.pi) / (2 * 1.6449)
_OCCASIONS = {
    holidays.THANKSGIVING: "Thanksgiving",
    holidays.CHRISTMAS: "Christmas",
    holidays.LEAVE: "days of leave around Christmas",
    holidays.LEAVE_WEEKEND: "days of leave around Christmas",
    holidays.NEW_YEAR: "New Year",
    holidays.INDEPENDENCE: "Independence Day",
}
# What a change of error says something about; a fault is one whatever it costs.
_DRIFTS = ("data drift", "concept drift")


@dataclass(frozen=True)
class Amount:
    """Rentals a day; the interval that holds it in nine of ten cases, None where it cannot be told."""

    rentals_a_day: float | None
    low: float | None = None
    high: float | None = None

    @classmethod
    def of_days(cls, days: Array, values: Array) -> Amount:
        """Return the mean of days' values, (days,), each in rentals; `days` are numbers of days, rising."""
        if not len(values):
            return cls(None)
        mean = float(values.mean())
        blocks, correlation = values, 0.0
        weeks = (days - days[0]) // _DAYS_A_WEEK
        if len(np.unique(weeks)) >= _FEWEST_WEEKS:
            place = np.unique(weeks, return_inverse=True)[1]
            blocks = np.bincount(place, values) / np.bincount(place)
        elif len(values) > _FEWEST_DAYS and values.std() > 0:
            correlation = float(np.clip(np.corrcoef(values[1:], values[:-1])[0, 1], 0.0, _LARGEST_CORRELATION))
        if len(blocks) < _FEWEST_DAYS:
            return cls(mean)
        from scipy import special

        spread = float(blocks.std(ddof=1)) * math.sqrt((1 + correlation) / (1 - correlation) / len(blocks))
        reach = float(special.stdtrit(len(blocks) - 1, 1 - _TAIL)) * spread
        return cls(mean, mean - reach, mean + reach)


@dataclass(frozen=True)
class BadDay:
    """A single day that errs far more than those around it: which, why, and its excess error in rentals."""

    day: str
    why: str
    rentals: float


@dataclass(frozen=True)
class Harm:
    """What a change of error costs.

    Attributes:
        amount: more error than the reference lets expect, in rentals a day.
        without_bad_days: the same of the other days.
        bad_days: those that err far more than the others.
        expected: the error that the reference lets expect, in rentals a day; None if that is not known.
        reason: in words; why it is not known, if it is not.
    """

    amount: Amount
    without_bad_days: Amount
    bad_days: tuple[BadDay, ...]
    expected: float | None
    reason: str

    def plain(self) -> dict[str, Any]:
        """Return it as verdicts tell it: "rentals_a_day", "low", "high" and "reason"."""
        return {**asdict(self.amount), "reason": self.reason}

    def is_none(self, settings: HarmSettings) -> bool:
        """Return whether there is no sign of harm: labels tell none beyond what is tolerated, or that of bad days."""
        mean, low = self.without_bad_days.rentals_a_day, self.without_bad_days.low
        if self.expected is None or mean is None or low is None:
            return False
        return low <= 0.0 and mean <= settings.tolerated_share * self.expected


def by_day(hours: Array, values: Array) -> tuple[Array, Array]:
    """Return days, rising, and what values of hours come to in a whole one, (days,) each; an hour counts once."""
    distinct, means = by_hour({"hour": hours, "value": values}, "value")
    days, of_day = columns.by_day(distinct, means["value"])
    return days, HOURS_A_DAY * of_day


def harm_of(attribution: Attribution, observed: Columns) -> Harm:
    """Return what a change of error costs, by the labels that are known of what was observed; else by intervals."""
    if not attribution.rows:
        return _unknown(attribution, observed)
    seen = attribution.seen
    days, excess = by_day(seen["hour"], np.abs(seen["label"] - seen["answer"]) - seen["expected"])
    amount = Amount.of_days(days, excess)
    middle = float(np.median(excess))
    limit = middle + _OUTLYING * _ROBUST * float(np.median(np.abs(excess - middle)))
    is_bad = (excess > max(limit, 0.0)) & (len(excess) > _FEWEST_DAYS)
    bad = tuple(
        BadDay(moment(int(day) * HOURS_A_DAY)[:10], _why(int(day), observed), float(value))
        for day, value in zip(days[is_bad], excess[is_bad], strict=True)
    )
    named = f"; {', '.join(f'{one.day} ({one.why}) alone {one.rentals:+,.0f}' for one in bad)}" if bad else ""
    reason = f"error beside {attribution.expected:,.0f} rentals a day that the reference has at such inputs{named}"
    return Harm(amount, Amount.of_days(days[~is_bad], excess[~is_bad]), bad, attribution.expected, reason)


def _why(day: int, observed: Columns) -> str:
    """Return what is known of a day that went wrong, in words."""
    hours = np.asarray(observed["hour"])
    rows, date = hours // HOURS_A_DAY == day, feedback.FIRST_DAY + np.array([day])
    if holidays.is_dated(date)[0]:
        month, of_month = int(str(date[0])[5:7]), int(str(date[0])[8:])
        kinds = [kind for kind, in_month, days in holidays.DATES if in_month == month and of_month in days]
        return _OCCASIONS[kinds[0] if kinds else holidays.THANKSGIVING]
    wet = len(np.unique(hours[rows & (np.asarray(observed["weathersit"]) >= feedback.RAIN)]))
    if wet >= _STORM_HOURS or float(np.asarray(observed["windspeed"], np.float64)[rows].mean()) >= _STORM_WIND:
        return "storm"
    return "public holiday" if np.asarray(observed["holiday"])[rows].any() else "no reason is known"


def _unknown(attribution: Attribution, observed: Columns) -> Harm:
    upper, lower = (np.asarray(observed.get(name, ()), np.float64) for name in ("upper", "lower"))
    widths = (upper - lower)[np.isfinite(upper - lower)]
    reason = f"not known: {attribution.reason}"
    if len(widths):
        about = HOURS_A_DAY * _ERROR_OF_WIDTH * float(widths.mean())
        reason += (
            f"; the answers' own intervals let expect {about:,.0f} rentals a day of error, and know no moved level"
        )
    nothing = Amount(None)
    return Harm(nothing, nothing, (), None, reason)


def with_harm(verdicts: list[Verdict], attribution: Attribution, harm: Harm, settings: HarmSettings) -> list[Verdict]:
    """Return verdicts with their harm, a drift of inputs with its part; a drift without a sign of harm is harmless."""
    return [_with_harm(verdict, attribution, harm, settings) for verdict in verdicts]


def _with_harm(verdict: Verdict, attribution: Attribution, harm: Harm, settings: HarmSettings) -> Verdict:
    kind, costs, is_none = verdict.meta["kind"], harm.plain(), harm.is_none(settings)
    if verdict.status != "changed" or kind not in (*_DRIFTS, "data fault"):
        return verdict
    if kind == "data drift" and attribution.rows:
        part = attribution.parts[INPUTS]
        beside = f"{harm.amount.rentals_a_day or 0.0:+,.0f} beside what is usual at such inputs"
        reason = f"what other inputs have of {attribution.whole:+,.0f} rentals a day, the change of error; {beside}"
        costs = {**asdict(Amount(part)), "reason": reason}
        is_none |= part <= settings.tolerated_share * attribution.expected
    return verdict.with_data(harm=costs, **({"status": "harmless"} if is_none and kind in _DRIFTS else {}))
