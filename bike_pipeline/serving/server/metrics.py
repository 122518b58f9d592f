"""TF Serving's metrics, in Prometheus' text format.

Their names begin with a colon, which prometheus_client would rename, so they are written here; the process's own
(memory, CPU, open files) come from prometheus_client.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

_PREFIX = ":tensorflow:serving:"
# TF Serving's own buckets in microseconds: 10 × 1.8^n.
LATENCY_BUCKETS = tuple(10 * 1.8**power for power in range(33))
EXAMPLE_BUCKETS = tuple(float(2**power) for power in range(16))
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[str, ...]


class Counter:
    """Counts by labels."""

    def __init__(self, name: str, labels: Labels) -> None:
        self.name = name
        self.labels = labels
        self.counts: dict[Labels, int] = {}

    def add(self, labels: Labels, amount: int = 1) -> None:
        self.counts[labels] = self.counts.get(labels, 0) + amount

    def lines(self) -> Iterable[str]:
        yield f"# TYPE {_PREFIX}{self.name} counter"
        for values, count in self.counts.items():
            yield f"{_PREFIX}{self.name}{{{_labels(self.labels, values)}}} {count}"


class Histogram:
    """Counts in buckets, by labels."""

    def __init__(self, name: str, labels: Labels, buckets: tuple[float, ...]) -> None:
        self.name = name
        self.labels = labels
        self._buckets = buckets
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def add(self, labels: Labels, value: float) -> None:
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * (len(self._buckets) + 1)
            self._sums[labels] = 0.0
        counts[bisect_left(self._buckets, value)] += 1
        self._sums[labels] += value

    def lines(self) -> Iterable[str]:
        """Yield its lines; buckets are cumulative."""
        name = f"{_PREFIX}{self.name}"
        yield f"# TYPE {name} histogram"
        for values, counts in self._counts.items():
            labels = _labels(self.labels, values)
            total = 0
            for bound, count in zip((*self._buckets, None), counts, strict=True):
                total += count
                yield f'{name}_bucket{{{labels},le="{"+Inf" if bound is None else f"{bound:g}"}"}} {total}'
            yield f"{name}_sum{{{labels}}} {self._sums[values]:g}"
            yield f"{name}_count{{{labels}}} {total}"


def _labels(names: Labels, values: Labels) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


class Metrics:
    """All of them; latencies in microseconds."""

    def __init__(self) -> None:
        self.request_count = Counter("request_count", ("model_name", "status"))
        self.request_latency = Histogram("request_latency", ("model_name", "API", "entrypoint"), LATENCY_BUCKETS)
        self.runtime_latency = Histogram("runtime_latency", ("model_name", "API", "runtime"), LATENCY_BUCKETS)
        self.example_count = Counter("request_example_count_total", ("model",))
        self.example_counts = Histogram("request_example_counts", ("model",), EXAMPLE_BUCKETS)
        self.queuing_latency = Histogram("batching_session:queuing_latency", ("model_name",), LATENCY_BUCKETS)
        self.batch_size = Histogram("batching_session:processed_batch_size", ("model_name",), EXAMPLE_BUCKETS)
        self.load_latency = Histogram("load_latency", ("model_name",), LATENCY_BUCKETS)
        self.load_attempts = Counter("load_attempt_count", ("model_name", "status"))

    def text(self) -> bytes:
        from prometheus_client import REGISTRY, generate_latest

        ours = [line for metric in vars(self).values() for line in metric.lines()]
        return "\n".join([*ours, ""]).encode() + generate_latest(REGISTRY)

    def of_model(self, name: str) -> ModelMetrics:
        return ModelMetrics(self, name)


class ModelMetrics:
    """Counts the batches of one model."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self._metrics = metrics
        self._name = (name,)

    def batch(self, rows: int, waited: Iterable[float]) -> None:
        """Count a batch, and for how many seconds each of its requests waited."""
        self._metrics.batch_size.add(self._name, rows)
        for seconds in waited:
            self._metrics.queuing_latency.add(self._name, seconds * 1e6)

    def ran(self, backend: str, seconds: float) -> None:
        """Count a call of a backend, in seconds."""
        self._metrics.runtime_latency.add((*self._name, "Predict", backend), seconds * 1e6)
