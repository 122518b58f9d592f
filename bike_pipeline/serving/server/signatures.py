"""What a SavedModel's signatures take and give, read from its proto alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any

from bike_pipeline.serving.protos import saved_model_pb2, types_pb2
from bike_pipeline.serving.statuses import Code, StatusError

DEFAULT = "serving_default"
# The tag that TF Serving loads unless another is configured.
SERVE = "serve"


# Types of inputs that a JSON number fits as it is, with its type in Python.
_PLAIN = {types_pb2.DT_INT64: int, types_pb2.DT_FLOAT: float}


@dataclass(frozen=True)
class TensorSpec:
    """An input or output: its number in `tensorflow.DataType`, and its sizes, -1 for any; None for any rank."""

    dtype: int
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class Signature:
    """One signature.

    Attributes:
        inputs: by name, in alphabetical order, as TF Serving's maps are walked.
        outputs: the same.
        batches: whether the rows of several requests can be answered as one.
        plain: inputs with the Python type of a JSON number that fits them as it is, if every input is one int64 or
            float32 a row; else empty.
        method: what it is for, as its SignatureDef says (tensorflow/serving/predict, …/classify, …/regress).
    """

    name: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    batches: bool
    plain: Mapping[str, type[Any]] = field(default_factory=dict)
    method: str = ""

    @cached_property
    def plain_values(self) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
        """Takes the values of `plain` out of an object, in their order; a KeyError if one is missing."""
        first, *others = self.plain
        return itemgetter(first, *others) if others else lambda found: (found[first],)


def _tensors(infos: Any) -> dict[str, TensorSpec]:
    shapes = {name: infos[name].tensor_shape for name in sorted(infos)}
    return {
        name: TensorSpec(infos[name].dtype, None if shape.unknown_rank else tuple(dim.size for dim in shape.dim))
        for name, shape in shapes.items()
    }


def _signature(name: str, definition: Any) -> Signature:
    inputs, outputs = _tensors(definition.inputs), _tensors(definition.outputs)
    shapes = [spec.shape or () for spec in (*inputs.values(), *outputs.values())]
    # The first dimension is the rows of a batch, and nothing else is open.
    batches = bool(inputs) and all(shape[:1] == (-1,) and -1 not in shape[1:] for shape in shapes)
    plain = {n: _PLAIN[spec.dtype] for n, spec in inputs.items() if spec.dtype in _PLAIN and spec.shape == (-1,)}
    return Signature(name, inputs, outputs, batches, plain if len(plain) == len(inputs) else {}, definition.method_name)


def read(folder: Path) -> tuple[dict[str, Signature], Any]:
    """Return the signatures of a SavedModel by name, and the same as `{name: SignatureDef}` for its metadata."""
    path = folder / "saved_model.pb"
    proto = saved_model_pb2.SavedModel()
    try:
        proto.ParseFromString(path.read_bytes())
    except OSError as error:
        raise StatusError(Code.NOT_FOUND, f"cannot read {path.name} ({error.strerror or error})") from None
    except Exception as error:  # noqa: BLE001 - protobuf's DecodeError, whose place differs between its releases
        raise StatusError(Code.DATA_LOSS, f"{path.name} is no SavedModel ({type(error).__name__})") from None
    for graph in proto.meta_graphs:
        if SERVE in graph.meta_info_def.tags:
            # Names that begin so belong to TensorFlow itself.
            definitions = {n: d for n, d in graph.signature_def.items() if n != "__saved_model_init_op"}
            return {name: _signature(name, found) for name, found in definitions.items()}, definitions
    raise StatusError(Code.NOT_FOUND, f"{path.name} has no graph with the tag '{SERVE}'")
