"""OpenVINO's intermediate representation: the whole serving graph for Intel's processors, float32 and int8."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bike_pipeline import extras, features
from bike_pipeline.exporting.formats import base, onnx
from bike_pipeline.exporting.formats.base import Columns, Format, Predictions, Source

# The graph; the weights stand beside it, in model.bin.
FILE = "model.xml"
WEIGHTS = "model.bin"
_DENSE = "MatMul"
# What NNCF does not count among the operations of a graph.
_NO_OPERATIONS = ("Constant", "Parameter", "Result")
# On processors with AMX it would compute in bfloat16 by itself, with an error of several per cent.
_ONE_EXACT_THREAD = {
    "INFERENCE_PRECISION_HINT": "f32",
    "INFERENCE_NUM_THREADS": 1,
    "NUM_STREAMS": 1,
    "PERFORMANCE_HINT": "LATENCY",
}


class Request:
    """An OpenVINO model on one thread of the processor. One caller at a time."""

    def __init__(self, path: Path, title: str) -> None:
        """Load and compile the graph."""
        extras.require("openvino", f"running {title}")
        import openvino

        # A missing file of weights ends the process inside the library.
        lacking = [name for name in (FILE, WEIGHTS) if not path.with_name(name).is_file()]
        try:
            if lacking:
                raise FileNotFoundError(f"{', '.join(lacking)} is missing")
            compiled = openvino.Core().compile_model(str(path), "CPU", _ONE_EXACT_THREAD)
            self._types = {tensor.get_any_name(): tensor.get_element_type().to_dtype() for tensor in compiled.inputs}
            self._output = compiled.output(features.answer_among(tensor.get_any_name() for tensor in compiled.outputs))
        except (KeyError, OSError, RuntimeError) as error:
            raise base.cannot_load("OpenVINO", str(error).strip().splitlines()[-1], path) from None
        self._request = compiled.create_infer_request()

    def predict(self, columns: Columns) -> Predictions:
        """Return the rentals an hour of raw rows, shape (rows,)."""
        arrays = {name: np.ascontiguousarray(columns[name], kind) for name, kind in self._types.items()}
        # The request's own memory, which the next call writes over: hence the copy.
        return np.array(self._request.infer(arrays, share_inputs=True)[self._output], np.float32)


class Float32(Format):
    """The model's own numbers."""

    name = "openvino_float32"
    title = "OpenVINO float32"
    extra = "openvino"
    file = FILE

    def export(self, source: Source, folder: Path) -> None:
        """Convert by way of ONNX, and ask the file for a row."""
        extras.require(self.extra, f"exporting to {self.title}")
        # tf2onnx is what reads the graph.
        extras.require("exports", f"exporting to {self.title}")
        import openvino

        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            path = Path(scratch, onnx.FILE)
            onnx.convert(source, path)
            model = self._prepared(openvino.convert_model(path), source)
            # It stores float16 unless told not to.
            openvino.save_model(model, os.path.join(scratch, FILE), compress_to_fp16=False)
            first = {name: values[:1] for name, values in source.calibration.items()}
            Request(Path(scratch, FILE), self.title).predict(first)
            # The graph last: a folder with it is complete.
            for name in (WEIGHTS, FILE):
                os.replace(os.path.join(scratch, name), folder / name)

    def load(self, folder: Path) -> Request:
        """Load it with OpenVINO, on one thread."""
        return Request(folder / FILE, self.title)

    def _prepared(self, model: Any, source: Source) -> Any:  # noqa: ARG002
        """Return the OpenVINO model as it is to be stored."""
        return model


class Int8(Float32):
    """Dense layers of at least `SMALLEST_LAYER` weights in int8, by NNCF, calibrated on rows of the training span."""

    name = "openvino_int8"
    title = "OpenVINO int8"
    precision = "int8"

    def _prepared(self, model: Any, source: Source) -> Any:
        """Quantize the large dense layers; all else stays float32, as in the LiteRT file (`tflite_quantized`)."""
        import nncf

        large = {node.get_friendly_name() for node in model.get_ops() if _weights(node) >= base.SMALLEST_LAYER}
        if not large:
            raise base.nothing_to_quantize(source, "openvino_float32")
        small = {node.get_friendly_name() for node in model.get_ops() if node.get_type_name() == _DENSE} - large
        others = {node.get_type_name() for node in model.get_ops()} - {_DENSE, *_NO_OPERATIONS}
        # Not nncf.set_log_level: it also sets the level of every handler there, those of others among them.
        logging.getLogger("nncf").setLevel(logging.ERROR)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return nncf.quantize(
                model,
                # One batch: over several, NNCF takes the mean of their ranges, and the features' ends drop out of it.
                nncf.Dataset([base.with_extremes(source.calibration)]),
                # Activations with a zero point: silu's lie almost all above 0, and symmetric ones waste a bit.
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=1,
                ignored_scope=nncf.IgnoredScope(names=sorted(small), types=sorted(others), validate=False),
            )


def _weights(node: Any) -> int:
    """Return how many constant weights a product has; 0 for any other operation."""
    if node.get_type_name() != _DENSE:
        return 0
    inputs = [node.input_value(index) for index in range(2)]
    constant = [value for value in inputs if value.get_node().get_type_name() == "Constant"]
    return math.prod(constant[0].get_shape()) if constant else 0
