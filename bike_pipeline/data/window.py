"""Which rows a run reads: those of the newest spans, and of them the last days, as `data.window` says.

The newest span gives the eval split, which is never cut; what comes before it is trained on. Rows before the first day
of the window stay in the store and are left out where examples are made, so that another window takes no new ingest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from bike_pipeline.data.manifest import SPLITS, SpanVersion, Split
from bike_pipeline.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

    from bike_pipeline.data.spans import SpanStore


def choose(store: SpanStore, spans: int | None, days: int | None) -> tuple[list[SpanVersion], datetime | None]:
    """Return the newest versions of the spans in the window, rising, and its first hour; None if no row is left out.

    `spans` counts the newest span, `days` ends with its last day; None for all.

    Raises:
        DataError: the store is empty, or the days are all of the eval split, so that none is left to train on.
    """
    newest = store.latest()
    chosen = [store.latest(number) for number in store.spans()[-(spans or 0) :]]
    if days is None:
        return chosen, None
    begin = datetime.combine(newest.hours.last.date() - timedelta(days=days - 1), time())
    evaluated = newest.manifest.time_range["eval"].first
    if begin >= evaluated:
        own = (newest.hours.last.date() - evaluated.date()).days + 1
        raise DataError(
            f"a window of {days} days holds nothing to train on: the last {own} days of span {newest.span} are its "
            "eval split",
            where=store.uri,
            fix=f"set data.window.days to more than {own}",
        )
    chosen = [found for found in chosen if found.hours.last >= begin]
    return chosen, begin if chosen[0].hours.first < begin else None


def entries(store: SpanStore, chosen: Sequence[SpanVersion], begin: datetime | None) -> list[dict[str, Any]]:
    """Return what identifies the rows of a window, a version each: a cut one has `from` and the rows that are left."""
    found = [version.identity for version in chosen]
    if begin is not None:
        found[0]["from"] = begin.isoformat()
        found[0]["rows"] = {split: rows_of(store, found[0], (split,)).num_rows for split in SPLITS}
    return found


def rows_of(store: SpanStore, entry: Mapping[str, Any], splits: Sequence[Split] = SPLITS) -> pa.Table:
    """Return the rows of an entry of a window, in time order; every file is checked against its SHA-256."""
    return cut(store.read(int(entry["span"]), int(entry["version"]), splits), str(entry.get("from", "")))


def cut(rows: pa.Table, begin: str) -> pa.Table:
    """Return the rows from an hour on, in ISO 8601; all for ""."""
    import numpy as np
    import pyarrow as pa

    from bike_pipeline.data.rows import hours_of

    if not begin:
        return rows
    return rows.filter(pa.array(hours_of(rows) >= np.datetime64(begin, "h").astype(np.int64)))
