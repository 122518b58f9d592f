"""What messages hold; of large ones it is found out in the process beside the server (see `parsing`).

Every function is called with the message first, and raises what is answered: a StatusError for what is too deep, holds
too much, a StatusError for what cannot be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import Any

import numpy as np

from bike_pipeline.serving.protos import classification_pb2, inference_pb2, predict_pb2, regression_pb2
from bike_pipeline.serving.security.request_size import SMALL, check_json, check_rows
from bike_pipeline.serving.server import examples_api, json_format, tensors
from bike_pipeline.serving.server.answering import signature_of
from bike_pipeline.serving.server.batching import Columns
from bike_pipeline.serving.server.json_format import Format
from bike_pipeline.serving.server.signatures import Signature
from bike_pipeline.serving.server.tensors import Array
from bike_pipeline.serving.statuses import invalid
from bike_pipeline.settings.serving_security import LimitSettings

# More than any signature has; each costs the server itself some time.
_MOST_PARTS = 4096
_EXAMPLES = {
    "Classify": classification_pb2.ClassificationRequest,
    "Regress": regression_pb2.RegressionRequest,
    "MultiInference": inference_pb2.MultiInferenceRequest,
}


def rest_readable(content: bytes, limits: LimitSettings) -> None:
    """Refuse a REST body that cannot be read, whatever it asks for."""
    _parsed(content, limits)


def _parsed(content: bytes, limits: LimitSettings) -> json_format.Request:
    if len(content) > SMALL:
        # The guard has looked at the others.
        check_json(content, limits)
    return json_format.parse(content)


def rest_predict(
    content: bytes, limits: LimitSettings, found: Mapping[str, Signature]
) -> tuple[str, Columns, int | None, Format]:
    """Return signature, inputs, rows and format of a predict request to a version with these signatures."""
    parsed = _parsed(content, limits)
    signature = signature_of(found, parsed.signature, rest=True)
    columns, rows, form = json_format.inputs_of(parsed, signature)
    if not isinstance(columns, tuple) and len(content) > SMALL:
        check_rows(tensors.most_rows(columns), limits.rows)
        # Lists are dear to hand over.
        kinds = {name: tensors.numpy_type(spec.dtype) for name, spec in signature.inputs.items()}
        columns = {name: np.asarray(column, kinds[name]) for name, column in columns.items()}
    return signature.name, columns, rows, form


def rest_examples(content: bytes, limits: LimitSettings) -> tuple[str, dict[str, Array]]:
    """Return the signature's name and the inputs of a classify or regress request."""
    parsed = _parsed(content, limits)
    columns = examples_api.columns_of(examples_api.input_of(parsed))
    check_rows(tensors.most_rows(columns), limits.rows)
    return parsed.signature, columns


def grpc_predict(message: bytes, limits: LimitSettings) -> tuple[bytes, dict[str, tuple[int, Array]]]:
    """Return a PredictRequest without its inputs, and these as arrays, each with its type."""
    request = read(predict_pb2.PredictRequest, message)
    _check_number(request.inputs, "inputs")
    found = {name: (proto.dtype, tensors.to_array(proto, name, limits.rows)) for name, proto in request.inputs.items()}
    _check_number(request.output_filter, "output filters")
    request.ClearField("inputs")
    return _rest(request), found


def grpc_examples(message: bytes, limits: LimitSettings, method: str) -> tuple[bytes, dict[str, Array]]:
    """Return a request of a method that takes tf.Examples without these, and these as the signature's inputs."""
    request = read(_EXAMPLES[method], message)
    columns = examples_api.columns_of(request.input)
    check_rows(tensors.most_rows(columns), limits.rows)
    if method == "MultiInference":
        _check_number(request.tasks, "tasks")
    request.ClearField("input")
    return _rest(request), columns


def read(kind: Any, message: bytes) -> Any:
    """Return a message of a kind, or refuse it."""
    try:
        return kind.FromString(message)
    except Exception:  # noqa: BLE001 - protobuf's DecodeError, whose place differs between its releases
        raise invalid("the message cannot be parsed") from None


def _rest(request: Any) -> bytes:
    request.DiscardUnknownFields()
    content: bytes = request.SerializeToString()
    return content


def _check_number(parts: Sized, name: str) -> None:
    if len(parts) > _MOST_PARTS:
        raise invalid(f"The request has more than {_MOST_PARTS} {name}.")
