"""What a good analyst gives a tree: the raw columns, more columns made of them, and a label without its growth.

Every column is known when the hour begins: weather of the past is that of earlier hours, and the growth is fitted to
the training rows.
"""

from __future__ import annotations

import numpy as np

from benchmarks.quality.protocols import Array, Rows, Table

RAW = (
    "season", "yr", "mnth", "hr", "holiday", "weekday", "workingday", "weathersit", "temp", "atemp", "hum", "windspeed",
)  # fmt: skip
# Washington, D.C.
LATITUDE = np.radians(38.9)
RIDGE = 1.0
# New Year, 4 July and the days around Christmas empty the city; with Thanksgiving and the Friday after it.
GREAT_HOLIDAYS = ((1, 1), (7, 4), (12, 24), (12, 25), (12, 26), (12, 31))


def sun_elevation(day_of_year: Array, hour: Array) -> Array:
    """Return the sine of the sun's elevation in the middle of the hour, by the declination's first harmonic."""
    declination = np.radians(-23.44) * np.cos(2 * np.pi * (day_of_year + 10) / 365.25)
    angle = np.radians(15.0 * (hour + 0.5 - 12.0))
    sine: Array = np.sin(LATITUDE) * np.sin(declination) + np.cos(LATITUDE) * np.cos(declination) * np.cos(angle)
    return sine


def past(table: Table, name: str, hours: int, otherwise: Array) -> Array:
    """Return the mean of a column over the `hours` before each row; `otherwise` where none of them is there."""
    time = (table["dteday"] * 24 + table["hr"]).astype(np.int64)
    start = int(time[0])
    known, total = np.zeros(int(time[-1]) - start + 2), np.zeros(int(time[-1]) - start + 2)
    known[time - start + 1], total[time - start + 1] = 1.0, table[name]
    known, total = np.cumsum(known), np.cumsum(total)
    end = time - start
    begin = np.maximum(end - hours, 0)
    count = known[end] - known[begin]
    mean: Array = np.where(count > 0, (total[end] - total[begin]) / np.maximum(count, 1), otherwise)
    return mean


def last_day(table: Table) -> tuple[Table, Array]:
    """Return the labels of the 24 hours before each row by name, NaN where there is none, and 1 + their mean.

    Where none of the 24 is there, that mean is the label's of the hour before, whenever it was.
    """
    time = (table["dteday"] * 24 + table["hr"]).astype(np.int64)
    lags: Table = {}
    for lag in range(1, 25):
        places = np.searchsorted(time, time - lag)
        lags[f"rentals_{lag}h_ago"] = np.where(time[places] == time - lag, table["cnt"][places], np.nan)
    before = np.concatenate([[0.0], table["cnt"][:-1]])
    return lags, 1.0 + past(table, "cnt", 24, before)


def enriched(table: Table) -> Table:
    """Return the raw columns and the made ones, by name."""
    dates = np.datetime64("2011-01-01") + table["dteday"].astype(np.int64)
    day_of_year = (dates - dates.astype("datetime64[Y]")).astype(np.float64)
    day = (dates - dates.astype("datetime64[M]")).astype(np.int64) + 1
    month, weekday, hour = table["mnth"], table["weekday"], table["hr"]
    # The fourth Thursday of November and the Friday after it.
    fourth = np.where(weekday == 5, day - 1, day)
    thanksgiving = (month == 11) & ((weekday == 4) | (weekday == 5)) & (fourth >= 22) & (fourth <= 28)
    great = thanksgiving | np.logical_or.reduce([(month == m) & (day == d) for m, d in GREAT_HOLIDAYS])
    minor = ~great & ((table["holiday"] == 1) | ((month == 12) & (day >= 22)))
    # Monday to Thursday, Friday, Saturday, Sunday with the great holidays, minor holidays.
    kind = np.select([great | (weekday == 0), minor & (weekday != 6), weekday == 6, weekday == 5], [3, 4, 2, 1], 0)
    made = {
        "day_of_year": day_of_year,
        "sun": sun_elevation(day_of_year, hour),
        "day_type": kind.astype(np.float64),
        "hour_day_type": kind * 24 + hour,
        "weather_past_1": past(table, "weathersit", 1, table["weathersit"]),
        "weather_past_3": past(table, "weathersit", 3, table["weathersit"]),
        "hum_past_3": past(table, "hum", 3, table["hum"]),
        "temp_past_3": past(table, "temp", 3, table["temp"]),
        "temp_past_24": past(table, "temp", 24, table["temp"]),
        "wind_past_3": past(table, "windspeed", 3, table["windspeed"]),
    }
    return {**{name: table[name] for name in RAW}, **made}


def growth(table: Table, made: Table, train: Rows) -> Array:
    """Return exp(g · (t - end)) of every row, shape (rows,): the level against that at the end of training, at most 1.

    g is the growth of log(1 + rentals) a day by ridge regression beside hour, kind of day and weather. After the end of
    the training rows the level stands.
    """
    codes = made["hour_day_type"].astype(np.int64)
    weather = table["weathersit"].astype(np.int64) - 1
    time = table["dteday"] / 365.25
    parts = [np.eye(120)[codes], np.eye(4)[weather], made["temp"][:, None], made["temp"][:, None] ** 2]
    parts += [made[name][:, None] for name in ("hum", "windspeed", "sun")]
    design = np.hstack([*parts, time[:, None]])[train]
    label = np.log1p(table["cnt"][train])
    penalty = RIDGE * np.eye(design.shape[1])
    penalty[-1, -1] = 0.0
    weights = np.linalg.solve(design.T @ design + penalty, design.T @ label)
    level: Array = np.exp(weights[-1] * np.minimum(time - time[train].max(), 0.0))
    return level
