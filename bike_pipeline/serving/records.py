"""Records that a client sends: read from JSON or CSV, completed from their date, checked as an ingest checks rows."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from bike_pipeline import features
from bike_pipeline.data.calendar_sums import calendar_of
from bike_pipeline.data.columns import Problem, parse_column
from bike_pipeline.data.contract import agreement, is_workingday
from bike_pipeline.data.sources.source_rows import other_separator, similar_name
from bike_pipeline.errors import ModelError

Record = Mapping[str, Any]
_NAMES = tuple(feature.name for feature in features.REQUIRED_INPUTS)
FROM_DATE = ("yr", "mnth", "weekday", "workingday", "day")
_MOST_DESCRIBED = 3


def is_json(text: str) -> bool:
    """Return whether a text is taken for JSON; else it is taken for CSV."""
    return text.strip().removeprefix("\ufeff").lstrip()[:1] in ("{", "[")


def parse(text: str, where: str) -> list[Record]:
    """Return the records of a JSON object, a JSON array, JSON lines or a CSV with a header."""
    stripped = text.strip().removeprefix("\ufeff").strip()
    if stripped and not is_json(stripped):
        return _parse_csv(stripped, where)
    found: Any
    try:
        found = json.loads(stripped, object_pairs_hook=partial(_object, where))
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
        if asked := {"instances", "inputs"} & record.keys():
            raise ModelError(
                f'"{min(asked)}" makes this a request to a model server, and no record',
                where=where,
                fix='give the records alone, [{"hr": 8, …}], or POST this to a server\'s :predict',
            )
    return records


def _object(where: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object of its pairs, or refuse one that says a name twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ModelError(f"a record names {twice} twice", where=where, fix="leave one of the two out")
    return found


def _parse_json(line: str, where: str) -> Any:
    try:
        return json.loads(line, object_pairs_hook=partial(_object, where))
    except json.JSONDecodeError as error:
        what = f"not JSON ({error.msg}, column {error.colno})"
    except (ValueError, RecursionError) as error:
        what = f"not a record ({error})"
    raise ModelError(what, where=where, fix="correct the record")


def _parse_csv(text: str, where: str) -> list[Record]:
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    records: list[Record] = []
    try:
        reader.fieldnames = names = [name.strip() for name in reader.fieldnames or ()]
        if called := other_separator(names):
            raise ModelError(
                f"its columns are separated by {called}, not by commas", where=where, fix="export it with commas"
            )
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


def to_columns(records: Sequence[Record], where: str) -> dict[str, list[Any]]:
    """Return the model's inputs as columns, each a list of one value a record; values may be numbers or texts.

    Values are checked and refused as those of an ingest are. But what the date says of the calendar (yr, mnth, weekday
    and, with holiday, workingday) may be left out, and columns that the model does not read are ignored. The optional
    inputs are there if a record has one of them, or a date, which says the day of the month.

    Raises:
        ModelError: a value is missing, not of its type, outside its range, or contradicts another. It names the first
            such record, and all that is wrong with it.
    """
    values, valid, problems = check(lambda name: _column(records, name), lambda row: records[row], where)
    if problems:
        raise _refusal(problems, where)
    sent = features.OPTIONAL_NAMES if any(valid[name].any() for name in features.OPTIONAL_NAMES) else ()
    return {name: values[name].tolist() for name in (*_NAMES, *sent)}


def check(
    column: Callable[[str], Any], names_in: Callable[[int], Iterable[str]], where: str
) -> tuple[dict[str, Any], dict[str, Any], list[Problem]]:
    """Return the model's inputs completed from the date, (rows,) each, which have a value, and all that is wrong.

    Args:
        column: an Arrow array of a name's values, null where there is none.
        names_in: the names that a row has, to tell one that is only spelled otherwise.
        where: what messages name.
    """
    values: dict[str, Any] = {}
    valid: dict[str, Any] = {}
    absent: dict[str, Any] = {}
    problems: list[Problem] = []
    for name in (features.DATE, *_NAMES, *features.OPTIONAL_NAMES):
        values[name], valid[name], found = parse_column(features.BY_NAME[name], column(name), where)
        absent[name] = next((problem.mask for problem in found if problem.kind == "missing"), ~valid[name] & False)
        if (default := features.BY_NAME[name].default) is not None:
            # It means the same as nothing, and lies below the range.
            absent[name] |= values[name] == default
            valid[name] &= ~absent[name]
            found = [replace(problem, mask=problem.mask & ~absent[name]) for problem in found]
        problems += [problem for problem in found if problem.kind != "missing" and problem.mask.any()]
    _complete(values, valid, absent)
    problems += [_missing(name, absent[name], names_in) for name in _NAMES if absent[name].any()]
    return values, valid, problems + agreement(values, valid)


def hours_of(records: Sequence[Record], where: str) -> Any:
    """Return the time of each record, (records,) int64, in hours since 1970-01-01 00:00 local time.

    Raises:
        ModelError: a record has no date or hour, or one that is none.
    """
    return _values(records, features.DATE, where) * 24 + _values(records, features.HOUR, where)


def labels_of(records: Sequence[Record], where: str) -> Any:
    """Return the rentals of each record, (records,) int64; a ModelError if one has none, or what can be none."""
    return _values(records, features.LABEL, where)


def _values(records: Sequence[Record], name: str, where: str) -> Any:
    values, _, problems = parse_column(features.BY_NAME[name], _column(records, name), where)
    if problems:
        raise _refusal(problems, where)
    return values


def _column(records: Sequence[Record], name: str) -> Any:
    import pyarrow as pa

    return pa.array([_text(record.get(name)) for record in records], pa.string())


def _text(value: Any) -> str | None:
    """Return a value as a CSV would say it: the one reader of values reads texts."""
    if value is None or isinstance(value, str):
        # A JSON text may hold half a character, which no column can.
        return value and value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, bool | dict | list):
        return json.dumps(value, default=str)
    try:
        return repr(float(value)) if isinstance(value, float) else str(value)
    except ValueError:  # Python writes no integer of so many digits.
        return "a number of thousands of digits"


def _complete(values: dict[str, Any], valid: dict[str, Any], absent: dict[str, Any]) -> None:
    """Put in what the date says, if it is absent."""
    import numpy as np

    dated = valid[features.DATE]
    calendar = calendar_of(values[features.DATE])
    for name in FROM_DATE:
        known = dated
        if name == "workingday":
            calendar[name] = is_workingday(values["weekday"], values["holiday"])
            known = dated & valid["weekday"] & valid["holiday"]
        taken = absent[name] & known
        values[name] = np.where(taken, calendar[name], values[name])
        valid[name] = valid[name] | taken
        # A date that is none has been told; what it should have said is not missing besides.
        absent[name] = absent[name] & ~taken & (dated | absent[features.DATE])


def _missing(name: str, mask: Any, names_in: Callable[[int], Iterable[str]]) -> Problem:
    def say(row: int) -> str:
        other = similar_name(name, names_in(row))
        return f"{name}: missing" + (f" ('{other}' is there, and names are in lower case)" if other else "")

    return Problem("missing", mask, say)


def _refusal(problems: Sequence[Problem], where: str) -> ModelError:
    """Return the error about the first record with problems: all its reasons, as the quarantine gives them."""
    row = min(int(problem.mask.argmax()) for problem in problems)
    own = [problem for problem in problems if problem.mask[row]]
    reasons = [problem.describe(row) for problem in own]
    names = list(dict.fromkeys(reason.partition(":")[0] for reason in reasons))
    if all(problem.kind == "agreement" for problem in own):
        fix = "leave out what the date and the holiday say, or correct it"
    elif len(names) > _MOST_DESCRIBED:
        fix = f"a record needs {', '.join(_NAMES)}; {features.DATE} stands for {', '.join(FROM_DATE)}"
    else:
        fix = "; ".join(f"{name} is {features.described(features.BY_NAME[name])}" for name in names)
    return ModelError("; ".join(reasons), where=f"{where}, record {row + 1}", fix=fix)
