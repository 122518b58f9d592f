"""From a source to a version of a span: read, check, refuse or add."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bike_pipeline.data.contract import CheckedRows, check_rows
from bike_pipeline.data.manifest import IngestResult
from bike_pipeline.data.mapped_rows import read_mapped
from bike_pipeline.data.sources.registry import read_source
from bike_pipeline.data.sources.source_rows import MAP
from bike_pipeline.data.spans import SpanStore
from bike_pipeline.errors import DataError
from bike_pipeline.settings import Settings

_MOST_NAMED = 5


def ingest(
    settings: Settings,
    source: str,
    *,
    query: str | None = None,
    span: int | None = None,
    mapping: str | None = None,
    weather: str | None = None,
    least_rows: int = 0,
    before_write: Callable[[], None] = lambda: None,
) -> IngestResult:
    """Read a source, check its rows, and add what passed to the span store as a new version.

    An upload is held in memory as a whole, about 600 bytes a row at its peak; arguments: `use_cases.data.ingest`.

    Raises:
        DataError: the source cannot be read, too many of its rows break the contract, or they fit into no span.
        StorageError: something cannot be read or written; the store is as it was.
    """
    store = SpanStore(settings.store_uri)
    mapping = settings.data.mapping if mapping is None else mapping
    said: tuple[str, ...] = ()
    if mapping:
        if query is not None:
            raise DataError("a mapping reads files, not databases", where=mapping, fix="name the columns in the query")
        rows, origin, said = read_mapped(mapping, source, weather)
    elif weather is not None:
        raise DataError("weather goes with a mapping", where=weather, fix="name the mapping: --map NAME")
    else:
        rows, origin = read_source(source, query=query)
    unknown = [name.strip() or "one without a name" for name in rows.ignored]
    if unknown and not mapping and settings.data.extra_columns == "refuse":
        problem = f"it has columns that are not in the feature contract: {', '.join(unknown)}"
        raise DataError(problem, where=origin.location, fix=f"leave them out, or say what the source means. {MAP}")
    checked = check_rows(rows)
    share, data = checked.rejected.num_rows / checked.total, settings.data
    if share > data.max_rejected_fraction or not checked.accepted.num_rows:
        kept = store.keep_refused(checked)
        raise DataError(
            f"{checked.rejected.num_rows:,} of {checked.total:,} rows ({share:.1%}) break the feature contract "
            f"(data.max_rejected_fraction allows {data.max_rejected_fraction:.1%}); {_most_frequent(checked)}",
            where=origin.location,
            fix=f"see the reasons in {kept}; nothing was ingested{'' if mapping else f'. {MAP}'}",
        )
    added = store.add(
        checked,
        origin,
        eval_fraction=data.eval_fraction,
        data_format=data.format,
        span=span,
        least_rows=least_rows,
        before_write=before_write,
    )
    notes = [*added.notes, *said]
    if unknown:
        notes.append(f"columns not in the feature contract were ignored: {', '.join(unknown)}")
    if rows.skipped:
        more = f" and {len(rows.skipped) - _MOST_NAMED} more" if len(rows.skipped) > _MOST_NAMED else ""
        notes.append(f"not read, being no CSV or Parquet file: {', '.join(rows.skipped[:_MOST_NAMED])}{more}")
    return replace(added, notes=tuple(notes))


def _most_frequent(checked: CheckedRows) -> str:
    kinds = sorted(checked.reasons.items(), key=lambda item: -item[1])
    counts = ", ".join(f"{kind} {count:,}" for kind, count in kinds)
    (first,) = checked.rejected.slice(0, 1).to_pylist()
    return f"by kind: {counts}; the first, line {first['line']}: {first['reasons']}"
