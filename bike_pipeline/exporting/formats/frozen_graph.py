"""The serving graph as a list of plain operations, row by row: what model-as-code is generated from.

The whole signature is read, transforms and model alike, from the SavedModel itself: another preprocessing, another
number of layers or another width is another list, and no line of the generator changes for it.
"""

from __future__ import annotations

import contextlib
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bike_pipeline import features
from bike_pipeline.errors import ExportError
from bike_pipeline.exporting.formats.base import Source, layer_of

_SHARED_FILE = "graph.pickle"
# An operator passes its first input on, or rearranges nothing within a row; its other inputs are of no account.
_ALIASES = ("Identity", "IdentityN", "StopGradient", "PreventGradient", "Snapshot")
_RESHAPES = ("Reshape", "ExpandDims", "Squeeze")


@dataclass(frozen=True)
class Value:
    """One tensor of the graph.

    Attributes:
        name: the tensor's name in the graph.
        dtype: float32, int64, int32, int16 or bool.
        shape: of a constant its shape; of a tensor that follows from the rows the shape that one row has.
        constant: its numbers; None where it follows from the rows.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    constant: npt.NDArray[Any] | None = None

    @property
    def size(self) -> int:
        """Numbers in it, for one row."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class Operation:
    """One operation on one row.

    Attributes:
        kind: TensorFlow's name of the operator, such as "MatMul".
        name: its name in the graph, which holds the layer's.
        inputs: what it reads.
        outputs: what it makes.
        attributes: those of its attributes that change what it does: "axis", "batch_dims", "transpose".
    """

    kind: str
    name: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    attributes: dict[str, Any]

    def refusal(self, why: str) -> ExportError:
        """Return the error that this operation cannot be carried."""
        return ExportError(
            f"model-as-code does not know the operator {self.kind} in this form ({why})",
            where=f"layer {layer_of(self.name)}",
            fix="leave c_source out of exporting.formats, or build the layer from other operators",
        )


@dataclass(frozen=True)
class FrozenGraph:
    """The serving graph."""

    inputs: tuple[Value, ...]
    operations: tuple[Operation, ...]
    output: Value


class _Reader:
    def __init__(self, session: Any) -> None:
        # Names of the operations that no raw feature leads to; the graph holds inputs before what reads them.
        frozen: set[str] = set()
        # What the others read of them, asked in one call: each call takes as long as the graph is large.
        constants: dict[str, Any] = {}
        for op in session.graph.get_operations():
            if op.type != "Placeholder" and all(tensor.op.name in frozen for tensor in op.inputs):
                frozen.add(op.name)
            else:
                constants |= {tensor.name: tensor for tensor in op.inputs if tensor.op.name in frozen}
        self._values: dict[str, Value] = {}
        for name, numbers in session.run(constants).items():
            self._values[name] = Value(name, constants[name].dtype.name, np.shape(numbers), np.asarray(numbers))
        self.operations: list[Operation] = []

    def placeholder(self, tensor: Any) -> Value:
        value = Value(tensor.op.name, tensor.dtype.name, self._row_shape(tensor))
        self._values[tensor.name] = value
        return value

    def value(self, tensor: Any) -> Value:
        """Return a tensor's value; what it follows from is read first."""
        if tensor.name not in self._values:
            self._read(tensor.op)
        return self._values[tensor.name]

    def _row_shape(self, tensor: Any) -> tuple[int, ...]:
        shape = tensor.shape.as_list() if tensor.shape.rank is not None else []
        if not shape or shape[0] is not None or None in shape[1:]:
            raise ExportError(
                f"model-as-code needs tensors of shape (rows, …) with fixed sizes; this one is {tensor.shape}",
                where=f"layer {layer_of(tensor.op.name)}",
                fix="leave c_source out of exporting.formats, or give the layer fixed sizes",
            )
        return tuple(shape[1:])

    def _read(self, op: Any) -> None:
        if op.type in _ALIASES:
            for passed, made in zip(op.inputs, op.outputs, strict=True):
                # IdentityN carries along what nobody reads, such as the gradient's inputs.
                if made.consumers() or made is op.outputs[0]:
                    self._values[made.name] = self.value(passed)
            return
        # The shape that a tensor is brought into is known already, and would depend on how many rows there are.
        read = op.inputs[:1] if op.type in _RESHAPES else op.inputs
        inputs = tuple(self.value(tensor) for tensor in read)
        outputs = tuple(Value(made.name, made.dtype.name, self._row_shape(made)) for made in op.outputs)
        for made, value in zip(op.outputs, outputs, strict=True):
            self._values[made.name] = value
        attributes: dict[str, Any] = {}
        names = {item.name for item in op.op_def.attr}
        for name in ("axis", "batch_dims"):
            if name in names:
                attributes[name] = op.get_attr(name)
        if op.type == "MatMul":
            attributes["transpose"] = op.get_attr("transpose_a") or op.get_attr("transpose_b")
        kind = "Reshape" if op.type in _RESHAPES else op.type
        self.operations.append(Operation(kind, op.name, inputs, outputs, attributes))


def read(source: Source) -> FrozenGraph:
    """Return the served signature with all variables as numbers, or what `share` left of it.

    Raises:
        ExportError: a tensor of it has no fixed size within a row.
    """
    shared = source.shared / _SHARED_FILE if source.shared else None
    if shared and shared.is_file():
        graph: FrozenGraph = pickle.loads(shared.read_bytes())  # noqa: S301 (this run's own file)
        return graph
    return _read(source.frozen)


def share(source: Source) -> None:
    """Leave the graph where processes without TensorFlow find it; a model that has none is refused where it is read."""
    if source.shared:
        with contextlib.suppress(ExportError):
            (source.shared / _SHARED_FILE).write_bytes(pickle.dumps(read(source)))


def _read(function: Any) -> FrozenGraph:
    import tensorflow as tf

    # A graph of its own: a session runs no function's graph.
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(function.graph.as_graph_def(), name="")
    with tf.compat.v1.Session(graph=graph) as session:
        reader = _Reader(session)
        order = [feature.name for feature in features.MODEL_INPUTS]
        tensors = [graph.get_tensor_by_name(tensor.name) for tensor in function.inputs]
        tensors.sort(key=lambda tensor: order.index(tensor.op.name) if tensor.op.name in order else len(order))
        inputs = tuple(reader.placeholder(tensor) for tensor in tensors)
        output = reader.value(graph.get_tensor_by_name(function.outputs[0].name))
    return FrozenGraph(inputs, tuple(reader.operations), output)
