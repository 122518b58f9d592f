"""What the metadata store is asked for: pushes, runs with their stages, trained models."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


def utc_text(iso: str) -> str:
    """Return a recorded time (ISO 8601, UTC) as every table and page writes it; "" stays "".

    >>> utc_text("2026-01-31T08:15:00.123+00:00")
    '2026-01-31 08:15:00 UTC'
    """
    return f"{datetime.fromisoformat(iso):%Y-%m-%d %H:%M:%S} UTC" if iso else ""


@dataclass(frozen=True)
class ServedModel:
    """A pushed model.

    Attributes:
        model_id: MLMD id of the Model artifact that was pushed; `model_uri` is its folder.
        version: version number under the serving base path.
        destination: folder it was pushed to.
        fingerprint: SHA-256 over the pushed files.
        metric_set: hash of the metrics and slices it was blessed by.
        exports_fingerprint: SHA-256 over its exports (see `model_folder.exports_fingerprint`); "" if there are none.
    """

    model_id: int
    model_uri: str
    version: int
    destination: str
    fingerprint: str
    metric_set: str
    pushed_at: datetime
    exports_fingerprint: str = ""


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
    """One run of the pipeline.

    Attributes:
        started: UTC.
        state: "done", "failed", "interrupted" or "running".
        span: the span it trained on; 0 if it never came to know. `version` is that span's.
        outcome: "pushed as version N", "not blessed", "nothing new" or the error.
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
    """One trained model.

    Attributes:
        trained: UTC.
        version: of the span that it was trained on.
        blessed: None if it was never evaluated.
        served_version: the version it was pushed as.
        serving: whether it is the one served now.
        metrics: overall metrics on its eval split, in rentals.
        wrong: why it does not serve although it is promoted: its files are gone, or not those that were pushed.
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
