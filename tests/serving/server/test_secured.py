"""`bike-pipeline serve` over TLS, to known clients, within limits: a real process, its real clients."""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
import sys

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from bike_pipeline.modeling.loaded_model import LoadedModel
from bike_pipeline.serving.protos import model_management_pb2, predict_pb2
from bike_pipeline.serving.security import api_keys
from bike_pipeline.serving.server import tensors
from tests.serving.running import MODEL, push, required_rows, running_server
from tests.rollout.gateway.authorities import Authority

ROWS = required_rows(5)


@pytest.fixture(scope="module")
def expected(servable_model):
    return LoadedModel(servable_model).predict(ROWS)


@pytest.fixture(scope="module")
def secured(servable_model, tmp_path_factory):
    """A server with mTLS, API keys and small limits; the authority, a client's certificate, and two keys."""
    folder = tmp_path_factory.mktemp("secured")
    base, workspace = folder / "models", folder / "workspace"
    push(base, servable_model, 1)
    authority = Authority(folder)
    server, client = authority.sign("server"), authority.sign("client", client=True)
    keys = {
        scope: api_keys.create(workspace / "keys" / "api-keys.json", scope, [scope])[1]
        for scope in ("predict", "admin")
    }
    settings = (
        f"tls.certificate_file={server.certificate}",
        f"tls.key_file={server.key}",
        f"tls.client_ca_file={authority.certificate}",
        "authentication.methods=[api_keys]",
        "limits={rows: 10, json_depth: 8}",
    )
    with running_server(base, workspace, *(f"serving.security.{each}" for each in settings)) as running:
        yield running, authority, client, keys


def ask(secured, body=None, path=f"/v1/models/{MODEL}:predict", *, key="predict", certificate=True):
    running, authority, client, keys = secured
    context = ssl.create_default_context(cafile=str(authority.certificate))
    if certificate:
        context.load_cert_chain(str(client.certificate), str(client.key))
    connection = http.client.HTTPSConnection(running.rest, context=context, timeout=60)
    try:
        headers = {"X-API-Key": keys[key]} if key else {}
        connection.request("GET" if body is None else "POST", path, body and json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def channel(secured):
    running, authority, client, _ = secured
    return grpc.secure_channel(
        running.grpc,
        grpc.ssl_channel_credentials(
            authority.certificate.read_bytes(), client.key.read_bytes(), client.certificate.read_bytes()
        ),
    )


def request_of(columns):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = MODEL
    for name, values in columns.items():
        tensors.fill(request.inputs[name], np.asarray(values))
    return request


def test_a_known_client_gets_the_models_answers_over_both_protocols(secured, expected):
    status, answer = ask(secured, {"inputs": {name: values.tolist() for name, values in ROWS.items()}})
    assert status == 200
    np.testing.assert_allclose(answer["outputs"], expected, rtol=1e-5, atol=1e-4)
    with channel(secured) as connected:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(connected)
        response = stub.Predict(request_of(ROWS), metadata=(("x-api-key", secured[3]["predict"]),), timeout=60)
    np.testing.assert_allclose(tensors.to_array(response.outputs["cnt"], "cnt").ravel(), expected, rtol=1e-5, atol=1e-4)


def test_nobody_else_does(secured):
    assert ask(secured, {}, key=None)[0] == 401
    assert ask(secured, {}, key="admin")[0] == 403
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
        ask(secured, {}, certificate=False)
    with channel(secured) as connected:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(connected)
        with pytest.raises(grpc.RpcError) as error:
            stub.Predict(request_of(ROWS), timeout=60)
    assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_more_rows_than_allowed_are_refused_over_both_protocols(secured):
    many = {name: np.repeat(values[:1], 11) for name, values in ROWS.items()}
    status, answer = ask(secured, {"inputs": {name: values.tolist() for name, values in many.items()}})
    assert (status, answer["error"]) == (400, "The request holds more than 10 rows; send several.")
    huge = request_of(ROWS)
    for tensor in huge.inputs.values():
        tensor.tensor_shape.dim[0].size = 2**40
    with channel(secured) as connected:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(connected)
        for request in (request_of(many), huge):
            with pytest.raises(grpc.RpcError) as error:
                stub.Predict(request, metadata=(("x-api-key", secured[3]["predict"]),), timeout=60)
            assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_only_an_admin_changes_what_is_served_and_only_to_what_lies_beside_it(secured):
    running, _, _, keys = secured

    def reload(key, base_path):
        request = model_management_pb2.ReloadConfigRequest()
        request.config.model_config_list.config.add(name=MODEL, base_path=base_path, model_platform="tensorflow")
        with channel(secured) as connected:
            try:
                model_service_pb2_grpc.ModelServiceStub(connected).HandleReloadConfigRequest(
                    request, metadata=(("x-api-key", keys[key]),), timeout=60
                )
            except grpc.RpcError as error:
                return error.code().name
        return "OK"

    served = str(running.base / MODEL)
    assert reload("predict", served) == "PERMISSION_DENIED"
    assert reload("admin", "/etc") == "PERMISSION_DENIED"
    assert reload("admin", f"{served}/../../../etc") == "PERMISSION_DENIED"
    assert reload("admin", served) == "OK"
    assert ask(secured, None, f"/v1/models/{MODEL}")[1]["model_version_status"][0]["state"] == "AVAILABLE"


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


def test_the_document_says_how_to_prove_who_asks(secured):
    assert ask(secured, None, "/openapi.json")[1]["security"] == [{"ApiKey": []}, {"Bearer": []}]


@pytest.mark.parametrize(
    ("assignments", "said", "code"),
    [
        (("authentication.methods=[api_keys]",), "bike-pipeline api-key create", 3),
        (("tls={certificate_file: /none.pem, key_file: /none-key.pem}",), "/none.pem: cannot read it", 3),
    ],
    ids=["no-keys", "no-certificate"],
)
def test_a_server_that_could_let_nobody_in_does_not_start_and_says_why(tmp_path, assignments, said, code):
    command = [sys.executable, "-m", "bike_pipeline.cli", "serve", "--rest-port", "0", "--grpc-port", "0"]
    for each in (f"workspace={tmp_path}", *(f"serving.security.{each}" for each in assignments)):
        command += ["--set", each]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert ended.returncode == code
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
