"""The official stubs: PredictionService, ModelService, health."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bike_pipeline import features
from bike_pipeline.serving import protos
from tests.serving.conformance.conftest import WAIT

# A server that serves two models is started, and a model made for it.
pytestmark = pytest.mark.slow

(
    predict_pb2,
    metadata_pb2,
    status_pb2,
    classification_pb2,
    regression_pb2,
    inference_pb2,
    example_pb2,
    tensor_pb2,
    types_pb2,
    prediction,
    models,
) = map(
    protos.load,
    [
        "tensorflow_serving.apis.predict_pb2",
        "tensorflow_serving.apis.get_model_metadata_pb2",
        "tensorflow_serving.apis.get_model_status_pb2",
        "tensorflow_serving.apis.classification_pb2",
        "tensorflow_serving.apis.regression_pb2",
        "tensorflow_serving.apis.inference_pb2",
        "tensorflow.core.example.example_pb2",
        "tensorflow.core.framework.tensor_pb2",
        "tensorflow.core.framework.types_pb2",
        "tensorflow_serving.apis.prediction_service_pb2_grpc",
        "tensorflow_serving.apis.model_service_pb2_grpc",
    ],
)
Code = grpc.StatusCode
TYPES = {"i8": types_pb2.DT_INT64, "f4": types_pb2.DT_FLOAT}


@pytest.fixture
def service(channel):
    return prediction.PredictionServiceStub(channel)


@pytest.fixture
def management(channel):
    return models.ModelServiceStub(channel)


def examples(rows):
    """Return rows as serialized tf.Examples."""
    found = []
    for i in range(len(next(iter(rows.values())))):
        example = example_pb2.Example()
        for feature in features.REQUIRED_INPUTS:
            kept = example.features.feature[feature.name]
            values = kept.int64_list if feature.kind == "int" else kept.float_list
            values.value.append(rows[feature.name][i].item())
        found.append(example.SerializeToString())
    return found


def tensor(values):
    """Return an array as a TensorProto, by its content."""
    found = tensor_pb2.TensorProto(dtype=TYPES[values.dtype.str[1:]], tensor_content=values.tobytes())
    for size in values.shape:
        found.tensor_shape.dim.add(size=size)
    return found


def listed(values):
    """Return an array as a TensorProto, by its list of values."""
    found = tensor(values)
    found.tensor_content = b""
    (found.int64_val if found.dtype == types_pb2.DT_INT64 else found.float_val).extend(values.ravel().tolist())
    return found


def request_of(model, columns, signature="", make=tensor):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    for name, values in columns.items():
        request.inputs[name].CopyFrom(make(values))
    return request


def numbers(response, name):
    found = response.outputs[name]
    values = (
        np.frombuffer(found.tensor_content, "f4" if found.dtype == types_pb2.DT_FLOAT else "i8")
        if found.tensor_content
        else np.asarray(found.float_val or found.int64_val)
    )
    return values.reshape([dim.size for dim in found.tensor_shape.dim])


def refused(call, request):
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=WAIT)
    assert "Traceback" not in caught.value.details()
    return caught.value.code(), caught.value.details()


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


def test_the_bike_model_does_not_classify(service, conforming):
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = conforming.model
    request.input.example_list.examples.add()
    # TF Serving looks at the tensors only, and says which one is missing.
    wanted = Code.INVALID_ARGUMENT if conforming.is_named else Code.UNIMPLEMENTED
    assert refused(service.Classify, request)[0] is wanted


def _with_examples(request, *values, context=None):
    listed = request.input.example_list if context is None else request.input.example_list_with_context
    for value in values:
        listed.examples.add().features.feature["x"].float_list.value.append(value)
    if context is not None:
        request.input.example_list_with_context.context.features.feature["x"].float_list.value.append(context)
    return request


def _asking(kind, signature, *values, **more):
    request = kind()
    request.model_spec.name, request.model_spec.signature_name = "half_plus_two", signature
    return _with_examples(request, *values, **more)


def test_a_model_of_tensorflow_1_regresses_and_classifies(service, second):
    response = service.Regress(_asking(regression_pb2.RegressionRequest, "regress_x_to_y", 80.0, 2.0), timeout=WAIT)
    assert [one.value for one in response.result.regressions] == [42.0, 3.0]
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("half_plus_two", 123, "regress_x_to_y")
    request = _asking(classification_pb2.ClassificationRequest, "classify_x_to_y", 20.0)
    (found,) = service.Classify(request, timeout=WAIT).result.classifications
    assert [(one.label, one.score) for one in found.classes] == [("", 12.0)]


def test_examples_share_a_context(service, second):
    request = _asking(regression_pb2.RegressionRequest, "regress_x_to_y", context=6.0)
    for _ in range(2):
        request.input.example_list_with_context.examples.add()
    assert [one.value for one in service.Regress(request, timeout=WAIT).result.regressions] == [5.0, 5.0]


@pytest.mark.parametrize(
    ("signature", "values", "code", "said"),
    [
        ("none", (1.0,), Code.INVALID_ARGUMENT, "No signature was found with the name: none"),
        ("regress_x_to_y", (), Code.INVALID_ARGUMENT, "Input is empty"),
    ],
)
def test_examples_that_cannot_be_regressed(service, second, signature, values, code, said):
    found, details = refused(service.Regress, _asking(regression_pb2.RegressionRequest, signature, *values))
    assert found is code
    assert said in details


def _tasks(*tasks):
    request = _with_examples(inference_pb2.MultiInferenceRequest(), 80.0)
    for model, signature, method in tasks:
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name, task.model_spec.signature_name = model, signature
    return request


REGRESS, CLASSIFY = ("half_plus_two", "regress_x_to_y", "regress"), ("half_plus_two", "classify_x_to_y", "classify")


def test_one_request_regresses_and_classifies(service, second):
    regressed, classified = service.MultiInference(_tasks(REGRESS, CLASSIFY), timeout=WAIT).results
    assert [one.value for one in regressed.regression_result.regressions] == [42.0]
    assert classified.classification_result.classifications[0].classes[0].score == 42.0
    assert (classified.model_spec.version.value, classified.model_spec.signature_name) == (123, "classify_x_to_y")


@pytest.mark.parametrize(
    ("tasks", "code", "said"),
    [
        ([REGRESS, ("half_plus_three", "regress_x_to_y", "regress")], Code.INVALID_ARGUMENT, "the same model name"),
        ([REGRESS, REGRESS], Code.INVALID_ARGUMENT, "Duplicate evaluation of signature: regress_x_to_y"),
        ([("half_plus_two", "none", "regress")], Code.INVALID_ARGUMENT, "not found in model graph: none"),
        ([("half_plus_two", "regress_x_to_y", "explain")], Code.UNIMPLEMENTED, "Unsupported signature method_name"),
        ([], Code.INVALID_ARGUMENT, ""),
    ],
    ids=["models", "twice", "signature", "method", "nothing"],
)
def test_tasks_that_do_not_go_together(service, second, tasks, code, said):
    found, details = refused(service.MultiInference, _tasks(*tasks))
    assert found is code
    assert said in details


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
