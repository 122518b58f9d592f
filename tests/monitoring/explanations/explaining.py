"""Explanations as pages tell them."""

from __future__ import annotations

from typing import Any

from bike_pipeline.monitoring.explanations.answer import AnswerParts, Part, WhatIf
from bike_pipeline.monitoring.explanations.error_slices import ErrorSlice
from bike_pipeline.monitoring.explanations.page import model_page
from bike_pipeline.monitoring.explanations.table import Explained
from bike_pipeline.monitoring.explanations.whole_model import HourCurves

PARTS = (Part("hour", "8:00 on Friday, a working day", 212.0), Part("weather", "light rain or snow", -60.4))
WHY = AnswerParts(290.0, 138.4, PARTS, (WhatIf("5 °C warmer", 328.0, 38.0),))
OF = Explained(
    "<script>1</script>", 0, "2026-11-30T12:00:00.000", 7, 16, "f" * 64, "2012-06-01T08:00", "rentals an hour"
)
CURVES = [
    HourCurves(True, tuple(map(float, range(24))), ((50.0,) * 24,)),
    HourCurves(False, (1.0,) * 24, ((2.0,) * 24,)),
]
IMPORTANCE = {"mae": 25.0, "rows": 10, "repeats": 2, "unit": "rentals an hour",
              "inputs": [{"name": "weathersit_mean_3h", "mae_increase": 9.1, "std": 0.1}]}  # fmt: skip
SLICES = [ErrorSlice("hours 7-20, relative humidity above 61 % and up to 83 %", 1050, 75, 122.1, 33.2, 1e-32)]


def explained_model_page(**changed: Any) -> str:
    """Return the page of a model with all that it can hold, or with something else."""
    values = {
        "title": "What moves the model", "version": 7, "model_id": 16, "fingerprint": "f" * 64,
        "unit": "rentals an hour", "importance": IMPORTANCE, "slices": SLICES, "searched": "1 confirmed", "rows": 10,
    }  # fmt: skip
    return model_page(CURVES, **{**values, **changed})
