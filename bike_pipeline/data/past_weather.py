"""The optional inputs of the model (`features.OPTIONAL_INPUTS`), made of the time of rows and of the rows before them.

ExampleGen makes them for the pipeline; a client that keeps its last day of weather makes them by the same function.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bike_pipeline import features
from bike_pipeline.data.calendar_sums import calendar_of

if TYPE_CHECKING:
    import pyarrow as pa

# What each is the mean of: a column, over so many hours before the row's own.
MEANS: dict[str, tuple[str, int]] = {
    "weathersit_mean_1h": ("weathersit", 1),
    "weathersit_mean_3h": ("weathersit", 3),
    "temp_mean_3h": ("temp", 3),
    "temp_mean_24h": ("temp", 24),
    "hum_mean_3h": ("hum", 3),
    "windspeed_mean_3h": ("windspeed", 3),
}
COLUMNS = tuple(dict.fromkeys(column for column, _ in MEANS.values()))
# How far back any of them looks.
LONGEST_HOURS = max(hours for _, hours in MEANS.values())


def optional_inputs(
    hours: npt.NDArray[np.int64], weather: Mapping[str, npt.NDArray[Any]]
) -> dict[str, npt.NDArray[Any]]:
    """Return the optional inputs of rows by name, int64 or float32, (rows,) each.

    A mean is that of the hours that are among the rows, and the feature's default where none of them is. It depends on
    these hours alone, to the last bit, whatever other rows there are.

    Args:
        hours: time of each row in hours since 1970-01-01 00:00 local time, (rows,), rising.
        weather: the columns named in `COLUMNS`, (rows,) each.
    """
    found: dict[str, npt.NDArray[Any]] = {"day": calendar_of(hours // 24)["day"]}
    totals = {name: np.zeros(len(hours)) for name in MEANS}
    counts = {name: np.zeros(len(hours)) for name in MEANS}
    for lag in range(1, LONGEST_HOURS + 1):
        places = np.searchsorted(hours, hours - lag)
        known = hours[places] == hours - lag
        for name, (column, longest) in MEANS.items():
            if lag <= longest:
                totals[name] += np.where(known, weather[column][places], 0.0)
                counts[name] += known
    for name, total in totals.items():
        mean = np.where(counts[name] > 0, total / np.maximum(counts[name], 1.0), features.BY_NAME[name].default or 0.0)
        found[name] = mean.astype(np.float32)
    return found


def with_optional_inputs(rows: pa.Table, *earlier: pa.Table) -> pa.Table:
    """Return rows of the span store, in any order, with their optional inputs, made of them and of earlier ones.

    Of an hour that stands there twice the first counts, and `rows` stand before `earlier`.
    """
    import pyarrow as pa

    from bike_pipeline.data.rows import hours_of

    wanted = [features.DATE, features.HOUR, *COLUMNS]
    known = pa.concat_tables(table.select(wanted) for table in (rows, *earlier))
    times, places = np.unique(hours_of(known), return_index=True)
    made = optional_inputs(times, {name: known.column(name).to_numpy()[places] for name in COLUMNS})
    own = np.searchsorted(times, hours_of(rows))
    for name, values in made.items():
        rows = rows.append_column(name, pa.array(values[own]))
    return rows
