"""Drift: collects the rows of requests, and says of each so many of them what has changed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np

from bike_pipeline.modeling.label_update import moment
from bike_pipeline.monitoring.columns import Array, Window, hours_of
from bike_pipeline.monitoring.detectors import measure_all
from bike_pipeline.monitoring.reference import Reference
from bike_pipeline.monitoring.report import plain
from bike_pipeline.monitoring.request_logs import joinable_hours
from bike_pipeline.monitoring.sidecars.events import RequestRows
from bike_pipeline.monitoring.verdicts import decide
from bike_pipeline.settings.monitoring import DecisionSettings, DetectorSettings


class Drift:
    """Collects rows, and says of each so many of them what has changed."""

    kind = "drift"

    def __init__(
        self, reference: Reference, rows: int, detectors: DetectorSettings, decision: DecisionSettings
    ) -> None:
        """Look each time that `rows` rows have come."""
        self._reference, self._rows, self._detectors, self._decision = reference, rows, detectors, decision
        self._waiting: list[dict[str, Array]] = []
        self._batches: list[dict[str, Array]] = []

    def look(self, request: RequestRows) -> Mapping[str, Any] | None:
        self._waiting.append(_observed(request))
        if sum(len(one["hour"]) for one in self._waiting) < self._rows:
            return None
        self._batches = [*self._batches, _joined(self._waiting)][-self._decision.windows :]
        self._waiting = []
        windows = _windows(self._batches)
        observed = _joined(self._batches)
        measured = measure_all(observed, self._reference, windows, self._detectors)
        # Neither answers nor labels come by here.
        verdicts = decide([one for one in measured if one.kind in {"data fault", "data drift"}], self._decision)
        told = [{"data": dict(one.data), "meta": dict(one.meta)} for one in verdicts]
        data = {"is_drift": int(any(one.status == "changed" for one in verdicts)), "verdicts": plain(told)}
        return {"data": data, "meta": {"name": "Drift", "rows": len(observed["hour"]), "windows": len(windows)}}


def _observed(request: RequestRows) -> dict[str, Array]:
    """Return the columns of observations of a request; its answer and label are not known."""
    count = len(next(iter(request.columns.values())))
    nothing = np.full(count, np.nan)
    whole = {n: np.nan_to_num(request.columns[n], nan=-1.0).astype(np.int64) for n in ("yr", "mnth", "day", "hr")}
    return {
        **request.columns,
        "request_id": np.full(count, request.request_id, object),
        "row": np.arange(count),
        "requested_at": np.full(count, np.datetime64(request.at, "ms")),
        "sampling_rate": np.ones(count),
        "version": np.zeros(count, np.int64),
        "latency_us": nothing,
        "hour": joinable_hours(whole),
        **dict.fromkeys(("answer", "lower", "upper", "label"), nothing),
        "corrected": np.zeros(count, bool),
    }


def _joined(parts: list[dict[str, Array]]) -> dict[str, Array]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _windows(batches: list[dict[str, Array]]) -> list[Window]:
    """Return the hours of each batch as a window; batches of the same hours are one."""
    spans: list[tuple[int, int]] = []
    for batch in batches:
        hours = hours_of(batch)
        spans.append((int(hours.min()), int(hours.max())))
    merged: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return [(datetime.fromisoformat(moment(first)), datetime.fromisoformat(moment(last))) for first, last in merged]
