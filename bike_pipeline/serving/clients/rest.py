"""REST, blocking: urllib3."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from typing import Any, TypeVar

import urllib3
import urllib3.connection
from urllib3 import exceptions

from bike_pipeline.serving.clients import rest_messages
from bike_pipeline.serving.clients.answers import no_answer
from bike_pipeline.serving.clients.connection import Connection
from bike_pipeline.serving.clients.core import Client, Exchange
from bike_pipeline.serving.clients.deadline import Deadline
from bike_pipeline.serving.clients.errors import ClientError, timed_out, unreachable

Value = TypeVar("Value")
# Connections kept for threads that ask at the same time.
_KEPT = 64
_PIECE = 1 << 20


class _Punctual:
    """A connection on which status and headers must have come in time, too: a socket's timeout is one of each piece."""

    timeout: Any
    sock: Any

    def getresponse(self) -> Any:
        """Return the answer as far as its headers."""
        watch = threading.Timer(self.timeout, _end, (self.sock,))
        watch.daemon = True
        watch.start()
        try:
            return super().getresponse()  # type: ignore[misc]
        finally:
            watch.cancel()


class _Plain(_Punctual, urllib3.connection.HTTPConnection):
    """Without TLS."""


class _Encrypted(_Punctual, urllib3.connection.HTTPSConnection):
    """With TLS."""


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Plain


class _EncryptedPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Encrypted


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class RestClient(Client):
    """A blocking client over REST."""

    def __init__(self, connection: Connection) -> None:
        """Prepare connections; the first request opens one.

        Raises:
            ConfigurationError: a certificate or key file cannot be used.
        """
        super().__init__(connection, rest_messages.RestMessages(connection))
        context = connection.ssl_context()
        self._pool: urllib3.HTTPConnectionPool = (
            _PlainPool(connection.host, connection.port, maxsize=_KEPT)
            if context is None
            else _EncryptedPool(connection.host, connection.port, maxsize=_KEPT, ssl_context=context)
        )
        self._headers = {"content-type": "application/json", "accept": "application/json", **connection.credentials}

    def _send(self, exchange: Exchange[Value], seconds: float) -> Value:
        where, deadline = self.connection.where, Deadline(seconds)
        try:
            response = self._pool.urlopen(
                exchange.method,
                exchange.target,
                body=exchange.body,
                headers=self._headers,
                timeout=urllib3.Timeout(total=seconds),
                retries=False,
                preload_content=False,
            )
            try:
                body = self._body(response, deadline)
            except BaseException:
                # What is left of the answer would be taken for the next one.
                response.close()
                raise
            response.release_conn()
        except exceptions.HTTPError as error:
            if deadline.left() <= 0:
                raise timed_out(self.connection.timeout, where) from None
            raise self._error(error) from None
        return rest_messages.read(exchange, response.status, response.headers, body, where)

    def _body(self, response: Any, deadline: Deadline) -> bytes:
        """Return the body; no piece of it may come after the deadline."""
        pieces: list[bytes] = []
        while True:
            left = deadline.left()
            if left <= 0:
                raise timed_out(self.connection.timeout, self.connection.where)
            # The timeout of a socket starts again with each piece.
            opened = getattr(response.connection, "sock", None)
            if opened is not None:
                opened.settimeout(left)
            piece = response.read1(_PIECE)
            if not piece:
                return b"".join(pieces)
            pieces.append(piece)

    def _error(self, error: exceptions.HTTPError) -> ClientError:
        where = self.connection.where
        cause = error.args[-1] if error.args else error
        if isinstance(error, exceptions.NewConnectionError):
            # The reason stands behind the names of the connection and of the step.
            return unreachable(str(error).rpartition(": ")[2], where)
        if isinstance(error, exceptions.TimeoutError):
            return timed_out(self.connection.timeout, where)
        if isinstance(error, exceptions.SSLError):
            return unreachable(str(cause), where, untrusted=True)
        if isinstance(cause, http.client.HTTPException) and not isinstance(
            cause, ConnectionError | http.client.IncompleteRead
        ):
            return no_answer("the answer is not HTTP", where)
        return unreachable("the connection ended before an answer", where)

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()
