"""Large requests are answered as small ones are, and nobody else waits for them."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import prediction_service_pb2_grpc

from bike_pipeline.serving.protos import get_model_status_pb2, predict_pb2
from bike_pipeline.serving.server import answering, tensors
from bike_pipeline.settings.serving import LimitSettings
from tests.serving.running import MODEL, push, row, running_server

ROWS = 20_000
# What fills a body with the dearest values: each is two bytes long and a list of its own.
EMPTY_LISTS = b"[]," * 1_000_000 + b"[]"


@pytest.fixture(scope="module")
def server(simple_models, tmp_path_factory):
    """A server of its own: the process that parses is looked at."""
    folder = tmp_path_factory.mktemp("large")
    push(folder / "models", simple_models[1], 1)
    with running_server(folder / "models", folder / "workspace") as running:
        yield running


def asked(running, body, path=f"/v1/models/{MODEL}:predict"):
    connection = http.client.HTTPConnection(running.rest, timeout=120)
    with contextlib.closing(connection):
        connection.request("POST", path, body)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def called(running, message, method="Predict"):
    """Send bytes as a message; return the status and the answer."""
    with grpc.insecure_channel(running.grpc, [("grpc.max_receive_message_length", -1)]) as channel:
        call = channel.unary_unary(f"/tensorflow.serving.PredictionService/{method}")
        try:
            return "OK", call(message, timeout=120)
        except grpc.RpcError as error:
            return error.code().name, error.details()


def message_of(count, signature=""):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = MODEL
    request.model_spec.signature_name = signature
    for name, value in row(8, 0.5).items():
        values = np.arange(count) % 24 if name == "hr" else np.full(count, value)
        kind = np.float32 if isinstance(value, float) else np.int64
        tensors.fill(request.inputs[name], values.astype(kind))
    return request


def parsers(running):
    """Return the processes that a server has started."""
    threads = Path(f"/proc/{running.process.pid}/task").glob("*/children")
    return [child for thread in threads for child in thread.read_text(encoding="ascii").split()]


@pytest.fixture(scope="module")
def expected():
    return [float(number % 24) + 50.0 for number in range(ROWS)]


def test_many_rows_are_answered_as_few_are_in_each_form_and_over_both_protocols(server, expected):
    rows = [row(number % 24, 0.5) for number in range(ROWS)]
    columns = {name: [each[name] for each in rows] for name in rows[0]}
    assert asked(server, json.dumps({"instances": rows})) == (200, {"predictions": expected})
    assert asked(server, json.dumps({"inputs": columns})) == (200, {"outputs": expected})
    code, answer = called(server, message_of(ROWS).SerializeToString())
    assert code == "OK"
    response = predict_pb2.PredictResponse.FromString(answer)
    assert tensors.to_array(response.outputs["cnt"], "cnt").tolist() == expected
    assert response.model_spec.version.value == 1


def test_texts_too(server):
    texts = [f"text {number}" * 3 for number in range(9000)]
    body = json.dumps({"signature_name": "texts", "inputs": {"text": texts}})
    status, answer = asked(server, body)
    assert status == 200
    assert answer["outputs"]["length"] == [len(text) for text in texts]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b'{"instances": [' + b"1," * 60_000 + b"}", 400, "JSON Parse error"),
        (b'{"instances": ' + b"[" * 40 + b" " * 90_000, 400, "nested deeper than 32 levels"),
        (b'{"instances": [' + b"1," * 4_000_000 + b"1]}", 400, "more than 65536 rows"),
        (b'{"instances": [' + b"{}" * 2_000_000 + b"]}", 400, "more than 65536 rows"),
        (b'{"instances": [' + EMPTY_LISTS + b"]}", 400, "expecting list of objects"),
        (b'{"instances": [{"hr": 1}], "x": [' + EMPTY_LISTS + b"]}", 400, "keys must be equal to"),
        (json.dumps({"instances": [row(8, 0.5)] * 999, "signature_name": "x"}).encode(), 400, '"x" not found'),
        (json.dumps({"instances": [{**row(8, 0.5), "hr": 8.5}] * 999}).encode(), 400, "not of expected type"),
    ],
    ids=["cut", "deep", "values", "objects", "lists", "beside", "signature", "type"],
)
def test_a_large_body_with_a_fault_is_refused_as_a_small_one_is(server, body, status, said):
    found, answer = asked(server, body)
    assert found == status
    assert said in answer["error"]
    # Bad JSON is told before a model that is not there, as TF Serving does.
    found, answer = asked(server, body, "/v1/models/nobody:predict")
    assert found == (400 if {said} & {"JSON Parse error", "more than 65536 rows"} or "deeper" in said else 404)


def test_what_is_refused_is_counted_as_what_it_is(server):
    body = json.dumps({"inputs": {name: [value] * 70_000 for name, value in row(8, 0.5).items()}})
    assert asked(server, body)[0] == 400
    connection = http.client.HTTPConnection(server.rest, timeout=120)
    with contextlib.closing(connection):
        connection.request("GET", "/monitoring/prometheus/metrics")
        counts = connection.getresponse().read().decode()
    assert f'request_count{{model_name="{MODEL}",status="INVALID_ARGUMENT"}}' in counts
    assert 'status="INTERNAL"' not in counts


def test_a_large_message_with_a_fault_is_refused_as_a_small_one_is(server):
    assert called(server, b"\xff" * 100_000)[0] == "INVALID_ARGUMENT"
    missing = message_of(ROWS)
    del missing.inputs["hr"]
    code, details = called(server, missing.SerializeToString())
    assert (code, "Missing but required: {hr}" in details) == ("INVALID_ARGUMENT", True)
    wrong = message_of(ROWS)
    wrong.inputs["temp"].dtype = wrong.inputs["hr"].dtype
    assert called(server, wrong.SerializeToString())[0] == "INVALID_ARGUMENT"
    many = message_of(2)
    for number in range(20_000):
        many.inputs[f"input {number}"].dtype = 1
    assert "more than 4096 inputs" in called(server, many.SerializeToString())[1]
    unknown = message_of(ROWS)
    unknown.model_spec.name = "nobody"
    assert called(server, unknown.SerializeToString())[0] == "NOT_FOUND"
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "a" * 2_000_000
    assert called(server, status.SerializeToString(), "GetModelMetadata")[0] == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize("size", [65_537, 1_000_000, 2**40])
def test_a_claimed_size_makes_nothing(server, size):
    request = message_of(1)
    for tensor in request.inputs.values():
        tensor.tensor_shape.dim[0].size = size
    assert len(request.SerializeToString()) < 400
    code, details = called(server, request.SerializeToString())
    assert (code, details) == ("INVALID_ARGUMENT", "The request holds more than 65536 rows; send several.")
    # Neither in the other dimensions.
    for tensor in request.inputs.values():
        tensor.tensor_shape.dim[0].size = 1
        tensor.tensor_shape.dim.add().size = size
    code, details = called(server, request.SerializeToString())
    assert (code, "tensor parsing error" in details) == ("INVALID_ARGUMENT", True)


def test_the_process_that_parses_begins_anew_where_it_ended_and_ends_with_its_server(simple_models, tmp_path):
    push(tmp_path / "models", simple_models[1], 1)
    body = json.dumps({"instances": [row(8, 0.5)] * 999})
    with running_server(tmp_path / "models", tmp_path / "workspace", "monitoring.request_log.enabled=false") as running:
        assert parsers(running) == []
        assert asked(running, json.dumps({"instances": [row(8, 0.5)]}))[0] == 200
        assert parsers(running) == [], "small requests need no other process"
        assert asked(running, body)[0] == 200
        (first,) = parsers(running)
        os.kill(int(first), signal.SIGKILL)
        statuses = {asked(running, body)[0] for _ in range(3)}
        assert statuses <= {200, 503}
        assert asked(running, body) == (200, {"predictions": [58.0] * 999})
        (second,) = parsers(running)
        assert second != first
        assert running.stop() == 0
        assert not Path(f"/proc/{second}").exists()
        assert "Traceback" not in running.log


def test_it_ends_also_where_its_server_is_killed(simple_models, tmp_path):
    push(tmp_path / "models", simple_models[1], 1)
    with running_server(tmp_path / "models", tmp_path / "workspace", "monitoring.request_log.enabled=false") as running:
        assert asked(running, json.dumps({"instances": [row(8, 0.5)] * 999}))[0] == 200
        (parser,) = parsers(running)
        running.process.kill()
        running.process.wait()
        for _ in range(100):
            if not Path(f"/proc/{parser}").exists():
                return
            time.sleep(0.1)
    raise AssertionError("it is still there")


class Pinging(threading.Thread):
    """Asks for one row again and again, and keeps the longest wait for an answer."""

    def __init__(self, running):
        super().__init__()
        self._connection = http.client.HTTPConnection(running.rest, timeout=120)
        self._body = json.dumps({"instances": [row(8, 0.5)]})
        self._ended = threading.Event()
        self.longest = 0.0
        self.wrong = 0

    def run(self):
        while not self._ended.is_set():
            began = time.perf_counter()
            self._connection.request("POST", f"/v1/models/{MODEL}:predict", self._body)
            self.wrong += self._connection.getresponse().read() != b'{"predictions":[58.0]}'
            self.longest = max(self.longest, time.perf_counter() - began)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self.join()
        self._connection.close()


def test_nobody_waits_for_a_large_request_of_somebody_else(server, simple_models):
    body = json.dumps({"instances": [row(number % 24, 0.5) for number in range(60_000)]}).encode()
    odd = b'{"instances": [' + EMPTY_LISTS + b"]}"
    message = message_of(60_000).SerializeToString()
    there, _ = tensors.read_signatures(simple_models[1])
    # What each of them would hold the event loop up for, on this machine, now.
    began = time.perf_counter()
    answering.rest_predict(body, LimitSettings(), there)
    alone = time.perf_counter() - began
    assert asked(server, body)[0] == 200
    waits = []
    for _ in range(5):
        with Pinging(server) as pinging:
            assert asked(server, body)[0] == 200
            assert asked(server, odd)[0] == 400
            assert called(server, message)[0] == "OK"
        assert not pinging.wrong
        waits.append(pinging.longest)
    # The best of five: this machine does other things, too.
    assert min(waits) < alone / 3, (waits, alone)


def test_stub_and_plain_bytes_say_the_same(server):
    with grpc.insecure_channel(server.grpc) as channel:
        response = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(message_of(3), timeout=60)
    assert predict_pb2.PredictResponse.FromString(called(server, message_of(3).SerializeToString())[1]) == response
