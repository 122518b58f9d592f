"""Views of the rows: where they came from, how they are cut, what they look like, what the gate said of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bike_pipeline import features
from bike_pipeline.lineage.queries.evidence import findings_of
from bike_pipeline.lineage.queries.feature_statistics import FeatureStatistics, shift, statistics_of
from bike_pipeline.lineage.queries.run_changes import baseline_examples
from bike_pipeline.lineage.store.entities import StageRecord
from bike_pipeline.notebook_views import elements as ui
from bike_pipeline.notebook_views.elements import Html, Picture
from bike_pipeline.stages import Stage
from bike_pipeline.use_cases.lineage import Champion

_PARTS = {"history": ui.BEFORE, "train": ui.NEW, "eval": ui.MARK}
# Codes that all get a tick of their own.
_MONTHS = 12
_STYLES: tuple[dict[str, Any], ...] = (
    {"color": ui.NEW, "alpha": 0.45},
    {"facecolor": "none", "edgecolor": ui.MARK, "lw": 1.4},
)


def spans(champion: Champion) -> Html:
    """Return every version of every span in the store."""
    head = ("span", "first hour", "last hour", "train rows", "eval rows", "rejected", "source", "content")
    rows = []
    for found in champion.store.all_versions():
        manifest, counts = found.manifest, found.manifest.rows
        hours = (f"{moment:%Y-%m-%d %H:00}" for moment in (manifest.first, manifest.last))
        source, content = Path(manifest.source.location).name, f"{manifest.content_sha256[:16]}…"
        name = f"{found.span} version {found.version}"
        rows.append((name, *hours, counts.train, counts.eval, counts.rejected, source, content))
    return ui.table(head, rows)


def contract() -> Html:
    """Return the feature contract: every column, its unit, its meaning, and what it is used for."""
    use = {"label": "what is predicted", "leak": "never: known only afterwards", "key": "places a row"}
    rows = [(f.name, f.meaning, f.unit, use.get(f.role, f.role)) for f in features.FEATURES]
    return ui.table(("column", "meaning", "unit of the stored value", "used as"), rows)


def timeline(champion: Champion) -> Picture:
    """Return rentals by day, coloured by what the model that serves did with them."""
    figure, (axis,) = ui.canvas(1, 1, (11, 3.4), "Rentals by day")
    for part, color in _PARTS.items():
        rows = champion.rows[champion.rows["part"] == part]
        if len(rows):
            daily = rows.groupby(rows["time"].dt.normalize())[features.LABEL].sum()
            label = f"{part}: {len(rows):,} hours"
            axis.fill_between(daily.index, daily.to_numpy(), step="mid", color=color, lw=0, label=label)
    axis.set(ylabel="rentals a day", ylim=(0, None), xmargin=0)
    axis.legend(loc="upper left", frameon=False, fontsize=9)
    return Picture(figure, "rentals by day, coloured by history, train and eval")


def rhythm(champion: Champion) -> Picture:
    """Return mean rentals by hour and day of the week, and by hour on working days and others."""
    figure, (left, right) = ui.canvas(1, 2, (11, 3.6), "The rhythm of a week")
    grid = champion.rows.pivot_table(features.LABEL, "weekday", features.HOUR)
    ui.week(figure, left, grid, "mean rentals an hour", cmap="Blues", vmin=0)
    for working, color, name in ui.KINDS_OF_DAY:
        by_hour = champion.rows[champion.rows["workingday"] == working].groupby(features.HOUR)[features.LABEL]
        low, high = by_hour.quantile(0.1), by_hour.quantile(0.9)
        right.fill_between(low.index, low.to_numpy(), high.to_numpy(), color=color, alpha=0.15, lw=0)
        right.plot(by_hour.mean(), color=color, lw=2, label=name)
    title = "mean, and the middle 80 % of hours"
    right.set(xlabel="hour of the day", ylabel="rentals an hour", ylim=(0, None), title=title)
    right.legend(frameon=False, fontsize=9, loc="upper left")
    return Picture(figure, "mean rentals by hour and day of the week")


def weather(champion: Champion) -> Picture:
    """Return mean rentals by temperature, humidity, wind and kind of weather, in physical units."""
    figure, axes = ui.canvas(1, 4, (12, 3.2), "Rentals and the weather (dots: mean; bars: share of hours)")
    label = champion.rows[features.LABEL].to_numpy(np.float64)
    for axis, name in zip(axes, ("temp", "hum", "windspeed"), strict=False):
        values = ui.physical(name, champion.rows[name].to_numpy(np.float64))
        edges = np.linspace(values.min(), values.max(), 13)
        place = np.clip(np.digitize(values, edges) - 1, 0, len(edges) - 2)
        counts = np.bincount(place, minlength=len(edges) - 1)
        means = np.bincount(place, label, len(edges) - 1) / np.maximum(counts, 1)
        middle = (edges[:-1] + edges[1:]) / 2
        _mean_over_share(axis, middle, means, counts, width=float(np.diff(edges)[0] * 0.9))
        axis.set(xlabel=ui.PHYSICAL[name][2])
    kinds = champion.rows.groupby("weathersit")[features.LABEL].agg(["mean", "size"]).reindex(sorted(features.WEATHER))
    means, counts = kinds["mean"].to_numpy(), kinds["size"].fillna(0).to_numpy()
    _mean_over_share(axes[3], np.arange(4), means, counts, width=0.8, line="")
    axes[3].set(xticks=range(4), xticklabels=[name.replace(" or ", "\nor ") for name in features.WEATHER.values()])
    axes[3].tick_params(axis="x", labelsize=7.5)
    axes[0].set(ylabel="mean rentals an hour")
    return Picture(figure, "mean rentals by temperature, humidity, wind and weather")


def _mean_over_share(axis: Any, at: Any, means: Any, counts: Any, width: float, line: str = "-") -> None:
    top = float(np.nanmax(means)) * 1.1
    axis.bar(at, counts / counts.max() * top * 0.5, width=width, color=ui.SOFT)
    present = counts > 0
    axis.plot(at[present], means[present], f"o{line}", color=ui.NEW, ms=4, lw=1)
    axis.set_ylim(0, top)


def _own_statistics(champion: Champion) -> dict[str, dict[str, FeatureStatistics]]:
    examples = champion.lineage.trained_on(champion.model_id)
    return {split: statistics_of(champion.lineage, examples, split) for split in ("train", "eval")}


def distributions(champion: Champion) -> Picture:
    """Return each input's distribution on the training rows and the eval rows.

    Measured values as StatisticsGen counted them; codes, which its ten buckets would mix, as they are in the rows.
    """
    statistics = _own_statistics(champion)
    columns = 4
    lines = -(-len(features.INPUTS) // columns)
    title = "Every input, on training rows (blue) and eval rows (line)"
    figure, axes = ui.canvas(lines, columns, (12, 2.1 * lines), title)
    for axis, feature in zip(axes, features.INPUTS, strict=False):
        for (part, found), style in zip(statistics.items(), _STYLES, strict=True):
            if feature.kind == "int":
                values = champion.rows.loc[champion.rows["part"] == part, feature.name].to_numpy()
                codes, counts = np.unique(values, return_counts=True)
                axis.bar(codes, counts / counts.sum(), width=0.9, **style)
                ticks = np.unique(champion.rows.loc[champion.rows["part"] != "history", feature.name])
                axis.set_xticks(ticks if len(ticks) <= _MONTHS else ticks[::4])
            elif feature.name in found:
                low, high, rows = np.array(found[feature.name].buckets).T
                edges = ui.physical(feature.name, np.append(low, high[-1]))
                axis.stairs(rows / rows.sum(), edges, fill=True, **style)
        unit = ui.PHYSICAL[feature.name][2].rpartition(", ")[2] if feature.name in ui.PHYSICAL else feature.unit
        axis.set(yticks=[])
        axis.set_title(f"{feature.name}, {unit}", fontsize=10)
        axis.spines["left"].set_visible(False)
    for axis in axes[len(features.INPUTS) :]:
        axis.set_visible(False)
    return Picture(figure, "distribution of every input on training and eval rows")


def mean_shifts(champion: Champion) -> Html:
    """Return how far each input's mean lies from that of the rows which the model before was trained on."""
    train, evaluated = _own_statistics(champion).values()
    trained_in = champion.evidence["model"]["run_id"]
    run = next((found for found in champion.runs if found.run_id == trained_in), None)
    before = statistics_of(champion.lineage, baseline_examples(champion.lineage, run) if run else None, "train")
    rows = []
    for feature in features.INPUTS:
        if feature.name in train:
            now = train[feature.name]
            cells = [f"{now.mean:.3f}", f"{now.std:.3f}", now.missing]
            for other in (before, evaluated):
                moved = shift(other.get(feature.name), now)
                cells.append("-" if moved is None else f"{moved:+.2f}")
            rows.append((feature.name, feature.unit, *cells))
    head = ("column", "unit", "mean", "std", "missing", "rows of the model before", "eval rows")
    return ui.table(head, rows, "Training rows, and how far other rows' means lie from them, in standard deviations")


def gate_findings(champion: Champion) -> Html:
    """Return what the data gate said of each span, newest run first; each span once."""
    rows: list[tuple[Any, ...]] = []
    seen = set()
    for run in reversed(champion.runs):
        for stage in run.stages:
            if stage.name == Stage.DATA_GATE and (run.span, run.version) not in seen:
                found = _found_by_gate(champion, stage)
                seen.update([(run.span, run.version)] if found else [])
                rows += [(f"{run.span} version {run.version}", *cells) for cells in found]
    return ui.table(("span", "finding", "column", "reason"), rows)


def _found_by_gate(champion: Champion, stage: StageRecord) -> list[tuple[str, str, str]]:
    if stage.state == "failed":
        return [("✘ refused", "", stage.error)]
    findings = findings_of(champion.lineage.outputs(stage.execution_id))
    if findings is None:
        return []
    passed = [("✔ passed", "", "nothing to object to")]
    return [(f["severity"], f["feature"] or "-", f["reason"]) for f in findings] or passed


def leaks(champion: Champion) -> Picture:
    """Return why two columns never reach the model: together they are the label."""
    figure, axes = ui.canvas(1, len(features.LEAKS) + 1, (11, 3.2), "Known only when the hour is over")
    sample = champion.rows.iloc[:: max(1, len(champion.rows) // 3000)]
    label = sample[features.LABEL].to_numpy(np.float64)
    columns = [(name, sample[name].to_numpy(np.float64)) for name in features.LEAKS]
    columns.append((" + ".join(features.LEAKS), np.sum([values for _, values in columns], axis=0)))
    for axis, (name, values) in zip(axes, columns, strict=True):
        axis.scatter(values, label, s=3, color=ui.NEW, alpha=0.3, lw=0)
        axis.set(xlabel=f"{name}, rentals", title=f"correlation {np.corrcoef(values, label)[0, 1]:.2f}")
    axes[0].set(ylabel="cnt, rentals an hour")
    return Picture(figure, "the label against casual, registered and their sum")
