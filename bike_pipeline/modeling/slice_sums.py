"""The sums that every metric is made of, by slice and model, of one file of examples.

Predictions come through the served signature, in batches; slices are taken by counting and not a row at a time. The
sums of a file depend on nothing but the file and the models, so files may be measured anywhere and in any order.
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
        naive_errors: Σ|naive prediction − y| over all rows, in rentals, of each table of `NaiveBaseline`; shape (2,).
    """

    sums: dict[tuple[SliceKey, str], metrics.Sums]
    naive_errors: Array = field(default_factory=lambda: np.zeros(2))

    def add(self, other: Measured) -> None:
        """Add the sums of other rows."""
        for key, values in other.sums.items():
            self.sums[key] = self.sums[key] + values if key in self.sums else values
        self.naive_errors = self.naive_errors + other.naive_errors

    @property
    def naive_error(self) -> float:
        """Σ|naive prediction − y| over all rows, in rentals, of the table that fits them better."""
        return float(self.naive_errors.min())

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
        found.add(sums_of_batch(columns, predictions, naive))
    return found


def sums_of_batch(columns: Mapping[str, Array], predictions: Mapping[str, Array], naive: NaiveBaseline) -> Measured:
    """Return the sums of rows: `columns` holds the label and `SLICING_COLUMNS`, `predictions` rentals by model."""
    label = np.asarray(columns[features.LABEL], np.float64)
    terms = {name: metrics.terms_of(label, prediction) for name, prediction in predictions.items()}
    sums: dict[tuple[SliceKey, str], metrics.Sums] = {
        ((OVERALL, None), name): values.sum(axis=1) for name, values in terms.items()
    }
    for slicing in SLICINGS:
        present, place = slices.distinct(slices.values_of(columns, slicing))
        for name, rows in terms.items():
            by_slice = np.stack([np.bincount(place, term, len(present)) for term in rows], axis=1)
            sums.update({((slicing, int(value)), name): by_slice[i] for i, value in enumerate(present)})
    return Measured(sums, naive.errors(columns[features.HOUR], columns["workingday"], label))


def _batches(path: str) -> Iterator[tuple[Any, dict[str, Array]]]:
    """Yield the serialized examples of a file, a string tensor of shape (batch,), with the columns in them."""
    import tensorflow as tf

    spec = {name: tf.io.FixedLenFeature([], tf.int64) for name in COLUMNS}
    try:
        for records in tf.data.TFRecordDataset(path, "GZIP").batch(ROWS_PER_BATCH):
            yield records, {name: tensor.numpy() for name, tensor in tf.io.parse_example(records, spec).items()}
    except tf.errors.DataLossError as error:
        raise damaged(path, error) from error
    except tf.errors.InvalidArgumentError as error:
        raise DataError(
            f"an example cannot be evaluated ({first_words(error)})",
            where=path,
            fix="the schema must require these columns in every row, so that the data gate stops such rows",
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
