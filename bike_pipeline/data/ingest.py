"""From a source to a version of a span: read, check, refuse or add."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from bike_pipeline.data.contract import CheckedRows, check_rows
from bike_pipeline.data.manifest import Manifest
from bike_pipeline.data.sources.registry import read_source
from bike_pipeline.data.spans import SpanStore
from bike_pipeline.errors import DataError
from bike_pipeline.settings import Settings

_MOST_NAMED = 5


@dataclass(frozen=True)
class IngestResult:
    """The outcome of an ingest.

    Attributes:
        span: the span that holds the rows.
        version: its version.
        created: whether the version is new; False where the same rows were there already.
        rows: rows of the version.
        rejected: rows of this upload that broke the contract.
        train_rows: rows of the train split.
        eval_rows: rows of the eval split.
        first: first hour of the version, local time.
        last: last hour of the version, local time.
        quarantine: path or address of the quarantine file of the version; None where no row was rejected.
        uri: path or address of the version.
        manifest: the manifest of the version.
        notes: what the user should know.
    """

    span: int
    version: int
    created: bool
    rows: int
    rejected: int
    train_rows: int
    eval_rows: int
    first: datetime
    last: datetime
    quarantine: str | None
    uri: str
    manifest: Manifest
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
        MissingExtraError: what reads this kind of address is not installed.
        BusyError: another ingest is at work.
        StorageError: something cannot be read or written; the store is as it was.
    """
    store = SpanStore(settings.store_uri)
    rows, description = read_source(source, query=query)
    checked = check_rows(rows)
    share = checked.rejected.num_rows / checked.total
    if share > settings.data.max_rejected_fraction or not checked.accepted.num_rows:
        kept = store.keep_refused(checked)
        limit = settings.data.max_rejected_fraction
        raise DataError(
            f"{checked.rejected.num_rows:,} of {checked.total:,} rows ({share:.1%}) break the feature contract "
            f"(data.max_rejected_fraction allows {limit:.1%}); {_most_frequent(checked)}",
            where=description.location,
            fix=f"see the reasons in {kept}; nothing was ingested",
        )
    data = settings.data
    added = store.add(checked, description, eval_fraction=data.eval_fraction, data_format=data.format, span=span)
    manifest = added.version.manifest
    notes = added.notes
    if description.ignored_columns:
        ignored = [name.strip() or "one without a name" for name in description.ignored_columns]
        notes = (*notes, f"columns not in the feature contract were ignored: {', '.join(ignored)}")
    if left := description.left_alone:
        more = f" and {len(left) - _MOST_NAMED} more" if len(left) > _MOST_NAMED else ""
        notes = (*notes, f"not read, being no CSV or Parquet file: {', '.join(left[:_MOST_NAMED])}{more}")
    return IngestResult(
        span=added.version.span,
        version=added.version.version,
        created=added.created,
        rows=manifest.rows.total,
        rejected=checked.rejected.num_rows,
        train_rows=manifest.rows.train,
        eval_rows=manifest.rows.eval,
        first=manifest.first,
        last=manifest.last,
        quarantine=added.version.quarantine,
        uri=added.version.uri,
        manifest=manifest,
        notes=notes,
    )


def _most_frequent(checked: CheckedRows) -> str:
    kinds = sorted(checked.reasons.items(), key=lambda item: -item[1])
    first = checked.rejected.column("reasons")[0].as_py()
    line = checked.rejected.column("line")[0].as_py()
    said = ", ".join(f"{kind} {count:,}" for kind, count in kinds)
    return f"by kind: {said}; the first, line {line}: {first}"
