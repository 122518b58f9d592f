"""What both protocols do with a request: read it, find the signature, ask the model, count; and what a version says.

A large message is read in the process beside the server (see `parsing`): what reads it is a function that is called
with the message first, and raises a StatusError for what is too deep, holds too much, or cannot be read. Metadata and
status of models are TF Serving's messages, which the REST API prints as JSON.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from google.protobuf.json_format import MessageToDict

from bike_pipeline.serving.protos import get_model_metadata_pb2, get_model_status_pb2, predict_pb2
from bike_pipeline.serving.server import examples_api, json_format, json_values, tensors
from bike_pipeline.serving.server.json_format import Format
from bike_pipeline.serving.server.limits import SMALL, check_json, check_rows
from bike_pipeline.serving.server.metrics import Metrics
from bike_pipeline.serving.server.model_versions import ModelVersions
from bike_pipeline.serving.server.parsing import Parsing
from bike_pipeline.serving.server.request_log import Kept, RequestLog
from bike_pipeline.serving.server.served_version import ServedVersion
from bike_pipeline.serving.server.tensors import DEFAULT_SIGNATURE, Array, Column, Columns, Outputs, Signature
from bike_pipeline.serving.statuses import Code, StatusError, invalid
from bike_pipeline.settings.serving import LimitSettings

_FIELD = "signature_def"
# Of one request, more than any signature has; each costs the server itself some time.
_MOST_PARTS = 4096


class Counted:
    """One request as the metrics count it, from here to its answer; a context manager."""

    __slots__ = ("_api", "_asked", "_began", "_entrypoint", "_log", "_metrics", "_model", "_rate", "_request_id")

    def __init__(self, answers: Answering, request_id: str, model: str, entrypoint: str, api: str = "Predict") -> None:
        """Begin; the entry point is REST or GRPC, the API Predict, Classify, Regress or MultiInference."""
        self._metrics, self._entrypoint, self._api = answers.metrics, entrypoint, api
        self._model = model if model in answers.versions.models else "unknown"
        self._request_id = request_id
        self._asked: list[Kept] = []
        self._began = time.perf_counter_ns()
        self._rate = 0.0 if answers.log is None else answers.log.takes(request_id, self._began)
        self._log = answers.log if self._rate else None

    def __enter__(self) -> Counted:
        return self

    def answered(self, version: ServedVersion, signature: Signature, columns: Columns, outputs: Outputs) -> None:
        """Keep what a version was asked and answered for the request log, if there is one."""
        if self._log is not None:
            self._asked.append(self._log.asked(version, signature, columns, outputs))

    def __exit__(self, _: object, error: BaseException | None, trace: object) -> None:
        # A request is cancelled if whoever asked is gone.
        unforeseen = Code.CANCELLED if isinstance(error, asyncio.CancelledError) else Code.INTERNAL
        code = error.code if isinstance(error, StatusError) else unforeseen if error else Code.OK
        self._metrics.request_count.add((self._model, code.name))
        took = time.perf_counter_ns() - self._began
        self._metrics.request_latency.add((self._model, self._api, self._entrypoint), took / 1e3)
        if self._log is not None:
            protocol = "http" if self._entrypoint == "REST" else "grpc"
            for number, asked in enumerate(self._asked if code is Code.OK else (None,)):
                # A request of several tasks is told as one of each.
                name = f"{self._request_id}.{number}" if number else self._request_id
                began = time.time_ns() - took
                self._log.add((began, took, name, protocol, self._model, code.name, self._rate), asked)


class Answering:
    """Asks models on behalf of requests within the limits, and counts them; `parsing` reads what is large."""

    def __init__(
        self,
        versions: ModelVersions,
        metrics: Metrics,
        parsing: Parsing,
        limits: LimitSettings,
        log: RequestLog | None = None,
    ) -> None:
        self.versions, self.metrics, self.parsing, self.limits, self.log = versions, metrics, parsing, limits, log

    async def predict(
        self, counted: Counted, version: ServedVersion, signature: Signature, columns: Columns
    ) -> Outputs:
        """Return the outputs of one request to a version that the caller keeps in memory.

        A StatusError says that the model refuses, that too many wait, that it took too long, or that there are more
        rows than one request may have.
        """
        rows = tensors.rows_of(columns, signature)
        most = tensors.most_rows(columns) if rows is None else rows
        check_rows(most, self.limits.rows)
        batcher = version.batchers.get(signature.name) or await version.batcher(signature)
        if rows is None and not batcher.backend.any_shape:
            raise tensors.unfitting(columns, signature)
        if isinstance(columns, tuple) or rows is None or rows <= batcher.max_rows:
            outputs = await batcher.submit(columns, rows)
        else:
            outputs = await batcher.in_parts(columns, rows)
        self.metrics.example_count.add((version.model,), most)
        self.metrics.example_counts.add((version.model,), most)
        counted.answered(version, signature, columns, outputs)
        return outputs

    async def examples(
        self, counted: Counted, version: ServedVersion, signature: Signature, columns: Mapping[str, Column]
    ) -> Any:
        """Return the results of a classify or regress signature (see `examples_api.results_of`)."""
        outputs = await self.predict(counted, version, signature, columns)
        return examples_api.results_of(signature.method, outputs, tensors.most_rows(columns))


def signature_of(found: Mapping[str, Signature], name: str, rest: bool) -> Signature:
    """Return the signature that a predict request asks for, or refuse; REST and gRPC do so with different codes."""
    name = name or DEFAULT_SIGNATURE
    if name in found:
        return found[name]
    if rest:
        raise invalid(f'Serving signature name: "{name}" not found in signature def')
    raise StatusError(Code.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')


def rest_readable(content: bytes, limits: LimitSettings) -> None:
    """Refuse a REST body that cannot be read, whatever it asks for."""
    _parsed(content, limits)


def _parsed(content: bytes, limits: LimitSettings) -> dict[str, Any]:
    if len(content) > SMALL:
        # The others were looked at when they were read.
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


def status(versions: Iterable[ServedVersion]) -> Any:
    """Return a GetModelStatusResponse."""
    response = get_model_status_pb2.GetModelStatusResponse()
    for version in versions:
        entry = response.model_version_status.add(version=version.number, state=version.state)
        entry.status.error_code = int(version.error.code) if version.error else 0
        entry.status.error_message = version.error.message if version.error else ""
    return response


def metadata(version: ServedVersion, fields: Iterable[str]) -> Any:
    """Return a GetModelMetadataResponse, or refuse fields that there are not."""
    wanted = list(fields)
    if not wanted:
        raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
    if others := [name for name in wanted if name != _FIELD]:
        raise invalid(f"Metadata field {others[0]} is not supported")
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = version.model
    response.model_spec.version.value = version.number
    response.metadata[_FIELD].Pack(_signatures(version))
    return response


def _signatures(version: ServedVersion) -> Any:
    found = get_model_metadata_pb2.SignatureDefMap()
    for name, definition in version.loaded.definitions.items():
        found.signature_def[name].CopyFrom(definition)
    return found


def as_json(message: Any) -> dict[str, Any]:
    """Return a message as JSON says it: fields by their own names, default values too, 64-bit numbers as texts."""
    return MessageToDict(message, always_print_fields_with_no_presence=True, preserving_proto_field_name=True)


def metadata_json(version: ServedVersion) -> dict[str, Any]:
    """Return a model's metadata as the REST API says it."""
    spec = metadata(version, [_FIELD]).model_spec
    return {"model_spec": as_json(spec), "metadata": {_FIELD: as_json(_signatures(version))}}
