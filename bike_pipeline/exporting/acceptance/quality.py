"""How well an exported model does on labels against the SavedModel on the same rows, and the rule that lets it pass."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from bike_pipeline import features
from bike_pipeline.exporting.acceptance.parity import Parity
from bike_pipeline.exporting.acceptance.report import SAVED_MODEL
from bike_pipeline.exporting.formats.base import Precision, Predictions
from bike_pipeline.modeling import saved_model
from bike_pipeline.modeling.naive_baseline import NaiveBaseline
from bike_pipeline.modeling.slice_sums import Measured, SliceKey, sums_of_batch
from bike_pipeline.modeling.slices import OVERALL
from bike_pipeline.settings.exporting import ExportingSettings


@dataclass(frozen=True)
class Quality:
    """Errors of one format on the eval split's labels.

    Attributes:
        mae: MAE, in rentals an hour or of the probability.
        rmse: RMSE, in the same unit.
        mae_increase: (MAE - SavedModel's MAE) / SavedModel's MAE.
        worst_slice: the slice with the largest increase among those with enough rows; "" where no slice has.
        worst_slice_mae_increase: its increase; None where no slice has enough rows.
    """

    mae: float
    rmse: float
    mae_increase: float
    worst_slice: str
    worst_slice_mae_increase: float | None


def sums_by_format(
    model: Path, columns: Mapping[str, npt.NDArray[Any]], predictions: Mapping[str, Predictions]
) -> Measured:
    """Return the sums of errors by slice and format of the rows of the eval split, of which all arrays are (rows,).

    The SavedModel in the folder `model` holds the naive baseline of its training rows; predictions are in
    the unit of its target.
    """
    text = (model / saved_model.EXTRA_FOLDER / saved_model.NAIVE_BASELINE_FILE).read_text(encoding="utf-8")
    target = saved_model.target_of(str(model))
    return sums_of_batch(columns, predictions, NaiveBaseline.from_json(text), target=target)


def quality_of(measured: Measured, name: str, min_rows: Mapping[Any, int]) -> Quality:
    """Return the errors of one format; `min_rows` says for each slicing from how many rows on a slice decides."""
    overall = measured.target.metrics_of(measured.sums[(OVERALL, None), name])
    slices = {
        key: _increase(measured, key, name)
        for key, model in measured.sums
        if model == name and key[0] != OVERALL and measured.sums[key, name][0] >= min_rows.get(key[0], 1)
    }
    worst = max(slices, key=lambda key: slices[key]) if slices else None
    return Quality(
        mae=overall["mae"],
        rmse=overall["rmse"],
        mae_increase=_increase(measured, (OVERALL, None), name),
        worst_slice=features.slice_name(*worst) if worst else "",
        worst_slice_mae_increase=slices[worst] if worst else None,
    )


def _increase(measured: Measured, key: SliceKey, name: str) -> float:
    before, now = (measured.target.metrics_of(measured.sums[key, model])["mae"] for model in (SAVED_MODEL, name))
    if before == now:
        return 0.0
    # Not a number is worse than anything, so that it is the worst slice.
    increase = (now - before) / before if before else math.inf
    return increase if math.isfinite(increase) else math.inf


def decide(precision: Precision, parity: Parity, quality: Quality, limits: ExportingSettings) -> tuple[bool, str]:
    """Return whether a format passes by the limits of its numbers, and why in words.

    What is not a number never passes.
    """
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
