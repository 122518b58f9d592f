"""TF Serving's metrics, in Prometheus' text format.

Their names begin with a colon, which prometheus_client would rename, so they are written here; the process's own
(memory, CPU, open files) come from prometheus_client, as do those of the model (see `model_metrics`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable

from bike_pipeline.serving.server.model_metrics import ModelMetrics

_PREFIX = ":tensorflow:serving:"
# Of what TF Serving does not tell.
_OWN_PREFIX = "bike_"
# TF Serving's own buckets in microseconds: 10 × 1.8^n.
LATENCY_BUCKETS = tuple(10 * 1.8**power for power in range(33))
EXAMPLE_BUCKETS = tuple(float(2**power) for power in range(16))
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[str, ...]


class Counter:
    """Counts by labels."""

    def __init__(self, name: str, *labels: str, prefix: str = _PREFIX) -> None:
        self._name, self._labels = f"{prefix}{name}", labels
        self._counts: dict[Labels, int] = defaultdict(int)

    def add(self, labels: Labels, amount: int = 1) -> None:
        self._counts[labels] += amount

    def lines(self) -> Iterable[str]:
        yield f"# TYPE {self._name} counter"
        for values, count in self._counts.items():
            yield f"{self._name}{{{_labels(self._labels, values)}}} {count}"


class Gauge:
    """A number that goes up and down."""

    def __init__(self, name: str, value: float) -> None:
        self._name, self._value = f"{_OWN_PREFIX}{name}", value

    def set(self, value: float) -> None:
        self._value = value

    def lines(self) -> Iterable[str]:
        yield f"# TYPE {self._name} gauge"
        yield f"{self._name} {self._value:g}"


class Histogram:
    """Counts in buckets, by labels."""

    def __init__(self, name: str, *labels: str, buckets: tuple[float, ...] = LATENCY_BUCKETS) -> None:
        self._name, self._labels, self._buckets = f"{_PREFIX}{name}", labels, buckets
        self._counts: dict[Labels, list[int]] = defaultdict(lambda: [0] * (len(buckets) + 1))
        self._sums: dict[Labels, float] = defaultdict(float)

    def add(self, labels: Labels, value: float) -> None:
        self._counts[labels][bisect_left(self._buckets, value)] += 1
        self._sums[labels] += value

    def lines(self) -> Iterable[str]:
        """Yield its lines; buckets are cumulative."""
        yield f"# TYPE {self._name} histogram"
        for values, counts in self._counts.items():
            labels = _labels(self._labels, values)
            total = 0
            for bound, count in zip((*self._buckets, None), counts, strict=True):
                total += count
                yield f'{self._name}_bucket{{{labels},le="{"+Inf" if bound is None else f"{bound:g}"}"}} {total}'
            yield f"{self._name}_sum{{{labels}}} {self._sums[values]:g}"
            yield f"{self._name}_count{{{labels}}} {total}"


def _labels(names: Labels, values: Labels) -> str:
    escaped = (value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"') for value in values)
    return ",".join(f'{name}="{value}"' for name, value in zip(names, escaped, strict=True))


class Metrics:
    """All of them; latencies in microseconds."""

    def __init__(self) -> None:
        self.request_count = Counter("request_count", "model_name", "status")
        self.request_latency = Histogram("request_latency", "model_name", "API", "entrypoint")
        self.runtime_latency = Histogram("runtime_latency", "model_name", "API", "runtime")
        self.example_count = Counter("request_example_count_total", "model")
        self.example_counts = Histogram("request_example_counts", "model", buckets=EXAMPLE_BUCKETS)
        self.queuing_latency = Histogram("batching_session:queuing_latency", "model_name")
        self.batch_size = Histogram("batching_session:processed_batch_size", "model_name", buckets=EXAMPLE_BUCKETS)
        self.load_latency = Histogram("load_latency", "model_name")
        self.load_attempts = Counter("load_attempt_count", "model_name", "status")
        self.model = ModelMetrics()
        self.request_log_rows = Counter("request_log_rows_total", "outcome", prefix=_OWN_PREFIX)
        for outcome in ("logged", "left_out", "dropped"):
            # From the start, so that the first one is an increase.
            self.request_log_rows.add((outcome,), 0)
        self.request_log_rate = Gauge("request_log_sampling_rate", 0.0)

    def text(self) -> bytes:
        from prometheus_client import REGISTRY, CollectorRegistry, generate_latest

        ours = [line for metric in vars(self).values() if metric is not self.model for line in metric.lines()]
        of_model = CollectorRegistry(auto_describe=False)
        of_model.register(self.model)
        return "\n".join([*ours, ""]).encode() + generate_latest(of_model) + generate_latest(REGISTRY)
