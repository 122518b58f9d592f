"""Servers follow what is promoted: the embedded one by itself, and any that speaks TF Serving's protocol when told."""

from __future__ import annotations

import json
import time
import urllib.request
from urllib.error import HTTPError

import grpc
import pytest
import tensorflow as tf

from bike_pipeline.errors import ServerError
from bike_pipeline.model_registry import ModelRegistry, deployment, is_intact
from bike_pipeline.rollout import promotion
from bike_pipeline.rollout.promotion import RolloutTargets
from bike_pipeline.serving.clients.connection import TOKEN_VARIABLE
from bike_pipeline.settings import load_settings
from tests.serving.running import MODEL, push, required_rows, running_server, with_export


@pytest.fixture(scope="module")
def model(exported, tmp_path_factory):
    """A small model that loads without TensorFlow."""
    return with_export(exported.path, tmp_path_factory.mktemp("following") / "model")


@pytest.fixture
def models(tmp_path, model):
    """The folder of a model whose versions 1 and 2 are validated and of which 1 is promoted."""
    ModelRegistry(tmp_path / "serving" / MODEL).begin()
    for version in (1, 2):
        push(tmp_path / "serving", model, version)
        ModelRegistry(tmp_path / "serving" / MODEL).set_validated(version, passed=True, reason="")
    ModelRegistry(tmp_path / "serving" / MODEL).promote(1)
    return tmp_path / "serving"


def asked(server, path):
    """Return the status of a request for one golden row."""
    row = {name: values.tolist() for name, values in required_rows(1).items()}
    request = urllib.request.Request(
        f"http://{server.rest}/v1/models/{MODEL}{path}:predict", json.dumps({"inputs": row}).encode()
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status
    except HTTPError as error:
        return error.code


def version_of(server):
    """Return the version that answers a request without one."""
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    request = predict_pb2.PredictRequest()
    request.model_spec.name = MODEL
    for name, values in required_rows(1).items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
    with grpc.insecure_channel(server.grpc) as channel:
        answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=30)
    return answer.model_spec.version.value


def available(server):
    with urllib.request.urlopen(server.url, timeout=30) as response:
        found = json.load(response)["model_version_status"]
    return sorted(int(entry["version"]) for entry in found if entry["state"] == "AVAILABLE")


def eventually(question, expected):
    for _ in range(600):
        if (answer := question()) == expected:
            return
        time.sleep(0.05)
    raise AssertionError(f"{answer} and not {expected}")


def test_the_embedded_server_follows_the_state_by_itself(models, tmp_path):
    base = models / MODEL
    with running_server(models, tmp_path, "serving.server.poll_seconds=0.1") as server:
        assert available(server) == [1]
        assert (asked(server, ""), asked(server, "/labels/stable"), asked(server, "/versions/2")) == (200, 200, 404)
        ModelRegistry(base).promote(2)
        eventually(lambda: available(server), [2])
        eventually(lambda: asked(server, "/labels/stable"), 200)
        assert version_of(server) == 2
        ModelRegistry(base).promote(2, label="canary")
        ModelRegistry(base).rollback()
        eventually(lambda: asked(server, "/labels/canary"), 200)
        eventually(lambda: available(server), [1, 2])
        # A newer version that has only another label gets no request that did not ask for it.
        eventually(lambda: version_of(server), 1)
        # What cannot be read changes nothing of what serves.
        (base / deployment.STATE_FILE).write_text("{", encoding="utf-8")
        eventually(lambda: "what serves goes on serving" in server.log, True)
        assert asked(server, "") == 200


def test_a_running_server_is_told_and_answers_all_along(models, tmp_path):
    base = models / MODEL
    # A policy that follows nothing by itself, as TF Serving's.
    fixed = ("serving.server.version_policy=specific", "serving.server.specific_versions=[1]")
    with running_server(models, tmp_path, *fixed) as server:
        settings = load_settings(
            assignments=(
                f"serving.promotion.servers=['{server.grpc}']",
                f"serving.promotion.server_base_path={base}",
                "serving.promotion.keep_loaded=0",
            )
        )
        chosen = RolloutTargets.of(settings)
        ModelRegistry(base).promote(2)
        assert promotion.roll_out(base, chosen) == [server.grpc]
        assert asked(server, "") == 200
        assert asked(server, "/labels/stable") == 200
        eventually(lambda: available(server), [2])
        ModelRegistry(base).rollback()
        promotion.roll_out(base, chosen)
        eventually(lambda: available(server), [1])
        assert asked(server, "/labels/stable") == 200


def test_a_server_with_a_key_is_told_by_whoever_has_it_and_by_nobody_else(models, tmp_path, monkeypatch):
    base, key = models / MODEL, "0123456789abcdef" * 2
    (tmp_path / "key").write_text(key)
    secured = (
        "serving.server.version_policy=specific",
        "serving.server.specific_versions=[1]",
        f"serving.server.key_file={tmp_path / 'key'}",
    )
    with running_server(models, tmp_path, *secured) as server:
        settings = load_settings(
            assignments=(
                f"serving.promotion.servers=['{server.grpc}']",
                f"serving.promotion.server_base_path={base}",
            )
        )
        chosen = RolloutTargets.model_validate_json(RolloutTargets.of(settings).to_json())
        ModelRegistry(base).promote(2)
        for wrong in ("", "x" * 32):
            monkeypatch.setenv(TOKEN_VARIABLE, wrong)
            with pytest.raises(ServerError, match="was not told of the promotion"):
                promotion.roll_out(base, chosen)
        monkeypatch.setenv(TOKEN_VARIABLE, key)
        assert promotion.roll_out(base, chosen) == [server.grpc]


def test_a_server_that_cannot_load_the_version_says_so_and_goes_on(models, tmp_path):
    base = models / MODEL
    fixed = ("serving.server.version_policy=specific", "serving.server.specific_versions=[1]")
    with running_server(models, tmp_path, *fixed) as server:
        settings = load_settings(
            assignments=(
                f"serving.promotion.servers=['{server.grpc}']",
                f"serving.promotion.server_base_path={base}",
                "serving.promotion.server_seconds=5",
            )
        )
        ModelRegistry(base).promote(2)
        path = base / "2" / "saved_model.pb"
        path.write_bytes(path.read_bytes()[:50])
        assert not is_intact(base / "2", ModelRegistry(base).push_record(2)["fingerprint"])
        with pytest.raises(ServerError) as error:
            promotion.roll_out(base, RolloutTargets.of(settings))
        assert error.value.where == server.grpc
        assert asked(server, "") == 200
        assert available(server) == [1]
