"""What messages hold; of large ones it is found out in the process beside the server (see `parsing`).

Every function is called with the message first, and raises what is answered: a StatusError for what is too deep, holds
too much, or cannot be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bike_pipeline.serving.protos import predict_pb2
from bike_pipeline.serving.security.limits import SMALL, check_json, check_rows
from bike_pipeline.serving.server import examples_api, json_format, json_values, tensors
from bike_pipeline.serving.server.answering import signature_of
from bike_pipeline.serving.server.json_format import Format
from bike_pipeline.serving.server.tensors import Array, Columns, Signature
from bike_pipeline.serving.statuses import invalid
from bike_pipeline.settings.serving import LimitSettings

# More than any signature has; each costs the server itself some time.
_MOST_PARTS = 4096


def rest_readable(content: bytes, limits: LimitSettings) -> None:
    """Refuse a REST body that cannot be read, whatever it asks for."""
    _parsed(content, limits)


def _parsed(content: bytes, limits: LimitSettings) -> dict[str, Any]:
    if len(content) > SMALL:
        # The guard has looked at the others.
        check_json(content, limits)
    return json_values.parse(content)


def rest_predict(content: bytes, limits: LimitSettings, found: Mapping[str, Signature]) -> tuple[str, Columns, Format]:
    """Return signature, inputs and format of a predict request to a version with these signatures."""
    body = _parsed(content, limits)
    signature = signature_of(found, body.get("signature_name", ""), rest=True)
    columns, form = json_format.inputs_of(body, signature)
    if not isinstance(columns, tuple) and len(content) > SMALL:
        check_rows(tensors.most_rows(columns), limits.rows)
        # Lists are dear to hand over.
        columns = {n: np.asarray(one, tensors.numpy_type(signature.inputs[n].dtype)) for n, one in columns.items()}
    return signature.name, columns, form


def rest_examples(content: bytes, limits: LimitSettings) -> tuple[str, dict[str, Array]]:
    """Return the signature's name and the inputs of a classify or regress request."""
    body = _parsed(content, limits)
    return body.get("signature_name", ""), _examples(examples_api.input_of(body), limits)


def _examples(proto: Any, limits: LimitSettings) -> dict[str, Array]:
    columns = examples_api.columns_of(proto)
    check_rows(tensors.most_rows(columns), limits.rows)
    return columns


def grpc_inputs(message: bytes, limits: LimitSettings, kind: Any) -> tuple[bytes, dict[str, Any]]:
    """Return a request of a kind without its inputs, and these as arrays by name.

    Those of a PredictRequest come each with its type; tf.Examples are the inputs that their signature has.
    """
    request = read(kind, message)
    for field, name in (("inputs", "inputs"), ("output_filter", "output filters"), ("tasks", "tasks")):
        if len(getattr(request, field, ())) > _MOST_PARTS:
            raise invalid(f"The request has more than {_MOST_PARTS} {name}.")
    found: dict[str, Any]
    if kind is predict_pb2.PredictRequest:
        found = {name: (one.dtype, tensors.to_array(one, name, limits.rows)) for name, one in request.inputs.items()}
        request.ClearField("inputs")
    else:
        found = _examples(request.input, limits)
        request.ClearField("input")
    request.DiscardUnknownFields()
    return request.SerializeToString(), found


def read(kind: Any, message: bytes) -> Any:
    """Return a message of a kind, or refuse it."""
    try:
        return kind.FromString(message)
    except Exception:  # noqa: BLE001 - protobuf's DecodeError, whose place differs between its releases
        raise invalid("the message cannot be parsed") from None
