"""Explanations: says of each row of a request why it is answered as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from bike_pipeline import features
from bike_pipeline.monitoring.columns import Array, Columns
from bike_pipeline.monitoring.explanations.answer import background_of, parts_of
from bike_pipeline.monitoring.report import plain
from bike_pipeline.monitoring.sidecars.events import RequestRows

# Rows of a request that are explained: each asks the model thousands of times.
MOST_EXPLAINED = 8


class Explainer:
    """Says of each row why it was answered as it was."""

    kind = "explanation"

    def __init__(self, predict: Callable[[Columns], Array], training: Columns) -> None:
        self._predict, self._background = predict, background_of(training)

    def look(self, request: RequestRows) -> Mapping[str, Any]:
        found = []
        for row in request.rows[:MOST_EXPLAINED]:
            # What was not sent is 0 for the model.
            sent = {n: float(features.BY_NAME[n].default or 0.0) if np.isnan(v) else v for n, v in row.items()}
            answered = float(self._predict({name: np.array([value]) for name, value in sent.items()})[0])
            found.append(parts_of(self._predict, sent, self._background, answered))
        return {
            "data": {"explanations": plain([asdict(one) for one in found])},
            "meta": {"name": "Explainer", "rows": len(request.rows), "explained": len(found)},
        }
