"""Small frames as the champion gives them: a row an hour, made by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from bike_pipeline.notebook_views.elements import Picture


def hours(first: str, days: int, **columns: Any) -> pd.DataFrame:
    """Rows without a gap from midnight of a day on, in one span; `columns` replace what they name."""
    time = pd.date_range(first, periods=24 * days, freq="h")
    hour = time.hour.to_numpy()
    day = time.dayofweek.to_numpy()
    made = {
        "time": time,
        "dteday": time.strftime("%Y-%m-%d"),
        "season": (time.month.to_numpy() % 12) // 3 + 1,
        "yr": time.year.to_numpy() - 2011,
        "mnth": time.month.to_numpy(),
        "hr": hour,
        "holiday": 0,
        "weekday": (day + 1) % 7,
        "workingday": (day < 5).astype(int),
        "weathersit": 1,
        # No two hours of a day are the same.
        **dict.fromkeys(("temp", "atemp", "hum", "windspeed"), 0.3 + hour / 100),
        "cnt": 10 + hour,
        "span": 1,
        "part": "train",
    }
    return pd.DataFrame({**made, **columns})


def champion(rows: pd.DataFrame, error: Any = 0.0) -> Any:
    """What the views ask of a champion that is off by `error` on all of the rows."""
    return SimpleNamespace(rows=rows, evaluated=rows.assign(predicted=rows["cnt"] + np.asarray(error, np.float64)))


def drawn(shown: Any) -> Picture:
    """A picture that could be drawn."""
    assert isinstance(shown, Picture)
    assert shown._repr_png_()[0].startswith(b"\x89PNG")
    return shown
