"""What every format must do with a number that is not finite: answer NaN, and leave the other rows of a batch alone."""

from __future__ import annotations

import numpy as np

from bike_pipeline.exporting.acceptance.measurements import Measured
from bike_pipeline.exporting.formats.base import Columns
from bike_pipeline.modeling.golden import are_sound

# A batch of another size is added up in another order, and one of another range is quantized otherwise.
_ROUNDING = 1e-3


def wrong_answers(mixed: Columns, measured: Measured) -> str:
    """Return what a model does wrong with rows that are not finite, as half a sentence; "" where nothing is.

    Args:
        mixed: the golden rows with broken ones among them.
        measured: its answers to these, and to the golden rows alone.
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
