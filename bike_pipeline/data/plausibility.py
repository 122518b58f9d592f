"""Is a span plausible beside its calendar and the spans before it? Checks that TFDV's statistics cannot make.

Rows may each be valid and yet be wrong together: sensors in another unit, labels of another level, hours left out, a
year under another year's dates. Every check has a limit in `gate.limits`, and every finding a kind whose severity
`gate.severities` decides. What the limits let pass on real data: docs/decisions/0003-data-gate.md.

Demand grows over months, never from one week to the next. Weeks are any seven days in a row, so that a jump of the
label's level is found wherever it begins; each covers every day of the week once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from bike_pipeline import features
from bike_pipeline.data import calendar_sums
from bike_pipeline.data.calendar_sums import LABEL, LABEL_SQUARED, ROWS, CalendarSums, iso_date
from bike_pipeline.settings.data import GateKind, GateLimits

Array = npt.NDArray[Any]

TRAIN, EVAL, SPAN = "train", "eval", "span"
# Days from which on a month, and from which on a split, is long enough to be held against another.
MONTH_DAYS, PROFILE_DAYS = 14, 28
# Days with the fewest hours that are passed over: a storm stops the bicycles for as long.
STORM_DAYS = 2
# A day with fewer hours says nothing about how its label varies.
DAY_HOURS = 12
STUCK_VARIATION = 0.05
# So few remembered rows are no sample.
FEWEST_HASHES = 24
WEEK = 7
# So many weeks on each side are a level; of the earlier ones one may lack, of the later ones none: the last would be a
# year's lull.
LEVEL_WEEKS, FEWEST_EARLIER = 4, 3
# Weeks on each side of one that may be wrong.
NEIGHBOURS = (-2, -1, 1, 2)
# Labels below count as that: nothing is no level.
LEAST = 1e-3


@dataclass(frozen=True)
class Anomaly:
    """Something implausible.

    Attributes:
        split: "train", "eval", "span" for both together, or "drift" where the newest train split is held against the
            history.
        feature: the column, or "" if it concerns all of a row or the whole split.
        kind: one of `GateKind`, TFDV's anomaly type, or TOO_FEW_ROWS.
        reason: what was found and what the limit is, in words.
    """

    split: str
    feature: str
    kind: GateKind | Literal["TOO_FEW_ROWS"]
    reason: str


def anomalies(train: CalendarSums, eval_: CalendarSums, history: CalendarSums, limits: GateLimits) -> Iterator[Anomaly]:
    """Yield everything implausible about the newest span; `history`, the spans before it, may have no rows."""
    whole = calendar_sums.total([train, eval_])
    for split, sums in ((TRAIN, train), (EVAL, eval_)):
        if sums.rows:
            yield from _near_constant(split, sums, limits)
            yield from _hours(split, sums, limits)
    if not whole.rows:
        return
    yield from _constant_weather(whole)
    yield from _days(whole, history, limits)
    yield from _repeated(whole, history, limits)
    yield from _jumps(whole, history, limits)
    for split, sums in ((TRAIN, train), (EVAL, eval_)):
        reference = history if history.rows else train
        if sums is not reference and min(len(sums.dates), len(reference.dates)) >= PROFILE_DAYS:
            yield from _profile(split, sums, reference, limits)
    if history.rows:
        yield from _months(whole, history, limits)


def _near_constant(split: str, sums: CalendarSums, limits: GateLimits) -> Iterator[Anomaly]:
    rows, label, squares = (float(sums.days[:, column].sum()) for column in (ROWS, LABEL, LABEL_SQUARED))
    mean = label / rows
    deviation = math.sqrt(max(squares / rows - mean**2, 0.0))
    if deviation <= limits.label_variation * mean:
        yield Anomaly(
            split, features.LABEL, "LABEL_NEAR_CONSTANT",
            f"the label is nearly constant: its standard deviation is {deviation:.4g} at a mean of {mean:.4g}, and "
            f"gate.limits.label_variation asks for more than {limits.label_variation:.0%} of the mean",
        )  # fmt: skip
        return
    count = sums.days[:, ROWS]
    means = sums.days[:, LABEL] / count
    variances = sums.days[:, LABEL_SQUARED] / count - means**2
    stuck = (count >= DAY_HOURS) & (variances <= (STUCK_VARIATION * means) ** 2)
    if stuck.mean() > limits.stuck_days:
        first = iso_date(sums.dates[stuck][0])
        yield Anomaly(
            split, features.LABEL, "LABEL_NEAR_CONSTANT",
            f"the label hardly varies within {stuck.sum()} of {len(stuck)} days, the first of them {first}; "
            f"gate.limits.stuck_days lets {limits.stuck_days:.0%} of the days pass",
        )  # fmt: skip


def _constant_weather(whole: CalendarSums) -> Iterator[Anomaly]:
    """Yield each weather column that says the same all the time; a few days may do so."""
    if len(whole.dates) < MONTH_DAYS:
        return
    means = whole.days.sum(axis=0) / whole.rows
    for name in calendar_sums.WEATHER:
        mean, squares = (float(means[column]) for column in calendar_sums.weather_column(name))
        # What is left beside rounding.
        if squares - mean**2 <= 1e-10 * squares:
            yield Anomaly(
                SPAN, name, "WEATHER_CONSTANT",
                f"it is {mean:.4g} in all {whole.rows:,} rows: the model learns nothing of it; is the sensor dead, or "
                "the column filled in?",
            )  # fmt: skip


def _hours(split: str, sums: CalendarSums, limits: GateLimits) -> Iterator[Anomaly]:
    days = len(sums.dates)
    hours = np.sort(sums.days[:, ROWS])
    share = float(hours[STORM_DAYS if days > 2 * STORM_DAYS else 0 :].mean()) / 24
    if share < limits.hours_a_day:
        yield Anomaly(
            split, features.HOUR, "HOURS_MISSING",
            f"a day has {24 * share:.1f} of its 24 hours on average ({share:.0%}), "
            f"less than the {limits.hours_a_day:.0%} of gate.limits.hours_a_day",
        )  # fmt: skip
    absent = np.flatnonzero(sums.hours[:, 0] < limits.hour_coverage * days)
    if len(absent):
        named = ", ".join(str(hour) for hour in absent)
        yield Anomaly(
            split, features.HOUR, "HOURS_MISSING",
            f"hour {named} of the day is there on fewer than {limits.hour_coverage:.0%} of {days} days "
            "(gate.limits.hour_coverage)",
        )  # fmt: skip


def _days(whole: CalendarSums, history: CalendarSums, limits: GateLimits) -> Iterator[Anomaly]:
    first, last = int(whole.dates[0]), int(whole.dates[-1])
    share = len(whole.dates) / (last - first + 1)
    gaps = np.diff(whole.dates) - 1
    if share < limits.days_present:
        yield Anomaly(
            SPAN, features.DATE, "DAYS_MISSING",
            f"{len(whole.dates)} of the {last - first + 1} days from {iso_date(first)} to {iso_date(last)} have rows "
            f"({share:.0%}), less than the {limits.days_present:.0%} of gate.limits.days_present",
        )  # fmt: skip
    if len(gaps) and gaps.max() > limits.gap_days:
        before = int(whole.dates[gaps.argmax()])
        yield Anomaly(
            SPAN, features.DATE, "DAYS_MISSING",
            f"the {gaps.max()} days after {iso_date(before)} have no row; "
            f"gate.limits.gap_days lets {limits.gap_days} pass",
        )  # fmt: skip
    if history.rows and first - int(history.dates[-1]) - 1 > limits.gap_days:
        yield Anomaly(
            SPAN, features.DATE, "GAP_TO_HISTORY",
            f"the history ends on {iso_date(history.dates[-1])} and the span begins on {iso_date(first)}, so the "
            f"label's level is not held against the weeks before it (gate.limits.gap_days: {limits.gap_days})",
        )  # fmt: skip


def _repeated(whole: CalendarSums, history: CalendarSums, limits: GateLimits) -> Iterator[Anomaly]:
    """Yield what stands under other dates already: the same weather and the same rentals of both kinds."""
    counts, rows = whole.counts, int(whole.counts.sum())
    within = (rows - len(counts)) / rows
    if rows >= FEWEST_HASHES and within > limits.repeated_rows:
        yield Anomaly(SPAN, "", "REPEATED_ROWS", _repeats(within, "elsewhere in the span", limits))
    # Both sides must remember the row.
    known = min((sums.hashes[-1] for sums in (whole, history) if not sums.complete), default=None)
    kept = np.ones(len(counts), bool) if known is None else whole.hashes <= known
    rows = int(counts[kept].sum())
    if history.rows and rows >= FEWEST_HASHES:
        again = counts[kept & np.isin(whole.hashes, history.hashes)].sum() / rows
        if again > limits.repeated_rows:
            yield Anomaly(SPAN, "", "REPEATED_ROWS", _repeats(again, "in the history", limits))


def _repeats(share: float, where: str, limits: GateLimits) -> str:
    return (
        f"{share:.0%} of the rows stand {where} under other dates, with the same weather and rentals; "
        f"gate.limits.repeated_rows lets {limits.repeated_rows:.0%} pass"
    )


def _jumps(span: CalendarSums, history: CalendarSums, limits: GateLimits) -> Iterator[Anomaly]:
    """Yield each jump of the label's level in a span or at its beginning, against the last weeks of the history."""
    start = int(span.dates[0])
    weeks = _weeks(calendar_sums.total([history, span]), start - WEEK * LEVEL_WEEKS)
    around = _shifted(weeks, NEIGHBOURS)
    ratio = (weeks - _median(around, 2)).apply(np.exp)[weeks.index > start - WEEK]
    # The last weeks have only one side, and a year ends with a lull that no following week puts into proportion.
    followed = around[[1, 2]].notna().any(axis=1)[ratio.index]
    later = _median(_shifted(weeks, range(LEVEL_WEEKS)), LEVEL_WEEKS)
    earlier = _median(_shifted(weeks, range(-LEVEL_WEEKS, 0)), FEWEST_EARLIER)
    step = (later - earlier).apply(np.exp)[weeks.index >= start]
    of_week = "in the week from {} the label is {:.2f} times that of the weeks around it"
    of_step = f"from {{}} on the label is {{:.2f}} times that of the {LEVEL_WEEKS} weeks before"
    wrong: tuple[tuple[GateKind, str, pd.Series[float], str], ...] = (
        ("LABEL_WEEK_LEVEL", of_week, ratio[ratio > limits.label_week_up], "label_week_up"),
        (
            "LABEL_WEEK_LEVEL",
            of_week,
            ratio[ratio < 1 / limits.label_week_down ** np.where(followed, 1, 2)],
            "label_week_down",
        ),
        ("LABEL_STEP", of_step, step[step > limits.label_step_up], "label_step_up"),
        ("LABEL_STEP", of_step, step[step < 1 / limits.label_step_down], "label_step_down"),
    )
    for kind, reason, factors, name in wrong:
        if len(factors):
            # The factor that is farthest from 1.
            day = factors.apply(np.log).abs().idxmax()
            yield Anomaly(
                SPAN, features.LABEL, kind,
                f"{reason.format(iso_date(int(day)), factors[day])}; "
                f"gate.limits.{name} lets a factor of {getattr(limits, name):g} pass",
            )  # fmt: skip


def _weeks(sums: CalendarSums, first: int) -> pd.Series[float]:
    """Return log(mean label) of the seven days from each day on, by day since 1970-01-01; NaN if one of them lacks."""
    kept = sums.dates >= first
    days = pd.DataFrame(sums.days[kept][:, [ROWS, LABEL]], index=sums.dates[kept], columns=["rows", "label"])
    days = days.reindex(range(days.index[0], days.index[-1] + 1))
    week = days.rolling(WEEK).sum().shift(1 - WEEK)
    return (week["label"] / week["rows"]).clip(lower=LEAST).apply(np.log)


def _shifted(weeks: pd.Series[float], by: range | tuple[int, ...]) -> pd.DataFrame:
    """Return, for each day, the weeks that begin so many weeks later."""
    return pd.DataFrame({n: weeks.shift(-n * WEEK) for n in by})


def _median(weeks: pd.DataFrame, fewest: int) -> pd.Series[float]:
    """Return the median of those weeks that are there; NaN if these are fewer than `fewest`."""
    return weeks.median(axis=1).where(weeks.count(axis=1) >= fewest)


def _profile(split: str, sums: CalendarSums, reference: CalendarSums, limits: GateLimits) -> Iterator[Anomaly]:
    """Yield a finding if the label moved in a part of the day only: a level may grow, the day's shape stays."""
    ratios = _by_band(sums) / _by_band(reference)
    ratios = ratios[np.isfinite(ratios)]
    if not len(ratios):
        return
    low, high = float(ratios.min()), float(ratios.max())
    if high > limits.label_profile * low:
        starts = [*features.HOUR_BANDS, 24]
        band = int(np.nanargmax(np.abs(np.log(np.maximum(ratios, 1e-9) / np.median(ratios)))))
        yield Anomaly(
            split, features.LABEL, "LABEL_HOUR_PROFILE",
            f"the label's shape of the day has changed: against earlier rows the parts of the day moved by factors "
            f"from {low:.2f} to {high:.2f}, most of all the hours {starts[band]}-{starts[band + 1] - 1}; "
            f"gate.limits.label_profile lets them part by {limits.label_profile:g}",
        )  # fmt: skip


def _by_band(sums: CalendarSums) -> Array:
    """Return the mean label of each of `features.HOUR_BANDS`, shape (bands,); NaN if a band has no rows."""
    parts = np.add.reduceat(sums.hours, features.HOUR_BANDS, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Array = parts[:, 1] / parts[:, 0]
    return found


def _months(whole: CalendarSums, history: CalendarSums, limits: GateLimits) -> Iterator[Anomaly]:
    """Yield what is not as in the same months of the history."""
    now, before = _by_month(whole), _by_month(history)
    common = (now[:, -1] >= MONTH_DAYS) & (before[:, -1] >= MONTH_DAYS)
    if not common.any():
        yield Anomaly(
            SPAN, "", "NOT_COMPARED",
            "no month of the span is in the history: weather and rentals are not held against the same month",
        )  # fmt: skip
        return
    months = np.flatnonzero(common) + 1
    now, before = now[common], before[common]
    ratios = (now[:, LABEL] / now[:, ROWS]) / np.maximum(before[:, LABEL] / before[:, ROWS], 1e-9)
    worst = int(np.abs(np.log(np.maximum(ratios, 1e-9))).argmax())
    if not 1 / limits.label_month <= ratios[worst] <= limits.label_month:
        yield Anomaly(
            SPAN, features.LABEL, "LABEL_MONTH_LEVEL",
            f"in month {months[worst]} the label is {ratios[worst]:.2f} times what it was in that month of the "
            f"history; gate.limits.label_month lets a factor of {limits.label_month:g} pass",
        )  # fmt: skip
    for name in calendar_sums.WEATHER:
        yield from _weather(name, months, now, before, limits)
    yield from _relation(months, now, history, limits)


def _by_month(sums: CalendarSums) -> Array:
    """Return `CalendarSums.days` added up by month of the year, with the number of days; shape (12, columns + 1)."""
    month = calendar_sums.calendar_of(sums.dates)["mnth"] - 1
    found = np.zeros((12, sums.days.shape[1] + 1))
    np.add.at(found, month, np.column_stack([sums.days, np.ones(len(sums.dates))]))
    return found


def _weather(name: str, months: Array, now: Array, before: Array, limits: GateLimits) -> Iterator[Anomaly]:
    total, squares = calendar_sums.weather_column(name)
    mean, usual = now[:, total] / now[:, ROWS], before[:, total] / before[:, ROWS]
    spread = np.sqrt(np.maximum(before[:, squares] / before[:, ROWS] - usual**2, 1e-6))
    shifts = (mean - usual) / spread
    # The weather of one month differs from year to year by more than that of a whole year.
    allowed, of_one = limits.weather_month + 1 / math.sqrt(len(months)), limits.weather_month + 1
    worst = int(np.abs(shifts).argmax())
    if abs(shifts.mean()) > allowed or abs(shifts[worst]) > of_one:
        yield Anomaly(
            SPAN, name, "WEATHER_MONTH_LEVEL",
            f"against the same months of the history it has moved by {shifts.mean():+.2f} standard deviations, most in "
            f"month {months[worst]} ({usual[worst]:.2f} → {mean[worst]:.2f}): another unit or scale? For {len(months)} "
            f"months {allowed:.2f} are let pass, for one {of_one:.2f} (gate.limits.weather_month)",
        )  # fmt: skip


def _relation(months: Array, now: Array, history: CalendarSums, limits: GateLimits) -> Iterator[Anomaly]:
    """Yield a finding if atemp no longer follows temp as it did: the two are degrees, whatever the season."""
    (t, tt), (a, aa) = (calendar_sums.weather_column(name) for name in ("temp", "atemp"))
    sums = history.days.sum(axis=0)
    means = sums / sums[ROWS]
    variance = means[tt] - means[t] ** 2
    if variance < 1e-6:
        return
    covariance = means[calendar_sums.TEMP_BY_ATEMP] - means[t] * means[a]
    slope = covariance / variance
    spread = math.sqrt(max(means[aa] - means[a] ** 2 - slope * covariance, 1e-6))
    expected = means[a] + slope * (now[:, t] / now[:, ROWS] - means[t])
    shifts = (now[:, a] / now[:, ROWS] - expected) / spread
    worst = int(np.abs(shifts).argmax())
    if abs(shifts[worst]) > limits.weather_relation:
        yield Anomaly(
            SPAN, "atemp", "WEATHER_RELATION",
            f"it no longer follows temp as in the history: in month {months[worst]} it is off by {shifts[worst]:+.1f} "
            f"standard deviations; gate.limits.weather_relation lets {limits.weather_relation:g} pass",
        )  # fmt: skip
