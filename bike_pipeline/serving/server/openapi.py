"""The REST API as an OpenAPI 3.1 document, made from the feature contract: what a client may send, and what it gets.

Source of the surface: TF Serving's RESTful API (tensorflow.org/tfx/serving/api_rest).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bike_pipeline import features
from bike_pipeline.version import __version__

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings

PATH = "/openapi.json"
_ERRORS = {
    "400": "The request is malformed, does not fit the model's signature, or holds too much.",
    "401": "Nothing, or nothing valid, says who asks.",
    "403": "These credentials may not ask this.",
    "404": "No such model or version is served.",
    "408": "The request's body did not arrive in time.",
    "413": "The request's body is too large.",
    "415": "The body is packed in a way that is not supported; `Accept-Encoding` names those that are.",
    "417": "The client expects something other than `100-continue`.",
    "429": "This client asks too often or has too much under way; `Retry-After` says how many seconds to wait.",
    "499": "The client went away.",
    "500": "An error of the server, with the request id under which its log tells more.",
    "503": "Too many requests wait for the model, too many large ones are under way, or none is loaded yet.",
    "504": "No answer within the server's time limit.",
}
# A body of a GET is not read, so none of its errors can occur.
_ERRORS_OF_GET = ("400", "401", "403", "404", "429", "500")
_STATES = ["UNKNOWN", "START", "LOADING", "AVAILABLE", "UNLOADING", "END"]


def document(settings: Settings) -> dict[str, Any]:
    """Return the document of the server that these settings start.

    Args:
        settings: name the model, the limit of rows and the ways to say who asks.
    """
    model = f"/v1/models/{settings.serving.model_name}"
    version, label = f"{model}/versions/{{version}}", f"{model}/labels/{{label}}"
    places = ((model, "", ()), (version, "Version", ("Version",)), (label, "Label", ("Label",)))
    paths: dict[str, Any] = {}
    for place, suffix, parameters in places:
        paths[place] = _with(parameters, {"get": _get(f"status{suffix}", "States of the versions.", "Status")})
        paths[f"{place}/metadata"] = _with(
            parameters, {"get": _get(f"metadata{suffix}", "The model's signatures.", "Metadata")}
        )
        paths[f"{place}:predict"] = _with(parameters, {"post": _predict(f"predict{suffix}")})
    paths[PATH] = {"get": _get("openapi", "This document.", "Document")}
    if settings.serving.server.metrics:
        paths["/monitoring/prometheus/metrics"] = {"get": _metrics(settings)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Hourly bike-sharing demand",
            "version": __version__,
            "description": "TF Serving's RESTful API for one model: hourly rentals from calendar and weather. NaN and "
            "Infinity may stand bare, as in TF Serving; a row with one is answered with NaN. The server answers values "
            "outside of those that an input's description says the model has learnt from, which nothing vouches for. "
            "`:classify` and `:regress` answer "
            "501: the model has no signature for them.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": _ways(settings),
        "paths": paths,
        "components": {
            "schemas": _schemas(settings.serving.security.limits.rows),
            "parameters": _parameters(),
            "responses": {name: _error(name, text) for name, text in _ERRORS.items()},
            "securitySchemes": {
                "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "Bearer": {"type": "http", "scheme": "bearer", "description": "An API key or a JSON Web Token."},
            },
        },
    }


def _ways(settings: Settings) -> list[dict[str, list[str]]]:
    methods = settings.serving.security.authentication.methods
    keys: list[dict[str, list[str]]] = [{"ApiKey": []}] if "api_keys" in methods else []
    return [*keys, {"Bearer": []}] if methods else []


def _with(parameters: tuple[str, ...], operations: dict[str, Any]) -> dict[str, Any]:
    named = [{"$ref": f"#/components/parameters/{name}"} for name in parameters]
    return {**({"parameters": named} if named else {}), **operations}


def _parameters() -> dict[str, Any]:
    return {
        "Version": {
            "name": "version",
            "in": "path",
            "required": True,
            "description": "The version's number; else the newest that serves answers.",
            "schema": {"type": "integer", "format": "int64", "minimum": 0, "maximum": 2**63 - 1},
        },
        "Label": {
            "name": "label",
            "in": "path",
            "required": True,
            "description": "A label that stands for a version, such as `stable`.",
            "schema": {"type": "string", "pattern": "^[^/:]+$"},
        },
    }


def _error(status: str, text: str) -> dict[str, Any]:
    found: dict[str, Any] = {"description": text, "content": _json("Error")}
    if status == "429":
        found["headers"] = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}}}
    return found


def _errors(names: tuple[str, ...]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/responses/{name}"} for name in names}


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _get(operation: str, summary: str, schema: str) -> dict[str, Any]:
    answer = {"description": summary, "content": _json(schema)}
    return {"operationId": operation, "summary": summary, "responses": {"200": answer, **_errors(_ERRORS_OF_GET)}}


def _metrics(settings: Settings) -> dict[str, Any]:
    text = {"text/plain": {"schema": {"type": "string"}}}
    found = {
        "operationId": "metrics",
        "summary": "The server's metrics, for Prometheus.",
        "responses": {"200": {"description": "Metrics.", "content": text}, **_errors(_ERRORS_OF_GET)},
    }
    return {**found, "security": []} if settings.serving.security.authentication.open_metrics else found


def _predict(operation: str) -> dict[str, Any]:
    answer = {"description": "Rentals in each hour, in the order of the rows.", "content": _json("PredictResponse")}
    return {
        "operationId": operation,
        "summary": "Rentals in each hour.",
        "requestBody": {"required": True, "content": _json("PredictRequest")},
        "responses": {"200": answer, **_errors(tuple(_ERRORS))},
    }


def _value(feature: features.Feature) -> dict[str, Any]:
    low, high = feature.minimum, feature.maximum
    learnt = f"{low:g} up" if high is None else f"{low:g} to {high:g}"
    description = f"{feature.meaning}; {feature.unit}" + (f"; learnt from {learnt}" if low is not None else "")
    if feature.kind != "int":
        return {"type": "number", "format": "float", "description": description}
    # The signature's type is all that a request is held to.
    bounds = {"minimum": -(2**63), "maximum": 2**63 - 1}
    return {"type": "integer", "format": "int64", **bounds, "description": description}


def _object(properties: dict[str, Any], *required: str, more: bool = True) -> dict[str, Any]:
    closed = {} if more else {"additionalProperties": False}
    return {"type": "object", "properties": properties, "required": list(required), **closed}


def _schemas(rows: int) -> dict[str, Any]:
    inputs = features.MODEL_INPUTS
    names = [feature.name for feature in inputs]
    signature = {"type": "string", "enum": ["serving_default"]}
    column = {"type": "array", "minItems": 1, "maxItems": rows}
    values = {feature.name: {"$ref": f"#/components/schemas/{feature.name}"} for feature in inputs}
    one_hour = {"title": "Hour", "description": "One row: an hour.", **_object(values, *names, more=False)}
    columns = {
        "title": "Columns",
        "description": "One list an input, all of the same length.",
        **_object({name: {**column, "items": value} for name, value in values.items()}, *names, more=False),
    }
    numbers = {"type": "array", "items": {"type": "number"}}
    text = {"type": "string"}
    return {
        **{feature.name: _value(feature) for feature in inputs},
        "Hour": one_hour,
        "Columns": columns,
        "RowRequest": _object(
            {"signature_name": signature, "instances": {**column, "items": {"$ref": "#/components/schemas/Hour"}}},
            "instances",
            more=False,
        ),
        "ColumnRequest": _object(
            {"signature_name": signature, "inputs": {"$ref": "#/components/schemas/Columns"}}, "inputs", more=False
        ),
        "PredictRequest": {
            "oneOf": [{"$ref": "#/components/schemas/RowRequest"}, {"$ref": "#/components/schemas/ColumnRequest"}]
        },
        # A row request is answered with `predictions`, a column request with `outputs`.
        "PredictResponse": {
            "oneOf": [
                _object({"predictions": numbers}, "predictions", more=False),
                _object({"outputs": numbers}, "outputs", more=False),
            ]
        },
        "Status": _object(
            {
                "model_version_status": {
                    "type": "array",
                    "items": _object(
                        {
                            "version": {"type": "string", "pattern": "^[0-9]+$"},
                            "state": {"type": "string", "enum": _STATES},
                            "status": _object({"error_code": text, "error_message": text}, "error_code"),
                        },
                        "version",
                        "state",
                        "status",
                    ),
                }
            },
            "model_version_status",
        ),
        "Metadata": _object(
            {
                "model_spec": _object({"name": text, "version": text, "signature_name": text}, "name", "version"),
                "metadata": _object({"signature_def": {"type": "object"}}, "signature_def"),
            },
            "model_spec",
            "metadata",
        ),
        "Document": _object({"openapi": text, "paths": {"type": "object"}}, "openapi", "paths"),
        "Error": _object({"error": text}, "error", more=False),
    }
