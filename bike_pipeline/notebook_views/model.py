"""Views of the model that serves: its errors beside those of the one before, by slice, by hour, by day."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bike_pipeline import features
from bike_pipeline.lineage.queries.evidence import decisions_about
from bike_pipeline.notebook_views import elements as ui
from bike_pipeline.notebook_views.elements import Html, Picture
from bike_pipeline.use_cases.lineage import Champion

_SLICINGS = ("hour_band", "workingday", "season", "weathersit")
_WEEK = 7 * 24


def evaluation(champion: Champion) -> dict[str, Any]:
    """Return what the evaluation that blessed the model measured and decided (`modeling.evaluation.report`)."""
    report = decisions_about(champion.lineage, champion.model_id, pushed=True)
    return report or {"candidate_metrics": [], "baseline_metrics": [], "decisions": [], "hourly_mean_mae": None}


def models(champion: Champion) -> Html:
    """Return every trained model with its errors, in rentals an hour, each on the eval rows of its own span."""
    rows = [
        (
            f"model {model.model_id}",
            f"{model.trained:%Y-%m-%d %H:%M} UTC",
            f"{model.span} version {model.version}",
            {True: "✔ yes", False: "✘ no", None: "not judged"}[model.blessed],
            "now" if model.serving else ("before" if model.served_version is not None else "never"),
            *(f"{model.metrics[name]:.1f}" if name in model.metrics else "-" for name in ("mae", "rmse")),
        )
        for model in champion.models
    ]
    return ui.table(("model", "trained", "newest span", "blessed", "served", "MAE", "RMSE"), rows)


def against_before(champion: Champion) -> Picture:
    """Return the model's MAE beside that of the one it replaced, on the same rows: overall and by slice."""
    report = evaluation(champion)
    before = {(row["slicing"], row["slice"]): row for row in report["baseline_metrics"]}
    title = "Mean absolute error, rentals an hour (in brackets: hours)"
    figure, axes = ui.canvas(1, len(_SLICINGS) + 1, (13, 3.6), title)
    for axis, slicing in zip(axes, ("overall", *_SLICINGS), strict=True):
        chosen = [row for row in report["candidate_metrics"] if row["slicing"] == slicing]
        chosen.sort(key=lambda row: float(row["slice"] or 0))
        at = np.arange(len(chosen))
        new = [row["mae"] for row in chosen]
        old = [before.get((slicing, row["slice"]), {}).get("mae", np.nan) for row in chosen]
        bars = axis.barh(at - 0.2, new, 0.38, color=ui.NEW, label="the model that serves")
        if before:
            axis.barh(at + 0.2, old, 0.38, color=ui.BEFORE, label="the one before")
        axis.bar_label(bars, fmt=" %.1f", fontsize=8)
        names = [f"{features.slice_name(slicing, row['slice'])} ({int(row['rows']):,})" for row in chosen]
        axis.set(yticks=at, yticklabels=names, title=slicing.replace("_", " "), xmargin=0.2)
        axis.tick_params(axis="y", labelsize=8)
        axis.invert_yaxis()
    mean = report["hourly_mean_mae"]
    if mean is not None:
        axes[0].axvline(mean, color=ui.MARK, lw=1.4, label="best naive baseline")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return Picture(figure, "mean absolute error by slice, beside the model before")


def errors_over_runs(champion: Champion) -> Picture:
    """Return every model's MAE in the order of training, with what became of it."""
    judged = [model for model in champion.models if "mae" in model.metrics]
    figure, (axis,) = ui.canvas(1, 1, (11, 3), "Every model that was judged: MAE on the eval rows of its span")
    colors = [ui.GOOD if model.serving else (ui.NEW if model.blessed else ui.BAD) for model in judged]
    bars = axis.bar(range(len(judged)), [model.metrics["mae"] for model in judged], color=colors, width=0.6)
    axis.bar_label(bars, fmt="%.1f", fontsize=9)
    axis.set(xticks=range(len(judged)), ylabel="rentals an hour", ymargin=0.15)
    axis.set_xticklabels([f"model {model.model_id}\nspan {model.span} version {model.version}" for model in judged])
    ui.legend_beside(axis, {"serves now": ui.GOOD, "blessed before": ui.NEW, "refused": ui.BAD})
    return Picture(figure, "MAE of every model that was judged")


def with_errors(champion: Champion) -> pd.DataFrame:
    """Return the rows that the model was judged on, with `predicted` and `error`, predicted minus counted."""
    return champion.evaluated.assign(error=lambda rows: rows["predicted"] - rows[features.LABEL])


def worst_rows(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return so many rows of `with_errors`, the largest error first."""
    return rows.sort_values("error", key=np.abs, ascending=False).head(count)


def measured_again(champion: Champion) -> Html:
    """Return whether the served model's MAE, computed now from its own answers, is the one on record."""
    rows = with_errors(champion)
    now = float(rows["error"].abs().mean())
    recorded = next((r["mae"] for r in evaluation(champion)["candidate_metrics"] if r["slicing"] == "overall"), None)
    if recorded is None:
        words = f"Computed now: {now:.3f} rentals an hour. Nothing is on record to compare with."
        return ui.sentence(words, good=False)
    # Float32 sums in another order differ far below a thousandth of a rental.
    same = abs(now - recorded) < 1e-3
    comparison = f"MAE on record: {recorded:.3f} rentals an hour. Computed now, over {len(rows):,} hours: {now:.3f}."
    return ui.sentence(f"{comparison} {'The same.' if same else 'NOT the same.'}", good=same)


def weeks(champion: Champion) -> Picture:
    """Return the week with the smallest and the one with the largest error: predicted and counted, hour by hour."""
    rows = with_errors(champion).set_index("time")
    rows = rows.assign(error=rows["error"].abs())
    starts = rows.index[0].normalize() + np.timedelta64(1, "D") * np.arange(0, (rows.index[-1] - rows.index[0]).days, 7)
    whole = {}
    for start in starts:
        week = rows[start : start + np.timedelta64(_WEEK - 1, "h")]
        # Hours without a rental are not in the data, so that a whole week may lack a few.
        if len(week) > _WEEK * 0.9:
            whole[start] = week
    ranked = sorted(whole.values(), key=lambda week: float(week["error"].mean()))
    chosen = [("best", ranked[0]), ("worst", ranked[-1])] if ranked else [("only", rows)]
    title = "A good week and a bad one, on rows it never learnt from"
    figure, axes = ui.canvas(len(chosen), 1, (12, 2.7 * len(chosen)), title)
    for axis, (name, week) in zip(axes, chosen, strict=True):
        axis.fill_between(week.index, week[features.LABEL], color=ui.BEFORE, lw=0, label="counted")
        axis.plot(week.index, week["predicted"], color=ui.NEW, lw=1.5, label="predicted")
        words = f"{name} week, from {week.index[0]:%A, %d %B %Y}: MAE {week['error'].mean():.1f}"
        axis.set_title(words, loc="left", fontsize=10)
        axis.set(ylabel="rentals an hour", ylim=(0, None), xmargin=0)
    axes[0].legend(frameon=False, fontsize=9, loc="upper right", ncols=2)
    return Picture(figure, "predicted and counted rentals in the best and the worst week")


def agreement(champion: Champion) -> Picture:
    """Return predicted against counted, and where in the week the model is too high or too low."""
    rows = with_errors(champion)
    figure, (left, right) = ui.canvas(1, 2, (12, 4), "")
    top = float(max(rows["predicted"].max(), rows[features.LABEL].max()))
    style: dict[str, Any] = {"gridsize": 45, "bins": "log", "cmap": "Blues", "mincnt": 1}
    left.hexbin(rows[features.LABEL], rows["predicted"], extent=(0, top, 0, top), **style)
    left.plot([0, top], [0, top], color=ui.MARK, lw=1)
    left.set(xlabel="counted, rentals an hour", ylabel="predicted", title="darker: more hours (logarithmic)")
    grid = rows.pivot_table("error", "weekday", features.HOUR)
    limit = float(np.nanmax(np.abs(grid.to_numpy())))
    colors = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
    ui.week(figure, right, grid, "mean error: red too high, blue too low", "rentals an hour", **colors)
    return Picture(figure, "predicted against counted, and mean error by hour and day of the week")


def worst_hours(champion: Champion, count: int = 10) -> Html:
    """Return the hours with the largest errors, with what was known of them."""
    lines = [
        (
            f"{row['time']:%a %Y-%m-%d %H:00}",
            int(row[features.LABEL]),
            f"{row['predicted']:.0f}",
            f"{row['error']:+.0f}",
            features.WEATHER[int(row["weathersit"])],
            f"{ui.physical('temp', row['temp']):z.0f} °C",
            f"{ui.physical('hum', row['hum']):.0f} %",
            f"{ui.physical('windspeed', row['windspeed']):.0f}",
            "yes" if row["holiday"] else "",
        )
        for _, row in worst_rows(with_errors(champion), count).iterrows()
    ]
    known = ("weather", "temperature", "humidity", "wind, km/h", "public holiday")
    return ui.table(("hour", "counted", "predicted", "error", *known), lines)
