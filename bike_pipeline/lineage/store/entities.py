"""What the metadata store is asked for: pushes, runs with their stages, trained models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class PushedModel:
    """A pushed model: the MLMD id and the folder of its Model artifact, its version and the folder it was pushed to.

    The fingerprints are SHA-256 over the pushed files and over their exports ("" if there are none); `metric_set` is
    the hash of the metrics and slices it was blessed by; `feedback` is what its push record tells of the labels that
    made this version, empty for a version that a run pushed.
    """

    model_id: int
    model_uri: str
    version: int
    destination: str
    fingerprint: str
    metric_set: str
    pushed_at: datetime
    exports_fingerprint: str = ""
    feedback: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StageRecord:
    """One execution of one stage in one run: its name, MLMD id, state, length in seconds, and error where it failed."""

    name: str
    execution_id: int
    state: str
    seconds: float
    error: str


@dataclass(frozen=True)
class RunRecord:
    """One run of the pipeline, with the span and its version that it trained on (0 if it never came to know).

    `state` is "done", "failed", "interrupted" or "running"; `outcome` "pushed as version N", "not blessed",
    "nothing new" or the error.
    """

    run_id: str
    started: datetime
    state: str
    span: int
    version: int
    stages: tuple[StageRecord, ...]
    outcome: str


@dataclass(frozen=True)
class ModelRecord:
    """One trained model, with the newest span and its version that it was trained on; its metrics are in rentals.

    `blessed` is None if it was never evaluated. `wrong` says why it does not serve although it is promoted: its files
    are gone, or not those that were pushed.
    """

    model_id: int
    uri: str
    trained: datetime
    span: int
    version: int
    blessed: bool | None
    served_version: int | None
    serving: bool
    metrics: dict[str, float]
    wrong: str = ""
