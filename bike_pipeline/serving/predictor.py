"""The served model in this process: the promoted version under the serving base path, through its served signature."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bike_pipeline import features
from bike_pipeline.errors import ModelError
from bike_pipeline.literal_paths import plain_folder
from bike_pipeline.serving import model_folder
from bike_pipeline.serving.deployment import state

_DTYPES = {"int": np.int64, "float": np.float32}
# Rows in one call: bounds memory on large files.
_CHUNK = 65_536


class LoadedModel:
    """A SavedModel in this process, asked through its served signature."""

    def __init__(self, folder: str | Path) -> None:
        """Load the SavedModel in `folder`."""
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        import tensorflow as tf

        self._tf = tf
        with plain_folder(folder) as path:
            self._model = tf.saved_model.load(path)
        self._signature = self._model.signatures["serving_default"]

    def predict(self, columns: Mapping[str, Sequence[Any] | npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        """Return the predicted rentals an hour, shape (rows,).

        Args:
            columns: one sequence of the same length for each of the model's inputs.
        """
        arrays = {f.name: np.asarray(columns[f.name], _DTYPES[f.kind]) for f in features.MODEL_INPUTS}
        rows = len(next(iter(arrays.values())))
        parts = []
        for start in range(0, rows, _CHUNK):
            chunk = {name: self._tf.constant(values[start : start + _CHUNK]) for name, values in arrays.items()}
            parts.append(self._signature(**chunk)[features.LABEL].numpy())
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)


class Predictor(LoadedModel):
    """Answers from one version of the served model.

    Attributes:
        version: the version that answers.
    """

    def __init__(self, serving_path: str, version: int | None = None) -> None:
        """Load a version, the promoted one where none is named.

        Raises:
            ModelError: there is no such version, its files are not those that were pushed, or it lacks a signature that
                is required.
            StorageError: what is promoted cannot be read.
        """
        present = model_folder.versions(serving_path)
        promoted = state.promoted_version(serving_path) if version is None else version
        if not present or promoted is None:
            raise ModelError(
                "no model is served", where=serving_path, fix="run the pipeline first: `bike-pipeline run`"
            )
        if version is not None and version not in present:
            raise ModelError(
                f"version {version} is not there",
                where=serving_path,
                fix=f"choose one of {', '.join(map(str, present))}",
            )
        self.version = promoted
        state.check_sound(serving_path, self.version)
        super().__init__(model_folder.local_folder(serving_path, self.version))
