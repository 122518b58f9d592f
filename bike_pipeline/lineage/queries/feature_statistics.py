"""A split's statistics in plain numbers, read from what StatisticsGen wrote, without loading TFDV."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from tensorflow_metadata.proto.v0 import statistics_pb2

from bike_pipeline.data import calendar_sums
from bike_pipeline.lineage.store.metadata_store import Artifact, Lineage
from bike_pipeline.stages import Stage

# Columns that StatisticsGen counts value by value, beside TFDV's ten buckets, which would mix their values.
_COUNTED = {"hr", "weekday", "mnth"}
_FILE = "FeatureStats.pb"
# From, to, rows.
Bucket: TypeAlias = tuple[float, float, float]
# Mean, standard deviation, lowest, median, highest, buckets.
_Numbers: TypeAlias = tuple[float, float, float, float, float, tuple[Bucket, ...]]


@dataclass(frozen=True)
class FeatureStatistics:
    """One column of one split: numbers, or codes that are numbers; `rows` have it, `missing` lack it.

    Buckets are (from, to, rows): one a value for codes, hours, weekdays, months and other whole numbers of a narrow
    range, else ten equal ones.
    """

    rows: int
    missing: int
    mean: float
    std: float
    low: float
    median: float
    high: float
    buckets: tuple[Bucket, ...]


def read_statistics(uri: str, split: str) -> dict[str, FeatureStatistics]:
    """Return the statistics of one split by column; empty if the files are gone.

    A damaged file is protobuf's DecodeError; that of the sums by day, a DataError.
    """
    path = Path(uri) / f"Split-{split}" / _FILE
    if not path.is_file():
        return {}
    proto = statistics_pb2.DatasetFeatureStatisticsList.FromString(path.read_bytes())
    found: dict[str, FeatureStatistics] = {}
    for feature in proto.datasets[0].features if proto.datasets else ():
        name = feature.path.step[-1] if feature.path.step else feature.name
        coded = feature.HasField("string_stats")
        common = (feature.string_stats if coded else feature.num_stats).common_stats
        numbers = _coded(feature.string_stats) if coded else _measured(feature) if common.num_non_missing else None
        if numbers is not None:
            found[name] = FeatureStatistics(int(common.num_non_missing), int(common.num_missing), *numbers)
    calendar = Path(calendar_sums.file_of(uri, split))
    if calendar.is_file():
        sums = calendar_sums.from_bytes(calendar.read_bytes(), str(calendar))
        for name in _COUNTED & found.keys():
            found[name] = replace(found[name], buckets=_by_value(sums.rows_by(name)))
    return found


def statistics_of(lineage: Lineage, examples: Artifact | None, split: str) -> dict[str, FeatureStatistics]:
    """Return the newest statistics of one split of examples, as `read_statistics`; empty if none were taken."""
    readers = lineage.consumers(examples.id, Stage.STATISTICS_GEN) if examples is not None else []
    taken = (found for e in reversed(readers) for found in lineage.outputs(e.id).get("statistics", []))
    return next((read_statistics(found.uri, split) for found in taken), {})


def _measured(feature: statistics_pb2.FeatureNameStatistics) -> _Numbers:
    numbers = feature.num_stats
    standard = next((h.buckets for h in numbers.histograms if h.type == h.STANDARD), ())
    found = [(b.low_value, b.high_value, b.sample_count) for b in standard]
    buckets = _whole(found) if feature.type == feature.INT and found else tuple(found)
    return numbers.mean, numbers.std_dev, numbers.min, numbers.median, numbers.max, buckets


def _whole(found: Sequence[Bucket]) -> tuple[Bucket, ...]:
    if found[-1][1] - found[0][0] >= len(found):
        return tuple(found)
    # No bucket holds two values; what TFDV's estimate puts between two belongs to the nearer one.
    rows: dict[int, float] = defaultdict(float)
    for first, last, count in found:
        rows[round((first + last) / 2)] += count
    return _by_value(rows)


def _by_value(rows: Mapping[Any, float]) -> tuple[Bucket, ...]:
    return tuple((value - 0.5, value + 0.5, count) for value, count in sorted(rows.items()))


def _coded(texts: statistics_pb2.StringStatistics) -> _Numbers | None:
    """Return the numbers of a column of codes, which TFDV counts by value; None if its values are no numbers."""
    try:
        counts = sorted((float(bucket.label), bucket.sample_count) for bucket in texts.rank_histogram.buckets)
    except ValueError:
        return None
    rows = sum(count for _, count in counts)
    if not rows:
        return None
    values, weights = np.array(counts).T
    mean = float(np.average(values, weights=weights))
    std = math.sqrt(np.average((values - mean) ** 2, weights=weights))
    median = float(values[np.searchsorted(np.cumsum(weights), rows / 2)])
    return mean, std, counts[0][0], median, counts[-1][0], _by_value(dict(counts))


def shift(now: FeatureStatistics | None, before: FeatureStatistics | None) -> float | None:
    """Return how far the mean moved, in standard deviations of before; None where those are zero or one is missing."""
    return (now.mean - before.mean) / before.std if now and before and before.std else None
