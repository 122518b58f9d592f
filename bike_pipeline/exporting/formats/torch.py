"""PyTorch: the whole serving graph as an `nn.Module`, saved by torch.export or as TorchScript.

The module is made from the SavedModel's own operations, transforms included, so that no formula and no constant of the
transforms is written twice. It takes one dictionary, from a feature's name to its tensor of shape (rows,).
"""

from __future__ import annotations

import abc
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bike_pipeline import extras, features
from bike_pipeline.errors import ExportError, first_words
from bike_pipeline.exporting.formats import frozen_graph
from bike_pipeline.exporting.formats.base import Columns, Format, Predictions, Source, cannot_load, unsupported

# Rows to trace with: torch.export takes a batch of one as the number one.
_EXAMPLE_ROWS = 4
# TensorFlow's operators whose torch counterpart takes the same inputs, by its name in `torch`.
_ALIKE = (
    "Abs Add Cos Exp Expm1 Floor Log Log1p Maximum Minimum Mul Neg Relu Round Rsqrt Sigmoid Sin Sqrt Square Sub Tanh"
)
_SAME = {
    **{name: name.lower() for name in _ALIKE.split()},
    "AddV2": "add",
    "BiasAdd": "add",
    "Equal": "eq",
    "Greater": "gt",
    "GreaterEqual": "ge",
    "Less": "lt",
    "LessEqual": "le",
    "LogicalAnd": "logical_and",
    "LogicalNot": "logical_not",
    "LogicalOr": "logical_or",
    "NotEqual": "ne",
    "RealDiv": "div",
    "SelectV2": "where",
}
# Those that do not; see `_special`.
_SPECIAL = ("Cast", "ConcatV2", "GatherV2", "MatMul", "Pack", "Reshape", "Sum", "Unpack")


def _special(torch: Any, operation: frozen_graph.Operation, inputs: list[Any]) -> Any:
    """Return what an operator of `_SPECIAL` makes of its inputs: a tensor or, of Unpack, several."""
    first, *rest = inputs
    axis: Any = operation.inputs[-1].constant
    if operation.kind == "Cast":
        return first.to(getattr(torch, operation.outputs[0].dtype))
    if operation.kind == "ConcatV2":
        return torch.cat(inputs[:-1], dim=int(axis))
    if operation.kind == "GatherV2":
        return _gathered(torch, operation, first, rest[0])
    if operation.kind == "MatMul":
        return torch.matmul(first, rest[0])
    if operation.kind == "Pack":
        return torch.stack(torch.broadcast_tensors(*inputs), dim=operation.attributes["axis"])
    if operation.kind == "Sum":
        return torch.sum(first, dim=axis.item())
    if operation.kind == "Unpack":
        return torch.unbind(first, dim=operation.attributes["axis"])
    return first.reshape(-1, *operation.outputs[0].shape)


def _gathered(torch: Any, operation: frozen_graph.Operation, table: Any, places: Any) -> Any:
    """Return rows of a constant table, or each row's numbers at places that are its own or the same for all."""
    if operation.inputs[0].constant is not None:
        return table[places]
    return torch.gather(table, 1, places.long()) if operation.attributes["batch_dims"] else table[:, places]


def _known(operation: frozen_graph.Operation) -> bool:
    """Return whether the module can do the operation in the form that the graph has it."""
    if operation.kind == "MatMul":
        return not operation.attributes["transpose"]
    if operation.kind == "GatherV2":
        table, index, axis = operation.inputs
        if axis.constant is None or int(axis.constant) != int(table.constant is None):
            return False
        of_rows = table.constant is None and index.constant is None
        return operation.attributes["batch_dims"] == int(of_rows) and (not of_rows or len(table.shape) == 1)
    if operation.kind == "ConcatV2":
        return operation.inputs[-1].constant is not None
    if operation.kind == "Sum":
        along = operation.inputs[-1].constant
        return along is not None and along.size == 1
    return operation.kind in _SAME or operation.kind in _SPECIAL


def _module(source: Source, title: str) -> Any:
    """Return the serving graph as an `nn.Module` in evaluation mode."""
    import torch

    graph = frozen_graph.read(source)
    unknown = [(operation.kind, operation.name) for operation in graph.operations if not _known(operation)]
    if unknown:
        raise unsupported(title, unknown, source.saved_model)

    class Serving(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._steps: list[tuple[Callable[..., Any], frozen_graph.Operation]] = []
            self._names: dict[str, str] = {}
            for operation in graph.operations:
                function = getattr(torch, _SAME.get(operation.kind, ""), None)
                self._steps.append((function or (lambda *i, o=operation: _special(torch, o, list(i))), operation))
                for value in operation.inputs:
                    if value.constant is not None and value.name not in self._names:
                        self._names[value.name] = f"constant_{len(self._names)}"
                        # A copy: the graph's own numbers may not be written to, and torch warns of that.
                        self.register_buffer(self._names[value.name], torch.tensor(np.array(value.constant)))

        def forward(self, columns: dict[str, Any]) -> Any:
            """Return the rentals an hour, shape (rows,)."""
            values = {value.name: columns[value.name] for value in graph.inputs}
            for function, operation in self._steps:
                inputs = [
                    values[value.name] if value.constant is None else getattr(self, self._names[value.name])
                    for value in operation.inputs
                ]
                made = function(*inputs)
                for value, tensor in zip(operation.outputs, made if isinstance(made, tuple) else (made,), strict=True):
                    values[value.name] = tensor
            return values[graph.output.name]

    return Serving().eval()


class Module:
    """A saved module, on one thread."""

    def __init__(self, path: Path, title: str, load: Callable[[Any, str], Any]) -> None:
        """Load the file."""
        extras.require("torch", f"running {title}")
        import torch

        torch.set_num_threads(1)
        self._torch = torch
        try:
            self._module = load(torch, str(path))
        # A damaged file is an error of zip, pickle or C++, whichever comes first.
        except Exception as error:
            raise cannot_load("PyTorch", first_words(error), path) from error

    def predict(self, columns: Columns) -> Predictions:
        """Return the rentals an hour of raw rows, shape (rows,)."""
        with self._torch.inference_mode():
            answers = self._module(_tensors(self._torch, columns))
        return np.asarray(answers.numpy(), np.float32)


def _tensors(torch: Any, columns: Columns) -> dict[str, Any]:
    kinds = {"int": np.int64, "float": np.float32}
    # Copied where numpy's own may not be written to, which torch takes amiss.
    return {
        f.name: torch.from_numpy(np.require(columns[f.name], kinds[f.kind], ("C", "W"))) for f in features.MODEL_INPUTS
    }


class _Torch(Format):
    """What both formats share."""

    extra = "torch"

    def export(self, source: Source, folder: Path) -> None:
        """Make the module, save it, and ask what was saved for a row."""
        extras.require(self.extra, f"exporting to {self.title}")
        import torch

        module = _module(source, self.title)
        path = folder / self.file
        scratch = path.with_name(f".{path.name}")
        example = {name: np.resize(values, _EXAMPLE_ROWS) for name, values in source.calibration.items()}
        try:
            with torch.inference_mode(False), torch.no_grad():
                self._save(torch, module, _tensors(torch, example), str(scratch))
            loaded = Module(scratch, self.title, self._loaded)
            (answer,) = loaded.predict({name: values[:1] for name, values in source.calibration.items()})
            if not math.isfinite(answer):
                raise ExportError(f"the saved module answers {answer}", where=self.title, fix="report it with the log")
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)

    def load(self, folder: Path) -> Module:
        """Load it with PyTorch, on one thread of the processor."""
        return Module(folder / self.file, self.title, self._loaded)

    @abc.abstractmethod
    def _save(self, torch: Any, module: Any, example: dict[str, Any], path: str) -> None:
        """Save the module."""

    @abc.abstractmethod
    def _loaded(self, torch: Any, path: str) -> Any:
        """Return what was saved, as a function of the columns."""


class Export(_Torch):
    """A graph of ATen operators that torch.export took down, with a batch of any size."""

    name = "torch_export"
    title = "torch.export"
    file = "model.pt2"

    def _save(self, torch: Any, module: Any, example: dict[str, Any], path: str) -> None:
        batch = torch.export.Dim("batch", min=1)
        program = torch.export.export(module, (example,), dynamic_shapes=({name: {0: batch} for name in example},))
        with open(path, "wb") as file:
            torch.export.save(program, file)

    def _loaded(self, torch: Any, path: str) -> Any:
        with open(path, "rb") as file:
            return torch.export.load(file).module()


class Script(_Torch):
    """Traced and frozen TorchScript, which PyTorch's C++ library runs without Python.

    PyTorch calls it deprecated and advises torch.export: who names this format knows.
    """

    name = "torch_script"
    title = "TorchScript"
    file = "model.pt"

    def _save(self, torch: Any, module: Any, example: dict[str, Any], path: str) -> None:
        with warnings.catch_warnings(action="ignore"):
            traced = torch.jit.trace(module, (example,), check_trace=False)
            torch.jit.save(torch.jit.freeze(traced), path)

    def _loaded(self, torch: Any, path: str) -> Any:
        with warnings.catch_warnings(action="ignore"):
            return torch.jit.load(path, map_location="cpu")
