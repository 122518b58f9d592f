"""Requests to the official stubs of PredictionService and ModelService, and what their answers hold."""

from __future__ import annotations

import grpc
import numpy as np
import pytest

from bike_pipeline import features
from bike_pipeline.serving import protos
from tests.serving.conformance.conftest import WAIT

(
    predict_pb2,
    metadata_pb2,
    status_pb2,
    classification_pb2,
    regression_pb2,
    inference_pb2,
    example_pb2,
    tensor_pb2,
    types_pb2,
    prediction,
    models,
) = map(
    protos.load,
    [
        "tensorflow_serving.apis.predict_pb2",
        "tensorflow_serving.apis.get_model_metadata_pb2",
        "tensorflow_serving.apis.get_model_status_pb2",
        "tensorflow_serving.apis.classification_pb2",
        "tensorflow_serving.apis.regression_pb2",
        "tensorflow_serving.apis.inference_pb2",
        "tensorflow.core.example.example_pb2",
        "tensorflow.core.framework.tensor_pb2",
        "tensorflow.core.framework.types_pb2",
        "tensorflow_serving.apis.prediction_service_pb2_grpc",
        "tensorflow_serving.apis.model_service_pb2_grpc",
    ],
)
Code = grpc.StatusCode
TYPES = {"i8": types_pb2.DT_INT64, "f4": types_pb2.DT_FLOAT}


def examples(rows):
    """Return rows as serialized tf.Examples."""
    found = []
    for i in range(len(next(iter(rows.values())))):
        example = example_pb2.Example()
        for feature in features.REQUIRED_INPUTS:
            kept = example.features.feature[feature.name]
            values = kept.int64_list if feature.kind == "int" else kept.float_list
            values.value.append(rows[feature.name][i].item())
        found.append(example.SerializeToString())
    return found


def tensor(values):
    """Return an array as a TensorProto, by its content."""
    found = tensor_pb2.TensorProto(dtype=TYPES[values.dtype.str[1:]], tensor_content=values.tobytes())
    for size in values.shape:
        found.tensor_shape.dim.add(size=size)
    return found


def listed(values):
    """Return an array as a TensorProto, by its list of values."""
    found = tensor(values)
    found.tensor_content = b""
    (found.int64_val if found.dtype == types_pb2.DT_INT64 else found.float_val).extend(values.ravel().tolist())
    return found


def request_of(model, columns, signature="", make=tensor):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    for name, values in columns.items():
        request.inputs[name].CopyFrom(make(values))
    return request


def numbers(response, name):
    found = response.outputs[name]
    values = (
        np.frombuffer(found.tensor_content, "f4" if found.dtype == types_pb2.DT_FLOAT else "i8")
        if found.tensor_content
        else np.asarray(found.float_val or found.int64_val)
    )
    return values.reshape([dim.size for dim in found.tensor_shape.dim])


def refused(call, request):
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=WAIT)
    assert "Traceback" not in caught.value.details()
    return caught.value.code(), caught.value.details()
