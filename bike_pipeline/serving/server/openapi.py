"""The REST API as an OpenAPI 3.1 document: openapi.yaml, filled from the feature contract and the settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from bike_pipeline import features
from bike_pipeline.serving.server.access import server_key
from bike_pipeline.version import __version__

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings

PATH = "/openapi.json"
_METRICS_PATH = "/monitoring/prometheus/metrics"


def document(settings: Settings) -> dict[str, Any]:
    """Return the document of the server that these settings start."""
    found: dict[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    del found["pieces"]
    found["info"]["version"] = __version__
    found["security"] = [{"Bearer": []}] if server_key(settings.serving.server) else []
    name = settings.serving.model_name
    paths = {path.replace("/MODEL", f"/{name}", 1): operations for path, operations in found["paths"].items()}
    if not settings.serving.server.metrics:
        del paths[_METRICS_PATH]
    found["paths"] = paths
    for response in found["components"]["responses"].values():
        response["content"] = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    _add_inputs(found["components"]["schemas"], settings.serving.server.limits.rows)
    return found


def _add_inputs(schemas: dict[str, Any], rows: int) -> None:
    column = {"type": "array", "minItems": 1, "maxItems": rows}
    for prefix, inputs in (("", features.REQUIRED_INPUTS), ("Complete", features.MODEL_INPUTS)):
        values = {feature.name: {"$ref": f"#/components/schemas/{feature.name}"} for feature in inputs}
        schemas[f"{prefix}RowRequest"]["properties"]["instances"]["maxItems"] = rows
        schemas[f"{prefix}Hour"] |= {"properties": values, "required": [*values]}
        columns = {name: {**column, "items": value} for name, value in values.items()}
        schemas[f"{prefix}Columns"] |= {"properties": columns, "required": [*values]}
    schemas |= {feature.name: _value(feature) for feature in features.MODEL_INPUTS}


def _value(feature: features.Feature) -> dict[str, Any]:
    low, high = feature.minimum, feature.maximum
    learnt = f"{low:g} up" if high is None else f"{low:g} to {high:g}"
    description = f"{feature.meaning}; {feature.unit}" + (f"; learnt from {learnt}" if low is not None else "")
    description += f"; {feature.default:g} if it is not known" if feature.default is not None else ""
    if feature.kind != "int":
        return {"type": "number", "format": "float", "description": description}
    # The signature's type is all that a request is held to.
    bounds = {"minimum": -(2**63), "maximum": 2**63 - 1}
    return {"type": "integer", "format": "int64", **bounds, "description": description}
