"""How far an exported model is from the SavedModel, on the same rows, and whether it answers NaN where it must."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bike_pipeline.exporting.acceptance.measurements import Measurement
from bike_pipeline.exporting.formats.base import Columns
from bike_pipeline.modeling.golden import are_sound

# Below one rental an hour a relative difference says nothing: the hour is empty either way.
SMALLEST_DENOMINATOR = 1.0
# A batch of another size is added up in another order, and one of another range is quantized otherwise.
_ROUNDING = 1e-3


@dataclass(frozen=True)
class Parity:
    """How far an exported model is from the SavedModel.

    Attributes:
        rows: rows compared.
        max_difference: largest |difference|, in rentals an hour; infinite where an answer is not a number.
        mean_difference: mean |difference|, in rentals an hour.
        max_relative_difference: largest |difference| / max(SavedModel's answer, 1).
        wape: Σ|difference| / Σ SavedModel's answers.
        worst_row: index of the row with the largest relative difference.
    """

    rows: int
    max_difference: float
    mean_difference: float
    max_relative_difference: float
    wape: float
    worst_row: int


def compare(reference: npt.NDArray[np.float32], answers: npt.NDArray[np.float32]) -> Parity:
    """Compare answers with the SavedModel's, both of shape (rows,) with rows ≥ 1, in rentals an hour.

    Raises:
        ValueError: the shapes differ, or there is no row: a check without rows must not pass.
    """
    expected, got = np.asarray(reference, np.float64), np.asarray(answers, np.float64)
    if expected.shape != got.shape or expected.ndim != 1 or not len(expected):
        raise ValueError(f"{got.shape} answers for {expected.shape} rows")
    difference = np.abs(got - expected)
    difference[~np.isfinite(difference)] = np.inf
    relative = difference / np.maximum(np.abs(expected), SMALLEST_DENOMINATOR)
    total = max(float(np.abs(expected).sum()), SMALLEST_DENOMINATOR)
    return Parity(
        rows=len(expected),
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        max_relative_difference=float(relative.max()),
        wape=float(difference.sum()) / total,
        worst_row=int(relative.argmax()),
    )


def not_finite_fault(mixed: Columns, measured: Measurement) -> str:
    """Return what a model does wrong with rows that are not finite, as half a sentence; "" if nothing is wrong.

    Every such row of `mixed`, the golden rows with broken ones among them, must be answered with NaN, and no other row
    of the batch otherwise for it.
    """
    sound = are_sound(mixed)
    invented = np.flatnonzero(~sound & ~np.isnan(measured.mixed))
    if len(invented):
        row = int(invented[0])
        broken = next(f"{name} is {values[row]}" for name, values in mixed.items() if not np.isfinite(values[row]))
        return f"answers {measured.mixed[row]:.6g} where {broken}, instead of NaN"
    if not np.allclose(measured.mixed[sound], measured.golden, rtol=_ROUNDING, atol=_ROUNDING):
        return "answers rows otherwise where a row of the same batch is not finite"
    return ""
