"""TF Serving's JSON of classify and regress requests: objects to tf.Examples, results to text.

Follows tensorflow_serving/util/json_tensor.cc: whole numbers and truth values are int64 features, other numbers float
ones, texts and `{"b64": …}` bytes; one kind a feature.
"""

from __future__ import annotations

from typing import Any

from bike_pipeline.serving.protos import example_pb2, input_pb2
from bike_pipeline.serving.server import examples_api
from bike_pipeline.serving.server.batching import Outputs
from bike_pipeline.serving.server.json_format import written
from bike_pipeline.serving.server.json_tensors import from_base64, in_utf8, is_base64
from bike_pipeline.serving.server.json_text import Request, shown, type_of
from bike_pipeline.serving.server.statuses import invalid

_KINDS = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64"}
_LARGEST, _SMALLEST = (1 << 63) - 1, -(1 << 63)
_FLOAT_MAX = 3.4028234663852886e38


def input_of(request: Request) -> Any:
    """Return a request's examples as a `tensorflow.serving.Input`.

    Raises:
        StatusError: they are none.
    """
    body = request.body
    found = input_pb2.Input()
    examples = found.example_list.examples
    if "context" in body:
        found.example_list_with_context.context.CopyFrom(_example(body["context"]))
        examples = found.example_list_with_context.examples
    if "examples" not in body:
        raise invalid(
            f"JSON Value: {shown(body)} When method is classify, key 'examples' is expected and was not found"
        )
    rows = body["examples"]
    if not isinstance(rows, list):
        raise invalid(f"JSON Value: {shown(body)} Expecting 'examples' value to be an list/array")
    if not rows:
        raise invalid(f"JSON Value: {shown(body)} 'examples' value is an empty array")
    examples.extend(_example(row) for row in rows)
    return found


def _example(value: Any) -> Any:
    if not isinstance(value, dict):
        raise invalid(f"Example must be JSON object but got JSON {type_of(value)}")
    example = example_pb2.Example()
    for name, content in value.items():
        feature = example.features.feature[name]
        for one in content if isinstance(content, list) else [content]:
            _add(one, name, feature)
    return example


def _add(value: Any, name: str, feature: Any) -> None:
    if value is None or isinstance(value, list) or (isinstance(value, dict) and not is_base64(value)):
        raise invalid(f"Feature: {name} has element with unexpected JSON type: {type_of(value)}")
    if isinstance(value, int) and not _SMALLEST <= value <= _LARGEST:
        raise invalid(f"Feature: {name} has uint64 element. Only int64 is supported.")
    kind = "int64_list" if isinstance(value, int) else "float_list" if isinstance(value, float) else "bytes_list"
    there = feature.WhichOneof("kind")
    if there not in (None, kind):
        raise invalid(f"Unexpected element type in feature: {name} expecting type: {_KINDS[there]}")
    if isinstance(value, float) and abs(value) > _FLOAT_MAX:
        # Python's protobuf would refuse what C's cast makes infinite.
        value = float("inf") if value > 0 else float("-inf")
    elif kind == "bytes_list":
        value = from_base64(value) if isinstance(value, dict) else in_utf8(value)
    getattr(feature, kind).value.append(value)


def response(method: str, outputs: Outputs, rows: int) -> bytes:
    """Return the body that answers a classify or regress request.

    Raises:
        StatusError: the model gave something else.
    """
    if method == examples_api.REGRESS:
        return written({"results": examples_api.regressions(outputs, rows)})
    return written({"results": examples_api.classifications(outputs, rows)})
