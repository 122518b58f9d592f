"""TF Serving's JSON of predict requests: rows or columns to inputs, outputs to text.

What is accepted and what an error says follows tensorflow_serving/util/json_tensor.cc: a lone input or output needs no
name, bare NaN and Infinity both ways, bytes as `{"b64": …}`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from bike_pipeline.serving.server import json_values, tensors
from bike_pipeline.serving.server.json_values import excerpt, is_object
from bike_pipeline.serving.server.tensors import Array, Column, Columns, Outputs, Signature, TensorSpec
from bike_pipeline.serving.statuses import StatusError, invalid

Format = Literal["row", "column"]
# Within what every type of a plain signature holds.
_PLAIN_MAX = 1 << 62


def inputs_of(body: dict[str, Any], signature: Signature) -> tuple[Columns, Format]:
    """Return a body's inputs, the numbers alone if they are one plain row, and its format; refuse what does not fit."""
    if not signature.inputs:
        raise invalid(f"Failed to get input map for signature: {body.get('signature_name') or 'DEFAULT'}")
    if "instances" in body and "inputs" in body:
        raise invalid(
            f"JSON Value: {excerpt(body)} Not formatted correctly expecting only one of 'inputs' or 'instances' keys "
            "to exist "
        )
    if "instances" in body:
        rows = body["instances"]
        only = rows[0] if type(rows) is list and len(rows) == 1 else None
        return _plain_row(only, signature, boxed=False) or _from_instances(rows, body, signature), "row"
    if "inputs" in body:
        found = body["inputs"]
        return _plain_row(found, signature, boxed=True) or _from_inputs(found, signature), "column"
    raise invalid("Missing 'inputs' or 'instances' key")


def _from_instances(rows: Any, body: Any, signature: Signature) -> dict[str, Column]:
    if not isinstance(rows, list):
        raise invalid(f"JSON Value: {excerpt(body)} Excepting 'instances' to be an list/array")
    if not rows:
        raise invalid(f"JSON Value: {excerpt(body)} No values in 'instances' array")
    specs = signature.inputs
    if not isinstance(rows[0], dict) and len(specs) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    if is_object(rows[0]):
        _check_objects(rows, specs)
        return {name: _instances_column([row[name] for row in rows], name, spec) for name, spec in specs.items()}
    for number, row in enumerate(rows):
        if is_object(row):
            raise invalid(f"Expecting value/list but got object at item {number} of input list")
    name, spec = next(iter(specs.items()))
    column = _instances_column(rows, "", spec)
    # Bytes are objects, too: the check above lets a list of them pass if there are several inputs.
    tensors.check_names([name], specs)
    return {name: column}


def _check_objects(rows: list[Any], specs: Mapping[str, TensorSpec]) -> None:
    names = specs.keys()
    for number, row in enumerate(rows):
        if not is_object(row):
            raise invalid(f"Expecting object but got list at item {number} of input list")
        if row.keys() != names:
            for key in row:
                if key not in names:
                    raise _element(number, key, invalid(f"JSON object: does not have named input: {key}"))
            raise invalid(
                f"Failed to process element: {number} of 'instances' list. JSON object: {excerpt(row)} keys must be "
                f"equal to: {','.join(names)}"
            )


def _plain_row(found: Any, signature: Signature, boxed: bool) -> tuple[Any, ...]:
    """Return a lone row of plain numbers, each in a list if `boxed`, by far the most frequent request; else nothing."""
    plain = signature.plain
    if not plain or type(found) is not dict or len(found) != len(plain):
        return ()
    try:
        row = signature.plain_values(found)
        if boxed:
            row = tuple([value for (value,) in row])
    except (KeyError, TypeError, ValueError):
        return ()
    given, kinds = tuple(map(type, row)), tuple(plain.values())
    if given != kinds and not all(a is b or (a is int and b is float) for a, b in zip(given, kinds, strict=True)):
        return ()
    # A number that is none may hide in the comparison, which is no harm: as a float it is as plain as others.
    return row if max(row) <= _PLAIN_MAX and min(row) >= -_PLAIN_MAX else ()


def _element(number: int, key: str, error: StatusError) -> StatusError:
    place = f"element: {number} key: {key}" if key else f"element: {number}"
    return invalid(f"Failed to process {place} of 'instances' list. Error: {error.code.name}: {error.message}")


def _instances_column(values: list[Any], key: str, spec: TensorSpec) -> Column:
    """Return one input's values of all rows; the fast way for plain numbers, the exact way for all else."""
    if json_values.are_plain(values, spec.dtype):
        return values
    arrays: list[Array] = []
    for number, value in enumerate(values):
        try:
            arrays.append(json_values.array(value, spec.dtype))
            first, last = arrays[0], arrays[-1]
            if last.size != first.size:
                raise invalid(f"Expecting tensor size: {first.size} but got: {last.size}")
            if last.shape != first.shape:
                shapes = [f"[{','.join(map(str, found.shape))}]" for found in (first, last)]
                raise invalid(f"Expecting shape {shapes[0]} but got: {shapes[1]}")
        except StatusError as error:
            raise _element(number, key, error) from None
    if arrays[0].ndim == tensors.MAX_RANK:
        raise invalid(f"a tensor of more than {tensors.MAX_RANK} dimensions")
    return np.stack(arrays)


def _from_inputs(value: Any, signature: Signature) -> dict[str, Column]:
    specs = signature.inputs
    if not is_object(value):
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
        plain = isinstance(found, list) and json_values.are_plain(found, spec.dtype)
        columns[name] = found if plain else json_values.array(found, spec.dtype)
    return columns


def response(outputs: Outputs, form: Format) -> bytes:
    """Return the body that answers a predict request, or refuse outputs that the row format or JSON cannot say."""
    if not outputs:
        raise invalid("Cannot convert empty tensor map to JSON")
    first_name, first = next(iter(outputs.items()))
    for name, values in outputs.items() if form == "row" else ():
        if not values.shape:
            raise invalid(f"Tensor name: {name} has no shape information ")
        if len(values) != len(first):
            raise invalid(f"Tensor name: {name} has inconsistent batch size: {len(values)} expecting: {len(first)}")
    if len(outputs) == 1:
        plain: Any = _plain(first_name, first)
    else:
        plain = {name: _plain(name, values) for name, values in outputs.items()}
        if form == "row":
            plain = [{name: values[row] for name, values in plain.items()} for row in range(len(first))]
    return json_values.written({"predictions" if form == "row" else "outputs": plain})


def _plain(name: str, values: Array) -> Any:
    kind = values.dtype.kind
    if kind in "OSU":
        return _texts(values.tolist(), as_bytes=name.endswith("_bytes"))
    if kind == "c":
        raise invalid(f"Failed to write JSON value for tensor type: {values.dtype.name}")
    if kind == "V" or values.dtype == np.float16:
        values = values.astype(np.float32)
    # A scalar stays numpy's: a float32 has fewer digits than the double nearest to it.
    return np.ascontiguousarray(values) if values.shape else values[()]


def _texts(value: Any, as_bytes: bool) -> Any:
    if isinstance(value, list):
        return [_texts(inner, as_bytes) for inner in value]
    content = value.encode() if isinstance(value, str) else bytes(value)
    return {"b64": base64.b64encode(content).decode()} if as_bytes else content.decode(errors="replace")
