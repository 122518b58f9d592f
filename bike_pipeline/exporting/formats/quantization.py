"""What int8 formats share: which layers are worth it, and the rows that they learn their ranges from.

Activations are clipped to what calibration saw. A span of one year holds neither the next year nor a hurricane, and a
model that was calibrated without them answers nonsense there; so every end of every feature's range stands in a row of
its own, beside what an ordinary hour holds.
"""

from __future__ import annotations

import numpy as np

from bike_pipeline import features
from bike_pipeline.errors import ExportError
from bike_pipeline.exporting.formats.base import Columns, Source
from bike_pipeline.modeling.golden import LAST_YEAR

# A layer with fewer weights saves nothing worth its error.
SMALLEST_LAYER = 1_024
# How many ordinary hours each end of a range is tried with.
ROWS_PER_END = 4


def nothing_to_quantize(source: Source, instead: str) -> ExportError:
    """Return the error of a model whose dense layers are all small, with the format to use `instead`."""
    return ExportError(
        f"no dense layer has {SMALLEST_LAYER} weights or more, so there is nothing to quantize",
        where=str(source.saved_model),
        fix=f"use {instead}: it is as small",
    )


def with_extremes(columns: Columns) -> Columns:
    """Return the rows, at least one, followed by `ROWS_PER_END` of them for each end of each feature's range."""
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
