"""Views of the rows as an analyst looks at them: missing hours, odd values, seasons, and drift between halves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bike_pipeline import features
from bike_pipeline.data.plausibility import DAY_HOURS, MONTH_DAYS
from bike_pipeline.notebook_views import elements as ui
from bike_pipeline.notebook_views.elements import Html, Picture
from bike_pipeline.notebook_views.what_if import FEW
from bike_pipeline.use_cases.lineage import Champion

# Population stability index: below the first a column is stable, from the second on its change is significant. A rule
# of thumb (Lewis, An Introduction to Credit Scoring, 1994); it knows nothing of how many rows there are.
PSI_MODERATE, PSI_SIGNIFICANT = 0.1, 0.25
_HOUR = pd.Timedelta(hours=1)
_MOST_PANELS = 5
# What is held against earlier rows; the year differs by what it is.
_COMPARED = [features.LABEL, *(name for name in features.INPUT_NAMES if name != "yr")]


def hours_without_row(rows: pd.DataFrame) -> pd.DatetimeIndex:
    """Return the hours without a row between the first row and the last."""
    return pd.date_range(rows["time"].min(), rows["time"].max(), freq=_HOUR).difference(pd.DatetimeIndex(rows["time"]))


def gaps(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the hours without a row as stretches, longest first: `first`, `last`, `hours`."""
    hours = hours_without_row(rows).to_frame(name="hour")
    gap = (hours["hour"].diff() != _HOUR).cumsum()
    found = hours.groupby(gap).agg(first=("hour", "min"), last=("hour", "max"), hours=("hour", "size"))
    return found.sort_values("hours", ascending=False, kind="stable", ignore_index=True)


def missing_summary(champion: Champion) -> Html:
    """Return how many hours have no row, on how many days, and which gap is the longest."""
    hours, found, rows = hours_without_row(champion.rows), gaps(champion.rows), len(champion.rows)
    if found.empty:
        return ui.sentence(f"Each of the {rows:,} hours from the first to the last has a row.", good=True)
    first, last, longest = found.iloc[0]
    of_all = f"{len(hours):,} of {rows + len(hours):,} hours have no row ({len(hours) / (rows + len(hours)):.1%})"
    of_gaps = f"of {len(found)} gaps, {int((found['hours'] == 1).sum())} last one hour"
    where = f"from {first:%A, %d %B %Y, %H:00}, to {last:%A, %d %B, %H:00}"
    days = hours.normalize().nunique()
    return ui.sentence(f"{of_all}, on {days} days; {of_gaps}. The longest lasts {longest} hours, {where}.")


def missing_hours(champion: Champion) -> Picture:
    """Return every hour without a row by its day, and how many there are at each hour of the day."""
    time, hours = champion.rows["time"], hours_without_row(champion.rows)
    figure, (left, right) = ui.canvas(1, 2, (12, 3.2), "Hours without a row")
    left.scatter(hours.normalize(), hours.hour, s=14, marker="s", color=ui.BAD, lw=0)
    left.set(ylabel="hour of the day", ylim=(23.5, -0.5), yticks=range(0, 24, 3), xlim=(time.min(), time.max()))
    left.tick_params(axis="x", labelrotation=30)
    right.bar(range(24), np.bincount(hours.hour, minlength=24), color=ui.BAD)
    right.set(xlabel="hour of the day", ylabel="hours without a row", xticks=range(0, 24, 3))
    return Picture(figure, "every hour without a row, by day and by hour of the day")


def longest_gaps(champion: Champion, count: int = 8) -> Html:
    """Return the longest gaps, with the row before and the row after each."""
    rows, lines = champion.rows.set_index("time"), []
    for gap in gaps(champion.rows).head(count).to_dict("records"):
        sides = (rows.loc[gap["first"] - _HOUR], rows.loc[gap["last"] + _HOUR])
        words = (f"{row[features.LABEL]} rented, {features.WEATHER[row['weathersit']]}" for row in sides)
        lines.append((*(f"{gap[end]:%a %Y-%m-%d %H:00}" for end in ("first", "last")), gap["hours"], *words))
    return ui.table(("first hour", "last hour", "hours", "the hour before", "the hour after"), lines)


def stuck_sensors(rows: pd.DataFrame) -> list[tuple[str, pd.Timestamp]]:
    """Return column and day of each sensor with one value on all hours, at least 12 of them, of a day."""
    by_day = rows.groupby(rows["time"].dt.normalize())[list(ui.PHYSICAL)]
    same = by_day.nunique().eq(1)[by_day.size() >= DAY_HOURS]
    return [(name, day) for name in ui.PHYSICAL for day in same.index[same[name]]]


def quality_issues(champion: Champion) -> Html:
    """Return what is odd in the columns: values of exactly 0, one value for a day, codes that hardly occur."""
    rows, found = champion.rows, []
    for name in ui.PHYSICAL:
        above = rows.loc[rows[name] > 0, name]
        least = f"; the next value is {ui.physical(name, above.min()):.1f} {_unit(name)}" if len(above) else ""
        found.append((name, f"0 as stored{least}", rows[name] == 0))
    for name, day in stuck_sensors(rows):
        of_day = rows["time"].dt.normalize() == day
        value = ui.physical(name, rows.loc[of_day, name].iloc[0])
        found.append((name, f"stuck at {value:z.1f} {_unit(name)} for a day", of_day))
    for name in (feature.name for feature in features.INPUTS if feature.unit in ("code", "flag")):
        counts = rows[name].value_counts().sort_index()
        found += [(name, f"code {code} hardly occurs", rows[name] == code) for code in counts.index[counts < FEW]]
    lines = []
    for name, what, where in found:
        days = rows.loc[where, "time"].dt.normalize()
        if len(days):
            ends = (f"{day:%Y-%m-%d}" for day in (days.min(), days.max()))
            lines.append((name, what, len(days), days.nunique(), *ends))
    return ui.table(("column", "issue", "hours", "days", "first day", "last day"), lines)


def _unit(name: str) -> str:
    return ui.PHYSICAL[name][2].rpartition(", ")[2]


def stuck_days(champion: Champion) -> Picture | Html:
    """Return the first days on which a sensor is stuck, between the day before and the day after."""
    found = stuck_sensors(champion.rows)[:_MOST_PANELS]
    if not found:
        return ui.sentence("No sensor has one value for a whole day.", good=True)
    figure, axes = ui.canvas(1, len(found), (max(2.6 * len(found), 5), 2.8), "A sensor stuck for a day")
    for axis, (name, day) in zip(axes, found, strict=True):
        rows = champion.rows[(champion.rows["time"].dt.normalize() - day).abs() <= pd.Timedelta(days=1)]
        axis.axvspan(0, 23, color=ui.SOFT, lw=0)
        axis.plot((rows["time"] - day) / _HOUR, ui.physical(name, rows[name]), color=ui.NEW, lw=1.4)
        axis.set(xticks=(-24, 0, 24, 48), xlabel="hours of that day", ylabel=f"{name}, {_unit(name)}")
        axis.set_title(f"{day:%d %B %Y}", fontsize=10)
    return Picture(figure, "each stuck sensor, with the day before and the day after")


def months_and_weather(champion: Champion) -> Picture:
    """Return mean rentals by month of each year, and each weather's rentals against what its hours have as a rule."""
    rows, label = champion.rows, features.LABEL
    figure, (left, right) = ui.canvas(1, 2, (12, 3.4), "Months and weather")
    years = np.unique(rows["yr"])
    for place, year in enumerate(years, 1):
        means = rows[rows["yr"] == year].groupby("mnth")[label].mean()
        left.plot(means, "o-", color=ui.NEW, alpha=place / len(years), label=str(features.FIRST_YEAR + year))
    left.set(xlabel="month", ylabel="mean rentals an hour", ylim=(0, None), xticks=range(1, 13))
    left.legend(frameon=False, fontsize=9)
    usual = rows.groupby([features.HOUR, "workingday", "yr", "mnth"])[label].transform("mean")
    sums = rows.assign(usual=usual, hours=1).groupby("weathersit")[[label, "usual", "hours"]].sum()
    names = [f"{features.WEATHER[int(str(code))]}\n({hours:,} hours)" for code, hours in sums["hours"].items()]
    bars = right.barh(names, 100 * sums[label] / sums["usual"].clip(lower=1), color=ui.NEW, height=0.6)
    right.bar_label(bars, fmt="%.0f %%", fontsize=9, label_type="center", color="white")
    right.axvline(100, color=ui.MARK, lw=1)
    right.set(xlabel="% of the mean at the same hour, kind of day and month")
    right.invert_yaxis()
    return Picture(figure, "mean rentals by month and year, and by weather against the usual")


def explained_variance(champion: Champion) -> Html:
    """Return the share of the label's variance that hour, month and weather explain, each of what is left to it."""
    rows = champion.rows.assign(warmth=ui.physical("temp", champion.rows["temp"]) // 5)
    rest = rows[features.LABEL] - rows[features.LABEL].mean()
    total, shares = float((rest**2).sum()), []
    for keys in ([features.HOUR, "workingday"], ["yr", "mnth"], ["weathersit", "warmth"]):
        left = rest - rest.groupby([rows[key] for key in keys]).transform("mean")
        shares.append(float((rest**2).sum() - (left**2).sum()) / total if total else 0.0)
        rest = left
    return ui.sentence(
        f"Hour and kind of day explain {shares[0]:.0%} of the variance of rentals, the month and its year "
        f"{shares[1]:.0%} more, sky and temperature (in steps of 5 °C) another {shares[2]:.0%}; {1 - sum(shares):.0%} "
        "are left."
    )


def halves(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Return the rows before and after a cut, in the months that both have, and which rows these are, in words.

    The cut lies before the newest span, or in the middle of the time if there is only one.
    """
    newest = rows["span"] == rows["span"].max()
    if newest.all():
        newest = rows["time"] > rows["time"].min() + (rows["time"].max() - rows["time"].min()) / 2
    days = [part.groupby("mnth")[features.DATE].nunique() for part in (rows[~newest], rows[newest])]
    common = [month for month in days[0].index if min(part.get(month, 0) for part in days) >= MONTH_DAYS]
    kept = rows["mnth"].isin(common) if common else rows["mnth"] > 0
    words = f"in the months that both have ({len(common)} of 12)" if common else "which have no month in common"
    parts = rows[~newest & kept], rows[newest & kept]
    before, after = (f"{part['time'].min():%Y-%m-%d} to {part['time'].max():%Y-%m-%d}" for part in parts)
    return *parts, f"{before} and {after}, {words}"


def psi(before: Any, after: Any, codes: bool) -> float:
    """Return the population stability index, Σ (q − p) ln(q / p) over the shares p of `before` and q of `after`.

    Bins are `codes`, or the tenths of `before`; each counts half a row more, so that an empty one has a logarithm.
    """
    edges = np.union1d(before, after) if codes else np.unique(np.quantile(before, np.arange(1, 10) / 10))
    counts = [np.bincount(np.searchsorted(edges, x, side="right"), minlength=len(edges) + 1) for x in (before, after)]
    p, q = ((count + 0.5) / (count + 0.5).sum() for count in counts)
    return float(((q - p) * np.log(q / p)).sum())


def drift(champion: Champion) -> Html:
    """Return the means of label and inputs in both halves and the stability index of each, with what moves."""
    before, after, periods = halves(champion.rows)
    lines, moved = [], []
    for name in _COMPARED:
        index = psi(before[name], after[name], name != features.LABEL and features.BY_NAME[name].kind == "int")
        means = [part[name].mean() for part in (before, after)]
        spread = before[name].std()
        shift = f"{(means[1] - means[0]) / spread:+.2f}" if spread else "-"
        unit = _unit(name) if name in ui.PHYSICAL else features.BY_NAME[name].unit
        shown = [f"{ui.physical(name, mean) if name in ui.PHYSICAL else mean:.2f}" for mean in means]
        change = "✔ stable" if index < PSI_MODERATE else "moderate" if index < PSI_SIGNIFICANT else "✘ significant"
        moved += [name] if index >= PSI_MODERATE and name != features.LABEL else []
        lines.append((name, unit, *shown, shift, f"{index:.3f}", change))
    growth = after[features.LABEL].mean() / max(before[features.LABEL].mean(), 1.0) - 1
    caption = (
        f"{periods}. Rentals change by {growth:+.0%}; inputs with PSI ≥ {PSI_MODERATE}: {', '.join(moved) or 'none'}"
    )
    return ui.table(("column", "unit", "mean before", "mean after", "shift in std", "PSI", "change"), lines, caption)
