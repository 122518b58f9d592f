"""Coverage-guided fuzzing of what reads requests, by atheris, in a process of its own.

    python fuzzing_parsers.py CORPUS -runs=20000 -seed=1

Ends with an error for whatever the parsers raise beside the errors that are meant for clients.
"""

from __future__ import annotations

import contextlib
import json
import sys

import atheris

with atheris.instrument_imports(include=["bike_pipeline.serving"]):
    from bike_pipeline.serving.protos import predict_pb2
    from bike_pipeline.serving.server import json_format, json_values, tensors
    from bike_pipeline.serving.server.limits import check_json
    from bike_pipeline.serving.server.tensors import Signature, TensorSpec
    from bike_pipeline.serving.statuses import StatusError
    from bike_pipeline.settings.serving import LimitSettings

LIMITS = LimitSettings(rows=1000)
ROWS = (-1,)
SPECS = {
    "hr": TensorSpec(tensors.INT64, ROWS),
    "temp": TensorSpec(tensors.FLOAT, ROWS),
    "text": TensorSpec(tensors.STRING, ROWS),
    "grid": TensorSpec(tensors.FLOAT, (-1, 2)),
}
SIGNATURE = Signature("serving_default", SPECS, {"cnt": SPECS["temp"]}, batches=True)
BODIES = [
    {"instances": [{"hr": 8, "temp": 0.5, "text": {"b64": "AAAA"}, "grid": [1.5, 2]}]},
    {"inputs": {"hr": [8, 9], "temp": [0.5, 1], "text": ["a", "b"], "grid": [[1, 2], [3, 4]]}, "signature_name": "x"},
]


def seeds() -> list[bytes]:
    """Return right requests to begin from: `j` and a JSON body, `p` and a PredictRequest."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "bike_demand"
    for name, spec in SPECS.items():
        tensor = request.inputs[name]
        tensor.dtype = spec.dtype
        tensor.tensor_shape.dim.add(size=1)
    request.inputs["hr"].int64_val.append(8)
    request.inputs["temp"].tensor_content = b"\0\0\0\0"
    request.inputs["text"].string_val.append(b"a")
    request.inputs["grid"].tensor_shape.dim.add(size=2)
    request.inputs["grid"].float_val.extend([1.0, 2.0])
    return [*(b"j" + json.dumps(body).encode() for body in BODIES), b"p" + request.SerializeToString()]


def _read_json(content: bytes) -> None:
    check_json(content, LIMITS)
    columns, _ = json_format.inputs_of(json_values.parse(content), SIGNATURE)
    rows = tensors.rows_of(columns, SIGNATURE)
    assert rows is None or all(rows == len(column) for column in columns.values())


def _read_message(content: bytes) -> None:
    request = predict_pb2.PredictRequest()
    try:
        request.MergeFromString(content)
    except Exception:  # noqa: BLE001 (protobuf's own refusal, which the server answers as such)
        return
    for name, proto in request.inputs.items():
        tensors.column(proto, SPECS.get(name, SPECS["temp"]), name)


def read(content: bytes) -> None:
    """Read one request as the server does."""
    with contextlib.suppress(StatusError):
        (_read_message if content[:1] == b"p" else _read_json)(content[1:])


if __name__ == "__main__":
    atheris.Setup(sys.argv, read)
    atheris.Fuzz()
