"""CSV text to rows: every value stays a text, every row keeps its line number, no line is lost without a word."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pc
from pyarrow import compute

from bike_pipeline import features
from bike_pipeline.data.sources.source_rows import BrokenLine, SourceRows, check_columns, rename_columns
from bike_pipeline.errors import DataError

_BOM = b"\xef\xbb\xbf"


def read_csv(content: bytes, name: str, named: Mapping[str, Sequence[str]] | None = None) -> SourceRows:
    """Cut CSV content into rows; a DataError if it has none, or a header that fits no row or not the contract.

    `named` asks for other columns than the contract's: what each may be called, by the name that it is to have.

    UTF-8 with or without a byte order mark, comma as separator, LF, CRLF or CR as line end, optional double quotes.
    Blank lines are skipped. A line with another number of fields than the header becomes a `BrokenLine`.
    """
    content = content.removeprefix(_BOM)
    check_text(content, name)
    _check_quotes(content, name)
    header = re.match(rb"[^\r\n]*", content)
    first = header.group().decode() if header else ""
    if not content.strip():
        raise DataError("it is empty", where=name, fix="check the export that wrote it")
    names = [cell.strip() for cell in next(csv.reader([first]), [])]
    if named is None:
        ignored = check_columns(names, name)
    else:
        names, ignored = rename_columns(names, named, name)
    if not content[len(first.encode()) :].strip():
        raise DataError("it has a header and no rows", where=name, fix="check the export that wrote it")
    return _cut(content, names, name, ignored, features.COLUMNS if named is None else tuple(named))


def check_text(content: bytes, name: str) -> None:
    """Refuse what is no UTF-8 text."""
    try:
        content.decode("utf-8")
        at = content.find(b"\0")
        problem = "binary data" if at >= 0 else ""
    except UnicodeDecodeError as error:
        at = error.start
        problem = "binary data" if b"\0" in content else "not UTF-8"
    if problem:
        line = content.count(b"\n", 0, at) + 1
        raise DataError(f"it is {problem} (byte {at}, line {line}), not text", where=name, fix="export it in UTF-8")


def _check_quotes(content: bytes, name: str) -> None:
    if content.count(b'"') % 2:
        line = next(n for n, text in enumerate(content.split(b"\n"), start=1) if text.count(b'"') % 2)
        raise DataError(
            "a quotation mark is opened and never closed", where=f"{name}:{line}", fix="correct the quotation marks"
        )


def _cut(content: bytes, names: list[str], name: str, ignored: tuple[str, ...], columns: tuple[str, ...]) -> SourceRows:
    broken_rows: list[tuple[int, str, int]] = []

    def keep_broken(row: Any) -> str:
        broken_rows.append((row.number, row.text, row.actual_columns))
        return "skip"

    quoted = b'"' in content
    try:
        table = pc.read_csv(
            pa.py_buffer(content),
            # One thread and one block: only then does Arrow number the rows it cannot cut. Its reading threads could
            # also outlive the read and then abort a process that ends at once (arrow#34314).
            read_options=pc.ReadOptions(
                use_threads=False, skip_rows=1, column_names=names, block_size=max(len(content), 1)
            ),
            parse_options=pc.ParseOptions(
                quote_char='"' if quoted else False,
                newlines_in_values=quoted,
                ignore_empty_lines=False,
                invalid_row_handler=keep_broken,
            ),
            convert_options=pc.ConvertOptions(
                column_types=dict.fromkeys(columns, pa.string()), include_columns=list(columns)
            ),
        )
    except pa.ArrowInvalid as error:
        raise DataError(f"it cannot be cut into rows ({error})", where=name, fix="check it in a text editor") from error
    rows = table.num_rows + len(broken_rows) + 1
    if quoted:
        _check_one_line_a_row(content, rows, name)
    broken_numbers = np.array([number for number, _, _ in broken_rows], dtype=np.int64)
    # Line 1 is the header.
    lines = np.setdiff1d(np.arange(2, rows + 1, dtype=np.int64), broken_numbers, assume_unique=True)
    keep = _not_blank(table, lines, content)
    if not keep.all():
        table, lines = table.filter(pa.array(keep)), lines[keep]
    expected = len(names)
    broken = tuple(
        BrokenLine(0, int(number), text, f"fields: {actual} where the header has {expected}")
        for number, text, actual in broken_rows
        if text.strip()
    )
    if broken and not len(lines):
        # One wrong line is the row's fault, all of them the header's.
        raise DataError(
            f"the header has {expected} fields, and no row has as many",
            where=name,
            fix="write one name a column into the first line",
        )
    return SourceRows(table, lines, np.zeros(len(lines), dtype=np.int64), (name,), broken, ignored)


def _check_one_line_a_row(content: bytes, rows: int, name: str) -> None:
    # Two stray quotation marks would otherwise swallow every row between them as one value.
    # splitlines() of bytes cuts at LF, CR and CRLF only, as Arrow does.
    if len(content.splitlines()) == rows:
        return
    reader = csv.reader(io.StringIO(content.decode(), newline=""))
    start = 1
    for _ in reader:
        if reader.line_num > start:
            break
        start = reader.line_num + 1
    raise DataError(
        "quotation marks enclose a line end; a row is one line",
        where=f"{name}:{start}",
        fix="correct the quotation marks",
    )


def _not_blank(table: Any, lines: npt.NDArray[np.int64], content: bytes) -> npt.NDArray[np.bool_]:
    """Return which rows are more than an empty line (Arrow reads an empty line as a row of empty texts)."""
    empty = np.ones(table.num_rows, dtype=bool)
    for column in table.columns:
        if not empty.any():
            break
        empty &= compute.equal(compute.binary_length(column), 0).to_numpy(zero_copy_only=False)
    if empty.any():
        texts = content.splitlines()
        # A row of separators only (",,,,") is a row: it goes to quarantine, not away.
        empty[[i for i in np.flatnonzero(empty) if texts[lines[i] - 1].strip()]] = False
    result: npt.NDArray[np.bool_] = ~empty
    return result
