"""gRPC clients against a server that fails in every way."""

from __future__ import annotations

import socket

import grpc
import numpy as np
import pytest

from bike_pipeline.serving import clients, protos
from tests.serving.clients import scripted
from tests.serving.clients.asking import COLUMNS, ask, both_ways, to
from tests.serving.clients.scripted import Abort, Silence, over_grpc, prediction, rest

pytestmark = both_ways
predict_pb2, metadata_pb2, status_pb2, types_pb2 = map(
    protos.load,
    [
        "tensorflow_serving.apis.predict_pb2",
        "tensorflow_serving.apis.get_model_metadata_pb2",
        "tensorflow_serving.apis.get_model_status_pb2",
        "tensorflow.core.framework.types_pb2",
    ],
)
Code = grpc.StatusCode


@pytest.mark.parametrize("as_content", [True, False])
def test_columns_go_in_and_rentals_come_out(way, as_content):
    with over_grpc(prediction(12.5, 3, as_content=as_content)) as server:
        found = ask(way, to(server.port, "grpc", label="stable", signature="other"))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [12.5, 3])
    method, metadata, body = server.asked[0]
    assert method == "/tensorflow.serving.PredictionService/Predict"
    assert "authorization" not in metadata
    request = predict_pb2.PredictRequest.FromString(body)
    assert request.model_spec.name == "bike_demand"
    assert request.model_spec.version_label == "stable"
    assert request.model_spec.signature_name == "other"
    assert set(request.inputs) == set(COLUMNS)
    hour, temperature = request.inputs["hr"], request.inputs["temp"]
    assert (hour.dtype, temperature.dtype) == (types_pb2.DT_INT64, types_pb2.DT_FLOAT)
    assert hour.tensor_shape.dim[0].size == 2
    assert np.frombuffer(hour.tensor_content, "<i8").tolist() == [1, 0]
    assert np.frombuffer(temperature.tensor_content, "<f4").tolist() == [0.5, 0.25]


def test_a_version_is_asked(way):
    with over_grpc(prediction(1, 2)) as server:
        ask(way, to(server.port, "grpc", version=0))
    spec = predict_pb2.PredictRequest.FromString(server.asked[0][2]).model_spec
    assert spec.HasField("version")
    assert spec.version.value == 0


def test_a_value_that_is_written_once_for_all_rows(way):
    with over_grpc(prediction(7)) as server:
        assert ask(way, to(server.port, "grpc")).tolist() == [7, 7]


def test_an_answer_larger_than_grpc_takes_by_default(way):
    rows = 1_100_000
    columns = {name: np.full(rows, values[0]) for name, values in COLUMNS.items()}
    with over_grpc(prediction(*range(rows), as_content=True)) as server:
        found = ask(way, to(server.port, "grpc", rows_per_request=rows * 2, timeout=120), "predict", columns)
    assert found[-1] == rows - 1


@pytest.mark.parametrize(
    "step",
    [
        Abort(Code.UNAVAILABLE, "loading"),
        Abort(Code.RESOURCE_EXHAUSTED, "slow down", (("retry-after", "0"),)),
        Abort(Code.RESOURCE_EXHAUSTED, "slow down", (("grpc-retry-pushback-ms", "1"),)),
    ],
    ids=["unavailable", "retry-after", "pushback"],
)
def test_what_may_be_sent_again_is(way, step):
    with over_grpc(step, step, prediction(1, 2)) as server:
        assert ask(way, to(server.port, "grpc")).tolist() == [1, 2]
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        (Code.INVALID_ARGUMENT, "input size does not match signature", clients.BadRequestError),
        (Code.INVALID_ARGUMENT, "Unrecognized servable version label: x", clients.UnknownModelError),
        (Code.FAILED_PRECONDITION, "no", clients.BadRequestError),
        (Code.OUT_OF_RANGE, "no", clients.BadRequestError),
        (Code.NOT_FOUND, "Servable not found for request: Latest(x)", clients.UnknownModelError),
        (Code.UNAUTHENTICATED, "who are you", clients.UnauthenticatedError),
        (Code.PERMISSION_DENIED, "not you", clients.UnauthenticatedError),
        (Code.RESOURCE_EXHAUSTED, "too often", clients.OverloadedError),
        (Code.CANCELLED, "away", clients.ServerFailureError),
        (Code.ABORTED, "away", clients.ServerFailureError),
        (Code.ALREADY_EXISTS, "there", clients.ServerFailureError),
        (Code.UNIMPLEMENTED, "not here", clients.ServerFailureError),
        (Code.INTERNAL, "broken\nTraceback (most recent call last):", clients.ServerFailureError),
        (Code.UNKNOWN, "", clients.ServerFailureError),
        (Code.DATA_LOSS, "lost", clients.ServerFailureError),
    ],
)
def test_errors_have_a_class_each_and_are_not_sent_again(way, code, message, kind):
    with over_grpc(Abort(code, message)) as server, pytest.raises(kind) as caught:
        ask(way, to(server.port, "grpc"))
    assert type(caught.value) is kind
    assert caught.value.code == code.name
    assert message.partition("\n")[0] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(server.asked) == 1


def test_after_all_tries_the_last_error_is_raised(way):
    step, said = Abort(Code.UNAVAILABLE, "loading"), r"loading.*4 tries"
    with over_grpc(step) as server, pytest.raises(clients.UnavailableError, match=said):
        ask(way, to(server.port, "grpc"))
    assert len(server.asked) == 4


def test_a_server_that_is_not_there_is_tried_again(way):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(clients.UnavailableError, match=r"refused.*4 tries"):
        ask(way, to(port, "grpc"))


@pytest.mark.parametrize("step", [scripted.reset, scripted.raw(b"HTTP/1.1 400 X\r\n\r\n")], ids=["reset", "http1"])
def test_a_server_that_does_not_speak_grpc(way, step):
    with rest(step) as server, pytest.raises(clients.ClientError) as caught:
        ask(way, to(server.port, "grpc"))
    assert isinstance(caught.value, clients.UnavailableError | clients.ServerFailureError)
    assert "\n" not in str(caught.value)


def test_a_slow_answer_ends_with_the_deadline_and_is_not_asked_for_again(way):
    with over_grpc(Silence()) as server, pytest.raises(clients.TimedOutError, match=r"within 1\.5 s"):
        ask(way, to(server.port, "grpc", timeout=1.5))
    assert len(server.asked) == 1


def test_the_deadline_is_of_the_call_and_not_of_a_try(way):
    with over_grpc(Abort(Code.UNAVAILABLE, "loading"), Silence()) as server, pytest.raises(clients.TimedOutError):
        ask(way, to(server.port, "grpc", timeout=1.5))
    assert len(server.asked) == 2


def test_a_wait_past_the_deadline_is_not_begun(way):
    step = Abort(Code.RESOURCE_EXHAUSTED, "come again", (("retry-after", "3600"),))
    with over_grpc(step) as server, pytest.raises(clients.OverloadedError) as caught:
        ask(way, to(server.port, "grpc"))
    assert caught.value.retry_after == 3600
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "step",
    [
        predict_pb2.PredictResponse().SerializeToString(),
        prediction(1, 2, dtype=types_pb2.DT_STRING),
        prediction(1, 2, 3),
        prediction(),
    ],
    ids=["no-output", "texts", "three-rows", "no-rows"],
)
def test_what_is_no_answer_of_this_model(way, step):
    with over_grpc(step) as server, pytest.raises(clients.ServerFailureError):
        ask(way, to(server.port, "grpc"))
    assert len(server.asked) == 1


def test_status(way):
    response = status_pb2.GetModelStatusResponse()
    response.model_version_status.add(version=2, state=status_pb2.ModelVersionStatus.AVAILABLE)
    one = response.model_version_status.add(version=1, state=status_pb2.ModelVersionStatus.END)
    one.status.error_code, one.status.error_message = 5, "gone"
    with over_grpc(response.SerializeToString()) as server:
        found = ask(way, to(server.port, "grpc"), "status")
    assert server.asked[0][0] == "/tensorflow.serving.ModelService/GetModelStatus"
    assert found == [
        clients.VersionStatus(2, "AVAILABLE"),
        clients.VersionStatus(1, "END", "NOT_FOUND", "gone"),
    ]


def test_metadata(way):
    signatures = metadata_pb2.SignatureDefMap()
    signature = signatures.signature_def["serving_default"]
    signature.inputs["hr"].dtype = types_pb2.DT_INT64
    signature.inputs["hr"].tensor_shape.dim.add(size=-1)
    signature.outputs["cnt"].dtype = types_pb2.DT_FLOAT
    signature.outputs["cnt"].tensor_shape.unknown_rank = True
    response = metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name, response.model_spec.version.value = "bike_demand", 7
    response.metadata["signature_def"].Pack(signatures)
    with over_grpc(response.SerializeToString()) as server:
        found = ask(way, to(server.port, "grpc"), "metadata")
    assert (found.model, found.version) == ("bike_demand", 7)
    assert found.signatures["serving_default"].inputs == {"hr": clients.TensorInfo("DT_INT64", (-1,))}
    assert found.signatures["serving_default"].outputs == {"cnt": clients.TensorInfo("DT_FLOAT", None)}


@pytest.mark.parametrize(("status", "healthy"), [(1, True), (2, False)])
def test_health(way, status, healthy):
    from grpc_health.v1 import health_pb2

    with over_grpc(health_pb2.HealthCheckResponse(status=status).SerializeToString()) as server:
        assert ask(way, to(server.port, "grpc"), "healthy") is healthy
    assert server.asked[0][0] == "/grpc.health.v1.Health/Check"
    assert b"tensorflow.serving.PredictionService" in server.asked[0][2]


def test_health_of_a_server_without_the_service(way):
    response = status_pb2.GetModelStatusResponse()
    response.model_version_status.add(version=2, state=status_pb2.ModelVersionStatus.AVAILABLE)
    with over_grpc(Abort(Code.UNIMPLEMENTED, "no"), response.SerializeToString()) as server:
        assert ask(way, to(server.port, "grpc"), "healthy") is True
    assert len(server.asked) == 2


def test_secrets_are_sent_and_never_shown(way):
    with over_grpc(Abort(Code.UNAUTHENTICATED, "no")) as server:
        connection = to(server.port, "grpc", token="t0ken", api_key="k3y")
        with pytest.raises(clients.UnauthenticatedError) as caught:
            ask(way, connection)
    assert server.asked[0][1]["authorization"] == "Bearer t0ken"
    assert server.asked[0][1]["x-api-key"] == "k3y"
    assert not any(secret in f"{caught.value} {connection!r}" for secret in ("t0ken", "k3y"))
