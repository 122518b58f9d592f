"""What a SavedModel's signatures take and give, read from its proto alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any

from bike_pipeline.serving.protos import saved_model_pb2, types_pb2
from bike_pipeline.serving.statuses import Code, StatusError

DEFAULT = "serving_default"
# The tag that TF Serving loads unless another is configured.
SERVE = "serve"


@dataclass(frozen=True)
class TensorSpec:
    """An input or output: its number in `tensorflow.DataType`, and its sizes, -1 for any; None for any rank."""

    dtype: int
    shape: tuple[int, ...] | None

    @property
    def is_batch(self) -> bool:
        """Whether the first dimension is the rows of a batch and nothing else is open."""
        return bool(self.shape) and self.shape is not None and self.shape[0] == -1 and -1 not in self.shape[1:]


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
    plain: tuple[tuple[str, Any], ...] = ()
    method: str = ""

    @cached_property
    def plain_kinds(self) -> tuple[Any, ...]:
        return tuple(kind for _, kind in self.plain)

    @cached_property
    def plain_values(self) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
        """Takes the values of `plain` out of an object, in their order; a KeyError if one is missing."""
        names = [name for name, _ in self.plain]
        if len(names) > 1:
            return itemgetter(*names)
        return lambda found: tuple(found[name] for name in names)


def _tensor(info: Any) -> TensorSpec:
    shape = info.tensor_shape
    return TensorSpec(info.dtype, None if shape.unknown_rank else tuple(dim.size for dim in shape.dim))


def _signature(name: str, definition: Any) -> Signature:
    inputs = {n: _tensor(definition.inputs[n]) for n in sorted(definition.inputs)}
    outputs = {n: _tensor(definition.outputs[n]) for n in sorted(definition.outputs)}
    tensors = [*inputs.values(), *outputs.values()]
    kinds = {types_pb2.DT_INT64: int, types_pb2.DT_FLOAT: float}
    plain = tuple((n, kinds[spec.dtype]) for n, spec in inputs.items() if spec.dtype in kinds and spec.shape == (-1,))
    return Signature(
        name,
        inputs,
        outputs,
        batches=bool(inputs) and all(spec.is_batch for spec in tensors),
        plain=plain if len(plain) == len(inputs) else (),
        method=definition.method_name,
    )


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
