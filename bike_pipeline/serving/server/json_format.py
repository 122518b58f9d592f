"""TF Serving's JSON: requests to columns, outputs to text.

What is accepted and what an error says follows tensorflow_serving/util/json_tensor.cc: strict types, no casts,
`{"b64": …}` for bytes, bare NaN and Infinity both ways, a lone output without its name.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import orjson

from bike_pipeline.serving.server import tensors
from bike_pipeline.serving.server.batching import Column, Outputs
from bike_pipeline.serving.server.signatures import Signature, TensorSpec
from bike_pipeline.serving.server.statuses import StatusError, invalid
from bike_pipeline.serving.server.tensors import Array

Format = Literal["row", "column"]
# Largest whole numbers that every float type holds exactly; a larger one would lose digits.
_EXACT = {"float": (1 << 24) - 1, "double": (1 << 53) - 1}
# Within what every type of a plain signature holds.
_PLAIN_MAX = 1 << 62
_FLOAT_MAX = float(np.finfo(np.float32).max)
_RANGES = {
    **dict.fromkeys(("int8", "int16", "int32", "uint8"), (-(1 << 31), (1 << 31) - 1)),
    "int64": (-(1 << 63), (1 << 63) - 1),
    "uint32": (0, (1 << 32) - 1),
    "uint64": (0, (1 << 64) - 1),
}
_MAX_SHOWN = 200
# TensorFlow's (tensorflow/core/framework/tensor_shape.h).
_MAX_RANK = 254


@dataclass(frozen=True)
class Request:
    """A parsed body.

    Attributes:
        body: the JSON object.
        signature: the signature it names; empty for the default.
    """

    body: dict[str, Any]
    signature: str


def parse(content: bytes) -> Request:
    """Return a request's body.

    Raises:
        StatusError: it is no JSON object.
    """
    if not content:
        raise invalid("JSON Parse error: The document is empty")
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        body = _parse_with_infinities(content, error)
    if not isinstance(body, dict):
        raise invalid(f"JSON Value: {_shown(body)} Is not object")
    name = body.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {_shown(body)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return Request(body, name)


def _parse_with_infinities(content: bytes, error: orjson.JSONDecodeError) -> Any:
    """Read what orjson, which is strict, refuses: NaN and Infinity."""
    refused = invalid(f"JSON Parse error: {error.msg} at offset: {error.pos}")
    if b"NaN" not in content and b"Inf" not in content:
        raise refused
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise refused from None


def inputs_of(request: Request, signature: Signature) -> tuple[dict[str, Column], int, Format]:
    """Return a predict request's inputs, its rows (0 where the signature does not batch) and its format.

    Raises:
        StatusError: the body does not fit the signature.
    """
    body = request.body
    has_rows, has_columns = "instances" in body, "inputs" in body
    if has_rows and has_columns:
        raise invalid(
            f"JSON Value: {_shown(body)} Not formatted correctly expecting only one of 'inputs' or 'instances' keys to "
            "exist "
        )
    if has_rows:
        columns, rows = _from_instances(body["instances"], body, signature)
        return columns, rows, "row"
    if has_columns:
        columns, rows = _from_inputs(body["inputs"], signature)
        return columns, rows, "column"
    raise invalid("Missing 'inputs' or 'instances' key")


def _from_instances(rows: Any, body: Any, signature: Signature) -> tuple[dict[str, Column], int]:
    if not isinstance(rows, list):
        raise invalid(f"JSON Value: {_shown(body)} Excepting 'instances' to be an list/array")
    if not rows:
        raise invalid(f"JSON Value: {_shown(body)} No values in 'instances' array")
    specs = signature.inputs
    if len(rows) == 1 and signature.plain and (one := _one_row(rows[0], signature)):
        return one, 1
    if not isinstance(rows[0], dict) and len(specs) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    if _is_object(rows[0]):
        _check_objects(rows, specs)
        columns = {name: _instances_column([row[name] for row in rows], name, spec) for name, spec in specs.items()}
        return columns, len(rows)
    for number, row in enumerate(rows):
        if _is_object(row):
            raise invalid(f"Expecting value/list but got object at item {number} of input list")
    name, spec = next(iter(specs.items()))
    return {name: _instances_column(rows, name, spec)}, len(rows)


def _check_objects(rows: list[Any], specs: Mapping[str, TensorSpec]) -> None:
    names = specs.keys()
    for number, row in enumerate(rows):
        if not _is_object(row):
            raise invalid(f"Expecting object but got list at item {number} of input list")
        if row.keys() != names:
            for key in row:
                if key not in names:
                    raise _element(number, key, f"JSON object: does not have named input: {key}")
            raise invalid(
                f"Failed to process element: {number} of 'instances' list. JSON object: {_shown(row)} keys must be "
                f"equal to: {','.join(names)}"
            )


def _one_row(row: Any, signature: Signature) -> dict[str, Column] | None:
    """Return a lone row of plain numbers, by far the most frequent request; None where it is anything else."""
    if not isinstance(row, dict) or row.keys() != signature.inputs.keys():
        return None
    columns: dict[str, Column] = {}
    for name, kind in signature.plain:
        value = row[name]
        if type(value) is not kind or not -_PLAIN_MAX <= value <= _PLAIN_MAX:
            return None
        columns[name] = [value]
    return columns


def _element(number: int, key: str, message: str) -> StatusError:
    return invalid(
        f"Failed to process element: {number} key: {key} of 'instances' list. Error: INVALID_ARGUMENT: {message}"
    )


def _instances_column(values: list[Any], name: str, spec: TensorSpec) -> Column:
    """Return one input's values of all rows; the fast way for plain numbers, the exact way for all else."""
    if spec.shape == (-1,) and _are_plain(values, spec.dtype):
        return values
    arrays = []
    for number, value in enumerate(values):
        try:
            arrays.append(_array(value, spec.dtype))
        except StatusError as error:
            raise _element(number, name, error.message) from None
        if arrays[-1].shape != arrays[0].shape:
            shapes = [f"[{','.join(map(str, array.shape))}]" for array in (arrays[0], arrays[-1])]
            raise _element(number, name, f"Expecting shape {shapes[0]} but got: {shapes[1]}")
    stacked = np.stack(arrays)
    tensors.check_shape(stacked.shape, spec, name)
    return stacked


def _from_inputs(value: Any, signature: Signature) -> tuple[dict[str, Column], int]:
    specs = signature.inputs
    if not _is_object(value):
        if len(specs) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        value = {next(iter(specs)): value}
    columns: dict[str, Column] = {}
    for name, spec in specs.items():
        if name not in value:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
        found = value[name]
        if spec.shape == (-1,) and isinstance(found, list) and _are_plain(found, spec.dtype):
            columns[name] = found
            continue
        array = _array(found, spec.dtype)
        tensors.check_shape(array.shape, spec, name)
        columns[name] = array
    return columns, same_rows(columns, signature)


def same_rows(columns: Mapping[str, Column], signature: Signature) -> int:
    """Return the rows of a request; 0 where its signature does not batch.

    Raises:
        StatusError: the inputs have different numbers of rows.
    """
    if not signature.batches:
        return 0
    lengths = {name: len(column) for name, column in columns.items()}
    rows = next(iter(lengths.values()))
    for name, length in lengths.items():
        if length != rows:
            raise invalid(f"Tensor name: {name} has inconsistent batch size: {length} expecting: {rows}")
    return rows


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def _are_plain(values: list[Any], dtype: int) -> bool:
    """Whether these are numbers that the type holds as they are."""
    kinds = set(map(type, values))
    if dtype == tensors.FLOAT:
        if kinds == {float}:
            return bool(min(values) >= -_FLOAT_MAX and max(values) <= _FLOAT_MAX)
        whole = _EXACT["float"]
        return bool(kinds and kinds <= {float, int} and -whole <= min(values) and max(values) <= whole)
    if dtype == tensors.INT64:
        low, high = _RANGES["int64"]
        return bool(kinds == {int} and low <= min(values) and max(values) <= high)
    return False


def _array(value: Any, dtype: int) -> Array:
    """Return one JSON value, a scalar or nested lists, as an array of a type."""
    shape = []
    first = value
    while isinstance(first, list):
        shape.append(len(first))
        if not first:
            break
        first = first[0]
    if len(shape) > _MAX_RANK:
        raise invalid(f"Encountered list at unexpected level: {_MAX_RANK} expected < {_MAX_RANK}")
    flat: list[Any] = []
    _flatten(value, 0, shape, dtype, flat)
    array = np.empty(len(flat), tensors.numpy_type(dtype))
    try:
        if dtype == tensors.STRING:
            array[:] = flat
        else:
            # Through int64 where the type is narrower: C's cast wraps.
            array = np.array(flat, np.int64 if array.dtype.kind in "iu" and array.dtype.itemsize < 4 else None)
            array = array.astype(tensors.numpy_type(dtype))
    except (OverflowError, ValueError):
        raise invalid(f"JSON Value: {_shown(value)} is not of expected type: {tensors.name_of(dtype)}") from None
    return array.reshape(shape)


def _flatten(value: Any, level: int, shape: list[int], dtype: int, flat: list[Any]) -> None:
    rank = len(shape)
    if not isinstance(value, list):
        if level != rank:
            raise invalid(
                f"JSON Value: {_shown(value)} found at incorrect level: {level + 1} in the JSON DOM. Expected at "
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
    if dtype == tensors.STRING:
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, dict):
            return _from_base64(value)
    elif kind == "bool":
        if isinstance(value, bool):
            return value
    elif kind in _EXACT:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _decimal(value, kind)
    elif kind in _RANGES:
        low, high = _RANGES[kind]
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
    raise invalid(f"JSON Value: {_shown(value)} Type: {_type_of(value)} is not of expected type: {kind}")


def _decimal(value: float, kind: str) -> float:
    if isinstance(value, int):
        lossless = abs(value) <= _EXACT[kind]
    else:
        lossless = not math.isfinite(value) or kind == "double" or abs(value) <= _FLOAT_MAX
    if not lossless:
        raise invalid(f"Cannot convert JSON value: {_shown(value)} to {kind} without loss of precision.")
    return float(value)


def _from_base64(value: dict[str, Any]) -> bytes:
    if not _is_base64(value):
        raise invalid(f"JSON Value: {_shown(value)} not formatted correctly for base64 data")
    text = value["b64"]
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid("Unable to base64 decode") from None


def _type_of(value: Any) -> str:
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return str(value)
    names: dict[type[Any], str] = {dict: "Object", list: "Array", str: "String"}
    return names.get(type(value), "Number")


def _shown(value: Any) -> str:
    try:
        text = orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        # Nested more deeply than anybody wants to read.
        return "…"
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def response(outputs: Outputs, form: Format) -> bytes:
    """Return the body that answers a predict request.

    Raises:
        StatusError: the outputs have different numbers of rows, which the row format cannot say.
    """
    if len(outputs) == 1:
        name, values = next(iter(outputs.items()))
        plain: Any = _plain(name, values)
        if form == "row" and not values.shape:
            raise invalid(f"Tensor name: {name} has no shape information ")
    elif form == "column":
        plain = {name: _plain(name, values) for name, values in outputs.items()}
    else:
        plain = _rows(outputs)
    body = {"predictions" if form == "row" else "outputs": plain}
    text = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    # orjson writes null for what is not finite.
    return json.dumps(body, default=_listed).encode() if b"null" in text else text


def _rows(outputs: Outputs) -> list[dict[str, Any]]:
    rows = -1
    for name, values in outputs.items():
        if not values.shape:
            raise invalid(f"Tensor name: {name} has no shape information ")
        if rows >= 0 and len(values) != rows:
            raise invalid(f"Tensor name: {name} has inconsistent batch size: {len(values)} expecting: {rows}")
        rows = len(values)
    plain = {name: _plain(name, values) for name, values in outputs.items()}
    return [{name: values[row] for name, values in plain.items()} for row in range(rows)]


def _plain(name: str, values: Array) -> Any:
    if values.dtype.kind in "OSU":
        return _texts(values.tolist(), as_bytes=name.endswith("_bytes"))
    if values.dtype.kind == "V" or values.dtype == np.float16:
        values = values.astype(np.float32)
    return np.ascontiguousarray(values) if values.shape else values.item()


def _texts(value: Any, as_bytes: bool) -> Any:
    if isinstance(value, list):
        return [_texts(inner, as_bytes) for inner in value]
    content = value.encode() if isinstance(value, str) else bytes(value)
    return {"b64": base64.b64encode(content).decode()} if as_bytes else content.decode(errors="replace")


def _listed(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [*value]
    # A float32 has the digits of its own text, not those of the float64 nearest to it.
    return float(str(value)) if value.dtype.kind == "f" else value.item()
