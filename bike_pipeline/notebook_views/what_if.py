"""Views of what the served model would answer if an hour were another one, and of whether it ever saw such an hour.

Every answer comes from the served signature, through the same checks of a record as `bike-pipeline predict`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bike_pipeline import features
from bike_pipeline.data.past_weather import MEANS
from bike_pipeline.errors import ModelError
from bike_pipeline.notebook_views import elements as ui
from bike_pipeline.notebook_views.elements import Html, Picture
from bike_pipeline.serving.records import to_columns
from bike_pipeline.use_cases.lineage import Champion

# An hour counts as seen if at least so many training hours are like it.
FEW = 20
# What "like it" means: as near in temperature as this, °C, in the same weather and band of the day.
NEAR = 1.5
_SUMMER = (6, 7, 8)
_PARTIAL = ("temp", "hum", "windspeed")


def real_hour(champion: Champion) -> pd.Series[Any]:
    """Return the busiest hour, in clear weather on a working day, of those that the model was judged on."""
    rows = champion.rows[champion.rows["part"] == "eval"]
    clear = rows[(rows["weathersit"] == 1) & (rows["workingday"] == 1)]
    return (clear if len(clear) else rows).nlargest(1, features.LABEL).iloc[0]


def hour_table(hour: pd.Series[Any]) -> Html:
    """Return an hour as the model gets it, and in physical units."""
    rows = []
    for feature in features.MODEL_INPUTS:
        value, column = hour[feature.name], feature.name.partition("_mean_")[0]
        if feature.default is not None and value <= 0:
            words = "not known"
        elif column in ui.PHYSICAL:
            words = f"{ui.physical(column, value):.1f} {ui.PHYSICAL[column][2].rpartition(', ')[2]}"
        else:
            words = features.WEATHER[int(value)] if feature.name == "weathersit" else f"{value:g}"
        rows.append((feature.name, feature.meaning, f"{value:.4g}", words))
    caption = f"{hour['time']:%A, %d %B %Y, %H:00}: {int(hour[features.LABEL])} rentals were counted"
    return ui.table(("input", "meaning", "as it is sent", "in words"), rows, caption)


def warmer(rows: pd.DataFrame, degrees: Any) -> pd.DataFrame:
    """Return rows with the air, that of the hours before too, and how it feels warmer by so many °C.

    Never beyond what can be sent; what is not known stays so.
    """
    means = [name for name, (column, _) in MEANS.items() if column == "temp"]
    moved = {}
    for name in ("temp", "atemp", *means):
        warm = np.clip(rows[name] + degrees / ui.PHYSICAL[name.partition("_mean_")[0]][0], 0.0, 1.0)
        moved[name] = np.where(rows[name] > 0, warm, rows[name]) if name in means else warm
    return rows.assign(**moved)


def similar_hours(champion: Champion, rows: pd.DataFrame) -> Any:
    """Return how many training hours are like each row: same weather, same band of the day, at most 1.5 °C apart."""
    learnt = champion.learnt
    bands = np.asarray(features.HOUR_BANDS)

    def group(found: pd.DataFrame) -> Any:
        return np.searchsorted(bands, found[features.HOUR], side="right") * 10 + found["weathersit"].to_numpy()

    known, asked = group(learnt), group(rows)
    counts = np.zeros(len(rows), np.int64)
    for key in np.unique(asked):
        temperatures = np.sort(ui.physical("temp", learnt["temp"].to_numpy()[known == key]))
        place = ui.physical("temp", rows["temp"].to_numpy()[asked == key])
        above = np.searchsorted(temperatures, place + NEAR, side="right")
        counts[asked == key] = above - np.searchsorted(temperatures, place - NEAR, side="left")
    return counts


def one_change_each(champion: Champion, hour: pd.Series[Any]) -> Picture:
    """Return the answers for an hour with one thing changed at a time; hatched if such hours were hardly seen."""
    base = pd.DataFrame([hour])
    options: list[tuple[str, pd.DataFrame]] = [
        ("as it was", base),
        ("10 °C warmer", warmer(base, 10)),
        ("10 °C colder", warmer(base, -10)),
        *((sky, base.assign(weathersit=code)) for code, sky in features.WEATHER.items() if code != hour["weathersit"]),
        ("wind of 45 km/h", base.assign(windspeed=45 / 67)),
        ("air humidity of 95 %", base.assign(hum=0.95)),
        ("a Sunday", base.assign(weekday=0, workingday=0, holiday=0)),
        ("a public holiday", base.assign(workingday=0, holiday=1)),
        ("four in the morning", base.assign(hr=4)),
    ]
    rows = pd.concat([frame for _, frame in options], ignore_index=True)
    answers, counts = champion.predict(rows), similar_hours(champion, rows)
    figure, (axis,) = ui.canvas(1, 1, (10, 4.2), f"{hour['time']:%A, %d %B %Y, %H:00}, if one thing had been otherwise")
    for line, (answer, count) in enumerate(zip(answers, counts, strict=True)):
        rare = count < FEW
        color = ui.NEW if line == 0 else (ui.SOFT if rare else ui.BEFORE)
        hatch: dict[str, Any] = {"hatch": "////", "edgecolor": ui.BAD} if rare else {"edgecolor": color}
        axis.barh(line, answer, color=color, height=0.7, **hatch)
        label = f"{answer:.0f}" + ("" if line == 0 else f" ({answer - answers[0]:+.0f})")
        if rare:
            label += f"   only {count} such hours seen" if count else "   no such hour seen"
        style: dict[str, Any] = {"va": "center", "fontsize": 9, "bbox": {"facecolor": "white", "lw": 0, "pad": 1}}
        axis.annotate(label, (float(answer), line), (6, 0), textcoords="offset points", **style)
    names = [name for name, _ in options]
    axis.set(yticks=range(len(names)), yticklabels=names, xlabel="predicted rentals in the hour")
    axis.axvline(hour[features.LABEL], color=ui.MARK, lw=1.2, label="counted")
    axis.legend(frameon=False, fontsize=9, loc="lower right")
    axis.invert_yaxis()
    axis.margins(x=0.3)
    return Picture(figure, "answers for one hour with one thing changed at a time")


def whole_day(champion: Champion, hour: pd.Series[Any]) -> Picture:
    """Return the day of an hour, hour by hour, as it was and under each kind of weather."""
    day = champion.rows[champion.rows["time"].dt.normalize() == hour["time"].normalize()]
    figure, (axis,) = ui.canvas(1, 1, (11, 3.8), f"{hour['time']:%A, %d %B %Y}, the whole day under another sky")
    axis.fill_between(day[features.HOUR], day[features.LABEL], color=ui.SOFT, lw=0, step="mid", label="counted")
    axis.plot(day[features.HOUR], champion.predict(day), color="black", lw=2, label="predicted, the weather as it was")
    for code, color in zip(features.WEATHER, (ui.NEW, ui.BEFORE, ui.MARK, ui.BAD), strict=True):
        means = [name for name, (column, _) in MEANS.items() if column == "weathersit"]
        changed = day.assign(**dict.fromkeys(["weathersit", *means], code))
        rare = bool(np.median(similar_hours(champion, changed)) < FEW)
        name = features.WEATHER[code] + (" (hardly ever seen)" if rare else "")
        style = ":" if rare else "-"
        axis.plot(day[features.HOUR], champion.predict(changed), color=color, lw=1.4, ls=style, label=name)
    axis.set(xlabel="hour of the day", ylabel="rentals an hour", ylim=(0, None), xticks=range(0, 24, 2), xmargin=0.01)
    axis.legend(frameon=False, fontsize=8.5, loc="upper left")
    return Picture(figure, "a whole day under each kind of weather")


def partial_dependence(champion: Champion) -> Picture:
    """Return the mean answer over the eval rows with one input held at each value (Friedman 2001), and single hours.

    Below each curve stand the training hours at that value; the ground is red if a step has fewer than 20.
    """
    rows = champion.rows[champion.rows["part"] == "eval"]
    rows = rows.iloc[:: max(1, len(rows) // 200)]
    learnt = champion.learnt
    title = "What one input does, the others as they were (thin: single hours)"
    figure, axes = ui.canvas(1, len(_PARTIAL) + 1, (13, 3.8), title)
    top = float(champion.predict(rows).max()) * 1.1
    for axis, name in zip(axes, (*_PARTIAL, features.HOUR), strict=True):
        steps = np.arange(24) if name == features.HOUR else np.linspace(0, 1, 21)
        frames = [_with_value(rows, name, float(step)) for step in steps]
        answers = champion.predict(pd.concat(frames, ignore_index=True)).reshape(len(steps), len(rows))
        at = steps if name == features.HOUR else ui.physical(name, steps)
        axis.plot(at, answers[:, ::10], color=ui.BEFORE, lw=0.5, alpha=0.7)
        axis.plot(at, answers.mean(axis=1), color=ui.NEW, lw=2.2)
        width = float(at[1] - at[0])
        values = learnt[name].to_numpy() if name == features.HOUR else ui.physical(name, learnt[name].to_numpy())
        counts, _ = np.histogram(values, np.append(at - width / 2, at[-1] + width / 2))
        for place in at[counts < FEW]:
            axis.axvspan(place - width / 2, place + width / 2, color=ui.BAD, alpha=0.12, lw=0)
        axis.bar(at, -counts / counts.max() * top * 0.15, width=width * 0.9, color=ui.SOFT)
        axis.set(xlabel=ui.PHYSICAL[name][2] if name in ui.PHYSICAL else "hour of the day")
        axis.axhline(0, color="black", lw=0.5)
        axis.set(ylim=(-0.17 * top, top), yticks=np.arange(0, top, 100), xmargin=0)
    axes[0].set(ylabel="predicted rentals an hour")
    words = "partial dependence on temperature, humidity, wind and hour; red where hardly any hour was seen"
    return Picture(figure, words)


def _with_value(rows: pd.DataFrame, name: str, value: float) -> pd.DataFrame:
    if name == features.HOUR:
        return rows.assign(hr=int(value))
    if name != "temp":
        return rows.assign(**{name: value})
    return warmer(rows, (value - rows["temp"]) * ui.PHYSICAL["temp"][0])


def heat_wave(champion: Champion) -> Picture:
    """Return the mean summer day, as it was and so many degrees warmer, and how much of it was ever seen."""
    from matplotlib.colors import LinearSegmentedColormap

    summer = champion.rows[champion.rows["mnth"].isin(_SUMMER)]
    summer = summer if len(summer) else champion.rows
    days = summer["time"].dt.normalize().nunique()
    degrees = np.arange(0, 13, 2)
    hours, totals, strange, capped = [], [], [], []
    for step in degrees:
        rows = warmer(summer, float(step))
        answers = champion.predict(rows)
        hours.append(np.bincount(rows[features.HOUR], answers, 24) / days)
        totals.append(float(answers.sum()) / days)
        strange.append(float((similar_hours(champion, rows) < FEW).mean()))
        capped.append(float((summer["temp"] + step / ui.PHYSICAL["temp"][0] > 1).mean()))
    title = f"A heat wave: June to August, {days} days, made warmer by so many °C"
    figure, (left, right) = ui.canvas(1, 2, (12, 4), title)
    # From cold, at 0, to hot, at 1.
    heat = LinearSegmentedColormap.from_list("heat", [ui.NEW, ui.BAD])
    for step, curve in zip(degrees[::2], hours[::2], strict=True):
        left.plot(curve, color=heat(step / 12), lw=1.8, label="as it was" if step == 0 else f"{step} °C warmer")
    left.set(xlabel="hour of the day", ylabel="predicted rentals an hour", ylim=(0, None), xticks=range(0, 24, 3))
    left.legend(frameon=False, fontsize=9)
    for step, total, share, cut in zip(degrees, totals, strange, capped, strict=True):
        right.bar(step, total, width=1.5, color=heat(step / 12))
        words = f"{share:.0%}" + (f"\n{cut:.0%} cut" if cut >= 0.005 else "")
        right.text(float(step), total, words, ha="center", va="bottom", fontsize=8)
    right.set(xlabel="degrees warmer, °C", ylabel="predicted rentals a day", xticks=degrees, ymargin=0.18)
    above = f"above: share of hours with fewer than {FEW} like it in training;"
    right.set_title(f"{above}\n“cut”: share beyond 39 °C, sent as 39 °C", fontsize=9)
    return Picture(figure, "a summer made warmer: rentals by hour and day, and the share of hours never seen")


def rare_hours(champion: Champion) -> Html:
    """Return for which air temperature and weather the model has hardly anything to go by, in training hours."""
    learnt = champion.learnt
    celsius = ui.physical("temp", learnt["temp"].to_numpy())
    edges = [-np.inf, 0.0, 10.0, 20.0, 30.0, 35.0, np.inf]
    names = ("below 0 °C", "0 to 10 °C", "10 to 20 °C", "20 to 30 °C", "30 to 35 °C", "35 °C and more")
    rows = []
    for code, weather in features.WEATHER.items():
        counts, _ = np.histogram(celsius[learnt["weathersit"].to_numpy() == code], edges)
        rows.append((weather, *(f"✘ {count}" if count < FEW else f"{count:,}" for count in counts)))
    reach = f"from {celsius.min():.0f} to {celsius.max():.0f} °C"
    caption = f"Training hours by weather and temperature ({reach}); ✘: fewer than {FEW}"
    return ui.table(("weather", *names), rows, caption)


def out_of_range(hour: pd.Series[Any], celsius: float) -> Html:
    """Return what the product answers to a temperature beyond the range of the contract."""
    sent = {feature.name: hour[feature.name].item() for feature in features.REQUIRED_INPUTS}
    record = {**sent, "temp": round((celsius + 8.0) / 47.0, 3)}
    try:
        to_columns([record], f"{celsius:.0f} °C")
    except ModelError as error:
        return ui.sentence(f"Refused: {error}")
    return ui.sentence(f"{celsius:.0f} °C lies within the range of the contract.")
