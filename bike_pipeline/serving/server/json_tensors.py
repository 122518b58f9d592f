"""One JSON value to one array of a tensor's type: strict types, no casts, `{"b64": …}` for bytes.

What is accepted and what an error says follows tensorflow_serving/util/json_tensor.cc. A number for a floating type is
rounded to the nearest that the type has, and is infinite beyond its range (api_rest.md, "Floating Point Precision").
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import numpy as np

from bike_pipeline.serving.server import tensors
from bike_pipeline.serving.server.json_text import shown, type_of
from bike_pipeline.serving.server.statuses import Code, StatusError, invalid
from bike_pipeline.serving.server.tensors import Array

_FLOATS = frozenset({"float", "double"})
_FLOAT_MAX = float(np.finfo(np.float32).max)
_RANGES = {
    **dict.fromkeys(("int8", "int16", "int32", "uint8"), (-(1 << 31), (1 << 31) - 1)),
    "int64": (-(1 << 63), (1 << 63) - 1),
    "uint32": (0, (1 << 32) - 1),
    "uint64": (0, (1 << 64) - 1),
}
# All that REST brings in; of the other types TF Serving says that they are not implemented.
_KNOWN = {"string", "bool", *_FLOATS, *_RANGES}


def are_plain(values: list[Any], dtype: int) -> bool:
    """Whether these are numbers that numpy turns into the type without a word."""
    kinds = set(map(type, values))
    if dtype == tensors.FLOAT:
        return bool(kinds and kinds <= {float, int} and min(values) >= -_FLOAT_MAX and max(values) <= _FLOAT_MAX)
    if dtype == tensors.INT64:
        low, high = _RANGES["int64"]
        return bool(kinds == {int} and low <= min(values) and max(values) <= high)
    return False


def is_base64(value: Any) -> bool:
    """Whether a JSON value stands for bytes."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def array(value: Any, dtype: int) -> Array:
    """Return one JSON value, a scalar or nested lists, as an array of a type.

    Raises:
        StatusError: it is none of that type.
    """
    shape = []
    first = value
    while isinstance(first, list):
        shape.append(len(first))
        if not first:
            break
        first = first[0]
    if len(shape) > tensors.MAX_RANK:
        raise invalid(f"Encountered list at unexpected level: {tensors.MAX_RANK} expected < {tensors.MAX_RANK}")
    flat: list[Any] = []
    _flatten(value, 0, shape, dtype, flat)
    made = np.empty(len(flat), tensors.numpy_type(dtype))
    if dtype == tensors.STRING:
        made[:] = flat
        return made.reshape(shape)
    if tensors.name_of(dtype) in _FLOATS:
        values = np.array(flat, np.float64)
    else:
        # Through int64 where the type is narrower: C's cast wraps.
        values = np.array(flat, np.int64 if made.dtype.kind in "iu" and made.dtype.itemsize < 4 else made.dtype)
    with np.errstate(over="ignore"):
        return values.astype(made.dtype).reshape(shape)


def _flatten(value: Any, level: int, shape: list[int], dtype: int, flat: list[Any]) -> None:
    rank = len(shape)
    if not isinstance(value, list):
        if level != rank:
            raise invalid(
                f"JSON Value: {shown(value)} found at incorrect level: {level + 1} in the JSON DOM. Expected at "
                f"level: {rank}"
            )
        flat.append(_scalar(value, dtype))
        return
    if level >= rank:
        raise invalid(f"Encountered list at unexpected level: {level} expected < {rank}")
    if len(value) != shape[level]:
        raise invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    for inner in value:
        _flatten(inner, level + 1, shape, dtype, flat)


def _scalar(value: Any, dtype: int) -> Any:
    kind = tensors.name_of(dtype)
    if kind == "string":
        if isinstance(value, str):
            return in_utf8(value)
        if isinstance(value, dict):
            return from_base64(value)
    elif kind == "bool":
        if isinstance(value, bool):
            return value
    elif kind in _FLOATS:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    elif kind in _RANGES:
        low, high = _RANGES[kind]
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
    elif kind not in _KNOWN and not isinstance(value, dict):
        raise StatusError(Code.UNIMPLEMENTED, f"Conversion of JSON Value: {shown(value)} to type: {kind}")
    raise invalid(f"JSON Value: {shown(value)} Type: {type_of(value)} is not of expected type: {kind}")


def in_utf8(text: str) -> bytes:
    """Return a text's bytes.

    Raises:
        StatusError: it holds half of a surrogate pair.
    """
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise invalid("JSON Parse error: The surrogate pair in string is invalid.") from None


def from_base64(value: dict[str, Any]) -> bytes:
    """Return the bytes that a JSON object stands for.

    Raises:
        StatusError: it stands for none.
    """
    if not is_base64(value):
        raise invalid(f"JSON Value: {shown(value)} not formatted correctly for base64 data")
    text = value["b64"]
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid("Unable to base64 decode") from None
