"""Hours without labels: which of them to label next."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline import features
from bike_pipeline.errors import ConfigurationError, DataError, ModelError
from bike_pipeline.use_cases.data import span_store

if TYPE_CHECKING:
    import pyarrow as pa

    from bike_pipeline.modeling import label_suggestion
    from bike_pipeline.serving.records import Record
    from bike_pipeline.settings import Settings

# What a suggestion adds to a record; an ingest ignores them.
ADDED = ("score", "predicted_cnt", "lowest_cnt", "highest_cnt")


@dataclass(frozen=True)
class SuggestedHour:
    """An hour whose label would teach the model much.

    Attributes:
        time: its beginning, local time.
        score: how far the committee's members are apart, in units of the training loss.
        predicted_cnt: the mean of the members' rentals.
        lowest_cnt: the least that a member expects.
        highest_cnt: the most.
        record: what is known of the hour, as it was given.
    """

    time: datetime
    score: float
    predicted_cnt: float
    lowest_cnt: float
    highest_cnt: float
    record: Record


@dataclass(frozen=True)
class Suggestion:
    """Suggested hours, the most telling first.

    Attributes:
        hours: the suggestion.
        candidates: hours without a label that it was chosen from.
        labelled: rows that the committee learnt from.
        known: hours of the source that stand there twice, or have a label in the span store already.
    """

    hours: list[SuggestedHour]
    candidates: int
    labelled: int
    known: int

    def to_csv(self) -> bytes:
        """Return the records as they were given, as CSV, with what the committee says behind them."""
        text = io.StringIO()
        names = [name for name in self.hours[0].record if name not in ADDED] if self.hours else []
        writer = csv.DictWriter(text, [*names, *ADDED], extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for hour in self.hours:
            writer.writerow({**hour.record, **{name: round(getattr(hour, name), 4) for name in ADDED}})
        return text.getvalue().encode()


def suggest_labels(
    settings: Settings, source: Path | str | None = None, count: int = 24, seed: int | None = None
) -> Suggestion:
    """Return which `count` hours of a source to label first, judged by what the labelled rows leave open.

    Nothing is stored. The labelled rows are the train splits that a run would read now.

    Args:
        settings: the span store, and the section `training` for the committee's trees.
        source: a CSV (gzip too), JSON or Parquet file with a row an hour, as `predict` takes them, each with its date.
            None for the newest span, whose labels nobody looks at then: which of its hours to have counted again, say.
        count: how many are wanted, 1 at least.
        seed: of the committee; by default that of the settings.

    Raises:
        ConfigurationError: no hour is asked for.
        DataError: the source cannot be read, a row of it is wrong, or there are no labelled rows.
        MissingExtraError: the extra `labeling` is not installed.
    """
    import numpy as np

    from bike_pipeline import extras
    from bike_pipeline.data.rows import hours_of
    from bike_pipeline.data.window import choose, entries, rows_of

    extras.require("labeling", "suggesting hours to label")
    if count < 1:
        raise ConfigurationError("no hour is asked for", where="count", fix="ask for one at least")
    store = span_store(settings)
    window, begin = choose(store, settings.data.window.spans, settings.data.window.days)
    spans = [rows_of(store, entry, ("train",)) for entry in entries(store, window, begin)]
    records: Sequence[Record]
    if source is None:
        where, records = window[-1].uri, spans.pop().drop_columns(list(features.LABELS)).to_pylist()
        if not spans:
            raise DataError(
                "a run reads no span before the newest one, so there is nothing to learn from",
                where=store.uri,
                fix="name a file with the hours to choose from, ingest an earlier span, or let data.window hold more",
            )
    else:
        where, records = str(source), _read(Path(source))
    hours, candidates = _checked(records, where, spans)
    known = np.concatenate([hours_of(table) for table in spans])
    first = np.unique(hours, return_index=True)[1]
    unlabelled = first[~np.isin(hours[first], known)]
    if not len(unlabelled):
        return Suggestion([], 0, len(known), len(hours))
    found = _suggested(settings, spans, candidates.take(unlabelled), count, settings.seed if seed is None else seed)
    suggested = [
        SuggestedHour(
            datetime(1970, 1, 1) + timedelta(hours=int(hours[unlabelled[place]])),
            float(found.score[place]),
            float(found.rentals[:, place].mean()),
            float(found.rentals[:, place].min()),
            float(found.rentals[:, place].max()),
            records[unlabelled[place]],
        )
        for place in found.chosen
    ]
    return Suggestion(suggested, len(unlabelled), len(known), len(hours) - len(unlabelled))


def _read(path: Path) -> Sequence[Record]:
    from bike_pipeline.data.sources.content import PARQUET, records_from_parquet, text_of
    from bike_pipeline.serving.records import parse
    from bike_pipeline.storage.atomic_files import one_error

    where = str(path)
    if not path.is_file():
        raise DataError("no such file", where=where, fix="check the path")
    with one_error("read", path):
        content = path.read_bytes()
    if content.startswith(PARQUET):
        return records_from_parquet(content, where)
    with _wrong_data():
        return parse(text_of(content, where), where)


def _checked(records: Sequence[Record], where: str, spans: Sequence[pa.Table]) -> tuple[Any, pa.Table]:
    """Return the time of each record in hours, (records,), and the model's inputs, with the weather before each."""
    import numpy as np
    import pyarrow as pa

    from bike_pipeline.data import past_weather
    from bike_pipeline.serving.records import hours_of, to_columns

    with _wrong_data():
        hours, columns = hours_of(records, where), to_columns(records, where)
    days = pa.array((hours // 24).astype(np.int32)).cast(pa.date32())
    table = pa.table({features.DATE: days, **{f.name: columns[f.name] for f in features.REQUIRED_INPUTS}})
    return hours, past_weather.with_optional_inputs(table, *spans)


@contextmanager
def _wrong_data() -> Iterator[None]:
    """Tell what is wrong with a record as an error of the data, since no model was asked."""
    try:
        yield
    except ModelError as error:
        raise DataError(error.what, where=error.where, fix=error.fix) from None


def _suggested(
    settings: Settings, spans: Sequence[pa.Table], candidates: pa.Table, count: int, seed: int
) -> label_suggestion.Suggestion:
    import pyarrow as pa

    from bike_pipeline.data import past_weather
    from bike_pipeline.lean_imports import lean_imports

    with lean_imports(google_cloud=True):
        from bike_pipeline.modeling import label_suggestion, rows

    labelled = pa.concat_tables(past_weather.with_optional_inputs(table, *spans) for table in spans)
    names = [feature.name for feature in features.MODEL_INPUTS]
    return label_suggestion.suggest(
        rows.of_table(labelled, (*names, *features.LABELS)),
        rows.of_table(candidates, names),
        count,
        settings.training.model_dump(mode="json"),
        seed,
    )
