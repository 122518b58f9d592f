"""`bike-pipeline serve` as its users see it: how it starts, waits, refuses to start, and ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import aiohttp
import grpc
import pytest
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from bike_pipeline.errors import ExitCode
from bike_pipeline.model_registry import model_signature
from bike_pipeline.serving.protos import (
    get_model_status_pb2,
)
from tests.serving.running import MODEL, push, row, running_server
from tests.serving.server.asking import answer_of, asked, available, b64, example_of, request_of, unproven, wait_until


def test_an_export_is_served_without_tensorflow(simple_server):
    assert simple_server.told["versions"] == {"1": {"serving_default": "tflite_float32"}}
    base, status = Path(f"/proc/{simple_server.process.pid}/maps"), simple_server.url
    assert asked(f"{status}:predict", {"instances": [row(8, 0.5)]}) == (200, {"predictions": [58.0]})
    # Another server: this one loads TensorFlow as soon as somebody asks for another signature.
    assert "litert" in base.read_text()


def test_tensorflow_is_loaded_only_when_a_signature_needs_it(server):
    maps = Path(f"/proc/{server.process.pid}/maps")
    loaded = maps.read_text()
    assert "libtensorflow" not in loaded
    assert "libarrow" not in loaded
    examples = [example_of(row(hr, 0.25)) for hr in (3, 4)]
    body = {"signature_name": "serving_examples", "instances": [{"b64": b64(each)} for each in examples]}
    assert asked(f"{server.url}:predict", body) == (200, {"predictions": [28.0, 29.0]})
    assert "libtensorflow" in maps.read_text()
    # What answered before goes on.
    assert asked(f"{server.url}:predict", {"instances": [row(8, 0.5)]}) == (200, {"predictions": [58.0]})


def test_sigterm_answers_what_is_under_way_and_then_ends_with_0(server):
    results = []
    called = []
    ended = []

    async def main():
        stop = asyncio.Event()

        async def ask():
            async with aiohttp.ClientSession() as session:
                while not stop.is_set():
                    try:
                        async with session.post(f"{server.url}:predict", json={"instances": [row(8, 0.5)]}) as response:
                            results.append((response.status, await response.json()))
                    except aiohttp.ClientConnectorError:
                        # Nobody listens any more; a request that was taken was answered.
                        return
                    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                        # A kept connection that was closed before the request was read.
                        return

        async def call():
            async with grpc.aio.insecure_channel(server.grpc) as channel:
                stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
                while True:
                    try:
                        response = await stub.Predict(request_of(row(8, 0.5)), timeout=60)
                    except grpc.aio.AioRpcError as error:
                        ended.append(error.code())
                        return
                    called.append(answer_of(response))

        asking = asyncio.gather(*(ask() for _ in range(8)), *(call() for _ in range(4)))
        while len(results) < 100 or len(called) < 20:
            await asyncio.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        await asking
        stop.set()

    asyncio.run(main())
    assert server.process.wait(timeout=60) == 0
    assert {(status, json.dumps(body)) for status, body in results} == {(200, '{"predictions": [58.0]}')}
    assert {tuple(answer) for answer in called} == {(58.0,)}
    # The only error that clients send again.
    assert ended == [grpc.StatusCode.UNAVAILABLE] * 4


def serve(workspace, *assignments):
    command = [sys.executable, "-m", "bike_pipeline.cli", "serve", "--rest-port", "0", "--grpc-port", "0"]
    for assignment in (f"workspace={workspace}", *assignments):
        command += ["--set", assignment]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ})


@pytest.mark.parametrize("setting", ["rest_port", "grpc_port"])
def test_a_taken_port_is_one_line(tmp_path, setting):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "bike_pipeline.cli", "serve", "--set", f"workspace={tmp_path}"]
        ports = {"rest_port": 0, "grpc_port": 0, setting: port}
        for name, number in ports.items():
            command += [f"--{name.replace('_', '-')}", str(number)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == ExitCode.SERVER
    assert ended.stderr.count("\n") == 1
    assert f"127.0.0.1:{port}: cannot listen" in ended.stderr
    assert setting in ended.stderr


def test_it_waits_for_the_first_version(simple_models, tmp_path):
    with running_server(tmp_path / "models", tmp_path / "workspace", "serving.server.poll_seconds=0.05") as running:
        assert running.told["versions"] == {}
        assert asked(f"{running.url}:predict", {"instances": [row(8, 0.5)]})[0] == 404
        push(running.base, simple_models[1], 1)
        wait_until(lambda: asked(running.url)[0] == 200 and available(running) == [1])
        assert asked(f"{running.url}:predict", {"instances": [row(8, 0.5)]}) == (200, {"predictions": [58.0]})
        assert running.stop() == 0


def test_status_over_grpc_tells_a_broken_version(simple_models, tmp_path):
    push(tmp_path / "models", simple_models[1], 1)
    (tmp_path / "models" / MODEL / "2").mkdir()
    with running_server(tmp_path / "models", tmp_path / "workspace") as running:
        with grpc.insecure_channel(running.grpc) as channel:
            request = get_model_status_pb2.GetModelStatusRequest()
            request.model_spec.name = MODEL
            found = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request, timeout=60)
        # There was no other version yet, so the one before is not looked for: the policy says the newest.
        assert [(each.version, each.state) for each in found.model_version_status] == [(2, 50)]
        assert "cannot read saved_model.pb" in found.model_version_status[0].status.error_message
        assert "version 2 cannot be served" in running.log


def test_an_unknown_backend_is_one_line(tmp_path):
    ended = serve(tmp_path, "serving.server.backends=[caffe2]")
    assert ended.returncode == ExitCode.CONFIGURATION
    assert ended.stderr.startswith("error: serving.server.backends: there is no export format 'caffe2'. Choose among ")


def test_it_listens_on_ipv6(simple_models, tmp_path):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    push(tmp_path / "models", simple_models[1], 1)
    with running_server(tmp_path / "models", tmp_path / "workspace", "serving.server.host='::1'") as running:
        assert asked(f"{running.url}:predict", {"instances": [row(8, 0.5)]}) == (200, {"predictions": [58.0]})
        with grpc.insecure_channel(running.grpc) as channel:
            predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
            assert answer_of(predict(request_of(row(8, 0.5)), timeout=60)) == [58.0]


def test_what_nothing_proves_of_a_version_is_told_when_it_serves(simple_models, tmp_path):
    folder = push(tmp_path / "models", simple_models[1], 1)
    unproven(folder)
    settings = ("serving.server.poll_seconds=0.05",)
    with running_server(tmp_path / "models", tmp_path / "workspace", *settings) as running:
        assert available(running) == [1]
        (said,) = running.told["not_verified"]["1"]
        assert "neither a manifest nor a push record" in said
        assert "is not verified" in running.log


def test_where_a_signature_is_required_an_unsigned_version_does_not_serve(simple_models, tmp_path):
    folder = push(tmp_path / "models", simple_models[1], 1)
    signer = key_of(tmp_path / "key.pem")
    named = (f"signing.trusted_keys=[{tmp_path / 'key.pub'}]", "signing.require_signature=true")
    with running_server(tmp_path / "models", tmp_path / "workspace", *named) as running:
        assert available(running) == []
        _, told = asked(running.url)
        assert "the manifest is not signed" in told["model_version_status"][0]["status"]["error_message"]
    for name in ("evidence.json", "model.sig"):
        (folder / name).unlink()
    model_signature.write(folder, {}, signer, 1)
    with running_server(tmp_path / "models", tmp_path / "workspace", *named) as running:
        assert available(running) == [1]
        assert running.told["not_verified"] == {}


def key_of(path):
    """Return the signing key at `path`, made there with its public one beside it."""
    from bike_pipeline.model_registry import signing

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signing, "_default", {})
        for name in (signing.KEY_VARIABLE, signing.KEY_FILE_VARIABLE):
            patch.delenv(name, raising=False)
        signing.use_key_file(path, make=True)
        return signing.signer()


def test_both_apis_on_one_port_are_refused_in_one_line(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-m", "bike_pipeline.cli", "serve", "--rest-port", "8500", "--set", f"workspace={tmp_path}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == ExitCode.CONFIGURATION
    assert ended.stderr.count("\n") == 1
    assert "serving.server.grpc_port: both APIs would listen on port 8500" in ended.stderr
