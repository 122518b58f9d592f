"""A request's text: JSON as TF Serving reads it, and values as its errors show them.

orjson reads nearly everything. What it refuses and TF Serving's parser (RapidJSON, with kParseNanAndInfFlag) takes is
read a second, slower time: bare NaN and Infinity, in short form and with a sign, a byte order mark, and whatever stands
behind a zero byte.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

import orjson

from bike_pipeline.serving.server.statuses import StatusError, invalid

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# A text, which is left as it is, or a number that JSON does not know.
_TEXT_OR_NO_NUMBER = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|-?(?:NaN|Inf(?:inity)?)(?![A-Za-z0-9_])', re.DOTALL)
# Digits of the largest whole number of 64 bits, and its sign.
_MOST_DIGITS = 20
_LARGEST, _SMALLEST = (1 << 64) - 1, -(1 << 63)
# What clients know of the errors is how RapidJSON says them (rapidjson/error/en.h); ours is said as it is.
_SAID = {
    "unexpected character, expected a JSON value": "Invalid value.",
    "unexpected content after document": "The document root must not be followed by other values.",
    "number is infinity when parsed as double": "Number too big to be stored in double.",
}
_MAX_SHOWN = 200


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
        body = _parse_leniently(content, error)
    if not isinstance(body, dict):
        raise invalid(f"JSON Value: {shown(body)} Is not object")
    name = body.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {shown(body)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return Request(body, name)


def _refusal(error: orjson.JSONDecodeError) -> StatusError:
    # orjson counts in characters, but the place itself is right where everything before it is ASCII.
    return invalid(f"JSON Parse error: {_SAID.get(error.msg, error.msg)} at offset: {error.pos}")


def _parse_leniently(content: bytes, error: orjson.JSONDecodeError) -> Any:
    """Read what orjson refuses and TF Serving takes."""
    refused = _refusal(error)
    whole = content.removeprefix(_BYTE_ORDER_MARK).partition(b"\0")[0]
    if whole != content:
        try:
            return orjson.loads(whole)
        except orjson.JSONDecodeError as again:
            refused = _refusal(again)
    if b"NaN" not in whole and b"Inf" not in whole:
        raise refused
    try:
        text = _TEXT_OR_NO_NUMBER.sub(_as_python_reads_it, whole.decode())
        return json.loads(text, parse_int=_whole, parse_float=_finite)
    except (ValueError, RecursionError):
        raise refused from None


def _as_python_reads_it(found: re.Match[str]) -> str:
    text = found[0]
    if text.startswith('"'):
        return text
    if text.endswith("NaN"):
        return "NaN"
    return "-Infinity" if text.startswith("-") else "Infinity"


def _whole(digits: str) -> float:
    """Return a whole number, beyond 64 bits the double nearest to it."""
    if len(digits) <= _MOST_DIGITS and _SMALLEST <= (number := int(digits)) <= _LARGEST:
        return number
    return _finite(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(digits[:_MAX_SHOWN])
    return number


def type_of(value: Any) -> str:
    """Return the name of a JSON value's type, as TF Serving's errors say it."""
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return str(value)
    names: dict[type[Any], str] = {dict: "Object", list: "Array", str: "String"}
    return names.get(type(value), "Number")


def shown(value: Any) -> str:
    """Return a JSON value as an error shows it, cut where it is long."""
    try:
        text = orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        # Nested more deeply than anybody wants to read.
        return "…"
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"
