"""How long calls take: medians, and several calls in turns on one core, so that a slower machine slows all of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np

# Calls until caches, branch prediction and lazily made buffers have settled.
WARM_UP = 20
# A median settles long before; the seconds bound what a slow call may cost.
CALLS, SECONDS = 2000, 0.1
_FEWEST = 5


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
    """Return the median seconds of each call, one a round; in each round all calls take their turn.

    Args:
        calls: what to time, by name.
        rounds: how often each takes its turn, at least 1.
    """
    for call in calls.values():
        median_seconds(call, WARM_UP)
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            found[name].append(median_seconds(call))
    return found
