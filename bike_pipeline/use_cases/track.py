"""Send a run to MLflow that was not sent when it ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings
    from bike_pipeline.tracking.mlflow_sender import Sent


@dataclass(frozen=True)
class Tracked:
    """A run that MLflow has, and what came of sending it."""

    run_id: str
    sent: Sent


def track(settings: Settings, run_id: str | None = None) -> Tracked:
    """Send a run to MLflow; None is the newest that came to an evaluation. Errors as of `send_to_mlflow`."""
    from bike_pipeline.lineage.queries.tracking_payload import tracking_payload
    from bike_pipeline.tracking.hooks import send_to_mlflow
    from bike_pipeline.use_cases.metadata import lineage_of

    found = tracking_payload(lineage_of(settings), run_id)
    return Tracked(found.run_id, send_to_mlflow(settings, found))
