"""What a model server tells about its models, and columns as it takes them: the same for both protocols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bike_pipeline import features
from bike_pipeline.serving.clients.errors import BadRequestError, ServerFailureError

Columns = Mapping[str, Sequence[Any] | npt.NDArray[Any]]
Arrays = dict[str, npt.NDArray[Any]]
_DTYPES = {"int": np.int64, "float": np.float32}


@dataclass(frozen=True)
class VersionStatus:
    """The state of one version: START, LOADING, AVAILABLE, UNLOADING or END, and what went wrong."""

    version: int
    state: str
    error_code: str = "OK"
    error_message: str = ""

    @property
    def available(self) -> bool:
        return self.state == "AVAILABLE"


@dataclass(frozen=True)
class TensorInfo:
    """An input or output: TensorFlow's name of its type, and its sizes, -1 for any; None for any rank."""

    dtype: str
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class SignatureInfo:
    """What a signature takes and gives, by name."""

    inputs: dict[str, TensorInfo]
    outputs: dict[str, TensorInfo]


@dataclass(frozen=True)
class ModelMetadata:
    """What a version of the model takes and gives, by the signature's name."""

    model: str
    version: int
    signatures: dict[str, SignatureInfo]


def arrays(columns: Columns) -> Arrays:
    """Return the model's inputs as arrays of the types that its signature has, shape (rows,) each, or refuse them."""
    missing = [feature.name for feature in features.MODEL_INPUTS if feature.name not in columns]
    if missing:
        raise BadRequestError(f"missing: {', '.join(missing)}", where="columns", fix="give one column for every input")
    found: Arrays = {}
    for feature in features.MODEL_INPUTS:
        try:
            found[feature.name] = np.asarray(columns[feature.name], _DTYPES[feature.kind])
        except (TypeError, ValueError, OverflowError) as error:
            raise BadRequestError(str(error), where=f"column {feature.name}", fix=f"give {feature.kind}s") from None
    shapes = {values.shape for values in found.values()}
    if len(shapes) > 1 or len(next(iter(shapes))) != 1:
        raise BadRequestError(
            f"shapes differ or are no columns: {sorted(shapes)}", where="columns", fix="give the same rows in each"
        )
    return found


def rentals(values: Any, rows: int, where: str) -> npt.NDArray[np.float32]:
    """Return a server's answer as rentals an hour, shape (rows,), or refuse what is no number a row."""
    try:
        found = np.asarray(values, np.float32)
    except (TypeError, ValueError):
        found = np.zeros(0, np.float32)
    if found.size != rows:
        raise no_answer(f"the answer holds no number for each of the {rows} rows", where)
    return found.reshape(rows)


def no_answer(what: str, where: str) -> ServerFailureError:
    """Return the error for something that no server of this model answers."""
    return ServerFailureError(what, where=where, fix="check that the address is a model server's, and the model's name")


def statuses(response: Any) -> list[VersionStatus]:
    """Return what a GetModelStatusResponse says of each version."""
    from bike_pipeline.serving import protos

    state, code = protos.get_model_status_pb2.ModelVersionStatus.State, protos.error_codes_pb2.Code
    return [
        VersionStatus(one.version, state.Name(one.state), code.Name(one.status.error_code), one.status.error_message)
        for one in response.model_version_status
    ]


def model_metadata(model: str, version: int, definitions: Any) -> ModelMetadata:
    """Return what a SignatureDefMap says of a version."""
    signatures = {
        name: SignatureInfo(_tensors(one.inputs), _tensors(one.outputs))
        for name, one in definitions.signature_def.items()
    }
    return ModelMetadata(model, version, signatures)


def _tensors(infos: Any) -> dict[str, TensorInfo]:
    from bike_pipeline.serving.protos import types_pb2

    return {
        name: TensorInfo(
            types_pb2.DataType.Name(one.dtype),
            None if one.tensor_shape.unknown_rank else tuple(dim.size for dim in one.tensor_shape.dim),
        )
        for name, one in infos.items()
    }
