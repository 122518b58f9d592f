"""LiteRT with the large dense layers computed in int8, their ranges calibrated on rows of the training span.

What holds nearly all weights and nearly all arithmetic becomes integer. The transforms, the last small layers, which
add up the logarithm of the answer, and the exponential stay float32: an error of one step there is an error of 3 %
in rentals. TensorFlow's own converter quantizes those too and loses 36 % of MAE on the embedded data
(docs/exports.md).
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from typing import Any

from bike_pipeline import extras
from bike_pipeline.exporting.formats.base import SMALLEST_LAYER, Source, nothing_to_quantize, with_extremes
from bike_pipeline.exporting.formats.tflite import SIGNATURE, Tflite, convert


class Int8(Tflite):
    """Dense layers of at least `SMALLEST_LAYER` weights: weights as int8, a channel at a time, and int8 activations."""

    name = "tflite_int8"
    title = "LiteRT int8"
    precision = "int8"
    extra = "exports"

    def _converted(self, source: Source) -> bytes:
        extras.require(self.extra, f"exporting to {self.title}")
        content = convert(source, self.title)
        outputs = _large_dense_layers(content)
        if not outputs:
            raise nothing_to_quantize(source, "tflite_float32")
        # The quantizer prints its progress, and warns that it keeps all tensors, which is what calibration is.
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(action="ignore"),
        ):
            return _quantized(content, outputs, source)


def _quantized(content: bytes, outputs: list[str], source: Source) -> bytes:
    from ai_edge_quantizer import qtyping, quantizer

    made = quantizer.Quantizer(bytearray(content))
    made.add_static_config(
        regex="^(" + "|".join(map(re.escape, outputs)) + ")",
        operation_name=qtyping.TFLOperationName.FULLY_CONNECTED,
        activation_num_bits=8,
        weight_num_bits=8,
    )
    # In one batch: over several, the quantizer takes a moving average of the ranges, and the ends drop out of it.
    ranges = made.calibrate({SIGNATURE: [with_extremes(source.calibration)]}, num_threads=1)
    return bytes(made.quantize(ranges).quantized_model)


def _large_dense_layers(content: bytes) -> list[str]:
    """Return the name of the output of each dense layer that is worth quantizing."""
    from ai_edge_litert import schema_py_generated as schema

    model: Any = schema.ModelT.InitFromPackedBuf(content, 0)
    found = []
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            if code.builtinCode != schema.BuiltinOperator.FULLY_CONNECTED:
                continue
            units, width = graph.tensors[operator.inputs[1]].shape
            if units * width >= SMALLEST_LAYER:
                found.append(graph.tensors[operator.outputs[0]].name.decode())
    return found
