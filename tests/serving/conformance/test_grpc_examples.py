"""Classify, Regress and MultiInference of PredictionService."""

from __future__ import annotations

import pytest

from tests.serving.conformance.conftest import WAIT
from tests.serving.conformance.stubs import Code, classification_pb2, inference_pb2, refused, regression_pb2

# A server that serves two models is started, and a model made for it.
pytestmark = pytest.mark.slow


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
