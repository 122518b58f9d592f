"""What an ingest of requests and labels came to, and how new what is known is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True)
class Added:
    """What an ingest of the request log came to.

    Attributes:
        files: files that were read; those that did not change since are not.
        lines: lines in them.
        rows: rows that were not known.
        known: rows that were.
        failures: requests that were answered with an error, of all lines.
        without_day: rows of `rows` that no label can be joined to, since the client sent no day.
        other: lines that are no observation, by what they are.
        set_aside: bad lines by reason.
        set_aside_in: the file that names them; "" if there are none.
    """

    files: int = 0
    lines: int = 0
    rows: int = 0
    known: int = 0
    failures: int = 0
    without_day: int = 0
    other: Mapping[str, int] = field(default_factory=dict)
    set_aside: Mapping[str, int] = field(default_factory=dict)
    set_aside_in: str = ""


@dataclass(frozen=True)
class Joined:
    """What became of labels: how many were not known, correct what was known, or were known already."""

    new: int = 0
    corrected: int = 0
    known: int = 0


@dataclass(frozen=True)
class Freshness:
    """How new what is known is.

    Attributes:
        ingested_at: when the log was read last, UTC; None if never.
        requested_at: when the newest request came, UTC.
        labelled_hour: the newest hour with a label, as of `modeling.feedback.hours_of`.
    """

    ingested_at: datetime | None
    requested_at: datetime | None
    labelled_hour: int | None
