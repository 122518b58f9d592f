"""From a source to a version of a span: read, check, refuse or add."""

from __future__ import annotations

from dataclasses import dataclass

from bike_pipeline.data.contract import CheckedRows, check_rows
from bike_pipeline.data.sources.registry import read_source
from bike_pipeline.data.span_version import SpanVersion
from bike_pipeline.data.spans import SpanStore
from bike_pipeline.errors import DataError
from bike_pipeline.settings import Settings

_MOST_NAMED = 5


@dataclass(frozen=True)
class IngestResult:
    """The outcome of an ingest.

    Attributes:
        version: the version of a span that holds the rows.
        created: whether it is new; False if the same rows were there already.
        rejected: rows of this upload that broke the contract.
        notes: what the user should know.
    """

    version: SpanVersion
    created: bool
    rejected: int
    notes: tuple[str, ...]


def ingest(settings: Settings, source: str, *, query: str | None = None, span: int | None = None) -> IngestResult:
    """Read a source, check its rows, and add what passed to the span store as a new version.

    An upload is held in memory as a whole, about 600 bytes a row at its peak.

    Args:
        settings: `data` and the store's place are used.
        source: file, folder or address; see `sources/registry.py`.
        query: the SQL text, for databases.
        span: the span that the rows are; without it the time range decides.

    Raises:
        DataError: the source cannot be read, too many of its rows break the contract, or they fit into no span.
        BusyError: another ingest is at work.
        StorageError: something cannot be read or written; the store is as it was.
    """
    store = SpanStore(settings.store_uri)
    rows, origin = read_source(source, query=query)
    checked = check_rows(rows)
    share = checked.rejected.num_rows / checked.total
    if share > settings.data.max_rejected_fraction or not checked.accepted.num_rows:
        kept = store.keep_refused(checked)
        limit = settings.data.max_rejected_fraction
        raise DataError(
            f"{checked.rejected.num_rows:,} of {checked.total:,} rows ({share:.1%}) break the feature contract "
            f"(data.max_rejected_fraction allows {limit:.1%}); {_most_frequent(checked)}",
            where=origin.location,
            fix=f"see the reasons in {kept}; nothing was ingested",
        )
    data = settings.data
    added = store.add(checked, origin, eval_fraction=data.eval_fraction, data_format=data.format, span=span)
    notes = list(added.notes)
    if rows.ignored:
        ignored = [name.strip() or "one without a name" for name in rows.ignored]
        notes.append(f"columns not in the feature contract were ignored: {', '.join(ignored)}")
    if rows.skipped:
        more = f" and {len(rows.skipped) - _MOST_NAMED} more" if len(rows.skipped) > _MOST_NAMED else ""
        notes.append(f"not read, being no CSV or Parquet file: {', '.join(rows.skipped[:_MOST_NAMED])}{more}")
    return IngestResult(added.version, added.created, checked.rejected.num_rows, tuple(notes))


def _most_frequent(checked: CheckedRows) -> str:
    kinds = sorted(checked.reasons.items(), key=lambda item: -item[1])
    first = checked.rejected.column("reasons")[0].as_py()
    line = checked.rejected.column("line")[0].as_py()
    counts = ", ".join(f"{kind} {count:,}" for kind, count in kinds)
    return f"by kind: {counts}; the first, line {line}: {first}"
