"""The search for hyperparameters: what is tried, on which rows each trial is judged, and what a run takes over.

The space and the file of the best are Keras Tuner's, so that TFX's Trainer reads it. The search is random with a seed
(Bergstra and Bengio 2012, "Random Search for Hyper-Parameter Optimization"): what is tried depends on no result, so
trials may run side by side, and be lost and run again, and the outcome stays the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from bike_pipeline.settings.tuning import TuningSettings, decoded

# A set of hyperparameters by the names of the settings.
Values = dict[str, Any]
# Draws after which a small space is taken for exhausted.
_MOST_DRAWS = 100


@dataclass(frozen=True)
class Fold:
    """Rows in the order of time: those before `end` train, those from there to `last` validate.

    `transform_graph` is the graph of the rows that train.
    """

    end: int
    last: int
    transform_graph: str = ""


@dataclass(frozen=True)
class Job:
    """A trial for a process of its own: the settings' section `training` with its hyperparameters, and the rows."""

    examples: tuple[str, ...]
    schema_file: str
    folds: tuple[Fold, ...]
    training: dict[str, Any]
    seed: int
    objective: str


def space_of(tuning: TuningSettings, training: Mapping[str, Any]) -> Any:
    """Return the space as Keras Tuner's HyperParameters, with the values of the section `training`."""
    import keras_tuner  # type: ignore[import-untyped]

    space = keras_tuner.HyperParameters()
    for dimension in tuning.space:
        name, low, high = dimension.name, dimension.low, dimension.high
        sampling = "log" if dimension.log else "linear"
        if dimension.choices:
            space.Choice(name, [_encoded(value) for value in dimension.choices])
        elif isinstance(low, int) and isinstance(high, int):
            space.Int(name, low, high, sampling=sampling)
        else:
            space.Float(name, float(low or 0.0), float(high or 0.0), sampling=sampling)
    space.values = {dimension.name: _encoded(training[dimension.name]) for dimension in tuning.space}
    return space


def _encoded(value: Any) -> Any:
    """Return a value as Keras Tuner can hold it, which knows no lists."""
    return json.dumps(list(value)) if isinstance(value, list | tuple) else value


def trials_of(space: Any, count: int, seed: int) -> list[Values]:
    """Return what is tried, no two alike, by Keras Tuner's encoding: the space's own values, then random ones.

    There are fewer than `count` where the space holds no more.
    """
    found, draws = [dict(space.values)], 0
    while len(found) < count and draws < _MOST_DRAWS * count:
        # A draw each for every dimension, as Keras Tuner's own oracle takes them.
        first = seed + draws * len(space.space)
        drawn = {hp.name: hp.random_sample(first + place) for place, hp in enumerate(space.space)}
        draws += 1
        if drawn not in found:
            found.append(drawn)
    return found


def name_of(values: Mapping[str, Any]) -> str:
    """Return a name for a set of hyperparameters that no other one has."""
    return hashlib.sha256(json.dumps(dict(values), sort_keys=True).encode()).hexdigest()[:16]


def described(values: Mapping[str, Any]) -> str:
    """Return hyperparameters in words."""
    return ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
                     for name, value in decoded(values).items())  # fmt: skip


def folds_of(rows: int, origins: int, share: float) -> list[Fold]:
    """Return the folds of rows in the order of time: `origins` windows at their end, each a `share` of all rows."""
    window = max(1, int(rows * share))
    return [Fold(rows - window * left, rows - window * (left - 1)) for left in range(origins, 0, -1)]


@lru_cache(maxsize=1)
def in_order(examples: Sequence[str], schema_file: str) -> dict[str, Any]:
    """Return the raw rows of the patterns in the order of time, by column; see `rows.read`."""
    from bike_pipeline.modeling import rows

    columns = rows.read(examples, schema_file)
    # By month; inside of one, files hold the rows in the order of time.
    order = np.argsort(columns["yr"].astype(np.int64) * 12 + columns["mnth"], kind="stable")
    return {name: values[order] for name, values in columns.items()}


def score(job: Job) -> list[float]:
    """Return the objective on each fold's window, of a model trained on the rows before it, through its signature."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from bike_pipeline import features
    from bike_pipeline.modeling import training as trainer
    from bike_pipeline.modeling.loaded_model import LoadedModel
    from bike_pipeline.modeling.targets import KINDS

    columns, found = in_order(job.examples, job.schema_file), []
    # Each trial has one device, and begins where all others begin.
    training = {**job.training, "strategy": "none", "warm_start": False}
    for fold in job.folds:
        before, window = (
            {name: values[part] for name, values in columns.items()}
            for part in (slice(fold.end), slice(fold.end, fold.last))
        )
        with tempfile.TemporaryDirectory(prefix="bike-trial-") as folder:
            model = str(Path(folder) / "model")
            target = KINDS[training["target"]].fit(training, before[features.LABEL])
            trained = trainer.train(before, fold.transform_graph, training, job.seed, target=target)
            run = str(Path(folder) / "run")
            trainer.write(trained, before, fold.transform_graph, training, run, model, target=target)
            answers = LoadedModel(model).predict(window)
        sums = target.terms_of(window[features.LABEL], answers).sum(axis=1)
        found.append(target.metrics_of(sums)[job.objective])
    return found


def identity_of(job: Job, tuning: TuningSettings, source: str) -> str:
    """Return a name for a search that no other one has, whose trials would not be these: rows, settings and code."""
    said = {**asdict(job), "tuning": tuning.model_dump(mode="json", exclude={"parallel_trials"}), "source": source}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]
