"""Rows: bring them in, list their versions, check them, hand them to DVC."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bike_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from bike_pipeline.data.manifest import IngestResult, SpanVersion
    from bike_pipeline.data.spans import SpanStore
    from bike_pipeline.settings import Settings


def span_store(settings: Settings) -> SpanStore:
    """Return the span store of the settings."""
    from bike_pipeline.data.spans import SpanStore

    return SpanStore(settings.store_uri)


def ingest(settings: Settings, source: Path | str, query: str | None = None, span: int | None = None) -> IngestResult:
    """Check the rows of a source, store them as a version of a span, and write that for DVC if the settings say so.

    The source is a CSV or Parquet file (plain or gzip), a folder of such files, or an address: http(s), a database
    (sqlite:///rides.db, with an SQL query) or object storage (s3://, gs://, …). Which span the rows are, their time
    range decides if none is named.

    Raises:
        DataError: the source cannot be read, too many of its rows break the contract, or they fit into no span.
    """
    from bike_pipeline.data import ingest as reading
    from bike_pipeline.tracking.hooks import after_ingest

    result = reading.ingest(settings, str(source), query=query, span=span)
    note = after_ingest(settings, span_store(settings), result.version.span, result.version.version)
    return replace(result, notes=(*result.notes, note)) if note else result


def versions(settings: Settings) -> list[SpanVersion]:
    """Return every version of every span, rising."""
    return span_store(settings).all_versions()


def verify(settings: Settings, span: int | None = None, version: int | None = None) -> list[SpanVersion]:
    """Check every file of the stored versions, of one span or of one version, and return what passed."""
    if version is not None and span is None:
        raise ConfigurationError("a version is one of a span", where="version", fix="name the span, too")
    store = span_store(settings)
    if span is None:
        store.check_whole()
        store.latest()  # says if there is nothing to verify
    spans = store.spans() if span is None else [store.latest(span).span]
    wanted = [(s, v) for s in spans for v in ([version] if version is not None else store.versions(s))]
    return [store.verify(*numbers) for numbers in wanted]
