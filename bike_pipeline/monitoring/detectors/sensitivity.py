"""Input at which the model breaks: answers that jump where the weather hardly differs.

Each row is asked again with its weather moved by less than a sensor reads. A model answers about the same; where it
does not, the row sits on an edge of it, by accident or because somebody looked for one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from bike_pipeline import features
from bike_pipeline.modeling.feedback import PRIOR_RENTALS
from bike_pipeline.monitoring.columns import Array, Columns, Window, rows_in, take
from bike_pipeline.monitoring.reference import Reference
from bike_pipeline.monitoring.verdicts import Measurement
from bike_pipeline.settings.monitoring import DetectorSettings

# Half of what the weather is told to, in stored values: 0.5 °C, 1 % and 1 km/h.
STEP = 0.01
SEED, MOST_ROWS = 20110101, 200


def measure(
    observed: Columns, reference: Reference, windows: Sequence[Window], settings: DetectorSettings
) -> Iterator[Measurement]:
    """Yield the share of rows of the newest window whose answer jumps by more than `settings.jump`."""
    if reference.predict is None or not windows:
        return
    window = windows[-1]
    now = rows_in(observed, window)
    rows = take(now, np.random.default_rng(SEED).permutation(len(now["hour"]))[:MOST_ROWS])
    count, effect, reason = len(rows["hour"]), None, "no rows"
    if count:
        jumps = jumps_of(reference, rows)
        effect = float((jumps > settings.jump).mean())
        reason = (
            f"answers to {effect:.1%} of {count} rows move by more than {settings.jump:.0%} with {STEP:g} of weather"
        )
    words = "the same rows, their weather moved a little"
    yield Measurement(
        "sensitivity", "model", "answers", *window, words, count, None, effect, "share of rows", settings.faulty_share,
        None, reason,
    )  # fmt: skip


def jumps_of(reference: Reference, rows: Columns) -> Array:
    """Return by what share the answer to each row moves at most when its weather does a little, (rows,)."""
    assert reference.predict is not None
    inputs = {feature.name: np.asarray(rows[feature.name]) for feature in features.MODEL_INPUTS}
    answers = np.asarray(reference.predict(inputs), np.float64)
    most = np.zeros(len(answers))
    for step in (-STEP, STEP):
        moved = {n: np.clip(inputs[n] + step, 0.0, 1.0).astype(inputs[n].dtype) for n in features.PHYSICAL}
        apart = np.abs(np.asarray(reference.predict({**inputs, **moved}), np.float64) - answers)
        most = np.maximum(most, apart / (answers + PRIOR_RENTALS))
    return most
