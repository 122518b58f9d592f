"""Metadata and status of models as TF Serving's messages, which the REST API prints as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf import json_format

from bike_pipeline.serving.protos import get_model_metadata_pb2, get_model_status_pb2
from bike_pipeline.serving.server.served_version import ServedVersion
from bike_pipeline.serving.statuses import invalid

_FIELD = "signature_def"


def status(versions: Iterable[ServedVersion]) -> Any:
    """Return a GetModelStatusResponse."""
    response = get_model_status_pb2.GetModelStatusResponse()
    for version in versions:
        entry = response.model_version_status.add(version=version.number, state=int(version.state))
        entry.status.error_code = int(version.error.code) if version.error else 0
        entry.status.error_message = version.error.message if version.error else ""
    return response


def metadata(version: ServedVersion, fields: Iterable[str]) -> Any:
    """Return a GetModelMetadataResponse, or refuse fields that there are not."""
    wanted = list(fields)
    if not wanted:
        raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
    for name in wanted:
        if name != _FIELD:
            raise invalid(f"Metadata field {name} is not supported")
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = version.model
    response.model_spec.version.value = version.number
    response.metadata[_FIELD].Pack(_signatures(version))
    return response


def _signatures(version: ServedVersion) -> Any:
    found = get_model_metadata_pb2.SignatureDefMap()
    for name, definition in version.loaded.definitions.items():
        found.signature_def[name].CopyFrom(definition)
    return found


def as_json(message: Any) -> dict[str, Any]:
    """Return a message as JSON says it: fields by their own names, default values too, 64-bit numbers as texts."""
    found: dict[str, Any] = json_format.MessageToDict(
        message, always_print_fields_with_no_presence=True, preserving_proto_field_name=True
    )
    return found


def metadata_json(version: ServedVersion) -> dict[str, Any]:
    """Return a model's metadata as the REST API says it."""
    spec = metadata(version, [_FIELD]).model_spec
    return {"model_spec": as_json(spec), "metadata": {_FIELD: as_json(_signatures(version))}}
