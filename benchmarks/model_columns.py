"""The model's own columns of rows in memory, for whoever trains it without the pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from bike_pipeline import features
from bike_pipeline.data import past_weather

Columns = dict[str, npt.NDArray[Any]]
_KINDS = {"int": np.int64, "float": np.float32}


def raw(table: Mapping[str, npt.NDArray[Any]], hours: npt.NDArray[np.int64]) -> Columns:
    """Return the raw columns of rows as the transforms take them: int64 or float32, (rows,).

    Args:
        table: the data set's columns, (rows,) each.
        hours: time of each row in hours since 1970, rising. Weather of past hours is that of the rows before.
    """
    wanted = (*features.INPUTS, *(features.BY_NAME[name] for name in features.LABELS))
    found = {feature.name: np.asarray(table[feature.name]).astype(_KINDS[feature.kind]) for feature in wanted}
    return found | past_weather.optional_inputs(hours, table)


def inputs_and_labels(columns: Columns) -> tuple[Columns, npt.NDArray[np.float32]]:
    """Return the transformed features alone, and the labels, (rows, labels)."""
    inputs = {name: values for name, values in columns.items() if name not in features.LABELS}
    return inputs, np.stack([columns[name] for name in features.LABELS], axis=1)
