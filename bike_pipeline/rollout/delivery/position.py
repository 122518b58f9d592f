"""Where a rollout stands: nothing but what the promotion log says."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from bike_pipeline.model_registry import ModelRegistry
from bike_pipeline.model_registry.deployment import STABLE
from bike_pipeline.rollout.tracks import CANARY, CHALLENGER, SHADOW

KINDS = (CANARY, SHADOW, CHALLENGER)


@dataclass(frozen=True)
class Position:
    """Where a rollout stands, by the promotion log.

    Attributes:
        share: percent of the requests that its version gets.
        since: when it came to get it, UTC.
        revision: of the promotion log; another one means that somebody changed something since.
    """

    label: str
    version: int
    stable: int
    share: float
    since: datetime
    revision: int


def position_of(registry: ModelRegistry) -> Position | None:
    """Return where the rollout of a registry stands; None without one."""
    state = registry.deployment()
    label = next((kind for kind in KINDS if state and kind in state.shares), None)
    if state is None or label is None or STABLE not in state.labels:
        return None
    version, share = state.labels[label], state.shares[label]
    shifts = [c for c in registry.history() if (c.action, c.label, c.to_version) == ("shift", label, version)]
    since = datetime.fromisoformat(shifts[-1].at) if shifts else datetime.now(UTC)
    return Position(label, version, state.labels[STABLE], share, since, state.revision)
