"""Clients of any server that speaks TF Serving's protocols: REST and gRPC, blocking and asynchronous.

    with connect(connection(load_settings(), "grpc://127.0.0.1:8500", label="stable")) as client:
        rentals = client.predict(columns)

Typed columns go in, rentals come out; what goes wrong is a `ClientError` of one line. TensorFlow is not imported.
"""

from __future__ import annotations

from bike_pipeline.serving.clients.answers import ModelMetadata, Signature, TensorInfo, VersionStatus
from bike_pipeline.serving.clients.connection import Connection, connection
from bike_pipeline.serving.clients.core import AsyncClient, Client, Messages
from bike_pipeline.serving.clients.deadline import RetryPolicy
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
    "Messages",
    "ModelMetadata",
    "OverloadedError",
    "RetryPolicy",
    "ServerFailureError",
    "Signature",
    "TensorInfo",
    "TimedOutError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnknownModelError",
    "VersionStatus",
    "connect",
    "connect_async",
    "connection",
    "messages",
]


def messages(where: Connection) -> Messages:
    """Return what turns questions to a model into requests of the connection's protocol.

    Args:
        where: what `connection` made of settings and environment.
    """
    if where.protocol == "grpc":
        from bike_pipeline.serving.clients.grpc_messages import GrpcMessages

        return GrpcMessages(where)
    from bike_pipeline.serving.clients.rest_messages import RestMessages

    return RestMessages(where)


def connect(where: Connection) -> Client:
    """Return a blocking client; nothing is sent yet.

    Args:
        where: what `connection` made of settings and environment.

    Raises:
        ConfigurationError: a certificate or key file cannot be used.
    """
    if where.protocol == "grpc":
        from bike_pipeline.serving.clients.grpc_blocking import GrpcClient

        return GrpcClient(where)
    from bike_pipeline.serving.clients.rest import RestClient

    return RestClient(where)


def connect_async(where: Connection) -> AsyncClient:
    """Return a client for one event loop; nothing is sent yet.

    Args:
        where: what `connection` made of settings and environment.

    Raises:
        ConfigurationError: a certificate or key file cannot be used.
    """
    if where.protocol == "grpc":
        from bike_pipeline.serving.clients.grpc_async import AsyncGrpcClient

        return AsyncGrpcClient(where)
    from bike_pipeline.serving.clients.rest_async import AsyncRestClient

    return AsyncRestClient(where)
