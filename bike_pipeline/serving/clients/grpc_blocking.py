"""gRPC, blocking: grpcio with the official stubs."""

from __future__ import annotations

import os
from typing import TypeVar

from bike_pipeline.serving.clients import grpc_messages
from bike_pipeline.serving.clients.connection import Connection
from bike_pipeline.serving.clients.core import Client, Exchange

Value = TypeVar("Value")


class GrpcClient(Client):
    """A blocking client over gRPC."""

    def __init__(self, connection: Connection) -> None:
        """Prepare a channel; the first call connects it.

        Raises:
            ConfigurationError: a certificate or key file cannot be used.
        """
        # What gRPC has to tell comes with the error of the call.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        import grpc

        super().__init__(connection, grpc_messages.GrpcMessages(connection))
        self._failure = grpc.RpcError
        self._channel = grpc_messages.channel(connection)
        self._services = grpc_messages.services(self._channel)
        self._metadata = tuple(connection.credentials.items())

    def _send(self, exchange: Exchange[Value], seconds: float) -> Value:
        call = getattr(self._services[exchange.target], exchange.method)
        try:
            response = call(exchange.body, timeout=seconds, metadata=self._metadata)
        except self._failure as failure:
            raise grpc_messages.error(failure, self.connection) from None
        return exchange.read(response)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()
