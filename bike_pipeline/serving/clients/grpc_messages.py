"""TF Serving's gRPC protocol: requests and answers of the official protocol buffers, without a network."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from bike_pipeline import features
from bike_pipeline.serving import stubs
from bike_pipeline.serving.clients import answers
from bike_pipeline.serving.clients.answers import Arrays, ModelMetadata, Signature, TensorInfo, VersionStatus
from bike_pipeline.serving.clients.connection import Connection
from bike_pipeline.serving.clients.core import Exchange, Rentals
from bike_pipeline.serving.clients.errors import TRUST, ClientError, error_of, timed_out

PREDICTION, MODEL, HEALTH = "PredictionService", "ModelService", "Health"
_APIS = "tensorflow_serving.apis"


class GrpcMessages:
    """Requests to one model as protocol buffers."""

    def __init__(self, connection: Connection) -> None:
        """Keep which model, version or label is asked."""
        self._connection = connection
        self._predict, self._metadata_pb2, self._status_pb2, self._tensor, self._types = stubs.load(
            f"{_APIS}.predict_pb2",
            f"{_APIS}.get_model_metadata_pb2",
            f"{_APIS}.get_model_status_pb2",
            "tensorflow.core.framework.tensor_pb2",
            "tensorflow.core.framework.types_pb2",
        )

    def predict(self, columns: Arrays) -> Exchange[Rentals]:
        """Return the request for predictions."""
        rows = len(next(iter(columns.values())))
        request = self._predict.PredictRequest()
        self._specify(request.model_spec)
        request.model_spec.signature_name = self._connection.signature
        for name, values in columns.items():
            self._fill(request.inputs[name], values)
        return Exchange("Predict", PREDICTION, request, functools.partial(self._rentals, rows))

    def status(self) -> Exchange[list[VersionStatus]]:
        """Return the request for the states of all versions, or of the one that is asked."""
        request = self._status_pb2.GetModelStatusRequest()
        self._specify(request.model_spec)
        return Exchange("GetModelStatus", MODEL, request, self._status)

    def metadata(self) -> Exchange[ModelMetadata]:
        """Return the request for the signatures."""
        request = self._metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        self._specify(request.model_spec)
        return Exchange("GetModelMetadata", PREDICTION, request, self._metadata)

    def health(self) -> Exchange[bool]:
        """Return the request whether the PredictionService serves."""
        from grpc_health.v1 import health_pb2

        request = health_pb2.HealthCheckRequest(service=f"tensorflow.serving.{PREDICTION}")
        return Exchange("Check", HEALTH, request, lambda found: bool(found.status == found.SERVING))

    def _specify(self, spec: Any) -> None:
        spec.name = self._connection.model
        if self._connection.version is not None:
            spec.version.value = self._connection.version
        elif self._connection.label:
            spec.version_label = self._connection.label

    def _fill(self, tensor: Any, values: Any) -> None:
        kind = self._types.DT_INT64 if values.dtype.kind == "i" else self._types.DT_FLOAT
        tensor.dtype = kind
        tensor.tensor_shape.dim.add(size=len(values))
        if len(values) == 1:
            # As TensorFlow writes it, and what servers read fastest.
            (tensor.int64_val if kind == self._types.DT_INT64 else tensor.float_val).append(values[0].item())
            return
        # A tensor's bytes are little-endian on every machine.
        tensor.tensor_content = values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()

    def _rentals(self, rows: int, response: Any) -> Rentals:
        where = self._connection.where
        if features.LABEL not in response.outputs:
            raise answers.no_answer(f"the answer has no output {features.LABEL}", where)
        tensor = response.outputs[features.LABEL]
        if tensor.dtype != self._types.DT_FLOAT:
            raise answers.no_answer(f"the output {features.LABEL} holds no float32 numbers", where)
        if tensor.tensor_content:
            return answers.rentals(np.frombuffer(tensor.tensor_content, "<f4"), rows, where)
        values = np.asarray(tensor.float_val, np.float32)
        if 0 < len(values) < rows:
            # TensorProto: where fewer values stand than there are elements, the last one is repeated.
            values = np.concatenate([values, np.full(rows - len(values), values[-1], np.float32)])
        return answers.rentals(values, rows, where)

    def _status(self, response: Any) -> list[VersionStatus]:
        status_pb2 = self._status_pb2
        (codes,) = stubs.load("tensorflow.core.protobuf.error_codes_pb2")
        return [
            VersionStatus(
                one.version,
                status_pb2.ModelVersionStatus.State.Name(one.state),
                codes.Code.Name(one.status.error_code),
                one.status.error_message,
            )
            for one in response.model_version_status
        ]

    def _metadata(self, response: Any) -> ModelMetadata:
        found = self._metadata_pb2.SignatureDefMap()
        if not response.metadata["signature_def"].Unpack(found):
            raise answers.no_answer("the metadata hold no signatures", self._connection.where)
        signatures = {
            name: Signature(self._tensors(one.inputs), self._tensors(one.outputs))
            for name, one in found.signature_def.items()
        }
        return ModelMetadata(response.model_spec.name, response.model_spec.version.value, signatures)

    def _tensors(self, infos: Any) -> dict[str, TensorInfo]:
        return {
            name: TensorInfo(
                self._types.DataType.Name(one.dtype),
                None if one.tensor_shape.unknown_rank else tuple(dim.size for dim in one.tensor_shape.dim),
            )
            for name, one in infos.items()
        }


def error(failure: Any, connection: Connection) -> ClientError:
    """Return the error for a `grpc.RpcError`.

    Args:
        failure: the error of a call.
        connection: the server that was asked.
    """
    code = failure.code().name
    if code == "DEADLINE_EXCEEDED":
        return timed_out(connection.timeout, connection.where)
    trailers = {key.lower(): value for key, value in failure.trailing_metadata() or ()}
    seconds = None
    try:
        if "grpc-retry-pushback-ms" in trailers:
            # gRFC A6; a negative number means: not again.
            seconds = float(trailers["grpc-retry-pushback-ms"]) / 1000
        elif "retry-after" in trailers:
            seconds = float(trailers["retry-after"])
    except ValueError:
        seconds = None
    # gRPC puts what failed on every address before the words of the last one.
    said = str(failure.details() or "").rpartition("last error: ")[2]
    found = error_of(code, said, connection.where, seconds if seconds is not None and seconds >= 0 else None)
    if "handshake" in said.lower() or "certificate" in said.lower():
        found.give_up(TRUST)
    return found


def options() -> list[tuple[str, int]]:
    """Return the options of every channel: messages of any size, our own retries, and no proxy of the environment."""
    return [
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        ("grpc.enable_retries", 0),
        ("grpc.enable_http_proxy", 0),
        # gRPC waits a second and more before it connects again, in which every try fails at once.
        ("grpc.initial_reconnect_backoff_ms", 20),
        ("grpc.min_reconnect_backoff_ms", 20),
        ("grpc.max_reconnect_backoff_ms", 1000),
    ]


def services(channel: Any) -> dict[str, Any]:
    """Return the official stubs on a channel, by the service's name."""
    from grpc_health.v1 import health_pb2_grpc

    prediction, model = stubs.load(f"{_APIS}.prediction_service_pb2_grpc", f"{_APIS}.model_service_pb2_grpc")
    return {
        PREDICTION: prediction.PredictionServiceStub(channel),
        MODEL: model.ModelServiceStub(channel),
        HEALTH: health_pb2_grpc.HealthStub(channel),
    }


def channel(connection: Connection) -> Any:
    """Return a blocking channel, encrypted where the connection is; the first call connects it.

    Raises:
        ConfigurationError: a file cannot be read or holds no certificate or key.
    """
    import grpc

    if connection.tls:
        return grpc.secure_channel(connection.authority, channel_credentials(connection), options())
    return grpc.insecure_channel(connection.authority, options())


def channel_credentials(connection: Connection) -> Any:
    """Return what verifies the server and proves who we are, as gRPC wants it.

    Raises:
        ConfigurationError: a file cannot be read or holds no certificate or key.
    """
    import grpc

    # gRPC tells only its log what is wrong with a file; the standard library says it.
    connection.ssl_context()
    return grpc.ssl_channel_credentials(
        connection.pem(connection.ca_file), connection.pem(connection.key), connection.pem(connection.certificate)
    )
