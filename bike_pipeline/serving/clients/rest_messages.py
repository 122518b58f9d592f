"""TF Serving's REST protocol: paths, JSON bodies and answers, without a network.

Source: TensorFlow Serving's "RESTful API" (client request and response formats).
"""

from __future__ import annotations

import datetime
import email.utils
import functools
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

import numpy as np
import orjson

from bike_pipeline import features
from bike_pipeline.serving.clients import answers
from bike_pipeline.serving.clients.answers import Arrays, ModelMetadata, Signature, TensorInfo, VersionStatus
from bike_pipeline.serving.clients.connection import Connection
from bike_pipeline.serving.clients.core import Exchange, Rentals
from bike_pipeline.serving.clients.errors import CODE_OF_STATUS, error_of

Value = TypeVar("Value")


class RestMessages:
    """Requests to one model as HTTP requests."""

    def __init__(self, connection: Connection) -> None:
        """Keep which model, version or label is asked."""
        self._connection = connection
        self._model = f"/v1/models/{quote(connection.model, safe='')}"
        self._path = self._model
        if connection.version is not None:
            self._path += f"/versions/{connection.version}"
        elif connection.label:
            self._path += f"/labels/{quote(connection.label, safe='')}"

    def predict(self, columns: Arrays) -> Exchange[Rentals]:
        """Return the request for predictions, in column format."""
        rows = len(next(iter(columns.values())))
        return Exchange("POST", f"{self._path}:predict", self.body(columns), functools.partial(self._rentals, rows))

    def status(self) -> Exchange[list[VersionStatus]]:
        """Return the request for the states of all versions, or of the one that is asked."""
        return Exchange("GET", self._path, None, self._status)

    def metadata(self) -> Exchange[ModelMetadata]:
        """Return the request for the signatures."""
        return Exchange("GET", f"{self._path}/metadata", None, self._metadata)

    def health(self) -> Exchange[bool]:
        """Return the request whether a version serves: REST has no health service."""
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
        # Only where a signature has one output, its name is left out.
        values = outputs[features.LABEL] if isinstance(outputs, dict) else outputs
        return answers.rentals(values, rows, self._connection.where)

    def _status(self, body: bytes) -> list[VersionStatus]:
        return self._reading(body, lambda found: [_version(one) for one in found["model_version_status"]])

    def _metadata(self, body: bytes) -> ModelMetadata:
        return self._reading(body, _metadata)

    def _reading(self, body: bytes, read: Callable[[Any], Value]) -> Value:
        where = self._connection.where
        try:
            return read(parse(body))
        except (ValueError, RecursionError):
            raise answers.no_answer("the answer is not JSON", where) from None
        except (LookupError, TypeError, AttributeError):
            raise answers.no_answer("the answer is not what TF Serving answers", where) from None


def parse(body: bytes) -> Any:
    """Return the value of a JSON text in which NaN, Infinity and -Infinity may stand bare.

    Raises:
        ValueError: it is no JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        # The standard library reads them, at a tenth of the speed.
        return json.loads(body)


def read(exchange: Exchange[Value], status: int, headers: Mapping[str, str], body: bytes, where: str) -> Value:
    """Return the value of an answer.

    Args:
        exchange: what was asked.
        status: status code.
        headers: of the answer, names in any case.
        body: of the answer.
        where: the address that was asked.

    Raises:
        ClientError: the server answered with an error.
    """
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
    """Return the seconds that a Retry-After header asks to wait (RFC 9110, section 10.2.3); None where it says nothing.

    Args:
        value: seconds, or a date.
    """
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            when = email.utils.parsedate_to_datetime(value)
        except ValueError:
            return None
        if when.tzinfo is None:
            when = when.replace(tzinfo=datetime.UTC)
        seconds = (when - datetime.datetime.now(datetime.UTC)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _version(found: Any) -> VersionStatus:
    status = found.get("status", {})
    return VersionStatus(
        int(found["version"]), found["state"], status.get("error_code", "OK"), status.get("error_message", "")
    )


def _metadata(found: Any) -> ModelMetadata:
    signatures = found["metadata"]["signature_def"]["signature_def"]
    read_signatures = {
        name: Signature(_tensors(one.get("inputs", {})), _tensors(one.get("outputs", {})))
        for name, one in signatures.items()
    }
    return ModelMetadata(found["model_spec"]["name"], int(found["model_spec"]["version"]), read_signatures)


def _tensors(found: Any) -> dict[str, TensorInfo]:
    infos = {}
    for name, one in found.items():
        shape = one.get("tensor_shape", {})
        sizes = None if shape.get("unknown_rank") else tuple(int(size["size"]) for size in shape.get("dim", ()))
        infos[name] = TensorInfo(one["dtype"], sizes)
    return infos
