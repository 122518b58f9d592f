"""Messages that nobody thought of, over gRPC: each gets a status that is allowed, and the server goes on."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies

from bike_pipeline import features
from bike_pipeline.modeling.loaded_model import LoadedModel
from bike_pipeline.serving.protos import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
    tensor_pb2,
)
from bike_pipeline.serving.server import tensors
from tests.serving.running import required_rows

# What a call without a fault of the server may end with.
ALLOWED = {
    "OK",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "FAILED_PRECONDITION",
    "PERMISSION_DENIED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
}
PREDICTION, MODELS = "/tensorflow.serving.PredictionService/", "/tensorflow.serving.ModelService/"
METHODS = {
    PREDICTION + "Predict": predict_pb2.PredictRequest,
    PREDICTION + "Classify": regression_pb2.RegressionRequest,
    PREDICTION + "Regress": regression_pb2.RegressionRequest,
    PREDICTION + "MultiInference": inference_pb2.MultiInferenceRequest,
    PREDICTION + "GetModelMetadata": get_model_metadata_pb2.GetModelMetadataRequest,
    MODELS + "GetModelStatus": get_model_status_pb2.GetModelStatusRequest,
    MODELS + "HandleReloadConfigRequest": model_management_pb2.ReloadConfigRequest,
}
GOLDEN = required_rows(20)
NAMES = [feature.name for feature in features.REQUIRED_INPUTS]
BOUNDED = {"deadline": None, "derandomize": True, "database": None, "suppress_health_check": list(HealthCheck)}


def golden_request():
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "bike_demand"
    for name, values in GOLDEN.items():
        tensors.fill(request.inputs[name], values)
    return request


@pytest.fixture(scope="module")
def channel(model_server):
    with grpc.insecure_channel(model_server.grpc) as channel:
        yield channel


@pytest.fixture(scope="module")
def expected(servable_model):
    return LoadedModel(servable_model).predict(GOLDEN)


@pytest.fixture(autouse=True)
def still_right(model_server, channel, expected):
    """After a test the server lives, answers golden rows right, and logged no unforeseen error."""
    before = model_server.log
    yield
    assert model_server.process.poll() is None
    code, content = call(channel, PREDICTION + "Predict", golden_request().SerializeToString())
    assert code == "OK"
    outputs = predict_pb2.PredictResponse.FromString(content).outputs
    np.testing.assert_allclose(tensors.to_array(outputs["cnt"], "cnt").ravel(), expected, rtol=1e-5, atol=1e-4)
    assert "Traceback" not in model_server.log[len(before) :]


def call(channel, method, message):
    """Return the status and the answer, or the details, of a call with these bytes."""
    try:
        return "OK", channel.unary_unary(method)(message, timeout=60)
    except grpc.RpcError as error:
        return error.code().name, error.details()


def check(channel, method, message):
    code, content = call(channel, method, message)
    assert code in ALLOWED, (code, content)
    if code != "OK":
        for inside in ("Traceback", "Error(", ".py", "object at 0x", "site-packages"):
            assert inside not in content, content


SIZES = strategies.one_of(
    strategies.integers(-2, 4), strategies.sampled_from([2**20, 2**31, 2**62, 2**63 - 1, -(2**63)])
)
FIELDS = {
    "float_val": strategies.floats(width=32),
    "double_val": strategies.floats(),
    "int_val": strategies.integers(-(2**31), 2**31 - 1),
    "int64_val": strategies.integers(-(2**63), 2**63 - 1),
    "uint32_val": strategies.integers(0, 2**32 - 1),
    "uint64_val": strategies.integers(0, 2**64 - 1),
    "bool_val": strategies.booleans(),
    "string_val": strategies.binary(max_size=5),
    "half_val": strategies.integers(-(2**31), 2**31 - 1),
    "scomplex_val": strategies.floats(width=32),
    "dcomplex_val": strategies.floats(),
}


@strategies.composite
def tensor(draw):
    """A TensorProto of any type, shape and content, which rarely fit each other."""
    found = tensor_pb2.TensorProto(dtype=draw(strategies.integers(0, 30)))
    for size in draw(strategies.lists(SIZES, max_size=3)):
        found.tensor_shape.dim.add(size=size)
    found.tensor_shape.unknown_rank = draw(strategies.integers(0, 9)) == 0
    field = draw(strategies.sampled_from([*FIELDS, ""]))
    if field:
        getattr(found, field).extend(draw(strategies.lists(FIELDS[field], max_size=4)))
    if draw(strategies.integers(0, 3)) == 0:
        found.tensor_content = draw(strategies.binary(max_size=16))
    return found


@strategies.composite
def request(draw):
    """A right request with a few faults."""
    rows = draw(strategies.integers(1, 3))
    found = predict_pb2.PredictRequest()
    found.model_spec.name = draw(
        strategies.sampled_from(["bike_demand"] * 8 + ["", "../../etc", "a" * 5000, "\0", "é"])
    )
    if draw(strategies.integers(0, 5)) == 0:
        found.model_spec.version.value = draw(strategies.integers(-(2**63), 2**63 - 1))
    elif draw(strategies.integers(0, 5)) == 0:
        found.model_spec.version_label = draw(strategies.text(max_size=5))
    if draw(strategies.integers(0, 5)) == 0:
        found.model_spec.signature_name = draw(strategies.sampled_from(["serving_default", "", "../x", "\0"]))
    for name, values in GOLDEN.items():
        tensors.fill(found.inputs[name], values[:rows])
    for _ in range(draw(strategies.integers(0, 2))):
        name = draw(strategies.sampled_from([*NAMES, "casual", ""]))
        if draw(strategies.integers(0, 4)) == 0:
            found.inputs.pop(name, None)
        else:
            found.inputs[name].CopyFrom(draw(tensor()))
    found.output_filter.extend(draw(strategies.lists(strategies.sampled_from(["cnt", "x", ""]), max_size=2)))
    return found


@settings(max_examples=300, **BOUNDED)
@given(found=request())
def test_requests_with_faults_get_an_answer_or_an_error_of_the_client(channel, found):
    check(channel, PREDICTION + "Predict", found.SerializeToString())


@settings(max_examples=100, **BOUNDED)
@given(given_=tensor())
def test_a_tensor_of_any_kind_in_every_place_gets_an_answer_or_an_error(channel, given_):
    found = golden_request()
    for name in NAMES:
        found.inputs[name].CopyFrom(given_)
    check(channel, PREDICTION + "Predict", found.SerializeToString())


@strategies.composite
def damaged(draw):
    """The bytes of a right request, cut, with bytes changed or doubled."""
    content = bytearray(draw(request()).SerializeToString())
    for _ in range(draw(strategies.integers(1, 4))):
        at = draw(strategies.integers(0, len(content)))
        content[at : at + draw(strategies.integers(0, 8))] = draw(strategies.binary(max_size=6))
    return bytes(content)


@settings(max_examples=300, **BOUNDED)
@given(method=strategies.sampled_from(list(METHODS)), message=strategies.binary(max_size=60) | damaged())
def test_bytes_that_are_hardly_a_message_get_an_error_by_every_method(channel, method, message):
    if method.endswith("HandleReloadConfigRequest"):
        try:
            listed = model_management_pb2.ReloadConfigRequest.FromString(message).config.WhichOneof("config")
        except Exception:  # noqa: BLE001 (what cannot be parsed changes nothing)
            listed = None
        if listed == "model_config_list":
            # A list without the model is a right request: it would end the serving of the other tests' model.
            return
    check(channel, method, message)


ROOT_RELATIVE = ["", "/..", "/../../../etc", "/../../../../../../proc/self", "/%2e%2e", "/\0", "/" + "a" * 5000]


@pytest.mark.parametrize("tail", ROOT_RELATIVE[1:], ids=["up", "etc", "proc", "encoded", "nul", "long"])
def test_a_base_path_that_leads_elsewhere_changes_nothing(channel, model_server, tail):
    found = model_management_pb2.ReloadConfigRequest()
    # Beside the folder of the models, not in it.
    outside = str(model_server.base.parent / "elsewhere") + tail
    found.config.model_config_list.config.add(name="bike_demand", base_path=outside, model_platform="tensorflow")
    code, details = call(channel, MODELS + "HandleReloadConfigRequest", found.SerializeToString())
    assert code == "PERMISSION_DENIED"
    assert details == "The base path of bike_demand is outside of what this server may load."


@pytest.mark.parametrize("name", ["../../etc", "bike_demand/../x", "..", "a\0b", "é", "a" * 100_000, "%2e%2e%2fetc"])
def test_a_name_that_is_a_path_is_a_model_that_is_not_there(channel, name):
    found = predict_pb2.PredictRequest()
    found.model_spec.name = name
    code, details = call(channel, PREDICTION + "Predict", found.SerializeToString())
    assert code == "NOT_FOUND"
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = name
    assert call(channel, MODELS + "GetModelStatus", status.SerializeToString())[0] == "NOT_FOUND"
    assert len(details) < 200_000
