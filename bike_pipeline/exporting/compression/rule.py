"""The rule that chooses a candidate: limits on the loss first, then the smallest or the fastest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bike_pipeline.errors import ExportError
from bike_pipeline.settings.exporting import CompressionSettings, Minimized

# What is minimized in words, and the attribute that holds it.
_MEASURES: dict[Minimized, tuple[str, str]] = {
    "size": ("size", "size_bytes"),
    "compressed_size": ("size after gzip", "compressed_bytes"),
    "latency": ("one row", "latency_us"),
}


@dataclass(frozen=True)
class Candidate:
    """A method's model in a format, measured. What could not be measured is None.

    Attributes:
        method: how the model was made.
        format: what it was exported to.
        file: the file that a runtime loads, relative to the result's folder.
        error: why it could not be exported or loaded; "" where it could.
        parameters: numbers in the Keras model.
        sparsity: share of the dense weights that are zero.
        size_bytes: size of the file.
        compressed_bytes: its size after gzip, which is what a device downloads.
        latency_us: one row, from arrays to an array, on one core, in microseconds; the median of the rounds' medians.
        mae: this and the next three against the blessed model, see `quality.Quality`.
    """

    method: str
    format: str
    file: str
    error: str = ""
    parameters: int | None = None
    sparsity: float | None = None
    size_bytes: int | None = None
    compressed_bytes: int | None = None
    latency_us: float | None = None
    mae: float | None = None
    mae_increase: float | None = None
    worst_slice: str = ""
    worst_slice_mae_increase: float | None = None

    @property
    def name(self) -> str:
        """The method and the format."""
        return f"{self.method} {self.format}"


@dataclass(frozen=True)
class Choice:
    """What the rule came to."""

    winner: Candidate | None
    candidates: tuple[Candidate, ...]
    reasons: dict[str, str]

    def required(self) -> Candidate:
        """Return the winner.

        Raises:
            ExportError: no candidate won; it names the one with the smallest loss, and what keeps it out.
        """
        if self.winner is not None:
            return self.winner
        nearest = min(self.candidates, key=lambda c: math.inf if c.mae_increase is None else c.mae_increase)
        raise ExportError(
            f"no candidate is within the limits; nearest is {nearest.name}: {self.reasons[nearest.name]}",
            where="exporting.compression",
            fix="try other methods or formats, or raise max_mae_increase or max_slice_mae_increase",
        )


def _amount(candidate: Candidate, minimize: Minimized) -> float:
    value = getattr(candidate, _MEASURES[minimize][1])
    return math.inf if value is None or math.isnan(value) else float(value)


def _value_text(candidate: Candidate, minimize: Minimized) -> str:
    amount = _amount(candidate, minimize)
    return f"{amount:.1f} µs" if minimize == "latency" else f"{amount / 1024:.1f} kB"


def _against_limits(candidate: Candidate, settings: CompressionSettings) -> str:
    """Return what keeps a candidate out; "" where it is within the limits. What is missing never passes."""
    if candidate.error:
        return candidate.error
    overall, limit = candidate.mae_increase, settings.max_mae_increase
    if overall is None or not overall <= limit:
        return f"MAE {'unknown' if overall is None else f'{overall:+.2%}'} overall, at most {limit:+.2%}"
    worst, limit = candidate.worst_slice_mae_increase, settings.max_slice_mae_increase
    # With too few rows in every slice, the Evaluator has no slice that decides either.
    if worst is None or worst <= limit:
        return ""
    return f"MAE {worst:+.2%} on {candidate.worst_slice}, at most {limit:+.2%}"


def decide(candidates: Sequence[Candidate], settings: CompressionSettings) -> Choice:
    """Apply the rule.

    Among the candidates within both limits the one with the least of `settings.minimize` wins; of equals the one with
    the smaller MAE, then the one that stands first.
    """
    reasons = {candidate.name: _against_limits(candidate, settings) for candidate in candidates}
    within = [candidate for candidate in candidates if not reasons[candidate.name]]
    minimize, measure = settings.minimize, _MEASURES[settings.minimize][0]
    winner = min(within, key=lambda c: (_amount(c, minimize), c.mae_increase), default=None)
    for candidate in within:
        if candidate is winner:
            reasons[candidate.name] = f"least {measure} of {len(within)} within the limits"
        elif winner is not None:
            values = _value_text(candidate, minimize), _value_text(winner, minimize)
            apart = "as much, and no smaller MAE" if values[0] == values[1] else f"{values[0]}, the winner {values[1]}"
            reasons[candidate.name] = f"{measure}: {apart}"
    return Choice(winner, tuple(candidates), reasons)
