"""What versions answer and what they are asked, as metrics: answers, widths of intervals, values out of their range.

A request pays for writing its rows into a table; they are counted a thousand at a time, or when somebody scrapes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from bike_pipeline import features
from bike_pipeline.serving.server.tensors import FLOAT, INT64, Array, Signature, TensorSpec

if TYPE_CHECKING:
    from prometheus_client import Metric

RENTALS_BUCKETS = (0.0, 5.0, 10.0, 25.0, 50.0, 100.0, 150.0, 200.0, 300.0, 400.0, 500.0, 650.0, 800.0, 1000.0)
PROBABILITY_BUCKETS = tuple(step / 10 for step in range(11))
_AT_ONCE = 1024
# Versions at their end whose counts are still told, so that a scrape after a swap finds what they answered last.
_ENDED = 4
_LABELS = ("model_name", "version")
# By the output that answers: its metric and the buckets.
_ANSWERS = {
    features.ANSWERS["rentals"].output: ("bike_answered_rentals", RENTALS_BUCKETS),
    features.ANSWERS["busy"].output: ("bike_answered_probability", PROBABILITY_BUCKETS),
}
_WIDTH = ("bike_interval_width_rentals", RENTALS_BUCKETS)
_HELP = {
    "bike_answered_rentals": "Answers, in rentals an hour.",
    "bike_answered_probability": "Answers, as the probability of a busy hour.",
    "bike_interval_width_rentals": "Width between the outer quantiles of an answer.",
}


class _Distribution:
    """Numbers in buckets, and how many were none."""

    def __init__(self, buckets: tuple[float, ...]) -> None:
        self._bounds = np.array(buckets)
        self._counts = np.zeros(len(buckets) + 1, np.int64)
        self._sum = 0.0
        self.not_numbers = 0

    def add(self, values: npt.NDArray[np.float32]) -> None:
        numbers = values[np.isfinite(values)].astype(np.float64)
        self.not_numbers += len(values) - len(numbers)
        self._counts += np.bincount(np.searchsorted(self._bounds, numbers), minlength=len(self._counts))
        self._sum += float(numbers.sum())

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """Return the count up to each bound, and the sum."""
        bounds = [*(f"{bound:g}" for bound in self._bounds), "+Inf"]
        return list(zip(bounds, np.cumsum(self._counts).tolist(), strict=True)), self._sum


class VersionMetrics:
    """Counts of one version of a model. All methods belong to the event loop's thread.

    Attributes:
        answering: how many of it answer: two while a folder that was replaced is loaded again, else one or none.
        loaded_at: when it came to, in seconds since the epoch; 0 before.
        rows: rows whose inputs were looked at; `rows_out_of_range` of them have a value out of its feature's range.
        out_of_range: values out of their range, by feature.
        distributions: by the name of their metric.
    """

    def __init__(self) -> None:
        self.answering = 0
        self.loaded_at = 0.0
        self.rows = self.rows_out_of_range = 0
        self.out_of_range: dict[str, int] = {}
        self.distributions: dict[str, _Distribution] = {}
        # Each belongs to a signature in memory.
        self._tables: WeakSet[AnsweredRows] = WeakSet()

    def begin(self) -> None:
        """Say that it answers from now on."""
        self.answering, self.loaded_at = self.answering + 1, time.time()

    def end(self) -> None:
        """Say that it takes no new request."""
        self.answering -= 1

    def table(self, signature: Signature) -> AnsweredRows | None:
        """Return where the rows of a signature go; None where nothing of it is an answer that we know."""
        table = AnsweredRows(signature, self)
        if not table.watches:
            return None
        self._tables.add(table)
        return table

    def count(self) -> None:
        """Count what waits in tables."""
        for table in self._tables:
            table.count()


def _is_column(spec: TensorSpec) -> bool:
    return spec.shape == (-1,) and spec.dtype in (FLOAT, INT64)


class AnsweredRows:
    """Rows of one signature that are not counted yet: inputs and answers, in a column each."""

    def __init__(self, signature: Signature, version: VersionMetrics) -> None:
        self._version = version
        inputs = [f for f in features.MODEL_INPUTS if f.name in signature.inputs]
        # Of tf.Examples only the answers are known here.
        self._features = [f for f in inputs if _is_column(signature.inputs[f.name])]
        intervals = signature.name == features.SERVING_INTERVALS
        outputs = [name for name, spec in signature.outputs.items() if _is_column(spec)]
        self._answer = next((name for name in outputs if name in _ANSWERS), "")
        self._quantiles = [name for name in outputs if name != self._answer] if intervals else []
        self.watches = bool(signature.batches and self._answer)
        self._table = np.empty((len(self._features) + len(self._quantiles) + 1, _AT_ONCE), np.float32)
        self._inputs = [(f.name, column) for f, column in zip(self._features, self._table, strict=False)]
        names = [self._answer, *self._quantiles]
        self._outputs = list(zip(names, self._table[len(self._features) :], strict=True))
        self._rows = 0
        least = [-np.inf if f.minimum is None else f.minimum for f in self._features]
        most = [np.inf if f.maximum is None else f.maximum for f in self._features]
        self._least, self._most = (np.array(bounds, np.float32)[:, None] for bounds in (least, most))
        # A value that is not above 0 stands for none there.
        self._optional = np.array([f.default is not None for f in self._features], bool)[:, None]

    def add(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array], rows: int) -> None:
        """Take the first rows of a call of the model; the others filled it up."""
        if any(len(outputs[name]) < rows for name, _ in self._outputs):
            # A model may answer with fewer rows than it was asked; which ones, nobody knows.
            return
        for first in range(0, rows, _AT_ONCE):
            last = min(first + _AT_ONCE, rows)
            if self._rows + last - first > _AT_ONCE:
                self.count()
            start, end = self._rows, self._rows + last - first
            for name, column in self._inputs:
                column[start:end] = inputs[name][first:last]
            for name, column in self._outputs:
                column[start:end] = outputs[name][first:last]
            self._rows = end

    def count(self) -> None:
        """Count the rows that wait."""
        if not self._rows:
            return
        table, version, count = self._table[:, : self._rows], self._version, len(self._features)
        self._rows = 0
        values = table[:count]
        if count:
            # What is no number is in no range.
            in_range = (values >= self._least) & (values <= self._most) | (self._optional & (values <= 0.0))
            version.rows += values.shape[1]
            version.rows_out_of_range += int((~in_range).any(axis=0).sum())
            for feature, out in zip(self._features, (~in_range).sum(axis=1).tolist(), strict=True):
                version.out_of_range[feature.name] = version.out_of_range.get(feature.name, 0) + out
        self._put(_ANSWERS[self._answer], table[count])
        if self._quantiles:
            around = table[count + 1 :]
            self._put(_WIDTH, around.max(axis=0) - around.min(axis=0))

    def _put(self, metric: tuple[str, tuple[float, ...]], values: npt.NDArray[np.float32]) -> None:
        name, buckets = metric
        self._version.distributions.setdefault(name, _Distribution(buckets)).add(values)


class ModelMetrics:
    """The metrics of all versions of a server; a collector of prometheus_client."""

    def __init__(self) -> None:
        self._versions: dict[tuple[str, str], VersionMetrics] = {}

    def of_version(self, model: str, version: int) -> VersionMetrics:
        """Return the counts of a version, which go on where it is loaded again."""
        ended = [key for key, found in self._versions.items() if not found.answering]
        for key in ended[: max(0, len(ended) - _ENDED)]:
            del self._versions[key]
        return self._versions.setdefault((model, str(version)), VersionMetrics())

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics as they are now."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        answering = sum(version.answering > 0 for version in self._versions.values())
        # Without labels, so that it is there before any version is, and tells this server from TF Serving.
        yield GaugeMetricFamily("bike_versions_available", "How many versions answer.", value=answering)
        available = GaugeMetricFamily("bike_version_available", "Whether a version answers.", labels=_LABELS)
        loaded = GaugeMetricFamily("bike_version_loaded_timestamp_seconds", "When it began to.", labels=_LABELS)
        rows = CounterMetricFamily("bike_rows_total", "Rows whose inputs were looked at.", labels=_LABELS)
        outside = CounterMetricFamily(
            "bike_rows_out_of_range_total", "Rows with a value out of its feature's range.", labels=_LABELS
        )
        values = CounterMetricFamily(
            "bike_values_out_of_range_total", "Values out of their feature's range.", labels=(*_LABELS, "feature")
        )
        nothing = CounterMetricFamily(
            "bike_answers_without_number_total", "Answers that are no number.", labels=_LABELS
        )
        distributions = {name: HistogramMetricFamily(name, text, labels=_LABELS) for name, text in _HELP.items()}
        for labels, version in self._versions.items():
            version.count()
            available.add_metric(labels, float(version.answering > 0))
            loaded.add_metric(labels, version.loaded_at)
            rows.add_metric(labels, version.rows)
            outside.add_metric(labels, version.rows_out_of_range)
            for feature, count in version.out_of_range.items():
                values.add_metric((*labels, feature), count)
            answers = [found for name, found in version.distributions.items() if name != _WIDTH[0]]
            nothing.add_metric(labels, sum(found.not_numbers for found in answers))
            for name, distribution in version.distributions.items():
                distributions[name].add_metric(labels, *distribution.buckets())
        yield from (available, loaded, rows, outside, values, nothing, *distributions.values())
