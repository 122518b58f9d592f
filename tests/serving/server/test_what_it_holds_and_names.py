"""What only the server itself can see of a request: how many rows it holds, and what its names could reach."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from bike_pipeline.serving.protos import model_management_pb2, predict_pb2
from bike_pipeline.serving.server import tensors
from tests.serving.running import MODEL, push, required_rows, running_server
from tests.serving.server.asking import asked

ROWS = required_rows(5)


def request_of(columns):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = MODEL
    for name, values in columns.items():
        tensors.fill(request.inputs[name], np.asarray(values))
    return request


def test_more_rows_than_allowed_are_refused_over_both_protocols(servable_model, tmp_path):
    push(tmp_path / "models", servable_model, 1)
    with running_server(tmp_path / "models", tmp_path, "serving.server.limits={rows: 10, json_depth: 8}") as running:
        many = {name: np.repeat(values[:1], 11) for name, values in ROWS.items()}
        body = {"inputs": {name: values.tolist() for name, values in many.items()}}
        refusal = (400, {"error": "The request holds more than 10 rows; send several."})
        assert asked(f"{running.url}:predict", body) == refusal
        huge = request_of(ROWS)
        for tensor in huge.inputs.values():
            tensor.tensor_shape.dim[0].size = 2**40
        with grpc.insecure_channel(running.grpc) as connected:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(connected)
            for request in (request_of(many), huge):
                with pytest.raises(grpc.RpcError) as error:
                    stub.Predict(request, timeout=60)
                assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


WATCH = """
import os, sys
def hook(event, arguments):
    if event in WATCHED and "marked-place" in repr(arguments):
        os.write(TO, (event + repr(arguments) + "\\n").encode())
WATCHED = {"open", "import", "exec", "os.listdir", "os.scandir", "os.mkdir", "os.rename", "pickle.find_class"}
TO = os.open(os.environ["WATCH_FILE"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
sys.addaudithook(hook)
"""


@pytest.fixture(scope="module")
def watched(servable_model, tmp_path_factory):
    """A server whose Python tells every file that it opens and every folder that it lists below a marked place."""
    folder = tmp_path_factory.mktemp("watched")
    (folder / "watch").mkdir()
    (folder / "watch" / "sitecustomize.py").write_text(WATCH)
    told = folder / "told"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder / "watch"))
        patch.setenv("WATCH_FILE", str(told))
        base = folder / "marked-place-of-models"
        push(base, servable_model, 1)
        with running_server(base, folder / "workspace") as running:
            # That the watch works: the server has read its own model.
            assert str(base / MODEL) in told.read_text()
            yield running, told


# The name of the marked place, as a path, encoded, ended early, and as what Python would import or unpickle.
NAMES = [
    *(
        "../../marked-place",
        "..%2f..%2fmarked-place",
        "%2e%2e%2f%2e%2e%2fmarked-place",
        "/marked-place",
        "marked-place",
    ),
    *("marked-place%00", "marked-place" + "a" * 4000, "marked-place.pkl", "marked-place:predict", "~/marked-place"),
]


def test_no_name_of_a_request_reaches_the_disk(watched):
    running, told = watched
    mine = str(running.base / MODEL)

    def strange():
        return [line for line in told.read_text().splitlines() if mine not in line]

    for name in NAMES:
        for path in (f"/v1/models/{name}", f"/v1/models/{name}:predict", f"/v1/models/{MODEL}/labels/{name}/metadata"):
            connection = http.client.HTTPConnection(running.rest, timeout=60)
            connection.request("GET" if "predict" not in path else "POST", path, b'{"signature_name": "marked-place"}')
            answer = connection.getresponse()
            assert answer.status in {400, 404}, path
            assert set(json.loads(answer.read())) == {"error"}
            connection.close()
    with grpc.insecure_channel(running.grpc) as connected:
        prediction = prediction_service_pb2_grpc.PredictionServiceStub(connected)
        models = model_service_pb2_grpc.ModelServiceStub(connected)
        for name in NAMES:
            request = request_of(ROWS)
            request.model_spec.name = name
            with pytest.raises(grpc.RpcError) as error:
                prediction.Predict(request, timeout=60)
            assert error.value.code() is grpc.StatusCode.NOT_FOUND
            for place in (name, f"/{name}", f"{running.base}/../{name}"):
                reload = model_management_pb2.ReloadConfigRequest()
                reload.config.model_config_list.config.add(name=MODEL, base_path=place, model_platform="tensorflow")
                with pytest.raises(grpc.RpcError) as error:
                    models.HandleReloadConfigRequest(reload, timeout=60)
                assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert not strange()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--host", "0.0.0.0"), "bike-pipeline gateway"),
        (("--set", "serving.server.key_file=/none.key"), "/none.key: cannot read it"),
        (("--set", "serving.security.tls.key_file=a"), "docs/gateway.md"),
    ],
    ids=["everybody", "no-key", "former"],
)
def test_a_server_that_would_let_everybody_in_or_nobody_does_not_start_and_says_why(tmp_path, arguments, said):
    command = [sys.executable, "-m", "bike_pipeline.cli", "serve", "--rest-port", "0", "--grpc-port", "0"]
    command += ["--set", f"workspace={tmp_path}", *arguments]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 3
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
