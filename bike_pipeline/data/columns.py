"""One column of any source to numbers, with everything that is wrong with its values."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import compute

from bike_pipeline.errors import DataError
from bike_pipeline.features import Feature

Values = npt.NDArray[np.int64] | npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# An integer may be written as 12.0: pandas does so as soon as one value of the column is missing.
_INTEGER = re.compile(r"([+-]?[0-9]+)(?:\.0*)?")
# ASCII: else the i of "inf" would match a dotless one, too.
_FLOAT = re.compile(
    r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?(?:nan|inf|infinity)", re.IGNORECASE | re.ASCII
)
_LARGEST = 2**63 - 1
_MOST_DIGITS = 30
# A date may carry a time of midnight: SQLite stores pandas' dates so.
_DATE = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[ T]00:00(?::00(?:\.0*)?)?)?")
_PER_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}
_EPOCH = dt.date(1970, 1, 1).toordinal()
_FIRST_DAY, _LAST_DAY = dt.date.min.toordinal() - _EPOCH, dt.date.max.toordinal() - _EPOCH
_WANTED = {"int": "an integer", "float": "a number", "date": "a date (YYYY-MM-DD)"}
_LONGEST_TEXT = 40


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and with which rows.

    Attributes:
        kind: "missing", "type", "not_finite", "range", "agreement", "order" or "duplicate".
        mask: which rows have it, (rows,).
        describe: from the row's index to the reason, as the quarantine gives it.
    """

    kind: str
    mask: Mask
    describe: Callable[[int], str]


def parse_column(feature: Feature, column: pa.ChunkedArray, where: str) -> tuple[Values, Mask, list[Problem]]:
    """Turn a column of texts or of a source's own type, (rows,), into numbers.

    Returns:
        The values, (rows,), as int64 (dates as days since 1970-01-01) or float64, 0 if there is none; which rows have a
        value; and the problems found.

    Raises:
        DataError: the column's type cannot hold such values at all.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_null(array.type) or pa.types.is_string_view(array.type):
        array = array.cast(pa.string())
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        values, missing, wrong = _from_text(feature, array)
    else:
        values, missing, wrong = _from_type(feature, array, where)
    valid = ~(missing | wrong)

    def text_of(row: int) -> str:
        # Python's own types know no nanoseconds and no year above 9999.
        value = array[row].cast(pa.string()) if pa.types.is_temporal(array.type) else array[row]
        text = str(value.as_py())
        return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"

    problems = [
        Problem("missing", missing, lambda _: f"{feature.name}: missing"),
        Problem("type", wrong, lambda row: f"{feature.name}: {_type_reason(text_of(row), feature)}"),
    ]
    if feature.kind == "float":
        infinite = valid & ~np.isfinite(values)
        valid &= ~infinite
        values = np.where(valid, values, 0.0)
        problems.append(Problem("not_finite", infinite, lambda row: f"{feature.name}: '{text_of(row)}' is not finite"))
    low = valid & (values < (-np.inf if feature.minimum is None else feature.minimum))
    high = valid & (values > (np.inf if feature.maximum is None else feature.maximum))
    problems += [
        Problem("range", low, lambda row: f"{feature.name}: {text_of(row)} is below {feature.minimum:g}"),
        Problem("range", high, lambda row: f"{feature.name}: {text_of(row)} is above {feature.maximum:g}"),
    ]
    return values, valid, [problem for problem in problems if problem.mask.any()]


def _type_reason(text: str, feature: Feature) -> str:
    if feature.kind == "int" and re.fullmatch(r"\s*[+-]?[0-9]{19,}…?(\.0*)?\s*", text):
        return f"{text} is too large for an integer"
    return f"'{text}' is not {_WANTED[feature.kind]}"


def _from_text(feature: Feature, array: pa.Array) -> tuple[Values, Mask, Mask]:
    kind = np.float64 if feature.kind == "float" else np.int64
    nothing = np.zeros(len(array), dtype=bool)
    # Arrow would read 0x1F as 31.
    hexadecimal = (compute.any(compute.match_substring(array, sign)).as_py() for sign in "xX")
    if feature.kind != "date" and not array.null_count and not any(hexadecimal):
        try:
            numbers = array.cast(pa.float64() if feature.kind == "float" else pa.int64())
            return numbers.to_numpy(zero_copy_only=False), nothing, nothing.copy()
        except pa.ArrowInvalid:
            pass  # At least one value is unusual; each distinct text is read by itself below.
    encoded = compute.fill_null(array, "").dictionary_encode()
    parse = {"int": _integer, "float": _float, "date": _date}[feature.kind]
    texts = [text.strip() for text in encoded.dictionary.to_pylist()]
    parsed = [parse(text) for text in texts]
    index = encoded.indices.to_numpy(zero_copy_only=False)
    values = np.array([0 if value is None else value for value in parsed], dtype=kind)[index]
    missing = np.array([not text for text in texts], dtype=bool)[index]
    wrong = np.array([value is None and bool(text) for value, text in zip(parsed, texts, strict=True)], dtype=bool)
    return values, missing, wrong[index]


def _integer(text: str) -> int | None:
    match = _INTEGER.fullmatch(text) if len(text) <= _MOST_DIGITS else None
    return int(match[1]) if match and abs(int(match[1])) <= _LARGEST else None


def _float(text: str) -> float | None:
    return float(text) if _FLOAT.fullmatch(text) else None


def _date(text: str) -> int | None:
    match = _DATE.fullmatch(text)
    if not match:
        return None
    try:
        return dt.date.fromisoformat(match[1]).toordinal() - _EPOCH
    except ValueError:
        return None


def _from_type(feature: Feature, array: pa.Array, where: str) -> tuple[Values, Mask, Mask]:
    missing: Any = array.is_null().to_numpy(zero_copy_only=False)
    wrong = np.zeros(len(array), dtype=bool)
    kind = array.type
    if feature.kind == "date":
        if pa.types.is_timestamp(kind) and kind.tz:
            array = compute.local_timestamp(array)
        if not (pa.types.is_date(kind) or pa.types.is_timestamp(kind)):
            raise _type_error(feature, kind, where)
        if pa.types.is_date(array.type):
            array = array.cast(pa.timestamp("s" if pa.types.is_date32(array.type) else "ms"))
        # In its own unit: what is finer than a microsecond must not be lost before it is looked at.
        stamps = compute.fill_null(array.cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
        days, rest = np.divmod(stamps, _PER_DAY[array.type.unit])
        beyond = (days < _FIRST_DAY) | (days > _LAST_DAY)
        return np.where(beyond, 0, days), missing, (rest != 0) | beyond
    if pa.types.is_uint64(kind):
        # Clipped and not wrapped around: 2**63 and more would be below 0.
        large = compute.fill_null(compute.greater(array, pa.scalar(_LARGEST, kind)), False)
        wrong = large.to_numpy(zero_copy_only=False) if feature.kind == "int" else wrong
        array = compute.min_element_wise(array, pa.scalar(_LARGEST, kind), skip_nulls=False)
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        numbers = array.cast(pa.int64(), safe=False)
    elif pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        numbers = array.cast(pa.float64())
    else:
        raise _type_error(feature, kind, where)
    values = compute.fill_null(numbers, 0).to_numpy(zero_copy_only=False)
    if feature.kind == "float":
        return values.astype(np.float64), missing, wrong
    if values.dtype.kind == "f":
        # pandas stores an integer column with gaps as floats and the gaps as NaN.
        missing = missing | np.isnan(values)
        wrong = ~missing & ~((np.abs(values) < 2**53) & (np.floor(values) == values))
        values = np.where(missing | wrong, 0.0, values).astype(np.int64)
    return values, missing, wrong


def _type_error(feature: Feature, kind: Any, where: str) -> DataError:
    return DataError(
        f"column {feature.name} has the type {kind}, which cannot hold {_WANTED[feature.kind]}",
        where=where,
        fix="convert it in the query or in the export",
    )
