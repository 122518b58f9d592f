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


@dataclass(frozen=True)
class FeatureStatistics:
    """One column of one split: numbers, or codes that are numbers; `rows` have it, `missing` lack it.

    Buckets are (from, to, rows): one a value for codes, hours, weekdays, months and other whole numbers of a narrow
    range, else ten equal ones.
    """

    name: str
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
        if feature.HasField("string_stats"):
            coded = _coded(name, feature.string_stats)
            if coded is not None:
                found[name] = coded
            continue
        numbers = feature.num_stats
        if not numbers.common_stats.num_non_missing:
            continue
        standard = [h for h in numbers.histograms if h.type == h.STANDARD]
        found[name] = FeatureStatistics(
            name=name,
            rows=int(numbers.common_stats.num_non_missing),
            missing=int(numbers.common_stats.num_missing),
            mean=numbers.mean,
            std=numbers.std_dev,
            low=numbers.min,
            median=numbers.median,
            high=numbers.max,
            buckets=_buckets(standard[0].buckets, whole=feature.type == feature.INT) if standard else (),
        )
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


def _buckets(recorded: Sequence[Any], whole: bool) -> tuple[Bucket, ...]:
    found = [(b.low_value, b.high_value, b.sample_count) for b in recorded]
    low, high = found[0][0], found[-1][1]
    if not whole or high - low >= len(found):
        return tuple(found)
    # No bucket holds two values; what TFDV's estimate puts between two belongs to the nearer one.
    rows: dict[int, float] = defaultdict(float)
    for first, last, count in found:
        rows[round((first + last) / 2)] += count
    return _by_value(rows)


def _by_value(rows: Mapping[int, float]) -> tuple[Bucket, ...]:
    return tuple((value - 0.5, value + 0.5, count) for value, count in sorted(rows.items()))


def _coded(name: str, texts: statistics_pb2.StringStatistics) -> FeatureStatistics | None:
    """Return a column of codes, which TFDV counts by value; None if its values are no numbers."""
    try:
        counts = sorted((float(bucket.label), bucket.sample_count) for bucket in texts.rank_histogram.buckets)
    except ValueError:
        return None
    rows = sum(count for _, count in counts)
    if not rows:
        return None
    values, weights = np.array(counts).T
    mean = float(np.average(values, weights=weights))
    return FeatureStatistics(
        name=name,
        rows=int(texts.common_stats.num_non_missing),
        missing=int(texts.common_stats.num_missing),
        mean=mean,
        std=math.sqrt(np.average((values - mean) ** 2, weights=weights)),
        low=counts[0][0],
        median=float(values[np.searchsorted(np.cumsum(weights), rows / 2)]),
        high=counts[-1][0],
        buckets=tuple((value - 0.5, value + 0.5, count) for value, count in counts),
    )


def shift(now: FeatureStatistics | None, before: FeatureStatistics | None) -> float | None:
    """Return how far the mean moved, in standard deviations of before; None where those are zero or one is missing."""
    return (now.mean - before.mean) / before.std if now and before and before.std else None
