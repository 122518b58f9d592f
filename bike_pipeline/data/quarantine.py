"""The quarantine: every rejected row as it stood in its source, with its place there and all its reasons.

A quarantine file is itself a valid source: once its values are corrected it can be ingested, since the columns that say
what was wrong are not part of the feature contract.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bike_pipeline import features
from bike_pipeline.data.columns import Problem
from bike_pipeline.data.sources.source_rows import SourceRows

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

QUARANTINE_COLUMNS = ("file", "line", "reasons", "text", *features.COLUMNS)


def quarantine_table(rows: SourceRows, problems: Sequence[Problem], rejected: npt.NDArray[np.bool_]) -> pa.Table:
    """Return the quarantine of the rows that do not pass, in the source's order, broken lines among them.

    `QUARANTINE_COLUMNS`; `line` as int64, all others as texts.
    """
    import numpy as np
    import pyarrow as pa

    index = np.flatnonzero(rejected)
    reasons: dict[int, list[str]] = {int(row): [] for row in index}
    for problem in problems:
        for row in np.flatnonzero(problem.mask):
            reasons[int(row)].append(problem.describe(int(row)))
    where = np.concatenate([rows.files[index], np.array([line.file for line in rows.broken], dtype=np.int64)])
    lines = np.concatenate([rows.lines[index], np.array([line.line for line in rows.broken], dtype=np.int64)])
    columns = {
        "file": pa.array([rows.names[file] for file in where], type=pa.string()),
        "line": pa.array(lines),
        "reasons": pa.array(
            [*("; ".join(found) for found in reasons.values()), *(line.reason for line in rows.broken)], pa.string()
        ),
        "text": pa.array([*([None] * len(index)), *(line.text for line in rows.broken)], type=pa.string()),
    }
    gap = pa.nulls(len(rows.broken), type=pa.string())
    taken = rows.table.take(pa.array(index))
    for name in features.COLUMNS:
        texts = taken.column(name).cast(pa.string()).chunks
        columns[name] = pa.chunked_array([*texts, gap], type=pa.string())
    return pa.table(columns).take(pa.array(np.lexsort((lines, where))))


def quarantine_csv(table: pa.Table) -> bytes:
    """Return a quarantine as CSV (UTF-8, LF line ends, quoted where needed)."""
    import pyarrow.csv as pc

    buffer = io.BytesIO()
    buffer.write((",".join(QUARANTINE_COLUMNS) + "\n").encode())
    pc.write_csv(table, buffer, pc.WriteOptions(include_header=False))
    return buffer.getvalue()
