"""What one server answers over both protocols, to bad input too."""

from __future__ import annotations

import asyncio
import json
import urllib.request

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import prediction_service_pb2_grpc

from bike_pipeline.serving.protos import (
    classification_pb2,
    get_model_metadata_pb2,
    inference_pb2,
    predict_pb2,
    regression_pb2,
)
from bike_pipeline.serving.server import tensors
from tests.serving.running import MODEL, row
from tests.serving.server.asking import answer_of, asked, example_of, refused, request_of


@pytest.fixture(scope="module")
def stub(simple_server):
    with grpc.insecure_channel(simple_server.grpc) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


def test_a_cancelled_call_hurts_nobody(simple_server):
    async def main():
        async with grpc.aio.insecure_channel(simple_server.grpc) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            calls = [stub.Predict(request_of(row(each % 24, 0.5)), timeout=60) for each in range(60)]
            for call in calls[::2]:
                call.cancel()
            kept = await asyncio.gather(*calls[1::2])
            assert [answer_of(each)[0] for each in kept] == [each % 24 + 50.0 for each in range(1, 60, 2)]
            gone = await asyncio.gather(*calls[::2], return_exceptions=True)
            assert {type(each) for each in gone} <= {asyncio.CancelledError, predict_pb2.PredictResponse}
            # A client that goes away in the middle of a request.
            _, writer = await asyncio.open_connection(*simple_server.rest.split(":"))
            writer.write(f"POST /v1/models/{MODEL}:predict HTTP/1.1\r\nContent-Length: 99\r\n\r\n{{".encode())
            await writer.drain()
            writer.close()

    asyncio.run(main())
    assert asked(f"{simple_server.url}:predict", {"instances": [row(8, 0.5)]})[0] == 200


def test_an_output_filter_chooses_among_the_outputs(simple_server, stub):
    request = predict_pb2.PredictRequest(output_filter=["length", "text_bytes"])
    request.model_spec.name, request.model_spec.signature_name = MODEL, "texts"
    tensors.fill(request.inputs["text"], np.array([b"ab", b"\xff"], object))
    response = stub.Predict(request, timeout=120)
    assert set(response.outputs) == {"length", "text_bytes"}
    assert tensors.to_array(response.outputs["text_bytes"], "").tolist() == [b"ab", b"\xff"]
    del request.output_filter[:]
    request.output_filter.extend(["length", "length"])
    assert refused(stub.Predict, request)[1] == "duplicate output tensor alias: length"
    del request.output_filter[:]
    request.output_filter.append("x")
    assert "output tensor alias not found in signature: x" in refused(stub.Predict, request)[1]
    body = {"signature_name": "texts", "instances": ["ab", {"b64": "/w=="}]}
    assert asked(f"{simple_server.url}:predict", body)[1] == {
        "predictions": [
            {"half": 1.0, "length": 2, "text_bytes": {"b64": "YWI="}},
            {"half": 0.5, "length": 1, "text_bytes": {"b64": "/w=="}},
        ]
    }


def test_a_bad_example_does_not_fail_its_neighbour(simple_server, stub):
    def request(*examples):
        found = predict_pb2.PredictRequest()
        found.model_spec.name, found.model_spec.signature_name = MODEL, "serving_examples"
        tensors.fill(found.inputs["examples"], np.array(examples, object))
        return found

    good = request(example_of(row(8, 0.5)))
    assert answer_of(stub.Predict(good, timeout=120)) == [58.0]
    calls = [stub.Predict.future(each, timeout=60) for each in (good, request(b"no example"), good)]
    assert answer_of(calls[0].result()) == answer_of(calls[2].result()) == [58.0]
    assert calls[1].code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "error"),
    [
        ("GET", "/v1/models/none", None, 404, "Could not find any versions of model none"),
        ("GET", "/v1/models/none/metadata", None, 404, "Servable not found for request: Latest(none)"),
        ("GET", f"/v1/models/{MODEL}/versions/7", None, 404, f"Could not find version 7 of model {MODEL}"),
        ("GET", "/v1/models", None, 400, "Missing model name in request."),
        ("GET", "/", None, 400, "Malformed request: GET /"),
        ("DELETE", f"/v1/models/{MODEL}", None, 400, f"Malformed request: DELETE /v1/models/{MODEL}"),
        ("POST", f"/v1/models/{MODEL}", {}, 400, f"Malformed request: POST /v1/models/{MODEL}"),
        ("POST", f"/v1/models/{MODEL}:explain", {}, 400, f"Malformed request: POST /v1/models/{MODEL}:explain"),
        ("POST", "/v1/models/none:predict", {"instances": [1]}, 404, "Servable not found for request: Latest(none)"),
        (
            "POST",
            f"/v1/models/{MODEL}/versions/9:predict",
            {"instances": [1]},
            404,
            f"Servable not found for request: Specific({MODEL}, 9)",
        ),
        ("POST", f"/v1/models/{MODEL}/versions/99999999999999999999:predict", {}, 400, "Failed to convert version: "),
        ("POST", f"/v1/models/{MODEL}:predict", b"", 400, "JSON Parse error: The document is empty"),
        (
            "POST",
            f"/v1/models/{MODEL}:predict",
            {"signature_name": "x", "instances": [1]},
            400,
            'Serving signature name: "x" not found in signature def',
        ),
        ("POST", f"/v1/models/{MODEL}:classify", {"examples": [{}]}, 501, "The signature serving_default of model"),
        ("POST", f"/V1/Models/{MODEL}:regress", {"examples": [{}]}, 501, "The signature serving_default of model"),
        ("POST", f"/V1/Models/{MODEL}:Regress", {"examples": [{}]}, 400, "Malformed request: POST /V1/Models/"),
    ],
    ids=range(16),
)
def test_rest_errors_are_tf_servings(simple_server, method, path, body, status, error):
    got, answer = asked(f"http://{simple_server.rest}{path}", body, method)
    assert (got, list(answer)) == (status, ["error"])
    assert answer["error"].startswith(error)


def test_paths_do_not_care_for_case(simple_server):
    url = f"http://{simple_server.rest}/V1/MODELS/{MODEL}/Versions/1:predict"
    assert asked(url, {"instances": [row(8, 0.5)]}) == (200, {"predictions": [58.0]})


def test_grpc_errors_are_tf_servings(stub):
    def code_of(request, call=stub.Predict):
        return refused(call, request)[0]

    good = request_of(row(8, 0.5))
    assert answer_of(stub.Predict(good, timeout=60)) == [58.0]
    assert refused(stub.Predict, predict_pb2.PredictRequest()) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "Missing ModelSpec",
    )
    assert code_of(request_of(row(8, 0.5), version=9)) == grpc.StatusCode.NOT_FOUND
    code, details = refused(stub.Predict, request_of(row(8, 0.5), signature="x"))
    assert (code, details) == (grpc.StatusCode.FAILED_PRECONDITION, 'Serving signature key "x" not found.')
    missing = request_of(row(8, 0.5))
    del missing.inputs["hr"]
    code, details = refused(stub.Predict, missing)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "input size does not match signature: 10!=11" in details
    assert details.endswith("Sent extra: {}. Missing but required: {hr}.")
    other = request_of(row(8, 0.5))
    other.inputs["hr"].Clear()
    tensors.fill(other.inputs["hr"], np.array([8], np.int32))
    assert "hr is expected to be int64 but int32" in refused(stub.Predict, other)[1]
    other.inputs["hr"].Clear()
    tensors.fill(other.inputs["hr"], np.array([8, 9]))
    assert "inconsistent batch size" in refused(stub.Predict, other)[1]
    metadata = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["x"])
    metadata.model_spec.name = MODEL
    assert code_of(metadata, stub.GetModelMetadata) == grpc.StatusCode.INVALID_ARGUMENT
    for request, call in (
        (classification_pb2.ClassificationRequest(), stub.Classify),
        (regression_pb2.RegressionRequest(), stub.Regress),
    ):
        request.model_spec.name = MODEL
        code, details = refused(call, request)
        assert code == grpc.StatusCode.UNIMPLEMENTED
        assert "is made for tensorflow/serving/predict, not for" in details
    several = inference_pb2.MultiInferenceRequest()
    assert code_of(several, stub.MultiInference) == grpc.StatusCode.INVALID_ARGUMENT


def test_a_message_that_is_none_is_refused(simple_server):
    with grpc.insecure_channel(simple_server.grpc) as channel:
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        assert refused(call, b"\xff\xff\xff") == (grpc.StatusCode.INVALID_ARGUMENT, "the message cannot be parsed")


def test_metrics_have_tf_servings_names(simple_server):
    from prometheus_client.parser import text_string_to_metric_families

    asked(f"{simple_server.url}:predict", {"instances": [row(8, 0.5)]})
    asked(f"{simple_server.url}:predict", {"instances": []})
    with urllib.request.urlopen(f"http://{simple_server.rest}/monitoring/prometheus/metrics", timeout=60) as response:
        assert response.headers["Content-Type"].startswith("text/plain")
        text = response.read().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    counts = {sample.labels["status"]: sample.value for sample in families[":tensorflow:serving:request_count"].samples}
    assert counts["OK"] >= 1
    assert counts["INVALID_ARGUMENT"] >= 1
    latency = families[":tensorflow:serving:request_latency"]
    buckets = [s for s in latency.samples if s.name.endswith("_bucket") and s.labels["entrypoint"] == "REST"]
    buckets = [s for s in buckets if (s.labels["model_name"], s.labels["API"]) == (MODEL, "Predict")]
    bounds = [s.labels["le"] for s in buckets]
    assert (bounds[:3], bounds[-1], len(bounds)) == (["10", "18", "32.4"], "+Inf", 34)
    assert [s.value for s in buckets] == sorted(s.value for s in buckets)
    for name in ("runtime_latency", "request_example_counts", "batching_session:queuing_latency"):
        assert families[f":tensorflow:serving:{name}"].type == "histogram"
    assert "process_resident_memory_bytes" in families


def test_a_browser_may_ask(simple_server):
    request = urllib.request.Request(f"{simple_server.url}:predict", method="OPTIONS", headers={"Origin": "http://x"})
    with urllib.request.urlopen(request, timeout=60) as response:
        assert response.headers["Access-Control-Allow-Methods"] == "GET, POST"


def test_a_compressed_request_is_taken(simple_server):
    import gzip

    body = gzip.compress(json.dumps({"instances": [row(8, 0.5)]}).encode())
    request = urllib.request.Request(f"{simple_server.url}:predict", body, {"Content-Encoding": "gzip"})
    with urllib.request.urlopen(request, timeout=60) as response:
        assert json.loads(response.read()) == {"predictions": [58.0]}
