"""What candidates are made of: the blessed model, the rows that it was trained on, and the rows that decide."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bike_pipeline import features
from bike_pipeline.errors import ExportError
from bike_pipeline.modeling.rows import Columns, chunks

if TYPE_CHECKING:
    import keras

# Rows that the teacher answers at once.
_ROWS_PER_CALL = 16_384


@dataclass(frozen=True)
class Material:
    """What candidates are made of.

    Attributes:
        saved_model: folder of the blessed SavedModel, with the trained Keras model in its `assets.extra`.
        transform_graph: folder of the TransformGraph artifact that it was trained with.
        train: raw rows that it was trained on, with the label; one array of shape (rows,) a column.
        evaluated: raw rows of the eval split, with the label and the columns that slices are taken by.
    """

    saved_model: Path
    transform_graph: Path
    train: Columns
    evaluated: Columns


@dataclass(frozen=True)
class Teacher:
    """The blessed model as it is trained further or taught from."""

    saved_model: Path
    inputs: Columns
    label: npt.NDArray[np.float32]

    @classmethod
    def of(cls, material: Material) -> Teacher:
        """Put the training rows through the transform graph."""
        from bike_pipeline.modeling import training

        inputs = training.transformed(material.train, str(material.transform_graph))
        label = inputs.pop(features.LABEL)
        return cls(material.saved_model, inputs, label)

    def model(self) -> keras.Model:
        """Return a fresh copy of the blessed Keras model, from transformed features to log(1 + rentals)."""
        import keras

        from bike_pipeline.modeling import saved_model

        path = self.saved_model / saved_model.EXTRA_FOLDER / saved_model.KERAS_FILE
        if not path.is_file():
            raise ExportError(
                "the trained Keras model is not there, so there is nothing to train further",
                where=str(path),
                fix="run the pipeline again; models of this release carry it",
            )
        model: keras.Model = keras.saving.load_model(path, compile=False)
        return model

    def answers(self) -> npt.NDArray[np.float32]:
        """Return the blessed model's answers to the training rows, in rentals, shape (rows,)."""
        model = self.model()
        logs: list[Any] = [model(part, training=False).numpy() for part in chunks(self.inputs, _ROWS_PER_CALL)]
        rentals: npt.NDArray[np.float32] = np.maximum(np.expm1(np.concatenate(logs)), 0.0).astype(np.float32)
        return rentals
