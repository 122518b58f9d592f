"""Another configuration while it runs: models, versions, labels. What was there before is there again at the end."""

from __future__ import annotations

import time
from pathlib import Path

import grpc
import pytest

from tests.serving.conformance import conftest
from tests.serving.conformance.conftest import WAIT, configured, management_pb2, model_service
from tests.serving.conformance.model import LABELS
from tests.serving.running import MODEL

# A server that serves two models is started, and a model made for it.
pytestmark = pytest.mark.slow

Code = grpc.StatusCode


@pytest.fixture
def reload(conforming, channel, second):
    """Give the server a configuration, and the first one again at the end."""
    conforming.needs("base_path", "BIKE_SERVING_BASE_PATH")
    call = model_service.ModelServiceStub(channel).HandleReloadConfigRequest

    def reloaded(request):
        return call(request, timeout=WAIT)

    yield reloaded
    reloaded(conftest.everything(conforming))


@pytest.fixture
def names(conforming):
    return {conforming.model: MODEL, conforming.second: "conformance"}


def refused(reload, request):
    with pytest.raises(grpc.RpcError) as caught:
        reload(request)
    return caught.value.code()


def states(ask, name):
    """Return the states by version."""
    found = ask("GET", f"/v1/models/{name}").json["model_version_status"]
    return {one["version"]: one["state"] for one in found}


def test_the_same_again_changes_nothing(reload, conforming, predict):
    response = reload(conftest.everything(conforming))
    assert response.status.error_code == 0
    assert predict("which", {"instances": [0]}, "/labels/stable").json == {"predictions": [1]}


def test_a_label_moves(reload, conforming, names, predict):
    reload(configured(names, conforming.base_path, {"stable": 2}))
    assert predict("which", {"instances": [0]}, "/labels/stable").json == {"predictions": [2]}
    assert predict("which", {"instances": [0]}, "/labels/canary").status == 400


def test_a_label_on_a_version_that_is_not_available(reload, conforming, names, predict):
    request = configured(names, conforming.base_path, {**LABELS, "next": 9})
    assert refused(reload, request) is Code.FAILED_PRECONDITION
    assert predict("which", {"instances": [0]}, "/labels/stable").json == {"predictions": [1]}


def test_a_version_that_is_not_wanted_ends(reload, conforming, names, ask, second, predict):
    request = configured(names, conforming.base_path, {})
    config = next(one for one in request.config.model_config_list.config if one.name == second)
    config.model_version_policy.specific.versions.append(2)
    reload(request)
    # The old version is unloaded after the answer.
    for _ in range(200):
        if states(ask, second) == {"2": "AVAILABLE", "1": "END"}:
            break
        time.sleep(0.05)
    assert states(ask, second) == {"2": "AVAILABLE", "1": "END"}
    answer = predict("which", {"instances": [0]}, "/versions/1")
    assert (answer.status, answer.error) == (404, f"Servable not found for request: Specific({second}, 1)")
    assert predict("which", {"instances": [0]}).json == {"predictions": [2]}


def test_a_model_that_is_not_listed_is_dropped(reload, conforming, ask, url, second, rows):
    reload(configured({second: "conformance"}, conforming.base_path, LABELS))
    answer = ask("POST", f"{url}:predict", {"inputs": {name: values.tolist() for name, values in rows.items()}})
    assert (answer.status, answer.error) == (404, f"Servable not found for request: Latest({conforming.model})")


def test_only_lists_of_models_and_tensorflow(reload, conforming, names):
    assert refused(reload, management_pb2.ReloadConfigRequest()) is Code.INVALID_ARGUMENT
    request = configured(names, conforming.base_path, LABELS)
    request.config.model_config_list.config[0].model_platform = "other"
    assert refused(reload, request) is Code.INVALID_ARGUMENT


def test_one_name_twice(reload, conforming, names, predict):
    request = configured(names, conforming.base_path, LABELS)
    request.config.model_config_list.config.append(request.config.model_config_list.config[0])
    assert refused(reload, request) is Code.INVALID_ARGUMENT
    assert predict("which", {"instances": [0]}, "/labels/stable").json == {"predictions": [1]}


def test_a_folder_without_a_version_is_an_error_not_ok(reload, conforming, names, predict, tmp_path):
    if conforming.is_named:
        pytest.skip("TF Serving waits until a version is there")
    for folder in ("nowhere", "conformance/1"):
        request = configured({**names, "nobody": folder}, conforming.base_path, LABELS)
        with pytest.raises(grpc.RpcError) as caught:
            reload(request)
        assert caught.value.code() is Code.NOT_FOUND
        assert "nobody" in caught.value.details()
    assert predict("which", {"instances": [0]}).json == {"predictions": [2]}


def test_a_named_version_that_is_not_there_is_an_error_not_ok(reload, conforming, names, second, predict):
    if conforming.is_named:
        pytest.skip("TF Serving warns in its log")
    request = configured(names, conforming.base_path, {})
    config = next(one for one in request.config.model_config_list.config if one.name == second)
    config.model_version_policy.specific.versions.extend([2, 9])
    with pytest.raises(grpc.RpcError) as caught:
        reload(request)
    assert caught.value.code() is Code.NOT_FOUND
    assert f"{second} has no version 9" in caught.value.details()
    assert predict("which", {"instances": [0]}).json == {"predictions": [2]}


def test_a_new_model_answers_as_soon_as_the_call_returns(reload, conforming, names, ask):
    request = configured({**names, "again": "half_plus_three"}, conforming.base_path, LABELS)
    request.metric_names.append(":tensorflow:serving:request_count")
    response = reload(request)
    assert list(response.metric) == []
    assert ask("POST", "/v1/models/again:predict", {"instances": [1.0]}).json == {"predictions": [3.5]}


def test_a_version_folder_may_be_a_link(reload, conforming, names, ask, tmp_path):
    base = Path(conforming.base_path)
    if not base.is_dir():
        pytest.skip("the folder of the server under test is on another machine")
    (base / "linked").mkdir(exist_ok=True)
    (base / "linked" / "7").symlink_to(base / "half_plus_two" / "123", target_is_directory=True)
    try:
        reload(configured({**names, "linked": "linked"}, conforming.base_path, LABELS))
        assert states(ask, "linked") == {"7": "AVAILABLE"}
        assert ask("POST", "/v1/models/linked:predict", {"instances": [1.0]}).json == {"predictions": [2.5]}
    finally:
        (base / "linked" / "7").unlink()
