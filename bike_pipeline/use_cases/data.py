"""Rows: bring them in, list their versions, check them, withdraw them, hand them to DVC."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bike_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bike_pipeline.data.manifest import IngestResult, SpanVersion
    from bike_pipeline.data.spans import SpanStore
    from bike_pipeline.data.withdrawal import Withdrawal
    from bike_pipeline.settings import Settings


def span_store(settings: Settings) -> SpanStore:
    """Return the span store of the settings."""
    from bike_pipeline.data.spans import SpanStore

    return SpanStore(settings.store_uri)


def ingest(
    settings: Settings,
    source: Path | str,
    query: str | None = None,
    span: int | None = None,
    mapping: str | None = None,
    weather: Path | str | None = None,
    least_rows: int = 0,
    before_write: Callable[[], None] = lambda: None,
) -> IngestResult:
    """Check the rows of a source, store them as a version of a span, and write that for DVC if the settings say so.

    The source is a CSV or Parquet file (plain or gzip), a folder of such files, or an address: http(s), a database
    (sqlite:///rides.db, with an SQL query), Feast (feast://) or object storage (s3://, gs://, …). Which span the rows
    are, their time range decides if none is named. `mapping` names a profile that says what a file of another form
    means (docs/data.md), by default that of the settings, "" for none; `weather` is the second source that some need.
    `least_rows`, and `before_write`, which raises where the caller may not write any more: see `SpanStore.add`.

    Raises:
        DataError: the source cannot be read, too many of its rows break the contract, or they fit into no span.
    """
    from bike_pipeline.data import ingest as reading
    from bike_pipeline.tracking.hooks import after_ingest

    result = reading.ingest(
        settings,
        str(source),
        query=query,
        span=span,
        mapping=mapping,
        weather=None if weather is None else str(weather),
        least_rows=least_rows,
        before_write=before_write,
    )
    note = after_ingest(settings, span_store(settings), result.version.span, result.version.version)
    return replace(result, notes=(*result.notes, note)) if note else result


def fill_feast(settings: Settings, address: str, days: int = 2) -> int:
    """Write the optional inputs of the newest span's last days, and of the hour after them, to Feast's online store.

    The address is feast://REPOSITORY/VIEW; the view's one join key is the hour, such as "2012-12-31T23". Returns how
    many hours were written.

    Raises:
        DataError: there is no span, no such feature view, or one that has other features.
        MissingExtraError: there is no environment with Feast.
    """
    import numpy as np
    import pyarrow as pa

    from bike_pipeline.data.past_weather import COLUMNS, optional_inputs
    from bike_pipeline.data.rows import hours_of
    from bike_pipeline.data.sources.feast_repository import write_online
    from bike_pipeline.data.window import choose

    store = span_store(settings)
    # With the span before, as a run makes them: a span may be shorter than what they look back on.
    rows = pa.concat_tables(store.read(found.span, found.version) for found in choose(store, 2, None)[0])
    known = hours_of(rows)
    # An hour's inputs are of the hours before it, so its own weather, not known yet, may be anything.
    hours = np.append(known, known[-1] + 1)
    weather = {name: np.append(rows.column(name).to_numpy(), 0) for name in COLUMNS}
    recent = hours > hours[-1] - 24 * days
    moments = hours[recent].astype("datetime64[h]")
    inputs = {name: values[recent] for name, values in optional_inputs(hours, weather).items()}
    table = {"hour": moments.astype(str), "event_timestamp": moments.astype("datetime64[us]"), **inputs}
    write_online(address, pa.table(table))
    return len(moments)


def versions(settings: Settings, *, withdrawn: bool = False) -> list[SpanVersion]:
    """Return every version of every span, rising, on demand also those that were withdrawn."""
    return span_store(settings).all_versions(withdrawn=withdrawn)


def withdraw(settings: Settings, span: int, version: int, reason: str) -> Withdrawal:
    """Let a version count no longer: no run reads it, and its rows stand in the way of no upload; say why.

    It stays where it is, readable for lineage and `reproduce`, and its number is never given again. A version that is
    withdrawn already keeps its first reason.

    Raises:
        DataError: there is no such version, or the one before it, which counts again, overlaps another span.
    """
    from bike_pipeline.tracking.hooks import after_withdrawal

    store = span_store(settings)
    record = store.withdraw(span, version, reason)
    after_withdrawal(settings, store.get(span, version))
    return record


def restore(settings: Settings, span: int, version: int) -> SpanVersion:
    """Let a version that was withdrawn count again; a DataError if it is not withdrawn or overlaps another span."""
    from bike_pipeline.tracking.hooks import after_ingest

    store = span_store(settings)
    found = store.restore(span, version)
    after_ingest(settings, store, span, version)
    return found


def withdrawals(settings: Settings) -> list[Withdrawal]:
    """Return which versions are withdrawn, when and why, rising."""
    store = span_store(settings)
    found = (store.withdrawal(one.span, one.version) for one in store.all_versions(withdrawn=True))
    return [record for record in found if record is not None]


def verify(settings: Settings, span: int | None = None, version: int | None = None) -> list[SpanVersion]:
    """Check every file of the stored versions, of one span or of one version, and return what passed.

    Versions that were withdrawn are checked as well: lineage rests on them.
    """
    if version is not None and span is None:
        raise ConfigurationError("a version is one of a span", where="version", fix="name the span, too")
    store = span_store(settings)
    if span is not None and version is not None:
        return [store.verify(span, version)]
    if span is None:
        store.check_whole()
    wanted = [found for found in store.all_versions(withdrawn=True) if span in (None, found.span)]
    if not wanted:
        store.latest(span)  # says that there is nothing to verify
    return [store.verify(found.span, found.version) for found in wanted]
