"""The official stubs: PredictionService, ModelService, health."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.serving.conformance.conftest import WAIT
from tests.serving.conformance.stubs import (
    Code,
    examples,
    listed,
    metadata_pb2,
    models,
    numbers,
    predict_pb2,
    refused,
    request_of,
    status_pb2,
    types_pb2,
)

# A server that serves two models is started, and a model made for it.
pytestmark = pytest.mark.slow


@pytest.fixture
def management(channel):
    return models.ModelServiceStub(channel)


def test_predictions(service, conforming, rows, ask, url):
    by_content = service.Predict(request_of(conforming.model, rows), timeout=WAIT)
    by_list = service.Predict(request_of(conforming.model, rows, make=listed), timeout=WAIT)
    assert set(by_content.outputs) == {"cnt"}
    assert by_content.outputs["cnt"].dtype == types_pb2.DT_FLOAT
    assert numbers(by_content, "cnt").shape == (50,)
    np.testing.assert_array_equal(numbers(by_content, "cnt"), numbers(by_list, "cnt"))
    over_rest = ask("POST", f"{url}:predict", {"inputs": {name: values.tolist() for name, values in rows.items()}})
    np.testing.assert_allclose(numbers(by_content, "cnt"), over_rest.json["outputs"], rtol=1e-4)
    assert by_content.model_spec.name == conforming.model
    assert by_content.model_spec.version.value >= 1
    assert by_content.model_spec.signature_name == "serving_default"


def test_a_single_value_stands_for_all_rows(service, conforming, rows):
    """TensorProto: the last value is repeated for what is left out."""
    request = request_of(conforming.model, {**rows, "holiday": np.zeros(50, np.int64)}, make=listed)
    del request.inputs["holiday"].int64_val[1:]
    full = request_of(conforming.model, {**rows, "holiday": np.zeros(50, np.int64)})
    found, wanted = (service.Predict(one, timeout=WAIT) for one in (request, full))
    np.testing.assert_array_equal(numbers(found, "cnt"), numbers(wanted, "cnt"))


def test_examples(service, conforming, rows):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = conforming.model, "serving_examples"
    sent = examples(rows)
    request.inputs["examples"].dtype = types_pb2.DT_STRING
    request.inputs["examples"].tensor_shape.dim.add(size=len(sent))
    request.inputs["examples"].string_val.extend(sent)
    found = service.Predict(request, timeout=WAIT)
    plain = service.Predict(request_of(conforming.model, rows), timeout=WAIT)
    np.testing.assert_allclose(numbers(found, "cnt"), numbers(plain, "cnt"), rtol=1e-4)
    assert found.model_spec.signature_name == "serving_examples"


@pytest.mark.parametrize(("choice", "version"), [({}, 2), ({"version": 1}, 1), ({"version_label": "stable"}, 1)])
def test_the_version_or_label_that_was_asked_answers(service, second, choice, version):
    request = request_of(second, {"x": np.zeros(3, np.float32)}, "which")
    if "version" in choice:
        request.model_spec.version.value = choice["version"]
    elif "version_label" in choice:
        request.model_spec.version_label = choice["version_label"]
    response = service.Predict(request, timeout=WAIT)
    assert numbers(response, "version").tolist() == [version] * 3
    assert response.model_spec.version.value == version


def test_messages_of_more_than_four_megabytes(service, conforming, rows):
    many = {name: np.tile(values, 1200) for name, values in rows.items()}
    request = request_of(conforming.model, many)
    assert request.ByteSize() > 4 * 1024 * 1024
    found = numbers(service.Predict(request, timeout=WAIT), "cnt")
    few = numbers(service.Predict(request_of(conforming.model, rows), timeout=WAIT), "cnt")
    np.testing.assert_allclose(found, np.tile(few, 1200), rtol=1e-4)


def test_outputs_that_are_asked_for(service, conforming, rows):
    request = request_of(conforming.model, rows)
    request.output_filter.append("cnt")
    assert set(service.Predict(request, timeout=WAIT).outputs) == {"cnt"}
    request.output_filter.append("other")
    code, details = refused(service.Predict, request)
    assert code is Code.INVALID_ARGUMENT
    assert "other" in details


def test_models_versions_labels_and_signatures_that_are_not_there(service, conforming, rows):
    request = request_of("", rows)
    assert refused(service.Predict, request)[0] is Code.INVALID_ARGUMENT
    assert refused(service.Predict, predict_pb2.PredictRequest())[0] is Code.INVALID_ARGUMENT
    request.model_spec.name = "nothing"
    assert refused(service.Predict, request) == (Code.NOT_FOUND, "Servable not found for request: Latest(nothing)")
    request.model_spec.name, request.model_spec.version.value = conforming.model, 99
    said = f"Servable not found for request: Specific({conforming.model}, 99)"
    assert refused(service.Predict, request) == (Code.NOT_FOUND, said)
    request.model_spec.version_label = "nobody"
    code, details = refused(service.Predict, request)
    assert code is Code.INVALID_ARGUMENT
    assert details.startswith("Unrecognized servable version label: nobody")
    code, details = refused(service.Predict, request_of(conforming.model, rows, "none"))
    assert (code, details) == (Code.FAILED_PRECONDITION, 'Serving signature key "none" not found.')


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hr": None}, "hr"),
        ({"casual": np.zeros(50, np.int64)}, "casual"),
        ({"hr": np.zeros(50, np.float32)}, ""),
        ({"temp": np.zeros(50, np.int64)}, ""),
        ({"hr": np.zeros((50, 2), np.int64)}, ""),
        ({"hr": np.zeros(49, np.int64)}, ""),
    ],
    ids=["missing", "surplus", "float", "int", "matrix", "fewer"],
)
def test_inputs_that_do_not_fit(service, conforming, rows, change, said):
    columns = {name: values for name, values in {**rows, **change}.items() if values is not None}
    code, details = refused(service.Predict, request_of(conforming.model, columns))
    assert code is Code.INVALID_ARGUMENT
    assert said in details


def test_a_tensor_that_is_none(service, conforming, rows):
    request = request_of(conforming.model, rows)
    request.inputs["hr"].tensor_content = b"123"
    assert refused(service.Predict, request)[0] is Code.INVALID_ARGUMENT
    request.inputs["hr"].Clear()
    assert refused(service.Predict, request)[0] is Code.INVALID_ARGUMENT


def test_the_shape_of_an_input_is_the_graphs_business(service, second):
    """The signature of half_plus_two says [?, 1]."""
    for values in (np.float32([1, 2, 5]), np.float32([[1, 2], [3, 4]]), np.float32(7)):
        response = service.Predict(request_of("half_plus_two", {"x": values}), timeout=WAIT)
        np.testing.assert_array_equal(numbers(response, "y"), values / 2 + 2)
    response = service.Predict(request_of(second, {"x": np.float32([[1, 2, 3]])}, "same"), timeout=WAIT)
    assert numbers(response, "y").tolist() == [[1, 2, 3]]


def test_more_dimensions_than_there_are_is_the_clients_error(service, second):
    request = request_of(second, {"x": np.float32([1])}, "same")
    request.inputs["x"].tensor_shape.dim.extend(request.inputs["x"].tensor_shape.dim[:1] * 299)
    assert refused(service.Predict, request)[0] is Code.INVALID_ARGUMENT


def test_metadata(service, conforming, rows):
    request = metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = conforming.model
    response = service.GetModelMetadata(request, timeout=WAIT)
    found = metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(found)
    assert {"serving_default", "serving_examples"} <= set(found.signature_def)
    signature = found.signature_def["serving_default"]
    assert set(signature.inputs) == set(rows)
    assert signature.outputs["cnt"].dtype == types_pb2.DT_FLOAT
    assert [dim.size for dim in signature.outputs["cnt"].tensor_shape.dim] == [-1]
    assert response.model_spec.version.value >= 1


@pytest.mark.parametrize("fields", [[], ["weights"]], ids=["none", "unknown"])
def test_metadata_of_other_fields(service, conforming, fields):
    request = metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.name = conforming.model
    assert refused(service.GetModelMetadata, request)[0] is Code.INVALID_ARGUMENT


def test_metadata_of_what_is_not_served(service):
    request = metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    assert refused(service.GetModelMetadata, request)[0] is Code.INVALID_ARGUMENT
    request.model_spec.name = "nothing"
    assert refused(service.GetModelMetadata, request)[0] is Code.NOT_FOUND


def test_status(management, second):
    request = status_pb2.GetModelStatusRequest()
    request.model_spec.name = second
    found = management.GetModelStatus(request, timeout=WAIT).model_version_status
    assert {(one.version, one.state, one.status.error_code) for one in found} == {(1, 30, 0), (2, 30, 0)}
    request.model_spec.version.value = 1
    assert [one.version for one in management.GetModelStatus(request, timeout=WAIT).model_version_status] == [1]
    request.model_spec.version_label = "canary"
    assert [one.version for one in management.GetModelStatus(request, timeout=WAIT).model_version_status] == [2]


def test_status_of_what_is_not_served(management, second):
    request = status_pb2.GetModelStatusRequest()
    assert refused(management.GetModelStatus, request)[0] is Code.INVALID_ARGUMENT
    request.model_spec.name = "nothing"
    said = "Could not find any versions of model nothing"
    assert refused(management.GetModelStatus, request) == (Code.NOT_FOUND, said)
    request.model_spec.name, request.model_spec.version.value = second, 9
    said = f"Could not find version 9 of model {second}"
    assert refused(management.GetModelStatus, request) == (Code.NOT_FOUND, said)


def test_health(channel, conforming):
    stub = health_pb2_grpc.HealthStub(channel)
    try:
        stub.Check(health_pb2.HealthCheckRequest(), timeout=WAIT)
    except grpc.RpcError as error:
        if error.code() is Code.UNIMPLEMENTED and not conforming.base_path:
            pytest.skip("the server under test has its health service switched off")
    for name in ("tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=WAIT)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert refused(stub.Check, health_pb2.HealthCheckRequest(service="nothing"))[0] is Code.NOT_FOUND


def test_methods_that_there_are_not(channel):
    call = channel.unary_unary("/tensorflow.serving.PredictionService/Explain")
    assert refused(call, b"")[0] is Code.UNIMPLEMENTED


def test_a_message_that_is_none(channel):
    call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    assert refused(call, b"\xff\xff\xff")[0] in (Code.INVALID_ARGUMENT, Code.INTERNAL)
