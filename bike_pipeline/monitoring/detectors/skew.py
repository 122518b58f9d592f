"""Skew between serving and training: requests against the spans' rows of the same hours, by TFDV's comparators.

The curated schema says by how much a feature may differ, the data gate's own limits. Requests and rows of the same
hours are the same population, so that no season and no chance comes between them, and a difference needs no test.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bike_pipeline import features
from bike_pipeline.monitoring.columns import Array, Columns, Window, by_hour, rows_in, take
from bike_pipeline.monitoring.reference import Reference
from bike_pipeline.monitoring.verdicts import Measurement
from bike_pipeline.settings.monitoring import DetectorSettings

NAMES = tuple(feature.name for feature in features.REQUIRED_INPUTS)


def measure(
    observed: Columns, reference: Reference, windows: Sequence[Window], settings: DetectorSettings
) -> list[Measurement]:
    """Return the Jensen-Shannon divergence of each feature that the schema has a skew comparator for."""
    del settings
    if reference.schema is None:
        return []
    import tensorflow_data_validation as tfdv

    schema = tfdv.load_schema_text(str(reference.schema))
    limits = {
        feature.name: feature.skew_comparator.jensen_shannon_divergence.threshold
        for feature in schema.feature
        if feature.name in NAMES and feature.HasField("skew_comparator")
    }
    found = []
    for window in windows:
        now, (then, words) = rows_in(observed, window), reference.same_hours(window)
        ours, theirs = _same_hours(now, then)
        rows = len(ours["hour"])
        divergences = dict.fromkeys(limits, 0.0)
        if rows:
            training, serving = (tfdv.generate_statistics_from_dataframe(_frame(one)) for one in (theirs, ours))
            anomalies = tfdv.validate_statistics(training, schema, serving_statistics=serving)
            for info in anomalies.drift_skew_info:
                divergences[info.path.step[-1]] = info.skew_measurements[0].value
        for name, limit in limits.items():
            reason = (
                f"{name} is {divergences[name]:.3f} bits from {words}" if rows else "the spans hold none of its hours"
            )
            found.append(
                Measurement(
                    "skew", "data drift", name, *window, words, rows, len(theirs["hour"]),
                    divergences[name] if rows else None, "bits", limit, None, reason,
                )
            )  # fmt: skip
    return found


def _same_hours(now: Columns, then: Columns) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return requests by hour, and rows of the spans, of the hours that both hold, each hour once."""
    hours, means = by_hour({"hour": now["hour"]} | {name: np.nan_to_num(now[name]) for name in NAMES}, *NAMES)
    ours = {"hour": hours} | means
    both = np.intersect1d(hours, then["hour"])
    return take(ours, np.isin(hours, both)), take(then, np.isin(then["hour"], both))


def _frame(columns: Columns) -> object:
    import pandas as pd

    whole = {feature.name for feature in features.REQUIRED_INPUTS if feature.kind == "int"}
    return pd.DataFrame(
        {name: np.rint(columns[name]).astype(np.int64) if name in whole else columns[name] for name in NAMES}
    )
