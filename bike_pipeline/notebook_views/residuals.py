"""Views of what the model that serves gets wrong on its eval rows: when, in which slices, around which days."""

from __future__ import annotations

import pandas as pd

from bike_pipeline import features
from bike_pipeline.modeling import slices
from bike_pipeline.notebook_views import elements as ui
from bike_pipeline.notebook_views.elements import Html, Picture
from bike_pipeline.notebook_views.model import with_errors, worst_rows
from bike_pipeline.use_cases.lineage import Champion

# Days on each side of a public holiday that are looked at with it, and what is away from all.
_AROUND, _FAR = 2, 9999


def _bias(rows: pd.DataFrame) -> float:
    """Return by which share the predictions exceed what was counted, as the metric `bias` does."""
    return float(rows["error"].sum() / max(rows[features.LABEL].sum(), 1))


def _direction(bias: float) -> str:
    side = "high" if bias > 0 else "low"
    return f"{abs(bias):.1%} too {side}" if abs(bias) >= 5e-4 else "neither too high nor too low"


def summary(champion: Champion, count: int = 10) -> Html:
    """Return how far the model is off, in which hour most, and how much of the error the worst hours hold."""
    rows = with_errors(champion)
    size, most = rows["error"].abs(), worst_rows(rows, count)
    kinds = {name: size[rows["workingday"] == working] for working, _, name in ui.KINDS_OF_DAY}
    by_hour = pd.concat({name: kind.groupby(rows[features.HOUR]).mean() for name, kind in kinds.items()})
    hardest = [f"{hour} o'clock on {kind}, by {mean:.1f}" for (kind, hour), mean in by_hour.nlargest(1).items()]
    share, days = most["error"].abs().sum() / max(size.sum(), 1e-9), most["time"].dt.normalize().nunique()
    words = _direction(_bias(rows))
    return ui.sentence(
        f"The model is off by {size.mean():.1f} rentals an hour on average and {words} on the whole. It is "
        f"off most at {hardest[0]}. The {len(most)} worst of {len(rows):,} hours lie on {days} days and hold "
        f"{share:.1%} of all error."
    )


def errors_by_time(champion: Champion) -> Picture:
    """Return the mean absolute and the mean error by hour and kind of day, and by week of the eval rows."""
    rows = with_errors(champion).assign(size=lambda found: found["error"].abs())
    figure, (left, right) = ui.canvas(1, 2, (12, 4), "How far off, by hour and by week")
    for working, color, name in ui.KINDS_OF_DAY:
        by_hour = rows[rows["workingday"] == working].groupby(features.HOUR)
        left.plot(by_hour["size"].mean(), color=color, lw=2, label=f"{name}: MAE")
        left.plot(by_hour["error"].mean(), color=color, lw=1.2, ls=":", label=f"{name}: mean error")
    left.set(xlabel="hour of the day", ylabel="rentals an hour", xticks=range(0, 24, 3))
    first = rows["time"].min().normalize()
    by_week = rows.groupby((rows["time"] - first).dt.days // 7)
    means = by_week[["size", "error"]].mean()
    right.bar(means.index, means["size"], color=ui.BEFORE, label="MAE")
    right.plot(means["error"], "o", color=ui.MARK, label="mean error: above 0 too high")
    names = [f"{first + pd.Timedelta(weeks=int(week)):%d\n%b}" for week in means.index]
    right.set(xlabel="week from", xticks=means.index, xticklabels=names)
    for axis in (left, right):
        axis.axhline(0, color="black", lw=0.5)
        axis.legend(frameon=False, fontsize=8.5, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.22))
    return Picture(figure, "mean absolute and mean error by hour and kind of day, and by week")


def bias_by_slice(champion: Champion) -> Picture:
    """Return by which share the model is too high or too low in every slice of the eval rows."""
    rows = with_errors(champion)
    title = "Too high (red) or too low (blue) in all, % of what was counted (in brackets: hours)"
    figure, axes = ui.canvas(1, len(slices.SLICINGS), (13, 3), title)
    columns = {name: rows[name].to_numpy() for name in slices.SLICING_COLUMNS.values()}
    low, high = -1.0, 1.0
    for axis, slicing in zip(axes, slices.SLICINGS, strict=True):
        parts = rows.groupby(slices.values_of(columns, slicing))
        values = [100 * _bias(part) for _, part in parts]
        names = [f"{features.slice_name(slicing, int(str(code)))} ({hours:,})" for code, hours in parts.size().items()]
        bars = axis.barh(names, values, color=[ui.BAD if value > 0 else ui.NEW for value in values])
        axis.bar_label(bars, fmt=" {:+z.1f} ", fontsize=8)
        axis.set(title=slicing.replace("_", " "))
        axis.tick_params(axis="y", labelsize=8)
        axis.axvline(0, color="black", lw=0.5)
        axis.invert_yaxis()
        low, high = min(low, *values), max(high, *values)
    for axis in axes:
        axis.set_xlim(low - 0.35 * (high - low), high + 0.35 * (high - low))
    return Picture(figure, "bias of the model in every slice")


def around_holidays(champion: Champion) -> Html:
    """Return the public holidays among the eval rows and the two days before and after, counted and predicted."""
    rows = with_errors(champion)
    days = rows["time"].dt.normalize()
    holidays = days[rows["holiday"] == 1].unique()
    away = days.map(lambda day: min(((day - holiday).days for holiday in holidays), key=abs, default=_FAR))
    near = away.abs() <= _AROUND
    lines = []
    for day, part in rows[near].groupby(days[near]):
        distance = int(away[part.index[0]])
        side = f"{abs(distance)} day{'' if abs(distance) == 1 else 's'} {'after' if distance > 0 else 'before'}"
        totals = (f"{part[name].sum():,.0f}" for name in (features.LABEL, "predicted"))
        error = f"{100 * _bias(part):+.0f} %"
        lines.append((f"{day:%a %Y-%m-%d}", side if distance else "public holiday", len(part), *totals, error))
    caption = "No public holiday is among the eval rows"
    if lines:
        here, elsewhere = (_direction(_bias(part)) for part in (rows[near], rows[~near]))
        caption = f"On these days the model is {here}, on all others {elsewhere}"
    return ui.table(("day", "what it is", "hours", "counted", "predicted", "error"), lines, caption)
