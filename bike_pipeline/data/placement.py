"""Which span an upload belongs to. Spans follow each other in time: a higher number means later rows.

- Rows later than everything make a new span. Few of them go on with the newest one, where the caller says so.
- Rows whose time range overlaps one span correct it: a new version of that span, its rows merged into the latest ones.
- A span that is named takes exactly the rows of the upload: as a new span, or as a new version that replaces the rows.
- Anything else would break the order of the spans, or put one hour into two of them, and is refused.
"""

from __future__ import annotations

from collections.abc import Mapping

from bike_pipeline.data.manifest import TimeRange
from bike_pipeline.errors import DataError

HIGHEST_NUMBER = 9999


def assign_span(
    existing: Mapping[int, TimeRange], upload: TimeRange, span: int | None, where: str, *, extend_newest: bool = False
) -> tuple[int, bool]:
    """Return the span of an upload, and whether its rows are merged into the span's latest version.

    `existing` has the time range of each span's latest version; `span` is the one that was named, if any. Rows later
    than everything belong to the newest span with `extend_newest`.

    Raises:
        DataError: the upload would break the order of the spans, overlaps several spans, or the number is out of range.
    """
    if span is not None:
        return _named(existing, upload, _in_range(span, where), where), False
    touched = [other for other, its in existing.items() if its.first <= upload.last and upload.first <= its.last]
    if len(touched) > 1:
        raise DataError(
            f"its rows ({upload}) overlap the spans {', '.join(map(str, sorted(touched)))}",
            where=where,
            fix="ingest one upload for each span, or cut it to the rows that are new",
        )
    if touched:
        return touched[0], True
    later = [other for other, its in existing.items() if its.first > upload.last]
    if later:
        raise DataError(
            f"its rows ({upload}) are earlier than span {min(later)} and overlap no span",
            where=where,
            fix="name a free span number that keeps the spans in time order (--span N), or use another store",
        )
    if extend_newest and existing:
        return max(existing), True
    return _in_range(max(existing, default=0) + 1, where), False


def _named(existing: Mapping[int, TimeRange], upload: TimeRange, span: int, where: str) -> int:
    for other, its in existing.items():
        before = other < span and its.last >= upload.first
        after = other > span and its.first <= upload.last
        if before or after:
            raise DataError(
                f"as span {span} its rows ({upload}) would have to be {'later' if before else 'earlier'} "
                f"than span {other} ({its})",
                where=where,
                fix="name the span that fits the time range, or leave --span out",
            )
    return span


def _in_range(span: int, where: str) -> int:
    if not 1 <= span <= HIGHEST_NUMBER:
        raise DataError(
            f"span {span} is outside of 1 to {HIGHEST_NUMBER}",
            where=where,
            fix="name another number or use another store",
        )
    return span
