"""REST: TF Serving's paths, JSON bodies and answers, sent by urllib3.

Source: TensorFlow Serving's "RESTful API" (client request and response formats).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import numpy as np
import orjson
import urllib3
import urllib3.connection
from urllib3 import exceptions

from bike_pipeline.serving.clients import core
from bike_pipeline.serving.clients.connection import Connection, Deadline, Value
from bike_pipeline.serving.clients.core import Arrays, Client, Exchange, ModelMetadata, Rentals, VersionStatus
from bike_pipeline.serving.clients.errors import (
    CODE_OF_STATUS,
    ClientError,
    error_of,
    timed_out,
    unreachable,
    untrusted,
)

# Connections kept for threads that ask at the same time.
_KEPT = 64


def _parse(body: bytes) -> Any:
    """Return the value of a JSON text in which NaN, Infinity and -Infinity may stand bare."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        # The standard library reads them, at a tenth of the speed.
        return json.loads(body)


def _message(found: Any, kind: str) -> Any:
    """Return a JSON value as a protocol buffer of TF Serving's, or raise a TypeError for what is none."""
    from google.protobuf import json_format

    # A prediction over REST does without.
    from bike_pipeline.serving.protos import get_model_metadata_pb2, get_model_status_pb2

    kinds = {**vars(get_model_status_pb2), **vars(get_model_metadata_pb2)}
    try:
        return json_format.ParseDict(found, kinds[kind](), ignore_unknown_fields=True)
    except json_format.ParseError as error:
        raise TypeError(str(error)) from None


class _Punctual:
    """A connection on which an answer must have come as a whole in time: a socket's timeout is one of each piece."""

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
        super().__init__(connection)
        self._path = f"/v1/models/{quote(connection.model, safe='')}"
        if connection.version is not None:
            self._path += f"/versions/{connection.version}"
        elif connection.label:
            self._path += f"/labels/{quote(connection.label, safe='')}"
        context, host, port = connection.ssl_context(), connection.host, connection.port
        self._pool: urllib3.HTTPConnectionPool
        if context is None:
            self._pool = urllib3.HTTPConnectionPool(host, port, maxsize=_KEPT)
            self._pool.ConnectionCls = _Plain
        else:
            self._pool = urllib3.HTTPSConnectionPool(host, port, maxsize=_KEPT, ssl_context=context)
            self._pool.ConnectionCls = _Encrypted
        self._headers = {"content-type": "application/json", "accept": "application/json", **connection.credentials}

    def predict_request(self, columns: Arrays) -> Exchange[Rentals]:
        rows = len(next(iter(columns.values())))

        def read(found: Any) -> Rentals:
            # Only if a signature has one output, its name is left out.
            outputs = found["outputs"]
            values = outputs[self.connection.answer] if isinstance(outputs, dict) else outputs
            return core.rentals(values, rows, self.connection.where)

        return Exchange("POST", f"{self._path}:predict", self._body(columns), self._reading(read))

    def _status_request(self) -> Exchange[list[VersionStatus]]:
        def read(found: Any) -> list[VersionStatus]:
            return core.statuses(_message(found, "GetModelStatusResponse"))

        return Exchange("GET", self._path, None, self._reading(read))

    def _metadata_request(self) -> Exchange[ModelMetadata]:
        def read(found: Any) -> ModelMetadata:
            spec, signatures = found["model_spec"], found["metadata"]["signature_def"]
            return core.model_metadata(spec["name"], int(spec["version"]), _message(signatures, "SignatureDefMap"))

        return Exchange("GET", f"{self._path}/metadata", None, self._reading(read))

    def _health_request(self) -> Exchange[bool]:
        # REST has no health service.
        read = self._status_request().read
        return Exchange("GET", self._path, None, lambda body: any(one.available for one in read(body)))

    def _body(self, columns: Arrays) -> bytes:
        """Return the JSON body of a request for predictions.

        Floats are written as the shortest text that gives the same float32; NaN and infinities bare, as TF Serving
        reads them.
        """
        content: dict[str, Any] = {"inputs": columns}
        if signature := core.signature_for(self.connection, columns):
            content["signature_name"] = signature
        if all(np.isfinite(values).all() for values in columns.values()):
            ready = {name: np.ascontiguousarray(values) for name, values in columns.items()}
            return orjson.dumps({**content, "inputs": ready}, option=orjson.OPT_SERIALIZE_NUMPY)
        return json.dumps({**content, "inputs": {name: values.tolist() for name, values in columns.items()}}).encode()

    def _reading(self, read: Callable[[Any], Value]) -> Callable[[bytes], Value]:
        """Return what makes a value of a body, of a function that makes it of the JSON."""

        def of_body(body: bytes) -> Value:
            try:
                return read(_parse(body))
            except (ValueError, RecursionError):
                raise core.no_answer("the answer is not JSON", self.connection.where) from None
            except (LookupError, TypeError, AttributeError):
                raise core.no_answer("the answer is not what TF Serving answers", self.connection.where) from None

        return of_body

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
            )
        except exceptions.HTTPError as error:
            raise self._error(error, deadline) from None
        if deadline.left() <= 0:
            # A connection that was ended may look like an answer that did.
            raise timed_out(self.connection.timeout, where)
        if response.status == 200:
            return exchange.read(response.data)
        try:
            message = _parse(response.data)["error"]
        except (ValueError, LookupError, TypeError, RecursionError):
            message = ""
        if not isinstance(message, str) or not message:
            message = f"HTTP status {response.status}"
        try:
            after = urllib3.Retry().parse_retry_after(response.headers.get("retry-after", ""))
        except exceptions.InvalidHeader:
            after = None
        raise error_of(CODE_OF_STATUS.get(response.status, "INTERNAL"), message, where, after)

    def _error(self, error: exceptions.HTTPError, deadline: Deadline) -> ClientError:
        where = self.connection.where
        cause = error.args[-1] if error.args else error
        out_of_time = timed_out(self.connection.timeout, where)
        if deadline.left() <= 0:
            return out_of_time
        if isinstance(error, exceptions.NewConnectionError):
            # The reason stands behind the names of the connection and of the step.
            return unreachable(str(error).rpartition(": ")[2], where)
        if isinstance(error, exceptions.TimeoutError):
            return out_of_time
        if isinstance(error, exceptions.SSLError):
            return untrusted(unreachable(str(cause), where))
        if isinstance(cause, http.client.HTTPException) and not isinstance(
            cause, ConnectionError | http.client.IncompleteRead
        ):
            return core.no_answer("the answer is not HTTP", where)
        return unreachable("the connection ended before an answer", where)

    def close(self) -> None:
        self._pool.close()
