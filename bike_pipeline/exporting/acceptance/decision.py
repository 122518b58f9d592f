"""The rule that lets a format pass: limits of the settings, by what the format's numbers are kept in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from bike_pipeline.exporting.acceptance.parity import Parity
from bike_pipeline.exporting.acceptance.quality import Quality
from bike_pipeline.exporting.formats.base import Precision
from bike_pipeline.settings import EvaluationSettings, ExportingSettings


@dataclass(frozen=True)
class Limits:
    """What a format is held to; see `ExportingSettings`."""

    max_relative_difference: float
    max_mae_increase: float
    max_slice_mae_increase: float
    min_rows: Mapping[str, int]

    @classmethod
    def of(cls, settings: ExportingSettings, evaluation: EvaluationSettings) -> Self:
        """Return the limits of the settings."""
        return cls(
            settings.max_relative_difference,
            settings.max_mae_increase,
            settings.max_slice_mae_increase,
            {str(slicing): rows for slicing, rows in evaluation.min_rows.items()},
        )


def decide(precision: Precision, parity: Parity, quality: Quality, limits: Limits) -> tuple[bool, str]:
    """Return whether a format passes, and why in words. What is not a number never passes."""
    if not math.isfinite(parity.max_difference):
        return False, f"an answer is not a number (golden row {parity.worst_row})"
    if precision == "float32":
        passed = parity.max_relative_difference <= limits.max_relative_difference
        return passed, (
            f"largest relative difference to the SavedModel {parity.max_relative_difference:.2g} on golden row "
            f"{parity.worst_row}, at most {limits.max_relative_difference:g}"
        )
    overall = quality.mae_increase <= limits.max_mae_increase
    said = f"MAE {quality.mae_increase:+.2%} overall, at most {limits.max_mae_increase:+.2%}"
    if quality.worst_slice_mae_increase is None:
        return overall, f"{said}; no slice has enough rows to decide"
    sliced = quality.worst_slice_mae_increase <= limits.max_slice_mae_increase
    return overall and sliced, (
        f"{said}; {quality.worst_slice_mae_increase:+.2%} on the worst slice, {quality.worst_slice}, at most "
        f"{limits.max_slice_mae_increase:+.2%}"
    )
