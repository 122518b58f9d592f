"""Requests to a model as CloudEvents, and what is answered to them.

Seldon Core and KServe log the payload of a request as the data of an event, in binary mode; brokers may send it in
structured mode. The data are those of TF Serving's REST API or of the Open Inference Protocol (V2).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from bike_pipeline import features
from bike_pipeline.errors import DataError, first_words
from bike_pipeline.monitoring.columns import Array

REQUESTS = ("io.seldon.serving.inference.request", "org.kubeflow.serving.inference.request")
MOST_ROWS = 10_000
_INT64 = 1 << 63


@dataclass(frozen=True)
class RequestRows:
    """The rows of a request.

    Attributes:
        request_id: the request, as Seldon or KServe call it.
        at: when it came, UTC, without a zone.
        columns: the model's inputs, (rows,) each, as they were sent; NaN for what was not, or is no number.
    """

    request_id: str
    at: datetime
    columns: Mapping[str, Array]

    @property
    def rows(self) -> list[dict[str, float]]:
        """Each row by input."""
        names, values = self.columns.keys(), self.columns.values()
        return [dict(zip(names, map(float, row), strict=True)) for row in zip(*values, strict=True)]


@dataclass(frozen=True)
class Received:
    """An event: its type and extensions, whether it came in structured mode, and the rows of a request to the model.

    Attributes:
        type: its type.
        attributes: all of its attributes.
        structured: whether it came in structured mode.
        request: its rows; None if it is none of a request.
    """

    type: str
    attributes: Mapping[str, Any]
    structured: bool
    request: RequestRows | None


def received(headers: Mapping[str, str], body: bytes) -> Received:
    """Return the event of an HTTP request; a DataError says in a sentence why there is none that can be read."""
    from cloudevents.core.bindings.http import HTTPMessage, from_http_event

    lower = {name.lower(): value for name, value in headers.items()}
    structured = lower.get("content-type", "").startswith("application/cloudevents")
    if not structured and "ce-type" not in lower:
        raise DataError("this is no CloudEvent: it has no ce-type, and its type is not application/cloudevents+json")
    try:
        # With both, the body counts, as its type says so.
        kept = {n: v for n, v in lower.items() if not (structured and n.startswith("ce-"))}
        event = from_http_event(HTTPMessage(kept, body))
    # The SDK raises errors of its own, of JSON and of Python's for the various ways to be wrong.
    except Exception as error:  # noqa: BLE001
        raise DataError(f"this CloudEvent cannot be read: {first_words(error)}") from None
    kind, attributes = event.get_type(), dict(event.get_attributes())
    request = None
    if kind in REQUESTS:
        at = event.get_time() or datetime.now(UTC)
        at = at.astimezone(UTC).replace(tzinfo=None) if at.tzinfo else at
        name = str(attributes.get("requestid") or event.get_id())
        request = RequestRows(name, at, _columns(event.get_data()))
    return Received(kind, attributes, structured, request)


def answer(to: Received, kind: str, source: str, data: Mapping[str, Any]) -> tuple[dict[str, str], bytes]:
    """Return headers and body of an event that answers another, in its mode.

    Args:
        to: the event of a request.
        kind: what its type ends with instead of "request", such as "outlier".
        source: who answers.
        data: what is said.
    """
    from cloudevents.core.bindings.http import to_binary_event, to_structured_event
    from cloudevents.core.v1.event import CloudEvent

    assert to.request is not None
    passed_on = ("inferenceservicename", "namespace", "endpoint", "component", "modelid")
    attributes = {
        "id": f"{to.attributes['id']}-{kind}",
        "type": f"{to.type.removesuffix('request')}{kind}",
        "source": source,
        "datacontenttype": "application/json",
        "time": datetime.now(UTC),
        "requestid": to.request.request_id,
        **{name: to.attributes[name] for name in passed_on if name in to.attributes},
    }
    message = (to_structured_event if to.structured else to_binary_event)(CloudEvent(attributes, dict(data)))
    return dict(message.headers), message.body


def _columns(data: Any) -> dict[str, Array]:
    """Return the model's inputs in the data of an event, or refuse it."""
    if isinstance(data, bytes | str):
        try:
            data = json.loads(data)
        except (ValueError, RecursionError):
            raise DataError("the event's data are no JSON") from None
    if not isinstance(data, dict) or ("instances" in data) == ("inputs" in data):
        raise DataError("the event's data are no request to the model: they hold neither instances nor inputs, or both")
    sent = _of_rows(data["instances"]) if "instances" in data else _of_columns(data["inputs"])
    found = {feature.name: _numbers(feature, sent) for feature in features.MODEL_INPUTS}
    lengths = {len(values) for values in found.values() if values is not None}
    if len(lengths) != 1 or not 0 < (rows := lengths.pop()) <= MOST_ROWS:
        raise DataError(f"the request has no rows, more than {MOST_ROWS:,}, or inputs of different lengths")
    return {name: np.full(rows, np.nan) if values is None else values for name, values in found.items()}


def _of_rows(rows: Any) -> dict[str, list[Any]]:
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise DataError("instances is not a list of objects")
    names = rows[0].keys()
    if any(row.keys() != names for row in rows):
        raise DataError("the instances have different inputs")
    return {name: [row[name] for row in rows] for name in names}


def _of_columns(inputs: Any) -> dict[str, list[Any]]:
    if isinstance(inputs, list):
        try:
            inputs = {one["name"]: one["data"] for one in inputs}
        except (KeyError, TypeError):
            raise DataError("an input has no name or no data") from None
    if not isinstance(inputs, dict):
        raise DataError("inputs is neither an object nor a list")
    return {name: values if isinstance(values, list) else [values] for name, values in inputs.items()}


def _numbers(feature: features.Feature, sent: Mapping[str, Sequence[Any]]) -> Array | None:
    if feature.name not in sent:
        if feature.default is None:
            raise DataError(f"the request lacks {feature.name}")
        return None
    # Each value in a list of its own is how a tensor of one column is written.
    values = [one[0] if isinstance(one, list) and len(one) == 1 else one for one in sent[feature.name]]
    for value in values:
        if not (value is None or type(value) is float or (type(value) is int and -_INT64 <= value < _INT64)):
            raise DataError(f"{feature.name} is not a number")
    return np.array([np.nan if value is None else value for value in values], np.float64)
