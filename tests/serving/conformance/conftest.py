"""The server that is held against TF Serving's behaviour: any that is named, else the embedded one.

    BIKE_SERVING_REST=127.0.0.1:8501 BIKE_SERVING_GRPC=127.0.0.1:8500 python -m pytest -n 0 tests/serving/conformance

Of a named server, what needs more to be known is skipped unless it is told: BIKE_SERVING_MODEL (a bike model, else
bike_demand), BIKE_SERVING_CONFORMANCE_MODEL (the model of model.py under this name; those of TensorFlow 1 beside it
under their own), BIKE_SERVING_BASE_PATH (the folder in which the server sees all models; its configuration is then
reloaded), BIKE_SERVING_CORS and BIKE_SERVING_METRICS (1 where they are switched on).
"""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest

from bike_pipeline.serving import protos
from tests.serving.conformance import model as conformance_model
from tests.serving.running import MODEL, push, required_rows, running_server, with_export

config_pb2, management_pb2, model_service, prediction = map(
    protos.load,
    [
        "tensorflow_serving.config.model_server_config_pb2",
        "tensorflow_serving.apis.model_management_pb2",
        "tensorflow_serving.apis.model_service_pb2_grpc",
        "tensorflow_serving.apis.prediction_service_pb2_grpc",
    ],
)
WAIT = 60


@dataclass(frozen=True)
class Target:
    """A server under test.

    Attributes:
        rest: host:port of the REST API.
        grpc: host:port of the gRPC API.
        model: name of the bike model.
        second: name of the conformance model, versions 1 and 2 with labels; empty where there is none.
        base_path: where the server sees all models; empty where its configuration is not to be touched.
        extras: what else is switched on: "cors", "metrics".
        is_named: whether it was named, and is not the embedded server.
    """

    rest: str
    grpc: str
    model: str
    second: str
    base_path: str
    extras: frozenset[str]
    is_named: bool = False

    def needs(self, what: str, variable: str) -> str:
        """Return a field, or skip the test that cannot do without it."""
        value = getattr(self, what)
        if not value:
            pytest.skip(f"not told of the server under test: {variable}")
        return str(value)


@dataclass(frozen=True)
class Answer:
    """An answer over REST."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The error's text: an object with this one key, as JSON."""
        assert self.headers["content-type"].partition(";")[0] == "application/json"
        assert list(self.json) == ["error"]
        text = self.json["error"]
        assert isinstance(text, str)
        assert "Traceback" not in text
        return text


def configured(names: dict[str, str], base_path: str, labels: dict[str, int]) -> Any:
    """Return a configuration of all versions of models; `labels` are those of the conformance model."""
    request = management_pb2.ReloadConfigRequest()
    for name, folder in names.items():
        config = request.config.model_config_list.config.add(
            name=name, base_path=f"{base_path}/{folder}", model_platform="tensorflow"
        )
        config.model_version_policy.all.SetInParent()
        if folder == "conformance":
            config.version_labels.update(labels)
    return request


def everything(target: Target) -> Any:
    """Return the configuration that every test finds."""
    names = {target.model: MODEL, target.second: "conformance", **{name: name for name in conformance_model.CLASSICS}}
    request = configured(names, target.base_path, conformance_model.LABELS)
    for config in request.config.model_config_list.config:
        if config.name in conformance_model.CLASSICS:
            config.version_labels["stable"] = conformance_model.CLASSIC_VERSION
    return request


@pytest.fixture(scope="session")
def conforming(exported, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """The server under test."""
    if rest := os.environ.get("BIKE_SERVING_REST"):
        if "BIKE_SERVING_GRPC" not in os.environ:
            pytest.exit("BIKE_SERVING_REST is set: name the same server's gRPC port in BIKE_SERVING_GRPC, too", 4)
        given = {name: os.environ.get(f"BIKE_SERVING_{name.upper()}", "") for name in ("cors", "metrics")}
        yield Target(
            rest,
            os.environ["BIKE_SERVING_GRPC"],
            os.environ.get("BIKE_SERVING_MODEL", MODEL),
            os.environ.get("BIKE_SERVING_CONFORMANCE_MODEL", ""),
            os.environ.get("BIKE_SERVING_BASE_PATH", ""),
            frozenset(name for name, value in given.items() if value not in ("", "0")),
            is_named=True,
        )
        return
    base = tmp_path_factory.mktemp("conformance")
    push(base, with_export(exported.path, tmp_path_factory.mktemp("exports") / "model"), 1)
    conformance_model.write_all(base)
    with running_server(base, tmp_path_factory.mktemp("workspace")) as running:
        target = Target(running.rest, running.grpc, MODEL, "conformance", str(base), frozenset(["cors", "metrics"]))
        with grpc.insecure_channel(running.grpc) as channel:
            model_service.ModelServiceStub(channel).HandleReloadConfigRequest(everything(target), timeout=WAIT)
        yield target


@pytest.fixture
def ask(conforming):
    """Ask over REST exactly as written: `ask("GET", "/v1/models")`; what is no bytes is sent as JSON."""

    def asked(method: str, path: str, body: Any = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection(conforming.rest, timeout=WAIT)
        try:
            sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, sent, {name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            return Answer(
                response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
            )
        finally:
            connection.close()

    return asked


@pytest.fixture
def url(conforming) -> str:
    """Path of the bike model."""
    return f"/v1/models/{conforming.model}"


@pytest.fixture
def second(conforming) -> str:
    """Name of the conformance model."""
    return conforming.needs("second", "BIKE_SERVING_CONFORMANCE_MODEL")


@pytest.fixture
def predict(ask, second):
    """Ask a signature of the conformance model with a body."""

    def predicted(signature: str, body: Any, place: str = "") -> Answer:
        if isinstance(body, dict):
            body = {"signature_name": signature, **body}
        return ask("POST", f"/v1/models/{second}{place}:predict", body)

    return predicted


@pytest.fixture
def channel(conforming) -> Iterator[grpc.Channel]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(conforming.grpc, options) as opened:
        yield opened


@pytest.fixture(scope="session")
def rows() -> dict[str, np.ndarray]:
    """Fifty real rows, by input."""
    return required_rows(50)


def instances(columns: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Return columns as rows."""
    values = [column.tolist() for column in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]


@pytest.fixture
def service(channel):
    return prediction.PredictionServiceStub(channel)
