"""How far two models are apart: their predictions on the same rows, and the metrics they were measured by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Of a metric's value: TFMA may add the same numbers up in another order.
ROUNDING = 1e-9
_METRICS = ("mae", "rmse", "rmsle", "bias", "calibration")


@dataclass(frozen=True)
class Agreement:
    """How far two models are apart.

    Attributes:
        rows: rows that both models predicted; 0 if the files of one are gone.
        different_rows: rows whose predictions differ in any bit.
        largest_difference: of the predictions, in rentals an hour; None without predictions.
        metrics: the largest difference of each metric over all slices; empty if one was never evaluated.
        same_slices: whether both were measured on the same slices with the same rows.
        identical: whether all predictions are there and the same bit for bit, and all metrics but for rounding.
    """

    rows: int
    different_rows: int
    largest_difference: float | None
    metrics: dict[str, float]
    same_slices: bool
    identical: bool


def agreement_of(
    first: Path | None,
    second: Path | None,
    columns: Mapping[str, Sequence[Any]],
    first_metrics: Sequence[Mapping[str, Any]] | None,
    second_metrics: Sequence[Mapping[str, Any]] | None,
) -> Agreement:
    """Compare the SavedModels in two folders, None if one is gone, by their predictions on rows and by their metrics.

    The rows are one sequence a column; metrics are a mapping a slice, None of a model that was never evaluated.
    """
    import numpy as np

    from bike_pipeline.modeling.loaded_model import LoadedModel

    rows, different, largest = 0, 0, None
    if first is not None and second is not None:
        one, two = (LoadedModel(folder).predict(columns) for folder in (first, second))
        rows = len(one)
        # Bits, not values: a prediction that is not a number must count as the difference that it is.
        different = int(np.count_nonzero(one.view(np.uint32) != two.view(np.uint32)))
        largest = float(np.abs(one.astype(np.float64) - two.astype(np.float64)).max()) if rows else None
    by_slice = [
        {(row["slicing"], row["slice"]): row for row in found or ()} for found in (first_metrics, second_metrics)
    ]
    counts = [{key: row["rows"] for key, row in measured.items()} for measured in by_slice]
    same_slices = bool(counts[0]) and counts[0] == counts[1]
    metrics: dict[str, float] = {}
    close = same_slices
    for key in by_slice[0].keys() & by_slice[1].keys():
        for name in _METRICS:
            before, now = by_slice[0][key].get(name), by_slice[1][key].get(name)
            if before is None or now is None:
                close = close and before is now
                continue
            metrics[name] = max(metrics.get(name, 0.0), abs(before - now))
            close = close and abs(before - now) <= ROUNDING * max(abs(before), abs(now))
    identical = rows > 0 and different == 0 and close
    return Agreement(rows, different, largest, metrics, same_slices, identical)
