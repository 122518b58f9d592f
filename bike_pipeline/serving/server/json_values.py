"""JSON as TF Serving reads and writes it: texts to values, values to arrays of a type, and as its errors show them.

Strict types, no casts, `{"b64": …}` for bytes. What is accepted and what an error says follows
tensorflow_serving/util/json_tensor.cc. A number for a floating type is rounded to the nearest that the type has, and is
infinite beyond its range (api_rest.md, "Floating Point Precision").

What orjson refuses and TF Serving's parser (RapidJSON, with kParseNanAndInfFlag) takes is read a second, slower time:
bare NaN and Infinity, in short form and with a sign, a byte order mark, and whatever stands behind a zero byte.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from bike_pipeline.serving.server import tensors
from bike_pipeline.serving.server.tensors import Array
from bike_pipeline.serving.statuses import Code, StatusError, invalid

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# A text, which is left as it is, or a number that JSON does not know, in the parts that Python reads.
_TEXT_OR_NO_NUMBER = re.compile(
    r'("[^"\\]*+(?:\\.[^"\\]*+)*+")|(?:-?(NaN)|(-?Inf)(?:inity)?)(?![A-Za-z0-9_])', re.DOTALL
)
# Digits of the largest whole number of 64 bits, and its sign.
_MOST_DIGITS = 20
# What clients know of the errors is how RapidJSON says them (rapidjson/error/en.h); ours is said as it is.
_SAID = {
    "unexpected character, expected a JSON value": "Invalid value.",
    "unexpected content after document": "The document root must not be followed by other values.",
    "number is infinity when parsed as double": "Number too big to be stored in double.",
}
_MAX_SHOWN = 200
_FLOATS = frozenset({"float", "double"})
FLOAT_MAX = float(np.finfo(np.float32).max)
_RANGES = {
    **dict.fromkeys(("int8", "int16", "int32", "uint8"), (-(1 << 31), (1 << 31) - 1)),
    "int64": (-(1 << 63), (1 << 63) - 1),
    "uint32": (0, (1 << 32) - 1),
    "uint64": (0, (1 << 64) - 1),
}
_NAMES: dict[type[Any], str] = {type(None): "Null", dict: "Object", list: "Array", str: "String"}


def parse(content: bytes) -> dict[str, Any]:
    """Return a request's body, which may have a `signature_name`, or refuse what is no JSON object."""
    if not content:
        raise invalid("JSON Parse error: The document is empty")
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        body = _parse_leniently(content, error)
    if not isinstance(body, dict):
        raise invalid(f"JSON Value: {excerpt(body)} Is not object")
    if not isinstance(body.get("signature_name", ""), str):
        raise invalid(
            f"JSON Value: {excerpt(body)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return body


def _parse_leniently(content: bytes, error: orjson.JSONDecodeError) -> Any:
    """Read what orjson refuses and TF Serving takes."""
    whole = content.removeprefix(_BYTE_ORDER_MARK).partition(b"\0")[0]
    if whole != content:
        try:
            return orjson.loads(whole)
        except orjson.JSONDecodeError as again:
            error = again
    # orjson counts in characters, but the place itself is right if everything before it is ASCII.
    refused = invalid(f"JSON Parse error: {_SAID.get(error.msg, error.msg)} at offset: {error.pos}")
    if b"NaN" not in whole and b"Inf" not in whole:
        raise refused
    try:
        text = _TEXT_OR_NO_NUMBER.sub(lambda found: found[1] or found[2] or f"{found[3]}inity", whole.decode())
        return json.loads(text, parse_int=_whole, parse_float=_finite)
    except (ValueError, RecursionError):
        raise refused from None


def _whole(digits: str) -> float:
    """Return a whole number, beyond 64 bits the double nearest to it."""
    if len(digits) <= _MOST_DIGITS and -(1 << 63) <= (number := int(digits)) < 1 << 64:
        return number
    return _finite(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(digits[:_MAX_SHOWN])
    return number


def type_of(value: Any) -> str:
    """Return the name of a JSON value's type, as TF Serving's errors say it."""
    return str(value) if isinstance(value, bool) else _NAMES.get(type(value), "Number")


def excerpt(value: Any) -> str:
    """Return a JSON value as an error shows it, cut if it is long."""
    try:
        text = orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        # Nested more deeply than anybody wants to read.
        return "…"
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def are_plain(values: list[Any], dtype: int) -> bool:
    """Whether these are numbers that numpy turns into the type without a word."""
    kinds = set(map(type, values))
    if dtype == tensors.FLOAT:
        return bool(kinds and kinds <= {float, int} and min(values) >= -FLOAT_MAX and max(values) <= FLOAT_MAX)
    if dtype == tensors.INT64:
        low, high = _RANGES["int64"]
        return bool(kinds == {int} and low <= min(values) and max(values) <= high)
    return False


def is_object(value: Any) -> bool:
    """Whether a JSON value is an object that does not stand for bytes."""
    return isinstance(value, dict) and not (len(value) == 1 and isinstance(value.get("b64"), str))


def array(value: Any, dtype: int) -> Array:
    """Return one JSON value, a scalar or nested lists, as an array of a type; refuse what is none of it."""
    shape = []
    first = value
    while isinstance(first, list):
        shape.append(len(first))
        first = first[0] if first else None
    if len(shape) > tensors.MAX_RANK:
        raise invalid(f"Encountered list at unexpected level: {tensors.MAX_RANK} expected < {tensors.MAX_RANK}")
    flat: list[Any] = []
    _flatten(value, 0, shape, dtype, flat)
    kind = np.dtype(tensors.numpy_type(dtype))
    # Through int64 if the type is narrower: C's cast wraps.
    wide = np.float64 if kind.kind == "f" else np.int64 if kind.kind in "iu" and kind.itemsize < 4 else kind
    with np.errstate(over="ignore"):
        return np.array(flat, wide).astype(kind).reshape(shape)


def _flatten(value: Any, level: int, shape: list[int], dtype: int, flat: list[Any]) -> None:
    rank = len(shape)
    if not isinstance(value, list):
        if level != rank:
            raise invalid(
                f"JSON Value: {excerpt(value)} found at incorrect level: {level + 1} in the JSON DOM. Expected at "
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
    kind, given = tensors.name_of(dtype), type(value)
    if kind == "string" and given is str:
        return in_utf8(value)
    if kind == "string" and given is dict:
        return from_base64(value)
    low, high = _RANGES.get(kind, (1, 0))
    if (
        (kind == "bool" and given is bool)
        or (kind in _FLOATS and given in {float, int})
        or (given is int and low <= value <= high)
    ):
        return value
    # All that REST brings in; of the other types TF Serving says that they are not implemented.
    if kind not in {"string", "bool", *_FLOATS, *_RANGES} and given is not dict:
        raise StatusError(Code.UNIMPLEMENTED, f"Conversion of JSON Value: {excerpt(value)} to type: {kind}")
    raise invalid(f"JSON Value: {excerpt(value)} Type: {type_of(value)} is not of expected type: {kind}")


def written(body: Mapping[str, Any]) -> bytes:
    """Return an answer's text; numbers may be numpy's, and need not be finite."""
    text = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    # orjson writes null for what is not finite.
    return json.dumps(body, default=_listed).encode() if b"null" in text else text


def _listed(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [*value]
    # A float32 has the digits of its own text, not those of the float64 nearest to it.
    return float(str(value)) if value.dtype.kind == "f" else value.item()


def in_utf8(text: str) -> bytes:
    """Return a text's bytes; half of a surrogate pair is refused."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise invalid("JSON Parse error: The surrogate pair in string is invalid.") from None


def from_base64(value: dict[str, Any]) -> bytes:
    """Return the bytes that a JSON object stands for, or refuse it."""
    if is_object(value):
        raise invalid(f"JSON Value: {excerpt(value)} not formatted correctly for base64 data")
    text = value["b64"]
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid("Unable to base64 decode") from None
