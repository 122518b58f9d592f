"""Watching the model that serves: what it was asked and answered, and the labels that came later."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from bike_pipeline.monitoring.ingested import Added, Freshness, Joined
    from bike_pipeline.monitoring.observations import ObservationStore
    from bike_pipeline.settings import Settings


@dataclass(frozen=True)
class Ingested:
    """What an ingest came to, and what is known after it.

    Attributes:
        log: the folder of the request log.
        requests: what came of the log.
        labels: what came of the labels.
        hours: hours that were asked about, by their state: predicted, waiting, known, corrected.
        freshness: how new what is known is.
    """

    log: str
    requests: Added
    labels: Joined
    hours: dict[str, int]
    freshness: Freshness


def observation_store(settings: Settings) -> ObservationStore:
    """Return what the monitor knows of requests and labels."""
    from bike_pipeline.monitoring.observations import ObservationStore

    return ObservationStore(settings.monitoring_path / "observations")


def ingest(settings: Settings, labels: Path | str | None = None, query: str | None = None) -> Ingested:
    """Take the request log in, and join labels on the hour: those of the span store, then those of a source.

    Whatever is known already changes nothing, another label of a known hour corrects it. Bad lines of the log are
    counted by reason and set aside with their place.

    Args:
        settings: the settings.
        labels: a source of rows as of `use_cases.data.ingest`, in any order; None for none.
        query: the SQL query, if it is a database.

    Raises:
        DataError: a label breaks the feature contract, an hour stands there with two, or the store is damaged.
        StorageError: something cannot be read or written.
        BusyError: another process adds to the store.
    """
    import numpy as np

    store, now = observation_store(settings), datetime.now(UTC)
    # Labels that cannot be read are told before anything is changed.
    upload = _labels_of(labels, query, now) if labels is not None else None
    requests = store.add(settings.request_log_path, settings.serving.model_name, now)
    joined = [_join_spans(settings, store)]
    if upload is not None:
        joined.append(store.join_labels(*_hours_and_labels(upload)))
    states, counts = np.unique(store.hours(now=now)["state"], return_counts=True)
    hours = dict.fromkeys(("predicted", "waiting", "known", "corrected"), 0)
    hours |= {str(state): int(count) for state, count in zip(states, counts, strict=True)}
    total = type(joined[0])(*map(sum, zip(*map(astuple, joined), strict=True)))
    return Ingested(str(settings.request_log_path), requests, total, hours, store.freshness())


def _labels_of(source: Path | str, query: str | None, now: datetime) -> pa.Table:
    from bike_pipeline.data.labels import read_labels

    return read_labels(str(source), query, now.replace(tzinfo=None))[0]


def _join_spans(settings: Settings, store: ObservationStore) -> Joined:
    """Join the labels of the newest version of each span that was not joined yet."""
    import pyarrow as pa

    from bike_pipeline.data.spans import SpanStore
    from bike_pipeline.monitoring.ingested import Joined

    spans = SpanStore(settings.store_uri)
    newest = {str(span): spans.versions(span)[-1] for span in spans.spans()}
    wanted = {span: version for span, version in newest.items() if store.spans.get(span) != version}
    if not wanted:
        return Joined()
    rows = pa.concat_tables(spans.read(int(span), version) for span, version in wanted.items())
    return store.join_labels(*_hours_and_labels(rows), wanted)


def _hours_and_labels(rows: pa.Table) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the hours of rows of the span store, rising and each once, and the labels, of an hour the last."""
    import numpy as np

    from bike_pipeline import features
    from bike_pipeline.data.rows import hours_of
    from bike_pipeline.modeling.feedback import FIRST_DAY, HOURS_A_DAY

    hours = hours_of(rows) - int(FIRST_DAY.astype("datetime64[D]").astype(int)) * HOURS_A_DAY
    times, last = np.unique(hours[::-1], return_index=True)
    labels = rows.column(features.LABEL).to_numpy().astype(np.float64)
    return times, labels[::-1][last]
