"""NannyML by its defaults on the same rows: `python benchmarks/monitoring/nannyml_peer.py FOLDER`, in its environment.

It reads Parquet files that `benchmarks.monitoring_detectors` wrote, and writes nannyml.json beside them. Drift is that
of its univariate calculator against 2011, errors are estimated (DLE) and realized against the eval split of the model.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import nannyml
import pandas as pd

CODES = ["weathersit", "hr", "weekday", "workingday", "holiday"]
WEATHER = ["temp", "atemp", "hum", "windspeed", "temp_mean_24h"]


def _alerts(result: Any) -> list[tuple[str, list[str]]]:
    """Return the end of each chunk of the analysis, and what has an alert in it."""
    frame = result.filter(period="analysis").to_df()
    ends = next(column for column in frame.columns if column[-1] == "end_date")
    marked = [column for column in frame.columns if column[-1] == "alert"]
    return [
        (str(row[ends]), sorted({str(column[0]) for column in marked if bool(row[column])}))
        for _, row in frame.iterrows()
    ]


def _features(reference: pd.DataFrame, period: str) -> list[Any]:
    names, of_time = [*WEATHER, *CODES], {"timestamp_column_name": "t", "chunk_period": period}
    found = [nannyml.UnivariateDriftCalculator(column_names=names, treat_as_categorical=CODES, **of_time)]
    if period == "D":
        found.append(nannyml.MissingValuesCalculator(column_names=names, **of_time))
        found.append(nannyml.NumericalRangeCalculator(column_names=WEATHER, **of_time))
        found.append(nannyml.UnseenValuesCalculator(column_names=["weather"], **of_time))
    return [calculator.fit(reference) for calculator in found]


def main() -> None:
    """Read, look, write."""
    warnings.filterwarnings("ignore")
    folder = Path(sys.argv[1])
    reference, held, year, episodes = (
        pd.read_parquet(folder / f"{name}.parquet") for name in ("reference", "held", "year", "episodes")
    )
    (weekly,) = _features(reference, "W")
    found: dict[str, Any] = {"drift": _alerts(weekly.calculate(year))}
    common = {"y_true": "y", "timestamp_column_name": "t", "metrics": ["mae"], "chunk_period": "W"}
    for name in ("stale", "fed"):
        then, now = (frame.assign(p=frame[name]) for frame in (held, year))
        estimator = nannyml.DLE(feature_column_names=[*WEATHER, *CODES], y_pred="p", **common).fit(then)
        found[f"estimated {name}"] = _alerts(estimator.estimate(now))
        realized = nannyml.PerformanceCalculator(y_pred="p", problem_type="regression", **common).fit(then)
        found[f"realized {name}"] = _alerts(realized.calculate(now))
    daily = _features(reference, "D")
    found["episodes"] = [
        sorted((*one, type(calculator).__name__) for calculator in daily for one in _alerts(calculator.calculate(rows)))
        for _, rows in episodes.groupby("episode", sort=True)
    ]
    (folder / "nannyml.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
