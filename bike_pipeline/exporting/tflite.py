"""LiteRT (TensorFlow Lite): the whole serving graph in one file, run without TensorFlow.

Only builtin operators: a device needs nothing but the runtime. The file's own signature takes the raw features by
name, so no client repeats the transforms.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bike_pipeline import features
from bike_pipeline.errors import ExportError
from bike_pipeline.exporting.format import Columns, Format, Predictions, Source

FILE = "model.tflite"
SIGNATURE = "serving_default"


class _Answering:
    """A LiteRT model on one thread."""

    def __init__(self, path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        try:
            self._interpreter = Interpreter(str(path), num_threads=1)
            self._run = self._interpreter.get_signature_runner(SIGNATURE)
        except (OSError, RuntimeError, ValueError) as error:
            raise ExportError(
                f"LiteRT cannot load it ({str(error).splitlines()[0]})", where=str(path), fix="export the model again"
            ) from None
        self._dtypes = {name: detail["dtype"] for name, detail in self._run.get_input_details().items()}

    def predict(self, columns: Columns) -> Predictions:
        arrays = {name: np.asarray(columns[name], dtype) for name, dtype in self._dtypes.items()}
        return np.asarray(self._run(**arrays)[features.LABEL], np.float32)


class _Tflite(Format):
    """What the LiteRT formats share."""

    file = FILE

    def export(self, source: Source, folder: Path) -> None:
        """Convert the signature that takes raw features; builtin operators only."""
        import tensorflow as tf

        # From the loaded signature: the converter's own reading of a Keras 3 SavedModel leaves variables unfrozen.
        loaded = tf.saved_model.load(str(source.saved_model))
        converter = tf.lite.TFLiteConverter.from_concrete_functions([loaded.signatures[SIGNATURE]], loaded)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        self._set(converter, source)
        (folder / FILE).write_bytes(converter.convert())

    def load(self, folder: Path) -> _Answering:
        """Load it with LiteRT alone, on one thread."""
        return _Answering(folder / FILE)

    def _set(self, converter: Any, source: Source) -> None:
        """Set what makes this variant of the format."""


class Float32(_Tflite):
    """The model's own numbers."""

    name = "tflite_float32"
    title = "LiteRT float32"
