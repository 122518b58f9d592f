"""gRPC: requests and answers of the official protocol buffers, sent by grpcio."""

from __future__ import annotations

import functools
import os
from typing import Any

import numpy as np

from bike_pipeline.serving import protos
from bike_pipeline.serving.clients import core
from bike_pipeline.serving.clients.connection import Connection, Value
from bike_pipeline.serving.clients.core import Arrays, Client, Exchange, ModelMetadata, Rentals, VersionStatus
from bike_pipeline.serving.clients.errors import ClientError, error_of, timed_out, untrusted
from bike_pipeline.serving.protos import types_pb2

PREDICTION, MODEL, HEALTH = "PredictionService", "ModelService", "Health"
_APIS = "tensorflow_serving.apis"


def error(failure: Any, connection: Connection) -> ClientError:
    """Return the error for a `grpc.RpcError`."""
    code = failure.code().name
    if code == "DEADLINE_EXCEEDED":
        return timed_out(connection.timeout, connection.where)
    trailers = {key.lower(): value for key, value in failure.trailing_metadata() or ()}
    # gRFC A6; a negative number means: not again.
    name, unit = ("grpc-retry-pushback-ms", 1000) if "grpc-retry-pushback-ms" in trailers else ("retry-after", 1)
    try:
        seconds = float(trailers.get(name, -1)) / unit
    except ValueError:
        seconds = -1.0
    # gRPC puts what failed on every address before the words of the last one.
    details = str(failure.details() or "").rpartition("last error: ")[2]
    found = error_of(code, details, connection.where, seconds if seconds >= 0 else None)
    if "handshake" in details.lower() or "certificate" in details.lower():
        return untrusted(found)
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

    return {
        PREDICTION: protos.load(f"{_APIS}.prediction_service_pb2_grpc").PredictionServiceStub(channel),
        MODEL: protos.load(f"{_APIS}.model_service_pb2_grpc").ModelServiceStub(channel),
        HEALTH: health_pb2_grpc.HealthStub(channel),
    }


def channel(connection: Connection) -> Any:
    """Return a blocking channel, encrypted if the connection is; the first call connects it."""
    import grpc

    if connection.tls:
        return grpc.secure_channel(connection.authority, channel_credentials(connection), options())
    return grpc.insecure_channel(connection.authority, options())


def channel_credentials(connection: Connection) -> Any:
    """Return what verifies the server and proves who we are, as gRPC wants it."""
    import grpc

    # gRPC tells only its log what is wrong with a file; the standard library says it.
    connection.ssl_context()
    return grpc.ssl_channel_credentials(
        connection.pem(connection.ca_file), connection.pem(connection.key), connection.pem(connection.certificate)
    )


class GrpcClient(Client):
    """A blocking client over gRPC."""

    def __init__(self, connection: Connection) -> None:
        # What gRPC has to tell comes with the error of the call.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        import grpc

        super().__init__(connection)
        self._failure = grpc.RpcError
        self._channel = channel(connection)
        self._services = services(self._channel)
        self._metadata = tuple(connection.credentials.items())

    def predict_request(self, columns: Arrays) -> Exchange[Rentals]:
        rows = len(next(iter(columns.values())))
        request = protos.predict_pb2.PredictRequest()
        self._specify(request.model_spec)
        request.model_spec.signature_name = core.signature_for(self.connection, columns)
        for name, values in columns.items():
            self._fill(request.inputs[name], values)
        return Exchange("Predict", PREDICTION, request, functools.partial(self._rentals, rows))

    def _status_request(self) -> Exchange[list[VersionStatus]]:
        request = protos.get_model_status_pb2.GetModelStatusRequest()
        self._specify(request.model_spec)
        return Exchange("GetModelStatus", MODEL, request, core.statuses)

    def _metadata_request(self) -> Exchange[ModelMetadata]:
        request = protos.get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        self._specify(request.model_spec)
        return Exchange("GetModelMetadata", PREDICTION, request, self._signatures)

    def _health_request(self) -> Exchange[bool]:
        from grpc_health.v1 import health_pb2

        request = health_pb2.HealthCheckRequest(service=f"tensorflow.serving.{PREDICTION}")
        return Exchange("Check", HEALTH, request, lambda found: bool(found.status == found.SERVING))

    def _specify(self, spec: Any) -> None:
        spec.name = self.connection.model
        if self.connection.version is not None:
            spec.version.value = self.connection.version
        elif self.connection.label:
            spec.version_label = self.connection.label

    def _fill(self, tensor: Any, values: Any) -> None:
        kind = types_pb2.DT_INT64 if values.dtype.kind == "i" else types_pb2.DT_FLOAT
        tensor.dtype = kind
        tensor.tensor_shape.dim.add(size=len(values))
        if len(values) == 1:
            # As TensorFlow writes it, and what servers read fastest.
            (tensor.int64_val if kind == types_pb2.DT_INT64 else tensor.float_val).append(values[0].item())
            return
        # A tensor's bytes are little-endian on every machine.
        tensor.tensor_content = values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()

    def _rentals(self, rows: int, response: Any) -> Rentals:
        where, answer = self.connection.where, self.connection.answer
        if answer not in response.outputs:
            there = ", ".join(sorted(response.outputs)) or "none"
            raise core.no_answer(f"the answer has no output {answer}, only {there}", where)
        tensor = response.outputs[answer]
        if tensor.dtype != types_pb2.DT_FLOAT:
            raise core.no_answer(f"the output {answer} holds no float32 numbers", where)
        if tensor.tensor_content:
            return core.rentals(np.frombuffer(tensor.tensor_content, "<f4"), rows, where)
        values = np.asarray(tensor.float_val, np.float32)
        if 0 < len(values) < rows:
            # TensorProto: if fewer values stand than there are elements, the last one is repeated.
            values = np.concatenate([values, np.full(rows - len(values), values[-1], np.float32)])
        return core.rentals(values, rows, where)

    def _signatures(self, response: Any) -> ModelMetadata:
        found = protos.get_model_metadata_pb2.SignatureDefMap()
        if not response.metadata["signature_def"].Unpack(found):
            raise core.no_answer("the metadata hold no signatures", self.connection.where)
        return core.model_metadata(response.model_spec.name, response.model_spec.version.value, found)

    def _send(self, exchange: Exchange[Value], seconds: float) -> Value:
        call = getattr(self._services[exchange.target], exchange.method)
        try:
            response = call(exchange.body, timeout=seconds, metadata=self._metadata)
        except self._failure as failure:
            raise error(failure, self.connection) from None
        return exchange.read(response)

    def close(self) -> None:
        self._channel.close()
