"""What every source hands over: rows as they stood there, with the place of each, and a description of the source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import compute

from bike_pipeline import features
from bike_pipeline.errors import DataError

MAP = "Other names and units are read by a mapping: data ingest --map NAME (docs/data.md)"


@dataclass(frozen=True)
class BrokenLine:
    """A line of a CSV file with another number of fields than the header, which is line 1.

    `file` is an index into `SourceRows.names`.
    """

    file: int
    line: int
    text: str
    reason: str


@dataclass(frozen=True)
class SourceRows:
    """Rows of a source, unchecked.

    Attributes:
        table: the columns of the feature contract, in its order, with the values as they stood in the source (texts
            for CSV, the source's own types for SQL and Parquet); until a mapping is done, the columns that it reads.
        lines: int64, (rows,): line number in its file (CSV) or row number (SQL, Parquet), from 1.
        files: int64, (rows,): index into `names`.
        names: name of each file, or of the one source.
        broken: lines that could not be cut into fields.
        ignored: columns of the source that the feature contract does not know.
        skipped: names in a folder that were not read.
    """

    table: pa.Table
    lines: npt.NDArray[np.int64]
    files: npt.NDArray[np.int64]
    names: tuple[str, ...]
    broken: tuple[BrokenLine, ...] = ()
    ignored: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


def numbered(table: pa.Table, name: str, ignored: tuple[str, ...]) -> SourceRows:
    """Return the rows of one source whose places are their numbers."""
    lines = np.arange(1, table.num_rows + 1, dtype=np.int64)
    return SourceRows(table, lines, np.zeros_like(lines), (name,), (), ignored)


def other_separator(names: Sequence[str]) -> str:
    """Return what separates the columns of a header that was cut at commas into one name; "" if nothing does."""
    header = names[0] if len(names) == 1 else ""
    signs = {";": "semicolons", "\t": "tabs", "|": "bars"}
    return next((called for sign, called in signs.items() if sign in header), "")


def similar_name(name: str, names: Iterable[str]) -> str:
    """Return which of some names is a column's but for upper case and spaces around it; "" if none is."""
    return next((other for other in names if other != name and other.strip().lower() == name), "")


def check_columns(names: Sequence[str], where: str) -> tuple[str, ...]:
    """Return the columns of a source that the contract does not know, sorted; a DataError if one of its own is missing.

    Others are ignored, not refused: exports often carry a station or a load date, and a column that is never read
    cannot reach a model.
    """
    missing = [name for name in features.COLUMNS if name not in names]
    if missing:
        if called := other_separator(names):
            raise DataError(
                f"its columns are separated by {called}, not by commas", where=where, fix="export it with commas"
            )
        others = {name: other for name in missing if (other := similar_name(name, names))}
        if others:
            found = ", ".join(f"'{other}' for {name}" for name, other in others.items())
            raise DataError(
                f"its first line writes {found}", where=where, fix="write the names of the columns in lower case"
            )
        if len(missing) == len(features.COLUMNS):
            raise DataError(
                "its first line names none of the columns of the feature contract",
                where=where,
                fix=f"the first line must name {', '.join(features.COLUMNS)}. {MAP}",
            )
        plural = "columns" if len(missing) > 1 else "column"
        raise DataError(
            f"{plural} {', '.join(missing)} missing",
            where=where,
            fix=f"add what is missing; see bike_pipeline/features.py. {MAP}",
        )
    double = sorted({name for name in features.COLUMNS if list(names).count(name) > 1})
    if double:
        raise DataError(f"column {', '.join(double)} is there twice", where=where, fix="keep one of them")
    return tuple(sorted(set(names) - set(features.COLUMNS)))


def rename_columns(
    names: Sequence[str], named: Mapping[str, Sequence[str]], where: str
) -> tuple[list[str], tuple[str, ...]]:
    """Return the names of a source's columns with those that are asked for renamed (see `read_csv`), and the others.

    A column that is missing, or there under two names, is a DataError.
    """
    found = {alias: [place for place, name in enumerate(names) if name in called] for alias, called in named.items()}
    for alias, places in found.items():
        if len(places) != 1:
            problem = f"it has {len(places) or 'no'} columns called {' or '.join(named[alias])}"
            fix = (
                f"choose another mapping, or correct its names or its encoding; the first line names {', '.join(names)}"
            )
            raise DataError(problem, where=where, fix=fix)
    alias_of = {place: alias for alias, (place,) in found.items()}
    others = [name for place, name in enumerate(names) if place not in alias_of]
    # A name that no alias has, so that none is there twice.
    return [alias_of.get(place, f"{place}. {name}") for place, name in enumerate(names)], tuple(sorted(others))


def join_rows(parts: Sequence[SourceRows], where: str) -> SourceRows:
    """Return the rows of several files as one, in the order given."""
    if len(parts) == 1:
        return parts[0]
    tables = [part.table for part in parts]
    for name in tables[0].column_names:
        kinds = {table.schema.field(name).type for table in tables}
        if any(map(pa.types.is_string, kinds)) or any(map(pa.types.is_temporal, kinds)):
            # CSV beside Parquet, or dates in two ways: read as the texts that a CSV would hold.
            tables = [_with_text(table, name) for table in tables] if len(kinds) > 1 else tables
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(
            f"its files store a column under different types ({error})", where=where, fix="write all files the same way"
        ) from error
    offsets = np.cumsum([0, *(len(part.names) for part in parts)])
    return SourceRows(
        table=table,
        lines=np.concatenate([part.lines for part in parts]),
        files=np.concatenate([part.files + offset for part, offset in zip(parts, offsets, strict=False)]),
        names=tuple(name for part in parts for name in part.names),
        broken=tuple(
            BrokenLine(line.file + int(offset), line.line, line.text, line.reason)
            for part, offset in zip(parts, offsets, strict=False)
            for line in part.broken
        ),
        ignored=tuple(sorted({name for part in parts for name in part.ignored})),
    )


def _with_text(table: pa.Table, name: str) -> pa.Table:
    """Return a table with a column as texts: the gaps of pandas' numbers (NaN) stay gaps, a truth value is 0 or 1."""
    column = table.column(name)
    if pa.types.is_nested(column.type) or pa.types.is_binary(column.type):
        return table
    if pa.types.is_floating(column.type):
        column = compute.if_else(compute.is_nan(column), None, column)
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    return table.set_column(table.schema.get_field_index(name), name, column.cast(pa.string()))
