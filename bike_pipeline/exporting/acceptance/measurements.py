"""What is measured of an exported model: its answers, how long it takes to be ready, how fast it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bike_pipeline.exporting import timing
from bike_pipeline.exporting.formats.base import Columns, Loaded, Predictions
from bike_pipeline.modeling.golden import with_broken_rows

# Rows in one call where many are answered: what bounds the memory.
ROWS_PER_CALL = 16_384
BATCH = 1024


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
    answers, mixed, on_labels = (predict_all(loaded, rows) for rows in (golden, with_broken_rows(golden), evaluated))
    batch = {name: np.resize(values, BATCH) for name, values in golden.items()}
    seconds = []
    for rows in (first, batch):
        timing.median_seconds(lambda rows=rows: loaded.predict(rows), timing.WARM_UP)  # type: ignore[misc]
        seconds.append(timing.median_seconds(lambda rows=rows: loaded.predict(rows)))  # type: ignore[misc]
    return Measurement(answers, mixed, on_labels, Speed(cold * 1e3, seconds[0] * 1e6, BATCH / seconds[1]))


def predict_all(loaded: Loaded, columns: Columns) -> Predictions:
    """Return the answers to any number of rows, shape (rows,), some at a time."""
    rows = len(next(iter(columns.values())))
    parts = [
        loaded.predict({name: values[start : start + ROWS_PER_CALL] for name, values in columns.items()})
        for start in range(0, rows, ROWS_PER_CALL)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)
