"""A split's statistics in plain numbers, read from what StatisticsGen wrote, without loading TFDV."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from tensorflow_metadata.proto.v0 import statistics_pb2

_FILE = "FeatureStats.pb"


@dataclass(frozen=True)
class FeatureStatistics:
    """One column of one split: numbers, or codes that are numbers.

    Attributes:
        name: the column.
        rows: rows that have it.
        missing: rows that lack it.
        mean: mean.
        std: standard deviation.
        low: smallest value.
        median: median.
        high: largest value.
        buckets: (from, to, rows) of ten equal buckets.
    """

    name: str
    rows: int
    missing: int
    mean: float
    std: float
    low: float
    median: float
    high: float
    buckets: tuple[tuple[float, float, float], ...]


def read_statistics(uri: str, split: str) -> dict[str, FeatureStatistics]:
    """Return the statistics of one split by column; empty where the files are gone.

    Raises:
        google.protobuf.message.DecodeError: the file is damaged.
    """
    path = Path(uri) / f"Split-{split}" / _FILE
    if not path.is_file():
        return {}
    proto = statistics_pb2.DatasetFeatureStatisticsList.FromString(path.read_bytes())
    found = {}
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
            buckets=tuple((b.low_value, b.high_value, b.sample_count) for b in standard[0].buckets) if standard else (),
        )
    return found


def _coded(name: str, texts: statistics_pb2.StringStatistics) -> FeatureStatistics | None:
    """Return a column of codes, which TFDV counts by value; None where its values are no numbers."""
    try:
        counts = sorted((float(bucket.label), bucket.sample_count) for bucket in texts.rank_histogram.buckets)
    except ValueError:
        return None
    rows = sum(count for _, count in counts)
    if not rows:
        return None
    mean = sum(value * count for value, count in counts) / rows
    below = 0.0
    median = counts[-1][0]
    for value, count in counts:
        below += count
        if below >= rows / 2:
            median = value
            break
    return FeatureStatistics(
        name=name,
        rows=int(texts.common_stats.num_non_missing),
        missing=int(texts.common_stats.num_missing),
        mean=mean,
        std=math.sqrt(sum(count * (value - mean) ** 2 for value, count in counts) / rows),
        low=counts[0][0],
        median=median,
        high=counts[-1][0],
        buckets=tuple((value - 0.5, value + 0.5, count) for value, count in counts),
    )


def shift(now: FeatureStatistics, before: FeatureStatistics) -> float:
    """Return how far the mean moved, in standard deviations of before; NaN where those are zero."""
    return (now.mean - before.mean) / before.std if before.std else math.nan
