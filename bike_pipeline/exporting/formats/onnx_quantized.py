"""ONNX with the large dense layers computed in int8, their ranges calibrated on rows of the training span.

Written as QuantizeLinear/DequantizeLinear pairs, which every runtime of ONNX knows. Transforms, the small last layers
and the exponential stay float32, as in the LiteRT file (`tflite_quantized`).
"""

from __future__ import annotations

import logging
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bike_pipeline import extras
from bike_pipeline.exporting.formats import base
from bike_pipeline.exporting.formats.base import Columns, Source
from bike_pipeline.exporting.formats.onnx import FILE, Float32, Session, convert

_DENSE = ("Gemm", "MatMul")


class Int8(Float32):
    """Dense layers of at least `SMALLEST_LAYER` weights: weights as int8, a channel at a time, activations as uint8."""

    name = "onnx_int8"
    title = "ONNX int8"
    precision = "int8"

    def export(self, source: Source, folder: Path) -> None:
        """Convert, quantize, and ask the file for a row."""
        extras.require(self.extra, f"exporting to {self.title}")
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            plain, prepared = os.path.join(scratch, "plain.onnx"), os.path.join(scratch, "prepared.onnx")
            quantized = os.path.join(scratch, FILE)
            convert(source, Path(plain))
            _quantize(plain, prepared, quantized, source)
            Session(Path(quantized), self.title).predict({n: v[:1] for n, v in source.calibration.items()})
            os.replace(quantized, folder / FILE)


def _quantize(plain: str, prepared: str, quantized: str, source: Source) -> None:
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    # Joins each product with its bias: without it ONNX Runtime leaves the layers as they are, and says nothing.
    # Symbolic shapes fail on the harmonics' axes and are not needed.
    quant_pre_process(plain, prepared, skip_symbolic_shape=True)
    layers = _large_dense_layers(prepared)
    if not layers:
        raise base.nothing_to_quantize(source, "onnx_float32")
    with _without_advice():
        quantization.quantize_static(
            prepared,
            quantized,
            _OneBatch(base.with_extremes(source.calibration)),
            nodes_to_quantize=layers,
            per_channel=True,
            # Weights of 7 bits: without VNNI, processors add two products of 8 bits each in 16 bits, and overflow.
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )


@contextmanager
def _without_advice() -> Iterator[None]:
    """Leave out what ONNX Runtime's quantization advises: it was just done.

    It writes with the root logger. A filter of this call's own, not the level, which other threads share: two calls
    that overlap would each restore what the other had set, and hide every later warning of the process.
    """

    def wanted(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR or "onnxruntime" not in record.pathname

    root = logging.getLogger()
    root.addFilter(wanted)
    try:
        yield
    finally:
        root.removeFilter(wanted)


class _OneBatch:
    """Rows as ONNX Runtime reads calibration data; a `CalibrationDataReader` by its one method."""

    def __init__(self, rows: Columns) -> None:
        self._batches: Iterator[Columns] = iter([rows])

    def get_next(self) -> Columns | None:
        return next(self._batches, None)


def _large_dense_layers(path: str) -> list[str]:
    """Return the name of each product with at least `SMALLEST_LAYER` constant weights."""
    import onnx

    graph = onnx.load(path).graph
    large = {w.name for w in graph.initializer if len(w.dims) == 2 and math.prod(w.dims) >= base.SMALLEST_LAYER}
    return [node.name for node in graph.node if node.op_type in _DENSE and large & set(node.input)]
