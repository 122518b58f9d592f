"""LiteRT (TensorFlow Lite): the whole serving graph in one file, run without TensorFlow.

Only builtin operators: a device needs nothing but the runtime. The file's own signature takes the raw features by
name, so no client repeats the transforms.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from bike_pipeline import features
from bike_pipeline.errors import ExportError, first_words
from bike_pipeline.exporting.formats import base
from bike_pipeline.exporting.formats.base import Columns, Format, Predictions, Source

FILE = "model.tflite"
SIGNATURE = "serving_default"
# What TensorFlow wraps the graph's own names in, and the model's name before each of its layers.
_CALLS = re.compile(rb"(StatefulPartitionedCall|PartitionedCall|bike_demand(_\d+)?)/")


class Interpreter:
    """A LiteRT model on one thread.

    Tensors are set by index: the runtime's signature runner looks each one up by name on every call, and one row then
    takes twice the time. One caller at a time.
    """

    def __init__(self, path: Path) -> None:
        """Load the file."""
        from ai_edge_litert import interpreter

        try:
            self._interpreter = interpreter.Interpreter(str(path), num_threads=1)
            runner = self._interpreter.get_signature_runner(SIGNATURE)
            inputs, outputs = runner.get_input_details(), runner.get_output_details()
            self._inputs = [(name, detail["index"], detail["dtype"]) for name, detail in inputs.items()]
            self._output = outputs[features.answer_among(outputs)]["index"]
            # The interpreter refuses to allocate while a runner refers to it.
            del runner
            self._resize(1)
        except (KeyError, OSError, RuntimeError, ValueError) as error:
            raise base.cannot_load("LiteRT", first_words(error), path) from None

    def _resize(self, rows: int) -> None:
        for _, index, _ in self._inputs:
            self._interpreter.resize_tensor_input(index, [rows])
        self._interpreter.allocate_tensors()
        self._rows = rows

    def predict(self, columns: Columns) -> Predictions:
        """Return the rentals an hour of raw rows, shape (rows,)."""
        arrays = [(index, np.asarray(columns[name], dtype)) for name, index, dtype in self._inputs]
        rows = len(arrays[0][1])
        if rows > base.ROWS_PER_CALL:
            return base.in_parts(self.predict, columns)
        if rows != self._rows:
            self._resize(rows)
        interpreter = self._interpreter
        for index, array in arrays:
            interpreter.set_tensor(index, array)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(self._output), np.float32)


def convert(source: Source, title: str, *, smaller: bool = False, float16: bool = False) -> bytes:
    """Return the signature that takes raw features as a LiteRT file; builtin operators only.

    From the frozen signature: the converter's own way writes a SavedModel and loads it twice for each file, which takes
    six times as long, and its reading of a Keras 3 SavedModel leaves variables unfrozen. `smaller` weights are int8
    or, with `float16`, of that type; `title` is what errors call the format.
    """
    import tensorflow as tf

    function = source.frozen
    converter = tf.compat.v1.lite.TFLiteConverter(function.graph.as_graph_def(), function.inputs, function.outputs)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    converter.target_spec.supported_types = [tf.float16] if float16 else []
    converter.optimizations = [tf.lite.Optimize.DEFAULT] if smaller else []
    # What it adds says how the file was made, and would be added by parsing all of it once more.
    converter.exclude_conversion_metadata = True
    try:
        return _with_signature(converter.convert(), source.loaded.answer)
    # The converter's own class has no public name; every error of it carries the operators it stumbled over.
    except Exception as error:
        operators = [
            (entry.operator.name.removeprefix("tf."), entry.location.call[0].name.partition("@")[0])
            for entry in getattr(error, "errors", ())
            if entry.operator.name and entry.location.call
        ]
        if operators:
            raise base.unsupported(title, operators, source.saved_model) from None
        raise ExportError(
            f"{title} cannot carry it ({first_words(error)})",
            where=str(source.saved_model),
            fix="see the log for what TensorFlow's converter said",
        ) from error


def _with_signature(content: bytes, answer: str) -> bytes:
    """Return the file with the signature that clients call, which a frozen graph has lost, and with shorter names."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model: Any = schema.ModelT.InitFromPackedBuf(content, 0)
    (graph,) = model.subgraphs
    for tensor in graph.tensors:
        tensor.name = _CALLS.sub(b"", tensor.name)

    def entry(name: str | bytes, index: int) -> Any:
        mapped = schema.TensorMapT()
        mapped.name, mapped.tensorIndex = name, int(index)
        return mapped

    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = SIGNATURE, 0
    signature.inputs = [entry(graph.tensors[index].name, index) for index in graph.inputs]
    signature.outputs = [entry(answer, index) for index in graph.outputs]
    model.signatureDefs = [signature]
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


class Tflite(Format):
    """What the LiteRT formats share; for `smaller` and `float16` see `convert`."""

    file = FILE
    in_process = True
    smaller = float16 = False

    def export(self, source: Source, folder: Path) -> None:
        """Convert the signature that takes raw features; builtin operators only."""
        (folder / FILE).write_bytes(self._converted(source))

    def load(self, folder: Path) -> Interpreter:
        """Load it with LiteRT alone, on one thread."""
        return Interpreter(folder / FILE)

    def _converted(self, source: Source) -> bytes:
        """Return the file's content."""
        return convert(source, self.title, smaller=self.smaller, float16=self.float16)


class Float32(Tflite):
    """The model's own numbers."""

    name = "tflite_float32"
    title = "LiteRT float32"


class Float16(Tflite):
    """Weights as float16, two thirds of the size; computed in float32."""

    name = "tflite_float16"
    title = "LiteRT float16"
    precision = "float16"
    smaller = float16 = True


class DynamicRange(Tflite):
    """Weights as int8; each batch's activations are brought to int8 by their own range. Needs no calibration."""

    name = "tflite_dynamic_range"
    title = "LiteRT int8, dynamic range"
    precision = "int8"
    smaller = True
