"""The rows that quantization learns its ranges from: those of the training span, and both ends of every feature.

Activations are clipped to what calibration saw. A span of one year holds neither the next year nor a hurricane, and a
model that was calibrated without them answers nonsense there; so every end of every feature's range stands in a row of
its own, beside what an ordinary hour holds.
"""

from __future__ import annotations

from bike_pipeline import features
from bike_pipeline.exporting.formats.base import Columns
from bike_pipeline.modeling.golden import LAST_YEAR

# How many ordinary hours each end of a range is tried with.
ROWS_PER_END = 4


def with_extremes(columns: Columns) -> Columns:
    """Return the rows, followed by `ROWS_PER_END` copies of some of them for each end of each feature's range.

    Args:
        columns: rows of the training span, one array of shape (rows,) for each of the model's inputs, with rows ≥ 1.

    Returns:
        The same columns and types, each of shape (rows + 2 · features · `ROWS_PER_END`,).
    """
    import numpy as np

    rows = len(columns[features.MODEL_INPUTS[0].name])
    ends = [
        (feature.name, end)
        for feature in features.MODEL_INPUTS
        for end in (feature.minimum or 0, LAST_YEAR if feature.maximum is None else feature.maximum)
        for _ in range(ROWS_PER_END)
    ]
    # Spread over the span, so that an end meets several seasons and hours.
    chosen = np.linspace(0, rows - 1, len(ends)).astype(np.int64)
    extended = {f.name: np.concatenate([columns[f.name], columns[f.name][chosen]]) for f in features.MODEL_INPUTS}
    for row, (name, end) in enumerate(ends, start=rows):
        extended[name][row] = end
    return extended
