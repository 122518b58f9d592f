"""Scores of answers, and the goals that they are held against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.quality.protocols import Array

# RMSE and RMSLE of the served model by protocol: what it must reach, and the goal. P6 has no limit but the best peer.
NO_LIMIT = (math.inf, math.inf)
MUST = {
    "P1": (70.0, 0.357), "P2": (54.0, 0.33), "P3": (46.0, 0.387), "P4": (29.6, 0.25), "P5": (51.5, 0.325),
    "P6": NO_LIMIT,
}  # fmt: skip
GOAL = {
    "P1": (66.0, 0.345), "P2": (50.0, 0.32), "P3": (45.0, 0.38), "P4": (28.5, 0.24), "P5": (50.0, 0.32),
    "P6": NO_LIMIT,
}  # fmt: skip


@dataclass(frozen=True)
class Scores:
    """Errors of one contestant on one protocol, in rentals an hour where not said otherwise.

    Attributes:
        rmse: √(Σ(p - y)² / n).
        mae: Σ|p - y| / n.
        rmsle: √(Σ(log(1 + p) - log(1 + y))² / n), in units of the logarithm.
        r2: 1 - Σ(p - y)² / Σ(y - mean)².
        bias: Σ(p - y) / Σy.
    """

    rmse: float
    mae: float
    rmsle: float
    r2: float
    bias: float


def scores(label: Array, answers: Array) -> Scores:
    """Return the scores of answers to rows with the given labels, each of shape (rows,), in rentals."""
    error = answers - label
    squares = float(np.sum(error**2))
    return Scores(
        rmse=math.sqrt(squares / len(label)),
        mae=float(np.mean(np.abs(error))),
        rmsle=float(np.sqrt(np.mean((np.log1p(answers) - np.log1p(label)) ** 2))),
        r2=1.0 - squares / float(np.sum((label - label.mean()) ** 2)),
        bias=float(error.sum() / label.sum()),
    )


def mean(found: Sequence[Scores]) -> Scores:
    """Return the unweighted mean of scores: of seeds, or of the months of P5."""
    columns = zip(*((s.rmse, s.mae, s.rmsle, s.r2, s.bias) for s in found), strict=True)
    return Scores(*(float(np.mean(column)) for column in columns))


@dataclass(frozen=True)
class Verdict:
    """One figure of the served model against its limits and the best peer of the same run.

    Attributes:
        name: protocol and score.
        figure: the served model's; not a number if it was not measured.
        must: the largest figure that passes.
        goal: the figure aimed at.
        best_peer: name and figure of the best peer; None if none ran.
        needs_peer: whether it passes only where no peer is better.
    """

    name: str
    figure: float
    must: float
    goal: float
    best_peer: tuple[str, float] | None
    needs_peer: bool = True

    @property
    def reached(self) -> bool:
        """Whether the figure passes and no peer is better; what was not measured does not pass."""
        best = math.nan if self.best_peer is None else self.best_peer[1]
        return self.figure <= self.must and (not self.needs_peer or self.figure <= best)

    @property
    def word(self) -> str:
        """The verdict as a word."""
        if not self.reached:
            return "MISSED"
        return "goal reached" if self.figure <= self.goal < math.inf else "reached"


def verdicts(protocol: str, served: Scores | None, peers: dict[str, Scores]) -> list[Verdict]:
    """Return the verdicts on RMSE and RMSLE of one protocol."""
    found = []
    for place, score in enumerate(("rmse", "rmsle")):
        figures = {name: getattr(peer, score) for name, peer in peers.items()}
        best = min(figures.items(), key=lambda item: item[1]) if figures else None
        own = math.nan if served is None else getattr(served, score)
        found.append(Verdict(f"{protocol} {score.upper()}", own, MUST[protocol][place], GOAL[protocol][place], best))
    return found
