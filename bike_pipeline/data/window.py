"""The window of a run: the newest span and the spans before it that are read as history, each in its newest version."""

from __future__ import annotations

from typing import Any

from bike_pipeline.data.span_version import SpanVersion
from bike_pipeline.data.spans import SpanStore
from bike_pipeline.errors import DataError


def window_of(store: SpanStore, history_spans: int) -> list[SpanVersion]:
    """Return the versions that a run reads now, oldest span first: the newest span and `history_spans` before it.

    Raises:
        DataError: the store holds no span, or a manifest is damaged.
    """
    numbers = store.spans()
    if not numbers:
        raise DataError(
            "the span store is empty", where=store.uri, fix="ingest data first: `bike-pipeline data ingest FILE`"
        )
    older = numbers[:-1][-history_spans:] if history_spans else []
    return [store.latest(number) for number in (*older, numbers[-1])]


def identity_of(window: list[SpanVersion]) -> list[dict[str, Any]]:
    """Return what makes a window the same as another: span, version, content hash and rows by split of each entry."""
    return [
        {
            "span": entry.span,
            "version": entry.version,
            "content_sha256": entry.manifest.content_sha256,
            "rows": {"train": entry.manifest.rows.train, "eval": entry.manifest.rows.eval},
        }
        for entry in window
    ]
