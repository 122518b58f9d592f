"""Small made-up files of the shape that each shipped mapping reads."""

from __future__ import annotations

import csv
import datetime as dt
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = dict[str, Any]


def hours(start: str, number: int) -> list[dt.datetime]:
    """Return `number` hours from a date on."""
    first = dt.datetime.fromisoformat(start)
    return [first + dt.timedelta(hours=n) for n in range(number)]


def text(rows: Sequence[Mapping[str, Any]], encoding: str = "utf-8", before: str = "") -> bytes:
    """Return rows as CSV."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return (before + buffer.getvalue()).encode(encoding)


def kaggle(start: str = "2011-01-01", number: int = 72) -> list[Row]:
    """Return hours as the competition has them."""
    return [
        {
            "datetime": f"{hour:%Y-%m-%d %H:%M:%S}",
            "season": (hour.month + 2) // 3,
            "holiday": int(hour.day == 17),
            "workingday": int(hour.isoweekday() < 6 and hour.day != 17),
            "weather": 1 + hour.hour % 3,
            "temp": 9.84,
            "atemp": 14.395,
            "humidity": 81,
            "windspeed": 8.9981,
            "casual": 3,
            "registered": hour.hour,
            "count": 3 + hour.hour,
        }
        for hour in hours(start, number)
    ]


def seoul(start: str = "2018-01-01", number: int = 72) -> list[Row]:
    """Return hours as the file of the UCI repository has them."""
    return [
        {
            "Date": f"{hour:%d/%m/%Y}",
            "Rented Bike Count": 100 + hour.hour,
            "Hour": hour.hour,
            "Temperature(°C)": -5.2,
            "Humidity(%)": 37,
            "Wind speed (m/s)": 2.2,
            "Visibility (10m)": 2000,
            "Dew point temperature(°C)": -17.6,
            "Solar Radiation (MJ/m2)": 0,
            "Rainfall(mm)": 0,
            "Snowfall (cm)": 0,
            "Seasons": "Winter",
            "Holiday": "Holiday" if (hour.month, hour.day) == (1, 1) else "No Holiday",
            "Functioning Day": "Yes",
        }
        for hour in hours(start, number)
    ]


def old_trips(begins: Iterable[tuple[str, str]]) -> list[Row]:
    """Return trips as they were published until March 2020, of begin and kind of member."""
    return [
        {
            "Duration": 475,
            "Start date": start,
            "End date": f"{dt.datetime.fromisoformat(start) + dt.timedelta(minutes=9):%Y-%m-%d %H:%M:%S}",
            "Start station number": 31620,
            "Start station": "5th & F St NW",
            "End station number": 31623,
            "End station": "Columbus Circle / Union Station",
            "Bike number": "W22771",
            "Member type": member,
        }
        for start, member in begins
    ]


def new_trips(begins: Iterable[tuple[str, str]]) -> list[Row]:
    """Return trips as they are published since April 2020."""
    return [
        {
            "ride_id": f"{number:016X}",
            "rideable_type": "classic_bike",
            "started_at": start,
            "ended_at": f"{dt.datetime.fromisoformat(start) + dt.timedelta(minutes=9):%Y-%m-%d %H:%M:%S.123}",
            "start_station_name": "5th & F St NW",
            "member_casual": member,
        }
        for number, (start, member) in enumerate(begins)
    ]


def weather(start: str, number: int) -> list[Row]:
    """Return the weather of hours as Open-Meteo has it."""
    return [
        {
            "time": f"{hour:%Y-%m-%dT%H:%M}",
            "temperature_2m (°C)": 12.5,
            "relative_humidity_2m (%)": 60,
            "weather_code (wmo code)": 61 if hour.hour == 5 else 3,
            "wind_speed_10m (km/h)": 10.05,
        }
        for hour in hours(start, number)
    ]


OPEN_METEO = "latitude,longitude,elevation,utc_offset_seconds,timezone\n38.9,-77.0,9,-18000,America/New_York\n\n"
