"""Outliers: says of each row of a request whether it is unlike those of training, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bike_pipeline.monitoring.columns import Columns
from bike_pipeline.monitoring.detectors.outliers import OutlierDetector
from bike_pipeline.monitoring.sidecars.events import RequestRows


class Outliers:
    """Says of each row whether it is unlike those of training, and why."""

    kind = "outlier"

    def __init__(self, training: Columns) -> None:
        self._detector = OutlierDetector(training)

    def look(self, request: RequestRows) -> Mapping[str, Any]:
        reasons = [self._detector.outlier_of(row) for row in request.rows]
        data = {"is_outlier": [int(bool(reason)) for reason in reasons], "reasons": reasons}
        return {"data": data, "meta": {"name": "OutlierDetector", "detector_type": "offline", "data_type": "tabular"}}
