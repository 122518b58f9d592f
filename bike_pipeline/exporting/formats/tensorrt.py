"""TensorRT: an engine for one model of NVIDIA GPU, built from the ONNX file where TensorRT and a GPU are.

Where they are not, exporting says what is missing and the format counts as not built; the recipe beside the ONNX file
(`onnx.write_recipe`) builds the engine elsewhere.
"""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bike_pipeline import extras, features
from bike_pipeline.errors import ExportError, MissingExtraError
from bike_pipeline.exporting.formats import onnx
from bike_pipeline.exporting.formats.base import Columns, Format, Predictions, Source, in_parts, unsupported

_DRIVER = "libcuda.so.1"
_PACKAGES = {"tensorrt": "tensorrt", "cuda": "cuda-python"}
_KINDS = {"int": np.int64, "float": np.float32}


def require() -> None:
    """Stop where TensorRT, its Python bindings' companion or a GPU is missing."""
    absent = [package for module, package in _PACKAGES.items() if not _is_there(module)]
    if absent:
        raise MissingExtraError(
            f"TensorRT needs packages that are not installed (missing: {', '.join(absent)})",
            where="tensorrt",
            fix=f"run `pip install {' '.join(absent)}` on a machine with an NVIDIA GPU, or run "
            f"{onnx.SCRIPT} beside the ONNX file where TensorRT is",
        )
    lacking = _gpu_lacking()
    if lacking:
        raise ExportError(
            lacking,
            where="tensorrt",
            fix=f"run {onnx.SCRIPT} beside the ONNX file on a machine with an NVIDIA GPU and TensorRT",
        )


def _is_there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _gpu_lacking() -> str:
    """Return what is missing for a GPU to be used, asked of NVIDIA's driver; empty where nothing is."""
    try:
        driver = ctypes.CDLL(_DRIVER)
    except OSError:
        return f"there is no NVIDIA driver ({_DRIVER})"
    count = ctypes.c_int(0)
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if status:
        return f"NVIDIA's driver cannot be used (CUDA error {status})"
    return "" if count.value else "NVIDIA's driver finds no GPU"


def build(path: Path, source: Source) -> bytes:
    """Return the engine of an ONNX file."""
    import tensorrt

    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(0)
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        raise unsupported("TensorRT", [(e.node_operator(), e.node_name()) for e in errors], source.saved_model)
    config = builder.create_builder_config()
    config.clear_flag(tensorrt.BuilderFlag.TF32)
    profile = builder.create_optimization_profile()
    for feature in features.MODEL_INPUTS:
        profile.set_shape(feature.name, *((count,) for count in onnx.ENGINE_ROWS.values()))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ExportError("TensorRT cannot build an engine of it", where=str(path), fix="the log holds what it said")
    return bytes(plan)


class Engine:
    """An engine on the first GPU. One caller at a time."""

    def __init__(self, path: Path) -> None:
        """Load the engine and take the GPU memory of its largest batch."""
        require()
        import tensorrt
        from cuda.bindings import runtime

        self._cuda = runtime
        self._runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes()) if path.is_file() else None
        if self._engine is None:
            raise ExportError(
                "TensorRT cannot load it", where=str(path), fix="build it again on this machine, with this TensorRT"
            )
        self._context = self._engine.create_execution_context()
        self._stream = self._done(runtime.cudaStreamCreate())
        # An engine of an earlier release may know fewer inputs.
        known = {self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)}
        kinds = {f.name: np.dtype(_KINDS[f.kind]) for f in features.MODEL_INPUTS if f.name in known}
        self._inputs = tuple(kinds)
        self._answer_name = features.answer_among(known)
        self._kinds = {**kinds, self._answer_name: np.dtype(np.float32)}
        self._memory = {
            name: self._done(runtime.cudaMalloc(onnx.ENGINE_ROWS["max"] * kind.itemsize))
            for name, kind in self._kinds.items()
        }
        for name, address in self._memory.items():
            self._context.set_tensor_address(name, int(address))

    def predict(self, columns: Columns) -> Predictions:
        """Return the rentals an hour of raw rows, shape (rows,)."""
        return in_parts(self._answer, {name: columns[name] for name in self._inputs})

    def _answer(self, columns: Columns) -> Predictions:
        answers: npt.NDArray[np.float32] = np.empty(len(next(iter(columns.values()))), np.float32)
        kind = self._cuda.cudaMemcpyKind
        for name, values in columns.items():
            array = np.ascontiguousarray(values, self._kinds[name])
            self._context.set_input_shape(name, array.shape)
            # Waits until the rows are on the GPU: they may be gone when a call that does not wait gets to them.
            copied = self._cuda.cudaMemcpy(
                self._memory[name], array.ctypes.data, array.nbytes, kind.cudaMemcpyHostToDevice
            )
            self._done(copied)
        if not self._context.execute_async_v3(int(self._stream)):
            raise ExportError("TensorRT did not answer", where="tensorrt", fix="the log holds what it said")
        self._done(self._cuda.cudaStreamSynchronize(self._stream))
        address = self._memory[self._answer_name]
        self._done(self._cuda.cudaMemcpy(answers.ctypes.data, address, answers.nbytes, kind.cudaMemcpyDeviceToHost))
        return answers

    def _done(self, result: tuple[Any, ...]) -> Any:
        """Return what a call of CUDA's runtime gave beside its status."""
        status, *values = result
        if int(status):
            raise ExportError(f"the GPU refuses a call ({status})", where="tensorrt", fix="see nvidia-smi")
        return values[0] if values else None


class TensorRT(Format):
    """The model's own numbers, on a GPU; products are not rounded to TF32."""

    name = "tensorrt"
    title = "TensorRT"
    file = onnx.ENGINE

    def export(self, source: Source, folder: Path) -> None:
        """Build the engine from the ONNX file, which is kept beside it with the recipe."""
        require()
        extras.require("exports", f"exporting to {self.title}")
        onnx.convert(source, folder / onnx.FILE)
        onnx.write_recipe(folder)
        (folder / self.file).write_bytes(build(folder / onnx.FILE, source))

    def load(self, folder: Path) -> Engine:
        """Load it on the first GPU."""
        return Engine(folder / self.file)
