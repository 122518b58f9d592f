"""REST: TF Serving's paths, JSON bodies and answers, sent by urllib3.

Source: TensorFlow Serving's "RESTful API" (client request and response formats).
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import numpy as np
import orjson
import urllib3
import urllib3.connection
from urllib3 import exceptions

from bike_pipeline import features
from bike_pipeline.serving.clients import answers
from bike_pipeline.serving.clients.answers import Arrays, ModelMetadata, VersionStatus, no_answer
from bike_pipeline.serving.clients.connection import Connection
from bike_pipeline.serving.clients.core import Client, Exchange, Rentals, Value
from bike_pipeline.serving.clients.deadline import Deadline
from bike_pipeline.serving.clients.errors import CODE_OF_STATUS, ClientError, error_of, timed_out, unreachable

# Connections kept for threads that ask at the same time.
_KEPT = 64
_PIECE = 1 << 20


class RestMessages:
    """Requests to one model as HTTP requests."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._model = f"/v1/models/{quote(connection.model, safe='')}"
        self._path = self._model
        if connection.version is not None:
            self._path += f"/versions/{connection.version}"
        elif connection.label:
            self._path += f"/labels/{quote(connection.label, safe='')}"

    def predict(self, columns: Arrays) -> Exchange[Rentals]:
        rows = len(next(iter(columns.values())))
        return Exchange("POST", f"{self._path}:predict", self.body(columns), functools.partial(self._rentals, rows))

    def status(self) -> Exchange[list[VersionStatus]]:
        return Exchange("GET", self._path, None, self._status)

    def metadata(self) -> Exchange[ModelMetadata]:
        return Exchange("GET", f"{self._path}/metadata", None, self._metadata)

    def health(self) -> Exchange[bool]:
        # REST has no health service.
        return Exchange("GET", self._path, None, lambda body: any(one.available for one in self._status(body)))

    def body(self, columns: Arrays) -> bytes:
        """Return the JSON body of a request for predictions.

        Floats are written as the shortest text that gives the same float32; NaN and infinities bare, as TF Serving
        reads them.
        """
        content: dict[str, Any] = {"inputs": columns}
        if self._connection.signature:
            content["signature_name"] = self._connection.signature
        if all(np.isfinite(values).all() for values in columns.values()):
            ready = {name: np.ascontiguousarray(values) for name, values in columns.items()}
            return orjson.dumps({**content, "inputs": ready}, option=orjson.OPT_SERIALIZE_NUMPY)
        return json.dumps({**content, "inputs": {name: values.tolist() for name, values in columns.items()}}).encode()

    def _rentals(self, rows: int, body: bytes) -> Rentals:
        return self._reading(body, lambda found: self._outputs(found["outputs"], rows))

    def _outputs(self, outputs: Any, rows: int) -> Rentals:
        # Only if a signature has one output, its name is left out.
        values = outputs[features.LABEL] if isinstance(outputs, dict) else outputs
        return answers.rentals(values, rows, self._connection.where)

    def _status(self, body: bytes) -> list[VersionStatus]:
        kind = self._protos().get_model_status_pb2.GetModelStatusResponse
        return self._reading(body, lambda found: answers.statuses(_message(found, kind)))

    def _metadata(self, body: bytes) -> ModelMetadata:
        kind = self._protos().get_model_metadata_pb2.SignatureDefMap

        def read(found: Any) -> ModelMetadata:
            spec, signatures = found["model_spec"], _message(found["metadata"]["signature_def"], kind)
            return answers.model_metadata(spec["name"], int(spec["version"]), signatures)

        return self._reading(body, read)

    @staticmethod
    def _protos() -> Any:
        # A prediction over REST does without.
        from bike_pipeline.serving import protos

        return protos

    def _reading(self, body: bytes, read: Callable[[Any], Value]) -> Value:
        where = self._connection.where
        try:
            return read(parse(body))
        except (ValueError, RecursionError):
            raise answers.no_answer("the answer is not JSON", where) from None
        except (LookupError, TypeError, AttributeError):
            raise answers.no_answer("the answer is not what TF Serving answers", where) from None


def parse(body: bytes) -> Any:
    """Return the value of a JSON text in which NaN, Infinity and -Infinity may stand bare."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        # The standard library reads them, at a tenth of the speed.
        return json.loads(body)


def read(exchange: Exchange[Value], status: int, headers: Mapping[str, str], body: bytes, where: str) -> Value:
    """Return the value of an answer, or raise the `ClientError` that it tells of; header names may be in any case."""
    if status == 200:
        return exchange.read(body)
    code = CODE_OF_STATUS.get(status, "INTERNAL")
    try:
        found = parse(body)["error"]
        message = found if isinstance(found, str) else ""
    except (ValueError, LookupError, TypeError, RecursionError):
        message = ""
    raise error_of(code, message or f"HTTP status {status}", where, retry_after(headers.get("retry-after")))


def retry_after(value: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks to wait; None if it says nothing."""
    try:
        return urllib3.Retry().parse_retry_after(value) if value else None
    except exceptions.InvalidHeader:
        return None


def _message(found: Any, kind: Any) -> Any:
    """Return a JSON value as a protocol buffer, or raise a TypeError for what is none."""
    from google.protobuf import json_format

    try:
        return json_format.ParseDict(found, kind(), ignore_unknown_fields=True)
    except json_format.ParseError as error:
        raise TypeError(str(error)) from None


class _Punctual:
    """A connection on which status and headers must have come in time, too: a socket's timeout is one of each piece."""

    timeout: Any
    sock: Any

    def getresponse(self) -> Any:
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


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class RestClient(Client):
    """A blocking client over REST."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, RestMessages(connection))
        context = connection.ssl_context()
        self._pool: urllib3.HTTPConnectionPool
        if context is None:
            self._pool = urllib3.HTTPConnectionPool(connection.host, connection.port, maxsize=_KEPT)
            self._pool.ConnectionCls = _Plain
        else:
            self._pool = urllib3.HTTPSConnectionPool(
                connection.host, connection.port, maxsize=_KEPT, ssl_context=context
            )
            self._pool.ConnectionCls = _Encrypted
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
        return read(exchange, response.status, response.headers, body, where)

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
        self._pool.close()
