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
from bike_pipeline.modeling.targets import RENTALS, Target
from bike_pipeline.storage.files import plain_folder

# Rows that are predicted at once: what bounds the memory.
ROWS_PER_BATCH = 16_384
COLUMNS = tuple(dict.fromkeys((features.LABEL, *SLICING_COLUMNS.values())))
# The sums that are kept by day: those that every target has.
_DAILY = 6

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
        sums: by slice and model the sums of `target.formulas`.
        naive_errors: Σ error over all rows, by the target's own metric, by the names of `NaiveBaseline.tables`.
        days: the days of the rows, rising, in days since 1970-01-01; shape (days,).
        by_day: by slice and model the first six sums of each of `days`; shape (days, 6).
        target: what the models answer.
    """

    sums: dict[tuple[SliceKey, str], metrics.Sums]
    naive_errors: dict[str, float] = field(default_factory=dict)
    days: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    by_day: dict[tuple[SliceKey, str], Array] = field(default_factory=dict)
    target: Target = RENTALS

    def add(self, other: Measured) -> None:
        """Add the sums of other rows."""
        for key, values in other.sums.items():
            self.sums[key] = self.sums[key] + values if key in self.sums else values
        for name, error in other.naive_errors.items():
            self.naive_errors[name] = self.naive_errors.get(name, 0.0) + error
        self.target = other.target
        days = np.union1d(self.days, other.days)
        merged = {key: np.zeros((len(days), _DAILY)) for key in {**self.by_day, **other.by_day}}
        for part in (self, other):
            place = np.searchsorted(days, part.days)
            for key, values in part.by_day.items():
                merged[key][place] += values
        self.days, self.by_day = days, merged

    @property
    def naive_by_name(self) -> dict[str, float]:
        """The target's own error of each naive baseline over all rows, by its name: its MAE in rentals, or log loss."""
        return {name: error / self.rows for name, error in self.naive_errors.items()}

    @property
    def naive(self) -> float:
        """The error of the naive baseline that fits the rows best; NaN where one is no number or there is none."""
        return float(np.min(list(self.naive_by_name.values()) or [np.nan]))

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
    naive, target = _naive_baseline(job.naive_baseline)
    found = Measured({})
    for records, columns in _batches(job.path):
        predictions = {name: _predict(path, records) for name, path in job.models}
        found.add(sums_of_batch(columns, predictions, naive, columns[features.DATE], target))
    return found


def sums_of_batch(
    columns: Mapping[str, Array],
    predictions: Mapping[str, Array],
    naive: NaiveBaseline,
    dates: Array | None = None,
    target: Target = RENTALS,
) -> Measured:
    """Return the sums of rows: `columns` holds the label and `SLICING_COLUMNS`, `predictions` the answers by model.

    With `dates`, datetime64[D] of shape (rows,), there are the sums by day as well. All models are held to one target,
    that of the candidate: where a class is decided from a probability, by the candidate's threshold.
    """
    rentals = np.asarray(columns[features.LABEL], np.float64)
    terms = {name: target.terms_of(rentals, prediction) for name, prediction in predictions.items()}
    where = columns[features.HOUR], columns["workingday"], target.label(rentals)
    found = Measured({}, naive.errors(*where, target.naive_error), target=target)
    days, day = slices.distinct(np.zeros(len(rentals), np.int64) if dates is None else dates.astype(np.int64))
    if dates is not None:
        found.days = days
    for slicing in (OVERALL, *SLICINGS):
        values = np.zeros(len(rentals), np.int64) if slicing == OVERALL else slices.values_of(columns, slicing)
        present, place = slices.distinct(values)
        cell = place * len(days) + day
        for name, rows in terms.items():
            counted = [np.bincount(cell, term, len(present) * len(days)) for term in rows[:_DAILY]]
            table = np.stack(counted, axis=1).reshape(len(present), len(days), _DAILY)
            # What nothing is resampled from is not kept by day.
            more = [np.bincount(place, term, len(present)) for term in rows[_DAILY:]]
            for number, (value, by_day) in enumerate(zip(present, table, strict=True)):
                key = ((slicing, None if slicing == OVERALL else int(value)), name)
                found.sums[key] = np.append(by_day.sum(axis=0), [term[number] for term in more])
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
    outputs = _loaded(path).signatures[features.SERVING_EXAMPLES](records)
    answers: Array = outputs[features.answer_among(outputs)].numpy()
    return answers.ravel()


@functools.lru_cache(maxsize=2)
def _loaded(path: str) -> Any:
    """Return a SavedModel, loaded once a process; an artifact's folder is never written twice."""
    import tensorflow as tf

    with plain_folder(path) as folder:
        return tf.saved_model.load(folder)


@functools.lru_cache(maxsize=2)
def _naive_baseline(path: str) -> tuple[NaiveBaseline, Target]:
    """Return the naive baseline that a model carries, and what it answers."""
    from tfx.utils import io_utils

    file = f"{path}/{saved_model.EXTRA_FOLDER}/{saved_model.NAIVE_BASELINE_FILE}"
    return NaiveBaseline.from_json(io_utils.read_string_file(file)), saved_model.target_of(path)
