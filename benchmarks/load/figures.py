"""What a load gave: rates, latencies and errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Load:
    """What a server is to be asked.

    Attributes:
        connections: clients that wait for an answer at the same time, each with a connection of its own.
        seconds: how long.
        rate: requests a second, all clients together; None for as many as there are answers.
        rows: rows in each request.
    """

    connections: int = 64
    seconds: float = 10.0
    rate: float | None = None
    rows: int = 1


@dataclass(frozen=True)
class Figures:
    """What a load gave.

    Attributes:
        generator: what made the load: "wrk", "h2load" or "python".
        requests: answers with predictions.
        errors: requests without: another status, a broken connection, no answer in time.
        seconds: how long it took.
        p50: median latency in milliseconds; None where nothing was answered.
        p90: latency that nine of ten requests did not exceed, in milliseconds.
        p99: latency that 99 of 100 requests did not exceed, in milliseconds.
    """

    generator: str
    requests: int
    errors: int
    seconds: float
    p50: float | None
    p90: float | None
    p99: float | None

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds


def percentiles(milliseconds: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    """Return the latencies of `PERCENTILES`, in the unit that they are given in; None each where there are none."""
    if len(milliseconds) == 0:
        return None, None, None
    p50, p90, p99 = (float(value) for value in np.percentile(milliseconds, PERCENTILES))
    return p50, p90, p99
