"""What a target takes from the training rows, and chooses by validation inside them, in the order of time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bike_pipeline import features, progress
from bike_pipeline.modeling import preprocessing, rows, training
from bike_pipeline.modeling.targets import KINDS, Target

# Share of the training rows that a target chooses on, as is left out of a span for evaluation.
CHOSEN_ON = 0.2


def target_of(columns: rows.Columns, transform_graph: str, section: dict[str, Any], seed: int) -> Target:
    """Return the target that the settings' section names, with what it takes from the training rows (see `targets`).

    What it chooses, it chooses on the last fifth of them in time, which a model of the rows before answers.
    """
    fitted = KINDS[section["target"]].fit(section, columns[features.LABEL])

    def answers(target: Target) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        progress.report(0.0, "training on the earlier rows, to choose on the later ones")
        before, after = _in_time(training.transformed(columns, transform_graph))
        model, _ = training.train_transformed(before, section, seed, target=target)
        given = {tensor.name: after[tensor.name] for tensor in model.inputs}
        parts = [target.served(model(part, training=False)).numpy() for part in rows.chunks(given, rows.ROWS_AT_ONCE)]
        return after[features.LABEL], np.concatenate(parts)

    return fitted.decided(answers)


def _in_time(columns: rows.Columns) -> tuple[rows.Columns, rows.Columns]:
    """Return the earlier transformed rows and the last fifth, each as if training ended between them."""
    days = columns[preprocessing.DAYS_BEFORE_END]
    order = np.argsort(-days, kind="stable")
    cut = len(order) - max(1, int(len(order) * CHOSEN_ON))
    ended = np.maximum(days - days[order[cut - 1]], 0.0)
    # For trees they stand in the last column as well.
    plain = np.column_stack([columns[preprocessing.PLAIN][:, :-1], ended])
    moved = {**columns, preprocessing.DAYS_BEFORE_END: ended, preprocessing.PLAIN: plain}
    earlier, later = ({name: values[part] for name, values in moved.items()} for part in (order[:cut], order[cut:]))
    return earlier, later
