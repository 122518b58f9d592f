"""The sums that every metric is made of, by slice and model, of one file of examples.

Predictions come through the served signature, in batches; slices are taken by counting and not a row at a time. The
sums of a file depend on nothing but the file and the models, so files may be measured anywhere and in any order. They
are kept by day as well: whole weeks of them are what a change against the baseline is resampled from.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from bike_pipeline import features
from bike_pipeline.errors import DataError, first_words
from bike_pipeline.modeling import metrics, saved_model, slices
from bike_pipeline.modeling.naive_baseline import NaiveBaseline
from bike_pipeline.modeling.rows import damaged
from bike_pipeline.modeling.slices import OVERALL, SLICING_COLUMNS, SLICINGS
from bike_pipeline.storage.files import plain_folder

# Rows that are predicted at once: what bounds the memory.
ROWS_PER_BATCH = 16_384
COLUMNS = tuple(dict.fromkeys((features.LABEL, *SLICING_COLUMNS.values())))

# (slicing, value); the value is None overall.
SliceKey = tuple[str, int | None]
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Job:
    """One file of examples (gzipped TFRecords) to measure.

    Attributes:
        models: folder of each model's SavedModel by its name.
        naive_baseline: folder of the SavedModel that carries the naive baseline.
    """

    path: str
    models: tuple[tuple[str, str], ...]
    naive_baseline: str


@dataclass
class Measured:
    """Sums over rows.

    Attributes:
        sums: by slice and model the six sums of `metrics.FORMULAS`.
        naive_errors: Σ|naive prediction − y| over all rows, in rentals, by the names of `NaiveBaseline.tables`.
        days: the days of the rows, rising, in days since 1970-01-01; shape (days,).
        by_day: by slice and model the six sums of each of `days`; shape (days, 6).
    """

    sums: dict[tuple[SliceKey, str], metrics.Sums]
    naive_errors: dict[str, float] = field(default_factory=dict)
    days: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    by_day: dict[tuple[SliceKey, str], Array] = field(default_factory=dict)

    def add(self, other: Measured) -> None:
        """Add the sums of other rows."""
        for key, values in other.sums.items():
            self.sums[key] = self.sums[key] + values if key in self.sums else values
        for name, error in other.naive_errors.items():
            self.naive_errors[name] = self.naive_errors.get(name, 0.0) + error
        days = np.union1d(self.days, other.days)
        merged = {key: np.zeros((len(days), 6)) for key in {**self.by_day, **other.by_day}}
        for part in (self, other):
            place = np.searchsorted(days, part.days)
            for key, values in part.by_day.items():
                merged[key][place] += values
        self.days, self.by_day = days, merged

    @property
    def naive_maes(self) -> dict[str, float]:
        """The MAE of each naive baseline over all rows, in rentals, by its name."""
        return {name: error / self.rows for name, error in self.naive_errors.items()}

    @property
    def naive_mae(self) -> float:
        """The MAE of the naive baseline that fits the rows best; NaN where one is no number or there is none."""
        return float(np.min(list(self.naive_maes.values()) or [np.nan]))

    @property
    def rows(self) -> int:
        """How many rows were measured."""
        return int(max((values[0] for (key, _), values in self.sums.items() if key[0] == OVERALL), default=0))


def total(parts: Iterable[Measured]) -> Measured:
    """Return the sums of all parts, added up in their order."""
    whole = Measured({})
    for part in parts:
        whole.add(part)
    return whole


def measure(job: Job) -> Measured:
    """Return the sums of one file; DataError if it is damaged, or a row lacks one of `COLUMNS`."""
    naive = _naive_baseline(job.naive_baseline)
    found = Measured({})
    for records, columns in _batches(job.path):
        predictions = {name: _predict(path, records) for name, path in job.models}
        found.add(sums_of_batch(columns, predictions, naive, columns[features.DATE]))
    return found


def sums_of_batch(
    columns: Mapping[str, Array], predictions: Mapping[str, Array], naive: NaiveBaseline, dates: Array | None = None
) -> Measured:
    """Return the sums of rows: `columns` holds the label and `SLICING_COLUMNS`, `predictions` rentals by model.

    With `dates`, datetime64[D] of shape (rows,), there are the sums by day as well.
    """
    label = np.asarray(columns[features.LABEL], np.float64)
    terms = {name: metrics.terms_of(label, prediction) for name, prediction in predictions.items()}
    found = Measured({}, naive.errors(columns[features.HOUR], columns["workingday"], label))
    days, day = slices.distinct(np.zeros(len(label), np.int64) if dates is None else dates.astype(np.int64))
    if dates is not None:
        found.days = days
    for slicing in (OVERALL, *SLICINGS):
        values = np.zeros(len(label), np.int64) if slicing == OVERALL else slices.values_of(columns, slicing)
        present, place = slices.distinct(values)
        cell = place * len(days) + day
        for name, rows in terms.items():
            counted = [np.bincount(cell, term, len(present) * len(days)) for term in rows]
            table = np.stack(counted, axis=1).reshape(len(present), len(days), len(rows))
            for value, by_day in zip(present, table, strict=True):
                key = ((slicing, None if slicing == OVERALL else int(value)), name)
                found.sums[key] = by_day.sum(axis=0)
                if dates is not None:
                    found.by_day[key] = by_day
    return found


def _batches(path: str) -> Iterator[tuple[Any, dict[str, Array]]]:
    """Yield the serialized examples of a file, a string tensor of shape (batch,), with the columns and the date."""
    import tensorflow as tf

    spec = {name: tf.io.FixedLenFeature([], tf.int64) for name in COLUMNS}
    spec[features.DATE] = tf.io.FixedLenFeature([], tf.string)
    try:
        for records in tf.data.TFRecordDataset(path, "GZIP").batch(ROWS_PER_BATCH):
            columns = {name: tensor.numpy() for name, tensor in tf.io.parse_example(records, spec).items()}
            yield records, {**columns, features.DATE: _dates(columns[features.DATE], path)}
    except tf.errors.DataLossError as error:
        raise damaged(path, error) from error
    except tf.errors.InvalidArgumentError as error:
        raise DataError(
            f"an example cannot be evaluated ({first_words(error)})",
            where=path,
            fix="the schema must require these columns in every row, so that the data gate stops such rows",
        ) from error


def _dates(texts: Array, path: str) -> Array:
    try:
        return texts.astype("S").astype("datetime64[D]")
    except ValueError as error:
        raise DataError(
            f"a date cannot be read ({first_words(error)})",
            where=f"{features.DATE} in {path}",
            fix="dates are written YYYY-MM-DD; run again with --no-cache, so that the examples are written anew",
        ) from error


def _predict(path: str, records: Any) -> Array:
    prediction: Array = _loaded(path).signatures[features.SERVING_EXAMPLES](records)[features.LABEL].numpy()
    return prediction.ravel()


@functools.lru_cache(maxsize=2)
def _loaded(path: str) -> Any:
    """Return a SavedModel, loaded once a process; an artifact's folder is never written twice."""
    import tensorflow as tf

    with plain_folder(path) as folder:
        return tf.saved_model.load(folder)


@functools.lru_cache(maxsize=2)
def _naive_baseline(path: str) -> NaiveBaseline:
    from tfx.utils import io_utils

    file = f"{path}/{saved_model.EXTRA_FOLDER}/{saved_model.NAIVE_BASELINE_FILE}"
    return NaiveBaseline.from_json(io_utils.read_string_file(file))
