"""Skew between serving and training: requests against the spans' rows of the same hours, by the schema's comparators.

The curated schema says by how much a feature may differ, the data gate's own limits. Requests and rows of the same
hours are the same population, so that no season and no chance comes between them, and a difference needs no test.
The divergence is TFDV's, of histograms of ten bins each; that itself would load TensorFlow, which takes 640 MB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from bike_pipeline import features
from bike_pipeline.monitoring.columns import Array, Columns, Window, by_hour, rows_in, take
from bike_pipeline.monitoring.reference import Reference
from bike_pipeline.monitoring.verdicts import Measurement
from bike_pipeline.settings.monitoring import DetectorSettings

NAMES = tuple(feature.name for feature in features.REQUIRED_INPUTS)
BINS = 10


def measure(
    observed: Columns, reference: Reference, windows: Sequence[Window], settings: DetectorSettings
) -> Iterator[Measurement]:
    """Yield the Jensen-Shannon divergence of each feature that the schema has a skew comparator for."""
    del settings
    if reference.schema is None:
        return
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    schema = text_format.Parse(reference.schema.read_text(encoding="utf-8"), schema_pb2.Schema())
    limits = {
        feature.name: feature.skew_comparator.jensen_shannon_divergence.threshold
        for feature in schema.feature
        if feature.name in NAMES and feature.HasField("skew_comparator")
    }
    for window in windows:
        now, (then, words) = rows_in(observed, window), reference.same_hours(window)
        ours, theirs = _same_hours(now, then)
        rows = len(ours["hour"])
        for name, limit in limits.items():
            effect = divergence(ours[name], theirs[name]) if rows else None
            reason = f"{name} is {effect:.3f} bits from {words}" if rows else "the spans hold none of its hours"
            yield Measurement(
                "skew", "data drift", name, *window, words, rows, len(theirs["hour"]), effect, "bits", limit, None,
                reason,
            )  # fmt: skip


def _same_hours(now: Columns, then: Columns) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return requests by hour, and rows of the spans, of the hours that both hold, each hour once."""
    hours, means = by_hour({"hour": now["hour"]} | {name: np.nan_to_num(now[name]) for name in NAMES}, *NAMES)
    # Of codes that differ, what most requests say.
    ours = {"hour": hours} | {n: np.rint(v) if features.BY_NAME[n].kind == "int" else v for n, v in means.items()}
    both = np.intersect1d(hours, then["hour"])
    return take(ours, np.isin(hours, both)), take(then, np.isin(then["hour"], both))


def divergence(ours: Array, theirs: Array) -> float:
    """Return the Jensen-Shannon divergence of the histograms of values, in bits, each over its own range."""
    from scipy.spatial.distance import jensenshannon

    edges = np.union1d(*(np.histogram_bin_edges(values, BINS) for values in (ours, theirs)))

    def shares(values: Array) -> Array:
        counts, own = np.histogram(values, BINS)
        # Within a bin values lie evenly.
        return np.diff(np.interp(edges, own, np.concatenate([[0], counts.cumsum()])))

    return float(jensenshannon(shares(ours), shares(theirs), base=2) ** 2)
