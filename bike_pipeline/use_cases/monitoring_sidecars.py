"""The sidecars of a model server: what each looks at requests with, from the settings and what is on record."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from bike_pipeline.errors import MonitoringError

if TYPE_CHECKING:
    from bike_pipeline.monitoring.sidecars.service import Sidecar
    from bike_pipeline.settings import Settings

KINDS = ("outlier", "drift", "explainer")


def run_sidecar(
    settings: Settings, kind: str, host: str, port: int, rows: int, on_start: Callable[[int], None]
) -> None:
    """Answer CloudEvents of requests until SIGTERM or SIGINT.

    Args:
        settings: the settings.
        kind: one of `KINDS`.
        host: address to listen on.
        port: port to listen on; 0 for a free one.
        rows: rows that the drift detector looks at together.
        on_start: called with the port when it answers.

    Raises:
        MonitoringError: there is nothing to compare requests with, or no model to explain.
        MissingExtraError: the extra `monitoring` is not installed.
        ServerError: the port is taken.
    """
    from bike_pipeline import extras
    from bike_pipeline.monitoring.sidecars import service

    extras.require("monitoring", "a sidecar")
    service.run(_made(settings, kind, rows), host, port, f"/bike-pipeline/{kind}", on_start)


def _made(settings: Settings, kind: str, rows: int) -> Sidecar:
    import numpy as np

    from bike_pipeline.monitoring.columns import take
    from bike_pipeline.use_cases.monitoring_report import reference_of

    missing: list[str] = []
    reference = reference_of(settings, missing)
    hours = np.asarray(reference.columns["hour"])
    training = take(reference.columns, hours < (reference.first_untrained or np.inf))
    if not len(training["hour"]):
        what = f"there are no rows to compare requests with ({missing[0]})" if missing else "the span store is empty"
        raise MonitoringError(what, where=settings.store_uri, fix="call `bike-pipeline run`, which ingests and trains")
    section = settings.monitoring
    if kind == "drift":
        from bike_pipeline.monitoring.sidecars.drift import Drift

        return Drift(reference, rows, section.detectors, section.decision)
    if kind == "outlier":
        from bike_pipeline.monitoring.sidecars.outlier import Outliers

        return Outliers(training)
    if reference.predict is None:
        raise MonitoringError(f"no model serves that could be explained ({missing[0]})", fix="call `bike-pipeline run`")
    from bike_pipeline.monitoring.sidecars.explainer import Explainer

    return Explainer(reference.predict, training)
