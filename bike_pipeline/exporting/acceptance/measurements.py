"""What is measured of an exported model: its answers, how long it takes to be ready, how fast it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bike_pipeline.exporting.formats.base import Columns, Format, Loaded, Predictions
from bike_pipeline.modeling.golden import with_broken_rows

# Rows in one call where many are answered: what bounds the memory.
ROWS_PER_CALL = 16_384
BATCH = 1024
# Calls until caches, branch prediction and lazily made buffers have settled.
_WARM_UP = 20
# A p50 settles long before; the time bounds what a slow format may cost.
_CALLS, _SECONDS = 2000, 0.1
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
class Measured:
    """What an exported model answered, and how fast.

    Attributes:
        golden: its answers to the golden rows, shape (rows,), in rentals an hour.
        mixed: its answers to the same with rows of a broken sensor among them (`golden.with_broken_rows`).
        evaluated: its answers to the rows of the eval split, shape (rows,), in rentals an hour.
        speed: how fast it is.
    """

    golden: Predictions
    mixed: Predictions
    evaluated: Predictions
    speed: Speed


def measure(format_: Format, folder: Path, golden: Columns, evaluated: Columns) -> Measured:
    """Load an exported model and measure it; for a true cold start, in a process that has not used its runtime yet.

    Args:
        format_: its format.
        folder: where it was exported to.
        golden: the golden rows.
        evaluated: the rows of the eval split.

    Raises:
        ExportError: it cannot be loaded.
        MissingExtraError: the runtime is not installed.
    """
    first = {name: values[:1] for name, values in golden.items()}
    began = time.perf_counter()
    loaded = format_.load(folder)
    loaded.predict(first)
    cold = time.perf_counter() - began
    answers = [predict_all(loaded, asked) for asked in (golden, with_broken_rows(golden), evaluated)]
    batch = {name: np.resize(values, BATCH) for name, values in golden.items()}
    speed = Speed(
        cold_start_ms=cold * 1e3,
        latency_us=_p50(lambda: loaded.predict(first)) * 1e6,
        rows_per_second=BATCH / _p50(lambda: loaded.predict(batch)),
    )
    return Measured(answers[0], answers[1], answers[2], speed)


def predict_all(loaded: Loaded, columns: Columns) -> Predictions:
    """Return the answers to any number of rows, shape (rows,), some at a time."""
    rows = len(next(iter(columns.values())))
    parts = [
        loaded.predict({name: values[start : start + ROWS_PER_CALL] for name, values in columns.items()})
        for start in range(0, rows, ROWS_PER_CALL)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _p50(call: Callable[[], object]) -> float:
    """Return the median time of a call, in seconds."""
    ends = time.perf_counter() + _SECONDS
    for _ in range(_WARM_UP):
        call()
        if time.perf_counter() > ends:
            break
    taken: list[float] = []
    ends = time.perf_counter() + _SECONDS
    while len(taken) < _FEWEST or (len(taken) < _CALLS and time.perf_counter() < ends):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return float(np.median(taken))
