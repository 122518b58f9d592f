"""Which span an upload belongs to. Spans follow each other in time: a higher number means later rows.

- Rows later than everything make a new span.
- Rows whose time range overlaps one span correct it: a new version of that span, its rows merged into the latest ones.
- A span that is named takes exactly the rows of the upload: as a new span, or as a new version that replaces the rows.
- Anything else would break the order of the spans, or put one hour into two of them, and is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from bike_pipeline.errors import DataError

HIGHEST_NUMBER = 9999


@dataclass(frozen=True)
class SpanRange:
    """The time range of a span's latest version, first and last hour inclusive."""

    span: int
    first: datetime
    last: datetime


@dataclass(frozen=True)
class Placement:
    """The span of an upload, and whether its rows are merged into the span's latest version or stand for themselves."""

    span: int
    merges: bool


def assign_span(
    existing: Sequence[SpanRange], first: datetime, last: datetime, span: int | None, where: str
) -> Placement:
    """Return the span of an upload from `first` to `last`; `span` is the one that was named, if any.

    Raises:
        DataError: the upload would break the order of the spans, overlaps several spans, or the number is out of range.
    """
    if span is not None:
        return _named(existing, first, last, span, where)
    touched = [other.span for other in existing if other.first <= last and first <= other.last]
    if len(touched) > 1:
        raise DataError(
            f"its rows ({_period(first, last)}) overlap the spans {', '.join(map(str, sorted(touched)))}",
            where=where,
            fix="ingest one upload for each span, or cut it to the rows that are new",
        )
    if touched:
        return Placement(touched[0], merges=True)
    later = [other.span for other in existing if other.first > last]
    if later:
        raise DataError(
            f"its rows ({_period(first, last)}) are earlier than span {min(later)} and overlap no span",
            where=where,
            fix="name a free span number that keeps the spans in time order (--span N), or use another store",
        )
    number = max((other.span for other in existing), default=0) + 1
    _check_number(number, where)
    return Placement(number, merges=False)


def _named(existing: Sequence[SpanRange], first: datetime, last: datetime, span: int, where: str) -> Placement:
    _check_number(span, where)
    for other in existing:
        before = other.span < span and other.last >= first
        after = other.span > span and other.first <= last
        if before or after:
            raise DataError(
                f"as span {span} its rows ({_period(first, last)}) would have to be {'later' if before else 'earlier'} "
                f"than span {other.span} ({_period(other.first, other.last)})",
                where=where,
                fix="name the span that fits the time range, or leave --span out",
            )
    return Placement(span, merges=False)


def _check_number(span: int, where: str) -> None:
    if not 1 <= span <= HIGHEST_NUMBER:
        raise DataError(
            f"span {span} is outside of 1 to {HIGHEST_NUMBER}",
            where=where,
            fix="name another number or use another store",
        )


def _period(first: datetime, last: datetime) -> str:
    return f"{first:%Y-%m-%d %H:00} to {last:%Y-%m-%d %H:00}"
