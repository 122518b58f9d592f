"""Which whole numbers a value of the graph can be: a place that is in its table by itself need not be held to it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from bike_pipeline.exporting.formats.frozen_graph import Operation, Value

# The lowest and the highest, each of one number or of as many as the value has.
Range = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
_WHOLE = ("int64", "int32", "int16")


def known_of(value: Value, known: Mapping[str, Range]) -> Range | None:
    """Return the range of a value; None if it is not known."""
    if value.dtype == "bool":
        return np.zeros(1, np.int64), np.ones(1, np.int64)
    if value.constant is not None and value.dtype in _WHOLE:
        numbers = value.constant.reshape(-1).astype(np.int64)
        return numbers, numbers
    return known.get(value.name)


def range_of(operation: Operation, known: Mapping[str, Range]) -> Range | None:
    """Return the range of an operation's result; None for what is not worked out."""
    ranges = [known_of(value, known) for value in operation.inputs]
    first = ranges[0]
    if first is None or operation.outputs[0].dtype not in _WHOLE:
        return None
    if operation.kind in ("Cast", "Reshape"):
        return first
    if operation.kind == "GatherV2":
        return first[0].min(keepdims=True), first[1].max(keepdims=True)
    if operation.kind in ("Add", "AddV2") and (second := ranges[1]) is not None:
        return first[0] + second[0], first[1] + second[1]
    return None
