"""A SavedModel in this process, asked through the served signature that takes all inputs it knows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bike_pipeline import features
from bike_pipeline.errors import ModelError
from bike_pipeline.lean_imports import uncollected
from bike_pipeline.storage.files import plain_folder

_DTYPES = {"int": np.int64, "float": np.float32}
# Rows in one call: bounds memory on large files.
_CHUNK = 65_536


class LoadedModel:
    """A SavedModel in this process, asked through its served `signature`, TensorFlow's concrete function.

    Its one output is called `answer`, see `features.ANSWERS`.
    """

    def __init__(self, folder: str | Path) -> None:
        """Load the SavedModel in `folder`."""
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        with uncollected():
            import tensorflow as tf

        self._tf = tf
        with plain_folder(folder) as path:
            self._model = tf.saved_model.load(path)
        signatures = self._model.signatures
        # Models from before there were optional inputs have `serving_default` alone.
        every = features.SERVING_ALL_INPUTS
        self.signature = signatures[every if every in signatures else features.SERVING_DEFAULT]
        self.answer = features.answer_among(self.signature.structured_outputs)
        self._inputs = [f for f in features.MODEL_INPUTS if f.name in self.signature.structured_input_signature[1]]

    def predict(self, columns: Mapping[str, Sequence[Any] | npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        """Return the answers, rentals an hour or a probability, shape (rows,).

        Of the columns there is one sequence for each of the model's inputs; optional ones may be absent.
        """
        return self._answers(self.signature, columns).get(self.answer, np.zeros(0, np.float32))

    def predict_intervals(
        self, columns: Mapping[str, Sequence[Any] | npt.NDArray[Any]]
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Return the predicted rentals and their quantiles by name, (rows,) each; NaN where none is known.

        Raises:
            ModelError: it has no intervals: an earlier release made it, or it is no model of rentals.
        """
        signature = self._model.signatures.get(features.SERVING_INTERVALS)
        if signature is None:
            raise ModelError(
                "the model answers no intervals", fix="run the pipeline: models of rentals that it trains do"
            )
        return self._answers(signature, columns)

    def _answers(
        self, signature: Any, columns: Mapping[str, Sequence[Any] | npt.NDArray[Any]]
    ) -> dict[str, npt.NDArray[np.float32]]:
        complete = features.with_defaults(columns)
        arrays = {f.name: np.asarray(complete[f.name], _DTYPES[f.kind]) for f in self._inputs}
        rows = len(next(iter(arrays.values())))
        parts: dict[str, list[npt.NDArray[np.float32]]] = {}
        for start in range(0, rows, _CHUNK):
            chunk = {name: self._tf.constant(values[start : start + _CHUNK]) for name, values in arrays.items()}
            for name, tensor in signature(**chunk).items():
                parts.setdefault(name, []).append(tensor.numpy())
        return {name: np.concatenate(pieces) for name, pieces in parts.items()}
