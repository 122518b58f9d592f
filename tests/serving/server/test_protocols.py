"""The official stubs and a REST client get the model's own answers from the embedded server."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from bike_pipeline import features
from bike_pipeline.modeling import golden
from bike_pipeline.modeling.golden import are_sound, with_broken_rows
from bike_pipeline.modeling.loaded_model import LoadedModel
from bike_pipeline.serving.protos import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
)
from bike_pipeline.serving.server import tensors
from tests.serving.running import MODEL, required_rows

ROWS = required_rows(200)


@pytest.fixture(scope="module")
def expected(servable_model):
    return LoadedModel(servable_model).predict(ROWS)


@pytest.fixture(scope="module")
def channel(model_server):
    with grpc.insecure_channel(model_server.grpc) as channel:
        yield channel


@pytest.fixture(scope="module")
def prediction(channel):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def models(channel):
    return model_service_pb2_grpc.ModelServiceStub(channel)


def asked(url, body=None):
    """Return the status and the JSON that answers a GET, or a POST where there is a body."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=60) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def request_of(columns, signature="", rows=slice(None)):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = MODEL
    request.model_spec.signature_name = signature
    for name, values in columns.items():
        tensors.fill(request.inputs[name], np.asarray(values[rows]))
    return request


def instances(rows=slice(None)):
    columns = {name: values[rows].tolist() for name, values in ROWS.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def test_the_export_answers(model_server):
    answered = ("serving_default", "serving_all_inputs", "serving_intervals")
    assert model_server.told["versions"] == {"1": dict.fromkeys(answered, "tflite_float32")}


def test_rest_rows_get_intervals_around_the_models_answers(model_server, expected):
    unknown = {f.name: f.default for f in features.OPTIONAL_INPUTS}
    body = {"signature_name": "serving_intervals", "instances": [unknown | row for row in instances()]}
    status, answer = asked(f"{model_server.url}:predict", body)
    assert status == 200
    rows = answer["predictions"]
    assert {*rows[0]} == {"cnt", "p05", "p50", "p95"}
    np.testing.assert_allclose([row["cnt"] for row in rows], expected, rtol=1e-5, atol=1e-4)
    assert all(0.0 <= row["p05"] <= row["p50"] <= row["p95"] for row in rows)


def test_rest_rows_get_the_models_answers(model_server, expected):
    status, answer = asked(f"{model_server.url}:predict", {"instances": instances()})
    assert status == 200
    np.testing.assert_allclose(answer["predictions"], expected, rtol=1e-5, atol=1e-4)


def test_rest_columns_get_the_models_answers(model_server, expected):
    body = {"inputs": {name: values.tolist() for name, values in ROWS.items()}}
    status, answer = asked(f"{model_server.url}/versions/1:predict", body)
    assert status == 200
    np.testing.assert_allclose(answer["outputs"], expected, rtol=1e-5, atol=1e-4)


def test_grpc_gets_the_models_answers(prediction, expected):
    response = prediction.Predict(request_of(ROWS), timeout=60)
    assert response.model_spec.version.value == 1
    np.testing.assert_allclose(tensors.to_array(response.outputs["cnt"], "cnt"), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 40], ids=["alone", "among others"])
def test_a_broken_sensor_is_answered_with_nan_over_every_protocol(model_server, prediction, servable_model, rows):
    mixed = with_broken_rows({name: values[: rows - 1 or 1] for name, values in ROWS.items()})
    if rows == 1:
        mixed = {name: values[1:2] for name, values in mixed.items()}
    expected = LoadedModel(servable_model).predict(mixed)
    assert (np.isnan(expected) == ~are_sound(mixed)).all()
    assert np.isnan(expected).any()

    columns = {name: values.tolist() for name, values in mixed.items()}
    lines = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    over_rest = [
        asked(f"{model_server.url}:predict", {"instances": lines}),
        asked(f"{model_server.url}:predict", {"inputs": columns}),
    ]
    assert [status for status, _ in over_rest] == [200, 200]
    plain, records = predict_pb2.PredictRequest(), predict_pb2.PredictRequest()
    for name, values in mixed.items():
        tensors.fill(plain.inputs[name], values)
    tensors.fill(records.inputs["examples"], np.array(golden._examples(mixed), object))
    plain.model_spec.name = records.model_spec.name = MODEL
    records.model_spec.signature_name = "serving_examples"
    for answers in (
        over_rest[0][1]["predictions"],
        over_rest[1][1]["outputs"],
        tensors.to_array(prediction.Predict(plain, timeout=60).outputs["cnt"], "cnt"),
        tensors.to_array(prediction.Predict(records, timeout=120).outputs["cnt"], "cnt"),
    ):
        np.testing.assert_allclose(answers, expected, rtol=1e-5, atol=1e-4)


def test_grpc_tells_the_signatures(prediction):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = MODEL
    found = get_model_metadata_pb2.SignatureDefMap()
    assert prediction.GetModelMetadata(request, timeout=60).metadata["signature_def"].Unpack(found)
    signatures = {"serving_default", "serving_all_inputs", "serving_intervals", "serving_examples"}
    assert set(found.signature_def) == signatures
    assert set(found.signature_def["serving_default"].inputs) == set(ROWS)


def test_rest_tells_the_signatures(model_server):
    status, answer = asked(f"{model_server.url}/metadata")
    assert status == 200
    assert answer["model_spec"] == {"name": MODEL, "signature_name": "", "version": "1"}
    found = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert found["inputs"]["hr"]["dtype"] == "DT_INT64"
    assert found["outputs"]["cnt"]["tensor_shape"] == {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}


def test_both_tell_the_state(model_server, models):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = MODEL
    (found,) = models.GetModelStatus(request, timeout=60).model_version_status
    assert (found.version, found.state, found.status.error_code) == (1, 30, 0)
    status, answer = asked(model_server.url)
    assert status == 200
    assert answer == {
        "model_version_status": [
            {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ]
    }


def test_health_is_told(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=60)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
