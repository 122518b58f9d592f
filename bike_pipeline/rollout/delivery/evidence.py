"""What is known of the requests of two tracks in a stretch of time: what a step of a rollout is judged on."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# Codes of gRPC that are a server's fault.
FAULTS = ("UNKNOWN", "DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNIMPLEMENTED")
# Milliseconds, five percent apart: 0.01 ms to 3 minutes.
LATENCY_BOUNDS = tuple(0.01 * 1.05**power for power in range(343))


class Share(NamedTuple):
    """How many of some rows are bad; NaN where a source says so, which never passes, as everywhere here."""

    bad: float
    rows: float


@dataclass(frozen=True)
class Latency:
    """Durations in buckets.

    Attributes:
        bounds: their upper bounds, milliseconds, rising.
        counts: how many are in each, and one number more for those above the last.
    """

    bounds: Sequence[float] = LATENCY_BOUNDS
    counts: Sequence[float] = ()

    @staticmethod
    def of(milliseconds: npt.NDArray[np.float64]) -> Latency:
        """Return durations in buckets of five percent."""
        import numpy as np

        places = np.searchsorted(LATENCY_BOUNDS, milliseconds)
        return Latency(LATENCY_BOUNDS, np.bincount(places, minlength=len(LATENCY_BOUNDS) + 1).tolist())

    @property
    def rows(self) -> float:
        """How many durations there are."""
        return sum(self.counts)

    def quantile(self, share: float) -> float:
        """Return the upper bound of the bucket that holds a quantile, milliseconds; NaN without durations."""
        total = 0.0
        for bound, count in zip((*self.bounds, math.inf), self.counts, strict=False):
            total += count
            if count and total >= share * self.rows:
                return bound
        return math.nan

    def above(self, limit: float) -> Share:
        """Return how many are above a limit, which counts as the next larger bound."""
        return Share(sum(self.counts[bisect_left(self.bounds, limit) + 1 :]), self.rows)


@dataclass(frozen=True)
class TrackEvidence:
    """One track's requests.

    Attributes:
        requests: how many went to it.
        errors: those answered with a server's error (5xx, or its like in gRPC).
        answers: rows that were answered.
        not_finite: those whose answer is no finite number.
        latency: of the requests that were answered.
        client_errors: those that the server itself refused (4xx, or any other code of gRPC).
    """

    requests: float = 0
    errors: float = 0
    answers: float = 0
    not_finite: float = 0
    latency: Latency = Latency()
    client_errors: float = 0


@dataclass(frozen=True)
class Evidence:
    """What is known of two tracks; None for what cannot be known from this source, or not yet.

    Attributes:
        different: answers of the candidate that differ from the stable version's; of a shadow to the same request, else
            to requests for the same hour.
        missed: labels outside of the candidate's intervals.
        pairs: differences (candidate - stable) in the order they came to be known, for an A/B test: "absolute error" by
            hour in rentals, "error share" and "latency" (of the logarithms) by minute.
    """

    candidate: TrackEvidence = TrackEvidence()
    stable: TrackEvidence = TrackEvidence()
    different: Share | None = None
    missed: Share | None = None
    pairs: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def only_refused(self) -> bool:
        """Whether both tracks were asked, and refused every request."""
        return all(0 < track.requests == track.client_errors for track in (self.candidate, self.stable))


class Tracked(NamedTuple):
    """Whose requests count: the candidate's label and version, and the stable version."""

    label: str
    version: int
    stable: int


class EvidenceReader(Protocol):
    """Reads evidence."""

    def read(self, tracked: Tracked, first: datetime, last: datetime) -> Evidence:
        """Return what is known of requests from `first` until before `last`, UTC.

        Raises:
            MonitoringError: the source does not answer, or with what is no number.
        """
