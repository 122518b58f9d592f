"""What a server keeps of its requests: who they were, what was asked and answered, never a credential or a failure."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import prediction_service_pb2_grpc

from bike_pipeline import features
from bike_pipeline.modeling.golden import golden_rows
from bike_pipeline.serving.protos import prediction_log_pb2
from bike_pipeline.serving.request_log import Entry, unpacked
from bike_pipeline.serving.server.metrics import Metrics
from bike_pipeline.serving.server.request_log import _BATCH, _MOST_BATCHES, RequestLog, request_id_of
from bike_pipeline.settings.monitoring import RequestLogSettings
from tests.serving.running import MODEL, push, row, running_server
from tests.serving.server.asking import answer_of, b64, example_of, request_of, wait_until

SECRET = "v3ry-s3cret-t0ken"


@pytest.fixture
def models(simple_models, tmp_path):
    push(tmp_path / "models", simple_models[1], 1)
    return tmp_path / "models"


def ask(running, body, **headers):
    """Return status, the name of the request that the answer tells, and the answer."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"{running.url}:predict", json.dumps(body).encode(), sent)
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, response.headers["X-Request-Id"], json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["X-Request-Id"], json.load(error)


def logged(folder: Path):
    """Return what the lines of a log say."""
    found = sorted((folder / "monitoring" / "requests").glob("*.jsonl"))
    return [json.loads(line) for path in found for line in path.read_bytes().splitlines()]


def records(folder: Path):
    """Return the PredictionLogs of a log as TensorFlow reads them, which checks each checksum."""
    import tensorflow as tf

    paths = map(str, sorted((folder / "monitoring" / "requests").glob("*.tfrecord")))
    return [prediction_log_pb2.PredictionLog.FromString(one.numpy()) for one in tf.data.TFRecordDataset([*paths])]


def outcomes(running):
    """Return how many rows the log took, by what became of them."""
    with urllib.request.urlopen(f"http://{running.rest}/monitoring/prometheus/metrics") as response:
        text = response.read().decode()
    found = re.findall(r'bike_request_log_rows_total\{outcome="(\w+)"\} (\d+)', text)
    return {name: int(count) for name, count in found if count != "0"}


def test_every_protocol_and_signature_is_logged_and_each_answer_says_its_name(models, tmp_path):
    with running_server(models, tmp_path, "monitoring.request_log.rows_per_request=2") as running:
        answered = [
            ask(running, {"instances": [row(8, 0.5)]}, X_Request_Id="lone"),
            ask(running, {"instances": [row(8, 0.5), row(9, 0.25), row(10, 0.25)]}, X_Request_Id="three"),
            ask(running, {"signature_name": "texts", "instances": ["ab"]}, X_Request_Id="texts"),
            ask(
                running,
                {"signature_name": "serving_examples", "instances": [{"b64": b64(example_of(row(3, 0.5)))}]},
                X_Request_Id="example",
            ),
            ask(running, {"instances": [{"hr": 3}]}, X_Request_Id="refused"),
        ]
        assert [(status, name) for status, name, _ in answered] == [
            (200, "lone"),
            (200, "three"),
            (200, "texts"),
            (200, "example"),
            (400, "refused"),
        ]
        with grpc.insecure_channel(running.grpc) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            asked, call = stub.Predict.with_call(request_of(row(4, 0.5)), metadata=(("x-request-id", "by-grpc"),))
            assert answer_of(asked) == [54.0]
            assert dict(call.trailing_metadata())["x-request-id"] == "by-grpc"
            with pytest.raises(grpc.RpcError) as refused:
                stub.Predict(request_of(row(4, 0.5), signature="none"), metadata=(("x-request-id", "by-grpc-not"),))
            assert dict(refused.value.trailing_metadata())["x-request-id"] == "by-grpc-not"
        wait_until(lambda: outcomes(running) == {"logged": 8, "left_out": 1})
        assert running.stop() == 0
    found = {line["event"]["id"]: line for line in logged(tmp_path)}
    assert list(found) == [
        "lone/0",
        "three/0",
        "three/1",
        "texts/0",
        "example/0",
        "refused/0",
        "by-grpc/0",
        "by-grpc-not/0",
    ]
    first = found["lone/0"]
    assert first["bike"] == {
        "schema": 2,
        "sampling_rate": 1.0,
        "model": MODEL,
        "version": 1,
        "signature": "serving_default",
        "backend": "tflite_float32",
        "row": 0,
        "features": row(8, 0.5),
        "answer": 58.0,
    }
    assert first["event"]["dataset"] == "bike_pipeline.requests"
    assert first["event"]["outcome"] == "success"
    assert 0 < first["event"]["duration"] < 60e9
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", first["@timestamp"])
    assert [found[f"three/{n}"]["bike"]["answer"] for n in range(2)] == [58.0, 34.0]
    assert found["example/0"]["bike"]["features"] == row(3, 0.5)
    assert found["example/0"]["bike"]["answer"] == 53.0
    assert "features" not in found["texts/0"]["bike"]
    for name, code in (("refused", "INVALID_ARGUMENT"), ("by-grpc-not", "FAILED_PRECONDITION")):
        line = found[f"{name}/0"]
        assert (line["event"]["outcome"], line["error"]) == ("failure", {"code": code})
        assert line["bike"] == {"schema": 2, "sampling_rate": 1.0, "model": MODEL, "row": 0}
    assert found["by-grpc/0"]["network"] == {"protocol": "grpc"}
    logs = records(tmp_path)
    assert [log.predict_log.request.model_spec.signature_name for log in logs] == [
        "serving_default",
        "serving_default",
        "texts",
        "serving_examples",
        "serving_default",
    ]
    assert [[*log.predict_log.response.outputs["cnt"].float_val] for log in logs] == [[58], [58, 34], [], [53], [54]]
    assert [*logs[1].predict_log.request.inputs["hr"].int64_val] == [8, 9]
    assert logs[0].log_metadata.model_spec.version.value == 1


def test_no_credential_is_in_any_file_of_the_workspace(models, tmp_path, monkeypatch):
    key = "0123456789abcdef" * 2
    monkeypatch.setenv("BIKE_SERVING_SERVER_KEY", key)
    with running_server(models, tmp_path) as running:
        bearer, wrong = {"Authorization": f"Bearer {key}"}, {"Authorization": f"Bearer {SECRET}"}
        assert ask(running, {"instances": [row(9, 0.5)]}, **bearer)[0] == 200
        assert ask(running, {"instances": [row(8, 0.5)]}, **bearer)[0] == 200
        assert ask(running, {"instances": [row(8, 0.5)]}, **wrong)[0] == 401
        # A body that is refused may hold anything.
        assert ask(running, {"instances": [{**row(8, 0.5), SECRET: 1}]}, **bearer)[0] == 400
        assert ask(running, {"instances": [row(8, 0.5)]}, X_Request_Id=f"{SECRET} {key}", **bearer)[0] == 200
        assert running.stop() == 0
    assert len(logged(tmp_path)) == 4
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and path.parent.name in {"requests", "logs"}]
    assert len(kept) == 3
    for path in kept:
        content = path.read_bytes()
        assert SECRET.encode() not in content
        assert key.encode() not in content


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("9f86d081-884c-4d63", True),
        ("Root=1-67891233-abcdef012345678912345678", True),
        ("a" * 128, True),
        ("a" * 129, False),
        ("", False),
        ("two words", False),
        ("line\nbreak", False),
        ("<script>", False),
        ("'; DROP TABLE", False),
        ("../../etc", False),
        ("ünï", False),
    ],
)
def test_a_request_keeps_its_name_if_it_can_do_no_harm(sent, kept):
    found = request_id_of(sent)
    assert (found == sent) is kept
    assert re.fullmatch(r"[A-Za-z0-9._:/+=-]+", found)


def test_names_that_are_made_differ():
    assert len({request_id_of("") for _ in range(1000)}) == 1000


def test_a_log_that_cannot_be_written_costs_lines_is_told_once_and_goes_on_by_itself(models, tmp_path):
    place = tmp_path / "log"
    place.write_text("a file in the way")
    with running_server(models, tmp_path, f"monitoring.request_log.path={place}") as running:
        for number in range(3):
            assert ask(running, {"instances": [row(8, 0.5)]})[0] == 200
            wait_until(lambda: outcomes(running) == {"dropped": number + 1})  # noqa: B023
        assert running.log.count("lines are dropped, requests are not") == 1
        place.unlink()
        assert ask(running, {"instances": [row(8, 0.5)]}, X_Request_Id="again")[0] == 200
        wait_until(lambda: outcomes(running) == {"dropped": 3, "logged": 1})
        assert "it is written again; 3 rows were dropped" in running.log
        # Somebody tidies up.
        for path in place.iterdir():
            path.unlink()
        assert ask(running, {"instances": [row(8, 0.5)]}, X_Request_Id="tidied")[0] == 200
        wait_until(lambda: outcomes(running) == {"dropped": 3, "logged": 2})
        (path,) = place.glob("*.jsonl")
        assert json.loads(path.read_bytes())["http"]["request"]["id"] == "tidied"


def test_a_killed_writer_costs_no_request_and_the_next_one_goes_on(models, tmp_path):
    with running_server(models, tmp_path) as running:
        assert ask(running, {"instances": [row(8, 0.5)]}, X_Request_Id="before")[0] == 200
        wait_until(lambda: outcomes(running) == {"logged": 1})
        children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children")
        threads = Path(f"/proc/{running.process.pid}/task").glob("*/children")
        writers = [int(pid) for path in {children, *threads} for pid in path.read_text().split()]
        assert writers
        for pid in writers:
            os.kill(pid, signal.SIGKILL)
        for number in range(2):
            assert ask(running, {"instances": [row(8, 0.5)]}, X_Request_Id=f"after-{number}")[0] == 200
            wait_until(lambda: sum(outcomes(running).values()) == number + 2)  # noqa: B023
        assert running.stop() == 0
    assert {line["http"]["request"]["id"] for line in logged(tmp_path)} >= {"before", "after-1"}


def test_switched_off_nothing_is_written_and_answers_have_names(models, tmp_path):
    with running_server(models, tmp_path, "monitoring.request_log.enabled=false") as running:
        assert ask(running, {"instances": [row(8, 0.5)]}, X_Request_Id="abc")[1] == "abc"
        assert outcomes(running) == {}
    assert not (tmp_path / "monitoring").exists()


def test_more_requests_than_may_wait_are_dropped_and_counted(tmp_path):
    metrics = Metrics()
    log = RequestLog(RequestLogSettings(), tmp_path, metrics, 30.0)
    for _ in range(_BATCH * _MOST_BATCHES + 5):
        log.add((0, 0, "a", "http", MODEL, "OK", 1.0), None)
    assert 'bike_request_log_rows_total{outcome="dropped"} 5' in [*metrics.request_log_rows.lines()]


def test_what_comes_while_the_last_batch_is_written_is_written_too(tmp_path, monkeypatch):
    taken = RequestLog(RequestLogSettings(), tmp_path, Metrics(), timeout_seconds=1.0)
    entry = Entry(0, 0, "a", "http", MODEL, "OK", 0.5, None, None, ())
    batches = []

    async def slow(batch, hurry):
        if not batches:
            taken.add(entry[:7], None)
            taken._stopping.set()
        batches.append((hurry, [*unpacked(batch)]))
        return ""

    monkeypatch.setattr(taken._writer, "write", slow)
    taken.add(entry[:7], None)
    asyncio.run(asyncio.wait_for(taken.run(), 30))
    assert batches == [(False, [entry]), (False, [entry])]


def test_each_request_of_a_batch_keeps_its_version_s_own_facts(tmp_path, monkeypatch):
    taken = RequestLog(RequestLogSettings(), tmp_path, Metrics(), timeout_seconds=1.0)
    signature, batches = SimpleNamespace(name="s"), []

    async def write(batch, _hurry):
        batches.append([*unpacked(batch)])
        taken._stopping.set()
        return ""

    monkeypatch.setattr(taken._writer, "write", write)
    for number in (1, 2, 1):
        version = SimpleNamespace(about={"s": (number, "s", f"backend-{number}", (("hr", 9),), None)})
        answer = {"cnt": np.array([10.0 * number], np.float32)}
        head = (0, 0, f"of-{number}", "http", MODEL, "OK", 1.0)
        taken.add(head, taken.asked(version, signature, (number,), answer))
        taken.add((*head[:-2], "INTERNAL", 1.0), None)
        # What is gone before the batch is written must not be taken for another at its place in memory.
        del version
    asyncio.run(asyncio.wait_for(taken.run(), 30))
    (batch,) = batches
    assert [(one.request_id, one.code, one.about and one.about[:3]) for one in batch] == [
        (f"of-{number}", code, asked)
        for number in (1, 2, 1)
        for code, asked in (("OK", (number, "s", f"backend-{number}")), ("INTERNAL", None))
    ]
    assert [(one.columns, one.outputs[0][3]) for one in batch if one.about] == [
        ((number,), np.float32(10.0 * number).tobytes()) for number in (1, 2, 1)
    ]


def test_behind_many_that_wait_nothing_pauses(tmp_path, monkeypatch):
    taken = RequestLog(RequestLogSettings(), tmp_path, Metrics(), timeout_seconds=1.0)
    hurried = []

    async def write(batch, hurry):
        hurried.append(hurry)
        taken._stopping.set()
        return ""

    monkeypatch.setattr(taken._writer, "write", write)
    for _ in range(_BATCH * _MOST_BATCHES):
        taken.add((0, 0, "a", "http", MODEL, "OK", 1.0), None)
    asyncio.run(asyncio.wait_for(taken.run(), 30))
    assert hurried[0]
    assert not hurried[-1]
    assert hurried == sorted(hurried, reverse=True)


@pytest.mark.parametrize(("sample", "expected"), [(1.0, (1, 1)), (0.0, (0, 0)), (0.25, (0.2, 0.3))])
def test_a_share_of_the_requests_is_kept(tmp_path, sample, expected):
    log = RequestLog(RequestLogSettings(sample=sample), tmp_path, Metrics(), 30.0)
    share = sum(log.takes(f"request-{n:x}", n * 10**8) > 0.0 for n in range(10_000)) / 10_000
    assert expected[0] <= share <= expected[1]


def test_an_answer_is_logged_with_the_interval_that_another_signature_tells(model_server):
    workspace = Path(model_server.told["log"]).parents[1]
    golden = golden_rows(200)
    rows = [{f.name: golden[f.name][n].item() for f in features.MODEL_INPUTS} for n in range(20)]
    told = ask(model_server, {"signature_name": features.SERVING_INTERVALS, "instances": rows}, X_Request_Id="told")
    ask(model_server, {"signature_name": features.SERVING_ALL_INPUTS, "instances": rows}, X_Request_Id="plain")

    def of(name):
        return [line["bike"] for line in logged(workspace) if line["http"]["request"]["id"] == name]

    wait_until(lambda: len(of("plain")) == 20)
    for line, answer in zip(of("plain"), told[2]["predictions"], strict=True):
        assert line["answer"] == pytest.approx(answer["cnt"], rel=1e-6)
        bounds = [line["interval"][name] for name in ("lower", "upper")]
        assert bounds == pytest.approx([answer["p05"], answer["p95"]], rel=1e-5)
    assert of("told")[0]["interval"] == of("plain")[0]["interval"]
