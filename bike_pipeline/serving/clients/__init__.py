"""Clients of any server that speaks TF Serving's protocols: REST and gRPC, blocking and asynchronous.

    with connect(connection(load_settings(), "grpc://127.0.0.1:8500", label="stable")) as client:
        rentals = client.predict(columns)

Typed columns go in, rentals come out; what goes wrong is a `ClientError` of one line. TensorFlow is not imported.
"""

from __future__ import annotations

from bike_pipeline.serving.clients.connection import Connection, RetryPolicy, connection
from bike_pipeline.serving.clients.core import (
    AsyncClient,
    Client,
    ModelMetadata,
    SignatureInfo,
    TensorInfo,
    VersionStatus,
)
from bike_pipeline.serving.clients.errors import (
    BadRequestError,
    ClientError,
    OverloadedError,
    ServerFailureError,
    TimedOutError,
    UnauthenticatedError,
    UnavailableError,
    UnknownModelError,
)

__all__ = [
    "AsyncClient",
    "BadRequestError",
    "Client",
    "ClientError",
    "Connection",
    "ModelMetadata",
    "OverloadedError",
    "RetryPolicy",
    "ServerFailureError",
    "SignatureInfo",
    "TensorInfo",
    "TimedOutError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnknownModelError",
    "VersionStatus",
    "connect",
    "connect_async",
    "connection",
]


def connect(connection: Connection) -> Client:
    """Return a blocking client; nothing is sent yet, but certificate and key files are read."""
    if connection.protocol == "grpc":
        from bike_pipeline.serving.clients.rpc import GrpcClient

        return GrpcClient(connection)
    from bike_pipeline.serving.clients.rest import RestClient

    return RestClient(connection)


def connect_async(connection: Connection) -> AsyncClient:
    """Return the same client for an event loop, see `connect`."""
    return AsyncClient(connect(connection))
