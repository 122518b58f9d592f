"""What is measured of an exported model: its answers, how long it takes to be ready, how fast it is.

Several calls take turns on one core, so that a slower machine slows all of them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from bike_pipeline.exporting.formats.base import Columns, Loaded, Predictions, in_parts
from bike_pipeline.modeling.golden import with_broken_rows

BATCH = 1024
# Calls until caches, branch prediction and lazily made buffers have settled.
WARM_UP = 20
# A median settles long before; the seconds bound what a slow call may cost.
CALLS, SECONDS = 2000, 0.1
_FEWEST = 5


@dataclass(frozen=True)
class Speed:
    """How fast an exported model is, on one thread.

    Attributes:
        cold_start_ms: from an interpreter that is ready to the first answer: the runtime's import, loading, one row.
        latency_us: p50 of one row a call, in microseconds, from NumPy arrays to a NumPy array.
        rows_per_second: rows a second with 1,024 rows a call (p50 of the calls).
    """

    cold_start_ms: float
    latency_us: float
    rows_per_second: float


@dataclass(frozen=True)
class Measurement:
    """What an exported model answered, in rentals an hour, each of shape (rows,), and how fast.

    Attributes:
        golden: its answers to the golden rows.
        mixed: its answers to the same with rows of a broken sensor among them (`golden.with_broken_rows`).
        evaluated: its answers to the rows of the eval split.
        speed: how fast it is.
    """

    golden: Predictions
    mixed: Predictions
    evaluated: Predictions
    speed: Speed


def measure(load: Callable[[], Loaded], golden: Columns, evaluated: Columns) -> Measurement:
    """Load an exported model and measure it; for a true cold start, in a process that has not used its runtime yet."""
    first = {name: values[:1] for name, values in golden.items()}
    began = time.perf_counter()
    loaded = load()
    loaded.predict(first)
    cold = time.perf_counter() - began
    asked = (golden, with_broken_rows(golden), evaluated)
    answers, mixed, on_labels = (in_parts(loaded.predict, rows) for rows in asked)
    batch = {name: np.resize(values, BATCH) for name, values in golden.items()}
    seconds = []
    for rows in (first, batch):
        median_seconds(lambda rows=rows: loaded.predict(rows), WARM_UP)  # type: ignore[misc]
        seconds.append(median_seconds(lambda rows=rows: loaded.predict(rows)))  # type: ignore[misc]
    return Measurement(answers, mixed, on_labels, Speed(cold * 1e3, seconds[0] * 1e6, BATCH / seconds[1]))


def median_seconds(call: Callable[[], object], calls: int = CALLS) -> float:
    """Return the median time of up to `calls` calls, in seconds."""
    taken: list[float] = []
    ends = time.perf_counter() + SECONDS
    while len(taken) < _FEWEST or (len(taken) < calls and time.perf_counter() < ends):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return float(np.median(taken))


@contextmanager
def one_core() -> Iterator[int]:
    """Keep this thread on one of the cores that it may use, and yield the core's number."""
    allowed = os.sched_getaffinity(0)
    core = max(allowed)
    os.sched_setaffinity(0, {core})
    try:
        yield core
    finally:
        os.sched_setaffinity(0, allowed)


def medians_by_round(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return the median seconds of each call by name, one a round of at least 1; in each round all take their turn."""
    for call in calls.values():
        median_seconds(call, WARM_UP)
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            found[name].append(median_seconds(call))
    return found
