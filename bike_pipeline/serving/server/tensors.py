"""What signatures take and give, and tensors of TF Serving's messages to numpy and back, without TensorFlow.

Every type that a client can send is read, in both encodings. What is accepted is what TensorFlow's `Tensor::FromProto`
accepts (tensorflow/core/framework/tensor.cc): raw bytes of the exact size, or a list of values that is cut or filled up
with its last value. Nothing is cast.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from bike_pipeline.serving.protos import saved_model_pb2, types_pb2
from bike_pipeline.serving.server.limits import check_rows
from bike_pipeline.serving.statuses import Code, StatusError, invalid

DEFAULT_SIGNATURE = "serving_default"
# The tag that TF Serving loads unless another is configured.
SERVE = "serve"
Array = npt.NDArray[Any]
# One input of one request: an array, or for plain rows a list of Python numbers, which is cheaper to join.
Column = Array | list[Any]
# All inputs of one request. A single plain row, the most frequent request, is its numbers in the signature's order.
Columns = Mapping[str, Column] | tuple[Any, ...]
Outputs = Mapping[str, Array]

# By number in tensorflow.DataType: the numpy type and the field of TensorProto that lists values.
_KINDS: dict[int, tuple[Any, str]] = {
    types_pb2.DT_FLOAT: (np.float32, "float_val"),
    types_pb2.DT_DOUBLE: (np.float64, "double_val"),
    types_pb2.DT_INT8: (np.int8, "int_val"),
    types_pb2.DT_INT16: (np.int16, "int_val"),
    types_pb2.DT_INT32: (np.int32, "int_val"),
    types_pb2.DT_INT64: (np.int64, "int64_val"),
    types_pb2.DT_UINT8: (np.uint8, "int_val"),
    types_pb2.DT_UINT16: (np.uint16, "int_val"),
    types_pb2.DT_UINT32: (np.uint32, "uint32_val"),
    types_pb2.DT_UINT64: (np.uint64, "uint64_val"),
    types_pb2.DT_BOOL: (np.bool_, "bool_val"),
    types_pb2.DT_STRING: (np.object_, "string_val"),
    types_pb2.DT_HALF: (np.float16, "half_val"),
    types_pb2.DT_BFLOAT16: (ml_dtypes.bfloat16, "half_val"),
    types_pb2.DT_COMPLEX64: (np.complex64, "scomplex_val"),
    types_pb2.DT_COMPLEX128: (np.complex128, "dcomplex_val"),
}
_NUMBERS = {np.dtype(kind): number for number, (kind, _) in _KINDS.items()}
STRING: int = types_pb2.DT_STRING
FLOAT: int = types_pb2.DT_FLOAT
INT64: int = types_pb2.DT_INT64
# numpy's, and fewer than TensorFlow's 254 (tensorflow/core/framework/tensor_shape.h).
MAX_RANK = 64
_FEW = 16
# A shape of a few bytes must not make us allocate what no request holds.
_MAX_FILLED = 1 << 16
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
        inputs: by name, as are outputs, in alphabetical order, as TF Serving's maps are walked.
        batches: whether the rows of several requests can be answered as one.
        plain: inputs with the Python type of a JSON number for them, if every one is one int64 or float32 a row.
        method: what it is for, as its SignatureDef says (tensorflow/serving/predict, …/classify, …/regress).
    """

    name: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    batches: bool
    plain: Mapping[str, type[Any]] = field(default_factory=dict)
    method: str = ""

    @cached_property
    def types(self) -> tuple[tuple[str, int], ...]:
        """Name and type of each input."""
        return tuple((name, spec.dtype) for name, spec in self.inputs.items())

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


def read_signatures(folder: Path) -> tuple[dict[str, Signature], Any]:
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


def name_of(dtype: int) -> str:
    """Return the name of a type as TensorFlow prints it, such as int64."""
    return str(types_pb2.DataType.Name(dtype)).removeprefix("DT_").lower() if dtype in _KINDS else f"type {dtype}"


def numpy_type(dtype: int) -> Any:
    """Return the numpy type of a number in `tensorflow.DataType`; strings are objects (bytes)."""
    return _KINDS[dtype][0]


def to_array(proto: Any, alias: str, most_rows: int | None = None) -> Array:
    """Return a TensorProto as an array.

    Raises:
        StatusError: it is no tensor (bytes of another length, a type that cannot be sent, an open shape), or says that
            it has more rows than `most_rows`, which is looked at before anything is made.
    """
    error = invalid(f"tensor parsing error: {alias}")
    if proto.dtype not in _KINDS or proto.tensor_shape.unknown_rank:
        raise error
    kind, field = _KINDS[proto.dtype]
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if len(shape) > MAX_RANK:
        raise invalid(f"tensor parsing error: {alias} has {len(shape)} dimensions, more than {MAX_RANK}")
    if shape and most_rows is not None:
        check_rows(shape[0], most_rows)
    size = math.prod(shape)
    if any(length < 0 for length in shape):
        raise error
    if proto.tensor_content:
        if kind is np.object_ or len(proto.tensor_content) != size * np.dtype(kind).itemsize:
            raise error
        return np.frombuffer(proto.tensor_content, kind).reshape(shape)
    values: Any = getattr(proto, field)
    flat: Array
    if field == "half_val":
        # Sixteen bits each, in an int32.
        flat = np.asarray(values, np.int64).astype(np.uint16).view(kind)
    elif field.endswith("complex_val"):
        flat = np.asarray(values, np.float64)[: len(values) // 2 * 2].view(np.complex128).astype(kind)
    else:
        # Through int64: an int_val outside its type wraps, as C's cast does.
        flat = np.asarray(values, np.int64).astype(kind) if field == "int_val" else np.asarray(values, kind)
    if size > max(len(flat), _MAX_FILLED):
        raise error
    if len(flat) < size:
        # With the last value; with the type's zero if there is none.
        last = flat[-1:] if len(flat) else np.array([b"" if kind is np.object_ else 0], kind)
        flat = np.concatenate([flat, np.repeat(last, size - len(flat))])
    return flat[:size].reshape(shape)


def of_type(dtype: int, array: Array, spec: TensorSpec, alias: str) -> Array:
    """Return an input that is an array already, or refuse another type than its signature's."""
    if dtype != spec.dtype:
        raise invalid(f"input {alias} is expected to be {name_of(spec.dtype)} but {name_of(dtype)} is provided")
    return array


def column(proto: Any, spec: TensorSpec, alias: str, most_rows: int | None = None) -> Column:
    """Return an input (see `to_array`), as a list if it is a few plain numbers, or refuse one of another type."""
    dims = proto.tensor_shape.dim
    if spec.shape == (-1,) and proto.dtype == spec.dtype and len(dims) == 1 and not proto.tensor_content:
        values = proto.float_val if spec.dtype == FLOAT else proto.int64_val if spec.dtype == INT64 else ()
        if 0 < len(values) == dims[0].size <= _FEW:
            return list(values)
    return of_type(proto.dtype, to_array(proto, alias, most_rows), spec, alias)


def plain_row(sent: Mapping[str, Any], signature: Signature) -> tuple[Any, ...]:
    """Return TensorProtos of plain inputs as a single row; an empty one if they are anything else."""
    row = []
    for name, kind in signature.plain.items():
        proto = sent[name]
        values, dims = proto.int64_val if kind is int else proto.float_val, proto.tensor_shape.dim
        is_one = len(values) == 1 and len(dims) == 1 and dims[0].size == 1
        if not is_one or proto.dtype != signature.inputs[name].dtype or proto.tensor_content:
            return ()
        row.append(values[0])
    return tuple(row)


def check_names(sent: Collection[str], specs: Mapping[str, TensorSpec]) -> None:
    """Refuse inputs that are not those of the signature, as TF Serving's predict_util.cc does."""
    if len(sent) == len(specs) and all(name in specs for name in sent):
        return
    extra, missing = sorted(set(sent) - set(specs)), sorted(set(specs) - set(sent))
    raise invalid(
        f"input size does not match signature: {len(sent)}!={len(specs)} len({{{','.join(sorted(sent))}}}) != "
        f"len({{{','.join(specs)}}}). Sent extra: {{{','.join(extra)}}}. Missing but required: {{{','.join(missing)}}}."
    )


def _shape(values: Column) -> tuple[int, ...]:
    # A list is one of plain numbers.
    return (len(values),) if isinstance(values, list) else values.shape


def _is_as_wanted(shape: tuple[int, ...], spec: TensorSpec) -> bool:
    wanted = spec.shape
    return wanted is None or (
        len(shape) == len(wanted) and all(size in (-1, got) for size, got in zip(wanted, shape, strict=True))
    )


def rows_of(columns: Columns, signature: Signature) -> int | None:
    """Return the rows of a request that can share a call with others; None if it cannot.

    It cannot if its signature does not batch, if inputs have other shapes than the signature says (which TF Serving
    leaves to the model), or if they have different numbers of rows.
    """
    if isinstance(columns, tuple):
        return 1
    rows: int | None = None
    for name, values in columns.items() if signature.batches else ():
        spec = signature.inputs[name]
        if not (isinstance(values, list) and spec.shape == (-1,)) and not _is_as_wanted(_shape(values), spec):
            return None
        if rows not in (None, len(values)):
            return None
        rows = len(values)
    return rows


def most_rows(columns: Columns) -> int:
    """Return the largest first dimension of a request's inputs."""
    if isinstance(columns, tuple):
        return 1
    return max((shape[0] for shape in map(_shape, columns.values()) if shape), default=0)


def unfitting(columns: Columns, signature: Signature) -> StatusError:
    """Return why a model that takes nothing but rows does not take these inputs (see `rows_of`)."""
    assert not isinstance(columns, tuple)
    for name, values in columns.items():
        spec, shape = signature.inputs[name], _shape(values)
        if not _is_as_wanted(shape, spec):
            wanted = ",".join("?" if size == -1 else str(size) for size in spec.shape or ())
            return invalid(f"input {name} is expected to have the shape [{wanted}] but has {list(shape)}")
    first, *others = ((name, len(values)) for name, values in columns.items())
    name, length = next(other for other in others if other[1] != first[1])
    return invalid(f"Tensor name: {name} has inconsistent batch size: {length} expecting: {first[1]}")


def column_of(proto: Any, dtype: int) -> tuple[Any, Any]:
    """Make an empty TensorProto one of a column; return the dimension that is its length, and the list of values."""
    proto.dtype = dtype
    return proto.tensor_shape.dim.add(), getattr(proto, _KINDS[dtype][1])


def fill(proto: Any, array: Array) -> None:
    """Write an array into an empty TensorProto, as a list of values, which is TF Serving's default."""
    dtype = _NUMBERS[array.dtype] if array.dtype.kind not in "SU" else types_pb2.DT_STRING
    proto.dtype = dtype
    for length in array.shape:
        proto.tensor_shape.dim.add().size = length
    field = _KINDS[dtype][1]
    flat: Any = array.ravel()
    if field == "half_val":
        flat = flat.view(np.uint16)
    elif field.endswith("complex_val"):
        flat = np.stack([flat.real, flat.imag], axis=-1).ravel()
    values = flat.tolist()
    if field == "string_val":
        values = [value.encode() if isinstance(value, str) else bytes(value) for value in values]
    getattr(proto, field).extend(values)
