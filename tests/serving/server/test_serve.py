"""`bike-pipeline serve` as its users see it: swaps under load, broken pushes, draining, bad input, all signatures."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import aiohttp
import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from bike_pipeline.errors import ExitCode
from bike_pipeline.model_registry import model_signature
from bike_pipeline.serving.protos import (
    classification_pb2,
    example_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)
from bike_pipeline.serving.server import tensors
from tests.serving.running import MODEL, push, row, running_server

SWAPS = 12


def asked(url, body=None, method=None):
    """Return the status and the JSON that answers a GET, or a POST where there is a body."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, method=method), timeout=60) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def request_of(*rows, signature="", **spec):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = MODEL
    request.model_spec.signature_name = signature
    for name in rows[0]:
        kind = np.float32 if isinstance(rows[0][name], float) else np.int64
        tensors.fill(request.inputs[name], np.array([one[name] for one in rows], kind))
    if "version" in spec:
        request.model_spec.version.value = spec["version"]
    if "label" in spec:
        request.model_spec.version_label = spec["label"]
    return request


def answer_of(response):
    return tensors.to_array(response.outputs["cnt"], "cnt").tolist()


def example_of(values):
    example = example_pb2.Example()
    for name, value in values.items():
        feature = example.features.feature[name]
        (feature.float_list if isinstance(value, float) else feature.int64_list).value.append(value)
    return example.SerializeToString()


def refused(call, request):
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=60)
    return caught.value.code(), caught.value.details()


def wait_until(condition):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen within 30 s")


@pytest.fixture(scope="module")
def stub(simple_server):
    with grpc.insecure_channel(simple_server.grpc) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture
def server(simple_models, tmp_path):
    """A server of version 1 of scale 1, for tests that change it."""
    push(tmp_path / "models", simple_models[1], 1)
    settings = ("serving.server.poll_seconds=0.05", "serving.server.load_retry_seconds=1000")
    with running_server(tmp_path / "models", tmp_path / "workspace", *settings) as running:
        yield running


def available(running):
    _, told = asked(running.url)
    return [int(v["version"]) for v in told["model_version_status"] if v["state"] == "AVAILABLE"]


def test_an_export_is_served_without_tensorflow(simple_server):
    assert simple_server.told["versions"] == {"1": {"serving_default": "tflite_float32"}}
    base, status = Path(f"/proc/{simple_server.process.pid}/maps"), simple_server.url
    assert asked(f"{status}:predict", {"instances": [row(8, 0.5)]}) == (200, {"predictions": [58.0]})
    # Another server: this one loads TensorFlow as soon as somebody asks for another signature.
    assert "litert" in base.read_text()


def test_tensorflow_is_loaded_only_when_a_signature_needs_it(server):
    maps = Path(f"/proc/{server.process.pid}/maps")
    loaded = maps.read_text()
    assert "libtensorflow" not in loaded
    assert "libarrow" not in loaded
    examples = [example_of(row(hr, 0.25)) for hr in (3, 4)]
    body = {"signature_name": "serving_examples", "instances": [{"b64": _b64(each)} for each in examples]}
    assert asked(f"{server.url}:predict", body) == (200, {"predictions": [28.0, 29.0]})
    assert "libtensorflow" in maps.read_text()
    # What answered before goes on.
    assert asked(f"{server.url}:predict", {"instances": [row(8, 0.5)]}) == (200, {"predictions": [58.0]})


def _b64(content):
    import base64

    return base64.b64encode(content).decode()


async def _ask_rest(url, stop, results):
    async with aiohttp.ClientSession() as session:
        count = 0
        while not stop.is_set():
            count += 1
            hr, temp = count % 24, (count % 97) / 128
            async with session.post(f"{url}:predict", json={"instances": [row(hr, temp)]}) as response:
                body = await response.json()
            value = body["predictions"][0] / (hr + 100 * temp) if hr + temp else 1.0
            results.append(("rest", response.status, round(value, 4)))


async def _ask_grpc(address, stop, results):
    async with grpc.aio.insecure_channel(address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        count = 0
        while not stop.is_set():
            count += 1
            rows = [row((count + each) % 23 + 1, (count % 89) / 128) for each in range(3)]
            response = await stub.Predict(request_of(*rows), timeout=60)
            # Version 2n has scale 2, version 2n + 1 has scale 1.
            scale = 2 - response.model_spec.version.value % 2
            expected = [scale * (one["hr"] + 100 * one["temp"]) for one in rows]
            np.testing.assert_allclose(answer_of(response), expected, rtol=1e-6)
            results.append(("grpc", 200, float(scale)))


def test_no_request_fails_or_is_mixed_up_while_versions_are_swapped(server, simple_models):
    results = []

    async def swap(stop):
        for version in range(2, SWAPS + 2):
            await asyncio.to_thread(push, server.base, simple_models[2 - version % 2], version)
            async with asyncio.timeout(60):
                while await asyncio.to_thread(available, server) != [version]:
                    await asyncio.sleep(0.01)
        stop.set()

    async def main():
        stop = asyncio.Event()
        asking = [_ask_rest(server.url, stop, results) for _ in range(6)]
        asking += [_ask_grpc(server.grpc, stop, results) for _ in range(3)]
        await asyncio.gather(swap(stop), *asking)

    asyncio.run(main())
    assert {status for _, status, _ in results} == {200}
    # An answer of two versions at once, or of another row, would be another number.
    assert {(kind, scale) for kind, _, scale in results} == {
        ("rest", 1.0), ("rest", 2.0), ("grpc", 1.0), ("grpc", 2.0),
    }  # fmt: skip
    _, told = asked(server.url)
    states = {int(v["version"]): v["state"] for v in told["model_version_status"]}
    assert states == {**dict.fromkeys(range(1, SWAPS + 1), "END"), SWAPS + 1: "AVAILABLE"}


def unproven(folder):
    """Make a version one that nothing is known of, so that what loads it has to find out."""
    for name in ("push.json", "evidence.json", "model.sig"):
        (folder / name).unlink()


@pytest.mark.parametrize("damage", ["changed", "cut", "empty", "export"])
def test_a_broken_version_never_replaces_a_good_one(server, simple_models, damage):
    folder = server.base / MODEL / ".incoming-2"
    import shutil

    shutil.copytree(server.base / MODEL / "1", folder)
    if damage == "changed":
        (folder / "saved_model.pb").write_bytes(b"\x00" + (folder / "saved_model.pb").read_bytes())
    elif damage == "cut":
        unproven(folder)
        (folder / "saved_model.pb").write_bytes((folder / "saved_model.pb").read_bytes()[:100])
    elif damage == "empty":
        shutil.rmtree(folder)
        folder.mkdir()
    else:
        unproven(folder)
        golden = folder / "assets.extra" / "exports" / "golden.json"
        columns = {name: [value] for name, value in row(8, 0.5).items()}
        golden.write_text(json.dumps({"columns": columns, "cnt": [59.0]}))
    folder.rename(server.base / MODEL / "2")
    wait_until(lambda: len(asked(server.url)[1]["model_version_status"]) == 2)
    wait_until(lambda: asked(server.url)[1]["model_version_status"][0]["state"] == "END")
    newest, oldest = asked(server.url)[1]["model_version_status"]
    assert (newest["version"], oldest["version"], oldest["state"]) == ("2", "1", "AVAILABLE")
    assert newest["status"]["error_code"] in {"DATA_LOSS", "NOT_FOUND"}
    assert newest["status"]["error_message"]
    assert asked(f"{server.url}:predict", {"instances": [row(8, 0.5)]}) == (200, {"predictions": [58.0]})
    # The next good one serves.
    push(server.base, simple_models[2], 3)
    wait_until(lambda: available(server) == [3])
    assert asked(f"{server.url}:predict", {"instances": [row(8, 0.5)]}) == (200, {"predictions": [116.0]})


def test_labels_and_versions_are_set_while_it_serves(server, simple_models):
    push(server.base, simple_models[2], 2)
    wait_until(lambda: available(server) == [2])
    request = model_management_pb2.ReloadConfigRequest()
    config = request.config.model_config_list.config.add(name=MODEL, base_path=str(server.base / MODEL))
    config.model_version_policy.specific.versions.extend([1, 2])
    config.version_labels["stable"] = 1
    config.version_labels["canary"] = 2
    with grpc.insecure_channel(server.grpc) as channel:
        models = model_service_pb2_grpc.ModelServiceStub(channel)
        predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
        assert models.HandleReloadConfigRequest(request, timeout=60).status.error_code == 0
        assert answer_of(predict(request_of(row(8, 0.5), label="stable"), timeout=60)) == [58.0]
        assert answer_of(predict(request_of(row(8, 0.5), label="canary"), timeout=60)) == [116.0]
        assert answer_of(predict(request_of(row(8, 0.5), version=1), timeout=60)) == [58.0]
        code, details = refused(predict, request_of(row(8, 0.5), label="none"))
        assert (code, details) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "Unrecognized servable version label: none",
        )
        config.version_labels["stable"] = 7
        code, details = refused(models.HandleReloadConfigRequest, request)
        assert code == grpc.StatusCode.FAILED_PRECONDITION
        assert "version 7" in details
        elsewhere = model_management_pb2.ReloadConfigRequest()
        elsewhere.config.model_config_list.config.add(name="x", base_path="/etc")
        assert refused(models.HandleReloadConfigRequest, elsewhere)[0] == grpc.StatusCode.PERMISSION_DENIED
        empty = model_management_pb2.ReloadConfigRequest()
        assert refused(models.HandleReloadConfigRequest, empty)[0] == grpc.StatusCode.INVALID_ARGUMENT
    url = f"{server.url}/labels/canary"
    assert asked(f"{url}:predict", {"instances": [row(8, 0.5)]}) == (200, {"predictions": [116.0]})
    assert asked(f"{url}/metadata")[1]["model_spec"]["version"] == "2"
    assert asked(f"{server.url}/labels/none:predict", {"instances": [row(8, 0.5)]})[0] == 400


def test_sigterm_answers_what_is_under_way_and_then_ends_with_0(server):
    results = []
    called = []
    ended = []

    async def main():
        stop = asyncio.Event()

        async def ask():
            async with aiohttp.ClientSession() as session:
                while not stop.is_set():
                    try:
                        async with session.post(f"{server.url}:predict", json={"instances": [row(8, 0.5)]}) as response:
                            results.append((response.status, await response.json()))
                    except aiohttp.ClientConnectorError:
                        # Nobody listens any more; a request that was taken was answered.
                        return
                    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                        # A kept connection that was closed before the request was read.
                        return

        async def call():
            async with grpc.aio.insecure_channel(server.grpc) as channel:
                stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
                while True:
                    try:
                        response = await stub.Predict(request_of(row(8, 0.5)), timeout=60)
                    except grpc.aio.AioRpcError as error:
                        ended.append(error.code())
                        return
                    called.append(answer_of(response))

        asking = asyncio.gather(*(ask() for _ in range(8)), *(call() for _ in range(4)))
        while len(results) < 100 or len(called) < 20:
            await asyncio.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        await asking
        stop.set()

    asyncio.run(main())
    assert server.process.wait(timeout=60) == 0
    assert {(status, json.dumps(body)) for status, body in results} == {(200, '{"predictions": [58.0]}')}
    assert {tuple(answer) for answer in called} == {(58.0,)}
    # The only error that clients send again.
    assert ended == [grpc.StatusCode.UNAVAILABLE] * 4


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


def serve(workspace, *assignments):
    command = [sys.executable, "-m", "bike_pipeline.cli", "serve", "--rest-port", "0", "--grpc-port", "0"]
    for assignment in (f"workspace={workspace}", *assignments):
        command += ["--set", assignment]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ})


@pytest.mark.parametrize("setting", ["rest_port", "grpc_port"])
def test_a_taken_port_is_one_line(tmp_path, setting):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "bike_pipeline.cli", "serve", "--set", f"workspace={tmp_path}"]
        ports = {"rest_port": 0, "grpc_port": 0, setting: port}
        for name, number in ports.items():
            command += [f"--{name.replace('_', '-')}", str(number)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == ExitCode.SERVER
    assert ended.stderr.count("\n") == 1
    assert f"127.0.0.1:{port}: cannot listen" in ended.stderr
    assert setting in ended.stderr


def test_it_waits_for_the_first_version(simple_models, tmp_path):
    with running_server(tmp_path / "models", tmp_path / "workspace", "serving.server.poll_seconds=0.05") as running:
        assert running.told["versions"] == {}
        assert asked(f"{running.url}:predict", {"instances": [row(8, 0.5)]})[0] == 404
        push(running.base, simple_models[1], 1)
        wait_until(lambda: asked(running.url)[0] == 200 and available(running) == [1])
        assert asked(f"{running.url}:predict", {"instances": [row(8, 0.5)]}) == (200, {"predictions": [58.0]})
        assert running.stop() == 0


def test_status_over_grpc_tells_a_broken_version(simple_models, tmp_path):
    push(tmp_path / "models", simple_models[1], 1)
    (tmp_path / "models" / MODEL / "2").mkdir()
    with running_server(tmp_path / "models", tmp_path / "workspace") as running:
        with grpc.insecure_channel(running.grpc) as channel:
            request = get_model_status_pb2.GetModelStatusRequest()
            request.model_spec.name = MODEL
            found = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request, timeout=60)
        # There was no other version yet, so the one before is not looked for: the policy says the newest.
        assert [(each.version, each.state) for each in found.model_version_status] == [(2, 50)]
        assert "cannot read saved_model.pb" in found.model_version_status[0].status.error_message
        assert "version 2 cannot be served" in running.log


def test_an_unknown_backend_is_one_line(tmp_path):
    ended = serve(tmp_path, "serving.server.backends=[caffe2]")
    assert ended.returncode == ExitCode.CONFIGURATION
    assert ended.stderr.startswith("error: serving.server.backends: there is no export format 'caffe2'. Choose among ")


def test_a_compressed_request_is_taken(simple_server):
    import gzip

    body = gzip.compress(json.dumps({"instances": [row(8, 0.5)]}).encode())
    request = urllib.request.Request(f"{simple_server.url}:predict", body, {"Content-Encoding": "gzip"})
    with urllib.request.urlopen(request, timeout=60) as response:
        assert json.loads(response.read()) == {"predictions": [58.0]}


def test_it_listens_on_ipv6(simple_models, tmp_path):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    push(tmp_path / "models", simple_models[1], 1)
    with running_server(tmp_path / "models", tmp_path / "workspace", "serving.server.host='::1'") as running:
        assert asked(f"{running.url}:predict", {"instances": [row(8, 0.5)]}) == (200, {"predictions": [58.0]})
        with grpc.insecure_channel(running.grpc) as channel:
            predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
            assert answer_of(predict(request_of(row(8, 0.5)), timeout=60)) == [58.0]


def test_what_nothing_proves_of_a_version_is_told_when_it_serves(simple_models, tmp_path):
    folder = push(tmp_path / "models", simple_models[1], 1)
    unproven(folder)
    settings = ("serving.server.poll_seconds=0.05",)
    with running_server(tmp_path / "models", tmp_path / "workspace", *settings) as running:
        assert available(running) == [1]
        (said,) = running.told["not_verified"]["1"]
        assert "neither a manifest nor a push record" in said
        assert "is not verified" in running.log


def test_where_a_signature_is_required_an_unsigned_version_does_not_serve(simple_models, tmp_path):
    folder = push(tmp_path / "models", simple_models[1], 1)
    signer = key_of(tmp_path / "key.pem")
    named = (f"signing.trusted_keys=[{tmp_path / 'key.pub'}]", "signing.require_signature=true")
    with running_server(tmp_path / "models", tmp_path / "workspace", *named) as running:
        assert available(running) == []
        _, told = asked(running.url)
        assert "the manifest is not signed" in told["model_version_status"][0]["status"]["error_message"]
    for name in ("evidence.json", "model.sig"):
        (folder / name).unlink()
    model_signature.write(folder, {}, signer, 1)
    with running_server(tmp_path / "models", tmp_path / "workspace", *named) as running:
        assert available(running) == [1]
        assert running.told["not_verified"] == {}


def key_of(path):
    """Return the signing key at `path`, made there with its public one beside it."""
    from bike_pipeline.model_registry import signing

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signing, "_default", {})
        for name in (signing.KEY_VARIABLE, signing.KEY_FILE_VARIABLE):
            patch.delenv(name, raising=False)
        signing.use_key_file(path, make=True)
        return signing.signer()


def test_files_that_change_under_a_server_are_not_loaded_later(server):
    # The export answers; TensorFlow would read the SavedModel only now.
    variables = next((server.base / MODEL / "1" / "variables").glob("*.data-*"))
    variables.write_bytes(bytes(byte ^ 1 for byte in variables.read_bytes()))
    body = {"signature_name": "texts", "inputs": {"text": ["a"]}}
    status, told = asked(f"{server.url}:predict", body)
    assert status >= 400
    assert "was changed" in told["error"]
    assert asked(f"{server.url}:predict", {"instances": [row(8, 0.5)]}) == (200, {"predictions": [58.0]})


def test_both_apis_on_one_port_are_refused_in_one_line(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-m", "bike_pipeline.cli", "serve", "--rest-port", "8500", "--set", f"workspace={tmp_path}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == ExitCode.CONFIGURATION
    assert ended.stderr.count("\n") == 1
    assert "serving.server.grpc_port: both APIs would listen on port 8500" in ended.stderr
