"""A classifier over TF Serving's Classify API: the official stubs and REST get the class that the model decides for."""

from __future__ import annotations

import json
import urllib.request

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import prediction_service_pb2_grpc

from bike_pipeline import features
from bike_pipeline.modeling import saved_model
from bike_pipeline.modeling.loaded_model import LoadedModel
from bike_pipeline.serving.clients import connect
from bike_pipeline.serving.clients.connection import Connection
from bike_pipeline.serving.clients.errors import ServerFailureError
from bike_pipeline.serving.protos import classification_pb2
from tests.serving.running import MODEL, push, running_server, with_export

NAMES = [feature.name for feature in features.MODEL_INPUTS]
WAIT = 60.0


@pytest.fixture(scope="module")
def server(busy_model, tmp_path_factory):
    """A server of the classifier, whose plain signatures an export answers."""
    base, folder = tmp_path_factory.mktemp("classifier"), tmp_path_factory.mktemp("with-export")
    push(base, with_export(busy_model.path, folder / "model"), 1)
    with running_server(base, tmp_path_factory.mktemp("classifier-workspace")) as running:
        yield running


@pytest.fixture(scope="module")
def rows(busy_model):
    return {name: busy_model.rows[name][::30] for name in NAMES}


@pytest.fixture(scope="module")
def wanted(busy_model, rows):
    """The probability of each row, and the classes in the order of the answer."""
    p = LoadedModel(busy_model.path).predict(rows)
    called = p >= saved_model.target_of(str(busy_model.path)).threshold
    assert 0 < called.sum() < len(p)
    return [
        [("busy", float(one)), ("not busy", 1 - float(one))][:: 1 if is_busy else -1]
        for one, is_busy in zip(p, called, strict=True)
    ]


def test_the_stubs_of_tf_serving_get_the_decided_class_first(server, rows, wanted):
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name, request.model_spec.signature_name = MODEL, features.SERVING_CLASSIFY
    for i in range(len(rows["hr"])):
        example = request.input.example_list.examples.add()
        for feature in features.MODEL_INPUTS:
            kept = example.features.feature[feature.name]
            values = kept.int64_list if feature.kind == "int" else kept.float_list
            values.value.append(rows[feature.name][i].item())
    with grpc.insecure_channel(server.grpc) as channel:
        response = prediction_service_pb2_grpc.PredictionServiceStub(channel).Classify(request, timeout=WAIT)
    found = [[(c.label, c.score) for c in one.classes] for one in response.result.classifications]
    assert [[label for label, _ in one] for one in found] == [[label for label, _ in one] for one in wanted]
    np.testing.assert_allclose(
        [[score for _, score in one] for one in found], [[score for _, score in one] for one in wanted], atol=1e-5
    )


def test_rest_classifies(server, rows, wanted):
    examples = [{name: values[i].item() for name, values in rows.items()} for i in range(len(rows["hr"]))]
    # JSON has one kind of number: a float that is whole would be read as an int64 feature.
    for example in examples:
        for feature in features.MODEL_INPUTS:
            if feature.kind == "float" and float(example[feature.name]).is_integer():
                example[feature.name] += 1e-6
    body = json.dumps({"signature_name": features.SERVING_CLASSIFY, "examples": examples}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{server.url}:classify", body), timeout=WAIT) as response:
        found = json.loads(response.read())["results"]
    assert [one[0][0] for one in found] == [one[0][0] for one in wanted]


def test_an_export_answers_the_plain_signatures_with_the_probability(server, busy_model, rows):
    assert server.told["versions"]["1"]["serving_default"] == "tflite_float32"
    p = LoadedModel(busy_model.path).predict(rows)
    for protocol, address in (("rest", server.rest), ("grpc", server.grpc)):
        host, _, port = address.rpartition(":")
        asked = Connection(host, int(port), protocol, MODEL, answer="busy_probability")
        with connect(asked) as client:
            np.testing.assert_allclose(client.predict(rows), p, atol=1e-5)


def test_a_client_of_rentals_is_told_what_this_model_answers(server, rows):
    host, _, port = server.grpc.rpartition(":")
    with connect(Connection(host, int(port), "grpc", MODEL)) as client, pytest.raises(ServerFailureError) as caught:
        client.predict(rows)
    assert "no output cnt, only busy_probability" in str(caught.value)
