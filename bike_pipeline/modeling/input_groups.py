"""The model's inputs in groups that a person knows, and what was asked of each in words."""

from __future__ import annotations

from collections.abc import Mapping

from bike_pipeline import features

GROUPS: dict[str, tuple[str, ...]] = {
    "hour": ("hr", "holiday", "weekday", "workingday"),
    "season": ("mnth", "day"),
    "year": ("yr",),
    "weather": ("weathersit", "weathersit_mean_1h", "weathersit_mean_3h"),
    "temperature": ("temp", "atemp", "temp_mean_3h", "temp_mean_24h"),
    "humidity": ("hum", "hum_mean_3h"),
    "wind": ("windspeed", "windspeed_mean_3h"),
}
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_WEEKDAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")


def words(group: str, row: Mapping[str, float]) -> str:
    """Return what was asked of a group, in words."""
    if group == "hour":
        working = "a working day" if row["workingday"] else "no working day"
        return (
            f"{int(row['hr'])}:00 on {'a holiday' if row['holiday'] else _named(_WEEKDAYS, row['weekday'])}, {working}"
        )
    if group == "season":
        day = f"{int(row['day'])} " if row["day"] > 0 else ""
        return f"{day}{_named(_MONTHS, row['mnth'] - 1)}"
    if group == "year":
        return str(features.FIRST_YEAR + int(row["yr"]))
    if group == "weather":
        return features.WEATHER.get(int(row["weathersit"]), f"weather {row['weathersit']:g}")
    name, what = {"temperature": ("temp", ""), "humidity": ("hum", " humidity"), "wind": ("windspeed", " wind")}[group]
    scale, offset, unit = features.PHYSICAL[name]
    return f"{row[name] * scale + offset:.0f} {unit}{what}"


def _named(names: tuple[str, ...], place: float) -> str:
    return names[int(place)] if 0 <= place < len(names) else f"{place:g}"
