"""Records that a client sends: read from JSON or CSV, completed from their date, checked against the contract."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from bike_pipeline import features
from bike_pipeline.errors import ModelError

Record = Mapping[str, Any]
_NAMES = tuple(feature.name for feature in features.MODEL_INPUTS)


def is_json(text: str) -> bool:
    """Return whether a text is taken for JSON; else it is taken for CSV."""
    return text.strip().removeprefix("\ufeff").lstrip()[:1] in ("{", "[")


def parse(text: str, where: str) -> list[Record]:
    """Return the records of a JSON object, a JSON array, JSON lines or a CSV with a header.

    Raises:
        ModelError: the text is none of these, or empty.
    """
    stripped = text.strip().removeprefix("\ufeff").strip()
    if not stripped:
        raise ModelError("there are no records", where=where, fix="send a JSON record or a CSV with a header")
    if not is_json(stripped):
        return _parse_csv(stripped, where)
    found: Any
    try:
        found = json.loads(stripped)
    # Not only JSONDecodeError: Python refuses integers of thousands of digits and very deep nesting in its own ways.
    except (ValueError, RecursionError):
        found = [
            _parse_json(line, f"{where}, line {i}") for i, line in enumerate(stripped.splitlines(), 1) if line.strip()
        ]
    records = found if isinstance(found, list) else [found]
    if not records:
        raise ModelError("there are no records", where=where, fix="send a JSON record or a CSV with a header")
    for number, record in enumerate(records, 1):
        if not isinstance(record, dict):
            raise ModelError("a record is a JSON object", where=f"{where}, record {number}", fix='write {"hr": 8, …}')
    return records


def _parse_json(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ModelError(
            f"not JSON ({error.msg}, column {error.colno})", where=where, fix="correct the record"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"not a record ({error})", where=where, fix="correct the record") from None


def _parse_csv(text: str, where: str) -> list[Record]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    records: list[Record] = []
    try:
        names = list(reader.fieldnames or ())
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ModelError(
                f"the header names {', '.join(twice)} twice", where=where, fix="give every column a name of its own"
            )
        for row in reader:
            if None in row or None in row.values():
                raise ModelError(
                    "the row has another number of fields than the header",
                    where=f"{where}, line {reader.line_num}",
                    fix="write one field a column, separated by commas",
                )
            records.append(row)
    except csv.Error as error:
        raise ModelError(
            f"not a CSV ({error})", where=f"{where}, line {reader.line_num}", fix="correct that line"
        ) from None
    if not records:
        raise ModelError("there is a header and no record", where=where, fix="add rows below the header")
    return records


def complete(record: Record) -> dict[str, Any]:
    """Return a record with what its date says: yr, mnth, weekday and, with `holiday`, workingday, where absent."""
    full = dict(record)
    if features.DATE in full and full[features.DATE] not in (None, ""):
        day = date.fromisoformat(str(full[features.DATE]))
        said = {"yr": day.year - features.FIRST_YEAR, "mnth": day.month, "weekday": day.isoweekday() % 7}
        if "holiday" in full:
            said["workingday"] = int(day.isoweekday() <= 5 and _is_zero(full["holiday"]))
        full.update({name: value for name, value in said.items() if full.get(name) in (None, "")})
    return full


def _is_zero(value: Any) -> bool:
    # What is no number is refused later, by the name of its own column.
    try:
        return float(value) == 0
    except (TypeError, ValueError, OverflowError):
        return False


def to_columns(records: Sequence[Record], where: str) -> dict[str, list[Any]]:
    """Return the model's inputs as columns, each a list of one value a record.

    Columns that the model does not read are ignored, the label and what leaks it among them.

    Raises:
        ModelError: a value is missing, not a number, or outside its range.
    """
    columns: dict[str, list[Any]] = {name: [] for name in _NAMES}
    for number, record in enumerate(records, 1):
        place = f"{where}, record {number}"
        try:
            full = complete(record)
        except ValueError:
            raise ModelError(
                f"dteday is not a date: {record[features.DATE]!r}", where=place, fix="write it as YYYY-MM-DD"
            ) from None
        missing = [name for name in _NAMES if full.get(name) in (None, "")]
        if missing:
            named = ", ".join(f"{name} ({features.BY_NAME[name].meaning})" for name in missing)
            raise ModelError(
                f"missing: {named}", where=place, fix="send every input; dteday stands for the calendar ones"
            )
        for feature in features.MODEL_INPUTS:
            columns[feature.name].append(_value(feature, full[feature.name], place))
    return columns


def _value(feature: features.Feature, raw: Any, where: str) -> int | float:
    try:
        number = float(raw)
        if isinstance(raw, bool) or not math.isfinite(number):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise ModelError(
            f"{feature.name} is not a number: {raw!r}", where=where, fix=f"it is in {feature.unit}"
        ) from None
    low = feature.minimum if feature.minimum is not None else -math.inf
    high = feature.maximum if feature.maximum is not None else math.inf
    if not low <= number <= high or (feature.kind == "int" and number != int(number)):
        kind = "a whole number" if feature.kind == "int" else "a number"
        span = f"from {low:g} to {high:g}" if high < math.inf else f"from {low:g}"
        raise ModelError(
            f"{feature.name} is {raw}, outside its range", where=where, fix=f"it is {kind} {span}, in {feature.unit}"
        )
    return int(number) if feature.kind == "int" else number
