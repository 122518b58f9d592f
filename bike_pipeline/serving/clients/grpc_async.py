"""gRPC, asynchronous: grpc.aio with the official stubs."""

from __future__ import annotations

import os
from typing import Any, TypeVar

from bike_pipeline.serving.clients import grpc_messages
from bike_pipeline.serving.clients.connection import Connection
from bike_pipeline.serving.clients.core import AsyncClient, Exchange

Value = TypeVar("Value")


class AsyncGrpcClient(AsyncClient):
    """A client over gRPC for one event loop."""

    def __init__(self, connection: Connection) -> None:
        """Prepare; the first call connects.

        Raises:
            ConfigurationError: a certificate or key file cannot be used.
        """
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        import grpc

        super().__init__(connection, grpc_messages.GrpcMessages(connection))
        self._failure = grpc.aio.AioRpcError
        self._credentials = grpc_messages.channel_credentials(connection) if connection.tls else None
        self._metadata = tuple(connection.credentials.items())
        self._channel: Any = None
        self._services: dict[str, Any] = {}

    def _connect(self) -> None:
        # A channel belongs to the event loop that it is made in.
        from grpc import aio

        options = grpc_messages.options()
        authority = self.connection.authority
        self._channel = (
            aio.secure_channel(authority, self._credentials, options)
            if self._credentials is not None
            else aio.insecure_channel(authority, options)
        )
        self._services = grpc_messages.services(self._channel)

    async def _send(self, exchange: Exchange[Value], seconds: float) -> Value:
        if self._channel is None:
            self._connect()
        call = getattr(self._services[exchange.target], exchange.method)
        try:
            response = await call(exchange.body, timeout=seconds, metadata=self._metadata)
        except self._failure as failure:
            raise grpc_messages.error(failure, self.connection) from None
        return exchange.read(response)

    async def close(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            await self._channel.close()
