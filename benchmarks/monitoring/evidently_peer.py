"""Evidently by its defaults on the same rows: the preset of data drift, against the rows of 2011."""

from __future__ import annotations

import warnings
from typing import Any

import pandas as pd

# Of columns that must have drifted for a data set to have.
DRIFT_SHARE = 0.5


def drifted(current: pd.DataFrame, reference: pd.DataFrame) -> tuple[bool, set[str]]:
    """Return whether the rows have drifted as a whole, and which columns have."""
    from evidently import Report
    from evidently.presets import DataDriftPreset

    with warnings.catch_warnings():
        # It also asks how columns go together, those too that are all the same in a day.
        warnings.simplefilter("ignore", RuntimeWarning)
        metrics: list[dict[str, Any]] = Report([DataDriftPreset()]).run(current, reference).dict()["metrics"]
    columns = set()
    for metric in metrics[1:]:
        config, value = metric["config"], float(metric["value"])
        threshold = float(config["threshold"])
        if value < threshold if "p_value" in config["method"] else value >= threshold:
            columns.add(str(config["column"]))
    return float(metrics[0]["value"]["share"]) >= DRIFT_SHARE, columns
